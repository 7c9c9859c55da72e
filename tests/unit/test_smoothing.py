"""Causal smoothing and left/right repair, on a walker whose truth is known."""

import json
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hrnet_cli.errors import UsageError
from hrnet_cli.schema import load_schema
from hrnet_cli.smoothing import FILTERS, Smoother, SmoothingSettings
from hrnet_cli.structures import FILLED, SWAPPED, Poses
from hrnet_cli.swaps import swap_groups
from walking import COCO, SIZE, poses_of, walker, with_swap

KINDS = ("one-euro", "kalman", "median")
LEGS, ARMS = (11, 13, 15), (5, 7, 9)


def smoothed(kind, points_TK2, times_T, *, scores_TK=None, scale=1.0, **fields):
    """Return the keypoints (T, K, 2) that a smoother makes of one person's."""
    smoother = Smoother(kind, SmoothingSettings(**fields))
    scores_TK = np.full(points_TK2.shape[:2], 0.8) if scores_TK is None else scores_TK
    return np.stack(
        [
            smoother.update(poses_of(p, scores=s, scale=scale), float(t)).keypoints_NK2[0]
            for p, s, t in zip(points_TK2, scores_TK, times_T, strict=True)
        ]
    )


def rms(errors):
    """Return the root mean square in hundredths of the person's size."""
    return 100 * np.sqrt(np.mean(np.square(errors))) / SIZE


def jitter(errors_TK2):
    """Return the root mean square of second differences: what trembles."""
    return rms(np.diff(errors_TK2, n=2, axis=0))


def noisy(points_TK2, part, seed=0):
    return points_TK2 + np.random.default_rng(seed).normal(0, part * SIZE, points_TK2.shape)


@pytest.mark.parametrize(
    # Parts of the noise and of the trembling that may be left; a median takes less away.
    ("kind", "error_left", "jitter_left"),
    [("one-euro", 0.6, 0.35), ("kalman", 0.8, 0.5), ("median", 0.65, 0.5)],
)
def test_somebody_who_stands_trembles_less(kind, error_left, jitter_left):
    times = np.arange(120) / 30
    true = walker(times, speed=0.0, steps_hz=0.0)
    seen = noisy(true, 0.015)
    steady = smoothed(kind, seen, times)
    assert rms(steady[30:] - true[30:]) < error_left * rms(seen - true)
    assert jitter(steady[30:] - true[30:]) < jitter_left * jitter(seen - true)


@pytest.mark.parametrize(("kind", "most_error"), [("one-euro", 1.3), ("kalman", 0.9)])
def test_a_walker_trembles_less_and_is_not_left_behind(kind, most_error):
    times = np.arange(150) / 30
    true = walker(times)
    seen = noisy(true, 0.02)
    steady = smoothed(kind, seen, times)
    assert jitter(steady - true) < 0.7 * jitter(seen - true)
    assert rms(steady[15:] - true[15:]) < most_error * rms(seen - true)


@pytest.mark.parametrize("kind", KINDS)
def test_who_stands_still_is_not_moved(kind):
    times = np.arange(30) / 30
    true = walker(times, speed=0.0, steps_hz=0.0)
    np.testing.assert_allclose(smoothed(kind, true, times), true, rtol=0, atol=1e-4)


@pytest.mark.parametrize(
    # Seconds behind a steady motion; a median of 5 is 2 sightings behind.
    ("kind", "lag_s"),
    [("one-euro", 0.04), ("kalman", 0.004), ("median", 2 / 30)],
)
def test_a_steady_motion_is_followed_with_a_bounded_lag(kind, lag_s):
    times = np.arange(90) / 30
    speed = 1.0 * SIZE
    true = walker(times, speed=speed, steps_hz=0.0)
    behind_px = true[60:, :, 0] - smoothed(kind, true, times)[60:, :, 0]
    assert behind_px.max() <= lag_s * speed + 1e-3
    assert behind_px.min() >= -1e-3


