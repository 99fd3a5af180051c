import numpy as np
import pytest
import torch
from clip_sources import batches, dataset, make_source, quiet

from adatosk.clips import ClipDataset, make_loader, normalise
from adatosk.clips.cache import open_cache
from adatosk.config import DataConfig
from adatosk.manifests import ManifestError
from adatosk.video import decode_all, frame_indices


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    return make_source(tmp_path_factory.mktemp("source"))


def test_examples_are_as_documented(source):
    clips = dataset(source)
    example = clips[3]
    assert len(clips) == 6
    assert example["video"].shape == (3, 8, 24, 24) and example["video"].dtype == torch.uint8
    assert example["video"].is_contiguous()
    assert (int(example["label"]), int(example["index"])) == (1, 3)
    assert example["label"].dtype == example["index"].dtype == torch.int64
    with pytest.raises(ManifestError, match="labels sad are none of the model's classes happy, angry"):
        root, manifest = source
        ClipDataset(manifest.clips, root, ("happy", "angry"), 8, 24, DataConfig(manifest="x"), True, 0)


def test_evaluation_is_the_centred_span_resized(source):
    root, manifest = source
    clips = dataset(source, train=False, image_size=40)
    for index, clip in enumerate(manifest.subset("train").itertuples()):
        frames = decode_all(root / clip.path)
        chosen = frames[frame_indices(len(frames), 8, 4)][:, :, 5:45]
        assert np.array_equal(clips[index]["video"].numpy(), chosen.transpose(3, 0, 1, 2))
    before = clips[0]["video"]
    clips.set_epoch(5)
    assert torch.equal(clips[0]["video"], before)


def test_training_draws_depend_on_seed_epoch_and_place(source):
    first, second, other = dataset(source), dataset(source), dataset(source, seed=1)
    torch.manual_seed(3)
    seen = []
    for epoch in (0, 1):
        for clips in (first, second, other):
            clips.set_epoch(epoch)
        for index in range(6):
            assert torch.equal(first[index]["video"], second[index]["video"])
            seen.append(first[index]["video"].numpy().tobytes())
        assert not torch.equal(first[2]["video"], other[2]["video"])
    assert len(set(seen)) == len(seen)


def test_training_starts_anywhere_that_fits(source, tmp_path):
    cache = open_cache(source[1], source[0], 24, tmp_path, report=quiet)
    clips = dataset(source, cache=cache, min_crop=1, flip=False)
    frames = cache.clip("clip0").transpose(3, 0, 1, 2)
    assert frames.shape[1] == 40  # 29 are spanned, so it can start at 0 to 11
    starts = set()
    for epoch in range(150):
        clips.set_epoch(epoch)
        video = clips[0]["video"].numpy()
        matches = [start for start in range(12) if np.array_equal(video, frames[:, start : start + 29 : 4])]
        assert len(matches) == 1
        starts.add(matches[0])
    assert starts == set(range(12))


def test_training_does_not_crop_when_told_not_to(source, tmp_path):
    root, manifest = source
    cache = open_cache(manifest, root, 24, tmp_path, report=quiet)
    clips = dataset(source, cache=cache, min_crop=1, flip=False)
    frames = cache.clip("clip5")
    assert np.array_equal(clips[5]["video"].numpy(), np.repeat(frames, 8, axis=0).transpose(3, 0, 1, 2))


@pytest.mark.parametrize("cached", [False, True])
def test_workers_change_no_bit(source, tmp_path, cached):
    cache = open_cache(source[1], source[0], 28, tmp_path, report=quiet) if cached else None
    alone, together = (batches(dataset(source, cache=cache), workers) for workers in (0, 2))
    for first, second in zip(alone, together, strict=True):
        assert len(first) == 3
        for a, b in zip(first, second, strict=True):
            assert all(torch.equal(a[key], b[key]) for key in ("video", "label", "index"))
    orders = [torch.cat([batch["index"] for batch in epoch]).tolist() for epoch in alone]
    assert orders[0] != orders[1] and sorted(orders[0]) == sorted(orders[1]) == list(range(6))


def test_loader_keeps_order_and_all_clips_in_evaluation(source):
    loader = make_loader(dataset(source, train=False), 4)
    assert torch.cat([batch["index"] for batch in loader]).tolist() == list(range(6))
    assert len(make_loader(dataset(source), 4, workers=0)) == 1
    assert make_loader(dataset(source), 4, workers=0, epoch=3).dataset.epoch == 3


def test_normalise_uses_imagenet_statistics():
    video = torch.randint(0, 256, (2, 3, 4, 5, 6), dtype=torch.uint8)
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    expected = ((video.permute(0, 2, 3, 4, 1) / 255 - mean) / std).permute(0, 4, 1, 2, 3)
    found = normalise(video)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(normalise(video[0]), expected[0])
