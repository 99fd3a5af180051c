"""Parameters and multiply-accumulates (MACs), the "#Params" and "FLOPs" of Tables 1 and 2.

MACs are counted three ways: by fvcore from the traced graph, by torch from the operators that run, and by hand from
the layers' sizes. All three count matrix products (linear layers, attention, affinities) and omit elementwise
operations: softmax, norms, GELU, sums. They agree exactly. Stock fvcore would not: it skips fused attention, adds 5
operations for each element of a norm (0.1 %) and rounds einsum; :mod:`adatosk.cost.tracing` corrects that.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pandas as pd

from adatosk import paper
from adatosk.config import ModelConfig
from adatosk.presets import MODELS

# The grid of runs counts by hand: what plans runs need not wait for torch, which the other counts load.
if TYPE_CHECKING:
    from torch import nn

    from adatosk.model import AdaTosk


@dataclass(frozen=True)
class Parameters:
    """Number of parameters of each part; fixed positions are buffers and do not count.

    Attributes:
        encoder: tubelet embedding, blocks, last norm.
        decoder: with the layer before it and the mask token.
        soft_mask: the gate's MLP θ (Eq. 6) and the projection f (Eq. 9).
        head: the two-layer classifier (Eq. 13).
    """

    encoder: int
    decoder: int
    soft_mask: int
    head: int

    @property
    def total(self) -> int:
        """All parameters."""
        return self.classification + self.decoder

    @property
    def classification(self) -> int:
        """The parameters needed for classification: all except the decoder's."""
        return self.encoder + self.soft_mask + self.head


@dataclass(frozen=True)
class Macs:
    """Multiply-accumulates of one clip.

    Attributes:
        by_part: ``embedding``, ``blocks`` (the encoder's), ``soft_mask``, ``head`` (also its calls by the distance
            ``classification``) and ``decoder``.
        left_out: operators that are not counted, with their number of calls.
    """

    by_part: dict[str, int]
    left_out: dict[str, int]

    @property
    def total(self) -> int:
        """All multiply-accumulates."""
        return sum(self.by_part.values())


def count_parameters(model: AdaTosk | ModelConfig) -> Parameters:
    """Count the parameters of a model, or of one created from a configuration."""
    from adatosk.cost.tracing import weightless

    model = weightless(model) if isinstance(model, ModelConfig) else model

    def size(*modules: nn.Module | None) -> int:
        return sum(p.numel() for module in modules if module is not None for p in module.parameters())

    return Parameters(
        encoder=size(model.encoder),
        decoder=size(model.decoder, model.encoder_to_decoder) + model.mask_token.numel(),
        soft_mask=size(model.soft_mask),
        head=size(model.head),
    )


def count_macs(model: AdaTosk | ModelConfig, visible: int | None = None, training: bool = False) -> Macs:
    """Count one forward pass by fvcore: batch 1, one view, for classification unless ``training``.

    Args:
        model: a model, or its configuration; only its shapes are used.
        visible: n_s, visible patches of a frame; by default according to the mask ratio.
        training: count both branches instead, with the decoder; forward only.

    Raises:
        ValueError: ``visible`` is impossible, or given together with ``training``.
    """
    from adatosk.cost.tracing import forward_pass, fvcore_count

    modules, left_out = fvcore_count(*forward_pass(*_counted(model, visible, training)))
    names = {"embedding": ("encoder.patch_embed",), "blocks": ("encoder.blocks",), "head": ("head",)}
    names |= {"decoder": ("decoder", "encoder_to_decoder")}
    parts = {part: sum(modules[name] for name in group) for part, group in names.items()}
    # Scoring runs among the encoder's blocks, so the soft mask is all that belongs to no other part.
    return Macs(parts | {"soft_mask": modules["model"] - sum(parts.values())}, left_out)


