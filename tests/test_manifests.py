import hashlib

import numpy as np
import pandas as pd
import pytest
from media import moving_frames, truncate, write_frames, write_video

from adatosk import manifests
from adatosk.manifests import Manifest, ManifestError

HEADER = "# name: own\n# version: 1\n# classes: happy sad\n"


def table(**columns) -> pd.DataFrame:
    count = len(next(iter(columns.values()))) if columns else 4
    base = {
        "path": [f"v/{i}.mp4" for i in range(count)],
        "id": [str(i) for i in range(count)],
        "label": ["happy", "sad"] * (count // 2) + ["happy"] * (count % 2),
    }
    if not {"split", "fold"} & set(columns):
        base["split"] = ["train"] * (count - 1) + ["test"]
    return pd.DataFrame(base | columns)


def manifest(**columns) -> Manifest:
    return Manifest("own", "1", ("happy", "sad"), table(**columns))


def write(tmp_path, text: str):
    path = tmp_path / "m.csv"
    path.write_bytes(text.encode())
    return path


def test_saves_and_loads_what_pandas_reads(tmp_path):
    whole = manifest(fold=[1, 2, 1, 2], frames=[5, None, 7, 8], subject=["ann", "ben", None, "ann"])
    path = whole.save(tmp_path / "deep" / "own.csv")
    read = manifests.load(path)
    pd.testing.assert_frame_equal(read.clips, whole.clips)
    assert (read.name, read.version, read.classes, read.digest) == ("own", "1", ("happy", "sad"), whole.digest)
    assert list(pd.read_csv(path, comment="#")["fold"]) == [1, 2, 1, 2]
    assert [file.name for file in path.parent.iterdir()] == ["own.csv"]


def test_names_that_a_csv_could_mistake_survive(tmp_path):
    names = ["007", "NA", "a#b", 'say "x", y']
    read = manifests.load(manifest(id=names, path=[f"v/{name}.mp4" for name in names]).save(tmp_path / "m.csv"))
    assert list(read.clips["id"]) == names
    assert list(pd.read_csv(tmp_path / "m.csv", comment="#")["path"])[2] == "v/a#b.mp4"


def test_failed_save_leaves_the_old_file(tmp_path, monkeypatch):
    path = manifest().save(tmp_path / "m.csv")
    before = path.read_bytes()
    monkeypatch.setattr(pd.DataFrame, "to_csv", lambda *_, **__: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        manifest(label=["sad"] * 4).save(path)
    assert path.read_bytes() == before
    assert len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize("start", ["", "\ufeff"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_byte_order_mark_and_line_ends_are_accepted(tmp_path, start, end):
    text = HEADER + "# clips: 2\n\npath,id,label,split\nv/a.mp4,a,happy,train\nv/b.mp4,b,sad,test\n"
    read = manifests.load(write(tmp_path, start + text.replace("\n", end)))
    assert list(read.clips["label"]) == ["happy", "sad"]


def test_digest_is_of_ids_labels_and_membership_only():
    text = "0,happy,train,\n1,sad,train,\n2,happy,train,\n3,sad,test,"
    first = manifest()
    assert first.digest == hashlib.sha256(text.encode()).hexdigest()
    shuffled = Manifest("other", "2", first.classes, first.clips.sample(frac=1, random_state=0).assign(frames=3))
    assert shuffled.digest == first.digest
    for column, value in (("id", "9"), ("label", "happy"), ("split", "train")):
        changed = first.clips.copy()
        changed.loc[3, column] = value
        assert Manifest("own", "1", first.classes, changed).digest != first.digest
    assert first.label_digest(["1", "0"]) == hashlib.sha256(b"0,happy\n1,sad").hexdigest()


def test_folds_split_into_test_and_the_rest():
    folds = manifest(fold=[1, 2, 1, 3])
    assert folds.folds == (1, 2, 3)
    assert list(folds.subset("test", 1)["id"]) == ["0", "2"]
    assert list(folds.subset("train", 1)["id"]) == ["1", "3"]
    assert list(folds.subset("train", 1, exclusions=["3"])["id"]) == ["1"]
    assert list(manifest().subset("test")["id"]) == ["3"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("test", None), "needs a fold: choose one of 1, 2"),
        (("test", 5), "has no fold 5: choose one of 1, 2"),
        (("val", 1), "'train' or 'test'"),
        (("test", 1, ["nobody"]), "has no clip 'nobody'"),
        (("test", 1, ["0", "2"]), "no clips in test, fold 1"),
    ],
)
def test_impossible_subsets_are_refused(arguments, said):
    with pytest.raises(ManifestError, match=said):
        manifest(fold=[1, 2, 1, 2]).subset(*arguments)
    with pytest.raises(ManifestError, match="no fold 1"):
        manifest().subset("test", 1)


ROWS = "path,id,label,split\nv/a.mp4,a,happy,train\n"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "m.csv: the manifest is empty"),
        ("\n \n", "m.csv: the manifest is empty"),
        (HEADER, "m.csv: not a table"),
        (HEADER + "path,id,label,split\n", "lists no clips"),
        ("# name: x\n" + ROWS, r"no header line '# classes: …'"),
        (HEADER.replace("# name: own\n", "") + ROWS, r"no header line '# name: …'"),
        (HEADER + "# clips: 3\n" + ROWS, "header says 3 clips, the table has 1"),
        (HEADER + "path,label\nv/a.mp4,happy\n", "m.csv: no column 'id'"),
        (HEADER + ROWS + "v/b.mp4,b,sat,test\n", "m.csv, line 6: unknown label 'sat': the classes are happy, sad"),
        (HEADER + ROWS + "\n# note\nv/b.mp4,b,Sad,test\n", r"line 8: unknown label 'Sad': write 'sad' \(case"),
        (HEADER.replace("sad", "Happy") + ROWS, "'Happy' and 'happy' differ in case only"),
        (HEADER.replace("sad", "happy") + ROWS, "'happy' is listed twice"),
        (HEADER + ROWS + "v/b.mp4,a,sad,train\n", "line 6: id 'a' is listed twice"),
        (HEADER + ROWS + "v/b.mp4,a,happy,test\n", "line 6: id 'a' is in train and test at once"),
        (HEADER + ROWS + "/v/b.mp4,b,sad,test\n", "line 6: path '/v/b.mp4' is absolute"),
        (HEADER + ROWS + "C:/v/b.mp4,b,sad,test\n", "line 6: .* is absolute"),
        (HEADER + ROWS + "v/../../b.mp4,b,sad,test\n", "line 6: .* leaves the root"),
        (HEADER + ROWS + "v\\b.mp4,b,sad,test\n", "line 6: .* has backslashes: write 'v/b.mp4'"),
        (HEADER + ROWS + "v/b.mp4,,sad,test\n", "line 6: no id"),
        (HEADER + ROWS + "v/b.mp4,b,sad,val\n", "line 6: split 'val' is neither"),
        (HEADER + ROWS + "v/b.mp4,b,sad,\n", "line 6: the clip has neither a split nor a fold"),
        (HEADER + ROWS + "v/b.mp4,b,sad,test,1,2\n", "m.csv, line 6: 6 fields, the header has 4"),
        (HEADER + "path,id,label,fold\nv/a.mp4,a,sad,one\n", "line 5: fold 'one' is not a whole number"),
        (HEADER + "path,id,label,fold,split\nv/a.mp4,a,sad,1,train\n", "line 5: the clip has both"),
        (
            HEADER + "path,id,label,fold,split\nv/a.mp4,a,sad,1,\nv/b.mp4,b,sad,,test\n",
            "line 6: some clips have a fold",
        ),
        (HEADER + "path,id,label,fold\na.mp4,a,sad,1\nb.mp4,a,sad,2\n", "in the test of folds 1 and 2 at once"),
    ],
)
def test_every_fault_is_one_error_that_names_file_and_line(tmp_path, text, said):
    with pytest.raises(ManifestError, match=said) as error:
        manifests.load(write(tmp_path, text))
    assert "m.csv" in str(error.value)


