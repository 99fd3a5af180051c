"""What the paper reports, as data: Tables 1 to 4, its settings and its claims, each with its place in the paper.

Source: "Soften the Mask: Adaptive Temporal Soft Mask for Efficient Dynamic Facial Expression Recognition",
arXiv 2502.21004. The paper writes AdaTask for AdaTosk in its tables. The caption of Table 1 swaps its two rows: the one
with the dagger (72 M, 40 G, better scores) is the one *with* the temporal soft mask, as section 4.2 says. "FLOPs" are
multiply-accumulates: the rivals' public code gives those numbers. UAR and WAR are percentages; a "-" is NaN here.
"""

from collections.abc import Callable
from dataclasses import dataclass
from math import nan
from typing import Any

import pandas as pd

SOURCE = "arXiv 2502.21004"
SETS = {"dfew": "DFEW", "ferv39k": "FERV39k", "mafw": "MAFW"}  # by manifest name

# Rows of Table 1 for this model.
WITHOUT_SOFT_MASK = "AdaTask (Ours)"
WITH_SOFT_MASK = "AdaTask† (Ours)"

_SCORES = tuple(f"{name}_{score}" for name in SETS for score in ("uar", "war"))
_TABLE1_COLUMNS = ("method", "venue", "backbone", "group", "parameters_m", "flops_g", *_SCORES)

# "language" and "videomae" are the caption's grey and blue rows (large language models, VideoMAE-based methods),
# identified from section 4.2 and the backbones; the colours themselves are not in the text.
_TABLE1 = (
    ("EC-STFL", "MM'20", "C3D / P3D", "supervised", 78, 8, 45.35, 56.51, nan, nan, nan, nan),
    ("Former-DFER", "MM'21", "Transformer", "supervised", 18, 9, 53.69, 65.70, 37.20, 46.85, 31.16, 43.27),
    ("T-ESFL", "MM'22", "Transformer", "supervised", nan, nan, nan, nan, nan, nan, 33.28, 48.18),
    ("Freq-HD", "MM'23", "VGG13-LSTM", "supervised", nan, 9, nan, nan, 32.79, 44.54, nan, nan),
    ("M3DFEL", "CVPR'23", "ResNet-18-3D", "supervised", nan, 2, 56.10, 69.25, 35.94, 47.67, nan, nan),
    ("IAL", "AAAI'23", "ResNet-18", "supervised", 19, 10, 55.71, 69.24, 35.82, 48.54, nan, nan),
    ("DFER-CLIP", "BMVC'23", "CLIP-ViT-B/32", "language", 90, nan, 59.61, 71.25, 41.27, 51.65, 39.89, 52.55),
    ("CLIPER", "ICME'24", "CLIP-ViT-B/16", "language", 88, nan, 57.56, 70.84, 41.23, 51.34, nan, nan),
    ("EmoCLIP", "FG'24", "CLIP-ViT-B/32", "language", nan, nan, 58.04, 62.12, 31.41, 36.18, 34.24, 41.46),
    ("A³lign-DFER", "ArXiv'24", "CLIP-ViT-L/14", "language", nan, nan, 64.09, 74.20, 41.87, 51.77, 42.07, 53.24),
    ("VideoMAE", "NeurIPS'22", "ViT-B/16", "videomae", 86, 82, 63.60, 74.60, nan, nan, 42.87, 53.51),
    ("MAE-DFER", "MM'23", "ViT-B/16", "videomae", 85, 50, 62.59, 74.88, 43.12, 52.07, 41.62, 54.31),
    ("SVFAP", "TAC'24", "ViT-B/16", "videomae", 78, 44, 62.63, 74.81, 42.14, 52.29, 41.19, 54.28),
    ("HICMAE", "Fusion'24", "ViT-B/16", "videomae", 81, 46, 63.76, 75.01, nan, nan, 42.65, 56.17),
    ("MMA-DFER", "CVPRW'24", "ViT-B/16", "videomae", nan, nan, 67.01, 77.51, nan, nan, 44.11, 58.52),
    (WITHOUT_SOFT_MASK, "", "ViT-B/16", "ours", 74, 44, 64.93, 75.95, 44.34, 54.24, 42.26, 56.81),
    (WITH_SOFT_MASK, "", "ViT-B/16", "ours", 72, 40, 66.76, 77.54, 46.28, 56.52, 44.15, 57.92),
)

# ρ in percent: (r, WAR, GFLOPs) on DFEW.
_TABLE2 = {
    25: ((0, 76.74, 136.15), (2, 76.68, 118.54), (4, 76.57, 99.75), (6, 76.08, 68.79)),
    50: ((0, 77.06, 84.32), (2, 77.02, 72.24), (4, 76.97, 60.05), (6, 76.45, 42.13)),
    70: ((0, 77.63, 57.73), (2, 77.54, 40.12), (4, nan, nan), (6, nan, nan)),
}

