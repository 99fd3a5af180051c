"""The headline table, the paper's value beside ours, from ``results/`` alone: printed, saved, kept in the README."""

import argparse
import sys
from pathlib import Path

import pandas as pd

from adatosk import manifests, paper
from adatosk.efficiency import table1_cost
from adatosk.grid import HEADLINE
from adatosk.presets import MODELS, PROFILES
from adatosk.provenance import PROJECT
from adatosk.train import manifest_path
from adatosk.workspace import Run

BEGIN, END = "<!-- results: begin -->", "<!-- results: end -->"
_PAPER_ROWS = {"with soft mask": paper.WITH_SOFT_MASK, "without soft mask": paper.WITHOUT_SOFT_MASK}


def headline_runs(profile: str, results: Path) -> dict[str, Run]:
    """The finished runs of ``HEADLINE`` under ``results``; ``FileNotFoundError`` names a missing one."""
    config = PROFILES[profile]
    digest = manifests.load(manifest_path(config)).digest
    runs = {}
    for name, changes in HEADLINE.items():
        folder = results / "runs" / config.change(**changes).run_id(digest)
        if not (folder / "metrics.json").is_file():
            raise FileNotFoundError(
                f"{folder / 'metrics.json'}: the run '{name}' is not there; make reproduce makes it"
            )
        runs[name] = Run(folder)
    return runs


def score_table(runs: dict[str, Run]) -> pd.DataFrame:
    """UAR and WAR in percent by protocol, last weights: a row a run, then their difference and the majority class."""
    rows = {}
    for name, run in runs.items():
        scores = run.metrics["last"]
        rows[name] = {(protocol, k.upper()): scores[protocol][k] for protocol in scores for k in ("uar", "war")}
    table = pd.DataFrame.from_dict(rows, orient="index")
    with_mask, without = list(HEADLINE)
    table.loc["gain of the soft mask"] = table.loc[with_mask] - table.loc[without]
    majority = next(iter(runs.values())).metrics["majority"]
    table.loc["always the most frequent class"] = [majority[score.lower()] for _, score in table.columns]
    return table


def results_table(profile: str, results: Path) -> pd.DataFrame:
    """Table 1's pair: the paper's cost and scores on DFEW, our cost of its model, our scores on the profile's data."""
    runs = headline_runs(profile, results)
    data = next(iter(runs.values())).metrics["manifest"]["name"]
    ours = score_table(runs)
    reported = paper.table1().set_index("method")
    costs = table1_cost(MODELS["adatosk_base"]).set_index("paper_row")
    table = pd.DataFrame(index=ours.index)
    for name, method in _PAPER_ROWS.items():
        row, cost = reported.loc[method], costs.loc[method]
        table.loc[name, "parameters (M), paper"] = row["parameters_m"]
        table.loc[name, "parameters (M) of the paper's model, ours"] = cost["classification_m"]
        table.loc[name, "FLOPs (G), paper"] = row["flops_g"]
        table.loc[name, "GMACs of the paper's model, ours"] = cost["gmacs"]
        table.loc[name, "WAR on DFEW, paper"] = row["dfew_war"]
        table.loc[name, "WAR on DFEW, ours"] = float("nan")
    for protocol, score in ours.columns:
        table[f"{score}, {data}, {protocol.replace('_', ' ')}"] = ours[protocol, score]
    return table


def seeds_table(profile: str, results: Path) -> pd.DataFrame:
    """WAR of the pair for every seed that has been run, its gain, and the mean over seeds; a row a seed."""
    base = PROFILES[profile]
    found: dict[int, dict[tuple[str, str], float]] = {}
    for path in results.glob("runs/*/metrics.json"):
        metrics = Run(path.parent).metrics
        for name, changes in HEADLINE.items():
            seed = metrics["seed"]
            if metrics["config"] == base.change(**changes, seed=seed).model_dump(mode="json"):
                for protocol in ("views_1", "views_8"):
                    found.setdefault(seed, {})[protocol, name] = metrics["last"][protocol]["war"]
    table = pd.DataFrame.from_dict(found, orient="index").dropna().sort_index()
    with_mask, without = list(HEADLINE)
    for protocol in ("views_1", "views_8"):
        table[protocol, "gain"] = table[protocol, with_mask] - table[protocol, without]
    table.index = [f"seed {seed}" for seed in table.index]
    table.loc["mean"] = table.mean()
    return table.sort_index(axis=1, kind="stable", level=0, sort_remaining=False)


def as_markdown(table: pd.DataFrame) -> str:
    """A Markdown table with one row a measure, empty where nothing was measured."""
    turned = table.T.map(lambda value: "" if pd.isna(value) else f"{value:.1f}")
    return turned.to_markdown(disable_numparse=True)


def readme_block(profile: str, results: Path) -> str:
    """What stands between the README's markers: the table and where it was measured."""
    runs = headline_runs(profile, results)
    made = [run.metrics for run in runs.values()]
    minutes = " and ".join(f"{one['train_seconds'] / 60:.1f}" for one in made)
    where = made[0]["provenance"]
    clips = made[0]["last"]["views_1"]["clips"]
    note = (
        f"Profile `{profile}`, seed {made[0]['seed']}, {clips} test clips, last epoch; trained in {minutes} minutes on "
        f"{where['device']}, torch {where['torch']}. The paper's scores are on DFEW, which has to be requested: ours "
        "stays empty until someone with the data runs it."
    )
    seeds = seeds_table(profile, results)
    seeds.columns = [f"WAR, {protocol.replace('_', ' ')}, {name}" for protocol, name in seeds.columns]
    parts = (as_markdown(results_table(profile, results)), note, "The same pair, seed by seed:", as_markdown(seeds))
    return "\n\n".join(parts)


def update_readme(readme: Path, block: str) -> None:
    """Replace what stands between the README's markers; ``ValueError`` when it has none."""
    text = readme.read_text()
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"{readme}: no lines {BEGIN} and {END}")
    readme.write_text(f"{before}{BEGIN}\n\n{block}\n\n{END}{after}")


def main(arguments: list[str] | None = None) -> int:
    """The command line; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m adatosk.report", description="Print the headline table.")
    parser.add_argument("--profile", choices=list(PROFILES), default="demo")
    parser.add_argument("--readme", action="store_true", help="also write it into the README")
    options = parser.parse_args(arguments)
    results = PROJECT / "results" / options.profile
    try:
        block = readme_block(options.profile, results)
    except (OSError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    (results / "tables").mkdir(exist_ok=True)
    results_table(options.profile, results).to_csv(results / "tables" / "table1.csv")
    seeds_table(options.profile, results).to_csv(results / "tables" / "seeds.csv")
    if options.readme:
        update_readme(PROJECT / "README.md", block)
    print(f"{block}\n\ntables:  {results / 'tables'}\nfigures: {results / 'figures'}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
