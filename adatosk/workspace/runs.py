"""The runs of a profile on this machine, and the tables and figures that a notebook makes of them."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import pandas as pd

from adatosk.config import RunConfig
from adatosk.manifests import Manifest, manifest_of
from adatosk.presets import PROFILES
from adatosk.utils.files import replacing, write_csv
from adatosk.utils.project import CACHE, OUTPUTS, Places
from adatosk.utils.provenance import file_digest, read_metrics, restoring
from adatosk.utils.tables import read_csv
from adatosk.workspace.data import data_root, prepare_data
from adatosk.workspace.published import adopt_published

# Importing torch and the training takes seconds; the workflow and most notebooks only read scores.
if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from adatosk.clips import ClipDataset
    from adatosk.model import AdaTosk


@dataclass(frozen=True)
class Run:
    """A finished run.

    Attributes:
        folder: ``outputs/<profile>/runs/<run id>``.
    """

    folder: Path

    @property
    def finished(self) -> bool:
        """Whether its scores exist."""
        return (self.folder / "metrics.json").is_file()

    @cached_property
    def metrics(self) -> dict:
        """``metrics.json``: scores by protocol under ``last`` and ``best_on_test``, configuration and provenance."""
        return read_metrics(self.folder / "metrics.json")

    @cached_property
    def log(self) -> pd.DataFrame:
        """One row per epoch: losses, learning rate, seconds, and WAR on the test split where it was evaluated."""
        return self._whole("log.jsonl", partial(pd.read_json, lines=True))

    @cached_property
    def predictions(self) -> pd.DataFrame:
        """One row per test clip: id, label and the last weights' prediction under each protocol."""
        return self._whole("predictions.csv", partial(read_csv, dtype=str))  # classes may be named 01 and 1

    def _whole(self, name: str, read: Callable[[Path], pd.DataFrame]) -> pd.DataFrame:
        """What ``read`` makes of a file of the run; ``ValueError`` names one that is damaged."""
        path = self.folder / name
        expected = self.metrics.get("files", {}).get(name) if self.finished else None
        try:
            if expected is not None and file_digest(path) != expected:
                raise ValueError("its SHA-256 differs from the one in metrics.json")
            return read(path)
        except ValueError as error:
            said = " ".join(str(error).split())
            raise ValueError(f"{path}: damaged ({said}): {restoring(path)}") from error

    def model(self, weights: str = "last") -> AdaTosk:
        """The trained model in evaluation mode; ``weights`` is ``last`` or ``best_on_test``."""
        from adatosk.model import AdaTosk

        return AdaTosk.from_pretrained(self.folder / "checkpoints" / weights).eval()


