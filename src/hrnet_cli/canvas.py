"""A picture that lines, discs and labels are drawn on, with soft edges and its opacity.

Shape letters: H W picture height and width.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

Pixels = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.floating[Any]]
Color = tuple[int, int, int]

# OpenCV smooths edges over more than a pixel: thinner lines than these are drawn 2 and 4 times as
# large and made smaller again.
TWOFOLD_PX, FOURFOLD_PX = 5.0, 2.0
# OpenCV takes coordinates in 1/16 pixel.
SHIFT = 4
# What OpenCV draws is wider than asked for by these many pixels, smoothed and not smoothed:
# measured as the coverage of filled quadrangles of all directions and widths.
EXCESS_PX = {cv2.LINE_AA: 1.43, cv2.LINE_8: 1.0}
# The round ends of a limb, seen from its end: half a circle.
ARC_A2 = np.stack([f(np.linspace(-np.pi / 2, np.pi / 2, 9)) for f in (np.cos, np.sin)], axis=1)


class Canvas:
    """A picture that is drawn on, with its opacity where the background is transparent."""

    def __init__(self, image_HW3: Pixels, background: str) -> None:
        # In C order whatever the picture has: OpenCV draws on nothing else.
        self.image: Pixels = (
            image_HW3.copy() if background == "photo" else np.zeros(image_HW3.shape, np.uint8)
        )
        self.size_wh = (image_HW3.shape[1], image_HW3.shape[0])
        self.longest = max(self.size_wh)
        self.layers = [self.image]
        if background == "transparent":
            self.layers.append(np.zeros(image_HW3.shape[:2], np.uint8))

    @contextmanager
    def pen(self, near: Floats, far: Floats, width_px: float) -> Iterator["Pen | None"]:
        """Give a pen for a rectangle of the picture; None where it lies outside.

        For thin lines the rectangle is enlarged, drawn on and made smaller again. Pixels that were
        not drawn on come out as they were.

        Args:
            near: Its left upper corner.
            far: Its right lower corner.
            width_px: Width of most lines.
        """
        x1, y1 = np.floor(np.clip(near, 0, self.size_wh)).astype(int).tolist()
        x2, y2 = np.ceil(np.clip(far + 1, 0, self.size_wh)).astype(int).tolist()
        if x2 <= x1 or y2 <= y1:
            yield None
            return
        zoom = 1 if width_px >= TWOFOLD_PX else 2 if width_px >= FOURFOLD_PX else 4
        if zoom == 1:
            yield Pen(self.layers)
            return
        parts = [layer[y1:y2, x1:x2] for layer in self.layers]
        size = ((x2 - x1) * zoom, (y2 - y1) * zoom)
        enlarged = [cv2.resize(part, size, interpolation=cv2.INTER_NEAREST) for part in parts]
        yield Pen(enlarged, (x1, y1), zoom)
        for part, drawn in zip(parts, enlarged, strict=True):
            part[:] = cv2.resize(drawn, (x2 - x1, y2 - y1), interpolation=cv2.INTER_AREA)

    def paste(self, pixels_HW3: Pixels, x: int, y: int) -> None:
        """Put a small picture on this one; what lies outside is cut off."""
        height, width = pixels_HW3.shape[:2]
        left, top = max(-x, 0), max(-y, 0)
        for layer, small in zip(self.layers, (pixels_HW3, np.array(255)), strict=False):
            part = layer[y + top : max(y + height, 0), x + left : max(x + width, 0)]
            part[:] = (
                small[top : top + len(part), left : left + part.shape[1]] if small.ndim else 255
            )

    def fill(self, x: int, y: int, width: int, height: int, color: Color) -> None:
        """Fill a rectangle; what lies outside is cut off."""
        for layer, value in zip(self.layers, (color, 255), strict=False):
            layer[max(y, 0) : max(y + height, 0), max(x, 0) : max(x + width, 0)] = value

    def finished(self) -> Pixels:
        """Return the picture; colours at soft edges are freed of the black they were mixed with."""
        if len(self.layers) == 1:
            return self.image
        alpha = self.layers[1]
        soft = (alpha > 0) & (alpha < 255)
        share = alpha[soft, None].astype(np.float32) / 255
        self.image[soft] = np.minimum(np.round(self.image[soft] / share), 255).astype(np.uint8)
        return np.concatenate([self.image, alpha[..., None]], axis=2)


class Pen:
    """Draws anti-aliased on the layers of a rectangle; arguments are in picture pixels.

    Args:
        layers: The rectangle's colours, and its opacity if that matters.
        origin: Left upper corner of the rectangle in the picture.
        zoom: Pixels of the layers for one of the picture.
    """

    def __init__(
        self,
        layers: "Sequence[cv2.typing.MatLike]",
        origin: tuple[int, int] = (0, 0),
        zoom: int = 1,
    ) -> None:
        self._layers, self._origin, self._zoom = layers, origin, zoom
        # Making it smaller by 4 smooths enough.
        self._kind = cv2.LINE_AA if zoom < 4 else cv2.LINE_8

    def capsules(
        self, starts_S2: Floats, ends_S2: Floats, widths_S: Floats, colors: Sequence[Color]
    ) -> None:
        """Draw lines with round ends, of any width, in order."""
        along_S2 = ends_S2 - starts_S2
        lengths_S1 = np.linalg.norm(along_S2, axis=1, keepdims=True)
        along_S2 = np.where(lengths_S1 > 0, along_S2 / np.maximum(lengths_S1, 1e-9), (1.0, 0.0))
        across_S2 = along_S2[:, ::-1] * (-1, 1)
        arcs_SA2 = ARC_A2[:, :1] * along_S2[:, None] + ARC_A2[:, 1:] * across_S2[:, None]
        arcs_SA2 *= self._drawn(widths_S)[:, None, None] / 2
        outlines = np.concatenate([ends_S2[:, None] + arcs_SA2, starts_S2[:, None] - arcs_SA2], 1)
        for outline, color in zip(self._fixed(outlines), colors, strict=True):
            for layer, value in zip(self._layers, (color, 255), strict=False):
                cv2.fillConvexPoly(layer, outline, value, self._kind, SHIFT)

    def discs(self, centers_D2: Floats, radii_D: Floats, colors: Sequence[Color]) -> None:
        """Draw filled discs, in order."""
        centers = self._fixed(centers_D2).tolist()
        sizes = np.round(self._drawn(2 * radii_D) / 2 * self._zoom * 2**SHIFT).astype(int).tolist()
        for center, size, color in zip(centers, sizes, colors, strict=True):
            for layer, value in zip(self._layers, (color, 255), strict=False):
                cv2.circle(layer, center, size, value, -1, self._kind, SHIFT)

    def _drawn(self, widths: Floats) -> Floats:
        """Return the widths to ask OpenCV for."""
        return np.maximum(widths - EXCESS_PX[self._kind] / self._zoom, 0.1)

    def _fixed(self, points: Floats) -> npt.NDArray[np.int32]:
        # Pixel centres are at whole numbers in both the picture and its enlarged part.
        enlarged = (points - self._origin + 0.5) * self._zoom - 0.5
        return np.round(enlarged * 2**SHIFT).astype(np.int32)
