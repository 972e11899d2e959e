"""SCM files: the round-trip law on random specs, and every bad file with file:line:column."""

from pathlib import Path
from typing import Annotated, Literal

import pytest
from hypothesis import given
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from graphs.declared import spec_error
from graphs.errors import SpecError
from graphs.scm_file import NodeSpec, SCMSpec, parse_spec, read_spec, write_spec
from graphs.variables import Categorical
from tests.graphs.strategies import specs

MORPHOMNIST = """\
causalgen: 1
name: morphomnist
nodes:
  digit:
    variable: {type: categorical, categories: 10}
    mechanism: {kind: categorical}
  thickness:
    variable: {type: continuous, lower: 0, unit: px}
    mechanism: {kind: flow}
  intensity:
    variable: {type: continuous, lower: 64, upper: 255}
    parents: [thickness]
    mechanism: {kind: flow}
  image:
    variable: {type: image, shape: [1, 28, 28]}
    parents: [digit, thickness, intensity]
    mechanism:
      kind: diffusion
      backbone: {kind: unet, channels: [48, 96]}
      solver: {kind: anchored, steps: 16}
      guidance: {kind: classifier_free, weight: {digit: 2.0}}
      training: {epochs: 6, batch_size: 128}
"""


@given(specs())
def test_reading_undoes_writing_and_the_file_is_a_fixed_point(spec: SCMSpec) -> None:
    text = write_spec(spec)
    again, _ = parse_spec(text)
    assert again == spec
    assert list(again.nodes) == list(spec.nodes)
    assert write_spec(again) == text


def test_a_file_in_the_written_form_is_kept_to_the_letter(tmp_path: Path) -> None:
    path = tmp_path / "scm.yaml"
    path.write_text(MORPHOMNIST, encoding="utf-8")
    spec, locations = read_spec(path)
    assert write_spec(spec) == MORPHOMNIST
    assert spec.graph.parents("image") == ("digit", "thickness", "intensity")
    assert spec.nodes["digit"].variable == Categorical(10)
    assert locations["nodes", "image", "mechanism", "solver", "steps"] == f"{path}:20:39"


def test_comments_quotes_and_a_byte_order_mark_are_fine(tmp_path: Path) -> None:
    path = tmp_path / "scm.yaml"
    path.write_text(
        "# hello\n" + MORPHOMNIST.replace("name: morphomnist", "name: 'morphomnist'"), encoding="utf-8-sig"
    )
    assert write_spec(read_spec(path)[0]) == MORPHOMNIST


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("[thickness]", "[thicknes]", "12:15: nodes.intensity.parents.0: Unknown parent .*mean 'thickness'"),
        ("[thickness]", "[intensity]", "12:15: .*cycle: intensity -> intensity"),
        (
            "thickness:\n",
            "thickness:\n    parents: [intensity]\n",
            "13:15: .*intensity -> thickness -> ",
        ),
        ("[thickness]", "[thickness, thickness]", "12:26: .*'thickness' twice"),
        ("[thickness]", "thickness", r"12:14: nodes.intensity.parents: .* list, as \['thickness'\], got"),
        (
            "categories: 10",
            "categories: [True, no]",
            '5:47: .*got True; a text .* as "True" .* is quoted',
        ),
        ("  digit:", "  1digit:", "4:3: nodes.1digit: Bad node name"),
        (
            "  digit:",
            "  IMAGE: {variable: {type: continuous}}\n  digit:",
            "15:3: nodes.image: .*only in",
        ),
        ("lower: 0,", "lower: 0, uper: 9,", "8:44: nodes.thickness.variable.uper: unknown key.* 'upper'"),
        ("name:", "nme:", "2:1: nme: unknown key. Did you mean 'name'"),
        ("mechanism:", "mechanisms:", "6:5: nodes.digit.mechanisms: unknown key. Did you mean 'mechanism'"),
        ("type: image", "type: imag", "15:22: nodes.image.variable.type: unknown type 'imag'.* 'image'"),
        ("type: image, ", "", "15:15: nodes.image.variable: missing the key 'type'"),
        ("[1, 28, 28]", "[1, 0, 28]", "15:40: nodes.image.variable.shape.1: must be greater.* 1, got 0"),
        ("[1, 28, 28]", "[1, 28]", "15:36: nodes.image.variable.shape.2: missing; this item"),
        (
            "[1, 28, 28]",
            "[1, 28, 28, 3]",
            "15:36: nodes.image.variable.shape: must have at most 3 items, got",
        ),
        ("[1, 28, 28]", "[1, 28, 28.5]", "15:44: nodes.image.variable.shape.2: .*got 28.5"),
        ("categories: 10", "categories: 0", "5:47: nodes.digit.variable.categories: expected .*got 0"),
        ("categories: 10", "categories: [a, b, a]", "5:47: .*'a' appears twice"),
        ("categories: 10", "categories: 10, ordered: maybe", "5:60: .*ordered: must be a valid boolean"),
        ("lower: 64", "lower: .nan", "11:41: nodes.intensity.variable.lower: must be a finite number"),
        ("lower: 64", "lower: '64'", "11:41: .*expected a number, got '64'"),
        ("lower: 64", "lower: 300", "11:15: nodes.intensity.variable: lower must be below upper"),
        ("{kind: flow}", "flow", "9:16: nodes.thickness.mechanism: expected a mapping of options"),
        ("{kind: flow}", "{kind: .nan}", "9:16: .*NaN"),
        ("causalgen: 1", "causalgen: 2", "1:12: the file is of format 2.*Install a newer causalgen"),
        ("causalgen: 1", "causalgen: 0", "1:12: causalgen: must be 1, got 0"),
        ("causalgen: 1\n", "", "1:1: causalgen: missing"),
        ("nodes:\n", "nodes: {}\nother:\n", "4:1: other: unknown key"),
        ("name: morphomnist", "name: &a x", "2:7: anchors"),
        ("name: morphomnist", "name: x\nname: y", "3:1: the key 'name' is here twice"),
    ],
)
def test_bad_files(old: str, new: str, message: str) -> None:
    with pytest.raises(SpecError, match=f"scm.yaml:{message}"):
        parse_spec(MORPHOMNIST.replace(old, new, 1), "scm.yaml")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("causalgen: 1\nnodes: {}", "2:1: nodes: The causal graph is empty"),
        ("causalgen: 1\nnodes:", "2:7: nodes: must be a valid mapping, got None"),
        ("causalgen: 1\nnodes: {x: }", "2:12: nodes.x: must be a valid mapping, got None"),
        ("causalgen: 1\nnodes: {x: {}}", "2:12: nodes.x.variable: missing; this key is required"),
        ("[1]", "1:1: expected a mapping that starts with 'causalgen: 1'"),
        ("causalgen: true", "1:12: causalgen: must be 1, got True"),
    ],
)
def test_unfinished_files(text: str, message: str) -> None:
    with pytest.raises(SpecError, match=f"scm.yaml:{message}"):
        parse_spec(text, "scm.yaml")


