import os
import re
import signal
import subprocess
import sys
from fractions import Fraction
from itertools import islice, pairwise
from pathlib import Path

import av
import numpy as np
import pytest

import hrnet_cli.sinks.encoding
import videos
from hrnet_cli.errors import OutputError, UsageError
from hrnet_cli.sinks import sound as sound_module
from hrnet_cli.sinks import video_file
from hrnet_cli.sinks.encoding import Ticks, VideoSettings
from hrnet_cli.sinks.sound import Sound
from hrnet_cli.sinks.video_file import open_video_file
from hrnet_cli.sources import Span
from hrnet_cli.sources.video import open_video
from videos import SIZE_WH, numbered_picture, video_numbers, video_times, write_video

BASE = Fraction(1, 25)


@pytest.fixture(autouse=True)
def short_segments(monkeypatch):
    monkeypatch.setattr(video_file, "SEGMENT_FRAMES", 8)


def write(path: Path, frames, *, base=BASE, size_wh=SIZE_WH, settings=None, resume=0, pts=None):
    """Write numbered frames, which need not start at 0, and leave the video open."""
    settings = settings or VideoSettings()
    parts = path.parent / f"{path.stem}.resume"
    video = open_video_file(path, size_wh, base, settings, parts=parts, resume_frames=resume)
    for number in frames:
        image = numbered_picture(number, size_wh)
        video.append(image, pts[number] if pts is not None else number)
    return video


def decoded(path: Path) -> list[bytes]:
    with av.open(str(path)) as container:
        return [
            b"".join(bytes(memoryview(plane)) for plane in frame.planes)
            for frame in container.decode(video=0)
        ]


def sound_times(path: Path) -> tuple[float, float, str]:
    """Return where the decoded sound starts and ends in seconds, and its codec."""
    with av.open(str(path)) as container:
        stream = container.streams.audio[0]
        frames = list(container.decode(stream))
        end = frames[-1].time + frames[-1].samples / frames[-1].sample_rate
        return frames[0].time, end, stream.codec_context.name


@pytest.mark.parametrize("count", [1, 7, 8, 9, 30])
def test_frames_in_are_frames_out(tmp_path, count):
    video = write(tmp_path / "a.mp4", range(count))
    summary = video.finish()
    assert (summary.path, summary.frames, summary.warnings) == (tmp_path / "a.mp4", count, ())
    assert video_numbers(tmp_path / "a.mp4") == list(range(count))
    assert video_times(tmp_path / "a.mp4") == (BASE, list(range(count)))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.mp4", "a.resume"]


@pytest.mark.parametrize(
    "base",
    [
        Fraction(1001, 30000),
        Fraction(1, 90000),
        Fraction(1, 1000),
        Fraction(1, 12800),
        Fraction(1001, 24000),
        Fraction(1, 1_000_000),
        Fraction(500, 105611),
        Fraction(2),
    ],
    ids=str,
)
def test_timestamps_come_back_exactly(tmp_path, base):
    pts = [5, 6, 7, 9, 14, 15, 16, 18, 19, 20, 41, 42, 43, 44, 45, 46, 47, 100, 101, 102]
    write(tmp_path / "a.mp4", range(20), base=base, pts=pts).finish()
    found_base, found = video_times(tmp_path / "a.mp4")
    assert [p * found_base for p in found] == [(p - 5) * base for p in pts]


def test_steps_finer_than_a_microsecond_are_rounded_and_stay_in_order(tmp_path):
    pts = [n * 33_366_667 for n in range(20)]
    write(tmp_path / "a.mp4", range(20), base=Fraction(1, 10**9), pts=pts).finish()
    base, found = video_times(tmp_path / "a.mp4")
    assert all(
        abs(p * base - Fraction(t, 10**9)) <= Fraction(1, 10**6)
        for p, t in zip(found, pts, strict=True)
    )
    assert Ticks.of(Fraction(1, 10**9))(1500) == 2


def test_a_pause_of_half_an_hour_is_kept(tmp_path):
    pts = [0, 90, 90_000 * 1800, 90_000 * 1800 + 3003]
    write(tmp_path / "a.mp4", range(4), base=Fraction(1, 90000), pts=pts).finish()
    assert video_times(tmp_path / "a.mp4")[1] == pts


