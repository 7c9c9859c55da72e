"""Limits of containers, from files such as a kernel shows."""

import os
from pathlib import Path

import pytest

from hrnet_cli import device, limits, memory

GB = 2**30
STAT = f"anon {GB}\ninactive_file {GB}\nactive_file 1\nactive_file_other 7\nshmem 5\n"


@pytest.fixture
def kernel(tmp_path, monkeypatch):
    """Show files of control groups in place of those of this machine."""

    def show(own_groups, **files):
        (tmp_path / "own").write_text(own_groups)
        for name, text in files.items():
            path = tmp_path / "groups" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        monkeypatch.setattr(limits, "_OWN_GROUPS", tmp_path / "own")
        monkeypatch.setattr(limits, "_ROOT", tmp_path / "groups")

    return show


@pytest.mark.parametrize(
    ("own_groups", "files", "left"),
    [
        # A container sees its own group as the root.
        ("0::/\n", {"memory.max": f"{4 * GB}", "memory.current": f"{3 * GB}"}, GB),
        # A batch system's group: the lowest limit on the way up counts.
        (
            "0::/job/step\n",
            {
                "job/memory.max": f"{2 * GB}",
                "job/memory.current": f"{GB}",
                "job/step/memory.max": "max",
                "job/step/memory.current": "4096",
            },
            GB,
        ),
        # What files have filled makes room.
        (
            "0::/\n",
            {"memory.max": f"{4 * GB}", "memory.current": f"{4 * GB}", "memory.stat": STAT},
            GB + 1,
        ),
        # Version 1, and a group that only the machine around the container knows by this name.
        (
            "4:memory:/docker/abc\n1:cpu,cpuacct:/docker/abc\n0::/\n",
            {
                "memory/memory.limit_in_bytes": f"{3 * GB}",
                "memory/memory.usage_in_bytes": f"{2 * GB}",
                "memory/memory.stat": "inactive_file 9\ntotal_inactive_file 5\n",
            },
            GB + 5,
        ),
        # More than allowed is in use: the limit was lowered.
        ("0::/\n", {"memory.max": "10", "memory.current": "20"}, 0),
        ("0::/\n", {"memory.max": "max", "memory.current": "20"}, None),
        ("0::/\n", {}, None),
    ],
)
def test_memory_up_to_the_limit(kernel, own_groups, files, left):
    kernel(own_groups, **files)
    assert limits.memory_left() == left


@pytest.mark.parametrize(
    ("own_groups", "files", "count"),
    [
        ("0::/\n", {"cpu.max": "200000 100000\n"}, 2),
        ("0::/\n", {"cpu.max": "150000 100000\n"}, 2),
        ("0::/\n", {"cpu.max": "max 100000\n"}, None),
        ("0::/a/b\n", {"a/b/cpu.max": "400000 100000", "a/cpu.max": "100000 100000"}, 1),
        (
            "2:cpu,cpuacct:/x\n",
            {"cpu/x/cpu.cfs_quota_us": "50000\n", "cpu/x/cpu.cfs_period_us": "100000\n"},
            1,
        ),
        (
            "2:cpu,cpuacct:/\n",
            {"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"},
            None,
        ),
        ("2:cpuset:/\n", {"cpu.max": "100000 100000"}, None),
    ],
)
def test_processors_by_their_time(kernel, own_groups, files, count):
    kernel(own_groups, **files)
    assert limits.processors_allowed() == count


def test_without_control_groups_there_is_no_limit(monkeypatch, tmp_path):
    monkeypatch.setattr(limits, "_OWN_GROUPS", tmp_path / "missing")
    assert limits.memory_left() is None
    assert limits.processors_allowed() is None


def test_a_machine_has_no_more_than_its_container(kernel, monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)), raising=False)
    kernel("0::/\n", **{"cpu.max": "300000 100000"})
    assert device.processors() == 3
    kernel("0::/\n", **{"cpu.max": "1600000 100000"})
    assert device.processors() == 8
    read = Path.read_text
    monkeypatch.setattr(
        Path,
        "read_text",
        lambda path, **options: (
            f"MemTotal: 9 kB\nMemAvailable: {GB // 1024} kB\n"
            if path == Path("/proc/meminfo")
            else read(path, **options)
        ),
    )
    kernel("0::/\n", **{"memory.max": "5000", "memory.current": "1000"})
    assert memory.free_bytes() == 4000
    kernel("0::/\n", **{"memory.max": f"{2 * GB}"})
    assert memory.free_bytes() == GB
