"""What ``hrnet detect`` does, from checked options to written files."""

import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from hrnet_cli.cli import console
from hrnet_cli.cli.deciding import short_hash
from hrnet_cli.cli.detect_options import (
    DetectOptions,
    check_options,
    parse_region,
    person_threshold,
)
from hrnet_cli.cli.detect_report import (
    NAMES_SHOWN,
    RunReport,
    print_json,
    problem_reporter,
    progress,
    say_skipped,
    say_summary,
)
from hrnet_cli.cli.detect_targets import refuse_existing_outputs, say_plan
from hrnet_cli.cli.model_files import find_detector, open_estimator
from hrnet_cli.cli.photo_resuming import Kept, photos_to_do
from hrnet_cli.detectors import Detector, DetectorSettings, SureDetector, open_detector
from hrnet_cli.device import pick_device
from hrnet_cli.errors import ExitCode, HrnetError, InputError, UsageError
from hrnet_cli.sinks import (
    RunInfo,
    Sink,
    check_formats,
    open_growing_sink,
    open_sink,
    open_stream,
    planned_files,
)
from hrnet_cli.stages import StageClock

if TYPE_CHECKING:
    from hrnet_cli.draw import Connections, DrawStyle
    from hrnet_cli.estimator import PoseEstimator
    from hrnet_cli.schema import KeypointSchema
    from hrnet_cli.sources.plan import SourcePlan


def run(options: DetectOptions) -> None:
    """Find, estimate, write and report.

    Raises:
        HrnetError: The run as a whole cannot be done; photos and videos that cannot be used are
            reported and counted instead, and end the run with exit code 3.
    """
    check_options(options)
    plan = _plan(options)
    report = RunReport()
    on_problem = problem_reporter(report, options.strict)
    for problem in plan.problems:
        on_problem("", problem)
    say_skipped(plan, options)
    if not plan.photos and not plan.videos:
        _end_empty(plan, options, report)
        return
    check_kinds(plan, options)
    if options.dry_run:
        say_plan(plan, options)
        refuse_existing_outputs(plan, options)
    else:
        refuse_existing_outputs(plan, options)
        several = options.video.jobs > 1 and len(plan.photos) + len(plan.videos) > 1
        if several or options.video.cards:
            from hrnet_cli.cli.detect_jobs import run_jobs

            run_jobs(plan, options)
            return
        with _marked_part(options):
            if not _were_done(plan, options, report):
                _detect(plan, options, report, on_problem)
    if report.failed:
        raise typer.Exit(ExitCode.INPUT)


def _end_empty(plan: "SourcePlan", options: DetectOptions, report: RunReport) -> None:
    """End a run without sources: of a part that is no mistake.

    Raises:
        InputError: Nothing was named.
        typer.Exit: What was named cannot be used, and was told.
    """
    if options.video.part is not None:
        if not plan.problems:
            console.say("this part of the sources is empty: there are more parts than sources")
        with _marked_part(options):
            pass
    elif not plan.problems:
        raise InputError(
            "no photos or videos were named", hint="give photos, videos, folders or a list"
        )
    if options.json and options.dry_run:
        say_plan(plan, options)
    elif options.json:
        print_json(report, options, plan, None, None, StageClock(), [])
    if plan.problems:
        raise typer.Exit(ExitCode.INPUT)


@contextmanager
def _marked_part(options: DetectOptions) -> Iterator[None]:
    """Leave a mark in the output folder of a part, from which a merge knows whether it is whole."""
    part, folder = options.video.part, options.folder
    if part is None or folder is None or options.dry_run:
        yield
        return
    from hrnet_cli.merging import begin_part, end_part

    begin_part(folder, *part)
    yield
    end_part(folder, *part)


def _plan(options: DetectOptions) -> "SourcePlan":
    from hrnet_cli.sources.plan import plan_sources

    plan = plan_sources(
        options.sources,
        recursive=options.recursive,
        exclude=options.folder,
        stdin=sys.stdin,
        sequences=options.video.rate is not None,
    )
    _check_rate(plan, options)
    part = options.video.part
    return plan if part is None else plan.shard(*part)


def _check_rate(plan: "SourcePlan", options: DetectOptions) -> None:
    """See to it that `--fps` has photos to make a video of, in all parts together.

    Raises:
        UsageError: There are none, and videos have their own times.
    """
    if options.video.rate is None or not plan.videos:
        return
    timed = [video.source for video in plan.videos if not video.pictures]
    if len(timed) == len(plan.videos):
        raise UsageError(
            f"--fps makes a video of photos, and none were named: '{timed[0]}' has its own times",
            hint="leave it out, or name photos, a folder or a glob",
        )
    # Told once: not by all parts, nor by what starts the parts.
    if timed and not options.video.shares and (options.video.part or (1, 1))[0] == 1:
        shown = ", ".join(timed[:NAMES_SHOWN])
        more = f" and {len(timed) - NAMES_SHOWN} more" if len(timed) > NAMES_SHOWN else ""
        console.say_warning(f"--fps is about photos; videos keep their own times: {shown}{more}")


