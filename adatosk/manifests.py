"""Manifests: which clips a data set has, with the id, label *name*, and split or fold of each.

On disk, a manifest is a CSV that ``pandas.read_csv(path, comment="#")`` can read (except that
:mod:`adatosk.utils.tables` puts an apostrophe before spreadsheet formulas). It starts with four comment lines::

    # name: own
    # version: 1
    # classes: happy sad neutral
    # clips: 2
    path,id,label,fold,split,frames,subject
    videos/a.mp4,a,happy,,train,64,anna
    videos/b.mp4,b,sad,,test,80,ben

``path`` is relative to a root that is given when clips are read, so a manifest is independent of the machine. Every
problem raises a :class:`ManifestError` that names the file and line, or the clip, and says what to do.
"""

import csv
import hashlib
import re
import unicodedata
from collections.abc import Callable, Collection, Iterable
from dataclasses import InitVar, dataclass, replace
from functools import cache, cached_property
from pathlib import Path, PureWindowsPath
from typing import Literal

import numpy as np
import pandas as pd

from adatosk.config import RunConfig
from adatosk.utils.files import replacing
from adatosk.utils.paths import ManifestError, first_fault, short
from adatosk.utils.paths import resolve as resolve
from adatosk.utils.project import MANIFESTS
from adatosk.utils.tables import SEPARATORS, defused, read_table, read_text, some
from adatosk.video.checks import Report, check_clips

COLUMNS = ("path", "id", "label", "fold", "split", "frames", "subject")
REQUIRED = ("path", "id", "label")
HEADERS = ("name", "version", "classes", "clips")
TEXTS = ("path", "id", "label", "split", "subject")
NUMBERS = ("fold", "frames")
SPLITS = ("train", "test")
UNFIT = re.compile("[\n\r\ud800-\udfff]")
MOST = 10**9  # No data set has more folds, no clip more frames; far larger numbers overflow an int64.


