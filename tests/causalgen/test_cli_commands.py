"""``check``, ``effect``, ``gallery``, ``--version``, ``--device``; images by their files; what is said."""

import ast
import json
import re
import sys
from importlib.metadata import version
from io import BytesIO, TextIOWrapper
from pathlib import Path

import networkx as nx
import numpy as np
import pandas as pd
import pytest
import yaml
from PIL import Image as PILImage
from typer.testing import CliRunner

import causalgen as cg
import graphs
import mechanisms
from causalgen.cli import main as cli
from causalgen.cli.common import rows_of
from causalgen.cli.wording import WORDS, in_command_words
from mechanisms.schema import scm_schema

GALLERY = Path(graphs.__file__).parent / "gallery"


def run(*arguments):
    return CliRunner().invoke(cli.app, [str(argument) for argument in arguments])


@pytest.fixture
def command(monkeypatch, capsys):
    """``causalgen`` with these words: exit code, standard output, standard error."""

    def command(*words):
        monkeypatch.setattr(sys, "argv", ["causalgen", *map(str, words)])
        try:
            cli.main()
            code = 0
        except SystemExit as stopped:
            code = stopped.code or 0
        return code, *capsys.readouterr()

    return command


def test_what_a_terminal_cannot_write_is_spelt_out(monkeypatch, tmp_path):
    """A report of hours ended in a traceback, unsaved, where the encoding lacks an arrow."""
    (tmp_path / "scm.yaml").write_text(
        'causalgen: 1\nnodes:\n  x:\n    variable: {type: continuous, unit: "°C"}\n', encoding="utf-8"
    )
    monkeypatch.setattr(sys, "argv", ["causalgen", "show", str(tmp_path / "scm.yaml")])
    monkeypatch.setattr(sys, "stdout", TextIOWrapper(BytesIO(), encoding="ascii"))
    with pytest.raises(SystemExit) as stopped:
        cli.main()
    sys.stdout.flush()
    assert not stopped.value.code and b"continuous \\xb0C" in sys.stdout.buffer.getvalue()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """kind (one of four), size in [0, 10] -> weight = 2 size + u: a saved model, and rows of it."""
    root = tmp_path_factory.mktemp("commands")
    equation, labels = cg.mechanisms.Equation, ["pug", "lab", "collie", "boxer"]
    scm = cg.SCM(
        nx.DiGraph([("kind", "weight"), ("size", "weight")]),
        {
            "kind": cg.Categorical(labels),
            "size": cg.Continuous(lower=0, upper=10),
            "weight": cg.Continuous(),
        },
        {
            "kind": equation(value="floor(u)", noise={"u": {"uniform": [0, 4]}}),
            "size": equation(value="u", noise={"u": {"uniform": [0, 10]}}),
            "weight": equation(value="2*size + u", noise={"u": {"normal": [0, 1]}}),
        },
    )
    scm.save_pretrained(root / "model")
    random = np.random.default_rng(0)
    size = random.uniform(0, 10, 300)
    rows = pd.DataFrame({"kind": np.array(labels)[random.integers(0, 4, 300)], "size": size})
    rows.assign(weight=2 * size + random.normal(size=300)).to_csv(root / "true.csv", index=False)
    rows.assign(weight=5 * size + random.normal(size=300)).to_csv(root / "false.csv", index=False)
    fitted = cg.SCM(nx.DiGraph({"x": []}), {"x": cg.Continuous()}, {"x": cg.mechanisms.Additive()})
    fitted.fit({"x": random.normal(size=50)}, progress=False).save_pretrained(root / "fitted")
    fitted.to_yaml(root / "scm.yaml")
    return root


def test_version_is_that_of_the_package(command):
    assert command("--version") == (0, f"causalgen {version('causalgen')}\n", "")


