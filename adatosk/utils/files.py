"""Files that are written atomically, locks that report what they wait for, and errors that name the file."""

from __future__ import annotations

import errno
import hashlib
import json
import multiprocessing
import os
import platform
import re
import shutil
import tempfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import FileLock, Timeout

from adatosk.utils.limits import ADVICE
from adatosk.utils.strict import parse_json

if TYPE_CHECKING:  # most who write a file need not wait for it
    import pandas as pd

PATIENCE = 1.0  # seconds that a process waits for a lock before it reports it

_DISK_FAULTS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_PART = re.compile(r"\..+\.\d+\.part")


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Add the file and advice to errors about a full disk or a limit on the size of a file.

    Raises:
        OSError: in place of one with the same number; others are passed on unchanged.
    """
    try:
        yield
    except OSError as error:
        code = error.errno
        if code not in _DISK_FAULTS or ADVICE[code] in str(error):
            raise
        reason = f"{os.strerror(code)}: {ADVICE[code]}"
        # Files in a folder that is removed are named within it.
        named = error.filename is not None and Path(error.filename).is_absolute()
        raise OSError(code, reason, str(error.filename if named else path)) from error


@contextmanager
def replacing(path: Path, tidy: bool = True) -> Iterator[Path]:
    """Yield a temporary path that replaces ``path`` when the block completes; on an error, nothing changes.

    Two processes writing the same file do not interfere. Parent folders are created. A killed process leaves its
    temporary file behind, until the same file is written again on the same machine, or for :func:`sweep`.

    Args:
        path: the file.
        tidy: remove what killed processes left of it, which takes a listing of the folder.
    """
    with naming(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        if tidy:
            _remove_left(path)
        part = path.with_name(f".{path.name}.{_machine()}.{os.getpid()}.part")
        try:
            yield part
            part.replace(path)
        finally:
            part.unlink(missing_ok=True)


def _remove_left(path: Path) -> None:
    """Remove the temporary files of ``path`` whose processes, of this machine, do not live any more."""
    own = re.compile(rf"\.{re.escape(path.name)}\.{_machine()}\.(\d+)\.part")
    with suppress(OSError):  # a folder may be writable and not readable
        for part in path.parent.iterdir():
            found = own.fullmatch(part.name)
            if found and not _lives(int(found[1])):
                part.unlink(missing_ok=True)


@cache
def _machine() -> int:
    """A number of this machine and, on Linux, of the container, whose processes have numbers of their own."""
    names = Path("/proc/self/ns/pid")
    inside = os.readlink(names) if names.is_symlink() else ""  # noqa: PTH115, a name of no file
    return zlib.crc32(f"{platform.node()} {inside}".encode())


def _lives(process: int) -> bool:
    if os.name != "posix":  # elsewhere, asking would end it
        return True
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        return True
    return True


def write_text(path: Path, text: str) -> None:
    """Write UTF-8, :func:`replacing` an existing file."""
    with replacing(path) as part:
        part.write_text(text, encoding="utf-8")


def write_json(path: Path, content: Any, indent: int | None = 2) -> None:
    """Write JSON, :func:`replacing` an existing file."""
    write_text(path, json.dumps(content, indent=indent) + "\n")


def sealed(content: dict[str, Any]) -> dict[str, Any]:
    """``content`` with a digest of itself, as :func:`opened` and :func:`unsealed` expect it."""
    return content | {"sha256": _self_digest(content)}


def unsealed(path: Path) -> dict[str, Any] | None:
    """The content of a JSON file without its digest; ``None`` if the file is damaged."""
    try:
        return opened(parse_json(path.read_bytes()))
    except ValueError:
        return None


def opened(content: Any) -> dict[str, Any] | None:
    """What was :func:`sealed`, without its digest; ``None`` if the two do not fit."""
    if not isinstance(content, dict):
        return None
    bare = {name: value for name, value in content.items() if name != "sha256"}
    return bare if content.get("sha256") == _self_digest(bare) else None


def _self_digest(content: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def write_csv(path: Path, table: pd.DataFrame, **options: Any) -> None:
    """Write a table with ``to_csv`` and its options, :func:`replacing` an existing file.

    Text that a spreadsheet would execute is prefixed with an apostrophe, which :func:`adatosk.utils.tables.read_csv`
    removes.
    """
    from adatosk.utils.tables import defused

    with replacing(path) as part:
        defused(table).to_csv(part, **options)


def is_part(path: Path) -> bool:
    """Whether a file is a temporary one of :func:`replacing`."""
    return _PART.fullmatch(path.name) is not None


def sweep(*folders: Path) -> None:
    """Remove temporary files of :func:`replacing` that killed processes left directly in folders, which may be missing.

    Only for folders that no other process is writing to, such as those that this process has locked.
    """
    for folder in folders:
        for path in folder.iterdir() if folder.is_dir() else ():
            if is_part(path):
                path.unlink(missing_ok=True)


def remove_folder(folder: Path) -> None:
    """Remove a folder and its contents, if it exists."""
    if folder.is_dir():
        with naming(folder):
            shutil.rmtree(folder)


@contextmanager
def locked(
    path: Path, report: Callable[[str], None] = print, wait: bool = True, remove: bool = False
) -> Iterator[None]:
    """Hold a lock between processes; waiting for it is reported after a second.

    Args:
        path: the lock file.
        report: called with the message.
        wait: whether to wait until another process releases it.
        remove: remove the lock file afterwards, from a folder of the user's.

    Raises:
        OSError: the lock cannot be created, or another process holds it and ``wait`` is false.
        RuntimeError: a worker process of a script without the main guard, which would wait for its own parent.
    """
    lock = FileLock(path)
    try:
        lock.acquire(timeout=PATIENCE if wait else 0)
    except Timeout:
        if not wait:
            raise
        # Python sets it while a spawned process imports the script that started it.
        if getattr(multiprocessing.current_process(), "_inheriting", False):
            raise RuntimeError(
                "the script starts worker processes, each of which begins by importing it: put what it does under "
                "if __name__ == '__main__':"
            ) from None
        report(f"waiting for another process, which holds the lock {path}")
        lock.acquire()
    try:
        yield
    finally:
        if remove:
            with suppress(OSError):  # Windows removes it on its own, and not before it is released
                path.unlink()
        lock.release()


@contextmanager
def locked_table(path: Path, report: Callable[[str], None] = print) -> Iterator[None]:
    """:func:`locked` for a file that collects rows; what killed processes left when replacing it is removed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with locked(path.with_name(f".{path.name}.lock"), report, remove=True):
        left = re.compile(rf"\.{re.escape(path.name)}(\.part)?(\.\d+)+\.part")
        for part in path.parent.iterdir():
            if left.fullmatch(part.name):
                part.unlink(missing_ok=True)
        yield


def is_ordinary(path: Path) -> bool:
    """Whether ``path`` can be replaced by a file; false for a device, a pipe or a link such as /dev/stdout."""
    return not path.exists() or (path.is_file() and not path.is_symlink())


def check_target(path: Path, example: str = "table.csv") -> None:
    """Check that a file can be written, before doing the work; parent folders are created.

    Args:
        path: the file.
        example: a file name, for the advice if ``path`` is a folder.

    Raises:
        OSError: the file cannot be written; the message names it and the reason.
    """
    if path.is_dir():
        raise IsADirectoryError(f"{path}: a folder; name a file in it, such as {path / example}")
    if path.exists() and not os.access(path, os.W_OK):
        raise PermissionError(f"{path}: write-protected; name another file")
    if not is_ordinary(path):
        return
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=path.parent).close()  # tried out, because permissions alone do not suffice
    except OSError as error:
        raise OSError(f"{path}: cannot be written ({error.strerror}); name another file") from error
