"""Augmentation: ranges, draws that depend on nothing but their key, one warp for everything."""

import numpy as np
import pytest

from hrnet_cli.data import augment
from hrnet_cli.data.augment import AugmentConfig, BodyHalves, draw, draw_for
from hrnet_cli.errors import ConfigError, ExitCode
from hrnet_cli.geometry import apply_affines, crop_matrices, warp_crops
from hrnet_cli.schema import KeypointSchema, load_schema

COCO = load_schema("coco17")
INPUT_HW = (64, 48)
FRAME = (np.array([[20.0, 30.0]]), np.array([[36.0, 48.0]]))


def draws_of(config: AugmentConfig, count: int = 4000) -> augment.Draws:
    return draw(config, np.random.default_rng(7), count)


@pytest.mark.parametrize(
    ("field", "value", "highest"),
    [
        ("scale", 1.0, "0.99"),
        ("scale", -0.1, "0.99"),
        ("rotation_deg", 181, "180"),
        ("flip_prob", 1.5, "1"),
        ("shift", float("nan"), "1"),
        ("color", -1, "1"),
    ],
)
def test_values_outside_their_range_are_named(field, value, highest):
    with pytest.raises(ConfigError, match=rf"augment\.{field} is {value}.* from 0 to {highest}$"):
        AugmentConfig(**{field: value})


def test_unknown_distribution():
    with pytest.raises(ConfigError, match="'normal', expected one of clipped, truncated") as caught:
        AugmentConfig(distribution="normal")
    assert caught.value.exit_code == ExitCode.CONFIG


def test_official_draws_have_the_stated_spread():
    draws = draws_of(AugmentConfig())
    # Of 4000 draws a share lies within 0.03 of its probability (four standard deviations).
    assert np.mean(draws.half_body_N) == pytest.approx(0.3, abs=0.03)
    assert np.mean(draws.upper_N) == pytest.approx(0.6915, abs=0.03)
    assert np.mean(draws.flip_N) == pytest.approx(0.5, abs=0.03)
    assert np.mean(draws.rotation_deg_N != 0) == pytest.approx(0.6, abs=0.03)
    assert (draws.scale_N.min(), draws.scale_N.max()) == pytest.approx((0.65, 1.35))
    assert np.mean(draws.scale_N == draws.scale_N.max()) == pytest.approx(0.16, abs=0.03)
    assert np.abs(draws.rotation_deg_N).max() == 90
    assert not draws.shift_N2.any()
    assert not draws.color_N4.any()
    assert not draws.cutouts_NR7.any()


def test_truncated_draws_stay_within_and_do_not_pile_up_at_the_limit():
    draws = draws_of(
        AugmentConfig(
            scale=0.5, rotation_deg=80, shift=0.16, shift_prob=0.3, distribution="truncated"
        )
    )
    assert 0.5 < draws.scale_N.min() < 0.53
    assert 1.47 < draws.scale_N.max() < 1.5
    # Standard deviation of a normal number between -1 and 1: 0.54.
    assert np.std(draws.scale_N) == pytest.approx(0.27, abs=0.01)
    assert 75 < np.abs(draws.rotation_deg_N).max() < 80
    assert np.mean(draws.shift_N2[:, 0] != 0) == pytest.approx(0.3, abs=0.03)
    assert 0.15 < np.abs(draws.shift_N2).max() < 0.16


def test_no_augmentation_changes_nothing():
    draws = draws_of(AugmentConfig.none(), 50)
    points, weights = np.random.default_rng(0).random((50, 17, 2)) * 50, np.ones((50, 17))
    before = (np.repeat(FRAME[0], 50, 0), np.repeat(FRAME[1], 50, 0))
    crops = augment.vary_crops(draws, before, points, weights > 0, BodyHalves.of(COCO, 8))
    np.testing.assert_array_equal(crops, before)
    np.testing.assert_array_equal(
        augment.varied_matrices(draws, crops, INPUT_HW, "udp"),
        crop_matrices(*before, INPUT_HW, "udp"),
    )


def test_draws_depend_on_seed_epoch_and_index_only():
    config = AugmentConfig(color=1, cutout_prob=0.5)
    together = draw_for(config, 3, [(1, 5), (1, 6), (2, 5)])
    alone = draw_for(config, 3, [(1, 6)])
    other_seed = draw_for(config, 4, [(1, 6)])
    for name, values in vars(together).items():
        np.testing.assert_array_equal(values[1:2], getattr(alone, name))
    assert len({*together.color_N4[:, 0].tolist(), *other_seed.color_N4[:, 0].tolist()}) == 4


def test_strengths_do_not_change_the_other_draws():
    plain = draw_for(AugmentConfig(), 3, [(0, 0), (0, 1)])
    colored = draw_for(AugmentConfig(color=1, cutout_prob=1), 3, [(0, 0), (0, 1)])
    np.testing.assert_array_equal(plain.scale_N, colored.scale_N)
    np.testing.assert_array_equal(plain.rotation_deg_N, colored.rotation_deg_N)


