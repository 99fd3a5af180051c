"""Lifelike motion: expressions that swell, waver and fall while the person speaks, as real ones do.

In a ``sparse`` clip, a face rests, moves once and rests again. Actors who speak while they act move all the time: their
expression is there from the first frame and changes in strength, and much of the change is speech. The constants below
were chosen so that :func:`adatosk.synthetic.dynamics.dynamics` of these clips comes out as on real ones.
"""

from dataclasses import dataclass

import numpy as np

from adatosk.synthetic.action_units import CLASS_UNITS, UNITS
from adatosk.synthetic.people import rise_and_fall


@dataclass(frozen=True)
class Manner:
    """How an expression is shown.

    Attributes:
        level: intensity at its height, in [0, 1].
        depth: the share of it that comes and goes; the rest is there throughout.
        hold: how long the height lasts, as a share of the clip.
    """

    level: float
    depth: float
    hold: float


MANNERS = {
    "happy": Manner(0.65, 0.56, 0.57),
    "sad": Manner(0.45, 0.23, 0.14),
    "angry": Manner(0.6, 0.57, 0.0),
    "surprise": Manner(0.45, 0.17, 0.0),
    "disgust": Manner(0.8, 0.62, 0.32),
    "fear": Manner(0.4, 0.11, 0.0),
}
# Of expressions that the real figures do not name.
OTHERS = Manner(0.5, 0.4, 0.2)

RISE, FALL = (0.15, 0.35), (0.15, 0.45)  # durations as shares of the clip: a face relaxes more slowly than it tenses
LEVEL, WEAKER = (0.8, 1.2), 0.2  # factor of the level; how much weaker than the others a single unit may be
LAG = 0.05  # units move up to this share of the clip before or after each other
WAVER, TREMOR = 0.05, 0.02  # noise relative to the expression, and of all units alike
SLOW = (0.3, 2.0)  # periods of that noise, in seconds
# Units that speech moves: strength relative to the lips', and periods of its waves in seconds.
SPEECH = {25: (1.0, (0.18, 0.35)), 26: (0.8, (0.18, 0.35)), 17: (0.5, (0.25, 0.6)), 10: (0.35, (0.4, 1.0))}
LOUDNESS, SPOKEN = (0.6, 1.2), (0.6, 1.0)  # factor of the configured strength; share of the clip
PHRASE, PAUSE = (0.8, 3.0), 0.08  # periods of phrases in seconds; share of the clip in which speech begins and ends


def sample_expression(rng: np.random.Generator, label: str, frames: int, fps: int) -> np.ndarray:
    """Action units ``(T, 15)`` of an expression, in [0, 1]; 0 for neutral."""
    manner = MANNERS.get(label, OTHERS)
    time = np.arange(frames) / frames
    swell = _swell(rng, manner.hold, time)
    lagging = np.stack([np.interp(time - lag, time, swell) for lag in rng.uniform(-LAG, LAG, len(UNITS))], axis=1)
    shape = (1 - manner.depth * (1 - lagging)) * (1 + WAVER * _noise(rng, frames, fps, SLOW, len(UNITS)))
    peak = manner.level * rng.uniform(*LEVEL) * (1 - WEAKER * rng.random(len(UNITS)))
    weights = np.array([CLASS_UNITS[label].get(unit, 0) for unit in UNITS])
    return (shape * peak * weights).clip(0, 1)


def sample_speech(rng: np.random.Generator, strength: float, frames: int, fps: int) -> np.ndarray:
    """Action units ``(T, 15)`` of speech: syllables within phrases over most of the clip; 0 where ``strength`` is 0."""
    time = np.arange(frames) / frames
    span = rng.uniform(*SPOKEN)
    start = rng.uniform(0, 1 - span)
    spoken = ((time - start) / PAUSE).clip(0, 1) * ((start + span - time) / PAUSE).clip(0, 1)
    phrases = (1 + 0.5 * _noise(rng, frames, fps, PHRASE)[:, 0]).clip(0, 1)
    loudness = strength * rng.uniform(*LOUDNESS)
    speech = np.zeros((frames, len(UNITS)))
    for unit, (share, periods) in SPEECH.items():
        syllables = (0.5 + 0.45 * _noise(rng, frames, fps, periods, waves=3)[:, 0]).clip(0, 1.3)
        speech[:, list(UNITS).index(unit)] = loudness * share * phrases * spoken * syllables
    return speech.clip(0, 1)


def sample_tremor(rng: np.random.Generator, frames: int, fps: int) -> np.ndarray:
    """Small movements ``(T, 15)`` of all action units, non-negative."""
    return TREMOR * np.abs(_noise(rng, frames, fps, SLOW, len(UNITS)))


def _swell(rng: np.random.Generator, hold: float, time: np.ndarray) -> np.ndarray:
    """Strength of an expression over the clip, in [0, 1]: rises, holds and falls, perhaps beyond the clip's ends."""
    rise, fall, hold = rng.uniform(*RISE), rng.uniform(*FALL), max(0.02, hold + rng.uniform(-0.1, 0.1))
    onset = rng.uniform(-0.1, max(1.1 - rise - hold - fall, 0))
    return rise_and_fall(time, np.cumsum((onset, rise, hold, fall)))


def _noise(
    rng: np.random.Generator, frames: int, fps: int, periods: tuple[float, float], columns: int = 1, waves: int = 4
) -> np.ndarray:
    """Smooth noise ``(T, columns)`` of mean 0 and variance 1: a sum of waves of random periods (s) and phases."""
    time = np.arange(frames)[:, None, None] / fps
    period, phase = rng.uniform(*periods, (waves, columns)), rng.uniform(0, 2 * np.pi, (waves, columns))
    return np.sin(2 * np.pi * time / period + phase).sum(1) / np.sqrt(waves / 2)
