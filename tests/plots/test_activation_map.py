import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_rgb

from adatosk.experiments.activation_map import CANDIDATES
from adatosk.experiments.grid import AGNOSTIC, AS_PUBLISHED, BOTH, NO_MASK
from adatosk.plots import activation_map as plots_activation_map
from adatosk.plots.tables import ABOVE, BELOW, OPEN

WARS = {
    NO_MASK: 65,
    AGNOSTIC: 74,
    f"{BOTH}, {AS_PUBLISHED}": 70,
    f"{BOTH}, {CANDIDATES[0]}": 70,
    f"{BOTH}, {CANDIDATES[1]}": 76,
    f"CS (A), {AS_PUBLISHED}": 55,
    "CS (A), bounds of each frame": 40,
}


def scores(shift: float) -> pd.DataFrame:
    noise = np.array([-0.5, 0.2, 0.3])
    parts = [
        pd.DataFrame(
            {"row": row, "repeat": range(3), "protocol": "views_1", "war": war + shift + noise * (1 + place % 3)}
        )
        for place, (row, war) in enumerate(WARS.items())
    ]
    return pd.concat(parts, ignore_index=True)


def large_dots(ax) -> dict[str, tuple[float, tuple]]:
    """Mean and colour by the row's label."""
    labels = [label.get_text() for label in ax.get_yticklabels()]
    dots = [line for line in ax.lines if line.get_markersize() == 6.5 and len(line.get_xdata()) == 1]
    return {labels[dot.get_ydata()[0]]: (dot.get_xdata()[0], to_rgb(dot.get_color())) for dot in dots}


def test_each_change_is_drawn_below_its_mask_in_the_colour_of_its_side():
    figure = plots_activation_map.normalisations({"sparse": scores(0), "lifelike": scores(-30)})
    figure.canvas.draw()
    assert not plt.get_fignums()
    both, _, alone, _ = figure.axes
    assert large_dots(both) == {
        AS_PUBLISHED: (pytest.approx(70), to_rgb("black")),
        CANDIDATES[0]: (pytest.approx(70), to_rgb(OPEN)),
        CANDIDATES[1]: (pytest.approx(76), to_rgb(ABOVE)),
    }
    assert large_dots(alone)["bounds of each frame"] == (pytest.approx(40), to_rgb(BELOW))
    for ax, shift in zip(figure.axes, (0, -30, 0, -30), strict=True):
        references = {round(line.get_xdata()[0], 6) for line in ax.lines if line.get_linestyle() in (":", "--")}
        assert references == {65 + shift, 74 + shift}


def test_the_place_of_a_row_without_runs_stays_empty():
    alone = "CS (A), bounds of each frame"
    some = scores(-30)[lambda table: table["row"].isin([NO_MASK, AGNOSTIC, f"{BOTH}, {AS_PUBLISHED}", alone])]
    figure = plots_activation_map.normalisations(
        {"sparse": scores(0), "lifelike": some, "none": some[some["row"] != alone]}
    )
    figure.canvas.draw()
    dots = [[line for line in ax.lines if line.get_markersize() == 6.5] for ax in figure.axes]
    assert [len(one) for one in dots] == [3, 1, 1, 2, 1, 0]  # both masks, then A alone
    assert to_rgb(dots[4][0].get_color()) == to_rgb(OPEN)  # there is nothing to compare it with
    assert [text.get_text() for ax in figure.axes for text in ax.texts if text.get_text() == "not run"] == ["not run"]


def test_training_is_drawn_epoch_by_epoch_and_beside_an_even_gradient():
    observed = pd.concat(
        pd.DataFrame({"change": change, "epoch": [1, 2], "activation": 50, "spread": 0.1, "extremes": [0.4, 0.5],
                      "even": 0.02, "run_id": "x"})
        for change in (AS_PUBLISHED, *CANDIDATES)
    )  # fmt: skip
    figure = plots_activation_map.tokens_in_training(observed)
    figure.canvas.draw()
    gradient = figure.axes[2]
    drawn = {line.get_label(): line for line in gradient.lines}
    lines = {name: np.asarray(line.get_ydata()).tolist() for name, line in drawn.items()}
    assert lines == {AS_PUBLISHED: [40, 50], **{key: [40, 50] for key in CANDIDATES}, "evenly spread": [2, 2]}
    below, above = (drawn[change] for change in CANDIDATES)  # on the same places
    assert below.get_markerfacecolor() == "none" and below.get_markersize() >= 1.5 * above.get_markersize()
