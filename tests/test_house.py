"""The shape of the tree: few rooms on few floors, no circles, files of readable length, a short way down."""

import ast
import traceback
from collections import Counter

import networkx as nx
import numpy as np
import pytest

import causalgen as cg
from mechanisms.base import MechanismSpec
from mechanisms.tables.additive import AdditiveMechanism
from tests import house

ROOMS, FLOORS, LONGEST, CALLS, FILES = 16, 8, 450, 5, 4


def test_rooms_and_floors_are_few():
    assert len(house.rooms()) <= ROOMS
    assert max(house.floors().values()) <= FLOORS


def test_no_modules_import_each_other_in_a_circle():
    assert house.circles() == []


def test_no_file_is_long():
    assert {path: count for path, count in house.lines().items() if count > LONGEST} == {}


@pytest.mark.parametrize("step", ["abduct", "generate"])
def test_a_counterfactual_reaches_its_mechanism_in_few_calls(monkeypatch, step):
    rng = np.random.default_rng(0)
    x = rng.normal(size=32)
    additive = cg.mechanisms.Additive()
    scm = cg.SCM(
        nx.DiGraph([("x", "y")]),
        {"x": cg.Continuous(), "y": cg.Continuous()},
        {"x": additive, "y": additive},
    ).fit({"x": x, "y": 2 * x + rng.normal(size=32)}, progress=False)
    ways: list[list[traceback.FrameSummary]] = []
    unchanged = getattr(AdditiveMechanism, step)

    def spied(self, *args, **options):
        frames = traceback.extract_stack()
        start = next(k for k, frame in enumerate(frames) if frame.filename.endswith("scm.py"))
        ways.append([frame for frame in frames[start:] if "causalgen" in frame.filename.split("/")])
        return unchanged(self, *args, **options)

    monkeypatch.setattr(AdditiveMechanism, step, spied)
    scm.counterfactual({"x": 1.0, "y": 2.5}, do={"x": 2.0})
    assert ways
    for way in ways:
        assert len(way) <= CALLS
        assert len({frame.filename for frame in way}) <= FILES
        assert not any("missing_evidence" in frame.filename for frame in way)


def test_no_private_name_of_another_package_is_imported():
    found = {}
    for path in house.lines():
        for node in ast.walk(ast.parse((house.ROOT / path).read_text())):
            if isinstance(node, ast.ImportFrom) and node.module and node.module != "__future__":
                names = [alias.name for alias in node.names]
                parts = [*node.module.split("."), *names]
                if any(part.startswith("_") and not part.startswith("__") for part in parts):
                    found[path] = f"{node.module}: {names}"
    assert found == {}


def test_every_warning_goes_through_the_one_that_finds_the_user_s_line():
    """``warnings.warn`` shows a line of these packages; what a module's name warns of is at the right one."""
    found = [
        path
        for path in house.lines()
        for node in ast.walk(ast.parse((house.ROOT / path).read_text()))
        if isinstance(node, ast.Attribute) and ast.unparse(node) == "warnings.warn"
    ]
    assert found == ["causalgen/__init__.py"]


def test_a_saved_model_binds_each_mechanism_once(monkeypatch):
    made = Counter()
    unchanged = MechanismSpec.bind

    def counted(self, variable, parents):
        made[type(self).__name__] += 1
        return unchanged(self, variable, parents)

    monkeypatch.setattr(MechanismSpec, "bind", counted)
    cg.SCM.from_pretrained("mnist")
    assert made == {"Categorical": 1, "Diffusion": 1}
