"""The YOLO detector: real files find real people, and ultralytics leaves the process alone."""

import hashlib
import importlib
import importlib.util
import json
import os
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from hrnet_cli.detectors import DetectorSettings, yolo
from hrnet_cli.detectors.yolo import YoloDetector, open_yolo
from hrnet_cli.errors import ExitCode, InputError, WeightsError
from hrnet_cli.geometry import box_iou
from hrnet_cli.structures import Frame

if importlib.util.find_spec("ultralytics") is None:
    pytest.skip("ultralytics is not installed", allow_module_level=True)

YOLO11N_SHA256 = "8c9c7091efbbefc72b0bc9f1f37641ae65db16fe56d5d04cff3e7e59c06dea17"
REAL_FILES = ("yolo11n.pt", "yolo11n_int8_openvino_model", "yolov8n_int8.onnx")
RUNTIMES = {".onnx": "onnxruntime", "": "openvino"}


def bus_path() -> Path:
    """Return ultralytics' own test picture: four people before a bus."""
    spec = importlib.util.find_spec("ultralytics")
    assert spec is not None
    assert spec.origin is not None
    return Path(spec.origin).parent / "assets" / "bus.jpg"


@pytest.fixture(scope="module")
def bus() -> Frame:
    return Frame(cv2.imread(str(bus_path()))[:, :, ::-1], "bus.jpg", "bus.jpg")


def blank(height: int, width: int) -> Frame:
    return Frame(np.full((height, width, 3), 114, np.uint8), "blank.png", "blank.png")


@pytest.fixture(scope="module")
def real_detectors(test_weights) -> dict[str, YoloDetector]:
    digest = hashlib.sha256((test_weights / "yolo11n.pt").read_bytes()).hexdigest()
    assert digest == YOLO11N_SHA256, "a .pt file runs code: only the known one is loaded"
    return {name: open_yolo(name, test_weights / name, DetectorSettings()) for name in REAL_FILES}


@pytest.fixture(scope="module")
def random_pt(tmp_path_factory) -> Path:
    """A file of an untrained detector."""
    return save_random(tmp_path_factory.mktemp("weights") / "random.pt", "yolo11n.yaml")


def save_random(path: Path, architecture: str) -> Path:
    # Imported the way the product does, so that the tests send and write nothing either.
    with yolo._process_left_as_it_was(), yolo._nothing_sent(), yolo._no_console():
        torch.manual_seed(0)
        model = yolo._import_ultralytics()(architecture)
    names = model.model.names
    model.model.names = {number: f"thing {number}" for number in names} | {0: "person"}
    model.save(path)
    return path


