"""Classifier guidance by anticausal predictors: gradients of log q(pa | x_t); formulas in ``guidance``."""

from collections.abc import Callable, Mapping
from itertools import pairwise
from typing import ClassVar, Literal, Self, final

import torch
from pydantic import model_validator
from torch import Tensor

from graphs.variables import Image, Variable, table_variables
from mechanisms.base import Parents
from mechanisms.diffusion.classifier import OwnPredictor
from mechanisms.diffusion.denoiser import Denoising
from mechanisms.diffusion.guidance import Factual, Guidance, Need, Strength, path_of
from mechanisms.diffusion.predictor import AnticausalPredictor
from mechanisms.networks import gradients

__all__ = ["Anticausal"]


@final
class Anticausal(Guidance, frozen=True):
    """Follow the gradient of an anticausal predictor; one evaluation and one predictor gradient a step.

    No predictor follows an image parent, nor a classifier of one's own any parent but its own: the base takes
    their counterfactual values.

    Attributes:
        form: ``delta`` vanishes at the factual; ``raw`` is the paper's.
        scale: s of categorical parents, or of each parent by name, where other categories keep 2 and numbers
            1; "auto" is the smallest for each row that the predictor accepts.
        denoiser: the base that is guided: under the factual parents (``conditional``), under none
            (``unconditional``), or under the counterfactual ones, to whose effect scales then add (0 of
            numbers, and of what is left out beside names). Abduction is under the factual parents or none.
        terms: whose terms log q(pa_k | x_bar, pa_<k) ``delta`` follows: of ``all`` parents, which is Bayes'
            rule, or in each row of those that are ``changed``. A trained predictor never saw later parents
            beside a change that is not in the image yet, and may pull hard there.
    """

    strength_option: ClassVar[str] = "scale"

    kind: Literal["anticausal"] = "anticausal"
    form: Literal["delta", "raw"] = "delta"
    scale: Strength | dict[str, Strength] | Literal["auto"] = 2.0
    denoiser: Literal["conditional", "unconditional", "counterfactual"] = "conditional"
    terms: Literal["all", "changed"] = "all"

    @model_validator(mode="after")
    def _adds_what_vanishes(self) -> Self:
        if self.form == "raw" and self.adds:
            raise ValueError(
                "form 'raw' would count the counterfactual parents twice where `denoiser: counterfactual` "
                "knows them: take `form: delta`"
            )
        if self.form == "raw" and self.terms == "changed":
            raise ValueError("form 'raw' knows no change: leave `terms` out, or take `form: delta`")
        return self

    @property
    def needs(self) -> frozenset[Need]:
        """The base, and gradients of a predictor."""
        base: Need = "unconditional" if self.denoiser == "unconditional" else "conditional"
        return frozenset({base, "predictor"})

    @property
    def adds(self) -> bool:
        """Beside a base under the counterfactual parents."""
        return self.denoiser == "counterfactual"

    def steerable(self, variables: Mapping[str, Variable]) -> tuple[str, ...]:
        """The parents that are predicted: no images."""
        return tuple(table_variables(variables))

    def abduction_weights(self, variables: Mapping[str, Variable]) -> Mapping[str, float]:
        """Under the factual parents; beside an unconditional base, under images alone."""
        hidden = self.steerable(variables) if self.denoiser == "unconditional" else ()
        return {name: 0.0 if name in hidden else 1.0 for name in variables}

    def abduction_eps(self, denoiser: Denoising, x: Tensor, sigma: float, factual: Parents) -> Tensor:
        """The noise estimate of x_bar (N, C, H, W) that abduction follows: the base's at the factual."""
        return denoiser.eps(x, sigma, factual, shown=self._shown(denoiser.variables))

    def eps(
        self,
        denoiser: Denoising,
        predictor: AnticausalPredictor | None,
        x: Tensor,
        sigma: float,
        factual: Factual,
        parents: Parents,
    ) -> Tensor:
        """The guided noise estimate of x_bar (N, C, H, W) at one level."""
        read = {} if predictor is None or self.adds else predictor.variables
        start = {name: (factual if name in read else parents)[name] for name in denoiser.variables}
        shown = self._shown(denoiser.variables)

        def base(at: Tensor) -> Tensor:
            return denoiser.eps(at, sigma, start, shown=shown)

        if predictor is None:  # only where there is no parent to predict
            return base(x)
        path = path_of(factual, parents, self.strengths(predictor.variables))
        steers = self.active(sigma) and (self.form == "raw" or bool(path))
        samples = self.denoiser == "unconditional" and not bool(factual.known.all())
        if not steers and not samples:
            return base(x)
        with gradients("Anticausal guidance"):
            image = x.detach().requires_grad_()
            features, noise = _features(predictor, image, sigma, base)
            nothing = features.new_zeros(len(x))
            gain = self._gain(predictor, features, factual, parents, path) if steers else nothing
            joint = predictor.log_probs(features, parents).values() if samples else [nothing]
            prior = torch.stack(list(joint)).sum(0)
            (gradient,) = torch.autograd.grad(torch.where(factual.known, gain, prior).sum(), image)
        return noise - sigma * gradient

    def _shown(self, variables: Mapping[str, Variable]) -> Tensor | bool:
        """All parents, or of an unconditional base the images alone."""
        images = [isinstance(variable, Image) for variable in variables.values()]
        return self.denoiser != "unconditional" or (torch.tensor(images) if any(images) else False)

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
        stops, wanted = [factual, *(stop for _, stop in path)], factual.wanted or parents
        terms = [predictor.log_probs(features, stop) for stop in stops]
        gains = list[Tensor]()
        steps = zip(path, pairwise(stops), pairwise(terms), strict=True)
        for (weight, _), (here, there), (before, after) in steps:
            for name in after:
                # A correction asks for numbers that nobody changed: their terms are of its own step alone.
                differ = (factual[name] != wanted[name]) | (here[name] != there[name])
                counts = self.terms == "all" or differ.view(len(differ), -1).any(1)
                gains.append(weight * counts * (after[name] - before[name]))
        return torch.stack(gains).sum(0)


def _features(
    predictor: AnticausalPredictor, image: Tensor, sigma: float, base: Callable[[Tensor], Tensor]
) -> tuple[Tensor, Tensor]:
    """What the predictor sees in x_bar or in the estimate of x_0, and the base's noise, detached."""
    if isinstance(predictor, OwnPredictor):
        return predictor.encode_estimate(image, sigma, base)
    with torch.no_grad():
        noise = base(image)
    return predictor.encode(image, sigma), noise
