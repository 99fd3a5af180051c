import hashlib
import json
import os
import pickle

import numpy as np
import pandas as pd
import pytest
import torch
from media import moving_frames, truncate, write_frames, write_video

from adatosk import cache as caches
from adatosk.cache import CacheError, ClipCache, estimate_cache, open_cache
from adatosk.clips import ClipDataset, make_loader, normalise
from adatosk.config import DataConfig
from adatosk.manifests import Manifest, ManifestError
from adatosk.video import decode_all, frame_indices

LENGTHS = (40, 9, 70, 25, 33, 1, 64, 30)


def quiet(*_):
    pass


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """Six videos, two frame folders and their manifest."""
    root = tmp_path_factory.mktemp("source")
    names = []
    for number, length in enumerate(LENGTHS):
        frames = moving_frames(length, 40, 50, number)
        video = number % 4 != 3
        names.append(f"{number}.mp4" if video else f"{number}")
        write_video(root / names[-1], frames) if video else write_frames(root / names[-1], frames)
    clips = pd.DataFrame(
        {
            "path": names,
            "id": [f"clip{number}" for number in range(8)],
            "label": ["happy", "sad"] * 4,
            "split": ["train"] * 6 + ["test"] * 2,
        }
    )
    return root, Manifest("own", "1", ("happy", "sad"), clips)


def copy_of(source, folder):
    """The source's files in another folder, free to be damaged."""
    import shutil

    return shutil.copytree(source[0], folder), source[1]


def dataset(source, train=True, cache=None, seed=0, image_size=24, **data):
    root, manifest = source
    config = DataConfig(manifest="own.csv", **data)
    clips = manifest.subset("train")
    return ClipDataset(clips, root, manifest.classes, 8, image_size, config, train, seed, cache)


def test_cache_holds_what_decoding_gives(source, tmp_path):
    root, manifest = source
    said = []
    cache = open_cache(manifest, root, 32, tmp_path, report=said.append)
    assert len(said) == 1 and "decoding 8 clips" in said[0] and "MB" in said[0]
    for clip in manifest.clips.itertuples():
        assert np.array_equal(cache.clip(clip.id), decode_all(root / clip.path, 32))
    assert list(cache.lengths.values()) == list(LENGTHS)
    again = open_cache(manifest, root, 32, tmp_path, report=said.append)
    assert len(said) == 1 and np.array_equal(again.clip("clip2"), cache.clip("clip2"))
    assert open_cache(manifest, root, None, tmp_path) is None
    with pytest.raises(CacheError, match="'nobody' is not in this cache"):
        cache.clip("nobody")


def test_estimate_is_the_size(source, tmp_path):
    root, manifest = source
    cache = open_cache(manifest, root, 16, tmp_path, report=quiet)
    size = (cache.folder / "frames.bin").stat().st_size
    assert estimate_cache(manifest, 16, root) == size
    counted = Manifest("own", "1", manifest.classes, manifest.clips.assign(frames=list(LENGTHS)))
    assert estimate_cache(counted, 16) == size
    assert 0.3 * size < estimate_cache(manifest, 16, root, sample=3) < 3 * size
    with pytest.raises(ManifestError, match="name the root"):
        estimate_cache(manifest, 16)


def test_threads_build_the_same_cache(source, tmp_path, monkeypatch):
    root, manifest = source
    monkeypatch.setattr("adatosk.parallel.in_chunks.__defaults__", (3,))
    single = open_cache(manifest, root, 16, tmp_path / "a", workers=1, report=quiet)
    several = open_cache(manifest, root, 16, tmp_path / "b", workers=4, report=quiet)
    assert (single.folder / "frames.bin").read_bytes() == (several.folder / "frames.bin").read_bytes()


def test_a_build_that_was_cut_off_goes_on(source, tmp_path, monkeypatch):
    root, manifest = source
    monkeypatch.setattr("adatosk.parallel.in_chunks.__defaults__", (2,))
    decoded = []

    def decode(path, size):
        if len(decoded) == 5:
            raise KeyboardInterrupt
        decoded.append(path.name)
        return decode_all(path, size)

    monkeypatch.setattr(caches, "decode_all", decode)
    with pytest.raises(KeyboardInterrupt):
        open_cache(manifest, root, 16, tmp_path, workers=1, report=quiet)
    assert not any((folder / "index.json").exists() for folder in tmp_path.iterdir())
    first, decoded[:] = list(decoded), []
    measured = []
    monkeypatch.setattr(caches, "count_frames", lambda path: measured.append(path))
    monkeypatch.setattr(caches, "decode_all", lambda path, size: decoded.append(path.name) or decode_all(path, size))
    monkeypatch.setattr(caches, "estimate_cache", lambda *_: 0)
    cache = open_cache(manifest, root, 16, tmp_path, workers=1, report=quiet)
    # Whole parts are not decoded twice, nor any clip measured again.
    assert len(first) == 5 and len(decoded) == 4 and not set(first[:4]) & set(decoded) and not measured
    for clip in manifest.clips.itertuples():
        assert np.array_equal(cache.clip(clip.id), decode_all(root / clip.path, 16))


