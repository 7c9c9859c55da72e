"""Looking up the class to box by the name a detector or an annotation file gives it."""

from collections.abc import Mapping
from difflib import get_close_matches

from hrnet_cli.errors import InputError

# A COCO detector knows 80 classes: an error line names the likeliest few.
_NAMES_SHOWN = 12


def class_index(names: Mapping[int, str], class_name: str, owner: str) -> int:
    """Return the number of a class.

    Args:
        names: Class names by number.
        class_name: Name to find; upper and lower case are the same.
        owner: Who has these classes, for the message, such as ``detector 'yolo11n.pt'``.

    Raises:
        InputError: There is no such class; the message lists the names, nearest first.
    """
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
