"""Heatmap codecs: heatmaps -> keypoints. The other half, targets for training, is `targets.encode`.

The conventions:

- ``msra``: targets centred on whole heatmap pixels; a quarter pixel towards the larger neighbour
  when decoding (official HRNet, lib/dataset/JointsDataset.py and lib/core/inference.py).
- ``dark``: targets centred where the keypoint is; decoding by a second-order expansion of the
  log of the blurred heatmap (DARK, CVPR 2020, sec. 3; MMPose ``MSRAHeatmap`` with unbiased=True).
- ``udp``: as ``dark`` with other stencils, on a grid that spans pixel centres (UDP, CVPR 2020;
  MMPose ``UDPHeatmap``).

Only a small square around each peak decides where the keypoint is (`read_squares`), so that a GPU
hands over these and not the heatmaps.

All functions are pure. Shape letters: N people, K keypoints, H W heatmap height and width, M = N*K,
R rows and columns of a square.
"""

import functools
from collections.abc import Sequence

import cv2
import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]
Doubles = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

STRIDE = 4
# Published settings: an 11-pixel blur for heatmaps of 64 rows, 17 for 96; in proportion otherwise.
BLUR_KERNEL_AT_64_ROWS = 11


def heatmap_grid_step(input_hw: tuple[int, int], codec: str) -> npt.NDArray[np.float64]:
    """Return the crop pixels (x, y) between neighbouring heatmap pixels.

    4 for ``msra`` and ``dark``; (input - 1) / (heatmap - 1) for ``udp``, whose first and last
    heatmap pixels lie on the first and last crop pixels.
    """
    input_wh = np.array([input_hw[1], input_hw[0]], dtype=np.float64)
    heatmap_wh = input_wh / STRIDE
    return (input_wh - 1) / (heatmap_wh - 1) if codec == "udp" else input_wh / heatmap_wh


def decode(
    heatmaps_NKHW: Floats,
    codec: str,
    input_hw: tuple[int, int],
    blur_kernel: int | None = None,
    *,
    bounded: bool = False,
) -> tuple[Floats, Floats]:
    """Return the keypoints that heatmaps show.

    Args:
        heatmaps_NKHW: float32 heatmaps.
        codec: The convention the network was trained with.
        input_hw: Crop (height, width).
        blur_kernel: Odd width in heatmap pixels of the blur of ``dark`` and ``udp``; None for the
            published width in proportion to the heatmap.
        bounded: Keep to the peak where refining it leads out of the heatmap: on flat or saddle-
            shaped heatmaps the parabola of ``dark`` and ``udp`` has its extremum anywhere, often
            thousands of pixels away, where the reference implementations put the keypoint.

    Returns:
        Keypoints (N, K, 2) as (x, y) in crop pixels of the codec's own crop, and scores (N, K):
        the highest value of each heatmap, before blurring, about 0 to 1 and not clipped. A
        heatmap without a value above 0 gives the point (0, 0).
    """
    size_hw = heatmaps_NKHW.shape[2], heatmaps_NKHW.shape[3]
    kernel = blur_kernel if blur_kernel is not None else default_blur_kernel(size_hw[0])
    peaks_NK2, scores_NK = find_peaks(heatmaps_NKHW)
    squares_NKRR = read_squares(heatmaps_NKHW, peaks_NK2, square_reach(codec, kernel))
    refined_NK2 = refine(squares_NKRR, peaks_NK2, size_hw, codec, kernel, bounded=bounded)
    return (refined_NK2 * heatmap_grid_step(input_hw, codec)).astype(np.float32), scores_NK


def square_reach(codec: str, blur_kernel: int) -> int:
    """Return how far from a peak `refine` reads, in heatmap pixels."""
    return 1 if codec == "msra" else blur_kernel // 2 + (2 if codec == "dark" else 1)


