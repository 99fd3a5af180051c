"""Rows of small manifests, and a manifest with folds."""

from pathlib import Path

import pandas as pd

from adatosk import manifests
from adatosk.utils.project import PROJECT


def clip_table(**columns) -> pd.DataFrame:
    count = len(next(iter(columns.values()))) if columns else 4
    base = {
        "path": [f"v/{i}.mp4" for i in range(count)],
        "id": [str(i) for i in range(count)],
        "label": ["happy", "sad"] * (count // 2) + ["happy"] * (count % 2),
    }
    if not {"split", "fold"} & set(columns):
        base["split"] = ["train"] * (count - 1) + ["test"]
    return pd.DataFrame(base | columns)


def with_folds(folder: Path) -> Path:
    """The smoke manifest, its clips dealt to three folds."""
    manifest = manifests.load(PROJECT / "data_manifests" / "embedded-smoke.csv")
    clips = manifest.clips.assign(split=None, fold=[1 + place % 3 for place in range(len(manifest.clips))])
    return manifests.Manifest(manifest.name, manifest.version, manifest.classes, clips).save(folder / "folds.csv")
