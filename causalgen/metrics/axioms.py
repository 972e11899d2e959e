"""Axiomatic soundness of counterfactuals: composition, effectiveness, reversibility (Monteiro et al. 2023).

    composition     f(pa, u(x, pa)) = x                        doing nothing changes nothing
    reversibility   f(pa, u(x', pa')) = x, x' = f(pa', u)      there and back: u anew from x' and pa' alone
    effectiveness   the attributes of f(pa', u) are pa'        the intervention does what it says

Galles & Pearl 1998; as metrics of image models: Monteiro, Ribeiro, Pawlowski, Castro & Glocker 2023
(*Measuring axiomatic soundness of counterfactual image models*, ICLR, section 3). None suffices alone: a
mechanism that returns its input composes and reverses perfectly and is never effective.

Distances are those of ``distance``: images in L1 on 0..255. Step residuals of a diffusion node make
composition exact by construction; ``residuals=False`` measures what the inversion itself keeps.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from causalgen.arguments import renamed
from causalgen.metrics.image_rows import distance, distance_unit, image_rows
from causalgen.metrics.node_passes import NodePasses, batches
from causalgen.metrics.scores import POSITIVE, Better, Score, mean_score, share_score
from graphs.errors import DataError, DomainError, ShapeError, UnknownNameError, numbered_rows
from graphs.variables import Categorical, Variable
from graphs.variables.arrays import as_array

if TYPE_CHECKING:
    from causalgen.scm import SCM

__all__ = ["Reader", "composition", "effectiveness", "read_attribute", "reversibility"]

Reader = Callable[[Any], Any]
"""Images (N, C, H, W), float32 tensors in [0, 1] -> a category's logits (N, K) or codes (N,), or numbers."""

Advance = Callable[[int], None]
"""Told how many rows have made one pass of abduction and generation."""


def composition(
    scm: SCM,
    evidence: Mapping[str, Any],
    node: str,
    cycles: Iterable[int] = (1, 10),
    *,
    residuals: bool | None = None,
    seed: int = 0,
    advance: Advance | None = None,
) -> dict[int, Score]:
    """How far a node drifts when nothing is changed: after each number of null interventions.

    One cycle abducts the noise of the node from its value and its parents' and generates the value again;
    the next one starts from what came out. Nothing is copied. Doing nothing scores 0.

    Args:
        scm: the model, fitted.
        evidence: the node and its parents, B rows.
        node: which node.
        cycles: after how many to measure, each at least 1.
        residuals: of a diffusion node with solver ``anchored``: False leaves them out; None leaves the node
            as it is.
        seed: of what abduction draws.
        advance: told of progress.

    Returns:
        Mean distance to the factual by number of cycles; images in L1 on 0..255.

    Raises:
        DataError: a column is missing, or no rows.
        DomainError: a value outside its domain, or a number of cycles below 1.
        MechanismError: ``residuals`` for a node that has none, or a mechanism that cannot abduct.
    """
    wanted = sorted(set(cycles))
    if not wanted or wanted[0] < 1:
        raise DomainError(f"cycles are whole numbers from 1, got {list(cycles)}.")
    passes = NodePasses(scm, node, residuals=residuals, seed=seed)
    values = passes.read(evidence)
    found: dict[int, list[NDArray[np.float64]]] = {cycle: [] for cycle in wanted}
    for block, rows in batches(len(values[node])):
        batch = {name: value[rows] for name, value in values.items()}
        current, factual = batch[node], passes.held(batch[node])
        for cycle in range(1, wanted[-1] + 1):
            with numbered_rows(range(rows.start, rows.stop)):
                current = passes.generate(batch, passes.abduct(current, batch, block=block, turn=cycle))
            if cycle in found:
                found[cycle].append(distance(passes.variable, passes.held(current), factual))
            if advance:
                advance(len(current))
    return {cycle: _distance_score(passes.variable, parts) for cycle, parts in found.items()}


def reversibility(
    scm: SCM,
    evidence: Mapping[str, Any],
    node: str,
    do: Mapping[str, Any],
    *,
    residuals: bool | None = None,
    seed: int = 0,
    advance: Advance | None = None,
) -> dict[str, Score]:
    """How far a node ends from where it began, having gone to other parents and back.

    The way back starts as a stranger would: from the counterfactual value and its parents, abducted anew. No
    noise is carried over. A mechanism that never moves comes back perfectly, so the way there is told too.
    Arguments are those of ``composition``; ``do`` sets parents of the node to one value or B, the others stay
    factual.

    Returns:
        ``"back"``: mean distance of where it ends to the factual; ``"there"``: of the counterfactual to it.

    Raises:
        UnknownNameError: ``do`` names no parent of the node.
        DataError, DomainError, MechanismError: as for ``composition``.
    """
    passes = NodePasses(scm, node, residuals=residuals, seed=seed)
    values = passes.read(evidence)
    asked = values | _rows_of(passes.read_parents(do), len(values[node]))
    there: list[NDArray[np.float64]] = []
    back: list[NDArray[np.float64]] = []
    for block, rows in batches(len(values[node])):
        factual, other = ({name: value[rows] for name, value in each.items()} for each in (values, asked))
        with numbered_rows(range(rows.start, rows.stop)):
            moved = passes.generate(other, passes.abduct(factual[node], factual, block=block))
            home = passes.generate(factual, passes.abduct(moved, other, block=block, turn=1))
        start = passes.held(factual[node])
        there.append(distance(passes.variable, passes.held(moved), start))
        back.append(distance(passes.variable, passes.held(home), start))
        if advance:
            advance(2 * len(moved))
    return {
        "back": _distance_score(passes.variable, back),
        "there": _distance_score(passes.variable, there, better="neither"),
    }


