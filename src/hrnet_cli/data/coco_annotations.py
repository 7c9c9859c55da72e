"""The annotations of a COCO-style file as arrays, read column by column.

Shape letters: N people, K keypoints.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import numpy.typing as npt

from hrnet_cli.data.coco_json import Annotation, column, id_column, kind_of
from hrnet_cli.data.people import Array, Ints
from hrnet_cli.errors import InputError
from hrnet_cli.oks import AREA_PER_BOX
from hrnet_cli.schema import WHOLE_BODY_PARTS

# Sides of a person box for each unit that the keypoints extend, where the file gives no box: the
# median over 176 COCO people with 15 or more labelled keypoints (1.29 across, 1.22 down).
BOX_PER_EXTENT = 1.25
LARGEST_ID = 2**63
# Fields of COCO-WholeBody with the keypoints of each part beside the body, in their order.
PART_FIELDS = tuple(f"{part}_kpts" for part in WHOLE_BODY_PARTS if part != "body")


@dataclass(frozen=True)
class AnnotationTable:
    """The annotations of one file, read column by column.

    Attributes:
        path: The file, for messages.
        records: Its annotations.
        keypoint_count: K.
        notes: Lines to which each column adds what it derived.
        whole_body: Whether feet, face and hands stand in fields of their own, as in COCO-WholeBody.
    """

    path: Path
    records: list[Annotation]
    keypoint_count: int
    notes: list[str]
    whole_body: bool = False

    def ids(self) -> Ints:
        """Return the ids, counted from 1 where the file has none or they are no whole numbers."""
        ids = id_column(self.records, "id")
        whole = set(map(type, ids)) == {int}
        if not whole or len(set(ids)) < len(ids):
            repeated = [value for value, count in Counter(map(str, ids)).items() if count > 1]
            if repeated and any(value is not None for value in ids):
                raise InputError(
                    f"'{self.path}': {len(repeated)} annotation ids are used more than once, the"
                    f" first is {repeated[0]}; expected each once"
                )
        if whole and max(map(abs, ids)) < LARGEST_ID:
            return np.array(ids, dtype=np.int64)
        self.notes.append("annotation ids are no whole numbers: people are numbered from 1")
        return np.arange(1, len(ids) + 1, dtype=np.int64)

    def photos(self, index_of: dict[Any, int]) -> Ints:
        """Return the index of each person's photo."""
        values = id_column(self.records, "image_id")
        if not set(map(type, values)) <= {int, str}:
            values = [value if isinstance(value, (int, str)) else None for value in values]
        photo_of_N = np.array([index_of.get(value, -1) for value in values], dtype=np.int64)
        lost = np.flatnonzero(photo_of_N < 0)
        if len(lost):
            first = self.records[lost[0]]
            raise InputError(
                f"'{self.path}': annotation {first.id} belongs to image_id"
                f" {first.image_id!r}, which is not among the {len(index_of)} images"
                f" ({len(lost)} annotations in all)"
            )
        return photo_of_N

    def keypoints(self) -> tuple[Array, npt.NDArray[np.uint8]]:
        """Return (x, y) and visibility of all keypoints; zero where not labelled."""
        counts = {"keypoints": self.keypoint_count}
        if self.whole_body:
            sizes = [end - start for start, end in WHOLE_BODY_PARTS.values()]
            counts = dict(zip(("keypoints", *PART_FIELDS), sizes, strict=True))
        of_people = zip(*(column(self.records, field) for field in counts), strict=True)
        if unlabelled := sum(not any(fields) for fields in of_people):
            self.notes.append(f"{unlabelled} annotations have no keypoints: not used for training")
        parts = [self._part(field, count) for field, count in counts.items()]
        values_NK3 = np.concatenate(parts, axis=1)
        visible_NK = values_NK3[..., 2]
        points_NK2 = np.where((visible_NK > 0)[..., None], values_NK3[..., :2], 0.0)
        self._check_finite(points_NK2.reshape(len(self.records), -1), "keypoints")
        return points_NK2, visible_NK.astype(np.uint8)

    def boxes(
        self, keypoints_NK2: Array, visible_NK: npt.NDArray[np.uint8], sizes_N2: Ints
    ) -> Array:
        """Return the boxes (x, y, width, height), those missing from the keypoints' extent."""
        rows = column(self.records, "bbox")
        complete = all(rows)
        filled = rows if complete else [row or (0, 0, 0, 0) for row in rows]
        boxes_N4 = self._numbers(filled, "bbox", 4)
        self._check_finite(boxes_N4, "bbox")
        if not complete:
            missing_N = np.array([not row for row in rows], dtype=bool)
            derived_N4 = boxes_around(keypoints_NK2, visible_NK > 0, sizes_N2)
            boxes_N4 = np.where(missing_N[:, None], derived_N4, boxes_N4)
            self.notes.append(
                f"{missing_N.sum()} person boxes are missing: taken as {BOX_PER_EXTENT} times the"
                " extent of the keypoints"
            )
        return boxes_N4

    def areas(self, boxes_N4: Array) -> Array:
        """Return the areas, those missing as a share of the box."""
        values = column(self.records, "area")
        areas_N = self._numbers([(value or 0,) for value in values], "area", 1)[:, 0]
        self._check_finite(areas_N[:, None], "area")
        if None in values:
            missing_N = np.array([value is None for value in values], dtype=bool)
            areas_N = np.where(missing_N, AREA_PER_BOX * boxes_N4[:, 2] * boxes_N4[:, 3], areas_N)
            self.notes.append(
                f"{missing_N.sum()} areas are missing: taken as {AREA_PER_BOX} of the box"
            )
        return areas_N

    def weights(self, visible_NK: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        """Return label weights: those of person and keypoint in the file, 0 for unlabelled."""
        weights_NK = (visible_NK > 0).astype(np.float32)
        of_person = column(self.records, "label_weight")
        if set(map(type, of_person)) != {type(None)}:
            rows = [(1 if weight is None else weight,) for weight in of_person]
            weights_NK = weights_NK * self._label_weights(rows, "label_weight")
        of_keypoints = column(self.records, "keypoint_weights")
        if set(map(type, of_keypoints)) != {type(None)}:
            ones = [1] * self.keypoint_count
            rows = [ones if row is None else row for row in of_keypoints]
            weights_NK = weights_NK * self._label_weights(rows, "keypoint_weights")
        return weights_NK.astype(np.float32)

    def sources(self) -> tuple[tuple[str, ...], npt.NDArray[np.int16]]:
        """Return the names in the ``source`` fields, and the index of each person's, or -1."""
        values = column(self.records, "source")
        if set(map(type, values)) == {type(None)}:
            return (), np.full(len(values), -1, np.int16)
        names = tuple(sorted({value for value in values if isinstance(value, str)}))
        index = {name: place for place, name in enumerate(names)}
        places = [index[value] if isinstance(value, str) else -1 for value in values]
        return names, np.array(places, dtype=np.int16)

    def _part(self, field: str, count: int) -> Array:
        """Return the (x, y, visibility) of one field, (N, ``count``, 3)."""
        nothing = [0] * (3 * count)
        rows = [row or nothing for row in column(self.records, field)]
        if field != "keypoints":
            valid = column(self.records, field.replace("_kpts", "_valid"))
            rows = [nothing if ok is False else row for ok, row in zip(valid, rows, strict=True)]
        values_NK3 = self._numbers(rows, field, 3 * count).reshape(len(rows), count, 3)
        visible_NK = values_NK3[..., 2]
        unknown = (visible_NK != 0) & (visible_NK != 1) & (visible_NK != 2)
        if unknown.any():
            person, keypoint = np.argwhere(unknown)[0]
            of = "" if field == "keypoints" else f" in '{field}'"
            self._refuse(
                int(person),
                f"visibility {visible_NK[person, keypoint]:g} of its keypoint {keypoint + 1}{of},"
                " expected 0, 1 or 2",
                hint="how sure a label is goes into 'keypoint_weights', one number per keypoint",
            )
        return values_NK3

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
            got = len(row) if isinstance(row, (list, tuple)) else f"a {kind_of(row)} instead of"
            each = f": x, y and visibility of {width // 3} keypoints"
            self._refuse(
                person,
                f"{got} numbers in '{field}', expected {width}"
                f"{each * (field in ('keypoints', *PART_FIELDS))}",
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
        number = self.records[person].id
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
