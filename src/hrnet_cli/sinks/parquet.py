"""Parquet: the table of the CSV with typed columns, for pandas, polars, DuckDB and R."""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from hrnet_cli.errors import OutputError
from hrnet_cli.records import SCHEMA
from hrnet_cli.sinks import RunInfo
from hrnet_cli.sinks.csv import COLUMNS, rows_of
from hrnet_cli.sinks.files import make_folder, reporting, require_folder
from hrnet_cli.sinks.record import record
from hrnet_cli.structures import Frame, Poses

# Some hundred frames: large enough to compress well, small enough to be kept in memory.
_ROWS_OF_A_GROUP = 65_536
_WORDS = pa.dictionary(pa.int32(), pa.string())
_TYPES = {
    **{"source": _WORDS, "frame": pa.int64(), "person": pa.int32(), "id": pa.int64()},
    **{"keypoint": _WORDS, "in_frame": pa.bool_(), "pts": pa.int64(), "flags": pa.uint8()},
}


class ParquetSink:
    """Collects rows, writes them in groups beside the final file, and puts it in place at the end.

    Args:
        path: Where the table goes when it is finished.
        info: What all pictures share.
    """

    def __init__(self, path: Path, info: RunInfo) -> None:
        self._path = path
        self._part = path.with_name(f"{path.name}.part")
        self._info = info
        self._rows: list[tuple[Any, ...]] = []
        self._schema = _schema(info)
        # Opened here: Arrow takes no paths that are not UTF-8, and loses the reason of an error.
        with reporting(path):
            self._file = self._part.open("wb")
        self._writer = pq.ParquetWriter(self._file, self._schema, compression="zstd")
        self._open = True

    def write(self, frame: Frame, poses: Poses) -> None:
        """Add the rows of one picture: none when nobody is in it.

        Raises:
            OutputError: A group of rows cannot be written; the table is given up.
        """
        self._rows += rows_of(record(frame, poses, self._info), poses.schema.keypoints)
        if len(self._rows) >= _ROWS_OF_A_GROUP:
            with self._giving_up():
                self._write_group()

    def keep(self, path: Path) -> None:
        """Start with the rows of an existing table.

        Raises:
            OutputError: It is no table of ours.
        """
        with self._giving_up(), path.open("rb") as file:
            for batch in pq.ParquetFile(file).iter_batches(_ROWS_OF_A_GROUP):
                self._writer.write_table(pa.Table.from_batches([batch]).cast(self._schema))

    def close(self) -> None:
        """Write what is left and put the table in its place.

        Raises:
            OutputError: It cannot be put there.
        """
        if not self._open:
            return
        with self._giving_up():
            self._write_group()
            self._writer.close()
            self._file.close()
            require_folder(self._path.parent)
            self._part.replace(self._path)
        self._open = False

    @contextlib.contextmanager
    def _giving_up(self) -> Iterator[None]:
        """Name an error of the block; a table without its end cannot be read, so it is removed."""
        try:
            with reporting(self._path):
                yield
        except BaseException:
            self._open = False
            with contextlib.suppress(OSError, pa.ArrowException):
                self._writer.close()
            with contextlib.suppress(OSError):
                self._file.close()
                self._part.unlink(missing_ok=True)
            raise

    def _write_group(self) -> None:
        if not self._rows:
            return
        columns = dict(zip(COLUMNS, zip(*self._rows, strict=True), strict=True))
        columns["source"] = tuple(map(_utf8, columns["source"]))
        arrays = [pa.array(columns[field.name], field.type) for field in self._schema]
        self._writer.write_table(pa.Table.from_arrays(arrays, schema=self._schema))
        self._rows = []


def open_parquet(path: Path, info: RunInfo) -> ParquetSink:
    """Start a table, or go on with one.

    Raises:
        OutputError: It cannot be written, or what is there is no table of ours.
    """
    make_folder(path.parent)
    keep = info.append and path.exists()
    if keep:
        _check(path)
    sink = ParquetSink(path, info)
    if keep:
        sink.keep(path)
    return sink


def _schema(info: RunInfo) -> pa.Schema:
    fields = [pa.field(name, _TYPES.get(name, pa.float64())) for name in COLUMNS]
    about = {"schema": SCHEMA, "model": info.model, "detector": info.detector}
    return pa.schema(fields, metadata=about)


def _utf8(text: str) -> str:
    """Return a name that is not UTF-8 as the CSV has it."""
    return text.encode("utf-8", errors="backslashreplace").decode("utf-8")


def _check(path: Path) -> None:
    """Raise OutputError unless a file is a table with the same columns."""
    try:
        with reporting(path), path.open("rb") as file:
            names = tuple(pq.read_schema(file).names)
        reason = f"its columns are {', '.join(names)}"
    except pa.ArrowException as error:
        names, reason = (), f"not readable as Parquet: {str(error).splitlines()[0]}"
    if names != COLUMNS:
        raise OutputError(
            f"cannot append to '{path}': {reason}",
            hint="replace it with --overwrite, or name another folder with --out",
        )
