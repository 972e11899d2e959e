import numpy as np
import pytest
import torch
from torch.testing import assert_close

from causalgen.checking.statistics import sample_distance
from causalgen.saving.manifest import load_weights
from causalgen.testing import check_mechanism
from graphs import variables
from graphs.errors import EvidenceError, MechanismError
from graphs.variables import Continuous
from mechanisms.base import Noise
from mechanisms.options import with_options
from mechanisms.tables.categorical import Categorical
from tests.mechanisms.fit import codes, fit, generator, normal

N = 3000
PARENTS = {"colour": variables.Categorical(2), "shape": variables.Categorical(3)}
ROWS = {"colour": codes(2, N, 1), "shape": codes(3, N, 2)}
X = (ROWS["colour"] + ROWS["shape"] + codes(2, N, 3)) % 4
AGE = {"age": Continuous(), **PARENTS}
AGE_ROWS = {"age": 40 + 10 * normal(N, seed=4), **ROWS}


def with_logits(rows, **options):
    """A root with the given probabilities' logarithms, one row."""
    mechanism = Categorical(**options).bind(variables.Categorical(len(rows)), {})
    mechanism.table.copy_(torch.tensor(rows, dtype=torch.float64).log_softmax(-1))
    mechanism.mark_fitted()
    return mechanism


@pytest.mark.parametrize("coupling", ["gumbel", "monotone"])
@pytest.mark.parametrize("logits", ["auto", "linear", "ordinal"])
@pytest.mark.parametrize(("parents", "rows"), [({}, {}), (PARENTS, ROWS), (AGE, AGE_ROWS)])
def test_laws(coupling, logits, parents, rows):
    spec = Categorical(coupling=coupling, logits=logits)
    mechanism = fit(spec.bind(variables.Categorical(4, ordered=True), parents), X, rows, steps=30)
    check_mechanism(mechanism, X[:60], {name: value[:60] for name, value in rows.items()})


def test_table_holds_smoothed_frequencies():
    mechanism = fit(Categorical(smoothing=2).bind(variables.Categorical(4), PARENTS), X, ROWS)
    chosen = X[(ROWS["colour"] == 1) & (ROWS["shape"] == 2)]
    overall = (torch.bincount(X, minlength=4) + 2 / 4) / (N + 2)
    expected = (torch.bincount(chosen, minlength=4) + 2 * overall) / (len(chosen) + 2)
    row = {"colour": torch.tensor([1]), "shape": torch.tensor([2])}
    assert_close(mechanism.logits(row, 1).exp()[0], expected.double())
    probabilities = [mechanism.log_prob(torch.tensor([k]), row).exp() for k in range(4)]
    assert_close(sum(probabilities), torch.ones(1).double())


def test_combinations_never_seen_follow_the_overall_frequencies():
    seen = {"colour": torch.tensor([0, 0, 0])}
    spec = Categorical(smoothing=0)
    mechanism = fit(
        spec.bind(variables.Categorical(2), {"colour": variables.Categorical(2)}),
        torch.tensor([0, 1, 1]),
        seen,
    )
    assert_close(
        mechanism.logits({"colour": torch.tensor([1])}, 1).exp()[0], torch.tensor([1, 2]).double() / 3
    )


@pytest.mark.parametrize("coupling", ["gumbel", "monotone"])
def test_what_cannot_happen_is_never_generated_and_refused_as_evidence(coupling):
    infinity = torch.inf
    mechanism = with_logits([-infinity, 0, -infinity, 1, -infinity], coupling=coupling)
    noise = mechanism.sample_noise(5000, generator=generator())
    assert set(mechanism.generate({}, noise).tolist()) == {1, 3}
    with pytest.raises(EvidenceError, match="Row 1: category 2 has probability zero"):
        mechanism.abduct(torch.tensor([1, 2, 0]), {}, generator=generator())
    value = torch.tensor([1, 3]).repeat(500)
    noise = mechanism.abduct(value, {}, generator=generator()).noise
    assert all(bool(leaf.isfinite().all()) for leaf in noise.values())
    assert torch.equal(mechanism.generate({}, noise), value)


