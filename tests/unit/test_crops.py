"""Training samples: what a batch holds, in which order, and what a bad photo does."""

import pickle
from dataclasses import fields

import numpy as np
import pytest
import torch

from hrnet_cli.data.augment import AugmentConfig
from hrnet_cli.data.crops import (
    CropDataset,
    CropFrame,
    EpochSampler,
    build_loader,
    missing_photos,
)
from hrnet_cli.data.photos import Region
from hrnet_cli.errors import ConfigError, ExitCode, InputError
from hrnet_cli.geometry import apply_affines, crop_boxes, crop_matrices, warp_crops, xywh_to_xyxy
from hrnet_cli.images import read_image
from photo_people import people_on_photos

FRAME = CropFrame((64, 48), "msra")


@pytest.fixture
def people(tmp_path):
    return people_on_photos(tmp_path)


def assert_same(a, b):
    for field in fields(a):
        ours, theirs = getattr(a, field.name), getattr(b, field.name)
        assert torch.equal(ours, theirs) if torch.is_tensor(ours) else ours == theirs


def test_without_augmentation_crops_are_those_of_the_estimator(people):
    dataset = CropDataset(people, FRAME, AugmentConfig.none(), seed=0)
    batch = dataset.__getitems__([(0, 4), (0, 1)])
    assert batch.crops_BHW3.shape == (2, 64, 48, 3)
    assert batch.crops_BHW3.is_contiguous()
    assert (batch.crops_BHW3.dtype, batch.keypoints_BK2.dtype) == (torch.uint8, torch.float32)
    assert batch.index_B.tolist() == [4, 1]
    assert (len(dataset), len(batch), batch.problems) == (6, 2, ())
    centers, sizes = crop_boxes(xywh_to_xyxy(people.boxes_N4[[4, 1]]), FRAME.input_hw)
    matrices = crop_matrices(centers, sizes, FRAME.input_hw, "msra")
    for row, photo in enumerate((2, 0)):
        pixels, _ = read_image(people.photo_path(photo))
        expected = warp_crops(pixels, matrices[row : row + 1], FRAME.input_hw)[0]
        np.testing.assert_array_equal(batch.crops_BHW3[row].numpy(), expected)
    points = apply_affines(people.keypoints_NK2[[4, 1]], matrices)
    labelled = people.weights_NK[[4, 1]] > 0
    np.testing.assert_allclose(batch.keypoints_BK2.numpy()[labelled], points[labelled], rtol=1e-5)
    assert not batch.keypoints_BK2[:, 3].any()
    np.testing.assert_array_equal(batch.weights_BK.numpy(), labelled)


def test_label_weights_reach_the_batch(people):
    weighted = people.pick(np.arange(6))
    weighted.weights_NK[2, 5] = 0.25
    batch = CropDataset(weighted, FRAME, AugmentConfig.none(), seed=0)[0, 2]
    assert batch.weights_BK[0, 5] == 0.25


def test_keypoints_stay_on_their_pixels_under_augmentation(people):
    """Each keypoint is painted into the photo; it must be there in the crop."""
    config = AugmentConfig(half_body_prob=0, rotation_prob=1)
    pixels = np.zeros((300, 300, 3), np.uint8)
    points = np.random.default_rng(1).uniform(80, 220, (1, 17, 2)).round()
    one = people.pick(np.array([0]))
    one.boxes_N4[:] = (60, 60, 180, 180)
    one.keypoints_NK2[:] = points
    one.weights_NK[:] = 1

    class Painted:
        keypoint = 0

        def read(self, photo):
            image = pixels.copy()
            x, y = points[0, self.keypoint].astype(int)
            image[y - 3 : y + 4, x - 3 : x + 4] = 255
            return Region(image)

    photos = Painted()
    dataset = CropDataset(one, CropFrame((128, 96), "msra"), config, seed=0, photos=photos)
    mirrored = 0
    for epoch in range(6):
        for keypoint in (0, 5, 6, 9):
            photos.keypoint = keypoint
            batch = dataset[epoch, 0]
            rows, columns = np.nonzero(batch.crops_BHW3[0, ..., 0].numpy() > 127)
            found = np.array([columns.mean(), rows.mean()])
            moved = batch.keypoints_BK2[0].numpy()
            nearest = int(np.abs(moved - found).sum(1).argmin())
            # The middle of a turned square of few pixels.
            np.testing.assert_allclose(found, moved[nearest], atol=0.4)
            mirrored += nearest != keypoint
            assert people.schema.flip_indices[nearest] == keypoint or nearest == keypoint
    assert mirrored


