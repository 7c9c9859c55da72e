"""MPII in the form of the official code: one JSON file with a list of people.

A record is ``image``, ``center``, ``scale`` in units of 200 pixels, ``joints`` and ``joints_vis``.
Shape letters: P photos, N people, K keypoints.
"""

from pathlib import Path
from zlib import error as zlib_error

import msgspec
import numpy as np

from hrnet_cli.data.labels import Labels
from hrnet_cli.data.people import Array, LabelledPeople
from hrnet_cli.errors import InputError
from hrnet_cli.oks import AREA_PER_BOX
from hrnet_cli.schema import KeypointSchema, load_schema

SCHEMA = "mpii16"
UNIT_PX = 200  # of the scale
# Part of a unit by which centres are moved down, so that no feet are cut off (official HRNet,
# lib/dataset/mpii.py, `_get_db`, which also grows the scale by 1.25: every crop here is).
DOWN_PX = 15
_PEEK = 4096


class _Person(msgspec.Struct, gc=False):
    """A record, its fields as they stand in the file."""

    image: str
    center: tuple[float, float]
    scale: float
    joints: list[tuple[float, float]] | None = None
    joints_vis: list[float] | None = None


def is_mpii(path: Path) -> bool:
    """Tell whether a JSON file is a list of people with centres, from its first bytes."""
    try:
        with path.open("rb") as file:
            start = file.read(_PEEK).lstrip()
    except OSError:
        return False
    return start.startswith(b"[") and b'"center"' in start


def read_mpii(path: Path, schema: KeypointSchema | None = None) -> Labels:
    """Return the labels of a file such as ``annot/train.json``.

    Centres and keypoints count pixels from 1 as in Matlab, and become counted from 0. Boxes are the
    squares of the official crops before they grow by 1.25, and are not cut to the photo.

    Args:
        path: The file.
        schema: Other names of its 16 keypoints; None for those of `SCHEMA`.

    Raises:
        InputError: The file cannot be read, or a record is not of this form or has no labels.
    """
    schema = schema or load_schema(SCHEMA)
    try:
        records = msgspec.json.decode(path.read_bytes(), type=list[_Person])
    except OSError as error:
        raise InputError(f"'{path}' cannot be read: {error.strerror}") from error
    except (msgspec.DecodeError, RecursionError) as error:
        raise InputError(
            f"'{path}': {error}; expected MPII records: image, center, scale, joints and joints_vis"
        ) from error
    joints_NK3 = _joints(path, records, len(schema))
    visible_NK = joints_NK3[..., 2] > 0
    names = {name: photo for photo, name in enumerate(dict.fromkeys(r.image for r in records))}
    boxes_N4 = _boxes(records)
    areas_N = AREA_PER_BOX * boxes_N4[:, 2:].prod(axis=1)
    people = LabelledPeople(
        name=path.stem,
        folder=Path(),
        schema=schema,
        photos=tuple(names),
        photo_ids_P=np.arange(1, len(names) + 1),
        sizes_P2=np.zeros((len(names), 2), np.int64),
        photo_of_N=np.array([names[r.image] for r in records], np.int64),
        ids_N=np.arange(1, len(records) + 1),
        boxes_N4=boxes_N4,
        areas_N=areas_N,
        keypoints_NK2=np.where(visible_NK[..., None], joints_NK3[..., :2] - 1, 0.0),
        visible_NK=np.where(visible_NK, 2, 0).astype(np.uint8),
        weights_NK=visible_NK.astype(np.float32),
        crowd_N=np.zeros(len(records), bool),
        uncut_N=np.ones(len(records), bool),
    )
    notes = (
        "MPII records: boxes are squares of 200 pixels times the scale, areas"
        f" {AREA_PER_BOX} of them",
    )
    return Labels(people, (), np.full(len(records), -1, np.int16), notes)


def read_head_boxes(path: Path, people: LabelledPeople) -> Array:
    """Return the head box (x1, y1, x2, y2) of each person, in pixels counted from 1.

    Args:
        path: The official code's ``gt_valid.mat``.
        people: The people of the ``valid.json`` beside it, in the order of the file.

    Raises:
        InputError: The file cannot be read, or is of other people.
    """
    from scipy.io import loadmat
    from scipy.io.matlab import MatReadError

    damage = (
        MatReadError,
        zlib_error,
        OSError,
        ValueError,
        LookupError,
        TypeError,
        NotImplementedError,
    )
    try:
        corners_22N = np.asarray(loadmat(path)["headboxes_src"], np.float64)
    except damage as problem:
        raise InputError(f"no 'headboxes_src' can be read from '{path}': {problem}") from problem
    if corners_22N.shape != (2, 2, len(people)):
        raise InputError(
            f"'{path}' has head boxes of shape {corners_22N.shape}, expected (2, 2, {len(people)}),"
            f" one for each person of '{people.name}'"
        )
    return corners_22N.transpose(2, 0, 1).reshape(-1, 4)


def _joints(path: Path, records: list[_Person], count: int) -> Array:
    """Return (x, y, visibility) of all keypoints, (N, K, 3)."""
    for number, record in enumerate(records, start=1):
        if record.joints is None or record.joints_vis is None:
            raise InputError(
                f"'{path}': record {number} has no 'joints' or no 'joints_vis'",
                hint="MPII's test part has no labels: take train or valid",
            )
        if len(record.joints) != count or len(record.joints_vis) != count:
            raise InputError(
                f"'{path}': record {number} has {len(record.joints)} joints and"
                f" {len(record.joints_vis)} joints_vis, expected {count} of each"
            )
    if not records:
        raise InputError(f"'{path}' holds no people")
    points_NK2 = np.array([record.joints for record in records], np.float64)
    visible_NK = np.array([record.joints_vis for record in records], np.float64)
    return np.concatenate([points_NK2, visible_NK[..., None]], axis=2)


def _boxes(records: list[_Person]) -> Array:
    """Return (x, y, width, height) around the centres; no area where a centre is not known (-1)."""
    scale_N1 = np.array([[r.scale if r.center[0] != -1 else 0.0] for r in records])
    center_N2 = np.array([r.center for r in records]) - 1 + scale_N1 * [0, DOWN_PX]
    side_N1 = UNIT_PX * scale_N1
    return np.concatenate([center_N2 - side_N1 / 2, side_N1, side_N1], axis=1)
