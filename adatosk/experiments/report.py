"""The main results, the paper's values next to ours, from runs alone: printed, saved, and kept in the pages."""

import re
from collections.abc import Iterable
from contextlib import suppress
from math import nan
from pathlib import Path

import pandas as pd

from adatosk import paper
from adatosk.config import RunConfig
from adatosk.cost.operations import table1_cost
from adatosk.experiments import claims
from adatosk.experiments.grid import AGNOSTIC, BOTH, HEADLINE, TABLES, Row, chosen_on, table1, table3
from adatosk.experiments.paper_vs_ours import REFERENCE, reported
from adatosk.experiments.statistics import FEWEST, PROTOCOL, VERDICTS, interval, looks, score_interval
from adatosk.experiments.tables import over_folds, scores, summary
from adatosk.experiments.verdicts import PAPER_ROWS, verdicts
from adatosk.manifests import manifest_of
from adatosk.metrics import MEAN, POOLED
from adatosk.presets import EMBEDDED, MODELS, PROFILES
from adatosk.utils.files import write_csv, write_text
from adatosk.workspace import Run

_COSTS = (
    ("parameters (M), paper", "parameters (M) of the paper's model, ours"),
    ("FLOPs (G), paper", "GMACs of the paper's model, ours"),
)
BEGIN, END = "<!-- results: begin -->", "<!-- results: end -->"
PROTOCOLS = ("views_1", "views_8")
GAIN = "gain of the soft mask"
TITLES = {
    "table3": "Table 3, the parts of the soft mask (mean ± 95 % interval; only rows of one column compare: models at "
    "the paper's geometry see five times as many patches for twice as many epochs):",
    "table4": "Table 4, the frame distance:",
    "table2": "Table 2, hard mask ratio and excluded tokens r (as the paper counts; its r = 2 is {excluded} of each "
    "step's tokens here; cells without a row are impossible at this size):",
    "baselines": "Simple ways to weigh tokens, and to exclude them at random, at the soft mask's cost:",
    "rivals": "Alternative methods on the same data (`joint` is the model without the soft mask; `all tokens` sees "
    "every patch at once, so it has no views to average; `pre-trained` first learns to reconstruct):",
    "open_readings": "Alternatives to our interpretation of the paper, each a single change of the first row or, where "
    "it names one, of a row of Table 3 as in Eq. 11:",
    "activation_map": "Masks of Table 3 with something changed about A (Eq. 10) or its normalisation (Eq. 11):",
    "as_published": "Tables 1, 2 and 4 as in Eq. 11, to the letter; Table 3's rows are in the table above:",
}


def _titled(profile: str) -> dict[str, str]:
    """The tables of the grid that have rows on the profile's data, with their titles."""
    excluded = PROFILES[profile].model.required_soft_mask.excluded_per_step
    return {name: title.format(excluded=excluded) for name, title in TITLES.items() if TABLES[name](PROFILES[profile])}


def headline_runs(profile: str, results: Path) -> dict[str, Run]:
    """The finished runs of ``HEADLINE`` under ``results``; ``FileNotFoundError`` names a missing one."""
    config = PROFILES[profile]
    digest = manifest_of(config).digest
    runs = {}
    for name, changes in HEADLINE.items():
        folder = results / "runs" / config.change(**changes).run_id(digest)
        if not (folder / "metrics.json").is_file():
            raise FileNotFoundError(f"{folder / 'metrics.json'}: the run '{name}' is missing; make reproduce trains it")
        runs[name] = Run(folder)
    return runs


def score_table(runs: dict[str, Run]) -> pd.DataFrame:
    """UAR and WAR in percent by protocol, last weights: a row per run, then their difference and the majority class."""
    rows = {}
    for name, run in runs.items():
        scores = run.metrics["last"]
        rows[name] = {(protocol, k.upper()): scores[protocol][k] for protocol in scores for k in ("uar", "war")}
    table = pd.DataFrame.from_dict(rows, orient="index").astype(float).round(4)
    with_mask, without = list(HEADLINE)
    table.loc[GAIN] = table.loc[with_mask] - table.loc[without]
    majority = next(iter(runs.values())).metrics["majority"]
    table.loc["always the most frequent class"] = [majority[score.lower()] for _, score in table.columns]
    return table


