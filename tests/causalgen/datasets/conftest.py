"""24 rows of MNIST's test set and of the published Morpho-MNIST, in memory and as folders."""

from pathlib import Path

import numpy as np
import pytest

from causalgen.datasets.mnist import idx_bytes


@pytest.fixture(scope="session")
def rows():
    with np.load(Path(__file__).with_name("morphomnist_rows.npz")) as file:
        return dict(file)


@pytest.fixture
def mnist_folder(rows, tmp_path):
    """The rows as both splits of an MNIST in torchvision's layout, gzipped."""
    raw = tmp_path / "mnist" / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for prefix in ("train", "t10k"):
        (raw / f"{prefix}-images-idx3-ubyte.gz").write_bytes(idx_bytes(rows["original"]))
        (raw / f"{prefix}-labels-idx1-ubyte.gz").write_bytes(idx_bytes(rows["label"]))
    return tmp_path / "mnist"


@pytest.fixture
def published_folder(rows, tmp_path):
    """The rows as the test split of a published folder."""
    folder = tmp_path / "published"
    folder.mkdir()
    (folder / "t10k-images-idx3-ubyte.gz").write_bytes(idx_bytes(rows["published"]))
    (folder / "t10k-labels-idx1-ubyte.gz").write_bytes(idx_bytes(rows["label"]))
    values = zip(rows["thickness"].tolist(), rows["intensity"].tolist(), strict=True)
    lines = [f"{row},{thickness!r},{intensity!r}" for row, (thickness, intensity) in enumerate(values)]
    (folder / "t10k-morpho.csv").write_text("\n".join(["index,thickness,intensity", *lines, ""]))
    return folder
