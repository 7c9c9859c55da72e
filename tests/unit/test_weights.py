"""The list of weights is complete and consistent; the cache gives out intact files only."""

import hashlib
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from hrnet_cli import weights
from hrnet_cli.config import CODECS, WeightsEntry
from hrnet_cli.download import UnreachableError
from hrnet_cli.errors import ConfigError, ExitCode, InputError, OutputError, WeightsError
from hrnet_cli.schema import SCHEMAS, load_schema
from hrnet_cli.scratch import cache_folder

ENTRIES = weights.load_weights_list()
POSES = {name: entry for name, entry in ENTRIES.items() if entry.kind == "pose"}
LISTED_POSES = {name: entry for name, entry in POSES.items() if not entry.file}
SUFFIX_SCHEMA = {
    "mpii": "mpii16",
    "wholebody": "wholebody133",
    "crowdpose": "crowdpose14",
    "aic": "aic14",
    "ap10k": "ap10k",
}
MINIMAL = """
[tiny]
kind = "backbone"
urls = ["https://example.org/tiny-01234567.pth"]
sha256 = "01234567"
licence = "MIT"
source = "nowhere"
width = 32
"""


def each(entries):
    return pytest.mark.parametrize("entry", entries.values(), ids=list(entries))


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("HRNET_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


@pytest.fixture
def no_network(monkeypatch):
    def refuse(*args, **kwargs):
        raise AssertionError(f"the network was asked for {args}")

    monkeypatch.setattr(weights, "download", refuse)


def an_entry(content=b"some weights", **changes):
    entry = WeightsEntry(
        name="tiny",
        kind="backbone",
        urls=("https://example.org/tiny.pth",),
        sha256=hashlib.sha256(content).hexdigest(),
        licence="MIT",
        source="a test",
        width=32,
    )
    return replace(entry, **changes)


def store(entry, content):
    path = weights.stored_path(entry)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


# --- every entry ----------------------------------------------------------------------------------


@each(ENTRIES)
def test_each_entry_is_complete(entry):
    assert re.fullmatch("[a-z0-9-]+", entry.name)
    assert re.fullmatch("[0-9a-f]{64}|[0-9a-f]{8}", entry.sha256)
    assert entry.licence in ("Apache-2.0", "MIT", "AGPL-3.0", "BSD-3-Clause", "research use")
    assert entry.trained_on
    assert entry.source
    assert all(url.startswith("https://") for url in entry.urls)
    assert entry.file_name.endswith((".pth", ".pt", ".safetensors"))


@each(ENTRIES)
def test_a_hash_in_a_file_name_is_the_hash_of_the_entry(entry):
    in_name = re.findall(r"-([0-9a-f]{8})[_.]", entry.file_name)
    if len(entry.sha256) == 8:
        assert in_name == [entry.sha256]
    elif in_name:
        assert entry.sha256.startswith(in_name[0])


@each(LISTED_POSES)
def test_each_pose_name_says_what_the_entry_says(entry):
    match = re.match(r"hrnet-w(\d+)-(\d+)x(\d+)-(\w+?)(?:-|$)", entry.name)
    assert match is not None
    assert entry.width == int(match[1])
    assert entry.input_hw == (int(match[2]), int(match[3]))
    assert entry.codec == (match[4] if match[4] in CODECS else "msra")
    assert match[4] in (*CODECS, "official")
    schemas = [s for suffix, s in SUFFIX_SCHEMA.items() if entry.name.endswith(f"-{suffix}")]
    assert entry.keypoint_schema == (schemas or ["coco17"])[0]
    assert entry.published_ap is not None


@each(LISTED_POSES)
def test_each_pose_file_says_what_the_entry_says(entry):
    """The publisher's file name is a second witness of width, size and codec."""
    file_name = entry.file_name.lower()
    assert f"w{entry.width}" in file_name
    if "libre" not in file_name:
        assert "{}x{}".format(*entry.input_hw) in file_name
    for codec in ("dark", "udp"):
        assert (codec in file_name) == (entry.codec == codec)
    for suffix in SUFFIX_SCHEMA:
        if suffix != "aic":  # coco-aic is COCO's keypoints, trained on both.
            assert (suffix in file_name) == entry.name.endswith(f"-{suffix}")


@each(POSES)
def test_each_pose_entry_describes_a_network(entry):
    spec = entry.model_spec()
    assert spec.name == entry.name
    assert entry.keypoint_schema in SCHEMAS
    assert spec.schema == load_schema(entry.keypoint_schema)
    assert all(side % 32 == 0 for side in spec.input_hw)


def test_the_promised_models_are_listed():
    sizes = [(w, s) for w in ("w32", "w48") for s in ("256x192", "384x288")]
    for width, size in sizes:
        for codec in CODECS:
            assert f"hrnet-{width}-{size}-{codec}" in ENTRIES
            assert f"hrnet-{width}-{size}-{codec}-mmpose1" in ENTRIES
    for suffix in SUFFIX_SCHEMA:
        assert any(name.endswith(f"-{suffix}") for name in ENTRIES)
    detectors = [name for name, entry in ENTRIES.items() if entry.kind == "detector"]
    assert {"yolo26n", "yolo26s", "yolo26m", "yolo11n", "yolov8n"} <= set(detectors)
    backbones = [name for name, entry in ENTRIES.items() if entry.kind == "backbone"]
    assert {"hrnet-w32-imagenet", "hrnet-w48-imagenet"} <= set(backbones)


def test_the_short_names_lead_to_the_best_mmpose_0_files():
    assert weights.find_entry("hrnet-w32").name == "hrnet-w32-256x192-udp"
    assert weights.find_entry("hrnet-w48").name == "hrnet-w48-384x288-udp"
    for name in ("hrnet-w32", "hrnet-w48"):
        assert "/v1/" not in weights.find_entry(name).urls[0]


def test_the_defaults_are_listed():
    assert weights.find_entry(weights.DEFAULT_MODEL).kind == "pose"
    assert weights.find_entry(weights.DEFAULT_DETECTOR).kind == "detector"
    assert weights.find_entry(weights.STARTER_MODEL).file
    assert weights.find_entry(weights.STARTER_DETECTOR).kind == "detector"
    assert weights.find_entry(weights.STARTER_DETECTOR).file


def test_no_two_entries_share_a_file_name():
    """They would take each other's place in the cache."""
    names = [entry.file_name for entry in ENTRIES.values()]
    assert sorted(names) == sorted(set(names))


@pytest.mark.parametrize("name", [weights.STARTER_MODEL, weights.STARTER_DETECTOR])
def test_shipped_files_are_intact_and_have_a_card(name):
    entry = weights.find_entry(name)
    path = weights.cached_path(entry)
    assert path is not None
    assert path.stat().st_size == entry.size_bytes
    assert weights.fetch(entry, offline=True) == path
    card = path.with_suffix(".md").read_text(encoding="utf-8")
    assert entry.sha256 in card
    assert f"{entry.measured_ap:.3f}" in card
    assert "research use" in card


def test_the_shipped_files_are_small():
    entries = [entry for entry in ENTRIES.values() if entry.file]
    assert sum(weights.stored_path(entry).stat().st_size for entry in entries) < 40e6


# --- finding the list, and reading it strictly ----------------------------------------------------


def test_the_list_is_found_inside_the_package_first_and_then_beside_pyproject(tmp_path):
    package = tmp_path / "project" / "src" / "hrnet_cli"
    package.mkdir(parents=True)
    with pytest.raises(ConfigError, match=r"weights\.toml is neither .* nor ") as caught:
        weights.weights_list_path(package)
    assert caught.value.hint == "reinstall hrnet-cli"
    (tmp_path / "project" / "weights.toml").write_text(MINIMAL)
    assert weights.weights_list_path(package) == tmp_path / "project" / "weights.toml"
    (package / "weights.toml").write_text(MINIMAL)
    assert weights.weights_list_path(package) == package / "weights.toml"


def read(tmp_path, text):
    path = tmp_path / "weights.toml"
    path.write_text(text)
    return weights.load_weights_list(path)


def test_a_minimal_list_is_read(tmp_path):
    entry = read(tmp_path, MINIMAL)["tiny"]
    assert entry.file_name == "tiny-01234567.pth"
    assert entry.size_bytes is None


@pytest.mark.parametrize(
    ("change", "message", "hint"),
    [
        ('sha256sum = "01"', r"\[tiny\]: unknown key 'sha256sum'", "did you mean 'sha256'?"),
        ('zzz = "01"', r"\[tiny\]: unknown key 'zzz'", "known keys: kind, "),
        ('size_bytes = "12"', r"size_bytes is '12', expected int", ""),
        ("size_bytes = true", r"size_bytes is True, expected int", ""),
        ("size_bytes = 0", r"size_bytes is 0, expected more than 0", ""),
        ("published_ap = 74.4", r"published_ap is 74\.4, expected 0 to 1", ""),
        ("published_ap = 0.7", r"published_ap is 0\.7, expected 0 to 1 and words", ""),
        ("aliases = [1]", r"aliases is \[1\], expected a list of texts", ""),
        ("input_hw = [256]", r"input_hw is \[256\], expected \[height, width\]", ""),
        ('aliases = ["tiny"]', r"alias 'tiny' of 'tiny' stands twice", ""),
        ('codec = "udp"', r"'tiny': codec belongs to pose models", ""),
        ('file = "x.pth"', r"'tiny': expected either urls or the file", ""),
    ],
)
def test_a_key_that_does_not_fit_is_named(tmp_path, change, message, hint):
    with pytest.raises(ConfigError, match=message) as caught:
        read(tmp_path, MINIMAL + change)
    assert caught.value.hint.startswith(hint)
    assert str(tmp_path / "weights.toml") in caught.value.message
    assert caught.value.exit_code == ExitCode.CONFIG


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('licence = "MIT"', "", "key 'licence' is missing"),
        ("https://", "http://", "does not start with https://"),
        ('"01234567"', '"0123456"', "sha256 is '0123456', expected 64 lower-case hex digits"),
        ("backbone", "model", "kind is 'model', expected one of pose, backbone, detector"),
        ("width = 32", "", "width is 0, which does not fit a backbone"),
        ("tiny-01234567.pth", "get?id=1", "'get\\?id=1' is not a plain file name"),
        ("[tiny]", "tiny = 3\n[other]", r"\[tiny\]: expected a table, is 3"),
        ("[tiny]", "[tiny", "cannot read"),
    ],
)
def test_an_entry_that_does_not_fit_is_named(tmp_path, old, new, message):
    with pytest.raises(ConfigError, match=message):
        read(tmp_path, MINIMAL.replace(old, new))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"codec": "megvii"}, "codec is 'megvii', expected one of msra, dark, udp"),
        ({"keypoint_schema": ""}, "keypoint_schema belongs to pose models, and they need it"),
        ({"input_hw": (250, 192)}, r"input_hw is \[250, 192\], expected two multiples of 32"),
    ],
)
def test_a_pose_entry_needs_a_whole_description(changes, message):
    with pytest.raises(ConfigError, match=message):
        replace(weights.find_entry("hrnet-w32"), **changes)


