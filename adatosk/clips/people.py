"""The people in a whole video: faces are searched for once, and each overlapping clip is cut from what was found."""

from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from adatosk.clips.faces import (
    Face,
    check_person,
    check_there,
    check_upright,
    is_seen,
    load_detector,
    search,
    shows,
    squares_of,
    turned_by,
)
from adatosk.clips.tracks import CutFinder, Linker, Track

# Frames searched at one resolution, and held in memory at full size.
TOGETHER = 16
# Of the first so many of these groups, a frame each says whether the video has to be turned.
LOOKED_AT_TURNED = 8


class People:
    """The people whom at least one of a video's clips shows, the largest first, by the sum of their faces' areas.

    Somebody is followed over the whole video, but not recognised: who is away for long, or there again after a cut,
    counts as the same person only in the same place. So does somebody else who is there then; :class:`Face` counts the
    cuts.

    Args:
        clips: which of the frames that will be searched each clip consists of, int ``(clips, T)``.
        person: whose face is wanted: 1 for the largest.

    Raises:
        FaceDetectorError: the detector's weights are missing or damaged.
        ValueError: ``person`` is below 1.
    """

    def __init__(self, clips: np.ndarray, person: int = 1):
        check_person(person)
        self.person = person
        self._clips, self._detector, self._linker = clips, load_detector(), Linker()
        self._is_cut = CutFinder()
        self._turned: list[int] = []
        self._shots: list[int] = []  # of each frame
        self._size = (0, 0)

    @property
    def searched(self) -> int:
        """How many frames have been."""
        return self._linker.count

    def search(self, images: Sequence[np.ndarray]) -> None:
        """Search the next frames, uint8 ``(H, W, 3)``; by ``TOGETHER``, since they get one resolution."""
        self._size = images[0].shape[:2]
        cuts = list(map(self._is_cut, images))
        for boxes, cut in zip(search(self._detector, images, cuts)[0], cuts, strict=True):
            self._linker.add(boxes, cut)
            self._shots.append(len(self._linker.cuts))
        if len(self._turned) < LOOKED_AT_TURNED:
            self._turned.append(turned_by(self._detector, images[len(images) // 2]))

    def guess(self, clip: int) -> np.ndarray | None:
        """The squares ``(T, 4)`` of who is the person as far as the video has been searched, beyond this clip at least.

        ``None`` where that person is not seen. In most videos, that is what :meth:`faces` says in the end.
        """
        seen = [track for track in self._linker.tracks if is_seen(len(track.times), self._clips.shape[1])]
        seen.sort(key=lambda track: -track.area)
        if len(seen) < self.person:
            return None
        track = seen[self.person - 1]
        if not self._shown(track, clip):
            return None
        return self._squares(self._within(track, self._clips[clip]))

    def check(self, path: str | Path) -> None:
        """Raise a `FaceNotFoundError` that names the video if nobody of this number is there, or is upright."""
        turned = max(self._turned, key=self._turned.count)
        if self._turned.count(turned) > len(self._turned) / 2:
            check_upright(path, turned)
        check_there(path, self.person, len(self))

    def __len__(self) -> int:
        return len(self._ranked())

    def faces(self, person: int | None = None) -> list[Face | None]:
        """A person's face in each clip, as :func:`adatosk.clips.faces.find_faces` places it in a single one.

        ``None`` where the clip does not show the person, see :func:`adatosk.clips.faces.shows`.

        Args:
            person: another one than whose face is wanted.
        """
        person, ranked = person or self.person, self._ranked()
        track, shown = ranked[person - 1]
        parts = [self._within(track, clip) if there else None for clip, there in zip(self._clips, shown, strict=True)]
        return [
            None if part is None else Face(self._squares(part), len(part.times), person, len(ranked), self._cuts(clip))
            for part, clip in zip(parts, self._clips, strict=True)
        ]

    def _cuts(self, clip: np.ndarray) -> int:
        """How many cuts a clip has."""
        return bisect_right(self._linker.cuts, clip[-1]) - bisect_right(self._linker.cuts, clip[0])

    def counted(self) -> np.ndarray:
        """How many people each clip shows, int ``(clips,)``."""
        return np.sum([shown for _, shown in self._ranked()], axis=0)

    def _ranked(self) -> list[tuple[Track, np.ndarray]]:
        """Each person's track, and which clips show it, bool ``(clips,)``."""
        tracks = [(track, self._shown(track)) for track in self._linker.tracks]
        return sorted((one for one in tracks if one[1].any()), key=lambda one: -one[0].area)

    def _shown(self, track: Track, clip: int | slice = slice(None)) -> np.ndarray:
        """Which clips, or whether one, show a track."""
        there = np.zeros(self.searched, bool)
        there[track.times] = True
        return shows(there[self._clips[clip]], np.array(self._shots)[self._clips[clip]])

    def _within(self, track: Track, clip: np.ndarray) -> Track:
        """The part of a track within a clip, whose frames count from 0; its area is not needed."""
        part = slice(bisect_left(track.times, clip[0]), bisect_right(track.times, clip[-1]))
        boxes = dict(zip(track.times[part], track.boxes[part], strict=True))
        times = [time for time, place in enumerate(clip.tolist()) if place in boxes]
        return Track(times, [boxes[clip[time]] for time in times])

    def _squares(self, within: Track) -> np.ndarray:
        return squares_of(within, self._clips.shape[1], *self._size)
