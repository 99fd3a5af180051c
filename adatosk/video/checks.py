"""Check that every clip in a manifest can be used for training, before a run fails after hours."""

import csv
import os
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pandas as pd

from adatosk.utils.files import locked_table, write_csv
from adatosk.utils.parallel import in_chunks, side_by_side
from adatosk.utils.paths import ManifestError, resolve
from adatosk.utils.tables import defused, restored
from adatosk.video.folders import VideoError
from adatosk.video.reading import content, decode_whole, stamp

COLUMNS = ("id", "problem", "frames", "width", "height", "bytes", "digest", "stamp")
NUMBERS = ("frames", "width", "height", "bytes")

# Kinds of problems, with the texts that identify them; the first match counts.
KINDS = {
    "missing": ("no such video file",),
    "outside the root": ("leads out of the root", "leaves the root"),
    "impossible path": ("symbolic links lead in a circle", "a NUL byte", "cannot be followed"),
    "in train and test": ("in train and test at once",),
    "duplicate": ("the same content as",),
    "other length": ("the manifest says",),
    "no frames": ("(0 bytes)", "without frames", "no video in this file", "has no frames"),
    "cut short": ("cut short",),
    "damaged": (": damaged:",),
    "unreadable frame": ("not an image that can be read whole",),
    "frames of two sizes": ("frames of a clip must be of one size", "frames change their size"),
    "mixed frames": ("an image of a kind that is not read", "the same frame twice"),
    "too large": ("the memory does not hold its frames",),
    "unreadable video": ("not a video that can be read", "an animated WebP"),
}


@dataclass(frozen=True, eq=False)
class Report:
    """What :func:`check_clips` found.

    Attributes:
        name: the manifest's name.
        table: one row per clip, in the manifest's order: ``id``, ``problem`` (empty if fine), ``frames``, ``width``,
            ``height``, ``bytes`` (``Int64``, NA where unknown), ``digest`` of the content and ``stamp`` (the source's
            size and modification time).
    """

    name: str
    table: pd.DataFrame

    @property
    def broken(self) -> pd.DataFrame:
        """The rows with a problem."""
        return self.table[self.table["problem"] != ""]

    @property
    def statistics(self) -> pd.DataFrame:
        """Count, mean, spread and quartiles of frames, width, height and bytes over the clips that are fine."""
        fine = self.table[self.table["problem"] == ""]
        return fine[list(NUMBERS)].astype("float64").describe()

    @property
    def kinds(self) -> pd.Series:
        """Number of clips with each kind of problem in ``KINDS`` or ``other``, the most frequent first."""
        return self.broken["problem"].map(_kind).value_counts()

    def raise_if_broken(self, exclusions: Collection[str] = ()) -> None:
        """Raise an error if clips other than those in ``exclusions`` are broken; it names the first ten.

        Raises:
            ManifestError: some remain.
        """
        broken = self.broken[~self.broken["id"].isin(list(exclusions))]
        if broken.empty:
            return
        listed = "\n".join(f"  {row.id}: {row.problem}" for row in broken.head(10).itertuples())
        more = f"\n  … and {len(broken) - 10} more" if len(broken) > 10 else ""
        raise ManifestError(
            f"{len(broken)} of {len(self.table)} clips of '{self.name}' are broken:\n{listed}{more}\n"
            "Repair them and check again, or leave them out on purpose by listing their ids under the data "
            f"configuration's exclusions, such as exclusions={broken['id'].head(3).tolist()}."
        )


def check_clips(
    clips: pd.DataFrame,
    root: str | Path,
    name: str,
    workers: int | None = None,
    progress: bool = True,
    report: str | Path | None = None,
) -> Report:
    """Check every clip of a manifest under ``root``.

    A clip is fine if it is under the root, opens, and has all the frames that its container and the manifest state, if
    every frame decodes without damage, and if no earlier clip has the same content.

    Args:
        clips: rows with the columns of :class:`adatosk.manifests.Manifest`.
        root: folder that their paths are relative to.
        name: of the manifest.
        workers: threads; one per core by default.
        progress: show a progress bar.
        report: a CSV that is written during the check. If it exists, clips that it lists as fine and whose source has
            not changed are not opened again, so that an interrupted check resumes. A second process waits.
    """
    if report is None:
        return Report(name, _checked(clips, Path(root), name, workers, progress, None))
    report = Path(report)
    with locked_table(report):
        table = _checked(clips, Path(root), name, workers, progress, report)
        write_csv(report, table, index=False)
    return Report(name, table)


