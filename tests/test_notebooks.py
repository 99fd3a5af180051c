"""The notebooks' form. That their checked cells still hold is nbval's part: ``pytest --nbval-lax notebooks``."""

import ast
import re
from pathlib import Path

import nbformat
import pytest

PROJECT = Path(__file__).resolve().parent.parent
PATHS = sorted((PROJECT / "notebooks").glob("*.ipynb"))
CHECKED = "nbval-check-output"
HEADER_PARTS = ("**From the paper**", "**Inputs:**", "**Outputs:**", "**Cost:**")
ABSOLUTE = re.compile(r"(?<![\w.])/(?:home|root|work|tmp|Users|mnt)/")

every_notebook = pytest.mark.parametrize("path", PATHS, ids=lambda path: path.stem)


def code_cells(path: Path) -> list:
    return [cell for cell in nbformat.read(path, 4).cells if cell.cell_type == "code"]


def tags(cell) -> list[str]:
    return cell.metadata.get("tags", [])


def text_of(output) -> str:
    """All text of an output, HTML included, without pictures."""
    data = {kind: value for kind, value in output.get("data", {}).items() if not kind.startswith("image/")}
    return output.get("text", "") + "".join(str(value) for value in data.values())


def names_assigned(source: str) -> dict[str, object]:
    """Names and values of a cell of plain literals; anything else fails."""
    values = {}
    for statement in ast.parse(source).body:
        assert isinstance(statement, ast.Assign) and isinstance(statement.targets[0], ast.Name), ast.unparse(statement)
        values[statement.targets[0].id] = ast.literal_eval(statement.value)
    return values


def test_they_are_numbered_in_reading_order():
    assert PATHS
    assert [path.stem[:3] for path in PATHS] == [f"{number:02d}_" for number in range(len(PATHS))]


def test_the_workflow_runs_exactly_these():
    tree = (PROJECT / "Snakefile").read_text()
    lists = re.findall(r"^(?:GRID_)?NOTEBOOKS = (\[.*?\])$", tree, re.MULTILINE | re.DOTALL)
    assert sorted(name for names in lists for name in ast.literal_eval(names)) == [path.stem for path in PATHS]


@every_notebook
def test_the_first_cell_says_what_it_makes(path):
    first = nbformat.read(path, 4).cells[0]
    assert first.cell_type == "markdown"
    assert first.source.startswith(f"# {path.stem[:2]} · ")
    assert all(part in first.source for part in HEADER_PARTS)


@every_notebook
def test_parameters_are_literals_and_are_checked(path):
    cells = code_cells(path)
    tagged = [index for index, cell in enumerate(cells) if "parameters" in tags(cell)]
    assert tagged == [0]
    values = names_assigned(cells[0].source)
    assert values["profile"] == "smoke"
    calls = [node for node in ast.walk(ast.parse(cells[1].source)) if isinstance(node, ast.Call)]
    (reading,) = [call for call in calls if getattr(call.func, "id", "") == "read_parameters"]
    assert ast.unparse(reading.args[0]) == "globals()"
    assert {keyword.arg for keyword in reading.keywords} == set(values)


@every_notebook
def test_outputs_are_stored_without_errors_or_noise(path):
    cells = code_cells(path)
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    outputs = [output for cell in cells for output in cell.outputs]
    assert any("image/png" in output.get("data", {}) for output in outputs)
    for output in outputs:
        assert output.output_type != "error"
        assert output.get("name") != "stderr", output.text
        assert not any("widget" in kind for kind in output.get("data", {}))


@every_notebook
def test_at_least_two_cells_check_something(path):
    checked = [cell for cell in code_cells(path) if CHECKED in tags(cell)]
    assert len(checked) >= 2
    for cell in checked:
        assert "".join(text_of(output) for output in cell.outputs).strip(), cell.source
        # A picture differs from one version of a library to the next.
        assert not any("image/png" in output.get("data", {}) for output in cell.outputs)


@every_notebook
def test_cells_are_short_and_only_call(path):
    sources = [cell.source for cell in code_cells(path)]
    lengths = sorted(len(source.splitlines()) for source in sources)
    assert lengths[-1] <= 25
    assert lengths[len(lengths) // 2] <= 8
    for source in sources:
        nodes = list(ast.walk(ast.parse(source)))
        assert not any(isinstance(node, ast.ClassDef) for node in nodes)
        assert "backward(" not in source


@every_notebook
def test_nothing_names_one_machine(path):
    notebook = nbformat.read(path, 4)
    texts = [cell.source for cell in notebook.cells if cell.cell_type == "code"]
    texts += [text_of(output) for cell in code_cells(path) for output in cell.outputs]
    assert not [found for text in texts for found in ABSOLUTE.findall(text)]
    assert notebook.metadata.kernelspec.name == "python3"
    assert "papermill" not in notebook.metadata
    assert not any({"papermill", "execution"} & set(cell.metadata) for cell in notebook.cells)


def test_they_stay_small():
    assert sum(path.stat().st_size for path in PATHS) < 4_000_000
