"""Cut and damaged videos are told, whatever the format, as far as the file lets one know."""

import itertools
import re
from pathlib import Path

import av
import numpy as np
import pandas as pd
import pytest
from barcodes import FORMATS, HEIGHT, NUMBER, WIDTH, X264, X265, write
from media import moving_frames, packets_of, truncate, write_frames, write_video

from adatosk.manifests import Manifest
from adatosk.video import VideoError, count_frames, decode_all, read_clip
from adatosk.video.reading import decode_whole


def largest(sizes, count: int) -> list[int]:
    """Numbers of the packets with most of a picture, without the first, in which texts of the encoder may stand."""
    return (1 + np.argsort(sizes[1:])[-count:]).tolist()


AV1 = ("libsvtav1", 30, 0, {"preset": "11", "crf": "20", "svtav1-params": "lp=1"})
TOLD_ANYWHERE = ["a.wmv", "mpeg2.mpg", "mpeg1.mpg", "a.flv", "b.flv", "b.mkv", "raw.y4m", "a.mxf", "b.mp4"]


def tells(path: Path) -> bool:
    """Whether a cut file is refused; all ways to read it must agree."""
    said = []
    for read in (count_frames, decode_all, read_clip):
        try:
            read(path)
        except VideoError as error:
            said.append(str(error))
    assert len(said) in (0, 3)
    assert all(re.search(r"cut short|damaged|no frames|not a video that can be read", text) for text in said)
    return bool(said)


@pytest.mark.parametrize("name", TOLD_ANYWHERE)
def test_a_cut_file_is_told_wherever_it_is_cut(tmp_path, name):
    path = write(tmp_path / name, *FORMATS[name][:4])
    data = path.read_bytes()
    between = [packet.pos for packet in packets_of(path) if packet.pos]
    for place in [*(int(len(data) * share) for share in (0.3, 0.6, 0.9, 0.97)), *between[30::30], *between[-1:]]:
        path.write_bytes(data[:place])
        assert tells(path), place


@pytest.mark.parametrize("name", ["b.h264", "open.hevc", "slices.265", "av1.obu"])
def test_a_cut_picture_of_a_bare_stream_is_told(tmp_path, name):
    path = write(tmp_path / name, *FORMATS.get(name, AV1)[:4])
    data = path.read_bytes()
    sizes = [packet.size for packet in packets_of(path)]
    ends = np.cumsum(sizes)
    for number, share in itertools.product(largest(sizes, 6), (0.1, 0.3, 0.8)):
        path.write_bytes(data[: int(ends[number] - share * sizes[number])])
        assert tells(path)
    # Exactly between two pictures, it is a whole stream of fewer.
    path.write_bytes(data[: ends[39]])
    assert count_frames(path) == 40


BARE = {
    "a.mjpeg": ("mjpeg", 1),
    "a.m2v": ("mpeg2video", 12),
    "a.drc": ("vc2", 1, 0, {"strict": "experimental"}),
    "a.swf": ("flv", 12),
    "a.rm": ("rv10", 12),
}


@pytest.mark.parametrize("name", BARE)
def test_a_file_that_ends_in_the_head_of_a_picture_is_told(tmp_path, name):
    path = write(tmp_path / name, *BARE[name], count=8)
    data, packets = path.read_bytes(), packets_of(path)
    assert count_frames(path) == 8
    starts = [packet.pos for packet in packets] if name == "a.swf" else np.cumsum([0, *(p.size for p in packets)])
    starts = [len(data) - sum(p.size + 12 for p in packets[-2:])] if name == "a.rm" else starts[5:8]
    for start, more in itertools.product(starts, (2, 3) if name == "a.mjpeg" else (4, 11, 13)):
        path.write_bytes(data[: int(start) + more])
        assert tells(path), (start, more)


def test_a_fragment_of_which_only_the_length_is_there_is_told(tmp_path):
    options = {"movflags": "frag_keyframe+empty_moov"}
    path = write(tmp_path / "a.mp4", "libx264", 4, 0, X264, count=8, mux_options=options)
    data = path.read_bytes()
    path.write_bytes(data[: data.rindex(b"moof") + 2])
    assert tells(path)


