"""Cards of the data sets, and how a copy differs from them."""

import os
import shutil
from pathlib import Path

import pandas as pd
import pytest
from fakes import MAKERS, make_fake
from media import moving_frames, write_frames

from adatosk.datasets import DATASETS, build, expectations, load_card, verify
from adatosk.datasets.cards import Card
from adatosk.manifests import Manifest, ManifestError
from adatosk.utils.project import PROJECT


def quiet(*_):
    pass


def card_of(manifest: Manifest) -> Card:
    """A card that this manifest fits."""
    words = dict.fromkeys(("title", "request", "licence", "citation", "layout", "folds"), "…")
    return Card(
        name=manifest.name,
        version=manifest.version,
        classes=manifest.classes,
        expected=expectations(manifest),
        **words,
    )


@pytest.mark.parametrize("name", MAKERS)
def test_a_copy_equals_its_own_card(tmp_path, name):
    root = make_fake(name, tmp_path)
    manifest = build(name, root, report=quiet)
    # Files that are left out on purpose, or no part of the task, lie beside the others and are no difference.
    card = card_of(manifest).model_copy(update={"excluded": load_card(name).excluded})
    assert verify(manifest, card, root).empty


@pytest.mark.parametrize("name", MAKERS)
def test_cards_fit_the_builders(name):
    card = load_card(name)
    entry = DATASETS[name]
    assert (card.name, card.version, card.classes) == (name, entry.version, entry.classes)
    for fold in {row.fold for row in card.expected}:
        train, test = (row for row in card.expected if row.fold == fold)
        assert (train.split, test.split) == ("train", "test")
    whole = {sum(row.clips for row in card.expected if row.fold == fold) for fold in {r.fold for r in card.expected}}
    assert len(whole) == 1
    tests = sum(row.clips for row in card.expected if row.split == "test")
    assert name == "ferv39k" or {tests} == whole


def test_damaged_cards_are_named(tmp_path):
    text = (Path(PROJECT) / "data_manifests" / "ravdess.yaml").read_text()
    for change in (
        ("neutral: 16", "neutral: 17"),
        ("licence:", "license:"),
        ("name: ravdess", "name: ["),
        ("name:", "name: x\nname:"),
    ):
        (tmp_path / "c.yaml").write_text(text.replace(*change))
        with pytest.raises(ManifestError, match=r"c\.yaml: not a card"):
            load_card(tmp_path / "c.yaml")
    with pytest.raises(ManifestError, match="no such card"):
        load_card("imagenet")


def test_verify_tells_what_differs(tmp_path):
    root = make_fake("dfew", tmp_path)
    card = card_of(build("dfew", root, report=quiet))
    assert verify(build("dfew", root, report=quiet), card, root).empty
    shutil.rmtree(root / "Clip" / "clip_224x224" / "00004")
    write_frames(root / "Clip" / "clip_224x224" / "09999", moving_frames(3, 32, 32), ".jpg")
    for path in (root / "EmoLabel_DataSplit").rglob("*.csv"):
        path.write_text(path.read_text().replace("\n8,1\n", "\n8,2\n"))
    table = verify(build("dfew", root, report=quiet), card, root)
    said = {(row.what, row.where): (row.expected, row.found) for row in table.itertuples()}
    assert said[("missing clip", "00004")] == ("Clip/clip_224x224/00004", "nothing")
    assert said[("extra clip", "09999")] == ("nothing", "Clip/clip_224x224/09999")
    assert said[("clips of happy", "fold 2, test")] == (1, 0)
    assert said[("clips of sad", "fold 2, test")] == (1, 2)
    assert ("clips of happy", "fold 2, train") not in said
    # Equal counts and other labels are seen by the digest.
    other = card.model_copy(update={"expected": (card.expected[0].model_copy(update={"sha256": "0" * 64}),)})
    table = verify(build("dfew", root, report=quiet), other)
    assert "list of clips" in set(table["what"])
    swapped = Manifest("dfew", "1", tuple(reversed(card.classes)), build("dfew", root, report=quiet).clips)
    assert "classes" in set(verify(swapped, card)["what"])


def by_rule(name: str, change=lambda clips: clips) -> Manifest:
    """The whole set as its rule of names has it, changed."""
    entry = DATASETS[name]
    table = entry.members(entry.names())
    return Manifest(entry.name, entry.version, entry.classes, change(table.assign(path=table["id"] + ".mp4")))


