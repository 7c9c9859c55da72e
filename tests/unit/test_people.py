"""Labels as arrays: picking, cleaning, joining and telling them apart."""

from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest

from hrnet_cli.data.held_out import hold_out, leave_out
from hrnet_cli.data.people import LabelledPeople, digest, join_people
from hrnet_cli.errors import ExitCode, InputError
from hrnet_cli.schema import KeypointSchema

DOG = KeypointSchema("dog", ("nose", "tail"))


def make(people=4, *, folder=Path("photos"), name="dogs", schema=DOG, **arrays):
    """Return people on two photos of 100 x 80 pixels, in turn, with whole boxes and labels."""
    count = len(schema)
    defaults = {
        "photos": ("a.jpg", "sub/b.jpg"),
        "photo_ids_P": np.array([7, 9]),
        "sizes_P2": np.array([[100, 80], [100, 80]]),
        "photo_of_N": np.arange(people) % 2,
        "ids_N": 50 + np.arange(people),
        "boxes_N4": np.tile([10.0, 20.0, 30.0, 40.0], (people, 1)),
        "areas_N": np.full(people, 600.0),
        "keypoints_NK2": np.arange(people * count * 2.0).reshape(people, count, 2),
        "visible_NK": np.full((people, count), 2, np.uint8),
        "weights_NK": np.ones((people, count), np.float32),
        "crowd_N": np.zeros(people, bool),
    }
    return LabelledPeople(name=name, folder=folder, schema=schema, **(defaults | arrays))


def same(a, b):
    for field in fields(a):
        mine, yours = getattr(a, field.name), getattr(b, field.name)
        if isinstance(mine, np.ndarray):
            np.testing.assert_array_equal(mine, yours, err_msg=field.name)
            assert mine.dtype == yours.dtype
        else:
            assert mine == yours
    return True


# ---------------------------------------------------------------- the arrays


def test_shapes_are_checked_against_each_other():
    with pytest.raises(ValueError, match=r"^boxes_N4: expected \(4, 4\), got \(3, 4\)$"):
        make(boxes_N4=np.zeros((3, 4)))
    with pytest.raises(ValueError, match=r"^visible_NK: expected \(4, 2\), got \(4, 3\)$"):
        make(visible_NK=np.zeros((4, 3), np.uint8))


def test_photos_are_found_by_their_index():
    assert make().photo_path(1) == Path("photos/sub/b.jpg")


def test_boxes_that_say_what_is_cropped_are_not_cut():
    boxes = np.tile([-10.0, 20.0, 130.0, 40.0], (2, 1))
    people = make(2, boxes_N4=boxes, uncut_N=np.array([True, False]))
    assert people.usable().boxes_N4.tolist() == [[-10, 20, 130, 40], [0, 20, 99, 39]]
    joined = join_people([people, make(1)])
    assert joined.uncut_N.tolist() == [True, False, False]


# ---------------------------------------------------------------- picking


@pytest.mark.parametrize(
    "which", [np.array([False, True, False, True]), np.array([1, 3])], ids=["mask", "indices"]
)
def test_picked_people_keep_all_that_is_theirs_and_photos_stay(which):
    people = make(weights_NK=np.arange(8, dtype=np.float32).reshape(4, 2) / 8)
    picked = people.pick(which)
    assert len(picked) == 2
    assert picked.photos == people.photos
    np.testing.assert_array_equal(picked.photo_ids_P, people.photo_ids_P)
    np.testing.assert_array_equal(picked.sizes_P2, people.sizes_P2)
    for name in (f.name for f in fields(people) if "_N" in f.name):
        np.testing.assert_array_equal(getattr(picked, name), getattr(people, name)[[1, 3]])


def test_nobody_can_be_picked():
    nobody = make().pick(np.zeros(4, bool))
    assert len(nobody) == 0
    assert nobody.keypoints_NK2.shape == (0, 2, 2)
    assert len(nobody.usable()) == 0


def test_picked_photos_keep_all_their_people():
    picked = make().pick_photos(np.array([False, True]))
    assert (picked.photos, picked.photo_ids_P.tolist()) == (("sub/b.jpg",), [9])
    assert picked.sizes_P2.shape == (1, 2)
    assert (picked.photo_of_N.tolist(), picked.ids_N.tolist()) == ([0, 0], [51, 53])
    nobody = make().pick_photos(np.zeros(2, bool))
    assert (len(nobody), nobody.photos) == (0, ())


# ---------------------------------------------------------------- people of use


