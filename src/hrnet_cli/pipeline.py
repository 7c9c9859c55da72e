"""The product in one function: frames -> person boxes -> poses, with crops sharing batches."""

import logging
from collections.abc import Callable, Iterable, Iterator
from contextlib import nullcontext
from pathlib import Path

from hrnet_cli import weights
from hrnet_cli.ahead import Ahead
from hrnet_cli.detectors import OPENVINO_FOLDER, Detector, DetectorSettings, open_detector
from hrnet_cli.errors import InputError, WeightsError
from hrnet_cli.estimator import PoseEstimator
from hrnet_cli.stages import StageClock
from hrnet_cli.structures import Boxes, Frame, Poses

log = logging.getLogger(__name__)

# A chunk is closed at this many frames or pixels, whichever comes first; it bounds the memory.
CHUNK_FRAMES = 16
CHUNK_PIXELS = 64_000_000
# Chunks that wait for the keypoints when detection runs apart; those of photos are large.
CHUNKS_AHEAD = 1


def find_detector(
    name: str,
    *,
    offline: bool = False,
    deadline_s: float = weights.ANSWER_S,
    on_progress: weights.Progress | None = None,
) -> tuple[str, Path | None, bool]:
    """Return the name for the records, the file, and whether its hash is a listed one.

    Args:
        name: A listed detector, a file, the folder of an OpenVINO export, or ``whole-image``,
            which has no file.
        offline: Never use the network.
        deadline_s: See `weights.fetch`.
        on_progress: Called with bytes so far and in all during a download.

    Raises:
        WeightsError: The name is not known or no detector's, or the file cannot be had.
    """
    if name == "whole-image":
        return name, None, True
    path = Path(name)
    # A folder that happens to have the name of a detector is not meant.
    if path.is_file() or path.name.endswith(OPENVINO_FOLDER):
        return path.stem, path, weights.is_listed_detector(path)
    entry = weights.find_entry(name)
    if entry.kind != "detector":
        raise WeightsError(
            f"'{name}' is a {entry.kind} model, expected a detector",
            hint="whole-image, a file, or a detector of hrnet download-weights --list, such as"
            f" {weights.STARTER_DETECTOR}",
        )
    found = weights.fetch(entry, offline=offline, deadline_s=deadline_s, on_progress=on_progress)
    return entry.name, found, True


def load_detector(
    name: str, settings: DetectorSettings | None = None, *, offline: bool = False
) -> Detector:
    """Return a ready person detector: find its file, fetch it if need be, open it.

    Args:
        name: See `find_detector`.
        settings: What to look for, and where to compute; None for people, on the processor.
        offline: Never use the network.

    Raises:
        WeightsError: The file cannot be had, is damaged or needs a missing package.
        InputError: The detector does not know the class.
    """
    named, path, trusted = find_detector(name, offline=offline)
    settings = settings or DetectorSettings()
    return open_detector(named, path, settings, trusted=trusted, on_warning=log.warning)


def detect_poses(
    frames: Iterable[Frame],
    detector: Detector,
    estimator: PoseEstimator,
    *,
    on_problem: Callable[[str, InputError], None],
    clock: StageClock | None = None,
    apart: bool = False,
) -> Iterator[tuple[Frame, Poses]]:
    """Yield every frame with its poses, in order; nobody in it means zero people.

    Frames are taken `CHUNK_FRAMES` at a time, fewer if they are large, before the first result of
    them comes. Pictures that must not wait for each other, such as a camera's, go one by one:
    ``estimator(image_HW3, boxes)`` with the boxes of ``detector([frame])[0]``.

    Args:
        frames: Pictures, read as they are needed.
        detector: Finds the person boxes.
        estimator: Finds the keypoints in the boxes.
        on_problem: Called with the source and the error of a frame whose boxes cannot be used;
            that frame is left out and the others go on. Raise in it to stop.
        clock: Adds up the seconds of the stages ``read`` (waiting for frames) and ``detect``; the
            estimator's stages are its own.
        apart: Detect in a thread of its own, ahead of the keypoints: faster where a GPU does the
            work and the processor prepares it. `on_problem` is then called in that thread.
    """
    clock = clock if clock is not None else StageClock()
    boxed = _boxed(frames, detector, on_problem, clock)
    with Ahead(boxed, CHUNKS_AHEAD, "detect") if apart else nullcontext(boxed) as chunks:
        for found in chunks:
            poses_of_chunk = estimator.estimate_frames(
                [frame for frame, _ in found], [boxes for _, boxes in found]
            )
            for (frame, _), poses in zip(found, poses_of_chunk, strict=True):
                yield frame, poses


def _boxed(
    frames: Iterable[Frame],
    detector: Detector,
    on_problem: Callable[[str, InputError], None],
    clock: StageClock,
) -> Iterator[list[tuple[Frame, Boxes]]]:
    """Yield chunks of frames with their boxes."""
    for chunk in _chunks(frames, clock):
        with clock.stage("detect"):
            found = list(_boxes_of(chunk, detector, on_problem))
        yield found


def _chunks(frames: Iterable[Frame], clock: StageClock) -> Iterator[list[Frame]]:
    """Yield frames in groups; the frames before an error while reading come before the error."""
    iterator = iter(frames)
    chunk: list[Frame] = []
    pixels = 0
    while True:
        try:
            with clock.stage("read"):
                frame = next(iterator, None)
        except InputError:
            if chunk:
                yield chunk
            raise
        if frame is not None:
            chunk.append(frame)
            pixels += frame.image_HW3.shape[0] * frame.image_HW3.shape[1]
        full = len(chunk) == CHUNK_FRAMES or pixels >= CHUNK_PIXELS
        if chunk and (full or frame is None):
            yield chunk
            chunk, pixels = [], 0
        if frame is None:
            return


def _boxes_of(
    chunk: list[Frame], detector: Detector, on_problem: Callable[[str, InputError], None]
) -> Iterator[tuple[Frame, Boxes]]:
    """Yield the frames with their boxes; a frame whose boxes are unusable is reported alone."""
    try:
        yield from zip(chunk, detector(chunk), strict=True)
    except InputError:
        for frame in chunk:
            try:
                boxes = detector([frame])[0]
            except InputError as error:
                on_problem(frame.source, error)
                continue
            yield frame, boxes
