"""From photos to keypoints on a GPU: photos go there, small squares of heatmaps come back.

Crops of uint8 photos, the network, the flip test and the search for peaks run one after the other
on the device, and nothing is fetched in between; what `heatmap.refine` reads, about a fourteenth of
the heatmaps, comes back at the end.

Shape letters: B crops, K keypoints, H W height and width, R rows and columns of a square.
"""

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch.nn import functional

from hrnet_cli import geometry, heatmap
from hrnet_cli.config import ModelSpec
from hrnet_cli.errors import DeviceError
from hrnet_cli.pixels import normalise

# Returns heatmaps (B, K, H, W) of normalised pixels (B, 3, H, W).
Network = Callable[[torch.Tensor], torch.Tensor]
# Photos, which of them each crop is of, the maps from photo to crop pixels, whether to flip.
FindPeople = Callable[[Sequence[np.ndarray], np.ndarray, np.ndarray, bool], "PendingKeypoints"]


@dataclass(frozen=True)
class PendingKeypoints:
    """Keypoints that a device may still be working on.

    Attributes:
        squares_BKRR: Of `heatmap.read_squares`.
        peaks_BK2: Of `heatmap.find_peaks`.
        scores_BK: Their values.
        spec: The model.
        size_hw: Heatmap (height, width).
        kernel: Of the blur.
    """

    squares_BKRR: torch.Tensor
    peaks_BK2: torch.Tensor
    scores_BK: torch.Tensor
    spec: ModelSpec
    size_hw: tuple[int, int]
    kernel: int

    def fetch(self) -> tuple[np.ndarray, np.ndarray]:
        """Wait, and return keypoints (B, K, 2) in crop pixels and scores, as `heatmap.decode`."""
        refined_BK2 = heatmap.refine(
            self.squares_BKRR.cpu().numpy(),
            self.peaks_BK2.cpu().numpy(),
            self.size_hw,
            self.spec.codec,
            self.kernel,
            bounded=True,
        )
        step_2 = heatmap.heatmap_grid_step(self.spec.input_hw, self.spec.codec)
        return (refined_BK2 * step_2).astype(np.float32), self.scores_BK.cpu().numpy()


def people_finder(
    network: Network, spec: ModelSpec, device: str, dtype: torch.dtype, turn: threading.Lock
) -> FindPeople | None:
    """Return what finds keypoints in photos where the network computes; None on a processor.

    A processor has nothing to gain: OpenCV crops there far faster, and nothing travels.

    Args:
        network: On the device, in `dtype`; its result may be overwritten by its next call.
        spec: The model.
        device: Name that torch knows.
        dtype: Of the network's arithmetic.
        turn: Held while the network's steps and what reads its result are put in line.
    """
    if not device.startswith("cuda"):
        return None

    def find(
        images: Sequence[np.ndarray],
        pictures_B: np.ndarray,
        image_to_crop_B23: np.ndarray,
        flip_test: bool,
    ) -> PendingKeypoints:
        try:
            crops = warp_crops(images, pictures_B, image_to_crop_B23, spec.input_hw, device)
            with turn:
                return find_keypoints(network, crops, spec, dtype, flip_test=flip_test)
        except torch.OutOfMemoryError as error:
            raise out_of_memory(device, len(pictures_B), spec.input_hw) from error

    return find


def find_keypoints(
    network: Network,
    crops_BHW3: torch.Tensor,
    spec: ModelSpec,
    dtype: torch.dtype,
    *,
    flip_test: bool,
) -> PendingKeypoints:
    """Return the keypoints of crops that lie on a device, without waiting for them.

    Args:
        network: On that device, in `dtype`.
        crops_BHW3: uint8 RGB crops of the model's input size; B must not be 0.
        spec: The model.
        dtype: Of the network's arithmetic.
        flip_test: Average with the mirrored crop's heatmaps.
    """
    both = torch.cat([crops_BHW3, crops_BHW3.flip(2)]) if flip_test else crops_BHW3
    with torch.inference_mode():
        maps = network(normalise(both, spec.mean_rgb, spec.std_rgb).to(dtype)).float()
        if flip_test:
            maps = flip_merge(maps[: len(crops_BHW3)], maps[len(crops_BHW3) :], spec)
        size_hw = maps.shape[2], maps.shape[3]
        kernel = heatmap.default_blur_kernel(size_hw[0])
        peaks_BK2, scores_BK = find_peaks(maps)
        reach = heatmap.square_reach(spec.codec, kernel)
        squares_BKRR = read_squares(maps, peaks_BK2, reach)
    return PendingKeypoints(squares_BKRR, peaks_BK2, scores_BK, spec, size_hw, kernel)


