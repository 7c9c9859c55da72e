"""How well the stages of a video overlap, and how much faster they are than a plain loop.

The first frames of a clip go through `process_video` as `hrnet detect CLIP --boxes FILE --skeleton`
does it, with an untrained W32 256x192 network, because speed does not depend on training. Every
frame has the same few boxes, given and not detected. Two things are measured:

- Which share of the time that reading, drawing and encoding take lies within that of the stages
  that compute (boxes, cropping, network, decoding of heatmaps, tracking): the intersection of
  intervals of the wall clock. What happens behind the network costs nothing.
- The whole against a plain loop written here with the same runtime: read a frame; for each person
  crop, network, decode; then draw and encode, one after the other. Both in turn, round after round.
  "Usual" is the runtime as programs around HRNet call it: the eager PyTorch network, or the graph
  as OpenVINO compiles it by itself. "Own" hands the loop what this package makes of it (folded
  batch norms, channels innermost, a crop a thread), so that only batches and overlap differ.
  "Eager" is what most programs do for a video: the eager float32 network on the frame's people,
  each cut out and normalised on its own, whatever runtime and precision ours is.

With `--yolo FILE.pt` both look for people in every frame, ours with the detector exported to
OpenVINO and the loop with ultralytics; what they find is left aside for the given boxes.

The keypoints of both are compared: they must be the same numbers.

Run: python benchmarks/video_overlap.py CLIP.mp4 [--runtime torch|openvino|mnn]
     python benchmarks/video_overlap.py CLIP.mp4 --loop eager --runtime openvino --yolo yolo11n.pt
"""

import argparse
import json
import statistics
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import av
import numpy as np
import torch

from hrnet_cli.config import ModelSpec
from hrnet_cli.detectors import Detector, DetectorSettings
from hrnet_cli.draw import DrawStyle, draw_poses
from hrnet_cli.estimator import PoseEstimator
from hrnet_cli.models.hrnet import HRNet
from hrnet_cli.runtimes import RUNTIMES, Runtime, RuntimeSettings
from hrnet_cli.runtimes.torch_eager import TorchEager, open_folded
from hrnet_cli.schema import load_schema
from hrnet_cli.sinks import RunInfo
from hrnet_cli.sources import Span
from hrnet_cli.sources.video import open_video
from hrnet_cli.stages import StageClock
from hrnet_cli.streaming import Finders, Following
from hrnet_cli.structures import Boxes, Frame, Poses
from hrnet_cli.tracking import TrackerSettings
from hrnet_cli.video_job import process_video
from hrnet_cli.video_task import Drawing, VideoResult, VideoTask, Watch
from runtimes import open_eight_bits, plain_frame

PARTS = ("keypoints", "skeleton")
COMPUTING = ("detect", "crop", "network", "decode", "track")
HIDDEN = ("read", "draw", "encode")
WANTED_HIDDEN, WANTED_RATIO = 0.8, 1.5

Interval = tuple[float, float]


