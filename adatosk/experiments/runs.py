"""The runs of a profile's grid: by id, in an index that says what each is for, and as files that training reads."""

import re
from collections.abc import Iterable
from pathlib import Path

import pandas as pd

from adatosk.config import RunConfig
from adatosk.experiments.grid import ALL_TOKENS, TABLES, WEIGHED_SEEDS, repeated, rivals, stages, table1
from adatosk.manifests import manifest_of
from adatosk.presets import PROFILES
from adatosk.utils.files import write_csv, write_json

# The make targets: the pair with its repeats, and everything.
REPRODUCE, REPRODUCE_ALL = "reproduce", "reproduce-all"


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
