"""COCO-style keypoint annotations: one JSON file with images, annotations and categories.

All annotations are turned into arrays at once, and what contradicts itself is refused by the id of
the annotation. Shape letters: P photos, N people, K keypoints.
"""

import gc
import json
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import numpy.typing as npt

from hrnet_cli.data import labels
from hrnet_cli.data.coco_categories import choose_schema
from hrnet_cli.data.labels import Labels
from hrnet_cli.data.people import Array, Ints, LabelledPeople
from hrnet_cli.errors import InputError
from hrnet_cli.schema import KeypointSchema, schema_to_dict

Record = dict[str, Any]

# Area of a person for each unit of box area, where the file gives none: what COCO-style evaluation
# without areas uses (xtcocotools, COCOeval with use_area=False).
AREA_PER_BOX = 0.53
# Sides of a person box for each unit that the keypoints extend, where the file gives no box: the
# median over 176 COCO people with 15 or more labelled keypoints (1.29 across, 1.22 down).
BOX_PER_EXTENT = 1.25
_EXPORT = "expected COCO keypoint annotations: an object with images, annotations and categories"
_PARTS = ("images", "annotations", "categories")


def read_coco(
    path: Path,
    *,
    schema: KeypointSchema | None = None,
    category: str | None = None,
    cache: bool = True,
) -> Labels:
    """Return the labels of a COCO-style JSON file.

    Args:
        path: The file.
        schema: Its keypoints, where the file does not name them itself or names them differently.
        category: Name of the category to take where several have different keypoints.
        cache: Keep the result in the cache folder and take it from there next time.

    Raises:
        InputError: The file is missing, is no COCO JSON, has no keypoints or contradicts itself.
    """
    try:
        status = path.stat()
    except OSError as error:
        raise InputError(f"'{path}' cannot be read: {error.strerror}") from error
    options = json.dumps(["coco", schema and schema_to_dict(schema), category])
    stored = labels.cache_file([(str(path.absolute()), status)], options)
    found = labels.load(stored) if cache else None
    if found is None:
        with _without_gc():
            found = _parse(path, _load(path), schema, category)
        if cache:
            labels.store(stored, found)
    return found


def _load(path: Path) -> dict[str, list[Record]]:
    """Return the parsed file, its three lists checked to be lists of objects."""
    import orjson

    try:
        data = path.read_bytes()
    except OSError as error:
        raise InputError(f"'{path}' cannot be read: {error.strerror}") from error
    try:
        document = orjson.loads(data)
    except orjson.JSONDecodeError:
        document = _load_slowly(path, data)
    if not isinstance(document, dict):
        raise InputError(f"'{path}' holds a {_kind(document)}, {_EXPORT}")
    missing = [part for part in _PARTS if part not in document]
    if missing:
        raise InputError(f"'{path}' has no '{missing[0]}', {_EXPORT}")
    for part in _PARTS:
        wrong = document[part]
        if isinstance(wrong, list):
            wrong = next((entry for entry in wrong if not isinstance(entry, dict)), None)
        if wrong is not None:
            raise InputError(
                f"'{path}': '{part}' holds a {_kind(wrong)}, expected a list of objects"
            )
    return document


def _load_slowly(path: Path, data: bytes) -> Any:  # noqa: ANN401 - any JSON
    """Parse with the standard library, which takes NaN and says line and column of an error."""
    try:
        return json.loads(data)
    except json.JSONDecodeError as error:
        what = "is empty" if not data.strip() else f"is no JSON: {error}"
        raise InputError(f"'{path}' {what}; {_EXPORT}") from error
    except (UnicodeDecodeError, RecursionError) as error:
        raise InputError(f"'{path}' is no JSON text; {_EXPORT}") from error


def _kind(value: Any) -> str:  # noqa: ANN401 - any JSON
    names = {dict: "object", list: "list", str: "text", bool: "truth value", type(None): "null"}
    return names.get(type(value), "number")