def test_all_findings_are_told_at_once() -> None:
    text = MORPHOMNIST.replace("categories: 10", "categories: -1").replace("lower: 0,", "lwer: 0,")
    with pytest.raises(SpecError) as caught:
        parse_spec(text, "scm.yaml")
    assert [line.split(": ")[0] for line in str(caught.value).splitlines()] == [
        "scm.yaml:5:47",
        "scm.yaml:8:34",
    ]


def test_unreadable_files(tmp_path: Path) -> None:
    path = tmp_path / "scm.yaml"
    with pytest.raises(SpecError, match="cannot read the file: No such file"):
        read_spec(path)
    path.write_bytes(b"causalgen: 1\nname: caf\xe9\n")
    with pytest.raises(SpecError, match=r"scm\.yaml:2:10: not UTF-8"):
        read_spec(path)
    path.write_bytes(b"#" * 4_000_001)
    with pytest.raises(SpecError, match="larger than"):
        read_spec(path)


def test_options_are_kept_as_a_file_would_hold_them() -> None:
    node = NodeSpec(variable=Categorical(2), mechanism={"kind": "k", "channels": (1, 2), "inner": {"a": ()}})
    assert node.mechanism == {"kind": "k", "channels": [1, 2], "inner": {"a": []}}
    deep: object = 1
    for _ in range(20):
        deep = [deep]
    for bad, message in ({1: 2}, "keys of options"), ({"a": object()}, "cannot hold"), ({"a": deep}, "deep"):
        with pytest.raises(ValidationError, match=message):
            NodeSpec(variable=Categorical(2), mechanism=bad)


def test_a_spec_built_in_python_has_its_graph_checked() -> None:
    with pytest.raises(ValidationError, match="cycle: a -> b -> a"):
        SCMSpec(
            causalgen=1, nodes={n: NodeSpec(variable=Categorical(2), parents=[p]) for n, p in ("ab", "ba")}
        )


class _Ddim(BaseModel):
    model_config = ConfigDict(extra="forbid")
    kind: Literal["ddim"] = "ddim"
    steps: int = Field(default=16, ge=1)


class _Belm(BaseModel):
    model_config = ConfigDict(extra="forbid")
    kind: Literal["belm"] = "belm"
    guard: float = 1.0


class _Options(BaseModel):
    model_config = ConfigDict(extra="forbid")
    solver: Annotated[_Ddim | _Belm, Field(discriminator="kind")] = _Ddim()
    stages: list[_Ddim] = []
    limit: int | Literal["auto"] = 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("{solver: {kind: ddim, steps: 0}}", "s:1:68: nodes.x.mechanism.solver.steps: must be .*1, got 0"),
        ("{solver: {kind: ddim, stps: 3}}", "s:1:61: nodes.x.mechanism.solver.stps: unknown key.*'steps'"),
        ("{solver: {kind: belm, steps: 3}}", "solver.steps: unknown key. Known: guard, kind"),
        ("{solver: {kind: dddim}}", "s:1:55: nodes.x.mechanism.solver.kind: unknown kind .*'ddim'"),
        ("{stages: [{}, {stps: 3}]}", "stages.1.stps: unknown key. Did you mean 'steps'"),
        ("{limit: never}", "nodes.x.mechanism.limit: must be a valid integer"),
        ("{sover: {}}", "s:1:40: nodes.x.mechanism.sover: unknown key. Did you mean 'solver'"),
    ],
)
def test_the_upper_floor_can_locate_its_own_findings(options: str, message: str) -> None:
    text = "{causalgen: 1, nodes: {x: {mechanism: " + options + ", variable: {type: continuous}}}}"
    spec, locations = parse_spec(text, "s")
    with pytest.raises(ValidationError) as caught:
        _Options.model_validate(spec.nodes["x"].mechanism)
    error = spec_error(caught.value, locations, ("nodes", "x", "mechanism"), model=_Options)
    with pytest.raises(SpecError, match=message):
        raise error


def test_without_the_model_an_unknown_key_is_located_all_the_same() -> None:
    _, locations = parse_spec(
        "{causalgen: 1, nodes: {x: {variable: {type: continuous}, mechanism: {a: 1}}}}", "s"
    )
    with pytest.raises(ValidationError) as caught:
        _Options.model_validate({"a": 1})
    error = spec_error(caught.value, locations, ("nodes", "x", "mechanism"))
    assert str(error) == "s:1:70: nodes.x.mechanism.a: unknown key."
