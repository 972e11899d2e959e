"""The law suites of parts: built-in ones pass, and each law catches the part that breaks it."""

from dataclasses import replace
from itertools import count, pairwise
from typing import Annotated, Literal

import pyro.distributions as dist
import pytest
import torch
from pydantic import AfterValidator
from torch import nn

from causalgen.testing import (
    check_backbone,
    check_encoder,
    check_grid,
    check_guidance,
    check_noise_law,
    check_solver,
)
from graphs.errors import CannotAbductError, MechanismError, SpecError
from graphs.expressions import Range
from mechanisms.diffusion import (
    BELM,
    DDIM,
    DDPM,
    Anchored,
    Anticausal,
    Backbone,
    ClassifierFree,
    DDPMGrid,
    DiT,
    Encoder,
    Grid,
    Guidance,
    KarrasGrid,
    LogGrid,
    ResNet,
    Solver,
    Strided,
    UNet,
)
from mechanisms.diffusion.guidance import path_of
from mechanisms.diffusion.schedule import GRIDS
from mechanisms.diffusion.solvers import standard_normal
from mechanisms.tables.noise_families import FAMILIES, Family, NoiseLaw, noise_law


@pytest.mark.parametrize("grid", [LogGrid(), KarrasGrid(rho=3), DDPMGrid()], ids=lambda part: part.kind)
def test_built_in_grids_pass(grid):
    check_grid(grid)


@pytest.mark.parametrize(
    "solver",
    [DDIM(), Anchored(), Anchored(residuals=False, thresholding=True), BELM(steps=8), DDPM()],
    ids=lambda part: part.kind,
)
def test_built_in_solvers_pass(solver):
    check_solver(solver)


@pytest.mark.parametrize(
    "guidance",
    [
        ClassifierFree(weight=2.0),
        ClassifierFree(weight="auto"),
        ClassifierFree(weight={"digit": 3.0, "size": 0.5}, interval=(0.1, 2.0)),
        ClassifierFree(against="hidden", weight=2.0),
        Anticausal(),
        Anticausal(denoiser="unconditional"),
        Anticausal(denoiser="counterfactual"),
    ],
    ids=lambda part: part.kind,
)
def test_built_in_guidance_passes(guidance):
    check_guidance(guidance)


def test_the_papers_guidance_moves_an_image_whose_parents_stay():
    with pytest.raises(AssertionError, match="^Law 'null', guidance 'anticausal': .*move the estimate"):
        check_guidance(Anticausal(form="raw", denoiser="unconditional"))


def test_built_in_networks_pass():
    check_backbone(UNet(channels=(8, 16)), (3, 8, 8))
    check_backbone(DiT(patch=2, width=16, depth=2, heads=2), (3, 8, 8))
    check_backbone(DiT(patch=3, width=8, depth=1, heads=1), (1, 3, 12))
    check_encoder(ResNet(channels=(8, 16)), (1, 8, 8))
    check_encoder(Strided(channels=(8,), cells=2, width=8), (1, 8, 8))


@pytest.mark.parametrize(
    "written", [{"gamma": [0.7, 2.0]}, {"poisson": [3.0]}, {"categorical": [0.2, 0.0, 0.8]}]
)
def test_built_in_noise_passes(written):
    check_noise_law(noise_law(written))


class FlawedGrid(Grid, frozen=True):
    kind: Literal["flawed"] = "flawed"
    flaw: str = ""

    def sigmas(self, steps):
        sigma = LogGrid().sigmas(steps)
        if self.flaw == "falls":
            return sigma.flip(0)
        if self.flaw == "reaches 0":
            return torch.cat([sigma.new_zeros(1), sigma[1:]])
        return sigma.float() if self.flaw == "float32" else sigma[self.flaw == "short" :]


