"""Raw poses of the photos of a data set, which several processes can share among them.

Shape letters: P photos, N predicted people, K keypoints.
"""

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, fields, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from hrnet_cli import geometry
from hrnet_cli.config import ModelSpec
from hrnet_cli.data.people import Ints, LabelledPeople
from hrnet_cli.data.photos import read_labelled
from hrnet_cli.detectors import Detector
from hrnet_cli.detectors.boxes_file import BoxesFile
from hrnet_cli.detectors.boxes_formats import read_listings
from hrnet_cli.errors import ConfigError, InputError
from hrnet_cli.estimator import PoseEstimator
from hrnet_cli.structures import Boxes, Frame

log = logging.getLogger(__name__)

# Photos held in memory: those being worked on, and as many being read.
CHUNK_PHOTOS = 16
READERS = 4

# None for the labelled boxes; boxes by photo id; or whatever finds them in the picture.
BoxSource = Mapping[int, Boxes] | Detector | None
Problem = Callable[[str, InputError], None]
# (photos done, photos in all)
Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Predictions:
    """Poses of some photos of a data set, before rescoring and NMS: plain arrays.

    Attributes:
        photos_P: int64 indices of the photos looked at, rising; those with nobody in them too.
        unreadable: Files of `photos_P` that could not be read or used; nobody was found there.
        photo_of_N: int64 index of the photo of each person, rising.
        keypoints_NK2: float32 (x, y) in pixels of the photo as stored; finite.
        scores_NK: float32 heatmap peaks, about 0 to 1; finite.
        boxes_N4: float32 (x1, y1, x2, y2) the people were cropped from.
        box_scores_N: float32, 1 for labelled boxes.
        areas_N: float64 area of each crop in square pixels, padding included; OKS-NMS of the
            official code takes it.
        truth_of_N: int64 index of the labelled person whose box it is, -1 for other boxes.
        seconds: Time spent on cropping, network and decoding.
    """

    photos_P: Ints
    unreadable: tuple[str, ...]
    photo_of_N: Ints
    keypoints_NK2: npt.NDArray[np.float32]
    scores_NK: npt.NDArray[np.float32]
    boxes_N4: npt.NDArray[np.float32]
    box_scores_N: npt.NDArray[np.float32]
    areas_N: npt.NDArray[np.float64]
    truth_of_N: Ints
    seconds: float = 0.0

    def __post_init__(self) -> None:
        """Check the lengths against each other."""
        people = len(self.photo_of_N)
        for field in fields(self):
            if "_N" in field.name and len(getattr(self, field.name)) != people:
                got = getattr(self, field.name).shape
                raise ValueError(f"{field.name}: expected {people} people, got {got}")

    def __len__(self) -> int:
        """Return the number of people."""
        return len(self.photo_of_N)

    def pick(self, which: "npt.NDArray[np.bool_] | Ints") -> "Predictions":
        """Return the people that a boolean mask or indices pick; all photos stay."""
        per_person = {f.name: getattr(self, f.name)[which] for f in fields(self) if "_N" in f.name}
        return replace(self, **per_person)


def predict(
    estimator: PoseEstimator,
    people: LabelledPeople,
    boxes: BoxSource = None,
    *,
    photos: npt.ArrayLike | None = None,
    on_progress: Progress | None = None,
    on_problem: Problem | None = None,
) -> Predictions:
    """Return the poses that an estimator finds in the photos of a data set.

    Photos are read a few at a time, as stored (EXIF orientation not applied, as COCO counts); the
    crops of several share batches. Photos without boxes are not read.

    Args:
        estimator: Its ``flip_test`` decides whether mirrored crops count too.
        people: The data set.
        boxes: Where the person boxes come from: None for the labelled ones, cleaned as in the
            official code; boxes by photo id, where a photo that is not there has nobody in it; or
            a detector.
        photos: Indices of the photos to look at, such as one process's share; None for all.
        on_progress: Called with photos done and photos in all.
        on_problem: Called with the file and the error of a photo or its boxes that cannot be used;
            raise in it to stop. None raises the error.

    Raises:
        ConfigError: Model and data set have different keypoints.
        InputError: A photo cannot be used and there is no ``on_problem``.
    """
    _check_keypoints(estimator.spec, people)
    wanted_P = np.arange(len(people.photos)) if photos is None else np.unique(np.asarray(photos))
    wanted_P = wanted_P.astype(np.int64)
    finder = _BoxFinder(people, boxes, on_problem or _raise)
    to_read = [photo for photo in wanted_P.tolist() if finder.needs(photo)]
    seconds_before = sum(estimator.clock.seconds.values())
    parts = [_nobody(len(people.schema))]
    done = len(wanted_P) - len(to_read)
    for chunk in _read_ahead(people, to_read, finder.report):
        parts.append(_predict_chunk(estimator, finder, chunk))
        done += len(chunk)
        if on_progress is not None:
            on_progress(done, len(wanted_P))
    found = _concatenate(parts)
    _, sizes_N2 = geometry.crop_boxes(
        found.boxes_N4, estimator.spec.input_hw, estimator.spec.box_padding
    )
    return replace(
        found,
        photos_P=wanted_P,
        unreadable=tuple(finder.unusable),
        areas_N=sizes_N2.prod(axis=1),
        seconds=sum(estimator.clock.seconds.values()) - seconds_before,
    )


