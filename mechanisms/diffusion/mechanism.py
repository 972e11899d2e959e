"""``diffusion``: an image node by a diffusion model, ``x := decode(u; pa)``, with ``u = encode(x; pa)``.

Composes a denoiser, an anticausal predictor, a solver and guidance. Training fits the first two; the last two
are options of the same weights.

    abduct     u = (x_T, residuals) by walking the solver up under the factual parents F; F travels in u, and
               so does the style code of x, where the model has one (see ``code``)
    generate   walk down under guidance from F to the parents asked for

The network knows images at levels sigma_0 and above, and a clean image is none. Two ways in, by option:

    point       the clean image enters as if it carried noise of level sigma_0. One answer, near the posterior
                mean of the noise: x_T has less than unit variance and correlates between pixels. An edit.
    posterior   x + sigma_0 z enters, z ~ N(0, I), and x_T ~ p(u | x, F): Pearl's abduction. A leaf more,
                ``last_residual``, is what the denoising step at sigma_0 misses of x under F: decoding ends
                with that step, as a prior sample does, and adds it back. A prior sample's is zero.

At the highest level an image is not quite gone: the law there is N(E[x | pa], 1 + sigma_N^2) rather than one
about 0, which is many standard deviations away in the mean of a large bright image (the "signal leak" of
Everaert et al. 2024; Lin et al. 2024). A centred x_T is taken about that expectation: what the field that is
followed, up as down, estimates where it is shown the mean of all pixels. The rest tells nothing of parents.

With solver ``anchored`` or ``belm`` ``generate(F, abduct(x, F)) == x`` up to rounding, by construction, in
both. A point is ``approximate``. A draw is ``posterior`` up to the fit and the solver, where it follows the
conditional denoiser as it was learned; along any other field it is ``approximate`` too.
"""

import math
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any, final

import torch
from pydantic import model_validator
from torch import Tensor, nn

from graphs.errors import MechanismError, numbered_rows, warn
from graphs.variables import Continuous, Image, Variable
from mechanisms.base import Abducted, Mechanism, Noise, Parents
from mechanisms.diffusion.classifier import Classifier, OwnPredictor
from mechanisms.diffusion.code import StyleCode
from mechanisms.diffusion.code_training import CodeTraining, held_out_code_figures
from mechanisms.diffusion.denoiser import Denoiser, Denoising, log_normal_levels
from mechanisms.diffusion.distillation import Student, check_jumps, refuse_fit
from mechanisms.diffusion.feedback import accepted, corrected, readings, shrunk, smallest_strengths
from mechanisms.diffusion.guidance import Factual, Guidance
from mechanisms.diffusion.latents import LatentDiffusion
from mechanisms.diffusion.options import DiffusionOptions, settled
from mechanisms.diffusion.predictor import AnticausalPredictor, guided_levels
from mechanisms.diffusion.pretrained import (
    Pretrained,
    hub_pipeline,
    said_by_pipeline,
    take_weights,
    with_own_levels,
)
from mechanisms.diffusion.solvers import NoiseEstimate, standard_normal
from mechanisms.networks import answering, reproducible_initialisation, single_precision
from mechanisms.rows import check_finite, distinct_rows, where_rows
from mechanisms.seeds import drawn_for_rows
from mechanisms.training import Stage

__all__ = ["Diffusion", "DiffusionMechanism"]

# Rows in one network call: enough to fill the machine, little enough for memory (pixels per call).
_PIXELS_A_CALL = 128 * 28 * 28

_NOISE = 5.0
"""Level above which an image hardly shows: pixels of deviation .5 are 1 % of the variance there."""

_ABOVE = 1 + 1e-6
"""The level that stands for all above the highest, in units of it: outside an interval that ends there."""