def torch_count(model: AdaTosk | ModelConfig, visible: int | None = None, training: bool = False) -> int:
    """Multiply-accumulates of the same forward pass by torch's own counter, which counts 2 per MAC."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode  # it loads triton

    from adatosk.cost.tracing import forward_pass

    twin, call, inputs = forward_pass(*_counted(model, visible, training))
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        call(twin, *inputs)
    return counter.get_total_flops() // 2


def _counted(model: AdaTosk | ModelConfig, visible: int | None, training: bool) -> tuple[ModelConfig, int | None]:
    """The configuration and the visible patches that are counted; ``None`` for both branches."""
    config = model if isinstance(model, ModelConfig) else model.config
    if training and visible is not None:
        raise ValueError("training counts the mask ratio's own view: leave visible out")
    return config, None if training else _visible(config, visible)


def _visible(config: ModelConfig, visible: int | None) -> int:
    visible = config.visible_patches if visible is None else visible
    if not 1 <= visible <= config.patches:
        raise ValueError(f"visible must lie between 1 and the {config.patches} patches, got {visible}")
    return visible


def hand_count(config: ModelConfig, visible: int | None = None, training: bool = False) -> Counter[str]:
    """Multiply-accumulates of the same forward pass in plain arithmetic, by ``part`` or ``part.layer``.

    A product of an n × a by an a × b matrix takes n·a·b. Sizes are n_t·n_s tokens of D channels, of which
    e·n_t·(n_t - 1)/2 are excluded before the last blocks (Table 2).
    """
    n_s = _visible(config, visible)
    n_t, width, mask = config.steps, config.width, config.soft_mask
    pixels = 3 * config.tubelet * config.patch_size**2
    tokens = n_t * n_s
    before, left = config.depth, tokens  # blocks that run on all visible tokens; tokens of the blocks after them
    if mask is not None and mask.score_block is not None:
        before = mask.score_block
        left = tokens - mask.excluded_per_step * n_t * (n_t - 1) // 2
    counts = Counter(embedding=tokens * pixels * width)  # each token's pixels to D channels
    counts.update(_block_count("blocks", before, tokens, width, config.mlp_ratio))
    counts.update(_block_count("blocks", config.depth - before, left, width, config.mlp_ratio))
    counts.update(_soft_mask_count(config, n_s))
    # Two layers on the pooled token, and on each frame's mean when the distance compares their classes (Table 4).
    calls = 1 + (n_t if mask is not None and mask.agnostic and mask.distance == "classification" else 0)
    counts["head"] = calls * (width * width + width * len(config.classes))
    counts.update(_decoder_count(config, n_s) if training else {})
    return counts


def _block_count(name: str, blocks: int, tokens: int, width: int, mlp_ratio: float) -> dict[str, int]:
    return {
        f"{name}.qkv": blocks * tokens * width * 3 * width,  # queries, keys and values
        f"{name}.attention": blocks * 2 * tokens * tokens * width,  # q·k over all pairs, then weights times v
        f"{name}.projection": blocks * tokens * width * width,
        f"{name}.mlp": blocks * 2 * tokens * width * int(width * mlp_ratio),  # up and down again
    }


def _soft_mask_count(config: ModelConfig, n_s: int) -> dict[str, int]:
    mask, n_t, width = config.soft_mask, config.steps, config.width
    counts = {}
    if mask is not None and mask.accumulates:
        counts["soft_mask.project"] = n_t * n_s * width * width  # f of Eq. 9 on every visible token
        counts["soft_mask.affinities"] = (n_t - 1) * n_s * n_s * width  # f(X_{t+1}) f(X_t)ᵀ
        # P M' of Eq. 9 takes the sums of P's columns and the product; exclusion ranks frame 1 by one more.
        ranks_first = mask.excluded_per_step and mask.exclusion == "redundant" and n_t > 1
        transfers = n_t - 1 + (1 if ranks_first else 0)
        counts["soft_mask.chain"] = transfers * 2 * n_s * n_s
    if mask is not None and mask.agnostic:
        counts["soft_mask.gate"] = n_t * 2 * width * (width // mask.gate_reduction)  # θ of Eq. 6 on frame means
    if mask is not None and mask.baseline == "attention":
        counts["soft_mask.attention"] = n_t * n_s * width  # one query
    return counts


def _decoder_count(config: ModelConfig, n_s: int) -> dict[str, int]:
    hidden, width = config.steps * (config.patches - n_s), config.decoder_width
    everything = config.steps * config.patches  # visible and mask tokens
    return {
        "decoder.narrow": config.steps * n_s * config.width * width,
        **_block_count("decoder", config.decoder_depth, everything, width, config.mlp_ratio),
        "decoder.pixels": hidden * width * 3 * config.tubelet * config.patch_size**2,  # hidden tokens only
    }


def group_by_part(counts: Counter[str]) -> Counter[str]:
    """Add up :func:`hand_count` by part, the name before the dot; as ``Macs.by_part``."""
    parts: Counter[str] = Counter()
    for name, count in counts.items():
        parts[name.split(".")[0]] += count
    return parts


def table1_cost(config: ModelConfig = MODELS["adatosk_base"]) -> pd.DataFrame:
    """Our cost beside Table 1's for the two rows of the model, and with all patches visible beside VideoMAE's.

    Returns:
        one row per model: ``parameters_m`` (all), ``classification_m`` (without decoder), ``encoder_m`` in millions;
        ``gmacs`` of one forward pass for classification, ``soft_mask_share`` of it; and the paper's two numbers.
    """
    plain = config.change(soft_mask=None)
    everything = plain.change(mask_ratio=0.0)
    smaller = everything.change(image_size=10 * config.patch_size)  # 160 pixels, the rivals' own size
    rows = [
        ("AdaTosk", config, paper.WITH_SOFT_MASK),
        ("AdaTosk without soft mask", plain, paper.WITHOUT_SOFT_MASK),
        ("all patches visible", everything, "VideoMAE"),
        ("all patches visible", smaller, "VideoMAE"),
    ]
    return pd.DataFrame([_cost_row(*row) for row in rows])


def _cost_row(name: str, config: ModelConfig, paper_row: str) -> dict:
    parameters, macs = count_parameters(config), group_by_part(hand_count(config))
    reported = paper.table1().set_index("method").loc[paper_row]
    return {
        "model": name,
        "image_size": config.image_size,
        "parameters_m": parameters.total / 1e6,
        "classification_m": parameters.classification / 1e6,
        "encoder_m": parameters.encoder / 1e6,
        "gmacs": macs.total() / 1e9,
        "soft_mask_share": macs["soft_mask"] / macs.total(),
        "paper_row": paper_row,
        "paper_parameters_m": reported["parameters_m"],
        "paper_gflops": reported["flops_g"],
    }


def table2_cost(
    config: ModelConfig = MODELS["adatosk_base"], count: Callable[[ModelConfig], int] | None = None
) -> pd.DataFrame:
    """Our cost beside Table 2's, for each hard mask ratio and number of excluded tokens.

    Args:
        config: the model; its ratio and exclusion are replaced by each cell's, r per frame being e = t·r per step.
        count: multiply-accumulates of a configuration; the hand count by default, ``lambda c: count_macs(c).total``
            traces every cell with the same result.

    Returns:
        one row per cell: ``mask_ratio``, ``r``, ``excluded_per_step``, ``feasible``, ``gmacs`` (NaN if exclusion needs
        more tokens than there are), ``saving`` relative to r = 0 in [0, 1], and the paper's numbers.
    """
    count = count or (lambda cell: hand_count(cell).total())
    table = paper.table2().drop(columns="place").rename(columns={"war": "paper_war", "gflops": "paper_gflops"})
    table.insert(2, "excluded_per_step", config.tubelet * table["r"])
    cells = [_cell(config, ratio, e) for ratio, e in zip(table["mask_ratio"], table["excluded_per_step"], strict=True)]
    table.insert(3, "feasible", [cell is not None for cell in cells])
    table.insert(4, "gmacs", [math.nan if cell is None else count(cell) / 1e9 for cell in cells])
    for name, saving in (("gmacs", "saving"), ("paper_gflops", "paper_saving")):
        table[saving] = 1 - table[name] / table.groupby("mask_ratio")[name].transform("first")
    return table


def _cell(config: ModelConfig, ratio: float, excluded: int) -> ModelConfig | None:
    """The configuration of one cell of Table 2, or ``None`` if there are not enough tokens to exclude r·T."""
    cell = config.change(mask_ratio=ratio, soft_mask={"excluded_per_step": 0})
    if excluded * cell.steps >= cell.visible_patches:
        return None
    return cell.change(soft_mask={"excluded_per_step": excluded})
