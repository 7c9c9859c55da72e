"""Identities over time, on people whose truth is known."""

import json
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hrnet_cli.errors import UsageError
from hrnet_cli.schema import KeypointSchema, load_schema
from hrnet_cli.structures import Boxes, PersonHeatmaps, Poses
from hrnet_cli.tracking import Tracker, TrackerSettings

COCO = load_schema("coco17")
SIZE_WH = (2000, 1000)
# A standing person of 100 x 300 px, as parts of the box: head, shoulders, arms, hips, legs.
BODY_K2 = np.array(
    [
        *([50, 20], [53, 17], [47, 17], [57, 20], [43, 20], [70, 60], [30, 60], [75, 110]),
        *([25, 110], [78, 150], [22, 150], [62, 160], [38, 160], [62, 220], [38, 220]),
        *([62, 280], [38, 280]),
    ],
    float,
)


def people(xs, *, y=300.0, scores=None, schema=COCO, body_K2=BODY_K2, scale=1.0, seed=None):
    """Return people with their box's left side at each x; seeded noise of 1 px if asked for."""
    origins_N2 = np.stack([xs, np.broadcast_to(y, len(xs))], axis=1).reshape(-1, 2)
    points_NK2 = origins_N2[:, None] + scale * body_K2
    boxes_N4 = np.concatenate([origins_N2, origins_N2 + scale * np.array([100.0, 300.0])], axis=1)
    if seed is not None:
        rng = np.random.default_rng(seed)
        points_NK2 = points_NK2 + rng.normal(size=points_NK2.shape)
        boxes_N4 = boxes_N4 + 2 * rng.normal(size=boxes_N4.shape)
    scores_N = np.full(len(xs), 0.9) if scores is None else np.asarray(scores)
    keypoint_scores_NK = np.full(points_NK2.shape[:2], 0.8)
    return Poses(points_NK2, keypoint_scores_NK, scores_N, Boxes(boxes_N4, scores_N), schema)


def ids(poses):
    return poses.track_ids_N.tolist()


def tracker(**fields):
    return Tracker(TrackerSettings(**fields))


def test_identities_start_at_one_in_the_order_given_and_follow_people_whatever_their_order():
    tracks = tracker()
    first = tracks.update(people([900.0, 100.0, 500.0]), 0.0)
    assert ids(first) == [1, 2, 3]
    assert first.track_ids_N.dtype == np.int64
    assert ids(tracks.update(people([105.0, 505.0, 895.0]), 0.04)) == [2, 3, 1]


def test_nobody_is_ordinary():
    tracks = tracker()
    for time_s in (0.0, 0.04):
        nobody = tracks.update(Poses.empty(COCO), time_s)
        assert len(nobody) == 0
        assert nobody.track_ids_N.shape == (0,)
    assert ids(tracks.update(people([100.0]), 0.08)) == [1]
    assert ids(tracks.update(Poses.empty(COCO), 0.12)) == []
    assert len(tracks.predict_boxes(0.16, SIZE_WH)) == 0
    assert ids(tracks.update(people([100.0]), 0.16)) == [1]


@pytest.mark.parametrize("speed", [0.0, 150.0, 600.0])
@pytest.mark.parametrize("step_s", [1 / 120, 1 / 30, 0.1])
def test_people_keep_their_identities_at_any_speed_and_frame_rate(speed, step_s):
    tracks = tracker()
    for frame in range(int(1.5 / step_s)):
        time_s = frame * step_s
        xs = [100 + speed * time_s, 1700 - speed * time_s]
        seen = people(xs, y=[100.0, 500.0], seed=frame)
        assert ids(tracks.update(seen, time_s)) == [1, 2]


def test_irregular_frame_times_do_not_matter():
    tracks, rng = tracker(), np.random.default_rng(3)
    for time_s in np.cumsum(rng.uniform(0.005, 0.15, 60)):
        assert ids(tracks.update(people([100 + 300 * time_s]), float(time_s))) == [1]


