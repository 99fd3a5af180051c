import io
import json
from types import SimpleNamespace

import pandas as pd
import pytest

from adatosk.experiments import tables
from adatosk.experiments.grid import Row
from adatosk.presets import PROFILES


def long_table(**rows: list[float]) -> pd.DataFrame:
    parts = [(row, seed, "views_1", war, war) for row, values in rows.items() for seed, war in enumerate(values)]
    return pd.DataFrame(parts, columns=["row", "repeat", "protocol", "uar", "war"])


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
    assert tables.summary(found).loc["only", "views_1"] == "60.5 (n = 2)"


def test_two_repeats_have_a_mean_and_no_interval():
    found = tables.against(long_table(whole=[60.0, 63.0], less=[45.7, 48.7]), "whole")
    assert found["war"].to_dict() == {"whole": "61.5 (n = 2)", "less": "47.2 (n = 2)"}
    assert found.at["less", "repeats"] == 2 and found.at["less", "difference"] == pytest.approx(-14.3)
    assert found.loc["less", ["low", "high", "p"]].isna().all()


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
    assert found["low"].isna().all() and set(found["repeats"]) == {0, 2}
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


def test_long_training_is_heard_now_and_then(monkeypatch):
    stream, now = io.StringIO(), 0
    monkeypatch.setattr(tables.time, "monotonic", lambda: now)
    seldom = tables._Seldom(stream)
    for now in range(0, 1800, 10):
        print(now, file=seldom)
    assert stream.getvalue().split() == ["40", "110", "240", "490", "980", "1590"]
