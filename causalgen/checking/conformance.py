"""The laws of ``causalgen.testing``, each a method that raises AssertionError where it is broken.

Statistical laws compare distribution functions on a fixed number of draws; exact ones up to rounding, scaled
to the values: 1e-9 for tables (float64), 1e-4 for images (float32).
"""

from __future__ import annotations

import copy
from collections.abc import Callable

import torch
from safetensors.torch import load, save
from torch import Tensor

from causalgen.checking.statistics import distance_to_log_prob, is_discrete, sample_distance
from graphs.errors import CannotAbductError
from graphs.variables import Variable
from mechanisms.base import Mechanism, Noise
from mechanisms.registry import dump_mechanism, kinds, parse_mechanism

__all__ = ["Suite"]

_DRAWS, _IMAGE_DRAWS = 4000, 400
# Largest distance of distribution functions, in units of 1 / sqrt(draws): about 1 in 20,000 by chance.
_SURPRISE = 2.3


class Suite:
    """One mechanism, some rows, and the noise both abducted from them and drawn for them."""

    def __init__(self, mechanism: Mechanism, values: Tensor, parents: dict[str, Tensor], seed: int) -> None:
        self.mechanism, self.values, self.parents, self.seed = mechanism, values, parents, seed
        self.rows = len(values)
        self.prior = mechanism.sample_noise(self.rows, generator=self.generator())
        double = mechanism.variable.dtype == "float64"
        scale = values.double().abs().max().item() if double else 1.0
        self.tolerance = (1e-9 if double else 1e-4) * max(scale, 1.0)

    def laws(self) -> dict[str, Callable[[], None]]:
        """The laws that apply to this mechanism, by name."""
        laws: dict[str, Callable[[], None]] = {"interface": self.interface, "inputs": self.inputs}
        if self.mechanism.abduction == "none":
            laws["refusal"] = self.refusal
        else:
            laws |= {"round trip": self.round_trip, "noise": self.noise, "density": self.density}
            laws["change of variables"] = self.change_of_variables
        return laws | {
            "rows": self.one_by_one,
            "reading": self.reading,
            "generator": self.by_generator,
            "saving": self.saving,
            "options": self.options,
            "dtype": self.other_dtype,
            "device": self.other_device,
            "gradients": self.gradients,
        }

    def generator(self, offset: int = 0) -> torch.Generator:
        """A fresh generator where the values are."""
        return torch.Generator(self.values.device).manual_seed(self.seed + offset)

    def abduct(self, offset: int = 0) -> Noise:
        """The noise of the given rows."""
        return self.mechanism.abduct(self.values, self.parents, generator=self.generator(offset)).noise

    @torch.no_grad()
    def generate(self, noise: Noise) -> Tensor:
        """Values of the given parents."""
        return self.mechanism.generate(self.parents, noise)

    def spread(self) -> tuple[dict[str, Tensor], Noise]:
        """Prior noise for many rows, and the given parents over and over."""
        draws = _IMAGE_DRAWS if self.mechanism.variable.type == "image" else _DRAWS
        index = torch.arange(draws, device=self.values.device) % self.rows
        parents = {name: value[index] for name, value in self.parents.items()}
        return parents, self.mechanism.sample_noise(draws, generator=self.generator(1))

    def interface(self) -> None:
        """Shapes, dtypes and finite values; abducted noise has the leaves of prior noise."""
        _canonical(self.mechanism.variable, self.generate(self.prior), self.rows)
        assert self.prior.n == self.rows, f"sample_noise gave {self.prior.n} rows for {self.rows}"
        log_prob = self.mechanism.log_prob(self.values, self.parents)
        assert log_prob is None or log_prob.shape == (self.rows,), "log_prob must be (N,)"
        if self.mechanism.abduction != "none":
            prior, abducted = (
                {name: (leaf.shape, leaf.dtype) for name, leaf in noise.items()}
                for noise in (self.prior, self.abduct())
            )
            assert prior == abducted, f"prior noise has leaves {prior}, abducted noise {abducted}"

    def inputs(self) -> None:
        """Nothing that is passed in is changed."""
        before = copy.deepcopy((self.values, self.parents, self.prior.leaves))
        self.generate(self.prior)
        self.mechanism.log_prob(self.values, self.parents)
        if self.mechanism.abduction != "none":
            self.generate(self.abduct())
        values, parents, leaves = before
        assert torch.equal(values, self.values), "values were changed"
        assert all(torch.equal(parents[key], self.parents[key]) for key in parents), "parents were changed"
        assert all(torch.equal(leaves[key], self.prior[key]) for key in leaves), "noise was changed"

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
            _close(self.generate(self.abduct()), self.values, self.tolerance, "x came back changed")

    def noise(self) -> None:
        """Noise of generated values: the noise they were made from, or a draw with its law."""
        if self.mechanism.abduction == "approximate" or self.constant_rows():
            return
        parents, noise = self.spread()
        with torch.no_grad():
            value = self.mechanism.generate(parents, noise)
            abducted = self.mechanism.abduct(value, parents, generator=self.generator(2))
        for name, leaf in noise.items():
            if self.mechanism.abduction == "exact":
                tolerance = 1e-6 * max(1.0, leaf.abs().max().item())
                _close(abducted.noise[name], leaf, tolerance, f"leaf {name!r} came back changed")
            # A leaf that does not vary is what abduction remembers, such as residuals: no random variable.
            elif abducted.log_weight is None and leaf.is_floating_point() and bool((leaf != leaf[:1]).any()):
                self.same_law(name, leaf, abducted.noise[name])

    def same_law(self, name: str, prior: Tensor, abducted: Tensor) -> None:
        """Two samples of a leaf, compared component by component (at most 16, spread over all)."""
        limit = _SURPRISE * (2 / len(prior)) ** 0.5
        stride = -(-prior[0].numel() // 16)
        columns = [noise.reshape(len(noise), -1)[:, ::stride].unbind(1) for noise in (prior, abducted)]
        for one, other in zip(*columns, strict=True):
            distance = sample_distance(one, other)
            assert distance <= limit, (
                f"leaf {name!r} does not follow its prior: distribution functions differ by {distance:.3f}"
            )

    @torch.no_grad()
    def density(self) -> None:
        """Generated scalars and categories follow exp(log_prob), for the first row's parents."""
        variable = self.mechanism.variable
        if variable.event_shape != () or self.mechanism.log_prob(self.values, self.parents) is None:
            return
        parents = {name: value[:1].expand(_DRAWS, *value.shape[1:]) for name, value in self.parents.items()}
        noise = self.mechanism.sample_noise(_DRAWS, generator=self.generator(3))
        draws = self.mechanism.generate(parents, noise)

        def log_prob(values: Tensor) -> Tensor:
            first = {name: value[:1].expand(len(values), *value.shape[1:]) for name, value in parents.items()}
            result = self.mechanism.log_prob(values, first)
            assert result is not None
            return result

        distance = distance_to_log_prob(draws, log_prob, whole=variable.type == "integer")
        assert distance <= _SURPRISE / _DRAWS**0.5, (
            f"generated values do not follow log_prob: distribution functions differ by {distance:.3f}"
        )

    def change_of_variables(self) -> None:
        """log p(x | pa) + log |dx/du| is log p(u), whatever the parents."""
        leaves = list(self.prior.items())
        whole = self.mechanism.variable.type == "integer"  # whose log_prob is a probability
        if len(leaves) != 1 or self.mechanism.abduction != "exact" or not self.parents or whole:
            return
        name, leaf = leaves[0]
        if leaf[0].numel() != self.values[0].numel() or not self.values.is_floating_point():
            return
        if is_discrete(self.spread()[1][name]):
            return  # log_prob is then a probability, which no slope scales
        # The same noise in every row: what is left of the density must be the same too.
        u = leaf[:1].expand_as(leaf).clone().requires_grad_()
        x = self.mechanism.generate(self.parents, Noise(self.rows, {name: u}))
        log_prob = self.mechanism.log_prob(x.detach(), self.parents)
        if log_prob is None:
            return
        columns = x.reshape(self.rows, -1).unbind(1)
        gradients = [torch.autograd.grad(column.sum(), u, retain_graph=True)[0] for column in columns]
        jacobian = torch.stack([gradient.reshape(self.rows, -1) for gradient in gradients], 1)
        base = log_prob.detach() + torch.linalg.slogdet(jacobian).logabsdet
        _close(base, base[:1].expand_as(base), 1e-6 * max(1.0, base.abs().max().item()), "log_prob is off")

    def one_by_one(self) -> None:
        """A row alone gives what it gives among others."""
        rows = range(min(self.rows, 4))
        parents = [{name: value[[row]] for name, value in self.parents.items()} for row in rows]
        if not self.constant_rows():
            whole = self.generate(self.prior)[: len(rows)]
            parts = [
                self.mechanism.generate(parents[row], self.prior.rows(slice(row, row + 1))) for row in rows
            ]
            _close(torch.cat(parts).detach(), whole, self.tolerance, "generate")
        if self.mechanism.abduction == "exact":
            whole_noise = self.abduct()
            for row in rows:
                part = self.mechanism.abduct(self.values[[row]], parents[row], generator=self.generator())
                for name, leaf in part.noise.items():
                    _close(leaf, whole_noise[name][[row]], self.tolerance, f"abduct, leaf {name!r}")
        log_prob = self.mechanism.log_prob(self.values, self.parents)
        if log_prob is not None:
            for row in rows:
                part = self.mechanism.log_prob(self.values[[row]], parents[row])
                assert part is not None, "log_prob is None for one row alone"
                _close(part, log_prob[[row]], 1e-6 * max(1.0, log_prob.abs().max().item()), "log_prob")

    @torch.no_grad()
    def reading(self) -> None:
        """What is read of parents in values are values of these parents, row by row."""
        read = self.mechanism.read(self.values)
        for name, value in read.items():
            assert name in self.mechanism.parents, f"read gave {name!r}, which is no parent"
            _canonical(self.mechanism.parents[name], value, self.rows, f"read of {name!r}")
            for row in range(min(self.rows, 4)):
                alone = self.mechanism.read(self.values[[row]])[name]
                _close(alone, value[[row]], 1e-4 * max(1.0, value.abs().max().item()), f"read of {name!r}")

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

    def saving(self) -> None:
        """Values survive saving and loading bit for bit."""
        state = {name: tensor.contiguous() for name, tensor in self.mechanism.state_dict().items()}
        if self.constant_rows():
            return
        fresh = self.mechanism.spec.bind(self.mechanism.variable, self.mechanism.parents).eval()
        fresh.load_state_dict(load(save(state)))
        fresh.to(self.values.device)
        assert fresh.fitted, "a loaded mechanism must be fitted"
        with torch.no_grad():
            value = fresh.generate(self.parents, self.prior)
        assert torch.equal(value, self.generate(self.prior)), "values differ after loading"

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


def _close(got: Tensor, expected: Tensor, tolerance: float, what: str) -> None:
    difference = (got.double() - expected.double()).abs().max().item() if got.numel() else 0.0
    assert difference <= tolerance, f"{what}: differs by {difference:.3g}, at most {tolerance:.3g} expected"


def _equal(one: Noise, other: Noise) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def _tracked(value: Tensor) -> Tensor:
    """A copy whose gradient is asked for, where it can have one."""
    return value.detach().clone().requires_grad_() if value.is_floating_point() else value
