"""The colours of keypoints and limbs: by side, by person or by limb."""

import colorsys
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from hrnet_cli.schema import KeypointSchema

Color = tuple[int, int, int]
Connections = tuple[tuple[str, str], ...]

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


@dataclass(frozen=True)
class Colors:
    """RGB colours of each keypoint, of each limb, and of the person as a whole."""

    keypoints: Sequence[Color]
    limbs: Sequence[Color]
    person: Color


def _by_sides(schema: KeypointSchema, limbs: Connections, identity: int) -> Colors:
    if not schema.flip_pairs:
        return _by_chains(schema, limbs, identity)
    left = {name for name, _ in schema.flip_pairs}
    right = {name for _, name in schema.flip_pairs}

    def color(*names: str) -> Color:
        is_left, is_right = not left.isdisjoint(names), not right.isdisjoint(names)
        return CENTRE if is_left == is_right else LEFT if is_left else RIGHT

    return Colors(
        [color(name) for name in schema.keypoints],
        [color(*limb) for limb in limbs],
        SEVERAL[identity % len(SEVERAL)],
    )


def _by_chains(schema: KeypointSchema, limbs: Connections, identity: int) -> Colors:
    chains = _chains(schema)
    of = {
        name: WHITE if chain is None else SEVERAL[chain % len(SEVERAL)]
        for name, chain in chains.items()
    }
    return Colors(
        [of[name] for name in schema.keypoints],
        [of[a] if chains[b] is None else of[b] for a, b in limbs],
        SEVERAL[identity % len(SEVERAL)],
    )


def _by_people(schema: KeypointSchema, limbs: Connections, identity: int) -> Colors:
    color = SEVERAL[identity % len(SEVERAL)]
    return Colors([color] * len(schema), [color] * len(limbs), color)


def _by_limbs(schema: KeypointSchema, limbs: Connections, identity: int) -> Colors:
    colors = [_hue(position / max(len(limbs), 1)) for position in range(len(limbs))]
    # A keypoint looks like the first of its limbs.
    first = {
        name: color for limb, color in zip(limbs[::-1], colors[::-1], strict=True) for name in limb
    }
    points = [first.get(name, WHITE) for name in schema.keypoints]
    return Colors(points, colors, SEVERAL[identity % len(SEVERAL)])


PALETTES: dict[str, Callable[[KeypointSchema, Connections, int], Colors]] = {
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
