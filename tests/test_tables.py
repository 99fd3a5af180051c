import io
import json
from math import isnan, sqrt
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from adatosk.experiments import tables
from adatosk.experiments.grid import Row
from adatosk.presets import PROFILES


def long_table(**rows: list[float]) -> pd.DataFrame:
    parts = [(row, seed, "views_1", war, war) for row, values in rows.items() for seed, war in enumerate(values)]
    return pd.DataFrame(parts, columns=["row", "repeat", "protocol", "uar", "war"])


def test_the_interval_is_students():
    values = [70.0, 73.0, 71.0]
    found = tables.interval(pd.Series(values))
    deviation = sqrt(sum((v - 71.3333333) ** 2 for v in values) / 2)
    assert found.mean == pytest.approx(71.3333333)
    assert found.high - found.mean == pytest.approx(4.302653 * deviation / sqrt(3), rel=1e-5)  # t of 2 degrees, 97.5 %
    assert str(found) == "71.3 ± 3.8"


def test_one_value_has_no_interval_and_none_is_an_error():
    assert isnan(tables.interval(pd.Series([3.0])).low) and str(tables.interval(pd.Series([3.0]))) == "3.0"
    with pytest.raises(ValueError, match="no values"):
        tables.interval(pd.Series([], dtype=float))


def test_the_interval_holds_the_mean_in_95_of_100_draws():
    draws = np.random.default_rng(0).normal(50, 3, (2000, 5))
    held = [found.low <= 50 <= found.high for found in (tables.interval(pd.Series(draw)) for draw in draws)]
    assert 0.93 < np.mean(held) < 0.97


def test_pairs_are_formed_by_seed_and_a_missing_partner_is_left_out():
    table = long_table(a=[70, 72, 75], b=[69, 70])
    assert tables.paired(table.sample(frac=1, random_state=0), "a", "b").tolist() == [1, 2]
    with pytest.raises(KeyError):
        tables.paired(table, "a", "c")
    assert tables.p_value(pd.Series([1.0, 2.0, 3.0])) == pytest.approx(0.0742, abs=1e-4)
    assert isnan(tables.p_value(pd.Series([1.0])))


def test_seeds_run_after_a_look_are_judged_alone_as_well():
    table = long_table(a=[71, 72, 73, 74, 75, 76], b=[70, 70, 70, 70, 70, 70])
    found = tables.looks(table.sample(frac=1, random_state=0), "a", "b", first=2).query("score == 'war'")
    assert found["repeats"].tolist() == ["all", "first 2", "later"]
    assert found["difference"].tolist() == [3.5, 1.5, 4.5] and found["count"].tolist() == [6, 2, 4]
    later = tables.interval(pd.Series([3.0, 4.0, 5.0, 6.0]))
    assert (found["low"].iloc[2], found["high"].iloc[2]) == (later.low, later.high)


def test_a_missing_seed_before_the_look_is_not_replaced_by_a_later_one():
    table = long_table(a=[71, 72, 73, 74], b=[70, 70, 70, 70]).query("repeat != 1")
    found = tables.looks(table, "a", "b", first=2).query("score == 'war'").set_index("repeats")
    assert found["count"].to_dict() == {"all": 3, "first 2": 1, "later": 2}


@pytest.mark.parametrize("first", [None, 3, 5])
def test_without_later_seeds_there_is_one_look(first):
    table = long_table(a=[71, 72, 73], b=[70, 70, 70])
    assert tables.looks(table, "a", "b", first)["repeats"].unique().tolist() == ["all"]


@pytest.mark.parametrize(
    ("differences", "better", "negligible"),
    [
        ([0.9, 1.2, 1.6], "reproduced", "undecided"),
        ([5.0, 5.1, 5.2], "reproduced", "not reproduced"),
        ([-1.6, -1.2, -0.9], "not reproduced", "undecided"),
        ([0.1, -0.1, 0.05], "undecided", "reproduced"),
        ([4.0, -4.0, 1.0], "undecided", "undecided"),
        ([3.0], "undecided", "undecided"),
    ],
)
def test_verdicts_follow_the_rule(differences, better, negligible):
    found = tables.interval(pd.Series(differences))
    assert tables.judge_better(found) == better
    assert tables.judge_negligible(found) == negligible


def test_counts_are_judged_with_their_rounding():
    assert tables.judge_count(11.6, 12, 12, 0.5) == "reproduced"
    assert tables.judge_count(11.4, 12, 12, 0.5) == "not reproduced"


