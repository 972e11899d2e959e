"""Models and results in other processes: through pickle, copies and fork they say what they said."""

import copy
import multiprocessing
import pickle
import threading
from concurrent.futures import ProcessPoolExecutor

import networkx as nx
import numpy as np
import pandas as pd
import pytest
import torch

import causalgen as cg
from graphs import errors
from mechanisms.seeds import ALONE
from mechanisms.tables.noise_families import noise_law
from tests.causalgen.metrics import shades
from tests.causalgen.metrics.test_axioms import logits
from tests.causalgen.test_threads import ROW, declared, flat, respond, table

PARTIAL = {"a": [1, 2], "y": [2.0, np.nan], "z": [1.5, 1.0]}
NORMAL, UNIFORM = {"u": {"normal": [0, 1]}}, {"u": {"uniform": [0, 1]}}


@pytest.fixture(scope="module")
def scm():
    return declared().fit(table(), progress=False)


def asked(scm):
    """A question that needs every node."""
    found = scm.counterfactual({**ROW, "a": [0, 1, 2]}, do={"x": cg.Shift(1.0)}, seed=1, num_samples=2)
    return flat({**found, **found.provenance, "sample": scm.sample(5, seed=2)["z"]})


both = pytest.mark.parametrize(
    "way", [copy.deepcopy, lambda each: pickle.loads(pickle.dumps(each))], ids=["copied", "pickled"]
)


@both
def test_a_model_answers_the_same(scm, way):
    assert asked(way(scm)) == asked(scm)


INTERVENED = {
    "value": 1.0,
    "shift": cg.Shift(1.0),
    "scale": cg.Scale(2.0),
    "expression": "x + a",
    "law": cg.Stochastic({"normal": [0, 1]}),
    "torch's law": cg.Stochastic(torch.distributions.Gamma(2.0, 1.0)),
    "policy": cg.Policy(lambda a: a + 0.5, reads=["a"]),
    "replaced": cg.Replace(cg.mechanisms.Equation(value="a + u", noise=NORMAL), noise="fresh"),
}


@pytest.mark.filterwarnings("ignore::causalgen.ExtrapolationWarning")
@pytest.mark.parametrize("name", INTERVENED)
def test_a_model_that_was_intervened_on_answers_the_same(scm, name):
    world = scm.do({"x": INTERVENED[name]})
    if name == "policy":  # pickle wants functions with a name
        world = scm.do({"x": cg.Policy(raised, reads=["a"])})
    again = pickle.loads(pickle.dumps(world))
    assert flat(dict(again.sample(6, seed=3))) == flat(dict(world.sample(6, seed=3)))
    later = pickle.loads(pickle.dumps(world))  # what it was asked may have left something in it
    assert flat(dict(later.sample(6, seed=3))) == flat(dict(world.sample(6, seed=3)))


def raised(a):
    return a + 0.5


EQUATIONS = {
    "affine": ("2*x - 3*u", NORMAL),
    "by formula": ("exp(u) * (x + 9)", NORMAL),
    "by search": ("u + tanh(u) + x", NORMAL),
    "zero slope": ("where(x > 0, u, 0)", UNIFORM),
    "finite": ("x + u", {"u": {"bernoulli": [0.3]}}),
    "two noises": ("x + u * v", {**UNIFORM, "v": {"bernoulli": [0.5]}}),
    "deterministic": ("2 * x", {}),
}


@both
@pytest.mark.parametrize("name", EQUATIONS)
def test_an_equation_inverts_the_same(name, way):
    value, noise = EQUATIONS[name]
    bound = cg.mechanisms.Equation(value=value, noise=noise).bind(cg.Continuous(), {"x": cg.Continuous()})
    again, parents = way(bound), {"x": torch.tensor([0.5, 1.5, 0.0]).double()}

    def found(mechanism):
        draws = mechanism.sample_noise(3, generator=torch.Generator().manual_seed(0))
        x = mechanism.generate(parents, draws)
        if mechanism.abduction == "none":
            return flat(x)
        abducted = mechanism.abduct(x, parents, generator=torch.Generator().manual_seed(1))
        return flat({"x": x, **abducted.noise, "density": mechanism.log_prob(x, parents)})

    assert found(again) == found(bound)


def test_a_noise_family_is_pickled_by_name():
    law = noise_law({"gamma": [2.0, 1.0]})
    assert pickle.loads(pickle.dumps(law)) == law


RESULTS = {
    "counterfactual": lambda scm: scm.counterfactual(ROW, do={"x": 1.0}, seed=0),
    "frame": lambda scm: scm.counterfactual(pd.DataFrame([ROW] * 2, index=["p", "q"]), do={"x": 1.0}, seed=0),
    "inferred": lambda scm: scm.counterfactual(PARTIAL, do={"a": 0}, seed=0, num_samples=3),
    "draws": lambda scm: scm.sample(4, seed=0, do={"x": 1.0}),
    "contrast": lambda scm: scm.abduct(ROW, seed=0).contrast({"x": 1.0}, {"x": 0.0}),
    "abduction": lambda scm: scm.abduct(PARTIAL, seed=0),
    "posterior": lambda scm: scm.abduct({"a": 1, "y": 2.0}, seed=0).posterior("x"),
    "particles": lambda scm: scm.abduct({"a": 1, "z": 2.0}, seed=0, particles=500).posterior("x"),
    "effect": lambda scm: scm.effect("y", do={"x": 1.0}, versus={"x": 0.0}, n=20, seed=0),
    "groups": lambda scm: scm.effect("y", do={"x": 1.0}, versus={"x": 0.0}, given="a", n=90, seed=0),
    "natural effects": lambda scm: scm.natural_effects(
        "z", do={"x": 1.0}, versus={"x": 0.0}, through="y", n=20, seed=0
    ),
    "check": lambda scm: scm.check(table(), seed=0),
    "fit report": lambda scm: scm.fit_report,
    "graph": lambda scm: scm.graph,
}


