"""`kill -9` at random moments, then `--resume`: the output must equal that of a run in one go.

A clip is made: shapes that move, four people's boxes of whom some come and go, and sound. Then runs
are started, killed at a moment drawn between the first record and the end of the run, started again
with `--resume` and, half of the time, killed once more before they may finish. Records must be the
same bytes; the drawn video must have the same frames, timestamps and decoded pixels; nothing else
may lie about.

Some runs are real processes, `python -m hrnet_cli`, with the starter model. The others are forked
from this process, which has imported everything already, and enter the same command line with a
network of the same kind that is small enough to be killed often; with `--segment` their videos can
go on at every so many frames already, so that a short clip has many segments.

Run: OMP_NUM_THREADS=1 python benchmarks/kill_and_resume.py
"""

import argparse
import contextlib
import functools
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import torch

from hrnet_cli import checkpoint, streaming
from hrnet_cli.cli import app
from hrnet_cli.cli import detect_run as _imported_before_forking  # noqa: F401
from hrnet_cli.cli import detect_videos as _this_too  # noqa: F401
from hrnet_cli.config import ModelSpec
from hrnet_cli.models.hrnet import HRNet
from hrnet_cli.runtimes import torch_eager as _and_this  # noqa: F401
from hrnet_cli.schema import load_schema
from hrnet_cli.sinks import video_file

SIZE_WH = (320, 240)
RATE = 25
PEOPLE = 4
LOOK_S = 0.005
AGAIN = 0.5  # how often a resumed run is killed as well


@dataclass(frozen=True)
class Case:
    """One way to call the command, killed so many times.

    Attributes:
        words: Options.
        kills: Runs to kill.
        starter: In a process of its own, with the starter model.
    """

    words: tuple[str, ...]
    kills: int
    starter: bool = False


USUAL = ("--skeleton", "--track", "--smooth", "one-euro")
CASES = (
    Case((*USUAL, "--boxes", "boxes.jsonl"), 8),
    Case((*USUAL, "--boxes", "boxes.jsonl", "--detect-every", "3"), 5),
    Case(("--skeleton", "--smooth", "savgol", "--boxes", "boxes.jsonl"), 4),
    Case((*USUAL, "--detector", "whole-image"), 3, starter=True),
)


@dataclass
class Tally:
    """What came of the runs of one case."""

    killed_at: list[int] = field(default_factory=list[int])
    kills: int = 0
    records: int = 0
    video: int = 0
    leftovers: int = 0


def shapes(number: int) -> np.ndarray:
    """Return the picture of a frame, RGB: soft spots that wander over a gradient."""
    width, height = SIZE_WH
    y_H1, x_1W = np.mgrid[:height, :1][0], np.mgrid[:1, :width][1]
    image_HW3 = np.stack([x_1W + 0 * y_H1, y_H1 + 0 * x_1W, 90 + 0 * (x_1W + y_H1)], -1) * 0.4
    for person in range(PEOPLE):
        x1, y1, x2, y2 = box_of(person, number)
        squared = ((x_1W - (x1 + x2) / 2) / 12) ** 2 + ((y_H1 - (y1 + y2) / 2) / 25) ** 2
        image_HW3[..., person % 3] += 200 * np.exp(-squared)
    return image_HW3.clip(0, 255).astype(np.uint8)


def box_of(person: int, number: int) -> list[float]:
    """Return where a person of a frame is: x1, y1, x2, y2."""
    x = 160 + 110 * np.sin(0.02 * number * (1 + 0.3 * person) + person)
    y = 120 + 30 * np.cos(0.05 * number + 2 * person)
    return [round(float(value), 3) for value in (x - 25, y - 55, x + 25, y + 55)]


