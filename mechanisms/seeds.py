"""Randomness by seeds alone: independent streams by name, for libraries too that know no generator.

    keyed_seed(seed, "fit", node, "order", epoch)

The stream depends on the keys alone, never on how many numbers others drew before it, so work may be
cut, resumed and reordered without changing an answer.

Pyro's and torch's distributions, first weights and layers such as dropout draw from the global random state,
which is the whole process's: lent and put back (``torch.random.fork_rng``), all threads would share it.
Instead a mode of torch that holds for one thread (``torch.overrides.TorchFunctionMode``) gives a generator to
functions

    that take one              torch.normal, Tensor.exponential_, torch.nn.init.normal_, ...
    that can be made of those  dropout, rand_like, randn_like
    of any other kind          recurrent layers, dropout of channels or in attention, ...: none, but the
                               global state, lent for this one call, under ``ALONE``
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from contextvars import ContextVar
from hashlib import blake2b
from typing import Any, cast

import torch
from torch import Generator, Tensor, nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode

__all__ = [
    "ALONE",
    "GlobalDraws",
    "OwnLock",
    "SharedDraws",
    "drawn_for_rows",
    "global_draws_from",
    "gumbels",
    "keyed_generator",
    "keyed_seed",
    "layers_apart",
    "normals",
    "seed_layers",
    "uniforms",
]

ALONE = threading.RLock()
"""Held while a state of the whole process is lent: torch's random state, or Pyro's handlers and checks.
A fork waits for it, so that no child starts with a state that was lent."""

if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=ALONE.acquire, after_in_parent=ALONE.release, after_in_child=ALONE.release)


class OwnLock:
    """An object's lock, which its copies and pickles do not share: theirs is a new one."""

    def __init__(self) -> None:
        self._lock = threading.RLock()

    def __enter__(self) -> None:
        self._lock.acquire()

    def __exit__(self, *_: object) -> None:
        self._lock.release()

    def __reduce__(self) -> tuple[type[OwnLock], tuple[()]]:
        """Made anew."""
        return OwnLock, ()


def keyed_seed(seed: int, *keys: str | int) -> int:
    """A 63-bit seed that depends on ``seed`` and the keys, the same on every machine."""
    # A node may be named by a subclass, as numpy's strings are; it is the same node.
    told = [f"str:{str.__str__(key)}" if isinstance(key, str) else f"int:{key:d}" for key in (seed, *keys)]
    text = "\x1f".join(told)
    return int.from_bytes(blake2b(text.encode(), digest_size=8).digest(), "big") >> 1


def keyed_generator(seed: int, *keys: str | int, device: torch.device | str = "cpu") -> torch.Generator:
    """A fresh generator on ``device`` seeded by ``keyed_seed``."""
    return torch.Generator(device).manual_seed(keyed_seed(seed, *keys))


def normals(shape: tuple[int, ...], generator: Generator) -> Tensor:
    """Standard normals, float64, on the generator's device."""
    return torch.randn(shape, generator=generator, dtype=torch.float64, device=generator.device)


def uniforms(shape: tuple[int, ...], generator: Generator) -> Tensor:
    """Uniforms on [0, 1), float64, on the generator's device."""
    return torch.rand(shape, generator=generator, dtype=torch.float64, device=generator.device)


def gumbels(shape: tuple[int, ...], generator: Generator) -> Tensor:
    """Standard Gumbels, float64: the argmax of log weights plus Gumbels is a draw (Gumbel-max).

    They are -log of exponentials, which unlike a uniform's double log keeps both tails.
    """
    exponential = torch.empty(shape, dtype=torch.float64, device=generator.device)
    return -exponential.exponential_(generator=generator).clamp(min=torch.finfo(torch.float64).tiny).log()


class SharedDraws(Generator):
    """What a process draws for its share of a batch: from this generator alone, or by ``drawn_for_rows``."""

    batch: Generator  # for the whole batch, and at the same point in every process
    rows: int  # of the whole batch
    own: slice  # which of them are this process's


def drawn_for_rows(
    draw: Callable[[int, Generator], Mapping[str, Tensor]], n: int, generator: Generator
) -> Mapping[str, Tensor]:
    """``draw(n, generator)``: tensors of n rows each, by name.

    Strata and permutations depend on the number of rows. Where processes share a batch (``SharedDraws``),
    each draws for all of it and keeps its own rows: together they have what one process would have drawn.
    """
    if not isinstance(generator, SharedDraws):
        return draw(n, generator)
    whole = draw(generator.rows, generator.batch)
    return {name: each[generator.own] for name, each in whole.items()}


