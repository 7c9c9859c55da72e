"""What a broken run leaves to go on with: kept whole, checked, locked, and gone in the end."""

import shutil
from dataclasses import fields
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from fakes import SpotNetwork, make_spec
from hrnet_cli import streaming
from hrnet_cli.cli import deciding
from hrnet_cli.cli.deciding import deciding_settings, short_hash
from hrnet_cli.cli.detect_options import DetectOptions
from hrnet_cli.cli.detect_videos import _end_if_stopped, is_done
from hrnet_cli.cli.video_options import VideoOptions
from hrnet_cli.detectors.whole_image import WholeImageDetector
from hrnet_cli.errors import OutputError
from hrnet_cli.estimator import PoseEstimator
from hrnet_cli.resuming import ResumeFolder, resume_folder
from hrnet_cli.sinks import RunInfo
from hrnet_cli.sources import Damage, VideoInfo
from hrnet_cli.sources.plan import Photo, Video
from hrnet_cli.stopping import StopRequest
from hrnet_cli.streaming import Finders, Following
from hrnet_cli.structures import Frame
from hrnet_cli.video_job import process_video
from hrnet_cli.video_task import Drawing, VideoResult, VideoTask, Watch

SIZE_WH = (32, 24)
SETTINGS = {"--smooth": "none", "picture size": [32, 24]}


class Pictures:
    """A source of black frames; a live one does not start anew."""

    source = "fake"

    def __init__(self, frames, *, live=False):
        self.info = VideoInfo(SIZE_WH, Fraction(1, 25), live=live)
        self.damage = Damage()
        self.closed = False
        self._frames = frames

    def frames(self, *, skip=0):
        image = np.zeros((SIZE_WH[1], SIZE_WH[0], 3), np.uint8)
        for number in range(0 if self.info.live else skip, self._frames):
            yield Frame(
                image, "fake", "fake", number, number / 25, pts=number, time_base=Fraction(1, 25)
            )

    def close(self):
        self.closed = True


@pytest.fixture(autouse=True)
def _short_segments(monkeypatch):
    monkeypatch.setattr("hrnet_cli.sinks.video_file.SEGMENT_FRAMES", 10)
    monkeypatch.setattr(streaming, "SEGMENT_FRAMES", 10)
    monkeypatch.setattr(streaming, "CHUNK_FRAMES", (5, 1))


def work(target, source, watch=None, **fields):
    """Run one video with a network that sees nothing in the black pictures; return the result."""
    spec = make_spec(input_hw=(32, 32))
    finders = Finders(WholeImageDetector(), PoseEstimator(SpotNetwork(spec), spec))
    usual = {"formats": ("jsonl",), "settings": SETTINGS, "following": Following()}
    info = RunInfo("fake", "whole-image", 0.2)
    task = VideoTask(source=source, target=target, info=info, **(usual | fields))
    result = VideoResult()
    process_video(task, finders, watch or Watch(), result)
    return result


def stop_at(number):
    """Return a watch that asks to stop at a frame."""
    stop = []

    def on_frame(seen, _picture):
        stop.extend([True] * (seen.number >= number))
        return True

    return Watch(on_frame, lambda: bool(stop))


def lines_in(path):
    return path.read_text().count("\n")


def looks_done(target):
    options = SimpleNamespace(
        folder=target.parent, formats=("jsonl",), parts=(), video=VideoOptions(resume=True)
    )
    return is_done(Video("fake", target.name), options)


def test_a_run_stopped_before_its_first_mark_does_not_look_done(tmp_path):
    target = tmp_path / "clip"
    assert not looks_done(target)
    assert not work(target, Pictures(60), stop_at(1)).complete
    assert 0 < lines_in(tmp_path / "clip.jsonl") < 10
    assert not looks_done(target)
    result = work(target, Pictures(60), resume=True)
    assert (result.frames, result.complete) == (60, True)
    assert lines_in(tmp_path / "clip.jsonl") == 60
    assert looks_done(target)
    assert not resume_folder(target).exists()


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({}, "fake: repeat the command with --resume to go on"),
        (
            {"fill_gaps": 0.5},
            "fake: no outputs yet, they need all frames first; repeat the command with --resume",
        ),
    ],
)
def test_a_stopped_run_says_what_it_left(tmp_path, capsys, given, said):
    folder = ResumeFolder(tmp_path / "clip")
    folder.save(SETTINGS, {})
    folder.release()
    options = DetectOptions((), str(tmp_path), "jsonl", "", VideoOptions(**given))
    stop = StopRequest()
    stop.requested = True
    with pytest.raises(KeyboardInterrupt):
        _end_if_stopped(stop, Video("fake", "clip"), options)
    assert capsys.readouterr().err.replace("\n", " ").startswith(said)


