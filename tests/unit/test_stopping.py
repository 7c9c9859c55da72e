"""Signals as a wish to stop."""

import os
import signal
import threading

import pytest

from hrnet_cli.stopping import SIGNALS, StopRequest


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_is_noted_and_does_not_interrupt(number):
    with StopRequest() as stop:
        assert not stop.requested
        stop.check()
        os.kill(os.getpid(), number)
        assert stop.requested
        with pytest.raises(KeyboardInterrupt):
            stop.check()


@pytest.mark.parametrize("first", SIGNALS)
def test_a_second_ctrl_c_stops_at_once(first):
    with StopRequest(), pytest.raises(KeyboardInterrupt):  # noqa: PT012
        signal.raise_signal(first)
        signal.raise_signal(signal.SIGINT)


def test_a_second_sigterm_waits_for_the_state_to_be_saved():
    """Schedulers repeat it; what must not come is an end before the state is written."""
    with StopRequest() as stop:
        signal.raise_signal(signal.SIGTERM)
        signal.raise_signal(signal.SIGTERM)
        assert stop.requested


def test_the_signals_are_left_as_they_were():
    before = [signal.getsignal(number) for number in SIGNALS]
    with StopRequest():
        assert [signal.getsignal(number) for number in SIGNALS] != before
    assert [signal.getsignal(number) for number in SIGNALS] == before
    with pytest.raises(ZeroDivisionError), StopRequest():
        raise ZeroDivisionError
    assert [signal.getsignal(number) for number in SIGNALS] == before


def test_a_request_inside_another_gives_the_signals_back():
    with StopRequest() as outer:
        with StopRequest() as inner:
            signal.raise_signal(signal.SIGTERM)
        assert (outer.requested, inner.requested) == (False, True)
        signal.raise_signal(signal.SIGTERM)
        assert outer.requested


def test_another_thread_trains_without_listening():
    """Python lets the main thread alone set handlers; training from a thread must still work."""
    seen = []

    def work():
        with StopRequest() as stop:
            seen.append((stop.requested, signal.getsignal(signal.SIGTERM)))

    before = signal.getsignal(signal.SIGTERM)
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [(False, before)]
    assert signal.getsignal(signal.SIGTERM) is before
