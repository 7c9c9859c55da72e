"""What ``hrnet convert`` does: records -> the outputs of ``hrnet detect``, without networks."""

import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import typer

from hrnet_cli.cli import console
from hrnet_cli.cli.detect_options import DetectOptions, check_options
from hrnet_cli.cli.detect_report import (
    RunReport,
    print_json,
    problem_reporter,
    say_summary,
)
from hrnet_cli.cli.detect_run import check_kinds, draw_settings
from hrnet_cli.cli.detect_targets import refuse_existing_outputs
from hrnet_cli.errors import ExitCode, HrnetError, InputError, OutputError, UsageError
from hrnet_cli.sinks import RunInfo, open_sink, open_stream, planned_files
from hrnet_cli.sources.plan import Photo, SourcePlan, Video
from hrnet_cli.stages import StageClock

if TYPE_CHECKING:
    from hrnet_cli.records import Origin
    from hrnet_cli.schema import KeypointSchema
    from hrnet_cli.sources import VideoSource
    from hrnet_cli.streaming import RecordedPoses
    from hrnet_cli.structures import Frame, Poses

_SUFFIX = ".jsonl"
_OnProblem = Callable[[str, HrnetError], None]


@dataclass(frozen=True)
class _Records:
    """A file of records.

    Attributes:
        path: The file.
        name: Path of its outputs below the output folder, without suffix.
        origin: What its first record says.
    """

    path: Path
    name: str
    origin: "Origin"


@dataclass
class _Work:
    """What a run converts.

    Attributes:
        schema: Limbs of keypoints that are not built in; None where they are not told.
        photos: Photos that records speak of.
        shown: Their records, in the same order.
        photos_file: The file with these; None for no photos.
        videos: Videos that records speak of, with the names of their outputs.
        files: The records of each video by that name.
        clock: Seconds of all stages.
    """

    schema: "KeypointSchema | None"
    photos: list[Photo] = field(default_factory=list[Photo])
    shown: "Sequence[tuple[Frame, Poses]]" = ()
    photos_file: _Records | None = None
    videos: list[Video] = field(default_factory=list[Video])
    files: dict[str, _Records] = field(default_factory=dict[str, _Records])
    clock: StageClock = field(default_factory=StageClock)


def run(options: DetectOptions, media: Path | None) -> None:
    """Read records, and write what is asked for.

    Args:
        options: Those of `hrnet detect` that say something here; the sources are records.
        media: Video, photo or folder with them; None for the places that the records name.

    Raises:
        HrnetError: The run as a whole cannot be done; records that cannot be used are reported and
            counted instead, and end the run with exit code 3.
    """
    if "heatmap" in options.parts:
        raise UsageError(
            "--draw heatmap needs the network, records hold no heatmaps",
            hint="use hrnet detect for it",
        )
    check_options(options)
    report = RunReport()
    on_problem = problem_reporter(report, options.strict)
    work = _work(options, media, on_problem)
    plan = SourcePlan(tuple(work.photos), videos=tuple(work.videos))
    if not plan.photos and not plan.videos:
        _end_empty(plan, options, report)
    check_kinds(plan, options)
    _refuse_own_records(work, options)
    refuse_existing_outputs(plan, options)
    written: list[str] = []
    try:
        if work.photos_file is not None:
            _convert_photos(work, work.photos_file, options, report, on_problem, written)
        if work.videos:
            from hrnet_cli.cli.detect_videos import detect_videos

            detect_videos(
                work.videos, options, lambda video: _open(video, work, options), report, on_problem
            )
    finally:
        # Of a run that was cut short it is said what it left behind.
        if report.photos or report.videos:
            say_summary(report, options, work.clock, written)
    if options.json:
        first = work.photos_file or next(iter(work.files.values()))
        makers = first.origin.model, first.origin.detector
        print_json(report, options, plan, *makers, work.clock, written)
    if report.failed:
        raise typer.Exit(ExitCode.INPUT)


# --- what there is ------------------------------------------------------------------------------


def _end_empty(plan: SourcePlan, options: DetectOptions, report: RunReport) -> NoReturn:
    """End a run none of whose records can be used, as was told."""
    if options.json:
        print_json(report, options, plan, None, None, StageClock(), [])
    raise typer.Exit(ExitCode.INPUT)


def _work(options: DetectOptions, media: Path | None, on_problem: _OnProblem) -> _Work:
    """Return what the records speak of; those that cannot be used are told."""
    from hrnet_cli.schema import load_schema

    schema = None if options.keypoint_schema is None else load_schema(options.keypoint_schema)
    work = _Work(schema)
    for path, name in _files(options.sources):
        try:
            _add(work, path, name, options, media)
        except InputError as error:
            on_problem(str(path), error)
    return work


