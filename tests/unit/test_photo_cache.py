"""Photos from files, from memory and from the packed file: the same crops, or a clear refusal."""

import errno
import os
import pickle
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from hrnet_cli.data import augment, photo_cache, photos
from hrnet_cli.data.augment import AugmentConfig, draw
from hrnet_cli.data.crops import CropDataset, CropFrame, crop_reach
from hrnet_cli.data.photo_cache import open_or_pack, open_packed, pack_photos
from hrnet_cli.data.photos import load_into_memory, read_photo
from hrnet_cli.distributed import Team
from hrnet_cli.errors import ExitCode, InputError, OutputError
from hrnet_cli.images import read_image
from hrnet_cli.run_samples import build_samples
from photo_people import people_on_photos
from training_data import configure

FRAME = CropFrame((64, 48), "msra")
STRONGEST = AugmentConfig(
    scale=0.5,
    rotation_deg=80,
    rotation_prob=1,
    half_body_prob=0.5,
    shift=0.2,
    shift_prob=1,
    distribution="truncated",
)
CONFIGS = {"official": AugmentConfig(), "strongest": STRONGEST, "none": AugmentConfig.none()}


@pytest.fixture
def people(tmp_path):
    """People in small boxes on larger photos, so that a cache need not hold all of a photo."""
    people = people_on_photos(tmp_path, size_wh=(200, 150))
    return replace(
        people,
        boxes_N4=people.boxes_N4 * 0.8 + [40, 30, 0, 0],
        keypoints_NK2=people.keypoints_NK2 * 0.8 + [40, 30],
    )


def packed(people, folder, config=STRONGEST, frame=FRAME):
    reach = crop_reach(people, frame, config)
    pack_photos(folder / "photos.packed", people, reach)
    return open_packed(folder / "photos.packed", people, reach)


def crops_of(people, config, source, frame=FRAME):
    dataset = CropDataset(people, frame, config, seed=0, photos=source)
    keys = [(epoch, index) for epoch in range(10) for index in range(len(people))]
    return dataset.__getitems__(keys)


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
@pytest.mark.parametrize("codec", ["msra", "udp"])
def test_a_cache_changes_no_pixel(people, tmp_path, config, codec):
    frame = replace(FRAME, codec=codec)
    plain = crops_of(people, config, None, frame).crops_BHW3
    assert plain.any()
    for source in (
        packed(people, tmp_path, config, frame),
        load_into_memory(people, crop_reach(people, frame, config), 10**9),
    ):
        assert torch.equal(crops_of(people, config, source, frame).crops_BHW3, plain)
    whole = 3 * 200 * 150 * len(people.photos)
    if config == CONFIGS["none"]:
        assert (tmp_path / "photos.packed").stat().st_size < 0.5 * whole


@pytest.mark.parametrize("sides", [(30.0, 40.0), (380.0, 500.0)], ids=["as stored", "smaller"])
def test_the_farthest_crops_stay_inside_the_cache(tmp_path, monkeypatch, sides):
    """On a white photo a crop that reads beyond the cached part has a dark rim."""
    people = people_on_photos(tmp_path, photos=1).pick(np.array([0]))
    cv2.imwrite(str(people.photo_path(0)), np.full((2000, 2000, 3), 255, np.uint8))
    middle = replace(people, boxes_N4=np.array([[1000.3, 1000.6, *sides]]))
    config = replace(STRONGEST, half_body_prob=0.0)
    source = packed(middle, tmp_path, config)
    assert source.read(0).step == (1 if sides[0] == 30 else 2)
    draws = draw(config, np.random.default_rng(0), 1)
    for degrees in range(0, 360, 3):
        for shift in ((0.2, 0.2), (-0.2, 0.2), (0.2, -0.2), (-0.2, -0.2)):
            farthest = replace(
                draws,
                scale_N=np.array([1.5]),
                rotation_deg_N=np.array([float(degrees)]),
                shift_N2=np.array([shift]),
            )
            monkeypatch.setattr(augment, "draw_for", lambda *_, far=farthest: far)
            dataset = CropDataset(middle, FRAME, config, seed=0, photos=source)
            assert dataset[0, 0].crops_BHW3.min() == 255


