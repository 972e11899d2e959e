"""Simulation-based calibration: are abducted noise and inferred values draws of their posterior?

Rows of which everything is known are drawn from the model itself; some nodes are hidden, and the rest is
abducted with S draws. If the draws follow the posterior, the rank of the true value among them is uniform on
0..S, for every unknown of every row (Talts, Betancourt, Simpson, Vehtari & Gelman 2018, "Validating Bayesian
inference algorithms with simulation-based calibration"). Draws from the prior pass that as well, so ranks
are counted from above in rows where an observed node is above its median, from below in the others, too: a
quantity of unknowns and data (Modrak, Moon, Kim, Burkner, Huurre, Faltejskova, Gelman & Vehtari 2023,
"Simulation-based calibration checking for Bayesian computation: the choice of test quantities shapes
sensitivity"). Ranks are compared with the uniform law by Pearson's chi-squared test, all of them together at
one level (Holm 1979).

It finds evidence that counts twice or not at all, proposals without weights, draws that repeat. It cannot see
what is wrong with the model itself: the rows are the model's own.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from causalgen.arguments import check_targets
from causalgen.counterfactuals.abduction import Abduction
from causalgen.counterfactuals.mutilated_model import MutilatedModel, ready
from causalgen.counterfactuals.rows import generate_rows
from graphs.errors import EvidenceError, InterventionError
from graphs.variables import Variable
from mechanisms.base import Noise
from mechanisms.seeds import keyed_generator

__all__ = ["Calibration", "calibrate"]

_ROUNDING = 1e-9
"""How far apart rounding may put equal values, in parts of their spread."""
_COMPONENTS = 16
"""Components of a vector or an image that are looked at."""


@dataclass(frozen=True)
class Calibration:
    """How the ranks of true values are spread among their draws. ``print`` shows it."""

    # Of each unknown: ``z`` is a hidden node, ``y.u`` the noise leaf u of node y; a component of a vector has
    # its number in brackets; ``z by y`` counts by where the observed y is
    p_values: Mapping[str, float]
    counts: Mapping[str, tuple[int, ...]]  # how many rows had each rank, (S + 1,), by unknown
    level: float  # at which all tests together reject

    @property
    def rejected(self) -> tuple[str, ...]:
        """The unknowns whose draws do not follow the posterior, by Holm's method; empty where all do."""
        found: list[str] = []
        ordered = sorted(self.p_values.items(), key=lambda item: item[1])
        for place, (name, p_value) in enumerate(ordered):
            if p_value > self.level / (len(ordered) - place):
                break
            found.append(name)
        return tuple(found)

    @property
    def ok(self) -> bool:
        """Whether no unknown is rejected."""
        return not self.rejected

    def __repr__(self) -> str:
        """A line for each unknown."""
        rejected = self.rejected
        lines = [
            f"  {name}: p = {p_value:.3g}{'  not calibrated' if name in rejected else ''}"
            for name, p_value in self.p_values.items()
        ]
        return "\n".join([f"Calibration {'ok' if self.ok else 'FAILED'} (level {self.level:g})", *lines])


def calibrate(
    world: MutilatedModel,
    variables: Mapping[str, Variable],
    hidden: Iterable[str] = (),
    *,
    rows: int = 640,
    draws: int = 15,
    seed: int = 0,
    level: float = 0.01,
    particles: int = 4096,
) -> Calibration:
    """Test a fitted model's abduction, and its inference of hidden nodes, on simulated rows with S draws.

    Nothing ``hidden`` tests the mechanisms' abductions by themselves. ``level`` is the false-alarm rate of
    all tests together, ``particles`` are as for ``scm.abduct``; the same seed gives the same result.

    Raises:
        EvidenceError: nothing is unknown: every abduction is exact and nothing is hidden, or everything is
            hidden.
        UnknownNameError: a hidden node that the model lacks.
        InterventionError: the model was intervened on by a function.
    """
    lacking = set(check_targets(hidden, variables))
    if len(lacking) == len(variables):
        raise EvidenceError("hidden leaves no evidence. Name some of the nodes.")
    if set(world.graph.nodes) != set(variables):
        raise InterventionError("The model was intervened on by a function. Test the model before.")
    noise, values = _simulate(world, rows, seed)
    evidence = {node: variables[node].decode(value) for node, value in values.items() if node not in lacking}
    ab = Abduction(world, variables, evidence, num_samples=draws, seed=seed, particles=particles)
    inferred = ab.counterfactual({}, targets=sorted(lacking)) if lacking else None
    drawn = {node: inferred.canonical(node) for node in sorted(lacking)} if inferred else {}
    counts: dict[str, tuple[int, ...]] = {}
    generator = keyed_generator(seed, "calibration", "ties")
    unknown = [(node, values[node], each) for node, each in drawn.items()]
    unknown += list(_noises(world, noise, ab, lacking))
    above = {
        node: value > value.median()
        for node, value in values.items()
        if node not in lacking and not variables[node].event_shape
    }
    for name, truth, found in unknown:
        if len(found) != draws * rows:
            continue
        for component, ranks in _ranks(name, truth, found, draws, generator).items():
            counts[component] = _counts(ranks, draws)
            for node, mask in above.items():
                flipped = torch.where(mask.cpu(), draws - ranks, ranks)
                counts[f"{component} by {node}"] = _counts(flipped, draws)
    if not counts:
        raise EvidenceError(
            "Nothing is unknown: every mechanism's abduction is exact. Hide a node, as in hidden=['x']."
        )
    return Calibration({name: _p_value(each) for name, each in counts.items()}, counts, level)


