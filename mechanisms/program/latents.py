"""A program's unknown noise as one real vector a row, and its posterior density there.

z  the noise e of all sites but the last, on the line by the bijection of its support (torch's biject_to)
log p(z, x) = log p(e) + log |de/dz| + log w(e),   w(e) = p(v | e) / |dx/dv| of the solved last site v
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import prod
from typing import Any

import torch
from torch import Tensor
from torch.distributions import biject_to

from graphs.errors import MechanismError
from mechanisms.program.run import ProgramRun

__all__ = ["Latents", "ProgramPosterior"]

Explain = Callable[[Mapping[str, Tensor]], tuple[dict[str, Tensor], Tensor, Tensor]]
"""Latent noise, (R * N, *event) by site -> noise of all sites, log w and log p(e), (R * N,) both."""


@dataclass(frozen=True)
class _Part:
    """One site's place in z."""

    columns: slice
    shape: tuple[int, ...]
    transform: Any


class Latents:
    """The layout of z.

    Attributes:
        width: D.
    """

    def __init__(self, run: ProgramRun) -> None:
        """Lay out the latent sites of a run of N rows.

        Raises:
            MechanismError: a site is discrete, or its support has no bijection from real numbers.
        """
        self.parts: dict[str, _Part] = {}
        self.width = 0
        *latent, _ = run.sites.items()
        for name, site in latent:
            if site.discrete:
                raise MechanismError(
                    f"Site {name!r} of the program is discrete, and neither 'svi' nor 'nuts' can infer it: "
                    "both follow gradients. Use inference: {kind: importance}."
                )
            try:
                transform: Any = biject_to(site.form.base.support)
            except NotImplementedError as error:
                raise MechanismError(
                    f"Site {name!r} of the program has values that are no smooth image of real numbers "
                    f"({error}). Use inference: {{kind: importance}}."
                ) from error
            shape = tuple(transform.inv(site.noise).shape[1:])
            self.parts[name] = _Part(slice(self.width, self.width + prod(shape)), shape, transform)
            self.width += prod(shape)

    def vector(self, noise: Mapping[str, Tensor], rows: int) -> Tensor:
        """Noise (R * N, *event) by site -> z, (R, N, D)."""
        columns = []
        for name, part in self.parts.items():
            leaf = noise[name].reshape(-1, rows, *noise[name].shape[1:])
            columns.append(part.transform.inv(leaf).reshape(len(leaf), rows, -1))
        return torch.cat(columns, -1)

    def noise(self, z: Tensor) -> tuple[dict[str, Tensor], Tensor]:
        """z (R, N, D) -> noise (R * N, *event) by site, and log |de/dz|, (R, N)."""
        leaves: dict[str, Tensor] = {}
        log_det = z.new_zeros(z.shape[:2])
        for name, part in self.parts.items():
            line = z[..., part.columns].reshape(*z.shape[:2], *part.shape)
            leaf = part.transform(line)
            bend = part.transform.log_abs_det_jacobian(line, leaf)
            log_det = log_det + bend.reshape(*z.shape[:2], -1).sum(-1)
            leaves[name] = leaf.reshape(-1, *leaf.shape[2:])
        return leaves, log_det


@dataclass(frozen=True)
class ProgramPosterior:
    """p(z | x) of N rows, up to a constant.

    Attributes:
        latents: the layout of z.
        explain: the program's answer to noise.
        pilot: (P, N, D) prior draws of z.
        pilot_weights: (P, N) their log importance weights.
        atomic: (N,) whether these weights are probabilities, beside which the density of z is nothing.
    """

    latents: Latents
    explain: Explain
    pilot: Tensor
    pilot_weights: Tensor
    atomic: Tensor

    @property
    def rows(self) -> int:
        """N."""
        return self.pilot.shape[1]

    def log_joint(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """log p(z, x) and log p(z), (R, N) both, of z (R, N, D); -inf where z cannot give x."""
        return self.explained_joint(z)[1:]

    def explained_joint(self, z: Tensor) -> tuple[dict[str, Tensor], Tensor, Tensor]:
        """``explained`` and ``log_joint`` at once."""
        leaves, log_det = self.latents.noise(z)
        noise, weight, prior = self.explain(leaves)
        prior = prior.reshape(log_det.shape) + log_det
        return noise, prior + weight.reshape(log_det.shape), prior

    def moments(self) -> tuple[Tensor, Tensor, Tensor]:
        """A first guess at the mean and deviation of z, and its prior deviation, (N, D) each.

        From the weighted pilot draws; where these are few, the deviation is a tenth of the prior one.
        """
        weights, prior = self.pilot_weights.softmax(0)[..., None], self.pilot.std(0)
        mean = (weights * self.pilot).sum(0)
        deviation = (weights * (self.pilot - mean).square()).sum(0).sqrt()
        return mean, torch.maximum(deviation, 0.1 * prior), prior

    def explained(self, z: Tensor) -> dict[str, Tensor]:
        """Noise of all sites that gives x, (R * N, *event) by site, of z (R, N, D)."""
        return self.explain(self.latents.noise(z)[0])[0]
