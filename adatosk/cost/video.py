"""How fast a whole video is classified, compared with clip by clip: ``adatosk benchmark --video``.

It renders a video of its own, and writes ``results/benchmark/<device>-video.csv``.
"""

import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import torch

from adatosk.clips.sliding import sliding_clips
from adatosk.config import ModelConfig
from adatosk.cost.models import RESULTS, write_table
from adatosk.model import AdaTosk
from adatosk.onednn import through_onednn
from adatosk.predict import predict
from adatosk.predict_over_time import predict_over_time
from adatosk.synthetic import BENCHMARKS, encode, render, sample_script
from adatosk.utils.provenance import provenance
from adatosk.video import open_stream

HEIGHT, WIDTH, FPS = 720, 1280, 25
FACE = 256  # side of the head in pixels
EVERY = 0.5  # seconds between clips
WARM_UP = 3  # seconds of an untimed video before it
PLAIN = "clip by clip"


def film(seconds: int) -> Iterator[np.ndarray]:
    """Frames of a 720p video: a rendered head in front of a wall, with the noise of a camera, uint8 ``(H, W, 3)``."""
    config = BENCHMARKS["embedded-demo"].model_copy(update={"size": FACE})
    head = render(sample_script(config, "test", 0), config)
    head = np.concatenate([head, head[::-1]])  # there and back, since it is repeated
    generator = np.random.default_rng(0)
    wall = cv2.resize(generator.integers(80, 170, (6, 8, 3), dtype=np.uint8), (WIDTH, HEIGHT))
    noise = generator.integers(-4, 5, (8, HEIGHT, WIDTH, 3), dtype=np.int16)
    top, left = (HEIGHT - FACE) // 2, (WIDTH - FACE) // 2
    for number in range(seconds * FPS):
        frame = wall.astype(np.int16)
        frame[top : top + FACE, left : left + FACE] = head[number % len(head)]
        yield (frame + noise[number % len(noise)]).clip(0, 255).astype(np.uint8)


def clip_by_clip(path: Path, model: AdaTosk) -> np.ndarray:
    """The plain way: each clip is decoded, searched for the face and classified alone: ``(clips, classes)``."""
    starts = sliding_clips(open_stream(path), model.config.frames, 4, EVERY)[:, 0].tolist()
    found = [predict(path, model, views=1, start=start) for start in starts]
    return np.array([list(one.probabilities.values()) for one in found])


def compare(config: ModelConfig, seconds: int, device: torch.device | str = "cpu") -> pd.DataFrame:
    """Time both ways on a device, with random weights, one view, and a clip every half second.

    Returns:
        one row per way, ``clip by clip`` first: ``precision``, ``video_seconds``, ``clips``, ``seconds`` and
        ``cpu_seconds`` that it took, ``speed_up`` over the first row, ``times_real_time``, how many seconds of video it
        classifies in one, and ``largest_difference`` of a probability from the first row.
    """
    torch.manual_seed(0)
    model = AdaTosk(config).eval().to(device)
    plain = through_onednn(AdaTosk(config).eval().to(device))
    plain.load_state_dict(model.state_dict())
    ways: dict[tuple[str, str], Callable[[Path], np.ndarray]] = {
        (PLAIN, "fp32"): lambda path: clip_by_clip(path, plain)
    }
    for precision in ("fp32", "bf16"):
        ways["over time", precision] = lambda path, precision=precision: (
            predict_over_time(path, model, EVERY, precision=precision).probabilities
        )
    rows, first = [], np.empty(0)
    with tempfile.TemporaryDirectory() as folder:
        path, short = Path(folder) / "whole.mp4", Path(folder) / "short.mp4"
        encode(film(seconds), path, FPS)
        encode(film(WARM_UP), short, FPS)
        for (way, precision), run in ways.items():
            run(short)
            wall, cpu = time.perf_counter(), time.process_time()
            found = run(path)
            wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
            first = first if rows else found
            difference = float(np.abs(found - first).max())
            rows.append((way, precision, seconds, len(found), wall, cpu, seconds / wall, difference))
    names = ("way", "precision", "video_seconds", "clips", "seconds", "cpu_seconds", "times_real_time")
    table = pd.DataFrame(rows, columns=[*names, "largest_difference"])
    return table.assign(speed_up=table["seconds"][0] / table["seconds"], **provenance(device))


def record(config: ModelConfig, seconds: int = 60, folder: Path = RESULTS, device: torch.device | str = "cpu") -> Path:
    """Time both ways, print the result and write the table; returns its path."""
    folder.mkdir(parents=True, exist_ok=True)  # before the work
    table = compare(config, seconds, device)
    print(table.loc[:, "way":"speed_up"].to_string(index=False, float_format="{:.3g}".format))
    return write_table(table, folder, "-video")
