"""What has to hold on a GPU: the CPU's numbers, compiled code, whole runs, prediction and export there.

Skipped without one. With ADATOSK_GPU_TESTS_ON=cpu they are rehearsed on a CPU, which shows that they run.
"""

import copy
import json
from dataclasses import replace

import pytest
import torch
from media import moving_frames, write_video
from runs import render_pair, short_run, train_cut_off, weights_of

from adatosk.clips.transforms import central_window, cut, cut_batch, draw_window
from adatosk.config import TrainConfig
from adatosk.evaluate import predict_split
from adatosk.experiments.activation_map import token_statistics
from adatosk.export import export_program
from adatosk.losses import reconstruction_loss, total_loss
from adatosk.model import create_model
from adatosk.predict import predict
from adatosk.presets import PROFILES
from adatosk.tokens import tube_mask
from adatosk.train import Places, train
from adatosk.training.optim import make_optimizer
from adatosk.utils.provenance import device_name

pytestmark = pytest.mark.gpu

PLAIN = {"score_block": None, "excluded_per_step": 0}
MASKS = [
    {},
    None,
    {"agnostic": False},
    {"score_block": None},
    {"gate": "literal"},
    *({"distance": name} for name in ("l2", "cosine", "classification")),
    *({"axis": name} for name in ("token", "time", "channel")),
    *({"activation": name} for name in ("raw", "detached", "shuffled")),
    *({"scaling": name} for name in ("constant", "frame", "mean")),
    {"semantic": "M"},
    *({"semantic": name, **PLAIN} for name in ("A", "none")),
]


def pair(device, **changes):
    """The same model on the CPU and on the device, clips, labels and a hard mask."""
    torch.manual_seed(0)
    model = create_model("adatosk_tiny", **changes)
    config = model.config
    video = torch.randn(4, 3, config.frames, config.image_size, config.image_size)
    visible = tube_mask(4, config.patches, config.mask_ratio)
    return model, copy.deepcopy(model).to(device), video, torch.arange(4), visible


def loss_of(model, video, labels, visible):
    device = model.mask_token.device
    video, labels = video.to(device), labels.to(device)
    output = model(video, visible)
    return output, total_loss(output, video, labels, model.config, TrainConfig(cls_weight=1.0)).total


def assert_near(found, expected, share):
    """Equal but for a share of the whole tensor's size."""
    found, expected = found.detach().cpu().float(), expected.detach().cpu().float()
    assert (found - expected).norm() <= share * expected.norm() + 1e-12, (found - expected).abs().max()


@pytest.mark.parametrize("change", [*({"soft_mask": mask} for mask in MASKS), {"head_norm": "batch"}], ids=str)
def test_logits_loss_masks_and_gradients_are_the_cpus(gpu, change):
    here, there, *batch = pair(gpu, **change)
    (one, one_loss), (other, other_loss) = loss_of(here, *batch), loss_of(there, *batch)
    assert other.logits.device.type == gpu.type
    assert_near(other.logits, one.logits, 1e-5)
    assert_near(other.reconstruction, one.reconstruction, 1e-5)
    assert_near(other_loss, one_loss, 1e-5)
    if one.soft_mask is not None:
        assert torch.equal(other.soft_mask.kept.cpu(), one.soft_mask.kept)
        assert_near(other.soft_mask.weights, one.soft_mask.weights, 1e-4)
    one_loss.backward()
    other_loss.backward()
    whole = torch.cat([p.grad.flatten() for p in here.parameters() if p.grad is not None]).norm()
    for name, parameter in here.named_parameters():
        if parameter.grad is not None:
            difference = there.get_parameter(name).grad.cpu() - parameter.grad
            assert difference.norm() <= 1e-4 * parameter.grad.norm() + 1e-6 * whole, name


def test_where_the_gradient_of_a_clip_goes_is_measured_as_on_the_cpu(gpu):
    here, there, *batch = pair(gpu)
    expected = token_statistics(here, *batch)
    assert token_statistics(there, *batch) == pytest.approx(expected, rel=1e-3)


def test_bf16_keeps_the_same_tokens_and_nearly_the_logits(gpu):
    here, there, video, _, visible = pair(gpu)
    with torch.inference_mode(), torch.autocast(gpu.type, dtype=torch.bfloat16):
        found = there.eval()(video.to(gpu), visible)
    expected = here.eval()(video, visible)
    assert torch.equal(found.soft_mask.kept.cpu(), expected.soft_mask.kept)
    assert_near(found.logits, expected.logits, 2e-2)


@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16], ids=str)
def test_compiled_training_computes_what_eager_does(gpu, precision):
    """By the compiler of the paper profiles' runs; a CPU's, for which tests/test_compile.py stands, is not called."""
    _, eager, *batch = pair(gpu)
    compiled = copy.deepcopy(eager)
    compiled.compile(**({} if gpu.type == "cuda" else {"backend": "aot_eager"}))
    gradients, share = [], 1e-4 if precision == torch.float32 else 5e-2
    for model in (eager, compiled):
        with torch.autocast(gpu.type, dtype=torch.bfloat16, enabled=precision == torch.bfloat16):
            _, loss = loss_of(model, *batch)
        loss.backward()
        gradients.append(torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None]))
    assert_near(gradients[1], gradients[0], share)


