"""PoseEstimator: pictures and person boxes in, poses out. The same path serves every command.

Shape letters: B crops, N people, K keypoints, H W height and width.
"""

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from hrnet_cli import geometry, heatmap, oks, weights
from hrnet_cli.config import CODECS, ModelSpec
from hrnet_cli.errors import UsageError, WeightsError
from hrnet_cli.model_metadata import model_name
from hrnet_cli.model_opening import open_model
from hrnet_cli.runtimes import AUTO, Computing, Runtime
from hrnet_cli.runtimes.exported import graph_file
from hrnet_cli.schema import load_schema
from hrnet_cli.stages import StageClock
from hrnet_cli.structures import Boxes, Frame, PersonHeatmaps, Poses

if TYPE_CHECKING:
    from hrnet_cli.runtimes.torch_people import FindPeople

log = logging.getLogger(__name__)

BATCH_SIZE = 32


@dataclass(frozen=True)
class ModelHints:
    """What the user says of a weights file that does not say it itself.

    Attributes:
        input_hw: Crop (height, width).
        codec: Heatmap convention, one of `config.CODECS`.
        keypoint_schema: Built-in name or TOML file.
    """

    input_hw: tuple[int, int] | None = None
    codec: str | None = None
    keypoint_schema: str | None = None


def find_model(
    name: str | None = None,
    *,
    offline: bool = False,
    hints: ModelHints | None = None,
    on_warning: Callable[[str], None] = log.warning,
    on_progress: weights.Progress | None = None,
) -> tuple[Path, ModelSpec | None]:
    """Return the file of a pose model, fetched when it is not on this machine, and what it is.

    Args:
        name: A name of weights.toml, a file, or the folder of an exported model; None for
            `weights.DEFAULT_MODEL`, in whose place the starter model inside the package stands
            when it can be neither found nor fetched.
        offline: Never use the network.
        hints: For files that are not listed and say nothing of themselves.
        on_warning: Called with one line when the starter model stands in.
        on_progress: Called with bytes so far and in all during a download.

    Returns:
        The path, of an exported model that of its graph, and the description; None where the file
        itself must hold it.

    Raises:
        WeightsError: The name is not known, or the file cannot be had.
        UsageError: The hints are incomplete, or there are some for a listed model.
    """
    if name is not None and (graph := graph_file(Path(name))) is not None:
        _refuse_hints(hints, f"'{name}' is an exported model, which says all of itself")
        return graph, None
    if name is not None and Path(name).is_file():
        return Path(name), _spec_of_file(Path(name), hints)
    entry = weights.find_entry(name or weights.DEFAULT_MODEL)
    if entry.kind != "pose":
        raise WeightsError(
            f"'{entry.name}' is a {entry.kind}, expected a pose model",
            hint="hrnet download-weights --list shows the pose models",
        )
    _refuse_hints(hints, f"'{entry.name}' is a listed model, whose own are known")
    deadline_s = weights.ANSWER_S if name else weights.FALLBACK_DEADLINE_S
    try:
        path = weights.fetch(entry, offline=offline, deadline_s=deadline_s, on_progress=on_progress)
    except weights.UnreachableError as error:
        if name is not None:
            raise
        on_warning(
            f"{entry.name} is not on this machine and cannot be fetched; using the '"
            f"{weights.STARTER_MODEL}' model, which is far less accurate ({error.message})"
        )
        entry = weights.find_entry(weights.STARTER_MODEL)
        path = weights.fetch(entry, offline=True)
    return path, entry.model_spec()


def load_model(  # noqa: PLR0913 - what the commands offer, by the same names
    name: str | None = None,
    *,
    device: str = "auto",
    batch_size: int = BATCH_SIZE,
    flip_test: bool = False,
    offline: bool = False,
    hints: ModelHints | None = None,
    runtime: str = AUTO,
    precision: str | None = None,
    threads: int | None = None,
) -> "PoseEstimator":
    """Return a ready estimator: find the weights, fetch them if need be, build the network.

    Args:
        name: See `find_model`.
        device: ``auto``, ``cpu``, ``cuda``, ``cuda:1`` or ``mps``.
        batch_size: See `PoseEstimator`.
        flip_test: See `PoseEstimator`.
        offline: Never use the network.
        hints: See `find_model`.
        runtime: ``auto``, ``torch``, ``compiled``, ``onnx``, ``openvino`` or ``mnn``.
        precision: ``fp32``, ``bf16``, ``fp16`` or ``int8``; None changes nothing of the model.
        threads: Of the processor; None for all.

    Raises:
        WeightsError: The weights cannot be had or do not fit.
        DeviceError: There is no such device.
        UsageError: The runtime is not known or installed, or does not compute so, or a number is
            out of range.
    """
    computing = Computing(device, runtime, precision, threads)
    path, spec = find_model(name, offline=offline, hints=hints)
    return build_estimator(path, spec, computing, batch_size=batch_size, flip_test=flip_test)


