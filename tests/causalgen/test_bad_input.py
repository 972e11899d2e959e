"""What is wrong is one clear error: what, where, expected, got, and the fix."""

import networkx as nx
import numpy as np
import pandas as pd
import pytest
import torch

import causalgen as cg
from graphs.errors import SpecError

EQUATION = cg.mechanisms.Equation
NORMAL = {"u": {"normal": [0, 1]}}
UNIFORM = {"u": {"uniform": [0, 1]}}


def pair(first, second, variables=None):
    """a -> b."""
    return cg.SCM(
        nx.DiGraph([("a", "b")]),
        variables or {"a": cg.Continuous(), "b": cg.Continuous()},
        {"a": first, "b": second},
    )


DOUBLE = pair(EQUATION(value="u", noise=NORMAL), EQUATION(value="2*a"))
SUM = pair(EQUATION(value="u", noise=UNIFORM), EQUATION(value="a + u", noise=UNIFORM))
WHOLE = cg.SCM(
    nx.DiGraph([("a", "b"), ("c", "b")]),
    {"a": cg.Categorical(2), "b": cg.Categorical(3), "c": cg.Categorical(2)},
    {
        "a": EQUATION(value="u", noise={"u": {"bernoulli": [0.5]}}),
        "c": EQUATION(value="u", noise={"u": {"bernoulli": [0.5]}}),
        "b": EQUATION(value="a + c"),
    },
)


def test_evidence_that_an_equation_contradicts():
    told = (
        r"Node 'b': Row 1: the value is 3.0, but the equation '2\*a' gives 2.0 at a = 1.0 "
        r"\(tolerance 1e-05\). Correct the evidence, widen the tolerance, or give the equation a noise."
    )
    for copied in (True, False):
        with pytest.raises(cg.EvidenceError, match=told):
            DOUBLE.counterfactual({"a": [1, 1], "b": [2, 3]}, do={"a": 2.0}, copy_unaffected=copied)
    with pytest.raises(cg.EvidenceError, match=r"'a \+ c' gives 2.0 at a = 1, c = 1"):
        WHOLE.counterfactual({"a": 1, "b": 0, "c": 1}, do={"a": 0})


@pytest.mark.parametrize("single", [np.array(0.5), torch.tensor(0.5)])
def test_a_number_is_no_image(single):
    image = cg.mechanisms.Constant(value=[[[0.0, 0.5], [1.0, 0.25]]])
    scm = cg.SCM(nx.empty_graph(["i"], create_using=nx.DiGraph), {"i": cg.Image(1, 2, 2)}, {"i": image})
    for ask in (scm.abduct, scm.fit):
        with pytest.raises(cg.CausalgenError, match=r"'i': expected images of shape .*, got shape \(\)"):
            ask({"i": single})


def test_evidence_of_probability_zero():
    with pytest.raises(
        cg.EvidenceError, match=r"Row 1: .* zero whatever 'c' may be. Correct the row, or leave"
    ):
        WHOLE.abduct({"a": [0, 1], "b": [0, 0]}).posterior("c")
    with pytest.raises(
        cg.EvidenceError, match=r"value is 7.0, .* at a = 0.5 .*u ~ uniform\(0, 1\).*zero. Correct"
    ):
        SUM.counterfactual({"a": 0.5, "b": 7.0}, do={"a": 0.2})
    with pytest.raises(cg.EvidenceError, match="Row 0: none of 4,096 draws of 'a' explains the evidence"):
        SUM.abduct({"b": 7.0}, seed=0).posterior("a")
    few = pair(EQUATION(value="u", noise=NORMAL), EQUATION(value="a + u", noise={"u": {"bernoulli": 0.5}}))
    with pytest.raises(cg.EvidenceError, match="single numbers alone explain it, .* Give 'a', correct"):
        few.abduct({"b": 1.0}, seed=0).posterior("a")  # a is 0 or 1
    fitted = pair(
        cg.mechanisms.Categorical(),
        cg.mechanisms.Categorical(smoothing=0.0),
        {"a": cg.Categorical(2), "b": cg.Categorical(3)},
    ).fit({"a": [0, 0, 1, 1], "b": [0, 1, 1, 1]}, progress=False)
    with pytest.raises(cg.EvidenceError, match="Node 'b': Row 0: category 2 has probability zero"):
        fitted.counterfactual({"a": 0, "b": 2}, do={"a": 1})
    with pytest.raises(cg.EvidenceError, match="zero whatever 'a' may be.*smoothing > 0"):
        fitted.abduct({"b": 2}).posterior("a")


