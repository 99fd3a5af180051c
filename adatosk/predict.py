"""Classify the expression in any video of a person: ``adatosk predict VIDEO --model FOLDER``.

:mod:`adatosk.predict_many` does so for many videos.
"""

if __name__ == "__main__":  # before the imports, which take seconds: Ctrl-C is quiet during these, too
    from adatosk.utils.door import run_command

    run_command("predict")

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from adatosk.clips import normalise
from adatosk.clips.faces import Face, face_in
from adatosk.clips.transforms import picture
from adatosk.config import RunConfig
from adatosk.model import AdaTosk
from adatosk.onednn import through_onednn
from adatosk.soft_mask import SoftMask
from adatosk.utils.devices import run_device
from adatosk.utils.provenance import device_name
from adatosk.video import read_clip

# Floating-point precision of inference.
PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16}


def dtype_of(precision: str) -> torch.dtype:
    """The type of weights and activations in a precision; `ValueError` for an unknown one."""
    if precision not in PRECISIONS:
        raise ValueError(f"unknown precision '{precision}': choose {', '.join(PRECISIONS)}")
    return PRECISIONS[precision]


# The sets of adatosk.synthetic are called so; importing it takes a second.
RENDERED = "embedded-"


@dataclass(frozen=True, eq=False)
class Prediction:
    """A model's prediction for one video.

    Attributes:
        label: name of the most probable class.
        probabilities: by class name, in the model's order; they sum to 1.
        logits: ``(classes,)``, averaged over the views.
        soft_mask: the temporal soft mask of one view, with a batch size of 1; ``None`` for a model without one.
        visible: the hard mask of that view, bool ``(N_s,)``, True = visible.
        frames: uint8 ``(T, H, W, C)`` RGB, as the model saw them, before normalisation.
        face: whose face was cropped, and its square in each frame, in pixels of the video; ``None`` if not looked for.
        device: name of the GPU or CPU that computed it.
    """

    label: str
    probabilities: dict[str, float]
    logits: Tensor
    soft_mask: SoftMask | None
    visible: Tensor
    frames: np.ndarray
    face: Face | None
    device: str

    @property
    def people(self) -> int:
        """How many people's faces the clip shows; 0 if not looked for."""
        return 0 if self.face is None else self.face.people


@torch.inference_mode()
def predict(
    path: str | Path,
    model: AdaTosk | str | Path,
    views: int = 8,
    complementary: bool = False,
    start: int | None = None,
    locate_face: bool = True,
    stride: int = 4,
    person: int = 1,
    device: torch.device | str | None = None,
) -> Prediction:
    """Classify one clip of a video.

    Args:
        path: a video file or a folder of frames.
        model: a model, or a folder that ``save_pretrained`` wrote, such as ``runs/<run id>/checkpoints/last``.
        views, complementary: see :meth:`adatosk.model.AdaTosk.classify`.
        start, stride: which frames to sample, see :func:`adatosk.video.frame_indices`; by default from the middle.
        locate_face: find the face and crop to it; otherwise the central square of the frame is used, which is right
            for clips that are already cropped.
        person: whose face to use if there are several: 1 for the largest, 2 for the next, …, see
            :func:`adatosk.clips.faces.find_faces`.
        device: where a folder's model runs, see :func:`adatosk.utils.devices.run_device`; a model runs where it is.

    Raises:
        FaceDetectorError: the face detector's weights are missing or damaged.
        FaceNotFoundError: the sampled frames show no face, none of that number, or one that is not upright.
        FileNotFoundError: the model's folder contains no weights.
        ValueError: there is no such device.
        VideoError: the video cannot be read whole.
    """
    model = model if isinstance(model, AdaTosk) else through_onednn(load_model(model, run_device(device)))
    config = model.config
    frames = read_clip(path, config.frames, stride, start)
    face = face_in(path, frames, person) if locate_face else None
    video = as_seen(frames, face, config.image_size)
    batch = normalise(video.permute(1, 0, 2, 3)[None]).to(model.mask_token.device)  # (1, C, T, H, W)
    training = model.training
    model.eval()
    one = model(batch, generator=torch.Generator().manual_seed(0), reconstruct=False)
    # A single view has the same hard mask, and is not computed again.
    single = views == 1 and not complementary
    logits = (one.logits if single else model.classify(batch, views, complementary))[0].cpu()
    model.train(training)
    probabilities = dict(zip(config.classes, logits.softmax(dim=0).tolist(), strict=True))
    return Prediction(
        label=max(probabilities, key=probabilities.__getitem__),
        probabilities=probabilities,
        logits=logits,
        soft_mask=one.soft_mask,
        visible=one.visible[0].cpu(),
        frames=video.permute(0, 2, 3, 1).numpy(),
        face=face,
        device=device_name(model.mask_token.device),
    )


def as_seen(frames: np.ndarray, face: Face | None, size: int) -> Tensor:
    """Frames ``(T, H, W, C)``, cropped to the face if given and resized for the model: uint8 ``(T, C, size, size)``."""
    squares = [None] * len(frames) if face is None else face.squares.tolist()
    # One by one, since the squares around a person who comes nearer have several sizes.
    return torch.stack([picture(frame, square, size) for frame, square in zip(frames, squares, strict=True)])


def caveat(folder: str | Path) -> str:
    """What to know about the weights in a folder before trusting them on a real face; empty if nothing is known.

    The data that they were trained on is named by the run's ``config.json``, or by a model card beside them that lists
    ``datasets``.
    """
    folder = Path(folder)
    run, card, names = folder.absolute().parent.parent / "config.json", folder / "README.md", []
    if folder.absolute().parent.name == "checkpoints" and run.is_file():
        names = [Path(RunConfig.read(run).data.manifest).stem]
    elif card.is_file():
        from huggingface_hub import ModelCard

        named = ModelCard.load(card, ignore_metadata_errors=True).data.get("datasets") or []
        names = [named] if isinstance(named, str) else named
    rendered = [name for name in names if name.startswith(RENDERED)]
    return f"{folder}: trained on {rendered[0]}: these weights know rendered faces only" if rendered else ""


def load_model(folder: str | Path, device: torch.device | str = "cpu") -> AdaTosk:
    """The model in a folder that ``save_pretrained`` wrote, in evaluation mode, on a device.

    Raises:
        FileNotFoundError: naming the missing file.
        ValueError: see :meth:`adatosk.model.AdaTosk.from_pretrained`.
    """
    folder = Path(folder)
    for name in ("config.json", "model.safetensors"):
        if not (folder / name).is_file():
            raise FileNotFoundError(
                f"{folder / name}: no such file; name a folder such as runs/<run id>/checkpoints/last"
            )
    return AdaTosk.from_pretrained(folder).eval().to(device)