@dataclass
class IntervalClock(StageClock):
    """Notes when each stage ran, too."""

    intervals: dict[str, list[Interval]] = field(default_factory=dict[str, list[Interval]])
    lock: threading.Lock = field(default_factory=threading.Lock)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Note the time of the block."""
        start = time.perf_counter()
        try:
            yield
        finally:
            with self.lock:
                self.intervals.setdefault(name, []).append((start, time.perf_counter()))


def united(intervals: Iterable[Interval]) -> list[Interval]:
    """Return intervals in order, those that overlap as one."""
    whole: list[Interval] = []
    for start, end in sorted(intervals):
        if whole and start <= whole[-1][1]:
            whole[-1] = (whole[-1][0], max(end, whole[-1][1]))
        else:
            whole.append((start, end))
    return whole


def length(intervals: Iterable[Interval]) -> float:
    """Return the seconds of intervals that do not overlap."""
    return sum(end - start for start, end in intervals)


def shared(one: list[Interval], other: list[Interval]) -> float:
    """Return the seconds that lie in both."""
    return sum(
        max(0.0, min(end, other_end) - max(start, other_start))
        for start, end in one
        for other_start, other_end in other
    )


class SameBoxes:
    """Gives every frame the same boxes."""

    name = "given"

    def __init__(self, xyxy_N4: np.ndarray, looks: Detector | None = None) -> None:
        self.boxes = Boxes(xyxy_N4, np.full(len(xyxy_N4), 0.9))
        self.looks = looks

    def __call__(self, frames: Sequence[Frame]) -> list[Boxes]:
        """Look for people, where something does, and return the given boxes."""
        if self.looks is not None:
            self.looks(frames)
        return [self.boxes for _ in frames]


# Returns the people of a frame.
FindPeople = Callable[[np.ndarray, Boxes], Poses]


def make_both(runtime: str, precision: str, loop: str) -> tuple[PoseEstimator, FindPeople]:
    """Return ours and what the plain loop does: W32 256x192, random weights, maps with peaks."""
    torch.manual_seed(0)
    spec = ModelSpec("w32-random", 32, (256, 192), "dark", load_schema("coco17"))
    network = HRNet(spec.width, len(spec.schema))
    for module in network.modules():
        if isinstance(module, torch.nn.Conv2d):
            torch.nn.init.xavier_uniform_(module.weight)
    network.eval()
    ours = open_ours(runtime, precision, network, spec)
    if loop == "eager":
        return PoseEstimator(ours, spec), lambda image, boxes: eager_people(network, image, boxes)
    if loop == "own":
        theirs = ours
    elif runtime == "torch":
        theirs = TorchEager(network, spec, "cpu")
    else:
        theirs = UsualOpenVino(network, spec)
    one_by_one = PoseEstimator(theirs, spec)

    def find(image: np.ndarray, boxes: Boxes) -> Poses:
        people = [one_by_one(image, boxes[n : n + 1]) for n in range(len(boxes))]
        return _together(people, boxes)

    return PoseEstimator(ours, spec), find


def eager_people(network: HRNet, image: np.ndarray, boxes: Boxes) -> Poses:
    """Return the people of a frame, the usual way."""
    found = plain_frame(network, image, boxes.xyxy_N4)
    scores_NK = found[:, :, 2].astype(np.float32)
    points_NK2 = found[:, :, :2].astype(np.float32)
    return Poses(points_NK2, scores_NK, scores_NK.mean(1), boxes, load_schema("coco17"))


def open_ours(runtime: str, precision: str, network: HRNet, spec: ModelSpec) -> Runtime:
    """Return a network at work as `hrnet detect` has it."""
    settings = RuntimeSettings(precision=precision)
    if runtime == "torch":
        return open_folded(network, spec, settings)
    if precision == "int8":
        with tempfile.TemporaryDirectory() as place:
            return open_eight_bits(network, Path(place), spec)["openvino int8"].runtime
    return RUNTIMES[runtime].build(network, spec, settings)


def open_detectors(path: Path | None, folder: Path) -> tuple[Detector | None, Detector | None]:
    """Return a YOLO in OpenVINO and in ultralytics, or nothing."""
    if path is None:
        return None, None
    from hrnet_cli.detectors.yolo import open_yolo
    from hrnet_cli.detectors.yolo_exported import open_exported_yolo
    from hrnet_cli.exporting import export_detector

    out = folder / f"{path.stem}_openvino_model"
    export_detector(path, "openvino", "fp32", out)
    settings = DetectorSettings()
    return open_exported_yolo("exported", out, settings), open_yolo("yolo", path, settings)


class UsualOpenVino:
    """The graph as OpenVINO compiles it by itself, crops one after the other."""

    name = "openvino"

    def __init__(self, network: HRNet, spec: ModelSpec) -> None:
        from openvino import Core

        from hrnet_cli.runtimes.folding import fold_batch_norms
        from hrnet_cli.runtimes.graph import trace
        from hrnet_cli.runtimes.openvino import write_graph

        self.spec = spec
        self.compiled = Core().compile_model(
            write_graph(trace(fold_batch_norms(network), spec), {})
        )

    def __call__(self, crops_BHW3: np.ndarray) -> np.ndarray:
        """Return the heatmaps of crops."""
        return np.concatenate([self.compiled(crop[None])[0] for crop in crops_BHW3])


def streamed(
    clip: Path, frames: int, detector: SameBoxes, estimator: PoseEstimator, out: Path
) -> tuple[list[Poses], float, IntervalClock]:
    """Work through the clip as the command does; return poses, seconds and when stages ran."""
    estimator.clock = clock = IntervalClock()
    poses: list[Poses] = []
    start = time.perf_counter()
    task = VideoTask(
        source=open_video(str(clip), clip, clip.name, Span(max_frames=frames)),
        target=out / "streamed",
        formats=("jsonl",),
        info=RunInfo("w32", detector.name, 0.2),
        following=Following(tracking=TrackerSettings()),
        settings={},
        drawing=Drawing(PARTS, None, DrawStyle()),
    )

    def on_frame(seen: object, _picture: object) -> bool:
        poses.append(seen.poses)  # pyright: ignore[reportAttributeAccessIssue]
        return True

    process_video(task, Finders(detector, estimator), Watch(on_frame), VideoResult())
    return poses, time.perf_counter() - start, clock


def plain(
    clip: Path, frames: int, detector: SameBoxes, find: FindPeople, out: Path
) -> tuple[list[Poses], float]:
    """Work through the clip frame by frame and person by person; return poses and seconds."""
    poses: list[Poses] = []
    start = time.perf_counter()
    source = open_video(str(clip), clip, clip.name, Span(max_frames=frames))
    with (
        av.open(str(out / "plain.mp4"), "w") as target,
        (out / "plain.jsonl").open("w") as records,
    ):
        options = {"preset": "veryfast", "crf": "20", "bf": "0", "threads": "4"}
        drawn = target.add_stream("libx264", rate=source.info.rate, options=options)
        drawn.width, drawn.height = source.info.size_wh
        drawn.pix_fmt = "yuv420p"
        for number, frame in enumerate(source.frames()):
            image_HW3 = frame.image_HW3
            (boxes,) = detector([frame])
            found = find(image_HW3, boxes)
            poses.append(found)
            record = {"frame": number, "keypoints": found.keypoints_NK2.tolist()}
            records.write(json.dumps(record) + "\n")
            picture = draw_poses(image_HW3, found, parts=PARTS, style=DrawStyle())
            target.mux(drawn.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        target.mux(drawn.encode(None))
    return poses, time.perf_counter() - start


def _together(people: list[Poses], boxes: Boxes) -> Poses:
    return Poses(
        np.concatenate([one.keypoints_NK2 for one in people]),
        np.concatenate([one.scores_NK for one in people]),
        np.concatenate([one.person_scores_N for one in people]),
        boxes,
        people[0].schema,
    )


def difference(ours: list[Poses], theirs: list[Poses]) -> float:
    """Return the largest difference of a coordinate, in pixels."""
    return max(
        float(np.abs(_ordered(one) - _ordered(other)).max())
        for one, other in zip(ours, theirs, strict=True)
    )


def _ordered(poses: Poses) -> np.ndarray:
    """Return the keypoints of the people from left to right; the tracker has its own order."""
    return poses.keypoints_NK2[np.argsort(poses.boxes.xyxy_N4[:, 0])]


def main() -> None:
    """Measure both in turn and print markdown tables."""
    parser = argparse.ArgumentParser(description="How far the stages of a video overlap.")
    parser.add_argument("clip", type=Path)
    parser.add_argument("--frames", type=int, default=20)
    parser.add_argument("--people", type=int, default=3)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--runtime", choices=("torch", "openvino", "mnn"), default="torch")
    parser.add_argument("--precision", choices=("fp32", "bf16", "int8"), default="fp32")
    parser.add_argument("--loop", choices=("usual", "own", "eager"), default="usual")
    parser.add_argument("--yolo", type=Path, help="checkpoint of a detector that looks, too")
    options = parser.parse_args()
    with av.open(str(options.clip)) as container:
        width, height = container.streams.video[0].width, container.streams.video[0].height
    left_N = np.arange(options.people) * width / options.people
    boxes_N4 = np.stack(
        [
            left_N,
            np.full(options.people, 0.1 * height),
            left_N + 0.8 * width / options.people,
            np.full(options.people, 0.9 * height),
        ],
        axis=1,
    )
    if options.runtime == "mnn" and options.loop == "usual":
        parser.error("--runtime mnn is for --loop own or eager")
    estimator, find = make_both(options.runtime, options.precision, options.loop)
    ratios, worst = [], 0.0
    table: dict[str, list[tuple[float, float]]] = {}
    print(
        "| round | streamed s | plain s | times as fast | streamed s of processor | plain |"
        " largest difference px |\n|---|---|---|---|---|---|---|",
        flush=True,
    )
    with tempfile.TemporaryDirectory() as name:
        looks = open_detectors(options.yolo, Path(name))
        detectors = [SameBoxes(boxes_N4, one) for one in looks]
        for number in range(options.rounds):
            video, out = (options.clip, options.frames), Path(name)
            marks = [time.process_time()]
            ours, ours_s, clock = streamed(*video, detectors[0], estimator, out)
            marks.append(time.process_time())
            theirs, theirs_s = plain(*video, detectors[1], find, out)
            marks.append(time.process_time())
            ours_cpu_s, theirs_cpu_s = np.diff(marks)
            ratios.append(theirs_s / ours_s)
            apart = difference(ours, theirs)
            worst = max(worst, apart)
            row = f"| {number + 1} | {ours_s:.1f} | {theirs_s:.1f} | {ratios[-1]:.2f}"
            print(f"{row} | {ours_cpu_s:.1f} | {theirs_cpu_s:.1f} | {apart:.2g} |", flush=True)
            computing = united(i for stage in COMPUTING for i in clock.intervals.get(stage, []))
            for stage, intervals in clock.intervals.items():
                busy = united(intervals)
                table.setdefault(stage, []).append((length(busy), shared(busy, computing)))
    print("\n| stage | s | behind the computing | share |\n|---|---|---|---|")
    for stage, values in table.items():
        busy_s, behind_s = sum(v[0] for v in values), sum(v[1] for v in values)
        if stage in COMPUTING:
            print(f"| {stage} | {busy_s:.2f} |  |  |")
        else:
            print(f"| {stage} | {busy_s:.2f} | {behind_s:.2f} | {behind_s / busy_s:.0%} |")
    # The eager loop crops another way, and 8 bits are other numbers.
    comparable = options.loop != "eager" and options.precision == "fp32"
    same = f"keypoints differ by {worst:.2g} px at most" if comparable else "other keypoints"
    hidden = [value for stage in HIDDEN for value in table.get(stage, [])]
    share = sum(v[1] for v in hidden) / sum(v[0] for v in hidden)
    print(
        f"\n{options.runtime} {options.precision}, loop {options.loop}: {options.frames} frames of"
        f" {width}x{height}, {options.people} people each, {torch.get_num_threads()} threads;"
        f" {options.rounds} rounds in turn. Reading, drawing and encoding: {share:.0%} behind"
        " the computing,"
        f" {WANTED_HIDDEN:.0%} wanted; end to end {statistics.median(ratios):.2f} times as fast,"
        f" {WANTED_RATIO} wanted; {same}."
    )


if __name__ == "__main__":
    main()
