"""The configuration of a run: its model, data, training and evaluation; and the run's id.

A run is a function of one :class:`RunConfig` and one manifest. Where data, caches and results lie on a machine is not
part of it, so the same run has the same id everywhere.
"""

import hashlib
import json
from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from adatosk.config.frozen import Frozen
from adatosk.config.model import ModelConfig


class DataConfig(Frozen):
    """Which clips, and how frames are sampled from each (section 4.1).

    Attributes:
        manifest: file name under ``data_manifests/``, or a path.
        fold: test fold of a set with folds; ``None`` for a set with one split.
        stride: distance between sampled frames, in frames.
        cache_size: side in pixels at which decoded clips are cached; ``None`` decodes each time.
        min_crop: smallest side of a training crop, as a share of the frame (multi-scale crop); 1 crops nothing.
        flip: mirror half of the training clips.
        exclusions: ids of clips left out deliberately; they are recorded with the results.
    """

    manifest: str
    fold: int | None = None
    stride: int = Field(4, ge=1)
    cache_size: int | None = Field(None, ge=8)
    min_crop: float = Field(0.66, gt=0, le=1)
    flip: bool = True
    exclusions: tuple[str, ...] = ()


class TrainConfig(Frozen):
    """Optimisation (section 4.1, "follow VideoMAE").

    Attributes:
        epochs, warmup_epochs: length of the cosine schedule and of its linear warm-up.
        batch_size: clips per optimiser step over all devices.
        base_lr: learning rate for a batch of 256; the rate used is ``base_lr · batch_size / 256``.
        weight_decay, betas: AdamW; no decay on biases and norms.
        rec_weight, cls_weight: λ_rec and λ_cls (Eq. 2).
        clip_grad: largest gradient norm; ``None`` does not clip.
        precision: ``no`` for float32, or ``bf16``.
        compile: use ``torch.compile``.
        checkpoint_activations: compute the encoder's blocks again in the backward pass instead of keeping what they
            computed: less memory, the same gradients, and about a third more time.
        cuda_graph: replay forward and backward pass on a GPU as one CUDA graph, which saves launching their kernels one
            by one: the most of a small model's step. By default (``None``) for small models in one process.
        eval_every: epochs between evaluations on the test split; the last epoch is always evaluated.
    """

    epochs: int = Field(100, ge=1)
    warmup_epochs: int = Field(10, ge=0)
    batch_size: int = Field(128, ge=1)
    base_lr: float = Field(1.5e-4, gt=0)
    weight_decay: float = Field(0.05, ge=0)
    betas: tuple[Annotated[float, Field(ge=0, lt=1)], Annotated[float, Field(ge=0, lt=1)]] = (0.9, 0.95)
    rec_weight: float = Field(1.0, ge=0)
    cls_weight: float = Field(0.1, ge=0)
    clip_grad: float | None = Field(None, gt=0)
    precision: Literal["no", "bf16"] = "no"
    compile: bool = False
    checkpoint_activations: bool = False
    cuda_graph: bool | None = None
    eval_every: int = Field(5, ge=1)

    @property
    def learning_rate(self) -> float:
        """lr = base_lr × batch_size / 256."""
        return self.base_lr * self.batch_size / 256

    def share(self, processes: int) -> int:
        """Clips of a batch for each of so many processes.

        Raises:
            ValueError: they do not divide evenly; or several processes, which sum their gradients during the backward
                pass, are to replay it from a graph.
        """
        if self.cuda_graph and processes > 1:
            raise ValueError(f"cuda_graph is for one process, and these are {processes}: set it to null or false")
        if self.batch_size % processes:
            fitting = ", ".join(str(count) for count in range(1, processes) if self.batch_size % count == 0)
            raise ValueError(
                f"batch_size {self.batch_size} does not divide over {processes} processes: start fewer ({fitting})"
            )
        return self.batch_size // processes

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.warmup_epochs >= self.epochs:
            raise ValueError(f"warmup_epochs={self.warmup_epochs} must be fewer than epochs={self.epochs}")
        if self.rec_weight == 0 and self.cls_weight == 0:
            raise ValueError("rec_weight and cls_weight are both 0: there is nothing to train")
        return self


class EvalConfig(Frozen):
    """Test protocol.

    Attributes:
        views: numbers of hard-mask draws to average; each is reported.
        complementary: also report the partition, in which every patch is seen exactly once.
        batch_size, seed: of the evaluation.
    """

    views: tuple[Annotated[int, Field(ge=1)], ...] = (1, 8)
    complementary: bool = True
    batch_size: int = Field(64, ge=1)
    seed: int = Field(0, ge=0)

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if not self.views and not self.complementary:
            raise ValueError("views is empty and complementary is false: there is nothing to score")
        return self


class Weights(Frozen):
    """A VideoMAE checkpoint to initialise an encoder from; :func:`adatosk.pretrained.describe` makes one from a file.

    Attributes:
        path: the file, absolute or relative to the working directory. It may differ between machines, so it is not part
            of the run id.
        sha256: digest of the file's bytes, 64 hex digits. It identifies the file in the run id, and a file with another
            digest is refused.
    """

    path: str = Field(min_length=1)
    sha256: str = Field(pattern="^[0-9a-f]{64}$")


class RunConfig(Frozen):
    """One training run with its evaluation.

    Attributes:
        seed: seeds the weights, the augmentation and the hard masks.
        initial: the run whose final encoder this one starts from, as in pre-training and fine-tuning.
        weights: the VideoMAE checkpoint whose encoder this run starts from. Without ``initial`` and ``weights``, all
            weights are random; setting both is an error.
    """

    what = "run configuration"
    model: ModelConfig
    data: DataConfig
    train: TrainConfig
    evaluation: EvalConfig = EvalConfig()
    seed: int = Field(0, ge=0)
    initial: "RunConfig | None" = None
    weights: Weights | None = None

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.initial is not None and self.weights is not None:
            raise ValueError("initial and weights both say what the run starts from: set one of them to null")
        return self

    def run_id(self, manifest_digest: str) -> str:
        """First 12 hex digits of the SHA-256 of this configuration and the manifest's digest."""
        text = json.dumps([_identity(self.model_dump(mode="json")), manifest_digest], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:12]


# Options added after the first runs were published, with the value those runs had. An option at that value is left out
# of the run id, so that adding an option does not rename existing runs.
_YOUNGER = (
    (("model", "soft_mask", "activation"), "normed"),
    (("model", "soft_mask", "scaling"), "min_max"),
    (("model", "soft_mask", "baseline"), "none"),
    (("model", "soft_mask", "exclusion"), "redundant"),
    (("weights",), None),
    (("train", "checkpoint_activations"), False),
    (("train", "cuda_graph"), None),
)


def _identity(run: dict) -> dict:
    """What a dumped run's id is made of: no ``_YOUNGER`` option at its first value, no checkpoint path."""
    for (*path, name), first in _YOUNGER:
        part: Any = run
        for key in path:
            part = part and part[key]
        if part and part[name] == first:
            del part[name]
    if "weights" in run:
        run = run | {"weights": run["weights"]["sha256"]}
    return run | {"initial": run["initial"] and _identity(run["initial"])}
