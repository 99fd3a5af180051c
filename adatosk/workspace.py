"""Where a profile's data, runs, tables and figures lie, and how a notebook gets at them.

Notebooks read the workflow's runs through here: who needs a run names its configuration. Reading trains nothing, but
where a workspace was opened with ``train_missing``, as it is for profile ``smoke``, whose runs take seconds.
"""

import shlex
import types
from collections.abc import Iterable, MutableMapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import pandas as pd
from matplotlib.figure import Figure
from pydantic import ConfigDict, TypeAdapter, ValidationError

from adatosk.clips import ClipDataset, open_cache
from adatosk.config import RunConfig
from adatosk.manifests import Manifest, manifest_of
from adatosk.model import AdaTosk
from adatosk.presets import PROFILES
from adatosk.synthetic import BENCHMARKS, check_folder, write_benchmark
from adatosk.utils.files import locked, replacing, write_csv
from adatosk.utils.project import PROJECT, Places
from adatosk.utils.provenance import read_metrics
from adatosk.utils.tables import read_csv


@dataclass(frozen=True)
class Run:
    """A finished run.

    Attributes:
        folder: ``results/<profile>/runs/<run id>``.
    """

    folder: Path

    @property
    def finished(self) -> bool:
        """Whether its scores are there."""
        return (self.folder / "metrics.json").is_file()

    @cached_property
    def metrics(self) -> dict:
        """``metrics.json``: scores by protocol under ``last`` and ``best_on_test``, configuration and provenance."""
        return read_metrics(self.folder / "metrics.json")

    @cached_property
    def log(self) -> pd.DataFrame:
        """One row an epoch: losses, learning rate, seconds, and WAR on the test split where it was taken."""
        return pd.read_json(self.folder / "log.jsonl", lines=True)

    @cached_property
    def predictions(self) -> pd.DataFrame:
        """One row a test clip: id, label and the last weights' prediction under each protocol."""
        return read_csv(self.folder / "predictions.csv", dtype={"id": str})

    def model(self, weights: str = "last") -> AdaTosk:
        """The trained model in evaluation mode; ``weights`` is ``last`` or ``best_on_test``."""
        return AdaTosk.from_pretrained(self.folder / "checkpoints" / weights).eval()