def test_a_state_comes_back_as_it_was(tmp_path):
    folder = ResumeFolder(tmp_path / "clip")
    assert folder.load(SETTINGS) is None
    state = {"memory": {"frames": 100, "tracker": [0.1 + 0.2, 1e-300]}, "bytes": {"jsonl": 7}}
    folder.save(SETTINGS, {"memory": None})
    folder.save(SETTINGS, state)
    assert folder.load(SETTINGS) == state
    assert sorted(path.name for path in folder.path.iterdir()) == ["lock", "state.json"]
    # Tuples are lists in JSON; that is no other setting.
    assert folder.load(SETTINGS | {"picture size": (32, 24)}) == state
    folder.release()


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (SETTINGS | {"--smooth": "median"}, "--smooth was 'none' and is 'median'"),
        (SETTINGS | {"--every": 2}, "--every was None and is 2"),
        ({"--smooth": "none"}, r"picture size was \[32, 24\] and is None"),
    ],
)
def test_other_settings_are_refused(tmp_path, settings, words):
    folder = ResumeFolder(tmp_path / "clip")
    folder.save(SETTINGS, {})
    with pytest.raises(OutputError, match=words) as caught:
        folder.load(settings)
    assert "--overwrite" in caught.value.hint
    folder.release()


@pytest.mark.parametrize("text", ["", "{", "[]", "3", '{"version":1,"settings":{}}', "\xff"])
def test_a_damaged_state_is_refused(tmp_path, text):
    folder = ResumeFolder(tmp_path / "clip")
    (folder.path / "state.json").write_bytes(text.encode("latin-1"))
    with pytest.raises(OutputError, match=r"state\.json' is damaged"):
        folder.load(SETTINGS)
    folder.release()


def test_a_state_of_another_version_is_refused(tmp_path):
    folder = ResumeFolder(tmp_path / "clip")
    (folder.path / "state.json").write_text('{"version":0,"settings":{},"state":{}}')
    with pytest.raises(OutputError, match="its state has version 0, expected 1"):
        folder.load({})
    folder.release()


def test_a_failed_save_keeps_the_state_before(tmp_path):
    folder = ResumeFolder(tmp_path / "clip")
    folder.save(SETTINGS, {"people": 1})
    with pytest.raises(ValueError, match="JSON"):
        folder.save(SETTINGS, {"people": float("nan")})
    assert folder.load(SETTINGS) == {"people": 1}
    folder.release()


def test_one_run_at_a_time(tmp_path):
    first = ResumeFolder(tmp_path / "clip")
    with pytest.raises(OutputError, match=r"clip' is being written by another run of hrnet"):
        ResumeFolder(tmp_path / "clip")
    first.release()
    assert not first.path.exists()
    second = ResumeFolder(tmp_path / "clip")
    second.save(SETTINGS, {})
    second.release()
    assert (second.path / "state.json").exists()


def test_clearing_and_removing_leave_nothing(tmp_path):
    folder = ResumeFolder(tmp_path / "clip")
    folder.save(SETTINGS, {})
    folder.parts.mkdir()
    (folder.parts / "piece.mp4").touch()
    (folder.path / "records.jsonl").touch()
    folder.clear()
    assert [path.name for path in folder.path.iterdir()] == ["lock"]
    folder.remove()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("end", [ResumeFolder.remove, ResumeFolder.release])
def test_a_run_that_begins_while_another_ends_keeps_its_folder(tmp_path, monkeypatch, end):
    ending, begun = ResumeFolder(tmp_path / "clip"), []
    remove_folder = shutil.rmtree

    def removed(path, **options):
        remove_folder(path, **options)
        if not begun:
            begun.append(ResumeFolder(tmp_path / "clip"))

    with monkeypatch.context() as patch:
        patch.setattr(shutil, "rmtree", removed)
        end(ending)
        ending.release()  # as the end of a job does, whatever came before
    with pytest.raises(OutputError, match="is being written by another run"):
        ResumeFolder(tmp_path / "clip")
    begun[0].save(SETTINGS, {"people": 1})
    assert begun[0].load(SETTINGS) == {"people": 1}
    begun[0].release()


def test_a_kill_while_the_folder_is_removed_leaves_the_video_done(tmp_path, monkeypatch):
    folder = ResumeFolder(tmp_path / "clip")
    folder.save(SETTINGS, {"done": True})
    folder.parts.mkdir()
    (folder.parts / "piece.mp4").touch()

    def killed(_path, **_options):
        raise MemoryError

    with monkeypatch.context() as patch:
        patch.setattr(shutil, "rmtree", killed)
        with pytest.raises(MemoryError):
            folder.remove()
    # Had the state stayed without the pieces, the video could not be gone on with.
    assert not (folder.path / "state.json").exists()
    folder.release()


