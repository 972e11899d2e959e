"""Variational inference of a program's noise: z ~ N(loc, L L') for each row, fitted by Pyro's ELBO.

The guide's parameters are tensors of this module's own: Pyro's parameter store is never used.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import cos, log, pi
from typing import Any

import pyro
import pyro.distributions as dist
import torch
from pyro.infer import Trace_ELBO
from torch import Tensor

from mechanisms.program.inference import SVI
from mechanisms.program.latents import ProgramPosterior

__all__ = ["Guide", "fit_guide"]

_FLOOR = -1e6
"""Stands for log 0 in the bound, which is then finite; it has no gradient."""


@dataclass(frozen=True)
class Guide:
    """A normal law of z for each of U rows.

    Attributes:
        loc: (U, D).
        root: (U, D, D), lower triangular.
    """

    loc: Tensor
    root: Tensor

    def rows(self, index: Tensor) -> Guide:
        """The guides of some rows; rows may repeat."""
        return Guide(self.loc[index], self.root[index])

    @property
    def law(self) -> Any:
        """As a Pyro distribution, batch shape (U,)."""
        return dist.MultivariateNormal(self.loc, scale_tril=self.root, validate_args=False)

    def propose(self, draws: int, prior: Tensor) -> Tensor:
        """(R + P, U, D): R draws from the guide, under the global random state, before P prior ones."""
        return torch.cat([self.law.sample(torch.Size((draws,))), prior])

    def log_mixture(self, z: Tensor, log_prior: Tensor, draws: int) -> Tensor:
        """log density of all that ``propose`` gives, (R + P, U), as draws of one mixture."""
        total = len(z)
        guide = self.law.log_prob(z) + log(draws / total)
        if draws == total:
            return guide
        return torch.logaddexp(guide, log_prior + log((total - draws) / total))


def fit_guide(posterior: ProgramPosterior, options: SVI) -> Guide:
    """The guide that maximises the evidence lower bound of every row; draws from the global random state.

    Rows do not share parameters: their bounds add up, and Adam works on each number by itself.
    """
    start, deviation, unit = posterior.moments()
    rows, width = start.shape
    # In units of the prior, so that one learning rate serves.
    shift, log_scale = torch.zeros_like(start), (deviation / unit).log()
    below = start.new_zeros(rows, width, width)
    free = [shift, log_scale] + ([below] if options.guide == "multivariate" and width > 1 else [])
    for parameter in free:
        parameter.requires_grad_()

    def guide() -> Guide:
        identity = torch.eye(width, dtype=start.dtype, device=start.device)
        root = (unit * log_scale.exp())[:, :, None] * (identity + below.tril(-1))
        return Guide(start + unit * shift, root)

    def pyro_guide() -> None:
        with pyro.plate("rows", rows, dim=-1):
            pyro.sample("z", guide().law)

    def pyro_model() -> None:
        with pyro.plate("rows", rows, dim=-1):
            flat = dist.Normal(start, 1.0, validate_args=False).to_event(1).mask(False)
            z = pyro.sample("z", flat)
            joint, _ = posterior.log_joint(z.reshape(-1, rows, width))
            pyro.factor("program", joint.clamp(min=_FLOOR).reshape(z.shape[:-1]))

    bound = Trace_ELBO(num_particles=options.particles, vectorize_particles=True, max_plate_nesting=1)
    optimiser = torch.optim.Adam(free)
    for step in range(options.steps):
        loss: Any = bound.differentiable_loss(pyro_model, pyro_guide)
        gradients = torch.autograd.grad(loss, free)
        for parameter, gradient in zip(free, gradients, strict=True):
            # Where rounding overflows in one draw, that step is left out.
            parameter.grad = gradient.nan_to_num(0.0, 0.0, 0.0)
        optimiser.param_groups[0]["lr"] = options.learning_rate * 0.5 * (1 + cos(pi * step / options.steps))
        optimiser.step()
    fitted = guide()
    return Guide(fitted.loc.detach(), fitted.root.detach())
