"""What the user named on the command line -> photos and videos, each with its output name."""

import glob
import os
import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath

from hrnet_cli.config import PHOTOS_STEM
from hrnet_cli.errors import InputError
from hrnet_cli.images import IMAGE_SUFFIXES, is_moving, refuse_others
from hrnet_cli.redaction import shown_address

_ADDRESS = r"(camera:|[a-z][a-z0-9+.-]*://)"
VIDEO_SUFFIXES = (
    ".mp4", ".mov", ".avi", ".mkv", ".webm", ".m4v", ".mpg", ".mpeg", ".wmv", ".mts", ".m2ts",
    ".ts", ".3gp", ".asf", ".flv", ".mxf", ".ogv",
)  # fmt: skip

_RECURSIVE = "add --recursive to look into the folders below it"


@dataclass(frozen=True)
class Photo:
    """One photo to read.

    Attributes:
        path: Where it lies.
        source: The path as the user gave it, or the given folder joined with the rest.
        name: Path of its outputs below the output folder, suffix included; never absolute, never
            with ``..``, unique within a plan.
    """

    path: Path
    source: str
    name: str


@dataclass(frozen=True)
class Video:
    """One video to read: a file, a camera or stream, or numbered pictures.

    Attributes:
        source: The path or address as the user gave it, without the passwords of an address.
        name: Path of its outputs below the output folder without suffix; never absolute, never
            with ``..``, unique within a plan.
        path: The file, or the first picture; None for a camera or stream.
        address: Where a camera or stream is opened; empty for files.
        pictures: Numbered pictures that make up the video, in order; empty for all others.
    """

    source: str
    name: str
    path: Path | None = None
    address: str = ""
    pictures: tuple[Photo, ...] = ()


