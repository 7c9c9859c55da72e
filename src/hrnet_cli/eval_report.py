"""``report.html`` of an evaluation: the numbers, curves and the people that went worst."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from hrnet_cli import page
from hrnet_cli.charts import Axis, Bars, Chart, Series, bar_chart, histogram, line_chart
from hrnet_cli.coco_metrics import OKS_THRESHOLDS_T, RECALLS_R, STATS
from hrnet_cli.data.people import Array, LabelledPeople
from hrnet_cli.errors import InputError
from hrnet_cli.evaluation import EvalColumn, EvalReport, EvalSettings
from hrnet_cli.images import read_image, write_bytes_atomic
from hrnet_cli.person_metrics import MATCH_OKS, norm_words
from hrnet_cli.person_pictures import draw_case, small_jpeg
from hrnet_cli.run_pictures import case_of

WORST = 24
# The curves that are drawn; between them lie seven more OKS thresholds.
CURVE_THRESHOLDS = (0.5, 0.75)
# Rows of one chart of keypoints, and above how many keypoints the charts are folded away.
KEYPOINTS_OF_CHART, MOST_OPEN_KEYPOINTS = 26, 60
# People of each size, as COCO counts them.
SIZES = (("all people", ""), ("medium", "M"), ("large", "L"))
CROWDS = ("easy", "medium", "hard")
KEYPOINT_COLUMNS = (
    "keypoint", "labels", "mean px", "median px", "95% px", "NME", "PCK", "OKS",
)  # fmt: skip
BOXES = {
    "gt": "labelled boxes (gt)",
    "detector": "boxes of a detector",
}
MATCHING = (
    "With labelled boxes a person's pose is that of its own box; with others, poses and people of a"
    f" photo are paired by falling OKS, each once, from {MATCH_OKS:g} up."
)
MEANINGS = (
    ("OKS", "object keypoint similarity of a pose and a label, 0 to 1: how near the keypoints are,"
     " measured in the person's size and in how exactly people label each keypoint"),
    ("AP", "average precision: a pose is right when its OKS reaches a threshold; the mean over the"
     " thresholds 0.50, 0.55, ... 0.95 (COCO keypoint evaluation)"),
    ("AP50, AP75", "the same at the one threshold 0.50 or 0.75"),
    ("APM, APL", "people of medium size (area 32² to 96² pixels) and large ones only"),
    ("AR", "average recall: the part of labelled people that is found, at the same thresholds"),
    ("95% interval", "of AP if other photos of the same kind had been drawn (bootstrap over"
     " photos); it does not cover another training run"),
    ("PCK", "part of the keypoints that lie near their label"),
    ("EPE", "end-point error: distance between a keypoint and its label, in pixels of the photo"),
    ("NME", "normalised mean error: the mean distance as a part of the person's size"),
    (page.NO_NUMBER, "there is nothing to count, where pycocotools prints -1"),
)  # fmt: skip


@dataclass(frozen=True)
class PublishedNumber:
    """What an AP that the authors of a model report was measured on.

    Attributes:
        what: In words, such as ``AP COCO val2017, detector boxes (human AP 56.4), flip test``.
        source: Where it stands.
        photos: Number of photos it counts; None when that is not known.
    """

    what: str
    source: str
    photos: int | None = None


@dataclass(frozen=True)
class EvalContext:
    """What a report of an evaluation says beside the numbers.

    Attributes:
        command: The command that was run.
        date: When.
        published: What the published AP of a column counts, by the column's ``boxes``.
        facts: Name and value of further facts: model file, its hash, hardware, seconds.
        versions: Version of each package that decides the numbers.
    """

    command: str
    date: str
    published: Mapping[str, PublishedNumber] = field(default_factory=dict)
    facts: Sequence[tuple[str, str]] = ()
    versions: Mapping[str, str] = field(default_factory=dict)


def write_eval_report(
    path: Path, report: EvalReport, people: LabelledPeople, context: EvalContext
) -> None:
    """Write the page of an evaluation, whole or not at all; an existing file is replaced.

    Args:
        path: The page's file.
        report: The numbers.
        people: The data set they were counted on; its photos are read once more for pictures.
        context: What else the page says.

    Raises:
        OutputError: The file cannot be written.
    """
    write_bytes_atomic(path, eval_page(report, people, context).encode("utf-8"))


def eval_page(report: EvalReport, people: LabelledPeople, context: EvalContext) -> str:
    """Return the page of an evaluation; arguments as for `write_eval_report`."""
    columns = report.columns
    photos = max((len(column.predictions.photos_P) for column in columns), default=0)
    counted = max((len(column.people) for column in columns), default=0)
    lead = f"{photos:,} photos, {counted:,} labelled people, {context.date}"
    sections = [
        page.tiles([_tile(column) for column in columns]),
        page.section("Summary", *_summary(report, context)),
        page.section("Precision and recall", *_precision_recall(columns)),
        page.section("By size", *_sizes(columns)),
        page.section("By keypoint", *_keypoints(report)),
        page.section("Scores", *_scores(columns)),
        page.section("The worst people", *_worst(columns, people)),
        page.section("How this was measured", *_settings(report, context)),
    ]
    head = page.Heading("hrnet eval", f"{report.model} on {report.dataset}", lead)
    return page.build_page(head, sections, f"Written by hrnet eval, {context.date}.")


def compare(report: EvalReport, column: EvalColumn, published: PublishedNumber | None) -> str:
    """Return a plain sentence on whether a column's AP compares with the published one."""
    name = _name(column)
    if published is None or column.published_AP is None:
        return f"{name}: no number was published for this model with such boxes."
    reasons: list[str] = []
    photos = len(column.predictions.photos_P)
    if published.photos is not None and photos != published.photos:
        reasons.append(f"it counts {published.photos:,} photos, this run {photos:,}")
    if not report.flip_test:
        reasons.append("it was measured with the flip test, this run without")
    official = EvalSettings()
    for key in ("nms", "oks_threshold", "keypoint_threshold"):
        ours, theirs = getattr(report.settings, key), getattr(official, key)
        if ours != theirs:
            reasons.append(f"its {key} is {theirs}, that of this run {ours}")
    start = (
        f"{name}: the published {column.published_AP:.3f} ({published.what}; {published.source})"
    )
    if reasons:
        return f"{start} is not comparable: {' and '.join(reasons)}."
    if column.AP_interval is None or column.stats["AP"] is None:
        return f"{start} was measured in the same way."
    low, high = column.AP_interval
    where = "inside" if low <= column.published_AP <= high else "outside"
    difference = column.stats["AP"] - column.published_AP
    return (
        f"{start} was measured in the same way: the difference is {difference:+.3f}, and it lies"
        f" {where} the 95% interval."
    )


