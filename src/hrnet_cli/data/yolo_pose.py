"""YOLO-pose folders: a ``data.yaml``, photos, and a text file of labels beside each photo.

A line is ``class x y width height`` of the person box (centre and size), then x, y and perhaps
visibility of every keypoint, all as shares of the photo's width and height. The shares are of the
picture turned upright (ultralytics reads it so); here they become pixels of the photo as stored.
Where a network wrote the labels, a keypoint has its confidence in place of a visibility, as from
ultralytics' `predict save_txt`. It is taken as labelled, with that weight.
"""

import json
import os
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from hrnet_cli.data import labels
from hrnet_cli.data.labels import Labels
from hrnet_cli.data.people import Array, Ints, LabelledPeople
from hrnet_cli.data.yolo_yaml import YoloYaml, read_yolo_yaml
from hrnet_cli.errors import InputError
from hrnet_cli.geometry import ON_SIDE, as_stored
from hrnet_cli.images import read_header
from hrnet_cli.oks import AREA_PER_BOX
from hrnet_cli.schema import schema_to_dict

# Shares reach a little beyond 1 where a box leaves the photo; pixels are far beyond.
_LARGEST_SHARE = 2.0
_BOX = 5  # class, x, y, width, height


@dataclass(frozen=True)
class _Files:
    """The photos of a split and their label files, in the same order; None where there is none."""

    photos: list[Path]
    labels: list[Path | None]


def read_yolo_pose(
    path: Path,
    split: str,
    *,
    folder: Path | None = None,
    category: str | None = None,
    cache: bool = True,
) -> tuple[Labels, Path]:
    """Return the labels of one split of a YOLO-pose data set, and the folder of its photos.

    Args:
        path: Its ``data.yaml``.
        split: ``train``, ``val`` or ``test``.
        folder: Where the data lie, in place of ``path`` in the file.
        category: Class to take; left out, all.
        cache: Keep the result in the cache folder and take it from there next time.

    Raises:
        ConfigError: The ``data.yaml`` contradicts itself.
        InputError: Photos or labels are missing, or a line does not fit.
    """
    about = read_yolo_yaml(path, folder)
    photos = about.photos(split)
    files = _Files(photos, [_label_file(photo) for photo in photos])
    if not any(files.labels):
        raise InputError(
            f"none of {len(photos)} photos of '{path}' has a label file; expected for"
            f" '{photos[0]}': '{_places(photos[0])[0]}'"
        )
    options = json.dumps(
        ["yolo", split, category, about.numbers, about.classes, schema_to_dict(about.schema)]
    )
    every = (*files.photos, *(label for label in files.labels if label is not None))
    kept = labels.keep(path, options, _statuses(every))
    found = labels.load(kept) if cache else None
    if found is None:
        found = _read(about, files, split, category)
        if cache:
            labels.store(kept, found)
    return found, about.root


def _statuses(paths: Iterable[Path]) -> Iterable[tuple[str, os.stat_result]]:
    for path in paths:
        if path.is_file():
            yield str(path.absolute()), path.stat()


def _label_file(photo: Path) -> Path | None:
    return next((place for place in _places(photo) if place.is_file()), None)


def _places(photo: Path) -> list[Path]:
    """Return where the labels of a photo may be: ``labels`` for the last ``images``, or beside."""
    name = photo.with_suffix(".txt")
    parts = list(name.parts)
    places = []
    if "images" in parts:
        last = len(parts) - 1 - parts[::-1].index("images")
        places.append(Path(*parts[:last], "labels", *parts[last + 1 :]))
    return [*places, name.parent.parent / "labels" / name.name, name]


def _read(about: YoloYaml, files: _Files, split: str, category: str | None) -> Labels:
    wanted = _class_number(about, category)
    with ThreadPoolExecutor() as pool:
        headers = list(pool.map(read_header, files.photos))
    notes = list(about.notes)
    rows: list[list[float]] = []
    photo_of: list[int] = []
    for index, label in enumerate(files.labels):
        for row in () if label is None else _rows(label, about):
            if wanted is None or int(row[0]) == wanted:
                rows.append(row)
                photo_of.append(index)
    if not rows:
        raise InputError(f"'{about.path}': the label files of {split} name no person")
    orientation_P = np.array([header[2] if header else 1 for header in headers])
    sizes_P2 = np.array([header[:2] if header else (0, 0) for header in headers], dtype=np.int64)
    photo_of_N = np.array(photo_of, dtype=np.int64)
    values = np.array(rows)
    readable_N = (sizes_P2[photo_of_N] > 0).all(axis=1)
    if not readable_N.all():
        broken = sum(header is None for header in headers)
        notes.append(f"{broken} photos cannot be read: {(~readable_N).sum()} people left out")
    notes.append(f"areas are taken as {AREA_PER_BOX} of the box: YOLO labels have none")
    people = _people(
        about,
        values[readable_N],
        photo_of_N[readable_N],
        sizes_P2,
        orientation_P,
        [_relative(photo, about.root) for photo in files.photos],
    )
    unsure = np.count_nonzero((people.weights_NK > 0) & (people.weights_NK < 1))
    if unsure:
        notes.append(f"{unsure} keypoints have a confidence in place of a visibility: their weight")
    if not people.visible_NK.any():
        raise InputError(f"'{about.path}': not one keypoint of {len(rows)} people is labelled")
    return Labels(people, (), np.full(len(people), -1, np.int16), tuple(notes))