def results_table(profile: str, results: Path) -> pd.DataFrame:
    """Table 1's pair: the paper's cost and WAR, our cost of its model, our scores on the profile's data.

    The paper's WAR is on the profile's data set or, where it has none on that, on DFEW.
    """
    runs = headline_runs(profile, results)
    data = next(iter(runs.values())).metrics["manifest"]["name"]
    ours = score_table(runs)
    reported = paper.table1().set_index("method")
    costs = table1_cost(MODELS["adatosk_base"]).set_index("paper_row")
    table = pd.DataFrame(index=ours.index)
    rows, reference = {row.name: row for row in table1(PROFILES[profile])}, data if data in paper.SETS else "dfew"
    for name, method in PAPER_ROWS.items():
        row, cost = reported.loc[method], costs.loc[method]
        table.loc[name, "parameters (M), paper"] = row["parameters_m"]
        table.loc[name, "parameters (M) of the paper's model, ours"] = cost["classification_m"]
        table.loc[name, "FLOPs (G), paper"] = row["flops_g"]
        table.loc[name, "GMACs of the paper's model, ours"] = cost["gmacs"]
        if data != reference:
            own = nan
        elif manifest_of(rows[name].config).folds:
            own = war_over_folds(rows[name], results)
        else:
            own = ours.at[name, (PROTOCOL, "WAR")]
        table.loc[name, f"WAR on {paper.SETS[reference]}, paper"] = row[f"{reference}_war"]
        table.loc[name, f"WAR on {paper.SETS[reference]}, ours"] = own
    for protocol, score in ours.columns:
        table[f"{score}, {data}, {protocol.replace('_', ' ')}"] = ours[protocol, score]
    return table


def war_over_folds(row: Row, results: Path) -> float:
    """WAR with one view, as the field reports it: the mean over all folds, NaN while one is missing."""
    table, folds = over_folds(row, results), manifest_of(row.config).folds
    return table.at[MEAN, "war"] if all(f"fold {fold}" in table.index for fold in folds) else nan


def folds_table(profile: str, results: Path) -> pd.DataFrame | None:
    """The pair's UAR and WAR with one view: each fold, their mean, the pooled predictions; ``None`` without folds."""
    base = PROFILES[profile]
    if not manifest_of(base).folds:
        return None
    parts = {row.name: over_folds(row, results)[["uar", "war"]] for row in table1(base)}
    table = pd.concat(parts, axis=1).map("{:z.1f}".format)
    table.columns = [f"{score.upper()}, {name}" for name, score in table.columns]
    return table


def repeats_are(profile: str) -> str:
    """What a row's runs differ in: ``fold`` or ``seed``."""
    return "fold" if manifest_of(PROFILES[profile]).folds else "seed"


def seeds_table(base: RunConfig, results: Path) -> pd.DataFrame:
    """WAR of the pair for every finished seed or fold, and its gain; one row per seed or fold."""
    found = scores(table1(base), results, partial=True)
    table = found[found["protocol"].isin(PROTOCOLS)].pivot(index="repeat", columns=["protocol", "row"], values="war")
    with_mask, without = list(HEADLINE)
    table = table.reindex(columns=pd.MultiIndex.from_product([PROTOCOLS, HEADLINE], names=table.columns.names)).dropna()
    for protocol in PROTOCOLS:
        table[protocol, "gain"] = table[protocol, with_mask] - table[protocol, without]
    return table[[(protocol, row) for protocol in PROTOCOLS for row in (with_mask, without, "gain")]]


def with_mean(table: pd.DataFrame, repeats: str = "seed") -> pd.DataFrame:
    """:func:`seeds_table` as text, with the mean ± its 95 % interval below."""
    text = table.map("{:z.1f}".format).rename(index=f"{repeats} {{}}".format)
    means = {column: interval if column[-1] == "gain" else score_interval for column in table}
    text.loc["mean"] = [str(mean(table[column])) for column, mean in means.items()]
    return text


def gain_in_words(profile: str, results: Path) -> str:
    """The gain of the soft mask with one view, over all seeds and over those that no choice was made on."""
    return _by_look(profile, results, table1(PROFILES[profile]), HEADLINE, "The gain of the soft mask")


def lead_in_words(profile: str, results: Path) -> str:
    """Likewise the lead of both masks over the class-agnostic one; empty where one of the rows has no run."""
    what = "The lead of both soft masks over the class-agnostic one"
    return _by_look(profile, results, table3(PROFILES[profile]), (BOTH, AGNOSTIC), what)


def _by_look(profile: str, results: Path, rows: list[Row], pair: Iterable[str], what: str) -> str:
    repeats, (better, worse) = repeats_are(profile), pair
    table = scores(rows, results, partial=True)
    if not {better, worse} <= set(table["row"]):
        return ""
    found = looks(table, better, worse, chosen_on(PROFILES[profile]))
    found = found[(found["score"] == "war") & (found["protocol"] == PROTOCOL)]
    parts = [
        f"{one.repeats}: {one.difference:z.1f} in [{one.low:z.1f}, {one.high:z.1f}], p = {one.p:.2g}, "
        f"{one.count} {repeats}s"
        for one in found.dropna(subset="low").itertuples()
    ]
    if not parts:
        return "".join(
            f"{what} is {one.difference:z.1f} points of WAR with one view over {one.count} {repeats}s, too few for an "
            "interval."
            for one in found[found["repeats"] == "all"].itertuples()
        )
    text = f"{what} in points of WAR with one view, with 95 % intervals, paired by {repeats}"
    looked = " The normalisation of Eq. 11 was chosen on the first seeds, so the later ones are also judged alone."
    return f"{text}: {'; '.join(parts)}.{looked if parts[-1].startswith('later') else ''}"


