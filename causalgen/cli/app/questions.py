"""What a page asks of a model, and the answers: functions of plain values, without a browser.

    model = open_model("mnist", None)
    page = ask(model, None, {"digit": 7}, {"digit": 3}, seed=0, samples=None)
    page = ask(model, page, {"digit": 7}, {"digit": 4}, seed=0, samples=None)      a second world beside it

Worlds that are asked about the same evidence, seed and number of draws share one abduction and stand side by
side; other evidence begins anew. Every answer is that of ``scm.abduct(evidence, ...).worlds(...)``, bit for
bit, whoever else asks at the same time.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from threading import Lock
from typing import Any
from zlib import crc32

import numpy as np

from causalgen.arguments import whole_number
from causalgen.cli.common import load_model, rows_of
from causalgen.cli.given import as_given
from causalgen.counterfactuals.abduction import Abduction
from causalgen.counterfactuals.mutilated_model import refuse_unfitted
from causalgen.counterfactuals.results import Counterfactual
from causalgen.data.reading import read_data
from causalgen.effects.effect import Effect
from causalgen.saving.pretrained import model_folder
from causalgen.scm import SCM
from graphs.errors import EvidenceError, InterventionError
from graphs.variables import Categorical, image_variables, table_variables

__all__ = [
    "AskedEffect",
    "Model",
    "Session",
    "World",
    "ask",
    "ask_effect",
    "effect_targets",
    "open_model",
    "sentence",
]

_MOST_ROWS, _MOST_WORLDS, _MOST_DRAWS, _MOST_IMAGES = 200, 12, 10_000, 64
"""Rows to pick from, worlds side by side, draws of a row, and draws where images are drawn with them."""


@dataclass(frozen=True, eq=False)
class Model:
    """A model, and the rows that a page offers as evidence."""

    name: str
    scm: SCM
    rows: Mapping[str, Sequence[Any]]
    count: int
    own_rows: bool
    device: str | None


@dataclass(frozen=True, eq=False)
class World:
    """What was set, by node, and the counterfactual."""

    do: Mapping[str, Any]
    answer: Counterfactual


@dataclass(frozen=True, eq=False)
class Session:
    """What a page has asked about one piece of evidence."""

    evidence: Mapping[str, Any]
    seed: int
    samples: int | None
    abduction: Abduction
    worlds: Mapping[str, World]
    warnings: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class AskedEffect:
    """An effect, and the question that it answers; see ``ask_effect``."""

    effect: Effect
    target: str
    category: str | int | None
    do: Mapping[str, Any]
    versus: Mapping[str, Any]
    evidence: Mapping[str, Any]
    n: int
    confidence: float
    warnings: tuple[str, ...]


def open_model(name: str, data: str | None, device: str | None = None, rename: Sequence[str] = ()) -> Model:
    """A fitted model with the rows that evidence is picked from."""
    scm = load_model(name, device)
    for node, variable in image_variables(scm.variables).items():
        if variable.channels > 4:
            raise EvidenceError(
                f"Node {node!r} is an {variable.describe()}: a browser shows 1 to 4 channels. "
                "Ask in Python, or by causalgen counterfactual."
            )
    refuse_unfitted(scm.mechanisms, "ask")
    table = read_data(rows_of(name, scm, data, rename), scm.variables, gaps=True, partial=False)
    kept = slice(0, min(_MOST_ROWS, table.rows))
    rows = {node: as_given(table, node, kept, scm) for node in scm.variables}
    folder = Path(name).is_dir()
    where = str(model_folder(name).resolve()) if folder else name
    return Model(where, scm, rows, kept.stop, data is None, device)


def ask(
    model: Model,
    session: Session | None,
    evidence: Mapping[str, Any],
    do: Mapping[str, Any],
    *,
    seed: Any,
    samples: Any,
) -> Session:
    """One more world of a session, or the first of a new one."""
    if not do:
        raise InterventionError("Nothing to ask: set at least one node, or type what to set.")
    if not evidence:
        raise EvidenceError("Nothing was observed: give at least one node a value, or pick a row.")
    seed, samples = _whole(seed, "Seed", 0), _draws(model, samples)
    label = sentence(do)
    with _warned() as told:
        if session is None or not _same(session, evidence, seed, samples):
            abduction = model.scm.abduct(evidence, num_samples=samples, seed=seed)
            session = Session(evidence, seed, samples, abduction, {}, ())
        if label not in session.worlds and len(session.worlds) >= _MOST_WORLDS:
            raise InterventionError(f"{_MOST_WORLDS} worlds stand side by side already: clear them first.")
        answer = session.abduction.counterfactual(do)
        answer.readings.texts()  # read here, so that what reading warns of is told
    worlds = {**session.worlds, label: World(do, answer)}
    said = tuple(dict.fromkeys([*session.warnings, *told]))
    return Session(session.evidence, seed, samples, session.abduction, worlds, said)


def effect_targets(scm: SCM) -> list[str]:
    """The nodes that something may be set against: those with a cause, without images."""
    return [node for node in table_variables(scm.variables) if scm.graph.parents(node)]


def ask_effect(
    model: Model,
    target: Any,
    category: str | int | None,
    do: Mapping[str, Any],
    versus: Mapping[str, Any],
    evidence: Mapping[str, Any],
    *,
    n: Any,
    confidence: Any,
    seed: Any,
) -> AskedEffect:
    """How much an intervention changes a node on average; see ``scm.effect``."""
    if not isinstance(target, str) or target not in effect_targets(model.scm):
        raise EvidenceError(f"Choose the node whose mean is compared; got {target!r}.")
    if not do:
        raise InterventionError("Nothing to ask: set at least one node, or type what to set.")
    variable, statistic = model.scm.variables[target], None
    if isinstance(variable, Categorical):
        if category is None:
            raise EvidenceError(
                f"Target {target!r} has categories, which have no mean. Choose the one whose probability is "
                "compared."
            )
        code = variable.encode(category, where="Category")
        statistic = lambda values: variable.encode(values, where=target) == code  # noqa: E731
    n = _whole(n, "Draws", 2, 1_000_000)
    asked: dict[str, Any] = {"do": do, "versus": versus or None, "evidence": evidence or None}
    with _warned() as told:
        found = model.scm.effect(
            target, **asked, n=n, statistic=statistic, confidence=confidence, seed=_whole(seed, "Seed", 0)
        )
    if statistic is not None:
        found = replace(found, target=f"{target} = {category}")  # whose probability it is
    return AskedEffect(found, target, category, do, versus, evidence, n, confidence, tuple(told))


def sentence(do: Mapping[str, Any]) -> str:
    """What is set, as text: "digit = 3, thickness = thickness + 1"; equal text sets equal values."""
    return ", ".join(f"{node} = {_text(value)}" for node, value in do.items())


def _text(value: Any) -> str:
    if isinstance(value, np.ndarray):
        return f"image {crc32(value.tobytes()):08x}"
    return f"{value:.15g}" if isinstance(value, float) and float(f"{value:.15g}") == value else str(value)


def _same(session: Session, evidence: Mapping[str, Any], seed: int, samples: int | None) -> bool:
    known = session.evidence
    if (session.seed, session.samples) != (seed, samples) or known.keys() != evidence.keys():
        return False
    return all(np.array_equal(known[node], value) for node, value in evidence.items())


def _draws(model: Model, samples: Any) -> int | None:
    most = _MOST_IMAGES if image_variables(model.scm.variables) else _MOST_DRAWS
    number = _whole(samples, "Draws", 1, most)
    return None if number == 1 else number


def _whole(value: Any, what: str, least: int, most: int = 2**63 - 1) -> int:
    """A whole number, as a number's control gives it."""
    number = int(value) if isinstance(value, float) and value.is_integer() else value
    number = whole_number(number, what, least=least)
    if number > most:
        raise EvidenceError(f"{what}: at most {most:,}, got {number:,}.")
    return number


_WARNINGS = Lock()


@contextmanager
def _warned() -> Iterator[list[str]]:
    """What is warned of meanwhile; one question at a time, since Python's warnings are of the process."""
    told: list[str] = []
    with _WARNINGS, warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("ignore")  # what other libraries say to those who write programs
        warnings.simplefilter("always", UserWarning)
        yield told
        told += dict.fromkeys(" ".join(str(each.message).split()) for each in caught)
