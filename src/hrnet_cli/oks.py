"""Object keypoint similarity (OKS), the IoU of poses, and what the test settings do with it.

Sources: COCO keypoint evaluation (cocodataset.org/#keypoints-eval); official HRNet,
lib/nms/nms.py and lib/dataset/coco.py. Shape letters: N M people, K keypoints.
"""

import numpy as np
import numpy.typing as npt

from hrnet_cli.geometry import keep_greedily

Array = npt.NDArray[np.float64]
Numbers = npt.ArrayLike
# Area of a person for each unit of box area, where its outline is not known: what COCO-style
# evaluation without areas uses (xtcocotools, COCOeval with use_area=False).
AREA_PER_BOX = 0.53
# Soft OKS-NMS keeps at most this many people (official lib/nms/nms.py, `soft_oks_nms`).
SOFT_NMS_MAX_PEOPLE = 20


def oks_matrix(
    a_NK2: Numbers,
    a_areas_N: Numbers,
    b_MK2: Numbers,
    b_areas_M: Numbers,
    sigmas_K: Numbers,
    visible_NMK: npt.NDArray[np.bool_] | None = None,
) -> Array:
    """Return the OKS of each person of one set with each of another.

    exp(-d^2 / (2 s^2 k^2)) averaged over keypoints, with k = 2 sigma and s^2 the mean area of the
    two people.

    Args:
        a_NK2: Keypoints (x, y) in pixels.
        a_areas_N: Their areas in square pixels.
        b_MK2: Keypoints of the other set.
        b_areas_M: Their areas.
        sigmas_K: Per-keypoint constants of the schema.
        visible_NMK: Which keypoints of a pair count; None for all. A pair without any has OKS 0.

    Returns:
        (N, M), 0 to 1.
    """
    a, b = np.asarray(a_NK2, np.float64), np.asarray(b_MK2, np.float64)
    areas_a, areas_b = np.asarray(a_areas_N, np.float64), np.asarray(b_areas_M, np.float64)
    variances_K = (2 * np.asarray(sigmas_K, np.float64)) ** 2
    # Twice as fast as a sum over the last axis, which is 2 long.
    squares_NMK = (a[:, None, :, 0] - b[None, :, :, 0]) ** 2
    squares_NMK += (a[:, None, :, 1] - b[None, :, :, 1]) ** 2
    areas_NM = (areas_a[:, None] + areas_b[None]) / 2 + np.spacing(1)
    similarity_NMK = np.exp(-squares_NMK / variances_K / areas_NM[..., None] / 2)
    if visible_NMK is None:
        return similarity_NMK.mean(axis=-1)
    counts_NM = visible_NMK.sum(axis=-1)
    sums_NM = np.where(visible_NMK, similarity_NMK, 0).sum(axis=-1)
    return np.divide(sums_NM, counts_NM, out=np.zeros_like(sums_NM), where=counts_NM > 0)


def oks_nms(
    keypoints_NK2: Numbers, scores_N: Numbers, areas_N: Numbers, sigmas_K: Numbers, threshold: float
) -> npt.NDArray[np.int64]:
    """Return the people that survive OKS-NMS, best first.

    Args:
        keypoints_NK2: Keypoints (x, y) in pixels.
        scores_N: Person scores; of equal ones the later goes first, as in the official code.
        areas_N: Areas in square pixels; the official test takes those of the padded boxes.
        sigmas_K: Per-keypoint constants.
        threshold: People with a higher OKS with a kept one are dropped (official: 0.9).
    """
    overlap_NN = oks_matrix(keypoints_NK2, areas_N, keypoints_NK2, areas_N, sigmas_K)
    return keep_greedily(overlap_NN, np.asarray(scores_N, np.float64), threshold)


def soft_oks_nms(
    keypoints_NK2: Numbers, scores_N: Numbers, areas_N: Numbers, sigmas_K: Numbers, threshold: float
) -> npt.NDArray[np.int64]:
    """Return people in the order of soft OKS-NMS, at most `SOFT_NMS_MAX_PEOPLE`.

    Instead of dropping, each chosen person lowers the scores of the others by
    exp(-OKS^2 / threshold). Arguments as `oks_nms`.
    """
    overlap_NN = oks_matrix(keypoints_NK2, areas_N, keypoints_NK2, areas_N, sigmas_K)
    left = np.argsort(np.asarray(scores_N, np.float64))[::-1]
    scores = np.asarray(scores_N, np.float64)[left]
    kept: list[int] = []
    while len(left) and len(kept) < SOFT_NMS_MAX_PEOPLE:
        best = left[0]
        kept.append(int(best))
        left, scores = left[1:], scores[1:] * np.exp(-(overlap_NN[best, left[1:]] ** 2) / threshold)
        order = np.argsort(scores)[::-1]
        left, scores = left[order], scores[order]
    return np.array(kept, dtype=np.int64)


def rescore(box_scores_N: Numbers, keypoint_scores_NK: Numbers, threshold: float = 0.2) -> Array:
    """Return person scores: box score times the mean of the keypoint scores above a threshold.

    Source: official HRNet, lib/dataset/coco.py, `evaluate` (IN_VIS_THRE 0.2). A person without a
    keypoint above the threshold scores 0.
    """
    scores_NK = np.asarray(keypoint_scores_NK, np.float64)
    counted_NK = scores_NK > threshold
    sums_N = np.where(counted_NK, scores_NK, 0).sum(axis=1)
    return np.asarray(box_scores_N, np.float64) * sums_N / np.maximum(counted_NK.sum(axis=1), 1)
