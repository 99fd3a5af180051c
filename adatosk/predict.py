"""Name the expression in any video of a person: ``python -m adatosk.predict VIDEO --model FOLDER``.

:mod:`adatosk.predict_many` does it for a folder of them.
"""

import argparse
import math
import sys
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
from torch import Tensor

from adatosk.clips import normalise
from adatosk.model import AdaTosk
from adatosk.soft_mask import SoftMask
from adatosk.transforms import eval_transform
from adatosk.video import read_clip

# A Haar box runs from the brows to below the lips; the clips of the field's data sets show the whole head.
FACE_MARGIN = 1.3
# Faces are looked for on frames of this longer side in pixels: enough for a face of a twentieth of the picture.
SEARCH_SIDE = 480
# Boxes that overlap by more than this (intersection over union) belong to one person.
SAME_FACE = 0.3
# A face counts when at least this share of the frames shows it: a cascade takes a shirt for a face now and then.
MIN_SHARE = 0.25

Box = tuple[int, int, int, int]


class FaceNotFoundError(ValueError):
    """No face in a video; the message names it and says what to do."""


@dataclass(frozen=True, eq=False)
class Prediction:
    """What a model makes of one video.

    Attributes:
        label: name of the most probable class.
        probabilities: by class name, in the model's order; they sum to 1.
        logits: ``(classes,)``, averaged over the views.
        soft_mask: the temporal soft mask of one view, batch of 1; ``None`` for a model without.
        visible: the hard mask of that view, bool ``(N_s,)``, True = visible.
        frames: uint8 ``(T, H, W, C)`` RGB, as the model saw them, before normalisation.
        face: the square that was cut out: left, top, right, bottom in pixels of the video; ``None`` if not looked for.
    """

    label: str
    probabilities: dict[str, float]
    logits: Tensor
    soft_mask: SoftMask | None
    visible: Tensor
    frames: np.ndarray
    face: Box | None


@torch.inference_mode()
def predict(
    path: str | Path,
    model: AdaTosk | str | Path,
    views: int = 8,
    complementary: bool = False,
    start: int | None = None,
    locate_face: bool = True,
    stride: int = 4,
) -> Prediction:
    """Classify one clip of a video.

    Args:
        path: a video file or a folder of frames.
        model: a model, or a folder that ``save_pretrained`` wrote, such as ``runs/<run id>/checkpoints/last``.
        views, complementary: see :meth:`adatosk.model.AdaTosk.classify`.
        start, stride: which frames are taken, see :func:`adatosk.video.frame_indices`; by default from the middle.
        locate_face: find the face and cut it out; else the central square of the frame is taken, which is right for
            clips that are already cropped.

    Raises:
        FaceNotFoundError: the sampled frames show no face.
        FileNotFoundError: the model's folder holds no weights.
        VideoError: the video cannot be read whole.
    """
    model = model if isinstance(model, AdaTosk) else load_model(model)
    config = model.config
    frames = read_clip(path, config.frames, stride, start)
    face = face_in(path, frames) if locate_face else None
    video = as_seen(frames, face, config.image_size)
    batch = normalise(video.permute(1, 0, 2, 3)[None]).to(model.mask_token.device)  # (1, C, T, H, W)
    training = model.training
    model.eval()
    logits = model.classify(batch, views, complementary)[0].cpu()
    one = model(batch, generator=torch.Generator().manual_seed(0))
    model.train(training)
    probabilities = dict(zip(config.classes, logits.softmax(dim=0).tolist(), strict=True))
    return Prediction(
        label=max(probabilities, key=probabilities.get),
        probabilities=probabilities,
        logits=logits,
        soft_mask=one.soft_mask,
        visible=one.visible[0].cpu(),
        frames=video.permute(0, 2, 3, 1).numpy(),
        face=face,
    )


def face_in(path: str | Path, frames: np.ndarray) -> Box:
    """:func:`find_face`, or a `FaceNotFoundError` that names the video and says what to do."""
    face = find_face(frames)
    if face is None:
        raise FaceNotFoundError(
            f"{path}: no face found; if the clip is already cropped to a face, pass locate_face=False "
            "(on the command line: --whole-frame)"
        )
    return face


def as_seen(frames: np.ndarray, face: Box | None, size: int) -> Tensor:
    """Frames ``(T, H, W, C)``, cut to the face if there is one, at the model's size: uint8 ``(T, C, size, size)``."""
    if face is not None:
        left, top, right, bottom = face
        frames = frames[:, top:bottom, left:right]
    return eval_transform(size)(torch.from_numpy(np.ascontiguousarray(frames)).permute(0, 3, 1, 2))


