"""Every run that the paper's tables, its ambiguities and the rivals need, by table and row.

A run's id is derived from its configuration, so a row that is in two tables is trained once. Each row is repeated over
seeds or, on data with folds, over the folds. :func:`write_runs` writes the runs as files that ``adatosk train`` reads.
"""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from adatosk import paper
from adatosk.config import ModelConfig, RunConfig
from adatosk.cost.operations import hand_count
from adatosk.manifests import manifest_of
from adatosk.presets import PROFILES
from adatosk.utils.files import write_csv, write_json

WITH, WITHOUT = "with soft mask", "without soft mask"
# The pair that Table 1 compares.
HEADLINE: dict[str, dict[str, Any]] = {WITH: {}, WITHOUT: {"model": {"soft_mask": None}}}
ALL_TOKENS = "all tokens, same epochs"
# The pair was first run with FIRST_SEEDS seeds, which left its gain undecided. The number of additional seeds was fixed
# before they ran, and they are also judged alone (experiments.statistics.looks), because the interim analysis did not
# influence them.
FIRST_SEEDS, HEADLINE_SEEDS = 5, 15
# Likewise, three seeds left most claims on Tables 2 to 4 undecided, and two seeds every ambiguity; these numbers were
# fixed before the additional ones ran. Rows that see more tokens than the profile's own take several times as long and
# differ by 10 points and more: they keep three.
TABLE_SEEDS, COSTLY_SEEDS, AMBIGUITY_SEEDS = 6, 3, 4
# A run of profile geometry takes 50 minutes of a core. Its number of seeds was fixed before any ran.
MOST_SEEDS = {"embedded-geometry.csv": COSTLY_SEEDS}
# Views and merged tokens are scored on each seed's weights; more seeds would take long and add little.
WEIGHED_SEEDS = FIRST_SEEDS


# The make targets: the pair with its repeats, and everything.
REPRODUCE, REPRODUCE_ALL = "reproduce", "reproduce-all"


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


def table3(base: RunConfig) -> list[Row]:
    """The parts of the soft mask; where M is not computed, nothing can be excluded."""
    rows = [Row("none", base.change(model={"soft_mask": None}))]
    for row in paper.table3().itertuples():
        mask: dict[str, Any] = {"agnostic": row.agnostic, "semantic": row.semantic}
        if "M" not in row.semantic:
            mask["excluded_per_step"] = 0
        rows.append(Row(row.strategy, base.change(model={"soft_mask": mask})))
    return rows


def table4(base: RunConfig) -> list[Row]:
    """The frame distances."""
    distances = paper.table4()["distance"]
    return [Row(name, base.change(model={"soft_mask": {"distance": name}})) for name in distances]


# The alternatives for the paper's ambiguities, as changes of the profile.
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
    "LayerNorm before the head (16)": {"model": {"head_norm": "layer"}},
    "LayerNorm before the head, no soft mask (16)": {"model": {"head_norm": "layer", "soft_mask": None}},
    "classification weight 0.1 (17)": {"train": {"cls_weight": 0.1}},
}


def ambiguities(base: RunConfig) -> list[Row]:
    """The profile, then each alternative; the number in a name is that of the ``experiments.ambiguities.Ambiguity``."""
    changed = [Row(name, base.change(**changes), AMBIGUITY_SEEDS) for name, changes in AMBIGUITIES.items()]
    return [Row("default", base, AMBIGUITY_SEEDS), *changed]


# What is changed about A in Eq. 11, by name; the masks of Table 3 that it is tried on, and the number of seeds.
ACTIVATIONS: dict[str, tuple[dict[str, Any], tuple[str, ...], int]] = {
    "bounds as constants": ({"scaling": "constant"}, ("CS (A+M)", "CS (A)", "CA + CS (A+M)"), TABLE_SEEDS),
    "over the mean": ({"scaling": "mean"}, ("CS (A+M)", "CS (A)", "CA + CS (A+M)"), TABLE_SEEDS),
    # Controls: which part of A does the harm.
    "A without gradient": ({"activation": "detached"}, ("CS (A)", "CA + CS (A+M)"), COSTLY_SEEDS),
    "A of other tokens": ({"activation": "shuffled"}, ("CS (A)",), COSTLY_SEEDS),
    "bounds of each frame": ({"scaling": "frame"}, ("CS (A)",), COSTLY_SEEDS),
    "A of the middle block": ({"activation": "scored"}, ("CS (A)",), COSTLY_SEEDS),
}


