"""What a run of ``hrnet detect`` would write, and whether it may."""

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from hrnet_cli.cli.detect_options import DetectOptions
from hrnet_cli.cli.detect_report import echo_json
from hrnet_cli.errors import OutputError
from hrnet_cli.sinks import picture_name, planned_files
from hrnet_cli.sinks.overlay import spare_source

if TYPE_CHECKING:
    from hrnet_cli.sources.plan import SourcePlan


def _targets(plan: "SourcePlan", options: DetectOptions) -> list[Path]:
    """Return every file and folder the run would write for its photos."""
    folder = options.folder
    if folder is None or not plan.photos:
        return []
    transparent = options.background == "transparent"
    pictures = [picture_name(photo.name, transparent=transparent) for photo in plan.photos]
    return [folder / path for path in planned_files(options.formats, options.photos_stem)] + [
        folder / name for name in pictures if options.parts
    ]


def _all_targets(plan: "SourcePlan", options: DetectOptions) -> list[Path]:
    """Return every file and folder the run would write."""
    targets = _targets(plan, options)
    if plan.videos:
        from hrnet_cli.cli.detect_videos import planned_outputs

        for video in plan.videos:
            targets += planned_outputs(video, options)
    return targets


def refuse_existing_outputs(plan: "SourcePlan", options: DetectOptions) -> None:
    """Raise OutputError before anything is replaced that nobody said may be."""
    _refuse_own_inputs(plan, options)
    if plan.videos:
        from hrnet_cli.cli.detect_videos import refuse_existing

        refuse_existing(plan.videos, options)
    _refuse_own_photos(plan, options)
    if options.overwrite or options.append:
        return
    existing = [path for path in _targets(plan, options) if path.exists()]
    if existing and not (options.video.resume and _are_of_these_photos(plan, options)):
        others = f" and {len(existing) - 1} more" if len(existing) > 1 else ""
        raise OutputError(
            f"'{existing[0]}'{others} would be overwritten",
            hint="add --overwrite to replace, --append to add, or name another folder with --out",
        )


def records_path(options: DetectOptions) -> Path:
    """Return the file of JSON Lines of a run's photos, which need not be asked for."""
    return Path(options.out) / planned_files(["jsonl"], options.photos_stem)[0]


def _are_of_these_photos(plan: "SourcePlan", options: DetectOptions) -> bool:
    """Tell whether the records in the output folder speak of photos of this run only.

    Then `--resume` looks at the photos again, and nothing else is lost.
    """
    records = records_path(options)
    if not records.is_file():
        return False
    sources = {photo.source for photo in plan.photos}
    for line in records.read_bytes().splitlines():
        try:
            if json.loads(line)["source"] not in sources:
                return False
        except (ValueError, KeyError, TypeError):
            continue  # the last line of a run that was killed
    return True


def refuse_other_records(options: DetectOptions, model: str, detector: str) -> None:
    """Raise OutputError where `--resume` would replace the records of another model or detector."""
    records = records_path(options)
    if not records.is_file():
        return
    for line in records.read_bytes().splitlines():
        try:
            found = json.loads(line)
            made_by = (str(found["model"]), str(found["detector"]))
        except (ValueError, KeyError, TypeError):
            continue  # the last line of a run that was killed
        if made_by != (model, detector):
            raise OutputError(
                f"'{records}' was made by model {made_by[0]} and detector {made_by[1]}, this run"
                f" has {model} and {detector}",
                hint="--overwrite replaces it; or name another folder with --out",
            )


def _refuse_own_inputs(plan: "SourcePlan", options: DetectOptions) -> None:
    """Raise OutputError where the run would replace a file that it reads besides pictures."""
    lists = [Path(source[1:]) for source in options.sources if source.startswith("@")]
    read = [path for path in (options.boxes, options.connections, *lists) if path is not None]
    read = [path for path in read if path.exists()]
    if not read or options.append:
        return
    for target in _all_targets(plan, options):
        replaced = [path for path in read if target.exists() and target.samefile(path)]
        if replaced:
            raise OutputError(
                f"'{target}' would be replaced, and this run reads it",
                hint="name another folder with --out",
            )


def _refuse_own_photos(plan: "SourcePlan", options: DetectOptions) -> None:
    """Raise OutputError where a drawn picture would replace its photo, before any file is made."""
    if options.folder is None or not options.parts:
        return
    transparent = options.background == "transparent"
    for photo in plan.photos:
        picture = options.folder / picture_name(photo.name, transparent=transparent)
        spare_source(picture, photo.path)


def say_plan(plan: "SourcePlan", options: DetectOptions) -> None:
    """Print what would be read and written, as `--dry-run` wants it."""
    targets = [str(path) for path in _all_targets(plan, options)]
    if options.json:
        data = {
            "schema": "hrnet-plan/1",
            "read": [item.source for item in (*plan.photos, *plan.videos)],
            "write": targets,
            "skipped": list(plan.skipped),
        }
        echo_json(data)
        return
    lines = [
        *(f"read   {item.source}" for item in (*plan.photos, *plan.videos)),
        *(f"write  {target}" for target in targets),
        *(f"skip   {name}" for name in plan.skipped),
    ]
    for line in lines:
        # As bytes: names need not be UTF-8.
        typer.echo(os.fsencode(line))
