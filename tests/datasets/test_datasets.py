import shutil
from pathlib import Path, PurePosixPath

import pytest
from fakes import MAKERS, make_fake
from media import truncate

from adatosk import manifests
from adatosk.clips import ClipDataset, make_loader
from adatosk.config import DataConfig
from adatosk.datasets import DATASETS, LayoutError, build, load_card
from adatosk.manifests import ManifestError

COUNTS = {"dfew": 35, "ferv39k": 28, "mafw": 55, "crema_d": 30, "ravdess": 48}
CLASSES = {"dfew": 7, "ferv39k": 7, "mafw": 11, "crema_d": 6, "ravdess": 8}


def quiet(*_):
    pass


@pytest.fixture(scope="session")
def rendered(tmp_path_factory) -> Path:
    """One fake of each set."""
    base = tmp_path_factory.mktemp("fakes")
    for name in MAKERS:
        make_fake(name, base / name)
    return base


@pytest.fixture
def copy(rendered, tmp_path):
    """``copy(name)``: a fake that may be damaged."""
    return lambda name: Path(shutil.copytree(rendered / name, tmp_path / name))


@pytest.mark.parametrize("name", MAKERS)
def test_each_layout_becomes_a_manifest_that_can_be_loaded(rendered, tmp_path, name):
    said = []
    manifest = build(name, rendered / name, report=said.append)
    assert len(manifest.clips) == COUNTS[name] and len(manifest.classes) == CLASSES[name]
    assert "0 of them missing" in said[-1] and DATASETS[name].media[0].name in said[-1]
    assert manifest.folds == {"ferv39k": (), "ravdess": tuple(range(1, 7))}.get(name, tuple(range(1, 6)))
    report = manifest.check(rendered / name, progress=False)
    assert report.broken.empty and set(report.table["frames"]) == {16}
    whole = manifest.complete(report)
    read = manifests.load(whole.save(tmp_path / "m.csv"))
    assert read.digest == manifest.digest
    assert set(read.clips["frames"]) == {16} and (read.clips["bytes"].astype(int) > 0).all()


@pytest.mark.parametrize("name", MAKERS)
def test_each_layout_loads_into_training(rendered, name):
    manifest = build(name, rendered / name, report=quiet)
    fold = manifest.folds[-1] if manifest.folds else None
    config = DataConfig(manifest="m.csv", fold=fold)
    for split in ("train", "test"):
        clips = manifest.subset(split, fold)
        examples = ClipDataset(clips, rendered / name, manifest.classes, 8, 24, config, split == "train", 0)
        batch = next(iter(make_loader(examples, 4, workers=0)))
        assert batch["video"].shape == (4, 3, 8, 24, 24)
        assert manifest.classes[int(batch["label"][0])] == clips["label"][0]
        assert batch["video"].float().std() > 10


@pytest.mark.parametrize("name", MAKERS)
def test_each_layout_trains(rendered, tmp_path, name):
    from adatosk.config import EvalConfig, ModelConfig, RunConfig, SoftMaskConfig, TrainConfig
    from adatosk.train import Places, train

    manifest = build(name, rendered / name, report=quiet)
    path = manifest.save(tmp_path / "m.csv")
    soft_mask = SoftMaskConfig(top_k=1, excluded_per_step=1, score_block=1, gate_reduction=4)
    sizes = {"frames": 4, "image_size": 16, "patch_size": 4, "width": 16, "depth": 1, "heads": 2, "mask_ratio": 0.5}
    decoder = {"decoder_width": 16, "decoder_heads": 2}
    config = RunConfig(
        model=ModelConfig(classes=manifest.classes, soft_mask=soft_mask, **sizes, **decoder),
        data=DataConfig(manifest=str(path), fold=manifest.folds[0] if manifest.folds else None, cache_size=16),
        train=TrainConfig(epochs=1, warmup_epochs=0, batch_size=8),
        evaluation=EvalConfig(views=(1,), complementary=False),
    )
    folder = train(config, Places(rendered / name, tmp_path / "results", tmp_path / "cache", 0), report=quiet)
    assert (folder / "metrics.json").is_file()