def test_posterior_gumbels_are_the_prior_ones_that_give_the_value():
    mechanism = with_logits([0.0, 1.0, -1.5])
    prior = mechanism.sample_noise(60_000, generator=generator())
    value = mechanism.generate({}, prior)
    for category in range(3):
        kept = prior["gumbel"][value == category]
        evidence = torch.full((20_000,), category)
        drawn = mechanism.abduct(evidence, {}, generator=generator(1)).noise["gumbel"]
        limit = 2.2 * (1 / len(kept) + 1 / len(drawn)) ** 0.5
        # Single components, and a sum and a difference, which see their dependence.
        for weights in ([1, 0, 0], [0, 1, 0], [0, 0, 1], [1, 1, 1], [1, -2, 1]):
            direction = torch.tensor(weights).double()
            assert sample_distance(kept @ direction, drawn @ direction) < limit


@pytest.mark.parametrize("gap", [40.0, 800.0, 1e6])
def test_abduction_holds_for_the_most_unlikely_evidence(gap):
    mechanism = with_logits([0.0, -gap, 0.5, -gap + 1])
    value = torch.tensor([1, 3]).repeat(5000)
    noise = mechanism.abduct(value, {}, generator=generator()).noise
    assert bool(noise["gumbel"].isfinite().all())
    assert torch.equal(mechanism.generate({}, noise), value)


def test_gumbel_counterfactuals_are_stable():
    """A category whose odds against every other rise stays (Oberst & Sontag 2019, definition 4)."""
    mechanism = with_logits([0.0, 0.3, -0.5])
    value = torch.full((4000,), 1)
    noise = mechanism.abduct(value, {}, generator=generator()).noise
    mechanism.table.copy_(torch.tensor([0.0, 0.9, -0.4]).double().log_softmax(-1))
    assert torch.equal(mechanism.generate({}, noise), value)
    mechanism.table.copy_(torch.tensor([1.5, 0.3, -0.5]).double().log_softmax(-1))
    assert set(mechanism.generate({}, noise).tolist()) == {0, 1}


def test_monotone_counterfactuals_keep_their_rank():
    mechanism = with_logits([0.0, 0.3, -0.5], coupling="monotone")
    noise = Noise(1000, {"uniform": torch.linspace(0, 1, 1001, dtype=torch.float64)[:-1]})
    before = mechanism.generate({}, noise)
    mechanism.table.copy_(torch.tensor([-1.0, 0.3, 0.5]).double().log_softmax(-1))  # larger in every quantile
    after = mechanism.generate({}, noise)
    assert bool((after >= before).all()) and bool((after.diff() >= 0).all())


def test_last_step_reaches_one():
    # 0.1 ten times sums to less than 1 in binary; nothing may fall into the gap.
    below_one = torch.nextafter(torch.tensor(1.0).double(), torch.tensor(0.0).double())
    noise = Noise(1, {"uniform": below_one[None]})
    assert with_logits([0.0] * 10, coupling="monotone").generate({}, noise).item() == 9
    padded = with_logits([0.0] * 10 + [-torch.inf] * 3, coupling="monotone")
    assert padded.generate({}, noise).item() == 9


def test_network_learns_from_continuous_parents():
    logits = torch.stack([torch.zeros(N), (AGE_ROWS["age"] - 40) / 5], 1)
    x = (logits[:, 1].sigmoid() > torch.rand(N, generator=generator(), dtype=torch.float64)).long()
    mechanism = fit(Categorical().bind(variables.Categorical(2), AGE), x, AGE_ROWS)
    with torch.no_grad():
        error = (mechanism.logits(AGE_ROWS, N).exp() - logits.softmax(-1)).abs().mean()
    assert error < 0.05


