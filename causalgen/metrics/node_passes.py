"""Null interventions on one node: abduct its noise and generate the value again, under given parents.

Nothing is copied here, whatever the parents: copying makes the axioms hold for any mechanism, even a bad one.
Between two passes a value takes the form in which a user would hold it and give it back as evidence (images
in [0, 1], numbers within their bounds), so that nothing is carried from one pass to the next.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from causalgen.counterfactuals.engine import abduct
from causalgen.counterfactuals.mutilated_model import MutilatedModel, ready
from causalgen.counterfactuals.rows import generate_rows
from graphs.errors import DataError, MechanismError, UnknownNameError
from mechanisms.base import Noise
from mechanisms.seeds import keyed_seed

if TYPE_CHECKING:
    from causalgen.scm import SCM

__all__ = ["BATCH_ROWS", "NodePasses", "batches", "brings_back"]

BATCH_ROWS = 64
"""Rows whose noise is held at once: with step residuals an image's noise is many images. And few enough that
workers find several batches to share."""


def brings_back(scm: SCM, node: str) -> str:
    """What of a node's noise brings its image back: step residuals, which make a null exact, or shrinkage."""
    spec = _mechanism_spec(scm, node)
    if getattr(getattr(spec, "solver", None), "residuals", False):
        return "residuals"
    return "shrinkage" if getattr(spec, "shrinkage", 0) else ""


class NodePasses:
    """Passes through one node's mechanism; the seed is of what abduction draws.

    ``residuals=False`` leaves out what brings images back, step residuals and shrinkage; True puts residuals
    in; None leaves the node as it is.

    Raises:
        UnknownNameError: no such node.
        MechanismError: ``residuals`` for a mechanism whose solver knows none.
        NotFittedError: the mechanism has not been fitted.
        InterventionError: the node was intervened on by a function of its natural value.
    """

    def __init__(self, scm: SCM, node: str, *, residuals: bool | None = None, seed: int = 0) -> None:
        spec = _mechanism_spec(scm, node)
        if residuals is not None:
            shrinks = getattr(spec, "shrinkage", 0)
            residual = hasattr(getattr(spec, "solver", None), "residuals")
            if not residual and (residuals or not shrinks):
                raise MechanismError(
                    f"Node {node!r}: residuals are an option of the solver 'anchored' of diffusion nodes, "
                    f"and this node is {spec.kind!r}. Leave residuals=None."
                )
            if residual:
                scm = scm.with_options(node, solver={"residuals": residuals})
            if shrinks and not residuals:
                scm = scm.with_options(node, shrinkage=0.0)
        if not scm.variables.keys() >= set(scm.graph.parents(node)):
            scm._world.refuse_natural("evidence does", "Measure")
        self.node, self.variable = node, scm.variables[node]
        self.parents = {name: scm.variables[name] for name in scm.graph.parents(node)}
        self._world = MutilatedModel(scm.graph, scm.mechanisms)
        self._mechanism, self._device, self._seed = ready(self._world, node), scm.device, seed

    def read(self, evidence: Mapping[str, Any]) -> dict[str, Tensor]:
        """The node and its parents, checked and canonical, (B, *event) each.

        Raises:
            DataError: a column is missing, or there are no rows, or different numbers of them.
            DomainError: a value outside its variable's domain.
        """
        return self._encode({self.node: self.variable, **self.parents}, evidence, "Evidence")

    def read_parents(self, values: Mapping[str, Any]) -> dict[str, Tensor]:
        """Values of some parents, canonical.

        Raises:
            UnknownNameError: a name that is no parent.
            DomainError: a value outside its variable's domain.
        """
        for name in values:
            UnknownNameError.check(f"parent of {self.node!r}", name, self.parents, where="do")
        return self._encode({name: self.parents[name] for name in values}, values, "do")

    def abduct(self, value: Tensor, parents: Mapping[str, Tensor], *, block: int = 0, turn: int = 0) -> Noise:
        """Noise of N rows.

        ``block`` numbers the batch and ``turn`` its abductions, so that each draws noise of its own: one that
        drew what the last one drew would carry it over.
        """
        seed = keyed_seed(self._seed, "metrics", block, turn)
        values = {self.node: value, **{name: parents[name] for name in self.parents}}
        return abduct(self._world, values, [self.node], samples=1, seed=seed)[self.node].noise

    @torch.no_grad()
    def generate(self, parents: Mapping[str, Tensor], noise: Noise) -> Tensor:
        """The node's value in the form a user would give back, canonical again, (N, *event)."""
        # A mechanism without parents cannot tell the number of rows from them.
        given = {name: parents[name] for name in self.parents}
        held = self.variable.decode(generate_rows(self._mechanism, self.node, given, noise))
        encoded = self.variable.encode_clipped(held, where=f"Node {self.node!r}")
        return torch.as_tensor(encoded, device=self._device)

    def held(self, value: Tensor) -> Any:
        """A canonical value in the user's form."""
        return self.variable.decode(value.cpu())

    def _encode(
        self, variables: Mapping[str, Any], given: Mapping[str, Any], where: str
    ) -> dict[str, Tensor]:
        missing = [name for name in variables if name not in given]
        if missing:
            raise DataError(
                f"{where} lacks {', '.join(map(repr, missing))}: a metric of node {self.node!r} needs the "
                f"node and all its parents ({', '.join(self.parents) or 'none'})."
            )
        encoded: dict[str, Tensor] = {}
        for name, variable in variables.items():
            values = variable.encode(given[name], where=f"{where} {name!r}")
            encoded[name] = torch.as_tensor(values, device=self._device)
        counts = {name: len(value) for name, value in encoded.items()}
        if 0 in counts.values():
            raise DataError(f"{where} has no rows: an empty selection has no metric.")
        most = max(counts.values(), default=1)
        if any(count not in (1, most) for count in counts.values()):
            raise DataError(f"{where}: columns have different numbers of rows: {counts}.")
        return {name: value.expand(most, *value.shape[1:]) for name, value in encoded.items()}


def batches(rows: int) -> Iterator[tuple[int, slice]]:
    """Numbered slices of at most ``BATCH_ROWS`` rows."""
    size = BATCH_ROWS
    return ((start // size, slice(start, min(start + size, rows))) for start in range(0, rows, size))


def _mechanism_spec(scm: SCM, node: str) -> Any:
    UnknownNameError.check("node", node, scm.variables)
    return scm.mechanisms[node].spec
