import itertools
import math

import numpy as np
import pytest
import torch

from adatosk import create_model
from adatosk.clips import ClipDataset, normalise
from adatosk.config import DataConfig, EvalConfig
from adatosk.evaluate import clip_masks
from adatosk.experiments.localisation import mass, pointing, precision, recall
from adatosk.experiments.mask_scores import (
    MOVES,
    patch_shares,
    score_masks,
    split_activation,
    step_truth,
    summarise,
    whole_activation,
)
from adatosk.presets import MODELS
from adatosk.soft_mask import semantic_scores
from adatosk.synthetic import ground_truth, write_benchmark
from adatosk.synthetic.action_units import moving_regions
from adatosk.synthetic.scripts import BenchmarkConfig, sample_script
from adatosk.tokens import complementary_masks, patchify
from adatosk.video import frame_indices

TINY = MODELS["adatosk_tiny"]
BENCHMARK = BenchmarkConfig(name="masks", train_clips=0, test_clips=14, test_identities=5, size=64, talking=1, blinks=3)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory) -> ClipDataset:
    root = tmp_path_factory.mktemp("benchmark")
    manifest = write_benchmark(BENCHMARK, root, workers=1, progress=False)
    data = DataConfig(manifest="masks.csv")
    return ClipDataset(
        manifest.subset("test"), root, manifest.classes, TINY.frames, TINY.image_size, data, train=False, seed=0
    )


@pytest.fixture(scope="module")
def truth(dataset):
    return step_truth(dataset, TINY)


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return create_model(TINY)


@pytest.fixture(scope="module")
def scores(model, dataset, truth):
    return score_masks(model, dataset, truth)


def frames_drawn(rows: list[list[int]]) -> torch.Tensor:
    return torch.tensor(rows, dtype=torch.bool)


def spatial_case(seed: int = 0, clips: int = 3, steps: int = 4, tokens: int = 5):
    draw = np.random.default_rng(seed)
    weights = draw.random((clips, steps, tokens)) * (draw.random((clips, steps, tokens)) > 0.3)
    share = draw.random((clips, steps, tokens))
    return (torch.from_numpy(values) for values in (weights, share, draw.random((clips, steps)) > 0.4))


class TestInTime:
    active = frames_drawn([[0, 1, 0, 0, 1, 1], [0, 0, 1, 1, 1, 0], [0, 1, 1, 1, 0, 0]])
    moving = frames_drawn([[0, 1, 1, 0, 0, 1], [0, 0, 0, 1, 0, 0], [0, 0, 0, 0, 0, 0]])

    def test_precision_and_recall_are_those_of_counting_by_hand(self):
        for clip in range(2):
            chosen, there = (flags[clip].nonzero().flatten().tolist() for flags in (self.active, self.moving))
            hits = sum(1 for step in chosen if step in there)
            assert precision(self.active, self.moving).value[clip] == pytest.approx(hits / len(chosen), abs=1e-12)
            assert recall(self.active, self.moving).value[clip] == pytest.approx(hits / len(there), abs=1e-12)

    def test_a_clip_in_which_nothing_moves_has_no_score(self):
        for score in (precision, recall):
            assert all(math.isnan(values[2]) for values in score(self.active, self.moving))

    @pytest.mark.parametrize("k", [1, 3, 5])
    @pytest.mark.parametrize("score", [precision, recall])
    def test_chance_and_best_are_the_mean_and_highest_over_all_choices_of_k_pairs(self, score, k):
        choices = torch.zeros(math.comb(5, k), 6, dtype=torch.bool)
        for row, pairs in enumerate(itertools.combinations(range(1, 6), k)):
            choices[row, list(pairs)] = True
        found = score(choices, self.moving[:1].expand(len(choices), -1))
        assert found.chance.tolist() == pytest.approx([float(found.value.mean())] * len(choices), abs=1e-12)
        assert found.best.tolist() == pytest.approx([float(found.value.max())] * len(choices), abs=1e-12)

    def test_frames_that_follow_the_truth_score_the_best_there_is(self):
        assert precision(self.moving[:2], self.moving[:2]).value.tolist() == [1, 1]
        assert recall(self.moving[:2], self.moving[:2]).value.tolist() == [1, 1]
        missed = self.moving[:1].logical_not()
        assert precision(missed, self.moving[:1]).value.item() == 0


