"""Photos as frames, decoded ahead of the network."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor

from hrnet_cli.device import processors
from hrnet_cli.errors import InputError
from hrnet_cli.images import MAX_PIXELS, Pixels, read_image
from hrnet_cli.sources.plan import Photo
from hrnet_cli.structures import Frame

# Photos are decoded ahead of the network: by enough threads to keep a GPU busy, by few enough to
# leave a small processor to the network and to bound the memory.
LEAST_THREADS, MOST_THREADS = 2, 8
AHEAD_OF_A_THREAD = 2


def read_frames(
    photos: Iterable[Photo],
    *,
    max_pixels: int = MAX_PIXELS,
    on_problem: Callable[[str, InputError], None],
) -> Iterator[Frame]:
    """Yield the photos as frames, in order, decoded ahead on a few threads.

    Args:
        photos: What to read.
        max_pixels: Photos with more pixels are a problem, not read.
        on_problem: Called with the source and the error of a photo that cannot be read; the
            others go on. Raise in it to stop.
    """
    count = min(MOST_THREADS, max(LEAST_THREADS, processors() // 2))
    photo_iterator = iter(photos)
    ahead: deque[tuple[Photo, Future[tuple[Pixels, int]]]] = deque()
    with ThreadPoolExecutor(count, thread_name_prefix="read") as threads:
        while True:
            while len(ahead) < AHEAD_OF_A_THREAD * count and (photo := next(photo_iterator, None)):
                ahead.append((photo, threads.submit(read_image, photo.path, max_pixels)))
            if not ahead:
                return
            photo, future = ahead.popleft()
            try:
                image_HW3, orientation = future.result()
            except InputError as error:
                on_problem(photo.source, error)
                continue
            yield Frame(image_HW3, photo.source, photo.name, orientation=orientation)
