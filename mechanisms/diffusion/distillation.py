"""Distillation of the probability flow, in both directions, to N jumps up and N jumps down.

Between the levels of a coarse grid, sigma_0 < ... < sigma_N, a student u replaces the many small steps of the
flow ``d x_bar / d sigma = eps`` by its mean velocity (Luhman & Luhman 2021; Geng et al. 2025):

    x_b = x_a + (sigma_b - sigma_a) u(x_a, sigma_a -> sigma_b; pa, z)

It is the denoiser's network with a column more, for the level to reach, and starts as the denoiser (u = eps).
The last jump down goes to sigma = 0, the clean image, so that no denoising step follows:

    up      x + sigma_0 z = s_0 -> s_1 -> ... -> s_N          under the factual parents
    down    s_N -> ... -> s_1 -> D(s_0)                       under these, the same path backwards
    other   s_N -> o_{N-1} -> ... -> o_1 -> D(o_0)            under parents that differ

It is fitted to a fitted model. Noise is a draw of the posterior, along the denoiser as it was learned;
guidance and levels that the student never saw are refused. The teacher, the denoiser followed in small
second-order steps, walks these paths once for some training rows; the student learns their ends. Starts of
its later jumps are the teacher's at first, then the points that the student itself has come to, so that a
later jump mends what an earlier one missed. With r = pixel_std,

    loss = (sigma_a^2 + r^2) / r^2 |u - (x_b - x_a) / (sigma_b - sigma_a)|^2,

the error of x_b in pixel deviations at the end of a jump down, and in deviations of its noise after one up.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Annotated, ClassVar, Literal, final

import torch
from pydantic import Field, model_validator
from torch import Generator, Tensor, nn

from graphs.declared import Declared
from graphs.errors import MechanismError
from graphs.variables import Image, Variable
from mechanisms.base import Parents
from mechanisms.diffusion.backbones import Backbone
from mechanisms.diffusion.code import Code
from mechanisms.diffusion.denoiser import Denoiser, Denoising, column
from mechanisms.diffusion.guidance import Guidance
from mechanisms.diffusion.schedule import AnyGrid, LogGrid
from mechanisms.diffusion.solvers import Leaves, NoiseEstimate, Solver, multistep, standard_normal
from mechanisms.options import take_weights
from mechanisms.rows import by_row
from mechanisms.training import Training, fills

__all__ = ["Distillation", "Distilled", "Jump", "Jumps", "Paths", "Student", "check_jumps", "refuse_fit"]

_TRAINING = Training(epochs=14, batch_size=64, learning_rate=5e-4, validation=0.02)

_GRID = LogGrid(sigma_min=0.1, sigma_max=80.0)
"""Of two jumps, the middle level lies where an image's content is settled, and both are about as hard."""

_OWN_STARTS = 0.5
"""Share of the training after which later jumps start where the student came to."""


class Distilled(Declared):
    """Options of a distilled flow, which solver ``jumps`` takes.

    Attributes:
        steps: N.
        grid: its levels.
        substeps: steps of the teacher in a jump.
        rows: training rows whose paths the teacher walks, at most.
        training: settings of the loop, over these rows.
    """

    steps: int = Field(default=2, ge=1, le=16)
    grid: AnyGrid = _GRID
    substeps: int = Field(default=8, ge=1, le=64)
    rows: int = Field(default=12_000, ge=2)
    training: Annotated[Training, fills(_TRAINING)] = _TRAINING

    def jumps(self) -> Jumps:
        """The solver that it serves."""
        return Jumps(steps=self.steps, grid=self.grid)


class Jump(float):
    """A level sigma_a with the level to reach: what ``Jumps`` asks a student for, in the place of a level."""

    target: float

    def __new__(cls, sigma: float, target: float) -> Jump:
        """From one level to another."""
        made = super().__new__(cls, sigma)
        made.target = target
        return made


