"""Which person of a frame is which one expected: box IoU and keypoint OKS, assigned as a whole.

Sure boxes are matched first and unsure ones second, so that a half-hidden person keeps its identity
and a false box starts none (ByteTrack, ECCV 2022, sec. 3); whoever sure boxes still miss is then
looked for in a wider area.

Shape letters: N people of a frame, M people expected, K keypoints.
"""

from dataclasses import dataclass, fields, replace

import numpy as np
import numpy.typing as npt
from scipy.optimize import linear_sum_assignment

from hrnet_cli.errors import UsageError
from hrnet_cli.geometry import box_iou
from hrnet_cli.oks import oks_matrix
from hrnet_cli.structures import Poses

Array = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]

# OKS says something where at least so many keypoints are seen in both frames.
SHARED_KEYPOINTS = 3
# Boxes grow by this part of their size on each side in the search for the lost.
SEARCH_MARGIN = 0.5
# Of two boxes, the smaller lies inside the larger when this part of it does: a detector that boxes
# a person with and without an outstretched arm.
INSIDE = 0.85


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
class People:
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

    def __getitem__(self, which: np.ndarray) -> "People":
        """Return the people an index array picks."""
        return People(*(getattr(self, field.name)[which] for field in fields(self)))


def people_of(poses: Poses) -> People:
    """Return the people of a frame in float64, without numbers that are not finite."""
    xyxy_N4 = poses.boxes.xyxy_N4.astype(np.float64)
    sound_N = np.isfinite(xyxy_N4.sum(axis=1))
    near_N2, far_N2 = xyxy_N4[:, :2], xyxy_N4[:, 2:]
    boxes_N4 = np.concatenate([(near_N2 + far_N2) / 2, far_N2 - near_N2], axis=1)
    points_NK2 = poses.keypoints_NK2.astype(np.float64)
    sound_NK = np.isfinite(points_NK2.sum(axis=2)) & np.isfinite(poses.scores_NK)
    return People(
        np.where(sound_N[:, None], boxes_N4, 0),
        np.where(sound_NK[..., None], points_NK2, 0),
        np.where(sound_NK, poses.scores_NK, 0).astype(np.float64),
        np.where(sound_N, poses.boxes.scores_N, -1).astype(np.float64),
    )


def similarity(
    expected: People, seen: People, sigmas_K: Array, doubt_M: Array, threshold: float
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
    iou_MN = box_iou(box_corners(expected.boxes_N4), box_corners(seen.boxes_N4))
    oks_MN = _oks(expected, seen, sigmas_K, doubt_M[:, None], threshold)
    return np.where(np.isnan(oks_MN), iou_MN, (iou_MN + oks_MN) / 2)


def _oks(a: People, b: People, sigmas_K: Array, doubt_N1: Array, threshold: float) -> Array:
    """Return the OKS of each pair, (N, M); NaN where they share too few keypoints."""
    shared_NMK = (a.scores_NK >= threshold)[:, None] & (b.scores_NK >= threshold)[None]
    # Distances that may be twice as long are those of a person of four times the area.
    areas_N = box_sizes(a.boxes_N4) ** 2 * np.square(doubt_N1[:, 0])
    areas_M = box_sizes(b.boxes_N4) ** 2
    oks_NM = oks_matrix(
        a.keypoints_NK2, areas_N, b.keypoints_NK2, areas_M, sigmas_K, visible_NMK=shared_NMK
    )
    enough_NM = shared_NMK.sum(axis=2) >= min(SHARED_KEYPOINTS, len(sigmas_K))
    return np.where(enough_NM, oks_NM, np.nan)


def find_twins(
    seen: People, sigmas_K: Array, settings: TrackerSettings, *, boxes_count: bool
) -> Mask:
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
        corners_N4, areas_N = box_corners(seen.boxes_N4), np.prod(seen.boxes_N4[:, 2:], axis=1)
        iou_NN = box_iou(corners_N4, corners_N4)
        shared_NN = iou_NN / (1 + iou_NN) * (areas_N[:, None] + areas_N)
        inside_NN = shared_NN >= INSIDE * np.minimum(areas_N[:, None], areas_N)
        least_NN[inside_NN] /= 2
    return np.greater(oks_NN, least_NN)


def match_detections(
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


def match_predictions(similar_MN: Array, twins_NN: Mask, threshold: float) -> Integers:
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


def find_newcomers(
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


def mean_scores(people: People) -> Array:
    """Return the mean keypoint score of each person."""
    return people.scores_NK.mean(axis=1)


def box_sizes(boxes_N4: Array) -> Array:
    """Return the sizes of boxes given by centre, width and height: sqrt(area), at least 1 px."""
    return np.sqrt(np.maximum(boxes_N4[:, 2] * boxes_N4[:, 3], 1.0))


def box_corners(boxes_N4: Array) -> Array:
    """Return boxes given by centre, width and height as (x1, y1, x2, y2)."""
    half_N2 = boxes_N4[:, 2:] / 2
    return np.concatenate([boxes_N4[:, :2] - half_N2, boxes_N4[:, :2] + half_N2], axis=1)


def with_wider_boxes(people: People) -> People:
    """Return people with the larger boxes of the search for the lost."""
    boxes_N4 = people.boxes_N4 * [1, 1, 1 + 2 * SEARCH_MARGIN, 1 + 2 * SEARCH_MARGIN]
    return replace(people, boxes_N4=boxes_N4)
