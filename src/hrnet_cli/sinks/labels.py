"""Predictions as labels: COCO annotations of photo files, to be corrected and trained on.

Shape letters: N people, K keypoints.
"""

import json
import os
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from hrnet_cli.errors import OutputError
from hrnet_cli.geometry import ON_SIDE, as_stored, points_in_frame
from hrnet_cli.images import write_bytes_atomic
from hrnet_cli.oks import AREA_PER_BOX
from hrnet_cli.schema import KeypointSchema
from hrnet_cli.sinks import RunInfo
from hrnet_cli.sinks.coco import CATEGORY_ID, ImageIds, number_in
from hrnet_cli.sinks.files import make_folder, reporting, require_folder
from hrnet_cli.sinks.record import (
    COORDINATE_DECIMALS,
    PERSON_SCORE_DECIMALS,
    keypoints_as_written,
    to_json,
)
from hrnet_cli.structures import Frame, Poses

VISIBLE = 2  # COCO's visibility of a keypoint that is labelled and seen; 0 is not labelled
Fields = dict[str, Any]


@dataclass(frozen=True)
class PhotoLabels:
    """The people of one photo as labels have them.

    Attributes:
        size_wh: (width, height) of the photo the numbers speak of, in pixels.
        boxes_N4: float64 (x1, y1, x2, y2), cut to the photo; zeros where a box is not finite.
        keypoints_NK2: float64 (x, y); zeros where a keypoint is not labelled.
        labelled_NK: bool, True for keypoints within the photo and not below the threshold.
    """

    size_wh: tuple[int, int]
    boxes_N4: np.ndarray
    keypoints_NK2: np.ndarray
    labelled_NK: np.ndarray


def photo_labels(frame: Frame, poses: Poses, info: RunInfo) -> PhotoLabels:
    """Return the people of a photo as labels, in pixels of the upright photo.

    Args:
        frame: The photo.
        poses: Its people.
        info: Says from which score keypoints are labelled.
    """
    keypoints_NK2, scores_NK = keypoints_as_written(poses, info)
    # Of the written numbers, so that labels made from records are the same.
    labelled_NK = points_in_frame(keypoints_NK2, frame.size_wh)
    labelled_NK &= scores_NK >= info.keypoint_threshold
    xyxy_N4 = poses.boxes.xyxy_N4.astype(np.float64)
    xyxy_N4[~np.isfinite(xyxy_N4).all(axis=1)] = 0
    limits = np.tile(frame.size_wh, 2)
    return PhotoLabels(
        frame.size_wh,
        np.clip(xyxy_N4, 0, limits).round(COORDINATE_DECIMALS),
        np.where(labelled_NK[..., None], keypoints_NK2, 0),
        labelled_NK,
    )


def stored_labels(labels: PhotoLabels, orientation: int) -> PhotoLabels:
    """Return labels of an upright photo in pixels of the photo as stored, as COCO has them.

    Args:
        labels: In pixels of the upright photo.
        orientation: EXIF orientation (1 to 8) by which it was turned upright.
    """
    if orientation == 1:
        return labels
    upright = np.array(labels.size_wh)
    stored = upright[::-1] if orientation in ON_SIDE else upright
    orientation_N = np.full(len(labels.boxes_N4), orientation)
    # Keypoints are counted from the centre of the first pixel, boxes from its edge.
    keypoints_NK2 = as_stored((labels.keypoints_NK2 + 0.5) / upright, orientation_N) * stored - 0.5
    corners_N22 = labels.boxes_N4.reshape(-1, 2, 2) / upright
    corners_N22 = np.sort(as_stored(corners_N22, orientation_N) * stored, axis=1)
    return replace(
        labels,
        size_wh=(int(stored[0]), int(stored[1])),
        boxes_N4=corners_N22.reshape(-1, 4).round(COORDINATE_DECIMALS),
        keypoints_NK2=np.where(
            labels.labelled_NK[..., None], keypoints_NK2.round(COORDINATE_DECIMALS), 0
        ),
    )


