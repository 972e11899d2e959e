"""An expression: its names, its values, its text, and what can be said of it in one of its names."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from graphs.expressions import algebra, tree
from graphs.expressions.evaluation import NUMPY, Compiled, Functions, compile_tree
from graphs.expressions.parser import parse_tree
from graphs.expressions.ranges import Direction, Range, direction_in, range_of

__all__ = ["Expression", "parse_expression"]


@dataclass(frozen=True)
class Expression:
    """A formula in named values. Immutable, and equal to any other of the same tree.

    Attributes:
        tree: its root.
    """

    tree: tree.Tree

    @cached_property
    def names(self) -> tuple[str, ...]:
        """The names it reads, sorted."""
        return tuple(sorted(set(tree.names(self.tree))))

    def evaluate(self, values: Mapping[str, Any], functions: Functions = NUMPY) -> Any:
        """Its value: a float64 array of the shape that the values broadcast to.

        Args:
            values: a number or an array for each name; further names are ignored.
            functions: of the array library.

        Raises:
            UnknownNameError: a name has no value.
        """
        return self.compile(functions)(values)

    def compile(self, functions: Functions = NUMPY) -> Compiled:
        """``evaluate`` as a function of the values alone, to be called many times."""
        return compile_tree(self.tree, functions)

    def affine(self, name: str) -> tuple[Expression, Expression] | None:
        """(slope, intercept), both without ``name``, or None where it is not visibly affine in it.

        >>> [str(part) for part in parse_expression("2*a - (u + a) / b").affine("u")]
        ['-(1 / b)', '2 * a - a / b']
        """
        found = algebra.affine(self.tree, name)
        return None if found is None else (Expression(found[0]), Expression(found[1]))

    def inverse(self, name: str, value: str) -> Expression | None:
        """``name`` as an expression of ``value``, this expression's value, and of the other names.

        None where the name occurs more than once, or under what has no inverse. Where it is found, every
        solution of "expression == value" is its value, but not conversely: ``sqrt(u) == -1`` has none, so
        evaluate this expression at what it gives.

        >>> str(parse_expression("a - exp(3 * u)").inverse("u", "y"))
        'log(a - y) / 3'
        """
        found = algebra.inverse(self.tree, name, value)
        return None if found is None else Expression(found)

    def direction(self, name: str, ranges: Mapping[str, Range] | None = None) -> Direction:
        """Whether it is strictly increasing or decreasing in ``name``, "constant" where ``name`` is absent.

        Sound, not complete: "unknown" says nothing.

        Args:
            name: the others are held fixed.
            ranges: what values names can have; any number by default.

        >>> parse_expression("u**3 + exp(a) * u").direction("u")
        'increasing'
        """
        return direction_in(self.tree, name, ranges or {})

    def range(self, ranges: Mapping[str, Range] | None = None) -> Range:
        """Where its values lie, at most, when its names lie in ``ranges``."""
        return range_of(self.tree, ranges or {})

    def __str__(self) -> str:
        return tree.text(self.tree)

    def __repr__(self) -> str:
        return f"Expression({str(self)!r})"


def parse_expression(text: str, names: Collection[str] | None = None) -> Expression:
    """The expression that a text writes. Nothing of the text is run.

    Args:
        text: as in "2*a - 0.5*b + exp(u)"; see ``graphs.expressions.parser`` for the language.
        names: the names it may read; None allows any.

    Raises:
        SpecError: the text is not in the language, or reads another name; the message says where.
    """
    return Expression(parse_tree(text, names))
