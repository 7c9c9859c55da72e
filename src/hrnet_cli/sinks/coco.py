"""COCO keypoint results: one list for all pictures, as ``pycocotools`` reads it."""

import json
from pathlib import Path, PurePosixPath
from typing import Any, NoReturn

from hrnet_cli.errors import OutputError
from hrnet_cli.sinks import RunInfo
from hrnet_cli.sinks.files import GrowingFile, frame_name, open_file, output_name, reporting
from hrnet_cli.sinks.record import COORDINATE_DECIMALS, flat_triples, record, to_json
from hrnet_cli.structures import Frame, Poses

CATEGORY_ID = 1
# Whole numbers up to 15 digits are exact in every JSON reader.
_ID_DIGITS = 15


def results(
    frame: Frame, poses: Poses, info: RunInfo, *, image_id: int, file_name: str
) -> list[dict[str, Any]]:
    """Return the COCO results of one picture, one for each person.

    Args:
        frame: The picture.
        poses: Its people.
        info: What happens to low keypoints.
        image_id: Number of the picture in the annotations.
        file_name: Name written beside it.
    """
    return [
        _result(person, {"image_id": image_id, "file_name": file_name})
        for person in record(frame, poses, info)["people"]
    ]


class ImageIds:
    """Numbers pictures: as they wish, or else with a running number; the same picture once.

    Args:
        known: Numbers already given, by file name; running numbers go on after the highest.
    """

    def __init__(self, known: dict[str, int]) -> None:
        self._ids = dict(known)
        self._taken = set(known.values())
        self._last = max(self._taken, default=0)

    def of(self, file_name: str, *, wish: int | None) -> int:
        """Return the number of a picture, the same for the same name.

        Args:
            file_name: Its name in the results.
            wish: Number it gets unless that is taken; None for the next free one.
        """
        if file_name in self._ids:
            return self._ids[file_name]
        number = self._next() if wish is None or wish in self._taken else wish
        self._taken.add(number)
        self._ids[file_name] = number
        return number

    def _next(self) -> int:
        self._last += 1
        while self._last in self._taken:
            self._last += 1
        return self._last


class CocoSink:
    """Extends a list beside the final file, and puts it in place at the end.

    Args:
        file: Holds a whole JSON list after every picture.
        path: Where that list goes when it is finished.
        ids: Numbers the pictures.
        info: What all pictures share.
        started: The list has entries already.
    """

    def __init__(
        self, file: GrowingFile, path: Path, ids: ImageIds, info: RunInfo, *, started: bool
    ) -> None:
        self._file = file
        self._path = path
        self._ids = ids
        self._info = info
        self._started = started
        self._closed = False

    def write(self, frame: Frame, poses: Poses) -> None:
        """Add the results of one picture: none when nobody is in it."""
        file_name = output_name(frame)
        if frame.time_s is None:
            wish = number_in(file_name)
        else:
            file_name = frame_name(file_name, frame.index)
            wish = frame.index + 1
        image_id = self._ids.of(file_name, wish=wish)
        entries = results(frame, poses, self._info, image_id=image_id, file_name=file_name)
        if entries:
            self._file.append(_lines(entries, started=self._started))
            self._started = True

    def close(self) -> None:
        """Put the list in its place.

        Raises:
            OutputError: It cannot be put there; it stays beside it, and the message says where.
        """
        if self._closed:
            return
        self._closed = True
        self._file.close()
        try:
            with reporting(self._path):
                self._file.path.replace(self._path)
        except OutputError as error:
            kept = f"; the results are in '{self._file.path}'" if self._file.path.exists() else ""
            raise OutputError(error.message + kept, hint=error.hint) from error


def open_coco(path: Path, info: RunInfo) -> CocoSink:
    """Start a list of results, or go on with one.

    Raises:
        OutputError: It cannot be written, or what is there is no list of COCO results.
    """
    with reporting(path):
        known = _load(path) if info.append and path.exists() else []
    file = open_file(path.with_name(f"{path.name}.part"), tail=b"\n]\n")
    file.append(b"[")
    if known:
        file.append(_lines(known, started=False))
    ids = ImageIds({entry.get("file_name", ""): entry["image_id"] for entry in known})
    return CocoSink(file, path, ids, info, started=bool(known))


def _result(person: dict[str, Any], picture: dict[str, Any]) -> dict[str, Any]:
    x1, y1, x2, y2 = person["box"] or (0.0, 0.0, 0.0, 0.0)
    size_wh = (round(x2 - x1, COORDINATE_DECIMALS), round(y2 - y1, COORDINATE_DECIMALS))
    entry = {
        **picture,
        "category_id": CATEGORY_ID,
        "keypoints": flat_triples(person["keypoints"]),
        "score": person["score"] or 0.0,
        "bbox": [x1, y1, *size_wh],
    }
    return entry if person["id"] is None else {**entry, "track_id": person["id"]}


def _lines(entries: list[dict[str, Any]], *, started: bool) -> bytes:
    return (b"," if started else b"") + b"\n" + b",\n".join(map(to_json, entries))


def number_in(file_name: str) -> int | None:
    """Return the number of a picture whose name is all digits, as in COCO; None for others."""
    stem = PurePosixPath(file_name).stem
    fits = stem.isascii() and stem.isdecimal() and len(stem) <= _ID_DIGITS
    return int(stem) if fits else None


def _load(path: Path) -> list[dict[str, Any]]:
    try:
        entries = json.loads(path.read_bytes(), parse_constant=_refuse_constant)
    except ValueError as error:
        raise _cannot_append(path, f"not readable as JSON: {error}") from error
    if not isinstance(entries, list):
        raise _cannot_append(path, f"it holds a {type(entries).__name__}, expected a list")
    for position, entry in enumerate(entries):
        if not isinstance(entry, dict) or type(entry.get("image_id")) is not int:
            raise _cannot_append(path, f"entry {position} has no whole number as 'image_id'")
    return entries


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON number")


def _cannot_append(path: Path, reason: str) -> OutputError:
    return OutputError(
        f"cannot append to '{path}': {reason}",
        hint="replace it with --overwrite, or name another folder with --out",
    )
