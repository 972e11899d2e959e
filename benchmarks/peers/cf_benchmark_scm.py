"""counterfactual-benchmark's structural causal model for Morpho-MNIST, from a checkout.

Its graph, networks, coding of the attributes, abduction and prediction are imported
(gulnazaki/counterfactual-benchmark, MIT). Only the loading is done here, since its own wants a GPU. Images
are (N, 1, 32, 32) in [-1, 1], 28 x 28 padded by 2 as in its data set; thickness and intensity are scaled to
[-1, 1] by its minimum and maximum, digits are one-hot.
"""

# The peer's modules come from the checkout that is given.
# pyright: reportMissingImports=false

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from answer_file import digest

__all__ = ["ATTRIBUTES", "code", "decode", "load_scm", "pixels", "shown"]

ATTRIBUTES = ("thickness", "intensity", "digit")
_PADDING = 2


def load_scm(repo: Path, weights: Path, temperature: float) -> tuple[Any, dict[str, Any]]:
    """The model with its trained mechanisms, and what is to be known of them."""
    import models.flows
    import models.vaes
    from model import SCM

    class LoadedSCM(SCM):
        def _SCM__load_parameters(self) -> None:
            """The networks come loaded; the peer's loader puts them on a GPU."""

    folder = repo / "counterfactual_benchmark" / "methods" / "deepscm"
    config = json.loads((folder / "configs/morphomnist/vae.json").read_text())
    networks, about = {}, {}
    for variable, described in config["mechanism_models"].items():
        classes = models.vaes if described["model_type"] == "vae" else models.flows
        network = getattr(classes, described["model_class"])(
            params=described["params"], attr_size=config["attribute_size"]
        )
        found = sorted(weights.glob(f"{network.name}-epoch=*.ckpt"))
        if len(found) != 1:
            raise SystemExit(f"{weights}: {len(found)} files {network.name}-epoch=*.ckpt; expected one")
        network.load_state_dict(torch.load(found[0], map_location="cpu", weights_only=False)["state_dict"])
        networks[variable] = network
        state = {name: each.numpy() for name, each in network.state_dict().items()}
        about[variable] = {
            "parameters": sum(each.numel() for each in network.parameters()),
            "weights": digest(state),
        }
    budget = weights / "budget.json"
    about["training"] = json.loads(budget.read_text()) if budget.exists() else None
    return LoadedSCM(str(weights), config["causal_graph"], temperature, **networks), about


def code(values: dict[str, np.ndarray]) -> dict[str, torch.Tensor]:
    """Attributes in their units, (N,) each, as the peer codes them."""
    from datasets.morphomnist.dataset import MIN_MAX

    coded = {}
    for attribute, given in values.items():
        if attribute == "digit":
            coded[attribute] = torch.nn.functional.one_hot(torch.as_tensor(given).long(), 10).float()
        else:
            low, high = MIN_MAX[attribute]
            scaled = 2 * (np.asarray(given, np.float64) - low) / (high - low) - 1
            coded[attribute] = torch.from_numpy(scaled).float().unsqueeze(1)
    return coded


def decode(coded: dict[str, torch.Tensor]) -> dict[str, np.ndarray]:
    """The inverse of ``code``: (N,) float64 and int64."""
    from datasets.morphomnist.dataset import unnormalize

    return {
        attribute: (
            coded[attribute].argmax(1).numpy()
            if attribute == "digit"
            else unnormalize(coded[attribute][:, 0].double(), attribute).numpy()
        )
        for attribute in ATTRIBUTES
    }


def pixels(images: np.ndarray) -> torch.Tensor:
    """(N, 28, 28), uint8 or [0, 1], to the peer's images."""
    values = images.astype(np.float32) / 255 if images.dtype.kind == "u" else images.astype(np.float32)
    edges = (_PADDING, _PADDING)
    return torch.from_numpy(np.pad(values, ((0, 0), edges, edges)) * 2 - 1).unsqueeze(1)


def shown(images: torch.Tensor) -> np.ndarray:
    """The peer's images to (N, 28, 28) float32 in [0, 1], without the padding."""
    inner = images[:, 0, _PADDING:-_PADDING, _PADDING:-_PADDING]
    return ((inner + 1) / 2).clamp(0, 1).numpy()
