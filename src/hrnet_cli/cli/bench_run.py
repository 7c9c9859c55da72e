"""What ``hrnet bench`` does: open every runtime, time them in turn, compare, print."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hrnet_cli.cli import console
from hrnet_cli.cli.detect_report import echo_json
from hrnet_cli.cli.model_files import fetch_announcer, find_detector
from hrnet_cli.cli.options import parse_list, parse_size
from hrnet_cli.errors import InputError, UsageError

if TYPE_CHECKING:
    from hrnet_cli.benching import Contender, Timing

SCHEMA = "hrnet-bench/1"
PRECISIONS_TIMED = ("fp32", "bf16")
# Compiling takes minutes.
RUNTIMES_TIMED = ("torch", "onnx", "openvino", "mnn")


@dataclass(frozen=True)
class BenchOptions:
    """The options of ``hrnet bench`` as given."""

    model: str | None
    runtimes: str | None
    precisions: str | None
    people: int
    rounds: int
    detector: str | None
    accuracy: Path | None
    photos: int | None
    threads: int | None
    device: str
    input_size: str | None
    codec: str | None
    keypoint_schema: str | None
    offline: bool
    json: bool
    quiet: bool


@dataclass(frozen=True)
class _Numbers:
    """What was measured.

    Attributes:
        model: Name of the model.
        people: In each round.
        stages: Stages around the network.
        networks: Runtimes, by their names.
        left_out: Why others are missing.
        multiplications: Of the network for one person; None where only an export is at hand.
        peaks: Multiplications a second of a large convolution, by precision.
        aps: AP by the names of the runtimes.
        memory_mb: Most memory of the process.
    """

    model: str
    people: int
    stages: "list[Timing]"
    networks: "list[Timing]"
    left_out: dict[str, str]
    multiplications: int | None
    peaks: dict[str, float]
    aps: dict[str, float | None]
    memory_mb: float | None

    def share_of_peak(self, timing: "Timing") -> float | None:
        """Return the part of the peak that a runtime reaches, None where it is not known."""
        peak = self.peaks.get(timing.name.split()[1])
        if peak is None or self.multiplications is None:
            return None
        return self.multiplications * timing.per_second / peak

    def rate(self, timing: "Timing") -> tuple[float, str]:
        """Return how many a second a stage does, and what of: photos or people."""
        if timing.name.startswith(("crop", "decode heat", "draw")):
            return timing.per_second, "people"
        return timing.per_second / self.people, "photos"

    def to_json(self) -> dict[str, Any]:
        """Return plain values."""
        networks = [
            timing.to_json()
            | {"share_of_peak": self.share_of_peak(timing), "AP": self.aps.get(timing.name)}
            for timing in self.networks
        ]
        stages = [
            timing.to_json() | dict(zip(("per_second", "unit"), self.rate(timing), strict=True))
            for timing in self.stages
        ]
        return {
            "schema": SCHEMA,
            "model": self.model,
            "people": self.people,
            "stages": stages,
            "networks": networks,
            "left_out": self.left_out,
            "peak_gflops": {name: 2 * peak / 1e9 for name, peak in self.peaks.items()},
            "peak_memory_mb": self.memory_mb,
        }


def run(options: BenchOptions) -> None:
    """Measure and print.

    Raises:
        HrnetError: The model, the data or a runtime that was asked for cannot be had.
    """
    from hrnet_cli.runtimes import PRECISIONS, RUNTIMES, Computing

    named = options.runtimes and parse_list(options.runtimes, "--runtimes", tuple(RUNTIMES))
    wanted = options.precisions and parse_list(options.precisions, "--precisions", PRECISIONS)
    parse_size(options.input_size)
    if options.photos is not None and options.accuracy is None:
        raise UsageError("--photos is a part of --accuracy, which is not given")
    from hrnet_cli.benching import open_contenders
    from hrnet_cli.estimator import ModelHints, find_model
    from hrnet_cli.runtimes.exported import FORMATS, graph_file, read_exported

    path, spec = find_model(
        options.model,
        offline=options.offline,
        hints=ModelHints(parse_size(options.input_size), options.codec, options.keypoint_schema),
        on_warning=console.say_warning,
        on_progress=fetch_announcer("pose model", quiet=options.quiet),
    )
    graph = graph_file(path)
    usual, able = PRECISIONS_TIMED, RUNTIMES_TIMED
    if graph is not None:
        usual, able = (read_exported(graph).precision,), FORMATS[graph.suffix.lower()].runtimes
    precisions, runtimes = wanted or usual, named or able
    computing = Computing(options.device, threads=options.threads)
    contenders, left_out = open_contenders(path, spec, runtimes, precisions, computing)
    if not contenders:
        raise UsageError(f"none of the runtimes can be timed: {'; '.join(left_out.values())}")
    numbers = _measure(options, path, contenders, left_out)
    if options.json:
        echo_json(numbers.to_json())
    else:
        _print(numbers)


def _measure(
    options: BenchOptions, path: Path, contenders: "list[Contender]", left_out: dict[str, str]
) -> _Numbers:
    from hrnet_cli import benching
    from hrnet_cli.model_crops import installed_photos

    photos = installed_photos()
    if not photos:
        raise InputError("there is no photo on this machine to time with")
    first = contenders[0].opened
    tasks = benching.stage_tasks(photos[0], first.spec, first.runtime, options.people)
    tasks |= _detector_task(options, photos[0])
    stages = benching.time_in_turn(tasks, options.people, options.rounds)
    networks = benching.time_in_turn(
        benching.network_tasks(photos[0], contenders, options.people),
        options.people,
        options.rounds,
    )
    return _Numbers(
        model=first.spec.name,
        people=options.people,
        stages=stages,
        networks=networks,
        left_out=left_out,
        multiplications=_multiplications(contenders, path),
        peaks=_peaks(options),
        aps=_accuracies(options, contenders),
        memory_mb=benching.peak_memory_mb(),
    )


def _peaks(options: BenchOptions) -> dict[str, float]:
    """Return what the processor can do at most; nothing where another device computes."""
    from hrnet_cli import benching
    from hrnet_cli.device import pick_device, processors

    if pick_device(options.device) != "cpu":
        return {}
    return benching.measure_peak(options.threads or processors(), max(options.rounds, 3))


def _detector_task(options: BenchOptions, photo: Path) -> dict[str, Callable[[], object]]:
    """Return the detector as a task, where one is to be timed."""
    if options.detector is None:
        return {}
    from hrnet_cli.detectors import DetectorSettings, open_detector
    from hrnet_cli.device import pick_device
    from hrnet_cli.images import read_image
    from hrnet_cli.structures import Frame

    settings = DetectorSettings(device=pick_device(options.device), threads=options.threads)
    name, path, trusted = find_detector(
        options.detector, offline=options.offline, quiet=options.quiet
    )
    detector = open_detector(name, path, settings, trusted=trusted, on_warning=console.say_warning)
    frame = Frame(read_image(photo)[0], str(photo))
    return {f"detect ({name})": lambda: detector([frame])}


def _multiplications(contenders: "list[Contender]", path: Path) -> int | None:
    """Return the multiplications of a checkpoint's network for one person."""
    from hrnet_cli.runtimes.exported import graph_file

    if graph_file(path) is not None:
        return None
    from hrnet_cli.models import MODELS
    from hrnet_cli.runtimes.folding import fold_batch_norms
    from hrnet_cli.runtimes.graph import trace

    spec = contenders[0].opened.spec
    network = MODELS["hrnet"](spec.width, len(spec.schema))
    return trace(fold_batch_norms(network), spec).multiplications()


