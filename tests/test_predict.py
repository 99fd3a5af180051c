import os
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from commands import command, process
from media import moving_frames, write_frames, write_video
from safetensors.torch import load_file, save_file
from scenes import Walk, standing
from scenes import scene as scene_of

from adatosk import create_model
from adatosk.clips import normalise
from adatosk.clips.faces import FaceNotFoundError
from adatosk.predict import RENDERED, caveat, load_model, predict
from adatosk.presets import PROFILES
from adatosk.synthetic import BENCHMARKS, render
from adatosk.synthetic.scripts import sample_script
from adatosk.video import VideoError

FACE = 96  # side of the rendered clip
LEFT, TOP = 150, 30  # where it stands in the scene


@pytest.fixture(scope="module")
def scene(tmp_path_factory) -> Path:
    """A rendered face in a wider scene, as a video file."""
    config = BENCHMARKS["embedded-smoke"]
    face = render(sample_script(config, "train", 1), config)
    frames = np.full((len(face), 160, 320, 3), 90, np.uint8)
    frames[:, TOP : TOP + FACE, LEFT : LEFT + FACE] = face
    return write_video(tmp_path_factory.mktemp("scene") / "person.mp4", frames)


@pytest.fixture(scope="module")
def faceless(tmp_path_factory) -> Path:
    return write_video(tmp_path_factory.mktemp("faceless") / "squares.mp4", moving_frames(64, 96, 128))


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    torch.manual_seed(0)
    target = tmp_path_factory.mktemp("model") / "tiny"
    create_model("adatosk_tiny").save_pretrained(target)
    return target


def test_the_face_is_cut_out_and_named(scene, folder):
    found = predict(scene, folder)
    (left, top, right, bottom), *others = found.face.squares.tolist()
    assert right - left == bottom - top and others == [[left, top, right, bottom]] * 15
    middle = np.array([left + right, top + bottom]) / 2
    assert np.abs(middle - (LEFT + FACE / 2, TOP + FACE / 2)).max() < FACE / 5
    assert 0.6 * FACE < right - left < 1.5 * FACE
    assert found.people == 1 and str(found.face) == "the only face, seen in 16 of 16 frames"
    assert found.frames.shape == (16, 32, 32, 3) and found.frames.dtype == np.uint8
    assert list(found.probabilities) == list(create_model("adatosk_tiny").config.classes)
    assert sum(found.probabilities.values()) == pytest.approx(1)
    assert found.label == max(found.probabilities, key=found.probabilities.get)
    assert found.visible.shape == (16,) and found.soft_mask.kept.shape == (1, 8, 9)


@pytest.mark.parametrize("views", [1, 3])
def test_it_is_the_models_answer_for_the_frames_it_shows(views, scene, folder):
    found, model = predict(scene, folder, views=views, locate_face=False), load_model(folder)
    video = normalise(torch.from_numpy(found.frames).permute(3, 0, 1, 2)[None])
    with torch.inference_mode():
        # On a CPU the prediction's products run through oneDNN.
        torch.testing.assert_close(found.logits, model.classify(video, views)[0], rtol=1e-5, atol=1e-5)
        assert not torch.allclose(found.logits, model.classify(video, 4 - views)[0], rtol=1e-3, atol=1e-3)
        weights = model(video, found.visible[None]).soft_mask.weights
        torch.testing.assert_close(found.soft_mask.weights, weights, rtol=1e-4, atol=1e-5)
    assert found.face is None and found.people == 0