class LabelsSink:
    """Collects photos and people, and writes them as one file at the end.

    Args:
        path: The file.
        info: What all pictures share.
        held: A file to go on with, as `read_labels` returns it; None for a new one.
    """

    def __init__(self, path: Path, info: RunInfo, held: Fields | None = None) -> None:
        self._path = path
        self._info = info
        self._head = {"info": _about(info), "categories": []} if held is None else dict(held)
        images: list[Fields] = self._head.pop("images", [])
        people: list[Fields] = self._head.pop("annotations", [])
        # As they will be written: numbers take a tenth of the memory.
        self._images = [to_json(image) for image in images]
        self._people = [to_json(person) for person in people]
        known = {image["file_name"]: image["id"] for image in images}
        self._names = set(known)
        self._ids = ImageIds(known)
        self._last_person = max((person["id"] for person in people), default=0)
        self._closed = False

    def write(self, frame: Frame, poses: Poses) -> None:
        """Add one photo, people or not; one that the file has already keeps the labels it has.

        Raises:
            OutputError: The folder is gone, or the file to go on with has other keypoints.
        """
        with reporting(self._path):
            require_folder(self._path.parent)
        category_id = self._category_id(poses.schema)
        labels = stored_labels(photo_labels(frame, poses, self._info), frame.orientation)
        width, height = labels.size_wh
        image = {
            "id": 0,
            "file_name": photo_name(frame.source, self._path.parent),
            "width": width,
            "height": height,
        }
        scores = np.nan_to_num(poses.person_scores_N.astype(np.float64), posinf=0, neginf=0)
        self.add(image, _annotations(labels, scores, category_id))

    def add(self, image: Fields, people: Iterable[Fields]) -> None:
        """Add a photo and its people under ids of this file.

        Args:
            image: An entry of ``images``, its ``file_name`` as seen from the file.
            people: The entries of ``annotations`` that belong to it.
        """
        name = image["file_name"]
        if name in self._names:
            return
        self._names.add(name)
        number = self._ids.of(name, wish=number_in(name))
        self._images.append(to_json(image | {"id": number}))
        for person in people:
            self._last_person += 1
            ids = {"id": self._last_person, "image_id": number}
            self._people.append(to_json(person | ids))

    def close(self) -> None:
        """Write the file.

        Raises:
            OutputError: It cannot be written.
        """
        if self._closed:
            return
        self._closed = True
        with reporting(self._path):
            require_folder(self._path.parent)
        parts = [to_json(key) + b":" + to_json(value) for key, value in self._head.items()]
        for key, lines in (("images", self._images), ("annotations", self._people)):
            parts.append(to_json(key) + b":[\n" + b",\n".join(lines) + b"\n]")
        write_bytes_atomic(self._path, b"{\n" + b",\n".join(parts) + b"\n}\n")

    def _category_id(self, schema: KeypointSchema) -> int:
        """Return the id of the category with these keypoints, which a new file is given."""
        categories: list[Fields] = self._head["categories"]
        if not categories:
            categories.append(_category(schema, self._info.category))
        names = list(schema.keypoints)
        for category in categories:
            if category.get("keypoints") == names:
                return category["id"]
        raise _cannot_append(
            self._path, f"none of its categories has the {len(names)} keypoints of {schema.name}"
        )


def open_labels(path: Path, info: RunInfo) -> LabelsSink:
    """Start a file of labels, or go on with one.

    Raises:
        OutputError: Its folder cannot be made, or what is there is no COCO annotation file.
    """
    make_folder(path.parent)
    if not (info.append and path.exists()):
        return LabelsSink(path, info)
    with reporting(path):
        try:
            return LabelsSink(path, info, read_labels(path))
        except ValueError as error:
            raise _cannot_append(path, str(error)) from error