def test_two_people_who_pass_each_other_keep_their_identities():
    tracks = tracker()
    for frame in range(60):
        time_s = frame / 30
        left, right = 400 + 250 * time_s, 900 - 250 * time_s
        assert ids(tracks.update(people([left, right], y=[300.0, 315.0], seed=frame), time_s)) == [
            1,
            2,
        ]


def test_someone_hidden_while_passing_behind_another_comes_back_under_the_same_number():
    tracks = tracker()
    for frame in range(60):
        time_s = frame / 30
        standing, walking = 600.0, 300 + 300 * time_s
        hidden = abs(walking - standing) < 60
        seen = tracks.update(people([standing] if hidden else [standing, walking]), time_s)
        assert ids(seen) == ([1] if hidden else [1, 2])


def test_a_person_unseen_for_longer_than_the_limit_gets_a_new_number_and_none_is_used_twice():
    for gap_s, expected in ((0.5, [1]), (0.75, [2])):
        tracks = tracker(max_gap_s=0.5)
        assert ids(tracks.update(people([100.0]), 0.0)) == [1]
        assert ids(tracks.update(people([100.0]), gap_s)) == expected
        assert ids(tracks.update(people([100.0, 900.0]), gap_s + 0.04))[1] == expected[0] + 1


def test_a_lost_person_is_found_where_it_was_walking_to_not_where_it_was():
    tracks = tracker()
    for frame in range(30):
        tracks.update(people([100 + 400 * frame / 30]), frame / 30)
    # 0.6 s later it should be 240 px further on; somebody else stands where it was last seen.
    back = tracks.update(people([490.0, 100 + 400 * 1.6 - 20]), 1.6)
    assert ids(back) == [2, 1]


def test_an_unsure_box_continues_a_track_but_starts_none():
    tracks = tracker(person_threshold=0.5, low_threshold=0.1)
    assert ids(tracks.update(people([100.0, 900.0], scores=[0.9, 0.3]), 0.0)) == [1]
    seen = tracks.update(people([900.0, 105.0], scores=[0.45, 0.15]), 0.04)
    assert ids(seen) == [1]
    np.testing.assert_array_equal(seen.boxes.xyxy_N4[0, 0], 105.0)
    assert ids(tracks.update(people([110.0], scores=[0.05]), 0.08)) == []
    assert ids(tracks.update(people([110.0], scores=[0.5]), 0.12)) == [1]


def test_a_sure_box_is_preferred_to_an_unsure_one_that_fits_better():
    tracks = tracker(person_threshold=0.5)
    tracks.update(people([100.0]), 0.0)
    seen = tracks.update(people([100.0, 120.0], scores=[0.3, 0.9]), 0.04)
    assert ids(seen) == [1]
    assert seen.boxes.xyxy_N4[0, 0] == 120.0


def test_a_person_found_twice_gets_one_track():
    twice = people([100.0, 104.0], scores=[0.6, 0.9])
    twice = Poses(
        np.repeat(twice.keypoints_NK2[:1], 2, axis=0),
        twice.scores_NK,
        twice.person_scores_N,
        twice.boxes,
        COCO,
    )
    tracks = tracker()
    first = tracks.update(twice, 0.0)
    assert ids(first) == [1]
    assert first.boxes.scores_N[0] == np.float32(0.9)  # the surer box is kept
    assert ids(tracks.update(twice, 0.04)) == [1]