class TestRealFiles:
    @pytest.mark.parametrize("name", REAL_FILES)
    def test_finds_the_four_people_of_the_bus(self, real_detectors, bus, name):
        (boxes,) = real_detectors[name]([bus])
        assert real_detectors[name].name == name
        assert len(boxes) == 4
        assert (np.diff(boxes.scores_N) <= 0).all()
        assert boxes.scores_N.min() >= 0.25
        # The man in front and the woman at the right, measured by eye in the picture; the
        # detectors agree to within some 10 pixels of 1080. Exchanged axes or a picture that was
        # not scaled back would miss by hundreds.
        centers = (boxes.xyxy_N4[:, :2] + boxes.xyxy_N4[:, 2:]) / 2
        for x, y in ((145, 650), (740, 640), (283, 632), (33, 714)):
            assert np.abs(centers - (x, y)).max(axis=1).min() < 25, (name, x, y, centers)

    @pytest.mark.parametrize("name", ["yolo11n.pt", "yolov8n-pose.pt"])
    def test_without_its_code_a_file_gives_the_same_boxes(
        self, test_weights, bus, monkeypatch, name
    ):
        found = []
        for value in ("1", "0"):
            monkeypatch.setenv("ULTRALYTICS_SAFE_LOAD", value)
            found += open_yolo("y", test_weights / name, DetectorSettings())([bus])
        assert len(found[0]) == 4
        assert np.array_equal(found[0].xyxy_N4, found[1].xyxy_N4)
        assert np.array_equal(found[0].scores_N, found[1].scores_N)

    @pytest.mark.parametrize("name", REAL_FILES)
    def test_nobody_is_empty(self, real_detectors, name):
        found = real_detectors[name]([blank(480, 640), blank(1, 1)])
        assert [len(boxes) for boxes in found] == [0, 0]

    @pytest.mark.parametrize("name", REAL_FILES)
    def test_a_picture_in_a_batch_equals_the_picture_alone(self, real_detectors, bus, name):
        detector = real_detectors[name]
        mirrored = Frame(np.ascontiguousarray(bus.image_HW3[:, ::-1]), "m.jpg", "m.jpg")
        wide = Frame(bus.image_HW3[200:600], "w.jpg", "w.jpg")
        frames = [blank(480, 640), bus, wide, mirrored, bus]
        among = detector(frames)
        for frame, boxes in zip(frames, among, strict=True):
            (alone,) = detector([frame])
            # A batch sums floats in another order; padding to a neighbour's shape would move
            # boxes by whole pixels.
            np.testing.assert_allclose(boxes.xyxy_N4, alone.xyxy_N4, atol=0.1)
            np.testing.assert_allclose(boxes.scores_N, alone.scores_N, atol=1e-3)

    def test_colours_reach_the_network_in_the_right_order(self, real_detectors, bus):
        swapped = Frame(np.ascontiguousarray(bus.image_HW3[:, :, ::-1]), "s.jpg", "s.jpg")
        right, wrong = real_detectors["yolo11n.pt"]([bus, swapped])
        # ultralytics' own reading of the file is the reference; the margin is that of the JPEG
        # decoder. With the channels exchanged the scores differ by several hundredths.
        reference = real_detectors["yolo11n.pt"]._model
        (result,) = reference.predict(bus_path(), classes=[0], conf=0.25, verbose=False)
        np.testing.assert_allclose(right.scores_N, result.boxes.conf.numpy(), atol=2e-3)
        np.testing.assert_allclose(right.xyxy_N4, result.boxes.xyxy.numpy(), atol=0.5)
        common = min(len(right), len(wrong))
        assert np.abs(right.scores_N[:common] - wrong.scores_N[:common]).max() > 0.01

    def test_settings_reach_the_network(self, test_weights, bus):
        path = test_weights / "yolo11n.pt"
        sure = open_yolo("y", path, DetectorSettings(person_threshold=0.8))
        assert len(sure([bus])[0]) == 3
        two = open_yolo("y", path, DetectorSettings(max_people=2))
        assert len(two([bus])[0]) == 2
        buses = open_yolo("y", path, DetectorSettings(class_name="Bus"))
        (boxes,) = buses([bus])
        assert len(boxes) == 1
        x1, y1, x2, y2 = boxes.xyxy_N4[0]
        assert x2 - x1 > 700
        assert y2 - y1 > 450

    def test_several_classes_are_boxed(self, test_weights, bus):
        path = test_weights / "yolo11n.pt"
        each = [
            open_yolo("y", path, DetectorSettings(class_name=name))([bus])[0]
            for name in ("person", "bus", "person, bus")
        ]
        assert len(each[2]) == len(each[0]) + len(each[1]) == 5
        assert set(each[2].scores_N) == {*each[0].scores_N, *each[1].scores_N}
        assert np.all(np.diff(each[2].scores_N) <= 0)

    def test_what_could_be_one_or_the_other_is_boxed_once(self, test_weights, bus):
        path = test_weights / "yolo11n.pt"
        names = "person,bus,truck,car,train,bicycle,backpack,handbag,tie"
        settings = DetectorSettings(class_name=names, person_threshold=0.01)
        (boxes,) = open_yolo("y", path, settings)([bus])
        overlap_NN = box_iou(boxes.xyxy_N4, boxes.xyxy_N4) - np.eye(len(boxes))
        assert overlap_NN.max() <= settings.overlap + 0.01

    def test_a_pose_model_is_a_detector_too(self, test_weights, bus):
        path = test_weights / "yolov8n-pose.pt"
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        assert digest.startswith("eee2bdaa5a680a9e")
        assert len(open_yolo("pose", path, DetectorSettings())([bus])[0]) == 4

    def test_an_unknown_class_names_the_nearest(self, test_weights):
        with pytest.raises(InputError) as caught:
            open_yolo("mine", test_weights / "yolo11n.pt", DetectorSettings(class_name="persn"))
        assert caught.value.message.startswith(
            "detector 'mine' has no class 'persn'; it knows person, "
        )
        assert caught.value.message.endswith(" and 68 more")
        assert caught.value.exit_code == ExitCode.INPUT

    def test_an_export_without_names_says_so(self, test_weights, tmp_path):
        folder = tmp_path / "nameless_openvino_model"
        folder.mkdir()
        for file in (test_weights / "yolo11n_int8_openvino_model").iterdir():
            if file.suffix != ".yaml":
                shutil.copy(file, folder)
        with pytest.raises(InputError, match="carries no class names, so 'person' cannot be found"):
            open_yolo("mine", folder, DetectorSettings())


