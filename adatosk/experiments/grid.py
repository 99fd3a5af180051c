"""Every run that the paper's tables, the open readings and the rivals need, by table and row.

A run's id is made of its configuration, so a row that stands in two tables is trained once. Each row is repeated: over
seeds, or, on data with folds, over the folds. :func:`write_runs` writes the runs as files that ``adatosk train`` reads.
"""

import re
from collections.abc import Iterator
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
# The pair was run with FIRST_SEEDS first, which left its gain undecided; how many more there would be was fixed before
# they ran, and they are also judged alone (experiments.statistics.looks), for they have not been chosen by what one
# saw.
FIRST_SEEDS, HEADLINE_SEEDS = 5, 15
# Likewise, three seeds left most claims on Tables 2 to 4 undecided, and two every open reading; these numbers were
# fixed before the further ones ran. Rows that see more tokens than the profile's own take several times as long and lie
# 10 points and more apart: they keep three.
TABLE_SEEDS, DEAR_SEEDS, READING_SEEDS = 6, 3, 4
# Views and merged tokens are measured anew on each seed's weights, which takes longer than it tells.
WEIGHED_SEEDS = FIRST_SEEDS


# The make targets: the pair with its repeats, and all.
REPRODUCE, REPRODUCE_ALL = "reproduce", "reproduce-all"


@dataclass(frozen=True)
class Row:
    """One row of a table.

    Attributes:
        name: what it is called there.
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
    """e that stands for the paper's r: the profile's own e stands for r = 2 of 16 frames."""
    return r * base.required_soft_mask.excluded_per_step // paper.SETTINGS["top_r"].value


def table2(base: RunConfig) -> list[Row]:
    """Hard mask ratio × exclusion; cells that are impossible with the profile's sizes are left out."""
    rows = []
    for cell in paper.table2().itertuples():
        excluded = mirrored_exclusion(base.model, cell.r)
        try:
            changed = base.change(model={"mask_ratio": cell.mask_ratio, "soft_mask": {"excluded_per_step": excluded}})
        except ValueError:
            continue
        seeds = TABLE_SEEDS if cell.mask_ratio >= base.model.mask_ratio else DEAR_SEEDS
        rows.append(Row(cell_name(cell.mask_ratio, cell.r), changed, seeds))
    return rows


def cell_name(mask_ratio: float, r: int) -> str:
    """The row of a cell of Table 2."""
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


