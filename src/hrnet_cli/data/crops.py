"""Training samples: labelled people -> batches of augmented crops and keypoints.

A sample costs one photo decode and one warp. Bytes leave here, not floats: normalisation and
targets are made in batches on the device that trains.

Shape letters: B crops of a batch, N people, K keypoints, H W crop height and width.
"""

import signal
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, fields, replace
from pathlib import Path

import cv2
import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, Sampler

from hrnet_cli.data import augment
from hrnet_cli.data.augment import AugmentConfig, BodyHalves, Draws
from hrnet_cli.data.people import Ints, LabelledPeople
from hrnet_cli.data.photos import PhotoFiles, PhotoSource, Reach, Region
from hrnet_cli.errors import ConfigError, InputError
from hrnet_cli.geometry import crop_boxes, warp_crops, xywh_to_xyxy

Key = tuple[int, int]


@dataclass(frozen=True)
class CropFrame:
    """How a crop lies around a person box.

    Attributes:
        input_hw: Crop (height, width) in pixels.
        codec: One of `config.CODECS`.
        box_padding: Factor by which the box grows to the crop.
    """

    input_hw: tuple[int, int]
    codec: str
    box_padding: float = 1.25


@dataclass(frozen=True)
class CropBatch:
    """What a training step starts from.

    Attributes:
        crops_BHW3: uint8 RGB crops.
        keypoints_BK2: float32 (x, y) in crop pixels; (0, 0) for unlabelled ones.
        weights_BK: float32 label weights, 0 for unlabelled keypoints.
        index_B: int64 index of each person in the data set.
        problems: One message for each photo that could not be read. Its crop is black and its
            weights are 0, so that it teaches nothing.
    """

    crops_BHW3: torch.Tensor
    keypoints_BK2: torch.Tensor
    weights_BK: torch.Tensor
    index_B: torch.Tensor
    problems: tuple[str, ...] = ()

    def __len__(self) -> int:
        """Return the number of crops."""
        return len(self.index_B)

    def to(self, device: torch.device | str, *, non_blocking: bool = False) -> "CropBatch":
        """Return the batch on a device."""
        moved = {n: t.to(device, non_blocking=non_blocking) for n, t in self._tensors().items()}
        return replace(self, **moved)

    def pin_memory(self) -> "CropBatch":
        """Return the batch in page-locked memory; `DataLoader` calls it."""
        return replace(self, **{n: t.pin_memory() for n, t in self._tensors().items()})

    def raise_problems(self) -> None:
        """Raise InputError for the first photo that could not be read, if there is one."""
        if self.problems:
            raise InputError(
                self.problems[0], hint="repair the file, or train without it by leaving --strict"
            )

    def _tensors(self) -> dict[str, torch.Tensor]:
        return {f.name: getattr(self, f.name) for f in fields(self) if f.name != "problems"}


