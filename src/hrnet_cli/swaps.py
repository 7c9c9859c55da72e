"""Left and right exchanged by mistake: both legs, or both arms, that jump to their partners.

A network that sees a walker from the side takes the left leg for the right one now and then. Such a
swap shows as the pairs of a limb jumping at once to where their mirror partners were expected,
which legs that cross do not: they go on moving as they did. Whatever is not that clear is left
alone.

Shape letters: K keypoints, P mirror pairs, G groups.
"""

from dataclasses import dataclass
from functools import cache

import numpy as np
import numpy.typing as npt

from hrnet_cli.motion import Motion, correct_motion, motion_at_rest, predict_motion
from hrnet_cli.schema import KeypointSchema

Array = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]

# Lengths are in sizes of the person: the square root of its box's area.
# Partners closer than this say nothing: keypoints are found to about half of it.
LEAST_SEPARATION = 0.08
# A pair votes when one reading is so many times nearer to what is expected than the other.
CLEAR_RATIO = 2.0
# Pairs of a group that must vote for a swap, none voting against it.
LEAST_VOTES = 2
# Keypoints with a lower score do not vote.
LEAST_SCORE = 0.1
# A network that holds on to its reading for longer is believed.
LONGEST_SWAP_S = 0.5
# How well a keypoint is found, how fast it may be at first, how its speed changes in a second.
NOISE, FIRST_SPEED, RESTLESSNESS = 0.02, 1.0, 6.0
# While a group looks suspicious, but not clearly swapped, its places are not believed until what is
# expected of them is as doubtful as this, about 0.2 s later.
MOST_DOUBT = 0.3
# Words in the names of keypoints that are swapped as one.
GROUPS = {
    "legs": ("hip", "knee", "ankle", "toe", "heel", "foot", "b_paw"),
    "arms": ("shoulder", "elbow", "wrist", "f_paw"),
}


@dataclass(frozen=True)
class SwapGroup:
    """Mirror pairs that a network confuses together.

    Attributes:
        name: ``legs`` or ``arms``.
        left_P: 0-based keypoints of one side.
        right_P: Their partners.
    """

    name: str
    left_P: Integers
    right_P: Integers


@cache
def swap_groups(schema: KeypointSchema) -> tuple[SwapGroup, ...]:
    """Return the groups of a schema's mirror pairs that can be seen to be swapped.

    Pairs are told by their names; a group of a single pair is none, because one pair alone is too
    little evidence.
    """
    groups = []
    for name, words in GROUPS.items():
        pairs = [
            (schema.index[left], schema.index[right])
            for left, right in schema.flip_pairs
            if any(word in left.lower() for word in words)
        ]
        if len(pairs) >= LEAST_VOTES:
            left_P, right_P = np.array(pairs, np.int64).T
            groups.append(SwapGroup(name, left_P, right_P))
    return tuple(groups)


def mirror_indices(groups: tuple[SwapGroup, ...], swapped_G: Mask, keypoints: int) -> Integers:
    """Return, for each keypoint, which one to take its place from when groups are exchanged."""
    indices_K = np.arange(keypoints, dtype=np.int64)
    for group, swapped in zip(groups, swapped_G, strict=True):
        if swapped:
            indices_K[group.left_P], indices_K[group.right_P] = group.right_P, group.left_P
    return indices_K


def swap_votes(
    group: SwapGroup, expected_K2: Array, seen_K2: Array, scores_K: Array, size: float
) -> tuple[int, int]:
    """Return how many pairs are read the other way round, clearly, and how many as they should be.

    Args:
        group: The pairs.
        expected_K2: Where the keypoints should be, px; NaN where that is not known.
        seen_K2: Where the network sees them.
        scores_K: Their scores, 0 for those without a place.
        size: Size of the person, px.
    """
    left_P, right_P = group.left_P, group.right_P

    def apart(a_P2: Array, b_P2: Array) -> Array:
        return np.hypot(*(a_P2 - b_P2).T)

    as_read_P = apart(seen_K2[left_P], expected_K2[left_P])
    as_read_P = np.hypot(as_read_P, apart(seen_K2[right_P], expected_K2[right_P]))
    other_P = apart(seen_K2[left_P], expected_K2[right_P])
    other_P = np.hypot(other_P, apart(seen_K2[right_P], expected_K2[left_P]))
    least = LEAST_SEPARATION * size
    telling_P = apart(expected_K2[left_P], expected_K2[right_P]) >= least
    telling_P &= apart(seen_K2[left_P], seen_K2[right_P]) >= least
    telling_P &= np.minimum(scores_K[left_P], scores_K[right_P]) >= LEAST_SCORE
    swapped_P = telling_P & (as_read_P > CLEAR_RATIO * other_P)
    kept_P = telling_P & (other_P > CLEAR_RATIO * as_read_P)
    return int(swapped_P.sum()), int(kept_P.sum())