def test_forms_and_places_of_mafw(tmp_path):
    said = []
    root = make_fake("mafw", tmp_path / "a", media="clips", lists="split")
    manifest = build("mafw", root, report=said.append)
    assert manifest.clips["path"][0].startswith("data/clips/") and "split/single/no_caption" in said[-1]
    make_fake("mafw", root, media="frames", lists="split")
    manifest = build("mafw", root, report=said.append)
    assert manifest.clips["path"][0].startswith("data/frames/")
    assert "clips are there as well" in said[-2]
    same = build("mafw", root, media="clips", report=quiet)
    assert same.digest == manifest.digest and same.clips["path"][0].startswith("data/clips/")
    with pytest.raises(LayoutError, match=r"no clips \(faces\)"):
        build("mafw", root, media="faces", report=quiet)
    with pytest.raises(LayoutError, match="has no 'crops': choose one of faces, frames, clips"):
        build("mafw", root, media="crops", report=quiet)


def test_forms_of_dfew_have_the_same_ids(tmp_path):
    digests = set()
    for media in ("frames", "frames_16", "videos"):
        manifest = build("dfew", make_fake("dfew", tmp_path / media, media=media), report=quiet)
        digests.add(manifest.digest)
        assert manifest.check(tmp_path / media, progress=False).broken.empty
    assert len(digests) == 1


@pytest.mark.parametrize("name", MAKERS)
def test_a_folder_more_does_not_matter(rendered, tmp_path, name):
    (tmp_path / "unpacked").mkdir()
    shutil.copytree(rendered / name, tmp_path / "unpacked" / "release")
    manifest = build(name, tmp_path, report=quiet)
    assert manifest.clips["path"].str.startswith("unpacked/release/").all()
    assert manifest.digest == build(name, rendered / name, report=quiet).digest
    assert manifest.check(tmp_path, progress=False).broken.empty


@pytest.mark.parametrize("name", MAKERS)
def test_the_expected_tree_is_printed_when_nothing_is_found(tmp_path, name):
    (tmp_path / "holiday").mkdir()
    with pytest.raises(LayoutError) as error:
        build(name, tmp_path, report=quiet)
    assert DATASETS[name].tree in str(error.value) and "holiday" in str(error.value)
    with pytest.raises(LayoutError, match="no such folder"):
        build(name, tmp_path / "gone", report=quiet)


def test_unknown_sets_are_named():
    with pytest.raises(ManifestError, match="unknown data set 'DFEW2': choose one of dfew, ferv39k"):
        build("DFEW2", ".")


def test_cremad_leaves_out_the_broken_files_and_parts_the_actors(rendered):
    manifest = build("crema_d", rendered / "crema_d", report=quiet)
    assert not set(manifest.clips["id"]) & set(load_card("crema_d").excluded)
    assert (manifest.clips.groupby("subject")["fold"].nunique() == 1).all()
    ids = [f"{actor}_IEO_NEU_XX" for actor in range(1001, 1092)]
    sizes = DATASETS["crema_d"].members(ids)["fold"].value_counts().sort_index()
    assert list(sizes) == [18, 18, 18, 18, 19]


def test_an_actors_fold_does_not_depend_on_who_else_is_there():
    for name, actor in (("crema_d", "1040"), ("ravdess", "13")):
        members = DATASETS[name].members
        whole = members(DATASETS[name].names())
        alone = whole[whole["subject"] == actor].reset_index(drop=True)
        assert len(alone) and members(list(alone["id"])).equals(alone)
    for name, clip in (("crema_d", "1092_DFA_ANG_XX"), ("ravdess", "02-01-01-01-01-01-25")):
        with pytest.raises(ManifestError, match=f"clip '{clip}': the set has no actor"):
            DATASETS[name].members([clip])


