"""From the official folders of a data set to a checked manifest.

>>> manifest = build("dfew", "/data/DFEW")                     # doctest: +SKIP
>>> verify(manifest, load_card("dfew"), "/data/DFEW")          # doctest: +SKIP

The authors provide the sets on request or for download; the project contains only counts and digests. A manifest of
the user's own videos is built by :func:`from_csv`.
"""

from collections.abc import Callable
from pathlib import Path

from adatosk.datasets.base import DataSet, LayoutError, build_set
from adatosk.datasets.cards import Card, expectations, load_card, verify
from adatosk.datasets.cremad import CREMA_D
from adatosk.datasets.dfew import DFEW
from adatosk.datasets.ferv39k import FERV39K
from adatosk.datasets.mafw import MAFW
from adatosk.datasets.own import assign_folds, from_csv, run_on
from adatosk.datasets.ravdess import RAVDESS
from adatosk.manifests import Manifest, ManifestError

DATASETS: dict[str, DataSet] = {entry.name: entry for entry in (DFEW, FERV39K, MAFW, CREMA_D, RAVDESS)}


def build(name: str, root: str | Path, media: str | None = None, report: Callable[[str], None] = print) -> Manifest:
    """Build the manifest of a data set from its folder.

    Args:
        name: ``dfew``, ``ferv39k``, ``mafw``, ``crema_d`` or ``ravdess``.
        root: the set's folder; the lists and clips may also be one or two folders deeper.
        media: which of the set's forms to use, such as ``faces`` or ``clips`` of MAFW; by default the first found.
        report: called with the layout that was found and the number of missing clips.

    Raises:
        LayoutError: the folder does not contain the set; the message shows the expected tree.
        ManifestError: a list is damaged; the message names file and line.
    """
    if name not in DATASETS:
        raise ManifestError(
            f"unknown data set '{name}': choose one of {', '.join(DATASETS)}, or use from_csv for your own"
        )
    return build_set(DATASETS[name], root, media, report)
