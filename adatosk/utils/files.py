"""Files that appear whole or not at all: a run that is killed or fails leaves no half of one."""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pandas as pd

from adatosk.utils.tables import defused


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
    """Write a table by ``to_csv`` with its options, :func:`replacing` what is there.

    Text that a spreadsheet would run has an apostrophe before it; :func:`adatosk.utils.tables.read_csv` takes it away.
    """
    with replacing(path) as part:
        defused(table).to_csv(part, **options)
