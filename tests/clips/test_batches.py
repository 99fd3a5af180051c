"""What a loader hands over for a GPU: decoded frames and a few numbers. All of it runs on a CPU as well."""

import numpy as np
import pytest
import torch
from clip_sources import dataset, make_source, quiet
from media import moving_frames, write_frames

from adatosk.clips import model_input, normalise
from adatosk.clips.batches import Memory, together
from adatosk.clips.cache import open_cache
from adatosk.clips.transforms import SCALES, central_window, cut, cut_batch, draw_window


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    return make_source(tmp_path_factory.mktemp("source"))


@pytest.fixture(scope="module")
def noise():
    """The hardest picture for a filter: (4, 3, 60, 75)."""
    return torch.randint(0, 256, (4, 3, 60, 75), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("size", [24, 48, 60, 96])
def test_a_whole_batch_is_cut_to_the_pixels_of_each_clip(noise, size):
    draws = [draw_window(60, 75, torch.Generator().manual_seed(seed), size, SCALES) for seed in range(24)]
    windows = [*draws, central_window(60, 75, image_size=size)]
    assert {window.mirrored for window in windows} == {0, 1} and len({window.height for window in windows}) == 4
    expected = torch.stack([cut(noise, window, size) for window in windows]).transpose(1, 2)
    frames = noise.permute(0, 2, 3, 1).expand(len(windows), -1, -1, -1, -1)
    found = cut_batch(frames, torch.tensor(windows), size)
    assert found.dtype == torch.uint8 and torch.equal(found, expected)


def test_padding_is_no_part_of_a_picture(noise):
    windows = torch.tensor([central_window(60, 75, image_size=48)])
    frames = noise.permute(0, 2, 3, 1)[None]
    padded = torch.nn.functional.pad(frames, (0, 0, 0, 9, 0, 5), value=255)
    assert torch.equal(cut_batch(padded, windows, 48), cut_batch(frames, windows, 48))


@pytest.mark.parametrize("train", [True, False])
@pytest.mark.parametrize("cached", [True, False])
def test_uncut_clips_become_the_same_input_by_the_same_draws(source, tmp_path, cached, train):
    """Among the clips are videos, folders of images, and ones shorter than the frames that are taken."""
    cache = open_cache(source[1], source[0], 28, tmp_path, report=quiet) if cached else None
    clips = dataset(source, train, cache, image_size=32)
    keys = [(3, index) for index in range(6)]
    plain, uncut = together(clips.__getitems__(keys)), together(clips.left_uncut().__getitems__(keys))
    assert "video" not in uncut and uncut["frames"].dtype == torch.uint8
    assert all(torch.equal(plain[name], uncut[name]) for name in ("label", "index"))
    expected = normalise(plain["video"])
    assert torch.equal(model_input(uncut, 32, "cpu"), expected) and torch.equal(model_input(plain, 32, "cpu"), expected)


def test_frames_of_several_sizes_are_padded_and_large_ones_cut_before(tmp_path):
    sizes = ((40, 50), (64, 36), (90, 70))
    for number, (height, width) in enumerate(sizes):
        write_frames(tmp_path / str(number), moving_frames(30, height, width, number), ".jpg")
    source = make_source(tmp_path)
    source[1].clips.loc[:2, "path"] = ["0", "1", "2"]
    clips = dataset(source, image_size=32)
    keys = [(0, 0), (0, 1), (0, 2)]
    uncut = together(clips.left_uncut().__getitems__(keys))
    assert uncut["frames"].shape == (3, 8, 64, 50, 3)  # 90 × 70 became 32 × 32
    assert torch.equal(model_input(uncut, 32, "cpu"), normalise(together(clips.__getitems__(keys))["video"]))


def test_folders_are_decoded_to_their_place_in_the_batch(source):
    memory = Memory(largest=64)
    memory.begin(2)
    first = memory.empty((8, 40, 50, 3))
    first[:] = 1
    kept = [memory.keep(first), memory.keep(np.full((8, 40, 50, 3), 2, np.uint8))]
    batch = together([{"frames": frames, "label": torch.tensor(0)} for frames in kept])["frames"]
    assert batch.data_ptr() == first.ctypes.data and batch[:, 0, 0, 0, 0].tolist() == [1, 2]
    memory.begin(1)
    assert memory.keep(np.zeros((8, 80, 50, 3), np.uint8)).shape == (8, 80, 50, 3)  # too large, so elsewhere
    clips = dataset(source).left_uncut()
    assert together(clips.__getitems__([(0, 3), (0, 0)]))["frames"].is_contiguous()


def in_place(items):
    """Collated without a copy, or an error."""
    batch = together(items)
    assert batch["frames"].data_ptr() == items[0]["frames"].data_ptr()
    return batch


def test_processes_use_the_memory_of_a_few_batches_in_turn_and_change_no_bit(source):
    """Each batch is read before its process is asked for the next but one, as pinning does."""
    clips = dataset(source)
    keys = [[(epoch, index), (epoch, index + 1)] for epoch in range(3) for index in range(0, 6, 2)]
    options = {"batch_sampler": keys, "num_workers": 1, "prefetch_factor": 1, "collate_fn": in_place}
    loader = torch.utils.data.DataLoader(clips.left_uncut(turns=2), **options)
    found = [model_input(batch, 24, "cpu") for batch in loader]
    assert len(found) == 9
    for batch, wanted in zip(found, keys, strict=True):
        assert torch.equal(batch, normalise(together(clips.__getitems__(wanted))["video"]))
