"""The commands that :mod:`crashes` disturbs, each on a folder of its own: rendering, caching, training, re-training."""

import json
import shutil
from itertools import count
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
from media import moving_frames, write_frames, write_video

import adatosk.train as training
from adatosk.clips import open_cache
from adatosk.manifests import Manifest
from adatosk.presets import PROFILES
from adatosk.synthetic import BENCHMARKS, BenchmarkConfig, write_benchmark
from adatosk.train import Places, train
from adatosk.utils import parallel, provenance
from adatosk.utils.provenance import read_metrics
from adatosk.workspace import prepare_data

CLASSES = ("happy", "surprise")
SMALL = BenchmarkConfig(name="crash", classes=CLASSES, train_clips=4, test_clips=2, size=32, frames=(16, 16))


def quiet(*_: object) -> None:
    pass


class Scenario:
    """A command on a folder.

    ``prepare`` makes the folder that it starts from, and ``faults`` says what may not be there after it was disturbed.
    """

    def prepare(self, start: Path) -> None: ...

    def command(self, folder: Path) -> None:
        raise NotImplementedError

    def faults(self, start: Path, folder: Path) -> list[str]:
        return []


class Rendering(Scenario):
    """The embedded benchmark, as a workspace prepares it."""

    def command(self, folder: Path) -> None:
        BENCHMARKS["crash"] = SMALL.model_copy(update={"train_clips": 2, "test_clips": 1})
        (folder / "data").mkdir(exist_ok=True)
        prepare_data(PROFILES["smoke"].change(data={"manifest": "crash.csv"}), folder / "data")


class Caching(Scenario):
    """A cache of videos and a frame folder, two clips a time."""

    def prepare(self, start: Path) -> None:
        self.source = start.parent / "source"
        names = ["0.mp4", "1.mp4", "2", "3.mp4"]
        for number, name in enumerate(names):
            frames = moving_frames(5 + number, 24, 24, number)
            (write_video if "." in name else write_frames)(self.source / name, frames)
        clips = pd.DataFrame(
            {"path": names, "id": list("abcd"), "label": ["happy", "sad"] * 2, "split": ["train"] * 2 + ["test"] * 2}
        )
        self.manifest = Manifest("own", "1", ("happy", "sad"), clips)

    def command(self, folder: Path) -> None:
        parallel.in_chunks.__defaults__ = (2,)
        open_cache(self.manifest, self.source, 16, folder / "cache", workers=1, report=quiet)


class CachingAnew(Caching):
    """The cache that is there was built before a source changed."""

    def prepare(self, start: Path) -> None:
        super().prepare(start)
        self.command(start)
        write_video(self.source / "1.mp4", moving_frames(8, 24, 24, 99))


class Training(Scenario):
    """Two epochs of a tiny model, each evaluated."""

    weights = False

    def prepare(self, start: Path) -> None:
        self.data = start.parent / "data"
        write_benchmark(SMALL, self.data, workers=1, progress=False)
        self.config = PROFILES["smoke"].change(
            model={"classes": CLASSES},
            data={"manifest": str(self.data / "manifest.csv"), "cache_size": 32},
            train={"epochs": 2, "warmup_epochs": 0, "batch_size": 2, "eval_every": 1},
            evaluation={"views": (1,), "complementary": False},
        )
        self.run(start.parent / "results")  # fills the cache, which is not what this is about

    def run(self, results: Path) -> Path:
        ticks = count()
        training.time = SimpleNamespace(perf_counter=lambda: float(next(ticks)))
        provenance.git_commit = lambda: "none"
        places = Places(self.data, results, self.data / "cache", workers=0)
        return train(self.config, places, self.weights, report=quiet)

    def command(self, folder: Path) -> None:
        self.run(folder / "results")


class TrainingAgain(Training):
    """The run's scores came without weights, as with the repository; they name no digest and differ from ours."""

    weights = True

    def prepare(self, start: Path) -> None:
        super().prepare(start)
        folder = self.run(start / "results")
        shutil.rmtree(folder / "checkpoints")
        for name in ("predictions.csv", "log.jsonl"):
            (folder / name).write_text("old\n")
        metrics = read_metrics(folder / "metrics.json")
        del metrics["weights"], metrics["files"]
        (folder / "metrics.json").write_text(json.dumps(metrics | {"seed": "old"}))

    def faults(self, start: Path, folder: Path) -> list[str]:
        (run,) = (folder / "results" / "runs").iterdir()
        scores = json.loads((run / "metrics.json").read_text())
        if scores["seed"] != "old":
            return []
        faults = ["old scores beside new weights"] if (run / "checkpoints" / "last").exists() else []
        before = run.relative_to(folder)
        for name in ("predictions.csv", "log.jsonl"):
            changed = (run / name).read_bytes() != (start / before / name).read_bytes()
            # Between the two, `finished` holds all that the next call puts in its place.
            if changed and not (run / "checkpoints" / "finished" / "metrics.json").is_file():
                faults.append(f"old scores beside a new {name}")
        return faults


SCENARIOS = {
    "rendering": Rendering,
    "caching": Caching,
    "caching_anew": CachingAnew,
    "training": Training,
    "training_again": TrainingAgain,
}
