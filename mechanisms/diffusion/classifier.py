"""A classifier of one's own as anticausal predictor: it reads a category in the estimate of the clean image.

An ordinary classifier c knows no noise, so guidance does not ask it about x_bar, but about the denoiser's
estimate of x_0 (Bansal et al. 2023, "Universal guidance for diffusion models", eq. 6; for inverse problems
Chung et al. 2023):

    log q(pa | x_bar) := log softmax(c(D(x_bar)))[pa],    D(x_bar) = x_bar - sigma eps_base(x_bar)

Algorithm 3 of Diff-SCM (Sanchez & Tsaftaris 2022) has a predictor p_phi(pa | x_t) of the noised image itself,
which the other kinds are, trained on noised rows. D is the mean of x_0, so that the two agree as sigma goes
to 0; above, q leaves out how uncertain x_0 still is, and guidance by it is a heuristic at any strength.

The gradient goes through the classifier, in latents through the decoder, and through the denoiser; without
the last, D is taken to move as x_bar does, which saves the denoiser's backward pass and its memory.

A classifier is a module, in Python, or one of torchvision's, by name. Of these a file can speak, and their
weights are saved with the model, as safetensors.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Literal, NoReturn, final

import torch
from pydantic import ConfigDict, Field, field_validator, model_validator
from pydantic.json_schema import SkipJsonSchema
from torch import Tensor, nn

from graphs.errors import CheckpointError, MechanismError, UnknownNameError
from graphs.variables import Categorical, Image, Variable
from mechanisms.conditioning import Conditioning
from mechanisms.diffusion.diffusers_folder import FrozenNetwork, inside, read_safetensors
from mechanisms.diffusion.guidance import Guidance
from mechanisms.diffusion.predictor import AnticausalPredictor
from mechanisms.encoders import Encoder

__all__ = ["Classifier", "OwnPredictor", "is_classifier"]

_OPTIONS_IN_WEIGHTS = ("googlenet", "inception_v3")
"""Architectures whose published weights change what they compute, or which layers they have."""

_FAILURES = (RuntimeError, ValueError, TypeError, IndexError, AssertionError, NotImplementedError)
"""What a network raises at an image of another size or of other channels."""

_Channels = Annotated[tuple[float, ...], Field(min_length=1, max_length=64)]
_Side = Annotated[int, Field(ge=1, le=4096)]


@final
class Classifier(Encoder, frozen=True):
    """A classifier that was trained elsewhere, which reads one categorical parent in the estimate of x_0.

    It is not trained, and knows no noise. Where it should see other images than the data has, it gets them
    resized and normalised. Its categories are the parent's, in the same order and number; what it takes for
    granted of their frequencies should be the model's.

    Attributes:
        network: the name of an architecture of torchvision's, such as resnet18, made for as many classes as
            the parent has; in Python also a module, images (N, C, H, W) to logits (N, K), which is copied and
            not saved.
        parent: which one it reads.
        mean: subtracted from each channel of images in [0, 1]; as many numbers as it takes channels, which a
            grey image is repeated to. Of torchvision's own weights [0.485, 0.456, 0.406].
        std: that each channel is divided by afterwards. Of torchvision's own weights [0.229, 0.224, 0.225].
        size: height and width that images are resized to; None where it takes those of the data.
        weights: of an architecture: a safetensors file, in a file one below the working directory; in Python
            also a state dict. A saved model has them.
        through_denoiser: whether the gradient goes through the denoiser too.
    """

    model_config = ConfigDict(arbitrary_types_allowed=True)

    kind: Literal["classifier"] = "classifier"
    network: str | SkipJsonSchema[nn.Module]
    parent: str
    mean: _Channels
    std: _Channels
    size: tuple[_Side, _Side] | None = None
    weights: Path | SkipJsonSchema[dict[str, Tensor]] | None = None
    through_denoiser: bool = True

    @field_validator("weights", mode="before")
    @classmethod
    def _inside(cls, value: object) -> object:
        if value == {}:
            raise ValueError("a state dict without weights")
        return inside(value, "a weights file") if isinstance(value, str) else value

    @model_validator(mode="after")
    def _agrees(self) -> Classifier:
        if len(self.mean) != len(self.std):
            raise ValueError(
                f"mean and std have a number for each channel, got {len(self.mean)} and {len(self.std)}"
            )
        if not all(each > 0 for each in self.std):
            raise ValueError(f"std is above 0, got {list(self.std)}")
        if self.weights is not None and not isinstance(self.network, str):
            raise ValueError("weights are of an architecture by name: a module has its own, leave them out")
        if isinstance(self.network, str):
            from torchvision import models

            # Those that a name and weights determine.
            known = [each for each in models.list_models(module=models) if each not in _OPTIONS_IN_WEIGHTS]
            if self.network not in known:
                error = UnknownNameError.of("architecture", self.network, known, where="torchvision.models")
                raise ValueError(error.args[0].removesuffix("."))
        return self

    @property
    def features(self) -> int:
        """Refused: it is no encoder."""
        self._refuse()

    def check_size(self, height: int, width: int) -> None:
        """Refuse to be an encoder, by a MechanismError; a predictor is checked with its image."""
        self._refuse()

    def build(self, image_channels: int) -> nn.Module:
        """Refused: it is no encoder."""
        self._refuse()

    def check(self, parents: Mapping[str, Variable], guidance: Guidance) -> None:
        """Refuse parents that it cannot read, and guidance that needs others read too."""
        UnknownNameError.check("parent", self.parent, parents, where="predictor 'classifier'")
        variable = parents[self.parent]
        if not isinstance(variable, Categorical):
            raise MechanismError(
                f"The classifier reads categories, but parent {self.parent!r} is {variable.describe()}. "
                "Leave `predictor` out for one that is trained with the node."
            )
        others = [name for name in guidance.steerable(parents) if name != self.parent]
        unread = f"the classifier reads {self.parent!r} alone"
        if guidance.corrections:
            raise MechanismError(
                f"Guidance {guidance.kind!r}: corrections follow numbers, but {unread}. "
                "Leave `corrections` out."
            )
        if others and guidance.needs >= {"unconditional", "predictor"}:
            raise MechanismError(
                f"Guidance {guidance.kind!r}: {unread}, and an unconditional denoiser does not know "
                f"{', '.join(others)} either. Use `denoiser: conditional`, which takes new values of these."
            )
        wrong = [name for name in guidance.named() if name != self.parent]
        if wrong and "predictor" in guidance.needs:
            raise MechanismError(
                f"Guidance {guidance.kind!r}: {guidance.strength_option} names {wrong[0]!r}, but {unread}. "
                "Leave it out."
            )

    def without_weights(self) -> Classifier:
        """What a model says that has them, and what its file can say."""
        return self.model_copy(update={"weights": None})

    def describe(self) -> str:
        """It in words, as "classifier resnet18 of 'animal'"."""
        network = self.network if isinstance(self.network, str) else type(self.network).__name__
        return f"classifier {network} of {self.parent!r}"

    def why_unwritable(self) -> str | None:
        """A module of this session."""
        if isinstance(self.network, str):
            return None
        return (
            f"its classifier, a {type(self.network).__name__}, is a module of this Python session, which no "
            "file can say and no model saves. Give an architecture of torchvision's by name, with the "
            "module's weights: Classifier(network='resnet18', weights=module.state_dict(), ...)."
        )

    def make(self, categories: int) -> FrozenNetwork:
        """The classifier, with what weights it was given."""
        if not isinstance(self.network, str):
            return FrozenNetwork(copy.deepcopy(self.network).float(), "", waits=False)
        remedy = (
            f"The weights of its classifier, {self.network} of {categories} classes, do not come with the "
            "model. Give `weights`, a safetensors file, as safetensors.torch.save_file writes it of the "
            "module's state_dict()."
        )
        made = FrozenNetwork(_laid_out(self.network, categories), remedy)
        if isinstance(self.weights, Path):
            if self.weights.suffix in (".pt", ".pth", ".bin", ".ckpt"):
                raise CheckpointError(
                    f"{self.weights} is a pickle, which may run any code when it is read, and is not read. "
                    "Convert it once: safetensors.torch.save_file(torch.load(old, weights_only=True), new)."
                )
            made.take(read_safetensors(self.weights), self.weights)
        elif self.weights is not None:
            made.take({name: each.detach().clone() for name, each in self.weights.items()}, "the state dict")
        return made

    def _refuse(self) -> NoReturn:
        raise MechanismError(
            "A 'classifier' reads a parent of an image: it is a `predictor` of an image node, no encoder."
        )


def is_classifier(predictor: object) -> bool:
    """Whether options, written or parsed, are those of one."""
    written = isinstance(predictor, Mapping) and predictor.get("kind") == "classifier"
    return written or isinstance(predictor, Classifier)


class OwnPredictor(AnticausalPredictor):
    """log q(pa_k | x_bar) of one parent by a classifier, whose logits are the features.

    ``lowest`` is the level up to which an image counts as clean; ``decode`` takes latents to pixels, with
    gradients, and is None where the diffusion is one of pixels.
    """

    decode: Callable[[Tensor], Tensor] | None = None

    def __init__(self, parents: Mapping[str, Variable], spec: Classifier, lowest: float) -> None:
        nn.Module.__init__(self)
        variable = parents[spec.parent]
        assert isinstance(variable, Categorical)
        self.spec, self.through, self.lowest = spec.without_weights(), spec.through_denoiser, lowest
        self.variables, self.names = {spec.parent: variable}, (spec.parent,)
        self.categories = variable.size
        self.conditioning = Conditioning(self.variables, dtype=torch.float32)
        self.encoder = spec.make(variable.size)
        self.register_buffer("pixel_mean", torch.tensor(0.5, dtype=torch.float32))
        self.register_buffer("pixel_std", torch.tensor(0.5, dtype=torch.float32))

    @torch.no_grad()
    def check_image(self, image: Image) -> None:
        """Refuse images that the classifier cannot take, by a MechanismError: it is asked about two."""
        spec, takes = self.spec, len(self.spec.mean)
        if image.channels not in (1, takes):
            raise MechanismError(
                f"The classifier of {spec.parent!r} takes {takes} channels, as many as `mean` has numbers, "
                f"but the variable is {image.describe()}."
            )
        first = next(self.encoder.model.parameters(), torch.zeros(()))
        blank = torch.zeros(2, *image.shape, device=first.device)
        try:
            found = self.encoder.model(self._seen(blank))
        except _FAILURES as error:
            height, width = spec.size or (image.height, image.width)
            raise MechanismError(
                f"The classifier of {spec.parent!r} does not take images of {takes}x{height}x{width}: "
                f"{(str(error).splitlines() or [type(error).__name__])[0]} Give the `size` that it was "
                "trained on, and as many numbers of `mean` and `std` as it takes channels."
            ) from error
        shape = tuple(found.shape) if isinstance(found, Tensor) else f"a {type(found).__name__}"
        if shape != (2, self.categories):
            raise MechanismError(
                f"The classifier of {spec.parent!r} gives {shape} for 2 images, expected logits (2, "
                f"{self.categories}): one for each category of {spec.parent!r}, in their order."
            )

    def encode(self, x: Tensor, sigma: Tensor | float) -> Tensor:
        """Logits (N, K) of clean images, or of the latents of such, as they are shown: within [-1, 1]."""
        if torch.as_tensor(sigma).max() > self.lowest * (1 + 1e-6):
            raise MechanismError(
                f"The classifier of {self.spec.parent!r} reads clean images, got some at level "
                f"{torch.as_tensor(sigma).max():.3g}: ask `encode_estimate`."
            )
        return self._logits(x, clean=True)

    def encode_estimate(
        self, x: Tensor, sigma: float, base: Callable[[Tensor], Tensor]
    ) -> tuple[Tensor, Tensor]:
        """Logits (N, K) of the estimate of x_0, differentiable in x, and the noise that it follows from.

        x is x_bar (N, C, H, W) at a level, ``base`` takes it to its noise as the guided denoiser has it.
        """
        with torch.set_grad_enabled(self.through and torch.is_grad_enabled()):
            noise = base(x)
        return self._logits(x - sigma * noise), noise.detach()

    def of_pixels(self) -> OwnPredictor:
        """The same one, of images where the diffusion is one of latents."""
        same = copy.copy(self)
        same.decode = None
        return same

    def _logits(self, image: Tensor, *, clean: bool = False) -> Tensor:
        self.encoder.check_weights()
        with torch.autocast(image.device.type, enabled=False):
            pixels = image if self.decode is None else self.decode(image)
            found = self.encoder.model(self._seen(pixels.clamp(-1, 1) if clean else pixels)).to(image.dtype)
        if not bool(found.isfinite().all()):
            row = int((~found.isfinite().all(1)).nonzero()[0])
            raise MechanismError(
                f"The classifier of {self.spec.parent!r} gives logits that are not finite, first in row "
                f"{row}. It gives log probabilities with -inf, or its weights, `mean` or `std` are wrong."
            )
        return found

    def _seen(self, pixels: Tensor) -> Tensor:
        """Images in [-1, 1] as the classifier takes them."""
        dtype = next((each.dtype for each in self.encoder.model.parameters()), pixels.dtype)
        mean = torch.tensor(self.spec.mean, dtype=dtype, device=pixels.device)
        std = torch.tensor(self.spec.std, dtype=dtype, device=pixels.device)
        shown = ((pixels.to(dtype) + 1) / 2).expand(-1, len(mean), -1, -1)
        if self.spec.size is not None and tuple(shown.shape[2:]) != self.spec.size:
            shown = nn.functional.interpolate(shown, self.spec.size, mode="bilinear", antialias=True)
        return (shown - mean.view(-1, 1, 1)) / std.view(-1, 1, 1)

    def _head(self, name: str, features: Tensor, columns: Tensor) -> Tensor:
        return features


def _laid_out(name: str, categories: int) -> nn.Module:
    """An architecture of torchvision's, without memory for its weights."""
    from accelerate import init_empty_weights
    from torchvision import models

    try:
        with torch.device("meta"):
            return models.get_model(name, weights=None, num_classes=categories)
    except NotImplementedError:  # RegNet computes its widths by tensors
        with init_empty_weights():
            return models.get_model(name, weights=None, num_classes=categories)
