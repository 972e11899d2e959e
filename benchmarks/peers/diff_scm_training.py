"""Train Diff-SCM's U-Net and anticausal predictor on MNIST with its own code, within a CPU budget.

    PEER_PYTHON diff_scm_training.py --repo DIR --mnist DIR --out DIR [--resume]

Runs under the peer's own Python, from a checkout of vios-s/Diff-SCM (Apache-2.0), of which nothing is
copied: its networks, configuration, losses, optimisers and training loops. Only this differs from its
scripts, and why:

- one process without MPI, on the CPU (``import_peer``; DistributedDataParallel is given no device);
- ``--mnist`` instead of its authors' path, and 600 of the 60,000 training rows held out as for our model
  instead of 6,000. The batch is 100, as there: its loader takes the sampling batch, not the 256 of the
  configuration;
- a step's batch is indexed in this process, and there is one held-out batch in 50 steps instead of 50: the
  budget is one thread's, and its own loop never ends (``lr_anneal_steps`` is 0);
- training stops when the budget is spent. ``--resume`` goes on from what OUT holds, whose steps count
  (both learning rates are constant; the order of rows begins anew).

Writes ``OUT/score_train`` and ``OUT/classifier_train_class``, as ``peer_diff_scm.py`` reads them.
"""

# The peer's modules come from the checkout that is given.
# pyright: reportMissingImports=false

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from answers import StepBudget
from diff_scm_answers import import_peer

_HELD_OUT = 600
_SAVE_SECONDS = 60


class _SpentError(Exception):
    """The budget is spent."""


def main() -> None:
    """Train both networks, one after the other."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--repo", type=Path, required=True, help="checkout of vios-s/Diff-SCM")
    parser.add_argument("--mnist", type=Path, required=True, help="folder that holds MNIST/raw")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--unet-seconds", type=float, default=1560, help="of one thread (%(default)s)")
    parser.add_argument("--classifier-seconds", type=float, default=600, help="of one thread (%(default)s)")
    parser.add_argument("--resume", action="store_true", help="go on from what OUT holds")
    options = parser.parse_args()
    torch.set_num_threads(1)
    import_peer(options.repo)
    _settle(options)
    from diff_scm.training import anticausal_classifier_train, main_diffusion_train, train_util

    budget = StepBudget(options.unet_seconds, _earlier(options, "score_train")[1])
    train_util.TrainLoop.run_loop = lambda loop: _unet_loop(loop, budget)
    main_diffusion_train.main(SimpleNamespace(dataset="mnist"))
    budget = StepBudget(options.classifier_seconds, _earlier(options, "classifier_train_class")[1])
    _limit_classifier(anticausal_classifier_train, budget)
    try:
        anticausal_classifier_train.main(SimpleNamespace(dataset="mnist"))
    except _SpentError:
        print("both trained")


def _earlier(options: argparse.Namespace, network: str) -> tuple[str, dict[str, Any] | None]:
    """The network's checkpoint that is continued and its budget's report; "" and None for none."""
    checkpoints = sorted((options.out / network).glob("model*.pt")) if options.resume else []
    if not checkpoints:
        return "", None
    return str(checkpoints[-1]), json.loads((options.out / network / "budget.json").read_text())


def _settle(options: argparse.Namespace) -> None:
    """The peer's paths, rows, and checkpoints to go on from."""
    from diff_scm.configs import get_config
    from diff_scm.datasets import loader

    published = get_config.file_from_dataset

    def configuration(name: str) -> Any:
        config = published(name)
        config.data.path, config.experiment_name = options.mnist, str(options.out)
        config.classifier.training.iterations = 10**9
        config.score_model.training.resume_checkpoint = _earlier(options, "score_train")[0]
        with config.ignore_type():  # the predictor's is False, where the U-Net's is ""
            config.classifier.training.resume_checkpoint = _earlier(options, "classifier_train_class")[0]
        return config

    def rows(_: str, config: Any, split_set: str = "train", generator: bool = True) -> Iterator[dict]:
        data = loader.MNIST_dataset(root_dir=config.data.path, train=True)
        sizes = [len(data) - _HELD_OUT, _HELD_OUT]
        parts = torch.utils.data.random_split(data, sizes, generator=torch.Generator().manual_seed(42))
        part, size = parts[0 if split_set == "train" else 1], config.sampling.batch_size
        batches = torch.utils.data.DataLoader(part, batch_size=size, shuffle=True, drop_last=True)
        while True:
            yield from batches

    get_config.file_from_dataset = configuration
    loader.get_data_loader = rows
    # Its logger joins the folder to the parent of the working directory, unless the folder is absolute.
    options.out = options.out.resolve()


def _unet_loop(loop: Any, budget: StepBudget) -> None:
    """The peer's ``run_loop`` with a budget: its steps, its logs, its checkpoints."""
    from diff_scm.utils import logger

    saved = time.time()
    while budget.charged < budget.seconds:
        budget.begin()
        loop.run_step(next(loop.data))
        budget.end()
        if loop.step % loop.log_interval == 0:
            with torch.no_grad():
                loop.forward_backward(next(loop.data_val), phase="val")
            logger.dumpkvs()
        loop.step += 1
        if time.time() - saved > _SAVE_SECONDS:
            saved = time.time()
            loop.save()
            _keep(Path(logger.get_dir()), loop.resume_step + loop.step, budget)
    loop.save()
    _keep(Path(logger.get_dir()), loop.resume_step + loop.step, budget)


def _limit_classifier(script: Any, budget: StepBudget) -> None:
    """Its script's loop is left as it is; its trainer and model wrapper learn of budget and CPU."""
    from diff_scm.utils import logger

    own_trainer, own_wrapper = script.MixedPrecisionTrainer, script.DDP

    class Trainer(own_trainer):
        def optimize(self, opt: torch.optim.Optimizer) -> bool:
            took = super().optimize(opt)
            budget.end()
            if budget.taken % 100 == 0 or budget.charged >= budget.seconds:
                script.save_model(self, opt, budget.taken)
                _keep(Path(logger.get_dir()), budget.taken, budget)
            if budget.charged >= budget.seconds:
                raise _SpentError
            budget.begin()
            return took

    def wrapper(model: torch.nn.Module, *, device_ids: Any, output_device: Any, **rest: Any) -> Any:
        return own_wrapper(model, **rest)

    script.MixedPrecisionTrainer, script.DDP = Trainer, wrapper
    budget.begin()


def _keep(folder: Path, step: int, budget: StepBudget) -> None:
    """Only this step's files, and what was spent."""
    for pattern in ("model*.pt", "ema_*.pt", "opt*.pt"):
        for path in folder.glob(pattern):
            if f"{step:06d}" not in path.name:
                os.remove(path)
    (folder / "budget.json").write_text(json.dumps(budget.report(), indent=1) + "\n")


if __name__ == "__main__":
    main()
