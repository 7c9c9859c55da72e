"""Several processes that train together: who they are, what they exchange, and who is late.

``torchrun`` starts them and sets the environment this reads. Gradients travel over NCCL (GPUs) or
gloo (CPUs); everything else over gloo, which can name a process that does not answer.
"""

import os
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist

from hrnet_cli.errors import ConfigError, TrainingError


@dataclass(frozen=True)
class Team:
    """The processes of a run.

    Attributes:
        rank: Number of this process, from 0.
        size: How many there are.
        local_rank: Number of this process on its machine: its GPU.
        timeout_s: Seconds to wait for the others.
    """

    rank: int = 0
    size: int = 1
    local_rank: int = 0
    timeout_s: int = 600

    @property
    def leads(self) -> bool:
        """Return whether this process writes files and speaks."""
        return self.rank == 0

    def gather(self, value: object) -> list[Any]:
        """Return the values of all processes, in order of rank, on every process."""
        if self.size == 1:
            return [value]
        values: list[Any] = [None] * self.size
        dist.all_gather_object(values, value, group=_talk())
        return values

    def share(self, value: object) -> Any:  # noqa: ANN401 - whatever the leader has
        """Return the leader's value on every process."""
        if self.size == 1:
            return value
        box = [value]
        dist.broadcast_object_list(box, src=0, group=_talk())
        return box[0]

    def meet(self, where: str) -> None:
        """Wait until every process is here.

        Args:
            where: Place in the run, for the message.

        Raises:
            TrainingError: One does not come in time; it is named.
        """
        if self.size == 1:
            return
        try:
            dist.monitored_barrier(
                group=_talk(), timeout=timedelta(seconds=self.timeout_s), wait_all_ranks=True
            )
        except RuntimeError as error:
            raise TrainingError(
                f"waited {self.timeout_s} s at {where}: {_first_line(error)}",
                hint="look at the log of the process named; a full disk, a slow file system or a"
                " GPU out of memory are the usual causes; --resume continues from the last state",
            ) from error


_groups: dict[str, Any] = {}


def join_team(device: str, timeout_s: int) -> Team:
    """Return the team that ``torchrun`` started this process in, alone without it.

    Args:
        device: ``cpu`` or ``cuda``: decides how gradients travel.
        timeout_s: Seconds after which a silent process ends the run.

    Raises:
        ConfigError: The environment is incomplete.
    """
    if "WORLD_SIZE" not in os.environ:
        return Team(timeout_s=timeout_s)
    try:
        rank, size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
        local_rank = int(os.environ.get("LOCAL_RANK", rank))
    except (KeyError, ValueError) as error:
        raise ConfigError(
            f"WORLD_SIZE is set but the rest of a launcher's environment is not: {error}",
            hint="start with torchrun, or with hrnet train --devices N",
        ) from error
    if size == 1:
        return Team(timeout_s=timeout_s)
    if not dist.is_initialized():
        timeout = timedelta(seconds=timeout_s)
        backend = "nccl" if device.startswith("cuda") else "gloo"
        dist.init_process_group(backend, timeout=timeout)
        _groups["talk"] = dist.new_group(backend="gloo", timeout=timeout)
    return Team(rank, size, local_rank, timeout_s)


def leave_team() -> None:
    """End the exchange; harmless for a process alone."""
    if dist.is_initialized():
        dist.destroy_process_group()
        _groups.clear()


def mean_over(team: Team, values: torch.Tensor) -> torch.Tensor:
    """Return the mean of a tensor over all processes."""
    if team.size == 1:
        return values
    total = values.clone()
    dist.all_reduce(total)
    return total / team.size


def any_of(team: Team, flag: bool, device: str) -> bool:
    """Return whether the flag is up on any process."""
    if team.size == 1:
        return flag
    raised = torch.tensor(float(flag), device=device)
    dist.all_reduce(raised, op=dist.ReduceOp.MAX)
    return bool(raised.item())


def _talk() -> Any:  # noqa: ANN401 - torch's process group has no public type
    return _groups.get("talk")


def _first_line(error: BaseException) -> str:
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
