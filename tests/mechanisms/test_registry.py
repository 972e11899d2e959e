import subprocess
import sys
import textwrap
from typing import Literal

import networkx as nx
import pytest
from pydantic import ValidationError

import causalgen as cg
from graphs.errors import MechanismError, SpecError, UnknownNameError
from graphs.variables import Categorical, Continuous, Image, Integer
from mechanisms import registry
from mechanisms.diffusion.backbones import BACKBONES, Backbone
from mechanisms.diffusion.guidance import GUIDANCE, Guidance
from mechanisms.diffusion.mechanism import Diffusion
from mechanisms.diffusion.schedule import GRIDS, Grid, LogGrid
from mechanisms.diffusion.solvers import DDIM, SOLVERS, Solver
from mechanisms.encoders import ENCODERS, Encoder
from mechanisms.options import changed_spec
from mechanisms.tables.additive import Additive
from mechanisms.tables.categorical import Categorical as CategoricalSpec
from mechanisms.tables.flow import Flow
from mechanisms.tables.noise_families import FAMILIES
from mechanisms.training import Training

BUILT_IN = ["additive", "categorical", "constant", "diffusion", "flow"]


@pytest.fixture
def install(tmp_path, monkeypatch):
    """Install a real distribution with one entry point: what a plug-in's wheel leaves behind."""

    def install(kind, target="plugged:Plugged", code="", name="plugin", group=registry.GROUP):
        folder = tmp_path / name
        info = folder / f"{name}-1.0.dist-info"
        info.mkdir(parents=True)
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        (info / "entry_points.txt").write_text(f"[{group}]\n{kind} = {target}\n")
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
    [
        (Categorical(3), "categorical"),
        (Continuous(), "auto"),
        (Integer(lower=0), "auto"),
        (Integer(), "flow"),
        (Integer(lower=0, upper=5), "flow"),
        (Image(1, 28, 28), "diffusion"),
    ],
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
    with pytest.raises(MechanismError, match="other:Plugged .*, plugged:Plugged "):
        registry.mechanism_spec("plugged")