# Open readings of the paper, each against the profile's own.
READINGS: dict[str, dict[str, Any]] = {
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


def open_readings(base: RunConfig) -> list[Row]:
    """The profile, then each open reading the other way; the number in a name is READING's."""
    changed = [Row(name, base.change(**changes), READING_SEEDS) for name, changes in READINGS.items()]
    return [Row("default", base, READING_SEEDS), *changed]


def rivals(base: RunConfig) -> list[Row]:
    """What else one would train, on the same data: for as many epochs, or for as many multiply-accumulates.

    * ``all tokens``: a supervised ViT that sees every patch.
    * ``pre-trained``: VideoMAE's way, reconstruction first, then the classifier on all tokens.
    * ``joint``: SupMAE's way, both losses on the visible patches, which is this model without soft mask.

    A step on all tokens takes about as many operations as ``_step_ratio`` steps of the joint model.
    """
    epochs, one_view = base.train.epochs, {"views": (1,), "complementary": False}
    whole = base.change(model={"soft_mask": None, "mask_ratio": 0.0}, train={"rec_weight": 0.0}, evaluation=one_view)
    masked = base.change(model={"soft_mask": None}, train={"cls_weight": 0.0}, evaluation=one_view)
    fewer = max(round(epochs / _step_ratio(base.model)), 2)
    half = _shorter(masked, epochs // 2)
    after = whole.change(weights=None)  # where the base starts from a checkpoint, the run before this one does
    return [
        Row(name, config, DEAR_SEEDS)
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
    """How many times a training step of the joint model a supervised step on all tokens costs, in MACs."""
    whole = model.change(soft_mask=None, mask_ratio=0.0)
    joint = model.change(soft_mask=None)
    return sum(hand_count(whole).values()) / sum(hand_count(joint, training=True).values())


TABLES = {
    "table1": table1,
    "table2": table2,
    "table3": table3,
    "table4": table4,
    "open_readings": open_readings,
    "rivals": rivals,
}


def repeated(row: Row, at_most: int | None = None) -> list[RunConfig]:
    """A row's runs: one a seed, or, where its manifest has folds, one a fold; the first ``at_most`` of them."""
    folds = manifest_of(row.config).folds
    changes = [{"data": {"fold": fold}} for fold in folds] or [{"seed": seed} for seed in range(row.repeats)]
    return [_everywhere(row.config, **change) for change in changes[:at_most]]


def first_look(base: RunConfig) -> int | None:
    """How many seeds Table 1's pair had when its gain was first looked at; ``None`` on data with folds."""
    return None if manifest_of(base).folds else FIRST_SEEDS


def _everywhere(config: RunConfig, **changes: Any) -> RunConfig:
    """``config`` changed, and with it the run that it starts from."""
    initial = config.initial and _everywhere(config.initial, **changes).model_dump()
    return config.change(**changes).change(initial=initial)


def stages(config: RunConfig) -> Iterator[RunConfig]:
    """The runs that a run needs, in order; the last one is the run itself."""
    if config.initial is not None:
        yield from stages(config.initial)
    yield config


def configs(profile: str, tables: tuple[str, ...] = tuple(TABLES)) -> dict[str, RunConfig]:
    """Every run of the named tables by run id, each after those it starts from; first seeds first.

    Raises:
        ValueError: for an unknown table.
    """
    unknown = set(tables) - set(TABLES)
    if unknown:
        raise ValueError(f"unknown table {', '.join(sorted(unknown))}: choose {', '.join(TABLES)}")
    base = PROFILES[profile]
    digest = manifest_of(base).digest
    rounds = [enumerate(repeated(row)) for name in tables for row in TABLES[name](base)]
    ordered = sorted((pair for row in rounds for pair in row), key=lambda pair: pair[0])
    return {run.run_id(digest): run for _, config in ordered for run in stages(config)}


def headline_configs(profile: str) -> dict[str, RunConfig]:
    """The first seed or fold of the pair that Table 1 compares, by run id."""
    base = PROFILES[profile]
    digest = manifest_of(base).digest
    return {run.run_id(digest): run for run in (repeated(row)[0] for row in table1(base))}


def weighed(profile: str) -> dict[str, RunConfig]:
    """The runs whose weights the accuracy-against-cost curve needs, by run id."""
    base = PROFILES[profile]
    digest = manifest_of(base).digest
    rows = [*table1(base), *(row for row in rivals(base) if row.name == ALL_TOKENS)]
    return {run.run_id(digest): run for row in rows for run in repeated(row, WEIGHED_SEEDS)}


def run_table(profile: str) -> pd.DataFrame:
    """The index of a profile's grid: what each run is called, where it stands, and which make target trains it.

    Returns:
        one row a run, in the order of the tables: ``name``, such as ``table3-ca-seed2``, ``run_id``, and the first
        ``table`` with the ``row`` and ``repeat`` (seed or fold) where it stands; a run that only starts another one is
        called after that, with ``-start`` behind it. ``scores_by`` and ``weights_by`` are the make targets that train
        a run whose scores or weights are missing; no target asks for the weights of those where it is empty.

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
    """Lower case, with single hyphens for all that is neither letter nor digit."""
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")


def write_runs(profile: str, results: Path, runs: dict[str, RunConfig]) -> None:
    """Write ``runs.csv``, the index of the whole grid, and ``runs/<run id>/config.json`` of ``runs`` by their ids.

    Each of the latter is what ``adatosk train`` reads. Files that are there and right stay as they are.

    Raises:
        ValueError: a ``config.json`` that is there is not that of the run whose id its folder has.
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
                f"{path}: is not the configuration of run {run_id}: delete the file, and it is written anew"
            )


def run_file(results: Path, run_id: str) -> Path:
    """Where a run's configuration lies."""
    return results / "runs" / run_id / "config.json"
