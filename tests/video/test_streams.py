"""What a file's streams hold: moving pictures, or a cover, a photo or a text; their colours and sizes."""

from fractions import Fraction

import av
import cv2
import numpy as np
import pytest
from av.stream import Disposition
from media import moving_frames, write_video
from PIL import Image

from adatosk.video import HAS_DECORD, VideoError, count_frames, decode_all, read_clip
from adatosk.video.files import opened


def expect(path, said):
    for read in (read_clip, decode_all, count_frames):
        with pytest.raises(VideoError, match=said) as error:
            read(path)
        assert str(error.value).startswith(f"{path}: ")


def write_with_cover(path, frames):
    """A cover, a sound, and the stream of ``frames``, of which there may be none."""
    with av.open(str(path), "w") as container:
        cover = container.add_stream("png", rate=25)
        cover.height, cover.width, cover.pix_fmt, cover.disposition = 32, 32, "rgb24", Disposition.attached_pic
        sound = container.add_stream("libmp3lame", rate=44100)
        if len(frames):
            film = container.add_stream("libx264", rate=25)
            film.height, film.width, film.pix_fmt = *frames.shape[1:3], "yuv420p"
        image = av.VideoFrame.from_ndarray(moving_frames(1, 32, 32)[0], format="rgb24")
        container.mux([*cover.encode(image), *cover.encode(None)])
        for _ in range(9):
            silence = av.AudioFrame.from_ndarray(np.zeros((1, 1152), np.float32), format="fltp", layout="mono")
            silence.sample_rate = 44100
            container.mux(sound.encode(silence))
        container.mux(sound.encode(None))
        for frame in frames:
            container.mux(film.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        if len(frames):
            container.mux(film.encode(None))
    return path


def test_the_cover_of_a_song_is_no_video(tmp_path):
    expect(write_with_cover(tmp_path / "song.mp3", ()), "no video in this file")


def test_the_cover_of_a_film_is_not_taken_for_it(tmp_path):
    path = write_with_cover(tmp_path / "film.mp4", moving_frames(20, 64, 96))
    assert decode_all(path).shape == (20, 64, 96, 3)
    with opened(path) as (container, stream):
        assert len(container.streams.video) == 2 and not stream.disposition & Disposition.attached_pic
    if not HAS_DECORD:
        return
    with pytest.raises(VideoError, match="decord is not proven right for this file \\(several videos"):
        decode_all(path, decoder="decord")  # it chooses among streams by a rule of its own


@pytest.mark.parametrize("name", ["a.jpg", "a.png", "a.bmp", "a.webp"])
def test_a_photo_is_no_video(tmp_path, name):
    cv2.imwrite(str(tmp_path / name), moving_frames(1)[0])
    expect(tmp_path / name, "no video in this file")
    expect((tmp_path / name).rename(tmp_path / "a.mp4"), "no video in this file")


def test_an_animated_webp_is_called_so(tmp_path):
    first, *others = map(Image.fromarray, moving_frames(6))
    first.save(tmp_path / "a.webp", save_all=True, append_images=others)
    with Image.open(tmp_path / "a.webp") as image:
        assert getattr(image, "n_frames", 1) == 6
    expect(tmp_path / "a.webp", "an animated WebP, which no decoder here reads: convert it")
    first.save(tmp_path / "a.webp", exif=b"Exif")  # the same header without the flag
    expect(tmp_path / "a.webp", "a single picture or text")


@pytest.mark.parametrize("name", ["notes.txt", "notes.ans", "notes.nfo"])
def test_a_text_is_no_video(tmp_path, name):
    (tmp_path / name).write_text("these are\nnotes\n" * 40)
    expect(tmp_path / name, "no video in this file")


def write_pixels(path, frames, pixels, codec="libx264"):
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=25)
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = pixels
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode(None))
    return path


