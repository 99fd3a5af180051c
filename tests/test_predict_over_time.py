"""The expression over a whole video: each clip as predict() sees it, one person all along, in bounded memory."""

import re
import tracemalloc
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from commands import command
from media import moving_frames, truncate, write_frames, write_video
from scenes import Walk, standing
from scenes import scene as scene_of

from adatosk import create_model
from adatosk import predict_over_time as over_time
from adatosk.clips.faces import FaceNotFoundError
from adatosk.model import AdaTosk
from adatosk.plots import over_time as pictures
from adatosk.predict import predict
from adatosk.predict_over_time import predict_over_time
from adatosk.utils.tables import read_csv
from adatosk.video import VideoError

WALKER = Walk(1, (10, 60), (280, 50), (80, 96))
LENGTH = 85  # three clips of 61 frames, 12 frames apart


@pytest.fixture(scope="module")
def model() -> AdaTosk:
    torch.manual_seed(0)
    return create_model("adatosk_tiny").eval()


@pytest.fixture(scope="module")
def folder(model, tmp_path_factory) -> Path:
    target = tmp_path_factory.mktemp("model") / "tiny"
    model.save_pretrained(target)
    return target


def film(path: Path, *people: Walk, count: int = LENGTH) -> Path:
    """The people in front of a wall; a rendered head has 64 frames, so each second one is shown twice."""
    frames = scene_of(*people, count=(count + 1) // 2, height=200, width=400).repeat(2, axis=0)[:count]
    return write_video(path, frames)


@pytest.fixture(scope="module")
def walk(tmp_path_factory) -> Path:
    return film(tmp_path_factory.mktemp("walk") / "walk.mp4", WALKER)


@pytest.fixture(scope="module")
def faceless(tmp_path_factory) -> Path:
    return write_video(tmp_path_factory.mktemp("faceless") / "squares.mp4", moving_frames(LENGTH, 64, 96))


@pytest.fixture(scope="module")
def curve(walk, model):
    return predict_over_time(walk, model)


def probabilities_of(one) -> np.ndarray:
    return np.array(list(one.probabilities.values()))


def test_each_clip_of_a_person_who_walks_is_what_predict_sees(walk, model, curve):
    assert curve.frames[:, 0].tolist() == [0, 12, 24]
    for clip, first in enumerate(curve.frames[:, 0].tolist()):
        alone = predict(walk, model, views=1, start=first)
        assert alone.face.moves and np.array_equal(curve.faces[clip].squares, alone.face.squares)
        assert np.array_equal(curve.seen(clip), alone.frames)
        assert np.abs(curve.probabilities[clip] - probabilities_of(alone)).max() < 1e-5
        assert curve.labels[clip] == alone.label and torch.equal(curve.visible, alone.visible)
        weights, kept = alone.soft_mask.weights[0].mean(dim=-1), alone.soft_mask.kept[0]
        shown = torch.from_numpy(curve.weights[clip])[:, curve.visible]
        assert torch.equal(shown.isnan(), ~kept)
        torch.testing.assert_close(shown[kept], weights[kept], rtol=1e-4, atol=1e-5)
        assert np.array_equal(curve.active[clip], alone.soft_mask.active[0])
    assert np.isnan(curve.weights[..., ~curve.visible.numpy()]).all()
    # Different clips have different answers, or the comparison would show nothing.
    assert np.abs(np.diff(curve.probabilities, axis=0)).max() > 1e-3


def test_the_model_is_left_as_it_is_and_views_are_those_of_predict(faceless, model):
    model.train()
    before = torch.get_rng_state()
    found = predict_over_time(faceless, model, views=3, locate_face=False)
    assert model.training and torch.equal(before, torch.get_rng_state())
    model.eval()
    alone = predict(faceless, model, views=3, locate_face=False, start=12)
    assert np.abs(found.probabilities[1] - probabilities_of(alone)).max() < 1e-5
    assert found.faces is None and not found.people.any() and found.table()["left"].isna().all()


@pytest.mark.parametrize("batch_size", [1, 2, 5])
def test_the_batch_size_does_not_matter(walk, model, curve, batch_size):
    found = predict_over_time(walk, model, batch_size=batch_size)
    assert np.abs(found.probabilities - curve.probabilities).max() < 1e-5
    np.testing.assert_allclose(found.weights, curve.weights, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("every", "starts"), [(0.01, range(0, 25, 4)), (0.32, range(0, 25, 8)), (9, [0])])
def test_clips_are_whole_strides_apart(faceless, model, every, starts):
    found = predict_over_time(faceless, model, every=every, locate_face=False)
    assert found.frames[:, 0].tolist() == list(starts)
    assert (np.diff(found.frames, axis=1) == 4).all()
    np.testing.assert_allclose(found.starts, np.array(starts) / 25, atol=1e-3)
    np.testing.assert_allclose(found.seconds, (np.array(starts) + 30) / 25, atol=1e-3)


@pytest.mark.parametrize("count", [1, 2, 20, 61])
def test_a_video_that_is_no_longer_than_a_clip_has_one(model, tmp_path, count):
    path = film(tmp_path / "short.mp4", standing(1, (100, 40), 100), count=count)
    found, alone = predict_over_time(path, model), predict(path, model, views=1)
    assert len(found.labels) == 1 and found.labels[0] == alone.label
    assert np.abs(found.probabilities[0] - probabilities_of(alone)).max() < 1e-5
    assert str(found.faces[0]) == str(alone.face)
    assert found.table().loc[0, ["start", "end"]].tolist() == pytest.approx([0, (count - 1) / 25], abs=1e-3)


def test_a_folder_of_frames_has_the_time_that_is_said(model, tmp_path):
    frames = write_frames(tmp_path / "person", moving_frames(70, 40, 40))
    for fps, every in ((25, 0.16), (50, 0.08)):
        found = predict_over_time(frames, model, every=every, locate_face=False, fps=fps)
        assert found.frames[:, 0].tolist() == [0, 4, 8] and found.ends[-1] == pytest.approx(68 / fps)
    with pytest.raises(ValueError, match="fps must be positive, got 0"):
        predict_over_time(frames, model, fps=0)


def test_with_several_people_one_is_used_all_along_and_named(model, tmp_path):
    # The passer-by is nearer, but there for the last quarter only.
    away = tuple(range(32))
    sitting, passing = standing(1, (20, 40), 100), standing(2, (230, 20), 130, absent=away)
    path = film(tmp_path / "two.mp4", sitting, passing, count=97)
    first, second = predict_over_time(path, model), predict_over_time(path, model, person=2)
    assert len(first.labels) == 4 and all(first.labels)
    assert [face.squares[0, 0] < 100 for face in first.faces] == [True] * 4
    assert first.people.tolist() == [1, 1, 2, 2] or first.people.tolist() == [1, 2, 2, 2]
    assert str(first.faces[0]) == "the largest of 2 faces, seen in 16 of 16 frames"
    assert first.whose == "the largest of 2 people's faces, seen in 4 of 4 clips"
    seen = first.people == 2
    assert [label != "" for label in second.labels] == seen.tolist()
    alone = 4 - seen.sum()
    there = f"number 2 by size of 2 people's faces, seen in {seen.sum()} of 4 clips"
    assert second.whose == f"{there}; {alone} {'shows' if alone == 1 else 'show'} only other people"
    assert [face is not None for face in second.faces] == seen.tolist()
    assert np.array_equal(np.isnan(second.probabilities).all(axis=1), ~seen)
    table = second.table()
    assert table.loc[~seen, ["left", "face"]].replace("", None).isna().all(axis=None)
    assert (table.loc[seen, "left"] > 200).all() and table["face"].iloc[-1].startswith("face 2 of 2, seen in ")
    assert [number for turn in second.turns() for number in range(turn.start, turn.stop)] == np.flatnonzero(
        seen
    ).tolist()
    with pytest.raises(FaceNotFoundError, match=r"two\.mp4: no person 3, it shows 2"):
        predict_over_time(path, model, person=3)


def test_who_turns_out_to_be_the_largest_is_used_in_the_first_clips_too(model, tmp_path):
    # A second, nearer person comes after the first clips, which are classified by then.
    sitting, coming = standing(1, (20, 40), 70), standing(2, (200, 20), 150, absent=tuple(range(28)))
    path = film(tmp_path / "late.mp4", sitting, coming, count=121)
    found = predict_over_time(path, model)
    there = [face is not None for face in found.faces]
    assert not there[0] and there[-1] and [label != "" for label in found.labels] == there
    assert np.isnan(found.probabilities[0]).all() and np.isnan(found.weights[0]).all() and not found.active[0].any()
    for clip in np.flatnonzero(there).tolist():
        alone = predict(path, model, views=1, start=found.frames[clip, 0])
        assert np.array_equal(found.faces[clip].squares, alone.face.squares) and alone.face.squares[0, 0] > 150
        assert np.abs(found.probabilities[clip] - probabilities_of(alone)).max() < 1e-5


def test_what_cannot_be_answered_is_an_error(walk, faceless, model, tmp_path):
    with pytest.raises(FaceNotFoundError, match=r"squares\.mp4: no face found; if .*locate_face=False"):
        predict_over_time(faceless, model)
    for option in ({"every": 0}, {"every": float("nan")}, {"batch_size": 0}, {"views": 0}, {"precision": "fp8"}):
        with pytest.raises(ValueError, match=next(iter(option))):
            predict_over_time(walk, model, **option)
    with pytest.raises(ValueError, match="person must be at least 1"):
        predict_over_time(walk, model, person=0)
    damaged = write_frames(tmp_path / "damaged", moving_frames(70, 40, 40))
    truncate(damaged / "65.png", 0.5)
    with pytest.raises(VideoError, match=r"65\.png"):
        predict_over_time(damaged, model, locate_face=False, every=0.01)


def test_a_long_video_takes_the_memory_of_a_short_one(model, tmp_path):
    frames = scene_of(standing(1, (100, 40), 100), count=64, height=200, width=400)
    peaks = []
    for times in (2, 10):
        path = write_video(tmp_path / f"{times}.mp4", np.concatenate([frames] * times))
        predict_over_time(path, model, every=0.16)  # what is imported and cached at first
        tracemalloc.start()
        predict_over_time(path, model, every=0.16)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    held = 8 * 64 // 4 * frames[0].nbytes  # the sampled frames that the longer one has more
    assert peaks[1] - peaks[0] < 0.1 * held


def arguments(video: Path, folder: Path, *more: str | Path) -> list:
    return ["predict", video, "--model", folder, "--every", "0.5", *more]


def test_the_command_prints_and_writes_all_of_it(walk, folder, curve, tmp_path):
    files = {name: tmp_path / "new" / f"{name}{suffix}" for name, suffix in (("out", ".csv"), ("figure", ".png"))}
    files["animation"] = tmp_path / "new" / "walk.mp4"
    done = command(*arguments(walk, folder, *(part for name, path in files.items() for part in (f"--{name}", path))))
    assert done.exit_code == 0 and done.stderr == "by the only person, seen in 3 of 3 clips\n"
    lines = done.stdout.splitlines()
    assert lines[-3:] == list(map(str, files.values()))
    # "0.4 to 1.2 s", or "at 0.4 s" for a single clip; then the label and its mean probability.
    told = [re.fullmatch(r" *(?:[0-9.]+ +to|at) +[0-9.]+ s +(\S+) +[0-9.]+", line) for line in lines[:-3]]
    assert [match and match[1] for match in told] == [curve.labels[turn.start] for turn in curve.turns()]
    pd.testing.assert_frame_equal(read_csv(files["out"]), curve.table(), check_dtype=False, atol=1e-4)
    assert sorted(files["out"].parent.iterdir()) == sorted(files.values())


def test_a_table_on_standard_output_is_alone_there(faceless, folder, capfd):
    done = command(*arguments(faceless, folder, "--whole-frame", "--out", "/dev/stdout"))
    assert done.exit_code == 0 and not done.stdout and done.stderr.count("\n") >= 2
    header, *rows = capfd.readouterr().out.splitlines()
    assert header.startswith("time,start,end,label,") and len(rows) == 3


def test_text_that_a_spreadsheet_would_execute_is_defused(faceless, tmp_path):
    classes = ("=1+1", "label", "@x")
    create_model("adatosk_tiny", classes=classes).save_pretrained(tmp_path / "odd")
    done = command(*arguments(faceless, tmp_path / "odd", "--whole-frame", "--out", tmp_path / "t.csv"))
    assert done.exit_code == 0
    header = (tmp_path / "t.csv").read_text().splitlines()[0].split(",")
    assert header[4:7] == ["'=1+1", "label", "'@x"]
    raw = pd.read_csv(tmp_path / "t.csv")
    assert set(raw["label"]) <= {"'=1+1", "label", "'@x"}
    assert raw.iloc[:, 4:7].sum(axis=1).to_numpy() == pytest.approx(1, abs=1e-3)


@pytest.mark.parametrize("fault", ["cut short", "no face", "no such animation", "no Parquet", "a folder"])
def test_nothing_is_written_when_it_fails(fault, walk, faceless, folder, tmp_path, monkeypatch):
    out, animation, video = tmp_path / "t.csv", tmp_path / "a.gif", walk
    if fault == "cut short":
        video = tmp_path / "cut.mp4"
        video.write_bytes(walk.read_bytes())
        truncate(video, 0.5)
    elif fault == "no face":
        video = faceless
    elif fault == "no such animation":
        animation = tmp_path / "a.avi"
    elif fault == "no Parquet":
        out = tmp_path / "t.parquet"
        monkeypatch.setattr(over_time.importlib.util, "find_spec", lambda name: None)
    else:
        out = tmp_path
    before = sorted(tmp_path.iterdir())
    done = command(*arguments(video, folder, "--out", out, "--animation", animation))
    assert done.exit_code == 1 and not done.stdout and done.stderr.count("\n") == 1
    named = {"no such animation": animation, "no Parquet": out, "a folder": out}.get(fault, video)
    assert done.stderr.startswith(f"error: {named}: ") and sorted(tmp_path.iterdir()) == before


@pytest.mark.parametrize("suffix", [".mp4", ".gif"])
def test_an_interruption_leaves_whole_files_only(faceless, folder, tmp_path, monkeypatch, suffix):
    inner, calls = pictures.cv2.resize, []

    def pressing(*given, **options):
        calls.append(given)
        if len(calls) == 10:
            raise KeyboardInterrupt
        return inner(*given, **options)

    monkeypatch.setattr(pictures.cv2, "resize", pressing)
    animation, out = tmp_path / f"a{suffix}", tmp_path / "t.csv"
    animation.write_text("an earlier one")
    done = command(*arguments(faceless, folder, "--whole-frame", "--out", out, "--animation", animation))
    assert done.exit_code == 130 and len(calls) == 10
    assert done.stderr == "interrupted: files that were printed are whole, of the others nothing was written\n"
    assert done.stdout.splitlines()[-1] == str(out) and len(pd.read_csv(out)) == 3
    assert animation.read_text() == "an earlier one" and sorted(tmp_path.iterdir()) == [animation, out]


def test_options_of_a_whole_video_need_every_and_the_others_exclude_it(walk, folder, tmp_path):
    for more in (["--figure", "a.png"], ["--animation", "a.mp4"], ["--fps", "25"]):
        done = command("predict", walk, "--model", folder, *more)
        assert done.exit_code == 2 and "are for a whole video" in done.stderr
    for more in (["--start", "3"], ["--complementary"], ["--compile"]):
        assert command(*arguments(walk, folder, *more)).exit_code == 2
    done = command("predict", walk, walk, "--model", folder, "--every", "1")
    assert done.exit_code == 2 and "several videos" in done.stderr


def test_parquet_has_the_same_table(faceless, model, tmp_path):
    pytest.importorskip("pyarrow")
    found = predict_over_time(faceless, model, locate_face=False)
    over_time.check_table(tmp_path / "t.parquet")
    over_time.write_curve(found, tmp_path / "t.parquet")
    pd.testing.assert_frame_equal(pd.read_parquet(tmp_path / "t.parquet"), found.table(), check_dtype=False)