@pytest.mark.parametrize(
    ("name", "codec", "b_frames", "start", "other"),
    [("a.mov", "cinepak", 0, 0, bytes(12)), ("a.avi", "mpeg4", 2, 5, b"I"), ("a.mp4", "mpeg4", 2, 5, b"I")],
)
def test_a_packet_that_gives_no_frame_is_told_where_each_has_to(tmp_path, name, codec, b_frames, start, other):
    """FFmpeg passes over what the decoder cannot read."""
    path = write(tmp_path / name, codec, 30, b_frames, count=20)
    data = bytearray(path.read_bytes())
    place = data.index(bytes(packets_of(path)[15])) + start
    data[place : place + len(other)] = other
    path.write_bytes(data)
    with av.open(str(path)) as container:
        assert len(list(container.decode(video=0))) < 20
    assert tells(path)


@pytest.mark.parametrize(
    ("name", "codec", "options"),
    [("a.mp4", "libx264", X264), ("b.mp4", "libx265", X265), ("a.webm", "libvpx-vp9", {}), ("a.mp4", *AV1[::3])],
)
def test_a_packet_that_no_longer_is_a_frame_is_told(tmp_path, name, codec, options):
    """FFmpeg passes over what it does not know, or is told not to show."""
    path = write(tmp_path / name, codec, 8, 3 * codec.startswith("libx"), options, count=20)
    data = path.read_bytes()
    for number in (1, 2, 3, 4, 12):
        packet = bytes(packets_of(path)[number])
        place = {"libx264": 4, "libx265": 4}.get(codec, 0)
        other = {"libvpx-vp9": packet[0] & ~2, "libsvtav1": 0x7A}.get(codec, packet[place] ^ 0x70)
        path.write_bytes(data.replace(packet, packet[:place] + bytes([other]) + packet[place + 1 :]))
        assert path.read_bytes() != data and tells(path)
        path.write_bytes(data)


