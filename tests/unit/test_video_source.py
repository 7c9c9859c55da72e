import os
import socket
import threading
from contextlib import suppress
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

import videos
from hrnet_cli.errors import InputError
from hrnet_cli.sources import Span, VideoSource
from hrnet_cli.sources import video as video_module
from hrnet_cli.sources.decoding import Clock, Converter, Turn, fit_into
from hrnet_cli.sources.video import open_video
from videos import number_in, write_video

WHOLE = Span()


def opened(path: Path, span: Span = WHOLE, **options) -> VideoSource:
    return open_video(str(path), path, path.name, span, **options)


def numbers(path: Path, span: Span = WHOLE, skip: int = 0) -> list[int]:
    return [number_in(frame.image_HW3) for frame in opened(path, span).frames(skip=skip)]


def packets_of(path: Path) -> list[tuple[int, int]]:
    with av.open(str(path)) as container:
        return [(p.pos, p.size) for p in container.demux(video=0) if p.size]


def spoil(path: Path, *which: int) -> Path:
    """Overwrite whole packets with bytes that no decoder understands."""
    packets = packets_of(path)
    data = bytearray(path.read_bytes())
    for number in which:
        position, size = packets[number]
        data[position : position + size] = b"\xff" * size
    path.write_bytes(data)
    return path


def test_frames_come_in_order_with_their_times(tmp_path):
    path = write_video(tmp_path / "a.mp4", 12, options={"bf": "2"}, audio="aac")
    source = opened(path)
    frames = list(source.frames())
    assert [number_in(frame.image_HW3) for frame in frames] == list(range(12))
    assert [frame.index for frame in frames] == list(range(12))
    assert [frame.time_s for frame in frames] == [n / 25 for n in range(12)]
    assert [frame.pts for frame in frames] == list(range(12))
    assert {frame.time_base for frame in frames} == {Fraction(1, 25)}
    assert {frame.source for frame in frames} == {str(path)}
    info = source.info
    assert (info.size_wh, info.rate, info.frames, info.codec) == ((64, 48), 25, 12, "h264")
    assert info.has_audio
    assert not info.live
    assert source.damage == video_module.Damage()


def test_frames_can_be_read_again_and_closing_ends_them(tmp_path):
    source = opened(write_video(tmp_path / "a.mp4", 6))
    assert len(list(source.frames())) == len(list(source.frames())) == 6
    frames = source.frames()
    next(frames)
    source.close()
    source.close()
    assert list(frames) == []


@pytest.mark.parametrize(
    ("matrix", "rotation"),
    [
        (videos.UPRIGHT, 0),
        (videos.TURNED_90, 90),
        (videos.TURNED_180, 180),
        (videos.TURNED_270, 270),
        (videos.MIRRORED, 0),
    ],
)
@pytest.mark.parametrize("size_wh", [(64, 48), (62, 46)])
def test_rotated_videos_are_upright_and_say_by_how_much(tmp_path, matrix, rotation, size_wh):
    stored_wh = size_wh[::-1] if rotation in (90, 270) else size_wh
    picture = videos.stored_for(matrix, size_wh)
    path = write_video(tmp_path / "r.mp4", 3, size_wh=stored_wh, picture=picture)
    source = opened(videos.set_display_matrix(path, matrix))
    frames = list(source.frames())
    assert [number_in(frame.image_HW3) for frame in frames] == [0, 1, 2]
    assert {frame.size_wh for frame in frames} == {size_wh} == {source.info.size_wh}
    assert {frame.rotation for frame in frames} == {rotation} == {source.info.rotation}


def test_variable_frame_rate_is_kept(tmp_path):
    pts = [0, 40, 100, 101, 1400, 1440]
    path = write_video(tmp_path / "v.mkv", 6, pts=pts, time_base=Fraction(1, 1000))
    frames = list(opened(path).frames())
    assert [frame.pts for frame in frames] == pts
    assert [frame.time_s for frame in frames] == [p / 1000 for p in pts]
    assert frames[0].time_base == Fraction(1, 1000)


