"""Classifier-free guidance: differences of the denoiser's own estimates; see ``guidance``."""

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Literal, Self

import torch
from pydantic import model_validator
from torch import Tensor

from graphs.variables import Variable
from mechanisms.base import Parents
from mechanisms.diffusion.denoiser import Denoiser
from mechanisms.diffusion.predictor import AnticausalPredictor
from mechanisms.diffusion.strengths import Factual, Strength, Strengths, path_of

__all__ = ["ClassifierFree"]


class ClassifierFree(Strengths):
    """Extrapolate to the counterfactual noise estimate, from the factual one or from that of hidden parents.

    One evaluation a step where all weights are 1, two where all changed parents share another weight.
    Against hidden parents abduction costs as much as prediction.

    Attributes:
        weight: w of categorical parents, or of each parent by name; "auto" is the smallest for each row that
            the predictor accepts.
        against: where extrapolation starts: ``factual`` leaves abduction at weight 1, ``hidden`` gives it
            the same weights. Strengths row by row are found after abduction, so they take ``factual``.
    """

    kind: Literal["classifier_free"] = "classifier_free"
    weight: Strength | dict[str, Strength] | Literal["auto"] = 2.0
    against: Literal["factual", "hidden"] = "factual"

    @model_validator(mode="after")
    def _abduction_has_weights(self) -> Self:
        if self.automatic and self.against == "hidden":
            raise ValueError(
                "weight 'auto' is found after abduction, but with `against: hidden` abduction needs it: "
                "take `against: factual`, or a number"
            )
        return self

    def at(self, strength: float) -> Self:
        """With w for all categorical parents."""
        return self.model_copy(update={"weight": strength})

    @property
    def conditional(self) -> bool:
        """Abduction sees the factual parents."""
        return True

    def abducts_as_learned(self, variables: Mapping[str, Variable]) -> bool:
        """From the factual always; against hidden parents at weight 1 alone."""
        return not self.steers_abduction or set(self.strengths(variables).values()) <= {1.0}

    @property
    def hides(self) -> bool:
        """Whether the denoiser must know what to do without parents."""
        return self.against == "hidden"

    @property
    def steers_abduction(self) -> bool:
        """Against hidden parents, abduction takes the weights of prediction."""
        return self.against == "hidden"

    @property
    def needs_predictor(self) -> bool:
        """The denoiser is enough, unless weights are automatic or numbers are asked for anew."""
        return self.automatic or self.corrections > 0

    def abduction_eps(self, denoiser: Denoiser, x: Tensor, sigma: float, factual: Parents) -> Tensor:
        """The noise estimate of x_bar (N, C, H, W) that abduction follows."""
        if self.against == "hidden":
            return self._sharpened(denoiser, x, sigma, factual)
        return denoiser.eps(x, sigma, factual)

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
        if self.against == "factual":
            path = path_of(factual, parents, self._held(denoiser, sigma))
            shares = _shares([weight for weight, _ in path])
            stops = zip(shares, (factual, *(stop for _, stop in path)), strict=True)
            return _total([share * denoiser.eps(x, sigma, stop) for share, stop in stops if share])
        if bool(factual.known.all()):
            return self._sharpened(denoiser, x, sigma, parents)
        learned = denoiser.eps(x, sigma, parents)
        if not bool(factual.known.any()):
            return learned
        known = factual.known.view(-1, *[1] * (x.ndim - 1))
        return torch.where(known, self._sharpened(denoiser, x, sigma, parents), learned)

    def _sharpened(self, denoiser: Denoiser, x: Tensor, sigma: float, parents: Parents) -> Tensor:
        """Extrapolated from hidden parents, whatever the factual: (N, C, H, W)."""
        strengths = self._held(denoiser, sigma)
        weights = [weight for weight in dict.fromkeys(strengths.values()) if weight != 1]
        terms = []
        for groups, share in enumerate(_shares(weights)):
            if share:
                shown = [weight in (1, *weights[:groups]) for weight in strengths.values()]
                terms.append(share * denoiser.eps(x, sigma, parents, shown=torch.tensor(shown)))
        return _total(terms)

    def _held(self, denoiser: Denoiser, sigma: float) -> dict[str, float]:
        """The weight of each parent at this level."""
        strengths = self.strengths(denoiser.variables)
        return strengths if self.holds(sigma) else dict.fromkeys(strengths, 1.0)

    def _given(self) -> float | Mapping[str, float] | Literal["auto"]:
        return self.weight


def _shares(weights: Sequence[float]) -> list[float]:
    """Of e_0 + sum_g w_g (e_g - e_{g-1}): e_g has w_g - w_{g+1}, e_0 has 1 - w_1."""
    return [before - after for before, after in pairwise((1.0, *weights, 0.0))]


def _total(terms: list[Tensor]) -> Tensor:
    return torch.stack(terms).sum(0) if len(terms) > 1 else terms[0]