@pytest.mark.parametrize("base", [Fraction(1, 25), Fraction(1, 90000)])
def test_the_last_frame_lasts_as_long_as_the_others(tmp_path, base):
    step = round(1 / (25 * base))
    write(tmp_path / "a.mp4", range(10), base=base, pts=[n * step for n in range(10)]).finish()
    with av.open(str(tmp_path / "a.mp4")) as container:
        assert container.duration / av.time_base == pytest.approx(0.4)


@pytest.mark.parametrize("codec", ["h264", "hevc"])
def test_the_file_plays_everywhere(tmp_path, codec):
    write(tmp_path / "a.mp4", range(20), settings=VideoSettings(codec)).finish()
    data = (tmp_path / "a.mp4").read_bytes()
    assert data.index(b"moov") < data.index(b"mdat")  # starts to play before all of it is there
    with av.open(str(tmp_path / "a.mp4")) as container:
        stream = container.streams.video[0]
        assert stream.codec_context.pix_fmt == "yuv420p"
        assert stream.codec_context.codec_tag == {"h264": "avc1", "hevc": "hvc1"}[codec]
        frames = list(container.decode(stream))
        assert {(f.colorspace, f.color_range) for f in frames} == {(1, 1)}
        assert not any("DISPLAYMATRIX" in str(f.side_data.keys()) for f in frames)
        container.seek(0)
        packets = [p for p in container.demux(stream) if p.size]
        assert [p.dts for p in packets] == [p.pts for p in packets]
        assert all(a.dts < b.dts for a, b in pairwise(packets))
        assert [n for n, p in enumerate(packets) if p.is_keyframe][:3] == [0, 8, 16]
    assert video_numbers(tmp_path / "a.mp4") == list(range(20))


@pytest.mark.parametrize("size_wh", [(65, 49), (64, 49), (65, 48)])
def test_odd_sizes_get_a_copy_of_the_last_row_or_column(tmp_path, size_wh):
    write(tmp_path / "a.mp4", range(3), size_wh=size_wh, settings=VideoSettings(quality=5)).finish()
    with av.open(str(tmp_path / "a.mp4")) as container:
        images = [f.to_ndarray(format="rgb24") for f in container.decode(video=0)]
    width, height = size_wh
    assert images[0].shape == (height + height % 2, width + width % 2, 3)
    for number, image in enumerate(images):
        assert videos.number_in(image[:height, :width]) == number
    # The blue corner goes on into the new row and column.
    assert images[0][-1, -1].astype(int) == pytest.approx([40, 40, 200], abs=25)


def test_colours_come_out_as_they_went_in(tmp_path):
    picture = np.full((48, 64, 3), (200, 40, 90), np.uint8)
    video = write(tmp_path / "a.mp4", [], settings=VideoSettings(quality=5))
    video.append(picture, 0)
    video.finish()
    (frame,) = open_video("a", tmp_path / "a.mp4", "a", Span()).frames()
    assert np.abs(frame.image_HW3.astype(int) - picture).max() <= 4


def test_quality_changes_the_size(tmp_path):
    noise = np.random.default_rng(0).integers(0, 255, (48, 64, 3), np.uint8)
    sizes = []
    for quality in (10, 20, 40):
        video = write(tmp_path / f"{quality}.mp4", [], settings=VideoSettings(quality=quality))
        video.append(noise, 0)
        sizes.append(video.finish().path.stat().st_size)
    assert sizes[0] > sizes[1] > sizes[2]


def test_pixels_that_are_not_square_are_shown_so(tmp_path):
    settings = VideoSettings(pixel_aspect=Fraction(4, 3))
    write(tmp_path / "a.mp4", range(9), settings=settings).finish()
    with av.open(str(tmp_path / "a.mp4")) as container:
        assert container.streams.video[0].sample_aspect_ratio == Fraction(4, 3)


