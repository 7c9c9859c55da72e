"""Photos as frames, decoded ahead of the network."""

import logging
from collections.abc import Callable, Iterable, Iterator

from hrnet_cli.ahead import work_ahead
from hrnet_cli.device import processors
from hrnet_cli.errors import InputError
from hrnet_cli.images import MAX_PIXELS, Pixels, is_moving, read_image
from hrnet_cli.sources.plan import Photo
from hrnet_cli.structures import Frame

log = logging.getLogger(__name__)

# Pages and animations; a GIF of several pictures is a video, a JPEG's others are previews.
_OF_SEVERAL = (".tif", ".tiff", ".png", ".webp", ".avif")
# Enough threads to keep a GPU busy, and few enough to leave a small processor to the network and to
# bound the memory.
LEAST_THREADS, MOST_THREADS = 2, 8


def reading_threads() -> int:
    """Return how many threads decode pictures ahead of the network."""
    return min(MOST_THREADS, max(LEAST_THREADS, processors() // 2))


def read_frames(
    photos: Iterable[Photo],
    *,
    max_pixels: int = MAX_PIXELS,
    on_problem: Callable[[str, InputError], None],
    on_warning: Callable[[str], None] = log.warning,
) -> Iterator[Frame]:
    """Yield the photos as frames, in order, decoded ahead on a few threads.

    Args:
        photos: What to read.
        max_pixels: Photos with more pixels are a problem, not read.
        on_problem: Called with the source and the error of a photo that cannot be read; the
            others go on. Raise in it to stop.
        on_warning: Called with one line for a file of several pictures, whose first is taken.
    """

    def read(photo: Photo) -> tuple[Pixels, int, bool]:
        image_HW3, orientation = read_image(photo.path, max_pixels)
        several = photo.path.suffix.lower() in _OF_SEVERAL and is_moving(photo.path)
        return image_HW3, orientation, several

    for photo, future in work_ahead(read, photos, reading_threads(), "read"):
        try:
            image_HW3, orientation, several = future.result()
        except InputError as error:
            on_problem(photo.source, error)
            continue
        if several:
            on_warning(f"photo '{photo.source}' has several pictures, the first is taken")
        yield Frame(image_HW3, photo.source, photo.name, orientation=orientation)