def warp_crops(
    images: Sequence[np.ndarray],
    pictures_B: np.ndarray,
    image_to_crop_B23: np.ndarray,
    input_hw: tuple[int, int],
    device: str,
) -> torch.Tensor:
    """Return crops of photos, made on a device, equal to `geometry.warp_crops` to a grey level.

    Args:
        images: uint8 RGB photos.
        pictures_B: Which of them each crop is of.
        image_to_crop_B23: Affine maps from photo pixels to crop pixels.
        input_hw: Crop (height, width).
        device: Name that torch knows.

    Returns:
        uint8 (B, height, width, 3) on the device.
    """
    crop_to_image_B23 = geometry.invert_affines(image_to_crop_B23)
    height, width = input_hw
    crops_BHW3 = torch.empty((len(pictures_B), height, width, 3), dtype=torch.uint8, device=device)
    for picture in np.unique(pictures_B):
        mine = np.flatnonzero(pictures_B == picture)
        pixels_13HW = _to_device(images[picture], device).permute(2, 0, 1)[None].float()
        # One row or column has no first and last that a grid could tell apart.
        missing = [max(0, 2 - side) for side in pixels_13HW.shape[:1:-1]]
        pixels_13HW = functional.pad(pixels_13HW, [0, missing[0], 0, missing[1]])
        grid = _grid(crop_to_image_B23[mine], input_hw, pixels_13HW.shape[2:], device)
        # The crops of a photo stand below each other in one grid: the photo is read, not copied.
        found_3NW = functional.grid_sample(
            pixels_13HW, grid.view(1, -1, width, 2), mode="bilinear", align_corners=True
        )[0]
        found_NHW3 = found_3NW.view(3, len(mine), height, width).permute(1, 2, 3, 0)
        crops_BHW3[torch.from_numpy(mine).to(device)] = found_NHW3.round_().to(torch.uint8)
    return crops_BHW3


def flip_merge(
    maps_BKHW: torch.Tensor, mirrored_BKHW: torch.Tensor, spec: ModelSpec
) -> torch.Tensor:
    """Return `heatmap.flip_merge` of heatmaps on a device."""
    turned = mirrored_BKHW[:, list(spec.schema.flip_indices)].flip(3)
    if spec.codec != "udp":
        turned = torch.cat([turned[..., :1], turned[..., :-1]], dim=3)
    return (maps_BKHW + turned) * 0.5


def find_peaks(maps_BKHW: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return `heatmap.find_peaks` of heatmaps on a device."""
    width = maps_BKHW.shape[3]
    flat_BKP = maps_BKHW.flatten(2)
    scores_BK = flat_BKP.amax(2)
    places = torch.arange(flat_BKP.shape[2], device=flat_BKP.device)
    # Of equal values the first: which one argmax takes is not promised.
    highest_BKP = flat_BKP == scores_BK[..., None]
    index_BK = torch.where(highest_BKP, places, len(places) - 1).amin(2) * (scores_BK > 0)
    peaks_BK2 = torch.stack([index_BK % width, index_BK // width], dim=2)
    return peaks_BK2, scores_BK


def read_squares(maps_BKHW: torch.Tensor, pixels_BK2: torch.Tensor, reach: int) -> torch.Tensor:
    """Return `heatmap.read_squares` of heatmaps on a device."""
    batch, keypoints, _, width = maps_BKHW.shape
    padded = functional.pad(maps_BKHW, [reach] * 4)
    read_R = torch.arange(2 * reach + 1, device=maps_BKHW.device)
    rows_BKR, columns_BKR = pixels_BK2[..., 1:] + read_R, pixels_BK2[..., :1] + read_R
    places = rows_BKR[..., None] * (width + 2 * reach) + columns_BKR[..., None, :]
    squares = padded.flatten(2).gather(2, places.flatten(2))
    return squares.view(batch, keypoints, len(read_R), len(read_R))


def out_of_memory(device: str, crops: int, input_hw: tuple[int, int]) -> DeviceError:
    """Return the error of a device without memory for a batch."""
    return DeviceError(
        f"{device}: out of memory for a batch of {crops} crops of {input_hw[0]}x{input_hw[1]}",
        hint="lower --batch-size, or use --device cpu",
    )


def _to_device(image_HW3: np.ndarray, device: str) -> torch.Tensor:
    # torch.from_numpy wants memory it could write to.
    pixels = torch.from_numpy(np.require(image_HW3, requirements=["C", "W"]))
    if not device.startswith("cuda"):
        return pixels.to(device)
    # From memory that stays in its place the copy runs beside the processor's work.
    return pixels.pin_memory().to(device, non_blocking=True)


def _grid(
    crop_to_image_N23: np.ndarray, input_hw: tuple[int, int], image_hw: tuple[int, ...], device: str
) -> torch.Tensor:
    """Return where in a photo the pixels of crops lie, from -1 on the first to 1 on the last."""
    height, width = input_hw
    last_xy = np.maximum(np.array(image_hw[::-1], np.float64) - 1, 1)
    # In doubles up to here, so that float32 is left to tell parts of a pixel.
    scaled_N23 = crop_to_image_N23 * (2 / last_xy)[:, None]
    scaled_N23[:, :, 2] -= 1
    matrices = torch.from_numpy(scaled_N23).to(device, torch.float32)
    x_W = torch.arange(width, device=device, dtype=torch.float32)
    y_H = torch.arange(height, device=device, dtype=torch.float32)
    across_NW2 = matrices[:, None, :, 0] * x_W[None, :, None]
    down_NH2 = matrices[:, None, :, 1] * y_H[None, :, None]
    return across_NW2[:, None] + down_NH2[:, :, None] + matrices[:, None, None, :, 2]
