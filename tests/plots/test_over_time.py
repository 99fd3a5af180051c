"""The curve of a whole video as a picture and as an animation."""

from dataclasses import replace

import av
import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from media import moving_frames, write_frames, write_video
from PIL import Image

from adatosk import create_model
from adatosk.clips.faces import Face
from adatosk.plots import ORANGE
from adatosk.plots.over_time import WIDTH, animate, check_animation, expression_over_time, faces_found
from adatosk.predict_over_time import Curve, predict_over_time

LABELS = ["happy", "happy", "", "sad", "happy"]


@pytest.fixture(scope="module")
def video(tmp_path_factory):
    # Every frame is light, so that what is drawn dark can be told from it.
    frames = 255 - moving_frames(93, 60, 100) // 4
    return write_video(tmp_path_factory.mktemp("video") / "a.mp4", frames)


@pytest.fixture(scope="module")
def whole(video) -> Curve:
    torch.manual_seed(0)
    model = create_model("adatosk_tiny", classes=("happy", "$x$", "sad")).eval()
    return predict_over_time(video, model, every=0.32, locate_face=False)


@pytest.fixture(scope="module")
def made(whole) -> Curve:
    """With known answers: of five clips, the third one does not show the person."""
    assert len(whole.labels) == 5
    values = np.array([[0.6, 0.3, 0.1], [0.9, 0.05, 0.05], [np.nan] * 3, [0.2, 0.3, 0.5], [0.7, 0.2, 0.1]])
    square = np.tile([30, 10, 80, 60], (16, 1))
    faces = [Face(square, 16, 1, 1) if label else None for label in LABELS]
    return replace(whole, labels=LABELS, probabilities=values, faces=faces, people=np.ones(5, int))


def test_turns_and_what_decided(made):
    assert made.turns() == [slice(0, 2), slice(3, 4), slice(4, 5)]
    assert made.decisive() == [1, 3, 4] and made.decisive(1) == [1]
    first, second, fourth, last = (made.seconds[place] for place in (0, 1, 3, 4))
    assert [line.split() for line in made.in_words()] == [
        [f"{first:.1f}", "to", f"{second:.1f}", "s", "happy", "0.750"],
        ["at", f"{fourth:.1f}", "s", "sad", "0.500"],
        ["at", f"{last:.1f}", "s", "happy", "0.700"],
    ]
    step = made.decisive_step(1)
    weights = np.nansum(made.weights[1], axis=1)
    assert made.active[1, step] and weights[step] == weights[made.active[1]].max()
    assert replace(made, weights=None).decisive_step(1) == 4


def test_the_faces_that_were_found_are_framed_in_the_frames_that_decided(made):
    squares = np.array([30, 10, 80, 60]) + np.arange(16)[:, None] * [1, 0, 1, 0]  # a face that moves
    moving = replace(made, faces=[Face(squares, 16, 1, 1)] * 5)
    figure = faces_found(moving, {clip: made.read(clip) for clip in (3, 1)})
    assert not plt.get_fignums()
    assert [ax.get_title() for ax in figure.axes] == [f"{made.seconds[clip]:.1f} s" for clip in (1, 3)]
    for ax, clip in zip(figure.axes, (1, 3), strict=True):
        frames, time = made.read(clip), 2 * made.decisive_step(clip) + 1
        assert np.array_equal(ax.images[0].get_array(), frames[time]) and frames.shape == (16, 60, 100, 3)
        (square,) = ax.patches
        assert (*square.get_xy(), square.get_width(), square.get_height()) == (30 + time, 10, 49, 49)
    (ax,) = faces_found(replace(made, faces=None), {0: made.read(0)}).axes
    assert (*ax.patches[0].get_xy(), ax.patches[0].get_width()) == (20, 0, 59)  # the central square


