"""Eight threads answer as one does, and touch nothing that is the whole process's.

Each call is asked once alone, then by all threads in other orders, with Python changing threads every few
microseconds. A watcher looks at the state of the process meanwhile.
"""

import itertools
import random
import sys
import threading
import warnings
from collections import Counter
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor

import networkx as nx
import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from torch import Tensor

import causalgen as cg
from tests.causalgen.attacks import record
from tests.causalgen.metrics import shades
from tests.causalgen.metrics.test_axioms import logits

THREADS = 8
COUNT, LOCK = itertools.count(), threading.Lock()
ROW = {"a": 1, "x": 0.5, "y": 2.0, "z": 1.5}


def respond(parents):
    """A gamma and a normal; validation of laws would refuse its negative rate."""
    gain = pyro.sample("gain", dist.Gamma(2.0, 2.0))
    return gain * parents["x"] + pyro.sample("u", dist.Normal(0.0, 0.5))


def table():
    draw = np.random.default_rng(0)
    a = draw.integers(0, 3, 60)
    x = a + draw.normal(size=60)
    return {
        "a": a,
        "x": x,
        "y": 2 * x + draw.normal(size=60),
        "z": np.exp(x / 3) + 0.1 * draw.gamma(2.0, size=60),
    }


def declared():
    """a -> x -> y -> z, x -> z: a category, a line, an equation, a program."""
    return cg.SCM(
        nx.DiGraph([("a", "x"), ("x", "y"), ("x", "z"), ("y", "z")]),
        variables={"a": cg.Categorical(3), "x": cg.Continuous(), "y": cg.Continuous(), "z": cg.Continuous()},
        mechanisms={
            "x": cg.mechanisms.Additive(),
            "y": cg.mechanisms.Equation(value="2*x + u", noise={"u": {"normal": [0, 1]}}),
            "z": cg.mechanisms.Program(program=respond, particles=50),
        },
    )


ABDUCTIONS = {}


def shared(scm):
    """Asks an abduction that another thread may be asking: every fourth question finds a new one."""
    place = next(COUNT) // 4
    with LOCK:
        if place not in ABDUCTIONS:
            ABDUCTIONS[place] = scm.abduct(
                {"a": [1, 2], "y": [2.0, np.nan], "z": [1.5, 1.0]}, seed=3, num_samples=2
            )
        abduction = ABDUCTIONS[place]
    found = abduction.counterfactual({"a": 0})
    return {**found, "noise": abduction.noise["x"]["residual"], "size": abduction.effective_sample_size}


def flat(answer):
    """What an answer says, as bytes and words."""
    if isinstance(answer, Tensor):
        return answer.detach().numpy().tobytes()
    if isinstance(answer, np.ndarray):
        return answer.tobytes() if answer.dtype != object else tuple(answer.tolist())
    if isinstance(answer, Mapping):
        return tuple((key, flat(each)) for key, each in answer.items())
    return repr(answer)


def weights(scm):
    return {
        f"{node}.{key}": each
        for node, mechanism in scm.mechanisms.items()
        for key, each in mechanism.state_dict().items()
    }


def lined(mechanism):
    """x -> y."""
    return cg.SCM(
        nx.DiGraph([("x", "y")]),
        variables={"x": cg.Continuous(), "y": cg.Continuous()},
        mechanisms={"x": cg.mechanisms.Additive(), "y": mechanism},
    )


def fits(name):
    training = {"epochs": 2, "batch_size": 16}
    specs = {
        "additive": cg.mechanisms.Additive(function="network", training=training, hidden=(8,)),
        "flow": cg.mechanisms.Flow(training=training),
        "auto": cg.mechanisms.Auto(),
        "table": cg.mechanisms.Additive(),
    }
    data = {node: table()[node] for node in "xy"}
    return weights(lined(specs[name]).fit(data, progress=False, seed=3))


def pictured():
    return cg.SCM(
        nx.DiGraph([("kind", "picture")]),
        variables={"kind": cg.Categorical(2), "picture": cg.Image(1, 8, 8)},
        mechanisms={
            "picture": cg.mechanisms.Diffusion(
                backbone={"channels": (8, 16)},
                predictor={"channels": (8, 16)},
                solver={"kind": "anchored", "steps": 2},
                training={"epochs": 1, "batch_size": 32, "validation": 0.1},
            )
        },
    )


def pictures():
    draw = np.random.default_rng(0)
    kind = draw.integers(0, 2, 48)
    return {
        "kind": kind,
        "picture": draw.random((48, 1, 8, 8)).astype(np.float32) * 0.5 + kind[:, None, None, None] / 2,
    }


