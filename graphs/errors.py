"""Every error this project raises on purpose, one tree.

    CausalgenError
    ├── GraphError (ValueError)            the graph itself is wrong
    │   └── CycleError                     it has a cycle, which the message spells out
    ├── UnknownNameError (KeyError)        a node, kind, preset or option nobody declared
    ├── SpecError (ValueError)             an SCM file is wrong, with file:line:column
    ├── DomainError (ValueError)           a value lies outside its variable's domain
    │   └── ShapeError                     a value has the wrong shape
    ├── EvidenceError (ValueError)         evidence does not fit the model
    │   └── PartialEvidenceError           evidence lacks a node that the query needs
    ├── InterventionError (ValueError)     an intervention does not fit the model
    ├── MechanismError (RuntimeError)      a mechanism cannot do what was asked
    │   ├── NotFittedError                 it has not been fitted yet
    │   └── CannotAbductError              it cannot recover its noise
    ├── DataError (ValueError)             training or evaluation data is wrong, with row and column
    └── CheckpointError (OSError)          a saved model is missing, damaged or too new
        ├── ChecksumError                  a file is not the one its manifest describes
        └── FormatVersionError             the format is newer than this version reads

and one warning, ExtrapolationWarning (UserWarning): a value lies outside of what fitting saw. ``warn`` shows
every warning at the line of the user's that asked.

Each class also derives from the builtin users catch by habit. A message says what is wrong,
where, what was expected, what was found, and how to mend it.
"""

import re
import warnings
from collections.abc import Collection, Generator, Iterable
from contextlib import contextmanager
from contextvars import ContextVar
from difflib import SequenceMatcher, get_close_matches
from inspect import currentframe
from types import FrameType
from typing import Any, Protocol, SupportsInt
from unicodedata import normalize

__all__ = [
    "CannotAbductError",
    "CausalgenError",
    "CheckpointError",
    "ChecksumError",
    "CycleError",
    "DataError",
    "DomainError",
    "EvidenceError",
    "ExtrapolationWarning",
    "FormatVersionError",
    "GraphError",
    "InterventionError",
    "MechanismError",
    "NotFittedError",
    "PartialEvidenceError",
    "ShapeError",
    "SpecError",
    "UnknownNameError",
    "did_you_mean",
    "near_misses",
    "numbered_rows",
    "untold",
    "users_line",
    "warn",
]


_MOST, _LONGEST = 50, 100
"""Known names that a message lists, characters of an unknown one that it shows."""

_OURS, _DECORATORS = ("causalgen", "graphs", "mechanisms"), ("contextlib", "torch")
"""These packages, and whose wrappers may stand between them and their caller."""


class ExtrapolationWarning(UserWarning):
    """A value, of an intervention or in evidence, lies outside of what fitting saw."""


class CausalgenError(Exception):
    """Base of every error raised on purpose."""

    rows_told = False  # whether a row that it names has its own number: see ``numbered_rows``

    def __str__(self) -> str:
        # KeyError prints the repr of its argument; a message should read as prose.
        return str(self.args[0]) if len(self.args) == 1 else super().__str__()


class GraphError(CausalgenError, ValueError):
    """The causal graph is malformed."""


class CycleError(GraphError):
    """The causal graph has a directed cycle."""


class UnknownNameError(CausalgenError, KeyError):
    """A name that nobody declared; the message lists the known ones and the nearest match."""

    @classmethod
    def of(cls, what: str, name: object, known: Iterable[str], *, where: str = "") -> "UnknownNameError":
        """Build the error for an unknown ``name`` among ``known`` names.

        >>> print(UnknownNameError.of("node", "digt", ["digit", "image"]))
        Unknown node 'digt'. Did you mean 'digit'? Known: digit, image.
        """
        names = sorted(known)
        asked = name if isinstance(name, str) else repr(name)
        shown = repr(name) if len(asked) <= _LONGEST else repr(asked[:_LONGEST]) + "..."
        place = f" in {where}" if where else ""
        rest = f", and {len(names) - _MOST:,} more" if len(names) > _MOST else ""
        listed = ", ".join(names[:_MOST]) or "none"
        return cls(f"Unknown {what} {shown}{place}.{did_you_mean(asked, names)} Known: {listed}{rest}.")

    @classmethod
    def check(cls, what: str, name: object, known: Collection[str], *, where: str = "") -> None:
        """Raise the error of ``of`` where ``name`` is no string or not among the ``known`` ones."""
        if not isinstance(name, str) or name not in known:
            raise cls.of(what, name, known, where=where)


