"""A window with the drawn pictures while they are made, for ``--show`` only."""

import os
import subprocess
import sys

import cv2

from hrnet_cli.errors import UsageError
from hrnet_cli.images import Pixels

_ESCAPE = 27
_PROBE_S = 20
# Asked in a process of its own: OpenCV ends the whole process where it finds no display.
_PROBE = "import cv2; cv2.namedWindow('hrnet'); cv2.waitKey(1); cv2.destroyAllWindows()"
_WITHOUT = "leave --show out; the drawn video is written all the same"


class LiveWindow:
    """A window that shows one picture after the other.

    Args:
        title: Its title.
    """

    def __init__(self, title: str) -> None:
        self._title = title
        self._open = False

    def show(self, image_HW3: Pixels) -> bool:
        """Show a picture, uint8 RGB (H, W, 3); for the thread that opened the window.

        Returns:
            False when the user has had enough: q, Esc, or the window was closed.
        """
        if not self._open:
            cv2.namedWindow(self._title, cv2.WINDOW_NORMAL | cv2.WINDOW_KEEPRATIO)
            cv2.resizeWindow(self._title, image_HW3.shape[1], image_HW3.shape[0])
            self._open = True
        elif cv2.getWindowProperty(self._title, cv2.WND_PROP_VISIBLE) < 1:
            return False
        cv2.imshow(self._title, cv2.cvtColor(image_HW3[..., :3], cv2.COLOR_RGB2BGR))
        return cv2.waitKey(1) & 0xFF not in (ord("q"), ord("Q"), _ESCAPE)

    def close(self) -> None:
        """Close the window; twice does no harm."""
        if self._open:
            self._open = False
            cv2.destroyWindow(self._title)
            cv2.waitKey(1)


def open_window(title: str) -> LiveWindow:
    """Return a window that opens with its first picture.

    Raises:
        UsageError: There is no display, or OpenCV was built without windows.
    """
    if sys.platform.startswith("linux") and not (
        os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")
    ):
        raise UsageError("--show needs a display, and this session has none", hint=_WITHOUT)
    try:
        probe = subprocess.run(
            [sys.executable, "-c", _PROBE], capture_output=True, timeout=_PROBE_S, check=False
        )
        problem = "" if probe.returncode == 0 else _reason(probe.stderr)
    except subprocess.TimeoutExpired:
        problem = f"the display did not answer within {_PROBE_S} s"
    if problem:
        raise UsageError(f"--show cannot open a window: {problem}", hint=_WITHOUT)
    return LiveWindow(title)


def _reason(stderr: bytes) -> str:
    """Return why no window opened, from what OpenCV printed."""
    text = stderr.decode(errors="replace")
    if "not implemented" in text:
        return "OpenCV was installed without windows, as opencv-python-headless"
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return next((line for line in lines if "display" in line.lower()), "OpenCV found no display")
