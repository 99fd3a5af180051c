"""The decoded-clip cache: every frame of every clip as bytes in one file, so that an epoch decodes nothing.

A cache is a folder named after the data set, the frame size and a digest of the manifest and the settings. It holds
``frames.bin`` (uint8, clip after clip, each ``(N, size, size, 3)``) and ``index.json`` (which clip lies where, what it
was decoded from, and a digest of itself). It is built beside its place and moved there when whole: a cut-off build goes
on where it stopped, and two processes never build the same one. A cache whose source files have changed since is built
anew, and says so; it stays until the new one is whole, and runs that read it keep its frames. A damaged one is a
:class:`CacheError`, as are sources that are not there, which change nothing.
"""

import errno
import hashlib
import json
import shutil
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import numpy as np
from filelock import FileLock

from adatosk.manifests import Manifest, ManifestError, resolve
from adatosk.utils.files import write_json
from adatosk.utils.parallel import in_chunks, side_by_side
from adatosk.video import count_frames, decode_all, stamp
from adatosk.video.folders import VideoError, image_paths

# 2 and 3: frames are resized by another filter.
FORMAT = 3

_NOT_WRITABLE = (errno.EACCES, errno.EPERM, errno.EROFS)


class CacheError(ValueError):
    """A decoded-clip cache that is damaged, or cannot be built; the message says what to do."""


class ClipCache:
    """An open cache; reads through a memory map and may be sent to other processes.

    Attributes:
        folder: where it lies.
        size: side of a frame in pixels.
        lengths: frames of each clip, by id.
    """

    def __init__(self, folder: str | Path) -> None:
        """Open and validate; raises `CacheError` naming the file that is missing or damaged."""
        self.folder = Path(folder)
        index = _read_index(self.folder)
        self.size: int = index["size"]
        self.lengths: dict[str, int] = dict(zip(index["ids"], index["lengths"], strict=True))
        self.sources: dict[str, list] = dict(zip(index["ids"], index["sources"], strict=True))
        self._offsets = dict(zip(index["ids"], _offsets(index["lengths"]), strict=True))
        self._stamp = stamp(self.folder / "frames.bin")
        # At once: a map, and one that is forked, keeps its file when another cache takes this one's place.
        self._frames: np.ndarray | None = self._map()

    def __getstate__(self) -> dict:
        # A memory map would be pickled with all its bytes; each process opens its own.
        return self.__dict__ | {"_frames": None}

    def _map(self) -> np.ndarray:
        path = self.folder / "frames.bin"
        if not path.is_file() or stamp(path) != self._stamp:
            raise CacheError(f"{path}: the cache was built anew since this process was told of it: start the run again")
        return np.memmap(path, np.uint8, "r", shape=(sum(self.lengths.values()), self.size, self.size, 3))

    def clip(self, clip_id: str) -> np.ndarray:
        """All frames of a clip, uint8 ``(N, size, size, 3)``: a view of the file, not a copy."""
        if self._frames is None:
            self._frames = self._map()
        if clip_id not in self._offsets:
            raise CacheError(
                f"{self.folder}: clip '{clip_id}' is not in this cache: it was built with other exclusions"
            )
        return self._frames[self._offsets[clip_id] :][: self.lengths[clip_id]]


def open_cache(
    manifest: Manifest,
    root: str | Path,
    size: int | None,
    folder: str | Path,
    exclusions: Collection[str] = (),
    workers: int | None = None,
    report: Callable[[str], None] = print,
) -> ClipCache | None:
    """The cache of a manifest at one frame size, built first where it is missing.

    Args:
        manifest: whose clips, train and test.
        root: folder that the manifest's paths are relative to.
        size: side in pixels; ``None`` returns ``None``: decode each time.
        folder: holds all caches.
        exclusions: clip ids that are left out.
        workers: threads that decode; ``None`` takes one a core.
        report: gets one line before a build.

    Raises:
        CacheError: clips are not there, the cache is damaged, the disk too small, the folder read-only, or clips cannot
            be decoded (the first ten are named).
    """
    if size is None:
        return None
    paths = _existing(manifest, root, exclusions)
    place = Path(folder) / _key(manifest, size, exclusions)
    place.parent.mkdir(parents=True, exist_ok=True)
    with _locked(place) as locked:
        cache = _unchanged(place, paths, report) if place.is_dir() else None
        if cache is not None:
            return cache
        if not locked:
            raise CacheError(f"{place}: this cache has to be built and its folder is read-only: name another folder")
        report(
            f"decoding {len(paths)} clips into {place.name}, about {estimate_cache(manifest, size, root) / 1e6:.0f} MB"
        )
        _build(place, paths, size, workers)
        return ClipCache(place)


