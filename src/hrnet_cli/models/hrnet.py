"""HRNet for pose estimation: one branch stays at stride 4 from the stem to the heatmaps.

Sun et al., Deep High-Resolution Representation Learning for Human Pose Estimation, CVPR 2019,
section 3 (https://arxiv.org/abs/1902.09212). Branch b (0 is the finest) works at stride 4 * 2^b
with width * 2^b channels; W32 and W48 of the paper are widths 32 and 48.

Names and order of the parameters are those of the official ``pose_hrnet.py``, so that its weights
load unchanged. It leaves list slots that need no layer empty; here they hold ``nn.Identity``,
which has no parameters either.

Shape letters: B crops, K keypoints, C channels, H W height and width.
"""

from collections.abc import Sequence

import torch
from torch import nn

from hrnet_cli.config import INPUT_MULTIPLE

STEM_CHANNELS = 64
# Multi-resolution modules in stages 2, 3 and 4 (paper, section 3, "Network instantiation").
STAGE_MODULES = {2: 1, 3: 4, 4: 3}
BLOCKS_PER_BRANCH = 4
# Standard deviation of fresh convolutions (official lib/models/pose_hrnet.py, init_weights).
INIT_STD = 0.001


class HRNet(nn.Module):
    """Pose HRNet of any width, for any number of keypoints.

    Args:
        width: Channels of the finest branch.
        keypoints: Heatmaps per crop.
    """

    def __init__(self, width: int, keypoints: int) -> None:
        super().__init__()
        branch_channels = [width, 2 * width, 4 * width, 8 * width]
        # Stem and stage 1 (paper, section 3): two strided convolutions, then four bottlenecks.
        self.conv1 = _conv3x3(3, STEM_CHANNELS, stride=2)
        self.bn1 = nn.BatchNorm2d(STEM_CHANNELS)
        self.conv2 = _conv3x3(STEM_CHANNELS, STEM_CHANNELS, stride=2)
        self.bn2 = nn.BatchNorm2d(STEM_CHANNELS)
        self.relu = nn.ReLU(inplace=True)
        self.layer1 = _stage1()
        self.transition1 = nn.ModuleList(
            [
                _conv_bn_relu(Bottleneck.out_channels, branch_channels[0]),
                _new_branch(Bottleneck.out_channels, branch_channels[1]),
            ]
        )
        self.stage2 = _stage(2, branch_channels)
        self.transition2 = _transition(branch_channels[:3])
        self.stage3 = _stage(3, branch_channels)
        self.transition3 = _transition(branch_channels)
        self.stage4 = _stage(4, branch_channels)
        self.final_layer = nn.Conv2d(width, keypoints, kernel_size=1)
        self.apply(_init_weights)

    def forward(self, pixels_B3HW: torch.Tensor) -> torch.Tensor:
        """Return the heatmaps of normalised crops.

        Args:
            pixels_B3HW: RGB crops, normalised with the mean and standard deviation the weights
                were trained with; H and W multiples of 32.

        Returns:
            Heatmaps (B, K, H/4, W/4), unbounded; a trained network peaks near 1.

        Raises:
            ValueError: H or W is not a multiple of 32.
        """
        height, width = pixels_B3HW.shape[-2:]
        if height % INPUT_MULTIPLE or width % INPUT_MULTIPLE:
            raise ValueError(
                f"pixels_B3HW: crop of {height}x{width} (height x width), expected multiples of"
                f" {INPUT_MULTIPLE}: the coarsest of the four branches has stride {INPUT_MULTIPLE}"
            )
        return self.heatmaps(pixels_B3HW)

    def heatmaps(self, pixels_B3HW: torch.Tensor) -> torch.Tensor:
        """Return what `forward` does, without a look at the size: layers and sums only."""
        x = self.relu(self.bn1(self.conv1(pixels_B3HW)))
        x = self.relu(self.bn2(self.conv2(x)))
        x = self.layer1(x)
        branches = self.stage2([branch(x) for branch in self.transition1])
        branches = self.stage3(_widen(self.transition2, branches))
        branches = self.stage4(_widen(self.transition3, branches))
        return self.final_layer(branches[0])


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut; channels and size stay (ResNet, CVPR 2016, fig. 5)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = _conv3x3(channels, channels)
        self.bn1 = nn.BatchNorm2d(channels)
        self.relu = nn.ReLU(inplace=True)
        self.conv2 = _conv3x3(channels, channels)
        self.bn2 = nn.BatchNorm2d(channels)

    def forward(self, x_BCHW: torch.Tensor) -> torch.Tensor:
        """Return features of the same shape."""
        y = self.relu(self.bn1(self.conv1(x_BCHW)))
        y = self.bn2(self.conv2(y))
        return self.relu(y + x_BCHW)


class Bottleneck(nn.Module):
    """1x1, 3x3 and 1x1 convolutions and a shortcut, to 256 channels (ResNet, fig. 5 right)."""

    inner_channels = 64
    out_channels = 256

    def __init__(self, in_channels: int) -> None:
        super().__init__()
        inner, out = self.inner_channels, self.out_channels
        self.conv1 = nn.Conv2d(in_channels, inner, kernel_size=1, bias=False)
        self.bn1 = nn.BatchNorm2d(inner)
        self.conv2 = _conv3x3(inner, inner)
        self.bn2 = nn.BatchNorm2d(inner)
        self.conv3 = nn.Conv2d(inner, out, kernel_size=1, bias=False)
        self.bn3 = nn.BatchNorm2d(out)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = nn.Identity() if in_channels == out else _conv1x1_bn(in_channels, out)

    def forward(self, x_BCHW: torch.Tensor) -> torch.Tensor:
        """Return features of 256 channels, height and width as before."""
        y = self.relu(self.bn1(self.conv1(x_BCHW)))
        y = self.relu(self.bn2(self.conv2(y)))
        y = self.bn3(self.conv3(y))
        return self.relu(y + self.downsample(x_BCHW))