@pytest.mark.parametrize(
    ("name", "pixels", "codec", "height", "why"),
    [
        ("a.mp4", "yuv420p", "libx264", 50, ""),
        ("a.mp4", "yuv444p", "libx264", 50, ""),
        ("a.mp4", "yuv420p10le", "libx264", 50, "more than 8 bits"),
        ("a.mp4", "yuv422p", "libx264", 51, "odd height"),
        ("a.avi", "yuv420p", "mpeg4", 51, "mpeg4 in avi"),
    ],
)
def test_the_pixels_are_pyavs_whatever_reads_them(tmp_path, name, pixels, codec, height, why):
    path = write_pixels(tmp_path / name, moving_frames(8, height, 70), pixels, codec)
    with av.open(str(path)) as container:
        expected = np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])
    assert np.array_equal(decode_all(path), expected)
    if not HAS_DECORD:
        return
    if why:
        with pytest.raises(VideoError, match=f"decord is not proven right for this file .*{why}"):
            decode_all(path, decoder="decord")
    else:
        assert np.array_equal(decode_all(path, decoder="decord"), expected)


@pytest.mark.parametrize("name", ["both.h264", "both.mp4", "both.mkv"])
def test_frames_that_change_their_size_are_told(tmp_path, name):
    parts = [write_video(tmp_path / f"{side}.h264", moving_frames(12, side, 64)) for side in (64, 48)]
    bare, path = tmp_path / "both.h264", tmp_path / name
    bare.write_bytes(b"".join(part.read_bytes() for part in parts))
    if path != bare:
        with av.open(str(bare)) as source, av.open(str(path), "w") as target:
            stream = target.add_stream_from_template(source.streams.video[0])
            for time, packet in enumerate(packet for packet in source.demux() if packet.size):
                packet.stream, packet.time_base = stream, Fraction(1, 25)
                packet.pts, packet.dts, packet.duration = time, time, 1
                target.mux(packet)
    with pytest.raises(VideoError, match=rf"{name}: its frames change their size \(64×64, 64×48 pixels\)"):
        decode_all(path)
    assert read_clip(path, 4, 1, start=0).shape == (4, 64, 64, 3)  # before the change


def test_a_title_in_another_encoding_is_no_fault(tmp_path):
    path = tmp_path / "a.avi"
    with av.open(str(path), "w") as container:
        container.metadata["title"] = "Süß"
        stream = container.add_stream("mpeg4", rate=25)
        stream.height, stream.width, stream.pix_fmt = 32, 32, "yuv420p"
        for frame in moving_frames(8, 32, 32):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode(None))
    data, title = path.read_bytes(), "Süß".encode()
    assert title in data
    path.write_bytes(data.replace(title, "Süß".encode("latin-1").ljust(len(title))))
    assert count_frames(path) == 8


PLAYLISTS = {
    "list.m3u8": "#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nsecret.mp4\n#EXT-X-ENDLIST\n",
    "list.mp4": "#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nsecret.ts\n#EXT-X-ENDLIST\n",
    "list.ffconcat": "ffconcat version 1.0\nfile secret.mp4\n",
    "list.avi": "ffconcat version 1.0\nfile secret.ts\n",
    "list.sdp": "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nm=video 5004 RTP/AVP 96\n",
}


@pytest.mark.parametrize("name", PLAYLISTS)
def test_a_playlist_reads_no_other_file(tmp_path, name):
    write_video(tmp_path / "secret.mp4", moving_frames(8, 32, 32))
    write_video(tmp_path / "secret.ts", moving_frames(8, 32, 32))
    (tmp_path / name).write_text(PLAYLISTS[name])
    with pytest.raises(VideoError, match=f"{name}: not a video that can be read"):
        read_clip(tmp_path / name)


@pytest.mark.parametrize(
    "name", ["12:30.mp4", "http:a.mp4", "concat:a.mp4|b.mp4", "file:x.mp4", "%03d.mp4", "a b;c'.mp4"]
)
def test_a_name_is_no_protocol(tmp_path, monkeypatch, name):
    frames = moving_frames(8, 32, 32)
    write_video(tmp_path / "plain.mp4", frames)
    (tmp_path / "plain.mp4").rename(tmp_path / name)
    monkeypatch.chdir(tmp_path)
    assert count_frames(name) == 8 and len(read_clip(name)) == 16
