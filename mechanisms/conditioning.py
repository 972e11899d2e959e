"""Parents as the context of a network: categories one-hot, numbers standardised, images as features.

    categorical parent, K categories   -> K columns, one-hot
    integer parent                     -> 1 column, as a continuous scalar
    continuous parent, shape (d...)    -> prod(d) columns, (value - mean) / std over the training rows
    image parent, with an encoder      -> the encoder's features, trained with the network they are for

Columns follow the parents' declared order. An image without an encoder is refused; diffusion takes image
parents otherwise, as channels.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import prod
from typing import cast

import torch
from torch import Tensor, nn

from graphs.errors import DomainError, MechanismError
from graphs.variables import Categorical, Continuous, Image, Integer, Variable
from mechanisms.encoders import EncodedImage, Encoder

__all__ = ["Conditioning", "rounding", "standardisation"]

_FARTHEST = 1e6
"""Standard deviations from the mean beyond which a value of a parent of a float32 network is refused."""


def rounding(rows: Tensor) -> Tensor:
    """What rounding may leave of numbers of this size, (width,) above 0; rows are (N, width)."""
    return 16 * torch.finfo(rows.dtype).eps * rows.abs().amax(0).clamp(min=1e-280)


def standardisation(rows: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation, (width,), of the columns of (N, width); 1 for that of a constant one."""
    mean, std = rows.mean(0), rows.std(0, correction=0)
    # Rounding in the mean gives a constant column a tiny deviation, which would blow up noise.
    return mean, torch.where(std <= rounding(rows), torch.ones_like(std), std)


class Conditioning(nn.Module):
    """Parents by name -> context, (N, width), of ``dtype``.

    ``slices`` are the columns of each parent, by name. ``mean``, (width,), is subtracted from each column,
    which is then divided by ``std``: 0 and 1 for one-hot columns and features.

    Raises:
        MechanismError: a parent is an image without an encoder.
    """

    mean: Tensor
    std: Tensor
    _context: Tensor

    def __init__(
        self,
        parents: Mapping[str, Variable],
        dtype: torch.dtype = torch.float64,
        encoders: Mapping[str, Encoder] | None = None,
    ) -> None:
        super().__init__()
        self.variables = dict(parents)
        self.slices: dict[str, slice] = {}
        encoders = encoders or {}
        self._images: dict[str, int] = {}
        # By number: a parent's name may be one that a module's attributes cannot have.
        self.encoded = nn.ModuleList()
        start = 0
        for name, variable in self.variables.items():
            if isinstance(variable, Image) and name in encoders:
                self._images[name] = len(self.encoded)
                self.encoded.append(EncodedImage(variable, encoders[name], dtype))
                stop = start + encoders[name].features
            else:
                stop = start + _columns(name, variable)
            self.slices[name] = slice(start, stop)
            start = stop
        self.width = start
        self.register_buffer("_context", torch.empty(0, dtype=dtype), persistent=False)  # follows ``to``
        # In float64 whatever the context is: in float32 the mean of 1e9 +- 1 is 32 deviations off.
        self.register_buffer("mean", torch.zeros(start, dtype=torch.float64))
        self.register_buffer("std", torch.ones(start, dtype=torch.float64))

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of the context."""
        return self._context.dtype

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Conditioning:
        try:
            return super()._apply(fn, recurse)
        except TypeError:  # a device without float64, as mps: images are fitted there all the same
            self.mean, self.std = self.mean.float(), self.std.float()
            return super()._apply(fn, recurse)

    def prepare(self, parents: Mapping[str, Tensor]) -> None:
        """Take mean and std of the columns of numbers, and of pixels, from all training rows."""
        for name, variable in self.variables.items():
            if name in self._images:
                self._encoder(name).measure_pixels(self._checked(name, parents))
            elif isinstance(variable, Continuous | Integer):
                mean, std = standardisation(self._columns_of(name, parents).double())
                self.mean[self.slices[name]] = mean.to(self.mean)
                self.std[self.slices[name]] = std.to(self.std)

    def forward(
        self, parents: Mapping[str, Tensor], rows: int | None = None, *, images: bool = True
    ) -> Tensor:
        """The context (N, width) of N rows, differentiable in the parents that are no categories.

        ``rows`` is N, which only a root cannot tell from its parents. Parents (N, *event) are in canonical
        encoding; further names are ignored. Without ``images`` zeros stand in their place: before training.

        Raises:
            MechanismError: a parent is missing or has the wrong shape.
            DomainError: a value that float32 networks cannot take.
        """
        if not self.variables:
            return self.mean.new_zeros(rows or 0, 0, dtype=self.dtype)
        columns = [self._columns_of(name, parents, images) for name in self.variables]
        # Standardised in float64: a year near 2000 keeps its digits.
        context = columns[0] if len(columns) == 1 else torch.cat(columns, dim=1)
        context = (context - self.mean) / self.std
        # Training rows are near by construction, and asking would make each step wait for the device.
        if self.dtype == torch.float32 and not torch.is_grad_enabled():
            self._refuse_far(context, parents)
        return context.to(self.dtype)

    def _refuse_far(self, context: Tensor, parents: Mapping[str, Tensor]) -> None:
        """Refuse values at which a float32 network is left with NaN or noise."""
        if not context.numel() or bool(context.abs().amax() <= _FARTHEST):
            return
        for name, part in self.slices.items():
            columns = context[:, part].abs()
            if name in self._images or bool((columns <= _FARTHEST).all()):
                continue
            row, column = (~(columns <= _FARTHEST)).nonzero()[0].tolist()
            value, apart = parents[name][row].reshape(-1)[column].item(), columns[row, column].item()
            raise DomainError(
                f"Parent {name!r}: row {row} is {value:g}, which is {apart:.1g} standard deviations from the "
                f"mean in fitting; expected at most {_FARTHEST:.0e}. Check its unit."
            )

    def _columns_of(self, name: str, parents: Mapping[str, Tensor], images: bool = True) -> Tensor:
        """One parent's columns before standardising, (N, columns)."""
        variable, value = self.variables[name], self._checked(name, parents)
        if name in self._images:
            width = self.slices[name].stop - self.slices[name].start
            if images:
                return self._encoder(name)(value)
            return self.mean.new_zeros(len(value), width, dtype=self.dtype)
        if isinstance(variable, Categorical):
            return nn.functional.one_hot(value.long(), variable.size).to(self.dtype)
        return value.reshape(len(value), self.slices[name].stop - self.slices[name].start)

    def _encoder(self, name: str) -> EncodedImage:
        """Of an image parent."""
        return cast(EncodedImage, self.encoded[self._images[name]])

    def _checked(self, name: str, parents: Mapping[str, Tensor]) -> Tensor:
        """One parent's value, of the right shape."""
        if name not in parents:
            raise MechanismError(f"The value of parent {name!r} is missing; got {sorted(parents)}.")
        variable, value = self.variables[name], parents[name]
        if tuple(value.shape[1:]) != tuple(variable.event_shape) or value.ndim == 0:
            expected = ", ".join(["N", *map(str, variable.event_shape)])
            raise MechanismError(f"Parent {name!r} must have shape ({expected}), got {tuple(value.shape)}.")
        return value


def _columns(name: str, variable: Variable) -> int:
    """How many context columns a parent takes."""
    if isinstance(variable, Categorical):
        return variable.size
    if isinstance(variable, Continuous | Integer):
        return prod(variable.event_shape)
    raise MechanismError(
        f"Parent {name!r} is an image, which this mechanism cannot read. Those of numbers and categories "
        "that can are 'flow', 'categorical', 'auto', and 'additive' with function: network."
    )
