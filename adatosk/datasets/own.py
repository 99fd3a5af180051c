"""A user's own videos: a folder and a CSV of labels become a manifest, and a manifest becomes a run."""

import hashlib
import posixpath
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from adatosk.config import RunConfig
from adatosk.datasets.base import VIDEO_SUFFIXES
from adatosk.manifests import COLUMNS, Manifest, ManifestError, checked_classes, load
from adatosk.presets import PROFILES
from adatosk.utils.paths import absent, short
from adatosk.utils.project import MANIFESTS
from adatosk.utils.tables import read_table, read_text
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
    """Build the manifest of videos, or frame folders, under ``root`` from a CSV.

    Args:
        table: CSV with the columns ``path`` (relative to ``root``) and ``label`` (a name), and optionally ``id``,
            ``subject``, and ``split`` or ``fold``. Column names in any case, semicolons or tabs instead of commas, a
            byte-order mark and Windows line endings are accepted.
        root: folder of the clips.
        classes: names in the order of the model's outputs; by default those that occur, sorted.
        folds: number of folds to create if the table has neither ``split`` nor ``fold``; if it has subjects, no subject
            is in two folds.
        seed: seed of the assignment to folds.

    Raises:
        ManifestError: naming the file and line, and missing clips.
    """
    table, root = Path(table), Path(root)
    clips, where = _listed(table)
    first = {label: row for row, label in clips["label"].drop_duplicates().items()}
    classes = checked_classes(
        sorted(first) if classes is None else classes,
        lambda name: where(first[name]) if name in first else str(table),
    )
    dealt = not any(column in clips and clips[column].notna().any() for column in ("split", "fold"))
    manifest = Manifest(name, version, classes, clips.assign(fold=1) if dealt else clips, where)
    clips = manifest.clips
    if dealt:
        subjects = clips["subject"] if clips["subject"].notna().any() else None
        try:
            found = assign_folds(clips["label"], subjects, folds, seed, clips["id"])
        except ManifestError as error:
            raise ManifestError(f"{table}: {error}") from error
        clips["fold"] = pd.Series(found, dtype="Int64")  # in place, for all else has been checked
    if missing := absent(root, clips["path"]):
        listed = "".join(f"\n  {where(row)}: {why}" for row, why in list(missing.items())[:10])
        raise ManifestError(f"{table}: {len(missing)} of {len(clips)} clips are not under {root}:{listed}")
    return manifest


def run_on(manifest: str | Path, profile: str = "demo", **changes: Any) -> RunConfig:
    """A run on a manifest of one's own: a profile's model and training, with the manifest's classes.

    In a set with folds, the first one is the test fold; of fewer training clips than a batch holds, all are one batch.

    Args:
        manifest: the file that :meth:`adatosk.manifests.Manifest.save` wrote.
        profile: ``demo`` trains on a CPU, ``paper`` is the paper's model, for a GPU; see :mod:`adatosk.presets`.
        **changes: deviations, as in :meth:`adatosk.config.RunConfig.change`, such as ``train={"epochs": 30}``.

    Raises:
        ManifestError: the manifest is missing or wrong.
        ValueError: for an unknown profile or an impossible change.
    """
    if profile not in PROFILES:
        raise ValueError(f"unknown profile '{profile}': choose {', '.join(PROFILES)}")
    path = Path(manifest).resolve()
    clips, base = load(path), PROFILES[profile]
    if len(clips.classes) < 2:
        raise ManifestError(f"{path}: its only class is '{clips.classes[0]}': label clips of at least two")
    # A file of data_manifests is named as runs on the packaged sets name theirs, the same on every machine.
    name = path.name if path.parent == MANIFESTS.resolve() else str(path)
    run = base.change(
        model={"classes": clips.classes},
        data={"manifest": name, "fold": clips.folds[0] if clips.folds else None},
    ).change(**changes)
    count = len(clips.subset("train", run.data.fold, run.data.exclusions))
    return run if count >= run.train.batch_size else run.change(train={"batch_size": count})


def _listed(table: Path) -> tuple[pd.DataFrame, Callable[[int], str]]:
    """The rows of a user's CSV with ``path``, ``label`` and ``id``; and a function that locates a row, for messages."""
    if not table.is_file():
        raise ManifestError(f"{table}: no such table: give a CSV with the columns path and label")
    clips, lines = read_table(table, read_text(table), ("path", "label"), COLUMNS)
    if clips.empty:
        raise ManifestError(f"{table}: no rows below the names of the columns: list a clip in each")

    def where(row: int) -> str:
        return f"{table}, line {lines[row]}"

    for column in ("path", "label"):
        texts = [(text or "").strip().removeprefix("./" if column == "path" else "") for text in clips[column]]
        if not all(texts):
            raise ManifestError(f"{where(texts.index(''))}: no {column}: fill it in, or delete the line")
        clips[column] = pd.Series(texts, dtype=object)
    if "id" not in clips:
        clips["id"] = pd.Series(map(_without_suffix, clips["path"]), dtype=object)
        _check_derived_ids(clips, where)
    return clips, where


