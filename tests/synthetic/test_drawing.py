"""Each action unit moves its own part of the face, and drawing depends on nothing but its arguments."""

import cv2
import numpy as np
import pytest

from adatosk.synthetic.action_units import AU_REGIONS, CLASS_UNITS, REGIONS, UNIT_NAMES, UNITS, moving_regions
from adatosk.synthetic.faces import draw_faces, region_boxes
from adatosk.synthetic.people import Motion, Scene, sample_identity

SIZE = 96
STILL = (0.0, 0.0, 1.0, 0.0, 0.0, 0.0)
PEOPLE = range(4)


def motion(units, pose=STILL, blink=0.0, talk=0.0):
    """One frame per row of ``units (T, 15)``."""
    units = np.atleast_2d(units).astype(float)
    count = len(units)
    return Motion(units, np.tile(pose, (count, 1)), np.full(count, blink), np.full(count, talk))


def person(number):
    return sample_identity(np.random.default_rng(number))


def draw(identity, moving):
    scene = Scene(np.full((2 * SIZE, 2 * SIZE, 3), 150, np.uint8))
    return draw_faces(identity, moving, scene)


def share_inside(difference, boxes, regions):
    """Share of the difference ``(H, W)`` that lies in the union of the regions' boxes."""
    inside = np.zeros(difference.shape, bool)
    for region in regions:
        x0, y0, x1, y1 = boxes[REGIONS.index(region)] * SIZE
        inside[int(y0) : int(np.ceil(y1)), int(x0) : int(np.ceil(x1))] = True
    return difference[inside].sum() / difference.sum(), inside.mean()


NEUTRAL_AND_EACH = np.vstack([np.zeros(len(UNITS)), np.eye(len(UNITS))])


@pytest.fixture(scope="module")
def each_unit():
    """Per person: frames with no unit and with each unit alone, and the boxes."""
    identities = [person(number) for number in PEOPLE]
    return [
        (draw(one, motion(NEUTRAL_AND_EACH)).astype(float), region_boxes(one, np.array([STILL]))[0])
        for one in identities
    ]


@pytest.mark.parametrize("unit", UNITS)
def test_action_unit_changes_its_own_regions(each_unit, unit):
    for frames, boxes in each_unit:
        difference = np.abs(frames[1 + list(UNITS).index(unit)] - frames[0]).sum(-1)
        share, area = share_inside(difference, boxes, AU_REGIONS[unit])
        assert share > 0.75, f"AU {unit}: {share:.2f} of the change lies in {AU_REGIONS[unit]}"
        assert area < 0.25, "a box that covers the whole face would prove nothing"


@pytest.mark.parametrize("unit", UNITS)
def test_action_unit_is_visible_at_48_pixels(each_unit, unit):
    for frames, _ in each_unit:
        difference = np.abs(frames[1 + list(UNITS).index(unit)] - frames[0])
        small = cv2.resize(difference, (48, 48), interpolation=cv2.INTER_AREA).max(-1)
        assert (small > 15).sum() >= 6


def test_unit_of_another_part_falls_outside(each_unit):
    """The measure can fail: a smile is not a change of the brows."""
    for frames, boxes in each_unit:
        difference = np.abs(frames[1 + list(UNITS).index(12)] - frames[0]).sum(-1)
        assert share_inside(difference, boxes, AU_REGIONS[1])[0] < 0.2


def test_expressions_differ_from_each_other():
    units = np.array([[weights.get(unit, 0) for unit in UNITS] for weights in CLASS_UNITS.values()])
    for number in PEOPLE:
        frames = np.stack([cv2.resize(frame, (48, 48)) for frame in draw(person(number), motion(units))]).astype(float)
        distance = np.abs(frames[:, None] - frames[None]).mean((2, 3, 4))
        assert distance[~np.eye(len(units), dtype=bool)].min() > 0.5


def test_drawing_is_deterministic_and_frames_do_not_affect_each_other():
    units = np.random.default_rng(0).random((5, len(UNITS)))
    together = draw(person(1), motion(units))
    assert together.shape == (5, SIZE, SIZE, 3)
    assert together.dtype == np.uint8
    for frame, one in zip(together, units, strict=True):
        np.testing.assert_array_equal(draw(person(1), motion(one))[0], frame)


def test_intensity_grows_the_change():
    frames = draw(person(2), motion(np.outer([0, 0.3, 0.6, 1], np.eye(len(UNITS))[UNIT_NAMES.index("AU12")]))).astype(
        float
    )
    change = np.abs(frames[1:] - frames[0]).sum((1, 2, 3))
    assert (np.diff(change) > 0).all()


@pytest.mark.parametrize(("nuisance", "region"), [("blink", "eyes"), ("talk", "mouth")])
def test_blinks_and_talking_stay_in_their_region(nuisance, region):
    nothing = np.zeros((1, len(UNITS)))
    for number in PEOPLE:
        still, moved = (
            draw(person(number), motion(nothing))[0],
            draw(person(number), motion(nothing, **{nuisance: 1.0}))[0],
        )
        difference = np.abs(moved.astype(float) - still).sum(-1)
        regions = (region, "chin") if region == "mouth" else (region,)
        assert difference.sum() > 0
        assert share_inside(difference, region_boxes(person(number), np.array([STILL]))[0], regions)[0] > 0.8


def test_boxes_follow_the_head():
    shifted = (0.05, -0.04, 1.0, 0.0, 0.0, 0.0)
    boxes = region_boxes(person(3), np.array([STILL, shifted]))
    np.testing.assert_allclose(boxes[1] - boxes[0], np.tile([0.05, -0.04, 0.05, -0.04], (len(REGIONS), 1)), atol=1e-6)


def test_boxes_stay_inside_the_frame():
    poses = np.random.default_rng(0).uniform(-1, 1, (50, 6)) * [0.5, 0.5, 0.8, 2, 1, 1] + [0, 0, 1, 0, 0, 0]
    boxes = region_boxes(person(0), poses)
    assert boxes.dtype == np.float32
    assert boxes.min() >= 0
    assert boxes.max() <= 1
    assert (boxes[..., 2:] >= boxes[..., :2]).all()


def test_moving_regions():
    assert moving_regions("neutral") == ()
    assert moving_regions("surprise") == ("brows", "eyes", "mouth", "chin")
    with pytest.raises(KeyError):
        moving_regions("joy")


def test_spread_zero_is_one_face_shape():
    one, other = (sample_identity(np.random.default_rng(number), spread=0.0) for number in (1, 2))
    assert (one.eye_x, one.mouth_width, one.skin, one.glasses) == (
        other.eye_x,
        other.mouth_width,
        other.skin,
        other.glasses,
    )
