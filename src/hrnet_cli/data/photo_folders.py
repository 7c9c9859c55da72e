"""Where the photos of an annotation file lie."""

import re
from collections.abc import Sequence
from pathlib import Path

from hrnet_cli.errors import InputError

SAMPLED = 24  # file names looked for in each folder
_COMMON = ("images", "photos", "imgs", "img", "data")


def find_photo_folder(
    names: Sequence[str], annotations: Path, split: str, folder: Path | None = None
) -> Path:
    """Return the folder that holds the photos an annotation file names.

    Args:
        names: File names in the annotations, with or without folders of their own.
        annotations: The annotation file.
        split: Split asked for, a folder name that is tried.
        folder: Where to look; left out, the file's own folder and the one above.

    Raises:
        InputError: No folder tried holds one of the names.
    """
    roots = [folder] if folder is not None else [annotations.parent, annotations.parent.parent]
    step = max(1, len(names) // SAMPLED)
    sample = names[::step][:SAMPLED]
    candidates = [place for root in roots for place in _below(root, annotations.stem, split)]
    best, found = max(
        ((place, sum((place / name).is_file() for name in sample)) for place in candidates),
        key=lambda pair: pair[1],
    )
    if found:
        return best
    tried = [f"'{place}'" for place in candidates if place.is_dir()]
    places = ", ".join(tried) or f"'{roots[0]}', which is no folder"
    raise InputError(
        f"none of the photos that '{annotations}' names, such as '{sample[0]}', was found;"
        f" looked in {places}",
        hint="say where the photos are with --data DIR",
    )


def _below(root: Path, stem: str, split: str) -> list[Path]:
    """Return the folders to try below a root, the likeliest first and each once."""
    words = [split, *reversed(re.split(r"[_\-.]", stem))]
    inner = [*_COMMON, *words, *(f"{common}/{word}" for common in _COMMON[:2] for word in words)]
    return list(dict.fromkeys([root, *(root / name for name in inner if name)]))
