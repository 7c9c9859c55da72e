"""One video's frames -> its people, tracked and smoothed, in an order that a resumed run repeats.

Frames are taken in chunks of a fixed number, whose people share batches. A network's last digits
can depend on the size of its batch, so chunks start at the same frames whether a run was broken or
not.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, Protocol

from hrnet_cli.ahead import Ahead
from hrnet_cli.detectors import Detector
from hrnet_cli.errors import InputError
from hrnet_cli.estimator import PoseEstimator
from hrnet_cli.schema import KeypointSchema
from hrnet_cli.sinks.video_file import SEGMENT_FRAMES
from hrnet_cli.smoothing import Smoother, SmoothingSettings
from hrnet_cli.stages import StageClock
from hrnet_cli.structures import Boxes, Frame, Poses
from hrnet_cli.tracking import Tracker, TrackerSettings

# A chunk has as many of these frames as keep it below this many pixels. Each divides
# SEGMENT_FRAMES, so that a chunk ends where a segment does. 20 frames are less than a second.
CHUNK_FRAMES = (20, 10, 5, 4, 2, 1)
CHUNK_PIXELS = 64_000_000
# On a processor a network gains little from larger batches, and a chunk takes seconds: while the
# first is read and the last is drawn nothing overlaps, and a request to stop waits for its end.
SHARED_FRAMES = 5
# Chunks whose boxes are found ahead of the network, where they do not share a processor.
CHUNKS_AHEAD = 2


@dataclass(frozen=True)
class Following:
    """What is done from frame to frame.

    Attributes:
        tracking: How people are followed; None gives them no identities.
        detect_every: The detector looks at every so many frames; in between boxes follow the
            tracked people. More than 1 needs tracking.
        smoothing: Causal kind, a key of `smoothing.FILTERS`; anything but ``none`` needs tracking.
        smoothing_settings: How strongly.
    """

    tracking: TrackerSettings | None = None
    detect_every: int = 1
    smoothing: str = "none"
    smoothing_settings: SmoothingSettings = field(default_factory=SmoothingSettings)

    @property
    def smooths(self) -> bool:
        """Tell whether keypoints are changed at all."""
        return self.smoothing != "none" or self.smoothing_settings.fix_swaps


class Memory:
    """What is remembered from frame to frame: how many there were, and who was where.

    Args:
        following: What is done.
        state: What `state` returned in a run before; None to begin.
    """

    def __init__(self, following: Following, state: dict[str, Any] | None = None) -> None:
        self.following = following
        self.frames: int = state["frames"] if state else 0
        self.tracker: Tracker | None = None
        self._smoother: Smoother | None = None
        if following.tracking is not None:
            self.tracker = (
                Tracker.from_state(following.tracking, state["tracker"])
                if state
                else Tracker(following.tracking)
            )
        if following.smooths:
            kind, settings = following.smoothing, following.smoothing_settings
            self._smoother = (
                Smoother.from_state(kind, settings, state["smoother"])
                if state
                else Smoother(kind, settings)
            )

    def follow(self, frame: Frame, poses: Poses, *, detected: bool) -> Poses:
        """Return the people of the next frame with identities and smoothed."""
        self.frames += 1
        time_s = frame.time_s or 0.0
        if self.tracker is not None:
            poses = self.tracker.update(poses, time_s, detected=detected)
        if self._smoother is not None:
            poses = self._smoother.update(poses, time_s)
        return poses

    def state(self) -> dict[str, Any]:
        """Return all of it, exactly, as JSON can hold it."""
        return {
            "frames": self.frames,
            "tracker": None if self.tracker is None else self.tracker.state(),
            "smoother": None if self._smoother is None else self._smoother.state(),
        }


@dataclass(frozen=True)
class Seen:
    """One frame and its people.

    Attributes:
        frame: The frame.
        poses: Its people, perhaps nobody.
        number: Frames of the video so far, this one included, those of a run before too.
        state: State of the memory behind this frame, where a run may go on; else None.
    """

    frame: Frame
    poses: Poses
    number: int
    state: dict[str, Any] | None = None


_Found = Iterator[tuple[Frame, Poses, bool]]
_Boxed = tuple[list[Frame], list[Boxes]]


@dataclass(frozen=True)
class FinderInfo:
    """What is known of those who find people, before they look.

    Attributes:
        model: Name of the pose model, for records.
        detector: Name of the person detector, for records.
        schema: What the keypoints are called.
        clock: Adds up the seconds of all stages.
        apart: They do not share a processor with reading and drawing.
        gives_ids: People have identities already.
        hashes: What tells them from others of the same names, by what messages call it: a broken
            run goes on with the same ones only.
    """

    model: str
    detector: str
    schema: KeypointSchema
    clock: StageClock
    apart: bool = False
    gives_ids: bool = False
    hashes: Mapping[str, str] = field(default_factory=dict[str, str])


class Finder(Protocol):
    """Finds the people of a video's frames: by networks, or in the records of an earlier run."""

    @property
    def info(self) -> FinderInfo:
        """Return who they are."""
        ...

    def find(self, frames: Iterable[Frame], memory: Memory, chunk: int) -> _Found:
        """Yield each frame with its people, and whether a detector looked at it.

        Args:
            frames: Of one video, in order, all of one size.
            memory: From the frames before; it is brought up to date after each frame.
            chunk: Frames to handle together; see `chunk_frames`.

        Raises:
            InputError: A frame cannot be read, or what is known of it cannot be used.
        """
        ...


