"""The expression over a whole video: its curve with the frames that decided, and an animation of the video itself."""

import itertools
from collections.abc import Iterable, Iterator, Mapping
from fractions import Fraction
from pathlib import Path

import cv2
import matplotlib.patheffects as effects
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from PIL import Image, ImageDraw, ImageFont

from adatosk.plots.frames import SOFT_MASK, hatch_excluded, tint_patches
from adatosk.plots.style import BLUE, GREEN, GREY, PURPLE, SMALLEST, WIDEST, literal
from adatosk.predict_over_time import Curve
from adatosk.synthetic import encode
from adatosk.utils.files import replacing
from adatosk.video import open_stream
from adatosk.video.reading import FPS

ANIMATIONS = (".mp4", ".gif")
# Frames per second of an animation at most, and its width in pixels.
SMOOTH, WIDTH = 12.5, 640
_SHARE = 0.45  # of the soft mask's colour in a patch
# Of the classes; without orange, which marks active frames.
_CURVES = (BLUE, GREEN, PURPLE, "#ca9161", "#56b4e9", "#949494", "#fbafe4")
_NOW = 64  # of 255: the line that says where in the video a frame is


def expression_over_time(curve: Curve, moments: Mapping[int, np.ndarray]) -> Figure:
    """The probabilities over the video, and above them the frames that decided, plain and under the soft mask.

    A frame is the one that counted most in its clip (:meth:`Curve.decisive_step`); its line marks the clip's middle.
    Hidden patches are light grey, excluded ones hatched, see :func:`adatosk.plots.frames.masks_over_frames`.

    Args:
        moments: by the number of a clip, its frames uint8 ``(T, H, W, 3)`` from :meth:`Curve.seen`.
    """
    figure = plt.figure(figsize=(WIDEST, 4.6), layout="constrained")
    plt.close(figure)  # left open, a notebook would show it twice
    rows = 1 if curve.weights is None else 2
    grid = figure.add_gridspec(rows + 1, max(1, len(moments)), height_ratios=[1] * rows + [2.2])
    for column, (clip, frames) in enumerate(sorted(moments.items())):
        step, hidden = curve.decisive_step(clip), ~curve.visible.numpy()
        shown = frames[_decisive_frame(curve, clip)][None]
        pictures = [shown[0]]
        if curve.weights is not None:
            pictures.append(tint_patches(shown, curve.weights[clip, step][None], SOFT_MASK, hidden)[0])
        for row, picture in enumerate(pictures):
            ax = figure.add_subplot(grid[row, column])
            ax.imshow(picture, interpolation="nearest")
            ax.set_axis_off()
            if row == 0:
                ax.set_title(literal(f"{curve.seconds[clip]:.1f} s, {curve.labels[clip]}"), fontsize=SMALLEST)
            elif curve.weights is not None:
                hatch_excluded(ax, np.isnan(curve.weights[clip, step]) & ~hidden)
    ax = figure.add_subplot(grid[rows, :])
    _draw_curve(ax, curve)
    for clip in moments:
        ax.axvline(curve.seconds[clip], color=GREY, linestyle=":", linewidth=1)
    return figure


def faces_found(curve: Curve, moments: Mapping[int, np.ndarray]) -> Figure:
    """The frames that decided some clips, whole, with a white square around what the model saw of them.

    They are the frames of :func:`expression_over_time`.

    Args:
        moments: by the number of a clip, its whole frames uint8 ``(T, H, W, 3)`` from :meth:`Curve.read`.
    """
    figure = plt.figure(figsize=(9, 2.2), layout="constrained")
    plt.close(figure)
    axes = figure.subplots(1, max(1, len(moments)), squeeze=False)[0]
    for ax, (clip, frames) in zip(axes, sorted(moments.items()), strict=False):
        time = _decisive_frame(curve, clip)
        left, top, right, bottom = _square(curve, clip, time, frames.shape[1:]).tolist()
        ax.imshow(frames[time])
        square = Rectangle((left, top), right - left - 1, bottom - top - 1, fill=False, edgecolor="white", linewidth=2)
        square.set_path_effects([effects.withStroke(linewidth=4, foreground="black")])
        ax.add_patch(square)
        ax.set_axis_off()
        ax.set_title(f"{curve.seconds[clip]:.1f} s", fontsize=9)
    return figure


def _decisive_frame(curve: Curve, clip: int) -> int:
    """Which of a clip's frames stands for its decisive step: the last of the tubelet, as in the figures of masks."""
    return (curve.decisive_step(clip) + 1) * curve.config.tubelet - 1


def _draw_curve(ax: Axes, curve: Curve) -> None:
    """A line for each class that is ever the most probable one, named where it leads most; the others are grey."""
    colours = itertools.cycle(_CURVES)
    lead = curve.probabilities - np.sort(curve.probabilities, axis=1)[:, -2:-1]  # over the second best
    for name, values, ahead in zip(curve.config.classes, curve.probabilities.T, lead.T, strict=True):
        if name not in curve.labels:
            ax.plot(curve.seconds, values, color="0.85", linewidth=0.8, zorder=1)
            continue
        (line,) = ax.plot(curve.seconds, values, color=next(colours), linewidth=1.6, marker=".", markersize=3)
        peak = int(np.nanargmax(ahead))
        place = (curve.seconds[peak], values[peak])
        ax.annotate(
            literal(name), place, (0, 3), textcoords="offset points", ha="center", color=line.get_color(),
            path_effects=[effects.withStroke(linewidth=2.5, foreground="white")],  # other lines run behind it
        )  # fmt: skip
    ax.set(xlabel="time (s)", ylabel="probability", xlim=(curve.starts[0], max(curve.ends[-1], 1e-3)), ylim=(0, 1.08))
    ax.spines[["top", "right"]].set_visible(False)


