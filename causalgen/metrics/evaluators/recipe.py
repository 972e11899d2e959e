"""How large the judges are and how long each is trained: what a manifest needs to build them again."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from mechanisms.training import Training

__all__ = ["CodedRecipe", "NetworkRecipe", "Recipe"]

Positive = Annotated[int, Field(ge=1)]


def _training(epochs: int, learning_rate: float, batch_size: int = 128) -> Training:
    return Training(
        epochs=epochs, batch_size=batch_size, learning_rate=learning_rate, weight_decay=0.01, ema=0.0
    )


class NetworkRecipe(BaseModel):
    """One judge.

    Attributes:
        width: channels of the convolutions.
        training: settings of the loop.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    width: Positive
    training: Training


class CodedRecipe(NetworkRecipe):
    """A judge with a code.

    Attributes:
        latent: numbers in the code.
    """

    latent: Positive


class Recipe(BaseModel):
    """All judges of a data set.

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
