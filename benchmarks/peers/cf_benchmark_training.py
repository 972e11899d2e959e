"""Train counterfactual-benchmark's VAE and flows on Morpho-MNIST with its own code, within a CPU budget.

    PEER_PYTHON cf_benchmark_training.py --repo DIR --data DIR --out DIR [--seconds 1500]

Runs under the peer's own Python (torch, pytorch_lightning, normflows, pandas), from a checkout of
gulnazaki/counterfactual-benchmark (MIT, NeurIPS 2024), of which nothing is changed or copied: its models,
its data set class, its training functions, callbacks and ``configs/morphomnist/vae.json`` are imported from
there. Only this differs from its ``train.py``, and why:

- the rows are selected and stacked once, not at every access, and no worker processes: one thread is the
  budget;
- training stops when the budget of CPU seconds is spent, if its own early stopping did not stop it before.
  A training step is charged at the 10th percentile of the steps' CPU times (the machine may be shared), its
  validation is not charged;
- the image model's linear warm-up over 100 runs by steps. There it is counted in epochs, by Lightning's
  default, so that its first epoch has a learning rate of 0 and the full one is reached after 100 epochs,
  beyond any budget here;
- paths.

Writes ``OUT/<variable>_flow-epoch=NN.ckpt``, ``OUT/image_vae-epoch=NN.ckpt`` (its checkpoint of the lowest
validation loss) and ``OUT/budget.json``. The figures of such a model are "at this budget", not the authors'
result.
"""

# The peer's modules come from the checkout that is given.
# pyright: reportMissingImports=false

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytorch_lightning as lightning
import torch
from answers import StepBudget

FLOW_SHARE = 0.06
"""Of the budget, for each of the two flows; the image model gets the rest."""


def main() -> None:
    """Train every mechanism of the published configuration."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--repo", type=Path, required=True, help="checkout of counterfactual-benchmark")
    parser.add_argument("--data", type=Path, required=True, help="Morpho-MNIST in the published layout")
    parser.add_argument("--out", type=Path, required=True, help="folder of the checkpoints")
    parser.add_argument("--seconds", type=float, default=1500, help="of one thread's CPU time (%(default)s)")
    options = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(42)  # its train.py's
    package = options.repo.resolve() / "counterfactual_benchmark"
    sys.path[:0] = [str(package), str(package / "methods" / "deepscm")]
    config = json.loads((package / "methods/deepscm/configs/morphomnist/vae.json").read_text())
    spent = {}
    for variable in config["mechanism_models"]:
        share = FLOW_SHARE if variable != "image" else 1 - 2 * FLOW_SHARE
        spent[variable] = _train(variable, config, options, share * options.seconds)
        options.out.mkdir(parents=True, exist_ok=True)
        (options.out / "budget.json").write_text(json.dumps(spent, indent=1) + "\n")


def _train(
    variable: str, config: dict[str, Any], options: argparse.Namespace, seconds: float
) -> dict[str, Any]:
    """One mechanism by the peer's own training function; what it cost."""
    import models.flows
    import models.vaes
    import training_scripts

    described = config["mechanism_models"][variable]
    classes = models.vaes if described["model_type"] == "vae" else models.flows
    model = getattr(classes, described["model_class"])(
        params=described["params"], attr_size=config["attribute_size"]
    )
    if described["model_type"] == "vae":
        model.configure_optimizers = _warm_up_by_steps(model.configure_optimizers)
    budget = _StopAtBudget(seconds)
    training_scripts.get_dataloaders = _loaders
    training_scripts.Trainer = lambda callbacks, **rest: lightning.Trainer(
        callbacks=[*callbacks, budget],
        enable_progress_bar=False,
        **rest | {"accelerator": "cpu", "devices": 1},
    )
    train = training_scripts.train_vae if described["model_type"] == "vae" else training_scripts.train_flow
    train(
        model,
        config=described["params"],
        data_class=_data_class(),
        graph_structure=config["causal_graph"],
        attribute_size=config["attribute_size"],
        checkpoint_dir=str(options.out),
        normalize_=True,
        data_dir=str(options.data),
    )
    return budget.report() | {"parameters": sum(each.numel() for each in model.parameters())}


def _warm_up_by_steps(configure: Callable[[], dict[str, Any]]) -> Callable[[], dict[str, Any]]:
    """The peer's optimiser and schedule, the schedule advanced at every step."""

    def configured() -> dict[str, Any]:
        own = configure()
        return own | {"lr_scheduler": {"scheduler": own["lr_scheduler"], "interval": "step"}}

    return configured


def _data_class() -> type:
    """The peer's data set with the columns of its transform stacked once; an item is as there."""
    from datasets.morphomnist.dataset import MorphoMNISTLike

    class Rows(MorphoMNISTLike):
        def __init__(self, *, transform: Any, **rest: Any) -> None:
            super().__init__(transform=transform, **rest)
            chosen = transform.attr_ids
            self.values = self.images.unsqueeze(1) if chosen is None else self.attrs[:, chosen].float()
            self.parents = self.attrs[:, transform.pa_ids].float()

        def __getitems__(self, index: list[int]) -> tuple[torch.Tensor, torch.Tensor]:
            return self.values[index], self.parents[index]

    return Rows


def _loaders(data_class: type, attribute_size: dict, config: dict, transform: Any, **rest: Any) -> tuple:
    """The peer's split and batches, one indexing a batch instead of worker processes."""
    data = data_class(attribute_size=attribute_size, transform=transform, split="train", **rest)
    share = config["train_val_split"]
    train, held_out = torch.utils.data.random_split(data, [share, 1 - share])

    def loader(part: Any, size: int, shuffle: bool) -> torch.utils.data.DataLoader:
        return torch.utils.data.DataLoader(
            part, batch_size=size, shuffle=shuffle, collate_fn=lambda batch: batch
        )

    return loader(train, config["batch_size_train"], True), loader(held_out, config["batch_size_val"], False)


class _StopAtBudget(lightning.Callback):
    """Stops at the end of the epoch that comes nearest to the budget."""

    def __init__(self, seconds: float) -> None:
        self.budget = StepBudget(seconds)
        self.epochs = 0
        self.spent = False

    def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int) -> None:
        self.budget.begin()

    def on_train_batch_end(
        self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self.budget.end()

    def on_train_epoch_end(self, trainer: lightning.Trainer, pl_module: Any) -> None:
        self.epochs += 1
        charged = self.budget.charged
        print(f"epoch {self.epochs}: {charged:.0f} s charged, {trainer.callback_metrics}", flush=True)
        self.spent = charged * (1 + 0.5 / self.epochs) >= self.budget.seconds
        trainer.should_stop |= self.spent

    def report(self) -> dict[str, Any]:
        return self.budget.report() | {"epochs": self.epochs, "stopped_by_itself": not self.spent}


if __name__ == "__main__":
    main()