def test_gallery_lists_every_model_with_its_nodes(command):
    code, said, _ = command("gallery")
    assert code == 0
    lines = {line.split()[0]: line for line in said.splitlines()}
    files = {path.parent.name: path for path in GALLERY.glob("*/scm.yaml")}
    assert lines.keys() == files.keys() and len(files) >= 2
    for name, path in files.items():
        for node in yaml.safe_load(path.read_text())["nodes"]:
            assert f"{node} (" in lines[name]


def test_check_says_whether_rows_speak_against_the_model(folder, command, tmp_path):
    words = ["check", folder / "model", "--data", folder / "true.csv", "--out", tmp_path / "new" / "a.json"]
    code, said, _ = command(*words)
    told = json.loads((tmp_path / "new" / "a.json").read_text())
    assert code == 0 and "no problem found" in said and told["ok"] and told["rows"] == 300
    code, said, _ = command("check", folder / "model", "--data", folder / "false.csv", "--seed", 3)
    scm = cg.SCM.from_pretrained(folder / "model")
    assert code == 3 and said == f"{scm.check(folder / 'false.csv', seed=3)}\n"
    assert "The noise of weight depends on its parent size" in said


def test_effect_is_that_of_the_equations(folder, command, tmp_path):
    words = ["effect", folder / "model", "weight", "--do", "size=3", "--versus", "size=size - 1"]
    code, said, _ = command(*words, "--evidence", folder / "true.csv:5", "--clip")
    size = pd.read_csv(folder / "true.csv")["size"][5]
    assert code == 0 and f"{2 * (3 - max(size - 1, 0)):.4g} +- 0" in said
    out = tmp_path / "effect.csv"
    words = ["effect", folder / "model", "weight", "--do", "size=3", "--versus", "size=1", "--out", out]
    code, _, _ = command(*words, "--given", "kind", "--given", "size=5", "-n", 200)
    found = pd.read_csv(out)
    assert code == 0 and found["value"].to_numpy() == pytest.approx(4.0) and len(found) == 8
    assert set(found["kind"]) == {"pug", "lab", "collie", "boxer"} and set(found["size"]) == {"< 5", ">= 5"}
    code, said, _ = command("effect", folder / "model", "kind", "--do", "kind=pug", "--category", "pug")
    value, share = map(float, re.search(r"\n  (\S+) .*against (\S+)\)", said).groups())
    assert code == 0 and share == pytest.approx(0.25, abs=0.02) and value == pytest.approx(1 - share)
    assert said.startswith("Effect on kind = pug of do(kind = pug)")  # of which category it is
    code, said, _ = command(
        "effect", folder / "model", "weight", "--do", "size=3", "--set", "size=1,weight=5"
    )
    assert code == 0 and "  4 +- 0" in said


def test_the_shipped_rows_are_used_where_no_data_are_given(command, folder):
    scm = cg.SCM.from_pretrained("mnist")
    shipped = pd.read_csv(GALLERY / "mnist" / "samples" / "rows.csv")
    assert rows_of("mnist", scm, None)["digit"].tolist() == shipped["digit"].tolist()
    assert rows_of("mnist", scm, "some.csv") == "some.csv"
    for words in (["check"], ["evaluate"], ["tune", "--out", "o"]):
        for model in (folder / "model", folder / "scm.yaml"):
            code, _, said = command(words[0], model, *words[1:])
            assert code == 1 and "has no rows of its own: give --data, a CSV" in said, said


@pytest.mark.slow
def test_tune_mnist_needs_no_data(tmp_path):
    words = ["tune", "mnist", "--rows", 20, "--strength", 1, "--strength", 6, "--out", tmp_path / "tuned"]
    assert run(*words).exit_code == 0
    assert (tmp_path / "tuned" / "curve.png").exists()


