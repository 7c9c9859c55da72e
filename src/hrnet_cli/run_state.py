"""A training run in progress: its parts, how they are put together, saved and restored."""

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from inspect import signature
from typing import Any

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim.swa_utils import AveragedModel
from torch.utils.data import DataLoader

from hrnet_cli import optimisation
from hrnet_cli.config import ModelSpec
from hrnet_cli.data.crops import CropBatch, CropDataset, EpochSampler, build_loader
from hrnet_cli.data.people import digest
from hrnet_cli.device import pick_precision, processors
from hrnet_cli.distributed import Team
from hrnet_cli.errors import ConfigError, DeviceError, TrainingError
from hrnet_cli.loss import loss_function
from hrnet_cli.memory import GB, cpu_bytes, fitting_on_cpu, free_bytes, largest_batch
from hrnet_cli.pixels import normalise
from hrnet_cli.recipe import TrainConfig, config_to_toml
from hrnet_cli.schema import schema_from_dict, schema_to_dict
from hrnet_cli.step_graph import StepGraph
from hrnet_cli.targets import encode

# Smaller batches fit anywhere and are not worth a look.
CHECKED_BATCH = 4
MOST_WORKERS = 8
# More are of no use, and each is a process with its own memory.
WORKERS_A_PROCESSOR = 4
# The argument that keeps batch statistics apart; PyTorch 2.15 gave it another name.
_SYNC_BUFFERS = (
    "forward_sync_buffers"
    if "forward_sync_buffers" in signature(DistributedDataParallel).parameters
    else "broadcast_buffers"
)


@dataclass
class Progress:
    """How far a run has come: all of its state that is no tensor.

    Attributes:
        epoch: Epochs done.
        step: Steps done of the next one.
        loss_sum: Sum of the losses of those steps.
        samples: People seen in all, repetitions included.
        unreadable: Samples whose photo could not be read.
        seconds: Time taken, over all parts of the run.
        best: Best value of the run's metric so far.
        best_epoch: Epoch that reached it, from 1.
        since_best: Measurements since then.
        judged_by: Metric and hash of the labels that these were measured with; empty: not known.
        start: What the weights were at the beginning, in words.
        begun: Time it began, as ISO 8601.
        commands: What the user typed to begin it, and then each time to go on.
    """

    epoch: int = 0
    step: int = 0
    loss_sum: float = 0.0
    samples: int = 0
    unreadable: int = 0
    seconds: float = 0.0
    best: float | None = None
    best_epoch: int = 0
    since_best: int = 0
    judged_by: str = ""
    start: str = ""
    begun: str = ""
    commands: list[str] = field(default_factory=list[str])


