"""Names and values written beside what they belong to, where a legend would have to be looked up."""

from collections.abc import Iterable
from typing import Any

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.path import Path
from matplotlib.text import Text
from matplotlib.transforms import Bbox

from adatosk.plots.style import SMALLEST

# Where a label may stand, best place first, in points from its point: above, below, beside, and at the corners.
_SIDES = ((0, 1), (0, -1), (1, 0), (-1, 0), (1, 1), (1, -1), (-1, 1), (-1, -1))
_DISTANCES = (4, 7, 10, 13)
_ALIGNED: dict[int, dict[str, str]] = {
    1: {"ha": "left", "va": "bottom"},
    0: {"ha": "center", "va": "center"},
    -1: {"ha": "right", "va": "top"},
}


def name_ends(ax: Axes, ends: Iterable[tuple[float, float, str, Any]]) -> None:
    """Write names to the right of the axes, each at the height of its curve's end or the next free one.

    Call it when the limits of the axes are final.

    Args:
        ends: ``(x, y, name, colour)`` of each curve's end.
    """
    found = sorted(ends, key=lambda one: (-one[1], one[0]))
    # Shares of the axes' height, on whatever scale; names have to be a line apart, from above, and back up from below.
    shares = [ax.transAxes.inverted().transform(ax.transData.transform((x, y)))[1] for x, y, *_ in found]
    height = ax.figure.get_figheight() * ax.get_position().height
    heights, line = [], 1.25 * plt.rcParams["font.size"] / 72 / height
    for share in shares:
        heights.append(min(share, heights[-1] - line if heights else 1))
    for place in reversed(range(len(heights))):
        heights[place] = max(heights[place], heights[place + 1] + line if place + 1 < len(heights) else 0)
    for (x, y, name, colour), share in zip(found, heights, strict=True):
        where = {"xytext": (1.03, share), "textcoords": "axes fraction", "va": "center", "color": colour}
        thin = {"arrowstyle": "-", "color": colour, "linewidth": 0.5, "alpha": 0.6, "relpos": (0, 0.5)}
        ax.annotate(name, (x, y), arrowprops=thin, annotation_clip=False, **where)


def place_labels(ax: Axes, labels: Iterable[tuple[float, float, str, Any]]) -> None:
    """Write labels beside their points where they cover nothing; a label that has no such place is left out.

    Call it when all else is drawn and the limits are final, as the places depend on them.

    Args:
        labels: ``(x, y, text, colour)``, the most important first.
    """
    ax.figure.draw_without_rendering()  # which lays the figure out
    boxes, paths = _taken(ax)
    for x, y, text, colour in labels:
        note = ax.annotate(text, (x, y), (0, 0), textcoords="offset points", fontsize=SMALLEST, color=colour)
        for distance, (right, up) in ((distance, side) for distance in _DISTANCES for side in _SIDES):
            note.xyann = (distance * right, distance * up)
            note.set(ha=_ALIGNED[right]["ha"], va=_ALIGNED[up]["va"])
            box = note.get_window_extent().padded(0.5)
            inside = ax.bbox.contains(*box.min) and ax.bbox.contains(*box.max)
            crossed = any(path.intersects_bbox(box, filled=False) for path in paths)
            if inside and not crossed and not box.count_overlaps(boxes):
                boxes.append(box)
                break
        else:
            note.remove()


def _taken(ax: Axes) -> tuple[list[Bbox], list[Path]]:
    """What labels must not cover, in pixels: markers and texts, and lines, error bars and the lines to names."""
    boxes, paths = [], []
    for line in ax.lines:
        places = ax.transData.transform(line.get_xydata())
        if line.get_marker() not in ("None", "none", "", None):
            half = line.get_markersize() / 2 * ax.figure.dpi / 72
            boxes.extend(Bbox([place - half, place + half]) for place in places)
        if line.get_linestyle() != "None":
            paths.append(Path(places))
    for bars in ax.collections:
        if isinstance(bars, LineCollection):
            paths.extend(Path(ax.transData.transform(segment)) for segment in bars.get_segments() if len(segment))
    for note in ax.texts:
        boxes.append(Text.get_window_extent(note))
        if note.arrow_patch:
            paths.append(Path([ax.transData.transform(note.xy), ax.transAxes.transform(note.xyann)]))
    return boxes, paths
