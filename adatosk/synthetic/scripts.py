"""The embedded benchmark's configuration, and the scripts drawn from it, which say what happens in each clip.

Every script depends only on the configuration, the split and the index, and not on the order in which they are drawn.
"""

import hashlib
import json
from dataclasses import dataclass
from typing import Any, Literal, Self

import numpy as np
from pydantic import Field, model_validator

from adatosk.config import Frozen
from adatosk.synthetic import lifelike
from adatosk.synthetic.action_units import CLASS_UNITS, CLASSES_7, UNITS
from adatosk.synthetic.people import Motion, rise_and_fall

# Incremented when the drawing changes, so that clips of an older drawing are not mistaken for new ones.
DRAWING = 1

Split = Literal["train", "test"]
Range = tuple[float, float]
_STREAMS = {"train": 0, "test": 1, "identity": 2}


class BenchmarkConfig(Frozen):
    """What is rendered and how hard it is; ranges are (low, high), drawn uniformly per clip.

    Attributes:
        name, version, seed: the benchmark's name and what all randomness derives from.
        classes: keys of ``CLASS_UNITS``; clip ``index`` shows class ``index mod len(classes)``, which balances them.
        train_clips, test_clips: number of clips.
        train_identities, test_identities: number of people; no one is in both splits.
        size, frames, fps, crf: side in pixels, number of frames, frames per second, H.264 quality (lower is better).
        motion: ``sparse``, in which the expression rises, holds and falls once and the face rests otherwise; or
            ``lifelike``, in which it is there throughout, swells and wavers beside speech
            (:mod:`adatosk.synthetic.lifelike`).
        expression_intensity: intensity of the expression at its apex, in [0, 1]; like the next three, of sparse motion.
        unit_variation: how much weaker than the others a single action unit may be, in [0, 1].
        ramp: onset and offset duration, as shares of the clip.
        hold: apex duration, as a share of the clip.
        distractor_intensity: apex intensity of the second expression, in [0, 1]; (0, 0) for none.
        head_motion: 1 is up to 6 % of the frame, 10 % of the size, 10° of roll and 20° of yaw each way.
        lighting: 0 even, 1 a strong light from one side.
        clutter: 0 plain background, 1 strong coloured blobs.
        talking: largest mouth opening while talking, in [0, 1]; in lifelike motion, the strength of speech.
        blinks: mean number of blinks in a clip.
        noise: standard deviation of the sensor noise, in grey levels of 255.
        identity_spread: how far people differ; 0 is one face shape and skin, only hair, eyes and shirt vary in colour.
    """

    name: str = "embedded"
    version: str = "1"
    seed: int = Field(2025, ge=0)
    classes: tuple[str, ...] = CLASSES_7
    train_clips: int = Field(2100, ge=0)
    test_clips: int = Field(560, ge=0)
    train_identities: int = Field(300, ge=1)
    test_identities: int = Field(80, ge=1)
    size: int = Field(96, ge=32, multiple_of=2)
    frames: tuple[int, int] = (64, 72)
    motion: Literal["sparse", "lifelike"] = "sparse"
    fps: int = Field(25, ge=1)
    crf: int = Field(18, ge=0, le=51)
    expression_intensity: Range = (0.8, 1.0)
    unit_variation: float = Field(0.2, ge=0, le=1)
    ramp: Range = (0.08, 0.14)
    hold: Range = (0.25, 0.45)
    distractor_intensity: Range = (0.0, 0.2)
    zoom: float = Field(1.25, ge=0.5, le=2)
    head_motion: float = Field(0.2, ge=0)
    lighting: float = Field(0.3, ge=0, le=1)
    clutter: float = Field(0.3, ge=0, le=1)
    talking: float = Field(0.3, ge=0, le=1)
    blinks: float = Field(1.0, ge=0)
    noise: float = Field(1.0, ge=0)
    identity_spread: float = Field(0.5, ge=0)

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        unknown = set(self.classes) - set(CLASS_UNITS)
        if unknown or len(set(self.classes)) != len(self.classes):
            raise ValueError(f"classes must be different names out of {', '.join(CLASS_UNITS)}; got {self.classes}")
        for name in ("frames", "expression_intensity", "ramp", "hold", "distractor_intensity"):
            low, high = getattr(self, name)
            if not 0 <= low <= high or (name != "frames" and high > 1):
                raise ValueError(
                    f"{name}=({low}, {high}) is not a range (low, high)" + " in [0, 1]" * (name != "frames")
                )
        if self.frames[0] < 16:
            raise ValueError(f"frames={self.frames}: an expression needs at least 16 frames")
        if 2 * self.ramp[1] + self.hold[1] > 0.9:
            raise ValueError(
                f"2 · ramp + hold may reach {2 * self.ramp[1] + self.hold[1]:.2f} of the clip: at most 0.9"
            )
        return self

    @property
    def digest(self) -> str:
        """SHA-256 of the configuration and of the drawing's version, 16 hex digits."""
        values = self.model_dump(mode="json")
        if self.motion == "sparse":  # the only motion there was when the first clips were named
            del values["motion"]
        text = json.dumps([DRAWING, values], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def count(self, split: Split) -> int:
        """Number of clips of a split."""
        return self.train_clips if split == "train" else self.test_clips


# Longer clips and a head that moves more, as befits people who speak.
_LIFELIKE: dict[str, Any] = {
    "motion": "lifelike",
    "frames": (60, 160),
    "distractor_intensity": (0.0, 0.0),
    "talking": 0.6,
    "head_motion": 0.4,
    "blinks": 2.0,
}

BENCHMARKS = {
    "embedded-smoke": BenchmarkConfig(
        name="embedded-smoke", train_clips=28, test_clips=14, train_identities=14, test_identities=7
    ),
    "embedded-demo": BenchmarkConfig(name="embedded-demo"),
    "embedded-demo-lifelike": BenchmarkConfig(name="embedded-demo-lifelike", **_LIFELIKE),
    # The same people doing the same, in as many pixels as the paper's 196 patches take if each has 8 x 8.
    "embedded-geometry": BenchmarkConfig(name="embedded-geometry", size=112, **_LIFELIKE),
}


@dataclass(frozen=True)
class Phases:
    """Frames of one expression: rises from ``onset``, holds from ``apex[0]`` to ``apex[1]``, is gone at ``offset``."""

    onset: int
    apex: tuple[int, int]
    offset: int

    def envelope(self, frames: int) -> np.ndarray:
        """Strength ``(frames,)``: 0 up to ``onset``, smoothly to 1 at the apex, 0 from ``offset`` on."""
        return rise_and_fall(np.arange(frames), (self.onset, *self.apex, self.offset))


@dataclass(frozen=True, eq=False, kw_only=True)
class Acting:
    """What the face shows in a clip of T frames.

    Attributes:
        expression: ``(T, 15)`` intensities of the action units of the clip's class.
        distraction: ``(T, 15)``, those of a second, weak expression.
        speech: ``(T, 15)``, those that speech moves; 0 in sparse motion, where the mouth only opens.
        tremor: ``(T, 15)``, small movements of all units; 0 in sparse motion.
        phases, distractor_phases: the timing of both expressions; ``None`` where there is none, and in lifelike motion,
            where the expression lasts throughout.
        distractor: class of the second expression, or ``None``.
    """

    expression: np.ndarray
    distraction: np.ndarray
    speech: np.ndarray
    tremor: np.ndarray
    phases: Phases | None = None
    distractor: str | None = None
    distractor_phases: Phases | None = None

    @property
    def action_units(self) -> np.ndarray:
        """``(T, 15)``: everything together, at most 1."""
        return (self.expression + self.distraction + self.speech + self.tremor).clip(0, 1)


@dataclass(frozen=True, eq=False, kw_only=True)
class ClipScript(Acting):
    """Everything that happens in one clip, before a pixel is drawn.

    Attributes:
        id, split, index, label: which clip, and the class it shows.
        identity: number of the person.
        frames: T.
        motion: input of the drawing: action units, pose, blinks and talking.
        light: direction in radians and strength.
    """

    id: str
    split: Split
    index: int
    label: str
    identity: int
    frames: int
    motion: Motion
    light: tuple[float, float]


def clip_id(config: BenchmarkConfig, split: Split, index: int) -> str:
    """Name of a clip, as in ``4728d5_test_00012``.

    The configuration's digest leads, since a manifest's digest, and with it every run's id, is made of ids and labels:
    without it, results of an easier benchmark would be taken for those of a harder one.
    """
    return f"{config.digest[:6]}_{split}_{index:05d}"


def clip_generator(config: BenchmarkConfig, stream: str, number: int, purpose: int = 0) -> np.random.Generator:
    return np.random.default_rng(np.random.SeedSequence(config.seed, spawn_key=(_STREAMS[stream], number, purpose)))


def sample_script(config: BenchmarkConfig, split: Split, index: int) -> ClipScript:
    """Draw what happens in clip ``index`` of a split; the same arguments always give the same script."""
    if not 0 <= index < config.count(split):
        raise IndexError(f"clip {index} of {config.count(split)} {split} clips")
    label, identity, frames = clip_headline(config, split, index)
    rng = clip_generator(config, split, index, 1)
    act = _act_sparsely if config.motion == "sparse" else _act_lifelike
    acting = act(config, rng, label, frames)
    motion = Motion(
        action_units=acting.action_units,
        pose=_sample_pose(config, rng, frames),
        blink=_sample_blinks(config, rng, frames),
        # In lifelike motion, action units open the mouth.
        talk=_sample_talk(config, rng, frames) if config.motion == "sparse" else np.zeros(frames),
    )
    return ClipScript(
        **vars(acting),
        id=clip_id(config, split, index),
        split=split,
        index=index,
        label=label,
        identity=identity,
        frames=frames,
        motion=motion,
        light=(rng.uniform(-np.pi, 0), config.lighting * rng.uniform(0.3, 1)),
    )


def _act_sparsely(config: BenchmarkConfig, rng: np.random.Generator, label: str, frames: int) -> Acting:
    phases = _sample_phases(config, rng, frames)
    distractor, distractor_phases = _sample_distractor(config, rng, frames, label, phases)
    still = np.zeros((frames, len(UNITS)))
    return Acting(
        expression=_intensities(config, rng, label, config.expression_intensity, phases, frames),
        distraction=_intensities(config, rng, distractor, config.distractor_intensity, distractor_phases, frames),
        speech=still,
        tremor=still,
        phases=phases if CLASS_UNITS[label] else None,
        distractor=distractor,
        distractor_phases=distractor_phases,
    )


def _act_lifelike(config: BenchmarkConfig, rng: np.random.Generator, label: str, frames: int) -> Acting:
    return Acting(
        expression=lifelike.sample_expression(rng, label, frames, config.fps),
        distraction=np.zeros((frames, len(UNITS))),
        speech=lifelike.sample_speech(rng, config.talking, frames, config.fps),
        tremor=lifelike.sample_tremor(rng, frames, config.fps),
    )


def clip_headline(config: BenchmarkConfig, split: Split, index: int) -> tuple[str, int, int]:
    """Label, identity and length of a clip: what the manifest needs."""
    rng = clip_generator(config, split, index)
    people = config.train_identities if split == "train" else config.test_identities
    first = 0 if split == "train" else config.train_identities
    identity = first + int(rng.integers(people))
    return (
        config.classes[index % len(config.classes)],
        identity,
        int(rng.integers(config.frames[0], config.frames[1] + 1)),
    )


def _sample_phases(config: BenchmarkConfig, rng: np.random.Generator, frames: int) -> Phases:
    shares = [rng.uniform(*config.ramp), rng.uniform(*config.hold), rng.uniform(*config.ramp)]
    rise, hold, fall = (max(2, round(share * frames)) for share in shares)
    onset = int(rng.integers(1, max(2, frames - rise - hold - fall)))
    return Phases(onset, (onset + rise, onset + rise + hold), onset + rise + hold + fall)


def _sample_distractor(config, rng, frames, label, phases) -> tuple[str | None, Phases | None]:
    """A second expression in the longer of the two gaps before and after the first; none where intensity is 0."""
    others = [name for name in config.classes if name != label and CLASS_UNITS[name]]
    name = others[rng.integers(len(others))] if others else None
    start, stop = max((0, phases.onset), (phases.offset, frames - 1), key=lambda gap: gap[1] - gap[0])
    third = min(stop - start, round(0.35 * frames)) // 3
    onset = int(rng.integers(start, stop - 3 * third + 1))
    if name is None or not third or not config.distractor_intensity[1]:
        return None, None
    return name, Phases(onset, (onset + third, onset + 2 * third), onset + 3 * third)


def _intensities(config, rng, label, intensity, phases, frames) -> np.ndarray:
    """Action units ``(T, 15)`` of one expression; no unit exceeds the drawn intensity."""
    peak = rng.uniform(*intensity) * (1 - config.unit_variation * rng.random(len(UNITS)))
    weights = np.array([CLASS_UNITS.get(label, {}).get(unit, 0) for unit in UNITS])
    envelope = phases.envelope(frames) if phases else np.zeros(frames)
    return envelope[:, None] * (peak * weights)


def _sample_pose(config: BenchmarkConfig, rng: np.random.Generator, frames: int) -> np.ndarray:
    """Slow head motion ``(T, 6)``: an offset and two waves of at most 1.5 periods a clip."""
    reach = config.head_motion * np.array([0.06, 0.05, 0.1, 0.17, 0.35, 0.25])
    time = np.linspace(0, 2 * np.pi, frames)[:, None, None]
    waves = np.sin(time * rng.uniform(0.3, 1.5, (2, len(reach))) + rng.uniform(0, 2 * np.pi, (2, len(reach))))
    share = rng.uniform(-0.4, 0.4, len(reach)) + (waves * rng.uniform(0.1, 0.3, (2, len(reach)))).sum(1)
    return reach * share + np.array([0, 0, config.zoom, 0, 0, 0])


def _sample_blinks(config: BenchmarkConfig, rng: np.random.Generator, frames: int) -> np.ndarray:
    """Eyelids ``(T,)``: each blink closes and opens within about a quarter of a second."""
    middles = rng.uniform(0, frames, rng.poisson(config.blinks))
    distance = np.abs(np.arange(frames)[:, None] - middles[None]).min(1, initial=frames)
    return (1.3 - distance / 2.5).clip(0, 1)


def _sample_talk(config: BenchmarkConfig, rng: np.random.Generator, frames: int) -> np.ndarray:
    """Mouth opening ``(T,)``: one burst of syllables somewhere in the clip."""
    amount, length = config.talking * rng.random(), frames * rng.uniform(0.2, 0.5)
    time = np.arange(frames)
    burst = (1.5 - np.abs(time - rng.uniform(0, frames)) / length * 3).clip(0, 1)
    syllables = np.sin(2 * np.pi * rng.uniform(2, 4) * time / config.fps + rng.uniform(0, 2 * np.pi))
    return amount * burst * syllables.clip(0)