@pytest.mark.parametrize(("kind", "settled_s"), [("one-euro", 0.2), ("kalman", 0.4)])
def test_a_step_is_reached_within_a_bounded_time(kind, settled_s):
    times = np.arange(60) / 30
    true = walker(times, speed=0.0, steps_hz=0.0)
    true[30:] += [0.3 * SIZE, 0.0]
    left = np.abs(smoothed(kind, true, times) - true)[..., 0] / (0.3 * SIZE)
    assert left[30].min() > 0.02  # it is smoothed at all
    assert left[30 + int(settled_s * 30) :].max() < 0.1


@pytest.mark.parametrize(("taps", "longest"), [(3, 1), (5, 2)])
def test_a_median_takes_short_outliers_away_whole(taps, longest):
    times = np.arange(20) / 30
    true = walker(times, speed=0.0, steps_hz=0.0)
    seen = true.copy()
    seen[10 : 10 + longest, 9] += [200.0, -90.0]
    np.testing.assert_allclose(smoothed("median", seen, times, taps=taps), true, atol=1e-4)
    seen[10 : 11 + longest, 9] += [200.0, -90.0]
    worst = np.abs(smoothed("median", seen, times, taps=taps) - true).max()
    assert worst > 100


@pytest.mark.parametrize("kind", ["one-euro", "kalman"])
def test_a_keypoint_with_a_low_score_moves_less(kind):
    times = np.arange(20) / 30
    true = walker(times, speed=0.0, steps_hz=0.0)
    true[15, :, 0] += 50
    scores = np.full(true.shape[:2], 0.8)
    scores[:, 9] = 0.1
    moved = (smoothed(kind, true, times, scores_TK=scores) - true[0])[15, :, 0]
    assert 0 < moved[9] < 0.6 * moved[10]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("scale", [0.25, 4.0])
def test_the_resolution_of_the_video_does_not_matter(kind, scale):
    times = np.arange(40) / 30
    seen = noisy(walker(times), 0.02)
    usual = smoothed(kind, seen, times)
    np.testing.assert_allclose(smoothed(kind, seen, times, scale=scale), scale * usual, rtol=1e-5)


@pytest.mark.parametrize("kind", ["one-euro", "kalman"])
def test_the_frame_rate_hardly_matters(kind):
    fine, coarse = np.arange(240) / 120, np.arange(80) / 40
    at_fine = smoothed(kind, walker(fine, steps_hz=0.4), fine)[::3]
    at_coarse = smoothed(kind, walker(coarse, steps_hz=0.4), coarse)
    assert rms(at_fine[20:] - at_coarse[20:]) < 0.5


@pytest.mark.parametrize("kind", KINDS)
def test_raw_keypoints_are_kept_and_what_was_given_is_not_written_into(kind):
    times = np.arange(10) / 30
    seen = noisy(walker(times), 0.02)
    smoother = Smoother(kind, SmoothingSettings())
    for time_s, points in zip(times, seen, strict=True):
        given_poses = poses_of(points)
        before = given_poses.keypoints_NK2.copy()
        steady = smoother.update(given_poses, float(time_s))
        np.testing.assert_array_equal(given_poses.keypoints_NK2, before)
        np.testing.assert_array_equal(steady.raw_keypoints_NK2, before)
        np.testing.assert_array_equal(steady.scores_NK, given_poses.scores_NK)
        assert steady.flags_NK is None
    assert rms(steady.keypoints_NK2 - before) > 0.1


def test_none_gives_back_what_it_was_given():
    poses = poses_of(walker([0.0])[0])
    assert Smoother("none", SmoothingSettings()).update(poses, 0.0) is poses


@pytest.mark.parametrize("kind", KINDS)
def test_nobody_is_ordinary(kind):
    smoother = Smoother(kind, SmoothingSettings(fix_swaps=True))
    nobody = replace(Poses.empty(COCO), track_ids_N=np.zeros(0, np.int64))
    empty = smoother.update(nobody, 0.0)
    assert len(empty) == 0
    assert empty.raw_keypoints_NK2.shape == (0, 17, 2)
    assert empty.flags_NK.shape == (0, 17)
    assert smoother.state() == {}


