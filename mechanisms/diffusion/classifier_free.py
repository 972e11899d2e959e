"""Classifier-free guidance: differences of the denoiser's own estimates; formulas in ``guidance``."""

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import ClassVar, Literal, Self, final

import torch
from pydantic import model_validator
from torch import Tensor

from graphs.variables import Variable
from mechanisms.base import Parents
from mechanisms.diffusion.denoiser import Denoising
from mechanisms.diffusion.guidance import Factual, Guidance, Need, Strength, path_of
from mechanisms.diffusion.predictor import AnticausalPredictor
from mechanisms.rows import by_row

__all__ = ["ClassifierFree"]


@final
class ClassifierFree(Guidance, frozen=True):
    """Extrapolate to the counterfactual noise estimate, from the factual or an unconditional reference.

    One evaluation a step where all weights are 1, two where all changed parents share another weight.
    Against the unconditional reference abduction costs as much as prediction.

    Attributes:
        weight: w of categorical parents, or of each parent by name; "auto" is the smallest for each row that
            the predictor accepts.
        against: the reference that extrapolation starts from: the ``factual`` estimate, which leaves
            abduction at weight 1, or the unconditional one, of ``hidden`` parents, which gives abduction the
            same weights. Strengths row by row are found after abduction, so they take ``factual``.
    """

    strength_option: ClassVar[str] = "weight"

    kind: Literal["classifier_free"] = "classifier_free"
    weight: Strength | dict[str, Strength] | Literal["auto"] = 1.0
    against: Literal["factual", "hidden"] = "factual"

    @model_validator(mode="after")
    def _abduction_has_weights(self) -> Self:
        if self.automatic and self.against == "hidden":
            raise ValueError(
                "weight 'auto' is found after abduction, but with `against: hidden` abduction needs it: "
                "take `against: factual`, or a number"
            )
        return self

    @property
    def needs(self) -> frozenset[Need]:
        """The denoiser is enough."""
        return frozenset({"conditional", "unconditional"} if self.against == "hidden" else {"conditional"})

    def steerable(self, variables: Mapping[str, Variable]) -> tuple[str, ...]:
        """Every parent."""
        return tuple(variables)

    def abduction_weights(self, variables: Mapping[str, Variable]) -> Mapping[str, float]:
        """1 from the factual; against the unconditional reference the weights of prediction."""
        return self.strengths(variables) if self.against == "hidden" else dict.fromkeys(variables, 1.0)

    def follows_learned(self, variables: Mapping[str, Variable]) -> bool:
        """Where every weight is 1."""
        return not self.automatic and all(weight == 1 for weight in self.strengths(variables).values())

    def abduction_eps(self, denoiser: Denoising, x: Tensor, sigma: float, factual: Parents) -> Tensor:
        """The noise estimate of x_bar (N, C, H, W) that abduction follows."""
        if self.against == "hidden":
            return self._sharpened(denoiser, x, sigma, factual)
        return denoiser.eps(x, sigma, factual)

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
        if self.against == "factual":
            path = path_of(factual, parents, self._weights(denoiser, sigma))
            shares = _shares([weight for weight, _ in path])
            stops = zip(shares, (factual, *(stop for _, stop in path)), strict=True)
            return _total([share * denoiser.eps(x, sigma, stop) for share, stop in stops if share])
        if bool(factual.known.all()):
            return self._sharpened(denoiser, x, sigma, parents)
        learned = denoiser.eps(x, sigma, parents)
        if not bool(factual.known.any()):
            return learned
        known = by_row(factual.known, x)
        return torch.where(known, self._sharpened(denoiser, x, sigma, parents), learned)

    def _sharpened(self, denoiser: Denoising, x: Tensor, sigma: float, parents: Parents) -> Tensor:
        """Extrapolated from hidden parents, whatever the factual: (N, C, H, W)."""
        strengths = self._weights(denoiser, sigma)
        weights = [weight for weight in dict.fromkeys(strengths.values()) if weight != 1]
        terms = []
        for groups, share in enumerate(_shares(weights)):
            if share:
                shown = [weight in (1, *weights[:groups]) for weight in strengths.values()]
                terms.append(share * denoiser.eps(x, sigma, parents, shown=torch.tensor(shown)))
        return _total(terms)

    def _weights(self, denoiser: Denoising, sigma: float) -> dict[str, float]:
        """The weight of each parent at this level."""
        strengths = self.strengths(denoiser.variables)
        return strengths if self.active(sigma) else dict.fromkeys(strengths, 1.0)


def _shares(weights: Sequence[float]) -> list[float]:
    """Of e_0 + sum_g w_g (e_g - e_{g-1}): e_g has w_g - w_{g+1}, e_0 has 1 - w_1."""
    return [before - after for before, after in pairwise((1.0, *weights, 0.0))]


def _total(terms: list[Tensor]) -> Tensor:
    return torch.stack(terms).sum(0) if len(terms) > 1 else terms[0]
