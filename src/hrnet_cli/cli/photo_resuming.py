"""Going on with a broken run over photos: what it has stays, the others are looked at."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hrnet_cli.cli import console
from hrnet_cli.cli.deciding import deciding_settings
from hrnet_cli.cli.detect_options import DetectOptions
from hrnet_cli.cli.detect_targets import records_path, refuse_other_records
from hrnet_cli.images import write_bytes_atomic
from hrnet_cli.resuming import ResumeFolder
from hrnet_cli.sinks import picture_name
from hrnet_cli.sinks.files import make_folder

if TYPE_CHECKING:
    from hrnet_cli.estimator import PoseEstimator
    from hrnet_cli.sources.plan import Photo, SourcePlan
    from hrnet_cli.structures import Frame, Poses


@dataclass(frozen=True)
class Kept:
    """What a broken run over photos has.

    Attributes:
        plan: Photos that are left to do.
        records: Those that are done, in the order of the file.
        record_bytes: Length of their lines, to which the file of JSON Lines was cut.
        begin: To be called when all writers are open, and what was there before is gone: from then
            on the records are those of this run.
    """

    plan: "SourcePlan"
    records: "tuple[tuple[Frame, Poses], ...]" = ()
    record_bytes: int = 0
    begin: Callable[[], None] = lambda: None


@contextmanager
def photos_to_do(
    options: DetectOptions,
    plan: "SourcePlan",
    estimator: "PoseEstimator",
    detector: str,
    hashes: Mapping[str, str],
) -> Iterator[Kept]:
    """Yield what is left to do, and hold the outputs of photos for this run until it is done.

    While the run goes on a folder beside its records says with which options; it stays when the
    run is broken. Photos of a run that was not broken are looked at again.

    Raises:
        TargetError: The broken run had other options, or another run writes the same records.
        OutputError: The records are of another model or detector, or cannot be read or written.
    """
    if options.folder is None:
        yield Kept(plan)
        return
    with _held(options.folder, options.photos_stem) as remains:
        if options.append:
            yield Kept(plan)
            return
        settings = deciding_settings(options, estimator.spec.name, detector, hashes)
        try:
            kept = Kept(plan)
            if options.video.resume:
                refuse_other_records(options, estimator.spec.name, detector)
                if remains.load(settings) is not None and "jsonl" in options.formats:
                    kept = _keep(options, plan, estimator)
            yield replace(kept, begin=partial(_begin, remains, settings))
            remains.clear()
        except KeyboardInterrupt:
            if _has_records(options):
                console.say("repeat the command with --resume to go on")
            raise
        finally:
            if not _has_records(options):
                remains.clear()


@contextmanager
def _held(folder: Path, stem: str) -> Iterator[ResumeFolder]:
    """Yield the folder beside the records, whose outputs no other run may write meanwhile."""
    was_there = folder.exists()
    make_folder(folder)
    remains = ResumeFolder(folder / stem)
    try:
        yield remains
    finally:
        remains.release()  # which removes it where there is nothing to go on with
        if not was_there:
            with suppress(OSError):
                folder.rmdir()  # where nothing came into it


def _begin(remains: ResumeFolder, settings: dict[str, Any]) -> None:
    remains.clear()
    remains.save(settings, {})


def _has_records(options: DetectOptions) -> bool:
    path = records_path(options)
    return path.is_file() and path.stat().st_size > 0


def _keep(options: DetectOptions, plan: "SourcePlan", estimator: "PoseEstimator") -> Kept:
    """Cut the records of a broken run to whole ones of photos whose picture is there, too."""
    from hrnet_cli.records import read_records

    path = records_path(options)
    if not path.is_file():
        return Kept(plan)
    photos = {photo.source: photo for photo in plan.photos}
    lines: list[bytes] = []
    records: list[tuple[Frame, Poses]] = []
    found = read_records(path, schema=estimator.spec.schema, allow_cut=True)
    held = path.read_bytes().splitlines(keepends=True)
    for line, (frame, poses) in zip(held, found, strict=False):
        photo = photos.get(frame.source)
        if photo is None or not line.endswith(b"\n") or not _is_drawn(options, photo):
            continue
        del photos[frame.source]
        lines.append(line)
        records.append((replace(frame, name=photo.name), poses))
    content = b"".join(lines)
    write_bytes_atomic(path, content)
    left = tuple(photo for photo in plan.photos if photo.source in photos)
    return Kept(replace(plan, photos=left), tuple(records), len(content))


def _is_drawn(options: DetectOptions, photo: "Photo") -> bool:
    if not options.parts:
        return True
    transparent = options.background == "transparent"
    name = picture_name(photo.name, transparent=transparent)
    return (Path(options.out) / name).is_file()
