"""What to make of one video, and what came of it."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from hrnet_cli.draw import Connections, DrawStyle, draw_poses
from hrnet_cli.sinks import RunInfo, planned_files
from hrnet_cli.sinks.encoding import VideoSettings
from hrnet_cli.sinks.sound import Sound
from hrnet_cli.smoothing_offline import OfflineSettings
from hrnet_cli.sources import VideoSource
from hrnet_cli.streaming import Following, Seen
from hrnet_cli.structures import Frame, Poses
from hrnet_cli.video_report import VideoReportInfo


@dataclass(frozen=True)
class Drawing:
    """How the frames of a video are drawn on.

    Attributes:
        parts: What to draw; see `draw.draw_poses`.
        connections: Limbs as pairs of keypoint names; None for those of the schema.
        style: Colours, sizes, thresholds and background.
        side_by_side: Put the frame as it was to the left.
    """

    parts: tuple[str, ...]
    connections: Connections | None = None
    style: DrawStyle | None = None
    side_by_side: bool = False

    def draw(self, frame: Frame, poses: Poses) -> np.ndarray:
        """Return the drawn frame, uint8 RGB or, on a transparent background, RGBA."""
        drawn = draw_poses(
            frame.image_HW3, poses, parts=self.parts, connections=self.connections, style=self.style
        )
        return np.concatenate([frame.image_HW3, drawn], axis=1) if self.side_by_side else drawn


@dataclass(frozen=True)
class VideoTask:
    """What to make of one video.

    Attributes:
        source: The opened video.
        target: Path of the outputs without suffix.
        formats: Keys of `SINKS` to write.
        info: What all records share.
        following: What is done from frame to frame.
        settings: All that decides the results, by name, as JSON can hold it: a broken run is gone
            on with only when it is the same.
        drawing: How frames are drawn on; None for no video.
        encoding: How the drawn video is encoded.
        offline: What is done to the keypoints when all are known; None for nothing.
        sound: What the drawn video gets to hear; None for silence.
        report: What the report page says of the run; None for no page.
        original: The video file, for the report; None where there is none.
        resume: Go on with what a broken run left.
    """

    source: VideoSource
    target: Path
    formats: tuple[str, ...]
    info: RunInfo
    following: Following
    settings: dict[str, Any]
    drawing: Drawing | None = None
    encoding: VideoSettings = field(default_factory=VideoSettings)
    offline: OfflineSettings | None = None
    sound: Sound | None = None
    report: VideoReportInfo | None = None
    original: Path | None = None
    resume: bool = False

    @property
    def video(self) -> Path | None:
        """Return the drawn video, or folder of pictures; None when none is asked for."""
        if self.drawing is None:
            return None
        suffix = self.encoding.suffix or "_frames"
        return self.target.with_name(self.target.name + suffix)

    @property
    def page(self) -> Path | None:
        """Return the report page; None when none is asked for."""
        return None if self.report is None else self.target.with_name(f"{self.target.name}.html")

    def outputs(self) -> list[Path]:
        """Return all files and folders that are written."""
        records = planned_files(self.formats, self.target.name, video=True)
        others = [path for path in (self.video, self.page) if path is not None]
        return [self.target.parent / path for path in records] + others


@dataclass
class VideoResult:
    """What came of one video.

    Attributes:
        frames: Frames with a record, those of a broken run before included.
        people: People in them, all frames together.
        written: Files and folders.
        warnings: What went wrong on the way, a sentence each.
        complete: Whether it was worked through to its end.
    """

    frames: int = 0
    people: int = 0
    written: list[Path] = field(default_factory=list[Path])
    warnings: list[str] = field(default_factory=list[str])
    complete: bool = False


@dataclass(frozen=True)
class Watch:
    """How a caller follows the work.

    Attributes:
        on_frame: Called after each frame is done, in the calling thread, with it, its people, and
            the drawn picture where one is made; returns False to end early.
        stop: Asked all the time whether to end early.
    """

    on_frame: Callable[[Seen, np.ndarray | None], bool] = lambda _seen, _picture: True
    stop: Callable[[], bool] = lambda: False