def keypoint_rows(
    column: EvalColumn, figure: Callable[[float, int], str] = page.figure
) -> list[list[str]]:
    """Return the cells of a table of keypoints below `KEYPOINT_COLUMNS`, all of them last.

    Args:
        column: The numbers.
        figure: Returns a number, which may be not-a-number, with so many decimals.
    """
    names = (*column.schema.keypoints, "all")
    errors = (*column.keypoint_errors, column.errors)
    pck, similarity = (
        [*values_K.tolist(), _mean(values_K)]
        for values_K in (column.keypoint_pck_K, column.keypoint_oks_K)
    )
    return [
        [name, str(one.count)]
        + [figure(value, 1) for value in (one.mean_px, one.median_px, one.p95_px)]
        + [figure(value, 3) for value in (one.nme, near, oks)]
        for name, one, near, oks in zip(names, errors, pck, similarity, strict=True)
    ]


def _mean(values_K: Array) -> float:
    there_K = ~np.isnan(values_K)
    return float(values_K[there_K].mean()) if there_K.any() else float("nan")


def _name(column: EvalColumn) -> str:
    return BOXES.get(column.boxes, column.boxes)


def _tile(column: EvalColumn) -> tuple[str, str, str]:
    interval = _interval(column)
    words = f"95% interval {interval}" if column.AP_interval else "no interval"
    return f"AP, {_name(column)}", page.figure(column.stats.get("AP")), words


def _interval(column: EvalColumn) -> str:
    if column.AP_interval is None:
        return page.NO_NUMBER
    return f"{column.AP_interval[0]:.3f} to {column.AP_interval[1]:.3f}"


def _summary(report: EvalReport, context: EvalContext) -> list[str]:
    columns = report.columns
    if not columns:
        return [page.paragraph("Nothing was evaluated.")]
    extra = dict.fromkeys(key for column in columns for key in column.stats if key not in STATS)
    rows = [
        [name, *(page.figure(column.stats.get(name)) for column in columns)]
        for name in (*STATS, *extra)
    ]
    rows.insert(1, ["95% interval of AP", *(_interval(column) for column in columns)])
    rows.insert(2, ["published AP", *(page.figure(column.published_AP) for column in columns)])
    counts = _count_rows(columns)
    missing = {f"{name}: {why}." for column in columns for name, why in column.missing.items()}
    published = context.published
    return [
        page.table(
            ["", *(_name(column) for column in columns)],
            rows + counts,
            strong=(0,),
            breaks=(3, len(rows)),
        ),
        *(page.note(compare(report, column, published.get(column.boxes))) for column in columns),
        *(page.note(text) for text in sorted(missing)),
        page.details("What these words mean", page.facts(MEANINGS)),
    ]


