"""A folder of videos with a table of labels becomes a manifest."""

import hashlib
import re
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from fakes import FOLDS
from media import moving_frames, write_frames, write_video

from adatosk import manifests
from adatosk.datasets import assign_folds, from_csv, run_on
from adatosk.manifests import ManifestError
from adatosk.presets import PROFILES
from adatosk.train import Trainer
from adatosk.utils.project import Places


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


def test_a_manifest_becomes_a_run_of_its_own_classes(own):
    listed = from_csv(
        csv(own, "path,label\n" + "".join(f"{path},{'ab'[i % 2]}\n" for i, path in enumerate(PATHS))), own
    )
    run = run_on(listed.save(own / "m.csv"), "smoke", train={"epochs": 9})
    assert run.model.classes == ("a", "b") and run.data.fold == 1 and run.train.epochs == 9
    assert run.train.batch_size == len(listed.subset("train", 1)) < PROFILES["smoke"].train.batch_size
    assert manifests.manifest_of(run).digest == listed.digest
    Trainer(run, Places(own, own, own))  # refuses other classes than the manifest's
    with pytest.raises(
        ValueError, match=r"are not the model's .*: set model\.classes to them, as adatosk\.datasets\.run_on"
    ):
        Trainer(run.change(model={"classes": ("b", "a")}), Places(own, own, own))
    whole = run_on(manifests.manifest_path(PROFILES["smoke"]), "smoke")
    assert whole == PROFILES["smoke"]  # the name alone, so that the run has the same id on every machine
    with pytest.raises(ValueError, match="unknown profile 'tiny': choose smoke, demo"):
        run_on(own / "m.csv", "tiny")


def test_a_run_needs_two_classes(own):
    only = from_csv(csv(own, "path,label,split\nvideos/0.mp4,sad,train\nvideos/1.mp4,sad,test\n"), own)
    with pytest.raises(manifests.ManifestError, match="its only class is 'sad': label clips of at least two"):
        run_on(only.save(own / "m.csv"), "smoke")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "labels.csv: not a table"),
        ("path,label\n", "labels.csv: no rows below the names of the columns"),
        ("file,label\na,b\n", "labels.csv: no column 'path' in line 1; it has 'file', 'label', separated by commas"),
        ("videos/0.mp4,sad\nvideos/1.mp4,sad\n", "no column 'path', 'label' in line 1; it has 'videos/0.mp4', 'sad'"),
        ("path label\nvideos/0.mp4 sad\n", "it has 'path label': the first line names the columns, such as 'path,l"),
        ("path,label,Path\nvideos/0.mp4,sad,b\n", "labels.csv: line 1 has two columns 'path': rename or delete one"),
        ("path,label\nvideos/0.mp4,\n", "labels.csv, line 2: no label"),
        ("path,label\nvideos/0.mp4,sad\nvideos/1.mp4\n", "labels.csv, line 3: 1 fields, the header has 2"),
        ("path;label\nvideos/0.mp4;sad;x\n", "line 2: 3 fields, .*put quotes around what has a semicolon"),
        ('path,label\nvideos/0.mp4,"sad\nvideos/1.mp4,sad\n', r"labels.csv: not a table .*\(line 2: unexpected end"),
        ("path,label\n" + "x" * 1_000_000 + ",sad\n", r"labels.csv: not a table .*\(line 2: field larger"),
        ("path,label\n" + "x" * 1000 + ",sad\nvideos/1.mp4,sad\n", r"line 2: .x{80}… \(1,000 characters\)"),
        ("path,label\nvideos/0.mp4,s\0d\nvideos/1.mp4,sad\n", "line 2: class name .* cannot be printed"),
        ("path,label\nvideos/0\0.mp4,sad\nvideos/1.mp4,sad\n", r"line 2: .*a path cannot have a NUL byte"),
        ("path,label\nC:\\videos\\0.mp4,sad\n", r"labels.csv, line 2: path 'C:.*' is absolute"),
        ("path,label\n\\\\server\\0.mp4,sad\n", r"labels.csv, line 2: path .* is absolute"),
        ("path,label\nvideos\\0.mp4,sad\n", r"line 2: path .* has backslashes: write 'videos/0.mp4'"),
        ('path,label\n"videos/\n0.mp4",sad\n', "labels.csv, line 2: path .* has a line break"),
        ("path,label,id\nvideos/0.mp4,sad,x\nvideos/1.mp4,sad,x\n", "'x' is listed twice, for 'videos/0.mp4' and"),
        (
            "path,label\nvideos/0.mp4,Sad\nvideos/1.mp4,sad\n",
            "labels.csv, line 3: class 'sad' and 'Sad' differ in case only",
        ),
        (
            "path,label\nvideos/0.mp4,tru\u0308b\nvideos/1.mp4,tr\u00fcb\n",
            "labels.csv, line 3: class 'tr\u00fcb' and 'tru\u0308b' differ in how letters are encoded only",
        ),
        (
            "path,label\nvideos/0.mp4,sad\nvideos/9.mp4,glad\n",
            "1 of 2 clips are not under .*:\n  .*labels.csv, line 3: videos/9.mp4",
        ),
        ("path,label\nvideos/0.mp4,sad\nvideos/0.mp4,sad\n", "'videos/0' is listed twice"),
        ("path,label\n../0.mp4,sad\nvideos/0.mp4,sad\n", "leaves the root"),
        (
            "path,label\nvideos/0.mp4,very sad\nvideos/1.mp4,sad\n",
            "labels.csv, line 2: class name 'very sad' has a space",
        ),
        ("path,label\nvideos/0.mp4,sad\n.,sad\n", r"labels\.csv, line 3: path '\.' is the root itself"),
        ("path,label\nvideos/0.mp4,sad\n./,sad\n", "line 3: no path"),
        ("path,label\nvideos/0.mp4,sad\n ,sad\n", "labels.csv, line 3: no path"),
        ("path,label\nvideos/0.mp4,sad\nvideos/1.mp4, \n", "labels.csv, line 3: no label"),
        ("path,label\nvideos/0.mp4,sad,x\nvideos/1.mp4,sad,y\n", "labels.csv, line 2: 3 fields, the header has 2"),
        ("path,label\r\nvideos/0.mp4,sad\r\n\r\nvideos/1,2.mp4,sad\r\n", "line 4: 3 fields, the header has 2"),
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


