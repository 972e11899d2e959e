"""What ``--do`` and ``--set`` say, and evidence with gaps, as a user types them."""

import json
import re

import networkx as nx
import pandas as pd
import pytest
from typer.testing import CliRunner

import causalgen as cg
from causalgen.cli import main as cli
from causalgen.cli.assignments import parse_assignments
from causalgen.cli.counterfactual import world_folders

LABELS = ["x=1", "small, red", "small", "plain"]
VARIABLES = {
    "kind": cg.Categorical(LABELS),
    "count": cg.Categorical(3),
    "place": cg.Continuous(shape=(2,)),
    "size": cg.Continuous(lower=0, upper=10),
    "picture": cg.Image(1, 2, 2),
    "grid": cg.Continuous(shape=(2, 2)),
}


def run(*arguments):
    return CliRunner().invoke(cli.app, [str(argument) for argument in arguments])


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("kind=x=1", {"kind": "x=1"}),
        ("kind=small, red,count=2", {"kind": "small, red", "count": 2}),
        ("kind=small,count=2", {"kind": "small", "count": 2}),
        (" size = 1e1 , kind = plain ", {"size": 10.0, "kind": "plain"}),
        ("place=[0.5,2],size=3", {"place": [0.5, 2.0], "size": 3.0}),
        ("grid=[[1, -2],[3e1,4]],size=3", {"grid": [[1, -2], [30.0, 4]], "size": 3}),
        ("size=size + 1", {"size": "size + 1"}),
        (
            "size=max(size, 2) if size >= 1 else 0,count=1",
            {"size": "max(size, 2) if size >= 1 else 0", "count": 1},
        ),
        ("size=where(kind == 'plain', 1, 2)", {"size": "where(kind == 'plain', 1, 2)"}),
        ("place=place*2,picture=1 - picture", {"place": "place*2", "picture": "1 - picture"}),
    ],
)
def test_values_and_expressions(text, values):
    assert parse_assignments([text], VARIABLES, "--do", expressions=True) == values


