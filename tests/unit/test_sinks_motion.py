"""TRC and C3D: one file for each person of a video."""

import errno
import io
import os
import warnings
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import c3d
import numpy as np
import pytest

from builders import make_frame, make_poses
from hrnet_cli.errors import InputError, OutputError
from hrnet_cli.records import Track, read_records
from hrnet_cli.schema import KeypointSchema
from hrnet_cli.sinks import SINKS, RunInfo, open_sink
from hrnet_cli.sinks.c3d import to_c3d

INFO = RunInfo("starter", "yolo26s", keypoint_threshold=0.3)
DROP_LOW = RunInfo("starter", "yolo26s", keypoint_threshold=0.3, drop_low=True)
MOTION = [name for name, entry in SINKS.items() if entry.motion]
TWO_POINTS = KeypointSchema("two", ("tip", "tail"))


def moment(index, people, *, scores=(0.9, 0.2), fps=25):
    """Return a frame 48 pixels high; person p's tip is at (10 * p + index, 1), tail at (p, 40.5).

    Args:
        index: Number of the frame.
        people: Ids; None stands for a person without one.
        scores: Of tip and tail.
        fps: Frames a second.
    """
    numbers = [person or 0 for person in people]
    keypoints = [[[10 * p + index, 1.0], [p, 40.5]] for p in numbers]
    ids = None if None in people or not people else np.array(people)
    poses = make_poses(
        len(people),
        TWO_POINTS,
        keypoints_NK2=np.array(keypoints).reshape(-1, 2, 2),
        scores_NK=np.tile(scores, (len(people), 1)).reshape(-1, 2),
        track_ids_N=ids,
    )
    return make_frame("clip.mp4", index=index, time_s=index / fps), poses


def write(name, folder, pictures, info=INFO):
    sink = open_sink(name, folder, info, "clip", video=True)
    for frame, poses in pictures:
        sink.write(frame, poses)
    sink.close()
    return folder / f"clip_{name}"


def names_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def read_trc(path) -> tuple[dict[str, str], list[str], np.ndarray, np.ndarray]:
    """Return header values, marker names, (frame, time) rows and (T, K, 3) points, as OpenSim does.

    OpenSim splits at tabs, drops an empty cell behind the last one, and wants 2 + 3 K cells.
    """
    lines = path.read_text("utf-8").split("\n")
    assert lines.pop() == ""
    cells = [line.split("\t") for line in lines]
    cells = [row[:-1] if row[-1] == "" else row for row in cells]
    assert cells[0][:3] == ["PathFileType", "4", "(X/Y/Z)"]
    header = dict(zip(cells[1], cells[2], strict=True))
    markers = [name for name in cells[3] if name]
    assert markers[:2] == ["Frame#", "Time"]
    markers = markers[2:]
    axes = [f"{axis}{number}" for number in range(1, len(markers) + 1) for axis in "XYZ"]
    assert [name for name in cells[4] if name] == axes
    assert cells[5] == []
    rows = cells[6:]
    assert {len(row) for row in rows} <= {2 + 3 * len(markers)}
    numbers = np.array([[float(cell) if cell else np.nan for cell in row] for row in rows])
    numbers = numbers.reshape(-1, 2 + 3 * len(markers))
    return header, markers, numbers[:, :2], numbers[:, 2:].reshape(len(rows), len(markers), 3)


