import math

import pytest
import torch
import torch.nn.functional as F

from adatosk.config import TrainConfig
from adatosk.losses import loss_from_bytes, reconstruction_loss, reconstruction_target, total_loss
from adatosk.model import create_model
from adatosk.tokens import normalise, tube_mask


@pytest.fixture
def setting():
    torch.manual_seed(0)
    model = create_model("adatosk_tiny")
    video = torch.randn(2, 3, 16, 32, 32, dtype=torch.float64)
    return model, video, tube_mask(2, 16, 0.4)


def naive_target(video, visible, normalise):
    """Targets patch by patch: step, hidden position, then channel, time, row, column."""
    clips = []
    for clip, seen in zip(video, visible, strict=True):
        rows = []
        for t in range(8):
            for position in [p for p in range(16) if not seen[p]]:
                y, x = position // 4 * 8, position % 4 * 8
                patch = clip[:, 2 * t : 2 * t + 2, y : y + 8, x : x + 8].reshape(3, -1)
                if normalise:
                    patch = torch.stack([(c - c.mean()) / (c.std() + 1e-6) for c in patch])
                rows.append(patch.flatten())
        clips.append(torch.stack(rows).view(8, -1, 384))
    return torch.stack(clips)


@pytest.mark.parametrize("normalise", [True, False])
def test_target_and_loss_equal_the_loop(setting, normalise):
    model, video, visible = setting
    config = model.config.model_copy(update={"normalise_target": normalise})
    target = reconstruction_target(video, visible, config)
    expected = naive_target(video, visible, normalise)
    # The package divides by sqrt(variance + eps), VideoMAE by (deviation + eps).
    torch.testing.assert_close(target, expected, rtol=1e-5, atol=1e-5)
    guess = torch.randn_like(expected)
    found = reconstruction_loss(guess, video, visible, config)
    assert found.item() == pytest.approx(((guess - expected) ** 2).mean().item(), rel=1e-5)
    assert reconstruction_loss(expected, video, visible, config).item() == pytest.approx(0, abs=1e-8)


def test_total_is_the_weighted_sum_and_only_hidden_patches_count(setting):
    model, video, visible = setting
    video, labels = video.float(), torch.tensor([3, 5])
    output = model(video, visible)
    train = TrainConfig(rec_weight=0.7, cls_weight=0.3)
    losses = total_loss(output, video, labels, model.config, train)
    torch.testing.assert_close(losses.total, 0.7 * losses.reconstruction + 0.3 * losses.classification)
    torch.testing.assert_close(losses.classification, F.nll_loss(output.logits.log_softmax(dim=1), labels))
    changed = video.clone()
    for clip, seen in enumerate(visible):  # repaint what is visible: the loss on the same output must not move
        for position in seen.nonzero().flatten().tolist():
            y, x = position // 4 * 8, position % 4 * 8
            changed[clip, :, :, y : y + 8, x : x + 8] = 9.0
    assert torch.equal(total_loss(output, changed, labels, model.config, train).total, losses.total)


def test_an_untrained_model_is_near_chance(setting):
    model, _, _ = setting
    video, labels = torch.randn(64, 3, 16, 32, 32), torch.arange(64) % 7
    losses = total_loss(model(video), video, labels, model.config, TrainConfig())
    assert losses.classification.item() == pytest.approx(math.log(7), abs=0.5)


def test_nothing_hidden_costs_nothing(setting):
    _, video, _ = setting
    model = create_model("adatosk_tiny", mask_ratio=0.0)
    output = model(video.float())
    assert reconstruction_loss(output.reconstruction, video.float(), output.visible, model.config) == 0


@pytest.fixture
def clips():
    """More clips than are compared at once, with patches of one colour and of nearly one."""
    clips = torch.randint(256, (19, 3, 16, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    clips[0], clips[1] = 77, 77
    clips[1, :, 0] = 78
    return clips


@pytest.mark.parametrize("change", [{}, {"soft_mask": {"agnostic": False, "semantic": "none", "baseline": "pixels"}}])
def test_a_model_takes_the_bytes_of_clips_and_gives_the_same_bits(clips, change):
    masks = change and {"soft_mask": change["soft_mask"] | {"excluded_per_step": 0}}
    torch.manual_seed(0)
    model, labels = create_model("adatosk_tiny", **masks), torch.arange(19) % 7
    visible, losses = tube_mask(19, 16, 0.4), []
    for video in (clips, normalise(clips)):
        output = model(video, visible, count=9)
        losses.append((output.logits, *vars(total_loss(output, video, labels, model.config, TrainConfig())).values()))
    assert all(torch.equal(one, other) for one, other in zip(*losses, strict=True))


@pytest.mark.parametrize("normalised", [True, False])
@pytest.mark.parametrize(("dtype", "near"), [(torch.float32, 1e-5), (torch.bfloat16, 1e-2)])
def test_the_loss_of_a_few_clips_at_a_time_is_the_same_and_so_is_its_gradient(clips, normalised, dtype, near):
    config = create_model("adatosk_tiny").config.model_copy(update={"normalise_target": normalised})
    visible, found = tube_mask(19, 16, 0.4), []
    guess = torch.randn(19, 8, 7, 384, generator=torch.Generator().manual_seed(2)).to(dtype)
    for loss in (loss_from_bytes, reconstruction_loss):
        leaf = guess.clone().requires_grad_()
        value = loss(leaf, clips, visible, config)
        (0.3 * value).backward()
        assert value.dtype == torch.float32 and leaf.grad.dtype == dtype
        found.append((value.detach(), leaf.grad.float()))
    for one, other in zip(*found, strict=True):
        assert (one - other).norm() <= near * other.norm()
