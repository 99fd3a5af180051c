"""Folders of frames. Ordinary JPEGs are decoded by simplejpeg: OpenCV's and Pillow's pixels are the reference."""

import io
import struct
import tracemalloc
import zlib
from itertools import product

import cv2
import numpy as np
import pytest
from media import moving_frames, truncate, write_frames
from PIL import Image, ImageOps

from adatosk.cost.decoding import plain_folder
from adatosk.video import count_frames, decode_all, read_clip
from adatosk.video import folders as frame_folders
from adatosk.video.folders import REDUCED, VideoError, image_paths, natural_key
from adatosk.video.jpeg import decode_jpeg, jpeg_head
from adatosk.video.reading import decode_whole
from adatosk.video.resize import TOGETHER, TOGETHER_BYTES, fit

ORDINARY = {
    "4:2:0": {},
    "4:2:2": {"subsampling": "4:2:2"},
    "4:4:4, best": {"subsampling": "4:4:4", "quality": 100},
    "worst": {"quality": 5},
    "progressive": {"progressive": True},
    "optimised": {"optimize": True},
    "restarts": {"restart_marker_rows": 1},
    "comment": {"comment": "made by nobody"},
    "colour profile": {"icc_profile": bytes(range(256)) * 300},
}


def coloured(height: int = 50, width: int = 70, seed: int = 0) -> np.ndarray:
    """An image with edges, slopes and noise in all channels."""
    frame = moving_frames(1, height, width, seed)[0].astype(int)
    return (frame + np.random.default_rng(seed).integers(-20, 21, frame.shape)).clip(0, 255).astype(np.uint8)


def as_jpeg(frame: np.ndarray | Image.Image, **options: object) -> bytes:
    file = io.BytesIO()
    (Image.fromarray(frame) if isinstance(frame, np.ndarray) else frame).save(file, "JPEG", **options)
    return file.getvalue()


def turned(data_of: np.ndarray) -> bytes:
    exif = Image.Exif()
    exif[0x112] = 6
    return as_jpeg(data_of, exif=exif.tobytes())


def by_opencv(data: bytes, shrink: int = 1) -> np.ndarray:
    pixels = np.frombuffer(data, np.uint8)
    return cv2.cvtColor(cv2.imdecode(pixels, REDUCED.get(shrink, cv2.IMREAD_COLOR)), cv2.COLOR_BGR2RGB)


@pytest.mark.parametrize("options", ORDINARY.values(), ids=ORDINARY)
@pytest.mark.parametrize(("shape", "shrink"), list(product([(8, 8), (50, 70), (64, 48), (71, 65)], [1, *REDUCED])))
def test_an_ordinary_jpeg_has_opencvs_pixels(options, shape, shrink):
    data = as_jpeg(coloured(*shape), **options)
    assert jpeg_head(data)[1] == shape
    expected = by_opencv(data, shrink)
    out = np.empty_like(expected)
    assert decode_jpeg(data, out)
    assert np.array_equal(out, expected)


def test_a_fill_byte_before_a_marker_is_passed_over():
    data = (lambda data: data[:2] + b"\xff" + data[2:])(as_jpeg(coloured()))
    out = np.empty((*jpeg_head(data)[1], 3), np.uint8)
    assert decode_jpeg(data, out) and np.array_equal(out, by_opencv(data))


@pytest.mark.parametrize("options", ORDINARY.values(), ids=ORDINARY)
def test_frames_of_their_own_size_are_those_of_the_plain_way(tmp_path, options):
    for number in range(3):
        (tmp_path / f"{number}.jpg").write_bytes(as_jpeg(coloured(64, 64, number), **options))
    assert np.array_equal(read_clip(tmp_path, size=64), plain_folder(tmp_path, 64))
    assert np.array_equal(read_clip(tmp_path), plain_folder(tmp_path, 64))


UNUSUAL = {
    "grey": as_jpeg(Image.fromarray(coloured()).convert("L")),
    "CMYK": as_jpeg(Image.fromarray(coloured()).convert("CMYK")),
    "stored as RGB": as_jpeg(coloured(), keep_rgb=True),
    "turned by EXIF": turned(coloured()),
    "tiny": as_jpeg(coloured(7, 30)),
    "PNG": cv2.imencode(".png", coloured())[1].tobytes(),
}


@pytest.mark.parametrize("data", UNUSUAL.values(), ids=UNUSUAL)
@pytest.mark.parametrize("size", [None, 3, 20, 64])
def test_what_is_unusual_is_left_to_opencv(tmp_path, data, size):
    assert jpeg_head(data) == (b"", None)
    (tmp_path / "1.jpg").write_bytes(data)
    read, whole = read_clip(tmp_path, 2, 1, size=size), by_opencv(data)
    assert (read[0] == read[1]).all()
    if size is None:
        assert np.array_equal(read[0], whole)
    else:
        shrink = max((by for by in REDUCED if by * size <= min(whole.shape[:2])), default=1)
        shrunk = by_opencv(data, 1 if data.startswith(b"\x89") else shrink)
        assert np.array_equal(read[0], fit(shrunk[None], size)[0])


