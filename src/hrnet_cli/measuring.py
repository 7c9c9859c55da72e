"""How good a network is while it is trained: the scores of `hrnet eval`, from all processes."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch

from hrnet_cli import metrics
from hrnet_cli.data.augment import AugmentConfig
from hrnet_cli.data.crops import CropDataset, build_loader
from hrnet_cli.data.people import LabelledPeople
from hrnet_cli.estimator import PoseEstimator
from hrnet_cli.evaluation import EvalSettings, score
from hrnet_cli.person_metrics import TORSO, PeopleScores, keypoint_pck, span_pck
from hrnet_cli.predictions import Predictions, merge, predict
from hrnet_cli.run_pictures import write_samples
from hrnet_cli.run_state import Run
from hrnet_cli.runtimes.torch_eager import TorchEager
from hrnet_cli.stopping import StopRequest

UNVARIED = AugmentConfig(scale=0.0, rotation_prob=0.0, flip_prob=0.0, half_body_prob=0.0)


def measure(
    run: Run,
    val: LabelledPeople,
    samples: Path,
    *,
    mirrors: bool,
    stop: StopRequest,
    on_unreadable: Callable[[Sequence[str]], None] = lambda _names: None,
) -> dict[str, float]:
    """Return AP, AP50, PCK and loss of a run's network, those that exist, alike on every process.

    Each process looks at its share of the photos, with labelled boxes; the leading one puts the
    predictions together, scores them once, and draws some. The loss is that of the training, of
    crops that are not varied: where it rises while that of the training falls, the network learns
    its people by heart.

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
    losses = run.team.gather(_losses(run, val.usable(), stop))
    scores = None
    if run.team.leads:
        predictions = merge(parts)
        if predictions.unreadable:
            on_unreadable(predictions.unreadable)
        scores = _scores(run, val, predictions, samples)
        total, people = np.sum(losses, axis=0).tolist()
        if people:
            scores["loss"] = total / people
    return run.team.share(scores)


def _losses(run: Run, people: LabelledPeople, stop: StopRequest) -> tuple[float, int]:
    """Return the sum of the losses of this process's share of the people, and how many they are."""
    order_N = np.argsort(people.photo_of_N, kind="stable")  # Neighbours share a decoding.
    mine = np.array_split(order_N, run.team.size)[run.team.rank].tolist()
    each = run.batch // run.team.size
    batches = [[(0, i) for i in mine[start : start + each]] for start in range(0, len(mine), each)]
    data = CropDataset(people, run.data.frame, UNVARIED, seed=0)
    pin = run.device.startswith("cuda")
    total, readable = 0.0, 0
    network = run.result.eval()
    for batch in build_loader(data, batches, workers=run.loader.num_workers, pin=pin):
        stop.check()
        with torch.inference_mode():
            loss = run.loss_of(batch.to(run.device, non_blocking=True), network)
        total += float(loss) * len(batch)
        readable += len(batch) - len(batch.problems)
    return total, readable


def _scores(
    run: Run, val: LabelledPeople, predictions: Predictions, samples: Path
) -> dict[str, float]:
    column = score(val, predictions, EvalSettings(resamples=0))
    scores = {name: column.stats[name] for name in ("AP", "AP50")}
    scores["PCK"] = mean_pck(val, column.people)
    write_samples(samples, run.progress.epoch + 1, val, column.people, run.config.run.samples)
    return {name: value for name, value in scores.items() if value is not None}


def mean_pck(val: LabelledPeople, scored: PeopleScores) -> float:
    """Return the mean PCK@0.2: of the torso where anybody's is labelled, else of the box."""
    if all(name in val.schema.index for name in TORSO):
        values_K = span_pck(val, scored, TORSO)
        if not np.isnan(values_K).all():
            return metrics.mean_over_keypoints(values_K)
    return metrics.mean_over_keypoints(keypoint_pck(val, scored))
