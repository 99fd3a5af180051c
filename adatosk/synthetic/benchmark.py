"""The embedded benchmark: rendered clips of facial expressions whose key moments and moving regions are known.

Each clip shows one person (:mod:`adatosk.synthetic.people`) whose expression rises (onset), holds (apex) and falls
(offset) somewhere inside the clip, beside a weak second expression, head motion, blinks, talking and sensor noise
(:mod:`adatosk.synthetic.scripts`). Clips are written as H.264 files, so they are read like any other video.
"""

import zlib
from collections.abc import Iterable, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields
from fractions import Fraction
from functools import cached_property, partial
from io import BytesIO
from pathlib import Path
from zipfile import BadZipFile

import av
import cv2
import numpy as np
import pandas as pd
from tqdm.auto import tqdm

from adatosk.manifests import Manifest
from adatosk.synthetic import faces, people
from adatosk.synthetic.action_units import REGIONS, UNIT_NAMES
from adatosk.synthetic.people import Identity, Scene
from adatosk.synthetic.scripts import (
    BenchmarkConfig,
    ClipScript,
    Phases,
    Split,
    clip_generator,
    clip_headline,
    clip_id,
    sample_script,
)
from adatosk.utils.files import is_part, replacing, sweep, write_json
from adatosk.utils.limits import limits_named
from adatosk.utils.parallel import WorkerPool, available_cores
from adatosk.utils.strict import parse_json
from adatosk.video import read_clip


@dataclass(frozen=True, eq=False)
class GroundTruth:
    """The ground truth of one clip of T frames.

    Attributes:
        onset, apex_start, apex_end, offset: frames of the expression; all -1 in a neutral clip, which has none, and in
            lifelike motion, where it lasts throughout.
        action_units: ``(T, 15)`` float32, the expression alone, 0 outside onset .. offset; order as ``unit_names``.
        distraction: ``(T, 15)`` float32, the second, weak expression.
        blink, talk: ``(T,)`` float32 in [0, 1]; of lifelike speech, the unit that it moves most.
        regions: ``(T, 7, 4)`` float32, boxes x0, y0, x1, y1 in [0, 1] in the order of ``region_names``.
        unit_names, region_names: names of the columns.
    """

    onset: int
    apex_start: int
    apex_end: int
    offset: int
    action_units: np.ndarray
    distraction: np.ndarray
    blink: np.ndarray
    talk: np.ndarray
    regions: np.ndarray
    unit_names: tuple[str, ...] = UNIT_NAMES
    region_names: tuple[str, ...] = REGIONS

    @cached_property
    def active(self) -> np.ndarray:
        """Frames in which the expression shows, bool ``(T,)``."""
        return self.action_units.max(1) > 0


def render(script: ClipScript, config: BenchmarkConfig) -> np.ndarray:
    """Frames of a clip, RGB uint8 ``(T, H, W, 3)``."""
    identity = sample_identity(config, script.identity)
    rng = clip_generator(config, script.split, script.index, 2)
    scene = Scene(_background(config, rng), *script.light)
    frames = faces.draw_faces(identity, script.motion, scene)
    return _add_noise(frames, config.noise, rng) if config.noise else frames


def sample_identity(config: BenchmarkConfig, number: int) -> Identity:
    """The person with this number; train has numbers below ``train_identities``, test those after."""
    return people.sample_identity(clip_generator(config, "identity", number), config.identity_spread)


def _background(config: BenchmarkConfig, rng: np.random.Generator) -> np.ndarray:
    """A blurred wall, uint8 ``(2S, 2S, 3)``."""
    grey = rng.uniform(70, 190) + config.clutter * rng.uniform(-60, 60, (5, 5, 1))
    coarse = grey + rng.uniform(-25, 25, 3) + config.clutter * rng.uniform(-40, 40, (5, 5, 3))
    side = faces.SUPERSAMPLE * config.size
    wall = cv2.resize(coarse.astype(np.float32), (side, side), interpolation=cv2.INTER_CUBIC)
    return wall.clip(0, 255).astype(np.uint8)


