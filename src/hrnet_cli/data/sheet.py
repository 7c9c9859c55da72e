"""A contact sheet of training samples: what the network sees, and what it is to answer.

Shape letters: N samples, K keypoints, H W crop, h w heatmap height and width.
"""

import numpy as np
import numpy.typing as npt
import torch

from hrnet_cli.data.augment import AugmentConfig
from hrnet_cli.data.crops import CropDataset, CropFrame
from hrnet_cli.data.names import can_mirror
from hrnet_cli.data.people import Array, LabelledPeople
from hrnet_cli.draw import DrawStyle, draw_poses
from hrnet_cli.errors import InputError
from hrnet_cli.heatmap import STRIDE
from hrnet_cli.schema import KeypointSchema
from hrnet_cli.structures import Boxes, PersonHeatmaps, Poses
from hrnet_cli.targets import encode

Pixels = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float32]

SAMPLES = 16
COLUMNS = 4
GAP_PX = 6
PAPER = 245
LEAST_HEIGHT_PX = 256  # of a crop on the sheet; smaller ones are shown enlarged


def draw_samples(
    people: LabelledPeople, frame: CropFrame, config: AugmentConfig, *, sigma: float, seed: int
) -> Pixels:
    """Return the sheet of `SAMPLES` people chosen by the seed, as training would see them.

    Args:
        people: A data set; people of no use for training are left out.
        frame: Shape of the crops.
        config: How they are varied; mirrored only where that is possible.
        sigma: Of the targets, in heatmap pixels.
        seed: Of the choice and the augmentation.

    Raises:
        InputError: Nobody is of use, or no chosen photo can be read.
    """
    people = people.usable()
    if not len(people):
        raise InputError(f"{people.name} has nobody to train on, so there is nothing to draw")
    if not can_mirror(people):
        config = AugmentConfig(**{**vars(config), "flip_prob": 0.0})
    chosen = np.random.default_rng(seed).permutation(len(people))[:SAMPLES]
    dataset = CropDataset(people, frame, config, seed=seed)
    batch = dataset.__getitems__([(0, int(index)) for index in chosen])
    if len(batch.problems) == len(batch):
        raise InputError(batch.problems[0])
    labelled_BK = (batch.weights_BK > 0).to(torch.float32)
    heatmaps_BKhw, _ = encode(batch.keypoints_BK2, labelled_BK, frame.input_hw, frame.codec, sigma)
    return draw_sheet(
        batch.crops_BHW3.numpy(),
        batch.keypoints_BK2.numpy(),
        batch.weights_BK.numpy(),
        heatmaps_BKhw.numpy(),
        people.schema,
    )


def draw_sheet(
    crops_NHW3: Pixels,
    keypoints_NK2: Floats,
    weights_NK: Floats,
    heatmaps_NKhw: Floats,
    schema: KeypointSchema,
) -> Pixels:
    """Return one picture of all samples, each once with its keypoints and once with its targets.

    Args:
        crops_NHW3: uint8 RGB crops.
        keypoints_NK2: (x, y) in crop pixels.
        weights_NK: Label weights; keypoints of weight 0 are not drawn, those below one half hollow.
        heatmaps_NKhw: Targets, 0 to 1.
        schema: Of the keypoints.

    Returns:
        uint8 RGB.
    """
    count, height, width = crops_NHW3.shape[:3]
    zoom = -(-LEAST_HEIGHT_PX // height)
    tile_hw = (height * zoom + GAP_PX, 2 * width * zoom + 2 * GAP_PX)
    rows = max(1, -(-count // COLUMNS))
    columns = min(max(count, 1), COLUMNS)
    sheet = np.full((rows * tile_hw[0] + GAP_PX, columns * tile_hw[1] + GAP_PX, 3), PAPER, np.uint8)
    for sample in range(count):
        crop_HW3 = crops_NHW3[sample].repeat(zoom, axis=0).repeat(zoom, axis=1)
        # Pixel centres are at whole numbers: those of the enlarged crop lie between.
        points_K2 = (keypoints_NK2[sample] + 0.5) * zoom - 0.5
        poses = _as_poses(points_K2, weights_NK[sample], heatmaps_NKhw[sample], zoom, schema)
        style = DrawStyle(keypoint_threshold=1e-6)
        pair = [
            draw_poses(crop_HW3, poses, parts=parts, style=style)
            for parts in (("keypoints", "skeleton"), ("heatmap",))
        ]
        top = GAP_PX + sample // COLUMNS * tile_hw[0]
        left = GAP_PX + sample % COLUMNS * tile_hw[1]
        both = np.concatenate(pair, axis=1)
        sheet[top : top + both.shape[0], left : left + both.shape[1]] = both
    return sheet


def _as_poses(
    points_K2: Array, weights_K: Floats, heatmaps_Khw: Floats, zoom: int, schema: KeypointSchema
) -> Poses:
    """Return one labelled person as poses, its weights as scores."""
    labelled_K = weights_K > 0
    inside_K2 = points_K2[labelled_K] if labelled_K.any() else np.zeros((1, 2))
    box = np.concatenate([inside_K2.min(axis=0), inside_K2.max(axis=0)])
    step = STRIDE * zoom
    # Heatmap pixel 0 lies on crop pixel 0 (`heatmap.decode`).
    matrix_23 = np.array([[step, 0.0, (zoom - 1) / 2], [0.0, step, (zoom - 1) / 2]])
    return Poses(
        points_K2[None],
        np.minimum(weights_K, 1)[None],
        np.ones(1),
        Boxes(box[None], np.ones(1)),
        schema,
        heatmaps=PersonHeatmaps(heatmaps_Khw[None], matrix_23[None]),
    )
