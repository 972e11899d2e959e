"""``Model``: an SCM before anyone asks it anything: declared, fitted, saved, loaded, given options."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal, Self

import networkx as nx
import torch

from causalgen.arguments import as_path, check_targets, whole_number
from causalgen.counterfactuals.mutilated_model import MutilatedModel
from causalgen.data.reading import read_data
from causalgen.fitting.fit_report import FitReport
from causalgen.fitting.fit_table import fit_table
from causalgen.saving.atomic import write_atomic
from causalgen.saving.checkpoint import save_folder
from causalgen.saving.declaration import Declaration
from causalgen.saving.pretrained import load_pretrained
from graphs.causal_graph import CausalGraph
from graphs.errors import (
    CheckpointError,
    DataError,
    GraphError,
    MechanismError,
    NotFittedError,
    SpecError,
    UnknownNameError,
)
from graphs.variables import Variable
from graphs.variables.base import VariableBase
from mechanisms.base import Mechanism, MechanismSpec
from mechanisms.changed_options import changed_spec
from mechanisms.registry import default_mechanism

__all__ = ["Model"]


class Model:
    """A graph, a variable for each node, and a mechanism for each.

    Attributes:
        name: of the model.
        fit_report: how well the last fit went, by node; None where it was not fitted here.
    """

    def __init__(
        self,
        graph: nx.DiGraph[Any] | CausalGraph,
        variables: Mapping[str, Variable],
        mechanisms: Mapping[str, MechanismSpec | Mechanism] | None = None,
        name: str | None = None,
    ) -> None:
        """Declare a model.

        Args:
            graph: the causal graph; parents are in the order their edges were added.
            variables: what each node's values are.
            mechanisms: how nodes behave, as specs or as bound mechanisms; other nodes get ``categorical``,
                ``auto`` (continuous), ``flow`` (integer) or ``diffusion`` by their variable.
            name: of the model.

        Raises:
            CycleError, GraphError: the graph is no causal graph, a node has no variable, or one that is none.
            UnknownNameError: a variable or a mechanism for a node that the graph lacks.
            MechanismError: a mechanism does not fit its node.
        """
        causal = graph if isinstance(graph, CausalGraph) else CausalGraph.from_networkx(graph)
        _check_declared(variables, mechanisms, name)
        for what, names in (("variables", variables), ("mechanisms", mechanisms or {})):
            for node in names:
                if node not in causal:
                    raise UnknownNameError.of("node", node, causal.nodes, where=what)
        for node in causal.nodes:
            if node not in variables:
                raise GraphError(f"Node {node!r} has no variable. Add variables={{{node!r}: ...}}.")
        self.name = name
        self._variables = {node: variables[node] for node in causal.nodes}
        given = mechanisms or {}
        self._world = MutilatedModel(
            causal,
            {node: _bind(node, given.get(node), causal, self._variables) for node in causal.nodes},
        )
        self.fit_report: FitReport | None = None

    @classmethod
    def _of(cls, world: MutilatedModel, variables: Mapping[str, Variable], name: str | None) -> Self:
        made = cls.__new__(cls)
        made.name, made._variables, made._world, made.fit_report = name, dict(variables), world, None
        return made

    @property
    def graph(self) -> CausalGraph:
        """The causal graph."""
        return self._world.graph

    @property
    def variables(self) -> Mapping[str, Variable]:
        """Variable of each node, in topological order."""
        return MappingProxyType(self._variables)

    @property
    def mechanisms(self) -> Mapping[str, Mechanism]:
        """Mechanism of each node."""
        return MappingProxyType(dict(self._world.mechanisms))

    @property
    def device(self) -> torch.device:
        """Where the mechanisms live."""
        return next(iter(self._world.mechanisms.values())).device

    def fit(
        self,
        data: Any,
        *,
        nodes: Iterable[str] | None = None,
        seed: int = 0,
        run_dir: Path | str | None = None,
        resume: bool = False,
        progress: bool = True,
        missing: Literal["refuse", "drop"] = "refuse",
    ) -> Self:
        """Fit mechanisms to data, in place.

        Args:
            data: DataFrame, dict of arrays, path of a CSV or Parquet table whose image columns hold file
                paths, a torchvision data set, or "mnist:DIR".
            nodes: which to fit; all where None.
            seed: decides the result, with the data and the settings.
            run_dir: where to log and keep states, for ``resume``.
            resume: go on with the run there.
            progress: show progress.
            missing: what to do about rows that lack a value: "refuse" them, or "drop", for each node, those
                that lack it or one of its parents. That is unbiased where a gap depends on the parents
                alone; ``fit_report[node].dropped`` counts them.

        Returns:
            The model itself; ``scm.fit_report`` says how well it went.

        Raises:
            DataError: the data are wrong; nothing has been fitted then.
        """
        if missing not in ("refuse", "drop"):
            raise DataError(f"missing is 'refuse' or 'drop', got {missing!r}.")
        chosen, seed = self._targets(nodes), whole_number(seed, "fit: seed")
        run_dir = None if run_dir is None else as_path(run_dir, "fit: run_dir", DataError)
        needed = self.graph.nodes if nodes is None else _with_parents(self.graph, chosen)
        table = read_data(data, {node: self._variables[node] for node in needed}, gaps=missing == "drop")
        asked = {node: self._mechanism(node) for node in self.graph.nodes if node in chosen}
        self.fit_report, chosen = fit_table(
            asked, table, seed=seed, run_dir=run_dir, resume=resume, progress=progress
        )
        self._world = replace(self._world, mechanisms={**self._world.mechanisms, **chosen})
        return self

    @classmethod
    def from_yaml(cls, path: Path | str) -> Self:
        """A model, not fitted, from an SCM file.

        Raises:
            SpecError: the file does not declare a model; every message names file, line and column.
        """
        return cls._declared(Declaration.read(as_path(path, "An SCM file", SpecError)))

    def to_yaml(self, path: Path | str | None = None) -> str:
        """The model as an SCM file's text; written to ``path`` where given, all or nothing.

        Raises:
            MechanismError: a mechanism that no file can say.
            CheckpointError: the file cannot be written.
        """
        file = None if path is None else as_path(path, "to_yaml: path")
        specs = {node: mechanism.spec for node, mechanism in self.mechanisms.items()}
        text = Declaration(self.graph, self._variables, specs, self.name).text()
        if file is not None:
            try:
                write_atomic(file, text.encode())
            except OSError as error:
                raise CheckpointError(f"Cannot write the SCM file {file}: {error.strerror}.") from error
        return text

    @classmethod
    def from_pretrained(cls, name: Path | str) -> Self:
        """A fitted model: a gallery name such as "mnist", or a folder that ``save_pretrained`` wrote.

        Raises:
            UnknownNameError: neither a folder nor a gallery model.
            CheckpointError: no saved model, a damaged one, a newer format, or weights that do not fit.
        """
        as_path(name, "from_pretrained: name")
        declaration, states = load_pretrained(name)
        scm = cls._declared(declaration)
        for node, mechanism in scm.mechanisms.items():
            try:
                mechanism.load_state_dict(dict(states.get(node, {})))
            except RuntimeError as error:
                raise CheckpointError(f"Weights of node {node!r} in {name} do not fit it: {error}") from error
            if bad := mechanism.non_finite():
                raise CheckpointError(
                    f"Weights of node {node!r} in {name} are no numbers: {bad}. Fit the node again."
                )
        return scm

    def save_pretrained(self, folder: Path | str, *, card: str | None = None) -> Path:
        """Write the fitted model to a folder, all or nothing: its file, weights, card and manifest.

        Raises:
            NotFittedError: a mechanism has not been fitted.
            CheckpointError: the folder cannot be written, or holds something else; or weights are not finite.
            MechanismError: a mechanism that no file can say.
        """
        target = as_path(folder, "save_pretrained: folder")
        if not isinstance(card, str | None):
            raise CheckpointError(f"save_pretrained: card is Markdown text, got {card!r}.")
        for node, mechanism in self.mechanisms.items():
            if not mechanism.fitted:
                raise NotFittedError(
                    f"Node {node!r} has not been fitted: nothing to save. Call scm.fit(data)."
                )
            if bad := mechanism.non_finite():
                raise CheckpointError(
                    f"Weights of node {node!r} are no numbers: {bad}. Nothing was saved; fit the node again."
                )
        states = {node: mechanism.state_dict() for node, mechanism in self.mechanisms.items()}
        save_folder(target, self.to_yaml(), states, card)
        return target

    @classmethod
    def _declared(cls, declaration: Declaration) -> Self:
        return cls(declaration.graph, declaration.variables, declaration.mechanisms, declaration.name)

    def with_options(self, node: str, **options: Any) -> Self:
        """The same model and weights, with other options for one node.

        Args:
            node: which.
            options: of its mechanism, as in a file; a mapping changes what it names and keeps the rest,
                unless it changes ``kind``.

        Raises:
            SpecError: an option is unknown or out of range.
            MechanismError: the options would need other weights.
        """
        old = self._mechanism(node)
        new = changed_spec(node, old.spec, options).bind(old.variable, old.parents)
        try:
            new.load_state_dict(old.state_dict(), assign=True)
        except RuntimeError as error:
            raise MechanismError(
                f"Node {node!r}: options {sorted(options)} need other weights than these. "
                "Fit a new model instead."
            ) from error
        new.eval()
        mechanisms = {**self._world.mechanisms, node: new}
        return self._of(replace(self._world, mechanisms=mechanisms), self._variables, self.name)

    def to(self, device: torch.device | str) -> Self:
        """Move every mechanism to a device, in place.

        Raises:
            MechanismError: there is no such device.
        """
        try:
            if not isinstance(device, str | torch.device):
                raise TypeError(f"got {device!r}")
            torch.zeros(0).to(device)
        except (RuntimeError, TypeError, AssertionError) as error:  # torch without CUDA asserts
            raise MechanismError(
                f"Cannot move to the device {device!r}; expected one such as 'cpu' or 'cuda': {error}."
            ) from error
        for mechanism in self._world.mechanisms.values():
            mechanism.to(device)
        return self

    def describe(self) -> str:
        """The model as text: a line a node."""
        width = max(map(len, self._variables))
        lines = []
        for node, variable in self._variables.items():
            mechanism, parents = self._world.mechanisms[node], ", ".join(self.graph.parents(node))
            state = "" if mechanism.fitted else "  (not fitted)"
            lines.append(
                f"{node:<{width}}  {variable.describe()}  <- {mechanism.spec.kind}({parents}){state}"
            )
        return "\n".join(lines)

    def __repr__(self) -> str:
        """Name and nodes."""
        return f"SCM({self.name or 'unnamed'}: {', '.join(self.graph.nodes)})"

    def _mechanism(self, node: str) -> Mechanism:
        if not isinstance(node, str) or node not in self._variables:
            raise UnknownNameError.of("node", node, self._variables)
        return self._world.mechanisms[node]

    def _targets(self, targets: Iterable[str] | None) -> tuple[str, ...]:
        return check_targets(targets, self._variables)


def _check_declared(variables: Any, mechanisms: Any, name: Any) -> None:
    """Refuse what is no variable or no mapping; mechanisms are checked where they are bound."""
    for what, given, example in (
        ("variables", variables, "cg.Continuous()"),
        ("mechanisms", {} if mechanisms is None else mechanisms, "cg.mechanisms.Additive()"),
    ):
        if not isinstance(given, Mapping):
            raise GraphError(
                f"{what} maps nodes to {what}, as in {{'x': {example}}}; got a {type(given).__name__}."
            )
    for node, variable in variables.items():
        if not isinstance(variable, VariableBase):
            got = f"the class {variable.__name__}" if isinstance(variable, type) else repr(variable)
            raise GraphError(
                f"Node {node!r}: a variable is a cg.Categorical, cg.Continuous, cg.Integer or cg.Image, "
                f"as in cg.Continuous(lower=0); got {got}."
            )
    if not isinstance(name, str | None):
        raise GraphError(f"The name of a model is a string, got {name!r}.")


def _bind(
    node: str, given: MechanismSpec | Mechanism | None, graph: CausalGraph, variables: Mapping[str, Variable]
) -> Mechanism:
    parents = {parent: variables[parent] for parent in graph.parents(node)}
    if isinstance(given, Mechanism):
        if given.variable != variables[node] or list(given.parents.items()) != list(parents.items()):
            raise MechanismError(
                f"Node {node!r}: its mechanism is bound to another variable or other parents."
            )
        return given
    spec = default_mechanism(variables[node]) if given is None else given
    if not isinstance(spec, MechanismSpec):
        raise MechanismError(
            f"Node {node!r}: a mechanism is a spec such as causalgen.mechanisms.Additive(), "
            f"got {f'the class {spec.__name__}' if isinstance(spec, type) else repr(spec)}."
        )
    try:
        return spec.bind(variables[node], parents).eval()
    except (MechanismError, ValueError) as error:
        raise MechanismError(f"Node {node!r}: {error}") from error


def _with_parents(graph: CausalGraph, nodes: Iterable[str]) -> tuple[str, ...]:
    wanted = {name for node in nodes for name in (node, *graph.parents(node))}
    return tuple(node for node in graph.nodes if node in wanted)
