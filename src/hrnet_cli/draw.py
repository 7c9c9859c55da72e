"""Poses drawn on a picture, or on nothing: image + Poses -> new image, pure.

Shape letters: H W picture height and width, N people, K keypoints.
"""

import colorsys
import json
import tomllib
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
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
Floats = npt.NDArray[np.floating[Any]]
Color = tuple[int, int, int]
Connections = tuple[tuple[str, str], ...]

PARTS = ("keypoints", "skeleton", "boxes", "scores", "heatmap")
BACKGROUNDS = ("photo", "black", "transparent")

# Okabe and Ito, "Color Universal Design" (2008): told apart with every kind of colour vision.
# Their orange is made a little redder here, away from their yellow.
SKY_BLUE, ORANGE, YELLOW = (86, 180, 233), (230, 130, 0), (240, 228, 66)
GREEN, VERMILLION, PURPLE, BLUE = (0, 158, 115), (213, 94, 0), (204, 121, 167), (0, 114, 178)
WHITE, INK = (245, 245, 245), (20, 20, 20)
# Searched for: with normal, protan, deutan and tritan vision (Machado, Oliveira and Fernandes 2009)
# it is at least 42 CIELAB units away from both sides; their yellow only 23 from the orange.
PALE_LIME = (220, 240, 170)
LEFT, RIGHT, CENTRE = SKY_BLUE, ORANGE, PALE_LIME
SEVERAL = (SKY_BLUE, ORANGE, GREEN, YELLOW, PURPLE, VERMILLION, BLUE)

# Sizes as parts of the longer side of the person's box, and their least values in pixels.
LINE_PART, LEAST_LINE_PX = 0.012, 1.25
POINT_PART, LEAST_POINT_PX = 0.0135, 1.5
# The dark border on either side of a line, as a part of its width.
BORDER_PART, LEAST_BORDER_PX = 0.22, 0.7
# A limb that is not sure is this much thinner, and dashed: the dashes and the gaps are this long,
# in widths.
UNSURE_WIDTH, DASH_WIDTHS = 0.7, 4.0
# Height of digits: as a part of the person, and at least and at most, the latter as a part of the
# picture. Keypoints of people smaller than this many digits high have no room for scores.
TEXT_PART, LEAST_TEXT_PX, MOST_TEXT_PART = 0.025, 8.0, 0.016
ROOM_FOR_SCORES = 24.0
# Lines thinner than this look ragged when OpenCV draws them: it rounds widths to whole pixels.
SMOOTH_PX = 6.0
# OpenCV takes coordinates in 1/16 pixel.
SHIFT = 4


