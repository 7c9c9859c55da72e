"""Detector files without pickle: what is written is read, opened and refused in words."""

import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from hrnet_cli.detectors import USUAL_IOU, DetectorSettings, stored_yolo, yolo
from hrnet_cli.detectors.stored_yolo import StoredYolo, read_stored_yolo, save_stored_yolo
from hrnet_cli.errors import InputError, OutputError, WeightsError
from hrnet_cli.structures import Frame

# Looked for, not imported: importing it outside the product's own way changes Pillow and OpenCV for
# all other tests.
if importlib.util.find_spec("ultralytics") is None:
    pytest.skip("ultralytics is not installed", allow_module_level=True)

METADATA = {
    "format": stored_yolo.FORMAT,
    "architecture": "yolo11n.yaml",
    "classes": '["person"]',
    "input_size": "64",
}


def build_network(classes: int) -> torch.nn.Module:
    with yolo._process_left_as_it_was(), yolo._nothing_sent(), yolo._no_console():
        yolo._import_ultralytics()
        from ultralytics.nn.tasks import DetectionModel

        torch.manual_seed(0)
        return DetectionModel("yolo11n.yaml", nc=classes, verbose=False).eval()


def save_network(path: Path, classes: tuple[str, ...] = ("person",)) -> torch.nn.Module:
    network = build_network(len(classes))
    stored = StoredYolo("yolo11n.yaml", classes, 64, network.state_dict())
    save_stored_yolo(path, stored, licence="none", provenance="a test")
    return network


@pytest.fixture(scope="module")
def stored_file(tmp_path_factory) -> tuple[Path, torch.nn.Module]:
    path = tmp_path_factory.mktemp("detector") / "tiny.safetensors"
    return path, save_network(path)


def test_what_is_written_is_read(stored_file):
    path, network = stored_file
    stored = read_stored_yolo(path)
    assert (stored.architecture, stored.classes, stored.input_size) == (
        "yolo11n.yaml",
        ("person",),
        64,
    )
    for name, tensor in network.state_dict().items():
        torch.testing.assert_close(stored.tensors[name], tensor, rtol=1e-3, atol=1e-4)
    halves = sum(tensor.numel() for tensor in stored.tensors.values()) * 2
    assert path.stat().st_size < 1.1 * halves


def test_a_detector_of_it_finds_what_the_network_finds(stored_file):
    path, network = stored_file
    picture = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    settings = DetectorSettings(person_threshold=0.0, max_people=5, input_size=640)
    detector = yolo.open_yolo("tiny", path, settings)
    (boxes,) = detector([Frame(picture, "a.png", "a.png")])
    with torch.inference_mode():
        scores = network(torch.from_numpy(picture).permute(2, 0, 1)[None] / 255)[0][0, 4]
    # 64x64 at the file's own input size: with the 640 of the settings there would be others.
    assert scores.shape == (8 * 8 + 4 * 4 + 2 * 2,)
    assert boxes.scores_N[0] == pytest.approx(scores.max().item(), abs=1e-3)


def test_its_own_overlap_of_boxes_counts_unless_one_is_given(tmp_path):
    path = tmp_path / "own.safetensors"
    stored = StoredYolo("yolo11n.yaml", ("person",), 64, build_network(1).state_dict(), 0.4)
    save_stored_yolo(path, stored, licence="none", provenance="a test")
    picture = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)

    def count(overlap: float | None) -> int:
        settings = DetectorSettings(person_threshold=0.0, iou_threshold=overlap)
        (boxes,) = yolo.open_yolo("own", path, settings)([Frame(picture, "a.png", "a.png")])
        return len(boxes)

    assert count(None) == count(0.4) < count(0.9)


def test_a_file_without_an_overlap_has_the_usual_one(tmp_path):
    save_file({"a": torch.zeros(1)}, tmp_path / "old.safetensors", METADATA)
    assert read_stored_yolo(tmp_path / "old.safetensors").iou_threshold == USUAL_IOU


def test_classes_have_their_own_numbers(tmp_path):
    save_network(tmp_path / "two.safetensors", ("ball", "person"))
    settings = DetectorSettings(class_name="ball")
    assert yolo.open_yolo("two", tmp_path / "two.safetensors", settings)._labels == [0]
    with pytest.raises(InputError, match="'persn'"):
        yolo.open_yolo("two", tmp_path / "two.safetensors", DetectorSettings(class_name="persn"))


def test_random_numbers_stay_where_they_were(stored_file):
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    yolo.open_yolo("tiny", stored_file[0], DetectorSettings())
    assert torch.equal(torch.rand(3), expected)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("architecture", "../mine.yaml", "expected a name such as yolo11n.yaml"),
        ("architecture", "yolo11n.pt", "expected a name such as yolo11n.yaml"),
        ("classes", "person", 'expected a list of names such as ["person"]'),
        ("classes", "[]", 'expected a list of names such as ["person"]'),
        ("input_size", "-64", "expected a multiple of 32"),
        ("input_size", "100", "expected a multiple of 32"),
        ("input_size", "0", "expected a multiple of 32"),
        ("iou_threshold", "half", "expected a number from 0 to 1"),
        ("iou_threshold", "1.5", "expected a number from 0 to 1"),
        ("iou_threshold", "nan", "expected a number from 0 to 1"),
    ],
)
def test_wrong_metadata_are_named(tmp_path, key, value, message):
    path = tmp_path / "mine.safetensors"
    save_file({"a": torch.zeros(1)}, path, METADATA | {key: value})
    with pytest.raises(WeightsError) as caught:
        read_stored_yolo(path)
    assert caught.value.message == (
        f"detector '{path}': {key} in its metadata is '{value}', {message}"
    )


def test_a_pose_model_is_no_detector(tmp_path):
    path = tmp_path / "pose.safetensors"
    save_file({"a": torch.zeros(1)}, path, {"architecture": "hrnet"})
    with pytest.raises(WeightsError, match="is no detector") as caught:
        yolo.open_yolo("mine", path, DetectorSettings())
    assert caught.value.hint == "a pose model is given with --model"


def test_other_weights_than_the_architecture_has_are_refused(tmp_path):
    path = tmp_path / "mine.safetensors"
    save_file({"a": torch.zeros(1)}, path, METADATA)
    with pytest.raises(WeightsError, match="cannot be loaded") as caught:
        yolo.open_yolo("mine", path, DetectorSettings())
    assert "\n" not in caught.value.message


def test_a_damaged_file_is_refused(tmp_path, stored_file):
    path = tmp_path / "mine.safetensors"
    path.write_bytes(stored_file[0].read_bytes()[:5000])
    with pytest.raises(WeightsError, match="cannot be read as safetensors"):
        read_stored_yolo(path)


def test_a_file_that_cannot_be_written_leaves_nothing(tmp_path):
    stored = StoredYolo("yolo11n.yaml", ("person",), 64, {"a": torch.zeros(1)})
    with pytest.raises(OutputError, match="cannot be written"):
        save_stored_yolo(
            tmp_path / "none" / "a.safetensors", stored, licence="none", provenance="a test"
        )
    assert list(tmp_path.iterdir()) == []


def test_metadata_hold_licence_and_origin(stored_file):
    with stored_yolo.safe_open(stored_file[0], framework="pt") as file:
        metadata = file.metadata()
    assert metadata["licence"] == "none"
    assert metadata["provenance"] == "a test"
    assert json.loads(metadata["classes"]) == ["person"]
