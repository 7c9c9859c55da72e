"""Poses drawn on a picture, or on nothing: image + Poses -> new image, pure.

Shape letters: H W picture height and width, N people, K keypoints.
"""

import colorsys
import json
import tomllib
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import cv2
import numpy as np
import numpy.typing as npt

from hrnet_cli.errors import ConfigError
from hrnet_cli.schema import KeypointSchema, check_pairs
from hrnet_cli.structures import PersonHeatmaps, Poses

Pixels = npt.NDArray[np.uint8]
Color = tuple[int, int, int]
Connections = tuple[tuple[str, str], ...]

PARTS = ("keypoints", "skeleton", "boxes", "scores", "heatmap")
BACKGROUNDS = ("photo", "black", "transparent")

# Okabe and Ito, "Color Universal Design" (2008): told apart with every kind of colour vision.
SKY_BLUE, ORANGE, YELLOW = (86, 180, 233), (230, 130, 0), (240, 228, 66)
GREEN, VERMILLION, PURPLE, BLUE = (0, 158, 115), (213, 94, 0), (204, 121, 167), (0, 114, 178)
LEFT, RIGHT, CENTRE = SKY_BLUE, ORANGE, YELLOW
SEVERAL = (SKY_BLUE, ORANGE, GREEN, YELLOW, PURPLE, VERMILLION, BLUE)
OUTLINE = (20, 20, 20)

# Sizes as parts of the longer side of the person's box, and their least values in pixels.
LINE_PART, LEAST_LINE_PX = 0.011, 1.5
POINT_PART, LEAST_POINT_PX = 0.012, 2.0
DASH_WIDTHS, LEAST_DASH_PX = 3.0, 7.0
# OpenCV takes coordinates in 1/16 pixel.
SHIFT = 4


@dataclass(frozen=True)
class DrawStyle:
    """How poses look.

    Attributes:
        palette: Key of `PALETTES`: ``sides`` (left blue, right orange, middle yellow; fingers and
            the like by chain where a schema has no sides), ``people`` or ``limbs``.
        background: ``photo``, ``black`` or ``transparent`` (the picture gets an alpha channel).
        point_size: Radius in pixels; None for a size in proportion to the person.
        line_width: Width in pixels; None for a width in proportion to the person.
        keypoint_threshold: Keypoints with a lower score, and their limbs, are not drawn.
        sure_threshold: Keypoints with a lower score are drawn as rings, their limbs dashed.
    """

    palette: str = "sides"
    background: str = "photo"
    point_size: float | None = None
    line_width: float | None = None
    keypoint_threshold: float = 0.2
    sure_threshold: float = 0.4

    def __post_init__(self) -> None:
        """Check the names."""
        for key, allowed in (("palette", tuple(PALETTES)), ("background", BACKGROUNDS)):
            value = getattr(self, key)
            if value not in allowed:
                raise ConfigError(f"{key} is '{value}', expected one of {', '.join(allowed)}")


def draw_poses(
    image_HW3: Pixels,
    poses: Poses,
    *,
    parts: Collection[str] = ("keypoints", "skeleton"),
    connections: Connections | None = None,
    style: DrawStyle | None = None,
) -> Pixels:
    """Return a picture with poses drawn on it; the argument stays as it is.

    Args:
        image_HW3: uint8 RGB picture the poses belong to.
        poses: People with keypoints in its pixels; points outside the picture do no harm.
        parts: What to draw, of `PARTS`; ``heatmap`` needs poses that kept their heatmaps.
        connections: Limbs as pairs of keypoint names, in place of the schema's.
        style: Colours, sizes, thresholds.

    Returns:
        uint8 RGB (H, W, 3); RGBA (H, W, 4) on a transparent background.

    Raises:
        ConfigError: A connection or a part is not known.
    """
    style = style if style is not None else DrawStyle()
    unknown = [part for part in parts if part not in PARTS]
    if unknown:
        raise ConfigError(f"cannot draw '{unknown[0]}', expected some of {', '.join(PARTS)}")
    limbs = poses.schema.skeleton if connections is None else connections
    check_pairs(poses.schema, "connections", limbs)
    canvas = _Canvas(image_HW3, style.background)
    if "heatmap" in parts and poses.heatmaps is not None:
        _draw_heatmaps(canvas, poses.heatmaps)
    for person in range(len(poses)):
        colors = PALETTES[style.palette](poses.schema, limbs, _identity(poses, person))
        _Person(canvas, poses, person, style, colors).draw(parts, limbs)
    return canvas.finished()


