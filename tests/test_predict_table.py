"""The table of many videos: whatever stops it, its rows are kept, and the same command resumes."""

import threading
import time
from pathlib import Path

import pandas as pd
import pytest
import torch
from commands import command
from media import moving_frames, write_frames, write_video

from adatosk import create_model
from adatosk import predict_many as many
from adatosk.predict_many import expand, part_of, predict_into, predict_many
from adatosk.utils.files import locked_table

VIDEOS = 5


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("videos")
    for number in range(VIDEOS):
        write_video(root / f"{number}, a.mp4", moving_frames(64, 48, 64, seed=number))
    return root


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    torch.manual_seed(0)
    target = tmp_path_factory.mktemp("model") / "tiny"
    create_model("adatosk_tiny").save_pretrained(target)
    return target


@pytest.fixture(scope="module")
def whole(folder, model) -> pd.DataFrame:
    return predict_many(folder, model, batch_size=2, locate_face=False)


@pytest.fixture
def read(monkeypatch) -> list[str]:
    """Names of the videos that are read; one that is called as ``read.stop`` says raises ``read.error``."""

    class Names(list):
        stop, error = None, KeyboardInterrupt

    names, inner = Names(), many.read_clip

    def reading(path, *rest):
        if path.name == names.stop:
            raise names.error
        names.append(path.name)
        return inner(path, *rest)

    monkeypatch.setattr(many, "read_clip", reading)
    return names


def arguments(folder, model, out):
    return ["predict", folder, "--model", model, "--out", out, "--whole-frame", "--batch-size", 2]


def assert_whole(out: Path, whole: pd.DataFrame) -> None:
    pd.testing.assert_frame_equal(
        pd.read_csv(out, keep_default_na=False).replace("", None), whole.replace("", None), atol=1e-4
    )
    assert [path.name for path in out.parent.iterdir() if out.name in path.name] == [out.name]


def test_rows_are_kept_when_it_is_interrupted_and_the_same_command_resumes(folder, model, whole, read, tmp_path):
    out = tmp_path / "t.csv"
    out.write_text("an earlier table")
    read.stop = "3, a.mp4"
    done = command(*arguments(folder, model, out))
    assert done.exit_code == 130
    assert done.stderr == f"interrupted: {part_of(out)} keeps the rows so far; the same command resumes\n"
    assert out.read_text() == "an earlier table"
    header, *rows = part_of(out).read_text().splitlines()[1:]
    assert header.startswith("path,label,") and len(rows) == 2
    read.stop, before = None, list(read)
    done = command(*arguments(folder, model, out))
    assert done.exit_code == 0 and done.stdout == f"{out}: 5 of 5 videos\n"
    assert done.stderr == f"{part_of(out)}: resuming, 2 videos are done, 3 are left\n"
    assert sorted(read[len(before) :]) == ["2, a.mp4", "3, a.mp4", "4, a.mp4"]
    assert_whole(out, whole)


def test_rows_are_kept_when_a_batch_fails(folder, model, whole, monkeypatch, tmp_path):
    out, inner, calls = tmp_path / "t.csv", many.normalise, []

    def failing(video):
        calls.append(len(video))
        if len(calls) == 2:
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory")
        return inner(video)

    with monkeypatch.context() as patch:
        patch.setattr(many, "normalise", failing)
        done = command(*arguments(folder, model, out))
    assert done.exit_code == 1 and done.stderr.startswith("error: memory does not suffice")
    assert len(part_of(out).read_text().splitlines()) == 2 + 2
    assert command(*arguments(folder, model, out)).exit_code == 0
    assert_whole(out, whole)


@pytest.fixture
def part(folder, model, read, tmp_path) -> Path:
    """What is there after four of five videos."""
    read.stop = "4, a.mp4"
    assert command(*arguments(folder, model, tmp_path / "t.csv")).exit_code == 130
    read.stop = None
    read.clear()
    return part_of(tmp_path / "t.csv")


@pytest.mark.parametrize("cut", [0.5, 0.8, 0.95, 1])
def test_a_row_that_a_kill_cut_off_is_made_again(folder, model, whole, read, part, cut):
    content = part.read_bytes()
    header = content.index(b"stamp\n") + 6
    part.write_bytes(content[: header + int(cut * (len(content) - header)) - 1])
    left = len(content[header : len(part.read_bytes())].splitlines()) - 1
    assert command(*arguments(folder, model, part.with_suffix(""))).exit_code == 0
    assert len(read) == VIDEOS - left and left >= 1
    assert_whole(part.with_suffix(""), whole)


@pytest.mark.parametrize("other", [b",9.", b",x."])
def test_a_damaged_row_is_made_again(folder, model, whole, read, part, other):
    content = part.read_bytes()
    place = content.rindex(b",0.")
    part.write_bytes(content[:place] + other + content[place + len(other) :])
    kept = len(content.splitlines()) - 2
    assert command(*arguments(folder, model, part.with_suffix(""))).exit_code == 0
    assert_whole(part.with_suffix(""), whole)
    assert len(read) == VIDEOS - (kept - 1)


