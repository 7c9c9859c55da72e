"""What must hold for all heatmaps; the references' numbers are in tests/parity."""

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from builders import encode_targets
from hrnet_cli import geometry, heatmap, targets
from hrnet_cli.config import CODECS
from hrnet_cli.schema import load_schema

INPUT_HW = (256, 192)
COCO_FLIP = load_schema("coco17").flip_indices
# Examples are not timed: other work on the machine would fail a test.
untimed = settings(deadline=None)


def spread_points(people, keypoints, low, high, seed=0):
    """Random points whose positions within a heatmap pixel are evenly spread.

    The error of a codec depends on that position: with even ones its mean is known far better than
    with independent ones.
    """
    generator = np.random.default_rng(seed)
    count = people * keypoints
    points = np.empty((count, 2))
    for axis in (0, 1):
        cells = generator.integers(low[axis] // 4, high[axis] // 4, count)
        phases = (generator.permutation(count) + generator.random(count)) / count
        points[:, axis] = 4 * (cells + phases)
    return points.reshape(people, keypoints, 2)


def encode_all(points_NK2, codec, sigma=2.0, input_hw=INPUT_HW):
    return encode_targets(points_NK2, np.ones(points_NK2.shape[:2]), input_hw, codec, sigma)


# Largest error in crop pixels: half a heatmap pixel where the target itself is rounded; otherwise
# what the second-order expansion leaves of a Gaussian cut off at three sigmas (measured: 0.014 for
# dark, 0.003 for udp).
@pytest.mark.parametrize(("codec", "bound_px"), [("msra", 2.0001), ("dark", 0.05), ("udp", 0.02)])
def test_decoding_returns_what_was_encoded(codec, bound_px):
    points = spread_points(50, 17, (24, 24), (168, 232))
    decoded, scores = heatmap.decode(encode_all(points, codec)[0], codec, INPUT_HW)
    errors = decoded - points
    assert np.abs(errors).max() <= bound_px
    # A mix-up of pixel centres and corners would be 0.5 to 2 pixels.
    assert np.abs(errors.mean(axis=(0, 1))).max() < 0.02
    # The nearest heatmap pixel is at most half a pixel off on both axes: exp(-2 * 0.5² / 2 / 2²).
    lowest = 1 if codec == "msra" else np.exp(-1 / 16)
    assert scores.min() >= lowest - 1e-6
    assert scores.max() <= 1


@pytest.mark.parametrize("codec", ["dark", "udp"])
def test_a_parabola_that_tops_outside_the_heatmap_does_not_take_the_keypoint_there(codec):
    heatmaps = np.random.default_rng(0).random((20, 17, 32, 24), np.float32)
    free, _ = heatmap.decode(heatmaps, codec, (128, 96))
    bounded, _ = heatmap.decode(heatmaps, codec, (128, 96), bounded=True)
    step = heatmap.heatmap_grid_step((128, 96), codec)
    in_pixels = free / step
    inside = np.all((in_pixels >= -0.5) & (in_pixels <= [23.5, 31.5]), axis=-1)
    assert 0.5 < inside.mean() < 1  # flat noise: some leave
    np.testing.assert_array_equal(bounded[inside], free[inside])
    peaks, _ = heatmap.find_peaks(heatmaps)
    np.testing.assert_allclose(bounded[~inside], (peaks * step)[~inside], rtol=1e-6)


@untimed
@given(
    st.sampled_from(CODECS),
    st.sampled_from([(256, 192), (384, 288), (64, 64)]),
    st.floats(0, 1),
    st.floats(0, 1),
)
def test_any_point_of_the_crop_comes_back_near_to_where_it_was(codec, input_hw, u, v):
    point = np.array([[[u * (input_hw[1] - 1), v * (input_hw[0] - 1)]]])
    decoded, scores = heatmap.decode(encode_all(point, codec, 2, input_hw)[0], codec, input_hw)
    # At the rims a target lacks one side, and the references are a heatmap pixel off there: up to
    # 3 crop pixels for msra and dark, 4.1 for udp.
    assert np.abs(decoded - point).max() < (4.5 if codec == "udp" else 3.01)
    # msra: the Gaussian of row and column one beyond the last, exp(-(1 + 1) / 2 / 2²).
    assert scores[0, 0] >= np.exp(-1 / 4) - 1e-6


@pytest.mark.parametrize("codec", CODECS)
def test_from_the_picture_to_heatmaps_and_back(codec):
    # Boxes 250 to 350 pixels high: the crop pixel is 1.2 to 1.7 picture pixels wide.
    generator = np.random.default_rng(1)
    corners = generator.uniform(0, 300, (60, 2))
    sizes = generator.uniform([100, 250], [180, 350], (60, 2))
    xyxy = np.concatenate([corners, corners + sizes], axis=1)
    inside = spread_points(60, 17, (0, 0), (400, 400)) / 400
    points = corners[:, None] + (0.05 + 0.9 * inside) * sizes[:, None]
    matrices = geometry.crop_matrices(*geometry.crop_boxes(xyxy, INPUT_HW), INPUT_HW, codec)
    crop_points = geometry.apply_affines(points, matrices)
    decoded, _ = heatmap.decode(encode_all(crop_points, codec)[0], codec, INPUT_HW)
    errors = geometry.apply_affines(decoded, geometry.invert_affines(matrices)) - points
    assert np.abs(errors).max() < (4 if codec == "msra" else 0.1)
    # 1020 errors spread evenly over ±3.4 pixels for msra: their mean is known to 0.06.
    assert np.abs(errors.mean(axis=(0, 1))).max() < (0.25 if codec == "msra" else 0.02)


@pytest.mark.parametrize("codec", CODECS)
def test_targets_are_gaussians_with_peak_one(codec):
    step = heatmap.heatmap_grid_step(INPUT_HW, codec)
    point = np.array([20, 30]) * step  # on a heatmap pixel
    targets, weights = encode_targets(point[None, None], [[1]], INPUT_HW, codec, 2)
    assert (targets.shape, targets.dtype, weights.dtype) == ((1, 1, 64, 48), np.float32, np.float32)
    target = targets[0, 0]
    assert np.unravel_index(target.argmax(), target.shape) == (30, 20)
    assert target.max() == 1
    assert weights == 1
    # One sigma beside it, and the same to all sides.
    np.testing.assert_allclose(target[[28, 32, 30, 30], [20, 20, 18, 22]], np.exp(-0.5), rtol=1e-6)


@pytest.mark.parametrize("codec", CODECS)
def test_unlabelled_and_far_outside_keypoints_draw_nothing(codec):
    points = np.array([[[50.0, 60], [50, 60], [-200, 60], [50, 900]]])
    targets, weights = encode_targets(points, [[1, 0, 1, 1]], INPUT_HW, codec, 2)
    assert weights.tolist() == [[1, 0, 0, 0]]
    assert targets[0, 0].max() > 0.9
    assert not targets[0, 1:].any()


# Two heatmap pixels, one sigma, before the first column. For msra that is column -1, since the
# official int() cuts -1.5 off towards zero.
@pytest.mark.parametrize(
    ("codec", "at_rim"),
    [("msra", np.exp(-1 / 8)), ("dark", np.exp(-1 / 2)), ("udp", np.exp(-1 / 2))],
)
def test_a_keypoint_just_outside_still_shows_its_rim(codec, at_rim):
    x, y = np.array([-2, 15]) * heatmap.heatmap_grid_step(INPUT_HW, codec)
    targets, weights = encode_targets([[[x, y]]], [[1]], INPUT_HW, codec, 2)
    assert weights == 1
    assert targets[0, 0, :, 0].max() == pytest.approx(at_rim, rel=1e-6)
    assert np.unravel_index(targets.argmax(), (64, 48)) == (15, 0)


def test_grid_steps():
    np.testing.assert_array_equal(heatmap.heatmap_grid_step((256, 192), "msra"), [4, 4])
    np.testing.assert_array_equal(heatmap.heatmap_grid_step((256, 192), "dark"), [4, 4])
    np.testing.assert_allclose(
        heatmap.heatmap_grid_step((256, 192), "udp"), [191 / 47, 255 / 63], rtol=1e-12
    )


def test_peaks_are_the_first_of_equal_ones_and_nothing_is_at_the_origin():
    maps = np.zeros((1, 4, 5, 6), np.float32)
    maps[0, 0, 2, 3] = maps[0, 0, 4, 1] = 0.7
    maps[0, 1] = -1
    maps[0, 3, 4, 5] = 1.3
    peaks, scores = heatmap.find_peaks(maps)
    assert peaks.tolist() == [[[3, 2], [0, 0], [0, 0], [5, 4]]]
    np.testing.assert_allclose(scores, [[0.7, -1, 0, 1.3]])


def test_a_quarter_pixel_towards_the_larger_neighbour():
    maps = np.zeros((1, 3, 8, 8), np.float32)
    maps[0, :, 4, 4] = 1
    maps[0, 0, 4, 5], maps[0, 0, 3, 4] = 0.5, 0.5  # to the right and up
    maps[0, 1, 4, 3] = 0.5  # to the left; even upwards and downwards
    maps[0, 2, 4, 7] = 2  # a peak on the rim stays
    peaks, _ = heatmap.find_peaks(maps)
    refined = heatmap.refine_quarter(heatmap.read_squares(maps, peaks, 1), peaks, (8, 8))
    assert refined.tolist() == [[[4.25, 3.75], [3.75, 4], [7, 4]]]


@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize("value", [0, -0.5])
def test_heatmaps_without_a_positive_value_give_the_origin(codec, value):
    flat = np.full((2, 3, 64, 48), value, np.float32)
    points, scores = heatmap.decode(flat, codec, INPUT_HW)
    assert not points.any()
    assert (scores == value).all()


@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize("value", [1e-6, 0.5, 1e4])
def test_flat_heatmaps_give_finite_points_on_the_crop(codec, value):
    points, scores = heatmap.decode(np.full((1, 2, 64, 48), value, np.float32), codec, INPUT_HW)
    assert np.isfinite(points).all()
    np.testing.assert_allclose(scores, value)


@pytest.mark.parametrize("codec", CODECS)
def test_each_heatmap_is_decoded_as_if_alone(codec):
    maps = np.random.default_rng(0).random((3, 5, 64, 48), np.float32)
    maps[1] *= 100  # its neighbours must not see it
    together, _ = heatmap.decode(maps, codec, INPUT_HW)
    for n in range(3):
        for k in range(5):
            alone, _ = heatmap.decode(maps[n : n + 1, k : k + 1], codec, INPUT_HW)
            np.testing.assert_allclose(together[n, k], alone[0, 0], atol=1e-4)


@pytest.mark.parametrize(("rows", "kernel"), [(64, 11), (96, 17), (48, 9), (16, 3), (8, 1)])
def test_blur_widths_are_odd_and_in_proportion(rows, kernel):
    assert heatmap.default_blur_kernel(rows) == kernel


@pytest.mark.parametrize("kernel", [3, 11, 17])
@pytest.mark.parametrize("pixel", [(9, 12), (0, 0), (17, 23), (1, 22)])
def test_blurring_around_a_pixel_is_blurring_the_whole_map(kernel, pixel):
    maps = np.random.default_rng(0).random((2, 3, 24, 18), np.float32)
    pixels = np.full((2, 3, 2), pixel)
    squares = heatmap.read_squares(maps, pixels, kernel // 2 + 2)
    near = heatmap.blur_around(squares, pixels, (24, 18), kernel)
    whole = cv2.GaussianBlur(maps[1, 2], (kernel, kernel), 0, borderType=cv2.BORDER_CONSTANT)
    x, y = pixel
    rows = np.clip(np.arange(y - 2, y + 3), 0, 23)
    columns = np.clip(np.arange(x - 2, x + 3), 0, 17)
    np.testing.assert_allclose(near[1, 2], whole[rows][:, columns], rtol=1e-5)


@untimed
@given(st.integers(0, 2**32 - 1), st.sampled_from(["coco17", "mpii16", "hand21"]))
def test_turning_back_twice_changes_nothing(seed, name):
    schema = load_schema(name)
    maps = np.random.default_rng(seed).random((2, len(schema), 6, 5), np.float32)
    once = heatmap.flip_heatmaps(maps, schema.flip_indices)
    np.testing.assert_array_equal(heatmap.flip_heatmaps(once, schema.flip_indices), maps)
    left, right = 5, schema.flip_indices[5]
    np.testing.assert_array_equal(once[:, left], maps[:, right, :, ::-1])


# A grid of stride 4 that starts at the first pixel is not symmetric: the mirror image's peak comes
# back 3/4 heatmap pixel early, the shift makes it 1/4 late, the mean is 1/8 heatmap pixel, half a
# crop pixel (UDP, CVPR 2020, sec. 3.3). The grid of udp is symmetric.
@pytest.mark.parametrize(("codec", "offset_px"), [("dark", 0.5), ("udp", 0.0)])
def test_the_flip_test_of_a_perfect_network(codec, offset_px):
    points = spread_points(20, 17, (32, 32), (160, 224))
    mirrored = points[:, list(COCO_FLIP)].copy()
    mirrored[..., 0] = INPUT_HW[1] - 1 - mirrored[..., 0]
    upright_maps, mirrored_maps = (encode_all(p, codec)[0] for p in (points, mirrored))
    merged = heatmap.flip_merge(upright_maps, mirrored_maps, COCO_FLIP, codec)
    errors = heatmap.decode(merged, codec, INPUT_HW)[0] - points
    np.testing.assert_allclose(errors.mean(axis=(0, 1)), [offset_px, 0], atol=0.02)
    assert np.abs(errors - [offset_px, 0]).max() < 0.1


def test_the_flip_test_with_quarter_offsets_stays_within_half_a_heatmap_pixel():
    points = spread_points(20, 17, (32, 32), (160, 224))
    mirrored = points[:, list(COCO_FLIP)].copy()
    mirrored[..., 0] = INPUT_HW[1] - 1 - mirrored[..., 0]
    maps = [encode_all(p, "msra")[0] for p in (points, mirrored)]
    merged = heatmap.flip_merge(*maps, COCO_FLIP, "msra")
    errors = heatmap.decode(merged, "msra", INPUT_HW)[0] - points
    assert np.abs(errors).max() <= 2.0001
    # The quarter offset takes half of the half pixel; without the shift the mean would be -2.25.
    assert 0.2 < errors[..., 0].mean() < 0.3
    assert abs(errors[..., 1].mean()) < 0.02


@pytest.mark.parametrize("codec", CODECS)
def test_nobody(codec):
    targets, weights = encode_targets(np.zeros((0, 17, 2)), np.zeros((0, 17)), INPUT_HW, codec, 2)
    assert (targets.shape, weights.shape) == ((0, 17, 64, 48), (0, 17))
    points, scores = heatmap.decode(targets, codec, INPUT_HW)
    assert (points.shape, scores.shape) == ((0, 17, 2), (0, 17))
    assert points.dtype == scores.dtype == np.float32
    pixels = np.zeros((0, 17, 2), np.int64)
    squares = heatmap.read_squares(targets, pixels, 7)
    assert heatmap.blur_around(squares, pixels, (64, 48), 11).shape == (0, 17, 5, 5)
    assert heatmap.flip_merge(targets, targets, COCO_FLIP, codec).shape == (0, 17, 64, 48)


@pytest.mark.parametrize("codec", CODECS)
def test_arguments_are_left_alone(codec):
    points = spread_points(2, 17, (0, 0), (192, 256))
    visible = np.ones((2, 17))
    maps, _ = encode_targets(points, visible, INPUT_HW, codec, 2)
    before = points.copy(), visible.copy(), maps.copy()
    for array in (points, visible, maps):
        array.flags.writeable = False  # a write would raise
    encode_targets(points, visible, INPUT_HW, codec, 2)
    heatmap.decode(maps, codec, INPUT_HW)
    heatmap.flip_merge(maps, maps, COCO_FLIP, codec)
    for array, old in zip((points, visible, maps), before, strict=True):
        np.testing.assert_array_equal(array, old)


@pytest.mark.parametrize("codec", CODECS)
def test_single_precision_as_in_training_gives_the_same_targets(codec):
    """The references are met in float64 (tests/parity); batches are encoded in float32."""
    points = spread_points(8, 17, (-12, -12), (204, 268))
    # Where rounding to a heatmap pixel is a coin's toss, a last digit may throw it.
    cells = points / heatmap.heatmap_grid_step(INPUT_HW, codec) + 0.5
    clear = (np.abs(cells - np.round(cells)) > 1e-4).all(axis=-1)
    assert clear.mean() > 0.99
    visible = np.where(np.arange(17) % 5, 1.0, 0.3)[None].repeat(8, 0)
    double, weights = encode_targets(points, visible, INPUT_HW, codec, 2)
    single, single_weights = targets.encode(
        torch.from_numpy(points).float(), torch.from_numpy(visible).float(), INPUT_HW, codec, 2
    )
    assert (single.dtype, single_weights.dtype) == (torch.float32, torch.float32)
    # A Gaussian of sigma 2 is at most 0.3 steep; positions up to 68 are kept to 4e-6.
    np.testing.assert_allclose(single.numpy()[clear], double[clear], rtol=0, atol=1e-5)
    np.testing.assert_array_equal(single_weights.numpy()[clear], weights[clear])