def animate(curve: Curve, path: Path, fps: float = FPS, width: int = WIDTH) -> None:
    """Write the video with face, soft mask, label and curve as an MP4 or, for a short video, a GIF.

    Each frame shows the clip whose middle is nearest: its label and, on the patches that the model saw, its soft mask
    by weight from low (grey) to high (light blue), black if excluded; or that the person is not seen. Only a GIF is
    held in memory.

    Args:
        fps: as for :func:`adatosk.predict_over_time.predict_over_time`.
        width: in pixels, even.

    Raises:
        ValueError: for another suffix.
        VideoError: the video cannot be read.
    """
    check_animation(path)
    stream = open_stream(curve.path, fps)
    duration = float(stream.seconds[-1])
    rate = (stream.count - 1) / duration if duration else fps
    step = max(1, round(rate / SMOOTH))
    numbers = list(range(0, stream.count, step))
    pictures = _annotated(curve, numbers, stream.seconds, stream.images(numbers), width)
    with replacing(path) as part:
        if path.suffix.lower() == ".gif":
            _write_gif(pictures, part, rate / step)
        else:
            encode(pictures, part, Fraction(rate / step).limit_denominator(1001), crf=20)


def check_animation(path: Path) -> None:
    """Raise a `ValueError` unless a file's name says that it is an animation that can be written."""
    if path.suffix.lower() not in ANIMATIONS:
        raise ValueError(f"{path}: an animation is a {' or a '.join(ANIMATIONS)} file; name it so")


def _annotated(
    curve: Curve, numbers: list[int], seconds: np.ndarray, images: Iterable[np.ndarray], width: int
) -> Iterator[np.ndarray]:
    """The frames ``numbers`` of the video at the animation's size, with everything drawn on them."""
    strip, first, last = _strip(curve, width)
    font = ImageFont.load_default(18)
    scale_of_mask = None if curve.weights is None else np.nanpercentile(curve.weights, (2, 98))
    for number, image in zip(numbers, images, strict=True):
        clip = int(np.abs(curve.seconds - seconds[number]).argmin())
        time = max(0, int(np.searchsorted(curve.frames[clip], number, side="right")) - 1)
        scale = width / image.shape[1]
        height = round(image.shape[0] * scale)
        picture = cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR)
        label = curve.labels[clip]
        if label:
            square = np.round(scale * _square(curve, clip, time, image.shape)).astype(int)
            if scale_of_mask is not None:
                _blend(picture, square, _mask_colours(curve, clip, time // curve.config.tubelet, *scale_of_mask))
            for colour, thickness in (((0, 0, 0), 5), ((255, 255, 255), 2)):
                cv2.rectangle(picture, square[:2].tolist(), (square[2:] - 1).tolist(), colour, thickness)
            label = f"{label} {curve.probabilities[clip].max():.2f}"
        else:
            label = "person not seen"
        graph = strip.copy()
        at = round(np.interp(seconds[number], (curve.starts[0], max(curve.ends[-1], 1e-3)), (first, last)))
        graph[:, at : at + 2] = _NOW
        whole = Image.fromarray(np.concatenate([picture[: height - height % 2], graph]))
        ImageDraw.Draw(whole).text((8, 6), label, "white", font, stroke_width=2, stroke_fill="black")
        yield np.asarray(whole)


def _square(curve: Curve, clip: int, time: int, shape: tuple[int, ...]) -> np.ndarray:
    """What the model saw of a frame of this shape: left, top, right, bottom."""
    face = None if curve.faces is None else curve.faces[clip]
    if face is not None:
        return face.squares[time]
    height, width = shape[:2]
    side = min(height, width)
    left, top = (width - side) // 2, (height - side) // 2
    return np.array([left, top, left + side, top + side])


def _mask_colours(curve: Curve, clip: int, step: int, low: float, high: float) -> np.ndarray:
    """RGBA of the patches in [0, 1], float ``(N_s, 4)``, their weights on a scale of the whole video; hidden: clear."""
    weights = np.asarray(curve.weights)[clip, step]
    colours = SOFT_MASK(np.ma.masked_invalid(np.clip((weights - low) / max(high - low, 1e-12), 0, 1)))
    colours[:, 3] = _SHARE * curve.visible.numpy()
    return colours


def _blend(picture: np.ndarray, square: np.ndarray, colours: np.ndarray) -> None:
    """Draw the colours of patches ``(N_s, 4)`` over a square of the picture."""
    left, top, right, bottom = square.tolist()
    under = picture[top:bottom, left:right]
    side = round(len(colours) ** 0.5)
    grid = colours.reshape(side, side, 4)
    rows, columns = (np.arange(length) * side // length for length in under.shape[:2])
    over = grid[rows][:, columns]
    under[:] = under * (1 - over[..., 3:]) + 255 * over[..., :3] * over[..., 3:]


def _strip(curve: Curve, width: int) -> tuple[np.ndarray, int, int]:
    """The curve as a picture uint8 ``(H, width, 3)``, and the columns at which it begins and ends."""
    figure = Figure(figsize=(width / 100, 1.6), dpi=100, layout="constrained")
    canvas, ax = FigureCanvasAgg(figure), figure.add_subplot()
    _draw_curve(ax, curve)
    canvas.draw()
    box = ax.get_window_extent()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy(), round(box.x0), round(box.x1) - 2


def _write_gif(pictures: Iterable[np.ndarray], path: Path, rate: float) -> None:
    images = (Image.fromarray(picture).quantize(dither=Image.Dither.NONE) for picture in pictures)
    next(images).save(path, "GIF", save_all=True, append_images=images, duration=round(1000 / rate), loop=0)
