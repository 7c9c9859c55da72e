"""COCO's validation data from a server on this machine: fetched, checked, unpacked, left alone."""

import hashlib
import io
import json
import stat
import threading
import zipfile
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from hrnet_cli.data import fetching
from hrnet_cli.data.fetching import Archive, fetch_val2017, load_archives, unpack
from hrnet_cli.errors import ConfigError, InputError, OutputError

NAMES = ("000000000001.jpg", "000000000002.jpg", "000000000003.jpg")
VAL = "annotations/person_keypoints_val2017.json"
LABELS = json.dumps({"images": [{"file_name": name} for name in NAMES]}).encode()
# Larger than the pieces in which a transfer arrives.
PHOTO = bytes(range(256)) * 1000


def make_zip(members: dict[str, bytes]) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return file.getvalue()


class Server:
    """A web server of files by name; it records what it was asked for, and may cut a body short."""

    def __init__(self):
        self.files: dict[str, bytes] = {}
        self.asked: list[tuple[str, str | None]] = []
        self.cut: dict[str, int] = {}
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def log_message(self, *args):
                pass

            def do_GET(self):
                outer.answer(self)

        self.httpd = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.httpd.serve_forever, args=(0.02,), daemon=True).start()

    def answer(self, handler):
        name, span = handler.path[1:], handler.headers.get("Range")
        self.asked.append((name, span))
        body = self.files.get(name)
        if body is None:
            handler.send_error(404)
            return
        start = int(span.removeprefix("bytes=").rstrip("-")) if span else 0
        handler.send_response(206 if span else 200)
        if span:
            handler.send_header("Content-Range", f"bytes {start}-{len(body) - 1}/{len(body)}")
        handler.send_header("Content-Length", str(len(body) - start))
        handler.end_headers()
        handler.wfile.write(body[start:][: self.cut.pop(name, len(body))])

    def url(self, name):
        return f"http://127.0.0.1:{self.httpd.server_port}/{name}"


@pytest.fixture
def server():
    server = Server()
    yield server
    server.httpd.shutdown()
    server.httpd.server_close()


@pytest.fixture
def archives(server):
    """The two archives of the package, small, on the server."""
    contents = {
        "annotations_trainval2017": {
            VAL: LABELS,
            "annotations/person_keypoints_train2017.json": b"{}",
            "annotations/captions_val2017.json": b"not wanted",
        },
        "val2017": {"val2017/": b"", **{f"val2017/{name}": PHOTO for name in NAMES}},
    }
    made = {}
    for name, archive in load_archives().items():
        body = make_zip(contents[name])
        server.files[f"{name}.zip"] = body
        made[name] = replace(
            archive,
            urls=(server.url(f"{name}.zip"),),
            sha256=hashlib.sha256(body).hexdigest(),
            size_bytes=len(body),
        )
    return made


@pytest.fixture
def fetch(archives, tmp_path):
    """Fetch into a folder and return the lines that were said."""

    def run(folder=None, **changed):
        steps: list[str] = []
        fetch_val2017(
            folder or tmp_path / "coco", archives=archives | changed, on_step=steps.append
        )
        return steps

    return run


def files_in(folder: Path) -> list[str]:
    return sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file())


def test_everything_is_fetched_and_unpacked(fetch, server, tmp_path):
    steps = fetch()
    folder = tmp_path / "coco"
    assert files_in(folder) == sorted(
        [VAL, "annotations/person_keypoints_train2017.json", *(f"val2017/{n}" for n in NAMES)]
    )
    assert (folder / "val2017" / NAMES[1]).read_bytes() == PHOTO
    assert [step.split(",")[0] for step in steps] == [
        "fetching annotations_trainval2017.zip",
        f"unpacked 2 of 2 files of annotations_trainval2017.zip into {folder}",
        f"3 of 3 photos are missing in {folder / 'val2017'}",
        "fetching val2017.zip",
        f"unpacked 3 of 3 files of val2017.zip into {folder}",
    ]
    assert [name for name, _ in server.asked] == ["annotations_trainval2017.zip", "val2017.zip"]
    assert not (folder / "downloads").exists()


def test_a_second_time_nothing_is_asked_for(fetch, server, tmp_path):
    fetch()
    server.asked.clear()
    folder = tmp_path / "coco"
    assert fetch() == [
        f"{folder / VAL} is there already",
        f"all 3 photos are in {folder / 'val2017'} already",
    ]
    assert server.asked == []


