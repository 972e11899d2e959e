"""What is not an expression is refused with a clear error, at once, and nothing of it runs."""

import json
import random
import re
import subprocess
import sys
import time

import numpy as np
import pytest

from graphs.errors import SpecError
from graphs.expressions import ARITIES, parse_expression
from tests.causalgen.attacks import record

NAMES = ("a", "b", "u")

ESCAPES = {
    "import": "__import__('os').system('touch boom')",
    "bare dunder": "__builtins__",
    "dunder call": "__import__(a)",
    "attribute": "a.real",
    "attribute of a number": "1.0.real",
    "attribute of a call": "exp(a).T",
    "class chain": "().__class__.__bases__[0].__subclasses__()",
    "class of a name": "a.__class__",
    "method": "a.tofile(u)",
    "format": "'{0.__class__}'.format(a)",
    "percent format": "'%s' % a",
    "subscript": "a[0]",
    "slice": "a[1:2]",
    "lambda": "(lambda: 1)()",
    "lambda argument": "exp(lambda x: x)",
    "list": "[a, b]",
    "list comprehension": "[x for x in a]",
    "set comprehension": "{x for x in a}",
    "dict comprehension": "{x: x for x in a}",
    "generator": "maximum(x for x in a)",
    "generator argument": "exp((x for x in a))",
    "tuple": "a, b",
    "empty tuple": "()",
    "trailing comma": "a,",
    "dict": "{}",
    "string": "'a'",
    "double quoted": '"a"',
    "bytes": "b'a'",
    "f-string": "f'{a}'",
    "nested f-string": "f'{__import__(\"os\")}'",
    "raw string": "r'\\d'",
    "unknown function": "system(a)",
    "eval": "eval(a)",
    "exec": "exec(a)",
    "compile": "compile(a, a, a)",
    "open": "open(a)",
    "getattr": "getattr(a, b)",
    "globals": "globals()",
    "breakpoint": "breakpoint()",
    "exit": "exit()",
    "print": "print(a)",
    "unknown name": "os",
    "call of a call": "exp(a)(b)",
    "call of a number": "1(2)",
    "call of parentheses": "(exp)(exp)(a)",
    "call of a condition": "(exp if a else log)(b)",
    "no arguments": "exp()",
    "too many arguments": "exp(a, b)",
    "keyword": "exp(x=a)",
    "numpy keyword": "exp(a, out=b)",
    "star": "exp(*a)",
    "double star": "exp(**a)",
    "walrus": "(a := 1)",
    "assignment": "a = 1",
    "augmented": "a += 1",
    "statement": "import os",
    "two statements": "a; b",
    "two lines": "a\nimport os",
    "def": "def f(): pass",
    "del": "del a",
    "assert": "assert a",
    "await": "await a",
    "yield": "(yield a)",
    "yield from": "(yield from a)",
    "async": "async",
    "decorator": "@exp",
    "matrix product": "a @ b",
    "bitwise": "a | b",
    "shift": "1 << 100000",
    "invert": "~a",
    "is": "a is b",
    "in": "a in b",
    "none": "None",
    "true": "True",
    "ellipsis": "...",
    "complex": "1j",
    "huge power": "9**9**9",
    "huge exponent": "a ** 9",
    "tower": "2**2**2**2**2**2",
    "negative exponent": "a ** -8.5",
    "infinite exponent": "a ** (1/0)",
    "variable exponent": "2 ** a",
    "huge integer": "9" * 1000,
    "huge float": "1e999",
    "long": "a" + " + a" * 1000,
    "very long": "(" * 1_000_000,
    "many nodes": "+".join(["a"] * 150),
    "deep": "(" * 400 + "a" + ")" * 400,
    "deep functions": "exp(" * 60 + "a" + ")" * 60,
    "deep unary": "-" * 1000 + "a",
    "deep not": "not " * 200 + "a",
    "deep power": "a" + "**1" * 300,
    "deep condition": "a if a else " * 80 + "a",
    "unclosed": "(a",
    "unopened": "a)",
    "null byte": "a\0",
    "null byte inside": "exp(\0a)",
    "carriage return": "a\rimport os",
    "form feed": "\fa",
    "full-width name": "\uff45\uff58\uff50(a)",
    "full-width dunder": "\uff3f\uff3fimport\uff3f\uff3f",
    "ligature": "\ufb01",
    "mathematical letter": "\U0001d41a",
    "Cyrillic a": "\u0430",
    "Greek question mark": "a\u037e b",
    "Arabic digit": "\u0663",
    "superscript": "a\u00b2",
    "minus sign": "a \u2212 b",
    "surrogate": "\ud800",
    "surrogate in a name": "a\udcff",
    "right-to-left": "a\u202eb",
    "zero width": "a\u200b",
    "byte order mark": "\ufeffa",
    "no-break space": "a\u00a0+ b",
    "comment": "a # b",
    "backslash": "a \\\n + b",
    "type comment": "a # type: ignore",
    "empty": "",
    "blank": " \n\t ",
    "warned of by Python": "1if a else b",
    "old octal": "0777",
    "coding": "# -*- coding: rot13 -*-\na",
    "dollar": "$a",
    "backtick": "`a`",
    "print statement": "print a",
    "template": "{{a}}",
}  # fmt: skip