@dataclass(frozen=True)
class Workspace:
    """One profile on this machine; make one with :func:`open_workspace`.

    Attributes:
        profile: ``smoke``, ``demo`` or ``paper``.
        config: the profile's configuration, from which runs deviate.
        places: where its data, caches and results lie.
        train_missing: whether a run that is asked for and not there is trained, which is an error otherwise.
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
        """The class that a picture shows: ``label``, or by default a surprise, for it moves most, where there is one.

        Raises:
            ValueError: the data has no such class.
        """
        classes = self.config.model.classes
        if label is None:
            return next((name for name in classes if name.startswith("surprise")), classes[0])
        if label not in classes:
            raise ValueError(f"label='{label}': {self.manifest.name} has {', '.join(classes)}")
        return label

    def run(self, weights: bool = False, **changes: Any) -> Run:
        """The run that deviates from the profile by ``changes``; see :meth:`runs`.

        Args:
            weights: whether its checkpoints are needed. They are not part of the repository, so a run that came with
                it has scores only.
            **changes: as in :meth:`adatosk.config.RunConfig.change`; a checkpoint to start from, which is called
                ``weights`` there too, is given to :func:`open_workspace` or :meth:`runs`.
        """
        if not isinstance(weights, bool):
            raise TypeError("weights says whether checkpoints are needed; give one to start from to open_workspace")
        (run,) = self.runs([self.config.change(**changes)], weights)
        return run

    def runs(self, configs: Iterable[RunConfig], weights: bool = False) -> list[Run]:
        """Runs by their whole configurations, such as the rows of :mod:`adatosk.experiments.grid`.

        With ``train_missing`` those that are not finished are trained first.

        Args:
            weights: whether their checkpoints are needed, besides their scores.

        Raises:
            FileNotFoundError: runs are missing; one error names them, and what makes them.
        """
        configs = list(configs)
        missing = [config for config in configs if not self._finished(config, weights)]
        if missing and not self.train_missing:
            raise FileNotFoundError(self._how_to_make(missing, weights))
        for config in missing:
            self._train(config, weights)
        return [self._run_of(config) for config in configs]

    def _run_of(self, config: RunConfig) -> Run:
        return Run(self.places.results / "runs" / config.run_id(manifest_of(config).digest))

    def _finished(self, config: RunConfig, weights: bool) -> bool:
        if not weights:
            return self._run_of(config).finished
        from adatosk.train import Trainer  # it takes seconds, and most notebooks need scores alone

        return Trainer(config, self.places).finished(weights)

    def _train(self, config: RunConfig, weights: bool) -> None:
        from adatosk.train import train

        if config.initial is not None and not self._finished(config.initial, weights=True):
            self._train(config.initial, weights=True)
        train(config, self.places, weights)

    def _how_to_make(self, missing: Iterable[RunConfig], weights: bool) -> str:
        """The error's text: which runs are missing, and every way to have them."""
        places, index = self.places, _run_index(self.places.results)
        runs = {self._run_of(config).folder: config for config in missing}
        planned = {folder: index.get(folder.name, {}) for folder in runs}
        names = [planned[folder].get("name") or self._deviation(config) for folder, config in runs.items()]
        listed = [f"{name} ({folder.name})" for name, folder in zip(names, runs, strict=True)]
        shown = ", ".join(listed[:5]) + (f" and {len(listed) - 5} more" if len(listed) > 5 else "")
        what = f"{'the weights of ' * weights}{'run' if len(runs) == 1 else f'{len(runs)} runs:'} {shown}"
        # Without an index nobody has planned anything here yet, and the largest target plans the whole grid.
        unplanned = "" if index else "reproduce-all"
        targets = [row.get("weights_by" if weights else "scores_by", unplanned) for row in planned.values()]
        ways = []
        if any(targets):
            root = "" if places.root == data_root(self.config) else f" ROOT={shlex.quote(str(places.root))}"
            target = "reproduce" if set(targets) <= {"reproduce", ""} else "reproduce-all"
            ways.append(f"`make {target} PROFILE={self.profile}{root}`")
        others = [folder for folder, target in zip(runs, targets, strict=True) if not target]
        if others and (others[0] / "config.json").is_file():
            given = ["--root", places.root, "--results", places.results, *(["--weights"] * weights)]
            command = ["python", "-m", "adatosk.train", others[0] / "config.json", *given]
            ways.append(f"`{shlex.join(map(str, command))}`" + " (and so on)" * (len(others) > 1))
        ways.append("here by the notebook's parameter train_missing=True (papermill ... -p train_missing True)")
        return f"{places.results}: missing {what}; trained by {', or '.join(ways)}"

    def _deviation(self, config: RunConfig) -> str:
        """What a run that is not of the grid may be called: how it differs from the profile."""
        changed = _differences(PROFILES[self.profile].model_dump(), config.model_dump())
        return ", ".join([self.profile, *(f"{name}={value}" for name, value in changed.items())])

    def split(self, name: Literal["train", "test"], config: RunConfig | None = None) -> ClipDataset:
        """The clips of ``train`` or ``test`` as a run of ``config``, by default the profile's, sees them."""
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
        """Write ``figures/<name>.png`` and ``.pdf``, for the screen and for print; gives back the former's path."""
        path = self.places.results / "figures" / f"{name}.png"
        with replacing(path) as part:
            figure.savefig(part, format="png", dpi=150, bbox_inches="tight")
        with replacing(path.with_suffix(".pdf")) as part:
            # Without the date, the same figure is the same file.
            figure.savefig(part, format="pdf", bbox_inches="tight", metadata={"CreationDate": None})
        return path


def _run_index(results: Path) -> dict[str, dict[str, str]]:
    """The rows of ``runs.csv``, which the workflow writes, by run id; empty where it has not been written."""
    path = results / "runs.csv"
    if not path.is_file():
        return {}
    return pd.read_csv(path, dtype=str, keep_default_na=False).set_index("run_id").to_dict("index")


