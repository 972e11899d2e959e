"""Whatever an SCM file says, it is answered at once: by a model, or by errors with their line and column.

Bombs are short files that ask for much; mutants are good files with random damage. Both are held to one
second of CPU time and to 200 MB beyond what the process held before.
"""

import json
import re
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from random import Random

import networkx as nx
import numpy as np
import pytest

import causalgen as cg
from graphs.errors import CausalgenError, GraphError, SpecError
from graphs.limits import CATEGORIES, LABELS, NODES, NUMBERS, PARENTS, TEXT
from graphs.variables import Variable
from tests.causalgen.attacks import record
from tests.graphs.test_strict_yaml import REFUSALS

MODEL = """\
causalgen: 1
name: a scanner
nodes:
  pose:
    variable: {type: continuous, lower: -1.5, upper: 2, unit: µm}
    mechanism: {kind: flow, bins: 4, hidden: [8]}
  visits:
    variable: {type: integer, lower: 0}
  breed:
    variable: {type: categorical, categories: [pug, "a: b", 3], ordered: true}
    parents: [pose]
    mechanism: {kind: categorical, training: {epochs: 5, learning_rate: 1e-3}}
  size:
    variable: {type: continuous, shape: [2]}
    parents: [pose, breed]
    mechanism: {kind: additive, function: network, hidden: [8, 8], noise: normal}
  sum:
    variable: {type: continuous}
    parents: [pose, visits]
    mechanism: {kind: equation, value: 2*pose - exp(visits) + u, noise: {u: {normal: [0, 1]}}}
  scan:
    variable: {type: image, shape: [1, 8, 8]}
    parents: [breed, pose]
    mechanism:
      kind: diffusion
      backbone: {kind: unet, channels: [8, 8]}
      predictor: {channels: [8, 8]}
      solver: {kind: anchored, steps: 4}
      guidance: {kind: classifier_free, weight: {breed: 2.0}}
"""


def one(variable: str, more: str = "") -> str:
    return f"causalgen: 1\nnodes:\n  a: {{variable: {{{variable}}}{more}}}\n"


def labels(*written: object) -> str:
    return one(f"type: categorical, categories: [{', '.join(map(str, written))}]")


def nodes(count: int, variable: str, last: str = "") -> str:
    lines = (f"  n{i}: {{variable: {{{variable}}}}}\n" for i in range(count))
    return f"causalgen: 1\nnodes:\n{''.join(lines)}{last}"


def of_image(options: str) -> str:
    return one("type: image, shape: [1, 28, 28]", f", mechanism: {{kind: diffusion, {options}}}")


MANY = ", ".join(f"n{i}" for i in range(2000))
PICTURE = one("type: image, shape: [1, 4, 4]")

