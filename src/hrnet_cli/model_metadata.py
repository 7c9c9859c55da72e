"""The text in a model file that says what the network in it expects and means.

Every form that this package writes carries it: safetensors, ONNX, OpenVINO and TorchScript.
"""

import json
import math
import re
from collections.abc import Collection, Mapping
from pathlib import Path

from hrnet_cli.config import CODECS, INPUT_MULTIPLE, ModelSpec
from hrnet_cli.errors import ConfigError, WeightsError
from hrnet_cli.models import MODELS
from hrnet_cli.schema import (
    SCHEMAS,
    KeypointSchema,
    load_schema,
    schema_from_dict,
    schema_to_dict,
)

ARCHITECTURE = "hrnet"
# Weights of a training run, whose folder says which one.
_RUN_FILES = ("best", "last")


def model_name(path: Path) -> str:
    """Return the name of the model in a file: its stem, with the run before best and last."""
    if path.stem in _RUN_FILES and (run := path.absolute().parent.name):
        return f"{run}-{path.stem}"
    return path.stem


def spec_to_metadata(spec: ModelSpec) -> dict[str, str]:
    """Return the text metadata that describe a network, the inverse of `spec_from_metadata`."""
    schema = spec.schema
    builtin = schema.name in SCHEMAS and load_schema(schema.name) == schema
    return {
        "width": str(spec.width),
        "input_hw": f"{spec.input_hw[0]}x{spec.input_hw[1]}",
        "keypoint_schema": schema.name if builtin else json.dumps(schema_to_dict(schema)),
        "codec": spec.codec,
        "mean_rgb": ",".join(map(str, spec.mean_rgb)),
        "std_rgb": ",".join(map(str, spec.std_rgb)),
        "box_padding": str(spec.box_padding),
    }


def spec_from_metadata(metadata: Mapping[str, str], *, path: Path) -> ModelSpec:
    """Return the network that the metadata of one of our files describe.

    Args:
        metadata: Text by name; ``input_hw`` is "256x192" (height x width), ``keypoint_schema`` a
            built-in name or the fields of a schema as JSON, colours are "r,g,b" on a 0..1 scale.
        path: The file, for messages and `model_name`.

    Raises:
        WeightsError: Something is missing, or has a value that cannot be.
    """
    try:
        _parse_choice(metadata, "architecture", MODELS)
        return ModelSpec(
            name=model_name(path),
            width=_parse_width(metadata["width"]),
            input_hw=_parse_input_hw(metadata["input_hw"]),
            codec=_parse_choice(metadata, "codec", CODECS),
            schema=_parse_schema(metadata["keypoint_schema"]),
            mean_rgb=_parse_rgb(metadata, "mean_rgb"),
            std_rgb=_parse_rgb(metadata, "std_rgb"),
            box_padding=_parse_numbers(metadata, "box_padding", 1)[0],
        )
    except (KeyError, ValueError, ConfigError) as error:
        what = f"{error} is missing" if isinstance(error, KeyError) else str(error)
        raise WeightsError(
            f"{path}: its metadata do not describe a network: {what}",
            hint="it was not written by this version of hrnet; give --input, --codec and"
            " --keypoint-schema instead",
        ) from error


def _parse_input_hw(text: str) -> tuple[int, int]:
    sides = re.fullmatch(r"(\d+)x(\d+)", text)
    height, width = (int(side) for side in sides.groups()) if sides else (0, 0)
    if not (height and width) or height % INPUT_MULTIPLE or width % INPUT_MULTIPLE:
        raise ValueError(
            f"input_hw '{text}', expected HEIGHTxWIDTH in multiples of {INPUT_MULTIPLE}"
        )
    return height, width


def _parse_choice(metadata: Mapping[str, str], key: str, choices: Collection[str]) -> str:
    if metadata[key] not in choices:
        raise ValueError(f"{key} '{metadata[key]}', expected one of {', '.join(choices)}")
    return metadata[key]


def _parse_schema(text: str) -> KeypointSchema:
    if text in SCHEMAS:
        return load_schema(text)
    if not text.startswith("{"):
        raise ValueError(
            f"keypoint_schema '{text}', expected one of {', '.join(SCHEMAS)} or the fields of a"
            " schema as JSON"
        )
    return schema_from_dict(json.loads(text), where="keypoint_schema")


def _parse_rgb(metadata: Mapping[str, str], key: str) -> tuple[float, float, float]:
    red, green, blue = _parse_numbers(metadata, key, 3)
    return red, green, blue


def _parse_numbers(metadata: Mapping[str, str], key: str, count: int) -> list[float]:
    try:
        values = [float(value) for value in metadata[key].split(",")]
    except ValueError:
        values = []
    if len(values) != count or not all(map(math.isfinite, values)):
        numbers = "one number" if count == 1 else f"{count} numbers with commas between"
        raise ValueError(f"{key} '{metadata[key]}', expected {numbers}")
    return values


def _parse_width(text: str) -> int:
    if not text.isdecimal():
        raise ValueError(f"width '{text}', expected a whole number")
    return int(text)
