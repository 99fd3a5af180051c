"""One graph each for both branches and for the classifier; traced by torch's compiler, run without its C++ part."""

import pytest
import torch
from torch._dynamo.utils import counters

from adatosk.config import TrainConfig
from adatosk.losses import total_loss
from adatosk.model import create_model

MASKS = [
    {},
    None,
    {"score_block": None, "distance": "cosine", "axis": "token", "activation": "raw"},
    {"distance": "classification", "axis": "time", "gate": "literal", "scaling": "mean", "activation": "shuffled"},
]


@pytest.fixture(autouse=True)
def fresh():
    torch.compiler.reset()
    counters.clear()


def twins(**overrides):
    """The same weights twice, the second model compiled."""
    models = []
    for _ in range(2):
        torch.manual_seed(0)
        models.append(create_model("adatosk_tiny", **overrides))
    models[1].compile(backend="aot_eager")
    return models


@pytest.mark.parametrize("soft_mask", MASKS, ids=str)
def test_a_compiled_training_step_has_one_graph_and_the_same_gradients(soft_mask):
    models = twins(soft_mask=soft_mask)
    seeded = torch.Generator().manual_seed(1)
    video = torch.randint(256, (2, 3, 16, 32, 32), dtype=torch.uint8, generator=seeded)  # as in training
    losses, gradients = [], []
    for model in models:
        output = model(video, generator=torch.Generator().manual_seed(2))
        loss = total_loss(output, video, torch.tensor([0, 3]), model.config, TrainConfig()).total
        loss.backward()
        losses.append(loss.detach())
        gradients.append([p.grad for p in model.parameters()])
    torch.testing.assert_close(losses[1], losses[0])
    torch.testing.assert_close(gradients[1], gradients[0], rtol=1e-3, atol=1e-5)
    assert counters["stats"]["unique_graphs"] == 1 and not counters["graph_break"]


def test_the_compiled_classifier_is_one_graph_for_any_number_of_views():
    plain, compiled = (model.eval() for model in twins())
    video = torch.randn(2, 3, 16, 32, 32)
    with torch.inference_mode():
        for views in (1, 3):
            torch.testing.assert_close(compiled.classify(video, views), plain.classify(video, views))
    assert counters["stats"]["unique_graphs"] == 1 and not counters["graph_break"]
    assert list(compiled.state_dict()) == list(plain.state_dict())


def test_wrong_masks_are_still_refused():
    _, compiled = twins()
    with pytest.raises(ValueError, match="visible must be bool"):
        compiled(torch.randn(1, 3, 16, 32, 32), torch.ones(1, 3, dtype=torch.bool))
