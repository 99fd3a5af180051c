"""Shared by all builders: finding a set's folders, reading its lists, and joining the two."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import pandas as pd

from adatosk.manifests import Manifest, ManifestError, label_fault
from adatosk.utils.paths import absent
from adatosk.utils.tables import read_text

# Archives often unpack into a folder of their own.
NESTING = ("", "*/", "*/*/")
VIDEO_SUFFIXES = frozenset(
    {".mp4", ".m4v", ".avi", ".flv", ".mkv", ".mov", ".webm", ".wmv", ".mpg", ".mpeg", ".mts", ".3gp"}
)


class LayoutError(ManifestError):
    """A folder does not contain the data set; the message shows the expected tree."""


@dataclass(frozen=True)
class Media:
    """One form in which a set ships its clips.

    Attributes:
        name: its name for the user.
        pattern: glob of the clips relative to the set's folder, such as ``data/faces/*``.
        folders: whether clips are folders of frames instead of video files.
        missing: the expected path of a missing clip, with ``{id}``.
    """

    name: str
    pattern: str
    folders: bool
    missing: str


@dataclass(frozen=True)
class DataSet:
    """The layout of a data set on disk.

    Attributes:
        name, version, classes: of the manifest.
        tree: the expected layout, printed when it is not found.
        media: its forms, the preferred one first.
        clip_id: maps a relative path to the clip's id, or to ``None`` if it is not part of the set.
        lists: globs of the folder with the split lists; empty if file names contain the labels.
        members: returns a table with ``id``, ``label``, ``fold`` or ``split``, and possibly ``subject``, from the
            folder of lists or, without lists, from the ids found.
        names: all ids of the set if its file names follow a rule, so that missing clips can be named.
    """

    name: str
    version: str
    classes: tuple[str, ...]
    tree: str
    media: tuple[Media, ...]
    clip_id: Callable[[PurePosixPath], str | None]
    members: Callable[..., pd.DataFrame]
    lists: tuple[str, ...] = ()
    names: Callable[[], list[str]] | None = None


def build_set(dataset: DataSet, root: str | Path, media: str | None, report: Callable[[str], None]) -> Manifest:
    """See :func:`adatosk.datasets.build`."""
    root = Path(root)
    if not root.is_dir():
        raise LayoutError(f"{root}: no such folder; {dataset.name} is expected as\n{dataset.tree}")
    lists = find_folder(dataset, root) if dataset.lists else None
    form, prefix, found = _find_media(dataset, root, media, report)
    table = dataset.members(lists) if lists is not None else dataset.members(sorted(found))
    missing = [name for name in table["id"] if name not in found]
    where = f", lists in {lists.relative_to(root)}" if lists is not None else ""
    extra = len(set(found) - set(table["id"]))
    report(
        f"{dataset.name}: clips are {form.name} ({prefix}{form.pattern}){where}; {len(table)} are listed, "
        f"{len(missing)} of them missing; {extra} others lie beside them"
    )
    _check_reachable(root, [found[name] for name in table["id"] if name in found])
    paths = [found.get(name, prefix + form.missing.format(id=name)) for name in table["id"]]
    # Faces and whole frames are different images of the same clips, so runs on them must have different ids.
    version = f"{dataset.version}; {form.name}"
    return Manifest(dataset.name, version, dataset.classes, table.assign(path=paths))


def _check_reachable(root: Path, paths: Sequence[str]) -> None:
    """Refuse, like a check, a folder of clips that is a link to another disk."""
    if away := absent(root, paths):
        listed = "".join(f"\n  {why}" for why in list(away.values())[:5])
        raise LayoutError(f"{root}: {len(away)} of {len(paths)} clips cannot be reached without leaving it:{listed}")


def find_folder(dataset: DataSet, root: Path) -> Path:
    """The folder of the set's split lists."""
    for nesting in NESTING:
        for pattern in dataset.lists:
            for folder in sorted(root.glob(nesting + pattern)):
                if folder.is_dir():
                    return folder
    raise LayoutError(_not_found(dataset, root, f"split lists ({' or '.join(dataset.lists)})"))


def find_clips(dataset: DataSet, root: Path, form: Media) -> tuple[str, dict[str, str]]:
    """Parent folders of the form's pattern, and the relative path of each clip by id."""
    for nesting in NESTING:
        found: dict[str, str] = {}
        for path in sorted(root.glob(nesting + form.pattern)):
            relative = PurePosixPath(path.relative_to(root).as_posix())
            wanted = path.is_dir() if form.folders else path.suffix.lower() in VIDEO_SUFFIXES
            if path.name.startswith(".") or not wanted:
                continue
            name = dataset.clip_id(relative)
            if name is None:
                continue
            if name in found:
                raise LayoutError(f"{root}: {found[name]} and {relative} are both clip '{name}': move one of them away")
            found[name] = str(relative)
        if found:
            depth = nesting.count("/")
            prefix = "".join(f"{part}/" for part in PurePosixPath(next(iter(found.values()))).parts[:depth])
            return prefix, found
    return "", {}