def build_estimator(
    path: Path,
    spec: ModelSpec | None,
    computing: Computing | None = None,
    *,
    batch_size: int = BATCH_SIZE,
    flip_test: bool = False,
    keep_heatmaps: bool = False,
) -> "PoseEstimator":
    """Return an estimator for a weights file that `find_model` found; arguments as there."""
    opened = open_model(path, spec, computing or Computing())
    estimator = PoseEstimator(
        opened.runtime,
        opened.spec,
        batch_size=batch_size,
        flip_test=flip_test,
        keep_heatmaps=keep_heatmaps,
        load_summary=opened.summary,
    )
    estimator.precision = opened.precision
    return estimator


def _refuse_hints(hints: ModelHints | None, because: str) -> None:
    if hints is not None and hints != ModelHints():
        raise UsageError(
            f"--input, --codec and --keypoint-schema describe a weights file, but {because}",
            hint="leave them out, or name a file with --model",
        )


def _spec_of_file(path: Path, hints: ModelHints | None) -> ModelSpec | None:
    """Return what is known of a weights file: from the user, or from weights.toml by its hash."""
    if hints is not None and hints != ModelHints():
        if hints.input_hw is None or hints.codec is None or hints.keypoint_schema is None:
            raise UsageError(
                f"'{path}' needs all of --input, --codec and --keypoint-schema, or none of them",
                hint="for the official COCO files: --input 256x192 --codec msra"
                " --keypoint-schema coco17",
            )
        if hints.codec not in CODECS:
            raise UsageError(f"codec is '{hints.codec}', expected one of {', '.join(CODECS)}")
        schema = load_schema(hints.keypoint_schema)
        return ModelSpec(model_name(path), 0, hints.input_hw, hints.codec, schema)
    if path.suffix == ".safetensors":
        return None
    listed = [e for e in weights.identify(weights.file_sha256(path)) if e.kind == "pose"]
    return listed[0].model_spec() if listed else None


