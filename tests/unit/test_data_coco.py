"""COCO-style files: what is read, what is derived, what is refused, and the cache."""

import json
from dataclasses import fields, replace

import numpy as np
import pytest

from hrnet_cli.data import open_dataset
from hrnet_cli.data.coco import to_coco_json
from hrnet_cli.data.coco_annotations import BOX_PER_EXTENT
from hrnet_cli.errors import ConfigError, ExitCode, InputError, NoSplitError
from hrnet_cli.oks import AREA_PER_BOX
from hrnet_cli.schema import WHOLE_BODY_PARTS, load_schema

NAMES = ["nose", "left_hand", "right_hand"]


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    """An empty cache folder."""
    monkeypatch.setenv("HRNET_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


def document(**changes):
    """Two photos; two people on the first, three keypoints each; ``changes`` replace parts."""
    parts = {
        "images": [
            {"id": 7, "file_name": "a.jpg", "width": 100, "height": 80},
            {"id": 9, "file_name": "b.jpg", "width": 60, "height": 50},
        ],
        "annotations": [
            person(id=1, keypoints=[10, 20, 2, 30, 40, 1, 5, 6, 0]),
            person(id=2, keypoints=[11, 21, 2, 31, 41, 2, 51, 61, 2]),
        ],
        "categories": [{"id": 1, "name": "imp", "keypoints": NAMES, "skeleton": [[1, 2], [1, 3]]}],
    }
    return parts | changes


def person(**changes):
    fields = {"image_id": 7, "category_id": 1, "bbox": [5, 10, 40, 50], "area": 900.0}
    fields |= {"id": 1, "iscrowd": 0, "keypoints": [10, 20, 2, 30, 40, 1, 0, 0, 0]}
    return {name: value for name, value in (fields | changes).items() if value is not ...}


def write(folder, content, photos=("a.jpg",), name="labels.json"):
    for photo in photos:
        (folder / photo).parent.mkdir(parents=True, exist_ok=True)
        (folder / photo).touch()
    path = folder / name
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


def opened(folder, content, notes=None, **options):
    notes = [] if notes is None else notes
    return open_dataset(str(write(folder, content)), on_note=notes.append, **options)


def test_arrays_of_a_file(tmp_path):
    people = opened(tmp_path, document())
    assert people.name == "labels"
    assert people.folder == tmp_path
    assert people.photos == ("a.jpg", "b.jpg")
    assert people.photo_ids_P.tolist() == [7, 9]
    assert people.sizes_P2.tolist() == [[100, 80], [60, 50]]
    assert people.photo_of_N.tolist() == [0, 0]
    assert people.ids_N.tolist() == [1, 2]
    assert people.boxes_N4.tolist() == [[5, 10, 40, 50]] * 2
    assert people.areas_N.tolist() == [900, 900]
    # What is not labelled is zero, whatever stands in the file.
    assert people.keypoints_NK2[0].tolist() == [[10, 20], [30, 40], [0, 0]]
    assert people.visible_NK.tolist() == [[2, 1, 0], [2, 2, 2]]
    assert people.weights_NK.tolist() == [[1, 1, 0], [1, 1, 1]]
    assert not people.crowd_N.any()


def test_labels_written_are_read_back_the_same(tmp_path):
    unsure = person(id=5, iscrowd=1, image_id=9, area=3.5, keypoint_weights=[0.3, 1, 1])
    content = document(annotations=[*document()["annotations"], unsure])
    content["categories"][0]["sigmas"] = [0.03, 0.04, 0.05]
    people = opened(tmp_path, content)
    elsewhere = tmp_path / "run"
    elsewhere.mkdir()
    path = write(elsewhere, to_coco_json(people), photos=(), name="val.json")
    again = open_dataset(str(path))
    assert [again.photo_path(i) for i in (0, 1)] == [tmp_path / "a.jpg", tmp_path / "b.jpg"]
    for field in fields(people):
        before, after = getattr(people, field.name), getattr(again, field.name)
        if isinstance(before, np.ndarray):
            np.testing.assert_array_equal(before, after, err_msg=field.name)
            assert before.dtype == after.dtype
    assert again.schema == people.schema
    assert again.schema.oks_sigmas == (0.03, 0.04, 0.05)


def test_categories_keep_their_numbers(tmp_path):
    kinds = [{"id": i, "name": name, "keypoints": NAMES} for i, name in enumerate(["imp", "elf"])]
    elves = [person(id=1, category_id=1), person(id=2, category_id=1)]
    content = document(categories=kinds, annotations=elves)
    for _ in ("read", "from the cache"):
        people = opened(tmp_path, content)
        assert people.categories == {1: "elf"}
    both = opened(tmp_path, content | {"annotations": [elves[0], person(id=2, category_id=0)]})
    assert (both.categories, both.category_id) == ({0: "imp", 1: "elf"}, 0)
    written = json.loads(to_coco_json(both))
    assert [entry["id"] for entry in written["categories"]] == [0]
    assert [entry["category_id"] for entry in written["annotations"]] == [0, 0]
    texts = [{"id": "elf", "name": "elf", "keypoints": NAMES}]
    other = opened(tmp_path, document(categories=texts, annotations=[person(category_id="elf")]))
    assert (other.categories, other.category_id) == ({}, 1)


def whole_body(**changes):
    """A person with keypoint k of 133 at (k, 2 k); right hand unlabelled, feet not valid."""
    flat = {
        part: [number for k in range(*span) for number in (k, 2 * k, 1 + k % 2)]
        for part, span in WHOLE_BODY_PARTS.items()
    }
    flat["righthand"] = [0.0] * 63
    fields = {f"{part}_kpts": values for part, values in flat.items() if part != "body"}
    fields |= {f"{part}_valid": part in ("face", "lefthand") for part in flat if part != "body"}
    return person(keypoints=flat["body"], **fields) | changes


def whole_body_document(*people):
    body = load_schema("coco17").keypoints
    return document(
        annotations=list(people), categories=[{"id": 1, "name": "person", "keypoints": body}]
    )


def whole_body_toml(folder, *people):
    write(folder, whole_body_document(*people))
    path = folder / "my.toml"
    path.write_text('schema = "wholebody133"\ntrain = {annotations = "labels.json"}')
    return str(path)


def test_feet_face_and_hands_are_told_of_and_read_when_asked_for(tmp_path):
    notes = []
    without = opened(tmp_path, whole_body_document(whole_body()), notes)
    assert without.schema.name == "coco17"
    (told,) = (note for note in notes if "feet, face and hands are labelled too" in note)
    assert 'name the data set coco-wholebody, or write schema = "wholebody133"' in told
    notes = []
    people = open_dataset(whole_body_toml(tmp_path, whole_body()), on_note=notes.append)
    assert people.schema == load_schema("wholebody133")
    assert not any("feet, face and hands" in note for note in notes)
    visible = np.zeros(133, int)
    for part in ("body", "face", "lefthand"):
        span = np.arange(*WHOLE_BODY_PARTS[part])
        visible[span] = 1 + span % 2
    assert people.visible_NK[0].tolist() == visible.tolist()
    points = np.stack([np.arange(133), 2 * np.arange(133)], axis=1) * (visible > 0)[:, None]
    assert people.keypoints_NK2[0].tolist() == points.tolist()


def test_parts_that_a_whole_body_file_lacks_are_unlabelled(tmp_path):
    lacking = whole_body(id=2, face_kpts=[])
    del lacking["lefthand_kpts"]
    notes = []
    toml = whole_body_toml(tmp_path, whole_body(), lacking, person(id=3, keypoints=...))
    people = open_dataset(toml, on_note=notes.append)
    assert (people.visible_NK > 0).sum(axis=1).tolist() == [17 + 68 + 21, 17, 0]
    assert "1 annotations have no keypoints: not used for training" in notes


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"face_kpts": [1, 2, 2]}, "annotation 1 has 3 numbers in 'face_kpts', expected 204: x, y"
         " and visibility of 68 keypoints"),
        ({"face_kpts": [1, 2, 0.4] * 68}, "visibility 0.4 of its keypoint 1 in 'face_kpts'"),
        ({"keypoints": [1, 2, 2] * 16}, "annotation 1 has 48 numbers in 'keypoints', expected 51"),
    ],
)  # fmt: skip
def test_whole_bodies_that_contradict_themselves(tmp_path, changes, message):
    with pytest.raises(InputError, match=message):
        open_dataset(whole_body_toml(tmp_path, whole_body(id=2), whole_body(**changes)))


