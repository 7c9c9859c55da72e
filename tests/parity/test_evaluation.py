"""COCO and CrowdPose evaluation against the official code and MMPose (coco_evaluate.json)."""

import json

import numpy as np
import pytest

from hrnet_cli import coco_metrics
from hrnet_cli.data.coco import read_coco
from hrnet_cli.data.coco_results import write_results
from hrnet_cli.data.crowd_index import read_crowd_index
from hrnet_cli.evaluation import EvalSettings, score
from hrnet_cli.predictions import Predictions
from hrnet_cli.schema import load_schema

COCO_RUNS = ("gt_boxes_oksnms", "det_boxes_oksnms", "det_boxes_softnms")
# The tolerance golden/README.md gives; the numbers are in fact the same to the last digit.
TOLERANCE = 1e-6
# Ours by MMPose's names.
CROWD_STATS = {
    "AP": "AP", "AP .5": "AP50", "AP .75": "AP75", "AR": "AR", "AR .5": "AR50", "AR .75": "AR75",
    "AP(E)": "APeasy", "AP(M)": "APmedium", "AP(H)": "APhard",
}  # fmt: skip


@pytest.fixture(scope="module")
def reference(golden):
    return golden("coco_evaluate.json")


@pytest.fixture(scope="module")
def coco(golden, tmp_path_factory):
    path = tmp_path_factory.mktemp("coco") / "gt.json"
    path.write_text(json.dumps(golden("coco_gt_subset.json")))
    return read_coco(path, schema=load_schema("coco17"), cache=False).people


@pytest.fixture(scope="module")
def crowdpose_file(golden, tmp_path_factory):
    path = tmp_path_factory.mktemp("crowdpose") / "gt.json"
    path.write_text(json.dumps(golden("crowdpose_gt_subset.json")))
    return path


@pytest.fixture(scope="module")
def crowdpose(crowdpose_file):
    return read_coco(crowdpose_file, schema=load_schema("crowdpose14"), cache=False).people


def predictions_of(rows, people):
    """Return the predictions that the reference was given, photo by photo."""
    triples = np.array([row["keypoints"] for row in rows], np.float32)
    index_of = {photo_id: index for index, photo_id in enumerate(people.photo_ids_P.tolist())}
    photo_of = np.array([index_of[row["image_id"]] for row in rows])
    predictions = Predictions(
        photos_P=np.arange(len(people.photos)),
        unreadable=(),
        photo_of_N=photo_of,
        keypoints_NK2=triples[..., :2],
        scores_NK=triples[..., 2],
        boxes_N4=np.zeros((len(rows), 4), np.float32),
        box_scores_N=np.array([row["box_score"] for row in rows], np.float32),
        areas_N=np.array([row["area"] for row in rows]),
        truth_of_N=np.full(len(rows), -1),
    )
    return predictions.pick(np.argsort(photo_of, kind="stable"))


@pytest.fixture(params=COCO_RUNS)
def run(request, reference):
    return next(run for run in reference["coco_runs"] if run["name"] == request.param)


@pytest.fixture(params=coco_metrics.EVALUATORS)
def evaluator(request):
    if request.param == "faster":
        pytest.importorskip("faster_coco_eval")
    return request.param


@pytest.fixture
def column(run, coco, evaluator):
    settings = EvalSettings(
        keypoint_threshold=run["in_vis_thre"],
        oks_threshold=run["oks_thre"],
        nms="soft" if run["soft_nms"] else "hard",
        evaluator=evaluator,
    )
    assert len(run["predictions"]) == run["n_in"]
    return score(coco, predictions_of(run["predictions"], coco), settings)


def test_the_runs_are_all_there(reference):
    assert tuple(run["name"] for run in reference["coco_runs"]) == COCO_RUNS


def test_the_same_poses_stay_in_the_same_order(column, run):
    theirs = run["results_after_nms"]
    assert len(column.results) == run["n_out"] == len(theirs)
    # The official code goes through the photos as the boxes file has them, ours by the data set.
    place = {photo_id: n for n, photo_id in enumerate(dict.fromkeys(column.results.photo_ids_M))}
    theirs = sorted(theirs, key=lambda row: place[row["image_id"]])
    assert column.results.photo_ids_M.tolist() == [row["image_id"] for row in theirs]
    first = np.array([row["first_kpt"] for row in theirs])
    np.testing.assert_array_equal(column.results.keypoints_MK2[:, 0], first[:, :2])
    np.testing.assert_array_equal(column.results.keypoint_scores_MK[:, 0], first[:, 2])
    # The official code adds up the scores of keypoints in float32: 17 roundings of 6e-8.
    np.testing.assert_allclose(column.results.scores_M, [row["score"] for row in theirs], rtol=1e-6)


@pytest.mark.parametrize("source", ["stats_official", "stats_mmpose_cocometric"])
def test_the_ten_numbers(column, run, source):
    assert len(run[source]) == len(coco_metrics.STATS)
    # In the order of pycocotools, as ours.
    ours = [column.stats[name] for name in coco_metrics.STATS]
    np.testing.assert_allclose(ours, list(run[source].values()), rtol=0, atol=TOLERANCE)


def test_the_results_file_gives_them_too(column, run, golden, tmp_path):
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    write_results(tmp_path / "results.json", column.results)
    truth = COCO()
    truth.dataset = golden("coco_gt_subset.json")
    truth.createIndex()
    evaluation = COCOeval(truth, truth.loadRes(str(tmp_path / "results.json")), "keypoints")
    evaluation.evaluate()
    evaluation.accumulate()
    evaluation.summarize()
    np.testing.assert_allclose(
        evaluation.stats, list(run["stats_official"].values()), rtol=0, atol=TOLERANCE
    )


def test_crowdpose(reference, crowdpose, crowdpose_file, evaluator):
    theirs = reference["crowdpose"]
    settings = EvalSettings(
        keypoint_threshold=theirs["keypoint_score_thr"],
        oks_threshold=theirs["nms_thr"],
        label_areas=False,
        evaluator=evaluator,
    )
    column = score(
        crowdpose,
        predictions_of(theirs["predictions"], crowdpose),
        settings,
        crowd_index_P=read_crowd_index(crowdpose_file, crowdpose),
    )
    ours = {name: -1 if value is None else value for name, value in column.stats.items()}
    # The reference rounds the three levels to 4 digits.
    for name, value in theirs["stats_keypoints_crowd"].items():
        tolerance = 5e-5 if "(" in name else TOLERANCE
        assert ours[CROWD_STATS[name]] == pytest.approx(value, abs=tolerance), name
    ten = [ours[name] for name in coco_metrics.STATS]
    expected = list(theirs["stats_keypoints_use_area_false"].values())
    np.testing.assert_allclose(ten, expected, rtol=0, atol=TOLERANCE)


def test_crowdpose_has_no_areas_of_its_own(crowdpose):
    # Without areas in the file the reader takes those that use_area=False means.
    areas = 0.53 * crowdpose.boxes_N4[:, 2] * crowdpose.boxes_N4[:, 3]
    np.testing.assert_allclose(crowdpose.areas_N, areas)