def test_the_figure_shows_the_frames_that_decided_over_the_curve(made):
    moments = {clip: made.seen(clip) for clip in made.decisive()}
    figure = expression_over_time(made, moments)
    figure.draw_without_rendering()
    assert not plt.get_fignums()
    *shown, axes = figure.axes
    titles = [f"{made.seconds[clip]:.1f} s, {LABELS[clip]}" for clip in (1, 3, 4)]
    assert [ax.get_title() for ax in shown] == [titles[0], "", titles[1], "", titles[2], ""]
    for column, clip in enumerate(made.decisive()):
        frame = moments[clip][2 * made.decisive_step(clip) + 1]
        assert np.array_equal(shown[2 * column].images[0].get_array(), frame)
    assert {text.get_text() for text in axes.texts} == {"happy", "sad"}
    curves = [line for line in axes.lines if len(line.get_xdata()) == 5]
    assert np.array_equal(np.stack([line.get_ydata() for line in curves]), made.probabilities.T, equal_nan=True)
    assert ORANGE not in [line.get_color() for line in axes.lines]  # which marks active frames
    marks = [line.get_xdata()[0] for line in axes.lines if len(line.get_xdata()) == 2]
    assert marks == made.seconds[made.decisive()].tolist()
    expression_over_time(replace(made, weights=None), {}).draw_without_rendering()


def test_the_animation_shows_square_mask_and_label(made, tmp_path):
    animate(made, tmp_path / "a.mp4")
    with av.open(str(tmp_path / "a.mp4")) as container:
        rate = float(container.streams.video[0].average_rate)
        frames = [frame.to_ndarray(format="rgb24").astype(int) for frame in container.decode(video=0)]
    assert len(frames) == 47 and rate == pytest.approx(12.5)
    height = 60 * WIDTH // 100
    assert frames[0].shape[1] == WIDTH and frames[0].shape[0] > height + 100
    # The square's left edge has a dark outline where the person is, and not where not.
    left = round(30 * WIDTH / 100)
    outline = [frame[100 : height - 40, left - 5 : left].mean(axis=(0, 2)).min() < 120 for frame in frames]
    nearest = [LABELS[int(np.abs(made.seconds - number / 25).argmin())] for number in range(0, 93, 2)]
    assert outline == [label != "" for label in nearest]
    assert all(frame[4:28, 8:120].min() < 60 for frame in frames)  # what the label is, or that nobody is seen
    # Excluded patches are darker than those that the hard mask hides, which are left as they are.
    side, shown = round(50 * WIDTH / 100 / 4), frames[16]  # frame 32 of the video, in the fifth step of the first clip
    dark, bright = [], []
    for patch in range(16):
        row, column = divmod(patch, 4)
        y, x = round(10 * WIDTH / 100) + row * side + side // 2, round(30 * WIDTH / 100) + column * side + side // 2
        pixel = shown[y - 5 : y + 5, x - 5 : x + 5].mean()
        if not made.visible[patch]:
            bright.append(pixel)
        elif np.isnan(made.weights[0, 4, patch]):
            dark.append(pixel)
    assert bright and dark and max(dark) < min(bright) - 40


def test_a_gif_and_a_folder_of_frames(whole, tmp_path):
    animate(whole, tmp_path / "a.GIF")
    with Image.open(tmp_path / "a.GIF") as picture:
        assert picture.n_frames == 47 and picture.info["duration"] == 80 and picture.width == WIDTH
    folder = write_frames(tmp_path / "frames", moving_frames(30, 32, 48))
    short = predict_over_time(folder, create_model("adatosk_tiny", soft_mask=None), locate_face=False)
    animate(short, tmp_path / "b.mp4", fps=10)
    with av.open(str(tmp_path / "b.mp4")) as container:
        assert sum(1 for _ in container.decode(video=0)) == 30


def test_another_kind_of_animation_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"a\.avi: an animation is a \.mp4 or a \.gif file"):
        check_animation(tmp_path / "a.avi")