def estimate_cache(manifest: Manifest, size: int, root: str | Path | None = None, sample: int = 100) -> int:
    """Bytes that a cache of ``manifest`` at ``size`` pixels takes.

    Taken from the column ``frames``; where that is not filled in, from ``sample`` clips under ``root``, spread evenly.
    """
    frames = manifest.clips["frames"]
    if frames.notna().all():
        return int(frames.sum()) * size * size * 3
    if root is None:
        raise ManifestError(f"{manifest} does not tell how many frames its clips have: name the root")
    chosen = np.unique(np.linspace(0, len(frames) - 1, min(sample, len(frames))).astype(int))
    lengths = []
    for path in manifest.clips["path"].iloc[chosen]:
        try:
            lengths.append(count_frames(resolve(root, path)))
        except (VideoError, ManifestError):
            continue  # An estimate need not open every clip; building does, and names those that fail.
    return int(np.mean(lengths or [0]) * len(frames)) * size * size * 3


def _existing(manifest: Manifest, root: str | Path, exclusions: Collection[str]) -> dict[str, Path]:
    """Where each clip lies, by id; a mistyped or unmounted root must not pass for clips that have changed."""
    clips = manifest.clips[~manifest.clips["id"].isin(list(exclusions))]
    if clips.empty:
        raise CacheError(f"{manifest}: every clip is excluded, so there is nothing to cache")
    paths = {clip: resolve(root, path) for clip, path in zip(clips["id"], clips["path"], strict=True)}
    absent = [path for path in paths.values() if not path.exists()]
    if absent:
        raise CacheError(
            f"{len(absent)} of {len(paths)} clips are not under {root} (first: {absent[0]}): check the root, fetch "
            "them, or list their ids under exclusions"
        )
    return paths


def _unchanged(place: Path, paths: dict[str, Path], report: Callable[[str], None]) -> ClipCache | None:
    """The cache that is there, unless clips have changed since it was built, which is reported."""
    cache = ClipCache(place)
    changed = [path for clip, path in paths.items() if _changed(path, cache.sources[clip])]
    if not changed:
        return cache
    report(f"{len(changed)} source files have changed since {place} was built (first: {changed[0]})")
    return None


@contextmanager
def _locked(place: Path) -> Iterator[bool]:
    """Keep other processes from building a cache; ``False`` where no lock can be made, as in a read-only folder."""
    lock = FileLock(f"{place}.lock")
    try:
        lock.acquire()
    except OSError as error:
        if error.errno not in _NOT_WRITABLE:
            raise
    try:
        yield lock.is_locked
    finally:
        lock.release()


def _key(manifest: Manifest, size: int, exclusions: Collection[str]) -> str:
    text = json.dumps([FORMAT, manifest.digest, size, sorted(exclusions)])
    return f"{manifest.name}-{size}px-{hashlib.sha256(text.encode()).hexdigest()[:12]}"


def _build(place: Path, paths: dict[str, Path], size: int, workers: int | None) -> None:
    """Plan, decode what is not yet decoded, and move the finished folder to its place, instead of one that is there."""
    building = place.with_name(place.name + ".building")
    building.mkdir(exist_ok=True)
    with side_by_side(workers) as each:
        plan = _plan(building, paths, size, each)
        _decode(building, plan, paths, size, each)
    (building / "plan.json").unlink()
    (building / "done.txt").unlink()
    write_json(building / "index.json", plan | {"sha256": _self_digest(plan)}, indent=None)
    old = place.with_name(place.name + ".old")
    # What a swap left that was cut off.
    shutil.rmtree(old, ignore_errors=True)
    if place.is_dir():
        place.rename(old)
    building.rename(place)
    # On a network drive its files stay while they are read.
    shutil.rmtree(old, ignore_errors=True)


def _plan(building: Path, paths: dict[str, Path], size: int, each: Callable) -> dict:
    """Length and source of every clip: of this build, or of one that was cut off and whose sources are unchanged."""
    path = building / "plan.json"
    if plan := _earlier_plan(path, paths):
        return plan
    (building / "done.txt").unlink(missing_ok=True)
    lengths, sources, problems = {}, {}, []
    chunks = in_chunks(list(paths.items()))
    for number, found in each(_measure, chunks, "Reading clips"):
        for (clip, _), (length, source, problem) in zip(chunks[number], found, strict=True):
            lengths[clip], sources[clip] = length, source
            problems += [f"{clip}: {problem}"] if problem else []
    if problems:
        listed = "\n  ".join(problems[:10])
        raise CacheError(
            f"{len(problems)} of {len(paths)} clips cannot be read, so nothing is cached; fetch them again, or list "
            f"their ids under exclusions:\n  {listed}"
        )
    plan = {"format": FORMAT, "size": size, "ids": list(paths)}
    plan |= {"lengths": [lengths[clip] for clip in paths], "sources": [sources[clip] for clip in paths]}
    write_json(path, plan, indent=None)
    return plan