def test_a_file_that_has_joined_the_parts_itself(tmp_path):
    joined = [1, 2, 2] * 133
    content = whole_body_document(whole_body(keypoints=joined))
    content["categories"][0]["keypoints"] = load_schema("wholebody133").keypoints
    notes = []
    assert opened(tmp_path, content, notes).schema.name == "wholebody133"
    assert not any("feet, face and hands" in note for note in notes)


def test_the_layout_of_whole_bodies_is_that_of_coco(tmp_path):
    folder = tmp_path / "annotations"
    folder.mkdir()
    write(tmp_path, "", photos=("val2017/a.jpg",))
    path = folder / "coco_wholebody_val_v1.0.json"
    path.write_text(json.dumps(whole_body_document(whole_body())))
    people = open_dataset("coco-wholebody", split="val", folder=tmp_path)
    assert (people.name, len(people.schema)) == ("coco-wholebody val2017", 133)
    assert people.folder == tmp_path / "val2017"


def test_schema_of_a_file(tmp_path):
    notes = []
    schema = opened(tmp_path, document(), notes).schema
    assert schema.name == "imp3"
    assert schema.keypoints == tuple(NAMES)
    assert schema.skeleton == (("nose", "left_hand"), ("nose", "right_hand"))
    assert schema.flip_pairs == (("left_hand", "right_hand"),)
    assert schema.oks_sigmas == pytest.approx([0.1] * 3)
    assert "flip pairs: left_hand and right_hand" in notes
    assert "OKS sigmas: 0.1 each" in notes