def test_a_person_who_walks_stands_still_in_what_the_model_sees(folder, tmp_path):
    walker, larger = Walk(1, (10, 150), (200, 150), (70, 70)), standing(2, (300, 10), 120)
    frames = scene_of(walker, larger, count=61, height=240, width=440)[::4]
    path = write_frames(tmp_path / "walk", frames)
    found = predict(path, folder, stride=1, person=2)
    assert found.people == 2 and str(found.face) == "face 2 of 2, seen in 16 of 16 frames"
    for seen, frame, (left, top, right, bottom) in zip(found.frames, frames, found.face.squares, strict=True):
        naive = cv2.resize(frame[top:bottom, left:right], (32, 32), interpolation=cv2.INTER_AREA)
        assert np.abs(seen.astype(int) - naive).mean() < 6
    # The same head seen without a walk: what the model sees of it hardly depends on the walk.
    still = scene_of(standing(1, (10, 150), 70), larger, count=61, height=240, width=440)[::4]
    write_frames(tmp_path / "still", still)
    calm = predict(tmp_path / "still", folder, stride=1, person=2)
    assert not calm.face.moves and found.face.moves
    centre = np.s_[:, 8:24, 8:24]
    assert np.abs(found.frames[centre].astype(int) - calm.frames[centre]).mean() < 25
    assert predict(path, folder, stride=1).face.squares[0, 0] > 280  # the larger one, who stands on the right


def test_a_person_who_is_not_there_is_an_error(scene, folder):
    with pytest.raises(FaceNotFoundError, match=r"person\.mp4: no person 2, it shows 1"):
        predict(scene, folder, person=2)
    with pytest.raises(ValueError, match="person must be at least 1, the largest face, got 0"):
        predict(scene, folder, person=0)


def test_it_leaves_the_model_in_its_mode_and_the_global_stream_alone(scene):
    model = create_model("adatosk_tiny").train()
    state = torch.get_rng_state()
    predict(scene, model, complementary=True)
    assert model.training
    assert torch.equal(state, torch.get_rng_state())


def test_a_model_without_soft_mask_has_none_to_show(scene):
    assert predict(scene, create_model("adatosk_tiny", soft_mask=None), views=1).soft_mask is None


def test_a_video_without_a_face_is_an_error_that_says_what_to_do(faceless, folder):
    said = r"squares\.mp4: no face found in the 16 frames sampled from it; choose others.*locate_face=False"
    with pytest.raises(FaceNotFoundError, match=said):
        predict(faceless, folder)
    assert predict(faceless, folder, locate_face=False).label


@pytest.mark.parametrize("fault", ["no video", "no model", "damaged weights", "no face"])
def test_the_command_line_ends_with_one_line_and_status_1(fault, scene, faceless, folder, tmp_path):
    video, model, named = scene, folder, "person.mp4"
    if fault == "no video":
        video = named = tmp_path / "missing.mp4"
    elif fault == "no model":
        model = named = tmp_path
    elif fault == "damaged weights":
        model = named = tmp_path / "damaged"
        create_model("adatosk_tiny").save_pretrained(model)
        (model / "model.safetensors").write_bytes(b"nothing")
    else:
        video = named = faceless
    done = command("predict", video, "--model", model)
    assert done.exit_code == 1 and not done.stdout
    err = done.stderr
    assert err.startswith("error: ") and str(named) in err and err.count("\n") == 1


def spoil_missing(weights):
    del weights[next(name for name in weights if name.startswith("head."))]


def spoil_foreign(weights):
    weights["foreign"] = torch.zeros(2)


def spoil_shape(weights):
    weights["mask_token"] = torch.zeros(1, 1, 1, 3)


