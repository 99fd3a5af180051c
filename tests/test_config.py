import hashlib
import json
import re

import pytest

from adatosk.config import RunConfig
from adatosk.presets import MODELS, PROFILES
from adatosk.utils.project import PROJECT

YOUNGER = {"activation", "scaling", "baseline", "exclusion", "weights", "checkpoint_activations", "cuda_graph"}


def without(part, names):
    if isinstance(part, dict):
        return {key: without(value, names) for key, value in part.items() if key not in names}
    return part


# With every option that was added later at the value that the first runs had.
FIRST = PROFILES["demo"].change(model={"soft_mask": {"scaling": "min_max"}})


def test_the_run_id_is_the_digest_of_what_is_written_down():
    run = FIRST
    text = json.dumps([without(run.model_dump(mode="json"), YOUNGER), "digest"], sort_keys=True)
    assert run.run_id("digest") == hashlib.sha256(text.encode()).hexdigest()[:12]
    assert run.run_id("digest") != run.run_id("another")


def test_an_option_added_later_renames_no_run_until_it_is_used():
    run = FIRST
    old = without(run.model_dump(mode="json"), YOUNGER)
    assert RunConfig.model_validate(old).run_id("digest") == run.run_id("digest")
    ids = {
        run.run_id("digest"),
        run.change(model={"soft_mask": {"activation": "raw"}}).run_id("digest"),
        run.change(model={"soft_mask": {"scaling": "mean"}}).run_id("digest"),
        run.change(model={"soft_mask": None}).run_id("digest"),
        run.change(train={"checkpoint_activations": True}).run_id("digest"),
        run.change(train={"cuda_graph": True}).run_id("digest"),
        run.change(initial=run.change(seed=1).model_dump()).run_id("digest"),
        run.change(initial=run.change(model={"soft_mask": {"activation": "raw"}}).model_dump()).run_id("digest"),
    }
    assert len(ids) == 8


@pytest.mark.parametrize("profile", ["demo"])
def test_the_committed_runs_keep_their_ids(profile):
    folders = sorted((PROJECT / "results" / profile / "runs").iterdir())
    assert len(folders) > 30
    for folder in folders:
        manifest = json.loads((folder / "metrics.json").read_text())["manifest"]["digest"]
        assert RunConfig.read(folder / "config.json").run_id(manifest) == folder.name


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"evaluation": {"views": (0,)}}, "greater than or equal to 1"),
        ({"evaluation": {"views": (), "complementary": False}}, "nothing to score"),
        ({"evaluation": {"seed": -5}}, "greater than or equal to 0"),
        ({"seed": -1}, "greater than or equal to 0"),
        ({"train": {"betas": (2.0, 0.9)}}, "less than 1"),
        ({"train": {"base_lr": float("inf")}}, "finite"),
        ({"model": {"mlp_ratio": float("inf")}}, "finite"),
        ({"seed": 2**70}, "seed has an integer beyond 9223372036854775807"),
        ({"evaluation": {"seed": 2**63}}, "seed has an integer beyond"),
        ({"evaluation": {"views": (1, 2**70)}}, "views has an integer beyond"),
        ({"train": {"epochs": 10**400}}, "epochs has an integer beyond"),
        ({"data": {"fold": -(2**65)}}, "fold has an integer beyond"),
    ],
)
def test_what_would_fail_after_hours_is_refused_at_once(changes, said):
    with pytest.raises(ValueError, match=said):
        PROFILES["smoke"].change(**changes)


def test_a_configuration_may_begin_with_a_byte_order_mark(tmp_path):
    path = tmp_path / "run.json"
    path.write_text("\ufeff" + PROFILES["smoke"].model_dump_json(), encoding="utf-8")
    assert RunConfig.read(path) == PROFILES["smoke"]


@pytest.mark.parametrize(
    "text", ["[" * 100_000, '{"initial":' * 100_000, '{"a":' * 150 + "1" + "}" * 150, "{", '"\ud800"']
)
def test_what_is_no_run_configuration_is_one_error_that_names_the_file(tmp_path, text):
    path = tmp_path / "run.json"
    path.write_bytes(text.encode("utf-8", "surrogatepass"))
    with pytest.raises(ValueError, match=r"run\.json: not a valid run configuration"):
        RunConfig.read(path)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[]", "run configuration: Input should be an object"),
        ('{"evaluation": {"views": 1}}', "evaluation.views: Input .* valid array"),
    ],
)
def test_what_is_wrong_is_said_in_the_words_of_json(tmp_path, text, said):
    path = tmp_path / "run.json"
    path.write_text(text)
    with pytest.raises(ValueError, match=said):
        RunConfig.read(path)


def test_an_option_that_is_assigned_says_how_to_change_it():
    options = MODELS["adatosk_small"].soft_mask
    with pytest.raises(AttributeError, match=re.escape("say options = options.change(top_k=3)")):
        options.top_k = 3
    assert options.top_k == 4 and options.change(top_k=3).top_k == 3
    with pytest.raises(AttributeError, match="SoftMaskConfig has no field 'topk': it has agnostic, semantic, top_k,"):
        options.topk = 3


def test_the_largest_seed_is_taken():
    assert PROFILES["smoke"].change(seed=2**63 - 1).seed == 2**63 - 1
