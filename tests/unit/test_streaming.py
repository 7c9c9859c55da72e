"""Frames in, people out: chunks, errors, stopping, live sources."""

import threading
import time
from fractions import Fraction

import numpy as np
import pytest

from fakes import SpotNetwork, make_spec
from hrnet_cli import streaming, video_job
from hrnet_cli.detectors.whole_image import WholeImageDetector
from hrnet_cli.errors import InputError, OutputError
from hrnet_cli.estimator import PoseEstimator
from hrnet_cli.resuming import resume_folder
from hrnet_cli.sinks import RunInfo
from hrnet_cli.sources import Damage, VideoInfo
from hrnet_cli.streaming import Finders, Following, Memory, chunk_frames, find_poses
from hrnet_cli.structures import Boxes, Frame
from hrnet_cli.tracking import TrackerSettings
from hrnet_cli.video_job import process_video
from hrnet_cli.video_task import Drawing, VideoResult, VideoTask, Watch
from videos import read_video

SIZE_WH = (32, 24)
DRAWN = Drawing(("boxes",))


@pytest.fixture(autouse=True)
def _short_segments(monkeypatch):
    monkeypatch.setattr("hrnet_cli.sinks.video_file.SEGMENT_FRAMES", 10)
    monkeypatch.setattr(streaming, "SEGMENT_FRAMES", 10)
    monkeypatch.setattr(streaming, "CHUNK_FRAMES", (5, 1))


def frame_at(number):
    image = np.zeros((SIZE_WH[1], SIZE_WH[0], 3), np.uint8)
    return Frame(image, "fake", "fake", number, number / 25, pts=number, time_base=Fraction(1, 25))


def make_finders():
    spec = make_spec(input_hw=(32, 32))
    return Finders(WholeImageDetector(), PoseEstimator(SpotNetwork(spec), spec))


class Pictures:
    """A source of black frames; a live one counts from 0 each time and then waits for its end."""

    source = "fake"

    def __init__(self, frames, *, live=False):
        self.info = VideoInfo(SIZE_WH, Fraction(1, 25), live=live)
        self.damage = Damage()
        self.closed = threading.Event()
        self._frames = frames

    def frames(self, *, skip=0):
        for number in range(0 if self.info.live else skip, self._frames):
            yield frame_at(number)
        if self.info.live:
            self.closed.wait(60)

    def close(self):
        self.closed.set()


def work(target, source, watch=None, **fields):
    usual = {"formats": ("jsonl",), "settings": {}, "following": Following(), "drawing": DRAWN}
    info = RunInfo("fake", "whole-image", 0.2)
    task = VideoTask(source=source, target=target, info=info, **(usual | fields))
    result = VideoResult()
    process_video(task, make_finders(), watch or Watch(), result)
    return result


def lines_in(path):
    return path.read_text().count("\n")


def test_chunks_of_large_pictures_are_smaller_and_divide_a_segment(monkeypatch):
    monkeypatch.setattr(streaming, "CHUNK_FRAMES", (20, 10, 5, 4, 2, 1))
    assert [chunk_frames(p) for p in (1, 3_200_000, 3_200_001, 8_300_000, 33_000_000, 10**9)] == [
        20, 20, 10, 5, 1, 1,
    ]  # fmt: skip
    assert all(100 % count == 0 for count in streaming.CHUNK_FRAMES)


def test_frames_before_a_broken_one_come_first():
    def frames():
        yield from map(frame_at, range(7))
        raise InputError("broken")

    found = find_poses(frames(), make_finders(), Memory(Following()), chunk=5)
    numbers = [next(found).number for _ in range(7)]
    assert numbers == [1, 2, 3, 4, 5, 6, 7]
    with pytest.raises(InputError, match="broken"):
        next(found)


@pytest.mark.parametrize("apart", [False, True])
def test_frames_before_one_without_usable_boxes_come_first(apart):
    class Boxed:
        name = "boxed"

        def __call__(self, frames):
            if any(frame.index == 7 for frame in frames):
                raise InputError("no boxes for frame 7")
            return [Boxes.empty() for _ in frames]

    spec = make_spec(input_hw=(32, 32))
    finders = Finders(Boxed(), PoseEstimator(SpotNetwork(spec), spec), apart)
    found = find_poses(map(frame_at, range(10)), finders, Memory(Following()), chunk=5)
    assert [next(found).frame.index for _ in range(7)] == list(range(7))
    with pytest.raises(InputError, match="no boxes for frame 7"):
        next(found)


