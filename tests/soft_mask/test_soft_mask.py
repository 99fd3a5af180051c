from itertools import pairwise

import naive
import pytest
import torch
from torch import nn

from adatosk import config, soft_mask
from adatosk.config import SoftMaskConfig
from adatosk.soft_mask import (
    ChannelGate,
    TemporalSoftMask,
    accumulate_scores,
    active_frames,
    class_agnostic_mask,
    class_semantic_mask,
    frame_differences,
    semantic_scores,
)

SIZES = [(2, 4, 5, 6, 1), (1, 3, 9, 4, 2), (3, 6, 13, 8, 2), (2, 5, 4, 16, 0)]  # B, n_t, n_s, D, e
AXES = ["clip", "token", "time", "channel"]


def random_tokens(batch, steps, count, width, seed=0):
    return torch.randn(batch, steps, count, width, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def make_gate(width, mean_one=True):
    torch.manual_seed(1)
    return ChannelGate(width, 2, mean_one).double()


def make_projection(width):
    torch.manual_seed(2)
    return nn.Linear(width, width).double()


def close(found, expected):
    torch.testing.assert_close(found, torch.as_tensor(expected, dtype=found.dtype), rtol=1e-9, atol=1e-12)


def layer(linear):
    return list(zip(linear.weight.tolist(), linear.bias.tolist(), strict=True))


@pytest.mark.parametrize("distance", ["l1", "l2", "cosine"])
@pytest.mark.parametrize("size", SIZES)
def test_frame_differences_equal_the_loop(size, distance):
    *shape, _ = size
    tokens = random_tokens(*shape)
    kept = torch.rand(tokens.shape[:3], generator=torch.Generator().manual_seed(5)) < 0.7
    kept[:, :, 0] = True
    expected = []
    for clip, keep in zip(tokens.tolist(), kept.tolist(), strict=True):
        means = [naive.mean_token(frame, row) for frame, row in zip(clip, keep, strict=True)]
        expected.append([naive.distance(a, b, distance) for a, b in pairwise(means)])
    close(frame_differences(tokens, distance, kept), expected)


def test_classification_distance_is_the_total_variation_of_class_scores():
    tokens, head = random_tokens(2, 4, 5, 6), nn.Linear(6, 3).double()
    found = frame_differences(tokens, "classification", classify=head)
    probabilities = head(tokens.mean(dim=2)).softmax(dim=-1)
    for t in range(3):
        close(found[:, t], 0.5 * (probabilities[:, t] - probabilities[:, t + 1]).abs().sum(dim=1))
    assert (found <= 1).all()


def test_active_frames_are_the_second_of_each_top_pair():
    differences = torch.tensor([[0.1, 0.9, 0.3, 0.5], [4.0, 3.0, 2.0, 1.0]])
    expected = [naive.active(row, 2) for row in differences.tolist()]
    assert active_frames(differences, 2).tolist() == expected == [[0, 0, 1, 0, 1], [0, 1, 1, 0, 0]]


@pytest.mark.parametrize("mean_one", [True, False])
def test_gate_equals_the_loop(mean_one):
    gate, frames = make_gate(8, mean_one), random_tokens(1, 2, 3, 8)[0, :, 0]
    expected = [naive.gate(row, layer(gate.fc1), layer(gate.fc2), 8 if mean_one else 1) for row in frames.tolist()]
    close(gate(frames), expected)


@pytest.mark.parametrize("axis", AXES)
@pytest.mark.parametrize("size", SIZES)
def test_agnostic_mask_equals_the_loop(size, axis):
    *shape, excluded = size
    tokens, gate = random_tokens(*shape), make_gate(shape[-1])
    _, kept = accumulate_scores(tokens, make_projection(shape[-1]), excluded, 0.1)
    found = class_agnostic_mask(tokens, gate, 2, "l1", axis, kept)
    fc1, fc2, scale = layer(gate.fc1), layer(gate.fc2), gate.scale
    for clip, keep, mask in zip(tokens.tolist(), kept.tolist(), found, strict=True):
        means = [naive.mean_token(frame, row) for frame, row in zip(clip, keep, strict=True)]
        is_active = naive.active([naive.distance(a, b, "l1") for a, b in pairwise(means)], 2)
        enhanced = [naive.gate(m, fc1, fc2, scale) if on else m for m, on in zip(means, is_active, strict=True)]
        close(mask, naive.agnostic(clip, keep, enhanced, axis))


@pytest.mark.parametrize("axis", AXES)
def test_agnostic_weights_average_one_along_their_axis(axis):
    tokens = random_tokens(2, 4, 5, 6)
    mask = class_agnostic_mask(tokens, make_gate(6), 2, axis=axis)
    dims = {"clip": (1, 2), "token": 2, "time": 1, "channel": 3}[axis]
    close(mask.mean(dim=dims), torch.ones_like(mask.mean(dim=dims)))
    assert (mask >= 0).all()


@pytest.mark.parametrize("temperature", [0.025, 0.1, 1.0])
@pytest.mark.parametrize("size", SIZES)
def test_accumulated_scores_equal_the_loop(size, temperature):
    *shape, excluded = size
    tokens, project = random_tokens(*shape), make_projection(shape[-1])
    scores, kept = accumulate_scores(tokens, project, excluded, temperature)
    for clip, score, keep in zip(project(tokens).tolist(), scores, kept, strict=True):
        expected_scores, expected_kept = naive.accumulate(clip, excluded, temperature)
        close(score, expected_scores)
        assert keep.tolist() == expected_kept


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_scores_sum_to_one_and_tokens_leave_in_tubes(dtype):
    tokens = random_tokens(4, 8, 58, 32).to(dtype)
    scores, kept = accumulate_scores(tokens, make_projection(32).to(dtype), 4, 0.1)
    torch.testing.assert_close(scores.sum(dim=-1), torch.ones(4, 8, dtype=dtype))
    assert (scores >= 0).all()
    assert (scores[~kept] == 0).all()
    assert kept.sum(dim=-1).tolist() == [[58 - 4 * step for step in range(8)]] * 4
    assert not (kept[:, 1:] & ~kept[:, :-1]).any(), "a token that left came back"


def test_scores_stay_normalised_under_bf16_autocast():
    tokens, project = random_tokens(2, 8, 20, 16).float(), make_projection(16).float()
    with torch.autocast("cpu", torch.bfloat16):
        scores, _ = accumulate_scores(tokens, project, 2, 0.1)
    assert scores.dtype == torch.float32
    torch.testing.assert_close(scores.sum(dim=-1), torch.ones(2, 8))


def test_identical_frames_raise_the_score_of_the_repeated_token():
    """A token that looks like many of its neighbours gathers more redundancy than one that looks like none."""
    common = torch.zeros(1, 4, 6, 4, dtype=torch.float64)
    common[..., :5, 0] = 1
    common[..., 5, 1] = 1
    scores, _ = accumulate_scores(common, nn.Identity(), 0, 0.1)
    assert (scores[0, 1:, 0] > scores[0, 1:, 5] * 0.99).all()
    torch.testing.assert_close(scores[0, 1, :5], scores[0, 1, 0].expand(5))


@pytest.mark.parametrize("use", ["A+M", "M", "A"])
@pytest.mark.parametrize("scaling", ["min_max", "constant", "frame", "mean"])
@pytest.mark.parametrize("size", SIZES)
def test_semantic_mask_equals_the_loop(size, use, scaling):
    *shape, excluded = size
    tokens = random_tokens(*shape)
    scores, kept = accumulate_scores(tokens, make_projection(shape[-1]), excluded, 0.1)
    if scaling == "frame" and use == "M":
        scores = scores + torch.rand_like(scores)  # M is uniform in the first frame, which has a test of its own
    found = class_semantic_mask(tokens, scores, kept, use, scaling)
    clips = zip(tokens.tolist(), scores.tolist(), kept.tolist(), strict=True)
    close(found, [naive.semantic(*clip, use, scaling) for clip in clips])
    if scaling == "mean":
        close(found.sum((1, 2)), kept.sum((1, 2)).tolist())
        assert (found[kept] > 0).all()
    else:
        assert found.min() == 0
        assert found.max() == 1
    close(semantic_scores(tokens), [[[sum(map(abs, x)) for x in f] for f in clip] for clip in tokens.tolist()])


@pytest.mark.parametrize("scaling", ["min_max", "constant", "frame", "mean"])
@pytest.mark.parametrize("value", [1.0, 0.0])
def test_semantic_mask_of_equal_tokens_is_one(scaling, value):
    tokens, kept = torch.full((2, 3, 4, 5), value), torch.ones(2, 3, 4, dtype=torch.bool)
    assert (class_semantic_mask(tokens, None, kept, "A", scaling) == 1).all()


def test_constant_bounds_pass_no_gradient_and_leave_the_mask_as_it_is():
    kept = torch.ones(1, 3, 4, dtype=torch.bool)
    gradients = {}
    for scaling in ("min_max", "constant"):
        tokens = random_tokens(1, 3, 4, 5).requires_grad_()
        mask = class_semantic_mask(tokens, None, kept, "A", scaling)
        (mask * torch.linspace(1, 2, 12, dtype=mask.dtype).view(1, 3, 4)).sum().backward()
        gradients[scaling] = tokens.grad
    value = semantic_scores(random_tokens(1, 3, 4, 5))
    signs = random_tokens(1, 3, 4, 5).sign()
    slope = torch.linspace(1, 2, 12, dtype=value.dtype).view(1, 3, 4) / (value.max() - value.min())
    close(gradients["constant"], (slope.unsqueeze(-1) * signs).tolist())
    bounds = (value == value.max()) | (value == value.min())
    assert torch.allclose(gradients["min_max"][~bounds], gradients["constant"][~bounds])
    assert not torch.allclose(gradients["min_max"][bounds], gradients["constant"][bounds])


def test_controls_of_a_pass_no_gradient_and_shuffling_keeps_the_weights():
    tokens, masks = random_tokens(2, 4, 7, 6).requires_grad_(), {}
    for activation in ("normed", "detached", "shuffled"):
        config = SoftMaskConfig(agnostic=False, semantic="A", excluded_per_step=0, activation=activation)
        masks[activation] = TemporalSoftMask(6, config).double()(tokens).semantic
    assert torch.equal(masks["detached"], masks["normed"].detach())
    assert not masks["detached"].requires_grad and not masks["shuffled"].requires_grad
    moved = (masks["shuffled"] != masks["detached"]).double().mean()
    assert moved > 0.9
    assert torch.equal(masks["shuffled"].flatten(1).sort().values, masks["detached"].flatten(1).sort().values)


@pytest.mark.parametrize(
    ("agnostic", "semantic"), [(True, "A+M"), (True, "none"), (False, "A+M"), (False, "M"), (False, "A"), (True, "A")]
)
def test_final_mask_is_the_product_of_its_parts(agnostic, semantic):
    config = SoftMaskConfig(
        agnostic=agnostic, semantic=semantic, excluded_per_step=int("M" in semantic), gate_reduction=2, top_k=2
    )
    mask = TemporalSoftMask(6, config).double()(random_tokens(2, 4, 7, 6))
    expected = torch.ones(2, 4, 7, 1, dtype=torch.float64)
    if agnostic:
        expected = expected * mask.agnostic
    if semantic != "none":
        expected = expected * mask.semantic.unsqueeze(-1)
    close(mask.weights, expected)
    assert (mask.weights[~mask.kept] == 0).all()
    assert (mask.active is None) == (not agnostic)


def test_gradients_reach_gate_and_projection_and_match_finite_differences():
    config = SoftMaskConfig(excluded_per_step=1, gate_reduction=2, top_k=2)
    torch.manual_seed(0)
    module = TemporalSoftMask(4, config).double()
    tokens = random_tokens(1, 3, 5, 4).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: module(x).weights, tokens, atol=1e-6)
    module(tokens).weights.square().sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in module.parameters())


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda x: frame_differences(x, "l3"), "unknown distance 'l3'"),
        (lambda x: frame_differences(x, "classification"), "needs the classification head"),
        (lambda x: active_frames(frame_differences(x), 4), "top_k=4 must lie between 1 and the 3"),
        (lambda x: class_agnostic_mask(x, lambda m: m, 2, axis="frame"), "unknown softmax axis 'frame'"),
        (lambda x: accumulate_scores(x, lambda m: m, 2, 0.1), "at most excluded_per_step=1"),
        (lambda x: accumulate_scores(x, lambda m: m, 1, 0.001), "at least 0.025"),
        (lambda x: class_semantic_mask(x, None, torch.ones(2, 4, 5).bool(), "M"), "need the accumulative score M"),
        (lambda x: class_semantic_mask(x, None, torch.ones(2, 4, 5).bool(), "B"), "unknown semantic scores 'B'"),
        (lambda x: class_semantic_mask(x, None, torch.ones(2, 4, 5).bool(), "A", "max"), "unknown scaling 'max'"),
    ],
)
def test_impossible_options_raise_an_error_that_says_the_limit(call, message):
    with pytest.raises(ValueError, match=message):
        call(random_tokens(2, 4, 5, 6))


