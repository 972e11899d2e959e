"""``cg.tune``: the strength of a diffusion node's guidance, chosen on validation rows.

Every strength is asked of the same rows: abducted once, decoded once a strength, scored by the same networks.
The image's category is set to another one, uniform over the others; everything else is as the model makes it.
Where what abduction finds does not depend on the strength, each strength is a replaced mechanism that keeps
the noise. Against hidden parents it does, and each strength abducts anew.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from causalgen.arguments import renamed, whole_number
from causalgen.counterfactuals.assignments import Replace
from causalgen.data.reading import read_data
from causalgen.evaluation import STRENGTHS
from causalgen.evaluation.evaluate import held_rows
from causalgen.evaluation.questions import Columns, other_values
from causalgen.evaluation.tuning import (
    Tuned,
    Tuning,
    current_strength,
    strength_option,
    strength_options,
    strength_steers_abduction,
)
from causalgen.fitting.progress import Progress
from causalgen.metrics.controls import real_images
from causalgen.metrics.evaluators.evaluators import Evaluators
from causalgen.metrics.evaluators.storage import load_evaluators
from causalgen.metrics.image_rows import distance
from causalgen.metrics.latent_divergence import ClassDistances, class_distances, cld, cld_floor, im1, im2
from causalgen.metrics.node_passes import batches
from causalgen.metrics.scores import POSITIVE, Score, mean_score, share_score
from causalgen.scm import SCM
from graphs.errors import DataError, DomainError, MechanismError, UnknownNameError, numbered_rows, warn
from mechanisms.seeds import keyed_generator, keyed_seed

__all__ = ["tune"]

_ROWS = 100
"""Of the gallery's digits 35,000 evaluations of the network for ten strengths, as counted on 24 rows."""

_POOL = 10_000


@renamed(judges="evaluators")
def tune(
    scm: SCM,
    data: Any,
    evaluators: Evaluators | Path | str,
    *,
    node: str | None = None,
    strengths: Iterable[float] = STRENGTHS,
    rows: int | None = None,
    min_effectiveness: float = 0.95,
    seed: int = 0,
    missing: Literal["refuse", "drop"] = "refuse",
    progress: bool = True,
) -> Tuning:
    """Choose the strength of a diffusion node's guidance: effective first, then of least CLD.

    Args:
        scm: the model.
        data: validation rows, as for ``scm.fit``; neither training rows nor those to report on.
        evaluators: networks that score, trained on the same variables, or their name or folder.
        node: the image; needed where there are several.
        strengths: to try, from 0 (do nothing) to 100.
        rows: how many rows to try them on; 100, or all there are, where None. The others are real images to
            compare with.
        min_effectiveness: share of rows that must show the new category; where no strength gets there,
            the most effective is chosen, with a warning.
        seed: of rows and new categories.
        missing: "refuse" rows that lack a value, or "drop" them, all: ``tuning.dropped`` counts.
        progress: show progress.

    Returns:
        The scores of every strength: print it, plot it, and ``tuning.apply(scm)`` for the tuned model.

    Raises:
        MechanismError: no diffusion node, or several and none named.
        DomainError: evaluators of other variables, or strengths out of range.
        DataError: too few rows.
    """
    seed = whole_number(seed, "tune: seed")
    rows = None if rows is None else whole_number(rows, "tune: rows", least=1)
    given = read_data(data, scm.variables, missing=missing, nodes=scm.variables)
    table = given.complete(list(scm.variables))
    dropped = given.rows - table.rows
    if not 0 <= min_effectiveness <= 1:
        raise DomainError(f"min_effectiveness is a share, 0 to 1, got {min_effectiveness:g}.")
    asked = tuple(sorted({float(each) for each in strengths}))
    if len(asked) < 2 or not 0 <= asked[0] <= asked[-1] <= 100:
        raise DomainError(f"Tuning compares at least two strengths from 0 to 100, got {list(asked)}.")
    if isinstance(evaluators, Path | str):
        evaluators = load_evaluators(evaluators)
    node = _image_node(scm, node, evaluators)
    option = strength_option(scm, node)
    rows = min(_ROWS, table.rows) if rows is None else rows
    if not 2 <= rows <= table.rows:
        complete = f" without missing values, of {given.rows:,}" if dropped else ""
        raise DataError(
            f"The data have {table.rows:,} rows{complete}: tuning takes 2 to all of them, got {rows}."
        )
    order = torch.randperm(table.rows, generator=keyed_generator(seed, "tune", "rows")).numpy()
    chosen = np.sort(order[:rows])
    columns = held_rows(table, scm.variables, chosen)
    label = evaluators.roles.label
    wanted = other_values(scm.variables[label], columns[label], keyed_seed(seed, "tune", label))
    names = {label: scm.variables[label], node: scm.variables[node]}
    pool = held_rows(table, names, np.union1d(chosen, order[: max(_POOL, rows)]))
    scoring = _Scoring(evaluators, node, columns, wanted, pool)
    models = [scm.with_options(node, **strength_options(scm, node, label, each)) for each in asked]
    images: list[list[NDArray[np.float32]]] = [[] for _ in models]
    with Progress("tune", rows * len(asked), enabled=progress) as bar:
        bar.begin(f"guidance of {node}")
        for block, part in batches(rows):
            evidence = {name: values[part] for name, values in columns.items()}
            key = keyed_seed(seed, "tune", block)
            with numbered_rows(table.numbers[chosen[part]]):
                once = None if strength_steers_abduction(scm, node) else scm.abduct(evidence, seed=key)
                for model, found in zip(models, images, strict=True):
                    abduction = model.abduct(evidence, seed=key) if once is None else once
                    do = {label: wanted[part], node: Replace(model.mechanisms[node], noise="keep")}
                    found.append(abduction.counterfactual(do, targets=[node])[node].cpu().numpy())
                    bar.advance(abduction.rows)
    tuning = Tuning(
        node=node,
        option=option,
        label=label,
        evaluators=evaluators.name,
        rows=rows,
        seed=seed,
        points=tuple(
            Tuned(strength, scoring.scores(np.concatenate(parts)))
            for strength, parts in zip(asked, images, strict=True)
        ),
        controls=scoring.controls(seed),
        floor=cld_floor(scoring.distances),
        min_effectiveness=min_effectiveness,
        current=current_strength(scm, node, label),
        dropped=dropped,
        available=table.rows,
    )
    if not tuning.choice.effective:
        warn(
            f"do({label}) reaches an effectiveness of {min_effectiveness:g} at no {option} that was tried; "
            f"{tuning.best.strength:g} is the most effective, at {tuning.best.scores['effectiveness']}. Try "
            "larger strengths, or fit the model for longer."
        )
    return tuning


