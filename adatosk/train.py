"""Train and evaluate one run: ``adatosk train CONFIG.json``, or ``torchrun … -m adatosk.train CONFIG.json``.

A finished run is never trained again; one that was cut off resumes after its last whole epoch, with the same result to
the bit. The same seed gives the same bits on the same device with the same versions, as many threads and the same
instruction set (another number of threads or another processor sums in another order); ``metrics.json`` names them all.
Variables of the environment from which accelerate would take settings are not followed.
"""

if __name__ == "__main__":  # before the imports, which take seconds: Ctrl-C is quiet during these, too
    from adatosk.__main__ import main

    main("train")

import json
import os
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Literal

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from accelerate.utils import DataLoaderConfiguration, broadcast
from torch import Tensor
from torch.utils.data import DataLoader

from adatosk.clips import ClipCache, ClipDataset, make_loader, open_cache
from adatosk.config import EvalConfig, RunConfig
from adatosk.evaluate import Predictions, predict_split
from adatosk.manifests import manifest_of, manifest_path
from adatosk.metrics import majority
from adatosk.model import AdaTosk, create_model
from adatosk.onednn import through_onednn
from adatosk.pretrained import load_encoder
from adatosk.training.environment import configuration_alone
from adatosk.training.optim import make_optimizer, make_schedule, optimizer_step
from adatosk.training.run_results import WEIGHTS, RunResults
from adatosk.training.run_state import Progress, RunState, clear_state
from adatosk.utils import seeds
from adatosk.utils.files import locked, naming, write_csv, write_json, write_text
from adatosk.utils.limits import limits_named
from adatosk.utils.project import Places
from adatosk.utils.provenance import file_digest, provenance, read_metrics


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
        self.results = RunResults(self.folder)
        self.progress = Progress()
        self._best: dict[str, Tensor] = {}

    def finished(self, weights: bool = False) -> bool:
        """Whether the run's scores are there and, where asked for, the weights that they belong to.

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
        return path.is_file() and not self.results.pending and (not weights or self.results.weights_fit())

    def run(self, weights: bool = False) -> Path:
        """Train, evaluate and write the run unless it is finished; returns its folder.

        A run that another process trains is waited for; one that starts on several devices cannot wait, and fails.
        """
        with configuration_alone(self.report), limits_named():
            self.places.results.mkdir(parents=True, exist_ok=True)
            with self._lock():
                return self._run(weights)

    def _lock(self) -> AbstractContextManager:
        if int(os.environ.get("RANK", "0")):
            return nullcontext()
        return locked(self.places.results / f".{self.run_id}.lock", self.report, wait=_processes() == 1)

    def _run(self, weights: bool) -> Path:
        if self._nothing_left(weights):
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

    def _nothing_left(self, weights: bool) -> bool:
        """Whether the run is finished, once what a killed one left is put in its place."""
        if _processes() == 1:
            return self._settled(weights)
        # The main process answers for all: what the others see changes while it tidies up.
        self._accelerate()
        answer = self.accelerator.is_main_process and self._settled(weights)
        return bool(broadcast(torch.tensor(int(answer), device=self.accelerator.device)))

    def _settled(self, weights: bool) -> bool:
        if self.folder.is_dir():
            self.results.settle()
        whole = self.finished(weights=True)
        if whole:
            clear_state(self.checkpoints)
        return whole or (not weights and self.finished())

    def _accelerate(self) -> None:
        # accelerate keeps the first precision of a process for good; a notebook may train runs of both.
        AcceleratorState._reset_state(reset_partial_state=False)
        # Batches lie in pinned memory on a GPU's machine: nothing has to wait for their way to it.
        loading = DataLoaderConfiguration(non_blocking=True)
        self.accelerator = Accelerator(mixed_precision=self.config.train.precision, dataloader_config=loading)
        self.state = RunState(self.checkpoints, self.run_id, self.accelerator)

    def _set_up(self) -> None:
        config = self.config
        torch.manual_seed(config.seed)
        self._accelerate()
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
        model = self._on_device(model)
        if self.accelerator.num_processes > 1 and self.accelerator.device.type == "cuda":
            model = torch.nn.SyncBatchNorm.convert_sync_batchnorm(model)
        return model

    def _on_device(self, model: AdaTosk) -> AdaTosk:
        """On a CPU the products run through oneDNN."""
        return through_onednn(model) if self.accelerator.device.type == "cpu" else model.to(self.accelerator.device)

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

    def _loader(self, split: Literal["train", "test"]) -> DataLoader:
        config, train = self.config, split == "train"
        dataset = ClipDataset.of_split(config, self.manifest, self.places.root, split, self.cache)
        size = config.train.batch_size // self.accelerator.num_processes if train else config.evaluation.batch_size
        return make_loader(dataset, size, self.places.workers, train, config.seed)

    def _resume(self) -> None:
        """Go on at the last whole epoch, if there is one."""
        saved = self.state.load(self._bare_model(), self.optimizer)
        if saved is not None:
            self.progress, self._best = saved
            self.report(f"run {self.run_id}: goes on after epoch {self.progress.epoch}")
        elif self.accelerator.is_main_process:
            write_json(self.folder / "config.json", self.config.model_dump(mode="json"))
            self.checkpoints.mkdir(exist_ok=True)
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
                if accelerator.is_main_process:
                    weights = self._bare_model().state_dict()
                    self._best = {name: value.to("cpu", copy=True) for name, value in weights.items()}
        progress.log.append(self._entry)
        if accelerator.is_main_process:
            # The log of finished scores stays until those of their second training are there.
            if not (self.folder / "metrics.json").is_file():
                self._write_log(self.folder)
            self.report(f"run {self.run_id}: " + ", ".join(f"{k} {v:.4g}" for k, v in self._entry.items()))
        progress.seconds += time.perf_counter() - self._start
        # After the last epoch as well: evaluation, too, may be cut off.
        self.state.save(self._bare_model(), self.optimizer, progress, self._best)

    def _write_log(self, folder: Path) -> None:
        write_text(folder / "log.jsonl", "".join(json.dumps(entry) + "\n" for entry in self.progress.log))

    def _bare_model(self) -> AdaTosk:
        return self.accelerator.unwrap_model(self.model)

    def _predict(self, evaluation: EvalConfig) -> Predictions:
        return predict_split(self._bare_model(), self.test_loader, evaluation, self.accelerator)

    def _finish(self) -> None:
        """Score the last and the best-on-test weights under every protocol and put the results in their place."""
        stage = self._stage_weights() if self.accelerator.is_main_process else self.results.staged
        self.accelerator.wait_for_everyone()
        last = self._predict(self.config.evaluation)
        best = last
        if self.progress.best_epoch < self.config.train.epochs:
            model = self._on_device(AdaTosk.from_pretrained(stage / "best_on_test"))
            best = predict_split(model, self.test_loader, self.config.evaluation, self.accelerator)
        if not self.accelerator.is_main_process:
            return
        clips = self.manifest.subset("test", self.config.data.fold, self.config.data.exclusions)
        write_csv(stage / "predictions.csv", last.table(clips["id"], self.manifest.classes), index=False)
        self._write_log(stage)
        write_json(stage / "metrics.json", self._metrics(last, best, stage))
        self.results.publish()
        clear_state(self.checkpoints)

    def _stage_weights(self) -> Path:
        stage = self.results.stage()
        best = create_model(self.config.model)
        best.load_state_dict(self._best)
        for name, model in (("last", self._bare_model()), ("best_on_test", best)):
            with naming(stage / name):
                model.save_pretrained(stage / name)
        return stage

    def _metrics(self, last: Predictions, best: Predictions, stage: Path) -> dict:
        classes = self.manifest.classes
        return {
            "run_id": self.run_id,
            "config": self.config.model_dump(mode="json"),
            "manifest": {"name": self.manifest.name, "version": self.manifest.version, "digest": self.manifest.digest},
            "provenance": provenance(self.accelerator.device),
            "seed": self.config.seed,
            "processes": self.accelerator.num_processes,
            "train_seconds": round(self.progress.seconds, 1),
            "weights": {name: file_digest(stage / name / WEIGHTS) for name in ("last", "best_on_test")},
            "last": {name: scores.as_dict() for name, scores in last.scores(classes).items()},
            "best_on_test": {
                "epoch": self.progress.best_epoch,
                **{name: scores.as_dict() for name, scores in best.scores(classes).items()},
            },
            "majority": majority(last.labels, classes).as_dict(),
        }


def _processes() -> int:
    return int(os.environ.get("WORLD_SIZE", "1"))


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
        ValueError: also for a saved state that is damaged; the message names the file.
        LimitError: when memory, shared memory or processes of the machine do not suffice.
        FloatingPointError: when the loss is no longer finite.
    """
    return Trainer(config, places, report).run(weights)
