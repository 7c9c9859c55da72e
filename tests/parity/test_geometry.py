"""Crop geometry against the official code and MMPose (preprocess.npz)."""

import cv2
import numpy as np
import pytest

from hrnet_cli import geometry

SIZES = {"s192x256": (256, 192), "s288x384": (384, 288), "s256x256": (256, 256)}
# Scales are boxes in units of 200 pixels in the official code.
PIXEL_STD = 200
# Below two pixels the official float32 point triples are ill-conditioned.
SMALLEST_SIDE_PX = 2


@pytest.fixture(scope="module")
def reference(golden):
    return golden("preprocess.npz")


@pytest.fixture(params=SIZES, scope="module")
def size(request):
    return request.param


def crops_of(reference, size):
    """Centres, sizes and the boxes whose centre meets the official -1 slip."""
    xyxy = geometry.xywh_to_xyxy(reference["boxes_xywh"])
    centers, sizes = geometry.crop_boxes(xyxy, SIZES[size])
    slipped = reference[f"{size}_center"][:, 0] == -1
    return centers, sizes, slipped


def well_conditioned(reference):
    return reference["boxes_xywh"][:, 2:].min(axis=1) >= SMALLEST_SIDE_PX


def test_crop_boxes_equal_official(reference, size):
    centers, sizes, slipped = crops_of(reference, size)
    np.testing.assert_allclose(centers, reference[f"{size}_center"], rtol=1e-5, atol=1e-5)
    expected = reference[f"{size}_scale"] * PIXEL_STD
    np.testing.assert_allclose(sizes[~slipped], expected[~slipped], rtol=1e-5)


def test_a_centre_at_minus_one_is_padded_like_any_other(reference, size):
    # The official code leaves the padding out there; the product does not.
    _, sizes, slipped = crops_of(reference, size)
    unpadded = reference[f"{size}_scale"][slipped] * PIXEL_STD
    np.testing.assert_allclose(sizes[slipped], unpadded * 1.25, rtol=1e-5)


def test_crop_boxes_equal_mmpose(reference, size):
    centers, sizes, _ = crops_of(reference, size)
    np.testing.assert_allclose(centers, reference[f"{size}_mm_center"], rtol=1e-5, atol=1e-4)
    np.testing.assert_allclose(sizes, reference[f"{size}_mm_scale_px"], rtol=1e-5)


@pytest.mark.parametrize(
    ("prefix", "codec", "center", "scale", "unit"),
    [
        ("trans", "msra", "center", "scale", PIXEL_STD),
        ("mm_trans", "msra", "mm_center", "mm_scale_px", 1),
        ("mm_udp_trans", "udp", "mm_center", "mm_scale_px", 1),
    ],
)
def test_crop_matrices_map_the_corners_alike(reference, size, prefix, codec, center, scale, unit):
    centers = reference[f"{size}_{center}"]
    sizes = reference[f"{size}_{scale}"].astype(np.float64) * unit
    ours = geometry.crop_matrices(centers, sizes, SIZES[size], codec, reference["rot_deg"])
    theirs = reference[f"{size}_{prefix}"].astype(np.float64)
    # Corners of each crop, in picture pixels: the two maps must agree within 0.01 crop pixels.
    half = sizes[:, None] / 2 * np.array([[-1, -1], [1, -1], [-1, 1], [1, 1]])
    corners = centers[:, None] + half
    good = well_conditioned(reference)
    np.testing.assert_allclose(
        geometry.apply_affines(corners, ours)[good],
        geometry.apply_affines(corners, theirs)[good],
        atol=1e-2,
    )


def test_inverse_maps_equal_official(reference, size):
    centers = reference[f"{size}_center"]
    sizes = reference[f"{size}_scale"].astype(np.float64) * PIXEL_STD
    good = well_conditioned(reference)
    height, width = SIZES[size]
    for key, rotations, grid in (
        ("trans_inv", reference["rot_deg"], 1),
        ("trans_inv_heatmap_rot0", np.zeros(len(centers)), 4),
    ):
        matrices = geometry.crop_matrices(centers, sizes, SIZES[size], "msra", rotations)
        ours = geometry.invert_affines(matrices)
        corners = np.tile([[0, 0], [width, 0], [0, height], [width, height]], (len(ours), 1, 1))
        np.testing.assert_allclose(
            geometry.apply_affines(corners, ours)[good],
            geometry.apply_affines(corners / grid, reference[f"{size}_{key}"])[good],
            atol=1e-2,
        )


