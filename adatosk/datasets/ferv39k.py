"""FERV39k (Wang et al. 2022): 7 classes, 22 scenes, one split, frames of cropped faces."""

from pathlib import Path, PurePosixPath

import pandas as pd

from adatosk.datasets.base import DataSet, Media, from_split, read_lines, read_pairs
from adatosk.manifests import ManifestError

CLASSES = ("happy", "sad", "neutral", "angry", "surprise", "disgust", "fear")
LABELS = {name.capitalize(): name for name in CLASSES}
TREE = """\
  4_setups/All_scenes/train_All.csv and test_All.csv     (or All_scenes/)
  2_ClipsforFaceCrop/Action/Happy/0001/*.jpg …           frames, by scene and label"""


def clip_id(path: PurePosixPath) -> str | None:
    """``Scene/Label/id``, because ids restart in every folder."""
    return "/".join(path.parts[-3:])


def members(lists: Path) -> pd.DataFrame:
    """Id, label and split of every clip in the two lists."""

    def read(split: str) -> dict[str, str]:
        path = lists / f"{split}_All.csv"
        pairs = read_pairs(read_lines(path), LABELS)
        for name, label in pairs.items():
            if name.count("/") != 2 or LABELS.get(name.split("/")[1]) != label:
                raise ManifestError(f"{path}: clip '{name}' does not lie in a folder Scene/{label.capitalize()}/id")
        return pairs

    return from_split(read("train"), read("test"), lists)


FERV39K = DataSet(
    name="ferv39k",
    version="all scenes, one split",
    classes=CLASSES,
    tree=TREE,
    media=(Media("frames", "2_ClipsforFaceCrop/*/*/*", True, "2_ClipsforFaceCrop/{id}"),),
    clip_id=clip_id,
    members=members,
    lists=("4_setups/All_scenes", "All_scenes"),
)
