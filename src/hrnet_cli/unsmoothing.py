"""Smoothed people -> people as the network saw them, from what records keep of that."""

from dataclasses import replace

import numpy as np

from hrnet_cli.structures import FILLED, SWAPPED, Poses


def undo_smoothing(poses: Poses) -> Poses:
    """Return the people of a frame with the keypoints that the network gave.

    People who were filled in are left out. Keypoints that were filled in have no place and score 0:
    what the network saw there was too unsure to be used. Keypoints that had been exchanged with
    their mirror partner get their own scores back.

    Args:
        poses: Of one frame; without `raw_keypoints_NK2` they are returned as they are.
    """
    if poses.raw_keypoints_NK2 is None:
        return poses
    seen = poses[np.flatnonzero(~np.isnan(poses.raw_keypoints_NK2[..., 0]).all(axis=1))]
    raw_NK2, scores_NK = seen.raw_keypoints_NK2, seen.scores_NK
    if raw_NK2 is None:
        raise ValueError("raw_keypoints_NK2 was there a moment ago")
    keypoints_NK2 = raw_NK2.copy()
    if seen.flags_NK is not None:
        partner_K = list(seen.schema.flip_indices)
        scores_NK = np.where(seen.flags_NK & SWAPPED, scores_NK[:, partner_K], scores_NK)
        filled_NK = (seen.flags_NK & FILLED) > 0
        keypoints_NK2[filled_NK] = np.nan
        scores_NK = np.where(filled_NK, 0, scores_NK)
    return replace(
        seen,
        keypoints_NK2=keypoints_NK2,
        scores_NK=scores_NK,
        raw_keypoints_NK2=None,
        flags_NK=None,
    )
