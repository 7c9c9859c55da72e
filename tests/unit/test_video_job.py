"""One video from source to files: whole, stopped and gone on with, smoothed, broken."""

import json
import shutil
import threading
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest

from fakes import SpotNetwork, make_spec
from hrnet_cli import streaming, video_job
from hrnet_cli.errors import InputError, OutputError
from hrnet_cli.estimator import PoseEstimator
from hrnet_cli.resuming import ResumeFolder, remove_remains
from hrnet_cli.sinks import RunInfo, video_file
from hrnet_cli.sinks.encoding import VideoSettings
from hrnet_cli.sinks.sound import Sound
from hrnet_cli.smoothing_offline import OfflineSettings
from hrnet_cli.sources import Damage, Span, VideoInfo
from hrnet_cli.sources.video import open_video
from hrnet_cli.streaming import Finders, Following, chunk_frames
from hrnet_cli.structures import Boxes, Frame
from hrnet_cli.tracking import TrackerSettings
from hrnet_cli.video_job import process_video
from hrnet_cli.video_report import VideoReportInfo
from hrnet_cli.video_task import Drawing, VideoResult, VideoTask, Watch
from videos import read_video, write_video

SIZE_WH = (64, 48)
FRAMES = 47
SEGMENT = 10
FOLLOWED = Following(tracking=TrackerSettings(), smoothing="one-euro")


@pytest.fixture(autouse=True)
def _short_segments(monkeypatch):
    """Segments of 10 frames: a run may go on every 10 frames, and chunks are 10."""
    monkeypatch.setattr(video_file, "SEGMENT_FRAMES", SEGMENT)
    monkeypatch.setattr(streaming, "SEGMENT_FRAMES", SEGMENT)
    monkeypatch.setattr(streaming, "CHUNK_FRAMES", (10, 5, 2, 1))
    monkeypatch.setattr(streaming, "SHARED_FRAMES", 10)


def spot_at(number):
    """Return where the one person of a frame is: walking to the right, shaking."""
    return 14 + 0.75 * number + (number % 3) * 0.4, 20 + (number % 5) * 0.5


def spotted(number):
    """Return the picture of a frame: a bright spot on black; nobody in every seventh frame."""
    rows_HW, columns_HW = np.mgrid[: SIZE_WH[1], : SIZE_WH[0]]
    x, y = spot_at(number)
    grey_HW = 250 * np.exp(-((columns_HW - x) ** 2 + (rows_HW - y) ** 2) / 18)
    grey_HW *= number % 7 != 6
    return np.repeat(grey_HW.round().astype(np.uint8)[..., None], 3, axis=2)


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    """A video of 47 frames at 25 a second, with sound."""
    path = tmp_path_factory.mktemp("clip") / "walk.mp4"
    return write_video(path, FRAMES, size_wh=SIZE_WH, picture=spotted, audio="aac")


class SpotDetector:
    """Boxes the bright spot; nobody where it is dark."""

    name = "spots"

    def __init__(self):
        self.calls = []

    def __call__(self, frames):
        self.calls.append(len(frames))
        return [self._box(frame.image_HW3) for frame in frames]

    def _box(self, image_HW3):
        if image_HW3.max() < 100:
            return Boxes.empty()
        y, x = np.unravel_index(image_HW3[..., 0].argmax(), image_HW3.shape[:2])
        return Boxes(np.array([[x - 12, y - 14, x + 12, y + 14]]), np.array([0.9]))


def make_finders(**options):
    spec = make_spec(input_hw=(64, 64))
    return Finders(SpotDetector(), PoseEstimator(SpotNetwork(spec), spec, **options))


def make_task(clip, target, **fields):
    span = fields.pop("span", Span())
    usual = {
        "source": open_video(str(clip), clip, "walk.mp4", span),
        "target": target,
        "formats": ("jsonl", "csv"),
        "info": RunInfo("fake", "spots", 0.2),
        "following": FOLLOWED,
        "settings": {"--smooth": "one-euro"},
        "drawing": Drawing(("keypoints", "skeleton", "boxes")),
        "sound": Sound(clip),
    }
    return VideoTask(**(usual | fields))


def stop_after(frames):
    """Return a watch that asks to stop once so many frames are done."""
    stop = threading.Event()
    counted = []

    def on_frame(_seen, _picture):
        counted.append(1)
        if len(counted) >= frames:
            stop.set()
        return True

    return Watch(on_frame, stop.is_set)


def run(task, watch=None, finders=None):
    result = VideoResult()
    process_video(task, finders or make_finders(), watch or Watch(), result)
    return result


