"""What becomes part of the repository: outputs copied to ``results/``, and the pages that are computed from them."""

import filecmp
import shutil
from collections.abc import Iterator
from pathlib import Path

from adatosk.experiments.comparison import compare, retrained
from adatosk.experiments.report import headline_block, results_block, update_page, write_tables
from adatosk.experiments.shipping import ship
from adatosk.utils.files import replacing
from adatosk.utils.project import OUTPUTS, PROJECT, PUBLISHED
from adatosk.workspace import RUN_FILES, Run

# The profile that the pages report.
SHOWN = "demo"
_FOLDERS = {"tables": "*.csv", "figures": "*.p[nd][gf]", "notebooks": "*.ipynb"}


def publish(profile: str, published: Path = PUBLISHED, outputs: Path = OUTPUTS, project: Path = PROJECT) -> list[Path]:
    """Copy a profile's finished runs, tables, figures and executed notebooks to ``results/``, and update the pages.

    A published run whose numbers are equal to those here keeps its files, which say where they were first computed.
    Of weights, only the pair's are published, see :func:`adatosk.experiments.shipping.ship`.

    Returns:
        the files that were written.

    Raises:
        FileNotFoundError, ValueError: see :func:`adatosk.experiments.report.headline_runs` and ``update_page``.
    """
    write_tables(profile, outputs / profile)
    written = []
    for path in _to_publish(profile, published, outputs):
        target = published / path.relative_to(outputs)
        if not (target.is_file() and filecmp.cmp(path, target, shallow=False)):
            with replacing(target) as part:
                shutil.copyfile(path, part)
            written.append(target)
    if profile == SHOWN:
        written += ship(published, outputs)
        for page, block in (("RESULTS.md", results_block), ("README.md", headline_block)):
            if update_page(project / page, block(profile, published / profile)):
                written.append(project / page)
    return written


def _to_publish(profile: str, published: Path, outputs: Path) -> Iterator[Path]:
    found = compare(profile, published, outputs)
    same = set(found["where"]) - set(found.loc[found["published"] != found["here"], "where"])
    trained = {here.folder.name for _, here in retrained(profile, published, outputs)}
    source = outputs / profile
    yield from source.glob("runs.csv")
    for folder in sorted((source / "runs").glob("*")):
        new = Run(folder).finished and not Run(published / profile / "runs" / folder.name).finished
        if new or folder.name in trained - same:
            yield from (folder / name for name in RUN_FILES)
    for name, pattern in _FOLDERS.items():
        yield from sorted((source / name).glob(pattern))
