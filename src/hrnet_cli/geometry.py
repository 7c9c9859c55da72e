"""Boxes, crops and points: the one home of the pixel conventions.

Points are (x, y), x to the right and y down, and whole numbers are pixel centres: the centre of the
first pixel is (0, 0). Boxes are (x1, y1, x2, y2). Input sizes are (height, width). A crop is
described by the affine map from picture pixels to crop pixels, carried with the crop, so that
decoding can never disagree with cropping. All functions are pure and take N boxes at once.

Shape letters: N people, K points each, H W picture height and width.
"""

import cv2
import numpy as np
import numpy.typing as npt

SMALLEST_CROP_PX = 1e-3
# OpenCV 5 warps four channels 1.6 times as fast as three, to the same values: worth a copy of what
# a crop reads, while that is at most so many times the crop (benchmarks/crop_and_decode.py).
FOUR_CHANNEL_RATIO = 8
# EXIF orientations whose stored picture lies mirrored left-right, top-bottom, or on its side.
_MIRRORED_X, _MIRRORED_Y, ON_SIDE = (2, 3, 6, 7), (3, 4, 7, 8), (5, 6, 7, 8)

Array = npt.NDArray[np.float64]
Numbers = npt.ArrayLike


def xywh_to_xyxy(xywh_N4: Numbers) -> Array:
    """Return boxes given as (x, y, width, height) as (x1, y1, x2, y2)."""
    xywh = np.asarray(xywh_N4, dtype=np.float64).reshape(-1, 4)
    return np.concatenate([xywh[:, :2], xywh[:, :2] + xywh[:, 2:]], axis=1)


def clip_annotated_boxes(xywh_N4: Numbers, size_wh: Numbers) -> Array:
    """Return annotated boxes cleaned as the official data loader does.

    The far corner loses one pixel and both corners are cut to the picture's pixel centres
    (official HRNet, lib/dataset/coco.py, `_load_coco_keypoint_annotation_kernal`).

    Args:
        xywh_N4: COCO boxes (x, y, width, height) in picture pixels.
        size_wh: Picture (width, height), one for all or (N, 2).

    Returns:
        (x, y, width, height); a box with no area left has width or height 0 or below.
    """
    xywh = np.asarray(xywh_N4, dtype=np.float64).reshape(-1, 4)
    near_N2 = np.maximum(xywh[:, :2], 0)
    far_N2 = np.minimum(np.asarray(size_wh) - 1.0, near_N2 + np.maximum(0, xywh[:, 2:] - 1))
    return np.concatenate([near_N2, far_N2 - near_N2], axis=1)


def box_iou(a_N4: Numbers, b_M4: Numbers, *, legacy_pixels: bool = False) -> Array:
    """Return the intersection over union of each box of one set with each of another.

    Args:
        a_N4: Boxes (x1, y1, x2, y2).
        b_M4: Boxes (x1, y1, x2, y2).
        legacy_pixels: Count the last pixel as belonging to the box, width = x2 - x1 + 1, as the
            official lib/nms does.

    Returns:
        (N, M), 0 to 1; 0 where both boxes have no area.
    """
    a = np.asarray(a_N4, dtype=np.float64).reshape(-1, 1, 4)
    b = np.asarray(b_M4, dtype=np.float64).reshape(1, -1, 4)
    extra = 1.0 if legacy_pixels else 0.0

    def area(near: Array, far: Array) -> Array:
        return np.prod(np.maximum(far - near + extra, 0), axis=-1)

    shared = area(np.maximum(a[..., :2], b[..., :2]), np.minimum(a[..., 2:], b[..., 2:]))
    union = area(a[..., :2], a[..., 2:]) + area(b[..., :2], b[..., 2:]) - shared
    return np.divide(shared, union, out=np.zeros_like(shared), where=union > 0)


