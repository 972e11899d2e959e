"""Somebody else's package adds a mechanism: built, installed into a folder of its own, used from YAML."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

PROJECT = Path(__file__).parent / "causalgen_laplace"
CHECKOUT = Path(__file__).parents[2]

SCM_FILE = """\
causalgen: 1
nodes:
  dose: {variable: {type: continuous}, mechanism: {kind: additive}}
  effect:
    variable: {type: continuous}
    parents: [dose]
    mechanism: {kind: laplace_additive, training: {epochs: 70}}
"""

USE = """
import sys
import numpy as np
import causalgen as cg

assert "laplace_additive" in cg.mechanisms.kinds()
plain = cg.SCM.from_yaml("plain.yaml")
assert "causalgen_laplace" not in sys.modules, "imported although no file named its kind"

scm = cg.SCM.from_yaml("scm.yaml")
assert "causalgen_laplace" in sys.modules
assert cg.SCM.from_yaml("scm.yaml").to_yaml() == scm.to_yaml()
assert "laplace_additive" in scm.to_yaml() and "epochs: 70" in scm.to_yaml()

random = np.random.default_rng(0)
dose = random.normal(50, 10, size=1000)
rows = {"dose": dose, "effect": 3 * dose + random.laplace(scale=2, size=1000)}
scm.fit(rows, seed=0, progress=False).save_pretrained("saved")
print(scm.check(rows).ok)
print(float(scm.counterfactual({"dose": 50.0, "effect": 151.0}, do={"dose": 51.0})["effect"]))
print(scm.sample(3, seed=0)["effect"].tolist())
"""

LOAD = """
import causalgen as cg
print(cg.SCM.from_pretrained("saved").sample(3, seed=0)["effect"].tolist())
"""

LAWS = """
import torch
import causalgen as cg
from causalgen.testing import check_mechanism
from causalgen_laplace import LaplaceAdditive

parents = {"a": cg.Continuous(), "k": cg.Categorical(3)}
generator = torch.Generator().manual_seed(0)
a = torch.randn(50, generator=generator, dtype=torch.float64)
k = torch.randint(3, (50,), generator=generator)
for slope in ("free", "zero"):
    mechanism = LaplaceAdditive(slope=slope).bind(cg.Continuous(), parents).eval()
    x = 100 + 5 * a + k
    mechanism.prepare(x, {"a": a, "k": k})
    if slope == "free":
        mechanism.weight.data += 0.3
    mechanism.mark_fitted()
    check_mechanism(mechanism, x, {"a": a, "k": k})
root = LaplaceAdditive().bind(cg.Continuous(), {}).eval()
root.prepare(a, {})
root.mark_fitted()
check_mechanism(root, a, {})
try:
    LaplaceAdditive().bind(cg.Categorical(2), {})
except cg.MechanismError as error:
    print(error)
"""


@pytest.fixture(scope="module")
def installed(tmp_path_factory) -> Path:
    """A folder into which the plug-in's wheel was installed; nothing else was."""
    return install(PROJECT, tmp_path_factory)


@pytest.fixture
def work(tmp_path) -> Path:
    """A folder with SCM files that do and do not name the plug-in's kind."""
    (tmp_path / "scm.yaml").write_text(SCM_FILE, encoding="utf-8")
    plain = SCM_FILE.replace("kind: laplace_additive", "kind: flow")
    (tmp_path / "plain.yaml").write_text(plain, encoding="utf-8")
    return tmp_path


def install(project: Path, tmp_path_factory) -> Path:
    """Build a plug-in's wheel and install it into a folder of its own."""
    built, folder = tmp_path_factory.mktemp("built"), tmp_path_factory.mktemp("installed")
    run("-m", "build", "--wheel", "--no-isolation", "--skip-dependency-check", "--outdir", built, project)
    (wheel,) = built.glob("*.whl")
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


def test_used_from_yaml_fitted_saved_and_loaded_and_held_to_the_laws(installed, work):
    ok, counterfactual, drawn = run("-c", USE, path=installed, cwd=work).splitlines()
    assert ok == "True"
    assert float(counterfactual) == pytest.approx(154, abs=0.2)  # the slope is 3
    again, told = run("-c", LOAD + LAWS, path=installed, cwd=work).splitlines()
    assert again == drawn
    assert "needs a continuous scalar, got categorical" in told


def test_without_the_plug_in_the_file_is_refused_with_its_place(work):
    code = "import causalgen as cg\ntry: cg.SCM.from_yaml('scm.yaml')\nexcept cg.SpecError as e: print(e)"
    message = run("-c", code, cwd=work)
    assert "scm.yaml:7" in message and "laplace_additive" in message
