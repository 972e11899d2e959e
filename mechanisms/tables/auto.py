"""``auto``: a node of numbers whose mechanism is chosen when it is fitted, by held-out log-likelihood.

    additive                                     x = a + B pa + u, u normal (additive noise model)
    additive(noise: spline)                      the same, u of any law
    additive(function: network)                  x = f(pa) + u, u normal
    additive(function: network, noise: spline)   the same, u of any law
    flow                                         x = T_pa(u): how u acts may depend on pa

Where a parent is an image, which no linear function reads, the last two are compared. Of a count, a whole
number from 0 on:

    counts                                       negative binomial regression
    flow                                         x = round(T_pa(u))

From the least to the most flexible; of those that are as good as the best within two standard errors, the
first is taken (``causalgen.fitting.choosing``). The fitted node *is* the chosen mechanism, also where it is
saved.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import prod
from typing import Literal, NoReturn, final

import torch
from torch import Tensor

from graphs.errors import MechanismError, NotFittedError
from graphs.variables import Continuous, Image, Integer, Variable
from mechanisms.base import Abducted, Mechanism, MechanismSpec, Noise, Parents
from mechanisms.encoders import EncodingSpec
from mechanisms.tables.additive import Additive
from mechanisms.tables.counts import Counts
from mechanisms.tables.flow import Flow
from mechanisms.tables.support import Support
from mechanisms.training import LEAST_TRAINED_ROWS, Training

__all__ = ["Auto", "AutoMechanism"]

_TRAINING = Training()


class Auto(EncodingSpec, frozen=True):
    """A node of numbers by whichever mechanism the data favour: additive, a regression of counts, or a flow.

    Attributes:
        encoder: of image parents, of each candidate its own; None for a small one by their size.
        training: of the candidates; what differs from the defaults of ``Training`` holds for all of them.
    """

    kind: Literal["auto"] = "auto"
    training: Training | None = _TRAINING

    def candidates(self, variable: Variable, parents: Mapping[str, Variable]) -> tuple[MechanismSpec, ...]:
        """The specs to choose among, the least flexible first."""
        said = {} if self.training is None else self.training.model_dump()
        said = {name: value for name, value in said.items() if value != getattr(_TRAINING, name)}
        images = any(isinstance(parent, Image) for parent in parents.values())
        if isinstance(variable, Integer):
            flow = Flow.model_validate({"encoder": self.encoder, "training": said})
            return (flow,) if images else (Counts.model_validate({"training": said}), flow)
        if not parents:
            return Additive(training=said), Flow(training=said)  # pyright: ignore[reportArgumentType]
        if images:
            slower = {"encoder": self.encoder, "training": {"learning_rate": 3e-3} | said}
            network = Additive.model_validate({"function": "network", "noise": "spline"} | slower)
            return network, Flow.model_validate(slower)
        faster = {"learning_rate": 3e-2} | said  # the noise alone is trained
        written = (
            {"training": said},
            {"noise": "spline", "training": faster},
            {"function": "network", "training": {"learning_rate": 1e-2} | said},
            {"function": "network", "noise": "spline", "training": {"learning_rate": 1e-2} | said},
        )
        additive = map(Additive.model_validate, written)
        return *additive, Flow.model_validate({"training": said})

    def make(self, variable: Variable, parents: Mapping[str, Variable]) -> AutoMechanism:
        """What stands for the mechanism until it is fitted.

        Raises:
            MechanismError: the variable is neither continuous nor ``Integer(lower=0)``, or the encoder has no
                image to read, or one that it cannot.
        """
        if not (isinstance(variable, Continuous) or (isinstance(variable, Integer) and variable.counts)):
            raise MechanismError(
                "Mechanism 'auto' needs a continuous variable, or an integer one with lower 0 and no upper, "
                f"got {variable.describe()}."
            )
        return AutoMechanism(self, variable, parents)


@final
class AutoMechanism(Mechanism):
    """A mechanism that is still to be chosen: it can be fitted, and nothing else."""

    abduction = "none"
    deterministic = True
    least_rows = 2
    spec: Auto
    variable: Continuous | Integer

    def __init__(self, spec: Auto, variable: Continuous | Integer, parents: Mapping[str, Variable]) -> None:
        super().__init__(spec, variable, parents)
        if spec.encoders(parents):  # refuses, where the model is declared, what no candidate could take
            self.least_rows = LEAST_TRAINED_ROWS
        if isinstance(variable, Continuous):
            self.bounds = Support(variable.lower, variable.upper, prod(variable.event_shape))

    def unfittable(self, value: Tensor, parents: Parents) -> tuple[Tensor, str] | None:
        """Rows on a bound: a flow gives none, and additive noise would give values beyond it too."""
        if isinstance(self.variable, Integer):
            return None
        return self.bounds.unfittable(value.reshape(len(value), -1))

    def sample_noise(self, n: int, *, generator: torch.Generator) -> Noise:
        """Refused."""
        self._refuse()

    def generate(self, parents: Parents, noise: Noise) -> Tensor:
        """Refused."""
        self._refuse()

    def abduct(self, value: Tensor, parents: Parents, *, generator: torch.Generator) -> Abducted:
        """Refused."""
        self._refuse()

    def _refuse(self) -> NoReturn:
        raise NotFittedError("Mechanism 'auto' is chosen when it is fitted. Call scm.fit(data) first.")
