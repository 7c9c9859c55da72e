"""COCO-style keypoint annotations: one JSON file with images, annotations and categories.

All annotations are turned into arrays at once, and what contradicts itself is refused by the id of
the annotation. Shape letters: P photos, N people, K keypoints.
"""

import json
from collections import Counter
from collections.abc import Mapping
from itertools import compress
from pathlib import Path
from typing import Any

import numpy as np

from hrnet_cli.data import labels
from hrnet_cli.data.coco_annotations import LARGEST_ID, PART_FIELDS, AnnotationTable
from hrnet_cli.data.coco_categories import choose_schema
from hrnet_cli.data.coco_json import (
    Annotation,
    Document,
    Image,
    column,
    id_column,
    load_document,
    without_gc,
)
from hrnet_cli.data.labels import Labels
from hrnet_cli.data.names import complete_schema
from hrnet_cli.data.people import Ints, LabelledPeople
from hrnet_cli.errors import InputError
from hrnet_cli.schema import WHOLE_BODY, KeypointSchema, load_schema, schema_to_dict

_BODY = "coco17"  # the keypoints of COCO-WholeBody that stand in ``keypoints``
_LEFT_OUT = (
    "feet, face and hands are labelled too and left out: for all 133 keypoints name the data set"
    f' coco-wholebody, or write schema = "{WHOLE_BODY}" in a data set file'
)
_BEYOND_PX = 1_000_000_000  # no photo has such a side


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
        schema: Its keypoints, where the file does not name them itself or names them differently;
            those of COCO-WholeBody are read with feet, face and hands when it is that schema.
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
    kept = labels.keep(path, options, [(str(path.absolute()), status)])
    found = labels.load(kept) if cache else None
    if found is None:
        with without_gc():
            found = _parse(path, load_document(path), schema, category)
        if cache:
            labels.store(kept, found)
    return found


def to_coco_json(people: LabelledPeople) -> str:
    """Return labels as a COCO-style file, from which `read_coco` reads the same.

    Photos are named by their whole path, so that they are found wherever the file lies.
    """
    schema = people.schema
    photos = zip(people.photo_ids_P.tolist(), people.sizes_P2.tolist(), strict=True)
    images = [
        {"id": i, "file_name": str(people.photo_path(n).resolve()), "width": w, "height": h}
        for n, (i, (w, h)) in enumerate(photos)
    ]
    flat_NL = np.concatenate([people.keypoints_NK2, people.visible_NK[..., None]], axis=2)
    columns = {
        "id": people.ids_N,
        "image_id": people.photo_ids_P[people.photo_of_N],
        "bbox": people.boxes_N4,
        "area": people.areas_N,
        "iscrowd": people.crowd_N.astype(int),
        "keypoints": flat_NL.reshape(len(people), 3 * len(schema)),
        "num_keypoints": (people.visible_NK > 0).sum(axis=1),
        "keypoint_weights": people.weights_NK,
    }
    rows = zip(*(column.tolist() for column in columns.values()), strict=True)
    category = {
        "id": people.category_id,
        # Reading adds the number.
        "name": schema.name.removesuffix(str(len(schema))),
        "keypoints": schema.keypoints,
        "skeleton": [[schema.index[end] + 1 for end in limb] for limb in schema.skeleton],
        "sigmas": schema.oks_sigmas,
    }
    annotations = [
        {**dict(zip(columns, row, strict=True)), "category_id": people.category_id} for row in rows
    ]
    return json.dumps({"images": images, "annotations": annotations, "categories": [category]})