@both
@pytest.mark.parametrize("name", RESULTS)
def test_a_result_says_the_same(scm, name, way):
    result = RESULTS[name](scm)
    again = way(result)
    assert type(again) is type(result) and repr(again) == repr(result)
    for what in ("to_frame", "summary"):
        if hasattr(result, what):
            pd.testing.assert_frame_equal(getattr(again, what)(), getattr(result, what)())
    if hasattr(result, "provenance"):
        assert flat(again.provenance) == flat(result.provenance)


def test_a_result_does_not_carry_its_model(scm):
    images = pickle.dumps(RESULTS["counterfactual"](scm))
    assert b"Mechanism" not in images and b"respond" not in images


def test_an_abduction_goes_on_where_it_was(scm):
    abduction = scm.abduct(PARTIAL, seed=0, num_samples=2)
    once = abduction.counterfactual({"a": 0}, targets=["x"])
    for again in (copy.deepcopy(abduction), pickle.loads(pickle.dumps(abduction))):
        assert flat(again.counterfactual({"a": 0})["x"]) == flat(once["x"])
        assert flat(again.counterfactual({"a": 1})["z"]) == flat(abduction.counterfactual({"a": 1})["z"])


def test_evidence_is_refused_as_often_as_it_is_asked():
    world = cg.SCM(
        nx.DiGraph([("x", "y"), ("y", "z")]),
        {node: cg.Continuous() for node in "xyz"},
        {
            "x": cg.mechanisms.Equation(value="u", noise=NORMAL),
            "y": cg.mechanisms.Equation(value="2 * x"),
            "z": cg.mechanisms.Equation(value="y + u", noise=NORMAL),
        },
    )
    abduction = world.abduct({"x": 1.0, "y": 5.0, "z": 0.0}, seed=0)
    for _ in range(2):
        with pytest.raises(cg.EvidenceError):
            abduction.counterfactual({"z": 1.0})


def test_couplings_and_evaluations_say_the_same():
    draw = np.random.default_rng(0)
    a = draw.integers(0, 2, 80)
    pair = cg.SCM(nx.DiGraph([("a", "b")]), {"a": cg.Categorical(2), "b": cg.Categorical(2)})
    pair = pair.fit({"a": a, "b": (a + draw.integers(0, 2, 80)) % 2}, progress=False)
    rows = shades.rows(40)
    report = cg.evaluate(
        shades.shades().fit(rows, progress=False),
        rows,
        rows=12,
        evaluators={"kind": logits, "shade": shades.shade_of},
        progress=False,
    )
    for result in (pair.coupling_sensitivity({"a": 0, "b": 1}, do={"a": 1}, seed=0), report):
        assert str(pickle.loads(pickle.dumps(result))) == str(result) == str(copy.deepcopy(result))


def test_errors_come_back_from_a_process():
    """concurrent.futures pickles what a worker raises: an error that does not unpickle hangs the pool."""
    kinds = [each for each in vars(errors).values() if isinstance(each, type) and issubclass(each, Exception)]
    assert len(kinds) > 10
    named = errors.UnknownNameError.of("node", "xx", ["x"], where="do")
    for error in [*(kind("what") for kind in kinds), named]:
        again = pickle.loads(pickle.dumps(error))
        assert type(again) is type(error) and str(again) == str(error)


def test_a_spawned_process_answers_the_same(scm):
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        assert pool.submit(asked, scm).result(timeout=300) == asked(scm)


def test_a_forked_process_answers_the_same_while_others_run_programs(scm):
    """A fork waits until no thread has lent what the process has one of."""
    expected, stop = asked(scm), threading.Event()

    def busy():
        while not stop.is_set():
            scm.sample(5, seed=0)

    threads = [threading.Thread(target=busy) for _ in range(3)]
    for each in threads:
        each.start()
    try:
        context = multiprocessing.get_context("fork")
        for _ in range(3):
            mine, its = context.Pipe()
            child = context.Process(target=_tell, args=(scm, its))
            child.start()
            its.close()
            assert mine.poll(60), "the child hangs"
            assert mine.recv() == expected
            child.join()
    finally:
        stop.set()
        for each in threads:
            each.join()
    assert ALONE.acquire(blocking=False)
    ALONE.release()


def _tell(scm, pipe):
    pipe.send(asked(scm))


def test_a_program_is_pickled_by_its_function(scm):
    assert pickle.loads(pickle.dumps(scm)).mechanisms["z"].program is respond
