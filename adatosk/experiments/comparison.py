"""Whether a reproduction reproduced: the runs and tables made here beside the published ones, number by number.

Numbers are equal when they are to the last bit. A difference between scores is set against the spread of the published
runs of the same row over their seeds, because another seed would have changed them as much.
"""

from collections.abc import Iterator
from pathlib import Path

import pandas as pd

from adatosk.experiments.grid import TABLES
from adatosk.experiments.runs import run_table
from adatosk.experiments.tables import scores
from adatosk.presets import PROFILES
from adatosk.utils.project import OUTPUTS, PUBLISHED
from adatosk.utils.provenance import read_metrics
from adatosk.workspace import Run

# By chance alone, two seeds are within this many standard deviations of each other in 95 % of cases.
BY_CHANCE = 2.8
KINDS = {
    "score": "scores",
    "loss": "losses and learning rates",
    "prediction": "predictions",
    "weights": "files of weights",
    "table": "cells of tables",
}
_CLOCK = ("seconds", "ms_per_clip")  # what the clock gives is never the same again
_SHOWN = 8


def retrained(profile: str, published: Path = PUBLISHED, outputs: Path = OUTPUTS) -> list[tuple[Run, Run]]:
    """The published run and the one here, for every published run that was trained here, too."""
    pairs = []
    for folder in sorted((outputs / profile / "runs").glob("*/checkpoints/last")):
        here = Run(folder.parent.parent)
        other = Run(published / profile / "runs" / here.folder.name)
        if here.finished and other.finished:
            pairs.append((other, here))
    return pairs


def compare(profile: str, published: Path = PUBLISHED, outputs: Path = OUTPUTS) -> pd.DataFrame:
    """Every number of the retrained runs, and of the tables, beside the published one.

    Returns:
        one row a number: ``kind``, a key of ``KINDS``; ``where``, the run's id or the table's file; ``what``, its name
        there; ``published`` and ``here``, missing where one side lacks it.
    """
    tables = sorted((outputs / profile / "tables").glob("*.csv"))
    known = [(other, path) for path in tables if (other := published / profile / "tables" / path.name).is_file()]
    ships = _shipped(profile, published)
    sides = [
        (here.folder.name, _of_run(other) | ships.get(here.folder.name, {}), _of_run(here))
        for other, here in retrained(profile, published, outputs)
    ]
    sides += [(here.name, _of_table(other), _of_table(here)) for other, here in known]
    rows = [
        (*key, where, other.get(key), here.get(key))
        for where, other, here in sides
        for key in dict.fromkeys((*other, *here))
    ]
    table = pd.DataFrame(rows, columns=["kind", "what", "where", "published", "here"], dtype=object)
    # The earliest runs did not record the digests of their weights, and only the pair's ship.
    return table[(table["kind"] != "weights") | table[["published", "here"]].notna().all(axis=1)]


def _of_run(run: Run) -> dict[tuple[str, str], object]:
    """What a run computed, by kind and name; of its scores all but the confusions, which its predictions give."""
    metrics = run.metrics
    measured = pd.json_normalize({kind: metrics[kind] for kind in ("last", "best_on_test")}).iloc[0]
    found = {("score", name): value for name, value in measured.items() if not name.endswith("confusion")}
    log = run.log.set_index("epoch").drop(columns=[*_CLOCK], errors="ignore")
    found |= {("loss", f"{name}, epoch {epoch}"): value for (epoch, name), value in log.stack().dropna().items()}
    predictions = run.predictions.set_index("id").drop(columns="label")
    found |= {("prediction", f"{name}, {clip}"): value for (clip, name), value in predictions.stack().items()}
    return found | {("weights", name): digest for name, digest in metrics.get("weights", {}).items()}


def _shipped(profile: str, published: Path) -> dict[str, dict[tuple[str, str], object]]:
    """The digests of the weights that ship, by the run's id."""
    found = [read_metrics(path) for path in sorted((published / profile / "weights").glob("*/metrics.json"))]
    return {one["run_id"]: {("weights", name): digest for name, digest in one["weights"].items()} for one in found}


