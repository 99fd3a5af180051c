"""What a step does on a GPU, tried without one.

torch's fake tensors have a device and no values: operands on two devices fail as they would there, and so does whatever
needs a value in Python, for which a CPU would wait until the GPU is done.
"""

import pytest
import torch
from torch._subclasses.fake_tensor import DataDependentOutputException, FakeTensorMode

from adatosk.config import TrainConfig
from adatosk.losses import reconstruction_target, total_loss
from adatosk.model import create_model
from adatosk.tokens import check_mask

CHANGES = (
    {},
    {"soft_mask": None},
    {"head_norm": "batch"},
    {"soft_mask": {"agnostic": False}},
    {"soft_mask": {"score_block": None}},
    {"soft_mask": {"semantic": "none", "excluded_per_step": 0}},
)


@pytest.fixture(autouse=True)
def no_values():
    with FakeTensorMode():
        yield


def on_gpu(**changes):
    with torch.device("cuda"):  # fake tensors cannot be moved by Module.to
        model = create_model("adatosk_tiny", **changes)
    config = model.config
    video = torch.randn(2, 3, config.frames, config.image_size, config.image_size, device="cuda")
    return model, video, torch.zeros(2, dtype=torch.int64, device="cuda")


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("as_bytes", [True, False])
def test_both_branches_and_the_loss_stay_on_the_gpu_and_wait_for_nothing(change, as_bytes):
    """The backward pass is torch's own; without a GPU its engine does not start."""
    model, video, labels = on_gpu(**change)
    video = video.to(torch.uint8) if as_bytes else video
    visible = model(video).visible
    output = model(video, visible, count=model.config.visible_patches)
    losses = total_loss(output, video, labels, model.config, TrainConfig())
    assert losses.total.device.type == output.visible.device.type == "cuda"


@pytest.mark.parametrize("change", CHANGES)
def test_classification_stays_on_the_gpu(change):
    model, video, _ = on_gpu(**change)
    with torch.no_grad():
        logits = model.eval()(video, reconstruct=False).logits
    assert logits.device.type == "cuda" and logits.shape == (2, 7)


def test_what_would_wait_or_mix_devices_is_noticed():
    model, video, _ = on_gpu()
    visible = model(video).visible
    for waits in (
        lambda: check_mask(visible, 2, model.config.patches),
        lambda: reconstruction_target(video, visible, model.config),
    ):
        with pytest.raises(DataDependentOutputException):
            waits()
    with pytest.raises(RuntimeError, match="device"):
        model(video.cpu())
