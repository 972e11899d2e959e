"""Weights: tensors by name as safetensors, and into the module that they are of, each checked.

A module takes a state of exactly its tensors, in their shapes. Floating-point numbers may have another
precision; any other type is refused, where torch would convert it without a word.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor, nn

from graphs.errors import CheckpointError

__all__ = ["load_weights", "read_tensors", "tensor_bytes"]


def tensor_bytes(state: Mapping[str, Tensor], metadata: dict[str, str] | None = None) -> bytes:
    """Tensors by name as a safetensors file."""
    # Clones: safetensors refuses views of one memory, and views of a larger one are written whole.
    return save({name: each.detach().cpu().contiguous().clone() for name, each in state.items()}, metadata)


def read_tensors(data: bytes, path: Path) -> dict[str, Tensor]:
    """The tensors of a safetensors file's content."""
    try:
        return load(data)
    except (SafetensorError, KeyError, ValueError, RuntimeError) as error:
        raise CheckpointError(f"Cannot read {path}: {type(error).__name__}: {error}.") from error


def load_weights(module: nn.Module, state: Mapping[str, Tensor], what: str) -> None:
    """Load a state into its module."""
    try:
        module.load_state_dict(dict(state))
    except RuntimeError as error:
        raise CheckpointError(f"{what} do not fit it: {error}.") from error
    for name, own in module.state_dict().items():
        if (given := state.get(name)) is None:  # torch takes some counters for granted
            raise CheckpointError(f"{what} do not fit it: {name!r} is missing.")
        floats = own.is_floating_point() and given.is_floating_point()
        if own.shape != given.shape or not (floats or own.dtype == given.dtype):
            raise CheckpointError(
                f"{what} do not fit it: {name!r} is {_described(own)}, got {_described(given)}."
            )


def _described(tensor: Tensor) -> str:
    return f"{str(tensor.dtype).removeprefix('torch.')} of shape {tuple(tensor.shape)}"
