"""What ``hrnet detect`` does with videos: each from its options to finished files."""

import sys
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING

from hrnet_cli.ahead import Ahead
from hrnet_cli.cli import console
from hrnet_cli.cli.detect_options import DetectOptions
from hrnet_cli.cli.detect_report import RunReport, VideoOutcome
from hrnet_cli.cli.detect_video_task import encoding, following, has_page, run_info, video_task
from hrnet_cli.cli.video_progress import show_progress
from hrnet_cli.errors import HrnetError, InputError, OutputError, TargetError
from hrnet_cli.resuming import remove_remains, resume_folder
from hrnet_cli.sinks import open_stream, planned_files
from hrnet_cli.sinks.encoding import check_encoder
from hrnet_cli.sources import VideoSource
from hrnet_cli.sources.plan import Video
from hrnet_cli.stopping import StopRequest
from hrnet_cli.streaming import Finder, Memory, Seen, chunk_frames, find_poses
from hrnet_cli.video_job import damage_words, process_video
from hrnet_cli.video_task import VideoResult, Watch

if TYPE_CHECKING:
    import numpy as np

    from hrnet_cli.sinks.show import LiveWindow


# Opens a video and says who knows its people.
Opener = Callable[[Video], tuple[VideoSource, Finder]]


def planned_outputs(video: Video, options: DetectOptions) -> list[Path]:
    """Return the files and folders that a video's run would write."""
    folder = options.folder
    if folder is None:
        return []
    files = planned_files(options.formats, video.name, video=True)
    if options.parts:
        suffix = encoding(options).suffix or "_frames"
        files.append(Path(f"{video.name}{suffix}"))
    if options.video.report and has_page(video):
        files.append(Path(f"{video.name}.html"))
    return [folder / file for file in files]


def is_done(video: Video, options: DetectOptions) -> bool:
    """Tell whether an earlier run finished a video: all is there, and nothing to go on with."""
    outputs = planned_outputs(video, options)
    return bool(outputs) and all(path.exists() for path in outputs) and not _broken(video, options)


def leave_out_all(videos: Sequence[Video], options: DetectOptions, report: RunReport) -> bool:
    """Tell whether earlier runs did all videos; then they are reported, and no model is needed.

    Where one has remains of a run beside it they are looked at one after the other instead.
    """
    folder = options.folder
    if folder is None or not options.video.resume:
        return False
    if any(resume_folder(folder / video.name).exists() for video in videos):
        return False
    if not all(is_done(video, options) for video in videos):
        return False
    report.videos += [VideoOutcome(video.source, skipped=True) for video in videos]
    return True


def refuse_existing(videos: Sequence[Video], options: DetectOptions) -> None:
    """Raise OutputError before anything is replaced that nobody said may be.

    Raises:
        OutputError: Output exists, of a run that is done or broken; or it would replace its video.
    """
    for video in videos:
        outputs = planned_outputs(video, options)
        for path in outputs:
            if path.exists() and video.path is not None and path.samefile(video.path):
                raise OutputError(
                    f"'{path}' would replace the video it is drawn from",
                    hint="name another folder with --out",
                )
        broken = _broken(video, options)
        if options.overwrite or (options.video.resume and (broken or is_done(video, options))):
            continue
        if broken:
            raise OutputError(
                f"a run on '{video.source}' was broken, and could go on",
                hint="add --resume to go on with it, or --overwrite to start anew",
            )
        existing = [path for path in outputs if path.exists()]
        if existing:
            raise OutputError(
                f"'{existing[0]}' would be overwritten",
                hint="add --overwrite to replace it, or name another folder with --out",
            )


def detect_videos(
    videos: Sequence[Video],
    options: DetectOptions,
    opener: Opener,
    report: RunReport,
    on_problem: Callable[[str, HrnetError], None],
) -> None:
    """Work through videos one after the other; one that cannot be used is told and left out.

    Args:
        videos: What to do, in order.
        options: As given; checked.
        opener: Opens a video, and returns who knows its people.
        report: Gets one outcome for each video.
        on_problem: Called with a video that cannot be used, or whose output another run writes or
            left with other settings; raises to stop.

    Raises:
        TargetError: The only video's output must be left alone.
        HrnetError: The run as a whole cannot go on, such as a full disk.
        KeyboardInterrupt: Ctrl-C or SIGTERM; what was written is complete and can be gone on with.
    """
    if options.parts:
        check_encoder(encoding(options))
    with ExitStack() as stack:
        window = _open_window(options, stack)
        stop = stack.enter_context(StopRequest())
        for number, video in enumerate(videos, start=1):
            outcome = VideoOutcome(video.source)
            report.videos.append(outcome)
            start = time.perf_counter()
            label = f"{number}/{len(videos)} {Path(video.name).name}"
            try:
                outcome.skipped = _was_done(video, options)
                if outcome.skipped:
                    continue
                _detect_video(video, label, options, opener, outcome, stop, window)
            except (InputError, TargetError) as error:
                outcome.error = error.message
                if isinstance(error, TargetError) and len(videos) == 1:
                    raise
                on_problem(video.source, error)
            except HrnetError as error:
                outcome.error = error.message
                raise
            finally:
                outcome.seconds = time.perf_counter() - start
                report.people += outcome.people
            for warning in outcome.warnings:
                console.say_warning(f"{video.source}: {warning}")
            _end_if_stopped(stop, video, options)


