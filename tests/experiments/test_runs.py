import json

import pytest
from clip_tables import with_folds

from adatosk.config import RunConfig
from adatosk.experiments import grid, runs
from adatosk.manifests import manifest_of
from adatosk.presets import PROFILES
from adatosk.utils.project import PROJECT

every_preset = pytest.mark.parametrize("profile", ["smoke", "demo", "geometry"])


@every_preset
def test_configs_are_unique_and_in_an_order_that_can_be_run(profile):
    base = PROFILES[profile]
    configs = runs.configs(profile)
    digest = manifest_of(base).digest
    assert all(config.run_id(digest) == run_id for run_id, config in configs.items())
    assert len({json.dumps(config.model_dump(mode="json")) for config in configs.values()}) == len(configs)
    ids, seeds = list(configs), [config.seed for config in configs.values()]
    assert seeds == sorted(seeds)
    for run_id, config in configs.items():
        if config.initial is not None:
            assert ids.index(config.initial.run_id(digest)) < ids.index(run_id)


def test_a_row_of_two_tables_is_one_run():
    every, alone = runs.configs("smoke"), [runs.configs("smoke", (name,)) for name in grid.TABLES]
    assert set(every) == set().union(*alone) and len(every) < sum(map(len, alone))
    assert set(runs.headline_configs("smoke")) <= set(runs.configs("smoke", ("table1",)))


def test_an_unknown_table_is_an_error():
    with pytest.raises(ValueError, match=r"unknown table table9: choose table1, .*rivals"):
        runs.configs("smoke", ("table1", "table9"))


@every_preset
def test_every_run_has_a_readable_name_of_its_own(profile):
    index = runs.run_table(profile)
    assert set(index["run_id"]) == set(runs.configs(profile)) and len(index) == len(runs.configs(profile))
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
    before = runs.run_table("smoke").set_index("run_id")["name"]
    monkeypatch.setattr(grid, "TABLE_SEEDS", grid.TABLE_SEEDS + 2)
    monkeypatch.setitem(
        grid.TABLES, "table4", lambda base: [grid.Row(row.name, row.config, 8) for row in grid.table4(base)]
    )
    after = runs.run_table("smoke").set_index("run_id")["name"]
    assert len(after) > len(before) and after[before.index].equals(before)


def test_folds_are_named_as_folds(tmp_path, monkeypatch):
    base = PROFILES["smoke"].change(data={"manifest": str(with_folds(tmp_path))})
    monkeypatch.setitem(runs.PROFILES, "folds", base)
    names = list(runs.run_table("folds")["name"])
    assert names[:3] == [f"table1-with-soft-mask-fold{fold}" for fold in (1, 2, 3)]


def test_two_runs_of_one_name_are_an_error(monkeypatch):
    rows = [grid.Row("CA", PROFILES["smoke"]), grid.Row("ca", PROFILES["smoke"].change(train={"epochs": 5}))]
    monkeypatch.setattr(runs, "TABLES", {"table1": lambda base: rows})
    with pytest.raises(ValueError, match="two runs are called table1-ca-seed0: rename a row"):
        runs.run_table("smoke")


def test_the_index_names_the_target_that_trains_a_run():
    index = runs.run_table("demo").set_index("run_id")
    assert set(index.index[index["scores_by"] == "reproduce"]) == set(runs.configs("demo", ("table1",)))
    assert set(index.index[index["weights_by"] == "reproduce"]) == set(runs.headline_configs("demo"))
    kept = set(index.index[index["weights_by"] != ""])
    assert kept >= set(runs.weighed("demo")) and kept < set(index.index)


def test_run_files_are_what_training_reads_and_are_written_once(tmp_path):
    some = runs.configs("smoke", ("rivals",))
    runs.write_runs("smoke", tmp_path, some)
    digest = manifest_of(PROFILES["smoke"]).digest
    assert {path.parent.name for path in tmp_path.rglob("config.json")} == set(some)
    for run_id in some:
        assert RunConfig.read(runs.run_file(tmp_path, run_id)).run_id(digest) == run_id
    written = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.*")}
    runs.write_runs("smoke", tmp_path, some)
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.*")} == written


def test_a_run_file_of_another_run_is_named(tmp_path):
    one, other = list(runs.headline_configs("smoke").items())
    runs.write_runs("smoke", tmp_path, dict([one, other]))
    path = runs.run_file(tmp_path, one[0])
    path.write_text(runs.run_file(tmp_path, other[0]).read_text())
    with pytest.raises(ValueError, match=rf"config\.json: is not the configuration of run {one[0]}: delete the file"):
        runs.write_runs("smoke", tmp_path, dict([one]))


def test_the_committed_index_is_the_grid_and_its_runs_are_files_of_it():
    results = PROJECT / "results" / "demo"
    assert (results / "runs.csv").read_text() == runs.run_table("demo").to_csv(index=False)
    digest = manifest_of(PROFILES["demo"]).digest
    for run_id in runs.configs("demo"):
        assert RunConfig.read(runs.run_file(results, run_id)).run_id(digest) == run_id
