"""Keypoints -> target heatmaps: the training half of the heatmap codecs, on any device.

The other half, heatmaps -> keypoints, is `heatmap.decode`. It stands apart because targets are made
with torch, in batches on the device that trains, and reading heatmaps must not need torch.

Shape letters: B crops, K keypoints, H W heatmap height and width.
"""

import torch

from hrnet_cli.heatmap import STRIDE, heatmap_grid_step

# Targets reach three sigmas (official lib/dataset/JointsDataset.py, `generate_target`).
RADIUS_SIGMAS = 3


def encode(
    keypoints_BK2: torch.Tensor,
    visible_BK: torch.Tensor,
    input_hw: tuple[int, int],
    codec: str,
    sigma: float,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the target heatmaps and weights of keypoints.

    Args:
        keypoints_BK2: Keypoints (x, y) in crop pixels of the codec's own crop; float32 or float64,
            which is also the precision of the work.
        visible_BK: Label weight of each keypoint, 0 for unlabelled. Above one half a Gaussian is
            drawn; the weight itself is passed on, as the references do.
        input_hw: Crop (height, width).
        codec: One of `config.CODECS`. ``msra``: Gaussians on whole heatmap pixels in a window of
            three sigmas (official `generate_target`). ``dark``: where the keypoint is, without a
            window (DARK, CVPR 2020, sec. 3.2; MMPose ``MSRAHeatmap`` with unbiased=True).
            ``udp``: where the keypoint is, in the window, on a grid that spans pixel centres
            (UDP, CVPR 2020; MMPose ``UDPHeatmap``).
        sigma: Standard deviation of the Gaussian in heatmap pixels (official: 2 at 256x192, 3 at
            384x288).

    Returns:
        float32 targets (B, K, H, W) with peak 1, and float32 weights (B, K): the visibility, or 0
        where the Gaussian's window lies outside the heatmap. The window is that of the reference,
        which counts one row and column before the first as inside.
    """
    height, width = input_hw[0] // STRIDE, input_hw[1] // STRIDE
    step_2 = keypoints_BK2.new_tensor(heatmap_grid_step(input_hw, codec).tolist())
    points_BK2 = keypoints_BK2 / step_2
    radius = RADIUS_SIGMAS * sigma
    # Truncation towards zero, as int() in the official code: -0.7 belongs to column 0.
    cells_BK2 = torch.trunc(points_BK2 + 0.5)
    window_centers_BK2 = points_BK2 if codec == "dark" else cells_BK2
    size_2 = points_BK2.new_tensor([width, height])
    outside_BK = (window_centers_BK2 - radius >= size_2).any(-1) | (
        window_centers_BK2 + radius + 1 < 0
    ).any(-1)
    labelled_BK = visible_BK > 0.5 if codec == "msra" else visible_BK >= 0.5
    peaks_BK2 = cells_BK2 if codec == "msra" else points_BK2
    profiles: list[torch.Tensor] = []
    for axis, length in ((0, width), (1, height)):
        grid = torch.arange(length, device=points_BK2.device, dtype=points_BK2.dtype)
        profile = torch.exp(-((grid - peaks_BK2[..., axis, None]) ** 2) / (2 * sigma**2))
        if codec != "dark":
            profile = profile * ((grid - cells_BK2[..., axis, None]).abs() <= radius)
        profiles.append(profile)
    profiles[0] = profiles[0] * (labelled_BK & ~outside_BK)[..., None]
    targets_BKHW = profiles[1][..., :, None] * profiles[0][..., None, :]
    return targets_BKHW.float(), visible_BK.float().masked_fill(outside_BK, 0)
