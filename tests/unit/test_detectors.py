"""Every detector of DETECTORS keeps the same promises; plus what only torchvision does."""

import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torchvision.models import detection
from torchvision.models.detection.backbone_utils import resnet_fpn_backbone
from torchvision.ops import FrozenBatchNorm2d

from exported_models import save_yolo
from hrnet_cli.cli.detect_run import _for_photos
from hrnet_cli.cli.video_options import VideoOptions
from hrnet_cli.detectors import (
    DETECTORS,
    Detector,
    DetectorSettings,
    detector_family,
    open_detector,
    yolo,
)
from hrnet_cli.detectors.keeping import KeepingDetector, RegionDetector
from hrnet_cli.errors import ExitCode, InputError, UsageError, WeightsError
from hrnet_cli.geometry import box_iou
from hrnet_cli.structures import Boxes, Frame

# Random networks are never sure of anything: every box counts.
EVERY_BOX = DetectorSettings(person_threshold=0.0, max_people=5, input_size=64)


def make_frame(height: int, width: int, seed: int = 0) -> Frame:
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Frame(pixels, f"{seed}.png", f"{seed}.png")


def open_without_warnings(name: str, path: Path | None, settings: DetectorSettings) -> Detector:
    warnings: list[str] = []
    detector = open_detector(name, path, settings, trusted=True, on_warning=warnings.append)
    assert warnings == []
    return detector


@pytest.fixture(scope="module")
def random_weights(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path | None]:
    """A weights file of an untrained network for each detector."""
    folder = tmp_path_factory.mktemp("weights")
    torch.manual_seed(0)
    with yolo._process_left_as_it_was(), yolo._nothing_sent(), yolo._no_console():
        model = yolo._import_ultralytics()("yolo11n.yaml")
    names = {0: "person", 1: "bicycle", 2: "horse"}
    model.model.names = names | {number: f"thing {number}" for number in range(3, 80)}
    model.save(folder / "random.pt")
    network = detection.fasterrcnn_mobilenet_v3_large_320_fpn(weights=None, weights_backbone=None)
    torch.save(network.state_dict(), folder / "fasterrcnn_320.pth")
    return {
        "yolo": folder / "random.pt",
        "yolo-exported": save_yolo(folder / "random.onnx"),
        "torchvision": folder / "fasterrcnn_320.pth",
        "whole-image": None,
    }


@pytest.fixture(scope="module")
def detectors(random_weights) -> dict[str, Detector]:
    """Each detector, opened once."""
    return {
        family: open_without_warnings(family, path, EVERY_BOX)
        for family, path in random_weights.items()
    }


@pytest.mark.parametrize("family", DETECTORS)
def test_each_detector_gives_one_boxes_per_frame(family, detectors):
    detector = detectors[family]
    frames = [make_frame(48, 64, 1), make_frame(90, 30, 2), make_frame(48, 64, 3)]

    found = detector(frames)

    assert [type(boxes) for boxes in found] == [Boxes] * 3
    for frame, boxes in zip(frames, found, strict=True):
        width, height = frame.size_wh
        assert 1 <= len(boxes) <= 5
        assert boxes.xyxy_N4.min() >= 0
        assert (boxes.xyxy_N4 <= [width, height, width, height]).all()
        assert (boxes.xyxy_N4[:, 2:] > boxes.xyxy_N4[:, :2]).all()
        assert (np.diff(boxes.scores_N) <= 0).all()
        assert ((boxes.scores_N >= 0) & (boxes.scores_N <= 1)).all()
    assert isinstance(detector.name, str)
    assert detector.name


@pytest.mark.parametrize("family", DETECTORS)
def test_each_detector_accepts_no_frames(family, detectors):
    assert detectors[family]([]) == []


@pytest.mark.parametrize("family", [family for family in DETECTORS if family != "whole-image"])
def test_each_detector_finds_nobody_rather_than_the_whole_picture(family, random_weights):
    sure = DetectorSettings(person_threshold=1.0, input_size=64)
    (boxes,) = open_without_warnings(family, random_weights[family], sure)([make_frame(48, 64)])
    assert boxes.xyxy_N4.shape == (0, 4)
    assert boxes.scores_N.shape == (0,)