def _add(work: _Work, path: Path, name: str, options: DetectOptions, media: Path | None) -> None:
    """Add a file of records to the work.

    Raises:
        InputError: It cannot be used.
    """
    from hrnet_cli.records import read_origin, read_records

    records = _Records(path, name, read_origin(path))
    if records.origin.is_video:
        work.videos.append(_video(records, options, media))
        work.files[name] = records
        return
    if work.photos_file is not None:
        raise InputError(
            f"'{work.photos_file.path}' and '{path}' are both records of photos",
            hint="convert them one after the other, each with an --out of its own",
        )
    shown = list(read_records(path, schema=work.schema))
    work.photos = _photos(shown, media)
    work.shown, work.photos_file = shown, records


def _files(sources: Sequence[str]) -> Iterator[tuple[Path, str]]:
    """Yield the files of records, and the name of their outputs.

    Raises:
        InputError: A folder holds none.
        UsageError: Two would have the same outputs.
    """
    found: dict[str, Path] = {}
    for source in map(Path, sources):
        inside = sorted(source.rglob(f"*{_SUFFIX}")) if source.is_dir() else [source]
        if not inside:
            raise InputError(
                f"'{source}' holds no records", hint=f"expected files named ...{_SUFFIX}"
            )
        for path in inside:
            relative = path.relative_to(source) if source.is_dir() else Path(path.name)
            if any(part.endswith(".resume") for part in relative.parts):
                continue  # what a broken run keeps
            name = str(relative.with_suffix("") if relative.suffix == _SUFFIX else relative)
            if name in found:
                raise UsageError(
                    f"'{found[name]}' and '{path}' would have the same outputs, '{name}'",
                    hint="convert them one after the other, each with an --out of its own",
                )
            found[name] = path
            yield path, name


def _video(records: _Records, options: DetectOptions, media: Path | None) -> Video:
    """Return the video of some records.

    Raises:
        InputError: Its pictures are needed and not there.
    """
    source = records.origin.source
    place = _media(source, media)
    on_pictures = bool(options.parts) and (
        options.background == "photo" or options.video.side_by_side
    )
    if place is None and (on_pictures or options.video.report):
        raise InputError(
            f"'{source}', of which '{records.path}' speaks, is not there to draw on",
            hint="name it or its folder with --media, or use --background black",
        )
    return Video(source, records.name, place)


def _media(source: str, media: Path | None) -> Path | None:
    """Return the file of a photo or video, None where there is none."""
    if media is None:
        places = [Path(source)]
    elif media.is_dir():
        places = [
            *([media / source] if not Path(source).is_absolute() else []),
            media / Path(source).name,
        ]
    else:
        places = [media]
    return next((place for place in places if place.is_file()), None)


def _photos(shown: "Sequence[tuple[Frame, Poses]]", media: Path | None) -> list[Photo]:
    """Return the photos of records, named by their paths below the folder common to all."""
    sources = [Path(frame.source) for frame, _ in shown]
    if any(frame.time_s is not None for frame, _ in shown):
        raise InputError(
            "photos and frames of a video are mixed in one file",
            hint="expected the records of one run of hrnet detect",
        )
    # Whole paths: "a.jpg" and "below/a.jpg" have only the current folder in common.
    places = [os.path.abspath(source) for source in sources]  # noqa: PTH100 - as text, links kept
    try:
        common = os.path.commonpath([os.path.dirname(place) for place in places])  # noqa: PTH120
        names = [os.path.relpath(place, common) for place in places]
    except ValueError:  # other drives, or no photo at all
        names = [source.name for source in sources]
    return [
        Photo(_media(str(source), media) or source, str(source), Path(name).as_posix())
        for source, name in zip(sources, names, strict=True)
    ]


def _refuse_own_records(work: _Work, options: DetectOptions) -> None:
    """Raise OutputError where the outputs would replace the records they are made of."""
    if options.folder is None or "jsonl" not in options.formats:
        return
    names = dict(work.files)
    if work.photos_file is not None:
        names[options.photos_stem] = work.photos_file
    for name, records in names.items():
        target = options.folder / f"{name}{_SUFFIX}"
        if target.exists() and target.samefile(records.path):
            raise OutputError(
                f"'{target}' would replace the records it is made of",
                hint="name another folder with --out",
            )


# --- photos -------------------------------------------------------------------------------------


