"""The activation map A (Eq. 10) under other normalisations of Eq. 11: scores, and the tokens during training.

The rows are :func:`adatosk.experiments.grid.activation_map`, which also states the rule for a change of the default.
"""

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd
import torch
import torch.nn.functional as F
from torch import Tensor

from adatosk.clips import make_loader, normalise
from adatosk.config import RunConfig
from adatosk.evaluate import clip_masks
from adatosk.experiments import grid, tables
from adatosk.experiments.grid import AGNOSTIC, AS_PUBLISHED, BOTH, NO_MASK, SEMANTIC, Row, changed_row, split_row
from adatosk.experiments.statistics import PROTOCOL, interval, judge_better, paired, side
from adatosk.model import AdaTosk
from adatosk.presets import MOTIONS, PROFILES
from adatosk.utils.project import PUBLISHED, Places
from adatosk.workspace import Workspace

ALONE = ("CS (M)", "CS (A)")
# The two normalisations that the rule chooses from, the one that is Eq. 11 to the letter first.
CANDIDATES = ("bounds as constants", "over the mean")
# What the rule compares, and what the figure shows it beside.
DECIDING = (NO_MASK, AGNOSTIC, *(changed_row(BOTH, change) for change in (AS_PUBLISHED, *CANDIDATES)))


def rows(base: RunConfig) -> list[Row]:
    """The study's rows, after the two of Table 3 in which nothing is normalised."""
    named = {row.name: row for row in grid.table3(base)}
    return [named[name] for name in (NO_MASK, AGNOSTIC)] + grid.activation_map(base)


def differences(table: pd.DataFrame) -> pd.DataFrame:
    """What each change of A adds to the score of its mask, in points of WAR with one view, paired by repeat.

    Args:
        table: scores of :func:`rows`, from :func:`adatosk.experiments.tables.scores`.

    Returns:
        one row per change and mask: ``mask``, ``change``, ``war`` (mean), ``difference`` from the same mask as in Eq.
        11 with ``low``, ``high`` and ``p``, ``repeats``, and ``side`` of 0 on which the interval lies; then the same
        ``above_agnostic``, the difference from the class-agnostic mask alone, with ``agnostic_side``.
    """
    found = []
    for row in table["row"].unique():
        mask, change = split_row(row)
        if change in ("", AS_PUBLISHED):
            continue
        published = changed_row(mask, AS_PUBLISHED)
        one, other = interval(paired(table, row, published)), interval(paired(table, row, AGNOSTIC))
        war = table["war"][(table["row"] == row) & (table["protocol"] == PROTOCOL)].mean()
        found.append(
            (mask, change, war, one.mean, one.low, one.high, one.p, one.count, side(one), other.mean, side(other))
        )
    columns = ["mask", "change", "war", "difference", "low", "high", "p", "repeats", "side"]
    return pd.DataFrame(found, columns=[*columns, "above_agnostic", "agnostic_side"])


def order(table: pd.DataFrame) -> pd.DataFrame:
    """The comparisons behind the order of Table 3's rows, as in Eq. 11 and under each of ``CANDIDATES``.

    Args:
        table: scores of :func:`rows`.

    Returns:
        one row per normalisation (``id``) and comparison (``what``), in the form of
        :func:`adatosk.experiments.verdicts.comparisons`: ``kind``, ``ours`` in points of WAR with ``low`` and ``high``,
        ``repeats``, ``p``, and the ``verdict`` on whether the first is better, as the paper has it. A comparison one of
        whose rows was not run is left out.
    """
    known = set(table["row"])

    def named(mask: str, change: str) -> str:
        return mask if mask == AGNOSTIC else changed_row(mask, change)

    pairs = [(BOTH, AGNOSTIC), (BOTH, SEMANTIC), *((SEMANTIC, one) for one in ALONE)]
    found = []
    for change in (AS_PUBLISHED, *CANDIDATES):
        for better, worse in pairs:
            rows = named(better, change), named(worse, change)
            if not known.issuperset(rows):
                continue
            one = interval(paired(table, *rows))
            what = f"{better} less {worse}"
            found.append((change, "better", what, one.mean, one.low, one.high, one.count, one.p, judge_better(one)))
    return pd.DataFrame(found, columns=["id", "kind", "what", "ours", "low", "high", "repeats", "p", "verdict"])


def by_motion(workspace: Workspace, own: pd.DataFrame, published: Path = PUBLISHED) -> dict[str, pd.DataFrame]:
    """Scores of :func:`rows` by kind of motion: a profile's own, and the published ones of its counterparts.

    Args:
        workspace: the profile.
        own: its scores.
        published: folder of the published results. Of another kind of motion, rows some of whose runs are missing are
            left out, and all of it without the rows that the rule needs.

    Returns:
        just the profile's own under its name if it has no counterpart.
    """
    if workspace.profile not in MOTIONS.values():
        return {workspace.profile: own}
    found = {}
    for motion, name in MOTIONS.items():
        if name == workspace.profile:
            found[motion] = own
            continue
        wanted = rows(PROFILES[name])
        table = tables.scores(wanted, published / name, partial=True)
        counts = table.groupby("row")["repeat"].nunique()
        whole = [row.name for row in wanted if counts.get(row.name) == len(grid.repeated(row))]
        if set(DECIDING) <= set(whole):
            found[motion] = table[table["row"].isin(whole)]
    return found