def _add_noise(frames: np.ndarray, sigma: float, rng: np.random.Generator) -> np.ndarray:
    size = frames.shape[1]
    # One large tile, cropped at a random position for each frame, looks like fresh noise at a fraction of its cost.
    tile = np.round(sigma * rng.standard_normal((2 * size, 2 * size, 3), np.float32)).astype(np.int16)
    noisy = np.empty_like(frames)
    for frame, out, (top, left) in zip(frames, noisy, rng.integers(0, size, (len(frames), 2)), strict=True):
        out[:] = (frame + tile[top : top + size, left : left + size]).clip(0, 255)
    return noisy


def ground_truth(script: ClipScript, config: BenchmarkConfig) -> GroundTruth:
    """What is known about a clip."""
    phases = script.phases or Phases(-1, (-1, -1), -1)
    return GroundTruth(
        onset=phases.onset,
        apex_start=phases.apex[0],
        apex_end=phases.apex[1],
        offset=phases.offset,
        action_units=script.expression.astype(np.float32),
        distraction=script.distraction.astype(np.float32),
        blink=script.motion.blink.astype(np.float32),
        talk=(script.motion.talk + script.speech.max(1)).astype(np.float32),
        regions=faces.region_boxes(sample_identity(config, script.identity), script.motion.pose),
    )


def build_manifest(config: BenchmarkConfig) -> Manifest:
    """The manifest of a benchmark, without rendering anything."""
    rows = []
    for split, index in _clips(config):
        label, identity, frames = clip_headline(config, split, index)
        name = clip_id(config, split, index)
        rows.append((f"videos/{name}.mp4", name, label, pd.NA, split, frames, f"person_{identity:04d}"))
    clips = pd.DataFrame(rows, columns=["path", "id", "label", "fold", "split", "frames", "subject"])
    return Manifest(config.name, config.version, config.classes, clips.astype({"fold": "Int64"}))


def _clips(config: BenchmarkConfig) -> list[tuple[Split, int]]:
    return [(split, index) for split in ("train", "test") for index in range(config.count(split))]