def test_times_count_from_the_first_frame_when_the_file_starts_later(tmp_path):
    path = write_video(tmp_path / "t.ts", 5, rate=Fraction(30000, 1001), audio="aac")
    frames = list(opened(path).frames())
    assert frames[0].pts > 0
    assert [frame.time_s for frame in frames] == pytest.approx([n * 1001 / 30000 for n in range(5)])
    assert frames[0].time_s == 0


@pytest.mark.parametrize("codec", ["libx264", "libx265", "mpeg4"])
@pytest.mark.parametrize(
    ("span", "expected"),
    [
        (Span(), range(60)),
        (Span(start_s=1.0), range(25, 60)),
        (Span(start_s=0.5, end_s=1.0), range(13, 25)),
        (Span(every=7), range(0, 60, 7)),
        (Span(start_s=1.5, every=4, max_frames=3), [38, 42, 46]),
        (Span(max_frames=5), range(5)),
        (Span(end_s=99), range(60)),
    ],
)
def test_spans_pick_the_same_frames_as_reading_all(tmp_path, codec, span, expected):
    options = {"x265-params": "log-level=none:keyint=10:bframes=3"} if codec == "libx265" else {}
    path = write_video(tmp_path / "s.mp4", 60, codec=codec, gop=10, options=options | {"bf": "2"})
    source = opened(path, span)
    found = list(source.frames())
    assert [frame.index for frame in found] == list(expected)
    assert [number_in(frame.image_HW3) for frame in found] == list(expected)
    assert source.info.frames == len(expected)
    pictures = {frame.index: frame.image_HW3 for frame in opened(path).frames()}
    assert all(np.array_equal(frame.image_HW3, pictures[frame.index]) for frame in found)


def test_a_late_start_decodes_from_a_key_frame(tmp_path, monkeypatch):
    path = write_video(tmp_path / "s.mp4", 60, gop=10, options={"bf": "2"})
    starts = []
    decode = video_module._Decoding._decode

    def counted(self, decoder, packet):
        starts.append(packet)
        return decode(self, decoder, packet)

    source = opened(path, Span(start_s=2.2))
    monkeypatch.setattr(video_module._Decoding, "_decode", counted)
    assert [frame.index for frame in source.frames()] == list(range(55, 60))
    assert len(starts) <= 12  # the last group of ten, and the end


def test_a_start_in_a_format_without_sure_numbers_decodes_from_the_beginning(tmp_path):
    path = write_video(tmp_path / "s.avi", 30, codec="mpeg4")
    assert numbers(path, Span(start_s=0.8)) == list(range(20, 30))


@pytest.mark.parametrize("skip", [0, 1, 7, 13, 99])
@pytest.mark.parametrize("span", [Span(), Span(start_s=0.6, every=2), Span(max_frames=9)])
def test_skipping_gives_the_same_frames_less_the_first(tmp_path, skip, span, monkeypatch):
    path = write_video(tmp_path / "s.mp4", 40)
    whole = list(opened(path, span).frames())
    converted = []
    to_rgb = video_module.Converter.to_rgb
    monkeypatch.setattr(
        video_module.Converter, "to_rgb", lambda self, f: converted.append(f) or to_rgb(self, f)
    )
    rest = list(opened(path, span).frames(skip=skip))
    assert [(f.index, f.pts, f.time_s) for f in rest] == [
        (f.index, f.pts, f.time_s) for f in whole[skip:]
    ]
    assert all(
        np.array_equal(a.image_HW3, b.image_HW3) for a, b in zip(rest, whole[skip:], strict=True)
    )
    assert len(converted) == len(rest)


def test_a_span_behind_the_end_is_an_error(tmp_path):
    path = write_video(tmp_path / "a.mp4", 5)
    with pytest.raises(InputError, match=r"no frame in the wanted span, from 7 s to 9 s"):
        list(opened(path, Span(start_s=7, end_s=9)).frames())