BOMBS: dict[str, tuple[str, str]] = {
    "categories": (one("type: categorical, categories: 1000000000"), "3:49: .* at most 100,000"),
    "categories of 400 digits": (one(f"type: categorical, categories: {'9' * 400}"), "3:49: "),
    "image": (one("type: image, shape: [1000000, 28, 28]"), "3:38: .*784,000,000 numbers"),
    "array": (one("type: continuous, shape: [100000000]"), "3:43: .*at most 16,777,216"),
    "dimensions": (one(f"type: continuous, shape: [{'64, ' * 500}64]"), "3:43: .*at most 8"),
    "repeated label": (labels(*(f"L{i}" for i in range(19_000)), "L18999"), "3:49: .*'L18999' appears twice"),
    "labels alike": (labels(*range(19_000), "'18999'"), "3:49: .*are written alike"),
    "labels": (labels(*(f"L{i}" for i in range(LABELS + 1))), "3:49: .*at most 50,000"),
    "long label": (labels("x" * 500_000), f"3:49: .*at most {TEXT} "),
    "parents": (nodes(2000, "type: integer", f"  z: {{variable: {{type: integer}}, parents: [{MANY}]}}\n"),
                "2003:3: .*has 2,000 parents"),
    "unknown parents": (one("type: integer", f", parents: [{MANY}]"), "3:3: .*2,000 parents"),
    "nodes": (nodes(NODES + 1, "type: integer"), "2:1: .*5,001 nodes"),
    "networks": (nodes(300, "type: image, shape: [1, 28, 28]"), "node 'n.*': its network asks for more"),
    "wide network": (of_image("backbone: {channels: [100000, 100000]}"), "3:.*: its network asks for more"),
    "wide transformer": (
        of_image("backbone: {kind: dit, width: 9600000}"), "3:.*: its network asks for more"
    ),
    "many steps": (of_image("solver: {kind: anchored, steps: 1000000000}"), "steps: must be less"),
    "escape beyond Unicode": (one('type: integer, unit: "\\UFFFFFFFF"'), "3:42: not valid YAML: .*Unicode"),
    "escape after Unicode": (one('type: integer, unit: "\\U00110000"'), "3:42: not valid YAML: .*Unicode"),
    "escaped surrogate": (one('type: integer, unit: "\\uD800"'), "3:42: not valid YAML: .*Unicode"),
    "escape sequence": (one('type: integer, unit: "\\x1b[2J"'), "3:39: .*control character U\\+001B"),
    "key with an escape": ('causalgen: 1\nnodes: {"\\x1b": 1}\n', "2:9: .*control character U\\+001B"),
    "version": (f"%YAML 1.{'9' * 5000}\n---\n{MODEL}", "1:18: not valid YAML"),
    "network that does not fit": (
        one("type: image, shape: [1, 3, 5]", ", mechanism: {kind: diffusion, backbone: {kind: dit}}"),
        "3:61: node 'a': .*multiples of its patch",
    ),
    "linear with an image": (
        f"{PICTURE}  b: {{variable: {{type: continuous}}, parents: [a], mechanism: {{kind: additive}}}}\n",
        "4:62: node 'b': Parent 'a' is an image",
    ),
    "wide encoder": (
        f"{PICTURE}  b: {{variable: {{type: integer}}, parents: [a], mechanism: {{kind: flow, encoder: "
        "{kind: strided, unshuffle: 1, channels: [100000, 100000]}}}\n",
        "4:.*: its network asks for more",
    ),
    "unknown kind": (one("type: integer", f", mechanism: {{kind: {'x' * 900_000}}}"), "Unknown mechanism"),
    "unknown type": (one(f"type: {'x' * 900_000}"), "unknown type"),
    "unknown keys": (one(f"type: integer, {', '.join(f'k{i}: 1' for i in range(9000))}"), "and 8,980 more"),
    "long key": (one(f"type: integer, {'k' * 900_000}: 1"), "3:33: the key .*at most 200"),
    "values": (f"a: [{'0,' * 1_900_000}]", "1:.*more than 150,000 keys and values"),
    "brackets": ("[" * 3_900_000, "1:21: nested more than 20|1:1001: not valid YAML"),
    "braces": ("{a: " * 900_000, "nested more than 20"),
    "dashes": ("- " * 1_900_000, "nested more than 20"),
    "comments": ("#\n" * 1_900_000, "1:1: the file is empty"),
    "quote": ('"' + "a" * 3_900_000, "not valid YAML"),
    "folded": ("a: |\n" + " x\n" * 1_300_000, "causalgen: missing"),
    "anchors": ("a: &a [&b x]\n", "1:4: anchors"),
}  # fmt: skip

BAD_TEXT = [
    "\x1b[31mred",
    "a\nb",
    "a\tb",
    "\x9b2J",
    "a\0b",
    "\u202eabc",
    "\u2028",
    "\ud800",
    "x" * (TEXT + 1),
    "\ufffe",
]

WHERE = {
    "unit": "causalgen: 1\nnodes:\n  a: {{variable: {{type: integer, unit: {}}}}}\n",
    "label": "causalgen: 1\nnodes:\n  a: {{variable: {{type: categorical, categories: [b, {}]}}}}\n",
    "name": "causalgen: 1\nname: {}\nnodes:\n  a: {{variable: {{type: integer}}}}\n",
    "node": "causalgen: 1\nnodes:\n  {}: {{variable: {{type: integer}}}}\n",
}
"""Text that acts, by where it stands in a file."""

HOSTILE = {
    **BOMBS,
    **{f"refused {number}": each for number, each in enumerate(REFUSALS)},
    **{
        f"{where}, text {number}": (file.format(json.dumps(text)), "")
        for where, file in WHERE.items()
        for number, text in enumerate(BAD_TEXT)
    },
}
"""With what is no SCM file at all, and text that acts on who reads it."""


