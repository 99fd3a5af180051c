"""From the official folders of a data set to a checked manifest.

>>> manifest = build("dfew", "/data/DFEW")                     # doctest: +SKIP
>>> verify(manifest, load_card("dfew"), "/data/DFEW")          # doctest: +SKIP

The sets are given by their authors on request or downloaded from them; the project carries counts and digests only. A
user's own videos become a manifest with :func:`from_csv`.
"""

from collections.abc import Callable
from pathlib import Path

from adatosk.datasets.base import DataSet, LayoutError, build_set
from adatosk.datasets.cards import Card, expectations, load_card, verify
from adatosk.datasets.cremad import CREMA_D
from adatosk.datasets.dfew import DFEW
from adatosk.datasets.ferv39k import FERV39K
from adatosk.datasets.mafw import MAFW
from adatosk.datasets.own import assign_folds, from_csv
from adatosk.datasets.ravdess import RAVDESS
from adatosk.manifests import Manifest, ManifestError

DATASETS: dict[str, DataSet] = {entry.name: entry for entry in (DFEW, FERV39K, MAFW, CREMA_D, RAVDESS)}

__all__ = [
    "DATASETS",
    "Card",
    "LayoutError",
    "assign_folds",
    "build",
    "expectations",
    "from_csv",
    "load_card",
    "verify",
]


def build(name: str, root: str | Path, media: str | None = None, report: Callable[[str], None] = print) -> Manifest:
    """The manifest of a data set as it lies under ``root``.

    Args:
        name: ``dfew``, ``ferv39k``, ``mafw``, ``crema_d`` or ``ravdess``.
        root: the set's folder; the lists and clips may also lie one or two folders deeper.
        media: which of the set's forms to take, such as ``faces`` or ``clips`` of MAFW; by default the first found.
        report: is told which layout was found and how many clips are missing.

    Raises:
        LayoutError: nothing of the set is there; the message shows the expected tree.
        ManifestError: a list that is damaged, with file and line.
    """
    if name not in DATASETS:
        raise ManifestError(
            f"unknown data set '{name}': choose one of {', '.join(DATASETS)}, or use from_csv for your own"
        )
    return build_set(DATASETS[name], root, media, report)
