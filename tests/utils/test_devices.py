import pytest
import torch

from adatosk.model import create_model
from adatosk.utils.devices import moved, run_device


def test_the_default_is_what_the_environment_names_or_the_gpu_if_there_is_one(monkeypatch):
    assert run_device() == torch.device("cpu") == run_device("cpu")  # these tests name it
    monkeypatch.setenv("ADATOSK_DEVICE", "cuda:3")
    with pytest.raises(ValueError, match=r"device 'cuda:3': torch .* sees \d GPUs here: name cpu or another"):
        run_device()
    assert run_device("cpu").type == "cpu"
    monkeypatch.delenv("ADATOSK_DEVICE")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert run_device().type == "cpu"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    assert run_device() == torch.device("cuda")


def test_a_gpu_multiplies_float32_without_tf32(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    before = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
    try:
        torch.set_float32_matmul_precision("high")
        assert run_device("cuda:1") == torch.device("cuda:1")
        assert torch.get_float32_matmul_precision() == "highest" and not torch.backends.cudnn.allow_tf32
    finally:
        torch.set_float32_matmul_precision(before[0])
        torch.backends.cudnn.allow_tf32 = before[1]


@pytest.mark.parametrize(
    ("name", "message"), [("gpu", "unknown device 'gpu': name cpu, cuda or"), ("meta", "models run on cpu and cuda")]
)
def test_other_devices_are_refused(name, message):
    with pytest.raises(ValueError, match=message):
        run_device(name)


def test_a_moved_model_returns_even_after_an_error():
    with torch.device("meta"):
        model = create_model("adatosk_tiny")
    with pytest.raises(NotImplementedError, match="meta"), moved(model, "cpu"):  # it has no values to move
        pass
    with pytest.raises(KeyError), moved(create_model("adatosk_tiny"), "cpu") as model:
        assert model.mask_token.device.type == "cpu"
        raise KeyError
