"""Weights by name: the list of all that are known, the folder they are kept in, and fetching.

A file is hashed every time it is used: 255 MB take about 0.2 s, little beside importing PyTorch,
and a damaged or exchanged file is never loaded.
"""

import hashlib
import logging
import tomllib
from dataclasses import fields
from difflib import get_close_matches
from functools import cache
from pathlib import Path
from typing import Any

from hrnet_cli.config import WeightsEntry
from hrnet_cli.download import (
    ANSWER_S,
    Progress,
    UnreachableError,
    copy_verified,
    download,
    file_sha256,
    hash_fits,
)
from hrnet_cli.errors import ConfigError, WeightsError
from hrnet_cli.scratch import cache_folder

log = logging.getLogger(__name__)

PACKAGE = Path(__file__).parent
LIST_NAME = "weights.toml"
# What `hrnet detect` uses when no other weights are named, and without a network.
DEFAULT_MODEL = "hrnet-w32"
DEFAULT_DETECTOR = "yolo26s"
STARTER_MODEL = "starter"
STARTER_DETECTOR = "starter-detector"
# With a starter at hand, a silent network is given up after this many seconds.
FALLBACK_DEADLINE_S = 6.0

_REQUIRED = ("kind", "sha256", "licence", "source")
_TYPES: dict[str, tuple[type, ...]] = {
    "size_bytes": (int,),
    "width": (int,),
    "published_ap": (int, float),
    "measured_ap": (int, float),
    "urls": (list,),
    "aliases": (list,),
    "input_hw": (list,),
}


# What tells a path that does not exist from a misspelt name.
FILE_SUFFIXES = (".pt", ".pth", ".onnx", ".safetensors", ".tar", ".torchscript", ".engine", ".xml",
                 ".mnn")  # fmt: skip


def weights_list_path(package: Path = PACKAGE) -> Path:
    """Return the path of ``weights.toml``: in the wheel's package, or beside pyproject.toml.

    Args:
        package: Folder of the package; two levels above it lies the project of an editable
            installation.

    Raises:
        ConfigError: It lies in neither place.
    """
    places = (package / LIST_NAME, package.parent.parent / LIST_NAME)
    for path in places:
        if path.is_file():
            return path
    raise ConfigError(
        f"{LIST_NAME} is neither {places[0]} nor {places[1]}", hint="reinstall hrnet-cli"
    )


def load_weights_list(path: Path | None = None) -> dict[str, WeightsEntry]:
    """Return all entries of ``weights.toml`` by name, in the order of the file.

    Raises:
        ConfigError: The file is missing or broken, a key is unknown, missing or of the wrong
            type, or a name or alias stands twice.
    """
    return dict(_read_list(path if path is not None else weights_list_path()))


def find_entry(name: str) -> WeightsEntry:
    """Return the entry with this name or alias.

    Raises:
        WeightsError: There is none; the nearest names are the hint.
    """
    by_name = _by_name_and_alias(weights_list_path())
    if name in by_name:
        return by_name[name]
    if "/" in name or Path(name).suffix in FILE_SUFFIXES:
        raise WeightsError(
            f"'{name}' is neither a file nor a name of {LIST_NAME}",
            hint=f"paths start from the current folder, {Path.cwd()}",
        )
    close = get_close_matches(name, by_name, n=3)
    guess = f"did you mean {', '.join(close)}? " if close else ""
    raise WeightsError(
        f"no weights are called '{name}'",
        hint=f"{guess}`hrnet download-weights --list` shows all names",
    )


def model_sha256(path: Path) -> str:
    """Return the sha256 of a model: a file, an OpenVINO graph with its weights, or a folder.

    Raises:
        InputError: A file cannot be read.
    """
    if path.is_dir():
        files = sorted(file for file in path.rglob("*") if file.is_file())
        hashes = [f"{file.relative_to(path).as_posix()} {file_sha256(file)}" for file in files]
        return hashlib.sha256("\n".join(hashes).encode(errors="surrogateescape")).hexdigest()
    values = path.with_suffix(".bin")
    if path.suffix.lower() != ".xml" or not values.is_file():
        return file_sha256(path)
    both = file_sha256(path) + file_sha256(values)
    return hashlib.sha256(both.encode()).hexdigest()


def identify(sha256: str) -> list[WeightsEntry]:
    """Return the entries that a file with this full hash is."""
    return [e for e in load_weights_list().values() if hash_fits(sha256, e.sha256)]


def is_listed_detector(path: Path) -> bool:
    """Return whether a file is a listed detector by its full hash, and so safe to unpickle.

    The first 8 digits, all that was published of some files, can be forged.
    """
    if not path.is_file():
        return False
    entries = identify(file_sha256(path))
    return any(entry.kind == "detector" and len(entry.sha256) == 64 for entry in entries)


def stored_path(entry: WeightsEntry) -> Path:
    """Return where the file of an entry lies, or would lie once fetched."""
    if entry.file:
        return PACKAGE / entry.file
    return cache_folder() / "weights" / entry.file_name


def is_stored(entry: WeightsEntry) -> bool:
    """Return whether the file is there with the right length; its hash is not checked."""
    path = stored_path(entry)
    return path.is_file() and entry.size_bytes in (None, path.stat().st_size)


