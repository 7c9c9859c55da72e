"""The packed file: decoded parts of photos in one file, mapped into memory.

It holds, for each photo, the part that the people's crops can reach under the strongest
augmentation. All processes of a machine share its pages, and it can be moved to another machine,
where the photos themselves are not needed.

Shape letters: P photos, N people.
"""

import errno
import hashlib
import json
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from hrnet_cli.data.people import LabelledPeople, digest
from hrnet_cli.data.photos import Progress, Reach, Region, center_of, cut_photos, whole_pixels
from hrnet_cli.errors import InputError, OutputError
from hrnet_cli.scratch import written_whole

MAGIC = b"hrnet-photos\r\n\x1a\n"
VERSION = 1
# Magic, version, where the index starts.
_HEAD_BYTES = len(MAGIC) + 4 + 8
_ALIGNMENT = 64
_INDEX = np.dtype(
    [
        ("offset", "<i8"),
        ("rows", "<i4"),
        ("columns", "<i4"),
        ("first_x", "<i4"),
        ("first_y", "<i4"),
        ("step", "<i4"),
        ("photo_width", "<i4"),
        ("photo_height", "<i4"),
    ]
)
_AGAIN = "delete it, and it is made anew"


class PackedPhotos:
    """Decoded parts of photos in one file, mapped into memory; see `open_packed`.

    Args:
        path: The file.
        index_P: Its index, of ``_INDEX``; no rows for a photo that could not be read.
        problems: What was the matter with those, by index of the photo.
    """

    def __init__(self, path: Path, index_P: npt.NDArray[Any], problems: dict[int, str]) -> None:
        self._path = path
        self._index_P = index_P
        self._problems = problems
        self._bytes = _map(path)

    def __len__(self) -> int:
        """Return the number of photos, those that could not be read included."""
        return len(self._index_P)

    @property
    def problems(self) -> tuple[str, ...]:
        """Return what was the matter with the photos that could not be read."""
        return tuple(self._problems.values())

    def read(self, photo: int) -> Region:
        """Return what crops can show of a photo; see `PhotoSource.read`."""
        if photo in self._problems:
            raise InputError(f"{self._problems[photo]} (when '{self._path}' was made)")
        entry = self._index_P[photo]
        rows, columns = int(entry["rows"]), int(entry["columns"])
        offset = int(entry["offset"])
        pixels_HW3 = self._bytes[offset : offset + rows * columns * 3].reshape(rows, columns, 3)
        step = int(entry["step"])
        first_xy = (center_of(entry["first_x"], step), center_of(entry["first_y"], step))
        return Region(pixels_HW3, first_xy, step)

    def __getstate__(self) -> dict[str, Any]:
        """Leave the pixels out: a loader process maps the file anew."""
        return self.__dict__ | {"_bytes": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Map the file anew."""
        self.__dict__.update(state)
        self._bytes = _map(self._path)


def pack_photos(
    path: Path, people: LabelledPeople, reach: Reach, on_progress: Progress | None = None
) -> None:
    """Write the packed file of people's photos; whole or not at all.

    Args:
        path: Target; replaced if it is there.
        people: Whose photos; for those that cannot be read a note is kept.
        reach: What of them is kept.
        on_progress: Called with photos done and all photos.

    Raises:
        OutputError: No space, no permission, or the place is taken by a folder.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with written_whole(path, lasting=True) as part, part.open("xb") as file:
            _write_packed(file, people, reach, on_progress)
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
        raise OutputError(
            f"cannot write the photo cache '{path}': {error.strerror or error}",
            hint=f"it needs about {_expected_bytes(people, reach) / 1e9:.1f} GB;"
            " make room or name another disk"
            if full
            else "name another place",
        ) from error


def open_packed(path: Path, people: LabelledPeople, reach: Reach) -> PackedPhotos:
    """Return the packed photos of a file after checking that they fit.

    Args:
        path: A file from `pack_photos`.
        people: Whose photos; the same labels as when it was made.
        reach: What crops will show; no more than it was made for.

    Raises:
        InputError: The file is missing, truncated, no such file or of another version, or was made
            from other labels or for less.
    """
    head = _read_head(path)
    if head["labels"] != label_hash(people):
        raise InputError(
            f"photo cache '{path}' was made from other labels than those of '{people.name}'"
            f" ({head['photos']} photos, {head['people']} people; here {len(people.photos)} and"
            f" {len(people)})",
            hint=_AGAIN,
        )
    index_P = np.frombuffer(bytes.fromhex(head["index"]), dtype=_INDEX)
    problems = {int(photo): message for photo, message in head["problems"].items()}
    _check_reach(path, people, reach, index_P)
    return PackedPhotos(path, index_P, problems)


def open_or_pack(
    path: Path, people: LabelledPeople, reach: Reach, on_progress: Progress | None = None
) -> PackedPhotos:
    """Return the packed photos of a file, which is made if it is not there.

    See `open_packed` and `pack_photos` for the arguments and errors.
    """
    if not path.exists():
        pack_photos(path, people, reach, on_progress)
    return open_packed(path, people, reach)


def label_hash(people: LabelledPeople) -> str:
    """Return the SHA-256 of all that decides which pixels of which photos training reads."""
    # Names without their folders: a cache may be moved together with its data.
    names = "\0".join(Path(photo).name for photo in people.photos)
    total = hashlib.sha256(names.encode())
    for values in (
        people.photo_of_N,
        people.ids_N,
        people.boxes_N4,
        people.keypoints_NK2,
        people.weights_NK > 0,
    ):
        total.update(np.ascontiguousarray(values).tobytes())
    return total.hexdigest()


def photo_stamp(people: LabelledPeople) -> str:
    """Return a SHA-256 of the labels and of the photo files as they are now, as hexadecimal text.

    Of a file path, size and time of change count: photos of other folders, and others in their
    place, give another stamp. Photos without people are left out.
    """
    total = hashlib.sha256(digest(people).encode())
    folder = people.folder.absolute()
    for photo in np.unique(people.photo_of_N).tolist():
        path = folder / people.photos[photo]
        try:
            status = path.stat()
            line = f"{path}\0{status.st_size}\0{status.st_mtime_ns}\n"
        except (OSError, ValueError):  # missing, or no name of a file
            line = f"{path}\n"
        total.update(line.encode("utf-8", "surrogateescape"))
    return total.hexdigest()


def _write_packed(
    file: BinaryIO, people: LabelledPeople, reach: Reach, on_progress: Progress | None
) -> None:
    index_P = np.zeros(len(people.photos), _INDEX)
    problems: dict[int, str] = {}
    file.write(bytes(_HEAD_BYTES))
    for photo, cut in cut_photos(people, reach, on_progress):
        if isinstance(cut, InputError):
            problems[photo] = cut.message
            continue
        region, first, size_wh = cut
        file.write(bytes(-file.tell() % _ALIGNMENT))
        rows, columns = region.pixels_HW3.shape[:2]
        step = int(region.step)
        index_P[photo] = (file.tell(), rows, columns, *first, step, *size_wh)
        file.write(region.pixels_HW3.data)
    trailer = {
        "labels": label_hash(people),
        "photos": len(people.photos),
        "people": len(people),
        "problems": problems,
        "index": index_P.tobytes().hex(),
    }
    at = file.tell()
    file.write(json.dumps(trailer).encode())
    file.seek(0)
    file.write(MAGIC + VERSION.to_bytes(4, "little") + at.to_bytes(8, "little"))


def _read_head(path: Path) -> dict[str, Any]:
    """Return the trailer of a packed file."""
    try:
        with path.open("rb") as file:
            head = file.read(_HEAD_BYTES)
            if head[: len(MAGIC)] != MAGIC:
                raise InputError(
                    f"'{path}' is no photo cache of hrnet", hint="name another file for the cache"
                )
            version = int.from_bytes(head[len(MAGIC) : len(MAGIC) + 4], "little")
            if version != VERSION:
                raise InputError(
                    f"photo cache '{path}' has format {version}, expected {VERSION}", hint=_AGAIN
                )
            file.seek(int.from_bytes(head[-8:], "little"))
            return json.loads(file.read())
    except OSError as error:
        raise InputError(f"photo cache '{path}' cannot be opened: {error.strerror}") from error
    except ValueError as error:
        raise InputError(
            f"photo cache '{path}' is damaged: its end is missing or not readable", hint=_AGAIN
        ) from error


def _check_reach(
    path: Path, people: LabelledPeople, reach: Reach, index_P: npt.NDArray[Any]
) -> None:
    """Raise InputError unless the cache shows all of the photos that crops can reach."""
    sizes_P2 = np.stack([index_P["photo_width"], index_P["photo_height"]], axis=1).astype(np.int64)
    stored = Reach(reach.near_P2, reach.far_P2, index_P["step"].astype(np.int64))
    near_P2, far_P2 = whole_pixels(stored, slice(None), sizes_P2)
    first_P2 = np.stack([index_P["first_x"], index_P["first_y"]], axis=1)
    sides_P2 = np.stack([index_P["columns"], index_P["rows"]], axis=1)
    end_P2 = first_P2 + sides_P2 * index_P["step"][:, None]
    empty_P1 = (far_P2 <= near_P2).any(axis=1, keepdims=True) | (sizes_P2 == 0).any(
        axis=1, keepdims=True
    )
    short_P = (((near_P2 < first_P2) | (far_P2 > end_P2)) & ~empty_P1).any(axis=1)
    coarse_P = (index_P["step"] > reach.step_P) & ~empty_P1[:, 0]
    for bad_P, what in ((short_P, "less of"), (coarse_P, "fewer pixels of")):
        if bad_P.any():
            name = people.photos[int(np.flatnonzero(bad_P)[0])]
            raise InputError(
                f"photo cache '{path}' holds {what} photo '{name}' than crops of this size and"
                " augmentation show",
                hint=_AGAIN,
            )


def _expected_bytes(people: LabelledPeople, reach: Reach) -> int:
    near_P2, far_P2 = whole_pixels(reach, slice(None), people.sizes_P2)
    return int(3 * (np.prod(far_P2 - near_P2, axis=1) // reach.step_P**2).sum())


def _map(path: Path) -> npt.NDArray[np.uint8]:
    """Return the bytes of a file, mapped into memory, read-only."""
    return np.asarray(np.memmap(path, np.uint8, "r"))
