"""``hrnet download-weights``: what it prints, where files end, and its exit codes."""

import hashlib
import importlib
import io
import json
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import pytest
from rich.console import Console
from typer.testing import CliRunner

from hrnet_cli import weights
from hrnet_cli.cli import app
from hrnet_cli.config import WeightsEntry
from hrnet_cli.errors import ExitCode

CONTENTS = {
    "hrnet-w32-256x192-udp": b"weights of W32",
    "hrnet-w48-384x288-udp": b"weights of W48",
    "yolo26s": b"weights of a detector",
}
REAL = weights.load_weights_list()


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *args):
        pass


@pytest.fixture
def folder(tmp_path):
    """A folder with the files of the three entries, as a mirror or a USB stick holds them."""
    path = tmp_path / "usb"
    path.mkdir()
    for name, content in CONTENTS.items():
        (path / REAL[name].file_name).write_bytes(content)
    return path


@pytest.fixture
def server(folder, monkeypatch):
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    httpd = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(folder)))
    threading.Thread(target=httpd.serve_forever, args=(0.02,), daemon=True).start()
    yield f"http://127.0.0.1:{httpd.server_port}"
    httpd.shutdown()
    httpd.server_close()


@pytest.fixture
def listed(tmp_path, server, monkeypatch):
    """A list of three small files, with the names of real ones, and an empty cache."""
    tables = []
    for name, content in CONTENTS.items():
        real = REAL[name]
        lines = [
            f"[{name}]",
            f'kind = "{real.kind}"',
            f'urls = ["{server}/gone/{real.file_name}", "{server}/{real.file_name}"]',
            f'sha256 = "{hashlib.sha256(content).hexdigest()}"',
            f"size_bytes = {len(content)}",
            f'licence = "{real.licence}"',
            'source = "a test"',
            f"aliases = {json.dumps(list(real.aliases))}",
        ]
        if real.kind == "pose":
            lines += [
                f"width = {real.width}",
                f"input_hw = {list(real.input_hw)}",
                'codec = "udp"',
                'keypoint_schema = "coco17"',
            ]
        tables.append("\n".join(lines))
    path = tmp_path / "list" / "weights.toml"
    path.parent.mkdir()
    path.write_text("\n\n".join(tables))
    monkeypatch.setattr(weights, "weights_list_path", lambda: path)
    monkeypatch.setenv("HRNET_HOME", str(tmp_path / "home"))
    return tmp_path / "home" / "weights"


def run(*arguments):
    return CliRunner().invoke(app, ["download-weights", *map(str, arguments)])


def stored(cache):
    return {path.name: path.read_bytes() for path in cache.iterdir()} if cache.exists() else {}


def files_of(*names):
    return {REAL[name].file_name: CONTENTS[name] for name in names}


W32, W48, YOLO = CONTENTS


# --- fetching -------------------------------------------------------------------------------------


def test_a_named_file_is_fetched_from_the_mirror_that_has_it(listed):
    result = run("hrnet-w32")
    assert result.exit_code == 0
    assert stored(listed) == files_of(W32)
    assert result.stdout == ""
    assert result.stderr.splitlines() == [
        f"fetching {W32} from 127.0.0.1",
        f"wrote {W32}: {listed / REAL[W32].file_name}",
    ]


def test_a_file_that_is_there_is_not_fetched_again(listed):
    run(W32)
    result = run(W32)
    assert result.exit_code == 0
    assert result.stderr == f"{W32} is already there: {listed / REAL[W32].file_name}\n"
    assert run(W32, "--overwrite").stderr.splitlines()[-1].startswith(f"wrote {W32}: ")


def test_without_names_the_defaults_of_detect_are_fetched(listed):
    result = run()
    assert result.exit_code == 0
    assert stored(listed) == files_of(W32, YOLO)
    assert result.stderr.splitlines()[-1] == f"wrote 2 files (0.0 MB) to {listed}"


def test_all_means_all(listed):
    run(W32)
    result = run("--all")
    assert result.exit_code == 0
    assert stored(listed) == files_of(W32, W48, YOLO)
    assert result.stderr.splitlines()[-1].endswith(f"to {listed}; 1 already there")


def test_a_damaged_file_is_replaced(listed):
    listed.mkdir(parents=True)
    (listed / REAL[W32].file_name).write_bytes(b"broken")
    assert run(W32).exit_code == 0
    assert stored(listed) == files_of(W32)


def test_quiet_says_nothing(listed):
    result = run(W32, "--quiet")
    assert (result.exit_code, result.output) == (0, "")


def test_a_terminal_shows_a_bar(listed, monkeypatch):
    terminal = Console(file=io.StringIO(), force_terminal=True, width=100)
    # By import_module: as an attribute of the package the name is the command function.
    module = importlib.import_module("hrnet_cli.cli.download_weights")
    monkeypatch.setattr(module, "err", lambda: terminal)
    assert run(W32).exit_code == 0
    assert f"{W32} from 127.0.0.1" in terminal.file.getvalue()
    assert "━" in terminal.file.getvalue()


