"""Frames from the middle of a file are those of decoding everything, whatever the file says of where one may begin."""

import itertools
from contextlib import suppress

import av
import cv2
import numpy as np
import pytest
from barcodes import X264, write
from media import moving_frames, packets_of, write_video

from adatosk.video import VideoError, decode_all
from adatosk.video import frames as reader
from adatosk.video.files import inspect
from adatosk.video.reading import read_frames

# PyAV has no name for the kind of side data that says how to decode from here on.
NEW_EXTRADATA = 1


def segment(path, offset: int, seed: int):
    """Open groups, whose keyframes have no parameter sets of their own; ``offset`` is in that of the pictures."""
    options = X264 | {"x264-params": f"keyint=6:min-keyint=6:open-gop=1:scenecut=0:bframes=2:chroma-qp-offset={offset}"}
    frames = moving_frames(20, 48, 64, seed)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25, options=options | {"preset": "veryfast"})
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode(None))
    return path


def parameter_sets(extradata: bytes) -> bytes:
    """What an MP4 keeps in its head, as units of a packet: one set of the sequence and one of the pictures."""
    long = int.from_bytes(extradata[6:8], "big")
    picture = extradata[11 + long :]
    picture = picture[: int.from_bytes(extradata[9 + long : 11 + long], "big")]
    return b"".join(len(unit).to_bytes(4, "big") + unit for unit in (extradata[8 : 8 + long], picture))


def join(path, parts, inside: bool):
    """One file of two: the second's parameter sets in its first packet, or beside it, for the container to keep."""
    with av.open(str(path), "w") as written:
        stream, shift = None, 0
        for part in parts:
            with av.open(str(part)) as read:
                video = read.streams.video[0]
                stream = stream or written.add_stream_from_template(video)
                extradata = bytes(video.codec_context.extradata)
                for number, packet in enumerate(one for one in read.demux(video) if one.size):
                    new = shift and not number
                    one = av.Packet((parameter_sets(extradata) if new and inside else b"") + bytes(packet))
                    one.pts, one.dts, one.time_base = packet.pts + shift, packet.dts + shift, packet.time_base
                    one.duration, one.is_keyframe, one.stream = packet.duration, packet.is_keyframe, stream
                    if new and not inside:
                        beside = av.packet.PacketSideData(NEW_EXTRADATA, len(extradata))
                        beside.update(extradata)
                        one.set_sidedata(beside)
                    written.mux(one)
                shift += int(video.duration)
    return path


def check(path, expected, monkeypatch):
    """Single frames and clips, of a file whose frames are held while they are counted, and of one too large for it."""
    assert np.array_equal(decode_all(path), expected)
    for size in (reader.HELD_BYTES, 0):
        monkeypatch.setattr(reader, "HELD_BYTES", size)
        for wanted in ([25], [31, 33, 37], [2, 38], [len(expected) - 1], list(range(1, len(expected), 4))):
            assert np.array_equal(read_frames(path, lambda _, wanted=wanted: np.array(wanted)), expected[wanted])


@pytest.mark.parametrize(("name", "inside"), [("a.mp4", True), ("a.mkv", True), ("a.mp4", False), ("a.flv", False)])
def test_a_keyframe_behind_a_change_of_parameter_sets_is_decoded_with_the_new_ones(tmp_path, name, inside, monkeypatch):
    parts = [segment(tmp_path / "first.mp4", 0, 0), segment(tmp_path / "second.mp4", 12, 1)]
    path = join(tmp_path / name, parts, inside)
    check(path, np.concatenate([decode_all(part) for part in parts]), monkeypatch)


@pytest.mark.parametrize(("name", "codec"), [("a.flv", "flv"), ("a.mp4", "mpeg4"), ("a.mp4", "libx265")])
def test_a_frame_that_is_falsely_called_a_keyframe_is_no_place_to_begin(tmp_path, name, codec, monkeypatch):
    source = write_video(tmp_path / f"whole_{name}", moving_frames(40, 48, 64), codec=codec, gop=200)
    with av.open(str(source)) as read, av.open(str(tmp_path / name), "w") as written:
        stream = written.add_stream_from_template(read.streams.video[0])
        for number, packet in enumerate(packet for packet in read.demux(video=0) if packet.size):
            packet.is_keyframe |= number in (10, 22, 30)
            packet.stream = stream
            written.mux(packet)
    assert sum(inspect(tmp_path / name).packets.keys) == 4
    check(tmp_path / name, decode_all(source), monkeypatch)


def test_damage_of_sorenson_video_that_decoding_everything_tells_is_told(tmp_path):
    """FFmpeg tells some of it only after frames that have shown how this encoder ends them."""
    texture = cv2.GaussianBlur(np.random.default_rng(0).integers(0, 256, (48, 96, 3), dtype=np.uint8), (0, 0), 1)
    path = write_video(tmp_path / "a.flv", np.stack([texture[:, n : n + 64] for n in range(20)]), codec="flv")
    data, fine, told = path.read_bytes(), decode_all(path), 0
    packets = packets_of(path)
    for packet, share in itertools.product(packets[12:15], np.arange(0.03, 1, 0.05)):
        damaged = bytearray(data)
        damaged[data.index(bytes(packet)) + int(share * packet.size)] ^= 0x10
        path.write_bytes(damaged)
        try:
            decode_all(path)
        except VideoError:
            told += 1
            with suppress(VideoError):
                assert np.array_equal(read_frames(path, lambda _: np.array([16, 18])), fine[[16, 18]])
    assert told >= 5


def test_a_long_file_is_read_from_a_keyframe_near_by(tmp_path, monkeypatch):
    """Not all are decoded again, even where frames had to be decoded to be counted."""
    path = write(tmp_path / "a.ts", "mpeg2video", 12, 2, count=60)
    monkeypatch.setattr(reader, "HELD_BYTES", 0)
    places, decode = [], reader.decode
    monkeypatch.setattr(
        reader, "decode", lambda file, place, *a, **k: places.append(place) or decode(file, place, *a, **k)
    )
    read_frames(path, lambda _: np.array([50]))
    assert len(places) == 2 and places[1] > 40
