"""An SCM as a Pyro program: one site a node, for Pyro's own conditioning, inference and prediction.

    with plate(n):  for each node x in topological order:
        x has a density    x ~ sample(x, p(x | pa))
        x has none         u ~ sample("x.leaf", p(u));  x = deterministic(x, f(pa, u))

Site values are numbers as users give them: data units, codes of categories, images in [0, 1]. A node without
a density, such as an image, cannot be conditioned on; its noise can. The density of a noise site is relative
to the noise's own law, log p = 0: importance weights are right, and gradients of it mean nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from typing import Any, final

import pyro
import torch
from pyro.distributions import TorchDistribution
from pyro.poutine.messenger import Messenger
from pyro.poutine.runtime import Message
from torch import Tensor
from torch.distributions import constraints

from causalgen.counterfactuals.mutilated_model import MutilatedModel, refuse_unfitted
from causalgen.counterfactuals.rows import generate_rows
from graphs.errors import DomainError, MechanismError, ShapeError
from graphs.variables import Categorical, Image, Integer, Variable
from mechanisms.base import Mechanism, Noise

__all__ = ["PyroModel"]


@final
class PyroModel:
    """The program: ``model(n)`` draws n rows and returns them by node. Made by ``scm.to_pyro()``.

    It is a snapshot: fitting the SCM again does not change it, and running it leaves Pyro's parameter store
    alone. It has one batch dimension, the rows, and none for enumeration or parallel samples.
    """

    def __init__(self, world: MutilatedModel) -> None:
        """Take the mechanisms as they are.

        Raises:
            NotFittedError: a mechanism has not been fitted.
        """
        self._graph = world.graph
        self._mechanisms: dict[str, Mechanism] = {}
        refuse_unfitted(world.mechanisms, "make a program of")
        for node in world.graph.nodes:
            mechanism = world.mechanisms[node]
            # Images are generated without gradients, and their networks may be too large for a copy.
            small = mechanism.variable.type != "image"
            self._mechanisms[node] = deepcopy(mechanism).requires_grad_(False) if small else mechanism

    def __call__(self, n: int = 1) -> dict[str, Tensor]:
        """Values by node, (n, *event), n >= 1.

        Raises:
            MechanismError: a node without a density is conditioned on.
            ShapeError: a site was given a value of another shape.
            DomainError: a site was given what is no category, no whole number or no image.
        """
        values: dict[str, Tensor] = {}
        canonical: dict[str, Tensor] = {}
        with pyro.plate("causalgen.rows", n, dim=-1):
            for node, mechanism in self._mechanisms.items():
                parents = {parent: canonical[parent] for parent in self._graph.parents(node)}
                law = _law(mechanism, parents, n)
                if law is not None:
                    value = pyro.sample(node, law)
                    canonical[node] = _canonical(node, mechanism.variable, value, n)
                else:
                    computed = _compute(node, mechanism, parents, n)
                    shown = _shown(mechanism.variable, computed)
                    with _RefuseConditioning(node, mechanism.spec.kind, shown):
                        value = pyro.deterministic(node, shown, event_dim=len(mechanism.variable.event_shape))
                    # Children see an image's own pixels unclamped, and what was set from outside encoded.
                    untouched = value is shown
                    canonical[node] = (
                        computed if untouched else _canonical(node, mechanism.variable, value, n)
                    )
                values[node] = value.expand(n, *mechanism.variable.event_shape)
        return values


def _law(mechanism: Mechanism, parents: Mapping[str, Tensor], n: int) -> TorchDistribution | None:
    """p(x | pa), batch shape (n,); None where there is no density."""
    law = mechanism.distribution(parents, n)
    if law is not None:
        return law
    with torch.no_grad():
        one = {name: value[:1] for name, value in parents.items()}
        has_density = mechanism.log_prob(_one_value(mechanism, one), one) is not None
    return _MechanismLaw(mechanism, parents, n) if has_density else None


def _one_value(mechanism: Mechanism, parents: Mapping[str, Tensor]) -> Tensor:
    """Some value, (1, *event): grey for an image, which takes long to draw."""
    if isinstance(mechanism.variable, Image):
        return torch.zeros(1, *mechanism.variable.event_shape, device=mechanism.device)
    generator = torch.Generator(mechanism.device).manual_seed(0)
    return mechanism.generate(parents, mechanism.sample_noise(1, generator=generator))


class _RefuseConditioning(Messenger):
    """Refuses a handler that conditions on a computed node; ``poutine.do`` renames the site, and may."""

    def __init__(self, node: str, kind: str, computed: Tensor) -> None:
        super().__init__()
        self.node, self.kind, self.computed = node, kind, computed

    def _pyro_post_sample(self, msg: Message) -> None:
        if msg.get("name") == self.node and msg.get("value") is not self.computed:
            raise MechanismError(
                f"Node {self.node!r} ({self.kind}) has no density, so it cannot be conditioned on. Ask "
                "scm.counterfactual, which recovers its noise, intervene by poutine.do, or leave it out."
            )


def _compute(node: str, mechanism: Mechanism, parents: Mapping[str, Tensor], n: int) -> Tensor:
    """x from its noise sites, (n, *event) in canonical encoding."""
    noise = mechanism.sample_noise(n, generator=_generator(mechanism))
    leaves = {name: pyro.sample(f"{node}.{name}", _DrawnNoise(leaf)) for name, leaf in noise.items()}
    with torch.no_grad():
        return generate_rows(mechanism, node, parents, Noise(n, leaves))


def _shown(variable: Variable, value: Tensor) -> Tensor:
    """In the form of the sites."""
    return ((value + 1) / 2).clamp(0, 1) if isinstance(variable, Image) else value


def _canonical(node: str, variable: Variable, value: Tensor, n: int) -> Tensor:
    """A site's value in canonical encoding, for the children."""
    shape = (n, *variable.event_shape)
    if tuple(value.shape) not in (shape, (1, *shape[1:]), shape[1:]):
        raise ShapeError(
            f"Site {node!r} has shape {tuple(value.shape)}, expected {shape}. This model has one batch "
            "dimension, the rows: no parallel Predictive, vectorised particles or enumeration."
        )
    value = value.expand(shape)
    _refuse_other(node, variable, value)
    if isinstance(variable, Image):
        value = value * 2 - 1
    return value.to(getattr(torch, variable.dtype))


