"""A folder of videos with a table of labels becomes a manifest."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from fakes import FOLDS
from media import moving_frames, write_frames, write_video

from adatosk import manifests
from adatosk.datasets import assign_folds, from_csv
from adatosk.manifests import ManifestError


@pytest.fixture
def own(tmp_path):
    """Four videos in two folders, and a folder of frames."""
    for number in range(4):
        write_video(tmp_path / "videos" / f"{number}.mp4", moving_frames(8, 32, 32, number))
    write_frames(tmp_path / "videos" / "4", moving_frames(8, 32, 32, 4))
    return tmp_path


def csv(folder: Path, text: str) -> Path:
    path = folder / "labels.csv"
    path.write_bytes(text.encode())
    return path


PATHS = [f"videos/{number}.mp4" for number in range(4)] + ["videos/4"]


def test_own_videos_become_a_manifest_with_one_call(own):
    rows = "".join(f"{path},{'happy' if i % 2 else 'sad'},{'ab'[i // 3]}\r\n" for i, path in enumerate(PATHS))
    manifest = from_csv(csv(own, "\ufeffpath,label,subject\r\n" + rows), own, folds=2)
    assert manifest.classes == ("happy", "sad") and list(manifest.clips["id"]) == [f"videos/{i}" for i in range(5)]
    assert (manifest.clips.groupby("subject")["fold"].nunique() == 1).all() and manifest.folds == (1, 2)
    assert manifest.check(own, progress=False).broken.empty
    assert manifests.load(manifest.save(own / "m.csv")).digest == manifest.digest
    given = from_csv(csv(own, "path,label,split\n./videos/0.mp4,sad,train\nvideos/1.mp4,glad,test\n"), own)
    assert list(given.subset("test")["id"]) == ["videos/1"]
    named = from_csv(csv(own, "path,label,id\nvideos/0.mp4,sad,x\nvideos/1.mp4,glad,y\n"), own, folds=2)
    assert set(named.clips["id"]) == {"x", "y"} and named.folds == (1, 2)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "labels.csv: not a table"),
        ("path,label\n", "labels.csv: no rows"),
        ("file,label\na,b\n", "labels.csv: no column path"),
        ("path,label\nvideos/0.mp4,\n", "labels.csv, row 1: no label"),
        ("path,label\nvideos/0.mp4,Sad\nvideos/1.mp4,sad\n", "'sad' and 'Sad' differ in case only"),
        ("path,label\nvideos/0.mp4,sad\nvideos/9.mp4,glad\n", "1 of 2 clips are not under"),
        ("path,label\nvideos/0.mp4,sad\nvideos/0.mp4,sad\n", "'videos/0' is listed twice"),
        ("path,label\n../0.mp4,sad\nvideos/0.mp4,sad\n", "leaves the root"),
        ("path,label\nvideos/0.mp4,very sad\nvideos/1.mp4,sad\n", "class name 'very sad' has a space"),
        ("path,label\nvideos/0.mp4,sad\n.,sad\n", r"labels\.csv: .*path '\.' is the root itself"),
        ("path,label\nvideos/0.mp4,sad\n./,sad\n", "row 2: no path"),
        ("path,label\nvideos/0.mp4,sad\n ,sad\n", "labels.csv, row 2: no path"),
        ("path,label\nvideos/0.mp4,sad\nvideos/1.mp4, \n", "labels.csv, row 2: no label"),
        ("path,label\nvideos/0.mp4,sad,x\nvideos/1.mp4,sad,y\n", "labels.csv, line 2: 3 fields, the header has 2"),
        ("path,label\r\nvideos/0.mp4,sad\r\n\r\nvideos/1,2.mp4,sad\r\n", "line 4: 3 fields, the header has 2"),
        ("path,label\n" + "x" * 200_000, "labels.csv: not a table"),
        ("path,label,fold\nvideos/0.mp4,sad,1e30\n", "fold '1e30' is not a whole number from 0 to"),
        ("path,label,subject\nvideos/0.mp4,sad,\nvideos/1.mp4,sad,a\n", "some clips have no subject"),
        ("path,label,subject\nvideos/0.mp4,sad,a\nvideos/1.mp4,sad,a\n", "2 folds of 1 subjects"),
    ],
)
def test_faults_in_own_tables_are_named(own, text, said):
    with pytest.raises(ManifestError, match=said):
        from_csv(csv(own, text), own, folds=2)
    with pytest.raises(ManifestError, match="no such table"):
        from_csv(own / "gone.csv", own)


def test_folders_keep_what_follows_a_dot(own):
    """take.1 and take.2 are two clips; empty fields that a spreadsheet adds are none."""
    for number in (1, 2):
        write_frames(own / f"take.{number}", moving_frames(2, 32, 32, number))
    (own / "videos" / "3.mp4").rename(own / "3.MP4")
    manifest = from_csv(csv(own, "path,label,\ntake.1,sad,\ntake.2/,glad,\n\n3.MP4,sad,\n"), own, folds=2)
    assert list(manifest.clips["id"]) == ["take.1", "take.2", "3"]


def test_folds_keep_subjects_whole_and_classes_even():
    generator = np.random.default_rng(0)
    subjects = generator.integers(0, 40, 600).astype(str)
    labels = generator.choice(["happy", "sad", "fear"], 600, p=[0.6, 0.3, 0.1])
    folds = assign_folds(labels, subjects, FOLDS)
    assert (pd.DataFrame({"s": subjects, "f": folds}).groupby("s")["f"].nunique() == 1).all()
    table = pd.crosstab(folds, labels)
    spread = (table.max() - table.min()) / table.mean()
    assert spread["happy"] < 0.15 and spread["sad"] < 0.15 and spread["fear"] < 0.4
    order = generator.permutation(600)
    assert np.array_equal(assign_folds(labels[order], subjects[order], FOLDS), folds[order])
    assert not np.array_equal(assign_folds(labels, subjects, FOLDS, seed=1), folds)


def test_folds_without_subjects_differ_by_one_clip_a_class():
    labels = ["happy"] * 53 + ["sad"] * 21 + ["fear"] * 7
    table = pd.crosstab(assign_folds(labels, None, FOLDS), np.array(labels))
    assert table.shape == (FOLDS, 3) and (table.max() - table.min()).max() <= 1