def read_boxes(
    path: Path,
    people: LabelledPeople,
    class_name: str = "person",
    on_warning: Callable[[str], None] = log.warning,
) -> BoxSource:
    """Return the boxes that a file lists for the photos of a data set, for `predict`.

    Where the file numbers its photos, as COCO detections do, the numbers are the data set's ids;
    where it names them, it is looked up by path (see `BoxesFile`). All boxes stay, whatever their
    score, as in the official test.

    Args:
        path: COCO detections or annotations (JSON), JSON Lines or CSV.
        people: The data set.
        class_name: Boxes of other classes are left out.
        on_warning: Called with one line when no box is left.

    Raises:
        InputError: The file cannot be read or used, or speaks of none of these photos.
    """
    listings, can_say_nobody = read_listings(path, class_name, people.categories, on_warning)
    if any(listing.coco_id is None for listing in listings):
        return BoxesFile(path, listings, unlisted_is_nobody=not can_say_nobody)
    boxes = {listing.coco_id: listing.boxes for listing in listings if listing.coco_id is not None}
    known = set(people.photo_ids_P.tolist())
    if boxes and known and known.isdisjoint(boxes):
        raise InputError(
            f"boxes file '{path}' has boxes for image_id {next(iter(boxes))} and others, but none"
            f" for a photo of '{people.name}', such as {min(known)}",
            hint="give the detections made on this split",
        )
    return boxes


def merge(parts: Sequence[Predictions]) -> Predictions:
    """Return the predictions of several processes as one, in the order of the photos.

    A photo that several looked at, as when a sampler pads the last batch, counts once: its people
    are those of the first part that has it. The result does not depend on how photos were shared.
    """
    seen_P = np.zeros(0, np.int64)
    fresh: list[Predictions] = []
    for part in parts:
        new = ~np.isin(part.photo_of_N, seen_P)
        seen_P = np.union1d(seen_P, part.photos_P)
        fresh.append(part.pick(new))
    together = _concatenate(fresh)
    order_N = np.argsort(together.photo_of_N, kind="stable")
    unreadable = tuple(sorted({name for part in parts for name in part.unreadable}))
    return replace(together, photos_P=seen_P, unreadable=unreadable).pick(order_N)


def by_photo(photo_of_N: Ints) -> Iterator[tuple[int, Ints]]:
    """Yield each photo that has people, and the indices of its people in their order."""
    order_N = np.argsort(photo_of_N, kind="stable")
    photos, starts = np.unique(photo_of_N[order_N], return_index=True)
    yield from zip(photos.tolist(), np.split(order_N, starts[1:]), strict=False)


class _BoxFinder:
    """Gives each photo its boxes, whatever they come from.

    Args:
        people: The data set.
        source: See `predict`.
        on_problem: Called with each file that cannot be used.
    """

    def __init__(self, people: LabelledPeople, source: BoxSource, on_problem: Problem) -> None:
        self._people = people
        self._on_problem = on_problem
        self._detector: Detector | None = None
        self._boxes: dict[int, Boxes] = {}
        self._truths: dict[int, Ints] = {}
        self.unusable: list[str] = []
        if source is None:
            self._take_labelled()
        elif isinstance(source, Mapping):
            ids = people.photo_ids_P.tolist()
            self._boxes = {photo: source[i] for photo, i in enumerate(ids) if i in source}
        else:
            self._detector = source

    def _take_labelled(self) -> None:
        usable = self._people.usable()
        xyxy_N4 = geometry.xywh_to_xyxy(usable.boxes_N4)
        truth_of_N = _positions(self._people.ids_N, usable.ids_N)
        for photo, own in by_photo(usable.photo_of_N):
            self._boxes[photo] = Boxes(xyxy_N4[own], np.ones(len(own)))
            self._truths[photo] = truth_of_N[own]

    def needs(self, photo: int) -> bool:
        """Tell whether a photo must be read: it has boxes, or may have some."""
        return self._detector is not None or len(self._boxes.get(photo, ())) > 0

    def report(self, photo: int, error: InputError) -> None:
        """Keep and tell the problem of a photo."""
        file = self._people.photos[photo]
        self.unusable.append(file)
        self._on_problem(file, error)

    def boxes_of(self, chunk: "Sequence[tuple[int, Frame]]") -> list[Boxes]:
        """Return the boxes of each photo; nobody in one whose boxes cannot be used."""
        if self._detector is None:
            return [self._boxes[photo] for photo, _ in chunk]
        try:
            return self._detector([frame for _, frame in chunk])
        except InputError:
            return [self._detect_alone(photo, frame) for photo, frame in chunk]

    def _detect_alone(self, photo: int, frame: Frame) -> Boxes:
        assert self._detector is not None
        try:
            return self._detector([frame])[0]
        except InputError as error:
            self.report(photo, error)
            return Boxes.empty()

    def truths_of(self, photo: int, count: int) -> Ints:
        """Return the labelled person of each box of a photo, -1 for none."""
        return self._truths.get(photo, np.full(count, -1, np.int64))


