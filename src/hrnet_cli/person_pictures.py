"""One person of a photo drawn twice side by side: as labelled, and as predicted.

Points are (x, y) in pixels of the photo. Shape letters: H W picture, K keypoints.
"""

from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from hrnet_cli.draw import MANY_KEYPOINTS, DrawStyle, draw_poses
from hrnet_cli.images import encode_image
from hrnet_cli.schema import KeypointSchema
from hrnet_cli.structures import Boxes, Poses

Pixels = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float64]

# Room around what must be seen, as a part of its longer side.
MARGIN = 0.12
# Predicted points farther out than this many box sides do not widen the picture.
REACH = 0.5
# Each of the two halves fits in here; small people are enlarged.
HALF_WH = (232, 264)
GAP_PX = 6
GAP_GREY = 128
# A label that is hidden in the photo is drawn as unsure: hollow.
HIDDEN_SCORE, VISIBLE_SCORE = 0.4, 1.0
LINE_PX, POINT_PX = 2.6, 3.6
QUALITIES = (85, 75, 65, 55, 45, 35)
MOST_BYTES = 25_000


@dataclass(frozen=True)
class PersonCase:
    """A labelled person and what was predicted.

    Attributes:
        box_xywh: Labelled box (x, y, width, height).
        true_K2: Labelled keypoints.
        visible_K: 0 not labelled, 1 labelled but hidden, 2 visible.
        predicted_K2: Predicted keypoints, or None for a person that was not found.
        scores_K: Their scores.
        schema: What they are called.
    """

    box_xywh: Floats
    true_K2: Floats
    visible_K: npt.NDArray[np.uint8]
    predicted_K2: Floats | None
    scores_K: Floats | None
    schema: KeypointSchema


def draw_case(image_HW3: Pixels, case: PersonCase) -> Pixels:
    """Return the photo around a person twice: labels to the left, prediction to the right.

    Of the prediction only keypoints with a label are drawn: no other ones count.

    Args:
        image_HW3: uint8 RGB photo.
        case: The person; without a prediction the right half shows the photo alone.
    """
    near, far = _region(image_HW3, case)
    part_HW3 = image_HW3[near[1] : far[1], near[0] : far[0]]
    height, width = part_HW3.shape[:2]
    zoom = min(HALF_WH[0] / width, HALF_WH[1] / height)
    size_wh = (max(1, round(width * zoom)), max(1, round(height * zoom)))
    kind = cv2.INTER_AREA if zoom < 1 else cv2.INTER_CUBIC
    half_HW3 = np.asarray(cv2.resize(part_HW3, size_wh, interpolation=kind), np.uint8)
    is_fine = len(case.schema) > MANY_KEYPOINTS
    style = DrawStyle(
        point_size=None if is_fine else POINT_PX,
        line_width=None if is_fine else LINE_PX,
        keypoint_threshold=0.0,
    )
    # A score below 0 keeps a keypoint from being drawn.
    scores_K = np.choose(case.visible_K.clip(0, 2), [-1.0, HIDDEN_SCORE, VISIBLE_SCORE])
    halves = [draw_poses(half_HW3, _poses(case, case.true_K2, scores_K, near, zoom), style=style)]
    if case.predicted_K2 is None or case.scores_K is None:
        halves.append(half_HW3)
    else:
        scores_K = np.where(case.visible_K > 0, case.scores_K.clip(min=0), -1.0)
        poses = _poses(case, case.predicted_K2, scores_K, near, zoom)
        halves.append(draw_poses(half_HW3, poses, style=style))
    gap = np.full((len(half_HW3), GAP_PX, 3), GAP_GREY, np.uint8)
    return np.concatenate([halves[0], gap, halves[1]], axis=1)


def small_jpeg(image_HW3: Pixels, most_bytes: int = MOST_BYTES) -> bytes:
    """Return a JPEG at the best of `QUALITIES` that is small enough, or else at the last."""
    data = b""
    for quality in QUALITIES:
        data = encode_image(image_HW3, ".jpg", quality)
        if len(data) <= most_bytes:
            break
    return data


def _region(
    image_HW3: Pixels, case: PersonCase
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Return the two corners of what to show: box, labels, and predictions that are not far out."""
    x, y, width, height = case.box_xywh.tolist()
    corners = np.array([[x, y], [x + width, y + height]])
    seen = [corners, case.true_K2[case.visible_K > 0]]
    if case.predicted_K2 is not None:
        reach = REACH * max(width, height)
        shown_S2 = case.predicted_K2[case.visible_K > 0]
        seen.append(np.clip(shown_S2, corners[0] - reach, corners[1] + reach))
    seen_S2 = np.concatenate(seen)
    near, far = seen_S2.min(axis=0), seen_S2.max(axis=0)
    margin = MARGIN * float((far - near).max())
    size_wh = np.array([image_HW3.shape[1], image_HW3.shape[0]])
    # At least one pixel, also of a label outside the photo.
    near = np.clip(np.floor(near - margin), 0, size_wh - 1).astype(np.int64)
    far = np.clip(np.ceil(far + margin), near + 1, size_wh).astype(np.int64)
    return near, far


def _poses(
    case: PersonCase,
    points_K2: Floats,
    scores_K: Floats,
    near: npt.NDArray[np.int64],
    zoom: float,
) -> Poses:
    """Return one pose in the pixels of the enlarged part."""
    x, y, width, height = case.box_xywh.tolist()
    box = (np.array([x, y, x + width, y + height]) - np.tile(near, 2)) * zoom
    inside_K2 = (points_K2 - near + 0.5) * zoom - 0.5
    return Poses(
        inside_K2[None], scores_K[None], np.ones(1), Boxes(box[None], np.ones(1)), case.schema
    )