@dataclass(frozen=True)
class DrawStyle:
    """How poses look.

    Attributes:
        palette: Key of `PALETTES`: ``sides`` (left blue, right orange, middle pale lime; where a schema
            has no sides each chain of limbs, such as a finger, has a colour), ``people`` or
            ``limbs``.
        background: ``photo``, ``black`` or ``transparent`` (the picture gets an alpha channel).
        point_size: Radius in pixels; None for sizes in proportion to the person, smaller where a
            schema's keypoints are finer (eyes and fingers).
        line_width: Width in pixels; None as for ``point_size``.
        keypoint_threshold: Keypoints with a lower score, and limbs that end in one, are not drawn.
        sure_threshold: Keypoints with a lower score are drawn hollow, limbs that end in one thin
            and dashed.

    Raises:
        ConfigError: A name is not known or a size is not above 0.
    """

    palette: str = "sides"
    background: str = "photo"
    point_size: float | None = None
    line_width: float | None = None
    keypoint_threshold: float = 0.3
    sure_threshold: float = 0.5

    def __post_init__(self) -> None:
        """Check the names and sizes."""
        for key, allowed in (("palette", tuple(PALETTES)), ("background", BACKGROUNDS)):
            value = getattr(self, key)
            if value not in allowed:
                raise ConfigError(f"{key} is '{value}', expected one of {', '.join(allowed)}")
        for key in ("point_size", "line_width"):
            value = getattr(self, key)
            if value is not None and not value > 0:
                raise ConfigError(f"{key} is {value:g} pixels, expected more than 0")


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
        ConfigError: A connection or a part is not known, or there are no heatmaps to draw.
    """
    style = style if style is not None else DrawStyle()
    _check_parts(parts, poses)
    limbs = poses.schema.skeleton if connections is None else connections
    check_pairs(poses.schema, "connections", limbs)
    canvas = _Canvas(image_HW3, style.background)
    if "heatmap" in parts and poses.heatmaps is not None:
        _draw_heatmaps(canvas, poses.heatmaps)
    people = [_person(poses, number, limbs, style, canvas.longest) for number in _by_size(poses)]
    for person in people:
        if "boxes" in parts:
            _draw_box(canvas, person)
        _draw_person(canvas, person, parts)
    if "scores" in parts:
        _draw_scores(canvas, people)
    return canvas.finished()


def load_connections(path: Path, schema: KeypointSchema) -> Connections:
    """Return the limbs that a file names, for `draw_poses`.

    Args:
        path: TOML with ``skeleton = [["nose", "left_eye"], ...]``, or JSON with that or with the
            list alone; 0-based keypoint numbers may stand for names.
        schema: Whose keypoints are meant.

    Raises:
        ConfigError: The file cannot be read, or names something else.
    """
    try:
        text = path.read_text(encoding="utf-8")
        is_json = path.suffix.lower() == ".json"
        data: Any = json.loads(text) if is_json else tomllib.loads(text)
    except OSError as error:
        raise ConfigError(f"connections '{path}' cannot be read: {error.strerror}") from error
    except ValueError as error:
        kind = "JSON" if path.suffix.lower() == ".json" else "TOML"
        raise ConfigError(f"connections '{path}' are not readable as {kind}: {error}") from error
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


def _check_parts(parts: Collection[str], poses: Poses) -> None:
    unknown = [part for part in parts if part not in PARTS]
    if unknown:
        raise ConfigError(f"cannot draw '{unknown[0]}', expected some of {', '.join(PARTS)}")
    if "heatmap" in parts and len(poses) and poses.heatmaps is None:
        raise ConfigError(
            "cannot draw 'heatmap': these poses come without their heatmaps",
            hint="build the estimator with keep_heatmaps=True",
        )


@dataclass(frozen=True)
class _Colors:
    keypoints: Sequence[Color]
    limbs: Sequence[Color]
    person: Color


def _by_sides(schema: KeypointSchema, limbs: Connections, identity: int) -> _Colors:
    left = {name for name, _ in schema.flip_pairs}
    right = {name for _, name in schema.flip_pairs}
    if not schema.flip_pairs:
        return _by_chains(schema, limbs, identity)

    def color(*names: str) -> Color:
        is_left, is_right = not left.isdisjoint(names), not right.isdisjoint(names)
        return CENTRE if is_left == is_right else LEFT if is_left else RIGHT

    return _Colors(
        [color(name) for name in schema.keypoints],
        [color(*limb) for limb in limbs],
        SEVERAL[identity % len(SEVERAL)],
    )


def _by_chains(schema: KeypointSchema, limbs: Connections, identity: int) -> _Colors:
    chains = _chains(schema)
    of = {
        name: WHITE if chain is None else SEVERAL[chain % len(SEVERAL)]
        for name, chain in chains.items()
    }
    return _Colors(
        [of[name] for name in schema.keypoints],
        [of[a] if chains[b] is None else of[b] for a, b in limbs],
        SEVERAL[identity % len(SEVERAL)],
    )


def _by_people(schema: KeypointSchema, limbs: Connections, identity: int) -> _Colors:
    color = SEVERAL[identity % len(SEVERAL)]
    return _Colors([color] * len(schema), [color] * len(limbs), color)


def _by_limbs(schema: KeypointSchema, limbs: Connections, identity: int) -> _Colors:
    colors = [_hue(position / max(len(limbs), 1)) for position in range(len(limbs))]
    # A keypoint looks like the first of its limbs.
    first = {
        name: color for limb, color in zip(limbs[::-1], colors[::-1], strict=True) for name in limb
    }
    points = [first.get(name, WHITE) for name in schema.keypoints]
    return _Colors(points, colors, SEVERAL[identity % len(SEVERAL)])


PALETTES: dict[str, Callable[[KeypointSchema, Connections, int], _Colors]] = {
    "sides": _by_sides,
    "people": _by_people,
    "limbs": _by_limbs,
}


def _hue(hue: float) -> Color:
    red, green, blue = colorsys.hsv_to_rgb(hue * 0.9, 0.85, 1.0)
    return round(red * 255), round(green * 255), round(blue * 255)


def _chains(schema: KeypointSchema) -> dict[str, int | None]:
    """Number the chains of limbs that hang on the keypoint with most limbs, such as fingers.

    That keypoint itself belongs to none. Without a fork whatever is connected is one chain.
    """
    limbs_of = Counter(name for limb in schema.skeleton for name in limb)
    hub, count = limbs_of.most_common(1)[0] if limbs_of else ("", 0)
    hub = hub if count > 2 else ""
    chain = {name: position for position, name in enumerate(schema.keypoints)}
    for a, b in schema.skeleton:
        if hub not in (a, b):
            old, new = chain[b], chain[a]
            chain = {name: new if number == old else number for name, number in chain.items()}
    rest = dict.fromkeys(number for name, number in chain.items() if name != hub)
    rank = {number: position for position, number in enumerate(rest)}
    return {name: None if name == hub else rank[number] for name, number in chain.items()}


@dataclass(frozen=True)
class _Person:
    """One person ready to be drawn, in picture pixels.

    Attributes:
        points_K2: Keypoints; those that are not shown may be anywhere.
        shown_K: Which keypoints are drawn.
        sure_K: Which of them are drawn as sure.
        scores_K: Keypoint scores.
        score: Person score.
        box: (x1, y1, x2, y2); may be not-a-number or out of the picture.
        limbs: (start, end) keypoints of each limb.
        colors: Of keypoints, limbs and box.
        radii_K: Radius of each keypoint.
        widths_K: Width of limbs that end in each keypoint; a limb has the smaller of its two.
        extent: Longer side of the box, at most 1.5 pictures.
    """

    points_K2: Floats
    shown_K: npt.NDArray[np.bool_]
    sure_K: npt.NDArray[np.bool_]
    scores_K: Floats
    score: float
    box: Floats
    limbs: Sequence[tuple[int, int]]
    colors: _Colors
    radii_K: Floats
    widths_K: Floats
    extent: float


def _person(
    poses: Poses, number: int, limbs: Connections, style: DrawStyle, longest: int
) -> _Person:
    points_K2, scores_K = poses.keypoints_NK2[number].astype(np.float64), poses.scores_NK[number]
    # Farther out OpenCV's 32-bit coordinates could overflow, and nothing of it would be seen.
    shown_K = (np.abs(points_K2) <= 16.0 * longest).all(axis=1)
    shown_K &= scores_K >= style.keypoint_threshold
    extent = float(np.clip(_extents(poses)[number], 0, 1.5 * longest))
    fineness_K = _fineness(poses.schema)
    points, lines = style.point_size, style.line_width
    ones_K = np.ones(len(points_K2))
    identity = number if poses.track_ids_N is None else int(poses.track_ids_N[number])
    return _Person(
        points_K2=points_K2,
        shown_K=shown_K,
        sure_K=scores_K >= style.sure_threshold,
        scores_K=scores_K,
        score=float(poses.person_scores_N[number]),
        box=poses.boxes.xyxy_N4[number].astype(np.float64),
        limbs=[(poses.schema.index[a], poses.schema.index[b]) for a, b in limbs],
        colors=PALETTES[style.palette](poses.schema, limbs, identity),
        radii_K=np.maximum(POINT_PART * extent * fineness_K, LEAST_POINT_PX)
        if points is None
        else min(points, longest) * ones_K,
        widths_K=np.maximum(LINE_PART * extent * fineness_K, LEAST_LINE_PX)
        if lines is None
        else min(lines, longest) * ones_K,
        extent=extent,
    )


def _by_size(poses: Poses) -> list[int]:
    """Return the people, largest first: the small ones stay visible in front of them."""
    return np.argsort(-_extents(poses), kind="stable").tolist()


def _extents(poses: Poses) -> Floats:
    """Return the longer side of each person's box in pixels, 0 where it makes no sense."""
    xyxy_N4 = poses.boxes.xyxy_N4
    return np.nan_to_num((xyxy_N4[:, 2:] - xyxy_N4[:, :2]).max(axis=1), posinf=1e9).clip(min=0)


