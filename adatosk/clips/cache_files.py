"""The files of a decoded-clip cache and how to read them: each process checks every frame's CRC-32 once.

A cache is a folder of ``frames.bin`` (uint8, clip after clip, each ``(N, size, size, 3)``), ``frames.crc32`` (one
little-endian uint32 per frame) and ``index.json`` (the position of each clip, what it was decoded from, the digest of
``frames.crc32``, and one of itself). A frame is checked when it is first read: opening a cache reads no frames, and the
check costs only one more pass over the frame's bytes.
"""

import hashlib
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from adatosk.utils.files import replacing, sealed, unsealed, write_json
from adatosk.video import stamp

# 2 and 3: frames are resized by another filter. 4: frames have checksums.
FORMAT = 4
_AT_ONCE = 4096  # frames that are copied to a device's memory
INDEX, FRAMES, SUMS = "index.json", "frames.bin", "frames.crc32"


class CacheError(ValueError):
    """A decoded-clip cache that is damaged, or cannot be built; the message says what to do."""


class ClipCache:
    """An open cache, read through a memory map; it can be sent to other processes.

    Attributes:
        folder: the cache's folder.
        size: side of a frame in pixels.
        lengths: number of frames of each clip, by id.
    """

    def __init__(self, folder: str | Path) -> None:
        """Open and validate; raises `CacheError` naming the file that is missing or damaged."""
        self.folder = Path(folder)
        index = _read_index(self.folder)
        self.size: int = index["size"]
        self.lengths: dict[str, int] = dict(zip(index["ids"], index["lengths"], strict=True))
        self.sources: dict[str, list] = dict(zip(index["ids"], index["sources"], strict=True))
        self._offsets = dict(zip(index["ids"], offsets(index["lengths"]), strict=True))
        self._sums_digest: str = index["frames_crc32"]
        self._stamp = stamp(self.folder / FRAMES)
        # Right away: a memory map, even a forked one, keeps its file when another cache replaces this one.
        self._map()
        self._held: Tensor | None = None

    def __getstate__(self) -> dict:
        # A memory map would be pickled with all its bytes; each process opens its own.
        return self.__dict__ | {"_frames": None, "_sums": None, "_seen": None, "_held": None}

    def _map(self) -> np.ndarray:
        path, count = self.folder / FRAMES, sum(self.lengths.values())
        if not path.is_file() or stamp(path) != self._stamp:
            raise CacheError(f"{path}: the cache was rebuilt while this process was using it: start the run again")
        self._frames: np.ndarray | None = np.memmap(path, np.uint8, "r", shape=(count, self.size, self.size, 3))
        self._sums = _read_sums(self.folder / SUMS, self._sums_digest)
        self._seen = np.zeros(count, bool)
        return self._frames

    def clip(self, clip_id: str) -> np.ndarray:
        """All frames of a clip, uint8 ``(N, size, size, 3)``: a view of the file, not a copy.

        Raises:
            CacheError: the clip is not in this cache, or a frame of it is damaged.
        """
        frames, places = self._checked(clip_id, lambda length: np.arange(length))
        return frames[places[0] :][: self.lengths[clip_id]]

    def frames(self, clip_id: str, choose: Callable[[int], np.ndarray]) -> np.ndarray:
        """Some frames of a clip, uint8 ``(n, size, size, 3)``; only these are read, and checked.

        Args:
            clip_id: the clip's id.
            choose: maps the clip's length to the indices of the frames.

        Raises:
            CacheError: the clip is not in this cache, or one of the frames is damaged.
        """
        frames, places = self._checked(clip_id, choose)
        return frames[places]

    def places(self, clip_id: str, choose: Callable[[int], np.ndarray]) -> np.ndarray:
        """Indices of some frames of a clip in the file and in :meth:`held`, int64 ``(n,)``; arguments as above."""
        if clip_id not in self._offsets:
            raise CacheError(
                f"{self.folder}: clip '{clip_id}' is not in this cache: it was built with other exclusions"
            )
        return self._offsets[clip_id] + np.asarray(choose(self.lengths[clip_id]), np.int64)

    @property
    def bytes(self) -> int:
        """Of all frames."""
        return sum(self.lengths.values()) * self.size**2 * 3

    def held(self, device: torch.device | str) -> Tensor:
        """All frames in a device's memory, uint8 ``(N, size, size, 3)``, copied there once.

        Raises:
            CacheError: a frame is damaged.
        """
        device = torch.empty(0, device=device).device  # with its number
        if self._held is None or self._held.device != device:
            for clip_id in self.lengths:
                self._checked(clip_id, np.arange)
            frames = self._map() if self._frames is None else self._frames
            # A memory map that is only read cannot be a tensor of torch's without a warning, so it is copied in parts.
            self._held = torch.empty(frames.shape, dtype=torch.uint8, device=device)
            for first in range(0, len(frames), _AT_ONCE):
                part = torch.from_numpy(np.array(frames[first : first + _AT_ONCE]))
                self._held[first : first + _AT_ONCE].copy_(part)
        return self._held

    def _checked(self, clip_id: str, choose: Callable[[int], np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
        """All frames of the file, and the indices of the chosen ones in it, after checking that they are intact."""
        places = self.places(clip_id, choose)
        frames = self._map() if self._frames is None else self._frames
        first = self._offsets[clip_id]
        for place in places[~self._seen[places]]:
            if zlib.crc32(frames[place]) != self._sums[place]:
                where = f"{self.folder / FRAMES}: frame {place - first} of clip '{clip_id}'"
                raise CacheError(f"{where} is damaged: {_advice(self.folder)}")
            self._seen[place] = True
        return frames, places


def write_index(folder: Path, plan: dict[str, Any], sums: np.ndarray) -> None:
    """Finish a cache whose frames are written.

    Args:
        folder: holds ``frames.bin``.
        plan: ``format``, ``size``, ``ids``, ``lengths`` and ``sources``.
        sums: CRC-32 of each frame, uint32.
    """
    content = sums.astype("<u4").tobytes()
    with replacing(folder / SUMS) as part:
        part.write_bytes(content)
    write_json(folder / INDEX, sealed(plan | {"frames_crc32": hashlib.sha256(content).hexdigest()}), indent=None)


def offsets(lengths: Sequence[int]) -> list[int]:
    """Index of the first frame of each clip."""
    return [0, *np.cumsum(lengths[:-1]).tolist()] if lengths else []


def _read_index(folder: Path) -> dict[str, Any]:
    for name in (INDEX, FRAMES, SUMS):
        if not (folder / name).is_file():
            raise CacheError(f"{folder / name}: this file of the decoded-clip cache is missing: {_advice(folder)}")
    path, frames = folder / INDEX, folder / FRAMES
    index = unsealed(path)
    if index is None:
        raise CacheError(f"{path}: the index of the decoded-clip cache is damaged: {_advice(folder)}")
    if index["format"] != FORMAT:
        raise CacheError(f"{path}: the decoded-clip cache is of another version: {_advice(folder)}")
    total, found = sum(index["lengths"]) * index["size"] ** 2 * 3, frames.stat().st_size
    if total != found:
        raise CacheError(f"{frames}: {found} bytes, the index says {total}: {_advice(folder)}")
    return index


def _read_sums(path: Path, digest: str) -> np.ndarray:
    content = path.read_bytes()
    if hashlib.sha256(content).hexdigest() != digest:
        raise CacheError(f"{path}: the checksums of the decoded-clip cache are damaged: {_advice(path.parent)}")
    return np.frombuffer(content, "<u4")


def _advice(folder: Path) -> str:
    return f"delete the folder {folder} and it is built again"
