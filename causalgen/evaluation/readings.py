"""Reading attributes from images: by evaluators (networks, predictors) or by measurement, each if asked for.

No variable is measured for its name's sake: the ``intensity`` of an X-ray is no pen stroke.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Literal

from numpy.typing import NDArray

from causalgen.datasets.pendulum import MEASURES
from causalgen.metrics.axioms import Reader, read_attribute
from causalgen.metrics.evaluators.evaluators import Evaluators
from causalgen.metrics.image_rows import image_rows
from causalgen.metrics.measurement import intensity, size, slant, thickness
from graphs.errors import DataError, DomainError
from graphs.variables import Categorical, Continuous, Image, Variable

__all__ = ["Measures", "Readings", "find_readings"]

Measures = Literal["strokes", "pendulum"] | Mapping[str, Reader]
"""What is measured on images without a network: attribute -> function, or a set of ``_SETS`` by name."""

_SETS: Mapping[str, tuple[int, Mapping[str, Reader]]] = {
    "strokes": (1, {"intensity": intensity, "size": size, "slant": slant, "thickness": thickness}),
    "pendulum": (3, MEASURES),
}
"""Channels and attributes: of a drawn character (Castro et al. 2019), of a pendulum (Yang et al. 2021)."""


@dataclass(frozen=True)
class Readings:
    """What reads the attributes of one image node."""

    by: Mapping[str, Mapping[str, Reader]] = field(default_factory=dict)  # "predictor" or "measured" -> cause
    networks: Evaluators | None = None  # for IM1, IM2, CLD and FD
    label: str | None = None  # the category that these know
    attributes: Mapping[str, Reader] = field(default_factory=dict)  # what is measured, causes of it or not

    @property
    def measures(self) -> Mapping[str, Reader]:
        """Causes that are measured."""
        return self.by.get("measured", {})

    def unread(self, causes: Mapping[str, Variable]) -> list[str]:
        """Causes that nothing reads from the image."""
        return [name for name in causes if not any(name in readers for readers in self.by.values())]

    def numbers(self, causes: Mapping[str, Variable]) -> dict[str, Reader]:
        """What reads a number from images, (N,); measured rather than predicted, where both are there."""
        predicted = {
            name: reader
            for name, reader in self.by.get("predictor", {}).items()
            if not isinstance(causes[name], Categorical)
        }
        return {
            name: partial(_number, name=name, reader=reader)
            for name, reader in {**predicted, **self.attributes}.items()
        }


def _number(images: object, *, name: str, reader: Reader) -> NDArray[Any]:
    """What is read of an attribute, cause or not, by what is given images as ``Reader`` says."""
    return read_attribute(image_rows(images), name, getattr(reader, "variable", Continuous()), reader)


def find_readings(
    image: Image,
    causes: Mapping[str, Variable],
    given: Evaluators | Mapping[str, Reader] | None,
    measures: Measures | None,
) -> Readings:
    """What reads attributes from an image node, of these causes of one value.

    By trained evaluators, or cause -> predictor, where given; causes among ``measures`` are scored by these
    too.
    """
    attributes = _attributes(image, measures)
    by: dict[str, Mapping[str, Reader]] = {}
    networks = label = None
    if isinstance(given, Mapping):
        for name in given:
            if name not in causes:
                raise DataError(
                    f"A predictor of {name!r} was given, which is no cause of the image. "
                    f"Its causes: {', '.join(causes) or 'none'}."
                )
        by["predictor"] = dict(given)
    elif given is not None:
        by["predictor"] = _trained(image, causes, given)
        if given.roles.label in by["predictor"]:
            networks, label = given, given.roles.label
    measured = {
        name: measure
        for name, measure in attributes.items()
        if name in causes and causes[name].type in ("continuous", "integer")
    }
    if measured or by:
        by["measured"] = measured
    return Readings(by, networks, label, attributes)


def _attributes(image: Image, measures: Measures | None) -> dict[str, Reader]:
    """What is measured on images of this variable."""
    if measures is None or isinstance(measures, Mapping):
        return dict(measures or {})
    if measures not in _SETS:
        known = ", ".join(map(repr, _SETS))
        raise DomainError(f"measures is {known}, or attribute -> function, got {measures!r}.")
    channels, attributes = _SETS[measures]
    if image.channels != channels:
        what = "grey" if channels == 1 else "colour"
        raise DomainError(f"measures {measures!r} is for {what} images, and this node is {image.describe()}.")
    return dict(attributes)


def _trained(image: Image, causes: Mapping[str, Variable], given: Evaluators) -> dict[str, Reader]:
    """Trained evaluators by cause, where they were trained on these variables."""
    roles = given.roles
    if roles.picture != image:
        raise DomainError(
            f"The evaluators of {given.name} read {roles.picture.describe()}, and this node is "
            f"{image.describe()}."
        )
    known = {name: read for name, read in given.readers.items() if name in causes}
    for name in known:
        theirs, ours = roles.variables[name], causes[name]
        alike = theirs.type == ours.type
        if alike and isinstance(theirs, Categorical) and isinstance(ours, Categorical):
            named = theirs.labels is not None and ours.labels is not None
            alike = theirs.size == ours.size and (not named or theirs.labels == ours.labels)
        units = {getattr(each, "unit", "") for each in (theirs, ours)} - {""}
        alike = alike and len(units) < 2
        if not alike:
            raise DomainError(
                f"The evaluators of {given.name} were trained on another variable {name!r}: "
                f"{theirs.describe()}, and the model's is {ours.describe()}."
            )
    if not known:
        raise DomainError(
            f"The evaluators of {given.name} were trained on {roles.describe()}: they know none of the "
            f"causes {', '.join(causes) or '(none)'}."
        )
    return known
