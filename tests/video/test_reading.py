import os
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
from media import moving_frames, truncate, write_frames, write_video
from PIL import Image

from adatosk.presets import PROFILES
from adatosk.video import (
    HAS_DECORD,
    VideoError,
    count_frames,
    decode_all,
    frame_indices,
    last_start,
    read_clip,
    read_frames,
)
from adatosk.video.containers import stated_bytes
from adatosk.video.resize import TOGETHER


def naive_indices(length, frames, stride, start=None):
    """One frame at a time, with exact fractions."""
    span = (frames - 1) * stride + 1
    chosen = []
    for i in range(frames):
        if span <= length:
            first = (length - span) // 2 if start is None else start
            chosen.append(first + i * stride)
        else:
            place = Fraction(i * (length - 1), frames - 1)
            chosen.append(int(place + Fraction(1, 2)))
    return chosen


def test_frame_indices_equal_a_loop_with_fractions():
    for length in range(1, 90):
        for frames in (1, 2, 3, 8, 16):
            for stride in (1, 2, 4, 7):
                latest = max(0, length - (frames - 1) * stride - 1)
                assert last_start(length, frames, stride) == latest
                for start in {None, 0, latest // 3, latest}:
                    found = frame_indices(length, frames, stride, start)
                    assert list(found) == naive_indices(length, frames, stride, start)
                    assert found.dtype == np.int64 and found.shape == (frames,)
                    assert found[0] >= 0 and found[-1] < length and (np.diff(found) >= 0).all()


def test_short_clips_keep_their_ends_and_repeat_evenly():
    for length in range(2, 61):
        found = frame_indices(length, 16, 4)
        assert found[0] == 0 and found[-1] == length - 1
        assert np.abs(found - np.linspace(0, length - 1, 16)).max() <= 0.5
        times = np.bincount(found, minlength=length)
        if length <= 16:
            # Every frame is shown; an inner one spans a whole step, each end half of one.
            assert times.min() >= 1 and times[1:-1].max(initial=1) - times[1:-1].min(initial=99) <= 1
        else:
            assert times.max() == 1
    assert list(frame_indices(1, 4, 4)) == [0, 0, 0, 0]
    assert list(frame_indices(61, 16, 4)) == list(range(0, 61, 4))


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((0, 16, 4), "length must be at least 1"),
        ((9, 0, 4), "frames must be at least 1"),
        ((9, 4, 0), "stride must be at least 1"),
        ((70, 16, 4, 10), "start=10: 16 frames at stride 4 of a clip of 70 frames can start at 0 to 9"),
        ((70, 16, 4, -1), "can start at 0 to 9"),
        ((20, 16, 4, 1), "can start at 0 to 0"),
    ],
)
def test_impossible_sampling_is_refused(arguments, said):
    with pytest.raises(ValueError, match=said):
        frame_indices(*arguments)


needs_decord = pytest.mark.skipif(not HAS_DECORD, reason="decord has no wheel for this platform")


@needs_decord
@pytest.mark.parametrize(
    ("name", "codec"), [("a.mp4", "libx264"), ("a.mov", "libx264"), ("a.mkv", "libx264"), ("a.flv", "flv1")]
)
@pytest.mark.parametrize("gop", [1, 5, 250])
def test_decord_and_pyav_give_the_same_frames(tmp_path, name, codec, gop):
    path = write_video(tmp_path / name, moving_frames(40, 50, 70), codec=codec, gop=gop)
    for indices in (np.arange(40), frame_indices(40, 8, 4), np.array([3, 3, 17, 39])):
        first, second = (read_frames(path, lambda _, i=indices: i, decoder=d) for d in ("decord", "pyav"))
        assert np.array_equal(first, second)


@needs_decord
def test_what_decord_cannot_read_pyav_reads(tmp_path):
    path = write_video(tmp_path / "a.mp4", moving_frames(9, 48, 48))
    with pytest.raises(VideoError, match=r"a\.mp4: decord is not proven right for this file \(it cannot read it\)"):
        decode_all(path, decoder="decord")
    assert decode_all(path).shape == (9, 48, 48, 3)


