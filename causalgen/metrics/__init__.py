"""Metrics: one file a family, each function with its source.

measurement    stroke thickness, slant, size and intensity, measured on the image itself
"""

from causalgen.metrics.measurement import intensity, size, slant, thickness

__all__ = ["intensity", "size", "slant", "thickness"]