@pytest.mark.parametrize("key", ["sigmas", "oks_sigmas"])
def test_sigmas_of_a_file_hold_for_built_in_keypoints_too(tmp_path, key):
    notes = []
    body = load_schema("coco17")
    content = whole_body_document(person(keypoints=[10, 20, 2] * 17))
    content["categories"][0][key] = [0.05] * 17
    people = opened(tmp_path, content, notes)
    assert people.schema == replace(body, oks_sigmas=(0.05,) * 17)
    assert "OKS sigmas are those of the file and not those of coco17" in notes
    content["categories"][0][key] = list(body.oks_sigmas)
    assert opened(tmp_path, content, same := []).schema == body
    assert not any("of the file" in note for note in same)


@pytest.mark.parametrize("key", ["sigmas", "oks_sigmas"])
@pytest.mark.parametrize("values", [[0.1, 0.2], [0.1, 0.2, 0], [0.1, 0.2, "x"], 0.1])
def test_sigmas_that_do_not_fit_are_named_as_the_file_names_them(tmp_path, key, values):
    category = {**document()["categories"][0], key: values}
    with pytest.raises(InputError) as refused:
        opened(tmp_path, document(categories=[category]))
    assert refused.value.message.endswith(
        f"category 'imp' has {key} {values!r}, expected 3 numbers above 0, one for each keypoint"
    )
    assert refused.value.hint.startswith(f"leave {key} out")


