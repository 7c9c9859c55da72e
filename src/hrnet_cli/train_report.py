"""What a training run looked like: ``report.html`` and ``curves.png`` from the files in its folder.

Reads ``metrics.csv``, ``config.toml``, ``summary.json`` and ``samples/``. A run that was stopped
lacks some of them: what is there is shown, and what is not is said.
"""

import csv
import json
import math
import re
import shlex
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from hrnet_cli import page
from hrnet_cli.charts import Axis, Chart, Series, line_chart, suits_log
from hrnet_cli.curves import draw_charts
from hrnet_cli.errors import InputError
from hrnet_cli.images import encode_image, read_image, write_bytes_atomic, write_image

# Samples of one evaluation that the page shows, their width in the page and their JPEG quality.
MOST_SAMPLES, SAMPLE_WIDTH, SAMPLE_QUALITY = 8, 1080, 82
SCORES = (("val_AP", "AP"), ("val_AP50", "AP50"), ("val_PCK", "PCK"))
MISSING = (
    "Empty places in curves and a dash in tables mean: not measured in that epoch. The learning"
    " rate is that of the head; parts of the network may learn more slowly."
)

Row = Mapping[str, float]


@dataclass(frozen=True)
class TrainRun:
    """The files of a training run, as far as they are there.

    Attributes:
        folder: Where they lie.
        rows: A row of ``metrics.csv`` for each epoch, in order; NaN where nothing was measured.
        config_text: ``config.toml``; empty when it is missing.
        summary: ``summary.json``; empty when it is missing.
        samples: Drawn predictions: the epoch in words, and its pictures.
    """

    folder: Path
    rows: Sequence[Row]
    config_text: str
    summary: Mapping[str, Any]
    samples: Sequence[tuple[str, Sequence[Path]]]


def write_train_report(folder: Path) -> Path:
    """Write ``curves.png`` and ``report.html`` into the folder of a run; return the page's path.

    Raises:
        InputError: The folder holds neither figures nor a configuration of a run.
        OutputError: A file cannot be written.
    """
    run = read_run(folder)
    write_image(folder / "curves.png", draw_charts(run_charts(run.rows)))
    report = folder / "report.html"
    write_bytes_atomic(report, train_page(run).encode("utf-8"))
    return report


def read_run(folder: Path) -> TrainRun:
    """Return the files of a run's folder.

    A last line of ``metrics.csv`` or a ``summary.json`` cut short by a crash is left out.

    Raises:
        InputError: There is neither a ``metrics.csv`` nor a ``config.toml``.
    """
    metrics, config = folder / "metrics.csv", folder / "config.toml"
    if not metrics.is_file() and not config.is_file():
        raise InputError(
            f"'{folder}' holds no training run: neither metrics.csv nor config.toml is there",
            hint="name the folder that hrnet train wrote with --out",
        )
    try:
        rows = _rows(metrics.read_text(encoding="utf-8") if metrics.is_file() else "")
        config_text = config.read_text(encoding="utf-8") if config.is_file() else ""
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"the run in '{folder}' cannot be read: {error}") from error
    return TrainRun(folder, rows, config_text, _summary(folder), _samples(folder / "samples"))


def train_page(run: TrainRun) -> str:
    """Return the report page of a run; unreadable sample pictures are left out."""
    summary = run.summary
    name = str(summary.get("name") or run.folder.resolve().name)
    lead = "Trained on {train}, measured on {val}.".format(**_data_words(run))
    if not summary:
        lead += " The run has not ended, or was stopped: it has no summary yet."
    curves = [line_chart(chart) for chart in run_charts(run.rows)]
    sections = [
        page.tiles(_tiles(run)),
        page.section("Curves", page.charts(*curves)),
        page.section("Predictions on validation photos", *_predictions(run)),
        page.section("Use it, continue it", *_commands(run)),
        page.section("The run", page.facts(_facts(run)), *_config_html(run)),
        page.section("Figures of every epoch", *_table(run.rows)),
    ]
    finished = str(summary.get("finished") or "")
    footer = "Written by hrnet train" + (f", {finished}." if finished else ".")
    return page.build_page(page.Heading("hrnet train", name, lead), sections, footer)


