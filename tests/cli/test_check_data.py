"""``hrnet check-data``: what it prints, and its exit codes."""

import json

import pytest
import typer
from PIL import Image
from typer.testing import CliRunner

from hrnet_cli.cli import _ErrorBoundary
from hrnet_cli.cli.check_data import EXAMPLES, check_data
from hrnet_cli.errors import ExitCode

NAMES = ["tip", "left_hand", "right_hand"]


@pytest.fixture(autouse=True)
def _home(tmp_path, monkeypatch):
    monkeypatch.setenv("HRNET_HOME", str(tmp_path / "home"))


@pytest.fixture
def imps(tmp_path):
    """Three photos, one of them missing, one person on each."""
    for name in ("a.jpg", "b.jpg"):
        Image.new("RGB", (100, 80), (len(name), ord(name[0]), 50)).save(tmp_path / name)
    images = [
        {"id": i, "file_name": f"{name}.jpg", "width": 100, "height": 80}
        for i, name in enumerate("abc")
    ]
    annotations = [
        {
            "id": i, "image_id": i, "category_id": 1, "bbox": [5, 5, 60, 70], "area": 900,
            "keypoints": [20, 20, 2, 50, 30, 1, 20, 30, 0],
        }
        for i in range(3)
    ]  # fmt: skip
    categories = [{"id": 1, "name": "imp", "keypoints": NAMES}]
    document = {"images": images, "annotations": annotations, "categories": categories}
    path = tmp_path / "imps.json"
    path.write_text(json.dumps(document))
    return path


def run(*args):
    app = typer.Typer(cls=_ErrorBoundary, rich_markup_mode=None)
    app.command(name="check-data", epilog=EXAMPLES)(check_data)
    app.command(name="other")(lambda: None)
    return CliRunner().invoke(app, ["check-data", *map(str, args)])


def test_table_and_findings_on_stdout(imps):
    result = run(imps)
    assert result.exit_code == ExitCode.OK
    lines = [line.split() for line in result.stdout.splitlines()]
    assert ["keypoint", "visible", "hidden", "unlabelled"] in lines
    assert ["tip", "3", "0", "0"] in lines
    assert ["left_hand", "0", "3", "0"] in lines
    assert ["right_hand", "0", "0", "3"] in lines
    assert "imps: 3 people in 3 photos, 3 people to train on" in result.stdout
    assert "cannot be used: 1 photos are missing: c.jpg" in result.stdout
    assert "flip pairs: left_hand and right_hand" in result.stderr


def test_quiet_says_no_notes(imps):
    assert run(imps, "--quiet").stderr == ""


def test_strict_ends_with_3(imps):
    result = run(imps, "--strict")
    assert result.exit_code == ExitCode.INPUT
    assert "error: 1 photos or people of imps cannot be used for training" in result.stderr
    assert "hint: correct them, or leave --strict" in result.stderr
    assert "photos are missing" in result.stdout
    Image.new("RGB", (100, 80), 7).save(imps.parent / "c.jpg")
    result = run(imps, "--strict")
    assert result.exit_code == ExitCode.OK
    assert "nothing odd was found" in result.stdout


def test_labels_only(imps):
    result = run(imps, "--labels-only", "--strict")
    assert result.exit_code == ExitCode.OK
    assert "missing" not in result.stdout


def test_json(imps):
    report = json.loads(run(imps, "--json").stdout)
    assert report["schema"] == "hrnet-check-data/1"
    assert (report["photos"], report["people"], report["usable"]) == (3, 3, 3)
    assert report["keypoints"][1] == {"name": "left_hand", "visible": 0, "hidden": 3}
    assert report["findings"] == [
        {"what": "photos are missing", "count": 1, "unusable": True, "examples": ["c.jpg"]}
    ]
    assert report["unusable"] == 1


def test_sheet(imps, tmp_path):
    sheet = tmp_path / "out" / "sheet.png"
    result = run(imps, "--sheet", sheet)
    assert result.exit_code == ExitCode.OK
    assert f"wrote {sheet}" in result.stderr
    with Image.open(sheet) as image:
        assert image.size[1] > 250
    assert run(imps, "--sheet", sheet).exit_code == ExitCode.OUTPUT
    assert "exists already" in run(imps, "--sheet", sheet).stderr
    assert run(imps, "--sheet", sheet, "--overwrite").exit_code == ExitCode.OK


def test_sheet_of_an_unknown_form(imps):
    result = run(imps, "--sheet", "sheet.txt")
    assert result.exit_code == ExitCode.USAGE
    assert "--sheet is 'sheet.txt', expected a picture file ending in .png" in result.stderr


def test_data_that_cannot_be_read(tmp_path):
    result = run(tmp_path / "none.json")
    assert result.exit_code == ExitCode.INPUT
    assert "cannot be read: No such file" in result.stderr
    (tmp_path / "bad.toml").write_text("x = 5")
    result = run(tmp_path / "bad.toml")
    assert result.exit_code == ExitCode.CONFIG
    assert "unknown key 'x'" in result.stderr


def test_names_of_photos_cannot_move_the_cursor(imps):
    document = json.loads(imps.read_text())
    document["images"][2]["file_name"] = "evil\x1b[2J.jpg"
    imps.write_text(json.dumps(document))
    result = run(imps)
    assert "\x1b" not in result.stdout
    assert "evil\\x1b[2J.jpg" in result.stdout