def _find_media(
    dataset: DataSet, root: Path, media: str | None, report: Callable[[str], None]
) -> tuple[Media, str, dict[str, str]]:
    names = [form.name for form in dataset.media]
    if media is not None and media not in names:
        raise LayoutError(f"{dataset.name} has no '{media}': choose one of {', '.join(names)}")
    forms = [(form, *find_clips(dataset, root, form)) for form in dataset.media]
    there = [entry for entry in forms if entry[2] and media in (None, entry[0].name)]
    if not there:
        raise LayoutError(_not_found(dataset, root, f"clips ({media or ' or '.join(names)})"))
    others = [form.name for form, _, found in forms if found and form is not there[0][0]]
    if others:
        report(f"{dataset.name}: {', '.join(others)} are there as well; choose with media='{others[0]}'")
    return there[0]


def _not_found(dataset: DataSet, root: Path, what: str) -> str:
    entries = sorted(path.name for path in root.iterdir() if not path.name.startswith("."))
    held = ", ".join(entries[:8]) + (", …" if len(entries) > 8 else "") if entries else "nothing"
    return f"{root}: no {what} of {dataset.name} here; the folder holds {held}. Expected is\n{dataset.tree}"


def read_lines(path: Path) -> list[tuple[str, str]]:
    """``(file and line, text)`` of every non-blank line; byte-order mark and Windows line endings are accepted."""
    if not path.is_file():
        raise ManifestError(f"{path}: this list is missing: unpack the set's annotations again")
    lines = read_text(path, "unpack the set's annotations again").split("\n")
    found = [(f"{path}, line {number}", line.strip()) for number, line in enumerate(lines, 1) if line.strip()]
    if not found:
        raise ManifestError(f"{path}: this list is empty: unpack the set's annotations again")
    return found


def read_pairs(lines: list[tuple[str, str]], labels: Mapping[str, str], separator: str | None = None) -> dict[str, str]:
    """Class names by the first field of each line; the second field is a key of ``labels``.

    Raises:
        ManifestError: a malformed line, an unknown label or a repeated id; the message names file and line.
    """
    found: dict[str, str] = {}
    for where, line in lines:
        fields = [field.strip() for field in line.split(separator)]
        if len(fields) != 2 or not all(fields):
            raise ManifestError(f"{where}: '{line}' is not a clip and its label: unpack the set's annotations again")
        name, label = fields
        if label not in labels:
            raise ManifestError(f"{where}: {label_fault(label, tuple(labels))}")
        if name in found:
            raise ManifestError(f"{where}: clip '{name}' is listed twice: keep one of the lines")
        found[name] = labels[label]
    return found


def from_split(train: Mapping[str, str], test: Mapping[str, str], where: Path) -> pd.DataFrame:
    """Members of a set with one split, from class names by id."""
    _no_leak(train, test, str(where))
    rows = [(name, label, "train") for name, label in train.items()]
    rows += [(name, label, "test") for name, label in test.items()]
    return pd.DataFrame(rows, columns=["id", "label", "split"])


def from_folds(read: Callable[[int, str], Mapping[str, str]], folds: int, where: Path) -> pd.DataFrame:
    """Members of a set with ``folds`` lists of train and test, from ``read(fold, split)``: class names by id.

    The test lists must partition the clips, and each train list must contain all others.
    """
    tests = {fold: read(fold, "test") for fold in range(1, folds + 1)}
    rows, seen = [], {}
    for fold, test in tests.items():
        for name, label in test.items():
            if name in seen:
                raise ManifestError(f"{where}: clip '{name}' is in the test lists of folds {seen[name][1]} and {fold}")
            seen[name] = (label, fold)
            rows.append((name, label, fold))
    for fold, test in tests.items():
        train = read(fold, "train")
        _no_leak(train, test, f"{where}, fold {fold}")
        for name, label in train.items():
            if name not in seen:
                raise ManifestError(f"{where}: clip '{name}' trains in fold {fold} and is in no fold's test list")
            if label != seen[name][0]:
                raise ManifestError(
                    f"{where}: clip '{name}' is {label} in fold {fold}'s train list and {seen[name][0]} in fold "
                    f"{seen[name][1]}'s test list"
                )
        absent = sorted(set(seen) - set(train) - set(test))
        if absent:
            raise ManifestError(f"{where}: clip '{absent[0]}' and {len(absent) - 1} more are in no list of fold {fold}")
    return pd.DataFrame(rows, columns=["id", "label", "fold"])


def _no_leak(train: Mapping[str, str], test: Mapping[str, str], where: str) -> None:
    both = sorted(set(train) & set(test))
    if both:
        listed = ", ".join(both[:10]) + (", …" if len(both) > 10 else "")
        raise ManifestError(f"{where}: {len(both)} clips are in train and test at once: {listed}")


def fold_by_actor(actors: Sequence[str], folds: int) -> dict[str, int]:
    """Fold of each of a set's actors: ``folds`` blocks of equal size, the last including the remainder."""
    size = len(actors) // folds
    return {actor: min(place // size + 1, folds) for place, actor in enumerate(actors)}


def from_names(names: Iterable[str], read: Callable[[str], tuple[str, str]], folds: Mapping[str, int]) -> pd.DataFrame:
    """Members of a set by file name: ``read(id)`` returns label and actor, ``folds`` is the fold of each actor.

    Folds are those of the complete set, so that missing actors in a copy do not change the folds of the others.
    """
    rows = []
    for name in names:
        label, actor = read(name)
        if actor not in folds:
            raise ManifestError(f"clip '{name}': the set has no actor {actor}: rename the file, or move it away")
        rows.append((name, label, folds[actor], actor))
    return pd.DataFrame(rows, columns=["id", "label", "fold", "subject"])
