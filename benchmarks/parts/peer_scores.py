"""A peer's images: made under the peer's own Python, and scored as ours are.

The same rows, questions, evaluators, real images and controls serve both.
"""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import causalgen as cg
from causalgen.data.reading import read_data
from causalgen.evaluation.evaluate import chosen_rows, held_rows, prepare_image
from causalgen.evaluation.metric import MECHANISM, Entry, NodeEvaluation, chosen_metrics
from causalgen.evaluation.questions import Answer, Columns, Question, Truth, questions
from causalgen.metrics.evaluators import Evaluators
from causalgen.metrics.image_rows import distance
from causalgen.metrics.scores import mean_score

__all__ = ["Setting", "latest", "peer_answers", "plain"]

_METRICS = (
    "effectiveness",
    "distance",
    "reversibility",
    "minimality",
    "feature_distance",
    "interpretability",
    "latent_divergence",
    "true_error",
)


@dataclass
class Setting:
    """The rows and questions of ``cg.evaluate(scm, data, rows=rows, seed=seed, truth=truth)``.

    Attributes:
        scm: declares the variables; nothing is asked of it.
        node: the image.
        data: source of the rows.
        rows: how many of them.
        seed: which of them, and what is asked.
        evaluators: score.
        truth: the true worlds, where they are known.
    """

    scm: cg.SCM
    node: str
    data: str
    rows: int
    seed: int
    evaluators: Evaluators
    truth: Truth | None = None
    columns: Columns = field(init=False)
    asked: list[Question] = field(init=False)

    def __post_init__(self) -> None:
        variables = self.scm.variables
        table = read_data(self.data, variables)
        chosen = chosen_rows(table.rows, self.rows, False, self.seed)
        self.columns = held_rows(table, variables, chosen)
        numbers, few = table.numbers[chosen], np.arange(0)
        self._case = NodeEvaluation(self.scm, self.node, self.columns, table, numbers, self.seed, few)
        prepare_image(self._case, chosen, self.evaluators, "strokes")
        self.asked = questions(self._case, self.truth)

    def bytes(self) -> NDArray[np.uint8]:
        """The factual images as peers take them, (N, H, W)."""
        return (255 * np.asarray(self.columns[self.node])[:, 0]).round().astype(np.uint8)

    def score(
        self, question: Question, images: NDArray[Any], back: NDArray[Any], seconds: float
    ) -> list[Entry]:
        """The metrics of a peer's counterfactuals, with controls; samples of a peer there are none.

        Args:
            question: what was asked.
            images: its answers, (N, H, W) in [0, 1].
            back: its images of the way back, (N, H, W) in [0, 1].
            seconds: spent on the answers.
        """
        home = distance(self.scm.variables[self.node], back[:, None].clip(0, 1), self.columns[self.node])
        made = images[:, None].clip(0, 1).astype(np.float32)
        self._case.answers = [Answer(question, made, home, None, question.shown, {}, None, None, seconds)]
        metrics = chosen_metrics(_METRICS)
        found = [entry for metric in metrics for entry in metric.measure(self._case)]
        return [entry for entry in found if entry.do]  # the floor of what is read is of no question

    def composition(self, images: Mapping[int, NDArray[Any]]) -> list[Entry]:
        """Distance to the factual after null interventions, by their number; images (N, H, W) in [0, 1]."""
        variable, factual = self.scm.variables[self.node], self.columns[self.node]
        return [
            Entry(
                "composition",
                self.node,
                MECHANISM,
                mean_score(distance(variable, each[:, None].clip(0, 1), factual), "L1 on 0..255"),
                of=str(cycles),
            )
            for cycles, each in images.items()
        ]


def plain(entries: Sequence[Entry]) -> list[dict[str, Any]]:
    """Entries ready for JSON."""
    return [entry.to_dict() for entry in entries]


def peer_answers(
    python: Path,
    worker: str,
    rows: Mapping[str, NDArray[Any]],
    arguments: Sequence[str | Path | int | float],
    *,
    threads: int = 1,
) -> dict[str, NDArray[Any]]:
    """What ``peers/WORKER`` answers for rows, under the peer's own Python; its messages go to standard error.

    Raises:
        SystemExit: there is no such interpreter, or the worker failed; it has said why.
    """
    if not python.exists():
        raise SystemExit(f"no {python}; it is the interpreter in which the peer's requirements are installed")
    limits = {"OMP_NUM_THREADS": str(threads), "CUDA_VISIBLE_DEVICES": "", "TQDM_DISABLE": "1"}
    with tempfile.TemporaryDirectory() as folder:
        asked, out = Path(folder) / "rows.npz", Path(folder) / "answers.npz"
        np.savez(asked, **rows)  # pyright: ignore[reportArgumentType]
        script = Path(__file__).parents[1] / "peers" / worker
        given = [*arguments, "--rows", asked, "--out", out, "--threads", threads]
        command = [str(python), str(script), *map(str, given)]
        if subprocess.run(
            command, env=os.environ | limits, check=False, stdout=subprocess.DEVNULL
        ).returncode:
            raise SystemExit(f"{worker} failed; see above")
        with np.load(out) as answers:
            return {name: answers[name] for name in answers.files}


def latest(folder: Path, pattern: str) -> Path:
    """The file of the pattern with the highest name.

    Raises:
        SystemExit: there is none.
    """
    found = sorted(folder.glob(pattern))
    if not found:
        raise SystemExit(f"no {pattern} in {folder}; train the peer first, or give the folder that holds it")
    return found[-1]