def test_suffixes_in_capitals_are_videos_too(copy, rendered):
    root = copy("ravdess")
    for path in root.rglob("*.mp4"):
        path.rename(path.with_suffix(".MP4"))
    manifest = build("ravdess", root, report=quiet)
    assert manifest.digest == build("ravdess", rendered / "ravdess", report=quiet).digest
    assert set(manifest.clips["path"].str[-4:]) == {".MP4"}


@pytest.mark.parametrize("again", ["1001_DFA_ANG_XX.avi", "1001_DFA_ANG_X.flv"])
def test_two_files_of_one_clip_are_told(tmp_path, again):
    for name in ("1001_DFA_ANG_XX.flv", again):
        (tmp_path / "VideoFlash").mkdir(exist_ok=True)
        (tmp_path / "VideoFlash" / name).touch()
    with pytest.raises(LayoutError, match="are both clip '1001_DFA_ANG_XX': move one of them away") as error:
        build("crema_d", tmp_path, report=quiet)
    assert "1001_DFA_ANG_XX.flv" in str(error.value) and again in str(error.value)


def test_cremad_level_has_one_spelling():
    clip_id = DATASETS["crema_d"].clip_id
    assert clip_id(PurePosixPath("a/1040_ITH_SAD_X.flv")) == clip_id(PurePosixPath("1040_ITH_SAD_XX.flv"))
    assert clip_id(PurePosixPath("1040_IEO_SAD_HI.flv")) == "1040_IEO_SAD_HI"
    assert clip_id(PurePosixPath("1040_IEO_JOY_HI.flv")) is None


def change(path: Path, old: str, new: str, count: int = 1) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, count))


LISTS = {
    "dfew": Path("EmoLabel_DataSplit") / "train(single-labeled)" / "set_2.csv",
    "ferv39k": Path("4_setups") / "All_scenes" / "train_All.csv",
    "mafw": Path("Train & Test Set") / "single" / "no_caption" / "set_2" / "train.txt",
}
PLANTED = [
    ("dfew", lambda path: change(path, "1,1\n", "1,9\n"), "set_2.csv, line 2: unknown label '9'"),
    ("dfew", lambda path: change(path, "1,1\n", "1,1\n1,1\n"), "set_2.csv, line 3: clip '1' is listed twice"),
    ("dfew", lambda path: change(path, "1,1\n", "1,1\n00001,1\n"), "with and without leading zeros"),
    ("dfew", lambda path: change(path, "1,1\n", "1,1\n8,1\n"), "1 clips are in train and test at once: 00008"),
    ("dfew", lambda path: change(path, "1,1\n", "1,1\n777,1\n"), "'00777' trains in fold 2 and is in no fold's test"),
    (
        "dfew",
        lambda path: change(path, "1,1\n", "1,2\n"),
        "'00001' is sad in fold 2's train list and happy in fold 1's",
    ),
    ("dfew", lambda path: change(path, "1,1\n", ""), "'00001' and 0 more are in no list of fold 2"),
    ("dfew", lambda path: change(path, "1,1\n", "1 1\n"), "line 2: '1 1' is not a clip and its label"),
    ("dfew", lambda path: change(path, "video_name,label\n", ""), "the first line must be 'video_name,label'"),
    ("dfew", lambda path: path.write_text(""), "set_2.csv: this list is empty"),
    ("dfew", lambda path: path.write_bytes(b"\xff\xfe1"), "set_2.csv: not a text file"),
    ("dfew", lambda path: path.unlink(), "set_2.csv: this list is missing"),
    (
        "ferv39k",
        lambda path: change(path, " Happy\n", " Hapy\n"),
        "line 1: unknown label 'Hapy': the classes are Happy",
    ),
    (
        "ferv39k",
        lambda path: change(path, " Happy\n", " happy\n"),
        r"line 1: unknown label 'happy': write 'Happy' \(case",
    ),
    ("ferv39k", lambda path: change(path, "0000 Happy\n", "0000 Sad\n"), "does not lie in a folder Scene/Sad/id"),
    ("ferv39k", lambda path: change(path, "/0000 Happy", "/0050 Happy"), "in train and test at once: War/Happy/0050"),
    (
        "mafw",
        lambda path: change(path, " anger\n", " Anger\n"),
        r"train.txt, line 1: unknown label 'Anger': write 'anger'",
    ),
    ("mafw", lambda path: path.write_text("\n \n"), "train.txt: this list is empty"),
]


