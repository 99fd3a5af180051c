"""People in a whole video, found in one search: who is who while people come and go."""

import numpy as np
import pytest
from scenes import Walk, overlap, scene, standing

from adatosk.clips.faces import FaceNotFoundError, find_faces
from adatosk.clips.people import TOGETHER, People

LENGTH = 48
CLIPS = np.arange(16) + np.arange(0, LENGTH - 15, 8)[:, None]  # overlapping by half


def people_in(frames: np.ndarray, clips: np.ndarray = CLIPS, person: int = 1) -> People:
    people = People(clips, person)
    for start in range(0, len(frames), TOGETHER):
        people.search(frames[start : start + TOGETHER])
    return people


def sitting(*away: int) -> Walk:
    return standing(1, (40, 100), 110, absent=away)


def test_each_clip_has_the_squares_that_a_search_of_its_own_finds():
    frames = scene(Walk(1, (10, 120), (500, 130), (96, 110)), count=LENGTH)
    people = people_in(frames)
    assert len(people) == 1 and people.counted().tolist() == [1] * len(CLIPS)
    for clip, face in zip(CLIPS, people.faces(), strict=True):
        (alone,) = find_faces(frames[clip])
        assert np.array_equal(face.squares, alone.squares) and str(face) == str(alone)


@pytest.mark.parametrize("gap", [range(10, 20), range(10, 40)], ids=["short", "long"])
def test_somebody_who_returns_to_the_same_place_is_the_same_person(gap):
    people = people_in(scene(sitting(*gap), count=LENGTH))
    assert len(people) == 1
    there = [sum(time not in gap for time in clip) for clip in CLIPS.tolist()]
    assert [0 if face is None else face.seen for face in people.faces()] == [n if n >= 4 else 0 for n in there]


def test_a_person_who_walked_out_is_not_expected_far_away():
    leaving = Walk(2, (350, 100), (640, 100), (100, 100), absent=tuple(range(24, LENGTH)))
    entering = standing(3, (60, 100), 100, absent=tuple(range(24)))
    people = people_in(scene(leaving, entering, count=LENGTH))
    assert len(people) == 2
    for person in (1, 2):
        faces = people.faces(person)
        assert (faces[0] is None) != (faces[-1] is None)


def test_the_cuts_of_each_clip_are_counted():
    frames = scene(sitting(), count=LENGTH)
    frames[20:] //= 2
    faces = people_in(frames).faces()
    assert [face.cuts for face in faces] == [0, 1, 1, 0, 0]  # the third clip begins at frame 16, the fourth at 24
    for clip, face in zip(CLIPS, faces, strict=True):
        assert str(face) == str(find_faces(frames[clip])[0])


def test_after_a_cut_a_clip_shows_who_is_there_in_its_middle():
    frames = scene(sitting(*range(20, LENGTH)), standing(2, (400, 40), 180, absent=tuple(range(20))), count=LENGTH)
    frames[20:] //= 2
    people = people_in(frames)
    # The middles of the clips are frames 8, 16, 24, 32 and 40.
    assert [face is not None for face in people.faces(1)] == [False, False, True, True, True]
    assert [face is not None for face in people.faces(2)] == [True, True, False, False, False]
    assert people.counted().tolist() == [1] * 5
    for clip, guess in enumerate(people.guess(clip) for clip in range(len(CLIPS))):
        assert (guess is None) == (people.faces()[clip] is None)


def test_people_are_ordered_by_all_they_show_over_the_whole_video():
    near = standing(2, (400, 40), 180, absent=tuple(range(12, LENGTH)))
    frames = scene(sitting(), near, count=LENGTH)
    people = people_in(frames)
    assert len(people) == 2 and people.counted().tolist() == [2, 2, 1, 1, 1]
    first, second = people.faces(1), people.faces(2)
    assert overlap(first[0].squares, sitting().boxes(16)).min() > 0.6
    assert [face is None for face in second] == [False, False, True, True, True]
    assert find_faces(frames[:16])[0].squares[0, 0] == second[0].squares[0, 0] > 300  # the largest in the first clip
    with pytest.raises(FaceNotFoundError, match=r"party\.mp4: no person 3, it shows 2"):
        people_in(frames, person=3).check("party.mp4")
    with pytest.raises(FaceNotFoundError, match="no face found"):
        people_in(scene(count=16), CLIPS[:1]).check("wall.mp4")


def test_faces_that_flicker_are_nobody():
    flicker = standing(2, (400, 40), 150, absent=tuple(time for time in range(LENGTH) if time % 17))
    people = people_in(scene(sitting(), flicker, count=LENGTH))
    assert len(people) == 1 and people.counted().max() == 1
