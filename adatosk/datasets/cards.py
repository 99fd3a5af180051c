"""Cards: the contents of a complete data set, and how a user's copy differs from it."""

from pathlib import Path, PurePosixPath
from typing import Self

import pandas as pd
import yaml
from pydantic import Field, ValidationError, model_validator

from adatosk.config import Frozen
from adatosk.manifests import Manifest, ManifestError, label_digest
from adatosk.utils.paths import ABSENT, absent
from adatosk.utils.project import MANIFESTS
from adatosk.utils.strict import parse_yaml
from adatosk.utils.tables import read_text

COLUMNS = ("what", "where", "expected", "found")


class Expectation(Frozen):
    """One list of clips; ``fold`` is ``None`` for a set with one split, ``sha256`` of the sorted lines ``id,label``."""

    split: str
    clips: int
    sha256: str
    classes: dict[str, int]
    fold: int | None = None


class Card(Frozen):
    """A file ``data_manifests/<set>.yaml``.

    Attributes:
        name, title, version: of the set.
        classes: in the order of a model's outputs.
        request: where to ask for the set or to download it.
        licence, citation: in one line each.
        layout: description of its folders and labels.
        folds: how it is split into train and test.
        excluded: ids that are deliberately left out, with the reason.
        expected: every list of clips.
    """

    name: str
    title: str
    version: str
    classes: tuple[str, ...]
    request: str
    licence: str
    citation: str
    layout: str
    folds: str
    expected: tuple[Expectation, ...]
    excluded: dict[str, str] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        for entry in self.expected:
            if set(entry.classes) != set(self.classes) or sum(entry.classes.values()) != entry.clips:
                raise ValueError(f"{entry.split}, fold {entry.fold}: the counts do not fit the classes or the clips")
        return self


def load_card(name: str | Path) -> Card:
    """The card of a set of the project by its name, or any card by its path."""
    path = Path(name)
    if not path.suffix:
        path = MANIFESTS / f"{name}.yaml"
    if not path.is_file():
        raise ManifestError(f"{path}: no such card")
    try:
        return Card.model_validate(parse_yaml(read_text(path, "fetch the card again")))
    except (yaml.YAMLError, ValidationError, RecursionError) as error:
        raise ManifestError(f"{path}: not a card of a data set: {error}") from error


def expectations(manifest: Manifest) -> tuple[Expectation, ...]:
    """A manifest's contents in the form of a card."""
    found = []
    for fold in manifest.folds or (None,):
        for split in ("train", "test"):
            # Not `subset`, which refuses a split without clips: a copy may contain a single fold.
            clips = manifest.clips[manifest.members(split, fold)]
            counts = clips["label"].value_counts()
            classes = {name: int(counts.get(name, 0)) for name in manifest.classes}
            sha256 = label_digest(clips)
            found.append(Expectation(split=split, fold=fold, clips=len(clips), sha256=sha256, classes=classes))
    return tuple(found)


def verify(manifest: Manifest, card: Card, root: str | Path | None = None) -> pd.DataFrame:
    """How a manifest differs from its card, and the files under ``root`` from the manifest.

    Returns:
        one row per difference with the columns ``what``, ``where``, ``expected`` and ``found``; empty without any.
        With a root, it includes every missing clip and every clip on disk that is not listed. If the set's file names
        follow a rule (CREMA-D, RAVDESS), it names, even without a root, each clip that is missing, superfluous, or in
        the wrong class or fold; for the other sets, the card has only counts and digests.
    """
    rows = []
    if manifest.classes != card.classes:
        rows.append(("classes", card.name, " ".join(card.classes), " ".join(manifest.classes)))
    expected = {(entry.fold, entry.split): entry for entry in card.expected}
    found = {(entry.fold, entry.split): entry for entry in expectations(manifest)}
    for key in sorted(expected.keys() | found.keys(), key=str):
        where = key[1] if key[0] is None else f"fold {key[0]}, {key[1]}"
        if key not in expected or key not in found:
            listed, here = ("yes" if key in there else "no" for there in (expected, found))
            rows.append(("list of clips", where, listed, here))
            continue
        rows += _differences(where, expected[key], found[key])
    if rows:
        rows += _by_name(manifest, card)
    held = set(manifest.clips["id"])
    rows += [("excluded clip", name, "left out", "listed") for name in sorted(held & set(card.excluded))]
    if root is not None:
        rows += _on_disk(manifest, card, Path(root))
    return pd.DataFrame(rows, columns=list(COLUMNS))


def _differences(where: str, expected: Expectation, found: Expectation) -> list[tuple]:
    if expected.sha256 == found.sha256:
        return []
    rows = [] if expected.clips == found.clips else [("clips", where, expected.clips, found.clips)]
    for name in sorted(expected.classes.keys() | found.classes.keys()):
        counts = expected.classes.get(name, 0), found.classes.get(name, 0)
        if counts[0] != counts[1]:
            rows.append((f"clips of {name}", where, *counts))
    return rows or [("ids or labels", where, f"sha256 {expected.sha256[:12]}…", f"sha256 {found.sha256[:12]}…")]


def _by_name(manifest: Manifest, card: Card) -> list[tuple]:
    """Differences, clip by clip, from the set's naming rule; none if the card is of another set."""
    from adatosk.datasets import DATASETS

    entry = DATASETS.get(card.name)
    if entry is None or entry.names is None:
        return []
    table = entry.members(entry.names())
    rule = Manifest(card.name, card.version, card.classes, table.assign(path=table["id"]))
    if expectations(rule) != card.expected:
        return []
    whole, held = (clips.set_index("id")[["label", "fold", "path"]] for clips in (rule.clips, manifest.clips))
    rows = [
        ("missing clip", name, f"{row.label}, fold {row.fold}", "nothing")
        for name, row in whole[~whole.index.isin(held.index)].iterrows()
    ]
    extra = held["path"][~held.index.isin(whole.index)]
    rows += [("extra clip", name, "nothing", path) for name, path in extra.items()]
    common = held.index.intersection(whole.index)
    for column in ("label", "fold"):
        pairs = zip(common, whole.loc[common, column], held.loc[common, column], strict=True)
        rows += [(column, name, expected, found) for name, expected, found in pairs if str(expected) != str(found)]
    return rows


def _on_disk(manifest: Manifest, card: Card, root: Path) -> list[tuple]:
    """Listed clips that are missing, and clips next to listed ones that are not listed."""
    from adatosk.datasets import DATASETS

    clips = manifest.clips
    rows = [
        ("missing clip", clips["id"][row], clips["path"][row], "nothing" if why.endswith(ABSENT) else why)
        for row, why in absent(root, clips["path"]).items()
    ]
    listed = {PurePosixPath(path) for path in clips["path"]}
    known = DATASETS[card.name].clip_id if card.name in DATASETS else lambda path: path.stem
    kinds = {path.suffix for path in listed}
    for folder in sorted({path.parent for path in listed}):
        if not (root / folder).is_dir():
            continue
        for entry in sorted((root / folder).iterdir()):
            path = folder / entry.name
            if path in listed or path.suffix not in kinds or entry.name.startswith("."):
                continue
            name = known(path)
            if name is not None and name not in card.excluded:
                rows.append(("extra clip", name, "nothing", str(path)))
    return rows
