"""The paper's ambiguities, our interpretation of each, and comparisons with the alternatives.

Alternatives that concern the model or the training are trained (``grid.AMBIGUITIES``), those that concern the test
protocol are scored with the same weights, and those that concern the cost are counted.
"""

from collections.abc import Iterator
from dataclasses import astuple, dataclass
from typing import Literal

import pandas as pd

from adatosk import paper
from adatosk.config import ModelConfig, RunConfig
from adatosk.cost.operations import count_parameters, hand_count, table2_cost
from adatosk.experiments import grid
from adatosk.experiments.grid import AS_PUBLISHED, Row, as_published
from adatosk.experiments.statistics import PROTOCOL, interval, judge_better, paired, side
from adatosk.presets import MODELS

# Number, quantity, option, whether it is our interpretation, our value, the paper's.
Option = tuple[int, str, str, bool, float, float]
# The row of Table 3 that an alternative is compared with if its name says which one it deviates from.
_REFERENCES = {
    "no soft mask": grid.NO_MASK,
    **{f"{row} alone": row for row in (grid.SEMANTIC, "CS (M)", "CS (A)")},
}


@dataclass(frozen=True)
class Ambiguity:
    """One ambiguity of the paper.

    Attributes:
        number: its position in the list.
        what: the part of the method.
        paper: what the paper says.
        ours: our interpretation.
        tested: how the alternatives are tested: by training, by other test protocols, by counting, or not at all,
            because the paper's own equations or common practice leave no alternative worth a run.
    """

    number: int
    what: str
    paper: str
    ours: str
    tested: Literal["trained", "scored", "counted", "not tested"]


AMBIGUITIES: tuple[Ambiguity, ...] = (
    Ambiguity(1, "encoder", "ViT-B/16 (512-dim)", "encoder 768 wide, 12 blocks; decoder 512 wide", "counted"),
    Ambiguity(2, "FLOPs (G)", "no definition", "multiply-accumulates of one pass, batch 1, one view", "counted"),
    Ambiguity(3, "visible patches", "n_s = N_s (1 - ρ)", "rounded down", "counted"),
    Ambiguity(4, "hard mask", "random, spatial, broadcast over time", "one set of positions per clip", "not tested"),
    Ambiguity(5, "reconstruction target", "MSE in pixel space", "each patch normalised", "trained"),
    Ambiguity(6, "tokens of the soft mask", "visible tokens", "the encoder's output", "not tested"),
    Ambiguity(7, "active frame", "top K differences", "the second frame of each pair", "not tested"),
    Ambiguity(8, "gate (Eq. 6)", "softmax over D", "its weights scaled to a mean of 1", "trained"),
    Ambiguity(9, "softmax of Eq. 7", "softmax, no axis", "over all visible tokens of the clip", "trained"),
    Ambiguity(10, "inactive frames in Eq. 7", "not said", "their plain mean", "not tested"),
    Ambiguity(11, "transition (Eq. 9)", "softmax of a product", "L2-normalised features, temperature 0.1", "trained"),
    Ambiguity(12, "start of M", "not said", "uniform in the first frame", "not tested"),
    Ambiguity(13, "exclusion of r tokens", "top r tokens per frame", "for the rest of the clip, in tubes", "trained"),
    Ambiguity(14, "where exclusion saves", "fewer GFLOPs with r", "tokens leave inside the encoder", "trained"),
    Ambiguity(
        15, "A, Eq. 11", "of visible tokens; min-max", "after the last norm; scaled as the profile sets it", "trained"
    ),
    Ambiguity(16, "head (Eq. 13)", "two-layer MLP", "with the norm that the profile sets before it", "trained"),
    Ambiguity(17, "loss weights (Eq. 2)", "λ_rec = 1, λ_cls = 0.1", "as the profile sets them", "trained"),
    Ambiguity(18, "optimiser", "AdamW; VideoMAE's settings", "cosine to 0, no decay on biases and norms", "not tested"),
    Ambiguity(19, "augmentation", "not said", "multi-scale crop and flip, one draw per clip", "not tested"),
    Ambiguity(20, "hard mask at test time", "not said", "one draw", "scored"),
    Ambiguity(21, "initial weights", "not said", "random; a VideoMAE checkpoint is an option", "not tested"),
    Ambiguity(22, "reported epoch", "not said", "the last one", "scored"),
)


def overview() -> pd.DataFrame:
    """All ambiguities: ``number`` as index, ``what``, ``paper``, ``ours``, ``tested``, see :class:`Ambiguity`."""
    return pd.DataFrame(AMBIGUITIES).set_index("number")


