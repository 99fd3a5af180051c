"""Videos of all formats whose frames carry their numbers as barcodes."""

import itertools
from pathlib import Path

import av
import numpy as np
import pytest

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
    "open.hevc": ("libx265", 12, 3, X265 | {"x265-params": "log-level=error:open-gop=1:scenecut=0"}, False),
    "slices.265": ("libx265", 30, 0, X265 | {"x265-params": "log-level=error:slices=2:hash=1"}, False),
    "hevc.ts": ("libx265", 30, 3, X265 | {"x265-params": "log-level=error"}, False),
    "hevc10.m2ts": ("libx265", 30, 3, X265 | {"x265-params": "log-level=error:repeat-headers=1:aud=1"}, False),
    "raw.y4m": ("rawvideo", 1, 0, {}, False),
    "a.nut": ("libx264", 12, 2, X264, False),
    "a.mxf": ("mpeg2video", 12, 2, {}, False),
    "qpel.avi": ("mpeg4", 30, 2, {"flags": "+qpel+mv4"}, False),
    "a.gif": ("gif", 1, 0, {}, False),
    "a.apng": ("apng", 1, 0, {"plays": "0"}, False),
    "prores.mov": ("prores_ks", 1, 0, {}, False),
    "ffv1.mkv": ("ffv1", 30, 0, {}, False),
    "utvideo.avi": ("utvideo", 1, 0, {}, False),
    "fields.mp4": ("libx264", 12, 2, X264 | {"flags": "+ildct+ilme"}, False),
    "fields.mpg": ("mpeg2video", 12, 2, {"flags": "+ildct+ilme"}, False),
    "hevc.flv": ("libx265", 30, 3, X265 | {"x265-params": "log-level=error"}, False),
    "cinepak.mov": ("cinepak", 12, 0, {}, False),
}
PIXELS = {"mjpeg": "yuvj420p", "cinepak": "rgb24", "gif": "rgb8", "apng": "rgb24", "prores_ks": "yuv422p10le"}
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


def write(
    path: Path, codec: str, gop: int = 12, b_frames: int = 0, options=(), count: int = NUMBER, mux_options=None
) -> Path:
    try:
        encoder = av.codec.Codec(codec, "w")
    except av.codec.codec.UnknownCodecError:
        pytest.skip(f"this build of PyAV has no encoder {codec}")
    with av.open(str(path), "w", options=mux_options or {}) as container:
        stream = container.add_stream(encoder.name, rate=25, options=dict(options))
        stream.width, stream.height = WIDTH, HEIGHT
        stream.pix_fmt = PIXELS.get(codec, "yuv420p10le" if "10" in path.name else "yuv420p")
        stream.gop_size, stream.max_b_frames = gop, b_frames
        if "crf" not in dict(options):
            stream.bit_rate = 2_000_000
        for image in barcodes(count):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode(None))
    return path