def _class_number(about: YoloYaml, category: str | None) -> int | None:
    if category is None:
        return None
    numbers = [number for number, name in about.classes.items() if name == category]
    if not numbers:
        known = ", ".join(f"'{name}'" for name in about.classes.values()) or "none"
        raise InputError(f"'{about.path}' has no class '{category}'; its classes: {known}")
    return numbers[0]


def _relative(photo: Path, root: Path) -> str:
    return str(photo.relative_to(root) if photo.is_relative_to(root) else photo.absolute())


def _rows(path: Path, about: YoloYaml) -> Iterable[list[float]]:
    """Yield the numbers of each line of a label file, checked."""
    expected = _BOX + about.numbers * len(about.schema)
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"label file '{path}' cannot be read: {error}") from error
    for number, line in enumerate(lines, start=1):
        words = line.split()
        if not words:
            continue
        where = f"'{path}' line {number}"
        if len(words) != expected:
            raise InputError(
                f"{where} has {len(words)} numbers, expected {expected}: class, box (4) and"
                f" {len(about.schema)} keypoints of {about.numbers}",
                hint="kpt_shape in data.yaml and the label files must agree",
            )
        try:
            row = [float(word) for word in words]
        except ValueError as error:
            raise InputError(f"{where} holds a word that is no number: {error}") from error
        _check_row(row, where, about)
        yield row


def _check_row(row: list[float], where: str, about: YoloYaml) -> None:
    """Refuse values that are no shares, no class and no visibility."""
    if about.classes and row[0] not in about.classes:
        raise InputError(f"{where} has class {row[0]:g}, expected one of {sorted(about.classes)}")
    shares = list(row[1:_BOX])
    step = about.numbers
    for place in range(_BOX, len(row), step):
        shares += row[place : place + 2]
        if step == 3 and not (0 <= row[place + 2] <= 1 or row[place + 2] == 2):
            raise InputError(
                f"{where} has visibility {row[place + 2]:g} for keypoint"
                f" {(place - _BOX) // step + 1}, expected 0, 1 or 2, or a confidence below 1"
            )
    for share in shares:
        if not -_LARGEST_SHARE < share < _LARGEST_SHARE:  # also refuses NaN
            raise InputError(
                f"{where} has the coordinate {share:g}, expected shares of the photo's width and"
                " height, 0 to 1"
            )


def _people(
    about: YoloYaml,
    values: Array,
    photo_of_N: Ints,
    sizes_P2: Ints,
    orientation_P: Ints,
    photos: list[str],
) -> LabelledPeople:
    count, keypoint_count = len(values), len(about.schema)
    points = values[:, _BOX:].reshape(count, keypoint_count, about.numbers)
    centres_N12, sides_N2 = values[:, None, 1:3], values[:, 3:5]
    orientation_N = orientation_P[photo_of_N]
    sizes_N2 = sizes_P2[photo_of_N].astype(np.float64)
    xy_NK2 = as_stored(points[..., :2], orientation_N) * sizes_N2[:, None]
    centres_N2 = as_stored(centres_N12, orientation_N)[:, 0] * sizes_N2
    on_side_N1 = np.isin(orientation_N, ON_SIDE)[:, None]
    sides_N2 = np.where(on_side_N1, sides_N2[:, ::-1], sides_N2) * sizes_N2
    visible_NK = _visible(points)
    return LabelledPeople(
        name=f"{about.path.parent.resolve().name}",
        folder=Path(),
        schema=about.schema,
        photos=tuple(photos),
        photo_ids_P=np.arange(1, len(photos) + 1, dtype=np.int64),
        sizes_P2=sizes_P2,
        photo_of_N=photo_of_N,
        ids_N=np.arange(1, count + 1, dtype=np.int64),
        boxes_N4=np.concatenate([centres_N2 - sides_N2 / 2, sides_N2], axis=1),
        areas_N=AREA_PER_BOX * sides_N2[:, 0] * sides_N2[:, 1],
        keypoints_NK2=np.where((visible_NK > 0)[..., None], xy_NK2, 0.0),
        visible_NK=visible_NK,
        weights_NK=_weights(points),
        crowd_N=np.zeros(count, dtype=bool),
    )


def _visible(points: Array) -> npt.NDArray[np.uint8]:
    """Return visibility; without one, points at (0, 0) or below 0 are the unlabelled ones."""
    if points.shape[-1] == 3:
        given_NK = points[..., 2]
        return np.where((given_NK > 0) & (given_NK < 1), 2, given_NK).astype(np.uint8)
    at_zero_NK = (points == 0).all(axis=-1)
    return np.where(at_zero_NK | (points < 0).any(axis=-1), 0, 2).astype(np.uint8)


def _weights(points: Array) -> npt.NDArray[np.float32]:
    """Return label weights: 1 where labelled by hand, a network's confidence where it gave one."""
    if points.shape[-1] == 3:
        return np.minimum(points[..., 2], 1).astype(np.float32)
    return (_visible(points) > 0).astype(np.float32)
