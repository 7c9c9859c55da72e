"""Frames to poses: order, nobody, shared batches, and frames whose boxes cannot be used."""

from collections.abc import Iterator, Sequence

import numpy as np
import pytest

from builders import make_frame
from fakes import SpotNetwork, make_spec, photo_with_spots
from hrnet_cli import pipeline
from hrnet_cli.errors import InputError
from hrnet_cli.estimator import PoseEstimator
from hrnet_cli.pipeline import detect_poses
from hrnet_cli.stages import StageClock
from hrnet_cli.structures import Boxes, Frame, Poses

BOX = (5, 5, 65, 55)


class CountedPeople:
    """A detector that finds as many people in a frame as its source says, such as ``3.png``."""

    name = "counted"

    def __init__(self) -> None:
        self.calls: list[int] = []

    def __call__(self, frames: Sequence[Frame]) -> list[Boxes]:
        self.calls.append(len(frames))
        return [self._boxes(frame) for frame in frames]

    def _boxes(self, frame: Frame) -> Boxes:
        if frame.source.startswith("bad"):
            raise InputError(f"no boxes for {frame.source}")
        people = int(frame.source.removesuffix(".png"))
        return Boxes(np.tile(np.array(BOX, np.float32), (people, 1)), np.full(people, 0.9))


@pytest.fixture
def estimator() -> PoseEstimator:
    spec = make_spec()
    return PoseEstimator(SpotNetwork(spec), spec, batch_size=8)


def refuse(source: str, error: InputError) -> None:
    raise AssertionError(f"{source}: {error.message}")


@pytest.fixture(params=[False, True], ids=["in turn", "apart"])
def detect(request):
    """Run the pipeline, with detection in turn and in a thread of its own."""

    def run(
        frames, estimator, *, detector=None, on_problem=refuse, clock=None
    ) -> list[tuple[Frame, Poses]]:
        found = detect_poses(
            frames,
            detector or CountedPeople(),
            estimator,
            on_problem=on_problem,
            clock=clock,
            apart=request.param,
        )
        return list(found)

    return run


def test_every_frame_gives_one_result_in_order(estimator, detect):
    people = [2, 0, 1, 0, 3]
    frames = [make_frame(f"{count}.png", width=80, height=60) for count in people]
    found = detect(frames, estimator)
    assert [frame for frame, _ in found] == frames
    assert [len(poses) for _, poses in found] == people


def test_the_keypoints_are_those_of_their_own_frame(estimator, detect):
    spots = [(20 + 2 * number, 20 + number) for number in range(20)]
    frames = [Frame(photo_with_spots((80, 60), spot), "1.png") for spot in spots]
    for spot, (_, poses) in zip(spots, detect(frames, estimator), strict=True):
        # The network and the codec together are off by a few hundredths of a pixel.
        assert np.abs(poses.keypoints_NK2 - spot).max() < 0.3


def test_frames_of_other_sizes_share_batches(estimator, detect):
    frames = [make_frame("3.png", width=70 + 10 * i, height=60) for i in range(4)]
    detect(frames, estimator)
    assert estimator.runtime.batches == [8, 4]


def test_nobody_anywhere_never_calls_the_network(estimator, detect):
    found = detect([make_frame("0.png")] * 3, estimator)
    assert [len(poses) for _, poses in found] == [0, 0, 0]
    assert estimator.runtime.batches == []


def test_no_frames_give_no_results(estimator, detect):
    assert detect([], estimator) == []


def counted(frames: Sequence[Frame], taken: list[int]) -> Iterator[Frame]:
    for frame in frames:
        taken[0] += 1
        yield frame


@pytest.mark.parametrize(("pixels", "chunk"), [(64_000_000, 16), (3 * 80 * 60, 3), (1, 1)])
def test_frames_are_taken_in_bounded_chunks(estimator, monkeypatch, pixels, chunk):
    monkeypatch.setattr(pipeline, "CHUNK_PIXELS", pixels)
    detector, taken = CountedPeople(), [0]
    frames = counted([make_frame("1.png", width=80, height=60)] * 35, taken)
    results = detect_poses(frames, detector, estimator, on_problem=refuse)
    next(results)
    assert taken == [chunk]
    assert len(list(results)) == 34
    assert max(detector.calls) == chunk
    assert sum(detector.calls) == 35


def test_a_frame_whose_boxes_cannot_be_used_is_reported_alone(estimator, detect):
    problems: list[tuple[str, str]] = []
    sources = ["1.png", "bad.png", "2.png", "bad2.png", "0.png"]
    found = detect(
        [make_frame(source, width=80, height=60) for source in sources],
        estimator,
        on_problem=lambda source, error: problems.append((source, error.message)),
    )
    assert [frame.source for frame, _ in found] == ["1.png", "2.png", "0.png"]
    assert [len(poses) for _, poses in found] == [1, 2, 0]
    assert problems == [
        ("bad.png", "no boxes for bad.png"),
        ("bad2.png", "no boxes for bad2.png"),
    ]


def test_raising_at_a_problem_stops(estimator, detect):
    def stop(_source: str, error: InputError) -> None:
        raise error

    with pytest.raises(InputError, match=r"no boxes for bad\.png"):
        detect([make_frame("bad.png")], estimator, on_problem=stop)


def test_a_detector_that_loses_a_frame_is_a_bug_and_stops(estimator, detect):
    with pytest.raises(ValueError, match="shorter"):
        detect([make_frame("1.png")] * 2, estimator, detector=lambda frames: [Boxes.empty()])


def test_the_clock_knows_the_stages(estimator, detect):
    clock = StageClock()
    detect([make_frame("1.png")], estimator, clock=clock)
    assert list(clock.seconds) == ["read", "detect"]
    assert list(estimator.clock.seconds) == ["crop", "network", "decode"]
