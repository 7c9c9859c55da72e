"""YOLO-pose folders: data.yaml, label files, and photos that EXIF turns."""

import numpy as np
import pytest
from PIL import Image

from hrnet_cli.data import open_dataset
from hrnet_cli.data.names import can_mirror
from hrnet_cli.errors import ConfigError, InputError, NoSplitError
from hrnet_cli.geometry import as_stored
from hrnet_cli.images import read_image
from hrnet_cli.schema import load_schema

YAML = """path: .
train: images/train
val: images/val
names: {0: imp, 1: elf}
kpt_shape: [3, 3]
flip_idx: [0, 2, 1]
"""
LINE = "0 0.5 0.5 0.4 0.2 0.1 0.2 2 0.3 0.4 1 0 0 0\n"


@pytest.fixture(autouse=True)
def _home(tmp_path, monkeypatch):
    monkeypatch.setenv("HRNET_HOME", str(tmp_path / "home"))


def build(folder, text=YAML, lines=LINE):
    """Two photos of 100x50 in train, one with labels; data.yaml."""
    (folder / "images/train").mkdir(parents=True, exist_ok=True)
    (folder / "labels/train").mkdir(parents=True, exist_ok=True)
    for name in ("a.jpg", "b.jpg"):
        Image.new("RGB", (100, 50)).save(folder / "images/train" / name)
    (folder / "labels/train/a.txt").write_text(lines)
    (folder / "data.yaml").write_text(text)
    return folder


def opened(folder, *args, notes=None, **options):
    build(folder, *args)
    notes = [] if notes is None else notes
    return open_dataset(str(folder), on_note=notes.append, **options)


def test_shares_become_pixels(tmp_path):
    notes = []
    people = opened(tmp_path / "imps", notes=notes)
    assert people.name == "imps train"
    assert people.folder == tmp_path / "imps"
    assert people.photos == ("images/train/a.jpg", "images/train/b.jpg")
    assert people.sizes_P2.tolist() == [[100, 50]] * 2
    assert people.photo_of_N.tolist() == [0]
    np.testing.assert_allclose(people.boxes_N4, [[30, 20, 40, 10]])
    np.testing.assert_allclose(people.keypoints_NK2, [[[10, 10], [30, 20], [0, 0]]])
    assert people.visible_NK.tolist() == [[2, 1, 0]]
    assert people.weights_NK.tolist() == [[1, 1, 0]]
    np.testing.assert_allclose(people.areas_N, [0.53 * 400])
    assert people.schema.keypoints == ("kpt_0", "kpt_1", "kpt_2")
    assert people.schema.flip_pairs == (("kpt_1", "kpt_2"),)
    assert can_mirror(people)
    assert any(note.startswith("areas are taken as 0.53 of the box") for note in notes)
    again = open_dataset(str(tmp_path / "imps/data.yaml"))
    np.testing.assert_array_equal(again.keypoints_NK2, people.keypoints_NK2)


def test_labels_of_a_network_weigh_as_much_as_it_was_sure(tmp_path):
    # What ultralytics writes with `predict save_txt`: confidences in place of visibilities.
    notes = []
    line = "0 0.5 0.5 0.4 0.2 0.1 0.2 0.75 0.3 0.4 0.25 0.1 0.1 1\n"
    people = opened(tmp_path, YAML, line, notes=notes)
    assert people.visible_NK.tolist() == [[2, 2, 1]]
    assert people.weights_NK.tolist() == [[0.75, 0.25, 1]]
    assert "2 keypoints have a confidence in place of a visibility: their weight" in notes
    again = open_dataset(str(tmp_path / "data.yaml"))
    assert again.weights_NK.tolist() == [[0.75, 0.25, 1]]


def test_a_changed_label_file_is_read_anew(tmp_path):
    assert len(opened(tmp_path)) == 1
    assert len(opened(tmp_path, YAML, LINE * 3)) == 3


def test_two_numbers_for_each_keypoint(tmp_path):
    text = YAML.replace("[3, 3]", "[3, 2]")
    people = opened(tmp_path, text, "0 0.5 0.5 0.4 0.2 0.1 0.2 0 0 -1 0.3\n")
    assert people.visible_NK.tolist() == [[2, 0, 0]]


