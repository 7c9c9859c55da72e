"""Any detector file that ultralytics can run: .pt, .onnx, OpenVINO folder, TorchScript, TensorRT.

Files of this project (`stored_yolo`) give their weights to a network that ultralytics builds.

ultralytics, left alone, asks the network whether it is online, reports its use, installs missing
packages, writes settings into the home folder and changes settings of torch, OpenCV, NumPy and
Pillow; onnxruntime and openvino report their use too. None of that happens here;
tests/unit/test_yolo.py watches the sockets and the files.
"""

import contextlib
import importlib
import io
import logging
import os
import pickle
import re
import shutil
import sys
import tempfile
import warnings
import zipfile
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch

from hrnet_cli.detectors import SAFE_LOAD, DetectorSettings, runs_code, stored_yolo
from hrnet_cli.detectors.classes import class_indices
from hrnet_cli.errors import WeightsError
from hrnet_cli.optional_packages import EXTRAS, nothing_sent
from hrnet_cli.structures import Boxes, Frame

_SUFFIXES = (".pt", ".onnx", ".torchscript", ".engine", stored_yolo.SUFFIX)
_OPENVINO_FOLDER = "_openvino_model"
_SETTINGS_PREFIX = "hrnet-"
_EXPECTED = f"expected {' '.join(_SUFFIXES)} or an OpenVINO folder named *{_OPENVINO_FOLDER}"
# Pictures of equal size that pass the network together; more gains nothing on a CPU.
_BATCH_SIZE = 8

_ENVIRONMENT = {
    # Read by ultralytics while it is imported (utils/__init__.py) or when it checks requirements.
    "YOLO_OFFLINE": "true",
    "YOLO_AUTOINSTALL": "false",
    "YOLO_VERBOSE": "false",
    "ULTRALYTICS_SKIP_REQUIREMENTS_CHECKS": "true",
}
# Functions of others that ultralytics replaces by its own: its Image.open installs packages.
_REPLACED = (("torch", "save"), ("PIL.Image", "open"), ("cv2", "imread"), ("cv2", "imwrite"))


class YoloDetector:
    """Finds people with an ultralytics model.

    Args:
        name: Name for the records.
        model: A loaded ``ultralytics.YOLO``.
        labels: Numbers of the classes to box.
        settings: Thresholds, limits and device.
    """

    def __init__(
        self,
        name: str,
        model: Any,  # noqa: ANN401 - ultralytics is imported lazily
        labels: tuple[int, ...],
        settings: DetectorSettings,
    ) -> None:
        self.name = name
        self._model = model
        self._labels = list(labels)
        self._settings = settings

    def __call__(self, frames: Sequence[Frame]) -> list[Boxes]:
        """Return the boxes of each frame, surest first, clipped to the frame.

        Only frames of equal size share a batch: mixed sizes are padded to a square, and a photo's
        boxes would depend on its neighbours.
        """
        positions: defaultdict[tuple[int, int], list[int]] = defaultdict(list)
        for position, frame in enumerate(frames):
            positions[frame.size_wh].append(position)
        boxes: dict[int, Boxes] = {}
        for same_size in positions.values():
            for start in range(0, len(same_size), _BATCH_SIZE):
                batch = same_size[start : start + _BATCH_SIZE]
                found = self._detect([frames[position].image_HW3 for position in batch])
                boxes.update(zip(batch, found, strict=True))
        return [boxes[position] for position in range(len(frames))]

    def _detect(self, images: Sequence[np.ndarray]) -> list[Boxes]:
        bgr_images = [_bgr_with_every_row(image, self._settings.input_size) for image in images]
        results = _predict(self._model, bgr_images, self._settings, self._labels)
        height, width = images[0].shape[:2]
        return [
            _to_boxes(result.boxes, (width, height), self._settings.max_people)
            for result in results
        ]


