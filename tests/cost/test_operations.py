import logging
import warnings

import pytest
import torch

from adatosk.config import ModelConfig
from adatosk.cost import operations as efficiency
from adatosk.cost.operations import count_macs, count_parameters, group_by_part, hand_count, table1_cost, table2_cost
from adatosk.model import create_model
from adatosk.presets import MODELS
from adatosk.tokens import complementary_masks

BASE, SMALL, TINY = (MODELS[f"adatosk_{size}"] for size in ("base", "small", "tiny"))
NO_MASK = {"soft_mask": None}
# The operators that may stay uncounted: no products among them. rand and lt draw the hard mask.
ELEMENTWISE = {
    "abs", "add", "amax", "amin", "argsort", "batch_norm", "clamp_min", "copy", "div", "exp", "expand_as", "gather",
    "gelu", "gt", "layer_norm", "linalg_vector_norm", "lt", "mul", "mul_", "rand", "reciprocal", "rsub", "scatter",
    "softmax", "sort", "sqrt", "sub", "sum", "tensor_split", "topk", "unflatten", "where",
}  # fmt: skip

OPTIONS = {
    "default": {},
    "no soft mask": NO_MASK,
    "all visible, no soft mask": {"mask_ratio": 0.0, **NO_MASK},
    "scored at the output": {"soft_mask": {"score_block": None}},
    "scored after the last block": {"soft_mask": {"score_block": 2}},
    "nothing excluded": {"soft_mask": {"excluded_per_step": 0}},
    "no agnostic part": {"soft_mask": {"agnostic": False}},
    "no semantic part": {"soft_mask": {"semantic": "none", "excluded_per_step": 0}},
    "A alone": {"soft_mask": {"semantic": "A", "excluded_per_step": 0}},
    "M alone": {"soft_mask": {"agnostic": False, "semantic": "M"}},
    "classification distance": {"soft_mask": {"distance": "classification"}},
    "cosine, per frame": {"soft_mask": {"distance": "cosine", "axis": "token", "gate": "literal"}},
    "three exclusions": {"frames": 8, "mask_ratio": 0.0, "soft_mask": {"excluded_per_step": 3}},
    "wider, deeper": {"width": 48, "depth": 3, "mlp_ratio": 2.5, "decoder_depth": 2, "decoder_width": 24},
}


@pytest.mark.parametrize("change", OPTIONS.values(), ids=OPTIONS)
def test_three_counts_are_one_number(change):
    config = TINY.change(**change)
    for training in (False, True):
        by_hand = hand_count(config, training=training)
        macs = count_macs(config, training=training)
        assert macs.total == by_hand.total() == efficiency.torch_count(config, training=training)
        parts = {part: count for part, count in macs.by_part.items() if count}
        assert parts == {part: count for part, count in group_by_part(by_hand).items() if count}


def test_paper_model_without_soft_mask():
    config = BASE.change(**NO_MASK)
    macs = count_macs(config)
    # 464 tokens of 768 channels: 12 blocks of 12·N·D² + 2·N²·D, and 1536 pixels to 768 channels a token.
    assert (
        macs.by_part["embedding"] + macs.by_part["blocks"]
        == 12 * (12 * 464 * 768**2 + 2 * 464**2 * 768) + 464 * 1536 * 768
    )
    assert (macs.by_part["embedding"] + macs.by_part["blocks"]) / 1e9 == pytest.approx(43.9, abs=0.05)
    assert efficiency.torch_count(config) == macs.total == hand_count(config).total()


def test_paper_model_with_all_patches_visible():
    config = BASE.change(mask_ratio=0.0, **NO_MASK)
    parts = count_macs(config).by_part
    assert (parts["embedding"] + parts["blocks"]) / 1e9 == pytest.approx(180.3, abs=0.05)
    assert efficiency.torch_count(config) == hand_count(config).total()


def test_paper_model_with_soft_mask_and_early_exit():
    macs = count_macs(BASE)
    assert macs.total / 1e9 == pytest.approx(40, abs=0.5)
    assert macs.total == hand_count(BASE).total()
    # 58 - 4j tokens are left at step j: 464 - 4·(0 + 1 + … + 7) = 352 in the last five of twelve blocks.
    blocks = sum(n * (12 * tokens * 768**2 + 2 * tokens**2 * 768) for n, tokens in ((7, 464), (5, 352)))
    assert macs.by_part["blocks"] == blocks
    assert 0 < macs.by_part["soft_mask"] < 0.02 * macs.total


def test_parameters_of_the_paper_model():
    found = count_parameters(BASE)
    block = 3 * 768**2 + 2 * 768 + 768**2 + 768 + 2 * 4 * 768**2 + 5 * 768 + 4 * 768
    assert found.encoder == 12 * block + 1536 * 768 + 768 + 2 * 768 == 86_227_200
    assert found.head == 2 * 768 + 768**2 + 768 + 7 * 768 + 7
    assert found.soft_mask == 2 * 768 * 48 + 48 + 768 + 768**2 + 768
    assert count_parameters(BASE.change(**NO_MASK)).soft_mask == 0


