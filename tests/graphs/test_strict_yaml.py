"""The reader's types and refusals, and the writer as its inverse."""

import math

import pytest
from hypothesis import example, given

from graphs.errors import SpecError
from graphs.limits import DEPTH, FILE_BYTES, VALUES
from graphs.strict_yaml import WIDTH, dump, load, resolve
from tests.graphs.strategies import options

CORE_SCHEMA: dict[str, object] = {
    **{"1e-3": 1e-3, "1.": 1.0, ".5": 0.5, "-1E+2": -100.0, ".inf": math.inf, "-.Inf": -math.inf},
    **{"+3": 3, "0": 0, "-0.5": -0.5, "0e1": 0.0, "0o17": 15, "0x1F": 31},
    **{"true": True, "FALSE": False, "null": None, "~": None, "": None},
}
STRINGS = "no yes on y 12:30:00 2020-01-01 1_000 0b1 e5 . - 1e inf nan = tRUE".split()


@pytest.mark.parametrize(("text", "value"), [*CORE_SCHEMA.items(), *zip(STRINGS, STRINGS, strict=True)])
def test_core_schema(text: str, value: object) -> None:
    found = resolve(text)
    assert found == value and type(found) is type(value)


def test_not_a_number() -> None:
    assert math.isnan(resolve(".nan"))


@given(options.filter(bool))
@example(
    {"a": "null", "b": "1e-3", "c": " x", "d": "x ", "e": "", "f": "---", "g": "\u2028\x7f\ufeff\U0001f600"}
)
@example(
    {"long": {"a": ["x" * 60, ["y" * 120, {"k": "z" * 120}], {"m": [1.0, 1]}], "b": {}}, "- ": [], "<<": "<<"}
)
@example({"f": 1e-05, "g": 1e22, "h": -0.0, "i": math.inf, "j": -math.inf, "k": 5e-324})
def test_reading_undoes_writing(data: dict[str, object]) -> None:
    text = dump(data)
    found, _ = load(text, "s")
    assert found == data and repr(found) == repr(data)  # repr tells 1 from 1.0 and from True, and the order
    assert dump(found) == text


@given(options.filter(bool))
def test_every_value_is_located(data: dict[str, object]) -> None:
    _, locations = load(dump(data), "s.yaml")

    def walk(value: object, path: tuple[str | int, ...]) -> None:
        assert path in locations and locations[path].startswith("s.yaml:")
        assert locations[(*path, "absent", 3)] == locations[path]
        items = (
            value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
        )
        for key, item in items:
            walk(item, (*path, key))

    walk(data, ())


def test_places_are_those_of_an_editor() -> None:
    _, locations = load("a: 1\nb:\n  - x\n  - {c: 2}\n", "s")
    assert locations["b", 1, "c"] == "s:4:9"
    assert locations.key(("b", 1, "c")) == "s:4:6"
    assert locations.key(("b", 0)) == "s:3:5"
    assert locations["nowhere",] == locations[()] == "s:1:1"


def test_lines_are_no_wider_than_they_need() -> None:
    data = {"node": {"kind": "k", "numbers": [1.5] * 15, "more": {"a": "b" * 40}}}
    assert max(map(len, dump(data).splitlines())) <= WIDTH
    assert dump({"node": {"kind": "k"}}) == "node: {kind: k}\n"
    assert dump({"node": {"kind": "k"}}, block=2) == "node:\n  kind: k\n"


REFUSALS = [
    ("a: 1\na: 2", "s:2:1: the key 'a' is here twice, first on line 1"),
    ("a: {b: 1, 'b': 2}", "s:1:11: the key 'b' is here twice"),
    ("a: &x 1", r"s:1:4: anchors \('&x'\)"),
    ("a: *x", r"s:1:4: aliases \('\*x'\)"),
    ("*x : 1", r"s:1:1: aliases"),
    ("a: [&x {b: 1}]", "s:1:5: anchors"),
    ("a:\n  <<: {b: 1}", "s:2:3: merge keys"),
    ("a: !!python/object:os.system x", r"s:1:4: tags \('tag:yaml.org,2002:python/object:os.system'\)"),
    ("a: !local {b: 1}", r"s:1:4: tags \('!local'\)"),
    ("a: 1\n---\nb: 2", "s:2:1: a second document"),
    ("1: a", 's:1:1: a key must be a string, got 1. Quote it: "1"'),
    ("null: a", "got None"),
    ("a: {b: 0,5}", 's:1:10: a key must be a string, got 5. Quote it: "5". A decimal has a point'),
    ("a: {b: 0,05}", "s:1:10: 05 begins with 0: .* or write 5. A decimal has a point"),
    ("? [a]\n: b", "s:1:3: a key must be a string, got a mapping or a list"),
    ("", "s:1:1: the file is empty"),
    ("# nothing", "s:1:1: the file is empty"),
    ("a: [1, 2", "s:1:9: not valid YAML: did not find expected ',' or ']'"),
    ("a: b: c", "s:1:5: not valid YAML"),
    ("a: 1\nb: \x07", "s:2:4: not valid YAML: a control character"),
    ("\ta: 1", "s:1:1: not valid YAML: a tab, where lines are indented by spaces"),
    ("a:\n\tb: 1", "s:2:1: not valid YAML: a tab, where"),
    (
        "categories: [010, 9]",
        's:1:14: 010 begins with 0: YAML reads .* 10, .*Quote it .*: "010"; or write 10',
    ),
    ("a: -00.50", 's:1:4: -00.50 begins with 0: .*"-00.50"; or write -0.50'),
    ("007: a", 's:1:1: 007 begins with 0: .*"007"; or write 7'),
    ("a: 1e999", "s:1:4: the number 1e999 is too large"),
    ("a: " + "9" * 5000, "s:1:4: a number of 5000 characters"),
    ("[" * 30 + "]" * 30, f"s:1:{DEPTH + 1}: nested more than {DEPTH} deep"),
    # Newer builds of libyaml have a limit of their own, which they reach before ours is asked.
    (
        "[" * 100_000,
        f"s:1:({DEPTH + 1}: nested more than|1001: not valid YAML: exceeded maximum nesting)",
    ),
    ("[" + "0," * VALUES + "]", f"more than {VALUES:,} keys and values"),
    ("#" * (FILE_BYTES + 1), f"larger than {FILE_BYTES:,} bytes"),
    ("#" + "é" * (FILE_BYTES // 2), f"larger than {FILE_BYTES:,} bytes"),
]


@pytest.mark.parametrize(("text", "message"), REFUSALS)
def test_refusals(text: str, message: str) -> None:
    with pytest.raises(SpecError, match=message):
        load(text, "s")


def test_an_alias_bomb_costs_nothing() -> None:
    bomb = "a: &a [x, x]\n" + "".join(
        f"{chr(98 + i)}: &{chr(98 + i)} [{', '.join([f'*{chr(97 + i)}'] * 9)}]\n" for i in range(9)
    )
    with pytest.raises(SpecError, match="s:1:4: anchors"):
        load(bomb, "s")


def test_a_label_with_a_leading_zero_is_the_text_that_is_written() -> None:
    # The wards of a table are texts: "010" and "10" are two of them.
    text = 'variable: {type: categorical, categories: ["010", "10"]}\n'
    assert load(text, "s")[0] == {"variable": {"type": "categorical", "categories": ["010", "10"]}}
    assert dump({"variable": {"type": "categorical", "categories": ["010", "10"]}}) == text