@pytest.mark.attack("expressions that are more than arithmetic")
@pytest.mark.parametrize("text", ESCAPES.values(), ids=ESCAPES.keys())
def test_escape_is_refused_at_once(text):
    start = time.perf_counter()
    with pytest.raises(SpecError) as refusal:
        parse_expression(text, NAMES)
    assert time.perf_counter() - start < 1
    message = str(refusal.value)
    assert message.startswith("Expression ") and message.endswith(".")
    assert message.isascii() and len(message) < 500


def test_corpus_is_large_enough():
    assert len(ESCAPES) >= 60


AUDIT = """
import json, sys
from graphs.expressions import parse_expression
texts = json.load(sys.stdin)
for text in ("a", "(", "1if a else b", "0777", "a.b"):  # what parsing itself loads, once
    try: parse_expression(text)
    except ValueError: pass
events = []
sys.addaudithook(lambda event, _: events.append(event))
for text in texts:
    try: parse_expression(text).evaluate({"a": 1.0, "b": 1.0, "u": 1.0})
    except Exception: pass
print(json.dumps(sorted(set(events))))
"""


def test_nothing_is_executed_opened_or_imported():
    run = subprocess.run(
        [sys.executable, "-c", AUDIT],
        input=json.dumps([*ESCAPES.values(), "2*a + exp(b)"]),
        capture_output=True,
        text=True,
        check=True,
    )
    assert set(json.loads(run.stdout)) <= {"compile"}, "ast.parse alone may show"


@pytest.mark.parametrize("text", [None, 3, 2.5, b"a", ["a"], True])
def test_only_text_is_an_expression(text):
    with pytest.raises(SpecError, match="An expression is text"):
        parse_expression(text)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("2 * sped", r"column 5: unknown name 'sped'. Did you mean 'speed'\? Known: speed, u\."),
        ("min(u, 1)", r"column 1: unknown function 'min'. Did you mean 'minimum'\? Known: abs, .*, where\."),
        ("u + exo(u)", r"column 5: unknown function 'exo'. Did you mean 'exp'\? Known: abs, .*, where\."),
        ("  u + u.real", r"column 7: an attribute \(a dot after a name\) is not part of the language\."),
        ("2,5 * u", r"column 1: a comma outside a call \(a decimal has a point\) is not part"),
        ("u + [u]", r"column 5: the character '\[' is not part of the language"),
        (
            "u ** u",
            r"column 6: an exponent is a number; for x \*\* y with a name in y, write exp\(y \* log\(x\)\)\.",
        ),
        ("u ** 9", r"column 6: an exponent lies in \[-8, 8\], got 9\."),
        ("exp(u, u)", r"column 1: exp takes 1 argument\(s\), got 2\."),
        ("exp(x=u)", r"column 5: exp takes its arguments by position"),
        ("u +", r"column 4: not an expression: invalid syntax\."),
        ("u == True", r"column 6: True is not a real number; write 1 or 0\."),
        ("2023-10-11", r"column 1: a date is no number\."),
        (" 3/10/2023", r"column 2: a date is no number\."),
        ("31-12-2023", r"column 1: a date is no number\."),
        ("2023/10/11", r"column 1: a date is no number\."),
        ("5/31/24", r"column 1: a date is no number\."),
        ("31-12-23", r"column 1: a date is no number\."),
        ("20 kg", r"column 4: not an expression: invalid syntax; a number is written without its unit\."),
        ("yield + 1", r"column 1: not an expression: invalid syntax; 'yield' is a word of Python's"),
        ("20 °", r"column 4: the character '\\xb0' is not part of the language"),
        ("u is u", r"column 1: of comparisons, only < <= > >= == != are part of the language\."),
    ],
)
def test_message_says_where_and_why(text, message):
    with pytest.raises(SpecError, match=f"^Expression {re.escape(ascii(text))}, {message}"):
        parse_expression(text, ["speed", "u"])