def open_yolo(name: str, path: Path, settings: DetectorSettings) -> YoloDetector:
    """Load a detector file; pose and segmentation models will do, their boxes are used.

    A ``.pt`` file is a pickle, whose code is run only if the user says so: see `runs_code`.
    A ``.safetensors`` file brings its own input size, and the overlap of boxes where the settings
    have none.

    Args:
        name: Name for the records.
        path: The file, or the folder of an OpenVINO export.
        settings: What to look for.

    Raises:
        WeightsError: The file is missing, damaged or no detector, or a package it needs is missing.
        InputError: The model does not know the class.
    """
    _check_path(path)
    stored = None
    if path.suffix.lower() == stored_yolo.SUFFIX:
        stored = stored_yolo.read_stored_yolo(path)
        own = stored.iou_threshold if settings.iou_threshold is None else settings.iou_threshold
        settings = replace(settings, input_size=stored.input_size, iou_threshold=own)
    with _process_left_as_it_was(), _nothing_sent(), _no_console():
        model = _load(_import_ultralytics(), path, settings, stored)
    if settings.threads is not None:
        torch.set_num_threads(settings.threads)
    labels = class_indices(dict(model.names), settings.class_name, f"detector '{name}'")
    return YoloDetector(name, model, labels, settings)


def is_pickled_model(path: Path) -> bool:
    """Return whether a file is a model that ultralytics pickled; nothing of it is run."""
    if path.suffix.lower() != ".pt" or not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        pickles = [name for name in archive.namelist() if name.endswith("data.pkl")]
        return any(b"ultralytics" in archive.read(name) for name in pickles)


def export_yolo(
    path: Path, target: str, folder: Path, *, half: bool, trusted: bool = False
) -> Path:
    """Write a detector for another engine with ultralytics' own exporter, and return where.

    It takes pictures of any size, so that a wide frame needs no square canvas.

    A ``.pt`` file is a pickle, whose code is run only if the user says so: see `runs_code`.

    Args:
        path: The ``.pt`` file.
        target: ``onnx`` or ``openvino``.
        folder: An empty folder to write into.
        half: Store half precision.
        trusted: See `DetectorSettings`.

    Raises:
        WeightsError: The file is damaged or no detector, or ultralytics cannot write it.
    """
    _check_path(path)
    # It writes beside the file it is given.
    copy = shutil.copyfile(path, folder / path.name)
    options = {"simplify": False} if target == "onnx" else {}
    with _process_left_as_it_was(), _nothing_sent(), _no_console():
        model = _load(_import_ultralytics(), copy, DetectorSettings(trusted=trusted))
        try:
            with (
                _local_files_only(runs_code=trusted or runs_code()),
                contextlib.redirect_stdout(io.StringIO()),
            ):
                written = model.export(
                    format=target, half=half, dynamic=True, device="cpu", verbose=False, **options
                )
        except Exception as error:
            # Exporters raise what they like; whatever it is, nothing was written.
            raise WeightsError(
                f"detector '{path}' cannot be written for {target}: {_first_line(error)}",
                hint="hrnet detect takes the .pt file itself",
            ) from error
    copy.unlink()
    _forget_settings()
    return Path(str(written))


def _forget_settings() -> None:
    """Delete the settings that the exporter wrote again, in the folder that was made for them."""
    from ultralytics.utils import USER_CONFIG_DIR

    folder = Path(USER_CONFIG_DIR).parent
    if folder.name.startswith(_SETTINGS_PREFIX) and folder.parent == Path(tempfile.gettempdir()):
        shutil.rmtree(folder, ignore_errors=True)


def _check_path(path: Path) -> None:
    if not path.exists():
        raise WeightsError(f"detector file '{path}' does not exist")
    if path.is_dir():
        if not path.name.endswith(_OPENVINO_FOLDER) or not any(path.glob("*.xml")):
            raise WeightsError(f"folder '{path}' is not a detector: {_EXPECTED}")
    elif path.suffix.lower() not in _SUFFIXES:
        raise WeightsError(f"'{path}' is not a detector file: {_EXPECTED}")
    elif path.stat().st_size == 0:
        raise WeightsError(f"detector file '{path}' is empty (0 bytes)")


