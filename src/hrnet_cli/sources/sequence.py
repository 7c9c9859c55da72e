"""Numbered pictures as a video of a fixed rate.

The first picture that can be read decides on the size; others are fitted into it, with black bars.
A picture that cannot be read is reported, counted and left out; the numbers and times of the others
stay as they would be with it. A picture that is not there is none: the next one follows at once.
"""

import re
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise

from hrnet_cli.ahead import work_ahead
from hrnet_cli.errors import InputError
from hrnet_cli.images import MAX_PIXELS, Pixels, read_image
from hrnet_cli.sources import Damage, Span, VideoInfo
from hrnet_cli.sources.decoding import Choice, Picker, fit_into
from hrnet_cli.sources.photos import reading_threads
from hrnet_cli.sources.plan import Photo
from hrnet_cli.structures import Frame

OnProblem = Callable[[str, InputError], None]


@dataclass(frozen=True)
class NumberedPictures:
    """Pictures that are the frames of one video.

    Attributes:
        photos: The pictures in order.
        source: Their folder or pattern as the user gave it, for messages and records.
        name: Output name of the frames.
        fps: Pictures a second.
    """

    photos: Sequence[Photo]
    source: str
    name: str
    fps: Fraction


class SequenceSource:
    """Gives numbered pictures as frames; see `sources.VideoSource`.

    Args:
        pictures: The pictures.
        span: Which of them are wanted.
        info: What is known beforehand.
        max_pixels: See `open_sequence`.
        on_problem: See `open_sequence`.
    """

    def __init__(
        self,
        pictures: NumberedPictures,
        span: Span,
        info: VideoInfo,
        *,
        max_pixels: int,
        on_problem: OnProblem,
    ) -> None:
        self.source = pictures.source
        self.info = info
        self.damage = Damage(missing=_missing_words(pictures.photos))
        self._photos = pictures.photos
        self._name = pictures.name
        self._span = span
        self._max_pixels = max_pixels
        self._on_problem = on_problem
        self._closed = threading.Event()

    def frames(self, *, skip: int = 0) -> Iterator[Frame]:
        """Yield the wanted frames; see `sources.VideoSource.frames`.

        Skipped pictures are read as well: one of them that is broken is none to skip.
        """
        self.damage = damage = Damage(missing=self.damage.missing)
        wanted = _wanted(len(self._photos), self._span, self.info.time_base)
        given = 0
        for index, future in self._read_ahead(wanted):
            try:
                image_HW3, orientation = future.result()
            except InputError as error:
                damage.broken_packets += 1
                self._on_problem(self._photos[index].source, error)
                continue
            given += 1
            if given > skip:
                size_wh = image_HW3.shape[1], image_HW3.shape[0]
                damage.resized += size_wh != self.info.size_wh
                yield Frame(
                    fit_into(image_HW3, self.info.size_wh),
                    self.source,
                    self._name,
                    index=index,
                    time_s=float(index * self.info.time_base),
                    orientation=orientation,
                    pts=index,
                    time_base=self.info.time_base,
                )
        if not wanted:
            length_s = float(len(self._photos) * self.info.time_base)
            raise InputError(
                f"the {len(self._photos)} pictures of '{self.source}' last {length_s:g} s; none is"
                " in the wanted span",
                hint="change --start, --end or --fps",
            )

    def close(self) -> None:
        """Make a running `frames` end."""
        self._closed.set()

    def _read_ahead(
        self, wanted: Sequence[int]
    ) -> Iterator[tuple[int, "Future[tuple[Pixels, int]]"]]:
        def read(index: int) -> tuple[Pixels, int]:
            return read_image(self._photos[index].path, self._max_pixels)

        for item in work_ahead(read, wanted, reading_threads(), "read"):
            if self._closed.is_set():
                return
            yield item


def open_sequence(
    pictures: NumberedPictures,
    span: Span,
    *,
    max_pixels: int = MAX_PIXELS,
    on_problem: OnProblem,
) -> SequenceSource:
    """Return numbered pictures as a video.

    Args:
        pictures: The pictures.
        span: Which frames are wanted.
        max_pixels: Pictures with more pixels are a problem, not read.
        on_problem: Called with the source and the error of a picture that cannot be read; the
            others go on. Raise in it to stop.

    Raises:
        InputError: None of the pictures can be read.
    """
    time_base = 1 / pictures.fps
    info = VideoInfo(
        _first_size(pictures, max_pixels),
        time_base,
        pictures.fps,
        len(_wanted(len(pictures.photos), span, time_base)),
        codec="pictures",
    )
    return SequenceSource(pictures, span, info, max_pixels=max_pixels, on_problem=on_problem)


def _first_size(pictures: NumberedPictures, max_pixels: int) -> tuple[int, int]:
    for photo in pictures.photos:
        try:
            height, width = read_image(photo.path, max_pixels)[0].shape[:2]
        except InputError:
            continue  # reported when its turn comes
        return width, height
    raise InputError(
        f"none of the {len(pictures.photos)} pictures of '{pictures.source}' can be read",
        hint="open one of them in a picture viewer",
    )


def _missing_words(photos: Sequence[Photo]) -> str:
    """Return which numbers the names of pictures leave out, in words; empty when none.

    The last number of a name counts, in steps as small as between any two neighbours. Where others
    are no multiples of them, as between times of day, nothing is known to be missing.
    """
    found = [re.fullmatch(r"(.*?)(\d+)\D*", photo.path.stem) for photo in photos]
    numbered = [(match[1], int(match[2])) for match in found if match]
    steps = [
        (before, after - before)
        for (head, before), (other, after) in pairwise(numbered)
        if head == other
    ]
    step = min((step for _, step in steps), default=0)
    if step < 1 or any(wide % step for _, wide in steps):
        return ""
    missing = sum(wide // step - 1 for _, wide in steps)
    if not missing:
        return ""
    first = next(before + step for before, wide in steps if wide > step)
    if missing == 1:
        return f"number {first} is missing among its pictures: no time was left for it"
    return (
        f"{missing} numbers are missing among its pictures, the first is {first}: no time was left"
        " for them"
    )


def _wanted(count: int, span: Span, time_base: Fraction) -> list[int]:
    """Return the numbers of the pictures in a span."""
    picker = Picker(span)
    wanted: list[int] = []
    for index in range(count):
        choice = picker.choose(float(index * time_base))
        if choice is Choice.END:
            break
        if choice is Choice.TAKE:
            wanted.append(index)
    return wanted
