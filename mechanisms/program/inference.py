"""How a program's noise is inferred, where a value leaves it open: the options of ``inference``."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from graphs.declared import Declared

__all__ = ["Importance", "Inference", "NUTS", "SVI"]

_Count = Annotated[int, Field(ge=1, le=2**17)]


class _Options(Declared, frozen=True):  # pyright: ignore[reportGeneralTypeIssues]
    """Immutable options, closed to unknown names."""


class Importance(_Options, frozen=True):
    """Prior draws, weighted, and more draws where these say little: for any program.

    The option ``particles`` of the mechanism says how many come first.
    """

    kind: Literal["importance"] = "importance"


class SVI(_Options, frozen=True):
    """Stochastic variational inference: a normal guide for each distinct row, all rows at once.

    Draws are then weighted against the guide, so that answers are consistent whatever the guide misses; a
    tenth of them comes from the prior, which bounds the weights (defensive importance sampling, Hesterberg
    1995).

    Attributes:
        guide: "multivariate", with correlations within a row, or "normal", without.
        steps: of Adam on the evidence lower bound.
        learning_rate: of the first step, in deviations of the prior; it falls to 0 along a cosine.
        particles: draws of the bound in each step.
        draws: from the guide, behind each abducted row.
    """

    kind: Literal["svi"] = "svi"
    guide: Literal["multivariate", "normal"] = "multivariate"
    steps: int = Field(default=300, ge=0, le=100_000)
    learning_rate: float = Field(default=0.05, gt=0, allow_inf_nan=False)
    particles: _Count = 8
    draws: int = Field(default=100, ge=2, le=2**17)


class NUTS(_Options, frozen=True):
    """Hamiltonian Monte Carlo, the No-U-Turn Sampler: all distinct rows at once, for posteriors of any shape.

    Equal rows take different draws of their common chains.

    Attributes:
        warmup: steps of each chain that adapt the sampler and are dropped.
        draws: that each chain keeps.
        chains: of each row, one after the other; R-hat compares them and their halves.
        target_accept: acceptance that the step size aims at; higher takes smaller steps.
        max_tree_depth: a step evaluates the program at most 2 to the power of this many times.
    """

    kind: Literal["nuts"] = "nuts"
    warmup: _Count = 200
    draws: int = Field(default=200, ge=4, le=2**17)
    chains: int = Field(default=2, ge=1, le=64)
    target_accept: float = Field(default=0.8, gt=0, lt=1)
    max_tree_depth: int = Field(default=8, ge=1, le=12)


Inference = Annotated[Importance | SVI | NUTS, Field(discriminator="kind")]
"""What ``{kind: program, inference: ...}`` may say."""
