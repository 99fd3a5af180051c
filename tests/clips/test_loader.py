"""Batches whose pieces several processes load, and frames that a GPU holds: the same clips in the same order."""

import sys

import pandas as pd
import pytest
import torch
from accelerate.data_loader import BatchSamplerShard
from clip_sources import dataset, make_source, quiet
from torch.utils.data import BatchSampler

from adatosk.clips import ClipDataset, make_loader, model_pixels
from adatosk.clips.batches import joined, together
from adatosk.clips.cache import CacheError, open_cache
from adatosk.clips.loader import HELD_SHARE, PieceSampler, has_room, leave_quietly, piece_of
from adatosk.config import DataConfig


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    return make_source(tmp_path_factory.mktemp("source"))


@pytest.fixture(scope="module")
def cache(source, tmp_path_factory):
    return open_cache(source[1], source[0], 28, tmp_path_factory.mktemp("cache"), report=quiet)


def many(source, cache, train):
    """The six training clips four times."""
    root, manifest = source
    clips = pd.concat([manifest.subset("train")] * 4, ignore_index=True)
    return ClipDataset(clips, root, manifest.classes, 8, 24, DataConfig(manifest="own.csv"), train, 0, cache)


@pytest.mark.parametrize("train", [True, False])
def test_batches_from_pieces_or_from_held_frames_are_those_of_one_process(source, cache, train):
    ways = [{"workers": 0}, {"workers": 2}, {"workers": 0, "held": True}]
    loaders = [make_loader(many(source, cache, train), 10, shuffle=train, seed=7, epoch=2, **way) for way in ways]
    assert [loader.pieces for loader in loaders] == [1, 2, 1]
    whole, pieces, held = (list(loader) for loader in loaders)
    assert [len(loader) for loader in loaders] == [len(whole)] * 3 == [2 if train else 3] * 3
    assert len(pieces) == len(held) == len(whole) and len(whole[-1]["index"]) == (10 if train else 4)
    for one, *others in zip(whole, pieces, held, strict=True):
        for other in others:
            assert all(torch.equal(one[name], other[name]) for name in ("label", "index"))
            assert torch.equal(model_pixels(one, 24, "cpu"), model_pixels(other, 24, "cpu"))


@pytest.mark.parametrize("processes", [1, 2, 3])
def test_each_process_of_a_run_gets_whole_batches_as_if_there_were_no_pieces(source, cache, processes):
    clips = many(source, cache, train=True)
    clips.set_epoch(1)
    sizes = {"batch": 4, "shuffle": True, "seed": 3, "processes": processes}
    order = [key for piece in PieceSampler(clips, piece=4, **sizes | {"processes": 1}) for key in piece]
    plain = BatchSampler(order, 4, drop_last=True)
    for process in range(processes):
        shards = (BatchSamplerShard(PieceSampler(clips, piece=piece, **sizes), processes, process) for piece in (2, 4))
        halves, batches = map(list, shards)
        expected = list(BatchSamplerShard(plain, processes, process))
        assert batches == expected and len(batches) == 24 // 4 // processes
        assert [one + other for one, other in zip(halves[::2], halves[1::2], strict=True)] == expected


def test_a_piece_is_a_processs_share_and_not_tiny():
    found = {(batch, workers): piece_of(batch, workers) for batch, workers in ((128, 16), (32, 0), (16, 16), (2, 2))}
    assert found == {(128, 16): 8, (32, 0): 32, (16, 16): 4, (2, 2): 2}
    assert piece_of(100, 16) == 5 and piece_of(7, 2) == 1  # a divisor


def test_joined_pieces_are_padded_like_a_whole_batch(source):
    clips = dataset(source, image_size=32).left_uncut()
    frames = [together(clips.__getitems__([(0, index), (0, index + 1)])) for index in (0, 2)]
    frames[0]["frames"] = frames[0]["frames"][:, :, :30].contiguous()
    whole = joined(frames)
    assert whole["frames"].shape == (4, 8, 40, 50, 3) and not whole["frames"][:2, :, 30:].any()
    assert torch.equal(whole["frames"][2:], frames[1]["frames"]) and whole["index"].tolist() == [0, 1, 2, 3]
    assert joined(frames[:1]) is frames[0]


def test_frames_are_held_only_where_there_is_room(source, cache, monkeypatch):
    assert not has_room(cache, torch.device("cpu"))
    for free, expected in ((cache.bytes / HELD_SHARE, True), (cache.bytes / HELD_SHARE - 16, False)):
        monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device, free=free: (free, 0))
        assert has_room(cache, torch.device("cuda")) == expected
    assert cache.held("cpu") is cache.held(torch.device("cpu"))  # copied once
    with pytest.raises(ValueError, match=r"decoded each time have no place: set data\.cache_size"):
        make_loader(dataset(source), 2, workers=0, held=True)


def test_damage_is_found_before_frames_are_held(source, tmp_path):
    cache = open_cache(source[1], source[0], 16, tmp_path, report=quiet)
    with (cache.folder / "frames.bin").open("r+b") as file:
        file.seek(16 * 16 * 3 * 3 + 5)
        before = file.read(1)
        file.seek(-1, 1)
        file.write(bytes([before[0] ^ 1]))
    with pytest.raises(CacheError, match=r"frame 3 of clip 'clip0' is damaged"):
        cache.held("cpu")


def test_a_loader_process_prints_no_traceback_of_a_connection_that_ended(monkeypatch):
    said = []
    monkeypatch.setattr(sys, "excepthook", lambda kind, *rest: said.append(kind))
    leave_quietly(0)
    for error in (BrokenPipeError(), ConnectionResetError(), ValueError()):
        sys.excepthook(type(error), error, None)
    assert said == [ValueError]
