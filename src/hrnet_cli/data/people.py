"""LabelledPeople: the labels of a data set as arrays, whatever form its files have.

Readers (see `hrnet_cli.data`) make it, training samples from it, evaluation scores against it.
Points are (x, y) in pixels of the photo as stored (EXIF orientation not applied, as COCO counts).
Shape letters: P photos, N people, K keypoints.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from itertools import compress
from pathlib import Path

import numpy as np
import numpy.typing as npt

from hrnet_cli.data.coco_results import CATEGORY_ID
from hrnet_cli.errors import InputError
from hrnet_cli.geometry import clip_annotated_boxes
from hrnet_cli.schema import KeypointSchema

Array = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class LabelledPeople:
    """Every labelled person of a set of photos; people of no use for training included.

    Attributes:
        name: What the data set is called in reports.
        folder: Where the photos lie.
        schema: What the keypoints are called.
        photos: File names of the photos below ``folder``, photos without people included.
        photo_ids_P: int64 id of each photo, as in its file or counted from 1.
        sizes_P2: int64 (width, height) in pixels; (0, 0) where the file does not say.
        photo_of_N: int64 index into ``photos`` of each person.
        ids_N: int64 id of each person, unique.
        boxes_N4: float64 person boxes (x, y, width, height) as labelled.
        areas_N: float64 area of each person in square pixels, for OKS.
        keypoints_NK2: float64 (x, y); (0, 0) for unlabelled ones.
        visible_NK: uint8 as labelled: 0 not labelled, 1 labelled but hidden, 2 visible.
        weights_NK: float32 label weight, 0 for unlabelled keypoints, 1 for ordinary labels, in
            between for labels less sure (pseudo labels).
        crowd_N: bool, True for regions that hold a crowd.
        uncut_N: bool, True for boxes that `usable` leaves as they are: MPII's say what is cropped.
            Left out, False for all.
        categories: Names of the categories of these people by the numbers they have in their file,
            as boxes and results of COCO's form say them; empty where the file numbers none.
    """

    name: str
    folder: Path
    schema: KeypointSchema
    photos: tuple[str, ...]
    photo_ids_P: Ints
    sizes_P2: Ints
    photo_of_N: Ints
    ids_N: Ints
    boxes_N4: Array
    areas_N: Array
    keypoints_NK2: Array
    visible_NK: npt.NDArray[np.uint8]
    weights_NK: npt.NDArray[np.float32]
    crowd_N: npt.NDArray[np.bool_]
    uncut_N: npt.NDArray[np.bool_] = None  # pyright: ignore[reportAssignmentType]
    categories: Mapping[int, str] = field(default_factory=dict[int, str])

    def __post_init__(self) -> None:
        """Check the shapes against each other."""
        if self.uncut_N is None:  # pyright: ignore[reportUnnecessaryComparison]
            object.__setattr__(self, "uncut_N", np.zeros(len(self.photo_of_N), bool))
        photos, people, keypoints = len(self.photos), len(self.photo_of_N), len(self.schema)
        expected = {
            "photo_ids_P": (photos,),
            "sizes_P2": (photos, 2),
            "photo_of_N": (people,),
            "ids_N": (people,),
            "boxes_N4": (people, 4),
            "areas_N": (people,),
            "keypoints_NK2": (people, keypoints, 2),
            "visible_NK": (people, keypoints),
            "weights_NK": (people, keypoints),
            "crowd_N": (people,),
            "uncut_N": (people,),
        }
        for name, shape in expected.items():
            got = getattr(self, name).shape
            if got != shape:
                raise ValueError(f"{name}: expected {shape}, got {got}")

    def __len__(self) -> int:
        """Return the number of people."""
        return len(self.photo_of_N)

    @property
    def category_id(self) -> int:
        """Return the number of their category, of several the first."""
        return next(iter(self.categories), CATEGORY_ID)

    def photo_path(self, photo: int) -> Path:
        """Return the file of a photo by its index."""
        return self.folder / self.photos[photo]

    def pick(self, which: "npt.NDArray[np.bool_] | Ints") -> "LabelledPeople":
        """Return the people that a boolean mask or indices pick; all photos stay."""
        per_person = {f.name: getattr(self, f.name)[which] for f in fields(self) if "_N" in f.name}
        return replace(self, **per_person)

    def pick_photos(self, which_P: "npt.NDArray[np.bool_]") -> "LabelledPeople":
        """Return the photos that a boolean mask picks, with all their people."""
        people = self.pick(which_P[self.photo_of_N])
        index_P = np.cumsum(which_P) - 1
        return replace(
            people,
            photos=tuple(compress(self.photos, which_P)),
            photo_ids_P=self.photo_ids_P[which_P],
            sizes_P2=self.sizes_P2[which_P],
            photo_of_N=index_P[people.photo_of_N],
        )

    def usable(self) -> "LabelledPeople":
        """Return the people to train and test on, with their boxes cleaned as in the official code.

        Left out: crowds, people without a labelled keypoint, with an area of 0, and boxes that
        `croppable` refuses (official HRNet, lib/dataset/coco.py,
        `_load_coco_keypoint_annotation_kernal`). Boxes lose a pixel and are cut to the photo where
        its size is known.
        """
        labelled_N = (self.visible_NK > 0).any(axis=1) & ~self.crowd_N
        cleaned = replace(self, boxes_N4=self._cleaned_boxes())
        return cleaned.pick(labelled_N & (self.areas_N > 0) & self.croppable())

    def croppable(self) -> npt.NDArray[np.bool_]:
        """Return whose box holds something to crop: a length that `usable` leaves.

        A labelled side of 0 or below is a mistake in the labels and refused. (The official code
        takes it as one pixel, and where the corners are exchanged crops beside the person.)
        """
        labelled_N = (self.boxes_N4[:, 2:] > 0).all(axis=1)
        sides_N2 = self._cleaned_boxes()[:, 2:]
        return np.asarray(labelled_N & (sides_N2 >= 0).all(axis=1) & (sides_N2 > 0).any(axis=1))

    def _cleaned_boxes(self) -> Array:
        sizes_N2 = self.sizes_P2[self.photo_of_N]
        limits_N2 = np.where(sizes_N2 > 0, sizes_N2, np.iinfo(np.int64).max).astype(np.float64)
        cut_N4 = clip_annotated_boxes(self.boxes_N4, limits_N2)
        return np.where(self.uncut_N[:, None], self.boxes_N4, cut_N4)


def join_people(parts: Sequence[LabelledPeople]) -> LabelledPeople:
    """Return several data sets of the same keypoints as one; photos and people get new ids.

    Raises:
        InputError: The keypoints differ.
    """
    first = parts[0]
    if len(parts) == 1:
        return first
    for part in parts[1:]:
        if part.schema.keypoints != first.schema.keypoints:
            raise InputError(
                f"'{part.name}' has other keypoints than '{first.name}':"
                f" {', '.join(part.schema.keypoints[:4])}, ... and"
                f" {', '.join(first.schema.keypoints[:4])}, ...",
                hint="train on data sets of the same keypoints in the same order",
            )
    before = np.cumsum([0] + [len(part.photos) for part in parts])
    arrays = {
        name: np.concatenate([getattr(part, name) for part in parts])
        for name in ("sizes_P2", "boxes_N4", "areas_N", "keypoints_NK2", "visible_NK", "weights_NK")
    }
    photos = tuple(
        str(part.photo_path(i).resolve()) for part in parts for i in range(len(part.photos))
    )
    return LabelledPeople(
        name=" + ".join(part.name for part in parts),
        folder=Path(),
        schema=first.schema,
        photos=photos,
        photo_ids_P=np.arange(1, len(photos) + 1),
        photo_of_N=np.concatenate(
            [part.photo_of_N + start for part, start in zip(parts, before[:-1], strict=True)]
        ),
        ids_N=np.arange(1, sum(map(len, parts)) + 1),
        crowd_N=np.concatenate([part.crowd_N for part in parts]),
        uncut_N=np.concatenate([part.uncut_N for part in parts]),
        categories={},  # Photos have other ids, too, than results for one of the files say.
        **arrays,
    )


def digest(people: LabelledPeople) -> str:
    """Return a SHA-256 of the labels and the names of their photos, as hexadecimal text.

    Pixels are not part of it.
    """
    total = hashlib.sha256("\n".join((*people.schema.keypoints, *people.photos)).encode())
    for array in (people.photo_of_N, people.boxes_N4, people.keypoints_NK2, people.weights_NK):
        total.update(np.ascontiguousarray(array).tobytes())
    return total.hexdigest()
