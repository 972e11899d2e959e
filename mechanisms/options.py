"""Options shared by mechanism specs: ``training`` written in part keeps the rest of the mechanism's own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

from pydantic import Field, field_validator

from mechanisms.base import MechanismSpec
from mechanisms.training import Training

__all__ = ["Hidden", "TrainedSpec"]

Hidden = Annotated[tuple[Annotated[int, Field(ge=1, le=16384)], ...], Field(min_length=1, max_length=16)]
"""Widths of the hidden layers of a network; at least one."""


class TrainedSpec(MechanismSpec, frozen=True):
    """A spec whose ``training`` has a default; ``training: {epochs: 5}`` changes the epochs alone."""

    @field_validator("training", mode="before")
    @classmethod
    def _fill_training(cls, value: object) -> object:
        default = cls.model_fields["training"].default
        if isinstance(value, Mapping) and isinstance(default, Training):
            return {**default.model_dump(), **value}
        return value