def test_rows_by_another_model_or_other_options_are_not_mixed(folder, model, part, tmp_path):
    out, before = part.with_suffix(""), part.read_bytes()
    other = tmp_path / "other"
    create_model("adatosk_tiny").save_pretrained(other)
    for line in (arguments(folder, other, out), [*arguments(folder, model, out), "--views", 2]):
        done = command(*line)
        assert done.exit_code == 1 and done.stderr.startswith(
            f"error: {part}: its rows are from another model or other options: "
        )
        assert part.read_bytes() == before and not out.exists()
    assert command(*arguments(folder, model, out), "--batch-size", 3).exit_code == 0


def test_a_video_that_changed_or_had_no_label_is_read_again(folder, model, read, tmp_path):
    videos = tmp_path / "videos"
    for number in range(4):
        write_video(videos / f"{number}.mp4", moving_frames(64, 48, 64, seed=number))
    (videos / "0.mp4").write_bytes(b"nothing")
    read.stop = "3.mp4"
    out = tmp_path / "t.csv"
    assert command(*arguments(videos, model, out)).exit_code == 130
    write_video(videos / "0.mp4", moving_frames(64, 48, 64, seed=7))
    write_video(videos / "1.mp4", moving_frames(70, 48, 64, seed=8))
    read.stop = None
    read.clear()
    assert command(*arguments(videos, model, out)).exit_code == 0
    assert sorted(read) == ["0.mp4", "1.mp4", "2.mp4", "3.mp4"]  # the second batch had not come
    alone = predict_many(videos, model, batch_size=2, locate_face=False)
    assert_whole(out, alone)


def test_a_video_that_is_named_twice_has_two_rows(folder, model, whole, read, tmp_path):
    video = sorted(folder.iterdir())[1]
    table = predict_into(tmp_path / "t.csv", [video, video], model, locate_face=False)
    assert table["path"].tolist() == [str(video)] * 2 and len(read) == 1
    assert table["label"].tolist() == [whole["label"][1]] * 2


def test_videos_frames_and_folders_of_both_are_found(folder, tmp_path):
    frames = write_frames(tmp_path / "people" / "2", moving_frames(3, 32, 32))
    write_frames(tmp_path / "people" / "10", moving_frames(3, 32, 32))
    (tmp_path / "people" / "notes.txt").touch()
    video = folder / "0, a.mp4"
    videos, others = expand([video, tmp_path / "people", frames])
    assert videos == [video, frames, tmp_path / "people" / "10", frames]
    assert [path.name for path in others] == ["notes.txt"]
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match="empty: holds neither video files nor folders of frames"):
        expand([video, tmp_path / "empty"])


def test_names_that_begin_with_a_dash_come_after_two(folder, model, monkeypatch, tmp_path):
    (tmp_path / "-a.mp4").write_bytes((folder / "0, a.mp4").read_bytes())
    monkeypatch.chdir(tmp_path)
    done = command("predict", "--model", model, "--whole-frame", "--", "-a.mp4")
    assert done.exit_code == 0, done.stderr
    done = command("predict", "--model", model, "--whole-frame", "--out", "t.csv", "--", "-a.mp4")
    # Behind an apostrophe, since a spreadsheet would take it for a formula.
    assert done.exit_code == 0 and pd.read_csv("t.csv")["path"].tolist() == ["'-a.mp4"]
    assert command("predict", "--model", model, "-a.mp4").exit_code == 2


def test_a_folder_of_frames_is_one_video(model, tmp_path):
    frames = write_frames(tmp_path / "person", moving_frames(20, 48, 48))
    done = command("predict", frames, "--model", model, "--whole-frame")
    assert done.exit_code == 0 and len(done.stdout.splitlines()) == 8
    done = command("predict", frames, "--model", model, "--whole-frame", "--out", tmp_path / "t.csv")
    assert done.exit_code == 0 and pd.read_csv(tmp_path / "t.csv")["path"].tolist() == [str(frames)]


def test_classes_may_be_called_like_columns(folder, tmp_path):
    classes = ("path", "label", "face", "error", "stamp")
    target = tmp_path / "odd"
    create_model("adatosk_tiny", classes=classes).save_pretrained(target)
    table = predict_into(tmp_path / "odd.csv", [folder / "1, a.mp4", folder / "2, a.mp4"], target, locate_face=False)
    columns = [f"class {name}" for name in classes]
    assert table.columns.tolist() == ["path", "label", *columns, "face", "error"]
    assert table["path"].tolist() == [str(folder / "1, a.mp4"), str(folder / "2, a.mp4")]
    scores = table[columns].astype(float)
    assert scores.sum(axis=1).round(5).eq(1).all() and table["error"].eq("").all()
    assert table["label"].tolist() == [classes[place] for place in scores.to_numpy().argmax(axis=1)]
    assert pd.read_csv(tmp_path / "odd.csv").columns.tolist() == table.columns.tolist()


def test_two_processes_do_not_write_one_table_at_once(folder, model, whole, tmp_path):
    out = tmp_path / "out.csv"
    for name in (out.name, part_of(out).name):
        (tmp_path / f".{name}.4711.part").write_text("of a killed process")
    said, results = [], []
    with locked_table(out):
        other = threading.Thread(
            target=lambda: results.append(predict_into(out, [*folder.iterdir()], model, said.append, locate_face=False))
        )
        other.start()
        while not said:
            assert other.is_alive()
            time.sleep(0.05)
        assert not out.exists() and not part_of(out).exists() and "waiting for another process" in said[0]
    other.join()
    assert len(results[0]) == VIDEOS and len(pd.read_csv(out)) == VIDEOS
    assert [path.name for path in tmp_path.iterdir()] == [out.name]
