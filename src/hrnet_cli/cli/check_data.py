"""``hrnet check-data``: what a data set holds, what is wrong with it, and how samples look."""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hrnet_cli.cli import console
from hrnet_cli.cli.options import QuietOption
from hrnet_cli.errors import InputError, OutputError, UsageError

if TYPE_CHECKING:
    from hrnet_cli.data.check import DataReport
    from hrnet_cli.data.people import LabelledPeople

EXAMPLES = """Examples:

\b
  hrnet check-data horses.toml --sheet samples.png
  hrnet check-data coco --data /data/coco --split val --labels-only
"""
SHEET_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp")
# The sheet shows the official training at its smaller size: lib/config and experiments/ of HRNet.
SHEET_HW, SHEET_CODEC, SHEET_SIGMA = (256, 192), "msra", 2.0


def check_data(
    dataset: Annotated[
        str,
        typer.Argument(
            metavar="DATASET",
            help="coco, coco-wholebody, crowdpose, mpii, a COCO-style .json, a data set .toml, or a"
            " YOLO-pose data.yaml or its folder.",
        ),
    ],
    split: Annotated[str, typer.Option("--split", help="Which part: train, val, ...")] = "train",
    data: Annotated[
        Path | None,
        typer.Option(
            "--data",
            help="Folder of the data; for a .json that of the photos.",
            show_default="data/coco for coco, else found beside the file",
        ),
    ] = None,
    category: Annotated[
        str | None,
        typer.Option("--category", help="Category or class to take where there are several."),
    ] = None,
    sheet: Annotated[
        Path | None,
        typer.Option(
            "--sheet",
            help="Draw 16 samples with augmentations and targets into this .png or .jpg.",
        ),
    ] = None,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Choice of the samples.")] = 0,
    labels_only: Annotated[
        bool, typer.Option("--labels-only", help="Do not read the photos: faster, finds less.")
    ] = False,
    strict: Annotated[
        bool,
        typer.Option("--strict", help="Exit with 3 when something cannot be used for training."),
    ] = False,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace an existing --sheet.")
    ] = False,
    json_: Annotated[
        bool, typer.Option("--json", help="Print the report as JSON on stdout.")
    ] = False,
    quiet: QuietOption = False,
) -> None:
    """Check a data set before training on it.

    Says what the keypoints are taken to be, counts what is labelled, and finds what cannot be used
    or looks wrong: photos, person boxes, keypoints, left and right.
    """
    _check_sheet(sheet, overwrite=overwrite)
    from hrnet_cli.data import open_dataset
    from hrnet_cli.data.check import check_people

    people = open_dataset(
        dataset,
        split=split,
        folder=data,
        category=category,
        on_note=_ignore if quiet else console.say,
    )
    with _progress(quiet=quiet) as on_progress:
        report = check_people(people, read_photos=not labels_only, on_progress=on_progress)
    if json_:
        console.out().print(
            json.dumps(_as_json(report), indent=2, ensure_ascii=False), markup=False
        )
    else:
        _print_table(report)
        _print_findings(report)
    if sheet is not None:
        _draw(people, sheet, seed)
        if not quiet:
            console.say(f"wrote {sheet}")
    if strict and report.unusable:
        raise InputError(
            f"{report.unusable} photos or people of {report.name} cannot be used for training",
            hint="correct them, or leave --strict to train without them",
        )


def _check_sheet(sheet: Path | None, *, overwrite: bool) -> None:
    if sheet is None:
        return
    if sheet.suffix.lower() not in SHEET_SUFFIXES:
        raise UsageError(
            f"--sheet is '{sheet}', expected a picture file ending in {' '.join(SHEET_SUFFIXES)}"
        )
    if sheet.exists() and not overwrite:
        raise OutputError(
            f"'{sheet}' exists already", hint="choose another name, or give --overwrite"
        )


def _draw(people: "LabelledPeople", sheet: Path, seed: int) -> None:
    from hrnet_cli.data.augment import AugmentConfig
    from hrnet_cli.data.crops import CropFrame
    from hrnet_cli.data.sheet import draw_samples
    from hrnet_cli.images import write_image

    frame = CropFrame(SHEET_HW, SHEET_CODEC)
    pixels = draw_samples(people, frame, AugmentConfig(), sigma=SHEET_SIGMA, seed=seed)
    write_image(sheet, pixels)


def _as_json(report: "DataReport") -> dict[str, Any]:
    counts = zip(report.keypoints, report.visible, report.hidden, strict=True)
    return {
        "schema": "hrnet-check-data/1",
        "name": report.name,
        "photos": report.photos,
        "people": report.people,
        "usable": report.usable,
        "unusable": report.unusable,
        "keypoints": [
            {"name": name, "visible": visible, "hidden": hidden} for name, visible, hidden in counts
        ],
        "findings": [
            {
                "what": finding.what,
                "count": finding.count,
                "unusable": finding.unusable,
                "examples": list(finding.examples),
            }
            for finding in report.findings
        ],
    }


def _print_table(report: "DataReport") -> None:
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    table = Table(box=SIMPLE_HEAD, padding=0, show_edge=False)
    table.add_column("keypoint", min_width=max(8, *map(len, report.keypoints)))
    for title in ("visible", "hidden", "unlabelled"):
        table.add_column(title, justify="right", min_width=len(title))
    for name, visible, hidden in zip(report.keypoints, report.visible, report.hidden, strict=True):
        table.add_row(name, str(visible), str(hidden), str(report.people - visible - hidden))
    console.out().print(table, soft_wrap=False, crop=False)


def _print_findings(report: "DataReport") -> None:
    from rich.text import Text

    out = console.out()
    lines = [
        f"{report.name}: {report.people} people in {report.photos} photos,"
        f" {report.usable} people to train on"
    ]
    for finding in report.findings:
        mark = "cannot be used" if finding.unusable else "to look at"
        more = ", ..." if finding.count > len(finding.examples) else ""
        lines.append(f"{mark}: {finding.count} {finding.what}: {', '.join(finding.examples)}{more}")
    if not report.findings:
        lines.append("nothing odd was found")
    for line in lines:
        out.print(Text("".join(c if c.isprintable() else repr(c)[1:-1] for c in line)))


def _ignore(_line: str) -> None:
    """Take a note and say nothing."""


@contextmanager
def _progress(*, quiet: bool) -> Iterator[Callable[[int, int], None] | None]:
    """Show a bar while photos are read, on a terminal only."""
    if quiet or not console.err().is_terminal:
        yield None
        return
    from rich.progress import Progress

    with Progress(console=console.err(), transient=True) as bar:
        task = bar.add_task("reading photos", total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)
