import json
from pathlib import Path

import pytest

from adatosk import manifests, paper
from adatosk.experiments import grid
from adatosk.manifests import manifest_of
from adatosk.presets import MODELS, PROFILES

PRESETS = ("smoke", "demo")
every_preset = pytest.mark.parametrize("profile", PRESETS)


def with_folds(folder: Path) -> Path:
    """The smoke manifest, its clips dealt to three folds."""
    manifest = manifests.load(Path(__file__).parents[1] / "data_manifests" / "embedded-smoke.csv")
    clips = manifest.clips.assign(split=None, fold=[1 + place % 3 for place in range(len(manifest.clips))])
    return manifests.Manifest(manifest.name, manifest.version, manifest.classes, clips).save(folder / "folds.csv")


@every_preset
def test_table_1_is_the_pair(profile):
    base = PROFILES[profile]
    rows = grid.table1(base)
    assert [row.name for row in rows] == [grid.WITH, grid.WITHOUT]
    assert rows[0].config == base and rows[1].config == base.change(model={"soft_mask": None})


def test_table_2_of_the_papers_model_is_the_papers_table():
    rows = {row.name: row.config.model for row in grid.table2(PROFILES["demo"].change(model=MODELS["adatosk_base"]))}
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
        possible = cell.r // 2 * model.steps < visible  # the profiles' own e = 1 stands for the paper's r = 2
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
    rows = grid.open_readings(base)
    assert [row.name for row in rows] == ["default", *grid.READINGS]
    configs = [row.config.model_dump_json() for row in rows]
    assert rows[0].config == base and len(set(configs)) == len(configs)


def test_every_table_has_its_number_of_seeds():
    base = PROFILES["demo"]
    for name, seeds in {"table1": 15, "table3": 6, "table4": 6, "open_readings": 4, "rivals": 3}.items():
        assert {row.repeats for row in grid.TABLES[name](base)} == {seeds}
    # Where more is visible, a run takes longer.
    assert {row.name: row.repeats for row in grid.table2(base) if row.name.endswith("r=2")} == {
        "25%, r=2": 3,
        "50%, r=2": 3,
        "70%, r=2": 6,
    }
    assert [run.seed for run in grid.repeated(grid.table1(base)[0])] == list(range(15))
    assert [run.seed for run in grid.repeated(grid.table1(base)[0], at_most=2)] == [0, 1]


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


def test_the_command_names_a_run_that_is_not_of_the_grid(capsys):
    assert grid.main(["smoke", "0123456789ab"]) == 1
    assert "0123456789ab: no run of the grid of profile 'smoke'" in capsys.readouterr().err
