"""Tables as CSV: read with line numbers, as people and spreadsheets write them, and written so that no spreadsheet
executes a cell.

A spreadsheet interprets a cell that begins with ``=``, ``+``, ``-`` or ``@`` as a formula, even if it is the name of an
untrusted video. On export, this package prefixes such text with an apostrophe (numbers are left unchanged), and removes
it on reading: ``=1+1`` is written as ``'=1+1``, and ``'=1+1`` as ``''=1+1``.
"""

import csv
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import pandas as pd

from adatosk.utils.paths import ManifestError, short

SEPARATORS = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "vertical bars"}

# First bytes of files that are not text in UTF-8.
_FOREIGN = {
    b"PK\x03\x04": "a spreadsheet or an archive",
    b"\xd0\xcf\x11\xe0": "an Excel workbook",
    b"\x1f\x8b": "compressed",
    b"%PDF": "a PDF",
    b"\xff\xfe": "text in UTF-16",
    b"\xfe\xff": "text in UTF-16",
}
_FORMULA = re.compile(r"'*(?:\s*[=+\-@]|[\t\r])")
# Some spreadsheets state the separator in this first line.
_TOLD = re.compile(r"sep=.?")
_NUMBER = r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?"
_HARMLESS = re.compile(rf"{_NUMBER}(?: ± {_NUMBER})? ?%?")


def read_text(path: Path, advice: str = "save it as CSV in UTF-8") -> str:
    """The text of a file in UTF-8, lines ending in a line feed; a byte-order mark and any line endings are accepted.

    Raises:
        ManifestError: naming the file, what it is instead, and ``advice``.
    """
    try:
        content = path.read_bytes().removeprefix(b"\xef\xbb\xbf")
    except OSError as error:
        raise ManifestError(f"{path}: cannot be read ({error.strerror})") from error
    kind = next((kind for start, kind in _FOREIGN.items() if content.startswith(start)), "")
    if not kind and content.count(b"\0") > len(content) / 4:
        kind = "text in UTF-16 or another binary form"
    if kind:
        raise ManifestError(f"{path}: not a text file in UTF-8 but {kind}: {advice}")
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError as error:
        line, byte = content.count(b"\n", 0, error.start) + 1, content[error.start]
        said = f"line {line} has byte 0x{byte:02x}"
        raise ManifestError(f"{path}: not a text file in UTF-8 ({said}): {advice}") from error
    return text.replace("\r\n", "\n").replace("\r", "\n")


def read_table(
    path: Path, text: str, needed: Sequence[str], known: Sequence[str], comments: bool = False
) -> tuple[pd.DataFrame, list[int]]:
    """The table in a file's text, and the line number of each row, from 1.

    The first line names the columns; those of ``known`` in any case. It also determines the separator: the first of
    ``SEPARATORS`` with which it contains all ``needed`` names. Blank rows are skipped.

    Args:
        path: the file, for messages.
        text: the file's text, with lines ending in a line feed.
        needed, known: names of the required and of the recognised columns.
        comments: skip lines that begin with ``#``.

    Returns:
        the cells as ``object``: text without the apostrophe before a formula, ``None`` if empty; and the line numbers.

    Raises:
        ManifestError: naming the file and, where possible, the line.
    """
    lines = ["" if comments and line.startswith("#") else line for line in text.split("\n")]
    lines[0] = "" if _TOLD.fullmatch(lines[0]) else lines[0]
    header = next((number for number, line in enumerate(lines, start=1) if line.strip()), 0)
    if not header:
        raise ManifestError(f"{path}: not a table with columns {', '.join(needed)}: there is no line with their names")
    separator, names = _columns(lines[header - 1], needed, known)
    _check_columns(f"{path}: ", header, separator, names, needed)
    starts: list[int] = []
    columns: list[list[str]] = [[] for _ in names]
    rows = _rows(path, lines, separator, names, starts)
    next(rows)
    # Transposed in parts: Python's garbage collector would repeatedly traverse hundreds of thousands of lists.
    while part := list(islice(rows, 256)):
        for column, cells in zip(columns, zip(*part, strict=True), strict=True):
            column += cells
    texts = (map(restored, column) if "'" in "".join(column) else column for column in columns)
    cells = {
        name: pd.Series([text or None for text in column], dtype=object)
        for name, column in zip(names, texts, strict=True)
    }
    return pd.DataFrame(cells), starts[1:]