@pytest.mark.parametrize("change", [{}, NO_MASK, {"soft_mask": {"agnostic": False}}])
def test_parameters_add_up(change):
    model = create_model("adatosk_tiny", **change)
    found = count_parameters(model)
    assert found.total == sum(p.numel() for p in model.parameters())
    assert found == count_parameters(model.config)
    assert found.classification == found.total - found.decoder


def test_counting_leaves_model_and_random_stream_alone():
    model = create_model("adatosk_tiny").train()
    before = [p.clone() for p in model.parameters()]
    state = torch.get_rng_state()
    for training in (False, True):
        count_macs(model, training=training)
        efficiency.torch_count(model, training=training)
    count_parameters(model)
    assert model.training
    assert all(torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))
    assert torch.equal(state, torch.get_rng_state())


def test_complementary_views_show_every_patch_once():
    sizes = [int(mask.sum()) for mask in complementary_masks(1, SMALL.patches, SMALL.mask_ratio)]
    assert sum(sizes) == SMALL.patches and len(sizes) == 3
    views = [count_macs(SMALL, visible=size) for size in sizes]
    assert [macs.total for macs in views] == [hand_count(SMALL, visible=size).total() for size in sizes]
    whole = count_macs(SMALL.change(mask_ratio=0.0)).by_part["embedding"]
    assert sum(macs.by_part["embedding"] for macs in views) == whole


def test_visible_patches_can_be_given():
    assert count_macs(TINY, visible=12).total == efficiency.torch_count(TINY, visible=12)
    assert count_macs(TINY, visible=12).total > count_macs(TINY).total
    for wrong in (0, TINY.patches + 1):
        with pytest.raises(ValueError, match=f"between 1 and the {TINY.patches} patches, got {wrong}"):
            count_macs(TINY, visible=wrong)
    with pytest.raises(ValueError, match="leave visible out"):
        count_macs(TINY, visible=12, training=True)


def test_nothing_but_elementwise_operators_is_left_out_and_told(caplog, capsys):
    with caplog.at_level(logging.WARNING), warnings.catch_warnings():
        warnings.simplefilter("error")
        left_out = count_macs(SMALL, training=True).left_out
    assert not caplog.records and capsys.readouterr() == ("", "")
    names = {name.removeprefix("aten::") for name in left_out}
    assert names <= ELEMENTWISE
    assert {"gelu", "layer_norm", "softmax"} <= names


def test_table_2_has_the_papers_cells():
    table = table2_cost()
    assert list(table["feasible"]) == list(table["paper_gflops"].notna())
    assert list(table["feasible"]) == list(table["gmacs"].notna())
    assert (table["excluded_per_step"] == 2 * table["r"]).all()
    cell = table.query("mask_ratio == 0.7 and r == 2").iloc[0]
    assert cell["gmacs"] == pytest.approx(hand_count(BASE).total() / 1e9)
    assert cell["saving"] == pytest.approx(
        1 - cell["gmacs"] / table.query("mask_ratio == 0.7 and r == 0").iloc[0].gmacs
    )
    for _, row in table.groupby("mask_ratio"):
        assert row["gmacs"].dropna().is_monotonic_decreasing and row["saving"].iloc[0] == 0
    assert table.query("mask_ratio == 0.5")["paper_saving"].tolist() == pytest.approx(
        [0, 0.1433, 0.2878, 0.5004], abs=1e-4
    )


def test_table_2_counted_by_tracing_is_the_same():
    config = ModelConfig(width=48, depth=3, heads=3, decoder_width=24, decoder_heads=2, soft_mask={"score_block": 2})
    assert table2_cost(config).equals(table2_cost(config, lambda cell: count_macs(cell).total))


def test_table_1_stands_beside_the_papers_numbers():
    table = table1_cost().set_index(["model", "image_size"])
    with_mask, without = table.loc[("AdaTosk", 224)], table.loc[("AdaTosk without soft mask", 224)]
    assert (with_mask["paper_parameters_m"], with_mask["paper_gflops"]) == (72, 40)
    assert (without["paper_parameters_m"], without["paper_gflops"]) == (74, 44)
    assert round(with_mask["gmacs"]) == 40 and round(without["gmacs"]) == 44
    assert with_mask["soft_mask_share"] < 0.02 and without["soft_mask_share"] == 0
    assert (table["encoder_m"].round(1) == 86.2).all()
    # VideoMAE's 82 G of Table 1 are its cost at 160 pixels, 180.3 are those at 224.
    assert table.loc[("all patches visible", 160)]["gmacs"] == pytest.approx(82, abs=1.5)
    assert table.loc[("all patches visible", 224)]["gmacs"] == pytest.approx(180.3, abs=0.1)