@pytest.mark.parametrize("kind", KINDS)
def test_people_do_not_influence_each_other_whatever_their_order(kind):
    times = np.arange(20) / 30
    first, second = noisy(walker(times), 0.02), noisy(walker(times, speed=-50.0), 0.02, seed=1)
    alone = [smoothed(kind, points, times) for points in (first, second)]
    smoother = Smoother(kind, SmoothingSettings())
    for frame, time_s in enumerate(times):
        parts = [poses_of(first[frame], track=7), poses_of(second[frame], track=3)]
        order = [0, 1] if frame % 2 else [1, 0]
        both = Poses(
            *(
                np.concatenate([getattr(parts[i], name) for i in order])
                for name in ("keypoints_NK2", "scores_NK", "person_scores_N")
            ),
            type(parts[0].boxes)(
                np.concatenate([parts[i].boxes.xyxy_N4 for i in order]), np.array([0.9, 0.9])
            ),
            COCO,
            track_ids_N=np.concatenate([parts[i].track_ids_N for i in order]),
        )
        steady = smoother.update(both, float(time_s)).keypoints_NK2
        for place, i in enumerate(order):
            np.testing.assert_array_equal(steady[place], alone[i][frame])


@pytest.mark.parametrize("kind", KINDS)
def test_who_comes_back_after_the_limit_starts_afresh(kind):
    smoother = Smoother(kind, SmoothingSettings(reset_gap_s=0.5))
    points = walker([0.0])[0]
    for frame in range(10):
        smoother.update(poses_of(points), frame / 30)
    soon = smoother.update(poses_of(points + 80), 0.3 + 0.45).keypoints_NK2[0]
    assert np.abs(soon - points - 80).max() > 0.1
    late = smoother.update(poses_of(points), 0.75 + 0.55).keypoints_NK2[0]
    np.testing.assert_allclose(late, points, atol=1e-4)
    assert list(smoother.state()) == ["1"]
    smoother.update(poses_of(points, track=2), 9.0)
    assert list(smoother.state()) == ["2"]


@pytest.mark.parametrize("kind", KINDS)
def test_keypoints_without_a_place_change_nothing_and_are_started_when_they_come(kind):
    times = np.arange(12) / 30
    true = walker(times, speed=0.0, steps_hz=0.0)
    seen = true.copy()
    seen[:4, 9] = np.nan
    seen[7, 10] = [np.inf, 5.0]
    steady = smoothed(kind, seen, times, fix_swaps=True)
    assert np.isnan(steady[:4, 9]).all()
    assert steady[7, 10].tolist() == [np.inf, 5.0]
    steady[:4, 9], steady[7, 10] = true[:4, 9], true[7, 10]
    np.testing.assert_allclose(steady, true, atol=1e-4)


@pytest.mark.parametrize("kind", KINDS)
def test_two_frames_at_one_time_are_no_problem(kind):
    times = np.array([0.0, 0.0, 1 / 30, 1 / 30, 2 / 30])
    steady = smoothed(kind, noisy(walker(times), 0.01), times, fix_swaps=True)
    assert np.isfinite(steady).all()


@settings(max_examples=12, deadline=None)
@given(kind=st.sampled_from(tuple(FILTERS)), seed=st.integers(0, 1000), cut=st.integers(0, 14))
def test_a_resumed_smoother_goes_on_bit_for_bit(kind, seed, cut):
    rng = np.random.default_rng(seed)
    times = np.cumsum(rng.uniform(0.0, 0.1, 15))
    seen = noisy(walker(times), 0.02, seed)
    seen = with_swap(seen, [5, 6, 7, 8], LEGS)
    seen[rng.random(seen.shape[:2]) < 0.1] = np.nan
    choice = SmoothingSettings(fix_swaps=True, reset_gap_s=0.09)
    whole, part = Smoother(kind, choice), Smoother(kind, choice)
    for frame, time_s in enumerate(times.tolist()):
        if frame == cut:
            state = json.loads(json.dumps(part.state(), allow_nan=False))
            part = Smoother.from_state(kind, choice, state)
        poses = poses_of(seen[frame], scores=rng.uniform(0, 1, 17))
        expected, found = (each.update(poses, time_s) for each in (whole, part))
        assert found.keypoints_NK2.tobytes() == expected.keypoints_NK2.tobytes()
        assert found.flags_NK.tobytes() == expected.flags_NK.tobytes()
    assert part.state() == whole.state()


