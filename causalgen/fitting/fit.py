"""Fit a node: in closed form where there is one, else by minimising its mean loss (maximum likelihood).

A closed form is fitted to every row; the training loop never sees the held-out rows, which the seed draws
(``fitting.holding_out``), and stops early by them. Everything random is keyed by seed, node and step
(``mechanisms.seeds``), the rest of a fit's state is in its run folder: a fit killed at any moment and resumed
ends in the same weights, bit for bit, as one left alone. The global random state is left untouched.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from causalgen.data.table import Table
from causalgen.fitting.fit_report import FitReport, NodeReport, too_short
from causalgen.fitting.holding_out import split as split_rows
from causalgen.fitting.progress import Progress
from causalgen.fitting.run_folder import RunFolder, State, digest
from causalgen.fitting.runtime import LocalRuntime, Runtime, image_precision, runtime_of, split
from causalgen.fitting.training_loop import Objective, TrainingLoop, patience_of
from graphs.errors import CheckpointError, DataError, MechanismError
from mechanisms.base import Mechanism
from mechanisms.options import start_from
from mechanisms.registry import told_options
from mechanisms.seeds import drawn_for_rows, keyed_generator, keyed_seed, layers_apart, seed_layers
from mechanisms.training import ImageTraining, Stage, least_steps

__all__ = ["FitReport", "NodeReport", "fit_mechanism", "run_folder"]

WHOLE_BYTES = 4 * 2**30
"""Canonical values of all rows larger than this are not made at once: a random part of the rows stands in."""

_LEAST_HELD_OUT = 100

_IMAGES_AGAIN = 10_000
"""Rows of an image node that its mechanism sees once more after training."""

TABLE_ROWS = 65536
"""Rows of a table node that are evaluated at once; image nodes take their training batch size."""


def fit_mechanism(
    name: str,
    mechanism: Mechanism,
    table: Table,
    *,
    seed: int,
    run_dir: Path | str | None = None,
    resume: bool = False,
    progress: bool = True,
    checkpoint_seconds: float = 60.0,
    start: Mechanism | None = None,
) -> NodeReport:
    """Fit one node's mechanism, in place, by its spec's ``training`` settings.

    Its column and its parents' are in the table. Training starts from the weights it has, or from those of
    ``start``, an earlier mechanism of the node. The seed decides the held-out rows, the order of the data and
    the noise of the loss. Without a run folder nothing is written; with ``resume`` a node that it finished is
    loaded. Gives what was fitted and how well, on the held-out rows too.
    """
    if table.rows == 0:
        raise DataError(f"Cannot fit node {name!r}: the data have no rows.")
    if mechanism.variable.type != "image":  # else the column need not be read for it
        mechanism.record_range(table.tensor(name, device=mechanism.fitted_flag.device))
    if mechanism.spec.training is None:
        return NodeReport(name, rows=table.rows, held_out=0, parameters=_count(mechanism))
    images = any(variable.type == "image" for variable in (mechanism.variable, *mechanism.parents.values()))
    runtime = runtime_of(mechanism.variable, mechanism.parents)
    folder = run_folder(name, mechanism, table, seed, run_dir, resume, start, writes=runtime.is_main)
    home = mechanism.device
    if home != runtime.device:
        mechanism.to(runtime.device)
    with layers_apart(mechanism):
        try:
            fit = _NodeFit(name, mechanism, table, seed, runtime, folder, images, start)
            return fit.run(progress, checkpoint_seconds)
        finally:
            mechanism.eval()
            if home != runtime.device:
                mechanism.to(home)


def run_folder(
    name: str,
    mechanism: Mechanism,
    table: Table,
    seed: int,
    run_dir: Path | str | None,
    resume: bool,
    start: Mechanism | None = None,
    *,
    writes: bool = True,
) -> RunFolder | None:
    """The node's part of a run folder, where there is one."""
    if run_dir is None:
        return None
    # Resumed with anything else it would not be the same run.
    identity = {} if start is None else {"start": digest(start.state_dict())}
    if (prefix := mechanism.brought) and mechanism.spec.why_unwritable():  # of which options say a name alone
        state = mechanism.state_dict().items()
        identity |= {"brought": digest({name: each for name, each in state if name.startswith(prefix)})}
    parents = {parent: variable.model_dump(mode="json") for parent, variable in mechanism.parents.items()}
    identity |= {
        "seed": seed,
        "mechanism": told_options(mechanism.spec),
        "variable": mechanism.variable.model_dump(mode="json"),
        "parents": parents,
        "rows": table.rows,
        "data": table.fingerprint([name, *mechanism.parents]),
    }
    return RunFolder(run_dir, name, identity, resume=resume, writes=writes)


