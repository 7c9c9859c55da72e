"""Data set files: a TOML file that says where annotations and photos lie and how to take them.

Fields: ``name``; ``train``, ``val`` and ``test``, each ``{annotations = "FILE", photos = "DIR"}``;
``schema``, a built-in name, a TOML file or a table with the fields of one; ``category``;
``label_weights.source`` and ``label_weights.keypoint``, tables of numbers from 0 up. Paths are
relative to the file.
"""

import math
import tomllib
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from hrnet_cli.errors import ConfigError, NoSplitError
from hrnet_cli.schema import SCHEMAS, KeypointSchema, load_schema, schema_from_dict

SPLITS = ("train", "val", "test")
_KEYS = ("name", *SPLITS, "schema", "category", "label_weights")


@dataclass(frozen=True)
class Part:
    """One split: its annotation file, and its photos where that is said."""

    annotations: Path
    photos: Path | None


@dataclass(frozen=True)
class DatasetFile:
    """A data set file as read.

    Attributes:
        path: The file.
        name: What the data set is called in reports.
        parts: The splits it has.
        schema: Keypoints, where the annotation files shall not say them.
        category: Category to take, where the annotations have several.
        source_weights: Label weight by the annotations' ``source``.
        keypoint_weights: Label weight by keypoint name.
    """

    path: Path
    name: str
    parts: dict[str, Part]
    schema: KeypointSchema | None = None
    category: str | None = None
    source_weights: dict[str, float] = field(default_factory=dict)
    keypoint_weights: dict[str, float] = field(default_factory=dict)

    def part(self, split: str) -> Part:
        """Return a split.

        Raises:
            NoSplitError: The file has none of this name.
        """
        if split not in self.parts:
            raise NoSplitError(
                f"{self.path} has no '{split}', only {', '.join(self.parts)}",
                hint=f'add a line: {split} = {{annotations = "FILE.json", photos = "DIR"}}',
            )
        return self.parts[split]


def read_dataset_file(path: Path, folder: Path | None = None) -> DatasetFile:
    """Return what a data set file says.

    Args:
        path: The file.
        folder: What its paths are relative to; left out, the folder it lies in.

    Raises:
        ConfigError: It cannot be read, or a key is unknown, missing or of the wrong type.
    """
    try:
        fields = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ConfigError(f"{path}: not readable as TOML: {error}") from error
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from error
    _check_keys(fields, _KEYS, str(path))
    root = folder or path.parent
    parts = {split: _part(path, root, split, fields[split]) for split in SPLITS if split in fields}
    if not parts:
        raise ConfigError(
            f"{path} has no split, expected train, val or test",
            hint='such as: train = {annotations = "train.json", photos = "images"}',
        )
    weights = _table(fields, "label_weights", str(path))
    _check_keys(weights, ("source", "keypoint"), f"{path}: label_weights")
    return DatasetFile(
        path=path,
        name=_text(fields, "name", str(path)) or path.stem,
        parts=parts,
        schema=_schema(path, root, fields.get("schema")),
        category=_text(fields, "category", str(path)) or None,
        source_weights=_weights(weights, "source", path),
        keypoint_weights=_weights(weights, "keypoint", path),
    )


def _part(path: Path, root: Path, split: str, value: Any) -> Part:  # noqa: ANN401 - any TOML
    where = f"{path}: {split}"
    if not isinstance(value, dict):
        raise ConfigError(
            f"{where} is {value!r}, expected a table",
            hint=f'write {split} = {{annotations = "FILE.json", photos = "DIR"}}',
        )
    _check_keys(value, ("annotations", "photos"), where)
    annotations = _text(value, "annotations", where)
    if not annotations:
        raise ConfigError(f"{where} has no 'annotations', expected the path of a COCO-style JSON")
    photos = _text(value, "photos", where)
    return Part(root / annotations, root / photos if photos else None)


def _schema(path: Path, root: Path, value: Any) -> KeypointSchema | None:  # noqa: ANN401
    if value is None:
        return None
    if isinstance(value, dict):
        return schema_from_dict({"name": path.stem, **value}, where=f"{path}: schema")
    if not isinstance(value, str):
        raise ConfigError(f"{path}: schema is {value!r}, expected a name, a file or a table")
    return load_schema(value if value in SCHEMAS or "." not in value else str(root / value))


def _weights(tables: dict[str, Any], key: str, path: Path) -> dict[str, float]:
    where = f"{path}: label_weights.{key}"
    table = _table(tables, key, f"{path}: label_weights")
    for name, value in table.items():
        if type(value) not in (int, float) or not 0 <= value < math.inf:
            raise ConfigError(f"{where}: {name} is {value!r}, expected a number from 0 up")
    return {name: float(value) for name, value in table.items()}


def _table(fields: dict[str, Any], key: str, where: str) -> dict[str, Any]:
    value = fields.get(key, {})
    if not isinstance(value, dict):
        raise ConfigError(f"{where}: {key} is {value!r}, expected a table")
    return value


def _text(fields: dict[str, Any], key: str, where: str) -> str:
    value = fields.get(key, "")
    if not isinstance(value, str):
        raise ConfigError(f"{where}: {key} is {value!r}, expected a text")
    return value


def _check_keys(fields: dict[str, Any], known: tuple[str, ...], where: str) -> None:
    for key in fields:
        if key not in known:
            close = get_close_matches(key, known, n=1)
            hint = f"did you mean '{close[0]}'?" if close else f"known keys: {', '.join(known)}"
            raise ConfigError(f"{where}: unknown key '{key}'", hint=hint)
