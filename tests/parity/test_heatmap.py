"""Targets, decoding and flip merge against the official code and MMPose."""

import numpy as np
import pytest

from builders import encode_targets
from hrnet_cli import geometry, heatmap
from hrnet_cli.schema import load_schema

CASES = {"a": ((256, 192), 2, 11), "b": ((384, 288), 3, 17)}
DEGENERATE = ("all_negative", "zero", "flat_positive", "tiny_amp")
CLEAR = ("blob", "two_peaks", "sym_peak", "low_noise")


@pytest.fixture(scope="module")
def targets(golden):
    return golden("targets.npz")


@pytest.fixture(scope="module")
def reference(golden):
    return golden("decode.npz")


@pytest.fixture(params=CASES, scope="module")
def case(request):
    return request.param


def test_msra_targets_equal_official(targets, case):
    input_hw, sigma, _ = CASES[case]
    ours, weights = encode_targets(
        targets[f"{case}_joints"][..., :2],
        targets[f"{case}_joints_vis"][..., 0],
        input_hw,
        "msra",
        sigma,
    )
    np.testing.assert_allclose(ours, targets[f"{case}_target"], atol=1e-6)
    np.testing.assert_allclose(weights, targets[f"{case}_target_weight"][..., 0], atol=1e-6)


@pytest.mark.parametrize("codec", ["msra", "dark", "udp"])
def test_targets_equal_mmpose(targets, case, codec):
    input_hw, sigma, _ = CASES[case]
    visible = targets[f"{case}_mm_keypoints_visible"]
    ours, weights = encode_targets(
        targets[f"{case}_joints"][..., :2], visible, input_hw, codec, sigma
    )
    np.testing.assert_allclose(weights, targets[f"{case}_mm_{codec}_weights"], atol=1e-6)
    # At a visibility of exactly one half the official code, which msra follows, draws nothing.
    same = visible != 0.5 if codec == "msra" else np.ones(visible.shape, bool)
    stored = targets.get(f"{case}_mm_{codec}_heatmaps")
    if stored is not None:
        count = len(stored)
        np.testing.assert_allclose(ours[:count][same[:count]], stored[same[:count]], atol=1e-6)
    np.testing.assert_allclose(
        ours.sum(axis=(2, 3), dtype=np.float64)[same],
        targets[f"{case}_mm_{codec}_heatmap_sum"][same],
        rtol=1e-6,
        atol=1e-5,
    )


@pytest.mark.parametrize("codec", ["msra", "dark", "udp"])
def test_decoding_of_encoded_targets_equals_mmpose(targets, case, codec):
    input_hw, sigma, kernel = CASES[case]
    visible = targets[f"{case}_mm_keypoints_visible"]
    encoded, weights = encode_targets(
        targets[f"{case}_joints"][..., :2], visible, input_hw, codec, sigma
    )
    ours, scores = heatmap.decode(encoded, codec, input_hw, kernel)
    theirs = targets[f"{case}_mm_{codec}_decode_of_encoded_kpts"]
    if codec == "udp":
        theirs = udp_crop_px(theirs, input_hw)
    checked = (weights > 0) & (encoded.max(axis=(2, 3)) > 0) & (visible != 0.5)
    if codec == "msra":
        checked &= away_from_rims(encoded)
    # Float32 sums of the blur differ in order: 1e-3 crop pixels where the reference is float32.
    np.testing.assert_allclose(
        ours[checked], theirs[checked], atol=1e-4 if codec == "msra" else 1e-2
    )
    np.testing.assert_allclose(
        scores[checked],
        targets[f"{case}_mm_{codec}_decode_of_encoded_scores"][checked],
        atol=1e-6,
    )


def udp_crop_px(theirs, input_hw):
    """MMPose multiplies by input/(heatmap-1); the crop matrix of udp spans input-1 pixels."""
    input_wh = np.array(input_hw[::-1])
    return theirs * (input_wh - 1) / input_wh


def away_from_rims(heatmaps):
    """Where the official joint rule and MMPose's rule for each axis agree."""
    peaks, _ = heatmap.find_peaks(heatmaps)
    height, width = heatmaps.shape[2:]
    x, y = peaks[..., 0], peaks[..., 1]
    return (x > 1) & (x < width - 1) & (y > 1) & (y < height - 1)


