import sys
from functools import partial

import pandas as pd
import pytest
import torch
from commands import command

from adatosk.cost import contenders
from adatosk.cost import models as bench
from adatosk.cost.contenders import CONTENDERS, RIVAL, SAME_PRODUCTS, WORKS, Setup, count_work, prepare
from adatosk.cost.models import benchmark, grown, growth, measure, table2_times
from adatosk.cost.operations import hand_count
from adatosk.onednn import Linear
from adatosk.presets import MODELS

TINY = MODELS["adatosk_tiny"]


@pytest.fixture(autouse=True)
def small_products(monkeypatch):
    """The device's peak from products that take no seconds; test_timing measures the rate itself."""
    monkeypatch.setattr(bench, "matrix_peaks", partial(bench.matrix_peaks, sizes=(256,), repeats=2))


@pytest.mark.parametrize("name", CONTENDERS)
@pytest.mark.parametrize("work", WORKS)
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_every_contender_works(name, work, precision):
    prepare(name, TINY, Setup(work, 2, precision))()


def dense(parameter):
    return parameter.detach().to_dense() if parameter.is_mkldnn else parameter.detach()


def test_the_rival_runs_as_its_library_makes_it_and_once_more_with_our_products(monkeypatch):
    assert not any(type(module) is Linear for module in contenders.build(RIVAL, TINY).modules())
    assert any(type(module) is Linear for module in contenders.build(SAME_PRODUCTS, TINY).modules())
    prepared = []
    monkeypatch.setattr(contenders, "for_inference", lambda model, dtype: prepared.append(dtype) or model.eval())
    for name in CONTENDERS:
        prepare(name, TINY, Setup())
    assert prepared == [torch.float32] * 3


def test_weights_are_converted_once_for_a_forward_pass_in_bf16(monkeypatch):
    models, classifier = [], contenders._classifier
    monkeypatch.setattr(contenders, "_classifier", lambda *args: models.append(args[0]) or classifier(*args))
    for name in CONTENDERS:
        prepare(name, TINY, Setup(precision="bf16"))()
        assert {p.dtype for p in models[-1].parameters()} == {torch.bfloat16}


def test_a_training_step_changes_weights_and_a_forward_pass_does_not(monkeypatch):
    models = []
    build = contenders.build
    monkeypatch.setattr(contenders, "build", lambda *args: models.append(build(*args)) or models[-1])
    for name in CONTENDERS:
        for work in WORKS:
            run = prepare(name, TINY, Setup(work))
            before = [dense(p).clone() for p in models[-1].parameters()]
            run()
            after = map(dense, models[-1].parameters())
            moved = sum(not torch.equal(a, b) for a, b in zip(before, after, strict=True))
            assert moved == 0 if work == "forward" else moved > len(before) / 2


def test_work_is_counted_as_by_hand():
    assert count_work("adatosk", TINY, "forward") == hand_count(TINY).total()
    # VideoMAE sees every patch and has one layer where our head has two.
    whole = hand_count(TINY.change(mask_ratio=0.0, soft_mask=None))
    one_layer = TINY.width * len(TINY.classes)
    assert count_work(RIVAL, TINY, "forward") == sum(whole.values()) - whole["head"] + one_layer
    ratio = count_work("adatosk", TINY, "training step") / hand_count(TINY, training=True).total()
    assert 2.5 < ratio < 3.3  # backward takes two products for each of forward


def test_compiled_contenders_go_through_the_compiler(monkeypatch):
    compiled = []
    monkeypatch.setattr(torch, "compile", lambda work, **options: compiled.append(work) or work)
    for name in CONTENDERS:
        for work in WORKS:
            before = len(compiled)
            prepare(name, TINY, Setup(work))()
            assert len(compiled) == before
            prepare(name, TINY, Setup(work, compiled=True))()
            # Our models' two ways through, both branches and the classifier alone, are a graph each.
            assert len(compiled) == before + (2 if name.startswith("adatosk") else 1)


