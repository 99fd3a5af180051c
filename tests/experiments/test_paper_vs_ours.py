from math import isnan

import pytest
from verdict_runs import AS_CLAIMED, DEMO, write_runs

from adatosk import paper
from adatosk.experiments import grid
from adatosk.experiments.ambiguities import counted
from adatosk.experiments.paper_vs_ours import (
    REFERENCE,
    costs,
    differences,
    direction,
    every_number,
    reported,
    scores,
    settings,
)
from adatosk.experiments.statistics import Interval
from adatosk.experiments.verdicts import Study
from adatosk.plots import cost_curve as plots_cost_curve
from adatosk.presets import PROFILES


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    results = tmp_path_factory.mktemp("results")
    write_runs(results, DEMO, AS_CLAIMED)
    return Study(DEMO, results)


def test_references_and_reported_rows_are_rows_of_the_grid():
    for table, reference in REFERENCE.items():
        possible = {row.name for row in grid.TABLES[table](DEMO)}
        theirs = reported(table)
        assert reference in possible and reference in theirs.index
        assert possible - set(theirs.index) <= {"none"}  # the paper's Table 3 has no row without soft mask


def test_differences_stand_beside_the_papers(study):
    table = differences(study).set_index(["row", "quantity"])
    gain = table.loc[("with soft mask less without soft mask", "WAR, points")]
    assert gain["paper"] == pytest.approx(77.54 - 75.95)
    assert gain["ours"] == pytest.approx(2, abs=0.05) and gain["repeats"] == 15 and gain["direction"] == "same"
    cosine = table.loc[("cosine less l1", "UAR, points")]
    assert cosine["paper"] == pytest.approx(62.77 - 66.76) and cosine["ours"] == pytest.approx(-2, abs=0.05)
    dense = table.loc[("50%, r=6 less 70%, r=2", "WAR, points")]
    assert dense["direction"] == "impossible here" and isnan(dense["ours"])
    # 9 cells of Table 2 beside its reference, without UAR; the others with both scores.
    assert len(table) == 2 * 1 + 9 + 2 * 6 + 2 * 3


@pytest.mark.parametrize(
    ("said", "low", "high", "expected"),
    [(1, 0.5, 2, "same"), (-1, 0.5, 2, "opposite"), (-1, -2, -0.5, "same"), (1, -1, 2, "undecided")],
)
def test_direction_compares_signs(said, low, high, expected):
    assert direction(said, Interval((low + high) / 2, low, high, 3)) == expected
    assert direction(said, Interval(float("nan"), float("nan"), float("nan"), 0)) == "impossible here"
    assert direction(said, Interval((low + high) / 2, float("nan"), float("nan"), 2)) == "too few runs"


def test_two_repeats_have_a_difference_and_no_direction(study):
    table = differences(Study(DEMO, study.results, at_most=2))
    here = table[table["repeats"] > 0]
    assert (here["repeats"] == 2).all() and here["ours"].notna().all()
    assert here[["low", "high", "p"]].isna().all(axis=None)
    assert set(here["direction"]) == {"too few runs"}


def test_scores_on_licensed_sets_stay_empty_on_other_data(study):
    table = scores(study)
    assert table["ours"].isna().all() and (table["repeats"] == 0).all()
    assert len(table) == paper.table1().filter(regex="_uar|_war").notna().sum().sum() + 10 + 2 * 7 + 2 * 4


def test_scores_are_filled_where_the_runs_are_on_that_set(study, monkeypatch):
    monkeypatch.setattr(Study, "data", property(lambda self: "dfew"))
    table = scores(study).set_index(["table", "row", "quantity"])
    assert table.at[("table1", paper.WITH_SOFT_MASK, "WAR on dfew"), "ours"] == pytest.approx(84, abs=0.2)
    assert isnan(table.at[("table1", paper.WITH_SOFT_MASK, "WAR on mafw"), "ours"])
    assert isnan(table.at[("table1", "VideoMAE", "WAR on dfew"), "ours"])
    assert table.at[("table4", "l2", "WAR on dfew"), "repeats"] == grid.TABLE_SEEDS


def test_costs_are_counted_for_what_is_built_here():
    table = costs().set_index(["table", "row", "quantity"])
    assert round(table.at[("table1", paper.WITH_SOFT_MASK, "FLOPs (G)"), "ours"]) == 40
    assert table.at[("table1", "VideoMAE", "FLOPs (G)"), "ours"] == pytest.approx(82, abs=1.5)
    assert isnan(table.at[("table1", "SVFAP", "FLOPs (G)"), "ours"])
    assert table.at[("table2", "70%, r=2", "FLOPs (G)"), "ours"] == pytest.approx(39.6, abs=0.05)


def test_every_number_has_the_papers_value(study):
    table = every_number(study)
    assert table["paper"].notna().all() and set(table["table"]) == set(REFERENCE)
    assert not table.duplicated(["table", "row", "quantity"]).any()


def test_settings_of_profile_paper_are_the_papers():
    table = settings(PROFILES["demo"])
    compared = table.dropna(subset="profile paper")
    assert (compared["paper"] == compared["profile paper"]).all()
    assert {"dfew_clips", "mafw_classes", "top_r", "base_lr"} <= set(compared.index)
    assert table.at["image_size", "this profile"] == 48


def test_what_compares_soft_masks_refuses_a_model_without_one():
    base = PROFILES["demo"].change(model={"soft_mask": None})
    for compare in (
        lambda: settings(base),
        lambda: grid.table2(base),
        lambda: grid.mirrored_exclusion(base.model, 2),
        lambda: counted(base.model),
    ):
        with pytest.raises(ValueError, match="no soft mask: choose one"):
            compare()


def test_the_figure_has_a_panel_a_table(study):
    table = differences(study).query("quantity == 'WAR, points'")
    figure = plots_cost_curve.differences(table)
    figure.draw_without_rendering()
    assert [ax.get_title(loc="left").split(",")[0] for ax in figure.axes] == [
        "Table 1",
        "Table 2",
        "Table 3",
        "Table 4",
    ]
    assert sum(len(ax.get_yticks()) for ax in figure.axes) == len(table)


def test_the_figure_tells_too_few_runs_only_where_there_are(study):
    tables = [differences(Study(DEMO, study.results, repeats)) for repeats in (None, 2)]
    said = [plots_cost_curve.differences(table.query("quantity == 'WAR, points'")).legends[0] for table in tables]
    said = [[text.get_text() for text in legend.get_texts()] for legend in said]
    assert "ours, too few runs" in said[1] and "ours, too few runs" not in said[0]
