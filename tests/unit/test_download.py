"""Downloads against a server on this machine that resumes, cuts, lies, stalls or says no."""

import errno
import hashlib
import os
import socket
import subprocess
import sys
import textwrap
import threading
import time
from contextlib import closing
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace

import pytest

from hrnet_cli import download as module
from hrnet_cli.download import UnreachableError, copy_verified, download, file_sha256, hash_fits
from hrnet_cli.errors import ExitCode, InputError, OutputError, WeightsError

# Many chunks long, and every four of its bytes differ from all others.
BODY = b"".join(i.to_bytes(4, "little") for i in range(250_000))
SHA = hashlib.sha256(BODY).hexdigest()
OTHER = bytes(len(BODY))


class Server:
    """A web server whose paths each misbehave in one way; it records the requests it got."""

    def __init__(self):
        self.requests = []
        self.etag = '"one"'
        self.release = threading.Event()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *args):
                pass

            def do_GET(self):
                outer.requests.append((self.path, dict(self.headers)))
                getattr(outer, "serve_" + self.path.split("/")[1])(self)

        self.httpd = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.httpd.daemon_threads = True
        self.httpd.handle_error = lambda *args: None  # Clients that leave are the point here.
        self.base = f"http://127.0.0.1:{self.httpd.server_port}"
        threading.Thread(target=self.httpd.serve_forever, args=(0.02,), daemon=True).start()

    def close(self):
        self.release.set()
        self.httpd.shutdown()
        self.httpd.server_close()

    def url(self, way):
        return f"{self.base}/{way}/model.pth"

    def ranges(self, way):
        return [h.get("Range") for path, h in self.requests if path.startswith(f"/{way}/")]

    def answer(self, handler, body, *, ranges=True, send=None, kind="application/octet-stream"):
        asked = handler.headers.get("Range") if ranges else None
        start = int(asked.removeprefix("bytes=").rstrip("-")) if asked else 0
        if handler.headers.get("If-Range") not in (None, self.etag):
            start, asked = 0, None
        if start >= len(body):
            handler.send_response(416)
            handler.send_header("Content-Length", "0")
            handler.end_headers()
            return
        handler.send_response(206 if asked else 200)
        if asked:
            handler.send_header("Content-Range", f"bytes {start}-{len(body) - 1}/{len(body)}")
        handler.send_header("Content-Type", kind)
        handler.send_header("ETag", self.etag)
        handler.send_header("Content-Length", str(len(body) - start))
        handler.end_headers()
        handler.wfile.write(body[start:] if send is None else body[start : start + send])
        if send is not None:
            handler.wfile.flush()
            handler.connection.shutdown(socket.SHUT_RDWR)

    def serve_good(self, handler):
        self.answer(handler, BODY)

    def serve_norange(self, handler):
        self.answer(handler, BODY, ranges=False)

    def serve_cut(self, handler):
        self.answer(handler, BODY, send=300_000)

    def serve_cutonce(self, handler):
        first = len(self.ranges("cutonce")) == 1
        self.answer(handler, BODY, send=300_000 if first else None)

    def serve_changing(self, handler):
        first = len(self.ranges("changing")) == 1
        if first:
            self.answer(handler, OTHER, send=300_000)
            self.etag = '"two"'
        else:
            self.answer(handler, BODY)

    def serve_wrong(self, handler):
        self.answer(handler, OTHER)

    def serve_longer(self, handler):
        self.answer(handler, BODY + b"more")

    def serve_page(self, handler):
        self.answer(handler, b"<html>Please log in</html>", kind="text/html; charset=utf-8")

    def serve_missing(self, handler):
        handler.send_error(404)

    def serve_moved(self, handler):
        handler.send_response(302)
        handler.send_header("Location", self.url("good"))
        handler.send_header("Content-Length", "0")
        handler.end_headers()

    def serve_badrange(self, handler):
        if not handler.headers.get("Range"):
            self.answer(handler, BODY)
            return
        handler.send_response(206)
        handler.send_header("Content-Range", f"bytes 0-9/{len(BODY)}")
        handler.send_header("Content-Length", "10")
        handler.end_headers()
        handler.wfile.write(BODY[:10])

    def serve_silent(self, handler):
        self.release.wait(60)

    def serve_headers(self, handler):
        """Send the headers and then nothing."""
        handler.send_response(200)
        handler.send_header("Content-Length", str(len(BODY)))
        handler.end_headers()
        handler.wfile.flush()
        self.release.wait(60)

    def serve_stall(self, handler):
        handler.send_response(200)
        handler.send_header("Content-Length", str(len(BODY)))
        handler.end_headers()
        handler.wfile.write(BODY[:300_000])
        handler.wfile.flush()
        self.release.wait(60)

    def serve_slow(self, handler):
        """Send everything, in pieces, over about a second."""
        handler.send_response(200)
        handler.send_header("Content-Length", str(len(BODY)))
        handler.end_headers()
        for start in range(0, len(BODY), 50_000):
            handler.wfile.write(BODY[start : start + 50_000])
            handler.wfile.flush()
            time.sleep(0.05)