def test_a_box_without_the_arm_inside_the_box_with_it_is_the_same_person_twice():
    # Two crops of one person, each with its own errors: OKS about 0.6.
    points_NK2 = people([100.0, 100.0]).keypoints_NK2
    points_NK2[1] += np.where(np.arange(17) % 2, 14.0, -14.0)[:, None]
    boxes = Boxes(np.array([[100, 300, 200, 600], [100, 300, 150, 600.0]]), np.array([0.8, 0.5]))
    scores_NK = np.full((2, 17), 0.8)
    inside = Poses(points_NK2, scores_NK, np.array([0.8, 0.5]), boxes, COCO)
    assert ids(tracker().update(inside, 0.0)) == [1]
    apart = Boxes(boxes.xyxy_N4 - np.array([[0], [15]]) * [1, 0, 0, 0], boxes.scores_N)
    beside = Poses(points_NK2, scores_NK, np.array([0.8, 0.5]), apart, COCO)
    assert ids(tracker().update(beside, 0.0)) == [1, 2]


def test_keypoints_tell_people_apart_whose_boxes_cannot():
    bent_K2 = BODY_K2 * [1, 0.5] + [0, 150]
    tracks = tracker()

    def pair(first_K2, second_K2):
        shapes = [people([x], body_K2=body) for x, body in ((100.0, first_K2), (104.0, second_K2))]
        points_NK2 = np.concatenate([shape.keypoints_NK2 for shape in shapes])
        both = people([100.0, 104.0])
        return Poses(points_NK2, both.scores_NK, both.person_scores_N, both.boxes, COCO)

    assert ids(tracks.update(pair(BODY_K2, bent_K2), 0.0)) == [1, 2]
    assert ids(tracks.update(pair(bent_K2, BODY_K2), 0.04)) == [2, 1]


@pytest.mark.parametrize("count", [1, 2, 21, 133])
def test_any_keypoint_schema_can_be_tracked(count):
    schema = KeypointSchema("mine", tuple(f"point{k}" for k in range(count)))
    body_K2 = np.random.default_rng(1).uniform(0, [100, 300], (count, 2))
    tracks = tracker()
    for frame in range(5):
        seen = people([100.0 + 5 * frame, 600.0], schema=schema, body_K2=body_K2)
        assert ids(tracks.update(seen, frame / 25)) == [1, 2]


def test_numbers_that_are_not_finite_start_no_track_and_harm_none():
    tracks = tracker()
    good, bad = people([100.0, 500.0]), people([100.0, 500.0])
    bad.keypoints_NK2[0, :14] = np.nan
    bad.boxes.xyxy_N4[1] = np.nan
    assert ids(tracks.update(bad, 0.0)) == [1]
    assert ids(tracks.update(good, 0.04)) == [1, 2]
    assert ids(tracks.update(bad, 0.08)) == [1]
    assert ids(tracks.update(good, 0.12)) == [1, 2]
    json.dumps(tracks.state(), allow_nan=False)


def test_everything_that_belongs_to_a_person_follows_it():
    seen = people([100.0, 500.0, 900.0], scores=[0.9, 0.1, 0.8])
    fields = {
        "heatmaps": PersonHeatmaps(np.zeros((3, 17, 2, 2), np.float32), np.ones((3, 2, 3))),
        "raw_keypoints_NK2": seen.keypoints_NK2 + 1,
        "flags_NK": np.arange(51, dtype=np.uint8).reshape(3, 17),
    }
    poses = Poses(
        seen.keypoints_NK2, seen.scores_NK, seen.person_scores_N, seen.boxes, COCO, **fields
    )
    kept = tracker().update(poses, 0.0)
    assert len(kept) == len(kept.heatmaps.heatmaps_NKHW) == 2
    np.testing.assert_array_equal(kept.flags_NK, fields["flags_NK"][[0, 2]])
    np.testing.assert_array_equal(kept.raw_keypoints_NK2, kept.keypoints_NK2 + 1)
    np.testing.assert_array_equal(kept.person_scores_N, seen.person_scores_N[[0, 2]])


