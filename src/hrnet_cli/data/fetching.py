"""COCO's validation data, fetched and unpacked where it is missing.

What is fetched stands in ``downloads.toml``; the transfer itself is `hrnet_cli.download`.
"""

import logging
import shutil
import stat
import tomllib
import zipfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields
from pathlib import Path, PurePosixPath
from typing import Any

import orjson

from hrnet_cli.data.photo_folders import find_photo_folder
from hrnet_cli.download import Progress, UnreachableError, download, file_sha256, hash_fits
from hrnet_cli.errors import ConfigError, InputError, OutputError, WeightsError
from hrnet_cli.images import write_bytes_atomic

log = logging.getLogger(__name__)

MANIFEST = Path(__file__).with_name("downloads.toml")
ANNOTATIONS_ARCHIVE = "annotations_trainval2017"
SPLIT = "val2017"
ANNOTATIONS = f"annotations/person_keypoints_{SPLIT}.json"
# Archives lie here below the data folder until they are unpacked.
ARCHIVES = "downloads"
ANSWER_S = 30.0


@dataclass(frozen=True)
class Archive:
    """One zip file of the manifest.

    Attributes:
        name: Its name without suffix.
        urls: Mirrors, tried in order.
        sha256: Full hash.
        size_bytes: Length.
        members: What is taken out of it: files, and folders, which end with a slash.
        licence: Of the content.
    """

    name: str
    urls: tuple[str, ...]
    sha256: str
    size_bytes: int
    members: tuple[str, ...]
    licence: str

    @property
    def file_name(self) -> str:
        """Return the name of the file."""
        return f"{self.name}.zip"

    def wants(self, member: str) -> bool:
        """Return whether a member of the zip file is to be unpacked."""
        return any(
            member == own or (own[-1] == "/" and member.startswith(own)) for own in self.members
        )


def load_archives(path: Path = MANIFEST) -> dict[str, Archive]:
    """Return the archives of a manifest by name.

    Raises:
        ConfigError: The manifest is missing, or an entry is not complete.
    """
    try:
        tables = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigError(f"cannot read {path}: {error}") from error
    return {name: _archive(name, table, path) for name, table in tables.items()}


def fetch_val2017(
    folder: Path,
    *,
    archives: dict[str, Archive] | None = None,
    on_step: Callable[[str], None] = log.info,
    on_progress: Callable[[str], Progress | None] = lambda _title: None,
) -> None:
    """Bring annotations and photos of COCO val2017 into a folder, those that are missing there.

    Annotations that are there stay, whoever wrote them, and photos are fetched only when one that
    they name is missing. What an interrupted call left is used.

    Args:
        folder: Gets ``annotations/`` and ``val2017/``; made when it is not there.
        archives: None for those of the package.
        on_step: Called with a line for each thing done.
        on_progress: Called with a title at the start of each transfer; what it returns is called
            with the bytes so far and in all.

    Raises:
        InputError: An archive cannot be had, is another file, or lacks photos.
        OutputError: No space, or no permission to write.
    """
    archives = load_archives() if archives is None else archives
    annotations = folder / ANNOTATIONS
    if annotations.is_file():
        on_step(f"{annotations} is there already")
    else:
        _bring(archives[ANNOTATIONS_ARCHIVE], folder, on_step, on_progress)
    names = _photo_names(annotations)
    place, missing = _missing(names, annotations, folder)
    if not missing:
        on_step(f"all {len(names)} photos are in {place} already")
        return
    on_step(f"{len(missing)} of {len(names)} photos are missing in {place}")
    _bring(archives[SPLIT], folder, on_step, on_progress)
    missing = [name for name in names if not (folder / SPLIT / name).is_file()]
    if missing:
        raise InputError(
            f"{len(missing)} of {len(names)} photos that '{annotations}' names are not in"
            f" {archives[SPLIT].file_name}, such as '{missing[0]}'",
            hint=f"'{annotations}' is not COCO's: give another folder with --data",
        )


def unpack(path: Path, archive: Archive, folder: Path) -> tuple[int, int]:
    """Unpack the wanted members of a zip file, each whole or not at all.

    A file that is there with the right length stays. Nothing is written outside ``folder``.

    Args:
        path: The zip file.
        archive: Says what is wanted of it.
        folder: Where to.

    Returns:
        How many files were written, and how many are wanted.

    Raises:
        InputError: It is no zip file, is damaged, has none of what is wanted, or has a member
            whose path leads elsewhere.
        OutputError: No space, or no permission to write.
    """
    try:
        with zipfile.ZipFile(path) as file:
            wanted = list(_wanted(file, path, archive))
            new = [info for info in wanted if not _is_there(folder / info.filename, info)]
            _check_space(folder, sum(info.file_size for info in new))
            for info in new:
                write_bytes_atomic(folder / info.filename, file.read(info))
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError) as error:
        raise InputError(
            f"'{path}' cannot be unpacked: {error}", hint="remove it and run the command again"
        ) from error
    except OSError as error:
        raise InputError(f"'{path}' cannot be read: {error.strerror or error}") from error
    return len(new), len(wanted)


