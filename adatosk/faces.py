"""Faces drawn from FACS action units: one identity, one movement and one scene make a clip of frames.

The shapes of all frames are computed at once (:mod:`adatosk.face_parts`); only filling polygons runs frame by frame.
"""

from dataclasses import dataclass

import cv2
import numpy as np

from adatosk.action_units import REGIONS
from adatosk.face_parts import Shape, sketch_face

POSE = ("x", "y", "scale", "roll", "yaw", "pitch")

SUPERSAMPLE = 2
_SHIFT = 4  # OpenCV reads polygon points as fixed-point numbers with this many fractional bits
_FACE_SCALE = 0.385  # half the face's height, as a share of the frame's side
_SKIN = np.array([(255, 224, 198), (240, 196, 160), (214, 160, 120), (166, 112, 78), (112, 74, 52)], float)
_HAIR = np.array([(30, 24, 22), (74, 48, 32), (124, 82, 46), (214, 176, 100), (150, 62, 34), (150, 150, 152)], float)
_IRIS = np.array([(86, 54, 30), (60, 100, 60), (66, 112, 168), (92, 92, 96)], float)


@dataclass(frozen=True)
class Identity:
    """One person; lengths in face coordinates, colours RGB in [0, 255]."""

    face_width: float
    jaw_taper: float
    eye_x: float
    eye_y: float
    eye_width: float
    eye_height: float
    eye_tilt: float
    brow_y: float
    brow_arch: float
    brow_thickness: float
    nose_width: float
    nose_y: float
    mouth_y: float
    mouth_width: float
    lip: float
    hairline: float
    hair_volume: float
    hair_length: float
    parting: float
    glasses: bool
    beard: bool
    skin: tuple[float, float, float]
    hair: tuple[float, float, float]
    iris: tuple[float, float, float]
    shirt: tuple[float, float, float]


# Mean and half range of each length.
_LENGTHS = {
    "face_width": (0.76, 0.08),
    "jaw_taper": (0.26, 0.12),
    "eye_x": (0.34, 0.04),
    "eye_y": (-0.07, 0.04),
    "eye_width": (0.185, 0.025),
    "eye_height": (0.105, 0.02),
    "eye_tilt": (0.01, 0.03),
    "brow_y": (-0.35, 0.03),
    "brow_arch": (0.05, 0.03),
    "brow_thickness": (0.045, 0.018),
    "nose_width": (0.13, 0.035),
    "nose_y": (0.27, 0.04),
    "mouth_y": (0.56, 0.03),
    "mouth_width": (0.28, 0.045),
    "lip": (0.06, 0.02),
    "hairline": (-0.78, 0.1),
    "hair_volume": (1.1, 0.07),
    "hair_length": (0.4, 0.6),
    "parting": (0.0, 0.5),
}


@dataclass(frozen=True)
class Motion:
    """What a face does over T frames.

    Attributes:
        action_units: ``(T, 15)`` intensities in [0, 1], in the order of ``UNITS``.
        pose: ``(T, 6)``: x and y in shares of the frame (0 is the middle), scale (1 is usual), roll, yaw and
            pitch in radians.
        blink: ``(T,)``, 0 open to 1 closed.
        talk: ``(T,)``, mouth opening in [0, 1] on top of the action units.
    """

    action_units: np.ndarray
    pose: np.ndarray
    blink: np.ndarray
    talk: np.ndarray


@dataclass(frozen=True)
class Scene:
    """What surrounds the face.

    Attributes:
        background: uint8 ``(2S, 2S, 3)`` for frames of S x S pixels.
        light_direction: where the light comes from, in radians; 0 is the viewer's right, -π/2 above.
        light_strength: 0 even light, 1 a strong light from that side.
    """

    background: np.ndarray
    light_direction: float = -1.0
    light_strength: float = 0.3


def sample_identity(rng: np.random.Generator, spread: float = 1.0) -> Identity:
    """Draw one person; ``spread`` scales how far lengths lie from the mean face and colours from a middle tone."""
    lengths = {name: mean + spread * half * rng.uniform(-1, 1) for name, (mean, half) in _LENGTHS.items()}
    tone = 1.5 + min(spread, 1.0) * rng.uniform(-1.5, 2.5)
    skin = np.array([np.interp(tone, range(len(_SKIN)), channel) for channel in _SKIN.T])
    hair = _HAIR[rng.integers(len(_HAIR))] * rng.uniform(0.85, 1.1)
    return Identity(
        **lengths,
        glasses=bool(rng.random() < 0.12 * spread),
        beard=bool(rng.random() < 0.15 * spread),
        skin=tuple(skin),
        hair=tuple(hair.clip(0, 255)),
        iris=tuple(_IRIS[rng.integers(len(_IRIS))]),
        shirt=tuple(rng.uniform(40, 220, 3)),
    )


