"""What must hold for all poses; the references' numbers are in tests/parity."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hrnet_cli import oks
from hrnet_cli.schema import load_schema

SIGMAS = np.array(load_schema("coco17").oks_sigmas)
# Examples are not timed: other work on the machine would fail a test.
untimed = settings(deadline=None)


def people(count, seed=0):
    generator = np.random.default_rng(seed)
    return generator.uniform(0, 500, (count, 17, 2)), generator.uniform(1e3, 1e5, count)


@untimed
@given(st.integers(0, 5), st.integers(0, 5), st.integers(0, 2**32 - 1))
def test_oks_is_symmetric_and_one_with_oneself(n, m, seed):
    (a, a_areas), (b, b_areas) = people(n, seed), people(m, seed // 2)
    similarity = oks.oks_matrix(a, a_areas, b, b_areas, SIGMAS)
    assert similarity.shape == (n, m)
    assert ((similarity >= 0) & (similarity <= 1)).all()
    np.testing.assert_allclose(similarity, oks.oks_matrix(b, b_areas, a, a_areas, SIGMAS).T)
    np.testing.assert_array_equal(np.diag(oks.oks_matrix(a, a_areas, a, a_areas, SIGMAS)), 1)


def test_oks_of_a_known_distance():
    # All keypoints 2 sigma sqrt(area) away: exp(-1/2) each.
    a, areas = people(1)
    b = a.copy()
    b[..., 0] += 2 * SIGMAS * np.sqrt(areas[0])
    assert oks.oks_matrix(a, areas, b, areas, SIGMAS)[0, 0] == pytest.approx(np.exp(-0.5))


def test_only_visible_keypoints_count():
    a, areas = people(2)
    b = a.copy()
    b[:, 1:] += 1e4
    visible = np.zeros((2, 2, 17), bool)
    visible[:, :, 0] = True
    visible[1, 1] = False  # a pair without any keypoint
    seen = oks.oks_matrix(a, areas, b, areas, SIGMAS, visible)
    assert seen[0, 0] == 1
    assert seen[1, 1] == 0
    assert oks.oks_matrix(a, areas, b, areas, SIGMAS)[0, 0] == pytest.approx(1 / 17)


def test_people_without_area_are_like_themselves_only():
    a, _ = people(2)
    none = np.zeros(2)
    np.testing.assert_array_equal(oks.oks_matrix(a, none, a, none, SIGMAS), np.eye(2))


def copies(offsets_px):
    """People that are shifts of one, whose area is 100 x 100."""
    base, _ = people(1)
    return np.concatenate([base + offset for offset in offsets_px]), np.full(len(offsets_px), 1e4)


def test_oks_nms_keeps_the_best_of_each_cluster():
    poses, areas = copies([0, 1, 300, 301, 2])
    kept = oks.oks_nms(poses, [0.3, 0.9, 0.5, 0.4, 0.8], areas, SIGMAS, 0.9)
    np.testing.assert_array_equal(kept, [1, 2])


def test_oks_nms_drops_only_above_the_threshold():
    poses, areas = copies([0, 10])
    overlap = oks.oks_matrix(poses, areas, poses, areas, SIGMAS)[0, 1]
    assert 0.1 < overlap < 0.9
    for threshold, survivors in ((overlap, [0, 1]), (np.nextafter(overlap, 0), [0])):
        kept = oks.oks_nms(poses, [0.9, 0.8], areas, SIGMAS, threshold)
        np.testing.assert_array_equal(kept, survivors)


def test_of_equal_scores_the_later_person_goes_first():
    poses, areas = copies([0, 0, 0])
    np.testing.assert_array_equal(oks.oks_nms(poses, [0.5] * 3, areas, SIGMAS, 0.9), [2])


@pytest.mark.parametrize("nms", [oks.oks_nms, oks.soft_oks_nms])
def test_nobody_and_one_person(nms):
    nobody = nms(np.zeros((0, 17, 2)), [], [], SIGMAS, 0.9)
    assert (nobody.shape, nobody.dtype) == ((0,), np.int64)
    poses, areas = copies([0])
    np.testing.assert_array_equal(nms(poses, [0.0], areas, SIGMAS, 0.9), [0])


def test_soft_nms_puts_doubles_behind_and_drops_nobody():
    poses, areas = copies([0, 1, 300])
    kept = oks.soft_oks_nms(poses, [0.9, 0.8, 0.4], areas, SIGMAS, 0.5)
    # exp(-1 / 0.5) = 0.14 leaves the double 0.11.
    np.testing.assert_array_equal(kept, [0, 2, 1])


def test_soft_nms_keeps_at_most_twenty():
    poses, areas = copies(range(0, 25 * 400, 400))
    scores = np.linspace(1, 0.5, 25)
    kept = oks.soft_oks_nms(poses, scores, areas, SIGMAS, 0.9)
    np.testing.assert_array_equal(kept, np.arange(20))


@pytest.mark.parametrize(
    ("keypoint_scores", "expected"),
    [
        ([0.6, 0.4, 0.1], 0.5 * 0.5),
        ([0.2, 0.2, 0.2], 0.0),  # strictly above
        ([np.nextafter(0.2, 1), 0, 0], 0.5 * 0.2),
        ([0.1, 0.0, -0.3], 0.0),
        ([1.2, 1.0, 0.8], 0.5),  # heatmap peaks are not clipped
    ],
)
def test_person_scores(keypoint_scores, expected):
    assert oks.rescore([0.5], [keypoint_scores])[0] == pytest.approx(expected)


def test_person_scores_of_nobody():
    assert oks.rescore([], np.zeros((0, 17))).shape == (0,)


def test_arguments_are_left_alone():
    poses, areas = copies([0, 1, 2])
    scores = np.array([0.1, 0.9, 0.5])
    before = poses.copy(), scores.copy(), areas.copy()
    oks.oks_nms(poses, scores, areas, SIGMAS, 0.9)
    oks.soft_oks_nms(poses, scores, areas, SIGMAS, 0.9)
    oks.rescore(scores, np.ones((3, 17)))
    for array, old in zip((poses, scores, areas), before, strict=True):
        np.testing.assert_array_equal(array, old)
