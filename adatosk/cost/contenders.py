"""The models that are timed, AdaTosk and VideoMAE, each ready for a forward pass or a training step."""

import gc
import re
from collections.abc import Callable
from dataclasses import dataclass
from inspect import unwrap
from math import nan
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from adatosk.config import ModelConfig, TrainConfig
from adatosk.cost.timing import synchronise
from adatosk.losses import total_loss
from adatosk.model import AdaTosk
from adatosk.onednn import FLOPS, for_inference, through_onednn
from adatosk.predict import dtype_of
from adatosk.training.optim import make_optimizer
from adatosk.utils.parallel import in_one_process

MIB = 2**20
WORKS = ("forward", "training step")
# Speed-ups are relative to the first one.
RIVAL = "videomae"
SAME_PRODUCTS = "videomae through oneDNN"
CONTENDERS = (RIVAL, SAME_PRODUCTS, "adatosk without soft mask", "adatosk")


@dataclass(frozen=True)
class Setup:
    """The conditions of a measurement.

    Attributes:
        work: ``forward`` is classification, without gradient and, for AdaTosk, without decoder; ``training step`` is
            forward, loss, backward and AdamW's update (AdaTosk: both branches, Eq. 2; VideoMAE: fine-tuning).
        batch: clips per batch.
        precision: ``fp32`` or ``bf16``. For a forward pass in bf16, the weights are converted once, in advance; a
            training step converts them each time, by autocast, since the optimiser needs them in float32.
        compiled: whether to use ``torch.compile``.
    """

    work: str = "forward"
    batch: int = 1
    precision: str = "fp32"
    compiled: bool = False

    def __post_init__(self) -> None:
        if self.work not in WORKS:
            raise ValueError(f"unknown work '{self.work}': choose {', '.join(WORKS)}")
        dtype_of(self.precision)  # an unknown one is an error
        if self.batch < 1:
            raise ValueError(f"batch must be at least 1, got {self.batch}")

    def separates(self, name: str, device: torch.device | str) -> bool:
        """Whether a contender differs in this setup: oneDNN only affects float32 or packed products on a CPU."""
        if name != SAME_PRODUCTS:
            return True
        oneself = self.precision == "fp32" or self.work == "forward"
        return oneself and not self.compiled and torch.device(device).type == "cpu"


def build(name: str, config: ModelConfig) -> nn.Module:
    """Create a contender with random weights.

    Args:
        name: ``adatosk``; ``adatosk without soft mask``; ``videomae``, the stock video classifier of transformers with
            the same sizes, which sees every patch; or ``videomae through oneDNN``, the same with this package's matrix
            products, which isolates the effect of the masks.
        config: sizes, and AdaTosk's masks.

    Raises:
        ModuleNotFoundError: for ``videomae`` when transformers is not installed.
        ValueError: for another name.
    """
    if name == "adatosk":
        return AdaTosk(config)
    if name == "adatosk without soft mask":
        return AdaTosk(config.change(soft_mask=None))
    if name == RIVAL:
        return _videomae(config)
    if name == SAME_PRODUCTS:
        return through_onednn(_videomae(config))
    raise ValueError(f"unknown contender '{name}': choose {', '.join(CONTENDERS)}")


def _videomae(config: ModelConfig) -> nn.Module:
    try:
        from transformers import VideoMAEConfig, VideoMAEForVideoClassification
    except ImportError as error:
        raise ModuleNotFoundError(
            "the rival VideoMAE comes from transformers: pip install -e .[dev], or leave it out of the contenders"
        ) from error
    sizes = VideoMAEConfig(
        image_size=config.image_size,
        patch_size=config.patch_size,
        num_frames=config.frames,
        tubelet_size=config.tubelet,
        hidden_size=config.width,
        num_hidden_layers=config.depth,
        num_attention_heads=config.heads,
        intermediate_size=int(config.width * config.mlp_ratio),
        num_labels=len(config.classes),
    )
    return VideoMAEForVideoClassification(sizes)


def prepare(name: str, config: ModelConfig, setup: Setup, device: torch.device | str = "cpu") -> Callable[[], None]:
    """Build a contender with its input; each call of the result does the work once."""
    device = torch.device(device)
    model = build(name, config).to(device)
    shape = (setup.batch, 3, config.frames, config.image_size, config.image_size)
    generator = torch.Generator().manual_seed(0)
    if setup.work == "training step" and isinstance(model, AdaTosk):
        # Bytes, as adatosk.train gives them to its model.
        video = torch.randint(256, shape, dtype=torch.uint8, generator=generator).to(device)
    else:
        video = torch.randn(shape, generator=generator).to(device)
    if setup.work == "forward":
        return _forward(name, model, video, setup)
    labels = torch.arange(setup.batch, device=device) % len(config.classes)
    return _training_step(model, video, labels, setup)