def activation_map(base: RunConfig) -> list[Row]:
    """Masks that use A (Eq. 10) under other normalisations of Eq. 11, and controls.

    The seeds and this rule were fixed before the runs: the profiles' normalisation changes when both masks together
    score higher under another one, by the rule of :mod:`adatosk.experiments.statistics`, on sparse and on lifelike
    clips alike. If two do, it is ``bounds as constants``, which is Eq. 11 to the letter, unless ``over the mean``
    scores higher than it, again on both.
    """
    masks = {row.name: row.config for row in table3(base)}
    return [
        Row(f"{name}, {what}", masks[name].change(model={"soft_mask": change}), seeds)
        for what, (change, names, seeds) in ACTIVATIONS.items()
        for name in names
    ]


_BASELINE = {"agnostic": False, "semantic": "none", "exclusion": "random"}
# Simple ways to do what the soft mask does, at its cost, as changes of it (adatosk.soft_mask.baselines).
BASELINES: dict[str, dict[str, Any]] = {
    "uniform weights": _BASELINE | {"baseline": "uniform"},
    "weights by change of pixels": _BASELINE | {"baseline": "pixels"},
    "attention pooling": _BASELINE | {"baseline": "attention"},
    "mean of the K active frames": _BASELINE | {"baseline": "active"},
    "CA + CS (A+M), random exclusion": {"exclusion": "random"},
    "CA + CS (M), random exclusion": {"semantic": "M", "exclusion": "random"},
}


def baselines(base: RunConfig) -> list[Row]:
    """What needs no paper, with as many tokens excluded as the soft mask excludes, but at random.

    The number of seeds was fixed before the runs. Both masks, and the best row of Table 3, are *better* than a baseline
    by the rule of :mod:`adatosk.experiments.statistics`; M's exclusion is judged by the rows that differ in it alone.
    This is not one of ``TABLES`` before its runs are there, either.
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
    "rivals": rivals,
}


def repeated(row: Row, at_most: int | None = None) -> list[RunConfig]:
    """A row's runs: one per seed or, if its manifest has folds, one per fold; at most the first ``at_most``."""
    folds = manifest_of(row.config).folds
    changes = [{"data": {"fold": fold}} for fold in folds] or [{"seed": seed} for seed in range(_seeds(row))]
    return [_everywhere(row.config, **change) for change in changes[:at_most]]


def _seeds(row: Row) -> int:
    return min(row.repeats, MOST_SEEDS.get(row.config.data.manifest, row.repeats))


def first_look(base: RunConfig) -> int | None:
    """Number of seeds of Table 1's pair at the interim analysis of its gain; ``None`` on data with folds."""
    return None if manifest_of(base).folds else FIRST_SEEDS


def _everywhere(config: RunConfig, **changes: Any) -> RunConfig:
    """``config`` with changes, which also apply to the run that it starts from."""
    initial = config.initial and _everywhere(config.initial, **changes).model_dump()
    return config.change(**changes).change(initial=initial)


def stages(config: RunConfig) -> Iterator[RunConfig]:
    """The runs to train for a run, in order; the last one is the run itself."""
    if config.initial is not None:
        yield from stages(config.initial)
    yield config


def configs(profile: str, tables: tuple[str, ...] = tuple(TABLES)) -> dict[str, RunConfig]:
    """Every run of the named tables by run id, each after those it starts from, ordered by seed.

    Raises:
        ValueError: for an unknown table.
    """
    unknown = set(tables) - set(TABLES)
    if unknown:
        raise ValueError(f"unknown table {', '.join(sorted(unknown))}: choose {', '.join(TABLES)}")
    base = PROFILES[profile]
    rounds = [enumerate(repeated(row)) for name in tables for row in TABLES[name](base)]
    ordered = sorted((pair for row in rounds for pair in row), key=lambda pair: pair[0])
    return _by_id(base, (run for _, config in ordered for run in stages(config)))