def test_sigmas_of_a_file(tmp_path):
    notes = []
    category = {**document()["categories"][0], "sigmas": [0.1, 0.2, 0.3]}
    people = opened(tmp_path, document(categories=[category]), notes)
    assert people.schema.oks_sigmas == (0.1, 0.2, 0.3)
    assert "OKS sigmas: 0.1 0.2 0.3" in notes


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"images": []}, "names no photos"),
        ({"annotations": []}, "has 0 annotations, none of a category with keypoints"),
        ({"categories": [{"id": 1, "keypoints": 5}]}, "has keypoints 5, expected a list of names"),
        ({"annotations": [person(category_id=5)]}, "has 1 annotations, none of a category"),
        ({"categories": []}, "no category with 'keypoints'.*its categories: none"),
        ({"categories": [{"id": 1, "name": "cat"}]}, "no category with 'keypoints'.*'cat'"),
        (
            {"annotations": [person(id=4, keypoints=[1, 2, 2] * 17)]},
            "annotation 4 has 51 numbers in 'keypoints', expected 9.*3 keypoints",
        ),
        ({"annotations": [person(id=4, keypoints="abc")]}, "annotation 4 has a text instead of"),
        (
            {"annotations": [person(), person(id=4, keypoints=[1, 2, "x"] * 3)]},
            "annotation 4 has 'x' in 'keypoints', expected a number",
        ),
        (
            {"annotations": [person(id=4, keypoints=[1, 2, 0.7] + [0] * 6)]},
            "annotation 4 has visibility 0.7 of its keypoint 1, expected 0, 1 or 2",
        ),
        (
            {"annotations": [person(id=4, keypoints=[1, None, 2] + [0] * 6)]},
            "annotation 4 has keypoints with values that are not finite",
        ),
        (
            {"annotations": [person(id=4, bbox=[1, 2, 3])]},
            "annotation 4 has 3 numbers in 'bbox', expected 4$",
        ),
        (
            {"annotations": [person(), person(id=4, image_id=8)]},
            "annotation 4 belongs to image_id 8, which is not among the 2 images \\(1 annot",
        ),
        ({"annotations": [person(id=4), person(id=4)]}, "more than once, the first is 4"),
        (
            {"annotations": [person(keypoints=[5, 5, 0] * 3)]},
            "not one keypoint of 1 annotations is labelled",
        ),
        ({"images": [*document()["images"], {"id": 7, "file_name": "c.jpg"}]}, "image id 7 is use"),
        ({"images": [*document()["images"], {"file_name": "c.jpg"}]}, "1 images have an id that"),
        ({"images": [*document()["images"], {"id": [1], "file_name": "c"}]}, r"the first is \[1\]"),
        ({"images": [*document()["images"], {"id": 1.5, "file_name": "c"}]}, r"the first is 1\.5"),
        ({"images": [{"id": 7}]}, "image 7 has file_name None, expected a file name"),
        ({"images": [{"id": 7, "file_name": "a.jpg", "width": "x", "height": 2}]}, "width and hei"),
        (
            {"images": [{"id": 7, "file_name": "a.jpg", "width": float("nan"), "height": 2}]},
            r"image 7 has width and height \(nan, 2\), expected pixels",
        ),
        ({"annotations": [person(id=4, label_weight=-1)]}, "annotation 4 has label_weight"),
        ({"annotations": [person(id=4, keypoint_weights=[1])]}, "4 has 1 numbers in 'keypoint_we"),
        ({"images": 5}, "'images' holds a number, expected a list of objects"),
        ({"annotations": [5]}, "'annotations' holds a number, expected a list of objects"),
    ],
)
def test_contradictions_are_refused(tmp_path, changes, message):
    with pytest.raises(InputError, match=message) as caught:
        opened(tmp_path, document(**changes))
    assert caught.value.exit_code == ExitCode.INPUT
    assert "labels.json" in caught.value.message


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "is empty; expected COCO keypoint annotations"),
        ("{", "is no JSON: Expecting property name.*line 1"),
        ("\x00\xff", "is no JSON"),
        ("[]", "holds a list, expected COCO keypoint annotations"),
        ("{}", "has no 'images', expected COCO"),
    ],
)
def test_files_that_are_not_coco(tmp_path, content, message):
    with pytest.raises(InputError, match=message):
        opened(tmp_path, content)


def test_nan_is_refused_where_it_counts(tmp_path):
    bad = person(id=4, keypoints=[1, float("nan"), 2] + [0] * 6)
    with pytest.raises(InputError, match="annotation 4 has keypoints with values that are not fin"):
        opened(tmp_path, document(annotations=[bad]))
    unlabelled = person(keypoints=[1, float("nan"), 0, 5, 6, 2, 0, 0, 0])
    people = opened(tmp_path, document(annotations=[unlabelled]))
    assert people.keypoints_NK2[0].tolist() == [[0, 0], [5, 6], [0, 0]]
    with pytest.raises(InputError, match="annotation 4 has bbox with values that are not finite"):
        opened(tmp_path, document(annotations=[person(id=4, bbox=[0, 0, float("inf"), 1])]))


@pytest.mark.parametrize("limb", [[0, 1], [1, 4], [1], [1, "nose"], 3])
def test_skeletons_out_of_range(tmp_path, limb):
    category = {"id": 1, "name": "imp", "keypoints": NAMES, "skeleton": [limb]}
    with pytest.raises(InputError, match="in its skeleton, expected two numbers from 1 to 3"):
        opened(tmp_path, document(categories=[category]))


def test_doubled_keypoint_names(tmp_path):
    category = {"id": 1, "name": "imp", "keypoints": ["nose", "nose", "tail"]}
    with pytest.raises(InputError, match="'imp': schema 'imp3' names keypoint 'nose' more than"):
        opened(tmp_path, document(categories=[category]))


