"""Processes of --jobs and --devices: what they are told, and that none is left behind."""

import io
import subprocess
import sys
from types import SimpleNamespace

import pytest

from hrnet_cli.cli import detect_jobs
from hrnet_cli.cli.detect_jobs import _part_words, _wait, run_jobs
from hrnet_cli.cli.video_options import VideoOptions


@pytest.mark.parametrize(
    ("given", "told"),
    [
        (["a.mp4", "--jobs", "2", "--track"], ["a.mp4", "--track"]),
        (["--jobs=2", "a.mp4"], ["a.mp4"]),
        (["a.mp4", "--devices", "0,1", "b.mp4", "--devices=2"], ["a.mp4", "b.mp4"]),
        # Behind -- all words are sources, whatever they look like.
        (["--jobs", "2", "--", "-a.mp4", "--jobs"], ["--", "-a.mp4", "--jobs"]),
    ],
)
def test_a_process_is_told_its_part_and_the_rest_as_given(given, told):
    words = _part_words(["detect", *given], "1/2", ["--threads", "4"])
    assert words == ["detect", "--shard", "1/2", "--threads", "4", *told]


def test_a_process_sees_its_own_gpu_only_and_is_heard(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["hrnet", "detect", "a.mp4", "--devices", "2,5", "b.mp4"])
    started = []

    class Ended:
        returncode = 0

        def __init__(self, words, *, env, **_):
            self.stderr = io.BytesIO("a.mp4 k\u00f6nnte\nzwei\n".encode())
            started.append((words[3:], env["CUDA_VISIBLE_DEVICES"]))

        def poll(self):
            return 0

    monkeypatch.setattr(detect_jobs.subprocess, "Popen", Ended)
    monkeypatch.setattr(detect_jobs, "processors", lambda: 6)
    options = SimpleNamespace(
        video=VideoOptions(devices="2,5"), quiet=True, folder=None, threads=None
    )
    run_jobs(SimpleNamespace(photos=[], videos=["a.mp4", "b.mp4"]), options)
    told = ["--threads", "3", "--device", "cuda", "a.mp4", "b.mp4"]
    assert started == [
        (["detect", "--shard", "1/2", *told], "2"),
        (["detect", "--shard", "2/2", *told], "5"),
    ]
    said = capsys.readouterr().err.splitlines()
    assert sorted(said) == ["1: a.mp4 k\u00f6nnte", "1: zwei", "2: a.mp4 k\u00f6nnte", "2: zwei"]


@pytest.mark.parametrize(
    ("asked", "told", "said"),
    [
        (None, ["--threads", "4"], "2 processes, 4 threads each"),
        (3, ["--threads", "3"], "2 processes, 3 threads each"),
    ],
)
def test_processes_share_the_processors(monkeypatch, capsys, asked, told, said):
    # All engines go by --threads, only torch by the environment.
    given = ["detect", "a.mp4", "b.mp4", *(["--threads", str(asked)] if asked else [])]
    monkeypatch.setattr(sys, "argv", ["hrnet", *given, "--jobs", "2"])
    monkeypatch.setattr(detect_jobs, "processors", lambda: 9)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    started = []

    class Ended:
        returncode = 0
        stderr = None

        def __init__(self, words, *, env, **_):
            started.append(words[words.index("--threads") :][:2])
            assert words.count("--threads") == 1
            assert env["OMP_NUM_THREADS"] == told[1]

        def poll(self):
            return 0

    monkeypatch.setattr(detect_jobs.subprocess, "Popen", Ended)
    options = SimpleNamespace(video=VideoOptions(jobs=2), quiet=False, folder=None, threads=asked)
    run_jobs(SimpleNamespace(photos=[], videos=["a.mp4", "b.mp4"]), options)
    assert started == [told, told]
    assert said in capsys.readouterr().err


def test_a_second_ctrl_c_leaves_no_process_behind():
    class SecondSignal:
        @property
        def requested(self):
            raise KeyboardInterrupt

    sleeping = [sys.executable, "-S", "-c", "import time; time.sleep(120)"]
    jobs = [subprocess.Popen(sleeping) for _ in range(2)]
    with pytest.raises(KeyboardInterrupt):
        _wait(jobs, SecondSignal())
    assert all(job.returncode is not None for job in jobs)
