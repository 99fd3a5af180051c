"""Files that appear whole or not at all, locks that say what they wait for, and errors that name the file."""

import errno
import json
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pandas as pd
from filelock import FileLock, Timeout

from adatosk.utils.tables import defused

PATIENCE = 1.0  # seconds that a process waits for a lock before it says so

_ADVICE = {
    errno.ENOSPC: "make room on this disk and run the same command again",
    errno.EDQUOT: "make room within your quota and run the same command again",
    errno.EFBIG: "raise the limit on the size of a file (ulimit -f) and run the same command again",
}
_PART = re.compile(r"\..+\.\d+\.part")


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Have a disk that is full, or a file that may not grow, reported with the file and what to do about it.

    Raises:
        OSError: in place of one with the same number; others pass as they are.
    """
    try:
        yield
    except OSError as error:
        code = error.errno
        if code is None or code not in _ADVICE or _ADVICE[code] in str(error):
            raise
        reason = f"{os.strerror(code)}: {_ADVICE[code]}"
        # Files in a folder that is removed are named within it.
        named = error.filename is not None and Path(error.filename).is_absolute()
        raise OSError(code, reason, str(error.filename if named else path)) from error


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Where to write a file that takes the place of ``path`` when the block ends; after an error nothing changes.

    Two processes that write the same file do not mix. Folders on the way are made. A killed process leaves its part
    behind, for :func:`sweep`.
    """
    with naming(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_name(f".{path.name}.{os.getpid()}.part")
        try:
            yield part
            part.replace(path)
        finally:
            part.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write UTF-8, :func:`replacing` what is there."""
    with replacing(path) as part:
        part.write_text(text, encoding="utf-8")


def write_json(path: Path, content: Any, indent: int | None = 2) -> None:
    """Write JSON, :func:`replacing` what is there."""
    write_text(path, json.dumps(content, indent=indent) + "\n")


def write_csv(path: Path, table: pd.DataFrame, **options: Any) -> None:
    """Write a table by ``to_csv`` with its options, :func:`replacing` what is there.

    Text that a spreadsheet would run has an apostrophe before it; :func:`adatosk.utils.tables.read_csv` takes it away.
    """
    with replacing(path) as part:
        defused(table).to_csv(part, **options)


def is_part(path: Path) -> bool:
    """Whether a file is one that :func:`replacing` writes to before it gets its name."""
    return _PART.fullmatch(path.name) is not None


def sweep(*folders: Path) -> None:
    """Remove what killed processes left of :func:`replacing` right inside the folders, which may be missing.

    Only for folders that nobody else writes to at the moment, such as those that this process holds the lock of.
    """
    for folder in folders:
        for path in folder.iterdir() if folder.is_dir() else ():
            if is_part(path):
                path.unlink(missing_ok=True)


def remove_folder(folder: Path) -> None:
    """Remove a folder and all in it, if it is there."""
    if folder.is_dir():
        with naming(folder):
            shutil.rmtree(folder)


@contextmanager
def locked(path: Path, report: Callable[[str], None] = print, wait: bool = True) -> Iterator[None]:
    """Hold a lock between processes; one that has to wait for it says so after a second.

    Args:
        path: the lock's file.
        report: gets the line.
        wait: whether to wait until another process lets go of it.

    Raises:
        OSError: the lock cannot be made, or another process holds it and ``wait`` is false.
    """
    lock = FileLock(path)
    try:
        lock.acquire(timeout=PATIENCE if wait else 0)
    except Timeout:
        if not wait:
            raise
        report(f"waiting for another process, which holds the lock {path}")
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def is_ordinary(path: Path) -> bool:
    """Whether a file can take the place of ``path``; not that of a device, a pipe or a link such as /dev/stdout."""
    return not path.exists() or (path.is_file() and not path.is_symlink())


def check_target(path: Path, example: str = "table.csv") -> None:
    """Whether a file can be written, before the work that it is for; folders on the way are made.

    Args:
        path: of the file.
        example: a file's name, for the advice where ``path`` is a folder.

    Raises:
        OSError: it names the file and what is in the way.
    """
    if path.is_dir():
        raise IsADirectoryError(f"{path}: a folder; name a file in it, such as {path / example}")
    if path.exists() and not os.access(path, os.W_OK):
        raise PermissionError(f"{path}: write-protected; name another file")
    if not is_ordinary(path):
        return
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=path.parent).close()  # tried, since permissions alone do not tell
    except OSError as error:
        raise OSError(f"{path}: cannot be written ({error.strerror}); name another file") from error
