"""Did it take? What the model itself reads of an image's causes in its counterfactual images.

    asked     the value of a cause in the counterfactual world, which the image is to show
    read      what the node's mechanism reads of it in the counterfactual image (``Mechanism.read``)
    factual   what it reads in the factual image: near what was observed where the reader is any good

The reader is the model's own, a diffusion node's anticausal predictor. It has learned from the same rows as
what it judges, and guidance may have followed it: a reading that differs from what was asked tells of a
failure, one that agrees is no proof. ``causalgen.evaluate`` has independent judges.

Nothing is read before it is asked for. A copied image is read as the factual one, which it is.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import torch
from torch import Tensor

from causalgen.counterfactuals.mutilated_model import MutilatedModel
from causalgen.counterfactuals.rows import broadcast_rows, by_sample, differs, read_rows
from causalgen.counterfactuals.summaries import draw_texts
from causalgen.data.frames import number_names
from graphs.errors import UnknownNameError
from graphs.text import Shown
from graphs.variables import Categorical, Image, Variable
from mechanisms.base import Mechanism
from mechanisms.rows import decoded_rows

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["ImageReadings", "OwnReadings", "Reading"]

_READ_BY = "the model's own predictor, no independent judge"
_SHOWN_ROWS = 4
_TOLERATED = 2.0
"""Held-out errors that a number may be read away from what was asked."""


class _Figures(Protocol):
    @property
    def figures(self) -> Mapping[str, float]: ...


@dataclass(frozen=True, eq=False)
class Reading:
    """One cause of an image: what was asked, and what is read."""

    variable: Variable  # of the cause
    # "asked", "read" and "factual" -> values in canonical encoding, (S, B, *event)
    draws: Mapping[str, Tensor]
    made: Tensor  # (S, B) bool, which images are not the factual ones
    samples: int | None  # S, or None where one draw was asked for
    index: pd.Index | None  # of the evidence, where it was a DataFrame

    @property
    def asked(self) -> Any:
        """The cause in the counterfactual world, (B, *event) or (S, B, *event) in the user's form."""
        return self._decoded("asked")

    @property
    def read(self) -> Any:
        """What is read in the counterfactual image, in the same form."""
        return self._decoded("read")

    @property
    def factual(self) -> Any:
        """What is read in the factual image, in the same form."""
        return self._decoded("factual")

    @property
    def error(self) -> Tensor:
        """(S, B) float64: whether a category is read otherwise than asked, or how far off a number is."""
        asked, read = self.draws["asked"], self.draws["read"]
        if isinstance(self.variable, Categorical):
            return (asked != read).double()
        return (asked - read).abs().double().flatten(2).mean(2) if asked.ndim > 2 else (asked - read).abs()

    def not_taken(self, held_out_error: float | None = None) -> Tensor | None:
        """(S, B) bool, which made images do not show what was asked; None of a number without a yardstick.

        A number has taken within twice ``held_out_error``, the reader's mean error on images of data.
        """
        if isinstance(self.variable, Categorical):
            return self.made & (self.error > 0)
        return None if held_out_error is None else self.made & (self.error > _TOLERATED * held_out_error)

    def _decoded(self, name: str) -> Any:
        values = self.draws[name] if self.samples is not None else self.draws[name][0]
        decoded = decoded_rows(self.variable, values)
        if self.index is None or self.variable.event_shape or self.samples is not None:
            return decoded
        import pandas as pd

        return pd.Series(np.asarray(decoded), index=self.index, name=name)


class ImageReadings(Mapping[str, Reading]):
    """What is read of the causes in the images of one node, by cause; read when first asked for."""

    def __init__(self, node: str, read: Callable[[], dict[str, Reading]]) -> None:
        self.node, self._read = node, read

    @cached_property
    def _causes(self) -> dict[str, Reading]:
        return self._read()

    def __getitem__(self, cause: str) -> Reading:
        UnknownNameError.check("cause", cause, self._causes, where=f"what is read in {self.node!r}")
        return self._causes[cause]

    def __iter__(self) -> Iterator[str]:
        return iter(self._causes)

    def __len__(self) -> int:
        return len(self._causes)

    def __repr__(self) -> str:
        return "\n".join(self.texts()) or f"{self.node}: no cause is read"

    def __getstate__(self) -> dict[str, Any]:
        """What is read, and no mechanism."""
        return {"node": self.node, "_causes": self._causes}

    def texts(self) -> list[str]:
        """A line a cause: the first rows, and how many images of a category do not show what was asked."""
        lines: list[str] = []
        for cause, reading in self.items():
            parts = {key: _text(cause, reading, key) for key in ("asked", "read", "factual")}
            line = f"{self.node}, {cause}: asked {parts['asked']}; read {parts['read']}"
            line += f"; of the factual {parts['factual']}"
            missed = reading.not_taken()
            if missed is not None:
                line += f"; not taken in {int(missed.sum())} of {int(reading.made.sum())} made anew"
            lines.append(line)
        return lines


