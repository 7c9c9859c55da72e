"""The crowd index that CrowdPose's annotations give each photo."""

import json
from pathlib import Path

import numpy as np

from hrnet_cli.data.people import Array, LabelledPeople
from hrnet_cli.errors import InputError


def read_crowd_index(path: Path, people: LabelledPeople) -> Array | None:
    """Return the crowd index of each photo, 0 to 1; None where the file has none.

    Args:
        path: The annotation file that ``people`` was read from.
        people: The data set.

    Raises:
        InputError: The file cannot be read, or has an index for some photos only.
    """
    try:
        images = json.loads(path.read_bytes())["images"]
        index_of = {i["id"]: float(i["crowdIndex"]) for i in images if "crowdIndex" in i}
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise InputError(f"no crowd index can be read from '{path}': {error}") from error
    if not index_of:
        return None
    without = [photo_id for photo_id in people.photo_ids_P.tolist() if photo_id not in index_of]
    if without:
        raise InputError(f"'{path}' has no crowdIndex for photo {without[0]}, but for others")
    return np.array([index_of[photo_id] for photo_id in people.photo_ids_P.tolist()])
