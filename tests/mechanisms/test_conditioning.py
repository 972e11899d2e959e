import re

import pytest
import torch
from torch.testing import assert_close

from graphs.errors import DomainError, MechanismError
from graphs.variables import Categorical, Continuous, Image
from mechanisms.conditioning import Conditioning

PARENTS = {"digit": Categorical(3), "size": Continuous(shape=(2,)), "age": Continuous()}


@pytest.fixture
def rows():
    generator = torch.Generator().manual_seed(0)
    return {
        "age": 1900 + 30 * torch.randn(50, generator=generator, dtype=torch.float64),
        "digit": torch.randint(3, (50,), generator=generator),
        "size": torch.randn(50, 2, generator=generator, dtype=torch.float64)
        * torch.tensor([1.0, 1e6]).double(),
    }


def test_columns_follow_the_declared_order(rows):
    conditioning = Conditioning(PARENTS)
    conditioning.prepare(rows)
    context = conditioning(rows)
    assert conditioning.width == 6
    assert conditioning.slices == {"digit": slice(0, 3), "size": slice(3, 5), "age": slice(5, 6)}
    assert context.shape == (50, 6) and context.dtype == torch.float64
    assert torch.equal(context[:, :3].argmax(1), rows["digit"])
    assert torch.equal(context[:, :3].sum(1), torch.ones(50).double())
    assert_close(context[:, 3:].mean(0), torch.zeros(3).double(), atol=1e-12, rtol=0)
    assert_close(context[:, 3:].std(0, correction=0), torch.ones(3).double(), atol=1e-12, rtol=0)


def test_constant_column_is_centred_and_not_scaled():
    conditioning = Conditioning({"x": Continuous()})
    conditioning.prepare({"x": torch.full((7,), 0.1, dtype=torch.float64)})
    assert conditioning.std.item() == 1
    assert_close(conditioning({"x": torch.tensor([1.1]).double()}).item(), 1.0)


def test_float32_keeps_the_digits_of_a_large_offset(rows):
    rows["age"] += 1e9
    double, single = Conditioning(PARENTS), Conditioning(PARENTS, dtype=torch.float32)
    double.prepare(rows)
    single.prepare(rows)
    context = single(rows)
    assert context.dtype == torch.float32
    assert_close(context, double(rows).float(), atol=1e-6, rtol=0)


def test_a_network_of_float32_is_told_small_changes_of_a_large_number():
    """Of 1e9 +- 1 it was told numbers 20 deviations from 0, and learned next to nothing of them."""
    conditioning = Conditioning({"x": Continuous()}, dtype=torch.float32)
    x = 1e9 + 20 + torch.linspace(-1, 1, 9, dtype=torch.float64)
    conditioning.prepare({"x": x})
    context = conditioning({"x": x})[:, 0]
    assert context.dtype == torch.float32
    assert_close(context, ((x - x.mean()) / x.std(correction=0)).float(), atol=1e-6, rtol=0)


def test_times_in_microseconds_are_no_constant():
    """1.7e15 +- 100 was told to networks as it is, less its mean: 100 deviations, not 1."""
    x = 1.7e15 + 100 * torch.linspace(-1, 1, 9, dtype=torch.float64)
    conditioning = Conditioning({"x": Continuous()})
    conditioning.prepare({"x": x})
    assert_close(conditioning({"x": x})[:, 0], (x - x.mean()) / x.std(correction=0))


def test_statistics_that_were_saved_in_float32_are_taken(rows):
    made = Conditioning(PARENTS, dtype=torch.float32)
    made.load_state_dict({"mean": torch.arange(6.0), "std": torch.full((6,), 2.0)})
    assert made.mean.dtype == torch.float64 and made(rows).dtype == torch.float32
    assert_close(made(rows)[:, 5], ((rows["age"] - 5) / 2).float())


def test_statistics_are_saved(rows):
    one, other = Conditioning(PARENTS), Conditioning(PARENTS)
    one.prepare(rows)
    other.load_state_dict(one.state_dict())
    assert torch.equal(one(rows), other(rows))


def test_root_has_no_columns():
    assert Conditioning({})({}, 4).shape == (4, 0)


def test_further_parents_are_ignored_and_gradients_flow(rows):
    age = rows["age"].requires_grad_()
    Conditioning({"age": Continuous()})({**rows, "age": age}).sum().backward()
    assert torch.equal(age.grad, torch.ones(50).double())


def test_refusals(rows):
    with pytest.raises(MechanismError, match="'x' is an image"):
        Conditioning({"x": Image(1, 8, 8)})
    conditioning = Conditioning(PARENTS)
    with pytest.raises(MechanismError, match=r"parent 'size' is missing; got \['age', 'digit'\]"):
        conditioning({"age": rows["age"], "digit": rows["digit"]})
    with pytest.raises(MechanismError, match=r"'size' must have shape \(N, 2\), got \(50,\)"):
        conditioning({**rows, "size": rows["age"]})


def test_values_that_overflow_a_float32_network_are_refused_by_name():
    parents = {"k": Categorical(3), "v": Continuous(shape=(2,)), "t": Continuous()}
    conditioning = Conditioning(parents, dtype=torch.float32)
    rows = {
        "k": torch.tensor([0, 1, 2, 0]),
        "v": torch.tensor([[0.0, 1.0], [1.0, 3.0], [2.0, 5.0], [3.0, 7.0]], dtype=torch.float64),
        "t": torch.tensor([2000.0, 2001.0, 2002.0, 2003.0], dtype=torch.float64),
    }
    conditioning.prepare(rows)
    for name, place, value in (("t", 2, 1e40), ("t", 1, -1e12), ("t", 0, float("nan"))):
        spoilt = rows[name].clone()
        spoilt[place] = value
        with (
            torch.no_grad(),
            pytest.raises(DomainError, match=f"Parent 't': row {place} is {re.escape(f'{value:g}')},"),
        ):
            conditioning({**rows, name: spoilt})
    spoilt = rows["v"].clone()
    spoilt[3, 1] = 1e39
    with torch.no_grad(), pytest.raises(DomainError, match="Parent 'v': row 3 is 1e[+]39"):
        conditioning({**rows, "v": spoilt})
    with torch.no_grad():
        assert conditioning({**rows, "t": rows["t"] + 1e4}).isfinite().all()
        wide = Conditioning(parents)
        wide.prepare(rows)
        assert wide({**rows, "v": spoilt}).isfinite().all()  # float64 holds it


def test_a_device_without_float64_has_float32(rows):
    def moved(tensor):  # as to an mps device
        if tensor.dtype == torch.float64:
            raise TypeError("no float64 there")
        return tensor.clone()

    conditioning = Conditioning(PARENTS, dtype=torch.float32)
    conditioning.prepare(rows)
    before = conditioning(rows)
    conditioning._apply(moved)
    assert {each.dtype for each in conditioning.buffers()} == {torch.float32}
    assert_close(conditioning(rows), before)