class TestInSpace:
    def test_mass_is_that_of_plain_loops(self):
        weights, share, counted = spatial_case()
        found = mass(weights, share, counted)
        for clip in range(len(weights)):
            total = on_region = uniform = tokens = best = 0.0
            for step in range(weights.shape[1]):
                for token in range(weights.shape[2]):
                    if counted[clip, step]:
                        weight, part = float(weights[clip, step, token]), float(share[clip, step, token])
                        total, on_region = total + weight, on_region + weight * part
                        uniform, tokens, best = uniform + part, tokens + 1, max(best, part)
            expected = (on_region / total, uniform / tokens, best)
            assert [float(values[clip]) for values in found] == pytest.approx(expected, abs=1e-12)

    def test_pointing_is_that_of_plain_loops(self):
        weights, share, counted = spatial_case(1, clips=20)
        counted[:, 0], hits = True, 0
        found = pointing(weights, share, counted)
        for clip in range(len(weights)):
            cells = [
                (float(weights[clip, step, token]), float(share[clip, step, token]) >= 0.5)
                for step in range(weights.shape[1])
                for token in range(weights.shape[2])
                if counted[clip, step]
            ]
            expected = float(max(cells)[1]), sum(hit for _, hit in cells) / len(cells)
            assert (float(found.value[clip]), float(found.chance[clip])) == pytest.approx(expected, abs=1e-12)
            hits += expected[0]
        assert 0 < hits < 20  # both outcomes were there

    def test_tokens_that_share_the_highest_weight_count_in_parts(self):
        weights, share = torch.ones(1, 1, 4), torch.tensor([[[1.0, 0.2, 0.5, 0.0]]])
        found = pointing(weights, share, torch.ones(1, 1, dtype=torch.bool))
        assert (found.value.item(), found.chance.item()) == (0.5, 0.5)

    def test_a_mask_on_the_region_alone_scores_the_best_there_is(self):
        _, share, _ = spatial_case()
        share, counted = (share > 0.5).double(), torch.ones(share.shape[:2], dtype=torch.bool)
        for score in (mass, pointing):
            assert (
                score(share, share, counted).value.tolist() == [1, 1, 1] == score(share, share, counted).best.tolist()
            )
            assert score(1 - share, share, counted).value.tolist() == [0, 0, 0]

    def test_a_region_that_no_counted_token_lies_on_has_no_score(self):
        weights, share, counted = torch.rand(2, 3, 4), torch.ones(2, 3, 4), torch.ones(2, 3, dtype=torch.bool)
        share[0], counted[1] = 0, False
        for score in (mass, pointing):
            assert score(weights, share, counted).value.isnan().all()

    def test_weights_that_do_not_look_score_chance(self, truth):
        """Random weights on the true regions, 3,000 draws: within 4 standard errors, which are small beside 1."""
        generator = torch.Generator().manual_seed(0)
        clips = [place for place, label in enumerate(truth.labels) if label != "neutral"]
        share = truth.regions["moving regions"][clips].repeat(250, 1, 1)
        counted = truth.shown[clips].repeat(250, 1)
        weights = torch.rand(share.shape, generator=generator) ** 8  # a few tokens have most of the weight
        for score in (mass, pointing):
            ratio = score(weights, share, counted).value / score(weights, share, counted).chance
            error = float(ratio.std()) / len(ratio) ** 0.5
            assert error < 0.03
            assert abs(float(ratio.mean()) - 1) < 4 * error


