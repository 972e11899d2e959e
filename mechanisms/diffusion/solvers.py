"""Diffusion solvers: DDIM inversion, DPM-Solver++(2M) with step residuals, O-BELM, ancestral sampling.

A solver goes from an image to its noise and back, on one grid of levels sigma_0 < ... < sigma_N. Everything
moves in x_bar = x_t / sqrt(alpha_bar), where ``d x_bar / d sigma = eps`` (see ``schedule``). ``encode`` walks
up with the factual noise estimate, ``decode`` walks down with the counterfactual one.

    ddim      Euler both ways (Song et al. 2020, eq. 13): Diff-SCM's Algorithms 1 and 2. First order.
    anchored  DPM-Solver++(2M) (Lu et al. 2022, Algorithm 2) plus what each step misses: encoding stores
              r_i = x_{i-1} - step(x_i) under the factual parents, decoding adds it back. Second order; a null
              intervention returns the image at any N, by construction.
    belm      Variable-step leapfrog (O-BELM, Wang et al. 2024, eq. 18), invertible by algebra. Second order.
    ddpm      Ancestral sampling (Ho et al. 2020). Prior samples only: it has no inverse.
    jumps     A few jumps of a distilled denoiser, with residuals as ``anchored`` has: see ``distillation``.

Noise leaves: ``x_T`` (n, C, H, W), in the variance-preserving scale, so that its prior is N(0, I);
``residuals`` (n, k, C, H, W), whose prior is zero (for ``ddpm``: N(0, I)).
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import Annotated, ClassVar, Literal, final

import torch
from pydantic import Field, model_validator
from torch import Generator, Tensor

from graphs.declared import Declared
from graphs.errors import CannotAbductError, MechanismError
from mechanisms.diffusion.schedule import AnyGrid, DDPMGrid, LogGrid
from mechanisms.registry import Registry

__all__ = [
    "Anchored",
    "AnySolver",
    "BELM",
    "DDIM",
    "DDPM",
    "Leaves",
    "NoiseEstimate",
    "SOLVERS",
    "Solver",
    "multistep",
    "standard_normal",
]

NoiseEstimate = Callable[[Tensor, float], Tensor]
"""eps(x_bar, sigma): the estimated noise of x_bar (N, C, H, W) at level sigma."""

Leaves = Mapping[str, Tensor]
"""The noise of n images by name, (n, ...) each: ``x_T`` always, and what else the solver must remember."""


def standard_normal(n: int, shape: tuple[int, ...], *, generator: Generator) -> Tensor:
    """(n, *shape) draws of N(0, 1), float32, where the generator is."""
    return torch.randn(n, *shape, generator=generator, device=generator.device, dtype=torch.float32)


class Solver(Declared, ABC, frozen=True):  # pyright: ignore[reportGeneralTypeIssues]
    """The options of a solver; plug-ins come from entry points of the group ``causalgen.solvers``.

    Attributes:
        steps: N.
        grid: the levels.
        thresholding: clip every estimate of x_0 to the image's range, up as down (static thresholding,
            Saharia et al. 2022, section 2.3). Guidance then weakens where it would only push pixels beyond
            black and white, so a larger weight belongs to it.
        invertible: whether ``encode`` recovers noise; without, the mechanism samples and cannot abduct. No
            default.
        needs_conditional: whether it takes estimates of a conditional denoiser alone, which do not change
            abruptly; no default.
        distilled: whether it takes a distilled denoiser's jumps, the last one to the clean image; see
            ``Jumps``.
    """

    invertible: ClassVar[bool]
    needs_conditional: ClassVar[bool]
    distilled: ClassVar[bool] = False

    kind: str
    steps: int = Field(default=16, ge=1, le=1000)
    grid: AnyGrid = LogGrid()
    thresholding: bool = False

    @model_validator(mode="after")
    def _levels_exist(self) -> "Solver":
        sigma = self.grid.sigmas(self.steps)
        if not bool(sigma.isfinite().all()):
            raise ValueError(f"the levels must be finite, got sigma up to {sigma.max():g} from {self.grid!r}")
        if sigma.shape != (self.steps + 1,) or not bool((sigma > 0).all() and (sigma.diff() > 0).all()):
            raise ValueError(
                f"{self.steps} steps need {self.steps + 1} levels above 0, each above the one before it, got "
                f"{len(sigma)}, from sigma {sigma[0]:g} to {sigma[-1]:g}, from {self.grid!r}"
            )
        return self

    @abstractmethod
    def sample_noise(self, n: int, shape: tuple[int, ...], *, generator: Generator) -> Leaves:
        """The noise of n prior samples of images of this shape, with the leaves that ``encode`` gives."""

    @abstractmethod
    def encode(self, image: Tensor, eps: NoiseEstimate) -> Leaves:
        """The noise of images x_bar (N, C, H, W) at sigma_0.

        Raises:
            CannotAbductError: the solver is not invertible.
        """

    @abstractmethod
    def decode(self, noise: Leaves, eps: NoiseEstimate) -> Tensor:
        """Images x_bar (N, C, H, W) at sigma_0 of this noise."""

    @final
    def levels(self) -> list[float]:
        """sigma_0 < ... < sigma_N."""
        return self.grid.sigmas(self.steps).tolist()

    @final
    def thresholded(self, eps: NoiseEstimate) -> NoiseEstimate:
        """``eps`` to follow: with ``thresholding``, its x_0 = x_bar - sigma eps is clipped to [-1, 1]."""
        if not self.thresholding:
            return eps

        def within(x: Tensor, sigma: float) -> Tensor:
            estimate = eps(x, sigma)
            clean = x - sigma * estimate
            # Zero where nothing is out of range, so that eps stays free of cancellation there.
            return estimate + (clean - clean.clamp(-1, 1)) / sigma

        return within

    @final
    def to_noise(self, top: Tensor) -> Tensor:
        """x_T in the variance-preserving scale from x_bar at sigma_N."""
        return top / (1 + self.levels()[-1] ** 2) ** 0.5

    @final
    def from_noise(self, x_T: Tensor) -> Tensor:
        """Inverse of ``to_noise``."""
        return x_T * (1 + self.levels()[-1] ** 2) ** 0.5


SOLVERS: Registry[type[Solver]] = Registry(
    "solver",
    "causalgen.solvers",
    Solver,
    {
        "anchored": "mechanisms.diffusion.solvers:Anchored",
        "belm": "mechanisms.diffusion.solvers:BELM",
        "ddim": "mechanisms.diffusion.solvers:DDIM",
        "ddpm": "mechanisms.diffusion.solvers:DDPM",
        "jumps": "mechanisms.diffusion.distillation:Jumps",
    },
)
AnySolver = Annotated[Solver, SOLVERS]
"""A field that holds any solver, told by its ``kind``."""


@final
class DDIM(Solver, frozen=True):
    """Deterministic DDIM, up and down the same levels, inverse up to first order; 2 N evaluations."""

    invertible: ClassVar[bool] = True
    needs_conditional: ClassVar[bool] = False

    kind: Literal["ddim"] = "ddim"

    def sample_noise(self, n: int, shape: tuple[int, ...], *, generator: Generator) -> Leaves:
        """x_T alone."""
        return {"x_T": standard_normal(n, shape, generator=generator)}

    def encode(self, image: Tensor, eps: NoiseEstimate) -> Leaves:
        """Algorithm 2: x_T of a clean image."""
        sigma, x = self.levels(), image
        for i in range(self.steps):
            x = x + (sigma[i + 1] - sigma[i]) * eps(x, sigma[i])
        return {"x_T": self.to_noise(x)}

    def decode(self, noise: Leaves, eps: NoiseEstimate) -> Tensor:
        """Algorithm 1 (with a guided ``eps``, Algorithm 3): the image at sigma_0."""
        sigma, x = self.levels(), self.from_noise(noise["x_T"])
        for i in range(self.steps, 0, -1):
            x = x + (sigma[i - 1] - sigma[i]) * eps(x, sigma[i])
        return x


@final
class Anchored(Solver, frozen=True):
    """Second-order multistep with step residuals; 2 N + 1 evaluations, 2 N without residuals.

    Attributes:
        residuals: keep what each step misses. Without, the null is only as good as the solver.
    """

    invertible: ClassVar[bool] = True
    needs_conditional: ClassVar[bool] = False

    kind: Literal["anchored"] = "anchored"
    residuals: bool = True

    def sample_noise(self, n: int, shape: tuple[int, ...], *, generator: Generator) -> Leaves:
        """x_T, and residuals of zero."""
        noise = {"x_T": standard_normal(n, shape, generator=generator)}
        if self.residuals:
            noise["residuals"] = noise["x_T"].new_zeros(n, self.steps, *shape)
        return noise

    def encode(self, image: Tensor, eps: NoiseEstimate) -> Leaves:
        """Walk up, then look back down for what each step misses."""
        sigma = self.levels()
        states, denoised = [image], list[Tensor]()
        for i in range(self.steps):
            denoised.append(states[i] - sigma[i] * eps(states[i], sigma[i]))
            latest, behind = denoised[:-3:-1], sigma[max(i - 1, 0) : i + 1][::-1]
            states.append(multistep(states[i], latest, behind, sigma[i + 1]))
        noise = {"x_T": self.to_noise(states[-1])}
        if self.residuals:
            denoised.append(states[-1] - sigma[-1] * eps(states[-1], sigma[-1]))
            missed = [
                states[i - 1] - multistep(states[i], denoised[i : i + 2], sigma[i : i + 2], sigma[i - 1])
                for i in range(self.steps, 0, -1)
            ]
            noise["residuals"] = torch.stack(missed, 1)
        return noise

    def decode(self, noise: Leaves, eps: NoiseEstimate) -> Tensor:
        """Walk down from x_T, adding back each step's residual: the image at sigma_0."""
        sigma, x = self.levels(), self.from_noise(noise["x_T"])
        denoised = list[Tensor]()
        for i in range(self.steps, 0, -1):
            denoised = [x - sigma[i] * eps(x, sigma[i]), *denoised[:1]]
            x = multistep(x, denoised, sigma[i : i + 2], sigma[i - 1])
            if self.residuals:
                x = x + noise["residuals"][:, self.steps - i]
        return x


