"""Export a trained model as one program for other runtimes: ``adatosk export FOLDER --onnx FILE``.

The program maps normalised clips to logits. It sees the same patches of every clip: the hard masks, which are otherwise
random draws, are constants of the program. Its logits equal the model's under those masks.
"""

if __name__ == "__main__":  # before the imports, which take seconds: Ctrl-C is quiet during these, too
    from adatosk.utils.door import run_command

    run_command("export")

import copy
import importlib.util
import io
import warnings
from pathlib import Path

import torch
from torch import Tensor, nn

from adatosk.model import AdaTosk
from adatosk.tokens import check_mask, patchify, positions_of, tube_mask
from adatosk.utils.files import replacing

# The first opset with Gelu as a single operator.
OPSET = 20


class Classifier(nn.Module):
    """Maps normalised clips ``(B, C, T, H, W)`` to logits ``(B, classes)``, averaged over fixed hard masks.

    Args:
        model: copied without its decoder and put into evaluation mode.
        visible: the masks, bool ``(views, N_s)``, True = visible, each showing the same number of patches.

    Raises:
        ValueError: for masks of another shape, or showing different numbers of patches.
    """

    def __init__(self, model: AdaTosk, visible: Tensor):
        super().__init__()
        count = check_mask(visible, len(visible), model.config.patches)
        self.model = copy.deepcopy(model).eval()
        del self.model.decoder, self.model.encoder_to_decoder
        self.register_buffer("positions", positions_of(visible, count).to(model.mask_token.device))

    def forward(self, video: Tensor) -> Tensor:
        config = self.model.config
        patches = patchify(video, config.tubelet, config.patch_size)
        views = [where.expand(len(video), -1) for where in self.positions[:, None]]
        return torch.stack([self.model.classify_visible(patches, where) for where in views]).mean(dim=0)


def fixed_masks(model: AdaTosk, views: int = 1, seed: int = 0) -> Tensor:
    """Hard masks drawn once for all clips: bool ``(views, N_s)``."""
    if views < 1:
        raise ValueError(f"views must be at least 1, got {views}")
    generator = torch.Generator().manual_seed(seed)
    return tube_mask(views, model.config.patches, model.config.mask_ratio, generator)


def _example(model: AdaTosk) -> Tensor:
    """A batch of two clips: with one, the exporter would specialise on the batch size."""
    config = model.config
    return torch.zeros(2, 3, config.frames, config.image_size, config.image_size, device=model.mask_token.device)


def export_program(model: AdaTosk, visible: Tensor | None = None) -> torch.export.ExportedProgram:
    """The model as a ``torch.export`` program from normalised clips to logits, for any batch size; no decoder.

    Args:
        visible: the hard masks, bool ``(views, N_s)``; those of :func:`fixed_masks` by default.

    Raises:
        ValueError: see :class:`Classifier`.
    """
    classifier = Classifier(model, fixed_masks(model) if visible is None else visible)
    batch = {0: torch.export.Dim("batch")}
    with torch.no_grad():  # strict, because otherwise a len() in the model would specialise on the batch size
        return torch.export.export(classifier, (_example(model),), dynamic_shapes=(batch,), strict=True)


def _stable_sort(values, *, stable=None, dim: int = -1, descending: bool = False):
    """Translate a stable sort, which torch's exporter lacks, to ONNX's TopK over all values, which is stable as well.

    Tokens are ranked by M with it (Eq. 9).
    """
    from onnxscript import opset20

    axis = dim % len(values.shape)
    count = opset20.Shape(values, start=axis, end=axis + 1)
    return opset20.TopK(values, count, axis=axis, largest=int(descending), sorted=1)


def to_onnx(model: AdaTosk, path: str | Path, visible: Tensor | None = None) -> Path:
    """Write :func:`export_program`'s program as one ONNX file, with input ``video`` and output ``logits``.

    Raises:
        ModuleNotFoundError: when onnx or onnxscript is not installed.
        ValueError: see :class:`Classifier`.
    """
    missing = [name for name in ("onnx", "onnxscript") if importlib.util.find_spec(name) is None]
    if missing:
        raise ModuleNotFoundError(f"writing ONNX needs {' and '.join(missing)}: pip install {' '.join(missing)}")
    path = Path(path)
    with replacing(path) as part, warnings.catch_warnings():  # torch's exporter warns about its own calls
        warnings.simplefilter("ignore")
        torch.onnx.export(
            export_program(model, visible),
            f=str(part),
            input_names=["video"],
            output_names=["logits"],
            opset_version=OPSET,
            external_data=False,
            dynamo=True,
            custom_translation_table={torch.ops.aten.sort.stable: _stable_sort},
            verbose=False,
        )
    return path


def save_program(model: AdaTosk, path: str | Path, visible: Tensor | None = None) -> Path:
    """Write :func:`export_program`'s program for ``torch.export.load``; it has the same arguments and errors."""
    path = Path(path)
    # torch's own writer aborts the whole process when the disk is full.
    content = io.BytesIO()
    with warnings.catch_warnings():  # as in to_onnx
        warnings.simplefilter("ignore")
        torch.export.save(export_program(model, visible), content)
    with replacing(path) as part:
        part.write_bytes(content.getbuffer())
    return path
