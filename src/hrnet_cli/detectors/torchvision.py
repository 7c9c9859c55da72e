"""Faster R-CNN of torchvision: the permissively licensed alternative to YOLO."""

import pickle
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from torchvision.models import detection

from hrnet_cli.detectors import DetectorSettings
from hrnet_cli.detectors.classes import class_indices
from hrnet_cli.errors import WeightsError
from hrnet_cli.geometry import box_nms
from hrnet_cli.structures import Boxes, Frame

# torchvision keeps the best 100 boxes of all classes together; people must not be crowded out by
# chairs, so the limit is applied after the class is picked.
_BOXES_OF_ALL_CLASSES = 10_000
_EXPECTED = "a state_dict of a torchvision fasterrcnn trained on COCO"


class TorchvisionDetector:
    """Finds people with a torchvision detection network.

    Args:
        name: Name for the records.
        model: Network in evaluation mode, on its device.
        labels: Numbers of the classes to box.
        settings: Overlap, limit, and device, on which the model is.
    """

    def __init__(
        self,
        name: str,
        model: torch.nn.Module,
        labels: tuple[int, ...],
        settings: DetectorSettings,
    ) -> None:
        self.name = name
        self.model = model
        self.labels = labels
        self.settings = settings

    def __call__(self, frames: Sequence[Frame]) -> list[Boxes]:
        """Return the boxes of each frame, surest first, in its pixels.

        Frames pass one at a time: in a batch torchvision pads them to a common size, and a photo's
        boxes would depend on its neighbours.
        """
        return [self._detect(frame) for frame in frames]

    def _detect(self, frame: Frame) -> Boxes:
        pixels_HW3 = torch.from_numpy(np.ascontiguousarray(frame.image_HW3)).to(
            self.settings.device
        )
        pixels_3HW = pixels_HW3.permute(2, 0, 1).float() / 255
        with torch.inference_mode():
            (found,) = self.model([pixels_3HW])
        mine = torch.isin(found["labels"], found["labels"].new_tensor(self.labels))
        boxes = Boxes(found["boxes"][mine].cpu().numpy(), found["scores"][mine].cpu().numpy())
        if len(self.labels) > 1:
            # Each class had its own suppression.
            boxes = boxes[box_nms(boxes.xyxy_N4, boxes.scores_N, self.settings.overlap)]
        return boxes[np.argsort(-boxes.scores_N, kind="stable")[: self.settings.max_people]]


def open_torchvision(name: str, path: Path, settings: DetectorSettings) -> TorchvisionDetector:
    """Load a Faster R-CNN; nothing is downloaded and no pickled code runs.

    Args:
        name: Name for the records.
        path: One of torchvision's published ``fasterrcnn_*.pth`` files.
        settings: What to look for; `input_size` is YOLO's, the network keeps its own.

    Raises:
        WeightsError: The file is missing, damaged or of another network.
        InputError: COCO has no such class.
    """
    categories = detection.FasterRCNN_ResNet50_FPN_Weights.COCO_V1.meta["categories"]
    names = {index: str(category) for index, category in enumerate(categories)}
    known = {index: text for index, text in names.items() if text not in ("N/A", "__background__")}
    labels = class_indices(known, settings.class_name, f"detector '{name}'")
    state = _read_state_dict(path)
    model = _build(path, state, settings)
    _load(model, state, path)
    model.eval().to(settings.device)
    if settings.threads is not None:
        torch.set_num_threads(settings.threads)
    return TorchvisionDetector(name, model, labels, settings)


def _read_state_dict(path: Path) -> Mapping[str, torch.Tensor]:
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise WeightsError(f"detector file '{path}' does not exist") from error
    except OSError as error:
        raise WeightsError(f"detector file '{path}' cannot be read: {error.strerror}") from error
    except (RuntimeError, EOFError, pickle.UnpicklingError, ValueError, KeyError) as error:
        raise WeightsError(
            f"detector file '{path}' is damaged or holds more than tensors; expected {_EXPECTED}",
            hint="fetch it again with hrnet download-weights",
        ) from error
    if not isinstance(state, Mapping) or not all(
        isinstance(value, torch.Tensor) for value in state.values()
    ):
        raise WeightsError(f"detector file '{path}' is not {_EXPECTED}")
    return state


def _build(
    path: Path, state: Mapping[str, torch.Tensor], settings: DetectorSettings
) -> torch.nn.Module:
    """Return the network whose weights these are, told by the names of its tensors."""
    options = {
        "weights": None,
        "weights_backbone": None,
        "box_score_thresh": settings.person_threshold,
        "box_nms_thresh": settings.overlap,
        "box_detections_per_img": _BOXES_OF_ALL_CLASSES,
    }
    if "roi_heads.box_head.fc6.weight" not in state:
        if "roi_heads.box_head.0.0.weight" in state:
            return detection.fasterrcnn_resnet50_fpn_v2(**options)
        raise WeightsError(f"detector file '{path}' is not {_EXPECTED}")
    if "backbone.body.layer1.0.conv1.weight" in state:
        return detection.fasterrcnn_resnet50_fpn(**options)
    # The two MobileNet networks differ only in their input size, which the tensors do not tell.
    if "320" in path.name:
        return detection.fasterrcnn_mobilenet_v3_large_320_fpn(**options)
    return detection.fasterrcnn_mobilenet_v3_large_fpn(**options)


def _load(model: torch.nn.Module, state: Mapping[str, torch.Tensor], path: Path) -> None:
    """Load the weights; the published files hold frozen batch norms, which count no batches."""
    frozen = not any(key.endswith("num_batches_tracked") for key in state)
    try:
        report = model.load_state_dict(dict(state), strict=False)
    except RuntimeError as error:
        raise WeightsError(
            f"detector file '{path}' has tensors of other shapes; expected {_EXPECTED}"
        ) from error
    missing = [key for key in report.missing_keys if not key.endswith("num_batches_tracked")]
    if odd := missing or report.unexpected_keys:
        what = "lacks" if missing else "has the unknown"
        raise WeightsError(
            f"detector file '{path}' {what} tensor '{odd[0]}' ({len(odd)} such); "
            f"expected {_EXPECTED}"
        )
    if frozen and "backbone.body.layer1.0.conv1.weight" in state:
        # The published ResNet-50 was trained with epsilon 0 in its frozen batch norms
        # (torchvision/models/detection/faster_rcnn.py, overwrite_eps).
        for module in model.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                module.eps = 0.0
