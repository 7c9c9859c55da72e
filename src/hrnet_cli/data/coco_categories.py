"""The keypoint schema that the categories of a COCO-style file describe."""

from dataclasses import replace
from math import inf
from pathlib import Path
from typing import Any

from hrnet_cli.data.names import complete_schema, find_builtin
from hrnet_cli.errors import ConfigError, InputError
from hrnet_cli.schema import KeypointSchema, schema_from_dict

Record = dict[str, Any]

_HINT = 'name the schema in a data set file: schema = "coco17" in my.toml (see README)'


def choose_schema(
    path: Path, categories: list[Record], given: KeypointSchema | None, category: str | None
) -> tuple[KeypointSchema, dict[int | str, str], list[str]]:
    """Return the keypoints of a file, the categories that have them, and notes.

    Categories are names by their ids.

    Args:
        path: The file, for messages.
        categories: Its categories.
        given: Schema the user gave; the names in the file need not be the same, their number must.
        category: Name of the category to use; left out, all with keypoints, if those are the same.

    Raises:
        InputError: No category has keypoints, several have different ones, or a skeleton or the
            given schema do not fit.
    """
    chosen = _chosen(path, categories, category)
    with_names = [entry for entry in chosen if _has_names(path, entry)]
    if given is not None:
        notes = _compare(path, with_names, given)
        return complete_schema(given), _names(with_names or chosen), notes
    if not with_names:
        names = ", ".join(f"'{entry.get('name')}'" for entry in chosen) or "none"
        raise InputError(
            f"'{path}' has no category with 'keypoints', the list of their names; its categories:"
            f" {names}",
            hint=_HINT,
        )
    kinds = {tuple(entry["keypoints"]): entry for entry in with_names}
    if len(kinds) > 1:
        listed = ", ".join(f"'{e.get('name')}' ({len(e['keypoints'])})" for e in kinds.values())
        raise InputError(
            f"'{path}' has categories with different keypoints: {listed}; expected one kind",
            hint='choose one in a data set file: category = "NAME" in my.toml',
        )
    notes = []
    if len(with_names) > 1:
        notes.append(f"{len(with_names)} categories with the same keypoints are taken as one")
    schema, recognised = _schema_of(path, with_names[0])
    return schema, _names(with_names), notes + recognised


def _names(categories: list[Record]) -> dict[int | str, str]:
    return {entry["id"]: str(entry.get("name")) for entry in categories}


def _chosen(path: Path, categories: list[Record], category: str | None) -> list[Record]:
    known = [entry for entry in categories if type(entry.get("id")) in (int, str)]
    if category is None:
        return known
    chosen = [entry for entry in known if entry.get("name") == category]
    if not chosen:
        names = ", ".join(f"'{entry.get('name')}'" for entry in known) or "none"
        raise InputError(f"'{path}' has no category '{category}'; its categories: {names}")
    return chosen


def _has_names(path: Path, entry: Record) -> bool:
    """Return whether a category names keypoints; refuse what are no names."""
    names = entry.get("keypoints") or []
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise InputError(
            f"'{path}': category '{entry.get('name')}' has keypoints {names!r}, expected a list of"
            " names"
        )
    return bool(names)


def _compare(path: Path, entries: list[Record], given: KeypointSchema) -> list[str]:
    """Return a note where names differ from those of a given schema; refuse what cannot be."""
    for entry in entries:
        names = tuple(entry["keypoints"])
        where = f"'{path}': category '{entry.get('name')}'"
        if len(names) != len(given):
            raise InputError(
                f"{where} has {len(names)} keypoints, the schema '{given.name}' {len(given)}"
            )
        if names != given.keypoints and set(names) == set(given.keypoints):
            raise InputError(
                f"{where} has the keypoints of schema '{given.name}' in another order:"
                f" {', '.join(names)}",
                hint="leave the schema out, or give it in the order of the file",
            )
        if names != given.keypoints:
            return [f"keypoints {', '.join(names)} are taken as {', '.join(given.keypoints)}"]
    return []


def _schema_of(path: Path, entry: Record) -> tuple[KeypointSchema, list[str]]:
    """Return the schema of a category: the built-in one with its names, or one made of them."""
    where = f"'{path}': category '{entry.get('name')}'"
    names = entry["keypoints"]
    sigmas = _sigmas(where, entry)
    builtin = find_builtin(tuple(names))
    if builtin is not None:
        renamed = [
            f"{name} as {ours}"
            for name, ours in zip(names, builtin.keypoints, strict=True)
            if name != ours
        ]
        note = f"keypoints are those of {builtin.name}"
        notes = [f"{note}: {', '.join(renamed)}" if renamed else note]
        if sigmas and sigmas != builtin.oks_sigmas:
            notes.append(f"OKS sigmas are those of the file and not those of {builtin.name}")
            builtin = replace(builtin, oks_sigmas=sigmas)
        return builtin, notes
    fields = {
        "name": f"{entry.get('name') or 'object'}{len(names)}",
        "keypoints": names,
        "skeleton": _skeleton(where, entry.get("skeleton") or [], names),
        "oks_sigmas": list(sigmas),
    }
    try:
        return complete_schema(schema_from_dict(fields, where=where)), []
    except ConfigError as error:
        raise InputError(error.message, hint=error.hint) from error


def _sigmas(where: str, entry: Record) -> tuple[float, ...]:
    """Return the OKS sigmas of a category, under either name; none where it has none."""
    key = next((key for key in ("sigmas", "oks_sigmas") if entry.get(key)), None)
    if key is None:
        return ()
    values, expected = entry[key], len(entry["keypoints"])
    if not (
        isinstance(values, list)
        and len(values) == expected
        and all(type(value) in (int, float) and 0 < value < inf for value in values)
    ):
        raise InputError(
            f"{where} has {key} {values!r}, expected {expected} numbers above 0, one for each"
            " keypoint",
            hint=f"leave {key} out to use those of the schema, for new keypoints 1/K, 0.1 at most",
        )
    return tuple(map(float, values))


def _skeleton(where: str, limbs: Any, names: list[str]) -> list[list[str]]:  # noqa: ANN401
    """Return limbs given as pairs of 1-based numbers as pairs of names."""
    if not isinstance(limbs, list):
        raise InputError(f"{where} has skeleton {limbs!r}, expected pairs of keypoint numbers")
    pairs: list[list[str]] = []
    for limb in limbs:
        if not (
            isinstance(limb, list)
            and len(limb) == 2
            and all(type(end) is int and 1 <= end <= len(names) for end in limb)
        ):
            raise InputError(
                f"{where} has {limb} in its skeleton, expected two numbers from 1 to {len(names)}"
                " (COCO counts keypoints from 1)",
                hint=f"correct the file, or {_HINT}",
            )
        pairs.append([names[end - 1] for end in limb])
    return pairs