def test_changed_sources_are_decoded_anew(source, tmp_path):
    root, manifest = copy_of(source, tmp_path / "copy")
    cache = open_cache(manifest, root, 16, tmp_path / "cache", report=quiet)
    before = cache.clip("clip0").copy()
    said = []
    for path in ("1.mp4", "3/4.png", "3"):
        (root / path).touch()  # A copy has new times and the same bytes.
    open_cache(manifest, root, 16, tmp_path / "cache", report=said.append)
    assert not said
    write_video(root / "0.mp4", moving_frames(22, 40, 50, 99))
    cache = open_cache(manifest, root, 16, tmp_path / "cache", report=said.append)
    assert "1 source files have changed" in said[0] and "0.mp4" in said[0]
    assert cache.clip("clip0").shape[0] == 22 != len(before)
    (root / "3" / "25.png").unlink()
    cache = open_cache(manifest, root, 16, tmp_path / "cache", report=said.append)
    assert len(cache.clip("clip3")) == 24


def test_a_frame_overwritten_inside_a_folder_is_decoded_anew(source, tmp_path):
    root, manifest = copy_of(source, tmp_path / "copy")
    before = open_cache(manifest, root, 16, tmp_path / "cache", report=quiet).clip("clip3").copy()
    # Two frames change places: as many bytes as before, the folder untouched, and the times older.
    frames = [root / "3" / f"{number}.png" for number in (7, 20)]
    contents = [frame.read_bytes() for frame in frames]
    for frame, content in zip(frames, reversed(contents), strict=True):
        time = frame.stat().st_mtime_ns - 10**9
        frame.write_bytes(content)
        os.utime(frame, ns=(time, time))
    said = []
    after = open_cache(manifest, root, 16, tmp_path / "cache", report=said.append).clip("clip3")
    assert "1 source files have changed" in said[0]
    assert np.array_equal(after[[6, 19]], before[[19, 6]]) and not np.array_equal(before[6], before[19])


def test_sources_of_files_are_size_time_and_digest(source):
    path = source[0] / "0.mp4"
    status = path.stat()
    digest = hashlib.blake2b(path.read_bytes(), digest_size=16).hexdigest()
    # Caches that exist stay valid as long as this holds.
    assert caches._source(path) == [status.st_size, status.st_mtime_ns, digest]


def test_settings_have_their_own_caches(source, tmp_path):
    root, manifest = source
    folders = {open_cache(manifest, root, size, tmp_path, report=quiet).folder for size in (12, 16)}
    fewer = open_cache(manifest, root, 16, tmp_path, exclusions=["clip2"], report=quiet)
    assert len(folders | {fewer.folder}) == 3 and "clip2" not in fewer.lengths


def test_broken_clips_stop_the_build_by_name(source, tmp_path):
    root, manifest = copy_of(source, tmp_path / "copy")
    truncate(root / "4.mp4", 0.5)
    (root / "3" / "1.png").unlink(), [path.unlink() for path in (root / "3").iterdir()]
    with pytest.raises(CacheError, match="2 of 8 clips cannot be read") as error:
        open_cache(manifest, root, 16, tmp_path / "cache", report=quiet)
    assert "clip3: " in str(error.value) and "4.mp4" in str(error.value) and "exclusions" in str(error.value)
    cache = open_cache(manifest, root, 16, tmp_path / "cache", exclusions=["clip3", "clip4"], report=quiet)
    assert len(cache.lengths) == 6


def test_full_disks_are_told_before_decoding(source, tmp_path, monkeypatch):
    usage = type("Usage", (), {"free": 1000})
    monkeypatch.setattr(caches.shutil, "disk_usage", lambda _: usage)
    with pytest.raises(CacheError, match="make room"):
        open_cache(source[1], source[0], 16, tmp_path, report=quiet)


def change_index(folder, **values):
    index = json.loads((folder / "index.json").read_text())
    (folder / "index.json").write_text(json.dumps(index | values))


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda folder: truncate(folder / "frames.bin", 0.9), "frames.bin: .* bytes, the index says"),
        (lambda folder: truncate(folder / "index.json", 0.9), "index.json: the index .* is damaged"),
        (lambda folder: (folder / "index.json").write_text("[]"), "index.json: the index .* is damaged"),
        (lambda folder: change_index(folder, size=8), "index.json: the index .* is damaged"),
        (lambda folder: change_index(folder, format=99), "of another version"),
        (lambda folder: (folder / "frames.bin").unlink(), "frames.bin: .* missing"),
        (lambda folder: (folder / "index.json").unlink(), "index.json: .* missing"),
    ],
)
def test_damaged_caches_are_named(source, tmp_path, damage, said):
    root, manifest = source
    folder = open_cache(manifest, root, 12, tmp_path, report=quiet).folder
    damage(folder)
    with pytest.raises(CacheError, match=said) as error:
        open_cache(manifest, root, 12, tmp_path, report=quiet)
    assert f"delete the folder {folder}" in str(error.value)


def test_cache_travels_without_its_bytes(source, tmp_path):
    root, manifest = source
    cache = open_cache(manifest, root, 32, tmp_path, report=quiet)
    cache.clip("clip0")
    sent = pickle.dumps(cache)
    assert len(sent) < 20_000
    assert np.array_equal(pickle.loads(sent).clip("clip0"), cache.clip("clip0"))
    assert isinstance(ClipCache(cache.folder), ClipCache)


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


def batches(clips, workers, epochs=(0, 1), **options):
    loader = make_loader(clips, 2, workers=workers, shuffle=True, seed=7, **options)
    found = []
    for epoch in epochs:
        loader.dataset.set_epoch(epoch)
        found.append(list(loader))
    return found


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
