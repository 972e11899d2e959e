"""Identifiability of a categorical counterfactual: how much it depends on the coupling, which no data tell.

Rows of p(y | do(x)) say nothing of which noise makes y under one x and another under the next: every coupling
of the laws p(y | pa) over pa has the same observations and the same experiments (Pearl 2009, section 1.4.4).
Two are compared, with one fitted law:

    gumbel      y = argmax_k (log p_k(pa) + u_k), u Gumbel: counterfactually stable (Oberst & Sontag 2019)
    monotone    y = F^-1(u; pa), one uniform u: never moves against the order of the categories

Of one node with observed parents, any coupling has P(Y_do = k | Y = y, pa) between the Frechet bounds

    max(0, p_k(pa') + p_y(pa) - 1) / p_y(pa)    and    min(p_k(pa'), p_y(pa)) / p_y(pa),

pa' the parents under do; they are sharp for each k (Pearl 1999; Tian & Pearl 2000).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from causalgen.arguments import check_targets, chosen_seed, whole_number
from causalgen.counterfactuals.abduction import Abduction
from causalgen.counterfactuals.evidence import Evidence
from causalgen.counterfactuals.interventions import interventions
from causalgen.counterfactuals.mutilated_model import CausalModel, act
from causalgen.counterfactuals.nested import named_worlds
from causalgen.counterfactuals.results import Counterfactual
from causalgen.data.arrow_tables import Tabular
from causalgen.data.frames import number_names
from causalgen.effects.estimates import individual_means
from graphs.errors import MechanismError
from graphs.text import Shown
from graphs.variables import Categorical, Image, Variable
from mechanisms.base import Mechanism
from mechanisms.extrapolation import extrapolation_expected
from mechanisms.options import with_options

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["CouplingSensitivity", "coupling_sensitivity"]

_COUPLINGS = ("gumbel", "monotone")
_SHOWN = 24


@dataclass(frozen=True, eq=False, repr=False)
class CouplingSensitivity(Shown, Tabular):
    """A counterfactual under both couplings of its categorical nodes. ``print`` shows it."""

    do: str  #: what was set, as text
    nodes: tuple[str, ...]  #: whose coupling was changed
    gumbel: Counterfactual  #: the answer under the one
    monotone: Counterfactual  #: the answer under the other, with the same weights and seed
    #: Low and high by node, (K, B) each; NaN where they are not known: a parent's or the node's own value was
    #: not observed, or the parents' values under ``do`` are no certain ones
    bounds: Mapping[str, tuple[NDArray[np.float64], NDArray[np.float64]]]
    targets: tuple[str, ...]  #: nodes that are reported

    def to_frame(self) -> pd.DataFrame:
        """A line for each node, row and category that may occur: index (node, row, category).

        Columns ``gumbel`` and ``monotone``: the probability of a category, the mean of a number (category
        ""); ``gumbel_sd`` and ``monotone_sd`` of numbers; ``low`` and ``high``, the Frechet bounds.
        """
        import pandas as pd

        lines = [line for node in self.targets for line in self._lines(node)]
        columns = ["node", "row", "category", *_COUPLINGS, "gumbel_sd", "monotone_sd", "low", "high"]
        return pd.DataFrame(lines, columns=columns).set_index(columns[:3])

    @property
    def largest_difference(self) -> float:
        """Of a probability between the couplings, over all rows and categories of all categorical nodes."""
        variables = self.gumbel.variables
        gaps = [
            np.abs(one - other).max()
            for node in {*self.nodes, *self.targets}
            if isinstance(variables[node], Categorical)
            for one, other in [[_shares(each, variables[node]) for each in self._draws(node)]]
        ]
        return float(max(gaps))

    def __repr__(self) -> str:
        """The first lines of the table, and the largest difference."""
        frame, samples = self.to_frame(), self.gumbel.samples or 1
        error = max(
            0.5 / samples**0.5, *(self._clustered_error(each) for each in (self.gumbel, self.monotone))
        )
        shown = frame.head(_SHOWN).dropna(axis=1, how="all")
        more = f"\n... and {len(frame) - _SHOWN} more lines: to_frame()" if len(frame) > _SHOWN else ""
        return (
            f"{self.do} under two couplings of {', '.join(self.nodes)}, {samples:,} draws a row "
            f"(standard error of a probability up to {error:.2g})\n"
            f"{shown.to_string(float_format='{:.3g}'.format, na_rep='')}{more}\n"
            f"largest difference of a probability: {self.largest_difference:.2g}"
        )

    def _draws(self, node: str) -> list[Tensor]:
        """(S, B, parts) under each coupling, in canonical encoding."""
        return [each.draws(node).cpu()[..., None].flatten(2) for each in (self.gumbel, self.monotone)]

    def _clustered_error(self, cf: Counterfactual) -> float:
        """Largest standard error of a probability where draws are copies of fewer particles; 0 where not."""
        lineages = [each.cpu().numpy() for each in cf.lineages]
        errors = [0.0]
        for node in self.nodes if lineages else ():
            variable = cf.variables[node]
            assert isinstance(variable, Categorical)
            taken = np.eye(variable.size)[cf.draws(node).cpu().numpy()]
            errors.append(np.nanmax(individual_means(taken, False, lineages)[1], initial=0.0))
        return max(errors)

    def _lines(self, node: str) -> Iterator[tuple[Any, ...]]:
        variable, cf = self.gumbel.variables[node], self.gumbel
        names = range(cf.rows) if cf.index is None else list(cf.index)
        pair = self._draws(node)
        if isinstance(variable, Categorical):
            shares = [_shares(draws, variable) for draws in pair]
            unknown = np.full((variable.size, cf.rows), np.nan)
            low, high = self.bounds.get(node, (unknown, unknown))
            labels = variable.labels or range(variable.size)
            for row, name in enumerate(names):
                for code, label in enumerate(labels):
                    of_each = [share[code, row] for share in shares]
                    ends = low[code, row], high[code, row]
                    if max(*of_each, np.nan_to_num(ends[1])) > 0:
                        yield node, name, str(label), *of_each, np.nan, np.nan, *ends
            return
        means, spreads = ([f(draws.double(), 0) for draws in pair] for f in (torch.mean, torch.std))
        for part, name in enumerate(number_names(node, variable, cf.variables)):
            for row, index in enumerate(names):
                figures = [each[row, part].item() for each in (*means, *spreads)]
                yield name, index, "", *figures, np.nan, np.nan


def coupling_sensitivity(
    scm: CausalModel,
    evidence: Evidence,
    do: Mapping[str, Any],
    *,
    targets: Iterable[str] | None = None,
    num_samples: int = 1000,
    seed: int | None = None,
    clip: bool = False,
) -> CouplingSensitivity:
    """How a counterfactual depends on the coupling of its categories, which no data can tell.

    The same question, as for ``counterfactual``, is asked with ``coupling: gumbel`` and ``coupling:
    monotone`` in every categorical mechanism that is recomputed, with the same fitted law, and at least 2
    draws a row; see the module. Targets are the nodes to report, all where None: the categories, and the
    tabular nodes downstream.

    Returns:
        Both answers side by side, with sharp bounds over all couplings where evidence gives them.

    Raises:
        MechanismError: no categorical mechanism is recomputed, so that none bears on the answer.
        UnknownNameError, InterventionError: as for ``counterfactual``.
    """
    world, variables = scm._world, scm._variables
    num_samples = whole_number(num_samples, "coupling_sensitivity: num_samples, draws a row,", least=2)
    world.refuse_natural("evidence does", "Ask")
    with extrapolation_expected():  # the answers warn of it
        read = named_worlds(do, None)["do"]
        read = interventions(read, world.graph, variables, world.mechanisms, clip=clip)
    after = act(replace(world, touched=frozenset()), read)
    # Among them is the natural half of a node that a function of it sets.
    recomputed = [
        node
        for node in after.graph.descendants(do) - after.touched
        if "coupling" in type(after.mechanisms[node].spec).model_fields
    ]
    wanted = check_targets(targets, variables)
    tables = [node for node in wanted if not isinstance(variables[node], Image)]
    affected = after.graph.descendants(recomputed) if recomputed else frozenset()
    shown = tuple(node for node in tables if node in affected)
    if not shown:
        among = "" if targets is None else f" at or above {', '.join(map(repr, wanted))}"
        raise MechanismError(
            f"do({', '.join(do)}) recomputes no node of mechanism 'categorical'{among}, so no coupling of "
            "categories bears on the answer: ask counterfactual."
        )
    bearing = {after.origin(node) for node in after.graph.ancestors(shown).intersection(recomputed)}
    coupled = [node for node in variables if node in bearing]
    asked = {*shown, *coupled, *(name for node in coupled for name in world.graph.parents(node))}
    seed = chosen_seed(seed)

    def answer(coupling: str) -> Counterfactual:
        changed = {
            node: with_options(node, world.mechanisms[node], {"coupling": coupling}) for node in coupled
        }
        other = replace(world, mechanisms={**world.mechanisms, **changed})
        abduction = Abduction(other, variables, evidence, num_samples=num_samples, seed=seed)
        return abduction.counterfactual(do, targets=asked, clip=clip)

    gumbel, monotone = map(answer, _COUPLINGS)
    free = [node for node in coupled if node not in do]  # of the others a function has the last word
    bounds = {node: frechet_bounds(world.mechanisms[node], node, gumbel) for node in free}
    said = ", ".join(f"{node} = {text}" for node, text in gumbel.do.items())
    return CouplingSensitivity(f"do({said})", tuple(coupled), gumbel, monotone, bounds, shown)


@torch.no_grad()
def frechet_bounds(
    mechanism: Mechanism, node: str, cf: Counterfactual
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Least and largest probability of each category of a node under ``do``, (K, B) each.

    NaN where the node or a parent was not observed, or a parent's value under ``do`` is not determined. A
    row that was copied keeps its category for certain.
    """
    variable = mechanism.variable
    assert isinstance(variable, Categorical)
    before = {name: cf.factual_canonical(name)[: cf.rows] for name in mechanism.parents}
    after = {name: cf.draws(name)[0] for name in mechanism.parents}
    seen = cf.factual_canonical(node)[: cf.rows]
    old, new = (_probabilities(mechanism, variable.size, parents, seen) for parents in (before, after))
    own = old.gather(0, seen[None])
    low = (new + own - 1).clamp(min=0) / own
    high = torch.minimum(new, own) / own
    same = torch.nn.functional.one_hot(seen, variable.size).T.to(low)
    copied = torch.from_numpy(cf.provenance[node] == "copied").to(seen.device)
    sources, determined = cf.sources, cf.determined
    known = np.all([sources[name] == "observed" for name in (node, *mechanism.parents)], axis=0)
    known &= np.all([determined[name] for name in mechanism.parents], axis=0)
    found = (torch.where(copied, same, each).cpu().numpy() for each in (low, high))
    low, high = (np.where(known, each, np.nan) for each in found)
    return low, high


def _probabilities(
    mechanism: Mechanism, categories: int, parents: Mapping[str, Tensor], like: Tensor
) -> Tensor:
    """(K, B) of each category given parents of B rows."""
    found = [mechanism.log_prob(torch.full_like(like, code), parents) for code in range(categories)]
    return torch.stack([each.double().exp() for each in found if each is not None])


def _shares(draws: Tensor, variable: Variable) -> NDArray[np.float64]:
    """(K, B) how often each category occurs among draws, (S, B, 1)."""
    assert isinstance(variable, Categorical)
    return torch.stack([(draws[..., 0] == code).double().mean(0) for code in range(variable.size)]).numpy()
