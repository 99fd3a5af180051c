"""Intervals, p values, signs and the rule for verdicts, against numbers worked out in another way."""

import ast
import json
import subprocess
import sys
from math import comb, isnan, sqrt

import numpy as np
import pandas as pd
import pytest

from adatosk.experiments import statistics
from adatosk.experiments.statistics import (
    VERDICTS,
    Interval,
    by_look,
    interval,
    judge_better,
    judge_count,
    judge_negligible,
    looks,
    paired,
    score_interval,
    side,
    sign_test,
)
from adatosk.utils.project import PROJECT


def series(*values: float) -> pd.Series:
    return pd.Series(values, dtype=float)


def long_table(**rows: list[float]) -> pd.DataFrame:
    parts = [(row, seed, "views_1", war, war) for row, values in rows.items() for seed, war in enumerate(values)]
    return pd.DataFrame(parts, columns=["row", "repeat", "protocol", "uar", "war"])


def test_the_interval_is_students():
    found = interval(series(70, 73, 71))
    deviation = sqrt(sum((v - 71.3333333) ** 2 for v in (70, 73, 71)) / 2)
    assert found.mean == pytest.approx(71.3333333) and found.count == 3
    assert found.high - found.mean == pytest.approx(4.302653 * deviation / sqrt(3), rel=1e-5)  # t of 2 degrees, 97.5 %
    assert found.mean - found.low == pytest.approx(found.high - found.mean)
    assert str(found) == "71.3 ± 3.8"
    assert score_interval(series(70, 73, 71)) == found


def test_the_interval_holds_the_mean_in_95_of_100_draws():
    draws = np.random.default_rng(0).normal(50, 3, (2000, 5))
    held = [found.low <= 50 <= found.high for found in (interval(pd.Series(draw)) for draw in draws)]
    assert 0.93 < np.mean(held) < 0.97


def test_the_p_value_is_students_and_falls_below_5_percent_where_the_interval_leaves_0():
    # t = 2 / (1 / sqrt(3)) with 2 degrees of freedom, whose distribution function is 1/2 + t / (2 sqrt(2 + t^2)).
    t = 2 * sqrt(3)
    assert interval(series(1, 2, 3)).p == pytest.approx(1 - t / sqrt(2 + t**2))
    for draw in np.random.default_rng(0).normal(2, 3, (200, 4)):
        values = pd.Series(draw)
        assert (interval(values).p < 0.05) == (side(interval(values)) in ("above", "below"))


@pytest.mark.parametrize("values", [(14.3,), (14.3, 14.3), (14.2, 14.4), (-5.0, -5.1)])
def test_fewer_than_three_repeats_decide_nothing(values):
    found = interval(series(*values))
    assert isnan(found.low) and isnan(found.high) and isnan(found.p)
    assert side(found) == judge_better(found) == judge_negligible(found) == "too few runs"
    assert str(found) == f"{sum(values) / len(values):.1f} (n = {len(values)})" == str(score_interval(series(*values)))


@pytest.mark.parametrize(
    "values",
    [
        (14.3,) * 3,
        (0.0,) * 15,
        # One clip of fourteen, twice and three times, as scores are kept: to four digits.
        (14.2857 - 7.1429, 21.4286 - 14.2857, 28.5714 - 21.4286),
    ],
)
def test_equal_repeats_are_not_certainty(values):
    found = interval(series(*values))
    assert isnan(found.low) and isnan(found.high) and isnan(found.p)
    assert side(found) == judge_better(found) == judge_negligible(found) == "undecided"
    assert "±" not in str(found) and f"n = {len(values)}" in str(found)


def test_one_clip_more_or_less_of_a_large_test_set_is_a_spread():
    step = 100 / 11_697  # DFEW's clips, more than its test folds have
    found = interval(series(5, 5 + step, 5 - step))
    assert found.low < 5 < found.high and side(found) == "above"


@pytest.mark.parametrize(("values", "text"), [((0, 100), "50.0 (n = 2)"), ((0, 0, 100), "33.3 (n = 3)")])
def test_a_score_has_no_interval_wider_than_its_scale(values, text):
    assert str(score_interval(series(*values))) == str(interval(series(*values))) == text
    values = series(30, 60, 0)  # 30 ± 74.5: a difference may, a score cannot be as far away as that
    assert str(interval(values)) == "30.0 ± 74.5" and str(score_interval(values)) == "30.0 (n = 3)"
    assert side(interval(series(0, 0, 100))) == "undecided"


def test_missing_values_do_not_count_and_none_at_all_is_an_error():
    assert interval(series(1, 2, np.nan, 3)) == interval(series(1, 2, 3))
    assert side(interval(series(1, 2, np.nan))) == "too few runs"
    for nothing in (series(), series(np.nan)):
        with pytest.raises(ValueError, match="no values"):
            interval(nothing)


@pytest.mark.parametrize(("one", "other"), [(0, 0), (5, 0), (0, 5), (3, 2), (12, 30), (70, 41)])
def test_the_sign_test_counts_coins(one, other):
    first = pd.Series([True] * one + [False] * other + [True, False])
    second = pd.Series([False] * one + [True] * other + [True, False])
    tail = sum(comb(one + other, k) for k in range(min(one, other) + 1)) / 2 ** (one + other)
    found = sign_test(first, second)
    assert found[:2] == (one, other) and found.p == pytest.approx(min(1, 2 * tail))


