"""Guidance with exact scores: Bayes' rule, the null, continuity, telescoping, and what it costs."""

import pytest
import torch
from torch import Tensor

from graphs.errors import SpecError
from graphs.variables import Continuous
from mechanisms.diffusion.anticausal import Anticausal
from mechanisms.diffusion.denoiser import Denoising
from mechanisms.diffusion.guidance import ClassifierFree, Factual, Guidance
from mechanisms.diffusion.schedule import KarrasGrid, LogGrid
from mechanisms.diffusion.solvers import Anchored
from tests.mechanisms.diffusion.exact import ExactDenoiser, ExactPredictor, World

LEVELS = [0.02, 0.3, 2.0, 20.0]
WORLDS = {"gaussian": World(1, 2), "mixture": World(3, 0), "both": World(4, 3)}
GRID = LogGrid(sigma_min=0.05, sigma_max=10)
EXACT = {
    "raw on the unconditional": Anticausal(form="raw", denoiser="unconditional", scale=1.0),
    "delta on the factual": Anticausal(form="delta", denoiser="conditional", scale=1.0),
    "classifier-free": ClassifierFree(weight=1.0),
    "against hidden": ClassifierFree(weight=1.0, against="hidden"),
}


@pytest.fixture(params=WORLDS)
def world(request) -> World:
    return WORLDS[request.param]


def case(world: World, n: int = 6, known: Tensor | None = None):
    """Images with factual parents, and other parents of other rows."""
    image, parents = world.draw(n)
    other = {name: value.flip(0) for name, value in world.draw(n, seed=1)[1].items()}
    if "digit" in other:
        other["digit"] = (parents["digit"] + 1) % len(world.weights)
    return image, Factual(parents, torch.ones(n, dtype=torch.bool) if known is None else known), other


def guided(guidance: Guidance, world: World, x: Tensor, sigma: float, factual: Factual, parents) -> Tensor:
    return guidance.eps(ExactDenoiser(world), ExactPredictor(world), x, sigma, factual, parents)


def conditional(world: World, x: Tensor, sigma: float, parents) -> Tensor:
    return world.eps(x, sigma, parents, tuple(world.variables))


@pytest.mark.parametrize("name", EXACT)
@pytest.mark.parametrize("sigma", LEVELS)
def test_strength_1_is_the_conditional_score(world, name, sigma):
    image, factual, other = case(world)
    x = image + sigma * image.flip(0)
    expected = conditional(world, x, sigma, other)
    found = guided(EXACT[name], world, x, sigma, factual, other)
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("name", EXACT)
def test_strength_1_transports_a_gaussian_exactly(name):
    # Abduction sees what the base sees; the whole counterfactual is then known for a conditional base.
    world, guidance = WORLDS["gaussian"], EXACT[name]
    image, factual, other = case(world)
    solver = Anchored(steps=150, grid=GRID, residuals=False)
    ends = GRID.sigma_min, GRID.sigma_max
    noise = solver.encode(image, lambda x, sigma: conditional(world, x, sigma, factual))
    found = solver.decode(noise, lambda x, sigma: guided(guidance, world, x, sigma, factual, other))
    expected = world.transport(image, world.mean(factual), world.mean(other), *ends)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-4)


def test_weight_2_doubles_a_continuous_effect():
    # Image sd .3 given its cause, do(t + 1), effect 1, default levels: 2 (1 - .3 / 20) of it.
    world = World(1, 1)
    world.noise = 0.3**2 * torch.eye(4, dtype=torch.float64)
    world.loading = torch.ones(4, 1, dtype=torch.float64)
    image, parents = world.draw(3)
    factual, other = Factual(parents, torch.ones(3, dtype=torch.bool)), {"t1": parents["t1"] + 1}
    solver = Anchored(steps=200)
    noise = solver.encode(image, lambda x, sigma: conditional(world, x, sigma, factual))
    moves = {}
    for weight in (1.0, 2.0):
        guidance = ClassifierFree(weight={"t1": weight})
        found = solver.decode(noise, lambda x, sigma, g=guidance: guided(g, world, x, sigma, factual, other))
        moves[weight] = (found - image).mean().item()
    kept = 1 - ((0.3**2 + 0.02**2) / (0.3**2 + 20**2)) ** 0.5
    assert moves[1.0] == pytest.approx(kept, abs=1e-3)
    assert moves[2.0] == pytest.approx(2 * kept, abs=1e-3)
    assert 1.94 < moves[2.0] < 1.98
    # So a plain number leaves continuous parents at 1.
    assert ClassifierFree(weight=2.0).strengths(world.variables) == {"t1": 1.0}