def read_squares(heatmaps_NKHW: Floats, pixels_NK2: Ints, reach: int) -> Floats:
    """Return the values in a square around one pixel of each heatmap, 0 beyond its rims.

    Args:
        heatmaps_NKHW: Heatmaps.
        pixels_NK2: Pixels (x, y) inside them.
        reach: Pixels from the middle of the square to its side.

    Returns:
        (N, K, R, R) with R = 2 * reach + 1.
    """
    height, width = heatmaps_NKHW.shape[2:]
    read = np.arange(-reach, reach + 1)
    x_NKR, y_NKR = pixels_NK2[..., :1] + read, pixels_NK2[..., 1:] + read
    columns_NKR, rows_NKR = np.clip(x_NKR, 0, width - 1), np.clip(y_NKR, 0, height - 1)
    starts_NKR = _first_pixels(heatmaps_NKHW)[..., None] + rows_NKR * width
    squares_NKRR = np.ravel(heatmaps_NKHW)[starts_NKR[..., None] + columns_NKR[..., None, :]]
    squares_NKRR *= (y_NKR == rows_NKR)[..., None] & (x_NKR == columns_NKR)[..., None, :]
    return squares_NKRR


def refine(
    squares_NKRR: Floats,
    peaks_NK2: Ints,
    size_hw: tuple[int, int],
    codec: str,
    blur_kernel: int,
    *,
    bounded: bool,
) -> Floats:
    """Return peaks moved to where the keypoint is, as the codec says.

    Args:
        squares_NKRR: Of `read_squares` around the peaks, with the reach of `square_reach`.
        peaks_NK2: Of `find_peaks`.
        size_hw: Heatmap (height, width).
        codec: See `decode`.
        blur_kernel: See `decode`.
        bounded: See `decode`.

    Returns:
        (N, K, 2) as (x, y) in heatmap pixels.
    """
    if codec == "msra":
        refined_NK2 = refine_quarter(squares_NKRR, peaks_NK2, size_hw)
    elif codec == "dark":
        refined_NK2 = refine_dark(squares_NKRR, peaks_NK2, size_hw, blur_kernel)
    else:
        refined_NK2 = refine_udp(squares_NKRR, peaks_NK2, size_hw, blur_kernel)
    return _inside(refined_NK2, peaks_NK2, size_hw) if bounded else refined_NK2


def default_blur_kernel(heatmap_rows: int) -> int:
    """Return the odd blur width that stands to the heatmap as the published ones do."""
    return 2 * round((BLUR_KERNEL_AT_64_ROWS * heatmap_rows / 64 - 1) / 2) + 1


def find_peaks(heatmaps_NKHW: Floats) -> tuple[Ints, Floats]:
    """Return the highest pixel of each heatmap and its value.

    Returns:
        Pixels (N, K, 2) as (x, y), the first in reading order of equal ones and (0, 0) where no
        value is above 0 (official `get_max_preds`); values (N, K).
    """
    people, keypoints, height, width = heatmaps_NKHW.shape
    maps_MP = heatmaps_NKHW.reshape(people * keypoints, height * width)
    index_M = maps_MP.argmax(axis=1)
    scores_M = maps_MP[np.arange(len(maps_MP)), index_M]
    rows_M, columns_M = np.divmod(index_M * (scores_M > 0), width)
    peaks_M2 = np.stack((columns_M, rows_M), axis=-1)
    return peaks_M2.reshape(people, keypoints, 2), scores_M.reshape(people, keypoints)


def refine_quarter(squares_NK33: Floats, peaks_NK2: Ints, size_hw: tuple[int, int]) -> Floats:
    """Return peaks moved a quarter pixel towards the larger neighbour on each axis.

    Peaks within one pixel of the near rims or on the far rims stay, on both axes (official
    lib/core/inference.py, `get_final_preds`).
    """
    height, width = size_hw
    x_NK, y_NK = peaks_NK2[..., 0], peaks_NK2[..., 1]
    inner_NK = (x_NK > 1) & (x_NK < width - 1) & (y_NK > 1) & (y_NK < height - 1)
    slopes_NK2 = np.stack(
        [
            squares_NK33[..., 1, 2] - squares_NK33[..., 1, 0],
            squares_NK33[..., 2, 1] - squares_NK33[..., 0, 1],
        ],
        axis=-1,
    )
    steps_NK2 = np.sign(slopes_NK2) * (np.float32(0.25) * inner_NK)[..., None]
    return peaks_NK2.astype(np.float32) + steps_NK2


