"""How good a network is while it is trained: the scores of `hrnet eval`, from all processes."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from hrnet_cli import metrics
from hrnet_cli.data.people import LabelledPeople
from hrnet_cli.estimator import PoseEstimator
from hrnet_cli.evaluation import EvalSettings, score
from hrnet_cli.person_metrics import PeopleScores, box_pck, span_pck
from hrnet_cli.predictions import Predictions, merge, predict
from hrnet_cli.run_pictures import write_samples
from hrnet_cli.run_state import Run
from hrnet_cli.runtimes.torch_eager import TorchEager
from hrnet_cli.stopping import StopRequest

TORSO = ("left_shoulder", "right_hip")


def measure(
    run: Run,
    val: LabelledPeople,
    samples: Path,
    *,
    mirrors: bool,
    stop: StopRequest,
    on_unreadable: Callable[[Sequence[str]], None] = lambda _names: None,
) -> dict[str, float]:
    """Return AP, AP50 and PCK of a run's network, those that exist; the same on every process.

    Each process looks at its share of the photos, with labelled boxes; the leading one puts the
    predictions together, scores them once, and draws some.

    Args:
        run: The run, at the end of an epoch.
        val: People to measure on.
        samples: Folder of the pictures.
        mirrors: Whether to average with mirrored crops.
        stop: Asked between photos.
        on_unreadable: Called by the leading process with photos that could not be read; their
            people count as not found.

    Raises:
        InputError: A photo cannot be read, and `data.strict` is set.
        KeyboardInterrupt: A stop was asked for.
    """
    estimator = PoseEstimator(
        TorchEager(run.result, run.spec, run.device), run.spec, flip_test=mirrors
    )
    photos = np.arange(len(val.photos))[run.team.rank :: run.team.size]
    mine = predict(
        estimator,
        val,
        photos=photos,
        on_progress=lambda *_: stop.check(),
        on_problem=None if run.config.data.strict else lambda *_: None,  # In what comes back.
    )
    parts = run.team.gather(mine)
    scores = None
    if run.team.leads:
        predictions = merge(parts)
        if predictions.unreadable:
            on_unreadable(predictions.unreadable)
        scores = _scores(run, val, predictions, samples)
    return run.team.share(scores)


def _scores(
    run: Run, val: LabelledPeople, predictions: Predictions, samples: Path
) -> dict[str, float]:
    column = score(val, predictions, EvalSettings(resamples=0))
    scores = {name: column.stats[name] for name in ("AP", "AP50")}
    scores["PCK"] = _pck(val, column.people)
    write_samples(samples, run.progress.epoch + 1, val, column.people, run.config.run.samples)
    return {name: value for name, value in scores.items() if value is not None}


def _pck(val: LabelledPeople, scored: PeopleScores) -> float:
    """Return the mean PCK@0.2: of the torso where anybody's is labelled, else of the box."""
    if all(name in val.schema.index for name in TORSO):
        values_K = span_pck(val, scored, TORSO)
        if not np.isnan(values_K).all():
            return metrics.mean_over_keypoints(values_K)
    return metrics.mean_over_keypoints(box_pck(val, scored))
