"""Inference of a program's noise by gradients: variational (SVI) and Hamiltonian Monte Carlo (Pyro's NUTS).

SVI   z ~ N(loc, L L') for each row, fitted to the evidence lower bound
NUTS  Markov chains by the No-U-Turn Sampler (Hoffman & Gelman 2014). One chain moves all rows at once: their
      joint posterior is the product of the rows', so that each row's part of the chain has the row's own
      posterior as its law

The options of ``inference`` are here too. Parameters are tensors of this module's own: Pyro's parameter store
is never used.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import cos, log, pi
from typing import Annotated, Any, Literal

import pyro.distributions as dist
import torch
from pydantic import Field
from pyro.infer import mcmc
from pyro.ops.stats import effective_sample_size, split_gelman_rubin
from torch import Tensor

from graphs.declared import Declared
from graphs.errors import warn
from mechanisms.program.posterior import ProgramPosterior
from mechanisms.rows import rank_among_equals

__all__ = ["Chains", "Guide", "Importance", "Inference", "NUTS", "SVI", "fit_guide", "run_chains"]


_Count = Annotated[int, Field(ge=1, le=2**17)]


class Importance(Declared):
    """Prior draws, weighted, and more draws where these say little: for any program.

    The option ``particles`` of the mechanism says how many come first.
    """

    kind: Literal["importance"] = "importance"


class SVI(Declared):
    """Stochastic variational inference: a normal guide for each distinct row, all rows at once.

    Draws are then weighted against the guide, so that answers are consistent whatever the guide misses; a
    tenth of them comes from the prior, which bounds the weights (defensive importance sampling, Hesterberg
    1995).

    Attributes:
        guide: "multivariate", with correlations within a row, or "normal", without.
        steps: of Adam on the evidence lower bound.
        learning_rate: of the first step, in deviations of the prior; it falls to 0 along a cosine.
        particles: draws of the bound in each step.
        draws: from the guide, behind each abducted row.
    """

    kind: Literal["svi"] = "svi"
    guide: Literal["multivariate", "normal"] = "multivariate"
    steps: int = Field(default=300, ge=0, le=100_000)
    learning_rate: float = Field(default=0.05, gt=0, allow_inf_nan=False)
    particles: _Count = 8
    draws: int = Field(default=100, ge=2, le=2**17)


class NUTS(Declared):
    """Hamiltonian Monte Carlo, the No-U-Turn Sampler: all distinct rows at once, for posteriors of any shape.

    Equal rows take different draws of their common chains.

    Attributes:
        warmup: steps of each chain that adapt the sampler and are dropped.
        draws: that each chain keeps.
        chains: of each row, one after the other; R-hat compares them and their halves.
        target_accept: acceptance that the step size aims at; higher takes smaller steps.
        max_tree_depth: a step evaluates the program at most 2 to the power of this many times.
    """

    kind: Literal["nuts"] = "nuts"
    warmup: _Count = 200
    draws: int = Field(default=200, ge=4, le=2**17)
    chains: int = Field(default=2, ge=1, le=64)
    target_accept: float = Field(default=0.8, gt=0, lt=1)
    max_tree_depth: int = Field(default=8, ge=1, le=12)


Inference = Annotated[Importance | SVI | NUTS, Field(discriminator="kind", title="inference")]
"""What ``{kind: program, inference: ...}`` may say."""


_LARGEST_R_HAT = 1.05
_FLOOR = -1e6
"""Stands for log 0 in the bound, which is then finite; it has no gradient."""


@dataclass(frozen=True)
class Guide:
    """A normal law of z for each of U rows: ``loc`` (U, D), and ``root`` (U, D, D), lower triangular."""

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

    optimiser = torch.optim.Adam(free)
    for step in range(options.steps):
        law = guide().law
        z = law.rsample((options.particles,))
        joint, _ = posterior.log_joint(z)
        loss = (law.log_prob(z) - joint.clamp(min=_FLOOR)).mean(0).sum()
        gradients = torch.autograd.grad(loss, free)
        for parameter, gradient in zip(free, gradients, strict=True):
            # Where rounding overflows in one draw, that step is left out.
            parameter.grad = gradient.nan_to_num(0.0, 0.0, 0.0)
        optimiser.param_groups[0]["lr"] = options.learning_rate * 0.5 * (1 + cos(pi * step / options.steps))
        optimiser.step()
    fitted = guide()
    return Guide(fitted.loc.detach(), fitted.root.detach())


@dataclass(frozen=True)
class Chains:
    """Draws of the posterior of U rows."""

    z: Tensor  # (chains, draws, U, D)
    acceptance: float  # mean over chains of the sampler's acceptance
    divergences: int  # draws that left the region where the sampler follows the posterior, of all chains

    @property
    def r_hat(self) -> Tensor:
        """(U,) the largest split R-hat of the row's components (Gelman et al. 2013); 1 where chains agree."""
        return _over_components(split_gelman_rubin(self.z, 0, 1), 1.0).amax(-1)

    @property
    def effective(self) -> Tensor:
        """(U,) the least effective sample size of the row's components, at most all draws."""
        total = self.z.shape[0] * self.z.shape[1]
        return _over_components(effective_sample_size(self.z, 0, 1), float(total)).amin(-1).clamp(1, total)

    def draw(self, inverse: Tensor, generator: torch.Generator) -> tuple[Tensor, dict[str, Tensor]]:
        """A draw for each of N rows, (N, D), and their figures, (N,) by name.

        Of U rows the rows of ``inverse``, (N,); equal rows take different draws, if enough.
        """
        draws = self.z.flatten(0, 1)
        shuffled = torch.randperm(len(draws), generator=generator, device=generator.device)
        chosen = shuffled[rank_among_equals(inverse) % len(draws)]
        common = torch.ones(len(inverse), dtype=torch.float64, device=draws.device)
        return draws[chosen, inverse], {
            "effective_sample_size": self.effective[inverse],
            "r_hat": self.r_hat[inverse],
            "acceptance": common * self.acceptance,
            "divergences": common * self.divergences,
        }

    def warn(self) -> None:
        """Warn where the draws are not to be trusted."""
        bad = self.r_hat > _LARGEST_R_HAT
        if bool(bad.any()) or self.divergences:
            warn(
                f"NUTS: R-hat is above {_LARGEST_R_HAT} in {int(bad.sum())} of {len(bad)} rows, up to "
                f"{self.r_hat.max().item():.2f}, with {self.divergences} divergences. Answers for these rows "
                "are rough; raise warmup, draws or target_accept, or use inference: {kind: importance}."
            )


