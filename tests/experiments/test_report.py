"""The tables that stand in the pages, from runs that are made up."""

import json
import re

import pandas as pd
import pytest
from verdict_runs import AS_CLAIMED, write_runs

from adatosk import manifests
from adatosk.experiments import claims, grid, report
from adatosk.experiments.grid import HEADLINE, TABLES, WITH, as_published, repeated
from adatosk.experiments.tables import over_folds
from adatosk.experiments.verdicts import verdicts
from adatosk.manifests import manifest_of
from adatosk.metrics import MEAN, POOLED
from adatosk.presets import PROFILES


def make_run(results, config, war, manifest="made-up"):
    run_id = config.run_id(manifest_of(config).digest)
    scores = {name: {"uar": war, "war": war, "clips": 14} for name in ("views_1", "views_8", "complementary")}
    folder = results / "runs" / run_id
    folder.mkdir(parents=True, exist_ok=True)
    metrics = {"seed": config.seed, "last": scores, "train_seconds": 1.0, "majority": {"uar": 14.3, "war": 14.3}}
    where = {"manifest": {"name": manifest}, "provenance": {"device": "none", "torch": "0"}}
    where["config"] = {"data": {"fold": config.data.fold}}
    (folder / "metrics.json").write_text(json.dumps(metrics | where))
    return folder


@pytest.fixture
def results(tmp_path):
    """Two seeds of the pair, with gains of 2 and 4 points."""
    for row, wars in zip(TABLES["table1"](PROFILES["smoke"]), ((62, 66), (60, 62)), strict=True):
        for config, war in zip(repeated(row), wars, strict=False):
            make_run(tmp_path, config, war)
    return tmp_path


def test_seeds_are_paired_and_their_mean_has_an_interval(results):
    table = report.seeds_table(PROFILES["smoke"], results)
    assert table["views_1", "gain"].tolist() == [2, 4]
    shown = report.with_mean(table)
    assert list(shown.index) == ["seed 0", "seed 1", "mean"]
    assert shown.loc["mean", ("views_8", "gain")] == "3.0 (n = 2)"


def test_a_third_seed_gives_an_interval(results):
    assert report.gain_in_words("smoke", results) == (
        "The gain of the soft mask is 3.0 points of WAR with one view over 2 seeds, too few for an interval."
    )
    for row, war in zip(TABLES["table1"](PROFILES["smoke"]), (66, 60), strict=True):
        make_run(results, repeated(row)[2], war)
    assert (
        report.with_mean(report.seeds_table(PROFILES["smoke"], results)).loc["mean", ("views_8", "gain")] == "4.0 ± 5.0"
    )
    assert "all: 4.0 in [-1.0, 9.0], p = 0.074, 3 seeds." in report.gain_in_words("smoke", results)


def test_later_seeds_are_said_to_be_judged_alone_only_where_they_are(tmp_path):
    pair = TABLES["table1"](PROFILES["demo"])
    for seed, gain in ((0, 2), (1, 4), (2, 3), (3, 5), (4, 4), (6, 3), (7, 2)):
        for row, war in zip(pair, (60 + gain, 60), strict=True):
            make_run(tmp_path, repeated(row)[seed], war)
    words = report.gain_in_words("demo", tmp_path)
    assert "first 6: " in words and "later" not in words  # two of them
    for row, war in zip(pair, (64, 60), strict=True):
        make_run(tmp_path, repeated(row)[8], war)
    words = report.gain_in_words("demo", tmp_path)
    assert "later: 3.0 in [0.5, 5.5]" in words and words.endswith("so the later ones are also judged alone.")


def test_nothing_is_judged_alone_on_clips_that_no_choice_was_made_on(results):
    for seed in range(2, 10):
        for row, war in zip(TABLES["table1"](PROFILES["smoke"]), (64, 60 + seed % 3), strict=True):
            make_run(results, repeated(row)[seed], war)
    words = report.gain_in_words("smoke", results)
    assert words.endswith(" 10 seeds.") and "first" not in words and "later" not in words


