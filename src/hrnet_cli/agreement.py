"""Whether a network computed another way is still the same: heatmaps, keypoints and AP compared.

Shape letters: B crops, K keypoints, H W height and width, M keypoints of all crops.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from hrnet_cli import heatmap
from hrnet_cli.config import ModelSpec
from hrnet_cli.errors import WeightsError
from hrnet_cli.runtimes import TOLERANCES, Runtime

CHECK_BATCH = 16
# Part of the keypoints that must stay where PyTorch finds them, within one heatmap pixel. Seen on
# a briefly trained W32: 1 for all, also int8.
AGREEMENT = {"fp32": 1.0, "fp16": 0.99, "bf16": 0.98, "int8": 0.9}
# 8 bits move single values of a heatmap far more than its peak, which is what counts.
LARGEST_DIFFERENCE = TOLERANCES | {"int8": 0.5}
# Largest loss of COCO AP.
AP_LOSS = {"fp32": 0.0005, "fp16": 0.001, "bf16": 0.002, "int8": 0.01}
# A peak lower than this part of the highest may be noise, which has no place to agree on.
SURE_PART = 0.25


@dataclass(frozen=True)
class Agreement:
    """How an exported network compares with PyTorch in float32.

    Attributes:
        crops: Crops compared.
        difference: Largest difference of two heatmaps, as a share of the highest peak.
        keypoints: Keypoints PyTorch is sure of: those whose peak is not far lower than the highest.
        equal: Part of them with the peak on the same heatmap pixel.
        near: Part of them with the peak within one heatmap pixel.
        shift_px: Mean distance of them in crop pixels, decoded.
        ap: COCO AP of both, where labels were given: PyTorch's, the exported network's.
    """

    crops: int
    difference: float
    keypoints: int
    equal: float
    near: float
    shift_px: float
    ap: tuple[float, float] | None = None

    def describe(self) -> str:
        """Return the comparison as one line of text."""
        parts = [
            f"largest difference {self.difference:.1e} of the peak",
            f"{self.equal:.1%} of {self.keypoints} peaks on the same heatmap pixel,"
            f" {self.near:.1%} within one",
            f"mean shift {self.shift_px:.3f} px",
        ]
        if self.ap is not None:
            parts.append(f"AP {self.ap[1]:.4f}, PyTorch {self.ap[0]:.4f}")
        return f"on {self.crops} crops: {'; '.join(parts)}"

    def to_json(self) -> dict[str, Any]:
        """Return the comparison as plain values."""
        return {
            "crops": self.crops,
            "largest_difference": self.difference,
            "keypoints": self.keypoints,
            "same_pixel": self.equal,
            "within_one_pixel": self.near,
            "mean_shift_px": self.shift_px,
            "AP": None if self.ap is None else {"pytorch": self.ap[0], "exported": self.ap[1]},
        }


def compare(
    reference: Runtime, exported: Runtime, spec: ModelSpec, crops_BHW3: np.ndarray
) -> Agreement:
    """Return how the heatmaps of two runtimes compare on crops."""
    pairs = [
        (reference(part), exported(part))
        for part in np.split(crops_BHW3, range(CHECK_BATCH, len(crops_BHW3), CHECK_BATCH))
    ]
    right, other = (np.concatenate(maps) for maps in zip(*pairs, strict=True))
    peak = float(np.abs(right).max()) or 1.0
    right_peaks, scores_BK = heatmap.find_peaks(right)
    other_peaks, _ = heatmap.find_peaks(other)
    sure_BK = scores_BK >= SURE_PART * scores_BK.max(initial=0)
    steps_M = np.abs(right_peaks - other_peaks).max(axis=-1)[sure_BK]
    right_points, _ = heatmap.decode(right, spec.codec, spec.input_hw)
    other_points, _ = heatmap.decode(other, spec.codec, spec.input_hw)
    shifts_M = np.linalg.norm(right_points - other_points, axis=-1)[sure_BK]
    return Agreement(
        crops=len(crops_BHW3),
        difference=float(np.abs(right - other).max()) / peak,
        keypoints=int(sure_BK.sum()),
        equal=float((steps_M == 0).mean()),
        near=float((steps_M <= 1).mean()),
        shift_px=float(shifts_M.mean()),
    )


def check_agreement(
    agreement: Agreement, precision: str, what: str, tolerance: float = 0.0
) -> None:
    """Raise WeightsError when an exported network differs more than it may.

    Args:
        agreement: Of `compare`.
        precision: Of the network, which sets the limits.
        what: Model and target, for the message.
        tolerance: Of the runtime that computed it, where that is more.
    """
    limit, near = max(LARGEST_DIFFERENCE[precision], tolerance), AGREEMENT[precision]
    lost = 0.0 if agreement.ap is None else agreement.ap[0] - agreement.ap[1]
    # Comparisons are false for a difference that is not a number.
    if agreement.difference <= limit and agreement.near >= near and lost <= AP_LOSS[precision]:
        return
    expected = f"at most {limit:g} of the peak and at least {near:.0%} within one heatmap pixel"
    if agreement.ap is not None:
        expected += f", and at most {AP_LOSS[precision]:g} AP lost"
    raise WeightsError(
        f"{what} in {precision} is not the network it was made of, {agreement.describe()};"
        f" expected {expected}; nothing was written",
        hint="calibrate with more people, such as it will see, or use --precision bf16 or fp32"
        if precision == "int8"
        else "an untrained network has no peaks to keep: export a trained one",
    )