@dataclass(frozen=True)
class SourcePlan:
    """What a run would read.

    Attributes:
        photos: Photos in order: as given, folders and globs sorted with numbers by value.
        skipped: Files in folders that are neither photos nor videos by their suffix, and what is
            no file: pipes, sockets, devices, links to folders.
        problems: Sources that cannot be used, one message each.
        videos: Videos in the same order.
    """

    photos: tuple[Photo, ...]
    skipped: tuple[str, ...] = ()
    problems: tuple[InputError, ...] = ()
    videos: tuple[Video, ...] = ()

    def shard(self, number: int, count: int) -> "SourcePlan":
        """Return one of ``count`` parts of equal size, the first being number 1.

        Parts are runs of neighbours, photos and videos each, so that the parts one after another
        are the whole. What cannot be used is told by the first part only.
        """
        photos, videos = (
            slice(len(items) * (number - 1) // count, len(items) * number // count)
            for items in (self.photos, self.videos)
        )
        first = number == 1
        return SourcePlan(
            self.photos[photos],
            self.skipped if first else (),
            self.problems if first else (),
            self.videos[videos],
        )


_Item = tuple[Path, str, str]  # path, source, output name with suffix


@dataclass
class _Found:
    photos: list[_Item] = field(default_factory=list[_Item])
    videos: list[_Item] = field(default_factory=list[_Item])
    live: dict[str, str] = field(default_factory=dict[str, str])  # address -> source
    sequences: list[list[_Item]] = field(default_factory=list[list[_Item]])
    skipped: list[str] = field(default_factory=list[str])
    problems: list[InputError] = field(default_factory=list[InputError])


def plan_sources(
    sources: Sequence[str],
    *,
    recursive: bool = False,
    exclude: Path | None = None,
    stdin: Iterable[str] | None = (),
    sequences: bool = False,
) -> SourcePlan:
    """Return the photos and videos that the sources stand for; nothing is decoded.

    Args:
        sources: Files, folders, quoted globs, ``@list.txt`` (a path a line), ``-`` (the lines of
            ``stdin``), ``camera:0``, and addresses of streams.
        recursive: Look into folders below the given ones.
        exclude: Folder left out of folder searches and globs: the output folder.
        stdin: Lines that ``-`` stands for; None where it is closed.
        sequences: Take the photos of each folder or glob as the pictures of one video.
    """
    found = _Found()
    for source in sources:
        try:
            for item in _expand_lists(source, stdin):
                try:
                    _find(item, recursive, exclude, found)
                    if sequences and found.photos:
                        found.sequences.append(found.photos)
                        found.photos = []
                except InputError as error:
                    found.problems.append(error)
        except InputError as error:
            found.problems.append(error)
    return SourcePlan(
        _unique_photos(found.photos),
        tuple(found.skipped),
        tuple(found.problems),
        _unique_videos(found),
    )


def _expand_lists(source: str, stdin: Iterable[str] | None) -> Iterable[str]:
    """Return the paths a source stands for: itself, or the lines of a list."""
    if source != "-" and not source.startswith("@"):
        return [source]
    path = Path(source[1:])
    if source == "-" and stdin is None:
        raise InputError("standard input is closed, '-' reads paths from it")
    try:
        # Windows editors put a byte order mark in front.
        text = (
            stdin
            if stdin is not None and source == "-"
            else path.read_text(encoding="utf-8-sig").splitlines()
        )
        return _lines(text)
    except (OSError, ValueError, MemoryError) as error:
        name = "standard input" if source == "-" else f"list '{path}'"
        raise InputError(
            f"{name} cannot be read: {_why_no_list(error)}", hint="expected one photo path a line"
        ) from error


def _why_no_list(error: OSError | ValueError | MemoryError) -> str:
    if isinstance(error, MemoryError):
        return "it needs more memory than is free"
    return str(error.strerror) if isinstance(error, OSError) else "it is not UTF-8 text"


def _lines(lines: Iterable[str]) -> list[str]:
    stripped = [line.strip() for line in lines]
    if any("\0" in line for line in stripped):
        raise ValueError("no path has a zero byte")
    return [line for line in stripped if line and not line.startswith("#")]


def _find(source: str, recursive: bool, exclude: Path | None, found: _Found) -> None:
    if re.match(_ADDRESS, source, re.IGNORECASE):
        found.live[source] = shown_address(source)
        return
    path = Path(source)
    try:
        is_folder, exists = path.is_dir(), path.exists()
    except OSError as error:  # no permission on the way, or a name that is too long
        raise InputError(f"'{source}' cannot be read: {error.strerror}") from error
    if is_folder:
        _find_in_folder(path, recursive, exclude, found)
    elif exists:
        _take_file(path, source, found)
    elif glob.has_magic(source):
        _find_by_glob(source, exclude, found)
    else:
        raise InputError(
            f"'{source}' does not exist", hint=f"paths start from the current folder, {Path.cwd()}"
        )


def _take_file(path: Path, source: str, found: _Found) -> None:
    """Take a file that was named itself; one of another suffix may be a photo."""
    if not path.is_file():
        raise InputError(
            f"'{source}' is a pipe, socket or device, expected a file",
            hint="a camera is named camera:0; of standard input, '-' reads paths",
        )
    if not _is_video(path) and path.suffix.lower() not in IMAGE_SUFFIXES:
        refuse_others(path)
    (found.videos if _is_video(path) else found.photos).append((path, source, path.name))


def _find_in_folder(folder: Path, recursive: bool, exclude: Path | None, found: _Found) -> None:
    before = len(found.photos) + len(found.videos)
    skipped = len(found.skipped)
    for path in _files(folder, recursive, exclude):
        _sort_in(path, path.relative_to(folder).as_posix(), found)
    if len(found.photos) + len(found.videos) == before:
        skipped = len(found.skipped) - skipped
        others = f"; it holds {skipped} other files" if skipped else ""
        suffixes = " ".join((*IMAGE_SUFFIXES, *VIDEO_SUFFIXES))
        raise InputError(
            f"folder '{folder}' holds no photos or videos ({suffixes}){others}",
            hint="" if recursive or not _has_folders(folder) else _RECURSIVE,
        )


def _has_folders(folder: Path) -> bool:
    return any(path.is_dir() for path in folder.iterdir())


def _sort_in(path: Path, name: str, found: _Found) -> None:
    """Put a file where its suffix says it belongs."""
    # To open a pipe would wait for who writes into it. A broken link is told when it is read.
    if path.exists() and not path.is_file():
        found.skipped.append(str(path))
    elif _is_video(path):
        found.videos.append((path, str(path), name))
    elif path.suffix.lower() in IMAGE_SUFFIXES:
        found.photos.append((path, str(path), name))
    else:
        found.skipped.append(str(path))


def _is_video(path: Path) -> bool:
    """Tell by the suffix whether a file is a video; a GIF is one where it has several pictures."""
    suffix = path.suffix.lower()
    return suffix in VIDEO_SUFFIXES or (suffix == ".gif" and is_moving(path))


def _files(folder: Path, recursive: bool, exclude: Path | None) -> list[Path]:
    """Return the visible files of a folder, numbers in names sorted by value.

    Searching below it, links to folders are among them: they may lead back up.
    """
    excluded = exclude.resolve() if exclude is not None else None
    files: list[Path] = []
    try:
        entries = sorted(folder.iterdir(), key=_natural_key)
    except OSError as error:
        raise InputError(f"folder '{folder}' cannot be read: {error.strerror}") from error
    for path in entries:
        if path.name.startswith("."):
            continue
        if not path.is_dir():
            files.append(path)
        elif recursive and path.resolve() != excluded:
            files.extend([path] if path.is_symlink() else _files(path, recursive, exclude))
    return files


def _find_by_glob(pattern: str, exclude: Path | None, found: _Found) -> None:
    parts = Path(pattern).parts
    fixed = Path(*(parts[: next(i for i, part in enumerate(parts) if glob.has_magic(part))]))
    excluded = exclude.resolve() if exclude is not None else None
    if excluded in (fixed.resolve(), *fixed.resolve().parents):
        excluded = None  # The user looks into the output folder on purpose.
    matches = [
        Path(match)
        for match in glob.glob(pattern, recursive=True)  # noqa: PTH207 - absolute and ** patterns
        if Path(match).is_file() and excluded not in Path(match).resolve().parents
    ]
    if not matches:
        raise InputError(f"no file matches '{pattern}'", hint="use ** to look into sub-folders")
    for path in sorted(matches, key=_natural_key):
        below = path.relative_to(fixed)
        _sort_in(path, path.name if ".." in below.parts else below.as_posix(), found)


def _natural_key(path: Path) -> tuple[tuple[int, int, str], ...]:
    """Sort key under which photo2 comes before photo10."""
    return tuple(
        (0, int(part), part) if part.isdecimal() else (1, 0, part)
        for part in re.split(r"(\d+)", str(path))
    )


def _unique_photos(photos: Sequence[_Item]) -> tuple[Photo, ...]:
    """Drop photos named twice, and give each its own output name; see `_set_apart`."""
    kept: dict[str, tuple[Path, str]] = {}
    names: dict[str, PurePosixPath] = {}
    for path, source, name in photos:
        key = os.path.abspath(path)  # noqa: PTH100 - Path.resolve would follow links
        kept.setdefault(key, (path, source))
        names.setdefault(key, PurePosixPath(name))
    _set_apart(names)
    return tuple(Photo(*kept[key], name=str(names[key])) for key in kept)


def _unique_videos(found: _Found) -> tuple[Video, ...]:
    """Return the videos, each once and with its own output name; see `_set_apart`."""
    videos: dict[str, Video] = {}
    names: dict[str, PurePosixPath] = {}
    for path, source, name in found.videos:
        key = os.path.abspath(path)  # noqa: PTH100
        videos.setdefault(key, Video(source, "", path))
        names.setdefault(key, PurePosixPath(name).with_suffix(""))
    sequences: dict[str, list[_Item]] = {}
    for items in found.sequences:
        # Those of one folder belong together, such as the files a shell makes of a glob.
        key = os.path.abspath(items[0][0].parent)  # noqa: PTH100
        sequences.setdefault(key, []).extend(items)
    for key, items in sequences.items():
        folder = items[0][0].parent
        pictures = _unique_photos(items)
        videos[key] = Video(str(folder), "", pictures[0].path, pictures=pictures)
        names[key] = PurePosixPath(folder.resolve().name or "pictures")
    for address, source in found.live.items():
        videos[address] = Video(source, "", address=address)
        names[address] = PurePosixPath(_address_name(source))
    if found.photos:
        names[""] = PurePosixPath(PHOTOS_STEM)  # their records have this name
    _set_apart(names)
    return tuple(replace(video, name=str(names[key])) for key, video in videos.items())


def _address_name(source: str) -> str:
    """Return an output name for a camera or stream: camera-0, rtsp-host-path."""
    return re.sub(r"[^A-Za-z0-9._]+", "-", source).strip("-.")[:80] or "stream"


def _set_apart(names: dict[str, PurePosixPath]) -> None:
    """Give equal names as many parent folders of their files as they need to differ.

    Files of one folder whose names differ only in case, such as ``a.jpg`` and ``a.JPG``, are
    numbered.
    """
    while clashes := _clashes(names):
        for keys in clashes:
            folders = {str(Path(key).parent).casefold() for key in keys}
            for number, key in enumerate(keys, start=1):
                # A name with a dot in it has no suffix when it is a video's.
                names[key] = (
                    _with_parent(key, names[key])
                    if len(folders) > 1 and _has_parent(key, names[key])
                    else names[key].with_stem(f"{names[key].stem}-{number}")
                )


def _clashes(names: dict[str, PurePosixPath]) -> list[list[str]]:
    """Return the groups of files whose names are equal where the file system ignores case."""
    groups: defaultdict[str, list[str]] = defaultdict(list)
    for key, name in names.items():
        groups[str(name).casefold()].append(key)
    return [keys for keys in groups.values() if len(keys) > 1]


def _has_parent(absolute: str, name: PurePosixPath) -> bool:
    """Tell whether a file has a parent folder that is not part of its name yet."""
    return Path(absolute).is_absolute() and len(Path(absolute).parts) - 1 > len(name.parts)


def _with_parent(absolute: str, name: PurePosixPath) -> PurePosixPath:
    """Return the name with one more parent folder of the file in front, while it has one."""
    parts = Path(absolute).parts[1:]
    return PurePosixPath(*parts[-len(name.parts) - 1 : -len(name.parts)], name)