@pytest.mark.parametrize(
    ("flaw", "words"),
    [("falls", "must rise"), ("reaches 0", "above 0"), ("float32", "float64"), ("short", "2 levels")],
)
def test_each_flaw_of_a_grid_is_caught(flaw, words):
    check_grid(FlawedGrid())
    with pytest.raises(AssertionError, match=f"^Law 'levels', level grid 'flawed': .*{words}"):
        check_grid(FlawedGrid(flaw=flaw))


@pytest.mark.parametrize("flaw", ["falls", "reaches 0", "short"])
def test_a_solver_takes_no_grid_whose_levels_do_not_rise_from_above_0(flaw):
    assert len(DDIM(grid=FlawedGrid()).levels()) == 17
    with pytest.raises(SpecError, match="16 steps need 17 levels above 0"):
        DDIM(grid=FlawedGrid(flaw=flaw))
    with pytest.raises(SpecError, match="each above the one before it, got 3, from sigma 0 to"):
        DDPM(steps=2, grid=DDPMGrid(beta_first=1e-20))


class Doubled(FlawedGrid, frozen=True):
    """Its option is read as twice what is written."""

    kind: Literal["doubled"] = "doubled"
    amount: Annotated[float, AfterValidator(lambda value: 2 * value)] = 1.0


def test_options_that_do_not_survive_a_file_are_caught(monkeypatch):
    check_grid(Doubled(amount=3.0))  # no file can name it
    monkeypatch.setitem(GRIDS._built_in, "doubled", Doubled)
    with pytest.raises(AssertionError, match="^Law 'options', level grid 'doubled'"):
        check_grid(Doubled(amount=3.0))


