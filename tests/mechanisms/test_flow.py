import math

import pytest
import torch
from torch.testing import assert_close

from causalgen.checking.statistics import sample_distance
from causalgen.saving.manifest import load_weights
from causalgen.testing import check_mechanism
from graphs.errors import DomainError, MechanismError
from graphs.variables import Categorical, Continuous, Image, Integer
from mechanisms.base import Noise
from mechanisms.options import with_options
from mechanisms.tables.flow import ConditionalColumns, Flow
from tests.mechanisms.fit import codes, fit, generator, normal

N = 400
PARENTS = {"kind": Categorical(3), "a": Continuous(), "place": Continuous(shape=(2,))}
ROWS = {"kind": codes(3, N, 1), "a": 10 + 3 * normal(N, seed=2), "place": normal(N, 2, seed=3)}
X = torch.sin(ROWS["a"]) + ROWS["kind"] + ROWS["place"].sum(1) + 0.3 * normal(N, seed=4)
PAIR = torch.stack([X, X.square() + normal(N, seed=5)], 1)
BOUNDS = [(None, None), (-50.0, None), (None, 50.0), (-50.0, 50.0)]


def some(rows, n=60):
    return {name: value[:n] for name, value in rows.items()}


def bound_flow(variable, parents=PARENTS, value=X, rows=ROWS, *, scale=1.0, **options):
    """A prepared flow whose weights are all random: every path of the network is in use."""
    mechanism = Flow(**options).bind(variable, parents)
    mechanism.prepare(value, rows)
    with torch.no_grad():
        for seed, parameter in enumerate(mechanism.parameters()):
            parameter.add_(scale * normal(*parameter.shape, seed=seed) / max(1, parameter.shape[-1]) ** 0.5)
    mechanism.mark_fitted()
    return mechanism


@pytest.mark.parametrize("transform", ["affine", "spline"])
@pytest.mark.parametrize(("lower", "upper"), BOUNDS)
@pytest.mark.parametrize("root", [True, False])
def test_laws(transform, lower, upper, root):
    parents, rows = ({}, {}) if root else (PARENTS, ROWS)
    mechanism = Flow(transform=transform).bind(Continuous(lower=lower, upper=upper), parents)
    check_mechanism(fit(mechanism, X, rows, steps=30), X[:60], some(rows))


@pytest.mark.parametrize("shape", [(2,), (2, 1)])
@pytest.mark.parametrize("root", [True, False])
def test_laws_of_vectors(shape, root):
    parents, rows = ({}, {}) if root else (PARENTS, ROWS)
    value = PAIR.reshape(N, *shape)
    mechanism = fit(Flow().bind(Continuous(lower=-50, shape=shape), parents), value, rows, steps=30)
    check_mechanism(mechanism, value[:60], some(rows))


@pytest.mark.parametrize(("lower", "upper"), [(None, None), (0.0, None), (None, 3.0), (0.0, 3.0)])
@pytest.mark.parametrize("root", [True, False])
def test_laws_on_a_grid(lower, upper, root):
    parents, rows = ({}, {}) if root else (PARENTS, ROWS)
    value = (X - X.min()).round().clamp(max=3)  # both bounds are reached
    mechanism = Flow(dequantize=1).bind(Continuous(lower=lower, upper=upper), parents)
    check_mechanism(fit(mechanism, value, rows, steps=30), value[:60], some(rows))


