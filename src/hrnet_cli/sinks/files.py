"""Files that stay readable when a run is cut short by a full disk, an error or Ctrl-C."""

import errno
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from hrnet_cli.errors import OutputError
from hrnet_cli.structures import Frame

_SCAN_BYTES = 65536
_MAY_NOT_WRITE = "name a folder you may write to with --out"
_NO_ROOM = "make room, or name a folder on another disk with --out"
_HINTS = {
    errno.EACCES: _MAY_NOT_WRITE,
    errno.EPERM: _MAY_NOT_WRITE,
    errno.EROFS: _MAY_NOT_WRITE,
    errno.ENOSPC: _NO_ROOM,
    errno.EDQUOT: _NO_ROOM,
    errno.EFBIG: _NO_ROOM,
    errno.ENAMETOOLONG: "give the photo or video a shorter name: outputs are called like it, and"
    " longer",
    errno.ENOENT: "the output folder must stay in place while hrnet runs",
}


@contextmanager
def reporting(place: Path | str) -> Iterator[None]:
    """Turn an OSError inside the block into one line that names the place and the reason.

    A closed pipe is passed on: its reader has seen enough, which is no error.

    Raises:
        OutputError: Instead of any other OSError.
    """
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError as error:
        raise OutputError(
            f"cannot write '{place}': {error.strerror or error}",
            hint=_HINTS.get(error.errno or 0, "name another folder with --out"),
        ) from error


class GrowingFile:
    """A file extended block by block and valid after each; a block that fails is taken back.

    Args:
        path: Where it lies.
        file: The same, open for reading and writing without a buffer.
        tail: Bytes that must end the file to make it valid; blocks are put in front of them.
    """

    def __init__(self, path: Path, file: BinaryIO, tail: bytes = b"") -> None:
        self.path = path
        self._file = file
        self._tail = tail

    def append(self, block: bytes) -> None:
        """Add one block; afterwards the file holds all of it or none of it.

        Raises:
            OutputError: The disk is full, or the file was removed meanwhile.
        """
        with reporting(self.path):
            # Writing to a removed file succeeds on POSIX, and is lost.
            if not self.path.exists():
                raise FileNotFoundError(errno.ENOENT, "it was removed during the run")
            descriptor = self._file.fileno()
            end = os.fstat(descriptor).st_size
            start = max(0, end - len(self._tail))
            try:
                _write_at(descriptor, start, block + self._tail)
            except BaseException:  # Ctrl-C too: half a block would spoil the file
                with suppress(OSError):
                    os.ftruncate(descriptor, end)
                    _write_at(descriptor, start, self._tail[: end - start])
                raise

    @property
    def length(self) -> int:
        """Return how many bytes the file holds."""
        return os.fstat(self._file.fileno()).st_size

    def truncate(self, length: int) -> None:
        """Cut off what lies behind the first bytes.

        Raises:
            OutputError: It cannot be done.
        """
        with reporting(self.path):
            os.ftruncate(self._file.fileno(), length)

    def close(self) -> None:
        """Close the file; nothing is left in a buffer."""
        with reporting(self.path):
            self._file.close()