def _count_rows(columns: Sequence[EvalColumn]) -> list[list[str]]:
    def row(name: str, values: Sequence[float | None], decimals: int = 0) -> list[str]:
        return [name, *(page.figure(value, decimals) for value in values)]

    return [
        row("photos", [len(c.predictions.photos_P) for c in columns]),
        row("photos that could not be read", [len(c.predictions.unreadable) for c in columns]),
        row("labelled people", [len(c.people) for c in columns]),
        row("of them without a pose", [int((c.people.pose_C < 0).sum()) for c in columns]),
        row("poses", [len(c.predictions) for c in columns]),
        row("poses after OKS-NMS", [len(c.kept_M) for c in columns]),
        row("milliseconds for a person", [c.ms_per_person for c in columns], 1),
    ]


def _precision_recall(columns: Sequence[EvalColumn]) -> list[str]:
    figures = [_curve(column) for column in columns]
    words = (
        "Poses sorted by score: how many of those so far are right (precision) against how many of"
        " the labelled people have been found (recall). The area below a line is its AP."
    )
    return [page.paragraph(words), page.charts(*figures)] if figures else []


def _curve(column: EvalColumn) -> str:
    # pycocotools marks what does not exist by -1.
    precision_TR = np.where(column.numbers.precision_TR < 0, np.nan, column.numbers.precision_TR)
    recalls = RECALLS_R.tolist()
    series: list[Series] = []
    for threshold in CURVE_THRESHOLDS:
        for own_R in precision_TR[np.isclose(OKS_THRESHOLDS_T, threshold)]:
            name = f"OKS {threshold:.2f}: AP {page.figure(float(own_R.mean()))}"
            series.append(Series(name, recalls, own_R.tolist()))
    if len(precision_TR):
        mean_R = precision_TR.mean(axis=0)
        name = f"mean of 0.50 to 0.95: AP {page.figure(float(mean_R.mean()))}"
        series.append(Series(name, recalls, mean_R.tolist()))
    return line_chart(Chart(_name(column), series, Axis("recall", 0, 1), Axis("precision", 0, 1)))


def _sizes(columns: Sequence[EvalColumn]) -> list[str]:
    def chart(title: str, start: str, rows: Sequence[tuple[str, str]]) -> str:
        bars = [
            Bars(_name(column), [column.stats.get(start + end) for _, end in rows])
            for column in columns
        ]
        return bar_chart(title, [name for name, _ in rows], bars, axis=Axis(start, 0, 1))

    if not columns:
        return []
    figures = [
        chart("Average precision", "AP", SIZES),
        chart("Average recall", "AR", SIZES),
    ]
    if any("APeasy" in column.stats for column in columns):
        crowds = [(f"{level} photos", level) for level in CROWDS]
        figures.append(chart("Average precision by crowding", "AP", crowds))
    words = (
        "Medium people cover 32² to 96² square pixels, large ones more; smaller ones count to all."
    )
    return [page.paragraph(words), page.charts(*figures)]


def _keypoints(report: EvalReport) -> list[str]:
    columns = report.columns
    if not columns:
        return []
    names, settings = columns[0].schema.keypoints, report.settings
    near = f"{settings.pck_threshold:g} of {norm_words(columns[0].schema, settings.norm)}"
    figures: list[str] = []
    for start in range(0, len(names), KEYPOINTS_OF_CHART):
        part = slice(start, start + KEYPOINTS_OF_CHART)
        for title, values in (
            ("Mean OKS", [column.keypoint_oks_K for column in columns]),
            ("PCK", [column.keypoint_pck_K for column in columns]),
        ):
            bars = [
                Bars(_name(column), values_K[part].tolist())
                for column, values_K in zip(columns, values, strict=True)
            ]
            figures.append(bar_chart(title, names[part], bars, axis=Axis(title, 0, 1)))
    words = (
        "Over labelled keypoints of people that have a pose. PCK: the part closer to its label than"
        f" {near}; NME: the mean distance in that unit. How exactly a keypoint can be labelled is"
        " part of OKS and of nothing else. px: the distance in pixels of the photo, 95% of them are"
        f" below the third figure. {MATCHING}"
    )
    tables: list[str] = []
    for column in columns:
        rows = keypoint_rows(column)
        tables.append(page.heading(f"Distances with {_name(column)}"))
        tables.append(page.table(KEYPOINT_COLUMNS, rows, strong=(len(rows) - 1,)))
    content = page.charts(*figures) + "".join(tables)
    if len(names) > MOST_OPEN_KEYPOINTS:
        content = page.details(f"Show all {len(names)} keypoints", content)
    return [page.paragraph(words), content]


