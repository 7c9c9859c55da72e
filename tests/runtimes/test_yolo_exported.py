"""Exported YOLO files without ultralytics: their boxes are those of ultralytics."""

import importlib.util
import shutil
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from exported_models import save_yolo
from hrnet_cli.detectors import DetectorSettings
from hrnet_cli.detectors.yolo import export_yolo, open_yolo
from hrnet_cli.detectors.yolo_exported import (
    open_exported_yolo,
    read_output,
    snug_size,
    to_canvas,
)
from hrnet_cli.errors import ExitCode, InputError, WeightsError
from hrnet_cli.structures import Frame

REAL_FILES = ("yolo11n_int8_openvino_model", "yolov8n_int8.onnx")


def assets() -> Path:
    return Path(importlib.util.find_spec("ultralytics").origin).parent / "assets"


def read_frame(name: str) -> Frame:
    return Frame(np.ascontiguousarray(cv2.imread(str(assets() / name))[:, :, ::-1]), name)


@pytest.mark.parametrize("name", REAL_FILES)
def test_boxes_are_those_of_ultralytics(test_weights, name):
    frames = [read_frame("bus.jpg"), read_frame("zidane.jpg")]
    # Odd sides, so that the free pixels beside the picture are odd too, and its scales in x and y.
    frames.append(Frame(np.ascontiguousarray(frames[0].image_HW3[300:971, :803]), "odd"))
    settings = DetectorSettings(person_threshold=0.02, iou_threshold=0.6)
    own = open_exported_yolo(name, test_weights / name, settings)(frames)
    reference = open_yolo(name, test_weights / name, settings)(frames)
    assert sum(len(boxes) for boxes in own) > 8
    for mine, theirs in zip(own, reference, strict=True):
        assert len(mine) == len(theirs)
        # The same file on the same engine; only the last bits of the way back differ.
        np.testing.assert_allclose(mine.xyxy_N4, theirs.xyxy_N4, atol=0.01)
        np.testing.assert_allclose(mine.scores_N, theirs.scores_N, atol=1e-4)


def test_exports_that_suppress_by_themselves(test_weights, tmp_path):
    pytest.importorskip("onnxruntime")
    from ultralytics import YOLO

    weights = Path(shutil.copy(test_weights / "yolo11n.pt", tmp_path))
    made = YOLO(weights).export(format="onnx", imgsz=320, nms=True, simplify=False, verbose=False)
    frames = [read_frame("bus.jpg"), read_frame("zidane.jpg")]
    own = open_exported_yolo("own", Path(made), DetectorSettings())(frames)
    reference = open_yolo("own", Path(made), DetectorSettings())(frames)
    assert [len(boxes) for boxes in own] == [len(boxes) for boxes in reference]
    assert len(own[0]) == 4
    for mine, theirs in zip(own, reference, strict=True):
        np.testing.assert_allclose(mine.xyxy_N4, theirs.xyxy_N4, atol=0.01)
        np.testing.assert_allclose(mine.scores_N, theirs.scores_N, atol=1e-4)


@pytest.mark.parametrize("target", ["onnx", "openvino"])
def test_our_exports_take_the_canvas_that_ultralytics_takes(test_weights, tmp_path, target):
    pytest.importorskip({"onnx": "onnxruntime"}.get(target, target))
    (tmp_path / "made").mkdir()
    written = export_yolo(test_weights / "yolo11n.pt", target, tmp_path / "made", half=False)
    wide = read_frame("zidane.jpg").image_HW3[:397, :1011]
    frames = [read_frame("bus.jpg"), Frame(np.ascontiguousarray(wide), "wide")]
    settings = DetectorSettings(person_threshold=0.1)
    detector = open_exported_yolo("own", written, settings)
    assert detector._network.size_hw is None
    own = detector(frames)
    reference = open_yolo("yolo11n", test_weights / "yolo11n.pt", settings)(frames)
    for mine, theirs in zip(own, reference, strict=True):
        assert len(mine) == len(theirs) > 1
        np.testing.assert_allclose(mine.xyxy_N4, theirs.xyxy_N4, atol=0.02)


