"""``cg.distil``: the flow of a fitted diffusion node in a few jumps, for solver ``jumps``.

The teacher's paths are walked once, for some training rows, and held in memory; the student is trained on
them by the one training loop. A resumed run walks them again, to the same ends, and goes on from its state.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from torch import Tensor

from causalgen.arguments import whole_number
from causalgen.data.reading import read_data
from causalgen.data.table import Table
from causalgen.fitting.fit import WHOLE_BYTES
from causalgen.fitting.fit_report import FitReport, NodeReport
from causalgen.fitting.progress import Progress
from causalgen.fitting.run_folder import RunFolder, digest
from causalgen.fitting.runtime import AcceleratedRuntime, autocast, resolve_precision
from causalgen.fitting.training_loop import Objective, TrainingLoop
from graphs.errors import DataError, MechanismError, NotFittedError, UnknownNameError, warn
from mechanisms.networks import learning
from mechanisms.options import changed_spec, merge_options
from mechanisms.registry import told_options
from mechanisms.seeds import keyed_generator, layers_apart

if TYPE_CHECKING:
    from mechanisms.diffusion.distillation import Distillation, Paths
    from mechanisms.diffusion.mechanism import DiffusionMechanism

__all__ = ["distil"]

_FAR = 0.25
"""Standard deviations, of pixels or of noise, that a student may end from its teacher. One that learned
nothing ends at 0.4 on the gallery's digits."""

_Model = TypeVar("_Model")
"""``SCM``, which imports what fits it."""


@learning()
def distil(
    scm: _Model,
    data: Any,
    *,
    node: str | None = None,
    options: Mapping[str, Any] | None = None,
    seed: int = 0,
    run_dir: Path | str | None = None,
    resume: bool = False,
    progress: bool = True,
) -> _Model:
    """Distil the flow of a diffusion node to a few jumps up and down; the denoiser stays as it is.

    Args:
        scm: a fitted model.
        data: rows, as for ``fit``; the node and its parents are read.
        node: which; the only diffusion node where None.
        options: of ``distilled``, as in a file: ``{"steps": 4, "training": {"epochs": 5}}``. The precision is
            that of the node's own training unless given.
        seed: decides the result, with the data and the options.
        run_dir: where to log and keep states, for ``resume``.
        resume: go on with the run there.
        progress: show progress.

    Returns:
        A new model, whose node has solver ``jumps``, weight 1 and ``abduction: posterior``; ``with_options``
        gives it any other solver back. ``fit_report`` says how far the student ends from its teacher on
        held-out rows, in deviations of noise and pixels; a warning says so where that is more than 0.25.
        Jumps are learned of noise about 0: a teacher's ``centred: true`` is left out, with a warning.

    Raises:
        UnknownNameError, SpecError: no such node or option.
        MechanismError: no diffusion node, several and none named, or one that cannot be abducted by jumps.
        NotFittedError: the node has not been fitted.
        DataError: the data are wrong, or too few.
    """
    seed = whole_number(seed, "distil: seed")
    model: Any = scm
    name = _node(model, node)
    teacher = model.mechanisms[name]
    if not teacher.fitted:
        raise NotFittedError(f"Node {name!r} has not been fitted: nothing to distil. {teacher.remedy}")
    student = _student(name, teacher, options or {})
    if teacher.spec.centred:
        warn(
            f"Node {name!r}: the teacher's noise is centred (centred: true), and jumps are learned of noise "
            "about 0: the student is made without. Under another solver, say so again: "
            "with_options(..., centred=True)."
        )
    columns = {each: model.variables[each] for each in (*model.graph.parents(name), name)}
    run = _Run(name, student, read_data(data, columns, nodes=model.variables), seed, run_dir, resume)
    report = run.train(progress)
    if report.figures and report.doubt:
        warn(f"Node {name!r}: {report.doubt}")
    mechanisms = {**model.mechanisms, name: student}
    made = type(model)(model.graph, model.variables, mechanisms, model.name)
    made.fit_report = FitReport({name: report})
    return made


