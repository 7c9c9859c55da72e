"""``hrnet convert``: the same outputs as from ``hrnet detect``, without the networks."""

import json
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from hrnet_cli import checkpoint
from hrnet_cli.cli import app
from hrnet_cli.config import ModelSpec
from hrnet_cli.models.hrnet import HRNet
from hrnet_cli.schema import load_schema
from videos import read_video, write_video

RUNNER = CliRunner()
TABLES = "csv,coco,openpose,angles"
# An untrained network is sure of no keypoint.
DRAWN = ("--draw", "boxes")


def hrnet(command, *words, code=0):
    result = RUNNER.invoke(app, [command, *map(str, words)])
    assert "Traceback" not in result.output
    assert result.exception is None or isinstance(result.exception, SystemExit), result
    assert result.exit_code == code, result.output
    return result


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    """A folder with a video and photos, and what ``detect`` found in them, in ``out``."""
    folder = tmp_path_factory.mktemp("found")
    torch.manual_seed(0)
    spec = ModelSpec("tiny", 4, (64, 32), "dark", load_schema("coco17"))
    network = HRNet(spec.width, len(spec.schema))
    model = folder / "tiny.safetensors"
    checkpoint.save_model(model, network.state_dict(), spec, provenance="a test", licence="none")
    clip = write_video(folder / "clip.mp4", 12, audio="aac")
    for name in ("a.png", "below/a.png"):
        place = folder / "photos" / name
        place.parent.mkdir(exist_ok=True)
        cv2.imwrite(
            str(place), np.random.default_rng(len(name)).integers(0, 255, (48, 64, 3), np.uint8)
        )
    words = ["--model", model, "--device", "cpu", "--runtime", "torch", "--offline"]
    words += ["--detector", "whole-image", "--format", f"jsonl,{TABLES}", *DRAWN]
    photos = folder / "photos"
    hrnet("detect", clip, photos, "--recursive", *words, "--out", folder / "out")
    smooth = ["--track", "--smooth", "savgol"]
    hrnet("detect", clip, *smooth, *words, "--out", folder / "smooth")
    return folder


def tree(folder):
    return {path.relative_to(folder) for path in Path(folder).rglob("*") if path.is_file()}


def keypoints(path):
    lines = Path(path).read_text().splitlines()
    return np.array([json.loads(line)["people"][0]["keypoints"] for line in lines])


def test_all_formats_and_pictures_come_again(found, tmp_path):
    out = tmp_path / "again"
    words = ["--format", f"jsonl,{TABLES}", *DRAWN, "--out", out]
    said = hrnet("convert", found / "out", *words).stderr
    assert "2 photos, 1 video, 12 frames, 14 people" in said
    assert tree(out) == tree(found / "out")
    for path in tree(out):
        if path.suffix in {".json", ".jsonl", ".csv"}:
            assert (out / path).read_bytes() == (found / "out" / path).read_bytes(), path
    drawn, before = read_video(out / "clip.mp4"), read_video(found / "out" / "clip.mp4")
    assert (drawn.times, drawn.has_audio) == (before.times, True)
    places = [folder / "below" / "a.png" for folder in (out, found / "out", found / "photos")]
    picture, same, photo = [cv2.imread(str(place)) for place in places]
    assert (picture == same).all()
    assert (picture != photo).any()


def test_photos_of_one_name_named_one_by_one_are_drawn_apart(found, tmp_path, monkeypatch):
    monkeypatch.chdir(found / "photos")
    text = (found / "out" / "poses.jsonl").read_text().replace(f"{found / 'photos'}/", "")
    (tmp_path / "poses.jsonl").write_text(text)
    hrnet("convert", tmp_path / "poses.jsonl", *DRAWN, "--out", tmp_path / "drawn")
    assert tree(tmp_path / "drawn") == {Path("a.png"), Path("below/a.png")}


def test_what_was_neither_tracked_nor_smoothed_can_be(found, tmp_path):
    smooth = ["--smooth", "savgol", "--out", tmp_path]
    hrnet("convert", found / "out" / "clip.jsonl", *smooth)
    ours, theirs = keypoints(tmp_path / "clip.jsonl"), keypoints(found / "smooth" / "clip.jsonl")
    np.testing.assert_allclose(ours, theirs, atol=0.0021)
    assert np.abs(ours - keypoints(found / "out" / "clip.jsonl")).max() > 0.1


def test_smoothing_begins_anew_with_what_the_network_gave(found, tmp_path):
    for name in ("out", "smooth"):
        words = ["--smooth", "gaussian", "--format", "csv", "--out", tmp_path / name]
        hrnet("convert", found / name / "clip.jsonl", *words)
    rows = [(tmp_path / name / "clip.csv").read_text() for name in ("out", "smooth")]
    assert rows[0] == rows[1]
    # Without smoothing they stay smooth.
    hrnet("convert", found / "smooth" / "clip.jsonl", "--out", tmp_path / "kept")
    assert (tmp_path / "kept" / "clip.jsonl").read_bytes() == (
        found / "smooth" / "clip.jsonl"
    ).read_bytes()


def test_ids_stay_unless_people_are_followed_anew(found, tmp_path):
    lines = (found / "smooth" / "clip.jsonl").read_text().replace('"id":1,', '"id":7,')
    (tmp_path / "named.jsonl").write_text(lines)
    for words, expected in ((["--smooth", "median"], 7), (["--track"], 1)):
        out = tmp_path / words[0]
        hrnet("convert", tmp_path / "named.jsonl", *words, "--out", out)
        line = json.loads((out / "named.jsonl").read_text().splitlines()[0])
        assert line["people"][0]["id"] == expected