def test_only_what_is_missing_is_fetched(fetch, server, tmp_path):
    fetch()
    server.asked.clear()
    lost, kept = (tmp_path / "coco/val2017" / name for name in NAMES[:2])
    lost.unlink()
    before = kept.stat().st_mtime_ns
    steps = fetch()
    assert f"1 of 3 photos are missing in {tmp_path / 'coco/val2017'}" in steps
    assert [name for name, _ in server.asked] == ["val2017.zip"]
    assert lost.read_bytes() == PHOTO
    assert kept.stat().st_mtime_ns == before


def test_photos_in_another_place_of_the_folder_are_found(fetch, server, tmp_path):
    fetch()
    server.asked.clear()
    (tmp_path / "coco/images").mkdir()
    (tmp_path / "coco/val2017").rename(tmp_path / "coco/images/val2017")
    assert f"all 3 photos are in {tmp_path / 'coco/images/val2017'} already" in fetch()
    assert server.asked == []


def test_a_transfer_goes_on_where_it_broke_off(fetch, server, tmp_path, monkeypatch):
    size = len(server.files["val2017.zip"])
    monkeypatch.setattr("hrnet_cli.download.CONNECTIONS", 1)
    server.cut["val2017.zip"] = 300_000
    with pytest.raises(InputError, match=r"val2017\.zip was not fetched") as caught:
        fetch()
    assert caught.value.hint == "run the command again: it goes on where it stopped"
    part = tmp_path / "coco/downloads/val2017.zip.part"
    assert 0 < part.stat().st_size < size
    start = part.stat().st_size
    fetch()
    assert server.asked[-1] == ("val2017.zip", f"bytes={start}-")
    assert (tmp_path / "coco/val2017" / NAMES[2]).read_bytes() == PHOTO


def test_an_archive_brought_by_hand_is_used_and_left(fetch, server, tmp_path):
    target = tmp_path / "coco/downloads/val2017.zip"
    target.parent.mkdir(parents=True)
    target.write_bytes(server.files["val2017.zip"])
    assert f"{target} is there already" in fetch()
    assert [name for name, _ in server.asked] == ["annotations_trainval2017.zip"]
    assert target.is_file()


def test_a_wrong_archive_brought_by_hand_is_replaced(fetch, server, tmp_path):
    target = tmp_path / "coco/downloads/val2017.zip"
    target.parent.mkdir(parents=True)
    target.write_bytes(b"another")
    fetch()
    assert (tmp_path / "coco/val2017" / NAMES[0]).read_bytes() == PHOTO


def test_another_file_of_that_name_is_refused(fetch, server, tmp_path):
    good = server.files["val2017.zip"]
    server.files["val2017.zip"] = good[:-1] + b"!"
    with pytest.raises(InputError, match=r"sha256 is .*, expected") as caught:
        fetch()
    hand = tmp_path / "coco/downloads/val2017.zip"
    assert caught.value.hint == (
        f"it was replaced there; fetch it by hand to '{hand}' and run the command again"
    )
    assert not (tmp_path / "coco/val2017").exists()


def test_no_network_names_the_place_for_the_file(fetch, archives, free_port, tmp_path):
    nowhere = replace(archives["val2017"], urls=(f"http://127.0.0.1:{free_port}/val2017.zip",))
    with pytest.raises(InputError, match=r"val2017\.zip was not fetched") as caught:
        fetch(val2017=nowhere)
    assert str(tmp_path / "coco/downloads/val2017.zip") in caught.value.hint
    assert "HTTPS_PROXY" in caught.value.hint
    # The part that worked stays.
    assert (tmp_path / "coco" / VAL).is_file()


def test_a_folder_that_cannot_be_written_to(fetch, tmp_path):
    (tmp_path / "coco").write_text("a file")
    with pytest.raises(OutputError, match="cannot write") as caught:
        fetch()
    assert caught.value.hint == "name a folder elsewhere with --data"


def test_annotations_of_another_origin_stay_and_are_told(fetch, tmp_path):
    own = tmp_path / "coco" / VAL
    own.parent.mkdir(parents=True)
    own.write_text(json.dumps({"images": [{"file_name": "mine.jpg"}]}))
    with pytest.raises(InputError, match=r"1 of 1 photos .* such as 'mine\.jpg'") as caught:
        fetch()
    assert f"'{own}' is not COCO's" in caught.value.hint
    own.write_text("[1, 2]")
    with pytest.raises(InputError, match="names no photos as COCO's annotations do") as caught:
        fetch()
    assert caught.value.hint == "remove it to fetch COCO's"


