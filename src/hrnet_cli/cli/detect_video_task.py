"""What the options of ``hrnet detect`` say about one video, as the types below the CLI have it."""

import sys
from dataclasses import replace

from hrnet_cli.cli import console
from hrnet_cli.cli.deciding import deciding_settings
from hrnet_cli.cli.detect_options import DetectOptions, person_threshold
from hrnet_cli.errors import InputError
from hrnet_cli.redaction import shown_command
from hrnet_cli.sinks import RunInfo
from hrnet_cli.sinks.encoding import CODECS, VideoSettings
from hrnet_cli.sinks.sound import Sound
from hrnet_cli.smoothing import SmoothingSettings
from hrnet_cli.smoothing_offline import OfflineSettings
from hrnet_cli.sources import VideoSource
from hrnet_cli.sources.plan import Video
from hrnet_cli.streaming import Finder, Following
from hrnet_cli.tracking import TrackerSettings
from hrnet_cli.video_report import VideoReportInfo
from hrnet_cli.video_task import Drawing, VideoTask

# With tracking the detector also gives boxes this unsure: they continue tracks, and start none.
LEAST_TRACKED = 0.1


def video_task(
    video: Video, source: VideoSource, options: DetectOptions, finder: Finder
) -> VideoTask:
    """Return what is to be done with an open video.

    Raises:
        InputError: The options need the whole of a live source.
        ValueError: There is no folder to write to.
    """
    from hrnet_cli.cli.detect_run import draw_settings

    if options.folder is None:
        raise ValueError("no folder to write to")
    parts = options.parts
    drawing = None
    if parts:
        connections, style = draw_settings(options, finder.info.schema)
        drawing = Drawing(parts, connections, style, options.video.side_by_side)
    offline = None
    if options.video.offline:
        offline = OfflineSettings(
            kind=options.video.smooth_kind,
            **options.video.smooth_numbers,
            max_gap_s=options.video.fill_gaps,
            least_score=options.keypoint_threshold,
            fix_swaps=options.video.fix_swaps,
        )
        if source.info.live:
            raise InputError(
                f"'{video.source}' is live: --smooth {options.video.smooth} and --fill-gaps need"
                " the whole video",
                hint="use --smooth one-euro",
            )
    page = None
    if options.video.report and has_page(video):
        page = VideoReportInfo(
            model=finder.info.model,
            detector=finder.info.detector,
            command=shown_command(sys.argv[1:]),
            keypoint_threshold=options.keypoint_threshold,
            facts=[("smoothing", options.video.smooth)],
        )
    elif options.video.report:
        console.say_warning(f"{video.source}: a report needs a video file, none is written")
    return VideoTask(
        source=source,
        target=options.folder / video.name,
        formats=options.formats,
        info=run_info(options, finder),
        following=following(options, gives_ids=finder.info.gives_ids),
        settings=deciding_settings(
            *(options, finder.info.model, finder.info.detector, finder.info.hashes),
            clip=(video, source),
        ),
        drawing=drawing,
        encoding=replace(encoding(options), pixel_aspect=source.info.pixel_aspect),
        offline=offline,
        sound=_sound(video, source, options),
        report=page,
        original=video.path,
        resume=options.video.resume,
    )


def has_page(video: Video) -> bool:
    """Tell whether a report can be written: it shows a file that can be read again."""
    return video.path is not None and not video.pictures


def _sound(video: Video, source: VideoSource, options: DetectOptions) -> Sound | None:
    """Return what the drawn video gets to hear: a file's own sound, of the wanted part."""
    if video.path is None or not source.info.has_audio:
        return None
    span = options.video.span
    return Sound(video.path, whole=span.end_s is None and span.max_frames is None)


def run_info(options: DetectOptions, finder: Finder) -> RunInfo:
    """Return what every record says about the run."""
    return RunInfo(
        model=finder.info.model,
        detector=finder.info.detector,
        keypoint_threshold=options.keypoint_threshold,
        drop_low=options.drop_low,
    )


def following(options: DetectOptions, *, gives_ids: bool = False) -> Following:
    """Return what is done from frame to frame.

    Args:
        options: As given.
        gives_ids: People come with ids; they keep them unless tracking is asked for.
    """
    if not options.video.follows:
        return Following()
    threshold = person_threshold(options)
    tracking = TrackerSettings(
        person_threshold=threshold, low_threshold=min(LEAST_TRACKED, threshold)
    )
    if options.video.track_gap is not None:
        tracking = replace(tracking, max_gap_s=options.video.track_gap)
    causal = not options.video.offline
    numbers = options.video.smooth_numbers if causal else {}
    anew = options.video.track or options.video.track_gap is not None
    return Following(
        tracking=None if gives_ids and not anew else tracking,
        detect_every=options.video.detect_every,
        smoothing=options.video.smooth_kind if causal else "none",
        smoothing_settings=SmoothingSettings(
            **numbers, fix_swaps=options.video.fix_swaps and causal
        ),
    )


def encoding(options: DetectOptions) -> VideoSettings:
    """Return how the drawn video is encoded, but for the shape of its pixels."""
    return VideoSettings(options.video.video_codec, options.video.quality)


def keeps_alpha(options: DetectOptions) -> bool:
    """Tell whether the drawn video can be transparent."""
    return CODECS[options.video.video_codec].alpha
