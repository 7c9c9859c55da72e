"""The outputs of a divided run -> those of a run in one go."""

import filecmp
import json
import re
import shutil
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from hrnet_cli.config import PHOTOS_STEM
from hrnet_cli.errors import InputError, OutputError
from hrnet_cli.images import write_bytes_atomic
from hrnet_cli.records import read_origin, read_records
from hrnet_cli.sinks import SINKS, RunInfo, open_sink, planned_files
from hrnet_cli.sinks.files import make_folder, reporting
from hrnet_cli.sinks.labels import join_labels, read_labels
from hrnet_cli.structures import Frame, Poses

_PART = re.compile(re.escape(PHOTOS_STEM) + r"\.shard-(\d+)-of-(\d+)(\D.*)")
# Folders of a part, such as openpose.shard-1-of-2, whose files have other names than its records.
_FOLDER = re.compile(r"(.+)\.shard-\d+-of-\d+")
# What a part leaves in its folder, so that one that is missing or was broken is noticed.
_MARK = re.compile(r"shard-(\d+)-of-(\d+)\.(done|unfinished)")
# Tables whose rows stand by themselves: they are put one behind the other. All others are written
# anew from the records.
_TABLES = ("csv", "angles")


@dataclass(frozen=True)
class Merged:
    """What merging did.

    Attributes:
        parts: Parts of photo records that were joined.
        photos: Records in them.
        files: Other files that were taken over.
        written: The joined files.
    """

    parts: int
    photos: int
    files: int
    written: tuple[Path, ...]


@dataclass(frozen=True)
class _Part:
    """The records of the photos in one part of a run, in one format."""

    number: int
    count: int
    suffix: str
    path: Path


def merge(folders: Sequence[Path], out: Path, *, overwrite: bool = False) -> Merged:
    """Join the output folders of the parts of a run.

    Records of photos become one file of each format, in the order of one run. All other files, such
    as pictures and the outputs of videos, are copied under their relative paths. In a folder that
    is merged into itself the parts are removed in the end.

    Args:
        folders: Output folders of the parts; one, when all parts wrote into the same.
        out: Folder of the joined outputs; may be one of ``folders``.
        overwrite: Replace what is there.

    Raises:
        InputError: A part is missing, stands there twice, was broken or is damaged, or two folders
            have different files of the same name.
        OutputError: Something would be overwritten, or cannot be written.
    """
    for folder in folders:
        if not folder.is_dir():
            raise InputError(f"'{folder}' is no folder", hint="name the --out folders of the parts")
    files = {folder: _files(folder) for folder in folders}
    for folder, found in files.items():
        # What stays in its place may be gone on with later.
        if folder.resolve() != out.resolve():
            _refuse_broken(folder, found)
    _check_marks(path for found in files.values() for path in found)
    parts = _ordered_parts([part for folder in folders for part in _parts(folder, files[folder])])
    copies = _copies(files, out)
    _check_suffixes(parts)
    formats = [name for name in SINKS if any(_suffix(name) == suffix for suffix in parts)]
    targets = [out / path for path in planned_files(formats, PHOTOS_STEM)]
    photos = _check_parts(parts)
    _check_targets(targets, copies, overwrite=overwrite)
    for source, target in copies:
        _copy(source, target)
    if parts:
        _join(parts, formats, out)
    _remove_parts(parts, out)
    return Merged(len(parts.get(".jsonl", ())), photos, len(copies), tuple(targets))


def begin_part(folder: Path, number: int, count: int) -> None:
    """Note in an output folder that part ``number`` of ``count`` is at work.

    Raises:
        OutputError: The folder cannot be written to.
    """
    make_folder(folder)
    done, unfinished = _marks(folder, number, count)
    with reporting(unfinished):
        done.unlink(missing_ok=True)
        unfinished.touch()


def end_part(folder: Path, number: int, count: int) -> None:
    """Note that a part was worked through to its end; see `begin_part`."""
    done, unfinished = _marks(folder, number, count)
    with reporting(done):
        unfinished.replace(done)


def remove_marks(folder: Path) -> None:
    """Remove the notes of all parts: one machine has done them together, nobody will merge."""
    with reporting(folder):
        for path in folder.iterdir() if folder.is_dir() else ():
            if _MARK.fullmatch(path.name):
                path.unlink()


def _marks(folder: Path, number: int, count: int) -> tuple[Path, Path]:
    stem = f"shard-{number}-of-{count}"
    return folder / f"{stem}.done", folder / f"{stem}.unfinished"


def _check_marks(files: Iterable[Path]) -> None:
    """Raise InputError when a part was not worked through to its end, or is not there at all."""
    done: defaultdict[int, set[int]] = defaultdict(set)
    for path in files:
        if not (match := _MARK.fullmatch(path.name)):
            continue
        number, count = int(match[1]), int(match[2])
        if match[3] == "unfinished":
            raise InputError(
                f"part {number} of {count} in '{path.parent}' was broken",
                hint="repeat its command, with --resume for videos or --overwrite for photos, then"
                " merge",
            )
        done[count].add(number)
    for count, numbers in done.items():
        missing = min(set(range(1, count + 1)) - numbers, default=None)
        if missing is not None:
            raise InputError(
                f"part {missing} of {count} is missing", hint="name the folders of all parts"
            )