def run_chains(posterior: ProgramPosterior, options: NUTS) -> Chains:
    """Chains from weighted pilot draws; they draw from the global random state."""

    def potential(values: dict[str, Tensor]) -> Tensor:
        joint, _ = posterior.log_joint(values["z"][None])
        return -joint.sum()

    parts, acceptance, divergences = [], 0.0, 0
    for _ in range(options.chains):
        kernel = mcmc.NUTS(
            potential_fn=potential,
            target_accept_prob=options.target_accept,
            max_tree_depth=options.max_tree_depth,
        )
        chain = mcmc.MCMC(
            kernel,
            num_samples=options.draws,
            warmup_steps=options.warmup,
            initial_params={"z": _start(posterior)},
            disable_progbar=True,
        )
        chain.run()
        parts.append(chain.get_samples()["z"].detach())
        told = chain.diagnostics()
        acceptance += float(told["acceptance rate"]["chain 0"]) / options.chains
        divergences += len(told["divergences"]["chain 0"])
    return Chains(torch.stack(parts), acceptance, divergences)


def _start(posterior: ProgramPosterior) -> Tensor:
    """One pilot draw for each row, by its weight, (U, D)."""
    chosen = torch.multinomial(posterior.pilot_weights.softmax(0).T, 1)[:, 0]
    return posterior.pilot[chosen, torch.arange(posterior.rows, device=chosen.device)]


def _over_components(figure: Tensor, otherwise: float) -> Tensor:
    """A component that never moved has no figure: then ``otherwise``."""
    return torch.where(figure.isfinite(), figure, torch.full_like(figure, otherwise))
