from math import isnan
from pathlib import Path

import pandas as pd
import pytest
from verdict_runs import AS_CLAIMED, DEMO, write_runs

from adatosk import paper
from adatosk.experiments import grid, verdicts
from adatosk.experiments.verdicts import Compared, Counted, Published
from adatosk.manifests import manifest_of
from adatosk.presets import PROFILES


def judged(results: Path, **options) -> pd.DataFrame:
    return verdicts.verdicts(DEMO, results, **options).set_index("id")


def test_every_claim_is_judged_in_the_papers_order():
    assert list(verdicts.JUDGED) == [claim.id for claim in paper.CLAIMS]


def test_every_row_that_is_compared_is_in_the_grid():
    for judge in verdicts.JUDGED.values():
        if isinstance(judge, Compared):
            rows = {row.name for row in grid.TABLES[judge.table](DEMO)}
            assert {name for pair in judge.pairs for name in pair} <= rows


def test_results_as_claimed_reproduce_every_comparison(tmp_path):
    write_runs(tmp_path, DEMO, AS_CLAIMED)
    table = judged(tmp_path)
    assert list(table.index) == list(verdicts.JUDGED)
    compared = [name for name, judge in verdicts.JUDGED.items() if isinstance(judge, Compared)]
    assert set(table.loc[compared, "verdict"]) == {"reproduced"}
    gain = table.loc["gain of the mask"]
    assert gain["ours_low"] == gain["ours_high"] == pytest.approx(2, abs=0.2)
    assert gain["low"] < gain["ours_low"] < gain["high"] and gain["p"] < 1e-3
    assert "with soft mask less without soft mask: WAR 2.0 ±" in gain["why"] and "repeats: 15" in gain["why"]
    assert gain["claimed_low"] == 2 and gain["agrees"] is not None


def test_results_the_other_way_round_reproduce_none(tmp_path):
    write_runs(tmp_path, DEMO, {row: -3 * effect for row, effect in AS_CLAIMED.items()} | {"70%, r=0": 3.0})
    table = judged(tmp_path)
    better = [name for name, judge in verdicts.JUDGED.items() if judge.kind == "better"]
    assert set(table.loc[better, "verdict"]) == {"not reproduced"}
    assert table.at["loss of r = 2", "verdict"] == "not reproduced"  # 3 points are not next to nothing


def test_a_claim_of_two_comparisons_needs_both(tmp_path):
    write_runs(tmp_path, DEMO, AS_CLAIMED | {"l2": -2.0, "cosine": -1.0})
    table = judged(tmp_path, table="table4")
    assert list(table.index) == ["best distance"]
    assert table.at["best distance", "verdict"] == "not reproduced"
    assert table.at["best distance", "ours_low"] == pytest.approx(-1, abs=0.2)
    parts = verdicts.comparisons(verdicts.Study(DEMO, tmp_path), "table4")
    assert parts["verdict"].tolist() == ["reproduced", "not reproduced", "reproduced"]


@pytest.mark.parametrize(
    ("parts", "whole"),
    [
        (["reproduced", "reproduced"], "reproduced"),
        (["reproduced", "undecided"], "undecided"),
        (["undecided", "not reproduced", "reproduced"], "not reproduced"),
        (["reproduced", "too few runs", "undecided"], "too few runs"),
        (["too few runs", "not reproduced"], "not reproduced"),
        (["needs DFEW", "too few runs"], "too few runs"),
        (["needs DFEW", "undecided", "needs MAFW"], "needs DFEW and MAFW"),
        (["nothing to compare with", "reproduced"], "undecided"),
    ],
)
def test_parts_combine(parts, whole):
    assert verdicts.combined(parts) == whole


@pytest.mark.parametrize("repeats", [1, 2])
def test_one_and_two_seeds_decide_nothing(tmp_path, repeats):
    write_runs(tmp_path, DEMO, AS_CLAIMED)
    table = judged(tmp_path, at_most=repeats)
    compared = [name for name, judge in verdicts.JUDGED.items() if isinstance(judge, Compared)]
    assert set(table.loc[compared, "verdict"]) == {"too few runs"}
    assert table.loc[compared, "ours_low"].notna().all() and table.loc[compared, ["low", "p"]].isna().all(axis=None)
    assert "±" not in "".join(table.loc[compared, "why"])
    assert not (table.drop(index=compared)["verdict"] == "too few runs").any()


