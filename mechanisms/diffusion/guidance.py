"""Guidance: classifier-free guidance, and classifier guidance (``anticausal``), from F to CF parents.

What it adds to the noise estimate vanishes where nothing changes from the factual parents F.
Parents change one group after another, equal weights together, in declared order: F = v_0, v_1, ..., v_G.

    classifier_free      eps = eps(v_0) + sum_g w_g [eps(v_g) - eps(v_{g-1})]
      unconditional      eps = eps(h_0) + sum_g w_g [eps(h_g) - eps(h_{g-1})],  h_g of cf (abduction: of F)
    anticausal, delta    eps = eps_base - sigma sum_g s_g grad [log q(v_g | x_bar) - log q(v_{g-1} | x_bar)]
      counterfactual     the same with eps_base = eps(cf), which is w = 1 + s by Bayes' rule
      terms: changed     of log q(v | x_bar) = sum_k log q(v_k | x_bar, v_<k) those of changed parents alone
    anticausal, raw      eps = eps_base - sigma sum_k s_k grad log q(cf_k | x_bar, cf_<k)

with gradients in x_bar (sqrt(1 - a) grad_{x_t} = sigma grad_{x_bar}). ``raw`` is Algorithm 3 of Diff-SCM
(Sanchez & Tsaftaris 2022): the exact score of p(x | pa) at s = 1 on an unconditional base, but it moves the
image even when no parent changes. ``delta`` at s = 1 on eps(F) is exact by Bayes' rule; on an unconditional
base it is a heuristic. ``classifier_free`` is negative-prompt inversion (Miyake et al. 2023), F the negative.

Against the unconditional reference (``against: hidden``, Ho & Salimans 2022), h_0 hides all parents of
weights other than 1 and h_g shows the first g groups of them. Abduction integrates the same field under F:
the scores of sharpened laws, p(x_bar) p(pa | x_bar)^w, whose flow is invertible for every pa. What there and
back again misses is the solver's, and what clipping takes.

Weights above 1 sharpen a category but multiply a continuous effect, so a plain number applies to categorical
parents and continuous ones keep 1; on top of eps(cf), they and what a mapping does not name keep 0. Prior
samples are of p(x | pa) as it was learned: they follow the conditional denoiser alone, as if F were pa, and
an unconditional base with ``raw`` at s = 1.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Annotated, ClassVar, Literal, Self, final

import torch
from pydantic import Field, field_validator, model_validator
from torch import Tensor

from graphs.declared import Declared
from graphs.errors import MechanismError, UnknownNameError
from graphs.variables import Categorical, Continuous, Variable
from mechanisms.base import Parents
from mechanisms.diffusion.denoiser import Denoising
from mechanisms.diffusion.predictor import AnticausalPredictor
from mechanisms.registry import Registry
from mechanisms.rows import by_row

__all__ = ["AnyGuidance", "ClassifierFree", "Factual", "GUIDANCE", "Guidance", "Need", "Strength", "path_of"]

Strength = Annotated[float, Field(ge=0, le=100)]

Need = Literal["conditional", "unconditional", "predictor"]
"""What guidance is computed from: eps given parents, eps with parents hidden, an anticausal predictor."""


_ROUNDING = 1e-9
"""Of levels: the ends of a grid are powers, which may come out beyond an interval that ends there."""


class Factual(dict[str, Tensor]):
    """Factual parents by name, and ``known`` (N,): False for rows that are prior samples.

    ``wanted`` are the parents that the question asks for, where corrections ask the network for others; None
    where they do not.
    """

    def __init__(self, parents: Parents, known: Tensor, wanted: Parents | None = None) -> None:
        super().__init__(parents)
        self.known, self.wanted = known, wanted


class Guidance(Declared, ABC, frozen=True):  # pyright: ignore[reportGeneralTypeIssues]
    """The options of guidance; plug-ins come from entry points of the group ``causalgen.guidance``.

    Attributes:
        target: probability that the predictor must give the counterfactual categories, where strengths are
            chosen row by row ("auto").
        candidates: strengths to try then, in rising order.
        corrections: how often continuous parents are asked for anew by what the predictor finds missing.
        relaxation: by how much of what is missing each correction moves the request.
        interval: levels sigma within which strengths hold (Kynkaanniemi et al. 2024), all where absent.
            Outside it guidance is inactive: classifier-free weights are 1, which takes one evaluation a
            step, and anticausal scales are 0.
        strength_option: the name of the option that holds the strength: a number for all categorical
            parents, a mapping by parent, or "auto".
    """

    strength_option: ClassVar[str]

    kind: str
    target: float = Field(default=0.9, gt=0, lt=1)
    candidates: tuple[Strength, ...] = (0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0, 8.0)
    corrections: int = Field(default=0, ge=0, le=16)
    relaxation: float = Field(default=1.0, gt=0, lt=2)
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
    @abstractmethod
    def needs(self) -> frozenset[Need]:
        """What it is computed from; abduction included, prior samples not."""

    @abstractmethod
    def steerable(self, variables: Mapping[str, Variable]) -> tuple[str, ...]:
        """Which parents it can steer towards, in declared order."""

    @abstractmethod
    def abduction_weights(self, variables: Mapping[str, Variable]) -> Mapping[str, float]:
        """The weight of each parent in the field that abduction follows: 1 as learned, 0 hidden."""

    def follows_learned(self, variables: Mapping[str, Variable]) -> bool:
        """Whether every estimate is the conditional denoiser's own, in prediction too: at weight 1."""
        return False

    @abstractmethod
    def abduction_eps(self, denoiser: Denoising, x: Tensor, sigma: float, factual: Parents) -> Tensor:
        """The noise estimate of x_bar (N, C, H, W) that abduction follows."""

    @abstractmethod
    def eps(
        self,
        denoiser: Denoising,
        predictor: AnticausalPredictor | None,
        x: Tensor,
        sigma: float,
        factual: Factual,
        parents: Parents,
    ) -> Tensor:
        """The guided noise estimate of x_bar (N, C, H, W) at one level.

        Args:
            denoiser: gives eps(x_bar, sigma, pa).
            predictor: gives log q(pa | x_bar); None where no parent can be predicted, or none is asked for.
            x: x_bar.
            sigma: the level.
            factual: where each row starts; of prior samples, the parents asked for.
            parents: what is asked for.
        """

    @property
    def adds(self) -> bool:
        """Whether strengths come on top of the estimate under the counterfactual parents."""
        return False

    @final
    @property
    def strength(self) -> float | Mapping[str, float] | Literal["auto"]:
        """What the option of the strength says."""
        return getattr(self, self.strength_option)

    @final
    def at(self, strength: float) -> Self:
        """The same guidance with one strength for all categorical parents."""
        return self.model_copy(update={self.strength_option: strength})

    @final
    @property
    def automatic(self) -> bool:
        """Whether each row gets a strength of its own."""
        return self.strength == "auto"

    @final
    @property
    def reads_back(self) -> bool:
        """Whether counterfactuals are read by the predictor: for automatic strengths, or corrections."""
        return self.automatic or self.corrections > 0

    @final
    def strengths(self, variables: Mapping[str, Variable]) -> dict[str, float]:
        """The weight of each parent: as named, or of categories the number; where neither is, the default."""
        given, default = self.strength, type(self).model_fields[self.strength_option].default
        named = given if isinstance(given, Mapping) else {}
        whole = 0.0 if self.adds else 1.0
        usual = default if isinstance(default, float) and not (self.adds and named) else whole
        common = given if isinstance(given, float) else usual
        return {
            name: named.get(name, common if isinstance(variable, Categorical) else whole)
            for name, variable in variables.items()
        }

    @final
    def active(self, sigma: float) -> bool:
        """Whether strengths hold at this level."""
        if self.interval is None:
            return True
        low, high = self.interval
        return low * (1 - _ROUNDING) <= sigma <= high * (1 + _ROUNDING)

    @final
    def named(self) -> tuple[str, ...]:
        """The parents that the options name."""
        return tuple(self.strength) if isinstance(self.strength, Mapping) else ()

    @final
    def check_parents(self, parents: Mapping[str, Variable]) -> None:
        """Refuse options about parents that there are not, by a MechanismError or UnknownNameError."""
        if self.corrections and not any(isinstance(parent, Continuous) for parent in parents.values()):
            raise MechanismError(
                f"guidance {self.kind!r}: corrections follow continuous parents, but there are none "
                f"among {sorted(parents)}. Leave `corrections` out."
            )
        if self.automatic and not any(isinstance(parent, Categorical) for parent in parents.values()):
            raise MechanismError(
                f"guidance {self.kind!r}: strengths row by row ('auto') are of categorical parents, but "
                f"there are none among {sorted(parents)}. Give {self.strength_option} a number."
            )
        known = self.steerable(parents)
        for name in self.named():
            UnknownNameError.check("parent", name, known, where=f"guidance {self.kind!r}")


