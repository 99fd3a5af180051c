import json
from pathlib import Path

import pytest

from adatosk import manifests, paper
from adatosk.config import RunConfig
from adatosk.experiments import grid
from adatosk.manifests import manifest_of
from adatosk.presets import MODELS, PROFILES
from adatosk.utils.project import PROJECT

PRESETS = ("smoke", "demo", "geometry")
every_preset = pytest.mark.parametrize("profile", PRESETS)


def with_folds(folder: Path) -> Path:
    """The smoke manifest, its clips dealt to three folds."""
    manifest = manifests.load(PROJECT / "data_manifests" / "embedded-smoke.csv")
    clips = manifest.clips.assign(split=None, fold=[1 + place % 3 for place in range(len(manifest.clips))])
    return manifests.Manifest(manifest.name, manifest.version, manifest.classes, clips).save(folder / "folds.csv")


@every_preset
def test_table_1_is_the_pair(profile):
    base = PROFILES[profile]
    rows = grid.table1(base)
    assert [row.name for row in rows] == [grid.WITH, grid.WITHOUT]
    assert rows[0].config == base and rows[1].config == base.change(model={"soft_mask": None})


@pytest.mark.parametrize("base", [PROFILES["demo"].change(model=MODELS["adatosk_base"]), PROFILES["geometry"]])
def test_table_2_at_the_papers_geometry_is_the_papers_table(base):
    rows = {row.name: row.config.model for row in grid.table2(base)}
    there = paper.table2().dropna(subset="war")
    assert list(rows) == [f"{cell.mask_ratio:.0%}, r={cell.r}" for cell in there.itertuples()]
    for cell, model in zip(there.itertuples(), rows.values(), strict=True):
        assert model.mask_ratio == cell.mask_ratio
        assert model.soft_mask.excluded_per_step == cell.r * model.tubelet


@every_preset
def test_table_2_leaves_out_just_the_impossible_cells(profile):
    model = PROFILES[profile].model
    names = [row.name for row in grid.table2(PROFILES[profile])]
    for cell in paper.table2().itertuples():
        visible = int(model.patches * (1 - cell.mask_ratio) + 1e-9)
        # A profile's own e stands for the paper's r = 2.
        possible = cell.r // 2 * model.soft_mask.excluded_per_step * model.steps < visible
        assert (f"{cell.mask_ratio:.0%}, r={cell.r}" in names) == possible


@every_preset
def test_table_3_has_a_row_without_and_the_papers_rows(profile):
    rows = {row.name: row.config.model.soft_mask for row in grid.table3(PROFILES[profile])}
    assert list(rows) == ["none", *paper.table3()["strategy"]]
    assert rows["none"] is None
    assert rows["CA + CS (A+M)"] == PROFILES[profile].model.soft_mask
    for row in paper.table3().itertuples():
        mask = rows[row.strategy]
        assert (mask.agnostic, mask.semantic) == (row.agnostic, row.semantic)
        # Without M nothing can be ranked, so nothing is excluded.
        assert (mask.excluded_per_step > 0) == ("M" in row.semantic)


@every_preset
def test_table_4_has_the_papers_distances(profile):
    rows = {row.name: row.config.model.soft_mask.distance for row in grid.table4(PROFILES[profile])}
    assert rows == {name: name for name in paper.table4()["distance"]}


def test_open_readings_each_deviate_from_the_demo():
    base = PROFILES["demo"]
    rows = grid.ambiguities(base)
    assert [row.name for row in rows] == ["default", *grid.AMBIGUITIES]
    configs = [row.config.model_dump_json() for row in rows]
    assert rows[0].config == base and len(set(configs)) == len(configs)


def test_every_table_has_its_number_of_seeds():
    base = PROFILES["demo"]
    for name, seeds in {"table1": 15, "table3": 6, "table4": 6, "open_readings": 4, "rivals": 3}.items():
        assert {row.repeats for row in grid.TABLES[name](base)} == {seeds}
    counts = {row.name: row.repeats for row in grid.activation_map(base)}
    assert counts["CA + CS (A+M), over the mean"] == 6 and counts["CS (A), A of other tokens"] == 3
    # Where more is visible, a run takes longer.
    assert {row.name: row.repeats for row in grid.table2(base) if row.name.endswith("r=2")} == {
        "25%, r=2": 3,
        "50%, r=2": 3,
        "70%, r=2": 6,
    }
    assert [run.seed for run in grid.repeated(grid.table1(base)[0])] == list(range(15))
    assert [run.seed for run in grid.repeated(grid.table1(base)[0], at_most=2)] == [0, 1]
    for rows in grid.TABLES.values():
        assert {len(grid.repeated(row)) for row in rows(PROFILES["geometry"])} == {3}


def test_data_with_folds_is_repeated_over_its_folds(tmp_path):
    base = PROFILES["smoke"].change(data={"manifest": str(with_folds(tmp_path))})
    assert grid.first_look(base) is None and grid.first_look(PROFILES["smoke"]) == 5
    for row in (grid.table1(base)[0], grid.table3(base)[0]):
        runs = grid.repeated(row)
        assert [run.data.fold for run in runs] == [1, 2, 3] and {run.seed for run in runs} == {0}
    assert [run.data.fold for run in grid.repeated(grid.table1(base)[0], at_most=1)] == [1]


def test_what_a_run_starts_from_is_repeated_with_it(tmp_path):
    folds = PROFILES["smoke"].change(data={"manifest": str(with_folds(tmp_path))})
    for base, repeats in ((PROFILES["smoke"], [0, 1, 2]), (folds, [1, 2, 3])):
        rows = [row for row in grid.rivals(base) if row.config.initial is not None]
        assert len(rows) == 2
        for row in rows:
            runs = grid.repeated(row)
            seen = [run.seed if run.data.fold is None else run.data.fold for run in runs]
            assert seen == repeats
            assert [(run.initial.seed, run.initial.data) for run in runs] == [(run.seed, run.data) for run in runs]


