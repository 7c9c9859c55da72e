"""Reading records back: ``hrnet-poses/1`` JSON Lines -> frames and poses, and motion over time.

docs/output.md describes the records, `sinks/record.py` writes them.
"""

import json
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from functools import cache
from pathlib import Path
from typing import Any, NoReturn

import msgspec
import numpy as np

from hrnet_cli.errors import ConfigError, InputError
from hrnet_cli.schema import SCHEMAS, KeypointSchema, load_schema
from hrnet_cli.structures import Boxes, Frame, Poses

SCHEMA = "hrnet-poses/1"
# Numpy has no larger whole numbers, and no picture comes near.
_LARGEST = 2**31 - 1
_NO_POINT = (math.nan, math.nan)
_NO_KEYPOINT = (math.nan, math.nan, math.nan)
_NO_BOX = (math.nan,) * 4


class _Person(msgspec.Struct, gc=False):
    box: tuple[float, float, float, float] | None
    box_score: float | None
    score: float | None
    keypoints: list[tuple[float, float, float] | None]
    id: int | None = None
    keypoints_raw: list[tuple[float, float] | None] | None = None
    flags: list[int] | None = None


class _Record(msgspec.Struct, gc=False):
    schema: str
    source: str
    frame: int
    width: int
    height: int
    orientation: int
    keypoint_schema: str
    people: list[_Person]
    time_s: float | None = None
    pts: int | None = None
    time_base: str | None = None
    rotation: int = 0
    pixel_aspect: str | None = None
    keypoint_names: tuple[str, ...] | None = None
    model: str | None = None
    detector: str | None = None


def read_records(
    path: Path, *, schema: KeypointSchema | None = None, allow_cut: bool = False
) -> Iterator[tuple[Frame, Poses]]:
    """Yield the picture and the people of each record, in the order of the file.

    The pictures are black and take no memory; their name is the file name of the source. Writing
    what is read gives the same lines, apart from the names of model and detector and from fields
    that are not known.

    Args:
        path: A JSON Lines file that `hrnet detect` wrote.
        schema: Stands in for a schema of the same name and keypoints that is not built in, whose
            limbs records do not tell.
        allow_cut: End at a last line that was cut; otherwise it is an error.

    Raises:
        InputError: The file cannot be read, or a line of it is no such record; the message names
            the line.
    """
    try:
        with path.open("rb") as file:
            for number, line in enumerate(file, start=1):
                where = f"'{path}' line {number}"
                parsed = _parse(line, where, allow_cut=allow_cut)
                if parsed is None:
                    return
                yield _convert(parsed, where, schema)
    except OSError as error:
        raise InputError(f"records '{path}' cannot be read: {error.strerror}") from error


@dataclass(frozen=True)
class Origin:
    """What the first record of a file says of all of them.

    Attributes:
        source: Path or address of the first picture, as it was given.
        is_video: Whether it is a frame of a video.
        model: Name of the pose model; empty where the record does not tell it.
        detector: Name of the person detector; empty where the record does not tell it.
    """

    source: str
    is_video: bool
    model: str
    detector: str


def read_origin(path: Path) -> Origin:
    """Return what the first record of a file says.

    Raises:
        InputError: The file cannot be read, is empty, or begins with something else.
    """
    try:
        with path.open("rb") as file:
            line = file.readline()
    except OSError as error:
        raise InputError(f"records '{path}' cannot be read: {error.strerror}") from error
    if not line:
        raise InputError(f"'{path}' is empty, expected the JSON Lines that `hrnet detect` writes")
    fields = _parse(line, f"'{path}' line 1", allow_cut=False)
    if fields is None:
        raise ValueError("a cut line is an error here")
    makers = fields.model or "", fields.detector or ""
    return Origin(fields.source, fields.time_s is not None, *makers)


@dataclass(frozen=True)
class Track:
    """The motion of one person, from the first to the last frame that shows it.

    Attributes:
        id: Identity as in the records; None where the video shows one person without ids.
        frames_T: int64 position of each frame in its video.
        times_T: float64 seconds from the first frame of the video.
        keypoints_TK2: float64 (x, y) in pixels; NaN in frames that do not show the person, and for
            keypoints left out.
        scores_TK: float64 keypoint scores; NaN in the same places.
    """

    id: int | None
    frames_T: np.ndarray
    times_T: np.ndarray
    keypoints_TK2: np.ndarray
    scores_TK: np.ndarray