def load_model(folder: str | Path) -> AdaTosk:
    """The model in a folder that ``save_pretrained`` wrote, in evaluation mode.

    Raises:
        FileNotFoundError: naming the file that is not there.
        ValueError: see :meth:`adatosk.model.AdaTosk.from_pretrained`.
    """
    folder = Path(folder)
    for name in ("config.json", "model.safetensors"):
        if not (folder / name).is_file():
            raise FileNotFoundError(
                f"{folder / name}: no such file; name a folder such as runs/<run id>/checkpoints/last"
            )
    return AdaTosk.from_pretrained(folder).eval()


def find_face(frames: np.ndarray) -> Box | None:
    """The square around the face of the person who is seen most.

    Detections by OpenCV's frontal Haar cascade that overlap over the frames make one person; the person with the
    largest sum of areas is taken, at the median of its boxes, enlarged by ``FACE_MARGIN``. One square for the whole
    clip, since a box that follows the head would hide its motion.

    Args:
        frames: uint8 ``(T, H, W, 3)``.

    Returns:
        left, top, right, bottom in pixels, a square inside the frame; ``None`` where no face is in a quarter of the
        frames.
    """
    detector = cv2.CascadeClassifier(cv2.data.haarcascades + "haarcascade_frontalface_default.xml")
    height, width = frames.shape[1:3]
    shrink = min(1.0, SEARCH_SIDE / max(height, width))
    boxes, times = [], []
    for time, frame in enumerate(frames):
        grey = cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY)
        if shrink < 1:
            grey = cv2.resize(grey, None, fx=shrink, fy=shrink, interpolation=cv2.INTER_AREA)
        for box in detector.detectMultiScale(grey, scaleFactor=1.1, minNeighbors=5, minSize=(24, 24)):
            boxes.append(np.asarray(box) / shrink)
            times.append(time)
    if not boxes:
        return None
    person = _one_person(np.stack(boxes), np.array(times), math.ceil(MIN_SHARE * len(frames)))
    return None if person is None else _square(person, height, width)


def _one_person(boxes: np.ndarray, times: np.ndarray, frames_needed: int) -> np.ndarray | None:
    """Median box of the person with the largest sum of areas, from boxes ``(N, 4)`` x, y, w, h and their frames."""
    same = _overlaps(boxes) > SAME_FACE
    seen = np.array([len(set(times[row])) for row in same])
    areas = boxes[:, 2] * boxes[:, 3]
    weight = np.where(seen >= frames_needed, same @ areas, -1)
    return np.median(boxes[same[weight.argmax()]], axis=0) if weight.max() > 0 else None


def _overlaps(boxes: np.ndarray) -> np.ndarray:
    """Intersection over union of all pairs of boxes ``(N, 4)`` x, y, w, h: ``(N, N)``."""
    low, high = boxes[:, :2], boxes[:, :2] + boxes[:, 2:]
    sides = np.minimum(high[:, None], high[None]) - np.maximum(low[:, None], low[None])
    shared = sides.clip(0).prod(axis=-1)
    areas = boxes[:, 2:].prod(axis=1)
    return shared / (areas[:, None] + areas[None] - shared)


def _square(box: np.ndarray, height: int, width: int) -> Box:
    """The enlarged square around a box x, y, w, h, moved where it would leave the frame, and smaller where it must."""
    side = min(round(FACE_MARGIN * max(box[2:])), height, width)
    left, top = (
        int(np.clip(round(box[axis] + (box[axis + 2] - side) / 2), 0, limit - side))
        for axis, limit in ((0, width), (1, height))
    )
    return left, top, left + side, top + side


def main(arguments: list[str] | None = None) -> int:
    """The command line; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m adatosk.predict", description=__doc__)
    parser.add_argument("video", type=Path, help="a video file or a folder of frames")
    parser.add_argument(
        "--model", type=Path, required=True, help="folder of a model, such as runs/<id>/checkpoints/last"
    )
    parser.add_argument("--views", type=int, default=8, help="hard-mask draws that are averaged")
    parser.add_argument(
        "--complementary", action="store_true", help="partitions instead: every patch is seen once a view"
    )
    parser.add_argument("--start", type=int, help="first frame; the middle of the video by default")
    parser.add_argument(
        "--whole-frame", action="store_true", help="do not look for a face: the clip is already cropped"
    )
    options = parser.parse_args(arguments)
    try:
        found = predict(
            options.video, options.model, options.views, options.complementary, options.start, not options.whole_frame
        )
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(found.label)
    for name, probability in sorted(found.probabilities.items(), key=lambda item: -item[1]):
        print(f"  {name:<12}{probability:.3f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
