"""What a training run reports while it goes."""

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class StepReport:
    """How a run is doing.

    Attributes:
        epoch: From 1.
        epochs: Of the run.
        step: Steps done in this epoch.
        steps: Of an epoch.
        loss: Mean since the epoch began.
        learning_rate: Of the head.
        people_per_step: Batch of all processes together.
        samples_per_s: People a second, all processes together, since the epoch began, without the
            first step of the process once there are more; 0 where this process did none of it.
        data_wait: Share of that time spent waiting for samples, 0 to 1.
        memory_mb: Most memory used on the GPU; 0 on a CPU.
        seconds: Time of the run so far, over all its parts.
        unreadable: Samples whose photo could not be read.
        settled: Whether the speed is that of the steps to come: a first step was done before.
    """

    epoch: int
    epochs: int
    step: int
    steps: int
    loss: float
    learning_rate: float
    people_per_step: int
    samples_per_s: float
    data_wait: float
    memory_mb: int
    seconds: float
    unreadable: int
    settled: bool = True


@dataclass(frozen=True)
class EpochReport:
    """The end of an epoch.

    Attributes:
        last: Its last step.
        metrics: What was measured, by name: scores, 0 to 1, and `loss`; empty when nothing was.
        best: Whether this is the best measurement so far.
    """

    last: StepReport
    metrics: dict[str, float]
    best: bool


OnEvent = Callable[[StepReport | EpochReport | str], None]
