"""The head boxes that annotations of MPII give each person, for PCKh."""

import json
from pathlib import Path

import numpy as np

from hrnet_cli.data.people import Array, LabelledPeople
from hrnet_cli.errors import InputError

KEYS = ("head_box", "headbox")


def read_head_boxes(path: Path, people: LabelledPeople) -> Array | None:
    """Return the head box (x1, y1, x2, y2) of each person, in pixels; None where there are none.

    Args:
        path: The COCO-style annotation file that ``people`` was read from, each annotation with
            ``head_box``: [x1, y1, x2, y2].
        people: The data set.

    Raises:
        InputError: The file cannot be read, or has a head box for some people only.
    """
    try:
        annotations = json.loads(path.read_bytes())["annotations"]
        box_of = {a["id"]: a[key] for a in annotations for key in KEYS if key in a}
        boxes = {number: np.array(box, np.float64).reshape(4) for number, box in box_of.items()}
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise InputError(f"no head boxes can be read from '{path}': {error}") from error
    if not boxes:
        return None
    without = [number for number in people.ids_N.tolist() if number not in boxes]
    if without:
        raise InputError(f"'{path}' has no head_box for annotation {without[0]}, but for others")
    return np.array([boxes[number] for number in people.ids_N.tolist()]).reshape(-1, 4)
