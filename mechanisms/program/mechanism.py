"""Probabilistic program ``x := f(pa)``, f written in Pyro: its sample sites are the noise.

A site's noise is what ``mechanisms.program.run`` says: a normal site is loc + scale * e with e the
noise, so its law may depend on the parents. A site without such a form is its own noise, and then its law
must not. The value is a function of the sites, or the last site itself.

    abduct, x affine in its last site v   the other sites e drawn K times from their prior, v solved for x;
                                          weight w = p(v | e) / |dx/dv|. Or e drawn from a fitted guide,
                                          or by Markov chains (``mechanisms.program.inference``)
    abduct, discrete                      all sites drawn K times; w = 1 where they give x, 0 elsewhere
    abduct, rows of small effective size  more draws (``mechanisms.program.importance``)
    log_prob                              log mean_k w_k, an estimate; exact with one solved site

One of the K is kept with a chance in proportion to its weight. The log weight of this draw is log mean_k w_k,
so that an average over draws is consistent whatever K is (Andrieu, Doucet & Holenstein 2010).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from importlib.metadata import entry_points
from typing import Any, Literal, final

import torch
from pydantic import Field, field_validator
from pydantic.json_schema import SkipJsonSchema
from torch import Tensor

from graphs.errors import CannotAbductError, EvidenceError, MechanismError, UnknownNameError
from graphs.variables import Variable
from mechanisms.base import Abducted, Mechanism, MechanismSpec, Noise, Parents
from mechanisms.networks import gradients
from mechanisms.program.importance import ImportanceSampler, Reservoir
from mechanisms.program.inference import NUTS, SVI, Importance, Inference, fit_guide, run_chains
from mechanisms.program.plan import Plan, plan_program
from mechanisms.program.posterior import Latents, ProgramSolver, Weighed
from mechanisms.program.run import canonical_value, placeholders, run_program, unvalidated
from mechanisms.rows import distinct_rows
from mechanisms.seeds import global_draws_from

__all__ = ["GROUP", "Program", "ProgramMechanism", "load_program", "program_name"]

GROUP = "causalgen.programs"
"""The entry-point group of programs: a file can name one of these, never an import path."""

_PILOTS = 256
"""Prior draws that a guide or chains start from."""

_EACH = 64
"""Draws behind the likelihood of one proposal of parents."""


def program_name(program: Callable[..., Any]) -> str | None:
    """The name that a function is registered under; None where it is not. Imports nothing."""
    place = f"{getattr(program, '__module__', None)}:{getattr(program, '__qualname__', None)}"
    return next((point.name for point in entry_points(group=GROUP) if point.value == place), None)


def load_program(name: str) -> Callable[..., Any]:
    """The function of a name."""
    points = tuple(entry_points(group=GROUP, name=name))
    if not points:
        known = {point.name for point in entry_points(group=GROUP)}
        raise UnknownNameError.of("program", name, known, where=f"entry points {GROUP!r}")
    if len({point.value for point in points}) > 1:
        claims = ", ".join(sorted(point.value for point in points))
        raise MechanismError(f"Several packages register the program {name!r}: {claims}. Keep one.")
    try:
        loaded = points[0].load()
    except Exception as error:
        raise MechanismError(f"Program {name!r} ({points[0].value}) does not import: {error}") from error
    if not callable(loaded):
        raise MechanismError(f"Program {name!r} ({points[0].value}) must be a function of the parents.")
    return loaded


class Program(MechanismSpec, frozen=True):
    """A node by a Pyro program, for any variable. Nothing is fitted.

    Attributes:
        program: a function of the parents, or the name one is registered under (entry points of the group
            "causalgen.programs"): only these are saved. It gets a dict of tensors (N, *event), categories as
            codes and images in [0, 1], and returns its values in the same form. It runs for N rows at
            once: a site is drawn for every row, and needs ``.to_event`` where a row has several numbers.
        particles: K, prior draws behind each abducted row and each density. Abduction draws more for rows
            whose effective sample size is below 100, or K / 2 if that is less.
        inference: how noise is abducted where a value leaves it open: "importance" (prior draws), "svi" or
            "nuts", each with its options. Where a value has one noise, that is found whatever this says.
    """

    kind: Literal["program"] = "program"
    training: None = None
    program: str | SkipJsonSchema[Callable[..., Any]]
    particles: int = Field(default=1000, ge=1, le=2**17)
    inference: Inference = Importance()

    @field_validator("program")
    @classmethod
    def _name(cls, program: str | Callable[..., Any]) -> str | Callable[..., Any]:
        """The name instead of a function that has one."""
        return program if isinstance(program, str) else program_name(program) or program

    def why_unwritable(self) -> str | None:
        """A function without a name cannot be written."""
        if isinstance(self.program, str):
            return None
        return (
            "its program is a function of this Python session, which no file can say. Register it by an "
            "entry point of the group 'causalgen.programs' and give its name, Program(program='...')."
        )

    def make(self, variable: Variable, parents: Mapping[str, Variable]) -> ProgramMechanism:
        """The mechanism for one variable and its parents. The program is run once, to see its sites.

        Raises:
            UnknownNameError: no program of that name.
            MechanismError: the program cannot be a mechanism; the message says why.
        """
        return ProgramMechanism(self, variable, parents)


@final
class ProgramMechanism(Mechanism):
    """``x = f(pa)``. Noise: one leaf (N, *event of the site) for each sample site."""

    spec: Program

    def __init__(self, spec: Program, variable: Variable, parents: Mapping[str, Variable]) -> None:
        super().__init__(spec, variable, parents)
        self.program = load_program(spec.program) if isinstance(spec.program, str) else spec.program
        self.plan: Plan = plan_program(self.program, variable, parents)
        self.solver = ProgramSolver(self.program, self.plan, variable, self.parents)
        self.deterministic = self.plan.determined
        if self.plan.how == "none":
            self.abduction = "none"
            return
        self.restricts = not self.plan.surjective
        self.abduction = "exact" if self.deterministic else "posterior"
        # With one site, which is solved for or does not matter, every draw is from the posterior.
        self.single = self.plan.how == "solve" and self.plan.sites == 1
        self.particles = 1 if self.single else spec.particles
        self.estimated = not self.single
        self.chunk_rows = None if self.single else max(1, 2**20 // self.particles)
        if not self.single and not isinstance(spec.inference, Importance):
            self._check_continuous(spec.inference.kind)
            self.chunk_rows = (
                512 if isinstance(spec.inference, NUTS) else max(1, 2**18 // spec.inference.draws)
            )

    def sample_noise(self, n: int, *, generator: torch.Generator) -> Noise:
        """Noise of every site, on the generator's device.

        Raises:
            MechanismError: a site's law depends on the parents, and has no noise that does not.
        """
        parents = placeholders(self.parents, n, generator.device)
        with torch.no_grad(), global_draws_from(generator), unvalidated():
            run = run_program(self.program, parents, n)
        return Noise(n, {name: site.noise.to(generator.device) for name, site in run.sites.items()})

    def generate(self, parents: Parents, noise: Noise) -> Tensor:
        """(N, *event) in canonical encoding.

        Raises:
            DomainError: the program leaves the variable's domain; the message names the row.
            MechanismError: a site's law depends on the parents, and has no noise that does not.
        """
        run = self.solver.run(parents, noise)
        return canonical_value(self.variable, run.returned, noise.n, check=True)

    def abduct(self, value: Tensor, parents: Parents, *, generator: torch.Generator) -> Abducted:
        """The noise of each row.

        Diagnostics: ``effective_sample_size``, out of the draws; of chains, ``r_hat``, ``acceptance`` and
        ``divergences`` too, the latter two of all rows together.
        """
        if self.plan.how == "none":
            raise CannotAbductError(self.plan.reason)
        inference = self.spec.inference
        if not self.single and not isinstance(inference, Importance):
            return self._infer(inference, value, parents, generator)
        if self.single:
            return Abducted(Noise(len(value), self._solved(value, parents, generator)))
        found = self._sampler(generator).run(value, parents)
        self._refuse_unexplained(value, found.explained, int(found.draws.amax()))
        return found.abducted()

    def check(self, value: Tensor, parents: Parents) -> None:
        """Whether some prior draw gives the value, where not every value has noise."""
        if self.restricts and self.plan.how != "none":
            generator = torch.Generator(value.device).manual_seed(0)
            if self.single:
                self._solved(value, parents, generator)
            else:
                found = self._sampler(generator, most=64).run(value, parents, target=0.0)
                self._refuse_unexplained(value, found.explained, int(found.draws.amax()))

    def atomic(self, value: Tensor, parents: Parents) -> Tensor | None:
        """Of real numbers: rows that some of the draws of ``log_prob`` give whatever the last site is."""
        if self.variable.type != "continuous" or self.plan.how == "none" or self.plan.identity:
            return None
        if self.plan.how == "match":
            return torch.ones(len(value), dtype=torch.bool, device=value.device)
        if self.plan.determined:
            return None
        return torch.cat([atomic for _, atomic in self._weights(value, parents)])

    def _sampler(self, generator: torch.Generator, most: int = 2**17) -> ImportanceSampler:
        """Of prior draws, ``particles`` or at most some at first."""

        def prior(rows: int) -> Noise:
            return self.sample_noise(rows, generator=generator)

        return ImportanceSampler(self.solver, prior, min(self.particles, most), generator)

    def _infer(
        self, inference: SVI | NUTS, value: Tensor, parents: Parents, generator: torch.Generator
    ) -> Abducted:
        """Noise from the posterior of each distinct row, by a guide or by chains."""
        who = f"Inference {inference.kind!r} of a program"
        first, inverse = distinct_rows([value, *(parents[name] for name in self.parents)])
        pilot = self.sample_noise(_PILOTS * len(first), generator=generator)
        some = {name: parents[name][first] for name in self.parents}
        posterior = self.solver.posterior(value[first], some, pilot)
        if bool(posterior.atomic.any()):
            raise CannotAbductError(
                f"Row {int(first[posterior.atomic][0])}: in the program, some noise gives the value whatever "
                f"its last site {self.plan.last!r} is, so it has a probability. Gradients do not find it: "
                "use inference: {kind: importance}."
            )
        explained = (posterior.pilot_weights > -torch.inf).any(0)
        if not bool(explained.all()):
            row = int(first[~explained][0])
            raise EvidenceError(
                _unexplained(
                    row,
                    self._shown(value[row]),
                    _PILOTS,
                    "use inference: {kind: importance}, which draws more",
                )
            )
        if isinstance(inference, NUTS):
            with global_draws_from(generator), gradients(who), unvalidated():
                chains = run_chains(posterior, inference)
            chains.warn()
            z, figures = chains.draw(inverse, generator)
            prior = self.sample_noise(len(value), generator=generator)
            leaves = self.solver.posterior(value, parents, prior).explained(z[None])
            return Abducted(Noise(len(value), leaves), None, figures)
        prior = self.sample_noise(max(1, inference.draws // 10) * len(value), generator=generator)
        whole = self.solver.posterior(value, parents, prior)
        guided = inference.draws - len(whole.pilot)
        with global_draws_from(generator), gradients(who), unvalidated():
            guide = fit_guide(posterior, inference).rows(inverse)
            z = guide.propose(guided, whole.pilot)
        joint, log_prior = whole.log_joint(z)
        weights = joint - guide.log_mixture(z, log_prior, guided)
        found = Reservoir(len(value), generator)
        found.offer(
            torch.arange(len(value), device=value.device), Weighed(whole.explained(z), weights.flatten())
        )
        return found.abducted()

    def _check_continuous(self, kind: str) -> None:
        """Refuse inference by gradients where there are none."""
        if self.plan.how == "match":
            raise MechanismError(
                f"inference {kind!r} needs a density of the program's value, which is a category or a whole "
                "number: only draws that give it exactly will do. Use inference: {kind: importance}."
            )
        with torch.no_grad(), unvalidated():
            Latents(run_program(self.program, placeholders(self.parents, 2, torch.device("cpu")), 2))

    def log_prob(self, value: Tensor, parents: Parents) -> Tensor | None:
        """(N,) log p(x | pa), log P where discrete; from the same K draws for every row, in every call.

        None where the noise cannot be recovered, and for numbers that only discrete noise makes.
        """
        if self.plan.how == "none" or (self.plan.how == "match" and self.variable.type == "continuous"):
            return None
        parts = [weights.logsumexp(0) for weights, _ in self._weights(value, parents)]
        return torch.cat(parts) - torch.tensor(float(self.particles)).log()

    def likelihood(
        self, value: Tensor, parents: Parents, *, generator: torch.Generator
    ) -> tuple[Tensor, Tensor | None] | None:
        """As ``log_prob``, by few draws of each row's own: many rows average their errors out."""
        if not self.estimated:
            return super().likelihood(value, parents, generator=generator)
        if self.plan.how == "match" and self.variable.type == "continuous":
            return None
        draws = min(self.particles, _EACH)
        logs: list[Tensor] = []
        atoms: list[Tensor] = []
        for part in torch.arange(len(value), device=value.device).split(max(1, 2**20 // draws)):
            some = {name: parent[part] for name, parent in parents.items()}
            noise = self.sample_noise(draws * len(part), generator=generator)
            weights, atomic = self.solver.weigh(value[part], some, noise).dominated(len(part))
            logs.append(weights.logsumexp(0) - torch.tensor(float(draws)).log())
            atoms.append(atomic)
        kind = torch.cat(atoms) if self.variable.type == "continuous" and not self.plan.identity else None
        return torch.cat(logs), kind

    def _weights(self, value: Tensor, parents: Parents) -> Iterator[tuple[Tensor, Tensor]]:
        """Log weights (K, n) of the same K draws for all rows, and which are atoms, (n,), part by part."""
        generator = torch.Generator(value.device).manual_seed(0)
        draws = self.sample_noise(self.particles, generator=generator)
        for part in torch.arange(len(value), device=value.device).split(max(1, 2**20 // self.particles)):
            every = torch.arange(self.particles, device=value.device).repeat_interleave(len(part))
            some = {name: parent[part] for name, parent in parents.items()}
            yield self.solver.weigh(value[part], some, draws.rows(every)).dominated(len(part))

    def _solved(self, value: Tensor, parents: Parents, generator: torch.Generator) -> dict[str, Tensor]:
        """Noise of the one site, which gives the value."""
        weighed = self.solver.weigh(value, parents, self.sample_noise(len(value), generator=generator))
        self._refuse_unexplained(value, weighed.log_weight > -torch.inf, 1)
        return weighed.leaves

    def _refuse_unexplained(self, value: Tensor, explained: Tensor, draws: int) -> None:
        """Refuse a row that no draw explains, out of so many."""
        if bool(explained.all()):
            return
        row = int((~explained).nonzero()[0])
        if self.single:
            x = self._shown(value[row])
            raise EvidenceError(
                f"Row {row}: the program gives {x} for no noise, given the parents. Correct the evidence."
            )
        raise EvidenceError(_unexplained(row, self._shown(value[row]), draws, "widen the laws of the sites"))

    def _shown(self, value: Tensor) -> str:
        """One value in the user's form, for messages."""
        if value.numel() > 8:
            return "the observed value"
        decoded = self.variable.decode(value[None])[0]
        return str(decoded.tolist() if isinstance(decoded, Tensor) else decoded)


def _unexplained(row: int, value: str, draws: int, remedy: str) -> str:
    return (
        f"Row {row}: none of {draws} prior draws of the program's sites gives {value}: it is impossible, or "
        f"nearly so, given the parents. Correct the evidence, or {remedy}."
    )
