"""RAVDESS (Livingstone & Russo 2018): 8 classes, 24 actors; video-only speech, 6 folds of four actors."""

import re
from pathlib import PurePosixPath

import pandas as pd

from adatosk.datasets.base import DataSet, Media, fold_by_actor, from_names

CLASSES = ("neutral", "calm", "happy", "sad", "angry", "fearful", "disgust", "surprised")
ACTORS = tuple(f"{actor:02d}" for actor in range(1, 25))
FOLDS = fold_by_actor(ACTORS, 6)
# Modality 02 is video without sound, channel 01 speech.
NAME = re.compile(r"02-01-0([1-8])-0[12]-0[12]-0[12]-(\d\d)")
TREE = """\
  Actor_01/02-01-01-01-01-01-01.mp4 …    modality-channel-emotion-intensity-statement-repetition-actor
  … Actor_24/                            (or Video_Speech_Actor_01/Actor_01/ …)
  Only video-only speech (02-01-…) is taken."""


def clip_id(path: PurePosixPath) -> str | None:
    """The file's name without suffix; ``None`` for files with sound and for songs."""
    return path.stem if NAME.fullmatch(path.stem) else None


def members(ids: list[str]) -> pd.DataFrame:
    """Id, label, actor and fold: actors 1 to 4, 5 to 8, …"""

    def read(name: str) -> tuple[str, str]:
        _, _, emotion, *_, actor = name.split("-")
        return CLASSES[int(emotion) - 1], actor

    return from_names(ids, read, FOLDS)


def names() -> list[str]:
    """Ids of the 1,440 clips: two statements, twice each, at two intensities except for neutral, which has one.

    This agrees with the set's record (Zenodo 1188976): 60 trials per actor, with sound and without.
    """
    return [
        f"02-01-{emotion:02}-{intensity:02}-{statement:02}-{repetition:02}-{actor}"
        for actor in ACTORS
        for emotion in range(1, len(CLASSES) + 1)
        for intensity in ((1,) if emotion == 1 else (1, 2))
        for statement in (1, 2)
        for repetition in (1, 2)
    ]


RAVDESS = DataSet(
    name="ravdess",
    version="video-only speech, 6 folds of four actors",
    classes=CLASSES,
    tree=TREE,
    media=(Media("videos", "Actor_*/*", False, "Actor_{id}.mp4"),),
    clip_id=clip_id,
    members=members,
    names=names,
)