def test_a_folder_that_cannot_be_made_is_one_line(tmp_path):
    (tmp_path / "out").write_text("a file")
    with pytest.raises(OutputError, match="cannot write"):
        ResumeFolder(tmp_path / "out" / "clip")


def test_a_drawing_stopped_at_its_beginning_goes_on(tmp_path):
    drawing = Drawing(("boxes",))
    target = tmp_path / "clip"
    work(target, Pictures(24), stop_at(1), drawing=drawing)
    result = work(target, Pictures(24), drawing=drawing, resume=True)
    assert (result.frames, result.complete, result.warnings) == (24, True, [])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["clip.jsonl", "clip.mp4"]


# What names sources and outputs, says how much is said, or is settled by the model and its hash, or
# by other options.
HARMLESS = {
    *("sources", "out", "recursive", "max_pixels", "overwrite", "append", "strict", "offline"),
    *("dry_run", "show_stages", "json", "quiet", "model", "detector", "device", "threads"),
    *("resume", "jobs", "devices", "shard", "show", "ids_for"),
}


@pytest.mark.parametrize("option", ["boxes", "connections", "keypoint_schema"])
@pytest.mark.parametrize("clip", [None, (Video("clip.mp4", "clip"), Pictures(1))])
def test_a_run_goes_on_with_the_same_files_only(tmp_path, option, clip):
    file = tmp_path / "given.toml"
    given = str(file) if option == "keypoint_schema" else file
    options = DetectOptions(("clip.mp4",), "out", "", "", VideoOptions(), **{option: given})
    contents = ("one", "one", "two")
    found = []
    for content in contents:
        file.write_text(content)
        found.append(deciding_settings(options, "starter", "yolo26s", {}, clip))
    assert found[0] == found[1]
    changed = {name for name in found[0] if found[0][name] != found[2][name]}
    assert changed == {f"--{option.replace('_', '-')}"}


def test_a_built_in_schema_is_told_by_its_name():
    options = DetectOptions((), "out", "", "", VideoOptions(), keypoint_schema="coco17")
    settings = deciding_settings(options, "starter", "yolo26s", {"detector hash": "ab"})
    assert settings["--keypoint-schema"] == "coco17"
    assert settings["detector hash"] == "ab"


def test_a_video_is_told_by_what_a_copy_shares(tmp_path, monkeypatch):
    monkeypatch.setattr(deciding, "_END_BYTES", 4)
    options = DetectOptions((), "out", "", "", VideoOptions())

    def told(path, pictures=()):
        clip = Video("clip", "clip", path, pictures=pictures), Pictures(1)
        return deciding_settings(options, "starter", "yolo26s", {}, clip)["video content"]

    film = tmp_path / "film.mp4"
    film.write_bytes(b"head-middle-tail")
    same = told(film)
    assert told(Path(shutil.copy(film, tmp_path / "copy.mp4"))) == same
    for other in (b"HEAD-middle-tail", b"head-middle-TAIL", b"head-middle--tail", b""):
        film.write_bytes(other)
        assert told(film) != same
    assert told(None) is None
    photos = [Photo(tmp_path / f"{n}.png", f"{n}.png", f"{n}.png") for n in range(3)]
    for photo in photos[:2]:  # the third is gone, which its reader reports
        photo.path.write_bytes(b"1234")
    before = told(photos[0].path, tuple(photos))
    photos[1].path.write_bytes(b"12345")
    assert told(photos[0].path, tuple(photos)) != before
    assert told(photos[0].path, tuple(photos[:1])) != before


def test_detectors_are_told_by_their_files(tmp_path):
    folder = tmp_path / "yolo_openvino_model"
    folder.mkdir()
    (folder / "yolo.xml").write_text("graph")
    (folder / "yolo.bin").write_text("weights")
    before = short_hash(folder)
    assert len(before) == 16
    (folder / "yolo.bin").write_text("others!")
    assert short_hash(folder) != before
    (tmp_path / "yolo.onnx").write_text("graph")
    assert short_hash(tmp_path / "yolo.onnx") not in ("", before)
    assert short_hash(None) == ""


def test_every_option_that_changes_results_is_remembered():
    names = {field.name for field in fields(DetectOptions)} - {"video"}
    options = SimpleNamespace(**dict.fromkeys(names), video=VideoOptions())
    clip = Video("clip.mp4", "clip"), Pictures(1)
    kept = deciding_settings(options, "starter", "yolo26s", {}, clip)
    wanted = (names | {field.name for field in fields(VideoOptions)}) - HARMLESS
    shown = {"class_name": "class", "input_size": "input"}
    keys = {f"--{shown.get(name, name).replace('_', '-')}" for name in wanted}
    lacking = sorted(keys - kept.keys())
    assert lacking == []
