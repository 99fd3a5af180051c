"""Initialise an encoder from a VideoMAE checkpoint: ``adatosk pretrained FILE`` prints which of its weights fit.

Supported are the authors' ``.pth`` files (github.com/MCG-NJU/VideoMAE, pre-trained and fine-tuned) and those saved by
Hugging Face's ``VideoMAEModel``, ``VideoMAEForPreTraining`` and ``VideoMAEForVideoClassification``; this package's own
``model.safetensors`` uses the authors' names. Only the encoder is loaded: VideoMAE's decoder is 384 wide with 4 blocks,
whereas the paper's is 512 wide with 1, and a classifier is tied to its own classes. Positions are a fixed sinusoid, so
they are in no file.

A fine-tuned checkpoint has ``fc_norm``, a norm of the *mean* over the tokens, in place of the norm of each token that
the encoder here ends with. These are different functions, so ``fc_norm`` is skipped, and the encoder's last norm is
left unchanged.

Code in a file is never executed: safetensors contains none, and ``.pth`` files are read with ``weights_only=True``,
where the only additional class allowed is ``argparse.Namespace``, in which the authors store their options.
"""

if __name__ == "__main__":  # before the imports, which take seconds: Ctrl-C is quiet during these, too
    from adatosk.utils.door import run_command

    run_command("pretrained")

import argparse
import pickle
import re
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from adatosk.config import Weights
from adatosk.model import AdaTosk
from adatosk.transformer import Encoder
from adatosk.utils.provenance import file_digest

# Name of a layout, the prefix of its encoder's parameters, and the parameter that identifies it.
_LAYOUTS = (
    ("VideoMAE, pre-trained", "encoder.", "patch_embed.proj.weight"),
    ("VideoMAE, fine-tuned", "", "patch_embed.proj.weight"),
    ("Hugging Face", "videomae.", "embeddings.patch_embeddings.projection.weight"),
    ("Hugging Face, bare model", "", "embeddings.patch_embeddings.projection.weight"),
)
# Hugging Face's names, replaced in this order by those of the authors and of this package.
_RENAMED = (
    (r"^embeddings\.patch_embeddings\.projection\.", "patch_embed.proj."),
    (r"^encoder\.layer\.", "blocks."),
    (r"^layernorm\.", "norm."),
    (r"\.layernorm_before\.", ".norm1."),
    (r"\.layernorm_after\.", ".norm2."),
    (r"\.attention\.attention\.(?:q_bias|query\.bias)$", ".attn.q_bias"),
    (r"\.attention\.attention\.(?:v_bias|value\.bias)$", ".attn.v_bias"),
    (r"\.attention\.attention\.(?:k_bias|key\.bias)$", ".attn.k_bias"),
    (r"\.attention\.output\.dense\.", ".attn.proj."),
    (r"\.intermediate\.dense\.", ".mlp.fc1."),
    (r"\.output\.dense\.", ".mlp.fc2."),
)
# What a file may contain besides the encoder. A key bias shifts all logits of a query equally, which its softmax
# ignores.
_BESIDE = re.compile(r"(decoder|encoder_to_decoder|mask_token|head|fc_norm|classifier)(\.|$)|.*\.attn\.k_bias$")
# Encoders that might be mistaken for VideoMAE's, identified by their parameter names.
_OTHERS = (
    (r"\.first_attn\.|lg_region_tokens$", "MAE-DFER's encoder, with local-global attention"),
    (r"(temporal|spatial)_downsamples\.", "SVFAP's encoder, a temporal pyramid with spatial bottlenecks"),
)
# What a fine-tuned checkpoint lacks (see the module's docstring); everything else is required.
_OPTIONAL = {"norm.weight", "norm.bias"}