def _of_table(path: Path) -> dict[tuple[str, str], str]:
    """The cells of a table by row and column, as they are written."""
    cells = pd.read_csv(path, dtype=str, keep_default_na=False).drop(columns=[*_CLOCK], errors="ignore")
    return {("table", f"row {row}, {column}"): value for (row, column), value in cells.stack().items()}


def report(profile: str, published: Path = PUBLISHED, outputs: Path = OUTPUTS) -> str:
    """The comparison in words: how many numbers are equal, which differ, by how much, and what may explain it."""
    pairs, found = retrained(profile, published, outputs), compare(profile, published, outputs)
    if found.empty:
        return (
            f"{published / profile}: nothing is published of what was made here, so there is nothing to compare with."
        )
    return "\n".join(_lines(profile, published, pairs, found))


def _lines(profile: str, published: Path, pairs: list[tuple[Run, Run]], found: pd.DataFrame) -> Iterator[str]:
    yield f"Compared with {published / profile}: {len(pairs)} of its runs were trained here, the others are copies."
    differ = found[found["published"] != found["here"]]
    for kind, name in KINDS.items():
        all_, other = (int((table["kind"] == kind).sum()) for table in (found, differ))
        if all_:
            yield f"  {name}: {all_ - other} of {all_} equal to the last bit"
    if not pairs:
        yield "No run was trained here, so this says nothing about training."
    elif differ.empty:
        yield "Reproduced to the last bit."
    if differ.empty:
        return
    for table, part in differ[differ["kind"] == "table"].groupby("where"):
        yield f"  tables/{table}: {len(part)} cells differ, such as {_shown(part.iloc[0])}"
    yield from _apart(profile, published, differ[differ["kind"] == "score"])
    if pairs:
        yield "What may explain it: " + ("; ".join(_circumstances(pairs)) or "nothing that the runs record differs.")


def _shown(one: pd.Series) -> str:
    return f"{one['what']}: {one['published']} there, {one['here']} here"


def _apart(profile: str, published: Path, differ: pd.DataFrame) -> Iterator[str]:
    """The UAR and WAR that differ most, in points and against the spread over seeds."""
    differ = differ[differ["what"].str.fullmatch(r"last\..*\.(uar|war)")].dropna()
    if differ.empty:
        return
    index = run_table(profile).set_index("run_id")
    spreads = {
        name: _spread(profile, name, published / profile) for name in index.loc[differ["where"], "table"].unique()
    }
    rows = []
    for one in differ.itertuples():
        run, (_, protocol, score) = index.loc[one.where], one.what.split(".")
        spread = spreads[run["table"]].get((run["row"], protocol, score), float("nan"))
        rows.append(
            (run["name"], f"{score.upper()}, {protocol}", one.published, one.here, one.here - one.published, spread)
        )
    table = pd.DataFrame(rows, columns=["run", "score", "published", "here", "difference", "over seeds"])
    ratio = (table["difference"].abs() / table["over seeds"]).max()
    yield "UAR and WAR that differ most, in points, beside the standard deviation over seeds of the published row:"
    yield table.sort_values("difference", key=abs, ascending=False).head(_SHOWN).round(2).to_string(index=False)
    if ratio == ratio:
        words = "no more than two seeds do" if ratio <= BY_CHANCE else "more than two seeds do by chance"
        yield f"The largest is {ratio:.1f} standard deviations: {words} (up to {BY_CHANCE} in 95 % of cases)."


def _spread(profile: str, name: str, results: Path) -> dict[tuple[str, str, str], float]:
    """Standard deviation over the published repeats by row, protocol and score."""
    found = scores(TABLES[name](PROFILES[profile]), results, partial=True)
    spread = found.groupby(["row", "protocol"])[["uar", "war"]].std()
    spread.columns.name = "score"
    return spread.stack().to_dict()


def _circumstances(pairs: list[tuple[Run, Run]]) -> list[str]:
    """What the runs were made with, where it differs."""
    found = {}
    for other, here in pairs:
        there, now = other.metrics["provenance"], here.metrics["provenance"]
        for name in now:
            if there.get(name) != now[name]:
                found[f"{name} {str(there.get(name, 'not recorded'))[:30]} there, {str(now[name])[:30]} here"] = None
    return list(found)
