"""Reading files of person boxes: our JSON Lines, COCO JSON, CSV. The content tells the format.

Every box is checked when it is read; an error names the file, the line or entry, the photo and
the box.
"""

import csv
import io
import json
import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hrnet_cli.detectors.boxes_listing import (
    BoxCorners,
    Listing,
    Rows,
    from_corners,
    from_xywh,
    short,
    to_score,
    whole_number,
)
from hrnet_cli.detectors.classes import class_indices, folded_classes
from hrnet_cli.errors import InputError

log = logging.getLogger(__name__)

# COCO numbers its 80 classes 1 to 90; a list of results carries the numbers without the names.
COCO_PERSON_ID = 1
_MODEL_SUFFIXES = (".pt", ".pth", ".onnx", ".safetensors", ".engine")
_EXPECTED = (
    "expected JSON Lines as hrnet writes them, COCO results or annotations (JSON), "
    "or CSV with a header"
)
_PHOTO_KEYS = ("source", "file_name", "file", "image", "filename", "path")
FRAME_KEYS = ("frame", "frame_id", "frame_index", "frame_idx", "frame_number")
_SCORE_COLUMNS = ("box_score", "score", "confidence")
# Names before numbers; beside the numbers of YOLOv5's tables stands "name".
_CLASS_COLUMNS = ("class_name", "label", "class")
_CORNER_COLUMNS = (
    ("box_x1", "box_y1", "box_x2", "box_y2"),
    ("x1", "y1", "x2", "y2"),
    ("xmin", "ymin", "xmax", "ymax"),
)
_SEPARATORS = ",;\t"
_SIZE_COLUMNS = (("x", "y", "w", "h"), ("x", "y", "width", "height"))


def read_listings(
    path: Path,
    class_name: str,
    categories: Mapping[int, str] | None = None,
    on_warning: Callable[[str], None] = log.warning,
) -> tuple[list[Listing], bool]:
    """Return what a boxes file says, picture by picture, in the order of the file.

    Also return whether its form can name a picture with nobody in it: records and COCO annotations
    can; CSV rows and COCO results, one for each box, cannot.

    Args:
        path: The file.
        class_name: Boxes of other classes are left out, where the file tells classes.
        categories: Names of a data set's categories by number, for COCO results, which carry the
            numbers alone; None or empty for COCO's own, of which only the person is known.
        on_warning: Called with one line when no box is left.

    Raises:
        InputError: The file cannot be read or used.
    """
    owner = f"boxes file '{path}'"
    try:
        listings, can_say_nobody = _read(path, owner, class_name, categories or {})
    except MemoryError as error:
        raise InputError(
            f"{owner} needs more memory than is free", hint="give each part of it its own run"
        ) from error
    if not any(len(listing.boxes) for listing in listings):
        on_warning(f"{owner} has no box of class '{class_name}': nobody is found with it")
    return listings, can_say_nobody


def _read(
    path: Path, owner: str, class_name: str, categories: Mapping[int, str]
) -> tuple[list[Listing], bool]:
    text = _read_text(path, owner)
    start = text.lstrip()[:1]
    if not start:
        raise InputError(f"{owner} is empty", hint=_EXPECTED)
    if start not in "[{":
        return _from_csv(text, class_name, owner), False
    try:
        document = json.loads(text)
    except (ValueError, RecursionError) as error:
        if start == "[":
            place = f"line {error.lineno}: " if isinstance(error, json.JSONDecodeError) else ""
            raise InputError(
                f"{owner} is not JSON: {place}{_why_not_json(error)}", hint=_EXPECTED
            ) from error
        return [_from_record(*line) for line in _json_lines(text, owner)], True
    if isinstance(document, dict):
        if "images" in document:
            return _from_coco_annotations(document, class_name, owner), True
        return [_from_record(document, "line 1", owner)], True
    if document and isinstance(document[0], dict) and "people" in document[0]:
        return [
            _from_record(record, f"entry {number}", owner) for number, record in _numbered(document)
        ], True
    return _from_coco_results(document, class_name, categories, owner), False


