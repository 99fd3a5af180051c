"""The runs that are part of the repository, as the beginning of a profile's outputs."""

import filecmp
import shutil
from pathlib import Path

from adatosk.utils.files import replacing
from adatosk.utils.project import OUTPUTS, PUBLISHED

RUN_FILES = ("config.json", "log.jsonl", "predictions.csv", "metrics.json")  # the last one says that a run is finished


def adopt_published(profile: str, published: Path = PUBLISHED, outputs: Path = OUTPUTS) -> None:
    """Copy the published runs of a profile into its outputs, so that nothing writes to files of the repository.

    A run that was trained here has checkpoints, and stays; copies of earlier published runs are replaced.
    """
    source, target = published / profile, outputs / profile
    _copy(source / "runs.csv", target / "runs.csv")
    for run in sorted((source / "runs").glob("*")):
        if not (target / "runs" / run.name / "checkpoints").exists():
            for name in RUN_FILES:
                _copy(run / name, target / "runs" / run.name / name)


def _copy(source: Path, target: Path) -> None:
    """Copy a file, if there is one, unless it is already there; with its time, because make goes by it."""
    if source.is_file() and not (target.is_file() and filecmp.cmp(source, target, shallow=False)):
        with replacing(target) as part:
            shutil.copy2(source, part)
