"""Augmentation of training crops: what is drawn, and what the draws do, kept apart.

`draw` turns random numbers into `Draws`; the other functions are pure, take the draws as they are,
and so can be held against a reference that was given the same draws. Scale, rotation, shift and
mirroring all end in one affine map, so that a photo is warped once.

Points are (x, y) in photo pixels unless said otherwise. Shape letters: N people, K keypoints,
R rectangles, H W crop height and width.
"""

from dataclasses import dataclass, fields
from statistics import NormalDist

import cv2
import numpy as np
import numpy.typing as npt

from hrnet_cli.errors import ConfigError
from hrnet_cli.geometry import SMALLEST_CROP_PX, apply_affines, crop_matrices
from hrnet_cli.schema import KeypointSchema

Array = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]
Pixels = npt.NDArray[np.uint8]

DISTRIBUTIONS = ("clipped", "truncated")
# The box of half a body grows by this much and by nothing else (official HRNet,
# lib/dataset/JointsDataset.py, `half_body_transform`).
HALF_BODY_PADDING = 1.5
# The official code asks `randn() < 0.5`, a normal number and not a uniform one: the upper half is
# tried for 69 % of the people.
UPPER_BELOW = 0.5
# A half is chosen when it has more keypoints than this, and used when it has at least two.
HALF_MORE_THAN = 2
# At full strength brightness, contrast and saturation change by up to this factor, and hue by up
# to this part of a turn (the ranges usual with torchvision's ColorJitter).
COLOR_FACTOR = 0.4
HUE_TURNS = 0.1
# Rectangles of a cutout, and their sides as parts of the crop's (MMPose's coarse dropout for
# 256x192: up to 40 pixels).
CUTOUTS = 4
CUTOUT_SIDES = (0.05, 0.2)

# What columns of uniform and of normal random numbers decide on. New ones become `LATE`, columns
# at the end of the uniform ones that are drawn after all others, so that those stay what they were
# for a seed.
UNIFORM = ("half_body", "rotate", "flip", "shift", "cutout")
NORMAL = ("upper", "scale", "rotation", "shift_x", "shift_y")
LATE = ("low_res", "low_res_detail")
_COLORS, _RECTANGLE = 4, 7
_EARLY_COLUMNS = len(UNIFORM) + _COLORS + CUTOUTS * _RECTANGLE
UNIFORM_COLUMNS = _EARLY_COLUMNS + len(LATE)

# Luma of RGB (ITU-R BT.601), and the two colour axes that a change of hue turns (YIQ).
_YIQ_33 = np.array([[0.299, 0.587, 0.114], [0.596, -0.274, -0.322], [0.211, -0.523, 0.312]])
_RGB_33 = np.linalg.inv(_YIQ_33)


