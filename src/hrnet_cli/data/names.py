"""What keypoint names say: mirror pairs, halves of the body, and which built-in schema they are."""

import re
from collections import defaultdict
from functools import cache

from hrnet_cli.data.people import LabelledPeople
from hrnet_cli.schema import SCHEMAS, KeypointSchema, load_schema

Pairs = tuple[tuple[str, str], ...]

_SIDES = {"left": "left", "right": "right"}
_LETTERS = {"l": "left", "r": "right"}
# Words that two sets of names may use for the same keypoint.
_SAME_WORD = {"f": "front", "b": "back", "l": "left", "r": "right"}
_SAME_NAME = {"head top": "head", "top head": "head"}
_WORD = re.compile(r"[A-Z]+(?=[A-Z][a-z])|[A-Z]?[a-z]+|[A-Z]+|\d+")
_NAMELESS = re.compile(r"(k|kp|kpt|kps|keypoint|key|p|pt|point|joint|landmark)?[ _.-]?\d+", re.I)
_FACE = ("head", "neck", "eye", "ear", "nose", "mouth", "chin", "face", "forehead")
_ARM = ("shoulder", "clavicle", "elbow", "wrist", "hand", "thumb", "finger")
_UPPER = frozenset((*_FACE, *_ARM, "thorax", "chest"))
_LOWER = frozenset(("hip", "pelvis", "knee", "ankle", "foot", "heel", "toe", "leg"))
_ANIMAL = frozenset(("paw", "tail", "hoof", "wing", "withers"))


def derive_flip_pairs(names: tuple[str, ...]) -> Pairs:
    """Return the (left, right) names that differ in nothing but the side they name.

    Known are the words left and right and the letters l and r, in front, at the end or between,
    set off by a space, ``_``, ``-``, ``.`` or a capital letter, or written together
    (``lefteye``, ``lwrist``). A name that could pair with several pairs with none.
    """
    sides: dict[str, dict[str, list[str]]] = defaultdict(lambda: {"left": [], "right": []})
    for name in names:
        for key, side in _readings(name):
            sides[key][side].append(name)
    pairs: dict[str, str] = {}
    for found in sides.values():
        if len(found["left"]) == len(found["right"]) == 1:
            (left,), (right,) = found["left"], found["right"]
            if left not in pairs and right not in pairs.values():
                pairs[left] = right
    return tuple((left, pairs[left]) for left in names if left in pairs)


def sided_without_partner(schema: KeypointSchema) -> tuple[str, ...]:
    """Return the keypoints whose name says left or right and that stand in no flip pair."""
    paired = {name for pair in schema.flip_pairs for name in pair}
    return tuple(
        name
        for name in schema.keypoints
        if name not in paired and _SIDES.keys() & set(words_of(name, letters=False))
    )


def are_nameless(names: tuple[str, ...]) -> bool:
    """Return whether the names are only numbers, such as ``kpt_0``."""
    return all(_NAMELESS.fullmatch(name) for name in names)


def can_mirror(people: LabelledPeople) -> bool:
    """Return whether pictures of these people may be mirrored in training and testing.

    Mirroring needs to know which keypoints change places. With flip pairs that is known. Names
    without left and right, as those of one hand, keep their places: a mirrored left hand is a right
    hand. Not known it is when a name says left or right and has no partner, and when the keypoints
    are only numbered and no pairs were given: then mirroring would teach wrong places.
    """
    schema = people.schema
    if sided_without_partner(schema):
        return False
    return bool(schema.flip_pairs) or not are_nameless(schema.keypoints)


