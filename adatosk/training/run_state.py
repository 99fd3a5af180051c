"""The state from which an interrupted run resumes: tensors, JSON, and a digest of each file; nothing is pickled.

A state is a folder: ``model.safetensors``, ``optimizer.safetensors``, ``best.safetensors`` (the best weights on the
test split so far), ``random_<process>.safetensors``, ``progress.json`` and, written last, ``state.json`` with the
SHA-256 of each of them.
"""

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import torch
from accelerate import Accelerator
from safetensors.torch import load
from torch import Tensor, nn
from torch.optim import Optimizer

from adatosk.utils.files import remove_folder, sealed, unsealed, write_json
from adatosk.utils.provenance import file_digest
from adatosk.utils.tensors import write_tensors

FORMAT = 1
_ADVICE = "delete the folder to start anew"
_Content = TypeVar("_Content")


@dataclass
class Progress:
    """What a resumed run needs besides weights and optimiser.

    Attributes:
        epoch: number of completed epochs.
        best_war, best_epoch: the best score on the test split, and its epoch; -1 and 0 before the first evaluation.
        seconds: time spent on training so far.
        log: one entry per epoch.
    """

    epoch: int = 0
    best_war: float = -1.0
    best_epoch: int = 0
    seconds: float = 0.0
    log: list[dict[str, float]] = field(default_factory=list)


class RunState:
    """The saved state of a run, in its folder ``checkpoints``."""

    def __init__(self, folder: Path, run_id: str, accelerator: Accelerator) -> None:
        self.folder, self.run_id, self.accelerator = folder, run_id, accelerator
        self._resume, self._previous, self._saving = (folder / name for name in ("resume", "previous", "saving"))

    def saved(self) -> Path | None:
        """The state of the last complete epoch, or of the previous one if saving was interrupted; or ``None``."""
        return next((place for place in (self._resume, self._previous) if place.is_dir()), None)

    def load(self, model: nn.Module, optimizer: Optimizer) -> tuple[Progress, dict[str, Tensor]] | None:
        """Restore the saved model, optimiser and torch's random streams.

        Returns:
            progress and the best weights so far, or ``None`` if nothing is saved.

        Raises:
            ValueError: a file is missing, damaged or not part of this state, or the state is from another run or
                another number of processes. The message names the file and says what to do.
        """
        place = self.saved()
        if place is None:
            return None
        files = _described(place, self.run_id, self.accelerator.num_processes)
        progress = _parsed(place / "progress.json", files, json.loads)
        model.load_state_dict(_parsed(place / "model.safetensors", files, load))
        moments = _parsed(place / "optimizer.safetensors", files, load)
        optimizer.load_state_dict({"state": _nested(moments), "param_groups": _tuples(progress.pop("groups"))})
        best = _parsed(place / "best.safetensors", files, load) if "best.safetensors" in files else {}
        self._set_random(_parsed(place / self._random_name, files, load))
        return Progress(**progress), best

    def save(
        self, model: nn.Module, optimizer: Optimizer, progress: Progress, best: Mapping[str, Tensor] | None
    ) -> None:
        """Save such that a complete state exists at every moment, because a folder cannot be replaced atomically.

        Args:
            model: the model without accelerate's wrapper.
            best: the best weights so far; only the main process needs them.
        """
        accelerator, saving = self.accelerator, self._saving
        if accelerator.is_main_process:
            remove_folder(saving)
            saving.mkdir(parents=True)
        accelerator.wait_for_everyone()
        write_tensors(saving / self._random_name, self._random())
        if accelerator.is_main_process:
            state = optimizer.state_dict()
            write_tensors(saving / "model.safetensors", model.state_dict())
            moments = {f"{n}.{name}": value for n, values in state["state"].items() for name, value in values.items()}
            write_tensors(saving / "optimizer.safetensors", moments)
            if best:
                write_tensors(saving / "best.safetensors", best)
            write_json(saving / "progress.json", asdict(progress) | {"groups": state["param_groups"]})
        accelerator.wait_for_everyone()
        if accelerator.is_main_process:
            _describe(saving, self.run_id, accelerator.num_processes)
            if self._resume.is_dir():
                remove_folder(self._previous)
                self._resume.rename(self._previous)
            saving.rename(self._resume)
            remove_folder(self._previous)
        accelerator.wait_for_everyone()

    @property
    def _random_name(self) -> str:
        return f"random_{self.accelerator.process_index}.safetensors"

    def _random(self) -> dict[str, Tensor]:
        """torch's global streams: a run's only random state besides generators seeded for each draw."""
        device = self.accelerator.device
        cuda = {"cuda": torch.cuda.get_rng_state(device)} if device.type == "cuda" else {}
        return {"cpu": torch.get_rng_state(), **cuda}

    def _set_random(self, streams: dict[str, Tensor]) -> None:
        torch.set_rng_state(streams["cpu"])
        if "cuda" in streams and self.accelerator.device.type == "cuda":
            torch.cuda.set_rng_state(streams["cuda"], self.accelerator.device)


