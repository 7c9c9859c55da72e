"""What is found wrong with a data set, each kind planted once; and the contact sheet."""

from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from hrnet_cli.data.augment import AugmentConfig
from hrnet_cli.data.check import check_people
from hrnet_cli.data.crops import CropFrame
from hrnet_cli.data.left_right import doubt_sides
from hrnet_cli.data.people import LabelledPeople
from hrnet_cli.data.sheet import COLUMNS, GAP_PX, draw_samples, draw_sheet
from hrnet_cli.errors import InputError
from hrnet_cli.schema import KeypointSchema, load_schema

WIDTH, HEIGHT = 120, 100
COCO = load_schema("coco17")
# A person seen from the front: (x, y) in parts of the box, in the order of COCO.
FRONT_K2 = np.array(
    [
        *[(0.5, 0.1), (0.55, 0.08), (0.45, 0.08), (0.6, 0.1), (0.4, 0.1), (0.7, 0.25), (0.3, 0.25)],
        *[(0.8, 0.4), (0.2, 0.4), (0.85, 0.55), (0.15, 0.55), (0.6, 0.55), (0.4, 0.55)],
        *[(0.6, 0.75), (0.4, 0.75), (0.6, 0.95), (0.4, 0.95)],
    ]
)


def make_people(folder, count=4):
    """One person on each of ``count`` different photos of WIDTH x HEIGHT."""
    rng = np.random.default_rng(0)
    for number in range(count):
        noise = rng.integers(0, 255, (HEIGHT, WIDTH, 3), np.uint8)
        Image.fromarray(noise).save(folder / f"{number}.jpg")
    boxes_N4 = np.tile([20.0, 10.0, 60.0, 80.0], (count, 1))
    return LabelledPeople(
        name="test",
        folder=folder,
        schema=COCO,
        photos=tuple(f"{number}.jpg" for number in range(count)),
        photo_ids_P=np.arange(count),
        sizes_P2=np.tile([WIDTH, HEIGHT], (count, 1)),
        photo_of_N=np.arange(count),
        ids_N=np.arange(100, 100 + count),
        boxes_N4=boxes_N4,
        areas_N=np.full(count, 2500.0),
        keypoints_NK2=boxes_N4[:, None, :2] + FRONT_K2 * boxes_N4[:, None, 2:],
        visible_NK=np.full((count, 17), 2, np.uint8),
        weights_NK=np.ones((count, 17), np.float32),
        crowd_N=np.zeros(count, bool),
    )


def changed(people, **fields):
    """Return people with parts of their arrays replaced: ``name=(index, value)``."""
    arrays = {}
    for name, (index, value) in fields.items():
        arrays[name] = getattr(people, name).copy()
        arrays[name][index] = value
    return replace(people, **arrays)


def found(people, **options):
    return {finding.what: finding for finding in check_people(people, **options).findings}


def test_nothing_odd(tmp_path):
    people = make_people(tmp_path)
    people = changed(people, visible_NK=((0, 3), 1), weights_NK=((1, 4), 0))
    people = changed(people, visible_NK=((1, 4), 0))
    report = check_people(people)
    assert report.findings == ()
    assert (report.photos, report.people, report.usable, report.unusable) == (4, 4, 4, 0)
    assert report.visible[:5] == (4, 4, 4, 3, 3)
    assert report.hidden[:5] == (0, 0, 0, 1, 0)


@pytest.mark.parametrize(
    ("fields", "what", "unusable"),
    [
        ({"boxes_N4": (1, [20, 10, 0, 80])}, "person boxes have no area", True),
        ({"boxes_N4": (1, [20, 10, -5, 80])}, "person boxes have no area", True),
        ({"areas_N": (1, 0)}, "people have the area 0", True),
        ({"boxes_N4": (1, [130, 10, 60, 80])}, "person boxes lie outside the photo", True),
        ({"boxes_N4": (1, [-70, 10, 60, 80])}, "person boxes lie outside the photo", True),
        ({"boxes_N4": (1, [18, 10, 104, 80])}, "person boxes reach outside the photo", False),
        ({"boxes_N4": (1, [18, -2, 60, 92])}, "person boxes reach outside the photo", False),
        ({"keypoints_NK2": ((1, 9), [120.5, 9])}, "keypoints lie outside the photo", False),
        ({"visible_NK": (1, 0)}, "people have no labelled keypoint", False),
        ({"crowd_N": (1, True)}, "regions hold a crowd", False),
        ({"photo_of_N": (1, 0)}, "photos have no people", False),
    ],
)
def test_each_oddity(tmp_path, fields, what, unusable):
    findings = found(changed(make_people(tmp_path), **fields), read_photos=False)
    assert findings[what].count == 1
    assert findings[what].unusable is unusable
    assert ("annotation 101" in findings[what].examples[0]) == (what != "photos have no people")