@pytest.mark.parametrize("workers", [0, 2])
def test_loading_gives_the_same_with_any_number_of_workers(people, workers):
    dataset = CropDataset(people, FRAME, AugmentConfig(color=0.5), seed=3)
    sampler = EpochSampler(len(people), batch_size=4, seed=3)
    sampler.set_epoch(2)
    alone = [dataset.__getitems__(keys) for keys in sampler]
    state = torch.get_rng_state()
    loader = build_loader(dataset, sampler, workers=workers)
    for _ in range(2):
        loaded = list(loader)
        assert len(loaded) == len(loader) == 2
        for ours, theirs in zip(loaded, alone, strict=True):
            assert_same(ours, theirs)
    # Loading draws nothing from the generator that training uses.
    assert torch.equal(torch.get_rng_state(), state)


def test_epochs_reach_workers_that_stay(people):
    dataset = CropDataset(people, FRAME, AugmentConfig(), seed=3)
    sampler = EpochSampler(len(people), batch_size=6, seed=3)
    loader = build_loader(dataset, sampler, workers=1)
    seen = []
    for epoch in (0, 1):
        sampler.set_epoch(epoch)
        (batch,) = loader
        seen.append(batch.crops_BHW3[batch.index_B.argsort()])
    assert not torch.equal(*seen)


def test_bad_photos_are_black_weightless_and_named(people):
    people.photo_path(0).unlink()
    people.photo_path(1).write_bytes(b"")
    assert missing_photos(people) == [people.photo_path(0)]
    dataset = CropDataset(people, FRAME, AugmentConfig(), seed=0)
    batch = dataset.__getitems__([(0, 0), (0, 2), (0, 4), (0, 1)])
    assert not batch.crops_BHW3[[0, 1, 3]].any()
    assert not batch.weights_BK[[0, 1, 3]].any()
    assert batch.crops_BHW3[2].any()
    assert batch.weights_BK[2].any()
    assert len(batch.problems) == 3
    assert "0.png' cannot be opened: No such file" in batch.problems[0]
    assert "1.png': the file is empty (0 bytes)" in batch.problems[1]
    with pytest.raises(InputError, match=r"0\.png") as caught:
        batch.raise_problems()
    assert caught.value.exit_code == ExitCode.INPUT
    dataset[0, 4].raise_problems()


def test_batches_move_and_pickle(people):
    batch = CropDataset(people, FRAME, AugmentConfig(), seed=0)[0, 0]
    assert_same(batch.to("cpu"), batch)
    assert batch.to("meta").crops_BHW3.device.type == "meta"
    assert_same(pickle.loads(pickle.dumps(batch)), batch)


@pytest.mark.parametrize("together", [False, True])
def test_every_person_once_an_epoch(together):
    photo_of = np.repeat(np.arange(5), 2) if together else None
    sampler = EpochSampler(10, batch_size=4, seed=1, photo_of_N=photo_of)
    sampler.set_epoch(7)
    steps = list(sampler)
    assert [len(step) for step in steps] == [4, 4, 2]
    assert sampler.steps_per_epoch == len(sampler) == 3
    indices = [index for step in steps for _, index in step]
    assert sorted(indices) == list(range(10))
    assert {epoch for step in steps for epoch, _ in step} == {7}
    assert list(sampler) == steps
    sampler.set_epoch(8)
    assert [index for step in sampler for _, index in step] != indices
    if together:
        assert all(a // 2 == b // 2 for a, b in zip(indices[::2], indices[1::2], strict=True))


def test_an_epoch_goes_on_where_it_stopped():
    sampler = EpochSampler(10, batch_size=4, seed=1)
    sampler.set_epoch(3)
    steps = list(sampler)
    sampler.set_epoch(3, start_step=1)
    assert (list(sampler), len(sampler)) == (steps[1:], 2)
    sampler.set_epoch(3, start_step=3)
    assert (list(sampler), len(sampler)) == ([], 0)


def test_processes_share_each_global_batch():
    whole = EpochSampler(11, batch_size=4, seed=1)
    halves = [EpochSampler(11, batch_size=2, seed=1, rank=rank, ranks=2) for rank in (0, 1)]
    joined = [a + b for a, b in zip(*halves, strict=True)]
    assert joined[:2] == list(whole)[:2]
    # Eleven people: one of the last three is left out.
    assert [len(step) for step in joined] == [4, 4, 2]
    assert joined[2] == list(whole)[2][:2]
    assert halves[0].steps_per_epoch == 3


def test_too_few_people():
    with pytest.raises(ConfigError, match="1 people to train on cannot be shared by 2") as caught:
        EpochSampler(1, batch_size=1, seed=0, ranks=2)
    assert caught.value.hint == "train on fewer devices"
    with pytest.raises(ConfigError, match="0 people") as caught:
        EpochSampler(0, batch_size=1, seed=0)
    assert "labelled people" in caught.value.hint