def test_marks_carry_the_state_of_their_own_frame():
    memory = Memory(Following(tracking=TrackerSettings()))
    seen = list(find_poses(map(frame_at, range(23)), make_finders(), memory, chunk=5))
    marked = {one.number: one.state for one in seen if one.state is not None}
    assert list(marked) == [10, 20]
    again = Memory(memory.following, marked[10])
    rest = list(find_poses(map(frame_at, range(10, 23)), make_finders(), again, chunk=5))
    assert [one.number for one in rest] == list(range(11, 24))
    assert rest[9].state == marked[20]


def test_boxes_between_detections_need_tracking():
    memory = Memory(Following(detect_every=2))
    with pytest.raises(ValueError, match="needs tracking"):
        next(find_poses([frame_at(0)], make_finders(), memory, chunk=5))


def test_a_stalled_live_source_is_stopped_at_once(tmp_path):
    stop = threading.Event()

    def on_frame(seen, _picture):
        if seen.number == 12:
            stop.set()
        return True

    start = time.monotonic()
    result = work(tmp_path / "clip", Pictures(12, live=True), Watch(on_frame, stop.is_set))
    # Nothing waits for threads that wait for a picture; 5 s is how long each would be waited for.
    assert time.monotonic() - start < 4.5
    assert (result.frames, result.complete) == (12, True)
    assert lines_in(tmp_path / "clip.jsonl") == 12
    assert len(read_video(tmp_path / "clip.mp4").times) == 12


def test_what_a_broken_run_has_of_a_live_source_is_completed(tmp_path):
    def die(seen, _picture):
        if seen.number == 14:
            raise MemoryError
        return True

    target, start = tmp_path / "camera-0", time.monotonic()
    with pytest.raises(MemoryError):
        work(target, Pictures(14, live=True), Watch(die))
    # Not the minute that a stage has to end.
    assert time.monotonic() - start < 30
    result = work(target, Pictures(30, live=True), resume=True)
    assert (result.frames, result.complete) == (10, True)
    assert any("none was added" in words for words in result.warnings)
    assert lines_in(tmp_path / "camera-0.jsonl") == 10
    assert len(read_video(tmp_path / "camera-0.mp4").times) == 10
    assert not resume_folder(target).exists()


def test_a_live_source_broken_before_its_first_mark_starts_anew(tmp_path):
    def die(_seen, _picture):
        raise MemoryError

    with pytest.raises(MemoryError):
        work(tmp_path / "camera-0", Pictures(4, live=True), Watch(die))
    enough = Watch(lambda seen, _picture: seen.number < 3)
    result = work(tmp_path / "camera-0", Pictures(3, live=True), enough, resume=True)
    assert (result.frames, result.complete) == (3, True)
    assert lines_in(tmp_path / "camera-0.jsonl") == 3


def test_having_seen_enough_of_a_live_source_ends_records_and_pictures_together(tmp_path):
    enough = Watch(lambda seen, _picture: seen.number < 6)
    result = work(tmp_path / "clip", Pictures(9, live=True), enough)
    assert result.complete
    assert result.frames >= 6
    assert lines_in(tmp_path / "clip.jsonl") == result.frames
    assert len(read_video(tmp_path / "clip.mp4").times) == result.frames


def test_having_seen_enough_of_a_file_is_asked_once(tmp_path):
    asked = []

    def enough(seen, _picture):
        asked.append(seen.number)
        return seen.number < 6

    result = work(tmp_path / "clip", Pictures(60), Watch(enough))
    assert result.complete
    assert asked == [1, 2, 3, 4, 5, 6]
    assert 6 <= result.frames < 60
    assert lines_in(tmp_path / "clip.jsonl") == result.frames
    assert len(read_video(tmp_path / "clip.mp4").times) == result.frames


def test_records_are_derived_one_by_one(tmp_path, monkeypatch):
    waiting, most = [0], [0]

    class Sink:
        def write(self, _frame, _poses):
            most[0] = max(most[0], waiting[0])
            waiting[0] -= 1

        def close(self):
            pass

    def reading(*arguments, **options):
        for record in video_job_read(*arguments, **options):
            waiting[0] += 1
            yield record

    video_job_read = video_job.read_records
    monkeypatch.setattr(video_job, "read_records", reading)
    monkeypatch.setattr(video_job, "open_sink", lambda *_a, **_k: Sink())
    work(tmp_path / "clip", Pictures(30), formats=("jsonl", "coco"), drawing=None)
    assert most[0] == 1


def test_a_full_disk_at_the_first_record_is_an_output_error(tmp_path):
    (tmp_path / "clip.jsonl").mkdir()
    with pytest.raises(OutputError, match=r"clip\.jsonl"):
        work(tmp_path / "clip", Pictures(3), drawing=None)