@pytest.mark.parametrize("sigma", LEVELS)
def test_scales_on_the_counterfactual_base_are_weights_above_1(world, sigma):
    """By Bayes' rule; numbers, whose whole change the base has made, get nothing more."""
    image, factual, other = case(world)
    x = image + sigma * image.flip(0)
    expected = guided(ClassifierFree(weight=2.5), world, x, sigma, factual, other)
    added = Anticausal(denoiser="counterfactual", scale=1.5)
    found = guided(added, world, x, sigma, factual, other)
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)
    if "t1" in world.variables:
        named = ClassifierFree(
            weight={"t1": 1.5, "digit": 1.0} if "digit" in world.variables else {"t1": 1.5}
        )
        expected = guided(named, world, x, sigma, factual, other)
        scale = {"t1": 0.5, "digit": 0.0} if "digit" in world.variables else {"t1": 0.5}
        found = guided(added.model_copy(update={"scale": scale}), world, x, sigma, factual, other)
        torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(
    "guidance",
    [
        ClassifierFree(weight=2.0),
        Anticausal(),
        Anticausal(denoiser="unconditional"),
        Anticausal(denoiser="counterfactual"),
    ],
)
def test_guidance_vanishes_at_the_factual(world, guidance):
    image, factual, _ = case(world)
    denoiser, predictor = ExactDenoiser(world), ExactPredictor(world)
    found = guidance.eps(denoiser, predictor, image, 0.5, factual, dict(factual))
    base = denoiser.eps(image, 0.5, factual, shown="conditional" in guidance.needs)
    torch.testing.assert_close(found, base, rtol=0, atol=0)
    assert (denoiser.calls, predictor.calls) == (2, 0)  # one of them the test's own


def test_raw_guidance_moves_the_image_at_the_factual(world):
    image, factual, _ = case(world)
    guidance = Anticausal(form="raw", denoiser="unconditional")
    found = guided(guidance, world, image, 0.5, factual, dict(factual))
    base = world.eps(image, 0.5, {}, ())
    assert (found - base).abs().max() > 0.1


@pytest.mark.parametrize(
    ("guidance", "continuous"),
    [
        (ClassifierFree(weight=2.0), True),
        (ClassifierFree(weight={"t1": 3.0}), True),
        (Anticausal(), True),
        (Anticausal(denoiser="unconditional", scale={"t1": 3.0}), True),
        (Anticausal(denoiser="counterfactual", scale={"t1": 3.0}), True),
        (Anticausal(form="raw", denoiser="unconditional"), False),
    ],
)
def test_an_infinitesimal_do_moves_the_image_infinitesimally(guidance, continuous):
    world = WORLDS["both"]
    image, factual, _ = case(world)
    solver = Anchored(steps=8)
    denoiser = ExactDenoiser(world)
    noise = solver.encode(image, lambda x, s: guidance.abduction_eps(denoiser, x, s, factual))

    def moved(size: float) -> float:
        other = {**factual, "t1": factual["t1"] + size}
        found = solver.decode(noise, lambda x, sigma: guided(guidance, world, x, sigma, factual, other))
        return (found - image).abs().max().item()

    if continuous:
        assert moved(1e-6) < 1e-5
        assert moved(1e-6) / moved(1e-7) == pytest.approx(10, rel=1e-3)
    else:
        assert moved(1e-6) > 0.1


STOPS = {"digit": 3.0, "t1": 0.5, "t2": 3.0, "t3": 0.5}


def stops(factual: Factual, other) -> list[dict[str, Tensor]]:
    """F, then the parents of weight 3 changed, then those of weight .5 too."""
    first = {**factual, "digit": other["digit"], "t2": other["t2"]}
    return [dict(factual), first, {**first, "t1": other["t1"], "t3": other["t3"]}]


@pytest.mark.parametrize("sigma", LEVELS)
def test_classifier_free_telescopes_over_groups_of_equal_weight(sigma):
    world = WORLDS["both"]
    image, factual, other = case(world)
    a, b, c = (conditional(world, image, sigma, stop) for stop in stops(factual, other))
    found = guided(ClassifierFree(weight=STOPS), world, image, sigma, factual, other)
    torch.testing.assert_close(found, a + 3 * (b - a) + 0.5 * (c - b))