class TestTruth:
    def test_steps_move_where_the_envelope_changes(self, truth):
        seen = set()
        for index, label in enumerate(truth.labels):
            script = sample_script(BENCHMARK, "test", index)
            sampled = frame_indices(script.frames, TINY.frames, 4)
            if label == "neutral":
                assert not truth.moving["expression"][index].any()
                assert not truth.shown[index].any()
                assert not truth.regions["moving regions"][index].any()
                continue
            strength = script.expression[sampled].max(axis=1).tolist()
            steps = [(strength[2 * step] + strength[2 * step + 1]) / 2 for step in range(8)]
            for step in range(1, 8):
                # The units share one envelope, so the strongest changes most.
                moves = abs(steps[step] - steps[step - 1]) > 0.1
                assert bool(truth.moving["expression"][index, step]) == moves
                seen.add(moves)
            assert truth.shown[index].tolist() == [value > 0.1 for value in steps]
        assert seen == {True, False}
        assert not any(moving[:, 0].any() for moving in truth.moving.values())

    def test_what_else_moves_is_found_too(self, truth):
        for name in MOVES:
            assert 0 < truth.moving[name][:, 1:].float().mean() < 1, name
        script = sample_script(BENCHMARK, "test", 0)
        blink = script.motion.blink[frame_indices(script.frames, 16, 4)].reshape(8, 2).mean(1)
        assert truth.moving["blink"][0, 1:].tolist() == (np.abs(np.diff(blink)) > 0.1).tolist()

    def test_patches_of_the_moving_regions_are_those_of_their_boxes_pixel_by_pixel(self, truth):
        index = truth.labels.index("surprise")
        known = ground_truth(sample_script(BENCHMARK, "test", index), BENCHMARK)
        sampled = frame_indices(len(known.talk), 16, 4)
        names = moving_regions("surprise")
        expected = np.zeros((8, 16))
        for place, frame in enumerate(sampled):
            boxes = [known.regions[frame, known.region_names.index(name)] for name in names]
            for row, column in itertools.product(range(32), range(32)):
                x, y = (column + 0.5) / 32, (row + 0.5) / 32
                inside = any(x0 <= x < x1 and y0 <= y < y1 for x0, y0, x1, y1 in boxes)
                expected[place // 2, row // 8 * 4 + column // 8] += inside / (2 * 64)
        assert 0.1 < expected.mean() < 0.9
        assert truth.regions["moving regions"][index].numpy() == pytest.approx(expected, abs=1e-6)
        assert (truth.regions["face"] >= truth.regions["moving regions"]).all()

    def test_a_box_of_one_patch_covers_that_patch(self):
        boxes = np.broadcast_to(np.array([0.25, 0.5, 0.5, 0.75], np.float32), (16, 1, 4))
        shares = patch_shares(boxes, TINY)
        assert shares[:, 9].tolist() == [1] * 8  # third row, second column of 4 × 4
        assert shares.sum() == 8
        assert not patch_shares(boxes[:, :0], TINY).any()

    def test_clips_that_were_not_rendered_have_no_truth(self, dataset, tmp_path):
        other = ClipDataset.__new__(ClipDataset)
        other.__dict__.update(dataset.__dict__ | {"root": tmp_path})
        with pytest.raises(FileNotFoundError, match="no ground truth"):
            step_truth(other, TINY)


class TestOfAModel:
    def test_scores_are_those_of_its_masks_one_clip_at_a_time(self, model, dataset, truth, scores):
        for index in (0, 4):
            video = normalise(dataset[index]["video"])[None]
            visible = clip_masks(torch.tensor([index]), TINY, 1, False, 0)[0]
            with torch.inference_mode():
                mask = model.eval()(video, visible).soft_mask
            of_clip = scores[scores["id"] == dataset.ids[index]]
            frames = of_clip[of_clip["source"] == "active frames"].set_index(["score", "target"])["value"]
            expected = precision(mask.active, truth.moving["expression"][[index]]).value
            assert frames["precision", "expression"] == pytest.approx(float(expected))
            share = truth.regions["moving regions"][[index]][:, :, visible[0]]
            parts = {"semantic": mask.semantic, "agnostic": mask.agnostic.mean(-1), "final": mask.weights.mean(-1)}
            for source, weights in parts.items():
                rows = of_clip[(of_clip["source"] == source) & (of_clip["target"] == "moving regions")]
                found = rows.set_index(["score", "steps"])["value"]
                for steps, counted in (
                    ("all", torch.ones(1, 8, dtype=torch.bool)),
                    ("expression", truth.shown[[index]]),
                ):
                    assert found["mass", steps] == pytest.approx(float(mass(weights, share, counted).value), abs=1e-5)
                    assert found["pointing", steps] == float(pointing(weights, share, counted).value)

    def test_pixels_are_ranked_by_the_same_rule(self, dataset, truth, scores):
        pixels = patchify(normalise(dataset[0]["video"])[None], 2, 8)[0].double()
        visible = clip_masks(torch.tensor([0]), TINY, 1, False, 0)[0][0]
        rules = {
            "pixels, mean of visible patches": lambda a, b: (a[visible].mean(0) - b[visible].mean(0)).abs().sum(),
            "pixels, mean of all patches": lambda a, b: (a.mean(0) - b.mean(0)).abs().sum(),
            "pixels, one by one": lambda a, b: (a - b).abs().mean(),
        }
        rows = scores[(scores["id"] == dataset.ids[0]) & (scores["score"] == "recall")].set_index(["source", "target"])
        for name, rule in rules.items():
            changes = [float(rule(pixels[step], pixels[step - 1])) for step in range(1, 8)]
            top = sorted(range(1, 8), key=lambda step: -changes[step - 1])[: TINY.soft_mask.top_k]
            moves = truth.moving["expression"][0].nonzero().flatten().tolist()
            hits = len(set(top) & set(moves))
            assert rows["value"][name, "expression"] == pytest.approx(hits / len(moves))

    def test_neutral_clips_have_no_expression_to_find(self, scores):
        neutral = scores[scores["label"] == "neutral"]
        assert set(neutral["target"]).isdisjoint({"expression", "moving regions", "expression shown"})
        assert {"face", "head"} <= set(neutral["target"])
        assert not scores[["value", "chance", "best"]].isna().any(axis=None)
        assert (scores["value"] <= scores["best"] + 1e-9).all()

    @pytest.mark.parametrize(
        ("change", "sources"),
        [
            ({"semantic": "none", "excluded_per_step": 0}, {"A", "agnostic", "final"}),
            ({"agnostic": False}, {"A", "M", "semantic", "final"}),
            ({"agnostic": False, "semantic": "A", "excluded_per_step": 0}, {"A", "semantic", "final"}),
        ],
        ids=["agnostic alone", "semantic alone", "A alone"],
    )
    def test_a_model_with_one_of_the_masks_has_the_scores_of_that_one(self, dataset, truth, change, sources):
        found = score_masks(create_model(TINY, soft_mask=change), dataset, truth)
        spatial = found["score"].isin(["mass", "pointing"])
        assert set(found["source"][spatial]) == sources
        assert (~spatial).any() == change.get("agnostic", True)

    def test_the_batch_size_changes_nothing_and_the_seed_of_the_masks_does(self, model, dataset, truth, scores):
        other = score_masks(model, dataset, truth, EvalConfig(batch_size=3))
        assert other["value"].to_numpy() == pytest.approx(scores["value"].to_numpy(), abs=1e-4)
        drawn = score_masks(model, dataset, truth, EvalConfig(seed=1))
        assert not np.array_equal(drawn["chance"].to_numpy(), scores["chance"].to_numpy())

    def test_it_leaves_the_model_in_the_mode_it_was_in(self, dataset, truth):
        model = create_model(TINY).train()
        score_masks(model, dataset, truth)
        assert model.training

    def test_a_model_without_masks_and_the_truth_of_other_clips_are_errors(self, model, dataset, truth):
        with pytest.raises(ValueError, match="no masks to score"):
            score_masks(create_model(TINY, soft_mask=None), dataset, truth)
        other = ClipDataset.__new__(ClipDataset)
        other.__dict__.update(dataset.__dict__ | {"ids": dataset.ids[::-1]})
        with pytest.raises(ValueError, match="that of other clips"):
            score_masks(model, other, truth)

    def test_the_summary_is_the_mean_over_clips(self, scores):
        table = summarise(scores)
        rows = scores[(scores["score"] == "mass") & (scores["source"] == "A") & (scores["target"] == "face")]
        row = table.loc["mass", "A", "face", "all"]
        ratios = [value / chance for value, chance in zip(rows["value"], rows["chance"], strict=True)]
        assert row["clips"] == len(rows) == 14
        assert row["value"] == pytest.approx(sum(rows["value"]) / 14)
        assert row["ratio"] == pytest.approx(sum(ratios) / 14)
        spread = sum((ratio - row["ratio"]) ** 2 for ratio in ratios) / 13
        assert row["error"] == pytest.approx((spread / 14) ** 0.5)
        assert set(summarise(scores, ["score", "label"]).loc["precision"].index) == set(scores["label"])


class TestActivation:
    def test_every_patch_has_the_activation_of_the_view_that_shows_it(self, model, dataset):
        video = normalise(torch.stack([dataset[0]["video"], dataset[1]["video"]]))
        masks = complementary_masks(2, 16, 0.6, torch.Generator().manual_seed(0))
        assert len(masks) == 2
        whole = whole_activation(model.eval(), video, masks)
        patches = patchify(video, 2, 8)
        for visible in masks:
            for clip in range(2):
                where = visible[[clip]].nonzero()[:, 1][None]
                with torch.inference_mode():
                    tokens, _ = model.encoder(patches[[clip]], where, None)
                assert torch.allclose(whole[clip, :, visible[clip]], semantic_scores(tokens)[0], atol=1e-4)

    def test_of_a_split_each_clip_is_scaled(self, model, dataset):
        found = split_activation(model.eval(), dataset)
        assert found.shape == (14, 8, 16)
        assert found.amin((1, 2)).tolist() == [0] * 14
        assert found.amax((1, 2)).tolist() == [1] * 14
        video = normalise(dataset[3]["video"])[None]
        alone = whole_activation(model, video, clip_masks(torch.tensor([3]), TINY, 1, True, 0))[0]
        assert int(found[3].argmax()) == int(alone.argmax())