class Diffusion(DiffusionOptions, frozen=True):  # noqa: D101, its options say it
    __doc__ = DiffusionOptions.__doc__

    @classmethod
    def from_pipeline(cls, folder: Path | str, revision: str | None = None, **options: Any) -> "Diffusion":
        """The options of a node that is a pretrained pipeline: a DiTPipeline, or a DDPMPipeline's U-Net.

        Args:
            folder: that diffusers' ``save_pretrained`` wrote, with safetensors; with ``revision``, a name
                "user/model" on the Hugging Face Hub, whose files are downloaded.
            revision: the commit on the Hub, 40 hexadecimal digits.
            options: others than the pipeline says, as in ``solver={"steps": 32}``.

        Raises:
            CheckpointError: no such pipeline, an incomplete one, or one that cannot be a mechanism.
            SpecError: options that do not go with it.
        """
        home = Path(folder) if revision is None else hub_pipeline(str(folder), revision)
        return cls(**said_by_pipeline({**options, "pipeline": home}))

    @model_validator(mode="before")
    @classmethod
    def _said_by_pipeline(cls, value: object) -> object:
        if isinstance(value, dict) and isinstance(value.get("pipeline"), str | Path):
            value = said_by_pipeline(value)
        return with_own_levels(value) if isinstance(value, dict) else value

    @single_precision()
    def make(self, variable: Variable, parents: Mapping[str, Variable]) -> Mechanism:
        """The mechanism for one image variable and its parents, with what weights were trained elsewhere."""
        if not isinstance(variable, Image):
            raise MechanismError(
                f"Mechanism 'diffusion' generates images, but the variable is {variable.describe()}."
            )
        if self.autoencoder is None:
            made = inner = self.in_pixels(variable, parents)
        else:
            made = LatentDiffusion(self, variable, parents)
            inner = made.inner
        autoencoder = made.spec.autoencoder if isinstance(made, LatentDiffusion) else None
        own = {"autoencoder": autoencoder, "pipeline": self.pipeline}
        take_weights(made, inner.spec.model_copy(update=own), inner.denoiser.network, inner.predictor)
        if isinstance(inner.predictor, OwnPredictor):
            inner.predictor.check_image(variable)
            if not inner.predictor.encoder.waits:
                made.brought += ("predictor." if made is inner else "inner.predictor.",)
        return made

    def in_pixels(self, variable: Image, parents: Mapping[str, Variable]) -> "DiffusionMechanism":
        """The mechanism of the image as it is, or of latents as if they were the image."""
        chosen = settled(self.backbone, self.training, variable, parents)
        spec = self.model_copy(update=chosen | {"autoencoder": None, "pipeline": None})
        if spec != self:
            return spec.in_pixels(variable, parents)
        assert self.backbone is not None
        self.backbone.check_size(variable.height, variable.width)
        self.backbone.check_parents(parents, "conditional" in self.guidance.needs)
        tabular = [name for name, parent in parents.items() if not isinstance(parent, Image)]
        if isinstance(self.predictor, Classifier):
            self.predictor.check(parents, self.guidance)
        elif self.predictor and tabular:
            self.predictor.check_size(variable.height, variable.width)
        self.check_parents(parents)
        if self.code:
            self.code.check(variable, parents)
        if self.solver.distilled:
            check_jumps(self.solver, self.distilled, self.guidance, self.abduction, self.code, parents)
        return DiffusionMechanism(self, variable, parents)