@pytest.fixture(scope="module", autouse=True)
def _loaded(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Libraries are imported before anything is measured."""
    path = tmp_path_factory.mktemp("first") / "scm.yaml"
    path.write_text(MODEL, encoding="utf-8")
    cg.SCM.from_yaml(path)


def _resident(what: str) -> int:
    """Kilobytes, as Linux tells them."""
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    found = re.search(rf"{what}:\s+(\d+)", status)
    return int(found[1]) if found else 0


def _measured(path: Path) -> tuple[CausalgenError | None, float, int]:
    """What ``from_yaml`` raises, in what CPU time and memory."""
    watch = Path("/proc/self/clear_refs")
    if watch.exists():
        watch.write_text("5", encoding="utf-8")  # the peak counts from here
    before, began = _resident("VmRSS"), time.process_time()
    error = None
    try:
        cg.SCM.from_yaml(path)
    except CausalgenError as found:
        error = found
    return error, time.process_time() - began, _resident("VmHWM") - before


def answer(text: str | bytes, path: Path) -> CausalgenError | None:
    """What ``from_yaml`` says: an error whose every line has its place, or a model; in time and memory."""
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    for patience in (2, 1, 0):
        error, seconds, kilobytes = _measured(path)
        if seconds < 1 or not patience:  # another job of the machine slows a try, and not three of them
            break
    assert seconds < 1, f"{seconds:.2f} s"
    assert kilobytes < 200_000, f"{kilobytes} kB"
    if error is not None:
        assert isinstance(error, SpecError) and len(str(error)) < 60_000
        lines = str(error).splitlines()
        assert lines and all(re.match(rf"{re.escape(str(path))}:\d+:\d+: .", line) for line in lines), error
    return error


@pytest.mark.attack("hostile SCM files")
@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_file_is_refused_at_once(name: str, tmp_path: Path) -> None:
    text, message = HOSTILE[name]
    error = answer(text, tmp_path / "scm.yaml")
    said = str(error).removeprefix(f"{tmp_path}/").replace("scm.yaml:", "s:", 1)
    assert error is not None and re.search(message, said), said[:400]


def test_hostile_files_are_a_hundred() -> None:
    assert len(HOSTILE) >= 100


def test_the_unharmed_model_loads(tmp_path: Path) -> None:
    assert answer(MODEL, tmp_path / "scm.yaml") is None


TOKENS = (
    *'0 -1 1e9 9999999999999999 .nan .inf null true [] {} "" ~ : - , [ ] { } # & * ! | > % @ ` ? "'.split(),
    *"pose a scan a-b __x 1e-3 [1,2] {kind: flow} {a: b} 1 2 64 \t \n \r \x00 \x1b \x85".split(" "),
    *["\u2028", "\ufeff", "💥"],
    *"kind: type: image categorical continuous integer diffusion equation constant empirical".split(),
)  # fmt: skip


def mutant(random: Random) -> bytes:
    """The model with one to three places damaged: characters, numbers, words, lines, or bytes."""
    text = MODEL
    for _ in range(random.choice([1, 1, 1, 2, 3])):
        at = random.randrange(len(text))
        words = [found.span() for found in re.finditer(r"[^\s,\[\]{}:]+", text)]
        lines = text.splitlines(keepends=True)
        start, end = random.choice(words)
        change = random.randrange(8)
        if change == 0:
            text = text[:at] + text[at + random.randint(1, 8) :]
        elif change == 1:
            text = text[:at] + random.choice(TOKENS) + text[at:]
        elif change == 2:
            text = text[:start] + random.choice(TOKENS) + text[end:]
        elif change == 3:
            other = random.choice(words)
            text = text[:start] + text[slice(*other)] + text[end:]
        elif change == 4:
            lines.insert(random.randrange(len(lines)), random.choice(lines))
            text = "".join(lines)
        elif change < 7:
            start, end = random.choice([found.span() for found in re.finditer(r"\d+", text)])
            text = text[:start] + str(random.choice([0, 1, 2, 3, 8, 16, 64, 10**4, 10**9])) + text[end:]
        else:
            lines.pop(random.randrange(len(lines)))
            text = "".join(lines) or MODEL
    data = bytearray(text.encode())
    if random.random() < 0.1:
        data[random.randrange(len(data))] = random.randrange(256)
    return bytes(data)


@pytest.mark.parametrize(
    ("first", "count"), [(0, 300), pytest.param(1_000_000, 20_000, marks=pytest.mark.slow)]
)
def test_a_damaged_file_is_a_model_or_errors_with_their_places(
    first: int, count: int, tmp_path: Path
) -> None:
    refused = 0
    for seed in range(first, first + count):
        try:
            refused += answer(mutant(Random(seed)), tmp_path / "scm.yaml") is not None
        except Exception as error:
            raise AssertionError(f"Seed {seed}: {type(error).__name__}: {error}") from error
    assert 0.3 < refused / count < 0.95  # the damage is neither nothing nor everything
    if first:
        record("SCM files with random damage", tried=count, lost=0)


def _again(scm: cg.SCM, path: Path) -> None:
    text = scm.to_yaml(path)
    loaded = cg.SCM.from_yaml(path)
    assert loaded.to_yaml() == text and dict(loaded.variables) == dict(scm.variables)


def _of(variable: Variable) -> Callable[[], cg.SCM]:
    graph: nx.DiGraph[str] = nx.DiGraph()
    graph.add_node("x")
    return lambda: cg.SCM(graph, {"x": variable})


def _chain(length: int) -> cg.SCM:
    names = [f"x{i}" for i in range(length)]
    graph: nx.DiGraph[str] = nx.DiGraph([*pairwise(names)])
    equations = {
        name: cg.mechanisms.Equation(value=f"{parent} + u", noise={"u": {"normal": [0, 1]}})
        for parent, name in pairwise(names)
    }
    return cg.SCM(graph, {name: cg.Continuous() for name in names}, equations)


def _fan(count: int) -> cg.SCM:
    graph: nx.DiGraph[str] = nx.DiGraph([(f"x{i}", "y") for i in range(count)])
    return cg.SCM(graph, {node: cg.Continuous() for node in graph})


LARGEST: dict[str, Callable[[], cg.SCM]] = {
    "labels": _of(cg.Categorical([f"L{i}" for i in range(20_000)])),
    "labels of any script": _of(
        cg.Categorical(["猫", "كلب", "חתול", "🐕", "a: b # c", "'\"\\", "", "-1", -2])
    ),
    "long labels": _of(cg.Categorical(["é" * TEXT, "b" * TEXT])),
    "categories": _of(cg.Categorical(CATEGORIES)),
    "numbers": _of(cg.Continuous(shape=(2**10, 2**10))),
    "unit": _of(cg.Continuous(unit="€/m² · 10⁻³")),
    "equations": lambda: _chain(870),
    "parents": lambda: _fan(PARENTS // 4),
}  # fmt: skip


@pytest.mark.parametrize("name", LARGEST)
def test_the_largest_that_may_be_declared_loads_again(name: str, tmp_path: Path) -> None:
    _again(LARGEST[name](), tmp_path / "scm.yaml")


@pytest.mark.slow
def test_as_many_as_there_may_be_load_again(tmp_path: Path) -> None:
    _again(_chain(NODES), tmp_path / "scm.yaml")
    _again(_fan(PARENTS), tmp_path / "scm.yaml")
    _again(_of(cg.Categorical([f"L{i}" for i in range(LABELS)]))(), tmp_path / "scm.yaml")


@pytest.mark.parametrize("text", BAD_TEXT)
def test_text_that_acts_is_refused_where_it_is_declared(text: str) -> None:
    for declare in (
        lambda: cg.Continuous(unit=text),
        lambda: cg.Integer(unit=text),
        lambda: cg.Categorical(["a", text]),
    ):
        with pytest.raises(SpecError, match="control character|surrogate|noncharacter|at most 200"):
            declare()
    with pytest.raises(GraphError, match="control character|surrogate|noncharacter|at most 200"):
        cg.SCM(nx.DiGraph([("x", "y")]), {"x": cg.Continuous(), "y": cg.Continuous()}, name=text)


def test_what_no_file_holds_is_refused_before_it_is_fitted() -> None:
    many = cg.Categorical([f"{i:05d}{'x' * 190}" for i in range(LABELS)])
    with pytest.raises(SpecError, match="takes an SCM file of .* bytes"):
        _of(many)()
    with pytest.raises(SpecError, match="at most 16,777,216"):
        cg.Image(1, 2**13, 2**12)
    assert np.prod(cg.Image(1, 2**12, 2**12).shape) == NUMBERS
    with pytest.raises(GraphError, match="1,001 parents"):
        _fan(PARENTS + 1)


def test_a_larger_network_is_allowed_where_it_is_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = one("type: continuous", ", mechanism: {kind: flow}")
    monkeypatch.setenv("CAUSALGEN_MODEL_MB", "0")
    assert "CAUSALGEN_MODEL_MB" in str(answer(text, tmp_path / "scm.yaml"))
    monkeypatch.setenv("CAUSALGEN_MODEL_MB", "1")
    assert answer(text, tmp_path / "scm.yaml") is None