def test_the_size_of_each_transfer_is_told(archives, tmp_path):
    told: dict[str, list[tuple[int, int | None]]] = {}

    def start(title):
        calls = told.setdefault(title, [])
        return lambda done, total: calls.append((done, total))

    fetch_val2017(tmp_path, archives=archives, on_progress=start)
    assert list(told) == ["annotations_trainval2017.zip", "val2017.zip"]
    size = archives["val2017"].size_bytes
    assert told["val2017.zip"][-1] == (size, size)


ARCHIVE = Archive("photos", ("http://localhost/",), "0" * 64, 1, ("val2017/",), "none")


def write_zip(path: Path, members: dict[str, bytes]) -> Path:
    path.write_bytes(make_zip(members))
    return path


@pytest.mark.parametrize(
    "name", ["val2017/../../out.jpg", "val2017/..\\out.jpg", "val2017/c:out.jpg", "val2017/../b"]
)
def test_nothing_is_unpacked_outside_the_folder(tmp_path, name):
    path = write_zip(tmp_path / "a.zip", {"val2017/good.jpg": b"1", name: b"2"})
    with pytest.raises(InputError, match="leads out of its folder; nothing was unpacked"):
        unpack(path, ARCHIVE, tmp_path / "to/here")
    assert files_in(tmp_path) == ["a.zip"]


def test_links_are_not_unpacked(tmp_path):
    path, link = tmp_path / "a.zip", zipfile.ZipInfo("val2017/link.jpg")
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(link, "/etc/passwd")
    with pytest.raises(InputError, match=r"'val2017/link\.jpg' that leads out of its folder"):
        unpack(path, ARCHIVE, tmp_path)


def test_a_damaged_member_is_not_left_behind(tmp_path):
    path = write_zip(tmp_path / "a.zip", {"val2017/a.jpg": b"first", "val2017/b.jpg": b"second"})
    path.write_bytes(path.read_bytes().replace(b"second", b"sec0nd"))
    with pytest.raises(InputError, match=r"cannot be unpacked: Bad CRC-32.*b\.jpg") as caught:
        unpack(path, ARCHIVE, tmp_path / "to")
    assert caught.value.hint == "remove it and run the command again"
    assert files_in(tmp_path / "to") == ["val2017/a.jpg"]


def test_what_is_no_such_archive(tmp_path):
    path = tmp_path / "a.zip"
    with pytest.raises(InputError, match="cannot be read: No such file"):
        unpack(path, ARCHIVE, tmp_path)
    path.write_text("text")
    with pytest.raises(InputError, match="cannot be unpacked: File is not a zip file"):
        unpack(path, ARCHIVE, tmp_path)
    write_zip(path, {"train2017/a.jpg": b"1"})
    with pytest.raises(InputError, match="has nothing of val2017/") as caught:
        unpack(path, ARCHIVE, tmp_path)
    assert "it is another archive" in caught.value.hint


def test_no_space_is_noticed_before_writing(tmp_path, monkeypatch):
    path = write_zip(tmp_path / "a.zip", {"val2017/a.jpg": b"12345"})
    monkeypatch.setattr(fetching.shutil, "disk_usage", lambda _path: type("Usage", (), {"free": 4}))
    with pytest.raises(OutputError, match="5 bytes to unpack, 4 bytes free") as caught:
        unpack(path, ARCHIVE, tmp_path / "to")
    assert "--data" in caught.value.hint
    assert files_in(tmp_path / "to") == []
    (tmp_path / "taken").write_text("")
    with pytest.raises(OutputError, match="cannot write into"):
        unpack(path, ARCHIVE, tmp_path / "taken")


def test_the_archives_of_the_package():
    archives = load_archives()
    assert list(archives) == ["annotations_trainval2017", "val2017"]
    for archive in archives.values():
        assert len(archive.sha256) == 64
        assert archive.urls[0].startswith("https://")
        assert all(url.endswith(f"/{archive.file_name}") for url in archive.urls)
        assert archive.size_bytes > 2e8
    assert archives["annotations_trainval2017"].wants(VAL)
    assert not archives["annotations_trainval2017"].wants("annotations/captions_val2017.json")
    assert archives["val2017"].wants("val2017/000000000139.jpg")
    assert not archives["val2017"].wants("val2017.txt")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a = [", "cannot read"),
        ("[val2017]\nurls = []\n", "expected the keys licence, members, sha256, size_bytes, urls"),
        ("val2017 = 3\n", "has 3; expected the keys"),
    ],
)
def test_a_manifest_that_is_not_complete(tmp_path, text, message):
    path = tmp_path / "downloads.toml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=message):
        load_archives(path)
