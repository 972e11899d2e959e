"""``SCM``: the face. Declare a model, fit it, and ask all three rungs of Pearl's ladder.

    scm.sample(n)                          what does the model see?          p(x)
    scm.sample(n, do={...})                what if we set ...?               p(x | do(...))
    scm.counterfactual(evidence, do={...}) what if it had been otherwise?    p(x_do | evidence)
"""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, Self

import networkx as nx
import torch
from torch import Tensor

from causalgen.abduction import Abduction
from causalgen.engine import World, act, predict
from causalgen.evidence import Evidence, encode_evidence
from causalgen.fit_report import FitReport
from causalgen.interventions import interventions
from causalgen.provenance import trace_provenance
from causalgen.results import Counterfactual, Draws
from causalgen.targets import check_targets
from graphs.causal_graph import CausalGraph
from graphs.errors import EvidenceError, GraphError, InterventionError, MechanismError, PartialEvidenceError, UnknownNameError
from graphs.variables import Variable
from mechanisms.base import Mechanism, MechanismSpec
from mechanisms.registry import default_mechanism

__all__ = ["SCM"]


class SCM:
    """A structural causal model: a graph, a variable for each node, and a mechanism for each.

    >>> import networkx as nx
    >>> import causalgen as cg
    >>> scm = cg.SCM(
    ...     nx.DiGraph([("x", "y")]),
    ...     variables={"x": cg.Continuous(), "y": cg.Continuous()},
    ...     mechanisms={"x": cg.mechanisms.Additive(), "y": cg.mechanisms.Additive()},
    ... )
    >>> scm = scm.fit({"x": [0.0, 1.0, 2.0, 3.0], "y": [0.1, 1.9, 4.1, 5.9]}, seed=0)
    >>> scm.counterfactual({"x": 1.0, "y": 2.5}, do={"x": 2.0})["y"]
    tensor([4.4600], dtype=torch.float64)
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
            mechanisms: how nodes behave, as specs or as bound mechanisms; other nodes get ``categorical``, ``flow`` or
                ``diffusion`` by their variable.
            name: of the model.

        Raises:
            CycleError, GraphError: the graph is no causal graph, or a node has no variable.
            UnknownNameError: a variable or a mechanism for a node that the graph lacks.
            MechanismError: a mechanism does not fit its node.
        """
        causal = graph if isinstance(graph, CausalGraph) else CausalGraph.from_networkx(graph)
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
        self._world = World(
            causal,
            {node: _bind(node, given.get(node), causal, self._variables) for node in causal.nodes},
        )
        self.fit_report: FitReport | None = None

    @classmethod
    def _of(cls, world: World, variables: Mapping[str, Variable], name: str | None) -> Self:
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
        return next(iter(self._world.mechanisms.values())).get_buffer("fitted_flag").device

    # --- questions -------------------------------------------------------------------------------------------

    def sample(
        self,
        n: int,
        do: Mapping[str, Any] | None = None,
        *,
        targets: Iterable[str] | None = None,
        seed: int | None = None,
    ) -> Draws:
        """Draw rows from the model, or from the model under an intervention.

        Args:
            n: rows, at least 1.
            do: node -> value, as for ``counterfactual``.
            targets: nodes wanted; all where None.
            seed: the same seed gives the same rows; None draws one, which the result names.
        """
        if n < 1:
            raise EvidenceError(f"sample draws at least 1 row, got n = {n}.")
        if do:
            return self.do(do).sample(n, targets=targets, seed=seed)
        seed, wanted = _seed(seed), self._targets(targets)
        prediction = predict(self._world, {}, wanted, rows=n, seed=seed)
        provenance = trace_provenance(self._world, prediction, (), n, 1)
        return Draws(
            {node: self._variables[node] for node in wanted},
            {node: prediction.values[node] for node in wanted},
            rows=n,
            samples=None,
            provenance={node: provenance[node] for node in wanted},
            seed=seed,
        )

    def do(self, do: Mapping[str, Any]) -> SCM:
        """The model after an intervention, as a new one that shares this one's mechanisms."""
        asked = interventions(do, self._world.graph, self._variables)
        return SCM._of(act(self._world, asked), self._variables, self.name)

    def abduct(self, evidence: Evidence, *, num_samples: int | None = None, seed: int | None = None) -> Abduction:
        """Recover the noise behind evidence once, to ask about many worlds.

        Args:
            evidence: a value for every node: scalars or arrays of B rows by name, or a DataFrame.
            num_samples: S draws of whatever evidence does not determine; None for one draw.
            seed: of the draws.

        Raises:
            PartialEvidenceError: a node is missing.
            InterventionError: the model was intervened on by a function.
        """
        if num_samples is not None and num_samples < 1:
            raise EvidenceError(f"num_samples is at least 1, or None for one draw; got {num_samples}.")
        values, rows, index = encode_evidence(evidence, self._variables, self.device)
        missing = [node for node in self._variables if node not in values]
        if missing:
            raise PartialEvidenceError(
                f"Evidence lacks {', '.join(map(repr, missing))}. A counterfactual needs the value of every node: "
                f"{', '.join(self._variables)}."
            )
        if self._world.natural:
            raise InterventionError(
                "This model was intervened on by a function of a natural value, which evidence does not show. "
                "Abduct in the model before the intervention."
            )
        # What was set before is how this model works: it is no intervention on this evidence.
        world = World(self.graph, self._world.mechanisms)
        return Abduction(
            world, self._variables, values, rows=rows, samples=num_samples, seed=_seed(seed), index=index
        )

    def counterfactual(
        self,
        evidence: Evidence,
        do: Mapping[str, Any],
        *,
        targets: Iterable[str] | None = None,
        num_samples: int | None = None,
        seed: int | None = None,
        copy_unaffected: bool = True,
    ) -> Counterfactual:
        """What each row would have been under an intervention: abduction, action, prediction.

        Args:
            evidence: a value for every node, B rows or one, by name or as a DataFrame.
            do: node -> one value, B values, or a function of the node's natural value (``Shift``, ``Scale`` or
                any callable of one argument).
            targets: nodes wanted, all where None; only what they depend on is computed.
            num_samples: S draws, giving (S, B, *event); None for one draw, giving (B, *event).
            seed: of the draws.
            copy_unaffected: keep the factual value of rows that the intervention does not reach; with False everything
                is recomputed from noise.

        Raises:
            PartialEvidenceError: evidence lacks a node.
            DomainError: evidence or an intervention outside a variable's domain.
            CannotAbductError: a mechanism cannot recover its noise.
        """
        abduction = self.abduct(evidence, num_samples=num_samples, seed=seed)
        return abduction.counterfactual(do, targets=targets, copy_unaffected=copy_unaffected)

    def log_prob(self, values: Evidence) -> Tensor:
        """Joint log density of rows, (B,).

        Raises:
            MechanismError: a mechanism has no tractable density; the message names it.
        """
        rows, _, _ = encode_evidence(values, self._variables, self.device)
        missing = [node for node in self._variables if node not in rows]
        if missing:
            raise PartialEvidenceError(f"log_prob needs the value of every node; missing: {', '.join(missing)}.")
        total: Tensor | None = None
        for node, mechanism in self._world.mechanisms.items():
            parents = {parent: rows[parent] for parent in self.graph.parents(node)}
            with torch.no_grad():
                term = mechanism.log_prob(rows[node], parents)
            if term is None:
                raise MechanismError(f"Node {node!r}: mechanism {mechanism.spec.kind!r} has no tractable density.")
            total = term if total is None else total + term
        assert total is not None
        return total

    # --- settings --------------------------------------------------------------------------------------------

    def with_options(self, node: str, **options: Any) -> SCM:
        """The same model and weights, with other options for one node.

        Args:
            node: which.
            options: of its mechanism, as in a file; a mapping changes what it names, unless it changes ``kind``.

        Raises:
            MechanismError: the options would need other weights.
        """
        old = self._mechanism(node)
        merged = _merge(old.spec.model_dump(exclude_unset=True, exclude={"kind"}), options)
        spec = type(old.spec).model_validate(merged)
        new = spec.bind(old.variable, old.parents)
        try:
            new.load_state_dict(old.state_dict(), assign=True)
        except RuntimeError as error:
            raise MechanismError(
                f"Node {node!r}: options {sorted(options)} need other weights than these. Fit a new model instead."
            ) from error
        new.eval()
        mechanisms = {**self._world.mechanisms, node: new}
        world = World(self.graph, mechanisms, self._world.touched, self._world.natural)
        return SCM._of(world, self._variables, self.name)

    def to(self, device: torch.device | str) -> Self:
        """Move every mechanism to a device, in place."""
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

    # --- fitting and files -----------------------------------------------------------------------------------

    def fit(
        self,
        data: Any,
        *,
        nodes: Iterable[str] | None = None,
        seed: int = 0,
        run_dir: Path | str | None = None,
        resume: bool = False,
        progress: bool = True,
    ) -> Self:
        """Fit mechanisms to data, in place.

        Args:
            data: DataFrame, dict of arrays, path of a CSV or Parquet table whose image columns hold file paths, a torchvision
                data set, or "mnist:DIR".
            nodes: which to fit; all where None.
            seed: decides the result, with the data and the settings.
            run_dir: where to log and keep states, for ``resume``.
            resume: go on with the run there.
            progress: show progress.

        Returns:
            The model itself; ``scm.fit_report`` says how well it went.

        Raises:
            DataError: the data are wrong; nothing has been fitted then.
        """
        from causalgen.data import read_data
        from causalgen.fitting import fit_mechanism

        chosen = self._targets(nodes)
        needed = self.graph.nodes if nodes is None else _with_parents(self.graph, chosen)
        table = read_data(data, {node: self._variables[node] for node in needed})
        reports = {
            node: fit_mechanism(
                node, self._mechanism(node), table, seed=seed, run_dir=run_dir, resume=resume, progress=progress
            )
            for node in self.graph.nodes
            if node in chosen
        }
        self.fit_report = FitReport(reports)
        return self

    @classmethod
    def from_yaml(cls, path: Path | str) -> SCM:
        """A model, not fitted, from an SCM file; every error names file, line and column."""
        from causalgen.declaration import read_scm

        return read_scm(path)

    def to_yaml(self, path: Path | str | None = None) -> str:
        """The model as an SCM file's text, written to ``path`` where given."""
        from causalgen.declaration import write_scm

        return write_scm(self, path)

    @classmethod
    def from_pretrained(cls, name: Path | str) -> SCM:
        """A fitted model: a gallery name such as "mnist", or a folder that ``save_pretrained`` wrote."""
        from causalgen.pretrained import load_pretrained

        return load_pretrained(name)

    def save_pretrained(self, folder: Path | str, *, card: str | None = None) -> Path:
        """Write the model to a folder: its file, weights, card and manifest; atomic."""
        from causalgen.pretrained import save_pretrained

        return save_pretrained(self, folder, card=card)

    def _mechanism(self, node: str) -> Mechanism:
        if node not in self._variables:
            raise UnknownNameError.of("node", node, self._variables)
        return self._world.mechanisms[node]

    def _targets(self, targets: Iterable[str] | None) -> tuple[str, ...]:
        return check_targets(targets, self._variables)


