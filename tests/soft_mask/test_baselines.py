import numpy as np
import pytest
import torch

from adatosk import create_model
from adatosk.config import SoftMaskConfig
from adatosk.cost.operations import count_macs, hand_count
from adatosk.experiments import grid
from adatosk.presets import MODELS, PROFILES
from adatosk.soft_mask import TemporalSoftMask, active_frames, frame_differences
from adatosk.soft_mask.baselines import AttentionPool, active_only, exclude_by, pixel_differences, random_ranks
from adatosk.tokens import positions_of, tube_mask

NONE = {"agnostic": False, "semantic": "none", "exclusion": "random"}
B, STEPS, COUNT, WIDTH = 2, 4, 10, 6


@pytest.fixture
def kept() -> torch.Tensor:
    torch.manual_seed(0)
    return exclude_by(torch.rand(B, COUNT), STEPS, 2)


def test_exclusion_by_ranks_drops_the_highest_for_the_rest_of_the_clip():
    ranks = torch.rand(B, COUNT)
    kept = exclude_by(ranks, STEPS, 2)
    for clip, rank in zip(kept, ranks.tolist(), strict=True):
        left = set(range(COUNT))
        for step in clip:
            assert set(step.nonzero().flatten().tolist()) == left
            for _ in range(2):
                left.discard(max(left, key=lambda place: rank[place]))
    assert exclude_by(ranks, STEPS, 0).all()


def test_random_ranks_depend_on_the_hard_mask_alone_and_favour_no_position():
    torch.manual_seed(1)
    positions = positions_of(tube_mask(4000, 36, 0.7), 10)
    ranks = random_ranks(positions)
    assert torch.equal(ranks, random_ranks(positions)) and ranks.min() >= 0 and ranks.max() < 1
    assert all(len(set(clip)) == 10 for clip in ranks.tolist())
    # How often each position is the first to go, and each place in the order of positions: binomial, within five sigma.
    first = ranks.argmax(dim=1)
    for found, choices in ((positions.gather(1, first[:, None]).flatten(), 36), (first, 10)):
        counts = torch.bincount(found, minlength=choices)
        assert (counts - 4000 / choices).abs().max() < 5 * np.sqrt(4000 / choices)
    assert abs(np.corrcoef(ranks[:, 0], ranks[:, 1])[0, 1]) < 5 / np.sqrt(4000)


def test_weights_by_pixels_are_those_of_a_loop(kept):
    pixels = torch.rand(B, STEPS, COUNT, 5, dtype=torch.float64)
    found = pixel_differences(pixels, kept)
    for clip in range(B):
        change = np.zeros((STEPS, COUNT))
        for step in range(STEPS):
            other = step - 1 if step else 1
            for place in range(COUNT):
                difference = [
                    abs(float(a) - float(b))
                    for a, b in zip(pixels[clip, step, place], pixels[clip, other, place], strict=True)
                ]
                change[step, place] = sum(difference) / 5 * bool(kept[clip, step, place])
        expected = change / (change.sum() / int(kept[clip].sum()))
        torch.testing.assert_close(found[clip], torch.tensor(expected))


def test_a_clip_that_does_not_move_is_weighted_evenly(kept):
    assert torch.equal(pixel_differences(torch.ones(B, STEPS, COUNT, 5), kept), kept.float())


def test_the_active_frames_alone_count(kept):
    active = torch.tensor([[True, False, True, False], [False, False, False, True]])
    tokens = torch.randn(B, STEPS, COUNT, WIDTH)
    weights = active_only(active, kept)
    pooled = (tokens * weights.unsqueeze(-1)).sum(dim=(1, 2)) / kept.sum(dim=(1, 2))[:, None]
    for clip in range(B):
        there = tokens[clip][kept[clip] & active[clip][:, None]]
        torch.testing.assert_close(pooled[clip], there.mean(0))