@pytest.mark.parametrize(
    "how",
    [
        {"colorspace": 1},
        {"colorspace": 5},
        {"colorspace": 1, "full_range": True},
        {"pix_fmt": "yuvj420p", "full_range": True, "colorspace": 5},
        {"pix_fmt": "yuv420p10le", "colorspace": 1},
        {"pix_fmt": "yuv444p", "colorspace": 1},
        {"pix_fmt": "gray"},
    ],
    ids=str,
)
def test_colours_come_out_as_they_went_in(tmp_path, how):
    colour = (90, 90, 90) if how.get("pix_fmt") == "gray" else (200, 40, 90)
    picture = np.full((48, 64, 3), colour, np.uint8)
    path = write_video(tmp_path / "c.mp4", 1, picture=lambda _: picture, **how)
    (frame,) = opened(path).frames()
    # 8-bit limited range YCbCr is about 1.2 levels coarse; the wrong matrix is off by 15 and more.
    assert np.abs(frame.image_HW3.astype(int) - picture).max() <= 5


def test_untagged_colours_are_those_of_high_definition_above_576_lines(tmp_path):
    def read(height: int) -> np.ndarray:
        picture = np.full((height, 64, 3), (200, 40, 90), np.uint8)
        path = write_video(
            tmp_path / f"{height}.mp4", 1, size_wh=(64, height), picture=lambda _: picture,
            colorspace=5 if height <= 576 else 1, codec="mpeg4", options={"qmin": "1", "qmax": "1"},
        )  # fmt: skip
        (frame,) = opened(path).frames()
        return np.abs(frame.image_HW3.astype(int) - picture).max()

    assert read(576) <= 6
    assert read(720) <= 6


def test_odd_sizes_and_10_bit(tmp_path):
    path = write_video(tmp_path / "o.mkv", 4, size_wh=(65, 49), pix_fmt="yuv444p10le", codec="ffv1")
    frames = list(opened(path).frames())
    assert [number_in(frame.image_HW3) for frame in frames] == [0, 1, 2, 3]
    assert frames[0].size_wh == (65, 49)
    assert frames[0].image_HW3.flags.c_contiguous


def test_interlaced_video_gives_one_picture_a_frame(tmp_path):
    path = write_video(tmp_path / "i.mp4", 6, options={"x264-params": "interlaced=1"})
    assert numbers(path) == list(range(6))


def test_pixels_that_are_not_square_are_named_and_left(tmp_path):
    path = write_video(tmp_path / "p.mp4", 2, pixel_aspect=Fraction(4, 3))
    source = opened(path)
    assert (source.info.pixel_aspect, source.info.size_wh) == (Fraction(4, 3), (64, 48))
    assert {frame.pixel_aspect for frame in source.frames()} == {Fraction(4, 3)}
    turned = opened(videos.set_display_matrix(path, videos.TURNED_90))
    assert (turned.info.pixel_aspect, turned.info.size_wh) == (Fraction(3, 4), (48, 64))


def test_frames_without_timestamps_get_those_of_the_rate(tmp_path):
    source = opened(write_video(tmp_path / "raw.264", 6, format="h264"))
    frames = list(source.frames())
    assert [frame.time_s for frame in frames] == pytest.approx([n / 25 for n in range(6)])
    assert source.damage.guessed_times == 6


def test_clock_goes_on_after_a_jump_back_and_over_a_single_bad_time():
    clock = Clock(Fraction(1, 100), Fraction(25))
    assert [clock.next(pts) for pts in (0, 4, 3, 8, None, 16)] == [0, 4, 6, 8, 12, 16]
    assert clock.guessed == 2
    clock = Clock(Fraction(1, 100), Fraction(25))
    assert [clock.next(pts) for pts in (500, 504, 0, 4, 8)] == [500, 504, 508, 512, 516]
    assert clock.guessed == 1


def test_threads_give_the_same_pictures_as_one(tmp_path):
    path = write_video(tmp_path / "t.mp4", 40, size_wh=(128, 96), options={"bf": "2"})
    frames = [frame.image_HW3 for frame in opened(path).frames()]
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        stream.codec_context.thread_count = 1
        stream.codec_context.thread_type = "NONE"
        alone = [Converter(Turn(), (128, 96)).to_rgb(f) for f in container.decode(stream)]
    assert len(frames) == len(alone) == 40
    assert all(np.array_equal(a, b) for a, b in zip(frames, alone, strict=True))