@pytest.fixture
def server(monkeypatch):
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    server = Server()
    yield server
    server.close()


@pytest.fixture
def target(tmp_path):
    return tmp_path / "cache" / "model.pth"


def left_behind(target):
    return sorted(path.name for path in target.parent.iterdir())


def first_byte(asked):
    return int(asked.removeprefix("bytes=").removesuffix("-"))


def silent_port():
    """Return a listening socket that never accepts: connections to it hang."""
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    listener.listen(1)
    return closing(listener)


def refused_url():
    with closing(socket.socket()) as free:
        free.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{free.getsockname()[1]}/model.pth"


# --- the ordinary course --------------------------------------------------------------------------


def test_a_file_arrives_with_progress_and_leaves_nothing_else(server, target):
    seen = []
    path = download(
        [server.url("good")],
        target,
        sha256=SHA,
        size_bytes=len(BODY),
        on_progress=lambda done, total: seen.append((done, total)),
    )
    assert path == target
    assert target.read_bytes() == BODY
    assert left_behind(target) == ["model.pth"]
    assert seen[0] == (0, len(BODY))
    assert seen[-1] == (len(BODY), len(BODY))
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)


def test_eight_digits_of_a_hash_are_enough(server, target):
    download([server.url("good")], target, sha256=SHA[:8])
    assert target.read_bytes() == BODY


@pytest.mark.parametrize(
    ("expected", "fits"), [(SHA, True), (SHA[:8], True), (SHA[:7], False), ("", False)]
)
def test_only_whole_hashes_and_their_first_eight_digits_fit(expected, fits):
    assert hash_fits(SHA, expected) is fits


def test_redirects_are_followed(server, target):
    download([server.url("moved")], target, sha256=SHA)
    assert target.read_bytes() == BODY


def test_an_existing_file_is_replaced_only_by_the_right_one(server, target):
    target.parent.mkdir()
    target.write_bytes(b"old")
    with pytest.raises(WeightsError):
        download([server.url("wrong")], target, sha256=SHA)
    assert target.read_bytes() == b"old"
    download([server.url("good")], target, sha256=SHA)
    assert target.read_bytes() == BODY


# --- resuming -------------------------------------------------------------------------------------


def test_an_earlier_part_is_continued(server, target):
    target.parent.mkdir()
    (target.parent / "model.pth.part").write_bytes(BODY[:400_000])
    seen = []
    download(
        [server.url("good")], target, sha256=SHA, on_progress=lambda done, _: seen.append(done)
    )
    assert target.read_bytes() == BODY
    assert server.ranges("good") == ["bytes=400000-"]
    assert seen[0] == 400_000


def test_a_server_without_ranges_sends_everything_again(server, target):
    target.parent.mkdir()
    (target.parent / "model.pth.part").write_bytes(BODY[:400_000])
    download([server.url("norange")], target, sha256=SHA)
    assert target.read_bytes() == BODY
    assert left_behind(target) == ["model.pth"]


def test_a_cut_connection_is_taken_up_again_with_the_etag(server, target):
    download([server.url("cutonce")], target, sha256=SHA)
    assert target.read_bytes() == BODY
    first, second = server.ranges("cutonce")
    assert first is None
    # Of the 300,000 bytes that came, at most the last, incomplete chunk is asked for again.
    assert 300_000 - module.CHUNK_BYTES <= first_byte(second) <= 300_000
    assert server.requests[1][1]["If-Range"] == '"one"'


def test_a_file_that_changes_on_the_server_is_fetched_from_the_start(server, target):
    download([server.url("changing")], target, sha256=SHA)
    assert target.read_bytes() == BODY


def test_a_part_of_another_file_costs_one_more_request(server, target):
    target.parent.mkdir()
    (target.parent / "model.pth.part").write_bytes(OTHER[:400_000])
    download([server.url("good")], target, sha256=SHA)
    assert target.read_bytes() == BODY
    assert server.ranges("good") == ["bytes=400000-", None]