READ = "path,label,subject\nvideos/0.mp4,sad,a\nvideos/1.mp4,glad,b\nvideos/2.mp4,sad,b\n"


@pytest.mark.parametrize(
    ("change", "encoding"),
    [
        (lambda text: text.replace(",", ";"), "utf-8"),
        (lambda text: text.replace(",", "\t"), "utf-8"),
        (lambda text: text.replace(",", " | "), "utf-8"),
        (lambda text: "sep=;\n" + text.replace(",", ";"), "utf-8"),
        (lambda text: text.replace("path,label", "Path,LABEL"), "utf-8-sig"),
        (lambda text: text.replace("path,label", " path ,label "), "utf-8"),
        (lambda text: text.replace("\n", ",,\r\n") + ",,,,\r\n", "utf-8"),
        (lambda text: text.replace("\n", "\r"), "utf-8"),
        (
            lambda text: text.replace(",subject", ",subject,split").replace("a\n", "a,\n").replace("b\n", "b,\n"),
            "utf-8",
        ),
        (lambda text: text.replace("videos/1.mp4", '"videos/1.mp4"'), "utf-8"),
        (
            lambda text: "\n".join(f"{n - 1 if n else ''},{line}" for n, line in enumerate(text.split("\n")[:4])),
            "utf-8",
        ),
    ],
)
def test_tables_as_spreadsheets_write_them_are_read(own, change, encoding):
    expected = from_csv(csv(own, READ), own, folds=2)
    path = own / "other.csv"
    path.write_bytes(change(READ).encode(encoding))
    found = from_csv(path, own, folds=2)
    assert (found.digest, found.classes) == (expected.digest, expected.classes)
    assert list(found.clips["path"]) == list(expected.clips["path"])
    assert list(found.clips["subject"]) == ["a", "b", "b"]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (READ.encode("utf-16"), "labels.csv: not a text file in UTF-8 but text in UTF-16: save it as CSV in UTF-8"),
        (READ.encode("utf-16-le"), "labels.csv: not a text file in UTF-8 but text in UTF-16 or another"),
        (
            READ.replace("glad", "fröh").encode("cp1252"),
            r"not a text file in UTF-8 \(line 3 has byte 0xf6\)",
        ),
        (b"PK\x03\x04\x14\x00\x06\x00[Content_Types].xml", "labels.csv: not a text file in UTF-8 but a spreadsheet or"),
        (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "labels.csv: not a text file in UTF-8 but an Excel workbook"),
        (b"\x1f\x8b\x08\x00", "labels.csv: not a text file in UTF-8 but compressed"),
    ],
)
def test_files_that_are_no_text_are_named_for_what_they_are(own, content, said):
    (own / "labels.csv").write_bytes(content)
    with pytest.raises(ManifestError, match=said):
        from_csv(own / "labels.csv", own)
    with pytest.raises(ManifestError, match=said):
        manifests.load(own / "labels.csv")


ROWS = [
    "videos/0.mp4,0,sad,train",
    "videos/0.mp4,0,sad,train,,",
    "videos/0.mp4,0,sad,train,x",
    "videos/0.mp4,0,sad",
    "videos/0.mp4,0,,train",
    "videos/0.mp4,,sad,train",
    ",0,sad,train",
    "./,0,sad,train",
    "../0.mp4,0,sad,train",
    "/videos/0.mp4,0,sad,train",
    "C:/videos/0.mp4,0,sad,train",
    "videos\\0.mp4,0,sad,train",
    "videos/0.mp4,0,Sad,train",
    "videos/0.mp4,0,very sad,train",
    "videos/0.mp4,0,sad,dev",
    "videos/0.mp4,0,sad,",
    'videos/0.mp4,"0\n1",sad,train',
    '"videos/0.mp4,0,sad,train',
    'videos/0.mp4,"0"1,sad,train',
    'videos/0.mp4, "0",sad,train',
    "videos/1.mp4,1,glad,train",
    "  ,,,",
    "x" * 200_000 + ",0,sad,train",
]


