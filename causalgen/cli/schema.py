"""``causalgen schema``: the JSON Schema of the SCM file."""

from __future__ import annotations

import json

import typer

from mechanisms.schema import scm_schema

__all__ = ["run_schema"]


def run_schema() -> None:
    """Print it, with the kinds of the plug-ins that are installed."""
    typer.echo(json.dumps(scm_schema(), indent=2, ensure_ascii=False))