def test_the_lead_over_the_class_agnostic_mask_is_judged_on_the_seeds_that_no_choice_was_made_on(results, tmp_path):
    assert report.lead_in_words("smoke", results) == ""
    demo = tmp_path / "demo"
    assert report.lead_in_words("demo", demo) == ""
    agnostic, both = (r for r in grid.table3(PROFILES["demo"]) if r.repeats == 15)
    for seed in (0, 1, 6, 7, 8):
        make_run(demo, repeated(both)[seed], 75 + seed)
    assert report.lead_in_words("demo", demo) == ""
    for seed, lead in ((0, 9), (1, 8), (6, 3), (7, 2), (8, 4)):
        make_run(demo, repeated(agnostic)[seed], 75 + seed - lead)
    words = report.lead_in_words("demo", demo)
    assert words.startswith("The lead of both soft masks over the class-agnostic one") and "all: 5.2 in" in words
    assert "first 6" not in words and "later: 3.0 in [0.5, 5.5], p = 0.035, 3 seeds." in words


def test_a_seed_that_lacks_its_partner_is_left_out(results):
    alone = repeated(TABLES["table1"](PROFILES["smoke"])[0])[2]
    make_run(results, alone, 90)
    assert len(report.seeds_table(PROFILES["smoke"], results)) == 2


def test_rows_without_runs_stay_empty_and_say_that_they_have_none(results):
    table = report.grid_table("smoke", "table3", results)
    assert table.loc["CA + CS (A+M)", "seeds"] == 2 and table.loc["CA + CS (A+M)", "WAR, views 1"] == "64.0 (n = 2)"
    assert table.loc["CA", "seeds"] == 0 and pd.isna(table.loc["CA", "WAR, views 1"])
    assert table.loc["CA", "WAR on DFEW, paper"] == 76.64


def test_a_table_has_a_column_for_other_clips_on_which_it_has_runs(tmp_path):
    for profile, wars in (("demo", (70, 72)), ("demo-lifelike", (40, 44, 45)), ("geometry", (80,))):
        none = TABLES["table3"](PROFILES[profile])[0]
        for seed, war in enumerate(wars):
            make_run(tmp_path / profile, repeated(none)[seed], war)
    table = report.with_other_clips("demo", "table3", tmp_path / "demo")
    assert table.loc["none", "WAR, views 1"] == "71.0 (n = 2)" and "nan" not in table.to_markdown()
    assert table.loc["none", "WAR, views 1, lifelike faces"] == "43.0 ± 6.6, n = 3"
    assert table.loc["none", "WAR, views 1, lifelike faces at the paper's geometry"] == "80.0, n = 1"
    assert set(table.loc[["CA", "CS (M)"], "WAR, views 1, lifelike faces"]) == {""}
    others = report.with_other_clips("demo", "table4", tmp_path / "demo")
    assert list(others) == list(report.grid_table("demo", "table4", tmp_path / "demo"))
    assert list(report.with_other_clips("smoke", "table3", tmp_path / "smoke")) == list(
        report.grid_table("smoke", "table3", tmp_path / "smoke")
    )


def test_the_block_holds_every_table_and_no_nan(results):
    block = report.results_block("smoke", results)
    there = [title for name, title in report.TITLES.items() if TABLES[name](PROFILES["smoke"])]
    assert len(there) == len(report.TITLES) - 1 and report.TITLES["as_published"] not in block
    assert all(title.format(excluded=1) in block for title in there) and "nan" not in block
    assert all(name in block for name in HEADLINE)


def test_claims_are_judged_once_all_runs_of_their_table_are_there(results):
    distances = "L1 is the best distance, and L2 better than cosine: each lead"
    assert distances not in claims.claims_table("smoke", results).index
    for row in TABLES["table4"](PROFILES["smoke"]):
        for place, config in enumerate(repeated(row)):
            make_run(results, config, 60 + place if row.name == "l1" else 50 + 2 * place)
    judged = claims.claims_table("smoke", results).loc[distances]
    assert judged["verdict"] == "undecided" and judged["paper"] == "1.9 to 4.9 points"
    assert judged["here"] == "0.00 to 7.5 [5.5, 9.5] points"
    assert judged["notebook"] == "[07](notebooks/07_ablation_distance.ipynb)"
    said = claims.in_words(verdicts(PROFILES["smoke"], results, table="table4")).splitlines()
    assert said[0] == f"UNDECIDED: {distances} (section 4.3, distance loss)"
    names = ["l1 less l2", "l2 less cosine", "l1 less classification"]
    assert [line.partition(":")[0] for line in said[1:]] == [f"  {name}" for name in names]
    block = report.results_block("smoke", results)
    assert claims.TITLE in block and distances in block


