"""Notebook 01 goes from the official folders of each set to a checked manifest, headless."""

import papermill
import pytest
from fakes import make_fake

from adatosk import manifests
from adatosk.datasets import DATASETS
from adatosk.utils.project import PROJECT


@pytest.mark.parametrize("name", list(DATASETS))
def test_data_preparation_runs_on_the_layout_of_each_set(name, tmp_path):
    root = make_fake(name, tmp_path / "set")
    papermill.execute_notebook(
        PROJECT / "notebooks" / "01_data_preparation.ipynb",
        tmp_path / "out.ipynb",
        {
            "dataset": name,
            "root": str(root),
            "fold": None if name == "ferv39k" else 1,
            "manifest_folder": str(tmp_path),
        },
        kernel_name="python3",
        progress_bar=False,
    )
    assert manifests.load(tmp_path / f"{name}.csv").name == name


def test_an_unknown_parameter_stops_the_run_that_papermill_only_warns_about(tmp_path):
    with pytest.raises(papermill.PapermillExecutionError, match="unknown parameter profil: this notebook has"):
        papermill.execute_notebook(
            PROJECT / "notebooks" / "05_efficiency.ipynb",
            tmp_path / "out.ipynb",
            {"profil": "demo"},
            kernel_name="python3",
            progress_bar=False,
        )
