"""Parser of the expression language, by an allowlist over Python's ``ast``: nothing of the text ever runs.

    characters   letters, digits, _ . + - * / % ( ) , < > = ! and white space
    size         1,024 characters, 200 nodes, 30 levels
    numbers      finite, no wider than float64; exponents are numbers in [-8, 8]
    forms        + - * / // % **, comparisons, and/or/not, x if c else y, calls of what ``ARITIES`` lists

``ast.parse`` reads the text; it neither compiles nor runs it. What is not named here is refused.
"""

from __future__ import annotations

import ast
import keyword
import math
import re
from collections.abc import Collection, Sequence
from string import ascii_letters, digits

import numpy as np

from graphs.errors import SpecError, did_you_mean
from graphs.expressions.functions import ARITIES, NUMPY, operation
from graphs.expressions.tree import Call, Constant, Name, Tree, build
from graphs.text import shortened

__all__ = ["parse_tree"]

_LONGEST = 1024
_MOST_NODES = 200
_DEEPEST = 30
_LARGEST_EXPONENT = 8

_CHARACTERS = frozenset(ascii_letters + digits + "_.+-*/%(),<>=! \t\n")
_NUMBER = re.compile(
    r"(?<![\w.])(?:0[xX][\da-fA-F_]+|0[oO][0-7_]+|0[bB][01_]+|(?:\d[\d_]*\.?[\d_]*|\.\d[\d_]*)(?:[eE][+-]?\d[\d_]*)?[jJ]?)"
)
_GLUED = re.compile(r"(?:and|else|for|if|in|is|not|or)(?!\w)")
_DATE = re.compile(r"\s*(?:\d{4}([-/])\d\d?\1\d\d?|\d\d?([-/])\d\d?\2(?:\d\d){1,2})\s*")
_WORDS = ("and", "else", "if", "not", "or")
_OPERATORS: dict[type[ast.AST], str] = {
    ast.Add: "+",
    ast.Sub: "-",
    ast.Mult: "*",
    ast.Div: "/",
    ast.FloorDiv: "//",
    ast.Mod: "%",
    ast.Lt: "<",
    ast.LtE: "<=",
    ast.Gt: ">",
    ast.GtE: ">=",
    ast.Eq: "==",
    ast.NotEq: "!=",
    ast.And: "and",
    ast.Or: "or",
    ast.USub: "neg",
    ast.Not: "not",
}


def parse_tree(written: object, known: Collection[str] | None, nodes: Collection[str] = ()) -> Tree:
    """The tree of an expression's text, which reads the ``known`` names alone, or any where it is None.

    ``nodes`` are names that somebody may mean by it, beside these.
    """
    if not isinstance(written, str):
        raise SpecError(f"An expression is text, such as '2*a + u'; got a {type(written).__name__}.")
    return _Parser(written, known, {*nodes, *(known or ())}.intersection(_WORDS)).parse()


