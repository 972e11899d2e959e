"""Missing values in evidence: each is drawn from its posterior given what was observed, never imputed.

Rows are grouped by pattern, that is by which nodes they lack. In each pattern the missing nodes fall into
blocks (``causalgen.counterfactuals.missing_evidence.blocks``), solved by the first method that can:

    linear_gaussian   numbers, affine with normal noise: exact
    mixed             few values, and numbers affine given these with normal noise: exact
    particles         anything whose observed children have a density

Nodes in no block are drawn from their mechanisms, given their parents. Values drawn have S * B rows,
sample-major, observed ones B.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from causalgen.counterfactuals.missing_evidence.blocks import (
    Block,
    Pattern,
    Problem,
    find_blocks,
    find_patterns,
    refuse_impossible,
    tell_surprise,
)
from causalgen.counterfactuals.missing_evidence.distributions import (
    CategoryPosterior,
    GaussianPosterior,
    MixturePosterior,
    Posterior,
    SamplePosterior,
)
from causalgen.counterfactuals.missing_evidence.linear_gaussian import Gaussian, solve_gaussian
from causalgen.counterfactuals.missing_evidence.mixed import (
    Mixed,
    draw_mixed,
    joined,
    mixture_of,
    solve_mixed,
)
from causalgen.counterfactuals.missing_evidence.particles import clouds, resample, warn_of_few_particles
from causalgen.counterfactuals.mutilated_model import MutilatedModel, ready
from causalgen.counterfactuals.rows import broadcast_rows, by_sample, generate_rows, prior_noise
from graphs.errors import numbered_rows
from graphs.variables import Continuous, Image
from mechanisms.base import Noise
from mechanisms.rows import by_row, repeat_rows
from mechanisms.seeds import OwnLock, keyed_generator, normals, uniforms

__all__ = ["EvidencePosterior"]


@dataclass
class _Drawn:
    """S draws of one block in one pattern: values (S * n, *event), and noise where it is known."""

    values: Mapping[str, Tensor]
    noise: Mapping[str, Noise] = field(default_factory=dict)


class EvidencePosterior:
    """Evidence, completed; ``missing`` are the nodes with missing values, and in which rows, (B,) bool."""

    def __init__(
        self,
        world: MutilatedModel,
        values: Mapping[str, Tensor],
        missing: Mapping[str, Tensor],
        *,
        rows: int,
        samples: int,
        seed: int,
        particles: int,
    ) -> None:
        """Made by ``scm.abduct``: values (B, *event) by node, and which rows are missing, (B,) bool.

        Whatever stands in missing rows is not read; a node in neither has no value at all.
        """
        self._world, self._rows, self._samples, self._seed = world, rows, samples, seed
        self._particles, self._lock = max(particles, samples), OwnLock()
        device = next(iter(world.mechanisms.values())).device
        self._device = device
        self._values = dict(values)
        absent = {
            node: torch.ones(rows, dtype=torch.bool, device=device)
            for node in world.graph.nodes
            if node not in values
        }
        self.missing = {**missing, **absent}
        self._fill_constants()
        self._computed = self._find_computed()
        self._patterns = find_patterns(world.graph, self.missing)
        self._complete: set[str] = set()
        self._drawn: dict[tuple[frozenset[str], Block], _Drawn] = {}
        self._noise: dict[str, list[tuple[Tensor, Noise]]] = {}
        self._lineages: dict[str, Tensor] = {}
        self._effective = torch.tensor(torch.inf, dtype=torch.float64, device=device).expand(rows)

    def values(self, nodes: Iterable[str]) -> dict[str, Tensor]:
        """Values of some nodes, (B, *event) where all rows were observed, else (S * B, *event)."""
        asked = list(nodes)
        with self._lock:
            for node in self._in_order(asked):
                self._draw(node)
            return {node: self._values[node] for node in asked}

    def observed(self, nodes: Iterable[str]) -> dict[str, Tensor]:
        """Values of some nodes as they were observed, (B, *event); anything in rows that lack them."""
        return {node: self._observed(node) for node in nodes}

    def noise(self, node: str) -> list[tuple[Tensor, Noise]]:
        """Noise by which missing values were drawn: which of the S * B rows, and the noise of these."""
        self.values([node])
        return self._noise.get(node, [])

    def lineage(self, node: str) -> Tensor | None:
        """(S, B) which particle each draw of a missing node is; None where its draws are independent."""
        self.values([node])
        return self._lineages.get(node)

    def sources(self, node: str) -> dict[str, Tensor]:
        """In which rows, (B,) bool, a node's value is "inferred", and in which drawn from its "prior".

        And in which it is "exact", the same in each draw: it has no noise, and its parents are known.
        """
        found = {how: torch.zeros(self._rows, dtype=torch.bool) for how in ("exact", "inferred", "prior")}
        for pattern in self._patterns:
            if node in pattern.missing:
                found["inferred" if node in pattern.blocks else "prior"][pattern.rows.cpu()] = True
        if node in self._computed:
            found["exact"] |= self._computed[node].cpu()
            for how in ("inferred", "prior"):
                found[how] &= ~found["exact"]
        return found

    @property
    def effective_sample_size(self) -> Tensor:
        """(B,) the least over blocks that particles inferred; infinite where inference is exact."""
        self.values(node for pattern in self._patterns for node in pattern.blocks)
        return self._effective

    def posterior(self, node: str) -> Posterior:
        """A node's own distribution given the evidence: exact where one form serves all rows, else draws."""
        patterns = [pattern for pattern in self._patterns if node in pattern.missing]
        exact = [self._marginal(pattern, node) for pattern in patterns]
        variable = self._world.mechanisms[node].variable
        numbers = [each for each in exact if isinstance(each, GaussianPosterior | MixturePosterior)]
        if isinstance(variable, Continuous) and len(numbers) == len(exact):
            parts = [(pattern.rows, each) for pattern, each in zip(patterns, numbers, strict=True)]
            found = mixture_of(self._observed(node), parts)
            single = all(isinstance(each, GaussianPosterior) for each in numbers)
            return GaussianPosterior(found.means[0], found.covariances[0]) if single else found
        support = self._world.mechanisms[node].support()
        if support is not None and all(isinstance(each, CategoryPosterior) for each in exact):
            support = support.to(self._device)
            one_hot = (self._observed(node)[:, None] == support).double()
            for pattern, each in zip(patterns, exact, strict=True):
                assert isinstance(each, CategoryPosterior)
                one_hot[pattern.rows] = each.probabilities
            return CategoryPosterior(one_hot, support)
        if isinstance(variable, Image):
            draws = by_sample(self.values([node])[node], self._samples, self._rows).clone()
            return SamplePosterior(draws, torch.full(draws.shape[:2], 1 / self._samples).double())
        return self._weighted(patterns, exact, node)

    def _weighted(
        self, patterns: list[Pattern], exact: Sequence[Posterior | None], node: str
    ) -> SamplePosterior:
        """Exact draws, or else particles, of the rows that lack the node; the value of the others."""
        particles, observed = self._particles, self._observed(node)
        values = repeat_rows(observed[None], particles)
        weights = observed.new_full((particles, self._rows), 1 / particles, dtype=torch.float64)
        for pattern, known in zip(patterns, exact, strict=True):
            block = self._block(pattern, node)
            problem = self._problem(pattern, block)
            drawn = None if known is None else self._draw_exactly(problem, pattern, block, particles)
            if drawn is not None:
                values[:, pattern.rows] = by_sample(drawn[node], particles, len(pattern.rows))
                continue
            effective: list[Tensor] = []
            for rows, cloud in clouds(problem, particles):
                where = pattern.rows[rows]
                values[:, where] = cloud.values[node].reshape(particles, len(where), *observed.shape[1:])
                weights[:, where] = cloud.weights
                effective.append(cloud.effective)
            warn_of_few_particles(torch.cat(effective), particles, problem)
        return SamplePosterior(values, weights)

    def _marginal(
        self, pattern: Pattern, node: str
    ) -> GaussianPosterior | CategoryPosterior | MixturePosterior | None:
        block = self._block(pattern, node)
        problem = self._problem(pattern, block)
        if (gaussian := _possible_gaussian(problem)) is not None:
            return gaussian.marginal(node)
        mixed = _possible_mixed(problem)
        return None if mixed is None else joined([part.marginal(node) for _, part in mixed])

    def _block(self, pattern: Pattern, node: str) -> Block:
        """The block of a missing node; where it has no observed descendants, with its missing ancestors."""
        found = find_blocks(self._world.graph, pattern.missing, keep=(node,))
        return next(block for block in found if node in block.missing)

    def _draw(self, node: str) -> None:
        """Draw a node in every row that lacks it; its missing parents have been drawn."""
        if node in self._complete:
            return
        full = repeat_rows(self._observed(node), self._samples).clone()
        for pattern in self._patterns:
            if node in pattern.missing:
                index = self._index(pattern.rows)
                block = pattern.blocks.get(node)
                drawn = self._sample(node, index) if block is None else self._solve(pattern, block)
                full[index] = drawn.values[node].to(full)
                if node in drawn.noise:
                    self._noise.setdefault(node, []).append((index, drawn.noise[node]))
        self._values[node] = full
        self._complete.add(node)

    @torch.no_grad()
    def _sample(self, node: str, index: Tensor) -> _Drawn:
        """A node of no block, from its mechanism: (rows, *event) for some of the S * B rows."""
        n, mechanism = self._samples * self._rows, ready(self._world, node)
        parents = {
            name: broadcast_rows(self._values[name], n, self._rows)[index]
            for name in self._world.graph.parents(node)
        }
        noise = prior_noise(mechanism, node, n, self._seed, "missing").rows(index)
        with numbered_rows(index % self._rows):
            return _Drawn({node: generate_rows(mechanism, node, parents, noise)}, {node: noise})

    def _solve(self, pattern: Pattern, block: Block) -> _Drawn:
        """Joint draws of a block, kept for its other nodes."""
        key = (pattern.missing, block)
        if key not in self._drawn:
            problem = self._problem(pattern, block)
            exact = self._draw_exactly(problem, pattern, block, self._samples)
            if exact is not None:
                self._drawn[key] = _Drawn(exact)
            else:
                uniform = self._uniform(pattern, block, self._samples)[0]
                drawn = resample(problem, self._particles, self._samples, uniform)
                least = torch.minimum(self._effective[pattern.rows], drawn.effective)
                self._effective = self._effective.index_copy(0, pattern.rows, least)
                own = torch.arange(self._samples, device=self._device)[:, None].expand(-1, self._rows)
                for node in block.missing:
                    known = self._lineages.get(node, own)
                    self._lineages[node] = known.index_copy(1, pattern.rows, drawn.lineage.to(known))
                self._drawn[key] = _Drawn(drawn.values, drawn.noise)
        return self._drawn[key]

    def _draw_exactly(
        self, problem: Problem, pattern: Pattern, block: Block, samples: int
    ) -> Mapping[str, Tensor] | None:
        """S joint draws of a block whose posterior is exact, (S * n, *event) by node; else None."""
        if (gaussian := _possible_gaussian(problem)) is not None:
            return gaussian.draw(self._standard(pattern, block, samples, gaussian.mean.shape[1]))
        if (mixed := _possible_mixed(problem, samples)) is None:
            return None
        numbers = mixed[0][1].gaussian
        standard = self._standard(pattern, block, samples, 0 if numbers is None else numbers.mean.shape[1])
        uniform = self._uniform(pattern, block, samples, "inferred" if numbers is None else "choice")
        return draw_mixed(mixed, uniform, standard)

    def _problem(self, pattern: Pattern, block: Block) -> Problem:
        graph = self._world.graph
        read = {name for node in block.factors for name in (node, *graph.parents(node))} - pattern.missing
        known = {name: self._values[name] for name in graph.nodes if name in read}
        # A node drawn in other rows by now has S * B of them; its observed rows are the same in every sample.
        known = {name: value[: self._rows][pattern.rows] for name, value in known.items()}
        return Problem(self._world, block, known, pattern.rows, self._seed)

    def _standard(self, pattern: Pattern, block: Block, samples: int, width: int) -> Tensor:
        return normals((samples, self._rows, width), self._generator(block))[:, pattern.rows]

    def _uniform(self, pattern: Pattern, block: Block, samples: int, purpose: str = "inferred") -> Tensor:
        return uniforms((samples, self._rows), self._generator(block, purpose))[:, pattern.rows]

    def _generator(self, block: Block, purpose: str = "inferred") -> torch.Generator:
        return keyed_generator(self._seed, purpose, *block.missing, device=self._device)

    def _observed(self, node: str) -> Tensor:
        """(B, *event): the value where it was observed, anything elsewhere."""
        if node in self._values:
            return self._values[node][: self._rows]
        variable = self._world.mechanisms[node].variable
        dtype = getattr(torch, variable.dtype)
        return torch.zeros(self._rows, *variable.event_shape, dtype=dtype, device=self._device)

    def _index(self, rows: Tensor) -> Tensor:
        """(S * n,) where these rows are among S * B."""
        return (torch.arange(self._samples, device=rows.device)[:, None] * self._rows + rows).flatten()

    def _in_order(self, nodes: Iterable[str]) -> list[str]:
        """The missing nodes that must be drawn for some, parents first."""
        graph, needed, stack = self._world.graph, set[str](), list(nodes)
        while stack:
            node = stack.pop()
            if node in self.missing and node not in needed:
                needed.add(node)
                stack.extend(graph.parents(node))
        return [node for node in graph.nodes if node in needed] if needed else []

    def _without_noise(self, node: str) -> bool:
        mechanism, generator = self._world.mechanisms[node], torch.Generator(self._device).manual_seed(0)
        if not (mechanism.fitted and mechanism.deterministic):
            return False
        return not mechanism.sample_noise(1, generator=generator).leaves

    def _find_computed(self) -> dict[str, Tensor]:
        """Missing nodes without noise, and the rows, (B,), in which their parents are known, and so they."""
        found: dict[str, Tensor] = {}
        for node in self._world.graph.nodes:
            if node in self.missing and self._without_noise(node):
                rows = self.missing[node]
                for name in self._world.graph.parents(node):
                    lacking = self.missing.get(name, torch.zeros_like(rows))
                    rows = rows & ~(lacking & ~found.get(name, torch.zeros_like(rows)))
                found[node] = rows
        return found

    @torch.no_grad()
    def _fill_constants(self) -> None:
        """A missing root without noise is known: what an earlier ``scm.do`` set it to."""
        for node in [node for node in self.missing if not self._world.graph.parents(node)]:
            if self._without_noise(node):
                value = generate_rows(self._world.mechanisms[node], node, {}, Noise(self._rows))
                mask = by_row(self.missing.pop(node), value)
                self._values[node] = torch.where(mask, value, self._observed(node))


def _possible_gaussian(problem: Problem) -> Gaussian | None:
    """The exact normal posterior; evidence that it excludes is refused."""
    found = solve_gaussian(problem)
    if found is not None:
        refuse_impossible(found.log_evidence, problem.rows, problem.block.missing)
        tell_surprise(found.surprise, problem)
    return found


def _possible_mixed(problem: Problem, samples: int = 1) -> list[tuple[slice, Mixed]] | None:
    """The exact mixture, as ``solve_mixed`` gives it; evidence that it as good as excludes is told."""
    found = solve_mixed(problem, samples)
    if found is not None:
        tell_surprise(torch.cat([part.surprise for _, part in found]), problem)
    return found
