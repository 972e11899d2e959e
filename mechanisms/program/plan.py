"""How a program's noise can be recovered, found by running it on many parents before it is used.

solve   the value is the last site, or affine in it, at all these parents and noises; and whole where it is
match   otherwise, the value is a category or a whole number, or all sites are discrete
none    neither: many noises give a value, and none of those drawn ever gives exactly that one

The parents are the same ones each time: every combination of categories and of whole numbers of few values,
where there are no more than 256, or 256 of them; numbers at 0, of both signs, small and large, within their
bounds and at them; images dark, grey, bright and random. Parents between them stay unseen: abduction looks
again in each row, at the solution, at a prior draw and far to both sides of them, and refuses a row where
these are not on a line. What bends elsewhere is not found.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from itertools import product
from math import prod
from typing import Any, Literal, TypeVar

import torch
from torch import Tensor

from graphs.errors import CausalgenError, MechanismError
from graphs.variables import Categorical, Continuous, Image, Integer, Variable
from mechanisms.program.run import ProgramRun, Site, canonical_value, placeholders, run_program, unvalidated
from mechanisms.rows import within_spread
from mechanisms.seeds import GlobalDraws

__all__ = ["Plan", "on_line", "plan_program", "probe_parents", "refuse_mixing"]


_T = TypeVar("_T")
_ROWS = 8
_CPU = torch.device("cpu")
_FAILURES = (ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError, ValueError)
_POINTS = (-1000.0, -100.0, -10.0, -1.0, -0.3, 0.0, 0.5, 1.0, 2.0, 10.0, 100.0, 1000.0)
"""Values of the last site to try, where its law has them."""
_SWALLOWS = 1e9


@dataclass(frozen=True)
class Plan:
    """What was found."""

    how: Literal["solve", "match", "none"]  # the noise is recovered
    last: str  # name of the last site
    identity: bool = False  # whether the value is the last site itself
    # Whether a value has one noise: the last site is the only one, and no value of the parents was seen at
    # which it does not matter
    determined: bool = False
    surjective: bool = False  # whether each number has some noise, as far as seen
    sites: int = 0  # how many there are
    tolerance: float = 1e-9  # how far a value may be from what noise gives, in parts of the size of its terms
    # Whether rows were seen not to mix at all those parents; where the program fails at some of them, each
    # run looks at its own rows
    apart: bool = True
    reason: str = ""  # why it cannot be recovered, and the remedy

    @staticmethod
    def hidden(name: str) -> str:
        """Why a value that is not affine in its last site does not tell its noise."""
        return (
            f"The program's value is not affine in its last site, {name!r}, so drawn sites hardly ever give "
            "an observed value exactly. To ask for counterfactuals, sample additive noise last and return "
            "f(...) + noise, return the last site itself, or intervene on this node. Sampling and "
            "interventions work as it is."
        )

    @staticmethod
    def unseen(name: str) -> str:
        """Why a row is refused whose value does not depend on the last site, though no probe said so."""
        return (
            f"The program's value does not depend on its last site, {name!r}, at these parents, although it "
            "did at all that were tried when the model was declared. Give the parents bounds that leave "
            "these values out, or intervene on this node."
        )

    @staticmethod
    def check_exogenous(name: str, site: Site, other: Site) -> None:
        """Refuse a site whose noise has another law with other parents; both have the same noise."""
        with torch.no_grad(), unvalidated():
            one, two = site.form.base.log_prob(site.noise), other.form.base.log_prob(site.noise)
        if not torch.allclose(one.double(), two.double(), rtol=1e-4, atol=1e-6, equal_nan=False):
            raise MechanismError(
                f"Site {name!r} of the program has a law ({type(site.form.base).__name__}) that depends on "
                "the node's parents, and cannot be written as a function of noise that does not. Noise is "
                "independent of the parents: draw the site from a fixed law and compute with it, or make it "
                "a node of its own."
            )


def plan_program(program: Callable[..., Any], variable: Variable, parents: Mapping[str, Variable]) -> Plan:
    """Look at a program."""
    given = placeholders(parents, _ROWS, _CPU)

    def run(noise: Mapping[str, Tensor] | None = None, **values: Any) -> ProgramRun:
        return run_program(program, given, _ROWS, noise=noise, **values)

    with torch.no_grad(), unvalidated(), GlobalDraws(0) as draws:
        try:
            first = run()
        except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
            raise MechanismError(
                f"The program fails on {_ROWS} rows of placeholder parents, "
                f"{ {name: value[0].tolist() for name, value in given.items()} }: {error}"
            ) from error
        if not first.sites:
            raise MechanismError("The program has no sample site, so no noise. Use mechanism 'equation'.")
        canonical_value(variable, first.returned, _ROWS)
        noise = {name: site.noise for name, site in first.sites.items()}
        _check_repeatable(lambda: run(noise), first, draws)
        name, last = first.last
        if first.returned is last.value and not last.fn.has_rsample:
            raise MechanismError(
                f"The program's value is its last site, {name!r}, of law {type(last.fn).__name__}, which "
                "cannot be written as a function of noise: it would be drawn again in every world, and even "
                "an intervention that changes nothing would change it. Return a function of the sites "
                "instead, such as a comparison with a uniform site, or use mechanism 'categorical'."
            )
        apart = _rows_apart(program, variable, parents)
        # A whole number is solved for where its last site is one too, a real number where that is real.
        alike = variable.type != "categorical" and last.discrete == (variable.type == "integer")
        ask = partial(_gated, program, variable)
        gated = _at_probes(parents, ask) if alike else None
        every = all(site.discrete for site in first.sites.values())
        if gated is None and (variable.type in ("categorical", "integer") or every):
            return Plan("match", name, apart=apart)
        if gated is not None:
            ends = [last.fn.support.check(torch.full_like(last.value, end)).all() for end in (-1e30, 1e30)]
            return Plan(
                "solve",
                name,
                identity=first.returned is last.value,
                determined=len(noise) == 1 and not gated,
                sites=len(noise),
                surjective=not gated and not last.discrete and all(ends),
                tolerance=1e-9 if variable.dtype == "float64" else 1e-5,
                apart=apart,
            )
    several = (
        " Of several numbers each must follow its own number of that site." if variable.event_shape else ""
    )
    return Plan("none", name, apart=apart, reason=Plan.hidden(name) + several)


def _check_repeatable(run: Callable[[], ProgramRun], first: ProgramRun, draws: GlobalDraws) -> None:
    before = draws.drawn()
    again = run().returned
    same = isinstance(again, Tensor) and torch.equal(again.nan_to_num(), first.returned.nan_to_num())
    if not same or draws.drawn() != before:
        raise MechanismError(
            "The program draws outside of its sample sites, or keeps something between runs: with the same "
            "noise it must give the same value. Draw by pyro.sample alone."
        )


def _rows_apart(program: Callable[..., Any], variable: Variable, parents: Mapping[str, Variable]) -> bool:
    """Whether rows were compared at all parents that are tried: where the program fails, at fewer."""
    _, probes = probe_parents(parents)

    def compare(given: Mapping[str, Tensor], rows: int) -> bool:
        refuse_mixing(program, variable, given, run_program(program, given, rows), rows)
        return all(torch.equal(given[name], each) for name, each in probes.items())

    return _at_probes(parents, compare)


def refuse_mixing(
    program: Callable[..., Any], variable: Variable, given: Mapping[str, Tensor], run: ProgramRun, rows: int
) -> None:
    """Refuse a program that gives a row another value beside other rows, with the same parents and noise.

    ``given`` are the parents in its form, (N, *event), and ``run`` at these.
    """
    beside = canonical_value(variable, run.returned, rows).double()
    # Batches of other sizes may be rounded in another way, in parts of what a network adds up.
    sizes = beside.abs().nan_to_num(0.0, 0.0, 0.0)
    slack = 1e-6 * min(1.0, sizes.amax().item()) + 1e-4 * (sizes + sizes.median())
    if not isinstance(variable, Image):
        slack = within_spread(slack, beside)
    order = torch.randperm(rows, generator=torch.Generator().manual_seed(0)).to(beside.device)
    few = max(1, rows // 8)
    # Some, and the rest, in another order: means and sums are others, and an extreme lies in one of them.
    for some in (order[:few], order[few:]):
        noise = {name: site.noise[some] for name, site in run.sites.items()}
        own = {name: each[some] for name, each in given.items()}
        again = run_program(program, own, len(some), noise=noise)
        alone = canonical_value(variable, again.returned, len(some)).double()
        same = ((alone - beside[some]).abs() <= slack[some]) | (alone == beside[some])
        if not bool((same | (alone.isnan() & beside[some].isnan())).all()):
            raise MechanismError(
                "The program mixes rows: with the same parents and noise a row's value depends on the rows "
                "that it is computed beside. It gets N rows at once: compute each from its own parents and "
                "sites, without a mean over rows or the like."
            )


def _at_probes(parents: Mapping[str, Variable], ask: Callable[[Mapping[str, Tensor], int], _T]) -> _T:
    """What ``ask`` says of a program at many parents, given their values and how many rows these are.

    Where the program fails on some of them, categories alone are tried, and numbers at one placeholder.
    """
    rows, probes = probe_parents(parents)
    common = {
        name: probes[name] if isinstance(each, Categorical) else placeholders({name: each}, rows, _CPU)[name]
        for name, each in parents.items()
    }
    for given in (probes, common):
        try:
            return ask(given, rows)
        except _FAILURES as error:
            if isinstance(error, CausalgenError):
                raise
    return ask(placeholders(parents, rows, _CPU), rows)


def _gated(
    program: Callable[..., Any], variable: Variable, given: Mapping[str, Tensor], rows: int
) -> bool | None:
    """Whether the last site does not matter at some of these parents; None where the value bends in it."""
    first = run_program(program, given, rows)
    noise = {name: site.noise for name, site in first.sites.items()}
    name, site = first.last
    if not isinstance(first.returned, Tensor) or site.value.shape != first.returned.shape:
        return None
    if first.returned is site.value:
        return False

    def at(last: Tensor) -> Tensor:
        run = run_program(program, given, rows, noise=noise, values={name: last})
        return canonical_value(variable, run.returned, rows).double()

    drawn = site.value.double()
    zero, one = at(torch.zeros_like(drawn)), at(torch.ones_like(drawn))
    slope = one - zero
    draws = [drawn, *(site.fn.sample().double() for _ in range(4))]
    far = [draws[0] + times * (draws[1] - draws[0]) for times in (-30, -3, 3, 30)]
    for point in (*draws, *far, *(torch.full_like(drawn, point) for point in _POINTS)):
        last = point.round() if site.discrete else point
        if not bool((on_line(at(last), zero, slope, last, variable) | ~site.fn.support.check(last)).all()):
            return None
    # Where a large value swallows the last site, its slope is not seen.
    flat = (slope == 0).reshape(rows, -1)
    seen = ((slope != 0) | (zero.abs() < _SWALLOWS)).reshape(rows, -1).all(1) & flat.isfinite().all(1)
    mixed = flat.any(1) & ~flat.all(1)
    if not bool((seen & ~flat.any(1)).any()) or bool((seen & mixed).any()):
        return None
    return bool((seen & flat.all(1)).any())


def on_line(got: Tensor, zero: Tensor, slope: Tensor, last: Tensor, variable: Variable) -> Tensor:
    """(N,) whether got = zero + slope * last, up to rounding; True where the line is not finite."""
    tolerance = 1e-6 if variable.dtype == "float64" else 1e-4
    # The slope's own rounding, in parts of zero, counts as often as it is taken.
    terms = (zero.abs() + slope.abs()) * last.abs().clamp(min=1.0)
    near = (got - (zero + slope * last)).abs() <= tolerance * terms
    return (near | ~terms.isfinite() | ~got.isfinite()).reshape(len(got), -1).all(1)


_COMBINATIONS = 256
_PROBES = 512
_NUMBERS = 2**17
"""Most numbers in all rows of one parent: fewer rows of large images."""

# Beyond 20 the exponential functions of programs begin to vanish beside their other terms.
_SIZES = (1e-3, 0.1, 0.5, 1.0, 2.5, 7.0, 20.0)


def probe_parents(variables: Mapping[str, Variable]) -> tuple[int, dict[str, Tensor]]:
    """R, and values of the parents in the form a program gets them, (R, *event) by name."""
    generator = torch.Generator().manual_seed(0)
    few = {name: values for name, each in variables.items() if (values := _few(each))}
    combinations = _combinations(list(few.values()), generator)
    largest = max((prod(each.event_shape) for each in variables.values()), default=1)
    rows = max(8, min(max(len(combinations), _PROBES), _NUMBERS // max(1, largest)))
    which = torch.arange(rows) % len(combinations)
    result: dict[str, Tensor] = {}
    for name, variable in variables.items():
        shape = (rows, *variable.event_shape)
        if name in few:
            column = combinations[which, list(few).index(name)]
            result[name] = column.reshape(-1, *[1] * len(variable.event_shape)).expand(shape).clone()
        elif isinstance(variable, Image):
            result[name] = _images(shape, generator)
        else:
            points = torch.tensor(_points(variable), dtype=torch.float64)
            result[name] = points[torch.randint(len(points), shape, generator=generator)]
        result[name] = result[name].to(getattr(torch, variable.dtype))
    return rows, result


def _few(variable: Variable) -> list[float]:
    """Every value, where there are few."""
    if isinstance(variable, Categorical):
        return [float(code) for code in range(variable.size)]
    values = variable.values if isinstance(variable, Integer) else None
    return [] if values is None or len(values) > _COMBINATIONS else [float(value) for value in values]


def _combinations(values: list[list[float]], generator: torch.Generator) -> Tensor:
    """(C, parents) every combination, or some."""
    if prod(map(len, values)) <= _COMBINATIONS:
        every = list(product(*values))  # one, of nothing, where there are no such parents
        return torch.tensor(every, dtype=torch.float64).reshape(len(every), len(values))
    columns = [
        torch.tensor(each)[torch.randint(len(each), (_COMBINATIONS,), generator=generator)] for each in values
    ]
    return torch.stack(columns, 1).double()


def _points(variable: Variable) -> list[float]:
    """Numbers within the bounds, far apart."""
    assert isinstance(variable, Continuous | Integer)
    low, high = variable.lower, variable.upper
    if low is not None and high is not None:
        points = [low + (high - low) * share for share in (0, 0.01, 0.1, 0.3, 0.5, 0.7, 0.9, 0.99, 1)]
    elif low is not None or high is not None:
        end, sign = (low, 1) if low is not None else (high, -1)
        assert end is not None
        points = [float(end), *(end + sign * size for size in _SIZES)]
    else:
        points = [0.0, *_SIZES, *(-size for size in _SIZES)]
    return [float(round(point)) for point in points] if isinstance(variable, Integer) else points


def _images(shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    """In [0, 1]."""
    images = torch.rand(shape, generator=generator)
    for row, level in enumerate((0.0, 0.5, 1.0)):
        images[row] = level
    return images