def test_predicted_boxes_cover_the_people_where_they_will_be():
    tracks = tracker()
    for frame in range(20):
        tracks.update(people([200 + 300 * frame / 30, 1500.0]), frame / 30)
    boxes = tracks.predict_boxes(19 / 30 + 0.2, SIZE_WH)
    truth = people([200 + 300 * (19 / 30 + 0.2), 1500.0]).boxes
    # A tenth of the width of 100 px: the crop has a quarter more than the box.
    np.testing.assert_allclose(boxes.xyxy_N4[:, [0, 2]], truth.xyxy_N4[:, [0, 2]], atol=10)
    np.testing.assert_allclose(boxes.scores_N, 0.9)
    points_NK2 = people([200 + 300 * (19 / 30 + 0.2), 1500.0]).keypoints_NK2
    assert (points_NK2 > boxes.xyxy_N4[:, None, :2]).all()
    assert (points_NK2 < boxes.xyxy_N4[:, None, 2:]).all()


def test_predicted_boxes_reach_around_a_limb_outside_the_box():
    stretched_K2 = BODY_K2.copy()
    stretched_K2[9] = [180, 60]
    tracks = tracker()
    tracks.update(people([500.0], body_K2=stretched_K2), 0.0)
    assert tracks.predict_boxes(0.04, SIZE_WH).xyxy_N4[0, 2] > 680


def test_who_has_left_the_picture_has_no_predicted_box():
    tracks = tracker()
    for frame in range(30):
        tracks.update(people([1600 + 300 * frame / 30, 100.0]), frame / 30)
    assert len(tracks.predict_boxes(1.0, SIZE_WH)) == 2
    assert len(tracks.predict_boxes(1.6, SIZE_WH)) == 1


def test_a_box_without_area_has_no_predicted_box():
    tracks = tracker(keypoint_threshold=0.5)
    flat = people([500.0])
    boxes = Boxes(np.array([[500.0, 100.0, 500.0, 300.0]]), np.array([0.9]))
    tracks.update(replace(flat, boxes=boxes, scores_NK=0 * flat.scores_NK), 0.0)
    with np.errstate(all="raise"):
        assert len(tracks.predict_boxes(0.04, SIZE_WH)) == 0


def test_frames_between_detections_keep_identities_and_do_not_let_boxes_grow():
    tracks = tracker()
    widths, errors = [], []
    for frame in range(60):
        time_s = frame / 30
        x = 200 + 300 * time_s + 40 * np.sin(3 * time_s)
        seen = people([x, 1500.0], seed=frame)
        if frame % 5:
            boxes = tracks.predict_boxes(time_s, SIZE_WH)
            seen = Poses(seen.keypoints_NK2, seen.scores_NK, seen.person_scores_N, boxes, COCO)
            errors.append(abs(boxes.xyxy_N4[0, :2] - people([x]).boxes.xyxy_N4[0, :2]).max())
            widths.append(boxes.xyxy_N4[0, 2] - boxes.xyxy_N4[0, 0])
        assert ids(tracks.update(seen, time_s, detected=not frame % 5)) == [1, 2]
    assert max(errors) < 30
    assert max(widths) < 130


def test_between_detections_no_track_starts_and_who_has_gone_is_left_out():
    tracks = tracker()
    tracks.update(people([200.0, 900.0]), 0.0)
    seen = people([200.0, 900.0, 1500.0])
    faint_NK = seen.scores_NK.copy()
    faint_NK[1] = 0.3
    faint = Poses(seen.keypoints_NK2, faint_NK, seen.person_scores_N, seen.boxes, COCO)
    assert ids(tracks.update(faint, 0.04, detected=False)) == [1]
    assert len(tracks.predict_boxes(0.08, SIZE_WH)) == 1
    assert ids(tracks.update(seen, 0.08)) == [1, 2, 3]


def test_between_detections_a_hidden_person_does_not_become_the_one_in_front():
    tracks = tracker()
    tracks.update(people([600.0, 660.0]), 0.0)
    boxes = tracks.predict_boxes(0.04, SIZE_WH)
    same = people([600.0, 600.0])  # the network finds the one in front in both crops
    seen = Poses(same.keypoints_NK2, same.scores_NK, same.person_scores_N, boxes, COCO)
    assert ids(tracks.update(seen, 0.04, detected=False)) == [1]