def _columns(line: str, needed: Sequence[str], known: Sequence[str]) -> tuple[str, list[str]]:
    """The separator of a header line, and its names; empty cells after the last name do not count."""
    spelled = {name.casefold(): name for name in known}
    found = {}
    for separator in SEPARATORS:
        # Truncated, because the reader fails on a cell of 131,072 characters.
        cells = next(csv.reader([line[:100_000]], delimiter=separator, skipinitialspace=True))
        names = [spelled.get(cell.strip().casefold(), restored(cell.strip())) for cell in cells]
        while names and not names[-1]:
            names.pop()
        found[separator] = [name or f"Unnamed: {place}" for place, name in enumerate(names)]
    best = max(found, key=lambda separator: (len(set(needed) & set(found[separator])), len(found[separator])))
    return best, found[best]


def _check_columns(where: str, line: int, separator: str, names: Sequence[str], needed: Sequence[str]) -> None:
    if missing := [name for name in needed if name not in names]:
        split = f", separated by {SEPARATORS[separator]}" if len(names) > 1 else ""
        raise ManifestError(
            f"{where}no column {some(missing)} in line {line}; it has {some(names)}{split}: the first line names the "
            f"columns, such as '{','.join(needed)}'"
        )
    for place, name in enumerate(names):
        if name in names[:place]:
            raise ManifestError(f"{where}line {line} has two columns '{name}': rename or delete one of them")


def _rows(
    path: Path, lines: Sequence[str], separator: str, names: Sequence[str], starts: list[int]
) -> Iterator[list[str]]:
    """The header and the rows below it, each as long as ``names``; their line numbers are appended to ``starts``."""
    reader = csv.reader(map("{}\n".format, lines), delimiter=separator, skipinitialspace=True, strict=True)
    line, columns = 1, len(names)
    try:
        for row in reader:
            if any(row):
                starts.append(line)
                yield row if len(row) == columns else _fitted(row, columns, separator, f"{path}, line {line}")
            line = reader.line_num + 1
    except csv.Error as error:
        raise ManifestError(
            f"{path}: not a table with columns {', '.join(names[:10])} (line {line}: {error}): close each quote, and "
            "put quotes around whole cells only"
        ) from error


def _fitted(row: list[str], columns: int, separator: str, where: str) -> list[str]:
    """A row without the empty cells that a spreadsheet adds; any other length is an error."""
    said = f"{where}: {len(row)} fields, the header has {columns}"
    if any(row[columns:]):
        split = SEPARATORS[separator].removesuffix("s")
        raise ManifestError(f"{said}: put quotes around what has a {split}, or delete what is too much")
    if len(row) < columns:
        raise ManifestError(f"{said}: a cell without content needs its separator, too; add what is missing")
    return row[:columns]


def some(names: Iterable[str], most: int = 10) -> str:
    """The first names, quoted and shortened if long, and how many more there are."""
    names = list(names)
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(f"'{short(str(name))}'" for name in names[:most]) + more


def defused(table: pd.DataFrame) -> pd.DataFrame:
    """A copy for export: text that a spreadsheet would execute, in cells, index and headers, gets an apostrophe."""
    table = table.copy()
    for place, kind in enumerate(table.dtypes):
        if _holds_text(kind):
            column = table.iloc[:, place].astype(object)
            table.isetitem(place, column.map(_defused))
    table.index, table.columns = _each(table.index, _defused), _each(table.columns, _defused)
    return table


def _each(index: pd.Index, change: Callable[[Any], Any]) -> pd.Index:
    """An index with ``change`` applied to its labels, or to their parts."""
    if pd.api.types.is_numeric_dtype(index.dtype):
        return index
    labels = [tuple(map(change, label)) if isinstance(label, tuple) else change(label) for label in index]
    if labels == list(index):
        return index
    made = pd.MultiIndex.from_tuples(labels) if isinstance(index, pd.MultiIndex) else pd.Index(labels)
    return made.set_names(index.names)


def _holds_text(kind: Any) -> bool:
    return isinstance(kind, pd.StringDtype | pd.CategoricalDtype) or pd.api.types.is_object_dtype(kind)


def _defused(value: Any) -> Any:
    runs = isinstance(value, str) and _FORMULA.match(value) and not _HARMLESS.fullmatch(value)
    return f"'{value}" if runs else value


def restored(value: Any) -> Any:
    """The inverse of :func:`defused` for one cell; any other value is returned unchanged."""
    return value[1:] if isinstance(value, str) and value[:1] == "'" and _FORMULA.match(value) else value


def read_csv(path: Path, **options: Any) -> pd.DataFrame:
    """Read a table that this package exported, with ``pandas.read_csv`` and its options; only empty cells are NA."""
    table = pd.read_csv(path, keep_default_na=False, na_values=[""], **options)
    for place, kind in enumerate(table.dtypes):
        if _holds_text(kind):
            table.isetitem(place, table.iloc[:, place].map(restored, na_action="ignore"))
    table.index, table.columns = _each(table.index, restored), _each(table.columns, restored)
    return table