def test_a_duplicate_index_is_kept_and_an_index_of_other_rows_is_refused():
    frame = pd.DataFrame({"a": [1.0, 2.0, 3.0], "b": [2.0, 4.0, 6.0]}, index=[5, 5, 6])
    one_each = pd.Series([4.0, 5.0, 6.0], index=frame.index)
    found = DOUBLE.counterfactual(frame, do={"a": one_each}).to_frame()
    assert found.index.tolist() == [5, 5, 6] and found["b"].tolist() == [8.0, 10.0, 12.0]
    shuffled = pd.Series([4.0, 5.0, 6.0], index=[5, 6, 5])
    told = "on 'a': the Series has another index than the evidence, first in row 1: 6, expected 5. Give"
    with pytest.raises(cg.InterventionError, match=told):
        DOUBLE.counterfactual(frame, do={"a": shuffled})
    with pytest.raises(cg.InterventionError, match="another index"):
        DOUBLE.abduct(frame).contrast({"a": 1.0}, {"a": shuffled})
    found = DOUBLE.counterfactual(frame, do={"a": shuffled.to_numpy()})
    assert found["b"].tolist() == [8.0, 10.0, 12.0]
    twice = pd.DataFrame([[1.0, 2.0, 4.0]], columns=["a", "a", "b"])
    with pytest.raises(cg.EvidenceError, match="Evidence has 2 columns 'a'. Rename"):
        DOUBLE.counterfactual(twice, do={"a": 1.0})


def test_a_column_of_evidence_without_any_value_is_inferred():
    frame = pd.DataFrame({"a": [np.nan, np.nan], "b": [2.0, 4.0]})
    found = DOUBLE.counterfactual(frame, do={"b": "b + 1"}, seed=0)
    assert found["a"].tolist() == [1.0, 2.0] and set(found.provenance["a"]) == {"inferred"}


@pytest.mark.parametrize(
    ("law", "words"),
    [
        ({"normal": [0, -1]}, "family normal: scale must be above 0, got -1"),
        ({"normal": [0]}, r"normal takes 2 parameter\(s\), loc, scale; got \[0.0\]"),
        ({"normal": [0, "x"]}, "expected a number, got 'x'"),
        ({"normal": [0, float("nan")]}, "finite number"),
        ({"normal": [float("inf"), 1]}, "finite number"),
        ({"uniform": [2, 1]}, "uniform: high must be above the one before it, got 1"),
        ({"uniform": [1, 1]}, "uniform: high must be above"),
        ({"gamma": [-1, 1]}, "gamma: concentration must be above 0, got -1"),
        ({"bernoulli": [1.5]}, r"bernoulli: probs must be in \[0, 1\], got 1.5"),
        ({"categorical": [0.2, 0.9]}, "add up to 1; got .* add up to 1.1"),
        ({"norml": [0, 1]}, "Unknown noise family 'norml'. Did you mean 'normal'"),
        ({"normal": [0, 1], "uniform": [0, 1]}, r"has one family.*got \['normal', 'uniform'\]"),
        ({}, "has one family.*got none"),
        (3, "noise.u: must be a valid mapping, got 3"),
    ],
)
def test_noise_families_with_bad_parameters(law, words):
    with pytest.raises(SpecError, match=words):
        EQUATION(value="u", noise={"u": law})


@pytest.mark.parametrize("noise", [{"v": {"normal": [0, 1]}}, {"a": {"normal": [0, 1]}}])
def test_noises_are_named_apart(noise):
    with pytest.raises(
        cg.MechanismError, match="Node 'b': .*(unknown name 'u'. Known: a, v|Rename the noise)"
    ):
        pair(EQUATION(value="u", noise=NORMAL), EQUATION(value="a + u", noise=noise))


def test_a_policy_that_reads_a_descendant():
    told = (
        "Intervention on 'a' reads 'b', which 'a' causes: a cycle, a -> b -> a. Read only what 'a' does not "
        "cause, or give the factual values of 'b' as an array"
    )
    reads = cg.Policy(lambda b: b, reads=["b"])
    for ask in (
        lambda: DOUBLE.do({"a": reads}),
        lambda: DOUBLE.sample(3, do={"a": "b + 1"}),
        lambda: DOUBLE.counterfactual({"a": 1.0, "b": 2.0}, do={"a": reads}),
        lambda: DOUBLE.effect("b", do={"a": reads}),
    ):
        with pytest.raises(cg.CycleError, match=told):
            ask()
    # Once b is set, a does not cause it any more.
    assert DOUBLE.do({"a": reads, "b": 1.0}).graph.edges == (("b", "a"),)
    factual = np.array([3.0])
    assert DOUBLE.counterfactual({"a": 1.0, "b": 2.0}, do={"a": factual})["b"].tolist() == [6.0]


def test_a_mechanism_that_cannot_abduct_says_which_and_what_to_do():
    two = {"u": {"normal": [0, 1]}, "v": {"normal": [0, 1]}}
    for value, noise, why in (
        (
            "a*u*v",
            two,
            "has 2 noises, u, v, and one value does not tell them apart. To ask for counterfactuals",
        ),
        (
            "a + u**2",
            NORMAL,
            "its noise 'u' in a form that is neither affine nor known to be monotone. To ask",
        ),
    ):
        scm = pair(EQUATION(value="u", noise=NORMAL), EQUATION(value=value, noise=noise))
        with pytest.raises(cg.CannotAbductError, match=f"Node 'b': .*{why}.* or intervene on this node"):
            scm.counterfactual({"a": 1.0, "b": 2.0}, do={"a": 0.0})
        assert scm.counterfactual({"a": 1.0, "b": 2.0}, do={"b": 5.0})["b"].tolist() == [5.0]
        with pytest.raises(
            cg.PartialEvidenceError, match="'b' is observed and .*Give its parents a, or leave 'b'"
        ):
            scm.abduct({"b": 2.0}).posterior("a")