def load_connections(path: Path, schema: KeypointSchema) -> Connections:
    """Return the limbs that a file names, for `draw_poses`.

    Args:
        path: TOML with ``skeleton = [["nose", "left_eye"], ...]``, or JSON with such a list;
            0-based keypoint numbers may stand for names.
        schema: Whose keypoints are meant.

    Raises:
        ConfigError: The file cannot be read, or names something else.
    """
    try:
        text = path.read_text(encoding="utf-8")
        data: Any = json.loads(text) if path.suffix == ".json" else tomllib.loads(text)
    except OSError as error:
        raise ConfigError(f"connections '{path}' cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise ConfigError(f"connections '{path}' are not readable: {error}") from error
    pairs = cast("dict[str, Any]", data).get("skeleton") if isinstance(data, dict) else data
    if not isinstance(pairs, list):
        raise ConfigError(
            f"connections '{path}' hold no list of pairs",
            hint='expected skeleton = [["nose", "left_eye"], ...]',
        )
    limbs = tuple(_pair(pair, schema, path) for pair in cast("list[Any]", pairs))
    check_pairs(schema, f"connections '{path}'", limbs)
    return limbs


def _pair(pair: Any, schema: KeypointSchema, path: Path) -> tuple[str, str]:  # noqa: ANN401
    ends: list[Any] = pair if isinstance(pair, list) else []
    names = [
        schema.keypoints[end] if type(end) is int and 0 <= end < len(schema) else end
        for end in ends
    ]
    if len(names) != 2 or not all(isinstance(name, str) for name in names):
        raise ConfigError(
            f"connections '{path}' hold {pair!r}, expected a pair of keypoint names or of numbers"
            f" from 0 to {len(schema) - 1}"
        )
    return str(names[0]), str(names[1])


@dataclass(frozen=True)
class _Colors:
    keypoints: Sequence[Color]
    limbs: Sequence[Color]
    person: Color


def _by_sides(schema: KeypointSchema, limbs: Connections, identity: int) -> _Colors:
    person = SEVERAL[identity % len(SEVERAL)]
    if not schema.flip_pairs:
        chains = _chains(schema)
        points = [SEVERAL[chains[name] % len(SEVERAL)] for name in schema.keypoints]
        return _Colors(points, [points[schema.index[b]] for _, b in limbs], person)
    left = {name for name, _ in schema.flip_pairs}
    right = {name for _, name in schema.flip_pairs}

    def color(*names: str) -> Color:
        is_left, is_right = not left.isdisjoint(names), not right.isdisjoint(names)
        return CENTRE if is_left == is_right else LEFT if is_left else RIGHT

    return _Colors(
        [color(name) for name in schema.keypoints], [color(*limb) for limb in limbs], person
    )


def _by_people(schema: KeypointSchema, limbs: Connections, identity: int) -> _Colors:
    color = SEVERAL[identity % len(SEVERAL)]
    return _Colors([color] * len(schema), [color] * len(limbs), color)


def _by_limbs(schema: KeypointSchema, limbs: Connections, identity: int) -> _Colors:
    rainbow = [_hue(position / max(len(limbs), 1)) for position in range(len(limbs))]
    points = [_hue(position / len(schema)) for position in range(len(schema))]
    return _Colors(points, rainbow, SEVERAL[identity % len(SEVERAL)])


PALETTES: dict[str, Callable[[KeypointSchema, Connections, int], _Colors]] = {
    "sides": _by_sides,
    "people": _by_people,
    "limbs": _by_limbs,
}


def _hue(hue: float) -> Color:
    red, green, blue = colorsys.hsv_to_rgb(hue * 0.9, 0.85, 1.0)
    return round(red * 255), round(green * 255), round(blue * 255)


def _chains(schema: KeypointSchema) -> dict[str, int]:
    """Number the chains of limbs that hang on the most connected keypoint, such as fingers."""
    degree = Counter(name for limb in schema.skeleton for name in limb)
    hub = degree.most_common(1)[0][0] if degree else ""
    chain = {name: position for position, name in enumerate(schema.keypoints)}
    for a, b in schema.skeleton:
        if hub not in (a, b):
            old, new = chain[b], chain[a]
            chain = {name: new if number == old else number for name, number in chain.items()}
    order = {number: rank for rank, number in enumerate(dict.fromkeys(chain.values()))}
    return {name: order[number] for name, number in chain.items()}


def _identity(poses: Poses, person: int) -> int:
    return person if poses.track_ids_N is None else int(poses.track_ids_N[person])


class _Canvas:
    """A picture that primitives are drawn on, with its opacity where the background is clear."""

    def __init__(self, image_HW3: Pixels, background: str) -> None:
        self.image = image_HW3.copy() if background == "photo" else np.zeros_like(image_HW3)
        clear = background == "transparent"
        self.alpha = np.zeros(image_HW3.shape[:2], np.uint8) if clear else None
        # Coordinates far outside are pulled in: OpenCV counts in 32-bit numbers.
        self.limit = 4.0 * max(image_HW3.shape[:2])

    def line(self, start: npt.ArrayLike, end: npt.ArrayLike, color: Color, width: float) -> None:
        thickness = max(1, round(width))
        a, b = self._fixed(start), self._fixed(end)
        for layer, value in self._layers(color):
            cv2.line(layer, a, b, value, thickness, cv2.LINE_AA, SHIFT)

    def disc(
        self, center: npt.ArrayLike, radius: float, color: Color, width: float | None = None
    ) -> None:
        """Draw a filled disc, or a ring of the given width."""
        thickness = -1 if width is None else max(1, round(width))
        at, size = self._fixed(center), max(1, round(radius * 2**SHIFT))
        for layer, value in self._layers(color):
            cv2.circle(layer, at, size, value, thickness, cv2.LINE_AA, SHIFT)

    def box(self, near: npt.ArrayLike, far: npt.ArrayLike, color: Color, width: float) -> None:
        a, b = self._fixed(near), self._fixed(far)
        for layer, value in self._layers(color):
            cv2.rectangle(layer, a, b, value, max(1, round(width)), cv2.LINE_AA, SHIFT)

    def text(self, text: str, at: npt.ArrayLike, color: Color, height_px: float) -> None:
        """Write with the lower left corner at a point."""
        x, y = (value >> SHIFT for value in self._fixed(at))
        # Capitals of this font are 22 pixels high at scale 1.
        scale, thickness = height_px / 22, max(1, round(height_px / 9))
        for ink, extra in ((OUTLINE, 2), (color, 0)):
            for layer, value in self._layers(ink):
                cv2.putText(
                    layer, text, (x, y), cv2.FONT_HERSHEY_SIMPLEX, scale, value,
                    thickness + extra, cv2.LINE_AA,
                )  # fmt: skip

    def finished(self) -> Pixels:
        """Return the picture; colours at soft edges are freed of the black they were mixed with."""
        if self.alpha is None:
            return self.image
        share = np.maximum(self.alpha, 1)[..., None].astype(np.float32) / 255
        colors = np.minimum(self.image / share, 255).astype(np.uint8)
        return np.concatenate([colors, self.alpha[..., None]], axis=2)

    def _layers(self, color: Color) -> list[tuple[Pixels, tuple[int, ...]]]:
        layers: list[tuple[Pixels, tuple[int, ...]]] = [(self.image, color)]
        return layers if self.alpha is None else [*layers, (self.alpha, (255,))]

    def _fixed(self, point: npt.ArrayLike) -> tuple[int, int]:
        x, y = np.clip(np.asarray(point, np.float64), -self.limit, self.limit) * 2**SHIFT
        return round(float(x)), round(float(y))


class _Person:
    """One person being drawn: its sizes, colours and which keypoints are to be seen."""

    def __init__(
        self, canvas: _Canvas, poses: Poses, person: int, style: DrawStyle, colors: _Colors
    ) -> None:
        self.canvas, self.colors = canvas, colors
        self.schema = poses.schema
        self.points_K2 = poses.keypoints_NK2[person]
        self.scores_K = poses.scores_NK[person]
        self.score = float(poses.person_scores_N[person])
        self.box = poses.boxes.xyxy_N4[person]
        extent = float(max(self.box[2] - self.box[0], self.box[3] - self.box[1]))
        self.text_px = float(np.clip(extent * 0.035, 9, 60))
        self.width = (
            style.line_width
            if style.line_width is not None
            else max(LEAST_LINE_PX, LINE_PART * extent)
        )
        self.radius = (
            style.point_size
            if style.point_size is not None
            else max(LEAST_POINT_PX, POINT_PART * extent)
        )
        self.border = max(0.75, 0.3 * self.width)
        finite_K = np.isfinite(self.points_K2).all(axis=1)
        self.shown_K = finite_K & (self.scores_K >= style.keypoint_threshold)
        self.sure_K = self.shown_K & (self.scores_K >= style.sure_threshold)

    def draw(self, parts: Collection[str], limbs: Connections) -> None:
        if "boxes" in parts and np.isfinite(self.box).all():
            self.canvas.box(self.box[:2], self.box[2:], self.colors.person, self.width * 0.7)
        if "skeleton" in parts:
            self._limbs(limbs)
        if "keypoints" in parts:
            self._keypoints()
        if "scores" in parts:
            self._scores()

    def _limbs(self, limbs: Connections) -> None:
        index = self.schema.index
        seen = [
            (index[a], index[b], color)
            for (a, b), color in zip(limbs, self.colors.limbs, strict=True)
            if self.shown_K[index[a]] and self.shown_K[index[b]]
        ]
        # All outlines lie below all colours, so that limbs join without dark seams.
        for outline in (True, False):
            for a, b, color in seen:
                sure = bool(self.sure_K[a] and self.sure_K[b])
                width = self.width if sure else self.width * 0.6
                for start, end in self._strokes(self.points_K2[a], self.points_K2[b], sure):
                    if outline:
                        self.canvas.line(start, end, OUTLINE, width + 2 * self.border)
                    else:
                        self.canvas.line(start, end, color, width)

    def _strokes(
        self, start: npt.NDArray[Any], end: npt.NDArray[Any], sure: bool
    ) -> list[tuple[npt.NDArray[Any], npt.NDArray[Any]]]:
        """Return the pieces of a limb: one, or dashes."""
        if sure:
            return [(start, end)]
        dash = max(LEAST_DASH_PX, DASH_WIDTHS * self.width)
        count = int(np.clip(np.linalg.norm(end - start) / (2 * dash), 1, 60))
        ends = np.linspace(0, 1, 2 * count)[:, None] * (end - start) + start
        return [(ends[i], ends[i + 1]) for i in range(0, 2 * count, 2)]

    def _keypoints(self) -> None:
        for k in map(int, np.flatnonzero(self.shown_K)):
            point, color = self.points_K2[k], self.colors.keypoints[k]
            self.canvas.disc(point, self.radius + self.border, OUTLINE)
            self.canvas.disc(point, self.radius, color)
            if not self.sure_K[k]:
                self.canvas.disc(point, self.radius * 0.55, OUTLINE)

    def _scores(self) -> None:
        above = self.box[:2] - np.array([0, 0.4 * self.text_px])
        corner = np.maximum(above, (0, 1.2 * self.text_px))
        if np.isfinite(corner).all():
            self.canvas.text(f"{self.score:.2f}", corner, self.colors.person, self.text_px)
        for k in map(int, np.flatnonzero(self.shown_K)):
            beside = self.points_K2[k] + np.array([1.5, -1]) * self.radius
            color = self.colors.keypoints[k]
            self.canvas.text(f"{self.scores_K[k]:.2f}", beside, color, 0.6 * self.text_px)


def _draw_heatmaps(canvas: _Canvas, heatmaps: PersonHeatmaps) -> None:
    """Blend the highest value of each person's heatmaps over the picture."""
    height, width = canvas.image.shape[:2]
    heat_HW = np.zeros((height, width), np.float32)
    for maps_KHW, matrix in zip(heatmaps.heatmaps_NKHW, heatmaps.heatmap_to_image_N23, strict=True):
        own = maps_KHW.max(axis=0)
        rows, columns = own.shape
        corners = np.array([[0, 0], [columns, rows]]) @ matrix[:, :2].T + matrix[:, 2]
        x1, y1 = np.clip(np.floor(corners.min(axis=0)), 0, (width, height)).astype(int)
        x2, y2 = np.clip(np.ceil(corners.max(axis=0)), 0, (width, height)).astype(int)
        if x2 <= x1 or y2 <= y1:
            continue
        moved = matrix - np.array([[0, 0, x1], [0, 0, y1]])
        warped = cv2.warpAffine(own, moved, (int(x2 - x1), int(y2 - y1)), flags=cv2.INTER_LINEAR)
        part = heat_HW[y1:y2, x1:x2]
        np.maximum(part, warped, out=part)
    heat_HW = np.clip(heat_HW, 0, 1)
    colored = cv2.applyColorMap((heat_HW * 255).astype(np.uint8), cv2.COLORMAP_INFERNO)[..., ::-1]
    opacity = np.minimum(heat_HW * 1.5, 0.8)[..., None]
    canvas.image = (canvas.image * (1 - opacity) + colored * opacity).astype(np.uint8)
    if canvas.alpha is not None:
        canvas.alpha = (opacity[..., 0] * 255).astype(np.uint8)