def test_an_image_is_set_by_its_file(pictures, tmp_path):
    scm, data = pictures
    scm.save_pretrained(tmp_path / "model")
    other = np.random.default_rng(1).integers(0, 256, (8, 8), dtype=np.uint8)
    for name, pixels in (("seen", data["picture"][0, 0]), ("other", other)):
        PILImage.fromarray(pixels).save(tmp_path / f"{name}.png")
    words = ["counterfactual", tmp_path / "model", "--set", f"kind=1,picture={tmp_path / 'seen.png'}"]
    done = run(
        *words, "--do", "kind=0", "--do", f"picture={tmp_path / 'other.png'}", "--out", tmp_path / "cf"
    )
    assert done.exit_code == 0, done.exception
    expected = scm.counterfactual({"kind": 1, "picture": data["picture"][:1]}, do={"kind": 0}, seed=0)
    with PILImage.open(tmp_path / "cf" / "kind=0" / "picture" / "0000.png") as picture:
        np.testing.assert_allclose(np.asarray(picture) / 255, expected["picture"][0, 0], atol=1 / 255)
    (world,) = (tmp_path / "cf").glob("picture=*/picture/0000.png")
    with PILImage.open(world) as picture:
        assert np.array_equal(np.asarray(picture), other)
    told = json.loads((tmp_path / "cf" / "result.json").read_text())["worlds"].values()
    assert [each["do"] for each in told] == [{"kind": "0"}, {"picture": str(tmp_path / "other.png")}]
    done = run("sample", tmp_path / "model", "-n", 2, "--do", f"picture={tmp_path}/none.png", "--out", "o")
    assert "there is no file" in str(done.exception) and not Path("o").exists()


def test_a_device_is_used_or_refused(folder, command, tmp_path):
    words = ["sample", folder / "model", "-n", 3]
    for name, more in (("plain", []), ("named", ["--device", "cpu"])):
        assert command(*words, "--out", tmp_path / name, *more)[0] == 0
    one, two = ((tmp_path / name / "values.csv").read_bytes() for name in ("plain", "named"))
    assert one == two
    for name in ("sample", "counterfactual", "effect", "check", "evaluate", "tune"):
        model = folder / "model"
        more = {"effect": ["size"], "sample": ["--out", "o"], "tune": ["--out", "o"]}.get(name, [])
        code, _, said = command(name, model, *more, "--device", "abacus")
        assert code == 1 and said.startswith("error: Cannot move to the device 'abacus'"), said
        assert said.count("\n") == 1