def test_what_does_not_compile_has_a_reason_and_no_time(monkeypatch):
    def broken(work, **options):
        def run(*args, **kwargs):
            raise RuntimeError("no C++ compiler\nsecond line")

        return run

    monkeypatch.setattr(torch, "compile", broken)
    table = measure(TINY, Setup(compiled=True), repeats=1)
    assert SAME_PRODUCTS not in set(table["model"])  # compiled, it is the rival once more
    assert table["seconds"].isna().all() and table["speed_up"].isna().all()
    assert set(table["reason"]) == {"RuntimeError: no C++ compiler"}
    assert (table["gmacs"] > 0).all()


def test_a_failure_that_is_not_the_compilers_stops_the_run(monkeypatch):
    monkeypatch.setattr(bench, "prepare", lambda *args: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        measure(TINY, Setup(), repeats=1)


def test_peak_memory_holds_at_least_the_input():
    if not sys.platform.startswith("linux"):
        pytest.skip("the resident size is read from /proc")
    config, batch = TINY.change(image_size=64), 64
    clip_mib = 3 * config.frames * config.image_size**2 * 4 / contenders.MIB
    found = contenders.peak_memory("adatosk", config, Setup(batch=batch))
    assert batch * clip_mib < found < 20 * batch * clip_mib


def test_table_has_every_setup_its_peak_share_and_provenance(tmp_path, capsys):
    setups = [Setup(work, batch) for work in WORKS for batch in (1, 2)] + [Setup(precision="bf16")]
    table = benchmark("cpu", TINY, setups=setups, repeats=5, memory=False)
    assert len(table) == 4 * 5
    assert len(capsys.readouterr().out.splitlines()) == 5
    assert (table.query("model == @RIVAL")["speed_up"] == 1).all()
    rate = 2 * table["gmacs"] * table["batch"] / table["seconds"]
    assert table["peak_share"].tolist() == pytest.approx((rate / table["peak_gflops"]).tolist())
    assert table["memory_mib"].isna().all() and not table["reason"].any()
    shares = table.dropna(subset="soft_mask_share")
    assert set(shares["model"]) == {"adatosk"} and len(shares) == 2 and shares["soft_mask_share"].between(0, 1).all()
    for column in ("commit", "lock", "device", "torch", "python"):
        assert table[column].notna().all()
    path = bench.write_table(table, tmp_path / "benchmark")
    assert path.suffix == ".csv" and list(path.parent.iterdir()) == [path]
    (read,) = bench.recorded(folder=path.parent).values()
    assert read.shape == table.shape and read["sweep"].isna().all()


def test_recorded_tables_are_told_apart_by_their_suffix(tmp_path):
    for suffix in ("", *bench.OTHERS):
        bench.write_table(pd.DataFrame({"device": ["A GPU"], "suffix": [suffix or "none"]}), tmp_path, suffix)
    for suffix in ("", *bench.OTHERS):
        (table,) = bench.recorded(suffix, tmp_path).values()
        assert table["suffix"].tolist() == [suffix or "none"]
    assert bench.recorded(folder=tmp_path / "none") == {}


def test_one_size_grows_at_a_time(capsys):
    sweeps = {"frames": (8, 32), "image_size": (16, 64), "batch": (1, 3)}
    table = growth("cpu", TINY, ("adatosk",), sweeps, repeats=1)
    assert table["sweep"].tolist() == ["frames"] * 2 + ["image_size"] * 2 + ["batch"] * 2
    for sweep, values in sweeps.items():
        rows = table[table["sweep"] == sweep]
        assert tuple(rows[sweep]) == values
        for other in set(sweeps) - {sweep}:
            assert set(rows[other]) == {1 if other == "batch" else getattr(TINY, other)}
    for row in table.itertuples():
        config = grown(TINY, frames=row.frames, image_size=row.image_size)
        assert row.gmacs == pytest.approx(hand_count(config).total() / 1e9)
        assert row.excluded_per_step == config.soft_mask.excluded_per_step


def test_what_cannot_be_excluded_at_another_size_is_not():
    base = MODELS["adatosk_base"]
    # 49, 100 and 196 patches leave 14, 30 and 58 visible; 8 steps take fewer than that.
    excluded = [grown(base, image_size=side).soft_mask.excluded_per_step for side in (112, 160, 224, 288)]
    assert excluded == [1, 3, 4, 4]
    assert grown(base, frames=4).soft_mask.top_k == 1
    assert grown(base.change(soft_mask=None), image_size=112).soft_mask is None


def test_table_2_is_timed_cell_by_cell_beside_its_counts():
    config = TINY.change(image_size=64, mask_ratio=0.7, soft_mask={"top_k": 2})
    table = table2_times("cpu", config, repeats=1, report=lambda line: None).set_index("model")
    assert table.loc["every patch", "gmacs"] == pytest.approx(
        hand_count(config.change(mask_ratio=0.0, soft_mask=None)).total() / 1e9
    )
    assert {"70% hidden, no soft mask", "25% hidden, r = 0", "25% hidden, r = 2"} <= set(table.index)
    assert "70% hidden, r = 6" not in table.index
    assert (table["sweep"] == "table 2").all() and (table["seconds"] > 0).all()
    for name, cells in table[table.index.str.contains(", r =")].groupby("mask_ratio"):
        assert cells["gmacs"].is_monotonic_decreasing, name


def test_command_line_prints_and_writes(tmp_path):
    done = command("benchmark", "--quick", "--sizes", "adatosk_tiny", "--device", "cpu", "--out", tmp_path)
    assert done.exit_code == 0 and "adatosk without soft mask" in done.stdout
    assert pd.read_csv(done.stdout.splitlines()[-1])["batch"].eq(1).all()


def test_wrong_names_are_told():
    with pytest.raises(
        ValueError, match="unknown contender 'resnet': choose videomae, videomae through oneDNN, adatosk without"
    ):
        contenders.build("resnet", TINY)
    with pytest.raises(ValueError, match="unknown work 'backward'"):
        Setup("backward")
    with pytest.raises(ValueError, match="unknown precision 'int8'"):
        Setup(precision="int8")
    with pytest.raises(ValueError, match="at least 1, got 0"):
        Setup(batch=0)


def test_missing_transformers_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(ModuleNotFoundError, match=r"pip install -e \.\[dev\]"):
        contenders.build(RIVAL, TINY)


def test_the_soft_masks_savings_are_told_session_by_session():
    rows = [
        ("adatosk without soft mask", "forward", 1, "fp32", False, None, 10.0, 2.0),
        ("adatosk", "forward", 1, "fp32", False, None, 9.0, 1.5),
        ("adatosk", "forward", 4, "fp32", False, None, 9.0, 9.0),
        ("adatosk", "forward", 1, "bf16", False, None, 9.0, 9.0),
        ("adatosk", "training step", 1, "fp32", False, None, 9.0, 9.0),
        ("70% hidden, no soft mask", "forward", 1, "fp32", False, "table 2", 10.0, 1.0),
        ("70% hidden, r = 2", "forward", 1, "fp32", False, "table 2", 9.0, 1.1),
        ("50% hidden, r = 2", "forward", 1, "fp32", False, "table 2", 20.0, 5.0),
    ]
    columns = ["model", "work", "batch", "precision", "compiled", "sweep", "gmacs", "seconds"]
    saved = bench.soft_mask_savings(pd.DataFrame(rows, columns=columns))
    assert saved["operations"].tolist() == pytest.approx([0.1, 0.1])
    assert saved["time"].to_dict() == pytest.approx({"benchmark": 0.25, "table 2": -0.1})