def test_a_part_of_a_video_to_standard_output(found):
    words = ["--start", "0.2", "--max-frames", "3", "--out", "-", "--quiet"]
    lines = hrnet("convert", found / "out" / "clip.jsonl", *words).stdout.splitlines()
    assert [json.loads(line)["frame"] for line in lines] == [5, 6, 7]
    photos = hrnet("convert", found / "out" / "poses.jsonl", "--out", "-", "--quiet").stdout
    assert photos == (found / "out" / "poses.jsonl").read_text()


def test_slow_motion_divides_times_and_leaves_the_drawn_video(found, tmp_path):
    slow = ["--slow-motion", "8", "--out", tmp_path]
    hrnet("convert", found / "out" / "clip.jsonl", *slow)
    lines = [json.loads(line) for line in (tmp_path / "clip.jsonl").read_text().splitlines()]
    assert [line["time_s"] for line in lines] == pytest.approx([i / 200 for i in range(12)])
    # Drawn on from these, the video plays as ever, and the times stay.
    again = [*DRAWN, "--format", "jsonl", "--out", tmp_path / "again"]
    hrnet("convert", tmp_path / "clip.jsonl", *again)
    assert read_video(tmp_path / "again" / "clip.mp4").times == read_video(found / "clip.mp4").times
    assert (tmp_path / "again" / "clip.jsonl").read_text() == (tmp_path / "clip.jsonl").read_text()


def test_media_that_lie_elsewhere_or_nowhere(found, tmp_path):
    moved = tmp_path / "moved.jsonl"
    text = (found / "out" / "clip.jsonl").read_text()
    moved.write_text(text.replace(str(found / "clip.mp4"), "gone/clip.mp4"))
    error = hrnet("convert", moved, "--skeleton", "--out", tmp_path / "no", code=3).stderr
    assert "'gone/clip.mp4', of which" in error
    assert "--media" in error
    assert not (tmp_path / "no").exists()
    for media in (found, found / "clip.mp4"):
        hrnet("convert", moved, "--skeleton", "--media", media, "--overwrite", "--out", tmp_path)
        assert len(read_video(tmp_path / "moved.mp4").times) == 12
    black = ["--skeleton", "--background", "black", "--out", tmp_path / "black"]
    hrnet("convert", moved, *black)
    pictures = read_video(tmp_path / "black" / "moved.mp4").images
    assert len(pictures) == 12
    assert np.median(pictures[0][:48]) < 20  # of the luminance
    other = write_video(tmp_path / "other.mp4", 12, size_wh=(32, 32))
    words = ["--skeleton", "--media", other, "--out", tmp_path / "other"]
    error = hrnet("convert", moved, *words, code=3).stderr
    assert "has no frame 0 of 64x48 pixels" in error


def test_records_are_never_replaced_by_what_is_made_of_them(found, tmp_path):
    shutil.copytree(found / "out", tmp_path / "out")
    before = (tmp_path / "out" / "clip.jsonl").read_bytes()
    words = ["--out", tmp_path / "out", "--overwrite", "--smooth", "savgol"]
    error = hrnet("convert", tmp_path / "out" / "clip.jsonl", *words, code=8).stderr
    assert "would replace the records it is made of" in error
    assert (tmp_path / "out" / "clip.jsonl").read_bytes() == before


def test_records_that_cannot_be_used_are_told_and_the_others_converted(found, tmp_path):
    files = {
        "empty.jsonl": "",
        "other.jsonl": '{"schema": "else"}\n',
        "mixed.jsonl": (found / "out" / "clip.jsonl").read_text()
        + (found / "out" / "poses.jsonl").read_text(),
        "twice.jsonl": 2 * (found / "out" / "clip.jsonl").read_text(),
    }
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    good = found / "out" / "clip.jsonl"
    words = ["--format", "csv", "--out", tmp_path / "csv"]
    said = hrnet("convert", *(tmp_path / name for name in files), good, *words, code=3).stderr
    for expected in (
        "empty.jsonl' is empty, expected the JSON Lines",
        "other.jsonl' line 1 is no pose record",
        "mixed.jsonl' speaks of ",
        "twice.jsonl' has two records of one frame",
    ):
        assert expected in said
    assert tree(tmp_path / "csv") == {Path("clip.csv")}
    none = hrnet("convert", tmp_path / "empty.jsonl", "--json", *words, code=3).stdout
    assert "empty.jsonl' is empty" in json.loads(none)["failed"][0]["error"]


@pytest.mark.parametrize(
    ("words", "code", "expected"),
    [
        (["clip.jsonl", "--draw", "heatmap"], 2, "records hold no heatmaps"),
        (["poses.jsonl", "--smooth", "savgol"], 2, "--smooth is about videos"),
        (["poses.jsonl", "--format", "trc"], 2, "takes no photos"),
        (["clip.jsonl", "clip.jsonl"], 2, "would have the same outputs, 'clip'"),
        (["nothing.jsonl"], 3, "cannot be read: No such file"),
        (["openpose"], 3, "holds no records"),
    ],
)
def test_mistakes(found, tmp_path, words, code, expected):
    words = [found / "out" / word if "." in word or word == "openpose" else word for word in words]
    error = hrnet("convert", *words, "--out", tmp_path / "x", code=code).stderr
    assert expected in error
    assert not (tmp_path / "x").exists()
