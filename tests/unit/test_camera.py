import os
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace

import av
import numpy as np
import pytest

from hrnet_cli.errors import InputError
from hrnet_cli.images import encode_image
from hrnet_cli.sources import Span
from hrnet_cli.sources import camera as camera_module
from hrnet_cli.sources.camera import Patience, open_camera
from videos import number_in, numbered_picture, write_video

# Where nothing stalls the stall time does not matter, and is long for busy machines.
QUICK = Patience(stall_s=20, attempts=2, pause_s=0.01)
STALLS = Patience(stall_s=1.0, attempts=1, pause_s=0.01)
Answer = Callable[[BaseHTTPRequestHandler, int], None]


class Server:
    """Answers requests on this machine as a test wants; counts them."""

    def __init__(self, answer: Answer) -> None:
        self.requests = 0
        self.release = threading.Event()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                number = outer.requests
                outer.requests += 1
                with suppress(BrokenPipeError, ConnectionResetError):
                    answer(self, number)
                self.close_connection = True

            def log_message(self, *args):
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"

    def close(self) -> None:
        self.release.set()
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture
def serve():
    servers = []

    def start(answer: Answer) -> Server:
        servers.append(Server(answer))
        return servers[-1]

    yield start
    for server in servers:
        server.close()


def head(request: BaseHTTPRequestHandler, length: int | None, status: int = 200) -> None:
    request.send_response(status)
    if length is not None:
        request.send_header("Content-Length", str(length))
    request.end_headers()


def clip(tmp_path: Path, name: str = "c.mp4", frames: int = 30) -> bytes:
    """Return the bytes of a numbered clip that can be played while it comes."""
    options = {"movflags": "faststart", "video_track_timescale": "25"}
    path = write_video(
        tmp_path / name, frames, gop=5, container_options=options if name.endswith("mp4") else {}
    )
    return path.read_bytes()


def numbers(source) -> list[int]:
    return [number_in(frame.image_HW3) for frame in source.frames()]


def test_a_recording_on_a_server_is_read_whole(tmp_path, serve):
    data = clip(tmp_path)

    def answer(request, number):
        head(request, len(data))
        request.wfile.write(data)

    server = serve(answer)
    source = open_camera(f"{server.url}/c.mp4", "c", Span(), patience=QUICK)
    assert (source.info.live, source.info.size_wh, source.info.codec) == (True, (64, 48), "h264")
    frames = list(source.frames())
    assert [number_in(frame.image_HW3) for frame in frames] == list(range(30))
    assert [frame.index for frame in frames] == list(range(30))
    assert [frame.time_s for frame in frames] == pytest.approx([n / 25 for n in range(30)])
    assert {frame.source for frame in frames} == {f"{server.url}/c.mp4"}
    assert (source.damage.reconnects, source.damage.dropped, source.damage.ended_early) == (
        0,
        0,
        "",
    )
    source.close()
    source.close()


def test_spans_hold_for_streams(tmp_path, serve):
    data = clip(tmp_path)

    def answer(request, number):
        head(request, len(data))
        request.wfile.write(data)

    source = open_camera(serve(answer).url, "c", Span(0.2, 1.0, 3, 4), patience=QUICK)
    frames = list(source.frames(skip=2))  # what is live goes on where it is
    assert [frame.index for frame in frames] == [5, 8, 11, 14]
    source.close()


def test_a_recording_of_which_a_part_is_wanted_did_not_end_early(tmp_path, serve):
    data = clip(tmp_path, frames=75)

    def answer(request, number):
        head(request, len(data))
        request.wfile.write(data)

    for span in (Span(max_frames=2), Span(end_s=0.1)):
        source = open_camera(serve(answer).url, "c", span, patience=QUICK)
        assert 2 <= len(list(source.frames())) <= 3
        source.close()
        source._reader._thread.join(20)
        assert source.damage.ended_early == ""