def _scores(columns: Sequence[EvalColumn]) -> list[str]:
    if not columns:
        return []
    people = histogram(
        "OKS of labelled people",
        [(_name(column), column.people.oks_C.tolist()) for column in columns],
        axis=Axis("OKS, 0 without a pose", 0, 1),
    )
    return [page.charts(people, *(_score_chart(column) for column in columns))]


def _score_chart(column: EvalColumn) -> str:
    matches = column.numbers.matches
    if matches is None:
        groups, note = [("poses", column.results.scores_M.tolist())], ""
    else:
        groups = [
            (name, matches.scores_M[which_TM[0]].tolist())
            for name, which_TM in (("right", matches.right_TM), ("wrong", matches.wrong_TM))
        ]
        note = "Right: OKS of at least 0.50 with a person of its own."
    return histogram(
        f"Scores of poses, {_name(column)}",
        groups,
        axis=Axis("person score", 0, 1),
        counted="poses",
        note=note,
    )


def _worst(columns: Sequence[EvalColumn], people: LabelledPeople) -> list[str]:
    html: list[str] = []
    for number, column in enumerate(columns):
        pictures = [_person(column, people, int(at)) for at in column.people.worst(WORST)]
        content = page.pictures(pictures) or page.paragraph("There is no labelled person.")
        if number:
            html.append(page.details(f"With {_name(column)}", content))
        else:
            html += [page.heading(f"With {_name(column)}"), content]
    words = (
        f"The {WORST} people with the lowest OKS, worst first. Left: the label, hidden keypoints"
        " hollow. Right: the prediction of the same keypoints, those with a score below 0.5 hollow"
        " and their limbs dashed."
    )
    return [page.paragraph(words), *html] if html else []


def _person(column: EvalColumn, people: LabelledPeople, at: int) -> str:
    scored = column.people
    person = int(scored.person_C[at])
    file = people.photos[int(people.photo_of_N[person])]
    has_pose = scored.pose_C[at] >= 0
    title = f"OKS {scored.oks_C[at]:.3f}"
    width, height = people.boxes_N4[person, 2:].tolist()
    words = f"{file}, person {people.ids_N[person]}, box {width:.0f}x{height:.0f} pixels"
    words += "" if has_pose else ", no pose"
    case = case_of(people, scored, int(at))
    try:
        path = people.photo_path(int(people.photo_of_N[person]))
        image_HW3, _ = read_image(path, apply_orientation=False)
    except InputError as error:
        return page.note(f"{title}: {error.message}")
    drawn_HW3 = draw_case(image_HW3, case)
    size_wh = (drawn_HW3.shape[1], drawn_HW3.shape[0])
    return page.picture(small_jpeg(drawn_HW3), title=title, words=words, size_wh=size_wh)


def _settings(report: EvalReport, context: EvalContext) -> list[str]:
    settings = report.settings
    facts = [
        ("model", report.model),
        ("data set", report.dataset),
        ("boxes", ", ".join(_name(column) for column in report.columns)),
        ("flip test", "yes" if report.flip_test else "no"),
        ("person score", "box score times the mean of the keypoint scores above"
         f" {settings.keypoint_threshold:g}"),
        ("NMS", f"{settings.nms}, OKS {settings.oks_threshold:g}"),
        ("area for OKS", "as labelled" if settings.label_areas else "a fixed part of the box"),
        ("evaluator", settings.evaluator),
        ("interval", f"{settings.resamples} draws of photos, seed {settings.seed}"),
        *context.facts,
        ("versions", ", ".join(f"{name} {text}" for name, text in context.versions.items())),
    ]  # fmt: skip
    unreadable = sorted({file for c in report.columns for file in c.predictions.unreadable})
    return [
        page.facts(facts),
        page.paragraph("Run it again:"),
        page.command(context.command),
        page.details(
            f"Photos that could not be read: {len(unreadable)}", page.command("\n".join(unreadable))
        )
        if unreadable
        else "",
    ]