@pytest.mark.parametrize("sigma", LEVELS)
def test_against_hidden_parents_it_telescopes_over_what_is_shown(sigma):
    world = WORLDS["both"]
    image, factual, other = case(world)
    guidance = ClassifierFree(weight=STOPS, against="hidden")

    def extrapolated(parents) -> Tensor:
        a, b, c = (
            world.eps(image, sigma, parents, shown)
            for shown in ([], ["digit", "t2"], ["digit", "t1", "t2", "t3"])
        )
        return a + 3 * (b - a) + 0.5 * (c - b)

    found = guided(guidance, world, image, sigma, factual, other)
    torch.testing.assert_close(found, extrapolated(other))
    up = guidance.abduction_eps(ExactDenoiser(world), image, sigma, factual)
    torch.testing.assert_close(up, extrapolated(factual))
    # A parent of weight 1 is never hidden.
    found = guided(ClassifierFree(weight=3.0, against="hidden"), world, image, sigma, factual, other)
    a, b = (world.eps(image, sigma, other, shown) for shown in (["t1", "t2", "t3"], list(world.variables)))
    torch.testing.assert_close(found, a + 3 * (b - a))


@pytest.mark.parametrize("name", ["mixture", "both"])
def test_there_and_back_misses_only_what_the_solver_does_against_hidden_parents(name):
    # The same field up and down for each value of the parents: what is left shrinks with the steps.
    world, guidance = WORLDS[name], ClassifierFree(weight=3.0, against="hidden")
    image, factual, other = case(world)
    denoiser = ExactDenoiser(world)

    def counterfactual(x: Tensor, of, asked, steps: int) -> Tensor:
        solver, known = Anchored(steps=steps, grid=GRID, residuals=False), Factual(of, factual.known)
        noise = solver.encode(x, lambda x, sigma: guidance.abduction_eps(denoiser, x, sigma, of))
        return solver.decode(noise, lambda x, sigma: guided(guidance, world, x, sigma, known, asked))

    def missed(steps: int) -> float:
        there = counterfactual(image, dict(factual), other, steps)
        assert (there - image).abs().mean() > 0.3
        return (counterfactual(there, other, dict(factual), steps) - image).abs().mean().item()

    coarse, fine = missed(25), missed(200)
    assert fine < coarse / 10
    assert fine < 1e-3


@pytest.mark.parametrize("base", ["conditional", "unconditional"])
@pytest.mark.parametrize("sigma", LEVELS)
def test_delta_telescopes_over_groups_of_equal_scale(base, sigma):
    world = WORLDS["both"]
    image, factual, other = case(world)
    # By Bayes' rule -sigma grad [log q(v) - log q(v')] = eps(v) - eps(v').
    a, b, c = (conditional(world, image, sigma, stop) for stop in stops(factual, other))
    start = a if base == "conditional" else world.eps(image, sigma, {}, ())
    guidance = Anticausal(scale=STOPS, denoiser=base)
    found = guided(guidance, world, image, sigma, factual, other)
    torch.testing.assert_close(found, start + 3 * (b - a) + 0.5 * (c - b), rtol=1e-9, atol=1e-9)


def test_raw_takes_each_parents_scale():
    world = WORLDS["both"]
    image, factual, other = case(world)
    sigma, names = 0.7, tuple(world.variables)
    prefix = [world.eps(image, sigma, other, names[:k]) for k in range(len(names) + 1)]
    expected = prefix[0] + sum(STOPS[name] * (prefix[k + 1] - prefix[k]) for k, name in enumerate(names))
    guidance = Anticausal(form="raw", scale=STOPS, denoiser="unconditional")
    torch.testing.assert_close(guided(guidance, world, image, sigma, factual, other), expected)


def test_the_order_of_the_parents_given_does_not_matter():
    world = WORLDS["both"]
    image, factual, other = case(world)
    backwards = dict(reversed(other.items()))
    for guidance in (ClassifierFree(weight=STOPS), Anticausal(scale=STOPS)):
        found = [guided(guidance, world, image, 0.5, factual, parents) for parents in (other, backwards)]
        torch.testing.assert_close(*found, rtol=0, atol=0)