def test_reading_goes_on_after_a_hole_in_a_matroska_file(tmp_path):
    path = write_video(tmp_path / "b.mkv", 60, gop=1)
    position, size = packets_of(path)[20]
    data = bytearray(path.read_bytes())
    data[position - 10 : position + size] = b"\xff" * (size + 10)
    path.write_bytes(data)
    source = opened(path)
    found = [number_in(frame.image_HW3) for frame in source.frames()]
    # FFmpeg looks for the next intact piece by itself, and does not say that it did.
    assert found == [*range(20), *range(found[20], 60)]


@pytest.mark.parametrize("broken", [[0], [12], [12, 13], [28], [29], [27, 29]])
def test_broken_packets_of_h264_end_nothing(tmp_path, broken):
    path = spoil(write_video(tmp_path / "b.mp4", 30, gop=1), *broken)
    source = opened(path)
    found = [number_in(frame.image_HW3) for frame in source.frames()]
    assert found == [n for n in range(30) if n not in broken]
    assert source.damage.broken_packets == len(broken)
    assert source.damage.ended_early == ""


def test_broken_reference_frames_are_counted_and_order_is_kept(tmp_path):
    path = spoil(write_video(tmp_path / "b.mp4", 40, gop=10, options={"bf": "2"}), 14)
    source = opened(path)
    times = [frame.pts for frame in source.frames()]
    assert times == sorted(set(times))
    assert len(times) >= 30
    assert times[-1] == 39
    assert source.damage.broken_packets >= 1


def test_damage_is_counted_anew_for_each_reading(tmp_path):
    source = opened(spoil(write_video(tmp_path / "b.mp4", 20, gop=1), 5))
    for _ in range(2):
        assert len(list(source.frames())) == 19
        assert source.damage.broken_packets == 1


