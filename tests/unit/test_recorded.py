from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest

from builders import make_frame
from hrnet_cli.errors import InputError
from hrnet_cli.sources import Span
from hrnet_cli.sources.recorded import RecordedVideo, open_recorded
from hrnet_cli.sources.video import open_video
from videos import SIZE_WH, number_in, write_video


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    return write_video(tmp_path_factory.mktemp("clip") / "clip.mp4", 12)


def recorded(clip, **span):
    """Return the frames of a video as records tell of them: black."""
    frames = open_video(str(clip), clip, "clip", Span(**span)).frames()
    black = np.broadcast_to(np.zeros((1, 1, 3), np.uint8), (*SIZE_WH[::-1], 3))
    return [replace(frame, image_HW3=black) for frame in frames]


def test_frames_that_have_a_record_get_their_pictures(clip):
    frames = recorded(clip, start_s=0.1, every=3)
    source = open_recorded(frames, clip, "clip")
    assert (source.info.frames, source.info.size_wh) == (len(frames), SIZE_WH)
    for _ in range(2):  # a second time, too
        found = list(source.frames())
        assert [number_in(frame.image_HW3) for frame in found] == [3, 6, 9]
        assert [frame.pts for frame in found] == [frame.pts for frame in frames]
    assert [frame.index for frame in source.frames(skip=2)] == [9]
    source.close()


def test_without_a_video_they_are_black_and_keep_their_times(clip):
    frames = recorded(clip)
    source = open_recorded(frames, None, "clip")
    assert source.info.rate == 25
    assert source.info.time_base == frames[0].time_base
    found = list(source.frames())
    assert [frame.time_s for frame in found] == [frame.time_s for frame in frames]
    assert not found[0].image_HW3.any()


def test_records_without_steps_of_time_get_some():
    frames = [make_frame("clip.mp4", index=i, time_s=i / 10) for i in range(3)]
    source = RecordedVideo(frames)
    found = list(source.frames())
    assert [float(frame.pts * frame.time_base) for frame in found] == pytest.approx([0, 0.1, 0.2])
    assert source.info.rate == Fraction(10)


@pytest.mark.parametrize(
    "changed",
    [
        {"time_s": 0.3, "pts": 9},
        {"index": 40, "time_s": 1.6},
        {"image_HW3": np.zeros((9, 9, 3), np.uint8)},
    ],
)
def test_another_video_is_refused(clip, changed):
    first, second, *_ = recorded(clip)
    source = open_recorded([first, replace(second, **changed)], clip, "clip")
    with pytest.raises(InputError, match="of which the records speak"):
        list(source.frames())