def read_c3d(path) -> tuple[c3d.Reader, np.ndarray]:
    """Return the reader and (T, K, 4) x, y, z, residual."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        reader = c3d.Reader(io.BytesIO(path.read_bytes()))
        points = [points[:, :4].copy() for _, points, _ in reader.read_frames(check_nan=False)]
    return reader, np.array(points)


# --- Both ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", MOTION)
def test_each_person_has_a_file_called_by_its_id(name, tmp_path):
    folder = write(name, tmp_path, [moment(0, [7]), moment(1, [7, 12]), moment(2, [])])
    assert names_in(folder) == [f"clip_person12.{name}", f"clip_person7.{name}"]
    assert names_in(tmp_path) == [f"clip_{name}"]


@pytest.mark.parametrize("name", MOTION)
def test_one_person_needs_no_id(name, tmp_path):
    folder = write(name, tmp_path, [moment(0, [None]), moment(1, [])])
    assert names_in(folder) == [f"clip_person1.{name}"]


@pytest.mark.parametrize("name", MOTION)
@pytest.mark.parametrize("pictures", [[], [moment(0, []), moment(1, [])]], ids=["none", "nobody"])
def test_nobody_leaves_an_empty_folder(name, tmp_path, pictures):
    assert names_in(write(name, tmp_path, pictures)) == []


@pytest.mark.parametrize("name", MOTION)
def test_people_of_an_earlier_run_are_removed_and_other_files_kept(name, tmp_path):
    folder = write(name, tmp_path, [moment(0, [1, 2])])
    (folder / f"mine.{name}").write_text("kept")
    write(name, tmp_path, [moment(0, [2])])
    assert names_in(folder) == [f"clip_person2.{name}", f"mine.{name}"]


@pytest.mark.parametrize("name", MOTION)
def test_people_without_ids_and_photos_are_refused(name, tmp_path):
    sink = open_sink(name, tmp_path, INFO, "clip", video=True)
    sink.write(*moment(0, [None]))
    with pytest.raises(InputError) as raised:
        sink.write(*moment(1, [None, None]))
    assert raised.value.message == (
        "frame 1 of 'clip.mp4' shows 2 people without ids: motion needs --track"
    )
    assert raised.value.hint == "add --track, or choose another --format"
    with pytest.raises(InputError, match=r"^'p.jpg' is a photo, expected a video"):
        sink.write(make_frame("p.jpg"), make_poses(1, TWO_POINTS))
    sink.close()
    assert names_in(tmp_path / f"clip_{name}") == [f"clip_person1.{name}"]


@pytest.mark.parametrize("name", MOTION)
def test_files_made_from_records_read_back_are_the_same(name, tmp_path):
    pictures = [moment(i, [3, 4], fps=29.97) for i in range(5)]
    once = write(name, tmp_path / "once", pictures)
    write_records = open_sink("jsonl", tmp_path, INFO, "clip")
    for frame, poses in pictures:
        write_records.write(frame, poses)
    write_records.close()
    read = write(name, tmp_path / "read", read_records(tmp_path / "clip.jsonl"))
    for file in names_in(once):
        if name == "c3d":
            assert (once / file).read_bytes() == (read / file).read_bytes()
        else:
            assert (once / file).read_text() == (read / file).read_text()


@pytest.mark.parametrize("name", MOTION)
def test_a_full_disk_is_named(name, tmp_path, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    sink = open_sink(name, tmp_path, INFO, "clip", video=True)
    sink.write(*moment(0, [1]))
    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(OutputError) as raised:
        sink.close()
    path = tmp_path / f"clip_{name}" / f"clip_person1.{name}"
    assert raised.value.message == f"cannot write '{path}': No space left on device"
    assert names_in(path.parent) == []
    sink.close()


@pytest.mark.parametrize("name", MOTION)
def test_a_folder_removed_during_the_run_is_named(name, tmp_path):
    sink = open_sink(name, tmp_path / "out", INFO, "clip", video=True)
    sink.write(*moment(0, [1]))
    (tmp_path / "out").rename(tmp_path / "elsewhere")
    with pytest.raises(OutputError) as raised:
        sink.close()
    assert raised.value.message == (
        f"cannot write '{tmp_path / 'out' / f'clip_{name}'}': the folder was removed during the run"
    )
    assert not (tmp_path / "out").exists()


# --- TRC ----------------------------------------------------------------------------------------


def test_trc_is_exactly_as_opensim_reads_it(tmp_path):
    folder = write("trc", tmp_path, [moment(0, [2]), moment(1, []), moment(2, [2])], DROP_LOW)
    assert (folder / "clip_person2.trc").read_text("utf-8") == (
        "PathFileType\t4\t(X/Y/Z)\tclip_person2.trc\n"
        "DataRate\tCameraRate\tNumFrames\tNumMarkers\tUnits\tOrigDataRate\tOrigDataStartFrame\t"
        "OrigNumFrames\n"
        "25\t25\t3\t2\tpx\t25\t0\t3\n"
        "Frame#\tTime\ttip\t\t\ttail\t\t\t\n"
        "\t\tX1\tY1\tZ1\tX2\tY2\tZ2\t\n"
        "\n"
        "0\t0.0\t20.0\t46.0\t0.0\t\t\t\t\n"
        "1\t0.04\t\t\t\t\t\t\t\n"
        "2\t0.08\t22.0\t46.0\t0.0\t\t\t\t\n"
    )


def test_pixels_that_are_not_square_are_made_so(tmp_path):
    pictures = [moment(i, [1]) for i in range(2)]
    wide = [(replace(frame, pixel_aspect=Fraction(3, 2)), poses) for frame, poses in pictures]
    (tmp_path / "wide").mkdir()
    points = [
        read_trc(write("trc", folder, shown) / "clip_person1.trc")[3]
        for folder, shown in ((tmp_path, pictures), (tmp_path / "wide", wide))
    ]
    np.testing.assert_allclose(points[1], points[0] * [1.5, 1, 1])


def test_trc_holds_the_frames_that_show_a_person_with_y_up(tmp_path):
    pictures = [moment(i, [1] if i < 2 else [1, 5]) for i in range(4)]
    header, markers, times, points = read_trc(write("trc", tmp_path, pictures) / "clip_person5.trc")
    assert markers == ["tip", "tail"]
    assert (header["NumFrames"], header["OrigDataStartFrame"]) == ("2", "2")
    np.testing.assert_allclose(times, [[2, 0.08], [3, 0.12]])
    # The picture is 48 high: its top row is at y = 47.
    np.testing.assert_allclose(points[:, 0], [[52, 46, 0], [53, 46, 0]])
    np.testing.assert_allclose(points[:, 1], [[5, 6.5, 0]] * 2)


@pytest.mark.parametrize(
    ("count", "tick", "rate"), [(2, 256, 60), (3, 256, 60), (901, 256, 60), (3, 512, 30)]
)
def test_the_rate_is_exact_though_records_round_their_times(tmp_path, count, tick, rate):
    sink = open_sink("jsonl", tmp_path, INFO, "clip", video=True)
    for index in range(count):
        frame, poses = moment(index, [1], fps=15360 / tick)
        sink.write(replace(frame, pts=90 + tick * index, time_base=Fraction(1, 15360)), poses)
    sink.close()
    pictures = read_records(tmp_path / "clip.jsonl", schema=TWO_POINTS)
    folder = write("trc", tmp_path, pictures)
    header, *_ = read_trc(folder / "clip_person1.trc")
    assert float(header["DataRate"]) == rate


@pytest.mark.parametrize(
    ("fps", "rate"), [(25, "25"), (30000 / 1001, "29.97"), (60000 / 1001, "59.9401"), (7.5, "7.5")]
)
def test_trc_tells_the_mean_rate_of_the_video(tmp_path, fps, rate):
    pictures = [moment(i, [1] if i == 0 else [], fps=fps) for i in range(300)]
    header, *_ = read_trc(write("trc", tmp_path, pictures) / "clip_person1.trc")
    assert {header[key] for key in ("DataRate", "CameraRate", "OrigDataRate")} == {rate}


def test_trc_of_one_frame_has_a_rate(tmp_path):
    header, _, times, _ = read_trc(write("trc", tmp_path, [moment(3, [1])]) / "clip_person1.trc")
    assert (header["DataRate"], header["NumFrames"]) == ("1", "1")
    np.testing.assert_allclose(times, [[3, 0.12]])


# --- C3D ----------------------------------------------------------------------------------------


def test_c3d_holds_labels_rate_units_and_axes(tmp_path):
    pictures = [moment(i, [1], fps=29.97) for i in range(4)]
    reader, _ = read_c3d(write("c3d", tmp_path, pictures) / "clip_person1.c3d")
    assert [label.strip() for label in reader.point_labels] == ["tip", "tail"]
    assert reader.point_rate == pytest.approx(29.97)
    assert reader.get("POINT:UNITS").string_value.strip() == "px"
    assert reader.get_screen_axis() == ("+X", "+Y")
    assert (reader.first_frame, reader.frame_count) == (1, 4)


def test_c3d_points_have_y_up_and_missing_ones_a_negative_residual(tmp_path):
    pictures = [moment(0, [2]), moment(1, []), moment(2, [2])]
    folder = write("c3d", tmp_path, pictures, DROP_LOW)
    _, points = read_c3d(folder / "clip_person2.c3d")
    np.testing.assert_allclose(points[:, 0], [[20, 46, 0, 0], [0, 0, 0, -1], [22, 46, 0, 0]])
    np.testing.assert_allclose(points[:, 1], [[0, 0, 0, -1]] * 3)


def test_c3d_starts_at_the_frame_that_first_shows_the_person(tmp_path):
    pictures = [moment(i, [] if i < 3 else [4]) for i in range(5)]
    reader, points = read_c3d(write("c3d", tmp_path, pictures) / "clip_person4.c3d")
    # At 25 frames a second: frame f is at (f - 1) / 25 seconds.
    assert (reader.first_frame, reader.last_frame) == (4, 5)
    np.testing.assert_allclose(points[:, 0, 0], [43, 44])


def test_c3d_of_one_frame_is_readable(tmp_path):
    reader, points = read_c3d(write("c3d", tmp_path, [moment(0, [1])]) / "clip_person1.c3d")
    assert (reader.frame_count, points.shape) == (1, (1, 2, 4))


def still(count, keypoints) -> Track:
    """Return a motion at 100 frames a second in which nothing moves."""
    times_T = np.arange(count) / 100
    points = np.ones((count, keypoints, 2))
    return Track(1, np.arange(count), times_T, points, points[..., 0])


def test_c3d_holds_more_frames_than_its_header_can_count(tmp_path):
    count = 66_000
    path = tmp_path / "long.c3d"
    path.write_bytes(to_c3d(still(count, 1), KeypointSchema("one", ("tip",)), 100.0, "long.c3d"))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        reader = c3d.Reader(io.BytesIO(path.read_bytes()))
    assert (reader.frame_count, reader.first_frame, reader.last_frame) == (count, 1, count)


@pytest.mark.parametrize("count", [133, 255])
def test_c3d_holds_many_keypoints(tmp_path, count):
    schema = KeypointSchema("many", tuple(f"keypoint_number_{i}" for i in range(count)))
    path = tmp_path / "a.c3d"
    path.write_bytes(to_c3d(still(2, count), schema, 100.0, path.name))
    reader, points = read_c3d(path)
    assert [label.strip() for label in reader.point_labels] == list(schema.keypoints)
    assert points.shape == (2, count, 4)


def test_c3d_refuses_more_keypoints_than_it_can_name():
    schema = KeypointSchema("many", tuple(map(str, range(256))))
    with pytest.raises(OutputError) as raised:
        to_c3d(still(2, 256), schema, 100.0, "a.c3d")
    assert raised.value.message == "C3D holds at most 255 keypoints, schema 'many' has 256"
    assert raised.value.hint == "choose another --format, such as trc"


def test_c3d_writes_names_of_all_scripts_in_ascii(tmp_path):
    schema = KeypointSchema("fuss", ("Knöchel", "踝"))
    path = tmp_path / "a.c3d"
    path.write_bytes(to_c3d(still(2, 2), schema, 100.0, path.name))
    reader, _ = read_c3d(path)
    assert [label.strip() for label in reader.point_labels] == [r"Kn\xf6chel", r"\u8e1d"]
