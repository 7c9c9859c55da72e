"""A walker seen from the side, whose true keypoints are known at any time."""

import numpy as np

from hrnet_cli.schema import load_schema
from hrnet_cli.structures import Boxes, Poses

COCO = load_schema("coco17")
# Height and width of the walker's box in px; its size is the square root of the area.
WIDTH, HEIGHT = 180.0, 400.0
SIZE = float(np.sqrt(WIDTH * HEIGHT))


def walker(times_T, *, speed=120.0, steps_hz=0.9, arms="walking"):
    """Return true keypoints (T, 17, 2) in px of a person who walks to the right.

    Args:
        times_T: Seconds.
        speed: Of the body, px a second.
        steps_hz: Double steps a second; 0 stands still.
        arms: ``walking`` swing; ``crossing`` move slowly across the body and back.
    """
    times = np.asarray(times_T, float)
    points = np.zeros((len(times), 17, 2))
    hip_x, phase = 300 + speed * times, 2 * np.pi * steps_hz * times
    for k, (x, y) in enumerate([(12, 30), (15, 24), (9, 24), (0, 28), (-4, 28)]):
        points[:, k] = np.stack([hip_x + x, np.full_like(times, 100 + y)], axis=1)
    for side, sign in ((0, 1), (1, -1)):
        leg, arm = sign * 0.5 * np.sin(phase), -sign * 0.45 * np.sin(phase)
        knee = leg + 0.35 * (1 + np.cos(phase + (0 if sign > 0 else np.pi))) * -1
        shoulder = np.stack([hip_x + 8 * sign, np.full_like(times, 190)], axis=1)
        hip = np.stack([hip_x + 6 * sign, np.full_like(times, 300)], axis=1)
        if arms == "crossing":
            shoulder[:, 0] = hip_x + 45 * sign
            across = -sign * 90 * np.sin(np.pi * times / 2) ** 2
            elbow = shoulder + np.stack([0.6 * across, np.full_like(times, 50)], axis=1)
            wrist = elbow + np.stack([0.6 * across, np.full_like(times, 10)], axis=1)
        else:
            elbow = shoulder + 60 * np.stack([np.sin(arm), np.cos(arm)], axis=1)
            wrist = elbow + 55 * np.stack([np.sin(arm + 0.3), np.cos(arm + 0.3)], axis=1)
        knee_at = hip + 95 * np.stack([np.sin(leg), np.cos(leg)], axis=1)
        ankle = knee_at + 95 * np.stack([np.sin(knee), np.cos(knee)], axis=1)
        for k, place in ((5, shoulder), (7, elbow), (9, wrist), (11, hip), (13, knee_at)):
            points[:, k + side] = place
        points[:, 15 + side] = ankle
    return points


def poses_of(points_K2, *, scores=0.8, track=1, scale=1.0, schema=COCO):
    """Return one person with the walker's box around its points, and its track id."""
    points_1K2 = scale * np.asarray(points_K2, float)[None]
    centre_2 = scale * np.array([np.nanmean(points_K2[:, 0]), 300.0])
    half_2 = scale * np.array([WIDTH, HEIGHT]) / 2
    box_4 = np.concatenate([centre_2 - half_2, centre_2 + half_2])
    scores_1K = np.broadcast_to(np.asarray(scores, float), (1, len(schema)))
    boxes = Boxes(box_4[None], np.array([0.9]))
    ids = np.array([track], np.int64)
    return Poses(points_1K2, scores_1K, np.array([0.7]), boxes, schema, track_ids_N=ids)


def with_swap(points_TK2, frames, keypoints):
    """Return the points with left and right of some even-odd pairs exchanged in some frames."""
    swapped = points_TK2.copy()
    for left in keypoints:
        pair = [left, left + 1]
        swapped[np.ix_(frames, pair)] = points_TK2[np.ix_(frames, pair[::-1])]
    return swapped
