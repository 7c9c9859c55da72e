"""What ``hrnet detect`` does, from checked options to written files."""

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from hrnet_cli.cli import console
from hrnet_cli.cli.detect_options import DetectOptions, check_options
from hrnet_cli.cli.detect_report import (
    RunReport,
    echo_json,
    print_json,
    problem_reporter,
    progress,
    say_skipped,
    say_summary,
)
from hrnet_cli.cli.model_files import find_detector, open_estimator
from hrnet_cli.detectors import Detector, DetectorSettings, open_detector
from hrnet_cli.errors import ExitCode, InputError, OutputError
from hrnet_cli.sinks import (
    RunInfo,
    Sink,
    open_sink,
    open_stream,
    picture_name,
    planned_files,
)

if TYPE_CHECKING:
    from hrnet_cli.estimator import PoseEstimator
    from hrnet_cli.sources import SourcePlan


def run(options: DetectOptions) -> None:
    """Find, estimate, write and report.

    Raises:
        HrnetError: The run as a whole cannot be done; photos that cannot be used are reported
            and counted instead, and end the run with exit code 3.
    """
    check_options(options)
    from hrnet_cli.sources import plan_sources

    plan = plan_sources(
        options.sources, recursive=options.recursive, exclude=options.folder, stdin=sys.stdin
    )
    report = RunReport()
    on_problem = problem_reporter(report, options.strict)
    for problem in plan.problems:
        on_problem("", problem)
    say_skipped(plan, options)
    if not plan.photos:
        if not plan.problems:
            raise InputError("no photos were named", hint="give photos, folders or a list")
        raise typer.Exit(ExitCode.INPUT)
    if options.dry_run:
        _say_plan(plan, options)
    else:
        _refuse_existing(plan, options)
        _detect(plan, options, report, on_problem)
    if report.failed:
        raise typer.Exit(ExitCode.INPUT)


def _detect(
    plan: "SourcePlan",
    options: DetectOptions,
    report: RunReport,
    on_problem: Callable[[str, InputError], None],
) -> None:
    from hrnet_cli.pipeline import detect_poses
    from hrnet_cli.sources import read_frames

    # The cheap look-up goes first: a misspelt detector is not found out after a download.
    open_found_detector = _prepare_detector(options, plan)
    estimator, _ = open_estimator(options, keep_heatmaps="heatmap" in options.parts)
    detector = open_found_detector()
    clock = estimator.clock
    written: list[str] = []
    frames = read_frames(plan.photos, max_pixels=options.max_pixels, on_problem=on_problem)
    try:
        # Every writer is closed, also when the run or another writer fails.
        with ExitStack() as stack, progress(len(plan.photos), options) as advance:
            sinks: list[Sink] = []
            for sink, place in _open_sinks(options, estimator, detector):
                stack.callback(sink.close)
                sinks.append(sink)
                written.append(place)
            for frame, poses in detect_poses(
                frames, detector, estimator, on_problem=on_problem, clock=clock
            ):
                with clock.stage("draw and write"):
                    for sink in sinks:
                        sink.write(frame, poses)
                report.photos += 1
                report.people += len(poses)
                advance(report)
    except BaseException:
        # Of a run that was cut short it is said what it left behind.
        if report.photos:
            say_summary(report, options, clock, written)
        raise
    say_summary(report, options, clock, written)
    if options.json:
        print_json(report, options, plan, estimator.spec.name, detector.name, clock, written)


def _targets(plan: "SourcePlan", options: DetectOptions) -> list[Path]:
    """Return every file and folder the run would write."""
    folder = options.folder
    if folder is None:
        return []
    transparent = options.background == "transparent"
    pictures = [picture_name(photo.name, transparent=transparent) for photo in plan.photos]
    return [folder / path for path in planned_files(options.formats)] + [
        folder / name for name in pictures if options.parts
    ]


