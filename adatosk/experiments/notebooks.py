"""What each notebook reads and writes, as declared in its metadata: the source for the workflow and the tests.

And the line on top of those that run on profile ``smoke``.
"""

import ast
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Self

from pydantic import ValidationError, field_validator

from adatosk.config import Frozen
from adatosk.experiments.grid import TABLES
from adatosk.utils.project import PROJECT, PUBLISHED
from adatosk.utils.strict import parse_json
from adatosk.workspace.parameters import names_assigned

if TYPE_CHECKING:
    from IPython.display import HTML

# The numbered ones; the index beside them has no code.
NUMBERED = "[0-9]*.ipynb"


class NotebookCard(Frozen):
    """A notebook's declaration, under ``adatosk`` in its metadata.

    Attributes:
        target: the make target that executes it.
        tables: tables of :data:`adatosk.experiments.grid.TABLES` whose runs' scores it reads.
        weights: the weights it reads: the pair's with the first seed (``headline``), those that are also scored in
            other ways (``weighed``), or none.
        trains: whether it trains models of the profile that are no runs of the grid.
        outputs: files that it writes under ``outputs/<profile>/``; ``{dataset}`` stands for its parameter of that name.
        rendered_outputs: additional files that it writes for the embedded benchmark, whose ground truth is known.
    """

    target: Literal["reproduce", "reproduce-all"]
    tables: tuple[str, ...] = ()
    weights: Literal["headline", "weighed"] | None = None
    trains: bool = False
    outputs: tuple[str, ...] = ()
    rendered_outputs: tuple[str, ...] = ()

    @field_validator("tables")
    @classmethod
    def _known(cls, tables: tuple[str, ...]) -> tuple[str, ...]:
        if unknown := set(tables) - set(TABLES):
            raise ValueError(f"unknown table {', '.join(sorted(unknown))}: choose {', '.join(TABLES)}")
        return tables

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read a notebook's declaration; ``ValueError`` names a notebook without a valid one."""
        try:
            return cls.model_validate(_notebook(path)["metadata"]["adatosk"])
        except KeyError as error:
            raise ValueError(f"{path}: its metadata has no 'adatosk', which declares what it writes") from error
        except ValidationError as error:
            raise ValueError(f"{path}: metadata 'adatosk': {error}") from error

    @property
    def computes(self) -> bool:
        """Whether it runs models of the profile itself, so that its job needs a GPU where runs do."""
        return self.trains or self.weights is not None

    def files(self, dataset: str | None = None) -> list[str]:
        """The files it writes, for a real data set's name or, by default, for the embedded benchmark."""
        rendered = self.rendered_outputs if dataset is None else ()
        return [path.format(dataset=dataset or "embedded") for path in (*self.outputs, *rendered)]


def _notebook(path: Path) -> dict:
    try:
        return parse_json(path.read_bytes())
    except ValueError as error:
        raise ValueError(f"{path}: no notebook: {error}") from error


def parameter_names(path: Path) -> set[str]:
    """The names that a notebook assigns as its parameters; papermill finds the same, but takes seconds to import."""
    cells = _notebook(path)["cells"]
    code = "".join("".join(cell["source"]) for cell in cells if "parameters" in cell["metadata"].get("tags", ()))
    return {name for statement in ast.parse(code).body for name in names_assigned(statement)}


def notebook_cards(folder: Path) -> dict[str, NotebookCard]:
    """The declarations of a folder's notebooks by name, in reading order."""
    return {path.stem: NotebookCard.read(path) for path in sorted(folder.glob(NUMBERED))}


def smoke_notice(profile: str, notebook: str, trains: bool = True, sound: str = "") -> "HTML | None":
    """What to know before reading a notebook on profile ``smoke``, with a link to it executed on ``demo``.

    Args:
        notebook: its own name, without the suffix.
        trains: whether it shows what a trained model does.
        sound: what of its scores and verdicts holds nevertheless, because it does not come from such a model.

    Returns:
        a line to display; ``None`` on other profiles.
    """
    if profile != "smoke":
        return None
    from IPython.display import HTML

    said = "Profile <code>smoke</code> uses a few dozen clips, so that everything runs in seconds."
    if trains:
        exception = f", except {sound}" if sound else ""
        said += f" Its models have learned nothing: <b>scores, masks and verdicts below mean nothing{exception}.</b>"
    executed = PUBLISHED / "demo" / "notebooks" / f"{notebook}.ipynb"
    if executed.is_file():
        where = f"../{executed.relative_to(PROJECT).as_posix()}"
        there = "has the numbers that count" if trains else "is about the whole benchmark"
        said += f' <a href="{where}">The same notebook on profile <code>demo</code></a> {there}.'
    look = "padding: 0.5em 1em; border-left: 5px solid #de8f05; background: #fdf1dc; color: #222"
    return HTML(f'<div style="{look}">{said}</div>')