@pytest.mark.parametrize("codec", ["msra", "dark", "udp"])
def test_mirroring_inside_the_warp_equals_mirroring_the_photo(codec):
    photo = np.random.default_rng(1).integers(0, 256, (60, 50, 3), dtype=np.uint8)
    flipped = augment.shape_draws(
        AugmentConfig(rotation_deg=30), np.zeros((1, augment.UNIFORM_COLUMNS)), np.ones((1, 5))
    )
    assert flipped.flip_N.all()
    ours = augment.varied_matrices(flipped, FRAME, INPUT_HW, codec)
    center = FRAME[0] * [-1, 1] + [photo.shape[1] - 1, 0]
    theirs = crop_matrices(center, FRAME[1], INPUT_HW, codec, flipped.rotation_deg_N)
    mirrored = np.ascontiguousarray(photo[:, ::-1])
    # The same positions up to rounding: one grey level.
    np.testing.assert_allclose(
        warp_crops(photo, ours, INPUT_HW).astype(int),
        warp_crops(mirrored, theirs, INPUT_HW).astype(int),
        atol=1,
    )


def test_keypoints_change_places_and_unlabelled_ones_stay_away():
    points = np.arange(34.0).reshape(1, 17, 2)
    weights = np.linspace(0.1, 1, 17)[None]
    weights[0, 5] = 0
    still = np.array([[[1.0, 0, 0], [0, 1, 0]]])
    moved, moved_weights = augment.move_keypoints(points, weights, still, np.array([True]), COCO)
    left, right = COCO.index["left_shoulder"], COCO.index["right_shoulder"]
    assert left == 5
    np.testing.assert_array_equal(moved[0, left], points[0, right])
    np.testing.assert_array_equal(moved[0, right], (0, 0))
    assert moved_weights[0, right] == 0
    assert moved_weights[0, left] == weights[0, right]


def half_body(points, labelled, *, upper=True, schema=COCO):
    halves = BodyHalves.of(schema, 8)
    return augment.half_body_crops(points, labelled, halves, np.array([upper]), 0.75)


def test_half_body_takes_the_named_half():
    points = np.zeros((1, 17, 2))
    points[0, :11] = np.linspace((10, 10), (30, 50), 11)
    points[0, 11:] = np.linspace((100, 100), (130, 120), 6)
    everything = np.ones((1, 17), bool)
    centers, sizes, found = half_body(points, everything)
    assert found.all()
    np.testing.assert_allclose(centers[0], (20, 30))
    np.testing.assert_allclose(sizes[0], (45, 60))  # 40 high, times 1.5
    np.testing.assert_allclose(half_body(points, everything, upper=False)[0][0], (115, 110))
    # Two of the lower half are too few: the upper is taken all the same.
    few = everything.copy()
    few[0, 13:] = False
    np.testing.assert_allclose(half_body(points, few, upper=False)[0][0], (20, 30))


@pytest.mark.parametrize("count", [0, 1])
def test_half_body_needs_two_keypoints(count):
    labelled = np.zeros((1, 17), bool)
    labelled[0, :count] = True
    assert not half_body(np.random.default_rng(0).random((1, 17, 2)), labelled)[2].any()


def test_half_body_of_keypoints_in_one_place_is_none():
    assert not half_body(np.full((1, 17, 2), 5.0), np.ones((1, 17), bool))[2].any()


def test_schema_without_halves_is_cropped_whole():
    schema = KeypointSchema("fish", tuple(f"point{k}" for k in range(17)))
    config = AugmentConfig(half_body_prob=1, scale=0)
    crops = augment.vary_crops(
        draws_of(config, 1),
        FRAME,
        np.random.default_rng(0).random((1, 17, 2)),
        np.ones((1, 17), bool),
        BodyHalves.of(schema, 8),
    )
    np.testing.assert_array_equal(crops, FRAME)


def test_half_body_only_with_more_keypoints_than_asked():
    points = np.random.default_rng(0).random((2, 17, 2)) * 40
    labelled = np.ones((2, 17), bool)
    labelled[1, 8:] = False
    crops = augment.vary_crops(
        draws_of(AugmentConfig(half_body_prob=1, scale=0), 2),
        (FRAME[0].repeat(2, 0), FRAME[1].repeat(2, 0)),
        points,
        labelled,
        BodyHalves.of(COCO, 8),
    )
    assert not np.allclose(crops[0][0], FRAME[0][0])
    np.testing.assert_array_equal(crops[0][1], FRAME[0][0])


def test_nobody():
    draws = draw_for(AugmentConfig(distribution="truncated"), 0, [])
    empty = (np.zeros((0, 2)), np.zeros((0, 2)))
    points, labelled = np.zeros((0, 17, 2)), np.zeros((0, 17), bool)
    crops = augment.vary_crops(draws, empty, points, labelled, BodyHalves.of(COCO, 8))
    matrices = augment.varied_matrices(draws, crops, INPUT_HW, "msra")
    assert matrices.shape == (0, 2, 3)
    moved, _ = augment.move_keypoints(points, labelled * 1.0, matrices, draws.flip_N, COCO)
    assert moved.shape == (0, 17, 2)


