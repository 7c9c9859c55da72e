"""What training minimises: the squared error of heatmaps, weighted by the labels.

Shape letters: B crops, K keypoints, H W heatmap height and width.
"""

from collections.abc import Callable

import torch

# Losses by name: `heatmap_mse` of the official code, `keypoint_mse` of MMPose, and the official
# mining of the keypoints that are off most.
LOSSES = ("mse", "keypoint-mse", "ohkm")
# The official experiments mine the eight worst keypoints (lib/config/default.py, LOSS.TOPK).
OHKM_KEYPOINTS = 8


def heatmap_mse(
    heatmaps_BKHW: torch.Tensor, targets_BKHW: torch.Tensor, weights_BK: torch.Tensor | None
) -> torch.Tensor:
    """Return half the mean squared error of weighted heatmaps, a scalar.

    The weight multiplies heatmap and target, so it enters squared, and keypoints of weight 0 still
    count in the mean (official lib/core/loss.py, `JointsMSELoss`).

    Args:
        heatmaps_BKHW: Output of the network; converted to float32, or kept in float64.
        targets_BKHW: Targets of `targets.encode`.
        weights_BK: Label weights; None counts all keypoints alike.
    """
    error = _error(heatmaps_BKHW, targets_BKHW)
    if weights_BK is not None:
        error = error * weights_BK[..., None, None]
    return 0.5 * error.square().mean()


def keypoint_mse(
    heatmaps_BKHW: torch.Tensor,
    targets_BKHW: torch.Tensor,
    weights_BK: torch.Tensor | None,
    *,
    skip_empty: bool = False,
) -> torch.Tensor:
    """Return the mean squared error with weights that count once, a scalar.

    Source: MMPose `KeypointMSELoss`.

    Args:
        heatmaps_BKHW: Output of the network.
        targets_BKHW: Targets.
        weights_BK: Label weights; None counts all keypoints alike.
        skip_empty: Leave out keypoints whose target is zero everywhere.
    """
    squares = _error(heatmaps_BKHW, targets_BKHW).square()
    if weights_BK is not None:
        squares = squares * weights_BK[..., None, None]
    if skip_empty:
        squares = squares * (targets_BKHW != 0).flatten(2).any(-1)[..., None, None]
    return squares.mean()


def ohkm_mse(
    heatmaps_BKHW: torch.Tensor,
    targets_BKHW: torch.Tensor,
    weights_BK: torch.Tensor | None,
    count: int = OHKM_KEYPOINTS,
) -> torch.Tensor:
    """Return `heatmap_mse` over the keypoints of each crop that are off most, a scalar.

    Online hard keypoint mining (CPN, CVPR 2018, sec. 3.3; official `JointsOHKMMSELoss`).

    Args:
        heatmaps_BKHW: Output of the network.
        targets_BKHW: Targets.
        weights_BK: Label weights; None counts all keypoints alike.
        count: How many keypoints of each crop count; all when there are fewer.
    """
    error = _error(heatmaps_BKHW, targets_BKHW)
    if weights_BK is not None:
        error = error * weights_BK[..., None, None]
    per_keypoint_BK = 0.5 * error.square().mean(dim=(2, 3))
    worst_BC = per_keypoint_BK.topk(min(count, per_keypoint_BK.shape[1]), dim=1).values
    return worst_BC.mean()


def _error(heatmaps_BKHW: torch.Tensor, targets_BKHW: torch.Tensor) -> torch.Tensor:
    """Return heatmaps minus targets in at least float32: squares of half floats underflow."""
    if heatmaps_BKHW.dtype != torch.float64:
        heatmaps_BKHW = heatmaps_BKHW.float()
    return heatmaps_BKHW - targets_BKHW


def loss_function(
    name: str,
) -> Callable[[torch.Tensor, torch.Tensor, torch.Tensor | None], torch.Tensor]:
    """Return the loss of a name in `LOSSES`."""
    return {"mse": heatmap_mse, "keypoint-mse": keypoint_mse, "ohkm": ohkm_mse}[name]