@torch.no_grad()
def _simulate(world: MutilatedModel, rows: int, seed: int) -> tuple[dict[str, Noise], dict[str, Tensor]]:
    """Noise and values of every node, drawn from the model."""
    noise: dict[str, Noise] = {}
    values: dict[str, Tensor] = {}
    for node in world.graph.nodes:
        mechanism = ready(world, node)
        generator = keyed_generator(seed, "calibration", node, device=mechanism.device)
        noise[node] = mechanism.sample_noise(rows, generator=generator)
        parents = {name: values[name] for name in world.graph.parents(node)}
        values[node] = generate_rows(mechanism, node, parents, noise[node])
    return noise, values


def _noises(
    world: MutilatedModel, noise: Mapping[str, Noise], abduction: Abduction, lacking: set[str]
) -> Iterator[tuple[str, Tensor, Tensor]]:
    """Every noise leaf that evidence leaves open: its name, the true values, and the draws."""
    for node in world.graph.nodes:
        mechanism, family = world.mechanisms[node], {node, *world.graph.parents(node)}
        if mechanism.abduction == "none" or (mechanism.deterministic and not family & lacking):
            continue
        found = abduction.noise_of(node)
        for name, leaf in noise[node].items():
            # What does not vary in the prior, as residuals of a solver, is no random variable.
            if bool((leaf != leaf[:1]).any()):
                yield f"{node}.{name}", leaf, found[name]


def _ranks(
    name: str, truth: Tensor, found: Tensor, draws: int, generator: torch.Generator
) -> dict[str, Tensor]:
    """The rank of each row's true value, (rows,) in 0..S, by component; ties are broken at random."""
    rows = len(truth)
    columns = truth.reshape(rows, -1)[:, :_COMPONENTS].double().cpu()
    samples = found.reshape(draws, rows, -1)[:, :, :_COMPONENTS].double().cpu()
    # A noise that the evidence determines comes back up to rounding.
    spread = (columns - columns.median(0).values).abs().amax(0)
    rounding = 64 * torch.finfo(columns.dtype).eps * columns.abs().amax(0)
    tied = (samples - columns).abs() <= torch.maximum(_ROUNDING * spread, rounding)
    below, ties = ((samples < columns) & ~tied).sum(0), tied.sum(0)
    random = torch.rand(ties.shape, generator=generator, dtype=torch.float64)
    ranks = below + (random * (ties + 1)).floor().long()
    width = columns.shape[1]
    return {name if width == 1 else f"{name}[{k}]": ranks[:, k] for k in range(width)}


def _counts(ranks: Tensor, draws: int) -> tuple[int, ...]:
    return tuple(torch.bincount(ranks, minlength=draws + 1).tolist())


def _p_value(counts: tuple[int, ...]) -> float:
    """Pearson's test of equal probabilities."""
    observed = torch.tensor(counts, dtype=torch.float64)
    expected = observed.sum() / len(observed)
    statistic = ((observed - expected) ** 2 / expected).sum()
    freedom = torch.tensor((len(counts) - 1) / 2, dtype=torch.float64)
    return float(torch.special.gammaincc(freedom, statistic / 2))
