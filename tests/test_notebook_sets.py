"""Notebook 01 goes from the official folders of each set to a checked manifest, headless."""

from pathlib import Path

import nbformat
import papermill
import pytest
from fakes import make_fake

from adatosk import manifests
from adatosk.datasets import DATASETS
from adatosk.utils.project import PROJECT


def execute(notebook: str, folder: Path, given: dict) -> None:
    """As the workflow does, in a kernel of its own."""
    path = PROJECT / "notebooks" / f"{notebook}.ipynb"
    papermill.execute_notebook(path, folder / "out.ipynb", given, kernel_name="python3", progress_bar=False)


def prepared(name: str, folder: Path) -> dict:
    """A layout of a set, as parameters of notebook 01."""
    root = make_fake(name, folder / "set")
    fold = None if name == "ferv39k" else 1
    return {"dataset": name, "root": str(root), "fold": fold, "manifest_folder": str(folder)}


def test_data_preparation_runs_headless(tmp_path):
    execute("01_data_preparation", tmp_path, prepared("dfew", tmp_path))
    assert manifests.load(tmp_path / "dfew.csv").name == "dfew"


def test_an_unknown_parameter_stops_the_run_that_papermill_only_warns_about(tmp_path):
    with pytest.raises(papermill.PapermillExecutionError, match="unknown parameter profil: this notebook has"):
        execute("05_efficiency", tmp_path, {"profil": "demo"})


def run_cells(namespace: dict) -> list:
    """Run the code cells of notebook 01 in this process, as Jupyter would; gives back what they displayed."""
    shown = []
    namespace |= {"__name__": "__main__", "display": shown.append}
    cells = nbformat.read(PROJECT / "notebooks" / "01_data_preparation.ipynb", 4).cells
    first, *rest = [cell.source for cell in cells if cell.cell_type == "code"]
    given = {name: value for name, value in namespace.items() if name not in ("__name__", "display")}
    exec(first, namespace)
    namespace |= given
    try:
        for source in rest:
            exec(source, namespace)
    finally:
        namespace["shown_tables"] = shown
    return shown


@pytest.mark.parametrize("name", list(DATASETS))
def test_data_preparation_runs_on_the_layout_of_each_set(name, tmp_path):
    run_cells(prepared(name, tmp_path))
    assert manifests.load(tmp_path / f"{name}.csv").name == name


@pytest.mark.parametrize("broken", ["one", "all"])
def test_broken_clips_are_listed_and_the_others_shown(broken, tmp_path):
    names = prepared("ravdess", tmp_path)
    videos = sorted(Path(names["root"]).rglob("02-01-*.mp4"))  # the task's: silent speech
    for video in videos if broken == "all" else videos[:1]:
        video.write_bytes(b"no video")
    if broken == "all":
        with pytest.raises(manifests.ManifestError, match="48 of 48 clips of 'ravdess' are broken"):
            run_cells(names)
    else:
        run_cells(names)
    assert [len(table) for table in names["shown_tables"] if "problem" in table] == [48 if broken == "all" else 1]