@final
class Jumps(Solver, frozen=True):
    """N jumps up and N down of a distilled denoiser, N more for the residuals; see ``distillation``.

    Attributes:
        residuals: keep what each jump down misses of the jumps up. Without, the null is only as good as the
            student.
    """

    invertible: ClassVar[bool] = True
    needs_conditional: ClassVar[bool] = True  # the student learned no other field
    distilled: ClassVar[bool] = True

    kind: Literal["jumps"] = "jumps"
    steps: int = Field(default=2, ge=1, le=16)
    grid: AnyGrid = _GRID
    residuals: bool = True

    @model_validator(mode="after")
    def _unclipped(self) -> Jumps:
        if self.thresholding:
            raise ValueError("jumps estimate no x_0 that could be clipped: leave `thresholding` out")
        return self

    def sample_noise(self, n: int, shape: tuple[int, ...], *, generator: Generator) -> Leaves:
        """x_T, and residuals of zero."""
        noise = {"x_T": standard_normal(n, shape, generator=generator)}
        if self.residuals:
            noise["residuals"] = noise["x_T"].new_zeros(n, self.steps, *shape)
        return noise

    def encode(self, image: Tensor, eps: NoiseEstimate) -> Leaves:
        """Jump up, then look back down for what each jump misses, the last of the image as it entered."""
        states = [image]
        for here, there in pairwise(self.levels()):
            states.append(_jump(states[-1], eps, here, there))
        noise = {"x_T": self.to_noise(states[-1])}
        if self.residuals:
            ways = zip(states[:0:-1], states[-2::-1], self._down(), strict=True)
            missed = [below - _jump(above, eps, *levels) for above, below, levels in ways]
            noise["residuals"] = torch.stack(missed, 1)
        return noise

    def decode(self, noise: Leaves, eps: NoiseEstimate) -> Tensor:
        """Jump down from x_T, adding back each jump's residual: the clean image."""
        x = self.from_noise(noise["x_T"])
        for number, (here, there) in enumerate(self._down()):
            x = _jump(x, eps, here, there)
            if self.residuals:
                x = x + noise["residuals"][:, number]
        return x

    def _down(self) -> list[tuple[float, float]]:
        """Levels of each jump down, the last one to 0."""
        return list(pairwise([*self.levels()[:0:-1], 0.0]))


def _jump(x: Tensor, eps: NoiseEstimate, here: float, there: float) -> Tensor:
    return x + (there - here) * eps(x, Jump(here, there))


def check_jumps(
    solver: Solver,
    distilled: Distilled | None,
    guidance: Guidance,
    abduction: str,
    code: Code | None,
    parents: Mapping[str, Variable],
) -> None:
    """Refuse solver ``jumps`` where its student never learned what it would be asked, by a MechanismError."""
    if distilled is None:
        raise MechanismError(
            "Solver 'jumps' needs a distilled flow, and this model has none. Make one (`causalgen distil`, "
            "cg.distil), or use solver 'anchored'."
        )
    own = distilled.jumps()
    if (solver.steps, solver.grid) != (own.steps, own.grid):
        raise MechanismError(
            f"Solver 'jumps' was distilled for {own.steps} steps on {own.grid!r}, but is asked for "
            f"{solver.steps} on {solver.grid!r}. Ask for those, or distil the model for these."
        )
    if not guidance.follows_learned(parents):
        raise MechanismError(
            f"Solver 'jumps' follows the conditional denoiser alone, but guidance {guidance.kind!r} has "
            f"{guidance.strength_option} {guidance.strength!r}. Give guidance {{kind: classifier_free, "
            "weight: 1}, or use solver 'anchored'."
        )
    if abduction != "posterior":
        raise MechanismError(
            f"Solver 'jumps' was distilled on draws of the noise, but abduction is {abduction!r}. Give "
            "`abduction: posterior`, or use solver 'anchored'."
        )
    if code and code.hidden:
        raise MechanismError(
            "Solver 'jumps' was distilled under codes, but the code is hidden. Show it, or use solver "
            "'anchored'."
        )


def refuse_fit(student: Student | None) -> None:
    """Refuse to fit a node whose flow is distilled, by a MechanismError: the student would stay as it was."""
    if student is not None:
        raise MechanismError(
            "A distilled flow is made from a fitted model, not by fitting. Leave `distilled` and solver "
            "'jumps' out, fit, and then distil the model (`causalgen distil`, cg.distil)."
        )