@pytest.mark.parametrize(
    ("found", "said"),
    [
        (["too few runs", "too few runs"], "too few runs to say"),
        (["too few runs", "reproduced"], "none"),
        (["not reproduced", "undecided"], "a"),
        (["not reproduced", "not reproduced"], "a, b"),
    ],
)
def test_claims_that_are_contradicted_are_named_where_any_could_be(found, said):
    assert verdicts.contradicted(pd.DataFrame({"id": ["a", "b"], "verdict": found})) == said


def test_seeds_that_scatter_more_than_the_rows_differ_decide_nothing_either(tmp_path):
    write_runs(tmp_path, DEMO, {}, spread=8.0)
    table = judged(tmp_path, table="table3")
    assert set(table["verdict"]) == {"undecided"}


def test_counts_are_the_papers_models_whatever_the_runs(tmp_path):
    study = verdicts.Study(DEMO, tmp_path)
    found = {}
    for claim in paper.CLAIMS:
        if isinstance(verdicts.JUDGED[claim.id], Counted):
            findings = verdicts.JUDGED[claim.id].findings(claim, study)
            found[claim.id] = verdicts.combined(one.verdict for one in findings)
            assert all(f"{one.ours.mean:.1f}" in one.why for one in findings)
    assert [name for name, verdict in found.items() if verdict == "reproduced"] == [
        "lower cost", "cost without mask", "cost of the mask",
    ]  # fmt: skip
    assert found["parameters of the mask"] == "not reproduced"  # a soft mask that learns has more parameters than none


def test_claims_on_other_sets_say_which_they_need(tmp_path):
    write_runs(tmp_path, DEMO, AS_CLAIMED)
    table = judged(tmp_path)
    sets = [name for name, judge in verdicts.JUDGED.items() if isinstance(judge, Published)]
    assert table.loc[sets, "ours_low"].isna().all()
    assert table.at["gain over A³lign-DFER, mafw_uar", "verdict"] == "needs MAFW"
    assert table.at["gain over MAE-DFER", "verdict"] == "needs DFEW, FERV39k and MAFW"
    assert table.at["gain over MMA-DFER", "verdict"] == verdicts.NOTHING_TO_COMPARE
    assert "Table 1 has no" in table.at["gain over MMA-DFER", "why"]


def test_on_a_licensed_set_its_own_scores_are_judged(tmp_path):
    manifest = manifest_of(PROFILES["smoke"])
    path = manifest.save(tmp_path / "dfew.csv")
    base = PROFILES["smoke"].change(data={"manifest": str(path)})
    write_runs(tmp_path, base, {})
    table = verdicts.verdicts(base, tmp_path).set_index("id")
    assert table.at["gain over A³lign-DFER, dfew_war", "verdict"] == "reproduced"  # 84 ± 4 over 74.2
    assert table.at["gain over A³lign-DFER, mafw_war", "verdict"] == "needs MAFW"
    assert table.at["gain over MAE-DFER", "verdict"] == "needs FERV39k and MAFW"
    assert "over MAE-DFER: 9." in table.at["gain over MAE-DFER", "why"]


def test_a_row_that_is_impossible_in_the_profile_leaves_its_claim_open(tmp_path):
    base = PROFILES["smoke"]
    write_runs(tmp_path, base, AS_CLAIMED)
    table = verdicts.verdicts(base, tmp_path, table="table2").set_index("id")
    assert table.at["loss of r = 2", "verdict"] == "undecided"
    assert "70%, r=2: impossible with this profile's sizes" in table.at["loss of r = 2", "why"]


def test_a_missing_run_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="run 'with soft mask', repeat 0, is not there"):
        verdicts.verdicts(DEMO, tmp_path)
    write_runs(tmp_path, DEMO, AS_CLAIMED)
    cosine = next(row for row in grid.table4(DEMO) if row.name == "cosine")
    lost = grid.repeated(cosine)[2].run_id(manifest_of(DEMO).digest)
    (tmp_path / "runs" / lost / "metrics.json").unlink()
    with pytest.raises(FileNotFoundError, match=rf"{lost}.*'cosine', repeat 2"):
        verdicts.verdicts(DEMO, tmp_path)
    assert isnan(judged(tmp_path, at_most=2).at["gain over supervised", "p"])