def records(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_every_frame_has_a_record_and_a_picture(clip, tmp_path):
    result = run(make_task(clip, tmp_path / "walk"))
    assert (result.frames, result.complete, result.warnings) == (FRAMES, True, [])
    assert result.written == [tmp_path / f"walk.{suffix}" for suffix in ("jsonl", "csv", "mp4")]
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "walk.csv",
        "walk.jsonl",
        "walk.mp4",
    ]
    lines = records(tmp_path / "walk.jsonl")
    assert [line["frame"] for line in lines] == list(range(FRAMES))
    assert [line["pts"] for line in lines] == list(range(FRAMES))
    assert [bool(line["people"]) for line in lines] == [n % 7 != 6 for n in range(FRAMES)]
    assert result.people == sum(len(line["people"]) for line in lines)
    assert {person["id"] for line in lines for person in line["people"]} == {1}
    for number, line in enumerate(lines):
        for person in line["people"]:
            np.testing.assert_allclose(person["keypoints_raw"][0], spot_at(number), atol=1)
            np.testing.assert_allclose(person["keypoints"][0][:2], spot_at(number), atol=3)
    drawn = read_video(tmp_path / "walk.mp4")
    assert drawn.times == read_video(clip).times
    assert drawn.size_wh == SIZE_WH
    assert drawn.has_audio


def test_people_of_many_frames_share_batches(clip, tmp_path):
    finders = make_finders()
    run(make_task(clip, tmp_path / "walk"), finders=finders)
    assert finders.detector.calls == [10, 10, 10, 10, 7]
    assert max(finders.estimator.runtime.batches) >= 8


@pytest.mark.parametrize("frames", [1, 9, 10, 11, 25, 46, 47])
def test_a_stopped_run_goes_on_to_the_same_output(clip, tmp_path, frames):
    run(make_task(clip, tmp_path / "whole" / "walk"))
    first = run(make_task(clip, tmp_path / "parts" / "walk"), stop_after(frames))
    assert not first.complete
    # What a stopped run leaves is whole: as many lines as frames in the video, or a little more.
    left = records(tmp_path / "parts" / "walk.jsonl")
    assert len(read_video(tmp_path / "parts" / "walk.mp4").times) <= len(left)
    assert len(left) >= frames
    second = run(make_task(clip, tmp_path / "parts" / "walk", resume=True))
    assert (second.complete, second.frames) == (True, FRAMES)
    assert_same(tmp_path / "whole", tmp_path / "parts")


@pytest.mark.parametrize("frames", [1, 8, 10, 29])
def test_a_killed_run_goes_on_to_the_same_output(clip, tmp_path, frames):
    def kill(seen, _picture):
        if seen.number == frames:
            # What lies there at this moment is what kill -9 would leave.
            shutil.copytree(tmp_path / "whole", tmp_path / "parts")
        return True

    run(make_task(clip, tmp_path / "whole" / "walk"), Watch(kill))
    assert (tmp_path / "parts" / "walk.resume" / "state.json").exists()
    assert run(make_task(clip, tmp_path / "parts" / "walk", resume=True)).complete
    assert_same(tmp_path / "whole", tmp_path / "parts")


def test_a_run_killed_while_it_tidies_up_is_done(clip, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "rmtree", lambda *_a, **_k: (_ for _ in ()).throw(MemoryError))
        with pytest.raises(MemoryError):
            run(make_task(clip, tmp_path / "walk"))
    assert list((tmp_path / "walk.resume" / "parts").iterdir()) != []
    assert not (tmp_path / "walk.resume" / "state.json").exists()
    remove_remains(tmp_path / "walk")
    assert not (tmp_path / "walk.resume").exists()
    remove_remains(tmp_path / "walk")
    assert (tmp_path / "walk.mp4").exists()


def assert_same(whole, parts):
    names = sorted(path.name for path in whole.iterdir())
    assert names == sorted(path.name for path in parts.iterdir())
    for name in names:
        if name.endswith(".mp4"):
            one, other = read_video(whole / name), read_video(parts / name)
            assert one.times == other.times
            for first, second in zip(one.images, other.images, strict=True):
                np.testing.assert_array_equal(first, second)
        else:
            assert (whole / name).read_bytes() == (parts / name).read_bytes()


