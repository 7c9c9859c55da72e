"""Crops of real photos, as a model gets them: to calibrate and to compare networks on.

Shape letters: B crops, H W height and width.
"""

import importlib.util
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from hrnet_cli import geometry
from hrnet_cli.config import ModelSpec
from hrnet_cli.errors import InputError
from hrnet_cli.images import IMAGE_SUFFIXES, read_image

if TYPE_CHECKING:
    from hrnet_cli.data.people import LabelledPeople

# Photos of people inside packages that this one needs: there without a network.
_INSTALLED = (
    ("ultralytics", "assets/bus.jpg"),
    ("ultralytics", "assets/zidane.jpg"),
    ("matplotlib", "mpl-data/sample_data/grace_hopper.jpg"),
)
# Parts of a photo, as shares of its width and height: all of it, and what may be single people.
WHOLE = ((0.0, 0.0, 1.0, 1.0),)
PARTS = (*WHOLE, (0.0, 0.2, 0.4, 1.0), (0.3, 0.1, 0.7, 1.0), (0.6, 0.2, 1.0, 1.0))


def installed_photos() -> list[Path]:
    """Return photos of people that came with other packages; no package is imported."""
    found: list[Path] = []
    for package, name in _INSTALLED:
        spec = importlib.util.find_spec(package)
        if spec is not None and spec.origin is not None:
            found.append(Path(spec.origin).parent / name)
    return [path for path in found if path.is_file()]


def photos_in(folder: Path) -> list[Path]:
    """Return the photos in a folder and those below it, sorted.

    Raises:
        InputError: There is none.
    """
    photos = sorted(p for p in folder.rglob("*") if p.suffix.lower() in IMAGE_SUFFIXES)
    if not photos:
        raise InputError(f"folder '{folder}' holds no photos ({' '.join(IMAGE_SUFFIXES)})")
    return photos


def photo_crops(
    photos: Sequence[Path],
    spec: ModelSpec,
    most: int,
    parts: Iterable[tuple[float, float, float, float]] = WHOLE,
) -> np.ndarray:
    """Return crops of parts of photos, uint8 RGB (B, H, W, 3) with B at most ``most``.

    Args:
        photos: Files; of many, some that are spread evenly.
        spec: Gives size, codec and padding.
        most: Most crops.
        parts: Boxes in every photo, (x1, y1, x2, y2) as shares of width and height.

    Raises:
        InputError: A photo cannot be read.
    """
    shares_P4 = np.array(list(parts))
    crops: list[np.ndarray] = []
    for photo in spread(len(photos), -(-most // len(shares_P4))):
        image_HW3, _ = read_image(photos[photo])
        height, width = image_HW3.shape[:2]
        crops.extend(_crop(image_HW3, shares_P4 * [width, height, width, height], spec))
    return np.stack(crops[:most])


def labelled_crops(people: "LabelledPeople", spec: ModelSpec, most: int) -> np.ndarray:
    """Return crops of labelled people, uint8 RGB (B, H, W, 3) with B at most ``most``.

    Raises:
        InputError: A photo cannot be read, or nobody is labelled.
    """
    usable = people.usable()
    if not len(usable):
        raise InputError(f"'{people.name}' has no labelled people")
    crops: list[np.ndarray] = []
    for person in spread(len(usable), most):
        path = usable.photo_path(int(usable.photo_of_N[person]))
        image_HW3, _ = read_image(path, apply_orientation=False)
        xyxy_14 = geometry.xywh_to_xyxy(usable.boxes_N4[person : person + 1])
        crops.extend(_crop(image_HW3, xyxy_14, spec))
    return np.stack(crops)


def spread(count: int, most: int) -> list[int]:
    """Return at most so many of the numbers from 0 to count - 1, spread evenly."""
    if count <= most:
        return list(range(count))
    return [index * count // most for index in range(most)]


def _crop(image_HW3: np.ndarray, xyxy_N4: np.ndarray, spec: ModelSpec) -> np.ndarray:
    centers, sizes = geometry.crop_boxes(xyxy_N4, spec.input_hw, spec.box_padding)
    matrices = geometry.crop_matrices(centers, sizes, spec.input_hw, spec.codec)
    return geometry.warp_crops(image_HW3, matrices, spec.input_hw)
