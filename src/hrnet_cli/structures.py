"""The array types that flow between the stages, checked when they are made.

Points are (x, y) in pixels, x right, y down, pixel centres at whole numbers; boxes are
(x1, y1, x2, y2). Shape letters: H W picture height and width, N people, K keypoints.
"""

from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from hrnet_cli.schema import KeypointSchema

# What was done to a keypoint, as bits of `Poses.flags_NK`.
FILLED = 1  # made up between two sightings
SWAPPED = 2  # exchanged with its mirror partner


@dataclass(frozen=True)
class Frame:
    """One upright picture and where it came from.

    Attributes:
        image_HW3: uint8 RGB pixels, EXIF orientation already applied.
        source: Path as the user gave it, written into records.
        name: Path of its outputs below the output folder, suffix of the source included.
        index: Position in its video, counted from the video's first frame; 0 for a photo.
        time_s: Seconds from the first frame of its video; None for a photo.
        orientation: EXIF orientation (1 to 8) that was applied.
        pts: Presentation time as the video file says it, in steps of `time_base`; None for photos.
        time_base: Seconds of one step of `pts`; None for photos.
        rotation: Clockwise degrees by which the video's picture was turned: 0, 90, 180 or 270.
        pixel_aspect: Width over height of one pixel as it should be shown; the picture is not
            stretched for it.
    """

    image_HW3: np.ndarray
    source: str
    name: str = ""
    index: int = 0
    time_s: float | None = None
    orientation: int = 1
    pts: int | None = None
    time_base: Fraction | None = None
    rotation: int = 0
    pixel_aspect: Fraction = Fraction(1)

    def __post_init__(self) -> None:
        """Check shape and type."""
        shape, dtype = self.image_HW3.shape, self.image_HW3.dtype
        if len(shape) != 3 or shape[2] != 3 or dtype != np.uint8:
            raise ValueError(f"image_HW3: expected (H, W, 3) uint8, got {shape} {dtype}")

    @property
    def size_wh(self) -> tuple[int, int]:
        """Return (width, height) in pixels."""
        height, width = self.image_HW3.shape[:2]
        return width, height

    @property
    def clock_s(self) -> float:
        """Return seconds on the clock of its video, exact where `pts` is known; 0 for a photo.

        `time_s` may come from a record, where it is rounded.
        """
        if self.pts is None or self.time_base is None:
            return self.time_s or 0.0
        return float(self.pts * self.time_base)


@dataclass(frozen=True)
class Boxes:
    """Person boxes of one picture; empty means nobody, never the whole picture.

    Attributes:
        xyxy_N4: float32 (x1, y1, x2, y2) in picture pixels; may reach beyond the picture.
        scores_N: float32 detector confidence, 0 to 1.
    """

    xyxy_N4: np.ndarray
    scores_N: np.ndarray

    def __post_init__(self) -> None:
        """Check the shapes and convert to float32."""
        xyxy = np.asarray(self.xyxy_N4, dtype=np.float32)
        scores = np.asarray(self.scores_N, dtype=np.float32)
        if xyxy.ndim != 2 or xyxy.shape[1] != 4:
            raise ValueError(f"xyxy_N4: expected (N, 4), got {xyxy.shape}")
        if scores.shape != (len(xyxy),):
            raise ValueError(f"scores_N: expected ({len(xyxy)},), got {scores.shape}")
        object.__setattr__(self, "xyxy_N4", xyxy)
        object.__setattr__(self, "scores_N", scores)

    def __len__(self) -> int:
        """Return the number of people."""
        return len(self.xyxy_N4)

    def __getitem__(self, which: "slice | np.ndarray") -> "Boxes":
        """Return the boxes a slice, index array or boolean mask picks."""
        return Boxes(self.xyxy_N4[which], self.scores_N[which])

    @staticmethod
    def empty() -> "Boxes":
        """Return the boxes of a picture with nobody in it."""
        return Boxes(np.zeros((0, 4), np.float32), np.zeros(0, np.float32))


