"""The laws of solvers, on a known probability flow, of guidance, with exact scores, and of level grids.

Each ``check_...`` takes a part with its options and raises AssertionError where it breaks a law; the message
begins with the law's name. Solvers follow the flow of normal pixels, guidance the scores of a small model
with one category and one number, both in float64.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from itertools import pairwise
from math import log, pi
from typing import Any

import torch
from torch import Tensor, nn

from causalgen.checking.conformance import independent_rows
from causalgen.checking.density_conformance import apart
from causalgen.checking.part_conformance import Laws, check_options, hold
from graphs.errors import CannotAbductError
from graphs.variables import Categorical, Continuous, Variable
from mechanisms.base import Parents
from mechanisms.diffusion.guidance import GUIDANCE, Factual, Guidance
from mechanisms.diffusion.schedule import GRIDS, Grid, KarrasGrid, LogGrid
from mechanisms.diffusion.solvers import SOLVERS, Leaves, NoiseEstimate, Solver

__all__ = ["check_grid", "check_guidance", "check_solver"]

_LEVELS = LogGrid(sigma_min=0.05, sigma_max=10)
# An error of first order falls to a tenth; one step more changes little.
_COARSE, _FINE, _ODD = 64, 640, 65
# Leaves of the mechanism's own.
_TAKEN = {"known", "last_residual", "image", "code", "pixel_residual"}


def check_grid(grid: Grid) -> None:
    """Hold a grid of levels to its laws.

    Raises:
        AssertionError: the message begins with the law's name.
    """

    def ascending() -> None:
        """steps + 1 finite levels above 0, in float64, each above the one before."""
        for steps in (1, 2, 8):
            sigma = grid.sigmas(steps)
            assert sigma.shape == (steps + 1,), f"{steps} steps need {steps + 1} levels, got {sigma.shape}"
            assert sigma.dtype == torch.float64, f"levels are float64, got {sigma.dtype}"
            assert bool(sigma.isfinite().all() and (sigma > 0).all()), f"levels must be above 0, got {sigma}"
            assert bool((sigma.diff() > 0).all()), f"levels must rise, got {sigma}"
            assert torch.equal(sigma, grid.sigmas(steps)), "levels change from call to call"

    hold("level grid", grid, {"levels": ascending, "options": lambda: check_options(GRIDS, grid)})


def check_solver(solver: Solver, *, seed: int = 0) -> None:
    """Hold a solver to its laws, on a grid of their own and with as many steps as they need.

    Args:
        solver: its other options are kept.
        seed: of the draws.

    Raises:
        AssertionError: the message begins with the law's name.
    """
    _SolverLaws(solver, seed).check()


def check_guidance(guidance: Guidance) -> None:
    """Hold guidance to its laws, with exact scores.

    Raises:
        AssertionError: the message begins with the law's name.
    """
    _GuidanceLaws(guidance).check()


class _SolverLaws:
    """Pixels N(m, s^2): eps = sigma (x - m) / (s^2 + sigma^2); the flow scales x - m by its deviation."""

    def __init__(self, solver: Solver, seed: int) -> None:
        self.solver, self.seed = solver, seed
        draw = torch.Generator().manual_seed(seed)
        self.shape, rows = (1, 4, 4), 5
        normal = torch.randn(4, rows, *self.shape, generator=draw, dtype=torch.float64)
        self.spread = 0.3 + 0.7 * torch.rand(self.shape, generator=draw, dtype=torch.float64)
        self.mean, self.other = 0.3 * normal[0], 0.3 * normal[1]
        self.image = self.mean + self.spread * normal[2]

    def check(self) -> None:
        """Hold the solver to the laws that apply."""
        laws: Laws = {"noise": self.noise, "samples": self.samples}
        laws |= {"levels": self.levels, "dtype": self.dtype}
        if self.solver.invertible:
            laws |= {"round trip": self.round_trip, "rows": self.rows}
        else:
            laws["refusal"] = self.refusal
        if self.solver.invertible and not self.draws_more_than_x_T():
            laws["exact solution"] = self.exact_solution
        hold("solver", self.solver, laws | {"options": lambda: check_options(SOLVERS, self.solver)})

    def at(self, steps: int, grid: Grid = _LEVELS) -> Solver:
        """The solver with this many steps on the laws' own grid."""
        return self.solver.model_copy(update={"steps": steps, "grid": grid})

    def grids(self) -> Iterator[Grid]:
        """Evenly spaced in log sigma, and not, where the solver takes it."""
        yield _LEVELS
        uneven = KarrasGrid(sigma_min=_LEVELS.sigma_min, sigma_max=_LEVELS.sigma_max)
        if self.takes(_COARSE, uneven):
            yield uneven

    def takes(self, steps: int, grid: Grid = _LEVELS) -> bool:
        """Whether its options may be these."""
        try:
            type(self.solver).model_validate(dict(self.solver) | {"steps": steps, "grid": grid})
        except ValueError:
            return False
        return True

    def counts(self) -> tuple[int, ...]:
        """Few steps, many, and one more than few, where the solver takes an odd number."""
        return (_COARSE, _FINE, *([_ODD] if self.takes(_ODD) else []))

    def field(self, mean: Tensor) -> NoiseEstimate:
        """eps of pixels with this mean."""
        return lambda x, sigma: sigma * (x - mean.to(x)) / (self.spread.to(x) ** 2 + sigma**2)

    def prior(self, solver: Solver, rows: int, offset: int = 0) -> Leaves:
        generator = torch.Generator().manual_seed(self.seed + offset)
        return solver.sample_noise(rows, self.shape, generator=generator)

    def draws_more_than_x_T(self) -> bool:
        """Whether a prior sample has random leaves beside x_T: then it does not follow the flow."""
        leaves = self.prior(self.at(_COARSE), 2)
        return any(bool(leaf.any()) for name, leaf in leaves.items() if name != "x_T")

    def noise(self) -> None:
        """Prior noise: x_T from N(0, I), by the generator alone; abducted noise has the same leaves."""
        solver = self.at(_COARSE)
        noise, again = self.prior(solver, 400), self.prior(solver, 400)
        assert "x_T" in noise, f"the leaf x_T is missing among {sorted(noise)}"
        x_T, names = noise["x_T"], set(noise)
        assert x_T.shape == (400, *self.shape), f"x_T has shape {tuple(x_T.shape)}"
        assert not names & _TAKEN and not any("." in name for name in names), f"leaves {names} are taken"
        assert all(len(leaf) == 400 for leaf in noise.values()), "leaves need a row for each image"
        assert abs(x_T.mean()) < 0.06 and abs(x_T.var() - 1) < 0.1, "x_T is not standard normal"
        assert all(torch.equal(noise[name], again[name]) for name in names), "same generator, other noise"
        assert not torch.equal(x_T, self.prior(solver, 400, 1)["x_T"]), "the generator is not used"
        generator = torch.Generator().manual_seed(self.seed)
        independent_rows(lambda rows: solver.sample_noise(rows, self.shape, generator=generator), noise)
        if solver.invertible:
            shapes = {name: leaf.shape for name, leaf in self.prior(solver, len(self.image)).items()}
            encoded = solver.encode(self.image, self.field(self.mean))
            found = {name: leaf.shape for name, leaf in encoded.items()}
            assert found == shapes, f"prior noise has leaves {shapes}, abducted noise {found}"

    def samples(self) -> None:
        """Prior samples of standard normal pixels have their mean and variance."""
        solver = self.at(_FINE)
        found = solver.decode(self.prior(solver, 500), lambda x, sigma: sigma * x / (1 + sigma**2))
        assert found.shape == (500, *self.shape), f"decode gave shape {tuple(found.shape)}"
        low = solver.levels()[0]
        mean, variance = found.mean().item(), found.var().item()
        assert abs(mean) < 0.05 and abs(variance - 1 - low**2) < 0.15, (
            f"samples have mean {mean:.3f} and variance {variance:.3f}, expected 0 and {1 + low**2:.3f}"
        )

    def levels(self) -> None:
        """The estimate is asked for at levels of the grid's range alone, and inputs are not changed."""
        solver, asked, image = self.at(_COARSE), list[float](), self.image.clone()
        told = list[tuple[Tensor, Tensor]]()

        def eps(x: Tensor, sigma: float) -> Tensor:
            asked.append(float(sigma))
            estimate = self.field(self.mean)(x, sigma)
            told.append((estimate, estimate.clone()))
            return estimate

        noise = solver.encode(image, eps) if solver.invertible else self.prior(solver, len(image))
        before = {name: leaf.clone() for name, leaf in noise.items()}
        first, second = solver.decode(noise, eps), solver.decode(noise, eps)
        low, high = solver.levels()[0], solver.levels()[-1]
        outside = [sigma for sigma in asked if not low * (1 - 1e-9) <= sigma <= high * (1 + 1e-9)]
        assert not outside, f"asked at sigma {outside[:1]}, but levels are {low:g} to {high:g}"
        assert torch.equal(image, self.image), "encode changes the image"
        assert all(torch.equal(one, other) for one, other in told), "estimates are changed"
        assert all(torch.equal(leaf, noise[name]) for name, leaf in before.items()), (
            "decode changes the noise"
        )
        assert torch.equal(first, second), "decode draws"

    def dtype(self) -> None:
        """Images in float32 stay so."""
        solver, image, eps = self.at(_COARSE), self.image.float(), self.field(self.mean)
        noise = solver.encode(image, eps) if solver.invertible else self.prior(solver, len(image))
        types = {leaf.dtype for leaf in (*noise.values(), solver.decode(noise, eps))}
        assert types == {torch.float32}, f"float32 became {types}"

    def refusal(self) -> None:
        """A solver that is not invertible says so."""
        try:
            self.at(_COARSE).encode(self.image, self.field(self.mean))
        except CannotAbductError:
            return
        raise AssertionError("a solver that is not invertible must raise CannotAbductError in encode")

    def round_trip(self) -> None:
        """decode(encode(x)) is x exactly, or the nearer the more steps there are."""
        eps = self.field(self.mean)
        solvers = (self.at(steps) for steps in self.counts())
        _converges([apart(each.decode(each.encode(self.image, eps), eps), self.image) for each in solvers])

    def exact_solution(self) -> None:
        """encode, and decode under another mean, come nearer to the exact flow with more steps."""
        for grid in self.grids():
            self.follow(grid)

    def follow(self, grid: Grid) -> None:
        """The law on one grid."""
        misses: list[tuple[float, float]] = []
        for solver in (self.at(steps, grid) for steps in self.counts()):
            low, high = solver.levels()[0], solver.levels()[-1]
            ratio = ((self.spread**2 + high**2) / (self.spread**2 + low**2)).sqrt()
            top = self.mean + (self.image - self.mean) * ratio
            noise = solver.encode(self.image, self.field(self.mean))
            found = solver.decode(noise, self.field(self.other))
            expected = self.other + (top - self.other) / ratio
            misses.append((apart(solver.from_noise(noise["x_T"]), top), apart(found, expected)))
        for missed, what in zip(zip(*misses, strict=True), ("encode", "decode"), strict=True):
            _converges(missed, f"{what} ", f" the flow on a grid of kind {grid.kind!r}, by")

    def rows(self) -> None:
        """A row alone gives what it gives among others."""
        solver = self.at(_COARSE)
        noise = solver.encode(self.image, self.field(self.mean))
        image = solver.decode(noise, self.field(self.other))
        for row in range(2):
            part = slice(row, row + 1)
            alone = solver.encode(self.image[part], self.field(self.mean[part]))
            for name, leaf in alone.items():
                assert apart(leaf, noise[name][part]) < 1e-9, f"leaf {name!r} of a row alone differs"
            assert apart(solver.decode(alone, self.field(self.other[part])), image[part]) < 1e-9, "decode"


