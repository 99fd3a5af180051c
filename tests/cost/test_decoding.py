import numpy as np
import pandas as pd
from commands import command
from media import moving_frames, write_frames, write_video

from adatosk.cost import decoding as throughput
from adatosk.cost.decoding import compare, plain_folder, plain_video
from adatosk.video import read_clip


def test_the_plain_way_reads_the_same_frames(tmp_path):
    frames = moving_frames(120, 224, 224)
    video = write_video(tmp_path / "a.mp4", frames, gop=250)
    folder = write_frames(tmp_path / "a", frames, ".jpg")
    assert np.abs(plain_video(video, 64).astype(int) - read_clip(video, size=64)).mean() < 2
    assert np.abs(plain_folder(folder, 64).astype(int) - read_clip(folder, size=64)).mean() < 4
    table = compare([video, folder], size=48, repeats=2).set_index("kind")
    assert (table["ratio"] == table["clips_per_second"] / table["plain_clips_per_second"]).all()
    done = command("benchmark", "--decoding", folder, "--size", 32, "--repeats", 1)
    assert done.exit_code == 0 and "plain_clips_per_second" in done.stdout


def test_rendered_clips_are_compared_as_both_kinds_and_recorded(tmp_path, monkeypatch):
    monkeypatch.setattr(throughput, "SIZES", ((64, 32), (64, 64)))
    done = command("benchmark", "--decoding", "--repeats", 1, "--out", tmp_path)
    (path,) = tmp_path.glob("*-decode.csv")
    assert done.stdout.endswith(f"{path}\n")
    table = pd.read_csv(path)
    assert table.groupby(["size", "kind"]).size().to_dict() == {
        (s, k): n for s in (32, 64) for k, n in (("folder", 8), ("video", 4))
    }
    assert table.loc[table["kind"] == "video", "quality"].isna().all()
    weights = table[table["kind"] == "folder"].groupby("quality")["bytes"].mean()
    assert list(weights.index) == [75, 95] and weights[75] < weights[95]
    assert (table["bytes"] > 100).all() and table["commit"].notna().all()


def test_what_cannot_be_read_is_named(tmp_path):
    (tmp_path / "notes.mp4").write_text("not a video")
    for path in ("none.mp4", "notes.mp4"):
        done = command("benchmark", tmp_path / path)
        assert done.exit_code == 1 and done.stderr.startswith("error: ") and path in done.stderr
    done = command("benchmark", "--decoding", "--repeats", 1, "--out", tmp_path / "notes.mp4")
    assert done.exit_code == 1 and str(tmp_path / "notes.mp4") in done.stderr
    done = command("benchmark", tmp_path, "--repeats", 0)
    assert done.exit_code == 2 and "--repeats" in done.stderr
