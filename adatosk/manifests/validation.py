"""What a manifest may hold: its names and classes, and each row's path, id, label, and fold or split."""

import re
import unicodedata
from collections.abc import Callable, Iterable
from pathlib import PureWindowsPath

import numpy as np
import pandas as pd

from adatosk.utils.paths import ManifestError, first_fault, short
from adatosk.utils.tables import some

COLUMNS = ("path", "id", "label", "fold", "split", "frames", "subject")
REQUIRED = ("path", "id", "label")
TEXTS = ("path", "id", "label", "split", "subject")
NUMBERS = ("fold", "frames")
SPLITS = ("train", "test")
UNFIT = re.compile("[\n\r\ud800-\udfff]")
MOST = 10**9  # No data set has more folds, no clip more frames; far larger numbers overflow an int64.


def check_names(name: str, version: str, where: str) -> None:
    # Windows' rules cover the path separators of all systems.
    if not name.strip() or name == ".." or name != PureWindowsPath(name).name or name.splitlines() != [name]:
        raise ManifestError(f"{where}: name {name!r} cannot be part of a file's name: write e.g. 'own'")
    if len((version + ".").splitlines()) > 1:
        raise ManifestError(f"{where}: version {version!r} has a line break: write it on one line")


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


def checked_clips(clips: pd.DataFrame, classes: tuple[str, ...], where: Callable[[int], str]) -> pd.DataFrame:
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