class OutputStream:
    """A stream such as stdout, flushed after every block and left open at the end."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self.length = 0

    def append(self, block: bytes) -> None:
        """Send one block."""
        with reporting("stdout"):
            self._stream.write(block)
            self._stream.flush()
        self.length += len(block)

    def close(self) -> None:
        """Leave the stream to its owner."""


class PictureFolder:
    """A folder with one file for each picture; no file is written twice in a run.

    Args:
        folder: The folder, which exists.
        append: Leave files of earlier runs alone as well.
    """

    def __init__(self, folder: Path, *, append: bool) -> None:
        self._folder = folder
        self._append = append
        self._used: set[str] = set()

    def claim(self, names: Iterable[str]) -> Path:
        """Return the path of the first name that is free, with its sub-folders made.

        Args:
            names: Names to try, relative to the folder; endless where one must be free.

        Raises:
            OutputError: A name leads out of the folder, or the folder is gone.
        """
        with reporting(self._folder):
            require_folder(self._folder)
        name, path = next((name, path) for name in names if (path := self._free(name)))
        self._used.add(name.casefold())
        with reporting(path):
            path.parent.mkdir(parents=True, exist_ok=True)
        return path

    def _free(self, name: str) -> Path | None:
        """Return the path of a name unless it is taken."""
        relative = Path(name)
        if relative.anchor or ".." in relative.parts or not relative.parts:
            raise OutputError(
                f"'{name}' is not a place below the output folder '{self._folder}'",
                hint="output names are relative and have no '..'",
            )
        # Compared without case: many file systems see one file in A.png and a.png.
        if name.casefold() in self._used:
            return None
        path = self._folder / relative
        with reporting(path):
            return None if self._append and path.exists() else path


def output_name(frame: Frame) -> str:
    """Return the output path of a frame below the output folder, suffix included."""
    return frame.name or Path(frame.source).name


def frame_name(name: str, index: int) -> str:
    """Return the name of a frame of a video, numbered with 12 digits as by OpenPose.

    Args:
        name: Output path of the video; its suffix is left out.
        index: Position of the frame in the video.
    """
    return f"{PurePosixPath(name).with_suffix('')}_{index:012d}"


def make_folder(folder: Path) -> None:
    """Make a folder and its parents where they are missing.

    Raises:
        OutputError: It cannot be made.
    """
    with reporting(folder):
        folder.mkdir(parents=True, exist_ok=True)


def require_folder(folder: Path) -> None:
    """Raise FileNotFoundError unless a folder made earlier is still there."""
    if not folder.is_dir():
        raise FileNotFoundError(errno.ENOENT, "the folder was removed during the run")


def open_file(path: Path, *, keep: bool = False, tail: bytes = b"") -> GrowingFile:
    """Open a file to be extended, making its folder where it is missing.

    Args:
        path: Where it lies, or will.
        keep: Go on with what an existing file holds; otherwise it is emptied.
        tail: See `GrowingFile`.

    Raises:
        OutputError: It cannot be opened.
    """
    make_folder(path.parent)
    with reporting(path):
        mode = "r+b" if keep and path.exists() else "w+b"
        return GrowingFile(path, path.open(mode, buffering=0), tail)


def open_lines(
    path: Path, *, append: bool, start: bytes, is_whole: Callable[[bytes], bool]
) -> GrowingFile:
    """Open a file of lines; appending, a last line that a crash has cut is removed first.

    Args:
        path: Where it lies, or will.
        append: Go on with an existing file.
        start: What a file that may be continued starts with.
        is_whole: Tells whether a last line without a newline only lacks that.

    Raises:
        OutputError: It cannot be opened, or is a file of another kind.
    """
    with reporting(path):
        if append and path.exists():
            _check_start(path, start)
            _end_with_whole_line(path, is_whole)
    return open_file(path, keep=append)


def open_at(path: Path, keep_bytes: int) -> GrowingFile:
    """Open a file to go on behind its first bytes; what follows them is cut off.

    Args:
        path: Where it lies; it may be absent if no byte of it is kept.
        keep_bytes: How many bytes are kept.

    Raises:
        OutputError: It is shorter, or cannot be opened.
    """
    with reporting(path):
        size = path.stat().st_size if path.exists() else 0
    if size < keep_bytes:
        raise OutputError(
            f"cannot go on with '{path}': it holds {size} bytes, expected at least {keep_bytes}",
            hint="it was changed since the run stopped; start anew with --overwrite",
        )
    file = open_file(path, keep=True)
    file.truncate(keep_bytes)
    return file


def _write_at(descriptor: int, position: int, data: bytes) -> None:
    os.lseek(descriptor, position, os.SEEK_SET)
    rest = memoryview(data)
    while rest:
        # On a nearly full disk one call may write a part only; the next one then says why.
        rest = rest[os.write(descriptor, rest) :]


def _check_start(path: Path, start: bytes) -> None:
    with path.open("rb") as file:
        found = file.read(len(start))
    # A file cut within its first line is shorter than the whole start.
    if not start.startswith(found):
        raise OutputError(
            f"cannot append to '{path}': it starts with {found[:40]!r}, expected {start[:40]!r}",
            hint="replace it with --overwrite, or name another folder with --out",
        )


def _end_with_whole_line(path: Path, is_whole: Callable[[bytes], bool]) -> None:
    with path.open("r+b") as file:
        start = _last_line_start(file)
        file.seek(start)
        line = file.read()
        if line and is_whole(line):
            file.write(b"\n")
        else:
            file.truncate(start)


def _last_line_start(file: BinaryIO) -> int:
    """Return the position behind the last newline, reading backwards: the file may be large."""
    position = file.seek(0, os.SEEK_END)
    while position > 0:
        block_start = max(0, position - _SCAN_BYTES)
        file.seek(block_start)
        newline = file.read(position - block_start).rfind(b"\n")
        if newline >= 0:
            return block_start + newline + 1
        position = block_start
    return 0