def _fineness(schema: KeypointSchema) -> Floats:
    """Return how large each keypoint is drawn, 0.5 to 1: fine ones have a small OKS sigma."""
    sigmas_K = np.array(schema.oks_sigmas)
    return np.clip(1.15 * np.sqrt(sigmas_K / sigmas_K.max()), 0.5, 1.0)


class _Canvas:
    """A picture that is drawn on, with its opacity where the background is transparent."""

    def __init__(self, image_HW3: Pixels, background: str) -> None:
        self.image = image_HW3.copy() if background == "photo" else np.zeros_like(image_HW3)
        shape = image_HW3.shape[:2]
        self.alpha = np.zeros(shape, np.uint8) if background == "transparent" else None
        self.longest = max(shape)

    @contextmanager
    def pen(self, near: Floats, far: Floats, finest_px: float) -> Iterator["_Pen | None"]:
        """Give a pen for a rectangle of the picture; None where it lies outside.

        Where something is finer than OpenCV draws well, the rectangle is enlarged, drawn on and
        made smaller again. Pixels that were not drawn on come out as they were.

        Args:
            near: Its left upper corner.
            far: Its right lower corner.
            finest_px: Width of the finest thing to be drawn.
        """
        height, width = self.image.shape[:2]
        x1, y1 = np.floor(np.clip(near, 0, (width, height))).astype(int).tolist()
        x2, y2 = np.ceil(np.clip(far + 1, 0, (width, height))).astype(int).tolist()
        if x2 <= x1 or y2 <= y1:
            yield None
            return
        layers = [self.image] if self.alpha is None else [self.image, self.alpha]
        zoom = 1 if finest_px >= SMOOTH_PX else 2 if finest_px >= SMOOTH_PX / 2 else 4
        if zoom == 1:
            yield _Pen(layers, (0, 0), 1)
            return
        parts = [layer[y1:y2, x1:x2] for layer in layers]
        size = ((x2 - x1) * zoom, (y2 - y1) * zoom)
        enlarged = [cv2.resize(part, size, interpolation=cv2.INTER_NEAREST) for part in parts]
        yield _Pen(enlarged, (x1, y1), zoom)
        for part, drawn in zip(parts, enlarged, strict=True):
            part[:] = cv2.resize(drawn, (x2 - x1, y2 - y1), interpolation=cv2.INTER_AREA)

    def finished(self) -> Pixels:
        """Return the picture; colours at soft edges are freed of the black they were mixed with."""
        if self.alpha is None:
            return self.image
        soft = (self.alpha > 0) & (self.alpha < 255)
        share = self.alpha[soft, None].astype(np.float32) / 255
        self.image[soft] = np.minimum(np.round(self.image[soft] / share), 255).astype(np.uint8)
        return np.concatenate([self.image, self.alpha[..., None]], axis=2)


