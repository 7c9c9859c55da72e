"""``hrnet detect`` on videos: batches, parts, broken files, streams, and how runs go on."""

import json
import os
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from hrnet_cli import checkpoint
from hrnet_cli.cli import app, detect_run, detect_videos
from hrnet_cli.config import ModelSpec
from hrnet_cli.models.hrnet import HRNet
from hrnet_cli.resuming import ResumeFolder
from hrnet_cli.schema import load_schema
from hrnet_cli.smoothing_offline import OfflineSettings, smooth_video
from hrnet_cli.stopping import StopRequest
from videos import numbered_picture, read_video, write_video
from walking import poses_of

RUNNER = CliRunner()


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A tiny untrained network."""
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("model") / "tiny.safetensors"
    spec = ModelSpec("tiny", 4, (64, 32), "dark", load_schema("coco17"))
    network = HRNet(spec.width, len(spec.schema))
    checkpoint.save_model(path, network.state_dict(), spec, provenance="a test", licence="none")
    return path


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    """A folder with three short videos, the second one broken."""
    folder = tmp_path_factory.mktemp("clips")
    write_video(folder / "a.mp4", 12, audio="aac")
    (folder / "b.mp4").write_text("no video")
    write_video(folder / "c.mkv", 7)
    return folder


@pytest.fixture(autouse=True)
def _own_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HRNET_HOME", str(tmp_path / "cache"))
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def words(model):
    """Options that make a run quick."""
    start = ["--model", str(model), "--device", "cpu", "--runtime", "torch", "--offline"]
    return [*start, "--detector", "whole-image"]


@pytest.fixture
def hrnet(words):
    def run(*arguments, code=0, input_=None):
        given = ["detect", *map(str, arguments), *words]
        result = RUNNER.invoke(app, given, input=input_)
        assert "Traceback" not in result.output
        assert result.exception is None or isinstance(result.exception, SystemExit), result
        assert result.exit_code == code, result.output
        return result

    return run


def records(path):
    return [json.loads(line) for line in Path(path).read_text().splitlines()]


def test_a_folder_of_videos_with_a_broken_one(hrnet, clips):
    result = hrnet(clips, "--skeleton", "--track", "--out", "out", "--json", code=3)
    assert "b.mp4' " in result.stderr
    assert "1 input could not be used" in result.stderr
    names = sorted(str(path.relative_to("out")) for path in Path("out").rglob("*"))
    assert names == ["a.jsonl", "a.mp4", "c.jsonl", "c.mp4"]
    summary = json.loads(result.stdout)
    states = [(Path(v["source"]).name, v["state"], v["frames"]) for v in summary["videos"]]
    assert states == [("a.mp4", "done", 12), ("b.mp4", "failed", 0), ("c.mkv", "done", 7)]
    assert len(records("out/a.jsonl")) == 12
    assert read_video(Path("out/a.mp4")).has_audio
    assert [r["frame"] for r in records("out/c.jsonl")] == list(range(7))
    for line in ("a.mp4", "b.mp4", "failed", "frames/s"):
        assert line in result.stderr


def test_strict_stops_at_the_broken_one(hrnet, clips):
    hrnet(clips, "--strict", "--out", "out", code=3)
    assert Path("out/a.jsonl").exists()
    assert not Path("out/c.jsonl").exists()


def test_resume_leaves_out_what_is_done(hrnet, clips, monkeypatch):
    hrnet(clips / "a.mp4", "--out", "out")
    before = Path("out/a.jsonl").stat().st_mtime_ns
    error = hrnet(clips / "a.mp4", "--out", "out", code=8).stderr
    assert "a.jsonl' would be overwritten" in error
    result = hrnet(clips / "a.mp4", clips / "c.mkv", "--resume", "--out", "out")
    assert "2 videos (1 done before), 7 frames" in result.stderr
    assert Path("out/a.jsonl").stat().st_mtime_ns == before
    with monkeypatch.context() as patch:
        patch.setattr(detect_run, "open_estimator", None)  # no model is needed
        result = hrnet(clips / "a.mp4", clips / "c.mkv", "--resume", "--out", "out", "--json")
    assert "2 videos (2 done before), 0 frames" in result.stderr
    assert [video["state"] for video in json.loads(result.stdout)["videos"]] == ["was done"] * 2
    hrnet(clips / "a.mp4", "--overwrite", "--out", "out")
    assert Path("out/a.jsonl").stat().st_mtime_ns > before


def test_a_video_of_another_run_is_left_alone_and_the_others_go_on(hrnet, clips):
    Path("out").mkdir()
    other = ResumeFolder(Path("out/a"))
    other.save({}, {})
    result = hrnet(clips / "a.mp4", clips / "c.mkv", "--resume", "--out", "out", code=3)
    assert "a' is being written by another run of hrnet" in result.stderr
    assert "1 input could not be used" in result.stderr
    assert len(records("out/c.jsonl")) == 7
    assert not Path("out/a.jsonl").exists()
    # Alone there is nothing to go on with, and the exit code says what it was.
    error = hrnet(clips / "a.mp4", "--resume", "--out", "out", code=8).stderr
    assert "is being written by another run" in error
    other.release()
    # What it left is of other settings: named, and again only this video is left out.
    result = hrnet(clips / "a.mp4", clips / "c.mkv", "--resume", "--out", "out", code=3)
    assert "is of a run with other settings" in result.stderr
    assert "2 videos (1 done before)" in result.stderr


def test_resume_looks_at_photos_again_but_replaces_those_of_no_other_run(hrnet, clips):
    for number, name in enumerate(("one.png", "two.png")):
        cv2.imwrite(name, numbered_picture(number))
    sources = ("one.png", "two.png", clips / "c.mkv")
    hrnet(*sources, "--out", "out")
    # As a run leaves it that was stopped.
    whole = Path("out/poses.jsonl").read_bytes()
    Path("out/poses.jsonl").write_bytes(whole[: len(whole) // 2 + 40])
    result = hrnet(*sources, "--out", "out", "--resume")
    assert "(1 done before)" in result.stderr
    assert Path("out/poses.jsonl").read_bytes() == whole
    record = json.loads(whole.splitlines()[0])
    Path("out/poses.jsonl").write_text(json.dumps(record | {"model": "better"}) + "\n")
    error = hrnet(*sources, "--out", "out", "--resume", code=8).stderr
    assert f"was made by model better and detector {record['detector']}, this run has" in error
    assert json.loads(Path("out/poses.jsonl").read_text())["model"] == "better"
    Path("out/poses.jsonl").write_bytes(whole)
    error = hrnet("one.png", clips / "c.mkv", "--out", "out", "--resume", code=8).stderr
    assert "poses.jsonl' would be overwritten" in " ".join(error.split())
    assert Path("out/poses.jsonl").read_bytes() == whole


def test_a_terminated_run_goes_on(words, clips, tmp_path):
    long = write_video(tmp_path / "long.mp4", 400)
    command = [sys.executable, "-m", "hrnet_cli", "detect", str(long), *words, "--draw", "boxes"]
    command += ["--track", "--out"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(
        [*command, "parts"], stderr=subprocess.PIPE, text=True, env=environment
    )
    state = Path("parts/long.resume/state.json")
    deadline = time.monotonic() + 240
    while process.poll() is None and time.monotonic() < deadline:
        if state.exists() and json.loads(state.read_bytes())["state"]["memory"]["frames"]:
            break
        time.sleep(0.01)
    process.send_signal(signal.SIGTERM)
    _, said = process.communicate(timeout=120)
    assert process.returncode == 130, said
    assert "repeat the command with --resume to go on" in said
    assert "Traceback" not in said
    left = len(records("parts/long.jsonl"))
    assert 100 <= left < 400
    assert 0 < len(read_video(Path("parts/long.mp4")).times) <= left
    again = subprocess.run(
        [*command, "parts"], capture_output=True, text=True, env=environment, check=False
    )
    assert again.returncode == 8
    assert "was broken, and could go on" in again.stderr
    for out, more in (("parts", ["--resume"]), ("whole", [])):
        done = subprocess.run([*command, out, *more], env=environment, check=False)
        assert done.returncode == 0
    assert Path("parts/long.jsonl").read_bytes() == Path("whole/long.jsonl").read_bytes()
    one, other = read_video(Path("parts/long.mp4")), read_video(Path("whole/long.mp4"))
    assert one.times == other.times
    assert all((a == b).all() for a, b in zip(one.images, other.images, strict=True))
    assert not Path("parts/long.resume").exists()


class Stopped(StopRequest):
    """Asks to stop as soon as there is a record."""

    requested = property(
        lambda _self: Path("hrnet-out/a.jsonl").exists(), lambda _self, _value: None
    )


def test_a_broken_run_goes_on_with_the_same_boxes_only(words, clips, monkeypatch):
    given = [*words[: words.index("--detector")], "--boxes", "boxes.csv"]
    for people, code in ((30, 130), (40, 8), (30, 0)):
        rows = "".join(f"a.mp4,{n},2,3,{people},40\n" for n in range(12))
        Path("boxes.csv").write_text(f"source,frame,x1,y1,x2,y2\n{rows}")
        with monkeypatch.context() as patch:
            if code == 130:
                patch.setattr(detect_videos, "StopRequest", Stopped)
            more = [] if code == 130 else ["--resume"]
            result = RUNNER.invoke(app, ["detect", str(clips / "a.mp4"), *given, *more])
        assert result.exit_code == code, result.output
        if code == 130:
            kept = json.loads(Path("hrnet-out/a.resume/state.json").read_bytes())["settings"]
            assert len(kept["model hash"]) == 16
            assert kept["detector hash"] == ""
        if code == 8:
            assert "other settings: --boxes was 'boxes.csv, sha256 " in result.stderr


def test_a_run_stopped_at_once_is_not_taken_for_done(hrnet, clips, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(detect_videos, "StopRequest", Stopped)
        hrnet(clips / "a.mp4", "--draw", "boxes", code=130)
    assert Path("hrnet-out/a.resume/state.json").exists()
    result = hrnet(clips / "a.mp4", "--draw", "boxes", "--resume")
    assert "1 video, 12 frames" in result.stderr
    assert len(read_video(Path("hrnet-out/a.mp4")).times) == 12


def test_parts_merged_equal_one_run(hrnet, clips):
    for number in range(5):
        cv2.imwrite(f"{number}.png", numbered_picture(number))
    sources = (".", clips / "a.mp4", clips / "c.mkv")
    formats = ("--format", "jsonl,csv,coco,openpose", "--draw", "boxes")
    hrnet(*sources, *formats, "--out", "whole")
    for number in (1, 2):
        hrnet(*sources, *formats, "--out", "parts", "--shard", f"{number}/2")
    assert not Path("parts/poses.jsonl").exists()
    merged = RUNNER.invoke(app, ["merge", "parts", "--out", "parts"])
    assert merged.exit_code == 0, merged.output
    assert "5 photos of 2 parts" in merged.stderr
    names = sorted(str(path.relative_to("whole")) for path in Path("whole").rglob("*"))
    assert names == sorted(str(path.relative_to("parts")) for path in Path("parts").rglob("*"))
    for name in names:
        if Path("whole", name).is_file() and not name.endswith(".mp4"):
            assert Path("whole", name).read_bytes() == Path("parts", name).read_bytes(), name


def test_a_part_that_is_missing_or_broken_is_not_merged(hrnet, clips):
    sources = (clips / "a.mp4", clips / "c.mkv")
    for number in (1, 2, 3):
        hrnet(*sources, "--out", f"part-{number}", "--shard", f"{number}/3")
    # Of three parts and two videos one is empty, and is missed all the same.
    for folders, missing in ((("part-1", "part-3"), 2), (("part-1", "part-2"), 3)):
        merged = RUNNER.invoke(app, ["merge", *folders, "--out", "all"])
        assert merged.exit_code == 3
        assert f"part {missing} of 3 is missing" in merged.stderr
        assert not Path("all").exists()
    # As a run leaves it that is killed.
    mark = Path("part-2/shard-2-of-3.done")
    mark.rename(mark.with_suffix(".unfinished"))
    merged = RUNNER.invoke(app, ["merge", "part-1", "part-2", "part-3", "--out", "all"])
    assert merged.exit_code == 3
    assert "part 2 of 3 in 'part-2' was broken" in merged.stderr
    hrnet(*sources, "--out", "part-2", "--shard", "2/3", "--resume")
    merged = RUNNER.invoke(app, ["merge", "part-1", "part-2", "part-3", "--out", "all"])
    assert merged.exit_code == 0, merged.stderr
    assert sorted(path.name for path in Path("all").iterdir()) == ["a.jsonl", "c.jsonl"]


def test_an_interrupted_part_stays_marked(hrnet, clips, monkeypatch):
    def interrupted(*_arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr(detect_videos, "detect_videos", interrupted)
    hrnet(clips / "a.mp4", "--out", "out", "--shard", "1/1", code=130)
    assert [path.name for path in Path("out").iterdir()] == ["shard-1-of-1.unfinished"]


def test_jobs_share_the_sources(words, clips):
    command = [sys.executable, "-m", "hrnet_cli", "detect", str(clips), *words, "--out", "out"]
    done = subprocess.run([*command, "--jobs", "2"], capture_output=True, text=True, check=False)
    assert done.returncode == 3, done.stderr
    assert "b.mp4' " in done.stderr
    assert sorted(path.name for path in Path("out").iterdir()) == ["a.jsonl", "c.jsonl"]


def test_records_of_a_video_can_be_piped(hrnet, clips):
    result = hrnet(clips / "a.mp4", "--out", "-", "--every", "3")
    lines = [json.loads(line) for line in result.stdout.splitlines()]
    assert [line["frame"] for line in lines] == [0, 3, 6, 9]
    assert [line["time_s"] for line in lines] == [0, 0.12, 0.24, 0.36]
    hrnet(clips / "a.mp4", clips / "c.mkv", "--out", "-", code=2)


def test_numbered_pictures_make_a_video(hrnet):
    Path("shots").mkdir()
    for number in range(6):
        cv2.imwrite(f"shots/{number}.png", numbered_picture(number))
    hrnet("shots", "--fps", "12.5", "--draw", "boxes", "--track", "--smooth", "savgol")
    lines = records("hrnet-out/shots.jsonl")
    assert [line["time_s"] for line in lines] == [0, 0.08, 0.16, 0.24, 0.32, 0.4]
    assert len(read_video(Path("hrnet-out/shots.mp4")).times) == 6


def test_a_rate_is_for_photos(hrnet, clips):
    error = hrnet(clips / "a.mp4", "--fps", "10", code=2).stderr
    assert f"--fps makes a video of photos, and none were named: '{clips / 'a.mp4'}' has" in error
    assert not Path("hrnet-out").exists()
    Path("shots").mkdir()
    for number in range(3):
        cv2.imwrite(f"shots/{number}.png", numbered_picture(number))
    sources = ("shots", clips / "a.mp4", "--fps", "10", "--dry-run")
    words = f"warning: --fps is about photos; videos keep their own times: {clips / 'a.mp4'}"
    for more, told in ((), True), (("--shard", "1/2"), True), (("--shard", "2/2"), False):
        said = hrnet(*sources, *more).stderr
        assert (words in said.replace("\n", "")) == told


def test_parts_of_a_video_by_time(hrnet, clips):
    hrnet(clips / "a.mp4", "--start", "0.2", "--end", "0:00:00.4", "--max-frames", "3")
    assert [line["frame"] for line in records("hrnet-out/a.jsonl")] == [5, 6, 7]
    error = hrnet(clips / "a.mp4", "--start", "9", "--out", "o", code=3).stderr
    assert "a.mp4" in error
    assert not list(Path("o").rglob("*.jsonl"))


def test_a_report_is_written_without_passwords(hrnet, clips, monkeypatch):
    words = ["hrnet", "detect", "a.mp4", "rtsp://me:p@hush@cam/1"]
    monkeypatch.setattr(sys, "argv", words)
    hrnet(clips / "a.mp4", "--report", "--track", "--out", "out")
    page = Path("out/a.html").read_text()
    assert "tiny" in page
    assert "hrnet detect a.mp4 rtsp://cam/1" in page
    assert "hush" not in page
    assert len(page) > 10_000


def test_a_dry_run_names_what_would_be_written(hrnet, clips):
    result = hrnet(clips, "--skeleton", "--video-codec", "prores", "--dry-run", "--out", "out")
    assert f"read   {clips / 'a.mp4'}" in result.stdout
    assert f"write  {Path('out/a.jsonl')}" in result.stdout
    assert f"write  {Path('out/a.mov')}" in result.stdout
    assert not Path("out").exists()


def test_a_video_is_never_replaced_by_its_drawing(hrnet, clips, tmp_path):
    clip = write_video(tmp_path / "clip.mp4", 3)
    data = clip.read_bytes()
    error = hrnet(clip, "--skeleton", "--overwrite", "--out", tmp_path, code=8).stderr
    assert "would replace the video it is drawn from" in error
    assert clip.read_bytes() == data


@pytest.mark.parametrize(
    ("more", "code", "message"),
    [
        (["--append"], 2, "--append adds to the records of photos"),
        (["--video-codec", "h265", "--skeleton"], 2, "video codec 'h265' is not known"),
        (["--side-by-side"], 2, "--side-by-side is about the drawn video, and nothing is drawn"),
        (["--quality", "99", "--draw", "boxes"], 2, "--quality 99 is outside 0 to 51"),
        (["--smooth", "savgol", "--out", "-"], 2, "--out - streams records"),
        (["--smooth", "butterworth:4", "--out", "-"], 2, "--out - streams records"),
        (["--smooth", "savgol:300"], 2, "--smooth is 'savgol:300': window_s is 300.0, expected"),
        (["--smooth", "buterworth:4"], 2, "did you mean 'butterworth'?"),
        (["--resume", "--overwrite"], 2, "--overwrite and --resume exclude each other"),
        (
            ["--draw", "boxes", "--background", "transparent"],
            2,
            "--video-codec h264 keeps no transparency",
        ),
        (["--detect-every", "2", "--no-track"], 2, "--no-track contradicts --detect-every"),
        (["--format", "csv,trc", "--no-track"], 2, "--no-track contradicts --format trc"),
        (["--draw", "ids", "--no-track"], 2, "--no-track contradicts --draw ids"),
        (["--shard", "2/1"], 2, "--shard is '2/1'"),
        (["--jobs", "2", "--json"], 2, "--json prints the summary of one run"),
    ],
)
def test_options_that_cannot_be(hrnet, clips, more, code, message):
    result = hrnet(clips / "a.mp4", *more, code=code)
    assert message in result.stderr
    assert "model tiny" not in result.stderr  # told before it is loaded
    assert not Path("hrnet-out").exists()


def test_a_number_behind_a_smoothing_says_how_much(hrnet, clips):
    hrnet(clips / "a.mp4", "--smooth", "butterworth:1")
    people = [record["people"][0] for record in records("hrnet-out/a.jsonl")]
    raw_TK2, given_TK2 = (
        np.array([person[name] for person in people])[..., :2]
        for name in ("keypoints_raw", "keypoints")
    )
    times_s = [record["time_s"] for record in records("hrnet-out/a.jsonl")]
    poses_T = [poses_of(points_K2) for points_K2 in raw_TK2]
    settings = OfflineSettings(kind="butterworth", cutoff_hz=1)
    again = smooth_video(times_s, poses_T, settings)
    np.testing.assert_allclose(given_TK2, [p.keypoints_NK2[0] for p in again], atol=0.002)
    assert np.abs(given_TK2 - raw_TK2).max() > 1


def test_what_needs_ids_follows_people(hrnet, clips):
    hrnet(clips / "a.mp4", "--format", "jsonl", "--draw", "boxes,ids")
    records = [json.loads(line) for line in Path("hrnet-out/a.jsonl").read_text().splitlines()]
    assert {person["id"] for record in records for person in record["people"]} == {1}


def test_options_about_videos_need_one(hrnet):
    cv2.imwrite("0.png", numbered_picture(0))
    error = hrnet("0.png", "--track", code=2).stderr
    assert "--track is about videos, and none was named" in error
    error = hrnet("0.png", "--format", "trc", code=2).stderr
    assert "takes no photos" in error


def test_a_camera_that_is_not_there(hrnet):
    error = hrnet("camera:73", code=3).stderr
    assert "camera:73" in error
    assert not list(Path("hrnet-out").rglob("*"))


def test_the_loop_of_the_readme(words, clips, tmp_path):
    readme = (Path(__file__).parents[2] / "README.md").read_text()
    loop = next(line for line in readme.splitlines() if line.startswith("$ for f in"))[2:]
    (tmp_path / "x.mp4").write_bytes((clips / "a.mp4").read_bytes())
    (tmp_path / "y z.mp4").write_bytes((clips / "a.mp4").read_bytes())
    shim = f'hrnet() {{ {shlex.quote(sys.executable)} -m hrnet_cli "$@" {shlex.join(words)}; }}'
    done = subprocess.run(
        ["bash", "-ec", f"{shim}\n{loop}"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert len(list(tmp_path.rglob("*.jsonl"))) == 2
