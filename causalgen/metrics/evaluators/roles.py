"""Roles of variables in evaluation: an image, the class that it shows, continuous causes that it shows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from graphs.errors import SpecError, UnknownNameError
from graphs.variables import Categorical, Continuous, Image, Variable

__all__ = ["Roles", "find_roles"]


@dataclass(frozen=True)
class Roles:
    """Names of the image and of the category and the numbers that it shows, with their variables."""

    image: str
    label: str
    numbers: tuple[str, ...]
    variables: Mapping[str, Variable]

    @property
    def picture(self) -> Image:
        """The image variable."""
        variable = self.variables[self.image]
        assert isinstance(variable, Image)
        return variable

    @property
    def category(self) -> Categorical:
        """The categorical variable."""
        variable = self.variables[self.label]
        assert isinstance(variable, Categorical)
        return variable

    @property
    def outputs(self) -> int:
        """How many numbers there are to read."""
        return sum(self._sizes())

    def by_name(self, values: NDArray[np.float64]) -> dict[str, NDArray[np.float64]]:
        """(N, outputs) as (N, *event) by name."""
        parts = np.split(values, np.cumsum(self._sizes())[:-1], axis=1)
        return {
            name: part.reshape(len(values), *self.variables[name].event_shape)
            for name, part in zip(self.numbers, parts, strict=True)
        }

    def describe(self) -> str:
        """As in "digit (categorical, 10) and thickness from image (image 1x28x28)"."""
        listed = [f"{name} ({self.variables[name].describe()})" for name in (self.label, *self.numbers)]
        return f"{', '.join(listed)} from {self.image} ({self.picture.describe()})"

    def _sizes(self) -> list[int]:
        return [int(np.prod(self.variables[name].event_shape, dtype=int)) for name in self.numbers]


def find_roles(
    variables: Mapping[str, Variable], *, image: str | None = None, label: str | None = None
) -> Roles:
    """The roles among a model's variables: its image, its category, and all that is continuous.

    Raises:
        UnknownNameError: no variable of that name.
        SpecError: no image or category, or several and none is named, or the named one is no such variable.
    """
    image = _only(variables, Image, "image", image)
    label = _only(variables, Categorical, "label", label)
    numbers = tuple(name for name, each in variables.items() if isinstance(each, Continuous))
    return Roles(image, label, numbers, {name: variables[name] for name in (image, label, *numbers)})


def _only(variables: Mapping[str, Variable], kind: type, role: str, name: str | None) -> str:
    found = [each for each, variable in variables.items() if isinstance(variable, kind)]
    if name is None and len(found) == 1:
        return found[0]
    what = f"{kind.__name__.lower()} variable"
    if name is None:
        listed = f"several: {', '.join(found)}. Name one by {role}=" if found else "none"
        raise SpecError(f"Evaluators need one {what}, and the variables hold {listed}.")
    UnknownNameError.check("variable", name, variables, where=f"{role}=")
    if name not in found:
        raise SpecError(f"{role}={name!r}: expected a {what}, got one that is {variables[name].describe()}.")
    return name