def test_a_row_is_guided_alike_beside_rows_in_which_other_parents_change():
    """Of equal weights the first parent stays in row 0 and changes in row 1; effects are no sums."""

    def eps(x: Tensor, sigma: float, parents, shown: Tensor | bool = True) -> Tensor:
        return (parents["a"] + 1) * parents["b"].exp() * (parents["c"] + 2)

    denoiser = Denoising({name: Continuous() for name in "abc"}, eps)
    guidance, x = ClassifierFree(weight={"a": 2.0, "b": 4.0, "c": 2.0}), torch.zeros(2)
    factual = {name: torch.tensor([0.1, 0.2]) for name in "abc"}
    asked = {"a": torch.tensor([0.1, 0.9]), "b": torch.tensor([0.5, 0.5]), "c": torch.tensor([1.0, 1.0])}
    known = torch.ones(2, dtype=torch.bool)
    among = guidance.eps(denoiser, None, x, 0.5, Factual(factual, known), asked)
    first, wanted = ({name: each[:1] for name, each in values.items()} for values in (factual, asked))
    alone = guidance.eps(denoiser, None, x[:1], 0.5, Factual(first, known[:1]), wanted)
    torch.testing.assert_close(among[:1], alone)


@pytest.mark.parametrize("guidance", [ClassifierFree(weight=2.5), Anticausal(scale=2.5)])
def test_a_plain_number_sharpens_categories_only(guidance):
    world = WORLDS["both"]
    assert guidance.strengths(world.variables) == {"digit": 2.5, "t1": 1.0, "t2": 1.0, "t3": 1.0}
    assert guidance.named() == ()


def test_nothing_comes_on_top_for_parents_that_are_not_named():
    added = Anticausal(denoiser="counterfactual", scale={"t1": 0.5})
    assert added.strengths(WORLDS["both"].variables) == {
        name: 0.5 if name == "t1" else 0.0 for name in WORLDS["both"].variables
    }


def test_unnamed_parents_keep_their_defaults():
    for guidance, default in ((ClassifierFree(weight={"t2": 0}), 1.0), (Anticausal(scale={"t2": 0}), 2.0)):
        strengths = guidance.strengths(WORLDS["both"].variables)
        assert strengths == {"digit": default, "t1": 1.0, "t2": 0.0, "t3": 1.0}
        assert strengths["digit"] == type(guidance)().strengths(WORLDS["both"].variables)["digit"]
        assert guidance.named() == ("t2",)


@pytest.mark.parametrize(
    ("weight", "changed", "calls"),
    [
        (1.0, ["digit", "t1", "t2"], 1),
        (2.0, ["digit"], 2),
        (2.0, ["t1", "t3"], 1),
        ({"digit": 2.0, "t1": 2.0, "t2": 2.0, "t3": 2.0}, ["digit", "t1", "t2", "t3"], 2),
        (2.0, ["digit", "t1"], 3),
        (0.0, ["digit"], 1),
        (2.0, [], 1),
    ],
)
def test_evaluations_of_classifier_free_guidance(weight, changed, calls):
    world = WORLDS["both"]
    image, factual, other = case(world)
    parents = {name: (other if name in changed else factual)[name] for name in factual}
    denoiser = ExactDenoiser(world)
    ClassifierFree(weight=weight).eps(denoiser, None, image, 0.5, factual, parents)
    assert denoiser.calls == calls


@pytest.mark.parametrize(("weight", "calls"), [(1.0, 1), (0.0, 1), (2.0, 2), (STOPS, 3)])
def test_against_hidden_parents_each_way_costs_the_same(weight, calls):
    world = WORLDS["both"]
    image, factual, other = case(world)
    guidance, denoiser = ClassifierFree(weight=weight, against="hidden"), ExactDenoiser(world)
    guidance.abduction_eps(denoiser, image, 0.5, factual)
    assert denoiser.calls == calls
    guidance.eps(denoiser, None, image, 0.5, factual, other)
    assert denoiser.calls == 2 * calls


@pytest.mark.parametrize("form", ["delta", "raw"])
def test_evaluations_of_anticausal_guidance(form):
    world = WORLDS["both"]
    image, factual, other = case(world)
    denoiser, predictor = ExactDenoiser(world), ExactPredictor(world)
    Anticausal(form=form, scale=STOPS).eps(denoiser, predictor, image, 0.5, factual, other)
    assert (denoiser.calls, predictor.calls) == (1, 1)


def test_anticausal_guidance_leaves_no_graph_behind():
    world = WORLDS["both"]
    image, factual, other = case(world)
    with torch.no_grad():
        assert not guided(Anticausal(), world, image, 0.5, factual, other).requires_grad


