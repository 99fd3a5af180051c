"""The decoded-clip cache: every frame of every clip as bytes in one file, so that training needs no decoding.

A cache is a folder (:mod:`adatosk.clips.cache_files`) named after the data set, the frame size and a digest of the
manifest and the settings. It is built next to its final location and moved there when complete. An interrupted build
resumes, decoding again whatever is not as it was written, and two processes never build the same cache. If source files
have changed, the cache is rebuilt, with a message; the old one is kept until the new one is complete, and runs that
read it keep its frames. A damaged cache is a :class:`CacheError`; so are missing sources, which leave the cache
unchanged.
"""

from __future__ import annotations

import errno
import hashlib
import json
import shutil
import zlib
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from adatosk.clips.cache_files import FORMAT, FRAMES, CacheError, ClipCache, offsets, write_index
from adatosk.utils.files import locked, naming, remove_folder, sealed, sweep, unsealed, write_json, write_text
from adatosk.utils.parallel import in_chunks, side_by_side
from adatosk.utils.paths import ManifestError, resolve
from adatosk.video import count_frames, decode_all, stamp
from adatosk.video.folders import VideoError
from adatosk.video.reading import content

if TYPE_CHECKING:
    from adatosk.config import DataConfig
    from adatosk.manifests import Manifest

_NOT_WRITABLE = (errno.EACCES, errno.EPERM, errno.EROFS)


class _Job(NamedTuple):
    """A clip to decode: its source, its number of frames, and the index of its first frame in the cache."""

    path: Path
    length: int
    first: int


def open_cache(
    manifest: Manifest,
    root: str | Path,
    size: int | None,
    folder: str | Path,
    exclusions: Collection[str] = (),
    workers: int | None = None,
    report: Callable[[str], None] = print,
    progress: bool = True,
) -> ClipCache | None:
    """Open the cache of a manifest at one frame size; build it first if it is missing.

    Args:
        manifest: lists the clips, train and test.
        root: folder that the manifest's paths are relative to.
        size: side in pixels; ``None`` returns ``None``, for decoding each time.
        folder: contains all caches.
        exclusions: ids of clips to leave out.
        workers: decoder threads; one per core by default.
        report: called with a message before a build.
        progress: show the progress bar of a build.

    Raises:
        CacheError: clips are missing, the cache is damaged, the disk is too small, the folder is read-only, or clips
            cannot be decoded (the first ten are named).
    """
    if size is None:
        return None
    paths = _existing(manifest, root, exclusions)
    place = Path(folder) / _key(manifest, size, exclusions)
    place.parent.mkdir(parents=True, exist_ok=True)
    with _locked(place, report) as writable:
        cache = _unchanged(place, paths, report) if place.is_dir() else None
        if cache is not None:
            if writable:
                _tidy(place)
            return cache
        if not writable:
            raise CacheError(f"{place}: this cache has to be built and its folder is read-only: name another folder")
        report(
            f"decoding {len(paths)} clips into {place.name}, about {estimate_cache(manifest, size, root) / 1e6:.0f} MB"
        )
        _build(place, paths, size, workers, progress)
        return ClipCache(place)


def open_clips(
    data: DataConfig,
    manifest: Manifest,
    root: str | Path,
    folder: str | Path,
    workers: int | None = None,
    report: Callable[[str], None] = print,
) -> ClipCache | None:
    """The cache that a run reads, as of :func:`open_cache`; ``None`` if it decodes, after a check of every clip.

    Of several processes one prepares the clips; the others wait for its lock, for which no collective's limit holds.
    Raises :class:`CacheError` or :class:`ManifestError` about clips that are missing or broken.
    """
    if data.cache_size is not None:
        return open_cache(manifest, root, data.cache_size, folder, data.exclusions, workers, report)
    seen = Path(folder) / f"{manifest.name}-{manifest.digest[:12]}.check.csv"
    seen.parent.mkdir(parents=True, exist_ok=True)
    with locked(seen.with_suffix(".lock"), report):
        manifest.check(root, workers, report=seen).raise_if_broken(data.exclusions)
    return None


