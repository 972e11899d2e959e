"""Weights that are no numbers are refused where they come from, and where they are saved or loaded."""

import json
from hashlib import sha256

import networkx as nx
import numpy as np
import pytest
import torch
from safetensors.torch import load, load_file, save, save_file

import causalgen as cg
from causalgen.metrics.evaluators.storage import load_evaluators, save_evaluators
from mechanisms.networks import first_non_finite
from tests.causalgen.attacks import record


@pytest.fixture(scope="module")
def model():
    """A category with an impossible combination -> numbers of every mechanism."""
    random = np.random.default_rng(0)
    a = random.integers(0, 2, 60)
    data = {"a": a, "b": np.where(a == 0, 0, random.integers(0, 2, 60)), "x": a + random.normal(size=60)}
    data |= {"y": data["x"] + random.normal(size=60), "z": random.normal(size=60)}
    short = cg.mechanisms.Training(epochs=1)
    return cg.SCM(
        nx.DiGraph([("a", "b"), ("a", "x"), ("x", "y"), ("b", "z")]),
        variables={name: cg.Categorical(2) if name in "ab" else cg.Continuous() for name in data},
        mechanisms={
            "b": cg.mechanisms.Categorical(smoothing=0),
            "x": cg.mechanisms.Additive(),
            "y": cg.mechanisms.Flow(training=short),
            "z": cg.mechanisms.Additive(training=short, hidden=(8,)),
        },
    ).fit(data, progress=False)


def seal(path, name, value):
    """Puts one value into a tensor of a file of weights, and its checksum into the manifest."""
    tensors = load_file(path)
    tensors[name].reshape(-1)[-1] = value
    save_file(tensors, path)
    manifest = json.loads((path.parent / "manifest.json").read_text())
    data = path.read_bytes()
    manifest["files"][path.name] = {"size": len(data), "sha256": sha256(data).hexdigest()}
    (path.parent / "manifest.json").write_text(json.dumps(manifest))


def test_no_tensor_of_a_saved_model_may_be_nan(model, tmp_path):
    model.save_pretrained(tmp_path / "model")
    assert torch.isneginf(model.mechanisms["b"].table).any()  # a = 0 never had b = 1
    again = cg.SCM.from_pretrained(tmp_path / "model")
    assert torch.equal(again.mechanisms["b"].table, model.mechanisms["b"].table)
    tried = 0
    for path in sorted((tmp_path / "model").glob("*.safetensors")):
        for name, tensor in load_file(path).items():
            if not tensor.is_floating_point() or name == "seen_range" or not tensor.numel():
                continue
            for value in (torch.nan, torch.inf, -torch.inf):
                if (name, value) == ("table", -torch.inf):
                    continue
                model.save_pretrained(tmp_path / "model")
                seal(path, name, value)
                with pytest.raises(cg.CheckpointError, match=f"node '{path.stem}' .*'{name}' holds 1 NaN"):
                    cg.SCM.from_pretrained(tmp_path / "model")
                tried += 1
    assert tried > 30
    record("weights of a saved model that are no numbers", tried=tried, lost=0)


def test_weights_that_are_no_numbers_are_not_saved(model, tmp_path):
    model.save_pretrained(tmp_path / "model")
    before = (tmp_path / "model" / "manifest.json").read_bytes()
    broken = cg.SCM.from_pretrained(tmp_path / "model")
    next(broken.mechanisms["y"].parameters()).data.fill_(torch.nan)
    with pytest.raises(cg.CheckpointError, match="node 'y' are no numbers"):
        broken.save_pretrained(tmp_path / "model")
    assert (tmp_path / "model" / "manifest.json").read_bytes() == before


@pytest.mark.parametrize("mechanism", ["Additive", "Flow"])
def test_a_fit_that_overflows_names_its_node(mechanism):
    data = {"x": np.arange(20.0), "wide": np.array([1e200, -1e200] * 10)}
    scm = cg.SCM(
        nx.DiGraph([("x", "wide")]),
        variables={"x": cg.Continuous(), "wide": cg.Continuous()},
        mechanisms={"x": cg.mechanisms.Additive(), "wide": getattr(cg.mechanisms, mechanism)()},
    )
    with pytest.raises((cg.MechanismError, cg.DataError), match="'wide'"):
        scm.fit(data, progress=False)