def test_mmpose_inverse_maps(reference, size):
    sizes = reference[f"{size}_mm_scale_px"]
    matrices = geometry.crop_matrices(
        reference[f"{size}_mm_center"], sizes, SIZES[size], "msra", reference["rot_deg"]
    )
    good = well_conditioned(reference)
    corners = np.tile([[0, 0], [SIZES[size][1], SIZES[size][0]]], (len(matrices), 1, 1))
    np.testing.assert_allclose(
        geometry.apply_affines(corners, geometry.invert_affines(matrices))[good],
        geometry.apply_affines(corners, reference[f"{size}_mm_trans_inv"])[good],
        atol=1e-2,
    )


def test_points_equal_official(reference, size):
    good = well_conditioned(reference)
    centers = reference[f"{size}_center"]
    sizes = reference[f"{size}_scale"].astype(np.float64) * PIXEL_STD
    forward = geometry.crop_matrices(centers, sizes, SIZES[size], "msra", reference["rot_deg"])
    # Tiny boxes magnify float32 rounding of the reference: relative to the distance travelled.
    np.testing.assert_allclose(
        geometry.apply_affines(reference["points"], forward)[good],
        reference[f"{size}_points_fwd"][good],
        rtol=1e-3,
        atol=1e-2,
    )
    upright = geometry.crop_matrices(centers, sizes, SIZES[size], "msra")
    np.testing.assert_allclose(
        geometry.apply_affines(reference["points"] * 4, geometry.invert_affines(upright))[good],
        reference[f"{size}_points_transform_preds"][good],
        rtol=1e-4,
        atol=1e-2,
    )


def assert_same_pixels(ours, theirs, same_opencv):
    difference = np.abs(ours.astype(int) - theirs.astype(int))
    if same_opencv:
        # Closed-form float64 matrices differ from float32 point triples by about 1e-4 pixels.
        assert difference.max() <= 1
    assert difference.mean() <= 0.2
    assert (difference <= 1).mean() > 0.995
    assert difference.max() <= 6


@pytest.mark.parametrize(
    ("crops", "codec", "rotated"),
    [("crops_rgb_u8", "msra", True), ("udp_crops_rgb_u8_first3", "udp", True)],
)
def test_crop_pixels(reference, crops, codec, rotated):
    theirs = reference[f"s192x256_{crops}"]
    chosen = reference["crop_box_indices"][: len(theirs)]
    source = "mm_" if codec == "udp" else ""
    sizes = (
        reference["s192x256_mm_scale_px"]
        if codec == "udp"
        else reference["s192x256_scale"].astype(np.float64) * PIXEL_STD
    )
    rotations = reference["rot_deg"] if rotated else np.zeros(len(sizes))
    matrices = geometry.crop_matrices(
        reference[f"s192x256_{source}center"], sizes, (256, 192), codec, rotations
    )
    rgb = reference["image_bgr"][:, :, ::-1].copy()
    ours = geometry.warp_crops(rgb, matrices[chosen], (256, 192))
    same = cv2.__version__.split(".")[0] == str(reference["cv2_version"]).split(".")[0]
    assert_same_pixels(ours, theirs, same)


def test_crop_pixels_of_the_older_opencv(reference):
    # OpenCV 4 samples at 1/32 pixel: the looser bounds of the two samplers.
    chosen = reference["crop_box_indices"]
    sizes = reference["s192x256_scale"].astype(np.float64) * PIXEL_STD
    matrices = geometry.crop_matrices(
        reference["s192x256_center"], sizes, (256, 192), "msra", reference["rot_deg"]
    )
    ours = geometry.warp_crops(
        reference["image_bgr"][:, :, ::-1].copy(), matrices[chosen], (256, 192)
    )
    assert_same_pixels(ours, reference["s192x256_crops_rgb_u8_cv4100"], same_opencv=False)


def test_normalised_tensor_and_its_statistics(reference):
    import torch

    from hrnet_cli.config import ModelSpec
    from hrnet_cli.runtimes.torch_eager import TorchEager
    from hrnet_cli.schema import load_schema

    spec = ModelSpec("test", 4, (256, 192), "msra", load_schema("coco17"))
    runtime = TorchEager(torch.nn.Identity(), spec, "cpu")
    pixels = runtime.normalise(reference["s192x256_crops_rgb_u8"]).numpy()
    np.testing.assert_allclose(pixels[1], reference["s192x256_tensor_crop1"], atol=1e-5)
    statistics = np.stack([pixels.mean((2, 3)), pixels.std((2, 3), ddof=1)], axis=-1)
    np.testing.assert_allclose(statistics, reference["s192x256_tensor_channel_mean_std"], atol=2e-3)