def test_whole_batches_are_cut_to_the_cpus_pixels(gpu):
    clip = torch.randint(0, 256, (4, 3, 90, 112), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    windows = [draw_window(90, 112, torch.Generator().manual_seed(seed), 64) for seed in range(40)]
    windows.append(central_window(90, 112, image_size=64))
    frames = clip.permute(0, 2, 3, 1).expand(len(windows), -1, -1, -1, -1).to(gpu)
    found = cut_batch(frames, torch.tensor(windows, device=gpu), 64).cpu()
    assert torch.equal(found, torch.stack([cut(clip, window, 64) for window in windows]).transpose(1, 2))


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return render_pair(tmp_path_factory.mktemp("data"))


@pytest.mark.parametrize("cache_size", [32, None])
def test_a_run_trains_there_and_resumes_with_the_same_result(gpu, data, tmp_path, cache_size):
    """Once from the cache in this process, once from videos by a loader's processes; the step is a fused one."""
    config = short_run(data, data={"cache_size": cache_size})
    places = Places(data, tmp_path / "whole", tmp_path / "cache", workers=0 if cache_size else 1)
    whole = train(config, places, report=lambda line: None)
    assert json.loads((whole / "metrics.json").read_text())["provenance"]["device"] == device_name(gpu)
    cut_off = replace(places, results=tmp_path / "cut")
    train_cut_off(config, cut_off)
    lines = []
    resumed = train(config, cut_off, report=lines.append)
    assert any("resuming after epoch 1" in line for line in lines)
    first, second = weights_of(whole), weights_of(resumed)
    for name, value in first.items():
        torch.testing.assert_close(second[name], value, rtol=1e-3, atol=1e-5, msg=name)


def test_a_small_models_graph_changes_nothing(gpu, data, tmp_path):
    """The same kernels in the same order: the same losses, to the order in which a GPU adds."""
    logs, lines = [], []
    for graph in (True, False):
        config = short_run(data, model={"head_norm": "batch"}, train={"cuda_graph": graph, "clip_grad": 1.0})
        folder = train(config, Places(data, tmp_path / str(graph), tmp_path / "cache", workers=0), report=lines.append)
        logs.append([json.loads(line)["loss"] for line in (folder / "log.jsonl").read_text().splitlines()])
    assert logs[0] == pytest.approx(logs[1], rel=1e-4)
    assert any("as one CUDA graph" in line for line in lines) == (gpu.type == "cuda"), lines


def test_the_loss_from_bytes_is_the_cpus(gpu):
    here, there, video, _, visible = pair(gpu)
    clips = ((video.clamp(-2, 2) + 2) * 63).to(torch.uint8)
    found, expected = (
        reconstruction_loss(
            model(clips.to(device), visible).reconstruction, clips.to(device), visible.to(device), model.config
        )
        for model, device in ((there, gpu), (here, "cpu"))
    )
    assert_near(found, expected, 1e-5)


def test_training_in_bf16_lowers_the_loss(gpu, data, tmp_path):
    options = {"epochs": 30, "warmup_epochs": 2, "base_lr": 0.1, "eval_every": 30, "precision": "bf16"}
    places = Places(data, tmp_path / "out", tmp_path / "cache", workers=0)
    folder = train(short_run(data, train=options), places, report=lambda line: None)
    log = [json.loads(line)["loss"] for line in (folder / "log.jsonl").read_text().splitlines()]
    assert sum(log[-5:]) < 0.9 * sum(log[:5])


def test_predictions_are_the_cpus(gpu, tmp_path):
    torch.manual_seed(0)
    create_model("adatosk_tiny").save_pretrained(tmp_path / "model")
    video = write_video(tmp_path / "a.mp4", moving_frames(64, 48, 48))
    found = predict(video, tmp_path / "model", locate_face=False)
    expected = predict(video, tmp_path / "model", locate_face=False, device="cpu")
    assert found.device == device_name(gpu) and found.label == expected.label
    assert_near(found.logits, expected.logits, 1e-5)


def test_a_split_has_the_cpus_logits(gpu):
    here, there, video, labels, _ = pair(gpu)
    clips = ((video.clamp(-2, 2) + 2) * 63).to(torch.uint8)
    batches = [{"video": clips, "label": labels, "index": torch.arange(4)}]
    evaluation = PROFILES["smoke"].evaluation.model_copy(update={"views": (1, 3), "complementary": True})
    expected, found = (predict_split(model, batches, evaluation).logits for model in (here, there))
    for protocol, logits in expected.items():
        assert_near(found[protocol], logits, 1e-5)


def test_an_exported_program_gives_the_models_logits_there(gpu):
    here, there, video, _, _ = pair(gpu)
    found, expected = (
        export_program(model).module()(clips) for model, clips in ((there, video.to(gpu)), (here, video))
    )
    assert found.device.type == gpu.type
    assert_near(found, expected, 1e-5)


def test_memory_does_not_grow_over_steps(gpu):
    _, model, *batch = pair(gpu)
    optimizer, used = make_optimizer(model, TrainConfig()), []
    for _ in range(12):
        optimizer.zero_grad()
        loss_of(model, *batch)[1].backward()
        optimizer.step()
        used.append(torch.cuda.memory_allocated() if gpu.type == "cuda" else 0)
    assert len(set(used[3:])) == 1, used


def test_the_optimiser_takes_one_kernel_there(gpu):
    optimizer = make_optimizer(create_model("adatosk_tiny").to(gpu), TrainConfig())
    assert bool(optimizer.defaults.get("fused")) == (gpu.type == "cuda")