def estimate_cache(manifest: Manifest, size: int, root: str | Path | None = None, sample: int = 100) -> int:
    """Size in bytes of a cache of ``manifest`` at ``size`` pixels.

    Computed from the column ``frames``; if that is incomplete, from ``sample`` evenly spaced clips under ``root``.
    """
    frames = manifest.clips["frames"]
    if frames.notna().all():
        return int(frames.sum()) * size * size * 3
    if root is None:
        raise ManifestError(f"{manifest} does not state how many frames its clips have: name the root")
    chosen = np.unique(np.linspace(0, len(frames) - 1, min(sample, len(frames))).astype(int))
    lengths = []
    for path in manifest.clips["path"].iloc[chosen]:
        try:
            lengths.append(count_frames(resolve(root, path)))
        except VideoError:
            continue  # An estimate need not open every clip; building does, and names those that fail.
    return int(np.mean(lengths or [0]) * len(frames)) * size * size * 3


def _existing(manifest: Manifest, root: str | Path, exclusions: Collection[str]) -> dict[str, Path]:
    """Path of each clip, by id; a mistyped or unmounted root must not be mistaken for changed clips."""
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
    """The existing cache, unless clips have changed since it was built, which is reported."""
    cache = ClipCache(place)
    changed = [path for clip, path in paths.items() if _changed(path, cache.sources[clip])]
    if not changed:
        return cache
    report(f"{len(changed)} source files have changed since {place} was built (first: {changed[0]})")
    return None


@contextmanager
def _locked(place: Path, report: Callable[[str], None]) -> Iterator[bool]:
    """Keep other processes from building a cache; ``False`` if no lock can be created, as in a read-only folder."""
    with ExitStack() as stack:
        writable = True
        try:
            stack.enter_context(locked(Path(f"{place}.lock"), report))
        except OSError as error:
            if error.errno not in _NOT_WRITABLE:
                raise
            writable = False
        yield writable


def _tidy(place: Path) -> None:
    """Remove what a killed process left in and beside a complete cache."""
    sweep(place)
    for ending in (".building", ".old"):
        remove_folder(place.with_name(place.name + ending))


def _key(manifest: Manifest, size: int, exclusions: Collection[str]) -> str:
    text = json.dumps([FORMAT, manifest.digest, size, sorted(exclusions)])
    return f"{manifest.name}-{size}px-{hashlib.sha256(text.encode()).hexdigest()[:12]}"


def _build(place: Path, paths: dict[str, Path], size: int, workers: int | None, progress: bool) -> None:
    """Plan, decode what is not yet decoded, and move the finished folder into place, replacing an existing one."""
    building = place.with_name(place.name + ".building")
    building.mkdir(exist_ok=True)
    sweep(building)
    if not _whole(building, paths):
        with side_by_side(workers, progress) as each:
            plan = _plan(building, paths, size, each)
            sums = _decode(building, plan, paths, size, each)
        write_index(building, plan, sums)
    (building / "done.txt").unlink(missing_ok=True)
    (building / "plan.json").unlink(missing_ok=True)
    old = place.with_name(place.name + ".old")
    # A leftover of an interrupted swap.
    remove_folder(old)
    if place.is_dir():
        place.rename(old)
    building.rename(place)
    # On a network drive, files in use cannot be deleted.
    shutil.rmtree(old, ignore_errors=True)


def _whole(building: Path, paths: dict[str, Path]) -> bool:
    """Whether an interrupted build is complete except for the move into place."""
    try:
        sources = ClipCache(building).sources
    except CacheError:
        return False
    return list(sources) == list(paths) and not any(_changed(paths[clip], source) for clip, source in sources.items())


def _plan(building: Path, paths: dict[str, Path], size: int, each: Callable) -> dict:
    """Length and source of every clip: from an interrupted build if its sources are unchanged, otherwise new."""
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
    write_json(path, sealed(plan), indent=None)
    return plan


def _earlier_plan(path: Path, paths: dict[str, Path]) -> dict | None:
    """The plan of an interrupted build; ``None`` if there is none, it is damaged, or a source has changed."""
    plan = unsealed(path) if path.is_file() else None
    if plan is None or plan.get("format") != FORMAT or plan["ids"] != list(paths):
        return None
    changed = any(_changed(paths[clip], source) for clip, source in zip(plan["ids"], plan["sources"], strict=True))
    return None if changed else plan


