"""Labels as read from files, before label weights are chosen; and the cache that keeps them.

A cache file is an uncompressed ``.npz`` without pickled objects. Its name is a hash of the path and
options of what was read; inside stands a stamp, a hash of the size and time of change of every file
read, so that a changed file is read anew and its cache file replaced.
"""

import hashlib
import json
import logging
import os
import struct
import zipfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from hrnet_cli.data.people import LabelledPeople
from hrnet_cli.errors import HrnetError
from hrnet_cli.schema import schema_from_dict, schema_to_dict
from hrnet_cli.scratch import cache_folder, written_whole

log = logging.getLogger(__name__)

FORMAT = "3"  # raise it when what is stored, or how files are read, changes
_SEPARATOR = "\0"  # cannot be part of a file name
# What numpy and zipfile raise on a damaged file.
_DAMAGE = (
    OSError, ValueError, LookupError, TypeError, EOFError, zipfile.BadZipFile, struct.error,
    NotImplementedError, RuntimeError, HrnetError,
)  # fmt: skip


@dataclass(frozen=True)
class Labels:
    """What a reader found.

    Attributes:
        people: The people; ``weights_NK`` holds the weights of the file alone, ``folder`` is not
            yet known.
        sources: Names in the annotations' ``source`` fields.
        source_of_N: int16 index into ``sources`` of each person, -1 for none.
        notes: What was derived or left out, a line each.
    """

    people: LabelledPeople
    sources: tuple[str, ...]
    source_of_N: npt.NDArray[np.int16]
    notes: tuple[str, ...]

    def weigh(
        self, by_source: Mapping[str, float], by_keypoint: Mapping[str, float]
    ) -> LabelledPeople:
        """Return the people with their weights multiplied by those of source and keypoint."""
        source_weights = np.array([by_source.get(name, 1.0) for name in self.sources] + [1.0])
        keypoint_weights_K = [by_keypoint.get(name, 1.0) for name in self.people.schema.keypoints]
        weights_NK = (
            self.people.weights_NK
            * source_weights[self.source_of_N][:, None]
            * np.array(keypoint_weights_K)
        )
        return replace(self.people, weights_NK=weights_NK.astype(np.float32))


@dataclass(frozen=True)
class Kept:
    """Where labels are kept, and the stamp they must have to be those of the files as they are."""

    path: Path
    stamp: str


def keep(source: Path, options: str, read: Iterable[tuple[str, os.stat_result]]) -> Kept:
    """Return where the labels of a data set are kept.

    Args:
        source: The file it is named by.
        options: All else that the labels depend on.
        read: Path and status of every file they are read from.
    """
    name = hashlib.sha256(f"{source.absolute()}\n{options}".encode("utf-8", "surrogateescape"))
    stamp = hashlib.sha256(FORMAT.encode())
    for path, status in read:
        line = f"{path}\0{status.st_size}\0{status.st_mtime_ns}\n"
        stamp.update(line.encode("utf-8", "surrogateescape"))
    return Kept(cache_folder() / "labels" / f"{name.hexdigest()[:32]}.npz", stamp.hexdigest())


def load(kept: Kept) -> Labels | None:
    """Return the labels of a cache file; None when there is none, or it is old or damaged."""
    if not kept.path.is_file():
        return None
    try:
        with np.load(kept.path, allow_pickle=False) as stored:
            if _text(stored["stamp"]) != kept.stamp:
                return None
            return _unpack({name: stored[name] for name in stored.files if name != "stamp"})
    except _DAMAGE as error:
        log.debug("%s is damaged and will be written anew: %s", kept.path, error)
        return None


def store(kept: Kept, labels: Labels) -> None:
    """Keep labels in a cache file; where that is not possible nothing is kept."""
    path = kept.path
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with written_whole(path) as part, part.open("xb") as file:
            np.savez(file, allow_pickle=False, stamp=_bytes(kept.stamp), **_pack(labels))
    except OSError as error:
        log.debug("%s cannot be written: %s", path, error)


def _pack(labels: Labels) -> dict[str, npt.NDArray[np.generic]]:
    people = labels.people
    texts = {
        "name": people.name,
        "schema": schema_to_dict(people.schema),
        "categories": list(people.categories.items()),
        "sources": labels.sources,
        "notes": labels.notes,
    }
    arrays = {field.name: getattr(people, field.name) for field in fields(people)}
    packed = {name: value for name, value in arrays.items() if isinstance(value, np.ndarray)}
    packed["source_of_N"] = labels.source_of_N
    packed["photos"] = _bytes(_SEPARATOR.join(people.photos))
    packed["texts"] = _bytes(json.dumps(texts))
    return packed


def _unpack(arrays: dict[str, npt.NDArray[np.generic]]) -> Labels:
    texts = json.loads(_text(arrays.pop("texts")))
    source_of_N = arrays.pop("source_of_N")
    photos = _text(arrays.pop("photos"))
    people = LabelledPeople(
        name=texts["name"],
        folder=Path(),
        schema=schema_from_dict(texts["schema"], where="cache"),
        photos=tuple(photos.split(_SEPARATOR)),
        categories=dict(texts["categories"]),
        **arrays,  # pyright: ignore[reportArgumentType] - the shapes are checked there
    )
    return Labels(people, tuple(texts["sources"]), source_of_N, tuple(texts["notes"]))  # pyright: ignore[reportArgumentType]


def _bytes(text: str) -> npt.NDArray[np.uint8]:
    return np.frombuffer(text.encode("utf-8", "surrogatepass"), np.uint8)


def _text(array: npt.NDArray[np.generic]) -> str:
    return array.tobytes().decode("utf-8", "surrogatepass")
