"""``x := f(pa)``, f a Pyro program: its sample sites are the noise.

A site's noise is what ``mechanisms.standard_form`` says: a normal site is loc + scale * e with e the noise,
so its law may depend on the parents. A site without such a form is its own noise, and then its law must not.
The value is a function of the sites, or the last site itself.

    abduct, x affine in its last site v   the other sites e drawn K times from their prior, v solved for x;
                                          weight w = p(v | e) / |dx/dv|. Or e drawn from a fitted guide,
                                          or by Markov chains (``mechanisms.program_inference``)
    abduct, discrete                      all sites drawn K times; w = 1 where they give x, 0 elsewhere
    log_prob                              log mean_k w_k, an estimate; exact with one solved site

One of the K is kept with a chance in proportion to its weight. The log weight of this draw is log mean_k w_k,
so that an average over draws is consistent whatever K is (Andrieu, Doucet & Holenstein 2010).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Literal, final

import pyro
import torch
from pydantic import Field, field_validator
from torch import Tensor

from graphs.errors import CannotAbductError, EvidenceError
from graphs.variables import Variable
from mechanisms.base import Abducted, Mechanism, MechanismSpec, Noise, Parents
from mechanisms.distinct_rows import distinct_rows
from mechanisms.lent_random_state import lent_random_state
from mechanisms.program_chains import run_chains
from mechanisms.program_guide import fit_guide
from mechanisms.program_inference import NUTS, SVI, Importance, Inference
from mechanisms.program_latents import Latents, ProgramPosterior
from mechanisms.program_names import load_program, program_name
from mechanisms.program_plan import Plan, plan_program
from mechanisms.program_run import ProgramRun, run_program
from mechanisms.program_values import canonical_value, placeholders, shown_parents

__all__ = ["Program", "ProgramMechanism"]

_PILOTS = 256
"""Prior draws that a guide or chains start from."""


class Program(MechanismSpec, frozen=True):
    """A node by a Pyro program, for any variable. Nothing is fitted.

    Attributes:
        program: a function of the parents, or the name one is registered under (entry points of the group
            "causalgen.programs"): only these are saved. It gets a dict of tensors (N, *event), categories as
            codes and images in [0, 1], and returns its values in the same form. It runs for N rows at
            once: a site is drawn for every row, and needs ``.to_event`` where a row has several numbers.
        particles: K, prior draws behind each abducted row and each density.
        inference: how noise is abducted where a value leaves it open: "importance" (prior draws), "svi" or
            "nuts", each with its options. Where a value has one noise, that is found whatever this says.
    """

    kind: Literal["program"] = "program"
    training: None = None
    program: str | Callable[..., Any]
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
    """``x = f(pa)``. Noise: one leaf (N, *event of the site) for each sample site.

    Attributes:
        plan: how its noise is recovered.
    """

    spec: Program

    def __init__(self, spec: Program, variable: Variable, parents: Mapping[str, Variable]) -> None:
        super().__init__(spec, variable, parents)
        self.program = load_program(spec.program) if isinstance(spec.program, str) else spec.program
        self.plan: Plan = plan_program(self.program, variable, parents)
        if self.plan.how == "none":
            self.abduction = "none"
            return
        self.deterministic = self.plan.determined
        self.abduction = "exact" if self.deterministic else "posterior"
        self.particles = 1 if self.deterministic else spec.particles
        self.chunk_rows = None if self.deterministic else max(1, 2**20 // self.particles)
        if not self.deterministic and not isinstance(spec.inference, Importance):
            self._check_continuous(spec.inference.kind)
            self.chunk_rows = 512 if isinstance(spec.inference, NUTS) else max(1, 2**18 // spec.inference.draws)

    def sample_noise(self, n: int, *, generator: torch.Generator) -> Noise:
        """Noise of every site, on the generator's device.

        Raises:
            MechanismError: a site's law depends on the parents, and has no noise that does not.
        """
        parents = placeholders(self.parents, n, generator.device)
        with torch.no_grad(), lent_random_state(generator), pyro.validation_enabled(False):
            run = run_program(self.program, parents, n)
        return Noise(n, {name: site.noise.to(generator.device) for name, site in run.sites.items()})

    def generate(self, parents: Parents, noise: Noise) -> Tensor:
        """(N, *event) in canonical encoding.

        Raises:
            DomainError: the program leaves the variable's domain; the message names the row.
            MechanismError: a site's law depends on the parents, and has no noise that does not.
        """
        run = self._run(parents, noise)
        return canonical_value(self.variable, run.returned, noise.n, check=True)

    def abduct(self, value: Tensor, parents: Parents, *, generator: torch.Generator) -> Abducted:
        """The noise of each row.

        Diagnostics: ``effective_sample_size``, out of the draws; of chains, ``r_hat``, ``acceptance`` and
        ``divergences`` too, the latter two of all rows together.

        Raises:
            CannotAbductError: the program does not tell its noise; the message says why.
            EvidenceError: none of the K prior draws gives a row's value.
        """
        if self.plan.how == "none":
            raise CannotAbductError(self.plan.reason)
        inference = self.spec.inference
        if not self.deterministic and not isinstance(inference, Importance):
            return self._infer(inference, value, parents, generator)
        rows, particles = len(value), self.particles
        prior = self.sample_noise(particles * rows, generator=generator)
        leaves, weights = self._weigh(value, parents, prior)
        weights = weights.reshape(particles, rows)
        self._refuse_unexplained(value, weights)
        if self.deterministic:
            return Abducted(Noise(rows, leaves))
        return _chosen(leaves, weights, generator)

    def _infer(
        self, inference: SVI | NUTS, value: Tensor, parents: Parents, generator: torch.Generator
    ) -> Abducted:
        """Noise from the posterior of each distinct row, by a guide or by chains."""
        first, inverse = distinct_rows([value, *(parents[name] for name in self.parents)])
        pilot = self.sample_noise(_PILOTS * len(first), generator=generator)
        some = {name: parents[name][first] for name in self.parents}
        posterior = self._posterior(value[first], some, pilot)
        if isinstance(inference, NUTS):
            with lent_random_state(generator), torch.enable_grad(), pyro.validation_enabled(False):
                chains = run_chains(posterior, inference)
            chains.warn()
            z, figures = chains.draw(inverse, generator)
            prior = self.sample_noise(len(value), generator=generator)
            noise = {**prior, **posterior.latents.noise(z[None])[0]}
            leaves, _, _ = self._explain(value, parents, Noise(len(value), noise))
            return Abducted(Noise(len(value), leaves), None, figures)
        prior = self.sample_noise(max(1, inference.draws // 10) * len(value), generator=generator)
        whole = self._posterior(value, parents, prior)
        with lent_random_state(generator), torch.enable_grad(), pyro.validation_enabled(False):
            guide = fit_guide(posterior, inference).rows(inverse)
            z = guide.propose(inference.draws - len(whole.pilot), whole.pilot)
        joint, log_prior = whole.log_joint(z)
        weights = joint - guide.log_mixture(z, log_prior, inference.draws - len(whole.pilot))
        return _chosen(whole.explained(z), weights, generator)

    def _posterior(self, value: Tensor, parents: Parents, pilot: Noise) -> ProgramPosterior:
        """The posterior of N rows, with P * N prior draws.

        Raises:
            EvidenceError: none of them gives a row's value.
        """
        rows, last = len(value), self.plan.last
        one = pilot.rows(slice(0, rows))
        with torch.no_grad():
            latents = Latents(self._run(parents, one))
            _, weights = self._weigh(value, parents, pilot)
        weights = weights.reshape(-1, rows)
        self._refuse_unexplained(value, weights)

        def explain(leaves: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], Tensor, Tensor]:
            n = len(next(iter(leaves.values())))
            # In the order of the sites; the last one's is solved for.
            noise = {name: leaves.get(name, one[name]) for name in one}
            return self._explain(value, parents, Noise(n, {**noise, last: _repeat(one[last], n // rows)}))

        return ProgramPosterior(latents, explain, latents.vector(pilot, rows), weights)

    def _explain(
        self, value: Tensor, parents: Parents, noise: Noise
    ) -> tuple[dict[str, Tensor], Tensor, Tensor]:
        """Noise that gives x, its log weight, and the log density of all but the last site's, (R * N,)."""
        run = self._run({name: _repeat(each, noise.n // len(value)) for name, each in parents.items()}, noise)
        leaves, weights = self._weigh(value, parents, noise, run)
        *latent, _ = run.sites.values()
        densities = [site.form.base.log_prob(site.noise).double().reshape(noise.n, -1).sum(1) for site in latent]
        return leaves, weights, torch.stack(densities).sum(0)

    def _check_continuous(self, kind: str) -> None:
        """Refuse inference by gradients where there are none."""
        if self.plan.how == "match":
            raise MechanismError(
                f"inference {kind!r} needs a density of the program's value, which is of whole numbers: only "
                "draws that give it exactly will do. Use inference: {kind: importance}."
            )
        rows = 2
        with torch.no_grad(), pyro.validation_enabled(False):
            run = run_program(self.program, placeholders(self.parents, rows, torch.device("cpu")), rows)
        Latents(run)

    def log_prob(self, value: Tensor, parents: Parents) -> Tensor | None:
        """(N,) log p(x | pa), log P where discrete; from the same K draws for every row, in every call.

        None where the noise cannot be recovered, and for numbers that only discrete noise makes.
        """
        if self.plan.how == "none" or (self.plan.how == "match" and self.variable.type == "continuous"):
            return None
        generator = torch.Generator(value.device).manual_seed(0)
        draws = self.sample_noise(self.particles, generator=generator)
        parts = []
        for part in torch.arange(len(value), device=value.device).split(self.chunk_rows or len(value)):
            every = torch.arange(self.particles, device=value.device).repeat_interleave(len(part))
            some = {name: parent[part] for name, parent in parents.items()}
            _, weights = self._weigh(value[part], some, draws.rows(every))
            parts.append(weights.reshape(self.particles, len(part)).logsumexp(0))
        return torch.cat(parts) - torch.tensor(float(self.particles)).log()

    def _weigh(
        self, value: Tensor, parents: Parents, noise: Noise, run: ProgramRun | None = None
    ) -> tuple[dict[str, Tensor], Tensor]:
        """Noise that gives x, and its log weight, (K * N,), sample-major.

        Args:
            value: (N, *event).
            parents: of the same rows.
            noise: K * N rows of all sites; the last one's is solved for, or kept where only a match counts.
            run: with that noise, where there was one.
        """
        times = noise.n // len(value)
        value, parents = _repeat(value, times), {name: _repeat(each, times) for name, each in parents.items()}
        run = run or self._run(parents, noise)
        if self.plan.how == "match":
            fits = self._near(run, value)
            return dict(noise), torch.where(fits, 0.0, -torch.inf).double()
        name, site = run.last
        slope: Tensor | None = None
        solved = value
        if not self.plan.identity:
            at_zero, at_one = (
                self._value(parents, noise, torch.full_like(site.value, number, dtype=torch.float64))
                for number in (0.0, 1.0)
            )
            slope = at_one - at_zero
            solved = (value - at_zero) / slope
        # Where there is no solution, the prior's value stands in: it has a density, and gets no weight.
        inside = solved.isfinite().reshape(noise.n, -1).all(1) & site.fn.support.check(solved)
        solved = torch.where(_column(inside, solved), solved, site.value.detach().double())
        density = site.fn.log_prob(solved).double()
        if slope is not None:
            inside = inside & self._near(self._run(parents, noise, {name: solved}), value)
            density = density - slope.abs().log().reshape(noise.n, -1).sum(1)
        leaves = {**noise, name: site.form.inverse(solved)}
        return leaves, torch.where(inside, density, -torch.inf)

    def _value(self, parents: Parents, noise: Noise, last: Tensor) -> Tensor:
        """x as it is where the last site has another value."""
        run = self._run(parents, noise, {self.plan.last: last})
        return canonical_value(self.variable, run.returned, noise.n)

    def _near(self, run: ProgramRun, value: Tensor) -> Tensor:
        """Whether the run gave the value, (N,)."""
        got = canonical_value(self.variable, run.returned, len(value)).double()
        near = (got - value).abs() <= self.plan.tolerance * value.abs().clamp(min=1.0)
        return near.reshape(len(value), -1).all(1)

    def _run(self, parents: Parents, noise: Noise, values: Mapping[str, Tensor] | None = None) -> ProgramRun:
        """A run with given noise; refused where the noise's law depends on the parents."""
        shown = shown_parents(self.parents, parents)
        run = run_program(self.program, shown, noise.n, noise=noise, values=values)
        bound = {name: site for name, site in run.sites.items() if not site.form.free}
        if bound and self.parents and values is None:
            elsewhere = placeholders(self.parents, noise.n, self.fitted_flag.device)
            with torch.no_grad(), pyro.validation_enabled(False):
                other = run_program(self.program, elsewhere, noise.n, noise=noise).sites
            for name, site in bound.items():
                self.plan.check_exogenous(name, site, other[name])
        return run

    def _refuse_unexplained(self, value: Tensor, weights: Tensor) -> None:
        """Refuse a row that has no weight in any of its draws, (K, N)."""
        best = weights.amax(0)
        if bool((best > -torch.inf).all()):
            return
        row = int((~(best > -torch.inf)).nonzero()[0])
        x = value[row].tolist() if value[row].numel() <= 8 else "the observed image"
        if self.deterministic:
            raise EvidenceError(
                f"Row {row}: the program gives {x} for no noise, given the parents. Correct the evidence."
            )
        raise EvidenceError(
            f"Row {row}: none of {len(weights)} prior draws of the program's sites gives {x}. Correct the "
            "evidence, or give the mechanism more particles."
        )


def _chosen(leaves: Mapping[str, Tensor], weights: Tensor, generator: torch.Generator) -> Abducted:
    """One of the K draws of each row, in proportion to its weight; log weights are (K, N), noise K * N rows."""
    draws, rows = weights.shape
    exponential = torch.empty_like(weights).exponential_(generator=generator)
    # The largest of log weight plus Gumbel is a draw.
    gumbel = -exponential.clamp(min=torch.finfo(torch.float64).tiny).log()
    chosen = (weights + gumbel).argmax(0) * rows + torch.arange(rows, device=weights.device)
    return Abducted(
        Noise(draws * rows, leaves).rows(chosen),
        weights.logsumexp(0) - torch.tensor(float(draws)).log(),
        {"effective_sample_size": 1 / weights.softmax(0).square().sum(0)},
    )


def _repeat(value: Tensor, times: int) -> Tensor:
    """All rows ``times`` times over, sample-major."""
    return value if times == 1 else value.repeat(times, *[1] * (value.ndim - 1))


def _column(mask: Tensor, like: Tensor) -> Tensor:
    """(N,) as (N, 1, ...)."""
    return mask.reshape(-1, *[1] * (like.ndim - 1))
