"""What was missed for a short while, from before and after: never longer, never beyond the ends.

Shape letters: S sightings of a track, K keypoints.
"""

from dataclasses import replace

import numpy as np
import numpy.typing as npt

from hrnet_cli.structures import FILLED
from hrnet_cli.track_paths import Array, TrackPath

# Times of frames are sums of rounded numbers: 6 frames of 1/30 s are still a gap of 0.2 s.
ROUNDING_S = 1e-6


def fill_gaps(path: TrackPath, times_T: Array, max_gap_s: float, least_score: float) -> TrackPath:
    """Return a track without its short gaps.

    Between two sightings of the person, or two good sightings of a keypoint, at most `max_gap_s`
    apart, places are interpolated linearly in time and flagged as filled. Made-up boxes, people and
    keypoints have the lower of the two scores between which they lie, so that whatever is shown
    before and after is shown in between. A made-up person's keypoints that were not good on both
    sides have no place.

    Args:
        path: The track.
        times_T: Times of all frames of the video, s.
        max_gap_s: Longest time between two sightings that is filled.
        least_score: A keypoint with a lower score counts as not seen.
    """
    wider = _with_absences(path, times_T, max_gap_s)
    points_SK2, scores_SK = wider.points_SK2.copy(), wider.scores_SK.copy()
    flags_SK = wider.flags_SK.copy()
    good_SK = (scores_SK >= least_score) & ~np.isnan(points_SK2[..., 0])
    for k in range(good_SK.shape[1]):
        good = np.flatnonzero(good_SK[:, k])
        before, after, part = _neighbours(wider.times_s_S, good, max_gap_s)
        gap = np.flatnonzero(before >= 0)
        near, far = before[gap], after[gap]
        points_SK2[gap, k] = _between(points_SK2[:, k], near, far, part[gap])
        scores_SK[gap, k] = np.minimum(scores_SK[near, k], scores_SK[far, k])
        flags_SK[gap, k] |= FILLED
    return replace(wider, points_SK2=points_SK2, scores_SK=scores_SK, flags_SK=flags_SK)


def _with_absences(path: TrackPath, times_T: Array, max_gap_s: float) -> TrackPath:
    """Return a track with the frames of its short absences, keypoints without a place."""
    frames_S = np.arange(path.frames_S[0], path.frames_S[-1] + 1)
    seen = np.flatnonzero(np.isin(frames_S, path.frames_S))
    before, after, part = _neighbours(times_T[frames_S], seen, max_gap_s)
    # Positions among the frames -> positions among the sightings.
    number_S = np.cumsum(np.isin(frames_S, path.frames_S)) - 1
    kept = np.flatnonzero((before >= 0) | np.isin(frames_S, path.frames_S))
    near = number_S[np.where(before >= 0, before, np.arange(len(frames_S)))][kept]
    far = number_S[np.where(before >= 0, after, np.arange(len(frames_S)))][kept]
    added = before[kept] >= 0

    def lower(scores_S: Array) -> Array:
        return np.minimum(scores_S[near], scores_S[far])

    empty_K2 = np.full(path.points_SK2.shape[1:], np.nan)
    return TrackPath(
        path.track,
        frames_S[kept],
        times_T[frames_S[kept]],
        np.where(added[:, None, None], empty_K2, path.points_SK2[near]),
        np.where(added[:, None], 0, path.scores_SK[near]),
        np.where(added[:, None, None], empty_K2, path.raw_SK2[near]),
        np.where(added[:, None], FILLED, path.flags_SK[near]).astype(np.uint8),
        np.where(
            added[:, None],
            _between(path.boxes_S4, near, far, part[kept]),
            path.boxes_S4[near],
        ),
        lower(path.box_scores_S),
        lower(path.person_scores_S),
    )


def _neighbours(
    times_S: Array, good: npt.NDArray[np.int64], max_gap_s: float
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], Array]:
    """Return for each place the good ones before and after it, and how far along it lies.

    Args:
        times_S: Times, s.
        good: Places that need no filling, rising.
        max_gap_s: Longest time between two good ones that counts.

    Returns:
        Places before and after, -1 where the place is good or not in a short gap; and the part of
        the time between them that has passed, 0 to 1.
    """
    count = len(times_S)
    before, after = np.full(count, -1, np.int64), np.full(count, -1, np.int64)
    part = np.zeros(count)
    for near, far in zip(good[:-1].tolist(), good[1:].tolist(), strict=True):
        wait_s = times_S[far] - times_S[near]
        if far - near > 1 and wait_s <= max_gap_s + ROUNDING_S:
            inside = slice(near + 1, far)
            before[inside], after[inside] = near, far
            part[inside] = (times_S[inside] - times_S[near]) / max(wait_s, ROUNDING_S)
    return before, after, part


def _between(
    places_SD: Array, near: npt.NDArray[np.int64], far: npt.NDArray[np.int64], part: Array
) -> Array:
    """Return the places a part of the way from near ones to far ones."""
    return places_SD[near] + part[:, None] * (places_SD[far] - places_SD[near])
