"""Steadier keypoints while the video runs: each track on its own, from what was seen so far.

Speeds and noise are measured in sizes of the person, the square root of its box's area, so that
settings mean the same at any resolution and distance; times are seconds, so that they mean the same
at any frame rate. What needs the frames after is in `smoothing_offline`.

Shape letters: N people, K keypoints, T taps.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, field, fields, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from hrnet_cli.errors import UsageError
from hrnet_cli.motion import Motion, correct_motion, motion_at_rest, predict_motion
from hrnet_cli.structures import SWAPPED, Poses
from hrnet_cli.swaps import Integers, SwapMemory, find_swaps, mirror_indices, swap_groups
from hrnet_cli.track_paths import track_ids

Array = npt.NDArray[np.float64]
Memory = dict[str, Array]

# A keypoint with this score or a higher one counts in full, one with half of it half as much.
FULL_SCORE = 0.5
LEAST_WEIGHT = 0.1
# The size of a person follows its box within about this time.
SIZE_FOLLOWS_S = 1.0
# One-euro filter: cutoff of the speed that raises the cutoff of the keypoint (CHI 2012, sec. 3).
SPEED_CUTOFF_HZ = 1.0
# No setting makes sense above it, whatever its unit; squares of larger ones overflow.
MOST = 1000
# Kalman filter: speed of a keypoint seen for the first time, sizes per second.
FIRST_SPEED = 1.0


@dataclass(frozen=True)
class SmoothingSettings:
    """How strongly the causal kinds smooth.

    Attributes:
        min_cutoff_hz: ``one-euro``: cutoff frequency of a keypoint at rest; lower is steadier.
        beta: ``one-euro``: rise of the cutoff in Hz for each size of the person a second; higher
            lags less.
        noise: ``kalman``: standard deviation of a keypoint with a full score, sizes.
        restlessness: ``kalman``: by how much a keypoint's speed changes within a second, sizes per
            second; higher lags less.
        taps: ``median``: sightings of which the middle one is taken, 3 or 5. It delays a steady
            motion by one sighting or two, and ignores what lasts as many.
        reset_gap_s: A person unseen for longer starts afresh.
        fix_swaps: Whether legs and arms whose left and right are clearly exchanged are put right,
            before anything else, with any kind.

    Raises:
        UsageError: A value is out of range.
    """

    min_cutoff_hz: float = 1.0
    beta: float = 8.0
    noise: float = 0.03
    restlessness: float = 2.0
    taps: int = 5
    reset_gap_s: float = 0.5
    fix_swaps: bool = False

    def __post_init__(self) -> None:
        """Check the ranges."""
        for name in ("min_cutoff_hz", "noise", "restlessness"):
            if not 0 < getattr(self, name) <= MOST:
                raise UsageError(
                    f"{name} is {getattr(self, name)}, expected above 0 and at most {MOST}"
                )
        for name in ("beta", "reset_gap_s"):
            if not 0 <= getattr(self, name) <= MOST:
                raise UsageError(f"{name} is {getattr(self, name)}, expected 0 to {MOST}")
        if self.taps not in (3, 5):
            raise UsageError(f"taps is {self.taps}, expected 3 or 5")


@dataclass(frozen=True)
class _Sighting:
    """One person in one frame.

    Attributes:
        points_K2: Keypoints, px; may not be finite.
        weights_K: How much each counts, up to 1; 0 for those without a place.
        size: Of the person, px.
        step_s: Time since the last sighting; 0 for the first.
    """

    points_K2: Array
    weights_K: Array
    size: float
    step_s: float


@dataclass(frozen=True)
class _Person:
    """What is remembered of one track.

    Attributes:
        time_s: When it was seen last.
        size: Its slowly followed size, px.
        memory: Arrays of its filter by name.
        swaps: What is known of its limbs, where swaps are put right.
    """

    time_s: float
    size: float
    memory: Memory = field(default_factory=dict)
    swaps: SwapMemory | None = None


def _one_euro(memory: Memory, seen: _Sighting, settings: SmoothingSettings) -> tuple[Array, Memory]:
    """Return places after the one-euro filter (Casiez, Roussel, Vogel, CHI 2012), and memory.

    Both coordinates of a keypoint share the cutoff, so that turning the picture changes nothing.
    """
    place_K2 = memory.get("place_K2", np.full_like(seen.points_K2, np.nan))
    speed_K2 = memory.get("speed_K2", np.zeros_like(seen.points_K2))
    seen_K = seen.weights_K > 0
    known_K = seen_K & ~np.isnan(place_K2[:, 0])
    move_K2 = np.where(known_K[:, None], seen.points_K2 - place_K2, 0)

    def rate(cutoff_hz_K: Array) -> Array:
        turns_K = 2 * np.pi * cutoff_hz_K * seen.weights_K * seen.step_s
        return (turns_K / (1 + turns_K))[:, None]

    speed_now_K2 = move_K2 / max(seen.step_s, 1e-9) - speed_K2
    speed_K2 = speed_K2 + rate(np.where(known_K, SPEED_CUTOFF_HZ, 0.0)) * speed_now_K2
    fast_K = np.hypot(*speed_K2.T) / seen.size
    moved_K2 = place_K2 + rate(settings.min_cutoff_hz + settings.beta * fast_K) * move_K2
    first_K1 = (seen_K & ~known_K)[:, None]
    place_K2 = np.where(first_K1, seen.points_K2, moved_K2)
    return place_K2, {"place_K2": place_K2, "speed_K2": speed_K2}


def _kalman(memory: Memory, seen: _Sighting, settings: SmoothingSettings) -> tuple[Array, Memory]:
    """Return places after a Kalman filter of constant velocity, and memory."""
    names = [motion_field.name for motion_field in fields(Motion)]
    seen_K1 = (seen.weights_K > 0)[:, None]
    noise_K = settings.noise * seen.size / np.maximum(seen.weights_K, LEAST_WEIGHT)
    start = motion_at_rest(seen.points_K2, noise_K, FIRST_SPEED * seen.size)
    if memory:
        last = Motion(**{name: memory[name] for name in names})
        now = predict_motion(last, seen.step_s, settings.restlessness * seen.size)
        corrected = correct_motion(now, seen.points_K2, noise_K)
    else:
        corrected = now = start
    unknown_K1 = np.isnan(now.position_D[:, :1])

    def choose(name: str) -> Array:
        known = np.where(seen_K1, getattr(corrected, name), getattr(now, name))
        return np.where(seen_K1 & unknown_K1, getattr(start, name), known)

    memory = {name: choose(name) for name in names}
    return memory["position_D"], memory


def _median(memory: Memory, seen: _Sighting, settings: SmoothingSettings) -> tuple[Array, Memory]:
    """Return the middle of the last sightings of each keypoint, and memory.

    While there are too few of them, of the largest odd number there is.
    """
    keypoints = len(seen.points_K2)
    recent_TK2 = memory.get("recent_TK2", np.full((settings.taps, keypoints, 2), np.nan))
    seen_1K1 = (seen.weights_K > 0)[None, :, None]
    pushed_TK2 = np.concatenate([recent_TK2[1:], seen.points_K2[None]])
    recent_TK2 = np.where(seen_1K1, pushed_TK2, recent_TK2)
    counts_K = np.sum(~np.isnan(recent_TK2[..., 0]), axis=0)
    odd_K = np.maximum(counts_K - 1 + counts_K % 2, 1)
    ages_T1 = np.arange(settings.taps)[::-1, None]
    used_TK1 = (ages_T1 < odd_K)[..., None]
    ordered_TK2 = np.sort(np.where(used_TK1, recent_TK2, np.nan), axis=0)
    middle_1K1 = (odd_K // 2)[None, :, None]
    return np.take_along_axis(ordered_TK2, middle_1K1, axis=0)[0], {"recent_TK2": recent_TK2}


def _none(_memory: Memory, seen: _Sighting, _settings: SmoothingSettings) -> tuple[Array, Memory]:
    """Return the places as they are."""
    return seen.points_K2, {}


Filter = Callable[[Memory, _Sighting, SmoothingSettings], tuple[Array, Memory]]
FILTERS: dict[str, Filter] = {
    "one-euro": _one_euro,
    "kalman": _kalman,
    "median": _median,
    "none": _none,
}


class Smoother:
    """Smooths the keypoints of a video's tracks, frame after frame.

    Args:
        kind: A key of `FILTERS`.
        settings: How strongly.

    Raises:
        UsageError: The kind is not known.
    """

    def __init__(self, kind: str, settings: SmoothingSettings) -> None:
        if kind not in FILTERS:
            raise UsageError(f"smoothing '{kind}' is not known; expected {', '.join(FILTERS)}")
        self._kind = kind
        self._settings = settings
        self._people: dict[int, _Person] = {}

    def update(self, poses: Poses, time_s: float) -> Poses:
        """Return the poses of the next frame, smoothed; `raw_keypoints_NK2` holds them as given.

        Keypoints that are no finite numbers stay as they are and change nothing. Where swaps are
        put right, scores change places with their keypoints, and `flags_NK` says so.

        Args:
            poses: The people of the frame, with their track ids.
            time_s: Time of the frame in seconds, not before that of the last one.

        Raises:
            UsageError: The poses have no track ids.
        """
        tracks, settings = track_ids(poses), self._settings
        if self._kind == "none" and not settings.fix_swaps:
            return poses
        self._people = {
            track: person
            for track, person in self._people.items()
            if time_s - person.time_s <= settings.reset_gap_s
        }
        keypoints_NK2, scores_NK = poses.keypoints_NK2.copy(), poses.scores_NK.copy()
        swapped_NK = np.zeros(scores_NK.shape, bool)
        for n, track in enumerate(tracks):
            places_K2, indices_K = self._smooth(track, poses, n, time_s)
            keypoints_NK2[n], scores_NK[n] = places_K2, poses.scores_NK[n][indices_K]
            swapped_NK[n] = indices_K != np.arange(len(indices_K))
        raw, flags = poses.raw_keypoints_NK2, poses.flags_NK
        if settings.fix_swaps:
            flags = (0 if flags is None else flags) | np.where(swapped_NK, SWAPPED, 0)
            flags = flags.astype(np.uint8)
        return replace(
            poses,
            keypoints_NK2=keypoints_NK2,
            scores_NK=scores_NK,
            raw_keypoints_NK2=poses.keypoints_NK2 if raw is None else raw,
            flags_NK=flags,
        )

    def _smooth(self, track: int, poses: Poses, n: int, time_s: float) -> tuple[Array, Integers]:
        """Return one person's places, and which keypoint each was read from; remember it."""
        size = _size(poses.boxes.xyxy_N4[n])
        person = self._people.get(track, _Person(time_s, size))
        step_s = max(time_s - person.time_s, 0.0)
        size = person.size + (size - person.size) * (1 - math.exp(-step_s / SIZE_FOLLOWS_S))
        points_K2 = poses.keypoints_NK2[n].astype(np.float64)
        scores_K = poses.scores_NK[n].astype(np.float64)
        sound_K = np.isfinite(points_K2.sum(axis=1)) & np.isfinite(scores_K)
        scores_K = np.where(sound_K, scores_K, 0)
        points_K2[~sound_K] = np.nan
        indices_K, swaps = np.arange(len(points_K2), dtype=np.int64), person.swaps
        if self._settings.fix_swaps:
            groups = swap_groups(poses.schema)
            swaps = swaps or SwapMemory.first(len(points_K2), len(groups))
            times_s = person.time_s, time_s
            swaps, swapped_G = find_swaps(swaps, groups, points_K2, scores_K, size, times_s)
            indices_K = mirror_indices(groups, swapped_G, len(points_K2))
        points_K2, scores_K, sound_K = points_K2[indices_K], scores_K[indices_K], sound_K[indices_K]
        seen = _Sighting(points_K2, keypoint_weights(points_K2, scores_K), size, step_s)
        places_K2, memory = FILTERS[self._kind](person.memory, seen, self._settings)
        self._people[track] = _Person(time_s, size, memory, swaps)
        given_K2 = poses.keypoints_NK2[n][indices_K]
        return np.where(sound_K[:, None], places_K2, given_K2), indices_K

    def state(self) -> dict[str, Any]:
        """Return all that is remembered, exactly, as JSON can hold it."""
        return {str(track): _person_to_json(person) for track, person in self._people.items()}

    @staticmethod
    def from_state(kind: str, settings: SmoothingSettings, state: dict[str, Any]) -> "Smoother":
        """Return a smoother that goes on as the one whose `state` it is."""
        smoother = Smoother(kind, settings)
        smoother._people = {int(track): _person_of_json(held) for track, held in state.items()}
        return smoother


