"""Versions of the libraries that made a file, for its manifest."""

from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, version

__all__ = ["library_versions"]


def library_versions(names: Iterable[str]) -> dict[str, str]:
    """Versions by name, of those libraries that are installed."""
    versions: dict[str, str] = {}
    for name in names:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:  # run from a checkout, or an extra that is not installed
            continue
    return versions