class GlobalDraws(TorchFunctionMode):
    """A context in which this thread draws by ``seed`` what it would draw from the global random state.

    >>> with GlobalDraws(0):
    ...     draw = torch.distributions.Gamma(2.0, 1.0).sample()
    """

    def __init__(self, seed: int) -> None:
        super().__init__()
        self.seed(seed)

    def seed(self, seed: int) -> None:
        """Begin anew."""
        self._seed = seed
        self._generators: dict[torch.device, Generator] = {}

    def drawn(self) -> dict[torch.device, bytes]:
        """What has been drawn so far, to be compared: the state of each device's generator."""
        return {device: each.get_state().numpy().tobytes() for device, each in self._generators.items()}

    def __torch_function__(
        self,
        func: Any,
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        options, name = dict(kwargs or {}), getattr(func, "__name__", "")
        if name in _TAKES_GENERATOR:
            if options.get("generator") is None:
                options["generator"] = self._generator(args, options)
        elif func in _MADE_OF_OTHERS:
            return _MADE_OF_OTHERS[func](self._generator(args, options), *args, **options)
        elif name in _DRAWS and not _idle(name, args, options):
            with _global_state(self._generator(args, options)):
                return func(*args, **options)
        return func(*args, **options)

    def _generator(self, args: Sequence[Any], options: Mapping[str, Any]) -> Generator:
        """Of the device that the numbers are for, as each has its own global state."""
        tensors = (each.device for each in (*args, *options.values()) if isinstance(each, Tensor))
        device = torch.device(options.get("device") or next(tensors, torch.get_default_device()))
        if device.type == "meta":  # where there are no numbers
            return Generator()
        if device not in self._generators:
            self._generators[device] = torch.Generator(device).manual_seed(self._seed)
        return self._generators[device]


_TAKES_GENERATOR = frozenset(
    "_sample_dirichlet _standard_gamma bernoulli bernoulli_ binomial cauchy_ exponential_ geometric_ "
    "kaiming_normal_ kaiming_uniform_ log_normal_ multinomial normal normal_ poisson rand randint randn "
    "random_ randperm trunc_normal_ uniform_ xavier_normal_ xavier_uniform_".split()
)

_DRAWS = frozenset(
    "alpha_dropout alpha_dropout_ dropout dropout1d dropout2d dropout3d dropout_ feature_alpha_dropout "
    "feature_alpha_dropout_ feature_dropout feature_dropout_ fractional_max_pool2d_with_indices "
    "fractional_max_pool3d_with_indices gru gumbel_softmax lstm multi_head_attention_forward randint_like "
    "rnn_relu rnn_tanh rrelu rrelu_ scaled_dot_product_attention".split()
)


def _idle(name: str, args: Sequence[Any], options: Mapping[str, Any]) -> bool:
    """Whether one of ``_DRAWS`` does not draw now."""
    if name == "scaled_dot_product_attention":
        return len(args) < 5 and not options.get("dropout_p")
    return options.get("training") is False


def _dropout(
    generator: Generator, input: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False
) -> Tensor:
    if not training or p == 0:
        return input
    kept = torch.empty_like(input).bernoulli_(1 - p, generator=generator)
    if p < 1:
        kept.div_(1 - p)
    return input.mul_(kept) if inplace else input * kept


_MADE_OF_OTHERS: dict[Any, Callable[..., Tensor]] = {
    functional.dropout: _dropout,
    torch.rand_like: lambda g, input, **to: torch.empty_like(input, **to).uniform_(generator=g),
    torch.randn_like: lambda g, input, **to: torch.empty_like(input, **to).normal_(generator=g),
}


@contextmanager
def _global_state(generator: Generator) -> Iterator[None]:
    """The global state of a generator's device, seeded by a draw of it; as before when the block ends."""
    cuda = [generator.device] if generator.device.type == "cuda" else []
    with ALONE, torch.random.fork_rng(devices=cuda):
        seed = _drawn_seed(generator)
        torch.default_generator.manual_seed(seed)
        if cuda:
            torch.cuda.manual_seed(seed)
        yield


def _drawn_seed(generator: Generator) -> int:
    return int(torch.randint(2**62, (), generator=generator, device=generator.device))


def global_draws_from(generator: Generator) -> GlobalDraws:
    """``GlobalDraws`` by a seed that ``generator`` draws."""
    return GlobalDraws(_drawn_seed(generator))


_LAYERS: ContextVar[GlobalDraws | None] = ContextVar("_LAYERS", default=None)


@contextmanager
def layers_apart(module: nn.Module) -> Iterator[None]:
    """A context in which layers such as dropout draw what ``seed_layers`` last said, in this thread."""
    draws = GlobalDraws(0)
    token = _LAYERS.set(draws)
    try:
        # The mode costs a microsecond or two a call, which a step of a small table node would feel.
        with draws if any(map(_may_draw, module.modules())) else nullcontext():
            yield
    finally:
        _LAYERS.reset(token)


def seed_layers(seed: int) -> None:
    """Seed what layers such as dropout draw within ``layers_apart``, on any device."""
    if draws := _LAYERS.get():
        draws.seed(seed)


def _may_draw(layer: nn.Module) -> bool:
    """Whether a layer may draw: torch's by its options, anything that is not known to build on these."""
    if type(layer).__module__.split(".")[0] not in ("torch", "mechanisms", "causalgen", "diffusers"):
        return True
    if isinstance(layer, nn.RReLU | nn.FractionalMaxPool2d | nn.FractionalMaxPool3d):
        return True
    if isinstance(layer, nn.MultiheadAttention | nn.RNNBase):
        return cast(float, layer.dropout) > 0
    if isinstance(layer, nn.Dropout | nn.Dropout1d | nn.Dropout2d | nn.Dropout3d):
        return layer.p > 0
    return isinstance(layer, nn.AlphaDropout | nn.FeatureAlphaDropout) and layer.p > 0
