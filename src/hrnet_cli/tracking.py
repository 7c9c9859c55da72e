"""Who is who from frame to frame: person boxes and keypoints in, stable identities out.

Sure boxes are matched first and unsure ones second, so that a half-hidden person keeps its identity
and a false box starts none (ByteTrack, ECCV 2022, sec. 3). Matching is the Hungarian method over
the IoU of boxes and the OKS of keypoints, both with what a Kalman filter expects at the time of the
frame; whoever was lost for a short while is looked for in a wider area. All times are seconds, so
the frame rate does not matter and may vary.

Shape letters: N people of a frame, M tracks, K keypoints.
"""

from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.optimize import linear_sum_assignment

from hrnet_cli.errors import UsageError
from hrnet_cli.geometry import box_iou
from hrnet_cli.motion import Motion, correct_motion, motion_at_rest, predict_motion
from hrnet_cli.oks import oks_matrix
from hrnet_cli.structures import Boxes, PersonHeatmaps, Poses

Array = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]

# Lengths below are in sizes of the person: the square root of its box's area.
BOX_NOISE = 0.05  # standard deviation of a detector's box
WALKING_SPEED = 1.0  # sizes per second: of somebody seen for the first time
RESTLESSNESS = 1.0  # by how much a velocity changes within a second
# OKS says something where at least so many keypoints are seen in both frames.
SHARED_KEYPOINTS = 3
# After so many seconds unseen, a person may be twice as far from where it was expected.
DOUBT_DOUBLES_S = 0.2
# Boxes grow by this part of their size on each side in the search for the lost.
SEARCH_MARGIN = 0.5
# Of two boxes, the smaller lies inside the larger when this part of it does: a detector that boxes
# a person with and without an outstretched arm.
INSIDE = 0.85
# How much a new frame changes what a person's keypoints usually score.
USUAL_SCORE_RATE = 0.2
# A predicted box keeps so much room around the keypoints, in box sizes (COCO's boxes have a tenth).
KEYPOINT_MARGIN = 0.1
# A stray keypoint makes a predicted box reach so much farther on each side at most, in sizes.
FARTHEST_KEYPOINT = 0.5
# A box with less of itself in the picture has left it.
LEAST_PART_IN_PICTURE = 0.1


@dataclass(frozen=True)
class TrackerSettings:
    """How sure a tracker must be, and how long it remembers.

    Attributes:
        person_threshold: A box with a lower score starts no track, 0 to 1.
        low_threshold: A box with a lower score is not looked at; those between the two continue
            tracks that no sure box continues, 0 to 1.
        max_gap_s: A person unseen for longer comes back under a new number.
        match_threshold: Least mean of IoU and OKS of a person with its track, 0 to 1.
        duplicate_oks: A box that no track expects and whose keypoints agree more with those of
            another person of the frame is the same person twice, and is left out, 0 to 1. Half of
            it is enough where one of the two boxes lies inside the other.
        keypoint_threshold: Keypoints with a lower score do not count, 0 to 1.

    Raises:
        UsageError: A value is out of range.
    """

    person_threshold: float = 0.25
    low_threshold: float = 0.1
    max_gap_s: float = 1.0
    match_threshold: float = 0.3
    duplicate_oks: float = 0.9
    keypoint_threshold: float = 0.2

    def __post_init__(self) -> None:
        """Check the ranges."""
        for field in fields(self):
            value, most = getattr(self, field.name), 3600 if field.name.endswith("_s") else 1
            if not 0 <= value <= most:
                raise UsageError(f"{field.name} is {value}, expected 0 to {most}")
        if self.low_threshold > self.person_threshold:
            raise UsageError(
                f"low_threshold is {self.low_threshold}, expected at most person_threshold,"
                f" {self.person_threshold}"
            )


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


