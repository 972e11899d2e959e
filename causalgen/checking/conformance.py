"""The laws of ``causalgen.testing``, each a method that raises AssertionError where it is broken.

Statistical laws compare distribution functions on a fixed number of draws; exact ones up to rounding, scaled
to the values: 1e-9 for tables (float64), 1e-4 for images (float32).
"""

from __future__ import annotations

import copy
import random
import sys
from collections.abc import Callable, Mapping

import numpy as np
import torch
from safetensors.torch import load, save
from torch import Tensor

from causalgen.checking.density_conformance import SURPRISE, Densities, apart, close
from causalgen.checking.statistics import sample_distance, tail_bound
from graphs.errors import CannotAbductError
from graphs.variables import Variable
from mechanisms.base import Mechanism, Noise
from mechanisms.registry import dump_mechanism, kinds, parse_mechanism

__all__ = ["Suite", "global_state", "independent_rows", "shares_weights"]

_BATCHES = 300

_RARE = 2.8
"""As ``SURPRISE``, but 1 in 3 million by chance, of many comparisons."""


class Suite(Densities):
    """The laws of one mechanism, held to some rows."""

    def laws(self) -> dict[str, Callable[[], None]]:
        """The laws that apply to this mechanism, by name."""
        laws: dict[str, Callable[[], None]] = {"interface": self.interface, "inputs": self.inputs}
        if self.mechanism.abduction == "none":
            laws["refusal"] = self.refusal
        else:
            laws |= {"round trip": self.round_trip, "noise": self.noise}
        laws |= {"density": self.density, "change of variables": self.change_of_variables}
        laws |= {"other forms": self.other_forms, "rows": self.one_by_one, "reading": self.reading}
        laws |= {
            "generator": self.by_generator,
            "batches": self.batches,
            "saving": self.saving,
            "options": self.options,
        }
        return laws | {"dtype": self.other_dtype, "device": self.other_device, "gradients": self.gradients}

    def interface(self) -> None:
        """Shapes, dtypes and finite values; abducted noise has the leaves of prior noise."""
        _canonical(self.mechanism.variable, self.generate(self.prior), self.rows)
        assert self.prior.n == self.rows, f"sample_noise gave {self.prior.n} rows for {self.rows}"
        log_prob = self.mechanism.log_prob(self.values, self.parents)
        assert log_prob is None or log_prob.shape == (self.rows,), "log_prob must be (N,)"
        assert log_prob is None or not bool(log_prob.isnan().any()), "log_prob is not a number"
        atomic = self.mechanism.atomic(self.values, self.parents)
        assert atomic is None or (atomic.shape, atomic.dtype) == ((self.rows,), torch.bool), (
            f"atomic must be (N,) bool, got {tuple(atomic.shape)} {atomic.dtype}"
        )
        if self.mechanism.abduction != "none":
            prior, abducted = (
                {name: (leaf.shape, leaf.dtype) for name, leaf in noise.items()}
                for noise in (self.prior, self.abducted)
            )
            assert prior == abducted, f"prior noise has leaves {prior}, abducted noise {abducted}"

    def inputs(self) -> None:
        """Nothing that is passed in is changed."""
        noises = [self.prior] if self.mechanism.abduction == "none" else [self.prior, self.abducted]
        values, parents, before = copy.deepcopy((self.values, self.parents, noises))
        for noise in noises:
            self.generate(noise)
        self.mechanism.log_prob(self.values, self.parents)
        self.mechanism.read(self.values)
        if self.mechanism.abduction != "none":
            self.abduct()
        if self.mechanism.spec.training is not None:
            copy.deepcopy(self.mechanism).loss(self.values, self.parents, generator=self.generator())
        assert torch.equal(values, self.values), "values were changed"
        assert all(torch.equal(parents[key], self.parents[key]) for key in parents), "parents were changed"
        assert all(map(_equal, before, noises)), "noise was changed"

    def refusal(self) -> None:
        """A mechanism that cannot abduct says so."""
        try:
            self.abduct()
        except CannotAbductError:
            return
        raise AssertionError("a mechanism that cannot abduct must raise CannotAbductError")

    def round_trip(self) -> None:
        """generate(pa, abduct(x, pa)) == x."""
        if self.mechanism.spec.kind != "constant":  # which has one value, whatever was observed
            close(self.generate(self.abducted), self.values, self.tolerance, "x came back changed")

    def noise(self) -> None:
        """Noise of generated values gives them back: that which they were made from, or a draw of its law."""
        if self.constant_rows():
            return
        approximate = self.mechanism.abduction == "approximate"
        if approximate and self.mechanism.variable.type == "image":
            return  # whose round trip takes long, and was made
        parents, noise = self.spread()
        if approximate:  # and for the same reason
            parents, noise = {name: value[:400] for name, value in parents.items()}, noise.rows(slice(400))
        with torch.no_grad():
            value = self.mechanism.generate(parents, noise)
            abducted = self.mechanism.abduct(value, parents, generator=self.generator(2))
            back = self.mechanism.generate(parents, abducted.noise)
        if self.mechanism.spec.kind != "constant":
            size = max(1.0, value.double().abs().max().item() / self.scale)
            close(back, value, size * self.tolerance, "generated values came back changed")
        for name, leaf in () if approximate else noise.items():
            if self.mechanism.abduction == "exact":
                tolerance = 1e-6 * max(1.0, leaf.abs().max().item())
                close(abducted.noise[name], leaf, tolerance, f"leaf {name!r} came back changed")
            # A leaf that does not vary is what abduction remembers, such as residuals: no random variable.
            elif abducted.log_weight is None and leaf.is_floating_point() and bool((leaf != leaf[:1]).any()):
                # Of some parents, too: what is right on average may follow them.
                every = torch.arange(noise.n, device=leaf.device)
                first = every % self.rows < self.rows // 2
                for part in (every, first, ~first) if parents else (every,):
                    self.same_law(name, leaf[part], abducted.noise[name][part])
                self.exchangeable(name, leaf, abducted.noise[name], value)

    def exchangeable(self, name: str, prior: Tensor, abducted: Tensor, value: Tensor) -> None:
        """Given parents and value, the noise that a value was made from and that abducted are alike.

        So how they differ has either sign as often, in each row of the parents and wherever the value lies:
        in rank, and in the distance of the rank from the middle.
        """
        size = value.double().flatten(1).sum(1) if value.ndim > 1 else value.double()
        parts = size.quantile(torch.linspace(0, 1, 9).to(size)[1:-1])
        places = torch.arange(len(value), device=value.device) % self.rows, torch.bucketize(size, parts)
        for one, other in zip(_columns(prior).unbind(1), _columns(abducted).unbind(1), strict=True):
            both = torch.cat([one, other])
            [ranks] = _centred_ranks(both[:, None])
            alike = (one - other).abs() <= 1e-6 * both.abs().max().clamp(min=1)
            for each in (ranks, ranks.abs()):
                less = torch.where(alike, 0, each[: len(one)] - each[len(one) :]).double()
                for place in places:
                    # Differences below a tenth count for little, as those of a solver with finite steps.
                    squares = torch.bincount(place, less.square() + 0.01)
                    found = torch.bincount(place, less).square()[squares > 0] / squares[squares > 0]
                    assert tail_bound(torch.ones_like(found), found.sum().item()) > 1e-6, (
                        f"leaf {name!r} does not follow its prior, given the parents and the value"
                    )

    def same_law(self, name: str, prior: Tensor, abducted: Tensor) -> None:
        """Two samples of a leaf, compared component by component."""
        limit = SURPRISE * (2 / len(prior)) ** 0.5
        for one, other in zip(_columns(prior).unbind(1), _columns(abducted).unbind(1), strict=True):
            distance = sample_distance(one, other)
            assert distance <= limit, (
                f"leaf {name!r} does not follow its prior: distribution functions differ by {distance:.3f}"
            )

    def one_by_one(self) -> None:
        """A row alone gives what it gives among others."""
        rows = range(min(self.rows, 4))
        parents = [{name: value[[row]] for name, value in self.parents.items()} for row in rows]
        if not self.constant_rows():
            whole = self.generate(self.prior)[: len(rows)]
            parts = [
                self.mechanism.generate(parents[row], self.prior.rows(slice(row, row + 1))) for row in rows
            ]
            close(torch.cat(parts).detach(), whole, self.tolerance, "generate")
        if self.mechanism.abduction != "none" and self.mechanism.spec.kind != "constant":
            for row in rows:
                self.abducted_alone(row, parents[row])
        log_prob = self.mechanism.log_prob(self.values, self.parents)
        if log_prob is not None:
            for row in rows:
                part = self.mechanism.log_prob(self.values[[row]], parents[row])
                assert part is not None, "log_prob is None for one row alone"
                close(part, log_prob[[row]], 1e-6 * max(1.0, log_prob.abs().max().item()), "log_prob")

    @torch.no_grad()
    def abducted_alone(self, row: int, parents: dict[str, Tensor]) -> None:
        """A row's value comes back of noise abducted alone or among others: the same, where it is a point."""
        value, among = self.values[[row]], self.abducted.rows(slice(row, row + 1))
        alone = self.mechanism.abduct(value, parents, generator=self.generator()).noise
        for noise, what in ((alone, "alone"), (among, "among others")):
            made = self.mechanism.generate(parents, noise)
            close(made, value, self.tolerance, f"generate of one row, of noise abducted {what}")
        for name, leaf in alone.items() if self.mechanism.deterministic else ():
            size = max(1.0, leaf.double().abs().max().item()) if leaf.numel() else 1.0
            close(leaf, among[name], size * self.tolerance, f"abduct, leaf {name!r}")

    @torch.no_grad()
    def reading(self) -> None:
        """What is read of parents in values are values of these parents, row by row."""
        read = self.mechanism.read(self.values)
        for name, value in read.items():
            assert name in self.mechanism.parents, f"read gave {name!r}, which is no parent"
            _canonical(self.mechanism.parents[name], value, self.rows, f"read of {name!r}")
            for row in range(min(self.rows, 4)):
                alone = self.mechanism.read(self.values[[row]])[name]
                close(alone, value[[row]], 1e-4 * max(1.0, value.abs().max().item()), f"read of {name!r}")

    @torch.no_grad()
    def batches(self) -> None:
        """Rows of prior noise are independent draws of one law, however many are drawn at once."""
        generator = self.generator(5)
        independent_rows(
            lambda rows: self.mechanism.sample_noise(rows, generator=generator), self.spread()[1]
        )

    def constant_rows(self) -> bool:
        """Whether it holds one value a row, as a constant of an intervention may: then no part will do."""
        return self.mechanism.spec.kind == "constant" and len(self.mechanism.get_buffer("rows")) > 1

    def by_generator(self) -> None:
        """The same generator state, the same noise; another one, other noise; generate draws nothing."""
        again = self.mechanism.sample_noise(self.rows, generator=self.generator())
        assert _equal(again, self.prior), "sample_noise with the same seed gives other noise"
        other = self.mechanism.sample_noise(self.rows, generator=self.generator(7))
        assert not self.prior or not _equal(other, self.prior), "sample_noise ignores its generator"
        assert torch.equal(self.generate(self.prior), self.generate(self.prior)), "generate draws"
        if self.mechanism.abduction != "none":
            assert _equal(self.abduct(), self.abduct()), "abduct with the same seed gives other noise"
            changes = not _equal(self.abduct(), self.abduct(7))
            assert not (changes and self.mechanism.deterministic), "deterministic, but abduct draws"
            if not (changes or self.mechanism.deterministic):  # fine where the value leaves nothing open
                made = self.generate(self.prior)
                one, other = (
                    self.mechanism.abduct(made, self.parents, generator=self.generator(seed)).noise
                    for seed in (0, 7)
                )
                left = any(apart(leaf, self.prior[name]) > self.tolerance for name, leaf in one.items())
                assert not (left and _equal(one, other)), "abduct draws, but ignores its generator"

    def saving(self) -> None:
        """Values survive saving and loading bit for bit."""
        state = {name: tensor.contiguous() for name, tensor in self.mechanism.state_dict().items()}
        if self.constant_rows():
            return
        fresh = self.mechanism.spec.bind(self.mechanism.variable, self.mechanism.parents).eval()
        assert not shares_weights(fresh, self.mechanism), (
            "what a spec makes twice has the same weights in memory"
        )
        fresh.load_state_dict(load(save(state)))
        fresh.to(self.values.device)
        assert fresh.fitted, "a loaded mechanism must be fitted"
        abducts = self.mechanism.abduction != "none"
        with torch.no_grad():  # before it abducts anything: all that is remembered is in the noise
            for noise in (self.prior, self.abducted) if abducts else (self.prior,):
                value = fresh.generate(self.parents, noise)
                assert torch.equal(value, self.generate(noise)), "values differ after loading"
            if abducts:
                again = fresh.abduct(self.values, self.parents, generator=self.generator()).noise
                assert _equal(again, self.abducted), "noise differs after loading"
            one, other = (each.log_prob(self.values, self.parents) for each in (fresh, self.mechanism))
        assert one is other is None or (one is not None and other is not None and torch.equal(one, other)), (
            "log_prob differs after loading"
        )

    def options(self) -> None:
        """Options survive being written to a file."""
        spec = self.mechanism.spec
        if spec.kind in kinds() and spec.why_unwritable() is None and not self.constant_rows():
            assert parse_mechanism(dump_mechanism(spec)) == spec, "the written options parse to others"

    def other_dtype(self) -> None:
        """A table mechanism in float32 still gives canonical values."""
        if self.mechanism.variable.dtype != "float32":
            self.elsewhere(copy.deepcopy(self.mechanism).to(torch.float32), self.values.device)

    def other_device(self) -> None:
        """So does any mechanism on a GPU, where there is one."""
        if torch.cuda.is_available():
            self.elsewhere(copy.deepcopy(self.mechanism).to("cuda"), torch.device("cuda"))

    def elsewhere(self, mechanism: Mechanism, device: torch.device) -> None:
        """Values of a mechanism that was moved are canonical."""
        parents = {name: value.to(device) for name, value in self.parents.items()}
        generator = torch.Generator(device).manual_seed(self.seed)
        with torch.no_grad():
            noise = mechanism.sample_noise(self.rows, generator=generator)
            _canonical(mechanism.variable, mechanism.generate(parents, noise), self.rows)
            if mechanism.abduction != "none":
                noise = mechanism.abduct(self.values.to(device), parents, generator=generator).noise
                _canonical(mechanism.variable, mechanism.generate(parents, noise), self.rows)

    def gradients(self) -> None:
        """Gradients of the loss and of generated values are finite."""
        mechanism = copy.deepcopy(self.mechanism)
        wanted = [parameter for parameter in mechanism.parameters() if parameter.requires_grad]
        if mechanism.spec.training is not None and wanted:
            loss = mechanism.loss(self.values, self.parents, generator=self.generator())
            assert loss.shape == (self.rows,), f"loss must be (N,), got {tuple(loss.shape)}"
            again = mechanism.loss(self.values, self.parents, generator=self.generator())
            assert torch.equal(loss, again), "the loss with the same seed is another one"
            if loss.requires_grad:
                loss.mean().backward()
            for name, parameter in mechanism.named_parameters():
                finite = parameter.grad is None or bool(parameter.grad.isfinite().all())
                assert finite, f"the loss has a gradient that is not finite, in {name}"
        leaves = {name: _tracked(leaf) for name, leaf in self.prior.items()}
        parents = {name: _tracked(value) for name, value in self.parents.items()}
        value = mechanism.generate(parents, Noise(self.rows, leaves))
        inputs = [leaf for leaf in [*leaves.values(), *parents.values()] if leaf.requires_grad]
        if value.requires_grad and inputs:
            for gradient in torch.autograd.grad(value.sum(), inputs, allow_unused=True):
                assert gradient is None or bool(gradient.isfinite().all()), "of generate are not finite"


