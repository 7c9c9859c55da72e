"""What every runtime does around the network: check the crops, share them out in batches.

Shape letters: B crops, K keypoints, H W crop height and width.
"""

from collections.abc import Callable, Iterator

import numpy as np

from hrnet_cli.config import ModelSpec
from hrnet_cli.heatmap import STRIDE

# More crops at once gain nothing on a processor, and every size of batch is prepared once.
LARGEST_BATCH = 32


def run_in_batches(
    crops_BHW3: np.ndarray,
    spec: ModelSpec,
    compute: Callable[[np.ndarray], np.ndarray],
    fixed_batch: int | None = None,
) -> np.ndarray:
    """Return the heatmaps of crops, computed in batches of few different sizes.

    Engines prepare themselves for each new size of batch, which takes longer than computing it.
    Parts of 1, 2, 4, ... crops keep the sizes few, and no crop is computed for nothing.

    Args:
        crops_BHW3: uint8 RGB crops of the model's input size; B may be 0.
        spec: The model.
        compute: Returns the float32 heatmaps of a contiguous batch that is not empty.
        fixed_batch: The only size that the network takes, where it has one; the last batch is
            filled up with black crops.

    Returns:
        float32 (B, K, H/4, W/4).

    Raises:
        ValueError: The crops have another type or size.
    """
    check_crops(crops_BHW3, spec)
    heatmaps = [no_heatmaps(spec)]
    for start, size in split_batch(len(crops_BHW3), fixed_batch):
        part = np.ascontiguousarray(crops_BHW3[start : start + size])
        wanted = len(part)
        if fixed_batch is not None and wanted < size:
            part = np.concatenate([part, np.zeros((size - wanted, *part.shape[1:]), np.uint8)])
        heatmaps.append(compute(part)[:wanted])
    return heatmaps[1] if len(heatmaps) == 2 else np.concatenate(heatmaps)


def split_batch(count: int, fixed_batch: int | None = None) -> Iterator[tuple[int, int]]:
    """Yield start and size of the batches that crops are shared out in, as `run_in_batches`."""
    start = 0
    while start < count:
        rest = min(count - start, LARGEST_BATCH)
        size = fixed_batch or 1 << (rest.bit_length() - 1)
        yield start, size
        start += size


def check_crops(crops_BHW3: np.ndarray, spec: ModelSpec) -> None:
    """Raise ValueError when crops are not uint8 RGB of the model's input size."""
    height, width = spec.input_hw
    if crops_BHW3.shape[1:] != (height, width, 3) or crops_BHW3.dtype != np.uint8:
        raise ValueError(
            f"crops_BHW3: expected (B, {height}, {width}, 3) uint8,"
            f" got {crops_BHW3.shape} {crops_BHW3.dtype}"
        )


def no_heatmaps(spec: ModelSpec) -> np.ndarray:
    """Return the heatmaps of nobody, (0, K, H/4, W/4)."""
    height, width = spec.input_hw
    return np.zeros((0, len(spec.schema), height // STRIDE, width // STRIDE), np.float32)
