"""How a program's noise is recovered, found by running it a few times on placeholder parents.

solve   the value is the last site, or affine in it with a slope that is not zero, and whole where it is
match   otherwise, the value is a category or a whole number, or all sites are discrete
none    neither: many noises give a value, and none of those drawn ever gives exactly that one
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import pyro
import torch
from torch import Tensor

from graphs.errors import MechanismError
from graphs.variables import Variable
from mechanisms.program_run import ProgramRun, Site, run_program
from mechanisms.program_values import canonical_value, placeholders

__all__ = ["Plan", "plan_program"]

_ROWS = 8


@dataclass(frozen=True)
class Plan:
    """What was found.

    Attributes:
        how: the noise is recovered.
        last: name of the last site.
        identity: whether the value is the last site itself.
        determined: whether a value has one noise.
        tolerance: how far a value may be from what noise gives, in parts of max(1, |x|).
        reason: why it cannot be recovered, and the remedy.
    """

    how: Literal["solve", "match", "none"]
    last: str
    identity: bool = False
    determined: bool = False
    tolerance: float = 1e-9
    reason: str = ""

    @staticmethod
    def check_exogenous(name: str, site: Site, other: Site) -> None:
        """Refuse a site whose noise has another law with other parents; both have the same noise.

        Raises:
            MechanismError: it has.
        """
        with torch.no_grad(), pyro.validation_enabled(False):
            one, two = site.form.base.log_prob(site.noise), other.form.base.log_prob(site.noise)
        if not torch.allclose(one.double(), two.double(), rtol=1e-4, atol=1e-6, equal_nan=False):
            raise MechanismError(_dependent(name, type(site.form.base).__name__))


def plan_program(program: Callable[..., Any], variable: Variable, parents: Mapping[str, Variable]) -> Plan:
    """Look at a program; draws from the global random state.

    Raises:
        MechanismError: it has no sites, re-samples its value, draws outside of its sites, or fails.
    """
    given = placeholders(parents, _ROWS, torch.device("cpu"))

    def run(noise: Mapping[str, Tensor] | None = None, **values: Any) -> ProgramRun:
        return run_program(program, given, _ROWS, noise=noise, **values)

    with torch.no_grad(), pyro.validation_enabled(False):
        try:
            first = run()
        except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
            raise MechanismError(
                f"The program fails on {_ROWS} rows of placeholder parents, "
                f"{ {name: value[0].tolist() for name, value in given.items()} }: {error}"
            ) from error
        if not first.sites:
            raise MechanismError("The program has no sample site, so no noise. Use mechanism 'equation'.")
        noise = {name: site.noise for name, site in first.sites.items()}
        _check_repeatable(lambda: run(noise), first)
        name, last = first.last
        if first.returned is last.value and not last.fn.has_rsample:
            raise MechanismError(_resampled(name, type(last.fn).__name__))
        canonical_value(variable, first.returned, _ROWS)
        # A whole number is solved for where its last site is one too, a real number where that is real.
        alike = variable.type != "categorical" and last.discrete == (variable.type == "integer")
        solvable = alike and _is_affine(variable, first, lambda value: run(noise, values={name: value}))
        every = all(site.discrete for site in first.sites.values())
        if not solvable and (variable.type in ("categorical", "integer") or every):
            return Plan("match", name)
        if solvable:
            tolerance = 1e-9 if variable.dtype == "float64" else 1e-5
            same = first.returned is last.value
            return Plan("solve", name, identity=same, determined=len(noise) == 1, tolerance=tolerance)
    return Plan("none", name, reason=_hidden(name))


def _check_repeatable(run: Callable[[], ProgramRun], first: ProgramRun) -> None:
    before = torch.get_rng_state()
    again = run().returned
    same = isinstance(again, Tensor) and torch.equal(again.nan_to_num(), first.returned.nan_to_num())
    if not same or not torch.equal(before, torch.get_rng_state()):
        raise MechanismError(
            "The program draws outside of its sample sites, or keeps something between runs: with the same "
            "noise it must give the same value. Draw by pyro.sample alone."
        )


def _is_affine(variable: Variable, first: ProgramRun, run: Callable[[Tensor], ProgramRun]) -> bool:
    """Whether each component of the value is affine in that of the last site, with a slope."""
    _, site = first.last
    if site.value.shape != first.returned.shape:
        return False
    if first.returned is site.value:
        return True
    at = {
        number: canonical_value(variable, run(torch.full_like(site.value, number).double()).returned, _ROWS)
        for number in (0.0, 1.0, 2.0)
    }
    drawn = canonical_value(variable, first.returned, _ROWS)
    slope = at[1.0] - at[0.0]
    tolerance = 1e-6 if variable.dtype == "float64" else 1e-4
    return bool((slope != 0).all()) and all(
        torch.allclose(got, at[0.0] + slope * where, rtol=tolerance, atol=tolerance)
        for got, where in ((at[2.0], torch.tensor(2.0)), (drawn, site.value))
    )


def _resampled(name: str, law: str) -> str:
    return (
        f"The program's value is its last site, {name!r}, of law {law}, which cannot be written as a "
        "function of noise: it would be drawn again in every world, and even an intervention that changes "
        "nothing would change it. Return a function of the sites instead, such as a comparison with a "
        "uniform site, or use mechanism 'categorical'."
    )


def _dependent(name: str, law: str) -> str:
    return (
        f"Site {name!r} of the program has a law ({law}) that depends on the node's parents, and cannot be "
        "written as a function of noise that does not. Noise is independent of the parents: draw the site "
        "from a fixed law and compute with it, or make it a node of its own."
    )


def _hidden(name: str) -> str:
    return (
        f"The program's value is not affine in its last site, {name!r}, so drawn sites hardly ever give an "
        "observed value exactly. To ask for counterfactuals, sample additive noise last and return "
        "f(...) + noise, return the last site itself, or intervene on this node. Sampling and interventions "
        "work as it is."
    )
