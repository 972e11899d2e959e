"""What all guidance shares: strengths by parent and level, and the path from factual parents to others."""

from collections.abc import Mapping
from typing import Annotated, Literal, Self

import torch
from pydantic import Field, field_validator
from torch import Tensor

from graphs.declared import Declared
from graphs.variables import Categorical, Variable
from mechanisms.base import Parents

__all__ = ["Factual", "Strength", "Strengths", "path_of"]

Strength = Annotated[float, Field(ge=0, le=100)]


class Factual(dict[str, Tensor]):
    """Factual parents by name, and ``known`` (N,): False for rows that are prior samples."""

    def __init__(self, parents: Parents, known: Tensor) -> None:
        super().__init__(parents)
        self.known = known


class Strengths(Declared):
    """What both kinds share.

    Attributes:
        target: probability that the predictor must give the counterfactual categories, where strengths are
            chosen row by row ("auto"); see ``strength_search``.
        candidates: strengths to try then, in rising order.
        corrections: how often continuous parents are asked for anew by what the predictor finds missing; see
            ``corrections``.
        relaxation: by how much of what is missing each correction moves the request.
        interval: levels sigma within which strengths hold (Kynkaanniemi et al. 2024), all where absent.
            Outside it classifier-free weights are 1, which takes one evaluation a step, and anticausal
            guidance rests.
    """

    target: float = Field(default=0.9, gt=0, lt=1)
    candidates: tuple[Strength, ...] = (0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0, 8.0)
    corrections: int = Field(default=0, ge=0, le=16)
    relaxation: float = Field(default=1.0, gt=0, lt=2)
    interval: tuple[float, float] | None = None

    @field_validator("candidates")
    @classmethod
    def _rising(cls, candidates: tuple[float, ...]) -> tuple[float, ...]:
        if not candidates or list(candidates) != sorted(set(candidates)):
            raise ValueError(f"candidates are strengths in rising order, got {list(candidates)}")
        return candidates

    @field_validator("interval")
    @classmethod
    def _ordered(cls, interval: tuple[float, float] | None) -> tuple[float, float] | None:
        if interval and not 0 <= interval[0] < interval[1]:
            raise ValueError(f"interval holds two levels sigma, 0 <= low < high, got {list(interval)}")
        return interval

    @property
    def automatic(self) -> bool:
        """Whether each row gets a strength of its own."""
        return self._given() == "auto"

    @property
    def steers_abduction(self) -> bool:
        """Whether what abduction finds depends on the strengths."""
        return False

    def abducts_as_learned(self, variables: Mapping[str, Variable]) -> bool:
        """Whether abduction follows the denoiser conditional on all parents, as it was learned."""
        raise NotImplementedError

    def at(self, strength: float) -> Self:
        """The same guidance with one strength for all categorical parents."""
        raise NotImplementedError

    def strengths(self, variables: Mapping[str, Variable]) -> dict[str, float]:
        """The weight of each parent: the number for categorical ones, 1 for others, unless named."""
        given = self._given()
        named = given if isinstance(given, Mapping) else {}
        common = given if isinstance(given, float) else 2.0
        return {
            name: named.get(name, common if isinstance(variable, Categorical) else 1.0)
            for name, variable in variables.items()
        }

    def holds(self, sigma: float) -> bool:
        """Whether strengths hold at this level."""
        return self.interval is None or self.interval[0] <= sigma <= self.interval[1]

    def named(self) -> tuple[str, ...]:
        """The parents that the options name."""
        given = self._given()
        return tuple(given) if isinstance(given, Mapping) else ()

    def _given(self) -> float | Mapping[str, float] | Literal["auto"]:
        raise NotImplementedError


def path_of(
    factual: Parents, parents: Parents, strengths: Mapping[str, float]
) -> list[tuple[float, Parents]]:
    """The stops v_1, ..., v_G with their weights; empty where none of these parents changes in any row."""
    changed = [name for name in strengths if not torch.equal(factual[name], parents[name])]
    path: list[tuple[float, Parents]] = []
    current = dict(factual)
    for weight in dict.fromkeys(strengths[name] for name in changed):
        current = current | {name: parents[name] for name in changed if strengths[name] == weight}
        path.append((weight, current))
    return path
