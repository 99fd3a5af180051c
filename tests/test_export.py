import warnings

import pytest
import torch
from commands import command

from adatosk import create_model
from adatosk.export import export_program, fixed_masks, to_onnx


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return create_model("adatosk_tiny").train()


def answers(model, visible, batch):
    """Clips, and the model's own logits for them under the same masks."""
    video = torch.randn(batch, 3, 16, 32, 32, generator=torch.Generator().manual_seed(batch))
    with torch.no_grad():
        return video, model.eval().classify_masks(video, [mask.expand(batch, -1) for mask in visible])


def test_the_program_gives_the_models_logits_for_any_batch(model, tmp_path):
    visible = fixed_masks(model, views=2)
    torch.export.save(export_program(model.train(), visible), tmp_path / "model.pt2")
    assert model.training and hasattr(model, "decoder")
    program = torch.export.load(tmp_path / "model.pt2")
    assert not [name for name in program.state_dict if "decoder" in name]
    for batch in (1, 3, 5):
        video, logits = answers(model, visible, batch)
        torch.testing.assert_close(program.module()(video), logits, rtol=0, atol=1e-4)


def test_onnxruntime_gives_them_too(model, tmp_path):
    runtime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    visible = fixed_masks(model, seed=3)
    path = to_onnx(model, tmp_path / "new" / "model.onnx", visible)
    assert [file.name for file in path.parent.iterdir()] == ["model.onnx"]
    session = runtime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    for batch in (1, 3):
        video, logits = answers(model, visible, batch)
        (found,) = session.run(["logits"], {"video": video.numpy()})
        torch.testing.assert_close(torch.from_numpy(found), logits, rtol=0, atol=1e-4)
        _, others = answers(model, fixed_masks(model, seed=4), batch)
        assert (logits - others).abs().max() > 1e-3  # another mask would not pass


def test_masks_are_checked():
    model = create_model("adatosk_tiny")
    with pytest.raises(ValueError, match="visible must be bool"):
        export_program(model, torch.ones(2, 5, dtype=torch.bool))
    with pytest.raises(ValueError, match="views must be at least 1, got 0"):
        fixed_masks(model, views=0)


def test_what_is_missing_is_named(monkeypatch, tmp_path):
    find = __import__("importlib.util").util.find_spec
    monkeypatch.setattr("importlib.util.find_spec", lambda name, *rest: None if name == "onnx" else find(name, *rest))
    with pytest.raises(ModuleNotFoundError, match=r"needs onnx: pip install onnx$"):
        to_onnx(create_model("adatosk_tiny"), tmp_path / "model.onnx")


def test_the_command_line_writes_a_program_or_says_why_not(model, tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model.save_pretrained(tmp_path / "model")
    target = tmp_path / "model.pt2"
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message="No complete tensor")  # torch's, above the line that names the file
        done = command("export", tmp_path / "model", "--program", target)
    assert done.exit_code == 0 and done.stdout.strip() == str(target) and target.is_file()
    done = command("export", tmp_path, "--program", target)
    assert done.exit_code == 1 and done.stderr.startswith("error: ")
    done = command("export", tmp_path / "model")
    assert done.exit_code == 2 and "nothing to write" in done.stderr


@pytest.mark.parametrize("kind", ["--program", "--onnx"])
def test_a_failed_export_keeps_what_was_there_and_is_one_line(model, tmp_path, monkeypatch, kind):
    pytest.importorskip("onnxscript")
    model.save_pretrained(tmp_path / "model")
    target = tmp_path / "new" / "model.out"
    target.parent.mkdir()
    target.write_text("before")

    def full(*arguments, **options):
        place = options.get("f", arguments[-1])
        with open(place, "wb") if isinstance(place, str) else place as file:  # noqa: PTH123  a name or a file
            file.write(b"half")
        raise RuntimeError("PytorchStreamWriter failed\nwriting file")

    monkeypatch.setattr("torch.onnx.export" if kind == "--onnx" else "torch.export.save", full)
    done = command("export", tmp_path / "model", kind, target)
    assert done.exit_code == 1 and done.stderr.count("\n") == 1
    assert done.stderr.startswith("error: the file could not be written: make room")
    assert target.read_text() == "before" and [file.name for file in target.parent.iterdir()] == ["model.out"]


def test_the_programs_folder_is_made_or_told(model, tmp_path):
    model.save_pretrained(tmp_path / "model")
    target = tmp_path / "new" / "deep" / "model.pt2"
    assert command("export", tmp_path / "model", "--program", target).exit_code == 0
    assert [file.name for file in target.parent.iterdir()] == ["model.pt2"]
    done = command("export", tmp_path / "model", "--program", target / "below.pt2")
    said = done.stderr
    assert done.exit_code == 1
    assert said.startswith("error: ") and str(target) in said and said.count("\n") == 1