def draw_faces(identity: Identity, motion: Motion, scene: Scene) -> np.ndarray:
    """Draw T frames, RGB uint8 ``(T, S, S, 3)`` with S half the background's side."""
    side = scene.background.shape[0]
    size = side // SUPERSAMPLE
    shapes = _on_canvas(sketch_face(identity, motion, scene), motion.pose, side)
    light = _light_map(scene, size)
    frames = np.empty((len(motion.pose), size, size, 3), np.uint8)
    canvas = np.empty_like(scene.background)
    for index, frame in enumerate(frames):
        np.copyto(canvas, scene.background)
        for points, colours, width, shown in shapes:
            if not shown[index]:
                continue
            if width:
                cv2.polylines(canvas, [points[index]], False, colours[index], width, cv2.LINE_AA, _SHIFT)
            else:
                cv2.fillPoly(canvas, [points[index]], colours[index], cv2.LINE_AA, _SHIFT)
        small = cv2.resize(canvas, (size, size), interpolation=cv2.INTER_AREA)
        cv2.multiply(small, light, dst=frame, scale=1 / 128)
    return frames


def _on_canvas(shapes: list[Shape], pose: np.ndarray, side: int) -> list[tuple]:
    """Per shape: fixed-point pixel positions per frame, colours, line width in pixels (0 fills) and visibility."""
    points = _project(np.concatenate([shape.points for shape in shapes], 1), pose)
    points = np.round(points * side * 2**_SHIFT).astype(np.int32)
    bounds = np.cumsum([shape.points.shape[1] for shape in shapes])[:-1]
    placed = []
    for shape, part in zip(shapes, np.split(points, bounds, axis=1), strict=True):
        width = max(1, round(shape.width * _FACE_SCALE * side)) if shape.width else 0
        colours = shape.colour.round().tolist()
        placed.append((list(np.ascontiguousarray(part)), colours, width, shape.shown.tolist()))
    return placed


def region_boxes(identity: Identity, pose: np.ndarray) -> np.ndarray:
    """Boxes x0, y0, x1, y1 in [0, 1] of ``REGIONS``, following the head: pose ``(T, 6)`` -> float32 ``(T, 7, 4)``."""
    i = identity
    brow_x, eye_x = i.eye_x + 0.26, i.eye_x + i.eye_width + 0.07
    nose_x, mouth_x = i.nose_width + 0.07, i.mouth_width + 0.15
    boxes = np.array(
        [
            (-brow_x, i.brow_y - 0.38, brow_x, i.brow_y + 0.17),
            (-eye_x, i.eye_y - 0.24, eye_x, i.eye_y + 0.2),
            (-nose_x, i.eye_y - 0.08, nose_x, i.nose_y + 0.1),
            (-i.face_width, 0.1, -nose_x, i.mouth_y),
            (nose_x, 0.1, i.face_width, i.mouth_y),
            (-mouth_x, i.mouth_y - 0.2, mouth_x, i.mouth_y + 0.3),
            (-mouth_x, i.mouth_y + 0.14, mouth_x, 1.16),
        ]
    )
    corners = boxes[:, [[0, 1], [2, 1], [2, 3], [0, 3]]]  # (7, 4, 2)
    points = _project(np.broadcast_to(corners.reshape(1, -1, 2), (len(pose), corners.size // 2, 2)), pose)
    points = points.reshape(len(pose), len(REGIONS), 4, 2)
    return np.concatenate([points.min(2), points.max(2)], -1).clip(0, 1).astype(np.float32)


def _project(points: np.ndarray, pose: np.ndarray) -> np.ndarray:
    """Face coordinates ``(T, N, 2)`` to shares of the frame, under pose ``(T, 6)``."""
    x, y, scale, roll, yaw, pitch = (pose[:, [column]] for column in range(len(POSE)))
    px, py = points[..., 0], points[..., 1]
    # Depth over an ellipsoid: a turn of the head shifts the nose most and the outline not at all.
    depth = np.sqrt((1 - (px / 0.85) ** 2 - (py / 1.1) ** 2).clip(0))
    px, py = px + 0.7 * yaw * depth, py + 0.7 * pitch * depth
    cos, sin = _FACE_SCALE * scale * np.cos(roll), _FACE_SCALE * scale * np.sin(roll)
    return np.stack([0.5 + x + cos * px - sin * py, 0.53 + y + sin * px + cos * py], -1)


def _light_map(scene: Scene, size: int) -> np.ndarray:
    """Light over the frame, uint8 ``(S, S, 3)`` with 128 for unchanged."""
    ramp = np.linspace(-1, 1, size)
    slope = np.cos(scene.light_direction) * ramp[None, :] + np.sin(scene.light_direction) * ramp[:, None]
    light = 128 * (1 + 0.4 * scene.light_strength * slope)
    return np.repeat(light.clip(0, 255).astype(np.uint8)[..., None], 3, -1)