@pytest.mark.parametrize(
    ("box", "usable"),
    [([20, 10, 0, 80], 3), ([60, 10, -40, 80], 3), ([20, 10, 1, 1], 3), ([20, 10, 1, 80], 4)],
)
def test_boxes_without_area_are_those_that_training_leaves_out(tmp_path, box, usable):
    people = changed(make_people(tmp_path), boxes_N4=(1, box))
    report = check_people(people, read_photos=False)
    assert report.usable == usable
    kinds = [finding.what for finding in report.findings]
    assert ("person boxes have no area" in kinds) == (usable == 3)


def test_within_tolerance_is_no_finding(tmp_path):
    people = make_people(tmp_path)
    people = changed(people, boxes_N4=(1, [-0.9, 10, 121.8, 80]))
    people = changed(people, keypoints_NK2=((1, 9), [120.0, 50]))
    assert found(people, read_photos=False) == {}


def test_keypoints_outside_their_box(tmp_path):
    # A quarter of 60 and one pixel left of 20.
    for x, count in ((4.5, 0), (3.5, 1)):
        people = changed(make_people(tmp_path), keypoints_NK2=((1, 9), [x, 50]))
        findings = found(people, read_photos=False)
        assert len(findings) == count
        if count:
            (finding,) = findings.values()
            assert finding.what == "keypoints lie more than 25% outside their person box"
            assert finding.examples == ("left_wrist of annotation 101 in 1.jpg",)


def test_people_smaller_than_32_pixels(tmp_path):
    people = make_people(tmp_path)
    small = changed(people, boxes_N4=(1, [20, 10, 20, 31]))
    small = changed(small, keypoints_NK2=(1, [20, 10] + FRONT_K2 * [20, 31]))
    assert found(small, read_photos=False)["people are smaller than 32 pixels"].count == 1


def test_people_labelled_twice(tmp_path):
    people = make_people(tmp_path)
    twice = people.pick(np.array([0, 1, 1, 2, 3]))
    twice = replace(twice, ids_N=np.arange(5))
    (finding,) = found(twice, read_photos=False).values()
    assert finding.what == "people are labelled twice"
    assert finding.examples == ("annotation 2 in 1.jpg",)