@pytest.mark.parametrize(
    ("kind", "target", "code", "message"),
    [
        ("other", "plugged:Plugged", PLUG_IN, "registered as 'other', but its kind is 'plugged'"),
        ("plugged", "plugged:Plugged", "Plugged = 3", "must be a MechanismSpec subclass"),
        ("plugged", "plugged:Plugged", "raise OSError('no GPU')", "does not import: no GPU"),
        ("plugged", "plugged:Plugged", PLUG_IN.partition("def make")[0], "is abstract: it lacks make"),
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


GRID = """
    from typing import Literal
    from mechanisms.diffusion.schedule import Grid, LogGrid

    class Plugged(Grid, frozen=True):
        kind: Literal["plugged"] = "plugged"
        low: float = 0.1

        def sigmas(self, steps):
            return LogGrid(sigma_min=self.low).sigmas(steps)
"""
PARTS = [
    ("solver", SOLVERS, "ddim"),
    ("level grid", GRIDS, "log"),
    ("guidance", GUIDANCE, "anticausal"),
    ("backbone", BACKBONES, "unet"),
    ("encoder", ENCODERS, "resnet"),
    ("noise family", FAMILIES, "normal"),
    ("mechanism kind", registry.MECHANISMS, "flow"),
]


@pytest.mark.parametrize(("what", "parts", "built_in"), PARTS, ids=[what for what, _, _ in PARTS])
def test_every_registry_says_the_same_of_the_same_mistakes(install, what, parts, built_in):
    for kind in parts.kinds():
        assert (
            parts.get(kind).kind == kind
            if what == "noise family"
            else issubclass(parts.get(kind), parts.base)
        )
    with pytest.raises(UnknownNameError, match=f"Unknown {what} '{built_in}x'. Did you mean '{built_in}'"):
        parts.get(f"{built_in}x")
    for kind in (None, 3, ["x"], "os:system"):
        with pytest.raises(UnknownNameError):
            parts.get(kind)
    install(built_in, code="Plugged = 3", group=parts.group)
    with pytest.raises(MechanismError, match=f"'plugged:Plugged' claims the built-in {what} '{built_in}'"):
        parts.get(built_in)
    install("plugged", code="Plugged = 3", name="first", group=parts.group)
    wrong = "must be an instance of Family" if what == "noise family" else "must be a .* subclass"
    with pytest.raises(MechanismError, match=f"Plug-in 'plugged:Plugged' of {what} 'plugged' {wrong}"):
        parts.get("plugged")
    install("plugged", target="other:Plugged", name="second", group=parts.group)
    with pytest.raises(
        MechanismError, match=f"claim the {what} 'plugged': other:Plugged .*, plugged:Plugged "
    ):
        parts.get("plugged")
    install("broken", target="absent:Plugged", name="third", group=parts.group)
    with pytest.raises(MechanismError, match="does not import: No module named 'absent'"):
        parts.get("broken")


def test_a_part_from_outside_is_an_option_like_any_other(install):
    install("plugged", code=GRID, group=GRIDS.group)
    assert "plugged" not in sys.modules
    written = {"kind": "diffusion", "solver": {"kind": "ddim", "grid": {"kind": "plugged", "low": 0.2}}}
    spec = registry.parse_mechanism(written)
    assert spec.solver.levels()[0] == pytest.approx(0.2)
    assert registry.dump_mechanism(spec) == written
    assert spec == registry.parse_mechanism(written) and spec.model_dump()["solver"]["grid"]["low"] == 0.2
    changed = changed_spec("x", spec, {"solver": {"grid": {"low": 0.3}}})
    assert changed.solver.grid.low == 0.3 and changed.solver.kind == "ddim"


@pytest.mark.parametrize(
    ("solver", "message"),
    [
        (
            {"kind": "ddim", "grid": {"kind": "plugged", "lo": 1}},
            r"solver.ddim.grid.plugged.lo: .*Did you mean 'low'",
        ),
        (
            {"kind": "ddim", "grid": {"kind": "plugged", "low": "x"}},
            r"solver.ddim.grid.plugged.low: .*number",
        ),
        (
            {"kind": "ddim", "grid": {"kind": "pluged"}},
            r"solver.ddim.grid: unknown kind 'pluged'. Did you mean 'plug",
        ),
        ({"kind": "ddim", "grid": {"low": 1}}, "solver.ddim.grid: missing the key 'kind'"),
        ({"kind": "ddim", "grid": 3}, r"solver.ddim.grid: expected a mapping of options such as \{kind: "),
        ({"steps": 8}, "solver: missing the key 'kind', .* Known: anchored, belm, ddim, ddpm, half"),
        ({"kind": 3}, "solver: unknown kind '3'"),
        ({"kind": "half"}, "solver: Plug-in 'plugged:Half' of solver 'half' does not import: .*Half"),
    ],
)
def test_wrong_options_of_parts_are_told_with_their_place(install, solver, message):
    install("plugged", code=GRID, group=GRIDS.group)
    install("half", target="plugged:Half", name="half", code=GRID, group=SOLVERS.group)
    with pytest.raises(SpecError, match=message):
        Diffusion(solver=solver)


class Unnamed(Grid, frozen=True):
    kind: Literal["unnamed"] = "unnamed"

    def sigmas(self, steps):
        return LogGrid().sigmas(steps)


def test_a_part_that_no_file_can_name_is_used_from_python_and_refused_in_files():
    spec = Diffusion(solver=DDIM(grid=Unnamed()))
    assert changed_spec("x", spec, {"dropout": 0.5}).solver == spec.solver
    scm = cg.SCM(nx.DiGraph({"x": []}), {"x": cg.Image(1, 8, 8)}, {"x": spec})
    with pytest.raises(MechanismError, match="'x': its level grid, Unnamed, is not registered"):
        scm.to_yaml()
    assert spec.why_unwritable() == (
        "its level grid, Unnamed, is not registered, so no file can say it. Register it by an entry point of "
        "the group 'causalgen.grids'."
    )
    assert Diffusion().why_unwritable() is None


@pytest.mark.parametrize("base", [Solver, Grid, Guidance, Backbone, Encoder])
def test_bases_are_abstract_and_built_in_parts_are_final(base):
    with pytest.raises(TypeError, match="abstract"):
        base()
    (parts,) = (parts for _, parts, _ in PARTS if parts.base is base)
    for kind in parts.kinds():
        assert parts.get(kind).__final__


def test_a_kind_that_trains_only_where_it_is_told_is_not_fitted_before():
    class Told(Additive, frozen=True):
        training: Training | None = None

    parents = {"a": Continuous()}
    assert Told().bind(Continuous(), parents).fitted
    assert not Told(training=Training()).bind(Continuous(), parents).fitted
