"""What a loader hands over: a batch of cut clips, or of decoded frames that a GPU cuts."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.data import default_collate, get_worker_info

from adatosk.clips.transforms import cut_batch
from adatosk.tokens import normalise


class Memory:
    """Memory for batches of decoded frames, in which each clip is decoded to its place.

    In a loader's process it is shared with the training's. The first touch of a page of shared memory takes
    microseconds, and those of a clip together half as long as decoding it, so a few batches' memory is used in turn.

    Args:
        turns: number of batches; the memory of the first is reused after them. 0 never reuses any.
        largest: the longest side of frames, in pixels; larger ones are decoded elsewhere.
    """

    def __init__(self, turns: int = 0, largest: int = 0) -> None:
        self.turns, self.largest = turns, largest
        self._batches: list[Tensor] = []
        self._batch: Tensor | None = None
        self._clips = self._next = 0

    def __getstate__(self) -> dict:
        # Each process has batches of its own.
        return self.__dict__ | {"_batches": [], "_batch": None, "_clips": 0}

    def begin(self, clips: int) -> None:
        """Start a batch of so many clips."""
        self._batch, self._clips, self._next = None, clips, 0

    def empty(self, shape: Sequence[int], dtype: type = np.uint8) -> np.ndarray:
        """As ``np.empty``: the place of the next clip, or other memory if that is not of this shape."""
        place = self._place(tuple(shape))
        return np.empty(shape, dtype) if place is None else place.numpy()

    def keep(self, frames: np.ndarray) -> Tensor:
        """The frames of the next clip, ``(T, H, W, C)``, in its place if they fit there."""
        place = self._place(frames.shape)
        self._next += 1
        if place is None:
            return torch.from_numpy(frames)
        if place.data_ptr() != frames.ctypes.data:
            place.numpy()[...] = frames
        return place

    def _place(self, shape: tuple[int, ...]) -> Tensor | None:
        if self._next >= self._clips or max(shape[1:3]) > self.largest:
            return None
        if self._batch is None:
            self._batch = self._taken((self._clips, *shape))
        return self._batch[self._next] if self._batch.shape[1:] == shape else None

    def _taken(self, shape: tuple[int, ...]) -> Tensor:
        if get_worker_info() is None:
            return torch.from_numpy(np.empty(shape, np.uint8))
        if self.turns and len(self._batches) == self.turns:
            oldest = self._batches.pop(0)
            if oldest.shape == shape:
                self._batches.append(oldest)
                return oldest
        storage = torch.UntypedStorage._new_shared(int(np.prod(shape)))  # as torch's own collating does
        strides = torch.empty(shape, device="meta").stride()
        batch = torch.empty(0, dtype=torch.uint8).set_(storage, 0, shape, strides)  # not a view, for together() below
        self._batches += [batch] if self.turns else []
        return batch


def together(items: Sequence[dict[str, Tensor]]) -> dict[str, Tensor]:
    """A batch of a data set's clips; frames of several sizes are padded to the largest height and width."""
    if "frames" not in items[0]:
        return default_collate(list(items))
    frames = [item["frames"] for item in items]
    others = default_collate([{name: item[name] for name in item if name != "frames"} for item in items])
    whole = frames[0]._base
    if whole is None or len(whole) != len(frames) or any(one._base is not whole for one in frames):
        whole = torch.stack(_padded(frames))
    return {"frames": whole, **others}


def joined(pieces: Sequence[dict[str, Any]], device: torch.device | str = "cpu") -> dict[str, Any]:
    """Pieces of a batch as one batch; frames of several sizes are padded, and joined on ``device``."""
    if len(pieces) == 1:
        return pieces[0]
    whole = {}
    for name in pieces[0]:
        parts = [piece[name] for piece in pieces]
        if name == "frames":
            parts = _padded([part.to(device, non_blocking=True) for part in parts])
        whole[name] = torch.cat(parts) if isinstance(parts[0], Tensor) else [one for part in parts for one in part]
    return whole


def _padded(frames: Sequence[Tensor]) -> list[Tensor]:
    """Frames ``(…, H, W, C)`` at the largest height and width."""
    height, width = (max(one.shape[side] for one in frames) for side in (-3, -2))
    margins = [(0, 0, 0, width - one.shape[-2], 0, height - one.shape[-3]) for one in frames]
    return [F.pad(one, margin) if any(margin) else one for one, margin in zip(frames, margins, strict=True)]


def model_input(batch: Mapping[str, Tensor], image_size: int, device: torch.device | str) -> Tensor:
    """The clips of a loader's batch on a device, normalised: float32 ``(B, C, T, image_size, image_size)``."""
    return normalise(model_pixels(batch, image_size, device))


def model_pixels(batch: Mapping[str, Tensor], image_size: int, device: torch.device | str) -> Tensor:
    """The same as bytes, uint8, which a model takes as well."""
    if "video" in batch:
        return batch["video"].to(device, non_blocking=True)
    frames, windows = (batch[name].to(device, non_blocking=True) for name in ("frames", "window"))
    return cut_batch(frames, windows, image_size)
