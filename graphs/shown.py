"""What notebooks show: the one hook by which models and results reach their pictures, on a floor above."""

from __future__ import annotations

from importlib import import_module

__all__ = ["Shown"]


class Shown:
    """Shown in notebooks as ``causalgen.plotting.notebook`` says, which loads when a notebook first asks."""

    __slots__ = ()

    def _repr_html_(self) -> str:
        """A piece of a page, every name escaped."""
        return str(import_module("causalgen.plotting.notebook").html(self))
