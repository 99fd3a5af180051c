"""The expression over a whole video: ``adatosk predict VIDEO --model FOLDER --every 0.5``.

Overlapping clips slide over the video. They start whole strides apart, so that they share frames: each frame is
decoded, searched for faces and cropped once and then dropped, so that a long video takes the memory of a short one. The
model classifies the first clips while later ones are still being decoded.
"""

import copy
import importlib.util
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from itertools import groupby, islice
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from adatosk.clips import normalise
from adatosk.clips.faces import Face
from adatosk.clips.sliding import SlidingClips, sliding_clips
from adatosk.config import ModelConfig
from adatosk.model import AdaTosk
from adatosk.onednn import for_inference
from adatosk.predict import as_seen, dtype_of, load_model
from adatosk.tokens import tube_mask
from adatosk.utils.devices import run_device
from adatosk.utils.files import check_target, is_ordinary, replacing
from adatosk.utils.parallel import in_advance, in_order
from adatosk.utils.provenance import device_name
from adatosk.utils.tables import defused
from adatosk.video import open_stream, read_frames
from adatosk.video.reading import FPS

# Batches that are classified at once on a CPU, however many cores it has: each takes memory.
MOST_BATCHES = 4


@dataclass(frozen=True, eq=False)
class Curve:
    """A model's predictions for the overlapping clips of one video.

    Attributes:
        path, config: the video, and the model's configuration.
        seconds: the middle of each clip, float ``(clips,)``.
        labels: the most probable class of each; empty where the person is not seen.
        probabilities: float ``(clips, classes)``; NaN where the person is not seen.
        frames: which frames of the video each clip consists of, int ``(clips, T)``.
        starts, ends: when the first and the last of them are shown, in seconds.
        faces: of the person in each clip; ``None`` where not seen. ``None`` instead of all if not looked for.
        people: how many people each clip shows; 0 if not looked for.
        visible: the hard mask of the first view, bool ``(N_s,)``, True = visible.
        weights: the temporal soft mask under it, averaged over the channels, float ``(clips, n_t, N_s)``; NaN for
            hidden and excluded patches and where the person is not seen; ``None`` for a model without one.
        active: the active frames (Eq. 5), bool ``(clips, n_t)``; ``None`` for a model that has none.
        device: name of the GPU or CPU that computed them.
    """

    path: Path
    config: ModelConfig
    seconds: np.ndarray
    labels: list[str]
    probabilities: np.ndarray
    frames: np.ndarray
    starts: np.ndarray
    ends: np.ndarray
    faces: Sequence[Face | None] | None
    people: np.ndarray
    visible: Tensor
    weights: np.ndarray | None
    active: np.ndarray | None
    device: str

    def table(self) -> pd.DataFrame:
        """One row per clip: ``time``, ``start`` and ``end`` in seconds, ``label``, a column of probabilities for each
        class; ``people``, how many the clip shows; ``face``, which says whose was used; and ``left``, ``top``,
        ``right`` and ``bottom``, its square in the middle of the clip, in pixels. Empty or missing where the person is
        not seen, or no face was looked for.
        """
        when = pd.DataFrame({"time": self.seconds, "start": self.starts, "end": self.ends, "label": self.labels})
        faces = self.faces or [None] * len(self.labels)
        about = pd.DataFrame({"people": self.people, "face": ["" if face is None else str(face) for face in faces]})
        middle = self.frames.shape[1] // 2
        squares = [[None] * 4 if face is None else face.squares[middle].tolist() for face in faces]
        corners = pd.DataFrame(squares, columns=["left", "top", "right", "bottom"], dtype="Int64")
        # Side by side, since a class may be called like another column.
        return pd.concat([when, pd.DataFrame(self.probabilities, columns=self.config.classes), about, corners], axis=1)

    def turns(self) -> list[slice]:
        """Consecutive clips of the same label; those without the person belong to none."""
        runs = [(label, list(run)) for label, run in groupby(range(len(self.labels)), key=self.labels.__getitem__)]
        return [slice(run[0], run[-1] + 1) for label, run in runs if label]

    @property
    def whose(self) -> str:
        """Whose face was used, in how many clips it is seen, and which of these have cuts; empty if not looked for."""
        if self.faces is None:
            return ""
        seen = [face for face in self.faces if face is not None]
        first, who = seen[0], "the only person"
        if first.people > 1:
            rank = "the largest" if first.person == 1 else f"number {first.person} by size"
            who = f"{rank} of {first.people} people's faces"
        parts = [f"{who}, seen in {len(seen)} of {len(self.faces)} clips"]
        others = sum(face is None and people > 0 for face, people in zip(self.faces, self.people, strict=True))
        cut = sum(face.cuts > 0 for face in seen)
        if others:
            parts.append(f"{others} {'shows' if others == 1 else 'show'} only other people")
        if cut:
            parts.append(f"{cut} {'runs' if cut == 1 else 'run'} across a cut, after which nobody is recognised")
        return "; ".join(parts)

    def in_words(self) -> list[str]:
        """A line a turn: the middles of its first and of its last clip, its label and the label's mean probability."""
        lines = []
        for turn in self.turns():
            first, last = self.seconds[turn.start], self.seconds[turn.stop - 1]
            mean = self.probabilities[turn].max(axis=1).mean()
            when = f"{first:7.1f} to" if first < last else f"{'at':>10}"
            lines.append(f"{when} {last:6.1f} s  {self.labels[turn.start]:<12}{mean:.3f}")
        return lines

    def decisive(self, most: int = 6) -> list[int]:
        """The clips that decided: the most certain one of each of the longest ``turns``, in temporal order."""
        longest = sorted(self.turns(), key=lambda turn: turn.start - turn.stop)[:most]
        best = self.probabilities.max(axis=1)
        return sorted(turn.start + int(best[turn].argmax()) for turn in longest)

    def decisive_step(self, clip: int) -> int:
        """The frame pair of a clip that counted most: the largest weights among the active frames; else the middle."""
        if self.weights is None:
            return self.frames.shape[1] // self.config.tubelet // 2
        weights = np.nansum(self.weights[clip], axis=1)
        return int((weights if self.active is None else np.where(self.active[clip], weights, -1)).argmax())

    def read(self, clip: int) -> np.ndarray:
        """The whole frames of one clip, read again: uint8 ``(T, H, W, 3)``."""
        return read_frames(self.path, lambda _: self.frames[clip], decoder="pyav")

    def seen(self, clip: int) -> np.ndarray:
        """The frames of one clip as the model saw them: uint8 ``(T, H, W, 3)``."""
        face = None if self.faces is None else self.faces[clip]
        return as_seen(self.read(clip), face, self.config.image_size).permute(0, 2, 3, 1).numpy()


