"""The embedded benchmark is the same everywhere, balanced, and says truthfully when and where faces move."""

from collections import Counter

import av
import numpy as np
import pytest
import yaml

from adatosk import manifests
from adatosk.synthetic import (
    BENCHMARKS,
    BenchmarkConfig,
    benchmark,
    build_manifest,
    ground_truth,
    load_truth,
    render,
    sample_script,
    write_benchmark,
    write_film,
)
from adatosk.synthetic.action_units import CLASS_UNITS, CLASSES_11, UNITS
from adatosk.utils.project import PROJECT
from adatosk.video import read_clip, read_frames

DEMO = BENCHMARKS["embedded-demo"]
TINY = BenchmarkConfig(
    name="tiny", train_clips=3, test_clips=2, train_identities=2, test_identities=2, size=64, frames=(16, 20)
)


def scripts(config, split="train", count=35):
    return [sample_script(config, split, index) for index in range(count)]


def files(root):
    return {path.relative_to(root).as_posix(): path.stat().st_mtime_ns for path in root.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    root = tmp_path_factory.mktemp("written")
    return root, write_benchmark(TINY, root, workers=1, progress=False)


# --- sampling


def test_same_seed_same_pixels():
    first, second = (render(sample_script(TINY, "train", 1), TINY) for _ in range(2))
    np.testing.assert_array_equal(first, second)
    assert first.shape[1:] == (64, 64, 3)
    assert first.dtype == np.uint8


def test_other_seed_other_pixels():
    other = TINY.model_copy(update={"seed": TINY.seed + 1, "frames": (16, 16)})
    same_length = TINY.model_copy(update={"frames": (16, 16)})
    one, two = (render(sample_script(config, "train", 1), config).astype(float) for config in (same_length, other))
    assert np.abs(one - two).mean() > 5


def test_clips_differ_within_and_between_splits():
    config = TINY.model_copy(update={"frames": (16, 16)})
    clips = [render(sample_script(config, *key), config) for key in (("train", 0), ("train", 1), ("test", 0))]
    assert not np.array_equal(clips[0], clips[1])
    assert not np.array_equal(clips[0], clips[2])


@pytest.mark.parametrize("config", BENCHMARKS.values(), ids=BENCHMARKS)
def test_presets_are_balanced_with_disjoint_people(config):
    clips = build_manifest(config).clips
    for split in ("train", "test"):
        counts = Counter(clips.loc[clips["split"] == split, "label"])
        assert len(counts) == 7
        assert len(set(counts.values())) == 1
        assert sum(counts.values()) == config.count(split)
    people = clips.groupby("split")["subject"].agg(set)
    assert not people["train"] & people["test"]


def test_manifest_agrees_with_the_scripts():
    clips = build_manifest(DEMO).clips.set_index("id")
    for script in scripts(DEMO, "test", 10):
        row = clips.loc[script.id]
        assert (row.label, row.frames, row.subject) == (script.label, script.frames, f"person_{script.identity:04d}")


def test_a_change_of_difficulty_changes_the_manifest_digest():
    harder = DEMO.model_copy(update={"noise": 9.0})
    assert build_manifest(DEMO).digest == build_manifest(DEMO).digest
    assert build_manifest(harder).digest != build_manifest(DEMO).digest


def test_phases_lie_inside_the_clip():
    for script in scripts(DEMO, count=70):
        for phases in (script.phases, script.distractor_phases):
            if phases:
                assert 0 <= phases.onset < phases.apex[0] < phases.apex[1] < phases.offset < script.frames


def test_expression_peaks_at_the_apex_and_is_zero_outside():
    for script in scripts(DEMO):
        if script.label == "neutral":
            continue
        onset, (start, end), offset = script.phases.onset, script.phases.apex, script.phases.offset
        strength = script.expression.max(1)
        assert (strength[: onset + 1] == 0).all()
        assert (strength[offset:] == 0).all()
        np.testing.assert_array_equal(strength[start : end + 1], strength.max())
        assert (np.diff(strength[onset : start + 1]) > 0).all()
        low, high = DEMO.expression_intensity
        assert low * (1 - DEMO.unit_variation) <= strength.max() <= high
        used = {unit for unit, column in zip(UNITS, script.expression.T, strict=True) if column.any()}
        assert used == set(CLASS_UNITS[script.label])


def test_neutral_has_no_expression():
    script = next(script for script in scripts(DEMO) if script.label == "neutral")
    truth = ground_truth(script, DEMO)
    assert script.phases is None
    assert not truth.action_units.any()
    assert not truth.active.any()
    assert (truth.onset, truth.apex_start, truth.apex_end, truth.offset) == (-1, -1, -1, -1)


def test_distractor_is_weak_of_another_class_and_apart_in_time():
    for script in scripts(DEMO):
        assert script.distractor not in (script.label, "neutral")
        assert script.distraction.max() <= DEMO.distractor_intensity[1]
        if script.distractor and script.phases:
            assert not (script.expression.any(1) & script.distraction.any(1)).any()


def test_knobs_at_zero_switch_nuisances_off():
    names = ("head_motion", "lighting", "clutter", "talking", "blinks", "noise")
    config = TINY.model_copy(
        update=dict.fromkeys(names, 0.0) | {"distractor_intensity": (0.0, 0.0), "classes": ("neutral",)}
    )
    frames = render(sample_script(config, "train", 0), config)
    np.testing.assert_array_equal(frames, np.broadcast_to(frames[:1], frames.shape))


@pytest.mark.parametrize(
    "knob",
    ["head_motion", "lighting", "clutter", "talking", "blinks", "noise", "identity_spread", "expression_intensity"],
)
def test_each_knob_changes_the_pixels(knob):
    value = (0.1, 0.1) if knob == "expression_intensity" else 0.0
    changed = TINY.model_copy(update={knob: value, "blinks": 3.0 if knob != "blinks" else 0.0})
    base = TINY.model_copy(update={"blinks": 3.0})
    assert not np.array_equal(
        render(sample_script(base, "train", 0), base), render(sample_script(changed, "train", 0), changed)
    )


def test_eleven_classes():
    config = BenchmarkConfig(classes=CLASSES_11, train_clips=11, test_clips=0)
    assert [sample_script(config, "train", index).label for index in range(11)] == list(CLASSES_11)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"classes": ("happy", "joy")}, "classes must be"),
        ({"hold": (0.5, 0.2)}, "hold"),
        ({"expression_intensity": (0.5, 1.5)}, r"expression_intensity.*\[0, 1\]"),
        ({"hold": (0.2, 0.7)}, "at most 0.9"),
        ({"frames": (8, 8)}, "at least 16 frames"),
    ],
)
def test_config_errors_name_the_field(fields, words):
    with pytest.raises(ValueError, match=words):
        BenchmarkConfig(**fields)