def grid_table(profile: str, name: str, results: Path) -> pd.DataFrame:
    """One table of the grid, mean ± 95 % interval of WAR over the finished seeds, next to the paper's."""
    rows = TABLES[name](PROFILES[profile])
    found = scores(rows, results, partial=True)
    table = summary(found).reindex([row.name for row in rows], columns=list(PROTOCOLS))
    table.columns = [f"WAR, {protocol.replace('_', ' ')}" for protocol in PROTOCOLS]
    table.insert(
        0,
        f"{repeats_are(profile)}s",
        found.groupby("row")["repeat"].nunique().reindex(table.index).fillna(0).astype(int),
    )
    if name in REFERENCE:  # the paper has this table
        table["WAR on DFEW, paper"] = reported(name)["war"].reindex(table.index)
    return table


def with_other_clips(profile: str, name: str, results: Path) -> pd.DataFrame:
    """:func:`grid_table` as text, with WAR with one view and seeds on the embedded benchmark's other clips."""
    table = grid_table(profile, name, results).map(lambda value: "" if pd.isna(value) else str(value))
    for kind, other in EMBEDDED.items() if profile in EMBEDDED.values() else ():
        if other == profile:
            continue
        there = grid_table(other, name, results.parent / other)
        there = there[there["seeds"] > 0]
        if len(there):
            text = there["WAR, views 1"].str.partition(" (n =")[0] + ", n = " + there["seeds"].astype(str)
            table[f"WAR, views 1, {kind}"] = text.reindex(table.index).fillna("")
    return table


def headline_table(profile: str, results: Path) -> pd.DataFrame:
    """The six lines of the README: the paper's numbers, ours, and ours on the embedded benchmark's other clips."""
    table, theirs = results_table(profile, results), reported("table1")["war"]
    with_mask, without = list(HEADLINE)
    parameters, flops = (
        [" / ".join(map("{:.1f}".format, table.loc[[with_mask, without], name])) for name in pair] for pair in _COSTS
    )
    scores_there = [f"{theirs[with_mask]:.1f}", f"{theirs[without]:.1f}", f"{theirs[with_mask] - theirs[without]:z.1f}"]
    columns = {"paper, on DFEW": [*scores_there, flops[0], parameters[0], str(len(paper.CLAIMS))]}
    kinds = {name: kind for kind, name in EMBEDDED.items()}
    judged = verdicts(PROFILES[profile], results, partial=True)
    seeds = seeds_table(PROFILES[profile], results)
    column, scores_here = _pair_in_words(seeds, kinds.get(profile, "rendered faces"), repeats_are(profile))
    columns[column] = [*scores_here, flops[1], parameters[1], _counted(judged)]
    for kind, base, folder in claims.studied(profile, results) if profile in kinds else ():
        if base != PROFILES[profile] and len(seeds := seeds_table(base, folder)) >= FEWEST:
            column, scores_here = _pair_in_words(seeds, kind, "seed")
            columns[column] = [*scores_here, "", "", _counted(claims.about_accuracy(base, folder))]
    lines = [
        "accuracy (WAR) with soft mask, %",
        "accuracy (WAR) without soft mask, %",
        "gain of the soft mask, points",
        "GMACs of the paper's model with / without soft mask",
        "its parameters with / without soft mask, millions",
        "claims of the paper",
    ]
    return pd.DataFrame(columns, index=lines)


def _pair_in_words(seeds: pd.DataFrame, kind: str, repeats: str) -> tuple[str, list[str]]:
    """The heading of a column, and WAR of the pair and its gain with their intervals, from :func:`seeds_table`."""
    with_mask, without = (str(score_interval(seeds[PROTOCOL, name])) for name in HEADLINE)
    gain = interval(seeds[PROTOCOL, "gain"])
    return f"here, on {kind}, {gain.count} {repeats}s", [with_mask, without, str(gain)]


def _counted(judged: pd.DataFrame) -> str:
    """How many claims have which verdict, in words."""
    counts = judged["verdict"].where(judged["verdict"].isin(VERDICTS), "not to be checked here").value_counts()
    return ", ".join(f"{counts[name]} {name}" for name in dict.fromkeys((*VERDICTS, *counts.index)) if name in counts)


