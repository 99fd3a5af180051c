import pandas as pd
import pytest
import torch
from media import moving_frames, truncate, write_frames, write_video

from adatosk import create_model
from adatosk import predict_many as many
from adatosk.predict import predict
from adatosk.predict_many import find_videos, main, predict_many


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Seven videos, of which the fourth is cut off."""
    root = tmp_path_factory.mktemp("videos")
    for number in range(7):
        write_video(root / f"clip{number + 4}.mp4", moving_frames(64 + number, 48, 64, seed=number))
    truncate(root / "clip7.mp4", 0.5)
    (root / "notes.txt").write_text("no video")
    return root


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return create_model("adatosk_tiny").train()


def test_every_video_has_its_row_in_order_as_if_it_were_alone(folder, model):
    paths = find_videos(folder)
    assert [path.name for path in paths] == [f"clip{number}.mp4" for number in range(4, 11)]  # 10 after 9
    table = predict_many(paths[::-1], model, batch_size=3, views=2, locate_face=False)
    assert table["path"].tolist() == [str(path) for path in paths[::-1]]
    for row in table.itertuples():
        if row.path.endswith("clip7.mp4"):
            assert "clip7.mp4" in row.error and pd.isna(row.label) and pd.isna(row.happy)
            continue
        alone = predict(row.path, model, views=2, locate_face=False)
        assert row.label == alone.label and not row.error
        found = [getattr(row, name) for name in alone.probabilities]
        assert found == pytest.approx(list(alone.probabilities.values()), abs=1e-5)
    assert model.training and not model.encoder.blocks[0].attn.qkv.weight.is_mkldnn


def test_the_decoder_does_not_run_and_half_precision_is_close(folder, monkeypatch):
    torch.manual_seed(0)
    model = create_model("adatosk_tiny", soft_mask=None)
    monkeypatch.setattr(type(model.decoder), "forward", lambda *args: 1 / 0)
    tables = [predict_many(folder, model, precision=precision, locate_face=False) for precision in ("fp32", "bf16")]
    values = [table[list(model.config.classes)].dropna().to_numpy() for table in tables]
    assert len(values[0]) == 6
    assert 0 < abs(values[0] - values[1]).max() < 0.05


def test_compiled_batches_all_have_one_size(folder, model, monkeypatch):
    sizes = []

    def compiled(module):
        return lambda video: sizes.append(len(video)) or module.eval()(video)

    monkeypatch.setattr(torch, "compile", compiled)
    table = predict_many(folder, model, batch_size=4, compile=True, locate_face=False)
    assert sizes == [4, 4]
    plain = predict_many(folder, model, batch_size=4, locate_face=False)
    pd.testing.assert_frame_equal(table, plain, atol=1e-5)


def test_only_so_many_videos_are_read_ahead():
    read, paths = [], list(range(20))
    results = many._ahead(paths, lambda path: read.append(path) or path, workers=2, ahead=3)
    assert next(results) == 0
    assert max(read) <= 3
    assert list(results) == paths[1:]


def test_folders_of_frames_are_videos_too(tmp_path, model):
    for number in (2, 10):
        write_frames(tmp_path / f"person{number}", moving_frames(20, 48, 48, seed=number))
    table = predict_many(tmp_path, model, locate_face=False)
    assert [path.rsplit("person")[1] for path in table["path"]] == ["2", "10"] and table["label"].notna().all()


def test_wrong_arguments_are_told(tmp_path, model):
    with pytest.raises(FileNotFoundError, match="neither video files nor folders"):
        predict_many(tmp_path, model)
    with pytest.raises(ValueError, match="unknown precision 'int8'"):
        predict_many([], model, precision="int8")
    with pytest.raises(ValueError, match="batch_size must be at least 1"):
        predict_many([], model, batch_size=0)


def test_the_command_line_writes_a_table_and_lists_what_has_no_label(folder, model, tmp_path, capsys):
    model.save_pretrained(tmp_path / "model")
    out = tmp_path / "labels.csv"
    assert main([str(folder), "--model", str(tmp_path / "model"), "--out", str(out), "--whole-frame"]) == 1
    printed = capsys.readouterr()
    assert printed.out == f"{out}: 6 of 7 videos\n"
    assert printed.err.startswith("no label: ") and "clip7.mp4" in printed.err
    assert pd.read_csv(out)["label"].notna().sum() == 6
    good = str(folder / "clip4.mp4")
    assert main([good, "--model", str(tmp_path / "model"), "--out", str(out), "--whole-frame"]) == 0
    assert main([good, "--model", str(tmp_path), "--out", str(out)]) == 1
    assert "config.json" in capsys.readouterr().err