def test_pairs_are_formed_by_seed_and_a_missing_partner_is_left_out():
    table = long_table(a=[70, 72, 75], b=[69, 70])
    assert paired(table.sample(frac=1, random_state=0), "a", "b").tolist() == [1, 2]
    with pytest.raises(KeyError):
        paired(table, "a", "c")


def test_seeds_run_after_a_look_are_judged_alone_as_well():
    table = long_table(a=[71, 72, 73.5, 74, 75, 76, 77], b=[70] * 7)
    found = looks(table.sample(frac=1, random_state=0), "a", "b", first=3).query("score == 'war'")
    assert found["repeats"].tolist() == ["all", "first 3", "later"]
    assert found["difference"].tolist() == pytest.approx([28.5 / 7, 6.5 / 3, 5.5]) and list(found["count"]) == [7, 3, 4]
    later = interval(series(4, 5, 6, 7))
    assert (found["low"].iloc[2], found["high"].iloc[2]) == (later.low, later.high)
    assert found["p"].iloc[2] == interval(series(4, 5, 6, 7)).p


def test_a_missing_seed_before_the_look_is_not_replaced_by_a_later_one():
    table = long_table(a=[71, 72, 73, 74], b=[70, 70, 70, 70]).query("repeat != 1")
    found = looks(table, "a", "b", first=2).query("score == 'war'").set_index("repeats")
    assert found["count"].to_dict() == {"all": 3, "first 2": 1, "later": 2}
    assert found["low"].notna().to_dict() == {"all": True, "first 2": False, "later": False}
    assert set(by_look(paired(table.query("repeat > 1"), "a", "b"), first=2)) == {"all", "later"}


@pytest.mark.parametrize("first", [None, 3, 5])
def test_without_later_seeds_there_is_one_look(first):
    table = long_table(a=[71, 72, 73], b=[70, 70, 70])
    assert looks(table, "a", "b", first)["repeats"].unique().tolist() == ["all"]


@pytest.mark.parametrize(
    ("differences", "better", "negligible"),
    [
        ([0.9, 1.2, 1.6], "reproduced", "undecided"),
        ([5.0, 5.1, 5.2], "reproduced", "not reproduced"),
        ([-1.6, -1.2, -0.9], "not reproduced", "undecided"),
        ([-5.2, -5.1, -5.0], "not reproduced", "not reproduced"),
        ([0.1, -0.1, 0.05], "undecided", "reproduced"),
        ([4.0, -4.0, 1.0], "undecided", "undecided"),
        ([3.0], "too few runs", "too few runs"),
    ],
)
def test_verdicts_follow_the_rule(differences, better, negligible):
    found = interval(series(*differences))
    assert judge_better(found) == better
    assert judge_negligible(found) == negligible
    assert {better, negligible} <= set(VERDICTS)


@pytest.mark.parametrize(
    ("low", "high", "expected"), [(0.1, 2, "above"), (-2, -0.1, "below"), (-1, 1, "undecided"), (0, 1, "undecided")]
)
def test_the_side_is_the_sign_that_the_interval_leaves_open(low, high, expected):
    assert side(Interval((low + high) / 2, low, high, 3)) == expected
    assert side(Interval((low + high) / 2, low, high, 2)) == "too few runs"


def test_counts_are_judged_with_their_rounding():
    assert judge_count(11.6, 12, 12, 0.5) == "reproduced"
    assert judge_count(11.4, 12, 12, 0.5) == "not reproduced"


def test_statistics_need_no_torch():
    code = "import sys, adatosk.experiments.statistics as s; print(s.__file__, 'torch' in sys.modules)"
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert said == [statistics.__file__, "False"]


def works_out_its_own(source: str) -> list[str]:
    """What a source imports from scipy or to count coins with, and where it compares a bound with 0."""
    found = []
    for node in ast.walk(ast.parse(source)):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import | ast.ImportFrom) else []
        module = [node.module or ""] if isinstance(node, ast.ImportFrom) else names
        bound = isinstance(node, ast.Compare) and getattr(node.left, "attr", "") in ("low", "high")
        if bound and ast.unparse(node.comparators[0]) == "0":
            found.append(ast.unparse(node))
        found += [name for name in (*module, *names) if name in ("scipy", "scipy.stats", "comb")]
    return found


def test_nothing_else_works_out_an_interval_or_a_sign():
    """Neither the package nor a notebook: what they say of chance comes from one place."""
    sources = {path: path.read_text() for path in (PROJECT / "adatosk").rglob("*.py")}
    for path in (PROJECT / "notebooks").glob("*.ipynb"):
        cells = [cell for cell in json.loads(path.read_text())["cells"] if cell["cell_type"] == "code"]
        sources[path] = "\n".join("".join(cell["source"]) for cell in cells)
    found = {path.name: own for path, source in sources.items() if (own := works_out_its_own(source))}
    assert list(found) == ["statistics.py"] and set(found["statistics.py"]) == {
        "scipy", "difference.low > 0", "difference.high < 0",
    }  # fmt: skip
