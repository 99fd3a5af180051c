"""Every frame carries its number as a barcode: whatever the format, the frames asked for are the frames that come."""

import itertools
import struct
import subprocess
import sys
from pathlib import Path

import av
import numpy as np
import pandas as pd
import pytest
from media import moving_frames, truncate, write_frames

from adatosk.manifests import Manifest
from adatosk.video import HAS_DECORD, VideoError, count_frames, decode_all, frame_indices, read_clip

WIDTH, HEIGHT, BITS = 80, 48, 10
X264 = {"preset": "ultrafast", "crf": "16", "threads": "1"}
X265 = {"preset": "ultrafast", "crf": "18"}
# Name: codec, keyframe every so many frames, B-frames, options, and whether decord is proven right for it.
FORMATS = {
    "closed.mp4": ("libx264", 30, 0, X264, True),
    "b.mkv": ("libx264", 30, 2, X264, True),
    "b.mov": ("libx264", 12, 2, X264, True),
    "open.mp4": ("libx264", 12, 3, X264 | {"x264-params": "open-gop=1:scenecut=0"}, False),
    "refresh.mp4": ("libx264", 30, 0, X264 | {"x264-params": "intra-refresh=1"}, False),
    "h264.avi": ("libx264", 30, 0, X264, False),
    "b.ts": ("libx264", 12, 2, X264, False),
    "b.flv": ("libx264", 12, 2, X264, False),
    "b.h264": ("libx264", 12, 2, X264, False),
    "x265.mp4": ("libx265", 30, 3, X265 | {"x265-params": "log-level=error:open-gop=1:scenecut=0"}, False),
    "closed.mkv": ("libx265", 30, 3, X265 | {"x265-params": "log-level=error:open-gop=0"}, True),
    "b.avi": ("mpeg4", 30, 2, {}, False),
    "b.mp4": ("mpeg4", 30, 2, {}, False),
    "mpeg2.mpg": ("mpeg2video", 12, 2, {}, False),
    "mpeg1.mpg": ("mpeg1video", 12, 2, {}, False),
    "a.wmv": ("wmv2", 30, 0, {}, False),
    "vp8.webm": ("libvpx", 30, 0, {"deadline": "realtime", "cpu-used": "8"}, True),
    "vp9.webm": ("libvpx-vp9", 30, 0, {"deadline": "realtime", "cpu-used": "8"}, True),
    "a.flv": ("flv", 12, 0, {}, True),
    "mjpeg.avi": ("mjpeg", 1, 0, {}, True),
}
NUMBER = 100


