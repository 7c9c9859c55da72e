"""Smoothing, gap filling and left/right repair of whole videos, on a walker of known truth."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hrnet_cli.errors import UsageError
from hrnet_cli.smoothing_offline import SMOOTHERS, OfflineSettings, smooth_video
from hrnet_cli.structures import FILLED, SWAPPED, Poses
from walking import COCO, SIZE, poses_of, walker, with_swap

KINDS = ("savgol", "gaussian", "median", "butterworth")
LEGS, ARMS = (11, 13, 15), (5, 7, 9)
NOBODY = replace(Poses.empty(COCO), track_ids_N=np.zeros(0, np.int64))


def video(points_TK2, scores_TK=None, **fields):
    """Return one person's frames."""
    scores_TK = np.full(points_TK2.shape[:2], 0.8) if scores_TK is None else scores_TK
    pairs = zip(points_TK2, scores_TK, strict=True)
    return [poses_of(points, scores=scores, **fields) for points, scores in pairs]


def smoothed(times_T, points_TK2, scores_TK=None, *, scale=1.0, **fields):
    """Return the keypoints (T, K, 2) of one person, smoothed."""
    poses_T = video(points_TK2, scores_TK, scale=scale)
    found = smooth_video(times_T, poses_T, OfflineSettings(**fields))
    return np.stack([poses.keypoints_NK2[0] for poses in found])


def noisy(points_TK2, part, seed=0):
    return points_TK2 + np.random.default_rng(seed).normal(0, part * SIZE, points_TK2.shape)


def rms(errors):
    return float(np.sqrt(np.mean(np.square(errors))))


def uneven_times(count, seed=0):
    return np.cumsum(np.random.default_rng(seed).uniform(0.01, 0.06, count))


@pytest.mark.parametrize(
    ("kind", "left"),
    [("savgol", 0.6), ("gaussian", 0.75), ("median", 0.85), ("butterworth", 0.7)],
)
def test_noise_becomes_less_and_motion_stays(kind, left):
    times = np.arange(150) / 30
    true = walker(times, steps_hz=0.5)
    seen = noisy(true, 0.02)
    assert rms(smoothed(times, seen, kind=kind) - true) < left * rms(seen - true)


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_lags(kind):
    """The smoothed course of a walk fits the true one best without any shift in time."""
    times = np.arange(300) / 60
    fine = smoothed(times, noisy(walker(times), 0.01), kind=kind)[50:-50]
    shifts = np.arange(-3, 4)
    errors = [rms(fine - walker(times + shift / 60)[50:-50]) for shift in shifts]
    assert shifts[int(np.argmin(errors))] == 0


@pytest.mark.parametrize("kind", KINDS)
def test_who_stands_still_is_not_moved(kind):
    times = uneven_times(40)
    true = walker(times, speed=0.0, steps_hz=0.0)
    np.testing.assert_allclose(smoothed(times, true, kind=kind), true, atol=1e-4)


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 1000), order=st.integers(0, 4), count=st.integers(1, 30))
def test_savgol_reproduces_polynomials_at_any_times_and_weights(seed, order, count):
    rng = np.random.default_rng(seed)
    times = np.cumsum(rng.uniform(0.01, 0.08, count)) + 5000.0
    powers = (times - 5000.0)[:, None] ** np.arange(order + 1)
    true = np.einsum("tp,pkd->tkd", powers, rng.normal(0, 100, (order + 1, 17, 2)))
    scores = rng.uniform(0.02, 1, (count, 17))
    found = smoothed(times, true, scores, kind="savgol", order=order)
    # float32 in and out: a few millionths of the largest value.
    np.testing.assert_allclose(found, true, rtol=0, atol=3e-6 * max(1, np.abs(true).max()))


@pytest.mark.parametrize("kind", ["gaussian", "butterworth"])
def test_a_steady_motion_is_kept_to_the_ends(kind):
    times = uneven_times(30)
    true = walker(times, speed=200.0, steps_hz=0.0)
    np.testing.assert_allclose(smoothed(times, true, kind=kind), true, atol=1e-3)


