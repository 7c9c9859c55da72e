"""What ``hrnet eval`` prints: a table or JSON on stdout, notes on stderr."""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hrnet_cli.cli import console
from hrnet_cli.cli.detect_report import echo_json
from hrnet_cli.cli.eval_numbers import number_words

if TYPE_CHECKING:
    from hrnet_cli.config import WeightsEntry
    from hrnet_cli.eval_report import PublishedNumber
    from hrnet_cli.evaluation import EvalColumn, EvalReport

NOTHING = "-"


@dataclass(frozen=True)
class Evaluation:
    """Everything an evaluation says.

    Attributes:
        report: The numbers.
        sources: What the boxes of each column are, by its name: ``labels``, the detector, the file.
        published: What the published AP of a column counts, by its name.
        left_out: Why a column nobody asked for by name is missing.
        split: Part of the data set.
        subset: (photos looked at, photos in all) when these differ.
        model_file: Its weights.
        model_sha256: Their hash.
        runtime: What computed it, such as ``openvino``.
        precision: In which precision.
        entry: The model in weights.toml, None for another one.
        unusable: Error of each photo that could not be used.
        written: Files.
        seconds: From the labels to the numbers.
    """

    report: "EvalReport"
    sources: dict[str, str]
    published: "dict[str, PublishedNumber]"
    left_out: dict[str, str]
    split: str
    subset: tuple[int, int] | None
    model_file: Path
    model_sha256: str
    runtime: str
    precision: str
    entry: "WeightsEntry | None"
    unusable: dict[str, str]
    written: tuple[str, ...]
    seconds: float

    def to_json(self) -> dict[str, Any]:
        """Return what ``--json`` prints: `EvalReport.to_json` and where it comes from."""
        data = self.report.to_json()
        columns = [
            column
            | {
                "source": self.sources[column["boxes"]],
                "published": _published_json(self.published.get(column["boxes"])),
            }
            for column in data["columns"]
        ]
        return data | {
            "columns": columns,
            "left_out": self.left_out,
            "split": self.split,
            "subset": None
            if self.subset is None
            else dict(zip(("photos", "of"), self.subset, strict=True)),
            "model_file": str(self.model_file),
            "model_sha256": self.model_sha256,
            "runtime": self.runtime,
            "precision": self.precision,
            "unusable": [{"photo": p, "error": e} for p, e in self.unusable.items()],
            "written": list(self.written),
            "seconds": round(self.seconds, 3),
        }


def print_evaluation(
    evaluation: Evaluation, *, json: bool, per_keypoint: bool, quiet: bool
) -> None:
    """Print the numbers on stdout and what else is to say on stderr."""
    if json:
        echo_json(evaluation.to_json())
    else:
        heading = f"{evaluation.report.model} on {evaluation.report.dataset}"
        titles = [_title(column, evaluation) for column in evaluation.report.columns]
        _print_table(heading, ["", *titles], _rows(evaluation))
        if per_keypoint:
            _print_keypoints(evaluation, titles)
    if not quiet:
        for line in notes(evaluation):
            console.say(line)


def notes(evaluation: Evaluation) -> list[str]:
    """Return what must be known beside the numbers, a line each."""
    from hrnet_cli.eval_report import compare

    report = evaluation.report
    lines: list[str] = []
    if evaluation.subset is not None:
        lines.append("a part of the photos only: {} of {}".format(*evaluation.subset))
    for column in report.columns:
        if column.boxes in evaluation.published:
            lines.append(compare(report, column, evaluation.published[column.boxes]))
        lines += [f"{column.boxes}: {name}: {why}" for name, why in column.missing.items()]
    if not evaluation.published and (line := published_elsewhere(evaluation.entry)):
        lines.append(f"{line}; no column here has such boxes on such photos")
    counted = {name for column in report.columns for name in column.stats}
    for name, words in number_words(report.columns[0].schema, report.settings).items():
        if name in counted:
            lines.append(f"{name}: {words}")
    if evaluation.unusable:
        lines.append(f"{len(evaluation.unusable)} photos could not be used: nobody was found there")
    lines.append(f"{evaluation.seconds:.1f} s; wrote {', '.join(evaluation.written)}")
    return lines


def published_elsewhere(entry: "WeightsEntry | None") -> str:
    """Return what was published for a model, in words; empty for nothing."""
    if entry is None or entry.published_ap is None:
        return ""
    return f"published for {entry.name}: {entry.published_ap:.3f} ({entry.metric}; {entry.source})"


def _published_json(published: "PublishedNumber | None") -> dict[str, Any] | None:
    return None if published is None else asdict(published)


def _print_table(heading: str, head: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    from rich.box import SIMPLE_HEAD
    from rich.table import Table
    from rich.text import Text

    table = Table(box=SIMPLE_HEAD, padding=(0, 1), show_edge=False)
    for number, title in enumerate(head):
        # A narrow terminal or a pipe must not shorten names and numbers.
        width = max(len(title), *(len(row[number]) for row in rows))
        table.add_column(Text(title), min_width=width, justify="right" if number else "left")
    for row in rows:
        table.add_row(*map(Text, row))
    console.out().print(Text(heading))
    console.out().print(table, soft_wrap=False, crop=False)


def _print_keypoints(evaluation: Evaluation, titles: Sequence[str]) -> None:
    from hrnet_cli.eval_report import KEYPOINT_COLUMNS, keypoint_rows

    for column, title in zip(evaluation.report.columns, titles, strict=True):
        console.out().print()
        rows = keypoint_rows(column, _number)
        _print_table(f"each keypoint, boxes {title}", KEYPOINT_COLUMNS, rows)


def _title(column: "EvalColumn", evaluation: Evaluation) -> str:
    source = evaluation.sources[column.boxes]
    return f"detector {source}" if column.boxes == "detector" else column.boxes


def _rows(evaluation: Evaluation) -> list[tuple[str, ...]]:
    columns = evaluation.report.columns
    names = dict.fromkeys(name for column in columns for name in column.stats)
    rows = [(name, *(_number(column.stats.get(name)) for column in columns)) for name in names]
    rows.insert(1, ("95% interval", *(_interval(column) for column in columns)))
    if evaluation.published:
        cells = (_number(column.published_AP) for column in columns)
        photos = next(iter(evaluation.published.values())).photos
        rows.insert(2, (f"published (detector 56.4 AP, {photos} photos)", *cells))
    counts = {
        "photos": [len(column.predictions.photos_P) for column in columns],
        "labelled people": [len(column.people) for column in columns],
        "without a pose": [int((column.people.pose_C < 0).sum()) for column in columns],
        "poses after NMS": [len(column.kept_M) for column in columns],
    }
    rows += [(name, *map(str, values)) for name, values in counts.items()]
    rows.append(("ms per person", *(_number(column.ms_per_person, 1) for column in columns)))
    return rows


def _interval(column: "EvalColumn") -> str:
    if column.AP_interval is None:
        return NOTHING
    return "{:.3f} to {:.3f}".format(*column.AP_interval)


def _number(value: float | None, decimals: int = 3) -> str:
    return NOTHING if value is None or math.isnan(value) else f"{value:.{decimals}f}"