class _Pen:
    """Draws anti-aliased on all layers of a rectangle; arguments are in picture pixels."""

    def __init__(
        self, layers: "Sequence[cv2.typing.MatLike]", origin: tuple[int, int], zoom: int
    ) -> None:
        self._layers, self._origin, self._zoom = layers, np.array(origin), zoom

    def line(self, start: Floats, end: Floats, color: Color, width: float) -> None:
        a, b = self._fixed(start), self._fixed(end)
        for layer, value in self._inked(color):
            cv2.line(layer, a, b, value, self._whole(width), cv2.LINE_AA, SHIFT)

    def disc(self, center: Floats, radius: float, color: Color) -> None:
        at = self._fixed(center)
        size = round(radius * self._zoom * 2**SHIFT)
        for layer, value in self._inked(color):
            cv2.circle(layer, at, size, value, -1, cv2.LINE_AA, SHIFT)

    def rectangle(self, near: Floats, far: Floats, color: Color, width: float = -1) -> None:
        """Draw a frame, or a filled rectangle where no width is given."""
        thickness = -1 if width < 0 else self._whole(width)
        a, b = self._fixed(near), self._fixed(far)
        for layer, value in self._inked(color):
            cv2.rectangle(layer, a, b, value, thickness, cv2.LINE_AA, SHIFT)

    def text(self, text: str, near: Floats, far: Floats, color: Color) -> None:
        """Fill a rectangle with one line of text."""
        (left, top), (right, bottom) = self._fixed(near), self._fixed(far)
        size = (max(1, (right - left) >> SHIFT), max(1, (bottom - top) >> SHIFT))
        (width, height), _ = cv2.getTextSize("0.00", cv2.FONT_HERSHEY_SIMPLEX, 1.0, 2)
        scale = min(size[0] * 4 / len(text) / width, size[1] / height)
        at = (left >> SHIFT, (bottom >> SHIFT))
        for layer, value in self._inked(color):
            cv2.putText(
                layer, text, at, cv2.FONT_HERSHEY_SIMPLEX, scale, value,
                max(1, round(2 * scale)), cv2.LINE_AA,
            )  # fmt: skip

    def _inked(self, color: Color) -> Iterator[tuple["cv2.typing.MatLike", tuple[int, ...]]]:
        return zip(self._layers, (color, (255,)), strict=False)

    def _whole(self, width: float) -> int:
        return max(1, round(width * self._zoom))

    def _fixed(self, point: Floats) -> tuple[int, int]:
        # Pixel centres are at whole numbers in both the picture and its enlarged part.
        x, y = (((point - self._origin + 0.5) * self._zoom - 0.5) * 2**SHIFT).tolist()
        return round(x), round(y)