def test_missing_and_binary_files_are_named(tmp_path):
    with pytest.raises(ManifestError, match=r"gone\.csv: no such manifest"):
        manifests.load(tmp_path / "gone.csv")
    (tmp_path / "b.csv").write_bytes(b"\xff\xfe\x00\x01")
    with pytest.raises(ManifestError, match=r"b\.csv: not a text file"):
        manifests.load(tmp_path / "b.csv")


def test_faults_in_memory_name_the_clip():
    with pytest.raises(ManifestError, match="manifest 'own', clip 1: unknown label 'sat'"):
        manifest(label=["sad", "sat"])
    with pytest.raises(ManifestError, match="has a space"):
        Manifest("own", "1", ("very happy", "sad"), table())


@pytest.mark.parametrize("name", ["", " ", ".", "..", "../../up", "my/set", "my\\set", "C:", "two\nlines", "own\n"])
def test_names_become_part_of_file_names(tmp_path, name):
    with pytest.raises(ManifestError, match=r"name .* cannot be part of a file's name"):
        Manifest(name, "1", ("happy", "sad"), table())
    if name.strip() and "\n" not in name:
        with pytest.raises(ManifestError, match=r"m\.csv: name .* cannot be part of a file's name"):
            manifests.load(write(tmp_path, HEADER.replace("own", name) + ROWS))


