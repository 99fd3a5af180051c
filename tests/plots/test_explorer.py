"""What the controls of notebooks 02 and 09 draw, and what they say of impossible values."""

import numpy as np
import pytest
import torch

from adatosk import create_model
from adatosk.plots import ORANGE, explorer
from adatosk.plots.frames import HIDDEN
from adatosk.tokens import tube_mask
from adatosk.utils import seeds


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return create_model("adatosk_tiny").eval()


@pytest.fixture(scope="module")
def clips() -> dict[str, np.ndarray]:
    drawn = np.random.default_rng(0).integers(0, 256, (2, 16, 32, 32, 3), dtype=np.uint8)
    return {"happy": drawn[0], "sad": drawn[1]}


class Shown:
    """In place of a notebook: what is displayed, and what the picture is updated with."""

    def __init__(self, monkeypatch):
        self.bundles, self.pictures = [], []
        monkeypatch.setattr("IPython.display.display", self.display)

    def display(self, what, raw=False, display_id=False):
        (self.bundles if raw else self.pictures).append(what)
        return self

    def update(self, figure):
        self.pictures.append(figure)


def controls_of(explore, monkeypatch, *arguments):
    """The controls that it shows, by name, and what they draw on."""
    shown, seen = Shown(monkeypatch), {}
    whole = explorer.explore
    monkeypatch.setattr(explorer, "explore", lambda draw, controls: (seen.update(controls), whole(draw, controls)))
    explore(*arguments)
    return seen, shown


def test_each_control_redraws_the_masks(model, clips, monkeypatch):
    controls, shown = controls_of(explorer.explore_masks, monkeypatch, model, clips, "sad")
    assert "application/vnd.jupyter.widget-view+json" in shown.bundles[0]
    assert {name: control.value for name, control in controls.items()} == {
        "clip": "sad", "distance": "l1", "top_k": 2, "mask_ratio": 0.4, "excluded_per_step": 1, "temperature": 0.1,
    }  # fmt: skip
    moves = {"top_k": 5, "temperature": 1.0, "distance": "cosine", "clip": "happy", "mask_ratio": 0.25}
    for count, (name, value) in enumerate(moves.items(), start=2):
        controls[name].value = value
        assert len(shown.pictures) == count
    semantic = shown.pictures[1].axes[1]
    borders = [box for box in semantic.patches if box.get_edgecolor()[:3] == ORANGE]
    assert len(borders) == 5


def test_an_impossible_value_keeps_the_picture_and_says_why(model, clips, monkeypatch):
    controls, shown = controls_of(explorer.explore_masks, monkeypatch, model, clips, "sad")
    said = []
    monkeypatch.setattr("ipywidgets.HTML.value", property(lambda self: "", lambda self, text: said.append(text)))
    controls["mask_ratio"].value = 0.9
    assert len(shown.pictures) == 1 and "needs more than" in said[0]
    controls["mask_ratio"].value = 0.4
    assert len(shown.pictures) == 2 and said[1] == ""


def test_a_moment_is_the_step_that_is_chosen(model, clips, monkeypatch):
    patches = model.config.patches
    masks = {clip: tube_mask(1, patches, 0.4, seeds.generator(seed))[0] for seed, clip in enumerate(clips)}
    controls, shown = controls_of(explorer.explore_frames, monkeypatch, model, clips, masks, "sad")
    controls["step"].value = 7
    frame, *others = shown.pictures[-1].axes
    assert np.array_equal(frame.images[0].get_array(), clips["sad"][13])
    assert frame.get_title().startswith("frame 14")
    assert [ax.get_title() for ax in others] == ["activation map A", "class-semantic mask", "class-agnostic mask"]
    hatched = [sum(len(one.get_paths()) for one in ax.collections) for ax in others]
    assert hatched == [0, 6, 6]  # one a step
    hidden = [(ax.images[0].get_array()[4::8, 4::8] == HIDDEN).all(axis=-1).ravel() for ax in others]
    assert not hidden[0].any() and all((one == ~masks["sad"].numpy()).all() for one in hidden[1:])