@pytest.mark.parametrize("form", ["delta", "raw"])
def test_interval_limits_anticausal_guidance_to_its_levels(form):
    world = WORLDS["both"]
    image, factual, other = case(world)
    everywhere = Anticausal(form=form)
    limited = Anticausal(form=form, interval=(0.1, 2.0))
    for sigma in LEVELS:
        inside = 0.1 <= sigma <= 2.0
        expected = (
            guided(everywhere, world, image, sigma, factual, other)
            if inside
            else conditional(world, image, sigma, factual)
        )
        found = guided(limited, world, image, sigma, factual, other)
        torch.testing.assert_close(found, expected, rtol=0, atol=0)


@pytest.mark.parametrize("grid", [LogGrid, KarrasGrid])
@pytest.mark.parametrize("end", [3.0, 8.0, 10.0, 30.0])
def test_an_interval_that_ends_where_the_grid_does_holds_there(grid, end):
    """The levels are powers, and some come out beyond the end that was given."""
    for low, high in ((0.02, end), (end, 80.0)):
        levels = Anchored(steps=4, grid=grid(sigma_min=low, sigma_max=high)).levels()
        guidance = ClassifierFree(weight=3.0, interval=(low, high))
        assert all(guidance.active(level) for level in levels)
        assert not guidance.active(high * (1 + 1e-6)) and not guidance.active(low * (1 - 1e-6))


def test_outside_the_interval_classifier_free_weights_are_1_at_one_evaluation():
    world = WORLDS["both"]
    image, factual, other = case(world)
    limited, denoiser = ClassifierFree(weight=3.0, interval=(0.1, 2.0)), ExactDenoiser(world)
    for sigma in LEVELS:
        inside = 0.1 <= sigma <= 2.0
        expected = guided(ClassifierFree(weight=3.0 if inside else 1.0), world, image, sigma, factual, other)
        before = denoiser.calls
        found = limited.eps(denoiser, None, image, sigma, factual, other)
        torch.testing.assert_close(found, expected, rtol=0, atol=0)
        assert denoiser.calls - before == (3 if inside else 1)


@pytest.mark.parametrize("sigma", LEVELS)
@pytest.mark.parametrize("base", ["conditional", "counterfactual"])
def test_terms_of_a_number_that_a_correction_asks_for_are_of_its_own_step_alone(base, sigma):
    """The question changes t1; a correction asks for another t3, which the question leaves alone."""
    world = WORLDS["both"]
    image, factual, other = case(world)
    x = image + sigma * image.flip(0)
    parents = dict(factual) | {"t1": other["t1"]}
    asked, told = parents | {"t3": parents["t3"] + 0.4}, Factual(factual, factual.known, parents)
    found = guided(
        Anticausal(denoiser=base, scale={"t1": 1.5}, terms="changed"), world, x, sigma, told, asked
    )

    def own(name, values):
        before = list(world.variables)[: list(world.variables).index(name)]
        return world.eps(x, sigma, values, [*before, name]) - world.eps(x, sigma, values, before)

    expected = 1.5 * (own("t1", parents) - own("t1", factual))
    if base == "conditional":  # which does not know of t3 otherwise
        expected = conditional(world, x, sigma, factual) + expected + own("t3", asked) - own("t3", parents)
    else:
        expected = conditional(world, x, sigma, asked) + expected
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("sigma", LEVELS)
@pytest.mark.parametrize(("base", "changed"), [("conditional", "digit"), ("counterfactual", "t2")])
def test_terms_of_the_changed_parents_alone(base, changed, sigma):
    """-sigma grad log q(pa_k | x, pa_<k) is eps of the parents up to k minus eps of those before it."""
    world = WORLDS["both"]
    image, factual, other = case(world)
    x = image + sigma * image.flip(0)
    rows = torch.tensor([True, True, False, True, False, True])  # the others change nothing
    parents = dict(factual) | {changed: torch.where(rows, other[changed], factual[changed])}
    guidance = Anticausal(denoiser=base, scale={changed: 1.5}, terms="changed")
    found = guided(guidance, world, x, sigma, factual, parents)
    before = list(world.variables)[: list(world.variables).index(changed)]

    def own(values):
        return world.eps(x, sigma, values, [*before, changed]) - world.eps(x, sigma, values, before)

    start = conditional(world, x, sigma, parents if base == "counterfactual" else factual)
    expected = start + 1.5 * (own(parents) - own(factual))
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)
    # A change of two parents has the terms of both, whether or not their scales are equal.
    both = parents | {"t3": other["t3"]}
    alike, apart = (
        guided(
            guidance.model_copy(update={"scale": {changed: 1.5, "t3": third}}), world, x, sigma, factual, both
        )
        for third in (1.5, 1.5 + 1e-9)
    )
    torch.testing.assert_close(alike, apart, rtol=1e-6, atol=1e-6)
    # Bayes' rule has the terms of later parents too.
    whole = guided(guidance.model_copy(update={"terms": "all"}), world, x, sigma, factual, parents)
    assert not torch.allclose(whole[rows], found[rows], rtol=1e-3)
    torch.testing.assert_close(whole[~rows], found[~rows], rtol=0, atol=0)


