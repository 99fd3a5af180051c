"""The paper's recipe on a stand-in for DFEW, at a tiny size in this process."""

import io
import sys
from contextlib import redirect_stdout, suppress

import pytest

from adatosk.cli import app
from adatosk.cost.recipe import EPOCHS, Size, run_recipe, start, write_stand_in
from adatosk.manifests import load

SMALL = Size(clips=10, side=40, distinct=5, tiny=True)


class Killed(BaseException):
    pass


class Watched(io.StringIO):
    """Text that kills who writes a certain line."""

    def __init__(self, last):
        super().__init__()
        self.last = last

    def write(self, text):
        super().write(text)
        if self.last is not None and self.last in text:
            raise Killed
        return len(text)


def here(command, kill_after):
    with redirect_stdout(Watched(kill_after)) as told, suppress(Killed):
        app(["train", *command[command.index("adatosk.train") + 1 :], "--workers", "0"], standalone_mode=False)
    return told.getvalue().splitlines()


def test_a_stand_in_trains_is_killed_resumes_and_is_scored(tmp_path):
    (tmp_path / "dfew").mkdir()
    manifest = write_stand_in(tmp_path / "dfew", SMALL)
    clips = load(manifest).clips
    assert len(clips) == 10 and sorted(clips["fold"].unique()) == [1, 2, 3, 4, 5]
    images = [sorted((tmp_path / "dfew" / path).iterdir()) for path in clips.sort_values("id")["path"]]
    assert images[0][0].name == "0001.jpg" and images[0][1].samefile(images[5][0])
    scored, rate = run_recipe(tmp_path / "dfew", manifest, SMALL, 1, tmp_path / "out", here)
    assert scored.met and scored.value == 3, scored
    assert f"resuming after epoch 1; {EPOCHS} of {EPOCHS} epochs; views_1, views_8, complementary; bf16" in scored.note
    assert rate.value > 0


def test_a_command_is_killed_after_a_line_with_all_that_it_started():
    child = "while True: print('epoch 2')"
    code = f"import subprocess, sys; print('epoch 1'); subprocess.run([sys.executable, '-c', {child!r}])"
    lines = start([sys.executable, "-c", code], "epoch 2")
    assert lines == ["epoch 1", "epoch 2"]
    with pytest.raises(RuntimeError, match=r"exit status 1: .*ValueError: no clips"):
        start([sys.executable, "-c", "raise ValueError('no clips')"])
    with pytest.raises(RuntimeError, match="exit status 0: done"):
        start([sys.executable, "-c", "print('done')"], "epoch 2")
