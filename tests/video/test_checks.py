"""Checks of all clips of a manifest: what is wrong with each, and what is not looked at again."""

import os
import threading

import numpy as np
import pandas as pd
import pytest
from clip_tables import clip_table
from media import moving_frames, truncate, write_frames, write_video

from adatosk.manifests import Manifest, ManifestError
from adatosk.video import VideoError, checks, count_frames, decode_all, open_stream, read_clip
from adatosk.video.checks import Report


def opened_by(monkeypatch) -> list[str]:
    """Names of the clips that are decoded from now on."""
    opened, decode = [], checks.decode_whole
    monkeypatch.setattr(checks, "decode_whole", lambda path: opened.append(path.name) or decode(path))
    return opened


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
    clips = clip_table(
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
    opened = opened_by(monkeypatch)
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
    root, whole = planted
    path = tmp_path / "check.csv"
    first = whole.check(root, progress=False, report=path)
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"" if torn is None else b"".join(line for line in lines if b"cut" not in line) + torn)
    opened = opened_by(monkeypatch)
    again = whole.check(root, progress=False, report=path)
    assert ("fine.mp4" in opened) == (torn is None) and "cut.mp4" in opened
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
    whole = Manifest("own", "1", ("happy", "sad"), clip_table(path=paths, id=["=1+1", *"bcdefg", "@x"]))
    for _ in range(2):  # the second time from the report
        report = whole.check(tmp_path, progress=False, report=tmp_path / "report.csv")
        problems = list(report.table["problem"])
        assert list(report.table["id"]) == list(whole.clips["id"])
        assert problems[0] == problems[-1] == ""
        assert all("symbolic links lead in a circle" in problem for problem in problems[1:4])
        assert all("NUL byte" in problems[place] for place in (4, 6)) and "cannot be followed" in problems[5]
        assert report.kinds.to_dict() == {"impossible path": 6}
    assert [line.split(",")[0] for line in (tmp_path / "report.csv").read_text().splitlines()][1] == "'=1+1"


def test_a_frame_that_is_a_link_out_of_the_root_is_told(tmp_path):
    root = tmp_path / "root"
    for name in ("inside", "outside"):
        write_frames(root / name, moving_frames(4, 24, 24))
    write_frames(tmp_path, moving_frames(1, 24, 24), first=5)
    (root / "inside" / "5.png").symlink_to(root / "outside" / "1.png")
    (root / "outside" / "5.png").symlink_to(tmp_path / "5.png")
    clips = clip_table(path=["inside", "outside"])
    report = Manifest("own", "1", ("happy", "sad"), clips).check(root, progress=False)
    assert report.table["frames"].fillna(0).tolist() == [5, 0]
    assert report.table["problem"][1].startswith("outside/5.png: a symbolic link leads out of the root")
    assert report.kinds.to_dict() == {"outside the root": 1}


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs pipes with names")
def test_a_pipe_is_not_waited_for(tmp_path):
    write_video(tmp_path / "fine.mp4", moving_frames(4, 24, 24))
    write_frames(tmp_path / "folder", moving_frames(4, 24, 24))
    os.mkfifo(tmp_path / "pipe.mp4"), os.mkfifo(tmp_path / "folder" / "5.png")
    (tmp_path / "device.mp4").symlink_to("/dev/zero")
    clips = clip_table(path=["pipe.mp4", "folder", "fine.mp4"])
    report = []
    looking = threading.Thread(
        target=lambda: report.append(Manifest("own", "1", ("happy", "sad"), clips).check(tmp_path, 1, False)),
        daemon=True,  # so that one that waits for ever ends with the tests
    )
    looking.start()
    looking.join(60)
    problems = report[0].table["problem"]
    assert "not a video that can be read (a pipe, socket or device): save it as a file" in problems[0]
    assert "5.png: not an image that can be read whole" in problems[1] and problems[2] == ""
    for read in (read_clip, decode_all, count_frames, open_stream):
        with pytest.raises(VideoError, match=r"device\.mp4: not a video that can be read \(a pipe"):
            read(tmp_path / "device.mp4")


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
    rows = pd.DataFrame({"id": [str(i) for i in range(30)], "problem": ["broken"] * 30})
    with pytest.raises(ManifestError, match="and 20 more"):
        Report("own", rows).raise_if_broken()
    assert np.all(Report("own", rows).broken["id"] == rows["id"])