def box_nms(
    xyxy_N4: Numbers, scores_N: Numbers, threshold: float, *, legacy_pixels: bool = False
) -> npt.NDArray[np.int64]:
    """Return the boxes that survive greedy non-maximum suppression, best first.

    Args:
        xyxy_N4: Boxes.
        scores_N: Their scores; of equal scores the later box goes first, as in the official code.
        threshold: Boxes with a higher IoU with a kept one are dropped.
        legacy_pixels: See `box_iou`.
    """
    order_N = np.argsort(np.asarray(scores_N, dtype=np.float64))[::-1]
    return keep_apart(xyxy_N4, order_N, threshold, legacy_pixels=legacy_pixels)


def keep_apart(
    xyxy_N4: Numbers,
    order_N: npt.NDArray[np.int64],
    threshold: float,
    *,
    most: int | None = None,
    legacy_pixels: bool = False,
) -> npt.NDArray[np.int64]:
    """Return the indices of boxes that overlap no kept one before them above the threshold.

    Overlaps are worked out row by row, which takes little memory for thousands of boxes.

    Args:
        xyxy_N4: Boxes.
        order_N: Their indices, the one to keep first in front.
        threshold: Boxes with a higher IoU with a kept one are dropped.
        most: Most boxes kept; None for all.
        legacy_pixels: See `box_iou`.
    """
    xyxy = np.asarray(xyxy_N4, dtype=np.float64).reshape(-1, 4)
    rest_N = np.asarray(order_N, dtype=np.int64)
    kept: list[int] = []
    while len(rest_N) and (most is None or len(kept) < most):
        best, rest_N = rest_N[0], rest_N[1:]
        kept.append(int(best))
        overlap_N = box_iou(xyxy[best], xyxy[rest_N], legacy_pixels=legacy_pixels)[0]
        rest_N = rest_N[overlap_N <= threshold]
    return np.array(kept, dtype=np.int64)


def keep_greedily(overlap_NN: Array, scores_N: Array, threshold: float) -> npt.NDArray[np.int64]:
    """Return indices by falling score, each dropping those that overlap it above the threshold."""
    order = np.argsort(scores_N)[::-1]
    free_N = np.ones(len(order), dtype=bool)
    kept: list[int] = []
    for index in order:
        if free_N[index]:
            kept.append(int(index))
            free_N &= overlap_NN[index] <= threshold
    return np.array(kept, dtype=np.int64)


def crop_boxes(
    xyxy_N4: Numbers, input_hw: tuple[int, int], padding: float = 1.25
) -> tuple[Array, Array]:
    """Return centre and size of the crop for each person box.

    The box grows to the shape of the input, then by the padding (official HRNet,
    lib/dataset/coco.py, `_xywh2cs`, in pixels instead of units of 200). The official code leaves
    out the padding where the centre's x is exactly -1, which is a slip and is not repeated here.

    Args:
        xyxy_N4: Person boxes in picture pixels; may reach beyond the picture.
        input_hw: Crop (height, width).
        padding: Factor by which the crop shows more than the box.

    Returns:
        Centres (N, 2) and sizes (N, 2) as (width, height), both in picture pixels.
    """
    xyxy = np.asarray(xyxy_N4, dtype=np.float64).reshape(-1, 4)
    size_N2 = xyxy[:, 2:] - xyxy[:, :2]
    ratio = input_hw[1] / input_hw[0]
    # A box without area still gets a crop, however small: a matrix needs an inverse.
    width_N = np.maximum(np.maximum(size_N2[:, 0], size_N2[:, 1] * ratio), SMALLEST_CROP_PX)
    return xyxy[:, :2] + size_N2 / 2, np.stack([width_N, width_N / ratio], axis=1) * padding