class _Scoring:
    """Scores images made from the same rows."""

    def __init__(
        self, evaluators: Evaluators, node: str, columns: Columns, wanted: NDArray[np.generic], pool: Columns
    ) -> None:
        label, self.category = evaluators.roles.label, evaluators.roles.category
        self.factual, self.wanted, self.evaluators = columns[node], wanted, evaluators
        self.pool = pool[node], pool[label]
        self.old, self.new, real = (
            self.category.encode(each, where=label) for each in (columns[label], wanted, pool[label])
        )
        self.distances: ClassDistances = class_distances(
            evaluators.latents, self.factual, self.old, self.new, pool[node], real
        )

    def scores(self, images: NDArray[np.float32]) -> dict[str, Score]:
        networks = self.evaluators
        before, after = networks.class_autoencoder(self.old), networks.class_autoencoder(self.new)
        apart = distance(networks.roles.picture, images, self.factual)
        return {
            "CLD": cld(images, self.distances),
            "effectiveness": share_score(networks.classes(images) == self.new),
            "IM1": im1(images, before, after),
            "IM2": im2(images, after, networks.autoencoder),
            "distance": mean_score(apart, "L1 on 0..255", better="neither", limits=POSITIVE),
        }

    def controls(self, seed: int) -> dict[str, dict[str, Score]]:
        """The same scores of images that no model made."""
        found = {"do nothing": self.scores(self.factual)}
        real = real_images(self.factual, self.wanted, *self.pool, self.category, seed=seed)
        found["random real"] = self.scores(self.pool[0][real.random])
        return found | {"nearest real": self.scores(self.pool[0][real.nearest])}


def _image_node(scm: SCM, node: str | None, evaluators: Evaluators) -> str:
    images = [name for name, each in scm.mechanisms.items() if "guidance" in type(each.spec).model_fields]
    if node is None and len(images) == 1:
        node = images[0]
    if node is None:
        raise MechanismError(
            f"Tuning is for a diffusion node; this model has {', '.join(images) or 'none'}. "
            "Name one: node=..."
        )
    UnknownNameError.check("diffusion node", node, images, where="tune")
    roles, parents = evaluators.roles, scm.mechanisms[node].parents
    if roles.picture != scm.variables[node] or parents.get(roles.label) != roles.category:
        raise DomainError(
            f"The evaluators of {evaluators.name} know {roles.describe()}; node {node!r} is "
            f"{scm.variables[node].describe()} of {', '.join(parents) or 'no parents'}. "
            "Train evaluators for this model: causalgen evaluators."
        )
    return node