def rows(base: RunConfig) -> list[Row]:
    """Eq. 11 as published, Table 3's rows with it, and the grid's alternatives, except those that change nothing."""
    published = as_published(base)
    known = {AS_PUBLISHED: published}
    known |= {row.name: row.config for row in grid.table3(published) if row.config != published}
    rows = [Row(name, config, grid.AMBIGUITY_SEEDS) for name, config in known.items()]
    return rows + [row for row in grid.ambiguities(base)[1:] if row.config != known[reference(row.name)]]


def reference(row: str) -> str:
    """The row that an alternative is compared with: all as published, or the row of Table 3 given in its name."""
    return next((name for ending, name in _REFERENCES.items() if f", {ending} (" in row), AS_PUBLISHED)


def differences(table: pd.DataFrame) -> pd.DataFrame:
    """Points of WAR by which each alternative exceeds its reference, by protocol and repeat.

    Args:
        table: scores of :func:`rows`.

    Returns:
        ``ambiguity``, ``protocol``, ``repeat``, ``difference``.
    """
    parts = [
        paired(table, name, reference(name), protocol=protocol)
        .rename("difference")
        .reset_index()
        .assign(ambiguity=name, protocol=protocol)
        for name in table["row"].unique()
        if name in grid.AMBIGUITIES
        for protocol in table["protocol"].unique()
    ]
    return pd.concat(parts, ignore_index=True)[["ambiguity", "protocol", "repeat", "difference"]]


def measured(table: pd.DataFrame) -> pd.DataFrame:
    """Each trained alternative with one view, compared with its reference.

    Args:
        table: scores of :func:`rows`.

    Returns:
        one row per alternative: ``against`` (its reference), ``difference`` in points of WAR with ``low``, ``high`` and
        ``p``, ``repeats``, and ``better``: ``other``, ``reference``, ``undecided`` if the interval contains 0, or
        ``too few runs``.
    """
    parts, found = differences(table), {}
    for name, part in parts[parts["protocol"] == PROTOCOL].groupby("ambiguity", sort=False):
        one = interval(part["difference"])
        better = {"above": "other", "below": "reference"}.get(side(one), side(one))
        found[name] = (reference(name), one.mean, one.low, one.high, one.p, one.count, better)
    columns = ["against", "difference", "low", "high", "p", "repeats", "better"]
    return pd.DataFrame.from_dict(found, orient="index", columns=columns)


def claims(table: pd.DataFrame) -> pd.DataFrame:
    """The paper's claims on the soft mask under alternative interpretations, as far as their rows are available.

    Args:
        table: scores of :func:`rows`.

    Returns:
        one row per claim and interpretation, Eq. 11 as published first: ``id``, ``what`` (the interpretation),
        ``kind``, ``ours`` in points of WAR with one view, ``low``, ``high``, ``repeats``, ``p``, ``verdict`` by the
        rule, as if the interpretation were the profile's.
    """
    there, found = set(table["row"]), []
    for claim, tried in _CLAIMS.items():
        for what, first, second in tried:
            if {first, second} <= there:
                one = interval(paired(table, first, second))
                found.append((claim, what, "better", *astuple(one), judge_better(one)))
    columns = ["id", "what", "kind", "ours", "low", "high", "repeats", "p", "verdict"]
    return pd.DataFrame(found, columns=columns)


_RAW, _RAW_BOTH, _RAW_A = (f"A before the last norm{part} (15)" for part in ("", ", CS (A+M) alone", ", CS (A) alone"))
_MEAN, _MEAN_BOTH, _MEAN_M, _MEAN_A = (
    f"over the mean{part} (15)" for part in ("", *(f", CS ({scores}) alone" for scores in ("A+M", "M", "A")))
)
_WARM, _WARM_BOTH = (f"temperature 1{part} (11)" for part in ("", ", CS (A+M) alone"))
_LAYER, _LAYER_NONE = (f"LayerNorm before the head{part} (16)" for part in ("", ", no soft mask"))
# By claim: the interpretation, and its two rows; the row of Table 3 itself if the interpretation does not affect it.
_CLAIMS: dict[str, list[tuple[str, str, str]]] = {
    "gain of the mask": [
        (AS_PUBLISHED, AS_PUBLISHED, grid.NO_MASK),
        (_MEAN, _MEAN, grid.NO_MASK),
        *((name, name, grid.NO_MASK) for name in grid.AMBIGUITIES if name.endswith(("(8)", "(9)", "(13)", "(14)"))),
        (_WARM, _WARM, grid.NO_MASK),
        (_RAW, _RAW, grid.NO_MASK),
        (_LAYER, _LAYER, _LAYER_NONE),
    ],
    "both masks against CA": [(name, name, grid.AGNOSTIC) for name in (AS_PUBLISHED, _MEAN, _WARM, _RAW)],
    "both masks against CS": [
        (AS_PUBLISHED, AS_PUBLISHED, grid.SEMANTIC),
        (_MEAN, _MEAN, _MEAN_BOTH),
        (_WARM, _WARM, _WARM_BOTH),
        (_RAW, _RAW, _RAW_BOTH),
    ],
    "one score in CS": [
        (f"{AS_PUBLISHED}, over M", grid.SEMANTIC, "CS (M)"),
        (f"{_MEAN}, over M", _MEAN_BOTH, _MEAN_M),
        (f"{_RAW}, over M", _RAW_BOTH, "CS (M)"),
        (f"{AS_PUBLISHED}, over A", grid.SEMANTIC, "CS (A)"),
        (f"{_MEAN}, over A", _MEAN_BOTH, _MEAN_A),
        (f"{_WARM}, over A", _WARM_BOTH, "CS (A)"),
        (f"{_RAW}, over A", _RAW_BOTH, _RAW_A),
    ],
}