def _converges(misses: Sequence[float], before: str = "", after: str = "") -> None:
    """Of few steps, many, and perhaps of one more than few: the more the nearer."""
    coarse, fine, *odd = misses
    assert fine < 1e-8 or fine < 0.2 * coarse, (
        f"{before}misses{after} {coarse:.3g}, and {fine:.3g} at 10 times the steps"
    )
    assert all(each < 1e-8 or each < 2 * coarse for each in odd), (
        f"{before}misses{after} {coarse:.3g} in {_COARSE} steps, and {odd[0]:.3g} in {_ODD}"
    )


class _Scores(nn.Module):
    """p(digit, size, x): three digits, size ~ N(0, 1), x ~ N(c_digit + b size, v I) of two pixels.

    It stands for the denoiser (``eps``) and for the predictor (``encode``, ``log_probs``).
    """

    def __init__(self) -> None:
        super().__init__()
        self.variables: dict[str, Variable] = {"digit": Categorical(3), "size": Continuous()}
        self.names = tuple(self.variables)
        self.centres = torch.tensor([[-1.0, 0.0], [1.0, 0.5], [0.2, -0.8]], dtype=torch.float64)
        self.slope, self.variance = torch.tensor([0.5, 0.3], dtype=torch.float64), 0.2

    def log_density(self, x: Tensor, sigma: float, parents: Parents, shown: tuple[str, ...]) -> Tensor:
        """log p(x_bar, shown parents), (N,), of x_bar (N, 2)."""
        covariance = (self.variance + sigma**2) * torch.eye(2, dtype=torch.float64)
        means = self.centres.expand(len(x), 3, 2)
        prior = torch.full((len(x), 3), -log(3), dtype=torch.float64)
        if "size" in shown:
            size = parents["size"][:, None]
            means, prior = means + (size * self.slope)[:, None], prior - (size**2 + log(2 * pi)) / 2
        else:
            covariance = covariance + torch.outer(self.slope, self.slope)
        terms = torch.distributions.MultivariateNormal(means, covariance).log_prob(x[:, None]) + prior
        return terms.gather(1, parents["digit"][:, None])[:, 0] if "digit" in shown else terms.logsumexp(1)

    def eps(self, x: Tensor, sigma: float, parents: Parents, shown: Tensor | bool = True) -> Tensor:
        """-sigma times the score."""
        seen = torch.as_tensor(shown).expand(len(self.names))
        names = tuple(name for name, each in zip(self.names, seen, strict=True) if each)
        with torch.enable_grad():
            tracked = x.detach().requires_grad_()
            density = self.log_density(tracked.flatten(1), sigma, parents, names).sum()
            return -sigma * torch.autograd.grad(density, tracked)[0]

    def encode(self, x: Tensor, sigma: float) -> Tensor:
        """x_bar and its level, (N, 3)."""
        return torch.cat([x.flatten(1), torch.full_like(x.flatten(1)[:, :1], sigma)], 1)

    def log_probs(self, features: Tensor, parents: Parents) -> dict[str, Tensor]:
        """log q(digit | x_bar) and log q(size | x_bar, digit)."""
        x, sigma = features[:, :2], features[0, 2].item()
        joint = [self.log_density(x, sigma, parents, self.names[:k]) for k in range(3)]
        return {
            name: after - before for name, (before, after) in zip(self.names, pairwise(joint), strict=True)
        }


