import numpy as np
import pytest
import torch

from causalgen.testing import check_mechanism
from graphs.errors import DomainError, EvidenceError, MechanismError, ShapeError
from graphs.variables import Categorical, Continuous, Image
from mechanisms.base import Noise
from mechanisms.intervened import Constant, ConstantMechanism
from mechanisms.registry import dump_mechanism, parse_mechanism


@pytest.mark.parametrize(
    ("variable", "value", "canonical"),
    [
        (Categorical(["cat", "dog"]), "dog", 1),
        (Categorical(10), 7, 7),
        (Continuous(lower=0), 2, 2.0),
        (Continuous(shape=(2,)), [1, 2.5], [1.0, 2.5]),
        (Image(1, 2, 2), [[0.0, 1.0], [0.5, 0.5]], [[[-1.0, 1.0], [0.0, 0.0]]]),
    ],
)
def test_value_in_the_users_form(variable, value, canonical):
    mechanism = Constant(value=value).bind(variable, {"ignored": Continuous()})
    generated = mechanism.generate({}, Noise(3))
    expected = torch.tensor(canonical, dtype=getattr(torch, variable.dtype))
    assert generated.dtype == expected.dtype
    assert torch.equal(generated, expected.expand(3, *variable.event_shape))
    check_mechanism(mechanism, generated, {"ignored": torch.zeros(3).double()})


def test_one_value_a_row():
    rows = torch.tensor([1.0, 2.0, 3.0]).double()
    mechanism = ConstantMechanism.of(Continuous(), rows)
    assert mechanism.fitted and torch.equal(mechanism.generate({}, Noise(3)), rows)
    check_mechanism(mechanism, rows, {})
    with pytest.raises(MechanismError, match="holds 3 rows, but 4 were asked for"):
        mechanism.generate({}, Noise(4))


def test_abduction_checks_nothing_and_needs_no_noise():
    mechanism = Constant(value=1.0).bind(Continuous(), {})
    abducted = mechanism.abduct(torch.tensor([5.0, 6.0]), {}, generator=torch.Generator())
    assert abducted.noise.n == 2 and not abducted.noise.leaves and abducted.log_weight is None


def test_arrays_become_lists_that_can_be_written():
    spec = Constant(value=np.array([1.0, 2.0]))
    assert spec == Constant(value=torch.tensor([1.0, 2.0])) and spec.value == [1.0, 2.0]
    assert parse_mechanism(dump_mechanism(spec)) == spec


def test_nothing_is_saved_but_the_spec():
    mechanism = Constant(value=1.0).bind(Continuous(), {})
    assert set(mechanism.state_dict()) == {"fitted_flag"}


def test_refusals():
    with pytest.raises(MechanismError, match="needs a value"):
        Constant().bind(Continuous(), {})
    with pytest.raises(DomainError):
        Constant(value=10).bind(Categorical(10), {})
    with pytest.raises(ShapeError, match="one value of the variable, got 2 rows"):
        Constant(value=np.array([1.0, 2.0])).bind(Continuous(), {})
    with pytest.raises(ShapeError, match=r"\(N, \*\(2,\)\), got \(3,\)"):
        ConstantMechanism.of(Continuous(shape=(2,)), torch.zeros(3))


def test_evidence_against_what_the_node_was_set_to():
    mechanism = Constant(value=1).bind(Continuous(), {})
    assert mechanism.restricts
    mechanism.check(torch.ones(2).double(), {})
    with pytest.raises(EvidenceError, match=r"Row 1: the model says 1.0 \(set by an earlier do\), got 5.0"):
        mechanism.check(torch.tensor([1.0, 5.0]).double(), {})
    rows = ConstantMechanism.of(Continuous(shape=(2,)), torch.tensor([[1.0, 2.0], [3.0, 4.0]]).double())
    with pytest.raises(EvidenceError, match=r"Row 0: the model says \[1.0, 2.0\].*got \[1.0, 3.0\]"):
        rows.check(torch.tensor([[1.0, 3.0], [3.0, 4.0]]).double(), {})


def test_evidence_may_be_rounded_as_files_and_float32_round():
    tenth = Constant(value=0.1).bind(Continuous(), {})
    tenth.check(torch.tensor([0.1]).double(), {})  # 0.1 in float32
    with pytest.raises(EvidenceError, match="the model says 0.1 .*got 0.10001"):
        tenth.check(torch.tensor([0.10001]).double(), {})
    grey = Constant(value=np.full((1, 1, 2, 2), 0.3)).bind(Image(1, 2, 2), {})
    grey.check(torch.full((1, 1, 2, 2), 2 * round(0.3 * 255) / 255 - 1), {})
    with pytest.raises(EvidenceError, match="Row 0: the model says"):
        grey.check(torch.full((1, 1, 2, 2), 2 * 78 / 255 - 1), {})
    with pytest.raises(EvidenceError, match="the model says 3"):
        Constant(value=3).bind(Categorical(10), {}).check(torch.tensor([2]), {})
