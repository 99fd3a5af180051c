import pandas as pd
import pytest

from adatosk.experiments import ambiguities, grid
from adatosk.presets import MODELS, PROFILES

DEMO = PROFILES["demo"]


def scored(wars: dict[str, list[float]]) -> pd.DataFrame:
    parts = [
        (row, seed, protocol, war) for row, values in wars.items() for seed, war in enumerate(values)
        for protocol in ("views_1", "views_8")
    ]  # fmt: skip
    table = pd.DataFrame(parts, columns=["row", "repeat", "protocol", "war"])
    return table.assign(uar=table["war"])


def test_the_list_is_whole_and_every_trained_reading_is_in_the_grid():
    table = ambiguities.overview()
    assert list(table.index) == list(range(1, 23))
    trained = {int(name.rpartition("(")[2].rstrip(")")) for name in grid.AMBIGUITIES}
    # 14 is trained too; what it saves is also counted.
    assert trained == set(table.index[table["tested"] == "trained"])


@pytest.mark.parametrize("profile", ["smoke", "demo"])
def test_rows_hold_what_each_reading_is_held_against(profile):
    rows = {row.name: row.config for row in ambiguities.rows(PROFILES[profile])}
    readings = [name for name in rows if name in grid.AMBIGUITIES]
    assert readings and {ambiguities.reference(name) for name in readings} <= set(rows)
    for name in readings:
        assert rows[name] != rows[ambiguities.reference(name)]
    assert rows[grid.AS_PUBLISHED] == PROFILES[profile].change(model={"soft_mask": {"scaling": "min_max"}})


def test_the_demo_tries_every_reading_and_smoke_not_what_it_takes_itself():
    names = {profile: {row.name for row in ambiguities.rows(PROFILES[profile])} for profile in ("demo", "smoke")}
    assert set(grid.AMBIGUITIES) <= names["demo"]
    assert not any(name.startswith("LayerNorm") for name in names["smoke"])


def test_readings_are_held_against_the_same_seeds_of_their_reference():
    table = scored(
        {
            grid.AS_PUBLISHED: [70, 72, 71], "none": [60, 61, 62], "gate as written (8)": [68, 70.1, 68.9],
            "LayerNorm before the head, no soft mask (16)": [61, 62.1, 62.9], "temperature 1 (11)": [71, 69],
        }
    )  # fmt: skip
    found = ambiguities.measured(table)
    assert found["better"].to_dict() == {
        "gate as written (8)": "reference",
        "LayerNorm before the head, no soft mask (16)": "other",
        "temperature 1 (11)": "too few runs",
    }
    assert found["against"].tolist() == [grid.AS_PUBLISHED, "none", grid.AS_PUBLISHED]
    assert found["repeats"].tolist() == [3, 3, 2]
    assert found.at["temperature 1 (11)", "difference"] == pytest.approx(-1)
    assert set(ambiguities.differences(table)["protocol"]) == {"views_1", "views_8"}


def test_claims_are_tried_on_rows_of_one_reading():
    table = scored({grid.AS_PUBLISHED: [70, 72], "none": [60, 61], "CA": [71, 72], "temperature 1 (11)": [73, 74]})
    found = ambiguities.claims(table)
    assert found[["id", "what", "ours"]].values.tolist() == [
        ["gain of the mask", grid.AS_PUBLISHED, 10.5],
        ["gain of the mask", "temperature 1 (11)", 13.0],
        ["both masks against CA", grid.AS_PUBLISHED, -0.5],
        ["both masks against CA", "temperature 1 (11)", 2.0],
    ]
    assert set(found["verdict"]) == {"too few runs"} and found[["low", "high", "p"]].isna().all(axis=None)


def test_every_claim_is_tried_where_all_rows_are_there():
    """A row that the grid does not have, or not by this name, would be left out without a word."""
    names = [row.name for row in ambiguities.rows(DEMO)]
    table = scored({name: [70 + place, 71 + place / 2, 72 - place] for place, name in enumerate(names)})
    assert ambiguities.claims(table).groupby("id", sort=False).size().to_dict() == {
        "gain of the mask": 11, "both masks against CA": 4, "both masks against CS": 4, "one score in CS": 7,
    }  # fmt: skip


def test_costs_name_one_reading_for_each_number_and_it_fits_the_operations():
    table = ambiguities.counted()
    assert (table.groupby("quantity")["default"].sum() == 1).all()
    taken = table[table["default"]].set_index("quantity")
    for quantity in ("GMACs without soft mask", "GMACs with soft mask, scored"):
        assert round(taken.at[quantity, "ours"]) == taken.at[quantity, "paper"]
    assert abs(taken.at["tokens excluded at 50 % hidden, r = 2 (%)", "ours"] - 100 * (1 - 72.24 / 84.32)) < 0.1
    assert taken.at["parameters without soft mask (M)", "ours"] > 80  # which the paper's 74 M is not
    deep = table.set_index(["quantity", "option"])["ours"]
    assert deep["parameters without soft mask (M)", "512 wide, 23 blocks"] == pytest.approx(74, abs=0.6)


def test_costs_count_the_exclusion_as_the_model_does():
    """The share of tokens that leave, from the model's own masks rather than the formula."""
    base = MODELS["adatosk_base"].change(mask_ratio=0.5)
    left = [base.visible_patches - base.soft_mask.excluded_per_step * step for step in range(base.steps)]
    share = 100 * (1 - sum(left) / (base.steps * base.visible_patches))
    table = ambiguities.counted()
    taken = table[table["default"]].set_index("quantity")["ours"]
    assert taken["tokens excluded at 50 % hidden, r = 2 (%)"] == pytest.approx(share)