def test_index_out_of_range():
    with pytest.raises(IndexError, match="clip 3 of 3 train clips"):
        sample_script(TINY, "train", 3)


# --- files


def test_manifest_on_disk(written):
    root, manifest = written
    assert manifests.load(root / "manifest.csv").digest == manifest.digest == build_manifest(TINY).digest
    assert all((root / path).is_file() for path in manifest.clips["path"])


def test_videos_decode_to_the_rendered_frames(written):
    root, manifest = written
    for index, row in manifest.clips[manifest.clips["split"] == "test"].iterrows():
        script = sample_script(TINY, "test", index - TINY.train_clips)
        with av.open(str(root / row.path)) as container:
            assert container.streams.video[0].average_rate == TINY.fps
            assert container.streams.video[0].codec_context.name == "h264"
            decoded = np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])
        rendered = render(script, TINY)
        assert decoded.shape == rendered.shape == (row.frames, 64, 64, 3)
        assert np.abs(decoded.astype(float) - rendered).mean() < 5


def test_a_film_is_the_middles_of_its_clips_in_a_row(written, tmp_path):
    root, manifest = written
    clips = [root / path for path in manifest.clips["path"][:2]]
    write_film(clips, tmp_path / "new" / "film.mp4", frames=12, size=64)
    film = read_frames(tmp_path / "new" / "film.mp4", np.arange)
    parts = np.concatenate([read_clip(path, 12, stride=1) for path in clips])
    assert film.shape == (24, 64, 64, 3) and np.abs(film.astype(int) - parts).mean() < 5  # 32 if their order is another


def test_truth_reads_back(written):
    root, _ = written
    script = sample_script(TINY, "train", 0)
    stored, expected = load_truth(root, script.id), ground_truth(script, TINY)
    for name in ("action_units", "distraction", "blink", "talk", "regions"):
        np.testing.assert_array_equal(getattr(stored, name), getattr(expected, name))
        assert getattr(stored, name).dtype == np.float32
    for name in ("onset", "apex_start", "apex_end", "offset", "unit_names", "region_names"):
        assert getattr(stored, name) == getattr(expected, name)
    assert stored.regions.shape == (script.frames, 7, 4)
    assert stored.active.sum() == stored.offset - stored.onset - 1
    with pytest.raises(FileNotFoundError, match="write_benchmark"):
        load_truth(root, "nothing")


