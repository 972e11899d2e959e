"""Guidance: from the factual parents F to the counterfactual parents, vanishing when they agree.

Parents change one group after another, equal weights together, in declared order: F = v_0, v_1, ..., v_G.

    classifier_free      eps = eps(v_0) + sum_g w_g [eps(v_g) - eps(v_{g-1})]
      against hidden     eps = eps(h_0) + sum_g w_g [eps(h_g) - eps(h_{g-1})],  h_g of cf (abduction: of F)
    anticausal, delta    eps = eps_base - sigma sum_g s_g grad [log q(v_g | x_bar) - log q(v_{g-1} | x_bar)]
    anticausal, raw      eps = eps_base - sigma sum_k s_k grad log q(cf_k | x_bar, cf_<k)

with gradients in x_bar (sqrt(1 - a) grad_{x_t} = sigma grad_{x_bar}). ``raw`` is Algorithm 3 of Diff-SCM
(Sanchez & Tsaftaris 2022): the exact score of p(x | pa) at s = 1 on an unconditional base, but it moves the
image even when no parent changes. ``delta`` at s = 1 on eps(F) is exact by Bayes' rule; on an unconditional
base it is a heuristic. ``classifier_free`` is negative-prompt inversion (Miyake et al. 2023), F the negative.

Against hidden parents (Ho & Salimans 2022), h_0 hides all parents of weights other than 1 and h_g shows the
first g groups of them. Abduction integrates the same field under F: the scores of sharpened laws, p(x_bar)
p(pa | x_bar)^w, whose flow is invertible for every pa. What there and back again misses is the solver's, and
what clipping takes.

Weights above 1 sharpen a category but multiply a continuous effect, so a plain number applies to categorical
parents and continuous ones keep 1. Prior samples are of p(x | pa) as it was learned: they follow the
conditional denoiser alone, as if F were pa, and an unconditional base with ``raw`` at s = 1.
"""

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Annotated, Literal, Self

import torch
from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator
from torch import Tensor

from graphs.variables import Categorical, Image, Variable
from mechanisms.base import Parents
from mechanisms.diffusion.denoiser import Denoiser
from mechanisms.diffusion.predictor import AnticausalPredictor

__all__ = ["Anticausal", "ClassifierFree", "Factual", "Guidance"]

Strength = Annotated[float, Field(ge=0, le=100)]


class Factual(dict[str, Tensor]):
    """Factual parents by name, and ``known`` (N,): False for rows that are prior samples."""

    def __init__(self, parents: Parents, known: Tensor) -> None:
        super().__init__(parents)
        self.known = known


class _Guidance(BaseModel):
    """What both kinds share.

    Attributes:
        target: probability that the predictor must give the counterfactual categories, where strengths are
            chosen row by row ("auto"); see ``strength_search``.
        candidates: strengths to try then, in rising order.
        corrections: how often continuous parents are asked for anew by what the predictor finds missing; see
            ``corrections``.
        interval: levels sigma within which strengths hold (Kynkaanniemi et al. 2024), all where absent.
            Outside it classifier-free weights are 1, which takes one evaluation a step, and anticausal
            guidance rests.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    target: float = Field(default=0.9, gt=0, lt=1)
    candidates: tuple[Strength, ...] = (0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0, 8.0)
    corrections: int = Field(default=0, ge=0, le=16)
    interval: tuple[float, float] | None = None

    @field_validator("candidates")
    @classmethod
    def _rising(cls, candidates: tuple[float, ...]) -> tuple[float, ...]:
        if not candidates or list(candidates) != sorted(set(candidates)):
            raise ValueError(f"candidates are strengths in rising order, got {list(candidates)}")
        return candidates

    @field_validator("interval")
    @classmethod
    def _ordered(cls, interval: tuple[float, float] | None) -> tuple[float, float] | None:
        if interval and not 0 <= interval[0] < interval[1]:
            raise ValueError(f"interval holds two levels sigma, 0 <= low < high, got {list(interval)}")
        return interval

    @property
    def automatic(self) -> bool:
        """Whether each row gets a strength of its own."""
        return self._given() == "auto"

    @property
    def steers_abduction(self) -> bool:
        """Whether what abduction finds depends on the strengths."""
        return False

    def at(self, strength: float) -> Self:
        """The same guidance with one strength for all categorical parents."""
        raise NotImplementedError

    def strengths(self, variables: Mapping[str, Variable]) -> dict[str, float]:
        """The weight of each parent: the number for categorical ones, 1 for others, unless named."""
        given = self._given()
        named = given if isinstance(given, Mapping) else {}
        common = given if isinstance(given, float) else 2.0
        return {
            name: named.get(name, common if isinstance(variable, Categorical) else 1.0)
            for name, variable in variables.items()
        }

    def holds(self, sigma: float) -> bool:
        """Whether strengths hold at this level."""
        return self.interval is None or self.interval[0] <= sigma <= self.interval[1]

    def named(self) -> tuple[str, ...]:
        """The parents that the options name."""
        given = self._given()
        return tuple(given) if isinstance(given, Mapping) else ()

    def _given(self) -> float | Mapping[str, float] | Literal["auto"]:
        raise NotImplementedError


class ClassifierFree(_Guidance):
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
            path = _path(factual, parents, self._held(denoiser, sigma))
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


class Anticausal(_Guidance):
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
        path = _path(factual, parents, self.strengths(predictor.variables))
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


def _shares(weights: Sequence[float]) -> list[float]:
    """Of e_0 + sum_g w_g (e_g - e_{g-1}): e_g has w_g - w_{g+1}, e_0 has 1 - w_1."""
    return [before - after for before, after in pairwise((1.0, *weights, 0.0))]


def _total(terms: list[Tensor]) -> Tensor:
    return torch.stack(terms).sum(0) if len(terms) > 1 else terms[0]


def _joint(predictor: AnticausalPredictor, features: Tensor, parents: Parents) -> Tensor:
    return torch.stack(list(predictor.log_probs(features, parents).values())).sum(0)


def _path(factual: Parents, parents: Parents, strengths: Mapping[str, float]) -> list[tuple[float, Parents]]:
    """The stops v_1, ..., v_G with their weights; empty where none of these parents changes in any row."""
    changed = [name for name in strengths if not torch.equal(factual[name], parents[name])]
    path: list[tuple[float, Parents]] = []
    current = dict(factual)
    for weight in dict.fromkeys(strengths[name] for name in changed):
        current = current | {name: parents[name] for name in changed if strengths[name] == weight}
        path.append((weight, current))
    return path


Guidance = Annotated[ClassifierFree | Anticausal, Field(discriminator="kind")]
"""Any guidance, told apart by ``kind``."""
