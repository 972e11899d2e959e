"""FID and LPIPS refuse what is not the published file, and run where torchmetrics is installed."""

import hashlib
import importlib.util

import numpy as np
import pytest
import torch

from causalgen.metrics.published_networks import fid, lpips
from graphs.errors import CheckpointError, ChecksumError, DataError, MechanismError, ShapeError

IMAGES = np.random.default_rng(0).uniform(0, 1, (4, 3, 40, 40)).astype(np.float32)
installed = importlib.util.find_spec("torchmetrics") is not None


def saved(path, value):
    """A file and its sha256."""
    torch.save(value, path)
    return path, hashlib.sha256(path.read_bytes()).hexdigest()


def test_only_the_vouched_file_is_read(tmp_path):
    path, sha256 = saved(tmp_path / "weights.pth", {"weight": torch.zeros(1)})
    with pytest.raises(CheckpointError, match="nothing is downloaded"):
        lpips(IMAGES, IMAGES, tmp_path / "none.pth", sha256)
    with pytest.raises(ChecksumError, match=sha256):
        lpips(IMAGES, IMAGES, path, "0" * 64)
    code, sha256 = saved(tmp_path / "code.pth", {"run": print})
    with pytest.raises(CheckpointError, match="no file of plain weights"):
        lpips(IMAGES, IMAGES, code, sha256)


def test_bad_images_are_refused_before_any_file_is_read(tmp_path):
    nowhere = tmp_path / "none.pth"
    with pytest.raises(DataError, match="too few for FID, expected at least 2049"):
        fid(IMAGES, IMAGES, nowhere, "")
    with pytest.raises(ShapeError, match="at least 32 x 32"):
        lpips(IMAGES[..., :28, :28], IMAGES[..., :28, :28], nowhere, "")
    with pytest.raises(ShapeError, match="images 4, others 3"):
        lpips(IMAGES, IMAGES[:3], nowhere, "")
    with pytest.raises(ShapeError, match="1 or 3 channels"):
        lpips(IMAGES[:, :2], IMAGES[:, :2], nowhere, "")
    with pytest.raises(MechanismError, match="alex, vgg, squeeze"):
        lpips(IMAGES, IMAGES, nowhere, "", network="resnet")


@pytest.mark.skipif(installed, reason="torchmetrics is installed")
def test_the_missing_extra_is_named(tmp_path):
    path, sha256 = saved(tmp_path / "weights.pth", {"weight": torch.zeros(1)})
    with pytest.raises(MechanismError, match=r"pip install '\.\[metrics\]'"):
        lpips(IMAGES, IMAGES, path, sha256)


@pytest.mark.skipif(not installed, reason="torchmetrics is an optional extra")
def test_lpips_of_an_image_with_itself_is_zero(tmp_path):
    from torchvision.models import squeezenet1_1

    with torch.random.fork_rng(devices=[]):
        path, sha256 = saved(tmp_path / "squeezenet.pth", squeezenet1_1(weights=None).state_dict())
    before = torch.hub.get_dir()
    assert lpips(IMAGES, IMAGES, path, sha256, network="squeeze").value == pytest.approx(0, abs=1e-6)
    apart = lpips(IMAGES, IMAGES[::-1].copy(), path, sha256, network="squeeze")
    assert apart.value > 0
    assert apart.rows == 4
    assert torch.hub.get_dir() == before
    path, sha256 = saved(tmp_path / "other.pth", {"weight": torch.zeros(1)})
    with pytest.raises(CheckpointError, match="does not hold this network's weights"):
        lpips(IMAGES, IMAGES, path, sha256, network="squeeze")
