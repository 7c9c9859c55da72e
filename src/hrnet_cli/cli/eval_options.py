"""The options of ``hrnet eval`` as one value, and which of them contradict each other."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from difflib import get_close_matches
from importlib.util import find_spec
from math import inf
from pathlib import Path

from hrnet_cli.cli.options import check_choice, check_runtime, parse_size
from hrnet_cli.errors import InputError, UsageError

GT = "gt"
DETECTOR = "detector"
# Known data sets for which a person detector makes sense unasked; MPII labels only some people.
PEOPLE = ("coco", "coco-wholebody", "crowdpose")
EVALUATORS = ("pycocotools", "faster")
NMS = ("hard", "soft", "none")
NORMS = ("box", "torso", "head")
REPORT = "report.html"


@dataclass(frozen=True)
class BoxesWanted:
    """One source of person boxes, and so one column.

    Attributes:
        name: Of the column: ``gt``, ``detector``, or the file's name without suffix.
        path: The file, None for ``gt`` and ``detector``.
    """

    name: str
    path: Path | None = None

    @property
    def results_name(self) -> str:
        """Return the name of the column's results file."""
        return f"results-{self.name}.json"


@dataclass(frozen=True)
class EvalOptions:
    """The options of ``hrnet eval`` as given; `check_options` refuses contradictions."""

    split: str
    dataset: str
    data: Path | None
    model: str | None
    boxes: tuple[str, ...] | None
    detector: str | None
    class_name: str
    person_threshold: float
    evaluator: str
    nms: str
    keypoint_threshold: float
    oks_threshold: float
    pck: float
    norm: str
    per_keypoint: bool
    flip_test: bool
    batch_size: int
    device: str
    runtime: str
    precision: str | None
    threads: int | None
    input_size: str | None
    codec: str | None
    keypoint_schema: str | None
    resamples: int
    seed: int
    photos: int | None
    download: bool
    out: Path
    overwrite: bool
    strict: bool
    offline: bool
    json: bool
    quiet: bool

    @property
    def wanted(self) -> tuple[BoxesWanted, ...]:
        """Return the sources of boxes in their order, each once and under a name of its own."""
        return tuple(_name_sources(self._words()))

    @property
    def detector_is_optional(self) -> bool:
        """Return whether the run goes on without the detector when it cannot be had."""
        return self.boxes is None and self.detector is None

    def _words(self) -> list[str]:
        if self.boxes is None:
            with_detector = self.dataset in PEOPLE or self.detector is not None
            return [GT, DETECTOR] if with_detector else [GT]
        words: list[str] = []
        for text in self.boxes:
            # A file may have a comma in its name.
            parts = [text] if Path(text).is_file() else text.split(",")
            words += [part.strip() for part in parts if part.strip()]
        return list(dict.fromkeys(words))


def check_options(options: EvalOptions) -> None:
    """Raise UsageError for options that contradict each other, before anything heavy loads.

    Raises:
        InputError: A file of boxes is not there.
    """
    parse_size(options.input_size)
    check_runtime(options.runtime, options.precision)
    check_choice(options.evaluator, "--evaluator", EVALUATORS)
    check_choice(options.nms, "--nms", NMS)
    _check_evaluator(options.evaluator)
    _check_norm(options.norm)
    if not 0 < options.pck < inf:
        raise UsageError(
            f"--pck is {options.pck:g}, expected a number above 0",
            hint="it is a part of --norm, such as 0.1",
        )
    wanted = options.wanted
    if not wanted:
        raise UsageError("--boxes is empty, expected gt, detector or a file of boxes")
    if options.detector is not None and all(w.name != DETECTOR or w.path for w in wanted):
        raise UsageError(
            "--detector is given, but --boxes asks for no detector",
            hint="add it: --boxes gt,detector, or leave --detector out",
        )
    if options.download:
        _check_download(options)
    for source in wanted:
        if source.path is not None and not source.path.is_file():
            raise InputError(
                f"--boxes names '{source.path}', which is no file; expected gt, detector or a file",
                hint=f"paths start from the current folder, {Path.cwd()}",
            )


def _check_evaluator(evaluator: str) -> None:
    """Refuse an evaluator that is not installed before, and not after, hours of computing."""
    if evaluator == "faster" and find_spec("faster_coco_eval") is None:
        raise UsageError(
            "--evaluator faster needs the package faster-coco-eval, which is not installed",
            hint="pip install 'hrnet-cli[faster]', or leave --evaluator out: the numbers are equal",
        )


def _check_norm(norm: str) -> None:
    """Refuse what cannot be a norm; whether the keypoints are there is not known yet."""
    names = [name.strip() for name in norm.split(",")]
    if norm not in NORMS and (len(names) != 2 or not all(names)):
        close = get_close_matches(norm, NORMS, n=1)
        raise UsageError(
            f"--norm is '{norm}', expected {', '.join(NORMS)} or two keypoints as NAME,NAME",
            hint=f"did you mean '{close[0]}'?" if close else "such as left_eye,right_eye",
        )


def _check_download(options: EvalOptions) -> None:
    if options.offline:
        raise UsageError("--download and --offline contradict each other", hint="leave one out")
    if options.dataset != "coco" or options.split not in ("val", "val2017"):
        raise UsageError(
            f"--download fetches val2017 of coco only, not '{options.split}' of"
            f" '{options.dataset}'",
            hint="leave --download out, and bring the data yourself",
        )


def _name_sources(words: list[str]) -> Iterator[BoxesWanted]:
    taken: set[str] = {GT, DETECTOR}
    for word in words:
        if word in (GT, DETECTOR):
            yield BoxesWanted(word)
            continue
        # The name also stands in a file name.
        stem = re.sub(r"[^\w.+-]+", "-", Path(word).stem).strip("-.") or "boxes"
        name, number = stem, 1
        while name in taken:
            number += 1
            name = f"{stem}-{number}"
        taken.add(name)
        yield BoxesWanted(name, Path(word))
