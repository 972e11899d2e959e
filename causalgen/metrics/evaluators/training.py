"""Training the judges of a data set, one network after the other, all deterministic.

Each class's autoencoder sees the rows of its class alone. The classifier sees its images moved about, which
no other judge does: the others must take an image as it is.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import cast

import numpy as np
import torch
from torch import Tensor, nn

from causalgen.data.reading import read_data
from causalgen.data.table import Table
from causalgen.metrics.evaluators.augmentation import moved
from causalgen.metrics.evaluators.autoencoder import Autoencoder
from causalgen.metrics.evaluators.classifier import Classifier
from causalgen.metrics.evaluators.judges import Judges
from causalgen.metrics.evaluators.loop import as_floats, build, train
from causalgen.metrics.evaluators.recipe import Recipe
from causalgen.metrics.evaluators.regressor import Regressor
from causalgen.metrics.evaluators.roles import Roles, find_roles
from causalgen.metrics.evaluators.variational import VariationalAutoencoder
from causalgen.metrics.image_rows import rows_of_class
from graphs.variables import Variable

__all__ = ["train_judges"]

FEWEST = 20
"""Training rows that every class must have."""


def train_judges(
    data: object,
    variables: Mapping[str, Variable],
    *,
    test: object = None,
    name: str = "judges",
    image: str | None = None,
    label: str | None = None,
    recipe: Recipe | None = None,
    seed: int = 0,
    progress: bool = True,
) -> Judges:
    """Train judges of a data set; give them training rows only.

    Args:
        data: anything that ``SCM.fit`` takes.
        variables: an image, the categorical variable that it shows, and continuous variables that it shows.
        test: rows to measure the judges on, which they are not trained on, for ``told["figures"]``.
        name: of the data set, for reports.
        image: name of the image, where there are several.
        label: name of the category, where there are several.
        recipe: sizes and lengths of training; the defaults fit images of about 28 x 28.
        seed: the same seed gives the same judges, on the same machine and number of threads.
        progress: show a bar for each.

    Raises:
        DataError: the data are wrong, or a class has fewer than 20 rows.
        SpecError: no image, no category, or several and none is named.
        ShapeError: an image whose height or width is no multiple of 4.
    """
    roles = find_roles(variables, image=image, label=label)
    chosen = recipe if recipe is not None else Recipe()
    table = read_data(data, roles.variables)
    unseen = None if test is None else read_data(test, roles.variables)
    by_class = _rows_by_class(table, roles)
    began = time.process_time()
    judges = Judges(name, roles, chosen, build=lambda make, key: build(make, seed, key))
    _Training(judges, table, seed, progress).run(by_class)
    judges.told |= {
        "seed": seed,
        "training_rows": table.rows,
        "training_data": table.fingerprint(list(roles.variables)),
        "training_cpu_seconds": round(time.process_time() - began, 1),
        "threads": torch.get_num_threads(),
    }
    if unseen is not None:
        judges.told["figures"] = _figures(judges, unseen)
        judges.told["test_rows"] = unseen.rows
    return judges


def _rows_by_class(table: Table, roles: Roles) -> list[Tensor]:
    codes = np.asarray(table[roles.label])
    where = f"Training judges, column {roles.label!r}"
    found = [rows_of_class(codes, code, fewest=FEWEST, where=where) for code in range(roles.category.size)]
    return [torch.from_numpy(rows) for rows in found]


class _Training:
    """One call of ``train_judges``."""

    def __init__(self, judges: Judges, table: Table, seed: int, progress: bool) -> None:
        self._judges, self._seed, self._progress = judges, seed, progress
        self._images = _pixels(table, judges.roles)
        self._codes = torch.from_numpy(np.asarray(table[judges.roles.label]))
        self._table = table

    def run(self, by_class: list[Tensor]) -> None:
        """Train every network."""
        recipe, networks = self._judges.recipe, self._judges.networks
        classifier = cast(Classifier, networks["classifier"])
        options = {"seed": self._seed, "progress": self._progress}
        train(
            classifier,
            classifier.loss,
            self._images,
            self._codes,
            recipe.classifier.training,
            name="classifier",
            augmentation=moved,
            **options,
        )
        *each, whole = [cast(Autoencoder, net) for net in cast(nn.ModuleList, networks["autoencoders"])]
        for code, (net, rows) in enumerate(zip(each, by_class, strict=True)):
            settings = recipe.class_autoencoder.training
            images = self._images[rows]
            train(net, net.loss, images, rows, settings, name=f"autoencoder of class {code}", **options)
        settings = recipe.autoencoder.training
        train(whole, whole.loss, self._images, self._codes, settings, name="autoencoder of all", **options)
        net = cast(VariationalAutoencoder, networks["variational"])
        settings = recipe.variational.training
        train(net, net.loss, self._images, self._codes, settings, name="variational autoencoder", **options)
        if "regressor" in networks:
            reader = cast(Regressor, networks["regressor"])
            values = _numbers(self._table, self._judges.roles)
            reader.standardise(values)
            settings = recipe.regressor.training
            train(reader, reader.loss, self._images, values, settings, name="regressor", **options)


def _pixels(table: Table, roles: Roles) -> Tensor:
    """Images as uint8, or as floats in [0, 1]."""
    column = table[roles.image]
    if column.dtype == np.uint8:
        return torch.from_numpy(column)
    return torch.from_numpy(roles.picture.decode(column)).float()


def _numbers(table: Table, roles: Roles) -> Tensor:
    """(N, outputs) float32."""
    columns = [np.asarray(table[name]).reshape(table.rows, -1) for name in roles.numbers]
    return torch.from_numpy(np.concatenate(columns, 1)).float()


def _figures(judges: Judges, table: Table) -> dict[str, float]:
    """How good the judges are on rows they have not seen."""
    roles = judges.roles
    codes = np.asarray(table[roles.label])
    pixels = as_floats(_pixels(table, roles))
    figures = {"accuracy": float((judges.classes(pixels) == codes).mean())}
    own = judges.class_autoencoder(codes)(pixels)
    other = judges.class_autoencoder((codes + 1) % roles.category.size)(pixels)
    for what, made in (
        ("of its class", own),
        ("of the next class", other),
        ("of all", judges.autoencoder(pixels)),
    ):
        error = (made - pixels).square().flatten(1).sum(1).mean()
        figures[f"squared error, autoencoder {what}"] = float(error)
    variational = cast(VariationalAutoencoder, judges.networks["variational"])
    figures["negative evidence lower bound (nats)"] = _bound(variational, pixels)
    if roles.numbers:
        for name, seen in judges.numbers(pixels).items():
            figures[f"mean absolute error of {name}"] = float(np.abs(seen - table[name]).mean())
    return {what: round(value, 5) for what, value in figures.items()}


@torch.no_grad()
def _bound(network: VariationalAutoencoder, pixels: Tensor) -> float:
    generator = torch.Generator().manual_seed(0)
    parts = pixels.split(1000)
    return sum(float(network.loss(part, part, generator)) * len(part) / len(pixels) for part in parts)