@pytest.mark.parametrize("text", ["not + 1", "u if not u else 1"])
def test_a_word_is_not_taken_for_a_node_of_that_name(text):
    parse_expression(text, ["u"])
    for given in ({"names": ["u", "not"]}, {"nodes": ["u", "not"]}):
        with pytest.raises(SpecError, match="'not' is a word of the language, which can read no node"):
            parse_expression(text, **given)


def test_at_most_so_large():
    parse_expression("+".join(["a"] * 100))
    with pytest.raises(SpecError, match="too large, at most 200 names"):
        parse_expression("+".join(["a"] * 101))
    parse_expression("exp(" * 29 + "a" + ")" * 29)
    with pytest.raises(SpecError, match="at most 30 levels"):
        parse_expression("exp(" * 30 + "a" + ")" * 30)


PIECES = [
    *(*NAMES, *ARITIES, *"()()()[]{}+-*/%,.:;=<>!~@#$^&|\n\t \0\r0123\\"),
    *"1e9 1e400 0x 1j __a lambda if else and or not is in for yield await None import del os f' ' \"".split(),
    *"** // <= == := -> ... **-".split(),
    *("\u0430", "\ufb01", "\ud800", "\U0001d41a", "\u00b2", "\u2028"),
]


def fuzzed(source):
    """One text: pieces of the language and of Python, a mutated formula, or any characters."""
    kind = source.random()
    if kind < 0.5:
        return source.choice(["", " "]).join(source.choices(PIECES, k=source.randint(1, 25)))
    if kind < 0.8:
        text = list("2*a - 0.5*exp(b) + where(a > 0, u, sqrt(b)) ** 2 if not a else clip(u, 0, 1)")
        for _ in range(source.randint(1, 4)):
            text[source.randrange(len(text))] = source.choice([*PIECES, *NAMES, *"0123+-*/ "])
        return "".join(text)
    if kind < 0.9:
        return source.choice(PIECES) * source.choice([2, 50, 300])
    return "".join(chr(source.randrange(0x250)) for _ in range(source.randint(0, 30)))


@pytest.mark.parametrize("count", [20_000, pytest.param(100_000, marks=pytest.mark.slow)])
def test_fuzzed_text_is_refused_or_computed(count):
    source = random.Random(count)
    values = {name: np.array([0.5, -2.0]) for name in NAMES}
    counts = {"computed": 0, "refused": 0}
    for _ in range(count):
        text = fuzzed(source)
        try:
            expression = parse_expression(text, NAMES)
        except SpecError:
            counts["refused"] += 1
            continue
        assert parse_expression(str(expression), NAMES) == expression, text
        assert np.asarray(expression.evaluate(values)).dtype == np.float64, text
        counts["computed"] += 1
    assert min(counts.values()) > 200, counts
    if count == 100_000:
        record("expressions of random text", tried=count, lost=0)