@dataclass(frozen=True)
class AugmentConfig:
    """How strongly training crops are varied; the defaults are the official recipe for COCO.

    The values of the defaults stand in official HRNet, experiments/coco/hrnet, and
    lib/dataset/JointsDataset.py.

    Attributes:
        scale: Spread of the crop's size: 1 + scale * normal, held to 1 - scale .. 1 + scale.
        rotation_deg: Spread of the rotation. ``clipped``: standard deviation, held to twice that;
            ``truncated``: the largest angle.
        rotation_prob: Share of the crops that are rotated.
        flip_prob: Share that is mirrored.
        half_body_prob: Share of the people with enough keypoints cropped to half their body.
        half_body_min: More labelled keypoints than this are enough.
        shift: Largest shift of the crop as a part of its own sides.
        shift_prob: Share that is shifted.
        distribution: ``clipped`` (official: normal numbers, those beyond the limit set to it) or
            ``truncated`` (MMPose `RandomBBoxTransform`: normal numbers between -1 and 1 only).
        color: Strength of changes of brightness, contrast, saturation and hue, 0 to 1.
        cutout_prob: Share with some rectangles painted over.
        low_res_prob: Share that is made coarser, as the crop of a small person is.
        low_res: Least detail left of it, as a part of the crop's sides.

    Raises:
        ConfigError: A value is outside its range.
    """

    scale: float = 0.35
    rotation_deg: float = 45.0
    rotation_prob: float = 0.6
    flip_prob: float = 0.5
    half_body_prob: float = 0.3
    half_body_min: int = 8
    shift: float = 0.0
    shift_prob: float = 0.0
    distribution: str = "clipped"
    color: float = 0.0
    cutout_prob: float = 0.0
    low_res_prob: float = 0.0
    low_res: float = 0.25

    def __post_init__(self) -> None:
        """Check the ranges."""
        if self.distribution not in DISTRIBUTIONS:
            raise ConfigError(
                f"augment.distribution is '{self.distribution}',"
                f" expected one of {', '.join(DISTRIBUTIONS)}"
            )
        limits = {"scale": 0.99, "rotation_deg": 180.0, "shift": 1.0, "half_body_min": 10_000}
        for field in fields(self):
            value = getattr(self, field.name)
            highest = limits.get(field.name, 1.0)
            if field.name != "distribution" and not 0 <= value <= highest:
                raise ConfigError(
                    f"augment.{field.name} is {value}, expected a number from 0 to {highest:g}"
                )
        if self.low_res == 0:
            raise ConfigError("augment.low_res is 0, expected a number above 0, up to 1")

    @classmethod
    def none(cls) -> "AugmentConfig":
        """Return the settings that change nothing, as for validation."""
        return cls(scale=0, rotation_deg=0, rotation_prob=0, flip_prob=0, half_body_prob=0)


@dataclass(frozen=True)
class Draws:
    """What was drawn for N people.

    Attributes:
        half_body_N: bool, crop to half the body if enough is labelled.
        upper_N: bool, try the upper half first.
        scale_N: Factor of the crop's size.
        rotation_deg_N: Rotation, with the sign that the codec's reference gives it.
        flip_N: bool, mirror.
        shift_N2: (x, y) shift as a part of the crop's width and height.
        color_N4: Change of brightness, contrast, saturation (factors minus one) and hue (turns).
        cutouts_NR7: Rectangles (x, y of the centre, width, height) as parts of the crop, and the
            colour (three parts of 255) that covers them; width 0 for none.
        detail_N: How much detail is left, as a part of the crop's sides; 1 for all.
    """

    half_body_N: Bools
    upper_N: Bools
    scale_N: Array
    rotation_deg_N: Array
    flip_N: Bools
    shift_N2: Array
    color_N4: Array
    cutouts_NR7: Array
    detail_N: Array


def draw(config: AugmentConfig, rng: np.random.Generator, count: int) -> Draws:
    """Return what one generator draws for ``count`` people."""
    early_NU = rng.random((count, _EARLY_COLUMNS))
    normal_NZ = rng.standard_normal((count, len(NORMAL)))
    late_NU = rng.random((count, len(LATE)))
    return shape_draws(config, np.concatenate([early_NU, late_NU], axis=1), normal_NZ)


def draw_for(config: AugmentConfig, seed: int, keys_N2: "list[tuple[int, int]]") -> Draws:
    """Return what is drawn for people named by (epoch, index).

    Each person's numbers depend on the seed, the epoch and the index only, so that neither the
    number of workers or processes nor a resumed run changes them.
    """
    uniform_NU = np.empty((len(keys_N2), UNIFORM_COLUMNS))
    normal_NZ = np.empty((len(keys_N2), len(NORMAL)))
    for row, (epoch, index) in enumerate(keys_N2):
        rng = np.random.Generator(np.random.PCG64(np.random.SeedSequence([seed, epoch, index])))
        rng.random(out=uniform_NU[row, :_EARLY_COLUMNS])
        rng.standard_normal(out=normal_NZ[row])
        rng.random(out=uniform_NU[row, _EARLY_COLUMNS:])
    return shape_draws(config, uniform_NU, normal_NZ)