def chosen(motions: Mapping[str, pd.DataFrame]) -> str | None:
    """The normalisation that the registered rule makes the default; ``None`` if Eq. 11 stays as published.

    Args:
        motions: scores of :func:`rows` by kind of motion.
    """
    better = [change for change in CANDIDATES if all(_above(table, change, AS_PUBLISHED) for table in motions.values())]
    if len(better) == len(CANDIDATES):
        letter, mean = CANDIDATES
        return CANDIDATES[all(_above(table, mean, letter) for table in motions.values())]
    return better[0] if better else None


def _above(table: pd.DataFrame, better: str, worse: str) -> bool:
    """Whether both masks together score higher under one normalisation than under another."""
    return side(interval(paired(table, changed_row(BOTH, better), changed_row(BOTH, worse)))) == "above"


def token_statistics(model: AdaTosk, video: Tensor, labels: Tensor, visible: Tensor) -> dict[str, float]:
    """How a model's A spreads over a clip's tokens, and where the classification loss flows back.

    Args:
        model: one with a class-semantic mask; its mode and gradients stay as they are.
        video: normalised clips ``(B, C, T, H, W)``, as the other two on any device.
        labels: their classes, int64 ``(B,)``.
        visible: the hard masks, bool ``(B, N_s)``.

    Returns:
        means over the clips: ``activation``, A over the kept tokens; ``spread``, its standard deviation over them
        relative to that; ``extremes``, the share of the squared gradient of the loss with respect to the tokens that
        arrives at the two of lowest and highest weight in the class-semantic mask; ``even``, that share if all kept
        tokens received as much.
    """
    caught: list[Tensor] = []
    device = next(model.parameters()).device
    hook = model.encoder.norm.register_forward_hook(lambda _module, _inputs, tokens: caught.append(tokens))
    training = model.training
    try:
        with torch.enable_grad():
            output = model.eval()(video.to(device), visible, reconstruct=False)
            (gradient,) = torch.autograd.grad(F.cross_entropy(output.logits, labels.to(device)), caught[0])
    finally:
        hook.remove()
        model.train(training)
    tokens, mask = caught[0].detach().flatten(1, 2), output.soft_mask
    if mask is None or mask.semantic is None:
        raise ValueError("the model has no class-semantic mask, so nothing is weighted by A")
    kept, weight = mask.kept.flatten(1), mask.semantic.detach().flatten(1)
    activation = tokens.abs().sum(-1)
    count = kept.sum(1)
    mean = (activation * kept).sum(1) / count
    deviation = (((activation - mean[:, None]) ** 2 * kept).sum(1) / count).sqrt()
    power = gradient.flatten(1, 2).square().sum(-1)
    lowest = weight.masked_fill(~kept, torch.inf).argmin(1)
    highest = weight.masked_fill(~kept, -torch.inf).argmax(1)
    at_both = power.gather(1, torch.stack([lowest, highest], dim=1)).sum(1)
    return {
        "activation": float(mean.mean()),
        "spread": float((deviation / mean).mean()),
        "extremes": float((at_both / power.sum(1)).mean()),
        "even": float((2 / count).mean()),
    }


def observe_training(workspace: Workspace, mask: str = "CS (A)", clips: int = 64, seed: int = 0) -> pd.DataFrame:
    """Train one mask of the study under each normalisation, and measure the same test clips after every epoch.

    The runs are those of the grid, trained again in a temporary folder, because a finished run keeps no weights of
    earlier epochs.

    Args:
        workspace: the profile.
        mask: row of Table 3.
        clips: number of test clips, drawn from the split.
        seed: of the runs.

    Returns:
        one row per normalisation and epoch: ``change``, ``epoch``, those of :func:`token_statistics`, and ``run_id``.
    """
    from adatosk.train import train  # accelerate takes a second, and only this function trains

    named = {split_row(row.name): row.config for row in rows(workspace.config)}
    changes = [change for change in (AS_PUBLISHED, *CANDIDATES) if (mask, change) in named]
    dataset = workspace.split("test")
    batch = next(iter(make_loader(dataset, min(clips, len(dataset)), workers=0, shuffle=True)))
    video, labels = normalise(batch["video"]), batch["label"]
    (visible,) = clip_masks(batch["index"], workspace.config.model, 1, False, workspace.config.evaluation.seed)
    found: list[dict[str, Any]] = []
    for change in changes:
        config = named[mask, change].change(seed=seed)
        run_id = config.run_id(workspace.manifest.digest)

        def observe(model: AdaTosk, epoch: int, change: str = change, run_id: str = run_id) -> None:
            measured = token_statistics(model, video, labels, visible)
            found.append({"change": change, "epoch": epoch, **measured, "run_id": run_id})

        with tempfile.TemporaryDirectory() as scratch:
            places = Places(workspace.places.root, Path(scratch), workspace.places.cache, workspace.places.workers)
            train(config, places, report=lambda _line: None, observe=observe)
    return pd.DataFrame(found)