def test_photos_missing_broken_doubled_and_resized(tmp_path):
    people = make_people(tmp_path, 7)
    (tmp_path / "0.jpg").unlink()
    data = (tmp_path / "1.jpg").read_bytes()
    (tmp_path / "1.jpg").write_bytes(data[: len(data) // 2])
    (tmp_path / "2.jpg").write_bytes(b"")
    (tmp_path / "3.jpg").write_bytes((tmp_path / "4.jpg").read_bytes())
    Image.new("RGB", (50, 60)).save(tmp_path / "5.jpg")
    Image.new("RGB", (HEIGHT, WIDTH)).save(tmp_path / "6.jpg")
    seen = []
    report = check_people(people, on_progress=lambda done, total: seen.append((done, total)))
    findings = {finding.what: finding for finding in report.findings}
    assert findings["photos are missing"].examples == ("0.jpg",)
    unreadable = findings["photos cannot be read"]
    assert unreadable.count == 2
    assert unreadable.examples[0].startswith("1.jpg (the file is truncated")
    assert unreadable.examples[1] == "2.jpg (the file is empty (0 bytes))"
    assert findings["photos are there more than once"].examples == ("3.jpg = 4.jpg",)
    assert findings["photos have another size than their labels say"].examples == (
        "5.jpg (50x60, not 120x100)",
        "6.jpg (100x120, turned by EXIF, not 120x100)",
    )
    assert report.unusable >= 5
    assert [finding.unusable for finding in report.findings[:3]] == [True] * 3
    assert seen[-1] == (7, 7)
    assert "photos are missing" not in found(people, read_photos=False)


def test_nobody(tmp_path):
    people = make_people(tmp_path).pick(np.zeros(4, bool))
    report = check_people(people)
    assert (report.people, report.usable) == (0, 0)
    assert [finding.what for finding in report.findings] == ["photos have no people"]


class TestLeftRight:
    def swapped(self, folder, *names):
        people = make_people(folder)
        order = list(range(17))
        for left, right in COCO.flip_pairs:
            if left.removeprefix("left_") in names:
                a, b = COCO.index[left], COCO.index[right]
                order[a], order[b] = b, a
        return changed(people, keypoints_NK2=(1, people.keypoints_NK2[1, order]))

    @pytest.mark.parametrize(
        "names", [("shoulder",), ("hip",), ("shoulder", "hip"), ("eye", "ear")]
    )
    def test_swapped_pairs_are_found(self, tmp_path, names):
        doubts_N = doubt_sides(self.swapped(tmp_path, *names))
        assert doubts_N[1] > 0
        assert doubts_N[[0, 2, 3]].tolist() == [0, 0, 0]
        (finding,) = found(self.swapped(tmp_path, *names), read_photos=False).values()
        assert finding.examples == ("annotation 101 in 1.jpg",)

    def test_all_swapped_is_a_person_from_behind(self, tmp_path):
        people = self.swapped(tmp_path, "eye", "ear", "shoulder", "hip")
        assert not doubt_sides(people).any()

    def test_unlabelled_and_side_views_are_not_doubted(self, tmp_path):
        people = self.swapped(tmp_path, "shoulder")
        hidden = changed(people, visible_NK=((slice(None), [0, 1, 2, 3, 4, 11]), 0))
        assert not doubt_sides(hidden).any()
        narrow = people.keypoints_NK2 * [0.1, 1]
        assert not doubt_sides(replace(people, keypoints_NK2=narrow)).any()

    def test_schemas_without_sides(self, tmp_path):
        schema = KeypointSchema("x", tuple(f"k{i}" for i in range(17)))
        assert not doubt_sides(replace(make_people(tmp_path), schema=schema)).any()


class TestSheet:
    FRAME = CropFrame((128, 96), "msra")

    def test_layout_and_content(self):
        schema = KeypointSchema("dot", ("a", "b"))
        crops = np.full((5, 128, 96, 3), 90, np.uint8)
        points = np.tile([[30.0, 40.0], [70.0, 90.0]], (5, 1, 1)).astype(np.float32)
        weights = np.tile([1.0, 0.0], (5, 1)).astype(np.float32)
        heatmaps = np.zeros((5, 2, 32, 24), np.float32)
        heatmaps[:, 0, 10, 7] = 1
        sheet = draw_sheet(crops, points, weights, heatmaps, schema)
        # Two rows of four; each crop is enlarged twice and stands there twice.
        tile_hw = (256 + GAP_PX, 2 * 192 + 2 * GAP_PX)
        assert sheet.shape == (2 * tile_hw[0] + GAP_PX, COLUMNS * tile_hw[1] + GAP_PX, 3)
        drawn = (sheet[GAP_PX : GAP_PX + 256, GAP_PX : GAP_PX + 192] != 90).any(axis=2)
        y, x = np.argwhere(drawn).mean(axis=0)
        # One disc around the enlarged pixel (30, 40), to half a pixel; none for weight 0.
        assert (x, y) == pytest.approx((60.5, 80.5), abs=0.5)
        assert np.ptp(np.argwhere(drawn), axis=0).max() < 40
        hot = (sheet[GAP_PX : GAP_PX + 256, GAP_PX + 192 :][:, :192] != 90).any(axis=2)
        y, x = np.argwhere(hot).mean(axis=0)
        # Heatmap pixel (7, 10) lies on crop pixel (28, 40).
        assert (x, y) == pytest.approx((56.5, 80.5), abs=0.5)

    def test_nobody_is_an_empty_sheet(self):
        schema = KeypointSchema("dot", ("a",))
        nothing = np.zeros((0, 1, 2), np.float32)
        sheet = draw_sheet(
            np.zeros((0, 128, 96, 3), np.uint8), nothing, nothing[..., 0],
            np.zeros((0, 1, 32, 24), np.float32), schema,
        )  # fmt: skip
        assert sheet.ndim == 3

    def test_samples_depend_on_the_seed_only(self, tmp_path):
        people = make_people(tmp_path)
        one, same, other = (
            draw_samples(people, self.FRAME, AugmentConfig(), sigma=2, seed=seed)
            for seed in (1, 1, 2)
        )
        np.testing.assert_array_equal(one, same)
        assert (one != other).any()

    def test_nobody_to_train_on(self, tmp_path):
        people = changed(make_people(tmp_path), visible_NK=(slice(None), 0))
        with pytest.raises(InputError, match="test has nobody to train on"):
            draw_samples(people, self.FRAME, AugmentConfig(), sigma=2, seed=0)

    def test_no_photo_to_draw(self, tmp_path):
        people = make_people(tmp_path)
        for photo in people.photos:
            (tmp_path / photo).unlink()
        with pytest.raises(InputError, match="cannot be opened: No such file"):
            draw_samples(people, self.FRAME, AugmentConfig(), sigma=2, seed=0)
