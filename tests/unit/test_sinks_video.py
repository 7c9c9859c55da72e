"""What the formats write of videos, and how growing files go on after a stop."""

import csv
import io
import json
import re
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from builders import make_frame, make_poses
from hrnet_cli.errors import OutputError, UsageError
from hrnet_cli.records import read_records
from hrnet_cli.schema import KeypointSchema
from hrnet_cli.sinks import (
    SINKS,
    RunInfo,
    check_formats,
    open_growing_sink,
    open_sink,
    open_stream,
    planned_files,
)
from hrnet_cli.sinks.record import record
from hrnet_cli.structures import FILLED, SWAPPED

INFO = RunInfo("starter", "yolo26s", keypoint_threshold=0.3)
DROP_LOW = RunInfo("starter", "yolo26s", keypoint_threshold=0.3, drop_low=True)
TWO_POINTS = KeypointSchema("two", ("tip", "tail"))
GROWING = [name for name, entry in SINKS.items() if entry.streams_video]


def video_frame(index=0, name="clip.mp4", **fields):
    timing = {"time_s": index / 25, "pts": 512 * index, "time_base": Fraction(1, 12800)}
    return make_frame(name, index=index, **(timing | fields))


def smoothed(**fields):
    """One tracked person: the first keypoint smoothed, the second filled in where none was seen."""
    values = {
        "keypoints_NK2": np.array([[[10.5, 20.0], [30.0, 40.25]]]),
        "scores_NK": np.array([[0.9, 0.2]]),
        "track_ids_N": np.array([3]),
        "raw_keypoints_NK2": np.array([[[10.12345, -0.0001], [np.nan, np.nan]]], np.float32),
        "flags_NK": np.array([[SWAPPED, FILLED | SWAPPED]], np.uint8),
    }
    return make_poses(1, TWO_POINTS, **(values | fields))


def write(name, folder, pictures, info=INFO, **options):
    sink = open_sink(name, folder, info, "clip", video=True, **options)
    for frame, poses in pictures:
        sink.write(frame, poses)
    sink.close()


def clip(frames=3, people=2):
    return [
        (video_frame(i), make_poses(people, track_ids_N=np.arange(people))) for i in range(frames)
    ]


# --- Fields of videos ---------------------------------------------------------------------------


def test_a_record_of_a_video_frame_is_exactly_as_documented(tmp_path):
    write("jsonl", tmp_path, [(video_frame(3, rotation=90), smoothed())])
    assert (tmp_path / "clip.jsonl").read_text("utf-8") == (
        '{"schema":"hrnet-poses/1","source":"clip.mp4","frame":3,"time_s":0.12,"width":64,'
        '"height":48,"orientation":1,"pts":1536,"time_base":"1/12800","rotation":90,'
        '"keypoint_schema":"two","model":"starter","detector":"yolo26s",'
        '"keypoint_names":["tip","tail"],"people":[{"id":3,"box":[1.0,2.0,11.0,42.0],'
        '"box_score":0.9,"score":0.45,"keypoints":[[10.5,20.0,0.9],[30.0,40.25,0.2]],'
        '"in_frame":[true,true],"keypoints_raw":[[10.123,0.0],null],"flags":[2,3]}]}\n'
    )


def test_a_whole_second_is_a_time_base_too():
    frame = video_frame(time_base=Fraction(1))
    assert record(frame, smoothed(), INFO)["time_base"] == "1/1"


def test_fields_of_videos_are_absent_where_they_say_nothing():
    photo = record(make_frame(), make_poses(1), INFO)
    assert not photo.keys() & {"pts", "time_base", "rotation"}
    plain = record(video_frame(), make_poses(1), INFO)["people"][0]
    assert not plain.keys() & {"keypoints_raw", "flags"}


def test_a_low_keypoint_is_dropped_with_its_raw_place():
    raw = np.array([[[1, 2], [3, 4]]], np.float32)
    person = record(video_frame(), smoothed(raw_keypoints_NK2=raw), DROP_LOW)["people"][0]
    assert person["keypoints"] == [[10.5, 20.0, 0.9], None]
    assert person["keypoints_raw"] == [[1.0, 2.0], None]


def test_csv_has_the_fields_of_videos_in_its_last_columns(tmp_path):
    write("csv", tmp_path, [(video_frame(3), smoothed()), (video_frame(4), make_poses(1))])
    text = (tmp_path / "clip.csv").read_text("utf-8")
    tip, tail, *plain = csv.DictReader(io.StringIO(text))
    last = ("pts", "x_raw", "y_raw", "flags")
    assert tuple(tip)[-4:] == last
    assert [tip[key] for key in last] == ["1536", "10.123", "0.0", "2"]
    assert [tail[key] for key in last] == ["1536", "", "", "3"]
    assert {tuple(row[key] for key in last) for row in plain} == {("2048", "", "", "")}


