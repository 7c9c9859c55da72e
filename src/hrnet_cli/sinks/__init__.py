"""Writers of results: one line in `SINKS` and one file for each format.

Only the standard library is imported here, so that the command line may name the formats, and
refuse existing output, before anything heavy loads.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from difflib import get_close_matches
from importlib.util import find_spec
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, BinaryIO, Protocol

from hrnet_cli.config import PHOTOS_STEM
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


class GrowingSink(Sink, Protocol):
    """A sink whose output only ever grows at its end.

    Attributes:
        bytes_written: How long the output is by now; `open_growing_sink` goes on from there.
    """

    @property
    def bytes_written(self) -> int:
        """Return how long the output is by now."""
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
        category: What was boxed, as labels call it.
    """

    model: str
    detector: str
    keypoint_threshold: float
    drop_low: bool = False
    append: bool = False
    category: str = "person"


@dataclass(frozen=True)
class Format:
    """One output format.

    Attributes:
        path: Its file or folder below the output folder; ``{stem}`` stands for ``poses``, or for
            the name of a video, ``{part}`` for what part of a divided run the photos are.
        open: Start writing at that path.
        open_stream: Start writing to a byte stream; None where the format is no stream.
        grow: The same as ``open`` for output that grows at its end only, to go on behind so many
            bytes of it; None for other output.
        video_path: The same as ``path`` for a video, where it differs.
        motion: It holds each person's motion over one video: it takes no photos, needs ids where
            more than one person is shown, and cannot be appended to.
        labels: It labels photo files, to be corrected and trained on: it takes no videos, whose
            frames are no files.
        package: Package that must be installed to write it; empty for none.
        extra: Name of the extra of hrnet-cli that installs it.
    """

    path: str
    open: Callable[[Path, RunInfo], Sink]
    open_stream: Callable[[BinaryIO, RunInfo], GrowingSink] | None = None
    grow: Callable[[Path, RunInfo, int | None], GrowingSink] | None = None
    video_path: str = ""
    motion: bool = False
    labels: bool = False
    package: str = ""
    extra: str = ""

    @property
    def streams_video(self) -> bool:
        """Tell whether a video's frames are written as they come; else all at its end."""
        return self.grow is not None


def _open_jsonl(path: Path, info: RunInfo, keep_bytes: int | None = None) -> GrowingSink:
    from hrnet_cli.sinks.jsonl import open_jsonl

    return open_jsonl(path, info, keep_bytes)


def _stream_jsonl(stream: BinaryIO, info: RunInfo) -> GrowingSink:
    from hrnet_cli.sinks.jsonl import stream_jsonl

    return stream_jsonl(stream, info)


def _open_csv(path: Path, info: RunInfo, keep_bytes: int | None = None) -> GrowingSink:
    from hrnet_cli.sinks.csv import open_csv

    return open_csv(path, info, keep_bytes)


def _stream_csv(stream: BinaryIO, info: RunInfo) -> GrowingSink:
    from hrnet_cli.sinks.csv import stream_csv

    return stream_csv(stream, info)


def _open_coco(path: Path, info: RunInfo) -> Sink:
    from hrnet_cli.sinks.coco import open_coco

    return open_coco(path, info)


def _open_openpose(path: Path, info: RunInfo) -> Sink:
    from hrnet_cli.sinks.openpose import open_openpose

    return open_openpose(path, info)


def _open_parquet(path: Path, info: RunInfo) -> Sink:
    from hrnet_cli.sinks.parquet import open_parquet

    return open_parquet(path, info)


def _open_angles(path: Path, info: RunInfo) -> Sink:
    from hrnet_cli.sinks.angles import open_angles

    return open_angles(path, info)


def _open_trc(path: Path, info: RunInfo) -> Sink:
    from hrnet_cli.sinks.trc import open_trc

    return open_trc(path, info)


def _open_c3d(path: Path, info: RunInfo) -> Sink:
    from hrnet_cli.sinks.c3d import open_c3d

    return open_c3d(path, info)


def _open_labels(path: Path, info: RunInfo) -> Sink:
    from hrnet_cli.sinks.labels import open_labels

    return open_labels(path, info)


def _open_yolo(path: Path, info: RunInfo) -> Sink:
    from hrnet_cli.sinks.yolo import open_yolo

    return open_yolo(path, info)


