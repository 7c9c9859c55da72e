"""Whose left and right may have been exchanged by the labellers.

From the right to the left shoulder, hip, eye and ear lead lines that point the same way in the
picture, unless the body is twisted or seen from the side. Where two of them are long and point in
opposite ways, one of the pairs is likely the wrong way round.

Shape letters: N people.
"""

from collections.abc import Iterator
from itertools import combinations

import numpy as np
import numpy.typing as npt

from hrnet_cli.data.names import words_of
from hrnet_cli.data.people import Array, LabelledPeople

# Lines compared, and how long each must be, as a part of the longer side of the person box:
# a shorter one belongs to a body seen from the side, where labels of a pixel's error turn it.
LEAST_PART = {"shoulder": 0.1, "hip": 0.06, "eye": 0.02, "ear": 0.04}
# Cosine of the angle between two lines below which they disagree: more than 120 degrees.
DISAGREE = -0.5


def doubt_sides(people: LabelledPeople) -> npt.NDArray[np.float64]:
    """Return how strongly each person's lines contradict each other, 0 for no doubt.

    It is the mean length of the two lines that contradict each other most, in parts of the longer
    side of the person box, times the cosine between them.
    """
    doubts_N = np.zeros(len(people))
    lines = list(_lines(people))
    for (a_N2, known_a_N), (b_N2, known_b_N) in combinations(lines, 2):
        lengths_N2 = np.stack([np.linalg.norm(a_N2, axis=1), np.linalg.norm(b_N2, axis=1)], axis=1)
        product_N = lengths_N2.prod(axis=1)
        cosine_N = np.divide(
            (a_N2 * b_N2).sum(axis=1), product_N, out=np.ones(len(people)), where=product_N > 0
        )
        wrong_N = known_a_N & known_b_N & (cosine_N < DISAGREE)
        doubts_N = np.maximum(doubts_N, np.where(wrong_N, -cosine_N * lengths_N2.mean(axis=1), 0))
    return doubts_N


def _lines(people: LabelledPeople) -> Iterator[tuple[Array, npt.NDArray[np.bool_]]]:
    """Yield, for each pair to compare, the line from right to left and for whom it is known."""
    scale_N1 = np.maximum(people.boxes_N4[:, 2:].max(axis=1, initial=0, keepdims=True), 1e-9)
    index = people.schema.index
    for left, right in people.schema.flip_pairs:
        # Names of more words, such as eye_inner_left, are of finer keypoints.
        part = next((p for p in LEAST_PART if words_of(left) in ([p, "left"], ["left", p])), None)
        if part is None:
            continue
        a, b = index[left], index[right]
        line_N2 = (people.keypoints_NK2[:, a] - people.keypoints_NK2[:, b]) / scale_N1
        visible_N = (people.visible_NK[:, [a, b]] > 0).all(axis=1)
        yield line_N2, visible_N & (np.linalg.norm(line_N2, axis=1) > LEAST_PART[part])
