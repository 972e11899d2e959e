"""Tables answered in parts: row numbers decide the answer, not files, row groups, order or who computes."""

import json
import shutil
import subprocess
import sys

import networkx as nx
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

import causalgen as cg
from causalgen.cli import batch
from causalgen.cli import main as cli
from causalgen.counterfactuals.export import to_png
from causalgen.data.parquet_rows import ParquetRows
from mechanisms.seeds import keyed_seed

DO = {"a": "low"}
ROWS, PART = 150, 64


@pytest.fixture(scope="module")
def labels(categories, tmp_path_factory):
    """A saved model whose noise is drawn, and a table with a gap: the frame, and its path."""
    scm, data = categories
    root = tmp_path_factory.mktemp("labels")
    scm.save_pretrained(root / "model")
    frame = pd.DataFrame({node: values[:ROWS] for node, values in data.items()})
    frame.loc[[3, 70], "c"] = np.nan
    pq.write_table(pa.Table.from_pandas(frame), root / "table.parquet", row_group_size=17)
    return scm, frame, root


@pytest.fixture(scope="module")
def images(pictures, tmp_path_factory):
    """A saved model of images, arrays of 24 rows, and their PNGs beside it."""
    scm, data = pictures
    root = tmp_path_factory.mktemp("images")
    scm.save_pretrained(root / "model")
    kind, picture = data["kind"][:24], data["picture"][:24]
    for row in range(24):
        (root / f"{row}.png").write_bytes(to_png(picture[row] / 255))
    return scm, kind, picture, root


def parts_of(scm, table, **options):
    return list(cg.counterfactual_parts(scm, table, {"w": DO}, seed=5, part_rows=PART, **options))


def run(*arguments):
    return CliRunner().invoke(cli.app, ["counterfactual", *map(str, arguments)])


def error_of(monkeypatch, capsys, *arguments):
    """The one line of an error."""
    monkeypatch.setattr(sys, "argv", ["causalgen", "counterfactual", *map(str, arguments)])
    with pytest.raises(SystemExit) as stopped:
        cli.main()
    assert stopped.value.code == 1
    said = capsys.readouterr().err
    assert said.startswith("error: ") and said.count("\n") == 1, said
    return said


def equal(one, other):
    return all(np.array_equal(np.asarray(one[node]), np.asarray(other[node])) for node in other)


@pytest.mark.parametrize("samples", [None, 3])
def test_each_part_is_the_plain_answer_to_its_rows(labels, samples):
    scm, frame, root = labels
    parts = parts_of(scm, root / "table.parquet", num_samples=samples)
    assert [len(part.rows) for part in parts] == [64, 64, 22]
    for number, part in enumerate(parts):
        seed = 5 if number == 0 else keyed_seed(5, "part", number)
        rows = frame.iloc[number * PART : (number + 1) * PART]
        expected = scm.counterfactual(dict(rows), DO, num_samples=samples, seed=seed)
        assert part.rows.tolist() == list(rows.index)
        assert equal(part.worlds["w"], expected)
        assert all(
            (part.worlds["w"].provenance[node] == expected.provenance[node]).all() for node in expected
        )


def test_files_row_groups_and_order_do_not_matter(labels, tmp_path):
    scm, frame, root = labels
    expected = parts_of(scm, root / "table.parquet")
    pq.write_table(pa.Table.from_pandas(frame), tmp_path / "whole.parquet")
    folder = tmp_path / "files"
    folder.mkdir()
    for number, (start, stop) in enumerate([(0, 10), (10, 101), (101, 101), (101, 150)]):
        pq.write_table(
            pa.Table.from_pandas(frame[start:stop]), folder / f"{number}.parquet", row_group_size=9
        )
    from causalgen.counterfactuals.table_parts import TableQuestion

    for path in (tmp_path / "whole.parquet", folder):
        question = TableQuestion(scm, ParquetRows(path, scm.variables), {"w": DO}, 5, part_rows=PART)
        for number in (2, 0, 1):
            assert equal(question.answer(number).worlds["w"], expected[number].worlds["w"])


