"""Every frame carries its number as a barcode: whatever the format, the frames asked for are the frames that come."""

import itertools
import struct
import subprocess
import sys

import av
import numpy as np
import pytest
from barcodes import FORMATS, NUMBER, X264, numbers, write
from media import moving_frames, truncate

from adatosk.video import HAS_DECORD, VideoError, count_frames, decode_all, frame_indices, read_clip


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


def test_a_video_of_a_kind_that_no_decoder_knows_is_told(tmp_path):
    path = write(tmp_path / "a.mpg", "mjpeg", count=3)  # a program stream has no number for it
    with pytest.raises(VideoError, match=r"a\.mpg: its video is of a kind that no decoder knows"):
        read_clip(path)


def test_a_decoder_that_is_none_is_refused(tmp_path, monkeypatch):
    path = write(tmp_path / "a.mp4", "libx264", options=X264, count=3)
    with pytest.raises(ValueError, match="decoder 'opencv': choose one of auto, decord, pyav"):
        read_clip(path, decoder="opencv")
    monkeypatch.setenv("ADATOSK_DECODER", "vlc")
    with pytest.raises(ValueError, match="decoder 'vlc'"):
        decode_all(path)


def test_decord_is_refused_where_it_has_frames_at_other_times(tmp_path):
    options = {"movflags": "dash+frag_every_frame+empty_moov"}
    path = write(tmp_path / "a.mp4", "libx264", 24, 2, X264, mux_options=options)
    assert numbers(read_clip(path, start=17)) == frame_indices(NUMBER, start=17).tolist()
    if HAS_DECORD:
        with pytest.raises(VideoError, match=r"a\.mp4: decord is not proven right .*at other times"):
            read_clip(path, start=17, decoder="decord")


def test_a_late_frame_of_a_long_file_is_found_by_a_seek(tmp_path):
    for name in ("long.mp4", "long.ts"):
        path = write(tmp_path / name, "libx264", 25, 2, X264, count=700)
        for start in (380, 639):
            assert numbers(read_clip(path, start=start)) == frame_indices(700, start=start).tolist()


def test_a_transport_stream_whose_clock_is_about_to_wrap_is_whole(tmp_path):
    for offset in ("95430", "95440", "95442"):  # its 33 bits of 1/90000 s wrap after 95443.7 s
        path = write(tmp_path / "a.ts", "libx264", 12, 2, X264, mux_options={"output_ts_offset": offset})
        assert numbers(decode_all(path)) == list(range(NUMBER))


def test_an_animated_avif_is_more_than_its_still_image(tmp_path):
    path = write(tmp_path / "a.avif", "libsvtav1", 30, 0, {"preset": "11", "crf": "20", "svtav1-params": "lp=1"})
    assert count_frames(path) == len(decode_all(path)) == NUMBER


def test_a_file_that_begins_inside_a_group_begins_at_its_first_keyframe(tmp_path):
    path = write(tmp_path / "a.ts", "mpeg2video", 12, 0)
    with av.open(str(path)) as container:
        place = next(packet.pos for count, packet in enumerate(container.demux(video=0)) if count == 5)
    path.write_bytes(path.read_bytes()[place // 188 * 188 :])
    found = numbers(decode_all(path))
    assert found == list(range(12, NUMBER)) and count_frames(path) == len(found)


def test_pictures_of_mpeg4_before_its_first_keyframe_may_be_missing(tmp_path):
    """Two of them stand behind it: they refer to a picture from before the cut."""
    source, path = write(tmp_path / "whole.avi", *FORMATS["b.avi"][:4]), tmp_path / "a.avi"
    with av.open(str(source)) as read, av.open(str(path), "w") as written:
        stream = written.add_stream_from_template(read.streams.video[0])
        packets = [packet for packet in read.demux(video=0) if packet.size]
        first = [number for number, packet in enumerate(packets) if packet.is_keyframe][1]
        for packet in packets[first:]:
            packet.stream = stream
            written.mux(packet)
    found = numbers(decode_all(path))
    assert len(found) == len(packets) - first - 2 == count_frames(path)
    assert found == list(range(found[0], NUMBER))


def test_a_sound_that_begins_late_changes_no_frame(tmp_path):
    path, count = write(tmp_path / "a.flv", "flv", 12, count=200), 200
    sound = bytes([8]) + (5).to_bytes(3, "big") + (7990).to_bytes(3, "big") + bytes(4) + b"\x32" + bytes(4)
    path.write_bytes(path.read_bytes() + sound + len(sound).to_bytes(4, "big"))
    with av.open(str(path)) as container:
        assert len(container.streams) == 1  # as far as FFmpeg looks when it opens the file
    assert numbers(decode_all(path)) == list(range(count)) and count_frames(path) == count


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv", "a.flv"])
@pytest.mark.parametrize("how", ["b.mov", "open.mp4"])
def test_times_in_the_order_of_decoding_are_not_believed(tmp_path, name, how):
    """What comes of an H.264 with B-frames when an AVI, which has no other times, is copied."""
    source = write(tmp_path / how, *FORMATS[how][:4])
    with av.open(str(source)) as read, av.open(str(tmp_path / name), "w") as written:
        stream = written.add_stream_from_template(read.streams.video[0])
        for number, packet in enumerate(packet for packet in read.demux(video=0) if packet.size):
            packet.pts = packet.dts = number * int(1 / (25 * packet.time_base))
            packet.stream = stream
            written.mux(packet)
    path = tmp_path / name
    assert numbers(decode_all(path)) == list(range(NUMBER)) and count_frames(path) == NUMBER
    for number in range(0, NUMBER, 11):
        assert numbers(read_clip(path, 1, start=number)) == [number]
    if HAS_DECORD:
        with pytest.raises(VideoError, match="decord is not proven right"):
            read_clip(path, decoder="decord")


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


# Linux's peak of this program alone: getrusage's begins with that of the process that started it.
MEMORY = """
import re, sys
from pathlib import Path
from adatosk.video import decode_all
from adatosk.video.reading import decode_whole
def peak():
    return int(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1]) >> 10
decode_all(sys.argv[1], 24)
before = peak()
decode_whole(sys.argv[2])
checked = peak()
decode_all(sys.argv[2], 112)
print(checked - before, peak() - before, "torch" in sys.modules)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="needs Linux's peak")
def test_large_frames_are_held_one_at_a_time_and_without_torch(tmp_path):
    """Also keyframes, whose side data PyAV leaves to the garbage collector, which does not run for so few."""
    small = write(tmp_path / "small.mp4", "libx264", options=X264, count=3)
    with av.open(str(tmp_path / "large.mp4"), "w") as container:
        stream = container.add_stream("libx264", rate=25, options=X264 | {"x264-params": "keyint=1"})
        stream.width, stream.height, stream.pix_fmt = 2048, 2048, "yuv420p"
        image = av.VideoFrame(2048, 2048, "yuv420p")
        for plane in image.planes:
            plane.update(bytes(plane.buffer_size))
        for number in range(24):
            image.pts = number
            container.mux(stream.encode(image))
        container.mux(stream.encode(None))
    arguments = [sys.executable, "-c", MEMORY, str(small), str(tmp_path / "large.mp4")]
    said = subprocess.run(arguments, capture_output=True, text=True, check=True).stdout.split()
    # The decoder's 2 pictures of 6 MB, and an image of 13; all 24 at once take 151 MB as pictures and 302 as images.
    assert int(said[0]) < 30
    assert int(said[1]) < 45
    assert said[2] == "False"
