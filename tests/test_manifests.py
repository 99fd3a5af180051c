import hashlib

import pandas as pd
import pytest
from clip_tables import clip_table

from adatosk import manifests
from adatosk.manifests import Manifest, ManifestError, label_digest

HEADER = "# name: own\n# version: 1\n# classes: happy sad\n"


def manifest(**columns) -> Manifest:
    return Manifest("own", "1", ("happy", "sad"), clip_table(**columns))


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
    two = first.clips[first.clips["id"].isin(["1", "0"])]
    assert label_digest(two) == hashlib.sha256(b"0,happy\n1,sad").hexdigest()


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
        (HEADER + "# Classes: sad happy\n" + ROWS, "two header lines '# classes: …', '.*' and 'sad happy': delete one"),
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
        Manifest("own", "1", ("very happy", "sad"), clip_table())


@pytest.mark.parametrize("name", ["", " ", ".", "..", "../../up", "my/set", "my\\set", "C:", "two\nlines", "own\n"])
def test_names_become_part_of_file_names(tmp_path, name):
    with pytest.raises(ManifestError, match=r"name .* cannot be part of a file's name"):
        Manifest(name, "1", ("happy", "sad"), clip_table())
    if name.strip() and "\n" not in name:
        with pytest.raises(ManifestError, match=r"m\.csv: name .* cannot be part of a file's name"):
            manifests.load(write(tmp_path, HEADER.replace("own", name) + ROWS))


@pytest.mark.parametrize("version", ["1\n2", "1\n", "\r"])
def test_versions_are_one_line(version):
    with pytest.raises(ManifestError, match=r"manifest 'own': version .* has a line break"):
        Manifest("own", version, ("happy", "sad"), clip_table())
    assert Manifest("my own.set", "", ("happy", "sad"), clip_table()).name == "my own.set"


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