def test_categories_of_the_same_keypoints_are_one(tmp_path):
    notes = []
    categories = [{"id": i, "name": f"imp{i}", "keypoints": NAMES} for i in (1, 2)]
    annotations = [person(id=1), person(id=2, category_id=2), person(id=3, category_id=8)]
    people = opened(tmp_path, document(categories=categories, annotations=annotations), notes)
    assert people.ids_N.tolist() == [1, 2]
    assert "2 categories with the same keypoints are taken as one" in notes
    assert "1 annotations of other categories left out" in notes


def test_one_of_several_categories_must_be_chosen(tmp_path):
    categories = [
        {"id": 1, "name": "imp", "keypoints": NAMES},
        {"id": 2, "name": "elf", "keypoints": NAMES[:2]},
    ]
    annotations = [person(id=1), person(id=2, category_id=2, keypoints=[1, 2, 2, 3, 4, 2])]
    content = document(categories=categories, annotations=annotations)
    with pytest.raises(InputError, match=r"different keypoints: 'imp' \(3\), 'elf' \(2\)"):
        opened(tmp_path, content)
    assert opened(tmp_path, content, category="elf").ids_N.tolist() == [2]
    with pytest.raises(InputError, match="no category 'orc'; its categories: 'imp', 'elf'"):
        opened(tmp_path, content, category="orc")


def test_boxes_and_areas_that_are_missing(tmp_path):
    notes = []
    rows = [
        person(id=1, bbox=..., area=..., keypoints=[10, 20, 2, 50, 40, 2, 0, 0, 0]),
        person(id=2, bbox=..., area=..., keypoints=[0, 0, 2, 96, 64, 2, 0, 0, 0]),
        person(id=3, bbox=..., area=..., keypoints=[0] * 9),
        person(id=4, area=...),
    ]
    people = opened(tmp_path, document(annotations=rows), notes)
    # The keypoints extend over 40 x 20, so the box over 50 x 25 around their middle (30, 30).
    assert BOX_PER_EXTENT == 1.25
    assert people.boxes_N4[0].tolist() == [5, 17.5, 50, 25]
    assert people.boxes_N4[1].tolist() == [0, 0, 100, 72]  # cut to the photo of 100 x 80
    assert people.boxes_N4[2].tolist() == [0, 0, 0, 0]
    assert people.boxes_N4[3].tolist() == [5, 10, 40, 50]
    assert people.areas_N == pytest.approx(AREA_PER_BOX * np.array([1250, 7200, 0, 2000]))
    assert "3 person boxes are missing: taken as 1.25 times the extent of the keypoints" in notes
    assert "4 areas are missing: taken as 0.53 of the box" in notes
    assert people.usable().ids_N.tolist() == [1, 2, 4]


def test_annotations_without_keypoints_stay_without_use(tmp_path):
    notes = []
    rows = [person(id=1), person(id=2, keypoints=...), person(id=3, iscrowd=1)]
    people = opened(tmp_path, document(annotations=rows), notes)
    assert len(people) == 3
    assert people.usable().ids_N.tolist() == [1]
    assert "1 annotations have no keypoints: not used for training" in notes


def test_ids_that_are_texts_are_counted(tmp_path):
    notes = []
    content = document(
        images=[{"id": "x", "file_name": "a.jpg"}, {"id": "y", "file_name": "b.jpg"}],
        annotations=[person(id="p", image_id="y"), person(id="q", image_id="x")],
    )
    people = opened(tmp_path, content, notes)
    assert people.photo_of_N.tolist() == [1, 0]
    assert people.photo_ids_P.tolist() == people.ids_N.tolist() == [1, 2]
    assert people.sizes_P2.tolist() == [[0, 0], [0, 0]]
    assert "image ids are no whole numbers: photos are numbered from 1" in notes
    rows = [person(id=...), person(id=...)]
    assert opened(tmp_path, document(annotations=rows)).ids_N.tolist() == [1, 2]


def test_ids_that_a_table_wrote_as_7_point_0_are_whole(tmp_path):
    content = document(
        images=[{"id": 7.0, "file_name": "a.jpg"}, {"id": 9, "file_name": "b.jpg"}],
        annotations=[person(id=3.0, image_id=9.0), person(id=4, image_id=7)],
    )
    people = opened(tmp_path, content)
    assert people.photo_of_N.tolist() == [1, 0]
    assert people.photo_ids_P.tolist() == [7, 9]
    assert people.ids_N.tolist() == [3, 4]