@dataclass(frozen=True)
class PersonHeatmaps:
    """The heatmaps the keypoints of one picture's people were read from.

    Attributes:
        heatmaps_NKHW: float32, about 0 to 1.
        heatmap_to_image_N23: Affine maps from heatmap pixels to picture pixels.
    """

    heatmaps_NKHW: np.ndarray
    heatmap_to_image_N23: np.ndarray

    def __post_init__(self) -> None:
        """Check the shapes."""
        people = len(self.heatmaps_NKHW)
        if self.heatmaps_NKHW.ndim != 4 or self.heatmap_to_image_N23.shape != (people, 2, 3):
            raise ValueError(
                f"expected (N, K, H, W) and (N, 2, 3), got {self.heatmaps_NKHW.shape} and"
                f" {self.heatmap_to_image_N23.shape}"
            )

    def __getitem__(self, which: np.ndarray) -> "PersonHeatmaps":
        """Return the heatmaps of the people an index array or boolean mask picks."""
        return PersonHeatmaps(self.heatmaps_NKHW[which], self.heatmap_to_image_N23[which])


@dataclass(frozen=True)
class Poses:
    """Keypoints of the people of one picture.

    Attributes:
        keypoints_NK2: float32 (x, y) in pixels of the upright picture; may lie outside it.
        scores_NK: float32 heatmap peaks, about 0 to 1, not probabilities.
        person_scores_N: float32 box score times the mean keypoint score (see `oks.rescore`).
        boxes: The person boxes the keypoints were estimated from.
        schema: What the keypoints are called.
        track_ids_N: int64 identity over a video, or None.
        heatmaps: What the keypoints were read from, where it was asked for.
        raw_keypoints_NK2: float32 keypoints as the network gave them, where `keypoints_NK2` are
            smoothed; else None.
        flags_NK: uint8 bits of `FILLED` and `SWAPPED`, where keypoints may have been repaired; else
            None.
    """

    keypoints_NK2: np.ndarray
    scores_NK: np.ndarray
    person_scores_N: np.ndarray
    boxes: Boxes
    schema: KeypointSchema
    track_ids_N: np.ndarray | None = None
    heatmaps: PersonHeatmaps | None = None
    raw_keypoints_NK2: np.ndarray | None = None
    flags_NK: np.ndarray | None = None

    def __post_init__(self) -> None:
        """Check the shapes against the boxes and the schema, and convert to float32."""
        people, keypoints = len(self.boxes), len(self.schema)
        expected = {
            "keypoints_NK2": (people, keypoints, 2),
            "scores_NK": (people, keypoints),
            "person_scores_N": (people,),
        }
        for field, shape in expected.items():
            array = np.asarray(getattr(self, field), dtype=np.float32)
            if array.shape != shape:
                raise ValueError(f"{field}: expected {shape}, got {array.shape}")
            object.__setattr__(self, field, array)
        if self.track_ids_N is not None and self.track_ids_N.shape != (people,):
            raise ValueError(f"track_ids_N: expected ({people},), got {self.track_ids_N.shape}")
        for field in ("raw_keypoints_NK2", "flags_NK"):
            array, shape = getattr(self, field), (people, keypoints)
            if array is not None and array.shape[:2] != shape:
                raise ValueError(f"{field}: expected {shape} first, got {array.shape}")

    def __len__(self) -> int:
        """Return the number of people."""
        return len(self.boxes)

    def __getitem__(self, which: np.ndarray) -> "Poses":
        """Return the people an index array or boolean mask picks."""
        ids, heatmaps = self.track_ids_N, self.heatmaps
        raw, flags = self.raw_keypoints_NK2, self.flags_NK
        return Poses(
            self.keypoints_NK2[which],
            self.scores_NK[which],
            self.person_scores_N[which],
            self.boxes[which],
            self.schema,
            track_ids_N=None if ids is None else ids[which],
            heatmaps=None if heatmaps is None else heatmaps[which],
            raw_keypoints_NK2=None if raw is None else raw[which],
            flags_NK=None if flags is None else flags[which],
        )

    @staticmethod
    def empty(schema: KeypointSchema) -> "Poses":
        """Return the poses of a picture with nobody in it."""
        count = len(schema)
        return Poses(
            np.zeros((0, count, 2), np.float32),
            np.zeros((0, count), np.float32),
            np.zeros(0, np.float32),
            Boxes.empty(),
            schema,
        )