def test_number_of_workers_does_not_change_the_files(tmp_path):
    """The pixels are, and so has the encoder to be; with its lookahead, x264 is not."""
    config = BenchmarkConfig(name="w", train_clips=24, test_clips=0)
    for workers in (1, 2):
        write_benchmark(config, tmp_path / str(workers), workers=workers, progress=False)
    one, two = (sorted((tmp_path / name).rglob("*.*")) for name in ("1", "2"))
    assert [path.name for path in one] == [path.name for path in two]
    assert len(one) == 2 * 24 + 2
    for left, right in zip(one, two, strict=True):
        assert left.read_bytes() == right.read_bytes(), left.name


@pytest.mark.parametrize("kind", ["videos/{}.mp4", "truth/{}.npz"])
def test_only_what_is_missing_is_rendered_again(written, kind):
    root, manifest = written
    before = files(root)
    name = manifest.clips["id"][1]
    gone = root / kind.format(name)
    content = gone.read_bytes()
    gone.unlink()
    write_benchmark(TINY, root, workers=1, progress=False)
    changed = {name for name, time in files(root).items() if before[name] != time}
    assert changed - {"benchmark.json", "manifest.csv"} == {f"videos/{name}.mp4", f"truth/{name}.npz"}
    assert gone.read_bytes() == content


@pytest.mark.parametrize("place", [0.0, 0.3, 0.6, 1.0])
def test_a_damaged_truth_is_named(written, tmp_path, place):
    root, manifest = written
    name = manifest.clips["id"][0]
    content = bytearray((root / "truth" / f"{name}.npz").read_bytes())
    content[int(place * (len(content) - 22))] ^= 16  # the last of them: in the end of the central directory
    (tmp_path / "truth").mkdir()
    (tmp_path / "truth" / f"{name}.npz").write_bytes(content)
    with pytest.raises(ValueError, match=rf"{name}\.npz: damaged \(.*\): delete it"):
        load_truth(tmp_path, name)


def test_interruption_leaves_no_half_written_clip(tmp_path, monkeypatch):
    def stop_halfway(frames, path, *rest):
        path.write_bytes(b"half")
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(benchmark, "encode", stop_halfway)
        write_benchmark(TINY, tmp_path, workers=1, progress=False)
    assert not list(tmp_path.glob("videos/*.mp4"))
    assert not (tmp_path / "manifest.csv").exists()
    write_benchmark(TINY, tmp_path, workers=1, progress=False)
    assert len(list(tmp_path.glob("videos/*.mp4"))) == 5
    assert not list(tmp_path.rglob("*.part"))


def test_another_benchmark_in_the_same_folder_is_an_error(written):
    root, _ = written
    before = files(root)
    with pytest.raises(ValueError, match=f"{root} holds another benchmark"):
        write_benchmark(TINY.model_copy(update={"seed": 1}), root, workers=1, progress=False)
    assert files(root) == before


def test_what_a_killed_renderer_left_neither_stops_the_next_nor_stays(tmp_path):
    """It was killed while it wrote benchmark.json, and others while they wrote a clip."""
    strays = [".benchmark.json.17.part", "videos/.a.mp4.18.part", "truth/.a.npz.19.part"]
    (tmp_path / strays[0]).write_text("{")
    write_benchmark(TINY, tmp_path, workers=1, progress=False)
    assert not (tmp_path / strays[0]).exists()
    for stray in strays:
        (tmp_path / stray).touch()
    write_benchmark(TINY, tmp_path, workers=1, progress=False)
    assert not list(tmp_path.rglob("*.part"))


def test_a_damaged_benchmark_json_and_a_folder_of_other_files_are_named(tmp_path):
    (tmp_path / "notes.txt").touch()
    with pytest.raises(ValueError, match=r"holds other files \(notes\.txt\)"):
        write_benchmark(TINY, tmp_path, workers=1, progress=False)
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]
    for damaged in ("{", "[]", "{}"):
        (tmp_path / "benchmark.json").write_text(damaged)
        with pytest.raises(ValueError, match=r"benchmark\.json: damaged: delete the folder"):
            write_benchmark(TINY, tmp_path, workers=1, progress=False)


def test_card_agrees_with_the_code():
    card = yaml.safe_load((PROJECT / "data_manifests" / "embedded.yaml").read_text())
    assert card["classes"] | card["further_classes"] == CLASS_UNITS
    assert tuple(card["classes"]) == DEMO.classes
    assert set(card["presets"]) == set(BENCHMARKS)
    for name, counts in card["presets"].items():
        config = BENCHMARKS[name]
        assert (config.seed, config.version) == (card["seed"], card["version"])
        assert counts == {
            "train": config.train_clips,
            "test": config.test_clips,
            "train_people": config.train_identities,
            "test_people": config.test_identities,
        }