def _parse(
    path: Path,
    document: Document,
    schema: KeypointSchema | None,
    category: str | None,
) -> Labels:
    images, annotations = document.images, document.annotations
    divided = _is_divided(annotations)
    whole_body = schema if divided and schema and _is_whole_body(schema) else None
    named = load_schema(_BODY) if whole_body else schema  # by the categories
    schema, categories, notes = choose_schema(path, document.categories, named, category)
    if whole_body:
        schema = complete_schema(whole_body)
    elif divided:
        notes.append(_LEFT_OUT)
    if not images:
        raise InputError(f"'{path}' names no photos ('images' is empty)")
    kinds = _hashable(column(annotations, "category_id"))
    kept = list(compress(annotations, [kind in categories for kind in kinds]))
    if not annotations or not kept:
        raise InputError(
            f"'{path}' has {len(annotations)} annotations, none of a category with keypoints"
        )
    if len(kept) < len(annotations):
        notes.append(f"{len(annotations) - len(kept)} annotations of other categories left out")
    table = AnnotationTable(path, kept, len(schema), notes, whole_body is not None)
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
        crowd_N=np.array(list(map(bool, column(kept, "iscrowd"))), dtype=bool),
        categories=_numbered(categories, set(kinds)),
    )
    sources, source_of_N = table.sources()
    return Labels(people, sources, source_of_N, tuple(notes))


def _numbered(categories: Mapping[int | str, str], used: set[Any]) -> dict[int, str]:
    """Return the categories that annotations have and that a whole number tells."""
    return {
        number: name
        for number, name in categories.items()
        if number in used and isinstance(number, int) and abs(number) < LARGEST_ID
    }


def _is_divided(annotations: list[Annotation]) -> bool:
    """Return whether annotations have feet, face or hands in fields beside the body's keypoints.

    Some tools join them into ``keypoints`` and leave the fields there.
    """
    has_parts = any(any(column(annotations, field)) for field in PART_FIELDS)
    body = next((row for row in column(annotations, "keypoints") if row), None)
    return has_parts and (body is None or len(body) == 3 * len(load_schema(_BODY)))


def _is_whole_body(schema: KeypointSchema) -> bool:
    return schema.keypoints == load_schema(WHOLE_BODY).keypoints


def _photo_ids(path: Path, images: list[Image], notes: list[str]) -> tuple[Ints, dict[Any, int]]:
    """Return the id of each photo, and the index of each id as the file writes it."""
    ids = id_column(images, "id")
    strange = [value for value in ids if not isinstance(value, (int, str))]
    if strange:
        raise InputError(
            f"'{path}': {len(strange)} images have an id that is neither a whole number nor a text,"
            f" the first is {'missing' if strange[0] is None else repr(strange[0])}"
        )
    index_of = {value: index for index, value in enumerate(ids)}
    if len(index_of) < len(ids):
        counts = Counter(map(str, ids))
        value = next((value for value, count in counts.items() if count > 1), str(ids[0]))
        raise InputError(
            f"'{path}': image id {value} is used {counts[value]} times, expected one id for each"
            " image"
        )
    if set(map(type, ids)) == {int} and max(map(abs, ids)) < LARGEST_ID:
        return np.array(ids, dtype=np.int64), index_of
    notes.append("image ids are no whole numbers: photos are numbered from 1")
    return np.arange(1, len(ids) + 1, dtype=np.int64), index_of


def _file_names(path: Path, images: list[Image]) -> list[str]:
    names = column(images, "file_name")
    if set(map(type, names)) == {str} and all(names) and not any("\0" in name for name in names):
        return names
    for image, name in zip(images, names, strict=True):
        if not isinstance(name, str) or not name or "\0" in name:
            raise InputError(
                f"'{path}': image {image.id} has file_name {name!r}, expected a file name"
            )
    return names


def _sizes(path: Path, images: list[Image]) -> Ints:
    """Return (width, height) of each photo, zeros where the file does not say."""
    sides = [[side or 0 for side in column(images, key)] for key in ("width", "height")]
    for side in sides:
        if set(map(type, side)) <= {int, float} and all(0 <= value < _BEYOND_PX for value in side):
            continue
        for image, value in zip(images, side, strict=True):
            if type(value) not in (int, float) or not 0 <= value < _BEYOND_PX:
                raise InputError(
                    f"'{path}': image {image.id} has width and height"
                    f" {(image.width, image.height)}, expected pixels"
                )
    return np.array(sides, dtype=np.int64).T.reshape(-1, 2)


def _hashable(values: list[Any]) -> list[Any]:
    """Return values with those that cannot be looked up, lists and objects, replaced by None."""
    return [None if isinstance(value, (list, dict)) else value for value in values]
