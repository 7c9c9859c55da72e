"""Distances between predicted and true keypoints, summed up the way each benchmark does.

Shape letters: N people, K keypoints. All functions are pure. A keypoint nobody has labelled scores
NaN and does not count in the mean over keypoints.
"""

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]

# Head size is 0.6 of the diagonal of the annotated head box (MPII evaluation, SC_BIAS).
MPII_HEAD_FACTOR = 0.6


def keypoint_distances(
    predicted_NK2: npt.ArrayLike, true_NK2: npt.ArrayLike, norm_N2: npt.ArrayLike
) -> Array:
    """Return distances (N, K) after dividing x and y by each person's two normalisers."""
    difference = np.asarray(predicted_NK2, np.float64) - np.asarray(true_NK2, np.float64)
    norm = np.broadcast_to(np.asarray(norm_N2, np.float64), (len(difference), 2))
    return np.linalg.norm(difference / norm[:, None], axis=-1)


def fraction_correct(distances_NK: Array, counted_NK: Mask, threshold: float) -> Array:
    """Return for each keypoint the fraction of people closer than a threshold, NaN for nobody."""
    counts_K = counted_NK.sum(axis=0)
    correct_K = ((distances_NK < threshold) & counted_NK).sum(axis=0)
    return np.where(counts_K > 0, correct_K / np.maximum(counts_K, 1), np.nan)


def pck(
    predicted_NK2: npt.ArrayLike,
    true_NK2: npt.ArrayLike,
    visible_NK: npt.ArrayLike,
    norm_N2: npt.ArrayLike,
    threshold: float,
) -> Array:
    """Return the percentage of correct keypoints (PCK), 0 to 1, for each keypoint.

    Args:
        predicted_NK2: Keypoints (x, y) in pixels.
        true_NK2: Labelled keypoints.
        visible_NK: Which labels count.
        norm_N2: What distances in x and y are divided by, in pixels: torso, head or box size;
            people with a normaliser of 0 or below do not count.
        threshold: Largest distance, after dividing, that is not correct any more.
    """
    norm = np.broadcast_to(np.asarray(norm_N2, np.float64), (len(np.asarray(true_NK2)), 2))
    usable_N1: Mask = np.all(norm > 0, axis=1, keepdims=True)
    counted_NK = np.asarray(visible_NK, bool) & usable_N1
    usable = np.where(norm > 0, norm, 1)
    distances = keypoint_distances(predicted_NK2, true_NK2, usable)
    return fraction_correct(distances, counted_NK, threshold)


def auc(
    predicted_NK2: npt.ArrayLike,
    true_NK2: npt.ArrayLike,
    visible_NK: npt.ArrayLike,
    norm_px: float = 30,
    steps: int = 20,
) -> float:
    """Return the area under the PCK curve from 0 to ``norm_px`` pixels, 0 to 1 (hands)."""
    counted_NK = np.asarray(visible_NK, bool)
    distances = keypoint_distances(predicted_NK2, true_NK2, np.full((1, 2), float(norm_px)))
    curve = [
        mean_over_keypoints(fraction_correct(distances, counted_NK, step / steps))
        for step in range(steps)
    ]
    return float(np.mean(curve))


def epe(predicted_NK2: npt.ArrayLike, true_NK2: npt.ArrayLike, visible_NK: npt.ArrayLike) -> float:
    """Return the mean distance in pixels over all labelled keypoints (end-point error)."""
    return nme(predicted_NK2, true_NK2, visible_NK, np.ones((1, 2)))


def nme(
    predicted_NK2: npt.ArrayLike,
    true_NK2: npt.ArrayLike,
    visible_NK: npt.ArrayLike,
    norm_N2: npt.ArrayLike,
) -> float:
    """Return the mean distance over labelled keypoints after dividing by each person's norm."""
    distances = keypoint_distances(predicted_NK2, true_NK2, norm_N2)
    counted = distances[np.asarray(visible_NK, bool)]
    return float(counted.mean()) if counted.size else float("nan")


def pckh(
    predicted_NK2: npt.ArrayLike,
    true_NK2: npt.ArrayLike,
    visible_NK: npt.ArrayLike,
    head_boxes_N4: npt.ArrayLike,
    threshold: float = 0.5,
) -> Array:
    """Return the MPII PCKh, 0 to 1, for each keypoint.

    Distances are divided by `MPII_HEAD_FACTOR` times the diagonal of the head box, and those equal
    to the threshold count as correct (official lib/dataset/mpii.py, `evaluate`). The benchmark's
    mean weights keypoints by their number of labels and leaves out pelvis and thorax; its
    "Mean@0.1" is taken at 0.11.

    Args:
        predicted_NK2: Keypoints (x, y) in the pixels of the labels (MPII counts from 1).
        true_NK2: Labelled keypoints.
        visible_NK: Which labels count.
        head_boxes_N4: Head boxes (x1, y1, x2, y2).
        threshold: Largest distance in head sizes that is correct.
    """
    boxes = np.asarray(head_boxes_N4, np.float64)
    sizes_N = np.linalg.norm(boxes[:, 2:] - boxes[:, :2], axis=1) * MPII_HEAD_FACTOR
    distances = keypoint_distances(predicted_NK2, true_NK2, np.stack([sizes_N, sizes_N], axis=1))
    # The next number after the threshold turns "less than" into "at most".
    return fraction_correct(distances, np.asarray(visible_NK, bool), np.nextafter(threshold, 9))


def heatmap_accuracy(
    predicted_NK2: npt.ArrayLike,
    true_NK2: npt.ArrayLike,
    heatmap_hw: tuple[int, int],
) -> Array:
    """Return the training accuracy of the official code for each keypoint, 0 to 1.

    The official lib/core/evaluate.py takes a threshold but always uses 0.5, and divides x by a
    tenth of the heatmap's height and y by a tenth of its width; this does the same.

    Args:
        predicted_NK2: Peaks (x, y) of the network's heatmaps, in heatmap pixels.
        true_NK2: Peaks of the targets; those within one pixel of the near rims do not count.
        heatmap_hw: Heatmap (height, width).
    """
    counted_NK = np.asarray(np.min(np.asarray(true_NK2), axis=-1) > 1)
    distances = keypoint_distances(predicted_NK2, true_NK2, np.array([heatmap_hw]) / 10)
    return fraction_correct(distances, counted_NK, 0.5)


def mean_over_keypoints(values_K: Array) -> float:
    """Return the mean over the keypoints somebody has labelled; 0 when there are none."""
    labelled = values_K[~np.isnan(values_K)]
    return float(labelled.mean()) if labelled.size else 0.0
