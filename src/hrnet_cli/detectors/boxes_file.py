"""Person boxes from a file instead of a detector: any other program's, or a person's."""

import json
import logging
import os
import re
import unicodedata
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path, PurePosixPath

import numpy as np

from hrnet_cli.detectors.boxes_formats import FRAME_KEYS, read_listings
from hrnet_cli.detectors.boxes_listing import Listing
from hrnet_cli.errors import InputError
from hrnet_cli.geometry import box_nms
from hrnet_cli.structures import Boxes, Frame

log = logging.getLogger(__name__)

_NAMES_SHOWN = 3
_FRAME_ZERO = "_000000000000"

# How well a listing fits a photo: equal path parts from the end; the file name with its suffix;
# no more folders in the listing than the photo has. Greater is better.
_Fit = tuple[int, bool, bool]


class BoxesFile:
    """Gives each photo or frame the boxes that a file lists for it, unchanged.

    A photo and a listing belong together when one's path ends with the other's: ``photo.jpg`` and
    ``set1/photo.jpg`` do, ``set2/photo.jpg`` and ``set1/photo.jpg`` do not. Of several listings
    that fit, the one with the longest common path is taken. A name without suffix fits the photo
    of that stem, a COCO number the photo whose stem ends in it (``000000000785.jpg`` is 785).

    Args:
        path: The file, for messages.
        listings: What it says of each picture.
        person_threshold: Boxes with a lower score are dropped; None keeps all.
        iou_threshold: Of two boxes that overlap more, the less sure is dropped; None keeps all.
        max_people: Most boxes for one picture, the surest; None keeps all.
        unlisted_is_nobody: A photo the file does not mention has nobody in it; otherwise it is an
            error.
    """

    name = "boxes-file"

    def __init__(
        self,
        path: Path,
        listings: Sequence[Listing],
        *,
        person_threshold: float | None = None,
        iou_threshold: float | None = None,
        max_people: int | None = None,
        unlisted_is_nobody: bool = False,
    ) -> None:
        self.path = path
        self.listings = tuple(listings)
        self.person_threshold = person_threshold
        self.iou_threshold = iou_threshold
        self.max_people = max_people
        self.unlisted_is_nobody = unlisted_is_nobody
        self._by_name: defaultdict[str, list[int]] = defaultdict(list)
        self._by_coco_id: defaultdict[int, list[int]] = defaultdict(list)
        for index, listing in enumerate(self.listings):
            if listing.coco_id is not None:
                self._by_coco_id[listing.coco_id].append(index)
            else:
                self._by_name[_parts(listing.photo)[-1]].append(index)
        self._photo_of_listing: dict[int, str] = {}

    def check_speaks_of(
        self, photos: Iterable[tuple[str, str]], videos: Iterable[tuple[str, str]] = ()
    ) -> None:
        """Make sure that the file was made for a run's photos and videos.

        Args:
            photos: (source, output name) of each photo.
            videos: (source, output name) of each video.

        Raises:
            InputError: It mentions pictures, but none of these, or a video and none of its frames.
        """
        photos, videos = list(photos), list(videos)
        if not self.listings or not (photos or videos):
            return
        mentioned = [self._mentions(*video) for video in videos]
        known = (self._find(*photo, 0, f"photo '{photo[0]}'") is not None for photo in photos)
        if not any(mentioned) and not any(known):
            kind, (source, _) = ("photo", photos[0]) if photos else ("video", videos[0])
            raise self._not_mentioned(f"{kind} '{source}'")

    def _mentions(self, source: str, name: str) -> bool:
        """Tell whether some listing is of some frame of a video.

        Raises:
            InputError: One is of the video, and none tells a frame.
        """
        paths = _paths(source, name)
        numbered = {parts[-1] for parts in _numbered(paths, 0)}
        heads = tuple(text.removesuffix(_FRAME_ZERO) + "_" for text in numbered)
        if any(
            known.startswith(heads) and re.search(r"_[0-9]{12}$", known) for known in self._by_name
        ):
            return True
        fitting = [self.listings[index] for index in self._candidates(paths)]
        fitting = [listing for listing in fitting if _fit(listing, paths)]
        if fitting and all(listing.frame is None for listing in fitting):
            raise InputError(
                f"boxes file '{self.path}' does not tell the frames of video '{source}'",
                hint=f"expected a column or field called {FRAME_KEYS[0]} that counts from 0 (or "
                f"{', '.join(FRAME_KEYS[1:])})",
            )
        return bool(fitting)

    def __call__(self, frames: Sequence[Frame]) -> list[Boxes]:
        """Return the boxes of each frame, in the order of the file.

        Raises:
            InputError: The file has no boxes for a frame, or several different ones, or boxes
                made for a picture of another size or wholly outside the picture.
        """
        return [self._boxes_of(frame) for frame in frames]

    def _boxes_of(self, frame: Frame) -> Boxes:
        index = self._find(frame.source, frame.name, frame.index, _called(frame))
        if index is None:
            if self.unlisted_is_nobody:
                return Boxes.empty()
            raise self._not_mentioned(_called(frame), _nobody_in(frame))
        self._claim(index, frame)
        listing = self.listings[index]
        self._check_picture(listing, frame)
        return self._selected(listing.boxes)

    def _find(self, source: str, name: str, frame_index: int, called: str) -> int | None:
        """Return the index of the listing that fits a frame best, None when none does.

        Args:
            source: Path of the photo or video as it was given.
            name: Its output name.
            frame_index: Position in the video; 0 for a photo.
            called: What messages call the frame.
        """
        paths = _paths(source, name)
        fits: dict[int, _Fit] = {}
        for index in self._candidates(paths):
            listing = self.listings[index]
            fit = _fit(listing, paths)
            if fit is not None and (listing.frame or 0) == frame_index:
                fits[index] = fit
        numbered = _numbered(paths, frame_index)
        for index in {i for parts in numbered for i in self._by_name.get(parts[-1], ())}:
            fit = _fit(self.listings[index], numbered)
            if fit is not None and not self.listings[index].frame:
                fits[index] = fit
        if not fits:
            return None
        best_fit = max(fits.values())
        best = [index for index, fit in fits.items() if fit == best_fit]
        if any(not _same(self.listings[best[0]], self.listings[other]) for other in best[1:]):
            raise InputError(
                f"boxes file '{self.path}' has several entries for {called}: "
                f"{', '.join(str(self.listings[index]) for index in best)}",
                hint="write them with their folders, each once",
            )
        return best[0]

    def _candidates(self, paths: Iterable[tuple[str, ...]]) -> set[int]:
        names = {parts[-1] for parts in paths}
        stems = {PurePosixPath(name).stem for name in names}
        numbers = {int(match[0]) for stem in stems if (match := re.search(r"[0-9]+$", stem))}
        by_name = {index for name in names | stems for index in self._by_name.get(name, ())}
        return by_name | {index for n in numbers for index in self._by_coco_id.get(n, ())}

    def _claim(self, index: int, frame: Frame) -> None:
        """Refuse to give the boxes of one photo or video to a second one of the same name."""
        photo = os.path.abspath(frame.source)  # noqa: PTH100
        first = self._photo_of_listing.setdefault(index, photo)
        if first != photo:
            raise InputError(
                f"boxes file '{self.path}': entry '{self.listings[index]}' fits "
                f"{_called(frame)}, but was used for '{first}' already",
                hint="write them in the boxes file with their folders and suffixes",
            )

    def _check_picture(self, listing: Listing, frame: Frame) -> None:
        width, height = frame.size_wh
        where = f"boxes file '{self.path}', {_called(frame)}"
        if listing.size_wh is not None and listing.size_wh != frame.size_wh:
            was_width, was_height = listing.size_wh
            raise InputError(
                f"{where}: its boxes were made for a picture of {was_width}x{was_height} pixels, "
                f"this one has {width}x{height}",
                hint="boxes are in pixels of the upright picture: find them again on this file",
            )
        if _are_shares(listing.boxes.xyxy_N4) and min(width, height) > 1:
            raise InputError(
                f"{where}: its boxes are shares of the picture, 0 to 1, expected pixels",
                hint=f"multiply x by the width, here {width}, and y by the height, {height}",
            )
        x1, y1, x2, y2 = listing.boxes.xyxy_N4.T
        outside_N = (x2 <= 0) | (y2 <= 0) | (x1 >= width) | (y1 >= height)
        if outside_N.any():
            index = int(np.flatnonzero(outside_N)[0])
            box = ", ".join(f"{value:g}" for value in listing.boxes.xyxy_N4[index])
            raise InputError(
                f"boxes file '{self.path}', {listing.places[index]}, {_called(frame)}: "
                f"box [{box}] lies wholly outside the picture of {width}x{height} pixels",
                hint="boxes are x1, y1, x2, y2 in pixels of the upright picture",
            )

    def _selected(self, boxes: Boxes) -> Boxes:
        """Apply the thresholds the user asked for; the order of the file stays."""
        kept = np.arange(len(boxes))
        if self.person_threshold is not None:
            kept = kept[boxes.scores_N >= self.person_threshold]
        if self.iou_threshold is not None:
            some = boxes[kept]
            kept = kept[box_nms(some.xyxy_N4, some.scores_N, self.iou_threshold)]
        if self.max_people is not None:
            surest = np.argsort(-boxes.scores_N[kept], kind="stable")
            kept = kept[surest[: self.max_people]]
        return boxes[np.sort(kept)]

    def _not_mentioned(self, called: str, hint: str = "") -> InputError:
        shown = ", ".join(str(listing) for listing in self.listings[:_NAMES_SHOWN]) or "nothing"
        more = len(self.listings) - _NAMES_SHOWN
        return InputError(
            f"boxes file '{self.path}' has no boxes for {called}; it speaks of {shown}"
            + (f" and {more} more" if more > 0 else ""),
            hint=hint
            or "they are told by path or file name, COCO results also by the number in it",
        )


