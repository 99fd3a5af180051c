"""Videos and frame folders with their manifest, and what is read from them: for the tests of clips and their cache."""

from pathlib import Path

import pandas as pd
from media import moving_frames, write_frames, write_video

from adatosk.clips import ClipDataset, make_loader
from adatosk.config import DataConfig
from adatosk.manifests import Manifest

LENGTHS = (40, 9, 70, 25, 33, 1, 64, 30)


def quiet(*_):
    pass


def make_source(root: Path) -> tuple[Path, Manifest]:
    """Six videos, two frame folders and their manifest."""
    names = []
    for number, length in enumerate(LENGTHS):
        frames = moving_frames(length, 40, 50, number)
        video = number % 4 != 3
        names.append(f"{number}.mp4" if video else f"{number}")
        write_video(root / names[-1], frames) if video else write_frames(root / names[-1], frames)
    clips = pd.DataFrame(
        {
            "path": names,
            "id": [f"clip{number}" for number in range(8)],
            "label": ["happy", "sad"] * 4,
            "split": ["train"] * 6 + ["test"] * 2,
        }
    )
    return root, Manifest("own", "1", ("happy", "sad"), clips)


def dataset(source, train=True, cache=None, seed=0, image_size=24, **data):
    root, manifest = source
    config = DataConfig(manifest="own.csv", **data)
    clips = manifest.subset("train")
    return ClipDataset(clips, root, manifest.classes, 8, image_size, config, train, seed, cache)


def batches(clips, workers, epochs=(0, 1), **options):
    loader = make_loader(clips, 2, workers=workers, shuffle=True, seed=7, **options)
    found = []
    for epoch in epochs:
        loader.set_epoch(epoch)
        found.append(list(loader))
    return found
