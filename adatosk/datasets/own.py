"""A user's own videos: a folder and a CSV of labels become a manifest."""

import csv
import hashlib
import io
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath

import numpy as np
import pandas as pd

from adatosk.datasets.base import VIDEO_SUFFIXES
from adatosk.manifests import AS_TEXT, Manifest, ManifestError, resolve
from adatosk.video.folders import IMAGE_SUFFIXES

CLIP_SUFFIXES = VIDEO_SUFFIXES.union(IMAGE_SUFFIXES)


def from_csv(
    table: str | Path,
    root: str | Path,
    name: str = "own",
    version: str = "1",
    classes: Sequence[str] | None = None,
    folds: int = 5,
    seed: int = 0,
) -> Manifest:
    """The manifest of videos, or frame folders, under ``root`` that a CSV lists.

    Args:
        table: CSV with the columns ``path`` (relative to ``root``) and ``label`` (a name), and optionally ``id``,
            ``subject``, and ``split`` or ``fold``. A byte-order mark and Windows line ends are accepted.
        root: folder of the clips.
        classes: names in the order of the model's outputs; by default those that occur, sorted.
        folds: how many folds are made where the table has neither ``split`` nor ``fold``: with subjects, no subject is
            in two of them.
        seed: another seed deals out otherwise.

    Raises:
        ManifestError: naming the file and line, and clips that are not there.
    """
    table, root = Path(table), Path(root)
    clips = _read(table)
    if "id" not in clips:
        clips["id"] = [_without_suffix(path) for path in clips["path"]]
    dealt = not {"split", "fold"} & set(clips)
    classes = tuple(classes) if classes is not None else tuple(sorted(clips["label"].unique()))
    try:
        manifest = Manifest(name, version, classes, clips.assign(fold=1) if dealt else clips)
        if dealt:
            dealt_folds = assign_folds(clips["label"], clips.get("subject"), folds, seed, clips["id"])
            manifest = replace(manifest, clips=clips.assign(fold=dealt_folds))
    except ManifestError as error:
        raise ManifestError(f"{table}: {error}") from error
    absent = [path for path in manifest.clips["path"] if not resolve(root, path).exists()]
    if absent:
        listed = "\n  ".join(absent[:10])
        raise ManifestError(f"{table}: {len(absent)} of {len(clips)} clips are not under {root}:\n  {listed}")
    return manifest


def assign_folds(
    labels: Sequence[str], subjects: Sequence[str] | None, folds: int, seed: int = 0, ids: Sequence[str] | None = None
) -> np.ndarray:
    """Folds 1 … ``folds`` with nearly the same number of clips of each class, int64 ``(clips,)``.

    Whole subjects are dealt out, the largest first, each to the fold whose counts it brings nearest to an equal share;
    without subjects every clip stands for itself.

    Raises:
        ManifestError: fewer subjects than folds, or a clip without a subject.
    """
    labels = np.asarray(labels)
    alone = ids if ids is not None else np.arange(len(labels)).astype(str)
    groups = np.asarray(subjects if subjects is not None else alone)
    if pd.isna(groups).any():
        raise ManifestError("some clips have no subject: fill in all of them, or leave the column out")
    names = np.unique(groups)
    if not 2 <= folds <= len(names):
        what = "subjects" if subjects is not None else "clips"
        raise ManifestError(f"{folds} folds of {len(names)} {what}: give at least 2 folds and at most one each")
    kinds = {label: place for place, label in enumerate(np.unique(labels))}
    counts = {group: np.zeros(len(kinds)) for group in names}
    for group, label in zip(groups, labels, strict=True):
        counts[group][kinds[label]] += 1
    # A digest settles ties: it depends on names and seed, and not on the order of rows.
    order = sorted(names, key=lambda group: (-counts[group].sum(), _digest(seed, group)))
    share = np.maximum(sum(counts.values()) / folds, 1e-9)
    totals, home = np.zeros((folds, len(kinds))), {}
    for group in order:
        # In units of each class's share, or the rare classes would not count.
        added = (((totals + counts[group] - share) ** 2 - (totals - share) ** 2) / share).sum(1)
        # Among equals the emptiest, so that no fold stays without a clip.
        best = min(range(folds), key=lambda fold: (round(added[fold], 9), totals[fold].sum(), fold))
        totals[best] += counts[group]
        home[group] = best + 1
    return np.array([home[group] for group in groups], dtype=np.int64)


def _digest(seed: int, name: str) -> str:
    return hashlib.sha256(f"{seed},{name}".encode()).hexdigest()


def _without_suffix(path: str) -> str:
    """The path without a video's suffix; what follows a dot in a folder's name, such as ``take.2``, is its own."""
    clip = PurePosixPath(path)
    return str(clip.with_suffix("") if clip.suffix.lower() in CLIP_SUFFIXES else clip)


def _read(table: Path) -> pd.DataFrame:
    if not table.is_file():
        raise ManifestError(f"{table}: no such table: give a CSV with the columns path and label")
    try:
        text = table.read_text(encoding="utf-8-sig")
        _check_fields(text, table)
        clips = pd.read_csv(io.StringIO(text), skipinitialspace=True, **AS_TEXT)
    except UnicodeDecodeError as error:
        raise ManifestError(f"{table}: not a text file in UTF-8: save it as UTF-8 CSV") from error
    except (pd.errors.EmptyDataError, pd.errors.ParserError, csv.Error) as error:
        raise ManifestError(f"{table}: not a table with the columns path and label: {error}") from error
    clips.columns = clips.columns.str.strip()
    lacking = [column for column in ("path", "label") if column not in clips]
    if lacking or clips.empty:
        said = f"no column {' and '.join(lacking)}" if lacking else "no rows"
        raise ManifestError(f"{table}: {said}; needed are path and label, and there may be id, subject, split or fold")
    clips["path"] = clips["path"].str.strip().str.removeprefix("./")
    clips["label"] = clips["label"].str.strip()
    for column in ("path", "label"):
        for row in clips[column].isin(["", None]).to_numpy().nonzero()[0][:1]:
            raise ManifestError(f"{table}, row {row + 1}: no {column}: fill it in, or delete the line")
    return clips


def _check_fields(text: str, table: Path) -> None:
    """Refuse a row with more fields than the header, of which pandas drops some; a spreadsheet's empty ones pass."""
    rows = csv.reader(io.StringIO(text), skipinitialspace=True)
    columns = None
    for row in filter(any, rows):
        columns = columns or len(row)
        if any(row[columns:]):
            raise ManifestError(
                f"{table}, line {rows.line_num}: {len(row)} fields, the header has {columns}: put quotes around what "
                "has a comma, or delete what is too much"
            )
