"""How well ``auto`` chooses: errors on synthetic tables, beside those of its candidates.

    python benchmarks/choosing.py [--seeds 3] [--only linear,bounded] [--quick]

Each table has a known generator, x := f(pa, u) with f monotone in each column of u: parents, drawn first, and
one node ``y``. The error is the root mean square over 1,000 new rows of what y would have been under another
row's parents, over all seeds. ``auto`` is held to the better of ``additive`` (least squares) and ``flow``.

Of categories and counts, whose counterfactuals depend on a coupling that no data show, the law is held to the
true one: the error is the mean of log p(y | pa) - log q(y | pa) over 10,000 new rows (the Kullback-Leibler
divergence), in nats. ``auto`` logits stand beside those it chooses from, a count by ``counts`` beside a
``flow``.
"""

from __future__ import annotations

import argparse
import math
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import networkx as nx
import numpy as np
import torch
from numpy.typing import NDArray
from parts.record import Section, add_common, show
from rich.console import Console

import causalgen as cg

SPECS = {"additive": cg.mechanisms.Additive(), "flow": cg.mechanisms.Flow(), "auto": cg.mechanisms.Auto()}

Array = NDArray[Any]
Columns = Mapping[str, Array]


@dataclass(frozen=True)
class Generator:
    """One table.

    Attributes:
        rows: of the training table.
        parents: (random, rows) -> columns.
        noise: (random, rows) -> u.
        value: (parents, u) -> y.
        variable: of y.
        categories: of the parents that are categorical.
    """

    rows: int
    parents: Callable[[np.random.Generator, int], Columns]
    noise: Callable[[np.random.Generator, int], Array]
    value: Callable[[Columns, Array], Array]
    variable: Any = field(default_factory=cg.Continuous)
    categories: Mapping[str, int] = field(default_factory=dict)

    def draw(self, random: np.random.Generator, rows: int) -> tuple[dict[str, Array], Array]:
        """Columns with ``y``, and the noise of y."""
        parents, noise = dict(self.parents(random, rows)), self.noise(random, rows)
        return parents | {"y": self.value(parents, noise)}, noise

    def model(self, parents: Columns, mechanism: Any) -> cg.SCM:
        """A model that is not fitted; only ``y`` has a mechanism to choose."""
        graph = nx.DiGraph([(name, "y") for name in parents])
        variables = {
            name: cg.Categorical(self.categories[name]) if name in self.categories else cg.Continuous()
            for name in parents
        }
        empirical = {name: cg.mechanisms.Empirical() for name in parents}
        return cg.SCM(graph, variables | {"y": self.variable}, empirical | {"y": mechanism})


def counterfactual_error(scm: cg.SCM, table: Generator, *, seed: int, rows: int = 1000) -> float:
    """Root mean square error of y under do(parents = those of another row), for new rows."""
    random = np.random.default_rng([seed, 1])
    factual, noise = table.draw(random, rows)
    order = random.permutation(rows)
    other = {name: factual[name][order] for name in factual if name != "y"}
    found = scm.counterfactual(factual, do=other, targets=["y"], seed=0)["y"]
    error = np.asarray(found) - table.value(other, noise)
    return float(np.sqrt(np.mean(error**2)))


@dataclass(frozen=True)
class Law:
    """One table of a category or a count, with the true law of ``y``.

    Attributes:
        rows: of the training table.
        law: x (n, 3) -> log P(y = k), (n, K); of a count for so many k that the rest does not matter.
        specs: mechanisms of y by name.
        variable: of y.
    """

    rows: int
    law: Callable[[Array], Array]
    specs: Mapping[str, Any]
    variable: Any

    def draw(self, random: np.random.Generator, rows: int) -> tuple[dict[str, Array], Array]:
        """Columns a, b, c and y, and the true log P(y | a, b, c)."""
        x = random.normal(size=(rows, 3))
        log_p = self.law(x)
        y = (log_p + random.gumbel(size=log_p.shape)).argmax(1)
        return dict(zip("abc", x.T, strict=True)) | {"y": y}, log_p[np.arange(rows), y]

    def divergence(self, scm: cg.SCM, *, seed: int, rows: int = 10_000) -> float:
        """Of the fitted law of y from the true one, in nats."""
        table, true = self.draw(np.random.default_rng([seed, 1]), rows)
        tensors = {name: torch.from_numpy(column) for name, column in table.items()}
        value = tensors.pop("y").to(getattr(torch, self.variable.dtype))
        with torch.no_grad():
            found = scm.mechanisms["y"].log_prob(value, tensors)
        assert found is not None
        return float((torch.from_numpy(true) - found.double()).mean())


def _logits(score: Callable[[Array], Array]) -> Callable[[Array], Array]:
    """A law of two categories, by the log odds of the second."""
    return lambda x: -np.logaddexp(0, np.stack([score(x), -score(x)], 1))


def _straight(x: Array) -> Array:
    return x @ np.array([1.5, 0.25, -1.0])


def _bent(x: Array) -> Array:
    return _straight(x) + 1.5 * np.sin(2 * x[:, 0])


