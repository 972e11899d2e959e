"""Anticausal guidance: gradients of a predictor of the parents from the noised image; see ``guidance``."""

from collections.abc import Mapping
from itertools import pairwise
from typing import Literal, Self

import torch
from torch import Tensor

from graphs.variables import Image, Variable
from mechanisms.base import Parents
from mechanisms.diffusion.denoiser import Denoiser
from mechanisms.diffusion.predictor import AnticausalPredictor
from mechanisms.diffusion.strengths import Factual, Strength, Strengths, path_of

__all__ = ["Anticausal"]


class Anticausal(Strengths):
    """Follow the gradient of an anticausal predictor; one evaluation and one predictor gradient a step.

    No predictor follows an image parent: the base takes its counterfactual value, and always sees it.

    Attributes:
        form: ``delta`` vanishes at the factual; ``raw`` is the paper's.
        scale: s of categorical parents, or of each parent by name; "auto" is the smallest for each row that
            the predictor accepts.
        denoiser: the base that is guided, and that abduction uses.
    """

    kind: Literal["anticausal"] = "anticausal"
    form: Literal["delta", "raw"] = "delta"
    scale: Strength | dict[str, Strength] | Literal["auto"] = 2.0
    denoiser: Literal["conditional", "unconditional"] = "conditional"

    def at(self, strength: float) -> Self:
        """With s for all categorical parents."""
        return self.model_copy(update={"scale": strength})

    @property
    def conditional(self) -> bool:
        """Whether abduction sees the factual parents."""
        return self.denoiser == "conditional"

    def abducts_as_learned(self, variables: Mapping[str, Variable]) -> bool:
        """Along the conditional base; an unconditional one forgets the parents."""
        return self.conditional

    @property
    def hides(self) -> bool:
        """Whether the denoiser must know what to do without parents."""
        return not self.conditional

    @property
    def needs_predictor(self) -> bool:
        """Gradients come from a predictor."""
        return True

    def abduction_eps(self, denoiser: Denoiser, x: Tensor, sigma: float, factual: Parents) -> Tensor:
        """The noise estimate of x_bar (N, C, H, W) that abduction follows: the base's."""
        return denoiser.eps(x, sigma, factual, shown=self._shown(denoiser.variables))

    def eps(
        self,
        denoiser: Denoiser,
        predictor: AnticausalPredictor | None,
        x: Tensor,
        sigma: float,
        factual: Factual,
        parents: Parents,
    ) -> Tensor:
        """The guided noise estimate of x_bar (N, C, H, W) at one level."""
        variables = denoiser.variables
        start = {name: (parents if isinstance(v, Image) else factual)[name] for name, v in variables.items()}
        base = denoiser.eps(x, sigma, start, shown=self._shown(variables))
        if predictor is None:  # only where there is no parent to predict
            return base
        path = path_of(factual, parents, self.strengths(predictor.variables))
        steers = self.holds(sigma) and (self.form == "raw" or bool(path))
        samples = not self.conditional and not bool(factual.known.all())
        if not steers and not samples:
            return base
        with torch.enable_grad():
            image = x.detach().requires_grad_()
            features = predictor.encode(image, sigma)
            nothing = features.new_zeros(len(x))
            gain = self._gain(predictor, features, factual, parents, path) if steers else nothing
            prior = _joint(predictor, features, parents) if samples else nothing
            (gradient,) = torch.autograd.grad(torch.where(factual.known, gain, prior).sum(), image)
        return base - sigma * gradient

    def _shown(self, variables: Mapping[str, Variable]) -> Tensor | bool:
        """All parents, or of an unconditional base the images alone."""
        images = [isinstance(variable, Image) for variable in variables.values()]
        return self.conditional or (torch.tensor(images) if any(images) else False)

    def _gain(
        self,
        predictor: AnticausalPredictor,
        features: Tensor,
        factual: Factual,
        parents: Parents,
        path: list[tuple[float, Parents]],
    ) -> Tensor:
        """(N,) what a counterfactual climbs."""
        if self.form == "raw":
            strengths = self.strengths(predictor.variables)
            terms = predictor.log_probs(features, parents)
            return torch.stack([strengths[name] * term for name, term in terms.items()]).sum(0)
        joint = [_joint(predictor, features, stop) for stop in (factual, *(stop for _, stop in path))]
        gains = [
            weight * (after - before)
            for (weight, _), (before, after) in zip(path, pairwise(joint), strict=True)
        ]
        return torch.stack(gains).sum(0)

    def _given(self) -> float | Mapping[str, float] | Literal["auto"]:
        return self.scale


def _joint(predictor: AnticausalPredictor, features: Tensor, parents: Parents) -> Tensor:
    return torch.stack(list(predictor.log_probs(features, parents).values())).sum(0)