def test_a_file_without_a_value_of_a_column_is_of_one_schema_with_the_others(labels, tmp_path):
    scm, frame, _ = labels
    frame = frame.assign(a=frame["a"].where(np.arange(len(frame)) >= 20))  # none in the first file
    whole = parts_of(scm, _written(frame, tmp_path / "whole.parquet"))
    folder = tmp_path / "files"
    folder.mkdir()
    first = pa.Table.from_pandas(frame[:20])
    place = first.schema.get_field_index("a")
    pq.write_table(first.set_column(place, "a", pa.nulls(20)), folder / "0.parquet")
    _written(frame[20:], folder / "1.parquet")
    apart = parts_of(scm, folder)
    assert all(equal(one.worlds["w"], other.worlds["w"]) for one, other in zip(whole, apart, strict=True))
    pq.write_table(first.set_column(place, "a", pa.array([1] * 20)), folder / "2.parquet")
    with pytest.raises(cg.DataError, match="column 'a' is .*string in 1.parquet, and int64 in 2.parquet"):
        parts_of(scm, folder)
    pq.write_table(first.drop_columns(["a"]), folder / "1.parquet")  # before the first that has a type
    with pytest.raises(cg.DataError, match="column 'a' is int64 in 2.parquet, and missing in 1.parquet"):
        parts_of(scm, folder)


def _written(frame, path):
    pq.write_table(pa.Table.from_pandas(frame), path)
    return path


def test_a_table_of_one_part_has_the_plain_answer(labels):
    scm, frame, root = labels
    (part,) = cg.counterfactual_parts(scm, root / "table.parquet", {"w": DO}, seed=5)
    assert equal(part.worlds["w"], scm.counterfactual(frame, DO, seed=5))


def test_equal_rows_of_different_parts_draw_different_noise(labels, tmp_path):
    scm, frame, _ = labels
    row = frame.iloc[[0] * 2 * PART]
    pq.write_table(pa.Table.from_pandas(row), tmp_path / "same.parquet")
    first, second = (part.worlds["w"] for part in parts_of(scm, tmp_path / "same.parquet"))
    drawn = [cf.noise["b"].leaves for cf in (first, second)]
    assert drawn[0] and all(not (drawn[0][leaf] == drawn[1][leaf]).any() for leaf in drawn[0])


def test_any_rows_in_any_order_are_those_of_pandas(labels):
    scm, frame, root = labels
    table, random = ParquetRows(root / "table.parquet", scm.variables), np.random.default_rng(0)
    for _ in range(60):
        start, stop = np.sort(random.choice(ROWS + 1, 2, replace=False))
        read = table.read(int(start), int(stop))
        pd.testing.assert_frame_equal(
            pd.DataFrame(dict(read.columns)), frame[start:stop].reset_index(drop=True)
        )
        assert read.numbers.tolist() == list(range(start, stop))


@pytest.mark.parametrize("form", ["bytes", "path", "struct", "pixels"])
def test_pictures_in_every_form_are_the_arrays(images, tmp_path, form):
    scm, kind, picture, root = images
    shutil.copytree(root, tmp_path / "table")
    cells = {
        "bytes": [(root / f"{row}.png").read_bytes() for row in range(24)],
        "path": [f"{row}.png" for row in range(24)],
        "struct": [{"bytes": None, "path": f"{row}.png"} for row in range(24)],
        "pixels": (picture / 255.0).tolist(),
    }[form]
    path = tmp_path / "table" / "rows.parquet"
    pq.write_table(pa.table({"kind": kind, "picture": cells}), path)
    (part,) = cg.counterfactual_parts(scm, path, {"w": {"kind": 1}}, seed=0)
    assert equal(
        part.worlds["w"], scm.counterfactual({"kind": kind, "picture": picture}, {"kind": 1}, seed=0)
    )
    assert not part.refused
    table = cg.SCM(scm.graph, scm.variables)  # the same table to fit on
    assert table.fit(path, nodes=["kind"], progress=False).fit_report


