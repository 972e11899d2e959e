"""Markov chains on a program's noise by Pyro's No-U-Turn Sampler (Hoffman & Gelman 2014).

One chain moves all rows at once: their joint posterior is the product of the rows', so that each row's part
of the chain has the row's own posterior as its law.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import torch
from pyro.infer.mcmc import MCMC, NUTS
from pyro.ops.stats import effective_sample_size, split_gelman_rubin
from torch import Tensor

from mechanisms.distinct_rows import rank_among_equals
from mechanisms.program import inference as program_inference
from mechanisms.program.latents import ProgramPosterior

__all__ = ["Chains", "run_chains"]

_LARGEST_R_HAT = 1.05


@dataclass(frozen=True)
class Chains:
    """Draws of the posterior of U rows.

    Attributes:
        z: (chains, draws, U, D).
        acceptance: mean over chains of the sampler's acceptance.
        divergences: draws that left the region where the sampler follows the posterior, of all chains.
    """

    z: Tensor
    acceptance: float
    divergences: int

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

        Args:
            inverse: (N,) which of the U rows each one is; equal rows take different draws, if enough.
            generator: of the choice.
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
            warnings.warn(
                f"NUTS: R-hat is above {_LARGEST_R_HAT} in {int(bad.sum())} of {len(bad)} rows, up to "
                f"{self.r_hat.max().item():.2f}, with {self.divergences} divergences. Answers for these rows "
                "are rough; raise warmup, draws or target_accept, or use inference: {kind: importance}.",
                UserWarning,
                stacklevel=2,
            )


def run_chains(posterior: ProgramPosterior, options: program_inference.NUTS) -> Chains:
    """Chains from weighted pilot draws; they draw from the global random state."""

    def potential(values: dict[str, Tensor]) -> Tensor:
        joint, _ = posterior.log_joint(values["z"][None])
        return -joint.sum()

    parts, acceptance, divergences = [], 0.0, 0
    for _ in range(options.chains):
        kernel = NUTS(
            potential_fn=potential,
            target_accept_prob=options.target_accept,
            max_tree_depth=options.max_tree_depth,
        )
        chain = MCMC(
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
