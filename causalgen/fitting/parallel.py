"""Parallel processes: tasks by number, answered in order, the same whoever answers them, warnings included.

    workers = 1      this process
    workers = n      n processes that are forked from this one, of one thread each
    workers = pool   a pool that is given, whose workers import causalgen and whose tasks may be closures, as
                     Ray's ``ray.util.multiprocessing.Pool``, but not Python's own

Last bits depend on how many threads a worker has, as everywhere.
"""

from __future__ import annotations

import multiprocessing
import multiprocessing.pool
import warnings
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from functools import partial
from typing import Any, Protocol, TypeVar, runtime_checkable

import torch

from graphs.errors import EvidenceError, warn

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
    """Refuse what cannot share work."""
    if isinstance(workers, multiprocessing.pool.Pool):
        raise EvidenceError(
            "Pools of Python's multiprocessing do not take what is asked, which is a closure. Give "
            "workers=2, say, which forks, or another pool, such as ray.util.multiprocessing.Pool."
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
    """The answers of tasks 0 to count - 1, in that order, by ``workers``; see the head of this module.

    A pool must be able to pickle ``task``. ``done`` is told the number of each task that is done, here.
    """
    found: dict[int, T] = {}
    for number, answer, told in _answers(task, count, workers):
        for text in told:
            warn(text)
        found[number] = answer
        done(number)
    return [found[number] for number in range(count)]


_Done = tuple[int, T, list[str]]
"""A task's number, its answer, and what it warned of in another process."""


def _answers(task: Callable[[int], T], count: int, workers: Workers) -> Iterator[_Done[T]]:
    if isinstance(workers, Pool):
        yield from workers.imap_unordered(partial(_answered, task), range(count))
    elif workers == 1:
        for number in range(count):
            yield number, task(number), []
    else:  # forked, so that functions in a question need not be pickled
        context = multiprocessing.get_context("fork")
        pool = ProcessPoolExecutor(workers, context, initializer=_install, initargs=(task,))
        try:
            for each in as_completed([pool.submit(_installed, number) for number in range(count)]):
                yield each.result()
        finally:  # a task that failed does not wait for all others
            pool.shutdown(cancel_futures=True)


def _answered(task: Callable[[int], T], number: int) -> _Done[T]:
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        answer = task(number)
    return number, answer, [str(each.message) for each in told if issubclass(each.category, UserWarning)]


_task: Callable[[int], Any] | None = None
"""In a forked worker: what it answers with."""


def _install(task: Callable[[int], Any]) -> None:
    global _task
    torch.set_num_threads(1)
    _task = task


def _installed(number: int) -> _Done[Any]:
    assert _task is not None
    return _answered(_task, number)