@every_preset
def test_configs_are_unique_and_in_an_order_that_can_be_run(profile):
    base = PROFILES[profile]
    configs = grid.configs(profile)
    digest = manifest_of(base).digest
    assert all(config.run_id(digest) == run_id for run_id, config in configs.items())
    assert len({json.dumps(config.model_dump(mode="json")) for config in configs.values()}) == len(configs)
    ids, seeds = list(configs), [config.seed for config in configs.values()]
    assert seeds == sorted(seeds)
    for run_id, config in configs.items():
        if config.initial is not None:
            assert ids.index(config.initial.run_id(digest)) < ids.index(run_id)


def test_a_row_of_two_tables_is_one_run():
    every, alone = grid.configs("smoke"), [grid.configs("smoke", (name,)) for name in grid.TABLES]
    assert set(every) == set().union(*alone) and len(every) < sum(map(len, alone))
    assert set(grid.headline_configs("smoke")) <= set(grid.configs("smoke", ("table1",)))


def test_an_unknown_table_is_an_error():
    with pytest.raises(ValueError, match=r"unknown table table9: choose table1, .*rivals"):
        grid.configs("smoke", ("table1", "table9"))


@every_preset
def test_every_run_has_a_readable_name_of_its_own(profile):
    index = grid.run_table(profile)
    assert set(index["run_id"]) == set(grid.configs(profile)) and len(index) == len(grid.configs(profile))
    assert index["name"].is_unique and index["name"].str.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*").all()
    # The name says which run it is: its first table, its row and its seed, and that it only starts another one.
    named = index.set_index("name")["run_id"]
    digest = manifest_of(PROFILES[profile]).digest
    (row,) = [row for row in grid.table3(PROFILES[profile]) if row.name == "CA"]
    assert named["table3-ca-seed2"] == row.config.change(seed=2).run_id(digest)
    (row,) = [row for row in grid.rivals(PROFILES[profile]) if row.name == "pre-trained, same epochs each"]
    last = grid.repeated(row)[1]
    assert named["rivals-pre-trained-same-epochs-each-seed1"] == last.run_id(digest)
    assert named["rivals-pre-trained-same-epochs-each-seed1-start"] == last.initial.run_id(digest)


def test_a_name_stays_when_a_row_is_repeated_more_often(monkeypatch):
    before = grid.run_table("smoke").set_index("run_id")["name"]
    monkeypatch.setattr(grid, "TABLE_SEEDS", grid.TABLE_SEEDS + 2)
    monkeypatch.setitem(
        grid.TABLES, "table4", lambda base: [grid.Row(row.name, row.config, 8) for row in grid.table4(base)]
    )
    after = grid.run_table("smoke").set_index("run_id")["name"]
    assert len(after) > len(before) and after[before.index].equals(before)


def test_folds_are_named_as_folds(tmp_path, monkeypatch):
    base = PROFILES["smoke"].change(data={"manifest": str(with_folds(tmp_path))})
    monkeypatch.setitem(grid.PROFILES, "folds", base)
    names = list(grid.run_table("folds")["name"])
    assert names[:3] == [f"table1-with-soft-mask-fold{fold}" for fold in (1, 2, 3)]


def test_two_runs_of_one_name_are_an_error(monkeypatch):
    rows = [grid.Row("CA", PROFILES["smoke"]), grid.Row("ca", PROFILES["smoke"].change(train={"epochs": 5}))]
    monkeypatch.setattr(grid, "TABLES", {"table1": lambda base: rows})
    with pytest.raises(ValueError, match="two runs are called table1-ca-seed0: rename a row"):
        grid.run_table("smoke")


def test_the_index_names_the_target_that_trains_a_run():
    index = grid.run_table("demo").set_index("run_id")
    assert set(index.index[index["scores_by"] == "reproduce"]) == set(grid.configs("demo", ("table1",)))
    assert set(index.index[index["weights_by"] == "reproduce"]) == set(grid.headline_configs("demo"))
    kept = set(index.index[index["weights_by"] != ""])
    assert kept >= set(grid.weighed("demo")) and kept < set(index.index)


def test_run_files_are_what_training_reads_and_are_written_once(tmp_path):
    runs = grid.configs("smoke", ("rivals",))
    grid.write_runs("smoke", tmp_path, runs)
    digest = manifest_of(PROFILES["smoke"]).digest
    assert {path.parent.name for path in tmp_path.rglob("config.json")} == set(runs)
    for run_id in runs:
        assert RunConfig.read(grid.run_file(tmp_path, run_id)).run_id(digest) == run_id
    written = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.*")}
    grid.write_runs("smoke", tmp_path, runs)
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.*")} == written


def test_a_run_file_of_another_run_is_named(tmp_path):
    one, other = list(grid.headline_configs("smoke").items())
    grid.write_runs("smoke", tmp_path, dict([one, other]))
    path = grid.run_file(tmp_path, one[0])
    path.write_text(grid.run_file(tmp_path, other[0]).read_text())
    with pytest.raises(ValueError, match=rf"config\.json: is not the configuration of run {one[0]}: delete the file"):
        grid.write_runs("smoke", tmp_path, dict([one]))


def test_the_committed_index_is_the_grid_and_its_runs_are_files_of_it():
    results = PROJECT / "results" / "demo"
    assert (results / "runs.csv").read_text() == grid.run_table("demo").to_csv(index=False)
    digest = manifest_of(PROFILES["demo"]).digest
    for run_id in grid.configs("demo"):
        assert RunConfig.read(grid.run_file(results, run_id)).run_id(digest) == run_id
