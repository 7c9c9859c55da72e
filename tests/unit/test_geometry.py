"""Properties of the pixel conventions: crops, affine maps, boxes."""

import tracemalloc

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hrnet_cli import geometry

INPUT_HW = (256, 192)
CODECS = ("msra", "dark", "udp")

# Examples are not timed: other work on the machine would fail a test.
untimed = settings(deadline=None)

position = st.floats(-2000, 4000)
side = st.floats(1, 3000)
box = st.tuples(position, position, side, side).map(
    lambda b: (b[0], b[1], b[0] + b[2], b[1] + b[3])
)
boxes = st.lists(box, max_size=5).map(lambda rows: np.array(rows, dtype=np.float64).reshape(-1, 4))


def matrices_of(xyxy_N4, codec, rotations_deg=None):
    centers, sizes = geometry.crop_boxes(xyxy_N4, INPUT_HW)
    return geometry.crop_matrices(centers, sizes, INPUT_HW, codec, rotations_deg)


def ramp(height, width):
    """A picture whose first channel is x and second is y, so that pixels tell where they are."""
    y, x = np.mgrid[:height, :width]
    return np.stack([x, y, np.full_like(x, 255)], axis=-1).astype(np.uint8)


@untimed
@given(boxes, st.sampled_from(CODECS), st.floats(-180, 180))
def test_points_come_back_from_the_crop(xyxy, codec, angle):
    to_crop = matrices_of(xyxy, codec, np.full(len(xyxy), angle))
    points = np.tile([[0.0, 0.0], [191.0, 255.0], [-40.5, 300.25]], (len(xyxy), 1, 1))
    image_points = geometry.apply_affines(points, geometry.invert_affines(to_crop))
    # Float64; the smallest box magnifies rounding of coordinates near 4000 by 192.
    np.testing.assert_allclose(geometry.apply_affines(image_points, to_crop), points, atol=1e-6)


@untimed
@given(boxes, st.sampled_from(CODECS))
def test_a_crop_shows_its_whole_box_and_a_quarter_more(xyxy, codec):
    _, sizes = geometry.crop_boxes(xyxy, INPUT_HW)
    np.testing.assert_allclose(sizes[:, 0] * 256, sizes[:, 1] * 192, rtol=1e-12)
    own = xyxy[:, 2:] - xyxy[:, :2]
    # One side is 1.25 times the box, the other at least that.
    np.testing.assert_allclose((sizes / own).min(axis=1), 1.25, rtol=1e-9)
    corners = xyxy.reshape(-1, 2, 2)
    shown = geometry.apply_affines(corners, matrices_of(xyxy, codec))
    assert (shown > 0).all()
    assert (shown < [192, 256]).all()


@pytest.mark.parametrize(
    ("codec", "first", "last"), [("msra", (0, 0), (192, 256)), ("udp", (0, 0), (191, 255))]
)
def test_the_rim_of_the_crop_lies_where_the_codec_says(codec, first, last):
    # A box that is the crop: 192x256 at (10, 20), no padding.
    center, size = geometry.crop_boxes([[10, 20, 202, 276]], INPUT_HW, padding=1)
    matrix = geometry.crop_matrices(center, size, INPUT_HW, codec)
    mapped = geometry.apply_affines([[[10, 20], [202, 276]]], matrix)
    np.testing.assert_allclose(mapped, [[first, last]], atol=1e-9)


@untimed
@given(boxes, st.sampled_from(CODECS), st.floats(-180, 180))
def test_a_crop_turns_about_its_centre(xyxy, codec, angle):
    centers, _ = geometry.crop_boxes(xyxy, INPUT_HW)
    mapped = geometry.apply_affines(
        centers[:, None], matrices_of(xyxy, codec, np.full(len(xyxy), angle))
    )
    middle = (95.5, 127.5) if codec == "udp" else (96, 128)
    np.testing.assert_allclose(mapped, np.broadcast_to(middle, mapped.shape), atol=1e-6)


@pytest.mark.parametrize(("codec", "sign"), [("msra", -1), ("dark", -1), ("udp", 1)])
def test_the_sign_of_a_rotation_is_that_of_the_codecs_reference(codec, sign):
    to_crop = matrices_of([[10, 20, 202, 276]], codec, np.array([90.0]))
    middle, right = geometry.apply_affines([[[106, 148], [126, 148]]], to_crop)[0]
    assert right[0] == pytest.approx(middle[0])
    assert np.sign(right[1] - middle[1]) == sign


def test_msra_and_dark_share_their_crop():
    rotations = np.array([30.0])
    np.testing.assert_array_equal(
        matrices_of([[5, 6, 70, 90]], "msra", rotations),
        matrices_of([[5, 6, 70, 90]], "dark", rotations),
    )


