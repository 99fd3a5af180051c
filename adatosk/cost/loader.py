"""Whether the loader keeps up: clips per second from disk to model input, beside those that training consumes.

``adatosk benchmark --loader`` writes ``results/benchmark/<device>-loader.csv``; ``<device>-loader-process.csv``, what
one of its processes does besides decoding; and, for the figure of the timeline, ``<device>-loader-trace.csv``. The
clips are rendered on the spot, so no data is needed.
"""

import math
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import pandas as pd
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from adatosk.clips import ClipCache, ClipDataset, make_loader, normalise, open_cache
from adatosk.clips.batches import together
from adatosk.clips.loader import AHEAD, Batches
from adatosk.config import RunConfig
from adatosk.cost.contenders import Setup, count_work, prepare
from adatosk.cost.decoding import write_images
from adatosk.cost.models import RESULTS, write_table
from adatosk.cost.timing import time_pair
from adatosk.manifests import Manifest
from adatosk.presets import PROFILES
from adatosk.synthetic import BENCHMARKS, encode, write_benchmark
from adatosk.utils.provenance import provenance
from adatosk.video import decode_all

VIDEO_FILES, FRAME_FOLDERS, CACHE = "video files", "frame folders", "cache"
WORKERS = (0, 1, 2)
# TFLOP/s that one GPU is assumed to sustain in training: 45 % of an H100's 989 in dense bfloat16 products.
GPU_TFLOPS = 445.0
DECODED, FOR_GPU, FOR_CPU = "decoding alone", "frames for a GPU", "cut clips for a CPU"


@dataclass(frozen=True)
class Source:
    """The clips in one storage form.

    Attributes:
        name: ``video files``, ``frame folders`` or ``cache``.
        manifest: lists the clips, with paths relative to ``root``.
        cache: decoded clips, which are read instead of the files; ``None`` decodes.
    """

    name: str
    manifest: Manifest
    root: Path
    cache: ClipCache | None = None


@contextmanager
def rendered(config: RunConfig, side: int) -> Iterator[list[Source]]:
    """The clips of ``embedded-smoke`` as H.264 files and as folders of JPEG images, ``side`` pixels a side, and cached.

    Args:
        config: its ``data.cache_size`` is the cache's size; if that is ``None``, there is no cache.
    """
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        whole = write_benchmark(BENCHMARKS["embedded-smoke"], root / "rendered", workers=1, progress=False)
        clips = whole.clips
        (root / "videos").mkdir()
        for clip in clips.itertuples():
            frames = decode_all(root / "rendered" / clip.path, side)
            encode(frames, root / "videos" / f"{clip.id}.mp4")
            write_images(frames, root / "frames" / clip.id)
        forms = {VIDEO_FILES: "videos/" + clips["id"] + ".mp4", FRAME_FOLDERS: "frames/" + clips["id"]}
        found = [Source(name, replace(whole, clips=clips.assign(path=paths)), root) for name, paths in forms.items()]
        if config.data.cache_size is not None:
            videos = found[0].manifest
            cache = open_cache(videos, root, config.data.cache_size, root / "cache", report=lambda line: None)
            found.append(Source(CACHE, videos, root, cache))
        yield found


class _TimedClips(ClipDataset):
    """Adds to each clip which process loaded it and when, on the clock that all processes share."""

    def __getitem__(self, key: int | tuple[int, int]) -> dict[str, Tensor]:
        began = time.perf_counter()
        item = super().__getitem__(key)
        worker = torch.utils.data.get_worker_info()
        times = torch.tensor([began, time.perf_counter()], dtype=torch.float64)
        return item | {"worker": torch.tensor(-1 if worker is None else worker.id), "loaded": times}


def open_loader(source: Source, config: RunConfig, batch: int, workers: int, rounds: int = 1) -> Batches:
    """The training loader over a source's clips, each ``rounds`` times per epoch."""
    return make_loader(clips_of(_TimedClips, source, config, rounds), batch, workers, shuffle=True, seed=config.seed)


def clips_of(kind: type[ClipDataset], source: Source, config: RunConfig, rounds: int = 1) -> ClipDataset:
    """A source's clips, each ``rounds`` times, with the draws of training."""
    clips = pd.concat([source.manifest.clips] * rounds, ignore_index=True)
    sizes = config.model.frames, config.model.image_size
    return kind(clips, source.root, source.manifest.classes, *sizes, config.data, True, config.seed, source.cache)


