from fractions import Fraction

import pytest

from hrnet_cli.sources import Span
from hrnet_cli.sources.slow_motion import SlowMotion
from hrnet_cli.sources.video import open_video
from videos import write_video


def test_times_are_those_of_the_recording_and_the_video_plays_as_before(tmp_path):
    path = write_video(tmp_path / "clip.mp4", 6, rate=30)
    played = open_video("clip.mp4", path, "clip", Span())
    source = SlowMotion(open_video("clip.mp4", path, "clip", Span()), Fraction(8))
    assert (source.source, source.info) == (played.source, played.info)
    frames, before = list(source.frames(skip=2)), list(played.frames(skip=2))
    assert [frame.time_s for frame in frames] == pytest.approx([i / 240 for i in range(2, 6)])
    assert [frame.pts for frame in frames] == [frame.pts for frame in before]
    assert {frame.time_base * 8 for frame in frames} == {source.info.time_base}
    assert source.damage.guessed_times == 0
    source.close()
