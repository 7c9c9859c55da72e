"""Where the pixels of training crops come from: photo files, or photos kept in memory.

A third source, one packed file, stands in `hrnet_cli.data.photo_cache`.

Shape letters: P photos, N people.
"""

import contextlib
import functools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import cv2
import numpy as np
import numpy.typing as npt

from hrnet_cli.ahead import work_ahead
from hrnet_cli.data.people import Array, LabelledPeople
from hrnet_cli.device import processors
from hrnet_cli.errors import InputError
from hrnet_cli.images import MAX_PIXELS, Pixels, read_image

try:
    import simplejpeg
except ImportError:  # optional
    simplejpeg = None

Progress = Callable[[int, int], None]

# A photo is kept smaller, by a whole number, where even the crop that zooms in most still has so
# many photo pixels a side for each of its own. COCO's photos are never that large.
_DETAIL = 2.0
# A crop reads one pixel beyond its rim to interpolate; one more is for rounding.
_MARGIN = 2
# Cameras append a few bytes to the end-of-image marker of a JPEG.
_END_WITHIN = 64
_AS_STORED = cv2.IMREAD_COLOR_RGB | cv2.IMREAD_IGNORE_ORIENTATION


@dataclass(frozen=True)
class Region:
    """A part of a photo, perhaps made smaller.

    Attributes:
        pixels_HW3: uint8 RGB.
        first_xy: Where the centre of its first pixel lies, in photo pixels.
        step: Photo pixels from one of its pixels to the next.
    """

    pixels_HW3: Pixels
    first_xy: tuple[float, float] = (0.0, 0.0)
    step: float = 1.0