@pytest.mark.parametrize("family", DETECTORS)
def test_each_detector_gives_a_photo_the_same_boxes_alone_and_among_others(family, detectors):
    detector = detectors[family]
    photo = make_frame(48, 64, 1)
    alone = detector([photo])[0]
    among = detector([make_frame(90, 30, 2), photo, make_frame(48, 64, 3)])[1]
    # A batch sums floats in another order; a neighbour's padding would move boxes by pixels.
    np.testing.assert_allclose(among.xyxy_N4, alone.xyxy_N4, atol=0.01)
    np.testing.assert_allclose(among.scores_N, alone.scores_N, atol=1e-4)


@pytest.mark.parametrize("family", [family for family in DETECTORS if family != "whole-image"])
def test_each_detector_refuses_a_class_it_does_not_know(family, random_weights):
    settings = DetectorSettings(class_name="hors")
    with pytest.raises(InputError, match=r"has no class 'hors'; it knows horse, ") as caught:
        open_without_warnings(family, random_weights[family], settings)
    assert caught.value.exit_code == ExitCode.INPUT
    assert caught.value.hint == "choose one with --class"


@pytest.mark.parametrize("family", [family for family in DETECTORS if family != "whole-image"])
def test_each_detector_refuses_a_missing_file(family, tmp_path):
    missing = tmp_path / ("none.pth" if family == "torchvision" else "none.pt")
    with pytest.raises(WeightsError, match=r"none\.pth?' does not exist") as caught:
        open_without_warnings(family, missing, EVERY_BOX)
    assert caught.value.exit_code == ExitCode.WEIGHTS
    with pytest.raises(WeightsError, match=f"detector '{family}' has no weights file"):
        open_without_warnings(family, None, EVERY_BOX)


def test_whole_image_boxes_the_picture():
    detector = open_without_warnings("whole-image", None, DetectorSettings())
    (boxes,) = detector([make_frame(48, 64)])
    assert detector.name == "whole-image"
    assert boxes.xyxy_N4.tolist() == [[0, 0, 64, 48]]
    assert boxes.scores_N.tolist() == [1]


@pytest.mark.parametrize(
    ("name", "path", "family"),
    [
        ("whole-image", None, "whole-image"),
        ("torchvision", Path("x.pth"), "torchvision"),
        ("mine", Path("fasterrcnn.pth"), "torchvision"),
        ("yolo26s", Path("cache/yolo26s.pt"), "yolo"),
        ("mine", Path("x_openvino_model"), "yolo-exported"),
        ("mine", Path("x.onnx"), "yolo-exported"),
        ("mine", Path("x.torchscript"), "yolo"),
    ],
)
def test_name_and_suffix_pick_the_detector(name, path, family):
    assert detector_family(name, path) == family


@pytest.mark.parametrize("trusted", [False, True])
@pytest.mark.parametrize("value", [None, "1", "0"])
def test_a_pickle_whose_code_may_run_gets_one_line_of_warning(
    random_weights, monkeypatch, value, trusted
):
    monkeypatch.delenv("ULTRALYTICS_SAFE_LOAD", raising=False)
    if value is not None:
        monkeypatch.setenv("ULTRALYTICS_SAFE_LOAD", value)
    path = random_weights["yolo"]
    warnings: list[str] = []
    open_detector("random", path, EVERY_BOX, trusted=trusted, on_warning=warnings.append)
    line = (
        f"{path} is not listed in weights.toml, and with ULTRALYTICS_SAFE_LOAD=0 the code inside"
        " it is run; use only files you trust"
    )
    assert warnings == ([line] if value == "0" and not trusted else [])


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"person_threshold": 1.5}, "person_threshold is 1.5, expected 0 to 1"),
        ({"iou_threshold": -0.1}, "iou_threshold is -0.1, expected 0 to 1"),
        ({"max_people": 0}, "max_people is 0, expected at least 1"),
        ({"input_size": 0}, "input_size is 0, expected at least 1"),
    ],
)
def test_settings_out_of_range_are_refused(wrong, message):
    with pytest.raises(UsageError, match=message) as caught:
        DetectorSettings(**wrong)
    assert caught.value.exit_code == ExitCode.USAGE