def crop_matrices(
    centers_N2: Numbers,
    sizes_N2: Numbers,
    input_hw: tuple[int, int],
    codec: str,
    rotations_deg_N: Numbers | None = None,
) -> Array:
    """Return the affine maps from picture pixels to crop pixels.

    Args:
        centers_N2: Crop centres (x, y) in picture pixels.
        sizes_N2: Crop (width, height) in picture pixels, in the ratio of the input; must be
            above 0.
        input_hw: Crop (height, width) in its own pixels.
        codec: ``msra`` and ``dark`` map the centre to (W/2, H/2) and scale by W/width (official
            lib/utils/transforms.py, `get_affine_transform`); ``udp`` maps it to
            ((W-1)/2, (H-1)/2) and scales by (W-1)/width (UDP paper, sec. 3.2; MMPose
            `get_udp_warp_matrix`).
        rotations_deg_N: Rotation of each crop in degrees, with the sign that the reference of the
            codec gives it; None for none.

    Returns:
        (N, 2, 3) float64.
    """
    centers = np.asarray(centers_N2, dtype=np.float64).reshape(-1, 2)
    sizes = np.asarray(sizes_N2, dtype=np.float64).reshape(-1, 2)
    input_wh = np.array([input_hw[1], input_hw[0]], dtype=np.float64)
    angles_N = np.deg2rad(
        np.zeros(len(centers)) if rotations_deg_N is None else np.asarray(rotations_deg_N)
    )
    if codec == "udp":
        target_2 = (input_wh - 1) / 2
        scale_N2 = (input_wh - 1) / sizes
    else:
        target_2 = input_wh / 2
        scale_N2 = np.repeat(input_wh[:1] / sizes[:, :1], 2, axis=1)
        angles_N = -angles_N
    cos_N, sin_N = np.cos(angles_N), np.sin(angles_N)
    rotation_N22 = np.stack([cos_N, -sin_N, sin_N, cos_N], axis=1).reshape(-1, 2, 2)
    linear_N22 = scale_N2[:, :, None] * rotation_N22
    shift_N2 = target_2 - np.einsum("nij,nj->ni", linear_N22, centers)
    return np.concatenate([linear_N22, shift_N2[:, :, None]], axis=2)


def invert_affines(matrices_N23: Array) -> Array:
    """Return the inverse maps of (N, 2, 3) affine maps."""
    a_N, b_N, c_N, d_N = matrices_N23[:, :, :2].reshape(-1, 4).T
    adjugate_4N = np.stack((d_N, -b_N, -c_N, a_N))
    inverse_N22 = (adjugate_4N / (a_N * d_N - b_N * c_N)).T.reshape(-1, 2, 2)
    return np.concatenate([inverse_N22, -(inverse_N22 @ matrices_N23[:, :, 2:])], axis=2)


def apply_affines(points_NK2: Numbers, matrices_N23: Array) -> Array:
    """Return K points (x, y) of each of N people under that person's affine map."""
    points = np.asarray(points_NK2, dtype=np.float64)
    linear_N22, shift_N2 = matrices_N23[:, :, :2], matrices_N23[:, :, 2]
    return points @ linear_N22.transpose(0, 2, 1) + shift_N2[:, None]


def points_in_frame(points_NK2: Numbers, size_wh: tuple[int, int]) -> npt.NDArray[np.bool_]:
    """Return which points lie on a pixel of the picture: from -0.5 up to, not at, size - 0.5.

    Points that are no finite number lie on none.
    """
    points = np.asarray(points_NK2)
    return np.all((points >= -0.5) & (points < np.subtract(size_wh, 0.5)), axis=-1)