def test_a_list_that_is_not_there_is_a_config_error(tmp_path):
    with pytest.raises(ConfigError, match=r"cannot read .*weights\.toml"):
        weights.load_weights_list(tmp_path / "weights.toml")


def test_an_unknown_name_is_answered_with_near_ones():
    with pytest.raises(WeightsError) as caught:
        weights.find_entry("hrnet-w23")
    assert caught.value.message == "no weights are called 'hrnet-w23'"
    assert caught.value.hint.startswith("did you mean hrnet-w32")
    assert caught.value.hint.endswith("`hrnet download-weights --list` shows all names")
    with pytest.raises(WeightsError) as caught:
        weights.find_entry("qqqq")
    assert caught.value.hint == "`hrnet download-weights --list` shows all names"


def test_the_list_needs_the_standard_library_only():
    code = (
        "import sys; import hrnet_cli.weights as w; w.find_entry('hrnet-w32');"
        "print({'numpy', 'torch', 'cv2', 'requests', 'platformdirs', 'rich'} & set(sys.modules))"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert result.stdout.strip() == "set()"


# --- the cache ------------------------------------------------------------------------------------


def test_the_cache_lies_in_hrnet_home_or_the_platforms_cache(monkeypatch, tmp_path):
    monkeypatch.setenv("HRNET_HOME", str(tmp_path))
    assert cache_folder() == tmp_path
    assert weights.stored_path(an_entry()) == tmp_path / "weights" / "tiny.pth"
    monkeypatch.setenv("HRNET_HOME", "~/poses")
    assert cache_folder() == Path.home() / "poses"
    monkeypatch.delenv("HRNET_HOME")
    assert "hrnet-cli" in cache_folder().parts


def test_a_cached_file_is_used_without_the_network(home, no_network):
    entry = an_entry()
    path = store(entry, b"some weights")
    assert weights.cached_path(entry) == path
    assert weights.fetch(entry) == path
    assert weights.fetch(entry, offline=True) == path


def test_a_damaged_file_is_noticed_though_its_length_and_time_are_right(home, caplog):
    entry = an_entry(size_bytes=12)
    path = store(entry, b"some wEights")
    assert weights.is_stored(entry)
    assert weights.cached_path(entry) is None
    assert f"{path} is damaged: sha256 " in caplog.text
    with pytest.raises(UnreachableError) as caught:
        weights.fetch(entry, offline=True)
    assert caught.value.message == (
        f"{path}, the file of 'tiny', is damaged and --offline forbids downloading it"
    )


def test_a_file_of_another_length_does_not_count_as_stored(home):
    entry = an_entry(size_bytes=13)
    store(entry, b"some weights")
    assert not weights.is_stored(entry)


def test_offline_a_missing_file_says_how_to_bring_it(home, no_network):
    with pytest.raises(UnreachableError) as caught:
        weights.fetch(an_entry(), offline=True)
    assert caught.value.message == (
        f"{home}/weights/tiny.pth, the file of 'tiny', is missing and --offline forbids"
        " downloading it"
    )
    assert "`hrnet download-weights tiny`" in caught.value.hint
    assert "--from FILE" in caught.value.hint
    assert caught.value.exit_code == ExitCode.WEIGHTS


def test_a_damaged_file_is_downloaded_again(home, monkeypatch):
    entry = an_entry(size_bytes=12)
    store(entry, b"broken")
    asked = []

    def download(urls, target, **options):
        asked.append((list(urls), target, options["sha256"], options["size_bytes"]))
        target.write_bytes(b"some weights")
        return target

    monkeypatch.setattr(weights, "download", download)
    path = weights.fetch(entry)
    assert asked == [(list(entry.urls), path, entry.sha256, 12)]
    assert path.read_bytes() == b"some weights"
    weights.fetch(entry)
    assert len(asked) == 1
    weights.fetch(entry, overwrite=True, mirror="http://mirror/weights/")
    assert asked[1][0] == ["http://mirror/weights/tiny.pth"]


@pytest.mark.parametrize(
    "mirror", ["http://a/b", "http://a/b/", "http://a/b/tiny.pth"], ids=["folder", "slash", "file"]
)
def test_a_mirror_is_a_folder_or_the_file_itself(mirror):
    assert weights.mirror_url(mirror, an_entry()) == "http://a/b/tiny.pth"


def test_a_damaged_installation_is_named(monkeypatch, tmp_path, no_network):
    entry = weights.find_entry("starter")
    monkeypatch.setattr(weights, "PACKAGE", tmp_path)
    with pytest.raises(WeightsError, match="that ships with hrnet-cli, is missing") as caught:
        weights.fetch(entry)
    assert caught.value.hint == "reinstall hrnet-cli"
    (tmp_path / "starter").mkdir()
    (tmp_path / entry.file).write_bytes(b"broken")
    with pytest.raises(WeightsError, match="that ships with hrnet-cli, is damaged"):
        weights.fetch(entry)


def test_a_local_file_is_installed_under_its_published_name(home, tmp_path):
    source = tmp_path / "from-usb.bin"
    source.write_bytes(b"some weights")
    assert weights.install_file(an_entry(), source) == home / "weights" / "tiny.pth"
    assert weights.cached_path(an_entry()) is not None


def test_a_local_file_that_is_another_one_is_refused(home, tmp_path):
    source = tmp_path / "tiny.pth"
    source.write_bytes(b"other weights")
    with pytest.raises(WeightsError, match=r"tiny\.pth has sha256 [0-9a-f]{64}, expected"):
        weights.install_file(an_entry(), source)
    with pytest.raises(InputError, match="cannot read"):
        weights.install_file(an_entry(), tmp_path / "gone.pth")
    with pytest.raises(WeightsError, match="'starter' ships with the package"):
        weights.install_file(weights.find_entry("starter"), source)


def test_a_cache_folder_that_is_a_file_is_an_output_error(monkeypatch, tmp_path):
    (tmp_path / "home").write_text("not a folder")
    monkeypatch.setenv("HRNET_HOME", str(tmp_path / "home"))
    source = tmp_path / "tiny.pth"
    source.write_bytes(b"some weights")
    with pytest.raises(OutputError, match="cannot write"):
        weights.install_file(an_entry(), source)


def test_a_file_is_identified_by_its_hash():
    path = weights.stored_path(weights.find_entry("starter"))
    found = weights.identify(hashlib.sha256(path.read_bytes()).hexdigest())
    assert [entry.name for entry in found] == ["starter"]
    assert weights.identify("0" * 64) == []


def test_only_listed_files_are_shipped():
    """Weights of others keep their own terms; none of them may slip into the package."""
    suffixes = {".pth", ".pt", ".safetensors", ".onnx", ".bin"}
    files = {p.relative_to(weights.PACKAGE).as_posix() for p in weights.PACKAGE.rglob("*.*")}
    shipped = {file for file in files if Path(file).suffix in suffixes}
    assert shipped == {entry.file for entry in ENTRIES.values() if entry.file}
