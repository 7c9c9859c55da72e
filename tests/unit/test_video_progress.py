"""What a video says of its progress where no terminal shows a bar."""

import time

import pytest

from hrnet_cli.cli import video_progress
from hrnet_cli.stages import StageClock


@pytest.mark.parametrize(
    ("quiet", "total", "lines"),
    [
        (False, 300, ["a.mp4: 120 of 300 frames, 240 people, 1.6 fps"]),
        (False, None, ["a.mp4: 120 frames, 240 people, 1.6 fps"]),
        (True, 300, []),
    ],
)
def test_a_log_file_gets_a_line_a_minute(monkeypatch, capsys, quiet, total, lines):
    clock = iter([0.0, 10.0, 61.0, 70.0])
    monkeypatch.setattr(time, "perf_counter", lambda: next(clock))
    with video_progress.show_progress("a.mp4", total, StageClock(), quiet=quiet) as advance:
        # A run that goes on begins with the frames of the one before.
        for frames in (21, 120, 130):
            advance(frames, 2 * frames)
    assert capsys.readouterr().err.splitlines() == lines