@pytest.mark.parametrize(
    "guidance",
    [
        ClassifierFree(weight=STOPS),
        ClassifierFree(weight=STOPS, against="hidden"),
        Anticausal(scale=STOPS),
        Anticausal(form="raw", scale=STOPS),
        Anticausal(scale=STOPS, denoiser="counterfactual"),
        Anticausal(scale=STOPS, denoiser="unconditional"),
        Anticausal(form="raw", scale=STOPS, denoiser="unconditional"),
        Anticausal(scale=STOPS, denoiser="unconditional", interval=(10.0, 20.0)),
    ],
    ids=[
        "cfg",
        "hidden",
        "delta",
        "raw",
        "delta counterfactual",
        "delta unconditional",
        "raw unconditional",
        "interval",
    ],
)
def test_prior_samples_follow_the_conditional_score_whoever_shares_their_batch(world, guidance):
    sigma, known = 0.5, torch.tensor([True, False, True, False, False, True])
    image, factual, other = case(world, known=known)
    # The mechanism sets the factual parents of prior samples to those asked for.
    start = {name: torch.where(known, factual[name], other[name]) for name in factual}
    found = guided(guidance, world, image, sigma, Factual(start, known), other)
    expected = conditional(world, image, sigma, other)
    torch.testing.assert_close(found[~known], expected[~known], rtol=1e-9, atol=1e-9)
    # The others as they are without prior samples beside them.
    alone = {name: value[known] for name, value in other.items()}
    factual_alone = Factual({name: value[known] for name, value in factual.items()}, known[known])
    expected = guided(guidance, world, image[known], sigma, factual_alone, alone)
    torch.testing.assert_close(found[known], expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(
    "guidance",
    [ClassifierFree(weight=STOPS), ClassifierFree(weight=STOPS, against="hidden"), Anticausal(scale=STOPS)],
)
def test_rows_do_not_depend_on_what_changes_in_other_rows(guidance):
    world = WORLDS["both"]
    image, factual, other = case(world)
    # Row r changes the r-th parent only, the last two rows nothing.
    parents = {name: value.clone() for name, value in factual.items()}
    for row, name in enumerate(parents):
        parents[name][row] = other[name][row]
    together = guided(guidance, world, image, 0.5, factual, parents)
    for row in range(6):
        each = Factual({name: value[row, None] for name, value in factual.items()}, factual.known[row, None])
        asked = {name: value[row, None] for name, value in parents.items()}
        alone = guided(guidance, world, image[row, None], 0.5, each, asked)
        torch.testing.assert_close(together[row, None], alone, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: ClassifierFree(weight=-1.0), r"weight.*: .*greater than or equal to 0"),
        (lambda: ClassifierFree(weight={"digit": 101.0}), r"weight.*digit: .*less than or equal to 100"),
        (lambda: ClassifierFree(against="nothing"), r"against: .*'factual' or 'hidden'"),
        (lambda: ClassifierFree(weight="auto", against="hidden"), r"take `against: factual`, or a number"),
        (lambda: Anticausal(form="gated"), r"form: .*'delta' or 'raw'"),
        (lambda: Anticausal(form="raw", denoiser="counterfactual"), "take `form: delta`"),
        (lambda: Anticausal(form="raw", terms="changed"), "leave `terms` out"),
        (lambda: Anticausal(interval=(2.0, 1.0)), r"0 <= low < high, got \[2.0, 1.0\]"),
        (lambda: Anticausal(interval=(-1.0, 1.0)), r"0 <= low < high"),
        (lambda: Anticausal(weight=1.0), r"weight: .*unknown option"),
    ],
)
def test_options_out_of_range(make, message):
    with pytest.raises(SpecError, match=message):
        make()