def test_scores_come_from_the_runs_of_each_row(tmp_path):
    row = Row("only", PROFILES["smoke"], repeats=2)
    with pytest.raises(FileNotFoundError):
        tables.scores([row], tmp_path)
    assert tables.scores([row], tmp_path, partial=True).empty
    for config in tables.repeated(row):
        digest = tables.manifest_of(config).digest
        folder = tmp_path / "runs" / config.run_id(digest)
        folder.mkdir(parents=True)
        last = {name: {"uar": 50 + config.seed, "war": 60 + config.seed} for name in ("views_1", "views_8")}
        (folder / "metrics.json").write_text(json.dumps({"last": last, "train_seconds": 3.0}))
    found = tables.scores([row], tmp_path)
    assert found[["repeat", "protocol", "war"]].values.tolist() == [
        [0, "views_1", 60], [0, "views_8", 60], [1, "views_1", 61], [1, "views_8", 61],
    ]  # fmt: skip
    assert tables.scores([row], tmp_path, at_most=1, partial=True)["repeat"].unique().tolist() == [0]
    assert tables.summary(found).loc["only", "views_1"] == "60.5 ± 6.4"


def test_rows_are_held_against_a_reference():
    table = long_table(whole=[70.0, 73.0, 71.0], less=[68.0, 71.5, 69.0])
    table = pd.concat([table, table.assign(protocol="views_8", war=table["war"] + 10)])
    found = tables.against(table, "whole")
    assert list(found.index) == ["whole", "less"] and list(found["repeats"]) == [3, 3]
    assert found.loc["whole", "war":"war_views_8"].tolist() == ["71.3 ± 3.8", "81.3 ± 3.8"]
    assert found.loc["whole", ["difference", "low", "high", "p"]].isna().all()
    assert found.at["less", "difference"] == pytest.approx(-11 / 6) and found.at["less", "high"] < 0
    with pytest.raises(KeyError):
        tables.against(table, "more")


def test_table_2_is_ours_beside_the_papers():
    base = PROFILES["demo"]
    rows = [row.name for row in tables.table2(base)]
    found = tables.ratio_and_exclusion(long_table(**{row: [60.0, 62.0] for row in rows}), base)
    assert len(found) == 12 and found["feasible"].sum() == len(rows)
    assert (found["feasible"] == found["war"].notna()).all() and (found["feasible"] == found["gmacs"].notna()).all()
    ours = found.set_index(["mask_ratio", "r"])
    assert ours.at[(0.7, 2), "war"] == 61 and ours.at[(0.7, 2), "paper_war"] == 77.54
    assert round(ours.at[(0.7, 2), "paper_model_gmacs"]) == 40
    assert ours.at[(0.25, 0), "gmacs"] > ours.at[(0.25, 6), "gmacs"] > ours.at[(0.7, 0), "gmacs"]


def write_run(results, config, war: float, best: float) -> None:
    digest = tables.manifest_of(config).digest
    folder = results / "runs" / config.run_id(digest)
    folder.mkdir(parents=True)
    last = {"views_1": {"uar": war, "war": war}}
    chosen = {"epoch": 3, "views_1": {"uar": best, "war": best}}
    (folder / "metrics.json").write_text(json.dumps({"last": last, "best_on_test": chosen, "train_seconds": 3.0}))


def test_selection_holds_the_best_epoch_beside_the_last(tmp_path):
    row = Row("only", PROFILES["smoke"], repeats=2)
    for config in tables.repeated(row):
        write_run(tmp_path, config, 60 + config.seed, 63)
    found = tables.selection([row], tmp_path)
    assert found[["last", "best_on_test", "epoch"]].values.tolist() == [[60, 63, 3], [61, 63, 3]]


def test_missing_runs_are_asked_of_the_workspace_and_counted(tmp_path, capsys):
    row = Row("only", PROFILES["smoke"], repeats=2)
    first, second = tables.repeated(row)
    write_run(tmp_path, first, 60, 60)
    asked = []

    def runs(configs):
        print("epoch 1")  # what a run says of itself in its first seconds is not passed on
        asked.extend(configs)
        if len(asked) == 2:
            write_run(tmp_path, second, 70, 70)

    workspace = SimpleNamespace(places=SimpleNamespace(results=tmp_path), runs=runs)
    found = tables.run_rows(workspace, [row])
    assert asked == [first, second] and found["war"].tolist() == [60, 70]
    tables.run_rows(workspace, [row])
    lines = capsys.readouterr().out.splitlines()
    assert lines == ["1 rows, 2 runs, 1 of them trained now", "1 rows, 2 runs, 0 of them trained now"]


def test_long_training_is_heard_now_and_then():
    stream = io.StringIO()
    seldom = tables._Seldom(stream, seconds=0.0)
    print("epoch 1", file=seldom)
    assert stream.getvalue() == "epoch 1\n"
