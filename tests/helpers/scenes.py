"""Scenes for the face search: rendered heads pasted where the test says, so that their places are known."""

from dataclasses import dataclass
from functools import cache

import cv2
import numpy as np

from adatosk.synthetic import BENCHMARKS, render, sample_script

CONFIG = BENCHMARKS["embedded-smoke"]


@cache
def head(script: int) -> np.ndarray:
    """A person's head, uint8 ``(T, 96, 96, 3)``; the face fills the picture."""
    return render(sample_script(CONFIG, "train", script), CONFIG)


@dataclass(frozen=True)
class Walk:
    """A head whose upper left corner goes straight from ``start`` to ``end`` (x, y), its side from first to last.

    ``absent``: frames in which it is not there.
    """

    script: int
    start: tuple[float, float]
    end: tuple[float, float]
    sides: tuple[float, float]
    absent: tuple[int, ...] = ()

    def boxes(self, count: int) -> np.ndarray:
        """Where the head is pasted, int ``(count, 4)``: left, top, right, bottom."""
        share = np.linspace(0, 1, count)[:, None]
        corner = np.array(self.start) * (1 - share) + np.array(self.end) * share
        side = self.sides[0] * (1 - share) + self.sides[1] * share
        return np.round(np.concatenate([corner, corner + side], axis=1)).astype(int)


def standing(script: int, corner: tuple[float, float], side: float, absent: tuple[int, ...] = ()) -> Walk:
    return Walk(script, corner, corner, (side, side), absent)


def scene(*people: Walk, count: int = 16, height: int = 360, width: int = 640) -> np.ndarray:
    """uint8 ``(count, height, width, 3)``: a wall, and the people in front of it, the last one nearest."""
    generator = np.random.default_rng(0)
    wall = cv2.resize(generator.integers(80, 170, (6, 8, 3), dtype=np.uint8), (width, height))
    frames = np.repeat(wall[None], count, axis=0)
    for person in people:
        for time, (left, top, right, bottom) in enumerate(person.boxes(count)):
            if time not in person.absent:
                picture = cv2.resize(head(person.script)[time], (right - left, bottom - top))
                low, high = (max(0, left), max(0, top)), (min(width, right), min(height, bottom))
                shown = picture[low[1] - top : high[1] - top, low[0] - left : high[0] - left]
                frames[time, low[1] : high[1], low[0] : high[0]] = shown
    return frames


def overlap(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Intersection over union of boxes ``(T, 4)`` left, top, right, bottom, frame by frame: ``(T,)``."""
    found = []
    for (left, top, right, bottom), (left2, top2, right2, bottom2) in zip(one.tolist(), other.tolist(), strict=True):
        wide, tall = min(right, right2) - max(left, left2), min(bottom, bottom2) - max(top, top2)
        shared = max(0, wide) * max(0, tall)
        areas = (right - left) * (bottom - top) + (right2 - left2) * (bottom2 - top2)
        found.append(shared / (areas - shared))
    return np.array(found)
