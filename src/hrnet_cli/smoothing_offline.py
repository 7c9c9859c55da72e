"""Steadier keypoints when the video is known to its end: without any lag, and with gaps filled.

Limbs are put right first, then gaps filled, then keypoints smoothed, so that each builds on what is
right already. Everything is per track and in seconds.

Shape letters: T frames, S sightings of a track, C of them at once, M sightings around one, F those
at new times, E even samples, K keypoints, P coefficients.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from hrnet_cli.errors import UsageError
from hrnet_cli.gap_filling import fill_gaps
from hrnet_cli.smoothing import keypoint_weights
from hrnet_cli.structures import Poses
from hrnet_cli.swaps_offline import repair_swaps
from hrnet_cli.track_paths import Array, TrackPath, paths_of, poses_with

# So many sightings are fitted at once; it bounds the memory.
CHUNK = 256
# A Gaussian's tails end at so many standard deviations.
TAILS = 3.0
# A centred median and a Butterworth filter do not look across a longer gap.
LONGEST_STEP_S = 0.5
# A Butterworth filter takes no more samples a second, whatever the times say; it bounds the memory.
MOST_SAMPLES_HZ = 1000.0
# What cutoff two passes of a second order have over that of each: 0.802 (Winter, p. 69).
TWO_PASSES = (math.sqrt(2) - 1) ** 0.25
# Of how a low-pass begins no more than a millionth is left after so many periods of its cutoff.
PADDING_PERIODS = 3.0
# Smaller eigenvalues of a fit, relative to the largest, are rounding errors.
SINGULAR = 1e-9


@dataclass(frozen=True)
class OfflineSettings:
    """What is done to the keypoints of a whole video.

    Attributes:
        kind: A key of `SMOOTHERS`.
        window_s: ``savgol``: time around a frame to whose keypoints a polynomial is fitted. Where
            it holds no more sightings than a polynomial can follow exactly, nothing changes.
        order: ``savgol``: degree of the polynomial.
        sigma_s: ``gaussian``: standard deviation of the weights in time.
        taps: ``median``: sightings around each of which the middle one is taken, 3 or 5.
        cutoff_hz: ``butterworth``: frequency of which 71% is left. Where there are fewer than two
            sightings for each of its periods, nothing changes.
        max_gap_s: Longest time between two sightings that is filled; 0 fills nothing.
        least_score: Keypoints with a lower score count as not seen when gaps are filled.
        fix_swaps: Whether legs and arms whose left and right are clearly exchanged are put right.

    Raises:
        UsageError: A value is out of range.
    """

    kind: str = "savgol"
    window_s: float = 0.3
    order: int = 2
    sigma_s: float = 0.05
    taps: int = 5
    cutoff_hz: float = 6.0
    max_gap_s: float = 0.0
    least_score: float = 0.2
    fix_swaps: bool = False

    def __post_init__(self) -> None:
        """Check the ranges."""
        if self.kind not in SMOOTHERS:
            known = ", ".join(SMOOTHERS)
            raise UsageError(f"smoothing '{self.kind}' is not known; expected {known}")
        for name, most in (("window_s", 10), ("sigma_s", 10), ("cutoff_hz", 1000)):
            if not 0 < getattr(self, name) <= most:
                raise UsageError(
                    f"{name} is {getattr(self, name)}, expected above 0 and at most {most}"
                )
        for name in ("max_gap_s", "least_score"):
            if not getattr(self, name) >= 0:
                raise UsageError(f"{name} is {getattr(self, name)}, expected at least 0")
        if not 0 <= self.order <= 5:
            raise UsageError(f"order is {self.order}, expected 0 to 5")
        if self.taps not in (3, 5):
            raise UsageError(f"taps is {self.taps}, expected 3 or 5")


def smooth_video(
    times_T: Sequence[float], poses_T: Sequence[Poses], settings: OfflineSettings
) -> list[Poses]:
    """Return the poses of a video, limbs put right, gaps filled and keypoints smoothed.

    `raw_keypoints_NK2` holds the keypoints as they were, NaN for people who were filled in; with
    filling or swap repair `flags_NK` says what was done. People who were filled in come after the
    others of their frame. Keypoints that are no finite numbers stay as they are unless filled.

    Args:
        times_T: Time of each frame in seconds, never falling.
        poses_T: People of each frame, with their track ids.
        settings: What to do.

    Raises:
        UsageError: The people of a frame have no track ids.
    """
    flagged = settings.fix_swaps or settings.max_gap_s > 0
    if settings.kind == "none" and not flagged:
        return list(poses_T)
    times = np.asarray(times_T, np.float64)
    paths = paths_of(times_T, poses_T)
    if settings.fix_swaps and poses_T:
        paths = [repair_swaps(path, poses_T[0].schema) for path in paths]
    if settings.max_gap_s > 0:
        paths = [fill_gaps(path, times, settings.max_gap_s, settings.least_score) for path in paths]
    smoother = SMOOTHERS[settings.kind]
    paths = [replace(path, points_SK2=smoother(path, settings)) for path in paths]
    return poses_with(paths, poses_T, flagged=flagged)


def _savgol(path: TrackPath, settings: OfflineSettings) -> Array:
    """Return keypoints on polynomials fitted around each (Savitzky and Golay, 1964).

    Sightings need not be evenly spaced: each fit is by least squares, weighted by score.
    """
    return _fitted(path, settings.window_s / 2, settings.order, np.ones_like)


def _gaussian(path: TrackPath, settings: OfflineSettings) -> Array:
    """Return keypoints averaged with Gaussian weights in time and by score.

    A straight line is fitted with these weights, not a constant, so that a steady motion is kept
    at the ends and with frames that are unevenly spaced; elsewhere the two are the same.
    """
    return _fitted(path, TAILS * settings.sigma_s, 1, lambda u: np.exp(-np.square(TAILS * u) / 2))


def _fitted(path: TrackPath, reach_s: float, order: int, kernel: Callable[[Array], Array]) -> Array:
    """Return the values at each sighting of polynomials fitted to those within reach of it.

    Args:
        path: The track.
        reach_s: Greatest difference in time.
        order: Degree.
        kernel: Weight at a distance in time of -1 to 1 times the reach.
    """
    times_S = path.times_s_S
    weights_SK = keypoint_weights(path.points_SK2, path.scores_SK)
    # Of two sightings at the same time the second would make a fit singular.
    weights_SK[1:][np.diff(times_S) <= 0] = 0
    points_SK2 = np.nan_to_num(path.points_SK2)
    # Wide enough that rounding of times never loses the sighting at the edge.
    edge_s = reach_s * (1 + 1e-9) + 1e-9
    first_S = np.searchsorted(times_S, times_S - edge_s)
    end_S = np.searchsorted(times_S, times_S + edge_s, side="right")
    fitted = path.points_SK2.copy()
    for start in range(0, len(times_S), CHUNK):
        chunk = slice(start, start + CHUNK)
        around_M = np.arange(int((end_S[chunk] - first_S[chunk]).max()))
        places_CM = first_S[chunk, None] + around_M
        inside_CM = places_CM < end_S[chunk, None]
        places_CM = np.minimum(places_CM, len(times_S) - 1)
        offset_CM = np.where(inside_CM, (times_S[places_CM] - times_S[chunk, None]) / reach_s, 0)
        weights_CMK = (kernel(offset_CM) * inside_CM)[..., None] * weights_SK[places_CM]
        moves_CMK2 = points_SK2[places_CM] - points_SK2[chunk, None]
        fitted[chunk] += _fit(offset_CM, weights_CMK, moves_CMK2, order)
    return fitted


def _fit(offset_CM: Array, weights_CMK: Array, moves_CMK2: Array, order: int) -> Array:
    """Return the values (C, K, 2) at offset 0 of polynomials fitted by weighted least squares."""
    powers_CMP = offset_CM[..., None] ** np.arange(order + 1)
    weighted_CKPM = np.einsum("cmp,cmk->ckpm", powers_CMP, weights_CMK)
    normal_CKPP = weighted_CKPM @ powers_CMP[:, None]
    right_CKP2 = np.einsum("ckpm,cmkd->ckpd", weighted_CKPM, moves_CMK2)
    inverse_CKPP = np.linalg.pinv(normal_CKPP, rcond=SINGULAR, hermitian=True)
    return np.einsum("ckp,ckpd->ckd", inverse_CKPP[..., 0, :], right_CKP2)


def _median(path: TrackPath, settings: OfflineSettings) -> Array:
    """Return the middle of the sightings around each; fewer at the ends, as many on both sides."""
    count = len(path)
    breaks = np.flatnonzero(np.diff(path.times_s_S) > LONGEST_STEP_S) + 1
    starts = np.concatenate([[0], breaks])
    run_S = np.searchsorted(breaks, np.arange(count), side="right")
    ends = np.concatenate([breaks, [count]])
    reach_S = np.minimum(np.arange(count) - starts[run_S], ends[run_S] - 1 - np.arange(count))
    reach_S = np.minimum(reach_S, settings.taps // 2)
    offsets_M = np.arange(settings.taps) - settings.taps // 2
    places_SM = np.clip(np.arange(count)[:, None] + offsets_M, 0, max(count - 1, 0))
    used_SM = np.abs(offsets_M) <= reach_S[:, None]
    around_SMK2 = np.where(used_SM[..., None, None], path.points_SK2[places_SM], np.nan)
    lost_SK1 = np.isnan(path.points_SK2[..., :1])
    # Where the keypoint itself has a place there is at least one number to take the middle of.
    around_SMK2 = np.where(lost_SK1[:, None], 0, around_SMK2)
    return np.where(lost_SK1, np.nan, np.nanmedian(around_SMK2, axis=1))


def _butterworth(path: TrackPath, settings: OfflineSettings) -> Array:
    """Return keypoints after a Butterworth low-pass of fourth order without lag.

    Second order, forward and backward, the cutoff corrected for the two passes (Winter,
    "Biomechanics and Motor Control of Human Movement", 4th ed. 2009, p. 69). All sightings of a
    keypoint count the same, whatever their scores.
    """
    filtered_SK2 = path.points_SK2.copy()
    for k in range(filtered_SK2.shape[1]):
        seen = np.flatnonzero(~np.isnan(path.points_SK2[:, k, 0]))
        breaks = np.flatnonzero(np.diff(path.times_s_S[seen]) > LONGEST_STEP_S) + 1
        for run in np.split(seen, breaks):
            times_s_S, points_S2 = path.times_s_S[run], path.points_SK2[run, k]
            filtered_SK2[run, k] = _low_pass(times_s_S, points_S2, settings.cutoff_hz)
    return filtered_SK2


def _low_pass(times_s_S: Array, points_S2: Array, cutoff_hz: float) -> Array:
    """Return points (S, 2) of one keypoint without what is faster than the cutoff.

    The filter needs an even step: unevenly timed points are read off curves that never leave the
    range of their neighbours, at the usual step, and back. The straight line from the first to the
    last point is put aside, so that rest and steady motion stay exactly what they are; beyond these
    two, which stay where they are, the motion goes on as its own mirror image.

    Args:
        times_s_S: Never falling; of two points at the same time the first one counts.
        points_S2: All finite.
        cutoff_hz: Where 71% of an amplitude is left.
    """
    from scipy.interpolate import PchipInterpolator
    from scipy.signal import butter, sosfiltfilt

    fresh_S = np.diff(times_s_S, prepend=-np.inf) > 0
    times_s_F, points_F2 = times_s_S[fresh_S], points_S2[fresh_S]
    if len(times_s_F) < 3:
        return points_S2
    steps_s, length_s = np.diff(times_s_F), times_s_F[-1] - times_s_F[0]
    usual_s = steps_s[steps_s < 1.5 * np.median(steps_s)].mean()
    steps = max(round(min(np.rint(steps_s / usual_s).sum(), length_s * MOST_SAMPLES_HZ)), 2)
    rate_hz = steps / length_s
    if cutoff_hz >= rate_hz / 2:
        return points_S2
    times_s_E = np.linspace(times_s_F[0], times_s_F[-1], steps + 1)
    points_E2 = PchipInterpolator(times_s_F, points_F2)(times_s_E)
    line_E2 = np.linspace(points_E2[0], points_E2[-1], steps + 1)
    # Winter corrects the tangent, not the frequency: no cutoff reaches half the rate.
    tangent = math.tan(math.pi * cutoff_hz / rate_hz) / TWO_PASSES
    sections = butter(2, 2 / math.pi * math.atan(tangent), output="sos")
    padding = min(math.ceil(PADDING_PERIODS * rate_hz / cutoff_hz), steps)
    moves_E2 = sosfiltfilt(sections, points_E2 - line_E2, axis=0, padlen=padding)
    return PchipInterpolator(times_s_E, line_E2 + moves_E2)(times_s_S)


def _none(path: TrackPath, _settings: OfflineSettings) -> Array:
    """Return the keypoints as they are."""
    return path.points_SK2


SMOOTHERS: dict[str, Callable[[TrackPath, OfflineSettings], Array]] = {
    "savgol": _savgol,
    "gaussian": _gaussian,
    "median": _median,
    "butterworth": _butterworth,
    "none": _none,
}
