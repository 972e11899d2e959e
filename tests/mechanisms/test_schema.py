"""The JSON Schema of the SCM file and the reader of SCM files agree on what is well formed."""

import re
from pathlib import Path

import jsonschema
import pytest
from hypothesis import given, settings
from pydantic import ValidationError

from graphs import strict_yaml
from graphs.errors import CausalgenError
from graphs.scm_file import NodeSpec, SCMSpec, parse_spec, write_spec
from graphs.variables import Categorical, Continuous, Image, Integer
from mechanisms.diffusion.backbones import BACKBONES
from mechanisms.diffusion.code import Code
from mechanisms.diffusion.guidance import GUIDANCE
from mechanisms.diffusion.latents import Autoencoder
from mechanisms.diffusion.schedule import GRIDS
from mechanisms.diffusion.solvers import SOLVERS
from mechanisms.diffusion.trained_levels import TrainedLevels
from mechanisms.encoders import ENCODERS
from mechanisms.program.inference import NUTS, SVI, Importance
from mechanisms.registry import MECHANISMS, parse_mechanism
from mechanisms.schema import scm_schema
from mechanisms.tables.noise_families import FAMILIES
from mechanisms.training import Training
from tests.graphs.strategies import variables

CHECKOUT = Path(__file__).parents[2]
SCHEMA = scm_schema()
VALIDATOR = jsonschema.Draft202012Validator(SCHEMA)
REGISTRIES = (MECHANISMS, SOLVERS, GRIDS, GUIDANCE, BACKBONES, ENCODERS)
PARTS = [
    *(registry.get(kind) for registry in REGISTRIES for kind in registry.kinds()),
    *(
        Categorical,
        Continuous,
        Image,
        Integer,
        Training,
        Autoencoder,
        Code,
        TrainedLevels,
        Importance,
        SVI,
        NUTS,
    ),
]

NODES = "causalgen: 1\nnodes: "
NODE = NODES + "{x: {variable: {type: continuous}, mechanism: %s}}"
IMAGE = NODES + "{x: {variable: {type: image, shape: [1, 8, 8]}, mechanism: {kind: diffusion, %s}}}"


def files() -> dict[str, str]:
    """Every SCM file in the checkout, and every one that a page or a test holds in its text."""
    found = {
        str(path): path.read_text() for path in CHECKOUT.glob("*/**/*.yaml") if path.parts[-2] != "hooks"
    }
    found = {path: text for path, text in found.items() if "causalgen: 1" in text}
    for path in [*CHECKOUT.glob("*.md"), *CHECKOUT.glob("docs/*.md"), *CHECKOUT.glob("tests/**/*.py")]:
        blocks = re.findall(
            r'(?:```yaml|""")\\?\n((?:#.*\n)?causalgen: 1\n.*?)(?:```|""")', path.read_text(), re.S
        )
        found |= {f"{path}:{number}": text for number, text in enumerate(blocks)}
    return {name.removeprefix(f"{CHECKOUT}/"): text for name, text in found.items()}


def read(text: str) -> None:
    """Read an SCM file as the strict reader does, down to each part's options; nothing is bound."""
    spec, _ = parse_spec(text)
    for node in spec.nodes.values():
        if node.mechanism is not None:
            parse_mechanism(node.mechanism)


def data_of(text: str) -> object:
    return strict_yaml.load(text, "text")[0]


def validator_of(model: type) -> jsonschema.Draft202012Validator:
    """Of the part of the schema that a class made."""
    name = model.__name__
    if name not in SCHEMA["$defs"]:  # two classes have it
        name = f"{model.__module__}.{name}".replace(".", "__")
    return jsonschema.Draft202012Validator({"$ref": f"#/$defs/{name}", "$defs": SCHEMA["$defs"]})


def test_it_is_a_json_schema():
    jsonschema.Draft202012Validator.check_schema(SCHEMA)


def test_every_option_has_a_meaning():
    for name, model in SCHEMA["$defs"].items():
        assert model["description"], name
        for option, schema in model["properties"].items():
            told = "description" in schema or "const" in schema or schema.get("type") == "null"
            assert told, f"{name}: {option} is not in the `Attributes:` of its class"


def test_every_kind_can_be_named():
    text = str(SCHEMA)
    for registry in (*REGISTRIES, FAMILIES):
        assert all(f"'{kind}'" in text for kind in registry.kinds()), registry.what


@pytest.mark.parametrize("name", files())
def test_every_scm_file_of_the_repository_is_valid(name):
    text = files()[name]
    try:
        read(text)
    except (CausalgenError, ValidationError):
        assert name.startswith("tests/"), "only tests hold wrong files, or kinds that are not installed"
        pytest.skip("the reader refuses it")
    VALIDATOR.validate(data_of(text))


def test_there_are_such_files():
    assert {re.split("[:/]", name)[0] for name in files()} == {"README.md", "docs", "graphs", "tests"}