def _canonical(variable: Variable, value: Tensor, rows: int, what: str = "generate") -> None:
    """Values must be (N, *event), of canonical dtype, finite, and categories among the K."""
    assert tuple(value.shape) == (rows, *variable.event_shape), f"{what} gave shape {tuple(value.shape)}"
    assert value.dtype == getattr(torch, variable.dtype), f"{what} gave {value.dtype}, not {variable.dtype}"
    assert bool(value.isfinite().all()), f"{what} gave values that are not finite"
    if variable.type == "integer":
        assert torch.equal(value, value.round()), f"{what} gave numbers that are not whole"
    if variable.type == "categorical":
        assert 0 <= int(value.min()) and int(value.max()) < variable.size, f"{what} gave unknown categories"


def independent_rows(draw: Callable[[int], Mapping[str, Tensor]], many: Mapping[str, Tensor]) -> None:
    """Assert that rows of noise are independent, of one law drawn alone, by two and as ``many``, by leaf."""
    single, pairs = ([draw(rows) for _ in range(_BATCHES)] for rows in (1, 2))
    for name, leaf in many.items():
        alone, two = (_columns(torch.cat([noise[name] for noise in each])) for each in (single, pairs))
        every = _columns(leaf)
        for found, where in ((every, "among many others"), (two, "beside another")):
            distance = max(map(sample_distance, found.unbind(1), alone.unbind(1)), default=0)
            assert distance <= _RARE * (1 / len(found) + 1 / len(alone)) ** 0.5, (
                f"leaf {name!r} of a row drawn alone has another law than {where}: distribution functions "
                f"differ by {distance:.3f}"
            )
        half = len(every) // 2
        neighbours = (two[::2], two[1::2]), (every[::2], every[1::2]), (every[:half], every[half:])
        for first, second in neighbours:
            for one, other in zip(_centred_ranks(first), _centred_ranks(second), strict=True):
                for both in (one, other), (one.abs(), other.abs()):
                    correlation = torch.corrcoef(torch.stack(both))[0, 1].nan_to_num().item()
                    assert abs(correlation) <= 5 / len(one) ** 0.5, (
                        f"leaf {name!r} of rows drawn together has a rank correlation of {correlation:.2f}"
                    )