def test_people_without_track_ids_are_refused():
    poses = replace(poses_of(walker([0.0])[0]), track_ids_N=None)
    with pytest.raises(UsageError) as caught:
        Smoother("one-euro", SmoothingSettings()).update(poses, 0.0)
    assert caught.value.message == "smoothing needs people with track ids, and these have none"


def test_an_unknown_kind_is_named():
    with pytest.raises(UsageError) as caught:
        Smoother("spline", SmoothingSettings())
    assert (
        caught.value.message
        == "smoothing 'spline' is not known; expected one-euro, kalman, median, none"
    )


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"taps": 4}, "taps is 4, expected 3 or 5"),
        ({"min_cutoff_hz": 0.0}, "min_cutoff_hz is 0.0, expected above 0 and at most 1000"),
        ({"beta": -1.0}, "beta is -1.0, expected 0 to 1000"),
        ({"noise": float("nan")}, "noise is nan, expected above 0 and at most 1000"),
        ({"restlessness": 1e200}, "restlessness is 1e+200, expected above 0 and at most 1000"),
        ({"reset_gap_s": -0.1}, "reset_gap_s is -0.1, expected 0 to 1000"),
    ],
)
def test_settings_out_of_range_are_named(fields, message):
    with pytest.raises(UsageError) as caught:
        SmoothingSettings(**fields)
    assert caught.value.message == message


# Left and right


def repaired(points_TK2, times_T, scores_TK=None):
    """Return the keypoints and flags (T, K) after swap repair alone."""
    smoother = Smoother("none", SmoothingSettings(fix_swaps=True))
    scores_TK = np.full(points_TK2.shape[:2], 0.8) if scores_TK is None else scores_TK
    found = [
        smoother.update(poses_of(p, scores=s), float(t))
        for p, s, t in zip(points_TK2, scores_TK, times_T, strict=True)
    ]
    return np.stack([f.keypoints_NK2[0] for f in found]), np.stack([f.flags_NK[0] for f in found])


@pytest.mark.parametrize("fps", [25, 30, 60])
@pytest.mark.parametrize("part", [0.0, 0.01])
@pytest.mark.parametrize("steps_hz", [0.0, 0.9])
def test_legs_that_cross_while_walking_are_left_alone(fps, part, steps_hz):
    times = np.arange(6 * fps) / fps
    seen = noisy(walker(times, steps_hz=steps_hz), part)
    points, flags = repaired(seen, times)
    assert not flags.any()
    np.testing.assert_allclose(points, seen, atol=1e-3)


def test_arms_that_cross_in_front_of_the_body_are_left_alone():
    times = np.arange(180) / 30
    seen = noisy(walker(times, speed=0.0, steps_hz=0.0, arms="crossing"), 0.01)
    # They do cross: the left wrist is to the right of the other, then to the left.
    side_T = np.sign(seen[:, 9, 0] - seen[:, 10, 0])
    assert set(side_T.tolist()) == {-1.0, 1.0}
    assert not repaired(seen, times)[1].any()


@pytest.mark.parametrize("frames", [[40], [40, 41, 42], [40, 44, 45]])
def test_swapped_legs_are_put_right_and_marked(frames):
    times = np.arange(120) / 30
    true = walker(times)
    # Legs well apart: at a crossing nobody could tell, and it would not matter.
    assert np.abs(true[frames, 15, 0] - true[frames, 16, 0]).min() > 0.2 * SIZE
    true = noisy(true, 0.005)
    scores = np.full((120, 17), 0.8)
    scores[:, 15] = 0.6
    swapped_scores = with_swap(scores[..., None], frames, LEGS)[..., 0]
    points, flags = repaired(with_swap(true, frames, LEGS), times, swapped_scores)
    np.testing.assert_allclose(points, true, atol=1e-3)
    expected = np.zeros((120, 17), np.uint8)
    expected[np.ix_(frames, [11, 12, 13, 14, 15, 16])] = SWAPPED
    np.testing.assert_array_equal(flags, expected)