@dataclass(frozen=True)
class Reach:
    """What of each photo crops can show.

    Attributes:
        near_P2: float64 lowest (x, y) in photo pixels; above ``far_P2`` for photos without people.
        far_P2: float64 highest (x, y).
        step_P: int64 by how much the photo may be made smaller; 1 for not at all.
    """

    near_P2: Array
    far_P2: Array
    step_P: npt.NDArray[np.int64]

    @classmethod
    def around(
        cls, people: LabelledPeople, centers_N2: Array, half_sides_N2: Array, detail_N: Array
    ) -> "Reach":
        """Return the reach of crops that stay within half-sides of their centres.

        Args:
            people: Whose photos.
            centers_N2: Centres in photo pixels.
            half_sides_N2: How far crops of that person show (x, y).
            detail_N: Photo pixels a side for each crop pixel, in the crop that zooms in most.
        """
        photos, photo_of_N = len(people.photos), people.photo_of_N
        near_P2, far_P2 = np.full((photos, 2), np.inf), np.full((photos, 2), -np.inf)
        detail_P = np.full(photos, np.inf)
        np.minimum.at(near_P2, photo_of_N, centers_N2 - half_sides_N2)
        np.maximum.at(far_P2, photo_of_N, centers_N2 + half_sides_N2)
        np.minimum.at(detail_P, photo_of_N, detail_N)
        detail_P[np.isinf(detail_P)] = 1  # nobody there
        return cls(near_P2, far_P2, np.maximum(detail_P // _DETAIL, 1).astype(np.int64))

    def joined(self, other: "Reach") -> "Reach":
        """Return what either reaches."""
        return Reach(
            np.minimum(self.near_P2, other.near_P2),
            np.maximum(self.far_P2, other.far_P2),
            np.minimum(self.step_P, other.step_P),
        )


class PhotoSource(Protocol):
    """Anything that gives the surroundings of people."""

    def read(self, photo: int) -> Region:
        """Return at least what crops can show of the photo with that index.

        Raises:
            InputError: The photo is missing or damaged.
        """
        ...


class PhotoFiles:
    """Photos decoded from their files each time.

    Args:
        people: Whose photos.
    """

    def __init__(self, people: LabelledPeople) -> None:
        self._people = people

    def read(self, photo: int) -> Region:
        """Return the whole photo; see `PhotoSource.read`."""
        return Region(read_labelled(self._people, photo))


class PhotosInMemory:
    """Decoded parts of photos kept in memory, as many as fit; the others from their files.

    Loader processes share what is loaded before they start (by fork).

    Args:
        people: Whose photos.
        regions: What is kept, by index of the photo.
    """

    def __init__(self, people: LabelledPeople, regions: dict[int, Region]) -> None:
        self._files = PhotoFiles(people)
        self._regions = regions

    def __len__(self) -> int:
        """Return how many photos are in memory."""
        return len(self._regions)

    def read(self, photo: int) -> Region:
        """Return what crops can show of a photo; see `PhotoSource.read`."""
        region = self._regions.get(photo)
        return region if region is not None else self._files.read(photo)


def load_into_memory(
    people: LabelledPeople, reach: Reach, max_bytes: int, on_progress: Progress | None = None
) -> PhotosInMemory:
    """Return the photos of people, decoded once, as far as the memory allowed reaches.

    Args:
        people: Whose photos; those that cannot be read stay out, and are met again when read.
        reach: What of them is kept.
        max_bytes: Most bytes of pixels to keep.
        on_progress: Called with photos done and all photos.
    """
    regions: dict[int, Region] = {}
    free = max_bytes
    for photo, cut in cut_photos(people, reach, on_progress):
        if isinstance(cut, InputError):
            continue
        free -= cut[0].pixels_HW3.nbytes
        if free < 0:
            break
        regions[photo] = cut[0]
    return PhotosInMemory(people, regions)


def read_photo(path: Path) -> Pixels:
    """Return a photo as stored (EXIF orientation not applied), RGB, by the fastest safe way.

    Whole JPEG files go to simplejpeg if it is installed, else to OpenCV: both hold libjpeg-turbo
    and give the same pixels. All other files, and all that these will not have, go to
    `images.read_image`, which names what is the matter. OpenCV alone would give a truncated JPEG a
    grey end without a word.

    Raises:
        InputError: The file is missing, empty, truncated, too large or no picture.
    """
    try:
        data = path.read_bytes()
    except OSError:
        data = b""
    if data[:3] == b"\xff\xd8\xff" and b"\xff\xd9" in data[-_END_WITHIN:]:
        decoded = _decode_jpeg(data)
        if decoded is not None:
            return decoded
    return read_image(path, apply_orientation=False)[0]


def read_labelled(people: LabelledPeople, photo: int) -> Pixels:
    """Return a photo of a data set as stored, RGB, in whose pixels its labels are.

    Raises:
        InputError: As `read_photo`, or the labels are those of the photo turned upright, as tools
            write them that obey EXIF: every keypoint would lie elsewhere.
    """
    path = people.photo_path(photo)
    pixels_HW3 = read_photo(path)
    height, width = pixels_HW3.shape[:2]
    if height != width and (height, width) == tuple(people.sizes_P2[photo].tolist()):
        raise InputError(
            f"'{path}' is stored as {width}x{height} pixels, its labels are for {height}x{width}:"
            " turned by EXIF",
            hint="store the photo upright; hrnet check-data lists all such photos",
        )
    return pixels_HW3


def _decode_jpeg(data: bytes) -> Pixels | None:
    """Return the RGB pixels of a JPEG, None where the fast decoders will not have it."""
    if simplejpeg is not None:
        with contextlib.suppress(ValueError):
            rows, columns = map(int, simplejpeg.decode_jpeg_header(data)[:2])
            return simplejpeg.decode_jpeg(data, "RGB") if rows * columns <= MAX_PIXELS else None
    try:
        decoded = cv2.imdecode(np.frombuffer(data, np.uint8), _AS_STORED)
    except cv2.error:  # more pixels than it allows
        return None
    return None if decoded is None else np.asarray(decoded, np.uint8)


Cut = tuple[Region, tuple[int, int], tuple[int, int]]


def cut_photos(
    people: LabelledPeople, reach: Reach, on_progress: Progress | None
) -> Iterator[tuple[int, Cut | InputError]]:
    """Yield the photos that crops show, in their order, each with what can be reached of it.

    That is the region, the whole (x, y) photo pixel where it starts, and the photo's (w, h).
    """
    wanted = np.flatnonzero((reach.far_P2 >= reach.near_P2).all(axis=1)).tolist()
    cuts = work_ahead(functools.partial(_cut_photo, people, reach), wanted, processors(), "cut")
    for done, (photo, cut) in enumerate(cuts):
        if on_progress is not None:
            on_progress(done, len(wanted))
        yield photo, cut.result()
    if on_progress is not None:
        on_progress(len(wanted), len(wanted))


def _cut_photo(people: LabelledPeople, reach: Reach, photo: int) -> Cut | InputError:
    try:
        pixels_HW3 = read_labelled(people, photo)
    except InputError as error:
        return error
    size_wh = (pixels_HW3.shape[1], pixels_HW3.shape[0])
    near, far = (edges.tolist() for edges in whole_pixels(reach, photo, size_wh))
    step = int(reach.step_P[photo])
    part_HW3 = _shrink(pixels_HW3[near[1] : far[1], near[0] : far[0]], step)
    first_xy = (center_of(near[0], step), center_of(near[1], step))
    return Region(part_HW3, first_xy, step), (near[0], near[1]), size_wh


def whole_pixels(
    reach: Reach, photo: int | slice, sizes_wh: npt.ArrayLike
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Return the first pixel (x, y) that crops may read, and the one behind the last."""
    margin = _MARGIN * reach.step_P[photo, None]
    near = np.clip(np.floor(reach.near_P2[photo] - margin), 0, sizes_wh)
    far = np.clip(np.ceil(reach.far_P2[photo] + margin) + 1, near, np.maximum(sizes_wh, near))
    return near.astype(np.int64), far.astype(np.int64)


def center_of(first: int, step: int) -> float:
    """Return where the first pixel made of ``step`` has its centre."""
    return float(first) + (step - 1) / 2


def _shrink(part_HW3: Pixels, step: int) -> Pixels:
    """Return a picture made smaller by a whole number, its last pixels repeated to fill up."""
    if step == 1 or not part_HW3.size:
        return np.ascontiguousarray(part_HW3)
    rows, columns = (-(-side // step) for side in part_HW3.shape[:2])
    missing = (rows * step - part_HW3.shape[0], columns * step - part_HW3.shape[1])
    filled = cv2.copyMakeBorder(part_HW3, 0, missing[0], 0, missing[1], cv2.BORDER_REPLICATE)
    return np.asarray(cv2.resize(filled, (columns, rows), interpolation=cv2.INTER_AREA), np.uint8)