def test_label_weights_of_person_and_keypoint(tmp_path):
    rows = [
        person(id=1, label_weight=0.5),
        person(id=2, keypoint_weights=[0.25, 1, 1]),
        person(id=3, label_weight=0.5, keypoint_weights=[0.5, 1, 1]),
        person(id=4),
    ]
    people = opened(tmp_path, document(annotations=rows))
    # The third keypoint is not labelled: its weight is 0 all the same.
    assert people.weights_NK.tolist() == [[0.5, 0.5, 0], [0.25, 1, 0], [0.25, 0.5, 0], [1, 1, 0]]


def test_known_keypoints_take_the_built_in_schema(tmp_path):
    coco = load_schema("coco17")
    category = {"id": 1, "name": "person", "keypoints": list(coco.keypoints)}
    content = document(categories=[category], annotations=[person(keypoints=[9, 9, 2] * 17)])
    notes = []
    assert opened(tmp_path, content, notes).schema == coco
    assert "keypoints are those of coco17" in notes


@pytest.mark.parametrize("place", [".", "images", "photos", "val2017", "images/val2017"])
@pytest.mark.parametrize("above", [False, True])
def test_photos_are_found_near_the_file(tmp_path, place, above):
    root = tmp_path / "set"
    home = root / "annotations" if above else root
    home.mkdir(parents=True)
    (root / place).mkdir(parents=True, exist_ok=True)
    (root / place / "a.jpg").touch()
    path = home / "person_keypoints_val2017.json"
    path.write_text(json.dumps(document()))
    assert open_dataset(str(path), split="val").folder == root / place
    # A folder that is named takes the place of the search.
    assert open_dataset(str(path), split="val", folder=root).folder == root / place


def test_photos_that_are_not_found(tmp_path):
    path = write(tmp_path, document(), photos=())
    with pytest.raises(InputError, match=r"such as 'a\.jpg', was found; looked in") as caught:
        open_dataset(str(path))
    assert str(tmp_path) in caught.value.message
    assert "--data" in caught.value.hint
    with pytest.raises(InputError, match="nowhere', which is no folder"):
        open_dataset(str(path), folder=tmp_path / "nowhere")


def test_missing_file_and_unknown_names(tmp_path):
    with pytest.raises(InputError, match=r"none\.json' cannot be read: No such file"):
        open_dataset(str(tmp_path / "none.json"))
    with pytest.raises(
        InputError, match="data set 'cocoa' is not known; expected coco, coco-wholebody"
    ):
        open_dataset("cocoa")
    with pytest.raises(InputError, match=r"is a folder without data\.yaml"):
        open_dataset(str(tmp_path))


def test_coco_layout(tmp_path):
    coco = load_schema("coco17")
    category = {"id": 1, "name": "person", "keypoints": list(coco.keypoints)}
    content = document(categories=[category], annotations=[person(keypoints=[9, 9, 2] * 17)])
    (tmp_path / "annotations").mkdir()
    write(tmp_path, content, ["val2017/a.jpg"], "annotations/person_keypoints_val2017.json")
    for split in ("val", "val2017"):
        people = open_dataset("coco", split=split, folder=tmp_path)
        assert (people.name, people.folder) == ("coco val2017", tmp_path / "val2017")
    with pytest.raises(InputError, match="coco train2017 is not in") as caught:
        open_dataset("coco", folder=tmp_path)
    assert "person_keypoints_train2017.json' is missing" in caught.value.message
    assert "hrnet eval --download" in caught.value.hint


def test_coco_is_looked_for_in_its_default_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match="coco val2017 is not in 'data/coco'"):
        open_dataset("coco", split="val")


def test_crowdpose_layout_and_its_own_skeleton(tmp_path, golden):
    """CrowdPose's files carry COCO's skeleton, beyond their 14 keypoints: the schema is known."""
    content = golden("crowdpose_gt_subset.json")
    names = [image["file_name"] for image in content["images"]]
    (tmp_path / "json").mkdir()
    write(tmp_path, content, [f"images/{n}" for n in names], "json/crowdpose_val.json")
    notes = []
    people = open_dataset("crowdpose", split="val", folder=tmp_path, on_note=notes.append)
    assert people.schema == load_schema("crowdpose14")
    assert people.folder == tmp_path / "images"
    assert len(people) == len(content["annotations"])
    assert any(note.endswith("taken as 0.53 of the box") for note in notes)
    direct = open_dataset(str(tmp_path / "json/crowdpose_val.json"), split="val")
    assert direct.schema == people.schema


