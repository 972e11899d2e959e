"""The axioms of structural counterfactuals (Galles & Pearl 1998; Halpern 2000), as checks of any model.

Each takes a case: a model, complete evidence, and other values that interventions may set. Bits are compared
where copying or shared computation promises them, values up to rounding where everything is regenerated.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

import causalgen as cg
from causalgen.counterfactuals.results import Counterfactual

__all__ = ["AXIOMS", "Case", "ROWS", "draw_rows", "facts", "full", "near", "same"]

ROWS = 5


@dataclass(frozen=True)
class Case:
    """A model with rows of evidence and of alternatives, both drawn from it, in the user's form."""

    scm: cg.SCM
    evidence: dict
    others: dict
    random: np.random.Generator

    @property
    def nodes(self) -> list[str]:
        return list(self.scm.graph.nodes)

    def some(self, count: int = 1) -> list[str]:
        """Random nodes."""
        return self.random.permutation(self.nodes)[:count].tolist()

    def tabular(self) -> list[str]:
        """Nodes that are no images."""
        return [node for node in self.nodes if self.scm.variables[node].type != "image"]


def draw_rows(scm: cg.SCM, seed: int) -> tuple[dict, dict]:
    """Evidence and alternatives for a model."""
    return dict(scm.sample(ROWS, seed=seed)), dict(scm.sample(ROWS, seed=seed + 1))