def counted(base: ModelConfig = MODELS["adatosk_base"]) -> pd.DataFrame:
    """Ambiguities 1, 2, 3, 13 and 14 by counting: what each option gives for a number that the paper reports.

    Returns:
        one row per option: ``number`` of the ambiguity, ``quantity``, ``option``, ``default`` (whether it is our
        interpretation), ``ours``, ``paper``.
    """
    found = [*_encoders(base), *_videomae(base), *_score_blocks(base), *_excluded(base)]
    return pd.DataFrame(found, columns=["number", "quantity", "option", "default", "ours", "paper"])


def _gmacs(config: ModelConfig, visible: int | None = None) -> float:
    return hand_count(config, visible).total() / 1e9


def _encoders(base: ModelConfig) -> Iterator[Option]:
    plain = base.change(soft_mask=None)
    narrow = plain.change(width=512, heads=8)
    encoders = {
        "768 wide, 12 blocks": plain,
        "512 wide, 12 blocks": narrow,
        "512 wide, 23 blocks": narrow.change(depth=23),
    }
    reported = paper.table1().set_index("method").loc[paper.WITHOUT_SOFT_MASK]
    for name, config in encoders.items():
        millions = count_parameters(config).classification / 1e6
        yield 1, "parameters without soft mask (M)", name, config == plain, millions, reported["parameters_m"]
    quantity, cost = "GMACs without soft mask", reported["flops_g"]
    for name, config in encoders.items():
        yield 1, quantity, name, config == plain, _gmacs(config), cost
    yield 2, quantity, "each counted as two operations", False, 2 * _gmacs(plain), cost
    yield 3, quantity, "visible patches rounded up", False, _gmacs(plain, plain.visible_patches + 1), cost


def _videomae(base: ModelConfig) -> Iterator[Option]:
    whole = base.change(soft_mask=None, mask_ratio=0.0)
    small = _gmacs(whole.change(image_size=10 * base.patch_size))
    options = {"at 160 pixels": small, "at 160 pixels, twice": 2 * small, "at 224 pixels": _gmacs(whole)}
    reported = paper.table1().set_index("method").at["VideoMAE", "flops_g"]
    for name, gmacs in options.items():
        yield 2, "GMACs of VideoMAE", name, gmacs == small, gmacs, reported


def _score_blocks(base: ModelConfig) -> Iterator[Option]:
    reported = paper.table1().set_index("method").at[paper.WITH_SOFT_MASK, "flops_g"]
    taken = base.required_soft_mask.score_block
    for block in (4, 7, 10, None):
        name = "at the output" if block is None else f"after block {block} of {base.depth}"
        gmacs = _gmacs(base.change(soft_mask={"score_block": block}))
        yield 14, "GMACs with soft mask, scored", name, block == taken, gmacs, reported


def _excluded(base: ModelConfig) -> Iterator[Option]:
    """The percentage of tokens excluded, beside the percentage of GFLOPs that this saves according to Table 2."""
    for cell in table2_cost(base).query("mask_ratio == 0.5 and r > 0").itertuples():
        config, e = base.change(mask_ratio=0.5, soft_mask={"excluded_per_step": 0}), cell.excluded_per_step
        steps, tokens = config.steps, config.steps * config.visible_patches
        shares = {
            "t·r a step, for good": e * steps * (steps - 1) / 2 / tokens,
            "r a step, for good": cell.r * steps * (steps - 1) / 2 / tokens,
            "t·r a step, for that step": e * (steps - 1) / tokens,
        }
        quantity = f"tokens excluded at 50 % hidden, r = {cell.r} (%)"
        for name, share in shares.items():
            yield 13, quantity, name, name == "t·r a step, for good", 100 * share, 100 * cell.paper_saving
