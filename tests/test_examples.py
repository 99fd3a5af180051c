"""The worked examples of CONTRIBUTING.md, each run as a user runs it."""

import os
import subprocess
import sys

from media import moving_frames, write_video

from adatosk.utils.project import PROJECT

EXAMPLES = PROJECT / "docs" / "examples"


def printed(name: str, *arguments) -> list[str]:
    """The lines that an example prints, in a process of its own."""
    line = [sys.executable, str(EXAMPLES / name), *map(str, arguments)]
    environment = {**os.environ, "PYTHONPATH": str(PROJECT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(line, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_a_new_distance_chooses_the_active_frames_in_at_most_20_lines():
    assert len((EXAMPLES / "new_distance.py").read_text().splitlines()) <= 20
    title, _, frames = printed("new_distance.py")[-1].partition(": ")
    assert title == "active frames"
    active = [int(frame) for frame in frames.strip("[]").split(", ")]
    assert len(set(active)) == len(active) > 0
    assert set(active) <= set(range(1, 8))  # the first of the 8 steps has no frame before it


def test_a_new_data_set_is_built_from_its_folders(tmp_path):
    names = ("happy/anna-1", "happy/ben-1", "sad/anna-1", "sad/ben-2", "neutral/carl-1")
    for seed, name in enumerate(names):
        write_video(tmp_path / "clips" / f"{name}.mp4", moving_frames(8, seed=seed))
    write_video(tmp_path / "clips" / "outtakes" / "anna-9.mp4", moving_frames(8))
    assert printed("new_data_set.py", tmp_path)[-1] == f"{len(names)} clips, folds 1 2"


def test_a_new_row_is_trained_and_compared_with_its_table():
    assert len((EXAMPLES / "new_table_row.py").read_text().splitlines()) <= 25
    *_, summary, header, _, reference, row = printed("new_table_row.py", "smoke")
    assert summary.startswith("2 rows, 2 runs, ")
    assert header.split() == ["war", "repeats", "difference"]
    assert reference.startswith("l1 ") and reference.split()[-2:] == ["1", "NaN"]
    assert row.startswith("l1, K = 1 ") and row.split()[-2] == "1"
    wars = [float(line[len("l1, K = 1") :].split()[0]) for line in (row, reference)]
    assert abs(float(row.split()[-1]) - (wars[0] - wars[1])) < 0.1 + 1e-6  # the means are printed with one digit
