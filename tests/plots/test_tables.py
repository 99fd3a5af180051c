import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure

from adatosk.experiments import ambiguities, tables
from adatosk.plots import tables as plots_tables
from adatosk.presets import PROFILES

WARS = {"whole": [70, 72, 71], "less": [68, 70.2, 68.8], "more": [74, 76.2, 75.1], "same": [71, 71, 71]}


@pytest.fixture(scope="module")
def table() -> pd.DataFrame:
    parts = [
        (row, seed, protocol, war + 10 * place, war + 10 * place)
        for row, values in WARS.items()
        for seed, war in enumerate(values)
        for place, protocol in enumerate(("views_1", "views_8"))
    ]
    return pd.DataFrame(parts, columns=["row", "repeat", "protocol", "uar", "war"])


def draw(figure: Figure) -> Figure:
    """Draws it whole, so that what only fails when drawn fails here; and nothing may be left open."""
    figure.draw_without_rendering()
    assert not plt.get_fignums()
    return figure


def means(ax) -> dict[float, tuple[float, tuple]]:
    """Mean and colour by place of the large dots."""
    dots = [line for line in ax.lines if line.get_markersize() == 6.5 and len(line.get_xdata()) == 1]
    return {line.get_ydata()[0]: (line.get_xdata()[0], to_rgb(line.get_color())) for line in dots}


def test_rows_are_drawn_with_their_differences_and_the_papers(table):
    reported = pd.Series({"whole": 77.0, "less": 76.0, "elsewhere": 70.0})
    figure = draw(plots_tables.rows_and_differences(table, "whole", reported))
    left, right = figure.axes
    assert {place: mean for place, (mean, _) in means(left).items()} == pytest.approx({0: 71, 1: 69, 2: 75.1, 3: 71})
    colours = {place: colour for place, (_, colour) in means(right).items()}
    assert means(left)[0][1] == to_rgb(plots_tables.PURPLE)
    assert colours == {place: colour for place, (_, colour) in means(left).items() if place}
    assert said_above(figure) == ["better", "worse", "undecided", "the paper's, on DFEW"]
    assert colours == {1: to_rgb(plots_tables.BELOW), 2: to_rgb(plots_tables.ABOVE), 3: to_rgb(plots_tables.OPEN)}
    diamonds = next(line for line in right.lines if line.get_marker() == "D")
    assert (list(diamonds.get_xdata()), list(diamonds.get_ydata())) == ([-1], [1])
    assert diamonds.get_zorder() > max(line.get_zorder() for line in right.lines if line is not diamonds)
    low, high = right.get_xlim()
    assert low < -2.2 and 4.2 < high < 8


def said_above(figure: Figure) -> list[str]:
    (key,) = figure.legends
    return [text.get_text() for text in key.get_texts()]


def test_a_single_seed_is_drawn_without_interval(table):
    figure = draw(plots_tables.rows_and_differences(table[table["repeat"] == 0], "whole"))
    assert len(means(figure.axes[1])) == 3 and said_above(figure) == ["too few runs"]


def test_the_gain_is_drawn_for_all_seeds_and_those_after_the_interim_analysis(table):
    figure = draw(plots_tables.gain_by_look(table, "less", "whole", 2, ["views_1", "views_8"]))
    assert [ax.get_title() for ax in figure.axes] == ["1 view", "8 views"]
    assert [label.get_text() for label in figure.axes[0].get_yticklabels()] == [
        "all 3 seeds",
        "the first 2",
        "the later 1",
    ]
    gains = {place: mean for place, (mean, _) in means(figure.axes[0]).items()}
    assert gains == pytest.approx({0: -2, 1: -1.9, 2: -2.2})
    assert figure.axes[0].get_xlim() == figure.axes[1].get_xlim()  # so that panels can be compared


