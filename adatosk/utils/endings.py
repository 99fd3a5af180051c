"""How a command exits: its status, one line on stderr for errors that the user can fix, no traceback after Ctrl-C.

Only the standard library is imported, so that this applies from a command's first moment, while torch is loading.
"""

import os
import select
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import NoReturn

from adatosk.utils.limits import ADVICE, limit_of, of_loader

DONE, FAULT, USAGE, INTERRUPTED, UNREAD = 0, 1, 2, 130, 141
CONVENTION = (
    f"Exit status: {DONE} done; {FAULT} the input or the machine is at fault, with one line `error: …` that names the "
    f"file and says what to do; {USAGE} wrong usage; {INTERRUPTED} interrupted (Ctrl-C), with one line that says what "
    f"is kept; {UNREAD} whatever read the output is gone (`| head`)."
)

# Errors that a user can fix. So are safetensors' and OpenCV's own, and torch's errors about the machine.
_FAULTS = (ValueError, OSError, FloatingPointError, ImportError)
_LIBRARIES = ("safetensors", "cv2")
# Seconds after which an interruption should have taken effect.
_PATIENCE = 0.3

Kept = str | Callable[[], str]


class _Interrupted(SystemExit):
    """Raised after the line about the interruption was printed."""


class _Keys:
    """Whether Ctrl-C was pressed; one per process, like the signal."""

    pressed = False


@contextmanager
def ending(kept: Kept = "nothing was begun") -> Iterator[None]:
    """End the process according to the :data:`CONVENTION` unless the block completes.

    Args:
        kept: what remains after an interruption and how to resume: the rest of the line ``interrupted: …``.

    Raises:
        SystemExit: in place of an interruption, or of an error that the user can fix. Other errors are passed on, with
            their tracebacks.
    """
    try:
        yield
        sys.stdout.flush()
    except _Interrupted:
        raise
    except SystemExit as ended:
        _flush()
        if ended.code == INTERRUPTED:  # typer's exit when interrupted
            _interrupted(kept)
        raise
    except KeyboardInterrupt:
        _interrupted(kept)
    except Exception as error:
        if _Keys.pressed:  # some libraries turn an interruption into their own error
            _interrupted(kept)
        if isinstance(error, BrokenPipeError) and _nobody_reads():
            _flush()
            raise SystemExit(UNREAD) from None
        line = line_of(error)
        if line is None:
            raise
        _flush()
        print(f"error: {line}", file=sys.stderr)
        raise SystemExit(FAULT) from None


def _interrupted(kept: Kept) -> NoReturn:
    _ask_again(False)
    _flush()
    print(f"interrupted: {kept if isinstance(kept, str) else kept()}", file=sys.stderr)
    raise _Interrupted(INTERRUPTED) from None


def line_of(error: Exception) -> str | None:
    """An error that the user can fix, as one line; ``None`` for a bug."""
    cause = of_loader(error)
    text = cause or " ".join(str(error).split())
    if isinstance(error, RuntimeError | MemoryError):
        return limit_of(error) or cause
    if not isinstance(error, _FAULTS) and type(error).__module__.partition(".")[0] not in _LIBRARIES:
        return None
    if isinstance(error, OSError) and error.strerror:
        return _of_the_system(error)
    if isinstance(error, OSError) and hasattr(error, "lock_file"):
        return f"{error.lock_file}: another process holds this lock: wait until it is done, then run this again"
    if isinstance(error, ModuleNotFoundError) and text.startswith("No module named"):
        return f"{text}: install it, or everything that adatosk needs by make setup"
    return text or type(error).__name__


def _of_the_system(error: OSError) -> str:
    """What the system refused, for which file, and what to do unless the error's own text says so."""
    reason = " ".join((error.strerror or "").split())
    where = f"{error.filename}: " if error.filename is not None else ""
    advice = ADVICE.get(error.errno, "")
    return f"{where}{reason}{f': {advice}' if advice and ':' not in reason else ''}"


def quiet_interrupts() -> None:
    """Make the first Ctrl-C unwind this process and the second one end it at once; for commands only.

    A forked child does not react: its parent ends it. If interruptions are already ignored, as under ``nohup``, that is
    left unchanged.
    """
    if signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        return
    own = os.getpid()

    def interrupt(number: int, frame: FrameType | None) -> None:
        if os.getpid() != own:
            return
        if _Keys.pressed:
            os._exit(INTERRUPTED)
        _Keys.pressed = True
        _ask_again(True)
        raise KeyboardInterrupt

    def unraisable(found: "sys.UnraisableHookArgs") -> None:
        interrupted = _Keys.pressed and issubclass(found.exc_type, KeyboardInterrupt)
        # torch raises it wherever this process is when a loader process dies; the command fails on the next batch.
        lost = str(found.exc_value).startswith("DataLoader worker (pid")
        if not interrupted and not lost:
            sys.__unraisablehook__(found)

    signal.signal(signal.SIGINT, interrupt)
    if hasattr(signal, "SIGALRM"):
        signal.signal(signal.SIGALRM, _unwind_still)
    sys.unraisablehook = unraisable


def nothing_left_to_unwind() -> None:
    """From here on, Ctrl-C ends the process at once and silently."""
    _Keys.pressed = True
    _ask_again(False)


def _ask_again(wanted: bool) -> None:
    if hasattr(signal, "SIGALRM") and signal.getsignal(signal.SIGALRM) is _unwind_still:
        signal.setitimer(signal.ITIMER_REAL, _PATIENCE if wanted else 0)


def _unwind_still(number: int, frame: FrameType | None) -> None:
    """Raise an interruption again that was swallowed, for example by a destructor or by importing C code."""
    _ask_again(True)
    error = sys.exc_info()[1]
    while error is not None:
        if isinstance(error, KeyboardInterrupt):
            return  # it is being handled: some clean-up is running
        error = error.__context__
    raise KeyboardInterrupt


def _nobody_reads() -> bool:
    """Whether the broken pipe is the output, and not a pipe to another process."""
    try:
        poll = select.poll()
        poll.register(sys.stdout.fileno(), 0)
        return any(event & select.POLLERR for _, event in poll.poll(0))
    except (AttributeError, OSError, ValueError):  # no poll on this system, or no file behind the output
        return True


def _flush() -> None:
    """Flush the output; if that fails, discard it, because Python would otherwise fail on it at exit."""
    try:
        sys.stdout.flush()
    except OSError:
        with suppress(OSError, ValueError):
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, sys.stdout.fileno())
            os.close(nowhere)
