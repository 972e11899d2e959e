"""What people install is the wheel, so the wheel must hold everything and answer away from the checkout.

The virtual environment is clean: no system packages, and no pip. Its libraries (torch is gigabytes)
are lent by a ``.pth`` file that names this interpreter's site-packages. Python does not process the
``.pth`` files of a folder that joined the path in this way, so the editable checkout, itself such a file,
stays out of sight; the script below asserts that the three packages come from the wheel.
"""

import os
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path
from zipfile import ZipFile

import pytest

CHECKOUT = Path(__file__).parents[1]
PACKAGES = ("causalgen", "graphs", "mechanisms")

COUNTERFACTUAL = """
import sys
from pathlib import Path

import networkx as nx
import numpy as np

import causalgen as cg
import graphs
import mechanisms

home = Path(sys.prefix).resolve()
for package in (cg, graphs, mechanisms):
    assert home in Path(package.__file__).resolve().parents, package.__file__

rng = np.random.default_rng(0)
x = rng.normal(size=2000)
scm = cg.SCM(
    nx.DiGraph([("x", "y")]),
    variables={"x": cg.Continuous(), "y": cg.Continuous()},
    mechanisms={"x": cg.mechanisms.Additive(), "y": cg.mechanisms.Additive()},
)
scm.fit({"x": x, "y": 2 * x + rng.normal(size=2000)}, seed=0)
cf = scm.counterfactual({"x": 1.0, "y": 5.0}, do={"x": 2.0})
print(float(np.asarray(cf["y"]).squeeze()))
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    """The wheel, built from the checkout by its build backend, without the network."""
    folder = tmp_path_factory.mktemp("wheel")
    run(sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", folder, CHECKOUT)
    (built,) = folder.glob("causalgen-*.whl")
    return built


@pytest.fixture(scope="module")
def python(wheel, tmp_path_factory) -> Path:
    """The interpreter of a clean virtual environment in which the wheel is installed."""
    home = tmp_path_factory.mktemp("clean") / "venv"
    venv.create(home, with_pip=False)
    scripts = home / ("Scripts" if os.name == "nt" else "bin")
    python = scripts / ("python.exe" if os.name == "nt" else "python")
    install = ["-m", "pip", "--python", python, "install", "--no-deps", "--no-index", "--quiet", wheel]
    run(sys.executable, *install)
    purelib = run(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))").strip()
    lent = {sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}
    Path(purelib, "lent_libraries.pth").write_text("\n".join(sorted(lent)) + "\n", encoding="utf-8")
    return python


def run(*command: object, cwd: Path | None = None) -> str:
    """Run a command without PYTHONPATH and return what it printed; a failure shows all its output."""
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    done = subprocess.run(
        [str(part) for part in command], capture_output=True, text=True, cwd=cwd, env=environment
    )
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def test_wheel_holds_every_file_of_the_packages(wheel):
    expected = {
        path.relative_to(CHECKOUT).as_posix()
        for package in PACKAGES
        for path in (CHECKOUT / package).rglob("*")
        if path.is_file() and path.suffix != ".pyc"
    }
    held = {name for name in ZipFile(wheel).namelist() if not name.startswith("causalgen-")}
    assert held == expected
    assert {f"{package}/py.typed" for package in PACKAGES} <= held


def test_counterfactual_away_from_the_checkout(python, tmp_path):
    answer = float(run(python, "-c", COUNTERFACTUAL, cwd=tmp_path))
    # y = 2 x + u with u = 5 - 2: moving x by one moves y by two, up to the error of a fit on 2,000 rows.
    assert answer == pytest.approx(7.0, abs=0.1)


def test_command_line_away_from_the_checkout(python, tmp_path):
    assert "counterfactual" in run(python.parent / "causalgen", "--help", cwd=tmp_path)
