"""Photos of a data set that are not learnt from but measured on.

Shape letter: P photos.
"""

import hashlib
from dataclasses import replace
from pathlib import Path

import numpy as np

from hrnet_cli.data.people import LabelledPeople
from hrnet_cli.errors import InputError


def hold_out(
    people: LabelledPeople, share: float, seed: int
) -> tuple[LabelledPeople, LabelledPeople]:
    """Return a data set without some of its photos, and these photos; people stay together.

    Counted and drawn are the photos with people of use (`LabelledPeople.usable`); the others stay.
    At least one is held out and one stays. They are those whose names, hashed with the seed, come
    first: the same whatever order the data set lists them in, and a larger share holds out the same
    ones and more. A photo that is listed twice is one.

    Args:
        people: The data set.
        share: Of its photos to hold out, above 0 and below 1.
        seed: Of the draw.

    Raises:
        InputError: There are fewer than two such photos.
    """
    names = [Path(photo).as_posix() for photo in people.photos]
    labelled = {names[photo] for photo in people.usable().photo_of_N.tolist()}
    if len(labelled) < 2:
        raise InputError(
            f"'{people.name}' has {len(labelled)} photos with labelled people, expected 2 or more"
            f" to hold {100 * share:g}% of them out",
            hint="label more photos, or name a data set to measure on with --val",
        )
    count = min(max(round(share * len(labelled)), 1), len(labelled) - 1)
    drawn = set(sorted(labelled, key=lambda name: _hash(name, seed))[:count])
    held_P = np.array([name in drawn for name in names])
    held = replace(people.pick_photos(held_P), name=f"{100 * share:g}% of {people.name}")
    return people.pick_photos(~held_P), held


def leave_out(people: LabelledPeople, held: LabelledPeople) -> LabelledPeople:
    """Return a data set without the photos of another: the same files, whatever they are called."""
    paths = {held.photo_path(photo).resolve() for photo in range(len(held.photos))}
    others_P = [people.photo_path(i).resolve() not in paths for i in range(len(people.photos))]
    return people.pick_photos(np.array(others_P, dtype=bool))


def _hash(name: str, seed: int) -> bytes:
    return hashlib.sha256(f"{seed}\n{name}".encode("utf-8", "surrogateescape")).digest()
