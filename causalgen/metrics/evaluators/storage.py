"""Saved judges: a folder of weights, and a manifest that vouches for them.

    classifier.safetensors ...   the weights of each network
    README.md                    the card
    manifest.json                format, version, variables, recipe, what is told of the judges, and
                                 size and sha256 of each file of weights; written last

No pickle. Every byte of the weights is checked before it means anything; the card may be edited.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path
from typing import Any, Literal
from uuid import uuid4

from pydantic import BaseModel, ConfigDict, ValidationError
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from causalgen.metrics.evaluators.card import card_text
from causalgen.metrics.evaluators.judges import Judges
from causalgen.metrics.evaluators.recipe import Recipe
from causalgen.metrics.evaluators.roles import Roles
from causalgen.saving.atomic import swap_folder, sync_folder, write_synced
from causalgen.saving.libraries import library_versions
from graphs.errors import CausalgenError, CheckpointError, ChecksumError, FormatVersionError, UnknownNameError
from graphs.variables import Variable
from mechanisms.networks import first_non_finite

__all__ = ["judge_names", "load_judges", "save_judges"]

MANIFEST, CARD, FORMAT, VERSION = "manifest.json", "README.md", "causalgen-judges", 1
LIBRARIES = ("causalgen", "torch", "safetensors")
SHIPPED = Path(__file__).parent / "weights"

_LARGEST = 2**20
"""Bytes of a manifest that are read."""


class _File(BaseModel):
    model_config = ConfigDict(extra="forbid")

    size: int
    sha256: str


class _Manifest(BaseModel):
    model_config = ConfigDict(extra="forbid")

    format: Literal["causalgen-judges"]
    version: int
    libraries: dict[str, str]
    name: str
    image: str
    label: str
    numbers: tuple[str, ...]
    pixels: Literal["[0, 1]"]
    variables: dict[str, Variable]
    recipe: Recipe
    told: dict[str, Any]
    files: dict[str, _File]


def judge_names() -> tuple[str, ...]:
    """Data sets whose judges ship with the package, sorted."""
    return tuple(sorted(path.parent.name for path in SHIPPED.glob(f"*/{MANIFEST}")))


def load_judges(name: Path | str) -> Judges:
    """Judges that ship with the package, by the name of their data set, or those in a folder.

    Args:
        name: such as "mnist", or a folder that ``save_judges`` wrote; a folder of that name comes first.

    Raises:
        UnknownNameError: neither a folder nor a data set whose judges ship.
        CheckpointError: the folder holds no judges, or is damaged.
        ChecksumError: a file is not the one that was saved.
        FormatVersionError: written by a newer version.
    """
    folder = Path(name)
    if not folder.is_dir():
        if str(name) not in judge_names():
            raise UnknownNameError.of("judges", str(name), judge_names())
        folder = SHIPPED / str(name)
    manifest = _read_manifest(folder)
    roles = Roles(manifest.image, manifest.label, manifest.numbers, manifest.variables)
    try:
        judges = Judges(manifest.name, roles, manifest.recipe)
    except (CausalgenError, KeyError, AssertionError) as error:
        raise CheckpointError(f"{folder / MANIFEST} describes no judges: {error}.") from error
    if set(manifest.files) != {f"{key}.safetensors" for key in judges.networks}:
        raise CheckpointError(
            f"{folder / MANIFEST} lists the files {sorted(manifest.files)}, "
            f"expected a .safetensors for each of {sorted(judges.networks)}."
        )
    for key, network in judges.networks.items():
        told = manifest.files[f"{key}.safetensors"]
        weights = _read_weights(folder / f"{key}.safetensors", told)
        try:
            network.load_state_dict(weights)
        except RuntimeError as error:
            raise CheckpointError(
                f"{folder / key}.safetensors does not fit its manifest: {error}."
            ) from error
        if bad := first_non_finite(weights):
            raise CheckpointError(
                f"{folder / key}.safetensors holds no numbers: {bad}. Train the judges again."
            )
        judges.sha256[key] = told.sha256
    judges.told = dict(manifest.told)
    return judges


def save_judges(judges: Judges, folder: Path | str, card: str | None = None) -> None:
    """Save judges to a folder, atomically: weights, ``manifest.json`` and ``README.md``.

    From then on ``judges.sha256`` has the checksums.

    Args:
        judges: trained.
        folder: where to; earlier judges in it are replaced.
        card: the README; by default it is written from what is known.

    Raises:
        CheckpointError: the folder holds something else, or cannot be written; it is unchanged then.
    """
    target = Path(folder).resolve()
    check_place(target)
    for key, network in judges.networks.items():
        if bad := first_non_finite(network.state_dict()):
            raise CheckpointError(f"Judges are not saved: of the network {key!r}, {bad}. Train them again.")
    weights = {f"{key}.safetensors": _serialise(net.state_dict()) for key, net in judges.networks.items()}
    manifest = _Manifest(
        format=FORMAT,
        version=VERSION,
        libraries=library_versions(LIBRARIES),
        name=judges.name,
        image=judges.roles.image,
        label=judges.roles.label,
        numbers=judges.roles.numbers,
        pixels="[0, 1]",
        variables=dict(judges.roles.variables),
        recipe=judges.recipe,
        told=judges.told,
        files={
            name: _File(size=len(data), sha256=sha256(data).hexdigest()) for name, data in weights.items()
        },
    )
    text = json.dumps(manifest.model_dump(mode="json"), indent=2) + "\n"
    files = weights | {CARD: (card if card is not None else card_text(judges)).encode()}
    temporary = target.with_name(f".{target.name}.{uuid4().hex}.tmp")
    try:
        temporary.mkdir(parents=True)
        for name, data in (files | {MANIFEST: text.encode()}).items():
            write_synced(temporary / name, data)
        sync_folder(temporary)
        swap_folder(temporary, target)
    except OSError as error:
        raise CheckpointError(f"Cannot save judges in {target}: {error.strerror or error}.") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    judges.sha256 = {name.removesuffix(".safetensors"): told.sha256 for name, told in manifest.files.items()}


def check_place(folder: Path) -> None:
    """Refuse a place that holds anything but judges; a long training asks before it begins.

    Raises:
        CheckpointError: it does.
    """
    if not folder.exists():
        return
    if not folder.is_dir():
        raise CheckpointError(f"Cannot save judges in {folder}: it is no folder. Choose another place.")
    found = {path.name for path in folder.iterdir()}
    if not found:
        return
    known = {MANIFEST, CARD, *_read_manifest(folder).files} if MANIFEST in found else set()
    if found - known:
        raise CheckpointError(
            f"Cannot save judges in {folder}: it holds other things ({', '.join(sorted(found - known))}). "
            "Choose an empty or a new folder."
        )


def _read_manifest(folder: Path) -> _Manifest:
    path = folder / MANIFEST
    try:
        if not path.is_file():
            raise CheckpointError(f"{folder} holds no judges: it has no {MANIFEST}.")
        if path.stat().st_size > _LARGEST:
            raise CheckpointError(f"{path} is damaged: it is larger than {_LARGEST:,} bytes.")
        told = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{path} is damaged: {error}.") from error
    if not isinstance(told, dict) or told.get("format") != FORMAT:
        raise CheckpointError(f"{path} is no manifest of judges: expected the format {FORMAT!r}.")
    if isinstance(told.get("version"), int) and told["version"] > VERSION:
        raise FormatVersionError(
            f"The judges in {folder} have format version {told['version']}, this causalgen reads up to "
            f"{VERSION}. Update causalgen."
        )
    try:
        return _Manifest.model_validate(told)
    except ValidationError as error:
        raise CheckpointError(f"{path} is damaged: {error}.") from error


def _read_weights(path: Path, told: _File) -> dict[str, Tensor]:
    if not path.is_file():
        raise CheckpointError(f"The judges in {path.parent} are incomplete: {path.name} is missing.")
    size = path.stat().st_size  # before reading: a wrong file may be of any size
    if size != told.size:
        raise ChecksumError(f"{path} is damaged: expected {told.size:,} bytes, got {size:,}. Copy it again.")
    data = path.read_bytes()
    if sha256(data).hexdigest() != told.sha256:
        raise ChecksumError(f"{path} is damaged: its sha256 is not the one in {MANIFEST}. Copy it again.")
    try:
        return load(data)
    except SafetensorError as error:
        raise CheckpointError(f"Cannot read {path}: {error}.") from error


def _serialise(state: Mapping[str, Tensor]) -> bytes:
    # Clones: safetensors refuses views of one memory, and views of a larger one are written whole.
    return save({name: tensor.detach().contiguous().clone() for name, tensor in state.items()})
