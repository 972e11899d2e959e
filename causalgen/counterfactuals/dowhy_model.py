"""An SCM as a ``dowhy.gcm`` model, for DoWhy's own questions: attribution, anomalies, arrow strengths.

Every mechanism is wrapped, not fitted again: DoWhy's samples and interventions draw from it. Where the noise
of each node with parents is one number that abduction finds exactly, the model is DoWhy's invertible one, and
its counterfactuals are ours; otherwise it is a probabilistic one, without them.

DoWhy draws from numpy's global random state (``dowhy.gcm.util.general.set_random_seed``), and so does what is
wrapped.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from causalgen.counterfactuals.mutilated_model import refuse_unfitted
from causalgen.saving.declaration import DeclaredModel
from graphs.errors import MechanismError
from graphs.variables.numeric import unbounded
from mechanisms.base import Mechanism, Noise

__all__ = ["to_dowhy"]


def to_dowhy(self: DeclaredModel) -> Any:
    """The model as a ``dowhy.gcm`` model of the same graph, fitted; a method of ``SCM``.

    Columns are as ``to_frame`` gives them: numbers in data units, labels, codes. The mechanisms are shared,
    and ``dowhy.gcm.fit`` refuses them: fit the SCM.

    Args:
        self: the model; every node is one number or one category.

    Returns:
        ``InvertibleStructuralCausalModel`` where its counterfactuals are those of this model, else
        ``ProbabilisticCausalModel``; see ``causalgen.counterfactuals.dowhy_model``.

    Raises:
        MechanismError: an image or a vector, which DoWhy's columns cannot carry; or DoWhy is not installed.
        NotFittedError: a mechanism has not been fitted.
    """
    for node, mechanism in self.mechanisms.items():
        if mechanism.variable.event_shape:
            raise MechanismError(
                f"Node {node!r} ({mechanism.variable.describe()}) is more than one number, which DoWhy's "
                "columns cannot carry. Declare a model without it."
            )
    refuse_unfitted(self.mechanisms, "give to DoWhy")
    try:
        gcm: Any = import_module("dowhy.gcm")
        kinds: Any = import_module("dowhy.gcm.causal_mechanisms")
        fitted: str = import_module("dowhy.gcm.causal_models").PARENTS_DURING_FIT
        ordered: Any = import_module("dowhy.graph").get_ordered_predecessors
    except ImportError as error:
        raise MechanismError(
            f"to_dowhy needs DoWhy ({error}): in the checkout, pip install '.[dowhy]'."
        ) from error
    graph = self.graph.to_networkx()
    inner = [mechanism for node, mechanism in self.mechanisms.items() if self.graph.parents(node)]
    invertible = all(_leaf(mechanism) is not None for mechanism in inner)
    model = (gcm.InvertibleStructuralCausalModel if invertible else gcm.ProbabilisticCausalModel)(graph)
    root = type("Root", (_Wrapped, kinds.StochasticModel), {})
    some = kinds.InvertibleFunctionalCausalModel if invertible else kinds.ConditionalStochasticModel
    child = type("Child", (_Wrapped, some), {})
    for node, mechanism in self.mechanisms.items():
        parents: list[str] = ordered(graph, node)  # sorted, as its columns come
        model.set_causal_mechanism(node, (child if parents else root)(mechanism, parents))
        model.graph.nodes[node][fitted] = parents
    return model


class _Wrapped:
    """One mechanism as DoWhy calls it; rows are (n, 1), parents (n, number of parents)."""

    def __init__(self, mechanism: Mechanism, parents: list[str]) -> None:
        self._mechanism, self._parents = mechanism, parents

    def fit(self, X: Any = None, Y: Any = None) -> None:
        """Refuse."""
        raise MechanismError(
            "This model is causalgen's, and fitted. Fit the SCM, and call to_dowhy() again. What DoWhy fits "
            "anew does not take it: for distribution_change, fit an SCM to the old rows and one to the new, "
            "and ask distribution_change_of_graphs of both."
        )

    def clone(self) -> _Wrapped:
        """The same mechanism."""
        return type(self)(self._mechanism, self._parents)

    @torch.no_grad()
    def draw_samples(self, given: Any) -> NDArray[Any]:
        """Values of n roots, or of each row of parents."""
        n = len(given) if self._parents else int(given)
        noise = self._mechanism.sample_noise(n, generator=_generator())
        return self._shown(self._mechanism.generate(self._canonical(given), noise))

    def draw_noise_samples(self, num_samples: int) -> NDArray[np.float64]:
        """Draws of the noise."""
        return self._noise(self._mechanism.sample_noise(num_samples, generator=_generator()))

    @torch.no_grad()
    def evaluate(self, parent_samples: Any, noise_samples: Any) -> NDArray[Any]:
        """f(pa, u)."""
        u = torch.from_numpy(np.array(noise_samples, dtype=np.float64).reshape(-1))
        noise = Noise(len(u), {str(_leaf(self._mechanism)): u})
        return self._shown(self._mechanism.generate(self._canonical(parent_samples), noise))

    @torch.no_grad()
    def estimate_noise(self, target_samples: Any, parent_samples: Any) -> NDArray[np.float64]:
        """The u with f(pa, u) = x."""
        values = np.asarray(target_samples).reshape(-1)
        x = torch.from_numpy(np.array(self._mechanism.variable.encode(values, where="The target")))
        found = self._mechanism.abduct(x, self._canonical(parent_samples), generator=_generator())
        return self._noise(found.noise)

    def _canonical(self, rows: Any) -> dict[str, Tensor]:
        columns = {parent: np.asarray(rows)[:, index] for index, parent in enumerate(self._parents)}
        canonical: dict[str, Tensor] = {}
        for name, parent in self._mechanism.parents.items():
            encoded = unbounded(parent).encode(columns[name], where=f"Parent {name!r}")
            canonical[name] = torch.from_numpy(np.array(encoded))
        return canonical

    def _shown(self, values: Tensor) -> NDArray[Any]:
        return np.asarray(self._mechanism.variable.decode(values)).reshape(-1, 1)

    def _noise(self, noise: Noise) -> NDArray[np.float64]:
        return noise[str(_leaf(self._mechanism))].numpy().reshape(-1, 1)


def _leaf(mechanism: Mechanism) -> str | None:
    """The name of its noise, where that is one number that abduction finds exactly; else None."""
    if mechanism.abduction != "exact" or not mechanism.deterministic:
        return None
    leaves = dict(mechanism.sample_noise(2, generator=torch.Generator().manual_seed(0)).items())
    plain = [name for name, leaf in leaves.items() if leaf.shape == (2,) and leaf.dtype == torch.float64]
    return plain[0] if len(plain) == len(leaves) == 1 else None


def _generator() -> torch.Generator:
    return torch.Generator().manual_seed(int(np.random.randint(2**31)))