def _draw_person(canvas: _Canvas, person: _Person, parts: Collection[str]) -> None:
    shown_P2 = person.points_K2[person.shown_K]
    if not len(shown_P2) or not {"skeleton", "keypoints"}.intersection(parts):
        return
    widths, radii = person.widths_K[person.shown_K], person.radii_K[person.shown_K]
    margin = 2 * max(widths.max(), radii.max()) + 2
    finest = min(widths.min(), radii.min() * 2)
    with canvas.pen(shown_P2.min(axis=0) - margin, shown_P2.max(axis=0) + margin, finest) as pen:
        if pen is None:
            return
        if "skeleton" in parts:
            _draw_limbs(pen, person)
        if "keypoints" in parts:
            _draw_keypoints(pen, person)


def _draw_limbs(pen: _Pen, person: _Person) -> None:
    strokes = [
        (start, end, color, width)
        for (a, b), color in zip(person.limbs, person.colors.limbs, strict=True)
        if person.shown_K[a] and person.shown_K[b]
        for start, end, width in _strokes(person, a, b)
    ]
    # All borders lie below all colours, so that limbs join without dark seams.
    for start, end, _, width in strokes:
        pen.line(start, end, INK, width + 2 * _border(width))
    for start, end, color, width in strokes:
        pen.line(start, end, color, width)


def _strokes(person: _Person, a: int, b: int) -> list[tuple[Floats, Floats, float]]:
    """Return the pieces of a limb and their width: one piece, or dashes where it is not sure."""
    start, end = person.points_K2[a], person.points_K2[b]
    width = float(min(person.widths_K[a], person.widths_K[b]))
    if person.sure_K[a] and person.sure_K[b]:
        return [(start, end, width)]
    width *= UNSURE_WIDTH
    length = float(np.linalg.norm(end - start))
    count = int(np.clip(round(length / (2 * DASH_WIDTHS * width)), 1, 60))
    ends = np.linspace(start, end, 2 * count)
    return [(ends[i], ends[i + 1], width) for i in range(0, 2 * count, 2)]


def _draw_keypoints(pen: _Pen, person: _Person) -> None:
    for k in np.flatnonzero(person.shown_K).tolist():
        point, color, radius = person.points_K2[k], person.colors.keypoints[k], person.radii_K[k]
        pen.disc(point, radius + _border(person.widths_K[k]), INK)
        pen.disc(point, radius, color)
        if not person.sure_K[k]:
            pen.disc(point, radius * 0.55, INK)


def _border(width: float) -> float:
    return max(LEAST_BORDER_PX, BORDER_PART * width)


def _draw_box(canvas: _Canvas, person: _Person) -> None:
    if not np.isfinite(person.box).all():
        return
    limit = 2.0 * canvas.longest
    near, far = np.clip(person.box[:2], -limit, limit), np.clip(person.box[2:], -limit, limit)
    width = max(1.0, 0.5 * LINE_PART * person.extent)
    # Upright lines need no finer grid.
    with canvas.pen(near - width, far + width, SMOOTH_PX) as pen:
        if pen is not None:
            pen.rectangle(near, far, person.colors.person, width)


def _draw_scores(canvas: _Canvas, people: Sequence[_Person]) -> None:
    """Write person scores over the boxes, then keypoint scores where there is room for them."""
    height, width = canvas.image.shape[:2]
    taken: list[tuple[Floats, Floats]] = []
    most = max(LEAST_TEXT_PX + 3, MOST_TEXT_PART * canvas.longest)
    for person in people:
        text_px = float(np.clip(TEXT_PART * person.extent, LEAST_TEXT_PX + 2, most))
        if np.isfinite(person.box).all():
            chip = _chip_size(person.score, text_px)
            room = np.maximum((width, height) - chip, 0)
            corners = [np.clip(corner, 0, room) for corner in _around_box(person.box, chip)]
            corner = _free_corner(corners, chip, taken)
            corner = corners[0] if corner is None else corner
            _draw_chip(canvas, person.score, corner, text_px, person.colors.person)
            taken.append((corner, corner + chip))
    for person in people:
        text_px = float(np.clip(0.8 * TEXT_PART * person.extent, LEAST_TEXT_PX, 0.8 * most))
        if person.extent < ROOM_FOR_SCORES * text_px:
            continue
        for k in np.flatnonzero(person.shown_K).tolist():
            chip = _chip_size(person.scores_K[k], text_px)
            corners = _around_point(person.points_K2[k], 1.5 * person.radii_K[k], chip)
            corner = _free_corner(corners, chip, taken)
            if corner is not None:
                _draw_chip(canvas, person.scores_K[k], corner, text_px, person.colors.keypoints[k])
                taken.append((corner, corner + chip))