def test_truncated_mp4_gives_what_is_left_and_says_so(tmp_path):
    path = write_video(
        tmp_path / "t.mp4", 40, gop=1,
        container_options={"movflags": "faststart", "video_track_timescale": "25"},
    )  # fmt: skip
    position, size = packets_of(path)[25]
    path.write_bytes(path.read_bytes()[: position + size // 2])
    source = opened(path)
    found = [number_in(frame.image_HW3) for frame in source.frames()]
    assert found[:25] == list(range(25))
    assert len(found) in (25, 26)  # the decoder may make something of half a picture
    assert "of 40 frames" in source.damage.ended_early


def test_truncated_mkv_gives_what_is_left_and_says_so(tmp_path):
    path = write_video(tmp_path / "t.mkv", 100, gop=1)
    position, _ = packets_of(path)[50]
    path.write_bytes(path.read_bytes()[:position])
    source = opened(path)
    found = [number_in(frame.image_HW3) for frame in source.frames()]
    assert found == list(range(len(found)))
    assert 48 <= len(found) <= 50
    assert source.damage.ended_early == f"the file ends after {len(found) / 25:.1f} of 4.0 s"


def test_a_span_that_ends_sooner_is_no_early_end(tmp_path):
    source = opened(write_video(tmp_path / "t.mp4", 40), Span(max_frames=4))
    assert len(list(source.frames())) == 4
    assert source.damage.ended_early == ""


def test_a_size_that_changes_is_fitted_into_the_first(tmp_path):
    first = write_video(tmp_path / "1.264", 3, format="h264")
    second = write_video(
        tmp_path / "2.264", 3, format="h264", size_wh=(64, 96),
        picture=lambda n: videos.numbered_picture(n + 3, (64, 96)),
    )  # fmt: skip
    path = tmp_path / "both.264"
    path.write_bytes(first.read_bytes() + second.read_bytes())
    source = opened(path)
    frames = list(source.frames())
    assert {frame.size_wh for frame in frames} == {(64, 48)}
    assert [number_in(frame.image_HW3) for frame in frames[:3]] == [0, 1, 2]
    inner = [frame.image_HW3[:, 16:48] for frame in frames[3:]]
    assert [number_in(image) for image in inner] == [3, 4, 5]
    assert not frames[3].image_HW3[:, :15].any()
    assert source.damage.resized == 3


def test_fitting_keeps_the_shape():
    fitted = fit_into(np.full((10, 40, 3), 255, np.uint8), (20, 20))
    assert fitted.shape == (20, 20, 3)
    assert (fitted[:, :, 0].any(axis=1).sum(), fitted[:, :, 0].any(axis=0).sum()) == (5, 20)


def test_suffix_does_not_matter(tmp_path):
    path = write_video(tmp_path / "a.mkv", 4).rename(tmp_path / "a.mp4")
    assert numbers(path) == [0, 1, 2, 3]


def test_expected_frames_of_a_file_that_does_not_say(tmp_path):
    path = write_video(tmp_path / "a.mkv", 30)
    assert opened(path).info.frames == 30
    assert opened(path, Span(start_s=0.4, every=3)).info.frames == 7


def test_expected_frames_of_a_large_file_come_from_length_and_rate(tmp_path, monkeypatch):
    monkeypatch.setattr(video_module, "_COUNTED_BYTES", 0)
    assert opened(write_video(tmp_path / "a.mkv", 30)).info.frames == 30


def _write_text(path: Path) -> None:
    path.write_text("these are the minutes of a meeting\n" * 100)


def _write_moov_less(path: Path) -> None:
    write_video(path, 20)
    path.write_bytes(path.read_bytes()[:2000])


def _write_unknown_codec(path: Path) -> None:
    write_video(path, 5)
    path.write_bytes(path.read_bytes().replace(b"avc1", b"zzz9").replace(b"avcC", b"zzzC"))


def _write_sound(path: Path) -> None:
    with av.open(str(path), "w") as out:
        stream = out.add_stream("aac", rate=48000)
        stream.codec_context.layout = "stereo"
        for chunk in videos.tone(0.2):
            out.mux(stream.encode(chunk))
        out.mux(stream.encode(None))


def _write_no_frames(path: Path) -> None:
    write_video(path, 5, gop=1)
    spoil(path, *range(5))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (_write_text, "cannot be read as a video: Invalid data found"),
        (lambda path: path.write_bytes(b""), r"is empty \(0 bytes\)"),
        (_write_moov_less, "is truncated: the index at its end is missing after 2,000 bytes"),
        (_write_unknown_codec, "FFmpeg cannot decode"),
        (_write_sound, "has no moving pictures, only sound"),
        (_write_no_frames, "has no frame that can be decoded, of 5 announced"),
        (lambda path: path.mkdir(), "is a folder"),
        (lambda path: None, "cannot be opened: No such file or directory"),
    ],
)
def test_what_is_no_video_is_one_clear_error(tmp_path, make, message):
    path = tmp_path / "x.mp4"
    make(path)
    with pytest.raises(InputError, match=message) as caught:
        opened(path)
    assert str(path) in caught.value.message
    assert "\n" not in caught.value.message


def test_a_play_list_under_a_videos_name_asks_no_server(tmp_path):
    asked = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as server:

        def wait() -> None:
            with suppress(OSError):
                server.accept()[0].close()
                asked.set()

        threading.Thread(target=wait, daemon=True).start()
        path = tmp_path / "x.mp4"
        address = f"http://127.0.0.1:{server.getsockname()[1]}/piece.ts"
        path.write_text(
            f"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\n{address}\n#EXT-X-ENDLIST\n"
        )
        with pytest.raises(InputError, match=r"x\.mp4"):
            opened(path)
        assert not asked.is_set()


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="needs a user without all rights")
def test_a_file_without_permission(tmp_path):
    path = write_video(tmp_path / "a.mp4", 2)
    path.chmod(0)
    with pytest.raises(InputError, match="cannot be opened: Permission denied"):
        opened(path)


def test_too_many_pixels_are_refused_before_decoding(tmp_path, monkeypatch):
    path = write_video(tmp_path / "a.mp4", 2)
    monkeypatch.setattr(video_module, "_Decoding", None)
    with pytest.raises(InputError, match=r"64x48, 3,072 pixels a frame; the limit is 3,000"):
        opened(path, max_pixels=3000)


def test_names_that_look_like_addresses_are_files(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_video(tmp_path / "a.mp4", 2).rename(tmp_path / "pipe:0")
    assert numbers(Path("pipe:0")) == [0, 1]
