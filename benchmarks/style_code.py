"""Has the style code of a gallery model the law that it claims: over training rows, and told of the parents?

    python benchmarks/style_code.py --mnist DIR [--model mnist]

Codes are drawn, one a row, and mapped to the leaf of noise. Fresh probes tell the digit from leaves of test
rows: kernel ridge regression, as in the fit report, and a network trained on leaves of training rows.
"""

from __future__ import annotations

import argparse

import torch
from parts.denoising import image_mechanism
from parts.record import Section, add_common, command, show
from rich.console import Console
from torch import Tensor, nn

import causalgen as cg
from causalgen.data.reading import read_data
from mechanisms.diffusion.code import StyleCode, in_chunks
from mechanisms.diffusion.code_training import told

_CHUNK, _STEPS, _BATCH, _HIDDEN = 2000, 1500, 256, 128


def drawn(scm: cg.SCM, code: StyleCode, rows: str, most: int | None) -> tuple[Tensor, Tensor, Tensor]:
    """Codes and leaves (N, width), and digits (N,), of the first rows."""
    table = read_data(rows, scm.variables)
    some = torch.arange(table.rows if most is None else min(most, table.rows))
    images, digits = table.tensor("image", some), {"digit": table.tensor("digit", some)}
    with torch.no_grad():
        mean = in_chunks(code.mean, images, digits, _CHUNK)
        codes = code.around(mean, generator=torch.Generator().manual_seed(0))
        return codes, code.to_prior(codes), digits["digit"]


def told_by_network(leaf: Tensor, digit: Tensor, other: Tensor, truth: Tensor) -> float:
    """The share of other rows whose digit a network, trained on these, tells."""
    generator = torch.Generator().manual_seed(0)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        probe = nn.Sequential(
            nn.Linear(leaf.shape[1], _HIDDEN), nn.SiLU(), nn.Linear(_HIDDEN, _HIDDEN), nn.SiLU(),
            nn.Linear(_HIDDEN, 10),
        )  # fmt: skip
    optimizer = torch.optim.AdamW(probe.parameters(), lr=3e-3, weight_decay=1e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, _STEPS)
    for _ in range(_STEPS):
        rows = torch.randint(len(leaf), (_BATCH,), generator=generator)
        optimizer.zero_grad()
        nn.functional.cross_entropy(probe(leaf[rows]), digit[rows]).backward()
        optimizer.step()
        schedule.step()
    with torch.no_grad():
        return float((probe(other).argmax(1) == truth).double().mean())


def main() -> None:
    """Measure, print and save."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument(
        "--mnist", required=True, metavar="DIR", help="MNIST in torchvision's layout, unzipped"
    )
    parser.add_argument("--model", default="mnist", help="a gallery name or a folder (%(default)s)")
    add_common(parser, "style_code.json", ("law",), width=100)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    section, scm = Section(options.out, "law"), cg.SCM.from_pretrained(options.model)
    code = image_mechanism(scm).code
    if code is None:
        raise cg.CheckpointError(f"The model {options.model} has no style code.")
    codes, leaf, digit = drawn(scm, code, f"mnist:{options.mnist}:train", None)
    _, other, truth = drawn(scm, code, f"mnist:{options.mnist}:test", 5000)
    variances = torch.linalg.eigvalsh(codes.double().T.cov()).flip(0)
    apart = torch.corrcoef(leaf.double().T) - torch.eye(code.width)
    accuracy, chance, errors = told(other[:3000], truth[:3000], scm.variables["digit"])
    found = {
        "training rows": len(leaf),
        "largest mean of a number": float(leaf.mean(0).abs().max()),
        "smallest std": float(leaf.std(0).min()),
        "largest std": float(leaf.std(0).max()),
        "largest correlation": float(apart.abs().max()),
        "variance in three directions of the code": float(variances[:3].sum() / variances.sum()),
        "digit told by kernel ridge regression, 3,000 test rows": accuracy,
        "standard errors above guessing": errors,
        "digit told by a network, 5,000 test rows": told_by_network(
            leaf[:12_000], digit[:12_000], other, truth
        ),
        "guessing": float((truth == truth.bincount().argmax()).double().mean()),
    }
    section.finish(found | {"guessing, 3,000 rows": chance})
    rows = [{"figure": name, "value": value} for name, value in found.items()]
    show(Console(width=options.width), f"The code of {options.model}", rows)


if __name__ == "__main__":
    command(main)