@dataclass(frozen=True, eq=False)
class Manifest:
    """The clips of one data set.

    Attributes:
        name, version: of the data set; ``name`` becomes part of file names, ``version`` is one line of free text.
        classes: class names; their order defines the label indices.
        clips: one row per clip with the columns ``path`` (relative posix path of a video file or a folder of frames),
            ``id``, ``label`` (a class name), ``fold`` (``Int64``: the fold in which the clip is *test*; NA in a set
            with one split), ``split`` (``train`` or ``test``; NA in a set with folds), ``frames`` (``Int64`` or NA),
            ``subject`` (or NA). Missing optional columns are added; further columns are kept.
        where: maps a row number to its location, for messages; by default the clip's id.

    Raises:
        ManifestError: naming the clip, when any of this is violated.
    """

    name: str
    version: str
    classes: tuple[str, ...]
    clips: pd.DataFrame
    where: InitVar[Callable[[int], str] | None] = None

    def __str__(self) -> str:
        return f"manifest '{self.name}'"

    def __post_init__(self, where: Callable[[int], str] | None) -> None:
        _check_names(self.name, self.version, str(self))
        object.__setattr__(self, "classes", checked_classes(self.classes, lambda _: str(self)))
        clips = self.clips.reset_index(drop=True)
        ids = clips.get("id", clips.index)
        where = where or (lambda row: f"{self}, clip {ids[row]}" if len(ids) else str(self))
        object.__setattr__(self, "clips", _checked_clips(clips, self.classes, where))

    @cached_property
    def folds(self) -> tuple[int, ...]:
        """The test folds that exist, sorted; empty for a set with one split."""
        return tuple(sorted(int(fold) for fold in self.clips["fold"].dropna().unique()))

    @cached_property
    def digest(self) -> str:
        """SHA-256 (hex) of the sorted lines ``id,label,split,fold``, joined by newlines with none at the end.

        NA is an empty field. The digest does not depend on row order, paths or other columns.
        """
        return _digest(self.clips[["id", "label", "split", "fold"]])

    def subset(
        self, split: Literal["train", "test"], fold: int | None = None, exclusions: Collection[str] = ()
    ) -> pd.DataFrame:
        """Rows of one split, in the manifest's order, indexed from 0.

        Args:
            split: ``train`` or ``test``.
            fold: for a set with folds: ``test`` is this fold's clips, ``train`` all others.
            exclusions: ids of clips to leave out, whichever split they are in.

        Raises:
            ManifestError: the fold is missing, unknown, or given for a set without folds; an id is unknown; no clip is
                left.
        """
        if split not in SPLITS:
            raise ManifestError(f"{self}: split must be 'train' or 'test', got {split!r}")
        self._known(exclusions)
        clips = self.clips[self.members(split, fold) & ~self.clips["id"].isin(list(exclusions))]
        if clips.empty:
            raise ManifestError(f"{self}: no clips in {split}{'' if fold is None else f', fold {fold}'}")
        return clips.reset_index(drop=True)

    def members(self, split: Literal["train", "test"], fold: int | None = None) -> pd.Series:
        """Whether each clip is in a split, bool ``(clips,)``; arguments and errors as in :meth:`subset`."""
        if not self.folds:
            if fold is not None:
                raise ManifestError(f"{self} has one train/test split and no fold {fold}: set fold to null")
            return self.clips["split"] == split
        if fold not in self.folds:
            said = "needs a fold" if fold is None else f"has no fold {fold}"
            raise ManifestError(f"{self} {said}: choose one of {', '.join(map(str, self.folds))}")
        in_fold = self.clips["fold"] == fold
        return in_fold if split == "test" else ~in_fold

    def _known(self, ids: Iterable[str]) -> None:
        unknown = sorted(set(ids) - set(self.clips["id"]))
        if unknown:
            raise ManifestError(f"{self} has no clip {some(unknown)}: ids are spelled as in its column 'id'")

    def save(self, path: str | Path) -> Path:
        """Write the CSV; it appears whole or not at all."""
        path = Path(path)
        values = (self.name, self.version, " ".join(self.classes), len(self.clips))
        header = "".join(f"# {key}: {value}\n" for key, value in zip(HEADERS, values, strict=True))
        # Unquoted, pandas would take the rest of a line after a '#' for a comment.
        text = (clips := defused(self.clips)).to_csv(index=False)
        if "#" in text:
            text = clips.to_csv(index=False, quoting=csv.QUOTE_NONNUMERIC)
        with replacing(path) as part:
            part.write_text(header + text, encoding="utf-8")
        return path

    def check(
        self, root: str | Path, workers: int | None = None, progress: bool = True, report: str | Path | None = None
    ) -> Report:
        """Open every clip under ``root``; see :func:`adatosk.video.checks.check_clips`."""
        return check_clips(self.clips, root, self.name, workers, progress, report)

    def complete(self, report: Report) -> "Manifest":
        """A copy with the columns ``frames``, ``bytes`` and ``digest`` that a check found."""
        columns = ["frames", "bytes", "digest"]
        found = report.table.set_index("id").loc[self.clips["id"], columns].reset_index(drop=True)
        return replace(self, clips=self.clips.assign(**found))


def manifest_path(config: RunConfig) -> Path:
    """Path of a run's manifest: as configured if that exists, otherwise under the project's ``data_manifests/``."""
    named = Path(config.data.manifest)
    return named if named.is_file() else MANIFESTS / named


def manifest_of(config: RunConfig) -> Manifest:
    """The manifest of a run. An unchanged file is read only once, because a grid asks for it row by row."""
    path = manifest_path(config)
    status = path.stat() if path.is_file() else None
    return _read(path, status and (status.st_size, status.st_mtime_ns))


@cache
def _read(path: Path, stamp: tuple[int, int] | None) -> Manifest:
    return load(path)


def load(path: str | Path) -> Manifest:
    """Read a manifest; a byte-order mark and Windows line endings are accepted.

    Raises:
        ManifestError: naming the file and, where possible, the line.
    """
    path = Path(path)
    if not path.is_file():
        raise ManifestError(f"{path}: no such manifest: check the name, or build one with adatosk.datasets.build")
    text = read_text(path)
    if not text.strip():
        raise ManifestError(f"{path}: the manifest is empty: write it again, or fetch it again")
    header = _header(path, text)
    for key in ("name", "classes"):
        if not header.get(key):
            example = "own" if key == "name" else "happy sad neutral"
            raise ManifestError(f"{path}: no header line '# {key}: …': add one such as '# {key}: {example}'")
    name, version = header["name"], header.get("version", "")
    _check_names(name, version, str(path))
    classes = checked_classes(header["classes"].split(), lambda _: str(path))
    clips, lines = read_table(path, text, REQUIRED, COLUMNS, comments=True)
    _check_count(path, header.get("clips"), len(clips))
    return Manifest(name, version, classes, clips, lambda row: f"{path}, line {lines[row]}")