def spoil_finite(weights):
    weights["mask_token"][..., 0] = float("nan")


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (spoil_missing, "Missing key"),
        (spoil_foreign, "Unexpected key.*foreign"),
        (spoil_shape, "size mismatch for mask_token"),
        (spoil_finite, "the weight mask_token is not finite"),
        (dict.clear, "Missing key"),
    ],
)
def test_wrong_weights_are_refused_and_never_random(tmp_path, spoil, said):
    create_model("adatosk_tiny").save_pretrained(tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    spoil(weights)
    save_file(weights, tmp_path / "model.safetensors")
    with pytest.raises(ValueError, match=said) as error:
        load_model(tmp_path)
    message = str(error.value)
    assert message.startswith(f"{tmp_path}: ") and "name a folder" in message
    assert "\n" not in message and len(message) < 700


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"[]", "Input should be an object"),
        (b"null", "Input should be an object"),
        (b"{", "invalid JSON: .* line 1 column 2"),
        (b"\xff\xfe", "not text in UTF-8"),
        (b'{"depth": "deep"}', "depth: Input should be a valid integer"),
        (b'{"soft_mask": {"top_k": 0}}', "soft_mask.top_k: Input should be greater"),
        (b'{"hidden_size": 768}', "hidden_size: ModelConfig has no such field: it has classes, "),
    ],
)
def test_a_configuration_of_no_model_is_refused_with_its_field(tmp_path, content, said):
    create_model("adatosk_tiny").save_pretrained(tmp_path)
    (tmp_path / "config.json").write_bytes(content)
    with pytest.raises(ValueError, match=said) as error:
        load_model(tmp_path)
    assert str(error.value).startswith(f"{tmp_path / 'config.json'}: ") and "\n" not in str(error.value)


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
def test_a_folder_that_lacks_a_file_is_told_by_its_name(tmp_path, name):
    create_model("adatosk_tiny").save_pretrained(tmp_path)
    (tmp_path / name).unlink()
    with pytest.raises(FileNotFoundError, match=name):
        load_model(tmp_path)


def test_the_command_line_prints_label_and_probabilities(scene, folder):
    done = process("adatosk.predict", scene, "--model", folder, "--whole-frame")
    found = predict(scene, folder, locate_face=False)
    first, *others = done.stdout.splitlines()
    assert first == found.label and not done.stderr
    assert {line.split()[0]: float(line.split()[1]) for line in others} == pytest.approx(found.probabilities, abs=6e-4)


def test_a_missing_video_is_a_video_error(folder, tmp_path):
    with pytest.raises(VideoError, match="missing"):
        predict(tmp_path / "missing.mp4", folder)


def run_of(folder: Path, manifest: str) -> Path:
    """A run on this data, and its weights."""
    checkpoint = folder / "run" / "checkpoints" / "last"
    create_model("adatosk_tiny").save_pretrained(checkpoint)
    run = PROFILES["smoke"].change(data={"manifest": manifest})
    (folder / "run" / "config.json").write_text(run.model_dump_json())
    return checkpoint


@pytest.mark.parametrize("more", [[], ["--every", "1"], ["--out", "labels.csv"]], ids=["clip", "whole", "many"])
def test_weights_that_know_rendered_faces_only_say_so(more, faceless, folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    rendered = run_of(tmp_path, "embedded-smoke.csv")
    done = command("predict", faceless, "--model", rendered, "--whole-frame", *more)
    said = f"{rendered}: trained on embedded-smoke: these weights know rendered faces only\n"
    assert done.exit_code == 0 and done.stderr == said
    done = command("predict", faceless, "--model", folder, "--whole-frame", *more)
    assert done.exit_code == 0 and not done.stderr


def test_what_weights_know_is_read_from_their_run_or_their_card(folder, tmp_path):
    assert all(name.startswith(RENDERED) for name in BENCHMARKS)
    assert not caveat(folder) and not caveat(run_of(tmp_path, "mafw.csv")) and not caveat(tmp_path / "nowhere")
    card = tmp_path / "card"
    card.mkdir()
    for said, rendered in (("[embedded-demo]", True), ("embedded-demo", True), ("[dfew]", False)):
        (card / "README.md").write_text(f"---\ndatasets: {said}\n---\n\nA model.\n")
        assert caveat(card) == (
            f"{card}: trained on embedded-demo: these weights know rendered faces only" if rendered else ""
        )


@pytest.mark.skipif("ADATOSK_FACE_VIDEO" not in os.environ, reason="ADATOSK_FACE_VIDEO names no video of a person")
def test_a_real_face_is_found(folder):
    assert predict(os.environ["ADATOSK_FACE_VIDEO"], folder).face is not None


def test_a_single_view_is_computed_once(scene):
    model, passes = create_model("adatosk_tiny").eval(), []
    model.head.register_forward_hook(lambda *_: passes.append(1))
    predict(scene, model, views=1, locate_face=False)
    assert len(passes) == 1