def test_boxes_lose_a_pixel_and_are_cut_to_the_photo():
    boxes = [
        [10, 20, 30, 40],
        [-5, -6, 30, 40],  # official: the near corner moves, width and height stay
        [90, 70, 30, 40],
        [10.5, 20.25, 8.5, 6.5],
    ]
    people = make(boxes_N4=np.array(boxes, float))
    usable = people.usable()
    expected = [[10, 20, 29, 39], [0, 0, 29, 39], [90, 70, 9, 9], [10.5, 20.25, 7.5, 5.5]]
    np.testing.assert_array_equal(usable.boxes_N4, expected)
    np.testing.assert_array_equal(people.boxes_N4, boxes)
    np.testing.assert_array_equal(usable.keypoints_NK2, people.keypoints_NK2)
    np.testing.assert_array_equal(usable.areas_N, people.areas_N)


def test_photos_of_unknown_size_cut_nothing():
    people = make(
        sizes_P2=np.array([[0, 0], [50, 50]]), boxes_N4=np.tile([40.0, 40.0, 900.0, 900.0], (4, 1))
    )
    usable = people.usable().boxes_N4
    np.testing.assert_array_equal(usable, [[40, 40, 899, 899], [40, 40, 9, 9]] * 2)


def test_people_of_no_use_are_left_out():
    visible = np.full((10, 2), 2, np.uint8)
    visible[1] = 0
    visible[2] = [0, 1]  # one hidden keypoint is enough
    boxes = np.tile([10.0, 20.0, 30.0, 40.0], (10, 1))
    boxes[3] = [120, 20, 30, 40]  # beside the photo
    boxes[4] = [10, 20, 1, 1]  # nothing is left of it
    boxes[5] = [10, 20, 1, 40]  # a line; the official code keeps it
    boxes[8] = [60, 20, -30, 40]  # its corners are exchanged
    boxes[9] = [10, 20, 30, 0]
    areas = np.full(10, 600.0)
    areas[6] = 0
    crowd = np.arange(10) == 7
    people = make(10, visible_NK=visible, boxes_N4=boxes, areas_N=areas, crowd_N=crowd)
    assert people.usable().ids_N.tolist() == [50, 52, 55]


# ---------------------------------------------------------------- holding photos out


def make_photos(names, people_each=2, **arrays):
    """Return people on photos of these names, those of one photo not next to each other."""
    count = len(names)
    return make(
        people_each * count,
        photos=tuple(names),
        photo_ids_P=np.arange(count) + 1,
        sizes_P2=np.tile([100, 80], (count, 1)),
        photo_of_N=np.tile(np.arange(count), people_each),
        **arrays,
    )


NAMES = [f"{number}.jpg" for number in range(20)]


@pytest.mark.parametrize(
    ("share", "photos", "held"),
    [(0.1, 20, 2), (0.25, 20, 5), (0.1, 2, 1), (0.999, 2, 1), (0.001, 20, 1), (0.999, 20, 19)],
)
def test_a_share_of_the_photos_is_held_out_and_people_stay_together(share, photos, held):
    people = make_photos(NAMES[:photos])
    left, out = hold_out(people, share, 0)
    assert len(out.photos) == held
    assert sorted([*left.photos, *out.photos]) == sorted(people.photos)
    assert sorted([*left.ids_N, *out.ids_N]) == people.ids_N.tolist()
    for part in (left, out):
        assert len(part) == 2 * len(part.photos)
        for person, photo in zip(part.ids_N.tolist(), part.photo_of_N.tolist(), strict=True):
            before = people.photo_of_N[person - people.ids_N[0]]
            assert part.photos[photo] == people.photos[before]


def test_the_photos_held_out_depend_on_their_names_and_the_seed_alone():
    _, out = hold_out(make_photos(NAMES), 0.25, 7)
    _, reversed_ = hold_out(make_photos(NAMES[::-1], 1, folder=Path("elsewhere")), 0.25, 7)
    assert set(reversed_.photos) == set(out.photos)
    _, more = hold_out(make_photos(NAMES), 0.5, 7)
    assert set(more.photos) > set(out.photos)
    _, other = hold_out(make_photos(NAMES), 0.25, 8)
    assert set(other.photos) != set(out.photos)
    # Kept from version to version: a run is resumed with the photos it did not learn from.
    assert out.photos == ("0.jpg", "3.jpg", "6.jpg", "11.jpg", "14.jpg")


def test_a_photo_listed_twice_is_held_out_as_one():
    people = make_photos([*NAMES, *(f"./{name}" for name in NAMES)])
    left, out = hold_out(people, 0.1, 0)
    assert len(out.photos) == 4
    assert not {name.removeprefix("./") for name in out.photos} & set(left.photos)


