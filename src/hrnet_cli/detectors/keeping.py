"""Who stays where only so many people of a picture are wanted."""

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

from hrnet_cli.detectors import Detector
from hrnet_cli.structures import Boxes, Frame

# What detectors keep by themselves.
SUREST = "surest"


def _by_score(_frame: Frame, boxes: Boxes) -> npt.NDArray[np.float32]:
    return -boxes.scores_N


def _by_area(_frame: Frame, boxes: Boxes) -> npt.NDArray[np.float32]:
    return -np.prod(boxes.xyxy_N4[:, 2:] - boxes.xyxy_N4[:, :2], axis=1)


def _by_distance(frame: Frame, boxes: Boxes) -> npt.NDArray[np.float64]:
    """Return how far the centre of each box is from that of the picture, px."""
    middle_2 = np.subtract(frame.size_wh, 1) / 2
    centres_N2 = (boxes.xyxy_N4[:, :2] + boxes.xyxy_N4[:, 2:]) / 2
    return np.hypot(*(centres_N2 - middle_2).T)


# Name -> a number for each box (N,); the lowest stay.
KEEP: dict[str, Callable[[Frame, Boxes], npt.NDArray[np.floating]]] = {
    SUREST: _by_score,
    "largest": _by_area,
    "middle": _by_distance,
}


class RegionDetector:
    """Leaves out the people outside a part of the picture, such as a court or a lane.

    Args:
        detector: Finds the people.
        region_4: Corners (x1, y1, x2, y2) in pixels of the upright picture; a person is inside
            whose box has its centre there.
    """

    def __init__(self, detector: Detector, region_4: tuple[float, float, float, float]) -> None:
        self.name = detector.name
        self._detector = detector
        self._near_2, self._far_2 = np.array(region_4[:2]), np.array(region_4[2:])

    def __call__(self, frames: Sequence[Frame]) -> list[Boxes]:
        """Return the boxes of each frame that are inside, in the other's order; see `Detector`."""
        return [self._inside(boxes) for boxes in self._detector(frames)]

    def _inside(self, boxes: Boxes) -> Boxes:
        centres_N2 = (boxes.xyxy_N4[:, :2] + boxes.xyxy_N4[:, 2:]) / 2
        inside_N2 = (centres_N2 >= self._near_2) & (centres_N2 <= self._far_2)
        return boxes[np.flatnonzero(inside_N2.all(axis=1))]


class KeepingDetector:
    """Leaves out all but some of the people that another detector finds.

    Args:
        detector: The other one.
        keep: Who stays, a key of `KEEP`.
        max_people: How many stay in one picture.
        person_threshold: Boxes with a lower score stay only where others leave room: an unsure box
            may well be the largest, around two people.
    """

    def __init__(
        self, detector: Detector, keep: str, max_people: int, person_threshold: float
    ) -> None:
        self.name = detector.name
        self._detector = detector
        self._keep = keep
        self._max_people = max_people
        self._person_threshold = person_threshold

    def __call__(self, frames: Sequence[Frame]) -> list[Boxes]:
        """Return the boxes of each frame that stay, in the other's order; see `Detector`."""
        found = self._detector(frames)
        return [self._kept(*both) for both in zip(frames, found, strict=True)]

    def _kept(self, frame: Frame, boxes: Boxes) -> Boxes:
        unsure_N = boxes.scores_N < self._person_threshold
        order_N = np.lexsort((KEEP[self._keep](frame, boxes), unsure_N))
        return boxes[np.sort(order_N[: self._max_people])]
