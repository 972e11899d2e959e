"""Pretrained pipelines as mechanisms: the null beside diffusers' inversion, what wrapping costs, DiT-XL/2.

    python benchmarks/pipelines.py [--only null,cost,dit-xl] [--threads 1]

``null`` trains a small DiT pipeline (autoencoder, transformer, schedule) on drawn shapes with diffusers and
torch alone, saves it by ``save_pretrained``, and inverts held-out pictures by ``DDIMInverseScheduler`` and
``DDIMScheduler``, and by the mechanism of that folder, with as many evaluations of the network. ``cost``
times evaluations through a mechanism beside those of the bare network. ``dit-xl`` loads a DiT-XL/2 of random
weights and its autoencoder, and takes one step up and one down.
"""

from __future__ import annotations

import argparse
import json
import re
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from importlib import import_module
from itertools import pairwise
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

import torch
from parts.record import Section, add_common, command, show, target
from rich.console import Console
from torch import Tensor, nn

import causalgen as cg
from causalgen.saving.pretrained import gallery_folder
from mechanisms.diffusion.latents import LatentDiffusion

diffusers: Any = import_module("diffusers")  # whose names are loaded on first use

SECTIONS = ("null", "cost", "dit-xl")
SIDE, CLASSES = 32, 3


def shapes(n: int, seed: int) -> tuple[Tensor, Tensor]:
    """Discs, squares and triangles of any colour, place and size on any ground: (n, 3, 32, 32) in [-1, 1]."""
    generator = torch.Generator().manual_seed(seed)

    def uniform(*size: int) -> Tensor:
        return torch.rand(*size, generator=generator)

    kinds = torch.randint(CLASSES, (n,), generator=generator)
    y, x = torch.meshgrid(torch.arange(SIDE) + 0.5, torch.arange(SIDE) + 0.5, indexing="ij")
    centre, radius = 11 + 10 * uniform(n, 2), (5 + 4 * uniform(n)).view(-1, 1, 1)
    dy, dx = y - centre[:, :1, None], x - centre[:, 1:, None]
    outside = [
        (dx**2 + dy**2).sqrt() - radius,
        torch.maximum(dx.abs(), dy.abs()) - 0.9 * radius,
        torch.maximum(dy - 0.8 * radius, 1.7 * dx.abs() - dy - 0.9 * radius) / 1.5,
    ]
    edge = torch.stack(outside, 1)[torch.arange(n), kinds]
    inside = (0.5 - edge).clamp(0, 1)[:, None]
    ink, ground = uniform(n, 3, 1, 1), uniform(n, 3, 1, 1)
    return 2 * (inside * ink + (1 - inside) * ground) - 1, kinds