def test_shift_moves_the_crop_by_a_part_of_its_sides():
    config = AugmentConfig.none()
    draws = draw(config, np.random.default_rng(0), 1)
    shifted = augment.Draws(**(vars(draws) | {"shift_N2": np.array([[0.5, -0.25]])}))
    none = BodyHalves.of(COCO, 8)
    crops = augment.vary_crops(shifted, FRAME, np.zeros((1, 17, 2)), np.zeros((1, 17), bool), none)
    np.testing.assert_allclose(crops[0], FRAME[0] + [18, -12])
    point = apply_affines(crops[0][None], augment.varied_matrices(shifted, crops, INPUT_HW, "msra"))
    np.testing.assert_allclose(point[0, 0], (24, 32))


def test_colors():
    crop = np.random.default_rng(0).integers(40, 200, (8, 6, 3), dtype=np.uint8)
    assert augment.recolor(crop, np.zeros(4)) is crop
    brighter = augment.recolor(crop, np.array([0.2, 0, 0, 0]))
    np.testing.assert_allclose(brighter, crop * 1.2, atol=0.51)
    grey = augment.recolor(crop, np.array([0, 0, -1.0, 0]))
    # The colour axes of YIQ are known to three digits.
    assert np.abs(np.ptp(grey.astype(int), axis=2)).max() <= 1
    flat = augment.recolor(crop, np.array([0, -1.0, 0, 0]))
    assert np.ptp(flat) <= 1
    whole_turn = augment.recolor(crop, np.array([0, 0, 0, 1.0]))
    np.testing.assert_allclose(whole_turn, crop, atol=1)
    half_turn = augment.recolor(crop, np.array([0, 0, 0, 0.5]))
    assert np.abs(half_turn.astype(int) - crop).mean() > 10


def test_cutouts():
    crop = np.zeros((100, 50, 3), np.uint8)
    cutouts = np.zeros((4, 7))
    assert augment.cut_out(crop, cutouts) is crop
    cutouts[0] = (0.5, 0.5, 0.2, 0.1, 1, 0, 0)
    cutouts[1] = (0.0, 1.0, 0.2, 0.2, 0, 1, 0)
    painted = augment.cut_out(crop, cutouts)
    assert not crop.any()
    assert painted[..., 0].sum() == 255 * 10 * 10
    assert painted[..., 1].sum() == 255 * 5 * 10
    assert (painted[45:55, 20:30, 0] == 255).all()
    drawn = draws_of(AugmentConfig(cutout_prob=0.5)).cutouts_NR7
    assert np.mean(drawn[:, 0, 2] > 0) == pytest.approx(0.5, abs=0.03)
    assert drawn[drawn[:, 0, 2] > 0][:, :, 2:4].min() >= 0.05
    assert drawn[:, :, 2:4].max() <= 0.2


def test_crops_become_coarser_and_stay_in_place():
    rng = np.random.default_rng(0)
    crop = rng.integers(0, 256, (64, 48, 3), np.uint8)
    assert augment.coarsen(crop, 1.0) is crop
    # A light spot stays where it is, and fine noise goes.
    dark = np.zeros((64, 48, 3), np.uint8)
    dark[20:28, 8:16] = 200
    coarse = augment.coarsen(dark, 0.25).astype(float)[..., 0]
    rows, columns = np.indices(coarse.shape)
    assert (coarse * rows).sum() / coarse.sum() == pytest.approx(23.5, abs=0.1)
    assert (coarse * columns).sum() / coarse.sum() == pytest.approx(11.5, abs=0.1)
    assert augment.coarsen(crop, 0.25).std() < 0.5 * crop.std()
    assert augment.coarsen(crop, 0.001).shape == crop.shape


def test_so_many_crops_become_coarser_by_so_much():
    config = AugmentConfig(low_res_prob=0.4, low_res=0.25)
    detail_N = augment.draw(config, np.random.default_rng(0), 4000).detail_N
    coarser_N = detail_N[detail_N < 1]
    assert len(coarser_N) / 4000 == pytest.approx(0.4, abs=0.03)
    assert coarser_N.min() > 0.25
    assert np.median(coarser_N) == pytest.approx(0.5, abs=0.03)
    none = augment.draw(AugmentConfig(), np.random.default_rng(0), 50)
    assert (none.detail_N == 1).all()
    with pytest.raises(ConfigError, match="low_res is 0, expected a number above 0"):
        AugmentConfig(low_res=0)


def test_what_was_drawn_before_stays_with_the_coarser_crops():
    keys = [(0, 3), (1, 4)]
    before = augment.draw_for(AugmentConfig(), 5, keys)
    after = augment.draw_for(AugmentConfig(low_res_prob=1.0), 5, keys)
    assert (after.detail_N < 1).all()
    for name, value in vars(before).items():
        if name != "detail_N":
            np.testing.assert_array_equal(value, getattr(after, name))
