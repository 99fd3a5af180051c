"""A manifest's clips as training examples.

A clip's random draws depend only on the seed, the epoch and the clip's index, and so not on the number of loader
processes.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from adatosk.clips.batches import Memory
from adatosk.clips.cache import ClipCache
from adatosk.clips.transforms import Window, cut, eval_window, train_window
from adatosk.config import DataConfig, RunConfig
from adatosk.utils import seeds
from adatosk.utils.paths import ManifestError, resolve
from adatosk.video import frame_indices, last_start, read_frames

if TYPE_CHECKING:  # predicting a video needs neither tables nor a manifest
    import pandas as pd

    from adatosk.manifests import Manifest

# Frames with a longer side than this many of the model's are cut by the loader's processes, even for a GPU.
LARGEST = 2

# Distinguish the draws of one seed and epoch: an order's, and a clip's.
ORDER, _CLIP = 1, 2


class ClipDataset(Dataset):
    """Clips as ``{"video": uint8 (C, T, H, W), "label": int64 (), "index": int64 ()}``.

    In training, the first frame, the crop and the flip are drawn once per clip; otherwise nothing is random: the span
    is centred and the frame resized.

    Attributes:
        uncut: instead of ``"video"``, give ``"frames"`` as decoded, uint8 ``(T, H, W, C)``, and ``"window"``, what
            :func:`adatosk.clips.batches.model_input` is to take of them, int64 ``(9,)``.
        memory: where the frames of uncut clips are decoded to.
        placed: instead of an uncut clip's frames, give ``"places"``, their indices in the cache's file, int64 ``(T,)``.
    """

    def __init__(
        self,
        clips: pd.DataFrame,
        root: str | Path,
        classes: tuple[str, ...],
        frames: int,
        image_size: int,
        data: DataConfig,
        train: bool,
        seed: int,
        cache: ClipCache | None = None,
    ) -> None:
        """
        Args:
            clips: rows of a manifest, as :meth:`Manifest.subset` gives them.
            root: folder that their paths are relative to.
            classes: names in the order of the model's logits.
            frames, image_size: T and H = W of a clip.
            data: stride, smallest crop and flip.
            train: whether to draw augmentations.
            seed: seed of the draws.
            cache: decoded clips; ``None`` decodes the files each time.

        Raises:
            ManifestError: a label is not in ``classes``.
        """
        unknown = sorted(set(clips["label"]) - set(classes))
        if unknown:
            raise ManifestError(f"labels {', '.join(unknown)} are none of the model's classes {', '.join(classes)}")
        self.ids, self.paths = list(clips["id"]), list(clips["path"])
        self.labels = [classes.index(label) for label in clips["label"]]
        self.root, self.cache = Path(root), cache
        self.frames, self.image_size, self.stride = frames, image_size, data.stride
        self.train, self.seed, self.epoch = train, seed, 0
        self.choose = train_window(image_size, data.min_crop, data.flip) if train else eval_window(image_size)
        self.uncut, self.placed, self.memory = False, False, Memory()

    @classmethod
    def of_split(
        cls,
        config: RunConfig,
        manifest: Manifest,
        root: str | Path,
        split: Literal["train", "test"],
        cache: ClipCache | None = None,
    ) -> ClipDataset:
        """The clips of ``train`` or ``test`` as a run of ``config`` sees them; errors as for the class."""
        data, model = config.data, config.model
        clips = manifest.subset(split, data.fold, data.exclusions)
        sizes, train = (model.frames, model.image_size), split == "train"
        return cls(clips, root, manifest.classes, *sizes, data, train, config.seed, cache)

    def __len__(self) -> int:
        return len(self.ids)

    def set_epoch(self, epoch: int) -> None:
        """Select the draws of an epoch, from the next pass over the loader on, in its workers as well."""
        self.epoch = epoch

    def left_uncut(self, turns: int = 0) -> ClipDataset:
        """The same clips ``uncut``; ``turns`` as for :class:`adatosk.clips.batches.Memory`."""
        other = copy.copy(self)
        other.uncut, other.memory = True, Memory(turns, LARGEST * self.image_size)
        return other

    def left_in_place(self) -> ClipDataset:
        """The same clips ``placed``, for frames that are on a GPU; `ValueError` without a cache."""
        if self.cache is None:
            raise ValueError("clips that are decoded each time have no place: set data.cache_size")
        other = copy.copy(self)
        other.placed = True
        return other

    def __getitems__(self, keys: Sequence[int | tuple[int, int]]) -> list[dict[str, Tensor]]:
        """The clips of a batch; torch's loader calls it."""
        self.memory.begin(len(keys))
        return [self[key] for key in keys]

    def __getitem__(self, key: int | tuple[int, int]) -> dict[str, Tensor]:
        """The clip at ``key``, an index or (epoch, index)."""
        index = key[1] if isinstance(key, tuple) else key
        about = {"label": torch.tensor(self.labels[index]), "index": torch.tensor(index)}
        if self.placed and self.cache is not None:
            choose, generator = self._draws(key)
            places = self.cache.places(self.ids[index], choose)
            window = self.choose(self.cache.size, self.cache.size, generator)
            return {"places": torch.from_numpy(places), "window": torch.tensor(window), **about}
        frames, generator = self.decode(key)
        window, size = self.choose(*frames.shape[1:3], generator), self.image_size
        if self.uncut and max(frames.shape[1:3]) <= self.memory.largest:
            return {"frames": self.memory.keep(frames), "window": torch.tensor(window), **about}
        video = cut(torch.from_numpy(frames).permute(0, 3, 1, 2), window, size)  # (T, C, H, W)
        if self.uncut:
            window = Window(0, 0, size, size, size, size)
            cut_frames = video.permute(0, 2, 3, 1).numpy()
            return {"frames": self.memory.keep(cut_frames), "window": torch.tensor(window), **about}
        return {"video": video.permute(1, 0, 2, 3).contiguous(), **about}  # (C, T, H, W)

    def decode(self, key: int | tuple[int, int]) -> tuple[np.ndarray, torch.Generator | None]:
        """The frames of the clip at ``key``, uint8 ``(T, H, W, C)``, and in training what draws its window."""
        choose, generator = self._draws(key)
        index = key[1] if isinstance(key, tuple) else key
        if self.cache is not None:
            return self.cache.frames(self.ids[index], choose), generator
        empty = self.memory.empty if self.uncut else np.empty
        return read_frames(resolve(self.root, self.paths[index]), choose, empty=empty), generator

    def _draws(self, key: int | tuple[int, int]) -> tuple[Callable[[int], np.ndarray], torch.Generator | None]:
        """What maps a clip's length to the frames that are read, and in training what draws its window afterwards."""
        epoch, index = key if isinstance(key, tuple) else (self.epoch, key)
        generator = seeds.generator(self.seed, epoch, index, _CLIP) if self.train else None

        def choose(length: int) -> np.ndarray:
            start = None
            if generator is not None:
                latest = last_start(length, self.frames, self.stride)
                start = int(torch.randint(latest + 1, (), generator=generator))
            return frame_indices(length, self.frames, self.stride, start)

        return choose, generator