class TestThinPictures:
    @pytest.mark.parametrize("size", [(1, 1), (2, 3000), (3000, 2), (1, 5000), (5, 7)])
    def test_give_boxes_inside_them(self, random_pt, size):
        settings = DetectorSettings(person_threshold=0.0, max_people=3, input_size=64)
        (boxes,) = open_yolo("random", random_pt, settings)([blank(*size)])
        height, width = size
        assert (boxes.xyxy_N4 >= 0).all()
        assert (boxes.xyxy_N4 <= [width, height, width, height]).all()


class TestUnusableFiles:
    def refused(self, path: Path) -> WeightsError:
        with pytest.raises(WeightsError) as caught:
            open_yolo("mine", path, DetectorSettings(input_size=64))
        assert caught.value.exit_code == ExitCode.WEIGHTS
        assert str(path) in caught.value.message
        assert "\n" not in caught.value.message
        return caught.value

    @pytest.mark.parametrize("name", ["none.pt", "none_openvino_model", "yolo11n", "yolo11n.pt"])
    def test_missing(self, tmp_path, name):
        # The last two are names that ultralytics would download.
        assert self.refused(tmp_path / name).message.endswith("does not exist")
        assert list(tmp_path.iterdir()) == []

    def test_empty(self, tmp_path):
        (tmp_path / "mine.pt").touch()
        assert self.refused(tmp_path / "mine.pt").message.endswith("is empty (0 bytes)")

    def test_other_kinds(self, tmp_path):
        expected = "expected .pt .onnx .torchscript .engine .safetensors or an OpenVINO folder"
        (tmp_path / "yolo11n").write_bytes(b"x")
        assert expected in self.refused(tmp_path / "yolo11n").message
        (tmp_path / "mine_openvino_model").mkdir()
        assert expected in self.refused(tmp_path / "mine_openvino_model").message
        assert expected in self.refused(tmp_path).message

    @pytest.mark.parametrize("name", ["mine.pt", "mine.onnx", "mine.torchscript", "yolo11n.pt"])
    def test_damaged(self, tmp_path, name):
        (tmp_path / name).write_bytes(b"<html>404 not found</html>")
        error = self.refused(tmp_path / name)
        assert "cannot be loaded, it is damaged or not made by ultralytics" in error.message
        assert error.hint == "fetch or export the file again"
        assert [path.name for path in tmp_path.iterdir()] == [name]

    def test_truncated(self, tmp_path, random_pt):
        (tmp_path / "mine.pt").write_bytes(random_pt.read_bytes()[:100_000])
        assert "cannot be loaded, it is damaged" in self.refused(tmp_path / "mine.pt").message

    @pytest.mark.parametrize("zipped", [True, False])
    def test_code_inside_is_not_run(self, tmp_path, monkeypatch, zipped):
        class Touch:
            def __reduce__(self):
                return os.mkdir, (str(tmp_path / "made by the file"),)

        path = tmp_path / "mine.pt"
        torch.save({"model": Touch()}, path, _use_new_zipfile_serialization=zipped)
        monkeypatch.delenv("ULTRALYTICS_SAFE_LOAD", raising=False)
        error = self.refused(path)
        assert error.message == (
            f"detector '{path}' asks for {os.mkdir.__module__}.mkdir, which no YOLO of ultralytics"
            " is made of; none of its code was run"
        )
        assert error.hint.startswith("set ULTRALYTICS_SAFE_LOAD=0 to run the code inside a file")
        assert list(tmp_path.iterdir()) == [path]
        # Unless the user says so, or the file is a listed one by its hash.
        for value, settings in (("0", DetectorSettings()), ("1", DetectorSettings(trusted=True))):
            monkeypatch.setenv("ULTRALYTICS_SAFE_LOAD", value)
            with pytest.raises(WeightsError, match="cannot be loaded"):
                open_yolo("mine", path, settings)
            (tmp_path / "made by the file").rmdir()

    def test_damaged_openvino(self, tmp_path):
        folder = tmp_path / "mine_openvino_model"
        folder.mkdir()
        (folder / "mine.xml").write_text("<net>")
        (folder / "mine.bin").write_bytes(b"")
        assert "cannot be loaded, it is damaged" in self.refused(folder).message

    def test_a_classifier_finds_no_boxes(self, tmp_path):
        path = save_random(tmp_path / "mine-cls.pt", "yolo11n-cls.yaml")
        error = self.refused(path)
        assert error.message == (
            f"detector '{path}' finds no boxes: it is made for the task 'classify'"
        )
        assert error.hint == "use a detection, pose or segmentation model"

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
        assert error.message.endswith(f"needs the package {package}, which is not installed")
        assert error.hint == f"pip install {extra}"

    def test_without_ultralytics_the_alternatives_are_named(self, random_pt, monkeypatch):
        monkeypatch.setitem(sys.modules, "ultralytics", None)
        with pytest.raises(WeightsError) as caught:
            open_yolo("mine", random_pt, DetectorSettings())
        assert caught.value.message.startswith("YOLO detectors need the package ultralytics")
        for way in ("pip install ultralytics", "torchvision", "whole-image", "--boxes FILE"):
            assert way in caught.value.hint