def test_frames_are_those_that_were_written(tmp_path):
    frames = moving_frames(30, 64, 64)
    read = decode_all(write_video(tmp_path / "a.mp4", frames))
    assert read.shape == frames.shape and read.dtype == np.uint8
    nearest = [int(np.abs(frames.astype(int) - frame).mean((1, 2, 3)).argmin()) for frame in read.astype(int)]
    assert nearest == list(range(30))
    assert count_frames(tmp_path / "a.mp4") == 30


def test_frame_folder_equals_the_video_it_came_from(tmp_path):
    path = write_video(tmp_path / "a.mp4", moving_frames(24, 40, 56))
    folder = write_frames(tmp_path / "a", decode_all(path))
    assert count_frames(folder) == 24
    for options in ({}, {"frames": 4, "stride": 5, "start": 3}, {"size": 20}, {"size": 64, "frames": 3}):
        assert np.array_equal(read_clip(folder, **options), read_clip(path, **options))
    assert np.array_equal(decode_all(folder, 20), decode_all(path, 20))
    assert np.array_equal(read_clip(path, 4, 5, 3), decode_all(path)[[3, 8, 13, 18]])


@pytest.mark.parametrize(("suffix", "error"), [(".png", 0), (".bmp", 0), (".jpg", 12), (".JPEG", 12)])
def test_folders_are_read_in_the_order_of_their_numbers(tmp_path, suffix, error):
    frames = np.stack([np.full((16, 16, 3), (index * 11, 200 - index * 11, 90), np.uint8) for index in range(12)])
    folder = write_frames(tmp_path / "f", frames, suffix)
    (folder / "._3.jpg").write_bytes(b"left by another system")
    (folder / "notes.txt").write_text("not a frame")
    read = decode_all(folder)
    assert np.abs(read.astype(int) - frames).max() <= error


def test_size_is_the_central_square(tmp_path):
    frames = np.zeros((2, 20, 40, 3), np.uint8)
    frames[:, :, 10:30] = (200, 100, 50)
    frames[:, :, :10] = frames[:, :, 30:] = 255
    wide, tall = (write_frames(tmp_path / name, part) for name, part in (("w", frames), ("t", frames.swapaxes(1, 2))))
    for folder in (wide, tall):
        for size in (8, 20, 33):
            assert (decode_all(folder, size) == (200, 100, 50)).all()
    checker = np.indices((24, 24)).sum(0) % 2 * 255
    folder = write_frames(tmp_path / "c", np.repeat(checker[None, ..., None], 3, axis=-1).astype(np.uint8))
    # By area: what shrinks to half is grey and has no pattern of its own.
    assert np.ptp(decode_all(folder, 12)) <= 1
    with pytest.raises(ValueError, match="size must be at least 1"):
        decode_all(folder, 0)


@pytest.mark.parametrize("size", [35, 40, 59, 70])
def test_frames_are_resized_by_pillows_bilinear_filter(tmp_path, size):
    # More than are resized at once, and taller than wide.
    frames = moving_frames(TOGETHER + 3, 66, 60)
    folder = write_frames(tmp_path / "f", frames)
    squares = [Image.fromarray(frame[3:63]) for frame in frames]
    expected = np.stack([np.asarray(square.resize((size, size), Image.Resampling.BILINEAR)) for square in squares])
    error = np.abs(decode_all(folder, size).astype(int) - expected)
    # A rounding after each of the two directions.
    assert error.max() <= 1 and error.mean() < 0.01


def test_frames_shrink_by_area_from_a_ratio_of_one_and_three_quarters(tmp_path):
    """The runs of the profiles on rendered clips were made with these pixels: 96 stored, 40 and 52 cached."""
    path = write_video(tmp_path / "a.mp4", moving_frames(3, 96, 96))
    cached = {PROFILES[name].data.cache_size for name in ("smoke", "demo")}
    assert cached == {40, 52}
    for size in (*cached, 54):
        expected = [cv2.resize(f, (size, size), interpolation=cv2.INTER_AREA) for f in decode_all(path)]
        assert np.array_equal(decode_all(path, size), expected)


