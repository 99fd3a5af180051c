"""Faces drawn from FACS action units: one identity, one movement and one scene make a clip of frames.

The shapes of all frames are computed at once (:mod:`adatosk.synthetic.face_parts`); only filling polygons runs frame by
frame.
"""

import cv2
import numpy as np

from adatosk.synthetic.action_units import REGIONS
from adatosk.synthetic.face_parts import Shape, sketch_face
from adatosk.synthetic.people import Identity, Motion, Scene

SUPERSAMPLE = 2
_SHIFT = 4  # OpenCV reads polygon points as fixed-point numbers with this many fractional bits
_FACE_SCALE = 0.385  # half the face's height, as a share of the frame's side


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
    x, y, scale, roll, yaw, pitch = (pose[:, [column]] for column in range(6))
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