def _counts(mean: Callable[[Array], Array], shape: float) -> Callable[[Array], Array]:
    """A law of counts: a negative binomial of this mean and shape."""
    k, most = np.arange(400), math.lgamma(shape)
    choices = np.array([math.lgamma(each + shape) - most - math.lgamma(each + 1) for each in k])

    def law(x: Array) -> Array:
        share = mean(x)[:, None] / (shape + mean(x)[:, None])
        return choices + shape * np.log1p(-share) + k * np.log(share)

    return law


def _two_kinds(x: Array) -> Array:
    """Of counts, half of rows of a mean of 1 and half of 15, whatever the parents."""
    few, many = (_counts(lambda x, mean=mean: np.full(len(x), mean), 1e6)(x) for mean in (1.0, 15.0))
    return np.logaddexp(few, many) - math.log(2)


def _multiplied(x: Array) -> Array:
    return np.exp(0.5 + x @ np.array([0.6, -0.3, 0.0]))


def _steps(x: Array) -> Array:
    """A law of six categories with an order: proportional odds."""
    edges = np.linspace(-2, 2, 5) - (x @ np.array([1.0, -0.5, 0.3]))[:, None]
    below = 1 / (1 + np.exp(-np.pad(edges, ((0, 0), (1, 1)), constant_values=((0, 0), (-np.inf, np.inf)))))
    return np.log(np.diff(below, axis=1))


_CATEGORY = cg.Categorical(2)
_COUNT = cg.Integer(lower=0)
_FORMS = {each: cg.mechanisms.Categorical(logits=each) for each in ("linear", "network", "auto")}
_ORDERED = {"ordinal": cg.mechanisms.Categorical(logits="ordinal"), **_FORMS}
_COUNTS = {"counts": cg.mechanisms.Counts(), "flow": cg.mechanisms.Flow()}

LAWS: Mapping[str, Law] = {
    "category on few rows": Law(300, _logits(_straight), _FORMS, _CATEGORY),
    "category": Law(3000, _logits(_straight), _FORMS, _CATEGORY),
    "bent category on few rows": Law(300, _logits(_bent), _FORMS, _CATEGORY),
    "bent category": Law(3000, _logits(_bent), _FORMS, _CATEGORY),
    "ordered category on few rows": Law(300, _steps, _ORDERED, cg.Categorical(6, ordered=True)),
    "ordered category": Law(3000, _steps, _ORDERED, cg.Categorical(6, ordered=True)),
    "Poisson count on few rows": Law(300, _counts(_multiplied, 1e6), _COUNTS, _COUNT),
    "count on few rows": Law(300, _counts(_multiplied, 2.0), _COUNTS, _COUNT),
    "count": Law(3000, _counts(_multiplied, 2.0), _COUNTS, _COUNT),
    "count of two kinds": Law(3000, _two_kinds, _COUNTS, _COUNT),
}
"""Tables of categories and counts, by name."""


def _normal(*shape: int) -> Callable[[np.random.Generator, int], Array]:
    return lambda random, rows: random.normal(size=(rows, *shape))


def _x(random: np.random.Generator, rows: int) -> Columns:
    return {"x": random.normal(size=rows)}


def _three(random: np.random.Generator, rows: int) -> Columns:
    a = random.normal(size=rows)
    return {"a": a, "b": 0.6 * a + 0.8 * random.normal(size=rows), "c": random.integers(0, 3, rows)}


def _skewed(random: np.random.Generator, rows: int) -> Array:
    return random.exponential(size=rows)


def _two_modes(random: np.random.Generator, rows: int) -> Array:
    return 1.5 * random.choice([-1, 1], rows) + 0.3 * random.normal(size=rows)


TABLES: Mapping[str, Generator] = {
    "linear": Generator(100, _x, _normal(), lambda pa, u: 2 * pa["x"] + u),
    "no effect": Generator(50, _x, _normal(), lambda pa, u: u),
    "skewed noise": Generator(1000, _x, _skewed, lambda pa, u: 2 * pa["x"] + u),
    "nonlinear on few rows": Generator(200, _x, _normal(), lambda pa, u: np.sin(2 * pa["x"]) + 0.3 * u),
    "nonlinear": Generator(
        5000, _x, _normal(), lambda pa, u: np.tanh(2 * pa["x"]) + 0.5 * pa["x"] ** 2 + 0.3 * u
    ),
    "heteroscedastic": Generator(
        2000, _x, _normal(), lambda pa, u: pa["x"] + (0.3 + 0.5 * np.abs(pa["x"])) * u
    ),
    "bounded": Generator(
        1000,
        _x,
        _normal(),
        lambda pa, u: 1 / (1 + np.exp(-pa["x"] - 0.5 * u)),
        cg.Continuous(lower=0, upper=1),
    ),
    "multiplicative": Generator(
        500, _x, _normal(), lambda pa, u: np.exp(0.5 * pa["x"] + 0.4 * u), cg.Continuous(lower=0)
    ),
    "two modes": Generator(2000, _x, _two_modes, lambda pa, u: pa["x"] + u),
    "discrete parent": Generator(
        500,
        lambda random, rows: {"c": random.integers(0, 3, rows)},
        _normal(),
        lambda pa, u: np.array([0.0, 2.0, -1.0])[pa["c"]] + np.array([0.5, 1.0, 0.2])[pa["c"]] * u,
        categories={"c": 3},
    ),
    "several parents": Generator(
        10_000,
        _three,
        _normal(),
        lambda pa, u: pa["a"] - 0.5 * pa["a"] * pa["b"] + np.array([0.0, 1.0, -1.0])[pa["c"]] + 0.5 * u,
        categories={"c": 3},
    ),
    "vector": Generator(
        1000,
        _x,
        _normal(2),
        lambda pa, u: np.stack([pa["x"] + u[:, 0], np.sin(pa["x"]) + 0.5 * u[:, 0] + 0.5 * u[:, 1]], 1),
        cg.Continuous(shape=(2,)),
    ),
}
"""The tables by name."""


