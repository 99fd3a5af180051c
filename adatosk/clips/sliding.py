"""Overlapping clips that slide over a whole video, cut to a face while the video is still being searched for it."""

from collections import deque
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path

import cv2
import numpy as np
import torch
from torch import Tensor

from adatosk.clips.faces import Face
from adatosk.clips.people import TOGETHER, People
from adatosk.clips.transforms import picture
from adatosk.utils.parallel import in_advance
from adatosk.video import frame_indices, last_start
from adatosk.video.reading import FPS, Stream


def sliding_clips(stream: Stream, frames: int, stride: int, every: float) -> np.ndarray:
    """The frames of overlapping clips, from the first frame on: int ``(clips, frames)``; see `frame_indices`.

    They start a multiple of ``stride`` apart, the one nearest to ``every`` seconds at the average rate.
    """
    count, duration = stream.count, float(stream.seconds[-1])
    rate = (count - 1) / duration if duration else FPS
    step = max(1, round(every * rate / stride)) * stride
    starts = range(0, last_start(count, frames, stride) + 1, step)
    return np.stack([frame_indices(count, frames, stride, start) for start in starts])


class SlidingClips:
    """The clips of a video as a model sees them.

    Args:
        path, stream: the video.
        frames: which frames each clip consists of, int ``(clips, T)``, see :func:`sliding_clips`.
        size: side in pixels that the model sees.
        person: whose face to crop to, see :class:`adatosk.clips.people.People`; ``None`` for the central square.

    Attributes:
        faces: of the person in each clip, ``None`` where not seen; ``None`` instead of all if not looked for. Known
            once :meth:`clips` is exhausted.
        people: how many people each clip shows, int ``(clips,)``; 0 if not looked for.

    Raises:
        FaceDetectorError, ValueError: as for :class:`adatosk.clips.people.People`.
    """

    def __init__(self, path: Path, stream: Stream, frames: np.ndarray, size: int, person: int | None):
        self._path, self._stream, self._size = path, stream, size
        self._numbers, places = np.unique(frames, return_inverse=True)
        self._places = places.reshape(frames.shape)
        self._search = None if person is None else People(self._places, person)
        self.faces: list[Face | None] | None = None
        self.people = np.zeros(len(frames), int)

    def clips(self) -> Iterator[tuple[int, Tensor]]:
        """Yield the number of each clip and the clip, uint8 ``(T, C, size, size)``, in temporal order.

        A clip is cut as soon as its frames have been searched, to whoever is the person by then. Some may come again
        when the whole video is known, and some then turn out not to show the person: their ``faces`` are ``None``.

        Raises:
            FaceNotFoundError: nobody of this number is there.
            VideoError: a frame is damaged.
        """
        if self._search is None:
            yield from self._cut([None] * len(self._places), range(len(self._places)))
            return
        guesses: list[np.ndarray | None] = []
        for clip, squares, images in self._while_searching(self._search):
            guesses.append(squares)
            if squares is not None:
                yield clip, self._pictures(images, squares)
        self._search.check(self._path)
        self.faces, self.people = self._search.faces(), self._search.counted()
        squares = [None if face is None else face.squares for face in self.faces]
        wrong = [
            clip
            for clip, (guess, found) in enumerate(zip(guesses, squares, strict=True))
            if found is not None and (guess is None or not np.array_equal(guess, found))
        ]
        yield from self._cut(squares, wrong)

    def _while_searching(self, people: People) -> Iterator[tuple[int, np.ndarray | None, Sequence[np.ndarray]]]:
        """Yield each clip's number, guessed squares and frames once these are searched; frames no longer needed go."""
        held: deque[np.ndarray] = deque()
        clip, count = 0, len(self._places)
        threads = cv2.getNumThreads()
        cv2.setNumThreads(1)  # the other cores are with the model, and OpenCV's threads would wait busily
        try:
            with in_advance(image.copy() for image in self._stream.images(self._numbers.tolist())) as images:
                while some := list(islice(images, TOGETHER)):
                    people.search(some)
                    held.extend(some)
                    while clip < count and self._places[clip, -1] < people.searched:
                        gone = people.searched - len(held)
                        for _ in range(self._places[clip, 0] - gone):
                            held.popleft()
                        first = self._places[clip, 0]
                        yield clip, people.guess(clip), [held[place - first] for place in self._places[clip].tolist()]
                        clip += 1
        finally:
            cv2.setNumThreads(threads)

    def _cut(self, squares: Sequence[np.ndarray | None], clips: Sequence[int]) -> Iterator[tuple[int, Tensor]]:
        """Some of the clips, decoded for them, and cut to squares ``(T, 4)``, in temporal order."""
        uses: dict[int, list[tuple[int, int]]] = {}
        for clip in clips:
            for time, place in enumerate(self._places[clip].tolist()):
                uses.setdefault(place, []).append((clip, time))
        begun: dict[int, list[Tensor]] = {}
        places = sorted(uses)
        for place, image in zip(places, self._stream.images(self._numbers[places].tolist()), strict=True):
            image, cut = image.copy(), {}  # the decoder uses its memory again
            for clip, time in uses[place]:
                some = squares[clip]
                square = None if some is None else tuple(some[time].tolist())
                if square not in cut:
                    cut[square] = picture(image, square, self._size)
                begun.setdefault(clip, []).append(cut[square])
                if len(begun[clip]) == self._places.shape[1]:
                    yield clip, torch.stack(begun.pop(clip))

    def _pictures(self, images: Sequence[np.ndarray], squares: np.ndarray) -> Tensor:
        return torch.stack(
            [picture(image, square, self._size) for image, square in zip(images, squares.tolist(), strict=True)]
        )
