import networkx as nx
import numpy as np
import pytest
import torch
from torch.testing import assert_close

import causalgen as cg
from causalgen.testing import check_mechanism
from graphs.errors import MechanismError, NotFittedError
from graphs.variables import Categorical, Continuous, Image
from mechanisms.tables.empirical import Empirical
from tests.mechanisms.fit import codes, fit, generator, normal


@pytest.mark.parametrize(
    ("variable", "values"),
    [
        (Continuous(), normal(50)),
        (Continuous(shape=(2,)), normal(50, 2)),
        (Categorical(4), codes(4, 50)),
    ],
)
def test_laws(variable, values):
    mechanism = fit(Empirical().bind(variable, {}), values)
    assert (mechanism.abduction, mechanism.deterministic) == ("exact", True)
    check_mechanism(mechanism, values, {})


def test_draws_are_whole_training_rows_in_equal_shares():
    values = torch.tensor([[1.0, 10.0], [2.0, 20.0], [3.0, 30.0]]).double()
    mechanism = fit(Empirical().bind(Continuous(shape=(2,)), {}), values)
    drawn = mechanism.generate({}, mechanism.sample_noise(9000, generator=generator()))
    assert torch.equal(drawn[:, 1], 10 * drawn[:, 0])
    assert_close(drawn[:, 0].long().bincount()[1:] / 9000, torch.full((3,), 1 / 3), rtol=0, atol=0.03)


def test_categories_have_their_shares():
    mechanism = fit(Empirical().bind(Categorical(3), {}), torch.tensor([0, 0, 0, 2]))
    expected = torch.tensor([0.75, 0.0, 0.25]).double().log()
    assert_close(mechanism.log_prob(torch.arange(3), {}), expected)
    assert mechanism.distribution({}, 5).batch_shape == (5,)
    numbers = fit(Empirical().bind(Continuous(), {}), normal(5))
    assert numbers.log_prob(normal(5), {}) is None and numbers.distribution({}, 5) is None


def test_in_a_model_saved_and_loaded(tmp_path):
    x = np.random.default_rng(0).exponential(size=100)
    scm = cg.SCM(
        nx.DiGraph([("x", "y")]),
        variables={"x": cg.Continuous(lower=0), "y": cg.Continuous()},
        mechanisms={"x": cg.mechanisms.Empirical(), "y": cg.mechanisms.Additive()},
    )
    scm.fit({"x": x, "y": 2 * x + 1}, progress=False)
    loaded = cg.SCM.from_pretrained(scm.save_pretrained(tmp_path / "model"))
    drawn = loaded.sample(50, seed=0)
    assert torch.equal(drawn["x"], scm.sample(50, seed=0)["x"])
    assert np.isin(drawn["x"].numpy(), x).all()
    answer = loaded.counterfactual({"x": 0.123, "y": 1.5}, do={"x": 1.0}, copy_unaffected=False)
    assert_close(answer["y"].item(), 1.5 + 2 * (1 - 0.123))


def test_refusals():
    with pytest.raises(MechanismError, match="without parents; this one has a"):
        Empirical().bind(Continuous(), {"a": Continuous()})
    with pytest.raises(MechanismError, match="use 'diffusion'"):
        Empirical().bind(Image(1, 8, 8), {})
    with pytest.raises(NotFittedError, match="fit it first"):
        Empirical().bind(Continuous(), {}).sample_noise(1, generator=generator())


@pytest.mark.parametrize("validation", [0.0, 0.2])
def test_a_fit_report_has_no_loss_where_nothing_is_minimised(validation):
    variables = {"x": Continuous(), "k": Categorical(2), "y": Continuous()}
    empirical = Empirical(training={"validation": validation})
    mechanisms = {"x": empirical, "k": empirical, "y": cg.mechanisms.Additive()}
    scm = cg.SCM(nx.DiGraph([("x", "y"), ("k", "y")]), variables, mechanisms)
    rows = {"x": np.arange(50.0), "k": np.arange(50) % 2, "y": 2 * np.arange(50.0) + np.arange(50) % 3}
    report = scm.fit(rows, progress=False).fit_report
    for node in ("x", "k"):
        assert (report[node].train_loss, report[node].validation_loss) == (None, None)
        assert str(report[node]) == f"{node}: all 50 rows"
    assert report["y"].train_loss is not None
