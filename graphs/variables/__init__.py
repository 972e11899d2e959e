"""Types of variables: what values a node may have, and their canonical encoding. Never torch."""

from graphs.variables.tabular import Categorical, Continuous, Image, Integer, Variable

__all__ = ["Categorical", "Continuous", "Image", "Integer", "Variable"]
