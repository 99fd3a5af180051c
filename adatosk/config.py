"""Frozen, validated configurations; their presets are in :mod:`adatosk.presets`.

A run is a function of one :class:`RunConfig` and one manifest. Where data, caches and results lie on a machine is not
part of it, so the same run has the same id everywhere.
"""

import hashlib
import json
from collections.abc import Collection
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from adatosk.utils.strict import parse_json

# What a configuration may name: frame distances (Eq. 4, Table 4), and semantic scores (Eq. 11, Table 3), with whether
# each uses the accumulated score M. adatosk.soft_mask implements them, and adds those that users register there.
FRAME_DISTANCES = {"l1", "l2", "cosine", "classification"}
SEMANTIC_SCORES = {"A+M": True, "M": True, "A": False, "none": False}


def _named(kind: str, known: Collection[str]) -> AfterValidator:
    def check(name: str) -> str:
        if name not in known:
            raise ValueError(f"unknown {kind} '{name}': choose {', '.join(sorted(known))}")
        return name

    return AfterValidator(check)


Distance = Annotated[str, _named("frame distance", FRAME_DISTANCES)]
Semantic = Annotated[str, _named("semantic score", SEMANTIC_SCORES)]
SoftmaxAxis = Literal["clip", "token", "time", "channel"]
HeadNorm = Literal["layer", "batch"]
Activation = Literal["normed", "raw", "scored", "detached", "shuffled"]
Scaling = Literal["min_max", "constant", "frame", "mean"]
Baseline = Literal["none", "uniform", "pixels", "attention", "active"]

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

# exp(2 / temperature), the range of a transition's affinities, has to stay within float32.
MIN_TEMPERATURE = 0.025


# PyTorch accepts no larger seed, and its counters are 64-bit.
LARGEST = 2**63 - 1


