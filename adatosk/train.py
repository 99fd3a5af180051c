"""Train and evaluate one run: ``python -m adatosk.train CONFIG.json`` (also under ``torchrun``).

A finished run is never trained again; one that was cut off goes on at its last whole epoch, with the same result to
the bit.
"""

import argparse
import json
import os
import sys
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from accelerate.utils import DataLoaderConfiguration
from filelock import FileLock
from safetensors import SafetensorError
from torch.utils.data import DataLoader

from adatosk.clips import ClipCache, ClipDataset, make_loader, open_cache
from adatosk.config import EvalConfig, RunConfig
from adatosk.evaluate import Predictions, predict_split
from adatosk.manifests import manifest_of, manifest_path
from adatosk.metrics import majority
from adatosk.model import AdaTosk, create_model
from adatosk.pretrained import load_encoder
from adatosk.training.optim import make_optimizer, make_schedule, optimizer_step
from adatosk.training.run_state import Progress, RunState, cut_log, read_metrics
from adatosk.utils import seeds
from adatosk.utils.files import write_csv, write_json
from adatosk.utils.project import PROJECT
from adatosk.utils.provenance import provenance


@dataclass(frozen=True)
class Places:
    """Where things lie on this machine; none of it changes a result.

    Attributes:
        root: folder that the manifest's paths are relative to.
        results: folder that holds ``runs/<run id>/``.
        cache: folder for decoded clips.
        workers: loader processes; ``None`` chooses.
    """

    root: Path
    results: Path
    cache: Path
    workers: int | None = None


