"""What the paper's grid takes on GPUs, computed from one measured rate: the tables of ``docs/scale.md``.

``python -m adatosk.experiments.scale`` writes them there again, between their marks.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from adatosk.config import ModelConfig, RunConfig
from adatosk.cost.loader import FOR_GPU
from adatosk.cost.models import recorded
from adatosk.cost.operations import count_parameters, hand_count
from adatosk.datasets import load_card
from adatosk.experiments.grid import TABLES, stages, table1
from adatosk.losses import loss_from_bytes
from adatosk.model import create_model
from adatosk.presets import MODELS, PROFILES
from adatosk.tokens import tube_mask
from adatosk.utils.files import write_text
from adatosk.utils.project import need_checkout


@dataclass(frozen=True)
class Rate:
    """A training step of the paper's model that was measured."""

    device: str
    about: str
    batch: int
    seconds: float

    @property
    def clips(self) -> float:
        """Clips per second."""
        return self.batch / self.seconds


# Of the model with soft mask, before its targets were computed from bytes.
MEASURED = Rate("NVIDIA H200", "bf16, not compiled, torch 2.11, November 2026", 64, 0.0817)
SETS = {"dfew": "DFEW", "ferv39k": "FERV39k", "mafw": "MAFW"}
GPUS = (1, 8, 64)
SHARES = (128, 64, 16, 8)  # clips per process, of a batch of 128
# Weights, their gradients and AdamW's two moments, in float32.
BYTES_A_PARAMETER = 16


def work(run: RunConfig, clips: int) -> float:
    """Seconds of a run on one GPU: its steps' operations, relative to those of the measured one."""
    ratio = _operations(run.model, run.train.rec_weight > 0) / _operations(MODELS["adatosk_base"], True)
    return run.train.epochs * clips / MEASURED.clips * ratio


@cache
def _operations(model: ModelConfig, joint: bool) -> int:
    return hand_count(model, training=joint).total()


def training_clips(name: str) -> tuple[int, int]:
    """Training clips of a set's first list, and its number of folds; 0 for one without."""
    lists = [part for part in load_card(name).expected if part.split == "train"]
    folds = {part.fold for part in lists if part.fold is not None}
    return lists[0].clips, len(folds)


def grid(base: RunConfig, folds: int) -> list[RunConfig]:
    """Every run of the grid in the workflow's order, each after the one it starts from."""
    found: dict[tuple[int, str], RunConfig] = {}
    for table in TABLES.values():
        for row in table(base):
            for repeat in range(folds or row.repeats):
                for stage in stages(row.config):
                    found.setdefault((repeat, stage.model_dump_json()), stage)
    return [found[key] for key in sorted(found, key=lambda key: key[0])]


def hours(runs: Iterable[RunConfig], clips: int, gpus: int) -> float:
    """Hours of runs on so many GPUs, one run on each: a run starts on the first free one, after the run it needs."""
    free, done, last = [0.0] * gpus, {}, 0.0
    for run in runs:
        place = free.index(min(free))
        needed = "" if run.initial is None else run.initial.model_dump_json()
        free[place] = max(free[place], done.get(needed, 0.0)) + work(run, clips)
        done[run.model_dump_json()] = free[place]
        last = max(last, free[place])
    return last / 3600


def kept_bytes(config: ModelConfig) -> int:
    """Bytes that a step in bf16 keeps of each clip for its backward pass; counted from shapes, without computing."""
    from torch._subclasses.fake_tensor import FakeTensorMode

    def kept(batch: int) -> int:
        with FakeTensorMode():
            model, storages = create_model(config).train(), {}
            weights = {parameter.untyped_storage()._cdata for parameter in model.parameters()}

            def keep(tensor: Tensor) -> Tensor:
                storages[tensor.untyped_storage()._cdata] = tensor
                return tensor

            video = torch.zeros(batch, 3, config.frames, config.image_size, config.image_size, dtype=torch.uint8)
            visible = tube_mask(batch, config.patches, config.mask_ratio)
            hooks = torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor)
            with hooks, torch.autocast("cpu", dtype=torch.bfloat16):
                output = model(video, visible, count=config.visible_patches)
                F.cross_entropy(output.logits.float(), torch.zeros(batch, dtype=torch.int64))
                if output.reconstruction is not None and output.reconstruction.numel():
                    loss_from_bytes(output.reconstruction, video, visible, config)
        return sum(value.untyped_storage().nbytes() for key, value in storages.items() if key not in weights)

    return kept(3) - kept(2)


def memory(config: ModelConfig, clips: int) -> float:
    """GB of a training step of so many clips, without what kernels and the allocator need on top."""
    parameters = count_parameters(config).total
    return (BYTES_A_PARAMETER * parameters + clips * kept_bytes(config)) / 1e9


def tables() -> str:
    """The tables of the page, in Markdown."""
    lines = ["| data | grid | one run | Table 1's pair | " + " | ".join(f"grid on {_gpus(n)}" for n in GPUS) + " |"]
    lines.append("|---" * (len(GPUS) + 4) + "|")
    for name, title in SETS.items():
        base = PROFILES["paper" if name == "dfew" else f"paper-{name}"]
        clips, folds = training_clips(name)
        runs, pair = grid(base, folds), [row.config for row in table1(base) for _ in range(folds or row.repeats)]
        whole = [_time(hours(runs, clips, gpus)) for gpus in GPUS]
        ways = f"{_time(hours(pair, clips, 1))}, on 8 GPUs {_time(hours(pair, clips, 8))}"
        lines.append(
            f"| {title} | {len(runs)} runs | {_time(hours([base], clips, 1))} | {ways} | {' | '.join(whole)} |"
        )
    models = {"paper's model": MODELS["adatosk_base"]}
    models["all tokens"] = MODELS["adatosk_base"].change(mask_ratio=0.0, soft_mask=None)
    lines += ["", "| clips per process | processes at batch 128 | " + " | ".join(models) + " |"]
    lines.append("|---" * (2 + len(models)) + "|")
    for share in SHARES:
        sizes = " | ".join(f"{memory(config, share):.0f} GB" for config in models.values())
        lines.append(f"| {share} | {SHARES[0] // share} | {sizes} |")
    cores = ", ".join(f"{count} (measured on {device})" for device, count in cores_for().items())
    lines += ["", f"Cores that one GPU needs to be fed from folders of JPEG images: {cores}."]
    return "\n".join(lines)


def cores_for(rate: float = MEASURED.clips) -> dict[str, int]:
    """Cores that feed one GPU with folders of JPEG images, by the device on which a loader's process was timed."""
    costs = {
        device: table.set_index("way").loc[FOR_GPU, "milliseconds"]
        for device, table in recorded("-loader-process").items()
    }
    return {device: math.ceil(rate * cost / 1000) for device, cost in costs.items()}


def _gpus(count: int) -> str:
    return f"{count} GPU{'s' if count > 1 else ''}"


def _time(value: float) -> str:
    return f"{value * 60:.0f} min" if value < 2 else f"{value:.2g} h" if value < 10 else f"{value:.0f} h"


START, END = "<!-- computed by adatosk.experiments.scale -->", "<!-- end -->"


def write_page(page: Path) -> None:
    """Replace the tables between the marks of a page."""
    before, _, rest = page.read_text(encoding="utf-8").partition(START)
    _, _, after = rest.partition(END)
    write_text(page, f"{before}{START}\n\n{tables()}\n\n{END}{after}")


if __name__ == "__main__":
    write_page(need_checkout("the page") / "docs" / "scale.md")