@pytest.mark.parametrize("head", [b"", b"\xff", b"\xff\xe0\x00", b"\xff\xda\x00\x00", b"\xff\xc0\x00\x04" + bytes(9)])
def test_a_torn_head_has_no_shape_and_its_file_is_named(tmp_path, head):
    data = b"\xff\xd8" + head + b"\xff\xd9"
    assert jpeg_head(data) == (b"", None)
    (tmp_path / "1.jpg").write_bytes(data)
    with pytest.raises(VideoError, match=r"1\.jpg: not an image that can be read whole"):
        read_clip(tmp_path, 2, 1)


def damaged(kind: str) -> bytes:
    data = as_jpeg(coloured(96, 96), quality=95)
    if kind == "ends early":
        return data[: len(data) // 2] + b"\xff\xd9"
    if kind == "hole":
        return data[: len(data) // 2] + bytes(300) + data[len(data) // 2 + 300 :]
    if kind == "lost part":
        return data[: len(data) // 2] + data[len(data) // 2 + 300 :]
    return data[:-2] + b"left over" + data[-2:]


@pytest.mark.parametrize("kind", ["ends early", "hole", "lost part", "something behind the pixels"])
@pytest.mark.parametrize("size", [None, 20, 64, 96])
@pytest.mark.parametrize("turn", [1, 6])
def test_a_damaged_jpeg_is_named(tmp_path, kind, size, turn):
    data = damaged(kind)
    assert not decode_jpeg(data, np.empty((96, 96, 3), np.uint8)) or jpeg_head(data)[1] != (96, 96)
    if turn != 1:  # EXIF, which OpenCV reads, behind the start and JFIF's 18 bytes
        data = data[:20] + with_exif(coloured(8, 8), turn)[20 : 20 + EXIF_BYTES] + data[20:]
        assert jpeg_head(data) == (b"", None)
    (tmp_path / "1.jpg").write_bytes(as_jpeg(coloured(96, 96, 1)))
    (tmp_path / "2.jpg").write_bytes(data)
    with pytest.raises(VideoError, match=r"2\.jpg: not an image that can be read whole \(Corrupt JPEG data: "):
        decode_all(tmp_path, size)


@pytest.mark.parametrize("more", [1, 2])
def test_the_bytes_that_webcams_leave_are_no_damage(tmp_path, more):
    data = as_jpeg(coloured(96, 96))
    (tmp_path / "1.jpg").write_bytes(data[:-2] + b"\x55" * more + data[-2:])
    assert np.array_equal(decode_all(tmp_path)[0], by_opencv(data))


@pytest.mark.parametrize("mode", ["L", "CMYK"])
def test_a_hole_in_a_jpeg_of_other_colours_is_named(tmp_path, mode):
    data = as_jpeg(Image.fromarray(coloured(96, 96)).convert(mode), quality=95)
    (tmp_path / "1.jpg").write_bytes(data)
    assert decode_all(tmp_path).shape == (1, 96, 96, 3)
    (tmp_path / "1.jpg").write_bytes(data[: len(data) // 2] + bytes(300) + data[len(data) // 2 + 300 :])
    with pytest.raises(VideoError, match="Corrupt JPEG data"):
        decode_all(tmp_path)


def test_a_hole_in_a_png_is_named(tmp_path):
    data = cv2.imencode(".png", coloured(96, 96))[1].tobytes()
    (tmp_path / "1.png").write_bytes(data[: len(data) // 2] + bytes(30) + data[len(data) // 2 + 30 :])
    with pytest.raises(VideoError, match=r"1\.png: not an image that can be read whole"):
        decode_all(tmp_path)


def with_exif(frame: np.ndarray, turn: int) -> bytes:
    exif = Image.Exif()
    exif[0x112] = turn
    return as_jpeg(frame, exif=exif.tobytes())


XMP = b"\xff\xe1\x00\x33http://ns.adobe.com/xap/1.0/\0" + b"x" * 20
EXIF_BYTES = len(with_exif(coloured(8, 8), 6)) - len(as_jpeg(coloured(8, 8)))


@pytest.mark.parametrize("turn", range(1, 9))
@pytest.mark.parametrize("before", [b"", XMP], ids=["first", "behind other data"])
@pytest.mark.parametrize("size", [None, 20])
def test_exifs_orientations_are_pillows(tmp_path, turn, before, size):
    data = with_exif(coloured(48, 72), turn)
    data = data[:2] + before + data[2:]
    (tmp_path / "1.jpg").write_bytes(data)
    with Image.open(io.BytesIO(data)) as image:
        expected = np.asarray(ImageOps.exif_transpose(image).convert("RGB"))
    read = decode_all(tmp_path, size)[0]
    if size is None:
        assert np.array_equal(read, expected)
    else:
        # It shrinks by 2 as it is decoded.
        assert np.abs(read.astype(int) - fit(expected[None], size)[0]).mean() < 6


@pytest.mark.parametrize("other", ["2.webp", "2.TIFF", "cover.gif"])
def test_images_that_are_not_read_are_told(tmp_path, other):
    folder = write_frames(tmp_path / "f", moving_frames(3, 24, 24), ".jpg")
    (folder / f".{other}").write_bytes(b"hidden")
    assert len(decode_all(folder)) == 3
    (folder / other).write_bytes(b"RIFF")
    for read in (decode_all, count_frames):
        with pytest.raises(
            VideoError, match=rf"f: {other} is an image of a kind that is not read \(bmp, jpeg, jpg, png\)"
        ):
            read(folder)


@pytest.mark.parametrize(("one", "other"), [("1.jpg", "1.png"), ("1.jpg", "01.jpg"), ("a1.JPG", "a1.jpeg")])
def test_a_frame_that_is_there_twice_is_told(tmp_path, one, other):
    for name in (one, other, "2.jpg"):
        (tmp_path / name).touch()
    with pytest.raises(VideoError, match=f"({one} and {other}|{other} and {one}) are the same frame twice"):
        count_frames(tmp_path)


@pytest.mark.parametrize("shape", [(40, 40), (50, 71), (49, 70), (100, 140), (6, 6)])
def test_another_shape_is_not_decoded_into(shape):
    assert not decode_jpeg(as_jpeg(coloured()), np.empty((*shape, 3), np.uint8))


@pytest.mark.parametrize("size", [None, 16, 40])
@pytest.mark.parametrize("share", [0.0, 0.3, 0.99])
@pytest.mark.parametrize("number", [1, 3])
def test_a_cut_frame_is_named_wherever_it_stands(tmp_path, size, share, number):
    folder = write_frames(tmp_path / "f", moving_frames(4, 40, 40), ".jpg")
    truncate(folder / f"{number}.jpg", share)
    with pytest.raises(VideoError, match=rf"{number}\.jpg: not an image that can be read whole"):
        read_clip(folder, 4, 1, size=size)


def test_frames_of_two_sizes_need_a_size(tmp_path):
    """Only frames of the first one's shape shrink as they are decoded, and a turned one has another shape."""
    whole = [as_jpeg(coloured(64, 80, 1)), as_jpeg(coloured(48, 50, 2)), turned(coloured(64, 80, 3))]
    for number, data in enumerate(whole):
        (tmp_path / f"{number}.jpg").write_bytes(data)
    with pytest.raises(VideoError, match=r"1\.jpg: 50×48 pixels, but 0\.jpg has 80×64"):
        decode_all(tmp_path)
    (tmp_path / "1.jpg").unlink()
    with pytest.raises(VideoError, match=r"2\.jpg: 64×80 pixels, but 0\.jpg has 80×64"):
        decode_all(tmp_path)
    (tmp_path / "1.jpg").write_bytes(whole[1])
    for size, shrink in ((16, 4), (64, 1)):
        expected = [by_opencv(whole[0], shrink), by_opencv(whole[1]), by_opencv(whole[2])]
        assert np.array_equal(
            decode_all(tmp_path, size),
            np.concatenate([fit(one[None], size) for one in expected]),
        )


def test_names_are_sorted_by_their_numbers_as_paths_are(tmp_path):
    names = ["10.jpg", "9.jpg", "008.jpg", "a2b10.png", "a2b9.PNG", "a.b.1.jpeg", "x.bmp", "٣.jpg"]
    for name in [*names, ".3.jpg", "notes.txt", "jpg"]:
        (tmp_path / name).touch()
    paths = image_paths(tmp_path)
    assert {path.name for path in paths} == set(names)
    assert paths == sorted((tmp_path / name for name in names), key=natural_key)
    assert [path.name for path in paths if path.stem.isascii() and path.stem.isdigit()] == [
        "008.jpg",
        "9.jpg",
        "10.jpg",
    ]


@pytest.mark.parametrize(
    "names",
    [
        ["0010.jpg", "0009.jpg", "0123.jpg"],
        ["12.png", "09.png"],
        ["10.jpg", "9.jpg"],
        # As long as each other, with digits in other places: letters would sort 12a before 1a2.
        ["12a.jpg", "1a2.jpg"],
        ["12.jpg3.jpg", "1.jpg23.jpg"],
        ["٣٤.jpg", "12.jpg"],
        ["11.jpg", "10.png"],
        ["2.JPG", "1.JPG"],
    ],
    ids=" ".join,
)
def test_numbered_names_have_no_order_of_their_own(tmp_path, names):
    for name in names:
        (tmp_path / name).touch()
    assert image_paths(tmp_path) == sorted((tmp_path / name for name in names), key=natural_key)


def test_frames_with_heads_of_their_own_are_read_as_the_first_one_is(tmp_path):
    """The first one's head is compared byte by byte; other qualities, and tables fitted to an image, have others."""
    kinds = ({"quality": 90}, {"quality": 90}, {"quality": 50}, {"quality": 90, "optimize": True})
    files = [as_jpeg(coloured(64, 64, number), **kind) for number, kind in enumerate(kinds)]
    heads = [jpeg_head(data)[0] for data in files]
    assert heads[0] == heads[1] and len(set(heads)) == 3
    for number, data in enumerate(files):
        (tmp_path / f"{number}.jpg").write_bytes(data)
    assert np.array_equal(decode_all(tmp_path), [by_opencv(data) for data in files])


@pytest.mark.parametrize("size", [None, 64, 50])
def test_a_long_clip_is_not_held_twice(tmp_path, size):
    """What OpenCV decodes stands beside the result until it is put there: a few frames, also with nothing to resize."""
    write_frames(tmp_path / "f", moving_frames(128, 64, 64), ".png")
    decode_all(tmp_path / "f", size)
    tracemalloc.start()
    images = decode_all(tmp_path / "f", size)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(images) == 128
    assert peak < 1.2 * images.nbytes + 3 * TOGETHER * 64 * 64 * 3


def test_large_images_are_held_one_at_a_time(tmp_path):
    image = moving_frames(1, 1700, 1700)
    assert image.nbytes > TOGETHER_BYTES
    folder = write_frames(tmp_path / "f", np.repeat(image, 3, axis=0), ".png")
    tracemalloc.start()
    assert len(decode_all(folder, 24)) == 3
    shrunk = tracemalloc.get_traced_memory()[1]
    tracemalloc.reset_peak()
    assert decode_whole(folder) == (3, 1700, 1700)
    whole = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    # An image decoded, and the result, which is the whole image in a check.
    assert shrunk < 1.5 * image.nbytes
    assert whole < 2.5 * image.nbytes


@pytest.mark.parametrize("size", [None, 16, 64])
@pytest.mark.parametrize("number", [1, 20])
def test_frames_beyond_the_first_group_lie_in_their_places(tmp_path, size, number):
    frames = moving_frames(40, 64, 64)
    folder = write_frames(tmp_path / "f", frames, ".jpg")
    (folder / f"{number}.jpg").write_bytes(cv2.imencode(".png", coloured(64, 64))[1].tobytes())
    # Each alone is its own first group.
    alone = [frame_folders.read_images([str(folder / f"{place}.jpg")], size)[0] for place in range(1, 41)]
    assert np.array_equal(decode_all(folder, size), alone)


def too_large() -> bytes:
    """A PNG whose header says 60000×60000, with the right checksum."""
    data = bytearray(cv2.imencode(".png", coloured())[1].tobytes())
    data[16:24] = struct.pack(">II", 60000, 60000)
    data[29:33] = struct.pack(">I", zlib.crc32(data[12:29]))
    return bytes(data)


@pytest.mark.parametrize("size", [None, 16])
@pytest.mark.parametrize("number", [1, 2])
def test_frames_that_no_decoder_takes_are_named(tmp_path, size, number):
    folder = write_frames(tmp_path / "f", moving_frames(2, 40, 40), ".png")
    frame = folder / f"{number}.png"
    frame.write_bytes(too_large())
    with pytest.raises(VideoError, match=rf"f/{number}\.png: not an image that can be read whole \(.*\): extract"):
        decode_all(folder, size)
    frame.unlink(), frame.mkdir()
    with pytest.raises(VideoError, match=rf"f/{number}\.png: not an image that can be read whole \(Is a directory\)"):
        decode_all(folder, size)


@pytest.mark.parametrize("other", [".jpg34", "3.jpg4"])
def test_a_suffix_inside_a_name_makes_no_frame(tmp_path, other):
    for name in ("12.jpg", other):
        (tmp_path / name).touch()
    assert image_paths(tmp_path) == [tmp_path / "12.jpg"]


@pytest.mark.parametrize("size", [0, -3])
def test_a_size_is_at_least_a_pixel(tmp_path, size):
    with pytest.raises(ValueError):
        read_clip(write_frames(tmp_path / "f", moving_frames(2, 40, 40), ".jpg"), size=size)
