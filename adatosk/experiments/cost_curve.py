"""Accuracy against cost: scores over the number of views, the hard mask ratio and r, with the rivals, by GMACs a clip.

A run's own scores are in its ``metrics.json``; other protocols, and merged or dropped tokens, are scored here, which
needs the trained weights. Costs are counted for the classification of one clip, over all its views.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pandas as pd
from torch import Tensor

from adatosk import paper
from adatosk.clips import make_loader
from adatosk.clips.loader import Batches
from adatosk.config import EvalConfig, ModelConfig, RunConfig
from adatosk.cost.operations import count_parameters, hand_count
from adatosk.evaluate import predict_split
from adatosk.experiments import grid, tables
from adatosk.experiments.statistics import PROTOCOL, interval, score_interval
from adatosk.experiments.token_merging import merged_count, most_merged, with_merging
from adatosk.manifests import manifest_of
from adatosk.metrics import Scores
from adatosk.model import AdaTosk, create_model
from adatosk.onednn import through_onednn
from adatosk.tokens import complementary_masks
from adatosk.utils.devices import run_device
from adatosk.workspace import Workspace

VIEWS = (1, 2, 4, 8, 16)
DROPPED = (0.25, 0.5, 0.7)  # Table 2's hard mask ratios
MERGED, RANDOM = "all tokens, merged", "all tokens, dropped at random"
PARTITION, ALL_PATCHES = "complementary", "all patches"
COLUMNS = ["curve", "setting", "repeat", "gmacs", "uar", "war"]

# Curve, setting, GMACs and scores.
Point = tuple[str, str, float, Scores]


def reported_points(base: RunConfig, results: Path, at_most: int | None = None) -> pd.DataFrame:
    """The runs' own scores with one view, of Table 2's cells and the rivals; needs no weights.

    Returns:
        one row per cell or rival and repeat, with ``COLUMNS``: ``curve`` is the hard mask ratio with r as its
        ``setting``, or the rival; ``gmacs`` per clip; ``uar`` and ``war`` in percent.

    Raises:
        FileNotFoundError: when a run is missing.
    """
    cells = {grid.cell_name(cell.mask_ratio, cell.r): cell for cell in paper.table2().itertuples()}
    rows = grid.table2(base) + grid.rivals(base)
    gmacs = {row.name: view_gmacs(row.config.model) for row in rows}
    found = tables.scores(rows, results, at_most).query("protocol == @PROTOCOL").reset_index(drop=True)
    places = [
        (f"{cells[name].mask_ratio:.0%} hidden", f"r={cells[name].r}") if name in cells else (name, "1 view")
        for name in found["row"]
    ]
    named = pd.DataFrame(places, columns=["curve", "setting"])
    return found.join(named).assign(gmacs=found["row"].map(gmacs))[COLUMNS]


def measured_points(workspace: Workspace, at_most: int | None = None) -> pd.DataFrame:
    """The points that need weights: views, all patches, tokens merged or dropped.

    Returns:
        like :func:`reported_points`: the curves are the pair of Table 1 and the supervised ViT on all tokens, merged
        and dropped; at most the first ``grid.WEIGHED_SEEDS`` seeds of each.

    Raises:
        FileNotFoundError: weights are missing, and the workspace does not train what is missing.
    """
    at_most = min(at_most or grid.WEIGHED_SEEDS, grid.WEIGHED_SEEDS)
    pair = {row.name: row for row in grid.table1(workspace.config)}
    whole = next(row for row in grid.rivals(workspace.config) if row.name == grid.ALL_TOKENS)
    # All at once, so that missing runs are reported before minutes of scoring.
    workspace.runs(
        (run for row in (*pair.values(), whole) for run in grid.repeated(row, at_most)), need_checkpoint=True
    )
    rows = [
        (curve, setting, tables.repeat_of(config), gmacs, scores.uar, scores.war)
        for points, row in [*((_view_points, row) for row in pair.values()), (_fewer_tokens, whole)]
        for config in grid.repeated(row, at_most)
        for curve, setting, gmacs, scores in points(row.name, *_loaded(workspace, config), config.evaluation)
    ]
    return pd.DataFrame(rows, columns=COLUMNS)


def _loaded(workspace: Workspace, config: RunConfig) -> tuple[AdaTosk, Batches]:
    (run,) = workspace.runs([config], need_checkpoint=True)
    model = run.model()
    device, clips = run_device(), workspace.split("test", config)
    batches = make_loader(clips, config.evaluation.batch_size, workspace.places.workers, device=device)
    # As in the run's own evaluation.
    return through_onednn(model.to(device)), batches


def _view_points(name: str, model: AdaTosk, batches: Iterable[dict], evaluation: EvalConfig) -> Iterator[Point]:
    """Score one model with every number of views, with the partition, and with one view of all patches."""
    config, classes = model.config, model.config.classes
    views = evaluation.model_copy(update={"views": VIEWS, "complementary": True})
    found = predict_split(model, batches, views).scores(classes)
    for count in VIEWS:
        yield name, f"{count} view{'s' * (count > 1)}", view_gmacs(config, count), found[f"views_{count}"]
    yield name, PARTITION, view_gmacs(config, complementary=True), found[PARTITION]
    everything = _at_ratio(model, 0.0)
    yield name, ALL_PATCHES, view_gmacs(everything.config), _one_view(everything, batches, evaluation)


def _fewer_tokens(name: str, model: AdaTosk, batches: Iterable[dict], evaluation: EvalConfig) -> Iterator[Point]:
    """Score a ViT trained on all tokens with fewer of them: similar ones merged, or random patches dropped."""
    most = most_merged(model.config)
    for r in (round(part * most / 4) for part in (1, 2, 3, 4)):
        gmacs = sum(merged_count(model.config, r).values()) / 1e9
        yield MERGED, f"r={r}", gmacs, _one_view(with_merging(model, r), batches, evaluation)
    for ratio in DROPPED:
        fewer = _at_ratio(model, ratio)
        yield RANDOM, f"{ratio:.0%}", view_gmacs(fewer.config), _one_view(fewer, batches, evaluation)


def _at_ratio(model: AdaTosk, ratio: float) -> AdaTosk:
    """The model, from now on tested with a hard mask ratio other than that of its training."""
    model.config = model.config.change(mask_ratio=ratio)
    return model


def _one_view(model: AdaTosk, batches: Iterable[dict], evaluation: EvalConfig) -> Scores:
    once = evaluation.model_copy(update={"views": (1,), "complementary": False})
    return predict_split(model, batches, once).scores(model.config.classes)[PROTOCOL]


def view_gmacs(config: ModelConfig, views: int = 1, complementary: bool = False) -> float:
    """GMACs of classifying one clip with a number of views, or with one partition into complementary ones."""
    sizes = [config.visible_patches] * views
    if complementary:
        sizes = [int(mask.sum()) for mask in complementary_masks(1, config.patches, config.mask_ratio)]
    return sum(hand_count(config, visible=size).total() for size in sizes) / 1e9


def training_tmacs(config: RunConfig) -> float:
    """10¹² multiply-accumulates to train a run and those it starts from; a backward pass costs two forward passes."""
    total = 0
    for stage in grid.stages(config):
        clips = len(manifest_of(stage).subset("train", stage.data.fold, stage.data.exclusions))
        seen = clips - clips % stage.train.batch_size  # the last, smaller batch is dropped
        forward = hand_count(stage.model, training=stage.train.rec_weight > 0).total()
        total += 3 * forward * seen * stage.train.epochs
    return total / 1e12


def averaged(points: pd.DataFrame) -> pd.DataFrame:
    """Means of WAR over repeats, in the order of ``points``.

    Returns:
        one row per curve and setting: ``gmacs``, ``repeats``, ``mean``, and ``low`` and ``high``, its 95 %
        interval as far as it lies between 0 and 100 % (NaN where there is none).
    """
    rows = []
    for (curve, setting), group in points.groupby(["curve", "setting"], sort=False):
        found = score_interval(group["war"])
        rows.append((curve, setting, group["gmacs"].iloc[0], found.count, found.mean, found.low, found.high))
    table = pd.DataFrame(rows, columns=["curve", "setting", "gmacs", "repeats", "mean", "low", "high"])
    return table.assign(low=table["low"].clip(lower=0), high=table["high"].clip(upper=100))


def frontier(table: pd.DataFrame) -> pd.DataFrame:
    """The Pareto frontier of :func:`averaged`, from the cheapest to the best point."""
    ordered = table.sort_values(["gmacs", "mean"], ascending=[True, False], ignore_index=True)
    return ordered[ordered["mean"] > ordered["mean"].cummax().shift(fill_value=-1)].reset_index(drop=True)


@dataclass(frozen=True)
class Method:
    """A row of Table 1 of the embedded benchmark.

    Attributes:
        config: its run with the first seed or fold.
        curve, setting: identify its points.
        complementary: scored with a partition of the patches instead of one hard mask.
        merged: r tokens merged in each block.
    """

    config: RunConfig
    curve: str
    setting: str = "1 view"
    complementary: bool = False
    merged: int = 0

    def classifier(self) -> Callable[[Tensor], Tensor]:
        """The row's classifier with random weights, from clips ``(B, C, T, H, W)`` to logits; for timing."""
        model = create_model(self.config.model).eval()
        model = with_merging(model, self.merged) if self.merged else model
        return partial(model.classify, complementary=self.complementary)