class TrackCollector:
    """Collects the people of one frame after the other by their identity."""

    def __init__(self) -> None:
        self._frames: list[int] = []
        self._times: list[float] = []
        # For each person: positions in the lists above, and float32 (K, 3) x, y, score there.
        self._people: dict[int | None, list[tuple[int, np.ndarray]]] = {}

    def add(
        self,
        frame: Frame,
        ids: Iterable[int] | None,
        keypoints_NK2: np.ndarray,
        scores_NK: np.ndarray,
    ) -> None:
        """Add the people of one frame, which may be nobody.

        Args:
            frame: The frame; it comes after the frames before it.
            ids: Identity of each person; None without tracking.
            keypoints_NK2: (x, y) in pixels.
            scores_NK: Keypoint scores.

        Raises:
            InputError: The frame is a photo, or it is not clear who is who.
        """
        if frame.time_s is None:
            raise InputError(
                f"'{frame.source}' is a photo, expected a video: motion needs times",
                hint="leave photos out, or choose another --format",
            )
        names: list[int | None] = [None] * len(keypoints_NK2) if ids is None else list(ids)
        self._check(frame, names)
        position = len(self._frames)
        self._frames.append(frame.index)
        self._times.append(frame.time_s)
        triples_NK3 = np.concatenate([keypoints_NK2, scores_NK[..., None]], axis=-1)
        for name, triples_K3 in zip(names, triples_NK3.astype(np.float32), strict=True):
            self._people.setdefault(name, []).append((position, triples_K3))

    def tracks(self) -> list[Track]:
        """Return the motion of each person, in the order of their first appearance."""
        return [self._track(name, shown) for name, shown in self._people.items()]

    def _check(self, frame: Frame, names: list[int | None]) -> None:
        place = f"frame {frame.index} of '{frame.source}'"
        if len(set(names)) < len(names):
            twice = next(name for name in names if names.count(name) > 1)
            if twice is None:
                raise InputError(
                    f"{place} shows {len(names)} people without ids: motion needs --track",
                    hint="add --track, or choose another --format",
                )
            raise InputError(f"{place} has id {twice} more than once, expected different ids")
        if names and self._people and (None in names) != (None in self._people):
            raise InputError(
                f"{place} has people {'without' if None in names else 'with'} ids, unlike the"
                " frames before",
                hint="track all of a video or nothing of it",
            )

    def _track(self, name: int | None, shown: list[tuple[int, np.ndarray]]) -> Track:
        first, last = shown[0][0], shown[-1][0]
        triples_TK3 = np.full((last - first + 1, *shown[0][1].shape), np.nan)
        for position, triples_K3 in shown:
            triples_TK3[position - first] = triples_K3
        return Track(
            name,
            np.array(self._frames[first : last + 1], dtype=np.int64),
            np.array(self._times[first : last + 1], dtype=np.float64),
            triples_TK3[..., :2],
            triples_TK3[..., 2],
        )


def tracks(records: Iterable[tuple[Frame, Poses]]) -> list[Track]:
    """Return the motion of each person of a video, in the order of their first appearance.

    A video that never shows more than one person needs no ids: that is one track.

    Raises:
        InputError: A record is of a photo, or it is not clear who is who.
    """
    collector = TrackCollector()
    for frame, poses in records:
        ids = None if poses.track_ids_N is None else poses.track_ids_N.tolist()
        collector.add(frame, ids, poses.keypoints_NK2, poses.scores_NK)
    return collector.tracks()


def mean_rate(times_T: np.ndarray) -> float | None:
    """Return the mean frames a second of rising times; None of fewer than two."""
    if len(times_T) < 2 or times_T[-1] <= times_T[0]:
        return None
    return float((len(times_T) - 1) / (times_T[-1] - times_T[0]))


