"""The README of saved judges: what they are, how they were trained, how good they are."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import cast

from torch import nn

from causalgen.metrics.evaluators.judges import Judges

__all__ = ["card_text"]

_USES = {
    "classifier": "effectiveness; its features: FD",
    "autoencoders": "one for each class, and one for all: IM1, IM2",
    "variational": "CLD",
    "regressor": "effectiveness on numbers",
}


def card_text(judges: Judges, data: str | None = None, command: str | None = None) -> str:
    """The card, in Markdown.

    Args:
        judges: trained.
        data: what the data are, where they come from, and their licence.
        command: how they were trained.
    """
    asked = "Say here what the data are, where they come from, and their licence."
    lines = [f"# Judges of {judges.name}", "", f"They read {judges.roles.describe()}, pixels in [0, 1]."]
    lines += ["They score counterfactual images, and never guide any.", "", "## Networks", ""]
    lines += [*_table(judges), "", "## Data", "", data if data is not None else asked, ""]
    lines += ["## Training", ""]
    if command is not None:
        lines += [f"    {command}", ""]
    lines += [
        f"- {what.replace('_', ' ')}: {value}" for what, value in judges.told.items() if what != "figures"
    ]
    figures = judges.told.get("figures")
    if isinstance(figures, Mapping):
        lines += ["", "## Figures", "", "On rows that none of them was trained on.", ""]
        lines += [f"- {what}: {value:.5g}" for what, value in cast(Mapping[str, float], figures).items()]
    return "\n".join([*lines, ""])


def _table(judges: Judges) -> Iterator[str]:
    yield "| Network | Parameters | For |"
    yield "|---|---|---|"
    for name, network in judges.networks.items():
        yield f"| {name} | {_size(network):,} | {_USES[name]} |"


def _size(network: nn.Module) -> int:
    return sum(each.numel() for each in network.parameters())
