"""Start an encoder from a VideoMAE checkpoint: ``adatosk pretrained FILE`` prints what of it fits.

Read are the authors' ``.pth`` files (github.com/MCG-NJU/VideoMAE, pre-trained and fine-tuned) and what Hugging Face's
``VideoMAEModel``, ``VideoMAEForPreTraining`` and ``VideoMAEForVideoClassification`` save; a ``model.safetensors`` of
this package has the authors' names. Only the encoder is taken: VideoMAE's decoder is 384 wide with 4 blocks where the
paper's is 512 wide with 1, and a classifier knows its own classes. Positions are a fixed sinusoid, so no file holds
them.

A fine-tuned checkpoint has ``fc_norm``, a norm of the *mean* over the tokens, in place of the norm of each token that
the encoder here ends with. The two are different functions, so ``fc_norm`` is left out, and the encoder's last norm
keeps the values that the model has.

No code in a file is ever run: safetensors holds none, and ``.pth`` is read with ``weights_only=True``, to which
``argparse.Namespace``, in which the authors keep their options, is the only addition.
"""

if __name__ == "__main__":  # before the imports, which take seconds: Ctrl-C is quiet during these, too
    from adatosk.__main__ import main

    main("pretrained")

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

# Name of a layout, what its encoder's names begin with, and the rest of the name that it is recognised by.
_LAYOUTS = (
    ("VideoMAE, pre-trained", "encoder.", "patch_embed.proj.weight"),
    ("VideoMAE, fine-tuned", "", "patch_embed.proj.weight"),
    ("Hugging Face", "videomae.", "embeddings.patch_embeddings.projection.weight"),
    ("Hugging Face, bare model", "", "embeddings.patch_embeddings.projection.weight"),
)
# Hugging Face's names, in this order, and what they are called by the authors and here.
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
# What may stand beside the encoder in a file. A key bias adds the same to all logits of a query, which its softmax does
# not see.
_BESIDE = re.compile(r"(decoder|encoder_to_decoder|mask_token|head|fc_norm|classifier)(\.|$)|.*\.attn\.k_bias$")
# Encoders with names of their own that one might take for VideoMAE's.
_OTHERS = (
    (r"\.first_attn\.|lg_region_tokens$", "MAE-DFER's encoder, whose attention is local and global by turns"),
    (r"(temporal|spatial)_downsamples\.", "SVFAP's encoder, a temporal pyramid with spatial bottlenecks"),
)
# What a fine-tuned checkpoint lacks, see above; everything else has to be there.
_OPTIONAL = {"norm.weight", "norm.bias"}


@dataclass(frozen=True)
class Report:
    """What a checkpoint gave to an encoder.

    Attributes:
        path: the file.
        layout: whose names its parameters have.
        loaded: names of the encoder's parameters that were set.
        missing: names of those that the file does not hold and that were left as they were.
        unexpected: names, as in the file, of what has no place in the encoder and was left out.
        share: of the encoder's parameters, counted as numbers, that were set, from 0 to 1.
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
    """A checkpoint as a run's configuration names it: its path as given, and the SHA-256 of its bytes.

    Raises:
        FileNotFoundError: no such file.
    """
    return Weights(path=str(path), sha256=file_digest(_existing(path)))


def load_encoder(model: AdaTosk, path: str | Path, sha256: str | None = None) -> Report:
    """Set a model's encoder to a checkpoint's; a model is left as it was where an error is raised.

    The number of attention heads cannot be seen in a file; VideoMAE's own models have one for each 64 of their width,
    as ``adatosk_base`` has. Frames and image size may differ from the checkpoint's.

    Args:
        model: of the same width, depth, MLP ratio, tubelet and patch size.
        path: the file, in one of the layouts above.
        sha256: the digest that it has to have, 64 hex digits; not compared by default.

    Raises:
        FileNotFoundError: no such file.
        ValueError: another digest; no checkpoint, a damaged one, or one that holds code; not VideoMAE's encoder, or one
            of other sizes; a parameter besides the last norm's is missing, or one is not finite.
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
    """The weights in a file by name; nothing in it is run."""
    load: Callable[[Path], Any] = load_file if _is_safetensors(path) else _load_pth
    try:
        content = load(path)
    except MemoryError:
        raise
    except Exception as error:  # there is no end to the ways in which a damaged file can fail
        code = re.search(r"GLOBAL (\S+)", str(error)) if isinstance(error, pickle.UnpicklingError) else None
        if code:
            raise ValueError(
                f"{path}: refers to {code[1]}, which is neither a tensor nor a plain value; reading that could run "
                "code, so it was not done: use a file of the weights alone, such as safetensors"
            ) from None  # torch's message recommends reading it nevertheless
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
    # From an open file, for by name torch would choose the format.
    with path.open("rb") as file, torch.serialization.safe_globals([argparse.Namespace]):
        return torch.load(file, map_location="cpu", weights_only=True)


def _is_weight(value: Any) -> bool:
    return isinstance(value, Tensor) and value.is_floating_point() and value.layout == torch.strided


def _encoder_of(weights: dict[str, Tensor], path: Path) -> tuple[str, dict[str, Tensor], list[str]]:
    """Layout, the encoder's parameters under this package's names, and the file's names of all else."""
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
    """Hugging Face's three matrices ``(D, D)`` of each block as the one ``(3·D, D)`` of ours; others as they are."""
    joined = dict(found)
    for name in found:
        block, separator, _ = name.partition(".attention.attention.query.weight")
        names = [f"{block}.attention.attention.{part}.weight" for part in ("query", "key", "value")]
        if separator and len({found[each].shape for each in names if each in found}) == 1 and set(names) <= set(found):
            joined[f"{block}.attn.qkv.weight"] = torch.cat([joined.pop(each) for each in names])
    return joined


def _check(found: dict[str, Tensor], encoder: Encoder, path: Path) -> None:
    """Raise ``ValueError`` unless the parameters are all that an encoder of these sizes has, and no others."""
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
        # As the model will hold it: what float64 can say may be too large for float32.
        if not value.to(expected[name].dtype).isfinite().all():
            raise ValueError(
                f"{path}: {name} holds values that are not finite, as after a run that diverged or in a damaged file: "
                "fetch the checkpoint again, or take another one"
            )


def _some(names: list[str]) -> str:
    return f" ({', '.join(names[:3])}{', …' if len(names) > 3 else ''})" if names else ""