def _bring(
    archive: Archive,
    folder: Path,
    on_step: Callable[[str], None],
    on_progress: Callable[[str], Progress | None],
) -> None:
    target = folder / ARCHIVES / archive.file_name
    brought = target.is_file() and hash_fits(file_sha256(target), archive.sha256)
    if brought:
        on_step(f"{target} is there already")
    else:
        size = archive.size_bytes / 1e6
        on_step(f"fetching {archive.file_name}, {size:.0f} MB ({archive.licence})")
        _download(archive, target, on_progress(archive.file_name))
    written, wanted = unpack(target, archive, folder)
    on_step(f"unpacked {written} of {wanted} files of {archive.file_name} into {folder}")
    if not brought:
        target.unlink(missing_ok=True)
        _remove_empty(target.parent)


def _download(archive: Archive, target: Path, on_progress: Progress | None) -> None:
    """Fetch an archive; what goes wrong is said in the words of data, not of weights."""
    by_hand = f"fetch it by hand to '{target}' and run the command again"
    try:
        download(
            archive.urls,
            target,
            sha256=archive.sha256,
            size_bytes=archive.size_bytes,
            on_progress=on_progress,
            deadline_s=ANSWER_S,
        )
    except UnreachableError as error:
        resumes = target.with_name(f"{target.name}.part").exists()
        hint = (
            "run the command again: it goes on where it stopped"
            if resumes
            else f"check the network and HTTPS_PROXY, or {by_hand}"
        )
        raise InputError(error.message, hint=hint) from error
    except WeightsError as error:
        raise InputError(error.message, hint=f"it was replaced there; {by_hand}") from error
    except OutputError as error:
        raise OutputError(error.message, hint="name a folder elsewhere with --data") from error


def _remove_empty(folder: Path) -> None:
    if not any(folder.iterdir()):
        folder.rmdir()


def _archive(name: str, table: object, path: Path) -> Archive:
    expected = {field.name for field in fields(Archive)} - {"name"}
    if not isinstance(table, dict) or set(table) != expected:
        got = ", ".join(sorted(table)) if isinstance(table, dict) else repr(table)
        raise ConfigError(
            f"{path}, [{name}]: has {got}; expected the keys {', '.join(sorted(expected))}"
        )
    values: dict[str, Any] = {
        key: tuple(value) if isinstance(value, list) else value for key, value in table.items()
    }
    return Archive(name=name, **values)


def _photo_names(annotations: Path) -> list[str]:
    try:
        return [
            str(image["file_name"]) for image in orjson.loads(annotations.read_bytes())["images"]
        ]
    except (OSError, orjson.JSONDecodeError, LookupError, TypeError) as error:
        raise InputError(
            f"'{annotations}' names no photos as COCO's annotations do: {error}",
            hint="remove it to fetch COCO's",
        ) from error


def _missing(names: list[str], annotations: Path, folder: Path) -> tuple[Path, list[str]]:
    """Return the folder of the photos, where they are or will be, and those that are not there."""
    place = folder / SPLIT
    if names and not place.is_dir():
        try:
            place = find_photo_folder(names, annotations, SPLIT, folder)
        except InputError:
            log.debug("no photos in %s yet", folder)
    return place, [name for name in names if not (place / name).is_file()]


def _wanted(file: zipfile.ZipFile, path: Path, archive: Archive) -> Iterator[zipfile.ZipInfo]:
    found = [i for i in file.infolist() if archive.wants(i.filename) and not i.is_dir()]
    if not found:
        raise InputError(
            f"'{path}' has nothing of {', '.join(archive.members)}",
            hint="it is another archive: remove it and run the command again",
        )
    for info in found:
        member = PurePosixPath(info.filename)
        is_link = stat.S_ISLNK(info.external_attr >> 16)
        if is_link or member.is_absolute() or {"..", "\\", ":"} & {*member.parts, *info.filename}:
            raise InputError(
                f"'{path}' has a member '{info.filename}' that leads out of its folder; nothing was"
                " unpacked",
                hint="it is not COCO's archive: remove it",
            )
        yield info


def _is_there(path: Path, info: zipfile.ZipInfo) -> bool:
    return path.is_file() and path.stat().st_size == info.file_size


def _check_space(folder: Path, needed: int) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(folder).free
    except OSError as error:
        raise OutputError(
            f"cannot write into '{folder}': {error.strerror or error}",
            hint="name another folder with --data",
        ) from error
    if needed > free:
        raise OutputError(
            f"no space in '{folder}': {needed} bytes to unpack, {free} bytes free",
            hint="free some space, or name a folder elsewhere with --data",
        )