class _GuidanceLaws:
    """Six rows of the model of ``_Scores``, at a level where the guidance is active."""

    def __init__(self, guidance: Guidance) -> None:
        self.scores: Any = _Scores()
        self.sigma = sum(guidance.interval) / 2 if guidance.interval else 0.7
        exists = guidance.strength_option in type(guidance).model_fields
        self.guidance = guidance.at(2.0) if exists and guidance.automatic else guidance
        draw = torch.Generator().manual_seed(0)
        self.x = torch.randn(6, 1, 1, 2, generator=draw, dtype=torch.float64)
        self.digit, self.size = torch.arange(6) % 3, torch.randn(6, generator=draw, dtype=torch.float64)
        self.factual = {"digit": self.digit, "size": self.size}
        self.asked = {"digit": (self.digit + 1) % 3, "size": self.size + 1}

    def check(self) -> None:
        """Hold the guidance to all laws."""
        laws: Laws = {"declarations": self.declarations, "inputs": self.inputs, "null": self.null}
        laws |= {"strength": self.strength, "interval": self.interval, "rows": self.rows}
        laws["prior samples"] = self.prior_samples
        hold("guidance", self.guidance, laws | {"options": lambda: check_options(GUIDANCE, self.guidance)})

    def eps(self, asked: Parents, guidance: Guidance | None = None, known: bool = True) -> Tensor:
        """The guided estimate from the factual parents, or of prior samples."""
        start = self.factual if known else asked
        factual = Factual(start, torch.full((6,), known))
        chosen = guidance or self.guidance
        return chosen.eps(self.scores, self.scores, self.x, self.sigma, factual, asked)

    def up(self, guidance: Guidance) -> Tensor:
        """The estimate of abduction."""
        return guidance.abduction_eps(self.scores, self.x, self.sigma, self.factual)

    def declarations(self) -> None:
        """Options and parents that it names exist; abduction is as its weights say."""
        guidance, variables = self.guidance, self.scores.variables
        fields = type(guidance).model_fields
        assert guidance.strength_option in fields, f"there is no option {guidance.strength_option!r}"
        known = {"conditional", "unconditional", "predictor"}
        assert guidance.needs <= known, f"needs {set(guidance.needs - known)}"
        assert {*guidance.steerable(variables)} <= variables.keys(), "steers parents that are none"
        weights = guidance.abduction_weights(variables)
        assert weights.keys() == variables.keys(), f"abduction has weights of {sorted(weights)}"
        learned = self.scores.eps(self.x, self.sigma, self.factual)
        hidden = self.scores.eps(self.x, self.sigma, self.factual, shown=False)
        for weight, expected in ((1, learned), (0, hidden)):
            if set(weights.values()) == {weight}:
                assert apart(self.up(guidance), expected) < 1e-9, f"abduction is not at weight {weight}"

    def null(self) -> None:
        """Where no parent changes, prediction follows the field of abduction: f(pa_F, u) = x."""
        miss = apart(self.eps(self.factual), self.up(self.guidance))
        assert miss < 1e-9, (
            f"counterfactual parents equal to the factual ones move the estimate by {miss:.3g}"
        )

    def strength(self) -> None:
        """At strength 0 a category is not steered towards, or no more than learned; a larger one moves it."""
        asked = {"digit": self.asked["digit"], "size": self.size}
        none = self.guidance.at(0.0)
        learned = self.scores.eps(self.x, self.sigma, asked)
        miss = apart(self.eps(asked, none), learned if none.adds else self.up(none))
        assert miss < 1e-9, f"strength 0 moves the estimate by {miss:.3g}"
        weak, strong = self.eps(asked, self.guidance.at(1.0)), self.eps(asked, self.guidance.at(4.0))
        assert bool(weak.isfinite().all() and strong.isfinite().all()), "estimates are not finite"
        assert apart(weak, strong) > 1e-3, "the strength changes nothing"

    def interval(self) -> None:
        """Beyond the interval no strength matters, and nothing moves where no parent changes."""
        beyond = self.guidance.model_copy(update={"interval": (2 * self.sigma, 3 * self.sigma)})
        weak, strong = (self.eps(self.asked, beyond.at(each)) for each in (1.0, 4.0))
        assert apart(weak, strong) < 1e-9, "strengths matter beyond the interval"
        miss = apart(self.eps(self.factual, beyond), self.up(beyond))
        assert miss < 1e-9, f"beyond the interval parents that stay move the estimate by {miss:.3g}"

    def rows(self) -> None:
        """A row alone gives what it gives among others that change other parents, or are prior samples."""
        rows = torch.arange(6)
        asked = {
            "digit": torch.where(rows % 2 == 0, self.asked["digit"], self.digit),
            "size": torch.where(rows < 3, self.asked["size"], self.size),
        }
        for known in (rows >= 0, rows % 3 > 0):
            start = {name: torch.where(known, self.factual[name], asked[name]) for name in asked}
            together = self.guided(start, known, asked)
            for row in range(6):
                before, after = ({name: each[[row]] for name, each in of.items()} for of in (start, asked))
                alone = self.guided(before, known[[row]], after, self.x[[row]])
                assert apart(alone, together[[row]]) < 1e-9, f"row {row} alone gives another estimate"

    def guided(self, start: Parents, known: Tensor, asked: Parents, x: Tensor | None = None) -> Tensor:
        """The estimate of rows of which some are known."""
        x = self.x if x is None else x
        return self.guidance.eps(self.scores, self.scores, x, self.sigma, Factual(start, known), asked)

    def prior_samples(self) -> None:
        """Prior samples follow the conditional score, unguided."""
        found = self.eps(self.asked, known=False)
        miss = apart(found, self.scores.eps(self.x, self.sigma, self.asked))
        assert miss < 1e-9, f"prior samples are {miss:.3g} off the conditional score"

    def inputs(self) -> None:
        """Inputs are not changed, and no graph of gradients is left behind."""
        before = copy.deepcopy((self.x, self.factual, self.asked))
        with torch.no_grad():
            for found in (self.eps(self.asked), self.up(self.guidance)):
                assert not found.requires_grad, "the estimate requires a gradient"
        x, factual, asked = before
        assert torch.equal(x, self.x), "x is changed"
        for one, other in ((factual, self.factual), (asked, self.asked)):
            assert all(torch.equal(one[name], other[name]) for name in one), "parents are changed"
