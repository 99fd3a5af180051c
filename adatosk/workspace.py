"""Where a profile's data, runs, tables and figures lie, and how a notebook gets at them.

Notebooks and the workflow share their runs through here: who needs a run names its configuration, and it is trained
once.
"""

import argparse
import json
import re
import sys
import types
from collections.abc import MutableMapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

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
    """

    profile: str
    config: RunConfig
    places: Places

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
        """The run that deviates from the profile by ``changes``, trained now unless it is there.

        Args:
            weights: whether its checkpoints are needed. They are not part of the repository, so a run that came with
                it has scores only, and is trained again here when they are.
            **changes: as in :meth:`adatosk.config.RunConfig.change`; a checkpoint to start from, which is called
                ``weights`` there too, is given to :func:`open_workspace` or :meth:`train`.
        """
        if not isinstance(weights, bool):
            raise TypeError("weights says whether checkpoints are needed; give one to start from to open_workspace")
        return self.train(self.config.change(**changes), weights)

    def train(self, config: RunConfig, weights: bool = False) -> Run:
        """:meth:`run` of a whole configuration, such as a row of :mod:`adatosk.experiments.grid`."""
        from adatosk.train import Trainer  # it takes seconds, and most notebooks train nothing

        trainer = Trainer(config, self.places)
        if config.initial is not None and not trainer.finished(weights):
            self.train(config.initial, weights=True)
        return Run(trainer.run(weights))

    def split(self, name: str, config: RunConfig | None = None) -> ClipDataset:
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


# In a notebook's code: how far the line is indented, what is saved, and under which name.
_SAVED = re.compile(r'^( *).*\bsave_(table|figure)\(.*[ (]"(\w+)"\)', re.MULTILINE)
_FILES = {"table": ("tables/{}.csv",), "figure": ("figures/{}.png", "figures/{}.pdf")}


def saved_by(notebook: Path, rendered: bool) -> list[str]:
    """Files under ``results/<profile>/`` that a notebook writes by :meth:`Workspace.save_table` and ``save_figure``.

    They are read from its code; names that it puts together are not known.

    Args:
        rendered: whether the data is the embedded benchmark, whose truth is known; without it a notebook leaves out
            what it saves under a condition.
    """
    cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
    code = "\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "code")
    found = [(kind, name) for indent, kind, name in _SAVED.findall(code) if rendered or not indent]
    return [pattern.format(name) for kind, name in found for pattern in _FILES[kind]]


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


def open_workspace(profile: str = "smoke", root: str | Path | None = None, **changes: Any) -> Workspace:
    """Open a profile, with its data in place.

    Args:
        profile: ``smoke``, ``demo`` or ``paper``.
        root: where the clips lie; by default in the project's ``data/``.
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
    return Workspace(profile, config, Places(folder, PROJECT / "results" / profile, PROJECT / "data" / "cache"))


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


def main(arguments: list[str] | None = None) -> int:
    """``python -m adatosk.workspace PROFILE``: data in place, and decoded, before several runs start at once."""
    parser = argparse.ArgumentParser(prog="python -m adatosk.workspace", description="Put a profile's data in place.")
    parser.add_argument("profile", choices=list(PROFILES))
    parser.add_argument("root", nargs="?", help="where the clips lie, if not in the project's data/")
    options = parser.parse_args(arguments)
    try:
        open_workspace(options.profile, options.root).split("train")
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
