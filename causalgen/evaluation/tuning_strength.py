"""The option that holds the strength of a diffusion node's guidance, and how to set it for one category."""

from __future__ import annotations

from typing import TYPE_CHECKING

from graphs.variables import Categorical
from mechanisms.diffusion.guidance import Guidance
from mechanisms.diffusion.mechanism import Diffusion

if TYPE_CHECKING:
    from causalgen.scm import SCM

__all__ = ["current_strength", "strength_option", "strength_options", "strength_steers_abduction"]


def strength_option(scm: SCM, node: str) -> str:
    """The name of a diffusion node's strength: "weight" (classifier-free) or "scale" (anticausal)."""
    return _guidance(scm, node).strength_option


def strength_options(scm: SCM, node: str, label: str, strength: float) -> dict[str, dict[str, object]]:
    """Options that give a category's guidance a strength, and leave those of other categories."""
    option, mechanism = strength_option(scm, node), scm.mechanisms[node]
    others = [each for name, each in mechanism.parents.items() if name != label]
    named = isinstance(getattr(_guidance(scm, node), option), dict)
    alone = not named and not any(isinstance(each, Categorical) for each in others)
    return {"guidance": {option: strength if alone else {label: strength}}}


def current_strength(scm: SCM, node: str, label: str) -> float | None:
    """The strength that a diffusion node has for a category; None where each row gets its own."""
    guidance = _guidance(scm, node)
    return None if guidance.automatic else guidance.strengths(scm.mechanisms[node].parents)[label]


def strength_steers_abduction(scm: SCM, node: str) -> bool:
    """Whether what abduction finds of a diffusion node depends on its strength."""
    guidance, parents = _guidance(scm, node), scm.mechanisms[node].parents
    return guidance.at(1.0).abduction_weights(parents) != guidance.at(2.0).abduction_weights(parents)


def _guidance(scm: SCM, node: str) -> Guidance:
    spec = scm.mechanisms[node].spec
    assert isinstance(spec, Diffusion)
    return spec.guidance
