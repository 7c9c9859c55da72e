import numpy as np

from builders import make_poses
from hrnet_cli.schema import KeypointSchema
from hrnet_cli.smoothing_offline import OfflineSettings, smooth_video
from hrnet_cli.structures import FILLED, SWAPPED
from hrnet_cli.unsmoothing import undo_smoothing

LIMBS = KeypointSchema(
    "limbs", ("nose", "left_knee", "right_knee"), flip_pairs=(("left_knee", "right_knee"),)
)


def test_people_who_were_not_smoothed_stay_as_they_are():
    poses = make_poses(2)
    assert undo_smoothing(poses) is poses


def test_smoothed_keypoints_are_where_the_network_saw_them():
    rng = np.random.default_rng(0)
    poses_T = [
        make_poses(2, keypoints_NK2=rng.normal(30, 9, (2, 17, 2)), track_ids_N=np.array([4, 2]))
        for _ in range(9)
    ]
    times_T = [i / 25 for i in range(9)]
    smoothed = smooth_video(times_T, poses_T, OfflineSettings("savgol"))
    assert np.abs(smoothed[4].keypoints_NK2 - poses_T[4].keypoints_NK2).max() > 1
    for before, after in zip(poses_T, map(undo_smoothing, smoothed), strict=True):
        np.testing.assert_array_equal(after.keypoints_NK2, before.keypoints_NK2)
        np.testing.assert_array_equal(after.scores_NK, before.scores_NK)
        assert after.track_ids_N.tolist() == [4, 2]
        assert after.raw_keypoints_NK2 is after.flags_NK is None


def test_what_was_made_up_goes_and_what_was_exchanged_goes_back():
    raw_NK2 = np.array([[[1, 1], [2, 2], [3, 3]], [[np.nan] * 2] * 3], np.float32)
    flags = np.array([[FILLED, SWAPPED, SWAPPED], [FILLED] * 3], np.uint8)
    poses = make_poses(
        *(2, LIMBS),
        scores_NK=np.array([[0.5, 0.6, 0.7], [0.5] * 3]),
        track_ids_N=np.array([1, 2]),
        raw_keypoints_NK2=raw_NK2,
        flags_NK=flags,
    )
    undone = undo_smoothing(poses)
    assert undone.track_ids_N.tolist() == [1]
    np.testing.assert_array_equal(undone.keypoints_NK2[0], [[np.nan] * 2, [2, 2], [3, 3]])
    np.testing.assert_allclose(undone.scores_NK[0], [0, 0.7, 0.6], atol=1e-6)


def test_nobody_is_nobody():
    poses = make_poses(0, raw_keypoints_NK2=np.zeros((0, 17, 2), np.float32))
    assert len(undo_smoothing(poses)) == 0
