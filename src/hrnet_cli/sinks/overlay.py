"""Pictures with the poses drawn on them, at the relative path of each photo."""

from collections.abc import Collection, Iterator
from itertools import count
from pathlib import Path, PurePosixPath

from hrnet_cli.draw import Connections, DrawStyle, draw_poses
from hrnet_cli.errors import OutputError
from hrnet_cli.images import write_image
from hrnet_cli.sinks import picture_name
from hrnet_cli.sinks.files import PictureFolder, make_folder, output_name, reporting
from hrnet_cli.structures import Frame, Poses


class OverlaySink:
    """Draws and writes one picture after the other.

    Args:
        folder: Receives the pictures.
        parts: What to draw; see `draw.draw_poses`.
        connections: Limbs to draw as pairs of keypoint names; None for those of the schema.
        style: Colours, sizes, thresholds and background; None for the usual ones.
    """

    def __init__(
        self,
        folder: PictureFolder,
        *,
        parts: Collection[str],
        connections: Connections | None = None,
        style: DrawStyle | None = None,
    ) -> None:
        self._folder = folder
        self._parts = parts
        self._connections = connections
        self._style = style

    def write(self, frame: Frame, poses: Poses) -> None:
        """Write the picture of one frame, people or not.

        Raises:
            OutputError: It cannot be written, or would replace the photo it was drawn from.
        """
        image = draw_poses(
            frame.image_HW3,
            poses,
            parts=self._parts,
            connections=self._connections,
            style=self._style,
        )
        transparent = image.shape[2] == 4
        path = self._folder.claim(_names(picture_name(output_name(frame), transparent=transparent)))
        with reporting(path):
            spare_source(path, Path(frame.source))
            write_image(path, image)

    def close(self) -> None:
        """Do nothing: every picture is complete."""


def open_overlay(
    folder: Path,
    *,
    parts: Collection[str],
    connections: Connections | None = None,
    style: DrawStyle | None = None,
    append: bool = False,
) -> OverlaySink:
    """Make the folder of the pictures.

    Args:
        folder: Output folder.
        parts: See `OverlaySink`.
        connections: See `OverlaySink`.
        style: See `OverlaySink`.
        append: Keep pictures of earlier runs; a new one of the same name gets ``-2`` behind it.

    Raises:
        OutputError: It cannot be made.
    """
    make_folder(folder)
    pictures = PictureFolder(folder, append=append)
    return OverlaySink(pictures, parts=parts, connections=connections, style=style)


def _names(name: str) -> Iterator[str]:
    yield name
    path = PurePosixPath(name)
    for attempt in count(2):
        yield str(path.with_stem(f"{path.stem}-{attempt}"))


def spare_source(path: Path, source: Path) -> None:
    """Raise OutputError when the picture would replace the photo it was drawn from."""
    if path.exists() and source.exists() and path.samefile(source):
        raise OutputError(
            f"the drawn picture would replace its own photo '{source}'",
            hint="name another folder with --out",
        )