class HighResolutionModule(nn.Module):
    """Residual blocks on each branch, then an exchange between all of them (paper, section 3).

    Args:
        branch_channels: Channels of its branches, finest first.
        outputs: How many branches to return, finest first; the last module of the network
            needs only the finest.
    """

    def __init__(self, branch_channels: Sequence[int], outputs: int) -> None:
        super().__init__()
        self.branches = nn.ModuleList(
            nn.Sequential(*(BasicBlock(channels) for _ in range(BLOCKS_PER_BRANCH)))
            for channels in branch_channels
        )
        self.fuse_layers = nn.ModuleList(
            Exchange(branch_channels, target) for target in range(outputs)
        )
        self.relu = nn.ReLU(inplace=True)

    def forward(self, branches: list[torch.Tensor]) -> list[torch.Tensor]:
        """Return the exchanged feature maps, finest first, each (B, C, H, W) of its branch."""
        features = [blocks(x) for blocks, x in zip(self.branches, branches, strict=True)]
        return [self.relu(exchange(features)) for exchange in self.fuse_layers]


class Exchange(nn.ModuleList):
    """Brings the features of all branches to the size of one of them and adds them up.

    Args:
        branch_channels: Channels of the branches, finest first.
        target: The branch to bring them to.
    """

    def __init__(self, branch_channels: Sequence[int], target: int) -> None:
        sources = range(len(branch_channels))
        super().__init__(_exchange(branch_channels, source, target) for source in sources)

    def forward(self, features: list[torch.Tensor]) -> torch.Tensor:
        """Return the sum (B, C, H, W), added finest first like the official code."""
        total, *others = (layer(x) for layer, x in zip(self, features, strict=True))
        for exchanged in others:
            total = total + exchanged
        return total


def _stage1() -> nn.Sequential:
    channels = Bottleneck.out_channels
    return nn.Sequential(Bottleneck(STEM_CHANNELS), *(Bottleneck(channels) for _ in range(3)))


def _stage(number: int, branch_channels: Sequence[int]) -> nn.Sequential:
    """Return stage 2, 3 or 4: modules over as many branches as its number."""
    channels = branch_channels[:number]
    modules = [HighResolutionModule(channels, outputs=number) for _ in range(STAGE_MODULES[number])]
    if number == 4:
        modules[-1] = HighResolutionModule(channels, outputs=1)
    return nn.Sequential(*modules)


def _transition(branch_channels: Sequence[int]) -> nn.ModuleList:
    """Return the layers that add the last of these branches and keep the others."""
    kept = [nn.Identity() for _ in branch_channels[:-1]]
    return nn.ModuleList([*kept, _new_branch(branch_channels[-2], branch_channels[-1])])


def _widen(transition: nn.ModuleList, branches: list[torch.Tensor]) -> list[torch.Tensor]:
    """Return the branches and one more, grown from the coarsest of them."""
    sources = [*branches, branches[-1]]
    return [layer(x) for layer, x in zip(transition, sources, strict=True)]


def _exchange(branch_channels: Sequence[int], source: int, target: int) -> nn.Module:
    """Return the layer that carries features from one branch to another (paper, fig. 3).

    To a finer branch: a 1x1 convolution and nearest-neighbour upsampling. To a coarser one: a
    strided 3x3 convolution for each halving, all but the last with ReLU.
    """
    in_channels, out_channels = branch_channels[source], branch_channels[target]
    if source == target:
        return nn.Identity()
    if source > target:
        upsample = nn.Upsample(scale_factor=2 ** (source - target), mode="nearest")
        return nn.Sequential(*_conv1x1_bn(in_channels, out_channels), upsample)
    halvings = [
        _conv_bn_relu(in_channels, in_channels, stride=2) for _ in range(source, target - 1)
    ]
    last = nn.Sequential(
        _conv3x3(in_channels, out_channels, stride=2), nn.BatchNorm2d(out_channels)
    )
    return nn.Sequential(*halvings, last)


def _new_branch(in_channels: int, out_channels: int) -> nn.Sequential:
    # Nested once more than needed: part of the official parameter names.
    return nn.Sequential(_conv_bn_relu(in_channels, out_channels, stride=2))


def _conv_bn_relu(in_channels: int, out_channels: int, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(
        _conv3x3(in_channels, out_channels, stride),
        nn.BatchNorm2d(out_channels),
        nn.ReLU(inplace=True),
    )


def _conv1x1_bn(in_channels: int, out_channels: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(in_channels, out_channels, kernel_size=1, bias=False),
        nn.BatchNorm2d(out_channels),
    )


def _conv3x3(in_channels: int, out_channels: int, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(in_channels, out_channels, kernel_size=3, stride=stride, padding=1, bias=False)


def _init_weights(module: nn.Module) -> None:
    """Initialise like the official code; batch norms start at 1 and 0 by themselves."""
    if isinstance(module, nn.Conv2d):
        nn.init.normal_(module.weight, std=INIT_STD)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
