"""MPII's records in the official code's form: boxes, keypoints, head boxes, what is refused."""

import json

import numpy as np
import pytest
from scipy.io import savemat

from hrnet_cli import geometry
from hrnet_cli.data import mpii, open_dataset
from hrnet_cli.data.check import check_people
from hrnet_cli.errors import ExitCode, InputError
from hrnet_cli.images import write_image
from hrnet_cli.schema import load_schema


def record(**changes):
    """A person whose keypoint k is at (11 + k, 21 + 2 k) counted from 1; the first has no label."""
    joints = [[11.0 + k, 21.0 + 2 * k] for k in range(16)]
    fields = {"image": "a.png", "center": [40.0, 30.0], "scale": 0.5, "joints": joints}
    return fields | {"joints_vis": [0] + [1] * 15} | changes


def write(folder, *records, name="valid"):
    """Write records into MPII's layout, and photos of 64x48 pixels."""
    (folder / "annot").mkdir(exist_ok=True)
    (folder / "images").mkdir(exist_ok=True)
    for one in records:
        write_image(folder / "images" / one["image"], np.zeros((48, 64, 3), np.uint8))
    path = folder / "annot" / f"{name}.json"
    path.write_text(json.dumps(records))
    return path


def test_records_become_people(tmp_path):
    path = write(tmp_path, record(), record(image="b.png"), record(center=[50, 20]))
    notes = []
    people = open_dataset("mpii", split="val", folder=tmp_path, on_note=notes.append)
    assert people.name == "mpii valid"
    assert people.schema == load_schema("mpii16")
    assert people.photos == ("a.png", "b.png")
    assert people.folder == tmp_path / "images"
    assert people.photo_of_N.tolist() == [0, 1, 0]
    # Counted from 0, and the unlabelled keypoint at the origin.
    assert people.keypoints_NK2[0, :3].tolist() == [[0, 0], [11, 22], [12, 24]]
    assert people.visible_NK[0].tolist() == [0] + [2] * 15
    assert any("squares of 200 pixels times the scale" in note for note in notes)
    direct = open_dataset(str(path))
    assert direct.ids_N.tolist() == [1, 2, 3]
    toml = tmp_path / "my.toml"
    toml.write_text('train = {annotations = "annot/valid.json"}')
    assert len(open_dataset(str(toml))) == 3


def test_crops_are_those_of_the_official_code(tmp_path):
    write(tmp_path, record(center=[10.0, 30.0], scale=0.5), record(center=[50.5, 8.0], scale=0.25))
    people = open_dataset("mpii", split="valid", folder=tmp_path)
    boxes = geometry.xywh_to_xyxy(people.usable().boxes_N4)
    centers_N2, sizes_N2 = geometry.crop_boxes(boxes, (256, 256), 1.25)
    # lib/dataset/mpii.py: 15 units down, 1.25 times as large, from 1-based to 0-based.
    np.testing.assert_allclose(centers_N2, [[9, 30 + 7.5 - 1], [49.5, 8 + 3.75 - 1]])
    np.testing.assert_allclose(sizes_N2, [[125, 125], [62.5, 62.5]])
    findings = [finding.what for finding in check_people(people).findings]
    assert "person boxes reach outside the photo" not in findings


def test_a_person_without_a_centre_is_not_used(tmp_path):
    write(tmp_path, record(), record(center=[-1, -1], scale=-1))
    people = open_dataset("mpii", split="valid", folder=tmp_path)
    assert len(people) == 2
    assert people.usable().ids_N.tolist() == [1]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"joints": None}, "record 2 has no 'joints' or no 'joints_vis'"),
        ({"joints": [[1, 2]]}, "record 2 has 1 joints and 16 joints_vis, expected 16 of each"),
        ({"joints_vis": [1] * 17}, "record 2 has 16 joints and 17 joints_vis, expected 16"),
        (
            {"scale": "1"},
            r"Expected `float`, got `str` - at `\$\[1\]\.scale`; expected MPII records",
        ),
    ],
)
def test_records_that_cannot_be_used(tmp_path, changes, message):
    path = write(tmp_path, record(), record() | changes)
    with pytest.raises(InputError, match=message) as raised:
        open_dataset(str(path))
    assert raised.value.exit_code == ExitCode.INPUT


def test_head_boxes_of_the_official_file(tmp_path):
    write(tmp_path, record(), record())
    people = open_dataset("mpii", split="valid", folder=tmp_path)
    corners_22N = np.array([[[1, 2], [3, 4]], [[31, 12], [43, 14]]], np.float64)
    path = tmp_path / "annot/gt_valid.mat"
    savemat(path, {"headboxes_src": corners_22N})
    # (x1, y1) of both people, then (x2, y2) of both.
    assert mpii.read_head_boxes(path, people).tolist() == [[1, 3, 31, 43], [2, 4, 12, 14]]
    savemat(path, {"headboxes_src": corners_22N[..., :1]})
    with pytest.raises(InputError, match=r"shape \(2, 2, 1\), expected \(2, 2, 2\), one for each"):
        mpii.read_head_boxes(path, people)
    path.write_bytes(b"no matlab")
    with pytest.raises(InputError, match="no 'headboxes_src' can be read from"):
        mpii.read_head_boxes(path, people)
