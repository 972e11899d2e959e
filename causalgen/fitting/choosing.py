"""Choose a node's mechanism among candidates by held-out log-likelihood (``mechanisms.tables.auto``).

    gain_n = log p_best(x_n | pa_n) - log p_candidate(x_n | pa_n),   row n held out from both fits
    chosen: the first candidate, the least flexible one, of mean gain <= twice its standard error

(after the one-standard-error rule of Breiman et al. 1984: once for categories, twice for numbers, of which a
needless form costs accuracy), where no log p of a row counts as more than 10 below the highest of all
candidates: else one outlier, which decides the mean, decides the standard error too, and nothing is twice its
own error, however well the others tell. Up to 500 rows are held out in turn, in 4 folds; of more, a quarter
once, and another quarter while the shortfall is within one standard error of what is allowed. 4,000 rows are
enough to choose by. The chosen one is then fitted to all rows.

Counterfactuals need more than likelihood: the law of u may be fitted badly and still be kept, f may not. The
candidates therefore differ in f while each can have noise of any law; and where additive noise is as likely
as a flow, its counterfactuals f(pa') - f(pa) + x depend on less that was estimated.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from causalgen.data.table import Table
from causalgen.fitting.fit import fit_mechanism, run_folder
from causalgen.fitting.fit_report import NodeReport
from causalgen.fitting.holding_out import distinct_rows, folds
from causalgen.fitting.runtime import is_first, runtime_of
from graphs.errors import MechanismError
from graphs.variables import Categorical, Continuous
from graphs.variables.numeric import limits
from mechanisms.base import Mechanism, MechanismSpec
from mechanisms.extrapolation import has_bounds
from mechanisms.registry import dump_mechanism, parse_mechanism
from mechanisms.seeds import keyed_generator, keyed_seed

__all__ = ["choose_mechanism"]

_MOST_ROWS = 4000
"""Rows that the choice is made on."""

_FOLDED_ROWS = 500
"""Rows up to which every row is held out once; of more, only where a part of them leaves doubt."""

_FOLDS = 4

_ERRORS, _DOUBTFUL = 2.0, 1.0
"""Standard errors by which the best may be better than the chosen one, and beyond which it is in doubt; of
categories one less."""
_MOST_TOLD = 10.0
"""Log-likelihood that one row can take from a candidate: a factor of 22,000 in its density."""

_LEAST_ROWS = 20
"""Rows, without copies, below which nothing is compared: the least flexible candidate is taken."""

_MOST_OUTSIDE = 1e-3
"""Share of a candidate's draws outside the variable's bounds up to which it may be chosen."""


def choose_mechanism(
    name: str,
    mechanism: Mechanism,
    table: Table,
    *,
    seed: int,
    run_dir: Path | str | None = None,
    resume: bool = False,
    progress: bool = True,
) -> tuple[NodeReport, Mechanism]:
    """Choose a mechanism among its spec's candidates, and fit it; see ``fit_mechanism``.

    The report's ``choice`` says what was chosen and why.
    """
    specs = mechanism.spec.candidates(mechanism.variable, mechanism.parents)
    folder = run_folder(name, mechanism, table, seed, run_dir, resume, writes=is_first())
    state = None if folder is None else folder.load()
    if state is not None and "report" in state.values:
        report = NodeReport(**state.values["report"])
        assert report.choice is not None
        label = report.choice["label"]
        # By its label: no file may be able to say it.
        spec = next((each for each in specs if _Candidate(each).label == label), None)
        chosen = _bind(spec or parse_mechanism(report.choice["chosen"]), mechanism)
        chosen.load_state_dict(state.tensors)
        return report, chosen
    compared = _Comparison(name, mechanism, table, seed)
    spec, choice = compared.choose(specs)
    chosen = _bind(spec, mechanism)
    report = replace(fit_mechanism(name, chosen, table, seed=seed, progress=progress), choice=choice)
    if folder is not None:
        folder.finish(chosen.state_dict(), report.to_dict())
    return report, chosen


@dataclass
class _Candidate:
    """A spec while it is compared: its log-likelihood on held-out rows, or why it has none."""

    spec: MechanismSpec
    log_prob: list[Tensor] = field(default_factory=list)
    excluded: str = ""

    @property
    def label(self) -> str:
        """Its kind and options, without those of training."""
        options = {key: value for key, value in dump_mechanism(self.spec).items() if key != "training"}
        kind = options.pop("kind")
        listed = ", ".join(f"{key}: {value}" for key, value in options.items())
        return f"{kind}({listed})" if listed else kind

    def rows(self) -> Tensor:
        """(N,) log-likelihood of the held-out rows."""
        return torch.cat(self.log_prob)


class _Comparison:
    """The candidates of one node, on the same held-out rows."""

    def __init__(self, name: str, mechanism: Mechanism, table: Table, seed: int) -> None:
        self.name, self.mechanism, self.table, self.seed = name, mechanism, table, seed
        fewer = isinstance(mechanism.variable, Categorical)
        self.errors, self.doubtful = _ERRORS - fewer, _DOUBTFUL - fewer
        order = torch.randperm(table.rows, generator=keyed_generator(seed, "fit", "choose", name))
        self.rows = order[:_MOST_ROWS]
        # Fits that see images are shared by all processes. Last bits of what each computes may differ, and if
        # one then fitted another fold, or another form, it would wait for the others for ever.
        self.runtime = runtime_of(mechanism.variable, mechanism.parents)

    def choose(self, specs: Sequence[MechanismSpec]) -> tuple[MechanismSpec, dict[str, Any]]:
        """The spec chosen, and the report's account of it."""
        candidates = [_Candidate(spec) for spec in specs]
        if len(specs) == 1:
            return specs[0], _account(candidates[0], candidates, "the only one that can read its parents")
        parts = folds(self.table, self.rows, _FOLDS)
        if len(parts) < 2 or distinct_rows(self.table) < _LEAST_ROWS:
            reason = f"fewer than {_LEAST_ROWS} rows: nothing could be compared"
            return specs[0], _account(candidates[0], candidates, reason)
        left = candidates
        for fold, held_out in enumerate(parts):
            training = torch.cat([part for part in parts if part is not held_out])
            nodes = (self.name, *self.mechanism.parents)
            part = self.table.part(nodes, training.numpy())
            for candidate in left:
                self._measure(candidate, part, held_out, keyed_seed(self.seed, "choose", fold))
            left = [candidate for candidate in left if not candidate.excluded]
            if not left:
                reason = "no candidate could be compared: the most flexible one is taken"
                return specs[-1], _account(candidates[-1], candidates, reason)
            chosen, best, shortfall = _chosen_and_best(left, self.errors)
            if len(self.rows) > _FOLDED_ROWS and shortfall <= self.doubtful:
                break
        chosen, best, _ = _chosen_and_best(left, self.errors)
        told = "two standard errors" if self.errors == _ERRORS else "one standard error"
        reason = "the highest held-out log-likelihood" if chosen is best else (
            f"the least flexible that is within {told} of the best, {best.label}"
        )  # fmt: skip
        if any(float(each.rows().mean()) > float(best.rows().mean()) for each in left):
            reason += f", where a row counts for at most {_MOST_TOLD:g}"
        return chosen.spec, _account(chosen, candidates, reason)

    def _measure(self, candidate: _Candidate, training: Table, held_out: Tensor, seed: int) -> None:
        fitted = _bind(candidate.spec, self.mechanism)
        if training.rows < fitted.least_rows:
            candidate.excluded = f"it needs at least {fitted.least_rows} rows"
            return
        try:
            fit_mechanism(self.name, fitted, training, seed=seed, progress=False)
        except MechanismError as error:  # its loss diverged, say: the others may do
            candidate.excluded = str(error).removesuffix(".")
            return
        parents = {name: self.table.tensor(name, held_out) for name in fitted.parents}
        with torch.no_grad():
            log_prob = fitted.log_prob(self.table.tensor(self.name, held_out), parents)
            outside = _share_outside(fitted, parents, len(held_out), seed)
        if log_prob is None:
            candidate.excluded = "it has no density"
            return
        log_prob, outside = self.runtime.first(log_prob), self.runtime.agreed(outside)
        if impossible := int(log_prob.isneginf().sum()):
            candidate.excluded = f"{impossible:,} of {len(held_out):,} held-out rows have probability 0"
        elif not math.isfinite(float(log_prob.mean())):
            candidate.excluded = "its log-likelihood is not finite"
        elif outside > _MOST_OUTSIDE:
            candidate.excluded = f"{outside:.1%} of its draws lie outside the bounds"
        else:
            candidate.log_prob.append(log_prob)


