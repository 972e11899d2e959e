"""Formulas derived from a formula: its affine form in a name, and its inverse.

affine    tree == slope * name + intercept
inverse   tree == value  implies  name == inverse(value, other names)
"""

from __future__ import annotations

from collections.abc import Callable

from graphs.expressions.tree import (
    Binary,
    Call,
    Constant,
    Name,
    Negative,
    Tree,
    add,
    call,
    divide,
    multiply,
    names,
    negate,
    power,
    subtract,
)

__all__ = ["affine", "inverse", "reads"]

Affine = tuple[Tree, Tree]

_INVERSES = {
    "atanh": "tanh",
    "exp": "log",
    "log": "exp",
    "logit": "sigmoid",
    "sigmoid": "logit",
    "tanh": "atanh",
}


def reads(tree: Tree, name: str) -> bool:
    """Whether ``name`` occurs in the tree."""
    return any(each == name for each in names(tree))


def affine(tree: Tree, name: str) -> Affine | None:
    """(slope, intercept), both without ``name``; None where the tree is not visibly affine in it."""
    if not reads(tree, name):
        return Constant(0.0), tree
    match tree:
        case Name():
            return Constant(1.0), Constant(0.0)
        case Negative(operand):
            return _negated(affine(operand, name))
        case Binary("+", left, right):
            return _sum(affine(left, name), affine(right, name))
        case Binary("-", left, right):
            return _sum(affine(left, name), _negated(affine(right, name)))
        case Binary("*", left, right) if not reads(right, name):
            return _each(affine(left, name), lambda part: multiply(part, right))
        case Binary("*", left, right) if not reads(left, name):
            return _each(affine(right, name), lambda part: multiply(left, part))
        case Binary("/", left, right) if not reads(right, name):
            return _each(affine(left, name), lambda part: divide(part, right))
        case Binary("**", base, Constant(1)):
            return affine(base, name)
        case Call("where", (test, then, otherwise)) if not reads(test, name):
            return _chosen(test, affine(then, name), affine(otherwise, name))
        case _:
            return None


def inverse(tree: Tree, name: str, value: str) -> Tree | None:
    """``name`` by ``value`` and the other names, unwinding the tree from its root to the name's one place."""
    if sum(each == name for each in names(tree)) != 1:
        return None
    found: Tree = Name(value)
    while tree != Name(name):
        step = _unwound(tree, name, found)
        if step is None:
            return None
        tree, found = step
    return found


def _unwound(tree: Tree, name: str, value: Tree) -> tuple[Tree, Tree] | None:
    """The operand that holds ``name``, and what it is where the tree is ``value``."""
    match tree:
        case Negative(operand):
            return operand, negate(value)
        case Binary("**", base, Constant(exponent)):
            root = _root(value, exponent)
            return None if root is None else (base, root)
        case Binary(operator, left, right) if reads(left, name):
            solution = _left_solution(operator, value, right)
            return None if solution is None else (left, solution)
        case Binary(operator, left, right):
            solution = _right_solution(operator, value, left)
            return None if solution is None else (right, solution)
        case Call("sqrt", (operand,)):
            return operand, power(value, 2.0)
        case Call(function, (operand,)) if function in _INVERSES:
            return operand, call(_INVERSES[function], value)
        case _:
            return None


def _left_solution(operator: str, value: Tree, right: Tree) -> Tree | None:
    """x of ``x operator right == value``."""
    solve = {"+": subtract, "-": add, "*": divide, "/": multiply}.get(operator)
    return None if solve is None else solve(value, right)


def _right_solution(operator: str, value: Tree, left: Tree) -> Tree | None:
    """x of ``left operator x == value``."""
    if operator in ("-", "/"):
        return (subtract if operator == "-" else divide)(left, value)
    solve = {"+": subtract, "*": divide}.get(operator)
    return None if solve is None else solve(value, left)


def _root(value: Tree, exponent: float) -> Tree | None:
    """x of ``x ** exponent == value``; None for even exponents, which have two."""
    if exponent == 1:
        return value
    if exponent % 2 == 0:
        return None
    if not exponent.is_integer():  # defined for x >= 0 alone
        return power(value, 1 / exponent)
    return multiply(call("sign", value), power(call("abs", value), 1 / exponent))


def _each(form: Affine | None, change: Callable[[Tree], Tree]) -> Affine | None:
    return None if form is None else (change(form[0]), change(form[1]))


def _negated(form: Affine | None) -> Affine | None:
    return _each(form, negate)


def _sum(one: Affine | None, other: Affine | None) -> Affine | None:
    return None if one is None or other is None else (add(one[0], other[0]), add(one[1], other[1]))


def _chosen(test: Tree, one: Affine | None, other: Affine | None) -> Affine | None:
    if one is None or other is None:
        return None
    slope, intercept = (
        then if then == otherwise else call("where", test, then, otherwise)
        for then, otherwise in zip(one, other, strict=True)
    )
    return slope, intercept