def _decode(building: Path, plan: dict, paths: dict[str, Path], size: int, each: Callable) -> np.ndarray:
    """Write the frames that are missing or damaged; returns the CRC-32 of all frames, uint32 ``(N,)``."""
    frames, log = building / FRAMES, building / "done.txt"
    _make_room(frames, log, sum(plan["lengths"]) * size * size * 3)
    firsts = offsets(plan["lengths"])
    jobs = [_Job(paths[clip], n, at) for clip, n, at in zip(plan["ids"], plan["lengths"], firsts, strict=True)]
    chunks = in_chunks(jobs)
    done = _done(log, frames, size, chunks)
    # Rewritten, because the last line may be incomplete.
    write_text(log, "".join(_line(number, found) for number, found in done.items()))
    missing = [chunk if number not in done else [] for number, chunk in enumerate(chunks)]
    with naming(log), log.open("a", encoding="utf-8") as file:
        for number, found in each(partial(_write_clips, frames, size), missing, "Decoding clips"):
            done[number] = found
            file.write(_line(number, found))
            file.flush()
    return np.concatenate([done[number] for number in range(len(chunks))])


def _make_room(frames: Path, log: Path, total: int) -> None:
    """Ensure a frame file of ``total`` bytes: a partly filled one is kept, otherwise an empty one is created."""
    if frames.is_file() and frames.stat().st_size == total and log.is_file():
        return
    free = shutil.disk_usage(frames.parent).free
    if free < total:
        sizes = f"{total / 1e6:,.0f} MB and {free / 1e6:,.0f} MB are free"
        raise CacheError(f"{frames.parent}: the cache takes {sizes}: make room, or cache smaller frames")
    write_text(log, "")
    with naming(frames), frames.open("wb") as file:
        file.truncate(total)


def _line(number: int, sums: np.ndarray) -> str:
    """A chunk's line in ``done.txt``: its number, its frames' checksums, and a checksum of the line."""
    text = f"{number} {sums.astype('<u4').tobytes().hex()}"
    return f"{text} {zlib.crc32(text.encode()):08x}\n"


def _done(log: Path, frames: Path, size: int, chunks: Sequence[Sequence[_Job]]) -> dict[int, np.ndarray]:
    """Checksums of each chunk in ``log`` that is intact in ``frames``; others count as missing."""
    done = {}
    for line in log.read_bytes().decode(errors="replace").splitlines():
        text, _, check = line.rpartition(" ")
        if check != f"{zlib.crc32(text.encode()):08x}":
            continue
        number, found = text.split(" ")
        sums, chunk = np.frombuffer(bytes.fromhex(found), "<u4"), chunks[int(number)]
        if len(sums) == sum(job.length for job in chunk) and np.array_equal(_sums(frames, size, chunk), sums):
            done[int(number)] = sums
    return done


def _sums(frames: Path, size: int, chunk: Sequence[_Job]) -> np.ndarray:
    """CRC-32 of each frame of a chunk, read from the file."""
    length = size * size * 3
    with frames.open("rb") as file:
        file.seek(chunk[0].first * length)
        count = sum(job.length for job in chunk)
        return np.array([zlib.crc32(file.read(length)) for _ in range(count)], np.uint32)


def _measure(clips: Sequence[tuple[str, Path]]) -> list[tuple[int, list, str]]:
    """Frames, source and problem of each clip."""
    found = []
    for _, path in clips:
        try:
            found.append((count_frames(path), _source(path), ""))
        except (VideoError, OSError) as error:
            found.append((0, [], str(error)))
    return found


def _write_clips(frames: Path, size: int, jobs: Sequence[_Job]) -> np.ndarray:
    """Decode and write clips; returns the CRC-32 of their frames."""
    sums = []
    with naming(frames), frames.open("r+b") as file:
        for path, length, first in jobs:
            clip = decode_all(path, size)
            if len(clip) != length:
                raise CacheError(f"{path}: {len(clip)} frames now and {length} a moment ago: it is being written to")
            file.seek(first * size * size * 3)
            file.write(clip.data)
            sums += [zlib.crc32(frame) for frame in clip]
    return np.array(sums, np.uint32)


def _source(path: Path) -> list:
    """What a clip is decoded from: size in bytes, modification time in ns, digest of the content."""
    return [*stamp(path), content(path)[1]]


def _changed(path: Path, source: list) -> bool:
    """Whether a clip's content has changed since it was decoded; touching or copying a file does not count."""
    size, time, digest = source
    return stamp(path) != (size, time) and content(path)[1] != digest