@pytest.mark.parametrize(
    "name", [name for name, entry in SINKS.items() if not entry.motion and not entry.labels]
)
def test_formats_made_from_records_read_back_equal_those_made_at_once(name, tmp_path):
    pictures = [(video_frame(0), smoothed()), (video_frame(1), make_poses(0, TWO_POINTS))]
    write("jsonl", tmp_path / "once", pictures)
    write(name, tmp_path / "once", pictures)
    write(name, tmp_path / "read", read_records(tmp_path / "once" / "clip.jsonl"))
    (planned,) = planned_files([name], "clip", video=True)
    once, read = (content_of(tmp_path / folder / planned) for folder in ("once", "read"))
    assert once == read
    assert once


def content_of(path: Path):
    if path.is_dir():
        return {file.name: file.read_bytes() for file in path.iterdir()}
    return path.read_bytes()


# --- Going on after a stop ----------------------------------------------------------------------


@pytest.mark.parametrize("name", GROWING)
@pytest.mark.parametrize("rest", [b"", b'{"schema":"hrnet-poses/1","sou', b"\x00" * 5000])
def test_going_on_behind_the_kept_bytes_equals_a_run_in_one_go(name, tmp_path, rest):
    pictures = clip(4)
    write(name, tmp_path / "whole", pictures)
    sink = open_growing_sink(name, tmp_path, INFO, "clip")
    for frame, poses in pictures[:2]:
        sink.write(frame, poses)
    done = sink.bytes_written
    sink.write(*pictures[2])
    sink.close()
    path = tmp_path / planned_files([name], "clip", video=True)[0]
    assert done < path.stat().st_size
    path.write_bytes(path.read_bytes() + rest)
    sink = open_growing_sink(name, tmp_path, INFO, "clip", keep_bytes=done)
    assert sink.bytes_written == done
    for frame, poses in pictures[2:]:
        sink.write(frame, poses)
    assert sink.bytes_written == path.stat().st_size
    sink.close()
    assert path.read_bytes() == (tmp_path / "whole" / path.name).read_bytes()


@pytest.mark.parametrize("name", GROWING)
@pytest.mark.parametrize("exists", [False, True])
def test_keeping_nothing_starts_anew(name, tmp_path, exists):
    path = tmp_path / planned_files([name], "clip", video=True)[0]
    if exists:
        path.write_bytes(b"of an earlier run\n" * 1000)
    sink = open_growing_sink(name, tmp_path, INFO, "clip", keep_bytes=0)
    sink.write(*clip()[0])
    sink.close()
    write(name, tmp_path / "whole", clip(1))
    assert path.read_bytes() == (tmp_path / "whole" / path.name).read_bytes()


@pytest.mark.parametrize("content", [None, b"short"])
def test_a_file_shorter_than_the_kept_bytes_is_refused_and_left_alone(tmp_path, content):
    path = tmp_path / "clip.jsonl"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(OutputError) as raised:
        open_growing_sink("jsonl", tmp_path, INFO, "clip", keep_bytes=90)
    size = len(content or b"")
    assert raised.value.message == (
        f"cannot go on with '{path}': it holds {size} bytes, expected at least 90"
    )
    assert raised.value.hint == "it was changed since the run stopped; start anew with --overwrite"
    assert (path.read_bytes() if path.exists() else None) == content


def test_a_format_that_does_not_simply_grow_is_refused():
    with pytest.raises(UsageError) as raised:
        open_growing_sink("coco", Path(), INFO, "clip", keep_bytes=0)
    assert raised.value.message == "format 'coco' does not grow, expected one of jsonl, csv"


def test_a_stream_counts_its_bytes():
    stream = io.BytesIO()
    sink = open_stream("csv", stream, INFO)
    sink.write(*clip()[0])
    assert sink.bytes_written == len(stream.getvalue()) > 0


# --- Choosing formats ---------------------------------------------------------------------------


def test_the_outputs_of_a_video_are_planned_by_its_name():
    of_videos = [name for name, entry in SINKS.items() if not entry.labels]
    planned = [str(path) for path in planned_files(of_videos, "clip", video=True)]
    assert planned == [
        "clip.jsonl",
        "clip.csv",
        "clip.coco.json",
        "clip_json",
        "clip.parquet",
        "clip_angles.csv",
        "clip_trc",
        "clip_c3d",
    ]


def test_only_records_and_rows_are_written_while_a_video_runs():
    assert GROWING == ["jsonl", "csv"]


@pytest.mark.parametrize(
    ("name", "package"), [("parquet", "pyarrow"), ("c3d", "c3d")], ids=["parquet", "c3d"]
)
def test_a_format_whose_package_is_missing_says_how_to_get_it(name, package, monkeypatch):
    monkeypatch.setattr("hrnet_cli.sinks.find_spec", lambda asked: None)
    check_formats(["jsonl", "csv", "coco", "openpose", "angles", "trc"])
    for use in (lambda: check_formats([name]), lambda: open_sink(name, Path(), INFO)):
        with pytest.raises(UsageError) as raised:
            use()
        assert raised.value.message == (
            f"format '{name}' needs the package {package}, which is not installed"
        )
        assert raised.value.hint == f"pip install 'hrnet-cli[{name}]'"


