"""Parallel work on many clips, with progress."""

import multiprocessing
import os
import signal
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import contextmanager
from math import inf
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
    # Spawned, because a fork would start with this process's memory.
    with ProcessPoolExecutor(max_workers=1, mp_context=multiprocessing.get_context("spawn")) as pool:
        with interrupts_held_back():
            future = pool.submit(function, *arguments)
        try:
            return future.result()
        except KeyboardInterrupt:
            for process in multiprocessing.active_children():
                process.terminate()
            raise


@contextmanager
def interrupts_held_back() -> Iterator[None]:
    """Processes started in the block never receive Ctrl-C; this one receives it afterwards."""
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