def _forward(name: str, model: nn.Module, video: Tensor, setup: Setup) -> Callable[[], None]:
    dtype = dtype_of(setup.precision)
    # As users run them: the rival as its library provides it, AdaTosk as adatosk.predict_many does.
    own = name != RIVAL and not setup.compiled
    model, video = for_inference(model, dtype) if own else model.eval().to(dtype), video.to(dtype)
    classify = _classifier(model, setup.compiled)

    def forward() -> None:
        with torch.no_grad():
            classify(video)

    return forward


def _classifier(model: nn.Module, compiled: bool) -> Callable[[Tensor], Tensor]:
    run = _compiled(model) if compiled else model
    if isinstance(model, AdaTosk):
        return model.classify
    return lambda video: run(pixel_values=video.transpose(1, 2)).logits


def _compiled(model: nn.Module) -> Callable:
    if not isinstance(model, AdaTosk):
        return torch.compile(model)
    model.compile()
    return model


def _training_step(model: nn.Module, video: Tensor, labels: Tensor, setup: Setup) -> Callable[[], None]:
    train = TrainConfig()
    if isinstance(model, AdaTosk) and video.device.type == "cpu":
        through_onednn(model)  # as adatosk.train does
    optimizer = make_optimizer(model.train(), train)
    run = _compiled(model) if setup.compiled else model
    autocast = torch.autocast(video.device.type, dtype=torch.bfloat16, enabled=setup.precision == "bf16")

    def step() -> None:
        """One optimiser step on the same batch."""
        with autocast:
            if isinstance(model, AdaTosk):
                loss = total_loss(run(video), video, labels, model.config, train).total
            else:
                loss = F.cross_entropy(run(pixel_values=video.transpose(1, 2)).logits.float(), labels)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()

    return step


def count_work(name: str, config: ModelConfig, work: str, device: torch.device | str = "cpu") -> int:
    """Multiply-accumulates for one clip, including any backward pass, counted by torch during execution."""
    from torch.utils.flop_counter import FlopCounterMode, sdpa_backward_flop, sdpa_flop  # it loads triton

    # torch 2.11 does not know the fused attention of a CPU. The formulas take shapes; wrapped ones take tensors.
    aten = torch.ops.aten
    known = FLOPS | {
        aten._scaled_dot_product_flash_attention_for_cpu: unwrap(sdpa_flop),
        aten._scaled_dot_product_flash_attention_for_cpu_backward: unwrap(sdpa_backward_flop),
    }
    # A loss needs values; for a forward pass, shapes suffice, which need no computation.
    run = prepare(name, config, Setup(work), "meta" if work == "forward" else device)
    with FlopCounterMode(display=False, custom_mapping=known) as counter:
        run()
    return counter.get_total_flops() // 2


def peak_memory(name: str, config: ModelConfig, setup: Setup, device: torch.device | str = "cpu") -> float:
    """Peak memory in MiB for building a contender and doing its work twice, including weights and input.

    On a GPU, it is what torch's allocator handed out. On a CPU, it is the growth of a fresh process's resident size
    after all imports; NaN on systems other than Linux.
    """
    if torch.device(device).type != "cuda":
        return in_one_process(_resident_growth, name, config, setup, torch.get_num_threads())
    gc.collect()
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats(device)
    before = torch.cuda.memory_allocated(device)
    run = prepare(name, config, setup, device)
    run(), run()
    synchronise(device)
    return (torch.cuda.max_memory_allocated(device) - before) / MIB


def _resident_growth(name: str, config: ModelConfig, setup: Setup, threads: int) -> float:
    torch.set_num_threads(threads)
    with torch.device("meta"):
        build(name, config)  # imports what building needs
    before = _status_mib("VmRSS")
    run = prepare(name, config, setup)
    run(), run()
    return max(_status_mib("VmHWM") - before, 0.0)


def _status_mib(field: str) -> float:
    status = Path("/proc/self/status")
    text = status.read_text(encoding="utf-8") if status.is_file() else ""
    found = re.search(rf"^{field}:\s+(\d+) kB", text, re.MULTILINE)
    return int(found[1]) / 1024 if found else nan
