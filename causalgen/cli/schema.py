"""``causalgen schema``: the JSON Schema of the SCM file, with the kinds of plug-ins that are installed."""

from __future__ import annotations

import json

import typer

__all__ = ["schema"]


def schema() -> None:
    """The JSON Schema of SCM files, by which editors complete and check them."""
    from mechanisms.schema import scm_schema

    typer.echo(json.dumps(scm_schema(), indent=2, ensure_ascii=False))