class PoseEstimator:
    """Estimates the keypoints of people whose boxes are known.

    Several threads may use one: their networks take turns, cropping and decoding do not.

    Args:
        runtime: Turns uint8 crops into heatmaps.
        spec: What the network expects and means; crop geometry, flip merge and decoding follow
            its codec.
        batch_size: Crops per forward pass; crops of several people and pictures share a batch.
        flip_test: Average with the mirrored crop's heatmaps: about +1 AP for twice the time.
        keep_heatmaps: Leave the merged heatmaps in `Poses.heatmaps`, for drawing.
        load_summary: Runtime, precision and what was loaded from the weights file, in words.

    Raises:
        UsageError: The batch size is below 1.

    Attributes:
        precision: Of the runtime's arithmetic, for reports.
        pose_nms: OKS above which of two people of a picture only the one with the higher person
            score stays; None keeps everybody.
        clock: Seconds spent in the stages ``crop``, ``network`` and ``decode``.
    """

    def __init__(
        self,
        runtime: Runtime,
        spec: ModelSpec,
        *,
        batch_size: int = BATCH_SIZE,
        flip_test: bool = False,
        keep_heatmaps: bool = False,
        load_summary: str = "",
    ) -> None:
        if batch_size < 1:
            raise UsageError(f"batch_size is {batch_size}, expected at least 1")
        self.runtime = runtime
        self._find_people: FindPeople | None = getattr(runtime, "find_people", None)
        self.spec = spec
        self.batch_size = batch_size
        self.flip_test = flip_test
        self.keep_heatmaps = keep_heatmaps
        self.clock = StageClock()
        self.load_summary = load_summary
        self.precision = "fp32"
        self.pose_nms: float | None = None

    def __call__(self, image_HW3: np.ndarray, boxes: Boxes | npt.ArrayLike) -> Poses:
        """Return the poses of one picture.

        Args:
            image_HW3: uint8 RGB picture (OpenCV reads BGR: convert first).
            boxes: Person boxes from anywhere, as `Boxes` or an (N, 4) array of
                (x1, y1, x2, y2) in picture pixels; N may be 0.

        Raises:
            ValueError: The picture has another shape or type or no pixel, or a box has no area.
        """
        return self.estimate([image_HW3], [boxes])[0]

    def estimate(
        self, images: Sequence[np.ndarray], boxes: Sequence[Boxes | npt.ArrayLike]
    ) -> list[Poses]:
        """Return the poses of several pictures, whose crops share batches.

        Args:
            images: uint8 RGB pictures (H, W, 3), sizes may differ.
            boxes: Person boxes of each picture, in its pixels, as for one picture.

        Returns:
            One `Poses` for each picture, in order; a picture with nobody in it has zero people.
            People stand in the order of their boxes; see `pose_nms`.

        Raises:
            ValueError: There are more boxes or fewer than pictures, a picture has another shape or
                type or no pixel, or a box has no area.
        """
        if len(images) != len(boxes):
            raise ValueError(
                f"expected boxes for each of {len(images)} pictures, got them for {len(boxes)}"
            )
        return self.estimate_frames(
            [_checked_frame(image_HW3) for image_HW3 in images],
            [_checked_boxes(picture_boxes) for picture_boxes in boxes],
        )

    def estimate_frames(self, frames: Sequence[Frame], boxes: Sequence[Boxes]) -> list[Poses]:
        """Return the poses of several frames; as `estimate`, of what sources and detectors give.

        Args:
            frames: Pictures.
            boxes: Person boxes of each frame; those without an area are taken as they come.
        """
        images = [frame.image_HW3 for frame in frames]
        people = [len(picture_boxes) for picture_boxes in boxes]
        centers, sizes = geometry.crop_boxes(
            np.concatenate([b.xyxy_N4 for b in boxes]) if boxes else np.zeros((0, 4)),
            self.spec.input_hw,
            self.spec.box_padding,
        )
        image_to_crop_N23 = geometry.crop_matrices(
            centers, sizes, self.spec.input_hw, self.spec.codec
        )
        picture_of_person = np.repeat(np.arange(len(images)), people)
        # With the flip test each person takes two places in a batch.
        people_per_pass = max(1, self.batch_size // 2) if self.flip_test else self.batch_size
        parts = [
            (picture_of_person[span], image_to_crop_N23[span])
            for span in _spans(len(picture_of_person), people_per_pass)
        ]
        batches = [_Batch.nobody(len(self.spec.schema))]
        if self._find_people is not None and not self.keep_heatmaps:
            batches += self._find_batches(self._find_people, images, parts)
        else:
            batches += [self._estimate_batch(images, *part) for part in parts]
        points_NK2 = np.concatenate([batch.points_BK2 for batch in batches])
        scores_NK = np.concatenate([batch.scores_BK for batch in batches])
        heatmaps = self._person_heatmaps(batches, image_to_crop_N23)
        ends = np.cumsum(people)
        spans = [slice(end - count, end) for end, count in zip(ends, people, strict=True)]
        found = [
            self._poses(points_NK2, scores_NK, heatmaps, span, own)
            for span, own in zip(spans, boxes, strict=True)
        ]
        if self.pose_nms is None:
            return found
        areas_N = sizes.prod(axis=1)
        return [
            without_doubles(poses, areas_N[span], self.pose_nms)
            for poses, span in zip(found, spans, strict=True)
        ]

    def _find_batches(
        self,
        find: "FindPeople",
        images: Sequence[np.ndarray],
        parts: Sequence[tuple[np.ndarray, np.ndarray]],
    ) -> "list[_Batch]":
        """Have a GPU do all batches, and fetch what it found when the last is begun."""
        with self.clock.stage("network"):
            pending = [find(images, *part, self.flip_test) for part in parts]
            found = [one.fetch() for one in pending]
        with self.clock.stage("decode"):
            return [
                _Batch(
                    geometry.apply_affines(points_BK2, geometry.invert_affines(image_to_crop_B23)),
                    scores_BK,
                    None,
                )
                for (_, image_to_crop_B23), (points_BK2, scores_BK) in zip(
                    parts, found, strict=True
                )
            ]

    def _estimate_batch(
        self, images: Sequence[np.ndarray], pictures_B: np.ndarray, image_to_crop_B23: np.ndarray
    ) -> "_Batch":
        height, width = self.spec.input_hw
        with self.clock.stage("crop"):
            crops_BHW3 = np.empty((len(pictures_B), height, width, 3), np.uint8)
            for picture in np.unique(pictures_B):
                mine = pictures_B == picture
                crops_BHW3[mine] = geometry.warp_crops(
                    images[picture], image_to_crop_B23[mine], self.spec.input_hw
                )
        with self.clock.stage("network"):
            heatmaps_BKHW = self._heatmaps(crops_BHW3)
        with self.clock.stage("decode"):
            crop_points_BK2, scores_BK = heatmap.decode(
                heatmaps_BKHW, self.spec.codec, self.spec.input_hw, bounded=True
            )
            crop_to_image_B23 = geometry.invert_affines(image_to_crop_B23)
            points_BK2 = geometry.apply_affines(crop_points_BK2, crop_to_image_B23)
        return _Batch(points_BK2, scores_BK, heatmaps_BKHW if self.keep_heatmaps else None)

    def _heatmaps(self, crops_BHW3: np.ndarray) -> np.ndarray:
        if not self.flip_test:
            return self.runtime(crops_BHW3)
        # One doubled batch: one call keeps the device busier than two.
        both = self.runtime(np.concatenate([crops_BHW3, crops_BHW3[:, :, ::-1]]))
        upright, mirrored = both[: len(crops_BHW3)], both[len(crops_BHW3) :]
        return heatmap.flip_merge(upright, mirrored, self.spec.schema.flip_indices, self.spec.codec)

    def _person_heatmaps(
        self, batches: "Sequence[_Batch]", image_to_crop_N23: np.ndarray
    ) -> PersonHeatmaps | None:
        kept = [batch.heatmaps_BKHW for batch in batches if batch.heatmaps_BKHW is not None]
        if not kept:
            return None
        heatmap_to_image_N23 = geometry.invert_affines(image_to_crop_N23)
        heatmap_to_image_N23[:, :, :2] *= heatmap.heatmap_grid_step(
            self.spec.input_hw, self.spec.codec
        )
        return PersonHeatmaps(np.concatenate(kept), heatmap_to_image_N23)

    def _poses(
        self,
        points_NK2: np.ndarray,
        scores_NK: np.ndarray,
        heatmaps: PersonHeatmaps | None,
        own: slice,
        boxes: Boxes,
    ) -> Poses:
        """Return the people of one picture out of those of all."""
        return Poses(
            points_NK2[own],
            scores_NK[own],
            oks.rescore(boxes.scores_N, scores_NK[own]),
            boxes,
            self.spec.schema,
            heatmaps=None
            if heatmaps is None
            else PersonHeatmaps(heatmaps.heatmaps_NKHW[own], heatmaps.heatmap_to_image_N23[own]),
        )


def _checked_frame(image_HW3: np.ndarray) -> Frame:
    frame = Frame(np.asarray(image_HW3), source="")
    if not frame.image_HW3.size:
        raise ValueError(f"image_HW3: expected one pixel at least, got {frame.image_HW3.shape}")
    return frame


def _checked_boxes(boxes: Boxes | npt.ArrayLike) -> Boxes:
    if not isinstance(boxes, Boxes):
        xyxy = np.asarray(boxes, dtype=np.float32)
        boxes = Boxes(xyxy if xyxy.size else xyxy.reshape(0, 4), np.ones(len(xyxy)))
    sizes_N2 = boxes.xyxy_N4[:, 2:] - boxes.xyxy_N4[:, :2]
    with_area_N = np.all((sizes_N2 > 0) & np.isfinite(sizes_N2), axis=1)
    if not with_area_N.all():
        box = boxes.xyxy_N4[np.flatnonzero(~with_area_N)[0]].tolist()
        raise ValueError(f"boxes: expected x1, y1, x2, y2 with x1 < x2 and y1 < y2, got {box}")
    return boxes


def without_doubles(poses: Poses, areas_N: np.ndarray, threshold: float) -> Poses:
    """Return the people that survive OKS-NMS, in the order they came.

    As the official test does it with 0.9 (HRNet, lib/dataset/coco.py, `evaluate`), by person score.

    Args:
        poses: People of one picture.
        areas_N: Areas of their crops in square pixels, padding included.
        threshold: People with a higher OKS with a surer one are left out.
    """
    kept = oks.oks_nms(
        poses.keypoints_NK2, poses.person_scores_N, areas_N, poses.schema.oks_sigmas, threshold
    )
    return poses[np.sort(kept)]


@dataclass(frozen=True)
class _Batch:
    points_BK2: np.ndarray
    scores_BK: np.ndarray
    heatmaps_BKHW: np.ndarray | None

    @staticmethod
    def nobody(keypoints: int) -> "_Batch":
        return _Batch(np.zeros((0, keypoints, 2)), np.zeros((0, keypoints)), None)


def _spans(count: int, size: int) -> Iterator[slice]:
    return (slice(start, start + size) for start in range(0, count, size))
