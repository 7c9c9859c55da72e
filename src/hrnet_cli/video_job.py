"""One video from source to finished files: streamed, drawn, smoothed, resumable at any moment.

Frames flow through stages that overlap, each a thread behind a bounded queue: decoding, looking for
people and keypoints, drawing and writing records, and encoding in the calling thread. Records are
on disk as soon as they are known; every `SEGMENT_FRAMES` frames the state is kept from which a
broken run goes on to the very same output.
"""

from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from hrnet_cli.ahead import Ahead
from hrnet_cli.errors import InputError
from hrnet_cli.records import read_records
from hrnet_cli.resuming import ResumeFolder
from hrnet_cli.sinks import (
    SINKS,
    GrowingSink,
    open_growing_sink,
    open_sink,
)
from hrnet_cli.sinks.files import reporting
from hrnet_cli.sinks.video_file import VideoWriter, open_video_file
from hrnet_cli.smoothing_offline import OfflineSettings, smooth_video
from hrnet_cli.sources import Damage, VideoSource
from hrnet_cli.streaming import (
    Finder,
    Memory,
    Seen,
    chunk_frames,
    clocked,
    find_poses,
)
from hrnet_cli.structures import Frame, Poses
from hrnet_cli.video_report import write_video_report
from hrnet_cli.video_task import VideoResult, VideoTask, Watch

# Drawn pictures that wait for the encoder.
PICTURES_AHEAD = 4
# How long a stage may take to end: a chunk on a slow processor.
PATIENCE_S = 60.0
# What the resume folder calls records that are not asked for, and those that were smoothed.
_KEPT, _SMOOTHED = "records", "smoothed"


@dataclass(frozen=True)
class _Item:
    """A frame on its way: looked at, recorded, drawn on.

    Attributes:
        seen: The frame and its people.
        bytes: Lengths of the growing files behind its record, where a run may go on; else None.
        picture: The drawn frame.
    """

    seen: Seen
    bytes: dict[str, int] | None = None
    picture: np.ndarray | None = None


def process_video(task: VideoTask, finder: Finder, watch: Watch, result: VideoResult) -> None:
    """Work through one video and write what is asked for; ``result`` fills as it goes.

    Args:
        task: What to do. Its source is closed.
        finder: Knows people and keypoints.
        watch: Follows the work. Stopped, the outputs hold what is done by then, and a later run
            with ``resume`` completes them; a live source, which cannot be gone back to, is
            completed as it is.
        result: Changed in place, so that a caller has it after an error too.

    Raises:
        InputError: The video has no frame, or cannot be read on.
        OutputError: Something cannot be written; what was written stays, and can be gone on with.
        UsageError: This installation lacks an encoder or package that the outputs need.
    """
    folder = ResumeFolder(task.target)
    try:
        state = folder.load(task.settings) if task.resume else None
        if state is None:
            folder.clear()
        _Job(task, finder, watch, folder, result).run(state)
        if result.complete:
            folder.remove()
    finally:
        task.source.close()
        folder.release()


