"""The distilled flow on Gaussian pixels, whose flow is known, and what the solver ``jumps`` refuses."""

import math

import networkx as nx
import numpy as np
import pytest
import torch
from PIL import Image as Picture
from torch import nn

import causalgen as cg
from causalgen.cli.training import distil as distil_command
from causalgen.fitting.distilling import distil
from causalgen.fitting.runtime import AcceleratedRuntime
from causalgen.testing import check_mechanism
from graphs.errors import CheckpointError, DataError, MechanismError, NotFittedError, SpecError
from graphs.variables import Categorical, Image
from mechanisms.diffusion.anticausal import Anticausal
from mechanisms.diffusion.backbones import Backbone, UNet
from mechanisms.diffusion.code import Code
from mechanisms.diffusion.distillation import Distillation, Distilled, Jump, Jumps
from mechanisms.diffusion.guidance import ClassifierFree
from mechanisms.diffusion.mechanism import Diffusion
from mechanisms.diffusion.schedule import KarrasGrid, LogGrid
from mechanisms.diffusion.solvers import Anchored
from mechanisms.encoders import Strided
from mechanisms.options import with_options
from mechanisms.training import Training

SPREAD = 0.2
MEANS = torch.tensor([-0.25, 0.25])
PARENTS = {"digit": Categorical(2)}
LEARNED = {"guidance": ClassifierFree(weight=1.0), "abduction": "posterior"}
SMALL = {"backbone": UNet(channels=(8,), unshuffle=1), "predictor": None}


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def moved(x, mean, here: float, there: float):
    """Along the exact flow of pixels N(mean, SPREAD^2); to 0 by way of 0.1 and the denoising step there."""
    variance = SPREAD**2
    if there == 0:
        x = moved(x, mean, here, 0.1)
        return mean + variance / (variance + 0.1**2) * (x - mean)
    return mean + (x - mean) * math.sqrt((variance + there**2) / (variance + here**2))


class Exact:
    """The exact denoiser and the exact student of these pixels."""

    pixel_std = torch.tensor(0.3)

    @property
    def denoiser(self):
        return self

    def eps(self, x, sigma, parents, shown=True, code=None):
        mean = MEANS.to(x)[parents["digit"]].view(-1, 1, 1, 1)
        return sigma * (x - mean) / (sigma**2 + SPREAD**2)

    def velocity(self, x, sigma, target, parents, code):
        means = MEANS.to(x)[parents["digit"]].view(-1, 1, 1, 1)
        ways = zip(x, means, sigma.tolist(), target.tolist(), strict=True)
        return torch.stack([(moved(row, mean, a, b) - row) / (b - a) for row, mean, a, b in ways])


def pixels(n: int, seed: int = 0):
    digit = torch.arange(n) % 2
    noise = torch.randn(n, 1, 4, 4, generator=seeded(seed), dtype=torch.float64)
    return MEANS.double()[digit].view(-1, 1, 1, 1) + SPREAD * noise, {"digit": digit}


@pytest.mark.parametrize("steps", [1, 2, 4])
@pytest.mark.parametrize("residuals", [False, True])
def test_exact_jumps_are_the_flow_at_any_number_and_cost_one_evaluation_each(steps, residuals):
    image, parents = pixels(6)
    solver, calls = Jumps(steps=steps, residuals=residuals), []

    def under(digit):
        def eps(x, sigma):
            calls.append((float(sigma), sigma.target))
            ends = (x.new_full((len(x),), each) for each in (sigma, sigma.target))
            return Exact().velocity(x, *ends, {"digit": digit}, None)

        return eps

    noise, other = solver.encode(image, under(parents["digit"])), 1 - parents["digit"]
    assert len(calls) == (2 if residuals else 1) * steps
    means = MEANS.double()[torch.stack([parents["digit"], other])].view(2, -1, 1, 1, 1)
    top = moved(image, means[0], 0.1, 80.0)
    torch.testing.assert_close(noise["x_T"], top / math.sqrt(1 + 80.0**2), rtol=1e-9, atol=1e-9)
    found = solver.decode(noise, under(other))
    assert calls[-1][1] == 0 and len(calls) == (3 if residuals else 2) * steps
    bottom = moved(top, means[1], 80.0, 0.0)
    missed = image - moved(top, means[0], 80.0, 0.0) if residuals else 0
    # With residuals the noise that the image entered with stays, and the means differ by what they do.
    torch.testing.assert_close(found, bottom + missed, rtol=1e-9, atol=1e-9)