@dataclass(frozen=True)
class Report:
    """Which of a checkpoint's weights were loaded into an encoder.

    Attributes:
        path: the file.
        layout: whose parameter names it uses.
        loaded: names of the encoder's parameters that were set.
        missing: names of those that are not in the file and were left unchanged.
        unexpected: names, as in the file, of the parameters that the encoder does not have and that were skipped.
        share: fraction of the encoder's weights that were set, in [0, 1].
    """

    path: str
    layout: str
    loaded: tuple[str, ...]
    missing: tuple[str, ...]
    unexpected: tuple[str, ...]
    share: float

    def __str__(self) -> str:
        beside = Counter(
            "key biases" if name.endswith(("k_bias", "key.bias")) else name.removeprefix("encoder.").split(".")[0]
            for name in self.unexpected
        )
        left_out = ", ".join(f"{part} ({count})" for part, count in beside.items())
        return "\n".join(
            (
                f"{self.path}: {self.layout}",
                f"  loaded      {len(self.loaded)} tensors, {100 * self.share:.2f} % of the encoder's parameters",
                f"  missing     {', '.join(self.missing) + ' (left as they were)' if self.missing else 'none'}",
                f"  unexpected  {left_out + ' (left out)' if left_out else 'none'}",
            )
        )


def describe(path: str | Path) -> Weights:
    """A checkpoint as a run's configuration refers to it: its path as given, and the SHA-256 of its bytes.

    Raises:
        FileNotFoundError: no such file.
    """
    return Weights(path=str(path), sha256=file_digest(_existing(path)))


def load_encoder(model: AdaTosk, path: str | Path, sha256: str | None = None) -> Report:
    """Load a checkpoint into a model's encoder; on an error, the model is left unchanged.

    The number of attention heads cannot be inferred from a file; VideoMAE's own models have one per 64 channels, like
    ``adatosk_base``. The numbers of frames and pixels may differ from the checkpoint's.

    Args:
        model: of the same width, depth, MLP ratio, tubelet and patch size.
        path: the file, in one of the layouts listed in this module's docstring.
        sha256: the expected digest, 64 hex digits; not compared by default.

    Raises:
        FileNotFoundError: no such file.
        ValueError: the digest differs; the file is not a checkpoint, is damaged, or contains code; the encoder is not
            VideoMAE's, or has other sizes; a parameter other than the last norm's is missing, or one is not finite.
    """
    path = _existing(path)
    if sha256 is not None and (digest := file_digest(path)) != sha256:
        raise ValueError(
            f"{path}: its SHA-256 is {digest}, but {sha256} is expected: put the file there that the run was made for, "
            f"or take the digest of this one from `adatosk pretrained {path}`, which makes it another run"
        )
    layout, found, beside = _encoder_of(_read(path), path)
    _check(found, model.encoder, path)
    model.encoder.load_state_dict(found, strict=False)
    sizes = {name: value.numel() for name, value in model.encoder.state_dict().items()}
    return Report(
        path=str(path),
        layout=layout,
        loaded=tuple(name for name in sizes if name in found),
        missing=tuple(name for name in sizes if name not in found),
        unexpected=tuple(beside),
        share=sum(sizes[name] for name in found) / sum(sizes.values()),
    )


def _existing(path: str | Path) -> Path:
    path = Path(path)
    if path.is_dir():
        raise FileNotFoundError(f"{path}: a folder: name the checkpoint in it, such as model.safetensors")
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such checkpoint")
    return path


def _read(path: Path) -> dict[str, Tensor]:
    """The weights in a file by name; no code in it is executed."""
    load: Callable[[Path], Any] = load_file if _is_safetensors(path) else _load_pth
    try:
        content = load(path)
    except MemoryError:
        raise
    except Exception as error:  # a damaged file can fail in any number of ways
        code = re.search(r"GLOBAL (\S+)", str(error)) if isinstance(error, pickle.UnpicklingError) else None
        if code:
            raise ValueError(
                f"{path}: refers to {code[1]}, which is neither a tensor nor a plain value; reading that could run "
                "code, so it was not done: use a file of the weights alone, such as safetensors"
            ) from None  # torch's message recommends loading it regardless
        raise ValueError(f"{path}: no checkpoint, or a damaged one: fetch it again") from error
    if isinstance(content, dict):
        content = next((content[key] for key in ("model", "module") if isinstance(content.get(key), dict)), content)
        weights = {name: value for name, value in content.items() if isinstance(name, str) and _is_weight(value)}
        if weights:
            return weights
    raise ValueError(f"{path}: holds no weights by name, neither as it is nor under 'model' or 'module'")


