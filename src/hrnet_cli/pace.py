"""How fast the steps of a training run go."""

import time
from collections.abc import Iterator

import torch

from hrnet_cli import optimisation
from hrnet_cli.data.crops import CropBatch
from hrnet_cli.run_events import StepReport
from hrnet_cli.run_state import Run


class Pace:
    """Measures how fast the steps go and how long they wait for samples."""

    def __init__(self, run: Run) -> None:
        self._run = run
        self._begun = time.monotonic()
        self._waited = 0.0
        self._samples = run.progress.samples

    def waiting_for(self, batches: Iterator[CropBatch]) -> Iterator[CropBatch]:
        """Yield the batches, adding up the time each is waited for."""
        while True:
            asked = time.monotonic()
            batch = next(batches, None)
            self._waited += time.monotonic() - asked
            if batch is None:
                return
            yield batch

    def report(self) -> StepReport:
        """Return how the run is doing since the epoch began in this process.

        Its first step of all chooses kernels and may compile for minutes; the speed of what follows
        is told without it.
        """
        run, progress = self._run, self._run.progress
        now = time.monotonic()
        taken = max(now - self._begun, 1e-9)
        done = progress.epoch * run.epoch_steps + progress.step
        on_gpu = run.device.startswith("cuda")
        report = StepReport(
            epoch=progress.epoch + 1,
            epochs=run.config.optimizer.epochs,
            step=progress.step,
            steps=run.epoch_steps,
            loss=progress.loss_sum / max(1, progress.step),
            learning_rate=run.config.learning_rate(run.rated_batch)
            * optimisation.rate_factor(run.config.optimizer, max(0, done - 1), run.epoch_steps),
            people_per_step=run.batch,
            samples_per_s=(progress.samples - self._samples) / taken,
            data_wait=self._waited / taken,
            memory_mb=torch.cuda.max_memory_allocated(run.device) >> 20 if on_gpu else 0,
            seconds=now - run.started,
            unreadable=progress.unreadable,
            settled=run.settled,
        )
        if progress.samples > self._samples and not run.settled:
            run.settled = True
            self._begun, self._waited, self._samples = now, 0.0, progress.samples
        return report