@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 1000), cut=st.integers(0, 29))
def test_a_resumed_tracker_goes_on_bit_for_bit(seed, cut):
    rng = np.random.default_rng(seed)
    frames = []
    for frame in range(30):
        xs = np.array([100.0, 500.0, 900.0, 1400.0]) + rng.normal(0, 10, 4) + 8 * frame
        here = rng.random(4) < 0.8
        frames.append(people(xs[here], scores=rng.uniform(0.05, 1, here.sum()), seed=seed + frame))
    times = np.cumsum(rng.uniform(0.0, 0.3, 30)).tolist()
    choice = TrackerSettings(max_gap_s=0.5)
    whole, part = Tracker(choice), Tracker(choice)
    for frame, (poses, time_s) in enumerate(zip(frames, times, strict=True)):
        if frame == cut:
            part = Tracker.from_state(choice, json.loads(json.dumps(part.state(), allow_nan=False)))
        expected, found = (t.update(poses, time_s) for t in (whole, part))
        assert ids(found) == ids(expected)
    assert part.state() == whole.state()
    boxes = [t.predict_boxes(times[-1] + 0.04, SIZE_WH).xyxy_N4.tobytes() for t in (whole, part)]
    assert boxes[0] == boxes[1]


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_identities_are_unique_in_a_frame_and_never_come_back_after_the_limit(seed):
    rng, tracks, last_seen, time_s = np.random.default_rng(seed), tracker(), {}, 0.0
    for frame in range(20):
        time_s += rng.uniform(0, 0.8)
        xs = rng.uniform(0, 1500, rng.integers(0, 5))
        seen = tracks.update(people(xs, scores=rng.random(len(xs)), seed=frame), time_s)
        found = ids(seen)
        assert len(set(found)) == len(found)
        new = [identity for identity in found if identity not in last_seen]
        assert sorted(new) == list(range(len(last_seen) + 1, len(last_seen) + 1 + len(new)))
        assert all(time_s - last_seen[i] <= 1.0 for i in found if i in last_seen)
        last_seen |= dict.fromkeys(found, time_s)


def test_a_picture_twice_as_large_gives_the_same_identities():
    small, large = tracker(), tracker()
    rng = np.random.default_rng(8)
    for frame in range(40):
        xs = [200 + 6 * frame, 700 - 5 * frame] + ([400.0] if rng.random() < 0.5 else [])
        poses = people(xs, seed=frame)
        double = Poses(
            2 * poses.keypoints_NK2,
            poses.scores_NK,
            poses.person_scores_N,
            Boxes(2 * poses.boxes.xyxy_N4, poses.boxes.scores_N),
            COCO,
        )
        assert ids(small.update(poses, frame / 25)) == ids(large.update(double, frame / 25))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"person_threshold": 1.5}, "person_threshold is 1.5, expected 0 to 1"),
        ({"max_gap_s": -1.0}, "max_gap_s is -1.0, expected 0 to 3600"),
        (
            {"person_threshold": 0.1, "low_threshold": 0.2},
            "low_threshold is 0.2, expected at most person_threshold, 0.1",
        ),
    ],
)
def test_settings_out_of_range_are_named(fields, message):
    with pytest.raises(UsageError) as caught:
        TrackerSettings(**fields)
    assert caught.value.message == message


def test_the_given_poses_are_left_as_they_were():
    poses = people([100.0, 500.0])
    before = poses.keypoints_NK2.copy(), poses.boxes.xyxy_N4.copy()
    tracks = tracker()
    tracks.update(poses, 0.0)
    tracks.update(poses, 0.04)
    np.testing.assert_array_equal(poses.keypoints_NK2, before[0])
    np.testing.assert_array_equal(poses.boxes.xyxy_N4, before[1])
    assert poses.track_ids_N is None