def test_photos_without_people_of_use_are_not_held_out():
    visible = np.full((20, 2), 2, np.uint8)
    visible[3:] = 0
    left, out = hold_out(make_photos(NAMES, 1, visible_NK=visible), 0.5, 0)
    assert len(left.usable()) + len(out.usable()) == 3
    assert len(out.photos) == len(out.usable()) == 2
    visible[1:] = 0
    with pytest.raises(InputError) as raised:
        hold_out(make_photos(NAMES, 1, visible_NK=visible), 0.5, 0)
    assert raised.value.message == (
        "'dogs' has 1 photos with labelled people, expected 2 or more to hold 50% of them out"
    )
    assert "--val" in raised.value.hint


def test_photos_of_another_data_set_are_left_out_by_their_file(tmp_path):
    held = make(folder=tmp_path)
    same_file = make_photos(["b.jpg", "../a.jpg", "c.jpg"], folder=tmp_path / "sub")
    assert leave_out(same_file, held).photos == ("c.jpg",)
    assert same(leave_out(same_file, make(folder=tmp_path / "other")), same_file)


# ---------------------------------------------------------------- joining


def test_one_data_set_is_joined_as_it_is():
    people = make()
    assert join_people([people]) is people


def test_joined_people_find_their_photos_and_have_ids_of_their_own(tmp_path):
    first = make(3, folder=tmp_path / "one", name="one")
    second = make(2, folder=tmp_path / "two", name="two", crowd_N=np.array([True, False]))
    third = make(0, folder=tmp_path / "three", name="three")
    joined = join_people([first, second, third])
    assert joined.name == "one + two + three"
    assert joined.schema is first.schema
    assert len(joined) == 5
    assert joined.photo_ids_P.tolist() == [1, 2, 3, 4, 5, 6]
    assert joined.ids_N.tolist() == [1, 2, 3, 4, 5]
    assert joined.photo_of_N.tolist() == [0, 1, 0, 2, 3]
    paths = [joined.photo_path(photo) for photo in joined.photo_of_N]
    assert paths == [
        *(first.photo_path(photo) for photo in (0, 1, 0)),
        *(second.photo_path(photo) for photo in (0, 1)),
    ]
    assert joined.crowd_N.tolist() == [False, False, False, True, False]
    for name in ("boxes_N4", "keypoints_NK2", "visible_NK", "weights_NK", "areas_N"):
        both = np.concatenate([getattr(first, name), getattr(second, name)])
        np.testing.assert_array_equal(getattr(joined, name), both)
        assert getattr(joined, name).dtype == both.dtype


def test_photos_of_relative_folders_are_found_from_anywhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    joined = join_people([make(folder=Path("one")), make(folder=Path("two"))])
    assert joined.photo_path(2) == tmp_path / "two" / "a.jpg"


@pytest.mark.parametrize(
    "names", [("nose", "ear"), ("tail", "nose"), ("nose",), ("nose", "tail", "ear")]
)
def test_other_keypoints_are_not_joined(names):
    other = make(name="cats", schema=KeypointSchema("cat", names))
    with pytest.raises(InputError) as raised:
        join_people([make(), make(), other])
    assert raised.value.exit_code == ExitCode.INPUT
    assert raised.value.message == (
        f"'cats' has other keypoints than 'dogs': {', '.join(names)}, ... and nose, tail, ..."
    )
    assert raised.value.hint == "train on data sets of the same keypoints in the same order"


# ---------------------------------------------------------------- digest


def test_equal_labels_have_equal_digests_wherever_they_lie():
    assert digest(make()) == digest(make(folder=Path("elsewhere"), name="copy"))
    assert len(digest(make())) == 64
    assert int(digest(make()), 16)


@pytest.mark.parametrize("field", ["photo_of_N", "boxes_N4", "keypoints_NK2", "weights_NK"])
def test_any_other_label_is_another_digest(field):
    people = make()
    changed = getattr(people, field).copy()
    changed.flat[-1] = changed.flat[-1] * 0.5
    assert digest(replace(people, **{field: changed})) != digest(people)


def test_names_and_order_are_part_of_the_digest():
    people = make()
    assert digest(people.pick(np.array([1, 0, 2, 3]))) != digest(people)
    assert digest(replace(people, photos=("a.jpg", "c.jpg"))) != digest(people)
    renamed = KeypointSchema("dog", ("nose", "end"))
    assert digest(replace(people, schema=renamed)) != digest(people)


def test_a_digest_does_not_depend_on_how_the_arrays_lie_in_memory():
    people = make()
    turned = np.asfortranarray(people.boxes_N4)
    assert digest(replace(people, boxes_N4=turned)) == digest(people)
    assert same(people, make())
