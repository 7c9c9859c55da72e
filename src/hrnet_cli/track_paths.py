"""One person through a whole video: the poses of its frames, turned by track and back.

Shape letters: S sightings of a track in order of time, K keypoints, T frames of the video.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from hrnet_cli.errors import UsageError
from hrnet_cli.structures import Boxes, Poses

Array = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]


@dataclass(frozen=True)
class TrackPath:
    """A track.

    Attributes:
        track: Its identity.
        frames_S: Position of each sighting's frame in the video.
        times_s_S: Their times.
        points_SK2: Keypoints, px; NaN for those without a place.
        scores_SK: Their scores; 0 for those without a place.
        raw_SK2: Keypoints as the network gave them; NaN where it was not asked.
        flags_SK: Bits of what was done to them.
        boxes_S4: Person boxes (x1, y1, x2, y2), px.
        box_scores_S: Detector's confidence.
        person_scores_S: Scores of the person.
    """

    track: int
    frames_S: Integers
    times_s_S: Array
    points_SK2: Array
    scores_SK: Array
    raw_SK2: Array
    flags_SK: npt.NDArray[np.uint8]
    boxes_S4: Array
    box_scores_S: Array
    person_scores_S: Array

    def __len__(self) -> int:
        """Return the number of sightings."""
        return len(self.frames_S)

    @property
    def person_sizes(self) -> Array:
        """Return the size in each sighting (S,), px: the root of the box's area, at least 1."""
        sides_S2 = self.boxes_S4[:, 2:] - self.boxes_S4[:, :2]
        areas_S = np.nan_to_num(sides_S2[:, 0] * sides_S2[:, 1], nan=1.0, posinf=1.0, neginf=1.0)
        return np.sqrt(np.maximum(areas_S, 1.0))


def track_ids(poses: Poses) -> list[int]:
    """Return the identities of the people of a frame.

    Raises:
        UsageError: There are people, and they have none.
    """
    if poses.track_ids_N is not None:
        return poses.track_ids_N.tolist()
    if len(poses):
        raise UsageError("smoothing needs people with track ids, and these have none")
    return []


def paths_of(times_T: Sequence[float], poses_T: Sequence[Poses]) -> list[TrackPath]:
    """Return the tracks of a video by rising identity.

    Args:
        times_T: Time of each frame in seconds, never falling.
        poses_T: People of each frame, with their track ids; at most one of an identity.

    Raises:
        UsageError: The people of a frame have no track ids.
    """
    places: dict[int, list[tuple[int, int]]] = {}
    for frame, poses in enumerate(poses_T):
        for person, track in enumerate(track_ids(poses)):
            places.setdefault(track, []).append((frame, person))
    times = np.asarray(times_T, np.float64)
    return [_path(track, places[track], times, poses_T) for track in sorted(places)]


def _path(
    track: int, places: list[tuple[int, int]], times_T: Array, poses_T: Sequence[Poses]
) -> TrackPath:
    """Return one track from its (frame, person) places."""

    def stacked(get: str) -> Array:
        return np.stack([getattr(poses_T[t], get)[n] for t, n in places]).astype(np.float64)

    points_SK2, scores_SK = stacked("keypoints_NK2"), stacked("scores_NK")
    sound_SK = np.isfinite(points_SK2.sum(axis=2)) & np.isfinite(scores_SK)
    raws, flags = [], []
    for t, n in places:
        poses = poses_T[t]
        raw = poses.keypoints_NK2 if poses.raw_keypoints_NK2 is None else poses.raw_keypoints_NK2
        raws.append(raw[n])
        none = np.zeros(len(poses.schema), np.uint8)
        flags.append(none if poses.flags_NK is None else poses.flags_NK[n])
    frames_S = np.array([t for t, _ in places], np.int64)
    return TrackPath(
        track,
        frames_S,
        times_T[frames_S],
        np.where(sound_SK[..., None], points_SK2, np.nan),
        np.where(sound_SK, scores_SK, 0),
        np.stack(raws).astype(np.float64),
        np.stack(flags).astype(np.uint8),
        np.stack([poses_T[t].boxes.xyxy_N4[n] for t, n in places]).astype(np.float64),
        np.array([poses_T[t].boxes.scores_N[n] for t, n in places], np.float64),
        stacked("person_scores_N"),
    )


def poses_with(
    paths: Sequence[TrackPath], poses_T: Sequence[Poses], *, flagged: bool
) -> list[Poses]:
    """Return the poses of a video with the keypoints that its paths say.

    People keep their order; those that only a path knows come after them, by rising identity.

    Args:
        paths: The tracks, all those of the poses among them.
        poses_T: What `paths_of` was given.
        flagged: Whether the poses say what was done to each keypoint.
    """
    found: list[dict[int, tuple[TrackPath, int]]] = [{} for _ in poses_T]
    for path in paths:
        for place, frame in enumerate(path.frames_S.tolist()):
            found[frame][path.track] = path, place
    return [_frame(poses, here, flagged) for poses, here in zip(poses_T, found, strict=True)]


def _frame(poses: Poses, here: dict[int, tuple[TrackPath, int]], flagged: bool) -> Poses:
    """Return the poses of one frame."""
    known = track_ids(poses)
    tracks = known + [track for track in here if track not in known]
    if not tracks:
        flags = np.zeros((0, len(poses.schema)), np.uint8) if flagged else None
        return replace(poses, raw_keypoints_NK2=poses.keypoints_NK2, flags_NK=flags)

    def stacked(get: str) -> np.ndarray:
        return np.stack([getattr(here[track][0], get)[here[track][1]] for track in tracks])

    points_NK2, scores_NK = stacked("points_SK2"), stacked("scores_SK")
    before = len(known)
    # A keypoint without a place stays exactly what it was.
    lost_NK = np.isnan(points_NK2[:before, :, 0])
    points_NK2[:before][lost_NK] = poses.keypoints_NK2[lost_NK]
    scores_NK[:before][lost_NK] = poses.scores_NK[lost_NK]
    return Poses(
        points_NK2,
        scores_NK,
        stacked("person_scores_S"),
        Boxes(stacked("boxes_S4"), stacked("box_scores_S")),
        poses.schema,
        track_ids_N=np.array(tracks, np.int64),
        heatmaps=poses.heatmaps if len(tracks) == before else None,
        raw_keypoints_NK2=stacked("raw_SK2").astype(np.float32),
        flags_NK=stacked("flags_SK") if flagged else None,
    )