@pytest.mark.filterwarnings("default")
def test_warnings_are_one_line_without_places_in_python(folder, command):
    code, _, said = command("effect", folder / "fitted", "x", "--do", "x=1000", "-n", 10)
    assert code == 0 and said.count("\n") == 1
    assert said.startswith("warning: Intervention on 'x'") and "extrapolation" in said
    assert ".py" not in said and "warn(" not in said


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["effect", "SCM", "x", "--do", "x=1"], "has not been fitted. Fit it first: causalgen fit."),
        (["check", "SCM", "--data", "ROWS"], "nothing to check. Fit it first: causalgen fit."),
        (["fit", "SCM", "--data", "GAPS", "--out", "o"], "or give --missing drop: a fit leaves out"),
        (["evaluate", "FITTED", "--data", "GAPS", "--out", "o"], "or give --missing drop: a fit leaves out"),
        (["effect", "MODEL", "size"], "give at least one --do node=value"),
        (["effect", "MODEL", "kind", "--do", "size=1"], "Give --category LABEL"),
        (["effect", "MODEL", "size", "--do", "size=1", "--category", "1"], "--category is for categories"),
        (["effect", "MODEL", "kind", "--do", "size=1", "--category", "Pug"], "Did you mean 'pug'?"),
        (["effect", "MODEL", "wieght", "--do", "size=1"], "Did you mean 'weight'?"),
        (["effect", "MODEL", "weight", "--do", "size=1", "--given", "kind=a"], "as in age=18,65"),
        (["effect", "MODEL", "weight", "--do", "kind=pug", "--given", "size"], "--given size="),
        (["effect", "MODEL", "weight", "--do", "kind=pug", "--given", "kind=1"], "Say --given kind."),
        (
            ["effect", "MODEL", "weight", "--do", "kind=pug", "--given", "size=3", "--given", "size=7"],
            "'size' is grouped by already. Give all its edges at once",
        ),
        (["effect", "MODEL", "weight", "--do", "kind=pug", "--refits", "5"], "give --data."),
        (
            ["effect", "MODEL", "weight", "--do", "SIZE=1"],
            "Unknown node 'SIZE' in --do 'SIZE=1'. Did you mean",
        ),
        (["effect", "MODEL", "weight", "--do", "kind=LAB"], "Did you mean 'lab'?"),
        (
            ["fit", "SCM", "--data", "COMMA", "--out", "o"],
            "as categories: ['no', 'yes']; a number has a decimal point and no unit. A gap is an empty cell.",
        ),
        (
            ["counterfactual", "MODEL", "--evidence", "JSON", "--do", "size=1"],
            "Give numbers, in a JSON without",
        ),
        (
            ["effect", "FITTED", "x", "--do", "x=1", "--refits", "5", "--data", "ROWS", "--clusters", "ward"],
            "error: Clusters: There is no column 'ward' of rows.csv. Columns: x.\n",
        ),
        (
            ["fit", "SCM", "--data", "ROWS", "--out", "o", "--intervened", "trial=x"],
            "error: intervened['x']: There is no column 'trial' of rows.csv. Columns: x.\n",
        ),
        (["show", "nowhere"], "Unknown model 'nowhere' in the gallery, and no folder of that name. Known:"),
        (
            ["fit", "SCM", "--data", "ROWS", "--out", "o", "--run-dir", "RUN"],
            "Give --resume to go on with it",
        ),
        (["show", "MNIST"], "Did you mean 'mnist'?"),
        (["demo", "--preset", "Posterior"], "Did you mean 'posterior'?"),
        (["demo", "--out", "demo.jpg"], "Cannot write demo.jpg: pictures are PNG. Give a name that"),
        (["show", "mnist", "--picture", "graph"], "Cannot write graph: pictures are PNG. Give a name that"),
    ],
)
def test_messages_are_in_the_command_s_own_words(folder, command, tmp_path, words, told):
    (tmp_path / "rows.csv").write_text("x\n" + "1\n2\n" * 20)
    (tmp_path / "gaps.csv").write_text("x\n1\nnan\n")
    (tmp_path / "comma.csv").write_text('x\n1\n"1,5"\n')
    (tmp_path / "row.json").write_text('{"weight": "3"}')
    places = {
        "JSON": tmp_path / "row.json",
        "SCM": folder / "scm.yaml",
        "MODEL": folder / "model",
        "FITTED": folder / "fitted",
        "ROWS": tmp_path / "rows.csv",
        "GAPS": tmp_path / "gaps.csv",
        "COMMA": tmp_path / "comma.csv",
        "RUN": tmp_path / "run",
    }
    if "RUN" in words:
        cg.SCM.from_yaml(folder / "scm.yaml").fit(
            tmp_path / "rows.csv", run_dir=tmp_path / "run", progress=False
        )
    code, _, said = command(*(places.get(word, word) for word in words))
    assert code == 1 and said.startswith("error: ") and said.count("\n") == 1
    assert told in said, said
    assert not re.search(r"scm\.|cg\.|lambda|data=|missing=|given=", said), said


def messages():
    """Every text of the library, what is formatted into it being 'x'."""
    for package in (cg, graphs, mechanisms):
        for path in Path(package.__file__).parent.rglob("*.py"):
            if path.parent.name == "cli":
                continue
            for each in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(each, ast.JoinedStr):
                    yield "".join(
                        str(part.value) if isinstance(part, ast.Constant) else "'x'" for part in each.values
                    )
                elif isinstance(each, ast.Constant) and isinstance(each.value, str):
                    yield each.value


def test_every_rewording_is_of_something_that_is_said():
    said = list(messages())
    for pattern, _ in WORDS:
        found = [text for text in said if re.search(pattern, text)]
        assert found and all(in_command_words(text) != text for text in found), pattern


def test_schema_prints_the_json_schema_of_the_scm_file(command):
    code, told, _ = command("schema")
    assert code == 0
    assert json.loads(told) == scm_schema()