def warp_crops(
    image_HW3: npt.NDArray[np.uint8], image_to_crop_N23: Array, input_hw: tuple[int, int]
) -> npt.NDArray[np.uint8]:
    """Return the crops of one picture, bilinear, black beyond its border.

    Args:
        image_HW3: uint8 picture, any colour order.
        image_to_crop_N23: Affine maps from picture pixels to crop pixels.
        input_hw: Crop (height, width).

    Returns:
        (N, height, width, 3) uint8 in the colour order of the picture. Mean and standard
        deviation are the network's business, so that bytes travel, not floats.
    """
    crops_NHW3 = np.empty((len(image_to_crop_N23), *input_hw, 3), np.uint8)
    crop_to_image_N23 = invert_affines(image_to_crop_N23)
    first_N2, end_N2 = _touched_parts(image_HW3, crop_to_image_N23, input_hw)
    crop_to_part_N23 = crop_to_image_N23 - first_N2[:, :, None] * np.array([0, 0, 1])
    spans = zip(crops_NHW3, crop_to_part_N23, first_N2.tolist(), end_N2.tolist(), strict=True)
    for crop_HW3, crop_to_part_23, (x1, y1), (x2, y2) in spans:
        _warp_into(crop_HW3, image_HW3[y1:y2, x1:x2], crop_to_part_23)
    return crops_NHW3


def _warp_into(
    crop_HW3: npt.NDArray[np.uint8], part_HW3: npt.NDArray[np.uint8], crop_to_part_23: Array
) -> None:
    """Fill a crop from the part of the picture it reads, which may be empty."""
    if part_HW3.size == 0:
        crop_HW3[:] = 0
        return
    height, width = crop_HW3.shape[:2]
    flags, black = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP, cv2.BORDER_CONSTANT
    if part_HW3.size > FOUR_CHANNEL_RATIO * crop_HW3.size:
        cv2.warpAffine(
            part_HW3, crop_to_part_23, (width, height), crop_HW3, flags, borderMode=black
        )
        return
    part_HW4 = cv2.cvtColor(part_HW3, cv2.COLOR_RGB2RGBA)
    crop_HW4 = cv2.warpAffine(
        part_HW4, crop_to_part_23, (width, height), flags=flags, borderMode=black
    )
    cv2.cvtColor(crop_HW4, cv2.COLOR_RGBA2RGB, dst=crop_HW3)


def _touched_parts(
    image_HW3: npt.NDArray[np.uint8], crop_to_image_N23: Array, input_hw: tuple[int, int]
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Return the first (x, y) of the rectangle of the picture that each crop reads, and its end.

    OpenCV 4 refuses sources of 32767 pixels a side, and OpenCV 5 counts positions in float32, which
    are exact while small. One pixel of margin keeps the interpolation at the rim the same.
    """
    height, width = input_hw
    corners_42 = np.array([[0, 0], [width, 0], [0, height], [width, height]], dtype=np.float64)
    corners_N42 = np.broadcast_to(corners_42, (len(crop_to_image_N23), 4, 2))
    reached_N42 = apply_affines(corners_N42, crop_to_image_N23)
    size_2 = (image_HW3.shape[1], image_HW3.shape[0])
    first_N2 = np.clip(np.floor(reached_N42.min(axis=1)) - 1, 0, size_2)
    end_N2 = np.clip(np.ceil(reached_N42.max(axis=1)) + 2, 0, size_2)
    return first_N2.astype(np.int64), end_N2.astype(np.int64)


def as_stored(shares_NK2: Numbers, orientation_N: Numbers) -> Array:
    """Return points in shares of the upright picture as shares of the picture as stored.

    Args:
        shares_NK2: (x, y), 0 to 1.
        orientation_N: EXIF orientation of each person's photo, 1 to 8.
    """
    shares = np.asarray(shares_NK2, dtype=np.float64)
    x_NK, y_NK = shares[..., 0], shares[..., 1]
    mirrored_x_N1, mirrored_y_N1, on_side_N1 = (
        np.isin(orientation_N, which)[:, None] for which in (_MIRRORED_X, _MIRRORED_Y, ON_SIDE)
    )
    x_NK = np.where(mirrored_x_N1, 1 - x_NK, x_NK)
    y_NK = np.where(mirrored_y_N1, 1 - y_NK, y_NK)
    return np.stack([np.where(on_side_N1, y_NK, x_NK), np.where(on_side_N1, x_NK, y_NK)], axis=-1)