def test_weights_from_before_there_was_a_line_are_loaded():
    bound = Categorical().bind(variables.Categorical(2), AGE)
    fitted = fit(Categorical().bind(variables.Categorical(2), AGE), X % 2, AGE_ROWS, steps=2)
    before = {name: value for name, value in fitted.state_dict().items() if name != "line.slope"}
    load_weights(bound, before, "weights")
    assert fitted.line is not None and bool((fitted.line.slope != 0).any())
    assert bound.line is not None and bool((bound.line.slope == 0).all())
    assert_close(bound.network(torch.ones(1, 6)), fitted.network(torch.ones(1, 6)))


@pytest.mark.parametrize("smoothing", [0.0, 1.0, 5.0])
def test_linear_logits_are_logistic_regression(smoothing):
    """The optimum of numpy's Newton steps, of the difference of two logits."""
    age = AGE_ROWS["age"]
    x = (torch.rand(N, generator=generator(), dtype=torch.float64) < ((age - 45) / 8).sigmoid()).long()
    spec = Categorical(logits="linear", smoothing=smoothing)
    mechanism = fit(spec.bind(variables.Categorical(2), {"age": Continuous()}), x, {"age": age})
    columns = np.column_stack([np.ones(N), (age - age.mean()) / age.std(correction=0)])
    ones = int(x.sum())
    added = max(smoothing, 0.5) / 2
    start = np.array([np.log(ones + added) - np.log(N - ones + added), 0])
    found = start.copy()
    for _ in range(
        30
    ):  # of the two halves of each difference, s / 2 a half and two of them: s / 4 (d - start)^2
        p = 1 / (1 + np.exp(-columns @ found))
        slope = columns.T @ (x.numpy() - p) - smoothing / 2 * (found - start)
        found = found + np.linalg.solve(
            columns.T * (p * (1 - p)) @ columns + smoothing / 2 * np.eye(2), slope
        )
    expected = torch.from_numpy(columns @ found).sigmoid()
    with torch.no_grad():
        logits = mechanism.logits({"age": age}, N)
    assert_close(logits[:, 1].exp(), expected, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("smoothing", [0.0, 1.0, 20.0])
def test_ordinal_logits_are_proportional_odds(smoothing):
    """Data of known odds; and numpy's own likelihood has no slope where the fit ended."""
    age = AGE_ROWS["age"].numpy()
    z = (age - age.mean()) / age.std()
    cuts = np.array([-1.5, 0.0, 0.4])
    logistic = np.random.default_rng(0).logistic(size=N)
    x = ((1.2 * z + logistic)[:, None] > cuts).sum(1)
    spec = Categorical(logits="ordinal", smoothing=smoothing)
    bound = spec.bind(variables.Categorical(4, ordered=True), {"age": Continuous()})
    mechanism = fit(bound, torch.from_numpy(x), {"age": AGE_ROWS["age"]})
    slope, rises = (each.detach().numpy() for each in mechanism.regression.parameters())
    if smoothing < 20:
        assert_close(slope, np.array([1.2]), atol=0.12, rtol=0)
        assert_close(np.cumsum([rises[0], *np.exp(rises[1:])]), cuts, atol=0.15, rtol=0)
    counts = np.bincount(x, minlength=4) + max(smoothing, 0.5) / 4
    share = np.cumsum(counts / counts.sum())[:-1]
    edges = np.log(share / (1 - share))
    start = np.array([edges[0], *np.log(np.diff(edges))])

    def loss(found):
        ends = np.cumsum([found[1], *np.exp(found[2:])]) - found[0] * z[:, None]
        below = np.concatenate([np.zeros((N, 1)), 1 / (1 + np.exp(-ends)), np.ones((N, 1))], 1)
        size = found[0] ** 2 + np.sum((found[1:] - start) ** 2)
        return smoothing * size / 2 - np.log(np.diff(below, axis=1)[np.arange(N), x]).sum()

    found = np.concatenate([slope, rises])
    for step in 1e-4 * np.eye(4):
        assert abs(loss(found + step) - loss(found - step)) / 2e-4 < 0.1  # of thousands away from there


@pytest.mark.parametrize("logits", ["linear", "ordinal"])
def test_the_optimum_is_reached_under_parents_that_go_together(logits):
    """Twelve parents of correlation 0.99 with the next: no gradient of the likelihood is left."""
    steps = normal(N, 12, seed=5) * torch.tensor([1.0] + [0.14] * 11)
    parents = {f"p{number}": column for number, column in enumerate(steps.cumsum(1).T)}
    score = 2 * parents["p0"] - parents["p11"] + normal(N, seed=6)
    x = (score[:, None] > torch.tensor([-3.0, 0.0, 1.0])).sum(1)
    variable = variables.Categorical(4, ordered=True)
    mechanism = fit(
        Categorical(logits=logits).bind(variable, dict.fromkeys(parents, Continuous())), x, parents
    )
    slope = mechanism.regression.slope if logits == "ordinal" else mechanism.regression.line.slope
    gradient = torch.autograd.grad(mechanism.log_prob(x, parents).sum(), slope)[0] - slope.detach()
    assert float(gradient.abs().max()) < 0.05  # of sums of 3,000 rows


def test_ordinal_logits_of_a_category_that_no_row_has_stay_finite():
    x = torch.where(X == 2, 3, X)
    for smoothing in (0.0, 1.0):
        spec = Categorical(logits="ordinal", smoothing=smoothing)
        mechanism = fit(spec.bind(variables.Categorical(5, ordered=True), AGE), x, AGE_ROWS)
        with torch.no_grad():
            log_p = mechanism.logits(AGE_ROWS, N)
        assert bool(log_p.isfinite().all())
        assert_close(log_p.exp().sum(1), torch.ones(N, dtype=torch.float64))
        assert float(log_p[:, [2, 4]].exp().mean()) < 0.01


def test_linear_logits_stay_finite_where_a_line_separates_categories():
    x = (AGE_ROWS["age"] > 40).long()
    mechanism = fit(Categorical(logits="linear").bind(variables.Categorical(3), AGE), x, AGE_ROWS)
    with torch.no_grad():
        log_prob, never = mechanism.log_prob(x, AGE_ROWS), mechanism.logits(AGE_ROWS, N)[:, 2]
    assert bool(log_prob.isfinite().all()) and float(log_prob.mean()) > -0.1
    assert bool((never < -5).all()) and bool(never.isfinite().all())


def test_candidates_are_where_the_form_is_open():
    kinds = [each.logits for each in Categorical(smoothing=2).candidates(variables.Categorical(2), AGE)]
    assert kinds == ["linear", "network"]
    ordered = variables.Categorical(3, ordered=True)
    kinds = [each.logits for each in Categorical().candidates(ordered, AGE)]
    assert kinds == ["ordinal", "linear", "network"]
    picture = {"scan": variables.Image(1, 8, 8), "age": Continuous()}
    for spec, parents in [
        (Categorical(), PARENTS),
        (Categorical(), {}),
        (Categorical(), picture),
        (Categorical(logits="network"), AGE),
        (Categorical(training=None), AGE),
    ]:
        assert spec.candidates(variables.Categorical(2), parents) == ()


def test_pyro_distribution_is_the_mechanism():
    mechanism = fit(Categorical().bind(variables.Categorical(4), PARENTS), X, ROWS)
    assert_close(mechanism.distribution(ROWS, N).log_prob(X), mechanism.log_prob(X, ROWS))


def test_a_table_where_it_is_small():
    many = {f"p{number}": variables.Categorical(10) for number in range(5)}
    assert Categorical().bind(variables.Categorical(4), PARENTS).tabular
    assert not Categorical().bind(variables.Categorical(4), many).tabular
    for logits in ("linear", "network"):
        assert not Categorical(logits=logits).bind(variables.Categorical(4), PARENTS).tabular
    assert Categorical(logits="network").bind(variables.Categorical(4), {}).tabular


def test_refusals():
    with pytest.raises(MechanismError, match=r"table of logits needs categorical parents; \['age'\]"):
        Categorical(logits="table").bind(variables.Categorical(4), AGE)
    with pytest.raises(
        MechanismError, match="Logits that are linear read no images, as 'scan'. Use logits: network"
    ):
        Categorical(logits="linear").bind(variables.Categorical(4), {"scan": variables.Image(1, 8, 8)})
    with pytest.raises(MechanismError, match="of categories with an order. Declare them with ordered: true"):
        Categorical(logits="ordinal").bind(variables.Categorical(4), AGE)
    with pytest.raises(MechanismError, match="needs a categorical variable, got continuous"):
        Categorical().bind(Continuous(), {})


@pytest.mark.parametrize("smoothing", [0.0, 1.0])
def test_parents_that_never_met_leave_the_overall_frequencies(smoothing):
    """Of what happens in 1 % of the rows do(parents that never met) told 50 %, by smoothing alone."""
    rows = {"colour": torch.tensor([0, 1]).repeat_interleave(500), "shape": torch.zeros(1000).long()}
    value = (torch.arange(1000) % 100 == 0).long()
    mechanism = fit(Categorical(smoothing=smoothing).bind(variables.Categorical(2), PARENTS), value, rows)
    unmet = {"colour": torch.tensor([1]), "shape": torch.tensor([2])}
    found = mechanism.logits(unmet, 1).softmax(-1)[0, 1]
    assert_close(found.item(), (10 + smoothing / 2) / (1000 + smoothing))


def test_parents_that_met_once_or_twice_leave_what_is_rare_rare():
    """Of what happens in 1 % of the rows, whatever the parents, a table of 1,000 combinations told 24 %."""
    n, parents = 2000, {name: variables.Categorical(10) for name in "abc"}
    rows = {name: codes(10, n, seed) for seed, name in enumerate(parents)}
    value = (torch.arange(n) % 100 == 0).long()
    mechanism = fit(Categorical().bind(variables.Categorical(2), parents), value, rows)
    every = {name: torch.arange(1000) // 10**place % 10 for place, name in enumerate(parents)}
    assert_close(mechanism.logits(every, 1000).exp()[:, 1].mean().item(), 0.01, rtol=0, atol=0.004)


def test_smoothing_adds_one_row_to_a_combination_however_many_categories_there_are():
    """Of 25 rows each and five categories a drug that raised recovery from 20 % to 60 % did by 33 points."""
    parents = {"ward": variables.Categorical(20), "drug": variables.Categorical(2)}
    rows = {"ward": torch.arange(1000) // 50, "drug": torch.arange(1000) // 25 % 2}
    place = torch.arange(1000) % 25
    value = torch.where(place < 5 + 10 * rows["drug"], 0, 1 + place % 4)
    mechanism = fit(Categorical().bind(variables.Categorical(5), parents), value, rows)
    recovered = mechanism.logits({"ward": torch.tensor([3, 3]), "drug": torch.tensor([0, 1])}, 2).exp()[:, 0]
    assert_close(recovered.diff().item(), 0.4 * 25 / 26)


@pytest.mark.parametrize("logits", ["table", "linear"])
def test_labels_that_no_row_has_are_rarely_drawn(logits):
    """Of 249 countries, 12 of which are in 500 rows, the others were drawn in 32 and 5 % of the rows."""
    value = torch.arange(500) % 12
    parents = {} if logits == "table" else {"age": AGE_ROWS["age"][:500]}
    spec = Categorical(logits=logits)
    mechanism = fit(
        spec.bind(variables.Categorical(249), dict.fromkeys(parents, Continuous())), value, parents
    )
    with torch.no_grad():
        never = mechanism.logits(parents, 500)[:, 12:].exp().sum(1).mean()
    assert 0 < float(never) < 1 / 500


def test_smoothing_is_no_option_of_a_table_that_was_counted():
    """It changed nothing but what refits, and the file of the model, took it for."""
    mechanism = fit(Categorical().bind(variables.Categorical(4), PARENTS), X, ROWS)
    assert with_options("x", mechanism, {"coupling": "monotone", "smoothing": 1.0}).fitted
    with pytest.raises(MechanismError, match=r"fitted with smoothing 1.0, .* 0.0. Fit a new model"):
        with_options("x", mechanism, {"smoothing": 0.0})