def test_rows_with_unreadable_pictures_are_named_and_the_others_answered(images, tmp_path, monkeypatch):
    scm, kind, picture, root = images
    shutil.copytree(root, tmp_path / "t")
    (tmp_path / "t" / "5.png").write_text("no picture")
    cells = [f"{row}.png" for row in range(24)]
    cells[9], cells[17], cells[20] = "absent.png", str(root / "3.png"), None
    pq.write_table(pa.table({"kind": kind, "picture": cells}), tmp_path / "t" / "rows.parquet")
    monkeypatch.chdir(tmp_path)
    done = run("t/model", "--table", "t/rows.parquet", "--do", "kind=1", "--part-rows", 8, "--out", "out")
    assert done.exit_code == batch.REFUSED == 3
    refused = pd.read_csv("out/refused.csv")
    assert refused["row"].tolist() == [5, 9, 17]
    for row, (text, why) in zip([5, 9, 17], enumerate(["cannot read", "no file", "absolute"]), strict=True):
        assert why in refused["reason"][text] and f"row {row}" in refused["reason"][text]
    answered = pd.read_parquet("out/kind=1")
    assert answered["row"].tolist() == [row for row in range(24) if row not in (5, 9, 17)]
    assert set(answered["provenance[picture]"]) <= {"approximate", "copied", "inferred", "prior"}
    kept = [row for row in range(8) if row != 5]
    plain = scm.counterfactual({"kind": kind[kept], "picture": picture[kept]}, {"kind": 1}, seed=0)
    assert answered["picture"][: len(kept)].tolist() == [
        to_png(np.asarray(each)) for each in plain["picture"]
    ]


def test_a_job_is_resumed_where_it_stopped_and_only_for_its_own_question(
    labels, tmp_path, monkeypatch, capsys
):
    *_, root = labels
    ask = [root / "model", "--table", root / "table.parquet", "--do", "a=low", "--part-rows", PART]
    assert run(*ask, "--out", tmp_path / "whole").exit_code == 0
    answer, stopped = batch.Answerer.__call__, tmp_path / "stopped"

    def stumbling(self, number):
        if number == 1 and not broken:
            broken.append(number)
            raise KeyboardInterrupt
        asked.append(number)
        return answer(self, number)

    asked, broken = list[int](), list[int]()
    monkeypatch.setattr(batch.Answerer, "__call__", stumbling)
    assert run(*ask, "--out", stopped).exit_code == 130
    assert not (stopped / "result.json").exists()
    assert "not empty" in error_of(monkeypatch, capsys, *ask, "--out", stopped)
    for other in (["--seed", 1], ["--do", "b=1"], ["--samples", 2], ["--part-rows", 63]):
        said = error_of(monkeypatch, capsys, *ask, *other, "--out", stopped, "--resume")
        assert "another question" in said
    done = run(*ask, "--out", stopped, "--resume")
    assert done.exit_code == 0 and "1 of 3 parts" in done.output
    assert asked == [0, 1, 2]
    for path in (each for each in (tmp_path / "whole").rglob("*") if each.is_file()):
        assert (stopped / path.relative_to(tmp_path / "whole")).read_bytes() == path.read_bytes()


def test_a_job_that_is_resumed_without_one_of_its_options_stays_as_it_is(
    labels, tmp_path, monkeypatch, capsys
):
    _, frame, root = labels
    frame.rename(columns={"c": "measured"}).to_parquet(tmp_path / "table.parquet")
    ask = [root / "model", "--table", tmp_path / "table.parquet", "--do", "a=low", "--out", tmp_path / "out"]
    assert run(*ask, "--rename", "measured=c").exit_code == 0
    said = error_of(monkeypatch, capsys, *ask, "--resume")
    assert "question.json is of another question: rename was ['measured=c'] and is None" in said
    assert run(*ask, "--rename", "measured=c", "--resume").exit_code == 0


@pytest.mark.parametrize("option", ["--do", "--set"])
def test_a_picture_that_is_typed_is_part_of_the_question(images, tmp_path, monkeypatch, capsys, option):
    *_, root = images
    pd.DataFrame({"kind": [0, 1]}).to_parquet(tmp_path / "table.parquet")
    shutil.copy(root / "0.png", tmp_path / "typed.png")
    ask = [root / "model", "--table", tmp_path / "table.parquet", "--do", "kind=1", "--out", tmp_path / "out"]
    ask += [option, f"picture={tmp_path / 'typed.png'}"]
    done = run(*ask)
    assert done.exit_code == 0 and "2 rows in 1 part, each in " in done.output
    assert "1 of 1 parts" in run(*ask, "--resume").output
    shutil.copy(root / "1.png", tmp_path / "typed.png")
    said = error_of(monkeypatch, capsys, *ask, "--resume")
    assert "another question: pictures was" in said