@pytest.mark.parametrize("version", ["1\n2", "1\n", "\r"])
def test_versions_are_one_line(version):
    with pytest.raises(ManifestError, match=r"manifest 'own': version .* has a line break"):
        Manifest("own", version, ("happy", "sad"), table())
    assert Manifest("my own.set", "", ("happy", "sad"), table()).name == "my own.set"


def test_resolve_never_leaves_the_root(tmp_path):
    root, outside = tmp_path / "root", tmp_path / "outside"
    root.mkdir(), outside.mkdir()
    (outside / "x.mp4").touch(), (root / "y.mp4").touch()
    (root / "out").symlink_to(outside), (root / "in").symlink_to(root / "y.mp4")
    assert manifests.resolve(root, "in") == (root / "y.mp4").resolve()
    assert manifests.resolve(root, "not/yet.mp4") == root.resolve() / "not" / "yet.mp4"
    for relative in ("out/x.mp4", "../outside/x.mp4", str(outside / "x.mp4")):
        with pytest.raises(ManifestError, match=r"leads out of the root|leaves the root|is absolute"):
            manifests.resolve(root, relative)


FORMULAS = [
    "=1+1",
    "+1+1",
    "-1+1",
    "@SUM(1)",
    "=cmd|' /C calc'!A0",
    "'=1+1",
    "''-x",
    "-",
    "'quoted'",
    "-5",
    "1e3",
    "a=b",
]


def test_no_spreadsheet_runs_a_cell_of_a_manifest(tmp_path):
    names = [*FORMULAS, "a\0b", "x;y", "ü", "a\tb", "=a#b"]
    paths = [f"{name.replace('/', '_')}.mp4" for name in names]
    whole = manifest(id=names, path=paths, subject=names)
    path = whole.save(tmp_path / "m.csv")
    pd.testing.assert_frame_equal(manifests.load(path).clips, whole.clips)
    cells = pd.read_csv(path, comment="#", dtype=str, keep_default_na=False).to_numpy().ravel()
    assert not [cell for cell in cells if cell.startswith(("=", "+", "@")) or (cell.startswith("-") and cell != "-5")]


@pytest.mark.parametrize("column", ["path", "id", "subject"])
@pytest.mark.parametrize(("text", "said"), [("a\nb", "a line break"), ("a\rb", "break"), ("\udcff", "no UTF-8")])
def test_what_a_line_of_a_table_cannot_hold_is_refused(column, text, said):
    with pytest.raises(ManifestError, match=f"{column} .* {said}"):
        manifest(**{column: ["0", text]})


def test_hashes_inside_a_row_are_no_comment(tmp_path):
    read = manifests.load(write(tmp_path, HEADER + "# note\n" + ROWS + "v/b#1.mp4,b,sad,train\n"))
    assert list(read.clips["path"]) == ["v/a.mp4", "v/b#1.mp4"]


@pytest.mark.parametrize("separator", [";", "\t", ","])
def test_a_manifest_that_a_spreadsheet_saved_is_read(tmp_path, separator):
    pad = 3 * separator
    text = "".join(f"{line}{pad}\n" for line in (*HEADER.splitlines(), "# clips: 1"))
    read = manifests.load(
        write(tmp_path, text + ROWS.title().replace("Happy,Train", "happy,train").replace(",", separator))
    )
    assert read.classes == ("happy", "sad") and list(read.clips["label"]) == ["happy"]


@pytest.mark.parametrize("path", ["1:30.mp4", "12:30.mp4", "..a.mp4", "a..b/c.mp4", ".a", "a./b"])
def test_names_that_only_look_like_drives_or_parents_are_paths(path):
    assert manifest(path=[path, "b"]).clips["path"][0] == path