def _convert_photos(
    work: _Work,
    file: _Records,
    options: DetectOptions,
    report: RunReport,
    on_problem: _OnProblem,
    written: list[str],
) -> None:
    """Write the records of photos in other formats, and draw them."""
    info = RunInfo(
        file.origin.model, file.origin.detector, options.keypoint_threshold, options.drop_low
    )
    named = [
        (replace(frame, name=photo.name), poses)
        for photo, (frame, poses) in zip(work.photos, work.shown, strict=True)
    ]
    for name in options.formats:
        if options.folder is None:
            sink = open_stream(name, sys.stdout.buffer, info)
        else:
            sink = open_sink(name, options.folder, info, options.photos_stem)
            place = planned_files([name], options.photos_stem)[0]
            written.append(str(options.folder / place))
        with ExitStack() as stack, work.clock.stage("write"):
            stack.callback(sink.close)
            for frame, poses in named:
                sink.write(frame, poses)
    report.photos += len(named)
    report.people += sum(len(poses) for _, poses in named)
    if options.parts and options.folder is not None:
        written.append(f"pictures in {options.folder}")
        _draw_photos(work, named, options, options.folder, on_problem)


def _draw_photos(
    work: _Work,
    named: "Sequence[tuple[Frame, Poses]]",
    options: DetectOptions,
    folder: Path,
    on_problem: _OnProblem,
) -> None:
    from hrnet_cli.sinks.overlay import open_overlay
    from hrnet_cli.sources.photos import read_frames

    connections, style = draw_settings(options, named[0][1].schema)
    sink = open_overlay(folder, parts=options.parts, connections=connections, style=style)
    if options.background != "photo":
        for frame, poses in named:
            sink.write(frame, poses)
        return
    by_source = {frame.source: (frame, poses) for frame, poses in named}
    for picture in read_frames(
        work.photos,
        max_pixels=options.max_pixels,
        on_problem=on_problem,
        on_warning=console.say_warning,
    ):
        frame, poses = by_source[picture.source]
        if picture.size_wh != frame.size_wh:
            sizes = [f"{width}x{height}" for width, height in (picture.size_wh, frame.size_wh)]
            error = InputError(
                f"'{picture.source}' has {sizes[0]} pixels, its record says {sizes[1]}"
            )
            on_problem(picture.source, error)
            continue
        with work.clock.stage("draw"):
            sink.write(picture, poses)


# --- videos -------------------------------------------------------------------------------------


def _open(video: Video, work: _Work, options: DetectOptions) -> "tuple[VideoSource, RecordedPoses]":
    """Return the frames of a video that have a record, and who is in them.

    Raises:
        InputError: The records or the video cannot be used, or nothing is left in the wanted part.
    """
    from hrnet_cli.cli.deciding import short_hash
    from hrnet_cli.cli.detect_videos import in_slow_motion
    from hrnet_cli.records import read_records
    from hrnet_cli.sources.recorded import open_recorded
    from hrnet_cli.streaming import FinderInfo, RecordedPoses
    from hrnet_cli.unsmoothing import undo_smoothing

    records = work.files[video.name]
    shown = list(_wanted(read_records(records.path, schema=work.schema), records, options))
    if not shown:
        raise InputError(
            f"'{records.path}' has no frame in the wanted part", hint="look at --start and --end"
        )
    steadied = (
        options.video.smooth_kind != "none" or options.video.fill_gaps or options.video.fix_swaps
    )
    poses = {frame.index: undo_smoothing(people) if steadied else people for frame, people in shown}
    if len(poses) < len(shown):
        raise InputError(
            f"'{records.path}' has two records of one frame",
            hint="expected the records of one run of hrnet detect",
        )
    info = FinderInfo(
        records.origin.model,
        records.origin.detector,
        shown[0][1].schema,
        work.clock,
        gives_ids=any(people.track_ids_N is not None for people in poses.values()),
        hashes={"records hash": short_hash(records.path)},
    )
    draws = bool(options.parts) or options.video.report
    source = open_recorded(
        [frame for frame, _ in shown],
        video.path if draws else None,
        video.name,
        max_pixels=options.max_pixels,
    )
    return in_slow_motion(source, options), RecordedPoses(info, poses)


def _wanted(
    shown: "Iterator[tuple[Frame, Poses]]", records: _Records, options: DetectOptions
) -> "Iterator[tuple[Frame, Poses]]":
    """Yield the records in the wanted part of the video.

    Raises:
        InputError: They are not all of one video.
    """
    from hrnet_cli.sources.decoding import Choice, Picker

    picker = Picker(options.video.span)
    for frame, poses in shown:
        if frame.source != records.origin.source or frame.time_s is None:
            raise InputError(
                f"'{records.path}' speaks of '{records.origin.source}' and '{frame.source}'",
                hint="expected the records of one video",
            )
        choice = picker.choose(frame.time_s)
        if choice is Choice.END:
            return
        if choice is Choice.TAKE:
            yield frame, poses
