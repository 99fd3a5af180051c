import json
from dataclasses import replace
from pathlib import Path

import pytest

from adatosk import workspace
from adatosk.config import RunConfig
from adatosk.experiments.grid import headline_configs
from adatosk.plots import new_figure
from adatosk.presets import PROFILES, Profile
from adatosk.train import Places
from adatosk.workspace import Run, Workspace, open_workspace, prepare_data, read_parameters, saved_by

KERNEL = {"In": [], "Out": {}, "get_ipython": print, "_ih": [], "workspace": workspace, "Profile": Profile}


def test_parameters_pass_when_all_are_known_and_of_their_type():
    found = read_parameters(
        {**KERNEL, "profile": "demo", "seed": 3, "root": None}, profile=Profile, seed=int, root=str | None
    )
    assert (found.profile, found.seed, found.root) == ("demo", 3, None)


def test_an_unknown_parameter_stops_the_notebook_and_names_the_known_ones():
    with pytest.raises(NameError, match="unknown parameter profil: this notebook has profile, seed"):
        read_parameters({**KERNEL, "profile": "demo", "seed": 0, "profil": "paper"}, profile=Profile, seed=int)


@pytest.mark.parametrize(("name", "value"), [("profile", "dmeo"), ("seed", "0"), ("seed", 1.5)])
def test_a_mistyped_parameter_stops_the_notebook(name, value):
    given = {**KERNEL, "profile": "demo", "seed": 0, name: value}
    with pytest.raises(TypeError, match=f"parameter {name}="):
        read_parameters(given, profile=Profile, seed=int)


def test_the_cell_can_be_run_again_after_the_rest_of_the_notebook():
    names = {**KERNEL, "seed": 0}
    read_parameters(names, seed=int)
    names["table"] = [1, 2, 3]
    assert read_parameters(names, seed=int).seed == 0


def test_headline_pair_differs_in_the_soft_mask_alone():
    with_mask, without = headline_configs("demo").values()
    assert with_mask == PROFILES["demo"]
    assert without == with_mask.change(model={"soft_mask": None})
    assert isinstance(without, RunConfig) and without.model.soft_mask is None


def test_data_that_is_missing_or_of_another_kind_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere"):
        prepare_data(PROFILES["paper"], tmp_path / "nowhere")
    (tmp_path / "holiday.mp4").touch()
    with pytest.raises(ValueError, match="holds other files"):
        prepare_data(PROFILES["smoke"], tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["holiday.mp4"]
    with pytest.raises(ValueError, match="unknown profile 'tiny': choose smoke, demo, paper"):
        open_workspace("tiny")


def test_a_run_without_weights_says_what_is_missing(tmp_path):
    with pytest.raises(FileNotFoundError):
        _ = Run(tmp_path).metrics


def test_a_figure_is_saved_for_screen_and_print_and_is_the_same_file_twice(tmp_path):
    smoke = open_workspace("smoke")
    smoke = replace(smoke, places=replace(smoke.places, results=tmp_path))
    written = []
    for _ in range(2):
        figure, ((ax,),) = new_figure(1, 1, 2, 2)
        ax.plot([0, 1])
        path = smoke.save_figure(figure, "line")
        assert path == tmp_path / "figures" / "line.png"
        written.append([path.read_bytes(), path.with_suffix(".pdf").read_bytes()])
    assert written[0] == written[1] and written[0][1].startswith(b"%PDF")


def test_what_a_notebook_saves_is_read_from_its_code(tmp_path):
    code = [
        'workspace.save_table(table.round(3), "scores")\n',
        'if known:\n    workspace.save_figure(draw(table, "title"), "faces")\n',
        'workspace.save_figure(figure, f"clips_{dataset}")\n',
        'print("save_table")\n',
    ]
    notebook = {"cells": [{"cell_type": "code", "source": code}, {"cell_type": "markdown", "source": code}]}
    path = tmp_path / "a.ipynb"
    path.write_text(json.dumps(notebook))
    assert saved_by(path, rendered=False) == ["tables/scores.csv"]
    assert saved_by(path, rendered=True) == ["tables/scores.csv", "figures/faces.png", "figures/faces.pdf"]


@pytest.mark.parametrize(
    ("profile", "shown"), [("smoke", "surprise"), ("paper-ravdess", "surprised"), ("paper-crema_d", "anger")]
)
def test_pictures_show_a_surprise_where_there_is_one(profile, shown, tmp_path):
    workspace = Workspace(profile, PROFILES[profile], Places(tmp_path, tmp_path, tmp_path))
    assert workspace.example() == shown
    assert workspace.example(shown) == shown


def test_a_class_that_the_data_does_not_have_is_an_error():
    with pytest.raises(ValueError, match="label='joy': embedded-smoke has happy, sad"):
        Workspace("smoke", PROFILES["smoke"], Places(Path(), Path(), Path())).example("joy")


@pytest.mark.parametrize("text", ["", '{"last": ', "[]", "{}"])
def test_scores_that_are_not_whole_are_named(tmp_path, text):
    (tmp_path / "metrics.json").write_text(text)
    with pytest.raises(ValueError, match=r"metrics\.json: not .*: delete the run's folder"):
        _ = Run(tmp_path).metrics


def test_the_command_line_puts_data_in_place_or_says_what_is_missing(tmp_path, capsys):
    assert workspace.main(["paper-mafw", str(tmp_path / "none")]) == 1
    assert "none: no such folder" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        workspace.main(["nothing"])