def check_kinds(plan: "SourcePlan", options: DetectOptions) -> None:
    """Raise UsageError for options that mean nothing to the kind of sources there are."""
    if not plan.videos and (given := options.video.given()):
        raise UsageError(
            f"{given[0]} is about videos, and none was named",
            hint="leave it out, or add --fps to take photos as the pictures of a video",
        )
    if plan.videos and options.append:
        raise UsageError(
            "--append adds to the records of photos, a video has its own",
            hint="use --resume to go on with a broken run",
        )
    if plan.videos and options.folder is None and len(plan.videos) + len(plan.photos) > 1:
        raise UsageError("--out - streams one video or photos, not several", hint="name a folder")
    if plan.videos and options.parts and options.background == "transparent":
        from hrnet_cli.cli.detect_video_task import keeps_alpha

        if not keeps_alpha(options):
            raise UsageError(
                f"--video-codec {options.video.video_codec} keeps no transparency",
                hint="use --video-codec prores or png, or another --background",
            )
    check_formats(
        options.formats,
        append=options.append,
        photos=bool(plan.photos),
        videos=bool(plan.videos),
    )
    divided = options.video.part is not None and options.folder is not None
    if plan.photos and divided and "jsonl" not in options.formats:
        raise UsageError(
            "--shard needs the format jsonl: parts are merged from it",
            hint=f"use --format jsonl,{options.format}",
        )


def _were_done(plan: "SourcePlan", options: DetectOptions, report: RunReport) -> bool:
    """Tell whether earlier runs did all there is; then it is said, and no model is needed."""
    if plan.photos:
        return False
    from hrnet_cli.cli.detect_videos import leave_out_all

    if not leave_out_all(plan.videos, options, report):
        return False
    say_summary(report, options, StageClock(), [])
    if options.json:
        print_json(report, options, plan, None, None, StageClock(), [])
    return True


def _detect(
    plan: "SourcePlan",
    options: DetectOptions,
    report: RunReport,
    on_problem: Callable[[str, HrnetError], None],
) -> None:
    # The cheap look-up goes first: a misspelt detector is not found out after a download.
    open_found_detector, detector_file = _prepare_detector(options, plan)
    estimator, weights_file = open_estimator(options, keep_heatmaps="heatmap" in options.parts)
    estimator.pose_nms = options.pose_nms
    detector = open_found_detector()
    hashes = {"model hash": short_hash(weights_file), "detector hash": short_hash(detector_file)}
    written: list[str] = []
    try:
        if plan.photos:
            sure = _for_photos(detector, options)
            with photos_to_do(options, plan, estimator, detector.name, hashes) as kept:
                if kept.records:
                    done = f"{len(kept.records)} of {len(plan.photos)} photos were done before"
                    console.say(done)
                _detect_photos(kept, options, report, on_problem, estimator, sure, written)
        if plan.videos:
            from hrnet_cli.cli.detect_videos import detect_videos, open_source
            from hrnet_cli.streaming import Finders

            apart = pick_device(options.device) != "cpu"
            finders = Finders(detector, estimator, apart, hashes)
            detect_videos(
                plan.videos,
                options,
                lambda video: (open_source(video, options, on_problem), finders),
                report,
                on_problem,
            )
    except BaseException:
        # Of a run that was cut short it is said what it left behind.
        if report.photos or report.videos:
            say_summary(report, options, estimator.clock, written)
        raise
    say_summary(report, options, estimator.clock, written)
    if options.json:
        print_json(
            report, options, plan, estimator.spec.name, detector.name, estimator.clock, written
        )


def _detect_photos(
    kept: Kept,
    options: DetectOptions,
    report: RunReport,
    on_problem: Callable[[str, InputError], None],
    estimator: "PoseEstimator",
    detector: Detector,
    written: list[str],
) -> None:
    """Find people in the photos and write; ``written`` gets the places as they are opened."""
    from hrnet_cli.pipeline import detect_poses
    from hrnet_cli.sources.photos import read_frames

    clock, photos = estimator.clock, kept.plan.photos
    frames = read_frames(
        photos,
        max_pixels=options.max_pixels,
        on_problem=on_problem,
        on_warning=console.say_warning,
    )
    # Every writer is closed, also when the run or another writer fails.
    with ExitStack() as stack, progress(len(photos), options) as advance:
        sinks: list[Sink] = []
        for opened in _open_sinks(options, estimator, detector, kept):
            stack.callback(opened.sink.close)
            sinks.append(opened.sink)
            written.append(opened.place)
            for frame, poses in kept.records if opened.lacks_kept else ():
                opened.sink.write(frame, poses)
        kept.begin()
        apart = pick_device(options.device) != "cpu"
        for frame, poses in detect_poses(
            frames, detector, estimator, on_problem=on_problem, clock=clock, apart=apart
        ):
            with clock.stage("draw and write"):
                for sink in sinks:
                    sink.write(frame, poses)
            report.photos += 1
            report.people += len(poses)
            advance(report)