def multistep(x: Tensor, denoised: list[Tensor], sigma: list[float], target: float) -> Tensor:
    """One DPM-Solver++(2M) step of x_bar from sigma[0] to ``target``, up or down.

    ``denoised`` are estimates of x_0 at the levels ``sigma``: of x and, but for the first step, before.
    """
    ratio = target / sigma[0]
    best = denoised[0]
    if len(denoised) > 1:
        # h_n / h_{n-1} in lambda = -log sigma (Lu et al. 2022, eq. 13 ff.).
        step, before = math.log(sigma[0] / target), math.log(sigma[1] / sigma[0])
        best = best + (step / before / 2) * (denoised[0] - denoised[1])
    return ratio * x + (1 - ratio) * best


@final
class BELM(Solver, frozen=True):
    """Variable-step leapfrog: exactly invertible, for conditional denoisers on geometric grids.

    The noise is the pair at the two top levels; it is kept as x_T and what the DDIM step from x_T misses of
    its partner, so that a prior draw is x_T alone. 2 N + 1 evaluations.

    Attributes:
        max_spread: largest standard deviation of x_T over a row's pixels; never below what draws of the prior
            reach, 1.2 of 784 pixels and 3.9 of 4. On
            stiff fields the leapfrog drifts, and an exploded latent decodes to nonsense under any other
            parents: refused beyond this.
    """

    invertible: ClassVar[bool] = True
    needs_conditional: ClassVar[bool] = True  # the leapfrog drifts on unconditional fields

    kind: Literal["belm"] = "belm"
    steps: int = Field(default=16, ge=2, le=1000)
    max_spread: float = Field(default=2.0, gt=1)

    @model_validator(mode="after")
    def _geometric(self) -> "BELM":
        ratios = self.grid.sigmas(self.steps).log().diff()
        if not torch.allclose(ratios, ratios[:1].expand_as(ratios)):
            raise ValueError(f"belm needs a geometric grid (kind: log), got {self.grid.kind!r}")
        return self

    def sample_noise(self, n: int, shape: tuple[int, ...], *, generator: Generator) -> Leaves:
        """x_T, and a partner that one DDIM step makes of it."""
        x_T = standard_normal(n, shape, generator=generator)
        return {"x_T": x_T, "residuals": torch.zeros_like(x_T)[:, None]}

    def encode(self, image: Tensor, eps: NoiseEstimate) -> Leaves:
        """Walk up by the leapfrog's own inverse."""
        sigma = self.levels()
        below, x = image, image + (sigma[1] - sigma[0]) * eps(image, sigma[0])
        for i in range(1, self.steps):
            down, up = sigma[i] - sigma[i - 1], sigma[i + 1] - sigma[i]
            share, slope = down**2 / up**2, down * (down + up) / up
            below, x = x, (below - (1 - share) * x + slope * eps(x, sigma[i])) / share
        partner = x + (sigma[-2] - sigma[-1]) * eps(x, sigma[-1])
        noise = {"x_T": self.to_noise(x), "residuals": (below - partner)[:, None]}
        self._check_spread(noise["x_T"])
        return noise

    def decode(self, noise: Leaves, eps: NoiseEstimate) -> Tensor:
        """Walk down from the pair: the image at sigma_0."""
        sigma, above = self.levels(), self.from_noise(noise["x_T"])
        x = above + (sigma[-2] - sigma[-1]) * eps(above, sigma[-1]) + noise["residuals"][:, 0]
        for i in range(self.steps - 1, 0, -1):
            down, up = sigma[i] - sigma[i - 1], sigma[i + 1] - sigma[i]
            share, slope = down**2 / up**2, down * (down + up) / up
            above, x = x, share * above + (1 - share) * x - slope * eps(x, sigma[i])
        return x

    def _check_spread(self, x_T: Tensor) -> None:
        numbers = x_T.flatten(1)
        spread = numbers.std(1, correction=0)  # 0 of a single number
        most = max(self.max_spread, _largest_spread(numbers.shape[1]))
        if bool((spread > most).any()) or not bool(spread.isfinite().all()):
            row = int(spread.nan_to_num(torch.inf).argmax())
            raise MechanismError(
                f"Solver 'belm' drifted: the latent of row {row} has standard deviation {spread[row]:.2f}, "
                f"expected about 1 and at most {most:.3g}. Use solver 'anchored', or more steps "
                f"than {self.steps}."
            )


