"""The parts of a table on Ray Data (Moritz et al. 2018; extra ``ray``): one model an actor, in any order.

    ray.data.range(parts) -> an actor pool that answers, writes and reports -> this process, which counts

What travels through Ray is the number of a part: actors read their rows from the table and write their files
themselves, so that both must lie where every machine of the cluster sees them. Ray Data holds parts back
while the actors are busy, starts an actor that died again, and repeats its parts.

The refits of an effect and the counterfactuals of an evaluation go to a pool of Ray's own, which pickles the
question and gives back what is answered.

Without a cluster to join (``RAY_ADDRESS``, or Ray started before) one is started on this machine, and stopped
with all that it wrote at the end. Ray's usage statistics are off.
"""

from __future__ import annotations

import logging
import os
import shutil
import signal
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from causalgen.cli.common import use_threads
from causalgen.fitting.parallel import Workers
from graphs.errors import CausalgenError, DataError

__all__ = ["answer_on_ray", "require_ray", "shared_workers"]

_STORE = 100 << 20
"""Bytes of the object store of a cluster that is started here: next to nothing goes through it."""

_TRIES = 25
"""To remove the folder of a cluster that was stopped."""


def require_ray(engine: str) -> None:
    """Refuse the engine "ray" where Ray is not installed."""
    if engine == "ray":
        try:
            import ray.data  # noqa: F401
        except ImportError as error:
            raise CausalgenError(
                f"--engine ray needs Ray ({error}): in the checkout, pip install '.[ray]'."
            ) from error


@contextmanager
def shared_workers(engine: str, workers: int | None, *, threads: int | None) -> Iterator[Workers]:
    """Who shares the work of a command, for ``causalgen.fitting.parallel``: processes, or actors of Ray."""
    if engine == "processes":
        yield workers or 1
        return
    each = threads or 1
    with _cluster(workers, each) as ray:
        from ray.util.multiprocessing import Pool

        again = {"num_cpus": each, "max_restarts": -1, "max_task_retries": -1}
        pool = Pool(
            _size(ray, workers, each), initializer=use_threads, initargs=(each,), ray_remote_args=again
        )
        try:
            yield pool
        finally:
            pool.terminate()


def answer_on_ray(
    make: Callable[[], Callable[[int], object]],
    numbers: Sequence[int],
    *,
    workers: int | None,
    threads: int,
    gpu: bool,
) -> Iterator[int]:
    """Answer parts, at least one, by number, in whatever order; gives the number of each that is done.

    ``make`` makes what answers a part, and writes the answer; it is called once an actor. There are as many
    as the cluster has CPUs for where ``workers`` is None; each has so many ``threads``.
    """
    with _cluster(workers, threads) as ray:
        from ray.data import ActorPoolStrategy, DataContext

        context = DataContext.get_current()
        context.enable_progress_bars = context.print_on_execution_start = False
        found = ray.data.range(len(numbers), override_num_blocks=len(numbers)).map(
            _Actor,
            fn_constructor_args=(make, list(numbers)),
            compute=ActorPoolStrategy(size=min(_size(ray, workers, threads), len(numbers))),
            num_cpus=threads,
            num_gpus=1 if gpu else None,
        )
        try:
            for row in found.iter_rows():
                if row["error"]:
                    raise DataError(row["error"])
                yield int(row["part"])
        except ray.exceptions.RayError as error:
            lines = str(error).strip().splitlines() or [type(error).__name__]
            raise CausalgenError(f"Ray cannot answer the parts: {lines[-1]}") from error


class _Actor:
    """One model at work; errors of ours go back as text, to be told once and not tried again."""

    def __init__(self, make: Callable[[], Callable[[int], object]], numbers: Sequence[int]) -> None:
        self._numbers, self._error = numbers, ""
        try:
            self._answer = make()
        except (CausalgenError, OSError) as error:
            self._error = str(error)

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        """Answer the part of a row of ``ray.data.range``."""
        number = self._numbers[int(row["id"])]
        if not self._error:
            try:
                self._answer(number)
            except CausalgenError as error:
                return {"part": number, "error": str(error)}
        return {"part": number, "error": self._error}


def _size(ray: Any, workers: int | None, threads: int) -> int:
    """How many actors: as asked, or one for the CPUs of each."""
    return workers or max(1, int(ray.cluster_resources().get("CPU", 1)) // threads)


@contextmanager
def _cluster(workers: int | None, threads: int) -> Iterator[Any]:
    """Ray, connected: to what it is connected to already, to ``RAY_ADDRESS``, or to a cluster of its own."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    # Ray's core tells of inner matters on standard error; what fails, it raises as well.
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
    # As it will be by default: workers without a GPU keep the machine's setting, and Ray does not warn of it.
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    import ray
    import ray.data

    logging.getLogger("ray.data").setLevel(logging.ERROR)
    if ray.is_initialized():
        yield ray
        return
    quiet: Any = {"log_to_driver": False, "logging_level": logging.ERROR}
    with _short_folder() as folder:
        if not os.environ.get("RAY_ADDRESS"):
            cpus = max(os.cpu_count() or 1, (workers or 1) * threads)
            quiet |= {"num_cpus": cpus, "include_dashboard": False, "object_store_memory": _STORE}
            quiet |= {"_temp_dir": folder}
        try:
            with _own_signals():
                ray.init(**quiet)
            yield ray
        finally:
            ray.shutdown()


@contextmanager
def _own_signals() -> Iterator[None]:
    """SIGTERM means the same afterwards: Ray's own handler ends the process and leaves its files."""
    before = signal.getsignal(signal.SIGTERM)
    yield
    if before is not None and threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, before)


@contextmanager
def _short_folder() -> Iterator[str]:
    """A temporary folder of Ray's: by a short path, since it holds sockets, whose paths have 107 bytes."""
    folder = tempfile.mkdtemp(prefix="ray")
    try:
        yield folder
    finally:
        for _ in range(_TRIES):  # processes that end write their last lines
            shutil.rmtree(folder, ignore_errors=True)
            if not os.path.exists(folder):
                break
            time.sleep(0.2)
