"""Saved folders: plain files and a JSON manifest with format version, library versions and SHA-256 checksums.

The one codec of models, evaluators and results; run folders share its parts. No pickle: tensors are
safetensors, each checked.

    save    every file, then the manifest, in a temporary folder beside the target; fsync; exchange
    load    the manifest, at most so large, of a known format; then each file, by size and checksum

A crash leaves the folder before the save or after it, and a load gives one or the other, also while a save
goes on. A folder that holds files of others is never replaced, and no name in a manifest, and no link, leads
out of its folder.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from hashlib import sha256
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path, PurePosixPath
from typing import Any, TypeVar

from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor, nn

from causalgen.saving.atomic import new_folder, recover_folder, write_synced
from graphs.errors import CheckpointError, ChecksumError, FormatVersionError

__all__ = [
    "CODEC_KEYS",
    "FolderFormat",
    "RESULT",
    "check_result_folder",
    "check_version",
    "library_versions",
    "load_weights",
    "read_json",
    "read_tensors",
    "tensor_bytes",
    "write_result",
]

T = TypeVar("T")

CODEC_KEYS = frozenset(["format", "version", "libraries", "files", "sha256"])
"""What the codec itself writes in a manifest; the rest are metadata."""


@dataclass(frozen=True)
class FolderFormat:
    """How one kind of folder is saved and loaded."""

    format: str  # as its manifests say, such as "causalgen-model"
    what: str  # as messages say, such as "model"
    manifest: str = "manifest.json"
    version: int = 1  # as written; older ones are read
    libraries: tuple[str, ...] = ("causalgen", "torch", "safetensors")  # whose versions are written
    names: re.Pattern[str] | None = None  # of files; any relative path that stays in the folder where None
    expected: str = "a path inside the folder"  # these names in words
    unlisted: frozenset[str] = frozenset()  # files that may be edited: they have no checksum
    keeps_others: bool = False  # a save keeps files that are not its own, instead of refusing the folder
    lists_names: bool = False  # ``files`` is a list of names with checksums beside it, not a mapping
    most_bytes: int = 16 * 2**20  # largest manifest that is parsed

    def save(
        self,
        folder: Path | str,
        files: Iterable[tuple[str, bytes]],
        metadata: Mapping[str, Any] | None = None,
    ) -> dict[str, dict[str, Any]]:
        """Save a folder, atomically; an earlier one of the same format is replaced.

        Files, path and content, are taken one at a time; the manifest says ``metadata`` beside the codec's
        own keys. Gives size and sha256 of each listed file.

        Raises:
            CheckpointError: the folder holds something else, or cannot be written; it is unchanged then.
        """
        target = Path(folder).resolve()
        entries: dict[str, dict[str, Any]] = {}
        with self._os_errors(f"Cannot save the {self.what} in {target}"):
            _steady(target, lambda: self._others(target))
            with new_folder(target) as temporary:
                _steady(target, lambda: [_copy(kept, temporary) for kept in self._others(target)])
                for name, data in files:
                    self._check_name(name, f"the {self.what} to be saved in {target}")
                    (temporary / name).parent.mkdir(parents=True, exist_ok=True)
                    write_synced(temporary / name, data)
                    if name not in self.unlisted:
                        entries[name] = {"size": len(data), "sha256": sha256(data).hexdigest()}
                text = json.dumps(self._manifest(entries, metadata or {}), indent=1)
                write_synced(temporary / self.manifest, f"{text}\n".encode())
        return entries

    def load(self, folder: Path | str) -> tuple[dict[str, Any], dict[str, bytes]]:
        """The manifest, and the content of every listed file, each checked.

        Raises:
            CheckpointError: no such folder, no manifest, a missing or unreadable file, or a name that leads
                out of the folder.
            ChecksumError: a file is not the one that was saved.
            FormatVersionError: a newer version of the format.
        """
        source = Path(folder)

        def read() -> tuple[dict[str, Any], dict[str, bytes]]:
            manifest = self.read_manifest(source)
            return manifest, {
                name: self._read(source, name, said) for name, said in manifest["files"].items()
            }

        with self._os_errors(f"Cannot load the {self.what} in {source}"):
            return _steady(source, read)

    def found(self, folder: Path | str) -> bool:
        """Whether there is a folder of that name; one that a killed save left aside is put back.

        Raises:
            CheckpointError: nobody can tell.
        """
        target = Path(folder)
        with self._os_errors(f"Cannot look for the {self.what} in {target}"):
            recover_folder(target.resolve())
            return target.is_dir()

    def read_manifest(self, folder: Path) -> dict[str, Any]:
        """The manifest of a folder, checked as far as the codec knows it; raises as ``load`` does."""
        path = folder / self.manifest
        if not folder.is_dir():
            raise CheckpointError(
                f"There is no folder {folder}; a saved {self.what} is a folder with a {self.manifest}."
            )
        if not path.is_file():
            raise CheckpointError(f"{folder} holds no saved {self.what}: it has no {self.manifest}.")
        _check_inside(path, folder)
        manifest = read_json(path, self.most_bytes)
        with _damage(path):
            if manifest["format"] != self.format:
                raise CheckpointError(
                    f"{path} is no manifest of a {self.what}: its format is {manifest['format']!r}."
                )
            check_version(path, manifest["version"], self.version)
            for name in manifest["files"]:
                self._check_name(name, str(path))
            for name, said in {} if self.lists_names else manifest["files"].items():
                if type(said["size"]) is not int or type(said["sha256"]) is not str:
                    raise ValueError(f"size or sha256 of {name!r}")
        return manifest

    def check_place(self, folder: Path | str) -> None:
        """Refuse a folder that cannot be replaced; a long computation asks before it begins.

        Raises:
            CheckpointError: it holds something else, or cannot be read.
        """
        target = Path(folder).resolve()
        with self._os_errors(f"Cannot save the {self.what} in {target}"):
            _steady(target, lambda: self._others(target))

    def _manifest(self, entries: Mapping[str, dict[str, Any]], metadata: Mapping[str, Any]) -> dict[str, Any]:
        manifest = {"format": self.format, "version": self.version}
        manifest |= {"libraries": library_versions(self.libraries), **metadata}
        if not self.lists_names:
            return {**manifest, "files": entries}
        sums = {name: entry["sha256"] for name, entry in entries.items()}
        return {**manifest, "files": [self.manifest, *entries], "sha256": sums}

    def _others(self, target: Path) -> list[Path]:
        """What a save has to keep; refuses a folder that it may not replace."""
        refusal = f"Cannot save the {self.what} in {target}"
        if not target.exists():
            return []
        if not target.is_dir():
            raise CheckpointError(f"{refusal}: it is no folder. Choose another place.")
        inside = sorted(target.iterdir())
        if not inside:
            return []
        try:
            ours = {self.manifest, *self.read_manifest(target)["files"], *self.unlisted}
        except FormatVersionError:
            raise
        except CheckpointError as error:
            raise CheckpointError(
                f"{refusal}: the folder holds other things, and no {self.what} "
                f"({', '.join(path.name for path in inside[:3])}). Choose an empty or a new folder."
            ) from error
        if self.keeps_others:
            return [path for path in inside if path.name not in ours]
        found = (path for path in target.rglob("*") if path.is_symlink() or not path.is_dir())
        others = sorted({path.relative_to(target).as_posix() for path in found} - ours)
        if others:
            raise CheckpointError(
                f"{refusal}: the folder holds {others[0]!r}, which is no part of an earlier {self.what}. "
                "Choose another place."
            )
        return []

    def _check_name(self, name: str, where: str) -> None:
        """Only names of this format's files: nothing that leads out of the folder."""
        path = PurePosixPath(name)
        inside = bool(path.parts) and not path.is_absolute() and ".." not in path.parts
        named = not re.search(r"[\\:\0]", name) if self.names is None else self.names.fullmatch(name)
        if not (inside and named):
            raise CheckpointError(
                f"{name!r} is no file of a saved {self.what}, in {where}: expected {self.expected}."
            )

    def _read(self, folder: Path, name: str, said: Mapping[str, Any]) -> bytes:
        path = folder / name
        again = f"Copy or download the {self.what} again."
        if not path.is_file():
            raise CheckpointError(f"The {self.what} in {folder} is incomplete: {name} is missing.")
        _check_inside(path, folder)
        size = path.stat().st_size  # before reading: a wrong file may be of any size
        if size != said["size"]:
            raise ChecksumError(f"{path} is damaged: expected {said['size']:,} bytes, got {size:,}. {again}")
        data = path.read_bytes()
        if sha256(data).hexdigest() != said["sha256"]:
            raise ChecksumError(f"{path} is damaged: its sha256 is not the one in {self.manifest}. {again}")
        return data

    @contextmanager
    def _os_errors(self, what: str) -> Iterator[None]:
        try:
            yield
        except CheckpointError:
            raise
        except OSError as error:
            raise CheckpointError(f"{what}: {error.strerror or error}.") from error