def _checked(
    clips: pd.DataFrame, root: Path, name: str, workers: int | None, progress: bool, report: Path | None
) -> pd.DataFrame:
    """The report's table; each row is also appended to the file as soon as it is known."""
    found = _resume(report, clips, root) if report is not None else _empty()
    left = clips[~clips["id"].isin(found["id"])]
    jobs = [
        (row.id, row.path, None if pd.isna(row.frames) else int(row.frames)) for row in left.itertuples(index=False)
    ]
    chunks, rows = in_chunks(jobs), []
    with side_by_side(workers, progress) as each:
        for _, part in each(partial(_look_at, root), chunks, f"Checking {name}"):
            rows += part
            if report is not None:
                defused(_table(part)).to_csv(report, mode="a", header=False, index=False)
    table = _table([*found.itertuples(index=False, name=None), *rows]).set_index("id")
    return _name_duplicates(table.loc[clips["id"]].reset_index()[list(COLUMNS)], clips)


def _look_at(root: Path, jobs: Sequence[tuple[str, str, int | None]]) -> list[tuple]:
    return [_look_at_clip(root, *job) for job in jobs]


def _look_at_clip(root: Path, name: str, relative: str, stated: int | None) -> tuple:
    """One row of the report."""
    try:
        path = resolve(root, relative)
        _check_links(root, relative, path)
        frames, width, height = decode_whole(path)
        size, digest = content(path)
    except (VideoError, ManifestError, OSError) as error:
        return (name, " ".join(str(error).split()), None, None, None, None, "", "")
    problem = "" if stated in (None, frames) else f"{path}: {frames} frames, the manifest says {stated}"
    return (name, problem, frames, width, height, size, digest, _stamp(path))


def _check_links(root: Path, relative: str, folder: Path) -> None:
    """ManifestError if a frame of a folder is a link that leads out of the root."""
    if folder.is_dir():
        with os.scandir(folder) as entries:
            links = sorted(entry.name for entry in entries if entry.is_symlink())
        for name in links:
            resolve(root, f"{relative}/{name}")


def _kind(problem: str) -> str:
    return next((kind for kind, texts in KINDS.items() if any(text in problem for text in texts)), "other")


def _name_duplicates(table: pd.DataFrame, clips: pd.DataFrame) -> pd.DataFrame:
    """Mark clips with the same content as an earlier one, and whether one is in train and the other in test."""
    table = table.copy()
    member = clips["split"].where(clips["fold"].isna(), "fold " + clips["fold"].astype("string"))
    first: dict[str, int] = {}
    for row, (digest, problem) in enumerate(zip(table["digest"], table["problem"], strict=True)):
        if not digest or problem:
            continue
        other = first.setdefault(digest, row)
        if other != row:
            same, leak = table["id"].iloc[other], member.iloc[other] != member.iloc[row]
            text = f"the same content as clip '{same}'"
            text += (
                f", and they are in train and test at once ({member.iloc[other]}, {member.iloc[row]})" if leak else ""
            )
            table.loc[row, "problem"] = f"{clips['path'].iloc[row]}: {text}"
    return table


def _stamp(path: Path) -> str:
    return "-".join(map(str, stamp(path)))


def _resume(report: Path, clips: pd.DataFrame, root: Path) -> pd.DataFrame:
    """Rows of an earlier report that are still valid; the file is rewritten with only these, ready for appending."""
    kept = _empty()
    if report.is_file():
        old = _read_report(report).drop_duplicates("id", keep="last").set_index("id")
        stated = clips.set_index("id")["frames"].astype("string").fillna("")
        paths = clips.set_index("id")["path"]
        holds = [
            name
            for name in old.index
            if name in paths.index and _holds(root / paths[name], stated[name], old.loc[name])
        ]
        kept = _table(old.loc[holds].reset_index()[list(COLUMNS)].itertuples(index=False, name=None))
    write_csv(report, kept, index=False)
    return kept


def _read_report(report: Path) -> pd.DataFrame:
    """The complete rows of an earlier report as text.

    A kill may truncate its last row anywhere, even inside quotes or a character, which pandas cannot read.
    """
    try:
        with report.open(encoding="utf-8", errors="replace", newline="") as file:
            header, *rows = [*csv.reader(file)] or [COLUMNS]
    except csv.Error:
        header, rows = (), []
    if tuple(header) != COLUMNS:
        raise ManifestError(f"{report}: this file is not a report of a check: delete it, or name another")
    whole = [map(restored, row) for row in rows if len(row) == len(COLUMNS)]
    return pd.DataFrame(whole, columns=list(COLUMNS), dtype=str)


def _holds(path: Path, stated: str, row: pd.Series) -> bool:
    fine = row["problem"] == "" and row["stamp"] != "" and stated in ("", row["frames"])
    # Unlike Path.exists, this is false, not an error, for circular links and impossible names.
    return fine and os.path.exists(path) and _stamp(path) == row["stamp"]  # noqa: PTH110


def _empty() -> pd.DataFrame:
    return _table([])


def _table(rows: Sequence[tuple]) -> pd.DataFrame:
    table = pd.DataFrame(list(rows), columns=list(COLUMNS))
    for column in NUMBERS:
        table[column] = pd.to_numeric(table[column]).astype("Int64")
    return table
