"""The people in a whole video: faces are searched for once, and each overlapping clip is cut from what was found."""

from collections.abc import Iterable
from itertools import islice
from pathlib import Path

import numpy as np

from adatosk.clips.faces import Face, Track, check_person, check_there, is_seen, link, load_detector, search, squares_of

# Frames searched at one resolution, and held in memory at full size.
TOGETHER = 16


class People:
    """The people whom at least one of a video's clips shows, the largest first, by the sum of their faces' areas.

    Somebody is followed over the whole video, but not recognised: who is away for long counts as the same person only
    when returning to the same place.

    Args:
        images: the frames to search, uint8 ``(H, W, 3)``, in temporal order.
        clips: which of these frames each clip consists of, int ``(clips, T)``.

    Raises:
        FaceDetectorError: the detector's weights are missing or damaged.
    """

    def __init__(self, images: Iterable[np.ndarray], clips: np.ndarray):
        self._clips = clips
        boxes, self._size = _search_all(images)
        tracks = [(track, _shown(track, len(boxes), clips)) for track in link(boxes)]
        seen = [(track, shown) for track, shown in tracks if shown.any()]
        self._tracks = sorted(seen, key=lambda one: -one[0].area)

    def __len__(self) -> int:
        return len(self._tracks)

    def faces(self, person: int = 1) -> list[Face | None]:
        """The face of one of them in each clip, as :func:`adatosk.clips.faces.find_faces` places it in a single one.

        ``None`` where the person is seen in less than a quarter of the clip's frames.
        """
        track, shown = self._tracks[person - 1]
        boxes = dict(zip(track.times, track.boxes, strict=True))
        clips = zip(self._clips, shown, strict=True)
        return [self._face(boxes, clip, person) if is_there else None for clip, is_there in clips]

    def counted(self) -> np.ndarray:
        """How many people each clip shows, int ``(clips,)``."""
        return np.sum([shown for _, shown in self._tracks], axis=0)

    def _face(self, boxes: dict[int, np.ndarray], clip: np.ndarray, person: int) -> Face:
        times = [time for time, place in enumerate(clip.tolist()) if place in boxes]
        track = Track(times, [boxes[clip[time]] for time in times])
        return Face(squares_of(track, len(clip), *self._size), len(times), person, len(self))


def people_in(path: str | Path, images: Iterable[np.ndarray], clips: np.ndarray, person: int = 1) -> People:
    """:class:`People`, or a `FaceNotFoundError` that names the video if it has nobody of this number."""
    check_person(person)
    people = People(images, clips)
    check_there(path, person, len(people))
    return people


def _search_all(images: Iterable[np.ndarray]) -> tuple[list[np.ndarray], tuple[int, int]]:
    """The boxes ``(N, 4)`` in each frame, and the frames' height and width."""
    detector, images, found, size = load_detector(), iter(images), [], (0, 0)
    while some := list(islice(images, TOGETHER)):
        size = some[0].shape[:2]
        found += search(detector, np.stack(some))[0]
    return found, size


def _shown(track: Track, count: int, clips: np.ndarray) -> np.ndarray:
    """bool ``(clips,)``: which clips show somebody who was detected in these of ``count`` frames."""
    there = np.zeros(count, bool)
    there[track.times] = True
    return np.array([is_seen(times, clips.shape[1]) for times in there[clips].sum(axis=1).tolist()])