def clear_state(folder: Path) -> None:
    """Remove from a run's ``checkpoints`` the states that a finished run no longer needs.

    Each is renamed first, so that a partly deleted state is never mistaken for a complete one.
    """
    saving = folder / "saving"
    remove_folder(saving)
    for name in ("previous", "resume"):
        if (folder / name).is_dir():
            (folder / name).rename(saving)
            remove_folder(saving)


def _describe(place: Path, run_id: str, processes: int) -> None:
    files = {path.name: file_digest(path) for path in sorted(place.iterdir())}
    content = {"format": FORMAT, "run_id": run_id, "processes": processes, "files": files}
    write_json(place / "state.json", sealed(content))


def _described(place: Path, run_id: str, processes: int) -> dict[str, str]:
    """Digests by file name in ``state.json``, after all checks that do not need to read the files."""
    path = place / "state.json"
    if not path.is_file():
        raise ValueError(f"{path}: missing, so the state is not whole or of an earlier version: {_ADVICE}")
    content = unsealed(path)
    if content is None:
        raise ValueError(f"{path}: damaged: {_ADVICE}")
    if content["format"] != FORMAT or content["run_id"] != run_id:
        raise ValueError(f"{path}: of another version, or of run {content['run_id']} and not {run_id}: {_ADVICE}")
    if content["processes"] != processes:
        raise ValueError(
            f"{path}: saved by {content['processes']} processes, and these are {processes}: resume with as many, or "
            f"{_ADVICE}"
        )
    there = {file.name for file in place.iterdir()} - {path.name}
    for name in sorted(set(content["files"]) - there):
        raise ValueError(f"{place / name}: this file of the state is missing: {_ADVICE}")
    for name in sorted(there - set(content["files"])):
        raise ValueError(f"{place / name}: not a file of the state: move it away, or {_ADVICE}")
    return content["files"]


def _parsed(path: Path, files: dict[str, str], parse: Callable[[bytes], _Content]) -> _Content:
    content = path.read_bytes()
    if hashlib.sha256(content).hexdigest() != files[path.name]:
        raise ValueError(f"{path}: damaged, because its SHA-256 differs from that in state.json: {_ADVICE}")
    return parse(content)


def _nested(flat: dict[str, Tensor]) -> dict[int, dict[str, Tensor]]:
    nested: dict[int, dict[str, Tensor]] = {}
    for key, value in flat.items():
        place, name = key.split(".", 1)
        nested.setdefault(int(place), {})[name] = value
    return nested


def _tuples(groups: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Parameter groups as before JSON turned tuples into lists; only ``params`` was a list."""
    return [
        {key: tuple(value) if isinstance(value, list) and key != "params" else value for key, value in group.items()}
        for group in groups
    ]
