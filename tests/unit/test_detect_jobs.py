"""Processes of --jobs: what they are told, and that none is left behind."""

import subprocess
import sys

import pytest

from hrnet_cli.cli.detect_jobs import _part_words, _wait


@pytest.mark.parametrize(
    ("given", "told"),
    [
        (["a.mp4", "--jobs", "2", "--track"], ["a.mp4", "--track"]),
        (["--jobs=2", "a.mp4"], ["a.mp4"]),
        # Behind -- all words are sources, whatever they look like.
        (["--jobs", "2", "--", "-a.mp4", "--jobs"], ["--", "-a.mp4", "--jobs"]),
    ],
)
def test_a_process_is_told_its_part_and_the_rest_as_given(given, told):
    assert _part_words(["detect", *given], "1/2") == ["detect", "--shard", "1/2", *told]


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
