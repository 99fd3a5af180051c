"""The clips of a run: where they are, whether they are there, and the embedded benchmark, which is rendered."""

from pathlib import Path

from adatosk.config import RunConfig
from adatosk.synthetic import BENCHMARKS, check_folder, write_benchmark
from adatosk.utils.files import locked
from adatosk.utils.project import PROJECT


def data_root(config: RunConfig, root: str | Path | None = None) -> Path:
    """The folder of a run's clips: ``root``, or ``data/<manifest's file name>`` in the project."""
    return Path(root) if root else PROJECT / "data" / Path(config.data.manifest).stem


def check_data(config: RunConfig, root: Path) -> None:
    """Check that a run's clips are in ``root`` or, for the embedded benchmark, can be rendered into it.

    Only the project's own folder is created: a mistyped one would be filled with rendered clips.

    Raises:
        FileNotFoundError: naming the missing folder.
        ValueError: naming a folder that contains something other than the benchmark.
    """
    name, own = Path(config.data.manifest).stem, data_root(config)
    if root.is_dir():
        if name in BENCHMARKS:
            check_folder(root, name)
    elif name not in BENCHMARKS:
        raise FileNotFoundError(f"{root}: no such folder; pass the folder of your copy of '{name}' as root")
    elif root.resolve() != own.resolve():
        raise FileNotFoundError(
            f"{root}: no such folder; create it to render '{name}' there, or use the project's {own}"
        )


def prepare_data(config: RunConfig, root: Path) -> None:
    """Render the embedded benchmark if a run needs it; other data must exist already; see :func:`check_data`."""
    check_data(config, root)
    name = Path(config.data.manifest).stem
    if name in BENCHMARKS:
        root.mkdir(parents=True, exist_ok=True)
        with locked(root / ".lock"):
            write_benchmark(BENCHMARKS[name], root)