def predict_over_time(
    path: str | Path,
    model: AdaTosk | str | Path,
    every: float = 0.5,
    views: int = 1,
    person: int = 1,
    locate_face: bool = True,
    stride: int = 4,
    batch_size: int = 4,
    precision: str = "fp32",
    fps: float = FPS,
    device: torch.device | str | None = None,
) -> Curve:
    """Classify overlapping clips of a whole video, each as :func:`adatosk.predict.predict` does.

    The video is decoded once, from end to end, and not clip by clip. Whose face is the largest is known at its end:
    clips for which it seemed to be somebody else's are decoded and classified again. On a CPU, several batches are
    classified at once.

    Args:
        path, model, views, locate_face, stride, device: as for :func:`adatosk.predict.predict`; PyAV decodes the file.
        every: seconds between clips, rounded to whole strides. A video that is shorter than a clip has one.
        person: whose face to use if there are several: 1 for the largest over the whole video, 2 for the next; the same
            person all along, see :class:`adatosk.clips.people.People`.
        batch_size: clips per batch.
        precision: ``fp32`` or ``bf16``; weights are converted once.
        fps: frames per second of a folder of frames.

    Raises:
        FaceDetectorError, FaceNotFoundError, FileNotFoundError, VideoError: as for :func:`adatosk.predict.predict`.
        ValueError: for an impossible option.
    """
    _check(every, batch_size, views)
    dtype = dtype_of(precision)
    path, stream = Path(path), open_stream(path, fps)
    # The caller's model stays as it is.
    model = copy.deepcopy(model) if isinstance(model, AdaTosk) else load_model(model, run_device(device))
    frames = sliding_clips(stream, model.config.frames, stride, every)
    sliding = SlidingClips(path, stream, frames, model.config.image_size, person if locate_face else None)
    looked = _look(model, sliding, batch_size, views, dtype)
    starts, ends = stream.seconds[frames[:, 0]], stream.seconds[frames[:, -1]]
    return Curve(
        path,
        model.config,
        (starts + ends) / 2,
        frames=frames,
        starts=starts,
        ends=ends,
        faces=sliding.faces,
        people=sliding.people,
        device=device_name(model.mask_token.device),
        **looked,
    )


def _check(every: float, batch_size: int, views: int) -> None:
    if not 0 < every < np.inf:
        raise ValueError(f"every must be a positive number of seconds, got {every}")
    for name, value in (("batch_size", batch_size), ("views", views)):
        if value < 1:
            raise ValueError(f"{name} must be at least 1, got {value}")


