"""What the user named on the command line -> the photos to read, each with its output name."""

import glob
import os
import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from hrnet_cli.errors import InputError
from hrnet_cli.images import IMAGE_SUFFIXES

VIDEO_SUFFIXES = (".mp4", ".mov", ".avi", ".mkv", ".webm", ".m4v", ".mpg", ".mpeg", ".wmv", ".mts")


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
class SourcePlan:
    """What a run would read.

    Attributes:
        photos: Photos in order: as given, folders and globs sorted with numbers by value.
        skipped: Files in folders that are no photos by their suffix.
        problems: Sources that cannot be used, one message each.
    """

    photos: tuple[Photo, ...]
    skipped: tuple[str, ...] = ()
    problems: tuple[InputError, ...] = ()


@dataclass
class _Found:
    photos: list[tuple[Path, str, str]] = field(default_factory=list[tuple[Path, str, str]])
    skipped: list[str] = field(default_factory=list[str])
    problems: list[InputError] = field(default_factory=list[InputError])


def plan_sources(
    sources: Sequence[str],
    *,
    recursive: bool = False,
    exclude: Path | None = None,
    stdin: Iterable[str] = (),
) -> SourcePlan:
    """Return the photos that the sources stand for; nothing is decoded.

    Args:
        sources: Files, folders, quoted globs, ``@list.txt`` (a path a line) and ``-`` (the lines
            of ``stdin``).
        recursive: Look into folders below the given ones.
        exclude: Folder left out of folder searches and globs: the output folder.
        stdin: Lines that ``-`` stands for.
    """
    found = _Found()
    for source in sources:
        try:
            for item in _expand_lists(source, stdin):
                try:
                    _find(item, recursive, exclude, found)
                except InputError as error:
                    found.problems.append(error)
        except InputError as error:
            found.problems.append(error)
    return SourcePlan(_unique_photos(found.photos), tuple(found.skipped), tuple(found.problems))


def _expand_lists(source: str, stdin: Iterable[str]) -> Iterable[str]:
    """Return the paths a source stands for: itself, or the lines of a list."""
    if source != "-" and not source.startswith("@"):
        return [source]
    path = Path(source[1:])
    try:
        # Windows editors put a byte order mark in front.
        text = stdin if source == "-" else path.read_text(encoding="utf-8-sig").splitlines()
        return _lines(text)
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        name = "standard input" if source == "-" else f"list '{path}'"
        raise InputError(
            f"{name} cannot be read: {reason}", hint="expected one photo path a line"
        ) from error


def _lines(lines: Iterable[str]) -> Iterable[str]:
    stripped = (line.strip() for line in lines)
    return [line for line in stripped if line and not line.startswith("#")]


def _find(source: str, recursive: bool, exclude: Path | None, found: _Found) -> None:
    if re.match(r"(camera:|[a-z][a-z0-9+.-]*://)", source, re.IGNORECASE):
        raise InputError(
            f"'{source}' is a camera or a stream, which this version does not read",
            hint="give photos or folders of photos",
        )
    path = Path(source)
    try:
        is_folder, exists = path.is_dir(), path.exists()
    except OSError as error:  # no permission on the way, or a name that is too long
        raise InputError(f"'{source}' cannot be read: {error.strerror}") from error
    if is_folder:
        _find_in_folder(path, recursive, exclude, found)
    elif exists:
        if path.suffix.lower() in VIDEO_SUFFIXES:
            raise InputError(
                f"'{source}' is a video, which this version does not read",
                hint="give photos or folders of photos",
            )
        found.photos.append((path, source, path.name))
    elif glob.has_magic(source):
        _find_by_glob(source, exclude, found)
    else:
        raise InputError(
            f"'{source}' does not exist", hint=f"paths start from the current folder, {Path.cwd()}"
        )


def _find_in_folder(folder: Path, recursive: bool, exclude: Path | None, found: _Found) -> None:
    photos, skipped = [], []
    for path in _files(folder, recursive, exclude):
        if path.suffix.lower() in IMAGE_SUFFIXES:
            photos.append((path, str(path), path.relative_to(folder).as_posix()))
        else:
            skipped.append(str(path))
    found.photos.extend(photos)
    found.skipped.extend(skipped)
    if not photos:
        others = f"; it holds {len(skipped)} other files" if skipped else ""
        raise InputError(
            f"folder '{folder}' holds no photos ({' '.join(IMAGE_SUFFIXES)}){others}",
            hint="" if recursive else "add --recursive to look into the folders below it",
        )


def _files(folder: Path, recursive: bool, exclude: Path | None) -> list[Path]:
    """Return the visible files of a folder, numbers in names sorted by value."""
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
        elif recursive and path.resolve() != excluded and not path.is_symlink():
            files.extend(_files(path, recursive, exclude))
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
        if path.suffix.lower() in IMAGE_SUFFIXES:
            below = path.relative_to(fixed)
            name = path.name if ".." in below.parts else below.as_posix()
            found.photos.append((path, str(path), name))
        else:
            found.skipped.append(str(path))


def _natural_key(path: Path) -> tuple[tuple[int, int, str], ...]:
    """Sort key under which photo2 comes before photo10."""
    return tuple(
        (0, int(part), part) if part.isdecimal() else (1, 0, part)
        for part in re.split(r"(\d+)", str(path))
    )


def _unique_photos(photos: Sequence[tuple[Path, str, str]]) -> tuple[Photo, ...]:
    """Drop photos named twice, and give equal output names as many parent folders as they need.

    Photos of one folder whose names differ only in case, such as ``a.jpg`` and ``a.JPG``, are
    numbered.
    """
    kept: dict[str, tuple[Path, str]] = {}
    names: dict[str, PurePosixPath] = {}
    for path, source, name in photos:
        key = os.path.abspath(path)  # noqa: PTH100 - Path.resolve would follow links
        kept.setdefault(key, (path, source))
        names.setdefault(key, PurePosixPath(name))
    while clashes := _clashes(names):
        for keys in clashes:
            folders = {str(Path(key).parent).casefold() for key in keys}
            for number, key in enumerate(keys, start=1):
                names[key] = (
                    _with_parent(key, names[key])
                    if len(folders) > 1
                    else names[key].with_stem(f"{names[key].stem}-{number}")
                )
    return tuple(Photo(*kept[key], name=str(names[key])) for key in kept)


def _clashes(names: dict[str, PurePosixPath]) -> list[list[str]]:
    """Return the groups of files whose names are equal where the file system ignores case."""
    groups: defaultdict[str, list[str]] = defaultdict(list)
    for key, name in names.items():
        groups[str(name).casefold()].append(key)
    return [keys for keys in groups.values() if len(keys) > 1]


def _with_parent(absolute: str, name: PurePosixPath) -> PurePosixPath:
    """Return the name with one more parent folder of the file in front, while it has one."""
    parts = Path(absolute).parts[1:]
    return PurePosixPath(*parts[-len(name.parts) - 1 : -len(name.parts)], name)