def assign_folds(
    labels: Sequence[str], subjects: Sequence[str] | None, folds: int, seed: int = 0, ids: Sequence[str] | None = None
) -> np.ndarray:
    """Folds 1 … ``folds`` with nearly the same number of clips of each class, int64 ``(clips,)``.

    Whole subjects are assigned, the largest first, each to the fold whose counts it brings closest to an equal share;
    without subjects, every clip is its own group.

    Raises:
        ManifestError: there are fewer subjects than folds, or a clip has no subject.
    """
    alone = ids if ids is not None else np.arange(len(labels)).astype(str)
    groups = np.asarray(subjects if subjects is not None else alone)
    if pd.isna(groups).any():
        raise ManifestError("some clips have no subject: fill in all of them, or leave the column out")
    names, members = np.unique(groups, return_inverse=True)
    if not 2 <= folds <= len(names):
        what = "subjects" if subjects is not None else "clips"
        raise ManifestError(f"{folds} folds of {len(names)} {what}: give at least 2 folds and at most one each")
    _, kinds = np.unique(np.asarray(labels), return_inverse=True)
    counts: list[dict[int, int]] = [{} for _ in names]
    for member, kind in zip(members.tolist(), kinds.tolist(), strict=True):
        counts[member][kind] = counts[member].get(kind, 0) + 1
    sizes = np.bincount(members).tolist()
    # A digest breaks ties: it depends on names and seed, and not on the order of rows.
    digests = [hashlib.sha256(f"{seed},{name}".encode()).hexdigest() for name in names]
    order = sorted(range(len(names)), key=lambda group: (-sizes[group], digests[group]))
    dealt = _deal([counts[group] for group in order], (np.bincount(kinds) / folds).tolist(), folds)
    home = np.empty(len(names), dtype=np.int64)
    home[order] = dealt
    return home[members]


def _deal(groups: Sequence[Mapping[int, int]], share: Sequence[float], folds: int) -> list[int]:
    """Assign a fold, from 1, to each group in turn.

    Args:
        groups: number of clips of each class in a group; classes without clips are omitted, as they have no effect.
        share: number of clips of each class that a fold should have.
    """
    totals, sizes, found = [[0] * folds for _ in share], [0] * folds, []

    @cache
    def further(kind: int, total: int, count: int) -> float:
        """How much further off its share a fold gets, in units of that share, or the rare classes would not count."""
        return ((total + count - share[kind]) ** 2 - (total - share[kind]) ** 2) / share[kind]

    @cache
    def rounded(kind: int, total: int, count: int) -> float:
        return round(further(kind, total, count), 9)

    for group in groups:
        if len(group) == 1:  # the most frequent by far where clips stand for themselves
            ((kind, count),) = group.items()
            added = [rounded(kind, total, count) for total in totals[kind]]
        else:
            parts = [[further(kind, total, count) for total in totals[kind]] for kind, count in group.items()]
            added = [round(sum(part), 9) for part in zip(*parts, strict=True)]
        # Among equals the emptiest, so that no fold stays without a clip.
        *_, best = min(zip(added, sizes, range(folds), strict=True))
        for kind, count in group.items():
            totals[kind][best] += count
            sizes[best] += count
        found.append(best + 1)
    return found


def _without_suffix(path: str) -> str:
    """The path without a video's suffix; what follows a dot in a folder's name, such as ``take.2``, is its own."""
    clip = posixpath.normpath(path)
    stem, suffix = posixpath.splitext(clip)
    return stem if suffix.lower() in CLIP_SUFFIXES else clip


def _check_derived_ids(clips: pd.DataFrame, where: Callable[[int], str]) -> None:
    """Refuse two clips that differ in their suffix only; one that is listed twice is found with all other tables."""
    for row in clips["id"].duplicated().to_numpy().nonzero()[0]:
        first = (clips["id"] == clips["id"][row]).idxmax()
        one, other = clips["path"][first], clips["path"][row]
        if posixpath.normpath(one) != posixpath.normpath(other):
            raise ManifestError(
                f"{where(row)}: '{short(one)}' and '{short(other)}' would have the same id "
                f"'{short(clips['id'][row])}', their path without suffix: add a column 'id' that names each clip"
            )
