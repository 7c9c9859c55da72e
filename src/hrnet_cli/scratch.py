"""Places for what is no result: what is not finished yet, and what can be had again."""

import errno
import os
import secrets
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


def cache_folder() -> Path:
    """Return ``HRNET_HOME``, or this platform's folder for what can be fetched or made again."""
    if home := os.environ.get("HRNET_HOME"):
        return Path(home).expanduser()
    from platformdirs import user_cache_path

    return user_cache_path("hrnet-cli", appauthor=False)


@contextmanager
def scratch_beside(place: Path) -> Iterator[Path]:
    """Yield an empty folder on the file system of a place; what is left in it goes afterwards.

    Its name is taken by nobody else, whatever other processes, in containers too, are at.

    Args:
        place: File or folder to be made; folders above it are made.

    Raises:
        OSError: No folder can be made there.
    """
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
    except FileExistsError as error:
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR)) from error
    hidden = Path(tempfile.mkdtemp(prefix=f".{place.name}.", suffix=".tmp", dir=place.parent))
    try:
        # One more, with the permissions that folders have here: the hidden one is for its owner.
        inner = hidden / "new"
        inner.mkdir()
        yield inner
    finally:
        shutil.rmtree(hidden, ignore_errors=True)


@contextmanager
def written_whole(place: Path, *, lasting: bool = False) -> Iterator[Path]:
    """Yield where to write a file, which takes its place if the block comes to its end.

    Until then, and for good after an error or Ctrl-C, what is at the place stays as it is.

    Args:
        place: The file; its folder exists.
        lasting: Have it on the disk before it takes its name: a machine that goes down must not
            leave the name without content.

    Raises:
        OSError: It cannot take its place.
    """
    part = place.with_name(f".{secrets.token_hex(8)}.part")
    try:
        yield part
        if lasting:
            with part.open("rb+") as file:
                os.fsync(file.fileno())
        part.replace(place)
    finally:
        with suppress(OSError):
            part.unlink(missing_ok=True)


def replace_folder(new: Path, place: Path, scratch: Path) -> None:
    """Move a folder to where another one is, which goes only when that has come about.

    Args:
        new: The folder.
        place: Where it belongs.
        scratch: Of `scratch_beside`; the old folder goes with it.

    Raises:
        OSError: It cannot be moved; the old folder is where it was.
    """
    old = scratch.parent / "old"
    place.rename(old)
    try:
        new.rename(place)
    except OSError:
        old.rename(place)
        raise