def test_savgol_is_the_published_filter_on_even_times():
    # Savitzky and Golay, 1964: quadratic, 5 points: (-3, 12, 17, 12, -3) / 35.
    times = np.arange(30) / 25
    seen = noisy(walker(times), 0.05)
    found = smoothed(times, seen, kind="savgol", window_s=4 / 25, order=2)
    weights = np.array([-3, 12, 17, 12, -3]) / 35
    expected = sum(weight * seen[i : 26 + i] for i, weight in enumerate(weights))
    np.testing.assert_allclose(found[2:-2], expected, atol=1e-3)


def test_gaussian_has_gaussian_weights_on_even_times():
    times = np.arange(41) / 40
    seen = walker(times, speed=0.0, steps_hz=0.0)
    still = seen[20, 0, 0]
    seen[20, 0, 0] += 100.0
    found = smoothed(times, seen, kind="gaussian", sigma_s=0.05)[:, 0, 0] - still
    weights = np.exp(-np.square((times - 0.5) / 0.05) / 2) * (np.abs(times - 0.5) < 0.1501)
    np.testing.assert_allclose(found[8:33], 100 * (weights / weights.sum())[8:33], atol=1e-3)


def swinging(times_T, hz, amplitude=100.0):
    """Return somebody still whose one wrist swings: x by the sine, y by the cosine."""
    points = walker(times_T, speed=0.0, steps_hz=0.0)
    phase = 2 * np.pi * hz * times_T
    points[:, 9] += amplitude * np.stack([np.sin(phase), np.cos(phase)], axis=1)
    return points


@pytest.mark.parametrize(("hz", "left"), [(0.5, 1.0), (1.5, 0.5**0.5), (6.0, 0.006)])
@pytest.mark.parametrize("fps", [15, 60, 240])
def test_butterworth_leaves_the_published_part_of_each_frequency_without_lag(fps, hz, left):
    # Two passes of a second order leave 1 / (1 + (f / f1)^4), a half of the power at the cutoff,
    # in frequencies bent by the tangent (Winter, p. 69).
    times = np.arange(12 * fps) / fps
    bent = np.tan(np.pi * hz / fps) / np.tan(np.pi * 1.5 / fps)
    expected = 1 / (1 + (2**0.5 - 1) * bent**4)
    assert expected == pytest.approx(left, rel=0.01, abs=0.007)
    true = swinging(times, hz)
    still = walker(times, speed=0.0, steps_hz=0.0)[:, 9]
    found = smoothed(times, true, kind="butterworth", cutoff_hz=1.5)[:, 9] - still
    inner = slice(3 * fps, -3 * fps)
    np.testing.assert_allclose(found[inner], expected * (true[:, 9] - still)[inner], atol=0.01)


def test_butterworth_is_the_recursion_of_the_book_forward_and_backward():
    fps, cutoff_hz = 50, 6.0
    times = np.arange(200) / fps
    seen = noisy(walker(times), 0.05)
    # Winter's coefficients: y = a0 x + a1 x1 + a2 x2 + b1 y1 + b2 y2.
    bent = np.tan(np.pi * cutoff_hz / fps) / 0.802
    k1, k2 = 2**0.5 * bent, bent**2
    a0 = k2 / (1 + k1 + k2)
    a1, a2, b1 = 2 * a0, a0, -2 * a0 + 2 * a0 / k2
    b2 = 1 - a0 - a1 - a2 - b1

    def one_pass(points_TK2):
        done = points_TK2.copy()
        for t in range(2, len(done)):
            x, x1, x2 = points_TK2[t], points_TK2[t - 1], points_TK2[t - 2]
            done[t] = a0 * x + a1 * x1 + a2 * x2 + b1 * done[t - 1] + b2 * done[t - 2]
        return done

    expected = one_pass(one_pass(seen)[::-1])[::-1]
    found = smoothed(times, seen, kind="butterworth", cutoff_hz=cutoff_hz)
    # His 0.802 has three digits; the ends are begun in another way.
    np.testing.assert_allclose(found[40:-40], expected[40:-40], atol=0.02)