def _node(scm: Any, node: str | None) -> str:
    """The diffusion node that is meant: any whose options have a distilled flow."""
    known = [each for each, found in scm.mechanisms.items() if "distilled" in type(found.spec).model_fields]
    if node is None and len(known) == 1:
        return known[0]
    if node is not None and node in known:
        return node
    if node is not None and node not in scm.variables:
        raise UnknownNameError.of("node", node, scm.variables, where="distil")
    found = ", ".join(known) or "none"
    which = "Name one (node=, --node)" if node is None else f"{node!r} is none of them"
    raise MechanismError(f"A diffusion node can be distilled; this model has {found}. {which}.")


def _student(name: str, teacher: Any, options: Mapping[str, Any]) -> DiffusionMechanism:
    """The node with the teacher's weights, and a student that begins as the teacher."""
    precision = {"training": {"precision": teacher.spec.training.precision}} if teacher.spec.training else {}
    # Checked by itself, for the solver is to have the levels that it settles on.
    fresh = changed_spec(name, teacher.spec.model_copy(update={"distilled": None}), {
        "distilled": merge_options(precision, options)
    })  # fmt: skip
    jumps = fresh.distilled.jumps()  # pyright: ignore[reportAttributeAccessIssue]
    guidance = {"kind": "classifier_free", "weight": 1.0, "against": "factual", "interval": None}
    asked = {"solver": jumps.model_dump(), "guidance": guidance, "abduction": "posterior"}
    if teacher.spec.centred:
        asked["centred"] = None
    made: Any = changed_spec(name, fresh, asked).bind(teacher.variable, teacher.parents)
    made.load_state_dict(teacher.state_dict(), strict=False)
    made.student.start(made.denoiser)
    return made.eval()


def _code(
    mechanism: DiffusionMechanism, value: Tensor, parents: Mapping[str, Tensor], generator: torch.Generator
) -> Tensor | None:
    """Codes of images, drawn as abduction draws them; None of a model without."""
    if mechanism.code is None:
        return None
    return mechanism.code.around(mechanism.code.mean(value, parents), generator=generator)


def _doubt(figures: Mapping[str, float], validation: float) -> str:
    """What the held-out misses of a student say against it; see ``Distillation.misses``."""
    if not figures:
        return (
            f"no row was held out (training.validation: {validation:g}), so that nothing tells how far the "
            "student ends from its teacher. Hold some out."
        )
    what, worst = max(figures.items(), key=lambda each: each[1])
    if worst <= _FAR:
        return ""
    return (
        f"the student ends {worst:.2g} standard deviations from its teacher ({what}), expected at most "
        f"{_FAR}. Its answers are called 'posterior' all the same, as its teacher's are. Distil it for "
        "longer, from more rows (training.epochs, rows; --epochs, --rows), or use solver 'anchored'."
    )


