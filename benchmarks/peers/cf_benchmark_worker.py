"""Answers of counterfactual-benchmark, under the peer's own Python: see ``peer_cf_benchmark.py``."""

# The peer's modules come from the checkout that is given.
# pyright: reportMissingImports=false

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from answer_file import AnswerFile, digest


def main() -> None:
    """Answer ``counterfactuals`` or ``predict``."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("task", choices=["counterfactuals", "predict"])
    parser.add_argument("--repo", type=Path, required=True)
    parser.add_argument("--weights", type=Path)
    parser.add_argument("--rows", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--cycles", nargs="*", type=int, default=[])
    parser.add_argument("--temperature", type=float, default=0.1)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--batch", type=int, default=500)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    package = options.repo.resolve() / "counterfactual_benchmark"
    sys.path[:0] = [str(package), str(package / "methods" / "deepscm")]
    with np.load(options.rows) as file:
        rows = {name: file[name] for name in file.files}
    with torch.no_grad():
        (_predict if options.task == "predict" else _counterfactuals)(rows, options)


def _counterfactuals(rows: dict[str, np.ndarray], options: argparse.Namespace) -> None:
    """Every query with its reversal, then the composition."""
    from cf_benchmark_scm import ATTRIBUTES, code, decode, load_scm, pixels, shown

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


def _predict(rows: dict[str, np.ndarray], options: argparse.Namespace) -> None:
    """What the peer's shipped predictors read from images."""
    from cf_benchmark_scm import code, decode, pixels
    from models.classifiers.classifier import Classifier

    folder = (
        options.repo / "counterfactual_benchmark/methods/deepscm/checkpoints/morphomnist/trained_classifiers"
    )
    networks = {}
    for name, outputs, told in (("thickness", 1, 1), ("intensity", 1, 0), ("digit", 10, 0)):
        networks[name] = Classifier(attr=name, num_outputs=outputs, context_dim=told).eval()
        (file,) = folder.glob(f"{name}_classifier-epoch=*.ckpt")
        networks[name].load_state_dict(torch.load(file, map_location="cpu", weights_only=False)["state_dict"])
    answers = AnswerFile(options.out, digest(rows), {"torch": torch.__version__})
    for name in sorted({each.rsplit("/", 1)[0] for each in rows if each.endswith("/images")}):
        told = code({"intensity": rows[f"{name}/intensity"]})["intensity"]

        def read(name: str = name, told: torch.Tensor = told) -> dict[str, np.ndarray]:
            read: dict[str, list[torch.Tensor]] = {attribute: [] for attribute in networks}
            for start in range(0, len(told), options.batch):
                batch = slice(start, start + options.batch)
                images = pixels(rows[f"{name}/images"][batch])
                read["thickness"].append(networks["thickness"](images, told[batch]))
                read["intensity"].append(networks["intensity"](images))
                read["digit"].append(networks["digit"](images))
            return decode({attribute: torch.cat(parts) for attribute, parts in read.items()})

        answers.block(name, read)


if __name__ == "__main__":
    main()