def test_frames_between_detections_follow_the_keypoints(clip, tmp_path):
    finders = make_finders()
    following = replace(FOLLOWED, detect_every=5)
    run(make_task(clip, tmp_path / "walk", following=following), finders=finders)
    assert finders.detector.calls == [1] * 10
    lines = records(tmp_path / "walk.jsonl")
    assert len(lines) == FRAMES
    assert sum(bool(line["people"]) for line in lines) > 25
    whole = (tmp_path / "walk.jsonl").read_bytes()
    run(make_task(clip, tmp_path / "again" / "walk", following=following), stop_after(23))
    run(make_task(clip, tmp_path / "again" / "walk", following=following, resume=True))
    assert (tmp_path / "again" / "walk.jsonl").read_bytes() == whole


def test_smoothing_a_whole_video_fills_gaps_and_draws_what_it_writes(clip, tmp_path):
    offline = OfflineSettings(kind="savgol", max_gap_s=0.1)
    following = Following(tracking=TrackerSettings())
    task = make_task(clip, tmp_path / "walk", following=following, offline=offline)
    result = run(task)
    assert result.complete
    lines = records(tmp_path / "walk.jsonl")
    assert len(lines) == FRAMES
    # One frame without the person, 0.08 s between its neighbours, is filled; those at the end not.
    assert [len(line["people"]) for line in lines] == [1] * FRAMES
    assert lines[6]["people"][0]["flags"][0] == 1
    assert lines[5]["people"][0]["flags"][0] == 0
    np.testing.assert_allclose(lines[6]["people"][0]["keypoints"][0][:2], spot_at(6), atol=1.5)
    assert len(read_video(tmp_path / "walk.mp4").times) == FRAMES
    assert "filled" not in (tmp_path / "walk.csv").read_text()
    stopped = make_task(clip, tmp_path / "b" / "walk", following=following, offline=offline)
    run(stopped, stop_after(30))
    assert not (tmp_path / "b" / "walk.jsonl").exists()
    run(
        replace(
            make_task(clip, tmp_path / "b" / "walk", following=following, offline=offline),
            resume=True,
        )
    )
    assert (tmp_path / "b" / "walk.jsonl").read_bytes() == (tmp_path / "walk.jsonl").read_bytes()


def test_formats_and_page_are_made_at_the_end(clip, tmp_path):
    task = make_task(
        clip,
        tmp_path / "walk",
        formats=("coco", "openpose", "angles"),
        drawing=None,
        report=VideoReportInfo("fake", "spots"),
        original=clip,
    )
    result = run(task)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "walk.coco.json", "walk.html", "walk_angles.csv", "walk_json",
    ]  # fmt: skip
    assert all(path.exists() for path in result.written)
    assert len(json.loads((tmp_path / "walk.coco.json").read_text())) == result.people
    assert len(list((tmp_path / "walk_json").iterdir())) == FRAMES


def test_a_crash_at_the_end_leaves_only_the_end_to_do(clip, tmp_path, monkeypatch):
    run(make_task(clip, tmp_path / "whole" / "walk", formats=("jsonl", "coco")))
    formats = {"formats": ("jsonl", "coco")}
    with monkeypatch.context() as patch:
        patch.setattr(video_job, "open_sink", lambda *_a, **_k: (_ for _ in ()).throw(MemoryError))
        with pytest.raises(MemoryError):
            run(make_task(clip, tmp_path / "parts" / "walk", **formats))
    finders = make_finders()
    result = run(
        make_task(clip, tmp_path / "parts" / "walk", **formats, resume=True), None, finders
    )
    assert (result.frames, result.complete) == (FRAMES, True)
    assert finders.detector.calls == []
    assert_same(tmp_path / "whole", tmp_path / "parts")


def test_side_by_side_and_transparent(clip, tmp_path):
    run(make_task(clip, tmp_path / "a", drawing=Drawing(("skeleton",), side_by_side=True)))
    assert read_video(tmp_path / "a.mp4").size_wh == (128, 48)
    from hrnet_cli.draw import DrawStyle

    clear = Drawing(("keypoints",), style=DrawStyle(background="transparent"))
    run(make_task(clip, tmp_path / "b", drawing=clear, encoding=VideoSettings("png")))
    assert len(list((tmp_path / "b_frames").glob("*.png"))) == FRAMES
    run(make_task(clip, tmp_path / "c", drawing=clear, encoding=VideoSettings("prores")))
    assert len(read_video(tmp_path / "c.mov").times) == FRAMES


def test_another_run_on_the_same_video_is_refused(clip, tmp_path):
    held = ResumeFolder(tmp_path / "walk")
    with pytest.raises(OutputError, match="is being written by another run"):
        run(make_task(clip, tmp_path / "walk"))
    held.release()
    assert run(make_task(clip, tmp_path / "walk")).complete


