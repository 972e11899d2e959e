"""Counterfactual images beside the true ones, and what a run folder says of the fit that made them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["fitted_image", "pixels"]


def pixels(made: NDArray[Any], before: NDArray[Any], true: NDArray[Any]) -> dict[str, Any]:
    """L1 on 0..255 to the true images, over all pixels and over those that the truth changes or leaves."""
    off, nothing = 255 * np.abs(made - true), 255 * np.abs(before - true)
    moved = nothing.max(1, keepdims=True) > 0.5
    inside = np.broadcast_to(moved, off.shape)
    random = np.random.default_rng(0)
    each = np.stack([off.mean((1, 2, 3)), nothing.mean((1, 2, 3))])
    drawn = each[:, random.integers(0, each.shape[1], (1000, each.shape[1]))].mean(2)
    return {
        "l1": each[0].mean(),
        "l1_doing_nothing": each[1].mean(),
        "share_of_doing_nothing": each[0].mean() / each[1].mean(),
        "share_interval": np.quantile(drawn[0] / drawn[1], [0.025, 0.975]).tolist(),
        "l1_inside": off[inside].mean(),
        "l1_inside_doing_nothing": nothing[inside].mean(),
        "l1_outside": off[~inside].mean(),
        "pixels_changed": moved.mean(),
    }


def fitted_image(folder: Path, node: str = "image") -> dict[str, Any]:
    """What the fit says of a node, from the run folder that ``causalgen fit`` left."""
    lines = (folder / "log.jsonl").read_text().splitlines()
    events = [
        event for event in map(json.loads, lines) if event["event"] == "fitted" and event["node"] == node
    ]
    names = ("rows", "steps", "seconds", "parameters", "figures", "validation_loss")
    return {name: events[-1][name] for name in names}
