"""Evaluators: networks that score counterfactual images, trained apart from every model that they score.

    classifier      p(class | x): effectiveness; its last hidden layer: the features of FD
    autoencoders    one for each class, and one for all: IM1, IM2
    variational     q(z | x): CLD
    regressor       continuous causes read from the image, where there are any

Images come as everywhere at the border: (N, C, H, W), uint8 in 0..255 or floats in [0, 1].
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn

from causalgen.metrics.evaluators import networks
from causalgen.metrics.feature_distance import Features
from causalgen.metrics.image_rows import check_same_rows, class_codes, image_rows
from graphs.errors import MechanismError, SpecError, UnknownNameError
from graphs.variables import Categorical, Continuous, Image, Variable
from mechanisms.networks import answering, reproducible_initialisation, single_precision
from mechanisms.training import Training

__all__ = ["CodedRecipe", "Evaluators", "NetworkRecipe", "Recipe", "Roles", "find_roles"]

_CHUNK = 1000

Positive = Annotated[int, Field(ge=1)]


@dataclass(frozen=True)
class Roles:
    """Names of the image and of the category and the numbers that it shows, with their variables."""

    image: str
    label: str
    numbers: tuple[str, ...]
    variables: Mapping[str, Variable]

    @property
    def picture(self) -> Image:
        """The image variable."""
        variable = self.variables[self.image]
        assert isinstance(variable, Image)
        return variable

    @property
    def category(self) -> Categorical:
        """The categorical variable."""
        variable = self.variables[self.label]
        assert isinstance(variable, Categorical)
        return variable

    @property
    def outputs(self) -> int:
        """How many numbers there are to read."""
        return sum(self._sizes())

    def by_name(self, values: NDArray[np.float64]) -> dict[str, NDArray[np.float64]]:
        """(N, outputs) as (N, *event) by name."""
        parts = np.split(values, np.cumsum(self._sizes())[:-1], axis=1)
        return {
            name: part.reshape(len(values), *self.variables[name].event_shape)
            for name, part in zip(self.numbers, parts, strict=True)
        }

    def describe(self) -> str:
        """As in "digit (categorical, 10) and thickness from image (image 1x28x28)"."""
        listed = [f"{name} ({self.variables[name].describe()})" for name in (self.label, *self.numbers)]
        return f"{', '.join(listed)} from {self.image} ({self.picture.describe()})"

    def _sizes(self) -> list[int]:
        return [int(np.prod(self.variables[name].event_shape, dtype=int)) for name in self.numbers]


def find_roles(
    variables: Mapping[str, Variable], *, image: str | None = None, label: str | None = None
) -> Roles:
    """The roles among a model's variables: its image, its category, and all that is continuous.

    Raises:
        UnknownNameError: no variable of that name.
        SpecError: no image or category, or several and none is named, or the named one is no such variable.
    """
    image = _only(variables, Image, "image", image)
    label = _only(variables, Categorical, "label", label)
    numbers = tuple(name for name, each in variables.items() if isinstance(each, Continuous))
    return Roles(image, label, numbers, {name: variables[name] for name in (image, label, *numbers)})


def _only(variables: Mapping[str, Variable], kind: type, role: str, name: str | None) -> str:
    found = [each for each, variable in variables.items() if isinstance(variable, kind)]
    if name is None and len(found) == 1:
        return found[0]
    what = f"{kind.__name__.lower()} variable"
    if name is None:
        listed = f"several: {', '.join(found)}. Name one by {role}=" if found else "none"
        raise SpecError(f"Evaluators need one {what}, and the variables hold {listed}.")
    UnknownNameError.check("variable", name, variables, where=f"{role}=")
    if name not in found:
        raise SpecError(f"{role}={name!r}: expected a {what}, got one that is {variables[name].describe()}.")
    return name


def _training(epochs: int, learning_rate: float, batch_size: int = 128) -> Training:
    return Training(
        epochs=epochs, batch_size=batch_size, learning_rate=learning_rate, weight_decay=0.01, ema=0.0
    )


class NetworkRecipe(BaseModel):
    """The size of a network and how it is trained.

    Attributes:
        width: channels of its convolutions; those of a classifier or a regressor end with twice as many.
        training: settings of the fitting loop.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    width: Positive
    training: Training


class CodedRecipe(NetworkRecipe):
    """A network with a latent code.

    Attributes:
        latent: numbers of the code of an image.
    """

    latent: Positive


