"""``SCM``: a structural causal model. Declare it, fit it, save it, and ask all three rungs of Pearl's ladder.

sample(n)                           association: what does the model see?          p(x)
sample(n, do={...})                 intervention: what if we set ...?              p(x | do(...))
counterfactual(evidence, do={...})  counterfactual: what would have been?          p(x_do | evidence)

Each method hands over to the package of its name: ``counterfactuals``, ``effects``, ``fitting``, ``saving``,
``checking``. Evaluation is functions of an SCM: ``cg.evaluate(scm, ...)`` and ``cg.tune(scm, ...)``.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal, NoReturn, Self, final

import networkx as nx
import torch
from torch import Tensor

from causalgen.arguments import as_path, check_targets, chosen_seed, share, whole_number
from causalgen.counterfactuals.abduction import Abduction
from causalgen.counterfactuals.dowhy_model import to_dowhy
from causalgen.counterfactuals.engine import log_prob, predict
from causalgen.counterfactuals.evidence import Evidence, encode_evidence
from causalgen.counterfactuals.interventions import interventions
from causalgen.counterfactuals.mutilated_model import MutilatedModel, act
from causalgen.counterfactuals.provenance import trace_provenance
from causalgen.counterfactuals.results import Counterfactual, Draws
from causalgen.data.reading import read_data
from causalgen.effects import couplings, queries
from causalgen.fitting.fit_report import FitReport
from causalgen.fitting.fit_table import fit_table
from causalgen.saving.declaration import Declaration
from causalgen.saving.pretrained import load_pretrained, push_to_hub, save_pretrained
from graphs.causal_graph import CausalGraph
from graphs.errors import DataError, PartialEvidenceError, SpecError, UnknownNameError
from graphs.text import Shown
from graphs.variables import Variable
from mechanisms.base import Mechanism, MechanismSpec
from mechanisms.networks import learning
from mechanisms.options import fit_afresh, with_options

if TYPE_CHECKING:
    from causalgen.checking.check_report import CheckReport
    from causalgen.pyro import PyroModel

__all__ = ["SCM"]


@final
class SCM(Shown):
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
                ``auto`` (continuous, counts), ``flow`` (other integers) or ``diffusion`` by their variable.
            name: of the model.

        Raises:
            CycleError, GraphError: the graph is no causal graph, a node has no variable, or one that is none.
            UnknownNameError: a variable or a mechanism for a node that the graph lacks.
            MechanismError: a mechanism does not fit its node.
        """
        self._take(Declaration.of(graph, variables, mechanisms, name))

    def _take(self, declared: Declaration) -> Self:
        self.name, self._variables = declared.name, dict(declared.variables)
        self._world = MutilatedModel(declared.graph, declared.mechanisms)
        self.fit_report: FitReport | None = None
        return self

    def _with(self, world: MutilatedModel) -> Self:
        """The same variables and name with other mechanisms or another graph."""
        made = type(self).__new__(type(self))
        made.name, made._variables, made._world, made.fit_report = self.name, self._variables, world, None
        return made

    def _declaration(self) -> Declaration:
        return Declaration(self.graph, self._variables, self._world.mechanisms, self.name)

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
        return self._world.device

    @learning()
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
        start: SCM | Path | str | None = None,
    ) -> Self:
        """Fit mechanisms to data, anew, and return the model itself; ``fit_report`` says how well it went.

        Models made from this one before, by ``with_options`` or ``do``, keep what was fitted then.

        Args:
            data: DataFrame, dict of arrays, path of a CSV or Parquet table whose image columns hold file
                paths, a torchvision data set, or "mnist:DIR"; ``cg.Rows`` says more of them.
            nodes: which to fit; all where None.
            seed: decides the result, with the data and the settings.
            run_dir: where to log and keep states, for ``resume``.
            resume: go on with the run there.
            progress: show progress.
            missing: "refuse" rows that lack a value, or "drop", for each node, those that lack it or a
                parent: unbiased where a gap depends on parents alone; ``fit_report[node].dropped`` counts.
            start: a fitted model of the same nodes, or its name or folder: training starts from its weights.

        Warns:
            UserWarning: rows do not tell a node's parents apart, or its noise; see ``fitting.fit_table``.

        Raises:
            DataError: the data are wrong; nothing has been fitted then.
            MechanismError: a node cannot start from these weights.
        """
        self._world.refuse_natural("data do", "Fit")
        asked, seed = check_targets(nodes, self._variables), whole_number(seed, "fit: seed")
        run_dir = None if run_dir is None else as_path(run_dir, "fit: run_dir", DataError)
        read = {name for node in asked for name in (node, *self.graph.parents(node))}
        columns = {node: variable for node, variable in self._variables.items() if node in read}
        table = read_data(data, columns, missing=missing, nodes=self._variables, experiments=True)
        # Copies: whoever has the mechanisms of this model keeps them as they are.
        mechanisms = {node: fit_afresh(self._mechanism(node), choose=start is None) for node in asked}
        earlier = type(self).from_pretrained(start) if isinstance(start, str | Path) else start
        known = earlier and earlier.mechanisms
        options: Any = {"seed": seed, "run_dir": run_dir, "resume": resume, "progress": progress}
        self.fit_report, chosen = fit_table(mechanisms, table, graph=self.graph, start=known, **options)
        self._world = self._world.with_fitted({**mechanisms, **chosen})
        self.fit_report.warn_of_doubts()
        return self

    @classmethod
    def from_yaml(cls, path: Path | str) -> Self:
        """A model, not fitted, from an SCM file.

        Raises:
            SpecError: the file does not declare a model; every message names file, line and column.
        """
        return cls.__new__(cls)._take(Declaration.read(as_path(path, "An SCM file", SpecError)))

    def to_yaml(self, path: Path | str | None = None) -> str:
        """The model as an SCM file's text; written to ``path`` where given, all or nothing.

        Raises:
            MechanismError: a mechanism that no file can say.
            CheckpointError: the file cannot be written.
        """
        file = None if path is None else as_path(path, "to_yaml: path")
        return self._declaration().write(file)

    @classmethod
    def from_pretrained(cls, name: Path | str, *, revision: str | None = None) -> Self:
        """A fitted model: a gallery name such as "mnist", or a folder that ``save_pretrained`` wrote.

        With ``revision``, a commit's 40 digits, of the Hugging Face Hub: "user/model".

        Raises:
            UnknownNameError: neither a folder nor a gallery model.
            CheckpointError: no saved model, a damaged one, a newer format, or weights that do not fit.
        """
        as_path(name, "from_pretrained: name")
        return cls.__new__(cls)._take(load_pretrained(name, revision))

    def save_pretrained(self, folder: Path | str, *, card: str | None = None) -> Path:
        """Write the fitted model to a folder, all or nothing: its file, weights, card and manifest.

        Raises:
            NotFittedError: a mechanism has not been fitted.
            CheckpointError: the folder cannot be written, or holds something else; or weights are not finite.
            MechanismError: a mechanism that no file can say.
        """
        return save_pretrained(self._declaration(), as_path(folder, "save_pretrained: folder"), card)

    def with_options(self, node: str, **options: Any) -> Self:
        """The same model and weights, with other options for one node.

        Args:
            node: which.
            options: of its mechanism, as in a file; a mapping changes what it names and keeps the rest,
                unless it changes ``kind``, or is the ``noise`` of an equation.

        Raises:
            UnknownNameError: no such node or option.
            SpecError: an option is out of range.
            MechanismError: the options would need other weights.
        """
        new = with_options(node, self._mechanism(node), options)
        return self._with(replace(self._world, mechanisms={**self._world.mechanisms, node: new}))

    def to(self, device: torch.device | str | None = None, dtype: torch.dtype | str | None = None) -> Self:
        """Move every mechanism to a device, and have images denoised in a precision, in place.

        Args:
            device: None leaves the model where it is.
            dtype: of the networks that denoise images, and of their weights as saved: bfloat16, float16 or
                float32. What they are given, what they answer and all other mechanisms stay as they are. 16
                bits round the weights for good; a fit takes float32 again.

        Raises:
            MechanismError: no such device or dtype; a dtype, and no network to give it to.
        """
        self._world.to(device, dtype)
        return self

    def sample(
        self,
        n: int,
        do: Mapping[str, Any] | None = None,
        *,
        targets: Iterable[str] | None = None,
        seed: int | None = None,
        clip: bool = False,
    ) -> Draws:
        """Draw rows from the model, or from the model under an intervention.

        Args:
            n: rows, at least 1.
            do: node -> value, as for ``counterfactual``.
            targets: nodes wanted; all where None.
            seed: the same seed gives the same rows; None draws one, which the result names.
            clip: move what ``do`` sets out of bounds onto the bound, instead of refusing it.
        """
        n = whole_number(n, "sample: n, the number of rows,", least=1)
        if do is not None and (do or not isinstance(do, Mapping)):
            return self.do(do, clip=clip).sample(n, targets=targets, seed=seed)
        seed, wanted = chosen_seed(seed), check_targets(targets, self._variables)
        prediction = predict(self._world, {}, wanted, rows=n, seed=seed)
        return Draws(
            {node: self._variables[node] for node in wanted},
            {node: prediction.values[node] for node in wanted},
            rows=n,
            samples=None,
            provenance=trace_provenance(self._world, prediction, {}, n, 1).only(wanted),
            seed=seed,
        )

    def do(self, do: Mapping[str, Any], *, clip: bool = False) -> Self:
        """The model after an intervention (the do-operator), as a new one that shares this one's mechanisms.

        Args:
            do: node -> value, as for ``counterfactual``.
            clip: move what is out of bounds onto the bound, instead of refusing it.

        Raises:
            CycleError: an expression or a policy reads a node that the intervened one causes.
            DomainError, InterventionError: as for ``counterfactual``.
        """
        world = self._world
        asked = interventions(do, world.graph, self._variables, world.mechanisms, clip=clip)
        return self._with(act(world, asked))

    def abduct(
        self,
        evidence: Evidence,
        *,
        num_samples: int | None = None,
        seed: int | None = None,
        particles: int = 4096,
    ) -> Abduction:
        """Recover the noise behind evidence once, to ask about many worlds.

        Args:
            evidence: scalars or arrays of B rows by name, or a DataFrame. A node that is left out, or None or
                NaN in a row, is inferred from the others; see ``counterfactuals.missing_evidence.posterior``.
            num_samples: S draws of whatever evidence does not determine; None for one draw.
            seed: of the draws.
            particles: a row, for missing values that have no exact posterior.

        Warns:
            ExtrapolationWarning: a category that fitting never saw, or a number further outside the range
                that it saw than that range is wide.

        Raises:
            PartialEvidenceError: a missing value cannot be inferred; the message says why.
            EvidenceError: evidence of probability zero.
            InterventionError: the model was intervened on by a function.
        """
        return Abduction(
            self._world, self._variables, evidence, num_samples=num_samples, seed=seed, particles=particles
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
        clip: bool = False,
    ) -> Counterfactual:
        """What each row would have been under an intervention: abduction, action, prediction.

        Args:
            evidence: B rows or one, by name or as a DataFrame; what is missing is inferred, as in ``abduct``.
            do: node -> one value, B values, an expression such as "x + 2*a", ``Stochastic``, ``Policy``,
                ``Replace``, or a function of the node's natural value (``Shift``, ``Scale`` or any callable
                of one argument).
            targets: nodes wanted, all where None; only what they depend on is computed.
            num_samples: S draws, giving (S, B, *event); None for one draw, giving (B, *event).
            seed: of the draws.
            copy_unaffected: keep the factual value of rows that the intervention does not reach; with False
                everything is recomputed from noise.
            clip: move what ``do`` sets out of bounds onto the bound, instead of refusing it.

        Raises:
            PartialEvidenceError: a missing value cannot be inferred.
            DomainError: evidence or an intervention outside a variable's domain.
            InterventionError, UnknownNameError: an intervention that does not fit the model.
            CycleError: an expression or a policy reads a node that the intervened one causes.
            CannotAbductError: a mechanism cannot recover its noise.
        """
        abduction = self.abduct(evidence, num_samples=num_samples, seed=seed)
        return abduction.counterfactual(do, targets=targets, copy_unaffected=copy_unaffected, clip=clip)

    def log_prob(self, values: Evidence) -> Tensor:
        """Joint log density of rows, (B,).

        Raises:
            PartialEvidenceError: a node has no value.
            NotFittedError: a mechanism has not been fitted.
            MechanismError: a mechanism has no tractable density; the message names it.
            InterventionError: the model was intervened on by a function.
        """
        self._world.refuse_natural("rows do", "Ask")
        rows, _, _ = encode_evidence(values, self._variables, self.device)
        if lacking := ", ".join(node for node in self._variables if node not in rows):
            raise PartialEvidenceError(f"log_prob needs the value of every node; missing: {lacking}.")
        return log_prob(self._world, rows)

    push_to_hub = push_to_hub  # These are documented where they are written.
    to_dowhy = to_dowhy
    effect = queries.effect
    natural_effects = queries.natural_effects
    coupling_sensitivity = couplings.coupling_sensitivity

    def check(
        self, data: Any, *, seed: int = 0, level: float = 0.01, missing: Literal["refuse", "drop"] = "refuse"
    ) -> CheckReport:
        """Whether the model agrees with rows: how its mechanisms fit, and which independences hold.

        Args:
            data: as for ``fit``; at most 1,000 rows are looked at. Take those it was fitted on, or new ones
                if it was fitted on several times as many: tests take the error of a fit for dependence.
            seed: of the rows, draws and permutations; the same one gives the same report.
            level: false discovery rate of all tests together, between 0 and 1: the share of checks, at most,
                that report a problem with a true model, of rows that are independent of each other.
            missing: "refuse" rows that lack a value, or "drop" them from the tests that read it, as ``fit``
                does: ``report.dropped`` counts.

        Returns:
            The report: print it, or ask ``report.ok``.

        Raises:
            DataError: the data are wrong, or have fewer than 20 rows.
            NotFittedError: a mechanism has not been fitted.
            InterventionError: the model was intervened on by a function.
        """
        from causalgen.checking.checks import check_model

        self._world.refuse_natural("data do", "Check")
        seed, level = whole_number(seed, "check: seed"), share(level, "check: level")
        table = read_data(data, self._variables, missing=missing, nodes=self._variables, experiments=True)
        report = check_model(self._world, self._variables, table, seed=seed, level=level)
        return report if self.fit_report is None else replace(report, advice=tuple(self.fit_report.advice))

    def to_pyro(self) -> PyroModel:
        """The model as a Pyro program ``model(n=1)``, a site for each node; see ``causalgen.pyro``.

        ``pyro.condition``, ``poutine.do`` and ``Predictive`` work on it. Pyro draws from torch's global
        random state: run it under ``torch.random.fork_rng`` where that matters.

        Raises:
            NotFittedError: a mechanism has not been fitted.
        """
        from causalgen.pyro import PyroModel  # Pyro takes seconds to import

        return PyroModel(self._world)

    def describe(self) -> str:
        """The model as text: a line a node."""
        return self._declaration().describe()

    def __repr__(self) -> str:
        """Name, whether it is fitted, and the nodes with their parents."""
        return f"SCM({self._declaration().summary()})"

    def __getattr__(self, name: str) -> NoReturn:
        """Say where a method went."""
        if name in ("evaluate", "tune"):
            raise AttributeError(f"scm.{name}(...) is now a function of the model: cg.{name}(scm, ...).")
        own = {"save": "scm.save_pretrained(folder)", "load": "cg.SCM.from_pretrained(folder)"}
        hint = f" {name.capitalize()} it by {own[name]}." if name in own else ""
        raise AttributeError(f"An SCM has no attribute {name!r}.{hint}", name=name, obj=self)

    def _mechanism(self, node: str) -> Mechanism:
        UnknownNameError.check("node", node, self._variables)
        return self._world.mechanisms[node]