class FlawedSolver(Solver, frozen=True):
    """DDIM, with one mistake on demand."""

    kind: Literal["flawed"] = "flawed"
    flaw: str = ""

    @property
    def invertible(self):
        return self.flaw != "no refusal"

    @property
    def needs_conditional(self):
        return False

    def sample_noise(self, n, shape, *, generator):
        if self.flaw == "draws globally":
            return {"x_T": torch.randn(n, *shape)}
        scale = 2.0 if self.flaw == "prior" else 1.0
        noise = {"x_T": scale * standard_normal(n, shape, generator=generator)}
        if self.flaw == "antithetic rows":
            noise["x_T"][n - n // 2 :] = -noise["x_T"][: n // 2]
        taken = {"leaf is taken": "known", "leaf of a code": "code"}.get(self.flaw)
        return noise | ({taken: torch.zeros(n)} if taken else {})

    def encode(self, image, eps):
        if self.flaw == "changes the image":
            image.mul_(1.01)
        if self.flaw == "changes estimates":
            return {"x_T": self.to_noise(_multiplied(image, self.levels(), eps))}
        if self.flaw == "takes levels for even":
            first, second, *_ = self.levels()
            even = [first * (second / first) ** step for step in range(self.steps + 1)]
            return {"x_T": self.to_noise(_multiplied(image, even, lambda x, sigma: eps(x, sigma).clone()))}
        noise = dict(DDIM(steps=self.steps, grid=self.grid).encode(image, eps))
        if self.flaw == "two steps at once" and self.steps % 2:
            noise["x_T"] = noise["x_T"] / 2
        if self.flaw == "looks at other rows":
            noise["x_T"] = noise["x_T"] - noise["x_T"].mean() / self.steps
        if self.flaw == "noise of another scale":
            noise["x_T"] = noise["x_T"] * 1.05
        return noise | ({"spare": noise["x_T"]} if self.flaw == "other leaves" else {})

    def decode(self, noise, eps):
        if self.flaw == "noise of another scale":
            noise = {"x_T": noise["x_T"] / 1.05}
        x = DDIM(steps=self.steps, grid=self.grid).decode(noise, eps)
        if self.flaw == "level 0":
            return x - 0.05 * eps(x, 0.0)
        if self.flaw == "drifts":
            return x + 0.01
        return x.double() if self.flaw == "dtype" else x


def _multiplied(x, levels, eps):
    """Euler steps, each multiplied out where the estimate is."""
    for low, high in pairwise(levels):
        x = x + eps(x, low).mul_(high - low)
    return x


@pytest.mark.parametrize(
    ("flaw", "law"),
    [
        ("draws globally", "'noise'.*other noise"),
        ("leaf of a code", "'noise'.*are taken"),
        ("changes estimates", "'levels'.*estimates are changed"),
        ("takes levels for even", "'exact solution'.*on a grid of kind 'karras'"),
        ("prior", "'noise'.*not standard normal"),
        ("antithetic rows", "'noise'.*rank correlation of -1"),
        ("two steps at once", "'round trip'.*in 64 steps, and .* in 65"),
        ("leaf is taken", "'noise'.*are taken"),
        ("other leaves", "'noise'.*abducted noise"),
        ("drifts", "'round trip'.*at 10 times the steps"),
        ("level 0", "'levels'.*asked at sigma"),
        ("changes the image", "'levels'.*changes the image"),
        ("dtype", "'dtype'"),
        ("no refusal", "'refusal'"),
        ("noise of another scale", "'exact solution'.*encode misses the flow"),
        ("looks at other rows", "'rows'"),
    ],
)
def test_each_flaw_of_a_solver_is_caught(flaw, law):
    with pytest.raises(AssertionError, match=f"^Law {law}"), torch.random.fork_rng():
        check_solver(FlawedSolver(flaw=flaw))


def test_what_a_solver_is_has_no_default():
    with pytest.raises(TypeError, match="Silent does not say invertible, needs_conditional: set each"):

        class Silent(Solver, frozen=True):
            def sample_noise(self, n, shape, *, generator):
                return {}

            def encode(self, image, eps):
                return {}

            def decode(self, noise, eps):
                return noise["x_T"]


def test_a_sound_solver_from_outside_passes():
    check_solver(FlawedSolver())


def test_samples_must_have_the_moments_of_their_law():
    class Ancestral(FlawedSolver, frozen=True):
        """Ancestral sampling that adds too much noise."""

        @property
        def invertible(self):
            return False

        def encode(self, image, eps):
            raise CannotAbductError("cannot")

        def sample_noise(self, n, shape, *, generator):
            return DDPM(steps=self.steps, grid=self.grid).sample_noise(n, shape, generator=generator)

        def decode(self, noise, eps):
            scaled = {**noise, "residuals": (1.0 + (self.flaw == "loud")) * noise["residuals"]}
            return DDPM(steps=self.steps, grid=self.grid).decode(scaled, eps)

    check_solver(Ancestral())
    with pytest.raises(AssertionError, match="^Law 'samples'.*variance"):
        check_solver(Ancestral(flaw="loud"))


class FlawedGuidance(Guidance, frozen=True):
    """Classifier-free guidance from the factual, with one mistake on demand."""

    kind: Literal["flawed"] = "flawed"
    flaw: str = ""
    pull: float = 2.0

    @property
    def strength_option(self):
        return "push" if self.flaw == "option" else "pull"

    @property
    def needs(self):
        return frozenset({"conditional", *(["oracle"] if self.flaw == "needs" else [])})

    def steerable(self, variables):
        return tuple(variables)

    def abduction_weights(self, variables):
        return dict.fromkeys(variables, 0.0 if self.flaw == "weights" else 1.0)

    def abduction_eps(self, denoiser, x, sigma, factual):
        return denoiser.eps(x, sigma, factual)

    def eps(self, denoiser, predictor, x, sigma, factual, parents):
        if self.flaw == "changes parents":
            parents["size"].add_(0.1)
        if self.flaw == "prior samples":
            parents = {name: value if factual.known[0] else value.flip(0) for name, value in parents.items()}
        total, before = denoiser.eps(x, sigma, factual), denoiser.eps(x, sigma, factual)
        strengths = self.strengths(denoiser.variables)
        if not self.active(sigma) and self.flaw != "interval":
            strengths = dict.fromkeys(strengths, 1.0)
        if self.flaw == "mixed rows" and not bool(factual.known.all()):
            strengths["digit"] = 1.0
        if self.flaw == "strength":
            strengths["digit"] = min(strengths["digit"], 1.0)
        for weight, stop in path_of(factual, parents, strengths):
            after = denoiser.eps(x, sigma, stop)
            total, before = total + (weight + (self.flaw == "strength 0")) * (after - before), after
        if self.flaw == "null":
            return total + 0.1
        if self.flaw == "rows":
            return total + 0.1 * (total - denoiser.eps(x, sigma, factual)).mean()
        return total


@pytest.mark.parametrize(
    ("flaw", "law"),
    [
        ("option", "'declarations'.*no option 'push'"),
        ("needs", "'declarations'.*needs {'oracle'}"),
        ("weights", "'declarations'.*not at weight 0"),
        ("null", "'null'"),
        ("strength 0", "'strength'.*strength 0 moves"),
        ("strength", "'strength'.*changes nothing"),
        ("rows", "'rows'"),
        ("mixed rows", "'rows'.*another estimate"),
        ("interval", "'interval'.*beyond the interval"),
        ("prior samples", "'(rows|prior samples)'"),
        ("changes parents", "'inputs'.*parents are changed"),
    ],
)
def test_each_flaw_of_guidance_is_caught(flaw, law):
    check_guidance(FlawedGuidance())
    with pytest.raises(AssertionError, match=f"^Law {law}"):
        check_guidance(FlawedGuidance(flaw=flaw))


class FlawedNetwork(Backbone, frozen=True):
    """A convolution whose weights depend on the level and the context, with one mistake on demand."""

    kind: Literal["flawed"] = "flawed"
    flaw: str = ""

    def check_size(self, height, width):
        if self.flaw == "size":
            raise MechanismError("no size will do")

    @property
    def features(self):
        return 3

    def build(self, image_channels, extra_channels=0, context=0):
        args = (self.flaw, image_channels + extra_channels, image_channels, context)
        return BUILT_ONCE.setdefault(args, Convolution(*args)) if self.flaw == "once" else Convolution(*args)


class FlawedEncoder(FlawedNetwork, Encoder, frozen=True):
    kind: Literal["flawed"] = "flawed"


BUILT = count()
BUILT_ONCE: dict[tuple[object, ...], nn.Module] = {}


class Convolution(nn.Module):
    def __init__(self, flaw, channels, out, context):
        super().__init__()
        self.flaw = flaw
        self.image = nn.Conv2d(channels, out, 3, padding=1)
        self.scale = nn.Linear(1 + context, out)
        if flaw == "initial weights":
            nn.init.normal_(self.image.weight, generator=torch.Generator().manual_seed(next(BUILT)))
        if flaw == "forgets":
            self.register_buffer("gain", torch.tensor(1.0 + next(BUILT)), persistent=False)

    def forward(self, x, sigma, context=None):
        level = torch.zeros_like(sigma) if self.flaw == "level" else sigma.log()
        level = level if self.flaw == "precision" else level.to(x.dtype)
        seen = level[:, None] if context is None else torch.cat([level[:, None], context], 1)
        if self.flaw == "context before level" and context is not None:
            seen = seen.roll(-1, 1)
        if self.flaw == "context" and context is not None:
            seen = torch.cat([level[:, None], 0 * context], 1)
        out = self.image(x) * self.scale(seen)[..., None, None]
        match self.flaw:
            case "rows":
                return out - out.mean()
            case "forgets":
                return out * self.get_buffer("gain")
            case "shape":
                return out[..., 1:]
            case "dtype":
                return out.double()
            case "gradient":
                return out + (0 * self.scale.bias.sum()).sqrt()
            case "random":
                return out + 1e-3 * torch.randn(out.shape)
        return out


@pytest.mark.parametrize(
    ("flaw", "law"),
    [
        ("shape", "'interface, no parents'.*shape"),
        ("dtype", "'interface, no parents'.*float64"),
        ("random", "'interface, no parents'.*another output"),
        ("initial weights", "'interface, no parents'.*not reproducible"),
        ("once", "'interface, no parents'.*the same weights in memory"),
        ("rows", "'rows, no parents'"),
        ("level", "'sensitivity, no parents'.*ignores sigma"),
        ("context", "'sensitivity'.*ignores context"),
        ("gradient", "'gradients, no parents'.*not finite in scale.bias"),
        ("forgets", "'saving, no parents'"),
        ("precision", "'sixteen bits'.*cast what it makes of levels"),
        ("context before level", "'wider context'.*let its columns be the last"),
    ],
)
def test_each_flaw_of_a_backbone_is_caught(flaw, law):
    check_backbone(FlawedNetwork())
    with pytest.raises(AssertionError, match=f"^Law {law}"), torch.random.fork_rng():
        check_backbone(FlawedNetwork(flaw=flaw))


def test_a_size_that_is_refused_is_the_callers():
    with pytest.raises(MechanismError, match="no size will do"):
        check_backbone(FlawedNetwork(flaw="size"))


def test_an_encoder_must_give_as_many_features_as_it_says():
    with pytest.raises(AssertionError, match="^Law 'interface', encoder 'flawed': .*expected \\(4, 3\\)"):
        check_encoder(FlawedEncoder())


class Skewed(dist.Normal):
    def icdf(self, value):
        return 1.1 * super().icdf(value)


def test_quantiles_must_invert_the_distribution_function():
    family = FAMILIES.get("normal")
    check_noise_law(NoiseLaw(family, (1.0, 2.0)))
    with pytest.raises(AssertionError, match="^Law 'quantiles'.*is not q"):
        check_noise_law(NoiseLaw(replace(family, distribution=Skewed), (1.0, 2.0)))


def test_parameters_that_do_not_survive_a_file_are_caught():
    unchecked = NoiseLaw(FAMILIES.get("categorical"), (0.5, 0.4999))
    with pytest.raises(AssertionError, match="^Law 'options'.*cannot be read"):
        check_noise_law(unchecked)


def weibull(flaw=""):
    """Weibull noise, with one mistake on demand."""

    def draw(n, generator, scale, concentration):
        source = None if flaw == "draws globally" else generator
        uniform = torch.rand(n, generator=source, dtype=torch.float64)
        drawn = scale * (-(1 - uniform).log()) ** (1 / concentration)
        if flaw == "scales with the batch":
            drawn = drawn * (1 + 1 / n)
        return drawn.float() if flaw == "dtype" else -drawn if flaw == "support" else drawn

    def distribution(scale, concentration, **options):
        return dist.Weibull(scale * (1.2 if flaw == "density" else 1), concentration, **options)

    return Family(
        "weibull",
        {"scale": "positive", "concentration": "positive"},
        distribution,
        draw,
        lambda *_: Range() if flaw == "no support" else Range(0, torch.inf, nonzero=True),
        scale=lambda scale, _: -scale if flaw == "scale" else scale,
    )


@pytest.mark.parametrize(
    ("flaw", "law"),
    [
        ("dtype", "'interface'.*float32"),
        ("support", "'interface'.*the support is"),
        ("scale", "'interface'.*scale"),
        ("draws globally", "'generator'"),
        ("density", "'density'"),
        ("scales with the batch", "'generator'.*drawn alone has another law"),
        ("no support", "'density'.*below all draws"),
    ],
)
def test_each_flaw_of_a_noise_family_is_caught(flaw, law):
    check_noise_law(NoiseLaw(weibull(), (2.0, 1.5)))
    with pytest.raises(AssertionError, match=f"^Law {law}"), torch.random.fork_rng():
        check_noise_law(NoiseLaw(weibull(flaw), (2.0, 1.5)))
