"""Finding the face in an uncropped video of a person."""

import math
from pathlib import Path

import cv2
import numpy as np

# A Haar box runs from the brows to below the lips; the clips of the field's data sets show the whole head.
FACE_MARGIN = 1.3
# Faces are detected on frames of this longer side in pixels: enough for a face of a twentieth of the picture.
SEARCH_SIDE = 480
# Boxes that overlap by more than this (intersection over union) belong to one person.
SAME_FACE = 0.3
# A face counts if at least this share of the frames shows it: a cascade occasionally mistakes a shirt for a face.
MIN_SHARE = 0.25

Box = tuple[int, int, int, int]


class FaceNotFoundError(ValueError):
    """No face in a video; the message names it and says what to do."""


def face_in(path: str | Path, frames: np.ndarray) -> Box:
    """:func:`find_face`, or a `FaceNotFoundError` that names the video and says what to do."""
    face = find_face(frames)
    if face is None:
        raise FaceNotFoundError(
            f"{path}: no face found; if the clip is already cropped to a face, pass locate_face=False "
            "(on the command line: --whole-frame)"
        )
    return face


def find_face(frames: np.ndarray) -> Box | None:
    """The square around the face of the most prominent person.

    Detections by OpenCV's frontal Haar cascade that overlap between frames belong to one person. The person with the
    largest total area is chosen; the square is the median of its boxes, enlarged by ``FACE_MARGIN``. There is one
    square for the whole clip, because a box that follows the head would hide its motion.

    Args:
        frames: uint8 ``(T, H, W, 3)``.

    Returns:
        left, top, right, bottom in pixels, a square inside the frame; ``None`` if no face is in at least a quarter of
        the frames.
    """
    detector = cv2.CascadeClassifier(cv2.data.haarcascades + "haarcascade_frontalface_default.xml")
    height, width = frames.shape[1:3]
    shrink = min(1.0, SEARCH_SIDE / max(height, width))
    boxes, times = [], []
    for time, frame in enumerate(frames):
        grey = cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY)
        if shrink < 1:
            grey = cv2.resize(grey, None, fx=shrink, fy=shrink, interpolation=cv2.INTER_AREA)
        for box in detector.detectMultiScale(grey, scaleFactor=1.1, minNeighbors=5, minSize=(24, 24)):
            boxes.append(np.asarray(box) / shrink)
            times.append(time)
    if not boxes:
        return None
    person = _one_person(np.stack(boxes), np.array(times), math.ceil(MIN_SHARE * len(frames)))
    return None if person is None else _square(person, height, width)


def _one_person(boxes: np.ndarray, times: np.ndarray, frames_needed: int) -> np.ndarray | None:
    """Median box of the person with the largest sum of areas, from boxes ``(N, 4)`` x, y, w, h and their frames."""
    same = _overlaps(boxes) > SAME_FACE
    seen = np.array([len(set(times[row])) for row in same])
    areas = boxes[:, 2] * boxes[:, 3]
    weight = np.where(seen >= frames_needed, same @ areas, -1)
    return np.median(boxes[same[weight.argmax()]], axis=0) if weight.max() > 0 else None


def _overlaps(boxes: np.ndarray) -> np.ndarray:
    """Intersection over union of all pairs of boxes ``(N, 4)`` x, y, w, h: ``(N, N)``."""
    low, high = boxes[:, :2], boxes[:, :2] + boxes[:, 2:]
    sides = np.minimum(high[:, None], high[None]) - np.maximum(low[:, None], low[None])
    shared = sides.clip(0).prod(axis=-1)
    areas = boxes[:, 2:].prod(axis=1)
    return shared / (areas[:, None] + areas[None] - shared)


def _square(box: np.ndarray, height: int, width: int) -> Box:
    """The enlarged square around a box x, y, w, h, shifted and, if necessary, shrunk to stay inside the frame."""
    side = min(round(FACE_MARGIN * max(box[2:])), height, width)
    left, top = (
        int(np.clip(round(box[axis] + (box[axis + 2] - side) / 2), 0, limit - side))
        for axis, limit in ((0, width), (1, height))
    )
    return left, top, left + side, top + side