@pytest.mark.parametrize("size", [(1, 1), (2, 3000), (3000, 2), (5, 7)])
def test_thin_pictures_give_boxes_inside_them(tmp_path, size):
    settings = DetectorSettings(person_threshold=0.0, max_people=3)
    detector = open_exported_yolo("mine", save_yolo(tmp_path / "mine.onnx"), settings)
    height, width = size
    (boxes,) = detector([Frame(np.zeros((height, width, 3), np.uint8), "thin")])
    assert (boxes.xyxy_N4 >= 0).all()
    assert (boxes.xyxy_N4 <= [width, height, width, height]).all()


def test_an_export_in_half_precision_is_fed_half_precision(tmp_path):
    settings = DetectorSettings(person_threshold=0.0, max_people=5)
    frame = Frame(np.random.default_rng(1).integers(0, 256, (48, 64, 3), dtype=np.uint8), "a")
    found = [
        open_exported_yolo("mine", save_yolo(tmp_path / f"{half}.onnx", half=half), settings)(
            [frame]
        )[0]
        for half in (False, True)
    ]
    # Half precision has 11 bits: of 64 pixels a thirtieth.
    np.testing.assert_allclose(found[1].scores_N, found[0].scores_N, atol=0.01)
    assert len(found[0]) == 5


class TestParts:
    def test_a_picture_stands_in_the_middle_of_the_canvas(self):
        image = np.full((20, 41, 3), 200, np.uint8)
        canvas, scale, offset = to_canvas(image, (64, 64))
        assert scale.tolist() == [64 / 41, 31 / 20]
        assert canvas.shape == (64, 64, 3)
        rows = np.flatnonzero((canvas == 200).all(axis=(1, 2)))
        # 20 rows become 31; of the 33 left 16 lie above and 17 below.
        assert (rows.min(), rows.max()) == (16, 46)
        assert offset.tolist() == [0, 16]
        assert set(np.unique(canvas)) == {114, 200}

    @pytest.mark.parametrize(
        ("image_hw", "size"),
        [((1080, 810), (640, 480)), ((480, 640), (480, 640)), ((100, 3000), (32, 640))],
    )
    def test_a_network_of_any_size_gets_the_smallest_canvas(self, image_hw, size):
        assert snug_size(image_hw, 640, 32) == size

    def test_a_place_is_of_its_likeliest_class(self):
        # Three places: a person, a bicycle that is a little like a person, a person.
        output = np.array(
            [[10, 20, 30], [10, 20, 30], [4, 4, 8], [2, 2, 4], [0.9, 0.4, 0.3], [0.1, 0.5, 0.2]]
        )
        boxes, scores = read_output(output, classes=2, labels=(0,))
        assert boxes.tolist() == [[8, 9, 12, 11], [26, 28, 34, 32]]
        assert scores.tolist() == [0.9, 0.3]
        boxes, scores = read_output(output, classes=2, labels=(0, 1))
        assert boxes.tolist() == [[8, 9, 12, 11], [18, 19, 22, 21], [26, 28, 34, 32]]
        assert scores.tolist() == [0.9, 0.5, 0.3]

    def test_what_follows_the_classes_is_no_class(self):
        output = np.zeros((4 + 1 + 51, 8))
        output[4, 3], output[5:, :] = 0.8, 9.0
        _, scores = read_output(output, classes=1, labels=(0,))
        assert scores.max() == 0.8

    @pytest.mark.parametrize("rows", [3, 84, 300])
    @pytest.mark.parametrize("more", [0, 51])
    def test_rows_that_are_suppressed_already(self, rows, more):
        output = np.zeros((rows, 6 + more))
        output[:3, :6] = [[1, 2, 3, 4, 0.9, 0], [5, 6, 7, 8, 0.8, 2], [1, 1, 2, 2, 0.7, 0]]
        output[3:, 5] = 1
        for classes in (1, 80):
            boxes, scores = read_output(output, classes, (0,), more)
            assert boxes.tolist() == [[1, 2, 3, 4], [1, 1, 2, 2]]
            assert scores.tolist() == [0.9, 0.7]
        assert len(read_output(output, 80, (0, 2), more)[0]) == 3