# Row as printed; the same in this package's words (class-agnostic part, scores of the class-semantic part); UAR, WAR.
_TABLE3 = (
    ("CA", True, "none", 65.55, 76.64),
    ("CS (A+M)", False, "A+M", 66.03, 77.11),
    ("CS (M)", False, "M", 65.78, 76.67),
    ("CS (A)", False, "A", 65.95, 76.93),
    ("CA + CS (M)", True, "M", 66.41, 77.07),
    ("CA + CS (A)", True, "A", 66.62, 77.31),
    ("CA + CS (A+M)", True, "A+M", 66.76, 77.54),
)

_TABLE4 = (
    ("classification", 61.86, 72.67),
    ("cosine", 62.77, 73.52),
    ("l2", 64.83, 75.68),
    ("l1", 66.76, 77.54),
)


@dataclass(frozen=True)
class Setting:
    """A value that the paper states: ``value`` in ``unit``, and its ``place`` in the paper."""

    value: Any
    unit: str
    place: str


SETTINGS: dict[str, Setting] = {
    "frames": Setting(16, "frames", "section 4.1"),
    "stride": Setting(4, "frames", "section 4.1"),
    "image_size": Setting(224, "pixels", "section 4.1"),
    "tubelet": Setting(2, "frames", "section 4.1"),
    "patch_size": Setting(16, "pixels", "section 4.1"),
    "backbone": Setting("ViT-B/16 (512-dim)", "", "section 4.1"),
    "decoder_depth": Setting(1, "layers", "section 4.1"),
    "head_layers": Setting(2, "layers", "section 4.1"),
    "mask_ratio": Setting(0.7, "share of patches", "section 4.1"),
    "top_k": Setting(4, "frames", "section 4.1"),
    "top_r": Setting(2, "tokens per frame", "section 4.1"),
    "distance": Setting("l1", "", "section 4.3"),
    "rec_weight": Setting(1.0, "", "Eq. 2"),
    "cls_weight": Setting(0.1, "", "Eq. 2"),
    "optimizer": Setting("AdamW", "", "section 4.1"),
    "betas": Setting((0.9, 0.95), "", "section 4.1"),
    "weight_decay": Setting(0.05, "", "section 4.1"),
    "base_lr": Setting(1.5e-4, "for a batch of 256", "section 4.1"),
    "batch_size": Setting(128, "clips", "section 4.1"),
    "epochs": Setting(100, "epochs", "section 4.1"),
    "warmup_epochs": Setting(10, "epochs", "section 4.1"),
    "gpus": Setting(8, "A100", "section 4.1"),
    "dfew_clips": Setting(11_697, "clips", "section 4.1"),
    "ferv39k_clips": Setting(38_935, "clips", "section 4.1"),
    "mafw_clips": Setting(9_172, "clips", "section 4.1"),
    "dfew_classes": Setting(7, "classes", "section 4.1"),
    "ferv39k_classes": Setting(7, "classes", "section 4.1"),
    "mafw_classes": Setting(11, "classes", "section 4.1"),
}


def table1() -> pd.DataFrame:
    """Table 1, one row per method: parameters in millions, FLOPs in G, UAR and WAR in % on the three sets.

    ``soft_mask`` is True or False for the two rows of the model itself and missing for the rivals.
    """
    table = pd.DataFrame(_TABLE1, columns=list(_TABLE1_COLUMNS))
    numbers = list(_TABLE1_COLUMNS[4:])
    table[numbers] = table[numbers].astype(float)
    flags = table["method"].map({WITHOUT_SOFT_MASK: False, WITH_SOFT_MASK: True})
    return _placed(table.assign(soft_mask=flags.astype("boolean")), "Table 1")


def table2() -> pd.DataFrame:
    """Table 2, one row per cell: ``mask_ratio`` ρ, ``r`` tokens excluded per frame, ``war``, ``gflops``."""
    rows = [(percent / 100, *cell) for percent, cells in _TABLE2.items() for cell in cells]
    return _placed(pd.DataFrame(rows, columns=["mask_ratio", "r", "war", "gflops"]), "Table 2")


def table3() -> pd.DataFrame:
    """Table 3, one row per soft mask: ``agnostic`` and ``semantic`` are the fields of ``SoftMaskConfig``."""
    return _placed(pd.DataFrame(_TABLE3, columns=["strategy", "agnostic", "semantic", "uar", "war"]), "Table 3")


def table4() -> pd.DataFrame:
    """Table 4, one row per distance: ``distance`` is the field of ``SoftMaskConfig``."""
    return _placed(pd.DataFrame(_TABLE4, columns=["distance", "uar", "war"]), "Table 4")