@pytest.mark.parametrize("name", ["a.mp4", "a.flv", "a.mkv"])
def test_a_torn_first_keyframe_is_no_beginning_at_the_second(tmp_path, name):
    path = write(tmp_path / name, "libx264", 8, options=X264, count=20)
    data, packet = path.read_bytes(), bytes(packets_of(path)[0])
    other = bytes(byte ^ 0x5A for byte in packet[len(packet) // 4 :])
    path.write_bytes(data.replace(packet, packet[: len(packet) // 4] + other))
    assert tells(path)


def test_a_hole_between_two_packets_of_a_program_stream_is_told(tmp_path):
    path = write(tmp_path / "a.mpg", "mpeg1video", 12, 2)
    data = path.read_bytes()
    place = data.index(b"\0\0\1\xba", len(data) // 3)
    picture = data.index(b"\0\0\1\0", place + 500)
    path.write_bytes(data[:place] + bytes(picture - place) + data[picture:])
    assert tells(path)
    # Between two packs, zeros may stand.
    path.write_bytes(data[:place] + bytes(1500) + data[place:])
    assert count_frames(path) == NUMBER


@pytest.mark.parametrize("step", [188, 192])
@pytest.mark.parametrize("codec", ["libx264", "libx265", "mpeg2video"])
def test_a_cut_picture_of_a_transport_stream_is_told(tmp_path, codec, step):
    noise = np.random.default_rng(0).integers(0, 256, (6, 64, 96, 3), dtype=np.uint8)
    path = write_video(tmp_path / ("a.ts" if step == 188 else "a.m2ts"), noise, codec=codec)
    data, packet = path.read_bytes(), packets_of(path)[3]
    assert count_frames(path) == 6 and packet.size > 3 * step
    for place in (packet.pos + step, packet.pos + packet.size // 2 // step * step, packet.pos + 100):
        path.write_bytes(data[:place])
        assert tells(path)


# Where in the head of a packet a changed bit may make FFmpeg pass over a frame, seen from the place that it states.
HEADS = {
    "a.wmv": ("wmv2", range(26)),
    "a.rm": ("rv20", (-19, -18, -15, -14, -9)),
    "a.ts": ("mpeg2video", (4, 5, 6)),
    "a.nut": ("mpeg4", range(-3, 0)),
}


@pytest.mark.parametrize("name", HEADS)
def test_a_changed_bit_in_the_head_of_a_packet_loses_no_frame(tmp_path, name):
    codec, places = HEADS[name]
    noise = np.random.default_rng(0).integers(0, 256, (6, 48, 80, 3), dtype=np.uint8)
    path = write_video(tmp_path / name, noise, codec=codec)
    data, packets = path.read_bytes(), packets_of(path)
    assert count_frames(path) == len(packets) == 6
    refused = 0
    for packet, place, bit in itertools.product(packets[2:3], places, (1, 64)):
        adaptation = name == "a.ts" and data[packet.pos + 3] & 0x20
        begin = 1 + data[packet.pos + 4] if adaptation else 0
        flipped = bytearray(data)
        flipped[packet.pos + begin + place] ^= bit
        path.write_bytes(flipped)
        told = tells(path)
        assert told or count_frames(path) == 6, (packet.pos, place, bit)
        refused += told
    assert refused >= len(places)


def test_a_cut_frame_of_digital_video_is_told(tmp_path):
    path, frame = tmp_path / "a.dv", av.VideoFrame.from_ndarray(moving_frames(1, 576, 720)[0], format="rgb24")
    with av.open(str(path), "w", format="dv") as container:
        stream = container.add_stream("dvvideo", rate=25)
        stream.width, stream.height, stream.pix_fmt = 720, 576, "yuv420p"
        container.mux([packet for _ in range(3) for packet in stream.encode(frame)])
    assert decode_all(path).shape == (3, 576, 720, 3)
    path.write_bytes(path.read_bytes()[:-1000])
    assert tells(path)


Y4M = {"420": 1.5, "420jpeg": 1.5, "411": 1.5, "422": 2, "444": 3, "mono": 1, "422p10": 4, "mono16": 2, "444alpha": 4}


@pytest.mark.parametrize("colours", Y4M)
def test_y4m_of_any_colours_is_followed(tmp_path, colours):
    path, size = tmp_path / "a.y4m", int(Y4M[colours] * 16 * 8)
    data = f"YUV4MPEG2 W16 H8 F25:1 C{colours}\n".encode() + 3 * (b"FRAME\n" + bytes(size))
    path.write_bytes(data)
    assert count_frames(path) == 3
    for less in (1, size, size + 1, size + 5):
        path.write_bytes(data[:-less])
        assert tells(path)
    path.write_bytes(data.replace(b"FRAME", b"FRAMX"))
    assert tells(path)
    odd = b"YUV4MPEG2 W5 H3 F25:1\n" + 2 * (b"FRAME Ip\n" + bytes(15 + 2 * 6))
    path.write_bytes(odd)
    assert decode_all(path).shape == (2, 3, 5, 3)


@pytest.mark.parametrize("name", ["vp9.webm", "slices.mp4", "b.mkv"])
def test_a_check_tells_a_flipped_bit(tmp_path, name):
    """libvpx tells it in VP9, in HEVC the pictures' checksums if they have any, elsewhere those of the container."""
    how = FORMATS["slices.265" if name == "slices.mp4" else name]
    path = write(tmp_path / name, *how[:4])
    data = path.read_bytes()
    assert decode_whole(path) == (NUMBER, WIDTH, HEIGHT)
    packets = packets_of(path)
    for number in largest([packet.size for packet in packets], 8):
        flipped = bytearray(data)
        flipped[packets[number].pos + 3 * packets[number].size // 10] ^= 16
        path.write_bytes(flipped)
        with pytest.raises(VideoError, match="damaged"):
            decode_whole(path)


@pytest.mark.parametrize("kind", ["lost", "zeros"])
@pytest.mark.parametrize(
    "name", ["a.wmv", "mpeg2.mpg", "b.ts", "a.nut", "a.flv", "b.flv", "b.mkv", "vp8.webm", "closed.mp4"]
)
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