def make_clip(folder: Path, frames: int) -> None:
    """Write clip.mp4 with sound, and boxes.jsonl."""
    with av.open(str(folder / "clip.mp4"), "w") as out:
        stream = out.add_stream("libx264", rate=RATE, options={"preset": "ultrafast"})
        stream.width, stream.height = SIZE_WH
        stream.pix_fmt = "yuv420p"
        sound = out.add_stream("aac", rate=48000)
        sound.codec_context.layout = "mono"
        for number in range(frames):
            out.mux(stream.encode(av.VideoFrame.from_ndarray(shapes(number), format="rgb24")))
        for start in range(0, frames * 48000 // RATE, 1024):
            wave = 0.3 * np.sin(2 * np.pi * 440 / 48000 * np.arange(start, start + 1024))
            chunk = av.AudioFrame.from_ndarray(
                wave[None].astype(np.float32), format="fltp", layout="mono"
            )
            chunk.sample_rate, chunk.pts, chunk.time_base = 48000, start, Fraction(1, 48000)
            out.mux(sound.encode(chunk))
        out.mux(sound.encode(None))
        out.mux(stream.encode(None))
    with (folder / "boxes.jsonl").open("w") as file:
        for number in range(frames):
            there = [p for p in range(PEOPLE) if p < 2 or (number // 40 + p) % 3]
            people = [{"box": box_of(p, number), "box_score": 0.9} for p in there]
            file.write(json.dumps({"source": "clip.mp4", "frame": number, "people": people}) + "\n")


def make_model(path: Path) -> None:
    """Write a small network whose heatmaps have peaks somewhere."""
    torch.manual_seed(0)
    spec = ModelSpec("small", 4, (64, 64), "dark", load_schema("coco17"))
    network = HRNet(spec.width, len(spec.schema))
    for module in network.modules():
        if isinstance(module, torch.nn.Conv2d):
            torch.nn.init.xavier_uniform_(module.weight)
    checkpoint.save_model(path, network.state_dict(), spec, provenance="a test", licence="none")
    checkpoint.load_model = functools.cache(checkpoint.load_model)
    checkpoint.load_model(path, None)  # by name, as the command does: those forked have it already


class Child:
    """One run of the command, in a process that can be killed."""

    def __init__(self, words: list[str], log: Path, *, fork: bool) -> None:
        self._log = log
        with log.open("ab") as file:
            if fork:
                self._pid = os.fork()
                if not self._pid:
                    _become_command(words, file.fileno())
            else:
                command = [sys.executable, "-m", "hrnet_cli", *words]
                process = subprocess.Popen(command, stdout=file, stderr=file)
                self._pid = process.pid
                process.returncode = 0  # it is waited for below
        self._status: int | None = None

    @property
    def running(self) -> bool:
        """Tell whether it has not ended."""
        if self._status is None:
            pid, status = os.waitpid(self._pid, os.WNOHANG)
            if pid:
                self._status = os.waitstatus_to_exitcode(status)
        return self._status is None

    def kill(self) -> None:
        """Kill -9."""
        os.kill(self._pid, signal.SIGKILL)
        self.wait()

    def wait(self) -> int:
        """Return its exit code."""
        while self.running:
            time.sleep(LOOK_S)
        return self._status or 0

    def must_end_well(self) -> None:
        """Wait, and stop everything unless the exit code is 0."""
        if code := self.wait():
            raise SystemExit(f"the command ended with {code}:\n{self._log.read_text()}")


def _become_command(words: list[str], output: int) -> None:
    code = 1
    try:
        os.dup2(output, 1)
        os.dup2(output, 2)
        app(words)
    except SystemExit as ended:
        code = int(ended.code or 0)
    finally:
        os._exit(code)


def records_size(out: Path) -> int:
    """Return the bytes of all records in a folder, those that are not asked for included."""
    size = 0
    with contextlib.suppress(FileNotFoundError):  # renamed or removed meanwhile
        for path in out.rglob("*.jsonl"):
            size += path.stat().st_size
    return size


def timeline(child: Child, out: Path) -> list[tuple[float, int]]:
    """Follow a run to its end: (seconds since the first record, bytes of records)."""
    points: list[tuple[float, int]] = []
    start = 0.0
    while child.running:
        size = records_size(out)
        now = time.perf_counter()
        start = start or (now if size else 0.0)
        if size:
            points.append((now - start, size))
        time.sleep(LOOK_S)
    return points


def kill_at(child: Child, out: Path, points: list[tuple[float, int]], moment_s: float) -> bool:
    """Kill a run where the one in one go was at a moment; return whether it still ran.

    On a busy machine time alone would not do: it waits for the same amount of records, and then for
    what is left of the time.
    """
    size = max(then for at, then in points if at <= moment_s)
    grown_s = next(at for at, then in points if then >= size)
    while child.running and records_size(out) < size:
        time.sleep(LOOK_S)
    end = time.perf_counter() + max(0.0, moment_s - grown_s)
    while child.running and time.perf_counter() < end:
        time.sleep(LOOK_S)
    if not child.running:
        return False
    child.kill()
    return True


def planes(path: Path) -> Iterator[tuple[Fraction, bytes]]:
    """Yield time and pixels of every frame, as decoded: nothing is converted."""
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        stream.thread_type = "NONE"
        for frame in container.decode(stream):
            yield frame.pts * stream.time_base, b"".join(bytes(plane) for plane in frame.planes)


def sound_of(path: Path) -> list[tuple[int | None, bytes]]:
    """Return the packets of the sound."""
    with av.open(str(path)) as container:
        return [(packet.pts, bytes(packet)) for packet in container.demux(audio=0) if packet.size]


def same_video(one: Path, other: Path) -> bool:
    """Tell whether two videos have the same frames at the same times, and the same sound."""
    frames = list(planes(one))
    return frames == list(planes(other)) and sound_of(one) == sound_of(other)


def names(out: Path) -> list[str]:
    """Return all files below a folder."""
    return sorted(str(path.relative_to(out)) for path in out.rglob("*"))


def lines(out: Path) -> int:
    """Return the frames that have a record at this moment."""
    found = [path.read_bytes().count(b"\n") for path in out.rglob("*.jsonl")]
    return max(found, default=0)


class Bench:
    """Runs the cases in a folder, which is the working folder.

    Args:
        starter_frames: Frames of the clip for the starter model.
        random: Draws the moments.
    """

    def __init__(self, starter_frames: int, random: np.random.Generator) -> None:
        self._starter_frames = starter_frames
        self._random = random
        self._number = 0

    def run(self, case: Case) -> Tally:
        """Kill and resume as often as a case wants."""
        whole, points = self._whole(case)
        tally = Tally()
        while len(tally.killed_at) < case.kills:
            out = self._folder()
            if not self._killed(case, out, points, tally, resume=False):
                continue
            tally.killed_at.append(lines(out))
            if self._random.random() < AGAIN:
                self._killed(case, out, points, tally, resume=True)
            if Path(out, "clip.resume").exists() or names(out) != names(whole):
                self._start(case, out, resume=True).must_end_well()
            self._compare(whole, out, tally)
            print(f"{out}: {tally}", file=sys.stderr, flush=True)
        return tally

    def _folder(self) -> Path:
        self._number += 1
        return Path(f"out-{self._number}")

    def _start(self, case: Case, out: Path, *, resume: bool) -> Child:
        words = ["detect", "clip.mp4", "--out", str(out), "--format", "jsonl,csv", "--quiet"]
        words += [*case.words, "--device", "cpu", "--offline", *(["--resume"] if resume else [])]
        if case.starter:
            words += ["--model", "starter", "--max-frames", str(self._starter_frames)]
        else:
            words += ["--model", "small.safetensors"]
        return Child(words, Path(f"{out}.log"), fork=not case.starter)

    def _whole(self, case: Case) -> tuple[Path, list[tuple[float, int]]]:
        out = self._folder()
        child = self._start(case, out, resume=False)
        points = timeline(child, out)
        child.must_end_well()
        return out, points

    def _killed(
        self,
        case: Case,
        out: Path,
        points: list[tuple[float, int]],
        tally: Tally,
        *,
        resume: bool,
    ) -> bool:
        child = self._start(case, out, resume=resume)
        if resume:
            # It goes on from the last segment, so that what is left is shorter.
            end = time.perf_counter() + self._random.uniform(0, points[-1][0])
            while child.running and time.perf_counter() < end:
                time.sleep(LOOK_S)
            killed = child.running
            if killed:
                child.kill()
        else:
            killed = kill_at(child, out, points, self._random.uniform(0, points[-1][0]))
        if not killed:
            child.must_end_well()
        tally.kills += killed
        return killed

    def _compare(self, whole: Path, out: Path, tally: Tally) -> None:
        same = [(whole / f"clip.{s}").read_bytes() for s in ("jsonl", "csv")]
        tally.records += same == [(out / f"clip.{s}").read_bytes() for s in ("jsonl", "csv")]
        tally.video += same_video(whole / "clip.mp4", out / "clip.mp4")
        tally.leftovers += names(whole) != names(out)


def report(case: Case, tally: Tally, frames: int) -> str:
    """Return one row of the table."""
    words = " ".join(case.words).replace("--boxes boxes.jsonl", "--boxes")
    runs = len(tally.killed_at)
    return (
        f"| {'starter' if case.starter else 'small'}, {frames} frames | `{words}` | {runs} |"
        f" {tally.kills} | {', '.join(map(str, sorted(tally.killed_at)))} |"
        f" {tally.records} of {runs} | {tally.video} of {runs} | {tally.leftovers} |"
    )


def main() -> None:
    """Kill, resume, compare, and print a markdown table."""
    parser = argparse.ArgumentParser(description="Kill video runs and resume them.")
    parser.add_argument("--frames", type=int, default=450)
    parser.add_argument("--starter-frames", type=int, default=230)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--segment", type=int, default=video_file.SEGMENT_FRAMES)
    parser.add_argument("--case", type=int, action="append", help="only this one, from 0 on")
    options = parser.parse_args()
    video_file.SEGMENT_FRAMES = streaming.SEGMENT_FRAMES = options.segment
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
        make_clip(Path(), options.frames)
        make_model(Path("small.safetensors"))
        bench = Bench(options.starter_frames, np.random.default_rng(options.seed))
        print(
            "| model | options | runs | kills | records when killed first | same records |"
            " same video | files too many or few |\n|---|---|---|---|---|---|---|---|",
            flush=True,
        )
        start, bad = time.perf_counter(), 0
        for case in [CASES[number] for number in options.case or range(len(CASES))]:
            tally = bench.run(case)
            bad += 2 * len(tally.killed_at) - tally.records - tally.video + tally.leftovers
            frames = options.starter_frames if case.starter else options.frames
            print(report(case, tally, frames), flush=True)
    print(
        f"\n{time.perf_counter() - start:.0f} s; seed {options.seed}. A run can go on at every"
        f" {options.segment} frames, with the starter model at every 100."
    )
    if bad:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
