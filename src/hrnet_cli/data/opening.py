"""One opener for each form of data set, and how a name tells them apart."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from hrnet_cli.data.coco import read_coco
from hrnet_cli.data.dataset_toml import read_dataset_file
from hrnet_cli.data.labels import Labels
from hrnet_cli.data.mpii import is_mpii, read_mpii
from hrnet_cli.data.photo_folders import find_photo_folder
from hrnet_cli.data.yolo_pose import read_yolo_pose
from hrnet_cli.errors import ConfigError, InputError, NoSplitError
from hrnet_cli.schema import WHOLE_BODY, KeypointSchema, load_schema


@dataclass(frozen=True)
class Wanted:
    """The arguments of `hrnet_cli.data.open_dataset`."""

    name: str
    split: str
    folder: Path | None
    category: str | None
    cache: bool


@dataclass(frozen=True)
class Layout:
    """Where a known data set keeps its files.

    Attributes:
        folder: Default folder.
        annotations: Patterns of the annotation file below it, tried in order; ``{short}`` is the
            split without the year.
        splits: What it calls ``train`` and ``val``.
        schema: Built-in schema of its keypoints.
        hint: What to do when it is not there.
    """

    folder: str
    annotations: tuple[str, ...]
    splits: dict[str, str]
    schema: str
    hint: str

    def annotation_files(self, root: Path, split: str) -> list[Path]:
        """Return where the annotation file of a split may be, in the order to try."""
        name = self.splits.get(split, split)
        short = name.removesuffix("2017")
        return [root / pattern.format(split=name, short=short) for pattern in self.annotations]


LAYOUTS = {
    "coco": Layout(
        "data/coco",
        ("annotations/person_keypoints_{split}.json",),
        {"train": "train2017", "val": "val2017"},
        "coco17",
        "link the folder with annotations/, train2017/ and val2017/ there (ln -s /path/to/coco"
        " data/coco), give it with --data DIR, or fetch val2017 with `hrnet eval --download`",
    ),
    "coco-wholebody": Layout(
        "data/coco",
        (
            "annotations/coco_wholebody_{short}_v1.0.json",
            "coco_wholebody_{short}_v1.0.json",
        ),
        {"train": "train2017", "val": "val2017"},
        WHOLE_BODY,
        "put the annotation files of COCO-WholeBody into annotations/ of COCO's folder, linked"
        " there or given with --data DIR",
    ),
    "crowdpose": Layout(
        "data/crowdpose",
        (
            "json/crowdpose_{split}.json",
            "annotations/crowdpose_{split}.json",
            "annotations/mmpose_crowdpose_{split}.json",
            "crowdpose_{split}.json",
        ),
        {},
        "crowdpose14",
        "link the folder with json/ and images/ there, or give it with --data DIR",
    ),
    "mpii": Layout(
        "data/mpii",
        ("annot/{split}.json",),
        {"val": "valid"},
        "mpii16",
        "link the folder with annot/ and images/ there, or give it with --data DIR; annot/ holds"
        " the train.json and valid.json of the official code",
    ),
}


def pick_reader(name: str) -> Callable[[Wanted], Labels]:
    """Return the function that opens a data set of this name.

    Raises:
        InputError: It is no known name, and no file or folder of a known form.
    """
    if name in LAYOUTS:
        return _open_known
    path = Path(name)
    if path.is_dir():
        if (path / "data.yaml").is_file():
            return _open_yolo
        raise InputError(
            f"data set '{name}' is a folder without data.yaml",
            hint=f"for COCO's layout name the data set coco, and give --data {name}; else name the"
            " .json file",
        )
    readers = {".json": _open_json, ".toml": _open_toml, ".yaml": _open_yolo, ".yml": _open_yolo}
    if path.suffix.lower() in readers:
        return readers[path.suffix.lower()]
    known = ", ".join(LAYOUTS)
    raise InputError(
        f"data set '{name}' is not known; expected {known}, a COCO-style .json, a data set .toml,"
        " or a YOLO-pose data.yaml"
    )


def with_photos(labels: Labels, folder: Path, name: str | None = None) -> Labels:
    """Return labels whose photos lie in a folder, under another name when one is given."""
    people = replace(labels.people, folder=folder, name=name or labels.people.name)
    return replace(labels, people=people)


def _read_json(
    path: Path, schema: KeypointSchema | None, category: str | None, *, cache: bool
) -> Labels:
    if is_mpii(path):
        return read_mpii(path, schema)
    return read_coco(path, schema=schema, category=category, cache=cache)


def _open_known(wanted: Wanted) -> Labels:
    layout = LAYOUTS[wanted.name]
    root = wanted.folder or Path(layout.folder)
    split = layout.splits.get(wanted.split, wanted.split)
    files = layout.annotation_files(root, split)
    path = next((file for file in files if file.is_file()), None)
    if path is None:
        raise NoSplitError(
            f"{wanted.name} {split} is not in '{root}': '{files[0]}' is missing", hint=layout.hint
        )
    labels = _read_json(path, load_schema(layout.schema), wanted.category, cache=wanted.cache)
    folder = find_photo_folder(labels.people.photos, path, split, root)
    return with_photos(labels, folder, f"{wanted.name} {split}")


def _open_json(wanted: Wanted) -> Labels:
    path = Path(wanted.name)
    labels = _read_json(path, None, wanted.category, cache=wanted.cache)
    names = labels.people.photos
    return with_photos(labels, find_photo_folder(names, path, wanted.split, wanted.folder))


def _open_toml(wanted: Wanted) -> Labels:
    file = read_dataset_file(Path(wanted.name), wanted.folder)
    part = file.part(wanted.split)
    category = wanted.category or file.category
    labels = _read_json(part.annotations, file.schema, category, cache=wanted.cache)
    people = labels.people
    for name in file.keypoint_weights:
        if name not in people.schema.keypoints:
            raise ConfigError(
                f"{file.path}: label_weights.keypoint names '{name}', which is no keypoint of"
                f" '{part.annotations}'",
                hint=f"keypoints: {', '.join(people.schema.keypoints)}",
            )
    unused = [name for name in file.source_weights if name not in labels.sources]
    notes = [f"label weight of source '{name}': no annotation names it" for name in unused]
    for name, weight in {**file.source_weights, **file.keypoint_weights}.items():
        if name not in unused:
            notes.append(f"label weight of {name}: {weight:g}")
    weighed = replace(
        labels,
        people=labels.weigh(file.source_weights, file.keypoint_weights),
        notes=(*labels.notes, *notes),
    )
    folder = find_photo_folder(people.photos, part.annotations, wanted.split, part.photos)
    return with_photos(weighed, folder, f"{file.name} {wanted.split}")


def _open_yolo(wanted: Wanted) -> Labels:
    path = Path(wanted.name)
    labels, folder = read_yolo_pose(
        path / "data.yaml" if path.is_dir() else path,
        wanted.split,
        folder=wanted.folder,
        category=wanted.category,
        cache=wanted.cache,
    )
    return with_photos(labels, folder, f"{labels.people.name} {wanted.split}")
