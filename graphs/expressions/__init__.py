"""The expression language of equations and interventions: arithmetic on named values, and nothing else.

>>> expression = parse_expression("2*a - exp(b) if a > 0 else a")
>>> str(expression), expression.names
('where(a > 0, 2 * a - exp(b), a)', ('a', 'b'))
>>> expression.evaluate({"a": [1.0, -1.0], "b": 0.0})
array([ 1., -1.])
"""

from graphs.expressions.evaluation import NUMPY, Functions
from graphs.expressions.expression import Expression, parse_expression
from graphs.expressions.ranges import Direction, Range
from graphs.expressions.tree import ARITIES

__all__ = ["ARITIES", "Direction", "Expression", "Functions", "NUMPY", "Range", "parse_expression"]
