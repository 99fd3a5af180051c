"""Small trees in the exact layout of each data set, with faces of the embedded renderer in place of people."""

from functools import cache
from pathlib import Path

import numpy as np
from media import write_frames, write_video

from adatosk.datasets import cremad, dfew, ferv39k, mafw, ravdess
from adatosk.synthetic import render
from adatosk.synthetic.scripts import CLASS_UNITS, BenchmarkConfig, sample_script

# What the renderer calls each set's classes.
RENDERED = {
    "happiness": "happy",
    "sadness": "sad",
    "anger": "angry",
    "calm": "contempt",
    "fearful": "fear",
    "surprised": "surprise",
}
FOLDS, SENTENCES = 5, ("DFA", "IEO", "TIE")


@cache
def _config() -> BenchmarkConfig:
    return BenchmarkConfig(
        name="fake", classes=tuple(CLASS_UNITS), train_clips=1100, train_identities=20, size=32, frames=(16, 16)
    )


@cache
def faces(label: str, number: int) -> np.ndarray:
    """A rendered clip, uint8 ``(16, 32, 32, 3)``, of a class of any of the sets; every number is another clip."""
    config = _config()
    kind = config.classes.index(RENDERED.get(label, label))
    return render(sample_script(config, "train", kind + len(config.classes) * number), config)


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


def make_dfew(root: Path, media: str = "frames") -> Path:
    """One clip of each class in each fold; numbers are padded in folders and not in lists."""
    rows = [(1 + fold * 7 + place, place + 1, fold + 1) for fold in range(FOLDS) for place in range(7)]
    for number, label, _ in rows:
        images = faces(dfew.CLASSES[label - 1], number)
        if media == "videos":
            write_video(root / "Clip" / "original" / "part_1" / f"{number}.mp4", images)
        else:
            name = {"frames": "clip_224x224", "frames_16": "clip_224x224_16f"}[media]
            write_frames(root / "Clip" / name / f"{number:05d}", images, ".jpg")
    for fold in range(1, FOLDS + 1):
        for split in ("train", "test"):
            chosen = [f"{number},{label}\n" for number, label, test in rows if (test == fold) == (split == "test")]
            path = root / "EmoLabel_DataSplit" / f"{split}(single-labeled)" / f"set_{fold}.csv"
            _write(path, "video_name,label\n" + "".join(chosen))
    return root


def make_ferv39k(root: Path) -> Path:
    """Two scenes; numbers start anew in each folder."""
    for split, count in (("train", 3), ("test", 1)):
        lines = []
        for place, name in enumerate(ferv39k.CLASSES):
            for number in range(count):
                key = f"{'Action' if place % 2 else 'War'}/{name.capitalize()}/{number + (split == 'test') * 50:04d}"
                write_frames(
                    root / "2_ClipsforFaceCrop" / key, faces(name, number + 40 * (split == "test")), ".jpg", digits=3
                )
                lines.append(f"{key} {name.capitalize()}\n")
        _write(root / "4_setups" / "All_scenes" / f"{split}_All.csv", "".join(lines))
    return root


def make_mafw(root: Path, media: str = "faces", lists: str = "Train & Test Set") -> Path:
    """One clip of each class in each fold, in any of the three forms and under either name of the folder of lists."""
    rows = [(1 + fold * 11 + place, name, fold + 1) for fold in range(FOLDS) for place, name in enumerate(mafw.CLASSES)]
    for number, name, _ in rows:
        if media == "clips":
            write_video(root / "data" / "clips" / f"{number:05d}.mp4", faces(name, number))
        else:
            write_frames(root / "data" / media / f"{number:05d}", faces(name, number), ".jpg")
    for fold in range(1, FOLDS + 1):
        for split in ("train", "test"):
            chosen = [
                f"{number:05d}.mp4 {name}\n" for number, name, test in rows if (test == fold) == (split == "test")
            ]
            _write(root / lists / "single" / "no_caption" / f"set_{fold}" / f"{split}.txt", "".join(chosen))
    return root


def make_crema_d(root: Path) -> Path:
    """An actor in each fold and one of the broken files."""
    for fold in range(FOLDS):
        for number, (code, name) in enumerate(cremad.LABELS.items()):
            sentence = SENTENCES[number % 3]
            level = "MD" if sentence == "IEO" and code != "NEU" else "XX"
            path = root / "VideoFlash" / f"{1001 + 18 * fold}_{sentence}_{code}_{level}.flv"
            write_video(path, faces(name, 50 + fold), codec="flv1")
    (root / "VideoFlash" / f"{cremad.BROKEN[0]}.flv").touch()
    return root


def make_ravdess(root: Path) -> Path:
    """An actor in each of six folds, with a file with sound and a song that are not part of the task."""
    for fold in range(6):
        actor = 1 + 4 * fold
        for number, name in enumerate(ravdess.CLASSES, start=1):
            path = root / f"Actor_{actor:02d}" / f"02-01-{number:02d}-01-01-01-{actor:02d}.mp4"
            write_video(path, faces(name, 60 + fold))
        for other in ("01-01-03-01-01-01", "02-02-03-01-01-01"):
            write_video(root / f"Actor_{actor:02d}" / f"{other}-{actor:02d}.mp4", faces("happy", 80 + fold))
    return root


MAKERS = {
    "dfew": make_dfew,
    "ferv39k": make_ferv39k,
    "mafw": make_mafw,
    "crema_d": make_crema_d,
    "ravdess": make_ravdess,
}


def make_fake(name: str, root: Path, **options: str) -> Path:
    """Render a small tree in the layout of the data set ``name`` under ``root``, which is returned."""
    return MAKERS[name](root, **options)
