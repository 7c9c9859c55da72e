"""Wall-clock time by stage, for ``--show-stages`` and the benchmarks."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field


@dataclass
class StageClock:
    """Seconds spent in each named stage; stages must not nest.

    Attributes:
        seconds: Stage name to seconds, in order of first use.
    """

    seconds: dict[str, float] = field(default_factory=dict[str, float])

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Add the time of the block to a stage, also when it raises."""
        start = time.perf_counter()
        try:
            yield
        finally:
            elapsed = time.perf_counter() - start
            self.seconds[name] = self.seconds.get(name, 0.0) + elapsed

    def taken(self) -> dict[str, float]:
        """Return a copy of the seconds, to look at while other threads add to them."""
        return self.seconds.copy()
