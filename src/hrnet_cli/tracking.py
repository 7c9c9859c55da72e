"""Who is who from frame to frame: person boxes and keypoints in, stable identities out.

Where people are expected is worked out by a Kalman filter, who is who by `matching`. All times are
seconds, so the frame rate does not matter and may vary.

Shape letters: N people of a frame, M tracks, K keypoints.
"""

from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np

from hrnet_cli.matching import (
    Array,
    Integers,
    People,
    TrackerSettings,
    box_corners,
    box_sizes,
    find_newcomers,
    find_twins,
    match_detections,
    match_predictions,
    mean_scores,
    people_of,
    similarity,
    with_wider_boxes,
)
from hrnet_cli.motion import Motion, correct_motion, motion_at_rest, predict_motion
from hrnet_cli.structures import Boxes, Poses

# Lengths below are in sizes of the person: the square root of its box's area.
BOX_NOISE = 0.05  # standard deviation of a detector's box
WALKING_SPEED = 1.0  # sizes per second: of somebody seen for the first time
RESTLESSNESS = 1.0  # by how much a velocity changes within a second
# After so many seconds unseen, a person may be twice as far from where it was expected.
DOUBT_DOUBLES_S = 0.2
# How much a new frame changes what a person's keypoints usually score.
USUAL_SCORE_RATE = 0.2
# A predicted box keeps so much room around the keypoints, in box sizes (COCO's boxes have a tenth).
KEYPOINT_MARGIN = 0.1
# A stray keypoint makes a predicted box reach so much farther on each side at most, in sizes.
FARTHEST_KEYPOINT = 0.5
# A box with less of itself in the picture has left it.
LEAST_PART_IN_PICTURE = 0.1


@dataclass(frozen=True)
class _Tracks:
    """The people that are remembered, each as of the frame it was last seen in.

    Attributes:
        ids_M: int64 identities.
        times_s_M: When each was last seen.
        motion: Centre x and y, width and height of the boxes, (M, 4) px.
        keypoints_MK2: Where the keypoints were.
        scores_MK: Their scores; 0 for those without a place.
        box_scores_M: Detector's confidence.
        usual_scores_M: What the person's keypoints score on average.
    """

    ids_M: Integers
    times_s_M: Array
    motion: Motion
    keypoints_MK2: Array
    scores_MK: Array
    box_scores_M: Array
    usual_scores_M: Array

    @staticmethod
    def none(keypoints: int) -> "_Tracks":
        """Return no tracks of people with so many keypoints."""
        nobody = Motion(np.zeros((0, 4)), np.zeros((0, 4)), np.zeros((0, 3)))
        points, scores = np.zeros((0, keypoints, 2)), np.zeros((0, keypoints))
        return _Tracks(
            np.zeros(0, np.int64), np.zeros(0), nobody, points, scores, np.zeros(0), np.zeros(0)
        )

    def arrays(self) -> dict[str, np.ndarray]:
        """Return all arrays by name."""
        plain = {field.name: getattr(self, field.name) for field in fields(self)}
        motion = plain.pop("motion")
        return plain | {field.name: getattr(motion, field.name) for field in fields(motion)}

    @staticmethod
    def from_arrays(arrays: dict[str, np.ndarray]) -> "_Tracks":
        """Return the tracks of what `arrays` returned."""
        motion = Motion(**{field.name: arrays[field.name] for field in fields(Motion)})
        names = [field.name for field in fields(_Tracks) if field.name != "motion"]
        return _Tracks(motion=motion, **{name: arrays[name] for name in names})

    def __getitem__(self, which: np.ndarray) -> "_Tracks":
        return _Tracks.from_arrays({name: array[which] for name, array in self.arrays().items()})

    def joined(self, others: "_Tracks") -> "_Tracks":
        """Return these tracks and the others, ordered by identity."""
        theirs = others.arrays()
        both = _Tracks.from_arrays(
            {name: np.concatenate([own, theirs[name]]) for name, own in self.arrays().items()}
        )
        return both[np.argsort(both.ids_M)]