def test_ctrl_c_ends_with_130(listed, monkeypatch):
    def interrupt(*args, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr(weights, "download", interrupt)
    result = run(W32)
    assert result.exit_code == ExitCode.INTERRUPTED == 130
    assert "interrupted" in result.stderr


def test_json_tells_what_was_done(listed):
    run(W48)
    result = run(W32, W48, "--json", "--quiet")
    assert json.loads(result.stdout) == {
        "written": [{"name": W32, "path": str(listed / REAL[W32].file_name)}],
        "present": [{"name": W48, "path": str(listed / REAL[W48].file_name)}],
        "failed": [],
    }


def test_the_starter_is_always_there():
    result = run("starter")
    assert result.exit_code == 0
    assert result.stderr.startswith("starter is already there: ")


# --- what goes wrong ------------------------------------------------------------------------------


def test_an_unknown_name_ends_before_anything_is_fetched(listed):
    result = run(W32, "hrnet-w23")
    assert result.exit_code == ExitCode.WEIGHTS == 4
    assert result.stderr.splitlines() == [
        "error: no weights are called 'hrnet-w23'",
        "hint: did you mean hrnet-w32, hrnet-w48? `hrnet download-weights --list` shows all names",
    ]
    assert stored(listed) == {}


def test_a_wrong_hash_names_address_and_hashes(listed, folder, server):
    (folder / REAL[W32].file_name).write_bytes(b"weights of W3?")
    result = run(W32)
    assert result.exit_code == 4
    error = result.stderr.splitlines()[-2]
    assert f"{server}/gone/{REAL[W32].file_name}: HTTP 404 File not found; " in error
    actual = hashlib.sha256(b"weights of W3?").hexdigest()
    expected = hashlib.sha256(CONTENTS[W32]).hexdigest()
    assert error.endswith(f"/{REAL[W32].file_name}: sha256 is {actual}, expected {expected}")
    assert stored(listed) == {}


def test_one_file_that_cannot_be_had_does_not_stop_the_others(listed, folder):
    (folder / REAL[W32].file_name).unlink()
    result = run(W32, W48, "--json")
    assert result.exit_code == 4
    assert stored(listed) == files_of(W48)
    assert f"error: {W32}: {REAL[W32].file_name} was not fetched: " in result.stderr
    assert result.stderr.splitlines()[-2:] == [
        f"error: 1 of 2 weights are missing: {W32}",
        "hint: run the command again: what is there is not fetched twice",
    ]
    summary = json.loads(result.stdout)
    assert [item["name"] for item in summary["written"]] == [W48]
    assert [item["name"] for item in summary["failed"]] == [W32]
    assert "404" in summary["failed"][0]["error"]


def test_a_cache_that_cannot_be_written_is_an_output_error(listed, tmp_path):
    (tmp_path / "home").write_text("not a folder")
    result = run(W32)
    assert result.exit_code == ExitCode.OUTPUT == 8
    assert "error: cannot write " in result.stderr
    assert result.stderr.endswith("hint: let HRNET_HOME name a folder you may write to\n")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--list", "--all"], "--list fetches nothing: it goes without --all, --from and"),
        (["--list", "--from", "x"], "--list fetches nothing"),
        (["--list", "--overwrite"], "--list fetches nothing"),
        (["--all", "starter"], "--all and the name 'starter' were both given"),
    ],
)
def test_contradictions_are_usage_errors(arguments, message):
    result = run(*arguments)
    assert result.exit_code == ExitCode.USAGE == 2
    assert f"error: {message}" in result.stderr


# --- from elsewhere -------------------------------------------------------------------------------


def test_a_file_is_recognised_by_its_hash(listed, tmp_path):
    source = tmp_path / "renamed.bin"
    source.write_bytes(CONTENTS[W48])
    result = run("--from", source)
    assert result.exit_code == 0
    assert stored(listed) == files_of(W48)
    assert result.stderr == f"wrote {W48}: {listed / REAL[W48].file_name}\n"


def test_a_file_that_is_none_of_the_listed_is_refused(listed, tmp_path):
    source = tmp_path / "mine.pth"
    source.write_bytes(b"my own")
    result = run("--from", source)
    assert result.exit_code == 4
    actual = hashlib.sha256(b"my own").hexdigest()
    assert result.stderr.splitlines() == [
        f"error: {source} with sha256 {actual} is none of the 3 files of weights.toml",
        f"hint: to use it all the same, give its path: hrnet detect --model {source}",
    ]


def test_a_file_must_be_what_it_is_said_to_be(listed, tmp_path):
    source = tmp_path / "x.pth"
    source.write_bytes(CONTENTS[W48])
    result = run("hrnet-w32", "--from", source)
    assert result.exit_code == 4
    assert f"error: {source} has sha256 " in result.stderr
    assert stored(listed) == {}


