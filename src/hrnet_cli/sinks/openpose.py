"""OpenPose-style JSON: one small file for each picture."""

import re
from collections.abc import Iterator
from itertools import count
from pathlib import Path, PurePosixPath
from typing import Any

from hrnet_cli.images import write_bytes_atomic
from hrnet_cli.schema import WHOLE_BODY, WHOLE_BODY_PARTS, KeypointSchema
from hrnet_cli.sinks import RunInfo
from hrnet_cli.sinks.files import PictureFolder, frame_name, make_folder, output_name, reporting
from hrnet_cli.sinks.record import flat_triples, is_built_in, record, to_json
from hrnet_cli.structures import Frame, Poses

VERSION = 1.3
_PARTS = ("pose", "face", "hand_left", "hand_right")
_VIDEO_FOLDER = "_json"
_FRAME = re.compile(r".*_\d{12}_keypoints\.json")
# Feet belong to the pose.
_SPLITS = {
    WHOLE_BODY: tuple(WHOLE_BODY_PARTS[part][0] for part in ("face", "lefthand", "righthand"))
}


class OpenPoseSink:
    """Writes one file for each picture.

    Args:
        folder: Receives the files.
        info: What all pictures share.
    """

    def __init__(self, folder: PictureFolder, info: RunInfo) -> None:
        self._folder = folder
        self._info = info

    def write(self, frame: Frame, poses: Poses) -> None:
        """Write the file of one picture, people or not."""
        content = to_json(document(frame, poses, self._info)) + b"\n"
        write_bytes_atomic(self._folder.claim(_names(frame)), content)

    def close(self) -> None:
        """Do nothing: every file is complete."""


def open_openpose(folder: Path, info: RunInfo) -> OpenPoseSink:
    """Make the folder of the files; frames that an earlier run left in a video's are removed.

    Raises:
        OutputError: It cannot be made.
    """
    make_folder(folder)
    if folder.name.endswith(_VIDEO_FOLDER) and not info.append:
        _remove_frames(folder)
    return OpenPoseSink(PictureFolder(folder, append=info.append), info)


def document(frame: Frame, poses: Poses, info: RunInfo) -> dict[str, Any]:
    """Return the content of the file of one picture.

    Keypoints stand in the order of the model's own schema; those of COCO-WholeBody are divided
    into body and feet, face, and hands.

    Args:
        frame: The picture.
        poses: Its people.
        info: What happens to low keypoints.
    """
    people = record(frame, poses, info)["people"]
    return {"version": VERSION, "people": [_person(person, poses.schema) for person in people]}


def _person(person: dict[str, Any], schema: KeypointSchema) -> dict[str, Any]:
    cuts = _SPLITS[schema.name] if schema.name in _SPLITS and is_built_in(schema) else ()
    starts, ends = (0, *cuts), (*cuts, len(schema))
    divided = [
        flat_triples(person["keypoints"][start:end])
        for start, end in zip(starts, ends, strict=True)
    ]
    divided += [[] for _ in _PARTS[len(divided) :]]
    return {
        "person_id": [-1 if person["id"] is None else person["id"]],
        **{f"{part}_keypoints_2d": values for part, values in zip(_PARTS, divided, strict=True)},
        **{f"{part}_keypoints_3d": [] for part in _PARTS},
    }


def _names(frame: Frame) -> Iterator[str]:
    """Yield file names to try: without the picture's suffix, with it, then numbered.

    Frames of a video lie side by side, whatever the folder of the video: Pose2Sim looks no deeper,
    and takes the last number in a name for the frame.
    """
    full = output_name(frame)
    bare = str(PurePosixPath(full).with_suffix(""))
    if frame.time_s is not None:
        bare = frame_name(PurePosixPath(full).name, frame.index)
        full = bare
    yield f"{bare}_keypoints.json"
    yield f"{full}_keypoints.json"
    for attempt in count(2):
        yield f"{bare}-{attempt}_keypoints.json"


def _remove_frames(folder: Path) -> None:
    """Remove frames of a video: those a shorter run does not replace would be read as its own."""
    with reporting(folder):
        for path in folder.iterdir():
            if _FRAME.fullmatch(path.name):
                path.unlink()