def full(cf: Counterfactual, node: str) -> Tensor:
    """(S * B, *event) canonical values."""
    value, n = cf.canonical(node), cf.rows * (cf.samples or 1)
    return value if len(value) == n else value.repeat(n // len(value), *[1] * (value.ndim - 1))


def facts(case: Case, node: str, samples: int = 1) -> Tensor:
    """(S * B, *event) canonical evidence."""
    value = torch.as_tensor(case.scm.variables[node].encode(case.evidence[node], where="evidence"))
    return value.repeat(samples, *[1] * (value.ndim - 1))


def same(found: Tensor, expected: Tensor, what: str) -> None:
    """Bit for bit."""
    assert torch.equal(found, expected), f"{what}: {found} is not bit-equal to {expected}"


def near(found: Tensor, expected: Tensor, what: str) -> None:
    """Equal codes; numbers up to 1e-8 of their size; pixels up to 1e-4."""
    if not expected.is_floating_point():
        same(found, expected, what)
        return
    tolerance = 1e-8 if expected.dtype == torch.float64 else 1e-4
    torch.testing.assert_close(
        found, expected, rtol=tolerance, atol=tolerance, msg=lambda text: f"{what}: {text}"
    )


def all_same(one: Counterfactual, other: Counterfactual, nodes: Iterable[str], what: str) -> None:
    """Two results, bit for bit."""
    for node in nodes:
        same(full(one, node), full(other, node), f"{what}, node {node}")


def consistency(case: Case, samples: int | None) -> None:
    """Setting nodes to what was observed changes nothing, of categories too, in the rows where it does."""
    ab = case.scm.abduct(case.evidence, num_samples=samples, seed=0)
    for do in ({}, {node: case.evidence[node] for node in case.some(2)}, *_no_ops(case)):
        copied, remade = ab.counterfactual(do), ab.counterfactual(do, copy_unaffected=False)
        for node in case.nodes:
            expected = facts(case, node, samples or 1)
            same(full(copied, node), expected, f"do({list(do)}), node {node}")
            near(full(remade, node), expected, f"do({list(do)}) remade, node {node}")
    node = case.some()[0]
    mixed, kept = _mixed_rows(case, node)
    cf = ab.counterfactual({node: mixed})
    for each in case.nodes:
        values = full(cf, each).reshape(samples or 1, ROWS, -1)[:, kept]
        same(
            values,
            facts(case, each, samples or 1).reshape(samples or 1, ROWS, -1)[:, kept],
            f"rows of {each}",
        )


def _no_ops(case: Case) -> list[dict]:
    (node,) = case.some()
    numbers = [each for each in case.nodes if case.scm.variables[each].type == "continuous"]
    identity = [{node: lambda natural: natural}]
    return [*identity, {numbers[0]: cg.Shift(0)}, {numbers[-1]: cg.Scale(1)}] if numbers else identity


def _mixed_rows(case: Case, node: str) -> tuple:
    """The observed value in even rows, another one in odd rows; and which are even."""
    kept = np.arange(ROWS) % 2 == 0
    pair = [(case.evidence if even else case.others)[node][row] for row, even in enumerate(kept)]
    return (torch.stack(pair) if isinstance(pair[0], Tensor) else pair), kept


def effectiveness(case: Case, samples: int | None) -> None:
    """What is set has its value, bit for bit, in every sample."""
    for copy in (True, False):
        do = {node: case.others[node] for node in case.some(2)}
        cf = case.scm.counterfactual(case.evidence, do, num_samples=samples, seed=0, copy_unaffected=copy)
        for node, value in do.items():
            encoded = torch.as_tensor(case.scm.variables[node].encode(value, where="do"))
            same(full(cf, node), encoded.repeat(samples or 1, *[1] * (encoded.ndim - 1)), f"node {node}")


def composition(case: Case, samples: int | None) -> None:
    """Also setting a node to what it would have been changes nothing: W_x = w implies Y_xw = Y_x."""
    nodes = case.tabular()
    x, w = (case.random.permutation(nodes)[:2]).tolist()
    ab = case.scm.abduct(case.evidence, num_samples=samples, seed=0)
    set_x = {x: case.others[x]}
    worlds = ab.worlds({"x": set_x, "xw": {**set_x, w: cg.WorldRef("x")[w]}})
    all_same(worlds["xw"], worlds["x"], case.nodes, f"do({x}, {w})")
    if samples is None:
        for copy in (True, False):
            first = ab.counterfactual(set_x, copy_unaffected=copy)
            both = ab.counterfactual({**set_x, w: first[w]}, copy_unaffected=copy)
            all_same(both, first, case.nodes, f"do({x}, {w}), copy {copy}")


def reversibility(case: Case, samples: int | None) -> None:
    """Y_xw = y and W_xy = w imply Y_x = y; and what is fully known goes there and back again."""
    x, w, y = [*case.random.permutation(case.tabular())[:3].tolist(), None][:3]
    ab = case.scm.abduct(case.evidence, seed=0)
    set_x = {x: case.others[x]}
    if y is not None:
        for copy in (True, False):
            first = ab.counterfactual(set_x, copy_unaffected=copy)
            one = ab.counterfactual({**set_x, w: first[w]}, copy_unaffected=copy)
            other = ab.counterfactual({**set_x, y: one[y]}, copy_unaffected=copy)
            same(full(other, w), full(first, w), f"do({x}, {y}), node {w}")
            same(full(one, y), full(first, y), f"do({x}, {w}), node {y}")
    reached = case.scm.graph.descendants(x) - {x}
    if all(case.scm.mechanisms[node].abduction == "exact" for node in reached):
        there = ab.counterfactual(set_x)
        again = case.scm.abduct(dict(there), seed=1)
        for copy in (True, False):
            back = again.counterfactual({x: case.evidence[x]}, copy_unaffected=copy)
            for node in case.nodes:
                near(full(back, node), facts(case, node), f"there and back by {x}, node {node}")


def non_descendants(case: Case, samples: int | None) -> None:
    """What is not downstream stays, bit for bit, copied or not; what is, does not depend on copying."""
    ab = case.scm.abduct(case.evidence, num_samples=samples, seed=0)
    null = ab.counterfactual({}, copy_unaffected=False)
    do = {node: case.others[node] for node in case.some(2)}
    apart = set(case.nodes) - case.scm.graph.descendants(do)
    copied, remade = ab.counterfactual(do), ab.counterfactual(do, copy_unaffected=False)
    for node in apart:
        same(full(copied, node), facts(case, node, samples or 1), f"do({list(do)}), node {node}")
    all_same(remade, null, apart, f"do({list(do)}) remade")
    for node in case.nodes:
        near(full(remade, node), full(copied, node), f"do({list(do)}) remade against copied, node {node}")


def commutation(case: Case, samples: int | None) -> None:
    """Interventions on different nodes may be said in any order, and one after the other."""
    one, other = case.some(2)
    first, second = {one: case.others[one]}, {other: case.others[other]}
    ab = case.scm.abduct(case.evidence, num_samples=samples, seed=0)
    for copy in (True, False):
        there = ab.counterfactual({**first, **second}, copy_unaffected=copy)
        back = ab.counterfactual({**second, **first}, copy_unaffected=copy)
        all_same(there, back, case.nodes, f"do({one}, {other})")
    together = case.scm.sample(ROWS, do={**first, **second}, seed=3)
    for scm in (case.scm.do(first).do(second), case.scm.do(second).do(first)):
        drawn = scm.sample(ROWS, seed=3)
        for node in case.nodes:
            same(drawn.canonical(node), together.canonical(node), f"do({one}, {other}) in turn, node {node}")


def seeds(case: Case, samples: int | None) -> None:
    """The seed decides; what else was asked, and in which order, does not."""
    (node,) = case.some()
    do = {node: case.others[node]}

    def ask(seed: int, targets=None) -> Counterfactual:
        return case.scm.counterfactual(case.evidence, do, num_samples=samples, seed=seed, targets=targets)

    whole, again = ask(1), ask(1)
    all_same(whole, again, case.nodes, "the same seed")
    for target in case.some(2):
        all_same(ask(1, [target]), whole, [target], f"targets {target}")
    ab = case.scm.abduct(case.evidence, num_samples=samples, seed=1)
    ab.counterfactual({}, copy_unaffected=False)
    all_same(ab.counterfactual(do), whole, case.nodes, "after another question")
    drawn = ask(2)
    for each in whole.noise:
        if not case.scm.mechanisms[each].deterministic:
            leaves = whole.noise[each].leaves
            differ = [not torch.equal(leaf, drawn.noise[each][name]) for name, leaf in leaves.items()]
            moves = any(leaf.unique().numel() > 4 for leaf in leaves.values())
            assert any(differ) or not moves, f"another seed drew the same noise of {each}"


def substitution(case: Case, samples: int | None) -> None:
    """A function of the natural value is the values that it gives, whatever else is set."""
    numbers = [node for node in case.nodes if isinstance(case.scm.variables[node], cg.Continuous)]
    if not numbers:  # codes have no middle
        return
    x, y = str(case.random.choice(numbers)), case.some()[0]
    middle = case.evidence[x][0]
    do = {y: case.others[y], x: lambda natural: (natural + middle) / 2}  # which stays within bounds
    ab = case.scm.abduct(case.evidence, num_samples=samples, seed=0)
    worlds = ab.worlds({"function": do, "values": {**do, x: cg.WorldRef("function")[x]}})
    all_same(worlds["values"], worlds["function"], case.nodes, f"do({x}, {y})")


AXIOMS: dict[str, Callable[[Case, int | None], None]] = {
    "commutation": commutation,
    "composition": composition,
    "consistency": consistency,
    "effectiveness": effectiveness,
    "non-descendants": non_descendants,
    "reversibility": reversibility,
    "seeds": seeds,
    "substitution": substitution,
}