SINKS: dict[str, Format] = {
    "jsonl": Format("{stem}.jsonl", _open_jsonl, _stream_jsonl, _open_jsonl),
    "csv": Format("{stem}.csv", _open_csv, _stream_csv, _open_csv),
    "coco": Format("{stem}.coco.json", _open_coco),
    "openpose": Format("openpose{part}", _open_openpose, video_path="{stem}_json"),
    "parquet": Format("{stem}.parquet", _open_parquet, package="pyarrow", extra="parquet"),
    "angles": Format("{stem}_angles.csv", _open_angles),
    "labels": Format("{stem}.labels.json", _open_labels, labels=True),
    "yolo": Format("yolo{part}", _open_yolo, labels=True),
    "trc": Format("{stem}_trc", _open_trc, motion=True),
    "c3d": Format("{stem}_c3d", _open_c3d, motion=True, package="c3d", extra="c3d"),
}


def check_formats(
    formats: Iterable[str], *, append: bool = False, photos: bool = False, videos: bool = False
) -> None:
    """Refuse formats that could not be written, before anything heavy loads.

    Args:
        formats: Names of formats.
        append: Existing output is to be added to.
        photos: Photos are to be written.
        videos: Videos are to be written.

    Raises:
        UsageError: A format is not known, its package is not installed, it cannot be added to, or
            it takes no photos or no videos.
    """
    for name in formats:
        entry = _format(name)
        if entry.package and find_spec(entry.package) is None:
            raise UsageError(
                f"format '{name}' needs the package {entry.package}, which is not installed",
                hint=f"pip install 'hrnet-cli[{entry.extra}]'",
            )
        if append and entry.motion:
            raise UsageError(
                f"format '{name}' cannot be added to by --append: it holds the motion of one video",
                hint="name another folder with --out",
            )
        if photos and entry.motion:
            raise UsageError(
                f"format '{name}' holds motion over time and takes no photos",
                hint=f"name videos only, or leave {name} out of --format",
            )
        if videos and entry.labels:
            raise UsageError(
                f"format '{name}' labels photos and takes no videos, whose frames are no files",
                hint="save the frames as pictures first, such as with `ffmpeg -i clip.mp4"
                f" frames/%06d.png`, or leave {name} out of --format",
            )


def planned_files(
    formats: Iterable[str], stem: str = "poses", *, video: bool = False
) -> list[Path]:
    """Return what the formats would write, as paths below the output folder.

    Args:
        formats: Names of formats.
        stem: ``poses``, or the name of a video.
        video: The output holds the frames of one video.

    Raises:
        UsageError: A format is not known.
    """
    entries = [_format(name) for name in formats]
    paths = [(video and entry.video_path) or entry.path for entry in entries]
    part = stem[len(PHOTOS_STEM) :] if stem.startswith(f"{PHOTOS_STEM}.") else ""
    return [Path(path.format(stem=stem, part=part)) for path in paths]


def open_sink(
    name: str, folder: Path, info: RunInfo, stem: str = "poses", *, video: bool = False
) -> Sink:
    """Start writing one format into a folder, which is made where it is missing.

    An existing file is replaced, or continued with ``info.append``.

    Raises:
        UsageError: The format is not known, its package is not installed, or it cannot be added to.
        OutputError: The place cannot be written, or cannot be continued.
    """
    check_formats([name], append=info.append)
    return _format(name).open(folder / planned_files([name], stem, video=video)[0], info)


def open_growing_sink(
    name: str, folder: Path, info: RunInfo, stem: str, *, keep_bytes: int | None = None
) -> GrowingSink:
    """Start writing a format that `streams_video`, or go on where a stopped run was.

    Args:
        name: The format.
        folder: Output folder, made where it is missing.
        info: What all pictures share.
        stem: Name of the video.
        keep_bytes: What ``bytes_written`` was: the file is cut behind it; None to start anew, or
            to append.

    Raises:
        UsageError: The format is not known, or its output does not simply grow.
        OutputError: The file is shorter than that, or cannot be written.
    """
    grow = _format(name).grow
    if grow is None:
        growing = [key for key, value in SINKS.items() if value.streams_video]
        raise UsageError(f"format '{name}' does not grow, expected one of {', '.join(growing)}")
    return grow(folder / planned_files([name], stem, video=True)[0], info, keep_bytes)


def open_stream(name: str, stream: BinaryIO, info: RunInfo) -> GrowingSink:
    """Start writing one format to a byte stream such as ``sys.stdout.buffer``.

    The stream is flushed after every picture and left open. A reader that went away
    (``BrokenPipeError``) is no error of the output and is passed on as it is.

    Raises:
        UsageError: The format is not known, or is no stream.
        OutputError: The stream cannot be written.
    """
    return stream_opener(name)(stream, info)


def stream_opener(name: str) -> Callable[[BinaryIO, RunInfo], GrowingSink]:
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
