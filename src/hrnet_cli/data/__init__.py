"""Data sets of every form, read into `hrnet_cli.data.people.LabelledPeople`."""

import logging
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from hrnet_cli.data.people import LabelledPeople

log = logging.getLogger(__name__)


def open_dataset(
    name: str,
    *,
    split: str = "train",
    folder: Path | None = None,
    on_note: Callable[[str], None] = log.info,
    category: str | None = None,
    cache: bool = True,
) -> "LabelledPeople":
    """Return the labelled people of a data set.

    Args:
        name: ``coco``, ``coco-wholebody``, ``crowdpose``, ``mpii``, or a path: a ``.json`` in the
            style of COCO or of MPII's official records, a data set file ``.toml``, or a YOLO-pose
            ``data.yaml`` or the folder it lies in.
        split: ``train`` or ``val``, or what the data set calls it; a JSON file is one split.
        folder: Where the data lie: the folder of ``coco``, the photos of a JSON file.
        on_note: Called with a line for each thing worth knowing: what the keypoints are taken to
            be, what was derived, what was left out.
        category: Category or class to take where several have different keypoints.
        cache: Keep what was read in the cache folder, for a faster start next time.

    Raises:
        InputError: The data set is missing, empty, or contradicts itself.
        ConfigError: A ``.toml`` or ``.yaml`` file says something that cannot be.
    """
    from hrnet_cli.data.names import describe_schema
    from hrnet_cli.data.opening import Wanted, pick_reader

    labels = pick_reader(name)(Wanted(name, split, folder, category, cache))
    for line in (*describe_schema(labels.people), *labels.notes):
        on_note(line)
    return labels.people
