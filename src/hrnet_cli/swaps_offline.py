"""Left and right put right with the whole video at hand: the reading that moves most evenly.

For each limb group of a track the shortest path through all sightings is looked for, each read as
it is or the other way round. It pays for how far keypoints are from where the two sightings before
lead them, for each change of reading, and a little for the time read the other way round. A run
that is read the other way round then has to be as clear as a causal repair: see `swaps`.

Shape letters: S sightings of a track, K keypoints, P mirror pairs.
"""

from dataclasses import replace

import numpy as np
import numpy.typing as npt

from hrnet_cli.schema import KeypointSchema
from hrnet_cli.structures import SWAPPED
from hrnet_cli.swaps import LEAST_SCORE, LEAST_VOTES, SwapGroup, swap_groups, swap_votes
from hrnet_cli.track_paths import Array, TrackPath

# Prices in sizes of the person: of each change of reading, of a second read the other way round,
# and the most that one pair may cost in one frame.
CHANGE_PRICE = 0.3
SECOND_PRICE = 0.25
MOST_A_PAIR = 0.5
# Across a longer gap nothing leads anywhere.
LONGEST_STEP_S = 0.25


def repair_swaps(path: TrackPath, schema: KeypointSchema) -> TrackPath:
    """Return a track with swapped limbs put right, scores included, and flagged."""
    points_SK2, scores_SK = path.points_SK2.copy(), path.scores_SK.copy()
    flags_SK = path.flags_SK.copy()
    for group in swap_groups(schema):
        left_P, right_P = group.left_P, group.right_P
        for first, end in _clear_runs(path, group):
            run, both = slice(first, end), np.concatenate([left_P, right_P])
            other = np.concatenate([right_P, left_P])
            points_SK2[run, both] = path.points_SK2[run, other]
            scores_SK[run, both] = path.scores_SK[run, other]
            flags_SK[run, both] |= SWAPPED
    return replace(path, points_SK2=points_SK2, scores_SK=scores_SK, flags_SK=flags_SK)


def _clear_runs(path: TrackPath, group: SwapGroup) -> list[tuple[int, int]]:
    """Return the runs (first, end) of sightings that are clearly exchanged."""
    swapped_S = _even_reading(path, group)
    edges = np.flatnonzero(np.diff(swapped_S, prepend=False, append=False)).reshape(-1, 2)
    points_SK2 = path.points_SK2.copy()
    both = np.concatenate([group.left_P, group.right_P])
    other = np.concatenate([group.right_P, group.left_P])
    # All but the run itself in their final reading, so that runs close to each other agree.
    points_SK2[np.ix_(swapped_S, both)] = path.points_SK2[np.ix_(swapped_S, other)]

    def clear(outside: list[int], inside: int) -> bool:
        expected_K2 = _led_to(points_SK2, path.times_s_S, outside, inside)
        if expected_K2 is None:
            return False
        votes, against = swap_votes(
            group,
            expected_K2,
            path.points_SK2[inside],
            path.scores_SK[inside],
            path.person_sizes[inside],
        )
        return votes >= LEAST_VOTES and not against

    return [
        (first, end)
        for first, end in edges.tolist()
        if clear([first - 2, first - 1], first) or clear([end + 1, end], end - 1)
    ]


def _led_to(points_SK2: Array, times_s_S: Array, pair: list[int], place: int) -> Array | None:
    """Return where two sightings lead the keypoints at a third; None where there are none."""
    far, near = pair
    if not 0 <= min(pair) <= max(pair) < len(points_SK2):
        return None
    step_s, next_s = times_s_S[near] - times_s_S[far], times_s_S[place] - times_s_S[near]
    if step_s == 0 or max(abs(step_s), abs(next_s)) > LONGEST_STEP_S:
        return None
    return points_SK2[near] + (points_SK2[near] - points_SK2[far]) * (next_s / step_s)


def _even_reading(path: TrackPath, group: SwapGroup) -> npt.NDArray[np.bool_]:
    """Return which sightings (S,) the evenest reading exchanges."""
    count = len(path)
    prices_S222 = _prices(path, group)
    steps_s_S = np.minimum(np.diff(path.times_s_S, prepend=path.times_s_S[:1]), LONGEST_STEP_S)
    change_22 = CHANGE_PRICE * np.array([[0.0, 1.0], [1.0, 0.0]])
    # total[b, c]: least price of all so far with the last two sightings read as b and c.
    total_22 = np.array([[0.0, CHANGE_PRICE], [CHANGE_PRICE, 0.0]])
    origins = np.zeros((count, 2, 2), np.int64)
    for s in range(2, count):
        time_2 = np.array([0.0, SECOND_PRICE * max(steps_s_S[s], 0.0)])
        ways_222 = total_22[:, :, None] + prices_S222[s] + change_22[None] + time_2
        origins[s] = ways_222.argmin(axis=0)
        total_22 = ways_222.min(axis=0)
    reading = np.zeros(count, bool)
    b, c = np.unravel_index(int(total_22.argmin()), (2, 2))
    for s in range(count - 1, 1, -1):
        reading[s] = bool(c)
        b, c = origins[s, b, c], b
    reading[:2] = [bool(b), bool(c)][-min(count, 2) :] if count else []
    return reading


def _prices(path: TrackPath, group: SwapGroup) -> Array:
    """Return (S, 2, 2, 2): what it costs to read a sighting and the two before it in some way.

    The sum over pairs of how far both partners are from where the two before lead them, in sizes;
    0 where a keypoint is not seen well or a gap is too long.
    """
    prices = np.zeros((len(path), 2, 2, 2))
    if len(path) < 3:
        return prices
    left_P, right_P = group.left_P, group.right_P
    sides = path.points_SK2[:, left_P], path.points_SK2[:, right_P]
    # Complex numbers: position of the left partner and of the right one, for each reading.
    read = [np.stack([sides[a], sides[1 - a]], axis=2) for a in (0, 1)]
    scores_SP = np.minimum(path.scores_SK[:, left_P], path.scores_SK[:, right_P])
    steps_s = np.diff(path.times_s_S)
    with np.errstate(divide="ignore", invalid="ignore"):
        ahead = (steps_s[1:] / steps_s[:-1])[:, None, None, None]
    short = (steps_s[:-1] > 0) & (np.maximum(steps_s[:-1], steps_s[1:]) <= LONGEST_STEP_S)
    known_SP = short[:, None] & np.logical_and.reduce(
        [scores_SP[i : len(path) - 2 + i] >= LEAST_SCORE for i in range(3)]
    )
    for a, b, c in np.ndindex(2, 2, 2):
        led = read[b][1:-1] + (read[b][1:-1] - read[a][:-2]) * ahead
        apart_SP = np.sqrt(np.square(read[c][2:] - led).sum(axis=(2, 3)))
        apart_SP = np.minimum(apart_SP / path.person_sizes[2:, None], MOST_A_PAIR)
        prices[2:, a, b, c] = np.where(known_SP, apart_SP, 0).sum(axis=1)
    return prices
