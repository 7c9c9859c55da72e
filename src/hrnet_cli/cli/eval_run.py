"""What ``hrnet eval`` does: data, boxes, model, poses, numbers, files."""

import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from hrnet_cli.cli import console
from hrnet_cli.cli.eval_numbers import (
    BOX_AREA_SCHEMAS,
    LabelExtras,
    further_numbers,
    number_words,
    published_number,
    read_extras,
)
from hrnet_cli.cli.eval_options import (
    GT,
    PEOPLE,
    REPORT,
    BoxesWanted,
    EvalOptions,
    check_options,
)
from hrnet_cli.cli.eval_progress import photo_bar, transfer_bar
from hrnet_cli.cli.eval_table import Evaluation, print_evaluation, published_elsewhere
from hrnet_cli.cli.model_files import find_detector, open_estimator
from hrnet_cli.errors import ExitCode, InputError, OutputError, WeightsError
from hrnet_cli.redaction import shown_command

if TYPE_CHECKING:
    from hrnet_cli.config import WeightsEntry
    from hrnet_cli.data.people import LabelledPeople
    from hrnet_cli.estimator import PoseEstimator
    from hrnet_cli.evaluation import EvalColumn, EvalReport, EvalSettings
    from hrnet_cli.predictions import BoxSource


@dataclass(frozen=True)
class _Source:
    """One source of boxes that can be had.

    Attributes:
        wanted: What was asked for.
        title: What it is, in words: ``labels``, the detector's name, or the file.
        open: Returns what `predictions.predict` takes.
    """

    wanted: BoxesWanted
    title: str
    open: "Callable[[], BoxSource]"


@dataclass
class _Problems:
    """Photos that cannot be used, each said once."""

    strict: bool
    errors: dict[str, str] = field(default_factory=dict[str, str])

    def __call__(self, file: str, error: InputError) -> None:
        if self.strict:
            raise error
        if file not in self.errors:
            console.say_error(error.message, error.hint)
        self.errors[file] = error.message


@dataclass(frozen=True)
class _Model:
    """The model that is measured.

    Attributes:
        estimator: It at work.
        path: Its file.
        sha256: The file's hash.
        entry: What weights.toml says of the file, None for another one.
    """

    estimator: "PoseEstimator"
    path: Path
    sha256: str
    entry: "WeightsEntry | None"


def run(options: EvalOptions) -> None:
    """Measure, print and write.

    Raises:
        HrnetError: The run as a whole cannot be done; photos that cannot be used are reported
            instead, have nobody found in them, and end the run with exit code 3.
    """
    check_options(options)
    _refuse_existing(options)
    if options.download:
        _download(options)
    started = time.perf_counter()
    people = _open_people(options)
    extras = read_extras(options.dataset, options.split, options.data, people)
    sources, left_out = _find_sources(options, people)
    model = _open_model(options)
    _make_folder(options.out)
    problems = _Problems(options.strict)
    columns: list[EvalColumn] = []
    for source in sources:
        columns.append(_measure(options, people, extras, model, source, problems))
        _write_results(options.out / source.wanted.results_name, columns[-1])
    names = [*(source.wanted.results_name for source in sources), REPORT]
    evaluation = Evaluation(
        report=_report(options, people, model, columns),
        sources={source.wanted.name: source.title for source in sources},
        published={
            source.wanted.name: number
            for source in sources
            if (number := published_number(model.entry, people.name, source.wanted.path))
        },
        left_out=left_out,
        split=options.split,
        subset=_subset(options, people),
        model_file=model.path,
        model_sha256=model.sha256,
        runtime=model.estimator.runtime.name,
        precision=model.estimator.precision,
        entry=model.entry,
        unusable=problems.errors,
        written=tuple(str(options.out / name) for name in names),
        seconds=time.perf_counter() - started,
    )
    try:
        _write_page(options, people, evaluation)
    except OutputError:
        # What took hours to compute is said all the same.
        evaluation = replace(evaluation, written=evaluation.written[:-1])
        _print(options, evaluation)
        raise
    _print(options, evaluation)
    if problems.errors:
        raise typer.Exit(ExitCode.INPUT)