@pytest.fixture
def registered():
    """A distance and two scores of a user's own, taken back afterwards."""
    added = (("chebyshev", soft_mask.DISTANCES, config.FRAME_DISTANCES),)
    added += tuple((name, soft_mask.SCORES, config.SEMANTIC_SCORES) for name in ("norm", "rare"))
    soft_mask.frame_distance("chebyshev")(lambda before, after: (after - before).abs().amax(dim=-1))
    soft_mask.semantic_score("norm", takes_m=False)(lambda tokens, scores: tokens.norm(dim=-1))
    soft_mask.semantic_score("rare", takes_m=True)(lambda tokens, scores: -scores.log())
    yield
    for name, functions, names in added:
        del functions[name]
        names.discard(name) if isinstance(names, set) else names.pop(name)


def test_a_registered_distance_and_score_serve_as_the_papers_do(registered):
    torch.manual_seed(0)
    tokens = torch.randn(2, 4, 9, 8)
    means = tokens.mean(dim=2)
    expected = [
        [max(abs(a - b) for a, b in zip(*pair, strict=True)) for pair in pairwise(clip)] for clip in means.tolist()
    ]
    torch.testing.assert_close(frame_differences(tokens, "chebyshev"), torch.tensor(expected))
    options = SoftMaskConfig(distance="chebyshev", semantic="norm", excluded_per_step=0, top_k=2, score_block=None)
    mask = TemporalSoftMask(8, options.change(gate_reduction=2))(tokens)
    assert mask.scores is None and mask.semantic.amin() == 0 and mask.semantic.amax() == 1
    flat = tokens.norm(dim=-1).flatten(1).argsort()
    assert torch.equal(mask.semantic.flatten(1).argsort(), flat)
    assert SoftMaskConfig(semantic="rare").accumulates and not options.accumulates


def test_a_taken_name_cannot_be_registered_and_an_unknown_one_not_configured(registered):
    for name in ("l1", "chebyshev", "classification"):
        with pytest.raises(ValueError, match=f"'{name}' is taken"):
            soft_mask.frame_distance(name)(lambda before, after: before)
    with pytest.raises(ValueError, match="unknown semantic score 'B': choose A, A\\+M, M, none, norm, rare"):
        SoftMaskConfig(semantic="B")
    with pytest.raises(ValueError, match="set excluded_per_step to 0"):
        SoftMaskConfig(semantic="norm")