def test_classes(tmp_path):
    lines = LINE + "1" + LINE[1:] * 1
    assert len(opened(tmp_path, YAML, lines)) == 2
    assert len(opened(tmp_path, YAML, lines, category="elf")) == 1
    with pytest.raises(InputError, match="no class 'orc'; its classes: 'imp', 'elf'"):
        opened(tmp_path, category="orc")


@pytest.mark.parametrize("orientation", range(1, 9))
def test_photos_turned_by_exif(tmp_path, orientation):
    """A label on the upright picture lands on the same pixel of the picture as stored."""
    folder = build(tmp_path)
    photo = folder / "images/train/a.png"
    (folder / "images/train/a.jpg").unlink()
    stored = np.zeros((50, 100, 3), np.uint8)
    stored[10, 80] = 255
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(stored).save(photo, exif=exif)
    upright, applied = read_image(photo)
    assert applied == orientation
    y, x = np.argwhere(upright[..., 0] > 0)[0]
    height, width = upright.shape[:2]
    at = f"{(x + 0.5) / width} {(y + 0.5) / height}"
    (folder / "labels/train/a.txt").write_text(
        f"0 {at} {20 / width} {10 / height} {at} 2 0 0 0 0 0 0"
    )
    people = open_dataset(str(folder))
    assert people.sizes_P2[0].tolist() == [100, 50]
    # The centre of the pixel in column 80 and row 10 of the stored picture.
    np.testing.assert_allclose(people.keypoints_NK2[0, 0], [80.5, 10.5], atol=1e-9)
    sides = [20, 10] if orientation < 5 else [10, 20]
    np.testing.assert_allclose(people.boxes_N4[0, 2:], sides, atol=1e-9)
    np.testing.assert_allclose(people.boxes_N4[0, :2] + np.array(sides) / 2, [80.5, 10.5])


def test_turning_shares_of_nobody():
    assert as_stored(np.zeros((0, 3, 2)), np.zeros(0, int)).shape == (0, 3, 2)


def test_broken_photos_are_counted(tmp_path):
    build(tmp_path)
    (tmp_path / "images/train/b.jpg").write_bytes(b"no photo")
    (tmp_path / "labels/train/b.txt").write_text(LINE * 2)
    notes = []
    people = open_dataset(str(tmp_path), on_note=notes.append)
    assert len(people) == 1
    assert len(people.photos) == 2
    assert "1 photos cannot be read: 2 people left out" in notes


def test_lists_of_photos_and_labels_beside_them(tmp_path):
    build(tmp_path, YAML.replace("images/train", "list.txt"))
    (tmp_path / "list.txt").write_text("./images/train/b.jpg\n\nimages/train/a.jpg\n")
    assert open_dataset(str(tmp_path)).photo_of_N.tolist() == [1]
    flat = tmp_path / "flat"
    flat.mkdir()
    Image.new("RGB", (10, 10)).save(flat / "c.png")
    (flat / "c.txt").write_text(LINE)
    (tmp_path / "data.yaml").write_text(YAML.replace("images/train", "flat"))
    assert open_dataset(str(tmp_path)).photos == ("flat/c.png",)


def test_exports_that_point_one_folder_up(tmp_path):
    people = opened(tmp_path / "deep", YAML.replace("train: ", "train: ../"))
    assert people.photos == ("images/train/a.jpg", "images/train/b.jpg")


def test_coco_is_recognised_without_names(tmp_path):
    coco = load_schema("coco17")
    text = YAML.replace("[3, 3]", "[17, 3]").replace("[0, 2, 1]", str(list(coco.flip_indices)))
    notes = []
    assert opened(tmp_path, text, "0 0.5 0.5 1 1" + " 0.5 0.5 2" * 17, notes=notes).schema == coco
    assert "keypoints without names, 17 and mirrored as COCO's: taken as coco17" in notes


def test_names_give_the_sides(tmp_path):
    text = YAML + "kpt_names: {0: [tip, right_hand, left_hand]}\n"
    people = opened(tmp_path, text)
    assert people.schema.flip_pairs == (("left_hand", "right_hand"),)
    without = text.replace("flip_idx: [0, 2, 1]", "")
    assert opened(tmp_path, without).schema.flip_pairs == (("left_hand", "right_hand"),)