@dataclass(frozen=True)
class SwapMemory:
    """What is known of one person's limbs.

    Attributes:
        motion: Of the keypoints, in px, (K, 2); NaN for those never seen.
        since_s_G: Since when each group has been read the other way round; NaN for those that
            are not.
    """

    motion: Motion
    since_s_G: Array

    @staticmethod
    def first(keypoints: int, groups: int) -> "SwapMemory":
        """Return the memory of a person not seen yet."""
        nothing_K2 = np.full((keypoints, 2), np.nan)
        motion = Motion(nothing_K2, nothing_K2, np.full((keypoints, 3), np.nan))
        return SwapMemory(motion, np.full(groups, np.nan))


def find_swaps(
    memory: SwapMemory,
    groups: tuple[SwapGroup, ...],
    seen_K2: Array,
    scores_K: Array,
    size: float,
    times_s: tuple[float, float],
) -> tuple[SwapMemory, Mask]:
    """Return what to remember, and which groups (G,) the network has exchanged in this frame.

    Args:
        memory: What was remembered of the last frame.
        groups: Those of `swap_groups`.
        seen_K2: Where the network sees the keypoints, px.
        scores_K: Their scores, 0 for those without a place.
        size: Size of the person, px.
        times_s: Times of the last sighting and of this one.
    """
    step_s, now_s = max(times_s[1] - times_s[0], 0.0), times_s[1]
    expected = predict_motion(memory.motion, step_s, RESTLESSNESS * size)
    since_s_G = memory.since_s_G.copy()
    believed_G, ignored_K = np.zeros(len(groups), bool), np.zeros(len(seen_K2), bool)
    for g, group in enumerate(groups):
        votes = swap_votes(group, expected.position_D, seen_K2, scores_K, size)
        swapped, kept = votes[0] >= LEAST_VOTES and not votes[1], votes[1] > votes[0]
        if swapped and np.isnan(since_s_G[g]):
            since_s_G[g] = now_s
        believed_G[g] = now_s - since_s_G[g] > LONGEST_SWAP_S
        if kept or believed_G[g]:
            since_s_G[g] = np.nan
        if votes[0] and not swapped and not kept:
            both_P = np.concatenate([group.left_P, group.right_P])
            doubt_P = np.sqrt(expected.covariance_3[both_P, 0])
            ignored_K[both_P] = doubt_P < MOST_DOUBT * size
    swapped_G = ~np.isnan(since_s_G)
    indices_K = mirror_indices(groups, swapped_G, len(seen_K2))
    counted_K = (scores_K[indices_K] >= LEAST_SCORE) & ~ignored_K
    motion = _seen(expected, seen_K2[indices_K], counted_K, size)
    for group in (group for group, believed in zip(groups, believed_G, strict=True) if believed):
        motion = _forgotten(motion, np.concatenate([group.left_P, group.right_P]))
    return SwapMemory(motion, since_s_G), swapped_G


def _seen(expected: Motion, points_K2: Array, counted_K: Mask, size: float) -> Motion:
    """Return the motion after a frame; keypoints that do not count only move on."""
    counted_K1 = counted_K[:, None]
    first_K1 = counted_K1 & np.isnan(expected.covariance_3[:, :1])
    start = motion_at_rest(points_K2, NOISE * size, FIRST_SPEED * size)
    seen = correct_motion(expected, points_K2, NOISE * size)

    def choose(name: str) -> Array:
        later = np.where(counted_K1, getattr(seen, name), getattr(expected, name))
        return np.where(first_K1, getattr(start, name), later)

    return Motion(choose("position_D"), choose("velocity_D"), choose("covariance_3"))


def _forgotten(motion: Motion, which: Integers) -> Motion:
    """Return the motion without some keypoints: the next frame sees them for the first time."""
    gone_K1 = np.isin(np.arange(len(motion.position_D)), which)[:, None]
    return Motion(
        np.where(gone_K1, np.nan, motion.position_D),
        np.where(gone_K1, np.nan, motion.velocity_D),
        np.where(gone_K1, np.nan, motion.covariance_3),
    )