class Tracker:
    """Gives the people of a video their identities, frame after frame.

    Args:
        settings: How sure to be and how long to remember.
    """

    def __init__(self, settings: TrackerSettings) -> None:
        self._settings = settings
        self._tracks = _Tracks.none(0)
        self._next_id = 1
        self._time_s = -np.inf

    def update(self, poses: Poses, time_s: float, *, detected: bool = True) -> Poses:
        """Return the people of the next frame that have an identity, with it, in the same order.

        Left out are people whose box is unsure and continues no track, and people found twice.

        Args:
            poses: The people of the frame; their `track_ids_N` are not looked at.
            time_s: Time of the frame in seconds, not before that of the last one.
            detected: Whether the boxes come from a detector. If not, they are those of
                `predict_boxes`: then their shape is no news, no track starts, and people whose
                keypoints score less than half of what theirs usually do are taken to be gone.
        """
        settings, tracks = self._settings, self._remembered(len(poses.schema), time_s)
        seen = people_of(poses)
        expected = _expected(tracks, time_s)
        sigmas_K = np.asarray(poses.schema.oks_sigmas)
        doubt_M = 1 + (time_s - tracks.times_s_M) / DOUBT_DOUBLES_S
        twins_NN = find_twins(seen, sigmas_K, settings, boxes_count=detected)
        close_MN = similarity(expected, seen, sigmas_K, doubt_M, settings.keypoint_threshold)
        new_N = np.zeros(0, np.int64)
        if detected:
            wide_MN = similarity(
                with_wider_boxes(expected),
                with_wider_boxes(seen),
                sigmas_K,
                2 * doubt_M,
                settings.keypoint_threshold,
            )
            recent_M = tracks.times_s_M >= min(self._time_s, time_s - DOUBT_DOUBLES_S)
            track_N = match_detections(
                close_MN, wide_MN, twins_NN, recent_M, seen.box_scores_N, settings
            )
            new_N = find_newcomers(track_N, twins_NN, seen.box_scores_N, settings.person_threshold)
        else:
            lively_MN = mean_scores(seen) >= tracks.usual_scores_M[:, None] / 2
            track_N = match_predictions(
                np.where(lively_MN, close_MN, 0), twins_NN, settings.match_threshold
            )
        ids_N = np.zeros(len(poses), np.int64)
        ids_N[new_N] = self._next_id + np.arange(len(new_N))
        old_N = np.flatnonzero(track_N >= 0)
        ids_N[old_N] = tracks.ids_M[track_N[old_N]]
        self._next_id += len(new_N)
        self._time_s = time_s
        unseen = tracks[np.setdiff1d(np.arange(len(tracks.ids_M)), track_N)]
        again = _seen_again(tracks[track_N[old_N]], seen[old_N], time_s, detected=detected)
        first = _seen_first(seen[new_N], ids_N[new_N], time_s)
        self._tracks = unseen.joined(again).joined(first)
        return _labelled(poses, ids_N)

    def predict_boxes(self, time_s: float, size_wh: tuple[int, int]) -> Boxes:
        """Return where the people of the last frame are expected, for frames without a detector.

        A box covers the person's expected box and keypoints; its score is that of the person's
        last box. People who left the picture have none.

        Args:
            time_s: Time of the frame in seconds.
            size_wh: Picture (width, height) in pixels.
        """
        tracks = self._tracks[self._tracks.times_s_M == self._time_s]
        expected = _expected(tracks, time_s)
        xyxy_N4 = box_corners(expected.boxes_N4)
        counted_NK1 = (expected.scores_NK >= self._settings.keypoint_threshold)[..., None]
        margin_N2 = KEYPOINT_MARGIN * expected.boxes_N4[:, 2:]
        near_N2 = np.where(counted_NK1, expected.keypoints_NK2, np.inf).min(axis=1, initial=np.inf)
        far_N2 = np.where(counted_NK1, expected.keypoints_NK2, -np.inf).max(axis=1, initial=-np.inf)
        reach_N1 = FARTHEST_KEYPOINT * box_sizes(expected.boxes_N4)[:, None]
        near_N2 = np.clip(near_N2 - margin_N2, xyxy_N4[:, :2] - reach_N1, xyxy_N4[:, :2])
        far_N2 = np.clip(far_N2 + margin_N2, xyxy_N4[:, 2:], xyxy_N4[:, 2:] + reach_N1)
        inside_N2 = np.minimum(far_N2, np.subtract(size_wh, 0.5)) - np.maximum(near_N2, -0.5)
        part_N = np.prod(np.maximum(inside_N2, 0), axis=1) / np.prod(far_N2 - near_N2, axis=1)
        boxes = Boxes(np.concatenate([near_N2, far_N2], axis=1), tracks.box_scores_M)
        return boxes[part_N >= LEAST_PART_IN_PICTURE]

    def state(self) -> dict[str, Any]:
        """Return all that is remembered, exactly, as JSON can hold it."""
        return {
            "next_id": self._next_id,
            "time_s": self._time_s if np.isfinite(self._time_s) else None,
            "keypoints": self._tracks.scores_MK.shape[1],
            "tracks": {name: array.tolist() for name, array in self._tracks.arrays().items()},
        }

    @staticmethod
    def from_state(settings: TrackerSettings, state: dict[str, Any]) -> "Tracker":
        """Return a tracker that goes on as the one whose `state` it is."""
        tracker = Tracker(settings)
        empty, count = _Tracks.none(state["keypoints"]).arrays(), len(state["tracks"]["ids_M"])
        tracker._tracks = _Tracks.from_arrays(
            {
                name: np.array(state["tracks"][name], array.dtype).reshape(count, *array.shape[1:])
                for name, array in empty.items()
            }
        )
        tracker._next_id = state["next_id"]
        tracker._time_s = -np.inf if state["time_s"] is None else state["time_s"]
        return tracker

    def _remembered(self, keypoints: int, time_s: float) -> _Tracks:
        """Return the tracks that are not too old at a time."""
        if not len(self._tracks.ids_M):
            return _Tracks.none(keypoints)
        return self._tracks[time_s - self._tracks.times_s_M <= self._settings.max_gap_s]


