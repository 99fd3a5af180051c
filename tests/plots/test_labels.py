"""Labels beside points: where they stand, and that they cover nothing."""

import itertools

import numpy as np
import pytest
from matplotlib.text import Text

from adatosk.plots.labels import name_ends, place_labels
from adatosk.plots.style import new_figure


def boxes(texts) -> list:
    return [Text.get_window_extent(text) for text in texts]  # without the lines to what they name


@pytest.mark.parametrize("scale", ["linear", "log"])
def test_names_at_the_ends_of_curves_are_in_their_order_and_a_line_apart(scale):
    figure, ((ax,),) = new_figure(1, 1, 4, 3)
    ax.set(xlim=(0, 1), ylim=(1, 100), yscale=scale)
    name_ends(ax, [(1, y, str(y), "black") for y in (1, 50, 100, 1.1, 49, 51)])
    figure.draw_without_rendering()
    names = boxes(sorted(ax.texts, key=lambda text: float(text.get_text())))
    assert all(lower.y1 <= upper.y0 + 1 for lower, upper in itertools.pairwise(names))
    axes = ax.get_window_extent()
    assert all(box.x0 > axes.x1 and axes.y0 - box.height <= box.y0 for box in names)


def test_a_label_stands_above_its_point_or_where_there_is_room():
    figure, ((ax,),) = new_figure(1, 1, 4, 3)
    ax.errorbar([0.5, 0.8], [0.5, 0.5], [0.3, 0], fmt="o", color="black")  # an interval above and below the first
    ax.set(xlim=(0, 1), ylim=(0, 1))
    place_labels(ax, [(0.5, 0.5, "a", "black"), (0.8, 0.5, "b", "blue")])
    figure.draw_without_rendering()
    a, b = boxes(ax.texts)
    first, second = ax.transData.transform([(0.5, 0.5), (0.8, 0.5)])
    assert a.x0 > first[0] and a.x1 < second[0] - 10  # beside it
    assert b.y0 > second[1] and b.x0 < second[0] < b.x1 and ax.texts[1].get_color() == "blue"


def test_a_label_without_a_free_place_is_left_out():
    figure, ((ax,),) = new_figure(1, 1, 4, 3)
    places = np.linspace(0.3, 0.7, 60)
    ax.plot(*map(np.ravel, np.meshgrid(places, places)), ".")
    ax.set(xlim=(0, 1), ylim=(0, 1))
    place_labels(ax, [(0.5, 0.5, "hidden", "black"), (0.3, 0.7, "corner", "black"), (0.3, 0.7, "the same", "black")])
    figure.draw_without_rendering()
    assert [text.get_text() for text in ax.texts] == ["corner", "the same"]
    one, other = boxes(ax.texts)
    assert not one.overlaps(other)
