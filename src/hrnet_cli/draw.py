"""Poses drawn on a picture, or on nothing: image + Poses -> new image, pure.

Shape letters: H W picture height and width, N people, K keypoints.
"""

import json
import tomllib
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, cast

import cv2
import numpy as np
import numpy.typing as npt

from hrnet_cli.canvas import TWOFOLD_PX, Canvas, Floats, Pen, Pixels
from hrnet_cli.config import BACKGROUNDS, PARTS
from hrnet_cli.errors import ConfigError
from hrnet_cli.palettes import INK, PALETTES, WHITE, Color, Colors, Connections
from hrnet_cli.schema import KeypointSchema, check_pairs
from hrnet_cli.structures import PersonHeatmaps, Poses

# Sizes as parts of the longer side of the person's box, and their least values in pixels.
LINE_PART, LEAST_LINE_PX = 0.015, 1.6
POINT_PART, LEAST_POINT_PX = 0.016, 1.9
# Drawn wider than pictures are.
MOST_PX = 10_000
# The frame of a box is a hair line beside the limbs.
BOX_PART = 0.004
# Schemas with more keypoints have faces and fingers.
MANY_KEYPOINTS = 50
# An unsure keypoint is hollow up to this part of its radius.
HOLLOW_PART = 0.55
# The dark border on either side of a line, as a part of its width.
BORDER_PART, LEAST_BORDER_PX = 0.22, 0.7
# A limb that is not sure is this much thinner, and dashed: the dashes and the gaps are this long,
# in widths.
UNSURE_WIDTH, DASH_WIDTHS = 0.7, 4.0
# Height of digits: as a part of the person, and at least and at most, the latter as a part of the
# picture. Keypoints of people smaller than this many digits high have no room for labels.
TEXT_PART, LEAST_TEXT_PX, MOST_TEXT_PART = 0.022, 8.0, 0.015
ROOM_FOR_LABELS = 24.0


