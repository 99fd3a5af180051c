"""RAVDESS (Livingstone & Russo 2018): 8 classes, 24 actors; video-only speech, 6 folds of four actors."""

import re
from pathlib import PurePosixPath

import pandas as pd

from adatosk.datasets.base import DataSet, Media, blocks

CLASSES = ("neutral", "calm", "happy", "sad", "angry", "fearful", "disgust", "surprised")
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
    actors = sorted({NAME.fullmatch(name)[2] for name in ids})
    folds = {actor: fold for fold, block in blocks(actors, 6) for actor in block}
    rows = []
    for name in ids:
        emotion, actor = NAME.fullmatch(name).groups()
        rows.append((name, CLASSES[int(emotion) - 1], folds[actor], actor))
    return pd.DataFrame(rows, columns=["id", "label", "fold", "subject"])


RAVDESS = DataSet(
    name="ravdess",
    version="video-only speech, 6 folds of four actors",
    classes=CLASSES,
    tree=TREE,
    media=(Media("videos", "Actor_*/*", False, "Actor_{id}.mp4"),),
    clip_id=clip_id,
    members=members,
)
