"""OKS, NMS and the benchmarks' metrics against the references (eval_functions.npz)."""

import numpy as np
import pytest

from hrnet_cli import geometry, heatmap, metrics, oks
from hrnet_cli.schema import load_schema

SETS = {"coco": "coco17", "crowdpose": "crowdpose14"}
THRESHOLDS = ("0.9", "0.7", "0.5", "0.2")


@pytest.fixture(scope="module")
def reference(golden):
    return golden("eval_functions.npz")


@pytest.fixture(params=SETS)
def people(request, reference):
    name = request.param
    schema = load_schema(SETS[name])
    keypoints = reference[f"{name}_keypoints"]
    return name, keypoints, reference[f"{name}_area"], reference[f"{name}_score"], schema.oks_sigmas


def test_oks_matrix(people, reference):
    name, keypoints, areas, _, sigmas = people
    ours = oks.oks_matrix(keypoints[..., :2], areas, keypoints[..., :2], areas, sigmas)
    np.testing.assert_allclose(ours, reference[f"{name}_oks_matrix"], rtol=1e-9, atol=1e-300)


def test_oks_of_visible_keypoints(people, reference):
    name, keypoints, areas, _, sigmas = people
    seen = keypoints[..., 2] > 0.4
    points = keypoints[..., :2]
    both = seen[:, None] & seen[None]
    ours = oks.oks_matrix(points, areas, points, areas, sigmas, both)
    theirs = reference[f"{name}_mm_oks_matrix_vis_thr0.4_f32"]
    np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-7)
    # The official `list(a) and list(b)` looks at the second person only.
    second = np.broadcast_to(seen[None], both.shape)
    slip = oks.oks_matrix(points, areas, points, areas, sigmas, second)
    np.testing.assert_allclose(
        slip, reference[f"{name}_oks_matrix_in_vis_thre0.4"], rtol=1e-9, atol=1e-300
    )


@pytest.mark.parametrize("threshold", THRESHOLDS)
@pytest.mark.parametrize("kind", ["oks_nms", "soft_oks_nms"])
def test_nms_keeps_the_same_people_in_the_same_order(people, reference, kind, threshold):
    name, keypoints, areas, scores, sigmas = people
    kept = getattr(oks, kind)(keypoints[..., :2], scores, areas, sigmas, float(threshold))
    np.testing.assert_array_equal(kept, reference[f"{name}_{kind}_keep_{threshold}"])


@pytest.mark.parametrize("threshold", ["0.3", "0.5", "0.7"])
def test_box_nms(reference, threshold):
    boxes = reference["box_dets_xyxy_score"]
    kept = geometry.box_nms(boxes[:, :4], boxes[:, 4], float(threshold), legacy_pixels=True)
    np.testing.assert_array_equal(kept, reference[f"box_nms_keep_{threshold}"])


def official_form(values):
    """The references write -1 for a keypoint nobody has labelled."""
    return np.where(np.isnan(values), -1, values)


@pytest.mark.parametrize("key", ["thr05", "thr02"])
def test_heatmap_accuracy(reference, key):
    predicted, _ = heatmap.find_peaks(reference["acc_output"])
    true, _ = heatmap.find_peaks(reference["acc_target"])
    np.testing.assert_array_equal(predicted, reference["acc_pred"])
    size = reference["acc_output"].shape[2:]
    ours = metrics.heatmap_accuracy(predicted, true, size)
    np.testing.assert_allclose(official_form(ours), reference[f"acc_acc_{key}"][1:], rtol=1e-9)
    assert metrics.mean_over_keypoints(ours) == pytest.approx(reference[f"acc_avg_{key}"])
    assert reference[f"acc_acc_{key}"][0] == pytest.approx(reference[f"acc_avg_{key}"])
    assert (~np.isnan(ours)).sum() == reference["acc_cnt"]


def test_mmpose_heatmap_pck(reference):
    predicted, _ = heatmap.find_peaks(reference["acc_output"])
    true, _ = heatmap.find_peaks(reference["acc_target"])
    size = np.array([reference["acc_output"].shape[2:]])
    visible = reference["acc_target_weight"][..., 0] > 0
    ours = metrics.pck(predicted, true, visible, size, 0.05)
    np.testing.assert_allclose(official_form(ours), reference["mm_pck_acc"], rtol=1e-9)
    assert metrics.mean_over_keypoints(ours) == pytest.approx(reference["mm_pck_avg"])
    assert (~np.isnan(ours)).sum() == reference["mm_pck_cnt"]


def test_keypoint_metrics(reference):
    predicted, true, mask = (reference[f"kp_{key}"] for key in ("pred", "gt", "mask"))
    norm = reference["kp_norm"]
    ours = metrics.pck(predicted, true, mask, norm, 0.2)
    np.testing.assert_allclose(official_form(ours), reference["kp_pck02"], rtol=1e-9)
    assert metrics.mean_over_keypoints(ours) == pytest.approx(reference["kp_pck02_avg"], rel=1e-9)
    assert (~np.isnan(ours)).sum() == reference["kp_pck02_cnt"]
    # The reference works in float32 here.
    assert metrics.auc(predicted, true, mask) == pytest.approx(reference["kp_auc_norm30"], rel=1e-6)
    assert metrics.epe(predicted, true, mask) == pytest.approx(reference["kp_epe"], rel=1e-6)
    assert metrics.nme(predicted, true, mask, norm) == pytest.approx(reference["kp_nme"], rel=1e-6)


def test_mpii(reference):
    true = reference["mpii_gt_pos_1based"]
    predicted = reference["mpii_preds_0based"][..., :2] + 1
    visible = reference["mpii_jnt_missing_16xN"].T == 0
    heads = reference["mpii_headboxes_2x2xN"].transpose(2, 0, 1).reshape(-1, 4)
    names = [str(name) for name in reference["mpii_joint_names"]]
    expected = dict(
        zip(
            (str(n) for n in reference["mpii_result_names"]), reference["mpii_results"], strict=True
        )
    )
    values = 100 * metrics.pckh(predicted, true, visible, heads)
    pairs = {"Shoulder": "sho", "Elbow": "elb", "Wrist": "wri", "Hip": "hip", "Knee": "kne"}
    for title, short in pairs.items():
        pair = [values[names.index(side + short)] for side in "lr"]
        assert np.mean(pair) == pytest.approx(expected[title], rel=1e-9)
    assert values[names.index("head")] == pytest.approx(expected["Head"], rel=1e-9)
    counted = visible.sum(axis=0) * ~np.isin(names, ["pelvis", "thorax"])
    weights = counted / counted.sum()
    assert np.sum(values * weights) == pytest.approx(expected["Mean"], rel=1e-9)
    at_tenth = 100 * metrics.pckh(predicted, true, visible, heads, threshold=0.11)
    assert np.sum(at_tenth * weights) == pytest.approx(expected["Mean@0.1"], rel=1e-9)
