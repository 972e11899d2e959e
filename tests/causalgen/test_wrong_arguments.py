"""Every public constructor and question, asked wrongly: one typed error each, that says what was expected."""

import re
import tempfile
from pathlib import Path

import networkx as nx
import numpy as np
import pandas as pd
import pytest
import torch

import causalgen as cg

GRAPH = nx.DiGraph([("a", "b")])
VARIABLES = {"a": cg.Continuous(), "b": cg.Continuous()}
NOISE = {"u": {"normal": [0, 1]}}
MECHANISMS = {
    "a": cg.mechanisms.Equation(value="u", noise=NOISE),
    "b": cg.mechanisms.Equation(value="a + u", noise=NOISE),
}
KNOWN, FREE = cg.SCM(GRAPH, VARIABLES, MECHANISMS), cg.SCM(GRAPH, VARIABLES, {"b": cg.mechanisms.Additive()})
ROW, ROWS = {"a": 1.0, "b": 2.0}, {"a": np.arange(30.0), "b": np.arange(30.0)}
ABDUCTION = KNOWN.abduct(ROW)
FOUND, DRAWS = ABDUCTION.counterfactual({"a": 0.0}), KNOWN.sample(3, seed=0)
FOLDER = Path(tempfile.mkdtemp())
(FOLDER / "file").write_text("x")
(FOLDER / "full").mkdir()
(FOLDER / "full" / "x").write_text("x")

