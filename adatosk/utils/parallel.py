"""Parallel work on many clips, with progress."""

import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from math import inf
from multiprocessing.context import SpawnContext
from multiprocessing.process import BaseProcess
from typing import Any, TypeVar

from tqdm.auto import tqdm

CLIPS_PER_TASK = 16
SHOWN_AFTER = 2.0  # seconds: what is done by then needs no progress bar

T = TypeVar("T")
Each = Callable[..., Iterator[tuple[int, Any]]]


def available_cores() -> int:
    """Number of cores for this process: those that a scheduler gives, shared with torchrun's processes on this node."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(cores // int(os.environ.get("LOCAL_WORLD_SIZE", "1")), 1)


def in_chunks(items: Sequence, length: int = CLIPS_PER_TASK) -> list[Sequence]:
    """Consecutive parts of ``items``, all of ``length`` except the last."""
    return [items[start : start + length] for start in range(0, len(items), length)]


@contextmanager
def side_by_side(workers: int | None = None, progress: bool = True) -> Iterator[Each]:
    """Yield ``each(function, chunks, title, ahead)``, which yields ``(index of the chunk, function(chunk))`` in order.

    Empty chunks are skipped; the progress bar counts the items of the others. The work is done by threads: decoders
    release Python's lock, and threads start at once, whereas processes would first import everything again. They are at
    most ``ahead`` chunks in advance of the caller; any number by default.

    Args:
        workers: threads; one per core by default.
        progress: show the progress bar of work that takes more than ``SHOWN_AFTER`` seconds.
    """
    pool = ThreadPoolExecutor(max(1, available_cores() if workers is None else workers))

    def each(
        function: Callable, chunks: Sequence[Sequence], title: str = "", ahead: float = inf
    ) -> Iterator[tuple[int, Any]]:
        clips = sum(map(len, chunks))
        quiet = not (progress and clips)
        with tqdm(total=clips, desc=title, unit="clip", mininterval=1, delay=SHOWN_AFTER, disable=quiet) as bar:
            # Empty chunks are skipped, and the others keep their numbers.
            numbered = ((number, chunk) for number, chunk in enumerate(chunks) if chunk)
            for (number, chunk), result in in_order(pool, lambda one: function(one[1]), numbered, ahead):
                yield number, result
                bar.update(len(chunk))

    try:
        yield each
    finally:
        pool.shutdown(cancel_futures=True)


def in_order(
    pool: Executor, function: Callable[[T], Any], items: Iterable[T], ahead: float = inf
) -> Iterator[tuple[T, Any]]:
    """Yield each item with ``function(item)``, which ``pool`` computes, at most ``ahead`` items before the caller."""
    # In order, so that work completed before a failure is yielded, whichever thread fails.
    waiting: deque[tuple[T, Future]] = deque()
    for item in items:
        waiting.append((item, pool.submit(function, item)))
        if len(waiting) > ahead:
            done, future = waiting.popleft()
            yield done, future.result()
    for item, future in waiting:
        yield item, future.result()


@contextmanager
def in_advance(items: Iterator[Any], ahead: int = 4) -> Iterator[Iterator[Any]]:
    """Yield an iterator over ``items``, which another thread computes up to ``ahead`` of them in advance."""
    pool, end = ThreadPoolExecutor(1), object()

    def each() -> Iterator[Any]:
        waiting = deque(pool.submit(next, items, end) for _ in range(ahead + 1))
        while (item := waiting.popleft().result()) is not end:
            waiting.append(pool.submit(next, items, end))
            yield item

    try:
        yield each()
    finally:
        pool.shutdown(cancel_futures=True)


def in_one_process(function: Callable, *arguments: Any) -> Any:
    """Run ``function(*arguments)`` in a process of its own, which is terminated by an interruption.

    Only this process receives Ctrl-C: the other one would print its own traceback.
    """
    with WorkerPool(1, patient=False) as pool:
        return pool.submit(function, *arguments).result()


class WorkerPool(ProcessPoolExecutor):
    """Spawned processes: they never receive Ctrl-C, and end with this one, which may be killed.

    Forking a process with running threads (PyTorch's, OpenCV's) may deadlock, and would copy its memory.

    Args:
        workers: their number; one per core by default.
        prepare: called in each of them before it works.
        patient: whether an interruption waits for the tasks that were begun.

    Raises:
        RuntimeError: on leaving the block, if a process ended on its own; one that was killed is `BrokenProcessPool`.
    """

    def __init__(self, workers: int | None = None, prepare: Callable[[], None] | None = None, patient: bool = True):
        self._context, self._patient = _Context(), patient
        super().__init__(workers, self._context, _start_worker, (prepare,))

    def submit(self, function: Callable, /, *arguments: Any, **named: Any) -> Future:
        """Run ``function(*arguments)`` in one of the processes, which may start now."""
        with _interrupts_held_back():
            return super().submit(function, *arguments, **named)

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: Any) -> None:
        if kind is KeyboardInterrupt and not self._patient:
            for process in self._context.started:
                process.terminate()
        self.shutdown(cancel_futures=error is not None)
        if isinstance(error, BrokenProcessPool):
            status = max(process.exitcode or 0 for process in self._context.started)
            if status > 0:
                raise RuntimeError(
                    f"a worker process ended with exit status {status}, for the reason that it states itself; a script "
                    "that starts processes is imported by each of them: put what it does under if __name__ == "
                    "'__main__':"
                ) from error


class _Context(SpawnContext):
    """How processes start; it keeps them, because how they ended tells why a pool broke."""

    def __init__(self) -> None:
        super().__init__()
        self.started: list[BaseProcess] = []

    def Process(self, *arguments: Any, **named: Any) -> BaseProcess:
        process = super().Process(*arguments, **named)
        self.started.append(process)
        return process


def _start_worker(prepare: Callable[[], None] | None) -> None:
    """Make a worker exit with its parent, which may be killed without cleaning up."""

    def end_with(parent: BaseProcess | None) -> None:
        if parent is not None:
            parent.join()
        os._exit(1)

    threading.Thread(target=end_with, args=(multiprocessing.parent_process(),), daemon=True).start()
    if prepare is not None:
        prepare()


@contextmanager
def _interrupts_held_back() -> Iterator[None]:
    """Processes started in the block never receive Ctrl-C; this one receives it afterwards."""
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