def cached_path(entry: WeightsEntry) -> Path | None:
    """Return the file of an entry when it is on this machine and its hash is right, else None.

    Raises:
        InputError: The file is there and cannot be read.
    """
    path = stored_path(entry)
    if not path.is_file():
        return None
    actual = file_sha256(path)
    if hash_fits(actual, entry.sha256):
        return path
    log.warning("%s is damaged: sha256 %s, expected %s", path, actual, entry.sha256)
    return None


def fetch(
    entry: WeightsEntry,
    *,
    offline: bool = False,
    deadline_s: float = ANSWER_S,
    on_progress: Progress | None = None,
    overwrite: bool = False,
    mirror: str = "",
) -> Path:
    """Return the file of an entry, downloading it when it is not on this machine or damaged.

    Args:
        entry: What to fetch.
        offline: Never use the network.
        deadline_s: Seconds until the first byte, all mirrors together.
        on_progress: Called with the bytes so far and the total (None when unknown).
        overwrite: Download even when the right file is there.
        mirror: Base URL that holds files of the same names, used instead of the entry's URLs.

    Raises:
        UnreachableError: It is not here, and no mirror sent it or ``offline`` forbids asking.
        WeightsError: A mirror sent another file, or the file shipped with the package is damaged.
        OutputError: The cache folder cannot be written.
    """
    path = stored_path(entry)
    if entry.file:
        return _shipped(entry, path)
    if not overwrite and (found := cached_path(entry)) is not None:
        return found
    if offline:
        state = "damaged" if path.exists() else "missing"
        raise UnreachableError(
            f"{path}, the file of '{entry.name}', is {state} and --offline forbids downloading it",
            hint=f"without --offline run `hrnet download-weights {entry.name}`,"
            " or bring the file from another machine with `--from FILE`",
        )
    return download(
        [mirror_url(mirror, entry)] if mirror else entry.urls,
        path,
        sha256=entry.sha256,
        size_bytes=entry.size_bytes,
        on_progress=on_progress,
        deadline_s=deadline_s,
    )


def install_file(entry: WeightsEntry, source: Path) -> Path:
    """Copy a local file into the cache as the file of an entry, and return its place.

    Raises:
        WeightsError: It is another file, or the entry ships with the package.
        InputError: It cannot be read.
        OutputError: The cache folder cannot be written.
    """
    if entry.file:
        raise WeightsError(
            f"'{entry.name}' ships with the package and takes no other file",
            hint=f"give the path itself where a model is wanted: --model {source}",
        )
    return copy_verified(source, stored_path(entry), sha256=entry.sha256)


def mirror_url(mirror: str, entry: WeightsEntry) -> str:
    """Return the address of an entry's file on a mirror, given as its folder or the file itself."""
    if mirror.rsplit("/", 1)[-1] == entry.file_name:
        return mirror
    return f"{mirror.rstrip('/')}/{entry.file_name}"


def _shipped(entry: WeightsEntry, path: Path) -> Path:
    found = cached_path(entry)
    if found is None:
        state = "damaged" if path.exists() else "missing"
        raise WeightsError(
            f"{path}, the file of '{entry.name}' that ships with hrnet-cli, is {state}",
            hint="reinstall hrnet-cli",
        )
    return found


@cache
def _read_list(path: Path) -> dict[str, WeightsEntry]:
    try:
        tables = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigError(f"cannot read {path}: {error}") from error
    entries = {name: _entry(name, table, path) for name, table in tables.items()}
    taken = list(entries)
    for entry in entries.values():
        for alias in entry.aliases:
            if alias in taken:
                raise ConfigError(f"{path}: alias '{alias}' of '{entry.name}' stands twice")
            taken.append(alias)
    return entries


@cache
def _by_name_and_alias(path: Path) -> dict[str, WeightsEntry]:
    entries = _read_list(path)
    aliases = {alias: entry for entry in entries.values() for alias in entry.aliases}
    return {**entries, **aliases}


def _entry(name: str, table: object, path: Path) -> WeightsEntry:
    where = f"{path}, [{name}]"
    if not isinstance(table, dict):
        raise ConfigError(f"{where}: expected a table, is {table!r}")
    known = [field.name for field in fields(WeightsEntry) if field.name != "name"]
    for key, value in table.items():
        if key not in known:
            close = get_close_matches(key, known, n=1)
            hint = f"did you mean '{close[0]}'?" if close else f"known keys: {', '.join(known)}"
            raise ConfigError(f"{where}: unknown key '{key}'", hint=hint)
        _check_type(where, key, value)
    for key in _REQUIRED:
        if key not in table:
            raise ConfigError(f"{where}: key '{key}' is missing")
    try:
        return WeightsEntry(name=name, **_tuples(table))
    except ConfigError as error:
        raise ConfigError(f"{path}: {error.message}", hint=error.hint) from None


def _check_type(where: str, key: str, value: object) -> None:
    expected = _TYPES.get(key, (str,))
    if type(value) not in expected:
        names = " or ".join(kind.__name__ for kind in expected)
        raise ConfigError(f"{where}: {key} is {value!r}, expected {names}")
    if isinstance(value, list):
        item = int if key == "input_hw" else str
        if any(type(part) is not item for part in value) or (item is int and len(value) != 2):
            raise ConfigError(
                f"{where}: {key} is {value!r}, expected"
                f" {'[height, width]' if item is int else 'a list of texts'}"
            )


def _tuples(table: dict[str, Any]) -> dict[str, Any]:
    return {k: tuple(v) if isinstance(v, list) else v for k, v in table.items()}
