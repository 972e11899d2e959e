"""The command line as a user types it: what it prints, what it writes, how it fails."""

import json
import os
import re
import signal
import subprocess
import sys
import time

import networkx as nx
import numpy as np
import pandas as pd
import pytest
from PIL import Image as PILImage
from typer.testing import CliRunner

import causalgen as cg
from causalgen.cli import main as cli
from causalgen.counterfactuals.export import to_png


def run(*arguments):
    return CliRunner().invoke(cli.app, [str(argument) for argument in arguments])


def picture_size(path):
    with PILImage.open(path) as picture:
        return picture.size


def pixels(path):
    with PILImage.open(path) as picture:
        return np.asarray(picture)


def run_main(monkeypatch, capsys, *arguments):
    """Exit code and stderr of ``causalgen`` with these arguments."""
    monkeypatch.setattr(sys, "argv", ["causalgen", *map(str, arguments)])
    with pytest.raises(SystemExit) as stopped:
        cli.main()
    return stopped.value.code or 0, capsys.readouterr().err


@pytest.fixture(scope="module")
def folder(pictures, tmp_path_factory):
    """A saved model, with evidence beside it in every form."""
    scm, data = pictures
    root = tmp_path_factory.mktemp("cli")
    scm.save_pretrained(root / "model")
    scm.to_yaml(root / "scm.yaml")
    for row in range(16):
        (root / f"{row}.png").write_bytes(to_png(data["picture"][row] / 255))
    table = pd.DataFrame({"kind": data["kind"][:16], "picture": [f"{row}.png" for row in range(16)]})
    table.to_csv(root / "table.csv", index=False)
    (root / "evidence.json").write_text(json.dumps({"kind": int(data["kind"][0]), "picture": "0.png"}))
    return root


@pytest.fixture(scope="module")
def tables(tmp_path_factory):
    """A saved model of vectors and of labels that look like paths, and a table that lacks ``size``."""
    root = tmp_path_factory.mktemp("tables")
    random = np.random.default_rng(0)
    kind, place = random.integers(0, 2, 60), random.normal(size=(60, 2))
    labels = np.array(["a/b", "../up"])
    data = {"kind": labels[kind], "place": place, "size": place[:, 0] + kind + random.normal(size=60)}
    scm = cg.SCM(
        nx.DiGraph([("kind", "size"), ("place", "size")]),
        variables={
            "kind": cg.Categorical(["a/b", "../up"]),
            "place": cg.Continuous(shape=(2,)),
            "size": cg.Continuous(),
        },
        mechanisms={node: cg.mechanisms.Additive() for node in ("place", "size")},
    )
    scm.fit(data, progress=False).save_pretrained(root / "model")
    frame = pd.DataFrame({"kind": data["kind"], "place_0": place[:, 0], "place_1": place[:, 1]})
    frame.to_csv(root / "table.csv", index=False)
    return root