def join_labels(parts: Sequence[Path], path: Path) -> None:
    """Write the labels of the parts of a run as one file, under ids as of one run.

    Args:
        parts: Files of `LabelsSink`, in order.
        path: The joined file; names of photos become those seen from its folder.

    Raises:
        OutputError: It cannot be written.
        ValueError: A part is no such file.
    """
    documents = [read_labels(part) for part in parts]
    # A part of which no photo could be read knows no keypoints.
    first = next((one for one in documents if one["categories"]), documents[0])
    sink = LabelsSink(path, RunInfo("", "", 0), first | {"images": [], "annotations": []})
    for part, document in zip(parts, documents, strict=True):
        people: defaultdict[int, list[Fields]] = defaultdict(list)
        for person in document["annotations"]:
            people[person["image_id"]].append(person)
        for image in document["images"]:
            name = photo_name(str(part.parent / image["file_name"]), path.parent)
            sink.add(image | {"file_name": name}, people[image["id"]])
    sink.close()


def read_labels(path: Path) -> Fields:
    """Return a COCO annotation file as it stands.

    Raises:
        OSError: It cannot be read.
        ValueError: It is no such file, or its ids are no whole numbers.
    """
    document = json.loads(path.read_bytes())
    if problem := _problem(document):
        raise ValueError(problem)
    return document


def photo_name(source: str, folder: Path) -> str:
    """Return the path of a photo as seen from a folder; the whole path from another drive."""
    photo = Path(source)
    # Links on the way are followed, as the system does before it takes a "..".
    place = photo.parent.resolve() / photo.name
    try:
        return Path(os.path.relpath(place, folder.resolve())).as_posix()
    except ValueError:  # Windows, another drive
        return place.as_posix()


def _problem(document: Any) -> str:  # noqa: ANN401 - any JSON
    """Return why JSON is no annotation file that can be gone on with; empty where it is one."""
    needed = {"images": ("id",), "annotations": ("id", "image_id"), "categories": ("id",)}
    for key, ids in needed.items():
        entries = document.get(key) if isinstance(document, dict) else None
        if not isinstance(entries, list):
            return f"it has no list of '{key}'"
        for number, entry in enumerate(entries):
            if not isinstance(entry, dict) or any(type(entry.get(name)) is not int for name in ids):
                return f"entry {number} of '{key}' has no whole number as {' and '.join(ids)}"
    if not all(isinstance(image.get("file_name"), str) for image in document["images"]):
        return "an image has no 'file_name'"
    return ""


def _annotations(labels: PhotoLabels, scores_N: np.ndarray, category_id: int) -> list[Fields]:
    visibility_NK1 = np.where(labels.labelled_NK, VISIBLE, 0)[..., None]
    people: list[Fields] = []
    for box, points_K2, seen_K1, score in zip(
        labels.boxes_N4, labels.keypoints_NK2, visibility_NK1, scores_N.tolist(), strict=True
    ):
        sides = (box[2:] - box[:2]).round(COORDINATE_DECIMALS)
        triples = zip(points_K2.tolist(), seen_K1.tolist(), strict=True)
        people.append(
            {
                "id": 0,
                "image_id": 0,
                "category_id": category_id,
                "iscrowd": 0,
                "bbox": [*box[:2].tolist(), *sides.tolist()],
                "area": round(AREA_PER_BOX * float(sides.prod()), COORDINATE_DECIMALS),
                "num_keypoints": int(np.count_nonzero(seen_K1)),
                "keypoints": [value for point, seen in triples for value in (*point, *seen)],
                "score": round(score, PERSON_SCORE_DECIMALS),
            }
        )
    return people


def _category(schema: KeypointSchema, name: str) -> Fields:
    return {
        "id": CATEGORY_ID,
        "name": name,
        "supercategory": name,
        "keypoints": list(schema.keypoints),
        "skeleton": [[a + 1, b + 1] for a, b in schema.edges],  # COCO counts keypoints from 1
        "sigmas": list(schema.oks_sigmas),
    }


def _about(info: RunInfo) -> Fields:
    return {
        "description": "poses found by hrnet-cli, not yet corrected",
        "model": info.model,
        "detector": info.detector,
        "keypoint_threshold": info.keypoint_threshold,
    }


def _cannot_append(path: Path, reason: str) -> OutputError:
    return OutputError(
        f"cannot append to '{path}': {reason}",
        hint="replace it with --overwrite, or name another folder with --out",
    )
