"""People that were measured, as pictures: samples of a training run, the same people every time."""

from pathlib import Path

import numpy as np

from hrnet_cli.data.people import LabelledPeople
from hrnet_cli.errors import InputError
from hrnet_cli.images import read_image, write_image
from hrnet_cli.person_metrics import PeopleScores
from hrnet_cli.person_pictures import PersonCase, draw_case


def case_of(people: LabelledPeople, scored: PeopleScores, position: int) -> PersonCase:
    """Return a person that was measured, by position in ``scored``, as it can be drawn."""
    person = int(scored.person_C[position])
    found = scored.pose_C[position] >= 0
    return PersonCase(
        box_xywh=people.boxes_N4[person],
        true_K2=people.keypoints_NK2[person],
        visible_K=people.visible_NK[person],
        predicted_K2=scored.keypoints_CK2[position] if found else None,
        scores_K=scored.scores_CK[position] if found else None,
        schema=people.schema,
    )


def write_samples(
    folder: Path, epoch: int, people: LabelledPeople, scored: PeopleScores, count: int
) -> None:
    """Write pictures of some people, as labelled and as predicted.

    Args:
        folder: Where to; files are called ``epoch-0010-01.jpg``.
        epoch: From 1.
        people: The labels.
        scored: The people that were measured.
        count: How many to draw, spread over all of them.
    """
    chosen = np.linspace(0, len(scored) - 1, min(count, len(scored))).astype(int)
    for number, position in enumerate(chosen.tolist(), 1):
        person = int(scored.person_C[position])
        case = case_of(people, scored, position)
        photo = people.photo_path(int(people.photo_of_N[person]))
        try:
            image_HW3, _ = read_image(photo, apply_orientation=False)
        except InputError:
            continue  # Counted where it was measured.
        write_image(folder / f"epoch-{epoch:04d}-{number:02d}.jpg", draw_case(image_HW3, case))
