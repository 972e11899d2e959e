"""Train the evaluators of a data set, one network after the other, by the loop of ``causalgen.fitting``.

Each class's autoencoder sees the rows of its class alone. The classifier sees its images moved about (data
augmentation), which no other network does: the others must take an image as it is.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any, TypeVar, cast

import numpy as np
import torch
from torch import Tensor, nn

from causalgen.data.reading import read_data
from causalgen.data.table import Table
from causalgen.fitting.progress import Progress
from causalgen.fitting.runtime import LocalRuntime
from causalgen.fitting.training_loop import Objective, TrainingLoop
from causalgen.metrics.evaluators.evaluators import Evaluators, Recipe, Roles, find_roles
from causalgen.metrics.evaluators.networks import Regressor, VariationalAutoencoder, random_affine
from causalgen.metrics.image_rows import rows_of_class
from graphs.variables import Variable
from mechanisms.networks import learning, reproducible_initialisation, single_precision
from mechanisms.seeds import keyed_generator, keyed_seed
from mechanisms.training import Training

__all__ = ["train_evaluators"]

FEWEST = 20
"""Training rows that every class must have."""

STREAM = "judge"
"""Keys the random numbers; it stays, so that a seed goes on giving the networks that it gave."""

Network = TypeVar("Network", bound=nn.Module)


@learning()
def train_evaluators(
    data: object,
    variables: Mapping[str, Variable],
    *,
    test: object = None,
    name: str = "evaluators",
    image: str | None = None,
    label: str | None = None,
    recipe: Recipe | None = None,
    seed: int = 0,
    progress: bool = True,
) -> Evaluators:
    """Train evaluators of a data set; give them training rows only.

    Args:
        data: anything that ``SCM.fit`` takes.
        variables: an image, the categorical variable that it shows, and continuous variables that it shows.
        test: rows to measure the evaluators on, not trained on, for ``metadata["figures"]``.
        name: of the data set, for reports.
        image: name of the image, where there are several.
        label: name of the category, where there are several.
        recipe: sizes and lengths of training; the defaults fit images of about 28 x 28.
        seed: the same seed gives the same evaluators, on the same machine and number of threads.
        progress: show a bar for each.

    Raises:
        DataError: the data are wrong, or a class has fewer than 20 rows.
        SpecError: no image, no category, or several and none is named.
        ShapeError: an image whose height or width is no multiple of 4.
        MechanismError: a loss is no longer finite.
    """
    roles = find_roles(variables, image=image, label=label)
    chosen = recipe if recipe is not None else Recipe()
    table = read_data(data, roles.variables, nodes=variables)
    unseen = None if test is None else read_data(test, roles.variables, nodes=variables)
    codes, where = np.asarray(table[roles.label]), f"Training evaluators, column {roles.label!r}"
    by_class = [
        torch.from_numpy(rows_of_class(codes, code, fewest=FEWEST, where=where))
        for code in range(roles.category.size)
    ]
    began = time.process_time()

    def build(make: Callable[[], Network], key: str) -> Network:
        """A network with initial weights that depend on the seed and the name alone."""
        with reproducible_initialisation(keyed_seed(seed, STREAM, key, "weights")), single_precision():
            return make()

    evaluators = Evaluators(name, roles, chosen, build)
    _train_all(evaluators, table, by_class, seed, progress)
    evaluators.metadata |= {
        "seed": seed,
        "training_rows": table.rows,
        "training_data": table.fingerprint(list(roles.variables)),
        "training_cpu_seconds": round(time.process_time() - began, 1),
        "threads": torch.get_num_threads(),
    }
    if unseen is not None:
        evaluators.metadata["figures"] = _figures(evaluators, unseen)
        evaluators.metadata["test_rows"] = unseen.rows
    return evaluators


def _train_all(
    evaluators: Evaluators, table: Table, by_class: list[Tensor], seed: int, progress: bool
) -> None:
    """Train every network."""
    recipe, networks, roles = evaluators.recipe, evaluators.networks, evaluators.roles
    images, every = _pixels(table, roles), torch.arange(table.rows)
    codes = torch.from_numpy(np.asarray(table[roles.label]))

    def train(
        network: nn.Module,
        settings: Training,
        name: str,
        *,
        rows: Tensor = every,
        targets: Tensor = codes,
        augmentation: Callable[[Tensor, torch.Generator], Tensor] | None = None,
    ) -> None:
        """In place, and leave it in evaluation mode; all its epochs, no average."""
        noise = keyed_generator(seed, STREAM, name, "noise")

        def batch(rows: Tensor) -> tuple[Tensor, Tensor]:
            # Channels last: steps of such small convolutions take about a quarter less time on CPUs.
            pixels = _as_floats(images[rows]).contiguous(memory_format=torch.channels_last)
            return pixels if augmentation is None else augmentation(pixels, noise), targets[rows]

        network.train().requires_grad_(True).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        loss, label = cast(Any, network).loss, f"the evaluator {name!r}"
        objective = Objective(network, batch, loss, rows, (STREAM, name), label, images=True, noise=noise)
        settings = settings.model_copy(update={"ema": 0.0, "precision": "float32"})
        loop = TrainingLoop(objective, settings, seed, LocalRuntime())
        with Progress(name, loop.total, unit="step", enabled=progress) as bar:
            loop.run(bar)
        network.eval().requires_grad_(False).to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]

    train(networks["classifier"], recipe.classifier.training, "classifier", augmentation=random_affine)
    *each, whole = cast(nn.ModuleList, networks["autoencoders"])
    for code, (net, rows) in enumerate(zip(each, by_class, strict=True)):
        train(net, recipe.class_autoencoder.training, f"autoencoder of class {code}", rows=rows)
    train(whole, recipe.autoencoder.training, "autoencoder of all")
    train(networks["variational"], recipe.variational.training, "variational autoencoder")
    if "regressor" in networks:
        values = _numbers(table, roles)
        cast(Regressor, networks["regressor"]).standardise(values)
        train(networks["regressor"], recipe.regressor.training, "regressor", targets=values)


def _as_floats(images: Tensor) -> Tensor:
    """Pixels in [0, 1], float32."""
    return images.float().div(255) if images.dtype == torch.uint8 else images


def _pixels(table: Table, roles: Roles) -> Tensor:
    """Images as uint8, or as floats in [0, 1]."""
    column = table[roles.image]
    if column.dtype == np.uint8:
        return torch.from_numpy(column)
    return torch.from_numpy(roles.picture.decode(column)).float()


def _numbers(table: Table, roles: Roles) -> Tensor:
    """(N, outputs) float64."""
    columns = [np.asarray(table[name]).reshape(table.rows, -1) for name in roles.numbers]
    return torch.from_numpy(np.concatenate(columns, 1))


def _figures(evaluators: Evaluators, table: Table) -> dict[str, float]:
    """How good the evaluators are on rows they have not seen."""
    roles = evaluators.roles
    codes = np.asarray(table[roles.label])
    pixels = _as_floats(_pixels(table, roles))
    figures = {"accuracy": float((evaluators.classes(pixels) == codes).mean())}
    own = evaluators.class_autoencoder(codes)(pixels)
    other = evaluators.class_autoencoder((codes + 1) % roles.category.size)(pixels)
    redrawn = {"of its class": own, "of the next class": other, "of all": evaluators.autoencoder(pixels)}
    for what, made in redrawn.items():
        error = (made - pixels).square().flatten(1).sum(1).mean()
        figures[f"squared error, autoencoder {what}"] = float(error)
    variational = cast(VariationalAutoencoder, evaluators.networks["variational"])
    figures["negative evidence lower bound (nats)"] = _bound(variational, pixels)
    if roles.numbers:
        for name, seen in evaluators.numbers(pixels).items():
            figures[f"mean absolute error of {name}"] = float(np.abs(seen - table[name]).mean())
    return {what: round(value, 5) for what, value in figures.items()}


@torch.no_grad()
def _bound(network: VariationalAutoencoder, pixels: Tensor) -> float:
    generator = torch.Generator().manual_seed(0)
    parts = pixels.split(1000)
    return sum(float(network.loss(part, part, generator)) * len(part) / len(pixels) for part in parts)
