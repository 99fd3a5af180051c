"""The tables that stand in the README, from runs that are made up."""

import json

import pandas as pd
import pytest

from adatosk import manifests, report
from adatosk.grid import HEADLINE, TABLES, repeated
from adatosk.presets import PROFILES
from adatosk.train import manifest_path


def make_run(results, config, war):
    run_id = config.run_id(manifests.load(manifest_path(config)).digest)
    scores = {name: {"uar": war, "war": war, "clips": 14} for name in ("views_1", "views_8", "complementary")}
    folder = results / "runs" / run_id
    folder.mkdir(parents=True, exist_ok=True)
    metrics = {"seed": config.seed, "last": scores, "train_seconds": 1.0, "majority": {"uar": 14.3, "war": 14.3}}
    where = {"manifest": {"name": "made-up"}, "provenance": {"device": "none", "torch": "0"}}
    (folder / "metrics.json").write_text(json.dumps(metrics | where))


@pytest.fixture
def results(tmp_path):
    """Two seeds of the pair, with gains of 2 and 4 points."""
    for row, wars in zip(TABLES["table1"](PROFILES["smoke"]), ((62, 66), (60, 62)), strict=True):
        for config, war in zip(repeated(row), wars, strict=False):
            make_run(tmp_path, config, war)
    return tmp_path


def test_seeds_are_paired_and_their_mean_has_an_interval(results):
    table = report.seeds_table("smoke", results)
    assert table["views_1", "gain"].tolist() == [2, 4]
    shown = report.with_mean(table)
    assert list(shown.index) == ["seed 0", "seed 1", "mean"]
    assert shown.loc["mean", ("views_8", "gain")] == "3.0 ± 12.7"


def test_a_seed_that_lacks_its_partner_is_left_out(results):
    alone = repeated(TABLES["table1"](PROFILES["smoke"])[0])[2]
    make_run(results, alone, 90)
    assert len(report.seeds_table("smoke", results)) == 2


def test_rows_without_runs_stay_empty_and_say_that_they_have_none(results):
    table = report.grid_table("smoke", "table3", results)
    assert table.loc["CA + CS (A+M)", "seeds"] == 2 and table.loc["CA + CS (A+M)", "WAR, views 1"] == "64.0 ± 25.4"
    assert table.loc["CA", "seeds"] == 0 and pd.isna(table.loc["CA", "WAR, views 1"])
    assert table.loc["CA", "WAR on DFEW, paper"] == 76.64


def test_the_block_holds_every_table_and_no_nan(results):
    block = report.readme_block("smoke", results)
    assert all(title in block for title in report.TITLES.values()) and "nan" not in block
    assert all(name in block for name in HEADLINE)
