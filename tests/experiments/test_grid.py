import pytest
from clip_tables import with_folds

from adatosk import paper
from adatosk.experiments import grid
from adatosk.presets import MODELS, PROFILES

PRESETS = ("smoke", "demo", "geometry")
every_preset = pytest.mark.parametrize("profile", PRESETS)


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
    assert [row.name for row in rows] == [grid.AS_PUBLISHED, *grid.AMBIGUITIES]
    configs = [row.config.model_dump_json() for row in rows]
    assert rows[0].config.model.soft_mask.scaling == "min_max" and len(set(configs)) == len(configs)
    # One of them is the profile itself.
    assert {row.name: row.config for row in rows}["over the mean (15)"] == base


def test_every_table_has_its_number_of_seeds():
    base = PROFILES["demo"]
    assert {row.name: row.repeats for row in grid.table3(base) if row.repeats != 6} == {"CA": 15, "CA + CS (A+M)": 15}
    assert {row.repeats for row in grid.table3(PROFILES["demo-lifelike"])} == {6}
    for name, seeds in {"table1": 15, "table4": 6, "open_readings": 4, "rivals": 3}.items():
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
    for name, rows in grid.TABLES.items():
        counts = {len(grid.repeated(row)) for row in rows(PROFILES["geometry"])}
        assert counts == (set() if name == "as_published" else {3})


def test_the_tables_that_were_run_as_published_are_kept_on_the_clips_they_were_run_on():
    rows = {row.name: row for row in grid.tables_as_published(PROFILES["demo"])}
    for table in (grid.table1, grid.table2, grid.table4):
        for row in table(PROFILES["demo"]):
            if row.config.model.soft_mask is not None:
                kept = rows.pop(f"{row.name}, as in Eq. 11")
                assert kept.repeats == row.repeats
                assert kept.config == row.config.change(model={"soft_mask": {"scaling": "min_max"}})
    assert not rows
    for name in ("smoke", "demo-lifelike", "geometry", "paper"):
        assert grid.tables_as_published(PROFILES[name]) == []
    assert grid.tables_as_published(grid.as_published(PROFILES["demo"])) == []


def test_the_normalisation_was_chosen_on_the_first_seeds_of_the_clips_that_the_rule_names():
    chosen = {name: grid.chosen_on(base) for name, base in PROFILES.items()}
    assert chosen.pop("demo") == chosen.pop("demo-lifelike") == grid.TABLE_SEEDS
    assert set(chosen.values()) == {None}


def test_data_with_folds_is_repeated_over_its_folds(tmp_path):
    base = PROFILES["smoke"].change(data={"manifest": str(with_folds(tmp_path))})
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