def test_a_wrong_field_still_returns_the_image_by_its_residuals():
    image, _ = pixels(4)

    def wrong(x, sigma):
        return x.sin() + 0.1 * sigma.target

    noise = Jumps(steps=3).encode(image, wrong)
    torch.testing.assert_close(Jumps(steps=3).decode(noise, wrong), image, rtol=0, atol=1e-10)


def _exact(steps: int) -> Distillation:
    return Distillation(Distilled(steps=steps, substeps=48 // steps), Exact(), Exact())


def swapped(parents):
    return {name: each.flip(0) for name, each in parents.items()}


def test_the_teacher_walks_the_exact_flow_and_returns_on_its_own_path():
    image, parents = pixels(8)
    paths = _exact(2).walk(image, parents, swapped(parents), None, generator=seeded(3))
    entered, mid, top, clean, other_mid, other = paths.states.unbind(1)
    z = torch.randn(8, 1, 4, 4, generator=seeded(3))
    torch.testing.assert_close(entered, image + 0.1 * z.double())
    mean, far = (MEANS.double()[each["digit"]].view(-1, 1, 1, 1) for each in (paths.parents, paths.others))
    assert bool((mean != far).any())
    levels = LogGrid(sigma_min=0.1, sigma_max=80.0).sigmas(2).tolist()
    for found, wanted, size in (
        (mid, moved(entered, mean, 0.1, levels[1]), levels[1]),
        (top, moved(entered, mean, 0.1, 80.0), 80.0),
        (clean, moved(entered, mean, 0.1, 0.0), 1.0),
        (other_mid, moved(top, far, 80.0, levels[1]), levels[1]),
        (other, moved(top, far, 80.0, 0.0), 1.0),
    ):
        torch.testing.assert_close(found, wanted, rtol=0, atol=0.02 * size)


@pytest.mark.parametrize("steps", [1, 2, 4])
@pytest.mark.parametrize("progress", [0.0, 0.9])
def test_the_exact_student_has_no_loss_and_one_that_stands_still_has(steps, progress):
    work, (image, parents) = _exact(steps), pixels(64)
    paths = work.walk(image, parents, swapped(parents), None, generator=seeded())
    work.advance(progress)
    assert work.loss(paths, generator=seeded(1)).max() < 0.02
    assert max(work.misses(paths).values()) < 0.1
    work.student = Exact()
    work.student.velocity = lambda x, *others: torch.zeros_like(x)
    assert work.loss(paths, generator=seeded(1)).mean() > 0.3


@pytest.mark.parametrize("progress", [0.0, 0.9])
def test_later_jumps_learn_from_where_the_student_comes_to_in_the_second_half(progress):
    work, (image, parents) = _exact(2), pixels(200)
    paths = work.walk(image, parents, swapped(parents), None, generator=seeded())
    starts = []

    class Short(Exact):
        def velocity(self, x, sigma, target, parents, code):
            if len(x) == 200:  # the pass that learns
                starts.append((x, sigma))
            return 0.9 * super().velocity(x, sigma, target, parents, code)

    work.student = Short()
    work.advance(progress)
    work.loss(paths, generator=seeded(1))
    (x, sigma), = starts  # fmt: skip
    second = (sigma - paths_level()).abs() < 1e-6
    known = torch.stack([(x[:, None] == paths.states).flatten(2).all(2).any(1)]).any(0)
    assert second.any() and (~second).any() and known[~second].all()
    assert known[second].all() if progress < 0.5 else not known[second].any()


def paths_level() -> float:
    return Jumps().levels()[1]


class Affine(Backbone, frozen=True):
    """F(x) = a(sigma, context) x + b(sigma, context), of which Gaussian pixels need no more."""

    kind: str = "affine"

    def check_size(self, height, width):
        pass

    def build(self, image_channels, extra_channels, context):
        return _Affine(context)


class _Affine(nn.Module):
    def __init__(self, context):
        super().__init__()
        self.embed = nn.Sequential(nn.Linear(context, 48), nn.SiLU(), nn.Linear(48, 48))
        self.level = nn.Sequential(nn.Linear(3, 48), nn.SiLU(), nn.Linear(48, 48))
        self.out = nn.Sequential(nn.SiLU(), nn.Linear(48, 48), nn.SiLU(), nn.Linear(48, 2))

    def forward(self, x, sigma, context):
        level = torch.stack([sigma.log() / 4, sigma.log().sin(), sigma.log().cos()], 1)
        scale, shift = self.out(self.embed(context) + self.level(level)).view(-1, 2, 1, 1, 1).unbind(1)
        return scale * x + shift


def rows(n: int, seed: int = 0):
    image, parents = pixels(n, seed)
    return {"digit": parents["digit"].numpy(), "x": ((image.clamp(-1, 1) + 1) / 2).float().numpy()}


def model(**options):
    return cg.SCM(
        nx.DiGraph([("digit", "x")]),
        {"digit": Categorical(2), "x": Image(1, 4, 4)},
        {"x": Diffusion(**{"predictor": None, **options})},
    )


@pytest.fixture(scope="module")
def learned():
    """A teacher that learned these pixels, and its distilled flow."""
    training = Training(epochs=20, batch_size=128, learning_rate=1e-2, ema=0.99, validation=0)
    teacher = model(backbone=Affine(), dropout=0.0, training=training, levels=(0.0, 1.8))
    teacher.fit(rows(4096), seed=0, progress=False)
    training = {"epochs": 40, "batch_size": 128, "learning_rate": 1e-2, "ema": 0.99, "validation": 0.1}
    return teacher, distil(
        teacher, rows(4096, 1), options={"rows": 1024, "training": training}, seed=0, progress=False
    )


def test_both_directions_are_those_of_the_closed_form_after_distillation(learned):
    _, made = learned
    evidence = rows(400, 2)
    image = torch.as_tensor(evidence["x"]) * 2 - 1
    for residuals in (True, False):
        scm = made.with_options("x", solver={"residuals": residuals})
        abduction = scm.abduct(evidence, seed=0)
        x_T = abduction.noise["x"]["x_T"]
        assert float(x_T.std()) == pytest.approx(1, abs=0.05)
        for digit in (0, 1):
            assert float(x_T[evidence["digit"] == digit].mean()) == pytest.approx(0, abs=0.06)
        found = abduction.counterfactual({"digit": 1 - evidence["digit"]}, targets=["x"])["x"] * 2 - 1
        wanted = image + (MEANS[1 - evidence["digit"]] - MEANS[evidence["digit"]]).view(-1, 1, 1, 1)
        # x + 0.1 z is denoised, which leaves the deviation of its posterior, unless residuals hold it.
        error = 0.0 if residuals else SPREAD * 0.1 / math.hypot(SPREAD, 0.1)
        inside = (wanted.abs() < 0.95) & (image.abs() < 0.95)
        missed = (found - wanted)[inside]
        assert float(missed.square().mean().sqrt()) == pytest.approx(error, abs=0.025)
        assert float(missed.mean()) == pytest.approx(0, abs=0.015)


def test_samples_have_the_law_of_the_exact_flow(learned):
    _, made = learned
    drawn = made.sample(1000, seed=0)
    for digit in (0, 1):
        image = drawn["x"][drawn["digit"] == digit] * 2 - 1
        assert float(image.mean()) == pytest.approx(float(MEANS[digit]), abs=0.02)
        # Denoised at 0.1, a sample keeps the variance of the posterior mean.
        assert float(image.std()) == pytest.approx(SPREAD**2 / math.hypot(SPREAD, 0.1), abs=0.02)


def test_the_null_is_exact_and_the_teacher_answers_as_before(learned):
    teacher, made = learned
    evidence = rows(20, 3)
    null = made.counterfactual(evidence, {"digit": evidence["digit"]}, copy_unaffected=False, seed=0)
    np.testing.assert_allclose(null["x"], evidence["x"], atol=1e-6)
    back = made.with_options("x", solver={"kind": "anchored"}, abduction="point")
    asked = {"digit": 1 - evidence["digit"]}
    before, after = (each.counterfactual(evidence, asked, seed=0)["x"] for each in (teacher, back))
    assert torch.equal(before, after)
    assert set(made.fit_report["x"].figures) == {"up: noise", "down: image", "other: image"}
    assert max(made.fit_report["x"].figures.values()) < 0.1


def test_a_student_that_hardly_learned_is_told_of(learned):
    """One that learned nothing takes each jump by its teacher's first estimate: Euler's method.

    From mean + z sqrt(SPREAD^2 + 80^2), z standard normal, so that what it misses is known.
    """
    teacher, made = learned
    training = {"epochs": 1, "batch_size": 128, "learning_rate": 1e-9, "validation": 0.5}
    options = {"rows": 1024, "training": training}
    with pytest.warns(UserWarning, match="'x': the student ends 0.5. standard deviations .* 'posterior'"):
        hardly = distil(teacher, rows(4096, 1), options=options, seed=0, progress=False)
    top, middle = (Jumps().levels()[k] for k in (2, 1))
    reached = math.hypot(SPREAD, top)
    for here, there in ((top, middle), (middle, 0.0)):
        reached *= 1 + (there - here) * here / (SPREAD**2 + here**2)
    missed = abs(reached - SPREAD**2 / math.hypot(SPREAD, 0.1)) / math.hypot(SPREAD, MEANS[1])
    report = hardly.fit_report["x"]
    for figure in ("down: image", "other: image"):
        assert report.figures[figure] == pytest.approx(missed, rel=0.05)
    assert report.advice in hardly.fit_report.advice and "x: the student ends" in str(hardly.fit_report)
    assert made.fit_report["x"].advice is None


def test_rows_in_the_order_of_their_labels_are_asked_for_others_too(fitted, monkeypatch):
    """A block of rows that are walked together has one label then."""
    monkeypatch.setattr("mechanisms.diffusion.mechanism._PIXELS_A_CALL", 4 * 16)
    scm, data = fitted.with_options("x", dropout=0.1), rows(24)  # made anew, of small blocks
    order = np.argsort(data["digit"], kind="stable")
    walk, found = Distillation.walk, []
    monkeypatch.setattr(
        Distillation, "walk", lambda *args, **options: found.append(walk(*args, **options)) or found[-1]
    )
    ordered = {name: each[order] for name, each in data.items()}
    distil(scm, ordered, options=QUICK | {"rows": 24}, progress=False)
    assert len(found) == 6
    differs = torch.cat([each.parents["digit"] != each.others["digit"] for each in found])
    assert 0.3 < differs.double().mean() < 0.7


def test_a_student_that_nothing_was_held_out_for_says_so(fitted):
    report = distil(fitted, rows(20), options=QUICK, progress=False).fit_report["x"]
    assert not report.figures and "no row was held out (training.validation: 0.02)" in report.advice


def test_a_centre_that_jumps_did_not_learn_is_told_of(fitted):
    with pytest.warns(
        UserWarning, match="'x': the teacher's noise is centred .* made without. .*centred=True"
    ):
        made = distil(fitted.with_options("x", centred=True), rows(20), options=QUICK, progress=False)
    assert made.mechanisms["x"].spec.centred is None
    again = made.with_options("x", solver={"kind": "anchored"}, centred=True)
    assert again.mechanisms["x"].spec.centred
    # False says what jumps do, and stays with the model.
    plain = distil(fitted.with_options("x", centred=False), rows(20), options=QUICK, progress=False)
    assert plain.mechanisms["x"].spec.centred is False


def test_weights_that_are_split_are_not_distilled(fitted, monkeypatch):
    monkeypatch.setattr(
        AcceleratedRuntime, "splits", property(lambda _: True, lambda *_: None), raising=False
    )
    with pytest.raises(MechanismError, match="Cannot distil node 'x'.*Launch without FSDP"):
        distil(fitted, rows(20), options=QUICK, progress=False)


def untrained(**options):
    """A small random teacher with its untrained student."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        spec = Diffusion(**{**SMALL, **LEARNED, "solver": Jumps(), "distilled": Distilled(), **options})
        mechanism = spec.bind(Image(1, 4, 4), PARENTS)
    if mechanism.student is not None:
        mechanism.student.start(mechanism.denoiser)
    mechanism.mark_fitted()
    return mechanism.eval()


CODED = Code(width=2, encoder=Strided(channels=(4,), unshuffle=1, cells=2, width=8))


@pytest.mark.parametrize("code", [None, CODED], ids=["plain", "code"])
def test_a_student_begins_as_its_teacher(code):
    mechanism, (image, parents) = untrained(code=code), pixels(5)
    drawn = None if code is None else torch.randn(5, 2, generator=seeded())
    with torch.no_grad():
        wanted = mechanism.denoiser.eps(image.float(), 0.7, parents, code=drawn)
        levels = torch.full((5,), 0.7)
        for target in (0.0, 0.1, 80.0):
            found = mechanism.student.velocity(
                image.float(), levels, torch.full((5,), target), parents, drawn
            )
            torch.testing.assert_close(found, wanted)


def test_a_distilled_mechanism_obeys_the_laws(learned):
    image, parents = pixels(12)
    mechanism = learned[1].mechanisms["x"]
    assert mechanism.abduction == "posterior" and not mechanism.deterministic
    check_mechanism(mechanism, image.float().clamp(-1, 1), parents)


REFUSED = [
    ({"distilled": None}, "needs a distilled flow"),
    ({"solver": Jumps(steps=3)}, "distilled for 2 steps"),
    ({"solver": Jumps(grid=KarrasGrid())}, "distilled for 2 steps"),
    ({"guidance": ClassifierFree(weight=2.0)}, "guidance 'classifier_free' has weight 2.0"),
    ({"guidance": ClassifierFree(weight={"digit": 3.0})}, "weight {'digit': 3.0}"),
    (
        {"guidance": Anticausal(), "predictor": {"kind": "resnet", "channels": [8], "unshuffle": 1}},
        "anticausal",
    ),
    ({"abduction": "point"}, "abduction is 'point'"),
    ({"code": CODED.model_copy(update={"hidden": True})}, "the code is hidden"),
]


@pytest.mark.parametrize(("options", "message"), REFUSED, ids=[message for _, message in REFUSED])
def test_what_the_student_never_learned_is_refused(options, message):
    with pytest.raises(MechanismError, match=message):
        untrained(**options)


@pytest.mark.parametrize("options", [{"steps": 4}, {"grid": {"sigma_max": 40.0}}], ids=["steps", "grid"])
def test_a_student_knows_no_other_jumps_whatever_it_is_said_to_be_distilled_for(options):
    mechanism = untrained()
    mechanism.mark_fitted()
    with pytest.raises(MechanismError, match=rf"fitted with distilled.{next(iter(options))} "):
        with_options("x", mechanism, {"distilled": options, "solver": options})


@pytest.mark.parametrize("code", [None, CODED], ids=["plain", "code"])
def test_weight_one_against_hidden_parents_is_the_learned_field_too(code):
    guidance, (image, parents) = ClassifierFree(weight=1.0, against="hidden"), pixels(3)
    mechanism = untrained(guidance=guidance, code=code)
    noise = mechanism.abduct(image.float(), parents, generator=seeded()).noise
    torch.testing.assert_close(mechanism.generate(parents, noise), image.float(), rtol=0, atol=1e-5)


def test_a_level_without_a_target_and_hidden_parents_are_refused():
    mechanism, (image, parents) = untrained(), pixels(2)
    asked = mechanism.student.under(None)
    for sigma, shown in ((0.1, True), (Jump(0.1, 2.8), torch.tensor([False]))):
        with pytest.raises(MechanismError, match="knows jumps from level to level"):
            asked.eps(image.float(), sigma, parents, shown)
    with pytest.raises(ValueError, match="leave `thresholding` out"):
        Jumps(thresholding=True)


def test_bad_questions_are_refused():
    data, scm = rows(20), model(**SMALL)
    with pytest.raises(NotFittedError, match="'x' has not been fitted"):
        distil(scm, data)
    fitted = cg.SCM(scm.graph, scm.variables, {"x": untrained(solver=Anchored(), distilled=None)})
    with pytest.raises(MechanismError, match="'digit' is none of them"):
        distil(fitted, data, node="digit")
    with pytest.raises(SpecError, match=r"distilled\.steps.*got 0"):
        distil(fitted, data, options={"steps": 0})
    with pytest.raises(SpecError, match=r"distilled\.step"):
        distil(fitted, data, options={"step": 2})
    with pytest.raises(DataError, match="needs at least 2 rows, got 1"):
        distil(fitted, rows(1))
    with pytest.raises(MechanismError, match="this model has none"):
        distil(cg.SCM(nx.DiGraph({"a": []}), {"a": cg.Continuous()}), {"a": [1.0, 2.0]})
    with pytest.raises(MechanismError, match="made from a fitted model, not by fitting"):
        cg.SCM(scm.graph, scm.variables, {"x": untrained()}).fit(data, nodes=["x"], progress=False)


def test_a_node_without_parents_is_distilled_too():
    spec = Diffusion(**SMALL, dropout=0.0, training=Training(epochs=1, batch_size=16))
    data = {"x": rows(16)["x"]}
    scm = cg.SCM(nx.DiGraph({"x": []}), {"x": Image(1, 4, 4)}, {"x": spec}).fit(data, progress=False)
    made = distil(scm, data, options=QUICK, progress=False)
    null = made.counterfactual(data, {}, copy_unaffected=False, seed=0)
    np.testing.assert_allclose(null["x"], data["x"], atol=1e-5)


QUICK = {"rows": 16, "substeps": 1, "training": {"epochs": 2, "batch_size": 4}}


@pytest.fixture
def fitted():
    scm = model(**SMALL, code=CODED)
    teacher = untrained(solver=Anchored(), distilled=None, code=CODED, guidance=ClassifierFree(weight=2.0))
    scm = cg.SCM(scm.graph, scm.variables, {"x": teacher})
    return scm.fit(rows(20), nodes=["digit"], progress=False)


def test_a_killed_run_resumes_to_the_same_weights(fitted, tmp_path, monkeypatch):
    whole = distil(fitted, rows(20), options=QUICK, progress=False)
    unchanged, calls = Distillation.loss, []

    def killed(self, paths, *, generator):
        calls.append(len(paths.states))
        if len(calls) == 3:
            raise KeyboardInterrupt
        return unchanged(self, paths, generator=generator)

    monkeypatch.setattr(Distillation, "loss", killed)
    with pytest.raises(KeyboardInterrupt):
        distil(fitted, rows(20), options=QUICK, run_dir=tmp_path / "run", progress=False)
    monkeypatch.undo()
    with pytest.raises(CheckpointError, match="resume=True"):
        distil(fitted, rows(20), options=QUICK, run_dir=tmp_path / "run", progress=False)
    options = {"options": QUICK, "run_dir": tmp_path / "run", "resume": True, "progress": False}
    resumed, finished = (distil(fitted, rows(20), **options) for _ in range(2))
    for again in (resumed, finished):
        assert again.fit_report["x"].steps == whole.fit_report["x"].steps == 8
        for name, tensor in whole.mechanisms["x"].state_dict().items():
            assert torch.equal(tensor, again.mechanisms["x"].state_dict()[name]), name


def test_the_command_writes_a_model_that_answers_as_it_did(fitted, tmp_path, capsys):
    data, lines = rows(20), ["digit,x"]
    for number, (digit, image) in enumerate(zip(data["digit"], data["x"], strict=True)):
        Picture.fromarray((255 * image[0]).round().astype(np.uint8)).save(tmp_path / f"{number}.png")
        lines.append(f"{digit},{number}.png")
    (tmp_path / "rows.csv").write_text("\n".join(lines) + "\n")
    fitted.save_pretrained(tmp_path / "teacher", card="# Teacher\n")
    out, source = tmp_path / "made", str(tmp_path / "rows.csv")
    options = {"node": None, "steps": 3, "rows": 12, "epochs": 1, "seed": 0, "run_dir": None}
    distil_command(str(tmp_path / "teacher"), source, out, **options, resume=False, threads=None)
    assert "x: 12 rows" in capsys.readouterr().out
    card = (out / "README.md").read_text()
    assert "causalgen distil teacher --data rows.csv --out made --steps 3 --rows 12 --epochs 1" in card
    assert "### Teacher" in card
    loaded = cg.SCM.from_pretrained(out)
    spec = loaded.mechanisms["x"].spec
    assert spec.solver == Jumps(steps=3) and spec.distilled.steps == 3
    same = distil(fitted, source, options={"steps": 3, "rows": 12, "training": {"epochs": 1}}, progress=False)
    evidence = rows(5, 4)
    answers = [each.counterfactual(evidence, {"digit": 1}, seed=0)["x"] for each in (same, loaded)]
    assert torch.equal(*answers)
    again = with_options("x", loaded.mechanisms["x"], {"solver": {"kind": "anchored"}})
    assert again.abduction == "posterior"