class Recipe(BaseModel):
    """Sizes and training of a data set's evaluators: what a manifest needs to build them again.

    Attributes:
        class_autoencoder: one for each class, on the rows of that class.
        autoencoder: on all rows; the same size as those of the classes, so that IM2 compares like with like.
        variational: on all rows; measures latent distances.
        classifier: reads the class, and gives the features of FD.
        regressor: reads the continuous causes, where there are any.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    class_autoencoder: CodedRecipe = CodedRecipe(width=16, latent=16, training=_training(10, 4e-3, 64))
    autoencoder: CodedRecipe = CodedRecipe(width=16, latent=16, training=_training(4, 4e-3))
    variational: CodedRecipe = CodedRecipe(width=24, latent=16, training=_training(8, 3e-3))
    classifier: NetworkRecipe = NetworkRecipe(width=32, training=_training(6, 4e-3))
    regressor: NetworkRecipe = NetworkRecipe(width=24, training=_training(5, 4e-3))


class Evaluators:
    """The evaluators of one data set; ``load_evaluators`` and ``train_evaluators`` make them.

    Args:
        name: of the data set, for reports.
        roles: the variables they read.
        recipe: their sizes.
        build: makes a network by its name; by default as it is, with whatever weights torch draws.

    Attributes:
        networks: ``classifier``, ``autoencoders`` (a list: the classes in order, then all), ``variational``
            and perhaps ``regressor``, in evaluation mode.
        metadata: what is known of them: seed, training data, figures on rows they were not trained on.
        sha256: of each network's weights; empty until saved or loaded.
    """

    def __init__(
        self,
        name: str,
        roles: Roles,
        recipe: Recipe,
        build: Callable[[Callable[[], nn.Module], str], nn.Module] = lambda make, name: make(),
    ) -> None:
        image, classes = roles.picture, roles.category.size
        networks.check_size(image)
        self.name, self.roles, self.recipe = name, roles, recipe
        self.metadata: dict[str, object] = {}
        self.sha256: dict[str, str] = {}
        each, whole, coded = recipe.class_autoencoder, recipe.autoencoder, recipe.variational

        def autoencoders() -> nn.Module:
            by_class = [networks.Autoencoder(image, each.width, each.latent) for _ in range(classes)]
            return nn.ModuleList([*by_class, networks.Autoencoder(image, whole.width, whole.latent)])

        makers: dict[str, Callable[[], nn.Module]] = {
            "classifier": lambda: networks.Classifier(image, recipe.classifier.width, classes),
            "autoencoders": autoencoders,
            "variational": lambda: networks.VariationalAutoencoder(image, coded.width, coded.latent),
        }
        if roles.numbers:
            makers["regressor"] = lambda: networks.Regressor(image, recipe.regressor.width, roles.outputs)
        # torch draws weights as soon as there is a layer.
        with reproducible_initialisation(), single_precision():
            self.networks: dict[str, nn.Module] = {
                key: build(make, key).eval().requires_grad_(False) for key, make in makers.items()
            }

    def __repr__(self) -> str:
        parameters = sum(each.numel() for net in self.networks.values() for each in net.parameters())
        return f"Evaluators({self.name}: {self.roles.describe()}; {parameters:,} parameters)"

    def classes(self, images: object) -> NDArray[np.int64]:
        """The class seen in each image, (N,) codes."""
        return self._apply(self.networks["classifier"], images).argmax(1).numpy()

    def numbers(self, images: object) -> dict[str, NDArray[np.float64]]:
        """The continuous causes seen in each image, (N, *event) each, in their units.

        Raises:
            MechanismError: these evaluators have no regressor.
        """
        if "regressor" not in self.networks:
            raise MechanismError(
                f"The evaluators of {self.name} read no continuous variable from an image: they were trained "
                f"on {self.roles.describe()}."
            )
        values = self._apply(self.networks["regressor"], images).numpy()
        return self.roles.by_name(values)

    @property
    def readers(self) -> dict[str, Callable[[object], NDArray[Any]]]:
        """What reads each variable from images, by name: the ``readers`` of ``metrics.effectiveness``."""
        reads: dict[str, Callable[[object], NDArray[Any]]] = {self.roles.label: self.classes}
        for name in self.roles.numbers:
            reads[name] = partial(self._number, name)
        return reads

    def latents(self, images: object) -> tuple[Tensor, Tensor]:
        """Mean and log-variance of q(z | x), each (N, latent) float64: the ``encode`` of CLD."""
        both = self._apply(lambda part: torch.cat(self.networks["variational"](part), 1), images)
        mean, log_variance = both.double().chunk(2, dim=1)
        return mean, log_variance

    @property
    def features(self) -> Features:
        """The classifier's features, with its name and checksum, for ``feature_distance``.

        Raises:
            MechanismError: the evaluators have not been saved, so that their weights have no checksum yet.
        """
        if not self.sha256:
            raise MechanismError(
                f"The evaluators of {self.name} have no checksum yet, and a distance in their features must "
                "name it. Save them first: save_evaluators(evaluators, folder)."
            )
        classifier = cast(networks.Classifier, self.networks["classifier"])

        def features(images: Tensor) -> Tensor:
            return classifier.trunk(self._checked(images))

        return Features(f"{self.name} classifier", self.sha256["classifier"], features)

    @property
    def autoencoder(self) -> Callable[[object], Tensor]:
        """The autoencoder of all classes, images to reconstructions in [0, 1]."""
        return lambda images: self._apply(self._autoencoders()[-1], images)

    def class_autoencoder(self, classes: object) -> Callable[[object], Tensor]:
        """Each row's image to its reconstruction by the autoencoder of that row's class, (N,) codes.

        Raises:
            DomainError: a code that is no class.
            ShapeError: not a code a row.
        """
        codes = class_codes(classes, where="The classes", count=self.roles.category.size)

        def reconstruct(images: object) -> Tensor:
            pixels = self._checked(images)
            check_same_rows(images=pixels, classes=codes)
            made = torch.empty_like(pixels)
            for code in np.unique(codes).tolist():
                rows = torch.from_numpy(np.flatnonzero(codes == code))
                made[rows] = self._apply(self._autoencoders()[code], pixels[rows])
            return made

        return reconstruct

    def _number(self, name: str, images: object) -> NDArray[np.float64]:
        return self.numbers(images)[name]

    def _autoencoders(self) -> nn.ModuleList:
        return cast(nn.ModuleList, self.networks["autoencoders"])

    def _checked(self, images: object) -> Tensor:
        return image_rows(images, where=f"Images for the evaluators of {self.name}", image=self.roles.picture)

    @answering()
    def _apply(self, network: Callable[[Tensor], Tensor], images: object) -> Tensor:
        return torch.cat([network(part) for part in self._checked(images).split(_CHUNK)])