def _import_ultralytics() -> Any:  # noqa: ANN401 - ultralytics.YOLO
    """Return ``ultralytics.YOLO``, imported with settings in a folder that is then deleted."""
    try:
        with tempfile.TemporaryDirectory(prefix=_SETTINGS_PREFIX) as settings_folder:
            os.environ["YOLO_CONFIG_DIR"] = settings_folder
            from ultralytics import YOLO
            from ultralytics.utils import events
    except ImportError as error:
        raise WeightsError(
            "YOLO detectors need the package ultralytics, which cannot be imported: "
            f"{_first_line(error)}",
            hint="pip install ultralytics, or do without: --detector torchvision, "
            "--detector whole-image or --boxes FILE",
        ) from error
    # The program this runs in may have imported ultralytics earlier, with reports on.
    events.events.enabled = False
    return YOLO


def _load(
    yolo_class: Any,  # noqa: ANN401
    path: Path,
    settings: DetectorSettings,
    stored: stored_yolo.StoredYolo | None = None,
) -> Any:  # noqa: ANN401
    """Return the model, proven to find boxes by a trial run on an empty picture."""
    try:
        with _local_files_only(runs_code=settings.trusted or runs_code()):
            model = build_stored(yolo_class, stored) if stored else yolo_class(str(path.absolute()))
            trial = _predict(model, [np.zeros((64, 64, 3), np.uint8)], settings, None)
    except ModuleNotFoundError as error:
        raise _missing_package(path, str(error.name)) from error
    except Exception as error:
        refused = _refused_global(error)
        if refused:
            raise WeightsError(
                f"detector '{path}' asks for {refused}, which no YOLO of ultralytics is made of; "
                "none of its code was run",
                hint=f"set {SAFE_LOAD}=0 to run the code inside a file that you trust",
            ) from error
        # Unpickling and four runtimes raise what they like; whatever it is, it is about the file.
        raise WeightsError(
            f"detector '{path}' cannot be loaded, it is damaged or not made by ultralytics: "
            f"{_first_line(error)}",
            hint="fetch or export the file again",
        ) from error
    if trial[0].boxes is None:
        raise WeightsError(
            f"detector '{path}' finds no boxes: it is made for the task '{model.task}'",
            hint="use a detection, pose or segmentation model",
        )
    return model


def _refused_global(error: Exception) -> str | None:
    """Return what a pickle asked for in vain; None where it failed for another reason."""
    cause = error.__cause__
    # As torch.load words it (torch/_weights_only_unpickler.py).
    found = (
        re.search(r"GLOBAL (\S+)", str(cause))
        if isinstance(cause, pickle.UnpicklingError)
        else None
    )
    return found[1] if found else None


def build_stored(yolo_class: Any, stored: stored_yolo.StoredYolo) -> Any:  # noqa: ANN401
    """Return the ``ultralytics.YOLO`` of a file of this project.

    torch's random numbers stay where they were.

    Args:
        yolo_class: ``ultralytics.YOLO``.
        stored: Of `stored_yolo.read_stored_yolo`.
    """
    from ultralytics.nn.tasks import DetectionModel

    with torch.random.fork_rng(devices=[]):
        model = yolo_class(stored.architecture)
        network = DetectionModel(stored.architecture, nc=len(stored.classes), verbose=False)
    network.load_state_dict(stored.tensors)
    network.names = dict(enumerate(stored.classes))
    model.model = network.eval()
    return model


def _missing_package(path: Path, package: str) -> WeightsError:
    root = package.split(".")[0]
    wanted = f"'hrnet-cli[{EXTRAS[root]}]'" if root in EXTRAS else root
    return WeightsError(
        f"detector '{path}' needs the package {root}, which is not installed",
        hint=f"pip install {wanted}",
    )