@pytest.mark.parametrize("row", ROWS)
def test_a_manifest_refuses_the_rows_that_a_table_of_labels_does(own, row):
    text = f"path,id,label,split\nvideos/1.mp4,1,glad,test\n{row}\nvideos/2.mp4,2,sad,train\n"
    (own / "m.csv").write_text(f"# name: own\n# classes: glad sad\n{text}", encoding="utf-8")
    said = []
    for read in (
        lambda: from_csv(csv(own, text), own, classes=("glad", "sad")),
        lambda: manifests.load(own / "m.csv"),
    ):
        try:
            said.append(read().digest)
        except ManifestError as error:
            said.append(re.sub(r"^.*?(labels|m)\.csv|line \d+", "", str(error)))
    assert said[0].replace("./: ", "") == said[1] or row.startswith("./")


def test_videos_that_differ_in_their_suffix_need_ids(own):
    write_video(own / "videos" / "0.avi", moving_frames(8, 32, 32, 7))
    text = "path,label,split\nvideos/0.mp4,sad,train\nvideos/0.avi,sad,test\n"
    with pytest.raises(ManifestError, match=r"line 3: 'videos/0.mp4' and 'videos/0.avi' .* same id 'videos/0'"):
        from_csv(csv(own, text), own)
    ids = text.replace("label", "id,label").replace(".mp4,", ".mp4,a,").replace(".avi,", ".avi,b,")
    assert list(from_csv(csv(own, ids), own).clips["id"]) == ["a", "b"]


def test_clips_behind_links_that_lead_nowhere_or_away_are_named(own, tmp_path_factory):
    away = tmp_path_factory.mktemp("away")
    (own / "away").symlink_to(away), (own / "circle").symlink_to("circle"), (own / "in").symlink_to("videos")
    (away / "1.mp4").touch()
    rows = "in/0.mp4,sad\naway/1.mp4,sad\ncircle,sad\ncircle/2.mp4,sad\n" + "x" * 300 + "/2.mp4,sad\n"
    with pytest.raises(ManifestError, match="4 of 5 clips are not under") as error:
        from_csv(csv(own, "path,label\n" + rows), own, folds=2)
    said = str(error.value).splitlines()[1:]
    reasons = ("leads out of the root", "lead in a circle", "lead in a circle", "")
    for number, (line, reason) in enumerate(zip(said, reasons, strict=True), start=3):
        assert f"line {number}: " in line and reason in line


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


@pytest.mark.parametrize("seed", range(20))
def test_folds_are_those_of_a_plain_loop(seed):
    """Each subject to the fold whose counts it brings nearest to their share, all written out."""
    draw = np.random.default_rng(seed)
    labels = draw.choice(["a", "b", "c"], 60, p=[0.6, 0.3, 0.1])
    subjects = draw.integers(0, 60 if seed % 2 else 12, 60).astype(str)
    folds = int(draw.integers(2, 6))
    share = {label: count / folds for label, count in Counter(labels).items()}
    sizes = Counter(subjects)
    digest = {name: hashlib.sha256(f"{seed},{name}".encode()).hexdigest() for name in sizes}
    held = [Counter() for _ in range(folds)]
    home = {}
    for name in sorted(sizes, key=lambda name: (-sizes[name], digest[name])):
        added = Counter(labels[subjects == name])

        def distance(fold, added):
            return sum((held[fold][label] + added[label] - share[label]) ** 2 / share[label] for label in share)

        further = [round(distance(fold, added) - distance(fold, Counter()), 9) for fold in range(folds)]
        best = min(range(folds), key=lambda fold: (further[fold], held[fold].total(), fold))
        held[best] += added
        home[name] = best + 1
    assert list(assign_folds(labels, subjects, folds, seed)) == [home[name] for name in subjects]


def calls(function) -> int:
    """How many Python functions are called meanwhile: what a time would tell, the same on every machine."""
    counts = Counter()
    sys.setprofile(lambda frame, event, argument: counts.update([event]))
    try:
        function()
    finally:
        sys.setprofile(None)
    return counts["call"]


def test_a_row_costs_a_few_calls(tmp_path):
    """A hundred a row, as there were, are the minute that 100,000 rows took."""

    def cost(count):
        (tmp_path / str(count)).mkdir()
        rows = []
        for number in range(count):
            (tmp_path / str(count) / f"{number}.mp4").touch()
            rows.append(f"{count}/{number}.mp4,{'abc'[number % 3]}\n")
        path = csv(tmp_path, "path,label\n" + "".join(rows))
        manifest = from_csv(path, tmp_path).save(tmp_path / "m.csv")
        return np.array([calls(lambda: from_csv(path, tmp_path)), calls(lambda: manifests.load(manifest))])

    of_table, of_manifest = (cost(900) - cost(400)) / 500
    assert of_table < 25 and of_manifest < 5