def test_judges_are_held_to_the_same(tmp_path):
    judges = load_evaluators("mnist")
    save_evaluators(judges, tmp_path / "judges")
    path = sorted((tmp_path / "judges").glob("*.safetensors"))[0]
    name = next(name for name, tensor in load_file(path).items() if tensor.is_floating_point())
    seal(path, name, torch.inf)
    with pytest.raises(cg.CheckpointError, match=f"{path.name} holds no numbers: '{name}'"):
        load_evaluators(tmp_path / "judges")
    next(judges.networks[path.stem].parameters()).data.fill_(torch.nan)
    with pytest.raises(cg.CheckpointError, match=f"network '{path.stem}'"):
        save_evaluators(judges, tmp_path / "others")
    assert not (tmp_path / "others").exists()


def test_whole_numbers_and_flags_are_finite():
    assert first_non_finite({"a": torch.tensor(3), "b": torch.tensor(True), "c": torch.zeros(0)}) is None


def reseal(path, data):
    """Puts a file of weights, and its checksum in the manifest."""
    path.write_bytes(data)
    manifest = json.loads((path.parent / "manifest.json").read_text())
    manifest["files"][path.name] = {"size": len(data), "sha256": sha256(data).hexdigest()}
    (path.parent / "manifest.json").write_text(json.dumps(manifest))


def relabelled(data: bytes, name: str, dtype: str) -> bytes:
    """A safetensors file that says another type of one tensor."""
    size = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + size])
    header[name]["dtype"] = dtype
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + data[8 + size :]


def wrong_files(path):
    """Files of weights in which one tensor has another shape or type than the module's.

    Whole numbers of the same size are what torch would convert to weights without a word.
    """
    data = path.read_bytes()
    tensors = load(data)
    for name, tensor in tensors.items():
        for shape in ((1, *tensor.shape), (*tensor.shape, 1), (tensor.numel(), 1, 1)):
            yield name, save({**tensors, name: tensor.reshape(shape)})
        yield name, save({other: each for other, each in tensors.items() if other != name})
        other = {1: torch.uint8, 4: torch.int32, 8: torch.int64}[tensor.element_size()]
        yield name, save({**tensors, name: tensor.view(torch.float64 if tensor.dtype == other else other)})
        yield name, relabelled(data, name, {1: "F8_E8M0", 4: "U32", 8: "C64"}[tensor.element_size()])
    yield "more", save({**tensors, "more": torch.zeros(2)})


def test_no_tensor_may_have_another_shape_or_type(model, tmp_path):
    model.save_pretrained(tmp_path / "model")
    save_evaluators(load_evaluators("mnist"), tmp_path / "judges")
    tried = 0
    for path in sorted((tmp_path / "model").glob("*.safetensors")):
        original = path.read_bytes()
        for name, data in wrong_files(path):
            reseal(path, data)
            if name == "seen_range" and name not in load_keys(data):  # models saved without it are read
                continue
            with pytest.raises(cg.CheckpointError, match=f"{path.stem}"):
                cg.SCM.from_pretrained(tmp_path / "model")
            tried += 1
        reseal(path, original)
    path = tmp_path / "judges" / "classifier.safetensors"
    for number, (_, data) in enumerate(wrong_files(path)):
        if number % 25 == 0:
            reseal(path, data)
            with pytest.raises(cg.CheckpointError, match="classifier"):
                load_evaluators(tmp_path / "judges")
            tried += 1
    assert tried > 60
    record("weights of another shape or type", tried=tried, lost=0)


def load_keys(data: bytes) -> set[str]:
    return set(json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")]))


def test_evaluators_that_ask_for_too_much_are_refused(tmp_path):
    save_evaluators(load_evaluators("mnist"), tmp_path / "judges")
    path = tmp_path / "judges" / "manifest.json"
    manifest = json.loads(path.read_text())
    manifest["recipe"]["classifier"]["width"] = 10**7
    path.write_text(json.dumps(manifest))
    with pytest.raises(cg.CheckpointError, match="asks for more than .* MB"):
        load_evaluators(tmp_path / "judges")
