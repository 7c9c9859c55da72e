"""``hrnet detect``: what it prints, what it writes, and how it ends."""

import csv
import functools
import io
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw
from typer.testing import CliRunner

from hrnet_cli import checkpoint, pipeline, weights
from hrnet_cli.cli import app
from hrnet_cli.config import ModelSpec
from hrnet_cli.errors import ExitCode
from hrnet_cli.estimator import PoseEstimator
from hrnet_cli.models.hrnet import HRNet
from hrnet_cli.resuming import ResumeFolder
from hrnet_cli.schema import load_schema

RUNNER = CliRunner()
RECORD_KEYS = [
    "schema", "source", "frame", "time_s", "width", "height", "orientation", "keypoint_schema",
    "model", "detector", "people",
]  # fmt: skip
PERSON_KEYS = ["id", "box", "box_score", "score", "keypoints", "in_frame"]
FORMATS = "jsonl,csv,coco,openpose"


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    """A tiny untrained network that says of itself what it is."""
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("model") / "tiny.safetensors"
    spec = ModelSpec("tiny", 4, (64, 32), "dark", load_schema("coco17"))
    network = HRNet(spec.width, len(spec.schema))
    for module in network.modules():
        if isinstance(module, torch.nn.Conv2d):
            # The official start gives heatmaps of nearly 0, of which nothing would be drawn.
            torch.nn.init.xavier_uniform_(module.weight)
    checkpoint.save_model(path, network.state_dict(), spec, provenance="a test", licence="none")
    return path


