import numpy as np
import pytest

from builders import make_frame, make_poses
from hrnet_cli.schema import load_schema
from hrnet_cli.structures import Boxes, Frame, PersonHeatmaps, Poses


def test_frames_know_their_size():
    frame = make_frame(width=64, height=48)
    assert frame.size_wh == (64, 48)
    assert (frame.index, frame.time_s, frame.orientation) == (0, None, 1)


@pytest.mark.parametrize(
    ("image", "found"),
    [
        (np.zeros((4, 5), np.uint8), "(4, 5) uint8"),
        (np.zeros((4, 5, 4), np.uint8), "(4, 5, 4) uint8"),
        (np.zeros((4, 5, 3), np.float32), "(4, 5, 3) float32"),
    ],
)
def test_frames_are_8_bit_rgb(image, found):
    with pytest.raises(ValueError, match="image_HW3") as raised:
        Frame(image, "photo.jpg")
    assert str(raised.value) == f"image_HW3: expected (H, W, 3) uint8, got {found}"


def test_boxes_become_float32_and_can_be_picked():
    boxes = Boxes([[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10, 11]], [0.9, 0.5, 0.1])
    assert boxes.xyxy_N4.dtype == boxes.scores_N.dtype == np.float32
    assert len(boxes) == 3
    for which in (slice(1, 3), np.array([1, 2]), np.array([False, True, True])):
        assert boxes[which].xyxy_N4.tolist() == [[4, 5, 6, 7], [8, 9, 10, 11]]
        assert boxes[which].scores_N.tolist() == pytest.approx([0.5, 0.1])
    assert len(boxes[np.zeros(3, bool)]) == 0


@pytest.mark.parametrize(
    ("xyxy", "scores", "message"),
    [
        ((2, 5), (2,), r"xyxy_N4: expected \(N, 4\), got \(2, 5\)"),
        ((4,), (4,), r"xyxy_N4: expected \(N, 4\), got \(4,\)"),
        ((2, 4), (3,), r"scores_N: expected \(2,\), got \(3,\)"),
        ((2, 4), (2, 1), r"scores_N: expected \(2,\), got \(2, 1\)"),
    ],
)
def test_boxes_of_wrong_shape(xyxy, scores, message):
    with pytest.raises(ValueError, match=message):
        Boxes(np.zeros(xyxy), np.zeros(scores))


@pytest.mark.parametrize("name", ["coco17", "hand21"])
def test_nobody(name):
    schema = load_schema(name)
    for poses in (Poses.empty(schema), make_poses(0, name)):
        assert len(poses) == len(poses.boxes) == len(Boxes.empty()) == 0
        assert poses.keypoints_NK2.shape == (0, len(schema), 2)
        assert poses.scores_NK.shape == (0, len(schema))
        assert poses.person_scores_N.shape == (0,)


def test_poses_become_float32():
    poses = make_poses(2)
    for array in (poses.keypoints_NK2, poses.scores_NK, poses.person_scores_N):
        assert array.dtype == np.float32


@pytest.mark.parametrize(
    ("field", "shape", "expected"),
    [
        ("keypoints_NK2", (2, 16, 2), "(2, 17, 2)"),
        ("keypoints_NK2", (2, 17, 3), "(2, 17, 2)"),
        ("scores_NK", (2, 17, 1), "(2, 17)"),
        ("person_scores_N", (3,), "(2,)"),
        ("track_ids_N", (3,), "(2,)"),
    ],
)
def test_poses_of_wrong_shape(field, shape, expected):
    with pytest.raises(ValueError, match=field) as raised:
        make_poses(2, **{field: np.zeros(shape)})
    assert str(raised.value) == f"{field}: expected {expected}, got {shape}"


@pytest.mark.parametrize(
    ("heatmaps", "matrices"), [((2, 17, 64), (2, 2, 3)), ((2, 17, 64, 48), (3, 2, 3))]
)
def test_heatmaps_of_wrong_shape(heatmaps, matrices):
    with pytest.raises(ValueError, match=r"expected \(N, K, H, W\) and \(N, 2, 3\)") as raised:
        PersonHeatmaps(np.zeros(heatmaps), np.zeros(matrices))
    assert str(raised.value).endswith(f"got {heatmaps} and {matrices}")


def test_stages_cannot_change_what_they_were_given():
    for value, field in (
        (make_frame(), "name"),
        (Boxes.empty(), "scores_N"),
        (make_poses(), "boxes"),
    ):
        with pytest.raises(AttributeError, match="cannot assign"):
            setattr(value, field, None)
