"""MAFW (Liu et al. 2022): 11 classes (single expression), 5 folds; clips, frames, or faces."""

from pathlib import Path, PurePosixPath

import pandas as pd

from adatosk.datasets.base import DataSet, Media, from_folds, read_lines, read_pairs

# Public code disagrees on the order; this is that of the set's own lists of labels.
CLASSES = (
    "anger",
    "disgust",
    "fear",
    "happiness",
    "neutral",
    "sadness",
    "surprise",
    "contempt",
    "anxiety",
    "helplessness",
    "disappointment",
)
TREE = """\
  Train & Test Set/single/no_caption/set_1/train.txt and test.txt … set_5     (or split/single/no_caption/)
  data/faces/00001/*.jpg …     cropped faces, or
  data/frames/00001/*.jpg …    whole frames, or
  data/clips/00001.mp4 …       videos"""


def clip_id(path: PurePosixPath) -> str | None:
    """The number, without ``.mp4``."""
    name = path.stem if path.suffix else path.name
    return name if name.isdigit() else None


def members(lists: Path) -> pd.DataFrame:
    """Id, label and test fold of every clip in the five pairs of lists."""

    def read(fold: int, split: str) -> dict[str, str]:
        path = lists / f"set_{fold}" / f"{split}.txt"
        pairs = read_pairs(read_lines(path), {name: name for name in CLASSES})
        return {name.removesuffix(".mp4"): label for name, label in pairs.items()}

    return from_folds(read, 5, lists)


MAFW = DataSet(
    name="mafw",
    version="single expression, 5 folds",
    classes=CLASSES,
    tree=TREE,
    media=(
        Media("faces", "data/faces/*", True, "data/faces/{id}"),
        Media("frames", "data/frames/*", True, "data/frames/{id}"),
        Media("clips", "data/clips/*", False, "data/clips/{id}.mp4"),
    ),
    clip_id=clip_id,
    members=members,
    lists=("Train & Test Set/single/no_caption", "split/single/no_caption", "single/no_caption"),
)
