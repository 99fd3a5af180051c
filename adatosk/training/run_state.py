"""What a run leaves behind: the state that it goes on with when it was cut off, its log, its scores."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from adatosk.utils.files import replacing

if TYPE_CHECKING:  # a notebook that reads scores does not wait for it
    from accelerate import Accelerator


@dataclass
class Progress:
    """What a resumed run needs besides weights and optimiser; accelerate saves it."""

    epoch: int = 0
    best_war: float = -1.0
    best_epoch: int = 0
    seconds: float = 0.0

    def state_dict(self) -> dict:
        """As accelerate wants it."""
        return dict(vars(self))

    def load_state_dict(self, state: dict) -> None:
        """As accelerate wants it."""
        vars(self).update(state)


@dataclass(frozen=True)
class RunState:
    """The saved state of a run.

    Attributes:
        folder: the run's ``checkpoints``.
        accelerator: holds what is saved and loaded.
    """

    folder: Path
    accelerator: Accelerator

    def saved(self) -> Path | None:
        """The state of the last whole epoch, or of the one before where saving was cut off; ``None`` without any."""
        places = (self.folder / "resume", self.folder / "previous")
        return next((place for place in places if place.is_dir()), None)

    def load(self) -> bool:
        """Load what is saved, if anything is; ``ValueError`` names a state that is not whole."""
        saved = self.saved()
        if saved is None:
            return False
        try:
            self.accelerator.load_state(str(saved))
        except Exception as error:  # weights, optimiser and progress each fail in their own way
            kind = type(error).__name__
            raise ValueError(f"{saved}: not a whole state ({kind}): delete the folder to start anew") from error
        return True

    def save(self) -> None:
        """Save, so that one whole state stands at every moment: a folder cannot be replaced in one go."""
        target, previous, saving = (self.folder / name for name in ("resume", "previous", "saving"))
        self.accelerator.wait_for_everyone()
        self.accelerator.save_state(str(saving))
        self.accelerator.wait_for_everyone()
        if self.accelerator.is_main_process:
            if target.is_dir():
                shutil.rmtree(previous, ignore_errors=True)
                target.rename(previous)
            saving.rename(target)
            shutil.rmtree(previous, ignore_errors=True)
        self.accelerator.wait_for_everyone()

    def clear(self) -> None:
        """Remove what a finished run no longer needs."""
        for name in ("resume", "previous", "saving"):
            shutil.rmtree(self.folder / name, ignore_errors=True)


def cut_log(log: Path, epochs: int) -> None:
    """Keep so many lines: an epoch is logged before its state is saved, and may have been cut off in between."""
    if log.is_file():
        lines = log.read_text().splitlines(keepends=True)
        with replacing(log) as part:
            part.write_text("".join(lines[:epochs]))


def read_metrics(path: Path) -> dict:
    """A finished run's ``metrics.json``; ``ValueError`` names one that is not whole."""
    try:
        found = json.loads(path.read_text())
    except ValueError as error:
        raise ValueError(f"{path}: not whole ({error}): delete the run's folder, and it is trained again") from error
    if not isinstance(found, dict) or "last" not in found:
        raise ValueError(f"{path}: not the scores of a run: delete the run's folder, and it is trained again")
    return found