def _look(model: AdaTosk, sliding: SlidingClips, batch_size: int, views: int, dtype: torch.dtype) -> dict:
    """What :class:`Curve` says about the model's predictions for the clips."""
    config, count, clips = model.config, len(sliding.people), sliding.clips()
    generator = torch.Generator().manual_seed(0)  # the masks of AdaTosk.classify
    masks = [tube_mask(1, config.patches, config.mask_ratio, generator) for _ in range(views)]
    probabilities = np.full((count, len(config.classes)), np.nan)
    weights = None if config.soft_mask is None else np.full((count, config.steps, config.patches), np.nan, np.float32)
    active = np.zeros((count, config.steps), bool)
    classify = partial(_classify, for_inference(model, dtype), masks, dtype)
    with in_advance(iter(lambda: list(islice(clips, batch_size)), []), ahead=1) as batches:
        for batch, (found, shown, moving) in _side_by_side(classify, batches, model.mask_token.device):
            numbers = [number for number, _ in batch]
            probabilities[numbers] = found
            if weights is not None and shown is not None:
                weights[numbers] = shown
            if moving is not None:
                active[numbers] = moving
    unseen = [face is None for face in sliding.faces or []]
    if any(unseen):  # some may have shown who seemed to be the person at first
        probabilities[unseen], active[unseen] = np.nan, False
        if weights is not None:
            weights[unseen] = np.nan
    labels = ["" if np.isnan(row[0]) else config.classes[row.argmax()] for row in probabilities]
    has_active = config.soft_mask is not None and config.soft_mask.agnostic
    return {
        "labels": labels,
        "probabilities": probabilities,
        "visible": masks[0][0],
        "weights": weights,
        "active": active if has_active else None,
    }


@torch.inference_mode()
def _classify(
    model: AdaTosk, masks: Sequence[Tensor], dtype: torch.dtype, batch: Sequence[tuple[int, Tensor]]
) -> tuple[np.ndarray, np.ndarray | None, np.ndarray | None]:
    """Probabilities ``(B, classes)``, weights ``(B, n_t, N_s)`` and active frames ``(B, n_t)`` of a batch's clips."""
    video = normalise(torch.stack([clip for _, clip in batch]).to(model.mask_token.device).transpose(1, 2)).to(dtype)
    seen = [model(video, mask.expand(len(video), -1), reconstruct=False) for mask in masks]
    probabilities = torch.stack([one.logits for one in seen]).mean(dim=0).float().softmax(dim=1).cpu().numpy()
    mask = seen[0].soft_mask
    if mask is None:
        return probabilities, None, None
    grid = torch.full((len(batch), model.config.steps, model.config.patches), torch.nan)
    grid[:, :, masks[0][0]] = mask.weights.float().mean(dim=-1).masked_fill(~mask.kept, torch.nan).cpu()
    return probabilities, grid.numpy(), None if mask.active is None else mask.active.cpu().numpy()


def _side_by_side(
    classify: Callable, batches: Iterator[Sequence[tuple[int, Tensor]]], device: torch.device
) -> Iterator[tuple[Sequence[tuple[int, Tensor]], tuple]]:
    """Yield each batch and what ``classify`` makes of it, in order; on a CPU, several are classified at once.

    torch's threads wait for each other after every operation, so one that shares its core with the decoder would make
    all of them wait. Batches wait for nothing but their own core.
    """
    threads = torch.get_num_threads()
    workers = min(threads, MOST_BATCHES) if device.type == "cpu" else 1
    start = partial(torch.set_num_threads, threads // workers)
    try:
        with ThreadPoolExecutor(workers, initializer=start) as pool:
            yield from in_order(pool, classify, batches, ahead=workers)
    finally:
        torch.set_num_threads(threads)


def check_table(out: Path) -> None:
    """Check that :func:`write_curve` can write a file, before the work: its folder, and what writes its kind.

    Raises:
        OSError: see :func:`adatosk.utils.files.check_target`.
        ModuleNotFoundError: pandas has nothing to write Parquet with.
    """
    check_target(out, "curve.csv")
    if _is_parquet(out) and not any(map(importlib.util.find_spec, ("pyarrow", "fastparquet"))):
        raise ModuleNotFoundError(f"{out}: writing Parquet needs pyarrow: pip install pyarrow, or name a .csv")


def write_curve(curve: Curve, out: Path) -> None:
    """Write :meth:`Curve.table` as Parquet if the file is called .parquet, otherwise as CSV.

    In a CSV, text that a spreadsheet would execute is prefixed with an apostrophe, see :mod:`adatosk.utils.tables`.
    """
    with replacing(out) if is_ordinary(out) else nullcontext(out) as place:
        if _is_parquet(out):
            curve.table().to_parquet(place, index=False)
        else:
            defused(curve.table()).to_csv(place, index=False, float_format="%.4f")


def _is_parquet(out: Path) -> bool:
    return out.suffix.lower() == ".parquet"
