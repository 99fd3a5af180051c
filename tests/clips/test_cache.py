import errno
import hashlib
import json
import os
import pickle
import shutil

import numpy as np
import pytest
import torch
from clip_sources import LENGTHS, batches, dataset, make_source, quiet
from media import moving_frames, truncate, write_video

from adatosk.clips import cache as caches
from adatosk.clips.cache import CacheError, ClipCache, estimate_cache, open_cache
from adatosk.manifests import Manifest, ManifestError
from adatosk.utils.files import sealed
from adatosk.video import decode_all


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    return make_source(tmp_path_factory.mktemp("source"))


def copy_of(source, folder):
    """The source's files in another folder, free to be damaged."""
    return shutil.copytree(source[0], folder), source[1]


@pytest.mark.parametrize("progress", [True, False])
def test_a_build_shows_its_progress_or_not(progress, source, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("adatosk.utils.parallel.SHOWN_AFTER", 0)  # instead of work that takes longer
    open_cache(source[1], source[0], 16, tmp_path, report=quiet, progress=progress)
    assert ("Decoding clips" in capsys.readouterr().err) == progress


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
    monkeypatch.setattr("adatosk.utils.parallel.in_chunks.__defaults__", (3,))
    single = open_cache(manifest, root, 16, tmp_path / "a", workers=1, report=quiet)
    several = open_cache(manifest, root, 16, tmp_path / "b", workers=4, report=quiet)
    assert (single.folder / "frames.bin").read_bytes() == (several.folder / "frames.bin").read_bytes()


def interrupted_after_five(decoded):
    """In place of `decode_all`: notes the names of the clips, and is interrupted at the sixth."""

    def decode(path, size):
        if len(decoded) == 5:
            raise KeyboardInterrupt
        decoded.append(path.name)
        return decode_all(path, size)

    return decode


def test_a_build_that_was_cut_off_goes_on(source, tmp_path, monkeypatch):
    root, manifest = source
    monkeypatch.setattr("adatosk.utils.parallel.in_chunks.__defaults__", (2,))
    decoded = []
    decode = interrupted_after_five(decoded)
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


def test_a_root_that_is_not_there_leaves_the_cache_alone(source, tmp_path):
    """It must not pass for clips that have changed: another run may be reading the cache."""
    root, manifest = copy_of(source, tmp_path / "copy")
    place = open_cache(manifest, root, 16, tmp_path / "cache", report=quiet).folder
    before = {path.name: path.stat().st_mtime_ns for path in place.iterdir()}
    (tmp_path / "empty").mkdir()
    with pytest.raises(CacheError, match=r"8 of 8 clips are not under .*empty \(first: .*0\.mp4\): check the root"):
        open_cache(manifest, tmp_path / "empty", 16, tmp_path / "cache", report=quiet)
    (root / "2.mp4").unlink()
    with pytest.raises(CacheError, match=r"1 of 8 clips are not under .*copy \(first: .*2\.mp4\)"):
        open_cache(manifest, root, 16, tmp_path / "cache", report=quiet)
    assert {path.name: path.stat().st_mtime_ns for path in place.iterdir()} == before
    with pytest.raises(CacheError, match="every clip is excluded"):
        open_cache(manifest, root, 16, tmp_path / "cache", exclusions=list(manifest.clips["id"]), report=quiet)


def test_a_cache_stays_until_the_new_one_is_whole(source, tmp_path):
    root, manifest = copy_of(source, tmp_path / "copy")
    place = open_cache(manifest, root, 16, tmp_path / "cache", report=quiet).folder
    whole = (root / "0.mp4").read_bytes()
    truncate(root / "0.mp4", 0.5)
    with pytest.raises(CacheError, match="1 of 8 clips cannot be read"):
        open_cache(manifest, root, 16, tmp_path / "cache", report=quiet)
    (root / "0.mp4").write_bytes(whole)
    said = []
    assert open_cache(manifest, root, 16, tmp_path / "cache", report=said.append).folder == place and not said
    # A swap that was cut off leaves the old one aside.
    (place.parent / f"{place.name}.old").mkdir()
    write_video(root / "0.mp4", moving_frames(22, 40, 50, 99))
    open_cache(manifest, root, 16, tmp_path / "cache", report=quiet)
    assert {path.name for path in place.parent.iterdir()} <= {place.name, f"{place.name}.lock"}


def test_runs_keep_the_cache_that_they_opened(source, tmp_path):
    root, manifest = copy_of(source, tmp_path / "copy")
    cache = open_cache(manifest, root, 16, tmp_path / "cache", report=quiet)
    expected = batches(dataset(source, cache=ClipCache(cache.folder)), 0)
    sent = pickle.dumps(cache)
    write_video(root / "0.mp4", moving_frames(22, 40, 50, 99))
    new = open_cache(manifest, root, 16, tmp_path / "cache", report=quiet)
    assert cache.clip("clip0").shape[0] == 40 and new.clip("clip0").shape[0] == 22
    assert np.array_equal(cache.clip("clip7"), decode_all(root / "7", 16))
    for first, second in zip(expected, batches(dataset(source, cache=cache), 2), strict=True):
        assert all(torch.equal(a["video"], b["video"]) for a, b in zip(first, second, strict=True))
    # One that has to open the files anew finds others, whose clips lie elsewhere.
    with pytest.raises(CacheError, match=r"frames\.bin: the cache was rebuilt .*: start the run again"):
        pickle.loads(sent).clip("clip7")


@pytest.mark.parametrize("code", [errno.EACCES, errno.EROFS])
def test_a_read_only_cache_is_used_without_a_lock(source, tmp_path, monkeypatch, code):
    """The superuser, who runs many a test, may write anywhere: the lock fails as it does for others."""
    root, manifest = copy_of(source, tmp_path / "copy")
    place = open_cache(manifest, root, 16, tmp_path / "cache", report=quiet).folder

    def fails_with(number):
        def acquire(lock, **_):
            raise OSError(number, os.strerror(number), lock.lock_file)

        monkeypatch.setattr("adatosk.utils.files.FileLock.acquire", acquire)

    fails_with(code)
    assert open_cache(manifest, root, 16, tmp_path / "cache", report=quiet).clip("clip0").shape[0] == 40
    for change in (lambda: write_video(root / "0.mp4", moving_frames(22, 40, 50, 99)), lambda: shutil.rmtree(place)):
        change()
        with pytest.raises(CacheError, match="has to be built and its folder is read-only: name another folder"):
            open_cache(manifest, root, 16, tmp_path / "cache", report=quiet)
    fails_with(errno.ENOSPC)
    with pytest.raises(OSError, match="No space left"):
        open_cache(manifest, root, 16, tmp_path / "cache", report=quiet)


@pytest.mark.parametrize("torn", ['{"format": 3, "si', "[]", '{"ids": ["nobody"], "sources": [[]]}'])
def test_a_build_with_a_torn_plan_starts_anew(source, tmp_path, monkeypatch, torn):
    root, manifest = source
    monkeypatch.setattr(caches, "_write_clips", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        open_cache(manifest, root, 16, tmp_path, report=quiet)
    monkeypatch.undo()
    (plan,) = tmp_path.glob("*.building/plan.json")
    plan.write_text(torn)
    (plan.parent / "done.txt").write_text("0\n")
    cache = open_cache(manifest, root, 16, tmp_path, report=quiet)
    assert np.array_equal(cache.clip("clip2"), decode_all(root / "2.mp4", 16))


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
    (root / "7" / "9.png").unlink(), (root / "7" / "9.png").mkdir()
    with pytest.raises(CacheError, match=r"3 of 8 clips cannot be read(.|\n)*clip7: .*9\.png"):
        open_cache(manifest, root, 16, tmp_path / "cache", report=quiet)
    cache = open_cache(manifest, root, 16, tmp_path / "cache", exclusions=["clip3", "clip4", "clip7"], report=quiet)
    assert len(cache.lengths) == 5


def test_full_disks_are_told_before_decoding(source, tmp_path, monkeypatch):
    usage = type("Usage", (), {"free": 1000})
    monkeypatch.setattr(caches.shutil, "disk_usage", lambda _: usage)
    with pytest.raises(CacheError, match="make room"):
        open_cache(source[1], source[0], 16, tmp_path, report=quiet)


def change_index(folder, sealing=False, **values):
    index = json.loads((folder / "index.json").read_text()) | values
    if sealing:
        del index["sha256"]
        index = sealed(index)
    (folder / "index.json").write_text(json.dumps(index))


def flip(path, where):
    """Change one bit of a file."""
    with path.open("r+b") as file:
        file.seek(int(path.stat().st_size * where))
        byte = file.read(1)[0]
        file.seek(-1, os.SEEK_CUR)
        file.write(bytes([byte ^ 4]))


@pytest.mark.parametrize("where", [0.0, 0.5, 0.999999])
def test_a_damaged_frame_is_named_and_never_trained_on(source, tmp_path, where):
    root, manifest = source
    folder = open_cache(manifest, root, 16, tmp_path, report=quiet).folder
    expected = {clip.id: decode_all(root / clip.path, 16) for clip in manifest.clips.itertuples()}
    flip(folder / "frames.bin", where)
    cache = open_cache(manifest, root, 16, tmp_path, report=quiet)
    damaged = []
    for clip, frames in expected.items():
        for place in range(len(frames)):
            try:
                assert np.array_equal(cache.frames(clip, lambda _, place=place: [place])[0], frames[place])
            except CacheError as error:
                assert "\n" not in str(error) and f"delete the folder {folder} and it is built again" in str(error)
                damaged.append(f"frame {place} of clip '{clip}' is damaged")
                assert damaged[-1] in str(error) and str(folder / "frames.bin") in str(error)
    # The byte's place says which frame it is.
    number = int(sum(LENGTHS) * where)
    lengths = np.cumsum([0, *LENGTHS])
    clip = int(np.searchsorted(lengths, number, "right")) - 1
    assert damaged == [f"frame {number - lengths[clip]} of clip 'clip{clip}' is damaged"]
    with pytest.raises(CacheError, match="is damaged"):
        cache.clip(f"clip{clip}")
    if clip < 6:
        with pytest.raises(CacheError, match="is damaged"):
            _ = [dataset(source, cache=cache, seed=seed)[clip] for seed in range(60)]


def test_some_frames_are_those_of_the_whole_clip(source, tmp_path):
    cache = open_cache(source[1], source[0], 16, tmp_path, report=quiet)
    chosen = cache.frames("clip2", lambda length: np.array([0, length - 1, 7, 7]))
    assert np.array_equal(chosen, cache.clip("clip2")[[0, LENGTHS[2] - 1, 7, 7]])
    with pytest.raises(CacheError, match="'nobody' is not in this cache"):
        cache.frames("nobody", np.arange)


@pytest.mark.parametrize("name", ["frames.bin", "plan.json", "done.txt"])
def test_a_build_that_was_damaged_after_it_was_cut_off_ends_right(source, tmp_path, monkeypatch, name):
    root, manifest = source
    monkeypatch.setattr("adatosk.utils.parallel.in_chunks.__defaults__", (2,))
    decoded = []
    decode = interrupted_after_five(decoded)
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(caches, "decode_all", decode)
        open_cache(manifest, root, 16, tmp_path, workers=1, report=quiet)
    (building,) = tmp_path.glob("*.building")
    assert (building / "done.txt").read_text().count("\n") == 2
    flip(building / name, 0.05)
    decoded[:] = ["nothing"] * 6
    monkeypatch.setattr(caches, "decode_all", decode)
    cache = open_cache(manifest, root, 16, tmp_path, workers=1, report=quiet)
    for clip in manifest.clips.itertuples():
        assert np.array_equal(cache.clip(clip.id), decode_all(root / clip.path, 16))
    # What was as written was not decoded twice, unless the plan itself was lost.
    assert len(decoded[6:]) == {"plan.json": 8}.get(name, 6)
    assert {path.name for path in tmp_path.iterdir()} <= {cache.folder.name, f"{cache.folder.name}.lock"}
    assert {path.name for path in cache.folder.iterdir()} == {"frames.bin", "frames.crc32", "index.json"}


def test_what_killed_processes_left_is_swept(source, tmp_path):
    root, manifest = source
    place = open_cache(manifest, root, 16, tmp_path, report=quiet).folder
    (place / ".index.json.123.part").touch()
    for ending in (".building", ".old"):
        (tmp_path / f"{place.name}{ending}").mkdir()
    open_cache(manifest, root, 16, tmp_path, report=quiet)
    assert {path.name for path in tmp_path.iterdir()} <= {place.name, f"{place.name}.lock"}
    assert not list(place.glob(".*"))


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda folder: truncate(folder / "frames.bin", 0.9), "frames.bin: .* bytes, the index says"),
        (lambda folder: truncate(folder / "index.json", 0.9), "index.json: the index .* is damaged"),
        (lambda folder: (folder / "index.json").write_text("[]"), "index.json: the index .* is damaged"),
        (lambda folder: change_index(folder, size=8), "index.json: the index .* is damaged"),
        (lambda folder: change_index(folder, format=99, sealing=True), "index.json: .* of another version"),
        (lambda folder: flip(folder / "index.json", 0.5), "index.json: the index .* is damaged"),
        (lambda folder: flip(folder / "frames.crc32", 0.5), "frames.crc32: the checksums .* are damaged"),
        (lambda folder: truncate(folder / "frames.crc32", 0.5), "frames.crc32: the checksums .* are damaged"),
        (lambda folder: (folder / "frames.crc32").unlink(), "frames.crc32: .* missing"),
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
