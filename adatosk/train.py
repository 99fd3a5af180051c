"""Train and evaluate one run: ``adatosk train CONFIG.json``, or ``torchrun … -m adatosk.train CONFIG.json``.

A finished run is never retrained; an interrupted one resumes after its last complete epoch, with a bit-identical
result. The same seed gives identical bits on the same device with the same versions, number of threads and instruction
set (a different number of threads, or another processor, changes the order of summation); ``metrics.json`` records them
all. Environment variables from which accelerate would take settings are ignored; ``ADATOSK_DEVICE=cpu`` leaves a GPU
alone.
"""

if __name__ == "__main__":  # before the imports, which take seconds: Ctrl-C is quiet during these, too
    from adatosk.utils.door import run_command

    run_command("train")

import json
import os
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Literal

import torch
from accelerate.utils import broadcast
from torch import Tensor

from adatosk.clips import ClipDataset, make_loader, open_clips
from adatosk.clips.loader import Batches
from adatosk.config import EvalConfig, RunConfig
from adatosk.evaluate import Predictions, predict_split
from adatosk.manifests import manifest_of, manifest_path
from adatosk.metrics import majority
from adatosk.model import AdaTosk, create_model
from adatosk.onednn import through_onednn
from adatosk.pretrained import load_encoder
from adatosk.training.environment import configuration_alone
from adatosk.training.graphs import step_graph
from adatosk.training.optim import make_optimizer, make_schedule, optimizer_step
from adatosk.training.processes import make_accelerator, process_in_words, processes
from adatosk.training.run_results import READ_BACK, WEIGHTS, RunResults, epoch_in_words
from adatosk.training.run_state import Progress, RunState, clear_state
from adatosk.utils import seeds
from adatosk.utils.files import locked, naming, sealed, write_csv, write_json, write_text
from adatosk.utils.limits import limits_named
from adatosk.utils.project import Places
from adatosk.utils.provenance import file_digest, provenance, read_metrics