def load_boxes_file(
    path: Path,
    *,
    class_name: str = "person",
    person_threshold: float | None = None,
    iou_threshold: float | None = None,
    max_people: int | None = None,
    on_warning: Callable[[str], None] = log.warning,
) -> BoxesFile:
    """Read a boxes file: JSON Lines as `hrnet` writes them, COCO JSON or CSV.

    Args:
        path: The file; its content tells the format.
        class_name: Boxes of other classes are left out, where the file tells classes.
        person_threshold: See `BoxesFile`; None keeps the boxes as they are.
        iou_threshold: See `BoxesFile`.
        max_people: See `BoxesFile`.
        on_warning: Called with one line when no box is left.

    Returns:
        The detector. A photo that the file does not mention has nobody in it where the form of the
        file cannot say so (CSV, COCO results), and is an error otherwise.

    Raises:
        InputError: The file cannot be read, or something in it cannot be used.
    """
    listings, can_say_nobody = read_listings(path, class_name, on_warning=on_warning)
    return BoxesFile(
        path,
        listings,
        person_threshold=person_threshold,
        iou_threshold=iou_threshold,
        max_people=max_people,
        unlisted_is_nobody=not can_say_nobody,
    )


def _called(frame: Frame) -> str:
    """Return what messages call a frame."""
    if frame.time_s is None:
        return f"photo '{frame.source}'"
    return f"video '{frame.source}' frame {frame.index}"