@pytest.mark.parametrize("size_wh", [SIZE_WH, (66, 48), (72, 64)])
def test_prores_keeps_transparency(tmp_path, size_wh):
    video = write(tmp_path / "a.mov", [], size_wh=size_wh, settings=VideoSettings("prores"))
    images = [
        np.dstack([numbered_picture(n, size_wh), np.full(size_wh[::-1], 25 * n, np.uint8)])
        for n in range(10)
    ]
    for number, image in enumerate(images):
        image[: size_wh[1] // 2, :8, 3] = 255
        video.append(image, number)
    assert video.finish().frames == 10
    with av.open(str(tmp_path / "a.mov")) as container:
        stream = container.streams.video[0]
        assert (stream.codec_context.codec_tag, stream.time_base) == ("ap4h", BASE)
        found = [
            f.reformat(format="rgba", threads=1).to_ndarray() for f in container.decode(stream)
        ]
    # 10 bits of colour between, alpha is stored without loss.
    for image, read in zip(images, found, strict=True):
        assert np.abs(image[..., 3].astype(int) - read[..., 3]).max() <= 1
        assert np.abs(image.astype(int) - read).mean() < 2


def test_pictures_without_transparency_are_opaque_in_prores(tmp_path):
    write(tmp_path / "a.mov", range(2), settings=VideoSettings("prores")).finish()
    with av.open(str(tmp_path / "a.mov")) as container:
        assert next(container.decode(video=0)).to_ndarray(format="rgba")[..., 3].min() >= 254


def test_png_is_a_folder_of_pictures(tmp_path):
    settings = VideoSettings("png")
    video = write(tmp_path / "a", [], settings=settings)
    image = np.dstack([numbered_picture(3), np.full((48, 64), 7, np.uint8)])
    for number in range(3):
        video.append(image, number)
    assert video.frames == 3
    video.close()
    names = ["000000.png", "000001.png", "000002.png"]
    assert sorted(path.name for path in (tmp_path / "a").iterdir()) == names
    with av.open(str(tmp_path / "a" / "000001.png")) as container:
        found = next(container.decode(video=0)).to_ndarray(format="rgba")
    assert np.array_equal(found, image)
    video = write(tmp_path / "a", [], settings=settings, resume=2)
    assert sorted(path.name for path in (tmp_path / "a").iterdir()) == names[:2]
    video.append(numbered_picture(2), 2)
    summary = video.finish(Sound(tmp_path / "no.mp4"))
    assert (summary.path, summary.frames) == (tmp_path / "a", 3)
    assert summary.warnings == ("the sound was not copied: pictures have none",)
    with pytest.raises(OutputError, match=r"picture 000003\.png is missing"):
        write(tmp_path / "a", [], settings=settings, resume=5)


@pytest.mark.parametrize("broken_at", [1, 8, 29])
@pytest.mark.parametrize("codec", ["h264", "hevc", "prores"])
def test_a_resumed_video_has_the_same_pixels(tmp_path, broken_at, codec):
    settings = VideoSettings(codec)
    whole = tmp_path / f"whole{settings.suffix}"
    write(whole, range(30), settings=settings).finish()
    path = tmp_path / f"part{settings.suffix}"
    video = write(path, range(broken_at), settings=settings)
    done = broken_at // 8 * 8
    del video  # as after kill -9: nothing is closed
    write(path, range(done, 30), settings=settings, resume=done).finish()
    assert decoded(path) == decoded(whole)
    assert video_times(path) == video_times(whole)


def test_closing_leaves_a_playable_video_and_all_to_go_on(tmp_path):
    path = tmp_path / "a.mp4"
    video = write(path, range(21))
    video.close()
    video.close()
    assert video_numbers(path) == list(range(21))
    write(path, range(16, 30), resume=16).finish()
    assert video_numbers(path) == list(range(30))
    write(tmp_path / "whole.mp4", range(30)).finish()
    assert decoded(path) == decoded(tmp_path / "whole.mp4")


def test_a_video_that_was_all_done_can_be_joined_again(tmp_path):
    path = tmp_path / "a.mp4"
    write(path, range(21)).close()
    path.unlink()
    video = write(path, [], resume=21)
    assert video.finish().frames == 21
    assert video_numbers(path) == list(range(21))


def test_closing_without_a_frame_writes_nothing(tmp_path):
    write(tmp_path / "a.mp4", []).close()
    assert not (tmp_path / "a.mp4").exists()
    summary = write(tmp_path / "a.mp4", []).finish()
    assert (summary.frames, summary.warnings) == (0, ("no frame was drawn, so there is no video",))


@pytest.mark.parametrize("resume", [3, 24])
def test_frames_to_keep_that_are_not_there_are_named(tmp_path, resume):
    write(tmp_path / "a.mp4", range(21))
    with pytest.raises(OutputError, match=f"pieces with its first {resume} frames are not all"):
        write(tmp_path / "a.mp4", [], resume=resume)


def test_a_lost_segment_is_noticed(tmp_path):
    video = write(tmp_path / "a.mp4", range(20))
    segment = next((tmp_path / "a.resume").glob("frames_00000008*"))
    write(tmp_path / "b.mp4", range(4)).close()
    segment.write_bytes((tmp_path / "b.mp4").read_bytes())
    with pytest.raises(OutputError, match=r"holds 4 frames, expected 8"):
        video.finish()
    assert not (tmp_path / "a.mp4").exists()
    assert not list(tmp_path.glob(".*"))


def test_segments_of_other_settings_are_not_joined(tmp_path):
    path = tmp_path / "a.mp4"
    write(path, range(8))
    other = VideoSettings("h264", pixel_aspect=Fraction(2))
    video = write(path, range(8, 16), settings=other, resume=8)
    with pytest.raises(OutputError, match="was encoded in another way than the pieces before it"):
        video.finish()


def test_times_that_go_back_are_a_bug_of_the_caller(tmp_path):
    video = write(tmp_path / "a.mp4", range(8))
    with pytest.raises(ValueError, match="expected more than 7, got 7"):
        video.append(numbered_picture(0), 7)


_KILLED = """
import os, sys
from fractions import Fraction
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from hrnet_cli.sinks import video_file
from hrnet_cli.sinks.encoding import VideoSettings
from videos import numbered_picture
video_file.SEGMENT_FRAMES = 8
folder = Path(sys.argv[1])
video = video_file.open_video_file(folder / "a.mp4", (64, 48), Fraction(1, 25), VideoSettings(),
                                   parts=folder / "a.resume")
for number in range(21):
    video.append(numbered_picture(number), number)
os.kill(os.getpid(), 9)
"""


@pytest.mark.skipif(os.name == "nt", reason="POSIX signals")
def test_after_kill_9_every_closed_segment_plays(tmp_path):
    tests = str(Path(videos.__file__).parent)
    ended = subprocess.run([sys.executable, "-c", _KILLED, str(tmp_path), tests], check=False)
    assert ended.returncode == -signal.SIGKILL
    segments = sorted((tmp_path / "a.resume").glob("frames_*.mp4"))
    assert [video_numbers(path) for path in segments] == [list(range(8)), list(range(8, 16))]
    assert not (tmp_path / "a.mp4").exists()
    write(tmp_path / "a.mp4", range(16, 21), resume=16).finish()
    assert video_numbers(tmp_path / "a.mp4") == list(range(21))


# ---- sound


def source_with_sound(path: Path, **options) -> Path:
    return write_video(path, 50, **({"audio": "aac"} | options))


def copy_with_sound(source: Path, target: Path, span: Span = Span(), *, whole: bool = True):  # noqa: B008
    video_source = open_video(str(source), source, source.name, span)
    info = video_source.info
    parts = target.parent / f"{target.stem}.resume"
    video = open_video_file(target, info.size_wh, info.time_base, VideoSettings(), parts=parts)
    for frame in video_source.frames():
        video.append(frame.image_HW3, frame.pts)
    return video.finish(Sound(source, whole))


@pytest.mark.parametrize(
    ("suffix", "codec", "expected"),
    [
        (".mp4", "aac", "aac"),
        (".ts", "aac", "aac"),
        (".mkv", "libopus", "opus"),
        (".mkv", "flac", "flac"),
        (".mov", "pcm_s16le", "aac"),
        (".mkv", "libvorbis", "aac"),
        (".ts", "mp2", "aac"),
    ],
)
def test_sound_is_copied_or_becomes_aac(tmp_path, suffix, codec, expected):
    if codec not in av.codecs_available:
        pytest.skip(f"this PyAV cannot write {codec}")
    source = source_with_sound(tmp_path / f"s{suffix}", audio=codec)
    summary = copy_with_sound(source, tmp_path / "o.mp4")
    assert (summary.frames, summary.warnings) == (50, ())
    start, end, found = sound_times(tmp_path / "o.mp4")
    assert found == expected
    # An AAC piece is 21 ms, and the first one may be left out.
    assert (start, end) == (pytest.approx(0, abs=0.05), pytest.approx(2, abs=0.07))
    assert video_numbers(tmp_path / "o.mp4") == list(range(50))
    assert video_times(tmp_path / "o.mp4")[1][0] == 0


@pytest.mark.parametrize("codec", ["aac", "pcm_s16le"])
def test_only_the_sound_of_the_span_is_kept(tmp_path, codec):
    source = source_with_sound(tmp_path / "s.mov", audio=codec)
    summary = copy_with_sound(source, tmp_path / "o.mp4", Span(0.8, 1.6), whole=False)
    assert summary.frames == 20
    start, end, _ = sound_times(tmp_path / "o.mp4")
    assert (start, end) == (pytest.approx(0, abs=0.05), pytest.approx(0.8, abs=0.05))
    assert video_times(tmp_path / "o.mp4")[1] == list(range(20))


def click_time(path: Path) -> float:
    """Return when the first loud sample is heard."""
    with av.open(str(path)) as container:
        for frame in container.decode(audio=0):
            loud = np.flatnonzero(np.abs(frame.to_ndarray().astype(float)).max(axis=0) > 0.1)
            if len(loud):
                return frame.time + loud[0] / frame.sample_rate
    raise AssertionError("no click")


@pytest.mark.parametrize("codec", ["aac", "flac"])
@pytest.mark.parametrize("start_s", [0.0, 0.4, 0.92])
def test_sound_and_pictures_stay_together(tmp_path, monkeypatch, codec, start_s):
    silence = videos.tone(2)
    for number, frame in enumerate(silence):
        if number < 50:  # the tone begins at 1 s
            samples = np.zeros_like(frame.to_ndarray())
            silence[number] = av.AudioFrame.from_ndarray(samples, "fltp", "stereo")
            silence[number].sample_rate, silence[number].pts = 48000, frame.pts
    monkeypatch.setattr(videos, "tone", lambda _: silence)
    source = source_with_sound(tmp_path / "s.mkv", audio=codec)
    copy_with_sound(source, tmp_path / "o.mp4", Span(start_s))
    begin = open_video("s", source, "s", Span(start_s)).frames()
    first_s = next(begin).time_s
    assert click_time(tmp_path / "o.mp4") == pytest.approx(click_time(source) - first_s, abs=0.01)


def test_sound_that_goes_on_after_the_pictures_is_kept_unless_the_span_ends(tmp_path):
    source = source_with_sound(tmp_path / "s.mp4", audio_s=4)
    copy_with_sound(source, tmp_path / "whole.mp4")
    assert sound_times(tmp_path / "whole.mp4")[1] == pytest.approx(4, abs=0.07)
    copy_with_sound(source, tmp_path / "cut.mp4", whole=False)
    assert sound_times(tmp_path / "cut.mp4")[1] == pytest.approx(2, abs=0.07)


def test_a_source_without_sound_is_nothing_to_speak_of(tmp_path):
    source = write_video(tmp_path / "s.mp4", 9)
    summary = copy_with_sound(source, tmp_path / "o.mp4")
    assert (summary.frames, summary.warnings) == (9, ())


def test_sound_of_an_unknown_kind_is_named(tmp_path):
    source = source_with_sound(tmp_path / "s.mp4")
    source.write_bytes(source.read_bytes().replace(b"mp4a", b"zzz9").replace(b"esds", b"zzzs"))
    summary = copy_with_sound(source, tmp_path / "o.mp4")
    assert summary.warnings == ("the drawn video has no sound: its form is not known to FFmpeg",)
    assert video_numbers(tmp_path / "o.mp4") == list(range(50))


def test_sound_that_cannot_be_opened_or_stored_leaves_the_pictures(tmp_path, monkeypatch):
    source = source_with_sound(tmp_path / "s.mp4")
    (tmp_path / "text.mp4").write_text("no video")
    summary = write(tmp_path / "a.mp4", range(9)).finish(Sound(tmp_path / "text.mp4"))
    assert "the drawn video has no sound: Invalid data found" in summary.warnings[0]
    assert video_numbers(tmp_path / "a.mp4") == list(range(9))
    # MP4 does not hold this kind.
    source = source_with_sound(tmp_path / "s.mkv", audio="pcm_u8")
    monkeypatch.setattr(sound_module, "_COPIED", ("pcm_u8",))
    summary = copy_with_sound(source, tmp_path / "o.mp4")
    assert "the drawn video has no sound: " in summary.warnings[0]
    assert video_numbers(tmp_path / "o.mp4") == list(range(50))


def test_sound_that_the_file_refuses_leaves_the_pictures(tmp_path, monkeypatch):
    source = source_with_sound(tmp_path / "s.mp4")
    packets = sound_module.SoundTrack.packets

    def going_back(self, end_s):
        for packet in packets(self, end_s):
            packet.dts = packet.pts = -packet.pts
            yield packet

    monkeypatch.setattr(sound_module.SoundTrack, "packets", going_back)
    summary = copy_with_sound(source, tmp_path / "o.mp4")
    assert summary.warnings == ("the drawn video has no sound: Invalid argument",)
    assert video_numbers(tmp_path / "o.mp4") == list(range(50))


def test_sound_whose_times_go_back_is_kept_where_it_goes_on(tmp_path, monkeypatch):
    source = source_with_sound(tmp_path / "s.mp4")
    copy = sound_module.SoundTrack._copy

    def stumbling(self):
        for number, packet in enumerate(copy(self)):
            if number == 30:
                packet.dts = packet.pts = packet.pts - 5000
            yield packet

    monkeypatch.setattr(sound_module.SoundTrack, "_copy", stumbling)
    assert copy_with_sound(source, tmp_path / "o.mp4").warnings == ()
    assert sound_times(tmp_path / "o.mp4")[1] == pytest.approx(2, abs=0.07)


def test_broken_pieces_of_sound_are_left_out(tmp_path):
    source = source_with_sound(tmp_path / "s.mkv", audio="mp2")
    data = bytearray(source.read_bytes())
    heads = [n for n in range(len(data)) if data[n : n + 2] == b"\xff\xfd"]  # MPEG audio layer 2
    for head in heads[20:25]:
        data[head : head + 2] = b"\x00\x00"
    source.write_bytes(data)
    summary = copy_with_sound(source, tmp_path / "o.mp4")
    (warning,) = summary.warnings
    assert re.fullmatch(r"[1-5] pieces of the sound could not be decoded", warning)
    assert sound_times(tmp_path / "o.mp4")[1] == pytest.approx(2, abs=0.07)
    assert video_numbers(tmp_path / "o.mp4") == list(range(50))


def test_sound_that_breaks_off_is_named(tmp_path, monkeypatch):
    source = source_with_sound(tmp_path / "s.mp4")
    copy = sound_module.SoundTrack._copy

    def breaking(self):
        yield from islice(copy(self), 20)
        raise av.error.InvalidDataError(1, "Invalid data found")

    monkeypatch.setattr(sound_module.SoundTrack, "_copy", breaking)
    summary = copy_with_sound(source, tmp_path / "o.mp4")
    assert summary.warnings == ("the sound ends at 0.4 s: Invalid data found",)
    assert video_numbers(tmp_path / "o.mp4") == list(range(50))


# ---- places that cannot be written


@pytest.mark.skipif(os.name == "nt", reason="POSIX limits")
@pytest.mark.parametrize("room", [200, 3000])
def test_a_full_disk_is_one_line_and_leaves_the_closed_segments(tmp_path, room):
    resource = pytest.importorskip("resource")
    noise = np.random.default_rng(0).integers(0, 255, (40, 48, 64, 3), np.uint8)
    video = write(tmp_path / "a.mp4", range(16))
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (room, hard))
    try:
        with pytest.raises(OutputError, match=r"cannot write .*: File too large") as caught:  # noqa: PT012
            for number in range(16, 40):
                video.append(noise[number], number)
        assert "make room" in caught.value.hint
        video.close()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert video.frames == 16
    assert not list(tmp_path.glob(".*"))
    assert not (tmp_path / "a.mp4").exists() or video_numbers(tmp_path / "a.mp4")
    names = sorted(path.name for path in (tmp_path / "a.resume").iterdir())
    assert [name[:24] for name in names] == ["frames_00000000_00000008", "frames_00000008_00000016"]
    write(tmp_path / "a.mp4", range(16, 20), resume=16).finish()
    assert video_numbers(tmp_path / "a.mp4") == list(range(20))


