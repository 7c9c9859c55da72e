"""Keypoint schemas: what the keypoints of a model are called, connected and mirrored by.

A schema is a TOML file; the built-in ones lie in ``schemas/``, and users write their own with the
same fields. Everything refers to keypoints by name; indices are derived here, once.
"""

import math
import tomllib
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cache, cached_property
from pathlib import Path
from typing import Any, cast

from hrnet_cli.errors import ConfigError

# With few keypoints 1/K would take nearly any point of the person for right. The largest of COCO's
# own, for hips, is 0.107.
LARGEST_DEFAULT_SIGMA = 0.1
SCHEMA_FOLDER = Path(__file__).parent / "schemas"
# First keypoint and end of each part in the order of COCO-WholeBody (Jin et al., ECCV 2020), by the
# names its files use.
WHOLE_BODY = "wholebody133"
WHOLE_BODY_PARTS = {
    "body": (0, 17), "foot": (17, 23), "face": (23, 91), "lefthand": (91, 112),
    "righthand": (112, 133),
}  # fmt: skip
SCHEMAS = ("coco17", "mpii16", "crowdpose14", "aic14", "halpe26", "wholebody133", "hand21", "ap10k")


@dataclass(frozen=True)
class KeypointSchema:
    """Names, limbs, mirror pairs and OKS constants of one set of keypoints.

    Attributes:
        name: Short name written into records, such as ``coco17``.
        keypoints: Keypoint names in the order of the heatmap channels.
        skeleton: Limbs to draw, as pairs of keypoint names.
        flip_pairs: (left, right) names that change places in a mirrored picture; left and right
            of the person, not of the picture. A keypoint stands in one pair at most.
        oks_sigmas: Per-keypoint OKS constant sigma (COCO keypoint evaluation), one per keypoint.
            Left out or empty: 1/K for each of the K keypoints, `LARGEST_DEFAULT_SIGMA` at most.
        upper_body: Names of the upper half, for half-body augmentation; may be empty.
        lower_body: Names of the lower half.

    Raises:
        ConfigError: A name is unknown, doubled or paired twice, or the sigmas do not fit.
    """

    name: str
    keypoints: tuple[str, ...]
    skeleton: tuple[tuple[str, str], ...] = ()
    flip_pairs: tuple[tuple[str, str], ...] = ()
    oks_sigmas: tuple[float, ...] = ()
    upper_body: tuple[str, ...] = ()
    lower_body: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Check the fields against each other."""
        _check_keypoints(self)
        _check_flip_pairs(self)
        if not self.oks_sigmas:
            count = len(self.keypoints)
            sigma = min(1.0 / count, LARGEST_DEFAULT_SIGMA)
            object.__setattr__(self, "oks_sigmas", (sigma,) * count)
        _check_sigmas(self)

    def __len__(self) -> int:
        """Return the number of keypoints."""
        return len(self.keypoints)

    @cached_property
    def index(self) -> dict[str, int]:
        """Map each keypoint name to its 0-based position."""
        return {name: position for position, name in enumerate(self.keypoints)}

    @cached_property
    def edges(self) -> tuple[tuple[int, int], ...]:
        """Return the limbs as 0-based index pairs."""
        return tuple((self.index[a], self.index[b]) for a, b in self.skeleton)

    @cached_property
    def flip_indices(self) -> tuple[int, ...]:
        """Return, for each keypoint, the index it takes in a mirrored picture."""
        indices = list(range(len(self.keypoints)))
        for left, right in self.flip_pairs:
            a, b = self.index[left], self.index[right]
            indices[a], indices[b] = b, a
        return tuple(indices)


def load_schema(name_or_path: str) -> KeypointSchema:
    """Return a built-in schema by name, or the one a TOML file describes.

    Args:
        name_or_path: A name of ``SCHEMAS``, or the path of a ``.toml`` file with the fields
            ``name``, ``keypoints``, ``skeleton``, ``flip_pairs``, ``oks_sigmas``,
            ``upper_body`` and ``lower_body`` (all but the first two optional).

    Raises:
        ConfigError: No such schema, the file is missing or broken, or it contradicts itself.
    """
    if name_or_path in SCHEMAS:
        return _builtin(name_or_path)
    path = Path(name_or_path)
    if path.suffix == ".toml":
        return _read_schema(path)
    close = get_close_matches(name_or_path, SCHEMAS, n=1)
    guess = f"did you mean '{close[0]}'? " if close else ""
    raise ConfigError(
        f"keypoint schema '{name_or_path}' is not known; expected one of {', '.join(SCHEMAS)}"
        " or a .toml file",
        hint=f"{guess}the built-in files in {SCHEMA_FOLDER} show the form",
    )


def schema_from_dict(fields: dict[str, Any], *, where: str) -> KeypointSchema:
    """Return the schema that parsed TOML or JSON describes.

    Args:
        fields: Field name to value, lists as TOML gives them.
        where: File or place the fields come from, for messages.

    Raises:
        ConfigError: A field is unknown, missing or of the wrong type, or the schema contradicts
            itself.
    """
    known = KeypointSchema.__dataclass_fields__
    for key in fields:
        if key not in known:
            close = get_close_matches(key, known, n=1)
            hint = f"did you mean '{close[0]}'?" if close else f"known keys: {', '.join(known)}"
            raise ConfigError(f"{where}: unknown key '{key}'", hint=hint)
    try:
        return KeypointSchema(
            name=_text(fields, "name"),
            keypoints=_names(fields, "keypoints"),
            skeleton=_pairs(fields, "skeleton"),
            flip_pairs=_pairs(fields, "flip_pairs"),
            oks_sigmas=_numbers(fields, "oks_sigmas"),
            upper_body=_names(fields, "upper_body"),
            lower_body=_names(fields, "lower_body"),
        )
    except ConfigError as error:
        raise ConfigError(f"{where}: {error.message}", hint=error.hint) from None


def schema_to_dict(schema: KeypointSchema) -> dict[str, Any]:
    """Return the fields of a schema as plain lists, the inverse of `schema_from_dict`."""
    return {
        "name": schema.name,
        "keypoints": list(schema.keypoints),
        "skeleton": [list(pair) for pair in schema.skeleton],
        "flip_pairs": [list(pair) for pair in schema.flip_pairs],
        "oks_sigmas": list(schema.oks_sigmas),
        "upper_body": list(schema.upper_body),
        "lower_body": list(schema.lower_body),
    }


def check_pairs(schema: KeypointSchema, key: str, pairs: tuple[tuple[str, str], ...]) -> None:
    """Raise ConfigError unless every pair joins two different keypoints of the schema."""
    for a, b in pairs:
        for name in (a, b):
            if name not in schema.keypoints:
                close = get_close_matches(name, schema.keypoints, n=1)
                hint = f"did you mean '{close[0]}'?" if close else ""
                raise ConfigError(
                    f"{key} of schema '{schema.name}' names keypoint '{name}', which is not"
                    " among its keypoints",
                    hint=hint or f"keypoints: {', '.join(schema.keypoints)}",
                )
        if a == b:
            raise ConfigError(
                f"{key} of schema '{schema.name}' pairs '{a}' with itself",
                hint="a pair needs two different keypoints",
            )


@cache
def _builtin(name: str) -> KeypointSchema:
    return _read_schema(SCHEMA_FOLDER / f"{name}.toml")


def _read_schema(path: Path) -> KeypointSchema:
    try:
        fields = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ConfigError(f"{path}: not readable as TOML: {error}") from error
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from error
    return schema_from_dict(fields, where=str(path))


def _text(fields: dict[str, Any], key: str) -> str:
    value = fields.get(key, "")
    if not isinstance(value, str) or not value:
        raise ConfigError(f"'{key}' is {value!r}, expected a non-empty text")
    return value


def _names(fields: dict[str, Any], key: str) -> tuple[str, ...]:
    value = _list(fields, key, "names")
    if not all(isinstance(name, str) and name for name in value):
        raise ConfigError(f"'{key}' is {value!r}, expected a list of names")
    return tuple(value)


def _pairs(fields: dict[str, Any], key: str) -> tuple[tuple[str, str], ...]:
    value = _list(fields, key, "pairs of keypoint names")
    for pair in value:
        if not (isinstance(pair, list) and list(map(type, cast("list[Any]", pair))) == [str, str]):
            raise ConfigError(f"'{key}' holds {pair!r}, expected a pair of keypoint names")
    return tuple((pair[0], pair[1]) for pair in value)


def _numbers(fields: dict[str, Any], key: str) -> tuple[float, ...]:
    value = _list(fields, key, "numbers")
    if not all(type(number) in (int, float) for number in value):
        raise ConfigError(f"'{key}' is {value!r}, expected a list of numbers")
    return tuple(float(number) for number in value)


def _list(fields: dict[str, Any], key: str, of: str) -> list[Any]:
    value = fields.get(key, [])
    if not isinstance(value, list):
        raise ConfigError(f"'{key}' is {value!r}, expected a list of {of}")
    return cast("list[Any]", value)


def _check_keypoints(schema: KeypointSchema) -> None:
    if not schema.keypoints:
        raise ConfigError(f"schema '{schema.name}' has no keypoints, expected at least one name")
    for name in schema.keypoints:
        if schema.keypoints.count(name) > 1:
            raise ConfigError(f"schema '{schema.name}' names keypoint '{name}' more than once")
    check_pairs(schema, "skeleton", schema.skeleton)
    for key in ("upper_body", "lower_body"):
        for name in getattr(schema, key):
            if name not in schema.keypoints:
                raise ConfigError(
                    f"{key} of schema '{schema.name}' names '{name}', which is not a keypoint"
                )


def _check_flip_pairs(schema: KeypointSchema) -> None:
    check_pairs(schema, "flip_pairs", schema.flip_pairs)
    paired = [name for pair in schema.flip_pairs for name in pair]
    for name in paired:
        if paired.count(name) > 1:
            raise ConfigError(
                f"flip_pairs of schema '{schema.name}' use '{name}' more than once",
                hint="mirroring twice must give the same picture: one partner for each keypoint",
            )


def _check_sigmas(schema: KeypointSchema) -> None:
    if len(schema.oks_sigmas) != len(schema.keypoints):
        raise ConfigError(
            f"schema '{schema.name}' has {len(schema.oks_sigmas)} oks_sigmas,"
            f" expected {len(schema.keypoints)}, one for each keypoint",
            hint="leave oks_sigmas out to use 1/K for each, 0.1 at most",
        )
    for keypoint, sigma in zip(schema.keypoints, schema.oks_sigmas, strict=True):
        if not 0 < sigma < math.inf:  # TOML knows nan and inf
            raise ConfigError(
                f"schema '{schema.name}' has OKS sigma {sigma} for '{keypoint}',"
                " expected a number above 0"
            )