class Trainer:
    """One run from its configuration to ``metrics.json``."""

    def __init__(self, config: RunConfig, places: Places, report: Callable[[str], None] = print):
        self.config, self.places, self.report = config, places, report
        self.manifest = manifest_of(config)
        if self.manifest.classes != config.model.classes:
            raise ValueError(
                f"{manifest_path(config)}: its classes {self.manifest.classes} are not the model's "
                f"{config.model.classes}"
            )
        self.run_id = config.run_id(self.manifest.digest)
        self.folder = places.results / "runs" / self.run_id
        self.checkpoints = self.folder / "checkpoints"
        self.progress = Progress()

    def finished(self, weights: bool = False) -> bool:
        """Whether the run's scores are there and, where asked for, its weights.

        Raises:
            ValueError: they are of another version of the data, which has the same clips and labels.
        """
        path, mine = self.folder / "metrics.json", self.manifest.version
        if path.is_file():
            there = read_metrics(path).get("manifest", {}).get("version", mine)
            if there != mine:
                raise ValueError(
                    f"{path}: was made on '{there}', and the manifest is of '{mine}': name another folder for results, "
                    "or remove the run"
                )
        saved = not weights or (self.checkpoints / "last" / "model.safetensors").is_file()
        return saved and path.is_file()

    def run(self, weights: bool = False) -> Path:
        """Train, evaluate and write the run unless it is finished; returns its folder.

        A run that another process trains is waited for; one that starts on several devices cannot wait, and fails.
        """
        self.places.results.mkdir(parents=True, exist_ok=True)
        with self._lock():
            return self._run(weights)

    def _lock(self) -> AbstractContextManager:
        if int(os.environ.get("RANK", "0")):
            return nullcontext()
        waits = int(os.environ.get("WORLD_SIZE", "1")) == 1
        return FileLock(self.places.results / f".{self.run_id}.lock", timeout=-1 if waits else 0)

    def _run(self, weights: bool) -> Path:
        if self.finished(weights):
            self.report(f"run {self.run_id}: already finished")
            return self.folder
        self._set_up()
        self._resume()
        for epoch in range(self.progress.epoch, self.config.train.epochs):
            self._start = time.perf_counter()
            self._train_epoch(epoch)
            self._end_epoch(epoch)
        self._finish()
        return self.folder

    def _set_up(self) -> None:
        config = self.config
        torch.manual_seed(config.seed)
        # accelerate keeps the first precision of a process for good; a notebook may train runs of both.
        AcceleratorState._reset_state(reset_partial_state=False)
        # Batches lie in pinned memory on a GPU's machine: nothing has to wait for their way to it.
        loading = DataLoaderConfiguration(non_blocking=True)
        self.accelerator = Accelerator(mixed_precision=config.train.precision, dataloader_config=loading)
        self.state = RunState(self.checkpoints, self.accelerator)
        processes = self.accelerator.num_processes
        if config.train.batch_size % processes:
            raise ValueError(f"batch_size {config.train.batch_size} does not divide over {processes} processes")
        for split in ("train", "test"):
            # What is wrong with fold or exclusions is said before hours of decoding.
            self.manifest.subset(split, config.data.fold, config.data.exclusions)
        with self.accelerator.main_process_first():
            self.cache = self._open_cache()
        self.train_loader = self.accelerator.prepare(self._loader("train"))
        self.test_loader = self.accelerator.prepare(self._loader("test"))
        if len(self.train_loader) == 0:
            raise ValueError(f"fewer training clips than one batch of {config.train.batch_size}: lower batch_size")
        self.steps_per_epoch = len(self.train_loader)
        model = self._make_model()
        optimizer = make_optimizer(model, config.train)
        self.schedule = make_schedule(optimizer, config.train, self.steps_per_epoch)
        if config.train.compile:
            model.compile()
        self.model, self.optimizer = self.accelerator.prepare(model, optimizer)
        self.accelerator.register_for_checkpointing(self.progress)

    def _make_model(self) -> AdaTosk:
        """Random weights, or the encoder of the run or of the checkpoint to start from."""
        config = self.config
        model = create_model(config.model)
        if config.train.rec_weight == 0:
            model.freeze_decoder()
        if config.initial is not None:
            first = self.places.results / "runs" / config.initial.run_id(self.manifest.digest)
            weights = first / "checkpoints" / "last"
            if not (weights / "model.safetensors").is_file():
                raise FileNotFoundError(f"{weights}: the run to start from has no weights here; train it first")
            model.encoder.load_state_dict(AdaTosk.from_pretrained(weights).encoder.state_dict())
        if config.weights is not None and self.state.saved() is None:
            loaded = load_encoder(model, config.weights.path, config.weights.sha256)
            if self.accelerator.is_main_process:
                self.report(str(loaded))
        if self.accelerator.num_processes > 1 and self.accelerator.device.type == "cuda":
            model = torch.nn.SyncBatchNorm.convert_sync_batchnorm(model)
        return model

    def _open_cache(self) -> ClipCache | None:
        """The decoded clips or ``None``; a broken clip that is not excluded stops the run before it starts."""
        data, places = self.config.data, self.places
        if data.cache_size is None:
            seen = places.cache / f"{self.manifest.name}-{self.manifest.digest[:12]}.check.csv"
            self.manifest.check(places.root, report=seen).raise_if_broken(data.exclusions)
            return None
        return open_cache(
            self.manifest, places.root, data.cache_size, places.cache, data.exclusions, places.workers, self.report
        )

    def _loader(self, split: str) -> DataLoader:
        config, train = self.config, split == "train"
        dataset = ClipDataset.of_split(config, self.manifest, self.places.root, split, self.cache)
        size = config.train.batch_size // self.accelerator.num_processes if train else config.evaluation.batch_size
        return make_loader(dataset, size, self.places.workers, train, config.seed)

    def _resume(self) -> None:
        """Go on at the last whole epoch, if there is one."""
        # The log of finished scores stays until those of their second training are there.
        again = (self.folder / "metrics.json").is_file()
        self._log = (self.checkpoints if again else self.folder) / "log.jsonl"
        if self.state.load():
            self.report(f"run {self.run_id}: goes on after epoch {self.progress.epoch}")
            if self.accelerator.is_main_process:
                cut_log(self._log, self.progress.epoch)
        elif self.accelerator.is_main_process:
            write_json(self.folder / "config.json", self.config.model_dump(mode="json"))
            self.checkpoints.mkdir(exist_ok=True)
            self._log.unlink(missing_ok=True)
        self.accelerator.wait_for_everyone()

    def _train_epoch(self, epoch: int) -> None:
        sums, steps = torch.zeros(3, device=self.accelerator.device), 0
        # accelerate's loader counts epochs itself, from 0 also in a resumed run, and tells the data set: set it there.
        self.train_loader.set_epoch(epoch)
        for step, batch in enumerate(self.train_loader):
            done = epoch * self.steps_per_epoch + step
            self.schedule.step_update(done)
            draw = seeds.generator(self.config.seed, epoch, step, self.accelerator.process_index)
            losses = optimizer_step(self.model, batch, self.optimizer, self.config.train, self.accelerator, draw)
            sums += torch.stack([losses.total, losses.reconstruction, losses.classification]).detach()
            steps += 1
        total, reconstruction, classification = (self.accelerator.reduce(sums, "mean") / steps).tolist()
        if total != total or total == float("inf"):
            raise FloatingPointError(
                f"run {self.run_id}: the loss is {total} in epoch {epoch + 1}: lower train.base_lr"
            )
        seconds = time.perf_counter() - self._start
        rate = self.optimizer.param_groups[0]["lr"]
        self._entry = {
            "epoch": epoch + 1,
            "loss": total,
            "reconstruction_loss": reconstruction,
            "classification_loss": classification,
            "learning_rate": rate,
            "seconds": round(seconds, 2),
        }

    def _end_epoch(self, epoch: int) -> None:
        """Evaluate when it is time, log, and save so that a cut-off run can go on here."""
        train, accelerator, progress = self.config.train, self.accelerator, self.progress
        progress.epoch = epoch + 1
        if progress.epoch % train.eval_every == 0 or progress.epoch == train.epochs:
            # Choosing among epochs takes the cheapest protocol; the full ones follow at the end.
            quick = EvalConfig(views=(1,), complementary=False, seed=self.config.evaluation.seed)
            war = self._predict(quick).scores(self.manifest.classes)["views_1"].war
            self._entry["test_war_views_1"] = war
            if war > progress.best_war:
                progress.best_war, progress.best_epoch = war, progress.epoch
                self._save_model("best_on_test")
        if accelerator.is_main_process:
            with self._log.open("a", encoding="utf-8") as log:
                log.write(json.dumps(self._entry) + "\n")
            self.report(f"run {self.run_id}: " + ", ".join(f"{k} {v:.4g}" for k, v in self._entry.items()))
        progress.seconds += time.perf_counter() - self._start
        if progress.epoch < train.epochs:
            self.state.save()

    def _bare_model(self) -> AdaTosk:
        return self.accelerator.unwrap_model(self.model)

    def _save_model(self, name: str) -> None:
        if self.accelerator.is_main_process:
            self._bare_model().save_pretrained(self.checkpoints / name)

    def _predict(self, evaluation: EvalConfig) -> Predictions:
        return predict_split(self._bare_model(), self.test_loader, evaluation, self.accelerator)

    def _finish(self) -> None:
        """Score the last and the best-on-test weights under every protocol and write the results."""
        self._save_model("last")
        self.accelerator.wait_for_everyone()
        last = self._predict(self.config.evaluation)
        best = last
        if self.progress.best_epoch < self.config.train.epochs:
            model = AdaTosk.from_pretrained(self.checkpoints / "best_on_test").to(self.accelerator.device)
            best = predict_split(model, self.test_loader, self.config.evaluation, self.accelerator)
        if not self.accelerator.is_main_process:
            return
        classes = self.manifest.classes
        clips = self.manifest.subset("test", self.config.data.fold, self.config.data.exclusions)
        write_csv(self.folder / "predictions.csv", last.table(clips["id"], classes), index=False)
        result = {
            "run_id": self.run_id,
            "config": self.config.model_dump(mode="json"),
            "manifest": {"name": self.manifest.name, "version": self.manifest.version, "digest": self.manifest.digest},
            "provenance": provenance(self.accelerator.device),
            "seed": self.config.seed,
            "processes": self.accelerator.num_processes,
            "train_seconds": round(self.progress.seconds, 1),
            "last": {name: scores.as_dict() for name, scores in last.scores(classes).items()},
            "best_on_test": {
                "epoch": self.progress.best_epoch,
                **{name: scores.as_dict() for name, scores in best.scores(classes).items()},
            },
            "majority": majority(last.labels, classes).as_dict(),
        }
        write_json(self.folder / "metrics.json", result)
        self._log.replace(self.folder / "log.jsonl")
        self.state.clear()