def _bind(
    node: str, given: MechanismSpec | Mechanism | None, graph: CausalGraph, variables: Mapping[str, Variable]
) -> Mechanism:
    parents = {parent: variables[parent] for parent in graph.parents(node)}
    if isinstance(given, Mechanism):
        if given.variable != variables[node] or list(given.parents.items()) != list(parents.items()):
            raise MechanismError(f"Node {node!r}: its mechanism is bound to another variable or other parents.")
        return given
    spec = default_mechanism(variables[node]) if given is None else given
    if not isinstance(spec, MechanismSpec):
        raise MechanismError(
            f"Node {node!r}: a mechanism is a spec such as causalgen.mechanisms.Additive(), got {type(spec).__name__}."
        )
    try:
        return spec.bind(variables[node], parents).eval()
    except (MechanismError, ValueError) as error:
        raise MechanismError(f"Node {node!r}: {error}") from error


def _merge(old: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, Any]:
    """Options with some changed; a part with another ``kind`` starts from that kind's defaults."""
    merged = dict(old)
    for name, value in new.items():
        before = merged.get(name)
        if isinstance(before, Mapping) and isinstance(value, Mapping):
            same = value.get("kind", before.get("kind")) == before.get("kind")
            merged[name] = _merge(before, value) if same else dict(value)
        else:
            merged[name] = value
    return merged


def _with_parents(graph: CausalGraph, nodes: Iterable[str]) -> tuple[str, ...]:
    wanted = {name for node in nodes for name in (node, *graph.parents(node))}
    return tuple(node for node in graph.nodes if node in wanted)


def _seed(seed: int | None) -> int:
    return secrets.randbits(31) if seed is None else seed