@pytest.mark.parametrize(("name", "plant", "said"), PLANTED)
def test_faults_in_lists_are_one_error_that_names_them(copy, name, plant, said):
    root = copy(name)
    plant(root / LISTS[name])
    with pytest.raises(ManifestError, match=said):
        build(name, root, report=quiet)


def test_a_clip_in_two_test_lists_is_an_error(copy):
    root = copy("mafw")
    change(root / "Train & Test Set/single/no_caption/set_2/test.txt", "00012.mp4 anger\n", "00001.mp4 anger\n")
    with pytest.raises(ManifestError, match="clip '00001' is in the test lists of folds 1 and 2"):
        build("mafw", root, report=quiet)


@pytest.mark.parametrize("name", LISTS)
def test_lists_with_byte_order_mark_and_windows_line_ends_are_read(copy, name):
    root = copy(name)
    before = build(name, root, report=quiet)
    for path in (root / LISTS[name].parts[0]).rglob("*.*"):
        path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes().replace(b"\n", b"\r\n"))
    assert build(name, root, report=quiet).digest == before.digest


def test_faults_in_media_are_all_reported(copy, tmp_path):
    root = copy("mafw")
    faces = root / "data" / "faces"
    manifest = build("mafw", root, report=quiet)
    shutil.rmtree(faces / "00002")
    truncate(faces / "00003" / "7.jpg", 0.6)
    for image in sorted((faces / "00004").iterdir())[1:]:
        image.unlink()
    for image in (faces / "00005").iterdir():
        image.unlink()
    shutil.rmtree(faces / "00012")
    shutil.copytree(faces / "00001", faces / "00012")
    shutil.move(faces / "00006", tmp_path / "outside")
    (faces / "00006").symlink_to(tmp_path / "outside")
    report = manifest.check(root, progress=False)
    said = {
        "00002": "no such video file or folder of frames",
        "00003": "7.jpg: not an image",
        "00005": "without frames",
        "00006": "leads out of the root",
        "00012": "same content as clip '00001', and they are in train and test at once (fold 1, fold 2)",
    }
    problems = report.broken.set_index("id")["problem"]
    assert set(problems.index) == set(said)
    for name, text in said.items():
        assert text in problems[name]
    # A clip of one frame is a clip.
    assert report.table.set_index("id").loc["00004", "frames"] == 1
    with pytest.raises(ManifestError, match="5 of 55 clips"):
        report.raise_if_broken()
    report.raise_if_broken(exclusions=list(said))
    assert len(manifest.subset("train", 5, exclusions=list(said))) == 44 - 5


def test_a_truncated_video_is_reported(copy):
    root = copy("ravdess")
    path = root / "Actor_01" / "02-01-01-01-01-01-01.mp4"
    truncate(path, 0.8)
    broken = build("ravdess", root, report=quiet).check(root, progress=False).broken
    assert list(broken["id"]) == [path.stem]


def test_faces_and_whole_frames_are_versions_of_their_own(tmp_path):
    faces, frames = (build("mafw", make_fake("mafw", tmp_path / form, media=form)) for form in ("faces", "frames"))
    assert faces.digest == frames.digest
    assert [faces.version, frames.version] == [f"single expression, 5 folds; {form}" for form in ("faces", "frames")]