def kinds(reference, case):
    return reference[f"{case}_kind"]


def test_peaks(reference, case):
    peaks, scores = heatmap.find_peaks(reference[f"{case}_heatmaps"])
    np.testing.assert_array_equal(peaks, reference[f"{case}_max_preds"])
    np.testing.assert_array_equal(scores, reference[f"{case}_maxvals"][..., 0])
    np.testing.assert_array_equal(scores, reference[f"{case}_mm_maxvals"])
    # MMPose marks maps without a positive value by (-1, -1), the official code by (0, 0).
    marked = np.where(scores[..., None] > 0, peaks, -1)
    np.testing.assert_array_equal(marked, reference[f"{case}_mm_argmax"])


def to_image(points_crop, reference, case, codec):
    input_hw = CASES[case][0]
    matrices = geometry.crop_matrices(
        reference[f"{case}_center"],
        reference[f"{case}_scale"].astype(np.float64) * 200,
        input_hw,
        codec,
    )
    return geometry.apply_affines(points_crop, geometry.invert_affines(matrices))


def test_final_keypoints_equal_official(reference, case):
    heatmaps, input_hw = reference[f"{case}_heatmaps"], CASES[case][0]
    points, _ = heatmap.decode(heatmaps, "msra", input_hw)
    np.testing.assert_allclose(
        to_image(points, reference, case, "msra"),
        reference[f"{case}_final_preds_postprocess"],
        atol=1e-2,
    )
    plain = heatmap.find_peaks(heatmaps)[0] * 4
    np.testing.assert_allclose(
        to_image(plain, reference, case, "msra"), reference[f"{case}_final_preds_nopost"], atol=1e-2
    )


def test_quarter_offset_agrees_with_mmpose_where_the_rules_do(reference, case):
    heatmaps = reference[f"{case}_heatmaps"]
    peaks, scores = heatmap.find_peaks(heatmaps)
    squares = heatmap.read_squares(heatmaps, peaks, 1)
    ours = heatmap.refine_quarter(squares, peaks, heatmaps.shape[2:])
    same = away_from_rims(heatmaps) & (scores > 0)
    assert same.mean() > 0.5
    np.testing.assert_array_equal(ours[same], reference[f"{case}_mm_refine_quarter"][same])


