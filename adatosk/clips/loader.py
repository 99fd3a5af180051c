"""From a data set of clips to batches: order, processes, pieces, and frames that a GPU holds."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from itertools import islice
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Sampler

from adatosk.clips.batches import joined, together
from adatosk.clips.cache_files import ClipCache
from adatosk.clips.dataset import ORDER, ClipDataset
from adatosk.utils import seeds
from adatosk.utils.parallel import available_cores

# Up to this size, a cached clip is ready sooner than another process could send it.
SMALL_IMAGE = 64

# Pieces of batches that each process loads in advance.
AHEAD = 2

# Clips of a piece at least, so that sending it takes little time beside loading it.
SMALLEST_PIECE = 4

# Of a GPU's free memory, what decoded clips may take: several runs may share it, each with its own.
HELD_SHARE = 1 / 16


class PieceSampler(Sampler[list[tuple[int, int]]]):
    """(epoch, index) of every clip, piece by piece, in an order drawn from seed and epoch, or in the manifest's.

    The epoch is sent with each index, because persistent workers hold copies of the data set, which ``set_epoch`` does
    not reach. accelerate gives the pieces to the processes of a run in turn; so those of one process's batch are that
    far apart.

    Attributes:
        batch_size: clips of a piece, under the name that accelerate looks for.
        drop_last: whether clips that fill no batch of every process are left out, as in training.
    """

    def __init__(
        self, dataset: ClipDataset, batch: int, piece: int, shuffle: bool, seed: int, processes: int = 1
    ) -> None:
        self.dataset, self.batch, self.batch_size = dataset, batch, piece
        self.shuffle, self.seed, self.processes = shuffle, seed, processes
        self.drop_last = dataset.train

    def __len__(self) -> int:
        return self._count() // self.batch_size if self.drop_last else -(-len(self.dataset) // self.batch_size)

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        epoch, count = self.dataset.epoch, len(self.dataset)
        order = range(count)
        if self.shuffle:
            order = torch.randperm(count, generator=seeds.generator(self.seed, epoch, 0, ORDER)).tolist()
        together = self.batch * (self.processes if self.drop_last else 1)
        for group in range(0, self._count() if self.drop_last else count, together):
            for first in range(0, self.batch, self.batch_size):
                for start in range(group + first, min(group + together, count), self.batch):
                    end = min(start + self.batch_size, count)
                    yield [(epoch, index) for index in order[start:end]]

    def _count(self) -> int:
        together = self.batch * self.processes
        return len(self.dataset) // together * together


class Batches:
    """The batches of a loader that gives pieces of them.

    One process that loads a whole batch would leave training to wait for all of its clips one after another, at the
    start of every epoch.

    Attributes:
        loader: gives the pieces; accelerate may replace it.
        pieces: number of pieces of a whole batch.
        held: decoded frames on the model's device, from which those of clips left in place are taken.
    """

    def __init__(self, loader: DataLoader, pieces: int, device: torch.device, held: Tensor | None = None) -> None:
        self.loader, self.pieces, self.device, self.held = loader, pieces, device, held

    @property
    def dataset(self) -> Any:
        """The clips, as the loader's processes see them."""
        return self.loader.dataset

    def set_epoch(self, epoch: int) -> None:
        """Select the draws of an epoch; accelerate's loader has a count of its own, which this sets, too."""
        select = getattr(self.loader, "set_epoch", self.dataset.set_epoch)
        select(epoch)

    def __len__(self) -> int:
        return -(-len(self.loader) // self.pieces)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        loaded = iter(self.loader)
        while pieces := list(islice(loaded, self.pieces)):
            batch = joined(pieces, self.device)
            if self.held is not None:
                batch = batch | {"frames": self.held[batch.pop("places").to(self.device)]}
            yield batch


def make_loader(
    dataset: ClipDataset,
    batch_size: int,
    workers: int | None = None,
    shuffle: bool = False,
    seed: int = 0,
    epoch: int = 0,
    device: torch.device | str = "cpu",
    processes: int = 1,
    held: bool | None = None,
) -> Batches:
    """Batches of ``dataset``, for :func:`adatosk.clips.batches.model_pixels`.

    Call its ``set_epoch`` before each epoch for a new order and new draws.

    Args:
        workers: loader processes, which do not affect the batches; by default none for small cached clips, otherwise
            one per core.
        shuffle: draw the order from ``seed`` and the epoch. A training set's last, smaller batch is dropped.
        epoch: the first epoch.
        device: where the model is: for a GPU, clips are left uncut, see :class:`ClipDataset`, and in pinned memory.
        processes: of the run, to which accelerate gives the batches in turn.
        held: copy all frames of the data set's cache to the device, so that nothing else is read; by default on a GPU
            with room for them (:func:`has_room`). ``ValueError`` without a cache.
    """
    dataset.set_epoch(epoch)
    device, cache = torch.device(device), dataset.cache
    if held is None:
        held = cache is not None and has_room(cache, device)
    if workers is None:
        small = cache is not None and dataset.image_size <= SMALL_IMAGE
        workers = 0 if small or held else available_cores()
    gpu, frames = device.type == "cuda", None
    if held:
        dataset = dataset.left_in_place()
        frames = dataset.cache.held(device) if dataset.cache else None
    elif gpu:
        # A piece is copied to pinned memory before the loader asks its process for the one AHEAD of it.
        dataset = dataset.left_uncut(turns=AHEAD + 1)
    # In evaluation, accelerate needs whole batches to tell which clips it has repeated.
    piece = batch_size if processes > 1 and not dataset.train else piece_of(batch_size, workers)
    loader = DataLoader(
        dataset,
        batch_sampler=PieceSampler(dataset, batch_size, piece, shuffle, seed, processes),
        num_workers=workers,
        collate_fn=together,
        worker_init_fn=leave_quietly,
        pin_memory=gpu,
        prefetch_factor=AHEAD if workers else None,
        persistent_workers=workers > 0,
    )
    return Batches(loader, batch_size // piece, device, frames)


def leave_quietly(number: int) -> None:
    """Print no traceback in this loader process if whoever takes its batches ends, as after another one was killed."""
    others = sys.excepthook

    def hook(kind: type[BaseException], *rest: Any) -> None:
        if not issubclass(kind, ConnectionError):
            others(kind, *rest)

    sys.excepthook = hook


def piece_of(batch: int, workers: int) -> int:
    """Clips of a batch that one loader process loads: a divisor of ``batch``, and about each one's share of it."""
    share = max(batch // max(workers, 1), min(SMALLEST_PIECE, batch))
    return next(size for size in range(share, 0, -1) if batch % size == 0)


def has_room(cache: ClipCache, device: torch.device) -> bool:
    """Whether a GPU has room for all frames of a cache besides what training takes; False for a CPU."""
    return device.type == "cuda" and cache.bytes <= HELD_SHARE * torch.cuda.mem_get_info(device)[0]