class CropDataset(Dataset[CropBatch]):
    """Augmented crops of people, by (epoch, index).

    What a sample looks like depends on the seed, the epoch and the index only.

    Args:
        people: People to train on; see `LabelledPeople.usable`.
        frame: Shape of the crops.
        config: How they are varied.
        seed: 0 or above.
        photos: Where pixels come from; None for the photo files.
    """

    def __init__(
        self,
        people: LabelledPeople,
        frame: CropFrame,
        config: AugmentConfig,
        *,
        seed: int,
        photos: PhotoSource | None = None,
    ) -> None:
        self.people = people
        self.frame = frame
        self.config = config
        self._seed = seed
        self._photos = photos or PhotoFiles(people)
        self._halves = BodyHalves.of(people.schema, config.half_body_min)
        self._centers_N2, self._sizes_N2 = crop_boxes(
            xywh_to_xyxy(people.boxes_N4), frame.input_hw, frame.box_padding
        )

    def __len__(self) -> int:
        """Return the number of people."""
        return len(self.people)

    def __getitem__(self, key: Key) -> CropBatch:
        """Return the batch of one that (epoch, index) names."""
        return self.__getitems__([key])

    def __getitems__(self, keys: list[Key]) -> CropBatch:
        """Return the batch that (epoch, index) pairs name; `DataLoader` calls it."""
        index_B = np.array([index for _, index in keys], dtype=np.int64)
        draws = augment.draw_for(self.config, self._seed, keys)
        keypoints_BK2 = self.people.keypoints_NK2[index_B]
        weights_BK = self.people.weights_NK[index_B].astype(np.float64)
        crops = augment.vary_crops(
            draws,
            (self._centers_N2[index_B], self._sizes_N2[index_B]),
            keypoints_BK2,
            weights_BK > 0,
            self._halves,
        )
        matrices_B23 = augment.varied_matrices(draws, crops, self.frame.input_hw, self.frame.codec)
        points_BK2, weights_BK = augment.move_keypoints(
            keypoints_BK2, weights_BK, matrices_B23, draws.flip_N, self.people.schema
        )
        crops_BHW3, problems = self._cut(index_B, matrices_B23, draws)
        weights_BK[list(problems)] = 0
        return CropBatch(
            torch.from_numpy(crops_BHW3),
            torch.from_numpy(points_BK2.astype(np.float32)),
            torch.from_numpy(weights_BK.astype(np.float32)),
            torch.from_numpy(index_B),
            tuple(problems.values()),
        )

    def _cut(
        self, index_B: Ints, matrices_B23: augment.Array, draws: Draws
    ) -> tuple[augment.Pixels, dict[int, str]]:
        """Return the crops of some people, and a message for each that stayed black."""
        crops_BHW3 = np.zeros((len(index_B), *self.frame.input_hw, 3), np.uint8)
        problems: dict[int, str] = {}
        last_photo, region = -1, Region(np.empty((0, 0, 3), np.uint8))
        for row, photo in enumerate(self.people.photo_of_N[index_B].tolist()):
            try:
                # Neighbours in the batch that share a photo share its decoding.
                region = region if photo == last_photo else self._photos.read(photo)
                last_photo = photo
            except InputError as error:
                problems[row] = error.message
                continue
            matrix_23 = matrices_B23[row].copy()
            matrix_23[:, 2] += matrix_23[:, :2] @ region.first_xy
            matrix_23[:, :2] *= region.step
            crop_HW3 = warp_crops(region.pixels_HW3, matrix_23[None], self.frame.input_hw)[0]
            crop_HW3 = augment.coarsen(crop_HW3, float(draws.detail_N[row]))
            crop_HW3 = augment.recolor(crop_HW3, draws.color_N4[row])
            crops_BHW3[row] = augment.cut_out(crop_HW3, draws.cutouts_NR7[row])
        return crops_BHW3, problems


def crop_reach(people: LabelledPeople, frame: CropFrame, config: AugmentConfig) -> Reach:
    """Return what of their photos crops of people can show, however they are varied."""
    centers_N2, sizes_N2 = crop_boxes(
        xywh_to_xyxy(people.boxes_N4), frame.input_hw, frame.box_padding
    )
    labelled_NK = people.weights_NK > 0
    halves = BodyHalves.of(people.schema, config.half_body_min)
    whole = _reach_of(people, frame, config, (centers_N2, sizes_N2))
    if config.half_body_prob == 0 or not len(people):
        return whole
    may_N = labelled_NK.sum(axis=1) > halves.more_than
    for upper in (True, False):
        half_centers_N2, half_sizes_N2, found_N = augment.half_body_crops(
            people.keypoints_NK2,
            labelled_NK,
            halves,
            np.full(len(people), upper),
            frame.input_hw[1] / frame.input_hw[0],
        )
        half_N1 = (may_N & found_N)[:, None]
        crops = (
            np.where(half_N1, half_centers_N2, centers_N2),
            np.where(half_N1, half_sizes_N2, sizes_N2),
        )
        whole = whole.joined(_reach_of(people, frame, config, crops))
    return whole