@pytest.mark.skipif(os.name == "nt", reason="POSIX limits")
def test_a_disk_that_is_full_when_joining_leaves_nothing_half_written(tmp_path):
    resource = pytest.importorskip("resource")
    video = write(tmp_path / "a.mp4", range(200))
    video.append(numbered_picture(200), 200)
    largest = max(path.stat().st_size for path in (tmp_path / "a.resume").iterdir())
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (largest + 3000, hard))
    try:
        with pytest.raises(OutputError, match=r"cannot write .*: File too large"):
            video.finish()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert [path.name for path in tmp_path.iterdir()] == ["a.resume"]
    assert write(tmp_path / "a.mp4", [], resume=201).finish().frames == 201


def test_a_folder_removed_meanwhile_is_one_line(tmp_path):
    video = write(tmp_path / "a.mp4", range(12))
    for path in (tmp_path / "a.resume").iterdir():
        path.unlink()
    (tmp_path / "a.resume").rmdir()
    with pytest.raises(OutputError, match="No such file or directory") as caught:  # noqa: PT012
        for number in range(12, 20):
            video.append(numbered_picture(number), number)
    assert "must stay in place" in caught.value.hint
    video.close()


def test_a_removed_folder_of_pictures_is_one_line(tmp_path):
    video = write(tmp_path / "a", [], settings=VideoSettings("png"))
    (tmp_path / "a").rmdir()
    with pytest.raises(OutputError, match="the folder was removed during the run"):
        video.append(numbered_picture(0), 0)