@pytest.mark.parametrize(
    "text",
    [
        NODES + "{}",
        "causalgen: 2\nnodes: {x: {variable: {type: continuous}}}",
        "causalgen: 1",
        NODES + "{1x: {variable: {type: continuous}}}",
        NODES + "{x: {parents: []}}",
        NODES + "{x: {variable: {type: continuos}}}",
        NODES + "{x: {variable: {lower: 0}}}",
        NODES + "{x: {variable: {type: continuous, lowr: 0}}}",
        NODES + "{x: {variable: {type: continuous, lower: low}}}",
        NODES + "{x: {variable: {type: continuous, lower: true}}}",
        NODES + "{x: {variable: {type: continuous, shape: 3}}}",
        NODES + "{x: {variable: {type: integer, lower: 0.5}}}",
        NODES + "{x: {variable: {type: categorical}}}",
        NODES + "{x: {variable: {type: categorical, categories: 0}}}",
        NODES + "{x: {variable: {type: categorical, categories: []}}}",
        NODES + "{x: {variable: {type: categorical, categories: [0.5, 1.5]}}}",
        NODES + "{x: {variable: {type: image, shape: [28, 28]}}}",
        NODES + "{x: {variable: {type: image, shape: [0, 28, 28]}}}",
        NODES + "{x: {variable: {type: continuous}, parents: y}, y: {variable: {type: continuous}}}",
        NODES + "{x: {variable: {type: continuous}, parents: [y, y]}, y: {variable: {type: continuous}}}",
        NODES + "{x: {variable: {type: continuous}, mechanisms: {kind: flow}}}",
        NODE % "flow",
        NODE % "{bins: 4}",
        NODE % "{kind: flw}",
        NODE % "{kind: flow, bin: 4}",
        NODE % "{kind: flow, bins: 1}",
        NODE % "{kind: flow, bins: many}",
        NODE % "{kind: flow, bound: 0}",
        NODE % "{kind: flow, hidden: []}",
        NODE % "{kind: flow, training: {epoch: 3}}",
        NODE % "{kind: flow, training: {warmup: 1}}",
        NODE % "{kind: equation}",
        NODE % "{kind: equation, value: u, noise: {u: {normall: [0, 1]}}}",
        NODE % "{kind: equation, value: u, noise: {u: {normal: [0, 0]}}}",
        NODE % "{kind: equation, value: u, noise: {u: {normal: [0]}}}",
        NODE % "{kind: equation, value: u, noise: {u: {bernoulli: 1.5}}}",
        NODE % "{kind: equation, value: u, noise: {u: {}}}",
        NODE % "{kind: program, program: f, inference: {kind: svi, draws: 1}}",
        IMAGE % "solver: {steps: 8}",
        IMAGE % "solver: {kind: anchored, steps: 0}",
        IMAGE % "solver: {kind: anchored, grid: {kind: log, sigma_min: 0}}",
        IMAGE % "solver: {kind: ddim, residuals: false}",
        IMAGE % "backbone: {kind: unett}",
        IMAGE % "backbone: {channels: [12]}",
        IMAGE % "guidance: {kind: classifier_free, weight: {x: -1}}",
        IMAGE % "guidance: {kind: classifier_free, weight: automatic}",
        IMAGE % "code: {encoder: {kind: strided, cells: 0}}",
        IMAGE % "levels: [0, 0]",
    ],
)  # fmt: skip
def test_what_the_reader_refuses_on_form_violates_it(text):
    with pytest.raises((CausalgenError, ValidationError)):
        read(text)
    assert not VALIDATOR.is_valid(data_of(text))


@pytest.mark.parametrize(
    "text",
    [
        NODE % "{kind: equation, value: u, noise: {u: {bernoulli: 0.3}}}",
        NODE % "{kind: equation, value: u, noise: {u: {categorical: [0.5, 0.5]}}}",
        IMAGE % "backbone: {channels: [8]}, predictor: null",
        IMAGE % "predictor: {channels: [8]}, code: {}",
        IMAGE % "training: {epochs: 1, patience: null}",
        IMAGE % "guidance: {kind: classifier_free, weight: {x: 1}}",
    ],
)
def test_what_the_reader_takes_is_valid(text):
    read(text)
    VALIDATOR.validate(data_of(text))


VALUES = [
    -1,
    0,
    0.5,
    1,
    2,
    3.0,
    16,
    10**9,
    "text",
    "auto",
    [],
    [1],
    [8, 16],
    [0.5],
    ["a"],
    {},
    {"a": 1},
    None,
]
NEEDED = {
    "categories": 3, "shape": [1, 8, 8], "value": "1", "program": "name", "network": "resnet18",
    "parent": "a", "mean": [0.5], "std": [1.0],
}  # fmt: skip


@pytest.mark.parametrize("model", PARTS, ids=lambda model: model.__name__)
def test_reader_and_schema_agree_on_each_option(model):
    """The reader refuses what violates the schema; what it alone refuses, a validator in words does."""
    validator = validator_of(model)
    tag = {name: model.model_fields[name].default for name in ("kind", "type") if name in model.model_fields}
    fields = model.model_fields.items()
    needed = {name: NEEDED[name] for name, field in fields if field.is_required() and name not in tag}
    validator.validate(tag | needed)
    for option, field in model.model_fields.items():
        for value in VALUES if option not in tag else ["text"]:
            if field.annotation is bool and isinstance(value, int | float):
                continue  # the reader takes 0 and 1
            data = tag | needed | {option: value}
            try:
                model.model_validate(data)
                findings = set()
            except ValidationError as error:
                findings = {each["type"] for each in error.errors()}
            if validator.is_valid(data):
                assert findings <= {"value_error"}, f"{data} is valid, but: {findings}"
            else:
                assert findings, f"{data} is not valid, but is read"


@settings(deadline=None, derandomize=True)
@given(variables)
def test_every_variable_that_can_be_written_is_valid(variable):
    text = write_spec(SCMSpec(causalgen=1, nodes={"x": NodeSpec(variable=variable)}))
    VALIDATOR.validate(data_of(text))