def test_help_is_quick_and_lists_the_commands():
    began = time.process_time()
    helped = subprocess.run(
        [sys.executable, "-c", "from causalgen.cli.main import main; main()", "--help"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert helped.returncode == 0
    assert time.process_time() - began < 5
    for command in ("demo", "show", "fit", "sample", "counterfactual"):
        assert command in helped.stdout


def test_show_draws_the_graph(folder, tmp_path):
    shown = run("show", folder / "model", "--picture", tmp_path / "graph.png")
    assert shown.exit_code == 0, shown.output
    assert "kind -> picture" in shown.output
    assert "image 1x8x8" in shown.output
    assert picture_size(tmp_path / "graph.png") > (200, 100)
    assert "not fitted" in run("show", folder / "scm.yaml").output


def test_fit_saves_a_model_that_answers(folder, tmp_path):
    fitted = run("fit", folder / "scm.yaml", "--data", folder / "table.csv", "--out", tmp_path / "out")
    assert fitted.exit_code == 0, fitted.output
    assert "kind accuracy" in fitted.output
    assert "kind chance" in fitted.output
    assert "causalgen fit scm.yaml" in (tmp_path / "out" / "README.md").read_text()
    assert (tmp_path / "out.run" / "log.jsonl").exists()
    assert cg.SCM.from_pretrained(tmp_path / "out").sample(2, seed=0)["picture"].shape == (2, 1, 8, 8)
    again = run(
        "fit", folder / "scm.yaml", "--data", folder / "table.csv", "--out", tmp_path / "out", "--resume"
    )
    assert again.exit_code == 0, again.output


def test_a_card_names_no_folder_of_this_machine(tables, tmp_path):
    scm = cg.SCM.from_pretrained(tables / "model")
    scm.to_yaml(tmp_path / "scm.yaml")
    scm.sample(60, seed=0).to_frame().to_csv(tmp_path / "rows.csv", index=False)
    words = ["fit", tmp_path / "scm.yaml", "--data", tmp_path / "rows.csv", "--start", tables / "model"]
    fitted = run(*words, "--out", tmp_path / "out")
    assert fitted.exit_code == 0, fitted.output
    card = (tmp_path / "out" / "README.md").read_text()
    recipe = "causalgen fit scm.yaml --data rows.csv --out out --seed 0 --start model"
    assert recipe in card and str(tables.parent) not in card


def test_fit_a_node_at_a_time(folder, tmp_path):
    words = ["fit", folder / "scm.yaml", "--data", folder / "table.csv", "--out"]
    first = run(*words, tmp_path / "out", "--node", "kind")
    assert first.exit_code == 0, first.output
    assert "Not fitted yet: picture" in first.output
    assert not (tmp_path / "out").exists()
    for place, more in (("out", ["--resume"]), ("whole", [])):
        fitted = run(*words, tmp_path / place, *more)
        assert fitted.exit_code == 0, fitted.output
    for name in ("kind.safetensors", "picture.safetensors"):
        assert (tmp_path / "out" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


def test_fit_refuses_a_place_it_could_not_save_in_before_it_trains(folder, monkeypatch, capsys, tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    words = ["fit", folder / "scm.yaml", "--data", folder / "table.csv"]
    for place in (tmp_path, tmp_path / "notes.txt", tmp_path / "notes.txt" / "out"):
        code, said = run_main(monkeypatch, capsys, *words, "--out", place)
        assert code == 1
        assert "Cannot save the model" in said
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


def test_sample_writes_pictures_and_values(folder, tmp_path):
    drawn = run("sample", folder / "model", "-n", 3, "--do", "kind=1", "--out", tmp_path / "drawn")
    assert drawn.exit_code == 0, drawn.output
    assert list(pd.read_csv(tmp_path / "drawn" / "values.csv")["kind"]) == [1, 1, 1]
    assert len(list((tmp_path / "drawn" / "picture").glob("*.png"))) == 3
    assert (tmp_path / "drawn" / "picture.png").exists()


@pytest.mark.parametrize(
    "evidence",
    [["evidence.json"], ["table.csv:0"], ["0.png", "--set", "kind=KIND"]],
    ids=["json", "table row", "picture"],
)
def test_counterfactual_takes_evidence_in_every_form(folder, tmp_path, pictures, evidence):
    scm, data = pictures
    kind = int(data["kind"][0])
    words = [word.replace("KIND", str(kind)) for word in evidence[1:]]
    out = tmp_path / "cf"
    asked = run(
        "counterfactual", folder / "model", "--evidence", folder / evidence[0], *words,
        "--do", "kind=0", "--do", "kind=1", "--out", out,
    )  # fmt: skip
    assert asked.exit_code == 0, asked.output
    told = json.loads((out / "result.json").read_text())
    assert told["worlds"]["kind=1"]["values"] == {"kind": [1]}
    assert told["worlds"]["kind=1"]["factual"] == {"kind": [kind]}
    (read,) = told["worlds"][f"kind={1 - kind}"]["readings"]["nodes"]["picture"]["kind"]["read"]
    line = f"read by the model itself in picture, kind: asked {1 - kind}; read {read}; of the factual"
    assert line in " ".join(asked.output.split())
    assert (out / f"kind={1 - kind}" / "readings.csv").exists()
    expected = scm.counterfactual(
        {"kind": kind, "picture": data["picture"][0]}, do={"kind": 1 - kind}, seed=0
    )
    written = pixels(out / f"kind={1 - kind}" / "picture" / "0000.png")
    np.testing.assert_allclose(written / 255, expected["picture"][0, 0], atol=1 / 255)
    assert picture_size(out / "picture.png") > (100, 100)


def test_rows_that_come_with_a_model_are_evidence(tmp_path):
    words = ["counterfactual", "morphomnist", "--do", "thickness=3", "--evidence"]
    assert run(*words, "samples:5-6", "--out", tmp_path / "two").exit_code == 0
    told = json.loads((tmp_path / "two" / "result.json").read_text())
    assert told["evidence"] == "samples:5-6"
    (world,) = told["worlds"].values()
    rows = {node: column[5:7] for node, column in cg.sample_rows("morphomnist").items()}
    expected = cg.SCM.from_pretrained("morphomnist").counterfactual(rows, do={"thickness": 3}, seed=0)
    assert world["factual"]["digit"] == rows["digit"].tolist()
    np.testing.assert_allclose(world["values"]["intensity"], expected["intensity"], rtol=1e-6)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["show", "mnst"], "model 'mnst' in the gallery"),
        (["counterfactual", "MODEL", "--evidence", "absent.json", "--do", "kind=1"], "no evidence file"),
        (["counterfactual", "MODEL", "--evidence", os.devnull, "--do", "kind=1"], "is no plain file"),
        (["counterfactual", "MODEL", "--evidence", "EVIDENCE"], "at least one --do"),
        (["counterfactual", "MODEL", "--evidence", "EVIDENCE", "--do", "kind"], "expected node=value"),
        (["counterfactual", "MODEL", "--evidence", "EVIDENCE", "--do", "kid=1"], "Did you mean 'kind'"),
        (["counterfactual", "MODEL", "--evidence", "EVIDENCE", "--do", "kind=7"], "0..1"),
        (
            ["counterfactual", "MODEL", "--evidence", "EVIDENCE", "--do", "kind=x"],
            "'x' is no node",
        ),
        (["counterfactual", "MODEL", "--set", "kind=x", "--do", "kind=1"], "'x' is no value"),
        (["counterfactual", "MODEL", "--set", "kind=1", "--do", "kind=1,"], "expected node=value, as in"),
        (["counterfactual", "MODEL", "--evidence", "TABLE:99", "--do", "kind=1"], "rows 0..15, got row 99"),
        (["counterfactual", "MODEL", "--evidence", "TABLE:9-16", "--do", "kind=1"], "0..15, got rows 9-16"),
        (["counterfactual", "MODEL", "--evidence", "TABLE:3-2", "--do", "kind=1"], "0..15, got rows 3-2"),
        (["counterfactual", "MODEL", "--evidence", "samples:3", "--do", "kind=1"], "no rows of its own"),
        (["counterfactual", "MODEL", "--do", "kind=1"], "Give --evidence, or --set node=value, for kind"),
        (["counterfactual", "MODEL", "--set", "kind=7", "--do", "kind=1"], "0..1"),
        (["fit", "absent.yaml", "--data", "x.csv", "--out", "o"], "absent.yaml"),
        (["demo", "--preset", "diffscm"], "Did you mean 'diff-scm'"),
    ],
)
def test_errors_are_one_line_and_exit_code_1(folder, monkeypatch, capsys, tmp_path, arguments, words):
    monkeypatch.chdir(tmp_path)
    places = {"MODEL": folder / "model", "EVIDENCE": folder / "evidence.json"}
    typed = [
        places.get(word, word.replace("TABLE", str(folder / "table.csv"))) for word in map(str, arguments)
    ]
    code, said = run_main(monkeypatch, capsys, *typed)
    assert code == 1
    assert said.startswith("error: ")
    assert said.count("\n") == 1
    assert words in said
    assert not list(tmp_path.iterdir())


def test_wrong_usage_is_exit_code_2(monkeypatch, capsys):
    code, _ = run_main(monkeypatch, capsys, "sample")
    assert code == 2


def test_an_unwritable_place_is_one_clear_error(folder, monkeypatch, capsys, tmp_path):
    (tmp_path / "file").write_text("")
    out = tmp_path / "file" / "out"
    code, said = run_main(monkeypatch, capsys, "sample", folder / "model", "--out", out)
    assert code == 1
    assert "Cannot save" in said


def test_a_table_model_takes_vectors_and_labels_and_keeps_to_its_folder(tables, tmp_path):
    out = tmp_path / "out"
    words = [
        "counterfactual", tables / "model", "--evidence", tables / "table.csv:3",
        "--set", "size=0.5", "--do", "kind=../up", "--do", "place=[1,2],kind=a/b", "--out", out,
    ]  # fmt: skip
    asked = run(*words)
    assert asked.exit_code == 0, asked.output
    told = json.loads((out / "result.json").read_text())["worlds"]
    assert told["kind=../up"]["values"]["kind"] == ["../up"]
    assert told["place=[1,2],kind=a/b"]["values"]["place"] == [[1.0, 2.0]]
    assert told["kind=../up"]["factual"]["size"] == [0.5]
    assert {path.name for path in tmp_path.iterdir()} == {"out"}
    assert len(list(out.glob("*/picture.png"))) == 2
    row = pd.read_csv(out / "factual" / "values.csv").iloc[0]
    given = pd.read_csv(tables / "table.csv").iloc[3]
    assert (row["place_0"], row["place_1"], row["kind"]) == tuple(given[["place_0", "place_1", "kind"]])
    # The same question again replaces its answer; other people's files stay.
    assert run(*words).exit_code == 0
    (out / "notes.txt").write_text("mine")
    refused = run(*words)
    assert isinstance(refused.exception, cg.CheckpointError)
    assert "notes.txt" in str(refused.exception)


@pytest.mark.parametrize(
    ("renamed", "told"),
    [
        ({"kind": "Kind"}, "Column 'Kind' of table.csv means no node; 'kind', which it looks like"),
        ({"place_0": "Place 0", "place_1": "Place 1"}, "'Place 0' .*'place_0'"),
        ({"place_0": "plcae_0", "place_1": "plcae_1"}, "'plcae_0' .*'place_0'"),
        ({"place_1": "palce_1"}, "no column 'place' of table.csv, nor place_0 .. place_1"),
    ],
)
def test_a_misspelt_column_is_refused(tables, tmp_path, renamed, told):
    frame = pd.read_csv(tables / "table.csv").rename(columns=renamed)
    frame.assign(size=0.5).to_csv(tmp_path / "table.csv", index=False)
    out = ["--out", tmp_path / "out"]
    asked = run(
        "counterfactual", tables / "model", "--evidence", tmp_path / "table.csv", "--do", "kind=a/b", *out
    )
    assert re.search(told, str(asked.exception)), asked.exception
    fitted = run("fit", tables / "model" / "scm.yaml", "--data", tmp_path / "table.csv", *out)
    assert re.search(told, str(fitted.exception)), fitted.exception
    assert not (tmp_path / "out").exists()


def test_columns_that_mean_no_node_are_told(tables, tmp_path):
    frame = pd.read_csv(tables / "table.csv")
    frame.assign(size=0.5 + np.arange(60), ward=1, visit_9=2).to_csv(tmp_path / "table.csv")
    told = "Columns of table.csv that mean no node: ward, visit_9."
    out = ["--out", tmp_path / "out"]
    asked = run(
        "counterfactual", tables / "model", "--evidence", tmp_path / "table.csv:3", "--do", "kind=a/b", *out
    )
    assert asked.exit_code == 0 and told in asked.output
    fitted = run(
        "fit", tables / "model" / "scm.yaml", "--data", tmp_path / "table.csv", "--out", tmp_path / "model"
    )
    assert fitted.exit_code == 0 and told in fitted.output


def test_a_name_that_is_twice_in_a_json_is_refused(tables, tmp_path):
    (tmp_path / "e.json").write_text('{"size": 1.0, "kind": "a/b", "size": 2.0}')
    asked = run(
        "counterfactual", tables / "model", "--evidence", tmp_path / "e.json",
        "--do", "kind=a/b", "--out", tmp_path / "out",
    )  # fmt: skip
    assert "'size' is there twice" in str(asked.exception)


def test_a_json_may_begin_with_a_byte_order_mark(tables, tmp_path):
    (tmp_path / "e.json").write_text('{"kind": "a/b"}', encoding="utf-8-sig")
    asked = run(
        "counterfactual", tables / "model", "--evidence", tmp_path / "e.json",
        "--do", "kind=a/b", "--out", tmp_path / "out",
    )  # fmt: skip
    assert asked.exit_code == 0, asked.output


def test_seeds_decide_what_is_drawn(tables, tmp_path):
    for name, seed in (("one", 3), ("two", 3), ("three", 4)):
        assert run("sample", tables / "model", "--seed", seed, "--out", tmp_path / name).exit_code == 0
    one, two, three = ((tmp_path / name / "values.csv").read_bytes() for name in ("one", "two", "three"))
    assert one == two != three


def test_debug_shows_where_an_error_comes_from(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["causalgen", "show", "nothing", "--debug"])
    with pytest.raises(cg.UnknownNameError):
        cli.main()


def test_an_interrupted_fit_is_kept_and_exits_130(tmp_path, folder):
    text = (folder / "scm.yaml").read_text()
    spec = tmp_path / "long.yaml"
    spec.write_text(re.sub(r"epochs: \d+", "epochs: 100000", text))
    assert "100000" in spec.read_text()
    # A shell that runs the tests in the background has its children ignore interrupts: heed them again.
    heed = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)"
    command = [
        sys.executable, "-c", f"{heed}; from causalgen.cli.main import main; main()",
        "fit", spec, "--data", folder / "table.csv", "--out", tmp_path / "out",
    ]  # fmt: skip
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        log = tmp_path / "out.run" / "log.jsonl"
        deadline = time.monotonic() + 60
        # The log begins with the first node; the second one is what takes long.
        while not (log.exists() and "picture" in log.read_text()) and time.monotonic() < deadline:
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        said = process.communicate(timeout=60)[1]
    assert process.returncode == 130
    assert "--resume" in said
    assert "Traceback" not in said
    assert not (tmp_path / "out").exists()


def test_fit_drops_rows_with_gaps_where_told(tables, tmp_path):
    frame = pd.read_csv(tables / "table.csv").assign(size=np.arange(60.0))
    frame.loc[3, "place_1"], frame.loc[7, "kind"] = None, None
    frame.to_csv(tmp_path / "gaps.csv", index=False)
    arguments = [
        "fit",
        tables / "model" / "scm.yaml",
        "--data",
        tmp_path / "gaps.csv",
        "--out",
        tmp_path / "out",
    ]
    refused = run(*arguments)
    assert refused.exit_code == 1
    assert "2 of the 60 rows of gaps.csv" in str(refused.exception) and "--missing drop" in str(
        refused.exception
    )
    assert "'skip' is not one of 'refuse'" in run(*arguments, "--missing", "skip").output
    fitted = run(*arguments, "--missing", "drop")
    assert fitted.exit_code == 0, fitted.output
    assert "2 left out (values missing)" in fitted.output
    assert "--missing drop" in (tmp_path / "out" / "README.md").read_text()