@pytest.mark.parametrize(("degrees", "quarters"), [(90, 1), (180, 2), (-90, 3)])
def test_rotated_video_stands_upright(tmp_path, degrees, quarters):
    """The display matrix turns counter-clockwise, as NumPy does; ``test_formats`` compares it with FFmpeg."""
    path = tmp_path / "r.mp4"
    frames = moving_frames(6, 32, 48)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = 48, 32, "yuv420p"
        stream.set_display_rotation(degrees)
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode(None))
    expected = np.rot90(frames[0], quarters)
    read = read_clip(path, 6, 1)
    assert read.shape[1:] == expected.shape
    assert np.abs(read[0].astype(int) - expected).mean() < 4


def test_frames_that_an_edit_list_drops_stay_out(tmp_path):
    path = write_video(tmp_path / "a.mp4", moving_frames(20, 32, 32), gop=250)
    data = bytearray(path.read_bytes())
    # Let the track's edit start at the sixth frame: media time, after a version word, a count and a duration.
    with av.open(str(path)) as container:
        step = int(container.streams.video[0].duration) // 20
    place = data.index(b"elst") + 4 + 4 + 4 + 4
    start = int.from_bytes(data[place : place + 4], "big")
    data[place : place + 4] = (start + 5 * step).to_bytes(4, "big")
    path.write_bytes(data)
    with av.open(str(path)) as container:
        shown = np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])
    assert len(shown) == 15
    assert count_frames(path) == 15
    assert np.array_equal(decode_all(path), shown)


def expect(path, said):
    with pytest.raises(VideoError, match=said) as error:
        read_clip(path, 4, 1)
    assert str(path) in str(error.value) or Path(path).name in str(error.value)
    with pytest.raises(VideoError):
        decode_all(path)


@pytest.mark.parametrize("share", [0.1, 0.5, 0.8])
@pytest.mark.parametrize(
    ("name", "codec", "faststart"),
    [("a.mp4", "libx264", False), ("a.mp4", "libx264", True), ("a.avi", "mpeg4", False), ("a.flv", "flv1", False)],
)
def test_truncated_video_is_an_error_and_never_shorter(tmp_path, name, codec, faststart, share):
    path = write_video(tmp_path / name, moving_frames(50, 48, 48), codec=codec, faststart=faststart)
    assert len(decode_all(path)) == 50
    truncate(path, share)
    expect(path, "cut short|not a video that can be read")


def test_mp4_that_lacks_its_last_bytes_is_an_error(tmp_path):
    path = write_video(tmp_path / "a.mp4", moving_frames(50, 48, 48), faststart=True)
    path.write_bytes(path.read_bytes()[:-3])
    expect(path, "49 of 50 frames are whole")


# The containers that do not state how many frames they hold.
UNCOUNTED = [("a.mkv", "libx264"), ("b.mkv", "mpeg4"), ("a.webm", "libvpx"), ("a.flv", "flv1"), ("b.flv", "libx264")]


def last_packet(path: Path) -> int:
    """Where the last frame's bytes begin."""
    with av.open(str(path)) as container:
        return max(packet.pos for packet in container.demux(video=0) if packet.size)


@pytest.mark.parametrize(("name", "codec"), UNCOUNTED)
def test_one_missing_frame_is_found_where_no_count_is_stated(tmp_path, name, codec):
    path = write_video(tmp_path / name, moving_frames(50, 48, 48), codec=codec)
    assert count_frames(path) == 50
    data = path.read_bytes()
    end = last_packet(path)
    for cut in (data[:end], data[: end - 20], data[:-1]):
        path.write_bytes(cut)
        expect(path, f"cut short: {len(cut)} of {len(data)} bytes are there")
    path.write_bytes(data + b"\0" * 100)  # padding harms nobody
    assert count_frames(path) == 50


