"""Parallel processes: tasks by number, answered in order, the same whoever answers them.

    workers = 1      this process
    workers = n      n processes that are forked from this one, of one thread each
    workers = pool   a pool that is given, whose workers import causalgen and whose tasks may be closures, as
                     Ray's ``ray.util.multiprocessing.Pool``, but not Python's own

Last bits depend on how many threads a worker has, as everywhere.
"""

from __future__ import annotations

import multiprocessing
import multiprocessing.pool
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from functools import partial
from typing import Any, Protocol, TypeVar, runtime_checkable

import torch

from graphs.errors import EvidenceError

__all__ = ["Pool", "Workers", "check_workers", "in_parallel"]

T = TypeVar("T")


@runtime_checkable
class Pool(Protocol):
    """What is asked of a pool of processes."""

    def imap_unordered(self, func: Callable[[Any], Any], iterable: Iterable[Any], /) -> Iterator[Any]:
        """The value of a function for each of some arguments, as they come."""
        ...


Workers = int | Pool


def check_workers(workers: Workers) -> None:
    """Refuse what cannot share work.

    Raises:
        EvidenceError: fewer workers than one, no pool that can be used, or a system that cannot fork.
    """
    if isinstance(workers, multiprocessing.pool.Pool) and not isinstance(
        workers, multiprocessing.pool.ThreadPool
    ):
        raise EvidenceError(
            "A pool of Python's multiprocessing cannot pickle what is asked. Give workers=2, say, which "
            "forks, or a pool that takes closures, such as ray.util.multiprocessing.Pool."
        )
    if isinstance(workers, Pool):
        return
    if isinstance(workers, bool) or not isinstance(workers, int) or workers < 1:
        raise EvidenceError(f"workers is a number, at least 1, or a pool of processes, got {workers!r}.")
    if workers > 1 and "fork" not in multiprocessing.get_all_start_methods():
        raise EvidenceError("This system cannot fork processes: ask with workers=1, or give a pool.")


def in_parallel(
    task: Callable[[int], T], count: int, workers: Workers, *, done: Callable[[int], None]
) -> list[T]:
    """The answers of tasks 0 to count - 1, in that order.

    Args:
        task: answers the task of a number.
        count: how many tasks.
        workers: who answers; see the head of this module. A pool must be able to pickle ``task``.
        done: told the number of each task that is done, here.
    """
    found: dict[int, T] = {}
    for number, answer in _answers(task, count, workers):
        found[number] = answer
        done(number)
    return [found[number] for number in range(count)]


def _answers(task: Callable[[int], T], count: int, workers: Workers) -> Iterator[tuple[int, T]]:
    if isinstance(workers, Pool):
        yield from workers.imap_unordered(partial(_numbered, task), range(count))
    elif workers == 1:
        for number in range(count):
            yield number, task(number)
    else:  # forked, so that functions in a question need not be pickled
        context = multiprocessing.get_context("fork")
        with ProcessPoolExecutor(workers, context, initializer=_install, initargs=(task,)) as pool:
            for each in as_completed([pool.submit(_installed, number) for number in range(count)]):
                yield each.result()


def _numbered(task: Callable[[int], T], number: int) -> tuple[int, T]:
    return number, task(number)


_task: Callable[[int], Any] | None = None
"""In a forked worker: what it answers with."""


def _install(task: Callable[[int], Any]) -> None:
    global _task
    torch.set_num_threads(1)
    _task = task


def _installed(number: int) -> tuple[int, Any]:
    assert _task is not None
    return number, _task(number)