def _expected(tracks: _Tracks, time_s: float) -> People:
    """Return where the people of tracks should be; their keypoints move as their boxes do."""
    waited_M = np.maximum(time_s - tracks.times_s_M, 0)
    now = predict_motion(
        tracks.motion, waited_M, RESTLESSNESS * box_sizes(tracks.motion.position_D)
    )
    last_M4, boxes_M4 = tracks.motion.position_D, now.position_D
    # The speed at which a box grows is too uncertain to be trusted for long.
    boxes_M4[:, 2:] = np.clip(boxes_M4[:, 2:], last_M4[:, 2:] / 1.5, last_M4[:, 2:] * 1.5)
    grown_M1 = (box_sizes(boxes_M4) / box_sizes(last_M4))[:, None, None]
    points_MK2 = (tracks.keypoints_MK2 - last_M4[:, None, :2]) * grown_M1 + boxes_M4[:, None, :2]
    return People(boxes_M4, points_MK2, tracks.scores_MK, tracks.box_scores_M)


def _seen_first(seen: People, ids_N: Integers, time_s: float) -> _Tracks:
    """Return the tracks that begin with people."""
    sizes_N = box_sizes(seen.boxes_N4)
    return _Tracks(
        ids_N,
        np.full(len(ids_N), time_s),
        motion_at_rest(seen.boxes_N4, BOX_NOISE * sizes_N, WALKING_SPEED * sizes_N),
        seen.keypoints_NK2,
        seen.scores_NK,
        seen.box_scores_N,
        mean_scores(seen),
    )


def _seen_again(tracks: _Tracks, seen: People, time_s: float, *, detected: bool) -> _Tracks:
    """Return tracks after their people, in the same order, were seen at a time."""
    sizes_M = box_sizes(tracks.motion.position_D)
    waited_M = np.maximum(time_s - tracks.times_s_M, 0)
    motion = predict_motion(tracks.motion, waited_M, RESTLESSNESS * sizes_M)
    boxes_M4, box_scores_M = seen.boxes_N4, seen.box_scores_N
    usual_M = tracks.usual_scores_M
    if detected:
        usual_M = usual_M + USUAL_SCORE_RATE * (mean_scores(seen) - usual_M)
    else:
        boxes_M4, box_scores_M = _carried(_expected(tracks, time_s), seen), tracks.box_scores_M
    return _Tracks(
        tracks.ids_M,
        np.full(len(sizes_M), time_s),
        correct_motion(motion, boxes_M4, BOX_NOISE * sizes_M),
        seen.keypoints_NK2,
        seen.scores_NK,
        box_scores_M,
        usual_M,
    )


def _carried(expected: People, seen: People) -> Array:
    """Return expected boxes moved by how far the keypoints are from where they were expected.

    The move is the mean over keypoints, weighted by the lower of their two scores.
    """
    weights_NK1 = np.minimum(expected.scores_NK, seen.scores_NK)[..., None]
    totals_N1 = np.maximum(weights_NK1.sum(axis=1), np.finfo(np.float64).tiny)
    moves_N2 = (weights_NK1 * (seen.keypoints_NK2 - expected.keypoints_NK2)).sum(axis=1) / totals_N1
    return expected.boxes_N4 + np.concatenate([moves_N2, np.zeros_like(moves_N2)], axis=1)


def _labelled(poses: Poses, ids_N: Integers) -> Poses:
    """Return the people with an identity above 0, and it."""
    kept_N = np.flatnonzero(ids_N)
    return replace(poses[kept_N], track_ids_N=ids_N[kept_N])
