"""The whole picture as the one box: for pictures that are cut to their person or hand already."""

from collections.abc import Sequence

import numpy as np

from hrnet_cli.structures import Boxes, Frame


class WholeImageDetector:
    """Boxes the whole picture with score 1; used only when asked for by name."""

    name = "whole-image"

    def __call__(self, frames: Sequence[Frame]) -> list[Boxes]:
        """Return one box per frame: (0, 0, width, height)."""
        return [
            Boxes(np.array([[0, 0, *frame.size_wh]], np.float32), np.ones(1, np.float32))
            for frame in frames
        ]
