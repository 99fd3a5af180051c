"""Training runs that several tests start."""

from pathlib import Path

import pytest
import torch

from adatosk.config import RunConfig
from adatosk.model import AdaTosk
from adatosk.presets import PROFILES
from adatosk.synthetic import BenchmarkConfig, write_benchmark
from adatosk.train import Places, Trainer, train

PAIR = ("happy", "surprise")


def render_pair(root: Path) -> Path:
    """Clips of two classes, rendered into a folder."""
    benchmark = BenchmarkConfig(name="pair", classes=PAIR, train_clips=8, test_clips=4, size=48, frames=(64, 64))
    write_benchmark(benchmark, root, workers=1, progress=False)
    return root


def short_run(root: Path, **changes) -> RunConfig:
    """Three epochs of a tiny model on such clips, each followed by an evaluation."""
    config = PROFILES["smoke"].change(
        model={"classes": PAIR},
        data={"manifest": str(root / "manifest.csv"), "cache_size": 32},
        train={"epochs": 3, "batch_size": 4, "eval_every": 1},
        evaluation={"views": (1,), "complementary": False},
    )
    return config.change(**changes)


def weights_of(folder: Path, name: str = "last") -> dict[str, torch.Tensor]:
    """The weights of a finished run."""
    return AdaTosk.from_pretrained(folder / "checkpoints" / name).state_dict()


def same(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> bool:
    """Whether two sets of weights are equal to the bit."""
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def train_cut_off(config: RunConfig, places: Places, need_checkpoint: bool = False) -> None:
    """Train one epoch of a run, which is then cut off in the second."""
    inner = Trainer._train_epoch

    def stop_in_epoch_two(self, epoch):
        if epoch == 1:
            raise KeyboardInterrupt
        inner(self, epoch)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Trainer, "_train_epoch", stop_in_epoch_two)
        with pytest.raises(KeyboardInterrupt):
            train(config, places, need_checkpoint, report=lambda line: None)
