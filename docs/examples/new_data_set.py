"""A data set with folders of its own: clips/<emotion>/<person>-<take>.mp4, two folds by person.

python docs/examples/new_data_set.py ROOT
"""

import sys
from pathlib import PurePosixPath

import pandas as pd

from adatosk.datasets import DATASETS, build
from adatosk.datasets.base import DataSet, Media

CLASSES = ("happy", "sad", "neutral")


def clip_id(path: PurePosixPath) -> str | None:
    """``happy/anna-1``; ``None`` for a folder that is no emotion."""
    return f"{path.parent.name}/{path.stem}" if path.parent.name in CLASSES else None


def members(ids: list[str]) -> pd.DataFrame:
    """Label and person are in the id; every second person is in fold 2."""
    labels, names = zip(*(name.split("/") for name in ids), strict=True)
    people = [name.split("-")[0] for name in names]
    folds = {person: 1 + place % 2 for place, person in enumerate(sorted(set(people)))}
    return pd.DataFrame({"id": ids, "label": labels, "subject": people, "fold": [folds[person] for person in people]})


DATASETS["lab"] = DataSet(
    name="lab",
    version="1",
    classes=CLASSES,
    tree="  clips/happy/anna-1.mp4 …  clips/sad/…  clips/neutral/…",
    media=(Media("videos", "clips/*/*", folders=False, missing="clips/{id}.mp4"),),
    clip_id=clip_id,
    members=members,
)

manifest = build("lab", sys.argv[1])
print(len(manifest.clips), "clips, folds", *manifest.folds)
