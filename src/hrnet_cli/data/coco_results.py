"""Poses as COCO ranks them, and the results file that ``pycocotools`` and its servers read.

Shape letters: M poses, K keypoints.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import orjson

from hrnet_cli.images import write_bytes_atomic

CATEGORY_ID = 1  # people, unless a data set says otherwise; what annotations in memory use


@dataclass(frozen=True)
class CocoResults:
    """Poses with the score that ranks them, in the order of the results file.

    Attributes:
        photo_ids_M: int64 id of the photo of each pose.
        keypoints_MK2: float32 (x, y) in pixels of the photo as stored.
        keypoint_scores_MK: float32 heatmap peaks.
        scores_M: float64 person scores.
        category_id: Number of their category in the file of the labels.
    """

    photo_ids_M: npt.NDArray[np.int64]
    keypoints_MK2: npt.NDArray[np.float32]
    keypoint_scores_MK: npt.NDArray[np.float32]
    scores_M: npt.NDArray[np.float64]
    category_id: int = CATEGORY_ID

    def __len__(self) -> int:
        """Return the number of poses."""
        return len(self.scores_M)


def write_results(path: Path, results: CocoResults) -> None:
    """Write COCO keypoint results; whole or not at all.

    There is no ``bbox``: with one, pycocotools would take the area of a pose from it and not from
    its keypoints, and AP and AR by size would differ from the official ones.

    Args:
        path: Target; an existing file is replaced.
        results: Must hold finite numbers; the file of no poses is an empty list.

    Raises:
        OutputError: The file cannot be written.
    """
    triples_MK3 = np.concatenate(
        [results.keypoints_MK2, results.keypoint_scores_MK[..., None]], axis=2, dtype=np.float32
    )
    entries = [
        {
            "image_id": photo_id,
            "category_id": results.category_id,
            # The shortest text that reads back as the same float32: order and numbers stay.
            "keypoints": flat,
            "score": score,
        }
        for photo_id, flat, score in zip(
            results.photo_ids_M.tolist(),
            triples_MK3.reshape(len(results), triples_MK3.shape[1] * 3),
            results.scores_M.tolist(),
            strict=True,
        )
    ]
    write_bytes_atomic(path, orjson.dumps(entries, option=orjson.OPT_SERIALIZE_NUMPY))