def refine_dark(
    squares_NKRR: Floats, peaks_NK2: Ints, size_hw: tuple[int, int], blur_kernel: int
) -> Floats:
    """Return peaks moved to the maximum of a parabola through the log of the blurred heatmap.

    Derivatives over two pixels; peaks within two pixels of a rim stay (DARK, CVPR 2020, eq. 9;
    MMPose `refine_keypoints_dark`). The reference first scales each blurred heatmap to its old
    peak, a constant after the log, which no derivative sees.
    """
    height, width = size_hw
    x_NK, y_NK = peaks_NK2[..., 0], peaks_NK2[..., 1]
    inner_NK = (x_NK > 1) & (x_NK < width - 2) & (y_NK > 1) & (y_NK < height - 2)
    blurred = blur_around(squares_NKRR, peaks_NK2, size_hw, blur_kernel)
    logs_NKSS = np.log(np.maximum(blurred, 1e-10))

    def value(dx: int, dy: int) -> Doubles:
        return logs_NKSS[..., 2 + dy, 2 + dx]

    center = value(0, 0)
    gradient = np.stack([value(1, 0) - value(-1, 0), value(0, 1) - value(0, -1)], axis=-1) / 2
    xx = (value(2, 0) - 2 * center + value(-2, 0)) / 4
    yy = (value(0, 2) - 2 * center + value(0, -2)) / 4
    xy = (value(1, 1) - value(1, -1) - value(-1, 1) + value(-1, -1)) / 4
    offsets_NK2 = _newton_step(gradient, xx, xy, yy)
    return (peaks_NK2 + offsets_NK2 * inner_NK[..., None]).astype(np.float32)


def refine_udp(
    squares_NKRR: Floats, peaks_NK2: Ints, size_hw: tuple[int, int], blur_kernel: int
) -> Floats:
    """Return peaks moved like `refine_dark`, with UDP's one-pixel stencils and up to the rims.

    The log is taken of values limited to 0.001..50, the rims are repeated outwards and a small
    number is added to the diagonal of the Hessian (MMPose `refine_keypoints_dark_udp`). Before the
    limits each blurred heatmap is scaled to its old peak; its new peak is looked for beside the
    old one only, which differs from the reference on heatmaps of noise about 0.003 high. A heatmap
    without a value above 0 gives (0, 0).
    """
    middle = squares_NKRR.shape[-1] // 2
    peak_values_NK = squares_NKRR[..., middle, middle]
    blurred = blur_around(squares_NKRR, peaks_NK2, size_hw, blur_kernel)
    scale_NK = peak_values_NK / (blurred.max(axis=(2, 3)) + 1e-12)
    limited = np.clip(blurred * scale_NK[..., None, None], 1e-3, 50)
    logs_NKSS = np.log(limited)

    def value(dx: int, dy: int) -> Doubles:
        return logs_NKSS[..., 1 + dy, 1 + dx]

    center = value(0, 0)
    left, right, up, down = value(-1, 0), value(1, 0), value(0, -1), value(0, 1)
    gradient = np.stack([right - left, down - up], axis=-1) / 2
    tiny = np.finfo(np.float32).eps
    xx = right - 2 * center + left + tiny
    yy = down - 2 * center + up + tiny
    xy = (value(1, 1) - right - down + 2 * center - left - up + value(-1, -1)) / 2
    refined_NK2 = (peaks_NK2 + _newton_step(gradient, xx, xy, yy)).astype(np.float32)
    return refined_NK2 * (peak_values_NK > 0)[..., None]