@pytest.mark.parametrize("jitter", [0.0, 0.3])
def test_butterworth_takes_frames_that_were_dropped_or_come_unevenly(jitter):
    rng = np.random.default_rng(0)
    fine = np.arange(300) / 30
    steps_s = rng.uniform(1 - jitter, 1 + jitter, 300) / 30
    times = np.delete(np.cumsum(steps_s), rng.choice(298, 30, replace=False) + 1)
    slow, fast = (smoothed(times, swinging(times, hz), kind="butterworth") for hz in (1.5, 14.0))
    np.testing.assert_allclose(slow[15:-15], swinging(times, 1.5)[15:-15], atol=5)
    assert rms((fast - walker(times, speed=0.0, steps_hz=0.0))[15:-15, 9]) < 25
    # Rounded to milliseconds, as Matroska has them, it stays what it is.
    even = smoothed(fine, swinging(fine, 3.0), kind="butterworth")
    rounded = smoothed(np.round(fine, 3), swinging(fine, 3.0), kind="butterworth")
    np.testing.assert_allclose(rounded, even, atol=0.6)


def test_butterworth_leaves_alone_what_is_too_slow_for_its_cutoff():
    times = np.arange(60) / 12
    seen = noisy(walker(times), 0.05)
    np.testing.assert_allclose(smoothed(times, seen, kind="butterworth"), seen, atol=1e-3)
    assert np.abs(smoothed(times, seen, kind="butterworth", cutoff_hz=5.9) - seen).max() > 1


def test_butterworth_does_not_look_across_a_long_gap():
    times = np.concatenate([np.arange(30), np.arange(30) + 46]) / 30
    seen = noisy(walker(times), 0.03)
    alone = [
        smoothed(t, s, kind="butterworth") for t, s in zip(halves(times), halves(seen), strict=True)
    ]
    found = smoothed(times, seen, kind="butterworth")
    np.testing.assert_allclose(found, np.concatenate(alone), atol=1e-6)
    # A keypoint's own gap counts, and what is shorter is bridged.
    for missing, bridged in ((14, True), (15, False)):
        even, hidden = np.arange(60) / 30, noisy(walker(np.arange(60) / 30), 0.03)
        hidden[30 : 30 + missing, 9] = np.nan
        before = smoothed(even[:30], hidden[:30], kind="butterworth")[:, 9]
        moved = np.abs(smoothed(even, hidden, kind="butterworth")[:30, 9] - before).max()
        assert (moved > 0.1) == bridged


def halves(array):
    return np.split(array, 2)


def test_butterworth_takes_thousands_of_frames_of_the_same_moment():
    times = np.cumsum(np.where(np.arange(3000) % 500, 1e-7, 0.4))
    seen = noisy(walker(times, speed=0.0), 0.01)
    assert np.isfinite(smoothed(times, seen, kind="butterworth")).all()