class TestUnusableFiles:
    def refused(self, path: Path) -> WeightsError:
        with pytest.raises(WeightsError) as caught:
            open_exported_yolo("mine", path, DetectorSettings())
        assert caught.value.exit_code == ExitCode.WEIGHTS
        assert str(path) in caught.value.message
        assert "\n" not in caught.value.message
        return caught.value

    @pytest.mark.parametrize("name", ["none.onnx", "none_openvino_model"])
    def test_missing(self, tmp_path, name):
        assert self.refused(tmp_path / name).message.endswith("does not exist")

    def test_empty(self, tmp_path):
        (tmp_path / "mine.onnx").touch()
        assert self.refused(tmp_path / "mine.onnx").message.endswith("is empty (0 bytes)")
        (tmp_path / "mine_openvino_model").mkdir()
        assert (
            "holds 0 .xml files, expected one"
            in self.refused(tmp_path / "mine_openvino_model").message
        )

    def test_damaged(self, tmp_path):
        (tmp_path / "mine.onnx").write_bytes(b"<html>404 not found</html>")
        error = self.refused(tmp_path / "mine.onnx")
        assert "cannot be loaded, it is damaged or not made by ultralytics" in error.message
        assert error.hint == "fetch or export the file again"
        folder = tmp_path / "mine_openvino_model"
        folder.mkdir()
        (folder / "mine.xml").write_text("<net>")
        assert "cannot be loaded, it is damaged" in self.refused(folder).message

    def test_a_damaged_description(self, tmp_path, test_weights):
        folder = tmp_path / "mine_openvino_model"
        shutil.copytree(test_weights / REAL_FILES[0], folder)
        (folder / "metadata.yaml").chmod(0o644)
        (folder / "metadata.yaml").write_text("names: [")
        assert "metadata.yaml cannot be read" in self.refused(folder).message
        (folder / "metadata.yaml").write_text("names: {0: person}\nstride: much\n")
        assert "says of itself what cannot be" in self.refused(folder).message

    def test_a_classifier_finds_no_boxes(self, tmp_path):
        error = self.refused(save_yolo(tmp_path / "mine.onnx", task="classify"))
        assert error.message.endswith("finds no boxes: it is made for the task 'classify'")
        assert error.hint == "use a detection, pose or segmentation model"

    def test_several_pictures_at_once(self, tmp_path):
        error = self.refused(save_yolo(tmp_path / "mine.onnx", batch=4))
        assert error.message.endswith("takes 4 pictures at once, expected 1 or any number")

    @pytest.mark.parametrize("names", [None, "{0: 'class0', 1: 'class1'}", "{0: person"])
    def test_an_export_without_names_says_so(self, tmp_path, names):
        path = save_yolo(tmp_path / "mine.onnx", names=names)
        with pytest.raises(InputError, match="carries no class names, so 'person' cannot be found"):
            open_exported_yolo("mine", path, DetectorSettings())

    @pytest.mark.parametrize(
        ("name", "package", "extra"),
        [
            ("mine.onnx", "onnxruntime", "'hrnet-cli[onnx]'"),
            ("mine_openvino_model", "openvino", "'hrnet-cli[openvino]'"),
        ],
    )
    def test_a_missing_runtime_is_named(self, tmp_path, monkeypatch, name, package, extra):
        path = tmp_path / name
        if path.suffix:
            path.write_bytes(b"x")
        else:
            path.mkdir()
            (path / "mine.xml").write_text("<net/>")
        monkeypatch.setitem(sys.modules, package, None)
        error = self.refused(path)
        assert error.message == (
            f"detector '{path}' needs the package {package}, which is not installed"
        )
        assert error.hint == f"pip install {extra}"