class OwnReadings(Mapping[str, ImageReadings], Shown):
    """What the model itself reads of the causes in its counterfactual images, by image node.

    ``cf.readings["image"]["digit"].read``. Nodes of whose causes nothing is read are left out. Nothing is
    read before it is asked for, and then it is kept.
    """

    def __init__(self, nodes: Mapping[str, ImageReadings], kinds: Mapping[str, str]) -> None:
        """Made by ``of_world``; ``kinds`` says what mechanism each image node has."""
        self._nodes, self._kinds = dict(nodes), dict(kinds)

    @classmethod
    def of_world(
        cls,
        world: MutilatedModel,
        variables: Mapping[str, Variable],
        nodes: Iterable[str],
        values: Mapping[str, Tensor],
        factual: Mapping[str, Tensor],
        rows: int,
        samples: int | None,
        index: pd.Index | None,
    ) -> OwnReadings:
        """Of the images among ``nodes`` in a world after surgery; nothing is read yet.

        ``values`` are those of the nodes and their parents in that world, (B or S * B, *event), ``factual``
        the evidence on them; B is ``rows``, S is ``samples``.
        """
        found: dict[str, ImageReadings] = {}
        for node in (node for node in nodes if isinstance(variables[node], Image)):
            causes = {name: variables[name] for name in world.graph.parents(node) if name in variables}
            now, before = ({name: each[name] for name in (node, *causes)} for each in (values, factual))
            mechanism = world.mechanisms[node]
            read = partial(_read_causes, mechanism, node, causes, now, before, rows, samples, index)
            found[node] = ImageReadings(node, read)
        return cls(found, {node: world.mechanisms[node].spec.kind for node in found})

    def __getitem__(self, node: str) -> ImageReadings:
        """What is read in the images of a node, by cause."""
        if node not in self._nodes or not self._nodes[node]:
            raise UnknownNameError.of("node", node, tuple(self), where="what is read in images")
        return self._nodes[node]

    def __iter__(self) -> Iterator[str]:
        return (node for node, each in self._nodes.items() if each)

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def only(self, nodes: Iterable[str]) -> OwnReadings:
        """Those of some nodes; what was read is shared."""
        kept = {node: self._nodes[node] for node in nodes if node in self._nodes}
        return OwnReadings(kept, self._kinds)

    def texts(self) -> list[str]:
        """A line for each node and cause; see ``ImageReadings.texts``."""
        return [line for each in self._nodes.values() for line in each.texts()]

    def __repr__(self) -> str:
        """Who reads, and a line for each node and cause; or why nothing is read."""
        lines = self.texts()
        if lines:
            return "\n  ".join([f"OwnReadings, by {_READ_BY}", *lines])
        if not self._nodes:
            return "OwnReadings: empty, no image is among the nodes"
        kinds = ", ".join(f"{node} ({kind})" for node, kind in self._kinds.items() if node in self._nodes)
        return f"OwnReadings: empty, {kinds} reads no cause: it was set, or has no predictor"

    def to_frame(self) -> pd.DataFrame:
        """A line for each node, cause, sample and row; columns ``asked``, ``read`` and ``factual``.

        A vector has a line for each of its numbers. Rows have the index of the evidence.
        """
        import pandas as pd

        columns = ["asked", "read", "factual"]
        frames: dict[Any, pd.DataFrame] = {
            (node, name): part
            for node, each in self.items()
            for cause, reading in each.items()
            for name, part in _frames(cause, reading, each)
        }
        if not frames:
            return pd.DataFrame(columns=columns)
        return pd.concat(frames, names=["node", "cause"])

    def summary(self, report: Mapping[str, _Figures] | None = None) -> pd.DataFrame:
        """How far images show what was asked, a line for each node and cause.

        Columns ``made``, how many images are not the factual one; ``not_taken``, in how many of them a
        category is read otherwise than asked, or a number further off than twice the reader's held-out error,
        where that is known, as one in nine images of data is if errors are normal; ``error``, the mean
        distance of numbers, in data units.

        Args:
            report: of the fit, ``scm.fit_report``, which has held-out errors; None where it is not at hand.
        """
        import pandas as pd

        lines: dict[tuple[str, str], dict[str, Any]] = {}
        for node, each in self.items():
            figures = report[node].figures if report is not None and node in report else {}
            for cause, reading in each.items():
                missed = reading.not_taken(figures.get(f"{cause} error"))
                number = not isinstance(reading.variable, Categorical) and bool(reading.made.any())
                lines[node, cause] = {
                    "made": int(reading.made.sum()),
                    "not_taken": pd.NA if missed is None else int(missed.sum()),
                    "error": reading.error[reading.made].mean().item() if number else np.nan,
                }
        index = pd.MultiIndex.from_tuples(list(lines), names=["node", "cause"])
        table = pd.DataFrame(list(lines.values()), index=index, columns=["made", "not_taken", "error"])
        return table.astype({"made": "int64", "not_taken": "Int64", "error": "float64"})

    def describe(self) -> dict[str, Any]:
        """Plain values for JSON: who reads, and by node and cause what."""
        causes = {
            node: {
                cause: {
                    **{key: np.asarray(getattr(reading, key)).tolist() for key in reading.draws},
                    "made": int(reading.made.sum()),
                    "not_taken": None if (missed := reading.not_taken()) is None else int(missed.sum()),
                }
                for cause, reading in each.items()
            }
            for node, each in self.items()
        }
        return {"by": _READ_BY, "nodes": causes} if causes else {}