def _predict_chunk(
    estimator: PoseEstimator, finder: _BoxFinder, chunk: Sequence[tuple[int, Frame]]
) -> Predictions:
    boxes = finder.boxes_of(chunk)
    poses = estimator.estimate_frames([frame for _, frame in chunk], boxes)
    nobody = _nobody(len(estimator.spec.schema))
    return _concatenate(
        [nobody]
        + [
            replace(
                nobody,
                photo_of_N=np.full(len(found), photo, np.int64),
                keypoints_NK2=_finite(found.keypoints_NK2),
                scores_NK=_finite(found.scores_NK),
                boxes_N4=found.boxes.xyxy_N4,
                box_scores_N=found.boxes.scores_N,
                areas_N=np.zeros(len(found)),
                truth_of_N=finder.truths_of(photo, len(found)),
            )
            for (photo, _), found in zip(chunk, poses, strict=True)
        ]
    )


def _read_ahead(
    people: LabelledPeople, photos: Sequence[int], report: Callable[[int, InputError], None]
) -> Iterator[list[tuple[int, Frame]]]:
    """Yield the photos in chunks, while the next chunk is being read."""
    with ThreadPoolExecutor(READERS) as readers:
        waiting: list[tuple[int, Future[Frame]]] = []
        for start in range(0, len(photos) + CHUNK_PHOTOS, CHUNK_PHOTOS):
            next_chunk = photos[start : start + CHUNK_PHOTOS]
            ahead = [(photo, readers.submit(_read, people, photo)) for photo in next_chunk]
            if waiting:
                yield list(_finished(waiting, report))
            waiting = ahead


def _read(people: LabelledPeople, photo: int) -> Frame:
    image_HW3 = read_labelled(people, photo)
    return Frame(image_HW3, str(people.photo_path(photo)), people.photos[photo])


def _finished(
    waiting: Sequence[tuple[int, "Future[Frame]"]], report: Callable[[int, InputError], None]
) -> Iterator[tuple[int, Frame]]:
    for photo, future in waiting:
        try:
            yield photo, future.result()
        except InputError as error:
            report(photo, error)


def _finite(values: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Return values with 0 for those that are no number, which pycocotools would take as right."""
    return np.nan_to_num(values, nan=0, posinf=0, neginf=0)


def _check_keypoints(spec: ModelSpec, people: LabelledPeople) -> None:
    ours, theirs = spec.schema.keypoints, people.schema.keypoints
    if ours == theirs:
        return
    if len(ours) != len(theirs):
        difference = f"{len(ours)} keypoints ('{spec.schema.name}'), expected {len(theirs)}"
    else:
        k = next(k for k, pair in enumerate(zip(ours, theirs, strict=True)) if pair[0] != pair[1])
        difference = f"keypoint {k + 1} '{ours[k]}', expected '{theirs[k]}'"
    raise ConfigError(
        f"model '{spec.name}' has {difference} as in data set '{people.name}'"
        f" ('{people.schema.name}')",
        hint="choose a model trained on these keypoints, or hrnet fine-tune one to them",
    )


def _nobody(keypoints: int) -> Predictions:
    return Predictions(
        photos_P=np.zeros(0, np.int64),
        unreadable=(),
        photo_of_N=np.zeros(0, np.int64),
        keypoints_NK2=np.zeros((0, keypoints, 2), np.float32),
        scores_NK=np.zeros((0, keypoints), np.float32),
        boxes_N4=np.zeros((0, 4), np.float32),
        box_scores_N=np.zeros(0, np.float32),
        areas_N=np.zeros(0),
        truth_of_N=np.zeros(0, np.int64),
    )


def _concatenate(parts: Sequence[Predictions]) -> Predictions:
    """Return the people of parts one after the other, with the time of all; at least one part."""
    joined = {
        field.name: np.concatenate([getattr(part, field.name) for part in parts])
        for field in fields(Predictions)
        if "_N" in field.name
    }
    return replace(parts[0], **joined, seconds=sum(part.seconds for part in parts))


def _positions(values: Ints, wanted: Ints) -> Ints:
    """Return where each wanted value stands among distinct values."""
    order = np.argsort(values)
    return order[np.searchsorted(values, wanted, sorter=order)].astype(np.int64)


def _raise(_file: str, error: InputError) -> None:
    raise error