def shape_draws(config: AugmentConfig, uniform_NU: Array, normal_NZ: Array) -> Draws:
    """Return the draws that random numbers stand for.

    Args:
        config: Strengths and shares.
        uniform_NU: Numbers from 0 to 1; the first columns are those of ``UNIFORM``, the last those
            of ``LATE``.
        normal_NZ: Standard normal numbers; columns as in ``NORMAL``.
    """
    gate = {name: uniform_NU[:, column] for column, name in enumerate(UNIFORM)}
    gate |= {name: uniform_NU[:, column] for column, name in enumerate(LATE, _EARLY_COLUMNS)}
    normal = {name: normal_NZ[:, column] for column, name in enumerate(NORMAL)}
    rotate_N = gate["rotate"] < config.rotation_prob
    shift_N1 = (gate["shift"] < config.shift_prob)[:, None]
    shift_N2 = config.shift * _within_one(normal_NZ[:, 3:5])
    color_N4 = 2 * uniform_NU[:, len(UNIFORM) : len(UNIFORM) + _COLORS] - 1
    ranges_4 = np.array([COLOR_FACTOR, COLOR_FACTOR, COLOR_FACTOR, HUE_TURNS])
    if config.distribution == "clipped":
        scale_N = np.clip(normal["scale"] * config.scale, -config.scale, config.scale)
        limit = 2 * config.rotation_deg
        rotation_N = np.clip(normal["rotation"] * config.rotation_deg, -limit, limit)
    else:
        scale_N = config.scale * _within_one(normal["scale"])
        rotation_N = config.rotation_deg * _within_one(normal["rotation"])
    return Draws(
        half_body_N=gate["half_body"] < config.half_body_prob,
        upper_N=normal["upper"] < UPPER_BELOW,
        scale_N=1 + scale_N,
        rotation_deg_N=rotation_N * rotate_N,
        flip_N=gate["flip"] < config.flip_prob,
        shift_N2=shift_N2 * shift_N1,
        color_N4=config.color * ranges_4 * color_N4,
        cutouts_NR7=_cutouts(uniform_NU, gate["cutout"] < config.cutout_prob),
        # Of all scales alike: halving is as common between 1 and 1/2 as between 1/2 and 1/4.
        detail_N=np.where(
            gate["low_res"] < config.low_res_prob, config.low_res ** gate["low_res_detail"], 1.0
        ),
    )


def _within_one(normal: Array) -> Array:
    """Return standard normal numbers moved to a normal distribution cut off at -1 and 1."""
    if not normal.size:
        return normal
    standard = NormalDist()
    low = standard.cdf(-1)
    parts = [low + standard.cdf(x) * (1 - 2 * low) for x in normal.ravel().tolist()]
    return np.array([standard.inv_cdf(part) for part in parts]).reshape(normal.shape)


def _cutouts(uniform_NU: Array, wanted_N: Bools) -> Array:
    first = len(UNIFORM) + _COLORS
    parts_NR7 = uniform_NU[:, first:_EARLY_COLUMNS].reshape(-1, CUTOUTS, _RECTANGLE).copy()
    low, high = CUTOUT_SIDES
    parts_NR7[:, :, 2:4] = low + (high - low) * parts_NR7[:, :, 2:4]
    return parts_NR7 * wanted_N[:, None, None]


@dataclass(frozen=True)
class BodyHalves:
    """Which keypoints make half a body.

    Attributes:
        upper_K: bool, True for the upper half.
        lower_K: bool, True for the lower half.
        more_than: People with more labelled keypoints than this may be cropped to a half.
    """

    upper_K: Bools
    lower_K: Bools
    more_than: int

    @classmethod
    def of(cls, schema: KeypointSchema, more_than: int) -> "BodyHalves":
        """Return the halves that a schema names; a schema without them has none."""
        upper_K = np.array([name in schema.upper_body for name in schema.keypoints])
        lower_K = np.array([name in schema.lower_body for name in schema.keypoints])
        return cls(upper_K, lower_K, more_than)


