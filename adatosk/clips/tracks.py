"""Following people through a video: boxes of faces, frame by frame, are linked into tracks.

Nobody is recognised: a person is who is near enough to where somebody was seen before. After a cut, that must be very
near, since whoever is in another place is as likely to be somebody else.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import cv2
import numpy as np

# A detection continues a person's track when it lies within this many face heights of where the person should be by
# now. Someone who walks past at 1.5 m/s moves one face height between frames 4/25 s apart.
REACH = 1.5
# … and when its height differs by at most this factor from the person's last one.
MAX_GROWTH = 1.6
# After this many frames without a detection, a person is expected where last seen, however fast that was left, and a
# track of fewer than ``FEW`` detections is over: it was no person, and a long video has many of these.
LONG_GAP, FEW = 16, 4
# After a cut, a box continues a track within so many face heights of where the person was last seen, and with a height
# that differs by at most this factor: much as a person who speaks to the camera is after a cut within the speech.
REACH_AFTER_CUT, GROWTH_AFTER_CUT = 0.5, 1.25
# Frames are on both sides of a cut if their histograms have at least this Hellinger distance: 0.7 to 0.95 between shots
# of different people in different places, at most 0.2 between frames 4/25 s apart of people who walk and wave.
CUT = 0.45
# Of these histograms: bins of each colour, and the side in pixels to which a frame is shrunk for it.
BINS, SHRUNK = 8, 64


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
        recent = centres_of(np.stack(self.boxes[-4:]))
        if len(recent) == 1:
            return recent[-1]
        velocity = np.median(np.diff(recent, axis=0) / np.diff(self.times[-4:])[:, None], axis=0)
        gap = time - self.times[-1]
        return recent[-1] + velocity * (gap if gap < LONG_GAP else 0)

    def is_over(self, time: int) -> bool:
        """Whether it can no longer be continued."""
        return len(self.times) < FEW and time - self.times[-1] > LONG_GAP


class CutFinder:
    """Says of each frame, in temporal order, whether there is a cut between the frame before it and this one."""

    def __init__(self) -> None:
        self._last: np.ndarray | None = None

    def __call__(self, frame: np.ndarray) -> bool:
        """Of the next frame, uint8 ``(H, W, 3)``; before the first frame, there is no cut."""
        small = cv2.resize(frame, (SHRUNK, SHRUNK), interpolation=cv2.INTER_AREA)
        colours = cv2.calcHist([small], [0, 1, 2], None, [BINS] * 3, [0, 256] * 3)
        before, self._last = self._last, colours
        return before is not None and cv2.compareHist(before, colours, cv2.HISTCMP_HELLINGER) >= CUT


def link(detections: Sequence[np.ndarray], cuts: Sequence[bool]) -> list[Track]:
    """Link the boxes of each frame into tracks, see :class:`Linker`."""
    linker = Linker()
    for boxes, cut in zip(detections, cuts, strict=True):
        linker.add(boxes, cut)
    return linker.tracks


class Linker:
    """Links the boxes of each frame, in temporal order, into tracks.

    Each box goes to the person it fits best, or starts another. Later frames only lengthen tracks.

    Attributes:
        count: frames so far.
        cuts: the frames that begin after a cut.
    """

    def __init__(self) -> None:
        self.count = 0
        self.cuts: list[int] = []
        self._people: list[Track] = []
        self._over: list[Track] = []

    @property
    def tracks(self) -> list[Track]:
        """All tracks so far."""
        return self._over + self._people

    def add(self, boxes: np.ndarray, cut: bool = False) -> None:
        """Link the boxes ``(N, 4)`` of the next frame, which begins after a ``cut`` or does not."""
        from scipy.optimize import linear_sum_assignment  # here: it takes a second, and clips of faces need none

        time, taken = self.count, set()
        self.count += 1
        if time % LONG_GAP == 0:
            self._over += [track for track in self._people if track.is_over(time)]
            self._people = [track for track in self._people if not track.is_over(time)]
        if cut:
            self.cuts.append(time)
        misfit = _misfit(self._people, boxes, time, cut)
        for row, column in zip(*linear_sum_assignment(misfit), strict=True):
            if misfit[row, column] < REACH:
                self._people[row].add(time, boxes[column])
                taken.add(column)
        for column, box in enumerate(boxes):
            if column not in taken:
                self._people.append(Track())
                self._people[-1].add(time, box)


def _misfit(people: list[Track], boxes: np.ndarray, time: int, cut: bool) -> np.ndarray:
    """``(people, boxes)``: how far each box is from where each person should be, in face heights, ``REACH`` at most."""
    reach, growth = (REACH_AFTER_CUT, GROWTH_AFTER_CUT) if cut else (REACH, MAX_GROWTH)
    misfit = np.full((len(people), len(boxes)), REACH)
    for row, person in zip(misfit, people, strict=True):
        last = person.boxes[-1]
        expected = centres_of(last) if cut else person.centre_at(time)  # a walk does not go on after a cut
        distance = np.linalg.norm(centres_of(boxes) - expected, axis=1) / last[3]
        fits = (np.abs(np.log(boxes[:, 3] / last[3])) < math.log(growth)) & (distance < reach)
        row[fits] = distance[fits]
    return misfit


def centres_of(boxes: np.ndarray) -> np.ndarray:
    """Centres ``(…, 2)`` of boxes ``(…, 4)`` x, y, width, height."""
    return boxes[..., :2] + boxes[..., 2:] / 2