@pytest.mark.parametrize("kind", KINDS)
def test_slow_motion_of_the_same_is_the_same(kind):
    times = np.arange(60) / 30
    seen = noisy(walker(times), 0.03)
    slow = smoothed(4 * times, seen, kind=kind, window_s=1.2, sigma_s=0.2, cutoff_hz=1.5)
    np.testing.assert_allclose(
        slow, smoothed(times, seen, kind=kind, window_s=0.3, sigma_s=0.05), atol=1e-3
    )


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("scale", [0.25, 4.0])
def test_the_resolution_of_the_video_does_not_matter(kind, scale):
    times = uneven_times(30)
    seen = noisy(walker(times), 0.03)
    usual = smoothed(times, seen, kind=kind, fix_swaps=True, max_gap_s=0.2)
    larger = smoothed(times, seen, kind=kind, fix_swaps=True, max_gap_s=0.2, scale=scale)
    np.testing.assert_allclose(larger, scale * usual, rtol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_a_video_played_backwards_is_smoothed_the_same(kind):
    times = uneven_times(40)
    seen = noisy(walker(times), 0.03)
    backwards = smoothed((times[-1] - times)[::-1], seen[::-1], kind=kind)[::-1]
    np.testing.assert_allclose(backwards, smoothed(times, seen, kind=kind), atol=1e-3)


def test_a_keypoint_with_a_low_score_counts_less():
    times = np.arange(30) / 30
    true = walker(times, speed=0.0, steps_hz=0.0)
    seen, scores = true.copy(), np.full(true.shape[:2], 0.8)
    seen[15, [9, 10], 0] += 100
    scores[15, 9] = 0.05
    moved = np.abs(smoothed(times, seen, scores) - true).max(axis=(0, 2))
    assert moved[9] < 0.3 * moved[10]


@pytest.mark.parametrize("taps", [3, 5])
def test_a_centred_median_takes_short_outliers_away_whole(taps):
    times = np.arange(20) / 30
    true = walker(times, speed=0.0, steps_hz=0.0)
    seen = true.copy()
    seen[10 : 10 + taps // 2, 9] += [200.0, -90.0]
    np.testing.assert_allclose(smoothed(times, seen, kind="median", taps=taps), true, atol=1e-4)


@pytest.mark.parametrize("kind", tuple(SMOOTHERS))
def test_videos_without_frames_or_people_are_ordinary(kind):
    choice = OfflineSettings(kind=kind, max_gap_s=0.2, fix_swaps=True)
    assert smooth_video([], [], choice) == []
    found = smooth_video([0.0, 0.1], [NOBODY, Poses.empty(COCO)], choice)
    assert [len(poses) for poses in found] == [0, 0]
    assert found[0].flags_NK.shape == (0, 17)
    alone = video(walker([0.0]))
    np.testing.assert_array_equal(
        smooth_video([0.0], alone, choice)[0].keypoints_NK2, alone[0].keypoints_NK2
    )


@pytest.mark.parametrize("kind", KINDS)
def test_raw_keypoints_are_kept_and_what_was_given_is_not_written_into(kind):
    times = np.arange(20) / 30
    poses_T = video(noisy(walker(times), 0.02))
    before = [poses.keypoints_NK2.copy() for poses in poses_T]
    found = smooth_video(times, poses_T, OfflineSettings(kind=kind, fix_swaps=True))
    for poses, smooth, raw in zip(poses_T, found, before, strict=True):
        np.testing.assert_array_equal(poses.keypoints_NK2, raw)
        np.testing.assert_array_equal(smooth.raw_keypoints_NK2, raw)
        assert smooth.raw_keypoints_NK2.dtype == np.float32
        np.testing.assert_array_equal(smooth.boxes.xyxy_N4, poses.boxes.xyxy_N4)


def test_none_gives_back_what_it_was_given():
    poses_T = video(walker([0.0, 0.1]))
    assert smooth_video([0.0, 0.1], poses_T, OfflineSettings(kind="none")) == poses_T


def test_keypoints_without_a_place_stay_so_and_change_nothing():
    times = np.arange(20) / 30
    true = walker(times, speed=0.0, steps_hz=0.0)
    seen = true.copy()
    seen[5:9, 9] = np.nan
    seen[10, 10] = [np.inf, 3.0]
    for kind in KINDS:
        found = smoothed(times, seen, kind=kind)
        assert np.isnan(found[5:9, 9]).all()
        assert found[10, 10].tolist() == [np.inf, 3.0]
        found[5:9, 9], found[10, 10] = true[5:9, 9], true[10, 10]
        np.testing.assert_allclose(found, true, atol=1e-4)


def test_frames_at_the_same_time_are_no_problem():
    times = np.array([0.0, 0.1, 0.1, 0.1, 0.2, 0.3])
    for kind in KINDS:
        assert np.isfinite(smoothed(times, noisy(walker(times), 0.01), kind=kind)).all()


def test_people_are_smoothed_each_on_its_own_in_the_order_they_came():
    times = np.arange(12) / 30
    courses = {4: noisy(walker(times), 0.02), 9: noisy(walker(times, speed=-60.0), 0.02, seed=1)}
    alone = {track: smoothed(times, points) for track, points in courses.items()}
    poses_T = []
    for frame in range(12):
        order = [4, 9] if frame % 2 else [9, 4]
        parts = [poses_of(courses[track][frame], track=track) for track in order]
        poses_T.append(joined(parts))
    for frame, poses in enumerate(smooth_video(times, poses_T, OfflineSettings())):
        assert poses.track_ids_N.tolist() == poses_T[frame].track_ids_N.tolist()
        for n, track in enumerate(poses.track_ids_N.tolist()):
            np.testing.assert_array_equal(poses.keypoints_NK2[n], alone[track][frame])


def joined(parts):
    """Return the people of several poses in one."""
    first = parts[0]

    def stacked(get):
        return np.concatenate([getattr(part, get) for part in parts])

    boxes = type(first.boxes)(
        np.concatenate([part.boxes.xyxy_N4 for part in parts]),
        np.concatenate([part.boxes.scores_N for part in parts]),
    )
    names = ("keypoints_NK2", "scores_NK", "person_scores_N")
    return Poses(*map(stacked, names), boxes, first.schema, track_ids_N=stacked("track_ids_N"))


# Gaps


def filled(times_T, poses_T, max_gap_s, **fields):
    choice = OfflineSettings(kind="none", max_gap_s=max_gap_s, **fields)
    return smooth_video(times_T, poses_T, choice)


@pytest.mark.parametrize(("missing", "expected"), [(4, True), (5, True), (6, False)])
def test_absences_up_to_the_limit_are_filled_and_longer_ones_are_not(missing, expected):
    times = np.arange(20) / 30 + 7.3
    true = walker(times, speed=90.0, steps_hz=0.0)
    poses_T = [*video(true[:5]), *[NOBODY] * missing, *video(true[5 + missing :])]
    found = filled(times, poses_T, max_gap_s=0.2)  # 6 frames: 5 missing between two sightings
    assert [len(poses) for poses in found[5 : 5 + missing]] == [int(expected)] * missing
    if expected:
        for frame in range(5, 5 + missing):
            poses = found[frame]
            np.testing.assert_allclose(poses.keypoints_NK2[0], true[frame], atol=1e-3)
            centre = poses.boxes.xyxy_N4[0].reshape(2, 2).mean(axis=0)
            assert centre[0] == pytest.approx(np.mean(true[frame, :, 0]), abs=1e-3)
            assert (poses.flags_NK == FILLED).all()
            assert np.isnan(poses.raw_keypoints_NK2).all()
            assert poses.track_ids_N.tolist() == [1]
            assert poses.boxes.scores_N[0] == np.float32(0.9)
            assert poses.scores_NK[0, 0] == np.float32(0.8)
    for frame in (*range(5), *range(5 + missing, 20)):
        assert not found[frame].flags_NK.any()
        np.testing.assert_array_equal(found[frame].keypoints_NK2, poses_T[frame].keypoints_NK2)


def test_nothing_is_made_up_before_the_first_and_after_the_last_sighting():
    times = np.arange(9) / 30
    true = walker(times)
    scores = np.full((9, 17), 0.8)
    scores[:5, 9], scores[4:, 10] = 0.1, 0.1
    poses_T = [NOBODY, NOBODY, *video(true[2:7], scores[2:7]), NOBODY, NOBODY]
    found = filled(times, poses_T, max_gap_s=10.0)
    assert [len(poses) for poses in found] == [0, 0, 1, 1, 1, 1, 1, 0, 0]
    assert not any(poses.flags_NK.any() for poses in found)


def test_keypoints_with_low_scores_are_filled_between_good_ones_within_the_limit():
    times = np.arange(16) / 40
    true = walker(times, speed=100.0, steps_hz=0.0)
    seen, scores = true.copy(), np.full((16, 17), 0.8)
    scores[9:, 9] = 0.6
    seen[6:9, 9], scores[6:9, 9] = [1000.0, 5.0], 0.1  # 0.1 s between two good ones
    seen[6:10, 13], scores[6:10, 13] = [1000.0, 5.0], 0.1  # 0.125 s
    found = filled(times, video(seen, scores), max_gap_s=0.1)
    points = np.stack([poses.keypoints_NK2[0] for poses in found])
    flags = np.stack([poses.flags_NK[0] for poses in found])
    np.testing.assert_allclose(points[:, 9], true[:, 9], atol=1e-3)
    np.testing.assert_allclose(points[6:10, 13], seen[6:10, 13])
    expected = np.zeros((16, 17))
    expected[6:9, 9] = FILLED
    np.testing.assert_array_equal(flags, expected)
    # The lower score of the two good ones, and what the network saw beside it.
    assert found[7].scores_NK[0, 9] == np.float32(0.6)
    assert found[7].raw_keypoints_NK2[0, 9].tolist() == [1000.0, 5.0]


def test_filling_is_linear_in_time_not_in_frames():
    times = np.array([0.0, 0.02, 0.1, 0.2])
    true = walker(times, speed=300.0, steps_hz=0.0)
    poses_T = [*video(true[:1]), NOBODY, NOBODY, *video(true[3:])]
    found = filled(times, poses_T, max_gap_s=0.2)
    np.testing.assert_allclose(found[1].keypoints_NK2[0], true[1], atol=1e-3)
    np.testing.assert_allclose(found[2].keypoints_NK2[0], true[2], atol=1e-3)


def test_a_filled_person_has_no_place_for_keypoints_unknown_on_one_side():
    times = np.arange(5) / 30
    true, scores = walker(times), np.full((5, 17), 0.8)
    scores[3:, 9] = 0.1
    poses_T = [*video(true[:2], scores[:2]), NOBODY, *video(true[3:], scores[3:])]
    middle = filled(times, poses_T, max_gap_s=0.5)[2]
    assert np.isnan(middle.keypoints_NK2[0, 9]).all()
    assert middle.scores_NK[0, 9] == 0
    assert np.isfinite(middle.keypoints_NK2[0, 10]).all()
    assert (middle.flags_NK == FILLED).all()


def test_filled_people_come_after_the_others_by_identity():
    times = np.arange(3) / 30
    points = walker(times)
    everybody = [joined([poses_of(p, track=t) for t in (8, 2, 5)]) for p in points]
    poses_T = [everybody[0], poses_of(points[1], track=5), everybody[2]]
    found = filled(times, poses_T, max_gap_s=0.1)
    assert found[1].track_ids_N.tolist() == [5, 2, 8]
    assert found[1].flags_NK.any(axis=1).tolist() == [False, True, True]


def test_nothing_is_filled_unless_asked_for():
    times = np.arange(3) / 30
    true = walker(times)
    found = smooth_video(times, [*video(true[:1]), NOBODY, *video(true[2:])], OfflineSettings())
    assert [len(poses) for poses in found] == [1, 0, 1]
    assert found[0].flags_NK is None


def test_filled_gaps_are_smoothed_with_the_rest():
    times = np.arange(40) / 30
    true = walker(times, speed=200.0, steps_hz=0.0)
    poses_T = [*video(noisy(true, 0.02)[:20]), *[NOBODY] * 3, *video(noisy(true, 0.02)[23:])]
    found = smooth_video(times, poses_T, OfflineSettings(max_gap_s=0.2))
    points = np.stack([poses.keypoints_NK2[0] for poses in found])
    assert rms(points[20:23] - true[20:23]) < 0.02 * SIZE


# Left and right


def repaired(times_T, points_TK2, scores_TK=None):
    """Return the keypoints and flags (T, K) after swap repair alone."""
    choice = OfflineSettings(kind="none", fix_swaps=True)
    found = smooth_video(times_T, video(points_TK2, scores_TK), choice)
    return np.stack([f.keypoints_NK2[0] for f in found]), np.stack([f.flags_NK[0] for f in found])


@pytest.mark.parametrize("fps", [12.5, 25, 60])
@pytest.mark.parametrize("part", [0.0, 0.02])
def test_limbs_that_cross_are_left_alone(fps, part):
    times = np.arange(int(6 * fps)) / fps
    for true in (
        walker(times),
        walker(times, speed=0.0, steps_hz=0.0, arms="crossing"),
        walker(times, speed=0.0, steps_hz=0.0),
    ):
        assert not repaired(times, noisy(true, part))[1].any()


@pytest.mark.parametrize(
    "frames",
    [[40], [10, 11, 12], [40, 44, 45], range(36, 60), range(7), range(115, 120)],
    ids=["one", "three", "two runs", "most of a second", "start", "end"],
)
def test_swapped_legs_are_put_right_and_marked(frames):
    times = np.arange(120) / 30
    true = noisy(walker(times), 0.005)
    frames = list(frames)
    scores = np.full((120, 17), 0.8)
    scores[:, 15] = 0.6
    swapped_scores = with_swap(scores[..., None], frames, LEGS)[..., 0]
    points, flags = repaired(times, with_swap(true, frames, LEGS), swapped_scores)
    # Where the legs cross nobody can tell the very frame of the change; nor does it matter.
    np.testing.assert_allclose(points, true, atol=0.06 * SIZE)
    expected = np.isin(np.arange(120), frames)
    assert np.sum((flags[:, 15] == SWAPPED) != expected) <= 2
    assert not flags[:, :11].any()


def test_arms_and_legs_exchanged_at_once_are_put_right():
    times = np.arange(90) / 30
    true = walker(times, speed=0.0, arms="crossing", steps_hz=0.9)
    points, _flags = repaired(times, with_swap(true, [40, 41], (*LEGS, *ARMS)))
    np.testing.assert_allclose(points, true, atol=1e-3)


def test_one_pair_alone_is_too_little_evidence():
    times = np.arange(90) / 30
    assert not repaired(times, with_swap(walker(times), [40], (15,)))[1].any()


def test_the_reading_of_most_of_the_video_is_believed():
    times = np.arange(120) / 30
    true = walker(times, speed=0.0, steps_hz=0.0, arms="crossing")
    true[:, [11, 13, 15], 0] += 60
    points, flags = repaired(times, with_swap(true, range(30), LEGS))
    np.testing.assert_allclose(points, true, atol=1e-3)
    assert flags[:30, 15].all()
    assert not flags[30:].any()


def test_people_without_track_ids_are_refused():
    poses = replace(poses_of(walker([0.0])[0]), track_ids_N=None)
    with pytest.raises(UsageError) as caught:
        smooth_video([0.0], [poses], OfflineSettings())
    assert caught.value.message == "smoothing needs people with track ids, and these have none"


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (
            {"kind": "spline"},
            "smoothing 'spline' is not known; expected savgol, gaussian, median, butterworth, none",
        ),
        ({"window_s": 0.0}, "window_s is 0.0, expected above 0 and at most 10"),
        ({"sigma_s": -1.0}, "sigma_s is -1.0, expected above 0 and at most 10"),
        ({"window_s": 300.0}, "window_s is 300.0, expected above 0 and at most 10"),
        ({"cutoff_hz": np.nan}, "cutoff_hz is nan, expected above 0 and at most 1000"),
        ({"max_gap_s": -0.1}, "max_gap_s is -0.1, expected at least 0"),
        ({"least_score": -0.1}, "least_score is -0.1, expected at least 0"),
        ({"order": 6}, "order is 6, expected 0 to 5"),
        ({"taps": 7}, "taps is 7, expected 3 or 5"),
    ],
)
def test_settings_out_of_range_are_named(fields, message):
    with pytest.raises(UsageError) as caught:
        OfflineSettings(**fields)
    assert caught.value.message == message
