import subprocess
from types import SimpleNamespace

import numpy as np
import pytest

from hrnet_cli.errors import UsageError
from hrnet_cli.sinks import show
from hrnet_cli.sinks.show import open_window


class FakeWindows:
    """Stands in for OpenCV's windows; keeps what is shown."""

    # ruff: noqa: N802 - OpenCV's names

    WINDOW_NORMAL = WINDOW_KEEPRATIO = WND_PROP_VISIBLE = 0
    COLOR_RGB2BGR = show.cv2.COLOR_RGB2BGR
    cvtColor = staticmethod(show.cv2.cvtColor)

    def __init__(self):
        self.shown, self.opened, self.closed = [], [], []
        self.key, self.visible = -1, 1.0

    def namedWindow(self, title, flags):
        self.opened.append(title)

    def resizeWindow(self, title, width, height):
        self.size = (width, height)

    def getWindowProperty(self, title, which):
        return self.visible

    def imshow(self, title, image):
        self.shown.append(image)

    def waitKey(self, wait):
        return self.key

    def destroyWindow(self, title):
        self.closed.append(title)


@pytest.fixture
def windows(monkeypatch):
    fake = FakeWindows()
    monkeypatch.setattr(show, "cv2", fake)
    monkeypatch.setenv("DISPLAY", ":0")
    answer = SimpleNamespace(returncode=0, stderr=b"")
    monkeypatch.setattr(show.subprocess, "run", lambda *args, **options: answer)
    fake.answer = answer
    return fake


IMAGE = np.full((6, 8, 3), (200, 100, 50), np.uint8)


def test_pictures_are_shown_in_their_colours(windows):
    window = open_window("match.mp4")
    assert windows.opened == []
    assert window.show(IMAGE)
    assert window.show(np.dstack([IMAGE, IMAGE[..., 0]]))
    assert (windows.opened, windows.size) == (["match.mp4"], (8, 6))
    assert [tuple(image[0, 0]) for image in windows.shown] == [(50, 100, 200)] * 2
    window.close()
    window.close()
    assert windows.closed == ["match.mp4"]


@pytest.mark.parametrize(
    ("key", "goes_on"), [("q", False), ("Q", False), ("\x1b", False), ("x", True)]
)
def test_keys_that_end_it(windows, key, goes_on):
    window = open_window("a")
    windows.key = ord(key)
    assert window.show(IMAGE) is goes_on


def test_a_closed_window_ends_it(windows):
    window = open_window("a")
    assert window.show(IMAGE)
    windows.visible = 0.0
    assert not window.show(IMAGE)
    assert len(windows.shown) == 1


def test_a_session_without_a_display_is_refused(monkeypatch):
    monkeypatch.setattr(show.sys, "platform", "linux")
    monkeypatch.delenv("DISPLAY", raising=False)
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    with pytest.raises(UsageError, match="--show needs a display, and this session has none") as e:
        open_window("a")
    assert "leave --show out" in e.value.hint


@pytest.mark.parametrize(
    ("stderr", "reason"),
    [
        (b"error: (-2) The function is not implemented. Rebuild", "opencv-python-headless"),
        (
            b"qt.qpa.xcb: could not connect to display :9\nAborted",
            "could not connect to display :9",
        ),
        (b"", "OpenCV found no display"),
    ],
)
def test_a_display_that_does_not_work_is_refused(windows, stderr, reason):
    windows.answer.returncode, windows.answer.stderr = -6, stderr
    with pytest.raises(UsageError, match="--show cannot open a window: ") as caught:
        open_window("a")
    assert reason in caught.value.message
    assert "\n" not in caught.value.message


def test_a_display_that_does_not_answer_is_refused(windows, monkeypatch):
    def hang(command, **options):
        raise subprocess.TimeoutExpired(command, options["timeout"])

    monkeypatch.setattr(show.subprocess, "run", hang)
    with pytest.raises(UsageError, match="the display did not answer within 20 s"):
        open_window("a")