def test_a_part_longer_than_the_file_is_dropped(server, target):
    target.parent.mkdir()
    (target.parent / "model.pth.part").write_bytes(OTHER + b"more")
    download([server.url("good")], target, sha256=SHA)
    assert target.read_bytes() == BODY


def test_a_complete_part_needs_no_server(target):
    target.parent.mkdir()
    (target.parent / "model.pth.part").write_bytes(BODY)
    download([refused_url()], target, sha256=SHA)
    assert left_behind(target) == ["model.pth"]


def test_a_range_that_was_not_asked_for_is_refused(server, target):
    target.parent.mkdir()
    part = target.parent / "model.pth.part"
    part.write_bytes(BODY[:400_000])
    with pytest.raises(UnreachableError, match="was asked for the bytes from 400000 and sent"):
        download([server.url("badrange")], target, sha256=SHA)
    assert part.read_bytes() == BODY[:400_000]


def test_a_transfer_that_keeps_breaking_leaves_a_part_that_can_be_resumed(server, target):
    with pytest.raises(UnreachableError, match="broke off") as caught:
        download([server.url("cut")], target, sha256=SHA)
    assert caught.value.hint == "run the command again: it goes on where it stopped"
    assert left_behind(target) == ["model.pth.part"]
    part = (target.parent / "model.pth.part").read_bytes()
    assert part == BODY[: len(part)]
    # Three connections of 300,000 bytes each, less an incomplete chunk of each.
    assert 900_000 - 3 * module.CHUNK_BYTES <= len(part) <= 900_000
    download([server.url("good")], target, sha256=SHA)
    assert server.ranges("good") == [f"bytes={len(part)}-"]


def test_a_stalled_transfer_ends_and_keeps_its_part(server, target, monkeypatch):
    monkeypatch.setattr(module, "STALL_S", 0.3)
    with pytest.raises(UnreachableError, match="broke off"):
        download([server.url("stall")], target, sha256=SHA)
    part = (target.parent / "model.pth.part").read_bytes()
    assert part
    assert part == BODY[: len(part)]


# --- mirrors --------------------------------------------------------------------------------------


@pytest.mark.parametrize("way", ["missing", "page", "wrong", "longer", "headers", "silent"])
def test_the_second_mirror_is_asked(server, target, way):
    download(
        [server.url(way), server.url("good")],
        target,
        sha256=SHA,
        size_bytes=len(BODY),
        deadline_s=1.0,
    )
    assert target.read_bytes() == BODY
    assert left_behind(target) == ["model.pth"]


def test_the_second_mirror_continues_what_the_first_began(server, target):
    download([server.url("cut"), server.url("good")], target, sha256=SHA)
    assert first_byte(server.ranges("good")[0]) >= 900_000 - 3 * module.CHUNK_BYTES
    assert target.read_bytes() == BODY


def test_a_wrong_hash_is_refused_and_nothing_is_left(server, target):
    with pytest.raises(WeightsError) as caught:
        download([server.url("wrong")], target, sha256=SHA)
    actual = hashlib.sha256(OTHER).hexdigest()
    assert caught.value.message == (
        f"model.pth was not fetched: {server.url('wrong')}: sha256 is {actual}, expected {SHA}"
    )
    assert "hrnet download-weights --from FILE" in caught.value.hint
    assert caught.value.exit_code == ExitCode.WEIGHTS
    assert not isinstance(caught.value, UnreachableError)  # `detect` must not fall back silently.
    assert left_behind(target) == []


def test_a_wrong_length_is_refused_before_the_transfer(server, target):
    with pytest.raises(WeightsError, match="has 1000004 bytes, expected 1000000"):
        download([server.url("longer")], target, sha256=SHA, size_bytes=len(BODY))
    assert left_behind(target) == []


def test_every_mirror_is_named_with_its_reason(server, target):
    urls = [server.url("missing"), server.url("page"), refused_url()]
    with pytest.raises(UnreachableError) as caught:
        download(urls, target, sha256=SHA)
    assert f"{urls[0]}: HTTP 404 Not Found; " in caught.value.message
    assert f"{urls[1]}: answers with a web page instead of the file; " in caught.value.message
    assert caught.value.message.endswith(f"{urls[2]}: Connection refused")
    assert "HTTPS_PROXY" in caught.value.hint
    assert left_behind(target) == []


@pytest.mark.parametrize("url", ["ftp://example.org/model.pth", "https://", "model.pth"])
def test_an_address_that_is_none_is_named(target, url):
    with pytest.raises(UnreachableError, match=f"{url}: .*(adapters|URL)"):
        download([url], target, sha256=SHA)


