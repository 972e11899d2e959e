import subprocess
import sys
import textwrap

import pytest
from pydantic import ValidationError

from graphs.errors import MechanismError, SpecError, UnknownNameError
from graphs.variables import Categorical, Continuous, Image
from mechanisms import registry
from mechanisms.tables.additive import Additive
from mechanisms.tables.categorical import Categorical as CategoricalSpec
from mechanisms.tables.flow import Flow
from mechanisms.training import Training

BUILT_IN = ["additive", "categorical", "constant", "diffusion", "flow"]


@pytest.fixture
def install(tmp_path, monkeypatch):
    """Install a real distribution with one entry point: what a plug-in's wheel leaves behind."""

    def install(kind, target="plugged:Plugged", code="", name="plugin"):
        folder = tmp_path / name
        info = folder / f"{name}-1.0.dist-info"
        info.mkdir(parents=True)
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        (info / "entry_points.txt").write_text(f"[{registry.GROUP}]\n{kind} = {target}\n")
        (folder / "plugged.py").write_text(textwrap.dedent(code))
        monkeypatch.syspath_prepend(folder)
        monkeypatch.delitem(sys.modules, "plugged", raising=False)

    return install


PLUG_IN = """
    from typing import Literal
    from mechanisms.base import MechanismSpec

    class Plugged(MechanismSpec, frozen=True):
        kind: Literal["plugged"] = "plugged"
        power: int = 1

        def make(self, variable, parents):
            raise ValueError("binds to nothing")
"""


@pytest.mark.parametrize("kind", BUILT_IN)
def test_built_in_kinds_load(kind):
    assert registry.mechanism_spec(kind).model_fields["kind"].default == kind
    assert kind in registry.kinds()


def test_unknown_kind_names_the_nearest():
    with pytest.raises(UnknownNameError, match=r"'flwo'.*Did you mean 'flow'"):
        registry.parse_mechanism({"kind": "flwo"})


@pytest.mark.parametrize("kind", [None, 3, ["flow"], "os:system", "mechanisms.tables.flow:Flow"])
def test_only_a_registered_name_is_a_kind(kind):
    with pytest.raises(UnknownNameError):
        registry.parse_mechanism({"kind": kind})


def test_kind_is_required():
    with pytest.raises(SpecError, match="needs a kind, one of: additive"):
        registry.parse_mechanism({"bins": 3})


@pytest.mark.parametrize("options", [{"bins": 1}, {"bin": 8}, {"training": {"epochs": 0}}])
def test_bad_options_reach_the_caller_with_their_place(options):
    with pytest.raises(ValidationError) as error:
        registry.parse_mechanism({"kind": "flow", **options})
    assert error.value.errors()[0]["loc"][0] == next(iter(options))


@pytest.mark.parametrize(
    ("variable", "kind"),
    [(Categorical(3), "categorical"), (Continuous(), "auto"), (Image(1, 28, 28), "diffusion")],
)
def test_default_by_variable(variable, kind):
    assert registry.default_mechanism(variable).kind == kind


@pytest.mark.parametrize(
    ("spec", "dumped"),
    [
        (Flow(), {"kind": "flow"}),
        (Flow(bins=5, hidden=(8,)), {"kind": "flow", "bins": 5, "hidden": [8]}),
        (
            Additive(noise="empirical", training=None),
            {"kind": "additive", "noise": "empirical", "training": None},
        ),
        (CategoricalSpec(training={"epochs": 3}), {"kind": "categorical", "training": {"epochs": 3}}),
        # A setting equal to the loop's general default but not to the mechanism's own must be said.
        (Flow(training={"learning_rate": 1e-3}), {"kind": "flow", "training": {"learning_rate": 1e-3}}),
    ],
)
def test_written_options_are_the_differences_and_parse_back(spec, dumped):
    assert registry.dump_mechanism(spec) == dumped
    assert registry.parse_mechanism(dumped) == spec


@pytest.mark.parametrize("kind", BUILT_IN)
def test_partial_training_keeps_the_mechanisms_own(kind):
    default = registry.mechanism_spec(kind)().training
    if default is not None:
        spec = registry.parse_mechanism({"kind": kind, "training": {"epochs": 7}})
        assert spec.training == default.model_copy(update={"epochs": 7})
        assert registry.parse_mechanism(registry.dump_mechanism(spec)) == spec


def test_whole_training_is_taken_as_it_is():
    assert Flow(training=Training(epochs=7)).training == Training(epochs=7)


def test_plug_in(install):
    install("plugged", code=PLUG_IN)
    assert "plugged" in registry.kinds()
    assert "plugged" not in sys.modules, "listing kinds must not import them"
    spec = registry.parse_mechanism({"kind": "plugged", "power": 2})
    assert registry.dump_mechanism(spec) == {"kind": "plugged", "power": 2}


def test_plug_in_cannot_take_a_built_in_kind(install):
    install("flow", code=PLUG_IN)
    with pytest.raises(MechanismError, match=r"plugged:Plugged.*built-in mechanism kind 'flow'"):
        registry.mechanism_spec("flow")
    assert registry.mechanism_spec("additive") is Additive


def test_two_plug_ins_of_one_kind(install):
    install("plugged", code=PLUG_IN)
    install("plugged", target="other:Plugged", name="second")
    with pytest.raises(MechanismError, match="other:Plugged, plugged:Plugged"):
        registry.mechanism_spec("plugged")


@pytest.mark.parametrize(
    ("kind", "target", "code", "message"),
    [
        ("other", "plugged:Plugged", PLUG_IN, "registered as 'other', but its kind is 'plugged'"),
        ("plugged", "plugged:Plugged", "Plugged = 3", "must be a MechanismSpec subclass"),
        ("plugged", "plugged:Plugged", "raise OSError('no GPU')", "does not import: no GPU"),
    ],
)
def test_broken_plug_in(install, kind, target, code, message):
    install(kind, target, code)
    with pytest.raises(MechanismError, match=message):
        registry.mechanism_spec(kind)


def test_registry_loads_no_torch_before_a_kind_is_named():
    code = "import mechanisms, mechanisms.registry as r, sys; r.kinds(); print('torch' in sys.modules)"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "False"
