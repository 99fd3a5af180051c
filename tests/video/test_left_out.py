"""Clips of every so many frames leave out those to which no other refers: the pictures and the errors are the same."""

import itertools
import re
from collections import Counter

import av
import numpy as np
import pytest
from media import packets_of

from adatosk.video import VideoError, decode_all
from adatosk.video.reading import open_stream, read_frames

COUNT = 72
# How x264 orders and refers to frames.
STRUCTURES = {
    "pyramid": "bframes=3:b-adapt=0:b-pyramid=normal:weightp=2:ref=4:keyint=48",
    "flat": "bframes=8:b-adapt=0:b-pyramid=none:keyint=48",
    "deep": "bframes=16:b-adapt=0:b-pyramid=normal:ref=8:direct=temporal:weightb=1:keyint=250",
    "strict": "bframes=5:b-adapt=0:b-pyramid=strict:ref=16:keyint=24:slices=3",
    "open": "bframes=4:b-adapt=0:open-gop=1:keyint=12:scenecut=0",
    "refresh": "bframes=3:b-adapt=0:intra-refresh=1:keyint=24",
    "none": "bframes=0:ref=3:keyint=24",
}


def write(path, structure):
    """A texture that pans and turns brighter, so that frames refer to each other."""
    texture = np.random.default_rng(0).integers(0, 200, (64, 160, 3), dtype=np.uint8)
    with av.open(str(path), "w") as container:
        options = {"preset": "medium", "crf": "24", "x264-params": f"threads=1:{STRUCTURES[structure]}"}
        stream = container.add_stream("libx264", rate=25, options=options)
        stream.width, stream.height, stream.pix_fmt = 80, 64, "yuv420p"
        for number in range(COUNT):
            image = texture[:, number : number + 80] + np.uint8(number // 2)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(image), format="rgb24")))
        container.mux(stream.encode(None))
    return path


def reference(path):
    """All frames as PyAV alone decodes them."""
    with av.open(str(path)) as container:
        return np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])


@pytest.mark.parametrize("name", ["a.mp4", "a.ts"])
@pytest.mark.parametrize("structure", STRUCTURES)
def test_frames_are_those_of_decoding_everything(tmp_path, structure, name):
    path = write(tmp_path / name, structure)
    whole = reference(path)
    assert len(whole) == COUNT
    assert np.array_equal(decode_all(path), whole)
    for stride, start in itertools.product((2, 3, 4, 7, 30), (0, 1, 5)):
        wanted = np.arange(start, COUNT, stride)
        assert np.array_equal(read_frames(path, lambda _, wanted=wanted: wanted), whole[wanted])
    for seed in range(8):
        wanted = np.sort(np.random.default_rng(seed).choice(COUNT, 6, replace=False))
        images = [image.copy() for image in open_stream(path).images(wanted.tolist())]
        assert np.array_equal(images, whole[wanted])


@pytest.mark.parametrize("structure", ["pyramid", "deep", "open"])
def test_damage_that_decoding_everything_tells_is_told_or_in_none_of_the_frames_asked_for(tmp_path, structure):
    path, wanted = write(tmp_path / "a.mp4", structure), np.arange(1, COUNT, 4)
    data, fine = path.read_bytes(), reference(path)[wanted]
    counts = Counter()
    for packet in packets_of(path)[1:]:
        damaged = bytearray(data)
        for place in range(packet.pos + packet.size // 4, packet.pos + packet.size):
            damaged[place] ^= 0x5A
        path.write_bytes(damaged)
        whole, found = pictures(path, range(COUNT)), pictures(path, wanted)
        counts[whole is None, found is None] += 1
        if found is not None:
            assert np.array_equal(found, fine if whole is None else whole[wanted])
    # Some damage is told by both, some only by decoding everything, and none only when frames are left out.
    assert counts[True, True] > 0
    assert counts[True, False] > 0
    assert counts[False, True] == 0


@pytest.mark.parametrize("structure", ["pyramid", "none"])
def test_a_wrong_bit_in_the_head_of_a_reference_is_no_reason_to_leave_it_out(tmp_path, structure):
    """Whether others refer to it, its number and its place in the order stand in these bytes."""
    path = write(tmp_path / "a.mp4", structure)
    data, fine, told = path.read_bytes(), reference(path), 0
    for packet, (place, bit) in itertools.product(packets_of(path)[1:12], ((0, 6), (1, 0), (1, 4))):
        damaged = bytearray(data)
        damaged[packet.pos + 4 + place] ^= 1 << bit
        path.write_bytes(damaged)
        if pictures(path, range(COUNT)) is None:
            told += 1
            for wanted in (np.arange(1, COUNT, 4), [16, 19, 25]):
                found = pictures(path, wanted)
                assert found is None or np.array_equal(found, fine[wanted])
    assert told > 0


def pictures(path, wanted):
    """The frames with these numbers; ``None`` if damage is told."""
    try:
        return read_frames(path, lambda _: np.array(wanted))
    except VideoError as error:
        assert re.search(r"a\.mp4: (damaged|cut short)", str(error))
        return None
