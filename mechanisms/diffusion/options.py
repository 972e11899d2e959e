"""What an SCM file may say of an image node: the parts of its diffusion model, and which of them agree.

Where a file leaves the network and the training out, they are chosen by the size of images. Large images fold
larger blocks of pixels into channels, so that their cost grows less than their pixels. What was chosen is
part of the bound mechanism's spec, and so of every file that is written from it: a saved model stays what it
is when this table changes. The first line of it never does.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import Field, StrictBool, model_validator

from graphs.errors import MechanismError
from graphs.variables import Categorical, Image, Variable
from mechanisms.diffusion.backbones import BACKBONES, AnyBackbone, Backbone, UNet
from mechanisms.diffusion.classifier import Classifier
from mechanisms.diffusion.code import Code
from mechanisms.diffusion.denoiser import Prediction
from mechanisms.diffusion.distillation import Distilled
from mechanisms.diffusion.guidance import GUIDANCE, AnyGuidance, ClassifierFree
from mechanisms.diffusion.latents import Autoencoder
from mechanisms.diffusion.predictor import ResNet
from mechanisms.diffusion.pretrained import Pretrained
from mechanisms.diffusion.schedule import GRIDS
from mechanisms.diffusion.solvers import SOLVERS, Anchored, AnySolver
from mechanisms.encoders import ENCODERS, AnyEncoder
from mechanisms.options import TrainedSpec
from mechanisms.training import ImageTraining, least_steps

__all__ = ["DiffusionOptions", "Preset", "preset", "settled"]

_EPOCHS = 6


@dataclass(frozen=True)
class Preset:
    """What is chosen for images of up to some size."""

    pixels: int | None  # largest height times width that it is for; None for any
    backbone: UNet  # the denoising network
    batch_size: int  # rows a step. Few of large images: an interrupt waits for the end of a backward pass.


_SMALL = Preset(32 * 32, UNet(), 64)

_PRESETS = (
    _SMALL,
    Preset(64 * 64, UNet(channels=(48, 96, 128), unshuffle=4, detail=16), 64),
    Preset(128 * 128, UNet(channels=(48, 96, 128), unshuffle=4, detail=16), 32),
    Preset(None, UNet(channels=(64, 128, 128), unshuffle=8, detail=16), 16),
)


def preset(image: Image) -> Preset:
    """The preset for images of a size.

    >>> preset(Image(3, 64, 64)).backbone.unshuffle, preset(Image(1, 28, 28)).backbone == UNet()
    (4, True)
    """
    area = image.height * image.width
    return next(each for each in _PRESETS if each.pixels is None or area <= each.pixels)


def settled(
    backbone: Backbone | None,
    training: ImageTraining | None,
    image: Image | None,
    parents: Mapping[str, Variable],
) -> dict[str, Any]:
    """Both options of ``diffusion`` with nothing left to choose, by name.

    A length in epochs is taken as it is. Where none is given, larger images are trained for a number of steps
    at least, however few they are. ``image`` is None for the options of a saved model, whatever its size:
    those written before there were presets leave out what was the same for all sizes.
    """
    placed = [name for name, parent in parents.items() if isinstance(parent, Image)]
    if training is not None and training.flip and placed:
        raise MechanismError(
            f"training: flip mirrors images, but the parent {placed[0]!r} is an image, which says where "
            "things are. Leave flip out, or mirror both in the data."
        )
    chosen = _SMALL if image is None else preset(image)
    if training is not None:
        floor = 0 if image is None or chosen is _SMALL or training.epochs != "auto" else least_steps(image)
        usual = {"epochs": _EPOCHS, "batch_size": chosen.batch_size, "steps": floor}
        left = {name: value for name, value in usual.items() if getattr(training, name) == "auto"}
        training = training.model_copy(update=left)
    return {"backbone": backbone or chosen.backbone, "training": training}


class DiffusionOptions(TrainedSpec, frozen=True):
    """Options of an image node.

    Attributes:
        backbone: the denoising network; None for a U-Net by the size of the image.
        prediction: what it predicts; ``edm`` for models trained here, ``velocity`` for flow matching.
        dropout: share of training rows that hide parents, which makes the denoiser unconditional too.
        code: a style code: what is particular to an image, kept under interventions; None for no code.
        predictor: the anticausal predictor's encoder, or a classifier that was trained elsewhere; None trains
            none, which rules anticausal guidance out.
        solver: how noise is recovered and images are generated.
        guidance: how counterfactual parents steer generation.
        abduction: ``point`` inverts the clean image, which gives one answer; ``posterior`` draws the noise
            behind it, so that samples differ.
        centred: whether x_T is taken about the image that the parents lead to expect, not about 0, for one
            evaluation more each way; None for where it matters: an image has more numbers than the square of
            the highest level.
        shrinkage: changes of pixels, or of latents, below 4.4 times their median and below this share of the
            image's largest are taken for errors: the pixel keeps its factual value. 0 takes none. For
            parents that move a part of the image.
        distilled: the same flow in a few jumps, for solver ``jumps``; made by ``causalgen distil``.
        levels: mean and standard deviation of ln sigma in training (Karras et al. 2022).
        coarse: weight, beside the loss of pixels, of that of averages over blocks of pixels.
        sharpening: s, for a denoiser of p(image | parents) p(categories | image, other parents)^s: guidance
            of categories at weight 1 + s, learned, at the price of one evaluation (Tang et al. 2025).
        training: settings of the fitting loop.
        autoencoder: makes the diffusion one of its latents; pretrained, or trained before the rest.
        pipeline: the folder of a pipeline that diffusers saved; in a file, one below the working directory.
            It says backbone, prediction, grid and autoencoder, and has the weights; see ``from_pipeline``.
    """

    learned: ClassVar[tuple[str, ...]] = (
        "prediction", "sharpening", "code.nats", "backbone.levels", "backbone.heads", "hides_parents",
        "distilled.steps", "distilled.grid", "autoencoder.config", "autoencoder.folder", "pipeline",
    )  # fmt: skip
    kind: Literal["diffusion"] = "diffusion"
    backbone: AnyBackbone | None = None
    prediction: Prediction = "edm"
    dropout: float = Field(default=0.15, ge=0, lt=1)
    code: Code | None = None
    predictor: AnyEncoder | None = ResNet()
    solver: AnySolver = Anchored()
    guidance: AnyGuidance = ClassifierFree()
    abduction: Literal["point", "posterior"] = "point"
    centred: StrictBool | None = None
    shrinkage: float = Field(default=0.0, ge=0, le=0.5)
    distilled: Distilled | None = None
    levels: tuple[float, Annotated[float, Field(gt=0)]] = (-0.7, 1.4)
    coarse: float = Field(default=0.0, ge=0, allow_inf_nan=False)
    sharpening: float = Field(default=0.0, ge=0, le=10)
    training: ImageTraining | None = ImageTraining(validation=0.01)
    autoencoder: Autoencoder | None = None
    pipeline: Path | None = None

    @model_validator(mode="after")
    def _parts_agree(self) -> Self:
        if isinstance(self.backbone, Pretrained):
            coded, trained = self.code is not None, self.training is not None
            predictor = None if isinstance(self.predictor, Classifier) else self.predictor
            self.backbone.check_options(self.prediction, coded, trained, predictor, self.solver)
            for name in ("coarse", "dropout", "levels", "sharpening"):  # of the denoiser's loss
                if getattr(self, name) != type(self).model_fields[name].default:
                    raise ValueError(f"a pretrained network is not trained: leave `{name}` out")
        elif self.pipeline is not None:
            raise ValueError("a pipeline says its backbone, 'pretrained': leave `backbone` out")
        if self.autoencoder and self.solver.thresholding:
            raise ValueError("thresholding clips pixels, but with an autoencoder the solver walks latents")
        if self.distilled and (self.autoencoder or isinstance(self.backbone, Pretrained)):
            what = "flow through the latents of an autoencoder" if self.autoencoder else "pretrained network"
            raise ValueError(f"a {what} cannot be distilled: take fewer steps")
        if self.autoencoder and self.autoencoder.training:
            self._check_trained_autoencoder()
        levels, interval = self.solver.levels(), self.guidance.interval
        if interval and not any(map(self.guidance.active, levels)):
            raise ValueError(
                f"guidance.interval, {interval[0]:g} to {interval[1]:g}, holds none of the solver's levels "
                f"sigma, {levels[0]:.3g} to {levels[-1]:.3g}: guidance would do nothing"
            )
        if self.predictor is None and (self.guidance.reads_back or "predictor" in self.guidance.needs):
            raise ValueError(
                "this guidance needs a predictor (anticausal, automatic strengths or corrections): "
                "leave `predictor` out for the default one"
            )
        if self.dropout == 0 and "unconditional" in self.guidance.needs:
            raise ValueError("an unconditional denoiser needs dropout above 0: it learns from hidden parents")
        if self.dropout == 0 and self.sharpening:
            raise ValueError("sharpening needs dropout above 0: it is from a denoiser of hidden parents")
        if self.dropout == 0 and self.code and self.code.hidden:
            raise ValueError("a hidden code needs dropout above 0: the denoiser learns to do without from it")
        if self.centred and self.prediction == "eps":
            raise ValueError(
                "prediction eps cannot be centred: at the highest level an error of eps is many times as "
                "large in the image"
            )
        if self.centred and self.solver.distilled:
            raise ValueError("jumps were learned of noise about 0: leave `centred` out")
        if self.solver.needs_conditional and "conditional" not in self.guidance.needs:
            raise ValueError(
                f"solver {self.solver.kind} needs a conditional denoiser (it drifts on unconditional "
                "fields): use anchored"
            )
        return self

    @property
    def hides_parents(self) -> bool:
        """Whether the denoiser learns to do without parents, and without a code."""
        return self.dropout > 0

    def _check_trained_autoencoder(self) -> None:
        """Refuse, by a ValueError, what does not go with an autoencoder that is trained with the node."""
        if self.training is None:
            raise ValueError("an autoencoder is trained in the fit of its node, but its `training` is null")
        if self.code is not None:
            raise ValueError(
                "a style code is learned of latents that stay: leave `code` out, or give a folder"
            )
        if isinstance(self.backbone, Pretrained):
            raise ValueError("a pretrained network knows the latents of its own autoencoder, no new ones")

    def check_parents(self, parents: Mapping[str, Variable]) -> None:
        """Refuse options about parents that there are not, by a MechanismError or UnknownNameError."""
        self.guidance.check_parents(parents)
        if self.sharpening and not any(isinstance(parent, Categorical) for parent in parents.values()):
            raise MechanismError(
                f"sharpening is of categorical parents, but there are none among {sorted(parents)}: leave "
                "`sharpening` out."
            )

    def as_saved(self) -> Self:
        """With the network and the training that left-out options were before they followed the size."""
        return self.model_copy(update=settled(self.backbone, self.training, None, {}))

    def why_unwritable(self) -> str | None:
        """A part from Python that is not registered."""
        if isinstance(self.predictor, Classifier) and (why := self.predictor.why_unwritable()):
            return why
        parts = (
            (BACKBONES, self.backbone),
            (ENCODERS, self.predictor),
            (ENCODERS, self.code and self.code.encoder),
            (SOLVERS, self.solver),
            (GRIDS, self.solver.grid),
            (GRIDS, self.distilled and self.distilled.grid),
            (GUIDANCE, self.guidance),
        )
        reasons = (registry.why_unwritable(part) for registry, part in parts if part is not None)
        return next((reason for reason in reasons if reason), None)