@pytest.fixture(scope="module")
def calls(tmp_path_factory):
    """Questions by name, each a function that answers from scratch."""
    scm = declared().fit(table(), progress=False)
    chains = {"kind": "nuts", "warmup": 5, "draws": 8, "chains": 1, "max_tree_depth": 3}
    guide = {"kind": "svi", "steps": 5, "draws": 20}
    worlds = {kind["kind"]: scm.with_options("z", inference=kind) for kind in (chains, guide)}
    seen = pictured().fit(pictures(), progress=False)
    plain = lined(cg.mechanisms.Additive()).fit({node: table()[node] for node in "xy"}, progress=False)
    folder = tmp_path_factory.mktemp("threads") / "model"
    seen.save_pretrained(folder)
    written = seen.to_yaml(folder.with_suffix(".yaml")) and folder.with_suffix(".yaml")
    shaded, truth = shades.shades(), shades.rows(40)
    shaded = shaded.fit(truth, progress=False)

    def drawn(law):
        return lambda: dict(scm.sample(7, do={"x": cg.Stochastic(law)}, seed=1))

    def refused():
        with pytest.raises(cg.SpecError, match="1if") as caught:
            cg.mechanisms.Equation(value="1if x else 2")
        return str(caught.value)

    def counterfactual(model, **options):
        return lambda: dict(model.counterfactual(ROW, do={"x": 1.0}, seed=2, num_samples=3, **options))

    return {
        "gamma": drawn(torch.distributions.Gamma(2.0, 1.0)),
        "student": drawn(torch.distributions.StudentT(4.0)),
        "poisson": drawn(dist.Poisson(3.0)),
        "beta": drawn(dist.Beta(2.0, 3.0)),
        "von mises": drawn(dist.VonMises(0.0, 2.0)),
        "family": drawn({"normal": [0, 1]}),
        "sample": lambda: dict(scm.sample(9, seed=4)),
        "importance": counterfactual(scm),
        "nuts": counterfactual(worlds["nuts"]),
        "svi": counterfactual(worlds["svi"]),
        "missing": lambda: dict(scm.counterfactual({"a": 1, "y": 2.0}, do={"y": 1.0}, seed=2)),
        "shared": lambda: shared(scm),
        "effect": lambda: scm.effect("y", do={"x": 1.0}, versus={"x": 0.0}, n=20, seed=0),
        "log_prob": lambda: plain.log_prob({"x": 0.5, "y": 1.0}),
        "program": lambda: declared().mechanisms["z"].plan,
        "parse": lambda: cg.mechanisms.Equation(value="where(x > 0, x, -x) + 1"),
        "refuse": refused,
        "additive": lambda: fits("additive"),
        "flow": lambda: fits("flow"),
        "auto": lambda: fits("auto"),
        "table": lambda: fits("table"),
        "images": lambda: weights(pictured().fit(pictures(), progress=False, seed=5)),
        "image": lambda: dict(
            seen.counterfactual({node: each[:2] for node, each in pictures().items()}, do={"kind": 1})
        ),
        "load": lambda: weights(cg.SCM.from_pretrained(folder)),
        "yaml": lambda: cg.SCM.from_yaml(written).to_yaml(),
        "evaluate": lambda: str(
            cg.evaluate(
                shaded, truth, evaluators={"kind": logits, "shade": shades.shade_of}, rows=12, progress=False
            )
        ),
        "check": lambda: plain.check({node: table()[node] for node in "xy"}, seed=0),
    }


SELDOM = {
    "auto": 2,
    "evaluate": 20,
    "nuts": 50,
    "images": 50,
    "svi": 100,
    "flow": 100,
    "shared": 100,
    "importance": 200,
    "program": 200,
    "yaml": 300,
    "load": 300,
}
"""Of 10,000 questions of a thread, those of 10 ms to 3 s, so that none takes most of the time; the others
share what is left."""

SLOW = ("evaluate", "images", "nuts", "flow", "auto", "importance")
"""Left to the full form."""

LENT = ("validation of laws", "Pyro's handlers")
"""What Pyro has one of for the whole process: lent under a lock while a program runs."""


def state():
    """All that the process has one of."""
    name, keys, *rest = np.random.get_state()
    return {
        "torch's generator": torch.get_rng_state().numpy().tobytes(),
        "NumPy's generator": (name, keys.tobytes(), *rest),
        "Python's generator": random.getstate(),
        "the warning filters": (id(warnings.filters), tuple(warnings.filters)),
        "showwarning": warnings.showwarning,
        "validation of laws": torch.distributions.Distribution._validate_args,
        "Pyro's handlers": len(pyro.poutine.runtime._PYRO_STACK),
        "Pyro's parameters": tuple(pyro.get_param_store()),
        "number of threads": torch.get_num_threads(),
        "default dtype": torch.get_default_dtype(),
    }


def stress(calls, times):
    """Which answers differ, and what of the process changed meanwhile or for good.

    Args:
        calls: by name.
        times: by name, how many times each thread asks it.
    """
    alone = {name: flat(call()) for name, call in calls.items()}
    before, changed, done, wrong = state(), set(), threading.Event(), Counter()

    def watch():
        while not done.wait(0.0005):
            changed.update(what for what, now in state().items() if now != before[what] and what not in LENT)

    def work(number):
        names = [name for name in calls for _ in range(times[name])]
        random.Random(number).shuffle(names)
        for name in names:
            try:
                told = "differs" if flat(calls[name]()) != alone[name] else ""
            except Exception as error:  # whatever threads do to each other
                told = f"raises {type(error).__name__}: {error}"
            if told:
                wrong[f"{name} {told}"] += 1
        return len(names)

    interval = sys.getswitchinterval()
    sys.setswitchinterval(5e-6)
    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        with ThreadPoolExecutor(THREADS) as pool:
            asked = sum(pool.map(work, range(THREADS)))
    finally:
        done.set()
        watcher.join()
        sys.setswitchinterval(interval)
    changed.update(f"{what}, for good" for what, now in state().items() if now != before[what])
    return asked, wrong, changed


@pytest.mark.filterwarnings("ignore")
def test_threads_answer_as_one_does(calls):
    quick = {name: call for name, call in calls.items() if name not in SLOW}
    asked, wrong, changed = stress(quick, dict.fromkeys(quick, 2))
    assert asked == THREADS * 2 * len(quick) and not wrong and not changed


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_eighty_thousand_answers_of_threads(calls):
    """Fits, images and inference by gradients too: 10,000 questions in each thread."""
    rest = [name for name in calls if name not in SELDOM]
    left, more = divmod(10_000 - sum(SELDOM.values()), len(rest))
    times = SELDOM | {name: left + (place < more) for place, name in enumerate(rest)}
    asked, wrong, changed = stress(calls, times)
    assert asked == THREADS * 10_000 and not wrong and not changed
    record("questions of eight threads", tried=asked, lost=0)
