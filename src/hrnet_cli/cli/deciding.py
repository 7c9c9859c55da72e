"""What decides the results of ``hrnet detect``: a broken run goes on only where it is the same."""

import hashlib
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from hrnet_cli.cli.detect_options import DetectOptions
from hrnet_cli.sources import VideoSource
from hrnet_cli.sources.plan import Video
from hrnet_cli.weights import file_sha256, model_sha256

# Options that decide what is written of photos and videos alike.
_VALUES = (
    *("format", "draw", "person_threshold", "iou", "max_people", "keep", "pose_nms", "region"),
    *("runtime", "precision", "keypoint_threshold", "drop_low", "flip_test", "batch_size"),
    *("palette", "background", "point_size", "line_width", "codec"),
)
# Options about videos that decide nothing, or are settled by others.
_UNIMPORTANT = ("ids_for", "resume", "jobs", "devices", "shard", "show")
# Enough to tell hashes apart, and short in a message.
_DIGITS = 16
# Of a video the ends are read: they hold its header and tables, and other videos have others.
_END_BYTES = 1 << 20


def deciding_settings(
    options: DetectOptions,
    model: str,
    detector: str,
    hashes: Mapping[str, str],
    clip: tuple[Video, VideoSource] | None = None,
) -> dict[str, Any]:
    """Return all that decides the outputs, under the names the user knows, as JSON can hold it.

    Args:
        options: As given.
        model: Name of the pose model.
        detector: Name of the person detector.
        hashes: What tells these from others of the same names, by what messages call it.
        clip: A video and its frames; None for all photos.
    """
    values: dict[str, Any] = {name: getattr(options, name) for name in _VALUES}
    files = ("boxes", "connections", "keypoint_schema")
    values |= {name: _with_hash(getattr(options, name)) for name in files}
    values |= {"class": options.class_name, "input": options.input_size}
    settings: dict[str, Any] = {"model": model, "detector": detector, **hashes}
    if clip is not None:
        video, source = clip
        about_videos = asdict(options.video)
        values |= {name: about_videos[name] for name in about_videos if name not in _UNIMPORTANT}
        settings |= {
            "video": video.source,
            "video content": _content(video),
            "picture size": list(source.info.size_wh),
        }
    return settings | {f"--{name.replace('_', '-')}": value for name, value in values.items()}


def short_hash(file: Path | None) -> str:
    """Return what tells a model from others: of a file or a folder; empty where there is none."""
    if file is None or not file.exists():
        return ""
    return model_sha256(file)[:_DIGITS]


def _with_hash(file: Path | str | None) -> str | None:
    """Return the name of a file with the hash of what is in it; other names as they are."""
    if file is None:
        return None
    path = Path(file)
    return f"{file}, sha256 {file_sha256(path)[:_DIGITS]}" if path.is_file() else str(file)


def _content(video: Video) -> str | None:
    """Return what a copy of a video shares with it, and others do not; None where none can be read.

    Of a file these are its size and both ends; of pictures, which may be many, names and sizes.
    """
    if video.path is None:
        return None
    if video.pictures:
        lines = [f"{photo.path.name} {_size(photo.path)}" for photo in video.pictures]
        what, content = f"{len(lines)} pictures", "\n".join(lines).encode(errors="surrogateescape")
    else:
        try:
            what, content = f"{_size(video.path)} bytes", _ends(video.path)
        except OSError:  # of records that need no pictures
            return None
    return f"{what}, sha256 {hashlib.sha256(content).hexdigest()[:_DIGITS]}"


def _ends(path: Path) -> bytes:
    with path.open("rb") as file:
        head = file.read(_END_BYTES)
        file.seek(max(0, _size(path) - _END_BYTES))
        return head + file.read(_END_BYTES)


def _size(path: Path) -> int:
    """Return the length of a file; 0 where it is gone, which its reader reports."""
    return path.stat().st_size if path.exists() else 0