def _print(options: EvalOptions, evaluation: Evaluation) -> None:
    print_evaluation(
        evaluation,
        json=options.json,
        per_keypoint=options.per_keypoint,
        quiet=options.quiet,
    )


def _refuse_existing(options: EvalOptions) -> None:
    names = [*(source.results_name for source in options.wanted), REPORT]
    existing = [options.out / name for name in names if (options.out / name).exists()]
    if existing and not options.overwrite:
        others = f" and {len(existing) - 1} more" if len(existing) > 1 else ""
        raise OutputError(
            f"'{existing[0]}'{others} would be overwritten",
            hint="add --overwrite to replace, or name another folder with --out",
        )


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(
            f"cannot make the folder '{folder}': {error.strerror or error}",
            hint="name another one with --out",
        ) from error


def _download(options: EvalOptions) -> None:
    from hrnet_cli.data.fetching import fetch_val2017
    from hrnet_cli.data.opening import LAYOUTS

    with transfer_bar(quiet=options.quiet) as on_progress:
        fetch_val2017(
            options.data or Path(LAYOUTS["coco"].folder),
            on_step=_ignore if options.quiet else console.say,
            on_progress=on_progress,
        )


def _open_people(options: EvalOptions) -> "LabelledPeople":
    from hrnet_cli.data import open_dataset
    from hrnet_cli.data.names import describe_schema
    from hrnet_cli.person_metrics import norm_ends

    notes: list[str] = []
    people = open_dataset(
        options.dataset, split=options.split, folder=options.data, on_note=notes.append
    )
    norm_ends(people.schema, options.norm)  # Refuses a wrong name before and not after hours.
    if not options.quiet:
        # What is taken for the keypoints is news only where the user brought them.
        known = describe_schema(people) if options.dataset in PEOPLE else ()
        for line in notes:
            if line not in known:
                console.say(line)
        console.say(f"{people.name}: {len(people)} people in {len(people.photos)} photos")
    return people


def _find_sources(
    options: EvalOptions, people: "LabelledPeople"
) -> tuple[list[_Source], dict[str, str]]:
    """Return the sources of boxes, and why a column that nobody asked for by name is missing.

    Files are read and the detector is found first: a misspelt one is not found out after hours.
    """
    sources: list[_Source] = []
    left_out: dict[str, str] = {}
    for wanted in options.wanted:
        if wanted.path is not None:
            sources.append(_file_source(options, people, wanted, wanted.path))
        elif wanted.name == GT:
            sources.append(_Source(wanted, "labels", lambda: None))
        else:
            try:
                sources.append(_detector_source(options, wanted))
            except WeightsError as error:
                if not options.detector_is_optional:
                    raise
                left_out[wanted.name] = error.message
                console.say_warning(f"no column with boxes of a detector: {error.message}")
    return sources, left_out


def _file_source(
    options: EvalOptions, people: "LabelledPeople", wanted: BoxesWanted, path: Path
) -> _Source:
    from hrnet_cli.predictions import read_boxes

    boxes = read_boxes(path, people, options.class_name, console.say_warning)
    return _Source(wanted, str(path), lambda: boxes)


def _detector_source(options: EvalOptions, wanted: BoxesWanted) -> _Source:
    from hrnet_cli.detectors import DetectorSettings, open_detector
    from hrnet_cli.device import pick_device
    from hrnet_cli.model_opening import compiled_folder

    name, path, trusted = find_detector(
        options.detector, offline=options.offline, quiet=options.quiet
    )
    settings = DetectorSettings(
        class_name=options.class_name,
        person_threshold=options.person_threshold,
        device=pick_device(options.device),
        threads=options.threads,
        cache=compiled_folder(),
    )
    detector = open_detector(name, path, settings, trusted=trusted, on_warning=console.say_warning)
    return _Source(wanted, name, lambda: detector)


def _open_model(options: EvalOptions) -> _Model:
    from hrnet_cli import weights

    estimator, path = open_estimator(options)
    sha256 = weights.model_sha256(path)
    entries = [entry for entry in weights.identify(sha256) if entry.kind == "pose"]
    # Some entries are one file under two names.
    named = [entry for entry in entries if entry.name == estimator.spec.name]
    return _Model(estimator, path, sha256, next(iter([*named, *entries]), None))