def _read_text(path: Path, owner: str) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise InputError(f"{owner} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        model = path.suffix.lower() in _MODEL_SUFFIXES
        raise InputError(
            f"{owner} is {'a model' if model else 'not UTF-8 text'}",
            hint="a detector is named with --detector, and hrnet eval wants --boxes detector, too"
            if model
            else _EXPECTED,
        ) from error


def _json_lines(text: str, owner: str) -> Iterator[tuple[Any, str, str]]:
    for number, line in _numbered(text.split("\n")):
        if not line.strip():
            continue
        try:
            yield json.loads(line), f"line {number}", owner
        except (ValueError, RecursionError) as error:
            raise InputError(
                f"{owner}, line {number} is not JSON: {_why_not_json(error)}", hint=_EXPECTED
            ) from error


def _why_not_json(error: ValueError | RecursionError) -> str:
    """Return what is wrong with a text; numbers and nesting beyond all limits are told apart."""
    if isinstance(error, RecursionError):
        return "it is nested too deeply"
    return error.msg if isinstance(error, json.JSONDecodeError) else "a number is too long"


def _numbered(items: Sequence[Any]) -> Iterable[tuple[int, Any]]:
    return enumerate(items, start=1)


def _from_record(record: Any, place: str, owner: str) -> Listing:  # noqa: ANN401 - any JSON
    fields = _mapping(record, f"{owner}, {place}")
    photo = _photo_of(fields, f"{owner}, {place}")
    where = f"{owner}, {place}, source '{photo}'"
    people = fields.get("people")
    if not isinstance(people, list):
        raise InputError(
            f"{where} has no list of people",
            hint='expected {"source": "photo.jpg", "people": [{"box": [x1, y1, x2, y2]}]}',
        )
    rows = Rows(photo, frame=_frame_of(fields, where))
    rows.size_wh = _size_wh(fields, where)
    for number, person in _numbered(people):
        here = f"{where}, person {number}"
        about = _mapping(person, here)
        score = to_score(about.get("box_score", about.get("score")), here)
        rows.add(from_corners(about.get("box"), here), score, f"{place}, person {number}")
    return rows.listing()


def _from_coco_annotations(
    document: Mapping[str, Any], class_name: str, owner: str
) -> list[Listing]:
    """Read a COCO annotation file: it lists every picture, so one without boxes has nobody."""
    names = {
        whole_number(category["id"], owner, "category id"): str(category["name"])
        for category in _entries(document, "categories", owner, needed=("id", "name"))
    }
    wanted = class_indices(names, class_name, owner)
    pictures: dict[str, Rows] = {}
    for image in _entries(document, "images", owner, needed=("id", "file_name")):
        rows = pictures[str(image["id"])] = Rows(str(image["file_name"]))
        rows.size_wh = _size_wh(image, owner)
    entries = _entries(document, "annotations", owner, needed=("image_id", "category_id"))
    for number, entry in _numbered(entries):
        place = f"annotation {number}"
        rows = pictures.get(str(entry["image_id"]))
        if rows is None:
            raise InputError(
                f"{owner}, {place}: image_id {short(entry['image_id'])} is not among its images"
            )
        # A crowd box covers a group: it is nobody's person box.
        category = whole_number(entry["category_id"], f"{owner}, {place}", "category_id")
        if category in wanted and not entry.get("iscrowd"):
            _add_coco_box(rows, entry, place, owner)
    return [rows.listing() for rows in pictures.values()]


def _from_coco_results(
    document: Sequence[Any], class_name: str, categories: Mapping[int, str], owner: str
) -> list[Listing]:
    """Read COCO results: a picture without boxes is not in them at all."""
    pictures: dict[tuple[str, int | None], Rows] = {}
    names = categories or {COCO_PERSON_ID: "person"}
    numbered = any(isinstance(i, dict) and i.get("category_id") is not None for i in document)
    wanted = _wanted_names(class_name, names, known=bool(categories)) if numbered else {}
    others: set[int] = set()
    for number, item in _numbered(document):
        place = f"entry {number}"
        entry = _mapping(item, f"{owner}, {place}")
        photo, coco_id = _coco_picture(entry, f"{owner}, {place}")
        rows = pictures.setdefault((photo, coco_id), Rows(photo, coco_id))
        category = _category_of(entry, f"{owner}, {place}")
        if category is not None:
            _check_category(category, names, wanted, class_name, f"{owner}, {place}")
        if category is None or category in wanted:
            _add_coco_box(rows, entry, place, owner)
        else:
            others.add(category)
    if categories and others and not any(rows.boxes for rows in pictures.values()):
        raise InputError(
            f"{owner} has boxes with category_id {_listed(others)}, but the data set has"
            f" {_listed(wanted)} ({', '.join(wanted.values())})",
            hint="write the data set's number, or leave category_id out",
        )
    return [rows.listing() for rows in pictures.values()]


def _wanted_names(class_name: str, names: Mapping[int, str], *, known: bool) -> Mapping[int, str]:
    """Return the categories to take: those of the class, all where nobody chose one.

    Args:
        class_name: As the user gave it; ``person`` is what is meant where nothing was given.
        names: Categories by number.
        known: Whether they are those of the data set; COCO's others have no names here.
    """
    usual = folded_classes(class_name) == {"person"}
    if usual and "person" not in map(str.casefold, names.values()):
        return names
    if not usual and not known:
        return {}
    return {number: names[number] for number in class_indices(names, class_name, "the data set")}


def _coco_picture(entry: Mapping[str, Any], where: str) -> tuple[str, int | None]:
    """Return the file name, or the number, of the picture a COCO result speaks of."""
    image_id = entry.get("image_id")
    for name in (entry.get("file_name"), image_id):
        if isinstance(name, str) and name:
            return (name, None) if not name.isdecimal() else ("", int(name))
    if isinstance(image_id, int) and not isinstance(image_id, bool):
        return "", image_id
    raise InputError(
        f"{where} has no image_id",
        hint='expected {"image_id": 785, "category_id": 1, "bbox": [x, y, w, h], "score": 0.9}',
    )


def _category_of(entry: Mapping[str, Any], where: str) -> int | None:
    category = entry.get("category_id")
    return None if category is None else whole_number(category, where, "category_id")


def _check_category(
    category: int, names: Mapping[int, str], wanted: Mapping[int, str], class_name: str, where: str
) -> None:
    """Refuse the number of a class where nothing tells what it means."""
    if not wanted:
        raise InputError(
            f"{where} has the class number {category}, and results carry no class names, so "
            f"'{class_name}' cannot be told from others",
            hint="leave category_id out, or give an annotation file with categories",
        )
    if category == 0 and 0 not in names:
        first = min(names)
        raise InputError(
            f"{where}: category_id 0, but COCO counts from 1; {first} is {names[first]}",
            hint=f"write {first}, or leave category_id out",
        )


def _listed(numbers: Iterable[int]) -> str:
    return short(", ".join(map(str, sorted(numbers))))


def _add_coco_box(rows: Rows, entry: Mapping[str, Any], place: str, owner: str) -> None:
    where = f"{owner}, {place}, source '{rows.photo or rows.coco_id}'"
    rows.add(from_xywh(entry.get("bbox"), where), to_score(entry.get("score"), where), place)


def _from_csv(text: str, class_name: str, owner: str) -> list[Listing]:
    # Spreadsheets write what their language has; the header tells it.
    separator = max(_SEPARATORS, key=text.lstrip().split("\n", 1)[0].count)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator, skipinitialspace=True)
    try:
        table = _csv_table(next(reader), class_name, owner)
        rows = [
            table.row(values, reader.line_num)
            for values in reader
            if any(value.strip() for value in values)
        ]
    except csv.Error as error:
        raise InputError(
            f"{owner}, line {reader.line_num} is not CSV: {error}", hint=_EXPECTED
        ) from error
    if not any(row.box_fields for row in rows):
        _refuse_other_classes([row.other_class for row in rows], class_name, owner)
    pictures: dict[tuple[str, int | None], Rows] = {}
    for row in _first_of_each_person(rows):
        picture = pictures.setdefault((row.photo, row.frame), Rows(row.photo, frame=row.frame))
        if row.box_fields:
            box = table.to_box(row.box_fields, row.where)
            picture.add(box, to_score(row.score, row.where), row.place)
    return [picture.listing() for picture in pictures.values()]