def _placed(table: pd.DataFrame, name: str) -> pd.DataFrame:
    return table.assign(place=[f"{SOURCE}, {name}, row {row + 1}" for row in range(len(table))])


def _gain(over: str | list[str], columns: list[str] | None = None) -> list[float]:
    """Points of UAR and WAR by which the model with soft mask exceeds the best of the methods ``over`` in Table 1."""
    table = table1().set_index("method")
    over = [over] if isinstance(over, str) else over
    return [table.at[WITH_SOFT_MASK, column] - table.loc[over, column].max() for column in columns or _SCORES]


def _saving(column: str, over: str | list[str], ours: str = WITH_SOFT_MASK) -> list[float]:
    """Millions of parameters or GFLOPs by which ``ours`` is below each of the methods ``over`` in Table 1."""
    table = table1().set_index("method")
    return list(table.loc[[over] if isinstance(over, str) else over, column].dropna() - table.at[ours, column])


def group(*names: str) -> list[str]:
    """The methods of some groups of Table 1."""
    table = table1()
    return list(table["method"][table["group"].isin(names)])


def _both_savings(column: str) -> list[float]:
    rivals = group("videomae")
    return _saving(column, rivals) + _saving(column, rivals, WITHOUT_SOFT_MASK)


def _leads(better: str, worse: str) -> list[float]:
    """Points of UAR and WAR between two rows of Table 3 or of Table 4."""
    rows = {row[0]: row[-2:] for row in _TABLE3 + _TABLE4}
    return [one - other for one, other in zip(rows[better], rows[worse], strict=True)]


def _from_r0(column: str, relative: bool) -> list[float]:
    """Decrease from r = 0 to r = 2 at each ratio of Table 2, in % or in points."""
    cells = table2().pivot(index="mask_ratio", columns="r", values=column)
    return list((cells[0] - cells[2]) / (cells[0] / 100 if relative else 1))


def _from_25_to_70(column: str, relative: bool) -> list[float]:
    """Change from ρ = 25 % to 70 % at r = 0 and r = 2 of Table 2: points gained, or % saved."""
    cells = table2().pivot(index="r", columns="mask_ratio", values=column).dropna()
    return list((cells[0.25] - cells[0.7]) / cells[0.25] * 100 if relative else cells[0.7] - cells[0.25])


@dataclass(frozen=True)
class Claim:
    """A statement in the text that can be checked against the paper's tables.

    Attributes:
        id, text, place: a name, the claim, and where it is made.
        low, high: the claimed range, in ``unit``.
        rounding: half a unit of the claim's last digit; a number that rounds into the range agrees.
        unit: unit of the numbers.
        found: the corresponding numbers in the paper's own tables; empty where they have none.
    """

    id: str
    text: str
    place: str
    low: float
    high: float
    rounding: float
    unit: str
    found: Callable[[], list[float]]


_POINTS, _PERCENT, _MILLIONS, _GIGA = "points", "%", "M parameters", "G FLOPs"
_CA_CS, _CS = "CA + CS (A+M)", "CS (A+M)"

