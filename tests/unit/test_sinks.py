import csv
import errno
import io
import json
import os
import re
import subprocess
import sys
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from builders import make_frame, make_poses
from hrnet_cli.angles import ANGLES
from hrnet_cli.errors import ExitCode, OutputError, UsageError
from hrnet_cli.images import read_image
from hrnet_cli.schema import KeypointSchema, load_schema
from hrnet_cli.sinks import (
    SINKS,
    RunInfo,
    files,
    open_sink,
    open_stream,
    overlay,
    picture_name,
    planned_files,
)
from hrnet_cli.sinks.coco import results
from hrnet_cli.sinks.csv import COLUMNS
from hrnet_cli.sinks.openpose import document
from hrnet_cli.sinks.overlay import open_overlay
from hrnet_cli.sinks.record import record, to_json
from hrnet_cli.structures import Boxes, Poses

INFO = RunInfo("starter", "yolo26s", keypoint_threshold=0.3)
APPEND = RunInfo("starter", "yolo26s", keypoint_threshold=0.3, append=True)
DROP_LOW = RunInfo("starter", "yolo26s", keypoint_threshold=0.3, drop_low=True)

# Motion formats take no photos; test_sinks_motion.py is about them.
PHOTO_FORMATS = [name for name, entry in SINKS.items() if not entry.motion]
# These have written each picture before the next one comes.
DIRECT_FORMATS = [name for name in PHOTO_FORMATS if name not in ("parquet", "labels")]

TWO_POINTS = KeypointSchema("two", ("tip", "tail"), skeleton=(("tip", "tail"),))


def small_poses(**fields) -> Poses:
    """One person of two keypoints: one inside the 64x48 picture, one below the threshold."""
    values = {
        "keypoints_NK2": np.array([[[10.12345, 20.5], [70.0, -3.0]]]),
        "scores_NK": np.array([[0.87654, 0.2]]),
        "person_scores_N": np.array([0.48434]),
        "boxes": Boxes(np.array([[1.0, 2.25, 33.5, 40.0]]), np.array([0.9])),
        "schema": TWO_POINTS,
    }
    return Poses(**(values | fields))


def write_all(name, folder, frames_and_poses, info=INFO):
    sink = open_sink(name, folder, info)
    for frame, poses in frames_and_poses:
        sink.write(frame, poses)
    sink.close()


def read(path: Path) -> str:
    return path.read_bytes().decode("utf-8")


