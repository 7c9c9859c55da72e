"""What is wrong with a data set: labels against each other, against their photos, and the photos.

Shape letters: P photos, N people, K keypoints.
"""

import hashlib
import io
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from hrnet_cli.data.left_right import doubt_sides
from hrnet_cli.data.people import Array, LabelledPeople
from hrnet_cli.errors import InputError
from hrnet_cli.images import read_image

Bools = npt.NDArray[np.bool_]
Progress = Callable[[int, int], None]

EXAMPLES = 5  # shown of each finding
TINY_PX = 32  # longer side of a person box; COCO labels no keypoints on people below 32 x 32 pixels
TOLERANCE_PX = 1.0  # by which labels may leave the photo: they are often rounded
BOX_MARGIN = 0.25  # part of its sides by which keypoints may leave the person box


@dataclass(frozen=True)
class Finding:
    """One kind of oddity.

    Attributes:
        what: What was found, in words that follow a number.
        count: How often.
        examples: Some of them, by file name or by the id of the annotation.
        unusable: Whether training cannot use these photos or people, or would learn wrong from
            them; the others are for a look.
    """

    what: str
    count: int
    examples: tuple[str, ...]
    unusable: bool = False


@dataclass(frozen=True)
class DataReport:
    """What `check_people` found.

    Attributes:
        name: The data set.
        photos: How many photos it names.
        people: How many people it labels.
        usable: How many of them training takes.
        keypoints: Keypoint names.
        visible: How often each keypoint is labelled as visible.
        hidden: How often as hidden.
        findings: All that is odd, what cannot be used first.
    """

    name: str
    photos: int
    people: int
    usable: int
    keypoints: tuple[str, ...]
    visible: tuple[int, ...]
    hidden: tuple[int, ...]
    findings: tuple[Finding, ...]

    @property
    def unusable(self) -> int:
        """Return how many photos and people cannot be used."""
        return sum(finding.count for finding in self.findings if finding.unusable)


def check_people(
    people: LabelledPeople, *, read_photos: bool = True, on_progress: Progress | None = None
) -> DataReport:
    """Return what is odd in a data set.

    Args:
        people: The data set.
        read_photos: Decode every photo, to find broken and doubled ones and wrong sizes.
        on_progress: Called with the photos read so far and their number.
    """
    findings: list[Finding] = []
    if read_photos:
        facts = _read_photos(people, on_progress)
        findings += _photo_findings(people, facts)
        people = _with_sizes(people, facts)
    findings += [*_empty_photos(people), *_box_findings(people), *_keypoint_findings(people)]
    found = [finding for finding in findings if finding.count]
    return DataReport(
        name=people.name,
        photos=len(people.photos),
        people=len(people),
        usable=len(people.usable()),
        keypoints=people.schema.keypoints,
        visible=tuple((people.visible_NK == 2).sum(axis=0).tolist()),
        hidden=tuple((people.visible_NK == 1).sum(axis=0).tolist()),
        findings=tuple(sorted(found, key=lambda finding: not finding.unusable)),
    )


@dataclass(frozen=True)
class _PhotoFacts:
    """What one photo file is: its (width, height) as stored, hash and what is wrong with it."""

    size_wh: tuple[int, int] = (0, 0)
    digest: bytes = b""
    problem: str = ""


def _read_photos(people: LabelledPeople, on_progress: Progress | None) -> list[_PhotoFacts]:
    count = len(people.photos)
    facts: list[_PhotoFacts] = []
    with ThreadPoolExecutor() as pool:
        paths = [people.photo_path(photo) for photo in range(count)]
        for fact in pool.map(_read_photo, paths):
            facts.append(fact)
            if on_progress is not None:
                on_progress(len(facts), count)
    return facts