def _distance_score(
    variable: Variable, parts: Sequence[NDArray[np.float64]], better: Better = "lower"
) -> Score:
    """The mean of distances, which are 0 or 1 of categories."""
    limits = (0.0, 1.0) if isinstance(variable, Categorical) else POSITIVE
    return mean_score(np.concatenate(parts), distance_unit(variable), better=better, limits=limits)


@renamed(judges="readers")
def effectiveness(
    images: object,
    wanted: Mapping[str, Any],
    variables: Mapping[str, Variable],
    readers: Mapping[str, Reader],
) -> dict[str, Score]:
    """Whether images have the attributes they should: accuracy of categories, mean absolute error of numbers.

    Give counterfactual images with their counterfactual attributes; and beside that factual images with
    factual attributes (the floor below which the reader cannot tell), factual images with counterfactual ones
    (doing nothing), and real images of the target class.

    Args:
        images: (N, C, H, W), floats in [0, 1] or uint8.
        wanted: attribute -> the value it should have in each image, (N,), in the user's form.
        variables: of the attributes.
        readers: attribute -> what reads it from images: a predictor that the model's guidance never saw, or a
            measurement such as ``metrics.thickness``. A predictor of a category gives logits (N, K), of a
            number (N,) or (N, 1) in the variable's unit; codes of a category do as well.

    Returns:
        Attribute -> score, for each reader. An image that cannot be measured is left out and counted.

    Raises:
        DataError: no rows, or no column of an attribute.
        ShapeError: numbers of rows that disagree, or a predictor of another variable.
        UnknownNameError: a reader of no attribute.
    """
    pictures = image_rows(images)
    return {name: _score(pictures, name, wanted, variables, reader) for name, reader in readers.items()}


def _score(
    images: Tensor, name: str, wanted: Mapping[str, Any], variables: Mapping[str, Variable], reader: Reader
) -> Score:
    UnknownNameError.check("attribute", name, variables, where="readers")
    if name not in wanted:
        raise DataError(
            f"Effectiveness: {name!r} has a reader, but no column says what it should be. "
            f"Columns: {', '.join(wanted) or 'none'}."
        )
    variable = variables[name]
    truth = variable.encode(wanted[name], where=f"Attribute {name!r}")
    if len(truth) != len(images):
        raise ShapeError(f"Attribute {name!r} has {len(truth)} rows, and there are {len(images)} images.")
    found = read_attribute(images, name, variable, reader)
    if isinstance(variable, Categorical):
        return share_score(found == truth, "accuracy")
    unit = f"MAE, {told}" if (told := getattr(variable, "unit", "")) else "MAE"
    return mean_score(np.abs(found - truth), unit, limits=POSITIVE)


def read_attribute(images: Tensor, name: str, variable: Variable, reader: Reader) -> NDArray[Any]:
    """What a reader finds from images: codes of a category, or numbers in the variable's unit, (N,)."""
    trained_on = getattr(reader, "variable", variable)
    if trained_on is not variable and trained_on != variable:
        raise DomainError(
            f"The reader of {name!r} was trained on another variable: "
            f"{getattr(trained_on, 'describe', lambda: trained_on)()}, not {variable.describe()}."
        )
    with torch.no_grad():
        parts = [
            as_array(reader(images[rows]), where=f"Reader of {name!r}") for _, rows in batches(len(images))
        ]
    found = np.concatenate(parts)
    if isinstance(variable, Categorical):
        if found.shape == (len(images),) and found.dtype.kind in "iu":
            return variable.encode(variable.decode(found), where=f"Reader of {name!r}")
        if found.shape != (len(images), variable.size):
            raise ShapeError(
                f"The reader of {name!r} gives {_what(found)}, but {name!r} has {variable.size} categories: "
                f"expected logits ({len(images)}, {variable.size}). Was it trained on another variable?"
            )
        unread = ~np.isfinite(found).all(1)
        if unread.any():
            raise DomainError(
                f"The reader of {name!r} gives {found[unread][0].tolist()} for image {int(unread.argmax())}: "
                "expected a finite logit of each category."
            )
        return found.argmax(1)
    if found.ndim == 2 and found.shape[1] == 1:
        found = found[:, 0]
    if found.shape != (len(images),) or variable.event_shape:
        raise ShapeError(
            f"The reader of {name!r} gives {_what(found)}, but {name!r} is {variable.describe()}: "
            f"expected one number an image, ({len(images)},). Was it trained on another variable?"
        )
    return found.astype(float)


def _what(found: NDArray[Any]) -> str:
    return f"{found.shape[1]} numbers an image" if found.ndim == 2 else f"an array {found.shape}"


def _rows_of(values: Mapping[str, Tensor], rows: int) -> dict[str, Tensor]:
    wrong: Sequence[str] = [name for name, value in values.items() if len(value) not in (1, rows)]
    if wrong:
        raise ShapeError(f"do[{wrong[0]!r}] has {len(values[wrong[0]])} rows, the evidence has {rows}.")
    return {name: value.expand(rows, *value.shape[1:]) for name, value in values.items()}
