"""What an equation says where it cannot be used: the reason, and what to do about it."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from graphs.variables import Integer, Variable
from mechanisms.tables.noise_families import NoiseLaw

__all__ = ["fractions", "not_whole", "why_no_abduction", "why_unexplained"]

Laws = Mapping[str, NoiseLaw]


def fractions(laws: Laws) -> list[str]:
    """The noises whose values are no whole numbers."""
    return [name for name, law in laws.items() if not law.discrete]


def not_whole(equation: str, laws: Laws, variable: Variable) -> str:
    """Why noise makes an integer's values fractions."""
    name = fractions(laws)[0]
    return (
        f"The equation {equation!r} gives no whole numbers, since its noise {name} ~ {laws[name]} is "
        f"continuous, but its variable is {variable.describe()}. Write round(...) or floor(...), or give the "
        "noise a family of whole numbers, such as poisson."
    )


def why_no_abduction(equation: str, laws: Laws, variable: Variable) -> str:
    """Why the noise cannot be recovered."""
    names = list(laws)
    if len(names) > 1:
        why = f"{len(names)} noises, {', '.join(names)}, and one value does not tell them apart"
        remedy = f"make all but one of them nodes of their own (a node for {names[0]!r}, its own equation)"
    else:
        why = f"its noise {names[0]!r} in a form that is neither affine nor known to be monotone"
        remedy = "write it so that each value comes from one value of the noise"
        if isinstance(variable, Integer):
            remedy = "add whole noise to it (poisson, geometric, binomial), use mechanism 'flow'"
    return (
        f"The equation {equation!r} has {why}. To ask for counterfactuals, {remedy}, or intervene on this "
        "node. Sampling and interventions work as it is."
    )


def why_unexplained(
    equation: str, laws: Laws, row: int, value: float, given: str, expected: Tensor | None, tolerance: float
) -> str:
    """What is wrong with a row of evidence.

    Args:
        equation: as written.
        laws: of its noises.
        row: its number.
        value: the node's.
        given: the parents' values, as text.
        expected: what an equation without noise gives, one number.
        tolerance: within which it had to be.
    """
    where = f"Row {row}: the value is {value!r}, but the equation {equation!r}"
    at = f" at {given}" if given else ""
    if expected is not None:
        return (
            f"{where} gives {expected.item()!r}{at} (tolerance {tolerance:g}). Correct the evidence, "
            "widen the tolerance, or give the equation a noise."
        )
    told = ", ".join(f"{name} ~ {law}" for name, law in laws.items())
    return (
        f"{where} does not give it{at} for any one value of its noise, {told}: it has probability zero. "
        "Correct the evidence, widen the tolerance, or give the noise another family."
    )
