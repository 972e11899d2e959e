import numpy as np
import pytest
import torch
from torch.testing import assert_close

from causalgen.testing import check_mechanism
from graphs.errors import MechanismError, NotFittedError
from graphs.variables import Categorical, Continuous, Image
from mechanisms.tables.additive import Additive
from mechanisms.tables.flow import Flow
from tests.mechanisms.fit import codes, fit, generator, normal

N = 500
PARENTS = {"a": Continuous(), "kind": Categorical(3), "place": Continuous(shape=(2,)), "b": Continuous()}
ROWS = {
    "a": 5 + 3 * normal(N, seed=1),
    "kind": codes(3, N, 2),
    "place": normal(N, 2, seed=3),
    "b": 1e4 + 100 * normal(N, seed=4),
}
MEAN = 2 + 0.5 * ROWS["a"] - 0.01 * ROWS["b"] + ROWS["place"] @ torch.tensor([1.0, -2.0]).double()
MEAN = MEAN + torch.tensor([0.0, 1.0, 5.0]).double()[ROWS["kind"]]
X = MEAN + 0.3 * normal(N, seed=5)
PAIR = torch.stack([X, -2 * X + normal(N, seed=6)], 1)


def some(rows, n=60):
    return {name: value[:n] for name, value in rows.items()}


@pytest.mark.parametrize("function", ["linear", "network"])
@pytest.mark.parametrize("noise", ["normal", "empirical"])
@pytest.mark.parametrize("shape", [(), (2,), (1, 2)])
@pytest.mark.parametrize("parents", [PARENTS, {}], ids=["parents", "root"])
def test_laws(function, noise, shape, parents):
    value = (PAIR if shape else X).reshape(N, *shape)
    rows = {name: ROWS[name] for name in parents}
    spec = Additive(function=function, noise=noise)
    mechanism = fit(spec.bind(Continuous(shape=shape), parents), value, rows, steps=20)
    check_mechanism(mechanism, value[:60], some(rows))


def test_linear_is_least_squares():
    mechanism = fit(Additive().bind(Continuous(), PARENTS), X, ROWS)
    columns = [torch.ones(N), ROWS["a"], *ROWS["place"].T, ROWS["b"], *(ROWS["kind"] == k for k in (1, 2))]
    design = torch.stack([column.double() for column in columns], 1).numpy()
    solution, squares, _, _ = np.linalg.lstsq(design, X.numpy(), rcond=None)
    residual = mechanism.abduct(X, ROWS, generator=generator()).noise["residual"]
    assert_close(residual, X - torch.from_numpy(design @ solution), atol=1e-9, rtol=0)
    assert_close(mechanism.scale.item(), (squares[0] / (N - design.shape[1])) ** 0.5)


@pytest.mark.parametrize("names", [["a", "b"], ["kind", "place"], []])
def test_the_noise_of_few_rows_has_the_right_variance_in_the_mean(names):
    """The square of its deviation is the residuals' sum of squares over N - k, of which the mean is 1."""
    parents, rows = {name: PARENTS[name] for name in names}, {name: ROWS[name][:9] for name in names}
    drawn = normal(9, 400, seed=7)
    scales = [fit(Additive().bind(Continuous(), parents), u, rows).scale.item() for u in drawn.T]
    squares = np.square(scales)
    assert abs(squares.mean() - 1) < 4 * squares.std() / 400**0.5


def test_linear_finds_the_coefficients():
    mechanism = fit(Additive().bind(Continuous(), PARENTS), MEAN, ROWS)
    weights = {
        name: mechanism.function.weight[columns, 0] for name, columns in mechanism.function.slices.items()
    }
    assert_close(weights["a"], torch.tensor([0.5]).double())
    assert_close(weights["b"], torch.tensor([-0.01]).double())
    assert_close(weights["place"], torch.tensor([1.0, -2.0]).double())
    assert_close(weights["kind"] - weights["kind"][0], torch.tensor([0.0, 1.0, 5.0]).double())


def test_counterfactual_of_a_linear_node_is_the_shift():
    mechanism = fit(Additive().bind(Continuous(), PARENTS), X, ROWS)
    noise = mechanism.abduct(X, ROWS, generator=generator()).noise
    moved = mechanism.generate({**ROWS, "a": ROWS["a"] + 2}, noise)
    slope = mechanism.function.weight[mechanism.function.slices["a"]].item()
    assert_close(moved - X, torch.full_like(X, 2 * slope))


def test_a_category_never_seen_has_the_mean_effect_of_the_others():
    rows = {"kind": codes(2, N)}
    x = torch.tensor([1.0, 3.0]).double()[rows["kind"]]
    mechanism = fit(Additive().bind(Continuous(), {"kind": Categorical(3)}), x, rows)
    noise = mechanism.abduct(x[:1], some(rows, 1), generator=generator()).noise
    assert_close(noise["residual"].abs().item(), 0.0, atol=1e-12, rtol=0)
    assert_close(mechanism.generate({"kind": torch.tensor([2])}, noise), torch.tensor([2.0]).double())