def test_a_place_that_is_no_folder_is_one_line(tmp_path):
    (tmp_path / "a.resume").write_text("in the way")
    with pytest.raises(OutputError, match=r"cannot write '.*a\.resume'"):
        write(tmp_path / "a.mp4", range(2))


# ---- settings


@pytest.mark.parametrize(
    ("settings", "message", "hint"),
    [
        ({"codec": "h265"}, "video codec 'h265' is not known, expected one of h264, hevc", "h264"),
        ({"quality": 52}, "--quality 52 is outside 0 to 51, the scale of h264", "20 is usual"),
        ({"quality": -1}, "--quality -1 is outside 0 to 51", "less is better"),
        (
            {"codec": "prores", "quality": 3},
            "means nothing to --video-codec prores",
            "leave --quality",
        ),
    ],
)
def test_settings_that_make_no_sense(settings, message, hint):
    with pytest.raises(UsageError, match=message) as caught:
        VideoSettings(**settings)
    assert hint in caught.value.hint


def test_an_encoder_that_is_missing_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(hrnet_cli.sinks.encoding.av, "codecs_available", {"libx264"})
    with pytest.raises(UsageError, match="--video-codec hevc needs the encoder libx265") as caught:
        write(tmp_path / "a.mp4", [], settings=VideoSettings("hevc"))
    assert caught.value.hint == "use --video-codec h264"