@pytest.mark.parametrize(
    "other",
    [["--seed", 1], ["--samples", 2], ["--set", "c=0.5"], "model", "table"],
    ids=["seed", "samples", "evidence", "model", "table"],
)
def test_a_part_of_another_question_is_refused(labels, tmp_path, monkeypatch, capsys, other):
    """As where a folder of parts was copied beside the question of another job."""
    _, frame, root = labels
    model, table = root / "model", root / "table.parquet"
    options = ["--do", "a=low", "--part-rows", PART]
    if other == "model":
        model = tmp_path / "model"
        fresh = cg.SCM.from_pretrained(root / "model")
        fresh.fit(frame.dropna()[:60], seed=9, progress=False).save_pretrained(model)
    elif other == "table":
        table = tmp_path / "other.parquet"
        pq.write_table(pa.Table.from_pandas(frame[::-1]), table)
    more = other if isinstance(other, list) else []
    assert run(model, "--table", table, *options, *more, "--out", tmp_path / "other").exit_code == 0
    ask = [root / "model", "--table", root / "table.parquet", *options, "--out", tmp_path / "out"]
    assert run(*ask).exit_code == 0
    shutil.copy(tmp_path / "other" / "parts" / "00001.json", tmp_path / "out" / "parts" / "00001.json")
    said = error_of(monkeypatch, capsys, *ask, "--resume")
    assert "00001.json is of another question" in said and "Remove it" in said


def test_a_part_whose_files_are_not_whole_is_answered_again(labels, tmp_path):
    *_, root = labels
    ask = [root / "model", "--table", root / "table.parquet", "--do", "a=low", "--part-rows", PART]
    assert run(*ask, "--out", tmp_path).exit_code == 0
    first, second, third = sorted((tmp_path / "a=low").iterdir())
    whole = {file: file.read_bytes() for file in (first, second, third)}
    first.unlink()
    third.write_bytes(whole[third][:100])
    done = run(*ask, "--out", tmp_path, "--resume")
    assert done.exit_code == 0 and "1 of 3 parts are there already" in done.output
    assert {file: file.read_bytes() for file in whole} == whole


@pytest.mark.parametrize("more", [[], ["--resume"]])
def test_a_job_that_was_killed_before_it_wrote_its_question_begins_anew(labels, tmp_path, more):
    *_, root = labels
    ask = [root / "model", "--table", root / "table.parquet", "--do", "a=low", "--part-rows", PART]
    (out := tmp_path / "out").mkdir()
    (out / f".question.json.{'0' * 32}.tmp").write_text('{"model"')
    assert run(*ask, "--out", out, *more).exit_code == 0
    assert run(*ask, "--out", tmp_path / "whole").exit_code == 0
    found, expected = ({path.name for path in folder.iterdir()} for folder in (out, tmp_path / "whole"))
    assert found == expected and "result.json" in found


def test_samples_and_evidence_that_is_the_same_everywhere(labels, tmp_path):
    scm, frame, root = labels
    table = tmp_path / "ab.parquet"
    pq.write_table(pa.Table.from_pandas(frame[["a", "b"]]), table)
    ask = ["--table", table, "--do", "b=2", "--set", "c=0.5", "--samples", 2, "--out", tmp_path / "out"]
    assert run(root / "model", *ask).exit_code == 0
    found = pd.read_parquet(tmp_path / "out" / "b=2")
    evidence = {"a": frame["a"], "b": frame["b"], "c": 0.5}
    expected = scm.counterfactual(evidence, {"b": 2}, num_samples=2, seed=0)
    assert found["c"].tolist() == expected["c"].flatten().tolist()
    assert found["row"].tolist() == [*range(ROWS)] * 2
    assert found["sample"].tolist() == [0] * ROWS + [1] * ROWS
    assert json.loads((tmp_path / "out" / "result.json").read_text())["rows"] == ROWS