@dataclass(frozen=True)
class _CsvRow:
    """One row: empty box fields list the photo and nobody in it."""

    photo: str
    frame: int | None
    person: str
    box_fields: list[str]
    score: str | None
    place: str
    where: str
    other_class: str = ""  # of a box that is left out for it


@dataclass(frozen=True)
class _CsvTable:
    """Which columns of a CSV file say what."""

    header: list[str]
    photo_column: str
    box_columns: tuple[str, str, str, str]
    to_box: Callable[[Any, str], BoxCorners]
    class_name: str
    owner: str

    def row(self, values: list[str], line: int) -> _CsvRow:
        """Return the row of a line; the box fields of another class are left out."""
        place = f"line {line}"
        if len(values) != len(self.header):
            raise InputError(
                f"{self.owner}, {place} has {len(values)} fields, "
                f"expected {len(self.header)} as in its header"
            )
        row = dict(zip(self.header, (value.strip() for value in values), strict=True))
        photo = row[self.photo_column]
        if not photo:
            raise InputError(f"{self.owner}, {place}: the column {self.photo_column} is empty")
        where = f"{self.owner}, {place}, source '{photo}'"
        frame = _frame_of(row, where)
        fields = [row[column] for column in self.box_columns]
        other_class = self._other_class(row) if any(fields) else ""
        if not any(fields) or other_class:
            fields = []
        score_column = _first_of(_SCORE_COLUMNS, self.header)
        score = row[score_column] or None if score_column else None
        person = row.get("person", "")
        return _CsvRow(photo, frame, person, fields, score, place, where, other_class)

    def _other_class(self, row: Mapping[str, str]) -> str:
        """Return the class of a row that is not wanted; empty for one that is, or tells none."""
        column = _first_of(_CLASS_COLUMNS, self.header)
        if column == "class" and "name" in self.header:
            column = "name"
        name = row[column] if column else ""
        return "" if name.casefold() in folded_classes(self.class_name) else name