class Student(nn.Module):
    """u(x_a, sigma_a -> sigma_b; pa, z): a denoiser like another that is told the level to reach."""

    def __init__(
        self, image: Image, parents: Mapping[str, Variable], backbone: Backbone, like: Denoiser
    ) -> None:
        super().__init__()
        self.denoiser = Denoiser(image, parents, backbone, like.prediction, 0.0, like.code, further=1)

    @torch.no_grad()
    def start(self, teacher: Denoiser) -> None:
        """Begin as the denoiser: the new column has weight 0."""
        take_weights("The student cannot start as its teacher", self.denoiser, teacher)
        known = dict(teacher.named_buffers())
        for name, buffer in self.denoiser.named_buffers():
            buffer.copy_(known[name])

    def velocity(
        self, x: Tensor, sigma: Tensor, target: Tensor, parents: Parents, code: Tensor | None
    ) -> Tensor:
        """The mean of eps along the flow from x_bar (N, C, H, W) at sigma to the target, levels (N,)."""
        scale = self.denoiser.pixel_std
        told = ((target**2 + scale**2) / (sigma**2 + scale**2)).log() / 2
        return self.denoiser.eps(x, sigma, parents, code=code, further=told[:, None])

    def under(self, code: Tensor | None) -> Denoising:
        """As guidance asks it, of parents alone: the mean velocity of x_bar (N, C, H, W) over a jump.

        ``eps`` raises a MechanismError at a level without a target or with hidden parents: it saw neither.
        """

        def eps(x: Tensor, sigma: Tensor | float, parents: Parents, shown: Tensor | bool = True) -> Tensor:
            if not isinstance(sigma, Jump) or not bool(torch.as_tensor(shown).all()):
                raise MechanismError(
                    "A distilled denoiser knows jumps from level to level under all parents, but was asked "
                    "for the noise at one level or with parents hidden. Use solver 'anchored'."
                )
            sigmas, targets = (x.new_full((len(x),), level) for level in (sigma, sigma.target))
            return self.velocity(x, sigmas, targets, parents, code)

        return Denoising(self.denoiser.variables, eps)


@dataclass(frozen=True)
class Paths:
    """What a student is trained on: the teacher's paths of n rows."""

    states: Tensor  # s_0 .. s_N, D(s_0), o_{N-1} .. o_1, D(o_0), (n, 2 N + 2, C, H, W)
    parents: Parents  # factual ones by name, (n, *event)
    others: Parents  # those of ``other``
    code: Tensor | None  # (n, width), or None

    def rows(self, index: Tensor) -> Paths:
        """Some of the rows."""
        parents, others = (
            {name: each[index] for name, each in values.items()} for values in (self.parents, self.others)
        )
        return Paths(self.states[index], parents, others, None if self.code is None else self.code[index])

    @staticmethod
    def joined(parts: Sequence[Paths]) -> Paths:
        """The rows of several, one after another."""
        codes = [part.code for part in parts if part.code is not None]
        parents, others = (
            {name: torch.cat([getattr(part, what)[name] for part in parts]) for name in parts[0].parents}
            for what in ("parents", "others")
        )
        states = torch.cat([part.states for part in parts])
        return Paths(states, parents, others, torch.cat(codes) if codes else None)


