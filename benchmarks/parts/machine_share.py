"""How much of the machine's measured matrix-multiplication peak the U-Net reaches.

Floating-point operations of one evaluation (torch's counter: convolutions, attention, linear layers) over its
time, against a large float32 product; both medians of interleaved repeats on the same threads.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from statistics import median

import torch
from torch.utils.flop_counter import FlopCounterMode

from .answers import canonical, image_mechanism
from .context import Context, Result

__all__ = ["machine_share"]

_SIDE, _REPEATS, _LEVEL = 2048, 9, 1.0


@torch.no_grad()
def machine_share(context: Context) -> Result:
    """GFLOP/s of the network and of a large product, and their ratio."""
    mechanism, rows = image_mechanism(context.scm), context.rows("table")[:128]
    images, parents = canonical(context.scm, rows), {"digit": torch.as_tensor(rows.digits)}
    generator = torch.Generator().manual_seed(0)
    left, right = (torch.randn(_SIDE, _SIDE, generator=generator) for _ in range(2))

    def evaluate() -> None:
        mechanism.denoiser.eps(images, _LEVEL, parents)

    with FlopCounterMode(display=False) as counter:
        evaluate()
    flops = counter.get_total_flops()
    network, product = [], []
    for _ in range(_REPEATS):
        network.append(_seconds(evaluate))
        product.append(_seconds(lambda: left @ right))
    ours, peak = flops / median(network) / 1e9, 2 * _SIDE**3 / median(product) / 1e9
    result: Result = {
        "batch": len(rows),
        "parameters": sum(each.numel() for each in mechanism.denoiser.parameters()),
        "MFLOP an evaluation": flops / len(rows) / 1e6,
        "ms an evaluation": 1000 * median(network) / len(rows),
        "U-Net GFLOP/s": ours,
        "GEMM GFLOP/s": peak,
        "share": ours / peak,
    }
    context.show(
        f"U-Net against a float32 product of side {_SIDE}, {torch.get_num_threads()} threads", [result]
    )
    return result


def _seconds(run: Callable[[], object]) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start