def test_comparisons_are_coloured_by_verdict_and_impossible_ones_said():
    rows = [
        ("claim", "better", "a less b", 2.0, 1.0, 3.0, 3, "reproduced"),
        ("claim", "negligible", "b less c", 4.0, 3.0, 5.0, 3, "not reproduced"),
        ("other", "better", "c less d", np.nan, np.nan, np.nan, 0, "undecided"),
        ("cost", "count", "e", 7.0, np.nan, np.nan, 1, "reproduced"),
    ]
    found = pd.DataFrame(rows, columns=["id", "kind", "what", "ours", "low", "high", "repeats", "verdict"])
    (ax,) = draw(plots_tables.comparisons(found)).axes
    assert means(ax) == {1: (2.0, to_rgb(plots_tables.ABOVE)), 2: (4.0, to_rgb(plots_tables.BELOW))}
    lines = {round(label.get_position()[1]): label.get_text() for label in ax.get_yticklabels()}
    assert lines == {0: "claim", 1: "a less b", 2: "b less c", 3: "other", 4: "c less d"}
    assert [text.get_text() for text in ax.texts] == ["impossible with these sizes"]
    assert ax.get_xlim()[1] > 5
    assert said_above(ax.figure) == ["reproduced", "not reproduced", "undecided", "negligible: within ±1"]


def test_table_2_hatches_what_is_empty():
    base = PROFILES["demo"]
    rows = [row.name for row in tables.table2(base)]
    parts = [(row, seed, "views_1", 50 + 5 * place + seed) for place, row in enumerate(rows) for seed in range(3)]
    scores = pd.DataFrame(parts, columns=["row", "repeat", "protocol", "war"])
    cells = tables.ratio_and_exclusion(scores, base)
    figure = draw(plots_tables.ratio_by_exclusion(cells))
    ours, theirs = figure.axes[:2]
    hatched = [[patch.get_xy() for patch in ax.patches if patch.get_hatch()] for ax in (ours, theirs)]
    assert [len(found) for found in hatched] == [3, 2]
    assert all(len(ax.texts) + len(found) == 12 for ax, found in zip((ours, theirs), hatched, strict=True))
    assert ours.texts[0].get_text().startswith("51.0\n±2.5\n") and theirs.texts[0].get_text() == "76.74\n136.2 G"


def test_readings_have_a_panel_a_protocol():
    rows = [(f"{name} (1)", protocol, difference) for protocol in ("views_1", "views_8")
            for name, values in {"up": [2, 2.2, 2.1], "open": [-3, 3, 1]}.items() for difference in values]  # fmt: skip
    figure = draw(plots_tables.ambiguities(pd.DataFrame(rows, columns=["ambiguity", "protocol", "difference"])))
    assert [ax.get_title() for ax in figure.axes] == ["1 view", "8 views"]
    colours = [colour for _, colour in means(figure.axes[0]).values()]
    assert colours == [to_rgb(plots_tables.ABOVE), to_rgb(plots_tables.OPEN)]


def test_protocols_join_the_means_of_each_row(table):
    (ax,) = draw(plots_tables.protocols(table, ["whole", "more"])).axes
    thick = [line for line in ax.lines if line.get_linewidth() == 2]
    assert [list(line.get_ydata()) for line in thick] == [[71, 81], pytest.approx([75.1, 85.1])]


def test_claims_by_protocol_has_a_number_a_cell():
    rows = [("a less b", "views_1", 1.25, "reproduced"), ("a less b", "views_8", np.nan, "undecided"),
            ("c less d", "views_1", -2.0, "not reproduced"), ("c less d", "views_8", -0.04, "undecided")]  # fmt: skip
    (ax,) = draw(
        plots_tables.claims_by_protocol(pd.DataFrame(rows, columns=["what", "protocol", "ours", "verdict"]))
    ).axes
    assert [text.get_text() for text in ax.texts] == ["+1.2", "–", "-2.0", "+0.0"]
    assert to_rgb(ax.patches[2].get_facecolor()) == to_rgb(plots_tables.BELOW)


def test_costs_mark_the_papers_number():
    cost = ambiguities.counted()
    figure = draw(plots_tables.costs(cost))
    assert len(figure.axes) == cost["quantity"].nunique()
    assert sum(len(ax.patches) for ax in figure.axes) == len(cost)
    (papers,) = figure.axes[0].collections
    assert {segment[0][0] for segment in papers.get_segments()} == {74}
    assert {to_rgb(colour) for colour in papers.get_edgecolor()} == {to_rgb("black")}  # as its values elsewhere
