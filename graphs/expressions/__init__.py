"""The expression language of equations and interventions: arithmetic on named values, and nothing else.

>>> expression = parse_expression("2*a - exp(b) if a > 0 else a")
>>> str(expression), expression.names
('where(a > 0, 2 * a - exp(b), a)', ('a', 'b'))
>>> expression.evaluate({"a": [1.0, -1.0], "b": 0.0})
array([ 1., -1.])
"""

from graphs.expressions.expression import Direction, Expression, parse_expression
from graphs.expressions.functions import ARITIES, NUMPY, Functions, Range, namespace_functions

__all__ = [
    "ARITIES",
    "Direction",
    "Expression",
    "Functions",
    "NUMPY",
    "Range",
    "namespace_functions",
    "parse_expression",
]