def _header(path: Path, text: str) -> dict[str, str]:
    """The keys and values in the comment lines; ManifestError for one of ``HEADERS`` with two values."""
    header: dict[str, str] = {}
    for line in re.findall("^#.*", text, re.MULTILINE):
        key, _, value = line.lstrip("# ").partition(":")
        # A spreadsheet pads the header lines with separators to the table's width.
        key, value = key.strip().lower(), value.strip().rstrip("".join(SEPARATORS)).rstrip()
        if key in HEADERS and header.get(key, value) != value:
            said = f"'{short(header[key])}' and '{short(value)}'"
            raise ManifestError(f"{path}: two header lines '# {key}: …', {said}: delete one of them")
        header.setdefault(key, value)
    return header


def _check_names(name: str, version: str, where: str) -> None:
    # Windows' rules cover the path separators of all systems.
    if not name.strip() or name == ".." or name != PureWindowsPath(name).name or name.splitlines() != [name]:
        raise ManifestError(f"{where}: name {name!r} cannot be part of a file's name: write e.g. 'own'")
    if len((version + ".").splitlines()) > 1:
        raise ManifestError(f"{where}: version {version!r} has a line break: write it on one line")


def _check_count(path: Path, said: str | None, found: int) -> None:
    if not found:
        raise ManifestError(f"{path}: the manifest lists no clips: write it again, or fetch it again")
    if said is not None and said != str(found):
        raise ManifestError(
            f"{path}: the header says {said} clips, the table has {found}: fetch it again if it was cut short, "
            f"or correct the header to '# clips: {found}'"
        )


def checked_classes(classes: Iterable[str], where: Callable[[str], str]) -> tuple[str, ...]:
    """The validated class names as a tuple; ``where`` maps a name to its location, for messages."""
    classes = tuple(classes)
    seen: dict[str, str] = {}
    for name in classes:
        if not name or name != "".join(name.split()) or "," in name or "#" in name or not name.isprintable():
            raise ManifestError(
                f"{where(name)}: class name {short(name)!r} has a space, comma, '#' or what cannot be printed: write "
                "e.g. 'very_happy'"
            )
        # One letter can be one character or a base letter with an accent, which look alike.
        key = unicodedata.normalize("NFKC", name).casefold()
        if key in seen:
            other = seen[key]
            how = "in case" if other.casefold() == name.casefold() else "in how letters are encoded"
            said = "is listed twice" if other == name else f"and '{other}' differ {how} only"
            raise ManifestError(f"{where(name)}: class '{name}' {said}: keep one of them")
        seen[key] = name
    if not classes:
        raise ManifestError(f"{where('')}: no classes: name at least one")
    return classes


def _checked_clips(clips: pd.DataFrame, classes: tuple[str, ...], where: Callable[[int], str]) -> pd.DataFrame:
    """The rows of a table, normalised and validated for :class:`Manifest`.

    Args:
        clips: rows indexed from 0.
        classes: the allowed labels.
        where: maps a row number to its location, for messages.

    Raises:
        ManifestError: naming the first row that is wrong.
    """
    if missing := [column for column in REQUIRED if column not in clips]:
        raise ManifestError(
            f"{where(0)}: no column {some(missing)}; it has {', '.join(map(str, clips.columns))}: "
            f"needed are {', '.join(REQUIRED)}, then 'split' or 'fold'"
        )
    clips = clips.reindex(columns=[*COLUMNS, *(column for column in clips if column not in COLUMNS)])
    for column in TEXTS:
        clips[column] = _text(clips[column], where)
    for column in NUMBERS:
        clips[column] = _whole_numbers(clips[column], where)
    _check_rows(clips, classes, where)
    return clips


def _text(values: pd.Series, where: Callable[[int], str]) -> pd.Series:
    """Stripped text as ``object`` with ``None`` for NA, all of which can be written to a row of a CSV."""
    found = values.astype(object).where(values.notna(), None)
    texts = [value if value is None else str(value).strip() or None for value in found]
    # Search all texts at once: one by one takes a hundred times as long.
    if UNFIT.search("".join(filter(None, texts))):
        row, wrong = next((row, text) for row, text in enumerate(texts) if text and UNFIT.search(text))
        kind = "has a line break" if set("\n\r") & set(wrong) else "has bytes that are no UTF-8"
        raise ManifestError(f"{where(row)}: {values.name} {short(wrong)!r} {kind}: give it another name")
    return pd.Series(texts, index=values.index, dtype=object)