def _predict(
    model: Any,  # noqa: ANN401
    bgr_images: list[np.ndarray],
    settings: DetectorSettings,
    classes: list[int] | None,
) -> list[Any]:
    with _no_console():
        return model.predict(
            bgr_images,
            imgsz=settings.input_size,
            conf=settings.person_threshold,
            iou=settings.overlap,
            max_det=settings.max_people,
            classes=classes,
            # What could be a cat or a dog is one animal.
            agnostic_nms=True,
            device=settings.device,
            verbose=False,
            save=False,
        )


def _bgr_with_every_row(image_HW3: np.ndarray, input_size: int) -> np.ndarray:
    """Return the picture in BGR, a thin one padded below and right.

    Scaled to the input size, a picture of 3000x2 pixels would have no row left.
    """
    height, width = image_HW3.shape[:2]
    least = -(-max(height, width) // input_size)
    below, right = max(0, least - height), max(0, least - width)
    padded = np.pad(image_HW3, ((0, below), (0, right), (0, 0))) if below or right else image_HW3
    return np.ascontiguousarray(padded[:, :, ::-1])


def _to_boxes(found: Any, size_wh: tuple[int, int], max_people: int) -> Boxes:  # noqa: ANN401
    xyxy_N4 = np.clip(found.xyxy.cpu().numpy(), 0, (*size_wh, *size_wh))
    scores_N = found.conf.cpu().numpy()
    order = np.argsort(-scores_N, kind="stable")
    has_area_N = (xyxy_N4[:, 2:] > xyxy_N4[:, :2]).all(axis=1)
    return Boxes(xyxy_N4, scores_N)[order[has_area_N[order]][:max_people]]


@contextlib.contextmanager
def _process_left_as_it_was() -> Iterator[None]:
    """Undo what importing ultralytics and setting up a model changes in the process."""
    environment = dict(os.environ)
    torch_threads, cv_threads = torch.get_num_threads(), cv2.getNumThreads()
    print_options = np.get_printoptions()
    first_import = "ultralytics" not in sys.modules
    originals = [
        (module, name, getattr(module, name))
        for module, name in ((importlib.import_module(path), name) for path, name in _REPLACED)
    ]
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for module, name, original in originals:
            setattr(module, name, original)
        if first_import:
            torch.set_printoptions(profile="default")
        np.set_printoptions(**print_options)
        cv2.setNumThreads(cv_threads)
        torch.set_num_threads(torch_threads)
        for variable in os.environ.keys() - environment.keys():
            del os.environ[variable]
        os.environ |= environment


@contextlib.contextmanager
def _nothing_sent() -> Iterator[None]:
    """Keep ultralytics and the runtimes it imports in the block from reporting."""
    os.environ |= _ENVIRONMENT
    with nothing_sent():
        yield


@contextlib.contextmanager
def _no_console() -> Iterator[None]:
    """Keep ultralytics' log, which goes to stdout, out of the results that go there."""
    logger = logging.getLogger("ultralytics")
    was_disabled, logger.disabled = logger.disabled, True
    try:
        yield
    finally:
        logger.disabled = was_disabled


@contextlib.contextmanager
def _local_files_only(*, runs_code: bool) -> Iterator[None]:
    """Make ultralytics open the file it is given, and only read it unless its code may run.

    It would look for yolov5su.pt when given yolov5s.pt, drop quotes from paths, and download what
    it then does not find; and it would run what a pickle says and install packages that it asks
    for.
    """
    from ultralytics.nn import tasks
    from ultralytics.utils import checks, downloads

    replaced = (
        (downloads, "attempt_download_asset", lambda file, *_args, **_kwargs: str(file)),
        (checks, "AUTOINSTALL", False),
        (tasks, "SAFE_LOAD", not runs_code),
    )
    originals = [(module, name, getattr(module, name)) for module, name, _ in replaced]
    try:
        for module, name, value in replaced:
            setattr(module, name, value)
        yield
    finally:
        for module, name, value in originals:
            setattr(module, name, value)


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
