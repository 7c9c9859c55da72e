"""What ``hrnet train`` and ``hrnet fine-tune`` do: configuration, data, processes, report."""

import os
import sys
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from hrnet_cli.cli.console import out, say, say_error, say_warning
from hrnet_cli.cli.train_options import TrainOptions, with_settings
from hrnet_cli.errors import ConfigError, ExitCode, HrnetError, InputError, UsageError
from hrnet_cli.redaction import shown_command

if TYPE_CHECKING:
    from hrnet_cli.recipe import TrainConfig
    from hrnet_cli.training import TrainResult


# What a run that goes on must not change: its network, its targets, what it averages, its steps.
_KEPT: "dict[str, Callable[[TrainConfig], object]]" = {
    "--width": lambda config: config.model.width,
    "--input": lambda config: config.model.input_hw,
    "--codec": lambda config: config.model.codec,
    "--sigma": lambda config: config.sigma,
    "--ema": lambda config: config.optimizer.ema,
    "--batch-size": lambda config: config.run.batch_size or config.official_batch,
}
# Other photos held out would be some that the run has learnt from.
_KEPT_WITH_SHARE: "dict[str, Callable[[TrainConfig], object]]" = {
    "--val": lambda config: config.data.val,
    "--seed": lambda config: config.run.seed,
}
_LARGEST_BATCH = -1


def run(options: TrainOptions) -> None:
    """Train as asked, in this process or in several.

    Raises:
        HrnetError: As `training.train`, `recipe.load_config` and `data.open_dataset`.
    """
    if options.resume and options.overwrite:
        raise UsageError("--resume and --overwrite contradict each other", hint="leave one out")
    options = with_settings(options)
    if options.resume:
        options = _of_the_folder(options)
    config = _configuration(options)
    folder = options.out or _default_folder(config)
    options = replace(options, out=folder)
    if options.devices and options.devices > 1 and "WORLD_SIZE" not in os.environ:
        _run_in_processes(options)
        return
    result = _train(options, config, folder)
    if result is not None:
        _say_result(options, result)


def _of_the_folder(options: TrainOptions) -> TrainOptions:
    """Return the options of a run that goes on: its folder is found, its start stays its own."""
    if options.out is None:
        options = replace(options, out=_default_folder(_configuration(options)))
    unread = ["--config"] if options.recipe else []
    start = options.overrides["model.start"]
    if start is not None:
        unread.append("--from-scratch" if start == "scratch" else "--from")
    if unread and not options.quiet:
        say(f"{' and '.join(unread)} of no effect: the run goes on as it began")
    return replace(options, overrides={**options.overrides, "model.start": None})


def _configuration(options: TrainOptions) -> "TrainConfig":
    """Return the configuration; what an option says wrongly is a mistake of usage."""
    from hrnet_cli.recipe import OPTIONS

    try:
        return _read_configuration(options)
    except ConfigError as error:
        if not error.message.startswith(f"{OPTIONS}: "):
            raise
        raise UsageError(error.message, hint=error.hint) from error


def _read_configuration(options: TrainOptions) -> "TrainConfig":
    from hrnet_cli.recipe import load_config
    from hrnet_cli.run_folder import RunFolder
    from hrnet_cli.start import starting_spec

    stored = RunFolder(options.out).config if options.resume and options.out else None
    if stored is not None and stored.is_file():
        begun, config = (load_config(str(stored), change) for change in (None, options.overrides))
        _refuse_another_network(begun, config, options.out)
        return config
    if stored is not None and not RunFolder(options.out or Path()).path.exists():
        raise InputError(
            f"there is no run in '{options.out}' to resume", hint="leave out --resume to begin one"
        )
    config = load_config(options.recipe, options.overrides, below=options.below)
    spec = starting_spec(config.model.start, offline=options.offline)
    if spec is None:
        return config
    like_the_start = {
        "model.width": spec.width,
        "model.input_hw": list(spec.input_hw),
        "model.codec": spec.codec,
    }
    return load_config(options.recipe, options.overrides, like_the_start, options.below)


def _refuse_another_network(
    begun: "TrainConfig", config: "TrainConfig", folder: Path | None
) -> None:
    """Raise UsageError where options change what a run that goes on learns."""
    shares = (begun.data.val_share, config.data.val_share)
    kept = _KEPT if shares == (None, None) else {**_KEPT, **_KEPT_WITH_SHARE}
    for option, value_of in kept.items():
        before, now = value_of(begun), value_of(config)
        # What fitted is known to the state alone, which is compared as it is read.
        if before not in (now, _LARGEST_BATCH):
            raise UsageError(
                f"{option} is {_shown(now)}, but the run in '{folder}' has {_shown(before)} and"
                " keeps that to its end",
                hint=f"leave out {option}, or begin another run with --from this one's weights",
            )


