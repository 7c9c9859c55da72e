"""The folder beside a video's output while it is worked on: what a broken run needs to go on.

It holds the state of the run, its video segments and what is not asked for but needed, and is
removed when the video is done. A lock keeps two runs from writing the same output.
"""

import json
import shutil
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from hrnet_cli.errors import TargetError
from hrnet_cli.images import write_bytes_atomic
from hrnet_cli.sinks.files import make_folder, reporting

VERSION = 1


def resume_folder(target: Path) -> Path:
    """Return the folder of a video whose outputs are ``target`` with suffixes."""
    return target.with_name(f"{target.name}.resume")


def remove_remains(target: Path) -> None:
    """Remove the folder of a finished video, where a run was killed while it removed it.

    Raises:
        TargetError: Another run writes the same video.
        OutputError: The folder cannot be removed.
    """
    if resume_folder(target).is_dir():
        folder = ResumeFolder(target)
        folder.clear()
        folder.release()


class ResumeFolder:
    """The folder of one video, held by one run.

    Args:
        target: Path of the video's outputs without suffix.

    Raises:
        TargetError: Another run writes the same video.
        OutputError: The folder cannot be made.
    """

    def __init__(self, target: Path) -> None:
        self.path = resume_folder(target)
        make_folder(self.path)
        self._lock = FileLock(self.path / "lock", timeout=0)
        with reporting(self.path):
            try:
                self._lock.acquire()
            except Timeout as error:
                raise TargetError(
                    f"'{target}' is being written by another run of hrnet",
                    hint="wait for it, or name another folder with --out",
                ) from error

    @property
    def parts(self) -> Path:
        """Return the folder of video segments."""
        return self.path / "parts"

    def load(self, settings: dict[str, Any]) -> dict[str, Any] | None:
        """Return the state to go on with; None when there is none.

        Args:
            settings: What decides the results of the present run.

        Raises:
            TargetError: The state is of a run with other settings, or damaged.
            OutputError: It cannot be read.
        """
        path = self.path / "state.json"
        if not path.exists():
            return None
        try:
            with reporting(path):
                held = json.loads(path.read_bytes())
            version, before, state = held["version"], held["settings"], held["state"]
        except (ValueError, KeyError, TypeError) as error:
            raise TargetError(
                f"'{path}' is damaged, the run before cannot be gone on with", hint=_ANEW
            ) from error
        now = json.loads(json.dumps(settings))
        changed = [key for key in {**before, **now} if before.get(key) != now.get(key)]
        if version != VERSION or changed:
            what = (
                f"{changed[0]} was {before.get(changed[0])!r} and is {now.get(changed[0])!r}"
                if changed
                else f"its state has version {version}, expected {VERSION}"
            )
            raise TargetError(f"'{self.path}' is of a run with other settings: {what}", hint=_ANEW)
        return state

    def save(self, settings: dict[str, Any], state: dict[str, Any]) -> None:
        """Keep a state in place of the one before, whole or not at all."""
        path = self.path / "state.json"
        held = {"version": VERSION, "settings": settings, "state": state}
        write_bytes_atomic(path, json.dumps(held, allow_nan=False).encode())

    def clear(self) -> None:
        """Remove what a run before left."""
        with reporting(self.path):
            (self.path / "state.json").unlink(missing_ok=True)
            for path in self.path.iterdir():
                if path.is_dir():
                    shutil.rmtree(path)
                elif path.name != "lock":
                    path.unlink()

    def remove(self) -> None:
        """Remove the folder: the video is done."""
        # The state goes first: without the rest it would make the video look broken.
        self.clear()
        self.release()

    def release(self) -> None:
        """Let another run have it; a folder without anything to go on with is removed."""
        if not self._lock.is_locked:
            return
        if self.path.is_dir() and not any(path.name != "lock" for path in self.path.iterdir()):
            # While it is held: once released it may be the folder of another run.
            shutil.rmtree(self.path, ignore_errors=True)
        self._lock.release()
        if sys.platform == "win32":
            with suppress(OSError):  # nothing is removed there that is open, nor a full folder
                self.path.rmdir()


_ANEW = "start anew with --overwrite, or repeat the command as it was"