@pytest.mark.parametrize("name", ["yolov5s.pt", "it's mine.pt", "B\u00e4r 1.pt"])
def test_file_names_are_taken_as_they_are(tmp_path, random_pt, name):
    # ultralytics would look for yolov5su.pt and "its mine.pt", and download the former.
    shutil.copy(random_pt, tmp_path / name)
    open_yolo("mine", tmp_path / name, DetectorSettings(input_size=64))([blank(32, 32)])
    assert [path.name for path in tmp_path.iterdir()] == [name]


# Runs detection as a program of its own, as `hrnet` does: under pytest ultralytics sends nothing
# by itself. Every look-up, connection and child process is written down before it happens. What
# native code sends is not seen here, but it would leave its device number in the home folder.
WATCHED = """
import json, os, sys
from pathlib import Path
events = []
def watch(event, args):
    # ctypes asks these where a library lies (ctypes.util.find_library); they stay on the machine.
    if event == "subprocess.Popen" and Path(args[0]).name in ("ldconfig", "gcc", "cc", "ld"):
        return
    if event.startswith(("socket.", "subprocess.", "os.fork", "os.system", "os.exec", "os.posix_")):
        events.append([event, repr(args)])
sys.addaudithook(watch)

import cv2, numpy, torch
import PIL.Image
from hrnet_cli.detectors import DetectorSettings, open_detector
from hrnet_cli.structures import Frame

def state():
    return {
        "environment": dict(os.environ),
        "torch threads": torch.get_num_threads(),
        "OpenCV threads": cv2.getNumThreads(),
        "print options": repr(numpy.get_printoptions()),
        "torch printing": repr(torch.zeros(300)),
        "functions": [
            f.__module__ for f in (torch.save, torch.load, PIL.Image.open)
        ],
    }

torch.set_num_threads(2)
cv2.setNumThreads(2)
before = state()
frame = Frame(cv2.imread(sys.argv[1])[:, :, ::-1], "bus.jpg", "bus.jpg")
found = []
for path in sys.argv[2:]:
    detector = open_detector(
        path, Path(path), DetectorSettings(), trusted=True, on_warning=print
    )
    found.append(len(detector([frame, frame])[0]))
after = state()
changed = [key for key in before if before[key] != after[key]]
sys.stderr.write("RESULT" + json.dumps({"found": found, "events": events, "changed": changed}))
"""