def train(config: RunConfig, places: Places, weights: bool = False, report: Callable[[str], None] = print) -> Path:
    """Train and evaluate one run unless it is finished; returns its folder, ``runs/<run id>`` under the results.

    Args:
        config: the run.
        places: where its data and results lie.
        weights: whether a run without checkpoints counts as unfinished.
        report: gets a line now and then.

    Raises:
        ValueError, FileNotFoundError: for a configuration, manifest or clip that does not fit, before anything is
            written.
        FloatingPointError: when the loss is no longer finite.
    """
    return Trainer(config, places, report).run(weights)


def main(arguments: list[str] | None = None) -> int:
    """The command line; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m adatosk.train", description="Train and evaluate one run.")
    parser.add_argument("config", type=Path, help="a run configuration, JSON")
    parser.add_argument("--root", type=Path, required=True, help="folder that the manifest's paths are relative to")
    parser.add_argument("--results", type=Path, default=PROJECT / "results" / "own", help="folder for runs/<run id>/")
    parser.add_argument("--cache", type=Path, default=PROJECT / "data" / "cache", help="folder for decoded clips")
    parser.add_argument("--workers", type=int, help="loader processes")
    parser.add_argument("--weights", action="store_true", help="train again a run whose checkpoints are missing")
    options = parser.parse_args(arguments)
    try:
        places = Places(options.root, options.results, options.cache, options.workers)
        folder = train(RunConfig.read(options.config), places, options.weights)
    except (ValueError, OSError, FloatingPointError, SafetensorError) as error:
        # A loader's process passes its whole traceback on as the message.
        said = str(error).strip().splitlines() or [type(error).__name__]
        print(f"error: {said[-1] if 'Original Traceback' in str(error) else str(error)}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("stopped; the same command goes on after the last whole epoch", file=sys.stderr)
        return 130
    print(folder)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