class _Job:
    """The work on one video; see `process_video`."""

    def __init__(
        self,
        task: VideoTask,
        finder: Finder,
        watch: Watch,
        folder: ResumeFolder,
        result: VideoResult,
    ) -> None:
        self.task = task
        self.watch = watch
        self.folder = folder
        self.result = result
        self._finder = finder
        self._clock = finder.info.clock
        self._keeps_records = "jsonl" not in task.formats or task.offline is not None
        self._had_enough = False

    def run(self, state: dict[str, Any] | None) -> None:
        """Do what is left to do."""
        if state is not None:
            self.result.frames, self.result.people = state["memory"]["frames"], state["people"]
        if state is not None and self.task.source.info.live:
            state = self._end_live(state)
        if state is None or not state["done"]:
            if not self._find(state):
                return
        elif self._draws_at_once:
            # Only the end was missing.
            self._open_writer(self.result.frames).finish(self.task.sound)
        if self.task.offline is not None and not self._smooth(self.task.offline):
            return
        self.result.warnings += damage_words(self.task.source, self.result.frames)
        self._derive()
        self.result.written = self.task.outputs()
        self.result.complete = True

    @property
    def _draws_at_once(self) -> bool:
        return self.task.drawing is not None and self.task.offline is None

    def _end_live(self, state: dict[str, Any]) -> dict[str, Any] | None:
        """Take what a broken run has of a live source for all of it: nobody can go back to it."""
        if not state["memory"]["frames"]:
            return None
        if not state["done"]:
            with ExitStack() as stack:
                self._open_records(state["bytes"], stack)
            self._keep(state["memory"], {}, done=True)
            self.result.warnings.append(
                f"it is live and cannot be gone back to: the {self.result.frames} frames of the"
                " broken run were completed, none was added"
            )
        return {**state, "done": True}

    # --- the first pass looks for people ---------------------------------------------------------

    def _find(self, state: dict[str, Any] | None) -> bool:
        """Look through the video, and return whether its end was reached."""
        memory = Memory(self.task.following, state["memory"] if state else None)
        start = memory.state()
        done_before = memory.frames
        with ExitStack() as stack:
            seen = self._look(memory, stack)
            first = next(seen, None)
            if first is None and not done_before:
                if self.watch.stop():
                    return False
                raise InputError(
                    f"'{self.task.source.source}' has no frame in the wanted part",
                    hint="look at --start and --end",
                )
            # Nothing is written before a first frame was read; then the state comes first, so that
            # what a broken run leaves is never taken for done.
            if state is None:
                self._keep(start, {}, done=False)
            sinks = self._open_records(state["bytes"] if state else {}, stack)
            items = self._record(chain([first] if first else [], seen), sinks)
            self._take_all(items, done_before if self._draws_at_once else None, stack, seen)
            if self.watch.stop() and not self.task.source.info.live:
                return False
            self._keep({"frames": self.result.frames}, {}, done=True)
        return True

    def _look(self, memory: Memory, stack: ExitStack) -> Ahead[Seen]:
        source, info = self.task.source, self.task.source.info
        width, height = info.size_wh
        # A live picture is looked at when it comes.
        apart = self._finder.info.apart
        chunk = 1 if info.live else chunk_frames(width * height, apart=apart)
        frames = clocked(source.frames(skip=memory.frames), self._clock, "read")
        ahead = stack.enter_context(Ahead(frames, chunk, "read"))
        found = find_poses(ahead, self._finder, memory, chunk=chunk)
        seen = stack.enter_context(Ahead(found, chunk, "find", self._stop))
        stack.callback(self._leave)
        return seen

    def _take_all(
        self, items: Iterator[_Item], done_before: int | None, stack: ExitStack, seen: Ahead[Seen]
    ) -> None:
        """Draw and encode the items where a video is written, and follow them to their end."""
        writer = None
        if done_before is not None:
            writer = self._open_writer(done_before)
            stack.callback(writer.close)
            drawn = Ahead(self._draw(items), PICTURES_AHEAD, "draw")
            stack.callback(drawn.close, PATIENCE_S)
            items = drawn
        # Closed first: whoever waits for it ends then.
        stack.callback(seen.close, PATIENCE_S)
        stack.callback(self._leave)
        for item in items:
            self._take(item, writer)
        if writer is not None and not (self.watch.stop() and not self.task.source.info.live):
            self._finish(writer)

    def _take(self, item: _Item, writer: VideoWriter | None) -> None:
        """Do what is done in the calling thread."""
        seen = item.seen
        if writer is not None and item.picture is not None and seen.frame.pts is not None:
            with self._clock.stage("encode"):
                writer.append(item.picture, seen.frame.pts)
        self.result.frames = seen.number
        self.result.people += len(seen.poses)
        if item.bytes is not None and seen.state is not None:
            self._keep(seen.state, item.bytes, done=False)
        # What was looked at by then still comes, so that records and pictures end together.
        if not self._had_enough:
            self._had_enough = not self.watch.on_frame(seen, item.picture)

    def _stop(self) -> bool:
        """Tell whether no more frames are looked at."""
        return self._had_enough or self.watch.stop()

    def _leave(self) -> None:
        """Have the first stages end, which a live source may keep waiting for a picture."""
        if self.task.source.info.live:
            self.task.source.close()

    def _keep(self, memory: dict[str, Any], lengths: dict[str, int], *, done: bool) -> None:
        state = {"memory": memory, "bytes": lengths, "people": self.result.people, "done": done}
        self.folder.save(self.task.settings, state)

    # --- what the stages do ----------------------------------------------------------------------

    def _open_records(self, lengths: dict[str, int], stack: ExitStack) -> dict[str, GrowingSink]:
        """Open the files that grow with each frame, cut to where the run goes on."""
        target, info = self.task.target, self.task.info
        places = {
            name: (target.parent, target.name)
            for name in self.task.formats
            if SINKS[name].streams_video and self.task.offline is None
        }
        if self._keeps_records:
            places["jsonl"] = (self.folder.path, _KEPT)
            info = replace(info, drop_low=False)
        sinks: dict[str, GrowingSink] = {}
        for name, (folder, stem) in places.items():
            keep = lengths.get(name)
            sinks[name] = open_growing_sink(name, folder, info, stem, keep_bytes=keep)
            stack.callback(sinks[name].close)
        return sinks

    def _record(self, seen: Iterable[Seen], sinks: dict[str, GrowingSink]) -> Iterator[_Item]:
        """Write the record of each frame and pass the frame on."""
        for one in seen:
            with self._clock.stage("write"):
                for sink in sinks.values():
                    sink.write(one.frame, one.poses)
            marked = one.state is not None
            lengths = {name: sink.bytes_written for name, sink in sinks.items()}
            yield _Item(one, lengths if marked else None)

    def _draw(self, items: Iterable[_Item]) -> Iterator[_Item]:
        """Draw on each frame."""
        drawing = self.task.drawing
        for item in items:
            with self._clock.stage("draw"):
                picture = drawing.draw(item.seen.frame, item.seen.poses) if drawing else None
            yield replace(item, picture=picture)

    def _open_writer(self, frames_before: int) -> VideoWriter:
        task = self.task
        if task.drawing is None or task.video is None:
            raise ValueError("no video is asked for")
        width, height = task.source.info.size_wh
        return open_video_file(
            task.video,
            (2 * width if task.drawing.side_by_side else width, height),
            task.source.info.time_base,
            task.encoding,
            parts=self.folder.parts,
            resume_frames=frames_before,
        )

    def _finish(self, writer: VideoWriter) -> None:
        with self._clock.stage("encode"):
            summary = writer.finish(self.task.sound)
        self.result.warnings += summary.warnings
        if summary.frames != self.result.frames:
            self.result.warnings.append(
                f"'{summary.path}' has {summary.frames} frames, {self.result.frames} were looked at"
            )

    # --- the second pass and the end -------------------------------------------------------------

    def _smooth(self, settings: OfflineSettings) -> bool:
        """Smooth all records, write and draw them; return whether that was not stopped."""
        records = list(self._read(self._kept(_KEPT)))
        times_s = [frame.time_s or 0.0 for frame, _ in records]
        smoothed = smooth_video(times_s, [poses for _, poses in records], settings)
        self.result.frames = self.result.people = 0
        with ExitStack() as stack:
            sink = open_growing_sink("jsonl", self.folder.path, self.task.info, _SMOOTHED)
            stack.callback(sink.close)
            frames: Iterable[Frame] = [frame for frame, _ in records]
            if self.task.drawing is not None:
                again = clocked(self.task.source.frames(), self._clock, "read")
                frames = _same(again, frames, self.task.source.source)
            seen = Ahead(_paired(frames, smoothed), PICTURES_AHEAD, "smooth", self.watch.stop)
            stack.enter_context(seen)
            items = self._record(seen, {"jsonl": sink})
            self._take_all(items, 0 if self.task.drawing is not None else None, stack, seen)
        if self.watch.stop():
            return False
        place = self._kept(_SMOOTHED)
        if "jsonl" in self.task.formats:
            target = self.task.target.with_name(f"{self.task.target.name}.jsonl")
            with reporting(target):
                place.replace(target)
        return True

    def _derive(self) -> None:
        """Write the formats that are made from the finished records, and the page."""
        task, target = self.task, self.task.target
        place = target.with_name(f"{target.name}.jsonl")
        if "jsonl" not in task.formats:
            place = self._kept(_KEPT if task.offline is None else _SMOOTHED)
        for name in task.formats:
            if name == "jsonl" or (SINKS[name].streams_video and task.offline is None):
                continue
            sink = open_sink(name, target.parent, task.info, target.name, video=True)
            with ExitStack() as stack:
                stack.callback(sink.close)
                for frame, poses in self._read(place):  # one at a time: a video may be long
                    sink.write(frame, poses)
        if task.report is not None and task.page is not None and task.original is not None:
            page = replace(task.report, damage=self.result.warnings)
            pictures = task.source.frames()
            records = list(self._read(place))
            write_video_report(task.page, records, task.original, page, pictures=pictures)

    def _kept(self, stem: str) -> Path:
        return self.folder.path / f"{stem}.jsonl"

    def _read(self, path: Path) -> Iterator[tuple[Frame, Poses]]:
        return read_records(path, schema=self._finder.info.schema)


