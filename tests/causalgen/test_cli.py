"""The command line as a user types it: what it prints, what it writes, how it fails."""

import json
import subprocess
import sys
import time

import numpy as np
import pandas as pd
import pytest
from PIL import Image as PILImage
from typer.testing import CliRunner

import causalgen as cg
from causalgen import cli
from causalgen.export import to_png


def run(*arguments):
    return CliRunner().invoke(cli.app, [str(argument) for argument in arguments])


def picture_size(path):
    with PILImage.open(path) as picture:
        return picture.size


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


def test_help_is_quick_and_lists_the_commands():
    began = time.process_time()
    helped = subprocess.run(
        [sys.executable, "-c", "from causalgen.cli import main; main()", "--help"],
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
    told = json.loads((out / "worlds.json").read_text())
    assert told["worlds"]["kind=1"]["values"] == {"kind": [1]}
    expected = scm.counterfactual(
        {"kind": kind, "picture": data["picture"][0]}, do={"kind": 1 - kind}, seed=0
    )
    written = np.asarray(PILImage.open(out / f"kind={1 - kind}" / "picture" / "0000.png"))
    np.testing.assert_allclose(written / 255, expected["picture"][0, 0], atol=1 / 255)
    assert picture_size(out / "picture.png") > (100, 100)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["show", "mnst"], "gallery model 'mnst'"),
        (["counterfactual", "MODEL", "--evidence", "absent.json", "--do", "kind=1"], "no evidence file"),
        (["counterfactual", "MODEL", "--evidence", "EVIDENCE"], "at least one --do"),
        (["counterfactual", "MODEL", "--evidence", "EVIDENCE", "--do", "kind"], "expected node=value"),
        (["counterfactual", "MODEL", "--evidence", "EVIDENCE", "--do", "kid=1"], "Did you mean 'kind'"),
        (["counterfactual", "MODEL", "--evidence", "EVIDENCE", "--do", "kind=7"], "0..1"),
        (["counterfactual", "MODEL", "--evidence", "EVIDENCE", "--do", "kind=x"], "'x' is no value"),
        (["counterfactual", "MODEL", "--evidence", "TABLE:99", "--do", "kind=1"], "rows 0..15"),
        (["counterfactual", "MODEL", "--set", "kind=1", "--do", "kind=1"], "lacks 'picture'"),
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