def library_versions(names: Iterable[str]) -> dict[str, str]:
    """Versions by name, of those libraries that are installed."""
    versions: dict[str, str] = {}
    for name in names:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:  # run from a checkout, or an extra that is not installed
            continue
    return versions


def read_json(path: Path, most_bytes: int = 16 * 2**20) -> Any:
    """The JSON of a manifest.

    Raises:
        CheckpointError: it is larger than that, or no JSON.
        OSError: it cannot be read.
    """
    if path.stat().st_size > most_bytes:
        raise CheckpointError(f"{path} is damaged: it is larger than {most_bytes:,} bytes.")
    with _damage(path):
        return json.loads(path.read_bytes())


def check_version(path: Path, number: object, newest: int) -> None:
    """Refuse a manifest of a newer version of its format.

    Raises:
        FormatVersionError: it is newer.
        CheckpointError: it is no version.
    """
    if not isinstance(number, int) or isinstance(number, bool) or number < 1:
        raise CheckpointError(f"{path} is damaged: its format version is {number!r}.")
    if number > newest:
        raise FormatVersionError(
            f"{path} has format version {number}, this causalgen reads up to {newest}. Update causalgen."
        )


@contextmanager
def _damage(path: Path) -> Iterator[None]:
    """What a file that says something else raises, as one error."""
    try:
        yield
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise CheckpointError(f"{path} is damaged: {type(error).__name__}: {error}.") from error


