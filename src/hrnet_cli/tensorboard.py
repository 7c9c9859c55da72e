"""A training run as TensorBoard's event files (the extra ``hrnet-cli[tensorboard]``)."""

from pathlib import Path

from hrnet_cli.errors import UsageError
from hrnet_cli.run_events import EpochReport, StepReport


class TensorboardLog:
    """Takes the events of `training.train`.

    Args:
        folder: Where the event files go.

    Raises:
        UsageError: The tensorboard package is not installed.
    """

    def __init__(self, folder: Path) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise UsageError(
                "--tensorboard needs the tensorboard package",
                hint="pip install 'hrnet-cli[tensorboard]'",
            ) from error
        self._writer = SummaryWriter(str(folder))

    def note(self, line: str) -> None:
        """Keep a line about the data as text."""
        self._writer.add_text("data", line)

    def event(self, event: StepReport | EpochReport | str) -> None:
        """Write an event of the run."""
        if isinstance(event, str):
            self._writer.add_text("run", event)
            return
        report = event.last if isinstance(event, EpochReport) else event
        step = (report.epoch - 1) * report.steps + report.step
        if isinstance(event, EpochReport):
            for name, value in event.metrics.items():
                self._writer.add_scalar(f"val/{name}", value, step)
            self._writer.flush()
            return
        self._writer.add_scalar("train/loss", report.loss, step)
        self._writer.add_scalar("train/learning_rate", report.learning_rate, step)
        self._writer.add_scalar("speed/people_per_s", report.samples_per_s, step)
        self._writer.add_scalar("speed/data_wait", report.data_wait, step)

    def close(self) -> None:
        """Finish the files."""
        self._writer.close()