def _whole_numbers(values: pd.Series, where: Callable[[int], str]) -> pd.Series:
    # Convert each distinct value once: there are few of them.
    places, found = pd.factorize(values)
    numbers = pd.to_numeric(pd.Series(found, dtype=object), errors="coerce")
    wrong = ~numbers.between(0, MOST) | (numbers % 1 != 0)
    for row in np.isin(places, wrong.to_numpy(dtype=bool).nonzero()[0]).nonzero()[0][:1]:
        said = short(repr(values[row]))
        raise ManifestError(f"{where(row)}: {values.name} {said} is not a whole number from 0 to {MOST}")
    whole = numbers.mask(wrong).astype("Int64").reindex(places)  # NA where there is no value
    return whole.set_axis(values.index)


def _check_rows(clips: pd.DataFrame, classes: tuple[str, ...], where: Callable[[int], str]) -> None:
    for column in REQUIRED:
        for row in clips[column].isna().to_numpy().nonzero()[0][:1]:
            raise ManifestError(f"{where(row)}: no {column}: fill it in, or delete the line")
    for row in (~clips["label"].isin(classes)).to_numpy().nonzero()[0][:1]:
        raise ManifestError(f"{where(row)}: {label_fault(clips['label'].iloc[row], classes)}")
    if fault := first_fault(clips["path"]):
        row, said = fault
        raise ManifestError(f"{where(row)}: path {short(clips['path'].iloc[row])!r} {said}")
    _check_membership(clips, where)
    for row in clips["id"].duplicated().to_numpy().nonzero()[0][:1]:
        raise ManifestError(f"{where(row)}: {_duplicate_fault(clips, row)}")


def _check_membership(clips: pd.DataFrame, where: Callable[[int], str]) -> None:
    """Every clip has a fold, or every clip has a split."""
    for row in (clips["split"].notna() & ~clips["split"].isin(SPLITS)).to_numpy().nonzero()[0][:1]:
        raise ManifestError(f"{where(row)}: split {clips['split'].iloc[row]!r} is neither 'train' nor 'test'")
    has_fold, has_split = clips["fold"].notna(), clips["split"].notna()
    for row in (has_fold == has_split).to_numpy().nonzero()[0][:1]:
        said = "both a split and a fold" if has_fold.iloc[row] else "neither a split nor a fold"
        raise ManifestError(f"{where(row)}: the clip has {said}: give exactly one of them")
    for row in (has_fold != has_fold.iloc[0] if len(clips) else has_fold).to_numpy().nonzero()[0][:1]:
        raise ManifestError(f"{where(row)}: some clips have a fold and some a split: give all of them the same")


def _duplicate_fault(clips: pd.DataFrame, row: int) -> str:
    name = clips["id"].iloc[row]
    first = clips[clips["id"] == name].iloc[0]
    second = clips.iloc[row]
    said = "listed twice"
    for column in ("split", "fold"):
        if not pd.isna(first[column]) and first[column] != second[column]:
            text = "train and test" if column == "split" else f"the test of folds {first[column]} and {second[column]}"
            said = f"in {text} at once"
    if first["path"] == second["path"]:
        return f"id '{short(name)}' is {said}: ids must differ, keep one of the lines"
    paths = " and ".join(f"'{short(path)}'" for path in (first["path"], second["path"]))
    return f"id '{short(name)}' is {said}, for {paths}: ids must differ, rename one or keep one of the lines"


def label_fault(label: str, classes: tuple[str, ...]) -> str:
    meant = {name.casefold(): name for name in classes}.get(label.casefold())
    hint = f"write '{meant}' (case counts)" if meant else f"the classes are {', '.join(classes)}"
    return f"unknown label '{short(label)}': {hint}"


def label_digest(clips: pd.DataFrame) -> str:
    """SHA-256 (hex) of the sorted lines ``id,label`` of a manifest's rows, joined by newlines."""
    return _digest(clips[["id", "label"]])


def _digest(fields: pd.DataFrame) -> str:
    columns = [fields[column].astype(object).where(fields[column].notna(), "").tolist() for column in fields]
    texts = [map(str, column) for column in columns]
    return hashlib.sha256("\n".join(sorted(map(",".join, zip(*texts, strict=True)))).encode()).hexdigest()
