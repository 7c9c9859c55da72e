"""Predictions as labels in the form of ultralytics: a YOLO-pose data set to correct and train on.

The folder holds ``data.yaml``, a label file for each photo in ``labels``, and the photos in
``images``, where the label files are looked for from.
"""

import secrets
import shutil
from collections.abc import Iterator
from itertools import count
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import yaml

from hrnet_cli.errors import OutputError
from hrnet_cli.images import write_bytes_atomic
from hrnet_cli.schema import KeypointSchema
from hrnet_cli.sinks import RunInfo
from hrnet_cli.sinks.files import PictureFolder, make_folder, output_name, reporting
from hrnet_cli.sinks.labels import VISIBLE, PhotoLabels, photo_labels
from hrnet_cli.structures import Frame, Poses

CLASS = 0
# A hundredth of a pixel in photos of 10,000.
_DECIMALS = 6
_LABELS, _IMAGES, _YAML = "labels", "images", "data.yaml"
_COMMENT = (
    "# Poses found by hrnet-cli, not yet corrected. ultralytics asks for a val: name other photos\n"
    "# there before you trust what is measured on it.\n"
)


class YoloSink:
    """Writes the label file of each photo and puts the photo beside it.

    Args:
        folder: The data set, which exists.
        info: What all pictures share.
    """

    def __init__(self, folder: Path, info: RunInfo) -> None:
        self._folder = folder
        self._info = info
        self._files = PictureFolder(folder, append=info.append)
        self._described = False

    def write(self, frame: Frame, poses: Poses) -> None:
        """Write the labels of one photo; with ``append``, one that is there keeps those it has.

        Raises:
            OutputError: Something cannot be written, or the data set has other keypoints.
        """
        source = Path(frame.source)
        if self._info.append and self._has(frame, source):
            return
        path = self._files.claim(f"{_LABELS}/{stem}.txt" for stem in _stems(frame))
        if not self._described:
            self._describe(poses.schema)
        write_bytes_atomic(path, label_text(photo_labels(frame, poses, self._info)).encode())
        # Last: a photo without its labels would be learnt from as one with nobody.
        relative = path.relative_to(self._folder / _LABELS)
        suffix = PurePosixPath(output_name(frame)).suffix
        _put_photo(source, self._folder / _IMAGES / relative.with_name(relative.stem + suffix))

    def close(self) -> None:
        """Do nothing: every file is complete."""

    def _has(self, frame: Frame, source: Path) -> bool:
        suffix = PurePosixPath(output_name(frame)).suffix
        for stem in _stems(frame):
            place = self._folder / _IMAGES / f"{stem}{suffix}"
            if not (self._folder / _LABELS / f"{stem}.txt").exists():
                return False
            with reporting(place):
                if place.exists() and place.samefile(source):
                    return True
        return False

    def _describe(self, schema: KeypointSchema) -> None:
        """Write ``data.yaml``, or check that the one that is there has these keypoints."""
        path = self._folder / _YAML
        about = description(schema, self._info.category)
        if self._info.append and path.exists():
            _check(path, about)
        else:
            text = yaml.safe_dump(
                about, sort_keys=False, allow_unicode=True, default_flow_style=None, width=98
            )
            write_bytes_atomic(path, (_COMMENT + text).encode())
        self._described = True


def open_yolo(folder: Path, info: RunInfo) -> YoloSink:
    """Make the folder of a data set; labels and links that an earlier run left are removed.

    Raises:
        OutputError: It cannot be made.
    """
    make_folder(folder)
    if not info.append:
        _clear(folder)
    return YoloSink(folder, info)


def label_text(labels: PhotoLabels) -> str:
    """Return the label file of one photo, a person a line; empty for nobody.

    A line is the class, centre and size of the box, and x, y, visibility of each keypoint, as
    shares of width and height (ultralytics, "Pose estimation datasets").

    Args:
        labels: In pixels of the upright photo, which is the one ultralytics reads.
    """
    size_wh = np.array(labels.size_wh)
    near_N2, far_N2 = labels.boxes_N4[:, :2], labels.boxes_N4[:, 2:]
    boxes_N4 = np.concatenate([(near_N2 + far_N2) / 2 / size_wh, (far_N2 - near_N2) / size_wh], 1)
    # Half a pixel outside is within the photo, but ultralytics leaves such a photo out.
    points_NK2 = np.clip(labels.keypoints_NK2 / size_wh, 0, 1)
    lines: list[str] = []
    for box, points_K2, labelled_K in zip(boxes_N4, points_NK2, labels.labelled_NK, strict=True):
        words = [str(CLASS), *map(_share, box.tolist())]
        for (x, y), labelled in zip(points_K2.tolist(), labelled_K.tolist(), strict=True):
            words += [_share(x), _share(y), str(VISIBLE)] if labelled else ["0", "0", "0"]
        lines.append(" ".join(words) + "\n")
    return "".join(lines)


def description(schema: KeypointSchema, category: str) -> dict[str, Any]:
    """Return the content of ``data.yaml``.

    Args:
        schema: The keypoints.
        category: What was boxed.
    """
    return {
        "train": _IMAGES,
        "val": _IMAGES,
        "names": {CLASS: category},
        "kpt_shape": [len(schema), 3],
        "flip_idx": list(schema.flip_indices),
        "kpt_names": {CLASS: list(schema.keypoints)},
    }


def _share(value: float) -> str:
    return f"{value:.{_DECIMALS}f}"


def _stems(frame: Frame) -> Iterator[str]:
    """Yield names to try, without suffix: labels of ``a.jpg`` and ``a.png`` would be one file."""
    bare = str(PurePosixPath(output_name(frame)).with_suffix(""))
    yield bare
    for attempt in count(2):
        yield f"{bare}-{attempt}"


def _put_photo(source: Path, place: Path) -> None:
    """Put a link to a photo in a place, or a copy where the system makes no links."""
    with reporting(place):
        if place.exists() and place.samefile(source):
            return
        place.parent.mkdir(parents=True, exist_ok=True)
        part = place.with_name(f".{secrets.token_hex(8)}.part")
        try:
            try:
                part.symlink_to(source.resolve())
            except OSError:  # Windows without the right to, or a disk without links
                shutil.copyfile(source, part)
            part.replace(place)
        finally:
            part.unlink(missing_ok=True)


def _clear(folder: Path) -> None:
    """Remove labels and links, which would be learnt from beside those of this run."""
    with reporting(folder):
        for path in sorted((folder / _LABELS).rglob("*.txt")):
            path.unlink()
        # What stands in place of the links was put there by somebody else.
        if not (folder / _IMAGES).is_symlink():
            for path in sorted((folder / _IMAGES).rglob("*")):
                if path.is_symlink():
                    path.unlink()


def _check(path: Path, about: dict[str, Any]) -> None:
    """Raise OutputError unless a ``data.yaml`` has the same keypoints."""
    with reporting(path):
        try:
            found = yaml.safe_load(path.read_text(encoding="utf-8"))
        except (yaml.YAMLError, UnicodeDecodeError):
            found = None
    keys = ("kpt_shape", "flip_idx", "kpt_names")
    if not isinstance(found, dict) or any(found.get(key) != about[key] for key in keys):
        raise OutputError(
            f"cannot append to '{path}': its keypoints are not those of this model",
            hint="replace it with --overwrite, or name another folder with --out",
        )
