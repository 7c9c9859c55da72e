"""What a container or a batch system lets this process have: the control groups of Linux.

A machine's own figures say nothing of them. Version 2 is described in the kernel's
Documentation/admin-guide/cgroup-v2.rst, version 1 in cgroup-v1/memory.rst there and in
Documentation/scheduler/sched-bwc.rst. A limit of a group holds for all groups below it.
"""

from collections.abc import Iterator
from math import ceil
from pathlib import Path

# More than processors have; engines fail at some larger number, each in its own way.
MOST_THREADS = 1024

_OWN_GROUPS = Path("/proc/self/cgroup")
_ROOT = Path("/sys/fs/cgroup")


def memory_left() -> int | None:
    """Return the bytes up to the nearest limit, None where there is none.

    Cached files count as free, as in the kernel's MemAvailable: they make room when asked to.
    """
    left: list[int] = []
    for group in _groups("memory"):
        for limit, used, total in (
            ("memory.max", "memory.current", ""),
            ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_"),
        ):
            most, now = _numbers(group / limit), _numbers(group / used)
            if most and now:
                left.append(most[0] - now[0] + _cached(group, total))
    return max(0, min(left)) if left else None


def processors_allowed() -> int | None:
    """Return how many processors the time allowed is worth, rounded up; None without a limit."""
    shares = [
        numbers
        for group in _groups("cpu")
        for numbers in (
            _numbers(group / "cpu.max"),
            _numbers(group / "cpu.cfs_quota_us") + _numbers(group / "cpu.cfs_period_us"),
        )
    ]
    # Without a limit version 2 says "max", version 1 says -1.
    allowed = [share for share in shares if len(share) == 2 and min(share) > 0]
    return min((ceil(quota / period) for quota, period in allowed), default=None)


def _groups(controller: str) -> Iterator[Path]:
    """Yield the folders of this process's group and of all above it, in both versions.

    Inside a container they may not be there: its own group is then the root.
    """
    try:
        lines = _OWN_GROUPS.read_text(encoding="utf-8").splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers and controller not in controllers.split(","):
            continue
        tree = _ROOT / controller if controllers else _ROOT
        parts = [part for part in path.split("/") if part]
        for depth in range(len(parts), -1, -1):
            yield tree.joinpath(*parts[:depth])


def _cached(group: Path, total: str) -> int:
    """Return the bytes of cached files of a group and those below it."""
    try:
        lines = (group / "memory.stat").read_text(encoding="ascii").splitlines()
    except OSError:
        return 0
    names = (f"{total}inactive_file", f"{total}active_file")
    return sum(int(line.split()[1]) for line in lines if line.split()[0] in names)


def _numbers(path: Path) -> list[int]:
    """Return the numbers in a file; none where it is missing or says something else."""
    try:
        return [int(word) for word in path.read_text(encoding="ascii").split()]
    except (OSError, ValueError):
        return []