CLAIMS: tuple[Claim, ...] = (
    Claim("gain over the best", "3 % better than the state of the art", "section 1, (iii)", 3, 3, 0.5, _POINTS,
          lambda: _gain(group("supervised", "language", "videomae"))),
    Claim("smaller model", "about 10 M parameters fewer (HICMAE fits)", "section 1, (iii)", 10, 10, 1, _MILLIONS,
          lambda: _saving("parameters_m", "HICMAE")),
    Claim("lower cost", "6 G FLOPs fewer (HICMAE fits)", "section 1, (iii)", 6, 6, 0.5, _GIGA,
          lambda: _saving("flops_g", "HICMAE")),
    Claim("gain over supervised", "supervised models outperformed by 9 to 10 % in both metrics on all sets",
          "section 4.2, main results", 9, 10, 0.5, _POINTS, lambda: _gain(group("supervised"))),
    *(Claim(f"gain over A³lign-DFER, {column}", f"{claimed} % over A³lign-DFER", "section 4.2, main results",
            claimed, claimed, 0.05, _POINTS, lambda column=column: _gain("A³lign-DFER", [column]))
      for column, claimed in zip(_SCORES, (2.7, 2.3, 3.4, 4.8, 2.1, 4.7), strict=True)),
    Claim("gain over MAE-DFER", "3 to 4 % over MAE-DFER on all sets", "section 4.2, main results", 3, 4, 0.5, _POINTS,
          lambda: _gain("MAE-DFER")),
    Claim("gain over MMA-DFER", "3.1 and 4.4 % over MMA-DFER on FERV39k (Table 1 has no such row; MAE-DFER's fits)",
          "section 4.2, main results", 3.1, 4.4, 0.05, _POINTS, list),
    Claim("parameters without mask", "12 M parameters fewer than VideoMAE without soft mask",
          "section 4.2, model efficiency (i)", 12, 12, 0.5, _MILLIONS,
          lambda: _saving("parameters_m", "VideoMAE", WITHOUT_SOFT_MASK)),
    Claim("cost without mask", "38 G FLOPs fewer than VideoMAE without soft mask",
          "section 4.2, model efficiency (i)", 38, 38, 0.5, _GIGA,
          lambda: _saving("flops_g", "VideoMAE", WITHOUT_SOFT_MASK)),
    Claim("parameters of the mask", "the soft mask takes away 2 M parameters", "section 4.2, model efficiency (ii)",
          2, 2, 0.5, _MILLIONS, lambda: _saving("parameters_m", WITHOUT_SOFT_MASK)),
    Claim("cost of the mask", "the soft mask takes away 4 G FLOPs", "section 4.2, model efficiency (ii)",
          4, 4, 0.5, _GIGA, lambda: _saving("flops_g", WITHOUT_SOFT_MASK)),
    Claim("gain of the mask", "the soft mask improves UAR and WAR by about 2 % on all sets",
          "section 4.2, model efficiency (ii)", 2, 2, 0.5, _POINTS, lambda: _gain(WITHOUT_SOFT_MASK)),
    Claim("parameters against ViT-B", "both rows have 4 to 12 M parameters fewer than other ViT-B models",
          "section 4.2, model efficiency (iii)", 4, 12, 0.5, _MILLIONS, lambda: _both_savings("parameters_m")),
    Claim("cost against ViT-B", "both rows have 2 to 38 G FLOPs fewer than other ViT-B models",
          "section 4.2, model efficiency (iii)", 2, 38, 0.5, _GIGA, lambda: _both_savings("flops_g")),
    Claim("both masks against CA", "both soft masks outperform CA alone by 2 %", "section 4.3, soft mask mechanism",
          2, 2, 0.5, _POINTS, lambda: _leads(_CA_CS, "CA")),
    Claim("both masks against CS", "both soft masks outperform CS alone by 1 %", "section 4.3, soft mask mechanism",
          1, 1, 0.5, _POINTS, lambda: _leads(_CA_CS, _CS)),
    Claim("one score in CS", "one score instead of two costs 0.1 to 0.3 %", "section 4.3, soft mask mechanism",
          0.1, 0.3, 0.05, _POINTS, lambda: _leads(_CS, "CS (M)") + _leads(_CS, "CS (A)")),
    Claim("cost of r = 2", "r = 2 lowers GFLOPs by 12 to 18 %", "section 4.3, excluded tokens", 12, 18, 0.5, _PERCENT,
          lambda: _from_r0("gflops", relative=True)),
    Claim("loss of r = 2", "r = 2 costs 0.05 to 0.1 % of WAR", "section 4.3, excluded tokens", 0.05, 0.1, 0.005,
          _POINTS, lambda: _from_r0("war", relative=False)),
    Claim("ratio and WAR", "a hard mask of 70 % instead of 25 % improves WAR by about 1 %",
          "section 4.3, hard mask ratios", 1, 1, 0.5, _POINTS, lambda: _from_25_to_70("war", relative=False)),
    Claim("ratio and cost", "a hard mask of 70 % instead of 25 % lowers GFLOPs by 40 to 50 %",
          "section 4.3, hard mask ratios", 40, 50, 0.5, _PERCENT, lambda: _from_25_to_70("gflops", relative=True)),
    Claim("best distance", "L1 is the best distance, and L2 better than cosine: each lead",
          "section 4.3, distance loss", 0, 100, 0, _POINTS,
          lambda: _leads("l1", "l2") + _leads("l2", "cosine") + _leads("l1", "classification")),
)  # fmt: skip


def claims() -> pd.DataFrame:
    """The claims beside the numbers in the paper's own tables.

    Returns:
        one row per claim: ``id``, ``text``, ``place``, ``unit``, ``claimed_low``, ``claimed_high``, ``table_low`` and
        ``table_high`` (NaN without a number in the tables) and ``agrees``, whether all of the tables' numbers round
        into the claimed range (NA without a number).
    """
    rows = []
    for claim in CLAIMS:
        found = claim.found()
        low, high = (min(found), max(found)) if found else (nan, nan)
        slack = claim.rounding + 1e-9  # a difference of decimals is not exact
        agrees = claim.low - slack <= low and high <= claim.high + slack if found else None
        place = f"{SOURCE}, {claim.place}"
        rows.append((claim.id, claim.text, place, claim.unit, claim.low, claim.high, low, high, agrees))
    columns = ["id", "text", "place", "unit", "claimed_low", "claimed_high", "table_low", "table_high", "agrees"]
    return pd.DataFrame(rows, columns=columns).astype({"agrees": "boolean"})
