"""``hrnet detect`` on turned, odd, 10-bit and unevenly timed videos: what comes out of them."""

import json
from fractions import Fraction

import av
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from hrnet_cli import checkpoint
from hrnet_cli.cli import app
from hrnet_cli.config import ModelSpec
from hrnet_cli.models.hrnet import HRNet
from hrnet_cli.schema import load_schema
from videos import (
    TURNED_90,
    TURNED_180,
    TURNED_270,
    numbered_picture,
    set_display_matrix,
    stored_for,
    video_numbers,
    video_times,
    write_video,
)

FRAMES = 12
MILLISECOND = Fraction(1, 1000)
UNEVEN_MS = [0, 40, 75, 200, 210, 290, 333, 400, 480, 481, 520, 600]
UPRIGHT_WH = (48, 64)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A tiny untrained network."""
    path = tmp_path_factory.mktemp("model") / "tiny.safetensors"
    spec = ModelSpec("tiny", 4, (64, 32), "dark", load_schema("coco17"))
    network = HRNet(spec.width, len(spec.schema))
    checkpoint.save_model(path, network.state_dict(), spec, provenance="a test", licence="none")
    return path


@pytest.fixture(scope="module", autouse=True)
def _one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def turned(path, matrix, stored_wh):
    picture = stored_for(matrix, UPRIGHT_WH)
    write_video(path, FRAMES, size_wh=stored_wh, picture=picture, audio="aac")
    return set_display_matrix(path, matrix)


def uneven(path):
    return write_video(path, FRAMES, time_base=MILLISECOND, pts=UNEVEN_MS, audio="aac")


# Name -> how it is written, size of its upright pictures, size of the video, degrees it was turned.
KINDS = {
    "turned-90.mp4": (lambda p: turned(p, TURNED_90, (64, 48)), (48, 64), (48, 64), 90),
    "turned-180.mp4": (lambda p: turned(p, TURNED_180, (48, 64)), (48, 64), (48, 64), 180),
    "turned-270.mp4": (lambda p: turned(p, TURNED_270, (64, 48)), (48, 64), (48, 64), 270),
    "uneven.mp4": (uneven, (64, 48), (64, 48), 0),
    # Half-size colour needs even sides: a row and a column more.
    "odd.mp4": (
        lambda p: write_video(p, FRAMES, size_wh=(65, 49), pix_fmt="yuv444p", audio="aac"),
        (65, 49),
        (66, 50),
        0,
    ),
    "ten-bit.mkv": (
        lambda p: write_video(p, FRAMES, codec="libx265", pix_fmt="yuv420p10le", audio="aac"),
        (64, 48),
        (64, 48),
        0,
    ),
}


def facts(path):
    """Return (size, times from the first frame on, pixel format, seconds of sound) of a file."""
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        times = [frame.pts * stream.time_base for frame in container.decode(stream)]
        size_wh, pix_fmt = (stream.width, stream.height), stream.pix_fmt
    with av.open(str(path)) as container:
        samples = sum(frame.samples for frame in container.decode(audio=0))
        sound_s = samples / container.streams.audio[0].rate
    return size_wh, [time - times[0] for time in times], pix_fmt, sound_s


def detect(clip, out, model):
    words = ["detect", str(clip), "--out", str(out), "--skeleton", "--model", str(model)]
    words += ["--detector", "whole-image", "--device", "cpu", "--runtime", "torch", "--offline"]
    result = CliRunner().invoke(app, words)
    assert result.exit_code == 0, result.output
    assert "warning" not in result.output
    lines = (out / f"{clip.stem}.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


def test_a_moving_gif_is_a_video_with_its_own_times(tmp_path, model):
    clip, waits_ms = tmp_path / "dance.gif", [40, 120, 30, 250]
    first, *more = [Image.fromarray(numbered_picture(number)) for number in range(len(waits_ms))]
    first.save(clip, save_all=True, append_images=more, duration=waits_ms, loop=0)
    lines = detect(clip, tmp_path / "out", model)
    times = [Fraction(line["time_base"]) * line["pts"] for line in lines]
    assert times == [Fraction(ms, 1000) for ms in (0, 40, 160, 190)]
    base, ticks = video_times(tmp_path / "out" / "dance.mp4")
    assert [base * tick for tick in ticks] == times
    assert video_numbers(tmp_path / "out" / "dance.mp4") == list(range(len(waits_ms)))


@pytest.mark.parametrize("name", KINDS)
def test_frames_size_times_and_sound_come_through(tmp_path, model, name):
    write, upright_wh, drawn_wh, rotation = KINDS[name]
    clip, out = write(tmp_path / name), tmp_path / "out"
    lines, stem = detect(clip, out, model), clip.stem
    assert [line["frame"] for line in lines] == list(range(FRAMES))
    assert {(line["width"], line["height"]) for line in lines} == {upright_wh}
    assert {line["rotation"] for line in lines} == {rotation}

    size_wh, times, pix_fmt, sound_s = facts(out / f"{stem}.mp4")
    _, times_before, _, sound_before_s = facts(clip)
    assert (size_wh, pix_fmt) == (drawn_wh, "yuv420p")
    assert times == times_before
    assert [Fraction(line["time_base"]) * line["pts"] for line in lines] == times
    assert sound_s == pytest.approx(sound_before_s, abs=0.05)
    # Upright, not mirrored, each at its place: the pictures show their numbers.
    assert video_numbers(out / f"{stem}.mp4") == list(range(FRAMES))