def test_blur_equals_mmpose(reference, case):
    chosen = reference[f"{case}_heatmaps"][0, [0, 11, 14]]
    height, width = chosen.shape[1:]
    rows, columns = np.mgrid[:height, :width]
    pixels = np.tile(np.stack([columns, rows], axis=-1).reshape(-1, 1, 2), (1, len(chosen), 1))
    everywhere = np.broadcast_to(chosen, (height * width, *chosen.shape))
    kernel = int(reference[f"{case}_blur_kernel"])
    squares = heatmap.read_squares(everywhere, pixels, kernel // 2)
    blurred = heatmap.blur_around(squares, pixels, (height, width), kernel)[:, :, 0, 0]
    ours = blurred.T.reshape(chosen.shape)
    # The reference scales each blurred heatmap to its old peak.
    ours *= (chosen.max(axis=(1, 2)) / ours.max(axis=(1, 2)))[:, None, None]
    theirs = reference[f"{case}_mm_gaussian_blur_kpt0_11_14"][0]
    np.testing.assert_allclose(ours, theirs, atol=1e-5)


def test_blur_width_follows_the_heatmap(reference, case):
    rows = reference[f"{case}_heatmaps"].shape[2]
    assert heatmap.default_blur_kernel(rows) == reference[f"{case}_blur_kernel"]


@pytest.mark.parametrize(
    ("codec", "key"), [("dark", "mm_refine_dark"), ("udp", "mm_refine_dark_udp")]
)
def test_refinement_equals_mmpose(reference, case, codec, key):
    heatmaps = reference[f"{case}_heatmaps"]
    peaks, _ = heatmap.find_peaks(heatmaps)
    kernel = int(reference[f"{case}_blur_kernel"])
    squares = heatmap.read_squares(heatmaps, peaks, heatmap.square_reach(codec, kernel))
    ours = heatmap.refine(squares, peaks, heatmaps.shape[2:], codec, kernel, bounded=False)
    theirs = reference[f"{case}_{key}"]
    clear = np.isin(kinds(reference, case), CLEAR)
    assert clear.any()
    np.testing.assert_allclose(ours[clear], theirs[clear], atol=1e-2)
    rim = ~clear & ~np.isin(kinds(reference, case), DEGENERATE)
    np.testing.assert_allclose(ours[rim], theirs[rim], atol=5e-2)


@pytest.mark.parametrize("codec", ["msra", "dark", "udp"])
def test_decoding_equals_mmpose(reference, case, codec):
    heatmaps, (input_hw, _, kernel) = reference[f"{case}_heatmaps"], CASES[case]
    points, scores = heatmap.decode(heatmaps, codec, input_hw, kernel)
    np.testing.assert_array_equal(scores, reference[f"{case}_mm_{codec}_decode_scores"])
    checked = ~np.isin(kinds(reference, case), DEGENERATE)
    if codec == "msra":
        checked &= away_from_rims(heatmaps)
    theirs = reference[f"{case}_mm_{codec}_decode_kpts_input_px"]
    if codec == "udp":
        theirs = udp_crop_px(theirs, input_hw)
    # 0.05 heatmap pixels at the rims, in crop pixels.
    np.testing.assert_allclose(points[checked], theirs[checked], atol=0.2)
    image_px = to_image(points, reference, case, codec)
    size = reference[f"{case}_scale"][:, None].astype(np.float64) * 200
    pixels = np.broadcast_to(0.2 * size / np.array(input_hw[::-1]), image_px.shape)
    difference = np.abs(image_px - reference[f"{case}_mm_{codec}_kpts_image_px"])
    assert (difference <= pixels)[checked].all()


def test_degenerate_heatmaps_give_no_nan(reference, case):
    for codec in ("msra", "dark", "udp"):
        points, _ = heatmap.decode(reference[f"{case}_heatmaps"], codec, CASES[case][0])
        assert np.isfinite(points).all()


def test_flip_merge_equals_official(reference):
    indices = reference["flip_indices"]
    assert tuple(indices) == load_schema("coco17").flip_indices
    upright, mirrored = reference["flip_out"], reference["flip_out_of_flipped_input"]
    before = mirrored.copy()
    turned = heatmap.flip_heatmaps(mirrored, indices)
    np.testing.assert_array_equal(turned, reference["flip_back_result"])
    shifted = heatmap.flip_merge(np.zeros_like(turned), mirrored, indices, "msra") * 2
    # Halving and doubling is exact but for the smallest denormal numbers.
    np.testing.assert_allclose(shifted, reference["flip_shifted"], rtol=0, atol=1e-40)
    for codec, key in (("msra", "shift"), ("dark", "shift"), ("udp", "noshift")):
        merged = heatmap.flip_merge(upright, mirrored, indices, codec)
        np.testing.assert_allclose(merged, reference[f"flip_avg_{key}"], atol=1e-7)
    np.testing.assert_array_equal(mirrored, before)


@pytest.mark.parametrize(("codec", "key"), [("msra", "shift"), ("udp", "noshift")])
def test_keypoints_of_the_flip_test_equal_official(reference, codec, key):
    merged = heatmap.flip_merge(
        reference["flip_out"],
        reference["flip_out_of_flipped_input"],
        reference["flip_indices"],
        codec,
    )
    # Whatever the merge, the official code decodes with the quarter offset.
    points, scores = heatmap.decode(merged, "msra", (128, 96))
    matrices = geometry.crop_matrices(
        reference["flip_center"], reference["flip_scale"].astype(float) * 200, (128, 96), "msra"
    )
    image_px = geometry.apply_affines(points, geometry.invert_affines(matrices))
    np.testing.assert_allclose(image_px, reference[f"flip_final_preds_{key}"], atol=2e-2)
    stored = reference.get(f"flip_maxvals_{key}")
    expected = merged.max(axis=(2, 3)) if stored is None else stored[..., 0]
    np.testing.assert_allclose(scores, expected, atol=1e-6)