def test_labels_of_two_types_are_one_column_in_every_part(tmp_path):
    """They were refused by pyarrow, halfway through a job, or were of another type in each part."""
    labels = ["a", 1]
    column = [*["a"] * 3, *[1] * 3, "a", 1, "a"]
    scm = cg.SCM(
        nx.DiGraph([("k", "y")]),
        {"k": cg.Categorical(labels), "y": cg.Continuous()},
        {"y": cg.mechanisms.Additive()},
    ).fit({"k": column * 10, "y": np.arange(90.0)}, progress=False)
    scm.save_pretrained(tmp_path / "model")
    pd.DataFrame({"k": list(map(str, column)), "y": np.arange(9.0)}).to_parquet(tmp_path / "t.parquet")
    words = [tmp_path / "model", "--table", tmp_path / "t.parquet", "--do", "y=1", "--part-rows", 3]
    assert run(*words, "--out", tmp_path / "out").exit_code == 0
    whole = pq.read_table(tmp_path / "out" / "y=1")
    assert whole["k"].to_pylist() == list(map(str, column))
    assert scm.variables["k"].encode(whole["k"].to_pylist(), where="k").tolist() == [
        labels.index(each) for each in column
    ]


def test_a_world_that_is_asked_twice_is_one(labels, tmp_path):
    *_, root = labels
    ask = [root / "model", "--table", root / "table.parquet", "--do", "a=low", "--do", "b=2"]
    once, twice = tmp_path / "once", tmp_path / "twice"
    assert run(*ask, "--out", once).exit_code == 0
    assert run(*ask, "--do", "a=low", "--out", twice).exit_code == 0
    files = [{file.relative_to(out): file.read_bytes() for file in out.rglob("*.*")} for out in (once, twice)]
    assert files[0] == files[1]
    assert [*json.loads((twice / "result.json").read_text())["worlds"]] == ["a=low", "b=2"]


@pytest.mark.parametrize(
    ("columns", "said"),
    [
        ({"x": [1.0]}, "no column 'a'"),
        ({"a": ["low"], "b": [1], "c": ["many"]}, "'many'"),
        ({"a": ["tall"], "b": [1], "c": [1.0]}, "'tall'"),
        ({"a": [], "b": [], "c": []}, "no rows"),
        ({"a": ["low"], "b": [1], "C": [1.0]}, "'C'"),
    ],
)
def test_a_table_of_another_schema_is_refused(labels, tmp_path, monkeypatch, capsys, columns, said):
    *_, root = labels
    pq.write_table(pa.table(columns), tmp_path / "t.parquet")
    ask = [root / "model", "--table", tmp_path / "t.parquet", "--do", "a=low", "--out", tmp_path / "out"]
    assert said in error_of(monkeypatch, capsys, *ask)
    assert not (tmp_path / "out").exists()


def test_a_bad_value_far_down_is_placed(labels, tmp_path, monkeypatch, capsys):
    _, frame, root = labels
    bad = frame.assign(b=np.where(frame.index == 100, 7, frame["b"]))
    pq.write_table(pa.Table.from_pandas(bad), tmp_path / "t.parquet")
    ask = [root / "model", "--table", tmp_path / "t.parquet", "--do", "a=low", "--part-rows", PART]
    said = error_of(monkeypatch, capsys, *ask, "--out", tmp_path / "out")
    assert "row 100 " in said


def test_rows_have_the_numbers_of_the_table_beside_refused_ones_and_in_warnings(labels, images, tmp_path):
    """A row after a refused one was named by the number before, rows of a warning by those of the part."""
    _, kind, _, root = images
    shutil.copytree(root, tmp_path / "t")
    (tmp_path / "t" / "9.png").write_text("no picture")
    kinds, cells = np.where(np.arange(24) == 12, 7, kind), [f"{row}.png" for row in range(24)]
    pq.write_table(pa.table({"kind": kinds, "picture": cells}), tmp_path / "t" / "rows.parquet")
    words = [tmp_path / "t" / "model", "--table", tmp_path / "t" / "rows.parquet", "--do", "kind=1"]
    assert "row 12 is 7" in str(run(*words, "--part-rows", 8, "--out", tmp_path / "out").exception)
    scm, frame, _ = labels
    pq.write_table(
        pa.Table.from_pandas(frame.assign(c=np.where(frame.index == 100, 1e6, frame["c"]))),
        tmp_path / "far.parquet",
    )
    with pytest.warns(cg.ExtrapolationWarning, match="row 100 is"):
        parts_of(scm, tmp_path / "far.parquet")