def test_claims_without_a_number_here_say_what_they_need(results):
    table = claims.claims_table("smoke", results)
    best = table.loc["3 % better than the state of the art"]
    assert best["here"] == "" and best["verdict"] == "needs DFEW, FERV39k and MAFW"
    assert table.loc["38 G FLOPs fewer than VideoMAE without soft mask", "here"] == "38.1 G FLOPs"


def test_the_readme_has_six_lines_with_the_papers_numbers_beside_ours(results):
    table = report.headline_table("smoke", results)
    assert table.columns.tolist() == ["paper, on DFEW", "here, on rendered faces, 2 seeds"]
    assert table.loc["gain of the soft mask, points"].tolist() == ["1.6", "3.0 (n = 2)"]
    assert table.iloc[:, 1].str.len().gt(0).all() and len(table) == 6
    counts = [int(count) for count in re.findall(r"\d+", table.loc["claims of the paper"].iloc[1])]
    assert sum(counts) == len(claims.claims_table("smoke", results)) and max(counts) < sum(counts)


def test_the_readme_has_a_column_for_each_kind_of_clips_with_enough_seeds(tmp_path):
    for name, wars in (("demo", (70, 64)), ("demo-lifelike", (40, 41)), ("geometry", (80, 70))):
        for row, war in zip(TABLES["table1"](PROFILES[name]), wars, strict=True):
            for config in repeated(row)[: 2 if name == "geometry" else 4]:
                make_run(tmp_path / name, config, war + config.seed * (row.name == WITH))
    table = report.headline_table("demo", tmp_path / "demo")
    sparse, lifelike = "here, on sparsely moving faces, 4 seeds", "here, on lifelike faces, 4 seeds"
    assert table.columns.tolist() == ["paper, on DFEW", sparse, lifelike]
    for config in repeated(TABLES["as_published"](PROFILES["demo"])[0])[:4]:
        make_run(tmp_path / "demo", config, 66 + config.seed)
    table = report.headline_table("demo", tmp_path / "demo")
    published = "here, on sparsely moving faces, as in Eq. 11, 4 seeds"
    assert table.columns.tolist() == ["paper, on DFEW", sparse, published, lifelike]
    gains = table.loc["gain of the soft mask, points"]
    assert gains[published].startswith("3.5 ± ")
    assert gains[sparse].startswith("7.5 ± ") and gains[lifelike].startswith("0.5 ± ")


def test_kinds_of_clips_are_side_by_side_where_two_have_been_judged(tmp_path):
    sparse, lifelike, geometry = (tmp_path / name for name in ("demo", "demo-lifelike", "geometry"))
    write_runs(sparse, PROFILES["demo"], AS_CLAIMED)
    assert claims.side_by_side("demo", sparse) is None
    write_runs(lifelike, PROFILES["demo-lifelike"], AS_CLAIMED | {"CA": 3.0})
    table = claims.side_by_side("demo", sparse)
    ours, theirs = (
        [f"{kind} faces, {what}" for what in ("points", "verdict")] for kind in ("sparsely moving", "lifelike")
    )
    assert table.columns.tolist() == ours + theirs
    differs = table.index[table[ours[1]] != table[theirs[1]]]
    assert len(differs) == 1
    (one,) = table.loc[differs].itertuples(index=False)
    assert one[0].startswith("2.0 [") and one[1] == "reproduced"
    assert one[2].startswith("-3.0 [") and one[3] == "not reproduced"
    assert "sparsely moving faces, as in Eq. 11, points" not in table
    write_runs(sparse, as_published(PROFILES["demo"]), AS_CLAIMED)
    assert "sparsely moving faces, as in Eq. 11, points" in claims.side_by_side("demo", sparse)
    for row, war in zip(TABLES["table1"](PROFILES["geometry"]), (80, 70), strict=True):
        for seed, config in enumerate(repeated(row)):
            make_run(geometry, config, war + seed * (war - 75) / 10)
    wider = claims.side_by_side("demo", sparse)
    assert (
        list(wider.index) == list(table.index) and (wider["lifelike faces at the paper's geometry, points"] == "").any()
    )
    assert claims.side_by_side("smoke", tmp_path / "smoke") is None


