"""ultralytics for the scripts of this folder: nothing reported, fetched or installed."""

import os
import tempfile
from pathlib import Path
from typing import Any

os.environ |= {
    "YOLO_OFFLINE": "true",
    "YOLO_AUTOINSTALL": "false",
    "ULTRALYTICS_SKIP_REQUIREMENTS_CHECKS": "true",
    "YOLO_CONFIG_DIR": tempfile.mkdtemp(prefix="hrnet-"),
}

from ultralytics import YOLO
from ultralytics.utils import events

events.events.enabled = False


def load(path: Path | str) -> Any:  # noqa: ANN401 - ultralytics is not typed
    """Return an ultralytics model of a file, or of an architecture's YAML with fresh weights."""
    return YOLO(str(path))
