"""Finish an executed notebook, so that it reads well where it lies.

``python -m adatosk.experiments.executed UNFINISHED EXECUTED`` takes papermill's result. Its links are relative to the
folder of its source, and text that a cell printed in several parts is stored as several outputs.
"""

import os
import re
import sys
from pathlib import Path

from adatosk.utils.files import replacing
from adatosk.utils.project import PROJECT

_LINK = re.compile(r"(?<=\]\()\.\./[^)\s]+")


def finish(unfinished: Path, executed: Path, source: Path = PROJECT / "notebooks") -> None:
    """Move a notebook to its place, with each cell's text in one output, and links that lead where the source's do.

    Args:
        unfinished: what papermill wrote; removed.
        executed: where it belongs. Links to other notebooks stay, since these are there as well.
        source: the folder to which the links outside it are relative.
    """
    import nbformat
    from nbconvert.preprocessors.coalescestreams import CoalesceStreamsPreprocessor

    notebook, _ = CoalesceStreamsPreprocessor().preprocess(nbformat.read(unfinished, 4), {})
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            cell.source = _LINK.sub(lambda link: moved(link.group(), source, executed.parent), cell.source)
    with replacing(executed) as part:
        nbformat.write(notebook, part)
    unfinished.unlink()


def moved(link: str, source: Path, target: Path) -> str:
    """A link, with or without an anchor, relative to one folder, as one relative to another."""
    path, anchor, name = link.partition("#")
    return Path(os.path.relpath(source.resolve() / path, target.resolve())).as_posix() + anchor + name


if __name__ == "__main__":
    finish(*map(Path, sys.argv[1:]))
