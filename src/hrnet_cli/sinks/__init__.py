"""Writers of results: one line in `SINKS` and one file for each format.

Only the standard library is imported here, so that the command line may name the formats, and
refuse existing output, before anything heavy loads.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, BinaryIO, Protocol

from hrnet_cli.errors import UsageError

if TYPE_CHECKING:
    from hrnet_cli.structures import Frame, Poses

PICTURE_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff")


class Sink(Protocol):
    """Receives the poses of one picture after the other."""

    def write(self, frame: "Frame", poses: "Poses") -> None:
        """Add one picture, people or not.

        Raises:
            OutputError: It cannot be written; what was written before stays readable.
        """
        ...

    def close(self) -> None:
        """Finish the files; called after Ctrl-C and after errors as well, twice does no harm."""
        ...


@dataclass(frozen=True)
class RunInfo:
    """What all pictures of a run share.

    Attributes:
        model: Name of the pose model, written into records.
        detector: Name of the person detector, written into records.
        keypoint_threshold: Keypoint score below which ``drop_low`` drops.
        drop_low: Leave out keypoints below the threshold; otherwise all of them are written.
        append: Add to existing files of the same name instead of starting them anew.
    """

    model: str
    detector: str
    keypoint_threshold: float
    drop_low: bool = False
    append: bool = False


@dataclass(frozen=True)
class Format:
    """One output format.

    Attributes:
        path: Its file or folder below the output folder; ``{stem}`` stands for ``poses``, or for
            the name of a video.
        open: Start writing at that path.
        open_stream: Start writing to a byte stream; None where the format is no stream.
    """

    path: str
    open: Callable[[Path, RunInfo], Sink]
    open_stream: Callable[[BinaryIO, RunInfo], Sink] | None = None


def _open_jsonl(path: Path, info: RunInfo) -> Sink:
    from hrnet_cli.sinks.jsonl import open_jsonl

    return open_jsonl(path, info)


def _stream_jsonl(stream: BinaryIO, info: RunInfo) -> Sink:
    from hrnet_cli.sinks.jsonl import stream_jsonl

    return stream_jsonl(stream, info)


def _open_csv(path: Path, info: RunInfo) -> Sink:
    from hrnet_cli.sinks.csv import open_csv

    return open_csv(path, info)


def _stream_csv(stream: BinaryIO, info: RunInfo) -> Sink:
    from hrnet_cli.sinks.csv import stream_csv

    return stream_csv(stream, info)


def _open_coco(path: Path, info: RunInfo) -> Sink:
    from hrnet_cli.sinks.coco import open_coco

    return open_coco(path, info)


def _open_openpose(path: Path, info: RunInfo) -> Sink:
    from hrnet_cli.sinks.openpose import open_openpose

    return open_openpose(path, info)


SINKS: dict[str, Format] = {
    "jsonl": Format("{stem}.jsonl", _open_jsonl, _stream_jsonl),
    "csv": Format("{stem}.csv", _open_csv, _stream_csv),
    "coco": Format("{stem}.coco.json", _open_coco),
    "openpose": Format("openpose", _open_openpose),
}


def planned_files(formats: Iterable[str], stem: str = "poses") -> list[Path]:
    """Return what the formats would write, as paths below the output folder.

    Raises:
        UsageError: A format is not known.
    """
    return [Path(_format(name).path.format(stem=stem)) for name in formats]


def open_sink(name: str, folder: Path, info: RunInfo, stem: str = "poses") -> Sink:
    """Start writing one format into a folder, which is made where it is missing.

    An existing file is replaced, or continued with ``info.append``.

    Raises:
        UsageError: The format is not known.
        OutputError: The place cannot be written, or cannot be continued.
    """
    return _format(name).open(folder / planned_files([name], stem)[0], info)


def open_stream(name: str, stream: BinaryIO, info: RunInfo) -> Sink:
    """Start writing one format to a byte stream such as ``sys.stdout.buffer``.

    The stream is flushed after every picture and left open. A reader that went away
    (``BrokenPipeError``) is no error of the output and is passed on as it is.

    Raises:
        UsageError: The format is not known, or is no stream.
        OutputError: The stream cannot be written.
    """
    return stream_opener(name)(stream, info)


def stream_opener(name: str) -> Callable[[BinaryIO, RunInfo], Sink]:
    """Return what starts writing one format to a stream.

    Raises:
        UsageError: The format is not known, or is no stream.
    """
    opener = _format(name).open_stream
    if opener is None:
        streams = [key for key, value in SINKS.items() if value.open_stream is not None]
        raise UsageError(
            f"format '{name}' cannot be streamed, expected one of {', '.join(streams)}",
            hint="name a folder with --out",
        )
    return opener


def picture_name(name: str, *, transparent: bool = False) -> str:
    """Return the name under which the drawn picture of a frame is written.

    The suffix is kept where it is one that can be written; ``.png`` is put behind the others, and
    behind all but ``.png`` when the background is transparent.

    Args:
        name: Output name of the frame, suffix included.
        transparent: The picture has an alpha channel.
    """
    writable = (".png",) if transparent else PICTURE_SUFFIXES
    return name if PurePosixPath(name).suffix.lower() in writable else f"{name}.png"


def _format(name: str) -> Format:
    if name in SINKS:
        return SINKS[name]
    close = get_close_matches(name, SINKS, n=1)
    raise UsageError(
        f"output format '{name}' is not known, expected one of {', '.join(SINKS)}",
        hint=f"did you mean '{close[0]}'?" if close else "",
    )