def _measure(
    options: EvalOptions,
    people: "LabelledPeople",
    extras: LabelExtras,
    model: _Model,
    source: _Source,
    problems: _Problems,
) -> "EvalColumn":
    from hrnet_cli.evaluation import score
    from hrnet_cli.predictions import predict

    with photo_bar(f"boxes {source.wanted.name}", quiet=options.quiet) as on_progress:
        predictions = predict(
            model.estimator,
            people,
            source.open(),
            photos=range(_photo_count(options, people)),
            on_progress=on_progress,
            on_problem=problems,
        )
    published = published_number(model.entry, people.name, source.wanted.path)
    column = score(
        people,
        predictions,
        _settings(options, people),
        boxes=source.wanted.name,
        published_ap=model.entry.published_ap if published and model.entry else None,
        crowd_index_P=extras.crowd_index_P,
    )
    further = further_numbers(people, column, extras, options.evaluator)
    missing = {name: "nobody to count" for name, value in further.items() if value is None}
    return replace(
        column, stats=column.stats | further, missing=column.missing | missing | extras.missing
    )


def _settings(options: EvalOptions, people: "LabelledPeople") -> "EvalSettings":
    from hrnet_cli.evaluation import EvalSettings

    return EvalSettings(
        keypoint_threshold=options.keypoint_threshold,
        oks_threshold=options.oks_threshold,
        nms=options.nms,
        label_areas=people.schema.name not in BOX_AREA_SCHEMAS,
        evaluator=options.evaluator,
        resamples=options.resamples,
        seed=options.seed,
        pck_threshold=options.pck,
        norm=options.norm,
    )


def _report(
    options: EvalOptions, people: "LabelledPeople", model: _Model, columns: "list[EvalColumn]"
) -> "EvalReport":
    from hrnet_cli.evaluation import EvalReport

    subset = _subset(options, people)
    part = "" if subset is None else ", first {} of {} photos".format(*subset)
    return EvalReport(
        model.estimator.spec.name,
        f"{people.name}{part}",
        tuple(columns),
        _settings(options, people),
        options.flip_test,
    )


def _photo_count(options: EvalOptions, people: "LabelledPeople") -> int:
    return min(options.photos or len(people.photos), len(people.photos))


def _subset(options: EvalOptions, people: "LabelledPeople") -> tuple[int, int] | None:
    count, total = _photo_count(options, people), len(people.photos)
    return None if count == total else (count, total)


def _write_results(path: Path, column: "EvalColumn") -> None:
    from hrnet_cli.data.coco_results import write_results

    write_results(path, column.results)


def _write_page(options: EvalOptions, people: "LabelledPeople", evaluation: Evaluation) -> None:
    from hrnet_cli.device import pick_device
    from hrnet_cli.eval_report import EvalContext, write_eval_report
    from hrnet_cli.run_folder import hardware, versions

    words = number_words(people.schema, evaluation.report.settings)
    facts = [
        ("model file", f"{evaluation.model_file}, sha256 {evaluation.model_sha256}"),
        *((f"boxes {name}", title) for name, title in evaluation.sources.items()),
        *((f"no boxes {name}", why) for name, why in evaluation.left_out.items()),
        ("detector", f"class {options.class_name}, scores from {options.person_threshold:g}"),
        ("computed on", hardware(pick_device(options.device))),
        ("computed by", f"{evaluation.runtime}, {evaluation.precision}"),
        ("batch size", str(options.batch_size)),
        ("seconds", f"{evaluation.seconds:.1f}"),
        ("published elsewhere", published_elsewhere(evaluation.entry)),
        *words.items(),
    ]
    shown = {"detector": "detector" in evaluation.sources}
    shown |= {"published elsewhere": bool(published_elsewhere(evaluation.entry))}
    stats = {name for column in evaluation.report.columns for name in column.stats}
    shown |= {name: name in stats for name in words}
    context = EvalContext(
        command=shown_command(sys.argv[1:]),
        date=f"{datetime.now(UTC):%Y-%m-%d}",
        published=evaluation.published,
        facts=[fact for fact in facts if shown.get(fact[0], True)],
        versions=versions(),
    )
    write_eval_report(options.out / REPORT, evaluation.report, people, context)


def _ignore(_line: str) -> None:
    """Take a note and say nothing."""