def forget_bytes(path: Path) -> None:
    """Write an unknown length, as a muxer does that cannot go back."""
    data = path.read_bytes()
    if data[:3] == b"FLV":
        place = data.index(b"filesize\x00") + len(b"filesize\x00")
        data = data[:place] + bytes(8) + data[place + 8 :]
    else:
        place = data.index(b"\x18S\x80g") + 4
        data = data[:place] + b"\x01" + b"\xff" * 7 + data[place + 8 :]
    path.write_bytes(data)


@pytest.mark.parametrize(("name", "codec"), UNCOUNTED)
def test_without_stated_bytes_the_duration_tells(tmp_path, name, codec):
    path = write_video(tmp_path / name, moving_frames(50, 48, 48), codec=codec)
    forget_bytes(path)
    assert stated_bytes(path) == 0 and count_frames(path) == 50
    truncate(path, 0.7)
    expect(path, "cut short: (.* of 2.00 seconds are there|its last part is not whole)|frames are whole")


FLASH = b"FLV\x00\x08filesize\x00"


@pytest.mark.parametrize("head", [b"", b"\x1aE\xdf\xa3", b"FLV", FLASH + b"\x01", FLASH + b"\x7f\xf0" + bytes(6)])
def test_a_torn_head_states_nothing(tmp_path, head):
    (tmp_path / "a").write_bytes(head)
    assert stated_bytes(tmp_path / "a") == 0


def test_what_is_no_video_is_named(tmp_path):
    expect(tmp_path / "gone.mp4", "no such video file")
    (tmp_path / "zero.mp4").touch()
    expect(tmp_path / "zero.mp4", r"empty \(0 bytes\)")
    (tmp_path / "text.mp4").write_text("these are\nnotes\n" * 40)
    expect(tmp_path / "text.mp4", "not a video")
    (tmp_path / "empty").mkdir()
    expect(tmp_path / "empty", "without frames")
    with av.open(str(tmp_path / "sound.mp4"), "w") as container:
        stream = container.add_stream("aac", rate=8000)
        sound = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
        sound.sample_rate = 8000
        container.mux(stream.encode(sound))
        container.mux(stream.encode(None))
    expect(tmp_path / "sound.mp4", "no video in this file")


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".bmp"])
@pytest.mark.parametrize("share", [0.0, 0.3, 0.9])
def test_unreadable_frame_of_a_folder_is_named(tmp_path, suffix, share):
    folder = write_frames(tmp_path / "f", moving_frames(4, 40, 40), suffix)
    truncate(folder / f"3{suffix}", share)
    expect(folder, f"3{suffix}: not an image that can be read whole")


def test_frames_of_two_sizes_are_named(tmp_path):
    folder = write_frames(tmp_path / "f", moving_frames(3, 40, 40))
    write_frames(folder, moving_frames(1, 20, 24), first=4)
    expect(folder, r"4.png: 24×20 pixels, but 1.png has 40×40")
    assert read_clip(folder, 4, 1, size=16).shape == (4, 16, 16, 3)


def test_one_frame_is_a_clip(tmp_path):
    path = write_video(tmp_path / "a.mp4", moving_frames(1, 32, 32))
    folder = write_frames(tmp_path / "a", decode_all(path))
    for source in (path, folder):
        clip = read_clip(source)
        assert clip.shape == (16, 32, 32, 3) and (clip == clip[0]).all()


def test_users_own_videos_read_alike_with_both_readers():
    folder = os.environ.get("ADATOSK_VIDEOS")
    if not folder:
        pytest.skip("set ADATOSK_VIDEOS to a folder of videos to try the readers on them")
    for path in sorted(Path(folder).glob("*.mp4")):
        try:
            clip = read_clip(path, decoder="decord")
        except VideoError as error:
            assert "decord is not proven right" in str(error)
        else:
            assert np.array_equal(clip, read_clip(path))