class _NodeFit:
    """One fit: the rows of one node, split by the seed."""

    def __init__(
        self,
        name: str,
        mechanism: Mechanism,
        table: Table,
        seed: int,
        runtime: Runtime,
        folder: RunFolder | None,
        images: bool,
        start: Mechanism | None,
    ) -> None:
        assert mechanism.spec.training is not None
        self.name, self.mechanism, self.table, self.seed = name, mechanism, table, seed
        self.runtime, self.folder, self.images, self.start = runtime, folder, images, start
        self.settings = mechanism.spec.training
        if images:
            precision = image_precision(self.settings.precision, mechanism.variable, runtime.device)
            self.settings = self.settings.model_copy(update={"precision": precision})
        self.held_out, self.training = split_rows(table, self.settings.validation, seed)

    def run(self, progress: bool, checkpoint_seconds: float) -> NodeReport:
        state = self._loaded()
        began = time.perf_counter()
        solved = self._solve(self.training)
        if state is not None and "report" in state.values:
            self.mechanism.load_state_dict(state.tensors)
            return NodeReport(**state.values["report"])
        if solved:
            report = self._solved(began)
        else:
            if patience_of(self.settings, images=self.mechanism.variable.type == "image") is not None:
                self._hold_out_more()
            report = self._trained(state, progress, checkpoint_seconds)
        if bad := self.mechanism.non_finite():
            raise MechanismError(
                f"Fitting node {self.name!r} did not give numbers: {bad}. Look for outliers in it and "
                "its parents, or change their units."
            )
        if self.folder is not None:
            self.folder.finish(self.mechanism.state_dict(), report.to_dict())
        self.runtime.wait()
        return report

    def _loaded(self) -> State | None:
        """The state to go on from, the same in every process."""
        state = self.folder.load() if self.folder is not None else None
        step = -1.0 if state is None else float(state.values.get("step", math.inf))
        first = self.runtime.agreed(step)
        if step != first:
            raise CheckpointError(
                f"Cannot resume node {self.name!r}: this process found step {step:g} in its run folder, the "
                f"first one {first:g} (-1: nothing, inf: all). Give all processes one folder that they share."
            )
        self.runtime.wait()  # none writes a newer one before all have read
        return state

    def _solve(self, rows: Tensor) -> bool:
        """Prepare for these rows and fit them in closed form, where there is one.

        Also when resuming: prepare may size buffers, and restores what no buffer holds.
        """
        seed_layers(keyed_seed(self.seed, "fit", self.name, "prepare"))
        whole = self._whole(rows)
        self.mechanism.prepare(*whole)
        return self.mechanism.solve(*whole)

    def _hold_out_more(self) -> None:
        """Enough rows to tell when to stop: a twentieth of a small table is a handful."""
        least = min(self.table.rows // 5, _LEAST_HELD_OUT)
        if len(self.held_out) < least:
            self.held_out, self.training = split_rows(self.table, least / self.table.rows, self.seed)
            self._solve(self.training)

    def _solved(self, began: float) -> NodeReport:
        """Measure the closed form on the held-out rows, then fit it to every row."""
        held_out = self._held_out_figures()
        every = torch.arange(self.table.rows)
        if len(self.held_out):
            self._solve(every)
        self.mechanism.mark_fitted()
        return NodeReport(
            self.name,
            rows=len(every),
            held_out=len(self.held_out),
            seconds=time.perf_counter() - began,
            train_loss=float(self._losses(every).mean()) if self.mechanism.has_loss else None,
            **held_out,
            parameters=_count(self.mechanism),
        )

    def _trained(self, state: State | None, progress: bool, checkpoint_seconds: float) -> NodeReport:
        """Minimise the loss on the training rows, by gradient steps."""
        loss = (lambda: float(self._losses(self.held_out).mean())) if len(self.held_out) else None
        if self.start is not None:
            start_from(self.name, self.mechanism, self.start)
        if self.images:  # convolutions with channels innermost: a step takes a seventh less on a CPU
            self.mechanism.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
        first = self.mechanism.first_stage()
        begun = 0 if state is None else int(state.values.get("stage", 0))
        spent = 0.0
        if first is not None:
            if first.settings is None and self.start is None:
                raise MechanismError(
                    f"Node {self.name!r}: {first.name}.training is null, which keeps the {first.name} of a "
                    "model that the fit starts from. Give one (start=, --start), or leave the option out."
                )
            if begun == 0 and first.settings is not None:
                with _as_trainable(self.mechanism):
                    self.mechanism.requires_grad_(False)
                    first.module.requires_grad_(True)
                    # Each process alone: a stage may normalise over a batch, and remember earlier rows.
                    alone = LocalRuntime(self.runtime.device)
                    loop = TrainingLoop(self._objective_of(first), first.settings, self.seed, alone)
                    self._minimise(loop, state, progress, checkpoint_seconds)
                    first.finish(*self._whole(self._some()))
                state, spent = None, loop.seconds
        with _as_trainable(self.mechanism):
            if first is not None:
                first.part.requires_grad_(False)
            with self._split():
                loop = TrainingLoop(self._objective(first), self.settings, self.seed, self.runtime, loss)
                loop.seconds = spent
                train_loss = self._minimise(loop, state, progress, checkpoint_seconds)
        self.mechanism.to(memory_format=torch.contiguous_format)  # pyright: ignore[reportCallIssue]
        self.mechanism.eval()  # what is taken of it and said of it is of the mechanism that answers
        self.mechanism.finish(*self._whole(self._some()))
        self.mechanism.mark_fitted()
        if loop.stopping is not None:  # the last epoch's loss is not that of the weights kept
            train_loss = float(self._losses(self.training).mean())
        held_out = self._held_out_figures()
        return NodeReport(
            self.name,
            rows=len(self.training),
            held_out=len(self.held_out),
            steps=loop.step,
            kept_step=None if loop.stopping is None else loop.stopping.step,
            seconds=loop.seconds,
            train_loss=train_loss,
            **held_out,
            parameters=_count(self.mechanism),
            least_steps=least_steps(self.mechanism.variable),
            precision=loop.precision if self.images else None,
        )

    @contextmanager
    def _split(self) -> Iterator[None]:
        """A context in which the mechanism is the copy that processes share, where they do."""
        whole = self.mechanism
        with split(whole, self.runtime) as self.mechanism:
            try:
                yield
            finally:
                self.mechanism = whole

    def _minimise(
        self, loop: TrainingLoop, state: State | None, progress: bool, checkpoint_seconds: float
    ) -> float:
        """The steps of a loop that are left, with progress; the last epoch's mean loss."""
        if state is not None:
            loop.restore(state)
        shown, name = progress and self.runtime.is_main, ".".join(loop.objective.keys[1:])
        with Progress(name, loop.total, done=loop.step, unit="step", enabled=shown) as bar:
            least = least_steps(self.mechanism.variable)
            if loop.objective.module is self.mechanism and loop.total < least:
                bar.say(f"warning: {too_short(loop.total, least)}")
            return loop.run(bar, self.folder, checkpoint_seconds)

    def _some(self) -> Tensor:
        """Numbers of all rows, or of images some thousands, evenly."""
        rows = self.table.rows
        some = self.images and rows > _IMAGES_AGAIN
        return torch.linspace(0, rows - 1, _IMAGES_AGAIN).long() if some else torch.arange(rows)

    def _objective_of(self, stage: Stage) -> Objective:
        """What a part is trained by."""

        def loss(value: Tensor, parents: dict[str, Tensor], generator: torch.Generator) -> Tensor:
            return stage.loss(self._seen(value, generator), parents, generator=generator)

        keys, label = ("fit", self.name, stage.name), f"{stage.name} of node {self.name!r}"
        # With the rest of the mechanism: a resumed run has other weights to begin with.
        module = nn.ModuleList([stage.module, self.mechanism])
        return Objective(
            module, self._values, loss, self.training, keys, label, self.images, progress=stage.progress
        )

    def _objective(self, first: Stage | None) -> Objective:
        if not _count(self.mechanism):
            raise MechanismError(
                f"Mechanism {self.mechanism.spec.kind!r} of node {self.name!r} has no trainable parameter, "
                "and no closed form."
            )

        def loss(value: Tensor, parents: dict[str, Tensor], generator: torch.Generator) -> Tensor:
            return self.mechanism.loss(self._seen(value, generator), parents, generator=generator)

        keys, label = ("fit", self.name), f"node {self.name!r}"
        # A table node with an image parent is trained as tables are: until held-out rows tell to stop.
        image = self.mechanism.variable.type == "image"
        if first is not None and self.runtime.splits:
            first = self.mechanism.first_stage()  # the copy's own part
        number, fixed = (0, ()) if first is None else (1, (first.part,))
        return Objective(self.mechanism, self._values, loss, self.training, keys, label, image, number, fixed)

    def _seen(self, value: Tensor, generator: torch.Generator) -> Tensor:
        """What training sees of a batch: images as they are, or half of them mirrored."""
        if not (isinstance(self.settings, ImageTraining) and self.settings.flip):
            return value
        mirrored = drawn_for_rows(_mirrored, len(value), generator)["mirrored"]
        return torch.where(mirrored.view(-1, 1, 1, 1), value.flip(-1), value)

    def _held_out_figures(self) -> dict[str, Any]:
        """What the report says of the held-out rows: loss and further figures; nothing without any."""
        if not len(self.held_out):
            return {}
        generator = self._generator("figures")
        with torch.no_grad():
            found = self.mechanism.validate(*self._whole(self.held_out), generator=generator)
        figures = {"figures": {key: float(value) for key, value in found.items()}}
        if not self.mechanism.has_loss:
            return figures
        losses = self._losses(self.held_out)
        return figures | {
            "validation_loss": float(losses.mean()),
            "validation_error": float(losses.std(correction=0)) / math.sqrt(len(losses)),
            "impossible": int(losses.isposinf().sum()),
        }

    def _losses(self, rows: Tensor) -> Tensor:
        """(N,) loss of rows, of the weights as they are, in full precision."""
        self.mechanism.eval()
        generator = self._generator("evaluation")
        size, parts = self.settings.batch_size if self.images else TABLE_ROWS, []
        with torch.no_grad():
            for start in range(0, len(rows), size):
                value, parents = self._values(rows[start : start + size])
                parts.append(self.mechanism.loss(value, parents, generator=generator).double())
        return torch.cat(parts)

    def _generator(self, purpose: str) -> torch.Generator:
        return keyed_generator(self.seed, "fit", self.name, purpose, device=self.runtime.device)

    def _values(self, rows: Tensor | None) -> tuple[Tensor, dict[str, Tensor]]:
        device = self.runtime.device
        parents = {
            parent: self.table.tensor(parent, rows, device=device) for parent in self.mechanism.parents
        }
        return self.table.tensor(self.name, rows, device=device), parents

    def _whole(self, rows: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """All these rows at once; of images that would not fit in memory, as many as may."""
        variables = (self.mechanism.variable, *self.mechanism.parents.values())
        row_bytes = sum(8 * math.prod(variable.event_shape) for variable in variables)
        most = max(1, WHOLE_BYTES // row_bytes)
        if self.images and len(rows) > most:
            generator = keyed_generator(self.seed, "fit", "part")
            rows = rows[torch.randperm(len(rows), generator=generator)[:most].sort().values]
        # Without held-out rows the table itself will do.
        return self._values(None if len(rows) == self.table.rows else rows)


def _mirrored(n: int, generator: torch.Generator) -> dict[str, Tensor]:
    draw = torch.rand(n, generator=generator, device=generator.device, dtype=torch.float32)
    return {"mirrored": draw < 0.5}


@contextmanager
def _as_trainable(mechanism: Mechanism) -> Iterator[None]:
    """A context that leaves which weights are trained as it finds it, also where a fit is interrupted."""
    trained = [(weight, weight.requires_grad) for weight in mechanism.parameters()]
    try:
        yield
    finally:
        for weight, wanted in trained:
            weight.requires_grad_(wanted)


def _count(mechanism: nn.Module) -> int:
    return sum(parameter.numel() for parameter in mechanism.parameters() if parameter.requires_grad)
