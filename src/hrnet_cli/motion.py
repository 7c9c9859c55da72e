"""Where something is and how fast it moves: a Kalman filter of constant velocity in real time.

Coordinates that are measured equally well share one covariance, which keeps a filter of hundreds of
coordinates a handful of array operations. Units are the caller's. Shape letters: D coordinates
that share a covariance; leading axes, written ..., are independent filters.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Motion:
    """Estimated places and velocities at one moment.

    Attributes:
        position_D: float64 (..., D).
        velocity_D: float64 (..., D), units per second.
        covariance_3: float64 (..., 3): variance of a position, its covariance with the velocity,
            variance of the velocity.
    """

    position_D: Array
    velocity_D: Array
    covariance_3: Array


def motion_at_rest(position_D: Array, noise: npt.ArrayLike, speed: npt.ArrayLike) -> Motion:
    """Return the motion of something seen for the first time.

    Args:
        position_D: Where it was seen, (..., D).
        noise: Standard deviation of the sighting, one for each filter (...).
        speed: Standard deviation of the unknown velocity, units per second, (...).
    """
    position = np.asarray(position_D, np.float64)
    filters = position.shape[:-1]
    variance = np.broadcast_to(np.square(noise), filters)
    speed_variance = np.broadcast_to(np.square(speed), filters)
    covariance = np.stack([variance, np.zeros(filters), speed_variance], axis=-1)
    return Motion(position, np.zeros_like(position), covariance)


def predict_motion(motion: Motion, seconds: npt.ArrayLike, restlessness: npt.ArrayLike) -> Motion:
    """Return the motion some seconds later, as uncertain as that makes it.

    Args:
        motion: The motion now.
        seconds: Time that passes, at least 0, one for each filter (...).
        restlessness: Standard deviation by which a velocity changes within a second (white
            acceleration), units per second, (...).
    """
    step, density = np.asarray(seconds, np.float64), np.square(restlessness)
    variance, shared, speed = np.moveaxis(motion.covariance_3, -1, 0)
    covariance = np.stack(
        [
            variance + 2 * step * shared + step**2 * speed + density * step**3 / 3,
            shared + step * speed + density * step**2 / 2,
            speed + density * step,
        ],
        axis=-1,
    )
    position = motion.position_D + step[..., None] * motion.velocity_D
    return Motion(position, motion.velocity_D, covariance)


def correct_motion(motion: Motion, measured_D: Array, noise: npt.ArrayLike) -> Motion:
    """Return the motion after a sighting.

    Args:
        motion: The motion predicted for the moment of the sighting.
        measured_D: Where it was seen, (..., D).
        noise: Standard deviation of the sighting, (...).
    """
    variance, shared, speed = np.moveaxis(motion.covariance_3, -1, 0)
    # At least the smallest number there is, so that a filter without any doubt divides by it.
    total = np.maximum(variance + np.square(noise), np.finfo(np.float64).tiny)
    gain, speed_gain = variance / total, shared / total
    surprise_D = measured_D - motion.position_D
    covariance = np.stack(
        [(1 - gain) * variance, (1 - gain) * shared, speed - speed_gain * shared], axis=-1
    )
    return Motion(
        motion.position_D + gain[..., None] * surprise_D,
        motion.velocity_D + speed_gain[..., None] * surprise_D,
        covariance,
    )
