"""Somebody else's package adds a metric: built, installed into a folder of its own, part of every report."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

PROJECT = Path(__file__).parent / "causalgen_contrast"
CHECKOUT = Path(__file__).parents[2]

USE = """
import sys
import causalgen as cg
from tests.causalgen.metrics import shades

data = shades.rows(30)
scm = shades.shades().fit(data, progress=False)
assert "causalgen_contrast" not in sys.modules
report = cg.evaluate(scm, data, progress=False)
(found,) = report.find("contrast", subject="mechanism", do="shade")
factual, = report.find("contrast", do="")
contrast = data["image"].std(axis=(1, 2, 3)).mean()
assert abs(factual.score.value - contrast) < 1e-6, (factual, contrast)
assert found.score.rows == 30
page = report.save("report").read_text(encoding="utf-8")
assert page.count("<th>contrast</th>") == 2, "a column of do(kind) and do(shade)"
assert "Further metrics" in page and "Further metrics" in str(report)
assert [each.metric for each in cg.evaluate(scm, data, metrics=["contrast"], progress=False).entries] == [
    each.metric for each in report.entries if each.metric == "contrast"
]
try:
    cg.evaluate(scm, data, metrics=["contrst"], progress=False)
except cg.UnknownNameError as error:
    print(error)
"""


@pytest.fixture(scope="module")
def installed(tmp_path_factory) -> Path:
    """A folder into which the plug-in's wheel was installed; nothing else was."""
    built, folder = tmp_path_factory.mktemp("built"), tmp_path_factory.mktemp("installed")
    run("-m", "build", "--wheel", "--no-isolation", "--skip-dependency-check", "--outdir", built, PROJECT)
    (wheel,) = built.glob("causalgen_contrast-*.whl")
    run("-m", "pip", "install", "--no-deps", "--no-index", "--quiet", "--target", folder, wheel)
    return folder


def run(*arguments: object, path: Path | None = None, cwd: Path | None = None) -> str:
    """Run Python with ``path`` before the checkout on its path, and return what it printed."""
    paths = os.pathsep.join(str(each) for each in (path, CHECKOUT) if each)
    command = [sys.executable, *map(str, arguments)]
    done = subprocess.run(
        command, capture_output=True, text=True, cwd=cwd, env={**os.environ, "PYTHONPATH": paths}
    )
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def test_a_metric_of_another_package_is_in_the_report(installed, tmp_path):
    told = run("-c", USE, path=installed, cwd=tmp_path)
    assert "metric 'contrst'" in told and "contrast" in told
