"""Half-body crops, mirroring and whole augmented samples against the official code, same draws."""

import numpy as np
import pytest
import torch

from hrnet_cli import geometry, targets
from hrnet_cli.config import ModelSpec
from hrnet_cli.data import augment
from hrnet_cli.data.augment import AugmentConfig, BodyHalves
from hrnet_cli.data.photos import read_photo
from hrnet_cli.runtimes.torch_eager import TorchEager
from hrnet_cli.schema import load_schema

PIXEL_STD = 200
INPUT_HW = (256, 192)
RATIO = 192 / 256
SCHEMA = load_schema("coco17")


@pytest.fixture(scope="module")
def reference(golden):
    return golden("augment.npz")


@pytest.fixture(scope="module")
def labels(golden, reference):
    """Crops, keypoints and visibility of the annotated people before augmentation."""
    items = golden("coco_items_val.npz")
    picked = {
        key: items[f"gt_db_{key}"][reference["aug_db_index"]]
        for key in ("image_id", "center", "scale")
    }
    joints = items["gt_db_joints_3d"][reference["aug_db_index"]][..., :2]
    visible = items["gt_db_joints_3d_vis"][reference["aug_db_index"]][..., 0]
    crops = (picked["center"].astype(np.float64), picked["scale"].astype(np.float64) * PIXEL_STD)
    return picked["image_id"], crops, joints, visible


@pytest.fixture(scope="module")
def draws(reference):
    """The draws that the stored random numbers stand for."""
    scale, rotation, half_prob, half_min = reference["aug_params"]
    config = AugmentConfig(
        scale=scale, rotation_deg=rotation, half_body_prob=half_prob, half_body_min=int(half_min)
    )
    # Of the remaining columns, of which the official code knows nothing, any value will do.
    uniform = np.random.default_rng(0).random((24, augment.UNIFORM_COLUMNS))
    normal = np.zeros((24, len(augment.NORMAL)))
    for name, key in (
        ("half_body", "rand_halfbody"),
        ("rotate", "random_rotgate"),
        ("flip", "random_flip"),
    ):
        uniform[:, augment.UNIFORM.index(name)] = reference[f"aug_draw_{key}"]
    for name, key in (
        ("upper", "randn_halfbody"),
        ("scale", "randn_scale"),
        ("rotation", "randn_rot"),
    ):
        normal[:, augment.NORMAL.index(name)] = reference[f"aug_draw_{key}"]
    return augment.shape_draws(config, uniform, normal)


@pytest.fixture(scope="module")
def crops(reference, labels, draws):
    _, before, joints, visible = labels
    halves = BodyHalves.of(SCHEMA, int(reference["aug_params"][3]))
    return augment.vary_crops(draws, before, joints, visible > 0, halves)


@pytest.fixture(scope="module")
def matrices(draws, crops):
    return augment.varied_matrices(draws, crops, INPUT_HW, "msra")


def test_half_body(reference):
    centers, sizes, found = augment.half_body_crops(
        reference["hb_joints"][..., :2],
        reference["hb_vis"][..., 0] > 0,
        BodyHalves.of(SCHEMA, 0),
        reference["hb_force_upper"] == 1,
        RATIO,
    )
    np.testing.assert_array_equal(found, ~reference["hb_is_none"])
    # The reference computes in float32.
    np.testing.assert_allclose(centers[found], reference["hb_center"][found], rtol=1e-4)
    np.testing.assert_allclose(sizes[found] / PIXEL_STD, reference["hb_scale"][found], rtol=1e-4)


def test_mirrored_keypoints(reference, draws):
    width = int(reference["flip_width"])
    mirror = np.tile([[-1.0, 0, width - 1], [0, 1, 0]], (24, 1, 1))
    every = np.ones(24, bool)
    joints = reference["hb_joints"][..., :2]
    visible = reference["hb_vis"][..., 0]
    points, weights = augment.move_keypoints(joints, visible, mirror, every, SCHEMA)
    np.testing.assert_allclose(points, reference["flip_joints"][..., :2], atol=1e-9)
    np.testing.assert_array_equal(weights, reference["flip_vis"][..., 0])


def test_crops(reference, crops, draws, labels):
    centers, sizes = crops
    np.testing.assert_allclose(draws.rotation_deg_N, reference["aug_rotation"], atol=1e-4)
    np.testing.assert_allclose(sizes / PIXEL_STD, reference["aug_scale"], rtol=1e-4)
    # The reference mirrors the centre with the photo; here that is part of the matrix.
    plain = ~draws.flip_N
    assert plain.any()
    np.testing.assert_allclose(centers[plain], reference["aug_center"][plain], rtol=1e-4)
    moved = np.abs(centers - labels[1][0]).max(axis=1) > 1e-3
    np.testing.assert_array_equal(moved, reference["aug_half_body_applied"])


def test_keypoints_and_targets(reference, labels, draws, matrices):
    _, _, joints, visible = labels
    points, weights = augment.move_keypoints(joints, visible, matrices, draws.flip_N, SCHEMA)
    np.testing.assert_allclose(points, reference["aug_joints"][..., :2], atol=1e-2)
    np.testing.assert_array_equal(weights, reference["aug_joints_vis"][..., 0])
    encoded = targets.encode(torch.tensor(points), torch.tensor(weights), INPUT_HW, "msra", 2)
    heatmaps, target_weights = (tensor.numpy() for tensor in encoded)
    np.testing.assert_array_equal(target_weights, reference["aug_target_weight"][..., 0])
    np.testing.assert_allclose(
        heatmaps.sum((2, 3), dtype=np.float64), reference["aug_target_sum"], rtol=1e-6, atol=1e-6
    )


def test_network_input(reference, golden, golden_photos, labels, matrices):
    names = {image["id"]: image["file_name"] for image in golden("coco_gt_subset.json")["images"]}
    crops = np.concatenate(
        [
            geometry.warp_crops(read_photo(golden_photos / names[image_id]), matrix[None], INPUT_HW)
            for image_id, matrix in zip(labels[0], matrices, strict=True)
        ]
    )
    spec = ModelSpec("test", 4, INPUT_HW, "msra", SCHEMA)
    pixels = TorchEager(torch.nn.Identity(), spec, "cpu").normalise(crops).numpy()
    # JPEG decoders and warps differ by a few grey levels (0.017 each after normalising).
    np.testing.assert_allclose(pixels[:, :, ::16, ::16], reference["aug_input_sub16"], atol=0.1)
    statistics = np.stack([pixels.mean((2, 3)), pixels.std((2, 3), ddof=1)], axis=-1)
    np.testing.assert_allclose(statistics, reference["aug_input_mean_std"], atol=2e-3)