GUIDANCE: Registry[type[Guidance]] = Registry(
    "guidance",
    "causalgen.guidance",
    Guidance,
    {
        "anticausal": "mechanisms.diffusion.anticausal:Anticausal",
        "classifier_free": "mechanisms.diffusion.guidance:ClassifierFree",
    },
)
AnyGuidance = Annotated[Guidance, GUIDANCE]
"""A field that holds any guidance, told by its ``kind``."""


def path_of(
    factual: Parents, parents: Parents, strengths: Mapping[str, float]
) -> list[tuple[float, Parents]]:
    """The stops v_1, ..., v_G with their weights; empty where none of these parents changes in any row."""
    changed = [name for name in strengths if not torch.equal(factual[name], parents[name])]
    path: list[tuple[float, Parents]] = []
    current = dict(factual)
    for weight in dict.fromkeys(strengths.values()):  # of all: a row's path is the same beside any others
        if group := {name: parents[name] for name in changed if strengths[name] == weight}:
            current = current | group
            path.append((weight, current))
    return path


@final
class ClassifierFree(Guidance, frozen=True):
    """Extrapolate to the counterfactual noise estimate, from the factual or an unconditional reference.

    One evaluation a step where all weights are 1, two where all changed parents share another weight.
    Against the unconditional reference abduction costs as much as prediction.

    Attributes:
        weight: w of categorical parents, or of each parent by name, where others keep 1; "auto" is the
            smallest for each row that the predictor accepts.
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
