"""Every run that the paper's tables, its ambiguities and the rivals need, by table and row.

A run's id is derived from its configuration, so a row that is in two tables is trained once. Each row is repeated over
seeds or, on data with folds, over the folds. :mod:`adatosk.experiments.runs` lists the runs of a profile.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from adatosk import paper
from adatosk.config import ModelConfig, RunConfig
from adatosk.cost.operations import hand_count
from adatosk.manifests import manifest_of

WITH, WITHOUT = "with soft mask", "without soft mask"
# Rows of Table 3 that are compared by name: the model without a soft mask, and with one or both of its parts.
NO_MASK, AGNOSTIC, SEMANTIC, BOTH = "none", "CA", "CS (A+M)", "CA + CS (A+M)"
# The pair that Table 1 compares.
HEADLINE: dict[str, dict[str, Any]] = {WITH: {}, WITHOUT: {"model": {"soft_mask": None}}}
ALL_TOKENS = "all tokens, same epochs"
# Numbers of seeds, fixed before the runs. Rows that see more tokens than the profile's own take several times as long
# and differ by 10 points and more: they have the fewest.
HEADLINE_SEEDS, TABLE_SEEDS, COSTLY_SEEDS, AMBIGUITY_SEEDS = 15, 6, 3, 4
# A run of profile geometry takes 50 minutes of a core. Its number of seeds was fixed before any ran.
MOST_SEEDS = {"embedded-geometry.csv": COSTLY_SEEDS}
# The clips on which Tables 1 to 4 were first run with Eq. 11 as published, before activation_map's rule changed that.
_FIRST_RUN_ON = "embedded-demo.csv"
# The clips on which it decided.
_CHOSEN_ON = (_FIRST_RUN_ON, "embedded-demo-lifelike.csv")
# Views and merged tokens are scored on each seed's weights; more seeds would take long and add little.
WEIGHED_SEEDS = 5


@dataclass(frozen=True)
class Row:
    """One row of a table.

    Attributes:
        name: its name in the table.
        config: its run with the first seed or fold.
        repeats: number of seeds.
    """

    name: str
    config: RunConfig
    repeats: int = TABLE_SEEDS


def table1(base: RunConfig) -> list[Row]:
    """The model with the temporal soft mask, and without (Table 1's last two rows)."""
    return [Row(name, base.change(**changes), HEADLINE_SEEDS) for name, changes in HEADLINE.items()]


def mirrored_exclusion(base: ModelConfig, r: int) -> int:
    """The e that corresponds to the paper's r: the profile's own e corresponds to r = 2."""
    return r * base.required_soft_mask.excluded_per_step // paper.SETTINGS["top_r"].value


def table2(base: RunConfig) -> list[Row]:
    """Hard mask ratio × exclusion, except cells that are impossible with the profile's sizes."""
    rows = []
    for cell in paper.table2().itertuples():
        excluded = mirrored_exclusion(base.model, cell.r)
        try:
            changed = base.change(model={"mask_ratio": cell.mask_ratio, "soft_mask": {"excluded_per_step": excluded}})
        except ValueError:
            continue
        seeds = TABLE_SEEDS if cell.mask_ratio >= base.model.mask_ratio else COSTLY_SEEDS
        rows.append(Row(cell_name(cell.mask_ratio, cell.r), changed, seeds))
    return rows


def cell_name(mask_ratio: float, r: int) -> str:
    """Name of the row for a cell of Table 2."""
    return f"{mask_ratio:.0%}, r={r}"


# Eq. 11 to the letter, as a change of the soft mask.
_EQ_11: dict[str, Any] = {"scaling": "min_max"}
AS_PUBLISHED = "as in Eq. 11"


def changed_row(row: str, change: str) -> str:
    """The name of a table's row with something changed: ``CS (A), over the mean``; :func:`split_row` undoes it."""
    return f"{row}, {change}"


def split_row(name: str) -> tuple[str, str]:
    """A row's name and its change, which is empty without one: ``CS (A)`` and ``over the mean``."""
    row, _, change = name.partition(", ")
    return row, change


def as_published(base: RunConfig) -> RunConfig:
    """The profile with Eq. 11 as published, whatever its own choice is: what the ambiguities and A's study vary."""
    return base.change(model={"soft_mask": _EQ_11})


def table3(base: RunConfig) -> list[Row]:
    """The parts of the soft mask; where M is not computed, nothing can be excluded, as nothing has been ranked.

    The class-agnostic mask and both have as many seeds as Table 1's pair on the clips of profile demo: the
    normalisation of Eq. 11 was chosen on the first ones, where both lead by 1.3 points with an interval that only just
    excludes 0. The number of the later seeds, which had no part in that choice, was fixed before they ran.
    """
    rows = [Row(NO_MASK, base.change(model={"soft_mask": None}))]
    for row in paper.table3().itertuples():
        mask: dict[str, Any] = {"agnostic": row.agnostic, "semantic": row.semantic}
        if "M" not in row.semantic:
            mask["excluded_per_step"] = 0
        if row.semantic == "none":
            mask |= _EQ_11  # nothing is normalised: it is the same run under each
        more = row.strategy in (AGNOSTIC, BOTH) and base.data.manifest == _FIRST_RUN_ON
        seeds = HEADLINE_SEEDS if more else TABLE_SEEDS
        rows.append(Row(row.strategy, base.change(model={"soft_mask": mask}), seeds))
    return rows


def table4(base: RunConfig) -> list[Row]:
    """The frame distances."""
    distances = paper.table4()["distance"]
    return [Row(name, base.change(model={"soft_mask": {"distance": name}})) for name in distances]


# The alternatives for the paper's ambiguities, as changes of the profile with Eq. 11 as published.
AMBIGUITIES: dict[str, dict[str, Any]] = {
    "patches not normalised (5)": {"model": {"normalise_target": False}},
    "gate as written (8)": {"model": {"soft_mask": {"gate": "literal"}}},
    "softmax within a frame (9)": {"model": {"soft_mask": {"axis": "token"}}},
    "softmax over time (9)": {"model": {"soft_mask": {"axis": "time"}}},
    "softmax over channels (9)": {"model": {"soft_mask": {"axis": "channel"}}},
    "temperature 1 (11)": {"model": {"soft_mask": {"temperature": 1.0}}},
    "nothing excluded (13)": {"model": {"soft_mask": {"excluded_per_step": 0}}},
    "scored at the output (14)": {"model": {"soft_mask": {"score_block": None}}},
    "A before the last norm (15)": {"model": {"soft_mask": {"activation": "raw"}}},
    "A before the last norm, CS (A+M) alone (15)": {
        "model": {"soft_mask": {"activation": "raw", "agnostic": False}},
    },
    "A before the last norm, CS (A) alone (15)": {
        "model": {
            "soft_mask": {"activation": "raw", "agnostic": False, "semantic": "A", "excluded_per_step": 0},
        },
    },
    "temperature 1, CS (A+M) alone (11)": {"model": {"soft_mask": {"temperature": 1.0, "agnostic": False}}},
    "over the mean (15)": {"model": {"soft_mask": {"scaling": "mean"}}},
    "over the mean, CS (A+M) alone (15)": {"model": {"soft_mask": {"scaling": "mean", "agnostic": False}}},
    "over the mean, CS (M) alone (15)": {
        "model": {"soft_mask": {"scaling": "mean", "agnostic": False, "semantic": "M"}},
    },
    "over the mean, CS (A) alone (15)": {
        "model": {"soft_mask": {"scaling": "mean", "agnostic": False, "semantic": "A", "excluded_per_step": 0}},
    },
    "LayerNorm before the head (16)": {"model": {"head_norm": "layer"}},
    "LayerNorm before the head, no soft mask (16)": {"model": {"head_norm": "layer", "soft_mask": None}},
    "classification weight 0.1 (17)": {"train": {"cls_weight": 0.1}},
}


def ambiguities(base: RunConfig) -> list[Row]:
    """Eq. 11 as published, then each alternative, with the number of its ``experiments.ambiguities.Ambiguity``."""
    published = as_published(base)
    changed = [Row(name, published.change(**changes), AMBIGUITY_SEEDS) for name, changes in AMBIGUITIES.items()]
    return [Row(AS_PUBLISHED, published, AMBIGUITY_SEEDS), *changed]


_NORMALISED = tuple(row.strategy for row in paper.table3().itertuples() if row.semantic != "none")
# What is changed about A in Eq. 11, by name; the masks of Table 3 that it is tried on, and the number of seeds.
ACTIVATIONS: dict[str, tuple[dict[str, Any], tuple[str, ...], int]] = {
    AS_PUBLISHED: ({}, _NORMALISED, TABLE_SEEDS),
    "bounds as constants": ({"scaling": "constant"}, (SEMANTIC, "CS (A)", BOTH), TABLE_SEEDS),
    "over the mean": ({"scaling": "mean"}, _NORMALISED, TABLE_SEEDS),
    # Controls: which part of A does the harm.
    "A without gradient": ({"activation": "detached"}, ("CS (A)", BOTH), COSTLY_SEEDS),
    "A of other tokens": ({"activation": "shuffled"}, ("CS (A)",), COSTLY_SEEDS),
    "bounds of each frame": ({"scaling": "frame"}, ("CS (A)",), COSTLY_SEEDS),
    "A of the middle block": ({"activation": "scored"}, ("CS (A)",), COSTLY_SEEDS),
}


def activation_map(base: RunConfig) -> list[Row]:
    """Masks that use A (Eq. 10) under other normalisations of Eq. 11, and controls.

    The seeds and this rule were fixed before the runs, when the profiles had Eq. 11 as published: their normalisation
    changes when both masks together score higher under another one, by the rule of
    :mod:`adatosk.experiments.statistics`, on sparse and on lifelike clips alike. If two do, it is ``bounds as
    constants``, which is Eq. 11 to the letter, unless ``over the mean`` scores higher than it, again on both.
    """
    masks = {row.name: row.config for row in table3(as_published(base))}
    return [
        Row(changed_row(name, what), masks[name].change(model={"soft_mask": change}), seeds)
        for what, (change, names, seeds) in ACTIVATIONS.items()
        for name in names
    ]


def tables_as_published(base: RunConfig) -> list[Row]:
    """The rows of Tables 1, 2 and 4 with Eq. 11 as published; Table 3's are in :func:`activation_map`.

    There are none on other clips than those of profile demo, nor where Eq. 11 is as published anyway.
    """
    published = as_published(base)
    if base.data.manifest != _FIRST_RUN_ON or base == published:
        return []
    named = {row.name: row for table in (table1, table2, table4) for row in table(published)}
    return [replace(row, name=changed_row(name, AS_PUBLISHED)) for name, row in named.items() if name != WITHOUT]


_BASELINE = {"agnostic": False, "semantic": "none", "exclusion": "random"} | _EQ_11
AT_RANDOM = "random exclusion"
# Simple ways to do what the soft mask does, at its cost, as changes of it (adatosk.soft_mask.baselines).
BASELINES: dict[str, dict[str, Any]] = {
    "uniform weights": _BASELINE | {"baseline": "uniform"},
    "weights by change of pixels": _BASELINE | {"baseline": "pixels"},
    "attention pooling": _BASELINE | {"baseline": "attention"},
    "mean of the K active frames": _BASELINE | {"baseline": "active"},
    changed_row(BOTH, AT_RANDOM): {"exclusion": "random"},
    changed_row("CA + CS (M)", AT_RANDOM): {"semantic": "M", "exclusion": "random"},
}


def baselines(base: RunConfig) -> list[Row]:
    """What needs no paper, with as many tokens excluded as the soft mask excludes, but at random.

    The number of seeds was fixed before the runs. Both masks, and the best row of Table 3, are *better* than a baseline
    by the rule of :mod:`adatosk.experiments.statistics`; M's exclusion is judged by the rows that differ in it alone.
    """
    return [Row(name, base.change(model={"soft_mask": mask}), TABLE_SEEDS) for name, mask in BASELINES.items()]


def rivals(base: RunConfig) -> list[Row]:
    """The obvious alternatives on the same data, with as many epochs or as many multiply-accumulates.

    * ``all tokens``: a supervised ViT that sees every patch.
    * ``pre-trained``: like VideoMAE, reconstruction first, then the classifier on all tokens.
    * ``joint``: like SupMAE, both losses on the visible patches, which is this model without the soft mask.

    A step on all tokens takes as many operations as ``_step_ratio`` steps of the joint model.
    """
    epochs, one_view = base.train.epochs, {"views": (1,), "complementary": False}
    whole = base.change(model={"soft_mask": None, "mask_ratio": 0.0}, train={"rec_weight": 0.0}, evaluation=one_view)
    masked = base.change(model={"soft_mask": None}, train={"cls_weight": 0.0}, evaluation=one_view)
    fewer = max(round(epochs / _step_ratio(base.model)), 2)
    half = _shorter(masked, epochs // 2)
    after = whole.change(weights=None)  # if the base starts from a checkpoint, the pre-training run does so
    return [
        Row(name, config, COSTLY_SEEDS)
        for name, config in {
            "joint": base.change(model={"soft_mask": None}),
            ALL_TOKENS: whole,
            "all tokens, same operations": _shorter(whole, fewer),
            "pre-trained, same epochs each": after.change(initial=masked.model_dump()),
            "pre-trained, same operations": _shorter(after, max(fewer // 2, 2)).change(initial=half.model_dump()),
        }.items()
    ]


def _shorter(config: RunConfig, epochs: int) -> RunConfig:
    warmup = min(config.train.warmup_epochs, max(epochs // 6, 1))
    return config.change(train={"epochs": epochs, "warmup_epochs": warmup})


def _step_ratio(model: ModelConfig) -> float:
    """Cost of a supervised training step on all tokens relative to one of the joint model, in MACs."""
    whole = model.change(soft_mask=None, mask_ratio=0.0)
    joint = model.change(soft_mask=None)
    return hand_count(whole).total() / hand_count(joint, training=True).total()


TABLES = {
    "table1": table1,
    "table2": table2,
    "table3": table3,
    "table4": table4,
    "open_readings": ambiguities,
    "activation_map": activation_map,
    "as_published": tables_as_published,
    "baselines": baselines,
    "rivals": rivals,
}


def repeated(row: Row, at_most: int | None = None) -> list[RunConfig]:
    """A row's runs: one per seed or, if its manifest has folds, one per fold; at most the first ``at_most``."""
    folds = manifest_of(row.config).folds
    changes = [{"data": {"fold": fold}} for fold in folds] or [{"seed": seed} for seed in range(_seeds(row))]
    return [_everywhere(row.config, **change) for change in changes[:at_most]]


def _seeds(row: Row) -> int:
    return min(row.repeats, MOST_SEEDS.get(row.config.data.manifest, row.repeats))


def chosen_on(base: RunConfig) -> int | None:
    """Number of seeds on which the normalisation of Eq. 11 was chosen, as :func:`activation_map` says.

    The later seeds had no part in that, and are also judged alone. ``None`` on other clips than those of the choice.
    """
    return TABLE_SEEDS if base.data.manifest in _CHOSEN_ON else None


def _everywhere(config: RunConfig, **changes: Any) -> RunConfig:
    """``config`` with changes, which also apply to the run that it starts from."""
    initial = config.initial and _everywhere(config.initial, **changes).model_dump()
    return config.change(**changes).change(initial=initial)


def stages(config: RunConfig) -> Iterator[RunConfig]:
    """The runs to train for a run, in order; the last one is the run itself."""
    if config.initial is not None:
        yield from stages(config.initial)
    yield config
