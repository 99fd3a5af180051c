import pytest
import torch
import torch.nn.functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from adatosk import create_model
from adatosk.experiments.token_merging import (
    classify_merged,
    encode_merged,
    merge_similar,
    merged_count,
    most_merged,
    with_merging,
)
from adatosk.onednn import FLOPS
from adatosk.presets import MODELS
from adatosk.tokens import patchify

TINY = MODELS["adatosk_tiny"].change(soft_mask=None, mask_ratio=0.0)


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return create_model(TINY).eval()


@pytest.fixture(scope="module")
def tubelets():
    video = torch.randn(3, 3, TINY.frames, TINY.image_size, TINY.image_size, generator=torch.Generator().manual_seed(1))
    return patchify(video, TINY.tubelet, TINY.patch_size), torch.arange(TINY.patches).expand(3, -1)


def naive_merge(x, sizes, keys, r):
    """One clip, token by token: lists of what each remaining token is made of, most similar first."""
    even, odd = range(0, len(x) - len(x) % 2, 2), [i for i in range(len(x)) if i % 2 or i == 2 * (len(x) // 2)]
    best = {i: max(even, key=lambda j: float(F.cosine_similarity(keys[i], keys[j], dim=0))) for i in odd}
    alike = sorted(odd, key=lambda i: -float(F.cosine_similarity(keys[i], keys[best[i]], dim=0)))
    groups = [[i] for i in alike[r:]] + [[j, *(i for i in alike[:r] if best[i] == j)] for j in even]
    means = [sum(sizes[i] * x[i] for i in group) / sum(sizes[i] for i in group) for group in groups]
    return torch.stack(means), torch.stack([sum(sizes[i] for i in group) for group in groups])


@pytest.mark.parametrize(("count", "r"), [(12, 1), (12, 6), (13, 4), (13, 7)])
def test_merged_tokens_are_means_weighted_by_size(count, r):
    generator = torch.Generator().manual_seed(count + r)
    x, keys = (torch.randn(2, count, width, generator=generator) for width in (5, 3))
    sizes = torch.randint(1, 4, (2, count, 1), generator=generator).float()
    merged, merged_sizes = merge_similar(x, sizes, keys, r)
    assert merged.shape == (2, count - r, 5) and merged_sizes.shape == (2, count - r, 1)
    for clip in range(2):
        expected, expected_sizes = naive_merge(x[clip], sizes[clip], keys[clip], r)
        # Which of the remaining tokens stands where does not matter.
        order, found = expected[:, 0].argsort(), merged[clip, :, 0].argsort()
        assert torch.allclose(merged[clip][found], expected[order], atol=1e-6)
        assert torch.equal(merged_sizes[clip][found], expected_sizes[order])


def test_merging_nothing_is_the_plain_model(model, tubelets):
    with torch.inference_mode():
        plain = model.classify_visible(*tubelets)
        assert torch.equal(with_merging(model, 0).classify_visible(*tubelets), plain)
        assert torch.allclose(classify_merged(model, 0, *tubelets), plain, atol=1e-6)


def test_each_block_has_r_tokens_fewer(model, tubelets):
    tokens = TINY.steps * TINY.patches
    for r in (1, 10, most_merged(TINY)):
        with torch.inference_mode():
            encoded, sizes = encode_merged(model.encoder, r, *tubelets)
        assert encoded.shape == (3, tokens - TINY.depth * r, TINY.width)
        assert torch.equal(sizes.sum(dim=1), torch.full((3, 1), float(tokens)))


def test_equal_tokens_merge_without_a_trace(model, tubelets):
    """Merging copies of a token changes nothing when attention and mean count them as often as before."""
    patches, positions = tubelets
    one = patches[:, :1, :1].expand_as(patches)
    bare = create_model(TINY).eval()
    bare.load_state_dict(model.state_dict())
    bare.encoder.positions = torch.zeros_like(bare.encoder.positions)
    with torch.inference_mode():
        plain = bare.classify_visible(one, positions)
        assert torch.allclose(classify_merged(bare, most_merged(TINY), one, positions), plain, atol=1e-5)


def test_the_twin_merges_wherever_the_model_classifies(model, tubelets):
    video = torch.randn(2, 3, TINY.frames, TINY.image_size, TINY.image_size)
    merged, everything = with_merging(model, 20), torch.ones(2, TINY.patches, dtype=torch.bool)
    with torch.inference_mode():
        plain, seen = model.classify(video), merged.classify(video)
        assert torch.equal(seen, merged.classify_masks(video, [everything]))
        assert not torch.allclose(seen, plain, atol=1e-6)
        assert torch.equal(model.classify(video), plain)


@pytest.mark.parametrize("change", [{}, {"width": 48, "depth": 3, "mlp_ratio": 2.5}, {"mask_ratio": 0.5}])
def test_operations_by_hand_are_those_that_torch_counts(change):
    config = TINY.change(**change)
    model = create_model(config).eval()
    patches = torch.randn(1, config.steps, config.patches, 3 * config.tubelet * config.patch_size**2)
    positions, counts = torch.arange(config.visible_patches)[None], []
    for r in (0, 7, most_merged(config)):
        # torch 2.11 counts the products of attention, but not a CPU's fused kernel.
        with (
            torch.no_grad(),
            sdpa_kernel(SDPBackend.MATH),
            FlopCounterMode(display=False, custom_mapping=FLOPS) as counter,
        ):
            with_merging(model, r).classify_visible(patches, positions)
        counts.append(sum(merged_count(config, r).values()))
        assert counts[-1] == counter.get_total_flops() // 2
    assert counts[0] > counts[1] > counts[2]


def test_impossible_merges_are_named(model):
    most = most_merged(TINY)
    for r in (-1, most + 1):
        with pytest.raises(ValueError, match=f"between 0 and {most} for 2 blocks, got {r}"):
            with_merging(model, r)
    with pytest.raises(ValueError, match="without soft mask"):
        with_merging(create_model("adatosk_tiny"), 1)