def test_https_is_not_left_on_a_redirect():
    hops = SimpleNamespace(url="https://a/x"), SimpleNamespace(url="http://a/x")
    with pytest.raises(module._MirrorFault, match="without encryption"):
        module._check_redirects(SimpleNamespace(url=hops[1].url, history=[hops[0]]))
    module._check_redirects(SimpleNamespace(url="https://b/x", history=[hops[0]]))


# --- within the deadline --------------------------------------------------------------------------


def failing_time_s(urls, target, deadline_s):
    started = time.monotonic()
    with pytest.raises(UnreachableError) as caught:
        download(urls, target, sha256=SHA, deadline_s=deadline_s)
    assert left_behind(target) == []
    return time.monotonic() - started, caught.value.message


@pytest.mark.parametrize("way", ["silent", "headers"])
def test_mirrors_that_say_nothing_share_one_deadline(server, target, way):
    elapsed_s, message = failing_time_s([server.url(way)] * 4, target, 1.2)
    # Generous above for a busy machine; four deadlines in a row would be 4.8 s.
    assert 1.0 < elapsed_s < 3.0
    assert message.count("no answer within") == 4


def test_a_proxy_that_swallows_everything_ends_within_the_deadline(server, target, monkeypatch):
    with silent_port() as proxy:
        address = f"http://127.0.0.1:{proxy.getsockname()[1]}"
        monkeypatch.setenv("http_proxy", address)
        monkeypatch.setenv("https_proxy", address)
        urls = ["https://download.openmmlab.com/x.pth", "http://example.org/x.pth"]
        elapsed_s, _ = failing_time_s(urls, target, 1.2)
    assert elapsed_s < 3.0


def test_a_hanging_name_look_up_ends_within_the_deadline(target, monkeypatch):
    release = threading.Event()
    monkeypatch.setattr(socket, "getaddrinfo", lambda *args, **kwargs: release.wait(20))
    elapsed_s, message = failing_time_s(["http://nowhere.invalid/x.pth"], target, 0.5)
    release.set()
    assert elapsed_s < 2.0
    assert "no answer within" in message


def test_the_proxy_of_the_environment_is_used(server, target, monkeypatch):
    # A proxy is asked for the whole address; this server serves by the path's first word.
    seen = []
    monkeypatch.setattr(server, "serve_", lambda h: seen.append(h.path) or h.send_error(404), False)
    monkeypatch.setenv("http_proxy", server.base)
    with pytest.raises(UnreachableError, match="HTTP 404"):
        download(["http://weights.invalid/x.pth"], target, sha256=SHA)
    assert server.requests[0][0] == "http://weights.invalid/x.pth"


def test_the_default_deadline_leaves_time_for_the_fall_back():
    # `detect` promises to fall back within 10 s.
    assert module.ANSWER_S <= 8.0


# --- the disk -------------------------------------------------------------------------------------


class FullDisk:
    """A file on a disk that is full after some bytes."""

    def __init__(self, file, room):
        self.file = file
        self.room = room

    def __enter__(self):
        return self

    def __exit__(self, *args):
        self.file.close()

    def write(self, data):
        if self.room < len(data):
            raise OSError(errno.ENOSPC, "No space left on device")
        self.room -= len(data)
        return self.file.write(data)


def test_a_disk_that_fills_up_is_an_output_error_and_gets_its_space_back(
    server, target, monkeypatch
):
    real_open = Path.open

    def open_(self, mode="r", *args, **kwargs):
        file = real_open(self, mode, *args, **kwargs)
        return FullDisk(file, 600_000) if self.suffix == ".part" and "b" in mode[1:] else file

    monkeypatch.setattr(Path, "open", open_)
    monkeypatch.setattr(module, "file_sha256", lambda path: "0" * 64)
    with pytest.raises(OutputError, match=r"no space left to write .*model\.pth\.part") as caught:
        download([server.url("good")], target, sha256=SHA)
    assert caught.value.exit_code == ExitCode.OUTPUT
    assert "HRNET_HOME" in caught.value.hint
    assert left_behind(target) == []


def test_too_little_space_is_noticed_before_the_transfer(server, target, monkeypatch):
    monkeypatch.setattr(module.shutil, "disk_usage", lambda path: SimpleNamespace(free=10))
    with pytest.raises(OutputError, match="1000000 bytes to fetch, 10 bytes free"):
        download([server.url("good")], target, sha256=SHA)
    assert left_behind(target) == []