def test_scores_follow_their_keypoints_and_the_raw_ones_stay():
    times = np.arange(60) / 30
    seen = with_swap(walker(times), [40], LEGS)
    scores = np.full(17, 0.8)
    scores[15] = 0.6
    smoother = Smoother("none", SmoothingSettings(fix_swaps=True))
    for frame in range(41):
        poses = poses_of(seen[frame], scores=scores)
        poses = replace(poses, flags_NK=np.full((1, 17), FILLED, np.uint8))
        found = smoother.update(poses, frame / 30)
    assert found.scores_NK[0, [15, 16]].tolist() == pytest.approx([0.8, 0.6])
    assert found.flags_NK[0, [9, 15]].tolist() == [FILLED, FILLED | SWAPPED]
    np.testing.assert_array_equal(found.raw_keypoints_NK2, poses.keypoints_NK2)


def test_a_whole_body_that_is_exchanged_is_put_right():
    times = np.arange(90) / 30
    true = walker(times, speed=0.0, arms="crossing", steps_hz=0.9)
    frames = [40, 41]
    points, _flags = repaired(with_swap(true, frames, (*LEGS, *ARMS)), times)
    np.testing.assert_allclose(points, true, atol=1e-3)


def test_one_pair_alone_is_too_little_evidence():
    times = np.arange(90) / 30
    seen = with_swap(walker(times), [40], (15,))
    assert not repaired(seen, times)[1].any()


def test_a_swap_that_was_not_clear_does_not_make_the_right_reading_look_swapped():
    times = np.arange(60) / 30
    true = walker(times, speed=0.0, steps_hz=0.0)
    # Knees that come apart: in frame 40 too little to vote, in frame 41 enough.
    knees_apart = SIZE * (0.079 + 0.004 * (np.arange(60) - 40))
    for side, sign in ((0, 1), (1, -1)):
        true[:, 13 + side, 0] = 300 + sign * knees_apart / 2
        true[:, 15 + side, 0] = 300 + sign * 0.2 * SIZE
    assert not repaired(with_swap(true, [40], LEGS), times)[1][41:].any()


def test_a_network_that_holds_on_to_its_reading_is_believed():
    times = np.arange(120) / 30
    true = walker(times, speed=0.0, steps_hz=0.0, arms="crossing")
    true[:, [13, 15], 0] += 60
    true[:, 11, 0] += 60
    seen = with_swap(true, range(60), LEGS)  # wrong from the start, right from frame 60 on
    points, flags = repaired(seen, times)
    assert flags[60:75, 15].all()
    assert not flags[76:].any()
    np.testing.assert_allclose(points[76:], true[76:], atol=1e-3)


def test_unseen_limbs_are_not_judged():
    times = np.arange(60) / 30
    seen = with_swap(walker(times), [40], LEGS)
    scores = np.full((60, 17), 0.8)
    scores[:, 11:] = 0.05
    assert not repaired(seen, times, scores)[1].any()


@pytest.mark.parametrize(
    ("schema", "pairs"),
    [
        ("coco17", {"legs": 3, "arms": 3}),
        ("mpii16", {"legs": 3, "arms": 3}),
        ("halpe26", {"legs": 6, "arms": 3}),
        ("wholebody133", {"legs": 6, "arms": 3}),
        ("ap10k", {"legs": 3, "arms": 3}),
        ("hand21", {}),
    ],
)
def test_legs_and_arms_are_found_in_any_schema(schema, pairs):
    groups = swap_groups(load_schema(schema))
    assert {group.name: len(group.left_P) for group in groups} == pairs