def _refuse_existing(plan: "SourcePlan", options: DetectOptions) -> None:
    if options.overwrite or options.append:
        return
    existing = [path for path in _targets(plan, options) if path.exists()]
    if existing:
        others = f" and {len(existing) - 1} more" if len(existing) > 1 else ""
        raise OutputError(
            f"'{existing[0]}'{others} would be overwritten",
            hint="add --overwrite to replace, --append to add, or name another folder with --out",
        )


def _say_plan(plan: "SourcePlan", options: DetectOptions) -> None:
    targets = [str(path) for path in _targets(plan, options)]
    if options.json:
        data = {
            "schema": "hrnet-plan/1",
            "read": [photo.source for photo in plan.photos],
            "write": targets,
            "skipped": list(plan.skipped),
        }
        echo_json(data)
        return
    lines = [
        *(f"read   {photo.source}" for photo in plan.photos),
        *(f"write  {target}" for target in targets),
        *(f"skip   {name}" for name in plan.skipped),
    ]
    for line in lines:
        # As bytes: names need not be UTF-8.
        typer.echo(os.fsencode(line))


def _prepare_detector(options: DetectOptions, plan: "SourcePlan") -> Callable[[], Detector]:
    """Find the detector's file, and return what opens it."""
    if options.boxes is not None:
        from hrnet_cli.detectors.boxes_file import load_boxes_file

        boxes = load_boxes_file(
            options.boxes,
            class_name=options.class_name,
            person_threshold=options.person_threshold,
            iou_threshold=options.iou,
            max_people=options.max_people,
        )
        boxes.check_speaks_of((photo.source, photo.name) for photo in plan.photos)
        return lambda: boxes
    from hrnet_cli.device import pick_device

    defaults = DetectorSettings()
    settings = DetectorSettings(
        class_name=options.class_name,
        person_threshold=(
            defaults.person_threshold
            if options.person_threshold is None
            else options.person_threshold
        ),
        iou_threshold=defaults.iou_threshold if options.iou is None else options.iou,
        max_people=defaults.max_people if options.max_people is None else options.max_people,
        device=pick_device(options.device),
    )
    name, path, trusted = find_detector(
        options.detector, offline=options.offline, quiet=options.quiet, stand_in=True
    )
    return lambda: open_detector(
        name, path, settings, trusted=trusted, on_warning=console.say_warning
    )


def _open_sinks(
    options: DetectOptions, estimator: "PoseEstimator", detector: Detector
) -> Iterator[tuple[Sink, str]]:
    """Open the writers one after the other, each with the place that the last line names."""
    info = RunInfo(
        model=estimator.spec.name,
        detector=detector.name,
        keypoint_threshold=options.keypoint_threshold,
        drop_low=options.drop_low,
        append=options.append,
    )
    folder = options.folder
    if folder is None:
        yield open_stream(options.formats[0], sys.stdout.buffer, info), "stdout"
        return
    # Drawing comes first: a mistake in the connections must not cost existing records.
    if options.parts:
        yield _open_overlay(options, estimator, folder), f"pictures in {folder}"
    for name in options.formats:
        yield open_sink(name, folder, info), str(folder / planned_files([name])[0])


def _open_overlay(options: DetectOptions, estimator: "PoseEstimator", folder: Path) -> Sink:
    from hrnet_cli.draw import DrawStyle, load_connections
    from hrnet_cli.sinks.overlay import open_overlay

    style = DrawStyle(
        palette=options.palette,
        background=options.background,
        point_size=options.point_size,
        line_width=options.line_width,
        keypoint_threshold=options.keypoint_threshold,
        sure_threshold=min(1.0, options.keypoint_threshold + 0.2),
    )
    limbs = (
        load_connections(options.connections, estimator.spec.schema)
        if options.connections is not None
        else None
    )
    return open_overlay(
        folder, parts=options.parts, connections=limbs, style=style, append=options.append
    )