def test_one_file_is_not_several_weights(listed, folder):
    result = run("hrnet-w32", "hrnet-w48", "--from", folder / REAL[W32].file_name)
    assert result.exit_code == 2
    assert "error: --from names one file and 2 weights are wanted, expected one" in result.stderr


def test_a_folder_gives_all_it_has(listed, folder):
    (folder / "notes.txt").write_text("not weights")
    (folder / "deep").mkdir()
    (folder / REAL[W32].file_name).rename(folder / "deep" / "other-name.pth")
    result = run("--from", folder)
    assert result.exit_code == 0
    assert stored(listed) == files_of(W32, W48, YOLO)
    assert result.stderr.splitlines()[-1] == f"wrote 3 files (0.0 MB) to {listed}"


def test_a_folder_gives_only_what_is_wanted(listed, folder):
    assert run("hrnet-w48", "--from", folder).exit_code == 0
    assert stored(listed) == files_of(W48)


def test_a_folder_that_lacks_one_gives_the_others(listed, folder):
    (folder / REAL[W48].file_name).unlink()
    result = run("hrnet-w32", "hrnet-w48", "--from", folder)
    assert result.exit_code == 4
    assert stored(listed) == files_of(W32)
    assert f"error: {W48}: no file in {folder} is '{W48}' ({REAL[W48].file_name})" in result.stderr


def test_a_damaged_file_in_a_folder_is_named(listed, folder):
    (folder / REAL[W48].file_name).write_bytes(b"broken")
    result = run("--from", folder)
    assert result.exit_code == 4
    assert stored(listed) == files_of(W32, YOLO)
    assert f"error: {W48}: {folder / REAL[W48].file_name} has sha256 " in result.stderr


def test_a_folder_without_weights_is_an_error(listed, tmp_path):
    (tmp_path / "empty").mkdir()
    result = run("--from", tmp_path / "empty")
    assert result.exit_code == 4
    assert f"none of the 0 files in {tmp_path / 'empty'} is among the wanted" in result.stderr


def test_a_mirror_serves_the_same_file_names(listed, server):
    result = run("hrnet-w32", "--from", f"{server}/")
    assert result.exit_code == 0
    assert stored(listed) == files_of(W32)


def test_a_path_that_is_not_there_is_an_input_error(listed, tmp_path):
    result = run("hrnet-w32", "--from", tmp_path / "gone")
    assert result.exit_code == ExitCode.INPUT == 3
    assert result.stderr.splitlines()[0] == (
        f"error: --from is '{tmp_path / 'gone'}', expected a file, a folder or an http(s) URL"
    )


# --- the list -------------------------------------------------------------------------------------


@pytest.mark.parametrize("columns", ["40", "80", "200"])
def test_the_list_is_plain_text_and_never_shortens_a_name(monkeypatch, tmp_path, columns):
    monkeypatch.setenv("COLUMNS", columns)
    monkeypatch.setenv("HRNET_HOME", str(tmp_path))
    result = run("--list")
    assert result.exit_code == 0
    lines = result.stdout.splitlines()
    assert "\x1b" not in result.output
    assert max(map(len, lines)) < 80
    assert lines[0].split() == ["name", "kind", "MB", "AP", "licence", "here"]
    rows = [line.split() for line in lines[2:]]
    assert [row[0] for row in rows] == list(REAL)
    assert rows[0] == ["starter", "pose", "29.0", "0.383*", "research", "use", "yes"]
    by_name = {row[0]: row[1:] for row in rows}
    assert by_name["hrnet-w48-256x192-msra"] == ["pose", "255.0", "0.756", "Apache-2.0", "no"]
    assert by_name["hrnet-w32-imagenet"] == ["backbone", "-", "-", "MIT", "no"]


def test_the_list_says_on_stderr_what_it_means(listed):
    result = run("--list")
    assert "hrnet-w32 is hrnet-w32-256x192-udp" in result.stderr
    assert "AP counts what `metric` says" in result.stderr
    assert run("--list", "--quiet").stderr == ""


def test_the_list_shows_what_is_there(listed):
    run("hrnet-w48")
    rows = [line.split() for line in run("--list").stdout.splitlines()[2:]]
    assert {row[0]: row[-1] for row in rows} == {W32: "no", W48: "yes", YOLO: "no"}
    rows = [line.split() for line in run("--list", "hrnet-w48").stdout.splitlines()[2:]]
    assert [row[0] for row in rows] == [W48]


def test_the_list_as_json_has_every_field(listed):
    run("hrnet-w48")
    records = json.loads(run("--list", "--json").stdout)
    assert [record["name"] for record in records] == list(CONTENTS)
    assert set(WeightsEntry.__dataclass_fields__) < set(records[0])
    assert [record["downloaded"] for record in records] == [False, True, False]
    assert records[1]["path"] == str(listed / REAL[W48].file_name)
    assert records[0]["path"] is None


def test_the_help_names_every_option():
    text = run("--help").stdout
    for option in ("--list", "--all", "--from", "--overwrite", "--quiet", "--json", "Examples:"):
        assert option in text