def test_numbers_without_flip_idx_cannot_be_mirrored(tmp_path):
    notes = []
    people = opened(tmp_path, YAML.replace("flip_idx: [0, 2, 1]", ""), notes=notes)
    assert not can_mirror(people)
    assert "flip pairs: none can be derived from the names: mirroring is off" in notes


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("kpt_shape: [3, 3]", "", "has no kpt_shape, so it is no YOLO-pose data set"),
        ("[3, 3]", "[3, 4]", r"kpt_shape is \[3, 4\], expected \[keypoints, 2 or 3\]"),
        ("[3, 3]", "3", "kpt_shape is 3, expected"),
        ("[0, 2, 1]", "[0, 1]", r"flip_idx is \[0, 1\], expected the numbers 0 to 2, each once"),
        (
            "[0, 2, 1]",
            "[1, 2, 0]",
            "flip_idx sends keypoint 0 to 1, and 1 to 2, expected back to 0",
        ),
        ("path: .", "kpt_names: [a, b]", "has 2 kpt_names and kpt_shape for 3 keypoints"),
        ("path: .", "kpt_names: 5", "kpt_names is 5, expected a list of names"),
        (
            "path: .",
            "kpt_names: [left_a, right_a, c]",
            "flip_idx does not exchange 'left_a' and 'right_a', as their names say",
        ),
        ("names: {0: imp, 1: elf}", "names: 5", "names is 5, expected a list, or names by number"),
        ("train: images/train", "train: 5", "train is 5, expected a folder or a list"),
        ("path: .", "path: [", "not readable as YAML"),
    ],
)
def test_contradictions_in_the_yaml(tmp_path, old, new, message):
    with pytest.raises(ConfigError, match=message):
        opened(tmp_path, YAML.replace(old, new))


def test_a_split_that_the_yaml_does_not_name(tmp_path):
    with pytest.raises(NoSplitError, match="has no 'train', only val"):
        opened(tmp_path, YAML.replace("train: images/train", ""))


def test_a_yaml_that_is_no_table(tmp_path):
    with pytest.raises(ConfigError, match="expected a YAML table"):
        opened(tmp_path, "- 5")
    with pytest.raises(ConfigError, match="cannot be read: No such file"):
        open_dataset(str(tmp_path / "none.yaml"))


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ("0 0.5 0.5 1 1\n", r"a\.txt' line 1 has 5 numbers, expected 14: class, box"),
        ("\n" + LINE.replace("0.3", "x"), "line 2 holds a word that is no number"),
        (LINE.replace("0.3", "345"), "line 1 has the coordinate 345, expected shares"),
        (LINE.replace("0.3", "nan"), "line 1 has the coordinate nan, expected shares"),
        (LINE.replace(" 1 ", " 3 "), "line 1 has visibility 3 for keypoint 2, expected 0, 1 or 2"),
        (LINE.replace(" 1 ", " 1.5 "), "visibility 1.5 for keypoint 2, expected 0, 1 or 2, or a"),
        (LINE.replace(" 1 ", " -0.1 "), "visibility -0.1 for keypoint 2, expected 0, 1 or 2, or a"),
        (LINE.replace(" 1 ", " nan "), "visibility nan for keypoint 2, expected 0, 1 or 2, or a"),
        ("7" + LINE[1:], r"line 1 has class 7, expected one of \[0, 1\]"),
        ("", "the label files of train name no person"),
        ("0 0.5 0.5 1 1" + " 0.5 0.5 0" * 3, "not one keypoint of 1 people is labelled"),
    ],
)
def test_lines_that_do_not_fit(tmp_path, lines, message):
    with pytest.raises(InputError, match=message):
        opened(tmp_path, YAML, lines)


def test_a_list_that_is_no_text(tmp_path):
    build(tmp_path, YAML.replace("images/train", "images/train/a.jpg"))
    with pytest.raises(InputError, match=r"a\.jpg' cannot be read"):
        open_dataset(str(tmp_path))


def test_what_is_missing(tmp_path):
    build(tmp_path)
    with pytest.raises(InputError, match="'images/val' is missing; looked for") as caught:
        open_dataset(str(tmp_path), split="val")
    assert "path:" in caught.value.hint
    (tmp_path / "images/val").mkdir()
    with pytest.raises(InputError, match="no photo in val: images/val"):
        open_dataset(str(tmp_path), split="val")
    (tmp_path / "labels/train/a.txt").unlink()
    with pytest.raises(InputError, match="none of 2 photos of") as caught:
        open_dataset(str(tmp_path))
    assert str(tmp_path / "labels/train/a.txt") in caught.value.message