def test_importing_the_family_imports_no_heavy_package():
    code = (
        "import sys, hrnet_cli.detectors;"
        "print(sorted({'numpy', 'cv2', 'torch', 'torchvision', 'ultralytics'} & set(sys.modules)))"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.stdout == "[]\n"


class TestTorchvision:
    def test_equals_torchvision_on_weights_with_frozen_norms(self, tmp_path):
        # Built the way torchvision builds the network of the published file: frozen batch norms
        # with epsilon 0. The first variance is as small as torch's usual epsilon, 1e-5, which
        # would shrink the features by the square root of 2.
        torch.manual_seed(0)
        backbone = resnet_fpn_backbone(
            backbone_name="resnet50", weights=None, norm_layer=FrozenBatchNorm2d
        )
        reference = detection.FasterRCNN(backbone, 91, min_size=64, max_size=128).eval()
        for module in reference.modules():
            if isinstance(module, FrozenBatchNorm2d):
                module.eps = 0.0
        backbone.body.conv1.weight.data *= 1e-5**0.5
        backbone.body.bn1.running_var.fill_(1e-5)
        torch.save(reference.state_dict(), tmp_path / "resnet50.pth")
        detector = open_without_warnings(
            "torchvision", tmp_path / "resnet50.pth", DetectorSettings()
        )
        pixels = torch.rand(1, 3, 64, 64)
        with torch.inference_mode():
            expected = reference.backbone(pixels)
            features = detector.model.backbone(pixels)
        for level, values in expected.items():
            # The same convolutions; only the order of the norms' products differs.
            assert values.std() > 0.1
            torch.testing.assert_close(features[level], values, rtol=1e-3, atol=1e-5)

    @pytest.mark.parametrize(
        ("file_name", "build"),
        [
            ("v2.pth", detection.fasterrcnn_resnet50_fpn_v2),
            ("large.pth", detection.fasterrcnn_mobilenet_v3_large_fpn),
            ("large_320.pth", detection.fasterrcnn_mobilenet_v3_large_320_fpn),
        ],
    )
    def test_tells_the_network_from_the_file(self, tmp_path, file_name, build):
        network = build(weights=None, weights_backbone=None)
        torch.save(network.state_dict(), tmp_path / file_name)
        detector = open_without_warnings("torchvision", tmp_path / file_name, DetectorSettings())
        assert detector.model.transform.min_size == network.transform.min_size
        assert str(detector.model.backbone) == str(network.backbone)
        for key, value in network.state_dict().items():
            assert torch.equal(detector.model.state_dict()[key], value), key

    def test_boxes_only_the_wanted_class(self, random_weights):
        # COCO's numbers: 1 person, 3 car.
        for class_name, labels in (("person", (1,)), ("Car", (3,)), ("cat,dog", (17, 18))):
            settings = DetectorSettings(class_name=class_name, person_threshold=0.0)
            detector = open_without_warnings("torchvision", random_weights["torchvision"], settings)
            assert detector.labels == labels
            frame = Frame(np.random.default_rng(0).integers(0, 256, (90, 120, 3), np.uint8), "a")
            (boxes,) = detector([frame])
            if len(labels) > 1 and len(boxes) > 1:
                # One box for what could be either.
                overlap_NN = box_iou(boxes.xyxy_N4, boxes.xyxy_N4) - np.eye(len(boxes))
                assert overlap_NN.max() <= settings.overlap + 1e-6

    def test_placeholders_are_no_classes(self, random_weights):
        with pytest.raises(InputError, match="has no class 'N/A'"):
            open_without_warnings(
                "torchvision", random_weights["torchvision"], DetectorSettings(class_name="N/A")
            )

    @pytest.mark.parametrize(
        ("content", "message"),
        [
            (b"", "is damaged or holds more than tensors"),
            (b"<html>not found</html>", "is damaged or holds more than tensors"),
            ({"a": torch.zeros(1)}, "is not a state_dict of a torchvision fasterrcnn"),
            ([1, 2], "is not a state_dict of a torchvision fasterrcnn"),
            ({"roi_heads.box_head.fc6.weight": torch.zeros(1)}, "has tensors of other shapes"),
        ],
    )
    def test_unusable_files_are_named(self, tmp_path, content, message):
        path = tmp_path / "mine.pth"
        if isinstance(content, bytes):
            path.write_bytes(content)
        else:
            torch.save(content, path)
        with pytest.raises(WeightsError, match=message) as caught:
            open_without_warnings("torchvision", path, DetectorSettings())
        assert str(path) in caught.value.message

    def test_missing_tensors_are_named(self, tmp_path, random_weights):
        state = torch.load(random_weights["torchvision"], weights_only=True)
        del state["rpn.head.conv.0.0.bias"]
        torch.save(state, tmp_path / "part_320.pth")
        with pytest.raises(WeightsError, match=r"lacks tensor 'rpn\.head\.conv\.0\.0\.bias'"):
            open_without_warnings("torchvision", tmp_path / "part_320.pth", DetectorSettings())

    def test_a_hostile_pickle_executes_nothing(self, tmp_path):
        class Hostile:
            def __reduce__(self):
                return (Path.touch, (tmp_path / "executed",))

        torch.save({"weights": Hostile()}, tmp_path / "hostile.pth")
        with pytest.raises(WeightsError, match="holds more than tensors"):
            open_without_warnings("torchvision", tmp_path / "hostile.pth", DetectorSettings())
        assert not (tmp_path / "executed").exists()


class Crowd:
    """Finds the same people everywhere: small and sure, large, nearest the middle, unsure."""

    name = "crowd"
    boxes = Boxes(
        np.array([[0, 0, 20, 20], [10, 10, 60, 90], [50, 20, 80, 70], [0, 0, 100, 100]]),
        np.array([0.9, 0.5, 0.4, 0.15]),
    )

    def __call__(self, frames):
        return [self.boxes if frame.source else Boxes.empty() for frame in frames]


def test_who_is_in_a_region():
    image = np.zeros((101, 131, 3), np.uint8)
    frames = [Frame(image, "a.png", "a.png"), Frame(image, "", "b.png")]
    # Centres at (10, 10), (35, 50), (65, 45) and (50, 50); those on the border are inside.
    for region, inside in (((0, 0, 20, 20), [0]), ((35, 46, 64, 99), [1, 3]), ((90, 0, 99, 9), [])):
        detector = RegionDetector(Crowd(), region)
        found, nobody = detector(frames)
        assert detector.name == "crowd"
        np.testing.assert_array_equal(found.xyxy_N4, Crowd.boxes.xyxy_N4[inside])
        assert len(nobody) == 0


@pytest.mark.parametrize(
    ("keep", "people", "kept"),
    [
        ("surest", 1, [0]),
        ("surest", 2, [0, 1]),
        ("largest", 1, [1]),
        ("largest", 2, [1, 2]),
        ("middle", 1, [2]),
        ("middle", 2, [1, 2]),
        # The unsure one is the largest and nearer the middle than most, and yet comes last.
        ("largest", 3, [0, 1, 2]),
        ("middle", 4, [0, 1, 2, 3]),
        ("middle", 9, [0, 1, 2, 3]),
    ],
)
def test_who_stays_of_the_people_of_a_picture(keep, people, kept):
    detector = KeepingDetector(Crowd(), keep, people, 0.25)
    image = np.zeros((101, 131, 3), np.uint8)
    found, nobody = detector([Frame(image, "a.png", "a.png"), Frame(image, "", "b.png")])
    assert detector.name == "crowd"
    np.testing.assert_array_equal(found.xyxy_N4, Crowd.boxes.xyxy_N4[kept])
    np.testing.assert_array_equal(found.scores_N, Crowd.boxes.scores_N[kept])
    assert len(nobody) == 0


@pytest.mark.parametrize(
    ("video", "boxes", "scores"),
    [
        (VideoOptions(track=True), None, [0.9, 0.25]),
        (VideoOptions(smooth="one-euro"), None, [0.9, 0.25]),
        # The detector itself has the threshold then.
        (VideoOptions(), None, [0.9, 0.25, 0.2]),
        (VideoOptions(track=True), "boxes.csv", [0.9, 0.25, 0.2]),
    ],
)
def test_photos_beside_tracked_videos_get_sure_boxes_only(video, boxes, scores):
    class Unsure:
        name = "unsure"

        def __call__(self, frames):
            return [Boxes(np.ones((3, 4)), np.array([0.9, 0.25, 0.2])) for _ in frames]

    options = SimpleNamespace(video=video, boxes=boxes, person_threshold=None)
    detector = _for_photos(Unsure(), options)
    assert detector.name == "unsure"
    (found,) = detector([object()])
    np.testing.assert_allclose(found.scores_N, scores)