def blur_around(
    squares_NKRR: Floats, pixels_NK2: Ints, size_hw: tuple[int, int], kernel: int
) -> Doubles:
    """Return the values a Gaussian blur gives in the middle of squares of heatmaps.

    A small share of the work of blurring whole heatmaps. They are zero beyond their rims while
    blurring; in the result the blurred rim is repeated outwards.

    Args:
        squares_NKRR: Of `read_squares`, with a reach of at least half the kernel.
        pixels_NK2: Pixels (x, y) in the middle of the squares.
        size_hw: Heatmap (height, width).
        kernel: Odd width of the blur in pixels; OpenCV's rule gives the standard deviation.

    Returns:
        (N, K, S, S) with S = R - kernel + 1.
    """
    height, width = size_hw
    people, keypoints, read = squares_NKRR.shape[:3]
    side = read - kernel + 1
    reach = side // 2
    # Doubles, so that a result does not depend on how many heatmaps share the product.
    flat_NKR = squares_NKRR.reshape(people, keypoints, read**2).astype(np.float64)
    blurred_NKSS = (flat_NKR @ _blur_weights(kernel, side)).reshape(people, keypoints, side, side)
    x_NK1, y_NK1 = pixels_NK2[..., :1], pixels_NK2[..., 1:]
    near: Ints = np.arange(-reach, reach + 1, dtype=np.int64)
    from_column_NKS: Ints = np.clip(x_NK1 + near, 0, width - 1) - x_NK1 + reach
    from_row_NKS: Ints = np.clip(y_NK1 + near, 0, height - 1) - y_NK1 + reach
    by_row = np.take_along_axis(blurred_NKSS, from_row_NKS[..., None], axis=2)
    return np.take_along_axis(by_row, from_column_NKS[..., None, :], axis=3)


@functools.cache
def _blur_weights(kernel: int, side: int) -> Doubles:
    """Return the matrix that blurs a flat square of side + kernel - 1 pixels to one of side."""
    profile = cv2.getGaussianKernel(kernel, 0).ravel()
    band = np.zeros((side, side + kernel - 1), np.float64)
    for row in range(side):
        band[row, row : row + kernel] = profile
    return np.kron(band, band).T.astype(np.float64)


def flip_heatmaps(heatmaps_NKHW: Floats, flip_indices: Sequence[int]) -> Floats:
    """Return heatmaps of mirrored crops turned back: mirrored, left and right exchanged."""
    return heatmaps_NKHW[:, list(flip_indices), :, ::-1]


def flip_merge(
    heatmaps_NKHW: Floats, mirrored_NKHW: Floats, flip_indices: Sequence[int], codec: str
) -> Floats:
    """Return the mean of the heatmaps of crops and of their mirror images (the flip test).

    Args:
        heatmaps_NKHW: Heatmaps of the crops.
        mirrored_NKHW: Heatmaps the network gave for the mirrored crops.
        flip_indices: `KeypointSchema.flip_indices`.
        codec: The heatmaps of ``msra`` and ``dark`` are off by one column after turning back,
            since a stride-4 grid is not symmetric in the crop, and are shifted (official
            SHIFT_HEATMAP); those of ``udp`` are not.
    """
    turned_NKHW = flip_heatmaps(mirrored_NKHW, flip_indices)
    if codec != "udp":
        turned_NKHW = np.concatenate([turned_NKHW[..., :1], turned_NKHW[..., :-1]], axis=-1)
    return (heatmaps_NKHW + turned_NKHW) * np.float32(0.5)


def _inside(refined_NK2: Floats, peaks_NK2: Ints, size_hw: tuple[int, ...]) -> Floats:
    """Return the refined peaks, and the peak itself where refining left the heatmap."""
    far_2 = np.array(size_hw[::-1]) - 0.5
    outside_NK = np.any((refined_NK2 < -0.5) | (refined_NK2 > far_2), axis=-1)
    return np.where(outside_NK[..., None], peaks_NK2.astype(np.float32), refined_NK2)


def _first_pixels(heatmaps_NKHW: Floats) -> Ints:
    """Return where each heatmap begins among the pixels of all."""
    people, keypoints, height, width = heatmaps_NKHW.shape
    maps: Ints = np.arange(people * keypoints, dtype=np.int64)
    return maps.reshape(people, keypoints) * (height * width)


def _newton_step(
    gradient_NK2: npt.NDArray[np.floating],
    xx: npt.NDArray[np.floating],
    xy: npt.NDArray[np.floating],
    yy: npt.NDArray[np.floating],
) -> npt.NDArray[np.floating]:
    """Return -inverse(Hessian) @ gradient, 0 where the Hessian has no inverse."""
    determinant = xx * yy - xy * xy
    usable = determinant != 0
    divisor = np.where(usable, determinant, 1)
    x, y = gradient_NK2[..., 0], gradient_NK2[..., 1]
    step = np.stack([(xy * y - yy * x) / divisor, (xy * x - xx * y) / divisor], axis=-1)
    return np.where(usable[..., None] & np.isfinite(step), step, np.float32(0))