@dataclass(frozen=True)
class DrawStyle:
    """How poses look.

    Attributes:
        palette: Key of `PALETTES`: ``sides`` (left blue, right orange, middle pale lime; where a
            schema has no sides each chain of limbs, such as a finger, has a colour), ``people`` or
            ``limbs``.
        background: ``photo``, ``black`` or ``transparent`` (the picture gets an alpha channel).
        point_size: Radius in pixels; None for sizes in proportion to the person, smaller where a
            schema's keypoints are finer (eyes and fingers).
        line_width: Width in pixels; None as for ``point_size``.
        keypoint_threshold: Keypoints with a lower score, and limbs that end in one, are not drawn.
        sure_threshold: Keypoints with a lower score are drawn hollow, limbs that end in one thin
            and dashed.

    Raises:
        ConfigError: A name is not known or a size is not above 0 and at most `MOST_PX`.
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
            if value is not None and not 0 < value <= MOST_PX:
                raise ConfigError(
                    f"{key} is {value:g} pixels, expected more than 0 and at most {MOST_PX:,}"
                )


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
    canvas = Canvas(image_HW3, style.background)
    if "heatmap" in parts and poses.heatmaps is not None:
        _draw_heatmaps(canvas, poses.heatmaps)
    people = [_person(poses, number, limbs, style, canvas.longest) for number in _by_size(poses)]
    for person in people:
        if "boxes" in parts:
            _draw_box(canvas, person)
        _draw_person(canvas, person, parts)
    _draw_labels(canvas, people, parts)
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
    except (ValueError, RecursionError) as error:
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
class _Person:
    """One person ready to be drawn, in picture pixels.

    Attributes:
        points_K2: Keypoints; those that are not shown may be anywhere.
        names: What the keypoints are called.
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
        track_id: Of the person in the video, None where nobody was tracked.
    """

    points_K2: Floats
    names: Sequence[str]
    shown_K: npt.NDArray[np.bool_]
    sure_K: npt.NDArray[np.bool_]
    scores_K: Floats
    score: float
    box: Floats
    limbs: Sequence[tuple[int, int]]
    colors: Colors
    radii_K: Floats
    widths_K: Floats
    extent: float
    track_id: int | None


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
    track_id = None if poses.track_ids_N is None else int(poses.track_ids_N[number])
    return _Person(
        points_K2=points_K2,
        names=poses.schema.keypoints,
        shown_K=shown_K,
        sure_K=scores_K >= style.sure_threshold,
        scores_K=scores_K,
        score=float(poses.person_scores_N[number]),
        box=poses.boxes.xyxy_N4[number].astype(np.float64),
        limbs=[(poses.schema.index[a], poses.schema.index[b]) for a, b in limbs],
        colors=PALETTES[style.palette](
            poses.schema, limbs, number if track_id is None else track_id
        ),
        track_id=track_id,
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
    """Return how large each keypoint is drawn, up to 1: fine ones have a small OKS sigma.

    In schemas of the body alone a small sigma may just mean a well-defined place, such as the
    pelvis of mpii16, so that they stay within 0.6 to 1.
    """
    sigmas_K = np.array(schema.oks_sigmas)
    least = 0.6 if len(schema) <= MANY_KEYPOINTS else 0.2
    return np.clip(1.2 * (sigmas_K / sigmas_K.max()) ** 0.75, least, 1.0)


def _draw_person(canvas: Canvas, person: _Person, parts: Collection[str]) -> None:
    shown_P2 = person.points_K2[person.shown_K]
    if not len(shown_P2) or not {"skeleton", "keypoints"}.intersection(parts):
        return
    margin = 2 * max(person.widths_K.max(), person.radii_K.max()) + 2
    near, far = shown_P2.min(axis=0) - margin, shown_P2.max(axis=0) + margin
    with canvas.pen(near, far, float(person.widths_K.max())) as pen:
        if pen is None:
            return
        if "skeleton" in parts:
            _draw_limbs(pen, person)
        if "keypoints" in parts:
            _draw_keypoints(pen, person)


def _draw_limbs(pen: Pen, person: _Person) -> None:
    strokes: list[tuple[Floats, Floats, float, Color]] = []
    for (a, b), color in zip(person.limbs, person.colors.limbs, strict=True):
        if person.shown_K[a] and person.shown_K[b]:
            strokes += [(*stroke, color) for stroke in _strokes(person, a, b)]
    if not strokes:
        return
    starts, ends, widths, colors = zip(*strokes, strict=True)
    starts_S2, ends_S2, widths_S = np.array(starts), np.array(ends), np.array(widths)
    # All borders lie below all colours, so that limbs join without dark seams.
    pen.capsules(starts_S2, ends_S2, widths_S + 2 * _border(widths_S), [INK] * len(colors))
    pen.capsules(starts_S2, ends_S2, widths_S, colors)


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


def _draw_keypoints(pen: Pen, person: _Person) -> None:
    shown = np.flatnonzero(person.shown_K)
    centers_D2, radii_D = person.points_K2[shown], person.radii_K[shown]
    # Each border covers what lies below, each hollow only its own disc.
    layers_D3 = np.stack(
        [
            radii_D + _border(person.widths_K[shown]),
            radii_D,
            np.where(person.sure_K[shown], 0.0, HOLLOW_PART * radii_D),
        ],
        axis=1,
    )
    colors = [color for k in shown.tolist() for color in (INK, person.colors.keypoints[k], INK)]
    drawn = layers_D3.ravel() > 0
    pen.discs(
        np.repeat(centers_D2, 3, axis=0)[drawn],
        layers_D3.ravel()[drawn],
        [color for color, is_drawn in zip(colors, drawn.tolist(), strict=True) if is_drawn],
    )


def _border(widths: Floats) -> Floats:
    return np.maximum(LEAST_BORDER_PX, BORDER_PART * widths)


def _draw_box(canvas: Canvas, person: _Person) -> None:
    if not np.isfinite(person.box).all():
        return
    limit = 2.0 * canvas.longest
    x1, y1, x2, y2 = np.clip(person.box, -limit, limit).round().astype(int).tolist()
    width = max(1, round(BOX_PART * person.extent))
    for near_x, near_y, far_x, far_y in (
        (x1, y1, x2, y1),
        (x1, y2, x2, y2),
        (x1, y1, x1, y2),
        (x2, y1, x2, y2),
    ):
        # The middle of the side lies on the edge of the box.
        x, y = near_x - width // 2, near_y - width // 2
        canvas.fill(x, y, far_x - near_x + width, far_y - near_y + width, person.colors.person)


def _draw_labels(canvas: Canvas, people: Sequence[_Person], parts: Collection[str]) -> None:
    """Write ids and person scores over the boxes, then what labels keypoints where there is room.

    There is room where a label hides neither another label nor a keypoint.
    """
    labels = [_label(person, parts) for person in people]
    beside_keypoints = not {"scores", "names"}.isdisjoint(parts)
    if not any(labels) and not beside_keypoints:
        return
    taken_HW = np.zeros(canvas.image.shape[:2], np.bool_)
    most_px = max(LEAST_TEXT_PX + 3, MOST_TEXT_PART * canvas.longest)
    for person, label in zip(people, labels, strict=True):
        text_px = round(np.clip(TEXT_PART * person.extent, LEAST_TEXT_PX + 2, most_px))
        if label:
            _draw_person_label(canvas, person, label, text_px, taken_HW)
    if beside_keypoints:
        _label_keypoints(canvas, people, parts, most_px, taken_HW)


def _label_keypoints(
    canvas: Canvas,
    people: Sequence[_Person],
    parts: Collection[str],
    most_px: float,
    taken_HW: npt.NDArray[np.bool_],
) -> None:
    """Write names and scores beside the keypoints."""
    for person in people:
        for x, y in person.points_K2[person.shown_K].round().astype(int).tolist():
            taken_HW[max(y - 1, 0) : max(y + 2, 0), max(x - 1, 0) : max(x + 2, 0)] = True
    for person in people:
        text_px = round(np.clip(0.8 * TEXT_PART * person.extent, LEAST_TEXT_PX, 0.8 * most_px))
        if person.extent >= ROOM_FOR_LABELS * text_px:
            _label_keypoints_of(canvas, person, parts, text_px, taken_HW)


def _label(person: _Person, parts: Collection[str]) -> str:
    """Return what stands over a person's box: the id where there is one, the score, or both."""
    words: list[str] = []
    if person.track_id is not None and not {"ids", "boxes", "scores"}.isdisjoint(parts):
        words.append(str(person.track_id))
    if "scores" in parts:
        words.append(f"{person.score:.2f}")
    return "  ".join(words)