class TestCache:
    def test_second_reading_is_equal_and_does_not_parse(self, tmp_path, monkeypatch):
        notes, again = [], []
        rows = [person(source="pseudo", label_weight=0.5), person(id=2, bbox=...)]
        first = opened(tmp_path, document(annotations=rows), notes)
        monkeypatch.setattr("hrnet_cli.data.coco.load_document", None)
        second = open_dataset(str(tmp_path / "labels.json"), on_note=again.append)
        assert notes == again
        assert first.schema == second.schema
        for name in ("photos", "name", "folder"):
            assert getattr(first, name) == getattr(second, name)
        for name, value in vars(first).items():
            if isinstance(value, np.ndarray):
                stored = getattr(second, name)
                np.testing.assert_array_equal(value, stored)
                assert value.dtype == stored.dtype

    def test_a_changed_file_is_read_anew_and_replaces_its_cache(self, tmp_path, home):
        opened(tmp_path, document())
        changed = opened(tmp_path, document(annotations=[person(id=33)]))
        assert changed.ids_N.tolist() == [33]
        assert len(list(home.rglob("*"))) == 2  # the folder and one file

    @pytest.mark.parametrize("damage", ["cut", "empty", "text", "flip"])
    def test_a_damaged_file_is_written_anew(self, tmp_path, home, damage):
        first = opened(tmp_path, document())
        (stored,) = home.rglob("*.npz")
        data = stored.read_bytes()
        middle = data.index(b"keypoints_NK2") + 200
        flipped = data[:middle] + bytes([data[middle] ^ 255]) + data[middle + 1 :]
        stored.write_bytes(
            {"cut": data[:500], "empty": b"", "text": b"hello", "flip": flipped}[damage]
        )
        again = open_dataset(str(tmp_path / "labels.json"))
        np.testing.assert_array_equal(again.keypoints_NK2, first.keypoints_NK2)
        assert stored.read_bytes() == data

    def test_it_can_be_left_out(self, tmp_path, home):
        opened(tmp_path, document(), cache=False)
        assert not home.exists()

    def test_a_place_that_cannot_be_written_is_no_error(self, tmp_path, home):
        home.write_text("a file where the folder should be")
        assert len(opened(tmp_path, document())) == 2


def test_real_sets(test_data):
    """Counts of the data's own README."""
    coco = open_dataset("coco", split="val", folder=test_data / "coco-mini")
    assert (len(coco), len(coco.photos)) == (417, 174)
    assert coco.photo_path(0).is_file()
    lsp = open_dataset(str(test_data / "lspet/annotations/lsp14_train.json"))
    assert (len(lsp), len(lsp.schema), lsp.folder.name) == (9500, 14, "images")
    assert len(lsp.schema.flip_pairs) == 6
    assert len(lsp.schema.upper_body) == 8
    assert len(lsp.schema.lower_body) == 6
    pseudo = open_dataset(str(test_data / "lspet/annotations/coco17_train.json"))
    assert len(pseudo) == 13538
    hands = open_dataset(str(test_data / "hands-tiny/test_onehand10k.json"))
    assert (len(hands), hands.schema) == (4, load_schema("hand21"))
    animals = open_dataset(str(test_data / "animals-tiny/test_ap10k.json"))
    assert (len(animals), animals.schema) == (2, load_schema("ap10k"))