def run_charts(rows: Sequence[Row]) -> list[Chart]:
    """Return the charts of a run; those without any measurement are left out."""
    loss = (("loss", "training"), ("val_loss", "validation"))
    learning, speed, wait = (("lr", ""),), (("samples_per_s", ""),), (("data_wait", ""),)
    charts = [
        _chart(rows, "Loss", loss, Axis("weighted heatmap error")),
        _chart(rows, "Accuracy on validation people", SCORES, Axis("AP and PCK, 0 to 1", low=0)),
        _chart(rows, "Learning rate", learning, Axis("rate")),
        _chart(rows, "Speed", speed, Axis("people per second", low=0)),
        _chart(rows, "Time spent waiting for data", wait, Axis("share, %", low=0, high=100), 100),
    ]
    return [chart for chart in charts if chart.series]


def _rows(text: str) -> list[Row]:
    """Return the readable rows, ordered by epoch; the later of two rows of an epoch counts."""
    rows: dict[float, Row] = {}
    for cells in csv.DictReader(text.splitlines()):
        values = {key: _number(cell) for key, cell in cells.items() if key}
        epoch = values.get("epoch", math.nan)
        is_whole = None not in cells.values()
        if is_whole and math.isfinite(epoch):
            rows[epoch] = values
    return [rows[epoch] for epoch in sorted(rows)]


def _number(cell: Any) -> float:  # noqa: ANN401 - whatever a cell or a JSON value holds
    try:
        return float(cell)
    except (TypeError, ValueError):
        return math.nan


def _summary(folder: Path) -> Mapping[str, Any]:
    try:
        data = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return data if isinstance(data, dict) else {}


def _samples(folder: Path) -> list[tuple[str, list[Path]]]:
    """Return the drawn predictions by evaluation: the first number in a file's name, in order."""
    found: dict[int, list[Path]] = {}
    files = [path for path in folder.glob("*") if path.suffix.lower() in (".jpg", ".png")]
    for path in sorted(files):
        number = re.search(r"\d+", path.stem)
        if number:
            found.setdefault(int(number[0]), []).append(path)
    return [(f"Epoch {epoch}", found[epoch]) for epoch in sorted(found)]


def _chart(
    rows: Sequence[Row],
    title: str,
    columns: Sequence[tuple[str, str]],
    axis: Axis,
    factor: float = 1.0,
) -> Chart:
    series: list[Series] = []
    for key, name in columns:
        values = [factor * row.get(key, math.nan) for row in rows]
        one = Series(name, [row["epoch"] for row in rows], values).finite()
        if one.ys:
            series.append(one)
    values = [y for one in series for y in one.ys]
    if axis.low is None and suits_log(values):
        axis = Axis(f"{axis.label}, log scale", log=True)
    return Chart(title, series, Axis("epoch", whole=True), axis)


def _measured(rows: Sequence[Row], key: str) -> list[tuple[float, float]]:
    """Return (epoch, value) of the epochs that measured something."""
    pairs = [(row["epoch"], row.get(key, math.nan)) for row in rows]
    return [(epoch, value) for epoch, value in pairs if math.isfinite(value)]


def _tiles(run: TrainRun) -> list[tuple[str, str, str]]:
    """Return the best score, the last one, losses, length: as far as they are known."""
    tiles: list[tuple[str, str, str]] = []
    best = _part(run.summary, "best")
    metric, value, epoch = str(best.get("metric") or ""), best.get("value"), best.get("epoch")
    if not metric:
        metric = next((name for key, name in SCORES if _measured(run.rows, key)), "")
        scores = _measured(run.rows, f"val_{metric}")
        epoch, value = max(scores, key=lambda pair: pair[1], default=(math.nan, math.nan))
    metric = metric.removeprefix("val_")
    if metric and math.isfinite(_number(value)):
        when = f"epoch {_number(epoch):.0f}" if math.isfinite(_number(epoch)) else ""
        tiles.append((f"best {metric}", page.figure(_number(value)), when))
    scores = _measured(run.rows, f"val_{metric}")
    if scores:
        tiles.append((f"last {metric}", page.figure(scores[-1][1]), f"epoch {scores[-1][0]:.0f}"))
    losses = _measured(run.rows, "loss")
    if losses:
        tiles.append(("training loss", f"{losses[-1][1]:.3g}", f"epoch {losses[-1][0]:.0f}"))
    val_losses = _measured(run.rows, "val_loss")
    if val_losses:
        epoch, value = val_losses[-1]
        tiles.append(("validation loss", f"{value:.3g}", f"epoch {epoch:.0f}"))
    if run.rows:
        tiles.append(("epochs", f"{run.rows[-1]['epoch']:.0f}", _planned(run)))
    seconds = _seconds(run)
    if math.isfinite(seconds):
        hardware = str(run.summary.get("hardware") or "")
        tiles.append(("time", page.duration(seconds), hardware))
    return tiles


