"""counterfactual-benchmark (NeurIPS 2024) on given Morpho-MNIST rows: its VAE with flows.

    PEER_PYTHON benchmarks/peers/cf_benchmark_answers.py --repo DIR --weights DIR --rows NPZ --out NPZ

Nothing of the peer is in this repository: its graph, networks, coding of the attributes, abduction and
prediction (gulnazaki/counterfactual-benchmark, MIT) are imported from the checkout ``--repo`` by this
process, whose interpreter has torch, torchvision, pytorch_lightning, normflows, torchmetrics, pandas and
tensorboard. Only the loading is done here, since its own wants a GPU. It publishes no weights of its models
for Morpho-MNIST: ``--weights`` is what ``cf_benchmark_training.py`` wrote. Figures of such weights are "at
equal training budget", not the authors'.

``--rows``: ``images`` (N, 28, 28) uint8 0..255; ``thickness`` (N,) in pixels, ``intensity`` (N,) in 0..255,
``digit`` (N,) integer, all factual; and for any number of queries Q (a name without /) one or more of
``Q/thickness``, ``Q/intensity``, ``Q/digit``, (N,) in the same units. What a query sets is intervened on;
what it leaves out is the peer's own counterfactual (its intensity flow), so that a query which sets all
three scores the image mechanism alone. ``--out``, every image (N, 28, 28) float32 in [0, 1]:

    Q/image                           the counterfactual
    Q/thickness, Q/intensity, Q/digit (N,) float64, float64, int64: the parents it was made with
    Q/reversal                        Q/image and those parents taken as evidence, abducted anew, and
                                      predicted at the factual parents
    composition_K                     abducted and predicted with nothing changed, K times over (``--cycles``)
    composition_K/l1_padded           (N,) float32, its L1 in 0..255 over the padded 32 x 32, as published
    meta                              JSON text, see ``answers.py``

Its abduction samples q(z given x); ``--temperature`` scales the abducted residual of the pixels, 0.1 as
published. One encoder and one decoder evaluation an image. The peer's images are (N, 1, 32, 32) in [-1, 1],
28 x 28 padded by 2; thickness and intensity are scaled to [-1, 1] by their minimum and maximum, digits are
one-hot.
"""

# The peer's modules come from the checkout that is given.
# pyright: reportMissingImports=false

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from answers import AnswerFile, digest

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


def main() -> None:
    """Answer every query."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    for name in ("repo", "weights", "rows", "out"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    parser.add_argument("--cycles", nargs="*", type=int, default=[1, 10])
    parser.add_argument("--temperature", type=float, default=0.1)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--batch", type=int, default=500)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    if not (options.repo / "counterfactual_benchmark").is_dir():
        raise SystemExit(f"{options.repo} is no checkout of gulnazaki/counterfactual-benchmark")
    package = options.repo.resolve() / "counterfactual_benchmark"
    sys.path[:0] = [str(package), str(package / "methods" / "deepscm")]
    with np.load(options.rows) as file:
        rows = {name: file[name] for name in file.files}
    with torch.no_grad():
        _counterfactuals(rows, options)


def _counterfactuals(rows: dict[str, np.ndarray], options: argparse.Namespace) -> None:
    """Every query with its reversal, then the composition."""
    scm, about = load_scm(options.repo, options.weights, options.temperature)
    settings = about | {name: getattr(options, name) for name in ("temperature", "seed", "batch", "threads")}
    answers = AnswerFile(options.out, digest(rows), settings | {"torch": torch.__version__})
    parents = code({name: rows[name] for name in ATTRIBUTES})
    factual = parents | {"image": pixels(rows["images"])}
    for query in sorted({name.split("/")[0] for name in rows if "/" in name}):
        asked = code({name: rows[f"{query}/{name}"] for name in ATTRIBUTES if f"{query}/{name}" in rows})

        def answer(asked: dict[str, torch.Tensor] = asked) -> dict[str, np.ndarray]:
            there = _answered(scm, factual, asked, options)
            back = _answered(scm, there, parents, options)
            return {"image": shown(there["image"]), "reversal": shown(back["image"])} | decode(there)

        answers.block(query, answer)
    for cycles in options.cycles:

        def cycled(cycles: int = cycles) -> dict[str, np.ndarray]:
            state = factual
            for cycle in range(cycles):
                state = _answered(scm, state, {}, options, seed=options.seed + 1 + cycle)
            padded = (state["image"] - factual["image"]).abs().mean(dim=(1, 2, 3)).numpy() * 127.5
            return {"": shown(state["image"]), "l1_padded": padded}

        answers.block(f"composition_{cycles}", cycled)


def _answered(
    scm: Any,
    evidence: dict[str, torch.Tensor],
    asked: dict[str, torch.Tensor],
    options: argparse.Namespace,
    seed: int | None = None,
) -> dict[str, torch.Tensor]:
    """The peer's ``encode`` and ``decode``, in batches; its abduction draws, from the seed."""
    torch.manual_seed(options.seed if seed is None else seed)
    results = []
    for start in range(0, len(evidence["image"]), options.batch):
        batch = slice(start, start + options.batch)
        noise = scm.encode(**{name: each[batch] for name, each in evidence.items()})
        results.append(scm.decode({name: each[batch] for name, each in asked.items()} or None, **noise))
    return {name: torch.cat([each[name] for each in results]) for name in evidence}


if __name__ == "__main__":
    main()
