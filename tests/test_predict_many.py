import os
import sys
from pathlib import Path

import cv2
import pandas as pd
import pytest
import torch
from commands import command, process
from media import moving_frames, truncate, write_frames, write_video
from scenes import scene, standing

from adatosk import create_model
from adatosk import predict_many as many
from adatosk.clips.faces import FaceDetectorError
from adatosk.predict import predict
from adatosk.predict_many import find_videos, predict_many
from adatosk.utils.parallel import side_by_side


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Seven videos, of which the fourth is cut off."""
    root = tmp_path_factory.mktemp("videos")
    for number in range(7):
        write_video(root / f"clip{number + 4}.mp4", moving_frames(64 + number, 48, 64, seed=number))
    truncate(root / "clip7.mp4", 0.5)
    (root / "notes.txt").write_text("no video")
    return root


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return create_model("adatosk_tiny").train()


def test_every_video_has_its_row_in_order_as_if_it_were_alone(folder, model):
    paths = find_videos(folder)
    assert [path.name for path in paths] == [f"clip{number}.mp4" for number in range(4, 11)]  # 10 after 9
    table = predict_many(paths[::-1], model, batch_size=3, views=2, locate_face=False)
    assert table["path"].tolist() == [str(path) for path in paths[::-1]]
    for row in table.itertuples():
        if row.path.endswith("clip7.mp4"):
            assert "clip7.mp4" in row.error and pd.isna(row.label) and pd.isna(row.happy)
            continue
        alone = predict(row.path, model, views=2, locate_face=False)
        assert row.label == alone.label and not row.error
        found = [getattr(row, name) for name in alone.probabilities]
        assert found == pytest.approx(list(alone.probabilities.values()), abs=1e-5)
    assert model.training and not model.encoder.blocks[0].attn.qkv.weight.is_mkldnn


def test_the_decoder_does_not_run_and_half_precision_is_close(folder, monkeypatch):
    torch.manual_seed(0)
    model = create_model("adatosk_tiny", soft_mask=None)
    monkeypatch.setattr(type(model.decoder), "forward", lambda *args: 1 / 0)
    tables = [predict_many(folder, model, precision=precision, locate_face=False) for precision in ("fp32", "bf16")]
    values = [table[list(model.config.classes)].dropna().to_numpy() for table in tables]
    assert len(values[0]) == 6
    assert 0 < abs(values[0] - values[1]).max() < 0.05


def test_compiled_batches_all_have_one_size(folder, model, monkeypatch):
    sizes = []

    def compiled(module):
        return lambda video: sizes.append(len(video)) or module.eval()(video)

    monkeypatch.setattr(torch, "compile", compiled)
    table = predict_many(folder, model, batch_size=4, compile=True, locate_face=False)
    assert sizes == [4, 4]
    plain = predict_many(folder, model, batch_size=4, locate_face=False)
    pd.testing.assert_frame_equal(table, plain, atol=1e-5)


def test_only_so_many_videos_are_read_ahead():
    read = []
    with side_by_side(workers=2, progress=False) as each:
        results = each(lambda chunk: read.append(chunk) or chunk, [[number] for number in range(20)], ahead=3)
        assert next(results) == (0, [0])
        assert max(read) <= [3]
        assert list(results) == [(number, [number]) for number in range(1, 20)]


def test_folders_of_frames_are_videos_too(tmp_path, model):
    for number in (2, 10):
        write_frames(tmp_path / f"person{number}", moving_frames(20, 48, 48, seed=number))
    table = predict_many(tmp_path, model, locate_face=False)
    assert [path.rsplit("person")[1] for path in table["path"]] == ["2", "10"] and table["label"].notna().all()


def test_the_table_says_whose_face_was_used(tmp_path, model):
    large, small = standing(1, (20, 20), 120), standing(2, (220, 40), 80, absent=(0, 1, 2))
    write_frames(tmp_path / "1", scene(large, height=180, width=320))
    write_frames(tmp_path / "2", scene(large, small, height=180, width=320))
    write_frames(tmp_path / "3", moving_frames(16, 180, 320))
    table = predict_many(tmp_path, model, stride=1)
    assert list(table.columns) == ["path", "label", *model.config.classes, "face", "error"]
    said = ["the only face, seen in 16 of 16 frames", "the largest of 2 faces, seen in 16 of 16 frames", ""]
    assert table["face"].tolist() == said and table["label"].notna().tolist() == [True, True, False]
    assert "no face found" in table["error"][2]
    second = predict_many(tmp_path, model, stride=1, person=2)
    assert second["face"].tolist() == ["", "face 2 of 2, seen in 13 of 16 frames", ""]
    assert "no person 2, it shows 1" in second["error"][0]
    assert predict_many(tmp_path, model, stride=1, locate_face=False)["face"].tolist() == [""] * 3


def test_without_a_detector_nothing_is_begun(folder, model, monkeypatch, tmp_path):
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    with pytest.raises(FaceDetectorError, match="pip install"):
        predict_many(folder, model)


def test_wrong_arguments_are_told(tmp_path, model):
    with pytest.raises(FileNotFoundError, match="neither video files nor folders"):
        predict_many(tmp_path, model)
    with pytest.raises(ValueError, match="unknown precision 'int8'"):
        predict_many([], model, precision="int8")
    with pytest.raises(ValueError, match="batch_size must be at least 1"):
        predict_many([], model, batch_size=0)
    with pytest.raises(ValueError, match="person must be at least 1"):
        predict_many([], model, person=0)


def test_the_command_line_writes_a_table_and_lists_what_has_no_label(folder, model, tmp_path):
    model.save_pretrained(tmp_path / "model")
    out = tmp_path / "labels.csv"
    done = command("predict", folder, "--model", tmp_path / "model", "--out", out, "--whole-frame")
    assert done.exit_code == 1 and done.stdout == f"{out}: 6 of 7 videos\n"
    first, second, last = done.stderr.splitlines()
    assert first.startswith("no label: ") and "clip7.mp4" in first
    assert second == "passed over, 1 beside the videos: notes.txt"
    assert last == f"error: {out}: 1 of 7 videos have no label: its column 'error' says why"
    assert pd.read_csv(out)["label"].notna().sum() == 6
    good = folder / "clip4.mp4"
    assert command("predict", good, "--model", tmp_path / "model", "--out", out, "--whole-frame").exit_code == 0
    assert [path.name for path in out.parent.glob("*labels*")] == ["labels.csv"]
    done = command("predict", good, "--model", tmp_path, "--out", out)
    assert done.exit_code == 1 and "config.json" in done.stderr


@pytest.mark.parametrize("suffix", [".m4v", ".WMV", ".mpg", ".mpeg", ".mts", ".3gp"])
def test_other_suffixes_of_videos_are_found(tmp_path, suffix):
    (tmp_path / f"a{suffix}").touch()
    (tmp_path / "a.mp4").touch()
    assert len(find_videos(tmp_path)) == 2


@pytest.mark.parametrize("error", [cv2.error("no memory"), ValueError("odd"), RuntimeError("two\nlines"), KeyError(3)])
def test_a_clip_that_fails_in_any_way_does_not_stop_the_others(folder, model, monkeypatch, error):
    def broken(path, *rest):
        if path.name == "clip5.mp4":
            raise error
        return read(path, *rest)

    read = many.read_clip
    monkeypatch.setattr(many, "read_clip", broken)
    table = predict_many([folder / f"clip{number}.mp4" for number in (4, 5, 6)], model, locate_face=False)
    assert table["label"].notna().tolist() == [True, False, True]
    assert table["error"][1].startswith(f"{folder / 'clip5.mp4'}: cannot be read (") and "\n" not in table["error"][1]


@pytest.mark.parametrize("place", ["a folder", "below a file", "no place for files", "write-protected"])
def test_a_table_that_cannot_be_written_is_told_before_the_work(folder, tmp_path, monkeypatch, place):
    (tmp_path / "file").touch()
    out = {"a folder": tmp_path, "below a file": tmp_path / "file" / "a.csv", "write-protected": tmp_path / "file"}
    out = out.get(place, Path("/proc/a.csv"))
    if place == "no place for files" and not Path("/proc").is_dir():
        pytest.skip("a folder into which nobody can write is only known on Linux")
    if place == "write-protected":
        monkeypatch.setattr(os, "access", lambda *_: False)  # the tests may run with all rights
    monkeypatch.setattr(many, "predict_rows", lambda *_, **__: pytest.fail("the videos were classified"))
    done = command("predict", folder, "--model", tmp_path, "--out", out)
    said = done.stderr
    assert done.exit_code == 1
    assert said.startswith(f"error: {out}: ") and "name a" in said and said.count("\n") == 1


def test_the_table_makes_its_folder_and_takes_any_file_name(folder, model, tmp_path):
    model.save_pretrained(tmp_path / "model")
    odd = tmp_path / os.fsdecode(b"caf\xe9.mp4")
    try:
        odd.write_bytes((folder / "clip4.mp4").read_bytes())
    except OSError:
        pytest.skip("this file system takes UTF-8 only")
    out = tmp_path / "new" / "labels.csv"
    videos = [odd, folder / "clip4.mp4"]
    assert command("predict", *videos, "--model", tmp_path / "model", "--out", out, "--whole-frame").exit_code == 0
    table = pd.read_csv(out)
    assert table["path"][0].endswith(r"caf\udce9.mp4") and table["label"][0] == table["label"][1]
    assert [path.name for path in out.parent.iterdir()] == ["labels.csv"]


@pytest.mark.skipif(not Path("/dev/stdout").exists(), reason="no /dev/stdout here")
def test_the_table_may_go_to_the_output(folder, model, tmp_path):
    model.save_pretrained(tmp_path / "model")
    line = [folder / "clip4.mp4", "--whole-frame", "--model", tmp_path / "model", "--out", "/dev/stdout"]
    done = process("adatosk.predict_many", *line)
    assert done.returncode == 0 and done.stdout.startswith("path,label,") and done.stdout.count("\n") == 2
    assert done.stderr.endswith("/dev/stdout: 1 of 1 videos\n")
    with (tmp_path / "kept.csv").open("w") as file:
        process("adatosk", "predict", *line, capture_output=False, stdout=file)
    assert (tmp_path / "kept.csv").read_text() == done.stdout and not list(Path("/dev").glob("*stdout.*"))