def _largest_spread(numbers: int) -> float:
    """What the standard deviation of so many N(0, 1) numbers exceeds in a row of 1e9 at most.

    Its square is a chi-squared, whose upper tail is that of Laurent and Massart (2000, lemma 1). Of a few
    numbers it varies so much that a limit made for images refuses draws of the prior.
    """
    free, rare = numbers - 1, math.log(1e9)
    return ((free + 2 * (free * rare) ** 0.5 + 2 * rare) / numbers) ** 0.5


@final
class DDPM(Solver, frozen=True):
    """Ancestral sampling, for prior samples; N evaluations."""

    invertible: ClassVar[bool] = False
    needs_conditional: ClassVar[bool] = False

    kind: Literal["ddpm"] = "ddpm"
    steps: int = Field(default=99, ge=2, le=1000)
    grid: AnyGrid = DDPMGrid()

    def sample_noise(self, n: int, shape: tuple[int, ...], *, generator: Generator) -> Leaves:
        """x_T, and the fresh noise of each step."""
        x_T = standard_normal(n, shape, generator=generator)
        return {"x_T": x_T, "residuals": standard_normal(n, (self.steps, *shape), generator=generator)}

    def encode(self, image: Tensor, eps: NoiseEstimate) -> Leaves:
        """Refused: ancestral sampling has no inverse."""
        raise CannotAbductError(
            "Solver 'ddpm' samples but cannot recover an image's noise. Use 'anchored', 'belm' or 'ddim': "
            'scm.with_options(node, solver={"kind": "anchored"}).'
        )

    def decode(self, noise: Leaves, eps: NoiseEstimate) -> Tensor:
        """The posterior mean of each level given x_0's estimate, plus its noise: the image at sigma_0."""
        sigma, x = self.levels(), self.from_noise(noise["x_T"])
        for i in range(self.steps, 0, -1):
            share = sigma[i - 1] ** 2 / sigma[i] ** 2
            # q(x_bar_{i-1} | x_bar_i, x_0) has mean x_0 + share (x_bar_i - x_0) and this variance.
            spread = sigma[i - 1] * (1 - share) ** 0.5
            x = x + (share - 1) * sigma[i] * eps(x, sigma[i]) + spread * noise["residuals"][:, self.steps - i]
        return x
