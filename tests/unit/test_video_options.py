"""Options about videos: what they mean, and what contradicts what."""

from fractions import Fraction
from types import SimpleNamespace

import pytest

from hrnet_cli.cli.detect_options import DetectOptions
from hrnet_cli.cli.detect_video_task import following, video_task
from hrnet_cli.cli.video_options import CAUSAL, OFFLINE, VideoOptions, parse_smooth, parse_time
from hrnet_cli.errors import UsageError
from hrnet_cli.schema import load_schema
from hrnet_cli.smoothing import FILTERS, SmoothingSettings
from hrnet_cli.smoothing_offline import SMOOTHERS, OfflineSettings
from hrnet_cli.sources import Span, VideoInfo
from hrnet_cli.sources.plan import Video
from hrnet_cli.stages import StageClock
from hrnet_cli.streaming import FinderInfo

USUAL = SmoothingSettings()


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("0", 0),
        ("90", 90),
        ("12.5", 12.5),
        ("1:30", 90),
        ("1:02:03.5", 3723.5),
        ("0:00:7.", 7),
        (".5", 0.5),
        ("1:.5", 60.5),
    ],
)
def test_times(text, seconds):
    assert parse_time(text, "--start") == seconds


@pytest.mark.parametrize(
    "text", ["", "-1", "1:", ":30", "1:2:3:4", "1e3", "nan", "12s", "1.5:30", ".", "1:."]
)
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
        {"smooth": "savgol:0.5"},
        {"fill_gaps": 0.5},
        {"fix_swaps": True},
        {"detect_every": 2},
        {"track_gap": 0.0},
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
    assert VideoOptions(smooth="butterworth:4").offline
    assert VideoOptions(smooth="median", fill_gaps=1).offline
    assert not VideoOptions(smooth="median").offline


def test_the_kinds_of_smoothing_are_those_there_are():
    assert set(CAUSAL) == set(FILTERS)
    assert {*OFFLINE, "median", "none"} == set(SMOOTHERS)


@pytest.mark.parametrize(
    ("text", "numbers"),
    [
        ("none", {}),
        ("one-euro", {}),
        ("one-euro:1.5", {"min_cutoff_hz": 1.5}),
        ("one-euro:1.5,beta=4", {"min_cutoff_hz": 1.5, "beta": 4}),
        ("one-euro:beta=4,min_cutoff_hz=1", {"min_cutoff_hz": 1, "beta": 4}),
        ("kalman:0.02,restlessness=3", {"noise": 0.02, "restlessness": 3}),
        ("median:3", {"taps": 3}),
        ("savgol:0.5,order=3", {"window_s": 0.5, "order": 3}),
        ("gaussian:.1", {"sigma_s": 0.1}),
        ("butterworth:4", {"cutoff_hz": 4}),
    ],
)
def test_numbers_of_a_smoothing(text, numbers):
    found = parse_smooth(text)
    assert found == numbers
    # A number of sightings or a degree indexes arrays.
    assert all(type(found[name]) is int for name in {"taps", "order"} & set(found))
    assert VideoOptions(smooth=text).smooth_kind == text.split(":")[0]


@pytest.mark.parametrize(
    ("text", "message", "hint"),
    [
        ("savgl:0.3", "--smooth is 'savgl', expected one of none, one-euro",
         "did you mean 'savgol'?"),
        ("none:1", "--smooth is 'none:1', but none takes no numbers", ""),
        ("savgol:", "--smooth is 'savgol:': window_s is '', expected a number", ""),
        ("savgol:long", "--smooth is 'savgol:long': window_s is 'long', expected a number", ""),
        ("savgol:order=2.5", "--smooth is 'savgol:order=2.5': order is '2.5', expected a w", ""),
        ("savgol:0.3,3", "--smooth is 'savgol:0.3,3', '3' in it is none of the numbers of savgol",
         "they are, with what they usually are: savgol:window_s=0.3,order=2"),
        ("savgol:0.3,window_s=1", "--smooth is 'savgol:0.3,window_s=1', 'window_s=1' in it is", ""),
        ("one-euro:cutoff=1", "--smooth is 'one-euro:cutoff=1', 'cutoff=1' in it is none of",
         "they are, with what they usually are: one-euro:min_cutoff_hz=1.0,beta=8.0"),
        ("one-euro:0", "--smooth is 'one-euro:0': min_cutoff_hz is 0.0, expected above 0 and", ""),
        ("one-euro:nan", "--smooth is 'one-euro:nan': min_cutoff_hz is nan, expected above 0", ""),
        ("savgol:300", "--smooth is 'savgol:300': window_s is 300.0, expected above 0 and at", ""),
        ("median:7", "--smooth is 'median:7': taps is 7, expected 3 or 5", ""),
    ],
)  # fmt: skip
def test_numbers_that_cannot_be(text, message, hint):
    with pytest.raises(UsageError) as caught:
        VideoOptions(smooth=text).check()
    assert caught.value.message.startswith(message)
    assert caught.value.hint.startswith(hint)


@pytest.mark.parametrize(("given", "max_gap_s"), [(None, 1.0), (5.0, 5.0), (0.0, 0.0)])
def test_the_gap_of_a_track_reaches_the_tracker(given, max_gap_s):
    video = VideoOptions(track=True, track_gap=given)
    settings = following(SimpleNamespace(video=video, person_threshold=0.6, boxes=None)).tracking
    assert (settings.max_gap_s, settings.person_threshold) == (max_gap_s, 0.6)


def test_numbers_reach_the_filter_that_runs():
    def found(smooth, **more):
        video = VideoOptions(smooth=smooth, **more)
        return following(SimpleNamespace(video=video, person_threshold=None, boxes=None))

    causal = found("one-euro:1.5,beta=4")
    assert causal.smoothing == "one-euro"
    assert causal.smoothing_settings == SmoothingSettings(min_cutoff_hz=1.5, beta=4)
    for second_pass in (found("savgol:0.5"), found("median:3", fill_gaps=0.2)):
        assert (second_pass.smoothing, second_pass.smoothing_settings) == ("none", USUAL)


def test_gaps_are_filled_where_keypoints_score_below_the_threshold():
    options = DetectOptions(
        ("clip.mp4",), "out", "jsonl", "", VideoOptions(fill_gaps=0.5), keypoint_threshold=0.35
    )
    source = SimpleNamespace(info=VideoInfo((32, 24), Fraction(1, 25)))
    finder = SimpleNamespace(
        info=FinderInfo("starter", "yolo", load_schema("coco17"), StageClock())
    )
    task = video_task(Video("clip.mp4", "clip"), source, options, finder)
    assert (task.offline.max_gap_s, task.offline.least_score) == (0.5, 0.35)
    assert OfflineSettings().least_score == DetectOptions((), "", "", "", None).keypoint_threshold


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
        ({"fill_gaps": 1, "smooth": "one-euro:2"}, "--fill-gaps needs all frames first"),
    ],
)
def test_what_cannot_be(options, words):
    with pytest.raises(UsageError) as caught:
        VideoOptions(**options).check()
    assert words in caught.value.message