def _parse(line: bytes, where: str, *, allow_cut: bool) -> _Record | None:
    """Return the record of a line; None for a cut one where that is allowed."""
    try:
        value = json.loads(line, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        if not line.endswith(b"\n"):
            if allow_cut:
                return None
            raise InputError(
                f"{where} is cut: the run that wrote it was stopped",
                hint="finish it with --resume",
            ) from error
        raise InputError(f"{where} is not readable as JSON: {error}") from error
    found = value.get("schema") if isinstance(value, dict) else None
    if found != SCHEMA:
        raise InputError(
            f"{where} is no pose record: its schema is {found!r}, expected '{SCHEMA}'",
            hint="expected the JSON Lines that `hrnet detect` writes",
        )
    try:
        return msgspec.convert(value, _Record)
    except msgspec.ValidationError as error:
        raise InputError(f"{where}: {error}") from error


def _convert(fields: _Record, where: str, known: KeypointSchema | None) -> tuple[Frame, Poses]:
    schema = _schema(fields.keypoint_schema, fields.keypoint_names, known, where)
    for name in ("width", "height"):
        value = getattr(fields, name)
        if not 1 <= value <= _LARGEST:
            raise InputError(f"{where}: {name} is {value}, expected at least 1 pixel")
    for number, person in enumerate(fields.people):
        _check_person(person, len(schema), f"{where}: people[{number}]")
    black = np.broadcast_to(np.zeros((1, 1, 3), np.uint8), (fields.height, fields.width, 3))
    frame = Frame(
        black,
        fields.source,
        Path(fields.source).name,
        index=fields.frame,
        time_s=fields.time_s,
        orientation=fields.orientation,
        pts=fields.pts,
        time_base=_fraction(fields.time_base, f"{where}: time_base", "seconds such as '1/12800'"),
        rotation=fields.rotation,
        pixel_aspect=_fraction(
            fields.pixel_aspect, f"{where}: pixel_aspect", "a fraction such as '4/3'"
        )
        or Fraction(1),
    )
    return frame, _poses(fields.people, schema, where)


def _check_person(person: _Person, count: int, where: str) -> None:
    for name in ("keypoints", "keypoints_raw", "flags"):
        values = getattr(person, name)
        if values is not None and len(values) != count:
            raise InputError(
                f"{where}.{name} has {len(values)} entries, expected {count}, one a keypoint"
            )
    if person.flags is not None and not all(0 <= flags <= 255 for flags in person.flags):
        raise InputError(f"{where}.flags is {person.flags}, expected numbers from 0 to 255")
    if person.id is not None and abs(person.id) >= 2**63:
        raise InputError(f"{where}.id is {person.id}, expected less than 2 to the 63")


def _poses(people: list[_Person], schema: KeypointSchema, where: str) -> Poses:
    count = len(schema)
    points = [person.keypoints for person in people]
    triples_NK3 = _array(points, _NO_KEYPOINT, (len(people), count, 3))
    boxes = Boxes(
        np.array([person.box or _NO_BOX for person in people]).reshape(-1, 4),
        _numbers([person.box_score for person in people]),
    )
    ids = _all_or_none([person.id for person in people], where, "id")
    raw = _all_or_none([person.keypoints_raw for person in people], where, "keypoints_raw")
    flags = _all_or_none([person.flags for person in people], where, "flags")
    return Poses(
        triples_NK3[..., :2],
        triples_NK3[..., 2],
        _numbers([person.score for person in people]),
        boxes,
        schema,
        track_ids_N=None if ids is None else np.array(ids, dtype=np.int64),
        raw_keypoints_NK2=(
            None
            if raw is None
            else _array(raw, _NO_POINT, (len(people), count, 2)).astype(np.float32)
        ),
        flags_NK=None if flags is None else np.array(flags, dtype=np.uint8),
    )


def _all_or_none(values: list[Any], where: str, name: str) -> list[Any] | None:
    """Return the values, None if nobody has one; one for some of the people is an error."""
    present = [value is not None for value in values]
    if not any(present):
        return None
    if not all(present):
        missing = present.index(False)
        raise InputError(f"{where}: people[{missing}] has no {name}, unlike others of its picture")
    return values


def _array(
    lists: list[list[Any]], missing: tuple[float, ...], shape: tuple[int, ...]
) -> np.ndarray:
    filled = [[values or missing for values in person] for person in lists]
    return np.array(filled, dtype=np.float64).reshape(shape)


def _numbers(values: list[float | None]) -> np.ndarray:
    return np.array([math.nan if value is None else value for value in values], dtype=np.float64)


def _fraction(text: str | None, field: str, expected: str) -> Fraction | None:
    if text is None:
        return None
    try:
        value = Fraction(text)
    except (ValueError, ZeroDivisionError):
        value = Fraction(0)
    if value <= 0:
        raise InputError(f"{field} is '{text}', expected {expected}")
    return value


def _schema(
    name: str, names: tuple[str, ...] | None, known: KeypointSchema | None, where: str
) -> KeypointSchema:
    if known is not None and (known.name, known.keypoints) == (name, names):
        return known
    if names is None and name not in SCHEMAS:
        raise InputError(
            f"{where}: keypoint schema '{name}' is not known, and there are no keypoint_names",
            hint=f"built in are {', '.join(SCHEMAS)}",
        )
    try:
        return _schema_of(name, names)
    except ConfigError as error:
        raise InputError(f"{where}: {error.message}") from error


@cache
def _schema_of(name: str, names: tuple[str, ...] | None) -> KeypointSchema:
    return load_schema(name) if names is None else KeypointSchema(name, names)


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON number")