@pytest.fixture
def planted(tmp_path):
    """A root with every fault that a check has to find, and the manifest over it."""
    root = tmp_path / "data"
    kinds = {"fine": 0, "copy": 0, "cut": 2, "short": 3, "linked": 4}
    for name, seed in kinds.items():
        write_video(root / f"{name}.mp4", moving_frames(12, 32, 40, seed), faststart=True)
    truncate(root / "cut.mp4", 0.7)
    (root / "linked.mp4").rename(tmp_path / "linked.mp4")
    (root / "linked.mp4").symlink_to(tmp_path / "linked.mp4")
    for name, seed in {"folder": 5, "dim": 6}.items():
        write_frames(root / name, moving_frames(9, 24, 24, seed), ".jpg")
    truncate(root / "dim" / "6.jpg", 0.8)
    write_frames(root / "one", moving_frames(1, 24, 24, 7))
    (root / "none").mkdir()
    (root / "text.mp4").write_text("a note\n" * 50)
    names = ["fine", "copy", "cut", "short", "linked", "folder", "dim", "one", "none", "text", "gone"]
    videos = {*kinds, "text", "gone"}
    clips = table(
        id=names,
        path=[f"{name}.mp4" if name in videos else name for name in names],
        frames=[20 if name == "short" else None for name in names],
        split=["train", "test"] * 5 + ["train"],
    )
    return root, Manifest("own", "1", ("happy", "sad"), clips)


def test_check_finds_every_planted_fault(planted, tmp_path):
    root, whole = planted
    report = whole.check(root, progress=False)
    problems = report.table.set_index("id")["problem"]
    said = {
        "copy": "the same content as clip 'fine', and they are in train and test at once",
        "cut": "cut short",
        "short": "12 frames, the manifest says 20",
        "linked": "leads out of the root",
        "dim": "6.jpg: not an image",
        "none": "without frames",
        "text": "not a video",
        "gone": "no such video file",
    }
    assert set(report.broken["id"]) == set(said)
    for name, text in said.items():
        assert text in problems[name], name
    rows = report.table.set_index("id")
    assert tuple(rows.loc["fine", ["frames", "width", "height"]]) == (12, 40, 32)
    assert rows.loc["fine", "bytes"] == (root / "fine.mp4").stat().st_size
    assert tuple(rows.loc["one", ["frames", "width", "height"]]) == (1, 24, 24)
    assert report.statistics.loc["count", "frames"] == 3
    with pytest.raises(ManifestError, match="8 of 11 clips of 'own' are broken") as error:
        report.raise_if_broken()
    assert "exclusions" in str(error.value)
    with pytest.raises(ManifestError, match="1 of 11"):
        report.raise_if_broken([name for name in said if name != "cut"])
    report.raise_if_broken(list(said))