@dataclass(frozen=True)
class Workspace:
    """One profile on this machine; create one with :func:`open_workspace`.

    Attributes:
        profile: ``smoke``, ``demo`` or ``paper``.
        config: the profile's configuration, from which runs deviate.
        places: where its data, caches and results are.
        train_missing: whether a missing run is trained when requested; otherwise it is an error.
    """

    profile: str
    config: RunConfig
    places: Places
    train_missing: bool = False

    @property
    def manifest(self) -> Manifest:
        """The profile's manifest."""
        return manifest_of(self.config)

    def example(self, label: str | None = None) -> str:
        """The class to illustrate: ``label`` or, by default, surprise if there is one, because it moves most.

        Raises:
            ValueError: the data has no such class.
        """
        classes = self.config.model.classes
        if label is None:
            return next((name for name in classes if name.startswith("surprise")), classes[0])
        if label not in classes:
            raise ValueError(f"label='{label}': {self.manifest.name} has {', '.join(classes)}")
        return label

    def run(self, need_checkpoint: bool = False, **changes: Any) -> Run:
        """The run that deviates from the profile by ``changes``; see :meth:`runs`.

        Args:
            need_checkpoint: whether its checkpoints are needed. They are not part of the repository, whose runs have
                scores only.
            **changes: as in :meth:`adatosk.config.RunConfig.change`.
        """
        (run,) = self.runs([self.config.change(**changes)], need_checkpoint)
        return run

    def runs(self, configs: Iterable[RunConfig], need_checkpoint: bool = False) -> list[Run]:
        """Runs by their full configurations, such as the rows of :mod:`adatosk.experiments.grid`.

        With ``train_missing``, unfinished ones are trained first.

        Args:
            need_checkpoint: whether their checkpoints are needed, besides their scores.

        Raises:
            FileNotFoundError: runs are missing; one error names them all, and the commands that train them.
        """
        configs = list(configs)
        missing = [config for config in configs if not self._finished(config, need_checkpoint)]
        if missing and not self.train_missing:
            raise FileNotFoundError(self._how_to_make(missing, need_checkpoint))
        for config in missing:
            self._train(config, need_checkpoint)
        return [self._run_of(config) for config in configs]

    def _run_of(self, config: RunConfig) -> Run:
        return Run(self.places.results / "runs" / config.run_id(manifest_of(config).digest))

    def _finished(self, config: RunConfig, need_checkpoint: bool) -> bool:
        if not need_checkpoint:
            return self._run_of(config).finished
        from adatosk.train import Trainer

        return Trainer(config, self.places).finished(need_checkpoint)

    def _train(self, config: RunConfig, need_checkpoint: bool) -> None:
        from adatosk.train import train

        if config.initial is not None and not self._finished(config.initial, need_checkpoint=True):
            self._train(config.initial, need_checkpoint=True)
        train(config, self.places, need_checkpoint)

    def _how_to_make(self, missing: Iterable[RunConfig], need_checkpoint: bool) -> str:
        """The error message: which runs are missing, and every way to obtain them."""
        places, index = self.places, _run_index(self.places.results)
        runs = {self._run_of(config).folder: config for config in missing}
        planned = {folder: index.get(folder.name, {}) for folder in runs}
        names = [planned[folder].get("name") or self._deviation(config) for folder, config in runs.items()]
        listed = [f"{name} ({folder.name})" for name, folder in zip(names, runs, strict=True)]
        shown = ", ".join(listed[:5]) + (f" and {len(listed) - 5} more" if len(listed) > 5 else "")
        what = f"{'the weights of ' * need_checkpoint}{'run' if len(runs) == 1 else f'{len(runs)} runs:'} {shown}"
        # Without an index nothing has been planned here yet; the largest target plans the whole grid.
        unplanned = "" if index else "reproduce-all"
        targets = [row.get("weights_by" if need_checkpoint else "scores_by", unplanned) for row in planned.values()]
        ways = []
        if any(targets):
            root = "" if places.root == data_root(self.config) else f" ROOT={shlex.quote(str(places.root))}"
            target = "reproduce" if set(targets) <= {"reproduce", ""} else "reproduce-all"
            ways.append(f"`make {target} PROFILE={self.profile}{root}`")
        others = [folder for folder, target in zip(runs, targets, strict=True) if not target]
        if others and (others[0] / "config.json").is_file():
            given = ["--root", places.root, "--results", places.results, *(["--weights"] * need_checkpoint)]
            command = ["python", "-m", "adatosk.train", others[0] / "config.json", *given]
            ways.append(f"`{shlex.join(map(str, command))}`" + " (and so on)" * (len(others) > 1))
        ways.append("here by the notebook's parameter train_missing=True (papermill ... -p train_missing True)")
        return f"{places.results}: missing {what}; trained by {', or '.join(ways)}"

    def _deviation(self, config: RunConfig) -> str:
        """A name for a run outside the grid: how it differs from the profile."""
        changed = _differences(PROFILES[self.profile].model_dump(), config.model_dump())
        return ", ".join([self.profile, *(f"{name}={value}" for name, value in changed.items())])

    def split(self, name: Literal["train", "test"], config: RunConfig | None = None) -> ClipDataset:
        """The clips of ``train`` or ``test`` as a run of ``config`` sees them, by default of the profile."""
        from adatosk.clips import ClipDataset, open_cache

        config = self.config if config is None else config
        data, places, manifest = config.data, self.places, manifest_of(config)
        cache = open_cache(manifest, places.root, data.cache_size, places.cache, data.exclusions, places.workers)
        return ClipDataset.of_split(config, manifest, places.root, name, cache)

    def save_table(self, table: pd.DataFrame, name: str) -> Path:
        """Write ``tables/<name>.csv``."""
        path = self.places.results / "tables" / f"{name}.csv"
        write_csv(path, table)
        return path

    def save_figure(self, figure: Figure, name: str) -> Path:
        """Write ``figures/<name>.png`` and ``.pdf``, for screen and print; returns the path of the former."""
        path = self.places.results / "figures" / f"{name}.png"
        with replacing(path) as part:
            figure.savefig(part, format="png", dpi=150, bbox_inches="tight")
        with replacing(path.with_suffix(".pdf")) as part:
            # Without the date, the same figure gives the same file.
            figure.savefig(part, format="pdf", bbox_inches="tight", metadata={"CreationDate": None})
        return path


def _run_index(results: Path) -> dict[str, dict[str, str]]:
    """The rows of ``runs.csv``, which the workflow writes, by run id; empty if it has not been written."""
    path = results / "runs.csv"
    if not path.is_file():
        return {}
    return pd.read_csv(path, dtype=str, keep_default_na=False).set_index("run_id").to_dict("index")


def _differences(old: Any, new: Any, name: str = "") -> dict[str, Any]:
    """Fields of ``new`` that differ from ``old``, by dotted name."""
    if isinstance(old, dict) and isinstance(new, dict):
        parts = (_differences(old.get(key), value, f"{name}.{key}".strip(".")) for key, value in new.items())
        return {key: value for part in parts for key, value in part.items()}
    return {} if old == new else {name: new}


def open_workspace(
    profile: str = "smoke", root: str | Path | None = None, train_missing: bool = False, **changes: Any
) -> Workspace:
    """Open a profile and prepare its data.

    Args:
        profile: ``smoke``, ``demo`` or ``paper``.
        root: folder of the clips; by default in the project's ``data/``.
        train_missing: whether to train missing runs when requested; always true for profile ``smoke``, whose runs take
            seconds.
        **changes: deviations of all runs from the profile, such as ``seed=1`` or ``data={"manifest": "mafw.csv"}``.

    Raises:
        ValueError: the profile is unknown, or a change gives an invalid configuration.
        FileNotFoundError: the data is missing.
    """
    if profile not in PROFILES:
        raise ValueError(f"unknown profile '{profile}': choose {', '.join(PROFILES)}")
    config = PROFILES[profile].change(**changes)
    folder = data_root(config, root)
    prepare_data(config, folder)
    adopt_published(profile)
    places = Places(folder, OUTPUTS / profile, CACHE)
    return Workspace(profile, config, places, train_missing or profile == "smoke")