def methods(base: RunConfig) -> dict[str, Method]:
    """The rows of Table 1 of the embedded benchmark by name; the others are compared with the first."""
    pair = {row.name: row.config for row in grid.table1(base)}
    found = {name: Method(config, name) for name, config in pair.items()}
    found |= {f"{name}, {PARTITION}": Method(config, name, PARTITION, True) for name, config in pair.items()}
    others = {row.name: row.config for row in grid.rivals(base) if row.config not in pair.values()}
    half = round(most_merged(others[grid.ALL_TOKENS].model) / 2)
    found |= {name: Method(config, name) for name, config in others.items()}
    return found | {f"{MERGED}, r={half}": Method(others[grid.ALL_TOKENS], MERGED, f"r={half}", merged=half)}


# Names of the protocols in each run's own evaluation: one view, and a partition.
_PROTOCOLS = {"1 view": PROTOCOL, PARTITION: PARTITION}


def rival_table(base: RunConfig, scores: pd.DataFrame, points: pd.DataFrame) -> pd.DataFrame:
    """Table 1 of the embedded benchmark.

    Args:
        scores: all repeats of Table 1 and the rivals, from :func:`adatosk.experiments.tables.scores`.
        points: from :func:`reported_points` and :func:`measured_points`, for costs, and for protocols that the runs
            have not scored.

    Returns:
        one row per method of :func:`methods`: ``parameters_m`` for classification in millions, ``gmacs`` per clip,
        ``repeats``, ``uar`` and ``war``, mean ± half of the 95 % interval, and ``lead``, by how many points of WAR the
        first method is above this one, paired by repeat; ``epochs`` and ``training_tmacs`` of all stages.
    """
    rows = {}
    by_row = {place: group.set_index("repeat") for place, group in scores.groupby(["row", "protocol"])}
    by_place = {place: group.set_index("repeat") for place, group in points.groupby(["curve", "setting"])}
    for name, method in methods(base).items():
        place, config = by_place[method.curve, method.setting], method.config
        here = by_row.get((method.curve, _PROTOCOLS.get(method.setting)), place)
        first = here if not rows else by_row[next(iter(rows)), PROTOCOL]
        rows[name] = {
            "parameters_m": count_parameters(config.model).classification / 1e6,
            "gmacs": place["gmacs"].iloc[0],
            "repeats": len(here),
            "uar": str(score_interval(here["uar"])),
            "war": str(score_interval(here["war"])),
            "lead": "" if not rows else str(interval((first["war"] - here["war"]).dropna())),
            "epochs": sum(stage.train.epochs for stage in grid.stages(config)),
            "training_tmacs": training_tmacs(config),
        }
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("method")