def _check_inside(path: Path, folder: Path) -> None:
    """Refuse a link that leads out of the folder; in the Hub's cache, out of that and the model's blobs."""
    home, target = folder.resolve(), path.resolve()
    blobs = home.parents[1] / "blobs" if home.parent.name == "snapshots" else home
    if not (target.is_relative_to(home) or target.is_relative_to(blobs)):
        raise CheckpointError(
            f"{path} is a link out of the folder, to {target}. Copy the folder with what it links to."
        )


def _steady(folder: Path, read: Callable[[], T]) -> T:
    """What is read of a folder: all of the old one or all of the new one, where a save comes between."""
    while True:
        recover_folder(folder.resolve())
        before = _stamp(folder)
        try:
            return read()
        except (CheckpointError, OSError):
            if _stamp(folder) == before:
                raise


def _stamp(folder: Path) -> tuple[int, ...] | None:
    """What tells a folder from the one that replaces it; None where there is none."""
    try:
        found = folder.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino, found.st_ctime_ns, found.st_mtime_ns


def _copy(path: Path, folder: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.copytree(path, folder / path.name, symlinks=True, dirs_exist_ok=True)
    else:
        shutil.copy2(path, folder, follow_symlinks=False)


def tensor_bytes(state: Mapping[str, Tensor], metadata: dict[str, str] | None = None) -> bytes:
    """Tensors by name as a safetensors file."""
    # Clones: safetensors refuses views of one memory, and views of a larger one are written whole.
    return save({name: each.detach().cpu().contiguous().clone() for name, each in state.items()}, metadata)


def read_tensors(data: bytes, path: Path) -> dict[str, Tensor]:
    """The tensors of a safetensors file's content."""
    try:
        return load(data)
    except (SafetensorError, KeyError, ValueError, RuntimeError) as error:
        raise CheckpointError(f"Cannot read {path}: {type(error).__name__}: {error}.") from error


def load_weights(module: nn.Module, state: Mapping[str, Tensor], what: str) -> None:
    """Load a state into its module, which takes exactly its tensors, in their shapes.

    What a part of it names in ``filled_in`` may be missing as a whole, as in models saved before there was
    any: it fills that in. Floating-point numbers may have another precision; any other type is refused, where
    torch would convert it without a word.
    """
    try:
        module.load_state_dict(dict(state))
    except RuntimeError as error:
        raise CheckpointError(f"{what} do not fit it: {error}.") from error
    filled = set[str]()
    for place, part in module.named_modules():
        names = {f"{place}.{name}" for name in getattr(part, "filled_in", ())}
        if not names & state.keys():
            filled |= names
    for name, own in module.state_dict().items():
        if (given := state.get(name)) is None:
            if name in filled:
                continue
            # torch takes some counters for granted
            raise CheckpointError(f"{what} do not fit it: {name!r} is missing.")
        floats = own.is_floating_point() and given.is_floating_point()
        if own.shape != given.shape or not (floats or own.dtype == given.dtype):
            raise CheckpointError(
                f"{what} do not fit it: {name!r} is {_described(own)}, got {_described(given)}."
            )


def _described(tensor: Tensor) -> str:
    return f"{str(tensor.dtype).removeprefix('torch.')} of shape {tuple(tensor.shape)}"


RESULT = "result.json"
_RESULTS = FolderFormat("causalgen-result", "result", RESULT, lists_names=True, most_bytes=2**30)


def write_result(
    folder: Path | str, files: Iterable[tuple[str, bytes]], metadata: Mapping[str, Any], name: str = RESULT
) -> Path:
    """Write a result, all or nothing, and give its folder: files by path, and a JSON of ``metadata``.

    Raises:
        CheckpointError: the folder holds something else, or cannot be written; it is unchanged then.
    """
    replace(_RESULTS, manifest=name).save(folder, files, metadata)
    return Path(folder)


def check_result_folder(folder: Path | str, name: str = RESULT) -> None:
    """Refuse a place that holds anything but an earlier result; a long computation asks before it begins.

    Raises:
        CheckpointError: it does, or cannot be read.
    """
    replace(_RESULTS, manifest=name).check_place(folder)