def _files(folder: Path) -> list[Path]:
    """Return all files of a folder and those below it."""
    return sorted(path for path in folder.rglob("*") if path.is_file())


def _refuse_broken(folder: Path, found: Iterable[Path]) -> None:
    """Raise InputError when a folder holds what a broken run left."""
    for path in found:
        broken = next((p for p in path.relative_to(folder).parents if p.suffix == ".resume"), None)
        if broken is not None:
            raise InputError(
                f"'{folder / broken}' is of a run that was broken",
                hint="repeat its command with --resume, then merge",
            )


def _parts(folder: Path, files: Iterable[Path]) -> Iterator[_Part]:
    for path in files:
        if path.parent == folder and (match := _PART.fullmatch(path.name)):
            yield _Part(int(match[1]), int(match[2]), match[3], path)


def _remove_parts(parts: dict[str, list[_Part]], out: Path) -> None:
    """Remove from the joined folder what it holds of the parts."""
    with reporting(out):
        for path in (part.path for some in parts.values() for part in some):
            if path.parent.resolve() == out.resolve():
                path.unlink()
        for path in out.iterdir():
            if _MARK.fullmatch(path.name):
                path.unlink()
            elif path.is_dir() and _FOLDER.fullmatch(path.name):
                shutil.rmtree(path)


def _ordered_parts(parts: Iterable[_Part]) -> dict[str, list[_Part]]:
    """Return the parts of each suffix in order, all of them there and each once."""
    groups: defaultdict[str, list[_Part]] = defaultdict(list)
    for part in parts:
        groups[part.suffix].append(part)
    for suffix, group in groups.items():
        group.sort(key=lambda part: part.number)
        count = group[0].count
        if any(part.count != count for part in group):
            counts = ", ".join(map(str, sorted({part.count for part in group})))
            raise InputError(
                f"parts of runs divided differently are mixed: by {counts}",
                hint="merge the folders of one run at a time",
            )
        numbers = [part.number for part in group]
        missing = sorted(set(range(1, count + 1)) - set(numbers))
        if missing and suffix == ".jsonl":
            _check_missing(missing, group)
        if len(set(numbers)) < len(numbers):
            double = next(number for number in numbers if numbers.count(number) > 1)
            raise InputError(
                f"part {double} of {count} stands there twice:"
                f" {', '.join(str(p.path) for p in group if p.number == double)}",
                hint="name each folder once",
            )
    return dict(groups)


def _check_missing(missing: list[int], group: list[_Part]) -> None:
    """Raise InputError unless there were more parts than photos, so that some had none."""
    lines = [sum(1 for _ in part.path.open("rb")) for part in group]
    if max(lines) > 1:
        raise InputError(
            f"part {missing[0]} of {group[0].count} is missing",
            hint="name the folders of all parts",
        )


def _check_suffixes(parts: dict[str, list[_Part]]) -> None:
    """Raise InputError unless each part is there in the same known formats, and has records."""
    known = {_suffix(name) for name in SINKS}
    for suffix, group in parts.items():
        if suffix not in known:
            raise InputError(
                f"'{group[0].path}' is of a run that was broken",
                hint="repeat its command with --overwrite, remove this file, then merge",
            )
    if parts and ".jsonl" not in parts:
        raise InputError(
            f"parts of {PHOTOS_STEM}{min(parts)} have no records beside them",
            hint="repeat the parts with --format jsonl and the others",
        )
    numbers = {suffix: {part.number for part in group} for suffix, group in parts.items()}
    for suffix, present in numbers.items():
        lacking = min(set().union(*numbers.values()) - present, default=None)
        if lacking is not None:
            raise InputError(
                f"part {lacking} of {parts[suffix][0].count} has no {PHOTOS_STEM}...{suffix},"
                " unlike other parts",
                hint="repeat that part with the --format of the others",
            )


def _check_parts(parts: dict[str, list[_Part]]) -> int:
    """Return the number of photos, raising InputError for a part that is cut or damaged."""
    photos = 0
    for suffix, group in parts.items():
        for part in group if suffix in {".jsonl", *map(_suffix, _TABLES)} else ():
            with part.path.open("rb") as file:
                file.seek(max(0, part.path.stat().st_size - 1))
                if file.read() not in (b"", b"\n"):
                    raise InputError(
                        f"'{part.path}' is cut: the run that wrote it was stopped",
                        hint="repeat its command with --overwrite, then merge",
                    )
    listed_in = [
        {part.number: (part, count(part)) for part in parts.get(_suffix(name), ())}
        for name, count in (("coco", lambda p: len(_coco_names([p]))), ("labels", _labelled_people))
    ]
    for part in parts.get(".jsonl", ()):
        people = [len(poses) for _, poses in read_records(part.path)]
        photos += len(people)
        for entries in listed_in:
            other, listed = entries.get(part.number, (part, sum(people)))
            if listed != sum(people):
                raise InputError(
                    f"'{other.path}' holds {listed} people, its records '{part.path}' hold"
                    f" {sum(people)}",
                    hint="repeat that part",
                )
    return photos