def _read_photo(path: Path) -> _PhotoFacts:
    try:
        data = path.read_bytes()
    except OSError as error:
        return _PhotoFacts(problem=error.strerror or str(error))
    except ValueError as error:  # characters that no file name can have
        return _PhotoFacts(problem=str(error))
    digest = hashlib.blake2b(data, digest_size=16).digest()
    try:
        with Image.open(io.BytesIO(data)) as image:
            size_wh = image.size
            # A JPEG decoded at an eighth is read to its end all the same, in a third of the time.
            image.draft("RGB", (max(1, size_wh[0] // 8), max(1, size_wh[1] // 8)))
            image.load()
        return _PhotoFacts(size_wh, digest)
    except Exception:  # noqa: BLE001 - whatever it is, the one reader of photos decides below
        pass
    try:
        pixels_HW3, _ = read_image(path, apply_orientation=False)
    except InputError as error:
        return _PhotoFacts(digest=digest, problem=error.message.removeprefix(f"photo '{path}': "))
    return _PhotoFacts((pixels_HW3.shape[1], pixels_HW3.shape[0]), digest)


def _with_sizes(people: LabelledPeople, facts: Sequence[_PhotoFacts]) -> LabelledPeople:
    """Return people with the photos' own sizes where those are known."""
    read_P2 = np.array([fact.size_wh for fact in facts], dtype=np.int64).reshape(-1, 2)
    return replace(people, sizes_P2=np.where(read_P2 > 0, read_P2, people.sizes_P2))


def _photo_findings(people: LabelledPeople, facts: Sequence[_PhotoFacts]) -> Iterator[Finding]:
    missing = [not (people.folder / name).is_file() for name in people.photos]
    broken = [bool(fact.problem) for fact in facts]
    names = people.photos
    yield _finding(
        "photos are missing", [n for n, gone in zip(names, missing, strict=True) if gone], True
    )
    rows = zip(names, facts, missing, broken, strict=True)
    unreadable = [f"{name} ({fact.problem})" for name, fact, gone, bad in rows if bad and not gone]
    yield _finding("photos cannot be read", unreadable, True)
    yield _finding("photos have another size than their labels say", _resized(people, facts), True)
    by_digest: dict[bytes, list[str]] = defaultdict(list)
    for name, fact in zip(names, facts, strict=True):
        if fact.digest and not fact.problem:
            by_digest[fact.digest].append(name)
    repeated = [same for same in by_digest.values() if len(same) > 1]
    yield _finding("photos are there more than once", [" = ".join(same) for same in repeated])


def _resized(people: LabelledPeople, facts: Sequence[_PhotoFacts]) -> list[str]:
    lines: list[str] = []
    for name, fact, labelled in zip(people.photos, facts, people.sizes_P2.tolist(), strict=True):
        if 0 in fact.size_wh or 0 in labelled or fact.size_wh == tuple(labelled):
            continue
        turned = ", turned by EXIF" if fact.size_wh == tuple(labelled[::-1]) else ""
        (width, height), (own_width, own_height) = labelled, fact.size_wh
        lines.append(f"{name} ({own_width}x{own_height}{turned}, not {width}x{height})")
    return lines


def _empty_photos(people: LabelledPeople) -> Iterator[Finding]:
    filled = set(people.photo_of_N.tolist())
    empty = [name for photo, name in enumerate(people.photos) if photo not in filled]
    yield _finding("photos have no people", empty)


def _box_findings(people: LabelledPeople) -> Iterator[Finding]:
    near_N2, sides_N2 = people.boxes_N4[:, :2], people.boxes_N4[:, 2:]
    far_N2 = near_N2 + sides_N2
    sizes_N2 = _sizes_of(people)
    outside_N = _any((far_N2 <= 0) | (near_N2 >= sizes_N2)) & ~_any(sides_N2 <= 0)
    flat_N = ~people.croppable() & ~outside_N
    over_N2 = (near_N2 < -TOLERANCE_PX) | (far_N2 > sizes_N2 + TOLERANCE_PX)
    yield _people_finding("person boxes have no area", people, flat_N, True)
    yield _people_finding("people have the area 0", people, (people.areas_N <= 0) & ~flat_N, True)
    yield _people_finding("person boxes lie outside the photo", people, outside_N, True)
    reaching_N = _any(over_N2) & ~outside_N & ~people.uncut_N
    yield _people_finding("person boxes reach outside the photo", people, reaching_N)
    tiny_N = ~flat_N & (sides_N2.max(axis=1) < TINY_PX)
    yield _people_finding(f"people are smaller than {TINY_PX} pixels", people, tiny_N)


def _keypoint_findings(people: LabelledPeople) -> Iterator[Finding]:
    labelled_NK = people.visible_NK > 0
    points_NK2 = people.keypoints_NK2
    sizes_N12 = _sizes_of(people)[:, None]
    beyond_NK2 = (points_NK2 < -TOLERANCE_PX) | (points_NK2 > sizes_N12 - 1 + TOLERANCE_PX)
    yield _keypoint_finding(
        "keypoints lie outside the photo", people, labelled_NK & _any(beyond_NK2)
    )
    near_N12, sides_N12 = people.boxes_N4[:, None, :2], people.boxes_N4[:, None, 2:]
    slack_N12 = BOX_MARGIN * sides_N12 + TOLERANCE_PX
    away_NK2 = (points_NK2 < near_N12 - slack_N12) | (points_NK2 > near_N12 + sides_N12 + slack_N12)
    has_box_N1 = people.boxes_N4[:, 2:].min(axis=1, initial=np.inf, keepdims=True) > 0
    yield _keypoint_finding(
        f"keypoints lie more than {BOX_MARGIN:.0%} outside their person box",
        people,
        labelled_NK & has_box_N1 & _any(away_NK2),
    )
    yield _people_finding("people have no labelled keypoint", people, ~_any(labelled_NK))
    yield _people_finding("regions hold a crowd", people, people.crowd_N)
    yield _people_finding("people are labelled twice", people, _labelled_twice(people))
    doubts_N = doubt_sides(people)
    order_N = np.argsort(doubts_N, kind="stable")[::-1]
    wrong = order_N[doubts_N[order_N] > 0]
    yield Finding(
        "people may have left and right exchanged (shoulders, hips and face disagree)",
        len(wrong),
        tuple(_who(people, int(person)) for person in wrong[:EXAMPLES]),
    )


def _labelled_twice(people: LabelledPeople) -> Bools:
    """Return who has the photo and keypoints of somebody before."""
    rows = np.empty((len(people), 1 + 2 * len(people.schema)))
    rows[:, 0] = people.photo_of_N
    rows[:, 1:] = people.keypoints_NK2.reshape(rows[:, 1:].shape)
    _, first = np.unique(rows, axis=0, return_index=True)
    twice_N = np.ones(len(people), dtype=bool)
    twice_N[first] = False
    return twice_N & _any(people.visible_NK > 0)


def _any(which: Bools) -> Bools:
    """Return whether any of the last axis is true, always as an array."""
    return np.asarray(which.any(axis=-1))


def _sizes_of(people: LabelledPeople) -> Array:
    """Return the (width, height) of each person's photo, infinite where not known."""
    sizes_N2 = people.sizes_P2[people.photo_of_N].astype(np.float64)
    return np.where(sizes_N2 > 0, sizes_N2, np.inf)


def _finding(what: str, names: Sequence[str], unusable: bool = False) -> Finding:
    return Finding(what, len(names), tuple(names[:EXAMPLES]), unusable)


def _people_finding(
    what: str, people: LabelledPeople, which_N: Bools, unusable: bool = False
) -> Finding:
    numbers = np.flatnonzero(which_N)
    examples = tuple(_who(people, int(person)) for person in numbers[:EXAMPLES])
    return Finding(what, len(numbers), examples, unusable)


def _keypoint_finding(what: str, people: LabelledPeople, which_NK: Bools) -> Finding:
    places = np.argwhere(which_NK)
    examples = tuple(
        f"{people.schema.keypoints[keypoint]} of {_who(people, person)}"
        for person, keypoint in places[:EXAMPLES].tolist()
    )
    return Finding(what, len(places), examples)


def _who(people: LabelledPeople, person: int) -> str:
    return f"annotation {people.ids_N[person]} in {people.photos[people.photo_of_N[person]]}"