class Frozen(BaseModel):
    """A configuration that cannot be changed, only copied with changes; unknown fields are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True, allow_inf_nan=False)
    what: ClassVar[str] = "configuration"

    @model_validator(mode="after")
    def _countable(self) -> Self:
        for name, value in self:
            for part in value if isinstance(value, tuple) else (value,):
                if isinstance(part, int) and abs(part) > LARGEST:
                    raise ValueError(f"{name} has an integer beyond {LARGEST}: choose a smaller one")
        return self

    # pydantic's models are no dataclasses; theirs would only say that the instance is frozen.
    def __setattr__(self, name: str, value: Any) -> None:  # pyrefly: ignore[bad-class-definition]
        if name not in type(self).model_fields:
            known = ", ".join(type(self).model_fields)
            raise AttributeError(f"{type(self).__name__} has no field '{name}': it has {known}")
        raise AttributeError(
            f"a {type(self).__name__} cannot be changed, only copied with changes: say "
            f"options = options.change({name}={value!r})"
        )

    def change(self, **parts: Any) -> Self:
        """A validated copy with fields changed, as in ``run.change(model={"soft_mask": {"top_k": 2}}, seed=1)``.

        Dicts are merged into the current value, anything else replaces it; ``ValueError`` for an unknown field.
        """
        return type(self).model_validate(_merge(self.model_dump(), parts))

    @classmethod
    def read(cls, path: str | Path) -> Self:
        """Read a JSON file; ``ValueError`` names the file and every field that is wrong."""
        path = Path(path)
        if not path.is_file():
            raise FileNotFoundError(f"{path}: no such {cls.what} file")
        content = path.read_bytes().removeprefix(b"\xef\xbb\xbf")
        try:
            found = cls.model_validate_json(content)
            parse_json(content)  # for what pydantic overlooks
            return found
        except ValidationError as error:
            faults = [f"{'.'.join(map(str, one['loc'])) or 'all'}: {one['msg']}" for one in error.errors()]
            raise ValueError(f"{path}: not a valid {cls.what}: {'; '.join(faults)}") from error
        except ValueError as error:
            raise ValueError(f"{path}: not a valid {cls.what}: {error}") from error


class SoftMaskConfig(Frozen):
    """The adaptive temporal soft mask (section 3.2); each field is one ambiguity of the paper or one row of Tables 2
    to 4.

    Attributes:
        agnostic: use the class-agnostic mask S^agnostic (Eq. 4 to 7).
        semantic: scores in the class-semantic mask (Eq. 11, Table 3): both, M alone, A alone, no such mask, or one
            registered with :func:`adatosk.soft_mask.semantic_score`.
        top_k: active frames K, of the n_t - 1 frame differences (Eq. 5).
        distance: frame distance (Eq. 4, Table 4), or one registered with :func:`adatosk.soft_mask.frame_distance`.
        gate: Eq. 6 as written (``literal``), or its weights scaled by D so that their mean is 1.
        gate_reduction: μ, the reduction ratio of the gate's MLP (Eq. 6).
        axis: what the softmax of Eq. 7 runs over: all visible tokens of the clip, the tokens of a frame, the frames, or
            the channels.
        excluded_per_step: e = t·r tokens excluded per tubelet step (the paper's r = 2 per frame is e = 4).
        score_block: number of encoder blocks before M is computed and tokens are excluded; ``None`` scores the
            encoder's output.
        temperature: τ of the transition's softmax (Eq. 9), on L2-normalised features.
        activation: tokens whose absolute values A sums (Eq. 10): the encoder's output after its last norm (``normed``)
            or before it (``raw``), or those that M is computed from, after ``score_block`` blocks (``scored``). The
            last norm gives all tokens about the same magnitude. Two controls use the output without passing a gradient:
            each token's own (``detached``), or that of another token of the clip (``shuffled``), which keeps the
            weights and takes away what they mean.
        scaling: how Eq. 11 is normalised: by minimum and maximum over the clip (``min_max``); by the same two as
            constants, which pass no gradient (``constant``); by those of each frame (``frame``); or by the clip's mean,
            which leaves no token without weight (``mean``).
        baseline: what weights tokens instead of Eq. 12, for comparison (:mod:`adatosk.soft_mask.baselines`): nothing
            (``uniform``), the change of their pixels, attention, or being in an active frame; ``none`` is the paper's
            mask.
        exclusion: tokens that are excluded: the most redundant ones by M, or any (``random``).
    """

    agnostic: bool = True
    semantic: Semantic = "A+M"
    top_k: int = Field(4, ge=1)
    distance: Distance = "l1"
    gate: Literal["literal", "mean_one"] = "mean_one"
    gate_reduction: int = Field(16, ge=1)
    axis: SoftmaxAxis = "clip"
    excluded_per_step: int = Field(4, ge=0)
    score_block: int | None = Field(7, ge=1)
    temperature: float = Field(0.1, ge=MIN_TEMPERATURE)
    activation: Activation = "normed"
    scaling: Scaling = "min_max"
    baseline: Baseline = "none"
    exclusion: Literal["redundant", "random"] = "redundant"

    @property
    def accumulates(self) -> bool:
        """Whether the accumulative score M is computed at all."""
        return SEMANTIC_SCORES[self.semantic]

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.baseline != "none" and (self.agnostic or self.semantic != "none"):
            raise ValueError(
                f"baseline='{self.baseline}' replaces both masks: set agnostic to false and semantic to 'none'"
            )
        if not self.agnostic and self.semantic == self.baseline == "none":
            raise ValueError(
                "a soft mask without agnostic and without semantic part masks nothing: set soft_mask to null"
            )
        if self.activation == "scored" and self.score_block is None:
            raise ValueError("activation='scored' without score_block is the encoder's output: set it to 'raw'")
        if self.excluded_per_step and not self.accumulates and self.exclusion == "redundant":
            raise ValueError(
                f"excluded_per_step={self.excluded_per_step} ranks tokens by M, which semantic='{self.semantic}' does "
                "not compute: set excluded_per_step to 0, semantic to 'A+M' or 'M', or exclusion to 'random'"
            )
        return self


class ModelConfig(Frozen):
    """Architecture (sections 3.1 and 4.1); the defaults are the paper's ViT-B/16 on 16 frames of 224².

    Attributes:
        classes: class names; the index of a logit is the name's place here.
        frames, image_size: T and H = W of a clip, in frames and pixels.
        tubelet, patch_size: t frames by h = w pixels make one token.
        width, depth, heads, mlp_ratio: the encoder.
        decoder_width, decoder_depth, decoder_heads: the decoder ("512-dim", one layer in the paper).
        mask_ratio: ρ, the share of patch positions that the hard mask hides.
        head_norm: how the pooled feature is normalised before the two-layer head (Eq. 13): ``layer``, or ``batch``,
            which uses its running statistics in evaluation, so that a clip's scores never depend on its batch.
        soft_mask: the temporal soft mask, or ``None`` for the row of Table 1 without it.
        normalise_target: reconstruct patches normalised to zero mean and unit variance, as VideoMAE does.
    """

    what = "model configuration"
    classes: tuple[str, ...] = ("happy", "sad", "neutral", "angry", "surprise", "disgust", "fear")
    frames: int = Field(16, ge=2)
    image_size: int = Field(224, ge=8)
    tubelet: int = Field(2, ge=1)
    patch_size: int = Field(16, ge=2)
    width: int = Field(768, ge=4)
    depth: int = Field(12, ge=1)
    heads: int = Field(12, ge=1)
    mlp_ratio: float = Field(4.0, gt=0)
    decoder_width: int = Field(512, ge=4)
    decoder_depth: int = Field(1, ge=1)
    decoder_heads: int = Field(16, ge=1)
    mask_ratio: float = Field(0.7, ge=0, lt=1)
    head_norm: HeadNorm = "layer"
    soft_mask: SoftMaskConfig | None = SoftMaskConfig()
    normalise_target: bool = True

    @property
    def steps(self) -> int:
        """n_t, temporal positions of a clip."""
        return self.frames // self.tubelet

    @property
    def grid(self) -> int:
        """Patches along one side of a frame."""
        return self.image_size // self.patch_size

    @property
    def patches(self) -> int:
        """N_s, patch positions of a frame."""
        return self.grid**2

    @property
    def visible_patches(self) -> int:
        """n_s = floor(N_s (1 - ρ))."""
        return visible_count(self.patches, self.mask_ratio)

    @property
    def required_soft_mask(self) -> SoftMaskConfig:
        """The soft mask, for what makes no sense without one; ValueError where it is ``None``."""
        if self.soft_mask is None:
            raise ValueError("this model has no soft mask: choose one whose soft_mask is not null")
        return self.soft_mask

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        for whole, part, what in (
            (self.image_size, self.patch_size, "image_size {} is not a multiple of patch_size {}"),
            (self.frames, self.tubelet, "frames {} is not a multiple of tubelet {}"),
            (self.width, self.heads, "width {} is not a multiple of heads {}"),
            (self.decoder_width, self.decoder_heads, "decoder_width {} is not a multiple of decoder_heads {}"),
        ):
            if whole % part:
                raise ValueError(what.format(whole, part))
        if len(set(self.classes)) != len(self.classes) or len(self.classes) < 2:
            raise ValueError(f"classes must be at least two different names, got {self.classes}")
        if self.visible_patches < 1:
            raise ValueError(f"mask_ratio {self.mask_ratio} leaves none of {self.patches} patches visible")
        if self.soft_mask is not None:
            self._check_soft_mask(self.soft_mask)
        return self

    def _check_soft_mask(self, mask: SoftMaskConfig) -> None:
        if mask.agnostic and mask.top_k > self.steps - 1:
            raise ValueError(f"top_k={mask.top_k} exceeds the {self.steps - 1} frame differences of {self.steps} steps")
        if mask.score_block is not None and mask.score_block > self.depth:
            raise ValueError(f"score_block={mask.score_block} lies beyond the encoder's {self.depth} blocks")
        if mask.agnostic and self.width < mask.gate_reduction:
            raise ValueError(f"gate_reduction={mask.gate_reduction} narrows width {self.width} to nothing")
        check_exclusion(mask.excluded_per_step, self.steps, self.visible_patches)


def visible_count(patches: int, ratio: float) -> int:
    """n_s = floor(N_s (1 - ρ)): 147, 98 and 58 of 196 patches for ρ = 25, 50 and 70 %."""
    # Rounding first keeps 10 · (1 - 0.7) at 3 instead of 2.9999…
    return int(round(patches * (1 - ratio), 9))


def check_exclusion(excluded_per_step: int, steps: int, visible: int) -> None:
    """Raise ``ValueError`` unless e·n_t < n_s, the paper's r·T < n_s (Table 2's empty cells)."""
    if excluded_per_step * steps >= visible:
        raise ValueError(
            f"excluding {excluded_per_step} tokens at each of {steps} steps needs more than "
            f"{excluded_per_step * steps} visible patches, there are {visible}: "
            f"at most excluded_per_step={(visible - 1) // steps}"
        )


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


def _merge(base: Any, changes: Any) -> Any:
    if not isinstance(base, dict) or not isinstance(changes, dict):
        return changes
    return base | {key: _merge(base.get(key), value) for key, value in changes.items()}