def test_crop_pixels_stand_where_the_matrix_says():
    image = ramp(200, 220)
    to_crop = matrices_of([[60, 50, 100, 110]], "udp")
    crop = geometry.warp_crops(image, to_crop, INPUT_HW)[0].astype(float)
    y, x = np.mgrid[:256, :192]
    points = np.stack([x, y], axis=-1).reshape(1, -1, 2)
    source = geometry.apply_affines(points, geometry.invert_affines(to_crop)).reshape(256, 192, 2)
    # A ramp is reproduced by bilinear sampling: what is left is rounding to uint8 (0.5) and, in
    # OpenCV 4, positions in 1/32 pixel. Half a pixel of shift in the convention would show as 0.5
    # of bias.
    difference = crop[..., :2] - source
    assert np.abs(difference).max() <= 0.6
    assert np.abs(difference.mean(axis=(0, 1))).max() < 0.05


def test_crops_equal_warping_from_the_whole_picture():
    rng = np.random.default_rng(3)
    image = cv2.GaussianBlur(rng.integers(0, 256, (300, 400, 3), np.uint8), (5, 5), 0)
    xyxy = [[-50, -60, 80, 120], [100, 90, 160, 250], [350, 200, 480, 390], [0, 0, 399, 299]]
    to_crop = matrices_of(xyxy, "msra", np.array([0.0, 45.0, -80.0, 0.0]))
    crops = geometry.warp_crops(image, to_crop, INPUT_HW)
    for crop, matrix in zip(crops, to_crop, strict=True):
        whole = cv2.warpAffine(image, matrix, (192, 256), flags=cv2.INTER_LINEAR)
        difference = np.abs(crop.astype(int) - whole)
        # Inverting the map here or inside OpenCV rounds differently: single grey levels.
        assert difference.max() <= 1
        assert (difference > 0).mean() < 0.005


@settings(deadline=None, max_examples=50)
@given(
    st.tuples(st.integers(1, 200), st.integers(1, 200)),
    st.tuples(st.floats(-50, 250), st.floats(-50, 250)),
    st.floats(2, 400),
    st.sampled_from(CODECS),
    st.sampled_from([0.0, 30.0, -135.0]),
)
def test_reading_only_the_touched_part_changes_nothing(shape, center, height, codec, angle):
    image = np.random.default_rng(0).integers(0, 256, (*shape, 3), np.uint8)
    to_crop = geometry.crop_matrices(
        [center], [[height * 0.75, height]], (64, 48), codec, np.array([angle])
    )
    whole = cv2.warpAffine(
        image,
        geometry.invert_affines(to_crop)[0],
        (48, 64),
        flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
    )
    difference = np.abs(geometry.warp_crops(image, to_crop, (64, 48))[0].astype(int) - whole)
    # OpenCV 5 has positions in float32: of noise, single values on the edge of rounding move by one
    # level. A missing row of the part would change many by many.
    assert difference.max() <= 1
    assert (difference > 0).mean() < 0.01


@pytest.mark.parametrize("corner", [(0, 0), (3, 5), (36, 16)])
@pytest.mark.parametrize(("codec", "steps"), [("msra", 64), ("dark", 64), ("udp", 63)])
def test_whole_steps_copy_pixels_exactly(corner, codec, steps):
    image = np.random.default_rng(0).integers(0, 256, (80, 100, 3), np.uint8)
    center = np.array([corner]) + steps / 2
    to_crop = geometry.crop_matrices(center, [[steps, steps]], (64, 64), codec)
    x, y = corner
    np.testing.assert_array_equal(
        geometry.warp_crops(image, to_crop, (64, 64))[0], image[y : y + 64, x : x + 64]
    )


@pytest.mark.parametrize("codec", CODECS)
def test_a_dot_is_found_in_the_turned_crop_where_the_matrix_says(codec):
    # The centroid of a smooth dot shows a hundredth of a pixel.
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:240, :320]
    crop_y, crop_x = np.mgrid[:256, :192]
    for _ in range(10):
        dot = rng.uniform([120, 90], [200, 150])
        grey = 255 * np.exp(-((x - dot[0]) ** 2 + (y - dot[1]) ** 2) / (2 * 5.0**2))
        image = np.repeat(np.round(grey)[..., None], 3, axis=2).astype(np.uint8)
        to_crop = matrices_of([[90, 30, 230, 210]], codec, rng.uniform(-40, 40, 1))
        crop = geometry.warp_crops(image, to_crop, INPUT_HW)[0, ..., 0].astype(float)
        centroid = [(crop_x * crop).sum() / crop.sum(), (crop_y * crop).sum() / crop.sum()]
        expected = geometry.apply_affines(dot[None, None], to_crop)[0, 0]
        np.testing.assert_allclose(centroid, expected, atol=0.03)