def _earlier_plan(path: Path, paths: dict[str, Path]) -> dict | None:
    """The plan of a build that was cut off; ``None`` if there is none, it is torn, or a source has changed."""
    try:
        plan = json.loads(path.read_text(encoding="utf-8"))
        sources = dict(zip(plan["ids"], plan["sources"], strict=True))
        return None if any(_changed(paths[clip], source) for clip, source in sources.items()) else plan
    except (FileNotFoundError, ValueError, KeyError, TypeError, RecursionError):
        return None


def _decode(building: Path, plan: dict, paths: dict[str, Path], size: int, each: Callable) -> None:
    total = sum(plan["lengths"]) * size * size * 3
    frames, log = building / "frames.bin", building / "done.txt"
    if not frames.is_file() or frames.stat().st_size != total or not log.is_file():
        free = shutil.disk_usage(building).free
        if free < total:
            sizes = f"{total / 1e9:.1f} GB and {free / 1e9:.1f} GB are free"
            raise CacheError(f"{building}: the cache takes {sizes}: make room, or cache smaller frames")
        log.write_text("", encoding="utf-8")
        with frames.open("wb") as file:
            file.truncate(total)
    done = set(map(int, log.read_text(encoding="utf-8").split()))
    offsets = _offsets(plan["lengths"])
    jobs = [(paths[clip], n, at) for clip, n, at in zip(plan["ids"], plan["lengths"], offsets, strict=True)]
    chunks = [chunk if number not in done else [] for number, chunk in enumerate(in_chunks(jobs))]
    with log.open("a", encoding="utf-8") as file:
        for number, _ in each(partial(_write_clips, frames, size), chunks, "Decoding clips"):
            file.write(f"{number}\n")
            file.flush()


def _measure(clips: Sequence[tuple[str, Path]]) -> list[tuple[int, list, str]]:
    """Frames, source and problem of each clip."""
    found = []
    for _, path in clips:
        try:
            found.append((count_frames(path), _source(path), ""))
        except (VideoError, OSError) as error:
            found.append((0, [], str(error)))
    return found


def _write_clips(frames: Path, size: int, jobs: Sequence[tuple[Path, int, int]]) -> None:
    with frames.open("r+b") as file:
        for path, length, offset in jobs:
            clip = decode_all(path, size)
            if len(clip) != length:
                raise CacheError(f"{path}: {len(clip)} frames now and {length} a moment ago: it is being written to")
            file.seek(offset * size * size * 3)
            file.write(clip.data)


def _source(path: Path) -> list:
    """What a clip is decoded from: size in bytes, time of change in ns, digest of the content."""
    return [*stamp(path), _source_digest(path)]


def _source_digest(path: Path) -> str:
    """BLAKE2 of a file's bytes, or of the names and bytes of a folder's images."""
    if path.is_file():
        return hashlib.blake2b(path.read_bytes(), digest_size=16).hexdigest()
    digest = hashlib.blake2b(digest_size=16)
    for image in image_paths(path):
        data = image.read_bytes()
        digest.update(f"{image.name},{len(data)}\n".encode() + data)
    return digest.hexdigest()


def _changed(path: Path, source: list) -> bool:
    """Whether a clip is no longer what it was decoded from; one that was only touched or copied is the same."""
    size, time, digest = source
    return stamp(path) != (size, time) and _source_digest(path) != digest


def _read_index(folder: Path) -> dict:
    path, frames = folder / "index.json", folder / "frames.bin"
    advice = f"delete the folder {folder} and it is built again"
    for file in (path, frames):
        if not file.is_file():
            raise CacheError(f"{file}: this file of the decoded-clip cache is missing: {advice}")
    try:
        index = json.loads(path.read_text(encoding="utf-8"))
        intact = index.pop("sha256") == _self_digest(index)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise CacheError(f"{path}: the index of the decoded-clip cache is damaged: {advice}") from error
    if not intact or index["format"] != FORMAT:
        raise CacheError(f"{path}: the index of the decoded-clip cache is damaged or of another version: {advice}")
    total, found = sum(index["lengths"]) * index["size"] ** 2 * 3, frames.stat().st_size
    if total != found:
        raise CacheError(f"{frames}: {found} bytes, the index says {total}: {advice}")
    return index


def _self_digest(index: dict) -> str:
    return hashlib.sha256(json.dumps(index, sort_keys=True).encode()).hexdigest()


def _offsets(lengths: Sequence[int]) -> list[int]:
    """First frame of each clip."""
    return [0, *np.cumsum(lengths[:-1]).tolist()] if lengths else []
