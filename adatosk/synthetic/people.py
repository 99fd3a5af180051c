"""The person in a clip, their motion, and the scene."""

from collections.abc import Sequence
from dataclasses import dataclass, field, fields

import numpy as np

_SKIN = np.array([(255, 224, 198), (240, 196, 160), (214, 160, 120), (166, 112, 78), (112, 74, 52)], float)
_HAIR = np.array([(30, 24, 22), (74, 48, 32), (124, 82, 46), (214, 176, 100), (150, 62, 34), (150, 150, 152)], float)
_IRIS = np.array([(86, 54, 30), (60, 100, 60), (66, 112, 168), (92, 92, 96)], float)


def _drawn(mean: float, half: float) -> dict[str, float]:
    """How a length is drawn: uniformly in mean ± half."""
    return {"mean": mean, "half": half}


@dataclass(frozen=True)
class Identity:
    """One person; lengths in face coordinates, colours RGB in [0, 255]."""

    face_width: float = field(metadata=_drawn(0.76, 0.08))
    jaw_taper: float = field(metadata=_drawn(0.26, 0.12))
    eye_x: float = field(metadata=_drawn(0.34, 0.04))
    eye_y: float = field(metadata=_drawn(-0.07, 0.04))
    eye_width: float = field(metadata=_drawn(0.185, 0.025))
    eye_height: float = field(metadata=_drawn(0.105, 0.02))
    eye_tilt: float = field(metadata=_drawn(0.01, 0.03))
    brow_y: float = field(metadata=_drawn(-0.35, 0.03))
    brow_arch: float = field(metadata=_drawn(0.05, 0.03))
    brow_thickness: float = field(metadata=_drawn(0.045, 0.018))
    nose_width: float = field(metadata=_drawn(0.13, 0.035))
    nose_y: float = field(metadata=_drawn(0.27, 0.04))
    mouth_y: float = field(metadata=_drawn(0.56, 0.03))
    mouth_width: float = field(metadata=_drawn(0.28, 0.045))
    lip: float = field(metadata=_drawn(0.06, 0.02))
    hairline: float = field(metadata=_drawn(-0.78, 0.1))
    hair_volume: float = field(metadata=_drawn(1.1, 0.07))
    hair_length: float = field(metadata=_drawn(0.4, 0.6))
    parting: float = field(metadata=_drawn(0.0, 0.5))
    glasses: bool
    beard: bool
    skin: tuple[float, float, float]
    hair: tuple[float, float, float]
    iris: tuple[float, float, float]
    shirt: tuple[float, float, float]


@dataclass(frozen=True)
class Motion:
    """What a face does over T frames.

    Attributes:
        action_units: ``(T, 15)`` intensities in [0, 1], in the order of ``UNITS``.
        pose: ``(T, 6)``: x and y as fractions of the frame (0 is the centre), scale (1 is the default), roll, yaw and
            pitch in radians.
        blink: ``(T,)``, 0 open to 1 closed.
        talk: ``(T,)``, mouth opening in [0, 1] on top of the action units.
    """

    action_units: np.ndarray
    pose: np.ndarray
    blink: np.ndarray
    talk: np.ndarray


def rise_and_fall(time: np.ndarray, knots: Sequence[float] | np.ndarray) -> np.ndarray:
    """Strength of an expression, in [0, 1]: 0, smoothly to 1 between the first two of four ``knots``, and back."""
    ramp = np.interp(time, knots, (0, 1, 1, 0))
    return ramp * ramp * (3 - 2 * ramp)


@dataclass(frozen=True)
class Scene:
    """What surrounds the face.

    Attributes:
        background: uint8 ``(2S, 2S, 3)`` for frames of S x S pixels.
        light_direction: direction of the light source in radians; 0 is the viewer's right, -π/2 above.
        light_strength: 0 even light, 1 a strong light from that side.
    """

    background: np.ndarray
    light_direction: float = -1.0
    light_strength: float = 0.3


def sample_identity(rng: np.random.Generator, spread: float = 1.0) -> Identity:
    """Draw one person; ``spread`` scales how far lengths lie from the mean face and colours from a middle tone."""
    ranges = {length.name: length.metadata for length in fields(Identity) if length.metadata}
    lengths = {name: r["mean"] + spread * r["half"] * rng.uniform(-1, 1) for name, r in ranges.items()}
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
