"""Results as tables, as folders and as HTML.

A saved result is a folder:

    values.csv       the scalar nodes, a line a row (and sample)
    <node>/0003.png  images, numbered by row (S samples: 0003-02.png is row 3, sample 2)
    result.json      nodes, rows, samples, seed, do, and the provenance of every node and row
"""

from __future__ import annotations

import base64
import html
import json
import shutil
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from PIL import Image as PILImage

from causalgen.atomic import sync_folder, write_synced
from graphs.errors import CheckpointError
from graphs.variables import Image

if TYPE_CHECKING:
    from causalgen.results import Draws

__all__ = ["draws_html", "save_draws", "to_frame", "to_png"]


def to_frame(draws: Draws) -> pd.DataFrame:
    """The scalar nodes as a table: index of the evidence, or (sample, row) where there are samples."""
    names = [node for node, variable in draws.variables.items() if not variable.event_shape]
    index = draws.index if draws.index is not None else pd.RangeIndex(draws.rows, name="row")
    if draws.samples is not None:
        index = pd.MultiIndex.from_product(
            [range(draws.samples), index], names=["sample", index.name or "row"]
        )
    return pd.DataFrame({node: np.asarray(draws[node]).reshape(-1) for node in names}, index=index)


def to_png(image: NDArray[np.floating[Any]]) -> bytes:
    """A PNG of an image (C, H, W) in [0, 1]; 1, 3 or 4 channels."""
    pixels = np.round(np.clip(image, 0, 1) * 255).astype(np.uint8)
    picture = PILImage.fromarray(pixels[0] if len(pixels) == 1 else np.moveaxis(pixels, 0, -1))
    buffer = BytesIO()
    picture.save(buffer, "PNG")
    return buffer.getvalue()


def save_draws(draws: Draws, folder: Path | str) -> Path:
    """Write a result to a new or empty folder, all or nothing.

    Raises:
        CheckpointError: the folder holds something, or cannot be written.
    """
    target = Path(folder).absolute()
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise CheckpointError(
            f"Cannot save the result in {target}: it is not an empty folder. Choose another place."
        )
    temporary = target.with_name(f".{target.name}.{uuid4().hex}.tmp")
    try:
        temporary.mkdir(parents=True)
        for name, data in _files(draws):
            (temporary / name).parent.mkdir(exist_ok=True)
            write_synced(temporary / name, data)
        if target.exists():
            target.rmdir()
        temporary.rename(target)
        sync_folder(target.parent)
    except OSError as error:
        raise CheckpointError(f"Cannot save the result in {target}: {error.strerror or error}.") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return Path(folder)


def draws_html(draws: Draws) -> str:
    """The picture and the first rows of the table."""
    buffer = BytesIO()
    draws.plot().savefig(buffer, format="png", dpi=110, facecolor="white")
    picture = base64.b64encode(buffer.getvalue()).decode()
    table = to_frame(draws).head(8).to_html(border=0)
    return f'<p>{html.escape(repr(draws))}</p><img src="data:image/png;base64,{picture}"/>{table}'


def _files(draws: Draws) -> Iterator[tuple[str, bytes]]:
    table = to_frame(draws)
    if len(table.columns):
        yield "values.csv", table.to_csv().encode()
    for node, variable in draws.variables.items():
        if isinstance(variable, Image):
            yield from _pictures(node, np.asarray(draws[node]), draws.samples)
    told = {
        "nodes": {node: variable.describe() for node, variable in draws.variables.items()},
        "rows": draws.rows,
        "samples": draws.samples,
        "seed": draws.seed,
        "do": dict(getattr(draws, "do", {})),
        "provenance": {node: list(values) for node, values in draws.provenance.items()},
    }
    yield "result.json", json.dumps(told, indent=1).encode()


def _pictures(node: str, images: NDArray[Any], samples: int | None) -> Iterator[tuple[str, bytes]]:
    for sample, each in enumerate(images if samples is not None else images[None]):
        for row, image in enumerate(each):
            suffix = "" if samples is None else f"-{sample:02d}"
            yield f"{node}/{row:04d}{suffix}.png", to_png(image)
