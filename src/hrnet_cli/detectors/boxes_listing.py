"""What a boxes file says of one picture, and the checks of the values in it."""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from hrnet_cli.errors import InputError
from hrnet_cli.structures import Boxes

# x1, y1, x2, y2
BoxCorners = tuple[float, float, float, float]
# No picture is so large; float32 still tells neighbouring pixels apart there.
_FARTHEST_PX = 1e6
# A detector's 1 may be a little more in float32.
_HIGHEST_SCORE = 1 + 1e-5
_NOT_A_NUMBER = (TypeError, ValueError, OverflowError)


@dataclass(frozen=True)
class Listing:
    """What a boxes file says of one picture.

    Attributes:
        photo: Path or file name as written in the file; empty where there is only a number.
        boxes: Its boxes; empty when the file lists the picture and nobody in it.
        places: Where in the file each box stands, such as ``line 3``.
        coco_id: Number of the picture in COCO results without file names.
        frame: Position in its video; 0 for a photo, None where the file does not tell.
        size_wh: (width, height) of the picture the boxes were made for, where the file tells.
    """

    photo: str
    boxes: Boxes
    places: tuple[str, ...]
    coco_id: int | None = None
    frame: int | None = None
    size_wh: tuple[int, int] | None = None

    def __str__(self) -> str:
        """Return how messages call the picture."""
        photo = self.photo or f"image_id {self.coco_id}"
        return f"{photo} frame {self.frame}" if self.frame else photo


@dataclass
class Rows:
    """The boxes of one picture while they are collected."""

    photo: str
    coco_id: int | None = None
    frame: int | None = None
    size_wh: tuple[int, int] | None = None
    boxes: list[BoxCorners] = field(default_factory=list[BoxCorners])
    scores: list[float] = field(default_factory=list[float])
    places: list[str] = field(default_factory=list[str])

    def add(self, box: BoxCorners, score: float, place: str) -> None:
        """Append a checked box."""
        self.boxes.append(box)
        self.scores.append(score)
        self.places.append(place)

    def listing(self) -> Listing:
        """Return what was collected."""
        return Listing(
            self.photo,
            Boxes(np.array(self.boxes, np.float32).reshape(-1, 4), np.array(self.scores)),
            tuple(self.places),
            self.coco_id,
            self.frame,
            self.size_wh,
        )


def whole_number(value: Any, where: str, key: str) -> int:  # noqa: ANN401 - any JSON
    """Return a whole number, also when it is written as 3.0 or "3"."""
    try:
        number = float(value)
    except _NOT_A_NUMBER:
        number = math.nan
    if not number.is_integer():
        raise InputError(f"{where}: {key} is {short(value)}, expected a whole number")
    return int(number)


def to_score(value: Any, where: str) -> float:  # noqa: ANN401 - any JSON
    """Return the score of a box; 1 where the file gives none, as annotations do."""
    if value is None:
        return 1.0
    (score,) = _numbers([value], where, "score")
    if not 0 <= score <= _HIGHEST_SCORE:
        raise InputError(
            f"{where}: score {score:g}, expected 0 to 1",
            hint="divide percents by 100" if 1 < score <= 100 else "",
        )
    return score


def from_corners(value: Any, where: str) -> BoxCorners:  # noqa: ANN401
    """Return a box given as x1, y1, x2, y2."""
    x1, y1, x2, y2 = _four(value, where, "x1, y1, x2, y2")
    if x2 <= x1 or y2 <= y1:
        raise InputError(
            f"{where}: box {short([x1, y1, x2, y2])} has no area; "
            "expected x1, y1, x2, y2 with x2 > x1 and y2 > y1"
        )
    return x1, y1, x2, y2


def from_xywh(value: Any, where: str) -> BoxCorners:  # noqa: ANN401
    """Return the corners of a box given as x, y, width, height."""
    x, y, width, height = _four(value, where, "x, y, width, height")
    if width <= 0 or height <= 0:
        raise InputError(
            f"{where}: box {short([x, y, width, height])} has no area; "
            "expected x, y, width, height with width and height above 0"
        )
    return x, y, x + width, y + height


def _four(value: Any, where: str, expected: str) -> list[float]:  # noqa: ANN401 - any JSON
    if value is None:
        raise InputError(f"{where} has no box; expected {expected}")
    if not isinstance(value, list) or len(value) != 4:
        raise InputError(f"{where}: box {short(value)}, expected 4 numbers {expected}")
    numbers = _numbers(value, where, "box")
    if not all(abs(number) <= _FARTHEST_PX for number in numbers):
        raise InputError(f"{where}: box {short(value)}, expected finite pixel positions")
    return numbers


def _numbers(values: Sequence[Any], where: str, what: str) -> list[float]:
    try:
        numbers = [math.nan if isinstance(value, bool) else float(value) for value in values]
    except _NOT_A_NUMBER as error:
        raise InputError(
            f"{where}: {what} {', '.join(map(short, values))}, expected numbers"
        ) from error
    return numbers


def short(value: Any) -> str:  # noqa: ANN401 - any JSON
    """Return a value for a message, numbers without needless digits."""
    if isinstance(value, list):
        return f"[{', '.join(map(short, value))}]"
    if isinstance(value, float):
        return f"{value:g}"
    text = value if isinstance(value, str) else json.dumps(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
