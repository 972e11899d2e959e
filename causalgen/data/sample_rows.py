"""A gallery model's sample rows, from data it was not fitted on: a table and PNGs beside its weights."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from causalgen.data.reading import read_data
from causalgen.saving.pretrained import model_folder
from graphs.scm_file import read_spec

if TYPE_CHECKING:
    from causalgen.data.table import Table

__all__ = ["SAMPLES", "sample_rows"]

SAMPLES = Path("samples") / "rows.csv"
"""Where a model's folder keeps its sample rows."""


def sample_rows(name: str | Path) -> Table:
    """Sample rows of a gallery model or of a saved model's folder, by node; evidence as it stands.

    Raises:
        UnknownNameError: no such model.
        DataError: the model has no sample rows.
    """
    folder = model_folder(name)
    spec, _ = read_spec(folder / "scm.yaml")
    variables = {node: each.variable for node, each in spec.nodes.items()}
    return read_data(folder / SAMPLES, variables)