def half_body_crops(
    keypoints_NK2: Array,
    labelled_NK: Bools,
    halves: BodyHalves,
    upper_N: Bools,
    ratio: float,
) -> tuple[Array, Array, Bools]:
    """Return the crop around half of each body (official `half_body_transform`).

    The upper half is taken where it is to be tried and has more than two labelled keypoints;
    else the lower half if it has more than two; else the upper.

    Args:
        keypoints_NK2: Keypoints.
        labelled_NK: Which of them count.
        halves: Which belong to which half.
        upper_N: For whom the upper half is tried first.
        ratio: Width divided by height of the crop.

    Returns:
        Centres (N, 2): the mean of the chosen keypoints; sizes (N, 2); and for whom there is a
        half: two keypoints at least, apart from each other.
    """
    upper_NK, lower_NK = labelled_NK & halves.upper_K, labelled_NK & halves.lower_K
    uppers_N, lowers_N = upper_NK.sum(axis=1), lower_NK.sum(axis=1)
    take_upper_N = (upper_N & (uppers_N > HALF_MORE_THAN)) | (lowers_N <= HALF_MORE_THAN)
    chosen_NK = np.where(take_upper_N[:, None], upper_NK, lower_NK)
    count_N = chosen_NK.sum(axis=1)
    chosen_NK1 = chosen_NK[:, :, None]
    centers_N2 = (
        np.where(chosen_NK1, keypoints_NK2, 0).sum(axis=1) / np.maximum(count_N, 1)[:, None]
    )
    far_N2 = np.where(chosen_NK1, keypoints_NK2, -np.inf).max(axis=1, initial=-np.inf)
    near_N2 = np.where(chosen_NK1, keypoints_NK2, np.inf).min(axis=1, initial=np.inf)
    extent_N2 = np.where((count_N >= 2)[:, None], far_N2 - near_N2, 0)
    width_N = np.maximum(extent_N2[:, 0], extent_N2[:, 1] * ratio)
    sizes_N2 = np.stack([width_N, width_N / ratio], axis=1) * HALF_BODY_PADDING
    return centers_N2, sizes_N2, (count_N >= 2) & (width_N > SMALLEST_CROP_PX)


def vary_crops(
    draws: Draws,
    crops: tuple[Array, Array],
    keypoints_NK2: Array,
    labelled_NK: Bools,
    halves: BodyHalves,
) -> tuple[Array, Array]:
    """Return crop centres and sizes after half-body, shift and scale.

    Args:
        draws: What was drawn.
        crops: Centres (N, 2) and sizes (N, 2) without augmentation, in the ratio of the input.
        keypoints_NK2: Keypoints.
        labelled_NK: Which of them are labelled.
        halves: See `half_body_crops`.

    Returns:
        Centres (N, 2) and sizes (N, 2).
    """
    centers_N2, sizes_N2 = crops
    wanted_N = draws.half_body_N & (labelled_NK.sum(axis=1) > halves.more_than)
    if wanted_N.any():
        ratio = sizes_N2[0, 0] / sizes_N2[0, 1]
        half_centers_N2, half_sizes_N2, found_N = half_body_crops(
            keypoints_NK2, labelled_NK, halves, draws.upper_N, ratio
        )
        half_N1 = (wanted_N & found_N)[:, None]
        centers_N2 = np.where(half_N1, half_centers_N2, centers_N2)
        sizes_N2 = np.where(half_N1, half_sizes_N2, sizes_N2)
    return centers_N2 + draws.shift_N2 * sizes_N2, sizes_N2 * draws.scale_N[:, None]


def varied_matrices(
    draws: Draws, crops: tuple[Array, Array], input_hw: tuple[int, int], codec: str
) -> Array:
    """Return the maps (N, 2, 3) from photo to crop pixels, with rotation and mirroring inside.

    The references mirror the whole photo and the crop's centre with it, then crop: pixel x becomes
    W-1-x, and W cancels out. What is left is the crop's own map with x counted backwards from the
    centre.

    Args:
        draws: What was drawn.
        crops: Centres and sizes from `vary_crops`.
        input_hw: Crop (height, width).
        codec: One of `config.CODECS`.
    """
    centers_N2, sizes_N2 = crops
    matrices_N23 = crop_matrices(centers_N2, sizes_N2, input_hw, codec, draws.rotation_deg_N)
    mirrored_N23 = matrices_N23.copy()
    mirrored_N23[:, :, 0] *= -1
    mirrored_N23[:, :, 2] += 2 * matrices_N23[:, :, 0] * centers_N2[:, :1]
    return np.where(draws.flip_N[:, None, None], mirrored_N23, matrices_N23)