class _Run:
    """One distillation: a random part of the rows, some of them held out."""

    def __init__(
        self,
        name: str,
        mechanism: DiffusionMechanism,
        table: Table,
        seed: int,
        run_dir: Path | str | None,
        resume: bool,
    ) -> None:
        assert mechanism.spec.distilled is not None
        self.name, self.mechanism, self.table, self.seed = name, mechanism, table, seed
        self.spec, self.settings = mechanism.spec.distilled, mechanism.spec.distilled.training
        row_bytes = 4 * mechanism.variable.width * mechanism.variable.height * mechanism.variable.channels
        most = max(2, WHOLE_BYTES // (row_bytes * (2 * self.spec.steps + 2)))
        rows = min(table.rows, self.spec.rows, most)
        if rows < 2:
            raise DataError(f"Cannot distil node {name!r}: it needs at least 2 rows, got {table.rows}.")
        order = torch.randperm(table.rows, generator=keyed_generator(seed, "distil", name))[:rows]
        self.held_out = min(round(rows * self.settings.validation), rows - 1)
        # The order of a part of the rows, for reading it front to back.
        self.walked = torch.cat([part.sort().values for part in order.tensor_split([self.held_out])])
        # Whose parents each is asked for: any row's, as neighbours may have one label.
        self.asked = order
        self.runtime = AcceleratedRuntime()
        if self.runtime.splits:
            raise MechanismError(
                f"Cannot distil node {name!r} with its weights split over processes. Launch without FSDP, as "
                "in: accelerate launch --multi_gpu ..."
            )
        identity = {
            "seed": seed,
            "mechanism": told_options(mechanism.spec),
            "teacher": digest(mechanism.state_dict()),
            "rows": table.rows,
            "data": table.fingerprint([name, *mechanism.parents]),
        }
        self.folder = None if run_dir is None else RunFolder(
            run_dir, f"{name}.distilled", identity, resume=resume, writes=self.runtime.is_main
        )  # fmt: skip

    def train(self, progress: bool) -> NodeReport:
        """Walk, then train the student in place."""
        from mechanisms.diffusion.distillation import Distillation

        mechanism, student = self.mechanism, self.mechanism.student
        assert student is not None
        state = self.folder.load() if self.folder is not None else None
        if state is not None and "report" in state.values:
            mechanism.load_state_dict(state.tensors)
            return NodeReport(**state.values["report"])
        home, began, shown = mechanism.device, time.perf_counter(), progress and self.runtime.is_main
        mechanism.to(self.runtime.device).to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
        work = Distillation(self.spec, mechanism.denoiser, student)
        paths = self._walk(work, shown)

        def loss(index: Tensor, generator: torch.Generator) -> Tensor:
            return work.loss(paths.rows(index.to(paths.states.device)), generator=generator)

        rows = torch.arange(self.held_out, len(self.walked))
        keys, label = ("distil", self.name), f"the distilled flow of node {self.name!r}"
        objective = Objective(
            student, lambda index: (index,), loss, rows, keys, label, images=True, progress=work.advance
        )
        loop = TrainingLoop(objective, self.settings, self.seed, self.runtime)
        if state is not None:
            loop.restore(state)
        bar = Progress(f"{self.name}.distilled", loop.total, done=loop.step, unit="step", enabled=shown)
        with bar, layers_apart(student):
            train_loss = loop.run(bar, self.folder)
        mechanism.eval()
        held_out = torch.arange(self.held_out, device=paths.states.device)
        figures = work.misses(paths.rows(held_out)) if self.held_out else {}
        mechanism.to(memory_format=torch.contiguous_format)  # pyright: ignore[reportCallIssue]
        mechanism.to(home)
        if bad := mechanism.non_finite():
            raise MechanismError(f"Distilling node {self.name!r} did not give numbers: {bad}.")
        report = NodeReport(
            self.name,
            rows=len(rows),
            held_out=self.held_out,
            steps=loop.step,
            seconds=time.perf_counter() - began,
            train_loss=train_loss,
            figures=figures,
            doubt=_doubt(figures, self.settings.validation),
            parameters=sum(each.numel() for each in student.parameters()),
        )
        if self.folder is not None:
            self.folder.finish(mechanism.state_dict(), report.to_dict())
        self.runtime.wait()
        return report

    def _walk(self, work: Distillation, shown: bool) -> Paths:
        """The teacher's paths of all rows, held-out ones first."""
        from mechanisms.diffusion.distillation import Paths

        mechanism, device = self.mechanism, self.runtime.device
        precision = resolve_precision(self.settings.precision, device, images=True)
        size = max(2, mechanism.chunk_rows or len(self.walked))
        blocks = zip(self.walked.split(size), self.asked.split(size), strict=True)
        done, found = 0, list[Paths]()
        with Progress(f"{self.name}.paths", len(self.walked), unit="row", enabled=shown) as bar:
            for number, (block, others) in enumerate(blocks):
                generator = keyed_generator(self.seed, "distil", self.name, "paths", number, device=device)
                value = self.table.tensor(self.name, block, device=device)
                parents, asked = (
                    {each: self.table.tensor(each, rows, device=device) for each in mechanism.parents}
                    for rows in (block, others)
                )
                with torch.no_grad(), autocast(precision, device):
                    code = _code(mechanism, value, parents, generator)
                    found.append(work.walk(value, parents, asked, code, generator=generator))
                done += len(block)
                bar.update(done)
        return Paths.joined(found)
