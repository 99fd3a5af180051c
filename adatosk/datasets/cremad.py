"""CREMA-D (Cao et al. 2014): 6 classes, 91 actors; labels in the file names, 5 actor-disjoint folds."""

import re
from pathlib import PurePosixPath

import pandas as pd

from adatosk.datasets.base import DataSet, Media, fold_by_actor, from_names

LABELS = {"ANG": "anger", "DIS": "disgust", "FEA": "fear", "HAP": "happy", "NEU": "neutral", "SAD": "sad"}
# Left out: known to be broken in the published set.
BROKEN = ("1064_IEO_DIS_MD", "1064_TIE_SAD_XX", "1076_MTI_NEU_XX", "1076_MTI_SAD_XX")
ACTORS = tuple(map(str, range(1001, 1092)))
SENTENCES = ("DFA", "IEO", "IOM", "ITH", "ITS", "IWL", "IWW", "MTI", "TAI", "TIE", "TSI", "WSI")
# Never published: two single clips, and three sentences, each missing for one actor. With these, the names are those
# that the set's repository lists (SentenceFilenames.csv, 7,442).
ABSENT = ("1002_TIE_NEU", "1008_WSI", "1009_MTI", "1019_ITH", "1076_ITS_NEU")
FOLDS = fold_by_actor(ACTORS, 5)
NAME = re.compile(rf"(\d{{4}})_([A-Z]{{3}})_({'|'.join(LABELS)})_(LO|MD|HI|XX?)")
TREE = """\
  VideoFlash/1001_DFA_ANG_XX.flv …    actor_sentence_EMOTION_level, or
  VideoMP4/1001_DFA_ANG_XX.mp4 …      the same, converted"""


def clip_id(path: PurePosixPath) -> str | None:
    """The file name without suffix; the level ``X`` of some copies becomes ``XX``."""
    found = NAME.fullmatch(path.stem)
    if found is None:
        return None
    actor, sentence, emotion, level = found.groups()
    name = f"{actor}_{sentence}_{emotion}_{level.replace('XX', 'X').replace('X', 'XX')}"
    return None if name in BROKEN else name


def members(ids: list[str]) -> pd.DataFrame:
    """Id, label, actor and fold: actors in order, 18 to each of the first four folds and the other 19 to the last."""
    return from_names(ids, lambda name: (LABELS[name.split("_")[2]], name[:4]), FOLDS)


def names() -> list[str]:
    """Ids of the 7,438 clips that are not broken: emotions are acted in one sentence at three levels."""
    grid = [
        f"{actor}_{sentence}_{emotion}_{level}"
        for actor in ACTORS
        for sentence in SENTENCES
        for emotion in LABELS
        for level in (("LO", "MD", "HI") if sentence == "IEO" and emotion != "NEU" else ("XX",))
    ]
    return [name for name in grid if name not in BROKEN and not name.startswith(ABSENT)]


CREMA_D = DataSet(
    name="crema_d",
    version="5 actor-disjoint folds",
    classes=tuple(LABELS.values()),
    tree=TREE,
    media=(
        Media("flash", "VideoFlash/*", False, "VideoFlash/{id}.flv"),
        Media("mp4", "VideoMP4/*", False, "VideoMP4/{id}.mp4"),
    ),
    clip_id=clip_id,
    members=members,
    names=names,
)