def test_a_size_the_encoder_refuses_is_one_line(tmp_path):
    with pytest.raises(OutputError, match="FFmpeg says"):
        write(tmp_path / "a.mp4", [0], size_wh=(20_000, 2))


# ---- whole way


@pytest.mark.parametrize("matrix", [videos.TURNED_90, videos.TURNED_180, videos.TURNED_270])
def test_rotated_sources_come_out_upright_without_rotation_data(tmp_path, matrix):
    stored = SIZE_WH if matrix == videos.TURNED_180 else SIZE_WH[::-1]
    source = write_video(
        tmp_path / "s.mp4", 10, size_wh=stored, picture=videos.stored_for(matrix), audio="aac"
    )
    copy_with_sound(videos.set_display_matrix(source, matrix), tmp_path / "o.mp4")
    assert video_numbers(tmp_path / "o.mp4") == list(range(10))
    (first, *_) = open_video("o", tmp_path / "o.mp4", "o", Span()).frames()
    assert (first.rotation, first.size_wh) == (0, SIZE_WH)


def test_ten_bits_and_variable_rate_come_out_playable(tmp_path):
    pts = [0, 33, 70, 100, 101, 500, 533, 570, 600, 640]
    source = write_video(
        tmp_path / "s.mkv", 10, pts=pts, time_base=Fraction(1, 1000), pix_fmt="yuv420p10le"
    )
    copy_with_sound(source, tmp_path / "o.mp4")
    assert video_times(tmp_path / "o.mp4") == (Fraction(1, 1000), pts)
    assert video_numbers(tmp_path / "o.mp4") == list(range(10))