def describe_schema(people: LabelledPeople) -> list[str]:
    """Return lines that say what was understood of the keypoints of a data set."""
    schema = people.schema
    first, *others = schema.oks_sigmas
    constants = " ".join(f"{sigma:g}" for sigma in schema.oks_sigmas)
    if others and set(others) == {first}:
        constants = f"{first:.3g} each"
    lines = [
        f"{people.name}: {len(schema)} keypoints (schema {schema.name}): "
        + ", ".join(schema.keypoints),
        f"flip pairs: {_describe_pairs(people)}",
        f"OKS sigmas: {constants}",
        f"skeleton: {len(schema.skeleton)} limbs",
    ]
    if schema.upper_body and schema.lower_body:
        lines.append(
            f"half-body augmentation: {len(schema.upper_body)} keypoints above,"
            f" {len(schema.lower_body)} below"
        )
    else:
        lines.append("half-body augmentation: off, the names do not say upper and lower body")
    return lines


def complete_schema(schema: KeypointSchema) -> KeypointSchema:
    """Return a schema with flip pairs and halves derived from the names where it has none."""
    upper, lower = schema.upper_body, schema.lower_body
    if not upper and not lower:
        upper, lower = derive_halves(schema.keypoints)
    return KeypointSchema(
        name=schema.name,
        keypoints=schema.keypoints,
        skeleton=schema.skeleton,
        flip_pairs=schema.flip_pairs or derive_flip_pairs(schema.keypoints),
        oks_sigmas=schema.oks_sigmas,
        upper_body=upper,
        lower_body=lower,
    )


def derive_halves(names: tuple[str, ...]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the names of the upper and of the lower body of a human; empty for anything else."""
    words = {name: {_singular(word) for word in words_of(name)} for name in names}
    every = set().union(*words.values()) if words else set()
    if every & _ANIMAL or not {"shoulder", "hip"} <= every:
        return (), ()
    lower = tuple(name for name in names if words[name] & _LOWER)
    upper = tuple(name for name in names if words[name] & _UPPER and name not in lower)
    return upper, lower


def find_builtin(names: tuple[str, ...]) -> KeypointSchema | None:
    """Return the built-in schema with these keypoints in this order, however they are spelt."""
    return _builtin_by_names().get(tuple(_canonical(name) for name in names))


@cache
def _builtin_by_names() -> dict[tuple[str, ...], KeypointSchema]:
    known = (load_schema(name) for name in SCHEMAS)
    return {tuple(_canonical(name) for name in schema.keypoints): schema for schema in known}


def _canonical(name: str) -> str:
    plain = " ".join(_SAME_WORD.get(word, word) for word in words_of(name))
    return _SAME_NAME.get(plain, plain)


def _describe_pairs(people: LabelledPeople) -> str:
    schema = people.schema
    pairs = ", ".join(f"{left} and {right}" for left, right in schema.flip_pairs)
    if lonely := sided_without_partner(schema):
        return (
            f"{pairs or 'none'}; {', '.join(lonely)} without a partner on the other side:"
            " mirroring is off"
        )
    if not pairs and can_mirror(people):
        return "none, the names have no left and right: mirrored pictures keep the keypoints"
    return pairs or "none can be derived from the names: mirroring is off"


def words_of(name: str, *, letters: bool = True) -> list[str]:
    """Return the words of a name in lower case, a glued left or right split off.

    Args:
        name: A keypoint name.
        letters: Spell single letters l and r out as left and right.
    """
    words: list[str] = []
    for word in (match.lower() for match in _WORD.findall(name)):
        side = next((side for side in _SIDES if word.startswith(side) and word != side), None)
        if side is not None and len(word) > len(side) + 1:
            words += [side, word.removeprefix(side)]
        else:
            words.append(_LETTERS[word] if letters and word in _LETTERS else word)
    return words


def _readings(name: str) -> list[tuple[str, str]]:
    """Return (name without its side, side) for every way to read a side in a name."""
    words = words_of(name)
    at = [place for place, word in enumerate(words) if word in _SIDES]
    if len(at) == 1:
        rest = [*words[: at[0]], "*", *words[at[0] + 1 :]]
        return [(" ".join(rest), words[at[0]])]
    first = name[:1].lower()
    if not at and first in _LETTERS and len(name) > 2:
        return [(f"*{name[1:].lower()}", _LETTERS[first])]
    return []


def _singular(word: str) -> str:
    return {"feet": "foot"}.get(word, word.removesuffix("s") if word != "pelvis" else word)