def test_density_is_normal():
    mechanism = fit(Additive().bind(Continuous(), PARENTS), X, ROWS)
    residual = mechanism.abduct(X, ROWS, generator=generator()).noise["residual"]
    expected = torch.distributions.Normal(0.0, mechanism.scale).log_prob(residual)
    assert_close(mechanism.log_prob(X, ROWS), expected)


def test_a_node_that_its_parents_determine_keeps_a_density():
    rows = {"a": ROWS["a"]}
    mechanism = fit(Additive().bind(Continuous(), {"a": Continuous()}), 3 * ROWS["a"], rows)
    noise = mechanism.sample_noise(N, generator=generator())
    assert_close(mechanism.generate(rows, noise), 3 * ROWS["a"], rtol=1e-9, atol=1e-9)
    assert bool(mechanism.log_prob(3 * ROWS["a"], rows).isfinite().all())
    assert bool((mechanism.log_prob(3 * ROWS["a"] + 1, rows) < -1e9).all())


@pytest.mark.parametrize("function", ["linear", "network"])
@pytest.mark.parametrize("offset", [1e9, 1.7e15])
def test_noise_beside_a_large_offset_keeps_its_deviation(offset, function):
    """Times in microseconds: noise of 100 beside 1.7e15 had the deviation 1,700."""
    start = offset + 1e6 * normal(N, seed=1)
    mechanism = Additive(function=function, noise="spline" if function == "network" else "normal")
    bound = mechanism.bind(Continuous(), {"start": Continuous()})
    found = fit(bound, start + 500 + 100 * normal(N, seed=2), {"start": start}, steps=1)
    assert found.scale.item() == pytest.approx(100, rel=0.1)


@pytest.mark.parametrize("value", [7.3, 1e-6])
@pytest.mark.parametrize(
    "mechanism",
    [Additive(function="network"), Additive(function="network", noise="spline"), Flow()],
    ids=["network", "network, spline", "flow"],
)
def test_what_is_always_the_same_has_the_noise_of_rounding(mechanism, value):
    """In whatever unit: noise began at a deviation of 1, and what was trained of it diverged."""
    rows = {"a": ROWS["a"]}
    bound = mechanism.bind(Continuous(), {"a": Continuous()})
    found = fit(bound, torch.full((N,), value).double(), rows, steps=60)
    drawn = found.generate(rows, found.sample_noise(N, generator=generator()))
    assert_close(drawn, torch.full((N,), value).double(), rtol=1e-9, atol=0)


def test_empirical_noise_is_whole_training_residuals():
    mechanism = fit(Additive(noise="empirical").bind(Continuous(shape=(2,)), PARENTS), PAIR, ROWS)
    trained = mechanism.abduct(PAIR, ROWS, generator=generator()).noise["residual"]
    drawn = mechanism.sample_noise(2000, generator=generator()).leaves["residual"]
    assert set(map(tuple, drawn.tolist())) <= set(map(tuple, trained.tolist()))
    assert len(set(map(tuple, drawn.tolist()))) > N / 2
    assert mechanism.log_prob(PAIR, ROWS) is None


@pytest.mark.parametrize("function", ["linear", "network"])
def test_empirical_residuals_are_saved_however_many(function):
    spec = Additive(noise="empirical", function=function)
    mechanism = fit(spec.bind(Continuous(), PARENTS), X, ROWS, steps=3)
    fresh = spec.bind(Continuous(), PARENTS)
    with pytest.raises(NotFittedError, match="training residuals"):
        fresh.sample_noise(3, generator=generator())
    fresh.load_state_dict(mechanism.state_dict())
    assert torch.equal(fresh.residuals, mechanism.residuals) and len(fresh.residuals) == N
    assert fresh.fitted


def test_network_bends():
    rows = {"a": ROWS["a"]}
    x = 10 * torch.sin(ROWS["a"]) + 0.3 * normal(N, seed=7)
    mechanism = fit(Additive(function="network").bind(Continuous(), {"a": Continuous()}), x, rows, steps=600)
    noise = mechanism.abduct(x, rows, generator=generator()).noise["residual"]
    assert noise.std() < 0.5
    assert_close(mechanism.scale * mechanism.log_factor.exp(), noise.std()[None], rtol=0.2, atol=0)


def test_pyro_distribution_generates_what_the_mechanism_does():
    mechanism = fit(Additive().bind(Continuous(shape=(2,)), PARENTS), PAIR, ROWS)
    distribution = mechanism.distribution(ROWS, N)
    noise = mechanism.sample_noise(N, generator=generator())
    assert distribution.batch_shape == (N,) and distribution.event_shape == (2,)
    assert_close(distribution.mean + noise["residual"], mechanism.generate(ROWS, noise))


def test_refusals():
    with pytest.raises(MechanismError, match="needs a continuous variable, got categorical"):
        Additive().bind(Categorical(3), {})
    with pytest.raises(MechanismError, match="'photo' is an image"):
        Additive().bind(Continuous(), {"photo": Image(1, 8, 8)})
    mechanism = fit(Additive().bind(Continuous(), PARENTS), X, ROWS)
    with pytest.raises(MechanismError, match=r"parents \['b', 'kind', 'place'\] are missing"):
        mechanism.generate({"a": ROWS["a"]}, mechanism.sample_noise(N, generator=generator()))
