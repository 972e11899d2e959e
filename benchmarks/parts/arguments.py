"""The option ``--only`` that the benchmarks share."""

from __future__ import annotations

import argparse
from collections.abc import Collection

__all__ = ["add_only"]


def add_only(parser: argparse.ArgumentParser, sections: Collection[str]) -> None:
    """``--only A,B``: a list of some of the sections, refused where one is unknown."""

    def chosen(text: str) -> list[str]:
        names = [name.strip() for name in text.split(",") if name.strip()]
        for name in names:
            if name not in sections:
                raise argparse.ArgumentTypeError(f"unknown section {name!r}; known: {', '.join(sections)}")
        return names

    parser.add_argument("--only", type=chosen, metavar="A,B", help=f"sections of: {', '.join(sections)}")