@pytest.fixture(scope="module", autouse=True)
def _quick():
    """Read each model once, and compute these tiny crops without waiting for other threads."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(checkpoint, "load_model", functools.cache(checkpoint.load_model))
        yield
    torch.set_num_threads(threads)


@pytest.fixture(autouse=True)
def _own_folder(tmp_path, monkeypatch):
    """Every test starts in an empty folder, with an empty cache of weights."""
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    monkeypatch.setenv("HRNET_HOME", str(tmp_path / "cache"))


@pytest.fixture
def hrnet(model):
    """Run ``hrnet detect`` with the tiny model and every photo as one person."""

    def run(*arguments, code=0, input_=None, defaults=True):
        words = ["detect", *map(str, arguments)]
        if defaults:
            words += ["--model", str(model), "--device", "cpu", "--offline", "--runtime", "torch"]
            if "--boxes" not in words and "--detector" not in words:
                words += ["--detector", "whole-image"]
        result = RUNNER.invoke(app, words, input=input_)
        assert result.exception is None or isinstance(result.exception, SystemExit), result
        assert "Traceback" not in result.output
        assert result.exit_code == code, result.output
        return result

    return run


def draw_photo(name: str, size=(48, 64)) -> Path:
    """Write a photo with a pale figure on green."""
    image = Image.new("RGB", size, (40, 110, 60))
    width, height = size
    pen = ImageDraw.Draw(image)
    pen.ellipse((0.4 * width, 0.1 * height, 0.6 * width, 0.3 * height), (230, 200, 180))
    pen.rectangle((0.35 * width, 0.3 * height, 0.65 * width, 0.9 * height), (200, 60, 50))
    path = Path(name)
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path)
    return path


def write_boxes(name: str, people_of: dict[str, list], **fields) -> Path:
    """Write a boxes file as hrnet does."""
    path = Path(name)
    lines = [
        {"source": source, "people": [{"box": box, "box_score": 0.9} for box in boxes]} | fields
        for source, boxes in people_of.items()
    ]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def records(path="hrnet-out/poses.jsonl") -> list[dict]:
    return [json.loads(line) for line in Path(path).read_text(encoding="utf-8").splitlines()]


def errors_of(result) -> list[str]:
    return [line for line in result.stderr.splitlines() if line.startswith("error: ")]


def files(folder: str = ".") -> list[str]:
    paths = Path(folder).rglob("*")
    return sorted(path.relative_to(folder).as_posix() for path in paths if path.is_file())


def contents(folder: str) -> dict[str, bytes]:
    return {name: (Path(folder) / name).read_bytes() for name in files(folder)}


# What is written ----------------------------------------------------------------------------------


def test_the_starter_model_writes_a_record_and_a_picture_and_says_where(hrnet):
    draw_photo("photo.jpg")
    result = hrnet(
        "photo.jpg", "--model", "starter", "--offline", "--detector", "whole-image", "--skeleton",
        "--device", "cpu", defaults=False,
    )  # fmt: skip
    first, last = result.stderr.splitlines()
    assert re.fullmatch(
        r"model starter: 17 keypoints \(coco17\), input 256x192, \w+ fp32,"
        r" loaded \d+ of \d+ tensors \(official names\)",
        first,
    )
    assert re.fullmatch(
        r"1 photo, 1 person in \d+\.\d s; wrote pictures in hrnet-out, hrnet-out/poses\.jsonl", last
    )
    assert result.stdout == ""
    assert files("hrnet-out") == ["photo.jpg", "poses.jsonl"]
    (record,) = records()
    assert list(record) == RECORD_KEYS
    assert (record["schema"], record["source"], record["frame"]) == (
        "hrnet-poses/1", "photo.jpg", 0,
    )  # fmt: skip
    assert (record["width"], record["height"], record["orientation"]) == (48, 64, 1)
    assert (record["model"], record["detector"]) == ("starter", "whole-image")
    assert record["keypoint_schema"] == "coco17"
    (person,) = record["people"]
    assert list(person) == PERSON_KEYS
    assert person["box"] == [0, 0, 48, 64]
    assert np.array(person["keypoints"]).shape == (17, 3)
    assert len(person["in_frame"]) == 17


def test_each_photo_has_its_record_people_or_not(hrnet):
    for name in ("a.jpg", "b.jpg", "c.jpg"):
        draw_photo(f"set/{name}")
    two, partly_outside = [[2, 2, 40, 60], [5, 5, 30, 30]], [[-9, -9, 20, 30]]
    boxes = write_boxes("boxes.jsonl", {"a.jpg": two, "b.jpg": [], "c.jpg": partly_outside})
    result = hrnet("set", "--boxes", boxes, "--format", FORMATS)
    assert [len(record["people"]) for record in records()] == [2, 0, 1]
    assert [record["source"] for record in records()] == [f"set/{n}.jpg" for n in "abc"]
    assert records()[2]["people"][0]["box"] == [-9, -9, 20, 30]
    assert records()[0]["detector"] == "boxes-file"
    assert re.fullmatch(
        r"3 photos, 3 people in \d+\.\d s; wrote hrnet-out/poses\.jsonl, hrnet-out/poses\.csv,"
        r" hrnet-out/poses\.coco\.json, hrnet-out/openpose",
        result.stderr.splitlines()[-1],
    )
    rows = list(csv.DictReader(io.StringIO(Path("hrnet-out/poses.csv").read_text())))
    assert {row["source"] for row in rows} >= {"set/a.jpg", "set/c.jpg"}
    coco = json.loads(Path("hrnet-out/poses.coco.json").read_text())
    assert len(coco) == 3
    assert all(len(result["keypoints"]) == 51 for result in coco)
    assert sorted(files("hrnet-out/openpose")) == [f"{n}_keypoints.json" for n in "abc"]


def test_pictures_lie_at_the_relative_path_of_their_photo(hrnet):
    draw_photo("set/a.jpg")
    draw_photo("set/sub/a.jpg")
    draw_photo("set/sub/b.gif")
    hrnet("set", "--recursive", "--draw", "keypoints,skeleton,boxes,scores,heatmap", "--out", "out")
    assert files("out") == ["a.jpg", "poses.jsonl", "sub/a.jpg", "sub/b.gif.png"]
    with Image.open("out/sub/a.jpg") as picture, Image.open("set/sub/a.jpg") as photo:
        assert picture.size == photo.size
        assert np.abs(np.array(picture, int) - np.array(photo, int)).max() > 40


def test_skeleton_adds_to_what_is_drawn(hrnet):
    draw_photo("photo.png")
    for out, words in {
        "both": ["--skeleton", "--draw", "boxes"],
        "spelt": ["--draw", "keypoints,skeleton,boxes"],
        "boxes": ["--draw", "boxes"],
    }.items():
        hrnet("photo.png", "--out", out, "--keypoint-threshold", "0", *words)
    both, spelt, boxes = (contents(out)["photo.png"] for out in ("both", "spelt", "boxes"))
    assert both == spelt != boxes


@pytest.mark.parametrize("part", ["keypoints", "skeleton", "boxes", "scores", "names", "heatmap"])
def test_pictures_of_nobody_are_the_photos(hrnet, part):
    photo = draw_photo("photo.png")
    boxes = write_boxes("boxes.jsonl", {"photo.png": []})
    hrnet(photo, "--boxes", boxes, "--draw", part)
    with Image.open("hrnet-out/photo.png") as picture, Image.open(photo) as original:
        assert np.array_equal(np.array(picture), np.array(original))


def test_styles_reach_the_picture(hrnet):
    draw_photo("photo.jpg")
    styles = ["--palette", "people", "--point-size", "3", "--line-width", "2"]
    hrnet("photo.jpg", "--skeleton", "--background", "transparent", *styles)
    with Image.open("hrnet-out/photo.jpg.png") as picture:
        assert picture.mode == "RGBA"
        assert np.array(picture)[..., 3].min() == 0


def test_own_connections_are_drawn(hrnet):
    draw_photo("photo.png")
    Path("limbs.toml").write_text('skeleton = [["nose", "left_ankle"]]\n')
    threshold = ["--keypoint-threshold", "0"]
    for out, words in {"own": ["--connections", "limbs.toml"], "all": []}.items():
        hrnet("photo.png", "--draw", "skeleton", "--out", out, *threshold, *words)
    assert contents("own")["photo.png"] != contents("all")["photo.png"]


def test_connections_of_other_keypoints_are_named_and_cost_nothing(hrnet):
    draw_photo("photo.png")
    hrnet("photo.png")
    before = contents("hrnet-out")
    Path("limbs.toml").write_text('skeleton = [["nose", "tail"]]\n')
    words = ["--skeleton", "--connections", "limbs.toml", "--overwrite"]
    result = hrnet("photo.png", *words, code=ExitCode.CONFIG)
    assert "limbs.toml" in errors_of(result)[0]
    assert "'tail'" in errors_of(result)[0]
    assert contents("hrnet-out") == before


def test_low_keypoints_are_dropped_from_records_only_when_asked(hrnet):
    draw_photo("photo.png")
    hrnet("photo.png", "--keypoint-threshold", "1", "--out", "all")
    hrnet("photo.png", "--keypoint-threshold", "1", "--drop-low", "--out", "dropped")
    everything = records("all/poses.jsonl")[0]["people"][0]["keypoints"]
    dropped = records("dropped/poses.jsonl")[0]["people"][0]["keypoints"]
    assert all(len(point) == 3 for point in everything)
    assert dropped == [point if point[2] >= 1 else None for point in everything]


def test_a_stream_is_pure_json_lines(hrnet):
    for number in (1, 2, 10):
        draw_photo(f"set/{number}.jpg")
    result = hrnet("set", "--out", "-")
    found = [json.loads(line) for line in result.stdout.splitlines()]
    assert [record["source"] for record in found] == ["set/1.jpg", "set/2.jpg", "set/10.jpg"]
    assert list(found[0]) == RECORD_KEYS
    assert files() == ["set/1.jpg", "set/10.jpg", "set/2.jpg"]
    assert re.fullmatch(r"3 photos, 3 people in .* s; wrote stdout", result.stderr.splitlines()[-1])


def test_a_stream_may_be_csv(hrnet):
    draw_photo("photo.jpg")
    result = hrnet("photo.jpg", "--out", "-", "--format", "csv")
    rows = list(csv.DictReader(io.StringIO(result.stdout)))
    assert {row["source"] for row in rows} == {"photo.jpg"}


def test_a_summary_in_json_is_all_of_stdout(hrnet):
    draw_photo("set/a.jpg")
    Path("set/b.jpg").touch()
    Path("set/notes.txt").touch()
    result = hrnet("set", "--json", "--skeleton", code=ExitCode.INPUT)
    summary = json.loads(result.stdout)
    assert summary["schema"] == "hrnet-run/1"
    assert (summary["photos"], summary["people"]) == (1, 1)
    assert summary["failed"] == [
        {"source": "set/b.jpg", "error": "photo 'set/b.jpg': the file is empty (0 bytes)"}
    ]
    assert summary["skipped"] == ["set/notes.txt"]
    assert (summary["model"], summary["detector"]) == ("tiny", "whole-image")
    assert summary["out"] == "hrnet-out"
    assert summary["written"] == ["pictures in hrnet-out", "hrnet-out/poses.jsonl"]
    assert set(summary["stages"]) == {
        "read", "detect", "crop", "network", "decode", "draw and write",
    }  # fmt: skip
    assert 0 < sum(summary["stages"].values()) <= summary["seconds"] + 0.01


def test_a_summary_in_json_is_there_where_no_source_can_be_used(hrnet):
    Path("notes.txt").write_text("no photo")
    result = hrnet("a.jpg", "notes.txt", "--json", code=ExitCode.INPUT)
    summary = json.loads(result.stdout)
    assert (summary["photos"], summary["videos"], summary["written"]) == (0, [], [])
    failed = ["'a.jpg' does not exist", "photo 'notes.txt': the file is no picture but text"]
    assert [problem["error"] for problem in summary["failed"]] == failed
    plan = json.loads(hrnet("a.jpg", "--json", "--dry-run", code=ExitCode.INPUT).stdout)
    assert (plan["schema"], plan["read"], plan["write"]) == ("hrnet-plan/1", [], [])


def test_stages_are_shown_on_stderr(hrnet):
    draw_photo("photo.jpg")
    result = hrnet("photo.jpg", "--show-stages", "--quiet")
    assert result.stdout == ""
    for stage in ("read", "detect", "crop", "network", "decode", "draw and write"):
        assert re.search(rf"{stage} .* \d+\.\d\d ", result.stderr)


def test_quiet_says_nothing(hrnet):
    draw_photo("set/a.jpg")
    Path("set/notes.txt").touch()
    result = hrnet("set", "--quiet", "--skeleton")
    assert result.output == ""


def test_quiet_still_says_errors(hrnet):
    draw_photo("a.jpg")
    result = hrnet("a.jpg", "gone.jpg", "-q", code=ExitCode.INPUT)
    assert result.stdout == ""
    assert [line[:5] for line in result.stderr.splitlines()] == ["error", "hint:"]


def test_the_flip_test_and_the_batch_size_change_no_count(hrnet):
    draw_photo("photo.jpg")
    boxes = write_boxes("boxes.jsonl", {"photo.jpg": [[2, 2, 40, 60]] * 5})
    hrnet("photo.jpg", "--boxes", boxes, "--flip-test", "--batch-size", "2")
    assert len(records()[0]["people"]) == 5


def test_boxes_are_kept_as_they_are_unless_a_limit_is_named(hrnet):
    draw_photo("photo.jpg")
    boxes = write_boxes("boxes.jsonl", {"photo.jpg": [[2, 2, 40, 60]] * 5})
    hrnet("photo.jpg", "--boxes", boxes)
    assert len(records()[0]["people"]) == 5
    hrnet("photo.jpg", "--boxes", boxes, "--max-people", "3", "--overwrite")
    assert len(records()[0]["people"]) == 3
    hrnet("photo.jpg", "--boxes", boxes, "--iou", "0.7", "--overwrite")
    assert len(records()[0]["people"]) == 1
    hrnet("photo.jpg", "--boxes", boxes, "--pose-nms", "0.9", "--overwrite")
    assert len(records()[0]["people"]) == 1
    hrnet("photo.jpg", "--boxes", boxes, "--person-threshold", "0.95", "--overwrite")
    assert records()[0]["people"] == []


def test_who_stays_under_a_limit_can_be_chosen(hrnet):
    draw_photo("photo.jpg")
    first, large, central = [2, 2, 10, 10], [0, 5, 40, 60], [20, 28, 28, 36]
    boxes = write_boxes("boxes.jsonl", {"photo.jpg": [first, large, central]})
    for keep, kept in (("surest", first), ("largest", large), ("middle", central)):
        hrnet("photo.jpg", "--boxes", boxes, "--max-people", "1", "--keep", keep, "--overwrite")
        assert [person["box"] for person in records()[0]["people"]] == [kept]


def test_people_outside_a_region_are_left_out_before_others_are_chosen(hrnet):
    draw_photo("photo.jpg")
    first, large, central = [2, 2, 10, 10], [0, 5, 40, 60], [20, 28, 28, 36]
    boxes = write_boxes("boxes.jsonl", {"photo.jpg": [first, large, central]})
    for words, kept in (
        (["--region", "15,20,40,40"], [large, central]),
        (["--region", "15,20,40,40", "--max-people", "1"], [large]),
        (["--region=-5,-5,12,12", "--max-people", "1", "--keep", "largest"], [first]),
    ):
        hrnet("photo.jpg", "--boxes", boxes, *words, "--overwrite")
        assert [person["box"] for person in records()[0]["people"]] == kept


# Existing output ----------------------------------------------------------------------------------


def test_existing_output_is_refused_untouched(hrnet):
    draw_photo("a.jpg")
    hrnet("a.jpg", "--format", FORMATS, "--skeleton")
    before = contents("hrnet-out")
    for words in (["--format", "jsonl"], ["--format", "openpose"], ["--draw", "boxes"]):
        result = hrnet("a.jpg", *words, code=ExitCode.OUTPUT)
        assert re.fullmatch(
            r"error: 'hrnet-out/\S+'( and 1 more)? would be overwritten", errors_of(result)[0]
        )
        assert result.stderr.splitlines()[-1] == (
            "hint: add --overwrite to replace, --append to add, or name another folder with --out"
        )
    assert contents("hrnet-out") == before


def test_other_formats_in_the_same_folder_are_no_clash(hrnet):
    draw_photo("a.jpg")
    hrnet("a.jpg", "--format", "jsonl")
    hrnet("a.jpg", "--format", "csv")
    assert files("hrnet-out") == ["poses.csv", "poses.jsonl"]


def test_overwrite_replaces(hrnet):
    draw_photo("a.jpg")
    draw_photo("b.jpg")
    hrnet("a.jpg", "--format", FORMATS)
    hrnet("b.jpg", "--format", FORMATS, "--overwrite")
    assert [record["source"] for record in records()] == ["b.jpg"]
    assert len(json.loads(Path("hrnet-out/poses.coco.json").read_text())) == 1


def test_append_leaves_records_alone_that_another_run_writes(hrnet):
    for name in ("a.jpg", "b.jpg", "c.jpg"):
        draw_photo(name)
    hrnet("a.jpg")
    before = Path("hrnet-out/poses.jsonl").read_bytes()
    other = ResumeFolder(Path("hrnet-out/poses"))
    result = hrnet("b.jpg", "--append", code=ExitCode.OUTPUT)
    assert "'hrnet-out/poses' is being written by another run of hrnet" in result.stderr
    assert Path("hrnet-out/poses.jsonl").read_bytes() == before
    other.save({}, {})
    other.release()
    # What a broken run needs to go on stays where it is.
    hrnet("b.jpg", "--append")
    assert Path("hrnet-out/poses.resume/state.json").is_file()
    ResumeFolder(Path("hrnet-out/poses")).remove()
    hrnet("c.jpg", "--append")
    assert not Path("hrnet-out/poses.resume").exists()
    assert [record["source"] for record in records()] == ["a.jpg", "b.jpg", "c.jpg"]


def test_append_keeps_earlier_records_and_pictures(hrnet):
    draw_photo("a.jpg")
    draw_photo("b.jpg")
    hrnet("a.jpg", "--format", FORMATS, "--skeleton")
    before = contents("hrnet-out")
    hrnet("b.jpg", "a.jpg", "--format", FORMATS, "--skeleton", "--append")
    assert [record["source"] for record in records()] == ["a.jpg", "b.jpg", "a.jpg"]
    assert len(json.loads(Path("hrnet-out/poses.coco.json").read_text())) == 3
    after = contents("hrnet-out")
    assert after["a.jpg"] == before["a.jpg"]
    assert after["poses.jsonl"].startswith(before["poses.jsonl"])
    assert after["poses.csv"].startswith(before["poses.csv"])
    assert {"a-2.jpg", "b.jpg", "openpose/a.jpg_keypoints.json"} < set(after)


def test_a_run_never_replaces_a_file_it_reads(hrnet):
    draw_photo("a.jpg")
    hrnet("a.jpg")
    Path("hrnet-out/poses.csv").write_text("a.jpg\n")
    before = contents("hrnet-out")
    for words, name in (
        (["a.jpg", "--boxes", "hrnet-out/poses.jsonl"], "poses.jsonl"),
        (["@hrnet-out/poses.csv", "--format", "csv"], "poses.csv"),
    ):
        result = hrnet(*words, "--overwrite", "--dry-run", code=ExitCode.OUTPUT)
        told = f"error: 'hrnet-out/{name}' would be replaced, and this run reads it"
        assert errors_of(result) == [told]
        assert errors_of(hrnet(*words, "--overwrite", code=ExitCode.OUTPUT)) == [told]
    assert contents("hrnet-out") == before
    # What is only added to stays readable.
    hrnet("a.jpg", "--boxes", "hrnet-out/poses.jsonl", "--append")


def test_a_run_within_its_output_folder_never_replaces_a_photo(hrnet):
    photo = draw_photo("a.jpg")
    before = photo.read_bytes()
    result = hrnet("a.jpg", "--out", ".", "--skeleton", "--overwrite", code=ExitCode.OUTPUT)
    assert errors_of(result) == ["error: the drawn picture would replace its own photo 'a.jpg'"]
    assert photo.read_bytes() == before


def test_an_output_folder_that_is_a_file_is_named(hrnet):
    draw_photo("a.jpg")
    Path("taken").touch()
    result = hrnet("a.jpg", "--out", "taken", code=ExitCode.OUTPUT)
    assert "'taken'" in errors_of(result)[0]


def test_a_dry_run_says_what_it_would_do_and_writes_nothing(hrnet):
    draw_photo("set/a.jpg")
    draw_photo("set/b.gif")
    Path("set/notes.txt").touch()
    before = files()
    result = hrnet("set", "--dry-run", "--skeleton", "--format", FORMATS)
    assert result.stdout.splitlines() == [
        "read   set/a.jpg",
        "read   set/b.gif",
        "write  hrnet-out/poses.jsonl",
        "write  hrnet-out/poses.csv",
        "write  hrnet-out/poses.coco.json",
        "write  hrnet-out/openpose",
        "write  hrnet-out/a.jpg",
        "write  hrnet-out/b.gif.png",
        "skip   set/notes.txt",
    ]
    assert files() == before
    assert not Path("hrnet-out").exists()


def test_a_dry_run_in_json(hrnet):
    draw_photo("set/a.jpg")
    Path("set/notes.txt").touch()
    assert json.loads(hrnet("set", "--dry-run", "--json").stdout) == {
        "schema": "hrnet-plan/1",
        "read": ["set/a.jpg"],
        "write": ["hrnet-out/poses.jsonl"],
        "skipped": ["set/notes.txt"],
    }


@pytest.mark.parametrize("words", [["--dry-run"], ["--dry-run", "--json"], ["--json"], []])
def test_names_that_are_not_utf8_cost_nothing(hrnet, words):
    name = os.fsdecode(b"caf\xe9")
    photo = draw_photo("set/a.png")
    try:
        photo.rename(f"set/{name}.png")
    except OSError:
        pytest.skip("this file system takes UTF-8 names only")
    Path(f"set/{name}.txt").touch()
    result = hrnet("set", *words)
    if "--json" in words:
        assert json.loads(result.stdout)["skipped"] == [f"set/{name}.txt"]
    elif words:
        assert f"read   set/{name}.png".encode("utf-8", "surrogateescape") in result.stdout_bytes
    else:
        assert records()[0]["source"] == f"set/{name}.png"


def stop_after(monkeypatch, photos):
    """Let the run be interrupted, as by Ctrl-C, when so many photos were written."""
    real = pipeline.detect_poses

    def stopping(*args, **more):
        for number, found in enumerate(real(*args, **more)):
            if number == photos:
                raise KeyboardInterrupt
            yield found

    monkeypatch.setattr(pipeline, "detect_poses", stopping)


def test_a_broken_run_over_photos_goes_on(hrnet, monkeypatch):
    for number in range(5):
        draw_photo(f"set/{number}.png", (48 + number, 64))
    words = ["set", "--skeleton", "--format", f"{FORMATS},labels,yolo"]
    hrnet(*words, "--out", "whole")
    with monkeypatch.context() as patched:
        stop_after(patched, 3)
        said = hrnet(*words, "--out", "out", code=ExitCode.INTERRUPTED).stderr
    assert "repeat the command with --resume to go on" in said
    kept = Path("out/poses.jsonl").read_bytes()
    assert kept.count(b"\n") == 3
    Path("out/2.png").unlink()  # As a kill between record and picture leaves it.
    with Path("out/poses.jsonl").open("ab") as file:
        file.write(b'{"schema":"hrnet-poses/1","sou')
    with monkeypatch.context() as patched:
        # Stopped at once a second time: nothing of it is lost.
        stop_after(patched, 0)
        hrnet(*words, "--out", "out", "--resume", code=ExitCode.INTERRUPTED)
    assert Path("out/poses.jsonl").read_bytes() == b"".join(kept.splitlines(keepends=True)[:2])
    again = hrnet(*words, "--out", "out", "--resume")
    assert "2 of 5 photos were done before" in again.stderr
    assert files("out") == files("whole")
    for name in files("whole"):
        assert Path("out", name).read_bytes() == Path("whole", name).read_bytes(), name


def test_a_broken_run_over_photos_is_gone_on_with_as_it_was(hrnet, monkeypatch):
    for number in range(3):
        draw_photo(f"set/{number}.png")
    with monkeypatch.context() as patched:
        stop_after(patched, 2)
        hrnet("set", code=ExitCode.INTERRUPTED)
    before = Path("hrnet-out/poses.jsonl").read_bytes()
    other = hrnet("set", "--resume", "--flip-test", code=ExitCode.OUTPUT)
    assert "--flip-test was False and is True" in " ".join(other.stderr.split())
    other = hrnet("set", "--resume", "--pose-nms", "0.9", code=ExitCode.OUTPUT)
    assert "--pose-nms was None and is 0.9" in " ".join(other.stderr.split())
    assert Path("hrnet-out/poses.jsonl").read_bytes() == before
    # One that ends before it opens its files is not taken for the run that made the records.
    Path("limbs.toml").write_text('skeleton = [["nose", "tail"]]\n')
    limbs = ["--skeleton", "--connections", "limbs.toml"]
    hrnet("set", "--overwrite", "--flip-test", *limbs, code=ExitCode.CONFIG)
    other = hrnet("set", "--resume", "--flip-test", code=ExitCode.OUTPUT)
    assert "--flip-test was False and is True" in " ".join(other.stderr.split())
    hrnet("set", "--overwrite", "--flip-test")
    assert len(records()) == 3
    assert not Path("hrnet-out/poses.resume").exists()


def test_a_dry_run_is_refused_where_the_run_would_be(hrnet):
    draw_photo("set/a.jpg")
    own = hrnet("set", "--dry-run", "--skeleton", "--out", "set", code=ExitCode.OUTPUT)
    assert "write  set/a.jpg" in own.stdout
    assert "would replace its own photo" in errors_of(own)[0]
    hrnet("set")
    again = hrnet("set", "--dry-run", code=ExitCode.OUTPUT)
    assert "would be overwritten" in errors_of(again)[0]
    hrnet("set", "--dry-run", "--overwrite")


def test_labels_of_videos_are_refused_before_anything_loads(hrnet, monkeypatch):
    monkeypatch.setattr(checkpoint, "load_model", None)
    Path("clip.mp4").touch()
    result = hrnet("clip.mp4", "--format", "jsonl,labels", code=ExitCode.USAGE)
    assert errors_of(result)[0].startswith("error: format 'labels' labels photos and takes no")


def test_formats_may_be_given_in_turn(hrnet):
    draw_photo("a.jpg")
    result = hrnet("a.jpg", "--dry-run", "--format", "jsonl", "--format", "csv,coco")
    assert [line.split("/")[-1] for line in result.stdout.splitlines()[1:]] == [
        "poses.jsonl",
        "poses.csv",
        "poses.coco.json",
    ]


# Contradictions and misspellings ------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "message", "hint"),
    [
        ("--overwrite --append", "--overwrite and --append exclude each other", "leave one"),
        ("--boxes b --detector c", "--boxes and --detector exclude each other", "leave one"),
        ("--out - --json", "--out - and --json both want stdout", "leave one"),
        ("--out - --skeleton", "--out - streams records, it cannot carry pictures", "leave one"),
        ("--out - --format jsonl,csv", "--out - streams one --format only", "leave one"),
        ("--out - --format coco", "format 'coco' cannot be streamed, expected one of jsonl, csv",
         "name a folder with --out"),
        ("--max-people 1 --keep large", "--keep is 'large', expected one of surest, largest",
         "did you mean 'largest'?"),
        ("--region 5,5,5,9", "--region is '5,5,5,9', expected X1,Y1,X2,Y2 in pixels", "such as"),
        ("--region 1,2,nan,4", "--region is '1,2,nan,4', expected X1,Y1,X2,Y2", "such as"),
        ("--keep largest", "--keep says who stays under --max-people, which is not given",
         "add --max-people 1"),
        ("--format jsnl", "--format is 'jsnl', expected one or more of jsonl,csv,coco,openpose",
         "did you mean 'jsonl'?"),
        ("--format ,", "--format is ',', expected one or more of", ""),
        ("--point-size 5", "--point-size is about drawn pictures, and nothing is drawn",
         "add --skeleton"),
        ("--palette people", "--palette is about drawn pictures, and nothing is drawn",
         "add --skeleton"),
        ("--background black", "--background is about drawn pictures, and nothing is drawn",
         "add --skeleton"),
        ("--draw keypoints,skeletton", "--draw is 'keypoints,skeletton', expected one or more of",
         "did you mean 'skeleton'?"),
        ("--palette side", "--palette is 'side', expected one of sides, people, limbs",
         "did you mean 'sides'?"),
        ("--background blackk", "--background is 'blackk', expected one of photo, black",
         "did you mean 'black'?"),
        ("--input 256", "--input is '256', expected HEIGHTxWIDTH, both multiples of 32", ""),
        ("--input 0x192", "--input is '0x192', expected HEIGHTxWIDTH", ""),
        ("--input 250x192", "--input is '250x192', expected HEIGHTxWIDTH", ""),
    ],
)  # fmt: skip
def test_contradictions_and_misspellings_end_before_anything_loads(
    hrnet, monkeypatch, words, message, hint
):
    monkeypatch.setattr(checkpoint, "load_model", None)
    result = hrnet("gone.jpg", *words.split(), code=ExitCode.USAGE, defaults=False)
    assert errors_of(result)[0].startswith(f"error: {message}")
    hints = [line for line in result.stderr.splitlines() if line.startswith("hint: ")]
    assert ([line[6 : 6 + len(hint)] for line in hints] or [""]) == [hint]
    assert result.stdout == ""


@pytest.mark.parametrize(
    "words",
    ["--batch-size 0", "--max-people 0", "--person-threshold 2", "--iou -1", "--max-megapixels 0",
     "--keypoint-threshold 1.5", "--iou nan", "--point-size 0", "--line-width nan", "--no-such",
     "--track-gap -1", "--track-gap nan", "--track-gap 3601",
     "--point-size inf", "--line-width inf", "--line-width 1e300", "--fill-gaps inf"],
)  # fmt: skip
def test_values_out_of_range_are_refused(hrnet, words):
    result = hrnet("gone.jpg", *words.split(), code=ExitCode.USAGE, defaults=False)
    assert words.split()[0] in result.stderr


def test_an_unknown_model_is_refused(hrnet):
    draw_photo("a.jpg")
    words = ["a.jpg", "--detector", "whole-image", "--offline"]
    result = hrnet(*words, "--model", "hrnet-w23", code=ExitCode.WEIGHTS, defaults=False)
    assert errors_of(result) == ["error: no weights are called 'hrnet-w23'"]
    assert "did you mean hrnet-w32" in result.stderr


def test_a_named_model_that_cannot_be_had_is_refused(hrnet):
    draw_photo("a.jpg")
    words = ["a.jpg", "--detector", "whole-image", "--offline"]
    result = hrnet(*words, "--model", "hrnet-w48", code=ExitCode.WEIGHTS, defaults=False)
    assert "--offline forbids downloading it" in errors_of(result)[0]
    assert not Path("hrnet-out").exists()


def test_the_starter_model_stands_in_with_one_warning(hrnet):
    draw_photo("a.jpg")
    words = ["a.jpg", "--detector", "whole-image", "--offline", "--device", "cpu", "--quiet"]
    result = hrnet(*words, defaults=False)
    (warning,) = result.stderr.splitlines()
    assert warning.startswith("warning: hrnet-w32-256x192-udp is not on this machine")
    assert records()[0]["model"] == "starter"


def test_options_about_a_file_do_not_change_a_listed_model(hrnet):
    draw_photo("a.jpg")
    words = ["a.jpg", "--detector", "whole-image", "--model", "starter", "--codec", "udp"]
    result = hrnet(*words, code=ExitCode.USAGE, defaults=False)
    assert "describe a weights file, but 'starter' is a listed model" in errors_of(result)[0]


@pytest.mark.parametrize(
    ("detector", "message"),
    [
        ("yolo26x7", "no weights are called 'yolo26x7'"),
        ("gone.pt", "'gone.pt' is neither a file nor a name of weights.toml"),
        ("hrnet-w32", "'hrnet-w32' is a pose model, expected a detector"),
        ("yolo26s", "yolo26s.pt, the file of 'yolo26s', is missing and --offline forbids"),
    ],
)
def test_a_detector_that_cannot_be_had_is_named_before_the_model_loads(
    hrnet, monkeypatch, detector, message
):
    draw_photo("a.jpg")
    monkeypatch.setattr(checkpoint, "load_model", None)
    result = hrnet("a.jpg", "--detector", detector, code=ExitCode.WEIGHTS)
    assert message in errors_of(result)[0]
    assert "hint: " in result.stderr


def test_a_folder_with_the_name_of_a_detector_does_not_hide_it(hrnet):
    draw_photo("a.jpg")
    Path("yolo26s").mkdir()
    result = hrnet("a.jpg", "--detector", "yolo26s", code=ExitCode.WEIGHTS)
    assert "the file of 'yolo26s', is missing" in errors_of(result)[0]


@pytest.mark.parametrize("device", ["gpu", "cuda:77"])
def test_an_unknown_device_is_refused(hrnet, device):
    draw_photo("a.jpg")
    words = ["a.jpg", "--detector", "whole-image", "--model", "starter", "--device", device]
    result = hrnet(*words, code=ExitCode.DEVICE, defaults=False)
    assert f"device '{device}'" in errors_of(result)[0]
    assert not Path("hrnet-out").exists()


# Photos of all kinds ------------------------------------------------------------------------------


def write_ordinary_photos(folder: Path) -> dict[str, tuple[int, int]]:
    """Write one photo of each ordinary kind; return the upright size of each."""
    with Image.open(draw_photo("drawn.png")) as image:
        drawn = image.copy()
    grey = np.arange(48 * 64, dtype=np.uint16).reshape(64, 48)
    photos: dict[str, Image.Image] = {
        "grey.jpg": drawn.convert("L"),
        "grey alpha.png": drawn.convert("LA"),
        "palette.png": drawn.convert("P"),
        "rgba.png": drawn.convert("RGBA"),
        "16-bit.png": Image.fromarray(grey * 20),
        "cmyk.jpg": drawn.convert("CMYK"),
        "1x1.png": drawn.resize((1, 1)),
        "3000x2.png": drawn.resize((3000, 2)),
        "två bilder 写真.webp": drawn,
        "UPPER.JPG": drawn,
    }
    folder.mkdir()
    for name, photo in photos.items():
        photo.save(folder / name)
    sizes = {name: photo.size for name, photo in photos.items()}
    for orientation in range(1, 9):
        exif = Image.Exif()
        exif[0x0112] = orientation
        name = f"exif{orientation}.jpg"
        drawn.save(folder / name, exif=exif)
        sizes[name] = (64, 48) if orientation >= 5 else (48, 64)
    return sizes


def test_every_ordinary_photo_has_its_record_and_picture(hrnet):
    sizes = write_ordinary_photos(Path("set"))
    result = hrnet("set", "--skeleton")
    assert result.stderr.splitlines()[-1].startswith(f"{len(sizes)} photos, {len(sizes)} people in")
    by_name = {Path(record["source"]).name: record for record in records()}
    assert {name: (r["width"], r["height"]) for name, r in by_name.items()} == sizes
    for orientation in range(1, 9):
        assert by_name[f"exif{orientation}.jpg"]["orientation"] == orientation
    for name, size in sizes.items():
        (person,) = by_name[name]["people"]
        assert None not in person["keypoints"]
        assert person["box"] == [0, 0, *size]
        with Image.open(Path("hrnet-out") / name) as picture:
            assert picture.size == size


def test_names_from_a_list_and_from_standard_input(hrnet):
    draw_photo("a b.jpg")
    draw_photo("ö.jpg")
    Path("list.txt").write_text("# mine\na b.jpg\n", encoding="utf-8")
    hrnet("@list.txt", "-", input_="ö.jpg\n")
    assert [record["source"] for record in records()] == ["a b.jpg", "ö.jpg"]


def test_a_quoted_glob_finds_photos_and_not_the_output(hrnet):
    draw_photo("x/a.jpg")
    draw_photo("x/y/b.jpg")
    for _ in range(2):
        hrnet("**/*.jpg", "--skeleton", "--overwrite")
        assert [record["source"] for record in records()] == ["x/a.jpg", "x/y/b.jpg"]


# Photos that cannot be used -----------------------------------------------------------------------


@pytest.fixture
def bad_set():
    """A folder with two good photos among bad ones."""
    draw_photo("set/1.jpg")
    Path("set/2-empty.jpg").touch()
    whole = draw_photo("set/3-cut.jpg", (300, 300)).read_bytes()
    Path("set/3-cut.jpg").write_bytes(whole[: len(whole) // 2])
    Path("set/4-text.png").write_text("this is no picture\n")
    Image.new("1", (1100, 1000)).save("set/5-large.png")
    draw_photo("set/6.jpg")
    return "set"


def test_bad_photos_are_named_and_counted_and_the_rest_goes_on(hrnet, bad_set):
    words = ["--max-megapixels", "1", "--skeleton", "--format", FORMATS]
    result = hrnet(bad_set, *words, code=ExitCode.INPUT)
    empty, cut, text, large = errors_of(result)
    assert empty == "error: photo 'set/2-empty.jpg': the file is empty (0 bytes)"
    assert cut.startswith("error: photo 'set/3-cut.jpg': ")
    assert text == "error: photo 'set/4-text.png': the file is no picture but text"
    assert large == (
        "error: photo 'set/5-large.png' is 1100x1000, 1,100,000 pixels; the limit is 1,000,000"
    )
    assert [record["source"] for record in records()] == ["set/1.jpg", "set/6.jpg"]
    assert re.match(
        r"2 photos, 2 people in \d+\.\d s, 4 inputs could not be used; wrote ",
        result.stderr.splitlines()[-1],
    )
    assert {"1.jpg", "6.jpg"} <= set(files("hrnet-out"))


def test_strict_stops_at_the_first_bad_photo(hrnet, bad_set, monkeypatch):
    monkeypatch.setattr(pipeline, "CHUNK_FRAMES", 1)
    result = hrnet(bad_set, "--strict", code=ExitCode.INPUT)
    assert errors_of(result) == ["error: photo 'set/2-empty.jpg': the file is empty (0 bytes)"]
    assert [record["source"] for record in records()] == ["set/1.jpg"]


def test_strict_stops_at_a_missing_file_before_anything_is_written(hrnet):
    draw_photo("a.jpg")
    result = hrnet("a.jpg", "gone.jpg", "--strict", code=ExitCode.INPUT)
    assert errors_of(result) == ["error: 'gone.jpg' does not exist"]
    assert not Path("hrnet-out").exists()


def test_a_missing_file_is_counted_and_the_rest_goes_on(hrnet):
    draw_photo("a.jpg")
    result = hrnet("gone.jpg", "a.jpg", code=ExitCode.INPUT)
    assert errors_of(result) == ["error: 'gone.jpg' does not exist"]
    assert "1 photo, 1 person in" in result.stderr.splitlines()[-1]
    assert "1 input could not be used" in result.stderr.splitlines()[-1]


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("gone.jpg", "'gone.jpg' does not exist"),
        ("empty", "folder 'empty' holds no photos or videos"),
        ("*.jpg", "no file matches '*.jpg'"),
        ("@gone.txt", "list 'gone.txt' cannot be read: No such file or directory"),
        ("clip.mp4", "video 'clip.mp4' is empty"),
        ("camera:73", "camera 'camera:73' cannot be opened"),
    ],
)
def test_sources_without_photos_end_the_run(hrnet, source, message):
    Path("empty").mkdir()
    Path("clip.mp4").touch()
    result = hrnet(source, code=ExitCode.INPUT)
    assert errors_of(result)[0].startswith(f"error: {message}")
    assert len(errors_of(result)) == 1
    assert not Path("hrnet-out").exists()


def test_an_empty_list_is_an_error(hrnet):
    result = hrnet("-", input_="\n", code=ExitCode.INPUT)
    assert errors_of(result) == ["error: no photos or videos were named"]


def test_unknown_suffixes_are_named_and_counted_and_no_error(hrnet):
    draw_photo("set/a.jpg")
    for number in range(7):
        Path(f"set/{number}.txt").touch()
    result = hrnet("set")
    assert result.stderr.splitlines()[0] == (
        "skipped 7 files, no photos or videos:"
        " set/0.txt, set/1.txt, set/2.txt, set/3.txt, set/4.txt and 2 more"
    )


def test_links_to_folders_are_named(hrnet):
    draw_photo("set/a.jpg")
    Path("set/up").symlink_to(Path("set").resolve())
    said = hrnet("set", "--recursive").stderr.splitlines()
    assert said[0] == "skipped 1 link to folders: set/up"
    assert "skipped" not in "".join(said[1:])


def test_a_name_cannot_move_the_cursor(hrnet):
    Path("set").mkdir()
    draw_photo("set/a.jpg")
    Path("set/\x1b[2J\r.txt").touch()
    result = hrnet("set")
    assert "\x1b" not in result.stderr
    assert r"set/\x1b[2J\r.txt" in result.stderr


# Boxes files --------------------------------------------------------------------------------------


def test_boxes_outside_cost_only_their_photo(hrnet):
    draw_photo("a.jpg")
    draw_photo("b.jpg")
    boxes = write_boxes("boxes.jsonl", {"a.jpg": [[500, 500, 600, 600]], "b.jpg": [[1, 1, 30, 60]]})
    result = hrnet("a.jpg", "b.jpg", "--boxes", boxes, code=ExitCode.INPUT)
    assert errors_of(result) == [
        "error: boxes file 'boxes.jsonl', line 1, person 1, photo 'a.jpg': box [500, 500, 600, 600]"
        " lies wholly outside the picture of 48x64 pixels"
    ]
    assert [record["source"] for record in records()] == ["b.jpg"]


@pytest.mark.parametrize(
    ("people", "message"),
    [
        ({"a.jpg": [[float("nan"), 1, 2, 3]]}, "expected finite pixel positions"),
        ({"a.jpg": [[9, 9, 2, 2]]}, "has no area"),
        ({"other.jpg": [[1, 2, 30, 40]]}, "has no boxes for photo 'a.jpg'; it speaks of other.jpg"),
        ({}, "is empty"),
    ],
)
def test_boxes_files_that_cannot_be_meant_are_refused_before_the_model_loads(
    hrnet, monkeypatch, people, message
):
    monkeypatch.setattr(checkpoint, "load_model", None)
    draw_photo("a.jpg")
    boxes = write_boxes("boxes.jsonl", people)
    result = hrnet("a.jpg", "--boxes", boxes, code=ExitCode.INPUT)
    (error,) = errors_of(result)
    assert error.startswith("error: boxes file 'boxes.jsonl'")
    assert message in error
    assert not Path("hrnet-out").exists()


def test_boxes_of_a_picture_of_another_size_are_refused(hrnet):
    draw_photo("a.jpg")
    boxes = write_boxes("boxes.jsonl", {"a.jpg": [[1, 1, 30, 60]]}, width=640, height=480)
    result = hrnet("a.jpg", "--boxes", boxes, code=ExitCode.INPUT)
    assert "were made for a picture of 640x480 pixels, this one has 48x64" in errors_of(result)[0]
    assert records() == []


def test_a_missing_boxes_file_is_named(hrnet):
    draw_photo("a.jpg")
    result = hrnet("a.jpg", "--boxes", "gone.jsonl", code=ExitCode.INPUT)
    assert errors_of(result) == [
        "error: boxes file 'gone.jsonl' cannot be read: No such file or directory"
    ]


def test_records_of_an_earlier_run_serve_as_boxes(hrnet):
    draw_photo("set/a.jpg")
    draw_photo("set/b.jpg")
    hrnet("set")
    hrnet("set", "--boxes", "hrnet-out/poses.jsonl", "--out", "again")
    first, again = records(), records("again/poses.jsonl")
    assert [r["people"] for r in again] == [r["people"] for r in first]


# Interruptions ------------------------------------------------------------------------------------


def interrupt_after(photos: int, monkeypatch) -> None:
    """Press Ctrl-C when so many photos are estimated."""
    real, calls = PoseEstimator.estimate_frames, [0]

    def estimate(self, frames, boxes):
        calls[0] += 1
        if calls[0] > photos:
            raise KeyboardInterrupt
        return real(self, frames, boxes)

    monkeypatch.setattr(pipeline, "CHUNK_FRAMES", 1)
    monkeypatch.setattr(PoseEstimator, "estimate_frames", estimate)


def test_ctrl_c_leaves_complete_records(hrnet, monkeypatch):
    for number in range(5):
        draw_photo(f"set/{number}.jpg")
    interrupt_after(3, monkeypatch)
    words = ["--format", FORMATS, "--skeleton"]
    result = hrnet("set", *words, code=ExitCode.INTERRUPTED)
    summary, last = result.stderr.splitlines()[-2:]
    assert summary.startswith("3 photos, 3 people in ")
    assert last == "interrupted; what was written so far is complete and stays"
    assert [record["source"] for record in records()] == [f"set/{n}.jpg" for n in range(3)]
    assert len(json.loads(Path("hrnet-out/poses.coco.json").read_text())) == 3
    assert len(files("hrnet-out/openpose")) == 3
    assert not [name for name in files("hrnet-out") if name.endswith((".part", ".tmp"))]


def test_after_ctrl_c_the_rest_can_be_appended(hrnet, monkeypatch):
    for number in range(3):
        draw_photo(f"set/{number}.jpg")
    with monkeypatch.context() as patch:
        interrupt_after(2, patch)
        hrnet("set", code=ExitCode.INTERRUPTED)
    hrnet("set/2.jpg", "--append")
    assert [record["source"] for record in records()] == [f"set/{n}.jpg" for n in range(3)]


@pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGTERM handlers")
def test_sigterm_ends_as_cleanly_as_ctrl_c(model):
    photo = draw_photo("set/0.jpg", (400, 400))
    for number in range(1, 400):
        os.link(photo, f"set/{number}.jpg")
    command = [
        sys.executable, "-m", "hrnet_cli", "detect", "set", "--model", str(model), "--offline",
        "--device", "cpu", "--detector", "whole-image", "--batch-size", "1", "--skeleton",
    ]  # fmt: skip
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    written = Path("hrnet-out/poses.jsonl")
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and process.poll() is None:
        if written.exists() and written.stat().st_size:
            break
        time.sleep(0.01)
    process.send_signal(signal.SIGTERM)
    _, stderr = process.communicate(timeout=30)
    assert process.returncode == ExitCode.INTERRUPTED, stderr
    assert stderr.splitlines()[-1] == "interrupted; what was written so far is complete and stays"
    assert "Traceback" not in stderr
    found = records()
    assert 1 <= len(found) < 400
    assert [record["source"] for record in found] == [f"set/{n}.jpg" for n in range(len(found))]


def test_a_reader_that_has_seen_enough_is_no_error(model):
    photo = draw_photo("set/0.jpg", (200, 200))
    for number in range(1, 200):
        os.link(photo, f"set/{number}.jpg")
    command = [
        sys.executable, "-m", "hrnet_cli", "detect", "set", "--model", str(model), "--offline",
        "--device", "cpu", "--detector", "whole-image", "--batch-size", "1", "--out", "-",
    ]  # fmt: skip
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert json.loads(process.stdout.readline())["source"] == "set/0.jpg"
        process.stdout.close()
        stderr = process.stderr.read()
        assert process.wait(timeout=30) == ExitCode.OK, stderr
    assert "Traceback" not in stderr
    assert "Broken pipe" not in stderr
    assert "Exception ignored" not in stderr


# The command itself -------------------------------------------------------------------------------


@pytest.mark.parametrize("words", [[], ["detect"]])
def test_without_arguments_the_help_is_shown(words):
    result = RUNNER.invoke(app, words)
    assert result.exit_code == ExitCode.USAGE
    shown = result.output
    assert "Usage: " in shown
    assert ("download-weights" if not words else "--skeleton") in shown


def test_help_shows_examples_and_exit_codes():
    shown = RUNNER.invoke(app, ["detect", "--help"]).stdout
    assert "hrnet detect photo.jpg --skeleton\n" in shown
    shown = RUNNER.invoke(app, ["--help"]).stdout
    for code in ExitCode:
        assert re.search(rf"\b{int(code)}\b", shown)


def test_an_unknown_command_is_refused():
    result = RUNNER.invoke(app, ["detekt", "photo.jpg"])
    assert result.exit_code == ExitCode.USAGE
    assert "detekt" in result.stderr


def test_a_bug_is_not_dressed_up_as_a_users_mistake(hrnet, monkeypatch, model):
    draw_photo("a.jpg")

    def fail(*_args):
        raise ZeroDivisionError

    monkeypatch.setattr(PoseEstimator, "estimate_frames", fail)
    words = ["detect", "a.jpg", "--model", str(model), "--detector", "whole-image"]
    result = RUNNER.invoke(app, words)
    assert isinstance(result.exception, ZeroDivisionError)
    assert result.exit_code == ExitCode.BUG


def test_the_starter_detector_stands_in_for_the_default_with_one_warning(hrnet, model):
    draw_photo("a.jpg")
    words = ["a.jpg", "--model", str(model), "--offline", "--device", "cpu", "--quiet"]
    result = hrnet(*words, defaults=False)
    (warning,) = result.stderr.splitlines()
    assert warning.startswith(
        "warning: yolo26s is not on this machine and cannot be fetched; using the small"
        " 'starter-detector', which misses far more people ("
    )
    assert records()[0]["detector"] == weights.STARTER_DETECTOR


def test_a_detector_named_offline_says_how_to_do_without(hrnet):
    draw_photo("a.jpg")
    words = ["a.jpg", "--detector", weights.DEFAULT_DETECTOR]
    result = hrnet(*words, code=ExitCode.WEIGHTS)
    assert f"the file of '{weights.DEFAULT_DETECTOR}', is missing" in errors_of(result)[0]
    for way in ("--boxes FILE", "--detector FILE", "--detector whole-image"):
        assert way in result.stderr
    assert not Path("hrnet-out").exists()
