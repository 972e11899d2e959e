"""Anticausal predictors q(pa_k | x_t, pa_<k): from a noised image back to its causes, one a parent.

The sum over parents of log q is log q(pa | x_t) by the chain rule, in declared order; treating parents as
independent given x_t would be exact only by luck. Predictors train on noised images at log-uniform levels
over the range they guide on, a third of the rows at the lowest one, where clean images are read; they share
nothing with the denoiser.

Categorical parents have logits. Continuous ones have a mean and a log variance of the standardised value; for
gradients in the image the variance counts as a constant, so that guidance moves the mean and never buys
likelihood by inflating its own uncertainty.
"""

import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from graphs.variables import Categorical, Image, Variable
from mechanisms.base import Parents
from mechanisms.conditioning import Conditioning
from mechanisms.diffusion.backbones import Encoder, EncoderSpec

__all__ = ["AnticausalPredictor"]

_HIDDEN = 128


class AnticausalPredictor(nn.Module):
    """log q(pa | x_bar at level sigma), parent by parent.

    Attributes:
        names: the tabular parents, in declared order; image parents are not predicted.
    """

    pixel_mean: Tensor
    pixel_std: Tensor

    def __init__(self, image: Image, parents: Mapping[str, Variable], spec: EncoderSpec) -> None:
        super().__init__()
        self.variables = {
            name: variable for name, variable in parents.items() if not isinstance(variable, Image)
        }
        self.names = tuple(self.variables)
        self.conditioning = Conditioning(self.variables, dtype=torch.float32)
        self.encoder = Encoder(spec, image.channels)
        self.heads = nn.ModuleDict()
        for name, part in self.conditioning.slices.items():
            outputs = (part.stop - part.start) * (1 if isinstance(self.variables[name], Categorical) else 2)
            # The columns before this parent's are those of the parents it is conditioned on.
            self.heads[name] = nn.Sequential(
                nn.Linear(spec.features + part.start, _HIDDEN), nn.SiLU(), nn.Linear(_HIDDEN, outputs)
            )
        self.register_buffer("pixel_mean", torch.tensor(0.0))
        self.register_buffer("pixel_std", torch.tensor(0.5))

    def prepare(self, value: Tensor, parents: Parents) -> None:
        """Take the pixel statistics and the parents' standardising from all training rows."""
        self.pixel_mean.fill_(value.double().mean().item())
        self.pixel_std.fill_(max(value.double().std().item(), 1e-3))
        self.conditioning.prepare(parents)

    def scales(self) -> dict[str, Tensor]:
        """The standard deviation of each parent's columns over the training rows, (width,) by name."""
        return {name: self.conditioning.std[part] for name, part in self.conditioning.slices.items()}

    def encode(self, x: Tensor, sigma: Tensor | float) -> Tensor:
        """Features (N, width) of x_bar (N, C, H, W) at one level or (N,) levels."""
        levels = torch.as_tensor(sigma, dtype=x.dtype, device=x.device).expand(len(x))
        spread = (levels**2 + self.pixel_std**2).sqrt().view(-1, 1, 1, 1)
        return self.encoder((x - self.pixel_mean) / spread, levels).to(x.dtype)

    def log_probs(self, features: Tensor, parents: Parents) -> dict[str, Tensor]:
        """log q(pa_k | x_t, pa_<k) of each parent, (N,) by name.

        Args:
            features: of ``encode``, (N, width).
            parents: the values asked about, each (N, *event).

        Returns:
            Differentiable in ``features``; densities are of the standardised value.
        """
        columns = self.conditioning(parents).to(features.dtype)
        return {name: self._log_prob(name, features, columns, parents) for name in self.names}

    def most_likely(self, features: Tensor, parents: Parents, name: str) -> Tensor:
        """The mode of q(pa_k | x_t, pa_<k), (N, *event) in canonical encoding; ``parents`` holds pa_<k."""
        columns = self.conditioning(parents).to(features.dtype)
        out, part = self._head(name, features, columns), self.conditioning.slices[name]
        if isinstance(self.variables[name], Categorical):
            return out.argmax(1)
        mean = out.chunk(2, 1)[0] * self.conditioning.std[part] + self.conditioning.mean[part]
        return mean.double().view(len(features), *self.variables[name].event_shape)

    def _head(self, name: str, features: Tensor, columns: Tensor) -> Tensor:
        before = columns[:, : self.conditioning.slices[name].start]
        return self.heads[name](torch.cat([features, before], 1)).to(features.dtype)

    def _log_prob(self, name: str, features: Tensor, columns: Tensor, parents: Parents) -> Tensor:
        out = self._head(name, features, columns)
        if isinstance(self.variables[name], Categorical):
            return out.log_softmax(1).gather(1, parents[name].view(-1, 1))[:, 0]
        mean, log_variance = out.chunk(2, 1)
        log_variance = log_variance.clamp(-10, 10)
        if not self.training:
            log_variance = log_variance.detach()
        target = columns[:, self.conditioning.slices[name]]
        density = -0.5 * ((target - mean) ** 2 / log_variance.exp() + log_variance + math.log(2 * math.pi))
        return density.sum(1)
