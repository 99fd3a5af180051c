import math

import pytest
import torch

from adatosk.tokens import (
    check_mask,
    complementary_masks,
    gather_patches,
    patchify,
    positions_of,
    sinusoid_positions,
    tube_mask,
    unpatchify,
)


def test_patchify_places_every_pixel_where_a_loop_would():
    video = torch.arange(2 * 3 * 4 * 6 * 6).view(2, 3, 4, 6, 6)
    tokens = patchify(video, 2, 3)
    assert tokens.shape == (2, 2, 4, 54)
    for b, c, t, y, x in [(0, 0, 0, 0, 0), (1, 2, 3, 5, 4), (0, 1, 2, 3, 0), (1, 0, 1, 2, 5)]:
        place = ((c * 2 + t % 2) * 3 + y % 3) * 3 + x % 3
        assert tokens[b, t // 2, (y // 3) * 2 + x // 3, place] == video[b, c, t, y, x]


def test_unpatchify_inverts_patchify():
    video = torch.randn(2, 3, 4, 8, 8)
    assert torch.equal(unpatchify(patchify(video, 2, 4), 2, 4), video)


def test_patchify_refuses_a_clip_that_does_not_divide():
    with pytest.raises(ValueError, match="does not divide into tubelets of 2×3×3"):
        patchify(torch.zeros(1, 3, 4, 7, 6), 2, 3)


def test_positions_equal_the_written_formula():
    table = sinusoid_positions(20, 6)
    for position in (0, 7, 19):
        for channel in range(6):
            angle = position / 10000 ** (2 * (channel // 2) / 6)
            expected = math.sin(angle) if channel % 2 == 0 else math.cos(angle)
            assert table[position, channel].item() == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize(("ratio", "visible"), [(0.0, 196), (0.25, 147), (0.5, 98), (0.7, 58), (0.9, 19)])
def test_tube_mask_shows_the_papers_number_of_patches(ratio, visible):
    mask = tube_mask(5, 196, ratio)
    assert mask.dtype == torch.bool
    assert mask.sum(dim=1).tolist() == [visible] * 5


def test_tube_mask_is_uniform_and_reproducible():
    generator = torch.Generator().manual_seed(3)
    mask = tube_mask(4000, 10, 0.7, generator)
    assert torch.equal(mask, tube_mask(4000, 10, 0.7, torch.Generator().manual_seed(3)))
    assert not torch.equal(mask, tube_mask(4000, 10, 0.7, generator))
    # Three standard deviations of a share of 4,000 draws at 0.3 are 0.022.
    assert (mask.float().mean(dim=0) - 0.3).abs().max() < 0.022


@pytest.mark.parametrize("ratio", [0.5, 0.7, 0.9])
def test_complementary_masks_show_every_patch_exactly_once(ratio):
    masks = torch.stack(complementary_masks(3, 49, ratio, torch.Generator().manual_seed(0)))
    assert (masks.sum(dim=0) == 1).all()
    sizes = masks.sum(dim=2)
    assert sizes.max() - sizes.min() <= 1
    assert sizes.min() >= int(49 * (1 - ratio))


@pytest.mark.parametrize("ratio", [-0.1, 1.0, 0.99])
def test_tube_mask_refuses_an_impossible_ratio(ratio):
    with pytest.raises(ValueError, match=r"must lie in \[0, 1\)|leaves none"):
        tube_mask(1, 10, ratio)


def test_gather_and_positions_agree_with_boolean_indexing():
    tokens, mask = torch.randn(3, 4, 10, 5), tube_mask(3, 10, 0.6)
    gathered = gather_patches(tokens, positions_of(mask, 4))
    for clip in range(3):
        assert torch.equal(gathered[clip], tokens[clip][:, mask[clip]])


@pytest.mark.parametrize(
    ("mask", "message"),
    [
        (torch.ones(2, 9), "must be bool"),
        (torch.ones(2, 8).bool(), r"must be bool \(2, 9\)"),
        (torch.zeros(2, 9).bool(), "at least one"),
        (torch.arange(18).view(2, 9) < 12, "same number of patches"),
    ],
)
def test_check_mask_explains_what_is_wrong(mask, message):
    with pytest.raises(ValueError, match=message):
        check_mask(mask, 2, 9)
