"""Parallel work on many clips, with progress."""

import multiprocessing
import os
import signal
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

from tqdm.auto import tqdm

CLIPS_PER_TASK = 16

Each = Callable[[Callable, Sequence[Sequence], str], Iterator[tuple[int, Any]]]


def available_cores() -> int:
    """Number of cores for this process: those that a scheduler gives, shared with torchrun's processes on this node."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(cores // int(os.environ.get("LOCAL_WORLD_SIZE", "1")), 1)


def in_chunks(items: Sequence, length: int = CLIPS_PER_TASK) -> list[Sequence]:
    """Consecutive parts of ``items``, all of ``length`` except the last."""
    return [items[start : start + length] for start in range(0, len(items), length)]


@contextmanager
def side_by_side(workers: int | None = None, progress: bool = True) -> Iterator[Each]:
    """Yield ``each(function, chunks, title)``, which yields ``(index of the chunk, function(chunk))`` in order.

    Empty chunks are skipped; the progress bar counts the items of the others. The work is done by threads: decoders
    release Python's lock, and threads start at once, whereas processes would first import everything again.

    Args:
        workers: threads; one per core by default.
        progress: show the progress bar.
    """
    pool = ThreadPoolExecutor(max(1, available_cores() if workers is None else workers))

    def each(function: Callable, chunks: Sequence[Sequence], title: str) -> Iterator[tuple[int, Any]]:
        clips = sum(map(len, chunks))
        with tqdm(total=clips, desc=title, unit="clip", mininterval=1, disable=not (progress and clips)) as bar:
            for number, result in _results(pool, function, chunks):
                yield number, result
                bar.update(len(chunks[number]))

    try:
        yield each
    finally:
        pool.shutdown(cancel_futures=True)


def _results(pool: Executor, function: Callable, chunks: Sequence[Sequence]) -> Iterator[tuple[int, Any]]:
    futures = {pool.submit(function, chunk): number for number, chunk in enumerate(chunks) if chunk}
    # In order, so that work completed before a failure is yielded, whichever thread fails.
    for future, number in futures.items():
        yield number, future.result()


def in_one_process(pool: Executor, function: Callable, *arguments: Any) -> Any:
    """Run ``function(*arguments)`` in a process of an idle pool, which is terminated by an interruption.

    Only this process receives Ctrl-C: the other one would print its own traceback.
    """
    with _interrupts_held_back():
        future = pool.submit(function, *arguments)
    try:
        return future.result()
    except KeyboardInterrupt:
        for process in multiprocessing.active_children():
            process.terminate()
        raise


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