def move_keypoints(
    keypoints_NK2: Array,
    weights_NK: Array,
    matrices_N23: Array,
    flip_N: Bools,
    schema: KeypointSchema,
) -> tuple[Array, Array]:
    """Return keypoints in crop pixels and their weights; left and right change places if mirrored.

    Keypoints of weight 0 come back as (0, 0).
    """
    points_NK2 = apply_affines(keypoints_NK2, matrices_N23) * (weights_NK > 0)[:, :, None]
    swapped_K = np.array(schema.flip_indices)
    flip_N1 = flip_N[:, None]
    return (
        np.where(flip_N1[:, :, None], points_NK2[:, swapped_K], points_NK2),
        np.where(flip_N1, weights_NK[:, swapped_K], weights_NK),
    )


def coarsen(crop_HW3: Pixels, detail: float) -> Pixels:
    """Return a crop that looks as if cut from a photo with fewer pixels.

    Args:
        crop_HW3: uint8 RGB.
        detail: Part of the crop's sides that such a photo would have; 1 changes nothing.
    """
    if detail >= 1:
        return crop_HW3
    height, width = crop_HW3.shape[:2]
    small_wh = max(1, round(detail * width)), max(1, round(detail * height))
    small_HW3 = cv2.resize(crop_HW3, small_wh, interpolation=cv2.INTER_AREA)
    coarse_HW3 = cv2.resize(small_HW3, (width, height), interpolation=cv2.INTER_LINEAR)
    return np.asarray(coarse_HW3, np.uint8)


def recolor(crop_HW3: Pixels, color_4: Array) -> Pixels:
    """Return an RGB crop with other brightness, contrast, saturation and hue.

    All four are one linear map of the colours, around the crop's mean grey for the contrast.

    Args:
        crop_HW3: uint8 RGB.
        color_4: A row of `Draws.color_N4`.
    """
    if not np.any(color_4):
        return crop_HW3
    brightness, contrast, saturation, turns = color_4
    cos, sin = np.cos(2 * np.pi * turns), np.sin(2 * np.pi * turns)
    chroma = 1 + saturation
    change_33 = np.array(
        [[1, 0, 0], [0, cos * chroma, -sin * chroma], [0, sin * chroma, cos * chroma]]
    )
    linear_33 = (1 + brightness) * (1 + contrast) * (_RGB_33 @ change_33 @ _YIQ_33)
    grey = float(_YIQ_33[0] @ np.array(cv2.mean(crop_HW3)[:3])) * (1 + brightness)
    offset_31 = np.full((3, 1), -contrast * grey)
    return np.asarray(cv2.transform(crop_HW3, np.hstack([linear_33, offset_31])), np.uint8)


def cut_out(crop_HW3: Pixels, cutouts_R7: Array) -> Pixels:
    """Return a crop with rectangles painted over.

    Args:
        crop_HW3: uint8.
        cutouts_R7: A row of `Draws.cutouts_NR7`.
    """
    if not np.any(cutouts_R7[:, 2:4]):
        return crop_HW3
    painted_HW3 = crop_HW3.copy()
    size_wh = np.array([crop_HW3.shape[1], crop_HW3.shape[0]])
    near_R2 = np.round((cutouts_R7[:, :2] - cutouts_R7[:, 2:4] / 2) * size_wh)
    far_R2 = np.round((cutouts_R7[:, :2] + cutouts_R7[:, 2:4] / 2) * size_wh)
    for near, far, colors in zip(
        np.maximum(near_R2, 0).astype(int), far_R2.astype(int), cutouts_R7[:, 4:], strict=True
    ):
        painted_HW3[near[1] : far[1], near[0] : far[0]] = np.round(colors * 255)
    return painted_HW3