def _copies(files: dict[Path, list[Path]], out: Path) -> list[tuple[Path, Path]]:
    """Return (source, target) of the files that are taken over as they are."""
    sources: dict[Path, Path] = {}
    for folder, paths in files.items():
        for path in paths:
            relative = path.relative_to(folder)
            if _PART.fullmatch(relative.name) or _MARK.fullmatch(relative.name):
                continue
            if match := _FOLDER.fullmatch(relative.parts[0]):
                relative = Path(match[1], *relative.parts[1:])
            if relative in sources:
                if filecmp.cmp(sources[relative], path, shallow=False):
                    continue
                raise InputError(
                    f"'{sources[relative]}' and '{path}' have the same name",
                    hint="merge the parts of one run, whose outputs have different names",
                )
            sources[relative] = path
    return [
        (path, out / relative)
        for relative, path in sources.items()
        if path.resolve() != (out / relative).resolve()
    ]


def _check_targets(
    joined: Sequence[Path], copies: Iterable[tuple[Path, Path]], *, overwrite: bool
) -> None:
    """Raise an error for two files that would become one, and for existing ones."""
    for source, target in copies:
        if target in joined:
            raise InputError(
                f"'{source}' has the name of the records that are joined",
                hint="merge the parts of one run, without results of other runs",
            )
    existing = [path for path in (*joined, *(target for _, target in copies)) if path.is_file()]
    if existing and not overwrite:
        raise OutputError(
            f"'{existing[0]}' would be overwritten",
            hint="add --overwrite to replace it, or name another folder with --out",
        )


def _copy(source: Path, target: Path) -> None:
    make_folder(target.parent)
    part = target.with_name(f".{target.name}.part")
    with reporting(target):
        if source.is_symlink():
            part.symlink_to(source.resolve())
        else:
            shutil.copy2(source, part)
        part.replace(target)


def _join(parts: dict[str, list[_Part]], formats: Sequence[str], out: Path) -> None:
    """Write the joined records of all photos in each format."""
    records = out / planned_files(["jsonl"], PHOTOS_STEM)[0]
    make_folder(out)
    lines = b"".join(part.path.read_bytes() for part in parts[".jsonl"])
    write_bytes_atomic(records, lines)
    origin = read_origin(records) if lines else None
    info = RunInfo(origin.model, origin.detector, 0.0) if origin else RunInfo("", "", 0.0)
    names = _coco_names(parts.get(_suffix("coco"), ()))
    for name in formats:
        if name == "jsonl":
            continue
        if name in _TABLES:
            place = out / planned_files([name], PHOTOS_STEM)[0]
            write_bytes_atomic(place, _one_table(parts[_suffix(name)]))
            continue
        if name == "labels":
            place = out / planned_files([name], PHOTOS_STEM)[0]
            join_labels([part.path for part in parts[_suffix(name)]], place)
            continue
        sink = open_sink(name, out, info, PHOTOS_STEM)
        try:
            for frame, poses in _named(read_records(records), names if name == "coco" else None):
                sink.write(frame, poses)
        finally:
            sink.close()


def _one_table(parts: Iterable[_Part]) -> bytes:
    """Return the rows of all tables below one header line."""
    halves = [part.path.read_bytes().partition(b"\n") for part in parts]
    return b"".join([halves[0][0], halves[0][1], *(rows for _, _, rows in halves)])


def _named(
    records: Iterable[tuple[Frame, Poses]], names: Sequence[str] | None
) -> Iterator[tuple[Frame, Poses]]:
    """Yield records with the file names that COCO entries have, one entry a person.

    Photos with nobody have no entry; they use up numbers, so their names must differ as well.
    """
    place = 0
    for frame, poses in records:
        named = frame
        if names is not None:
            named = replace(frame, name=names[place] if len(poses) else frame.source)
        place += len(poses)
        yield named, poses


def _coco_names(parts: Iterable[_Part]) -> list[str]:
    names: list[str] = []
    for part in parts:
        try:
            names += [str(entry["file_name"]) for entry in json.loads(part.path.read_bytes())]
        except (ValueError, KeyError, TypeError) as error:
            raise InputError(
                f"'{part.path}' is no list of COCO results", hint="repeat that part"
            ) from error
    return names


def _labelled_people(part: _Part) -> int:
    try:
        return len(read_labels(part.path)["annotations"])
    except ValueError as error:
        raise InputError(
            f"'{part.path}' is no file of labels: {error}", hint="repeat that part"
        ) from error


def _suffix(name: str) -> str:
    """Return what stands behind the stem in a format's file; its folder's name for the others."""
    path = str(planned_files([name], PHOTOS_STEM)[0])
    return path.removeprefix(PHOTOS_STEM)