def random_crops(image_hw, count):
    """Matrices of turned crops of all sizes, one of them beside the picture."""
    rng = np.random.default_rng(0)
    height, width = image_hw
    centers = rng.uniform(-0.1, 1.1, (count, 2)) * [width, height]
    centers[0] = 9000
    sizes = rng.uniform(0.1, 1.5, (count, 1)) * height * [0.75, 1]
    return geometry.crop_matrices(centers, sizes, (64, 48), "udp", rng.uniform(-90, 90, count))


def test_people_are_cropped_as_if_alone():
    image = np.random.default_rng(1).integers(0, 256, (300, 320, 3), np.uint8)
    to_crop = random_crops((300, 320), 9)
    together = geometry.warp_crops(image, to_crop, (64, 48))
    alone = [geometry.warp_crops(image, to_crop[n : n + 1], (64, 48))[0] for n in range(9)]
    np.testing.assert_array_equal(together, alone)
    assert together[1:].any(axis=(1, 2, 3)).all()


def test_four_channels_give_the_values_of_three(monkeypatch):
    image = np.random.default_rng(1).integers(0, 256, (300, 320, 3), np.uint8)
    to_crop = random_crops((300, 320), 20)
    crops = []
    for ratio in (0, 1e9):
        monkeypatch.setattr(geometry, "FOUR_CHANNEL_RATIO", ratio)
        crops.append(geometry.warp_crops(image, to_crop, (64, 48)))
    np.testing.assert_array_equal(*crops)


def test_pictures_wider_than_opencv_takes_are_cropped_as_exactly_as_small_ones():
    # OpenCV 4 ends at 32766 pixels a side.
    image = np.random.default_rng(0).integers(0, 256, (64, 40_000, 3), np.uint8)
    cut = image[:, 39_000:]
    near = geometry.crop_matrices([[500.3, 30.2]], [[45.3, 60.4]], INPUT_HW, "msra")
    far = geometry.crop_matrices([[39_500.3, 30.2]], [[45.3, 60.4]], INPUT_HW, "msra")
    equal = geometry.warp_crops(image, far, INPUT_HW) == geometry.warp_crops(cut, near, INPUT_HW)
    # Positions counted from the picture's edge would round 1 value in 20 differently.
    assert equal.mean() > 0.999


@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize(
    "xyxy",
    [[500, 500, 540, 560], [-300, -300, -200, -100], [-99, 0, -50, 30], [1e8, 1e8, 2e8, 2e8]],
)
def test_a_box_beside_the_picture_gives_a_black_crop(xyxy, codec):
    image = np.full((40, 50, 3), 200, np.uint8)
    crops = geometry.warp_crops(image, matrices_of([xyxy], codec), INPUT_HW)
    assert crops.shape == (1, 256, 192, 3)
    assert not crops.any()


def test_one_pixel_fades_out_to_the_distance_of_a_pixel():
    image = np.full((1, 1, 3), 200, np.uint8)
    crop = geometry.warp_crops(image, matrices_of([[-0.5, -0.5, 0.5, 0.5]], "msra"), INPUT_HW)[0]
    assert crop[128, 96].tolist() == [200, 200, 200]
    # The corner lies 0.625 pixels left of and 0.833 above the pixel: bilinear weight of one pixel.
    assert crop[0, 0] == pytest.approx(200 * (1 - 0.625) * (1 - 0.8333), abs=1)


def test_cropping_leaves_the_picture_alone():
    image = ramp(60, 80)
    before = image.copy()
    geometry.warp_crops(image, matrices_of([[10, 10, 40, 50]], "udp"), INPUT_HW)
    np.testing.assert_array_equal(image, before)


def test_a_view_with_strides_is_cropped_like_its_copy():
    mirrored = ramp(60, 80)[:, ::-1]
    to_crop = matrices_of([[10, 10, 40, 50]], "udp")
    np.testing.assert_array_equal(
        geometry.warp_crops(mirrored, to_crop, INPUT_HW),
        geometry.warp_crops(mirrored.copy(), to_crop, INPUT_HW),
    )


@pytest.mark.parametrize("codec", CODECS)
def test_zero_people(codec):
    centers, sizes = geometry.crop_boxes(np.zeros((0, 4)), INPUT_HW)
    assert centers.shape == sizes.shape == (0, 2)
    to_crop = geometry.crop_matrices(centers, sizes, INPUT_HW, codec)
    assert to_crop.shape == (0, 2, 3)
    assert geometry.invert_affines(to_crop).shape == (0, 2, 3)
    assert geometry.apply_affines(np.zeros((0, 17, 2)), to_crop).shape == (0, 17, 2)
    image = np.zeros((4, 5, 3), np.uint8)
    assert geometry.warp_crops(image, to_crop, INPUT_HW).shape == (0, 256, 192, 3)
    assert geometry.points_in_frame(np.zeros((0, 17, 2)), (5, 4)).shape == (0, 17)
    assert geometry.box_iou([], [[0, 0, 1, 1]]).shape == (0, 1)
    assert geometry.box_nms([], [], 0.5).shape == (0,)


