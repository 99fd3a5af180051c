"""Limits of the machine: which one an error means, and what to do about it, in one line.

Only the standard library is imported, because commands need this while torch is loading.
"""

import errno
import re
from collections.abc import Iterator
from contextlib import contextmanager

# What to do about errors of the system, by their number.
ADVICE: dict[int | None, str] = {
    errno.ENOENT: "check the name",
    errno.EACCES: "change its permissions, or name another place",
    errno.EPERM: "change its permissions, or name another place",
    errno.EROFS: "name a place on another disk",
    errno.EISDIR: "name a file",
    errno.EEXIST: "a file stands where a folder is needed; name another place",
    errno.ENOTDIR: "name another place",
    errno.ENOSPC: "make room on that disk and run the same command again",
    errno.EDQUOT: "make room within your quota and run the same command again",
    errno.EFBIG: "raise the limit on the size of a file (ulimit -f) and run the same command again",
    errno.EMFILE: "raise the limit on open files (ulimit -n), or use fewer workers",
    errno.ENOMEM: "use fewer workers or smaller batches, or ask for more memory",
}
_FEWER = "use fewer processes (workers) or smaller batches (batch_size), or ask for more memory"
_MEMORY = f"memory does not suffice: {_FEWER}"
_KILLED = f"was killed, as the system does when memory runs out: {_FEWER}"
# Patterns in an error's text and their meaning, the more specific first.
_MEANINGS = (
    (
        r"bus error|shared memory|/torch_\d+|shm_open",
        "/dev/shm, through which loader processes pass clips, is too small: load in this process (workers 0), or make "
        "it larger (docker run --shm-size)",
    ),
    (r"DataLoader worker .*(killed by signal|exited unexpectedly)", f"a loader process {_KILLED}"),
    (r"connection (reset by peer|refused)", f"a loader process {_KILLED}"),  # it was handing over a batch
    (r"process in the process pool was terminated", f"a worker process {_KILLED}"),
    (r"out of memory|can.t allocate memory|not enough memory|cannot allocate memory|bad_?alloc", _MEMORY),
    (r"could not (create|execute) a (primitive|memory)", _MEMORY),  # oneDNN's, which allocates its code, too
    (
        r"can.t start new thread|resource temporarily unavailable",
        "the limit on processes and threads (ulimit -u) is reached: use fewer processes (workers), or raise it",
    ),
    (
        r"too many open files",
        "the limit on open files (ulimit -n) is reached: use fewer processes (workers), or raise it",
    ),
    (
        r"PytorchStreamWriter|inline_container|iostream error|unexpected pos",
        "the file could not be written: make room on its disk and run the same command again",
    ),
)


class LimitError(OSError):
    """The machine ran out of memory, processes or files; the message is one line that says what to do."""


@contextmanager
def limits_named() -> Iterator[None]:
    """Turn errors that mean a limit of the machine into a `LimitError`, and those of a loader process into one line.

    Raises:
        LimitError: for errors about memory, shared memory, processes or files; other errors are passed on.
    """
    try:
        yield
    except (MemoryError, OSError, RuntimeError, ValueError) as error:
        said, cause = limit_of(error), of_loader(error)
        if said is not None:
            raise LimitError(said) from error
        if cause is not None:
            raise type(error)(cause) from error
        raise


def limit_of(error: Exception) -> str | None:
    """Which limit of the machine an error means, what to do, and its own text; ``None`` if it means none."""
    text = of_loader(error) or " ".join(str(error).split())
    if isinstance(error, MemoryError):
        meaning = _MEMORY
    elif isinstance(error, FileNotFoundError) or not isinstance(error, OSError | RuntimeError):
        meaning = None
    else:
        found = (said for pattern, said in _MEANINGS if re.search(pattern, str(error), re.IGNORECASE | re.DOTALL))
        meaning = next(found, None)
    return meaning and meaning + (f" ({text[:200]})" if text else "")


def of_loader(error: Exception) -> str | None:
    """The message of an error in a loader process, which passes its whole traceback on; ``None`` for other errors."""
    if "Original Traceback" not in str(error):
        return None
    return re.sub(r"^[\w.]+: ", "", str(error).strip().splitlines()[-1].strip())