def as_markdown(table: pd.DataFrame) -> str:
    """A Markdown table with one row per measure, empty where nothing was measured."""
    turned = table.T.map(lambda value: value if isinstance(value, str) else "" if pd.isna(value) else f"{value:z.1f}")
    return turned.to_markdown(disable_numparse=True)


def pair_by_kind(profile: str, results: Path) -> pd.DataFrame | None:
    """WAR of the pair's first seed on each kind of clips of the embedded benchmark, and its gain.

    Args:
        profile: one of ``EMBEDDED``.
        results: its results; those of the other kinds are in the folders beside it.

    Returns:
        one row per kind whose pair has been trained, with a column per model and protocol; ``None`` for other profiles.
    """
    if profile not in EMBEDDED.values():
        return None
    rows = {}
    for kind, name in EMBEDDED.items():
        with suppress(FileNotFoundError):
            table = score_table(headline_runs(name, results.parent / name))
            rows[f"{kind} (profile {name})"] = {
                f"{row}, {protocol.replace('_', ' ')}": table.at[row, (protocol, "WAR")]
                for protocol in PROTOCOLS
                for row in (*HEADLINE, GAIN)
            }
    return pd.DataFrame.from_dict(rows, orient="index")


def headline_block(profile: str, results: Path) -> str:
    """The text between the README's markers, not padded to columns: the page is short, and is read as rendered."""
    padded = headline_table(profile, results).to_markdown(disable_numparse=True)
    return re.sub(r"(?<=-)-{3,}|(?<= ) +", "", padded)


def results_block(profile: str, results: Path) -> str:
    """The text between the markers of RESULTS.md: the tables and where they were measured."""
    runs = headline_runs(profile, results)
    made = [run.metrics for run in runs.values()]
    minutes = " and ".join(f"{one['train_seconds'] / 60:.1f}" for one in made)
    where = made[0]["provenance"]
    clips = made[0]["last"]["views_1"]["clips"]
    repeats = repeats_are(profile)
    first = f"fold {made[0]['config']['data']['fold']}" if repeats == "fold" else f"seed {made[0]['seed']}"
    note = (
        f"Profile `{profile}`, {first}, {clips} test clips, last epoch; trained in {minutes} minutes on "
        f"{where['device']}, torch {where['torch']}. *Views 1* is one random hard mask a clip, as the paper's cost "
        "implies; *views 8* averages the logits over eight, *complementary* over masks that partition the patches."
    )
    if made[0]["manifest"]["name"] not in paper.SETS:
        note += (
            " The paper's scores are on DFEW, which has to be requested from its authors: our cell stays empty until "
            "someone with access to the data runs it."
        )
    seeds = with_mean(seeds_table(PROFILES[profile], results), repeats)
    seeds.columns = [f"WAR, {protocol.replace('_', ' ')}, {name}" for protocol, name in seeds.columns]
    parts = [as_markdown(results_table(profile, results)), note, f"The same pair, {repeats} by {repeats}:"]
    parts += [seeds.to_markdown(disable_numparse=True), gain_in_words(profile, results)]
    folds = folds_table(profile, results)
    if folds is not None:
        parts += [f"With one view, the {MEAN} and the {POOLED}:", folds.to_markdown(disable_numparse=True)]
    for name, title in _titled(profile).items():
        parts += [title, with_other_clips(profile, name, results).to_markdown(disable_numparse=True)]
        parts += [lead_in_words(profile, results)] if name == "table3" else []
    parts += [claims.TITLE, claims.claims_table(profile, results).to_markdown(disable_numparse=True)]
    kinds = claims.side_by_side(profile, results)
    if kinds is not None:
        parts += [claims.SIDE_BY_SIDE_TITLE, kinds.to_markdown(disable_numparse=True)]
    return "\n\n".join(filter(None, parts))


def update_page(page: Path, block: str) -> bool:
    """Replace the text between a page's markers, which a ``ValueError`` misses; returns whether it is another."""
    text = page.read_text(encoding="utf-8")
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"{page}: no lines {BEGIN} and {END}")
    new = f"{before}{BEGIN}\n\n{block}\n\n{END}{after}"
    if new != text:
        write_text(page, new)
    return new != text


def write_tables(profile: str, results: Path) -> None:
    """Write the tables that no notebook writes below ``results``; ``FileNotFoundError``: see :func:`headline_runs`."""
    write_csv(results / "tables" / "table1.csv", results_table(profile, results))
    write_csv(results / "tables" / "seeds.csv", seeds_table(PROFILES[profile], results))
    for name in _titled(profile):
        write_csv(results / "tables" / f"{name}_summary.csv", grid_table(profile, name, results))