def test_a_folder_without_permission_is_an_output_error(server, target, monkeypatch):
    target.parent.mkdir()
    if os.geteuid() == 0:  # Root may write anywhere: the refusal has to be played.
        real_open = os.open

        def refuse(path, *args, **kwargs):
            if Path(path).parent == target.parent:
                raise PermissionError(errno.EACCES, "Permission denied")
            return real_open(path, *args, **kwargs)

        monkeypatch.setattr(os, "open", refuse)
    else:
        target.parent.chmod(0o500)
    with pytest.raises(OutputError, match=r"cannot write .*model\.pth.*: Permission denied") as e:
        download([server.url("good")], target, sha256=SHA)
    assert e.value.hint == "let HRNET_HOME name a folder you may write to"
    assert server.requests == []


def test_a_folder_that_is_a_file_is_an_output_error(server, target):
    target.parent.write_text("not a folder")
    with pytest.raises(OutputError, match="cannot write"):
        download([server.url("good")], target, sha256=SHA)


# --- two at a time, and Ctrl-C --------------------------------------------------------------------

SCRIPT = """
    import sys
    from pathlib import Path
    from hrnet_cli.download import download
    url, target, sha256 = sys.argv[1:]
    print("start", flush=True)
    download([url], Path(target), sha256=sha256)
"""


def start_process(url, target):
    code = textwrap.dedent(SCRIPT)
    return subprocess.Popen(
        [sys.executable, "-c", code, url, str(target), SHA],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def wait_for(condition, limit_s=20):
    end = time.monotonic() + limit_s
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.02)


def test_two_processes_fetch_a_file_once(server, target):
    processes = [start_process(server.url("slow"), target) for _ in range(2)]
    for process in processes:
        _, stderr = process.communicate(timeout=60)
        assert process.returncode == 0, stderr
    assert target.read_bytes() == BODY
    assert left_behind(target) == ["model.pth"]
    assert len(server.ranges("slow")) == 1


def test_a_process_that_gets_nothing_does_not_hold_up_others_for_long(server, target):
    def wait_in_vain():
        with pytest.raises(UnreachableError):
            download([server.url("silent")], target, sha256=SHA, deadline_s=2)

    first = threading.Thread(target=wait_in_vain)
    first.start()
    wait_for((target.parent / "model.pth.lock").exists)
    started = time.monotonic()
    with pytest.raises(UnreachableError, match=r"another process is fetching model\.pth and got"):
        download([server.url("good")], target, sha256=SHA, deadline_s=0.5)
    assert time.monotonic() - started < 2.0
    server.release.set()
    first.join()


def test_a_lock_file_left_by_a_killed_process_does_no_harm(server, target):
    process = start_process(server.url("stall"), target)
    part = target.parent / "model.pth.part"
    wait_for(lambda: part.exists() and part.stat().st_size > 0)
    process.kill()
    process.communicate()
    assert left_behind(target) == ["model.pth.lock", "model.pth.part"]
    download([server.url("good")], target, sha256=SHA)
    assert left_behind(target) == ["model.pth"]
    assert server.ranges("good")[0].startswith("bytes=")


def test_ctrl_c_keeps_the_part(server, target):
    def interrupt(done, total):
        if done > 300_000:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        download([server.url("good")], target, sha256=SHA, on_progress=interrupt)
    assert left_behind(target) == ["model.pth.part"]
    part = (target.parent / "model.pth.part").read_bytes()
    assert len(part) > 300_000
    assert part == BODY[: len(part)]


# --- local files ----------------------------------------------------------------------------------


def test_a_local_file_is_copied_when_its_hash_is_right(tmp_path, target):
    source = tmp_path / "renamed.bin"
    source.write_bytes(BODY)
    assert copy_verified(source, target, sha256=SHA[:8]) == target
    assert target.read_bytes() == BODY
    assert left_behind(target) == ["model.pth"]


def test_a_local_file_with_another_hash_is_refused(tmp_path, target):
    source = tmp_path / "model.pth"
    source.write_bytes(OTHER)
    with pytest.raises(WeightsError) as caught:
        copy_verified(source, target, sha256=SHA)
    actual = hashlib.sha256(OTHER).hexdigest()
    assert caught.value.message == f"{source} has sha256 {actual}, expected {SHA}"
    assert left_behind(target) == []


def test_a_local_file_that_is_missing_is_an_input_error(tmp_path, target):
    with pytest.raises(InputError, match=r"cannot read .*gone\.pth: No such file"):
        copy_verified(tmp_path / "gone.pth", target, sha256=SHA)
    assert left_behind(target) == []
    with pytest.raises(InputError, match=r"cannot read .*gone\.pth: No such file"):
        file_sha256(tmp_path / "gone.pth")
