"""Network architectures by the name that checkpoints record; built on demand."""

from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import nn


def _build_hrnet(width: int, keypoints: int) -> "nn.Module":
    from hrnet_cli.models.hrnet import HRNet

    return HRNet(width, keypoints)


# Each builder takes the width (channels of the finest branch) and the number of keypoints.
MODELS: "dict[str, Callable[[int, int], nn.Module]]" = {
    "hrnet": _build_hrnet,
}
