"""``--rename COLUMN=node``: the answer is that of the table with its columns renamed, by every command."""

import json

import networkx as nx
import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

import causalgen as cg
from causalgen.cli import main as cli
from causalgen.cli.assignments import parse_renames
from causalgen.data.parquet_rows import ParquetRows
from causalgen.data.reading import Rows, read_data
from graphs.errors import DataError, UnknownNameError

ODD = {"dose": "Dose (mg=day)", "place": "pos", "kind": "Kind of dog", "weight": "dose"}
"""Columns by node: one has an equals sign, one is spread over two columns, one has another node's name."""

RENAMES = [part for node, column in ODD.items() for part in ("--rename", f"{column}={node}")]
VARIABLES = {
    "dose": cg.Continuous(),
    "place": cg.Continuous(shape=(2,)),
    "kind": cg.Categorical(["pug", "lab"]),
    "weight": cg.Continuous(),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """dose, place, kind -> weight: an SCM file, and the same rows under their nodes' names and others."""
    root = tmp_path_factory.mktemp("renamed")
    additive = cg.mechanisms.Additive()
    cg.SCM(
        nx.DiGraph([("dose", "weight"), ("place", "weight"), ("kind", "weight")]),
        VARIABLES,
        {"dose": additive, "place": additive, "weight": additive},
    ).to_yaml(root / "scm.yaml")
    random = np.random.default_rng(0)
    frame = pd.DataFrame(random.normal(size=(80, 3)), columns=["dose", "place_0", "place_1"])
    frame["kind"] = np.array(["pug", "lab"])[random.integers(0, 2, 80)]
    frame["weight"] = 2 * frame["dose"] - frame["place_1"] + random.normal(size=80)
    odd = frame.rename(columns=ODD | {"place_0": "pos_0", "place_1": "pos_1"}).assign(note="x")
    for name, each in (("named", frame), ("odd", odd)):
        each.to_csv(root / f"{name}.csv", index=False)
        each.to_parquet(root / f"{name}.parquet")
    assert run("fit", root / "scm.yaml", "--data", root / "named.csv", "--out", root / "model").exit_code == 0
    return root


def run(*arguments):
    return CliRunner().invoke(cli.app, [str(argument) for argument in arguments])


def told(*arguments):
    result = run(*arguments)
    assert result.exit_code in (0, 3), result.output or result.exception
    return result.output


def test_a_fit(folder, tmp_path):
    said = told(
        "fit", folder / "scm.yaml", "--data", folder / "odd.csv", "--out", tmp_path / "model", *RENAMES
    )
    assert "Columns of odd.csv that mean no node: note." in said
    for file in (folder / "model").glob("*.safetensors"):
        assert file.read_bytes() == (tmp_path / "model" / file.name).read_bytes()
    card = (tmp_path / "model" / "README.md").read_text()
    assert "--rename 'Kind of dog=kind'" in card


@pytest.mark.parametrize(
    "words",
    [
        ["check", "MODEL", "--data", "TABLE.csv", "--out", "OUT/a.json"],
        ["evaluate", "MODEL", "--data", "TABLE.csv", "--out", "OUT/a"],
        ["effect", "MODEL", "weight", "--do", "dose=1", "--versus", "dose=0", "--evidence", "TABLE.csv:3"],
        [
            *["effect", "MODEL", "weight", "--do", "dose=1", "-n", 50, "--refits", 3, "--data", "TABLE.csv"],
            *["--out", "OUT/a.csv"],
        ],
        ["counterfactual", "MODEL", "--do", "dose=1", "--evidence", "TABLE.csv", "--out", "OUT/a"],
        ["counterfactual", "MODEL", "--do", "dose=1", "--table", "TABLE.parquet", "--out", "OUT/a"],
    ],
)
def test_every_command_says_the_same_of_the_renamed_table(folder, tmp_path, words):
    said = []
    for name, renames in (("named", []), ("odd", RENAMES)):
        places = {"MODEL": str(folder / "model"), "TABLE": str(folder / name), "OUT": str(tmp_path / name)}
        typed = [str(word) for word in words]
        for key, place in places.items():
            typed = [word.replace(key, place) for word in typed]
        text = told(*typed, *renames).replace(str(tmp_path / name), "OUT")
        said.append("\n".join(line for line in text.splitlines() if "mean no node" not in line))
    assert said[0] == said[1]
    for file in (each for each in (tmp_path / "named").rglob("*") if each.suffix in (".csv", ".parquet")):
        assert file.read_bytes() == (tmp_path / "odd" / file.relative_to(tmp_path / "named")).read_bytes()
    for file in (tmp_path / "named").rglob("report.json"):
        both = [json.loads(each.read_text()) for each in (file, tmp_path / "odd" / "a" / file.name)]
        assert both[0]["entries"] == both[1]["entries"]


def test_evidence_may_lack_what_the_training_rows_have(folder, tmp_path):
    pd.read_csv(folder / "odd.csv").head(1)[["dose", "Kind of dog"]].to_csv(tmp_path / "few.csv", index=False)
    pd.read_csv(folder / "named.csv").head(1)[["weight", "kind"]].to_csv(tmp_path / "same.csv", index=False)
    words = ["effect", folder / "model", "weight", "--do", "place=[0, 1]", "-n", 50, "--refits", 2, "--data"]
    said = told(*words, folder / "odd.csv", "--evidence", tmp_path / "few.csv", *RENAMES)
    assert said == told(*words, folder / "named.csv", "--evidence", tmp_path / "same.csv")


@pytest.mark.parametrize(
    ("texts", "error", "match"),
    [
        (
            ["Dosis=dose"],
            UnknownNameError,
            "Unknown column 'Dosis' in --rename 'Dosis=dose'. Did you mean 'Dose'",
        ),
        (
            ["Dose=dosis"],
            UnknownNameError,
            "Unknown node 'dosis' in --rename 'Dose=dosis'. Did you mean 'dose'",
        ),
        (["Dose=dose", "b=dose"], DataError, "'b=dose': node 'dose' has the column 'Dose' already"),
        (["Dose=dose", "Dose=weight"], DataError, "column 'Dose' is node 'dose' already"),
        (["Dose"], DataError, "expected COLUMN=node, as in"),
        (["=dose"], DataError, "expected COLUMN=node, as in"),
        (["Dose=kind"], DataError, "there is a column 'kind' too"),
        (["weight=dose"], DataError, "has the name of another node. .* --rename COLUMN=weight"),
    ],
)
def test_what_cannot_be_meant_is_refused(texts, error, match):
    with pytest.raises(error, match=match):
        parse_renames(texts, VARIABLES, [["Dose", "b", "kind", "weight"]])


def test_a_column_may_begin_and_end_in_spaces():
    """What errors advise, ``--rename 'dose =dose'``, was refused."""
    header = ["dose ", " b", "kind", "weight"]
    assert parse_renames(["dose =dose"], VARIABLES, [header]) == {"dose": "dose "}
    assert parse_renames([" b = dose "], VARIABLES, [["b", " b", "weight"]]) == {"dose": "b"}


def test_columns_may_change_places():
    swapped = parse_renames(["weight=dose", "dose=weight"], VARIABLES, [["dose", "weight"]])
    assert swapped == {"dose": "weight", "weight": "dose"}
    rows = {"dose": [1.0], "weight": [2.0]}
    table = read_data(Rows(rows, swapped), {name: VARIABLES[name] for name in rows})
    assert (table["dose"].item(), table["weight"].item()) == (2, 1)


@pytest.mark.parametrize("command", ["tune", "distil", "evaluators", "app"])
def test_the_other_commands_take_it_too(folder, tmp_path, command):
    words = {
        "tune": ["--out", tmp_path / "o"],
        "distil": ["--out", tmp_path / "o"],
        "evaluators": ["--out", tmp_path / "o"],
        "app": ["--port", 0],
    }
    found = run(
        command, "mnist", "--data", folder / "odd.csv", "--rename", "Kynd of dog=digit", *words[command]
    )
    assert "Did you mean 'Kind of dog'?" in str(found.exception), found.output


def test_without_names_there_is_nothing_to_rename(folder, tmp_path):
    found = run("counterfactual", folder / "model", "--set", "dose=1", "--do", "dose=2", *RENAMES)
    assert "--rename names a column of a table, and none is given" in str(found.exception)


def test_the_values_of_a_json_have_names_too(folder, tmp_path):
    row = {"dose": 1.5, "place": [0.5, 2.0], "kind": "lab", "weight": 3.25}
    words = ["counterfactual", folder / "model", "--do", "dose=2", "--out", tmp_path / "out", "--evidence"]
    (tmp_path / "named.json").write_text(json.dumps(row))
    (tmp_path / "odd.json").write_text(json.dumps({ODD[node]: value for node, value in row.items()}))
    said = told(*words, tmp_path / "odd.json", *RENAMES)
    assert said == told(*words, tmp_path / "named.json")
    odd = {ODD[node]: value for node, value in row.items() if node != "place"} | {"pos_0": 0.5, "pos_1": 2.0}
    (tmp_path / "spread.json").write_text(json.dumps(odd))
    assert said == told(*words, tmp_path / "spread.json", *RENAMES)
    misspelt = run(*words, tmp_path / "odd.json", "--rename", "Dosis (mg=day)=dose")
    assert "Did you mean 'Dose (mg=day)'?" in str(misspelt.exception)


def test_a_named_data_set_has_the_column_or_is_refused(tmp_path):
    """The only image takes the images, whatever its name; not where another column was asked for."""
    import gzip

    (tmp_path / "train-labels-idx1-ubyte.gz").write_bytes(gzip.compress(bytes([0, 0, 8, 1, 0, 0, 0, 1, 7])))
    pixels = bytes([0, 0, 8, 3, 0, 0, 0, 1, 0, 0, 0, 28, 0, 0, 0, 28]) + bytes(784)
    (tmp_path / "train-images-idx3-ubyte.gz").write_bytes(gzip.compress(pixels))
    variables = {"digit": cg.Categorical(10)}
    assert read_data(f"mnist:{tmp_path}", variables)["digit"].tolist() == [7]
    with pytest.raises(DataError, match="means no column"):
        read_data(Rows(f"mnist:{tmp_path}", {"digit": "lable"}), variables)


def test_refused_pictures_are_told_by_their_column(tmp_path):
    variables = {"scan": cg.Image(1, 4, 4), "x": cg.Continuous()}
    pd.DataFrame({"My scan": ["none.png"], "x": [1.0]}).to_parquet(tmp_path / "a.parquet")
    read = ParquetRows(tmp_path / "a.parquet", variables, columns={"scan": "My scan"}).read(0, 1)
    assert [each.column for each in read.refused] == ["My scan"]


def test_the_command_line_advises_it():
    from causalgen.cli.wording import in_command_words

    frame = pd.DataFrame({"Dose": [1.0]})
    with pytest.raises(DataError) as missing:
        read_data(frame, {"dose": cg.Continuous()})
    assert in_command_words(str(missing.value)) == (
        "There is no column 'dose' of the data frame. Did you mean 'Dose'? Columns: Dose. "
        "Name the one that is meant: --rename COLUMN=dose."
    )