class EpochSampler(Sampler[list[Key]]):
    """Batches of (epoch, index) in an order that depends on the seed and the epoch only.

    Consecutive people of one shuffled order make a global batch, and each process takes its own
    equal part of it: two processes with half the batch see together what one sees with the whole.
    The last batch of an epoch is smaller; of it at most ``processes - 1`` people are left out, so
    that all processes have equally many.

    Args:
        count: People in the data set.
        batch_size: Crops of each process in a step.
        seed: 0 or above.
        rank: Number of this process.
        ranks: How many processes there are.
        photo_of_N: Photo of each person, to keep people of one photo together, so that it is
            decoded once for all of them; None to shuffle people, as the official code does.

    Raises:
        ConfigError: There are fewer people than processes.
    """

    def __init__(
        self,
        count: int,
        *,
        batch_size: int,
        seed: int,
        rank: int = 0,
        ranks: int = 1,
        photo_of_N: Ints | None = None,
    ) -> None:
        if count < ranks or not count:
            raise ConfigError(
                f"{count} people to train on cannot be shared by {ranks} processes",
                hint="train on fewer devices" if count else "name a data set with labelled people",
            )
        self._photo_of_N = photo_of_N
        self._count = count
        self._batch_size = batch_size
        self._seed = seed
        self._rank = rank
        self._ranks = ranks
        self._epoch = 0
        self._start_step = 0

    @property
    def batch_size(self) -> int:
        """Return the crops of each process in a step, the last of an epoch left aside."""
        return self._batch_size

    @property
    def steps_per_epoch(self) -> int:
        """Return the number of steps of a whole epoch."""
        usable = self._count - self._count % self._ranks
        return -(-usable // (self._batch_size * self._ranks))

    def set_epoch(self, epoch: int, start_step: int = 0) -> None:
        """Choose the epoch that the next iteration gives, and the step at which it starts."""
        self._epoch = epoch
        self._start_step = start_step

    def __len__(self) -> int:
        """Return the number of steps that the next iteration gives."""
        return max(0, self.steps_per_epoch - self._start_step)

    def __iter__(self) -> Iterator[list[Key]]:
        """Yield the (epoch, index) pairs of one step after another."""
        epoch = self._epoch
        order_N = self._order(epoch).tolist()
        usable = self._count - self._count % self._ranks
        whole = self._batch_size * self._ranks
        for start in range(self._start_step * whole, usable, whole):
            share = min(whole, usable - start) // self._ranks
            first = start + self._rank * share
            yield [(epoch, index) for index in order_N[first : first + share]]

    def _order(self, epoch: int) -> Ints:
        """Return all indices in the order of an epoch."""
        rng = np.random.default_rng([self._seed, epoch])
        people_N = rng.permutation(self._count)
        if self._photo_of_N is None:
            return people_N
        place_P = rng.permutation(int(self._photo_of_N.max()) + 1)
        return people_N[np.argsort(place_P[self._photo_of_N[people_N]], kind="stable")]


def build_loader(
    dataset: CropDataset,
    sampler: EpochSampler | list[list[Key]],
    *,
    workers: int,
    pin: bool = False,
) -> "DataLoader[CropBatch]":
    """Return the loader of batches.

    Args:
        dataset: What to load.
        sampler: In which order: batches of (epoch, index); the `set_epoch` of a sampler is called
            before each iteration.
        workers: Processes that load; 0 for loading between the steps.
        pin: Hand over batches in page-locked memory, for a copy to CUDA beside the work.
    """
    with warnings.catch_warnings():
        # More workers than processors are of use where photos come over a network.
        warnings.filterwarnings("ignore", message="This DataLoader will create")
        return DataLoader(
            dataset,
            batch_sampler=sampler,
            num_workers=workers,
            collate_fn=_as_it_is,
            worker_init_fn=_start_worker,
            pin_memory=pin,
            persistent_workers=workers > 0,
            # Its own, so that making a loader draws nothing from the generator of the training.
            generator=torch.Generator(),
        )


def missing_photos(people: LabelledPeople) -> list[Path]:
    """Return the files of the people's photos that are not there."""
    paths = [people.photo_path(photo) for photo in np.unique(people.photo_of_N).tolist()]
    return [path for path in paths if not path.is_file()]


def _reach_of(
    people: LabelledPeople,
    frame: CropFrame,
    config: AugmentConfig,
    crops: tuple[augment.Array, augment.Array],
) -> Reach:
    """Return the reach of crops under scale, shift and, as a circle, any rotation."""
    centers_N2, sizes_N2 = crops
    half_sides_N2 = sizes_N2 * (1 + config.scale) / 2
    if config.rotation_prob > 0 and config.rotation_deg > 0:
        half_sides_N2 = np.repeat(np.hypot(*half_sides_N2.T)[:, None], 2, axis=1)
    if config.shift_prob > 0:
        half_sides_N2 = half_sides_N2 + config.shift * sizes_N2
    detail_N = sizes_N2[:, 1] * (1 - config.scale) / frame.input_hw[0]
    return Reach.around(people, centers_N2, half_sides_N2, detail_N)


def _as_it_is(batch: object) -> object:
    return batch


def _start_worker(worker: int) -> None:
    """Keep a worker process to one thread, and let signals to stop reach the training alone.

    There are as many workers as the machine can feed. Ctrl-C and schedulers signal all processes of
    a run; a worker that ended by itself would break the step that is saved before stopping.
    """
    del worker
    cv2.setNumThreads(0)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