class SpecError(CausalgenError, ValueError):
    """An SCM file does not say a valid model; the message starts with ``file:line:column``."""


class DomainError(CausalgenError, ValueError):
    """A value lies outside the domain of its variable."""


class ShapeError(DomainError):
    """A value has the wrong shape for its variable."""


class EvidenceError(CausalgenError, ValueError):
    """The evidence does not fit the model."""


class PartialEvidenceError(EvidenceError):
    """The evidence lacks a node whose value the query needs."""


class InterventionError(CausalgenError, ValueError):
    """An intervention does not fit the model."""


class MechanismError(CausalgenError, RuntimeError):
    """A mechanism cannot do what was asked of it."""


class NotFittedError(MechanismError):
    """A mechanism was used before it was fitted."""


class CannotAbductError(MechanismError):
    """A mechanism cannot recover its noise from a value and its parents."""


class DataError(CausalgenError, ValueError):
    """Training or evaluation data is wrong; the message names the row and the column."""


class CheckpointError(CausalgenError, OSError):
    """A saved model is missing, damaged or unreadable."""


class ChecksumError(CheckpointError):
    """A file's sha256 is not the one in its manifest."""


class FormatVersionError(CheckpointError):
    """A saved model was written by a newer version of the format."""


def did_you_mean(name: object, known: Iterable[object]) -> str:
    """The known name that is nearest to one nobody declared, as a question to append to a message, or "".

    The only one that begins with it, else the one most like it. Case does not count, and what is longer than
    any name is like none.

    >>> did_you_mean("DIGIT", ["digit", "image"])
    " Did you mean 'digit'?"
    """
    if len(str(name)) > _LONGEST:
        return ""
    names: dict[str, str] = {}
    for each in map(str, known):
        names.setdefault(each.casefold(), each)
    folded = str(name).casefold()
    begun = [each for each in names if len(folded) > 2 and each.startswith(folded)]
    near = begun if len(begun) == 1 else get_close_matches(folded, names, n=1)
    if not near:
        return ""
    found, looks = names[near[0]], ""
    if found != str(name) and normalize("NFC", found) == normalize("NFC", str(name)):  # accents apart
        looks = f" They look alike: {str(name)!a} and {found!a}."
    return f" Did you mean {found!r}?{looks}"


def near_misses(given: Iterable[object], known: Iterable[str]) -> list[tuple[str, str]]:
    """Given names that look like misspellings of known names not given, each once, with that known name.

    Two names are near where they differ only in case, spaces and punctuation, or in the order of their
    letters, or are alike in four fifths of them. Names that differ in their numbers alone, such as "visit_1"
    and "visit_2", are different names.

    >>> near_misses(["Age", "dose", "ward"], ["age", "dose", "response"])
    [('Age', 'age')]
    """
    names, declared = [str(name) for name in given], list(known)
    absent = {name: _bare(name) for name in declared if name not in names}
    pairs: list[tuple[str, str]] = []
    for name in names:
        bare = _bare(name)
        alike = [other for other, each in absent.items() if _alike(bare, each)]
        if alike and name not in declared:
            pairs.append((name, max(alike, key=lambda other: absent[other] == bare)))
    return pairs