def _parse(
    path: Path,
    document: dict[str, list[Record]],
    schema: KeypointSchema | None,
    category: str | None,
) -> Labels:
    images, annotations, categories = (document[part] for part in _PARTS)
    schema, category_ids, notes = choose_schema(path, categories, schema, category)
    if not images:
        raise InputError(f"'{path}' names no photos ('images' is empty)")
    kept = [a for a in annotations if a.get("category_id") in category_ids]
    if not annotations or not kept:
        raise InputError(
            f"'{path}' has {len(annotations)} annotations, none of a category with keypoints"
        )
    if len(kept) < len(annotations):
        notes.append(f"{len(annotations) - len(kept)} annotations of other categories left out")
    table = _Table(path, kept, len(schema), notes)
    photo_ids_P, index_of = _photo_ids(path, images, notes)
    keypoints_NK2, visible_NK = table.keypoints()
    if not visible_NK.any():
        raise InputError(f"'{path}': not one keypoint of {len(kept)} annotations is labelled")
    photo_of_N = table.photos(index_of)
    sizes_P2 = _sizes(path, images)
    boxes_N4 = table.boxes(keypoints_NK2, visible_NK, sizes_P2[photo_of_N])
    people = LabelledPeople(
        name=path.stem,
        folder=Path(),
        schema=schema,
        photos=tuple(_file_names(path, images)),
        photo_ids_P=photo_ids_P,
        sizes_P2=sizes_P2,
        photo_of_N=photo_of_N,
        ids_N=table.ids(),
        boxes_N4=boxes_N4,
        areas_N=table.areas(boxes_N4),
        keypoints_NK2=keypoints_NK2,
        visible_NK=visible_NK,
        weights_NK=table.weights(visible_NK),
        crowd_N=np.array([bool(a.get("iscrowd")) for a in kept], dtype=bool),
    )
    sources, source_of_N = table.sources()
    return Labels(people, sources, source_of_N, tuple(notes))