class TestDatasetFile:
    def write(self, folder, text, content=None):
        rows = [person(id=1, source="mine"), person(id=2, source="pseudo"), person(id=3)]
        write(folder, content or document(annotations=rows), ["pictures/a.jpg"], "train.json")
        path = folder / "imps.toml"
        path.write_text(text)
        return str(path)

    TRAIN = 'train = {annotations = "train.json", photos = "pictures"}\n'

    def test_weights_by_source_and_keypoint(self, tmp_path):
        text = self.TRAIN + (
            "[label_weights.source]\npseudo = 0.5\nold = 0.1\n"
            "[label_weights.keypoint]\nnose = 0.2\n"
        )
        notes = []
        people = open_dataset(self.write(tmp_path, text), on_note=notes.append)
        expected = [[0.2, 1, 0], [0.1, 0.5, 0], [0.2, 1, 0]]
        np.testing.assert_allclose(people.weights_NK, expected, rtol=1e-6)
        assert people.name == "imps train"
        assert people.folder == tmp_path / "pictures"
        assert "label weight of source 'old': no annotation names it" in notes
        assert "label weight of pseudo: 0.5" in notes

    def test_schema_as_a_table_a_file_and_a_name(self, tmp_path):
        inline = f'{self.TRAIN}[schema]\nkeypoints = ["a", "left_b", "right_b"]\n'
        notes = []
        schema = open_dataset(self.write(tmp_path, inline), on_note=notes.append).schema
        assert schema.keypoints == ("a", "left_b", "right_b")
        assert schema.flip_pairs == (("left_b", "right_b"),)
        assert "keypoints nose, left_hand, right_hand are taken as a, left_b, right_b" in notes
        (tmp_path / "mine.toml").write_text('name = "mine"\nkeypoints = ["a", "b", "c"]')
        people = open_dataset(self.write(tmp_path, f'schema = "mine.toml"\n{self.TRAIN}'))
        assert people.schema.name == "mine"
        with pytest.raises(InputError, match="has 3 keypoints, the schema 'coco17' 17"):
            open_dataset(self.write(tmp_path, f'schema = "coco17"\n{self.TRAIN}'))

    def test_schema_in_another_order_is_refused(self, tmp_path):
        names = ", ".join(f'"{name}"' for name in reversed(NAMES))
        text = f"{self.TRAIN}[schema]\nkeypoints = [{names}]\n"
        with pytest.raises(InputError, match="keypoints of schema 'imps' in another order"):
            open_dataset(self.write(tmp_path, text))

    def test_schema_for_a_category_without_keypoints(self, tmp_path):
        text = f'{self.TRAIN}[schema]\nkeypoints = ["a", "b", "c"]\n'
        content = document(categories=[{"id": 1, "name": "imp"}])
        assert len(open_dataset(self.write(tmp_path, text, content))) == 2

    @pytest.mark.parametrize(
        ("text", "message", "hint"),
        [
            ("tra1n = 5", "unknown key 'tra1n'", "did you mean 'train'?"),
            ("name = 5\n" + TRAIN, "name is 5, expected a text", ""),
            ("", "has no split, expected train, val or test", "annotations ="),
            ("train = 5", "train is 5, expected a table", "photos ="),
            ('train = {photos = "x"}', "train has no 'annotations'", ""),
            ('train = {annotation = "x"}', "unknown key 'annotation'", "annotations"),
            (TRAIN + "label_weights = 5", "label_weights is 5, expected a table", ""),
            (TRAIN + "[label_weights.source]\na = -1", "source: a is -1, expected a numb", ""),
            (TRAIN + "[label_weights.keypoint]\nnos = 1", "names 'nos', which is no key", "nose"),
            (TRAIN + "[schema]\nkeypoint = 5", "schema: unknown key 'keypoint'", "keypoints"),
            (TRAIN + "schema = 5", "schema is 5, expected a name, a file or a table", ""),
            ('schema = "coco71"\n' + TRAIN, "'coco71' is not known", "coco17"),
            ("[", "not readable as TOML", ""),
            ("a = " + "[" * 9999, "not readable as TOML", ""),
        ],
    )
    def test_what_cannot_be(self, tmp_path, text, message, hint):
        with pytest.raises(ConfigError, match=message) as caught:
            open_dataset(self.write(tmp_path, text))
        assert hint in caught.value.hint
        assert caught.value.exit_code == ExitCode.CONFIG

    def test_a_split_that_is_not_there(self, tmp_path):
        with pytest.raises(NoSplitError, match="has no 'train', only val") as caught:
            open_dataset(self.write(tmp_path, 'val = {annotations = "x"}'))
        assert "train =" in caught.value.hint
        assert caught.value.exit_code == ExitCode.INPUT

    def test_missing_file(self, tmp_path):
        with pytest.raises(ConfigError, match=r"my\.toml: cannot be read: No such file"):
            open_dataset(str(tmp_path / "my.toml"))
