"""The laws of backbones, encoders and noise families, and what the checks of all parts share.

Each ``check_...`` takes a part with its options and raises AssertionError where it breaks a law; the message
begins with the law's name.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from math import log
from typing import Any

import torch
from safetensors.torch import load, save
from torch import Tensor, nn

from causalgen.checking.conformance import global_state, independent_rows, shares_weights
from causalgen.checking.density_conformance import SURPRISE, apart
from causalgen.checking.statistics import distance_to_density, distance_to_whole
from graphs import strict_yaml
from graphs.errors import CausalgenError, MechanismError
from mechanisms.diffusion.backbones import BACKBONES, Backbone
from mechanisms.encoders import ENCODERS, Encoder
from mechanisms.networks import reproducible_initialisation
from mechanisms.options import take_weights
from mechanisms.registry import Registry, dump_options
from mechanisms.tables.noise_families import FAMILIES, NoiseLaw, noise_law

__all__ = ["Laws", "check_backbone", "check_encoder", "check_noise_law", "check_options", "hold"]

_DRAWS = 4000

Laws = dict[str, Callable[[], None]]
"""Laws by name, in the order they are checked."""


def check_backbone(backbone: Backbone, image: tuple[int, int, int] = (1, 16, 16), *, seed: int = 0) -> None:
    """Hold a denoising network to its laws, with and without image parents and a context.

    Args:
        backbone: its options.
        image: channels, height and width, of a size that it takes.
        seed: of weights and inputs.

    Raises:
        AssertionError: the message begins with the law's name.
    """
    channels, height, width = image
    draw = torch.Generator().manual_seed(seed)

    def network(extra: int, context: int) -> _Network:
        inputs = {
            "x": torch.randn(4, channels + extra, height, width, generator=draw),
            "sigma": torch.tensor([0.05, 0.5, 2.0, 20.0]),
            "context": torch.randn(4, context, generator=draw),
        }
        return _Network(lambda: backbone.build(channels, extra, context), inputs, (4, *image), draw)

    laws = _size_laws(backbone, height, width)
    laws |= {f"{name}, no parents": law for name, law in network(0, 0).laws().items()}
    laws |= network(2, 5).laws() | {"sixteen bits": network(2, 5).sixteen_bits}

    def wider() -> None:
        """Weights of a narrower context serve a wider one, whose further columns change nothing yet."""
        narrow, wide = network(2, 5), network(2, 8)
        try:
            take_weights("", wide.network, narrow.network)
        except MechanismError:  # so says whoever asks for it
            return
        context = torch.cat([narrow.inputs["context"], wide.inputs["context"][:, 5:]], 1)
        found, expected = wide.out({**narrow.inputs, "context": context}), narrow.out()
        assert apart(found, expected) < 1e-4 * max(1.0, expected.abs().max().item()), (
            "other inputs follow the context where it is read: let its columns be the last"
        )

    laws["wider context"] = wider
    hold("backbone", backbone, laws | {"options": lambda: check_options(BACKBONES, backbone)})


def check_encoder(encoder: Encoder, image: tuple[int, int, int] = (1, 16, 16), *, seed: int = 0) -> None:
    """Hold the network of an anticausal predictor to its laws; arguments as of ``check_backbone``."""
    draw = torch.Generator().manual_seed(seed)
    inputs = {"x": torch.randn(4, *image, generator=draw), "sigma": torch.tensor([0.05, 0.5, 2.0, 20.0])}
    network = _Network(lambda: encoder.build(image[0]), inputs, (4, encoder.features), draw)
    laws = _size_laws(encoder, *image[1:]) | network.laws()
    hold("encoder", encoder, laws | {"options": lambda: check_options(ENCODERS, encoder)})


def check_noise_law(law: NoiseLaw, *, seed: int = 0) -> None:
    """Hold a noise family, with some parameters, to its laws: try several.

    Args:
        law: as ``noise_law({"normal": [0, 1]})`` makes it.
        seed: of the draws.

    Raises:
        AssertionError: the message begins with the law's name.
    """
    generator = torch.Generator()
    draws = law.sample(_DRAWS, generator.manual_seed(seed))

    def interface() -> None:
        """(n,) float64 draws, finite and within the support, of which they are the nearest numbers."""
        assert draws.shape == (_DRAWS,) and draws.dtype == torch.float64, f"{draws.shape}, {draws.dtype}"
        low, high = law.bounds()
        assert bool(draws.isfinite().all()) and low <= draws.min() and draws.max() <= high, (
            f"draws from {draws.min():g} to {draws.max():g}, but the support is {low:g} to {high:g}"
        )
        assert torch.equal(law.nearest(draws), draws) and bool(law.supports(draws).all()), "off the support"
        assert law.scale >= 0, f"scale must not be negative, got {law.scale}"

    def by_generator() -> None:
        """The generator alone decides."""
        assert torch.equal(draws, law.sample(_DRAWS, generator.manual_seed(seed))), "another draw"
        other = law.sample(_DRAWS, generator.manual_seed(seed + 1))
        assert len(draws.unique()) == 1 or not torch.equal(draws, other), "the generator is not used"
        independent_rows(lambda rows: {law.name: law.sample(rows, generator)}, {law.name: draws})

    def density() -> None:
        """Draws follow exp(log_prob), and a finite support has all probability."""
        if law.discrete:
            distance = distance_to_whole(draws, law.log_prob)
        else:  # integrated between draws: leave the ends, where it may be infinite or draws far apart
            kept = draws.sort().values[20:-20]
            share = log(len(kept) / _DRAWS)
            distance = distance_to_density(kept, lambda values: law.log_prob(values) - share) - 40 / _DRAWS
        assert distance <= SURPRISE / _DRAWS**0.5, f"distribution functions differ by {distance:.3f}"
        for (low, high), where in zip(beyond(), ("below", "above"), strict=True):
            points = low + (high - low) * (torch.arange(10_000, dtype=torch.float64) + 0.5) / 10_000
            mass = (high - low) * law.log_prob(points).exp().mean().item()
            assert mass < 0.01, (
                f"log_prob gives {mass:.3g} {where} all draws, from {low:g} to {high:g}: let support "
                "be where it has a density"
            )
        if law.finite_support is not None:
            total = law.log_prob(law.finite_support).exp().sum().item()
            assert abs(total - 1) < 1e-6, f"the probabilities of its finite support add up to {total:g}"

    def beyond() -> tuple[tuple[float, float], tuple[float, float]]:
        """Below and above all draws as far as these lie apart, or as the support reaches."""
        low, high = draws.min().item(), draws.max().item()
        least, most = law.bounds()
        return (max(least, 2 * low - high), low), (high, min(most, 2 * high - low))

    def quantiles() -> None:
        """icdf is the inverse of cdf, where Pyro has both."""
        shares = torch.linspace(0.05, 0.95, 19, dtype=torch.float64)
        try:
            found = law.distribution().cdf(law.distribution().icdf(shares))
        except NotImplementedError:
            return
        assert law.discrete or apart(found, shares) < 1e-6, "cdf(icdf(q)) is not q"

    def name() -> None:
        """The written law is read as the same one."""
        if FAMILIES.provides(law.family):
            _assert_survives(law, {law.name: list(law.parameters)}, noise_law)

    laws: Laws = {"interface": interface, "generator": by_generator, "density": density}
    hold("noise family", law, laws | {"quantiles": quantiles, "options": name}, kind=law.name)


class _Network:
    """A network, made anew on demand, and inputs of four rows."""

    def __init__(
        self,
        build: Callable[[], nn.Module],
        inputs: dict[str, Tensor],
        shape: tuple[int, ...],
        draw: torch.Generator,
    ) -> None:
        self.build, self.inputs, self.shape = build, inputs, shape
        self.network = self.fresh()
        # Away from initial weights, since some layers start at zero.
        for parameter in self.network.parameters():
            parameter.data += 0.1 * torch.randn(parameter.shape, generator=draw)

    def laws(self) -> Laws:
        """The laws of a network."""
        laws: Laws = {"interface": self.interface, "rows": self.rows, "sensitivity": self.sensitivity}
        return laws | {"gradients": self.gradients, "saving": self.saving}

    def fresh(self) -> nn.Module:
        """Built as a mechanism builds it."""
        with reproducible_initialisation():
            return self.build().eval()

    @torch.no_grad()
    def out(self, changed: Mapping[str, Tensor] | None = None, network: nn.Module | None = None) -> Tensor:
        """The output, without gradients."""
        return (network or self.network)(*{**self.inputs, **(changed or {})}.values())

    def interface(self) -> None:
        """Shape, dtype, finite values; the same twice; inputs are not changed; weights are reproducible."""
        before = {name: value.clone() for name, value in self.inputs.items()}
        out = self.out()
        assert tuple(out.shape) == self.shape, f"gave shape {tuple(out.shape)}, expected {self.shape}"
        assert out.dtype == torch.float32, f"gave {out.dtype}"
        assert bool(out.isfinite().all()), "gave values that are not finite"
        assert torch.equal(out, self.out()), "the same inputs give another output"
        assert all(torch.equal(before[name], self.inputs[name]) for name in before), "inputs are changed"
        built, again = self.fresh(), self.fresh()
        assert not shares_weights(built, again), "what is built twice has the same weights in memory"
        one, other = built.state_dict(), again.state_dict()
        assert all(torch.equal(one[name], other[name]) for name in one), (
            "initial weights are not reproducible"
        )

    def rows(self) -> None:
        """A row alone gives what it gives among others."""
        whole = self.out()
        for row in range(2):
            alone = self.out({name: value[[row]] for name, value in self.inputs.items()})
            assert apart(alone, whole[[row]]) < 1e-4 * max(1.0, whole.abs().max().item()), (
                f"row {row} differs"
            )

    def sensitivity(self) -> None:
        """The output depends on every input."""
        for name, value in self.inputs.items():
            moved = value.flip(0)
            assert not value.numel() or apart(self.out({name: moved}), self.out()) > 1e-6, f"ignores {name}"

    def gradients(self) -> None:
        """Gradients in the image and in the weights are finite."""
        x = self.inputs["x"].clone().requires_grad_()
        network = copy.deepcopy(self.network).requires_grad_()
        network(*{**self.inputs, "x": x}.values()).square().mean().backward()
        assert x.grad is not None and bool(x.grad.isfinite().all() and x.grad.any()), (
            "no gradient in the image"
        )
        for name, parameter in network.named_parameters():
            assert parameter.grad is None or bool(parameter.grad.isfinite().all()), f"not finite in {name}"

    def saving(self) -> None:
        """The saved state in a new network gives the same output."""
        state = {name: tensor.contiguous() for name, tensor in self.network.state_dict().items()}
        fresh = self.fresh()
        fresh.load_state_dict(load(save(state)))
        assert torch.equal(self.out(network=fresh), self.out()), "the output differs after loading"

    def sixteen_bits(self) -> None:
        """With weights and inputs of bfloat16, but levels of float32, it gives nearly the same."""
        half = {name: value.bfloat16() for name, value in self.inputs.items() if name != "sigma"}
        try:
            out = self.out(half, copy.deepcopy(self.network).bfloat16())
        except RuntimeError as error:
            raise AssertionError(f"cast what it makes of levels to the dtype of x: {error}") from error
        assert out.dtype == torch.bfloat16, f"gave {out.dtype}"
        assert apart(out, self.out()) < 0.1 * max(1.0, self.out().abs().max().item()), "gave another output"


def _size_laws(part: Backbone | Encoder, height: int, width: int) -> Laws:
    def size() -> None:
        """It takes the size given, and refuses another by a MechanismError alone."""
        part.check_size(height, width)
        try:
            part.check_size(1, 1)
        except MechanismError:
            return

    return {"size": size}


def hold(what: str, part: object, laws: Mapping[str, Callable[[], None]], kind: str = "") -> None:
    """Run the laws under their names; the global random state stays as it is."""
    kind = kind or getattr(part, "kind", type(part).__name__)
    before = global_state()
    for name, law in laws.items():
        try:
            law()
        except AssertionError as error:
            raise AssertionError(f"Law {name!r}, {what} {kind!r}: {error}") from error
    assert before == global_state(), f"Law 'generator', {what} {kind!r}: draws globally."


def check_options(registry: Registry[Any], part: Any) -> None:
    """Options survive being written to a file, where the kind is registered."""
    if registry.provides(part):
        _assert_survives(part, dump_options(part), registry.parse)


def _assert_survives(part: object, options: dict[str, Any], parse: Callable[[Any], object]) -> None:
    text = strict_yaml.dump(options)
    try:
        found = parse(strict_yaml.load(text, "written")[0])
    except (CausalgenError, ValueError) as error:
        raise AssertionError(f"what is written cannot be read: {text}{error}") from error
    assert found == part, f"what is written is read as {found!r}: {text}"
