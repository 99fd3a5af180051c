"""The notebooks' form. That their checked cells still hold is nbval's part: ``pytest --nbval-lax notebooks``."""

import ast
import copy
import json
import re
from pathlib import Path

import nbformat
import papermill
import pytest
from nbconvert.preprocessors import ClearMetadataPreprocessor

from adatosk.experiments import grid
from adatosk.experiments.notebooks import NUMBERED, NotebookCard, notebook_cards, parameter_names, smoke_notice
from adatosk.experiments.paper_vs_ours import REFERENCE
from adatosk.utils.project import PROJECT

NOTEBOOKS = PROJECT / "notebooks"
PATHS = sorted(NOTEBOOKS.glob(NUMBERED))
CHECKED = "nbval-check-output"
WIDGET_VIEW, WIDGET_STATE = (f"application/vnd.jupyter.widget-{part}+json" for part in ("view", "state"))
LAPTOP = 116  # characters of a line of output on a screen 1,366 pixels wide
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


SAVES = {"save_table": ("tables/{}.csv",), "save_figure": ("figures/{}.png", "figures/{}.pdf")}


def text_of_name(node: ast.expr) -> str:
    """A name's text, with an f-string's parts in braces."""
    return ast.literal_eval(node) if isinstance(node, ast.Constant) else ast.unparse(node)[2:-1]


def saved_in_code(path: Path) -> tuple[list[str], list[str]]:
    """What the code saves: in any case, and under a condition."""
    found = ([], [])
    for cell in code_cells(path):
        for statement in ast.parse(cell.source).body:
            for node in ast.walk(statement):
                if isinstance(node, ast.Call) and getattr(node.func, "attr", "") in SAVES:
                    name = text_of_name(node.args[1])
                    conditional = isinstance(statement, ast.If)
                    found[conditional].extend(pattern.format(name) for pattern in SAVES[node.func.attr])
    return found


@every_notebook
def test_it_declares_what_it_saves(path):
    card = NotebookCard.read(path)
    always, rendered = saved_in_code(path)
    assert sorted(card.outputs) == sorted(always)
    assert sorted(card.rendered_outputs) == sorted(rendered)


@every_notebook
def test_its_first_cell_names_its_outputs(path):
    first = nbformat.read(path, 4).cells[0].source.replace("<dataset>", "{dataset}")
    declared = NotebookCard.read(path)
    for file in (*declared.outputs, *declared.rendered_outputs):
        assert file.endswith(".pdf") or f"`{file}`" in first


def test_no_file_is_of_two_notebooks():
    files = [file for card in notebook_cards(NOTEBOOKS).values() for file in card.files()]
    assert len(files) == len(set(files))


@every_notebook
def test_the_workflow_finds_the_parameters_that_papermill_finds(path):
    assert parameter_names(path) == set(papermill.inspect_notebook(str(path)))


@every_notebook
def test_what_reads_runs_can_train_them_and_says_so(path):
    """All but 03, which trains in any case."""
    card, cells = NotebookCard.read(path), code_cells(path)
    reads = bool(card.tables or card.weights)
    values = names_assigned(cells[0].source)
    assert ("train_missing" in values) == (reads and path.stem != "03_training")
    calls = [node for cell in cells for node in ast.walk(ast.parse(cell.source)) if isinstance(node, ast.Call)]
    (opening,) = [ast.unparse(call) for call in calls if getattr(call.func, "id", "") == "open_workspace"]
    if "train_missing" in values:
        assert values["train_missing"] is False and ", train_missing" in opening
    assert ("train_missing=True" in opening) == (path.stem == "03_training")


@every_notebook
def test_it_declares_the_tables_whose_runs_it_asks_for(path):
    """Every table that its code names, as ``grid.table1``, by its key, or by the tables of the paper's numbers."""
    declared = set(NotebookCard.read(path).tables)
    nodes = [node for cell in code_cells(path) for node in ast.walk(ast.parse(cell.source))]
    named = {getattr(node, "attr", getattr(node, "id", getattr(node, "value", None))) for node in nodes
             if isinstance(node, (ast.Attribute, ast.Name, ast.Constant))}  # fmt: skip
    reads = {"run_rows", "runs"} & named
    tables = {name for name in grid.TABLES if name in named} | (set(REFERENCE) if "REFERENCE" in named else set())
    if tables & {"open_readings", "activation_map"}:
        tables |= {"table3"}  # what is changed is compared with its rows
    assert declared == (tables if reads and "run_rows" in named else set())


def test_notebook_metadata_survives_being_executed_in_place():
    (target,) = re.findall(r"^notebooks:.*?\n\n", (PROJECT / "Makefile").read_text(), re.MULTILINE | re.DOTALL)
    (mask,) = re.findall(r"preserve_nb_metadata_mask='(.*?)'", target)
    keep = ClearMetadataPreprocessor(enabled=True, preserve_nb_metadata_mask=set(ast.literal_eval(mask)))
    for path in PATHS:
        notebook = nbformat.read(path, 4)
        declared = copy.deepcopy(notebook.metadata["adatosk"])
        notebook.metadata["papermill"] = {"duration": 3}
        kept, _ = keep.preprocess(notebook, {})
        assert kept.metadata["adatosk"] == declared and "papermill" not in kept.metadata


