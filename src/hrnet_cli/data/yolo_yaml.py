"""The ``data.yaml`` of a YOLO-pose data set: where its photos lie and what its keypoints are.

The form is that of ultralytics: ``path``, ``train``, ``val``, ``names``, ``kpt_shape`` (keypoints,
numbers for each), ``flip_idx``, and in newer files ``kpt_names``.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hrnet_cli.data.names import Pairs, complete_schema, derive_flip_pairs, find_builtin
from hrnet_cli.errors import ConfigError, InputError, NoSplitError
from hrnet_cli.images import IMAGE_SUFFIXES
from hrnet_cli.schema import KeypointSchema, load_schema

Fields = dict[str, Any]


@dataclass(frozen=True)
class YoloYaml:
    """A ``data.yaml`` as read.

    Attributes:
        path: The file.
        root: Folder its paths are relative to.
        splits: Folders or lists of photos of each split, as written.
        classes: Class names by number.
        numbers: Numbers for each keypoint: 2 for x and y, 3 with visibility.
        schema: The keypoints.
        notes: How the keypoints were understood.
    """

    path: Path
    root: Path
    splits: dict[str, tuple[str, ...]]
    classes: dict[int, str]
    numbers: int
    schema: KeypointSchema
    notes: tuple[str, ...]

    def photos(self, split: str) -> list[Path]:
        """Return the photos of a split in a fixed order.

        Raises:
            NoSplitError: There is no such split.
            InputError: Its folder or list is missing or names no photo.
        """
        if split not in self.splits:
            raise NoSplitError(
                f"{self.path} has no '{split}', only {', '.join(self.splits) or 'other keys'}",
                hint=f"add a line: {split}: images/{split}",
            )
        photos = [photo for entry in self.splits[split] for photo in self._photos_of(entry)]
        if not photos:
            raise InputError(
                f"{self.path}: no photo in {split}: {', '.join(self.splits[split])}",
                hint=f"photos end in {' '.join(IMAGE_SUFFIXES)}",
            )
        return photos

    def _photos_of(self, entry: str) -> list[Path]:
        places = [root / entry for root in dict.fromkeys([self.root, self.path.parent])]
        # Data sets exported by Roboflow write ../train/images for folders beside the file.
        places += [self.path.parent / entry.removeprefix("../")]
        place = next((place for place in places if place.exists()), None)
        if place is None:
            raise InputError(
                f"{self.path}: '{entry}' is missing; looked for"
                f" {', '.join(str(place) for place in dict.fromkeys(places))}",
                hint="correct path: in the file, or give the folder with --data DIR",
            )
        try:
            if place.is_dir():
                below = [path for path in place.rglob("*") if path.suffix.lower() in IMAGE_SUFFIXES]
                return sorted(path for path in below if path.is_file())
            lines = place.read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise InputError(f"{self.path}: '{place}' cannot be read: {error}") from error
        return [self._listed(place, line.strip()) for line in lines if line.strip()]

    def _listed(self, listing: Path, line: str) -> Path:
        beside = listing.parent / line
        return beside if beside.exists() else self.root / line


def read_yolo_yaml(path: Path, folder: Path | None = None) -> YoloYaml:
    """Return what a ``data.yaml`` says.

    Args:
        path: The file.
        folder: Where the data lie, in place of its ``path``.

    Raises:
        ConfigError: It cannot be read, is not of a pose data set, or contradicts itself.
    """
    fields = _load(path)
    count, numbers = _shape(path, fields)
    schema, notes = _schema(path, fields, count)
    root = folder
    if root is None:
        root = path.parent / str(fields.get("path") or "")
        root = root if root.is_dir() else path.parent
    splits = {key: _entries(path, key, fields[key]) for key in ("train", "val", "test")
              if fields.get(key)}  # fmt: skip
    return YoloYaml(path, root, splits, _classes(path, fields), numbers, schema, tuple(notes))


def _load(path: Path) -> Fields:
    import yaml

    try:
        fields = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        reason = " ".join(str(error).split())
        raise ConfigError(f"{path}: not readable as YAML: {reason}") from error
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from error
    if not isinstance(fields, dict):
        raise ConfigError(f"{path}: expected a YAML table with kpt_shape, train and val")
    return fields


def _shape(path: Path, fields: Fields) -> tuple[int, int]:
    shape = fields.get("kpt_shape")
    if shape is None:
        raise ConfigError(
            f"{path} has no kpt_shape, so it is no YOLO-pose data set",
            hint="pose data sets say kpt_shape: [keypoints, 2 or 3]",
        )
    if not (
        isinstance(shape, list)
        and len(shape) == 2
        and all(type(number) is int for number in shape)
        and shape[0] > 0
        and shape[1] in (2, 3)
    ):
        raise ConfigError(f"{path}: kpt_shape is {shape!r}, expected [keypoints, 2 or 3]")
    return shape[0], shape[1]


def _classes(path: Path, fields: Fields) -> dict[int, str]:
    names = fields.get("names") or {}
    classes = dict(enumerate(names)) if isinstance(names, list) else names
    if not isinstance(classes, dict) or not all(type(number) is int for number in classes):
        raise ConfigError(f"{path}: names is {names!r}, expected a list, or names by number")
    return {number: str(name) for number, name in classes.items()}


def _entries(path: Path, key: str, value: Any) -> tuple[str, ...]:  # noqa: ANN401 - any YAML
    entries = value if isinstance(value, list) else [value]
    if not all(isinstance(entry, str) for entry in entries):
        raise ConfigError(f"{path}: {key} is {value!r}, expected a folder or a list of them")
    return tuple(entries)


def _schema(path: Path, fields: Fields, count: int) -> tuple[KeypointSchema, list[str]]:
    names = _names(path, fields, count)
    flips = _flips(path, fields, count)
    if names is None:
        coco = load_schema("coco17")
        if flips is not None and tuple(flips) == coco.flip_indices:
            return coco, ["keypoints without names, 17 and mirrored as COCO's: taken as coco17"]
        names = tuple(f"kpt_{number}" for number in range(count))
    builtin = find_builtin(names)
    if builtin is not None and (flips is None or tuple(flips) == builtin.flip_indices):
        return builtin, [f"keypoints are those of {builtin.name}"]
    return complete_schema(
        KeypointSchema(
            name=f"{path.parent.resolve().name or 'yolo'}{count}",
            keypoints=names,
            flip_pairs=_pairs(path, names, flips) if flips is not None else (),
        )
    ), []


def _names(path: Path, fields: Fields, count: int) -> tuple[str, ...] | None:
    """Return the keypoint names, None where the file has none."""
    value = fields.get("kpt_names") or fields.get("keypoint_names")
    if isinstance(value, dict):  # by class; all classes share kpt_shape
        value = next(iter(value.values()), None)
    if value is None:
        return None
    if not (isinstance(value, list) and all(isinstance(name, str) for name in value)):
        raise ConfigError(f"{path}: kpt_names is {value!r}, expected a list of names")
    if len(value) != count:
        raise ConfigError(
            f"{path} has {len(value)} kpt_names and kpt_shape for {count} keypoints, expected as"
            " many"
        )
    return tuple(value)


def _flips(path: Path, fields: Fields, count: int) -> list[int] | None:
    flips = fields.get("flip_idx")
    if not flips:
        return None
    if not isinstance(flips, list) or sorted(map(str, flips)) != sorted(map(str, range(count))):
        raise ConfigError(
            f"{path}: flip_idx is {flips!r}, expected the numbers 0 to {count - 1}, each once"
        )
    for index, other in enumerate(flips):
        if flips[other] != index:
            raise ConfigError(
                f"{path}: flip_idx sends keypoint {index} to {other}, and {other} to"
                f" {flips[other]}, expected back to {index}",
                hint="mirroring twice must give the same picture: one partner for each keypoint",
            )
    return flips


def _pairs(path: Path, names: tuple[str, ...], flips: list[int]) -> Pairs:
    """Return the pairs of ``flip_idx``, left first where the names say it.

    Raises:
        ConfigError: The names say otherwise.
    """
    pairs = [(names[a], names[b]) for a, b in enumerate(flips) if a < b]
    derived = derive_flip_pairs(names)
    said = {frozenset(pair) for pair in pairs}
    for left, right in derived:
        if frozenset((left, right)) not in said:
            raise ConfigError(
                f"{path}: flip_idx does not exchange '{left}' and '{right}', as their names say",
                hint=f"flip_idx counts from 0: {left} is {names.index(left)}, {right} is"
                f" {names.index(right)}",
            )
    return tuple((b, a) if (b, a) in derived else (a, b) for a, b in pairs)