def barcodes(count: int = NUMBER) -> np.ndarray:
    frames = np.full((count, HEIGHT, WIDTH, 3), 110, np.uint8)
    for number, bit in itertools.product(range(count), range(BITS)):
        frames[number, HEIGHT // 3 : 2 * HEIGHT // 3, bit * 8 : bit * 8 + 8] = 235 if number >> bit & 1 else 20
    return frames


def numbers(frames: np.ndarray) -> list[int]:
    rows = frames[:, HEIGHT // 2 - 3 : HEIGHT // 2 + 3].mean((1, 3))  # (N, WIDTH)
    bits = rows.reshape(len(frames), BITS, 8)[..., 2:6].mean(-1) > 128
    return (bits << np.arange(BITS)).sum(1).tolist()


def write(path: Path, codec: str, gop: int = 12, b_frames: int = 0, options=(), count: int = NUMBER, **mux) -> Path:
    try:
        encoder = av.codec.Codec(codec, "w")
    except av.codec.codec.UnknownCodecError:
        pytest.skip(f"this build of PyAV has no encoder {codec}")
    with av.open(str(path), "w", **mux) as container:
        stream = container.add_stream(encoder.name, rate=25, options=dict(options))
        stream.width, stream.height = WIDTH, HEIGHT
        stream.pix_fmt = "yuvj420p" if codec == "mjpeg" else "yuv420p"
        stream.gop_size, stream.max_b_frames, stream.bit_rate = gop, b_frames, 2_000_000
        for image in barcodes(count):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode(None))
    return path


@pytest.mark.parametrize("name", FORMATS)
def test_the_frames_asked_for_are_the_frames_that_come(tmp_path, name, monkeypatch):
    *how, proven = FORMATS[name]
    path = write(tmp_path / name, *how)
    assert count_frames(path) == NUMBER
    whole = decode_all(path)
    assert numbers(whole) == list(range(NUMBER))
    for start in (None, 0, 3, 17, 39):
        wanted = frame_indices(NUMBER, 16, 4, start)
        assert np.array_equal(read_clip(path, start=start), whole[wanted])
    assert numbers(read_clip(path, 4, 33)) == [0, 33, 66, 99]
    monkeypatch.setenv("ADATOSK_DECODER", "decord")
    if HAS_DECORD and proven:
        assert np.array_equal(read_clip(path, start=17), whole[frame_indices(NUMBER, start=17)])
    elif HAS_DECORD:
        with pytest.raises(VideoError, match=f"{name}: decord is not proven right for this file"):
            read_clip(path)
    assert numbers(read_clip(path, 1, 1, 5, decoder="pyav")) == [5]


def test_a_decoder_that_is_none_is_refused(tmp_path, monkeypatch):
    path = write(tmp_path / "a.mp4", "libx264", options=X264, count=3)
    with pytest.raises(ValueError, match="decoder 'opencv': choose one of auto, decord, pyav"):
        read_clip(path, decoder="opencv")
    monkeypatch.setenv("ADATOSK_DECODER", "vlc")
    with pytest.raises(ValueError, match="decoder 'vlc'"):
        decode_all(path)


def test_a_late_frame_of_a_long_file_is_found_by_a_seek(tmp_path):
    for name in ("long.mp4", "long.ts"):
        path = write(tmp_path / name, "libx264", 25, 2, X264, count=700)
        for start in (380, 639):
            assert numbers(read_clip(path, start=start)) == frame_indices(700, start=start).tolist()


def test_a_file_that_begins_inside_a_group_begins_at_its_first_keyframe(tmp_path):
    path = write(tmp_path / "a.ts", "mpeg2video", 12, 0)
    with av.open(str(path)) as container:
        place = next(packet.pos for count, packet in enumerate(container.demux(video=0)) if count == 5)
    path.write_bytes(path.read_bytes()[place // 188 * 188 :])
    found = numbers(decode_all(path))
    assert found == list(range(12, NUMBER)) and count_frames(path) == len(found)


def test_an_edit_list_may_start_behind_a_keyframe(tmp_path):
    path = write(tmp_path / "a.mp4", "libx264", 25, 0, X264)
    data = bytearray(path.read_bytes())
    place = data.index(b"elst") + 12
    seconds, start = struct.unpack(">Ii", data[place : place + 8])
    data[place : place + 8] = struct.pack(">Ii", seconds - 1600, start + 40 * 512)
    path.write_bytes(data)
    assert numbers(decode_all(path)) == list(range(40, NUMBER))
    assert numbers(read_clip(path, 2, 10, start=7)) == [47, 57]
    # Behind the end of what is there, it is cut all the same.
    path.write_bytes(truncate(path, 0.9).read_bytes())
    with pytest.raises(VideoError):
        count_frames(path)


def test_null_frames_of_an_avi_are_no_damage(tmp_path):
    path = write(tmp_path / "a.avi", "mpeg4", 12)
    data = bytearray(path.read_bytes())
    # In the index and before the bytes: the last five frames of a group take none; what they had is padding.
    index = data.rindex(b"idx1")
    for number in range(7, 12):
        entry = index + 8 + 16 * number
        place, size = struct.unpack("<II", data[entry + 8 : entry + 16])
        chunk = data.index(b"movi") + place
        assert data[chunk : chunk + 4] == b"00dc"
        padding = struct.pack("<4sI", b"JUNK", size + size % 2 - 8)
        data[chunk + 4 : chunk + 16] = bytes(4) + padding
        data[entry + 12 : entry + 16] = bytes(4)
    path.write_bytes(data)
    expected = [*range(7), *range(12, NUMBER)]
    assert numbers(decode_all(path)) == expected
    assert count_frames(path) == len(expected)
    with pytest.raises(VideoError, match="cut short"):
        count_frames(truncate(path, 0.6))


TURNS = [
    (a, b, c, d)
    for a, b, c, d in itertools.product((-1, 0, 1), repeat=4)
    if abs(a) + abs(b) == 1 == abs(c) + abs(d) and abs(a) == abs(d)
]


@pytest.mark.parametrize("name", ["a.mp4", "a.mov", "a.mkv", "a.3gp"])
@pytest.mark.parametrize("turn", TURNS, ids=str)
def test_pictures_stand_as_their_display_matrix_says(tmp_path, name, turn):
    """A point (x, y) is shown at (ax + cy, bx + dy), moved so that no coordinate is negative."""
    a, b, c, d = turn
    frame = moving_frames(1, 32, 48)
    path = tmp_path / name
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25, options=X264)
        stream.width, stream.height, stream.pix_fmt = 48, 32, "yuv444p"
        one = 1 << 16
        stream.set_display_matrix([a * one, b * one, 0, c * one, d * one, 0, 0, 0, 1 << 30])
        container.mux(stream.encode(av.VideoFrame.from_ndarray(frame[0], format="rgb24")))
        container.mux(stream.encode(None))
    with av.open(str(path)) as container:
        stored = next(container.decode(video=0)).to_ndarray(format="rgb24")
    expected = np.zeros((32, 48, 3) if a else (48, 32, 3), np.uint8)
    for y, x in np.ndindex(32, 48):
        right, down = a * x + c * y, b * x + d * y
        expected[down + (expected.shape[0] - 1) * (b + d < 0), right + (expected.shape[1] - 1) * (a + c < 0)] = stored[
            y, x
        ]
    assert np.array_equal(decode_all(path)[0], expected)
    assert read_clip(path, 1, size=16).shape == (1, 16, 16, 3)


@pytest.mark.parametrize("share", [0.3, 0.6, 0.9])
@pytest.mark.parametrize("name", ["a.wmv", "mpeg2.mpg", "mpeg1.mpg", "b.ts", "b.h264", "a.flv", "b.flv", "b.mkv"])
def test_a_cut_file_is_told(tmp_path, name, share):
    path = write(tmp_path / name, *FORMATS[name][:4])
    data = path.read_bytes()
    # An odd number of bytes: exactly between two of a stream's packets nothing tells.
    path.write_bytes(data[: int(len(data) * share) | 1])
    for read in (count_frames, decode_all, read_clip):
        with pytest.raises(VideoError, match=r"cut short|damaged"):
            read(path)


@pytest.mark.parametrize("kind", ["lost", "zeros"])
@pytest.mark.parametrize("name", ["a.wmv", "mpeg2.mpg", "b.ts", "a.flv", "b.flv", "b.mkv", "vp8.webm", "closed.mp4"])
def test_a_hole_is_told(tmp_path, name, kind):
    path = write(tmp_path / name, *FORMATS[name][:4])
    data = path.read_bytes()
    place, size = len(data) // 2, 2000
    path.write_bytes(data[:place] + bytes(size * (kind == "zeros")) + data[place + size :])
    for read in (count_frames, decode_all) if kind == "lost" else (decode_all,):
        with pytest.raises(VideoError, match=r"cut short|damaged|not a video that can be read"):
            read(path)


def test_a_check_tells_damage_that_decoders_conceal(tmp_path):
    write(tmp_path / "fine.mp4", "libx264", 12, 0, X264)
    data = bytearray(write(tmp_path / "flipped.mp4", "libx264", 25, 0, X264).read_bytes())
    with av.open(str(tmp_path / "flipped.mp4")) as container:
        packet = [packet for packet in container.demux(video=0) if packet.size][50]  # a keyframe
    for place in range(packet.pos + packet.size // 2, packet.pos + packet.size // 2 + 16):
        data[place] ^= 0x5A
    (tmp_path / "flipped.mp4").write_bytes(data)
    folder = write_frames(tmp_path / "hole", moving_frames(9, 96, 96), ".jpg")
    image = (folder / "5.jpg").read_bytes()
    (folder / "5.jpg").write_bytes(image[: len(image) // 2] + bytes(200) + image[len(image) // 2 + 200 :])
    write(tmp_path / "cut.mpg", "mpeg2video", 12, 0)
    truncate(tmp_path / "cut.mpg", 0.6)
    (write_frames(tmp_path / "mixed", moving_frames(3, 24, 24), ".jpg") / "4.webp").touch()
    names = ["fine.mp4", "flipped.mp4", "hole", "cut.mpg", "mixed"]
    clips = pd.DataFrame({"id": names, "path": names, "label": "happy", "split": "train"})
    report = Manifest("own", "1", ("happy",), clips).check(tmp_path, progress=False)
    assert report.table["problem"].eq("").tolist() == [True, False, False, False, False]
    assert report.kinds.to_dict() == {"damaged": 1, "unreadable frame": 1, "cut short": 1, "mixed frames": 1}


MEMORY = """
import resource, sys
from adatosk.video import decode_all, read_clip
from adatosk.video.reading import decode_whole
decode_all(sys.argv[1], 24)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
decode_all(sys.argv[2], 112), decode_whole(sys.argv[2])
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024, "torch" in sys.modules)
"""


def test_large_frames_are_held_one_at_a_time_and_without_torch(tmp_path):
    small = write(tmp_path / "small.mp4", "libx264", options=X264, count=3)
    with av.open(str(tmp_path / "large.mp4"), "w") as container:
        stream = container.add_stream("libx264", rate=25, options=X264 | {"x264-params": "ref=1"})
        stream.width, stream.height, stream.pix_fmt = 2048, 2048, "yuv420p"
        image = av.VideoFrame(2048, 2048, "yuv420p")
        for plane in image.planes:
            plane.update(bytes(plane.buffer_size))
        for _ in range(24):
            container.mux(stream.encode(image))
        container.mux(stream.encode(None))
    arguments = [sys.executable, "-c", MEMORY, str(small), str(tmp_path / "large.mp4")]
    said = subprocess.run(arguments, capture_output=True, text=True, check=True).stdout.split()
    assert int(said[0]) < 120  # all 24 at once take 302 MB
    assert said[1] == "False"