def write_benchmark(
    config: BenchmarkConfig, root: str | Path, workers: int | None = None, progress: bool = True
) -> Manifest:
    """Render a benchmark: ``videos/<id>.mp4``, ``truth/<id>.npz``, ``benchmark.json``, ``manifest.csv`` under ``root``.

    Existing clips are kept, so that the next call resumes an interrupted one. Only one call at a time may write to a
    folder. With several workers, a script must guard its entry point with ``if __name__ == "__main__":``.

    Args:
        workers: number of processes; all cores by default, and 1 renders in this process.
        progress: show a progress bar.

    Raises:
        ValueError: ``root`` contains another benchmark, or other files.
        LimitError: a process was killed, or memory ran out.
    """
    root = Path(root)
    _claim(config, root)
    missing = [key for key in _clips(config) if not _is_there(root, clip_id(config, *key))]
    # A process takes a second to start, so it must have enough work.
    workers = min(workers or available_cores(), 1 + len(missing) // 16)
    bar = tqdm(total=len(missing), desc=f"rendering {config.name}", unit="clip", disable=not progress or not missing)
    with bar, limits_named(), _mapper(workers) as mapper:
        for _ in mapper(partial(_write_clip, config, root), missing):
            bar.update()
    manifest = build_manifest(config)
    manifest.save(root / "manifest.csv")
    return manifest


@contextmanager
def _mapper(workers: int):
    """A ``map`` over this process or over several."""
    if workers == 1:
        yield map
        return
    # One clip at a time, since Ctrl-C waits for what each process has begun.
    with WorkerPool(workers, _one_thread) as pool:
        yield pool.map


def _one_thread() -> None:
    cv2.setNumThreads(1)


def check_folder(root: str | Path, name: str) -> None:
    """Raise ``ValueError`` if a folder contains anything other than a complete or partial rendered benchmark."""
    root = Path(root)
    if not root.is_dir() or (root / "benchmark.json").is_file():
        return
    others = [path.name for path in root.iterdir() if path.name != ".lock" and not is_part(path)]
    if others:
        raise ValueError(
            f"{root}: holds other files ({min(others)}); the benchmark '{name}' is rendered into a folder of its own"
        )


def _claim(config: BenchmarkConfig, root: Path) -> None:
    """Write ``benchmark.json`` or compare it with an existing one, and remove leftovers of killed processes."""
    check_folder(root, config.name)
    path = root / "benchmark.json"
    if path.is_file():
        found = _digest_in(path)
        if found != config.digest:
            raise ValueError(
                f"{root} holds another benchmark (digest {found}, this is {config.digest}): give another folder, "
                "or delete this one"
            )
    else:
        write_json(path, {"digest": config.digest, "config": config.model_dump(mode="json")})
    sweep(root, root / "truth", root / "videos")


def _digest_in(path: Path) -> str:
    try:
        return parse_json(path.read_bytes())["digest"]
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(
            f"{path}: damaged: delete the folder {path.parent}, and the benchmark is rendered again"
        ) from error


def _video_path(root: Path, name: str) -> Path:
    return root / "videos" / f"{name}.mp4"


def _truth_path(root: Path, name: str) -> Path:
    return root / "truth" / f"{name}.npz"


def _is_there(root: Path, name: str) -> bool:
    return _video_path(root, name).is_file() and _truth_path(root, name).is_file()


def _write_clip(config: BenchmarkConfig, root: Path, key: tuple[Split, int]) -> None:
    script = sample_script(config, *key)
    truth = ground_truth(script, config)
    values = {field.name: getattr(truth, field.name) for field in fields(truth)}
    # The truth comes first: a clip counts as complete when its video is there.
    # Not tidily: the folders have thousands of files, and whoever renders sweeps them.
    with replacing(_truth_path(root, script.id), tidy=False) as part, part.open("wb") as file:
        np.savez_compressed(file, **values)
    with replacing(_video_path(root, script.id), tidy=False) as part:
        encode(render(script, config), part, config.fps, config.crf)


def encode(frames: Iterable[np.ndarray], path: str | Path, fps: int | Fraction = 25, crf: int = 18) -> None:
    """Write RGB frames uint8 ``(H, W, 3)``, H and W even, as an H.264 video; the same frames give the same file."""
    # In memory, because FFmpeg's own errors about a disk are less specific.
    video = BytesIO()
    with av.open(video, "w", format="mp4") as container:
        # x264's result depends on the number of threads; and with its lookahead, one clip in eight came out otherwise
        # in another process.
        settled = "threads=1:rc-lookahead=0:mbtree=0"
        options = {"crf": str(crf), "preset": "veryfast", "x264-params": settled}
        stream = container.add_stream("libx264", rate=fps, options=options)
        stream.pix_fmt = "yuv420p"
        stream.codec_context.thread_count = 1
        for number, frame in enumerate(frames):
            if number == 0:
                stream.height, stream.width = frame.shape[:2]
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())
    Path(path).write_bytes(video.getbuffer())


def write_film(clips: Sequence[str | Path], film: Path, frames: int = 64, size: int = 96, fps: int = 25) -> None:
    """Write the middle of some clips, one after the other, as one video: to show an expression that changes.

    Args:
        clips: video files or folders of frames.
        frames: of each clip; a shorter one repeats some.
        size: side in pixels of the frames' central square.

    Raises:
        VideoError: a clip cannot be read whole.
    """
    parts = (read_clip(path, frames, stride=1, size=size) for path in clips)
    with replacing(film) as part:
        encode((frame for clip in parts for frame in clip), part, fps)


def load_truth(root: str | Path, name: str) -> GroundTruth:
    """Read the ground truth of one clip by its id.

    Raises:
        FileNotFoundError: it is missing; the message says how to create it.
        ValueError: it is damaged.
    """
    path = _truth_path(Path(root), name)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no ground truth; adatosk.synthetic.write_benchmark makes it")
    try:
        with np.load(path, allow_pickle=False) as stored:
            values = {key: stored[key] for key in stored.files}
        for key in ("onset", "apex_start", "apex_end", "offset"):
            values[key] = int(values[key])
        for key in ("unit_names", "region_names"):
            values[key] = tuple(values[key].tolist())
        return GroundTruth(**values)
    except (
        BadZipFile,
        zlib.error,
        ValueError,
        KeyError,
        TypeError,
        EOFError,
        NotImplementedError,
        RuntimeError,
    ) as error:
        said = " ".join(str(error).split())
        raise ValueError(
            f"{path}: damaged ({said}): delete it, and adatosk.synthetic.write_benchmark makes it again"
        ) from error
