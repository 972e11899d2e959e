"""torch's default dtype and autocast are the caller's: fits and answers do not depend on them."""

import networkx as nx
import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch

import causalgen as cg
from graphs.errors import MechanismError

ROWS = 40
GRAPH = nx.DiGraph([("kind", "x"), ("dose", "x"), ("dose", "y"), ("x", "z")])
QUICK = {"backbone": {"kind": "unet", "channels": [16], "unshuffle": 1}, "training": {"epochs": 1}}
PREDICTOR = {"kind": "strided", "channels": [8], "unshuffle": 1}


def rows():
    random = np.random.default_rng(0)
    kind, dose = random.integers(0, 2, ROWS), random.normal(size=ROWS)
    x = (0.3 + 0.3 * kind[:, None, None, None] + 0.05 * random.normal(size=(ROWS, 1, 8, 8))).clip(0, 1)
    y = 2 * dose + random.normal(size=ROWS)
    return {"kind": kind, "dose": dose, "x": x.astype(np.float32), "y": y, "z": x.mean((1, 2, 3)) + y / 10}


def fitted(**options):
    training = {"epochs": 2}
    image = {"predictor": PREDICTOR, "solver": {"kind": "anchored", "steps": 3}, **QUICK, **options}
    scm = cg.SCM(
        GRAPH,
        {
            "kind": cg.Categorical(2),
            "dose": cg.Continuous(),
            "x": cg.Image(1, 8, 8),
            "y": cg.Continuous(),
            "z": cg.Continuous(),
        },
        {
            "dose": cg.mechanisms.Auto(training=training),
            "x": cg.mechanisms.Diffusion(**image),
            "y": cg.mechanisms.Flow(training=training),
            "z": cg.mechanisms.Additive(function="network", training=training),
        },
    )
    return scm.fit(rows(), seed=0, progress=False)


def answers(scm):
    few = {name: column[:3] for name, column in rows().items()}
    return scm.counterfactual(few, do={"kind": 1}, seed=0), scm.sample(3, seed=0)


@pytest.fixture
def float64():
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


CODE = {"training": {"epochs": 1}, "encoder": PREDICTOR}
OPTIONS = (
    {"code": CODE, "abduction": "posterior"},
    {"autoencoder": {"training": {"epochs": 1}}, "solver": {"kind": "belm", "steps": 3, "max_spread": 1e6}},
)


@pytest.mark.parametrize("options", OPTIONS, ids=["code", "latents"])
def test_fits_and_answers_are_those_of_float32(options, request):
    expected = fitted(**options)
    wanted = answers(expected)
    request.getfixturevalue("float64")
    for scm in (expected, fitted(**options)):
        for found, answer in zip(answers(scm), wanted, strict=True):
            for node in answer:
                assert found[node].dtype == answer[node].dtype and torch.equal(found[node], answer[node]), (
                    node
                )


LATENT = {"autoencoder": {"config": {"block_out_channels": [8, 8]}, "training": {"epochs": 1}}}


LATENT = {"autoencoder": {"config": {"block_out_channels": [8, 8]}, "training": {"epochs": 1}}}


@pytest.mark.parametrize(
    ("precision", "given"), [("float32", {}), ("bfloat16", {}), ("float32", LATENT)], ids=str
)
def test_fits_and_answers_do_not_depend_on_the_autocast_of_the_caller(precision, given):
    """Within it all steps were of the weights that the first one cast, and answers in bfloat16."""
    options = {"training": {"epochs": 3, "precision": precision}, "abduction": "posterior"} | given
    expected = fitted(**options)
    wanted = answers(expected)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        again = fitted(**options)
        found = [answers(expected), answers(again)]
    report, other = expected.fit_report["x"], again.fit_report["x"]
    assert (other.precision, other.validation_loss) == (report.precision, report.validation_loss)
    for each in found:
        for answer, right in zip(each, wanted, strict=True):
            for node in right:
                assert torch.equal(answer[node], right[node]), node


def test_gradients_in_inference_mode_are_refused():
    few = {name: column[:2] for name, column in rows().items()}
    scm = fitted(guidance={"kind": "anticausal"})
    with torch.inference_mode(), pytest.raises(MechanismError, match="inference_mode"):
        scm.counterfactual(few, do={"kind": 1 - few["kind"]}, seed=0)


@pytest.mark.parametrize("mode", [torch.inference_mode, torch.no_grad])
@pytest.mark.parametrize("mechanism", [cg.mechanisms.Flow(training={"epochs": 2}), cg.mechanisms.Additive()])
def test_a_fit_does_not_depend_on_the_mode_of_the_caller(mode, mechanism):
    data = {name: rows()[name] for name in ("dose", "y")}

    def model():
        graph, variables = nx.DiGraph([("dose", "y")]), dict.fromkeys(data, cg.Continuous())
        return cg.SCM(graph, variables, dict.fromkeys(data, mechanism))

    with mode():
        declared = model()
        within = model().fit(data, progress=False)
    wanted = model().fit(data, progress=False).mechanisms["y"].state_dict()
    for scm in (within, declared.fit(data, progress=False), within.fit(data, progress=False)):
        found = scm.mechanisms["y"].state_dict()
        assert all(torch.equal(found[name], wanted[name]) for name in wanted)


@pytest.mark.parametrize(
    "mechanism",
    [
        cg.mechanisms.Program(program=lambda parents: loud(parents), inference={"kind": "svi", "steps": 2}),
        cg.mechanisms.Program(program=lambda parents: loud(parents), inference={"kind": "nuts"}),
    ],
)
def test_inference_by_gradients_is_refused_in_inference_mode(mechanism):
    root = cg.mechanisms.Equation(value="u", noise={"u": {"normal": [0, 1]}})
    variables = dict.fromkeys(("dose", "y"), cg.Continuous())
    scm = cg.SCM(nx.DiGraph([("dose", "y")]), variables, {"dose": root, "y": mechanism})
    with torch.inference_mode(), pytest.raises(MechanismError, match="gradients, .*inference_mode"):
        scm.counterfactual({"dose": 1.0, "y": 1.0}, do={"dose": 2.0}, seed=0)


def loud(parents):
    scale = pyro.sample("scale", dist.Gamma(4.0, 2.0))
    return pyro.sample("y", dist.Normal(scale * parents["dose"], 0.5))
