"""Draw the curves of a model card from the folders of the runs that made it, in their order.

    python starter/curves.py pose starter-run starter-end-run --out starter-w32-256x192.png
    python starter/curves.py detector starter-detector starter-detector-2 --out starter-yolo11n.png

Runs are told by their numbers, 1, 2, ..., as losses of different augmentation do not compare.
"""

import argparse
import csv
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from hrnet_cli.charts import Axis, Chart, Series
from hrnet_cli.curves import draw_charts
from hrnet_cli.images import write_image


@dataclass(frozen=True)
class Run:
    """What one training measured.

    Attributes:
        seen: People or photos it saw in all.
        losses: How many it had seen, and the training loss then.
        scores: Name of a score -> how many it had seen, and the score on the validation photos.
    """

    seen: float
    losses: Sequence[tuple[float, float]]
    scores: dict[str, Sequence[tuple[float, float]]]


def main() -> None:
    """Read the runs and draw."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("kind", choices=("pose", "detector"))
    parser.add_argument("runs", type=Path, nargs="+")
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    read = read_pose if arguments.kind == "pose" else read_detector
    runs = [read(folder) for folder in arguments.runs]
    loss = "weighted heatmap error" if arguments.kind == "pose" else "box loss"
    seen = "people seen" if arguments.kind == "pose" else "photos seen"
    starts = [sum(run.seen for run in runs[:number]) for number in range(len(runs))]
    lines = list(zip(starts, runs, strict=True))
    losses = [
        series(f"run {number}", start, run.losses) for number, (start, run) in enumerate(lines, 1)
    ]
    names = sorted({name for run in runs for name in run.scores})
    scores = [
        series(name, 0, [(start + x, y) for start, run in lines for x, y in run.scores[name]])
        for name in names
    ]
    charts = [
        Chart("Training loss", losses, Axis(seen), Axis(loss)),
        Chart("LSPET val", scores, Axis(seen), Axis("0 to 1", low=0)),
    ]
    write_image(arguments.out, draw_charts(charts))
    print(f"wrote {arguments.out}, {arguments.out.stat().st_size / 1000:.0f} kB")


def series(name: str, start: float, points: Sequence[tuple[float, float]]) -> Series:
    """Return points, moved to where a run began, as a line."""
    return Series(name, [start + x for x, _ in points], [y for _, y in points]).finite()


def read_pose(folder: Path) -> Run:
    """Return a run of `hrnet train`, by epochs."""
    rows = read_rows(folder / "metrics.csv")
    seen = [row["samples"] for row in rows]
    return Run(
        seen[-1],
        [(x, row["loss"]) for x, row in zip(seen, rows, strict=True)],
        {
            name: [(x, row[f"val_{name}"]) for x, row in zip(seen, rows, strict=True)]
            for name in ("AP", "AP50", "PCK")
        },
    )


def read_detector(folder: Path) -> Run:
    """Return a run of train_detector.py: losses by steps, scores by epochs."""
    losses = read_rows(folder / "curve.csv")
    rows = read_rows(folder / "train" / "results.csv")
    # It writes zeros for an epoch after which nothing was measured.
    epochs = [row for row in rows if row["metrics/mAP50(B)"] > 0]
    seen = losses[-1]["photos"]
    # ultralytics notes the time of an epoch's end only.
    ends = [_photos_at(losses, row["time"]) for row in epochs]
    return Run(
        seen,
        [(row["photos"], row["box_loss"]) for row in losses],
        {
            "AP50": [(x, row["metrics/mAP50(B)"]) for x, row in zip(ends, epochs, strict=True)],
            "AP": [(x, row["metrics/mAP50-95(B)"]) for x, row in zip(ends, epochs, strict=True)],
        },
    )


def read_rows(path: Path) -> list[dict[str, float]]:
    """Return the rows of a file of numbers; empty cells are NaN."""
    with path.open() as file:
        return [
            {key.strip(): float(cell) if cell.strip() else math.nan for key, cell in row.items()}
            for row in csv.DictReader(file)
        ]


def _photos_at(losses: Sequence[dict[str, float]], seconds: float) -> float:
    return max((row["photos"] for row in losses if row["seconds"] <= seconds), default=0.0)


if __name__ == "__main__":
    main()