def shares_weights(one: torch.nn.Module, other: torch.nn.Module) -> bool:
    """Whether weights that a fit changes are the same in memory."""
    first, second = (
        {weight.data_ptr() for weight in each.parameters() if weight.requires_grad and weight.numel()}
        for each in (one, other)
    )
    return not first.isdisjoint(second)


def global_state() -> tuple[object, ...]:
    """What nothing may change: the random states of torch, NumPy and Python, and Pyro's stored parameters."""
    pyro = sys.modules.get("pyro")
    names = tuple(pyro.get_param_store().keys()) if pyro else ()
    numpy = [each.tobytes() if isinstance(each, np.ndarray) else each for each in np.random.get_state()]
    return torch.get_rng_state().numpy().tobytes(), *numpy, random.getstate(), names


def _columns(leaf: Tensor) -> Tensor:
    """(N, ...) to (N, at most 16) float64, spread over all."""
    columns = leaf.reshape(len(leaf), -1)
    return columns[:, :: max(1, -(-columns.shape[1] // 16))].double()


def _centred_ranks(columns: Tensor) -> list[Tensor]:
    """(N,) of each of (N, columns), from -1/2 to 1/2."""
    return [
        torch.searchsorted(column.sort().values, column) / len(column) - 0.5
        for column in columns.T.contiguous()
    ]


def _equal(one: Noise, other: Noise) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def _tracked(value: Tensor) -> Tensor:
    """A copy whose gradient is asked for, where it can have one."""
    return value.detach().clone().requires_grad_() if value.is_floating_point() else value
