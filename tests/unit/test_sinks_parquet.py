import csv
import errno
import io
import os
import sys
from fractions import Fraction

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from builders import make_frame, make_poses
from hrnet_cli.errors import OutputError
from hrnet_cli.sinks import RunInfo, open_sink, parquet
from hrnet_cli.sinks.csv import COLUMNS

INFO = RunInfo("starter", "yolo26s", keypoint_threshold=0.6, drop_low=True)
APPEND = RunInfo("starter", "yolo26s", keypoint_threshold=0.6, append=True)


def pictures():
    """Return a photo, a video frame with every optional value, and one with nobody."""
    full = make_poses(
        2,
        scores_NK=np.linspace(0.5, 1, 34).reshape(2, 17),
        track_ids_N=np.array([3, 8]),
        raw_keypoints_NK2=np.random.default_rng(1).random((2, 17, 2), np.float32),
        flags_NK=(np.arange(34) % 4).astype(np.uint8).reshape(2, 17),
    )
    timing = {"time_s": 1 / 3, "pts": 2**40, "time_base": Fraction(1, 90000)}
    return [
        (make_frame("a, b.jpg"), make_poses(1)),
        (make_frame("clip.mp4", index=5, **timing), full),
        (make_frame("clip.mp4", index=6, **timing), make_poses(0)),
    ]


def write(name, folder, info=INFO, frames=None):
    sink = open_sink(name, folder, info)
    for frame, poses in pictures() if frames is None else frames:
        sink.write(frame, poses)
    sink.close()


def as_text(value) -> str:
    if value is None:
        return ""
    return str(value).lower() if isinstance(value, bool) else str(value)


def test_the_table_is_that_of_the_csv_with_types(tmp_path):
    write("csv", tmp_path)
    write("parquet", tmp_path)
    rows = list(csv.reader(io.StringIO((tmp_path / "poses.csv").read_text("utf-8"))))
    table = pq.read_table(tmp_path / "poses.parquet")
    assert tuple(table.column_names) == tuple(rows[0]) == COLUMNS
    values = zip(*table.to_pydict().values(), strict=True)
    assert [[as_text(value) for value in row] for row in values] == rows[1:]
    types = {field.name: str(field.type) for field in table.schema}
    assert types["frame"] == types["id"] == types["pts"] == "int64"
    assert types["x"] == types["time_s"] == types["person_score"] == "double"
    assert (types["in_frame"], types["flags"], types["person"]) == ("bool", "uint8", "int32")
    assert types["source"] == types["keypoint"]
    assert types["source"].startswith("dictionary<values=string")


def test_the_table_says_what_made_it(tmp_path):
    write("parquet", tmp_path)
    about = pq.read_schema(tmp_path / "poses.parquet").metadata
    assert about[b"schema"] == b"hrnet-poses/1"
    assert (about[b"model"], about[b"detector"]) == (b"starter", b"yolo26s")


def test_nobody_gives_a_table_without_rows(tmp_path):
    write("parquet", tmp_path, frames=[(make_frame(), make_poses(0))])
    table = pq.read_table(tmp_path / "poses.parquet")
    assert (table.num_rows, tuple(table.column_names)) == (0, COLUMNS)


def test_rows_leave_memory_in_groups(tmp_path, monkeypatch):
    monkeypatch.setattr(parquet, "_ROWS_OF_A_GROUP", 20)
    write("parquet", tmp_path)
    about = pq.read_metadata(tmp_path / "poses.parquet")
    assert [about.row_group(i).num_rows for i in range(about.num_row_groups)] == [51]
    write("parquet", tmp_path, frames=[pictures()[1]] * 3)
    about = pq.read_metadata(tmp_path / "poses.parquet")
    assert [about.row_group(i).num_rows for i in range(about.num_row_groups)] == [34, 34, 34]


def test_appending_keeps_every_earlier_row(tmp_path):
    write("parquet", tmp_path)
    before = pq.read_table(tmp_path / "poses.parquet")
    write("parquet", tmp_path, APPEND, [(make_frame("c.jpg"), make_poses(1))])
    after = pq.read_table(tmp_path / "poses.parquet")
    assert after.slice(0, before.num_rows).to_pydict() == before.to_pydict()
    assert after.num_rows == before.num_rows + 17


@pytest.mark.parametrize("content", ["text", "other table", "empty"])
def test_appending_to_something_else_is_refused_and_leaves_it_alone(tmp_path, content):
    path = tmp_path / "poses.parquet"
    if content == "other table":
        pq.write_table(pa.table({"x": [1]}), path)
        reason = "its columns are x"
    else:
        path.write_bytes(b"a text" if content == "text" else b"")
        reason = "not readable as Parquet: "
    before = path.read_bytes()
    with pytest.raises(OutputError) as raised:
        open_sink("parquet", tmp_path, APPEND)
    assert raised.value.message.startswith(f"cannot append to '{path}': {reason}")
    assert raised.value.hint == "replace it with --overwrite, or name another folder with --out"
    assert [path.name for path in tmp_path.iterdir()] == ["poses.parquet"]
    assert path.read_bytes() == before


def test_an_earlier_table_stays_until_the_new_one_is_whole(tmp_path):
    write("parquet", tmp_path)
    before = (tmp_path / "poses.parquet").read_bytes()
    sink = open_sink("parquet", tmp_path, INFO)
    sink.write(*pictures()[0])
    assert (tmp_path / "poses.parquet").read_bytes() == before
    sink.close()
    assert [path.name for path in tmp_path.iterdir()] == ["poses.parquet"]
    assert pq.read_table(tmp_path / "poses.parquet").num_rows == 17


def test_a_full_disk_is_named_and_leaves_no_table_that_cannot_be_read(tmp_path, monkeypatch):
    def full(_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(parquet, "_ROWS_OF_A_GROUP", 30)
    write("parquet", tmp_path)
    before = (tmp_path / "poses.parquet").read_bytes()
    sink = open_sink("parquet", tmp_path, INFO)
    monkeypatch.setattr(sink._file, "write", full)
    sink.write(*pictures()[0])
    with pytest.raises(OutputError) as raised:
        sink.write(*pictures()[1])
    path = tmp_path / "poses.parquet"
    assert raised.value.message == f"cannot write '{path}': No space left on device"
    sink.close()
    assert [path.name for path in tmp_path.iterdir()] == ["poses.parquet"]
    assert path.read_bytes() == before


@pytest.mark.skipif(sys.platform == "win32", reason="Windows keeps open files in place")
def test_a_folder_removed_during_the_run_is_named(tmp_path):
    folder = tmp_path / "out"
    sink = open_sink("parquet", folder, INFO)
    sink.write(*pictures()[0])
    folder.rename(tmp_path / "elsewhere")
    with pytest.raises(OutputError, match=r"poses.parquet': the folder was removed during the run"):
        sink.close()
    assert not folder.exists()
