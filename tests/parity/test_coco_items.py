"""From COCO annotation to network input and target, against the official data loader and MMPose."""

import cv2
import numpy as np
import pytest
import torch

from builders import encode_targets
from hrnet_cli import geometry
from hrnet_cli.config import ModelSpec
from hrnet_cli.runtimes.torch_eager import TorchEager
from hrnet_cli.schema import load_schema

INPUTS = {"gt": (256, 192), "gt384": (384, 288)}
PIXEL_STD = 200


@pytest.fixture(scope="module")
def reference(golden):
    return golden("coco_items_val.npz")


@pytest.fixture(scope="module")
def annotations(golden):
    return golden("coco_gt_subset.json")


@pytest.fixture(scope="module")
def people(annotations):
    """Annotated people as the official loader keeps them: with a keypoint, not a crowd."""
    return [
        person
        for image in annotations["images"]
        for person in annotations["annotations"]
        if person["image_id"] == image["id"]
        and person["category_id"] == 1
        and not person["iscrowd"]
        and max(person["keypoints"]) > 0
    ]


@pytest.fixture(scope="module")
def photos(golden_photos, annotations):
    flags = cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION
    return {
        image["id"]: cv2.imread(str(golden_photos / image["file_name"]), flags)[:, :, ::-1].copy()
        for image in annotations["images"]
    }


@pytest.mark.parametrize("prefix", INPUTS)
def test_annotated_people(reference, annotations, people, prefix):
    sizes = {image["id"]: (image["width"], image["height"]) for image in annotations["images"]}
    np.testing.assert_array_equal(
        [person["image_id"] for person in people], reference[f"{prefix}_db_image_id"]
    )
    cleaned = np.concatenate(
        [
            geometry.clip_annotated_boxes(person["bbox"], sizes[person["image_id"]])
            for person in people
        ]
    )
    centers, crop_sizes = geometry.crop_boxes(geometry.xywh_to_xyxy(cleaned), INPUTS[prefix])
    np.testing.assert_allclose(centers, reference[f"{prefix}_db_center"], rtol=1e-4)
    np.testing.assert_allclose(crop_sizes / PIXEL_STD, reference[f"{prefix}_db_scale"], rtol=1e-4)
    keypoints = np.array([person["keypoints"] for person in people]).reshape(-1, 17, 3)
    np.testing.assert_array_equal(keypoints[..., :2], reference[f"{prefix}_db_joints_3d"][..., :2])
    visible = np.minimum(keypoints[..., 2], 1)
    np.testing.assert_array_equal(visible, reference[f"{prefix}_db_joints_3d_vis"][..., 0])
    np.testing.assert_array_equal(reference[f"{prefix}_db_score"], 1)


def test_detected_people(reference, golden):
    detections = golden("coco_det_subset.json")
    # Sorted as the official loader meets them: the file's own order.
    kept = [d for d in detections if d["category_id"] == 1]
    boxes = geometry.xywh_to_xyxy([d["bbox"] for d in kept])
    centers, sizes = geometry.crop_boxes(boxes, (256, 192))
    np.testing.assert_array_equal([d["image_id"] for d in kept], reference["det_db_image_id"])
    np.testing.assert_allclose(centers, reference["det_db_center"], rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(sizes / PIXEL_STD, reference["det_db_scale"], rtol=1e-4)
    np.testing.assert_allclose([d["score"] for d in kept], reference["det_db_score"], rtol=1e-4)


@pytest.fixture(scope="module")
def matrices(reference):
    sizes = reference["gt_db_scale"].astype(np.float64) * PIXEL_STD
    return geometry.crop_matrices(reference["gt_db_center"], sizes, (256, 192), "msra")


def test_network_input(reference, photos, matrices):
    crops = np.concatenate(
        [
            geometry.warp_crops(photos[image_id], matrix[None], (256, 192))
            for image_id, matrix in zip(reference["gt_db_image_id"], matrices, strict=True)
        ]
    )
    spec = ModelSpec("test", 4, (256, 192), "msra", load_schema("coco17"))
    pixels = TorchEager(torch.nn.Identity(), spec, "cpu").normalise(crops).numpy()
    # JPEG decoders and warps differ by a few grey levels (0.017 each after normalising).
    np.testing.assert_allclose(pixels[:, :, ::8, ::8], reference["val_input_sub8"], atol=0.1)
    statistics = np.stack([pixels.mean((2, 3)), pixels.std((2, 3), ddof=1)], axis=-1)
    np.testing.assert_allclose(statistics, reference["val_input_channel_mean_std"], atol=2e-3)


def test_keypoints_and_targets(reference, matrices):
    keypoints = reference["gt_db_joints_3d"][..., :2]
    visible = reference["gt_db_joints_3d_vis"][..., 0]
    points = geometry.apply_affines(keypoints, matrices)
    # The reference moves labelled keypoints only.
    moved = np.where((visible > 0)[..., None], points, keypoints)
    np.testing.assert_allclose(moved, reference["val_joints_transformed"][..., :2], atol=1e-2)
    stored = reference["val_joints_transformed"][..., :2]
    targets, weights = encode_targets(stored, visible, (256, 192), "msra", 2)
    np.testing.assert_allclose(targets, reference["val_target"], atol=1e-6)
    np.testing.assert_allclose(weights, reference["val_target_weight"][..., 0])
    np.testing.assert_allclose(
        targets.sum((2, 3), dtype=np.float64), reference["val_target_sum"], rtol=1e-6, atol=1e-6
    )


@pytest.mark.parametrize("which", ["gt", "det"])
def test_mmpose_boxes(golden, which):
    items = golden("mmpose_dataset_boxes.json")[which]
    assert items
    boxes = np.array([item["bbox_xyxy"] for item in items]).reshape(-1, 4)
    centers, sizes = geometry.crop_boxes(boxes, (256, 192))
    theirs = {
        key: np.array([item[key] for item in items]).reshape(len(items), -1)
        for key in ("input_center", "input_scale_px")
    }
    np.testing.assert_allclose(centers, theirs["input_center"], rtol=1e-4, atol=1e-3)
    np.testing.assert_allclose(sizes, theirs["input_scale_px"], rtol=1e-4)


def test_mmpose_boxes_of_people_move_their_keypoints_alike(golden, annotations):
    items = golden("mmpose_dataset_boxes.json")["gt"]
    keypoints_of = {
        tuple(np.round(geometry.xywh_to_xyxy(person["bbox"])[0, :2], 2)): person["keypoints"]
        for person in annotations["annotations"]
    }
    compared = 0
    for item in items:
        labelled = keypoints_of.get(tuple(np.round(item["bbox_xyxy"][:2], 2)))
        if labelled is None or max(labelled) == 0:
            continue
        keypoints = np.array(labelled, float).reshape(1, -1, 3)
        centers, sizes = geometry.crop_boxes([item["bbox_xyxy"]], (256, 192))
        matrices = geometry.crop_matrices(centers, sizes, (256, 192), "msra")
        ours = geometry.apply_affines(keypoints[..., :2], matrices)[0]
        theirs = np.array(item["transformed_keypoints"]).reshape(-1, 2)
        seen = keypoints[0, :, 2] > 0
        np.testing.assert_allclose(ours[seen], theirs[seen], atol=1e-2)
        compared += 1
    assert compared >= len(items) / 2