def test_a_recording_that_breaks_off_goes_on_where_it_was(tmp_path, serve):
    data = clip(tmp_path)

    def answer(request, number):
        head(request, len(data))
        # The first connections end in the middle of the pictures.
        request.wfile.write(data[: len(data) * (number + 2) // 4] if number < 2 else data)

    source = open_camera(serve(answer).url, "c", Span(), patience=QUICK)
    frames = list(source.frames())
    found = [frame.pts for frame in frames]
    assert found == sorted(set(found))
    assert len(frames) >= 28  # a picture cut in half may come out or not
    assert [number_in(frame.image_HW3) for frame in frames[-5:]] == list(range(25, 30))
    assert source.damage.reconnects == 2
    assert source.damage.ended_early == ""


def test_a_stream_that_stalls_is_given_up_and_its_frames_are_there(tmp_path, serve):
    data = clip(tmp_path, "c.ts")

    def answer(request, number):
        head(request, len(data))
        request.wfile.write(data[: len(data) // 2] if number == 0 else b"")
        request.wfile.flush()
        server.release.wait(20)

    server = serve(answer)
    source = open_camera(server.url, "c", Span(), patience=STALLS)
    found = numbers(source)
    assert found == list(range(len(found)))
    assert 8 <= len(found) < 30
    assert source.damage.reconnects == 1
    assert source.damage.ended_early == f"stream '{server.url}': nothing came for 1 s"


def test_a_live_stream_goes_on_by_the_clock_after_a_cut(tmp_path, serve, monkeypatch):
    monkeypatch.setattr(camera_module, "_KEPT", 1000)
    first, second = clip(tmp_path, "a.ts", 10), clip(tmp_path, "b.ts", 12)

    def answer(request, number):
        if number >= 2:
            head(request, 0, 503)
            return
        head(request, None)
        request.wfile.write((first, second)[number])

    source = open_camera(serve(answer).url, "c", Span(), patience=QUICK)
    frames = list(source.frames())
    assert [number_in(frame.image_HW3) for frame in frames] == [*range(10), *range(12)]
    assert [frame.index for frame in frames] == list(range(22))
    times = [frame.pts for frame in frames]
    assert times == sorted(set(times))
    # The second connection starts its own times anew; here they go on.
    assert frames[10].time_s > frames[9].time_s
    steps = np.diff([frame.time_s for frame in frames[10:]])
    assert steps == pytest.approx([0.04] * 11, abs=1e-4)
    assert source.damage.reconnects == 3
    assert "Server returned 5XX Server Error reply" in source.damage.ended_early


def test_a_live_stream_that_comes_back_without_pictures_is_tried_again_and_given_up(
    tmp_path, serve, monkeypatch
):
    monkeypatch.setattr(camera_module, "_KEPT", 1000)
    pictures, silence = clip(tmp_path, "a.ts", 10), sound(tmp_path / "s.mp3")

    def answer(request, number):
        head(request, None)
        request.wfile.write(silence if number else pictures)

    source = open_camera(serve(answer).url, "c", Span(), patience=QUICK)
    assert numbers(source) == list(range(10))
    assert source.damage.reconnects == QUICK.attempts
    assert "has no moving pictures that can be decoded" in source.damage.ended_early


def test_live_frames_that_bear_no_times_have_those_they_come_at(serve, monkeypatch):
    monkeypatch.setattr(camera_module, "_KEPT", 1000)
    picture = encode_image(numbered_picture(5), ".jpg")

    def answer(request, number):
        if number:
            head(request, 0, 404)
            return
        request.send_response(200)
        request.send_header("Content-Type", "multipart/x-mixed-replace; boundary=f")
        request.end_headers()
        for _ in range(6):
            length = f"Content-Length: {len(picture)}"
            request.wfile.write(f"--f\r\nContent-Type: image/jpeg\r\n{length}\r\n\r\n".encode())
            request.wfile.write(picture + b"\r\n")
            time.sleep(0.1)

    source = open_camera(serve(answer).url, "c", Span(), patience=Patience(20, 0, 0.01))
    frames = list(source.frames())
    times = [frame.time_s for frame in frames]
    assert len(times) >= 5
    assert times[0] == 0
    # By FFmpeg's 25 a second it would be 0.04 each; FFmpeg looks at the first two before the rest.
    assert times[-1] - times[1] > 0.06 * (len(times) - 2)
    assert source.info.rate is None
    assert source.damage.guessed_times == 0


def test_of_a_live_stream_the_newest_frames_count(tmp_path, serve):
    data = clip(tmp_path, "a.ts", 30)

    def answer(request, number):
        head(request, None if number == 0 else 0, 200 if number == 0 else 404)
        request.wfile.write(data if number == 0 else b"")

    source = open_camera(serve(answer).url, "c", Span(), patience=Patience(20, 0, 0.01))
    frames = source.frames()
    taken = [next(frames)]
    source._reader._thread.join(20)  # all have come before the second one is taken
    taken.extend(frames)
    assert len(taken) + source.damage.dropped == 30
    assert [number_in(frame.image_HW3) for frame in taken[-4:]] == [26, 27, 28, 29]
    assert [frame.index for frame in taken[-4:]] == [26, 27, 28, 29]
    assert len(taken) <= 9


def test_closing_ends_a_waiting_reader(tmp_path, serve):
    data = clip(tmp_path, "c.ts")

    def answer(request, number):
        head(request, None)
        request.wfile.write(data)
        request.wfile.flush()
        server.release.wait(20)

    server = serve(answer)
    source = open_camera(server.url, "c", Span(), patience=Patience(stall_s=20))
    frames = source.frames()
    next(frames)
    threading.Timer(0.05, source.close).start()
    assert len(list(frames)) < 30


def test_a_stream_can_be_closed_unread(tmp_path, serve):
    data = clip(tmp_path)

    def answer(request, number):
        head(request, len(data))
        request.wfile.write(data)

    source = open_camera(serve(answer).url, "c", Span(), patience=QUICK)
    source.close()
    source.close()


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (lambda request, _: head(request, 0, 404), "cannot be opened: Server returned 404"),
        (lambda request, _: (head(request, 5), request.wfile.write(b"hello")), "cannot be opened"),
    ],
)
def test_a_stream_that_cannot_be_opened_is_one_line(serve, answer, message):
    server = serve(answer)
    with pytest.raises(InputError, match=message) as caught:
        open_camera(server.url, "c", Span(), patience=QUICK)
    assert f"stream '{server.url}'" in caught.value.message
    assert "\n" not in caught.value.message
    assert "check the address" in caught.value.hint


def test_a_server_that_does_not_answer_is_one_line(serve):
    server = serve(lambda request, _: server.release.wait(20))
    with pytest.raises(InputError, match=r"cannot be opened: nothing came for 1 s"):
        open_camera(server.url, "c", Span(), patience=STALLS)


def test_a_server_that_is_not_there_is_one_line():
    with pytest.raises(InputError, match="cannot be opened: Connection refused"):
        open_camera("http://127.0.0.1:9/c.mp4", "c", Span(), patience=QUICK)


def test_too_large_a_stream_is_refused(tmp_path, serve):
    data = clip(tmp_path)

    def answer(request, number):
        head(request, len(data))
        request.wfile.write(data)

    with pytest.raises(InputError, match=r"64x48, 3,072 pixels a frame; the limit is 3,000"):
        open_camera(serve(answer).url, "c", Span(), max_pixels=3000, patience=QUICK)


def sound(path):
    """Write sound without pictures, and return its bytes."""
    with av.open(str(path), "w") as out:
        stream = out.add_stream("libmp3lame", rate=48000)
        silence = av.AudioFrame.from_ndarray(np.zeros((2, 9600), np.float32), "fltp", "stereo")
        silence.sample_rate, silence.pts = 48000, 0
        out.mux([*stream.encode(silence), *stream.encode(None)])
    return path.read_bytes()


def test_sound_alone_is_no_stream(tmp_path, serve):
    data = sound(tmp_path / "s.mp3")

    def answer(request, number):
        head(request, len(data))
        request.wfile.write(data)

    with pytest.raises(InputError, match="has no moving pictures that can be decoded"):
        open_camera(serve(answer).url, "c", Span(), patience=QUICK)


@pytest.mark.skipif(Path("/dev/video42").exists(), reason="this machine has very many cameras")
def test_a_missing_camera_is_one_line(monkeypatch):
    monkeypatch.setattr(camera_module.sys, "platform", "linux")
    with pytest.raises(InputError, match="camera 'camera:42' cannot be opened: ") as caught:
        open_camera("camera:42", "camera", Span(), patience=QUICK)
    assert "this machine has" in caught.value.hint
    assert "\n" not in caught.value.message


def fake_device(monkeypatch, tmp_path, path: Path | None = None):
    """Make every camera a file: what is read from it ends as when it is unplugged."""
    path = path or write_video(tmp_path / "cam.mkv", 6)
    opened = []
    av_open = av.open

    def open_file(file, **options):
        opened.append((file, options["format"]))
        return av_open(str(path))

    monkeypatch.setattr(camera_module.av, "open", open_file)
    return opened


@pytest.mark.parametrize(
    ("platform", "source", "expected"),
    [
        ("linux", "camera:2", ("/dev/video2", "v4l2")),
        ("linux", "camera:/dev/v4l/by-id/cam", ("/dev/v4l/by-id/cam", "v4l2")),
        ("linux", "Camera:", ("/dev/video0", "v4l2")),
        ("darwin", "camera:1", ("1", "avfoundation")),
        ("win32", "camera:1", ("video=Back", "dshow")),
        ("win32", "camera:Front", ("video=Front", "dshow")),
    ],
)
def test_cameras_are_opened_as_each_system_wants(tmp_path, monkeypatch, platform, source, expected):
    opened = fake_device(monkeypatch, tmp_path)
    monkeypatch.setattr(camera_module.sys, "platform", platform)
    devices = [("Mic", "audio"), ("Front", "video"), ("Back", "video")]
    monkeypatch.setattr(
        camera_module,
        "enumerate_input_devices",
        lambda _: [SimpleNamespace(name=name, media_types=[kind]) for name, kind in devices],
    )
    open_camera(source, "camera", Span()).close()
    assert opened == [expected]
    if platform == "win32":
        with pytest.raises(InputError, match="camera 'camera:5' is not there") as caught:
            open_camera("camera:5", "camera", Span())
        assert caught.value.hint == "this machine has camera:Front, camera:Back"


def test_a_camera_that_is_unplugged_ends_and_says_so(tmp_path, monkeypatch):
    monkeypatch.setattr(camera_module, "_KEPT", 1000)
    fake_device(monkeypatch, tmp_path)
    source = open_camera("camera:0", "camera", Span(), patience=QUICK)
    assert numbers(source) == list(range(6))
    assert source.damage.reconnects == 0
    assert source.damage.ended_early == "camera 'camera:0': it ended"


def test_a_camera_without_permission_says_what_to_do(monkeypatch):
    def refuse(file, **options):
        raise av.error.PermissionError(13, "Permission denied", file)

    monkeypatch.setattr(camera_module.av, "open", refuse)
    monkeypatch.setattr(camera_module.sys, "platform", "linux")
    with pytest.raises(InputError, match="cannot be opened: Permission denied") as caught:
        open_camera("camera:0", "camera", Span())
    assert "usermod" in caught.value.hint


def test_a_camera_that_gives_nothing_is_one_line(tmp_path, monkeypatch):
    path = write_video(tmp_path / "n.mp4", 3, gop=1)
    data = path.read_bytes()
    start = data.index(b"mdat") + 4
    path.write_bytes(
        data[:start]
        + b"\xff" * (data.index(b"moov") - start)
        + data[start:][data[start:].index(b"moov") :]
    )
    fake_device(monkeypatch, tmp_path, path)
    with pytest.raises(InputError, match="camera 'camera:0' ended before its first picture"):
        open_camera("camera:0", "camera", Span())


def test_a_play_list_is_followed(tmp_path, serve):
    pieces = {}
    for part in range(2):
        path = write_video(
            tmp_path / f"{part}.ts", 10, pts=range(10 * part, 10 * part + 10),
            picture=lambda n, part=part: numbered_picture(n + 10 * part),
        )  # fmt: skip
        pieces[f"/{part}.ts"] = path.read_bytes()
    lines = ["#EXTM3U", "#EXT-X-TARGETDURATION:1", "#EXTINF:0.4,", "0.ts", "#EXTINF:0.4,", "1.ts"]
    pieces["/live.m3u8"] = "\n".join([*lines, "#EXT-X-ENDLIST"]).encode()

    def answer(request, number):
        data = pieces[request.path]
        head(request, len(data))
        request.wfile.write(data)

    source = open_camera(f"{serve(answer).url}/live.m3u8", "c", Span(), patience=QUICK)
    assert numbers(source) == list(range(20))
    assert source.damage.ended_early == ""


@pytest.mark.skipif(not os.environ.get("HRNET_TEST_CAMERA"), reason="HRNET_TEST_CAMERA not set")
def test_a_real_camera():
    source = open_camera(os.environ["HRNET_TEST_CAMERA"], "camera", Span(max_frames=10))
    frames = list(source.frames())
    source.close()
    assert len(frames) == 10