def train(module: nn.Module, loss: Callable[[int], Tensor], steps: int, rate: float) -> float:
    """Take steps of AdamW; the mean loss of the last tenth."""
    optimizer = torch.optim.AdamW(module.parameters(), lr=rate, weight_decay=0)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, total_steps=steps)
    last: list[float] = []
    for step in range(steps):
        optimizer.zero_grad()
        value = loss(step)
        value.backward()
        nn.utils.clip_grad_norm_(module.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        last = [*last[-steps // 10 :], value.item()]
    return sum(last) / len(last)


def small_pipeline(folder: Path, steps: int) -> dict[str, float]:
    """Train and save a DiT pipeline of 32 x 32 pictures, 4 x 8 x 8 latents."""
    torch.manual_seed(0)
    vae = diffusers.AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 3, up_block_types=("UpDecoderBlock2D",) * 3,
        block_out_channels=(16, 32, 32), norm_num_groups=8, latent_channels=4, sample_size=SIDE,
        mid_block_add_attention=False,
    )  # fmt: skip

    def reconstruct(step: int) -> Tensor:
        pictures, _ = shapes(16, 1000 + step)
        law: Any = vae.encode(pictures).latent_dist
        return (vae.decode(law.sample()).sample - pictures).abs().mean() + 1e-6 * law.kl().mean()

    missed = train(vae, reconstruct, steps // 2, 2e-3)
    vae.eval().requires_grad_(False)
    spread = vae.encode(shapes(256, 1)[0]).latent_dist.mode().std().item()
    vae.register_to_config(scaling_factor=1 / spread)
    network = diffusers.DiTTransformer2DModel(
        num_attention_heads=4, attention_head_dim=24, in_channels=4, out_channels=8, num_layers=4,
        sample_size=SIDE // 4, patch_size=1, num_embeds_ada_norm=CLASSES,
    )  # fmt: skip
    schedule, generator = diffusers.DDPMScheduler(), torch.Generator().manual_seed(0)
    network.train()

    def denoise(step: int) -> Tensor:
        pictures, kinds = shapes(32, 100_000 + step)
        latents = vae.encode(pictures).latent_dist.mode() / spread
        noise = torch.randn(latents.shape, generator=generator)
        times = torch.randint(1000, (len(latents),), generator=generator)
        noised: Any = schedule.add_noise(latents, noise, times)
        out = network(noised, times, class_labels=kinds).sample
        return (out[:, :4] - noise).square().mean()

    loss = train(network, denoise, steps, 1e-3)
    pipeline = diffusers.DiTPipeline(
        network.eval(), vae, diffusers.DDIMScheduler(clip_sample=False),
        id2label={0: "disc", 1: "square", 2: "triangle"},
    )  # fmt: skip
    pipeline.save_pretrained(folder)
    return {"autoencoder L1 of [-1, 1]": missed, "noise MSE": loss}


@torch.no_grad()
def theirs(pipeline: Any, latents: Tensor, kinds: Tensor, steps: int) -> Tensor:
    """Latents inverted by DDIMInverseScheduler and decoded by DDIMScheduler, 2 steps evaluations."""
    down: Any = pipeline.scheduler
    up = diffusers.DDIMInverseScheduler.from_config(down.config)
    x = latents
    for schedule in (up, down):
        schedule.set_timesteps(steps)
        for t in schedule.timesteps:
            times = t.expand(len(x))
            out = pipeline.transformer(x, times, class_labels=kinds).sample[:, : x.shape[1]]
            x = schedule.step(out, t, x).prev_sample
    return x


def model(folder: Path, side: int, **options: Any) -> cg.SCM:
    """class -> image, by a pipeline."""
    import networkx as nx

    spec = cg.mechanisms.Diffusion.from_pipeline(folder, **options)
    variables = {"class": cg.Categorical(CLASSES), "image": cg.Image(3, side, side)}
    scm = cg.SCM(nx.DiGraph([("class", "image")]), variables, {"image": spec})
    return scm.fit({"class": list(range(CLASSES))}, nodes=["class"], progress=False)


def null(section: Section, steps: int, rows: int) -> list[dict[str, Any]]:
    """Theirs beside ours, in latents and in pixels."""
    table: list[dict[str, Any]] = []
    with TemporaryDirectory() as temporary:
        folder = Path(temporary) / "shapes"
        trained = small_pipeline(folder, steps)
        pipeline: Any = diffusers.DiTPipeline.from_pretrained(folder, local_files_only=True)
        pictures, kinds = shapes(rows, 7)
        parents = {"class": kinds}
        bare = model(folder, SIDE).mechanisms["image"]
        assert isinstance(bare, LatentDiffusion)
        latents, auto = bare.autoencoder.encode(pictures), bare.autoencoder

        def row(name: str, count: int, found: Tensor, image: Tensor) -> dict[str, Any]:
            return {
                "inversion": name, "evaluations": count,
                "latents L1": (found - latents).abs().mean().item(),
                "pixels L1 on 0..255": 127.5 * (image - pictures).abs().mean().item(),
            }  # fmt: skip

        for count in (10, 20, 50):
            found = theirs(pipeline, latents, kinds, count)
            table.append(row("DDIMInverseScheduler + DDIMScheduler", 2 * count, found, auto.decode(found)))
            for spacing in ("log", "leading"):
                for residuals in (False, True):
                    n = count - residuals  # a residual costs an evaluation more at the top
                    solver = {"kind": "anchored", "steps": n, "residuals": residuals}
                    grid = {"kind": "trained", "spacing": spacing}
                    made = model(folder, SIDE, solver={**solver, "grid": grid}).mechanisms["image"]
                    assert isinstance(made, LatentDiffusion)
                    noise = made.abduct(pictures, parents, generator=torch.Generator()).noise
                    found = made.inner.generate(parents, noise)
                    name = f"anchored, {spacing}" + (", residuals" if residuals else "")
                    table.append(row(name, 2 * n + residuals, found, made.generate(parents, noise)))
            section.keep({"training": trained, "rows": table})
        ratios = {
            name: min(
                their["latents L1"] / max(our["latents L1"], 1e-12)
                for their in table[::5]
                for our in table
                if our["inversion"] == f"anchored, log{end}" and our["evaluations"] in range(
                    their["evaluations"] - 1, their["evaluations"] + 1
                )
            )
            for name, end in (("with residuals", ", residuals"), ("without residuals", ""))
        }  # fmt: skip
        targets = [
            target("null smaller than DDIM inversion's, least ratio", ratios["with residuals"], least=100),
            target("without residuals, least ratio", ratios["without residuals"], least=3),
        ]
        section.finish({"training": trained, "rows": table, "targets": targets})
    return [*table, *targets]


@torch.no_grad()
def cost(section: Section, repeats: int) -> list[dict[str, Any]]:
    """CPU seconds of generating through a mechanism and of as many calls of the network, taken in turns."""
    table: list[dict[str, Any]] = []
    torch.manual_seed(0)
    with TemporaryDirectory() as temporary:
        dit, unet = Path(temporary) / "dit", Path(temporary) / "unet"
        vae = diffusers.AutoencoderKL(block_out_channels=(8,), norm_num_groups=8)
        network = diffusers.DiTTransformer2DModel(
            num_attention_heads=6, attention_head_dim=32, in_channels=4, out_channels=8, num_layers=6,
            sample_size=16, patch_size=2, num_embeds_ada_norm=CLASSES,
        )  # fmt: skip
        diffusers.DiTPipeline(network, vae, diffusers.DDIMScheduler()).save_pretrained(dit)
        blocks = {"down_block_types": ("DownBlock2D",) * 2, "up_block_types": ("UpBlock2D",) * 2}
        diffusers.DDPMPipeline(
            diffusers.UNet2DModel(sample_size=32, block_out_channels=(32, 64), norm_num_groups=8, **blocks),
            diffusers.DDPMScheduler(),
        ).save_pretrained(unet)
        n, steps = 4, 8
        for name, folder in (("DiT", dit), ("U-Net", unet)):
            if name == "DiT":
                outer = model(folder, 16, solver={"steps": steps}).mechanisms["image"]
                assert isinstance(outer, LatentDiffusion)
                mechanism, parents = outer.inner, {"class": torch.arange(n) % CLASSES}
                told: dict[str, Any] = {"class_labels": parents["class"]}
            else:
                spec = cg.mechanisms.Diffusion.from_pipeline(folder, solver={"steps": steps})
                mechanism, parents, told = spec.bind(cg.Image(3, 32, 32), {}), {}, {}
            noise = mechanism.sample_noise(n, generator=torch.Generator().manual_seed(0))
            # As if abducted under these parents: one evaluation a step, and no denoising step at the end.
            factual = {f"factual.{name}": value for name, value in parents.items()}
            noise = type(noise)(n, {**noise, **factual, "known": torch.ones(n, dtype=torch.bool)})
            bare: Any = mechanism.get_submodule("denoiser.network.model")
            x, times = torch.randn(n, *mechanism.variable.event_shape), torch.full((n,), 500.0)

            def calls(bare: Any = bare, x: Tensor = x, times: Tensor = times, told: Any = told) -> None:
                for _ in range(steps):
                    bare(x, times, **told)

            def generated(mechanism: Any = mechanism, parents: Any = parents, noise: Any = noise) -> None:
                mechanism.generate(parents, noise)

            ratios: list[float] = []
            seconds: dict[str, list[float]] = {"bare": [], "mechanism": []}
            for turn in range(repeats + 1):
                took: dict[str, float] = {}
                for label, ask in (("bare", calls), ("mechanism", generated)):
                    began = time.process_time()
                    ask()
                    took[label] = time.process_time() - began
                if turn:  # the first warms up
                    ratios.append(took["mechanism"] / took["bare"])
                    for label, each in took.items():
                        seconds[label].append(each)
            table.append(
                {"network": name, "evaluations": steps, "rows": n, "ratio, median": median(ratios)}
                | {f"{label} cpu s, least": min(each) for label, each in seconds.items()}
                | {"ratio of least": min(seconds["mechanism"]) / min(seconds["bare"])}
            )
            section.keep({"rows": table})
    targets = [
        target(f"{row['network']} through the mechanism", row["ratio, median"], most=1.05) for row in table
    ]
    section.finish({"rows": table, "targets": targets})
    return [*table, *targets]


def random_xl(folder: Path) -> None:
    """The gallery's architecture as a pipeline's folder, of random weights."""
    spec: Any = cg.SCM.from_pretrained("imagenet").mechanisms["image"].spec
    torch.manual_seed(0)
    vae = diffusers.AutoencoderKL(**spec.autoencoder.config)
    with torch.device("meta"):
        empty = diffusers.DiTTransformer2DModel(**spec.backbone.config)
    one = diffusers.DiTTransformer2DModel(**(spec.backbone.config | {"num_layers": 1})).state_dict()

    def first(name: str) -> str:
        """The same tensor of the first block."""
        return re.sub(r"^transformer_blocks\.\d+", "transformer_blocks.0", name)

    # Every block has the same weights: other ones would take a minute to draw, and no longer to run.
    empty.load_state_dict({name: one[first(name)].clone() for name in empty.state_dict()}, assign=True)
    empty.save_pretrained(folder / "transformer")
    vae.save_pretrained(folder / "vae")
    diffusers.DDIMScheduler(clip_sample=False).save_pretrained(folder / "scheduler")
    parts = {
        "scheduler": ["diffusers", "DDIMScheduler"], "transformer": ["diffusers", "DiTTransformer2DModel"],
        "vae": ["diffusers", "AutoencoderKL"],
    }  # fmt: skip
    (folder / "model_index.json").write_text(json.dumps({"_class_name": "DiTPipeline", **parts}))


def one_step() -> None:
    """Load, invert by one step, predict by one; in a process of its own, whose peak of memory is its own."""
    times = [time.perf_counter()]

    def lap() -> None:
        times.append(time.perf_counter())

    scm = cg.SCM.from_pretrained("imagenet").with_options("image", solver={"steps": 1})
    lap()
    picture = torch.rand(3, 256, 256, generator=torch.Generator().manual_seed(0))
    abducted = scm.abduct({"class": "beagle", "image": picture})
    abducted.noise_of("image")  # which is only now inferred
    lap()
    made = abducted.counterfactual(do={"class": "tabby"})["image"]
    lap()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    image: Any = scm.mechanisms["image"]
    count = sum(each.numel() for each in image.parameters())
    seconds = {
        f"{name} s": end - begin
        for name, (begin, end) in zip(("load", "abduct", "predict"), pairwise(times), strict=True)
    }
    told = {"peak GiB": peak, "parameters": count, "finite": bool(made.isfinite().all())}
    print(json.dumps(told | seconds))


def dit_xl(section: Section, threads: int) -> list[dict[str, Any]]:
    """The full-size network, once."""
    with TemporaryDirectory() as temporary:
        random_xl(Path(temporary) / "DiT-XL-2-256")
        asked = subprocess.run(
            [sys.executable, str(Path(__file__).resolve()), "--one-step", "--threads", str(threads)],
            cwd=temporary, capture_output=True, text=True, check=False,
        )  # fmt: skip
        if asked.returncode:
            raise SystemExit(asked.stderr[-2000:])
        found = json.loads(asked.stdout.strip().splitlines()[-1])
    section.finish({"rows": [found], "weights": "random; every block has the same"})
    return [found]


def main() -> None:
    """Measure the sections asked for."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    add_common(parser, "pipelines.json", SECTIONS, width=160)
    parser.add_argument(
        "--steps", type=int, default=2000, help="of the small transformer's training (%(default)s)"
    )
    parser.add_argument("--rows", type=int, default=64, help="of the null (%(default)s)")
    parser.add_argument("--repeats", type=int, default=15, help="of each timing (%(default)s)")
    parser.add_argument("--one-step", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    if given.one_step:
        return one_step()
    assert gallery_folder("imagenet").is_dir()
    console = Console(width=given.width)
    for name in given.only or SECTIONS:
        section = Section(given.out, name)
        if name == "null":
            found = null(section, given.steps, given.rows)
        elif name == "cost":
            found = cost(section, given.repeats)
        else:
            found = dit_xl(section, given.threads)
        for rows in ([row for row in found if "bound" not in row], [row for row in found if "bound" in row]):
            if rows:
                show(console, name, rows)
    return None


if __name__ == "__main__":
    command(main)
