import shlex
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from commands import command

from adatosk.config import RunConfig
from adatosk.experiments import grid, tables
from adatosk.experiments.runs import headline_configs, run_file
from adatosk.manifests import manifest_of
from adatosk.plots import new_figure
from adatosk.presets import PROFILES, Profile
from adatosk.train import Trainer
from adatosk.utils.project import PROJECT, Places
from adatosk.workspace import Run, Workspace, adopt_published, open_workspace, prepare_data, read_parameters, runs

KERNEL = {"In": [], "Out": {}, "get_ipython": print, "_ih": [], "workspace": runs, "Profile": Profile}


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


@pytest.mark.parametrize("added", ["epochs = 3", "epochs: int = 3", "epochs, other[0] = 3, 4"])
def test_a_parameter_added_while_the_kernel_runs_is_unknown_as_it_is_in_a_fresh_one(added):
    cells = ["seed: int = 0\nroot = None", "read_parameters(globals())", "table = [1, 2, 3]", "this is no Python"]
    names = {**KERNEL, "seed": 0, "root": None, "In": cells}
    expected = {"seed": int, "root": str | None}
    read_parameters(names, **expected)
    names |= {"table": [1, 2, 3], "epochs": 3}
    names["In"] += ["seed = 1", "read_parameters(globals())"]  # a cell of one's own, of which nothing is a parameter
    read_parameters(names, **expected)
    names["In"] += [f"seed = 1\nroot = None\ntable: list\n{added}", "read_parameters(globals())"]
    with pytest.raises(NameError, match="unknown parameter epochs: this notebook has root, seed"):
        read_parameters(names, **expected)


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
    with pytest.raises(ValueError, match="unknown profile 'tiny': choose smoke, demo, "):
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


def test_published_runs_are_copied_until_a_run_is_trained_here(tmp_path):
    published, outputs = tmp_path / "results", tmp_path / "outputs"
    for name in ("one", "two"):
        folder = published / "demo" / "runs" / name
        folder.mkdir(parents=True)
        (folder / "metrics.json").write_text("published")
        (folder / "notes.txt").touch()
    ships = published / "demo" / "weights" / "with-soft-mask"  # which would pass for weights trained here
    ships.mkdir(parents=True)
    (ships / "model.safetensors").touch()
    adopt_published("demo", published, outputs)
    copies = outputs / "demo" / "runs"
    assert sorted(path.relative_to(copies).as_posix() for path in copies.rglob("*.*")) == [
        "one/metrics.json", "two/metrics.json",
    ]  # fmt: skip
    (copies / "one" / "checkpoints").mkdir()
    for name in ("one", "two"):
        (copies / name / "metrics.json").write_text("made here")
    adopt_published("demo", published, outputs)
    assert (copies / "one" / "metrics.json").read_text() == "made here"
    assert (copies / "two" / "metrics.json").read_text() == "published"


@pytest.mark.parametrize("text", ["", '{"last": ', "[]", "{}"])
def test_scores_that_are_not_whole_are_named(tmp_path, text):
    (tmp_path / "metrics.json").write_text(text)
    with pytest.raises(ValueError, match=r"metrics\.json: .*: delete the run's folder"):
        _ = Run(tmp_path).metrics


def test_classes_named_by_numbers_stay_apart(tmp_path):
    (tmp_path / "predictions.csv").write_text("id,label,views_1\n007,01,1\n8,1,1\n9,1.0,01\n")
    assert Run(tmp_path).predictions.to_numpy().tolist() == [["007", "01", "1"], ["8", "1", "1"], ["9", "1.0", "01"]]


def test_a_damaged_log_and_damaged_predictions_are_named(tmp_path):
    (tmp_path / "log.jsonl").write_text('{"epoch": 1, "loss": 2.5}\n{"epoch": 2, "lo')
    (tmp_path / "predictions.csv").write_bytes(b"id,label\na,happy\n\xb1,sad\n")
    for name, read in (("log.jsonl", lambda run: run.log), ("predictions.csv", lambda run: run.predictions)):
        with pytest.raises(ValueError, match=rf"{name}: damaged \(.*\): delete the run's folder"):
            read(Run(tmp_path))


@pytest.fixture
def results(tmp_path):
    """The results of profile demo as the repository has them, without any run: the index alone."""
    shutil.copy(PROJECT / "results" / "demo" / "runs.csv", tmp_path / "runs.csv")
    return tmp_path


def reading(results: Path, root: Path = PROJECT / "data" / "embedded-demo") -> Workspace:
    return Workspace("demo", PROFILES["demo"], Places(root, results, results))


@pytest.fixture
def no_training(monkeypatch):
    """Whoever trains fails."""

    def trains(self, *rest):
        raise AssertionError(f"trains {self.run_id}")

    monkeypatch.setattr(Trainer, "run", trains)


@pytest.mark.parametrize(("profile", "trains"), [("smoke", True), ("demo", False)])
def test_only_profile_smoke_trains_on_its_own(profile, trains, monkeypatch):
    monkeypatch.setattr(runs, "prepare_data", lambda config, root: None)
    monkeypatch.setattr(runs, "adopt_published", lambda profile: None)
    assert open_workspace(profile).train_missing == trains
    assert open_workspace(profile, train_missing=True).train_missing