def damage_words(source: VideoSource, frames: int) -> list[str]:
    """Return what a source could not give, a sentence each; nothing when it gave all.

    Args:
        source: After its frames were read.
        frames: How many it gave.
    """
    damage: Damage = source.damage
    counted = (
        (
            damage.broken_packets,
            "1 piece of it is broken and was left out",
            "{} pieces of it are broken and were left out",
        ),
        (
            damage.reconnects,
            "the connection was lost and made again once",
            "the connection was lost and made again {} times",
        ),
        (
            damage.guessed_times,
            "1 frame had no time, or one that goes back, and got one",
            "{} frames had no time, or one that goes back, and got one",
        ),
        (
            damage.resized,
            "1 frame has another size than the first and was fitted into it",
            "{} frames have another size than the first and were fitted into it",
        ),
        (
            damage.dropped,
            "1 frame came too fast and was left out",
            "{} frames came too fast and were left out",
        ),
    )
    words = [
        one if count == 1 else several.format(count) for count, one, several in counted if count
    ]
    words += [told for told in (damage.missing, damage.ended_early) if told]
    expected = source.info.frames
    # What is broken was told already.
    if expected is not None and expected - frames not in (0, damage.broken_packets):
        announced = "1 frame was" if expected == 1 else f"{expected} frames were"
        words.append(f"{announced} announced, {frames} came")
    return words


def _paired(frames: Iterable[Frame], poses_T: Iterable[Poses]) -> Iterator[Seen]:
    for number, (frame, poses) in enumerate(zip(frames, poses_T, strict=True), start=1):
        yield Seen(frame, poses, number)


def _same(again: Iterable[Frame], before: Iterable[Frame], source: str) -> Iterator[Frame]:
    """Yield frames read a second time, as long as they are the same ones."""
    frames = iter(again)
    for expected in before:
        frame = next(frames, None)
        if frame is None or (frame.index, frame.pts) != (expected.index, expected.pts):
            raise InputError(
                f"'{source}' gave other frames the second time it was read, from frame"
                f" {expected.index} on",
                hint="was the file changed during the run? Start anew with --overwrite",
            )
        yield frame