def _shown(value: object) -> str:
    if isinstance(value, tuple | list):
        return "x".join(map(str, value))
    if value == _LARGEST_BATCH:
        return "the largest that fits"
    return f"{value}" or "none"


def _default_folder(config: "TrainConfig") -> Path:
    data = Path(config.data.train)
    name = data.stem
    if data.suffix in ("", ".yaml", ".yml") and data.exists():
        # Every YOLO data set is called data.yaml; its folder tells it apart.
        name = (data if data.is_dir() else data.parent).resolve().name or "data"
    height, width = config.model.input_hw
    return Path("hrnet-runs") / f"{name}-w{config.model.width}-{height}x{width}"


def _train(options: TrainOptions, config: "TrainConfig", path: Path) -> "TrainResult | None":
    """Train in this process; return the result where it leads, None elsewhere."""
    from hrnet_cli.cli.train_display import open_display
    from hrnet_cli.run_folder import open_run
    from hrnet_cli.training import Place, train
    from hrnet_cli.training_data import open_training_data

    leads = os.environ.get("RANK", "0") == "0"
    with open_display(options, leads=leads) as display:
        data = open_training_data(config.data, display.note, seed=config.run.seed)
        folder = open_run(
            path, resume=options.resume, overwrite=options.overwrite, exist_ok=not leads
        )
        place = Place(
            folder, options.device, options.resume, options.offline, shown_command(sys.argv[1:])
        )
        result = train(config, data, place, display.event)
    if not leads:
        return None
    _write_report(path)
    return result


def _write_report(path: Path) -> None:
    """Write curves and page; a run is not lost when they cannot be made."""
    from hrnet_cli.train_report import write_train_report

    try:
        write_train_report(path)
    except HrnetError as error:
        say_warning(f"the report of the run could not be written: {error.message}")


def _say_result(options: TrainOptions, result: "TrainResult") -> None:
    if options.json:
        out().print((result.folder.summary).read_text(encoding="utf-8"), end="")
    if options.quiet:
        return
    if result.best is not None:
        say(f"best {result.metric} {result.best:.4f} in epoch {result.best_epoch}")
    say(f"wrote {result.model}, report {result.folder.path / 'report.html'}")


def _run_in_processes(options: TrainOptions) -> None:
    """Train in several processes of this machine, and end as they ended.

    Raises:
        typer.Exit: One ended with an error, which it has said itself.
    """
    import signal

    import typer
    from torch.multiprocessing.spawn import ProcessExitedException, start_processes

    devices = _check_devices(options)
    arguments = (options, devices, _free_port(), sys.argv)
    context = start_processes(_child, arguments, devices, join=False, start_method="spawn")
    assert context is not None

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda number, _frame: _pass_on(number, context.pids()))
    try:
        while not context.join():
            pass
    except ProcessExitedException as error:
        raise typer.Exit(error.exit_code if error.exit_code > 0 else 1) from error


def _pass_on(number: int, pids: Iterable[int]) -> None:
    """Send a signal to processes of which some may have ended."""
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, number)


def _child(rank: int, options: TrainOptions, size: int, port: int, argv: list[str]) -> None:
    """Be one of the processes; exit codes are those of the command."""
    if hasattr(os, "setsid"):
        # A terminal sends Ctrl-C to the whole group of its command. What the parent passes on would
        # then be the second one, which stops without saving.
        os.setsid()
    sys.argv = argv
    os.environ.update(
        RANK=str(rank),
        LOCAL_RANK=str(rank),
        WORLD_SIZE=str(size),
        MASTER_ADDR="127.0.0.1",
        MASTER_PORT=str(port),
    )
    try:
        run(options)
    except HrnetError as error:
        say_error(f"[process {rank}] {error.message}", error.hint)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        sys.exit(ExitCode.INTERRUPTED)


def _check_devices(options: TrainOptions) -> int:
    import torch

    from hrnet_cli.device import pick_device

    devices = options.devices or 1
    cards = torch.cuda.device_count()
    if options.device in ("auto", "cuda") and 0 < cards < devices:
        raise UsageError(
            f"--devices is {devices}, but this machine has {cards} GPUs",
            hint=f"--devices {cards}, or --device cpu",
        )
    if ":" in options.device:
        raise UsageError(
            f"--devices {devices} and --device {options.device} contradict each other",
            hint="--device cuda takes the first ones; CUDA_VISIBLE_DEVICES chooses them",
        )
    pick_device(options.device)  # Refuses one that is not there, before each process does.
    return devices


def _free_port() -> int:
    import socket

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