def _refuse_other_classes(found: Sequence[str], class_name: str, owner: str) -> None:
    """Raise InputError for a table whose boxes are all of other classes, which are named."""
    names = dict(enumerate(name for name in dict.fromkeys(found) if name))
    if any(name.replace(".", "").isdecimal() for name in names.values()):
        raise InputError(
            f"{owner} tells classes by number, {short(', '.join(names.values()))}, and no"
            f" '{class_name}'",
            hint="write names, or choose a number: YOLO's person is --class 0, COCO's --class 1",
        )
    if names:
        class_indices(names, class_name, owner)


def _csv_table(first_row: list[str], class_name: str, owner: str) -> _CsvTable:
    header = [name.strip().lower() for name in first_row]
    photo_column = _first_of(_PHOTO_KEYS, header)
    corners = next((c for c in _CORNER_COLUMNS if set(c) <= set(header)), None)
    columns = corners or next((c for c in _SIZE_COLUMNS if set(c) <= set(header)), None)
    if photo_column is None or columns is None:
        raise InputError(
            f"{owner} has the columns {short(', '.join(header))}",
            hint="expected a CSV header with source (or file, image) and x1,y1,x2,y2 or x,y,w,h, "
            "such as source,frame,x,y,w,h,score; or JSON",
        )
    to_box = from_corners if corners else from_xywh
    return _CsvTable(header, photo_column, columns, to_box, class_name, owner)


def _first_of_each_person(rows: Sequence[_CsvRow]) -> Iterator[_CsvRow]:
    """Yield one row per person: hrnet's own CSV repeats the box in the row of each keypoint."""
    seen: dict[tuple[str, int | None, str], list[str]] = {}
    for row in rows:
        first = seen.setdefault((row.photo, row.frame, row.person), row.box_fields)
        if not row.person or first is row.box_fields:
            yield row
        elif first != row.box_fields:
            raise InputError(
                f"{row.where}: person {row.person} has the box {', '.join(row.box_fields)}, "
                f"but {', '.join(first)} further up"
            )


def _first_of(names: Sequence[str], there: Sequence[str]) -> str | None:
    return next((name for name in names if name in there), None)


def _mapping(value: Any, where: str) -> Mapping[str, Any]:  # noqa: ANN401 - any JSON
    if not isinstance(value, dict):
        raise InputError(f"{where} is {short(value)}, expected a JSON object", hint=_EXPECTED)
    return value


def _entries(
    document: Mapping[str, Any], key: str, owner: str, needed: Sequence[str]
) -> list[Mapping[str, Any]]:
    """Return a list of a COCO annotation file, whose items all have the needed keys."""
    items = document.get(key)
    if not isinstance(items, list):
        raise InputError(f"{owner} has images, but no list '{key}'", hint=_EXPECTED)
    for number, item in _numbered(items):
        where = f"{owner}, {key} {number}"
        if lacking := [name for name in needed if name not in _mapping(item, where)]:
            raise InputError(f"{where} has no '{lacking[0]}'")
    return items


def _size_wh(fields: Mapping[str, Any], where: str) -> tuple[int, int] | None:
    if fields.get("width") is None or fields.get("height") is None:
        return None
    return (
        whole_number(fields["width"], where, "width"),
        whole_number(fields["height"], where, "height"),
    )


def _photo_of(fields: Mapping[str, Any], where: str) -> str:
    for key in _PHOTO_KEYS:
        if isinstance(fields.get(key), str) and fields[key]:
            return fields[key]
    raise InputError(f"{where} names no photo or video: it has no 'source'", hint=_EXPECTED)


def _frame_of(fields: Mapping[str, Any], where: str) -> int | None:
    """Return the position in a video, counted from 0; None where the file does not tell it."""
    key = next((key for key in FRAME_KEYS if fields.get(key) not in (None, "")), None)
    return None if key is None else whole_number(fields[key], where, key)
