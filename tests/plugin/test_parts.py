"""Somebody else's package adds a solver, a network and a noise family: named in YAML, held to the laws."""

from pathlib import Path

import pytest

from tests.plugin.test_plugin import install, run

PROJECT = Path(__file__).parent / "causalgen_parts"

SCM_FILE = """\
causalgen: 1
nodes:
  digit: {variable: {type: categorical, categories: 2}, mechanism: {kind: categorical}}
  wear:
    variable: {type: continuous}
    mechanism: {kind: equation, value: 2 * u, noise: {u: {weibull: [1, 1.5]}}}
  image:
    variable: {type: image, shape: [1, 8, 8]}
    parents: [digit]
    mechanism:
      kind: diffusion
      backbone: {kind: conv, width: 8}
      predictor: {channels: [8], unshuffle: 1}
      solver: {kind: heun, steps: 12}
      guidance: {kind: classifier_free, weight: 2}
      training: {epochs: 30, batch_size: 64}
"""

USE = """
import sys
import numpy as np
import causalgen as cg

scm = cg.SCM.from_yaml("scm.yaml")
written = scm.to_yaml()
assert cg.SCM.from_yaml("scm.yaml").to_yaml() == written
assert "{kind: heun, steps: 12}" in written and "{kind: conv, width: 8}" in written, written
assert "weibull" in written

random = np.random.default_rng(0)
digit = random.integers(2, size=128)
image = np.full((128, 1, 8, 8), 0.2) + 0.02 * random.normal(size=(128, 1, 8, 8))
image[:, :, :4] += 0.5 * digit[:, None, None, None]  # the upper half is bright where the digit is 1
rows = {"digit": digit, "wear": random.gamma(2, size=128), "image": image.clip(0, 1)}
scm.fit(rows, seed=0, progress=False).save_pretrained("saved")
evidence = {name: values[:4] for name, values in rows.items()}
changed = scm.counterfactual(evidence, do={"digit": 1 - evidence["digit"]}, seed=0)["image"]
kept = scm.counterfactual(evidence, do={"digit": evidence["digit"]}, seed=0, copy_unaffected=False)["image"]
moved = (np.asarray(changed) - evidence["image"])[:, :, :4].mean((1, 2, 3)) * (1 - 2 * evidence["digit"])
print(float(moved.min()), float(np.abs(np.asarray(kept) - evidence["image"]).mean()))
print(np.asarray(scm.sample(2, seed=0)["image"]).sum())
other = scm.with_options("image", solver={"steps": 4})
solver = other.mechanisms["image"].spec.solver
assert (solver.kind, solver.steps) == ("heun", 4)
"""

LOAD = """
import numpy as np
import causalgen as cg
print(np.asarray(cg.SCM.from_pretrained("saved").sample(2, seed=0)["image"]).sum())
"""

LAWS = """
from causalgen.testing import check_backbone, check_noise_law, check_solver
from causalgen_parts import Conv, Heun
from mechanisms.tables.noise_families import noise_law

check_solver(Heun())
check_solver(Heun(thresholding=True))
check_backbone(Conv())
check_backbone(Conv(width=4), (3, 5, 7))
check_noise_law(noise_law({"weibull": [2.0, 1.5]}))
check_noise_law(noise_law({"weibull": [0.1, 0.8]}))
"""

REFUSED = """
import sys
import causalgen as cg
wrong = {"steps: 12": "step: 12", "heun": "huen", "width: 8": "width: 0", "1, 1.5": "1, -1.5"}
for old, new in wrong.items():
    text = open("scm.yaml").read().replace(old, new)
    open("wrong.yaml", "w").write(text)
    try:
        cg.SCM.from_yaml("wrong.yaml")
    except cg.SpecError as error:
        print(error)
"""


@pytest.fixture(scope="module")
def installed(tmp_path_factory) -> Path:
    """A folder into which the plug-in's wheel was installed; nothing else was."""
    return install(PROJECT, tmp_path_factory)


@pytest.fixture
def work(tmp_path) -> Path:
    """A folder with an SCM file that names the plug-in's parts."""
    (tmp_path / "scm.yaml").write_text(SCM_FILE, encoding="utf-8")
    return tmp_path


def test_parts_are_named_in_yaml_fitted_asked_saved_and_loaded(installed, work):
    figures, drawn = run("-c", USE, path=installed, cwd=work).splitlines()
    moved, missed = map(float, figures.split())
    assert moved > 0.25  # half of the pixels' change at least, in every row
    assert missed < 0.05  # of a null intervention, without residuals
    assert run("-c", LOAD, path=installed, cwd=work).strip() == drawn


def test_parts_keep_the_laws_and_wrong_options_are_named_with_their_place(installed, work):
    place = "nodes.image.mechanism"
    step, kind, width, noise = run("-c", LAWS + REFUSED, path=installed, cwd=work).splitlines()
    assert step.startswith(f"wrong.yaml:14:28: {place}.solver.step: unknown key. Did you mean 'steps'?")
    assert kind.startswith(
        f"wrong.yaml:14:22: {place}.solver.kind: unknown kind 'huen'. Did you mean 'heun'?"
    )
    assert "Known: anchored, belm, ddim, ddpm, heun, jumps." in kind
    assert width.startswith(f"wrong.yaml:12:37: {place}.backbone.width: must be greater than or equal to 1")
    assert noise.startswith("wrong.yaml:6:") and "weibull: concentration must be above 0, got -1.5" in noise


def test_without_the_plug_in_the_parts_are_refused_with_their_place(work):
    code = "import causalgen as cg\ntry: cg.SCM.from_yaml('scm.yaml')\nexcept cg.SpecError as e: print(e)"
    message = run("-c", code, cwd=work)
    assert "scm.yaml:6" in message and "'weibull'" in message
