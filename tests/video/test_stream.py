"""Frames of a whole video one after the other, with their times."""

import numpy as np
import pytest
from media import moving_frames, truncate, write_frames, write_video

from adatosk.video import VideoError, decode_all, open_stream


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv", "a.mpg", "folder"])
def test_images_and_times_are_those_of_the_video(tmp_path, name):
    frames = moving_frames(40, 48, 64)
    codec = "mpeg1video" if name == "a.mpg" else "libx264"
    path = tmp_path / name
    path = write_frames(path, frames) if name == "folder" else write_video(path, frames, fps=50, codec=codec)
    stream, whole = open_stream(path, fps=50), decode_all(path)
    assert stream.count == len(whole) == 40
    np.testing.assert_allclose(stream.seconds, np.arange(40) / 50, atol=1.1e-3)  # Matroska counts milliseconds
    some = [0, 3, 4, 30, 39]
    assert all(np.array_equal(image, whole[n]) for n, image in zip(some, stream.images(some), strict=True))


def test_a_frame_that_is_damaged_is_an_error_when_its_turn_comes(tmp_path):
    folder = write_frames(tmp_path / "a", moving_frames(40, 48, 64))
    truncate(folder / "40.png", 0.5)
    images = open_stream(folder).images([0, 1, 39])
    next(images)
    with pytest.raises(VideoError, match=r"40\.png"):
        list(images)
    with pytest.raises(VideoError, match="no such video"):
        open_stream(tmp_path / "b")
    with pytest.raises(ValueError, match="fps must be positive"):
        open_stream(folder, float("inf"))