def run_watched(tmp_path: Path, program: str, *arguments: str) -> tuple[dict, str]:
    """Return what a watched program reports and its stdout; its home is an empty folder."""
    home, work = tmp_path / "home", tmp_path / "work"
    home.mkdir()
    work.mkdir()
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("PYTEST", "YOLO", "XDG", "ULTRALYTICS", "OMP", "GITHUB"))
    }
    result = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program), *arguments],
        env=kept | {"HOME": str(home), "USERPROFILE": str(home), "APPDATA": str(home)},
        cwd=work,
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stderr
    return json.loads(result.stderr.partition("RESULT")[2]), result.stdout


def test_detection_leaves_network_home_and_process_alone(tmp_path, random_pt, request):
    files = [str(random_pt)]
    expected = None
    if os.environ.get("HRNET_TEST_WEIGHTS"):
        folder = request.getfixturevalue("test_weights")
        files = [str(folder / name) for name in REAL_FILES]
        expected = [4, 4, 4]

    report, stdout = run_watched(tmp_path, WATCHED, str(bus_path()), *files)

    assert report["events"] == []
    assert report["changed"] == []
    assert expected is None or report["found"] == expected
    assert stdout == ""
    # Neither settings of ultralytics nor device numbers of onnxruntime and openvino.
    assert list((tmp_path / "home").rglob("*")) == []
    assert list((tmp_path / "work").rglob("*")) == []


def test_the_watch_sees_what_it_watches_for(tmp_path):
    program = WATCHED.partition("import cv2")[0] + (
        "import socket, subprocess\n"
        "try:\n"
        "    socket.create_connection(('127.0.0.1', 9), timeout=1)\n"
        "except OSError:\n"
        "    pass\n"
        "subprocess.run([sys.executable, '--version'], capture_output=True)\n"
        "sys.stderr.write('RESULT' + json.dumps({'events': events}))\n"
    )
    report, _ = run_watched(tmp_path, program)
    seen = {event for event, _ in report["events"]}
    assert {"socket.getaddrinfo", "socket.connect", "subprocess.Popen"} <= seen


def test_usage_events_stay_off_where_ultralytics_was_imported_before(random_pt, monkeypatch):
    events = importlib.import_module("ultralytics.utils.events").events
    monkeypatch.setattr(events, "enabled", True)
    open_yolo("mine", random_pt, DetectorSettings(input_size=64))
    assert events.enabled is False


def test_nothing_is_installed_or_downloaded_while_loading(random_pt, monkeypatch):
    checks = importlib.import_module("ultralytics.utils.checks")
    downloads = importlib.import_module("ultralytics.utils.downloads")
    seen = []
    load = yolo._predict

    def spy(*arguments):
        seen.append((checks.AUTOINSTALL, downloads.attempt_download_asset("yolo11x.pt")))
        return load(*arguments)

    monkeypatch.setattr(yolo, "_predict", spy)
    before = (checks.AUTOINSTALL, downloads.attempt_download_asset)
    open_yolo("mine", random_pt, DetectorSettings(input_size=64))
    assert seen == [(False, "yolo11x.pt")]
    assert (checks.AUTOINSTALL, downloads.attempt_download_asset) == before
