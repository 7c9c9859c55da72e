"""Stages that overlap: an iterator that works ahead in a thread, behind a bounded queue.

A chain of generators becomes a pipeline by wrapping each in `Ahead`: order is kept, memory is
bounded by the depths of the queues, and an error in any stage comes out at the end of the chain.
"""

import itertools
import queue
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Generic, Self, TypeVar

T = TypeVar("T")
R = TypeVar("R")

# How often a waiting stage looks whether it should stop.
_LOOK_S = 0.1
_END = object()


def work_ahead(
    function: Callable[[T], R], items: Iterable[T], threads: int, name: str
) -> "Iterator[tuple[T, Future[R]]]":
    """Yield items in their order, each with what threads make of it, up to two a thread ahead.

    Args:
        function: Called with each item, by several threads at once.
        items: Taken in this thread, as they are needed.
        threads: How many.
        name: Of the threads, for debuggers.
    """
    left = iter(items)
    ahead: deque[tuple[T, Future[R]]] = deque()
    pool = ThreadPoolExecutor(threads, thread_name_prefix=name)
    try:
        while True:
            for item in itertools.islice(left, 2 * threads - len(ahead)):
                ahead.append((item, pool.submit(function, item)))
            if not ahead:
                return
            yield ahead.popleft()
    finally:
        pool.shutdown(cancel_futures=True)


class Ahead(Generic[T]):
    """Iterates over something in a thread, up to ``depth`` items ahead of its reader.

    Args:
        items: What to iterate over. A generator is closed in the thread that runs it.
        depth: Most items that wait, at least 1.
        name: Of the thread, for debuggers.
        stop: Asked before each item and while waiting: once it answers True, what waits already is
            still given, and then the iteration ends, although the thread may not have.
    """

    def __init__(
        self,
        items: Iterable[T],
        depth: int,
        name: str,
        stop: Callable[[], bool] = lambda: False,
    ) -> None:
        self._items = items
        self._stop = stop
        self._queue: queue.Queue[object] = queue.Queue(depth)
        self._closed = threading.Event()
        self._left: int | None = None  # items still given after a stop
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._work, name=f"hrnet-{name}", daemon=True)
        self._thread.start()

    def __iter__(self) -> Iterator[T]:
        """Return itself."""
        return self

    def __next__(self) -> T:
        """Return the next item, waiting for it.

        Raises:
            StopIteration: There are no more, or ``stop`` said so.
            BaseException: Whatever the iterated thing raised, after the items before it.
        """
        while not self._closed.is_set():
            if self._left is None and self._stop():
                self._left = self._queue.qsize()
            if self._left == 0:
                break
            try:
                item = self._queue.get(timeout=_LOOK_S)
            except queue.Empty:
                continue
            if self._left is not None:
                self._left -= 1
            if item is _END:
                self._closed.set()
                if self._error is not None:
                    raise self._error
                break
            return item  # pyright: ignore[reportReturnType]: only items and the end are put
        raise StopIteration

    def __enter__(self) -> Self:
        """Return itself."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close."""
        self.close()

    def close(self, wait_s: float = 5.0) -> None:
        """Ask the thread to end after its present item, and wait for that for a while.

        Twice does no harm. A thread that does not end in time is left: it is a daemon.
        """
        self._closed.set()
        if self._thread is not threading.current_thread():
            self._thread.join(wait_s)

    def _work(self) -> None:
        iterator = iter(self._items)
        try:
            for item in iterator:
                if not self._put(item):
                    break
        except BaseException as error:  # noqa: BLE001 - it is raised again in the reader's thread
            self._error = error
        finally:
            close = getattr(iterator, "close", None)
            if close is not None:
                close()
            self._put(_END)

    def _put(self, item: object) -> bool:
        """Put an item; return False when nobody wants it any more."""
        while not self._closed.is_set():
            try:
                self._queue.put(item, timeout=_LOOK_S)
            except queue.Full:
                continue
            return True
        return False
