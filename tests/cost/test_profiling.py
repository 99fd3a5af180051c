import pytest

from adatosk.cost.profiling import DECODER, ENCODER, PARTS, SOFT_MASK, profile_step, soft_mask_share
from adatosk.plots.cost import step_parts
from adatosk.presets import MODELS


@pytest.mark.parametrize("change", [{}, {"soft_mask": None}])
def test_each_part_of_a_step_has_its_time(change):
    table = profile_step(MODELS["adatosk_tiny"].change(**change), batch=2, device="cpu", steps=1)
    assert tuple(table.index) == PARTS and table["share"].sum() == pytest.approx(1)
    there = table["milliseconds"] > 0
    assert there.drop(SOFT_MASK).all() and there[SOFT_MASK] == (change == {})
    assert table.attrs["batch"] == 2 and table.attrs["device"]
    forward = table["milliseconds"].iloc[:4]
    assert soft_mask_share(table) == pytest.approx(forward[SOFT_MASK] / forward.sum())
    assert table.loc[ENCODER, "milliseconds"] + table.loc[DECODER, "milliseconds"] < table["milliseconds"].sum()
    (ax,) = step_parts(table).axes
    assert [bar.get_width() for bar in ax.patches] == table["milliseconds"].tolist()
