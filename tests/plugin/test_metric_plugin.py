"""Somebody else's package adds a metric: built, installed into a folder of its own, part of every report."""

from pathlib import Path

import pytest

from tests.plugin.test_plugin import install, run

PROJECT = Path(__file__).parent / "causalgen_contrast"

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
    return install(PROJECT, tmp_path_factory)


def test_a_metric_of_another_package_is_in_the_report(installed, tmp_path):
    printed = run("-c", USE, path=installed, cwd=tmp_path)
    assert "metric 'contrst'" in printed and "contrast" in printed