@torch.no_grad()
def _read_causes(
    mechanism: Mechanism,
    node: str,
    causes: Mapping[str, Variable],
    values: Mapping[str, Tensor],
    before: Mapping[str, Tensor],
    rows: int,
    samples: int | None,
    index: pd.Index | None,
) -> dict[str, Reading]:
    """Factual images are read once, counterfactual ones where they are others."""
    n, device = max(len(values[node]), len(before[node])), mechanism.device
    image, original = (broadcast_rows(each[node], n, rows) for each in (values, before))
    made = torch.as_tensor(differs(image, original)).expand(n)
    factual = read_rows(mechanism, node, before[node].to(device))
    changed = factual and bool(made.any())
    fresh = read_rows(mechanism, node, image[made].to(device)) if changed else {}
    found: dict[str, Reading] = {}
    for name in (name for name in causes if name in factual):
        unchanged = broadcast_rows(factual[name], n, rows)
        read = unchanged.clone()
        if name in fresh:
            read[made.to(read.device)] = fresh[name]
        draws = {"asked": values[name], "read": read, "factual": unchanged}
        shaped = {key: by_sample(each.cpu(), samples or 1, rows) for key, each in draws.items()}
        found[name] = Reading(causes[name], shaped, by_sample(made.cpu(), samples or 1, rows), samples, index)
    return found


def _text(cause: str, reading: Reading, key: str) -> str:
    values = reading.draws[key]
    parts = draw_texts(cause, {cause: reading.variable}, values[:, :_SHOWN_ROWS]).values()
    more = ", ..." if values.shape[1] > _SHOWN_ROWS else ""
    return " / ".join(", ".join(cells) + more for cells in parts)


def _frames(cause: str, reading: Reading, causes: Collection[str]) -> Iterator[tuple[str, pd.DataFrame]]:
    """A frame for each number of a cause, with its name, which is no other cause's."""
    import pandas as pd

    columns = {key: np.asarray(reading.variable.decode(each)) for key, each in reading.draws.items()}
    samples, rows = columns["asked"].shape[:2]
    index = pd.RangeIndex(rows) if reading.index is None else reading.index
    index = index.rename("row") if index.names == [None] else index
    flat = {key: each.reshape(samples, rows, -1) for key, each in columns.items()}
    for part, name in enumerate(number_names(cause, reading.variable, causes)):
        frames: dict[Any, pd.DataFrame] = {
            sample: pd.DataFrame({key: each[sample, :, part] for key, each in flat.items()}, index=index)
            for sample in range(samples)
        }
        yield name, frames[0] if reading.samples is None else pd.concat(frames, names=["sample"])