def test_check_goes_on_where_it_stopped(planted, tmp_path, monkeypatch):
    root, whole = planted
    path = tmp_path / "reports" / "check.csv"
    first = whole.check(root, progress=False, report=path)
    # A kill leaves some rows, the last of them torn.
    lines = path.read_text().splitlines()
    fine = [line for line in lines if line.split(",")[0] in ("fine", "folder", "one")]
    path.write_text("\n".join([lines[0], fine[0], fine[1], fine[2][: len(fine[2]) // 2]]))
    opened = []
    from adatosk.video import checks

    decode = checks.decode_whole
    monkeypatch.setattr(checks, "decode_whole", lambda path: opened.append(path.name) or decode(path))
    again = whole.check(root, progress=False, report=path)
    assert {"fine.mp4", "folder"}.isdisjoint(opened) and {"one", "cut.mp4"} <= set(opened)
    monkeypatch.undo()
    # One that was repaired is looked at again.
    write_video(root / "cut.mp4", moving_frames(12, 32, 40, 2))
    last = whole.check(root, progress=False, report=path)
    assert set(first.broken["id"]) - set(last.broken["id"]) == {"cut"}
    assert len(again.table) == len(last.table) == 11
    saved = pd.read_csv(path)
    assert list(saved["id"]) == list(whole.clips["id"])
    assert saved.set_index("id").loc["copy", "problem"].count("same content")


def test_what_a_killed_check_left_is_swept(planted, tmp_path):
    root, whole = planted
    folder = tmp_path / "reports"
    path, other = folder / "a[1].check.csv", folder / ".a[1].check.csv2.12.part"
    folder.mkdir()
    for part in (folder / ".a[1].check.csv.4711.part", other):
        part.touch()
    whole.check(root, progress=False, report=path)
    assert sorted(folder.iterdir()) == sorted([path, other])


@pytest.mark.parametrize("torn", [b'cut,"a.mp4: 12 frames, the', b"cut,a.mp4: 12\xc3", b"\0\0\0", b"", None])
def test_a_report_torn_anywhere_is_gone_on_with(planted, tmp_path, monkeypatch, torn):
    """A problem with commas is quoted, and pandas reads nothing of a file that ends inside quotes."""
    from adatosk.video import checks

    root, whole = planted
    path = tmp_path / "check.csv"
    first = whole.check(root, progress=False, report=path)
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"" if torn is None else b"".join(line for line in lines if b"cut" not in line) + torn)
    looked, opened = checks._look_at_clip, []
    monkeypatch.setattr(checks, "_look_at_clip", lambda root, *job: opened.append(job[0]) or looked(root, *job))
    again = whole.check(root, progress=False, report=path)
    assert ("fine" in opened) == (torn is None) and "cut" in opened
    pd.testing.assert_frame_equal(again.table, first.table)


def test_check_looks_again_at_a_folder_of_which_a_frame_was_overwritten(planted, tmp_path):
    root, whole = planted
    path = tmp_path / "check.csv"
    first = whole.check(root, progress=False, report=path)
    image = root / "folder" / "4.jpg"
    image.write_bytes(image.read_bytes()[:-20] + bytes(20))  # damaged, and as large as before
    again = whole.check(root, progress=False, report=path)
    assert set(again.broken["id"]) - set(first.broken["id"]) == {"folder"}


def test_a_path_that_leads_nowhere_costs_no_other_clip_its_check(tmp_path):
    """A circle of links, a NUL byte, a name that no file system takes; ids that a spreadsheet would run."""
    for number in range(2):
        write_video(tmp_path / f"{number}.mp4", moving_frames(4, 32, 32, number))
    (tmp_path / "one").symlink_to("two"), (tmp_path / "two").symlink_to("one")
    (tmp_path / "self").symlink_to("self")
    paths = ["0.mp4", "one", "two/a.mp4", "self", "a\0b.mp4", "x" * 300, "\0", "1.mp4"]
    whole = manifest(path=paths, id=["=1+1", *"bcdefg", "@x"])
    for _ in range(2):  # the second time from the report
        report = whole.check(tmp_path, progress=False, report=tmp_path / "report.csv")
        problems = list(report.table["problem"])
        assert list(report.table["id"]) == list(whole.clips["id"])
        assert problems[0] == problems[-1] == ""
        assert all("symbolic links lead in a circle" in problem for problem in problems[1:4])
        assert all("NUL byte" in problems[place] for place in (4, 6)) and "cannot be followed" in problems[5]
        assert report.kinds.to_dict() == {"impossible path": 6}
    assert [line.split(",")[0] for line in (tmp_path / "report.csv").read_text().splitlines()][1] == "'=1+1"


def test_kinds_of_problems_are_counted(planted):
    root, whole = planted
    assert whole.check(root, progress=False).kinds.to_dict() == {
        "in train and test": 1,
        "cut short": 1,
        "other length": 1,
        "outside the root": 1,
        "unreadable frame": 1,
        "no frames": 1,
        "unreadable video": 1,
        "missing": 1,
    }


@pytest.mark.parametrize("text", ["a,b\n1,2\n", "id" * 100_000])
def test_check_refuses_another_file_as_its_report(planted, tmp_path, text):
    root, whole = planted
    (tmp_path / "notes.csv").write_text(text)
    with pytest.raises(ManifestError, match=r"notes\.csv: this file is not a report of a check"):
        whole.check(root, progress=False, report=tmp_path / "notes.csv")
    assert (tmp_path / "notes.csv").read_text() == text


def test_report_of_many_names_ten():
    from adatosk.video.checks import Report

    rows = pd.DataFrame({"id": [str(i) for i in range(30)], "problem": ["broken"] * 30})
    with pytest.raises(ManifestError, match="and 20 more"):
        Report("own", rows).raise_if_broken()
    assert np.all(Report("own", rows).broken["id"] == rows["id"])