def _prepare_detector(
    options: DetectOptions, plan: "SourcePlan"
) -> tuple[Callable[[], Detector], Path | None]:
    """Find the detector's file, and return what opens it and where it lies, if anywhere."""
    from hrnet_cli.detectors.keeping import SUREST

    # Others than the surest of the whole picture can be told only from everybody.
    surest = options.keep in (None, SUREST) and options.region is None
    limit = options.max_people if surest else None
    if options.boxes is not None:
        from hrnet_cli.detectors.boxes_file import load_boxes_file

        boxes = load_boxes_file(
            options.boxes,
            class_name=options.class_name,
            person_threshold=options.person_threshold,
            iou_threshold=options.iou,
            max_people=limit,
            on_warning=console.say_warning,
        )
        boxes.check_speaks_of(
            ((photo.source, photo.name) for photo in plan.photos),
            ((video.source, video.name) for video in plan.videos),
        )
        return (lambda: _keeping(boxes, options)), None  # the option tells its hash
    from hrnet_cli.model_opening import compiled_folder

    defaults = DetectorSettings()
    threshold = (
        defaults.person_threshold if options.person_threshold is None else options.person_threshold
    )
    if options.video.follows:
        from hrnet_cli.cli.detect_video_task import LEAST_TRACKED

        # Unsure boxes continue tracks; the tracker starts none with them.
        threshold = min(threshold, LEAST_TRACKED)
    settings = DetectorSettings(
        class_name=options.class_name,
        person_threshold=threshold,
        iou_threshold=options.iou,
        max_people=defaults.max_people if limit is None else limit,
        device=pick_device(options.device),
        threads=options.threads,
        cache=compiled_folder(),
    )
    name, path, trusted = find_detector(
        options.detector, offline=options.offline, quiet=options.quiet, stand_in=True
    )

    def open_found() -> Detector:
        found = open_detector(name, path, settings, trusted=trusted, on_warning=console.say_warning)
        return _keeping(found, options)

    return open_found, path


def _keeping(detector: Detector, options: DetectOptions) -> Detector:
    """Return the detector with the people of --region, and of these those that --keep says."""
    from hrnet_cli.detectors.keeping import SUREST, KeepingDetector, RegionDetector

    keep, most = options.keep or SUREST, options.max_people
    if options.region is not None:
        detector = RegionDetector(detector, parse_region(options.region))
    elif keep == SUREST:
        return detector  # which keeps them itself
    if most is None:
        return detector
    return KeepingDetector(detector, keep, most, person_threshold(options))


def _for_photos(detector: Detector, options: DetectOptions) -> Detector:
    """Return the detector without the unsure boxes that only tracking has a use for."""
    if options.boxes is not None or not options.video.follows:
        return detector
    return SureDetector(detector, person_threshold(options))


@dataclass(frozen=True)
class _Opened:
    """A writer.

    Attributes:
        sink: It.
        place: What the last line of a run names.
        lacks_kept: Whether it is to be given what a broken run has.
    """

    sink: Sink
    place: str
    lacks_kept: bool = False


def _open_sinks(
    options: DetectOptions, estimator: "PoseEstimator", detector: Detector, kept: Kept
) -> Iterator[_Opened]:
    """Open the writers one after the other."""
    info = RunInfo(
        model=estimator.spec.name,
        detector=detector.name,
        keypoint_threshold=options.keypoint_threshold,
        drop_low=options.drop_low,
        append=options.append,
        category=options.class_name,
    )
    folder = options.folder
    if folder is None:
        yield _Opened(open_stream(options.formats[0], sys.stdout.buffer, info), "stdout")
        return
    # Drawing comes first: a mistake in the connections must not cost existing records.
    if options.parts:
        yield _Opened(_open_overlay(options, estimator, folder), f"pictures in {folder}")
    for name in options.formats:
        stem = options.photos_stem
        place = str(folder / planned_files([name], stem)[0])
        if name == "jsonl" and kept.records:
            length = kept.record_bytes
            yield _Opened(open_growing_sink(name, folder, info, stem, keep_bytes=length), place)
        else:
            yield _Opened(open_sink(name, folder, info, stem), place, lacks_kept=True)


def _open_overlay(options: DetectOptions, estimator: "PoseEstimator", folder: Path) -> Sink:
    from hrnet_cli.sinks.overlay import open_overlay

    connections, style = draw_settings(options, estimator.spec.schema)
    return open_overlay(
        folder, parts=options.parts, connections=connections, style=style, append=options.append
    )


def draw_settings(
    options: DetectOptions, schema: "KeypointSchema"
) -> "tuple[Connections | None, DrawStyle]":
    """Return the limbs to draw, None for those of the schema, and how.

    Raises:
        ConfigError: The file of the limbs says something wrong.
    """
    from hrnet_cli.draw import DrawStyle, load_connections

    style = DrawStyle(
        palette=options.palette,
        background=options.background,
        point_size=options.point_size,
        line_width=options.line_width,
        keypoint_threshold=options.keypoint_threshold,
        sure_threshold=min(1.0, options.keypoint_threshold + 0.2),
    )
    if options.connections is None:
        return None, style
    return load_connections(options.connections, schema), style