def test_the_pair_is_shown_on_every_kind_of_clips_that_it_was_trained_on(tmp_path):
    assert report.pair_by_kind("smoke", tmp_path / "smoke") is None
    for name, wars in (("demo", (70, 64)), ("demo-lifelike", (40, 41))):
        for row, war in zip(TABLES["table1"](PROFILES[name]), wars, strict=True):
            make_run(tmp_path / name, row.config, war)
        table = report.pair_by_kind("demo", tmp_path / "demo")
        assert len(table) == 1 + (name != "demo")
    gains = table["gain of the soft mask, views 1"]
    assert gains.tolist() == [6, -1] and list(gains.index) == [
        "sparsely moving faces (profile demo)",
        "lifelike faces (profile demo-lifelike)",
    ]


def test_missing_runs_and_a_page_without_markers_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="make reproduce trains it"):
        report.headline_runs("smoke", tmp_path)
    readme = tmp_path / "README.md"
    readme.write_text("no markers")
    with pytest.raises(ValueError, match=r"README\.md: no lines"):
        report.update_page(readme, "block")
    readme.write_text(f"a\n{report.BEGIN}\nold\n{report.END}\nb\n")
    assert report.update_page(readme, "new") and not report.update_page(readme, "new")
    assert readme.read_text() == f"a\n{report.BEGIN}\n\nnew\n\n{report.END}\nb\n"


@pytest.fixture
def folds(tmp_path, monkeypatch):
    """A profile on a made-up MAFW, two clips in fold 1 and three in fold 2, of which both models have one wrong."""
    labels = ("anger", "fear", "anger", "fear", "fear")
    clips = pd.DataFrame({"path": [f"{n}.mp4" for n in range(5)], "id": list("abcde"), "label": labels})
    clips["fold"] = [1, 1, 2, 2, 2]
    path = manifests.Manifest("mafw", "1", ("anger", "fear"), clips).save(tmp_path / "mafw.csv")
    base = PROFILES["smoke"].change(
        model={"classes": ("anger", "fear")}, data={"manifest": str(path), "fold": 1, "cache_size": None}
    )
    monkeypatch.setitem(PROFILES, "made up", base)
    for row in TABLES["table1"](base):
        for config in repeated(row):
            folder = make_run(tmp_path, config, 50.0 + config.data.fold, "mafw")
            table = clips[clips["fold"] == config.data.fold][["id", "label"]].assign(views_1="fear")
            table.loc[table["id"] == "a", "views_1"] = "anger"
            table.to_csv(folder / "predictions.csv", index=False)
    return tmp_path


def test_a_set_with_folds_is_reported_by_fold_and_beside_its_own_rows_of_the_paper(folds):
    shown = report.folds_table("made up", folds)
    assert shown[f"UAR, {next(iter(HEADLINE))}"].tolist()[:2] == ["100.0", "50.0"]
    assert shown.loc[MEAN, "WAR, with soft mask"] == "83.3" and shown.loc[POOLED, "WAR, with soft mask"] == "80.0"
    table = report.results_table("made up", folds)
    assert table.loc["with soft mask", "WAR on MAFW, paper"] == 57.92
    assert table.loc["with soft mask", "WAR on MAFW, ours"] == pytest.approx(100 * (1 + 2 / 3) / 2)
    block = report.results_block("made up", folds)
    assert "fold by fold" in block and "| fold 2" in block and MEAN in block and "seed" not in block


def test_while_a_fold_is_missing_there_is_no_mean_over_folds(folds):
    second = repeated(TABLES["table1"](PROFILES["made up"])[0])[1]
    run_id = second.run_id(manifest_of(second).digest)
    (folds / "runs" / run_id / "metrics.json").unlink()
    assert pd.isna(report.results_table("made up", folds).loc["with soft mask", "WAR on MAFW, ours"])
    assert report.folds_table("smoke", folds) is None


def test_a_set_without_folds_has_no_scores_over_folds(tmp_path):
    row = TABLES["table1"](PROFILES["smoke"])[0]
    with pytest.raises(ValueError, match="'with soft mask' is not run over folds"):
        over_folds(row, tmp_path)
