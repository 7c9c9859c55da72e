"""Models and detectors as the commands open them: found, fetched with one line, announced."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from hrnet_cli.cli import console
from hrnet_cli.cli.options import parse_size
from hrnet_cli.errors import WeightsError

if TYPE_CHECKING:
    from hrnet_cli.estimator import PoseEstimator


class ModelOptions(Protocol):
    """What the commands that run a pose model have in common; see `options.py`."""

    @property
    def model(self) -> str | None: ...  # noqa: D102 - named as the option
    @property
    def input_size(self) -> str | None: ...  # noqa: D102
    @property
    def codec(self) -> str | None: ...  # noqa: D102
    @property
    def keypoint_schema(self) -> str | None: ...  # noqa: D102
    @property
    def batch_size(self) -> int: ...  # noqa: D102
    @property
    def flip_test(self) -> bool: ...  # noqa: D102
    @property
    def device(self) -> str: ...  # noqa: D102
    @property
    def runtime(self) -> str: ...  # noqa: D102
    @property
    def precision(self) -> str | None: ...  # noqa: D102
    @property
    def threads(self) -> int | None: ...  # noqa: D102
    @property
    def offline(self) -> bool: ...  # noqa: D102
    @property
    def quiet(self) -> bool: ...  # noqa: D102


def open_estimator(
    options: ModelOptions, *, keep_heatmaps: bool = False
) -> "tuple[PoseEstimator, Path]":
    """Return the estimator that the options ask for, and the file of its weights.

    Raises:
        HrnetError: As `estimator.find_model` and `estimator.build_estimator`.
    """
    from hrnet_cli.estimator import ModelHints, build_estimator, find_model
    from hrnet_cli.runtimes import Computing

    path, spec = find_model(
        options.model,
        offline=options.offline,
        hints=ModelHints(parse_size(options.input_size), options.codec, options.keypoint_schema),
        on_warning=console.say_warning,
        on_progress=fetch_announcer("pose model", quiet=options.quiet),
    )
    estimator = build_estimator(
        path,
        spec,
        Computing(options.device, options.runtime, options.precision, options.threads),
        batch_size=options.batch_size,
        flip_test=options.flip_test,
        keep_heatmaps=keep_heatmaps,
    )
    if not options.quiet:
        height, width = estimator.spec.input_hw
        console.say(
            f"model {estimator.spec.name}: {len(estimator.spec.schema)} keypoints"
            f" ({estimator.spec.schema.name}), input {height}x{width}, {estimator.load_summary}"
        )
    return estimator, path


def find_detector(
    name: str | None, *, offline: bool, quiet: bool, stand_in: bool = False
) -> tuple[str, Path | None, bool]:
    """Return the name for the records, the file, and whether its hash is a listed one.

    Args:
        name: A listed detector, a file, ``whole-image``, or None for the default one.
        offline: Never use the network.
        quiet: Do not say that a download began.
        stand_in: With no name given, take the starter detector inside the package, with one
            warning, when the default one can be neither found nor fetched.

    Raises:
        WeightsError: The name is not known or no detector's, or the file cannot be had.
    """
    from hrnet_cli import pipeline, weights

    stand_in = stand_in and name is None
    name = name or weights.DEFAULT_DETECTOR
    try:
        return pipeline.find_detector(
            name,
            offline=offline,
            deadline_s=weights.FALLBACK_DEADLINE_S if stand_in else weights.ANSWER_S,
            on_progress=fetch_announcer("detector", quiet=quiet),
        )
    except weights.UnreachableError as error:
        if stand_in:
            return _starter_detector(name, error)
        raise WeightsError(
            error.message,
            hint="bring boxes of your own with --boxes FILE, a detector with --detector FILE, or"
            " take each photo as one person with --detector whole-image",
        ) from error


def _starter_detector(wanted: str, error: WeightsError) -> tuple[str, Path, bool]:
    from hrnet_cli import weights

    console.say_warning(
        f"{wanted} is not on this machine and cannot be fetched; using the small"
        f" '{weights.STARTER_DETECTOR}', which misses far more people ({error.message})"
    )
    entry = weights.find_entry(weights.STARTER_DETECTOR)
    return entry.name, weights.fetch(entry, offline=True), True


def fetch_announcer(what: str, *, quiet: bool) -> Callable[[int, int | None], None]:
    """Return a callback that says once that a download began, and how large it is."""
    said: list[bool] = []

    def on_progress(_done: int, total: int | None) -> None:
        if not said and not quiet:
            size = f", {total / 1e6:.0f} MB" if total else ""
            console.say(f"downloading the {what}{size} ...")
        said.append(True)

    return on_progress