def test_files_of_different_schemas_and_no_files_are_refused(labels, tmp_path):
    scm, frame, _ = labels
    with pytest.raises(cg.DataError, match="no Parquet table"):
        cg.counterfactual_parts(scm, tmp_path, {"w": DO})
    with pytest.raises(cg.DataError, match="There is no table"):
        cg.counterfactual_parts(scm, tmp_path / "absent.parquet", {"w": DO})
    pq.write_table(pa.Table.from_pandas(frame), tmp_path / "0.parquet")
    pq.write_table(pa.Table.from_pandas(frame.assign(c="1")), tmp_path / "1.parquet")
    with pytest.raises(cg.DataError, match=r"column 'c' is double in 0\.parquet, and .*string in 1\.parquet"):
        cg.counterfactual_parts(scm, tmp_path, {"w": DO})
    pq.write_table(pa.Table.from_pandas(frame.drop(columns="c")), tmp_path / "0.parquet")
    pq.write_table(pa.Table.from_pandas(frame), tmp_path / "1.parquet")
    with pytest.raises(cg.DataError, match=r"'c' is missing in 0\.parquet, and double in 1\.parquet"):
        cg.counterfactual_parts(scm, tmp_path, {"w": DO})  # it was inferred in every row
    (tmp_path / "0.parquet").write_bytes(b"PAR1 no more")
    with pytest.raises(cg.DataError, match=r"Cannot read the table 0\.parquet|0\.parquet"):
        cg.counterfactual_parts(scm, tmp_path, {"w": DO})


def test_a_value_for_each_row_is_refused(labels):
    scm, _, root = labels
    with pytest.raises(cg.InterventionError, match="one value or expression for all rows"):
        cg.counterfactual_parts(scm, root / "table.parquet", {"w": {"c": np.zeros(64)}}, part_rows=64)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--engine", "ray"], "--engine ray is for a --table"),
        (["--resume"], "--resume is for a --table"),
        (["--table", "t.parquet", "--workers", 2], "--workers is for --engine ray"),
        (["--table", "t.parquet", "--evidence", "e.json"], "not both"),
        (["--table", "t.csv"], "There is no table"),
    ],
)
def test_options_that_do_not_go_together_are_refused(labels, tmp_path, monkeypatch, capsys, options, said):
    *_, root = labels
    monkeypatch.chdir(tmp_path)
    assert said in error_of(monkeypatch, capsys, root / "model", "--do", "a=low", *options)


def test_an_engine_that_there_is_not_is_refused(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["causalgen", "counterfactual", "mnist", "--engine", "spark"])
    with pytest.raises(SystemExit) as stopped:
        cli.main()
    assert stopped.value.code == 2
    assert "'spark' is not one of 'serial'" in capsys.readouterr().err


def test_without_ray_the_extra_is_named(labels, tmp_path, monkeypatch, capsys):
    *_, root = labels
    monkeypatch.setitem(sys.modules, "ray", None)
    ask = [root / "model", "--table", root / "table.parquet", "--do", "a=low", "--out", tmp_path / "out"]
    assert "pip install '.[ray]'" in error_of(monkeypatch, capsys, *ask, "--engine", "ray")
    assert not (tmp_path / "out").exists()


MEMORY = """
import resource, sys
import causalgen as cg
scm = cg.SCM.from_pretrained(sys.argv[1])
rows = sum(len(part.rows) for part in cg.counterfactual_parts(scm, sys.argv[2], {"w": {"x": 1.0}}, seed=0))
print(rows, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
"""


@pytest.mark.slow
def test_memory_is_flat_in_rows(linear, tmp_path):
    scm, data = linear
    scm.save_pretrained(tmp_path / "model")
    peaks = []
    for rows in (200_000, 2_000_000):
        frame = {node: np.resize(values, rows) for node, values in data.items()}
        pq.write_table(pa.table(frame), tmp_path / "t.parquet", row_group_size=rows)  # one group
        command = [sys.executable, "-c", MEMORY, tmp_path / "model", tmp_path / "t.parquet"]
        counted, peak = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
        assert int(counted) == rows
        peaks.append(float(peak))
    assert peaks[1] < peaks[0] + 30  # MiB; the columns alone are 64