class Trainer:
    """One run from its configuration to ``metrics.json``."""

    def __init__(
        self,
        config: RunConfig,
        places: Places,
        report: Callable[[str], None] = print,
        observe: Callable[[AdaTosk, int], None] | None = None,
    ):
        self.config, self.places, self.report, self.observe = config, places, report, observe
        self.manifest = manifest_of(config)
        if self.manifest.classes != config.model.classes:
            raise ValueError(
                f"{manifest_path(config)}: its classes {self.manifest.classes} are not the model's "
                f"{config.model.classes}: set model.classes to them, as adatosk.datasets.run_on does"
            )
        self.run_id = config.run_id(self.manifest.digest)
        self.folder = places.results / "runs" / self.run_id
        self.checkpoints = self.folder / "checkpoints"
        self.results = RunResults(self.folder)
        self.progress = Progress()
        self._best: dict[str, Tensor] = {}

    def finished(self, need_checkpoint: bool = False) -> bool:
        """Whether the run's scores exist and, with ``need_checkpoint``, the weights that they were measured with.

        Raises:
            ValueError: the scores are on another version of the data, with the same clips and labels.
        """
        path, mine = self.folder / "metrics.json", self.manifest.version
        if path.is_file():
            there = read_metrics(path).get("manifest", {}).get("version", mine)
            if there != mine:
                raise ValueError(
                    f"{path}: was made on '{there}', and the manifest is of '{mine}': name another folder for results, "
                    "or remove the run"
                )
        return path.is_file() and not self.results.pending and (not need_checkpoint or self.results.weights_fit())

    def run(self, need_checkpoint: bool = False) -> Path:
        """Train, evaluate and write the run unless it is finished; returns its folder.

        If another process is training the run, this one waits for it; with several processes it fails instead.
        """
        with configuration_alone(self.report), limits_named():
            self.config.train.share(processes())  # refused before anything is read or written
            self.places.results.mkdir(parents=True, exist_ok=True)
            with self._lock():
                return self._run(need_checkpoint)

    def _lock(self) -> AbstractContextManager:
        if int(os.environ.get("RANK", "0")):
            return nullcontext()
        return locked(self.places.results / f".{self.run_id}.lock", self.report, wait=processes() == 1)

    def _run(self, need_checkpoint: bool) -> Path:
        if self._nothing_left(need_checkpoint):
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

    def _nothing_left(self, need_checkpoint: bool) -> bool:
        """Whether the run is finished, after completing the writes of a killed one."""
        if processes() == 1:
            return self._settled(need_checkpoint)
        # The main process answers for all, because what the others see changes while it tidies up.
        self._accelerate()
        answer = self.accelerator.is_main_process and self._settled(need_checkpoint)
        return bool(broadcast(torch.tensor(int(answer), device=self.accelerator.device)))

    def _settled(self, need_checkpoint: bool) -> bool:
        if self.folder.is_dir():
            self.results.settle()
        whole = self.finished(need_checkpoint=True)
        if whole:
            clear_state(self.checkpoints)
        return whole or (not need_checkpoint and self.finished())

    def _accelerate(self) -> None:
        self.accelerator = make_accelerator(self.config.train.precision)
        self.state = RunState(self.checkpoints, self.run_id, self.accelerator)

    def _set_up(self) -> None:
        config = self.config
        torch.manual_seed(config.seed)
        self._accelerate()
        for split in ("train", "test"):
            # Report a wrong fold or exclusion before hours of decoding.
            found = self.manifest.subset(split, config.data.fold, config.data.exclusions)
            if split == "train" and (unseen := sorted(set(self.manifest.classes) - set(found["label"]))):
                self.report(f"run {self.run_id}: no training clips of {', '.join(unseen)}, which it cannot learn")
        if processes() > 1:
            self._say(process_in_words(self.accelerator))
        places = self.places
        self.cache = open_clips(config.data, self.manifest, places.root, places.cache, places.workers, self.report)
        self.train_loader, self.test_loader = self._loader("train"), self._loader("test")
        if len(self.train_loader) == 0:
            raise ValueError(f"fewer training clips than one batch of {config.train.batch_size}: lower batch_size")
        self.steps_per_epoch = len(self.train_loader)
        model = self._make_model()
        optimizer = make_optimizer(model, config.train)
        self.schedule = make_schedule(optimizer, config.train, self.steps_per_epoch)
        if config.train.compile:
            model.compile()
        self.graph = step_graph(config.train, model, processes(), self._say)
        self.model, self.optimizer = self.accelerator.prepare(model, optimizer)

    def _say(self, line: str) -> None:
        self.report(f"run {self.run_id}: {line}")

    def _make_model(self) -> AdaTosk:
        """A model with random weights, or with the encoder of the run or checkpoint to start from."""
        config = self.config
        model = create_model(config.model)
        model.encoder.checkpointing = config.train.checkpoint_activations
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
        """Move the model to the device; on a CPU, its matrix products run through oneDNN."""
        return through_onednn(model) if self.accelerator.device.type == "cpu" else model.to(self.accelerator.device)

    def _loader(self, split: Literal["train", "test"]) -> Batches:
        config, train = self.config, split == "train"
        dataset = ClipDataset.of_split(config, self.manifest, self.places.root, split, self.cache)
        size = config.train.share(processes()) if train else config.evaluation.batch_size
        device, count = self.accelerator.device, processes()
        batches = make_loader(dataset, size, self.places.workers, train, config.seed, device=device, processes=count)
        batches.loader = self.accelerator.prepare(batches.loader)
        return batches

    def _resume(self) -> None:
        """Resume after the last complete epoch, if there is one."""
        saved = self.state.load(self._bare_model(), self.optimizer)
        if saved is not None:
            self.progress, self._best = saved
            if self.accelerator.is_main_process:
                self.report(f"run {self.run_id}: resuming after epoch {self.progress.epoch}")
        elif self.accelerator.is_main_process:
            write_json(self.folder / "config.json", self.config.model_dump(mode="json"))
            self.checkpoints.mkdir(exist_ok=True)
        self.accelerator.wait_for_everyone()

    def _train_epoch(self, epoch: int) -> None:
        sums, steps = torch.zeros(3, device=self.accelerator.device), 0
        # accelerate's loader counts epochs itself, from 0 even in a resumed run, and passes its count to the data set.
        self.train_loader.set_epoch(epoch)
        for step, batch in enumerate(self.train_loader):
            done = epoch * self.steps_per_epoch + step
            self.schedule.step_update(done)
            draw = seeds.generator(self.config.seed, epoch, step, self.accelerator.process_index)
            with_all = (self.optimizer, self.config.train, self.accelerator, draw, self.graph)
            losses = optimizer_step(self.model, batch, *with_all)
            sums += torch.stack([losses.total, losses.reconstruction, losses.classification])
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
        """Evaluate if due, log, and save the state from which an interrupted run resumes."""
        train, accelerator, progress = self.config.train, self.accelerator, self.progress
        progress.epoch = epoch + 1
        if self.observe is not None and accelerator.is_main_process:
            self.observe(self._bare_model(), progress.epoch)
        if progress.epoch % train.eval_every == 0 or progress.epoch == train.epochs:
            # The best epoch is chosen with the cheapest protocol; the full protocols follow at the end.
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
            # On retraining, the log of the published scores is kept until the new scores replace them.
            if not (self.folder / "metrics.json").is_file():
                self._write_log(self.folder)
            self.report(f"run {self.run_id}: epoch {progress.epoch} of {train.epochs}, {epoch_in_words(self._entry)}")
        progress.seconds += time.perf_counter() - self._start
        # After the last epoch as well, because the evaluation may be interrupted, too.
        self.state.save(self._bare_model(), self.optimizer, progress, self._best)

    def _write_log(self, folder: Path) -> None:
        write_text(folder / "log.jsonl", "".join(json.dumps(entry) + "\n" for entry in self.progress.log))

    def _bare_model(self) -> AdaTosk:
        return self.accelerator.unwrap_model(self.model)

    def _predict(self, evaluation: EvalConfig) -> Predictions:
        return predict_split(self._bare_model(), self.test_loader, evaluation, self.accelerator)

    def _finish(self) -> None:
        """Score the last and the best-on-test weights under every protocol, and publish the results."""
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
        write_json(stage / "metrics.json", sealed(self._metrics(last, best, stage)))
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
            "files": {name: file_digest(stage / name) for name in READ_BACK},
            "last": {name: scores.as_dict() for name, scores in last.scores(classes).items()},
            "best_on_test": {
                "epoch": self.progress.best_epoch,
                **{name: scores.as_dict() for name, scores in best.scores(classes).items()},
            },
            "majority": majority(last.labels, classes).as_dict(),
        }


def train(
    config: RunConfig,
    places: Places,
    need_checkpoint: bool = False,
    report: Callable[[str], None] = print,
    observe: Callable[[AdaTosk, int], None] | None = None,
) -> Path:
    """Train and evaluate one run unless it is finished; returns its folder, ``runs/<run id>`` under the results.

    Args:
        config: the run.
        places: where its data and results are.
        need_checkpoint: whether to retrain a finished run whose checkpoints are missing.
        report: called with progress messages.
        observe: called with the model and the number of epochs done after each one, by the main process; it may measure
            the model, but must change neither it nor torch's random state.

    Raises:
        ValueError, FileNotFoundError: for an unsuitable configuration, manifest or clip, before anything is written.
        ValueError: also for a damaged saved state; the message names the file.
        LimitError: when the machine runs out of memory, shared memory or processes.
        FloatingPointError: when the loss is no longer finite.
    """
    return Trainer(config, places, report, observe).run(need_checkpoint)