def loading_rate(source: Source, config: RunConfig, batch: int, workers: int, rounds: int = 4) -> float:
    """Clips per second from disk to normalised model input, after an epoch in which processes and caches warm up."""
    loader = open_loader(source, config, batch, workers, rounds)
    for _ in loader:
        pass
    start, clips = time.perf_counter(), 0
    for loaded in loader:
        clips += len(normalise(loaded["video"]))
    return clips / (time.perf_counter() - start)


def appetite(config: RunConfig, batch: int) -> float:
    """Clips per second that training steps on this CPU consume when their data is already loaded."""
    step = prepare("adatosk", config.model, Setup("training step", batch))
    return batch / float(time_pair({"step": step})["seconds"].iloc[0])


def loader_table(
    profile: str = "demo", side: int = 96, workers: Sequence[int] = WORKERS, report: Callable[[str], None] = print
) -> pd.DataFrame:
    """Loading rates of a profile's clips beside the rate at which its training step consumes them on this CPU.

    Args:
        profile: determines the model and batch size; the batch is smaller if there are fewer clips.
        side: side of the source's frames, in pixels.
        workers: numbers of loader processes to try.
        report: called with one line per row.

    Returns:
        one row per source and number of workers: ``profile``, ``source``, ``workers``, ``clips_per_second``,
        ``step_clips_per_second`` and ``feeds``, their ratio; and the provenance.
    """
    config, rows = PROFILES[profile], []
    with rendered(config, side) as found:
        batch = min(config.train.batch_size, len(found[0].manifest.clips) // 2)
        eaten = appetite(config, batch)
        for source in found:
            for count in workers:
                rate = loading_rate(source, config, batch, count)
                rows.append((profile, source.name, count, rate, eaten, rate / eaten))
                report(f"{source.name}, {count} workers: {rate:.0f} clips/s, a step eats {eaten:.0f}")
    columns = ["profile", "source", "workers", "clips_per_second", "step_clips_per_second", "feeds"]
    return pd.DataFrame(rows, columns=columns).assign(**provenance())


def node_needs(side: int = 224, gpu_tflops: float = GPU_TFLOPS, report: Callable[[str], None] = print) -> pd.DataFrame:
    """Cores that a node needs to feed one GPU training profile ``paper``, from the loading rate of one core here.

    Args:
        side: side of the source's frames, in pixels; the field's clips have 224.
        gpu_tflops: TFLOP/s that the GPU sustains; with the counted operations of a step, this gives the clips per
            second that it consumes.

    Returns:
        one row per source: like :func:`loader_table` with one process and no workers, ``step_clips_per_second`` being
        the GPU's, and ``cores_per_gpu``.
    """
    config, rows = PROFILES["paper"], []
    eaten = gpu_tflops * 1e12 / (2 * count_work("adatosk", config.model, "training step"))
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with rendered(config, side) as found:
            for source in found:
                rate = loading_rate(source, config, batch=8, workers=0, rounds=1)
                rows.append(("paper", source.name, 0, rate, eaten, rate / eaten, math.ceil(eaten / rate)))
                report(f"{source.name}: {rate:.0f} clips/s a core, {rows[-1][-1]} cores for a GPU at {eaten:.0f}")
    finally:
        torch.set_num_threads(threads)
    columns = ["profile", "source", "workers", "clips_per_second", "step_clips_per_second", "feeds", "cores_per_gpu"]
    return pd.DataFrame(rows, columns=columns).assign(**provenance())


class _DecodedClips(ClipDataset):
    """Decodes each clip and keeps nothing of it."""

    def __getitem__(self, key: int | tuple[int, int]) -> dict[str, Tensor]:
        self.decode(key)
        return {"label": torch.tensor(0)}


def _clocked(items: Sequence[dict[str, Tensor]]) -> dict[str, Tensor]:
    """A batch, with the processor time that its process has used by then."""
    return together(items) | {"clock": torch.tensor(time.process_time(), dtype=torch.float64)}


def process_costs(
    side: int = 256, batch: int = 8, rounds: int = 7, report: Callable[[str], None] = print
) -> pd.DataFrame:
    """Processor time of a loader's process for one clip: for decoding it, and with all that it does besides.

    That is what is drawn, cut, collated and sent, for a GPU and for a CPU. The clips are folders of JPEG images, read
    for the model of profile ``paper`` by one process; in each round, each way in turn reads them all.

    Args:
        side: side of the images, in pixels.
        batch: clips per batch.

    Returns:
        one row per way: ``way``, ``milliseconds``, the median over all batches but each round's first, and ``ratio``,
        the median over the rounds of their median relative to that of decoding alone; ``side``, ``batch``, and the
        provenance.
    """
    config = PROFILES["paper"]
    times: dict[str, list[pd.Series]] = {name: [] for name in (DECODED, FOR_GPU, FOR_CPU)}
    with rendered(config, side) as found:
        source = next(one for one in found if one.name == FRAME_FOLDERS)
        whole = clips_of(ClipDataset, source, config, 4)
        ways = {
            DECODED: clips_of(_DecodedClips, source, config, 4),
            FOR_GPU: whole.left_uncut(AHEAD + 1),
            FOR_CPU: whole,
        }
        for number in range(rounds):
            for name, dataset in ways.items():
                keys = [(number, index) for index in range(len(dataset))]
                options = {"num_workers": 1, "prefetch_factor": AHEAD, "collate_fn": _clocked, "drop_last": True}
                loader = DataLoader(dataset, batch, sampler=keys, **options)
                clocks = pd.Series([float(loaded["clock"]) for loaded in loader])
                times[name].append(clocks.diff().iloc[AHEAD + 2 :] / batch * 1000)
    medians = {name: pd.Series([one.median() for one in taken]) for name, taken in times.items()}
    rows = [
        (name, pd.concat(taken).median(), (medians[name] / medians[DECODED]).median()) for name, taken in times.items()
    ]
    for name, milliseconds, ratio in rows:
        report(f"{name}: {milliseconds:.2f} ms a clip, {ratio:.2f} times decoding")
    table = pd.DataFrame(rows, columns=["way", "milliseconds", "ratio"])
    return table.assign(side=side, batch=batch, rounds=rounds, **provenance("cpu"))


def trace(
    source: Source, config: RunConfig, batch: int, workers: Sequence[int] = (0, 2), steps: int = 4
) -> pd.DataFrame:
    """Timeline of loading clips, waiting for them, and computing, for a few steps after two that are not recorded.

    Returns:
        one row per span: ``workers``, ``lane`` (``training``, ``loading`` in the same process, ``loader 1`` …),
        ``what`` (``wait``, ``step``, ``load``), ``start`` and ``end`` in seconds since the first step's wait began.
    """
    rows = []
    for count in workers:
        step = prepare("adatosk", config.model, Setup("training step", batch))
        # The processes prefetch this many batches: when these are consumed, it is known when they were loaded.
        taken = steps + 2 + AHEAD * count
        rounds = math.ceil((taken + 1) * batch / len(source.manifest.clips))
        loader = open_loader(source, config, batch, count, rounds)
        batches, spans, origin, last = iter(loader), [], 0.0, math.inf
        for number in range(taken):
            began = time.perf_counter()
            origin = began if number == 2 else origin
            last = began if number == steps + 2 else last
            loaded = next(batches)
            normalise(loaded["video"])
            ready = time.perf_counter()
            step()
            spans += [("training", "wait", began, ready), ("training", "step", ready, time.perf_counter())]
            lanes = ["loading" if worker < 0 else f"loader {worker + 1}" for worker in loaded["worker"].tolist()]
            spans += [(lane, "load", *times) for lane, times in zip(lanes, loaded["loaded"].tolist(), strict=True)]
        # Stop the processes before the next ones start.
        del batches, loader
        shown = [span for span in spans if span[3] > origin and span[2] < last]
        rows += [(count, lane, what, a - origin, b - origin) for lane, what, a, b in shown]
    return pd.DataFrame(rows, columns=["workers", "lane", "what", "start", "end"])


def demo_trace(batch: int = 16) -> pd.DataFrame:
    """:func:`trace` of profile ``demo`` reading video files, where there is something to overlap; with provenance."""
    config = PROFILES["demo"].change(data={"cache_size": None})
    with rendered(config, side=96) as found:
        return trace(found[0], config, batch).assign(**provenance())


def record(gpu_tflops: float = GPU_TFLOPS, folder: Path = RESULTS) -> list[Path]:
    """Measure and write the tables and the trace of the loader; returns their paths."""
    table = pd.concat([loader_table(), node_needs(gpu_tflops=gpu_tflops)], ignore_index=True)
    return [
        write_table(table, folder, "-loader"),
        write_table(process_costs(), folder, "-loader-process"),
        write_table(demo_trace(), folder, "-loader-trace"),
    ]
