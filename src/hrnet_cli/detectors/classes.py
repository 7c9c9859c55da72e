"""Looking up the classes to box by the names a detector or an annotation file gives them."""

from collections.abc import Mapping
from difflib import get_close_matches

from hrnet_cli.errors import InputError

# A COCO detector knows 80 classes: an error line names the likeliest few.
_NAMES_SHOWN = 12


def folded_classes(class_names: str) -> set[str]:
    """Return the names of ``cat,dog`` in lower case, and the whole, which may be a name itself."""
    whole = class_names.strip().casefold()
    return {whole, *(part.strip() for part in whole.split(",") if part.strip())}


def class_indices(names: Mapping[int, str], class_names: str, owner: str) -> tuple[int, ...]:
    """Return the numbers of classes.

    Args:
        names: Class names by number.
        class_names: Name to find, or several with commas between them; upper and lower case are
            the same.
        owner: Who has these classes, for the message, such as ``detector 'yolo11n.pt'``.

    Raises:
        InputError: One is not there; the message lists the names, nearest first.
    """
    parts = [part.strip() for part in class_names.split(",") if part.strip()]
    # A name may have commas itself.
    if not parts or any(name.casefold() == class_names.casefold() for name in names.values()):
        parts = [class_names]
    return tuple(dict.fromkeys(_class_index(names, part, owner) for part in parts))


def _class_index(names: Mapping[int, str], class_name: str, owner: str) -> int:
    wanted = class_name.casefold()
    for index, name in names.items():
        if name.casefold() == wanted:
            return index
    if not names or all(name == f"class{index}" for index, name in names.items()):
        # ultralytics invents class0, class1, ... for an export without metadata.
        raise InputError(
            f"{owner} carries no class names, so '{class_name}' cannot be found in it",
            hint="export the file again with ultralytics, which writes the names into it",
        )
    raise InputError(
        f"{owner} has no class '{class_name}'; it knows {_nearest_first(names, wanted)}",
        hint="choose one with --class",
    )


def _nearest_first(names: Mapping[int, str], wanted: str) -> str:
    all_names = list(dict.fromkeys(names.values()))
    by_fold = {name.casefold(): name for name in reversed(all_names)}
    near = [by_fold[fold] for fold in get_close_matches(wanted, by_fold, n=3)]
    ordered = near + [name for name in all_names if name not in near]
    more = len(ordered) - _NAMES_SHOWN
    return ", ".join(ordered[:_NAMES_SHOWN]) + (f" and {more} more" if more > 0 else "")
