"""Who reads attributes from images: judges and direct measurement, each only where it is asked for.

No variable is measured for its name's sake: the ``intensity`` of an X-ray is no pen stroke.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Literal

from causalgen.metrics.axioms import Judge
from causalgen.metrics.measurement import intensity, size, slant, thickness
from graphs.errors import DataError, DomainError
from graphs.variables import Categorical, Image, Variable

if TYPE_CHECKING:
    from causalgen.metrics.evaluators.evaluators import Evaluators

__all__ = ["Judging", "Measures", "find_judging"]

Measures = Literal["strokes"] | Mapping[str, Judge]
"""What is measured on images without a network: attribute -> function, or "strokes" for Morpho-MNIST's."""

_STROKES = {"intensity": intensity, "size": size, "slant": slant, "thickness": thickness}
"""Attributes of a drawn character (Castro et al. 2019)."""


@dataclass(frozen=True)
class Judging:
    """Judges of one image node.

    Attributes:
        by: "predictor" or "measured" -> attribute -> judge.
        networks: those for IM1, IM2, CLD and FD, where given.
        label: the category they know.
        names: of the judges, for the report.
        attributes: whatever is measured, causes of the image or not.
    """

    by: Mapping[str, Mapping[str, Judge]]
    networks: Evaluators | None = None
    label: str | None = None
    names: Mapping[str, str] = field(default_factory=dict)
    attributes: Mapping[str, Judge] = field(default_factory=dict)

    @property
    def measures(self) -> Mapping[str, Judge]:
        """Causes that are measured."""
        return self.by.get("measured", {})

    def unjudged(self, causes: Mapping[str, Variable]) -> list[str]:
        """Causes that nobody reads from the image."""
        return [name for name in causes if not any(name in judges for judges in self.by.values())]


def find_judging(
    image: Image,
    causes: Mapping[str, Variable],
    given: Evaluators | Mapping[str, Judge] | None,
    measures: Measures | None,
) -> Judging:
    """The judges for an image node.

    Args:
        image: its variable.
        causes: its causes of one value.
        given: trained judges, or attribute -> predictor; None for measurement alone.
        measures: what to measure; None for nothing. Causes among them are scored by it.

    Raises:
        DomainError: judges of images of another size, or of another variable, or strokes in colour.
        DataError: a predictor of what is no cause of the image.
    """
    attributes = _attributes(image, measures)
    measured = {
        name: measure
        for name, measure in attributes.items()
        if name in causes and causes[name].type in ("continuous", "integer")
    }
    if given is None:
        return Judging({"measured": measured} if measured else {}, attributes=attributes)
    if isinstance(given, Mapping):
        for name in given:
            if name not in causes:
                raise DataError(
                    f"A predictor of {name!r} was given, which is no cause of the image. "
                    f"Its causes: {', '.join(causes) or 'none'}."
                )
        return Judging({"predictor": dict(given), "measured": measured}, attributes=attributes)
    return replace(_trained(image, causes, given, measured), attributes=attributes)


def _attributes(image: Image, measures: Measures | None) -> dict[str, Judge]:
    """What is measured on images of this variable."""
    if measures is None or isinstance(measures, Mapping):
        return dict(measures or {})
    if measures != "strokes":
        raise DomainError(f"measures is 'strokes', or attribute -> function, got {measures!r}.")
    if image.channels != 1:
        raise DomainError(f"measures 'strokes' is for grey images, and this node is {image.describe()}.")
    return dict(_STROKES)


def _trained(
    image: Image, causes: Mapping[str, Variable], judges: Evaluators, measured: Mapping[str, Judge]
) -> Judging:
    roles = judges.roles
    if roles.picture != image:
        raise DomainError(
            f"The judges of {judges.name} read {roles.picture.describe()}, and this node is "
            f"{image.describe()}."
        )
    predictors: dict[str, Judge] = {}
    for name, variable in causes.items():
        if name in (roles.label, *roles.numbers):
            _check_same(judges.name, name, roles.variables[name], variable)
            predictors[name] = judges.classes if name == roles.label else _number(judges, name)
    if not predictors:
        raise DomainError(
            f"The judges of {judges.name} were trained on {roles.describe()}: they know none of the causes "
            f"{', '.join(causes) or '(none)'}."
        )
    label = roles.label if roles.label in predictors else None
    return Judging(
        {"predictor": predictors, "measured": measured},
        judges if label else None,
        label,
        {"judges": judges.name},
    )


def _number(judges: Evaluators, name: str) -> Judge:
    return lambda images: judges.numbers(images)[name]


def _check_same(judges: str, name: str, theirs: Variable, ours: Variable) -> None:
    alike = theirs.type == ours.type
    if alike and isinstance(theirs, Categorical) and isinstance(ours, Categorical):
        alike = theirs.size == ours.size
    if not alike:
        raise DomainError(
            f"The judges of {judges} were trained on another variable {name!r}: {theirs.describe()}, and the "
            f"model's is {ours.describe()}."
        )
