"""Iterators that work ahead: order, bounds, errors, stopping."""

import itertools
import threading
import time

import pytest

from hrnet_cli.ahead import Ahead


def wait_until(condition, seconds=10):
    deadline = time.monotonic() + seconds
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.005)
    assert condition()


def test_order_is_kept_through_a_chain():
    def doubled(numbers):
        for number in numbers:
            yield 2 * number

    with Ahead(range(100), 3, "a") as first, Ahead(doubled(first), 2, "b") as second:
        assert list(second) == [2 * number for number in range(100)]
        assert next(second, "end") == "end"


def test_it_works_ahead_but_not_too_far():
    made = []

    def numbers():
        for number in range(50):
            made.append(number)
            yield number

    with Ahead(numbers(), 4, "a") as ahead:
        # Four wait, one is in the thread's hands.
        wait_until(lambda: len(made) == 5)
        time.sleep(0.05)
        assert len(made) == 5
        assert next(ahead) == 0
        wait_until(lambda: len(made) == 6)


def test_an_error_comes_after_the_items_before_it():
    def numbers():
        yield 1
        yield 2
        raise ValueError("broken")

    def passed_on(items):
        yield from items

    with Ahead(numbers(), 5, "a") as first, Ahead(passed_on(first), 5, "b") as second:
        assert [next(second), next(second)] == [1, 2]
        with pytest.raises(ValueError, match="broken"):
            next(second)
        assert list(second) == []


def test_closing_ends_the_thread_and_the_generator():
    closed = threading.Event()

    def endless():
        try:
            while True:
                yield 0
        finally:
            closed.set()

    ahead = Ahead(endless(), 2, "a")
    assert next(ahead) == 0
    ahead.close()
    ahead.close()
    assert closed.is_set()
    assert list(ahead) == []


def test_a_stop_gives_what_is_there_and_does_not_wait_for_more():
    stop, go = threading.Event(), threading.Event()

    def slow():
        yield 1
        yield 2
        go.wait(30)
        yield 3

    ahead = Ahead(slow(), 4, "a", stop.is_set)
    wait_until(lambda: ahead._queue.qsize() == 2)
    stop.set()
    start = time.monotonic()
    assert list(ahead) == [1, 2]
    assert time.monotonic() - start < 10
    go.set()
    ahead.close()


def test_a_stop_ends_a_thread_that_never_keeps_its_reader_waiting():
    stop = threading.Event()
    with Ahead(itertools.count(), 3, "a", stop.is_set) as ahead:
        wait_until(lambda: ahead._queue.qsize() == 3)
        assert next(ahead) == 0
        wait_until(lambda: ahead._queue.qsize() == 3)
        stop.set()
        # Three waited; the thread puts others in their place, which are not given any more.
        assert list(itertools.islice(ahead, 20)) == [1, 2, 3]
        assert list(itertools.islice(ahead, 20)) == []


def test_a_reader_that_waits_is_woken_by_closing():
    go = threading.Event()

    def never():
        go.wait(30)
        yield 1

    ahead = Ahead(never(), 1, "a")
    seen = []
    reader = threading.Thread(target=lambda: seen.append(list(ahead)))
    reader.start()
    ahead.close(wait_s=0.01)
    reader.join(10)
    assert seen == [[]]
    go.set()


def test_a_stop_ends_an_iteration_that_never_waits():
    stop = threading.Event()
    ahead = Ahead(iter(range(5000)), 3, "a", stop.is_set)
    taken = []
    for number in ahead:
        taken.append(number)
        if number == 10:
            stop.set()
    # Those that waited are given, and no more, however fast they come.
    assert taken == list(range(len(taken)))
    assert len(taken) <= 11 + 3
    assert list(ahead) == []
    ahead.close()