@dataclass(frozen=True)
class _Table:
    """The annotations of one file, read column by column.

    Attributes:
        path: The file, for messages.
        records: Its annotations.
        keypoint_count: K.
        notes: Lines to which each column adds what it derived.
    """

    path: Path
    records: list[Record]
    keypoint_count: int
    notes: list[str]

    def ids(self) -> Ints:
        """Return the ids, counted from 1 where the file has none or they are no whole numbers."""
        ids = [record.get("id") for record in self.records]
        repeated = [value for value, count in Counter(map(str, ids)).items() if count > 1]
        if repeated and set(ids) != {None}:
            raise InputError(
                f"'{self.path}': {len(repeated)} annotation ids are used more than once, the first"
                f" is {repeated[0]}; expected each once"
            )
        if all(type(value) is int for value in ids):
            return np.array(ids, dtype=np.int64)
        self.notes.append("annotation ids are no whole numbers: people are numbered from 1")
        return np.arange(1, len(ids) + 1, dtype=np.int64)

    def photos(self, index_of: dict[Any, int]) -> Ints:
        """Return the index of each person's photo."""
        found = [index_of.get(record.get("image_id"), -1) for record in self.records]
        photo_of_N = np.array(found, dtype=np.int64)
        lost = np.flatnonzero(photo_of_N < 0)
        if len(lost):
            first = self.records[lost[0]]
            raise InputError(
                f"'{self.path}': annotation {first.get('id')} belongs to image_id"
                f" {first.get('image_id')!r}, which is not among the {len(index_of)} images"
                f" ({len(lost)} annotations in all)"
            )
        return photo_of_N

    def keypoints(self) -> tuple[Array, npt.NDArray[np.uint8]]:
        """Return (x, y) and visibility of all keypoints; zero where not labelled."""
        width = 3 * self.keypoint_count
        nothing = [0] * width
        rows = [record.get("keypoints") or nothing for record in self.records]
        unlabelled = sum(row is nothing for row in rows)
        if unlabelled:
            self.notes.append(f"{unlabelled} annotations have no keypoints: not used for training")
        values_NW = self._numbers(rows, "keypoints", width)
        values_NK3 = values_NW.reshape(len(rows), self.keypoint_count, 3)
        visible_NK = values_NK3[..., 2]
        unknown = ~np.isin(visible_NK, (0, 1, 2))
        if unknown.any():
            person, keypoint = np.argwhere(unknown)[0]
            self._refuse(
                int(person),
                f"visibility {visible_NK[person, keypoint]:g} of its keypoint {keypoint + 1},"
                " expected 0, 1 or 2",
                hint="how sure a label is goes into 'keypoint_weights', one number per keypoint",
            )
        points_NK2 = np.where((visible_NK > 0)[..., None], values_NK3[..., :2], 0.0)
        self._check_finite(points_NK2.reshape(len(rows), -1), "keypoints")
        return points_NK2, visible_NK.astype(np.uint8)

    def boxes(
        self, keypoints_NK2: Array, visible_NK: npt.NDArray[np.uint8], sizes_N2: Ints
    ) -> Array:
        """Return the boxes (x, y, width, height), those missing from the keypoints' extent."""
        rows = [record.get("bbox") for record in self.records]
        missing_N = np.array([not row for row in rows], dtype=bool)
        boxes_N4 = self._numbers([row or (0, 0, 0, 0) for row in rows], "bbox", 4)
        self._check_finite(boxes_N4, "bbox")
        if missing_N.any():
            derived_N4 = boxes_around(keypoints_NK2, visible_NK > 0, sizes_N2)
            boxes_N4 = np.where(missing_N[:, None], derived_N4, boxes_N4)
            self.notes.append(
                f"{missing_N.sum()} person boxes are missing: taken as {BOX_PER_EXTENT} times the"
                " extent of the keypoints"
            )
        return boxes_N4

    def areas(self, boxes_N4: Array) -> Array:
        """Return the areas, those missing as a share of the box."""
        values = [record.get("area") for record in self.records]
        missing_N = np.array([value is None for value in values], dtype=bool)
        areas_N = self._numbers([(value or 0,) for value in values], "area", 1)[:, 0]
        self._check_finite(areas_N[:, None], "area")
        if missing_N.any():
            areas_N = np.where(missing_N, AREA_PER_BOX * boxes_N4[:, 2] * boxes_N4[:, 3], areas_N)
            self.notes.append(
                f"{missing_N.sum()} areas are missing: taken as {AREA_PER_BOX} of the box"
            )
        return areas_N

    def weights(self, visible_NK: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        """Return label weights: those of person and keypoint in the file, 0 for unlabelled."""
        weights_NK = (visible_NK > 0).astype(np.float32)
        if any("label_weight" in record for record in self.records):
            rows = [(record.get("label_weight", 1),) for record in self.records]
            weights_NK = weights_NK * self._label_weights(rows, "label_weight")
        if any("keypoint_weights" in record for record in self.records):
            ones = [1] * self.keypoint_count
            rows = [record.get("keypoint_weights", ones) for record in self.records]
            weights_NK = weights_NK * self._label_weights(rows, "keypoint_weights")
        return weights_NK.astype(np.float32)

    def sources(self) -> tuple[tuple[str, ...], npt.NDArray[np.int16]]:
        """Return the names in the ``source`` fields, and the index of each person's, or -1."""
        values = [record.get("source") for record in self.records]
        names = tuple(sorted({value for value in values if isinstance(value, str)}))
        index = {name: place for place, name in enumerate(names)}
        places = [index[value] if isinstance(value, str) else -1 for value in values]
        return names, np.array(places, dtype=np.int16)

    def _label_weights(self, rows: Sequence[Sequence[Any]], field: str) -> Array:
        width = 1 if field == "label_weight" else self.keypoint_count
        values = self._numbers(rows, field, width)
        bad = ~(np.isfinite(values) & (values >= 0)).all(axis=1)
        if bad.any():
            person = int(np.flatnonzero(bad)[0])
            self._refuse(person, f"{field} {rows[person]}, expected numbers from 0 up")
        return values

    def _numbers(self, rows: Sequence[Any], field: str, width: int) -> Array:
        """Return rows of ``width`` numbers each as an array (N, width)."""
        try:
            if set(map(len, rows)) <= {width}:
                flat = chain.from_iterable(rows)
                return np.fromiter(flat, np.float64, len(rows) * width).reshape(len(rows), width)
        except (TypeError, ValueError):
            pass  # the slow way below finds the annotation
        return np.array([self._row(n, row, field, width) for n, row in enumerate(rows)])

    def _row(self, person: int, row: Any, field: str, width: int) -> list[float]:  # noqa: ANN401
        if not isinstance(row, (list, tuple)) or len(row) != width:
            got = len(row) if isinstance(row, (list, tuple)) else f"a {_kind(row)} instead of"
            each = f": x, y and visibility of {self.keypoint_count} keypoints"
            self._refuse(
                person,
                f"{got} numbers in '{field}', expected {width}{each * (field == 'keypoints')}",
                hint="the keypoints of the category and of every annotation must agree",
            )
        for value in row:
            if type(value) not in (int, float):
                self._refuse(person, f"{value!r} in '{field}', expected a number")
        return list(row)

    def _check_finite(self, values: Array, field: str) -> None:
        bad = np.flatnonzero(~np.isfinite(values).all(axis=1))
        if len(bad):
            self._refuse(
                int(bad[0]),
                f"{field} with values that are not finite (NaN or infinite), expected pixels"
                f" ({len(bad)} annotations in all)",
            )

    def _refuse(self, person: int, what: str, hint: str = "") -> NoReturn:
        number = self.records[person].get("id")
        raise InputError(f"'{self.path}': annotation {number} has {what}", hint=hint)


def boxes_around(keypoints_NK2: Array, labelled_NK: npt.NDArray[np.bool_], sizes_N2: Ints) -> Array:
    """Return a box (x, y, width, height) around the labelled keypoints of each person.

    It is `BOX_PER_EXTENT` times their extent and cut to the photo where its size is known; people
    without a labelled keypoint get a box of zeros.
    """
    mask = labelled_NK[..., None]
    near_N2 = np.min(keypoints_NK2, axis=1, where=mask, initial=np.inf)
    far_N2 = np.max(keypoints_NK2, axis=1, where=mask, initial=-np.inf)
    labelled_N1 = labelled_NK.any(axis=1, keepdims=True)
    near_N2 = np.where(labelled_N1, near_N2, 0.0)
    far_N2 = np.where(labelled_N1, far_N2, 0.0)
    grow_N2 = (far_N2 - near_N2) * (BOX_PER_EXTENT - 1) / 2
    limits_N2 = np.where(sizes_N2 > 0, sizes_N2, np.inf)
    near_N2 = np.clip(near_N2 - grow_N2, 0, limits_N2)
    far_N2 = np.clip(far_N2 + grow_N2, 0, limits_N2)
    return np.concatenate([near_N2, far_N2 - near_N2], axis=1)


def _photo_ids(path: Path, images: list[Record], notes: list[str]) -> tuple[Ints, dict[Any, int]]:
    """Return the id of each photo, and the index of each id as the file writes it."""
    ids = [image.get("id") for image in images]
    index_of = {value: index for index, value in enumerate(ids) if isinstance(value, (int, str))}
    if len(index_of) < len(ids):
        counts = Counter(map(str, ids))
        value = next((value for value, count in counts.items() if count > 1), str(ids[0]))
        raise InputError(
            f"'{path}': image id {value} is used {counts[value]} times, expected one id, a number"
            " or a text, for each image"
        )
    if all(type(value) is int for value in ids):
        return np.array(ids, dtype=np.int64), index_of
    notes.append("image ids are no whole numbers: photos are numbered from 1")
    return np.arange(1, len(ids) + 1, dtype=np.int64), index_of


def _file_names(path: Path, images: list[Record]) -> list[str]:
    names: list[str] = []
    for image in images:
        name = image.get("file_name")
        if not isinstance(name, str) or not name or "\0" in name:
            raise InputError(
                f"'{path}': image {image.get('id')} has file_name {name!r}, expected a file name"
            )
        names.append(name)
    return names


def _sizes(path: Path, images: list[Record]) -> Ints:
    """Return (width, height) of each photo, zeros where the file does not say."""
    sizes = [(image.get("width") or 0, image.get("height") or 0) for image in images]
    for image, size in zip(images, sizes, strict=True):
        if not all(type(side) in (int, float) and 0 <= side < 1e9 for side in size):
            raise InputError(
                f"'{path}': image {image.get('id')} has width and height {size}, expected pixels"
            )
    return np.array(sizes, dtype=np.int64).reshape(-1, 2)


@contextmanager
def _without_gc() -> Iterator[None]:
    """Stop the search for reference cycles: JSON has none, and millions of its objects are made."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()