def keypoint_weights(points_K2: Array, scores_K: Array) -> Array:
    """Return how much each keypoint counts: up to 1, and 0 for those without a place.

    Args:
        points_K2: Points (..., K, 2); NaN for those without a place.
        scores_K: Their scores (..., K).
    """
    weights_K = np.clip(scores_K / FULL_SCORE, LEAST_WEIGHT, 1)
    return np.where(np.isnan(points_K2).any(axis=-1), 0, weights_K)


def _size(xyxy_4: npt.NDArray[np.float32]) -> float:
    """Return the size of a person: the square root of its box's area, at least 1 px."""
    x1, y1, x2, y2 = xyxy_4.tolist()
    area = (x2 - x1) * (y2 - y1)
    return math.sqrt(max(area, 1.0)) if math.isfinite(area) else 1.0


def _person_to_json(person: _Person) -> dict[str, Any]:
    held: dict[str, Any] = {"time_s": person.time_s, "size": person.size}
    held["memory"] = {name: _lists(array) for name, array in person.memory.items()}
    if person.swaps is not None:
        held["motion"] = {
            part.name: _lists(getattr(person.swaps.motion, part.name)) for part in fields(Motion)
        }
        held["since_s_G"] = _lists(person.swaps.since_s_G)
    return held


def _person_of_json(held: dict[str, Any]) -> _Person:
    swaps = None
    if "motion" in held:
        motion = Motion(**{name: _array(lists) for name, lists in held["motion"].items()})
        swaps = SwapMemory(motion, _array(held["since_s_G"]))
    memory = {name: _array(lists) for name, lists in held["memory"].items()}
    return _Person(held["time_s"], held["size"], memory, swaps)


def _lists(array: Array) -> list[Any]:
    """Return an array as nested lists, None for what is not a number."""
    lists = array.astype(object)
    lists[np.isnan(array)] = None
    return lists.tolist()


def _array(lists: list[Any]) -> Array:
    """Return the array of what `_lists` returned."""
    return np.array(lists, np.float64)