@dataclass
class Run:
    """The parts of a run in progress.

    Attributes:
        config: What was asked for.
        spec: The model that comes out.
        team: The processes that train together.
        device: Where this one computes.
        precision: ``fp32``, ``bf16`` or ``fp16`` of the network's arithmetic.
        data: Samples.
        sampler: Their order.
        loader: Reads them.
        batch: People in a step over all processes.
        rated_batch: Batch that the learning rate is scaled to: the one asked for, also where
            there are fewer people than that and a step takes them all.
        network: The network itself.
        steps_network: What training steps call: the network, compiled or in charge of the
            exchange of gradients where there is one.
        optimizer: Adam.
        scaler: Keeps float16 gradients from vanishing; idle in other precisions.
        average: Moving average of the weights, where there is one.
        progress: How far it has come.
        started: Monotonic time at which it would have begun in one go.
        settled: Whether this process has done a step.
        step_graph: Recording of the steps of full batches, once there is one.
    """

    config: TrainConfig
    spec: ModelSpec
    team: Team
    device: str
    precision: str
    data: CropDataset
    sampler: EpochSampler
    loader: "DataLoader[CropBatch]"
    batch: int
    rated_batch: int
    network: nn.Module
    steps_network: Callable[[torch.Tensor], torch.Tensor]
    optimizer: torch.optim.Optimizer
    scaler: torch.amp.GradScaler
    average: AveragedModel | None
    progress: Progress
    started: float
    settled: bool = False
    step_graph: StepGraph | None = None

    @property
    def epoch_steps(self) -> int:
        """Return the steps of an epoch."""
        return self.sampler.steps_per_epoch

    @property
    def result(self) -> nn.Module:
        """Return the network that is measured and saved: the moving average where there is one."""
        return self.network if self.average is None else self.average.module

    @property
    def half(self) -> torch.dtype | None:
        """Return the type of half-precision arithmetic, None in float32."""
        return {"bf16": torch.bfloat16, "fp16": torch.float16}.get(self.precision)

    def loss_of(
        self,
        batch: CropBatch,
        network: Callable[[torch.Tensor], torch.Tensor] | None = None,
    ) -> torch.Tensor:
        """Return the loss of a batch that lies on the device, ready to go backward.

        Args:
            batch: Crops and keypoints.
            network: Gives the heatmaps; None for the one that learns.
        """
        return self._loss(*self._prepare(batch), network=network)

    def go_backward(self, batch: CropBatch) -> torch.Tensor:
        """Return the loss of a batch that lies on the device; its gradients are in the network."""
        inputs = self._prepare(batch)
        if self._records_steps and len(batch) == self.sampler.batch_size:
            if self.step_graph is None:
                self.step_graph = StepGraph(self._loss, self.network.parameters(), inputs)
            return self.step_graph(inputs)
        self.optimizer.zero_grad(set_to_none=True)
        loss = self._loss(*inputs)
        self.scaler.scale(loss).backward()
        return loss.detach()

    @property
    def _records_steps(self) -> bool:
        # Processes exchange gradients, and a scaler looks at them, in between.
        apart = self.team.size == 1 and not self.scaler.is_enabled()
        return self.config.run.graphs and self.device.startswith("cuda") and apart

    def _prepare(self, batch: CropBatch) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Return pixels, target heatmaps and weights of a batch."""
        pixels = normalise(batch.crops_BHW3, self.spec.mean_rgb, self.spec.std_rgb)
        # Whether a Gaussian is drawn must not depend on how sure a label is: a target without one
        # but with a weight would teach that the keypoint is not there.
        targets, in_frame = encode(
            batch.keypoints_BK2,
            (batch.weights_BK > 0).float(),
            self.spec.input_hw,
            self.spec.codec,
            self.config.sigma,
        )
        return pixels, targets, batch.weights_BK * in_frame

    def _loss(
        self,
        pixels: torch.Tensor,
        targets: torch.Tensor,
        weights: torch.Tensor,
        network: Callable[[torch.Tensor], torch.Tensor] | None = None,
    ) -> torch.Tensor:
        kind = self.device.split(":")[0]
        with torch.autocast(kind, dtype=self.half, enabled=self.half is not None):
            heatmaps = (self.steps_network if network is None else network)(pixels)
        return loss_function(self.config.optimizer.loss)(heatmaps, targets, weights)

    def set_training(self) -> None:
        """Put the network into training mode, its batch statistics as configured."""
        self.network.train()
        if self.config.optimizer.batch_norm == "frozen":
            optimisation.freeze_statistics(self.network)


def build_run(
    config: TrainConfig,
    spec: ModelSpec,
    data: CropDataset,
    network: nn.Module,
    team: Team,
    device: str,
) -> Run:
    """Return a run at its beginning.

    Raises:
        ConfigError: Precision or batch statistics that this device has not.
    """
    precision = pick_precision(config.run.precision, device)
    network = network.to(device)
    if config.run.channels_last:
        network = network.to(memory_format=torch.channels_last)
    kind = device.split(":")[0]
    if team.size > 1 and config.optimizer.batch_norm == "sync":
        if kind != "cuda":
            raise ConfigError(
                f"batch_norm 'sync' needs CUDA, this run is on {device}",
                hint="optimizer.batch_norm = 'local' or 'frozen'",
            )
        network = nn.SyncBatchNorm.convert_sync_batchnorm(network)
    steps_network = torch.compile(network) if config.run.compile else network
    if team.size > 1:
        cards = [torch.device(device)] if kind == "cuda" else None
        frozen = config.optimizer.batch_norm == "frozen"
        sync: dict[str, Any] = {_SYNC_BUFFERS: not frozen}
        steps_network = DistributedDataParallel(steps_network, device_ids=cards, **sync)
    run = Run(
        config=config,
        spec=spec,
        team=team,
        device=device,
        precision=precision,
        data=data,
        sampler=EpochSampler(len(data), batch_size=1, seed=0),
        loader=DataLoader(data),
        batch=0,
        rated_batch=0,
        network=network,
        steps_network=steps_network,
        optimizer=optimisation.build_optimizer(network, config),
        scaler=torch.amp.GradScaler(kind, enabled=precision == "fp16"),
        average=_average(network, config),
        progress=Progress(),
        started=time.monotonic(),
    )
    _set_batch(run)
    return run


def capture(run: Run) -> dict[str, Any]:
    """Return all that continues a run, as tensors and plain values."""
    return {
        "config": config_to_toml(run.config),
        "keypoints": schema_to_dict(run.spec.schema),
        "batch": run.batch,
        "share_photos": run.config.data.share_photos,
        "labels": digest(run.data.people),
        "progress": asdict(run.progress),
        "network": run.network.state_dict(),
        "optimizer": run.optimizer.state_dict(),
        "scaler": run.scaler.state_dict(),
        "average": None if run.average is None else run.average.state_dict(),
        "torch_rng": torch.get_rng_state(),
        "cuda_rng": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
    }


def restore(run: Run, state: dict[str, Any]) -> bool:
    """Bring a run to where a state was captured; return whether its labels are the same.

    Raises:
        TrainingError: The state is of another network, other keypoints or another batch.
    """
    schema = schema_from_dict(state["keypoints"], where="the saved state")
    if schema.keypoints != run.spec.schema.keypoints:
        raise TrainingError(
            f"the saved state has {len(schema)} keypoints ({', '.join(schema.keypoints[:3])}, ...),"
            f" the data {len(run.spec.schema)} ({', '.join(run.spec.schema.keypoints[:3])}, ...)",
            hint="resume with the data the run was started with",
        )
    if state["batch"] != run.batch:
        raise TrainingError(
            f"the saved state was trained in batches of {state['batch']}, this run would take"
            f" {run.batch}",
            hint="resume with the same data and with a number of devices that divides the batch",
        )
    if state["share_photos"] != run.config.data.share_photos:
        before, now = state["share_photos"], run.config.data.share_photos
        raise TrainingError(
            f"the saved state was trained with data.share_photos = {str(before).lower()}, this run"
            f" has {str(now).lower()}: people would be left out or seen twice",
            hint="resume with --no-share-photos" if now else "resume with --share-photos",
        )
    try:
        run.network.load_state_dict(state["network"])
        run.optimizer.load_state_dict(state["optimizer"])
        run.scaler.load_state_dict(state["scaler"])
        if run.average is not None and state["average"] is not None:
            run.average.load_state_dict(state["average"])
    except (RuntimeError, ValueError, KeyError) as error:
        raise TrainingError(
            f"the saved state is of another network: {str(error).splitlines()[-1].strip()}",
            hint="resume with the configuration the run was started with",
        ) from error
    run.progress = Progress(**state["progress"])
    torch.set_rng_state(state["torch_rng"].cpu())
    if torch.cuda.is_available() and len(state["cuda_rng"]) == torch.cuda.device_count():
        torch.cuda.set_rng_state_all([rng.cpu() for rng in state["cuda_rng"]])
    run.started = time.monotonic() - run.progress.seconds
    return state.get("labels") == digest(run.data.people)


def fitting_batch(run: Run) -> int:
    """Return the largest batch of all processes together that their memory holds."""
    run.set_training()
    return run.team.size * largest_batch(run.network, run.spec.input_hw, run.device, run.half)


def _agreed_batch(run: Run) -> int:
    """Return the batch that fits everywhere: memory may differ between the processes of a run.

    Raises:
        DeviceError: One process has no room for any; raised in all.
    """
    mine: int | DeviceError
    try:
        mine = fitting_batch(run)
    except DeviceError as error:
        mine = error
    found = run.team.gather(mine)
    for one in found:
        if isinstance(one, DeviceError):
            raise one
    return min(found)


def _check_cpu_memory(run: Run, each: int) -> None:
    """Refuse a batch that would fill the memory: the system would end the process unasked."""
    run.set_training()
    mine = fitting_on_cpu(run.network, run.spec.input_hw, run.half), free_bytes() or 0
    # All go on or none: those that did would wait for the others in vain.
    fits, free = min(run.team.gather(mine))
    if each <= fits:
        return
    height, width = run.spec.input_hw
    needed = each * cpu_bytes(run.network, run.spec.input_hw, run.half)
    hint = (
        f"--batch-size {fits * run.team.size} fits; the learning rate follows it"
        if fits >= 1
        else "a smaller --input or --width"
    )
    raise DeviceError(
        f"a step of {each} people at {height}x{width}, width {run.spec.width}, needs about"
        f" {needed / GB:.0f} GB of memory, {free / GB:.0f} GB are free",
        hint=hint,
    )


def _set_batch(run: Run) -> None:
    """Set the batch of a run, and with it sampler and loader."""
    config = run.config.run
    asked = config.batch_size or run.config.official_batch
    if asked == -1:
        asked = _agreed_batch(run)
    if asked < run.team.size:
        raise ConfigError(
            f"a batch of {asked} cannot be shared by {run.team.size} processes",
            hint="a larger --batch-size or fewer --devices",
        )
    run.rated_batch = asked
    each = max(1, min(asked, len(run.data)) // run.team.size)
    if run.device == "cpu" and each > CHECKED_BATCH:
        _check_cpu_memory(run, each)
    run.batch = each * run.team.size
    run.sampler = EpochSampler(
        len(run.data),
        batch_size=each,
        seed=config.seed,
        rank=run.team.rank,
        ranks=run.team.size,
        photo_of_N=run.data.people.photo_of_N if run.config.data.share_photos else None,
    )
    workers = run.config.data.workers
    if workers < 0:
        share = max(1, processors() // run.team.size)
        # On a CPU the network needs all cores: a reader that takes one from it for a moment makes
        # the other threads of the step wait, and costs far more than it saves.
        workers = min(MOST_WORKERS, share) if run.device.startswith("cuda") else 0
    workers = min(workers, WORKERS_A_PROCESSOR * processors())
    pin = run.device.startswith("cuda")
    run.loader = build_loader(run.data, run.sampler, workers=workers, pin=pin)


def _average(network: nn.Module, config: TrainConfig) -> AveragedModel | None:
    if not config.optimizer.ema:
        return None
    return optimisation.moving_average(network, config.optimizer.ema)
