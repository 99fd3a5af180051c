"""The people in a whole video: faces are searched for once, and each overlapping clip is cut from what was found."""

from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from adatosk.clips.faces import (
    Face,
    Linker,
    Track,
    check_person,
    check_there,
    is_seen,
    load_detector,
    search,
    squares_of,
)

# Frames searched at one resolution, and held in memory at full size.
TOGETHER = 16


class People:
    """The people whom at least one of a video's clips shows, the largest first, by the sum of their faces' areas.

    Somebody is followed over the whole video, but not recognised: who is away for long counts as the same person only
    when returning to the same place.

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
        self._size = (0, 0)

    @property
    def searched(self) -> int:
        """How many frames have been."""
        return self._linker.count

    def search(self, images: Sequence[np.ndarray]) -> None:
        """Search the next frames, uint8 ``(H, W, 3)``; by ``TOGETHER``, since they get one resolution."""
        self._size = images[0].shape[:2]
        for boxes in search(self._detector, images)[0]:
            self._linker.add(boxes)

    def guess(self, clip: int) -> np.ndarray | None:
        """The squares ``(T, 4)`` of who is the person as far as the video has been searched, beyond this clip at least.

        ``None`` where that person is not seen. In most videos, that is what :meth:`faces` says in the end.
        """
        seen = [track for track in self._linker.tracks if is_seen(len(track.times), self._clips.shape[1])]
        seen.sort(key=lambda track: -track.area)
        if len(seen) < self.person:
            return None
        found = self._within(seen[self.person - 1], self._clips[clip])
        return self._squares(found) if is_seen(len(found.times), self._clips.shape[1]) else None

    def check(self, path: str | Path) -> None:
        """Raise a `FaceNotFoundError` that names the video if it has nobody of the person's number."""
        check_there(path, self.person, len(self))

    def __len__(self) -> int:
        return len(self._ranked())

    def faces(self, person: int | None = None) -> list[Face | None]:
        """A person's face in each clip, as :func:`adatosk.clips.faces.find_faces` places it in a single one.

        ``None`` where the person is seen in less than a quarter of the clip's frames.

        Args:
            person: another one than whose face is wanted.
        """
        person, ranked = person or self.person, self._ranked()
        track, shown = ranked[person - 1]
        parts = [self._within(track, clip) if there else None for clip, there in zip(self._clips, shown, strict=True)]
        return [
            None if part is None else Face(self._squares(part), len(part.times), person, len(ranked)) for part in parts
        ]

    def counted(self) -> np.ndarray:
        """How many people each clip shows, int ``(clips,)``."""
        return np.sum([shown for _, shown in self._ranked()], axis=0)

    def _ranked(self) -> list[tuple[Track, np.ndarray]]:
        """Each person's track, and which clips show it, bool ``(clips,)``."""
        tracks = [(track, self._shown(track)) for track in self._linker.tracks]
        return sorted((one for one in tracks if one[1].any()), key=lambda one: -one[0].area)

    def _shown(self, track: Track) -> np.ndarray:
        there = np.zeros(self.searched, bool)
        there[track.times] = True
        return np.array([is_seen(times, self._clips.shape[1]) for times in there[self._clips].sum(axis=1).tolist()])

    def _within(self, track: Track, clip: np.ndarray) -> Track:
        """The part of a track within a clip, whose frames count from 0; its area is not needed."""
        part = slice(bisect_left(track.times, clip[0]), bisect_right(track.times, clip[-1]))
        boxes = dict(zip(track.times[part], track.boxes[part], strict=True))
        times = [time for time, place in enumerate(clip.tolist()) if place in boxes]
        return Track(times, [boxes[clip[time]] for time in times])

    def _squares(self, within: Track) -> np.ndarray:
        return squares_of(within, self._clips.shape[1], *self._size)