def test_the_reach_is_not_much_more_than_needed(people, tmp_path):
    """Crops reach what lies near the rim of the cached part; else the test above shows nothing."""
    config = replace(STRONGEST, shift=0.0)
    source = packed(people, tmp_path, config)
    plain = crops_of(people, config, None).crops_BHW3
    read = source.read

    def smaller(photo):
        region = read(photo)
        x, y = region.first_xy
        return replace(region, pixels_HW3=region.pixels_HW3[9:, 9:], first_xy=(x + 9, y + 9))

    source.read = smaller
    assert not torch.equal(crops_of(people, config, source).crops_BHW3, plain)


def test_memory_takes_as_much_as_allowed(people):
    reach = crop_reach(people, FRAME, STRONGEST)
    steps = []
    everything = load_into_memory(people, reach, 10**9, lambda *step: steps.append(step))
    assert (len(everything), steps) == (3, [(0, 3), (1, 3), (2, 3), (3, 3)])
    one = everything.read(0).pixels_HW3.nbytes
    some = load_into_memory(people, reach, one)
    assert len(some) == 1
    plain = crops_of(people, STRONGEST, None).crops_BHW3
    assert torch.equal(crops_of(people, STRONGEST, some).crops_BHW3, plain)


def test_large_photos_are_kept_smaller(tmp_path):
    people = people_on_photos(tmp_path, photos=1, size_wh=(1210, 901))
    smooth = cv2.resize(
        np.random.default_rng(0).integers(0, 256, (9, 12, 3), np.uint8), (1210, 901)
    )
    cv2.imwrite(str(people.photo_path(0)), smooth)
    large = replace(
        people,
        boxes_N4=np.array([[100.0, 50, 700, 800], [500, 100, 705, 780]]),
        keypoints_NK2=people.keypoints_NK2 * 10,
    )
    config = AugmentConfig(half_body_prob=0)
    source = packed(large, tmp_path, config)
    region = source.read(0)
    assert region.step == 5
    assert region.pixels_HW3.shape[0] == -(-901 // 5)
    plain = crops_of(large, config, None).crops_BHW3.numpy().astype(int)
    ours = crops_of(large, config, source).crops_BHW3.numpy().astype(int)
    # A smooth photo hardly changes by averaging; half a pixel of the cache off would show as 4.
    inside = (plain > 0).all(axis=-1) & (ours > 0).all(axis=-1)
    assert np.abs(ours - plain)[inside].mean() < 1


def test_a_cache_can_be_moved_and_needs_no_photos(people, tmp_path):
    source = packed(people, tmp_path)
    plain = crops_of(people, STRONGEST, source).crops_BHW3
    (tmp_path / "elsewhere").mkdir()
    moved = (tmp_path / "photos.packed").rename(tmp_path / "elsewhere" / "moved")
    abroad = replace(people, folder=tmp_path / "nowhere")
    source = open_packed(moved, abroad, crop_reach(abroad, FRAME, AugmentConfig()))
    assert torch.equal(crops_of(abroad, STRONGEST, source).crops_BHW3, plain)


def test_a_cache_is_made_once(people, tmp_path):
    path, reach = tmp_path / "new" / "photos.packed", crop_reach(people, FRAME, STRONGEST)
    steps = []
    first = open_or_pack(path, people, reach, lambda *step: steps.append(step)).read(0)
    made = path.stat().st_mtime_ns
    again = open_or_pack(path, people, reach).read(0)
    assert steps[-1] == (3, 3)
    assert path.stat().st_mtime_ns == made
    np.testing.assert_array_equal(first.pixels_HW3, again.pixels_HW3)


def test_loader_processes_map_the_file_anew(people, tmp_path):
    source = packed(people, tmp_path)
    pickled = pickle.dumps(source)
    assert len(pickled) < 2000
    copied = pickle.loads(pickled)
    np.testing.assert_array_equal(copied.read(1).pixels_HW3, source.read(1).pixels_HW3)


def test_bad_photos_are_remembered(people, tmp_path):
    people.photo_path(1).write_bytes(b"")
    source = packed(people, tmp_path)
    assert len(source) == 3
    assert source.problems == (f"photo '{people.photo_path(1)}': the file is empty (0 bytes)",)
    batch = crops_of(people, AugmentConfig(), source)
    assert len(batch.problems) == 20
    assert "is empty (0 bytes) (when '" in batch.problems[0]
    assert len(load_into_memory(people, crop_reach(people, FRAME, STRONGEST), 10**9)) == 2


def test_photos_without_people_are_left_out(people, tmp_path):
    some = people.pick(people.photo_of_N != 1)
    people.photo_path(1).unlink()
    source = packed(some, tmp_path)
    assert source.problems == ()
    assert crops_of(some, AugmentConfig(), source).problems == ()


def test_nobody(people, tmp_path):
    nobody = people.pick(np.zeros(0, np.int64))
    assert packed(nobody, tmp_path).problems == ()


def test_boxes_outside_their_photo(people, tmp_path):
    outside = replace(people, boxes_N4=people.boxes_N4 + np.array([5000, -5000, 0, 0]))
    config = AugmentConfig(half_body_prob=0)
    assert not crops_of(outside, config, packed(outside, tmp_path, config)).crops_BHW3.any()


def refusal(path, people, config=STRONGEST, frame=FRAME):
    with pytest.raises(InputError) as caught:
        open_packed(path, people, crop_reach(people, frame, config))
    assert caught.value.exit_code == ExitCode.INPUT
    assert caught.value.hint or "No such file" in caught.value.message
    return caught.value.message


def test_a_cache_that_does_not_fit_is_refused(people, tmp_path):
    path = tmp_path / "photos.packed"
    assert "cannot be opened: No such file" in refusal(path, people)
    packed(people, tmp_path, AugmentConfig(half_body_prob=0))
    assert f"'{path}' holds less of photo '0.png' than crops" in refusal(path, people)
    fewer = people.pick(np.arange(5))
    assert "(3 photos, 6 people; here 3 and 5)" in refusal(path, fewer)
    moved = replace(people, boxes_N4=people.boxes_N4 + 0.5)
    assert "was made from other labels than those of 'noise'" in refusal(path, moved)
    weights = people.weights_NK.copy()
    weights[0, 0] = 0
    assert "other labels" in refusal(path, replace(people, weights_NK=weights))


def test_a_coarse_cache_is_refused_for_larger_crops(tmp_path):
    people = people_on_photos(tmp_path, photos=1, size_wh=(1200, 900))
    large = replace(people, boxes_N4=np.array([[100.0, 50, 700, 800], [500, 100, 705, 780]]))
    packed(large, tmp_path, AugmentConfig.none())
    frame = CropFrame((256, 192), "msra")
    message = refusal(tmp_path / "photos.packed", large, AugmentConfig.none(), frame)
    assert "holds fewer pixels of photo '0.png'" in message


def test_a_cache_of_its_own_is_of_these_photos_as_they_are(people, tmp_path):
    def train_on(folder, file=""):
        config = configure("spots", data__cache="packed", data__cache_file=file)
        there, lines = replace(people, folder=folder), []
        dataset = build_samples(config, there, mirrors=True, team=Team(), tell=lines.append)
        keys = [(0, index) for index in range(len(people))]
        plain = CropDataset(there.usable(), dataset.frame, config.augment, seed=config.run.seed)
        same = torch.equal(
            dataset.__getitems__(keys).crops_BHW3, plain.__getitems__(keys).crops_BHW3
        )
        return lines, same

    first, right = train_on(tmp_path)
    assert right
    assert train_on(tmp_path) == (first, True)
    copy = tmp_path / "copy"
    copy.mkdir()
    for photo in people.photos:
        cv2.imwrite(str(copy / photo), 255 - cv2.imread(str(tmp_path / photo)))
    second, right = train_on(copy)
    assert right, "pixels of the other folder"
    assert second != first
    before = (copy / people.photos[0]).stat()
    # As it is, but for what is in it: noise of the same size is a file of all but the same size.
    cv2.imwrite(str(copy / people.photos[0]), cv2.imread(str(tmp_path / people.photos[0])))
    os.utime(copy / people.photos[0], ns=(before.st_atime_ns, before.st_mtime_ns + 1))
    third, right = train_on(copy)
    assert right, "pixels of the photos before"
    assert third not in (first, second)
    # A file that is named may come from another machine, where the photos lie elsewhere.
    (file,) = {Path(line.removeprefix("photos are packed in ")) for line in first}
    assert train_on(copy, str(file)) == (first, False)


def test_damaged_caches_are_refused(people, tmp_path):
    packed(people, tmp_path)
    path = tmp_path / "photos.packed"
    data = path.read_bytes()
    path.write_bytes(data[:-10])
    assert "is damaged: its end is missing" in refusal(path, people)
    path.write_bytes(data[: len(data) // 2])
    assert "is damaged" in refusal(path, people)
    path.write_bytes(data[: len(photo_cache.MAGIC)])
    assert "has format 0, expected 1" in refusal(path, people)
    path.write_bytes(b"")
    assert "is no photo cache of hrnet" in refusal(path, people)
    path.write_bytes(data[:12] + b"xx" + data[14:])
    assert "is no photo cache" in refusal(path, people)


def test_a_full_disk_leaves_nothing_behind(people, tmp_path, monkeypatch):
    def full(path):
        raise OSError(errno.ENOSPC, "No space left on device")

    reach = crop_reach(people, FRAME, STRONGEST)
    monkeypatch.setattr(photos, "read_photo", full)
    with pytest.raises(OutputError, match=r"photos\.packed': No space left on device") as caught:
        pack_photos(tmp_path / "new" / "photos.packed", people, reach)
    assert caught.value.exit_code == ExitCode.OUTPUT
    assert "it needs about 0.0 GB; make room" in caught.value.hint
    assert list((tmp_path / "new").iterdir()) == []


def test_a_place_that_cannot_be_written(people, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="cannot write the photo cache") as caught:
        pack_photos(tmp_path / "file" / "x", people, crop_reach(people, FRAME, STRONGEST))
    assert caught.value.hint == "name another place"


JPEG = cv2.imencode(".jpg", np.random.default_rng(0).integers(0, 256, (40, 30, 3), np.uint8))[1]


@pytest.mark.parametrize("accelerated", [True, False])
def test_photos_are_read_as_the_careful_reader_reads_them(tmp_path, monkeypatch, accelerated):
    if not accelerated:
        monkeypatch.setattr(photos, "simplejpeg", None)
    elif photos.simplejpeg is None:
        pytest.skip("simplejpeg is not installed")
    path = tmp_path / "photo.jpg"
    path.write_bytes(JPEG.tobytes())
    careful, _ = read_image(path, apply_orientation=False)
    # Decoders may round differently by a level.
    np.testing.assert_allclose(read_photo(path).astype(int), careful.astype(int), atol=2)
    cv2.imwrite(str(tmp_path / "photo.png"), careful)
    np.testing.assert_array_equal(read_photo(tmp_path / "photo.png"), careful[:, :, ::-1])


@pytest.mark.parametrize("accelerated", [True, False])
def test_broken_photos_are_refused_by_name(tmp_path, monkeypatch, accelerated):
    if not accelerated:
        monkeypatch.setattr(photos, "simplejpeg", None)
    path = tmp_path / "photo.jpg"
    path.write_bytes(JPEG.tobytes()[:-400])
    with pytest.raises(InputError, match=r"photo\.jpg': the file is truncated"):
        read_photo(path)
    path.write_bytes(b"\xff\xd8\xff" + bytes(100) + b"\xff\xd9")
    with pytest.raises(InputError, match=r"photo\.jpg': the file"):
        read_photo(path)
    with pytest.raises(InputError, match="is a folder"):
        read_photo(tmp_path)