WRONG = [
    lambda: cg.SCM([("a", "b")], VARIABLES),
    lambda: cg.SCM(None, VARIABLES),
    lambda: cg.SCM({"b": ["a"], "a": []}, VARIABLES),
    lambda: cg.SCM(nx.Graph([("a", "b")]), VARIABLES),
    lambda: cg.SCM(nx.DiGraph([(1, 2)]), {1: cg.Continuous(), 2: cg.Continuous()}),
    lambda: cg.SCM(GRAPH, None),
    lambda: cg.SCM(GRAPH, [cg.Continuous(), cg.Continuous()]),
    lambda: cg.SCM(GRAPH, {"a": "continuous", "b": cg.Continuous()}),
    lambda: cg.SCM(GRAPH, {"a": cg.Continuous, "b": cg.Continuous()}),
    lambda: cg.SCM(GRAPH, {"a": cg.mechanisms.Additive(), "b": cg.Continuous()}),
    lambda: cg.SCM(GRAPH, VARIABLES, [cg.mechanisms.Additive()]),
    lambda: cg.SCM(GRAPH, VARIABLES, {"a": "additive"}),
    lambda: cg.SCM(GRAPH, VARIABLES, {"a": cg.mechanisms.Additive}),
    lambda: cg.SCM(GRAPH, VARIABLES, {"c": cg.mechanisms.Additive()}),
    lambda: cg.SCM(GRAPH, VARIABLES, MECHANISMS, name=3),
    lambda: cg.SCM(nx.DiGraph(), {}),
    lambda: KNOWN.sample(2.5),
    lambda: KNOWN.sample("3"),
    lambda: KNOWN.sample(0),
    lambda: KNOWN.sample(None),
    lambda: KNOWN.sample(True),
    lambda: KNOWN.sample(2.0),
    lambda: KNOWN.sample(2, seed="x"),
    lambda: KNOWN.sample(2, seed=1.5),
    lambda: KNOWN.sample(2, do=3),
    lambda: KNOWN.sample(2, do=[("a", 1)]),
    lambda: KNOWN.sample(2, targets=3),
    lambda: KNOWN.sample(2, targets=["z"]),
    lambda: KNOWN.sample(2, targets=[["a"]]),
    lambda: KNOWN.sample(2, do={"a": object()}),
    lambda: KNOWN.sample(2, do={"a": None}),
    lambda: KNOWN.do(None),
    lambda: KNOWN.do("a"),
    lambda: KNOWN.do({"a": lambda x: "q"}).sample(2),
    lambda: KNOWN.do({"a": lambda x: None}).sample(2),
    lambda: KNOWN.abduct(None),
    lambda: KNOWN.abduct([1, 2]),
    lambda: KNOWN.abduct("x.csv"),
    lambda: KNOWN.abduct(np.zeros(3)),
    lambda: KNOWN.abduct({}),
    lambda: KNOWN.abduct({"a": object()}),
    lambda: KNOWN.abduct({"a": {"x": 1}}),
    lambda: KNOWN.abduct({"a": {1.0, 2.0}}),
    lambda: KNOWN.abduct({"a": (x for x in [1.0])}),
    lambda: KNOWN.abduct({"a": abs}),
    lambda: KNOWN.abduct({"a": "1.5"}),
    lambda: KNOWN.abduct({"a": np.zeros((2, 2))}),
    lambda: KNOWN.abduct({"a": [[1], [1, 2]]}),
    lambda: KNOWN.abduct(ROW, num_samples=2.5),
    lambda: KNOWN.abduct(ROW, num_samples=0),
    lambda: KNOWN.abduct(ROW, num_samples="3"),
    lambda: KNOWN.abduct({"b": 1.0}, particles="x"),
    lambda: KNOWN.abduct({"b": 1.0}, particles=0).counterfactual({"a": 0.0}),
    lambda: KNOWN.abduct({"b": 1.0}, particles=1.5),
    lambda: KNOWN.abduct(ROW, seed="a"),
    lambda: KNOWN.counterfactual(ROW, do=3),
    lambda: KNOWN.counterfactual(ROW, do=None),
    lambda: KNOWN.counterfactual(ROW, do={"z": 1}),
    lambda: KNOWN.counterfactual(ROW, do={}, targets=1.5),
    lambda: ABDUCTION.posterior("z"),
    lambda: ABDUCTION.posterior(3),
    lambda: ABDUCTION.posterior(["a"]),
    lambda: ABDUCTION.worlds([{"a": 1}]),
    lambda: ABDUCTION.worlds({"w": 3}),
    lambda: ABDUCTION.worlds(None),
    lambda: ABDUCTION.contrast(3),
    lambda: ABDUCTION.contrast({"a": 1.0}, versus=3),
    lambda: ABDUCTION.contrast({"a": 1.0}, worlds=3),
    lambda: FOUND["z"],
    lambda: FOUND[3],
    lambda: DRAWS.save(FOLDER / "file"),
    lambda: DRAWS.save(FOLDER / "full"),
    lambda: KNOWN.log_prob({"a": 1.0}),
    lambda: KNOWN.log_prob(3),
    lambda: KNOWN.effect("z", do={"a": 1.0}),
    lambda: KNOWN.effect("b", do={}),
    lambda: KNOWN.effect("b", do=3),
    lambda: KNOWN.effect("b", do={"a": 1.0}, n=2.5),
    lambda: KNOWN.effect("b", do={"a": 1.0}, n="x"),
    lambda: KNOWN.effect("b", do={"a": 1.0}, confidence="x"),
    lambda: KNOWN.effect("b", do={"a": 1.0}, statistic=3),
    lambda: KNOWN.effect("b", do={"a": 1.0}, given=3),
    lambda: KNOWN.effect("b", do={"a": 1.0}, refits=2.5, data=ROWS),
    lambda: KNOWN.effect("b", do={"a": 1.0}, refits="x", data=ROWS),
    lambda: KNOWN.effect(3, do={"a": 1.0}),
    lambda: KNOWN.effect("b", do={"a": 1.0}, versus=3),
    lambda: KNOWN.effect(["b"], do={"a": 1.0}),
    lambda: KNOWN.effect("b", do={"a": 1.0}, statistic=lambda x: "q"),
    lambda: KNOWN.effect("b", do={"a": 1.0}, worlds=3),
    lambda: KNOWN.effect("b", do={"a": 1.0}, n=1),
    lambda: KNOWN.effect("b", do={"a": 1.0}, given=[3]),
    lambda: KNOWN.natural_effects("b", do={"a": 1.0}, through=3),
    lambda: KNOWN.natural_effects("b", do={"a": 1.0}, through="z"),
    lambda: KNOWN.natural_effects("b", do={"a": 1.0}, through=[]),
    lambda: KNOWN.coupling_sensitivity(ROW, {"a": 1.0}, num_samples="x"),
    lambda: KNOWN.coupling_sensitivity(ROW, 3),
    lambda: FREE.fit(3),
    lambda: FREE.fit(None),
    lambda: FREE.fit({"a": [1.0]}),
    lambda: FREE.fit("none.csv"),
    lambda: FREE.fit(ROWS, nodes=3),
    lambda: FREE.fit(ROWS, seed="x"),
    lambda: FREE.fit(ROWS, missing="x"),
    lambda: FREE.fit(ROWS, run_dir=3),
    lambda: FREE.fit(ROWS, nodes=["z"]),
    lambda: FREE.fit([1, 2]),
    lambda: cg.SCM.from_yaml("none.yaml"),
    lambda: cg.SCM.from_yaml(3),
    lambda: cg.SCM.from_yaml(FOLDER),
    lambda: KNOWN.to_yaml(FOLDER / "no" / "x.yaml"),
    lambda: KNOWN.to_yaml(3),
    lambda: KNOWN.to_yaml(FOLDER),
    lambda: cg.SCM.from_pretrained("mnst"),
    lambda: cg.SCM.from_pretrained(3),
    lambda: cg.SCM.from_pretrained(FOLDER / "no"),
    lambda: cg.SCM.from_pretrained(FOLDER),
    lambda: cg.SCM.from_pretrained(None),
    lambda: KNOWN.save_pretrained(3),
    lambda: KNOWN.save_pretrained(FOLDER / "file"),
    lambda: KNOWN.save_pretrained(FOLDER / "full"),
    lambda: KNOWN.save_pretrained(""),
    lambda: KNOWN.save_pretrained(FOLDER / "q", card=3),
    lambda: KNOWN.save_pretrained(FOLDER / "file" / "deeper"),
    lambda: KNOWN.save_pretrained(None),
    lambda: KNOWN.save_pretrained("\x00"),
    lambda: KNOWN.with_options("z"),
    lambda: KNOWN.with_options("a", vlue=3),
    lambda: KNOWN.with_options("a", value=3),
    lambda: KNOWN.with_options(3),
    lambda: KNOWN.to("cud"),
    lambda: KNOWN.to(3.5),
    lambda: KNOWN.check(3),
    lambda: KNOWN.check(ROWS, level="x"),
    lambda: KNOWN.check(ROWS, level=3),
    lambda: KNOWN.check(ROWS, seed="x"),
    lambda: cg.evaluate(KNOWN, 3),
    lambda: cg.evaluate(KNOWN, ROWS, rows="x"),
    lambda: cg.tune(KNOWN, ROWS, None),
    lambda: cg.Shift("x"),
    lambda: cg.Shift(None),
    lambda: KNOWN.sample(2, do={"a": cg.Shift("x")}),
    lambda: cg.Shift(float("nan")),
    lambda: cg.Scale("x"),
    lambda: cg.Stochastic(3),
    lambda: cg.Stochastic({"norml": [0, 1]}),
    lambda: cg.Stochastic({"normal": [0]}),
    lambda: cg.Stochastic({"normal": "x"}),
    lambda: cg.Stochastic(None),
    lambda: cg.Policy(3, reads=["a"]),
    lambda: cg.Policy(abs, reads="a"),
    lambda: KNOWN.sample(2, do={"b": cg.Policy(lambda q: q, reads=["z"])}),
    lambda: cg.Policy(abs, reads=None),
    lambda: cg.Replace(3),
    lambda: cg.Replace(cg.mechanisms.Additive(), noise="x"),
    lambda: cg.Replace(cg.mechanisms.Additive),
    lambda: cg.WorldRef(3),
    lambda: cg.WorldRef("a")[3],
    lambda: KNOWN.sample(2, do={"a": cg.WorldRef("x")["a"]}),
    lambda: cg.CausalGraph([("a", "b")]),
    lambda: cg.CausalGraph({"a": "b", "b": []}),
    lambda: cg.CausalGraph(None),
    lambda: cg.CausalGraph({"a": 3}),
    lambda: cg.CausalGraph.from_networkx([("a", "b")]),
    lambda: KNOWN.graph.parents("z"),
    lambda: KNOWN.graph.parents(3),
    lambda: KNOWN.graph.ancestors(3),
    lambda: KNOWN.graph.replace("a", ["b"]),
    lambda: cg.sample_rows("mnst"),
    lambda: cg.mechanisms.Equation(value="a +"),
    lambda: cg.mechanisms.Equation(),
    lambda: cg.mechanisms.Equation(value=3),
    lambda: cg.mechanisms.Equation(value="u", noise=3),
    lambda: cg.mechanisms.Program(program=3),
    lambda: cg.mechanisms.Program(),
    lambda: cg.mechanisms.parse_mechanism({"kind": "flw"}),
    lambda: cg.mechanisms.parse_mechanism(3),
    lambda: cg.mechanisms.parse_mechanism({}),
    lambda: cg.mechanisms.mechanism_spec(3),
    lambda: cg.mechanisms.default_mechanism(3),
    lambda: cg.mechanisms.Flow(hidden=3),
    lambda: cg.mechanisms.Noise(2, {"u": torch.zeros(3)}),
    lambda: cg.Categorical(2.5),
    lambda: cg.Continuous(shape=3),
    lambda: cg.Continuous(lower="a"),
    lambda: cg.Integer(lower=1.5),
    lambda: cg.Image(),
    lambda: cg.Image("a", 2, 3),
    lambda: cg.Continuous(unit=3),
    lambda: cg.Shift([1.0, 2.0]),
    lambda: cg.Shift((1.0,)),
    lambda: cg.Shift(pd.Series([1.0, 2.0])),
    lambda: cg.Scale(np.array([1.0, 2.0])),
    lambda: cg.Scale(torch.tensor([[1.0]])),
    lambda: cg.CausalGraph(nx.DiGraph([("a", "b")])),
    lambda: cg.CausalGraph([("a", "b")]),
]