@untimed
@given(boxes)
def test_iou_is_symmetric_and_one_with_itself(xyxy):
    iou = geometry.box_iou(xyxy, xyxy)
    np.testing.assert_allclose(iou, iou.T)
    np.testing.assert_allclose(np.diag(iou), 1)
    assert ((iou >= 0) & (iou <= 1 + 1e-12)).all()


def test_iou_counts():
    # 10x10 boxes shifted by 5: 50 shared of 150; with the last pixel counted, 66 of 176.
    pair = [[0, 0, 10, 10]], [[5, 0, 15, 10]]
    assert geometry.box_iou(*pair)[0, 0] == pytest.approx(1 / 3)
    assert geometry.box_iou(*pair, legacy_pixels=True)[0, 0] == pytest.approx(66 / 176)
    assert geometry.box_iou([[3, 3, 3, 3]], [[3, 3, 3, 3]])[0, 0] == 0


@untimed
@given(boxes, st.floats(0, 1))
def test_nms_keeps_no_two_overlapping_boxes_and_drops_nothing_else(xyxy, threshold):
    scores = np.linspace(0.9, 0.1, len(xyxy))
    kept = geometry.box_nms(xyxy, scores, threshold)
    iou = geometry.box_iou(xyxy, xyxy)
    among_kept = iou[np.ix_(kept, kept)][np.triu_indices(len(kept), k=1)]
    assert (among_kept <= threshold).all()
    for dropped in set(range(len(xyxy))) - set(kept.tolist()):
        better = kept[scores[kept] > scores[dropped]]
        assert iou[better, dropped].max() > threshold
    assert (np.diff(scores[kept]) <= 0).all()


def test_nms_drops_above_the_threshold_only_and_of_equal_scores_keeps_the_later():
    stack = [[0, 0, 10, 10], [0, 0, 10, 9]]
    assert geometry.box_iou(stack, stack)[0, 1] == 0.9
    np.testing.assert_array_equal(geometry.box_nms(stack, [0.5, 0.8], 0.9), [1, 0])
    np.testing.assert_array_equal(geometry.box_nms(stack, [0.5, 0.8], 0.89), [1])
    np.testing.assert_array_equal(geometry.box_nms(stack, [0.5, 0.5], 0.89), [1])


def test_of_boxes_that_overlap_the_first_stays():
    boxes = np.array([[0, 0, 10, 10], [0, 0, 10, 9], [20, 0, 30, 10], [0, 0, 10, 5]])
    order = np.array([1, 0, 3, 2])
    # IoU with the first of the order: 0.9 and 5/9.
    assert geometry.keep_apart(boxes, order, 0.7).tolist() == [1, 3, 2]
    assert geometry.keep_apart(boxes, order, 0.5).tolist() == [1, 2]
    assert geometry.keep_apart(boxes, order, 0.7, most=1).tolist() == [1]
    assert geometry.keep_apart(boxes[:0], order[:0], 0.7).tolist() == []


def test_nms_of_many_boxes_takes_little_memory():
    # All pairs of 6,000 boxes would be 288 MB for each number of a pair.
    random = np.random.default_rng(0)
    near = random.uniform(0, 100, (6000, 2))
    xyxy = np.concatenate([near, near + random.uniform(50, 80, (6000, 2))], axis=1)
    tracemalloc.start()
    kept = geometry.box_nms(xyxy, random.uniform(size=6000), 0.3)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert 1 < len(kept) < 100
    assert peak < 20e6


def test_widths_and_heights_become_corners():
    np.testing.assert_array_equal(geometry.xywh_to_xyxy([[3, 4, 10, 20]]), [[3, 4, 13, 24]])


def test_annotated_boxes_lose_a_pixel_and_stay_on_pixel_centres():
    cleaned = geometry.clip_annotated_boxes(
        [[10, 20, 30, 40], [-5, -5, 20, 20], [90, 40, 50, 50], [200, 10, 5, 5]], (100, 50)
    )
    np.testing.assert_array_equal(cleaned[:3], [[10, 20, 29, 29], [0, 0, 19, 19], [90, 40, 9, 9]])
    assert cleaned[3, 2] < 0  # nothing of it is on the picture


def test_the_frame_reaches_half_a_pixel_beyond_its_pixel_centres():
    points = [[[-0.5, -0.5], [639.4, 479.4], [-0.6, 3], [3, 479.5], [np.nan, 3]]]
    np.testing.assert_array_equal(
        geometry.points_in_frame(points, (640, 480)), [[True, True, False, False, False]]
    )