@pytest.mark.usefixtures("no_training")
def test_a_missing_run_is_one_error_that_says_how_to_have_it(results):
    base = PROFILES["demo"]
    (run_id,) = [base.run_id(manifest_of(base).digest)]
    with pytest.raises(FileNotFoundError) as told:
        reading(results).run()
    for part in (f"run table1-with-soft-mask-seed0 ({run_id})", "`make reproduce PROFILE=demo`", "train_missing=True"):
        assert part in str(told.value)
    assert "\n" not in str(told.value)
    (row,) = [row for row in grid.table3(base) if row.name == "CA"]
    with pytest.raises(FileNotFoundError, match=r"missing run table3-ca-seed2 \(.*`make reproduce-all PROFILE=demo`"):
        reading(results).runs([row.config.change(seed=2)])


@pytest.mark.usefixtures("no_training")
def test_missing_rows_are_one_error_and_nothing_is_written(results):
    rows = [row for name in ("table1", "table3") for row in grid.TABLES[name](PROFILES["demo"])]
    before = sorted(results.rglob("*"))
    with pytest.raises(FileNotFoundError, match=r"missing \d\d runs: table1-with-soft-mask-seed0 .* more; trained by"):
        tables.run_rows(reading(results), rows)
    assert sorted(results.rglob("*")) == before


@pytest.mark.usefixtures("no_training")
def test_missing_weights_are_asked_of_the_target_that_makes_them(results):
    base, places = PROFILES["demo"], reading(results).places
    shutil.copytree(
        PROJECT / "results" / "demo" / "runs", results / "runs", ignore=shutil.ignore_patterns("checkpoints")
    )
    assert reading(results).run().finished
    with pytest.raises(
        FileNotFoundError, match=r"missing the weights of run table1-with.*`make reproduce PROFILE=demo`"
    ):
        reading(results).run(need_checkpoint=True)
    with pytest.raises(FileNotFoundError, match="`make reproduce-all PROFILE=demo`"):
        reading(results).run(need_checkpoint=True, seed=3)
    # No target asks for these weights: the run's own file trains them.
    with pytest.raises(FileNotFoundError) as told:
        reading(results).run(need_checkpoint=True, seed=9)
    command = str(told.value).split("`")[1]
    run_id = base.change(seed=9).run_id(manifest_of(base).digest)
    assert shlex.split(command) == [
        *("python", "-m", "adatosk.train", str(run_file(results, run_id))),
        *("--root", str(places.root), "--results", str(results), "--weights"),
    ]


@pytest.mark.usefixtures("no_training")
def test_a_run_that_no_table_has_is_named_by_what_it_changes(results):
    with pytest.raises(FileNotFoundError) as told:
        reading(results).run(seed=99, model={"soft_mask": None})
    assert "demo, model.soft_mask=None, seed=99 (" in str(told.value)
    assert "make " not in str(told.value) and "train_missing=True" in str(told.value)


@pytest.mark.usefixtures("no_training")
def test_the_make_command_of_the_error_quotes_the_root(results, tmp_path):
    root = tmp_path / "it's here; touch y"
    with pytest.raises(FileNotFoundError) as told:
        reading(results, root).run()
    assert shlex.split(str(told.value).split("`")[1]) == ["make", "reproduce", "PROFILE=demo", f"ROOT={root}"]


def test_a_workspace_that_trains_what_is_missing_trains_what_it_starts_from(tmp_path, monkeypatch):
    trained = []

    def trains(self, need_checkpoint):
        trained.append((self.config, need_checkpoint))
        return self.folder

    monkeypatch.setattr(Trainer, "run", trains)
    run = PROFILES["smoke"].change(initial=PROFILES["smoke"].change(seed=1).model_dump())
    smoke = Workspace("smoke", PROFILES["smoke"], Places(tmp_path, tmp_path, tmp_path), train_missing=True)
    (found,) = smoke.runs([run])
    assert trained == [(run.initial, True), (run, False)]
    assert found.folder.name == run.run_id(manifest_of(run).digest)


def test_a_root_that_is_not_there_is_an_error_and_is_not_created(tmp_path):
    run, nowhere = tmp_path / "run.json", tmp_path / "nowhere"
    run.write_text(PROFILES["smoke"].model_dump_json())
    expected = "nowhere: no such folder; create it to render 'embedded-smoke' there, or use the project's "
    with pytest.raises(FileNotFoundError, match=expected):
        open_workspace("smoke", nowhere)
    done = command("prepare", run, "--root", nowhere)
    assert done.exit_code == 1 and done.stderr.startswith(f"error: {tmp_path}/{expected}")
    done = command("train", run, "--root", nowhere, "--results", tmp_path / "results")
    assert done.exit_code == 1 and done.stderr.startswith("error: ") and f" {nowhere} " in done.stderr
    assert not nowhere.exists()
