"""A step's graph, tried on a CPU: what records there repeats the work on the same memory, as a CUDA graph does."""

import pytest
import torch
from accelerate import Accelerator

from adatosk.config import TrainConfig
from adatosk.model import create_model
from adatosk.training.graphs import WARM_UP, StepGraph, step_graph
from adatosk.training.optim import make_optimizer, optimizer_step
from adatosk.utils import seeds


def trained(graph, steps=WARM_UP + 4):
    """The losses and the weights of a tiny model after a few steps, each on other clips."""
    torch.manual_seed(0)
    model, train = create_model("adatosk_tiny"), TrainConfig(clip_grad=0.5, base_lr=0.1)
    optimizer, accelerator, losses = make_optimizer(model, train), Accelerator(cpu=True), []
    for step in range(steps):
        draw = seeds.generator(1, step)
        video = torch.randint(256, (3, 3, 16, 32, 32), dtype=torch.uint8, generator=draw)
        batch = {"video": video, "label": torch.randint(7, (3,), generator=draw)}
        found = optimizer_step(model, batch, optimizer, train, accelerator, draw, graph)
        losses.append(found.total.detach().clone())
    return torch.stack(losses), model.state_dict()


def same(first, second):
    return torch.equal(first[0], second[0]) and all(torch.equal(second[1][name], first[1][name]) for name in first[1])


def test_replayed_steps_are_the_same_as_launched_ones():
    lines, recorded = [], []

    def record(work):
        recorded.append(work)
        return work

    assert same(trained(None), trained(StepGraph(lines.append, record)))
    assert len(recorded) == 1 and lines == ["forward and backward pass are replayed as one CUDA graph"]


def test_a_graph_that_cannot_be_recorded_is_reported_and_changes_nothing():
    lines = []

    def record(work):
        work()
        raise RuntimeError("operation not permitted when stream is capturing\nmore")

    assert same(trained(None), trained(StepGraph(lines.append, record)))
    assert len(lines) == 1 and lines[0].endswith(
        "each kernel of a step is launched: operation not permitted when stream is capturing"
    )


def test_a_cpu_has_no_graphs():
    assert step_graph(TrainConfig(cuda_graph=True), create_model("adatosk_tiny")) is None


@pytest.mark.parametrize(
    ("model", "train", "processes", "expected"),
    [
        ("adatosk_small", {}, 1, True),
        ("adatosk_small", {"cuda_graph": False}, 1, False),
        ("adatosk_small", {"compile": True}, 1, False),
        ("adatosk_small", {}, 2, False),
        ("adatosk_base", {}, 1, False),
        ("adatosk_base", {"cuda_graph": True, "compile": True}, 1, True),
    ],
)
def test_small_models_have_one_on_a_gpu(model, train, processes, expected):
    with torch._subclasses.fake_tensor.FakeTensorMode(), torch.device("cuda"):
        model = create_model(model)
    assert (step_graph(TrainConfig(**train), model, processes) is not None) == expected


def test_one_over_several_processes_is_refused():
    train = TrainConfig(cuda_graph=True)
    assert train.share(1) == 128
    with pytest.raises(ValueError, match="cuda_graph is for one process, and these are 2: set it to null or false"):
        train.share(2)
