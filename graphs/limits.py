"""What a model may declare, in one table, which the reader of SCM files, the writer and Python share.

A short file can ask for a lot: ``categories: 1000000000`` is 26 characters. Every size is bounded where it is
declared, so that a file is answered in time and memory in proportion to its length, and what Python
declared, and saved after hours of fitting, loads again.
"""

import os

__all__ = [
    "CATEGORIES",
    "DEPTH",
    "DIGITS",
    "DIMENSIONS",
    "FILE_BYTES",
    "FINDINGS",
    "KEY",
    "LABELS",
    "NODES",
    "NODE_NAME",
    "NUMBERS",
    "PARENTS",
    "TEXT",
    "VALUES",
    "model_bytes",
]

FILE_BYTES = 4_000_000
"""Of an SCM file."""

VALUES = 150_000
"""Keys and values of a file."""

DEPTH = 20
"""Of nested mappings and lists in a file; options of a mechanism may be 15 deep."""

DIGITS = 400
"""Characters of a number."""

KEY = 200
"""Characters of a key."""

NODES = 5_000
"""Of a graph."""

NODE_NAME = 100
"""Characters of a node's name, which becomes a file's."""

PARENTS = 1_000
"""Of one node."""

TEXT = 200
"""Characters of a model's name, of a unit, of a label."""

LABELS = 50_000
"""Of one categorical variable."""

CATEGORIES = 100_000
"""Of one categorical variable whose categories are only numbered."""

NUMBERS = 2**24
"""In one value, as in an image of 3 x 2048 x 2048."""

DIMENSIONS = 8
"""Of one value's shape."""

FINDINGS = 20
"""Told of one file; the others are counted."""

_MODEL_BYTES = 128 * 2**20


def model_bytes() -> int:
    """Bytes of weights that a file without weights may ask for: 128 MiB, or CAUSALGEN_MODEL_MB megabytes."""
    told = os.environ.get("CAUSALGEN_MODEL_MB", "")
    return int(told) * 10**6 if told.isascii() and told.isdigit() and len(told) < 10 else _MODEL_BYTES
