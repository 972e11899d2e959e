"""A world whose scores are known, as stand-ins for ``Denoiser`` and ``AnticausalPredictor``, in float64.

    digit ~ Categorical(weights),   (t_1, ..., t_Q) ~ N(0, C),   image | digit, t ~ N(centre[digit] + A t, S)

so the noised image given any parents is a Gaussian, or a mixture of K of them where the digit is hidden.
Given all parents the probability flow is affine and known: ``transport``.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from graphs.variables import Categorical, Continuous, Variable
from mechanisms.base import Parents

__all__ = ["EVENT", "ExactDenoiser", "ExactPredictor", "World"]

EVENT = (1, 2, 2)
"""Shape of the image; 4 pixels."""


class World:
    """The world's law, with ``digits`` categories (1: no such parent) and ``continuous`` scalar parents."""

    def __init__(self, digits: int, continuous: int) -> None:
        draw = torch.Generator().manual_seed(7)

        def normal(*shape: int) -> Tensor:
            return torch.randn(*shape, generator=draw, dtype=torch.float64)

        self.centres = 0.7 * normal(digits, 4)
        self.weights = torch.linspace(1, 2, digits, dtype=torch.float64)
        self.weights = self.weights / self.weights.sum()
        self.loading = 0.5 * normal(4, continuous)
        self.noise = 0.02 * torch.eye(4, dtype=torch.float64) + 0.03 * (root := normal(4, 4)) @ root.T
        self.spread = torch.eye(continuous, dtype=torch.float64) + 0.4 * (1 - torch.eye(continuous))
        self.tabular = [f"t{k}" for k in range(1, continuous + 1)]
        self.variables: dict[str, Variable] = {"digit": Categorical(digits)} if digits > 1 else {}
        self.variables |= {name: Continuous() for name in self.tabular}

    def draw(self, n: int, seed: int = 0) -> tuple[Tensor, dict[str, Tensor]]:
        """n images (n, *EVENT) with their parents."""
        generator = torch.Generator().manual_seed(seed)
        normal = torch.randn(n, 4 + len(self.tabular), generator=generator, dtype=torch.float64)
        digit = torch.multinomial(self.weights, n, replacement=True, generator=generator)
        t = normal[:, 4:] @ torch.linalg.cholesky(self.spread).T if self.tabular else normal[:, 4:]
        image = self.centres[digit] + t @ self.loading.T + normal[:, :4] @ torch.linalg.cholesky(self.noise).T
        parents = {name: t[:, k] for k, name in enumerate(self.tabular)}
        return image.view(n, *EVENT), ({"digit": digit} if "digit" in self.variables else {}) | parents

    def mean(self, parents: Parents) -> Tensor:
        """Mean image given all parents, (N, *EVENT)."""
        n = len(next(iter(parents.values())))
        mean = self.centres[parents.get("digit", torch.zeros(n, dtype=torch.long))]
        for k, name in enumerate(self.tabular):
            mean = mean + parents[name][:, None] * self.loading[:, k]
        return mean.view(n, *EVENT)

    def contract(self, image: Tensor, low: float, high: float) -> Tensor:
        """((S + low^2) / (S + high^2))^(1/2) times an image: the probability flow ``high`` -> ``low``."""
        values, vectors = torch.linalg.eigh(self.noise)
        scale = ((values + low**2) / (values + high**2)).sqrt()
        return (image.flatten(1) @ (vectors * scale) @ vectors.T).view(image.shape)

    def transport(self, image: Tensor, factual: Tensor, other: Tensor, low: float, high: float) -> Tensor:
        """Up from ``low`` to ``high`` around the mean ``factual``, down around ``other``: an affine map."""
        return image + (other - factual) - self.contract(other - factual, low, high)

    def components(
        self, n: int, sigma: float, parents: Parents, shown: Sequence[str]
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Of x_bar given the shown parents: means (N, K, 4), covariance (4, 4), log weights (N, K)."""
        seen = [k for k, name in enumerate(self.tabular) if name in shown]
        rest = [k for k, name in enumerate(self.tabular) if name not in shown]
        t = torch.zeros(n, len(self.tabular), dtype=torch.float64)
        covariance = self.noise + sigma**2 * torch.eye(4, dtype=torch.float64)
        regression = torch.linalg.solve(self.spread[seen][:, seen], self.spread[seen][:, rest])
        if seen:
            t[:, seen] = torch.stack([parents[self.tabular[k]] for k in seen], 1)
            t[:, rest] = t[:, seen] @ regression
        left = self.spread[rest][:, rest] - self.spread[rest][:, seen] @ regression
        covariance = covariance + self.loading[:, rest] @ left @ self.loading[:, rest].T
        log_weights = self.weights.log().expand(n, -1)
        if "digit" in shown:
            other = nn.functional.one_hot(parents["digit"], len(self.weights)) == 0
            log_weights = log_weights.masked_fill(other, -math.inf)
        return self.centres + (t @ self.loading.T)[:, None], covariance, log_weights

    def log_density(self, x: Tensor, sigma: float, parents: Parents, shown: Sequence[str]) -> Tensor:
        """log p(x_bar, shown parents), (N,), for x_bar (N, 4)."""
        means, covariance, log_weights = self.components(len(x), sigma, parents, shown)
        density = log_weights + _log_normal(x[:, None] - means, covariance)
        seen = [k for k, name in enumerate(self.tabular) if name in shown]
        prior = torch.zeros(len(x), dtype=torch.float64)
        if seen:
            t = torch.stack([parents[self.tabular[k]] for k in seen], 1)
            prior = _log_normal(t, self.spread[seen][:, seen])
        return density.logsumexp(1) + prior

    def eps(self, x: Tensor, sigma: float, parents: Parents, shown: Sequence[str]) -> Tensor:
        """-sigma times the score of x_bar (N, *EVENT) given the shown parents, in closed form."""
        means, covariance, log_weights = self.components(len(x), sigma, parents, shown)
        offset = x.flatten(1)[:, None] - means
        share = (log_weights + _log_normal(offset, covariance)).softmax(1)
        pull = torch.linalg.solve(covariance, (share[..., None] * offset).sum(1).T).T
        return (sigma * pull).view(x.shape)


def _log_normal(offset: Tensor, covariance: Tensor) -> Tensor:
    """log N(offset; 0, covariance) over the last axis."""
    size = covariance.shape[-1]
    quadratic = (offset * torch.linalg.solve(covariance, offset.unsqueeze(-1)).squeeze(-1)).sum(-1)
    return -0.5 * (quadratic + torch.logdet(covariance) + size * math.log(2 * math.pi))


class ExactDenoiser(nn.Module):
    """The exact eps(x_bar, sigma, pa); counts its calls and their rows."""

    def __init__(self, world: World) -> None:
        super().__init__()
        self.world, self.variables = world, world.variables
        self.calls, self.rows = 0, 0
        self.register_buffer("pixel_mean", torch.zeros((), dtype=torch.float64))

    def eps(self, x: Tensor, sigma: float, parents: Parents, shown: Tensor | bool = True) -> Tensor:
        self.calls, self.rows = self.calls + 1, self.rows + len(x)
        seen = torch.as_tensor(shown).expand(len(self.variables))
        names = [name for name, each in zip(self.variables, seen, strict=True) if each]
        return self.world.eps(x, sigma, parents, names)


class ExactPredictor(nn.Module):
    """The exact log q(pa_k | x_bar, pa_<k); counts the images it encodes."""

    def __init__(self, world: World) -> None:
        super().__init__()
        self.world, self.variables = world, world.variables
        self.calls, self.lowest = 0, 0.02

    def encode(self, x: Tensor, sigma: float) -> Tensor:
        """The image with its level beside it, (N, 5)."""
        self.calls += 1
        return torch.cat([x.flatten(1), torch.full_like(x.flatten(1)[:, :1], sigma)], 1)

    def log_probs(self, features: Tensor, parents: Parents) -> dict[str, Tensor]:
        x, sigma, names = features[:, :4], features[0, 4].item(), tuple(self.variables)
        joint = [self.world.log_density(x, sigma, parents, names[:k]) for k in range(len(names) + 1)]
        return {name: joint[k + 1] - joint[k] for k, name in enumerate(names)}