def _accuracies(options: BenchOptions, contenders: "list[Contender]") -> dict[str, float | None]:
    """Return COCO's AP of each runtime, with labelled boxes and flip test."""
    if options.accuracy is None:
        return {}
    from hrnet_cli.data import open_dataset
    from hrnet_cli.estimator import PoseEstimator
    from hrnet_cli.evaluation import EvalSettings, score
    from hrnet_cli.predictions import predict

    place = options.accuracy
    layout = place.is_dir() and not (place / "data.yaml").is_file()
    people = open_dataset(
        "coco" if layout else str(place), split="val", folder=place if layout else None
    )
    photos = range(min(options.photos or len(people.photos), len(people.photos)))
    aps: dict[str, float | None] = {}
    for one in contenders:
        estimator = PoseEstimator(one.opened.runtime, one.opened.spec, flip_test=True)
        predictions = predict(estimator, people, photos=photos)
        aps[one.name] = score(people, predictions, EvalSettings(resamples=0)).stats["AP"]
        if not options.quiet:
            console.say(f"{one.name}: {len(predictions)} people measured")
    return aps


def _print(numbers: _Numbers) -> None:
    from rich.table import Table

    table = Table("stage", "ms", "a second", title=f"{numbers.people} people in a photo")
    for timing in numbers.stages:
        rate, unit = numbers.rate(timing)
        table.add_row(timing.name, f"{timing.ms:.2f}", f"{rate:.1f} {unit}")
    console.out().print(table)
    columns = ["network", "ms", "people a second", "times", "% of peak"]
    networks = Table(*columns, *(["AP"] if numbers.aps else []), title=numbers.model)
    slowest = numbers.networks[0]
    for timing in numbers.networks:
        share = numbers.share_of_peak(timing)
        cells = [
            timing.name,
            f"{timing.ms:.1f}",
            f"{timing.per_second:.1f}",
            f"{slowest.ms / timing.ms:.2f}",
            "-" if share is None else f"{share:.0%}",
        ]
        if numbers.aps:
            ap = numbers.aps.get(timing.name)
            cells.append("-" if ap is None else f"{ap:.4f}")
        networks.add_row(*cells)
    console.out().print(networks)
    for name, why in numbers.left_out.items():
        console.say(f"not timed: {name}: {why}")
    peaks = ", ".join(f"{2 * peak / 1e9:.0f} ({name})" for name, peak in numbers.peaks.items())
    memory = "" if numbers.memory_mb is None else f"; {numbers.memory_mb:.0f} MB of memory at most"
    peaks = f"GFLOP/s {peaks}" if peaks else "measured on processors only"
    console.say(f"peak of a 3x3 convolution: {peaks}{memory}")
