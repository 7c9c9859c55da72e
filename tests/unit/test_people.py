"""Labels as arrays: picking, cleaning, joining and telling them apart."""

from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest

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
    visible = np.full((8, 2), 2, np.uint8)
    visible[1] = 0
    visible[2] = [0, 1]  # one hidden keypoint is enough
    boxes = np.tile([10.0, 20.0, 30.0, 40.0], (8, 1))
    boxes[3] = [120, 20, 30, 40]  # beside the photo
    boxes[4] = [10, 20, 1, 1]  # nothing is left of it
    boxes[5] = [10, 20, 1, 40]  # a line; the official code keeps it
    areas = np.full(8, 600.0)
    areas[6] = 0
    crowd = np.arange(8) == 7
    people = make(8, visible_NK=visible, boxes_N4=boxes, areas_N=areas, crowd_N=crowd)
    assert people.usable().ids_N.tolist() == [50, 52, 55]


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