def _alike(one: str, other: str) -> bool:
    if one == other or not one or not other:
        return one == other and bool(one)
    if re.sub(r"\d+", "0", one) == re.sub(r"\d+", "0", other):
        return False
    return sorted(one) == sorted(other) or SequenceMatcher(None, one, other).ratio() >= 0.8


def _bare(name: str) -> str:
    """Its letters and digits, in one case."""
    return re.sub(r"[\W_]+", "", name).casefold()


class _Numbers(Protocol):
    """A sequence, or an array, of whole numbers."""

    def __len__(self) -> int: ...
    def __getitem__(self, index: int, /) -> SupportsInt: ...


_NUMBERS: ContextVar[tuple[_Numbers, ...]] = ContextVar("_NUMBERS", default=())
"""What the rows of the work at hand are numbered where they come from, the innermost first."""


_QUOTED_OR_ROW = re.compile(r"(?<!\w)'[^']*'(?!\w)|\b([Rr]ow) (\d+)\b")


@contextmanager
def numbered_rows(numbers: _Numbers | None) -> Generator[None]:
    """A context whose errors and warnings name a row by its number where the rows come from.

    Of several samples, which stand sample by sample, numbers are of each row of one. Contexts may be nested;
    in one of None other rows are read, as those of training, whose numbers stay what they are.

    >>> with numbered_rows([40, 70]):
    ...     raise EvidenceError("Row 1: no noise gives it.")
    Traceback (most recent call last):
    graphs.errors.EvidenceError: Row 70: no noise gives it.
    """
    token = _NUMBERS.set(() if numbers is None else (numbers, *_NUMBERS.get()))
    try:
        yield
    except CausalgenError as error:
        if numbers is None:
            error.rows_told = True
        if numbers is None or error.rows_told or (told := _renumbered(str(error), numbers)) == str(error):
            raise
        raise type(error)(told) from error
    finally:
        _NUMBERS.reset(token)


def _renumbered(message: str, numbers: _Numbers) -> str:
    """A message with the first row that it names, which no quoted name says, as one of these."""
    for found in _QUOTED_OR_ROW.finditer(message) if len(numbers) else ():
        if found[2]:
            number = int(numbers[int(found[2]) % len(numbers)])
            return f"{message[: found.start()]}{found[1]} {number}{message[found.end() :]}"
    return message


_UNTOLD: ContextVar[bool] = ContextVar("_UNTOLD", default=False)


@contextmanager
def untold() -> Generator[None]:
    """A context whose warnings nobody is told, in this thread: of a question that is asked once more."""
    token = _UNTOLD.set(True)
    try:
        yield
    finally:
        _UNTOLD.reset(token)


def warn(message: str, category: type[Warning] = UserWarning) -> None:
    """``warnings.warn``, shown at the line outside of these packages that called them.

    No ``stacklevel`` tells that line: how deep below it a warning arises depends on the question, and torch
    or Pyro may have called back in between. Rows are named as ``numbered_rows`` says; nothing is said where
    all is ``untold``.
    """
    if _UNTOLD.get():
        return
    for numbers in _NUMBERS.get():
        message = _renumbered(message, numbers)
    warnings.warn_explicit(message, category, **users_line())


def users_line() -> dict[str, Any]:
    """The line that called these packages, as ``warnings.warn_explicit`` takes it."""
    found = frame = currentframe()
    while frame is not None:
        if _top(frame) in _OURS:
            found = frame.f_back or frame
        frame = frame.f_back
    while found is not None and _top(found) in _DECORATORS and found.f_back is not None:
        found = found.f_back
    assert found is not None  # CPython has frames
    return {
        "filename": found.f_code.co_filename,
        "lineno": found.f_lineno,
        "module": found.f_globals.get("__name__", "<unknown>"),
        "registry": found.f_globals.setdefault("__warningregistry__", {}),
    }


def _top(frame: FrameType) -> str:
    """The package that a frame is of."""
    return str(frame.f_globals.get("__name__")).partition(".")[0]
