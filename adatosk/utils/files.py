"""Files that appear whole or not at all: a run that is killed or fails leaves no half of one."""

import json
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pandas as pd


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Where to write a file that takes the place of ``path`` when the block ends; after an error nothing changes.

    Two processes that write the same file do not mix. Folders on the way are made.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        yield part
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def write_json(path: Path, content: Any, indent: int | None = 2) -> None:
    """Write JSON, :func:`replacing` what is there."""
    with replacing(path) as part:
        part.write_text(json.dumps(content, indent=indent) + "\n", encoding="utf-8")


def write_csv(path: Path, table: pd.DataFrame, **options: Any) -> None:
    """Write a table by ``to_csv`` with its options, :func:`replacing` what is there."""
    with replacing(path) as part:
        table.to_csv(part, **options)


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