def _is_safetensors(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(9)[8:] == b"{"  # eight bytes of length, then a header in JSON


def _load_pth(path: Path) -> Any:
    # From an open file, because given a path torch would choose the format by its name.
    with path.open("rb") as file, torch.serialization.safe_globals([argparse.Namespace]):
        return torch.load(file, map_location="cpu", weights_only=True)


def _is_weight(value: Any) -> bool:
    return isinstance(value, Tensor) and value.is_floating_point() and value.layout == torch.strided


def _encoder_of(weights: dict[str, Tensor], path: Path) -> tuple[str, dict[str, Tensor], list[str]]:
    """The layout, the encoder's parameters under this package's names, and the file's names for everything else."""
    for pattern, what in _OTHERS:
        if any(re.search(pattern, name) for name in weights):
            raise ValueError(f"{path}: {what}; only VideoMAE's fits here")
    matching = [(layout, prefix) for layout, prefix, known in _LAYOUTS if prefix + known in weights]
    if not matching:
        raise ValueError(f"{path}: no VideoMAE checkpoint by its names{_some(list(weights))}")
    layout, prefix = matching[0]
    found: dict[str, Tensor] = {}
    beside = []
    for name, value in weights.items():
        ours = _renamed(name.removeprefix(prefix)) if "Hugging Face" in layout else name.removeprefix(prefix)
        if not name.startswith(prefix) or _BESIDE.match(ours):
            beside.append(name)
        else:
            found[ours] = value
    return layout, _with_joined_attention(found), beside


def _renamed(name: str) -> str:
    for pattern, ours in _RENAMED:
        name = re.sub(pattern, ours, name)
    return name


def _with_joined_attention(found: dict[str, Tensor]) -> dict[str, Tensor]:
    """Join Hugging Face's three matrices ``(D, D)`` per block into our one ``(3·D, D)``; leave others unchanged."""
    joined = dict(found)
    for name in found:
        block, separator, _ = name.partition(".attention.attention.query.weight")
        names = [f"{block}.attention.attention.{part}.weight" for part in ("query", "key", "value")]
        if separator and len({found[each].shape for each in names if each in found}) == 1 and set(names) <= set(found):
            joined[f"{block}.attn.qkv.weight"] = torch.cat([joined.pop(each) for each in names])
    return joined


def _check(found: dict[str, Tensor], encoder: Encoder, path: Path) -> None:
    """Raise ``ValueError`` unless the parameters are exactly those of an encoder of these sizes."""
    expected = encoder.state_dict()
    embedding = "patch_embed.proj.weight"
    theirs, ours = tuple(found[embedding].shape), tuple(expected[embedding].shape)
    if theirs != ours:
        raise ValueError(
            f"{path}: its patch embedding has the shape {theirs}, the model's {ours}: choose a model of the same width "
            "(the first number), tubelet and patch_size (the last three)"
        )
    depth = len({name.split(".")[1] for name in found if name.startswith("blocks.")})
    if depth != len(encoder.blocks):
        raise ValueError(f"{path}: it has {depth} blocks, the model {len(encoder.blocks)}: choose a model of its depth")
    missing = sorted(set(expected) - set(found) - _OPTIONAL)
    unknown = sorted(set(found) - set(expected))
    if missing or unknown:
        raise ValueError(
            f"{path}: another encoder than VideoMAE's, or a part of one: {len(missing)} parameters are missing"
            f"{_some(missing)}, {len(unknown)} have no place in the model's encoder{_some(unknown)}"
        )
    for name, value in found.items():
        if value.shape != expected[name].shape:
            raise ValueError(
                f"{path}: {name} has the shape {tuple(value.shape)}, the model's {tuple(expected[name].shape)}"
            )
        # Checked in the model's type: a float64 value may overflow float32.
        if not value.to(expected[name].dtype).isfinite().all():
            raise ValueError(
                f"{path}: {name} holds values that are not finite, as after a run that diverged or in a damaged file: "
                "fetch the checkpoint again, or take another one"
            )


def _some(names: list[str]) -> str:
    return f" ({', '.join(names[:3])}{', …' if len(names) > 3 else ''})" if names else ""