def _differences(old: Any, new: Any, name: str = "") -> dict[str, Any]:
    """Fields of ``new`` that are not as in ``old``, by dotted name."""
    if isinstance(old, dict) and isinstance(new, dict):
        parts = (_differences(old.get(key), value, f"{name}.{key}".strip(".")) for key, value in new.items())
        return {key: value for part in parts for key, value in part.items()}
    return {} if old == new else {name: new}


def data_root(config: RunConfig, root: str | Path | None = None) -> Path:
    """The folder a run's clips lie in: ``root``, or ``data/<manifest's file name>`` in the project."""
    return Path(root) if root else PROJECT / "data" / Path(config.data.manifest).stem


def prepare_data(config: RunConfig, root: Path) -> None:
    """Render the embedded benchmark where a run needs it; other data has to be there already.

    Raises:
        FileNotFoundError: naming the folder that is missing.
        ValueError: naming a folder that holds something else than the benchmark.
    """
    name = Path(config.data.manifest).stem
    if name in BENCHMARKS:
        check_folder(root, name)
        root.mkdir(parents=True, exist_ok=True)
        with locked(root / ".lock"):
            write_benchmark(BENCHMARKS[name], root)
    elif not root.is_dir():
        raise FileNotFoundError(f"{root}: no such folder; name where your copy of '{name}' lies with root")


def open_workspace(
    profile: str = "smoke", root: str | Path | None = None, train_missing: bool = False, **changes: Any
) -> Workspace:
    """Open a profile, with its data in place.

    Args:
        profile: ``smoke``, ``demo`` or ``paper``.
        root: where the clips lie; by default in the project's ``data/``.
        train_missing: train runs that are asked for and not there, which profile ``smoke`` does anyway: it takes it
            seconds.
        **changes: deviations of all runs from the profile, such as ``seed=1`` or ``data={"manifest": "mafw.csv"}``.

    Raises:
        ValueError: unknown profile, or a change that is no valid configuration.
        FileNotFoundError: when there is no data.
    """
    if profile not in PROFILES:
        raise ValueError(f"unknown profile '{profile}': choose {', '.join(PROFILES)}")
    config = PROFILES[profile].change(**changes)
    folder = data_root(config, root)
    prepare_data(config, folder)
    places = Places(folder, PROJECT / "results" / profile, PROJECT / "data" / "cache")
    return Workspace(profile, config, places, train_missing or profile == "smoke")


# What a fresh kernel and papermill put beside the parameters.
_KERNEL_NAMES = {"In", "Out", "exit", "quit", "get_ipython", "open"}


def read_parameters(namespace: MutableMapping[str, Any], **expected: Any) -> types.SimpleNamespace:
    """Check a notebook's parameters, for papermill only warns of unknown ones.

    Call it in the cell after the parameters, as ``read_parameters(globals(), profile=Profile, seed=int)``.

    Args:
        namespace: the notebook's globals.
        **expected: each parameter's type.

    Raises:
        NameError: a variable that is no parameter of this notebook, naming those that are.
        TypeError: a value of another type.
    """
    given = {
        name: value
        for name, value in namespace.items()
        if not (name.startswith("_") or name in _KERNEL_NAMES or callable(value) or isinstance(value, types.ModuleType))
    }
    # When the cell is run a second time, the notebook's own variables are there, too.
    unknown = sorted(namespace.get("_parameters_seen", set(given)) - set(expected))
    if unknown:
        raise NameError(f"unknown parameter {', '.join(unknown)}: this notebook has {', '.join(sorted(expected))}")
    namespace["_parameters_seen"] = set(expected)
    for name, kind in expected.items():
        try:
            TypeAdapter(kind, config=ConfigDict(strict=True)).validate_python(given[name])
        except ValidationError as error:
            reason = error.errors()[0]["msg"]
            raise TypeError(f"parameter {name}={given[name]!r}: {reason}") from error
    return types.SimpleNamespace(**{name: given[name] for name in expected})