@pytest.mark.parametrize("shape", [(), (3,)])
@pytest.mark.parametrize(("lower", "upper"), BOUNDS)
def test_log_prob_is_exact_by_the_jacobian(shape, lower, upper):
    value = X if shape == () else torch.stack([X, -X, 2 * X], 1)
    mechanism = bound_flow(Continuous(lower=lower, upper=upper, shape=shape), value=value)
    for row in range(8):
        parents = {name: rows[[row]] for name, rows in ROWS.items()}

        def inverse(x, parents=parents):
            noise = mechanism.abduct(x.reshape(1, *shape), parents, generator=generator()).noise
            return noise["normal"].flatten()

        x = value[row].flatten().clone()
        jacobian = torch.autograd.functional.jacobian(inverse, x)
        base = torch.distributions.Normal(0.0, 1.0).log_prob(inverse(x)).sum()
        expected = base + torch.linalg.slogdet(jacobian).logabsdet
        assert_close(mechanism.log_prob(value[[row]], parents)[0], expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(("lower", "upper"), BOUNDS)
@pytest.mark.parametrize("scale", [0.1, 1.0, 3.0])
def test_round_trip_at_any_weights(lower, upper, scale):
    mechanism = bound_flow(Continuous(lower=lower, upper=upper), scale=scale)
    noise = mechanism.abduct(X.clone(), ROWS, generator=generator()).noise
    # A fresh tensor: Pyro's transforms know their last value by identity.
    u = noise["normal"].detach().clone().requires_grad_()
    value = mechanism.generate(ROWS, Noise(N, {"normal": u}))
    (slope,) = torch.autograd.grad(value.sum(), u)
    # What rounding of u alone moves x by, at weights so wild that T rises by a million and more.
    rounding = 64 * torch.finfo(torch.float64).eps * slope.abs() * (1 + u.abs())
    assert bool(((value - X).abs() <= rounding.clamp(min=1e-12)).all())
    assert scale > 1 or bool(((value - X).abs() < 1e-9).all())


def test_inverse_of_a_steep_spline_is_polished():
    # 1e5 times steeper in places than elsewhere: Pyro's closed inverse alone is off by 1e-8 and more.
    columns = ConditionalColumns(1, 0, (8,), bins=8, bound=4.0)
    with torch.no_grad():
        errors = []
        for seed in range(200):
            columns.columns[0].network.bias[2:] = 4 * normal(31, seed=seed)
            transforms = [columns.condition(torch.zeros(500, 0).double(), polish) for polish in (False, True)]
            z = transforms[0](1.5 * normal(500, 1, seed=seed + 1000))
            us = [transform.inv(z.clone()) for transform in transforms]
            errors.append([(transforms[0](u.clone()) - z).abs().max().item() for u in us])
    plain, polished = torch.tensor(errors).max(0).values
    assert polished < 1e-11 < plain


def test_nothing_is_remembered_between_calls():
    mechanism = bound_flow(Continuous())
    before = mechanism.abduct(X, ROWS, generator=generator()).noise["normal"].clone()
    with torch.no_grad():
        for parameter in mechanism.parameters():
            parameter.mul_(1.1)
    assert not torch.allclose(mechanism.abduct(X, ROWS, generator=generator()).noise["normal"], before)


@pytest.mark.parametrize(("lower", "upper"), BOUNDS)
def test_values_stay_inside_for_any_noise(lower, upper):
    mechanism = bound_flow(Continuous(lower=lower, upper=upper), {}, X, {})
    noise = Noise(5, {"normal": torch.tensor([-1e3, -40.0, 0.0, 40.0, 1e3]).double().requires_grad_()})
    value = mechanism.generate({}, noise)
    assert bool(value.isfinite().all())
    assert lower is None or bool((value > lower).all())
    assert upper is None or bool((value < upper).all())
    mechanism.abduct(value, {}, generator=generator())  # whatever it generates, it takes back
    assert bool(torch.autograd.grad(value.sum(), noise["normal"])[0].isfinite().all())


@pytest.mark.parametrize(("lower", "upper"), BOUNDS)
def test_gradients_are_finite_far_outside_the_box(lower, upper):
    mechanism = bound_flow(Continuous(lower=lower, upper=upper))
    value = X.clone()
    value[:2] = torch.tensor([-49.999999, 49.999999], dtype=torch.float64)
    mechanism.loss(value, ROWS, generator=generator()).sum().backward()
    assert all(bool(parameter.grad.isfinite().all()) for parameter in mechanism.parameters())


def test_half_bounded_support_is_precise_far_from_the_bound():
    # torch's softplus is off by 2e-9 just above 20 units.
    value = torch.linspace(0.1, 60, N, dtype=torch.float64)
    mechanism = bound_flow(Continuous(lower=0), {}, value, {})
    mechanism.bounds.scale.fill_(1.0)
    noise = mechanism.abduct(value, {}, generator=generator()).noise
    assert_close(mechanism.generate({}, noise), value, rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    ("bounds", "bad"), [({"lower": 0}, 0.0), ({"upper": 1}, 1.0), ({"lower": 0, "upper": 1}, 1.0)]
)
def test_a_value_on_a_bound_is_refused_with_the_remedy(bounds, bad):
    mechanism = Flow().bind(Continuous(**bounds), {})
    value = torch.tensor([0.5, 0.4, bad]).double()
    for call in (
        lambda: mechanism.prepare(value, {}),
        lambda: mechanism.log_prob(value, {}),
        lambda: mechanism.abduct(value, {}, generator=generator()),
    ):
        with pytest.raises(DomainError, match=f"Row 2 is {bad}.*dequantize"):
            call()


def test_training_starts_at_the_linear_normal_fit():
    mechanism = Flow(transform="affine").bind(Continuous(), PARENTS)
    mechanism.prepare(X, ROWS)
    one_hot = torch.nn.functional.one_hot(ROWS["kind"], 3)
    design = torch.cat([one_hot, ROWS["a"][:, None], ROWS["place"]], 1)
    residual = X - design @ torch.linalg.lstsq(design, X[:, None]).solution[:, 0]
    expected = torch.distributions.Normal(0.0, residual.square().mean().sqrt()).log_prob(residual)
    assert_close(mechanism.log_prob(X, ROWS).detach(), expected)


@pytest.mark.parametrize("variable", [Continuous(), Integer()])
def test_noise_of_any_size_beside_what_parents_tell(variable):
    """Seconds between two times of a year, a millionth of their deviation, were fitted 4 times as wide."""
    start = (3e7 * torch.rand(2000, generator=generator(1), dtype=torch.float64)).round()
    seconds = (20 * (2 + (0.5 * normal(2000, seed=2)).exp())).round()
    mechanism = fit(Flow().bind(variable, {"start": Continuous()}), start + seconds, {"start": start})
    with torch.no_grad():
        drawn = mechanism.generate({"start": start}, mechanism.sample_noise(2000, generator=generator(3)))
    assert sample_distance(drawn - start, seconds) < 0.06


def test_weights_of_before_there_was_a_unit_answer_as_then():
    mechanism = bound_flow(Continuous(), PARENTS, 10 * X)
    buffers = dict(mechanism.named_buffers())
    for name, buffer in buffers.items():
        if name.endswith(("unit", "anchor")):
            buffer.fill_(float(name.endswith("unit")))
    state = {
        name: each for name, each in mechanism.state_dict().items() if not name.endswith(("unit", "anchor"))
    }
    again = bound_flow(Continuous(), PARENTS, X)
    load_weights(again, state, "The weights")
    assert torch.equal(again.log_prob(X, ROWS), mechanism.log_prob(X, ROWS))


def test_fits_what_is_not_normal():
    side = codes(2, 3000, 7)
    value = torch.where(side == 0, -2.0, 1.0).double() + 0.2 * normal(3000, seed=8)
    mechanism = fit(Flow().bind(Continuous(), {}), value, steps=400)
    truth = [torch.distributions.Normal(mean, 0.2).log_prob(value) for mean in (-2.0, 1.0)]
    best = torch.logaddexp(*truth).mean() - math.log(2)
    with torch.no_grad():
        assert best - mechanism.log_prob(value, {}).mean() < 0.1
    noise = mechanism.abduct(value, {}, generator=generator()).noise["normal"].detach()
    assert sample_distance(noise, normal(3000, seed=9)) < 0.06


def test_grid_probabilities_sum_to_one_and_reach_the_bounds():
    value = X.round().clamp(-2, 4)
    mechanism = bound_flow(Continuous(lower=-2, upper=4), PARENTS, value, ROWS, dequantize=1)
    row = {name: rows[:1].expand(7, *rows.shape[1:]) for name, rows in ROWS.items()}
    probabilities = mechanism.log_prob(torch.arange(-2.0, 5).double(), row).exp()
    assert_close(probabilities.sum().item(), 1.0)
    assert bool((probabilities > 0).all())
    mechanism.loss(value, ROWS, generator=generator()).sum().backward()
    assert all(bool(parameter.grad.isfinite().all()) for parameter in mechanism.parameters())


@pytest.mark.parametrize("bounds", [{}, {"lower": -2}, {"upper": 4}])
def test_grid_posterior_is_the_prior_noise_that_gives_the_value(bounds):
    value = X.round().clamp(-2, 4)
    mechanism = bound_flow(Continuous(**bounds), {}, value, {}, dequantize=0.5)
    assert (mechanism.abduction, mechanism.deterministic) == ("posterior", False)
    with torch.no_grad():
        prior = mechanism.sample_noise(40_000, generator=generator())
        generated = mechanism.generate({}, prior)
        common = generated.mode().values
        kept = prior["normal"][generated == common]
        drawn = mechanism.abduct(common.expand(5000), {}, generator=generator(1)).noise["normal"]
    assert len(kept) > 1000
    assert sample_distance(kept, drawn) < 2.2 * (1 / len(kept) + 1 / 5000) ** 0.5


def test_a_grid_ends_at_its_last_value_within_the_bounds():
    """Of steps of 0.5 up to 1.2 a flow drew 1.2, which it refused as evidence."""
    value = codes(3, N).double() / 2
    mechanism = Flow(dequantize=0.5).bind(Continuous(lower=0, upper=1.2), {})
    mechanism = fit(mechanism, value, steps=30)
    with torch.no_grad():
        drawn = mechanism.generate({}, mechanism.sample_noise(2000, generator=generator()))
        assert drawn.unique().tolist() == [0.0, 0.5, 1.0]
        assert_close(mechanism.log_prob(drawn.unique(), {}).exp().sum().item(), 1.0)
    mechanism.abduct(drawn, {}, generator=generator())


@pytest.mark.parametrize("upper", [None, 1])
def test_a_grid_starts_with_what_is_rare_as_likely_as_it_is(upper):
    """Of 2 rows in 1000 it told a probability of 1e-29, and kept it where no held-out row was one of them."""
    kind = torch.arange(2000) % 2
    value = torch.where(kind == 1, torch.arange(2000) < 40, torch.arange(2000) < 8).double()
    mechanism = Flow().bind(Integer(lower=0, upper=upper), {"kind": Categorical(2)})
    mechanism.prepare(value, {"kind": kind})
    found = mechanism.log_prob(torch.ones(2).double(), {"kind": torch.arange(2)}).exp().tolist()
    assert found == pytest.approx([0.004, 0.02], rel=0.5)


@pytest.mark.parametrize("same", [0.0, 1e7, 1.7e9])
@pytest.mark.parametrize("bounds", [(None, None), (-5, None), (None, 10**15), (-5, 10**15)])
def test_a_count_that_is_always_the_same_is_drawn_as_that(same, bounds):
    """Of 1.7e9 a cell was 1e13 deviations wide, of which the gradient is nan."""
    value, rows = torch.full((N,), same).double(), {"a": ROWS["a"]}
    found = fit(Flow().bind(Integer(*bounds), {"a": Continuous()}), value, rows, steps=15)
    assert torch.equal(found.generate(rows, found.sample_noise(N, generator=generator())), value)
    assert bool((found.log_prob(value, rows) > -1e-4).all())


def test_values_on_a_fine_grid_far_from_0_are_on_it():
    """Of cents beyond 1e9 rounding was taken for another grid."""
    value = 1.7e9 + codes(1000, N).double() / 100
    mechanism = fit(Flow(dequantize=0.01).bind(Continuous(), {}), value, steps=1)
    noise = mechanism.abduct(value, {}, generator=generator()).noise
    assert_close(mechanism.generate({}, noise), value, rtol=1e-15, atol=0)


def test_grid_refusals():
    mechanism = Flow(dequantize=0.5).bind(Continuous(lower=1), {})
    with pytest.raises(DomainError, match=r"Row 1 is 1.7, which is not on the grid 1.0 \+ k \* 0.5"):
        mechanism.prepare(torch.tensor([1.5, 1.7], dtype=torch.float64), {})
    with pytest.raises(MechanismError, match="'dequantize' of a flow needs a scalar"):
        Flow(dequantize=1).bind(Continuous(shape=(2,)), {})


def test_pyro_distribution_has_the_density():
    mechanism = bound_flow(Continuous(lower=-50, shape=(2,)), value=PAIR)
    distribution = mechanism.distribution(ROWS, N)
    assert distribution.batch_shape == (N,) and distribution.event_shape == (2,)
    assert_close(distribution.log_prob(PAIR), mechanism.log_prob(PAIR, ROWS))


def test_same_options_start_from_the_same_weights():
    one, other = (Flow().bind(Continuous(), PARENTS).state_dict() for _ in range(2))
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_refusals():
    with pytest.raises(MechanismError, match="needs a continuous or integer variable, got image"):
        Flow().bind(Image(1, 8, 8), {})


def test_where_fitted_splines_bend_is_no_option_of_them():
    mechanism = bound_flow(Continuous())
    assert with_options("x", mechanism, {"bound": 4.0}).fitted
    with pytest.raises(MechanismError, match="fitted with bound 4.0, and mean nothing with 6.0"):
        with_options("x", mechanism, {"bound": 6.0})


@pytest.mark.parametrize(("before", "after"), [(1.0, None), (None, 1.0), (1.0, 2.0)])
def test_the_grid_that_a_flow_was_fitted_on_is_no_option_of_its_weights(before, after):
    """Its bounds lie half a step off those of the variable, by which all values moved."""
    value = X.round() if before else X + 0.5
    mechanism = bound_flow(Continuous(lower=-50), value=value, dequantize=before)
    assert with_options("x", mechanism, {"dequantize": before}).fitted
    with pytest.raises(
        MechanismError, match=f"fitted with dequantize {before}, and mean nothing with {after}"
    ):
        with_options("x", mechanism, {"dequantize": after})
