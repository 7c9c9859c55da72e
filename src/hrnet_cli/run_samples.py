"""The samples of a training run: who is usable, how they vary, and where pixels come from."""

from dataclasses import replace
from pathlib import Path

from hrnet_cli.data.crops import CropDataset, CropFrame, crop_reach, missing_photos
from hrnet_cli.data.people import LabelledPeople
from hrnet_cli.data.photo_cache import open_or_pack, open_packed, photo_stamp
from hrnet_cli.data.photos import PhotoSource, load_into_memory
from hrnet_cli.distributed import Team
from hrnet_cli.errors import InputError
from hrnet_cli.recipe import TrainConfig
from hrnet_cli.run_events import OnEvent
from hrnet_cli.scratch import cache_folder


def build_samples(
    config: TrainConfig, people: LabelledPeople, *, mirrors: bool, team: Team, tell: OnEvent
) -> CropDataset:
    """Return the augmented samples of a run's people.

    Args:
        config: The run.
        people: As labelled; `LabelledPeople.usable` is applied.
        mirrors: Whether keypoints of a mirrored photo have names.
        team: The processes of the run; the leading one packs the photos for all.
        tell: Called with lines for people.

    Raises:
        InputError: Nobody to learn from, or photos are missing and ``data.strict`` is set.
    """
    usable = people.usable()
    if not len(usable):
        raise InputError(
            f"'{people.name}' has nobody to learn from: of {len(people)} people none has a labelled"
            " keypoint and a box with an area",
            hint="hrnet check-data shows what is in it",
        )
    _check_photos(usable, strict=config.data.strict, tell=tell)
    augment = config.augment
    if not mirrors and augment.flip_prob:
        tell("left and right of the keypoints are not known: samples are not mirrored")
        augment = replace(augment, flip_prob=0.0)
    config = replace(config, augment=augment)
    frame = CropFrame(config.model.input_hw, config.model.codec)
    photos = _photos(config, usable, frame, team, tell)
    return CropDataset(usable, frame, augment, seed=config.run.seed, photos=photos)


def _check_photos(people: LabelledPeople, *, strict: bool, tell: OnEvent) -> None:
    """Say which photos are not there; none at all, or any under ``strict``, is an error."""
    missing = missing_photos(people)
    if not missing:
        return
    used = len(set(people.photo_of_N.tolist()))
    message = (
        f"{len(missing)} of {used} photos of '{people.name}' are missing, such as {missing[0]}"
    )
    if strict or len(missing) == used:
        raise InputError(message, hint="say where the photos are with --data DIR")
    tell(f"{message}; their people are left out of every step")


def _photos(
    config: TrainConfig, people: LabelledPeople, frame: CropFrame, team: Team, tell: OnEvent
) -> PhotoSource | None:
    """Return where the pixels come from; None for the photo files."""
    if config.data.cache == "none":
        return None
    reach = crop_reach(people, frame, config.augment)
    if config.data.cache == "ram":
        tell("reading the photos into memory ...")
        return load_into_memory(people, reach, int(config.data.cache_gb * 2**30))
    # The leader's word: on another machine the same photos may have other times of change.
    path: Path = team.share(_cache_file(config, people, frame) if team.leads else None)
    tell(f"photos are packed in {path}")
    if team.leads:
        path.parent.mkdir(parents=True, exist_ok=True)
        open_or_pack(path, people, reach)
    team.meet("the packed photos")
    return open_packed(path, people, reach)


def _cache_file(config: TrainConfig, people: LabelledPeople, frame: CropFrame) -> Path:
    """Return the packed file of a run: the one it names, or one of these photos as they are."""
    if config.data.cache_file:
        return Path(config.data.cache_file)
    height, width = frame.input_hw
    return cache_folder() / "photos" / f"{photo_stamp(people)[:16]}-{height}x{width}.photos"
