"""FID and LPIPS, with their published networks' weights given as files; nothing is ever downloaded.

    FID     Frechet distance in the 2048 features of the Inception network of Heusel et al. 2017
    LPIPS   weighted squared distance of normalised features, of AlexNet, VGG-16 or SqueezeNet (Zhang, Isola,
            Efros, Shechtman & Wang 2018, *The unreasonable effectiveness of deep features*, equation 1)

Both go through torchmetrics (the extra ``metrics``). A value counts only with the published
weights, so each file's sha256 is asked for and checked before it is read:

    FID     ``weights-inception-2015-12-05-6726825d.pth`` of torch-fidelity, whose name begins its sha256
    LPIPS   torchvision's ImageNet weights of the backbone, such as ``alexnet-owt-7be5be79.pth``; the linear
            weights on top come with torchmetrics

torchmetrics offers no path for LPIPS's backbone: torchvision looks for it in torch.hub's folder, which is a
temporary one that holds the given file while the network is built. Files with pickled code are refused.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import file_digest
from pathlib import Path
from pickle import UnpicklingError
from tempfile import TemporaryDirectory
from typing import Any, Literal
from urllib.parse import urlparse

import torch
from torch import Tensor

from causalgen.metrics.image_rows import check_same_rows, image_rows
from causalgen.metrics.scores import Score, mean_score
from graphs.errors import CheckpointError, ChecksumError, DataError, MechanismError, ShapeError
from mechanisms.networks import reproducible_initialisation

__all__ = ["fid", "lpips"]

_FEATURES, _CHUNK, _SMALLEST = 2048, 64, 32
_BACKBONES = {"alex": "AlexNet_Weights", "vgg": "VGG16_Weights", "squeeze": "SqueezeNet1_1_Weights"}


def fid(images: object, real: object, weights: Path | str, sha256: str) -> float:
    """Frechet inception distance of images from real ones (Heusel et al. 2017); lower is better.

    Biased upwards by few images: compare only values of equally many, and publish with 10,000 or more.

    Args:
        images: (N, 1 or 3, H, W), uint8 or floats in [0, 1]; N above 2048.
        real: (M, 1 or 3, H, W); M above 2048.
        weights: file of the Inception network's weights.
        sha256: of that file, in hexadecimal.

    Raises:
        MechanismError: torchmetrics or torch-fidelity is not installed.
        CheckpointError: no such file, or no weights of that network.
        ChecksumError: the file has another sha256.
        DataError: no more images than features, in either set.
        ShapeError: neither grey nor colour images.
        DomainError: pixels out of range.
    """
    sets = [_coloured(each, where) for each, where in ((images, "The images"), (real, "The real images"))]
    for each, where in zip(sets, ("The images", "The real images"), strict=True):
        if len(each) <= _FEATURES:
            raise DataError(
                f"{where}: {len(each)} are too few for FID, expected at least {_FEATURES + 1}: the "
                "features' covariance would be singular. feature_distance takes fewer."
            )
    path = _checked_file(weights, sha256)
    _need("torch_fidelity", "FID")
    from torchmetrics.image.fid import FrechetInceptionDistance  # pyright: ignore[reportMissingImports]

    with _building(path):
        metric: Any = FrechetInceptionDistance(
            feature=_FEATURES, normalize=False, feature_extractor_weights_path=str(path)
        )
    for each, is_real in zip(sets, (False, True), strict=True):
        for part in each.split(_CHUNK):
            metric.update((255 * part).round().byte(), real=is_real)
    return max(float(metric.compute()), 0.0)  # rounding may leave a hair below 0


def lpips(
    images: object,
    others: object,
    weights: Path | str,
    sha256: str,
    network: Literal["alex", "vgg", "squeeze"] = "alex",
) -> Score:
    """Perceptual distance of paired images, the mean over rows (Zhang et al. 2018); lower is more alike.

    Args:
        images: (N, 1 or 3, H, W), uint8 or floats in [0, 1]; at least 32 x 32. Smaller ones are not enlarged
            here: how would be part of the metric.
        others: (N, 1 or 3, H, W).
        weights: file of the backbone's ImageNet weights, of torchvision.
        sha256: of that file, in hexadecimal.
        network: the backbone.

    Raises:
        MechanismError: torchmetrics is not installed, or no such backbone.
        CheckpointError: no such file, or no weights of that network.
        ChecksumError: the file has another sha256.
        ShapeError: images that are not paired, too small, or neither grey nor colour.
        DomainError: pixels out of range.
    """
    if network not in _BACKBONES:
        raise MechanismError(f"LPIPS has the backbones {', '.join(_BACKBONES)}; got {network!r}.")
    one, other = _coloured(images, "The images"), _coloured(others, "The other images")
    check_same_rows(images=one, others=other)
    if one.shape != other.shape or min(one.shape[-2:]) < _SMALLEST:
        raise ShapeError(
            f"LPIPS compares images of one size, at least {_SMALLEST} x {_SMALLEST}; got "
            f"{tuple(one.shape[-2:])} and {tuple(other.shape[-2:])}. Enlarge both alike, and say how."
        )
    path = _checked_file(weights, sha256)
    _need("torchmetrics", "LPIPS")
    from torchmetrics.image.lpip import LearnedPerceptualImagePatchSimilarity  # pyright: ignore[reportMissingImports]

    with _building(path), _hub_folder(path, network):
        metric: Any = LearnedPerceptualImagePatchSimilarity(
            net_type=network, reduction="none", normalize=True
        )
    with torch.no_grad():
        parts = [
            metric(a, b).reshape(-1) for a, b in zip(one.split(_CHUNK), other.split(_CHUNK), strict=True)
        ]
    return mean_score(torch.cat(parts).double().numpy(), f"LPIPS ({network})")


def _coloured(images: object, where: str) -> Tensor:
    pixels = image_rows(images, where=where)
    if pixels.shape[1] not in (1, 3):
        raise ShapeError(f"{where}: expected 1 or 3 channels, got {pixels.shape[1]}.")
    return pixels.expand(-1, 3, -1, -1)


def _checked_file(weights: Path | str, sha256: str) -> Path:
    """The file, once its bytes are those expected and hold nothing but tensors."""
    path = Path(weights)
    if not path.is_file():
        raise CheckpointError(
            f"There is no file {path}. Download the published weights yourself; nothing is downloaded here."
        )
    with path.open("rb") as file:
        found = file_digest(file, "sha256").hexdigest()
    if found != sha256.lower():
        raise ChecksumError(f"{path} has the sha256 {found}, expected {sha256}. Give the published weights.")
    try:
        torch.load(path, map_location="cpu", weights_only=True)
    except (UnpicklingError, RuntimeError, EOFError) as error:
        raise CheckpointError(f"{path} is no file of plain weights: {error}.") from error
    return path


def _need(module: str, what: str) -> None:
    from importlib.util import find_spec

    for name in ("torchmetrics", module):
        if find_spec(name) is None:
            raise MechanismError(f"{what} needs {name}: in the checkout, pip install '.[metrics]'.")


@contextmanager
def _building(path: Path) -> Iterator[None]:
    try:
        with reproducible_initialisation():  # a network draws weights before it gets these
            yield
    except (RuntimeError, KeyError) as error:
        raise CheckpointError(f"{path} does not hold this network's weights: {error}.") from error


@contextmanager
def _hub_folder(path: Path, network: str) -> Iterator[None]:
    """torch.hub's folder is one that holds the file under the name that torchvision looks for."""
    import torchvision

    name = Path(urlparse(getattr(torchvision.models, _BACKBONES[network]).DEFAULT.url).path).name
    before = torch.hub.get_dir()
    with TemporaryDirectory() as folder:
        (Path(folder) / "checkpoints").mkdir()
        shutil.copyfile(path, Path(folder) / "checkpoints" / name)
        torch.hub.set_dir(folder)
        try:
            yield
        finally:
            torch.hub.set_dir(before)