def _bind(spec: MechanismSpec, like: Mechanism) -> Mechanism:
    """A mechanism for the same variable and parents."""
    chosen = spec.bind(like.variable, like.parents).eval()
    chosen.chosen_from = like.spec
    return chosen


def _chosen_and_best(candidates: Sequence[_Candidate], errors: float) -> tuple[_Candidate, _Candidate, float]:
    """The first candidate that is as good as the best one, the best one, and the first one's shortfall."""
    rows = torch.stack([each.rows() for each in candidates])
    counted = torch.maximum(rows, rows.amax(0) - _MOST_TOLD)
    best = int(counted.mean(1).argmax())
    shortfalls = [_shortfall(counted[best] - each) for each in counted]
    chosen = next(number for number, each in enumerate(shortfalls) if each <= errors)
    return candidates[chosen], candidates[best], shortfalls[chosen]


def _shortfall(gain: Tensor) -> float:
    """How many of its standard errors the mean of gains (N,) is above 0; of gains that are all 0, 0."""
    mean, error = float(gain.mean()), float(gain.std()) / math.sqrt(len(gain))
    if error == 0:  # as of the best itself
        return math.inf if mean > 0 else 0.0
    return mean / error


def _share_outside(mechanism: Mechanism, parents: Mapping[str, Tensor], rows: int, seed: int) -> float:
    """Share of draws beyond the bounds of a continuous variable, at these rows' parents, 10 draws each."""
    variable = mechanism.variable
    if not (isinstance(variable, Continuous) and has_bounds(variable)):
        return 0.0
    noise = mechanism.sample_noise(10 * rows, generator=torch.Generator().manual_seed(seed))
    drawn = mechanism.generate({name: torch.cat([value] * 10) for name, value in parents.items()}, noise)
    low, high = limits(variable)
    return float(((drawn < low) | (drawn > high)).double().mean())


def _account(chosen: _Candidate, candidates: Sequence[_Candidate], reason: str) -> dict[str, Any]:
    """What the report says of a choice; plain values."""
    return {
        "chosen": dump_mechanism(chosen.spec),
        "label": chosen.label,
        "reason": reason,
        "candidates": {
            each.label: {"excluded": each.excluded}
            if each.excluded or not each.log_prob
            else {"log_likelihood": float(each.rows().mean()), "rows": len(each.rows())}
            for each in candidates
        },
    }