def test_motion_cannot_be_appended_to(tmp_path):
    check_formats(["jsonl", "parquet", "angles"], append=True)
    append = RunInfo("starter", "yolo26s", keypoint_threshold=0.3, append=True)
    for use in (
        lambda: check_formats(["trc"], append=True),
        lambda: open_sink("trc", tmp_path, append),
    ):
        with pytest.raises(UsageError) as raised:
            use()
        assert raised.value.message == (
            "format 'trc' cannot be added to by --append: it holds the motion of one video"
        )
        assert raised.value.hint == "name another folder with --out"


def test_motion_takes_no_photos():
    check_formats(["jsonl", "angles"], photos=True)
    with pytest.raises(UsageError) as raised:
        check_formats(["jsonl", "c3d"], photos=True)
    assert raised.value.message == "format 'c3d' holds motion over time and takes no photos"
    assert raised.value.hint == "name videos only, or leave c3d out of --format"


@pytest.mark.parametrize("name", ["labels", "yolo"])
def test_labels_take_no_videos(name):
    check_formats([name], photos=True)
    with pytest.raises(UsageError) as raised:
        check_formats(["jsonl", name], photos=True, videos=True)
    assert raised.value.message == (
        f"format '{name}' labels photos and takes no videos, whose frames are no files"
    )
    assert raised.value.hint.endswith(f"or leave {name} out of --format")


def test_every_extra_of_a_format_is_declared():
    text = (Path(__file__).parents[2] / "pyproject.toml").read_text("utf-8")
    for entry in SINKS.values():
        if entry.package:
            assert re.search(rf'^{entry.extra} = \["{entry.package}>=', text, re.MULTILINE)


# --- COCO and OpenPose --------------------------------------------------------------------------


def test_coco_tells_frames_apart(tmp_path):
    pictures = [
        (video_frame(4, "sub/7.mp4"), make_poses(2, track_ids_N=np.array([1, 6]))),
        (video_frame(6, "sub/7.mp4"), make_poses(1, track_ids_N=np.array([6]))),
    ]
    write("coco", tmp_path, pictures)
    entries = json.loads((tmp_path / "clip.coco.json").read_text("utf-8"))
    assert [(entry["image_id"], entry["file_name"], entry["track_id"]) for entry in entries] == [
        (5, "sub/7_000000000004", 1),
        (5, "sub/7_000000000004", 6),
        (7, "sub/7_000000000006", 6),
    ]


def test_coco_gives_frames_of_a_second_video_other_numbers(tmp_path):
    append = RunInfo("starter", "yolo26s", keypoint_threshold=0.3, append=True)
    write("coco", tmp_path, [(video_frame(i, "a.mp4"), make_poses(1)) for i in range(2)])
    write("coco", tmp_path, [(video_frame(i, "b.mp4"), make_poses(1)) for i in range(2)], append)
    entries = json.loads((tmp_path / "clip.coco.json").read_text("utf-8"))
    assert [entry["image_id"] for entry in entries] == [1, 2, 3, 4]


def pose2sim_frame(name: str) -> int:
    """Return the frame that Pose2Sim takes a file for: the last number in its name."""
    return int(re.split(r"(\d+)", name)[-2])


@pytest.mark.parametrize("name", ["cam1.mp4", "in/cam1_4k60.mp4", "2026-11-25.mov", "cam 1"])
def test_openpose_lays_a_video_out_as_pose2sim_reads_it(tmp_path, name):
    pictures = [(video_frame(i, name), make_poses(people)) for i, people in [(0, 2), (11, 0)]]
    write("openpose", tmp_path, pictures)
    # Pose2Sim looks for folders with "json" in their name, and for .json files right in them.
    (folder,) = tmp_path.iterdir()
    assert folder.name == "clip_json"
    files = sorted(folder.iterdir())
    assert [path.suffix for path in files] == [".json", ".json"]
    assert [pose2sim_frame(path.name) for path in files] == [0, 11]
    stem = Path(name).stem
    assert files[1].name == f"{stem}_000000000011_keypoints.json"
    people = [json.loads(path.read_bytes())["people"] for path in files]
    assert [len(person["pose_keypoints_2d"]) for person in people[0]] == [51, 51]
    assert people[1] == []


def test_openpose_removes_frames_of_a_longer_run_before_but_nothing_else(tmp_path):
    write("openpose", tmp_path, clip(5))
    folder = tmp_path / "clip_json"
    (folder / "notes.json").write_text("{}")
    write("openpose", tmp_path, clip(2))
    assert sorted(content_of(folder)) == [
        "clip_000000000000_keypoints.json",
        "clip_000000000001_keypoints.json",
        "notes.json",
    ]


def test_openpose_never_removes_what_was_made_of_photos(tmp_path):
    for _ in range(2):
        sink = open_sink("openpose", tmp_path, INFO)
        sink.write(make_frame("a_000000000001.jpg"), make_poses(1))
        sink.close()
        open_sink("openpose", tmp_path, INFO).close()
    assert list(content_of(tmp_path / "openpose")) == ["a_000000000001_keypoints.json"]