def test_a_broken_run_is_not_gone_on_with_under_other_settings(clip, tmp_path):
    run(make_task(clip, tmp_path / "walk"), stop_after(20))
    other = make_task(clip, tmp_path / "walk", settings={"--smooth": "kalman"}, resume=True)
    with pytest.raises(OutputError, match="--smooth was 'one-euro' and is 'kalman'") as caught:
        run(other)
    assert "--overwrite" in caught.value.hint
    state = tmp_path / "walk.resume" / "state.json"
    state.write_text(state.read_text()[:40])
    with pytest.raises(OutputError, match=r"state.json' is damaged"):
        run(make_task(clip, tmp_path / "walk", resume=True))


def test_a_full_disk_keeps_what_was_written(clip, tmp_path, monkeypatch):
    run(make_task(clip, tmp_path / "whole" / "walk"))
    real = video_file.SegmentedVideo.append

    def full(self, image, pts):
        if pts == 33:
            self._failed = True
            raise OutputError("cannot write: No space left on device")
        real(self, image, pts)

    with monkeypatch.context() as patch:
        patch.setattr(video_file.SegmentedVideo, "append", full)
        with pytest.raises(OutputError, match="No space left"):
            run(make_task(clip, tmp_path / "parts" / "walk"))
    assert len(records(tmp_path / "parts" / "walk.jsonl")) >= 33
    assert run(make_task(clip, tmp_path / "parts" / "walk", resume=True)).complete
    assert_same(tmp_path / "whole", tmp_path / "parts")


class FakeSource:
    """A source of a few frames that breaks, or never ends."""

    source = "fake"

    def __init__(self, frames, *, live=False, error=None):
        self.info = VideoInfo(SIZE_WH, Fraction(1, 25), frames=None if live else frames, live=live)
        self.damage = Damage()
        self.closed = False
        self._frames = frames
        self._error = error

    def frames(self, *, skip=0):
        for number in range(skip, self._frames):
            yield Frame(
                spotted(number), "fake", "fake", number, number / 25,
                pts=number, time_base=Fraction(1, 25),
            )  # fmt: skip
        if self._error is not None:
            raise self._error

    def close(self):
        self.closed = True


def test_a_video_without_a_frame_leaves_nothing(clip, tmp_path):
    source = FakeSource(0)
    with pytest.raises(InputError, match="'fake' has no frame in the wanted part"):
        run(make_task(clip, tmp_path / "out" / "walk", source=source))
    assert list((tmp_path / "out").iterdir()) == []
    assert source.closed


def test_a_video_that_cannot_be_read_on_keeps_what_was_read(clip, tmp_path):
    source = FakeSource(23, error=InputError("the disk was unplugged"))
    with pytest.raises(InputError, match="unplugged"):
        run(make_task(clip, tmp_path / "walk", source=source))
    assert len(records(tmp_path / "walk.jsonl")) == 23


def test_a_live_source_that_is_stopped_is_complete(clip, tmp_path):
    result = run(
        make_task(clip, tmp_path / "walk", source=FakeSource(9999, live=True)), stop_after(12)
    )
    assert result.complete
    assert len(records(tmp_path / "walk.jsonl")) >= 12
    assert not (tmp_path / "walk.resume").exists()


def test_what_was_broken_is_told(clip, tmp_path):
    source = FakeSource(5)
    source.damage = Damage(broken_packets=2, reconnects=1, ended_early="it ended early")
    source.info = replace(source.info, frames=9)
    result = run(make_task(clip, tmp_path / "walk", source=source))
    assert len(result.warnings) == 4
    assert any("9 frames were announced, 5 came" in words for words in result.warnings)


def test_a_closed_window_ends_the_run_as_it_is(clip, tmp_path):
    result = run(make_task(clip, tmp_path / "walk"), Watch(lambda seen, _p: seen.number < 15))
    assert result.complete
    # Frames that were looked at by then are in the records, and so in the video.
    assert 15 <= result.frames < FRAMES
    assert len(records(tmp_path / "walk.jsonl")) == result.frames
    assert len(read_video(tmp_path / "walk.mp4").times) == result.frames


@pytest.mark.parametrize(
    ("pixels", "frames"), [(64 * 48, 20), (1920 * 1080, 20), (3840 * 2160, 5), (10**9, 1)]
)
def test_chunks_divide_segments(pixels, frames, monkeypatch):
    monkeypatch.undo()
    assert chunk_frames(pixels) == frames
    assert streaming.SEGMENT_FRAMES % frames == 0
    assert chunk_frames(pixels, apart=False) == min(frames, 5)