@dataclass(frozen=True)
class Finders:
    """The networks that look at frames; a `Finder`.

    Attributes:
        detector: Finds the person boxes.
        estimator: Finds the keypoints in them; its clock adds up the seconds of all stages.
        apart: Detector and network do not share a processor: they may work at the same time.
        hashes: See `FinderInfo`.
    """

    detector: Detector
    estimator: PoseEstimator
    apart: bool = False
    hashes: Mapping[str, str] = field(default_factory=dict[str, str])

    @property
    def info(self) -> FinderInfo:
        """Return who they are."""
        spec, clock = self.estimator.spec, self.estimator.clock
        return FinderInfo(
            *(spec.name, self.detector.name, spec.schema, clock, self.apart),
            hashes=self.hashes,
        )

    def find(self, frames: Iterable[Frame], memory: Memory, chunk: int) -> _Found:
        """Yield each frame with its people; see `Finder`."""
        if memory.following.detect_every > 1:
            return _follow_boxes(frames, self, memory)
        return _find_all(frames, self, chunk)


@dataclass(frozen=True)
class RecordedPoses:
    """People as an earlier run found them; a `Finder`.

    Attributes:
        info: Who found them.
        poses: Of each frame by its index in the video.
    """

    info: FinderInfo
    poses: Mapping[int, Poses]

    def find(self, frames: Iterable[Frame], memory: Memory, chunk: int) -> _Found:
        """Yield each frame with its people; see `Finder`."""
        del memory, chunk
        for frame in frames:
            yield frame, self.poses[frame.index], True


def find_poses(
    frames: Iterable[Frame], finder: Finder, memory: Memory, *, chunk: int
) -> Iterator[Seen]:
    """Yield every frame with its people, in order.

    Args:
        frames: Of one video, all of one size.
        finder: Knows people and keypoints.
        memory: From the frames before, none at the beginning; changed.
        chunk: Frames handled together; see `chunk_frames`.

    Raises:
        InputError: A frame cannot be read, or the boxes for it cannot be used.
    """
    clock = finder.info.clock
    for frame, poses, detected in finder.find(frames, memory, chunk):
        with clock.stage("track"):
            followed = memory.follow(frame, poses, detected=detected)
        marked = memory.frames % SEGMENT_FRAMES == 0
        yield Seen(frame, followed, memory.frames, memory.state() if marked else None)


def chunk_frames(pixels: int, *, apart: bool = True) -> int:
    """Return how many frames of so many pixels each are handled together.

    Args:
        pixels: Of one frame.
        apart: See `Finders`.
    """
    most = CHUNK_FRAMES[0] if apart else SHARED_FRAMES
    counts = (count for count in CHUNK_FRAMES if count <= most)
    return next(count for count in counts if count * pixels <= CHUNK_PIXELS or count == 1)


def _find_all(frames: Iterable[Frame], finders: Finders, chunk: int) -> _Found:
    """Yield frames with people, all found by the detector, chunk by chunk."""
    boxed = _box(frames, finders, chunk)
    with Ahead(boxed, CHUNKS_AHEAD, "detect") if finders.apart else nullcontext(boxed) as chunks:
        for some, boxes in chunks:
            found = finders.estimator.estimate_frames(some, boxes)
            for frame, poses in zip(some, found, strict=True):
                yield frame, poses, True


def _box(frames: Iterable[Frame], finders: Finders, chunk: int) -> Iterator[_Boxed]:
    for some in _chunks(frames, chunk):
        with finders.estimator.clock.stage("detect"):
            boxes, error = _boxes_up_to_error(some, finders.detector)
        if boxes:
            yield some[: len(boxes)], boxes
        if error is not None:
            raise error


def _boxes_up_to_error(
    frames: list[Frame], detector: Detector
) -> tuple[list[Boxes], InputError | None]:
    """Return the boxes of the frames before the first whose boxes cannot be used, and why."""
    try:
        return detector(frames), None
    except InputError:
        boxes: list[Boxes] = []
        for frame in frames:
            try:
                boxes += detector([frame])
            except InputError as error:
                return boxes, error
        return boxes, None


def _chunks(frames: Iterable[Frame], size: int) -> Iterator[list[Frame]]:
    """Yield frames in groups; those before an error while reading come before the error."""
    iterator = iter(frames)
    ended = False
    while not ended:
        chunk: list[Frame] = []
        error: InputError | None = None
        try:
            chunk.extend(islice(iterator, size))
        except InputError as caught:
            error = caught
        ended = len(chunk) < size
        if chunk:
            yield chunk
        if error is not None:
            raise error


def _follow_boxes(frames: Iterable[Frame], finders: Finders, memory: Memory) -> _Found:
    """Yield frames with people, found by the detector in some and followed in the others.

    The boxes of a frame depend on the keypoints of the one before, so frames go one by one.
    """
    if memory.tracker is None:
        raise ValueError("detect_every > 1 needs tracking")
    for frame in frames:
        detected = memory.frames % memory.following.detect_every == 0
        with finders.estimator.clock.stage("detect"):
            boxes = (
                finders.detector([frame])[0]
                if detected
                else memory.tracker.predict_boxes(frame.time_s or 0.0, frame.size_wh)
            )
        (poses,) = finders.estimator.estimate_frames([frame], [boxes])
        yield frame, poses, detected


def clocked(items: Iterable[Any], clock: StageClock, stage: str) -> Iterator[Any]:
    """Yield items, adding the time that getting each takes to a stage."""
    iterator = iter(items)
    try:
        while True:
            with clock.stage(stage):
                item = next(iterator, _NOTHING)
            if item is _NOTHING:
                return
            yield item
    finally:
        close: Callable[[], None] | None = getattr(iterator, "close", None)
        if close is not None:
            close()


_NOTHING = object()