def _planned(run: TrainRun) -> str:
    epochs = _part(_config(run), "optimizer").get("epochs")
    return f"of {epochs} planned" if epochs else ""


def _seconds(run: TrainRun) -> float:
    """Return how long the run took: as its summary says, or the sum of its epochs."""
    told = _number(run.summary.get("seconds"))
    if math.isfinite(told):
        return told
    spent = [value for _, value in _measured(run.rows, "seconds")]
    return sum(spent) if spent else math.nan


def _config(run: TrainRun) -> Mapping[str, Any]:
    try:
        return tomllib.loads(run.config_text)
    except tomllib.TOMLDecodeError:
        return {}


def _part(table: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    part = table.get(key)
    return part if isinstance(part, dict) else {}


def _data_words(run: TrainRun) -> dict[str, str]:
    told, planned = _part(run.summary, "data"), _part(_config(run), "data")
    train = str(told.get("train") or planned.get("train") or "a data set that is not named")
    return {"train": train, "val": str(told.get("val") or planned.get("val") or "its own val part")}


def _picked(run: TrainRun) -> list[tuple[str, Sequence[Path]]]:
    """Return the first, the middle and the last evaluation that drew samples."""
    if not run.samples:
        return []
    last = len(run.samples) - 1
    return [run.samples[position] for position in sorted({0, last // 2, last})]


def _predictions(run: TrainRun) -> list[str]:
    html = [text for text in (_sample_html(*one) for one in _picked(run)) if text]
    words = (
        "The same people each time. Left: the label, hidden keypoints hollow. Right: the"
        " prediction, keypoints with a score below 0.5 hollow and their limbs dashed."
    )
    return [page.paragraph(words), *html] if html else []


def _sample_html(title: str, paths: Sequence[Path]) -> str:
    pictures: list[str] = []
    for path in paths[:MOST_SAMPLES]:
        try:
            image_HW3, _ = read_image(path)
        except InputError:  # half written when the run was stopped
            continue
        height, width = image_HW3.shape[:2]
        if width > SAMPLE_WIDTH:
            width, height = SAMPLE_WIDTH, max(1, round(height * SAMPLE_WIDTH / width))
            image_HW3 = np.asarray(
                cv2.resize(image_HW3, (width, height), interpolation=cv2.INTER_AREA), np.uint8
            )
        jpeg = encode_image(image_HW3, ".jpg", SAMPLE_QUALITY)
        words = path.name
        pictures.append(page.picture(jpeg, title="", words=words, size_wh=(width, height)))
    if not pictures:
        return ""
    return page.heading(title) + page.pictures(pictures, large=len(pictures) == 1)


def _commands(run: TrainRun) -> list[str]:
    folder = shlex.quote(str(run.folder))
    model = str(run.summary.get("model") or "")
    for name in ("best.safetensors", "last.safetensors"):
        if not model and (run.folder / name).is_file():
            model = str(run.folder / name)
    html: list[str] = []
    if model:
        file = shlex.quote(model)
        html += [
            page.paragraph("Find keypoints in photos, or measure the model:"),
            page.command(
                f"hrnet detect photo.jpg --skeleton --model {file}\n"
                f"hrnet eval {_measured_on(run)} --model {file}"
            ),
        ]
    html += [
        page.paragraph("Go on where it stopped:"),
        page.command(f"hrnet train --resume --out {folder}"),
    ]
    if run.summary.get("command"):
        html += [
            page.paragraph("The command that started it:"),
            page.command(str(run.summary["command"])),
        ]
    return html


def _measured_on(run: TrainRun) -> str:
    """Return the options of hrnet eval for what the run was measured on, or should be."""
    held_out = run.folder / "held-out.json"
    if held_out.is_file():
        return f"--dataset {shlex.quote(str(held_out))}"
    planned = _part(_config(run), "data")
    train, val, folder = (str(planned.get(key) or "") for key in ("train", "val", "folder"))
    # A .json is one part: to measure on that of the training says nothing.
    data = val or ("my-val.json" if train.endswith(".json") else train or "my.json")
    options = ["--dataset", data]
    split = str(planned.get("val_split") or "val")
    if split != "val":
        options += ["--split", split]
    # Photos to measure on that lie beside their own .json are not those in the folder.
    photos = _part(run.summary, "data").get("val_photos")
    beside = data.endswith(".json") and photos and not Path(str(photos)).is_relative_to(folder)
    if folder and not beside:
        options += ["--data", folder]
    return shlex.join(options)


def _facts(run: TrainRun) -> list[tuple[str, str]]:
    summary, config = run.summary, _config(run)
    model, data = _part(config, "model"), _part(summary, "data")
    size = model.get("input_hw")
    network = f"HRNet-W{model['width']}" if "width" in model else ""
    if network and isinstance(size, list) and len(size) == 2:
        network += f", input {size[0]}x{size[1]} (height x width), codec {model.get('codec', '')}"
    memory = max((value for _, value in _measured(run.rows, "memory_mb")), default=0.0)
    samples = _measured(run.rows, "samples")
    versions = _part(summary, "versions")
    return [
        ("network", network),
        ("started from", _told(summary, "start")),
        ("training data", _told(data, "train")),
        ("people in it", _told(data, "people")),
        ("validation data", _told(data, "val")),
        ("data hash (sha256)", _told(data, "sha256")),
        ("people seen", f"{samples[-1][1]:,.0f}" if samples else ""),
        ("photos that could not be read", _told(summary, "unreadable")),
        ("batch", _told(summary, "batch")),
        ("precision", _told(summary, "precision")),
        ("processes", _told(summary, "processes")),
        ("hardware", _told(summary, "hardware")),
        ("largest device memory", f"{memory:,.0f} MB" if memory else ""),
        ("started", _told(summary, "started")),
        ("finished", _told(summary, "finished")),
        ("versions", ", ".join(f"{name} {version}" for name, version in versions.items())),
        ("weights", _told(summary, "model")),
    ]


def _told(table: Mapping[str, Any], key: str) -> str:
    """Return what a summary says of something; empty where it says nothing."""
    value = table.get(key)
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:,}"
    return "" if value is None else str(value)


def _config_html(run: TrainRun) -> list[str]:
    if not run.config_text:
        return [page.note("The configuration is not known: config.toml is missing.")]
    return [page.details("All settings (config.toml)", page.command(run.config_text.strip()))]


_COLUMNS: tuple[tuple[str, str, str], ...] = (
    ("loss", "loss", ".4g"),
    ("val_loss", "val loss", ".4g"),
    ("val_AP", "AP", ".3f"),
    ("val_AP50", "AP50", ".3f"),
    ("val_PCK", "PCK", ".3f"),
    ("lr", "rate", ".3g"),
    ("samples_per_s", "people/s", ",.1f"),
    ("data_wait", "data wait", ".1%"),
    ("seconds", "seconds", ",.1f"),
)


def _table(rows: Sequence[Row]) -> list[str]:
    if not rows:
        return [page.paragraph("No epoch has ended yet.")]
    columns = [one for one in _COLUMNS if _measured(rows, one[0])]
    body = [
        [f"{row['epoch']:.0f}"] + [_cell(row.get(key, math.nan), form) for key, _, form in columns]
        for row in rows
    ]
    html = page.table(["epoch", *(name for _, name, _ in columns)], body)
    return [page.details("All rows of metrics.csv", html), page.note(MISSING)]


def _cell(value: float, form: str) -> str:
    return format(value, form) if math.isfinite(value) else page.NO_NUMBER