def _nobody_in(frame: Frame) -> str:
    """Return the hint for a frame of a video that is not listed; for a photo there is none."""
    if frame.time_s is None:
        return ""
    line = json.dumps({"source": frame.source, "frame": frame.index, "people": []})
    return f"a frame with nobody in it is {line}; frames count from 0"


def _are_shares(xyxy_N4: np.ndarray) -> bool:
    """Tell whether boxes are parts of a picture's sides: within 0 and 1, and no whole numbers."""
    inside = ((xyxy_N4 >= 0) & (xyxy_N4 <= 1)).all()
    return bool(len(xyxy_N4) and inside and (xyxy_N4 % 1 != 0).any())


def _paths(source: str, name: str) -> set[tuple[str, ...]]:
    """Return the paths under which a photo or video may be listed."""
    return {
        _parts(os.path.abspath(source)),  # noqa: PTH100 - links stay as they are named
        _parts(source),
        *([_parts(name)] if name else []),
    }


def _numbered(paths: Iterable[tuple[str, ...]], frame_index: int) -> set[tuple[str, ...]]:
    """Return the names that COCO results give a frame of a video: ``clip_000000000012``."""
    return {
        (*parts[:-1], f"{name}_{frame_index:012d}")
        for parts in paths
        for name in {parts[-1], PurePosixPath(parts[-1]).stem}
    }


def _parts(path: str) -> tuple[str, ...]:
    """Return the parts of a path, written the same whatever system the path was written on."""
    text = unicodedata.normalize("NFC", path).replace("\\", "/")
    parts = PurePosixPath(text).parts
    climbing = next((i for i, part in enumerate(parts) if part != ".."), 0)
    return parts[climbing:] or ("",)


def _fit(listing: Listing, paths: Iterable[tuple[str, ...]]) -> _Fit | None:
    """Return how well a listing fits the photo known under these paths, None when it does not."""
    if listing.coco_id is not None:
        return 1, False, True
    listed = _parts(listing.photo)
    return max((fit for parts in paths if (fit := _fit_path(listed, parts))), default=None)


def _fit_path(listed: tuple[str, ...], photo: tuple[str, ...]) -> _Fit | None:
    common = min(len(listed), len(photo))
    for whole_name in (True, False):
        name = photo[-1] if whole_name else PurePosixPath(photo[-1]).stem
        if (*photo[-common:-1], name) == listed[-common:]:
            return common, whole_name, len(listed) <= len(photo)
    return None


def _same(one: Listing, other: Listing) -> bool:
    return np.array_equal(one.boxes.xyxy_N4, other.boxes.xyxy_N4) and np.array_equal(
        one.boxes.scores_N, other.boxes.scores_N
    )