def _was_done(video: Video, options: DetectOptions) -> bool:
    """Tell whether an earlier run did a video, and put away what it may have left."""
    if not options.video.resume or not is_done(video, options):
        return False
    if options.folder is not None:
        remove_remains(options.folder / video.name)
    return True


def _detect_video(
    video: Video,
    label: str,
    options: DetectOptions,
    opener: Opener,
    outcome: VideoOutcome,
    stop: StopRequest,
    window: "LiveWindow | None",
) -> None:
    source, finder = opener(video)
    result = VideoResult()
    clock = finder.info.clock
    with show_progress(label, source.info.frames, clock, quiet=options.quiet) as advance:

        def on_frame(seen: Seen, picture: "np.ndarray | None") -> bool:
            advance(result.frames, result.people)
            if window is None:
                return True
            return window.show(seen.frame.image_HW3 if picture is None else picture)

        watch = Watch(on_frame, lambda: stop.requested)
        try:
            if options.folder is None:
                _stream(source, options, finder, watch, result)
            else:
                task = video_task(video, source, options, finder)
                process_video(task, finder, watch, result)
        finally:
            source.close()
            outcome.frames, outcome.people = result.frames, result.people
            outcome.warnings, outcome.complete = result.warnings, result.complete
            outcome.written = [str(path) for path in result.written]


def open_source(
    video: Video, options: DetectOptions, on_problem: Callable[[str, InputError], None]
) -> VideoSource:
    """Open a file, camera, stream or sequence of pictures.

    Args:
        video: What to open.
        options: As given.
        on_problem: Called with a picture of a sequence that cannot be read; raises to stop.

    Raises:
        InputError: It cannot be opened, or has nothing to see.
    """
    source = _open_playing(video, options, on_problem)
    if options.video.slow_motion is not None and source.info.live:
        source.close()
        raise InputError(
            f"'{video.source}' is live and cannot be in slow motion", hint="leave out --slow-motion"
        )
    return in_slow_motion(source, options)


def in_slow_motion(source: VideoSource, options: DetectOptions) -> VideoSource:
    """Return a video with the times of its recording, where --slow-motion says how they differ."""
    if options.video.slow_motion is None:
        return source
    from hrnet_cli.sources.slow_motion import SlowMotion

    return SlowMotion(source, Fraction(options.video.slow_motion).limit_denominator(1000))


def _open_playing(
    video: Video, options: DetectOptions, on_problem: Callable[[str, InputError], None]
) -> VideoSource:
    """Return a video with the times at which it plays; see `open_source`."""
    span, most = options.video.span, options.max_pixels
    if video.pictures:
        from hrnet_cli.sources.sequence import NumberedPictures, open_sequence

        rate = options.video.rate
        if rate is None:
            raise ValueError("pictures are a video with a rate only")
        pictures = NumberedPictures(video.pictures, video.source, video.name, rate)
        return open_sequence(pictures, span, max_pixels=most, on_problem=on_problem)
    if video.path is None:
        from hrnet_cli.sources.camera import open_camera

        return open_camera(video.address, video.name, span, max_pixels=most, shown=video.source)
    from hrnet_cli.sources.video import open_video

    return open_video(video.source, video.path, video.name, span, max_pixels=most)


def _stream(
    source: VideoSource,
    options: DetectOptions,
    finder: Finder,
    watch: Watch,
    result: VideoResult,
) -> None:
    """Write records to standard output as they are known, and nothing else."""
    width, height = source.info.size_wh
    chunk = 1 if source.info.live else chunk_frames(width * height, apart=finder.info.apart)
    memory = Memory(following(options, gives_ids=finder.info.gives_ids))
    sink = open_stream(options.formats[0], sys.stdout.buffer, run_info(options, finder))
    with ExitStack() as stack:
        frames = stack.enter_context(Ahead(source.frames(), chunk, "read"))
        found = find_poses(frames, finder, memory, chunk=chunk)
        seen = stack.enter_context(Ahead(found, chunk, "find", watch.stop))
        if source.info.live:
            stack.callback(source.close)  # or the stages would wait for a picture
        for one in seen:
            sink.write(one.frame, one.poses)
            result.frames = one.number
            result.people += len(one.poses)
            if not watch.on_frame(one, None):
                break
    result.warnings += damage_words(source, result.frames)
    result.complete = not watch.stop()


def _broken(video: Video, options: DetectOptions) -> bool:
    """Tell whether an earlier run left something to go on with."""
    folder = options.folder
    return folder is not None and (resume_folder(folder / video.name) / "state.json").exists()


def _end_if_stopped(stop: StopRequest, video: Video, options: DetectOptions) -> None:
    """After a signal say how to go on with a video it broke, and raise KeyboardInterrupt."""
    if stop.requested and _broken(video, options):
        nothing = "no outputs yet, they need all frames first; " if options.video.offline else ""
        console.say(f"{video.source}: {nothing}repeat the command with --resume to go on")
    stop.check()


def _open_window(options: DetectOptions, stack: ExitStack) -> "LiveWindow | None":
    if not options.video.show:
        return None
    from hrnet_cli.sinks.show import open_window

    window = open_window("hrnet")
    stack.callback(window.close)
    return window