class Distillation:
    """A student's training: paths and the loss on them. ``progress`` is the share that is done, in [0, 1]."""

    def __init__(self, spec: Distilled, teacher: Denoiser, student: Student) -> None:
        self.teacher, self.student, self.progress = teacher, student, 0.0
        self.levels = spec.jumps().levels()
        # Geometric within each jump, whatever the grid, so that the teacher passes every level of it.
        self._fine = [
            low * (high / low) ** (k / spec.substeps)
            for low, high in pairwise(self.levels)
            for k in range(spec.substeps)
        ] + self.levels[-1:]
        self._substeps, n = spec.substeps, spec.steps
        down = [*self.levels[:0:-1], 0.0]
        self._ways = (  # numbers of the states along each path, and their levels
            (list(range(n + 1)), self.levels),
            ([*range(n, 0, -1), n + 1], down),
            ([n, *range(n + 2, 2 * n + 2)], down),
        )

    def advance(self, share: float) -> None:
        """Be told the share of the training that is done."""
        self.progress = share

    @torch.no_grad()
    def walk(
        self, value: Tensor, parents: Parents, asked: Parents, code: Tensor | None, *, generator: Generator
    ) -> Paths:
        """The teacher's paths of images (N, C, H, W), up under their parents and down under others.

        Each other parent is that of another row, ``asked``, by the toss of a coin, all of them where none
        fell, so that all combinations that interventions make are met.
        """
        n, device = len(value), generator.device
        z = standard_normal(n, tuple(value.shape[1:]), generator=generator).to(value)
        coins = torch.rand(n, len(parents), generator=generator, device=device, dtype=torch.float32) < 0.5
        coins = (coins | ~coins.any(1, keepdim=True)).to(value.device)
        others = {
            name: torch.where(by_row(coins[:, k], each), asked[name], each)
            for k, (name, each) in enumerate(parents.items())
        }
        up, clean = self._followed(value + self.levels[0] * z, self._fine, parents, code)
        down, _ = self._followed(up[-1], self._fine[::-1], others, code)
        bottom = down[-1] - self.levels[0] * self.teacher.eps(down[-1], self.levels[0], others, code=code)
        return Paths(torch.stack([*up, clean, *down[1:-1], bottom], 1), parents, others, code)

    def _followed(
        self, x: Tensor, levels: Sequence[float], parents: Parents, code: Tensor | None
    ) -> tuple[list[Tensor], Tensor]:
        """States at the coarse levels on the way, the first included, and the first estimate of x_0."""
        states, denoised, behind, first = [x], list[Tensor](), list[float](), x
        for number, (here, there) in enumerate(pairwise(levels), 1):
            estimate = x - here * self.teacher.eps(x, here, parents, code=code)
            denoised, behind = [estimate, *denoised[:1]], [here, *behind[:1]]
            first = estimate if number == 1 else first
            x = multistep(x, denoised, behind, there)
            if number % self._substeps == 0:
                states.append(x)
        return states, first

    def loss(self, paths: Paths, *, generator: Generator) -> Tensor:
        """(n,) what the student misses of a jump drawn for each row, on a path drawn for each."""
        n, device = len(paths.states), paths.states.device
        draw = torch.rand(2, n, generator=generator, device=generator.device, dtype=torch.float32).to(device)
        way, at = (draw[0] * 3).long(), (draw[1] * (len(self.levels) - 1)).long()
        numbers = torch.tensor([each for each, _ in self._ways], device=device)[way]
        levels = torch.tensor([each for _, each in self._ways], device=device).to(paths.states)[way]
        parents = {
            name: torch.where(by_row(way == 2, own), paths.others[name], own)
            for name, own in paths.parents.items()
        }
        rows = torch.arange(n, device=device)
        x = paths.states[rows, numbers[rows, at]]
        if self.progress >= _OWN_STARTS:
            x = self._come_to(x, paths, numbers, levels, at, parents)
        here, there = levels[rows, at], levels[rows, at + 1]
        found = self.student.velocity(x, here, there, parents, paths.code)
        wanted = (paths.states[rows, numbers[rows, at + 1]] - x) / column(there - here)
        scale = self.student.denoiser.pixel_std**2
        return (found - wanted).square().flatten(1).mean(1) * (here**2 + scale) / scale

    @torch.no_grad()
    def _come_to(
        self, x: Tensor, paths: Paths, numbers: Tensor, levels: Tensor, at: Tensor, parents: Parents
    ) -> Tensor:
        """Starts of later jumps as the student itself comes to them from the start of the path."""
        x = x.clone()
        for first in range(int(at.max())):
            on = (at > first).nonzero()[:, 0]
            start = paths.states[on, numbers[on, 0]] if first == 0 else x[on]
            here, there = levels[on, first], levels[on, first + 1]
            own = {name: each[on] for name, each in parents.items()}
            code = None if paths.code is None else paths.code[on]
            velocity = self.student.velocity(start, here, there, own, code)
            x[on] = start + column(there - here) * velocity
        # Autocast keeps weights that it cast here, without a gradient, for the pass that needs one.
        torch.clear_autocast_cache()
        return x

    @torch.no_grad()
    def misses(self, paths: Paths) -> dict[str, float]:
        """How far the student ends from the teacher on each path: root mean squares, of held-out rows.

        "up: noise" is in deviations of the noise, "down: image" and "other: image" in those of pixels.
        """
        missed = []
        for number, (states, levels) in enumerate(self._ways):
            parents = paths.others if number == 2 else paths.parents
            x = paths.states[:, states[0]]
            for here, there in pairwise(levels):
                sigma, target = (x.new_full((len(x),), level) for level in (here, there))
                x = x + (there - here) * self.student.velocity(x, sigma, target, parents, paths.code)
            missed.append(float((x - paths.states[:, states[-1]]).square().mean().sqrt()))
        up, down, other = missed
        scale = float(self.student.denoiser.pixel_std)
        return {"up: noise": up / self.levels[-1], "down: image": down / scale, "other: image": other / scale}
