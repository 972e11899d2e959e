"""The training of a distilled flow: the teacher's paths, and the loss of a student on them.

The teacher, the denoiser followed in small second-order steps, walks these paths once for some training rows;
the student learns their ends. Starts of its later jumps are the teacher's at first, then the points that the
student itself has come to, so that a later jump mends what an earlier one missed. With r = pixel_std,

    loss = (sigma_a^2 + r^2) / r^2 |u - (x_b - x_a) / (sigma_b - sigma_a)|^2,

the error of x_b in pixel deviations at the end of a jump down, and in deviations of its noise after one up.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Generator, Tensor

from mechanisms.base import Parents
from mechanisms.diffusion.denoiser import Denoiser, column
from mechanisms.diffusion.distillation import Distilled, Student
from mechanisms.diffusion.solvers import multistep, standard_normal
from mechanisms.rows import by_row

__all__ = ["Distillation", "Paths"]

_OWN_STARTS = 0.5
"""Share of the training after which later jumps start where the student came to."""


@dataclass(frozen=True)
class Paths:
    """What a student is trained on: the teacher's paths of n rows."""

    states: Tensor  # s_0 .. s_N, D(s_0), o_{N-1} .. o_1, D(o_0), (n, 2 N + 2, C, H, W)
    parents: Parents  # factual ones by name, (n, *event)
    others: Parents  # those of ``other``
    code: Tensor | None  # (n, width), or None

    def rows(self, index: Tensor) -> "Paths":
        """Some of the rows."""
        parents, others = (
            {name: each[index] for name, each in values.items()} for values in (self.parents, self.others)
        )
        return Paths(self.states[index], parents, others, None if self.code is None else self.code[index])

    @staticmethod
    def joined(parts: Sequence["Paths"]) -> "Paths":
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
    def walk(self, value: Tensor, parents: Parents, code: Tensor | None, *, generator: Generator) -> Paths:
        """The teacher's paths of images (N, C, H, W), up under their parents and down under others.

        Each other parent comes from another row by the toss of a coin, all of them where none fell, so that
        all combinations that interventions make are met.
        """
        n, device = len(value), generator.device
        z = standard_normal(n, tuple(value.shape[1:]), generator=generator).to(value)
        coins = torch.rand(n, len(parents), generator=generator, device=device, dtype=torch.float32) < 0.5
        coins = (coins | ~coins.any(1, keepdim=True)).to(value.device)
        turn = torch.randperm(n, generator=generator, device=device).to(value.device)
        others = {
            name: torch.where(by_row(coins[:, k], each), each[turn], each)
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

        Returns:
            "up: noise", in deviations of the noise; "down: image" and "other: image", in those of pixels.
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
