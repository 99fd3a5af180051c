"""One-line errors for exhausted resources of the machine: which limit was reached, and what to do."""

import errno
import re
from collections.abc import Iterator
from contextlib import contextmanager

_FEWER = "work with fewer processes (workers) or smaller batches (batch_size), or ask for more memory"
# Patterns in an error's text and their meaning, the more specific first.
_MEANINGS = (
    (
        r"bus error|out of shared memory|shared memory|/torch_\d+|shm_open",
        "/dev/shm, through which loader processes pass clips, is too small: load in this process (workers 0), or make "
        "it larger (docker run --shm-size)",
    ),
    (
        r"DataLoader worker .*(killed by signal|exited unexpectedly)",
        f"a loader process was killed, as the system does where memory runs out: {_FEWER}",
    ),
    (
        r"process in the process pool was terminated",
        f"a worker process was killed, as the system does where memory runs out: {_FEWER}",
    ),
    (
        r"out of memory|can.t allocate memory|not enough memory|cannot allocate memory|bad_?alloc",
        f"memory does not suffice: {_FEWER}",
    ),
    (
        r"can.t start new thread|resource temporarily unavailable",
        "the limit on processes and threads (ulimit -u) is reached: work with fewer processes (workers), or raise it",
    ),
    (
        r"too many open files",
        "the limit on open files (ulimit -n) is reached: work with fewer processes (workers), or raise it",
    ),
)
_FROM_LOADER = "Original Traceback"


class LimitError(OSError):
    """The machine ran out of memory, processes or files; the message is one line that says what to do."""


@contextmanager
def limits_named() -> Iterator[None]:
    """Turn errors that mean a limit of the machine into a `LimitError`, and those of a loader process into one line.

    Raises:
        LimitError: for errors about memory, shared memory, processes or open files; other errors are passed on.
    """
    try:
        yield
    except MemoryError as error:
        raise LimitError(f"memory does not suffice: {_FEWER}") from error
    except (OSError, RuntimeError, ValueError) as error:
        said = _meaning(error)
        if said is not None:
            raise LimitError(said) from error
        if _FROM_LOADER in str(error):
            # A loader process passes its whole traceback on as the message.
            raise type(error)(str(error).strip().splitlines()[-1].partition(": ")[2]) from error
        raise


def _meaning(error: Exception) -> str | None:
    text = str(error)
    if isinstance(error, ValueError) or (isinstance(error, OSError) and error.errno == errno.ENOENT):
        return None
    for pattern, meaning in _MEANINGS:
        if re.search(pattern, text, re.IGNORECASE | re.DOTALL):
            worker = re.search(r"DataLoader worker \(pid(?:\(s\))? [\d, ]+\)[^.]*", text)
            return meaning + (f" ({worker[0].strip()})" if worker else "")
    return None
