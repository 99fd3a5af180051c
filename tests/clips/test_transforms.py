import pytest
import torch
from torchvision.transforms.v2 import functional as F

from adatosk.clips.transforms import SCALES, Choice, cut, eval_window, train_window


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def taken(choose: Choice, clip: torch.Tensor, seed: int = 0, size: int = 40) -> torch.Tensor:
    """What a training or a test sees of a clip, (T, C, size, size)."""
    return cut(clip, choose(*clip.shape[-2:], generator(seed)), size)


def places(rows: int = 40, columns: int = 60) -> torch.Tensor:
    """A clip (5, 3, rows, columns) whose first two channels hold each pixel's row and column."""
    down, across = torch.meshgrid(torch.arange(rows), torch.arange(columns), indexing="ij")
    frame = torch.stack([down, across, torch.zeros_like(down)]).to(torch.uint8)
    return frame.expand(5, -1, -1, -1)


def test_one_draw_serves_all_frames():
    for seed in range(20):
        clip = taken(train_window(32), places(), seed, 32)
        assert clip.shape == (5, 3, 32, 32) and clip.dtype == torch.uint8
        assert (clip == clip[0]).all()


def test_the_generator_is_the_only_source_of_chance():
    first = [taken(train_window(32), places(), seed, 32) for seed in range(8)]
    torch.manual_seed(1)
    second = [taken(train_window(32), places(), seed, 32) for seed in range(8)]
    assert all(map(torch.equal, first, second))
    assert len({clip.numpy().tobytes() for clip in first}) == 8


def crop_of(clip: torch.Tensor) -> tuple[float, float, bool]:
    """Height and width of the crop, from the slopes of the pixels' places, and whether it is mirrored."""
    rows, columns = clip[0, 0].float(), clip[0, 1].float()
    inner = slice(4, -4)
    slope_down = rows.diff(dim=0)[inner, inner].mean().item()
    slope_across = columns.diff(dim=1)[inner, inner].mean().item()
    return slope_down * clip.shape[-2], abs(slope_across) * clip.shape[-1], slope_across < 0


def test_crops_take_the_named_scales_and_half_are_mirrored():
    crops = [crop_of(taken(train_window(40), places(80, 80), seed)) for seed in range(300)]
    steps = torch.tensor([round(scale * 80) for scale in SCALES])
    found = torch.tensor([crop[:2] for crop in crops])
    distance, which = (found[..., None] - steps).abs().min(dim=-1)
    assert distance.max() < 2.5
    # Height and width are neighbours among the scales, and every scale is drawn.
    assert (which[:, 0] - which[:, 1]).abs().max() == 1
    assert which.unique().tolist() == [0, 1, 2, 3]
    mirrored = sum(crop[2] for crop in crops)
    assert 120 <= mirrored <= 180  # 150 ± 3.5 standard deviations


def test_places_of_crops_reach_every_border():
    clips = torch.stack([taken(train_window(40, flip=False), places(60, 80), seed)[0] for seed in range(400)])
    assert clips[:, 0].amin() == 0 and clips[:, 0].amax() == 59
    assert clips[:, 1].amin() == 0 and clips[:, 1].amax() == 79


def test_min_crop_bounds_the_crop():
    clip = places(48, 48)
    for seed in range(10):
        whole = taken(train_window(48, min_crop=1, flip=False), clip, seed, 48)
        assert torch.equal(whole, clip)
        height, width, _ = crop_of(taken(train_window(48, min_crop=0.8), clip, seed, 48))
        assert min(height, width) > 0.8 * 48
    with pytest.raises(ValueError, match=r"min_crop=1\.5 leaves no crop scale"):
        train_window(48, min_crop=1.5)


def test_flip_only_mirrors():
    clip = torch.randint(0, 256, (4, 3, 24, 24), dtype=torch.uint8)
    found = {torch.equal(taken(train_window(24, min_crop=1), clip, s, 24), clip) for s in range(20)}
    assert found == {True, False}
    for seed in range(20):
        moved = taken(train_window(24, min_crop=1), clip, seed, 24)
        assert torch.equal(moved, clip) or torch.equal(moved, F.horizontal_flip(clip))


def test_eval_resizes_to_the_central_square_and_draws_nothing():
    clip = places(40, 60)
    assert torch.equal(taken(eval_window(40), clip), clip[..., 10:50])
    assert torch.equal(taken(eval_window(40), clip.transpose(-1, -2)), clip.transpose(-1, -2)[..., 10:50, :])
    assert taken(eval_window(24), clip, size=24).shape == (5, 3, 24, 24)
    assert eval_window(24)(40, 60) == eval_window(24)(40, 60, generator(0))