@pytest.mark.parametrize(("name", "clips"), [("crema_d", 7438), ("ravdess", 1440)])
def test_cards_of_sets_with_a_rule_of_names_are_that_rule(name, clips):
    manifest, card = by_rule(name), load_card(name)
    assert len(manifest.clips) == clips and verify(manifest, card).empty
    assert not set(manifest.clips["id"]) & set(card.excluded)


# Of each: one clip that is taken away, one of another class, one of another fold.
NAMED = {
    "crema_d": ("1064_WSI_HAP_XX", "1001_DFA_ANG_XX", "1091_IEO_SAD_HI"),
    "ravdess": ("02-01-08-02-02-02-24", "02-01-01-01-01-01-01", "02-01-02-01-01-01-09"),
}


@pytest.mark.parametrize("name", NAMED)
def test_verify_names_the_clips_of_a_set_with_a_rule_of_names(name):
    gone, relabelled, moved = NAMED[name]
    whole = by_rule(name).clips.set_index("id")

    def change(clips: pd.DataFrame) -> pd.DataFrame:
        clips = clips[clips["id"] != gone].reset_index(drop=True)
        clips.loc[clips["id"] == relabelled, "label"] = "disgust"
        clips.loc[clips["id"] == moved, "fold"] = 2
        more = clips.tail(1).assign(id="more", path="more.mp4")
        return pd.concat([clips, more], ignore_index=True)

    table = verify(by_rule(name, change), load_card(name))
    named = table[table["where"].isin([gone, relabelled, moved, "more"])]
    assert list(named.itertuples(index=False, name=None)) == [
        ("missing clip", gone, f"{whole.loc[gone, 'label']}, fold {whole.loc[gone, 'fold']}", "nothing"),
        ("extra clip", "more", "nothing", "more.mp4"),
        ("label", relabelled, whole.loc[relabelled, "label"], "disgust"),
        ("fold", moved, whole.loc[moved, "fold"], 2),
    ]
    assert not set(table["what"]) & {"list of clips", "classes"}


def test_a_copy_of_one_actor_has_the_others_clips_as_missing():
    table = verify(by_rule("ravdess", lambda clips: clips[clips["subject"] == "07"]), load_card("ravdess"))
    missing = table[table["what"] == "missing clip"]
    assert len(missing) == 23 * 60 and set(missing["found"]) == {"nothing"}
    said = {(row.what, row.where): (row.expected, row.found) for row in table.itertuples()}
    assert said["clips", "fold 2, test"] == (240, 60) and said["clips", "fold 2, train"] == (1200, 0)
    assert said["list of clips", "fold 1, test"] == ("yes", "no")


def test_nothing_is_named_where_the_card_has_another_set():
    card = load_card("ravdess")
    other = card.model_copy(update={"expected": card.expected[:2]})
    table = verify(by_rule("ravdess", lambda clips: clips.iloc[1:]), other)
    assert len(table) and "missing clip" not in set(table["what"])


def test_annotations_of_the_sets_have_the_counts_and_digests_of_their_summary(tmp_path):
    """Needs the sets' own lists, which may not be passed on."""
    folder = os.environ.get("ADATOSK_ANNOTATIONS")
    if not folder:
        pytest.skip("set ADATOSK_ANNOTATIONS to a folder with DFEW, FERV39k, MAFW and summary.csv to run this")
    summary = pd.read_csv(Path(folder) / "summary.csv")
    one = {
        "DFEW": "Clip/clip_224x224/02522",
        "FERV39k": "2_ClipsforFaceCrop/Crime/Angry/0063",
        "MAFW": "data/faces/03747",
    }
    for name, clip in one.items():
        root = Path(shutil.copytree(Path(folder) / name, tmp_path / name))
        write_frames(root / clip, moving_frames(3, 24, 24))
        manifest = build(name.lower(), root, report=quiet)
        found = {(row.fold or 1, row.split): row for row in expectations(manifest)}
        rows = summary[summary["dataset"] == name]
        assert len(rows) == len(found)
        for row in rows.itertuples():
            mine = found[(row.fold, row.split)]
            assert (mine.clips, mine.sha256) == (row.clips, row.sha256_of_sorted_id_label_lines)
            counts = dict(pair.split("=") for pair in row.class_counts.split(";"))
            assert mine.classes == {label: int(count) for label, count in counts.items()}
        card = load_card(name.lower())
        assert verify(manifest, card).empty
        assert len(verify(manifest, card, root)) == len(manifest.clips) - 1
