"""Options about videos: what they mean, and what contradicts what."""

from fractions import Fraction

import pytest

from hrnet_cli.cli.video_options import CAUSAL, OFFLINE, VideoOptions, parse_time
from hrnet_cli.errors import UsageError
from hrnet_cli.smoothing import FILTERS
from hrnet_cli.smoothing_offline import SMOOTHERS
from hrnet_cli.sources import Span


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("0", 0), ("90", 90), ("12.5", 12.5), ("1:30", 90), ("1:02:03.5", 3723.5), ("0:00:7.", 7)],
)
def test_times(text, seconds):
    assert parse_time(text, "--start") == seconds


@pytest.mark.parametrize("text", ["", "-1", "1:", ":30", "1:2:3:4", "1e3", "nan", "12s", "1.5:30"])
def test_what_is_no_time(text):
    with pytest.raises(UsageError, match=r"--end is '.*', expected seconds or H:MM:SS"):
        parse_time(text, "--end")


def test_the_usual_options_follow_nobody():
    options = VideoOptions()
    options.check()
    assert options.span == Span()
    assert (options.rate, options.part) == (None, None)
    assert not options.follows
    assert not options.offline
    assert options.given() == []


@pytest.mark.parametrize(
    "options",
    [
        {"track": True},
        {"smooth": "one-euro"},
        {"smooth": "savgol"},
        {"fill_gaps": 0.5},
        {"fix_swaps": True},
        {"detect_every": 2},
    ],
)
def test_what_needs_ids_turns_tracking_on(options):
    VideoOptions(**options).check()
    assert VideoOptions(**options).follows
    assert VideoOptions(**options).given()
    if "track" not in options:
        with pytest.raises(UsageError, match="--no-track contradicts"):
            VideoOptions(**options, track=False).check()


def test_what_needs_a_second_pass():
    assert VideoOptions(smooth="gaussian").offline
    assert VideoOptions(smooth="butterworth").offline
    assert VideoOptions(smooth="median", fill_gaps=1).offline
    assert not VideoOptions(smooth="median").offline


def test_the_kinds_of_smoothing_are_those_there_are():
    assert set(CAUSAL) == set(FILTERS)
    assert {*OFFLINE, "median", "none"} == set(SMOOTHERS)


def test_rates_and_parts():
    assert VideoOptions(fps="30000/1001").rate == Fraction(30000, 1001)
    assert VideoOptions(fps="12.5").rate == Fraction(25, 2)
    assert VideoOptions(shard="2/8").part == (2, 8)
    assert VideoOptions(devices="3, 0").cards == (3, 0)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"smooth": "one-uro"}, "--smooth is 'one-uro', expected one of none, one-euro"),
        ({"fps": "0"}, "--fps is '0', expected a number above 0"),
        ({"fps": "1/0"}, "--fps is '1/0'"),
        ({"fps": "fast"}, "--fps is 'fast'"),
        ({"shard": "0/2"}, "--shard is '0/2', expected I/N"),
        ({"shard": "3/2"}, "--shard is '3/2'"),
        ({"shard": "1"}, "--shard is '1'"),
        ({"start": "5", "end": "5"}, "--start 5 --end 5.0 leave no frame"),
        ({"jobs": 2, "shard": "1/2"}, "--jobs and --shard exclude each other"),
        ({"devices": "0", "shard": "1/2"}, "--devices and --shard exclude each other"),
        ({"devices": "0", "jobs": 2}, "--jobs and --devices exclude each other"),
        ({"devices": "0,0"}, "--devices is '0,0', expected numbers of GPUs, each once"),
        ({"devices": "cuda:0"}, "--devices is 'cuda:0'"),
        ({"jobs": 2, "show": True}, "--show and --jobs exclude each other"),
        ({"fill_gaps": 1, "smooth": "kalman"}, "--fill-gaps needs all frames first"),
    ],
)
def test_what_cannot_be(options, words):
    with pytest.raises(UsageError) as caught:
        VideoOptions(**options).check()
    assert words in caught.value.message