@dataclass(frozen=True)
class _People:
    """The people of one frame, seen or expected, as matching needs them.

    Attributes:
        boxes_N4: Centre x and y, width and height, px; zeros where the box is no finite number.
        keypoints_NK2: Points (x, y), px; zeros where they are no finite number.
        scores_NK: Their scores; 0 for those without a place.
        box_scores_N: Detector's confidence; -1 for a box that is no finite number.
    """

    boxes_N4: Array
    keypoints_NK2: Array
    scores_NK: Array
    box_scores_N: Array

    def __getitem__(self, which: np.ndarray) -> "_People":
        return _People(*(getattr(self, field.name)[which] for field in fields(self)))


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
        seen = _people_of(poses)
        expected = _expected(tracks, time_s)
        sigmas_K = np.asarray(poses.schema.oks_sigmas)
        doubt_M = 1 + (time_s - tracks.times_s_M) / DOUBT_DOUBLES_S
        twins_NN = _twins(seen, sigmas_K, settings, boxes_count=detected)
        close_MN = _similarity(expected, seen, sigmas_K, doubt_M, settings.keypoint_threshold)
        new_N = np.zeros(0, np.int64)
        if detected:
            wide_MN = _similarity(
                _grown(expected), _grown(seen), sigmas_K, 2 * doubt_M, settings.keypoint_threshold
            )
            recent_M = tracks.times_s_M >= min(self._time_s, time_s - DOUBT_DOUBLES_S)
            track_N = _match_detections(
                close_MN, wide_MN, twins_NN, recent_M, seen.box_scores_N, settings
            )
            new_N = _newcomers(track_N, twins_NN, seen.box_scores_N, settings.person_threshold)
        else:
            lively_MN = _mean_scores(seen) >= tracks.usual_scores_M[:, None] / 2
            track_N = _match_predictions(
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
        xyxy_N4 = _corners(expected.boxes_N4)
        counted_NK1 = (expected.scores_NK >= self._settings.keypoint_threshold)[..., None]
        margin_N2 = KEYPOINT_MARGIN * expected.boxes_N4[:, 2:]
        near_N2 = np.where(counted_NK1, expected.keypoints_NK2, np.inf).min(axis=1, initial=np.inf)
        far_N2 = np.where(counted_NK1, expected.keypoints_NK2, -np.inf).max(axis=1, initial=-np.inf)
        reach_N1 = FARTHEST_KEYPOINT * _sizes(expected.boxes_N4)[:, None]
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


def _people_of(poses: Poses) -> _People:
    """Return the people of a frame in float64, without numbers that are not finite."""
    xyxy_N4 = poses.boxes.xyxy_N4.astype(np.float64)
    sound_N = np.isfinite(xyxy_N4.sum(axis=1))
    near_N2, far_N2 = xyxy_N4[:, :2], xyxy_N4[:, 2:]
    boxes_N4 = np.concatenate([(near_N2 + far_N2) / 2, far_N2 - near_N2], axis=1)
    points_NK2 = poses.keypoints_NK2.astype(np.float64)
    sound_NK = np.isfinite(points_NK2.sum(axis=2)) & np.isfinite(poses.scores_NK)
    return _People(
        np.where(sound_N[:, None], boxes_N4, 0),
        np.where(sound_NK[..., None], points_NK2, 0),
        np.where(sound_NK, poses.scores_NK, 0).astype(np.float64),
        np.where(sound_N, poses.boxes.scores_N, -1).astype(np.float64),
    )


def _expected(tracks: _Tracks, time_s: float) -> _People:
    """Return where the people of tracks should be; their keypoints move as their boxes do."""
    waited_M = np.maximum(time_s - tracks.times_s_M, 0)
    now = predict_motion(tracks.motion, waited_M, RESTLESSNESS * _sizes(tracks.motion.position_D))
    last_M4, boxes_M4 = tracks.motion.position_D, now.position_D
    # The speed at which a box grows is too uncertain to be trusted for long.
    boxes_M4[:, 2:] = np.clip(boxes_M4[:, 2:], last_M4[:, 2:] / 1.5, last_M4[:, 2:] * 1.5)
    grown_M1 = (_sizes(boxes_M4) / _sizes(last_M4))[:, None, None]
    points_MK2 = (tracks.keypoints_MK2 - last_M4[:, None, :2]) * grown_M1 + boxes_M4[:, None, :2]
    return _People(boxes_M4, points_MK2, tracks.scores_MK, tracks.box_scores_M)


def _seen_first(seen: _People, ids_N: Integers, time_s: float) -> _Tracks:
    """Return the tracks that begin with people."""
    sizes_N = _sizes(seen.boxes_N4)
    return _Tracks(
        ids_N,
        np.full(len(ids_N), time_s),
        motion_at_rest(seen.boxes_N4, BOX_NOISE * sizes_N, WALKING_SPEED * sizes_N),
        seen.keypoints_NK2,
        seen.scores_NK,
        seen.box_scores_N,
        _mean_scores(seen),
    )


def _seen_again(tracks: _Tracks, seen: _People, time_s: float, *, detected: bool) -> _Tracks:
    """Return tracks after their people, in the same order, were seen at a time."""
    sizes_M = _sizes(tracks.motion.position_D)
    waited_M = np.maximum(time_s - tracks.times_s_M, 0)
    motion = predict_motion(tracks.motion, waited_M, RESTLESSNESS * sizes_M)
    boxes_M4, box_scores_M = seen.boxes_N4, seen.box_scores_N
    usual_M = tracks.usual_scores_M
    if detected:
        usual_M = usual_M + USUAL_SCORE_RATE * (_mean_scores(seen) - usual_M)
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


def _carried(expected: _People, seen: _People) -> Array:
    """Return expected boxes moved by how far the keypoints are from where they were expected.

    The move is the mean over keypoints, weighted by the lower of their two scores.
    """
    weights_NK1 = np.minimum(expected.scores_NK, seen.scores_NK)[..., None]
    totals_N1 = np.maximum(weights_NK1.sum(axis=1), np.finfo(np.float64).tiny)
    moves_N2 = (weights_NK1 * (seen.keypoints_NK2 - expected.keypoints_NK2)).sum(axis=1) / totals_N1
    return expected.boxes_N4 + np.concatenate([moves_N2, np.zeros_like(moves_N2)], axis=1)


def _similarity(
    expected: _People, seen: _People, sigmas_K: Array, doubt_M: Array, threshold: float
) -> Array:
    """Return how well each expected person fits each seen one, (M, N), 0 to 1.

    The mean of the IoU of the boxes and the OKS of the keypoints; the IoU alone where too few
    keypoints are seen.

    Args:
        expected: Where the people of tracks should be.
        seen: The people of the frame.
        sigmas_K: OKS constants of the schema.
        doubt_M: Factors by which the keypoints may be farther off than those of a pose.
        threshold: Least score of a keypoint that counts.
    """
    iou_MN = box_iou(_corners(expected.boxes_N4), _corners(seen.boxes_N4))
    oks_MN = _oks(expected, seen, sigmas_K, doubt_M[:, None], threshold)
    return np.where(np.isnan(oks_MN), iou_MN, (iou_MN + oks_MN) / 2)


def _oks(a: _People, b: _People, sigmas_K: Array, doubt_N1: Array, threshold: float) -> Array:
    """Return the OKS of each pair, (N, M); NaN where they share too few keypoints."""
    shared_NMK = (a.scores_NK >= threshold)[:, None] & (b.scores_NK >= threshold)[None]
    # Distances that may be twice as long are those of a person of four times the area.
    areas_N = _sizes(a.boxes_N4) ** 2 * np.square(doubt_N1[:, 0])
    areas_M = _sizes(b.boxes_N4) ** 2
    oks_NM = oks_matrix(
        a.keypoints_NK2, areas_N, b.keypoints_NK2, areas_M, sigmas_K, visible_NMK=shared_NMK
    )
    enough_NM = shared_NMK.sum(axis=2) >= min(SHARED_KEYPOINTS, len(sigmas_K))
    return np.where(enough_NM, oks_NM, np.nan)


def _twins(seen: _People, sigmas_K: Array, settings: TrackerSettings, *, boxes_count: bool) -> Mask:
    """Return which people of a frame, (N, N), have the keypoints of the same person.

    Args:
        seen: The people of the frame.
        sigmas_K: OKS constants of the schema.
        settings: The thresholds.
        boxes_count: Whether half the agreement is enough where one box lies inside the other.
    """
    ones_N1 = np.ones((len(seen.boxes_N4), 1))
    oks_NN = _oks(seen, seen, sigmas_K, ones_N1, settings.keypoint_threshold)
    least_NN = np.full(oks_NN.shape, settings.duplicate_oks)
    if boxes_count:
        corners_N4, areas_N = _corners(seen.boxes_N4), np.prod(seen.boxes_N4[:, 2:], axis=1)
        iou_NN = box_iou(corners_N4, corners_N4)
        shared_NN = iou_NN / (1 + iou_NN) * (areas_N[:, None] + areas_N)
        inside_NN = shared_NN >= INSIDE * np.minimum(areas_N[:, None], areas_N)
        least_NN[inside_NN] /= 2
    return np.greater(oks_NN, least_NN)


def _match_detections(
    close_MN: Array,
    wide_MN: Array,
    twins_NN: Mask,
    recent_M: Mask,
    box_scores_N: Array,
    settings: TrackerSettings,
) -> Integers:
    """Return the track each person continues, or -1.

    Args:
        close_MN: Similarity where the person is expected.
        wide_MN: Similarity in the wider area in which the lost are looked for.
        twins_NN: Which people of the frame are the same person.
        recent_M: Which tracks were seen lately enough to be continued by an unsure box.
        box_scores_N: Detector's confidence.
        settings: The thresholds.
    """
    sure_N = box_scores_N >= settings.person_threshold
    unsure_N = (box_scores_N >= settings.low_threshold) & ~sure_N
    every_M = np.ones(len(recent_M), bool)
    track_N = np.full(len(sure_N), -1, np.int64)
    rounds = ((close_MN, sure_N, every_M), (close_MN, unsure_N, recent_M))
    for similar_MN, who_N, which_M in (*rounds, (wide_MN, sure_N, every_M)):
        if similar_MN is wide_MN:
            # What is left of a person found twice would otherwise wake up somebody lost near it.
            who_N = who_N & ~(twins_NN & (track_N >= 0)).any(axis=1)
        free_M = which_M & ~np.isin(np.arange(len(every_M)), track_N)
        allowed_MN = free_M[:, None] & (who_N & (track_N < 0))[None]
        _assign(track_N, np.where(allowed_MN, similar_MN, 0), settings.match_threshold)
    return track_N


def _match_predictions(similar_MN: Array, twins_NN: Mask, threshold: float) -> Integers:
    """Return the track each person in a predicted box continues, or -1.

    Of two people with the same keypoints, one hides the other: the one that is where it was
    expected keeps its track.
    """
    track_N = np.full(similar_MN.shape[1], -1, np.int64)
    _assign(track_N, similar_MN, threshold)
    kept: list[int] = []
    fit_N = np.array([similar_MN[t, n] if t >= 0 else -1.0 for n, t in enumerate(track_N)])
    for person in np.argsort(-fit_N, kind="stable"):
        if twins_NN[person, kept].any():
            track_N[person] = -1
        elif track_N[person] >= 0:
            kept.append(int(person))
    return track_N


def _assign(track_N: Integers, similar_MN: Array, threshold: float) -> None:
    """Fill in the best assignment of tracks to people, as far as they are similar enough."""
    gain_MN = np.where(similar_MN >= max(threshold, 1e-9), similar_MN, 0)
    tracks, people = linear_sum_assignment(gain_MN, maximize=True)
    good = gain_MN[tracks, people] > 0
    track_N[people[good]] = tracks[good]


def _newcomers(
    track_N: Integers, twins_NN: Mask, box_scores_N: Array, threshold: float
) -> Integers:
    """Return which people start a track: sure boxes that are nobody known, surest first chosen."""
    known_N = track_N >= 0
    new_N = np.zeros(len(track_N), bool)
    for person in np.argsort(-box_scores_N, kind="stable"):
        sure = box_scores_N[person] >= threshold and not known_N[person]
        if sure and not (twins_NN[person] & (known_N | new_N)).any():
            new_N[person] = True
    return np.flatnonzero(new_N)


def _mean_scores(people: _People) -> Array:
    """Return the mean keypoint score of each person."""
    return people.scores_NK.mean(axis=1)


def _sizes(boxes_N4: Array) -> Array:
    """Return the sizes of boxes given by centre, width and height: sqrt(area), at least 1 px."""
    return np.sqrt(np.maximum(boxes_N4[:, 2] * boxes_N4[:, 3], 1.0))


def _corners(boxes_N4: Array) -> Array:
    """Return boxes given by centre, width and height as (x1, y1, x2, y2)."""
    half_N2 = boxes_N4[:, 2:] / 2
    return np.concatenate([boxes_N4[:, :2] - half_N2, boxes_N4[:, :2] + half_N2], axis=1)


def _grown(people: _People) -> _People:
    """Return people with the larger boxes of the search for the lost."""
    boxes_N4 = people.boxes_N4 * [1, 1, 1 + 2 * SEARCH_MARGIN, 1 + 2 * SEARCH_MARGIN]
    return replace(people, boxes_N4=boxes_N4)


def _labelled(poses: Poses, ids_N: Integers) -> Poses:
    """Return the people with an identity above 0, and it."""
    kept_N = np.flatnonzero(ids_N)
    heatmaps = poses.heatmaps
    if heatmaps is not None:
        heatmaps = PersonHeatmaps(
            heatmaps.heatmaps_NKHW[kept_N], heatmaps.heatmap_to_image_N23[kept_N]
        )
    raw, flags = poses.raw_keypoints_NK2, poses.flags_NK
    return Poses(
        poses.keypoints_NK2[kept_N],
        poses.scores_NK[kept_N],
        poses.person_scores_N[kept_N],
        poses.boxes[kept_N],
        poses.schema,
        track_ids_N=ids_N[kept_N],
        heatmaps=heatmaps,
        raw_keypoints_NK2=None if raw is None else raw[kept_N],
        flags_NK=None if flags is None else flags[kept_N],
    )