def test_attention_pools_as_one_query_does(kept):
    pool, tokens = AttentionPool(WIDTH), torch.randn(B, STEPS, COUNT, WIDTH)
    torch.testing.assert_close(pool(tokens, kept), kept.float())
    torch.nn.init.normal_(pool.query)
    weights = pool(tokens, kept)
    pooled = (tokens * weights.unsqueeze(-1)).sum(dim=(1, 2)) / kept.sum(dim=(1, 2))[:, None]
    query = pool.query.expand(B, 1, WIDTH)
    for clip in range(B):
        there = tokens[clip][kept[clip]][None]
        expected = torch.nn.functional.scaled_dot_product_attention(query[clip : clip + 1], there, there)
        torch.testing.assert_close(pooled[clip], expected[0, 0])


@pytest.mark.parametrize("name", grid.BASELINES)
@pytest.mark.parametrize("score_block", [1, None])
def test_a_model_with_a_baseline_excludes_as_many_tokens_and_learns(name, score_block):
    torch.manual_seed(0)
    model = create_model("adatosk_tiny", soft_mask=grid.BASELINES[name] | {"score_block": score_block}).train()
    config = model.config
    output = model(torch.randn(3, 3, 16, 32, 32), reconstruct=False)
    mask, plain = output.soft_mask, create_model("adatosk_tiny")(torch.randn(3, 3, 16, 32, 32)).soft_mask
    assert torch.equal(mask.kept.sum(2), plain.kept.sum(2)) and not mask.weights[~mask.kept].any()
    if config.soft_mask.baseline != "none":
        mean = mask.weights.sum(dim=(1, 2, 3)) / mask.kept.sum(dim=(1, 2))
        torch.testing.assert_close(mean, torch.ones(3))
    output.logits.square().sum().backward()
    unused = {
        n
        for n, p in model.named_parameters()
        if p.grad is None and not n.startswith(("decoder", "encoder_to", "mask_t"))
    }
    assert not unused


def test_active_frames_are_those_of_the_paper():
    config = SoftMaskConfig(**NONE, baseline="active", excluded_per_step=0, top_k=2)
    tokens = torch.randn(B, STEPS, COUNT, WIDTH)
    mask = TemporalSoftMask(WIDTH, config)(tokens, positions=torch.arange(COUNT).expand(B, -1))
    active = active_frames(frame_differences(tokens), 2)
    assert torch.equal(mask.weights[..., 0] > 0, active[:, :, None].expand(-1, -1, COUNT))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"baseline": "uniform"}, "replaces both masks"),
        ({**NONE, "exclusion": "redundant", "baseline": "uniform"}, "exclusion to 'random'"),
        (NONE, "masks nothing"),
    ],
)
def test_a_baseline_that_contradicts_the_mask_is_refused(changes, said):
    with pytest.raises(ValueError, match=said):
        SoftMaskConfig(**changes)


def test_what_an_option_needs_is_named():
    tokens = torch.randn(B, STEPS, COUNT, WIDTH)
    for changes, said in (
        ({}, "visible positions"),
        ({"exclusion": "redundant", "excluded_per_step": 0}, "visible pixels"),
    ):
        mask = TemporalSoftMask(WIDTH, SoftMaskConfig(**{**NONE, "baseline": "pixels", **changes}))
        with pytest.raises(ValueError, match=said):
            mask(tokens)


@pytest.mark.parametrize("name", grid.BASELINES)
def test_they_cost_what_the_soft_mask_costs(name):
    demo = MODELS["adatosk_small"]
    changed = demo.change(soft_mask=grid.BASELINES[name])
    assert 0.95 * hand_count(demo).total() < hand_count(changed).total() <= hand_count(demo).total()
    assert count_macs(changed).total == pytest.approx(hand_count(changed).total(), rel=1e-3)


def test_the_rows_differ_from_the_profile_in_the_mask_alone():
    base = PROFILES["demo"]
    rows = grid.baselines(base)
    assert [row.name for row in rows] == list(grid.BASELINES)
    for row in rows:
        assert row.config.change(model={"soft_mask": base.model.soft_mask.model_dump()}) == base != row.config
        assert row.repeats == grid.TABLE_SEEDS and row.config.model.soft_mask.excluded_per_step == 1