def _by_id(base: RunConfig, runs: Iterable[RunConfig]) -> dict[str, RunConfig]:
    digest = manifest_of(base).digest
    return {run.run_id(digest): run for run in runs}


def headline_configs(profile: str) -> dict[str, RunConfig]:
    """The first seed or fold of the pair that Table 1 compares, by run id."""
    base = PROFILES[profile]
    return _by_id(base, (repeated(row)[0] for row in table1(base)))


def weighed(profile: str) -> dict[str, RunConfig]:
    """The runs whose weights the accuracy-against-cost curve needs, by run id."""
    base = PROFILES[profile]
    rows = [*table1(base), *(row for row in rivals(base) if row.name == ALL_TOKENS)]
    return _by_id(base, (run for row in rows for run in repeated(row, WEIGHED_SEEDS)))


def run_table(profile: str) -> pd.DataFrame:
    """The index of a profile's grid: each run's name, its place in the tables, and the make target that trains it.

    Returns:
        one row per run, in the order of the tables: ``name``, such as ``table3-ca-seed2``, ``run_id``, and the first
        ``table`` that contains it, with ``row`` and ``repeat`` (seed or fold); a run that only serves as the start of
        another is named after that one, with the suffix ``-start``. ``scores_by`` and ``weights_by`` are the make
        targets that train a run whose scores or weights are missing; ``weights_by`` is empty if no target needs its
        weights.

    Raises:
        ValueError: two runs would have the same name.
    """
    base = PROFILES[profile]
    digest = manifest_of(base).digest
    found: dict[str, tuple[str, str, str, int]] = {}
    for table, rows in TABLES.items():
        for row in rows(base):
            for run in repeated(row):
                repeat = ("seed", run.seed) if run.data.fold is None else ("fold", run.data.fold)
                name = f"{_slug(table)}-{_slug(row.name)}-{repeat[0]}{repeat[1]}"
                for before, stage in enumerate(reversed(list(stages(run)))):
                    entry = (name + before * "-start", table, row.name, repeat[1])
                    found.setdefault(stage.run_id(digest), entry)
    index = pd.DataFrame.from_dict(found, orient="index", columns=["name", "table", "row", "repeat"])
    if index["name"].duplicated().any():
        raise ValueError(f"two runs are called {index['name'][index['name'].duplicated()].iloc[0]}: rename a row")
    first, pair = configs(profile, ("table1",)), headline_configs(profile)
    starts = {run.initial.run_id(digest) for run in configs(profile).values() if run.initial is not None}
    later = starts | set(weighed(profile))
    index["scores_by"] = [REPRODUCE if one in first else REPRODUCE_ALL for one in index.index]
    index["weights_by"] = [REPRODUCE if one in pair else REPRODUCE_ALL if one in later else "" for one in index.index]
    index = index.rename_axis("run_id").reset_index()
    return index[["name", "run_id", "table", "row", "repeat", "scores_by", "weights_by"]]


def _slug(text: str) -> str:
    """Lower case, with a single hyphen for each sequence of other characters than letters and digits."""
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")


def write_runs(profile: str, results: Path, runs: dict[str, RunConfig]) -> None:
    """Write ``runs.csv``, the index of the whole grid, and ``runs/<run id>/config.json`` of ``runs`` by their ids.

    ``adatosk train`` reads the latter. Files that exist and are correct are left unchanged.

    Raises:
        ValueError: an existing ``config.json`` does not match the run id of its folder.
    """
    index, path = run_table(profile), results / "runs.csv"
    if not path.is_file() or path.read_text(encoding="utf-8") != index.to_csv(index=False):
        write_csv(path, index, index=False)
    digest = manifest_of(PROFILES[profile]).digest
    for run_id, run in runs.items():
        path = run_file(results, run_id)
        if not path.is_file():
            write_json(path, run.model_dump(mode="json"))
        elif RunConfig.read(path).run_id(digest) != run_id:
            raise ValueError(
                f"{path}: is not the configuration of run {run_id}: delete the file to have it written again"
            )


def run_file(results: Path, run_id: str) -> Path:
    """Path of a run's configuration."""
    return results / "runs" / run_id / "config.json"