@pytest.mark.parametrize(
    ("card", "said"),
    [
        (None, "its metadata has no 'adatosk'"),
        ({"target": "all"}, "target"),
        ({"target": "reproduce", "tables": ["table9"]}, "unknown table table9"),
        ({"target": "reproduce", "output": []}, "output"),
    ],
)
def test_a_declaration_that_is_missing_or_wrong_names_the_notebook(card, said, tmp_path):
    path = tmp_path / "13_new.ipynb"
    path.write_text(json.dumps({"cells": [], "metadata": {"adatosk": card} if card else {}}))
    with pytest.raises(ValueError, match=f"13_new.ipynb: .*(?s:.*){said}"):
        NotebookCard.read(path)


def test_files_are_named_after_the_data_set():
    card = NotebookCard(target="reproduce", outputs=("tables/a_{dataset}.csv",), rendered_outputs=("figures/b.png",))
    assert card.files() == ["tables/a_embedded.csv", "figures/b.png"]
    assert card.files("mafw") == ["tables/a_mafw.csv"]


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


@every_notebook
def test_no_number_is_a_negative_zero(path):
    texts = [text_of(output) for cell in code_cells(path) for output in cell.outputs]
    assert not [found for text in texts for found in re.findall(r"(?<![\w.])[-−]0\.0+(?!\d)", text)]


@every_notebook
def test_printed_lines_fit_beside_the_files_on_a_laptop(path):
    """JupyterLab breaks longer ones anywhere, inside words too."""
    printed = [output.text for cell in code_cells(path) for output in cell.outputs if output.output_type == "stream"]
    assert not [line for text in printed for line in text.splitlines() if len(line) > LAPTOP]


@every_notebook
def test_controls_are_stored_with_their_state_and_a_picture(path):
    """So that they show without a kernel; a progress bar is no control, and is not stored."""
    stored = nbformat.read(path, 4).metadata.get("widgets", {}).get(WIDGET_STATE, {}).get("state", {})
    for cell in code_cells(path):
        views = [output.data[WIDGET_VIEW] for output in cell.outputs if WIDGET_VIEW in output.get("data", {})]
        if views:
            assert [view["model_id"] in stored for view in views] == [True]
            assert "image/png" in cell.outputs[-1].data and "explore" in cell.source


@every_notebook
def test_it_links_its_neighbours_at_both_ends(path):
    place = PATHS.index(path)
    before, after = PATHS[max(place - 1, 0) : place], PATHS[place + 1 : place + 2]
    names = [other.name for other in (*before, NOTEBOOKS / "index.ipynb", *after)]
    cells = [cell.source for cell in nbformat.read(path, 4).cells]
    for line in (cells[0].split("\n\n")[1], cells[-1].split("\n\n")[-1]):
        assert re.findall(r"\]\((.*?)\)", line) == names


# The quickstart runs the trained weights that ship, whatever the profile.
@pytest.mark.parametrize("path", PATHS[1:], ids=lambda path: path.stem)
def test_on_profile_smoke_it_says_so_on_top(path):
    second = code_cells(path)[1]
    assert [node for node in ast.walk(ast.parse(second.source)) if getattr(node, "id", "") == "smoke_notice"]
    assert f'smoke_notice(profile, "{path.stem}"' in second.source.splitlines()[-1]
    assert f"results/demo/notebooks/{path.name}" in text_of(second.outputs[0])


def test_the_line_on_top_is_for_profile_smoke_alone_and_links_what_there_is():
    assert smoke_notice("demo", "04_evaluation") is None
    assert "below mean nothing.<" in smoke_notice("smoke", "04_evaluation").data
    sound = smoke_notice("smoke", "11_paper_vs_ours", sound="costs and published results")
    assert "below mean nothing, except costs and published results.<" in sound.data
    assert "mean nothing" not in smoke_notice("smoke", "05_efficiency", trains=False).data
    assert "href" not in smoke_notice("smoke", "99_nothing").data


def test_the_index_has_a_row_a_notebook_with_its_question_cost_and_picture():
    index = nbformat.read(NOTEBOOKS / "index.ipynb", 4)
    # Otherwise JupyterLab adds it, and the index is modified by being opened.
    assert index.metadata.language_info == nbformat.read(PATHS[0], 4).metadata.language_info
    (cell,) = index.cells
    rows = [line.split(" | ") for line in cell.source.splitlines() if line.startswith("| [")]
    assert [re.findall(r"\]\((.*?)\)", row[0])[0] for row in rows] == [path.name for path in PATHS]
    for _, question, seconds, executed, picture in rows:
        assert question.endswith((".", "?")) and int(seconds) > 0
        for target in (*re.findall(r"\]\((.*?)\)", executed), *re.findall(r'src="(.*?)"', picture)):
            assert (NOTEBOOKS / target).is_file(), target


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
    # As the kernel calls itself: another name, and opening the notebook in JupyterLab marks it as modified.
    assert notebook.metadata.kernelspec.display_name == "Python 3 (ipykernel)"
    assert "papermill" not in notebook.metadata
    assert not any({"papermill", "execution"} & set(cell.metadata) for cell in notebook.cells)


def test_they_stay_small():
    assert sum(path.stat().st_size for path in PATHS) < 12_000_000