def _around_box(box: Floats, chip: Floats) -> list[Floats]:
    """Return the label's corners above the box, left and right, then below it, best first."""
    x1, y1, x2, y2 = box
    width, height = chip
    places = ((x1, y1 - height), (x2 - width, y1 - height), (x1, y2), (x2 - width, y2))
    return [np.array(place) for place in places]


def _around_point(point: Floats, distance: float, chip: Floats) -> list[Floats]:
    """Return the label's corners right, left, above and below a point, best first."""
    width, height = chip
    return [
        point + np.array([distance, -height / 2]),
        point + np.array([-distance - width, -height / 2]),
        point + np.array([-width / 2, -distance - height]),
        point + np.array([-width / 2, distance]),
    ]


def _free_corner(
    corners: Sequence[Floats], chip: Floats, taken: Sequence[tuple[Floats, Floats]]
) -> Floats | None:
    """Return the first corner at which a label hides none of those that are there."""
    for corner in corners:
        if not any((corner < far).all() and (near < corner + chip).all() for near, far in taken):
            return corner
    return None


def _chip_size(score: float, text_px: float) -> Floats:
    # Digits are about 0.62 times as wide as high in the fonts of OpenCV 4 and 5.
    return np.array([len(f"{score:.2f}") * 0.62 + 0.5, 1.5]) * text_px


def _draw_chip(canvas: _Canvas, score: float, corner: Floats, text_px: float, color: Color) -> None:
    """Write a number on a dark ground with a stripe of its owner's colour below."""
    far = corner + _chip_size(score, text_px)
    inset = np.array([0.25, 0.25]) * text_px
    with canvas.pen(corner, far, text_px / 6) as pen:
        if pen is not None:
            pen.rectangle(corner, far, INK)
            pen.rectangle(np.array([corner[0], far[1] - 0.12 * text_px]), far, color)
            pen.text(f"{score:.2f}", corner + inset, far - inset, WHITE)


def _draw_heatmaps(canvas: _Canvas, heatmaps: PersonHeatmaps) -> None:
    """Blend the highest value of each person's heatmaps over the picture."""
    height, width = canvas.image.shape[:2]
    heat_HW = np.zeros((height, width), np.uint8)
    for maps_KHW, matrix in zip(heatmaps.heatmaps_NKHW, heatmaps.heatmap_to_image_N23, strict=True):
        own = np.clip(maps_KHW.max(axis=0), 0, 1)
        rows, columns = own.shape
        corners = np.array([[0, 0], [columns, rows]]) @ matrix[:, :2].T + matrix[:, 2]
        x1, y1 = np.clip(np.floor(corners.min(axis=0)), 0, (width, height)).astype(int).tolist()
        x2, y2 = np.clip(np.ceil(corners.max(axis=0)), 0, (width, height)).astype(int).tolist()
        if x2 <= x1 or y2 <= y1:
            continue
        moved = matrix - np.array([[0, 0, x1], [0, 0, y1]])
        warped = cv2.warpAffine(
            np.round(own * 255).astype(np.uint8), moved, (x2 - x1, y2 - y1), flags=cv2.INTER_LINEAR
        )
        part = heat_HW[y1:y2, x1:x2]
        np.maximum(part, warped, out=part)
    hot = heat_HW > 0
    levels = np.arange(256, dtype=np.uint8)[:, None]
    colors = cv2.applyColorMap(levels, cv2.COLORMAP_INFERNO)[:, 0, ::-1].astype(np.float32)
    opacities = np.minimum(levels / np.float32(255) * 1.5, 0.8)
    heat = heat_HW[hot]
    below = canvas.image[hot] * (1 - opacities[heat])
    canvas.image[hot] = np.round(below + (colors * opacities)[heat]).astype(np.uint8)
    if canvas.alpha is not None:
        canvas.alpha[hot] = np.round(opacities[heat, 0] * 255).astype(np.uint8)
