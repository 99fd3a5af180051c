"""DFEW (Jiang et al. 2020): 7 classes, 5 folds, frames of cropped faces."""

from pathlib import Path, PurePosixPath

import pandas as pd

from adatosk.datasets.base import DataSet, Media, from_folds, read_lines, read_pairs
from adatosk.manifests import ManifestError

CLASSES = ("happy", "sad", "neutral", "angry", "surprise", "disgust", "fear")
# The lists count the classes from 1.
LABELS = {str(number): name for number, name in enumerate(CLASSES, start=1)}
TREE = """\
  EmoLabel_DataSplit/
    train(single-labeled)/set_1.csv … set_5.csv     (or train/)
    test(single-labeled)/set_1.csv … set_5.csv      (or test/)
  Clip/clip_224x224/00001/*.jpg …                   frames, or
  Clip/clip_224x224_16f/00001/*.jpg …               16 frames a clip, or
  Clip/original/part_1/1.mp4 …                      videos"""


def clip_id(path: PurePosixPath) -> str | None:
    """Numbers padded to five digits, as the frame folders are; the lists and videos do not pad them."""
    name = path.stem if path.suffix else path.name
    return name.zfill(5) if name.isdigit() else None


def members(lists: Path) -> pd.DataFrame:
    """Id, label and test fold of every clip in the five pairs of lists."""

    def read(fold: int, split: str) -> dict[str, str]:
        """Labels by id of one split list."""
        folder = lists / f"{split}(single-labeled)"
        path = (folder if folder.is_dir() else lists / split) / f"set_{fold}.csv"
        header, *lines = read_lines(path)
        if header[1].replace(" ", "") != "video_name,label":
            raise ManifestError(f"{header[0]}: the first line must be 'video_name,label', not '{header[1]}'")
        pairs = read_pairs(lines, LABELS, ",")
        padded = {name.zfill(5): label for name, label in pairs.items()}
        if len(padded) < len(pairs):
            raise ManifestError(
                f"{path}: a clip is listed twice, with and without leading zeros: keep one of the lines"
            )
        return padded

    return from_folds(read, 5, lists)


DFEW = DataSet(
    name="dfew",
    version="single-labeled, 5 folds",
    classes=CLASSES,
    tree=TREE,
    media=(
        Media("frames", "Clip/clip_224x224/*", True, "Clip/clip_224x224/{id}"),
        Media("frames_16", "Clip/clip_224x224_16f/*", True, "Clip/clip_224x224_16f/{id}"),
        Media("videos", "Clip/original/part_*/*", False, "Clip/original/{id}.mp4"),
    ),
    clip_id=clip_id,
    members=members,
    lists=("EmoLabel_DataSplit",),
)
