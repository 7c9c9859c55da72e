"""A training run from its configuration alone: data sets opened, folder made, network trained."""

from collections.abc import Callable
from itertools import zip_longest
from pathlib import Path

from hrnet_cli.data import open_dataset
from hrnet_cli.data.held_out import hold_out, leave_out
from hrnet_cli.data.names import can_mirror
from hrnet_cli.data.people import LabelledPeople, join_people
from hrnet_cli.errors import InputError, NoSplitError
from hrnet_cli.recipe import DataConfig, TrainConfig
from hrnet_cli.run_events import OnEvent
from hrnet_cli.run_folder import open_run
from hrnet_cli.schema import KeypointSchema
from hrnet_cli.training import Place, TrainData, TrainResult, train

WITHOUT_VAL = "--val 10% holds photos out for it, --val FILE names others"


def train_in_folder(
    config: TrainConfig,
    out: Path,
    *,
    device: str = "auto",
    resume: bool = False,
    overwrite: bool = False,
    on_event: OnEvent = lambda _event: None,
) -> TrainResult:
    """Train as a configuration says, and leave weights, state and figures in a folder.

    Curves and page are made from it by `train_report.write_train_report`.

    Args:
        config: Of `recipe.load_config`.
        out: Folder of the run.
        device: ``auto``, ``cpu``, ``cuda``, ``cuda:1`` or ``mps``.
        resume: Continue the run in the folder.
        overwrite: Replace the run in the folder.
        on_event: Called with lines of text and with reports of steps and epochs.

    Raises:
        HrnetError: As `open_training_data`, `run_folder.open_run` and `training.train`.
    """
    data = open_training_data(config.data, on_event, seed=config.run.seed)
    folder = open_run(out, resume=resume, overwrite=overwrite)
    return train(config, data, Place(folder, device, resume), on_event)


def open_training_data(
    config: DataConfig, on_note: Callable[[str], None] = lambda _line: None, *, seed: int = 0
) -> TrainData:
    """Return the people a configuration names.

    Args:
        config: The ``[data]`` table of a run.
        on_note: Called with lines for people: what was read and derived.
        seed: Of the run; draws the photos to hold out where a share of them is to be.

    Raises:
        InputError: A data set is missing, contradicts itself, has other keypoints than the first,
            or too few photos to hold some out.
    """
    folder = Path(config.folder) if config.folder else None
    parts = [open_dataset(config.train, split=config.train_split, folder=folder, on_note=on_note)]
    parts += [
        open_dataset(
            name,
            split=config.train_split,
            folder=folder if name.endswith(".toml") else None,
            on_note=on_note,
        )
        for name in config.extra
    ]
    if config.val_share is None:
        val = _open_val(config, folder, on_note)
    else:
        parts, val = _hold_out(parts, config.val_share, seed, on_note)
    people = join_people(parts)
    if val is not None and val.schema.keypoints != people.schema.keypoints:
        raise InputError(
            f"'{val.name}' to measure on has {len(val.schema)} keypoints, '{people.name}' to learn"
            f" from {len(people.schema)}: {_first_difference(val.schema, people.schema)}",
            hint="give data of the same keypoints with --val",
        )
    mirrors = all(can_mirror(part) for part in parts)
    return TrainData(people, val, mirrors=mirrors, held_out=config.val_share is not None)


def _hold_out(
    parts: list[LabelledPeople], share: float, seed: int, on_note: Callable[[str], None]
) -> tuple[list[LabelledPeople], LabelledPeople]:
    """Return what is left to learn from, and the photos of the first data set held out of all."""
    first, val = hold_out(parts[0], share, seed)
    on_note(
        f"{val.name}: {len(val.photos)} photos with {len(val)} people are held out to measure on,"
        f" drawn by seed {seed}"
    )
    left = [first]
    for part in parts[1:]:
        left.append(leave_out(part, val))
        shared = len(part.photos) - len(left[-1].photos)
        if shared:
            on_note(f"{shared} photos of {part.name} are among them and left out of it")
    return left, val


def _first_difference(val: KeypointSchema, train: KeypointSchema) -> str:
    for number, (there, here) in enumerate(zip_longest(val.keypoints, train.keypoints), start=1):
        if there != here:
            return f"keypoint {number} is {there or 'missing'} there and {here or 'missing'} here"
    return "the same ones"


def is_one_split(name: str) -> bool:
    """Tell whether a data set is a .json file, which has no parts."""
    return Path(name).suffix.lower() == ".json"


def _open_named_val(
    config: DataConfig, folder: Path | None, on_note: Callable[[str], None]
) -> LabelledPeople:
    """Return the data set of ``data.val``; photos of a .json beside it, else in the folder.

    The folder is where those to learn from lie, maybe under the same names.
    """
    if folder is not None and is_one_split(config.val):
        try:
            people = open_dataset(config.val, split=config.val_split, on_note=on_note)
        except InputError:
            pass
        else:
            on_note(f"the photos to measure on are those in '{people.folder}'")
            return people
    return open_dataset(config.val, split=config.val_split, folder=folder, on_note=on_note)


def _open_val(
    config: DataConfig, folder: Path | None, on_note: Callable[[str], None]
) -> LabelledPeople | None:
    """Return what to measure on, None when the data set to learn from has no such part."""
    if config.val:
        return _open_named_val(config, folder, on_note)
    if is_one_split(config.train):
        on_note(f"nothing is measured: a .json file is one split; {WITHOUT_VAL}")
        return None
    try:
        return open_dataset(config.train, split=config.val_split, folder=folder)
    except NoSplitError as error:
        on_note(f"nothing is measured: {error.message}; {WITHOUT_VAL}")
        return None