def main(arguments: list[str]) -> None:
    """Measure the chosen tables, print them and save them one by one."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--quick", action="store_true", help="two small tables, one seed")
    add_common(parser, "choosing.json", [*TABLES, *LAWS], threads=False, width=140)
    options = parser.parse_args(arguments)
    seeds = range(1 if options.quick else options.seeds)
    names = options.only or (
        ["linear", "no effect", "count on few rows"] if options.quick else [*TABLES, *LAWS]
    )
    console, section = Console(width=options.width), Section(options.out, "choosing")
    results: dict[str, dict[str, Any]] = {"tables": {}, "laws": {}}
    for name in names:
        kind = "tables" if name in TABLES else "laws"
        results[kind][name] = found = measure(name, seeds) if name in TABLES else measure_law(name, seeds)
        section.keep({"seeds": len(seeds), **results})
        console.print(f"{name}: {found}", highlight=False)
    section.finish()
    if chosen := results["tables"]:
        show(console, "auto beside its candidates", [_row(name, each) for name, each in chosen.items()])
    titles = ("logits of a category, nats from the truth", "of one with an order", "counts")
    for specs, title in zip((_FORMS, _ORDERED, _COUNTS), titles, strict=True):
        rows = [
            {"table": name, "rows": each["rows"], **each["divergence"]}
            for name, each in results["laws"].items()
            if LAWS[name].specs is specs
        ]
        if rows:
            show(console, title, rows)


def measure(name: str, seeds: Sequence[int]) -> dict[str, Any]:
    """Errors and seconds of each mechanism on one table, and what was chosen."""
    generator, squares = TABLES[name], dict.fromkeys(SPECS, 0.0)
    seconds, chosen = dict.fromkeys(SPECS, 0.0), []
    for seed in seeds:
        rows, _ = generator.draw(np.random.default_rng([seed, 0]), generator.rows)
        parents = {node: column for node, column in rows.items() if node != "y"}
        for kind, spec in SPECS.items():
            began = time.process_time()
            scm = generator.model(parents, spec).fit(rows, seed=seed, progress=False)
            seconds[kind] += (time.process_time() - began) / len(seeds)
            squares[kind] += counterfactual_error(scm, generator, seed=seed) ** 2 / len(seeds)
            report = scm.fit_report["y"] if scm.fit_report else None
            if report is not None and report.choice is not None:
                chosen.append(report.choice["label"])
    error = {kind: math.sqrt(square) for kind, square in squares.items()}
    ratio = error["auto"] / min(error["additive"], error["flow"])
    return {"rows": generator.rows, "error": error, "ratio": ratio, "chosen": chosen, "cpu_seconds": seconds}


def measure_law(name: str, seeds: Sequence[int]) -> dict[str, Any]:
    """Divergence and seconds of each mechanism on one table, and what was chosen."""
    law = LAWS[name]
    divergence, seconds = dict.fromkeys(law.specs, 0.0), dict.fromkeys(law.specs, 0.0)
    chosen: list[str] = []
    variables = dict.fromkeys("abc", cg.Continuous()) | {"y": law.variable}
    for seed in seeds:
        rows, _ = law.draw(np.random.default_rng([seed, 0]), law.rows)
        for kind, spec in law.specs.items():
            additive = dict.fromkeys("abc", cg.mechanisms.Additive())
            scm = cg.SCM(nx.DiGraph([(each, "y") for each in "abc"]), variables, additive | {"y": spec})
            began = time.process_time()
            scm.fit(rows, seed=seed, progress=False)
            seconds[kind] += (time.process_time() - began) / len(seeds)
            divergence[kind] += law.divergence(scm, seed=seed) / len(seeds)
            report = scm.fit_report["y"] if scm.fit_report else None
            if report is not None and report.choice is not None:
                chosen.append(report.choice["label"])
    return {"rows": law.rows, "divergence": divergence, "chosen": chosen, "cpu_seconds": seconds}


def _row(name: str, found: dict[str, Any]) -> dict[str, Any]:
    chosen = ", ".join(sorted({*found["chosen"]}))
    return {
        "table": name,
        "rows": found["rows"],
        **found["error"],
        "auto / better": found["ratio"],
        "chosen": chosen,
    }


if __name__ == "__main__":
    main(sys.argv[1:])