class _Parser:
    """One text on its way to a tree."""

    def __init__(self, written: str, known: Collection[str] | None, words: Collection[str]) -> None:
        self.written, self.known, self.words = written, known, words
        self.left = _MOST_NODES
        self.indent = 0

    def parse(self) -> Tree:
        self._check_characters()
        # One line: where it is broken says nothing, and Python would stop at the break.
        flat = self.written.replace("\t", " ").replace("\n", " ")
        self.indent = len(flat) - len(flat.lstrip())
        self._check_numbers(flat)
        for name in re.finditer(r"\w+", flat):
            if name[0] in self.words:  # "not + 1" would be "not (+1)"
                raise self._error(
                    f"{name[0]!r} is a word of the language, which can read no node of that name. Call the "
                    "node otherwise, or give a function in Python",
                    name.start() + 1,
                )
        if _DATE.fullmatch(flat):  # which is arithmetic too: 2023-10-11 would be 2002
            raise self._error("a date is no number. Count days from one of your choice", self.indent + 1)
        try:
            body = ast.parse(flat.strip(), mode="eval").body
        except SyntaxError as error:
            # At the end of the text Python names column 0.
            column = error.offset + self.indent if error.offset else len(flat.rstrip()) + 1
            raise self._error(f"not an expression: {error.msg}{self._hint(flat)}", column) from None
        except (RecursionError, MemoryError):
            raise self._error(f"nested too deep, at most {_DEEPEST} levels are allowed") from None
        except (ValueError, OverflowError) as error:
            raise self._error(f"not an expression: {error}") from None
        return self._tree(body, 1)

    def _check_numbers(self, text: str) -> None:
        """Refuse "1if", which Python reads as "1 if" and warns of, by filters of the whole process."""
        for number in _NUMBER.finditer(text):
            if word := _GLUED.match(text, number.end()):
                raise self._error(
                    f"not an expression: a space is missing between {number[0]} and {word[0]}",
                    number.end() + 1,
                )

    def _hint(self, text: str) -> str:
        """What may be meant by a text that is no expression: a name that Python keeps, a number's unit."""
        for name in re.findall(r"\b[A-Za-z]+\b", text):
            if keyword.iskeyword(name) and name not in _WORDS:
                return (
                    f"; {name!r} is a word of Python's, which is no name here. Call a node of that name "
                    "otherwise, or give a function in Python"
                )
        if re.fullmatch(r"\s*[+-]?[\d.]+\s*[A-Za-z]\w*\s*", text):
            return "; a number is written without its unit"
        return ""

    def _check_characters(self) -> None:
        if len(self.written) > _LONGEST:
            raise self._error(f"{len(self.written)} characters long, at most {_LONGEST} are allowed")
        if not self.written.strip(" \t\n"):
            raise self._error("empty")
        for column, character in enumerate(self.written, 1):
            if character not in _CHARACTERS:
                raise self._error(
                    f"the character {character!a} is not part of the language: names in plain letters, "
                    "digits and _, numbers, + - * / // % **, comparisons, parentheses and commas",
                    column,
                )

    def _error(self, what: str, column: int | None = None) -> SpecError:
        shown = ascii(shortened(self.written, 60))
        place = "" if column is None else f", column {column}"
        return SpecError(f"Expression {shown}{place}: {what}.")

    def _refuse(self, node: ast.expr | ast.keyword, what: str) -> SpecError:
        return self._error(what, node.col_offset + 1 + self.indent)

    def _tree(self, node: ast.expr, depth: int) -> Tree:
        self.left -= 1
        if self.left < 0:
            raise self._refuse(
                node, f"too large, at most {_MOST_NODES} names, numbers and operations are allowed"
            )
        if depth > _DEEPEST:
            raise self._refuse(node, f"nested too deep, at most {_DEEPEST} levels are allowed")
        match node:
            case ast.Constant(value):
                return self._number(node, value)
            case ast.Name(name):
                return self._name(node, name)
            case ast.UnaryOp(ast.UAdd(), operand):
                return self._tree(operand, depth + 1)
            case ast.UnaryOp(ast.USub(), operand):
                return build("neg", self._tree(operand, depth + 1))
            case ast.UnaryOp(ast.Not(), operand):
                return self._call("not", [operand], depth)
            case ast.BinOp(left, ast.Pow(), right):
                return Call("**", (self._tree(left, depth + 1), self._exponent(right, depth + 1)))
            case ast.BinOp(left, operator, right) if type(operator) in _OPERATORS:
                # A sum of many terms is a long chain to the left, but not deep to a reader.
                first = self._tree(left, depth if isinstance(left, ast.BinOp) else depth + 1)
                return Call(_OPERATORS[type(operator)], (first, self._tree(right, depth + 1)))
            case ast.BoolOp(operator, values):
                return self._call(_OPERATORS[type(operator)], values, depth)
            case ast.Compare(first, operators, rest):
                if not all(type(operator) in _OPERATORS for operator in operators):
                    what = "of comparisons, only < <= > >= == != are part of the language"
                    raise self._refuse(node, what)
                symbols = " ".join(_OPERATORS[type(operator)] for operator in operators)
                return self._call(symbols, [first, *rest], depth)
            case ast.IfExp(test, then, otherwise):
                return self._call("where", [test, then, otherwise], depth)
            case ast.Call(ast.Name(name), arguments, keywords):
                self._check_call(node, name, arguments, keywords)
                return self._call(name, arguments, depth)
            case ast.Call(called):
                raise self._refuse(node, f"only functions are called, not {_described(called)}")
            case _:
                raise self._refuse(node, f"{_described(node)} is not part of the language")

    def _call(self, function: str, arguments: Sequence[ast.expr], depth: int) -> Tree:
        return Call(function, tuple(self._tree(argument, depth + 1) for argument in arguments))

    def _number(self, node: ast.Constant, value: object) -> Tree:
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            advice = "; write 1 or 0" if isinstance(value, bool) else ""
            raise self._refuse(node, f"{value!r} is not a real number{advice}")
        try:
            number = float(value)
        except OverflowError:
            number = math.inf
        if not math.isfinite(number):
            raise self._refuse(node, "the number is too large, at most 1.8e308 is allowed")
        return Constant(number)

    def _name(self, node: ast.expr, name: str) -> Tree:
        if name.startswith("__"):
            raise self._refuse(node, f"the name {name!r} is not allowed: no name starts with two underscores")
        if self.known is not None and name not in self.known:
            raise self._refuse(node, _unknown("name", name, self.known))
        return Name(name)

    def _exponent(self, node: ast.expr, depth: int) -> Constant:
        value = _number_of(self._tree(node, depth))
        if value is None:
            raise self._refuse(
                node, "an exponent is a number; for x ** y with a name in y, write exp(y * log(x))"
            )
        if not abs(value) <= _LARGEST_EXPONENT:
            raise self._refuse(node, f"an exponent lies in [-8, 8], got {value:g}")
        return Constant(value)

    def _check_call(
        self, node: ast.expr, name: str, arguments: list[ast.expr], keywords: list[ast.keyword]
    ) -> None:
        if name not in ARITIES:
            raise self._refuse(node, _unknown("function", name, ARITIES))
        if keywords:
            raise self._refuse(keywords[0], f"{name} takes its arguments by position, not by keyword")
        for argument in arguments:
            if isinstance(argument, ast.Starred):
                raise self._refuse(argument, "a starred argument is not part of the language")
        if len(arguments) != ARITIES[name]:
            raise self._refuse(node, f"{name} takes {ARITIES[name]} argument(s), got {len(arguments)}")


def _number_of(tree: Tree) -> float | None:
    """The value of a formula without names; None where it has one."""
    match tree:
        case Constant(value):
            return value
        case Name():
            return None
        case Call(function, arguments):
            parts = [_number_of(argument) for argument in arguments]
            if None in parts:
                return None
            with np.errstate(all="ignore"):
                return float(operation(function, NUMPY)(*map(NUMPY.array, parts)))


def _unknown(what: str, name: str, known: Collection[str]) -> str:
    return f"unknown {what} {name!r}.{did_you_mean(name, known)} Known: {', '.join(sorted(known)) or 'none'}"


_DESCRIPTIONS: dict[type[ast.expr], str] = {
    ast.Attribute: "an attribute (a dot after a name)",
    ast.BinOp: "this operator",
    ast.Call: "the result of a call",
    ast.GeneratorExp: "a generator",
    ast.Starred: "a star",
    ast.Tuple: "a comma outside a call (a decimal has a point)",
}


def _described(node: ast.expr) -> str:
    return _DESCRIPTIONS.get(type(node), f"this form ({type(node).__name__})")
