"""Executed notebooks, finished: their links lead somewhere from where they lie, and a cell's text is one output."""

import itertools
import re

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from adatosk.experiments.executed import finish
from adatosk.utils.project import PROJECT, PUBLISHED

EXECUTED = sorted((PUBLISHED / "demo" / "notebooks").glob("*.ipynb"))


def test_links_lead_where_those_of_the_source_do_and_texts_are_whole(tmp_path):
    (tmp_path / "notebooks").mkdir()
    unfinished, executed = tmp_path / "a.unfinished.ipynb", tmp_path / "outputs" / "demo" / "notebooks" / "a.ipynb"
    text = "[all](../README.md), [part](../docs/a.md#part), [b](b.ipynb), [web](https://a.org/../b), ../README.md"
    said = [new_output("stream", name="stdout", text=part) for part in ("19", " clips\n")]
    aside = new_output("stream", name="stderr", text="aside")
    cells = [new_markdown_cell(text), new_code_cell("../README.md", outputs=[*said, aside])]
    nbformat.write(new_notebook(cells=cells), unfinished)
    finish(unfinished, executed, tmp_path / "notebooks")
    prose, code = nbformat.read(executed, 4).cells
    moved = "[all](../../../README.md), [part](../../../docs/a.md#part)"
    assert prose.source == f"{moved}, [b](b.ipynb), [web](https://a.org/../b), ../README.md"
    assert code.source == "../README.md"
    assert [(output.name, output.text) for output in code.outputs] == [("stdout", "19 clips\n"), ("stderr", "aside")]
    assert not unfinished.exists()
    assert [path.name for path in executed.parent.iterdir()] == ["a.ipynb"]


@pytest.mark.parametrize("path", [*EXECUTED, *sorted((PROJECT / "notebooks").glob("*.ipynb"))], ids=str)
def test_links_into_the_project_lead_to_a_file(path):
    prose = [cell.source for cell in nbformat.read(path, 4).cells if cell.cell_type == "markdown"]
    links = [link for text in prose for link in re.findall(r"\]\(([^)\s#]+)", text) if "://" not in link]
    assert links
    assert not [link for link in links if not (path.parent / link).exists()]


@pytest.mark.parametrize("path", [*EXECUTED, *sorted((PROJECT / "notebooks").glob("*.ipynb"))], ids=str)
def test_what_a_cell_prints_is_stored_as_one_text(path):
    for cell in nbformat.read(path, 4).cells:
        kinds = [output.get("name", output.output_type) for output in cell.get("outputs", [])]
        assert not [pair for pair in itertools.pairwise(kinds) if pair == ("stdout", "stdout")]
