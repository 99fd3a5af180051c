"""The clips of one data set, the members of its splits, and its digest."""

import csv
import hashlib
from collections.abc import Callable, Collection, Iterable
from dataclasses import InitVar, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Literal

import pandas as pd

from adatosk.manifests.validation import SPLITS, check_names, checked_classes, checked_clips
from adatosk.utils.files import replacing
from adatosk.utils.paths import ManifestError
from adatosk.utils.tables import defused, some
from adatosk.video.checks import Report, check_clips

HEADERS = ("name", "version", "classes", "clips")


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
        check_names(self.name, self.version, str(self))
        object.__setattr__(self, "classes", checked_classes(self.classes, lambda _: str(self)))
        clips = self.clips.reset_index(drop=True)
        ids = clips.get("id", clips.index)
        where = where or (lambda row: f"{self}, clip {ids[row]}" if len(ids) else str(self))
        object.__setattr__(self, "clips", checked_clips(clips, self.classes, where))

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


def label_digest(clips: pd.DataFrame) -> str:
    """SHA-256 (hex) of the sorted lines ``id,label`` of a manifest's rows, joined by newlines."""
    return _digest(clips[["id", "label"]])


def _digest(fields: pd.DataFrame) -> str:
    columns = [fields[column].astype(object).where(fields[column].notna(), "").tolist() for column in fields]
    texts = [map(str, column) for column in columns]
    return hashlib.sha256("\n".join(sorted(map(",".join, zip(*texts, strict=True)))).encode()).hexdigest()