def _refuse_other(node: str, variable: Variable, value: Tensor) -> None:
    """Refuse what the mechanisms of children would take for another value, or for one of the variable's."""
    value = value.detach()
    if isinstance(variable, Image):
        bad, expected = ~((value >= 0) & (value <= 1)), "pixels in [0, 1], bytes divided by 255"
    elif isinstance(variable, Categorical):
        bad = (value < 0) | (value >= variable.size) | (value.double() % 1 != 0)
        expected = f"a code, 0 to {variable.size - 1}"
    elif isinstance(variable, Integer):
        bad, expected = value.double() % 1 != 0, "a whole number"
    else:
        return
    if bad.any():
        raise DomainError(
            f"Site {node!r} holds {value[bad][0].item():g}, expected {expected} ({variable.describe()})."
        )


def _generator(mechanism: Mechanism) -> torch.Generator:
    """A generator that follows from the global random state, which Pyro's draws come from."""
    return torch.Generator(mechanism.device).manual_seed(int(torch.randint(2**62, ())))


class _Law(TorchDistribution):
    """n independent rows."""

    @property
    def arg_constraints(self) -> dict[str, Any]:
        """None: there are no parameters."""
        return {}

    @property
    def support(self) -> Any:
        """Of no known shape: samplers that move along gradients refuse it."""
        return constraints.dependent

    def __init__(self, rows: int, event_shape: tuple[int, ...]) -> None:
        super().__init__(torch.Size((rows,)), torch.Size(event_shape), validate_args=False)

    def expand(self, batch_shape: Any, _instance: Any = None) -> _Law:
        """Only to what it is."""
        if tuple(batch_shape) != tuple(self.batch_shape):
            raise ShapeError(
                f"This model has one batch dimension, {self.batch_shape[0]} rows; asked for "
                f"{tuple(batch_shape)}: no parallel Predictive, vectorised particles or enumeration."
            )
        return self


class _MechanismLaw(_Law):
    """p(x | pa) of a mechanism whose density no Pyro distribution writes."""

    def __init__(self, mechanism: Mechanism, parents: Mapping[str, Tensor], rows: int) -> None:
        super().__init__(rows, mechanism.variable.event_shape)
        self.mechanism, self.parents = mechanism, parents

    def sample(self, sample_shape: Any = ()) -> Tensor:
        """(N, *event)."""
        assert not tuple(sample_shape), "one draw a row"
        noise = self.mechanism.sample_noise(self.batch_shape[0], generator=_generator(self.mechanism))
        with torch.no_grad():
            return _shown(self.mechanism.variable, self.mechanism.generate(self.parents, noise))

    def log_prob(self, value: Tensor) -> Tensor:
        """(N,)."""
        value = _canonical("value", self.mechanism.variable, value, self.batch_shape[0])
        log_prob = self.mechanism.log_prob(value, self.parents)
        assert log_prob is not None
        return log_prob


class _DrawnNoise(_Law):
    """Noise that a mechanism drew, one leaf of it; its density is relative to its own law."""

    def __init__(self, leaf: Tensor) -> None:
        super().__init__(len(leaf), tuple(leaf.shape[1:]))
        self.leaf = leaf

    def sample(self, sample_shape: Any = ()) -> Tensor:
        """The leaf."""
        assert not tuple(sample_shape), "one draw a row"
        return self.leaf

    def log_prob(self, value: Tensor) -> Tensor:
        """(N,) zero."""
        return torch.zeros(self.batch_shape, dtype=torch.float64, device=value.device)