def _draw_person_label(
    canvas: Canvas, person: _Person, label: str, text_px: int, taken_HW: npt.NDArray[np.bool_]
) -> None:
    if not np.isfinite(person.box).all():
        return
    chip = _chip(label, text_px, person.colors.person)
    places = _around_box(person.box, chip, canvas.size_wh)
    _put_chip(canvas, chip, _free_place(places, chip, taken_HW) or places[0], taken_HW)


def _label_keypoints_of(
    canvas: Canvas,
    person: _Person,
    parts: Collection[str],
    text_px: int,
    taken_HW: npt.NDArray[np.bool_],
) -> None:
    for k in np.flatnonzero(person.shown_K).tolist():
        # OpenCV's letters are those of ASCII.
        words = [person.names[k].encode("ascii", "replace").decode()] if "names" in parts else []
        words += [f"{person.scores_K[k]:.2f}"] if "scores" in parts else []
        chip = _chip("  ".join(words), text_px, person.colors.keypoints[k])
        places = _around_point(person.points_K2[k], float(person.radii_K[k]), chip)
        if place := _free_place(places, chip, taken_HW):
            _put_chip(canvas, chip, place, taken_HW)


def _put_chip(
    canvas: Canvas, chip: Pixels, place: tuple[int, int], taken_HW: npt.NDArray[np.bool_]
) -> None:
    x, y = place
    canvas.paste(chip, x, y)
    taken_HW[max(y, 0) : y + len(chip), max(x, 0) : x + chip.shape[1]] = True


def _around_box(box: Floats, chip: Pixels, size_wh: tuple[int, int]) -> list[tuple[int, int]]:
    """Return places for a label, best first: above the box, below it, and inside."""
    height, width = chip.shape[:2]
    x1, y1, x2, y2 = np.clip(box, -1e6, 1e6).round().astype(int).tolist()
    left, right, above = x1, x2 - width, y1 - height
    places = ((left, above), (right, above), (left, y2), (right, y2), (left, y1), (right, y1))
    return [
        (max(min(x, size_wh[0] - width), 0), max(min(y, size_wh[1] - height), 0)) for x, y in places
    ]


def _around_point(point: Floats, radius: float, chip: Pixels) -> list[tuple[int, int]]:
    """Return places for a label, best first: right, left, above and below the point."""
    height, width = chip.shape[:2]
    x, y = point.round().astype(int).tolist()
    away = round(1.5 * radius) + 1
    return [
        (x + away, y - height // 2),
        (x - away - width, y - height // 2),
        (x - width // 2, y - away - height),
        (x - width // 2, y + away),
    ]


def _free_place(
    places: Sequence[tuple[int, int]], chip: Pixels, taken_HW: npt.NDArray[np.bool_]
) -> tuple[int, int] | None:
    """Return the first place inside the picture of which nothing is taken."""
    height, width = chip.shape[:2]
    for x, y in places:
        part = taken_HW[max(y, 0) : max(y + height, 0), max(x, 0) : max(x + width, 0)]
        if part.shape == (height, width) and not part.any():
            return x, y
    return None


@lru_cache(maxsize=2048)
def _chip(text: str, text_px: int, color: Color) -> Pixels:
    """Return a text on a dark ground, with a stripe of its owner's colour below."""
    zoom = 4 if text_px < 4 * TWOFOLD_PX else 1
    font, digit = cv2.FONT_HERSHEY_SIMPLEX, text_px * zoom
    # The two major versions of OpenCV have different fonts: measured, not assumed.
    (_, height), _ = cv2.getTextSize("0", font, 1.0, 2)
    scale = digit / height
    thickness = max(1, round(2 * scale))
    (width, height), _ = cv2.getTextSize(text, font, scale, thickness)
    pad, stripe = round(0.28 * digit), max(1, round(0.2 * text_px))
    columns, rows = -(-(width + 2 * pad) // zoom), -(-(height + 2 * pad) // zoom)
    chip = np.full((rows * zoom, columns * zoom, 3), INK, np.uint8)
    at = ((columns * zoom - width) // 2, (rows * zoom + height) // 2)
    cv2.putText(chip, text, at, font, scale, WHITE, thickness, cv2.LINE_AA)
    chip = np.asarray(cv2.resize(chip, (columns, rows), interpolation=cv2.INTER_AREA), np.uint8)
    chip = np.concatenate([chip, np.full((stripe, columns, 3), color, np.uint8)])
    chip.flags.writeable = False  # it is kept and shared
    return chip


def _draw_heatmaps(canvas: Canvas, heatmaps: PersonHeatmaps) -> None:
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
    for alpha in canvas.layers[1:]:
        alpha[hot] = np.round(opacities[heat, 0] * 255).astype(np.uint8)