def written(folder: Path) -> dict[str, bytes]:
    """Return the content of every file below a folder."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def people_in(name, folder) -> int:
    """Count the people that were written, with the reader each format is made for."""
    path = folder / planned_files([name])[0]
    if name == "jsonl":
        return sum(len(json.loads(line)["people"]) for line in read(path).splitlines())
    if name == "parquet":
        table = pq.read_table(path).to_pydict()
        return len(set(zip(table["source"], table["person"], strict=True)))
    if name in ("csv", "angles"):
        rows = csv.DictReader(io.StringIO(read(path)))
        return len({(row["source"], row["person"]) for row in rows})
    if name == "coco":
        return len(json.loads(read(path)))
    if name == "labels":
        return len(json.loads(read(path))["annotations"])
    if name == "yolo":
        return sum(len(read(file).splitlines()) for file in path.rglob("labels/**/*.txt"))
    return sum(len(json.loads(read(file))["people"]) for file in path.rglob("*_keypoints.json"))


# --- What every format keeps to -----------------------------------------------------------------


@pytest.mark.parametrize("name", PHOTO_FORMATS)
def test_writes_people_nobody_and_names_of_all_scripts(name, tmp_path):
    frames = [
        (make_frame("Füße 人.jpg"), make_poses(2)),
        (make_frame("empty.jpg"), make_poses(0)),
        (make_frame("sub/one.png"), make_poses(1, track_ids_N=np.array([7]))),
    ]
    write_all(name, tmp_path / "new" / "out", frames)
    assert people_in(name, tmp_path / "new" / "out") == 3


@pytest.mark.parametrize("name", PHOTO_FORMATS)
def test_a_run_without_any_picture_leaves_readable_output(name, tmp_path):
    write_all(name, tmp_path, [])
    assert people_in(name, tmp_path) == 0


@pytest.mark.parametrize("name", PHOTO_FORMATS)
def test_closing_twice_does_no_harm(name, tmp_path):
    sink = open_sink(name, tmp_path, INFO)
    sink.write(make_frame(), make_poses(1))
    sink.close()
    before = written(tmp_path)
    sink.close()
    assert written(tmp_path) == before


@pytest.mark.parametrize("name", PHOTO_FORMATS)
def test_appending_keeps_what_was_there(name, tmp_path):
    write_all(name, tmp_path, [(make_frame("a.jpg"), make_poses(1))])
    write_all(name, tmp_path, [(make_frame("b.jpg"), make_poses(2))], APPEND)
    assert people_in(name, tmp_path) == 3


@pytest.mark.parametrize("name", PHOTO_FORMATS)
def test_appending_to_nothing_starts_anew(name, tmp_path):
    write_all(name, tmp_path, [(make_frame("a.jpg"), make_poses(2))], APPEND)
    assert people_in(name, tmp_path) == 2


@pytest.mark.parametrize("name", PHOTO_FORMATS)
def test_writing_anew_replaces_an_earlier_run(name, tmp_path):
    write_all(name, tmp_path, [(make_frame("a.jpg"), make_poses(2))])
    write_all(name, tmp_path, [(make_frame("a.jpg"), make_poses(1))])
    assert people_in(name, tmp_path) == 1


@pytest.mark.parametrize("name", PHOTO_FORMATS)
def test_the_planned_path_is_the_written_one(name, tmp_path):
    write_all(name, tmp_path, [(make_frame(), make_poses(1))])
    assert [path.name for path in tmp_path.iterdir()] == [str(planned_files([name])[0])]


@pytest.mark.parametrize("name", PHOTO_FORMATS)
def test_names_that_are_not_utf8_are_written(name, tmp_path):
    frame = make_frame(os.fsdecode(b"caf\xe9.jpg"))
    write_all(name, tmp_path, [(frame, make_poses(1))])
    assert people_in(name, tmp_path) == 1


@pytest.mark.parametrize("name", PHOTO_FORMATS)
def test_numbers_that_are_not_finite_leave_readable_output(name, tmp_path):
    poses = small_poses(
        keypoints_NK2=np.array([[[np.nan, 1.0], [np.inf, 2.0]]]),
        person_scores_N=np.array([np.nan]),
        boxes=Boxes(np.array([[np.nan, 0.0, 1.0, 1.0]]), np.array([np.inf])),
    )
    write_all(name, tmp_path, [(make_frame(), poses)])
    assert people_in(name, tmp_path) == 1
    text = b" ".join(written(tmp_path).values()).lower()
    assert not re.search(rb"\b(nan|inf|infinity)\b", text)


# --- When writing fails -------------------------------------------------------------------------


def disk_full_after(monkeypatch, allowed_bytes):
    """Let both ways of writing, in place and by renaming, fail like on a full disk.

    Bytes inside a file have their room already; only growing takes more.
    """
    real_write = os.write
    left = allowed_bytes

    def write(descriptor, data):
        nonlocal left
        inside = os.fstat(descriptor).st_size - os.lseek(descriptor, 0, os.SEEK_CUR)
        if inside + left <= 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        count = real_write(descriptor, data[: inside + left])
        left -= max(0, count - inside)
        return count

    def replace(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(files.os, "write", write)
    monkeypatch.setattr(Path, "replace", replace)


def test_a_name_too_long_for_its_output_is_told_with_what_to_do(tmp_path):
    sink = open_sink("openpose", tmp_path, INFO)
    with pytest.raises(OutputError, match="File name too long") as raised:
        sink.write(make_frame("x" * 250 + ".jpg"), make_poses(1))
    assert raised.value.hint.startswith("give the photo or video a shorter name")


@pytest.mark.parametrize("name", DIRECT_FORMATS)
def test_a_full_disk_is_named_and_takes_nothing_back(name, tmp_path, monkeypatch):
    sink = open_sink(name, tmp_path, INFO)
    sink.write(make_frame("a.jpg"), make_poses(1))
    before = len(written(tmp_path))
    with monkeypatch.context() as patch:
        disk_full_after(patch, allowed_bytes=50)
        with pytest.raises(OutputError) as raised:
            sink.write(make_frame("b.jpg"), make_poses(2))
    assert raised.value.exit_code == ExitCode.OUTPUT == 8
    assert raised.value.message.startswith(f"cannot write '{tmp_path / planned_files([name])[0]}")
    assert raised.value.message.endswith(": No space left on device")
    assert raised.value.hint.startswith("make room, or ")
    sink.close()
    assert people_in(name, tmp_path) == 1
    assert len(written(tmp_path)) == before


@pytest.mark.skipif(sys.platform == "win32", reason="file size limits are POSIX")
@pytest.mark.parametrize("name", ["jsonl", "csv", "coco", "angles"])
def test_a_real_partial_write_is_taken_back(name, tmp_path):
    # The limit makes the kernel write a part of the block and refuse the rest.
    import resource

    sink = open_sink(name, tmp_path, INFO)
    sink.write(make_frame("a.jpg"), make_poses(1))
    size = next(path.stat().st_size for path in tmp_path.iterdir())
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size + 100, limits[1]))
    try:
        with pytest.raises(OutputError, match="File too large"):
            sink.write(make_frame("b.jpg"), make_poses(2))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert next(path.stat().st_size for path in tmp_path.iterdir()) == size
    sink.write(make_frame("c.jpg"), make_poses(3))
    sink.close()
    assert people_in(name, tmp_path) == 4


@pytest.mark.parametrize("name", DIRECT_FORMATS)
def test_ctrl_c_within_a_write_leaves_whole_entries(name, tmp_path, monkeypatch):
    real_write = os.write

    def interrupt(*_):
        raise KeyboardInterrupt

    def write_half_and_interrupt(descriptor, data):
        patch.setattr(files.os, "write", real_write)
        real_write(descriptor, data[: len(data) // 2])
        raise KeyboardInterrupt

    sink = open_sink(name, tmp_path, INFO)
    sink.write(make_frame("a.jpg"), make_poses(1))
    with monkeypatch.context() as patch:
        patch.setattr(files.os, "write", write_half_and_interrupt)
        patch.setattr(Path, "replace", interrupt)
        with pytest.raises(KeyboardInterrupt):
            sink.write(make_frame("b.jpg"), make_poses(2))
    sink.close()
    assert people_in(name, tmp_path) == 1


@pytest.mark.parametrize("name", SINKS)
def test_a_folder_without_permission_is_named(name, tmp_path, monkeypatch):
    def refuse(path, *_, **__):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))

    monkeypatch.setattr(Path, "mkdir", refuse)
    with pytest.raises(OutputError) as raised:
        open_sink(name, tmp_path / "out", INFO)
    assert raised.value.message.startswith(f"cannot write '{tmp_path / 'out'}")
    assert raised.value.message.endswith(": Permission denied")
    assert raised.value.hint == "name a folder you may write to with --out"


@pytest.mark.parametrize("name", SINKS)
def test_an_output_folder_that_is_a_file_is_named(name, tmp_path):
    (tmp_path / "out").write_text("a file")
    with pytest.raises(OutputError, match=r"cannot write '.*out.*': (File exists|Not a directory)"):
        open_sink(name, tmp_path / "out", INFO)


@pytest.mark.skipif(sys.platform == "win32", reason="Windows keeps open files in place")
@pytest.mark.parametrize("name", DIRECT_FORMATS)
def test_a_folder_removed_during_the_run_is_named(name, tmp_path):
    folder = tmp_path / "out"
    sink = open_sink(name, folder, INFO)
    folder.rename(tmp_path / "elsewhere")
    with pytest.raises(OutputError, match=r"cannot write '.*': .*removed during the run") as raised:
        sink.write(make_frame(), make_poses(1))
    assert raised.value.hint == "the output folder must stay in place while hrnet runs"
    assert not folder.exists()


# --- Choosing formats ---------------------------------------------------------------------------


def test_planned_files_take_the_stem():
    assert planned_files(["jsonl", "csv", "coco", "openpose"], stem="clip") == [
        Path("clip.jsonl"),
        Path("clip.csv"),
        Path("clip.coco.json"),
        Path("openpose"),
    ]


def test_an_unknown_format_is_named():
    with pytest.raises(UsageError) as raised:
        planned_files(["jsnl"])
    assert raised.value.message == (
        "output format 'jsnl' is not known, expected one of jsonl, csv, coco, openpose, parquet,"
        " angles, labels, yolo, trc, c3d"
    )
    assert raised.value.hint == "did you mean 'jsonl'?"
    assert raised.value.exit_code == 2


def test_naming_the_formats_loads_nothing_heavy():
    code = "import sys, hrnet_cli.sinks; print({'numpy', 'cv2', 'torch', 'PIL'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"


@pytest.mark.parametrize("name", [name for name, entry in SINKS.items() if entry.open_stream])
def test_a_stream_receives_what_the_file_holds(name, tmp_path):
    pictures = [(make_frame("a.jpg"), make_poses(2)), (make_frame("b.jpg"), make_poses(0))]
    write_all(name, tmp_path, pictures)
    stream = io.BytesIO()
    sink = open_stream(name, stream, INFO)
    for frame, poses in pictures:
        sink.write(frame, poses)
    sink.close()
    assert not stream.closed
    assert stream.getvalue() == (tmp_path / planned_files([name])[0]).read_bytes()


def test_a_format_that_is_no_stream_is_refused():
    with pytest.raises(UsageError) as raised:
        open_stream("coco", io.BytesIO(), INFO)
    assert raised.value.message == "format 'coco' cannot be streamed, expected one of jsonl, csv"


def test_a_stream_that_fails_is_named_and_a_closed_pipe_passes():
    class Broken(io.RawIOBase):
        def __init__(self, error):
            self.error = error

        def write(self, _):
            raise self.error

    full = Broken(OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)))
    with pytest.raises(OutputError, match=r"^cannot write 'stdout': No space left on device$"):
        open_stream("jsonl", full, INFO).write(make_frame(), make_poses(0))
    with pytest.raises(BrokenPipeError):
        open_stream("jsonl", Broken(BrokenPipeError()), INFO).write(make_frame(), make_poses(0))


# --- The record ---------------------------------------------------------------------------------


def test_jsonl_line_is_exactly_as_documented(tmp_path):
    frame = make_frame("sub/photo.jpg", source="in/sub/photo.jpg", orientation=6)
    write_all("jsonl", tmp_path, [(frame, small_poses()), (make_frame("b.jpg"), make_poses(0))])
    assert read(tmp_path / "poses.jsonl") == (
        '{"schema":"hrnet-poses/1","source":"in/sub/photo.jpg","frame":0,"time_s":null,'
        '"width":64,"height":48,"orientation":6,"keypoint_schema":"two","model":"starter",'
        '"detector":"yolo26s","keypoint_names":["tip","tail"],"people":[{"id":null,'
        '"box":[1.0,2.25,33.5,40.0],"box_score":0.9,"score":0.48434,'
        '"keypoints":[[10.123,20.5,0.8765],[70.0,-3.0,0.2]],"in_frame":[true,false]}]}\n'
        '{"schema":"hrnet-poses/1","source":"b.jpg","frame":0,"time_s":null,"width":64,'
        '"height":48,"orientation":1,"keypoint_schema":"coco17","model":"starter",'
        '"detector":"yolo26s","people":[]}\n'
    )


def test_ids_and_times_are_written():
    frame = make_frame(index=5, time_s=1 / 3)
    fields = record(frame, small_poses(track_ids_N=np.array([12])), INFO)
    assert (fields["frame"], fields["time_s"], fields["people"][0]["id"]) == (5, 0.333333, 12)


def test_low_keypoints_are_dropped_only_when_asked():
    kept = record(make_frame(), small_poses(), INFO)["people"][0]
    dropped = record(make_frame(), small_poses(), DROP_LOW)["people"][0]
    assert kept["keypoints"][1] == [70.0, -3.0, 0.2]
    assert dropped["keypoints"] == [[10.123, 20.5, 0.8765], None]


def test_a_keypoint_at_the_threshold_is_no_low_one():
    poses = small_poses(scores_NK=np.array([[0.3, 0.29999]]))
    info = RunInfo("m", "d", keypoint_threshold=0.3, drop_low=True)
    keypoints = record(make_frame(), poses, info)["people"][0]["keypoints"]
    assert [triple is not None for triple in keypoints] == [True, False]


@pytest.mark.parametrize(
    ("xy", "inside"),
    [
        ((0, 0), True),
        ((63, 47), True),
        ((-0.5, -0.5), True),
        ((63.49, 47.49), True),
        ((-0.51, 0), False),
        ((0, -0.51), False),
        ((63.5, 0), False),
        ((0, 47.5), False),
    ],
)
def test_in_frame_means_on_a_pixel_of_the_64x48_picture(xy, inside):
    poses = small_poses(keypoints_NK2=np.array([[xy, xy]]))
    assert record(make_frame(), poses, INFO)["people"][0]["in_frame"] == [inside, inside]


def test_a_keypoint_left_out_is_not_in_frame():
    poses = small_poses(keypoints_NK2=np.full((1, 2, 2), 5.0))
    assert record(make_frame(), poses, DROP_LOW)["people"][0]["in_frame"] == [True, False]


def test_rounding_leaves_no_negative_zero():
    poses = small_poses(keypoints_NK2=np.array([[[-0.0001, 0.0], [-0.0, 1.0]]]))
    keypoints = record(make_frame(), poses, INFO)["people"][0]["keypoints"]
    assert str(keypoints[0][0]) == str(keypoints[1][0]) == "0.0"


def test_names_explain_a_schema_that_only_borrows_a_built_in_name():
    borrowed = KeypointSchema("coco17", ("tip", "tail"))
    assert record(make_frame(), make_poses(1, borrowed), INFO)["keypoint_names"] == ["tip", "tail"]
    assert "keypoint_names" not in record(make_frame(), make_poses(1), INFO)


def test_a_name_that_is_not_utf8_comes_back_from_json(tmp_path):
    source = os.fsdecode(b"caf\xe9.jpg")
    write_all("jsonl", tmp_path, [(make_frame(source), make_poses(0))])
    assert json.loads(read(tmp_path / "poses.jsonl"))["source"] == source


# --- Appending lines ----------------------------------------------------------------------------


def one_record(tmp_path, name) -> bytes:
    write_all("jsonl", tmp_path, [(make_frame(name), make_poses(1))])
    return (tmp_path / "poses.jsonl").read_bytes()


@pytest.mark.parametrize("kept_bytes", [1, 20, 200, -2])
def test_a_last_line_cut_by_a_crash_is_removed(tmp_path, kept_bytes):
    a, b = one_record(tmp_path, "a.jpg"), one_record(tmp_path, "b.jpg")
    (tmp_path / "poses.jsonl").write_bytes(a + b[:kept_bytes])
    write_all("jsonl", tmp_path, [(make_frame("b.jpg"), make_poses(1))], APPEND)
    assert (tmp_path / "poses.jsonl").read_bytes() == a + b


def test_a_whole_last_line_without_its_newline_is_kept(tmp_path):
    a, b = one_record(tmp_path, "a.jpg"), one_record(tmp_path, "b.jpg")
    (tmp_path / "poses.jsonl").write_bytes(a.rstrip(b"\n"))
    write_all("jsonl", tmp_path, [(make_frame("b.jpg"), make_poses(1))], APPEND)
    assert (tmp_path / "poses.jsonl").read_bytes() == a + b


@pytest.mark.parametrize("cut", [10, 40])
def test_a_file_of_one_cut_line_starts_anew(tmp_path, cut):
    a = one_record(tmp_path, "a.jpg")
    (tmp_path / "poses.jsonl").write_bytes(a[:cut])
    write_all("jsonl", tmp_path, [(make_frame("a.jpg"), make_poses(1))], APPEND)
    assert (tmp_path / "poses.jsonl").read_bytes() == a


def test_a_cut_line_longer_than_one_scan_is_removed(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "_SCAN_BYTES", 16)
    a = one_record(tmp_path, "a.jpg")
    (tmp_path / "poses.jsonl").write_bytes(a + a[:-40])
    write_all("jsonl", tmp_path, [], APPEND)
    assert (tmp_path / "poses.jsonl").read_bytes() == a


def test_appending_to_something_else_is_refused_and_leaves_it_alone(tmp_path):
    path = tmp_path / "poses.jsonl"
    path.write_text('{"schema":"hrnet-poses/9"}\nnot a line of ours')
    with pytest.raises(OutputError) as raised:
        open_sink("jsonl", tmp_path, APPEND)
    assert raised.value.message == (
        f"cannot append to '{path}': it starts with b'{{\"schema\":\"hrnet-poses/9\"',"
        ' expected b\'{"schema":"hrnet-poses/1"\''
    )
    assert raised.value.hint == ("replace it with --overwrite, or name another folder with --out")
    assert path.read_text().endswith("not a line of ours")


# --- CSV ----------------------------------------------------------------------------------------


def test_csv_is_exactly_as_documented(tmp_path):
    frame = make_frame("a, b.jpg")
    write_all("csv", tmp_path, [(frame, small_poses()), (make_frame(), make_poses(0))])
    assert read(tmp_path / "poses.csv") == (
        "source,frame,time_s,person,id,box_x1,box_y1,box_x2,box_y2,box_score,person_score,"
        "keypoint,x,y,score,in_frame,pts,x_raw,y_raw,flags\n"
        '"a, b.jpg",0,,0,,1.0,2.25,33.5,40.0,0.9,0.48434,tip,10.123,20.5,0.8765,true,,,,\n'
        '"a, b.jpg",0,,0,,1.0,2.25,33.5,40.0,0.9,0.48434,tail,70.0,-3.0,0.2,false,,,,\n'
    )


def test_csv_leaves_dropped_keypoints_as_empty_cells(tmp_path):
    poses = small_poses(track_ids_N=np.array([3]))
    write_all("csv", tmp_path, [(make_frame(), poses)], DROP_LOW)
    row = read(tmp_path / "poses.csv").splitlines()[2]
    assert row == "photo.jpg,0,,0,3,1.0,2.25,33.5,40.0,0.9,0.48434,tail,,,,false,,,,"


def test_csv_appends_without_a_second_header_and_repairs_a_cut_row(tmp_path):
    write_all("csv", tmp_path, [(make_frame("a.jpg"), small_poses())])
    path = tmp_path / "poses.csv"
    whole = path.read_bytes()
    path.write_bytes(whole + b"b.jpg,0,,0,,1.0,2.2")
    write_all("csv", tmp_path, [(make_frame("b.jpg"), small_poses())], APPEND)
    rows = list(csv.DictReader(io.StringIO(read(path))))
    assert [(row["source"], row["keypoint"]) for row in rows] == [
        ("a.jpg", "tip"),
        ("a.jpg", "tail"),
        ("b.jpg", "tip"),
        ("b.jpg", "tail"),
    ]


@pytest.mark.parametrize("cut", [0, 20])
def test_csv_with_a_cut_header_starts_anew(tmp_path, cut):
    (tmp_path / "poses.csv").write_bytes(",".join(COLUMNS).encode()[:cut])
    write_all("csv", tmp_path, [(make_frame(), small_poses())], APPEND)
    assert len(list(csv.DictReader(io.StringIO(read(tmp_path / "poses.csv"))))) == 2


def test_csv_with_other_columns_is_refused(tmp_path):
    (tmp_path / "poses.csv").write_text("image,x,y\na.jpg,1,2\n")
    with pytest.raises(OutputError, match=r"poses.csv': it starts with b'image,x,y"):
        open_sink("csv", tmp_path, APPEND)


# --- COCO ---------------------------------------------------------------------------------------


def test_coco_is_exactly_as_documented(tmp_path):
    pictures = [
        (make_frame("000000000139.jpg"), small_poses()),
        (make_frame("photo.jpg"), small_poses(track_ids_N=np.array([4]))),
    ]
    write_all("coco", tmp_path, pictures, DROP_LOW)
    assert read(tmp_path / "poses.coco.json") == (
        "[\n"
        '{"image_id":139,"file_name":"000000000139.jpg","category_id":1,'
        '"keypoints":[10.123,20.5,0.8765,0.0,0.0,0.0],"score":0.48434,'
        '"bbox":[1.0,2.25,32.5,37.75]},\n'
        '{"image_id":1,"file_name":"photo.jpg","category_id":1,'
        '"keypoints":[10.123,20.5,0.8765,0.0,0.0,0.0],"score":0.48434,'
        '"bbox":[1.0,2.25,32.5,37.75],"track_id":4}\n'
        "]\n"
    )


def test_coco_with_nobody_is_an_empty_list(tmp_path):
    write_all("coco", tmp_path, [(make_frame(), make_poses(0))])
    assert read(tmp_path / "poses.coco.json") == "[\n]\n"


def coco_ids(folder) -> list[tuple[str, int]]:
    entries = json.loads(read(folder / "poses.coco.json"))
    return [(entry["file_name"], entry["image_id"]) for entry in entries]


def test_coco_numbers_are_unique_and_stable(tmp_path):
    names = ["a.jpg", "1.jpg", "nobody.jpg", "b.jpg", "x/7.jpg", "y/7.jpg", "²³.jpg", "a.jpg"]
    people = [1, 1, 0, 1, 1, 1, 1, 1]
    frames = [(make_frame(name), make_poses(n)) for name, n in zip(names, people, strict=True)]
    write_all("coco", tmp_path, frames)
    assert coco_ids(tmp_path) == [
        ("a.jpg", 1),
        ("1.jpg", 2),
        ("b.jpg", 4),
        ("x/7.jpg", 7),
        ("y/7.jpg", 5),
        ("²³.jpg", 6),
        ("a.jpg", 1),
    ]


def test_coco_numbers_the_frames_of_a_video(tmp_path):
    frames = [(make_frame("7.mp4", index=i, time_s=i / 30), make_poses(1)) for i in range(3)]
    write_all("coco", tmp_path, frames)
    assert [image_id for _, image_id in coco_ids(tmp_path)] == [1, 2, 3]


def test_coco_appending_goes_on_with_the_numbers(tmp_path):
    first = [("nobody.jpg", 0), ("a.jpg", 1), ("b.jpg", 1)]
    write_all("coco", tmp_path, [(make_frame(name), make_poses(n)) for name, n in first])
    more = [(make_frame(name), make_poses(1)) for name in ("c.jpg", "a.jpg")]
    write_all("coco", tmp_path, more, APPEND)
    assert coco_ids(tmp_path) == [("a.jpg", 2), ("b.jpg", 3), ("c.jpg", 4), ("a.jpg", 2)]


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ('[{"image_id":1},', r"not readable as JSON: .*line 1 column"),
        ('{"images":[]}', r"it holds a dict, expected a list$"),
        ('[{"image_id":1},{"image_id":"a"}]', r"entry 1 has no whole number as 'image_id'$"),
        ('[{"image_id":1,"score":NaN}]', r"not readable as JSON: NaN is no JSON number$"),
        ("\x00\xff", r"not readable as JSON"),
    ],
)
def test_coco_refuses_to_append_to_a_damaged_file(tmp_path, content, reason):
    path = tmp_path / "poses.coco.json"
    path.write_bytes(content.encode("latin-1"))
    with pytest.raises(OutputError, match=rf"cannot append to '.*poses.coco.json': {reason}"):
        open_sink("coco", tmp_path, APPEND)
    assert written(tmp_path) == {"poses.coco.json": content.encode("latin-1")}


def test_coco_keeps_the_earlier_file_until_the_end_and_a_valid_list_beside_it(tmp_path):
    write_all("coco", tmp_path, [(make_frame("a.jpg"), make_poses(1))])
    before = read(tmp_path / "poses.coco.json")
    sink = open_sink("coco", tmp_path, INFO)
    part = tmp_path / "poses.coco.json.part"
    assert json.loads(read(part)) == []
    for number in (1, 2):
        sink.write(make_frame(f"{number}.jpg"), make_poses(1))
        assert len(json.loads(read(part))) == number
    assert read(tmp_path / "poses.coco.json") == before
    sink.close()
    assert not part.exists()


def test_coco_says_where_the_results_are_when_they_cannot_be_put_in_place(tmp_path, monkeypatch):
    def refuse(*_):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    sink = open_sink("coco", tmp_path, INFO)
    sink.write(make_frame(), make_poses(2))
    monkeypatch.setattr(Path, "replace", refuse)
    with pytest.raises(OutputError) as raised:
        sink.close()
    path = tmp_path / "poses.coco.json"
    assert raised.value.message == (
        f"cannot write '{path}': Permission denied; the results are in '{path}.part'"
    )
    assert len(json.loads(read(Path(f"{path}.part")))) == 2


def test_coco_scores_perfectly_in_pycocotools_when_the_poses_are_the_truth(tmp_path):
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    poses = make_poses(2)
    write_all("coco", tmp_path, [(make_frame("000000000139.jpg"), poses)])
    path = str(tmp_path / "poses.coco.json")
    truth = COCO()
    truth.dataset = {
        "images": [{"id": 139, "width": 64, "height": 48}],
        "categories": [{"id": 1, "name": "person"}],
        "annotations": [
            {
                "id": number + 1,
                "image_id": 139,
                "category_id": 1,
                "iscrowd": 0,
                # Medium-sized for COCO, whatever the boxes of the drawing are.
                "area": 2000.0,
                "bbox": [float(20 * number), 0.0, 40.0, 50.0],
                "num_keypoints": 17,
                "keypoints": np.c_[points, np.full(17, 2)].ravel().tolist(),
            }
            for number, points in enumerate(poses.keypoints_NK2.astype(float))
        ],
    }
    truth.createIndex()
    found = truth.loadRes(path)
    first = found.loadAnns(found.getAnnIds(139))[0]
    np.testing.assert_allclose(
        np.reshape(first["keypoints"], (17, 3))[:, :2], poses.keypoints_NK2[0], atol=5e-4
    )
    scoring = COCOeval(truth, found, "keypoints")
    scoring.evaluate()
    scoring.accumulate()
    scoring.summarize()
    assert scoring.stats[0] == pytest.approx(1.0)


def test_results_can_be_had_without_a_file():
    entries = results(make_frame(), make_poses(2), INFO, image_id=9, file_name="x.jpg")
    assert [(entry["image_id"], entry["file_name"]) for entry in entries] == [(9, "x.jpg")] * 2
    assert len(entries[0]["keypoints"]) == 51


# --- OpenPose -----------------------------------------------------------------------------------


def test_openpose_is_exactly_as_documented(tmp_path):
    write_all("openpose", tmp_path, [(make_frame("sub/photo.jpg"), small_poses())], DROP_LOW)
    assert read(tmp_path / "openpose" / "sub" / "photo_keypoints.json") == (
        '{"version":1.3,"people":[{"person_id":[-1],'
        '"pose_keypoints_2d":[10.123,20.5,0.8765,0.0,0.0,0.0],"face_keypoints_2d":[],'
        '"hand_left_keypoints_2d":[],"hand_right_keypoints_2d":[],"pose_keypoints_3d":[],'
        '"face_keypoints_3d":[],"hand_left_keypoints_3d":[],"hand_right_keypoints_3d":[]}]}\n'
    )


def test_openpose_divides_whole_bodies_by_the_names_of_their_keypoints():
    names = load_schema("wholebody133").keypoints
    poses = make_poses(1, "wholebody133")
    # x is the number of the keypoint, so each part tells which keypoints it holds.
    person = document(make_frame(), poses, INFO)["people"][0]
    held = {
        part: [names[int(x)] for x in person[f"{part}_keypoints_2d"][0::3]]
        for part in ("pose", "face", "hand_left", "hand_right")
    }
    assert [len(part) for part in held.values()] == [23, 68, 21, 21]
    assert held["pose"] == list(names[:23])
    assert held["pose"][17:] == [
        "left_big_toe",
        "left_small_toe",
        "left_heel",
        "right_big_toe",
        "right_small_toe",
        "right_heel",
    ]
    assert held["face"] == [name for name in names if name.startswith("face-")]
    hand = [name for name in names[23:] if name.startswith("left_")]
    assert held["hand_left"] == hand
    assert held["hand_right"] == [name.replace("left_", "right_") for name in hand]


def test_openpose_writes_ids():
    poses = make_poses(2, track_ids_N=np.array([5, 8]))
    people = document(make_frame(), poses, INFO)["people"]
    assert [person["person_id"] for person in people] == [[5], [8]]


def openpose_names(folder) -> list[str]:
    return sorted(written(folder / "openpose"))


def test_openpose_never_writes_one_file_twice(tmp_path):
    names = ["a.jpg", "a.png", "A.webp", "sub/a.jpg", "a.png"]
    write_all("openpose", tmp_path, [(make_frame(name), make_poses(1)) for name in names])
    assert openpose_names(tmp_path) == [
        "A.webp_keypoints.json",
        "a-2_keypoints.json",
        "a.png_keypoints.json",
        "a_keypoints.json",
        "sub/a_keypoints.json",
    ]


def test_openpose_appending_leaves_earlier_files_alone(tmp_path):
    for people in (1, 2, 3):
        write_all("openpose", tmp_path, [(make_frame("a.jpg"), make_poses(people))], APPEND)
    counts = {
        name: len(json.loads(content)["people"])
        for name, content in written(tmp_path / "openpose").items()
    }
    assert counts == {
        "a_keypoints.json": 1,
        "a.jpg_keypoints.json": 2,
        "a-2_keypoints.json": 3,
    }


def test_openpose_numbers_the_frames_of_a_video(tmp_path):
    frames = [(make_frame("v.mp4", index=i, time_s=i / 30), make_poses(1)) for i in (0, 11)]
    write_all("openpose", tmp_path, frames)
    assert openpose_names(tmp_path) == [
        "v_000000000000_keypoints.json",
        "v_000000000011_keypoints.json",
    ]


@pytest.mark.parametrize("name", ["../a.jpg", "/tmp/a.jpg", "sub/../../a.jpg"])
def test_openpose_stays_in_its_folder(tmp_path, name):
    folder = tmp_path / "out"
    with pytest.raises(OutputError, match="is not a place below the output folder"):
        write_all("openpose", folder, [(make_frame(name), make_poses(1))])
    assert written(tmp_path) == {}


# --- Pictures -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "opaque", "transparent"),
    [
        ("a.jpg", "a.jpg", "a.jpg.png"),
        ("a.PNG", "a.PNG", "a.PNG"),
        ("sub/a.webp", "sub/a.webp", "sub/a.webp.png"),
        ("a.tiff", "a.tiff", "a.tiff.png"),
        ("a.heic", "a.heic.png", "a.heic.png"),
        ("a", "a.png", "a.png"),
    ],
)
def test_pictures_keep_suffixes_that_can_be_written(name, opaque, transparent):
    assert picture_name(name) == opaque
    assert picture_name(name, transparent=True) == transparent


def draw_pictures(folder, frames, **options):
    sink = open_overlay(folder, parts=("keypoints", "skeleton"), **options)
    for frame in frames:
        sink.write(frame, make_poses(1))
    sink.close()


def test_pictures_keep_their_relative_path_and_show_the_poses(tmp_path):
    draw_pictures(tmp_path / "out", [make_frame("sub/Füße.png"), make_frame("b.jpg")])
    assert sorted(written(tmp_path / "out")) == ["b.jpg", "sub/Füße.png"]
    image_HW3, _ = read_image(tmp_path / "out" / "sub" / "Füße.png")
    assert image_HW3.shape == (48, 64, 3)
    assert (image_HW3 != 128).any()


def test_pictures_of_nobody_are_written(tmp_path):
    sink = open_overlay(tmp_path, parts=("keypoints",))
    sink.write(make_frame("a.png"), make_poses(0))
    sink.close()
    image_HW3, _ = read_image(tmp_path / "a.png")
    assert (image_HW3 == 128).all()


def test_pictures_with_a_transparent_background_become_png(tmp_path, monkeypatch):
    monkeypatch.setattr(
        overlay, "draw_poses", lambda image_HW3, *_, **__: np.zeros((*image_HW3.shape[:2], 4), "u1")
    )
    draw_pictures(tmp_path, [make_frame("a.jpg")])
    assert written(tmp_path)["a.jpg.png"].startswith(b"\x89PNG")


def test_pictures_of_one_run_never_replace_each_other(tmp_path):
    draw_pictures(tmp_path, [make_frame("a.heic"), make_frame("a.heic.png"), make_frame("a.heic")])
    assert sorted(written(tmp_path)) == ["a.heic-2.png", "a.heic-3.png", "a.heic.png"]


def test_pictures_of_earlier_runs_are_replaced_or_kept(tmp_path):
    (tmp_path / "a.jpg").write_bytes(b"earlier")
    draw_pictures(tmp_path, [make_frame("a.jpg")], append=True)
    assert written(tmp_path)["a.jpg"] == b"earlier"
    draw_pictures(tmp_path, [make_frame("a.jpg")])
    pictures = written(tmp_path)
    assert sorted(pictures) == ["a-2.jpg", "a.jpg"]
    assert pictures["a.jpg"] == pictures["a-2.jpg"]


def test_a_picture_never_replaces_its_own_photo(tmp_path):
    photo = tmp_path / "a.jpg"
    photo.write_bytes(b"the photo")
    with pytest.raises(OutputError) as raised:
        draw_pictures(tmp_path, [make_frame("a.jpg", source=str(photo))])
    assert raised.value.message == f"the drawn picture would replace its own photo '{photo}'"
    assert photo.read_bytes() == b"the photo"


@pytest.mark.parametrize("name", ["../a.jpg", "/tmp/a.jpg"])
def test_pictures_stay_in_their_folder(tmp_path, name):
    with pytest.raises(OutputError) as raised:
        draw_pictures(tmp_path / "out", [make_frame(name)])
    assert raised.value.message == (
        f"'{name}' is not a place below the output folder '{tmp_path / 'out'}'"
    )
    assert written(tmp_path) == {}


def test_a_picture_that_cannot_be_written_is_named(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(overlay, "write_image", full)
    with pytest.raises(OutputError) as raised:
        draw_pictures(tmp_path, [make_frame("a.jpg")])
    assert raised.value.message == f"cannot write '{tmp_path / 'a.jpg'}': No space left on device"


def test_a_picture_folder_removed_during_the_run_is_named(tmp_path):
    sink = open_overlay(tmp_path / "out", parts=("keypoints",))
    (tmp_path / "out").rmdir()
    with pytest.raises(OutputError, match="the folder was removed during the run"):
        sink.write(make_frame(), make_poses(1))


# --- docs/output.md -----------------------------------------------------------------------------


def test_the_document_shows_what_is_written(tmp_path):
    # One keypoint, so that the numbers of the document fit on a line.
    schema = KeypointSchema("coco17", ("nose",))
    poses = Poses(
        keypoints_NK2=np.array([[[150.125, 80.5]]]),
        scores_NK=np.array([[0.9021]]),
        person_scores_N=np.array([0.812345]),
        boxes=Boxes(np.array([[101.5, 40.25, 220.0, 400.125]]), np.array([0.9312])),
        schema=schema,
    )
    info = RunInfo("hrnet-w32-256x192-udp", "yolo26s", keypoint_threshold=0.2)
    frame = make_frame("photo.jpg", source="in/photo.jpg", width=640, height=480)
    document = (Path(__file__).parents[2] / "docs" / "output.md").read_text(encoding="utf-8")
    (as_record, as_video, as_coco, as_labels) = re.findall(
        r"```json\n(.*?)```", document, re.DOTALL
    )
    (as_csv,) = re.findall(r"```text\n(.*?)```", document, re.DOTALL)

    fields = record(frame, poses, info)
    del fields["keypoint_names"]  # a built-in schema has none
    assert "".join(line.strip() for line in as_record.splitlines()) == to_json(fields).decode()
    timing = {"time_s": 0.48, "pts": 6144, "time_base": Fraction(1, 12800), "rotation": 90}
    video = make_frame(source="in/clip.mp4", width=640, height=480, index=12, **timing)
    tracked = replace(
        poses,
        track_ids_N=np.array([3]),
        raw_keypoints_NK2=np.array([[[151.75, 79.875]]], np.float32),
        flags_NK=np.zeros((1, 1), np.uint8),
    )
    fields = record(video, tracked, info)
    del fields["keypoint_names"]
    assert "".join(line.strip() for line in as_video.splitlines()) == to_json(fields).decode()
    write_all("csv", tmp_path, [(frame, poses)], info)
    assert as_csv == read(tmp_path / "poses.csv")
    write_all("coco", tmp_path, [(make_frame("000000000139.jpg"), poses)], info)
    assert as_coco == read(tmp_path / "poses.coco.json")
    write_all("labels", tmp_path, [(make_frame("000000000139.jpg", width=640, height=480), poses)])
    assert as_labels in read(tmp_path / "poses.labels.json")


def test_the_document_names_all_formats_and_angles():
    document = (Path(__file__).parents[2] / "docs" / "output.md").read_text(encoding="utf-8")
    for name, entry in SINKS.items():
        assert f"| `{name}`" in document
        path = entry.path if not entry.motion else entry.path.format(stem="clip")
        assert f"`{path.format(stem='poses', part='')}" in document
        if not entry.labels:
            assert f"`{(entry.video_path or entry.path).format(stem='clip')}" in document
    for angle in ANGLES:
        assert f"`{angle}`" in document