@pytest.mark.attack("calls with wrong arguments")
@pytest.mark.parametrize("call", WRONG, ids=range(len(WRONG)))
def test_a_wrong_argument_is_one_typed_error(call):
    with pytest.raises(cg.CausalgenError) as caught:
        call()
    message = str(caught.value)
    assert (len(message) > 20 and message[-1] in ".!?`)]") or "\n" in message
    assert not re.search(r"pydantic|validation error for", message)


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (
            lambda: cg.SCM([("a", "b")], VARIABLES),
            cg.GraphError,
            r"A causal graph is a networkx.DiGraph, as in networkx.DiGraph\(\[\('a', 'b'\)\]\).*; got a list",
        ),
        (
            lambda: KNOWN.sample(2.5),
            cg.EvidenceError,
            "sample: n, .* is a whole number of at least 1, got 2.5",
        ),
        (lambda: KNOWN.sample(0), cg.EvidenceError, "whole number of at least 1, got 0"),
        (lambda: KNOWN.sample(True), cg.EvidenceError, "got True"),
        (lambda: KNOWN.sample(2, seed=1.5), cg.EvidenceError, "seed is a whole number, got 1.5"),
        (
            lambda: cg.mechanisms.Additive(noize="normal"),
            cg.SpecError,
            "Additive: noize: unknown option. Did you mean .noise.. Known: encoder, function, hidden, kind",
        ),
        (
            lambda: cg.mechanisms.Additive(noise="nromal"),
            cg.SpecError,
            "Additive: noise: must be 'normal', 'spline' or 'empirical', got 'nromal'",
        ),
        (
            lambda: cg.mechanisms.Diffusion(solver={"kind": "anchored", "stpes": 3}),
            cg.SpecError,
            "solver.*stpes: unknown option. Did you mean 'steps'",
        ),
        (
            lambda: cg.SCM(GRAPH, {"a": cg.Continuous, "b": cg.Continuous()}),
            cg.GraphError,
            "Node 'a': a variable is .*; got the class Continuous",
        ),
        (
            lambda: cg.SCM(GRAPH, VARIABLES, {"a": "flow"}),
            cg.MechanismError,
            "is a spec such as .*, got 'flow'",
        ),
        (
            lambda: KNOWN.save_pretrained(3),
            cg.CheckpointError,
            "folder is a path, as in 'folder/name'; got 3",
        ),
        (lambda: KNOWN.save_pretrained(""), cg.CheckpointError, "folder is a path"),
        (
            lambda: cg.SCM.from_yaml("causalgen: 1\nnodes: {}\n"),
            cg.SpecError,
            "is a path.*got 2 lines of text",
        ),
        (lambda: KNOWN.to_yaml(FOLDER / "no" / "x.yaml"), cg.CheckpointError, "Cannot write the SCM file"),
        (lambda: KNOWN.to("cud"), cg.MechanismError, "Cannot move to the device 'cud'"),
        (lambda: KNOWN.to("meta"), cg.MechanismError, "device 'meta'; .*: it keeps no numbers"),
        (lambda: cg.Shift("x"), cg.InterventionError, "Shift takes a finite number as its amount, got 'x'"),
        (
            lambda: cg.Scale([2.0, 3.0]),
            cg.InterventionError,
            "a finite number as its factor, got .* For another one in each row",
        ),
        (
            lambda: cg.CausalGraph(nx.DiGraph([("a", "b")])),
            cg.GraphError,
            "got a DiGraph. Use CausalGraph.from_networkx",
        ),
        (lambda: KNOWN.effect("b", do={"a": 1.0}, n=2.5), cg.EvidenceError, "draws, n, is a whole number"),
    ],
)
def test_what_is_said(call, error, words):
    with pytest.raises(error, match=words):
        call()


def test_options_by_position_are_a_type_error_that_names_them():
    with pytest.raises(TypeError, match="Additive takes its options by name: .*function, noise.* Got 'x'"):
        cg.mechanisms.Additive("x")


def test_whole_numbers_of_any_library_are_counts_and_seeds():
    expected = KNOWN.sample(3, seed=7)["a"]
    for n, seed in ((np.int64(3), np.uint8(7)), (torch.tensor(3), torch.tensor(7))):
        assert torch.equal(KNOWN.sample(n, seed=seed)["a"], expected)