@pytest.mark.parametrize(
    ("text", "error", "words"),
    [
        ("size", cg.InterventionError, "--set 'size': expected node=value, as in digit=3; got 'size'"),
        ("size=1,", cg.InterventionError, "got ''"),
        ("size=1,5", cg.InterventionError, "got '5'. A decimal has a point."),
        ("size=1,,count=1", cg.UnknownNameError, "',count'.*Did you mean 'count'"),
        ("=1", cg.InterventionError, "expected node=value"),
        ("sise=1", cg.UnknownNameError, "'sise' in --set 'sise=1'. Did you mean 'size'"),
        ("size=1,size=2", cg.InterventionError, "'size' has a value already"),
        ("size=size + 1", cg.InterventionError, r"'size \+ 1' is no value of a variable that is continuous"),
        ("kind=large", cg.InterventionError, "'large' is no value of a variable that is categorical, 4: x=1"),
        ("place=[1,a]", cg.InterventionError, r"'\[1,a\]' is no value"),
        ("place=[1,2", cg.InterventionError, r"'\[1,2' is no value"),
        ("grid=[[1,2],[3,4]", cg.InterventionError, r"'\[\[1,2\],\[3,4\]' is no value"),
        ("grid=[1,2],[3,4]", cg.InterventionError, r"got '\[3,4\]'"),
        (
            "picture=1",
            cg.InterventionError,
            "an image is typed as the path of its file, one of .png.* got .1.",
        ),
    ],
)
def test_what_is_no_assignment_is_one_clear_error(text, error, words):
    with pytest.raises(error, match=words):
        parse_assignments([text], VARIABLES, "--set")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A saved model: kind, size -> weight, all known; and tables of evidence with gaps."""
    root = tmp_path_factory.mktemp("assignments")
    scm = cg.SCM(
        nx.DiGraph([("kind", "weight"), ("size", "weight")]),
        {"kind": VARIABLES["kind"], "size": VARIABLES["size"], "weight": cg.Continuous()},
        {
            "kind": cg.mechanisms.Equation(value="floor(u)", noise={"u": {"uniform": [0, 4]}}),
            "size": cg.mechanisms.Equation(value="u", noise={"u": {"uniform": [0, 10]}}),
            "weight": cg.mechanisms.Equation(value="2*size + u", noise={"u": {"normal": [0, 1]}}),
        },
    )
    scm.save_pretrained(root / "model")
    table = pd.DataFrame(
        {"kind": ["x=1", None, "small, red"], "size": [1.0, 2.0, None], "weight": [2.5, 4.5, 7.0]}
    )
    table.to_csv(root / "gaps.csv", index=False)
    table.to_parquet(root / "gaps.parquet")
    table[["kind", "size"]].assign(note="x").to_csv(root / "narrow.csv", index=False)
    table.rename(columns={"weight": "wieght"}).to_csv(root / "misspelt.csv", index=False)
    (root / "gaps.json").write_text(json.dumps({"kind": [None, "plain"], "size": [1, 2], "weight": [3, 4]}))
    return root


@pytest.mark.parametrize(
    "texts", [["k=__2", "k=é", "k=ü"], ["k=é", "k=ü", "k=__1", "k=ö"], ["x=" + "1" * 90, "x=" + "1" * 91]]
)
def test_every_world_has_a_folder_of_its_own(texts):
    """The third one of k=__2, k=é, k=ü had that of the first."""
    assert len(set(world_folders(texts))) == len(texts)


def answers(folder, out, *words):
    asked = run("counterfactual", folder / "model", *words, "--out", out)
    assert asked.exit_code == 0, asked.exception
    return json.loads((out / "result.json").read_text())["worlds"], asked.output


@pytest.mark.parametrize("table", ["gaps.csv", "gaps.parquet"])
def test_expressions_and_labels_on_a_table_with_gaps(folder, tmp_path, table):
    words = [
        "--evidence",
        folder / table,
        "--do",
        "size=size + 1",
        "--do",
        "kind=x=1",
        "--do",
        "kind=small, red",
    ]
    told, output = answers(folder, tmp_path / "out", *words)
    assert "Not in the evidence in 1 of 3 rows, so inferred (one draw): size = 3." in output
    assert "1 of 3 rows, so inferred (one draw): kind = " in output
    shifted = told["size=size + 1"]
    assert shifted["factual"]["weight"] == [2.5, 4.5, 7.0]
    assert shifted["values"]["weight"] == pytest.approx([4.5, 6.5, 9.0])
    assert shifted["factual"]["kind"][0::2] == ["x=1", "small, red"]
    assert shifted["provenance"]["kind"][1] == "inferred"
    assert told["kind=x=1"]["values"]["kind"] == ["x=1"] * 3
    assert told["kind=small, red"]["values"]["kind"] == ["small, red"] * 3


def test_what_a_table_does_not_have_is_inferred_and_said(folder, tmp_path):
    words = ["--evidence", f"{folder / 'narrow.csv'}:1", "--do", "size=3"]
    told, output = answers(folder, tmp_path / "out", *words)
    assert "Not in the evidence, so drawn from its prior (one draw): weight = " in output
    assert told["size=3"]["factual"]["size"] == [2.0]
    refused = run("counterfactual", folder / "model", "--evidence", folder / "misspelt.csv", "--do", "size=1")
    told = (
        "Column 'wieght' of misspelt.csv means no node; 'weight', which it looks like, has no column. Rename"
    )
    assert told in str(refused.exception)


def test_several_samples_print_and_save_their_spread(folder, tmp_path):
    words = ["--evidence", folder / "gaps.csv", "--do", "size=size + 1", "--samples", 300]
    told, output = answers(folder, tmp_path / "out", *words)
    # size given weight 7 is uniform on the normal of mean 3.5 and standard deviation 1/2
    assert re.search(r"so inferred: size = 3\.[45]\d* \+- 0\.(4|5)", output) and "one draw" not in output
    assert re.search(r"do\(size=size \+ 1\)  kind = x=1, .*size = 2, 3, 4\.[45]\d* \+- 0\.(4|5)", output)
    world = told["size=size + 1"]
    assert world["factual"]["size"] == [1.0, 2.0, None] and world["draws"] == 300
    table = pd.read_csv(tmp_path / "out" / "inferred" / "summary.csv").set_index(["node", "row", "category"])
    assert table.loc[("size", 2)]["mean"].item() == pytest.approx(3.5, abs=0.1)
    shares = table.loc[("kind", 1)]["probability"]
    assert shares.sum() == pytest.approx(1) and shares.max() < 0.35  # one of four
    assert (tmp_path / "out" / "size=size_+_1" / "summary.csv").exists()


def test_nulls_of_a_json_are_inferred(folder, tmp_path):
    told, _ = answers(folder, tmp_path / "out", "--evidence", folder / "gaps.json", "--do", "size=3")
    assert told["size=3"]["factual"]["kind"][1] == "plain"
    assert told["size=3"]["values"]["weight"] == pytest.approx([7.0, 6.0])


def test_clip_moves_what_is_out_of_bounds(folder, tmp_path):
    words = ["--set", "kind=plain,size=9,weight=20", "--do", "size=size + 5"]
    refused = run("counterfactual", folder / "model", *words, "--out", tmp_path / "out")
    assert isinstance(refused.exception, cg.DomainError)
    told, _ = answers(folder, tmp_path / "out", *words, "--clip")
    assert told["size=size + 5"]["values"]["weight"] == pytest.approx([22.0])
    sampled = ["sample", folder / "model", "-n", 3, "--do", "size=size + 20", "--out", tmp_path / "drawn"]
    assert isinstance(run(*sampled).exception, cg.DomainError)
    assert run(*sampled, "--clip").exit_code == 0
    assert pd.read_csv(tmp_path / "drawn" / "values.csv")["size"].tolist() == [10.0] * 3


def test_rows_that_are_named_keep_their_numbers(folder, tmp_path):
    """Rows 1 and 2 of the table were rows 0 and 1 of tables, pictures and warnings."""
    far = folder / "far.csv"
    pd.DataFrame({"kind": ["plain"] * 3, "size": [1.0, 2.0, 3.0], "weight": [2.0, 4.0, 9e9]}).to_csv(far)
    words = ["--evidence", f"{far}:1-2", "--do", "size=4", "--do", "size=size*2", "--do", "size=size/2"]
    told, _ = answers(folder, tmp_path / "out", *words)
    assert told["size=4"]["index"] == ["1", "2"]
    for text, size in {"size=4": [4, 4], "size=size*2": [4, 6], "size=size/2": [1, 1.5]}.items():
        table = pd.read_csv(tmp_path / "out" / told[text]["folder"] / "values.csv")
        assert table["row"].tolist() == [1, 2] and table["size"].tolist() == size
    refused = run("counterfactual", folder / "model", "--evidence", f"{far}:1-2", "--do", "size=size*4")
    assert "row 2 is 12" in str(refused.exception)


@pytest.mark.parametrize("name", ["gaps.json", "one.png"])
def test_rows_of_what_is_no_table_are_refused(folder, tmp_path, name):
    """All rows were answered where one was asked about."""
    if name.endswith("png"):
        (folder / name).touch()
    words = ["--evidence", f"{folder / name}:1", "--do", "size=3", "--out", tmp_path / "out"]
    refused = run("counterfactual", folder / "model", *words)
    assert f"{name} is no table, of which rows could be named: leave :1 out" in str(refused.exception)
