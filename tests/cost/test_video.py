import numpy as np
import pandas as pd
from commands import command

from adatosk.cost import video
from adatosk.cost.models import recorded


def test_the_film_is_720p_and_shows_a_head_that_moves():
    frames = list(video.film(1))
    assert len(frames) == 25 and {frame.shape for frame in frames} == {(720, 1280, 3)}
    moving = np.abs(frames[0].astype(int) - frames[8]).mean(axis=-1)  # of the same noise
    assert moving[232:488, 512:768].mean() > 1 and moving[:232].max() == moving[:, :512].max() == 0


def test_both_ways_are_timed_and_recorded_with_the_same_answers(tmp_path):
    done = command("benchmark", "--video", "--seconds", 3, "--sizes", "adatosk_tiny", "--out", tmp_path)
    assert done.exit_code == 0, done.stderr
    (path,) = tmp_path.glob("*-video.csv")
    assert done.stdout.endswith(f"{path}\n")
    table = pd.read_csv(path)
    assert table["way"].tolist() == ["clip by clip", "over time", "over time"]
    assert table["precision"].tolist() == ["fp32", "fp32", "bf16"] and table["clips"].tolist() == [2] * 3
    assert table["largest_difference"][0] == 0 and 0 < table["largest_difference"][1] < 1e-5
    np.testing.assert_allclose(table["speed_up"], table["seconds"][0] / table["seconds"], rtol=1e-4)
    np.testing.assert_allclose(table["times_real_time"], 3 / table["seconds"], rtol=1e-4)
    assert table["commit"].notna().all() and (table["cpu_seconds"] > 0).all()
    assert not recorded(folder=tmp_path) and len(recorded("-video", tmp_path)) == 1