@final
class DiffusionMechanism(Mechanism):
    """An image node bound to its parents; see the module."""

    spec: Diffusion
    variable: Image
    abduction = "approximate"

    def __init__(self, spec: Diffusion, variable: Image, parents: Mapping[str, Variable]) -> None:
        super().__init__(spec, variable, parents)
        self.code = StyleCode(variable, parents, spec.code) if spec.code else None
        width = self.code.width if self.code else 0
        assert spec.backbone is not None
        self.denoiser = Denoiser(variable, parents, spec.backbone, spec.prediction, spec.dropout, width)
        self.student = Student(variable, parents, spec.backbone, self.denoiser) if spec.distilled else None
        self.predictor = self._make_predictor()
        self._chunk = self.chunk_rows = max(1, _PIXELS_A_CALL // (variable.height * variable.width))
        self._draws = spec.abduction == "posterior"
        self.deterministic = not self._draws
        shows = math.prod(variable.event_shape) > spec.solver.levels()[-1] ** 2
        usual = shows and spec.prediction != "eps" and not spec.solver.distilled
        self._centred = usual if spec.centred is None else spec.centred
        if not spec.solver.invertible:
            self.abduction = "none"
        elif self._draws and spec.solver.levels()[-1] < _NOISE:
            warn(
                f"The solver's levels end at {spec.solver.levels()[-1]:.3g}, where an image still shows "
                f"(expected at least {_NOISE:g}): its noise is no draw of the prior, and samples have "
                "another law. Take a grid of higher levels: {kind: log}, a larger sigma_max, or more "
                "steps of a ddpm grid."
            )
        elif self._draws and all(weight == 1 for weight in spec.guidance.abduction_weights(parents).values()):
            self.abduction = "posterior"  # along the denoiser as it was learned

    def _make_predictor(self) -> AnticausalPredictor | None:
        """The one of the options, where there is a parent to read."""
        spec, tabular = self.spec, any(not isinstance(parent, Image) for parent in self.parents.values())
        if isinstance(spec.predictor, Classifier):
            return OwnPredictor(self.parents, spec.predictor, spec.solver.levels()[0])
        if spec.predictor and tabular:
            return AnticausalPredictor(self.variable, self.parents, spec.predictor, spec.solver.levels()[0])
        return None

    @property
    def _trained_predictor(self) -> AnticausalPredictor | None:
        """The predictor, where it is trained with the node."""
        return None if isinstance(self.predictor, OwnPredictor) else self.predictor

    def sample_noise(self, n: int, *, generator: torch.Generator) -> Noise:
        """The solver's noise from its prior, no factual parents."""
        device = generator.device
        leaves = dict(self.spec.solver.sample_noise(n, self.variable.event_shape, generator=generator))
        if self._coded:
            leaves["code"] = self._coded.sample(n, generator=generator)
        if self._draws:
            leaves["last_residual"] = torch.zeros_like(leaves["x_T"])
        if self.spec.shrinkage:
            leaves["image"] = torch.zeros_like(leaves["x_T"])
        blank = {
            name: torch.zeros(n, *parent.event_shape, device=device) for name, parent in self.parents.items()
        }
        leaves |= self._remember(blank, torch.zeros(n, dtype=torch.bool, device=device))
        return Noise(n, leaves | {f"reading.{name}": blank[name].double() for name in self._read()})

    @answering()
    def generate(self, parents: Parents, noise: Noise) -> Tensor:
        """The image under these parents; rows abducted elsewhere start from their factual parents."""
        image = self._generated(parents, noise)
        check_finite(image, "image", parents)
        return image

    def _generated(self, parents: Parents, noise: Noise) -> Tensor:
        """The image under these parents, corrected where corrections are on."""
        guidance, predictor = self.spec.guidance, self.predictor
        if not guidance.corrections or predictor is None:
            return self._guided(parents, noise)

        wanted = {f"wanted.{name}": parents[name] for name in self.parents}  # whatever corrections ask for
        decode = partial(self._guided, noise=Noise(noise.n, {**noise, **wanted}))
        factual, lowest = self._factual(parents, noise), float(predictor.lowest)
        before = {name: noise[f"reading.{name}"] for name in self._read()}
        times, relaxation = guidance.corrections, guidance.relaxation
        return corrected(decode, predictor, lowest, factual, before, parents, times, relaxation)

    def _guided(self, parents: Parents, noise: Noise) -> Tensor:
        """The image under these parents, with strengths row by row where they are automatic."""
        guidance, predictor = self.spec.guidance, self.predictor
        if not guidance.automatic or predictor is None or not bool(noise["known"].any()):
            return self._decode(guidance, parents, noise)
        factual, lowest = self._factual(parents, noise), float(predictor.lowest)

        def decode(strength: float, rows: Tensor) -> Tensor:
            return self._decode(guidance.at(strength), _rows(parents, rows), noise.rows(rows))

        def accept(images: Tensor, rows: Tensor) -> Tensor:
            before, after = _rows(factual, rows), _rows(parents, rows)
            return accepted(predictor, images, lowest, before, after, guidance.target)

        return smallest_strengths(guidance.candidates, decode, accept, noise.n, noise["known"].device)

    def _factual(self, parents: Parents, noise: Noise) -> Factual:
        """Where rows start from; prior samples from what they are asked for."""
        known = noise["known"]
        values = {name: where_rows(known, noise[f"factual.{name}"], parents[name]) for name in self.parents}
        wanted = {name: noise.get(f"wanted.{name}", parents[name]) for name in self.parents}
        return Factual(values, known, wanted)

    def _decode(self, guidance: Guidance, parents: Parents, noise: Noise) -> Tensor:
        image = self._walked_down(guidance, parents, noise)
        if not self.spec.shrinkage or not bool(noise["known"].any()):
            return image
        return where_rows(noise["known"], shrunk(image, noise["image"], self.spec.shrinkage), image)

    def _walked_down(self, guidance: Guidance, parents: Parents, noise: Noise) -> Tensor:
        known, factual = noise["known"], self._factual(parents, noise)
        denoiser = self._under(noise.get("code"))

        def eps(x: Tensor, sigma: float) -> Tensor:
            return guidance.eps(denoiser, self.predictor, x, sigma, factual, parents)

        solver = self.spec.solver
        followed = solver.thresholded(eps)
        top = noise["x_T"] + self._centre(eps, noise["x_T"])
        x = solver.decode({**noise, "x_T": top}, followed)
        if solver.distilled:
            return x + noise["last_residual"]
        if self._draws:
            return self._denoised(x, followed) + noise["last_residual"]
        # A prior sample still carries sigma_0 of noise; an image that entered clean never did.
        return x if bool(known.all()) else where_rows(known, x, self._denoised(x, followed))

    def _under(self, leaf: Tensor | None) -> Denoising:
        """The denoiser as guidance asks it, of parents alone: under the codes of a leaf."""
        code = None if self.code is None or leaf is None else self.code.from_prior(leaf)
        if self.student and self.spec.solver.distilled:
            return self.student.under(code)
        eps = self.denoiser.eps if code is None else partial(self.denoiser.eps, code=code)
        return Denoising(self.denoiser.variables, eps)

    def _centre(self, eps: NoiseEstimate, x_T: Tensor) -> Tensor:
        """What x_T (N, C, H, W) is taken about, along this field; 0 where it is not centred."""
        if not self._centred:
            return torch.zeros_like(x_T)
        above = self.spec.solver.levels()[-1] * _ABOVE
        middle = self.denoiser.pixel_mean.to(x_T).expand_as(x_T)
        return self.spec.solver.to_noise(middle - above * eps(middle, above))

    def _denoised(self, x: Tensor, eps: NoiseEstimate) -> Tensor:
        """The estimate of x_0 at the lowest level."""
        sigma = self.spec.solver.levels()[0]
        return x - sigma * eps(x, sigma)

    @answering()
    def abduct(self, value: Tensor, parents: Parents, *, generator: torch.Generator) -> Abducted:
        """Invert each distinct (image, parents) row once; where noise is drawn, every row is distinct."""
        entered = value
        if self._draws:
            z = standard_normal(len(value), tuple(value.shape[1:]), generator=generator)
            entered = value + self.spec.solver.levels()[0] * z.to(value)
        code: Tensor | None = None
        if self._coded:
            mean = self._coded.mean(value, parents)
            drawn = self._coded.around(mean, generator=generator) if self._draws else mean
            code = self._coded.to_prior(drawn)
        first, inverse = distinct_rows([entered, *parents.values()])
        rows = {name: parent[first] for name, parent in parents.items()}
        guidance, solver = self.spec.guidance, self.spec.solver
        denoiser = self._under(None if code is None else code[first])

        def eps(x: Tensor, sigma: float) -> Tensor:
            return guidance.abduction_eps(denoiser, x, sigma, rows)

        followed = solver.thresholded(eps)
        # Solvers begin with an evaluation that the last step of decoding misses by: it is made once.
        lowest, enters, known = solver.levels()[0], entered[first], list[Tensor]()

        def remembered(x: Tensor, sigma: float) -> Tensor:
            estimate = followed(x, sigma)
            if x is enters and sigma == lowest:
                known.append(estimate.clone())  # a solver may go on with the tensor
            return estimate

        with numbered_rows(first):
            leaves = dict(solver.encode(enters, remembered))
            if code is not None:
                leaves["code"] = code[first]
            if solver.distilled:  # its own residuals are of the image with its noise, and it ends without
                leaves["last_residual"] = (value[first] - enters) * ("residuals" in leaves)
            elif self._draws:
                estimate = known[0] if known else followed(enters, lowest)
                leaves["last_residual"] = value[first] - (enters - lowest * estimate)
            leaves["x_T"] = leaves["x_T"] - self._centre(eps, leaves["x_T"])
            check_finite(leaves["x_T"], "noise", rows)
            if self._read() and self.predictor:
                read = readings(self.predictor, value[first], float(self.predictor.lowest), rows)
                leaves |= {f"reading.{name}": reading for name, reading in read.items()}
        leaves = {name: leaf[inverse] for name, leaf in leaves.items()}
        if self.spec.shrinkage:
            leaves["image"] = value
        every = torch.ones(len(value), dtype=torch.bool, device=value.device)
        return Abducted(Noise(len(value), leaves | self._remember(parents, every)))

    def prepare(self, value: Tensor, parents: Parents) -> None:
        """Take pixel statistics and the parents' standardising."""
        refuse_fit(self.student)
        self.denoiser.prepare(value, parents)
        if self.code:
            self.code.prepare(value, parents)
        if self.predictor:
            self.predictor.prepare(value, parents, self.spec.solver.levels()[0])

    def loss(self, value: Tensor, parents: Parents, *, generator: torch.Generator) -> Tensor:
        """(N,) the denoiser's loss plus the predictor's -log q(pa | x_t); they share no parameters."""
        drawn = drawn_for_rows(self._drawn_for_loss, len(value), generator)
        noise, sigma, shown = drawn["noise"].to(value), drawn["sigma"].to(value), drawn["shown"]
        code = None
        if self.code:
            with torch.no_grad():
                code = self.code.moved(self.code.mean(value, parents), drawn["code"])
        loss = value.new_zeros(len(value))
        if not isinstance(self.spec.backbone, Pretrained):  # which is not trained
            seen, of_loss = shown.to(value.device), (self.spec.coarse, self.spec.sharpening)
            loss = self.denoiser.loss(value, parents, sigma, noise, seen, code, *of_loss)
        if (predictor := self._trained_predictor) is None:
            return loss
        levels = drawn["guided"].to(value)
        features = predictor.encode(value + levels.view(-1, 1, 1, 1) * noise, levels)
        return loss - torch.stack(list(predictor.log_probs(features, parents).values())).sum(0)

    def _drawn_for_loss(self, n: int, generator: torch.Generator) -> dict[str, Tensor]:
        """All that ``loss`` draws for n rows, by name."""
        drawn = {"noise": standard_normal(n, self.variable.event_shape, generator=generator)}
        drawn["sigma"] = log_normal_levels(n, *self.spec.levels, generator=generator)
        drawn["shown"] = self.denoiser.draw_shown(n, generator=generator)
        if self.code:
            drawn["code"] = self.code.sample(n, generator=generator)
        if self._trained_predictor:
            drawn["guided"] = guided_levels(self.spec.solver.levels(), n, generator=generator)
        return drawn

    @answering()
    def validate(self, value: Tensor, parents: Parents, *, generator: torch.Generator) -> Mapping[str, float]:
        """How well each cause is recovered from the clean image, and what the code tells."""
        figures = dict[str, float]()
        if self.code:
            figures = held_out_code_figures(
                self.code, self.denoiser, value, parents, self.spec.levels, self._chunk, generator
            )
        if self.predictor is None:
            return figures
        features = self.predictor.features(value, float(self.predictor.lowest), self._chunk)
        return figures | self.predictor.recovered(features, parents)

    def first_stage(self) -> Stage | None:
        """The code's, so that the denoiser learns under codes that stay as they are."""
        code, spec = self.code, self.spec.code
        if code is None or spec is None:
            return None
        with reproducible_initialisation(), single_precision():
            module = CodeTraining(code, self.variable, spec.independence, self._chunk).to(self.device)
        return Stage("code", code, module, spec.training, module.loss, module.advance, module.finish)

    @answering()
    def log_prob_of_parents(self, value: Tensor, parents: Parents) -> Tensor | None:
        """log q(pa | x) of the anticausal predictor at the lowest level that it was trained on.

        None without it, and with image parents, which it does not predict.
        Densities are of the standardised parents, which is a constant away from data units.
        """
        if self.predictor is None or len(self.predictor.names) < len(self.parents):
            return None
        return self.predictor.joint(value, parents, float(self.predictor.lowest), self._chunk)

    @answering()
    def read(self, value: Tensor) -> Mapping[str, Tensor]:
        """What the anticausal predictor reads at its lowest level; nothing without it."""
        return {} if self.predictor is None else self.predictor.read(value, float(self.predictor.lowest))

    @property
    def large_networks(self) -> tuple[nn.Module, ...]:
        """What denoises. Pixels, levels, code and predictor stay in float32."""
        return tuple(each.network for each in (self.denoiser, self.student and self.student.denoiser) if each)

    @property
    def _coded(self) -> StyleCode | None:
        """The code, where noise has one."""
        return None if self.spec.code is None or self.spec.code.hidden else self.code

    def _read(self) -> list[str]:
        """The parents whose reading travels in the noise, for corrections."""
        names = [name for name, parent in self.parents.items() if isinstance(parent, Continuous)]
        return names if self.spec.guidance.corrections else []

    def _remember(self, factual: Parents, known: Tensor) -> dict[str, Tensor]:
        """The leaves that carry factual parents in the noise."""
        canonical = {name: getattr(torch, parent.dtype) for name, parent in self.parents.items()}
        return {"known": known} | {f"factual.{name}": factual[name].to(d) for name, d in canonical.items()}


def _rows(values: Parents, index: Tensor) -> dict[str, Tensor]:
    return {name: value[index] for name, value in values.items()}
