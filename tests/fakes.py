"""Stand-ins for networks whose answer is known."""

import numpy as np

from builders import encode_targets
from hrnet_cli.config import ModelSpec
from hrnet_cli.schema import load_schema

SIGMA = 2.0  # of target heatmaps, in their pixels (official HRNet at 256x192)


def make_spec(codec="udp", input_hw=(128, 96), schema="coco17") -> ModelSpec:
    return ModelSpec(f"fake-{codec}", 4, input_hw, codec, load_schema(schema))


class SpotNetwork:
    """An ideal network: every keypoint's heatmap is the target of the crop's bright spot.

    With ``pair``, two keypoint numbers, the first is the spot furthest left in the crop and the
    second the one furthest right; such a network takes a mirrored left for a right.
    """

    name = "fake"
    tolerance = 0.0

    def __init__(self, spec: ModelSpec, pair: tuple[int, int] | None = None) -> None:
        self.spec = spec
        self.pair = pair
        self.batches: list[int] = []

    def __call__(self, crops_BHW3: np.ndarray) -> np.ndarray:
        height, width = self.spec.input_hw
        assert crops_BHW3.shape[1:] == (height, width, 3)
        assert crops_BHW3.dtype == np.uint8
        self.batches.append(len(crops_BHW3))
        keypoints = len(self.spec.schema)
        points_BK2 = np.array([self._points(crop) for crop in crops_BHW3]).reshape(-1, keypoints, 2)
        visible_BK = np.all(np.isfinite(points_BK2), axis=-1)
        # The targets of msra stand on whole pixels; what a network trained on them gives does not.
        codec = "udp" if self.spec.codec == "udp" else "dark"
        targets, _ = encode_targets(
            np.nan_to_num(points_BK2), visible_BK, self.spec.input_hw, codec, SIGMA
        )
        return targets

    def _points(self, crop_HW3: np.ndarray) -> np.ndarray:
        """Return (K, 2) crop pixels, not-a-number where the crop is dark."""
        weights_HW = crop_HW3.mean(axis=2)
        points_K2 = np.tile(_centroid(weights_HW), (len(self.spec.schema), 1))
        if self.pair is not None:
            middle = np.nan_to_num(points_K2[0, 0])
            columns_W = np.arange(weights_HW.shape[1])
            for keypoint, side_W in zip(
                self.pair, (columns_W < middle, columns_W > middle), strict=True
            ):
                points_K2[keypoint] = _centroid(weights_HW * side_W)
        return points_K2


def _centroid(weights_HW: np.ndarray) -> np.ndarray:
    rows_HW, columns_HW = np.indices(weights_HW.shape)
    total = weights_HW.sum()
    if total == 0:
        return np.full(2, np.nan)
    return np.array([(columns_HW * weights_HW).sum(), (rows_HW * weights_HW).sum()]) / total


def photo_with_spots(size_wh: tuple[int, int], *spots_xy: tuple[float, float]) -> np.ndarray:
    """Return a black picture (H, W, 3) with round soft spots of 4 pixels radius."""
    width, height = size_wh
    rows_HW, columns_HW = np.mgrid[:height, :width]
    grey_HW = np.zeros((height, width))
    for x, y in spots_xy:
        squared_HW = (columns_HW - x) ** 2 + (rows_HW - y) ** 2
        grey_HW += np.where(squared_HW < 12**2, 250 * np.exp(-squared_HW / (2 * 4**2)), 0)
    return np.repeat(np.round(grey_HW).astype(np.uint8)[..., None], 3, axis=2)
