"""Predictions as labels: what is written, that our reader and others take it, and what is kept."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

from builders import make_frame, make_poses
from hrnet_cli.data import open_dataset
from hrnet_cli.data.check import check_people
from hrnet_cli.errors import OutputError
from hrnet_cli.images import read_image
from hrnet_cli.schema import KeypointSchema
from hrnet_cli.sinks import RunInfo, open_sink
from hrnet_cli.structures import Boxes, Frame, Poses

INFO = RunInfo("starter", "yolo26s", keypoint_threshold=0.3)
APPEND = RunInfo("starter", "yolo26s", keypoint_threshold=0.3, append=True)
TIP_AND_TAIL = KeypointSchema("two", ("tip", "tail"), (("tip", "tail"),), oks_sigmas=(0.05, 0.1))
SIDES = KeypointSchema(
    "imp", ("left_ear", "horn", "right_ear"), (("left_ear", "horn"),), (("left_ear", "right_ear"),)
)


@pytest.fixture(autouse=True)
def _places(tmp_path, monkeypatch):
    monkeypatch.setenv("HRNET_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)


def photo(name: str, value=128, size_wh=(64, 48)) -> Frame:
    """Write a photo and return it as a frame, named as below its folder."""
    path = Path("in", name)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size_wh, (value, 0, 0)).save(path)
    return make_frame(name, source=str(path), width=size_wh[0], height=size_wh[1])


def people(points, scores, boxes=((2, 3, 50, 40),), schema=SIDES) -> Poses:
    count = len(points)
    return Poses(
        np.array(points, float),
        np.array(scores, float),
        np.full(count, 0.75),
        Boxes(np.array(boxes, float), np.full(count, 0.9)),
        schema,
    )


def write(name, pictures, info=INFO, folder="out"):
    sink = open_sink(name, Path(folder), info)
    for frame, poses in pictures:
        sink.write(frame, poses)
    sink.close()


def labels(folder="out"):
    return json.loads(Path(folder, "poses.labels.json").read_text("utf-8"))


SURE = people([[[10.25, 20.5], [30, 5], [40.125, 21]]], [[0.9, 0.3, 0.8]])


# --- COCO annotations ---------------------------------------------------------------------------


def test_labels_are_exactly_as_documented():
    low = people(
        [[[10.12345, 20.5], [70, 5]], [[1, 2], [3, 4]]],
        [[0.9, 0.9], [0.2, 0.29996]],
        [[-3, 2.25, 33.5, 50], [1, 1, 21, 11]],
        TIP_AND_TAIL,
    )
    write(
        "labels",
        [(photo("sub/000000000139.jpg"), low), (photo("a.jpg"), Poses.empty(TIP_AND_TAIL))],
    )
    assert Path("out/poses.labels.json").read_text() == (
        '{\n"info":{"description":"poses found by hrnet-cli, not yet corrected",'
        '"model":"starter","detector":"yolo26s","keypoint_threshold":0.3},\n'
        '"categories":[{"id":1,"name":"person","supercategory":"person",'
        '"keypoints":["tip","tail"],"skeleton":[[1,2]],"sigmas":[0.05,0.1]}],\n'
        '"images":[\n'
        '{"id":139,"file_name":"../in/sub/000000000139.jpg","width":64,"height":48},\n'
        '{"id":1,"file_name":"../in/a.jpg","width":64,"height":48}\n],\n'
        '"annotations":[\n'
        # The box is cut to the photo, and the tail lies outside of it.
        '{"id":1,"image_id":139,"category_id":1,"iscrowd":0,"bbox":[0.0,2.25,33.5,45.75],'
        '"area":812.291,"num_keypoints":1,"keypoints":[10.123,20.5,2,0.0,0.0,0],"score":0.75},\n'
        # A score counts as it is written: 0.3.
        '{"id":2,"image_id":139,"category_id":1,"iscrowd":0,"bbox":[1.0,1.0,20.0,10.0],'
        '"area":106.0,"num_keypoints":1,"keypoints":[0.0,0.0,0,3.0,4.0,2],"score":0.75}\n]\n}\n'
    )


def test_a_data_set_is_read_back_without_complaint():
    frames = [photo("a.jpg", 1), photo("sub/b.jpg", 2)]
    second = people([[[11, 21], [31, 6], [41, 20]]], [[0.9, 0.2, 0.8]])
    write("labels", [(frames[0], SURE), (frames[1], second)])
    found = open_dataset("out/poses.labels.json")
    assert check_people(found).findings == ()
    assert len(found.usable()) == 2
    assert found.schema.skeleton == SIDES.skeleton
    assert found.schema.flip_pairs == (("left_ear", "right_ear"),)
    np.testing.assert_array_equal(found.keypoints_NK2[0], SURE.keypoints_NK2[0])
    assert found.visible_NK.tolist() == [[2, 2, 2], [2, 0, 2]]
    np.testing.assert_array_equal(found.boxes_N4, [[2, 3, 48, 37]] * 2)


def test_the_category_is_called_by_what_was_boxed():
    info = RunInfo("m", "d", 0.3, category="horse")
    write("labels", [(photo("a.jpg"), SURE)], info)
    write("yolo", [(photo("a.jpg"), SURE)], info)
    assert labels()["categories"][0]["name"] == "horse"
    assert yaml.safe_load(Path("out/yolo/data.yaml").read_text())["names"] == {0: "horse"}
    assert len(open_dataset("out/yolo", category="horse")) == 1


def test_pycocotools_loads_it_as_the_truth():
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    pictures = [(photo("000000000139.jpg"), make_poses(2, scores_NK=np.full((2, 17), 0.5)))]
    write("labels", pictures)
    write("coco", pictures)
    truth = COCO("out/poses.labels.json")
    assert truth.getCatIds(catNms=["person"]) == [1]
    # Large enough for COCO to count them.
    for person in truth.anns.values():
        person["area"] = 2000.0
    scoring = COCOeval(truth, truth.loadRes("out/poses.coco.json"), "keypoints")
    scoring.evaluate()
    scoring.accumulate()
    scoring.summarize()
    assert scoring.stats[0] == pytest.approx(1.0)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_labels_of_photos_turned_by_exif_are_those_of_the_photo_as_stored(orientation):
    stored = np.zeros((48, 64, 3), np.uint8)
    stored[10:14, 50:60] = 255
    stored[10, 50] = (255, 0, 0)
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(stored).save("a.png", exif=exif)
    upright, applied = read_image(Path("a.png"))
    y, x = np.argwhere((upright == (255, 0, 0)).all(axis=-1))[0]
    rows, columns = np.nonzero(upright[..., 0])
    box = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
    found = people([[[x, y], [x, y]]], [[0.9, 0.1]], [box], TIP_AND_TAIL)
    write("labels", [(Frame(upright, "a.png", "a.png", orientation=applied), found)])
    (image,), (person,) = labels()["images"], labels()["annotations"]
    assert (image["width"], image["height"]) == (64, 48)
    assert person["keypoints"] == [50, 10, 2, 0, 0, 0]
    assert person["bbox"] == [50, 10, 10, 4]
    assert check_people(open_dataset("out/poses.labels.json")).unusable == 0


def test_photos_are_found_from_a_folder_behind_a_link():
    Path("disk/far/away").mkdir(parents=True)
    Path("out").symlink_to("disk/far/away")
    write("labels", [(photo("a.jpg"), SURE)])
    assert labels()["images"][0]["file_name"] == "../../../in/a.jpg"
    assert check_people(open_dataset("out/poses.labels.json")).findings == ()


def test_appending_keeps_labels_that_were_corrected():
    write("labels", [(photo("a.jpg"), SURE), (photo("b.jpg"), SURE)])
    corrected = labels()
    corrected["annotations"][0]["keypoints"][0] = 11
    corrected["annotations"].append(corrected["annotations"][0] | {"id": 70})
    corrected["licenses"] = ["mine"]
    Path("out/poses.labels.json").write_text(json.dumps(corrected))
    write("labels", [(photo("a.jpg"), SURE), (photo("c.jpg"), SURE)], APPEND)
    now = labels()
    assert now["annotations"][:3] == corrected["annotations"]
    assert now["licenses"] == ["mine"]
    assert [image["file_name"][6:] for image in now["images"]] == ["a.jpg", "b.jpg", "c.jpg"]
    assert [(one["id"], one["image_id"]) for one in now["annotations"][3:]] == [(71, 3)]


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("{", "Expecting property name"),
        ("[]", "it has no list of 'images'$"),
        ('{"images":[{"id":"x"}]}', "entry 0 of 'images' has no whole number as id$"),
        ('{"images":[{"id":1}],"annotations":[],"categories":[]}', "an image has no 'file_name'$"),
        ('{"images":[],"annotations":[{"id":1}],"categories":[]}',
         "entry 0 of 'annotations' has no whole number as id and image_id$"),
    ],
)  # fmt: skip
def test_labels_are_not_appended_to_other_files(content, reason):
    Path("out").mkdir()
    Path("out/poses.labels.json").write_text(content)
    with pytest.raises(OutputError, match=rf"cannot append to '.*labels\.json': {reason}"):
        open_sink("labels", Path("out"), APPEND)
    assert Path("out/poses.labels.json").read_text() == content


@pytest.mark.parametrize("name", ["labels", "yolo"])
def test_labels_of_other_keypoints_are_not_appended(name):
    write(name, [(photo("a.jpg"), SURE)])
    before = {path: path.read_bytes() for path in Path("out").rglob("*") if path.is_file()}
    sink = open_sink(name, Path("out"), APPEND)
    with pytest.raises(OutputError, match=r"cannot append to '.*keypoints"):
        sink.write(photo("b.jpg"), make_poses(1))
    sink.close()
    assert {path: path.read_bytes() for path in Path("out").rglob("*") if path.is_file()} == before


def test_labels_go_nowhere_when_their_folder_is_gone():
    sink = open_sink("labels", Path("out"), INFO)
    sink.write(photo("a.jpg"), SURE)
    shutil.rmtree("out")
    for act in (lambda: sink.write(photo("b.jpg"), SURE), sink.close):
        with pytest.raises(OutputError, match=r"poses\.labels\.json': the folder was removed"):
            act()
    assert not Path("out").exists()


# --- YOLO ---------------------------------------------------------------------------------------


def test_yolo_is_exactly_as_documented():
    pair = people(
        [[[16, 12], [70, 5], [-0.25, 47.25]], [[1, 2], [3, 4], [5, 6]]],
        [[0.9, 0.9, 0.9], [0.1, 0.1, 0.1]],
        [[16, 12, 48, 36], [-3, 0, 32, 60]],
    )
    write("yolo", [(photo("sub/a.jpg"), pair), (photo("nobody.jpg"), Poses.empty(SIDES))])
    text = Path("out/yolo/labels/sub/a.txt").read_text()
    assert text == (
        # What lies half a pixel outside is drawn in: ultralytics takes no share below 0.
        "0 0.500000 0.500000 0.500000 0.500000"
        " 0.250000 0.250000 2 0 0 0 0.000000 0.984375 2\n"
        "0 0.250000 0.500000 0.500000 1.000000 0 0 0 0 0 0 0 0 0\n"
    )
    assert Path("out/yolo/labels/nobody.txt").read_text() == ""
    assert Path("out/yolo/images/sub/a.jpg").samefile("in/sub/a.jpg")
    assert yaml.safe_load(Path("out/yolo/data.yaml").read_text()) == {
        "train": "images",
        "val": "images",
        "names": {0: "person"},
        "kpt_shape": [3, 3],
        "flip_idx": [2, 1, 0],
        "kpt_names": {0: ["left_ear", "horn", "right_ear"]},
    }


@pytest.mark.parametrize("schema", ["coco17", "hand21", "ap10k"])
def test_yolo_is_read_back_to_the_same_keypoints(schema):
    size_wh = (1333, 801)
    poses = make_poses(3, schema)
    points = np.random.default_rng(0).uniform(0, 800, poses.keypoints_NK2.shape)
    scores = np.random.default_rng(1).uniform(0, 1, poses.scores_NK.shape)
    poses = make_poses(3, schema, keypoints_NK2=points, scores_NK=scores)
    write("yolo", [(photo("a.png", size_wh=size_wh), poses)])
    found = open_dataset("out/yolo")
    assert found.schema == poses.schema
    labelled = scores.round(4) >= 0.3
    np.testing.assert_array_equal(found.visible_NK, np.where(labelled, 2, 0))
    # Half of the last decimal of the share, and half of that of the record.
    tolerance = 0.5e-6 * max(size_wh) + 0.5e-3
    expected = np.where(labelled[..., None], poses.keypoints_NK2, 0)
    np.testing.assert_allclose(found.keypoints_NK2, expected, rtol=0, atol=tolerance + 1e-9)
    xyxy = poses.boxes.xyxy_N4
    np.testing.assert_allclose(found.boxes_N4[:, :2], xyxy[:, :2], rtol=0, atol=2 * tolerance)


def test_yolo_names_photos_apart_whose_labels_would_be_one_file():
    frames = [photo("a.jpg", 1), photo("a.png", 2), photo("A.webp", 3)]
    write("yolo", [(frame, SURE) for frame in frames])
    places = sorted(path.name for path in Path("out/yolo/images").iterdir())
    assert places == ["A-3.webp", "a-2.png", "a.jpg"]
    assert sorted(path.stem for path in Path("out/yolo/labels").iterdir()) == ["A-3", "a", "a-2"]


def test_yolo_appending_keeps_labels_that_were_corrected():
    write("yolo", [(photo("a.jpg"), SURE), (photo("b.jpg"), SURE)])
    Path("out/yolo/labels/a.txt").write_text("corrected")
    write("yolo", [(photo("a.jpg"), SURE), (photo("c.jpg"), SURE)], APPEND)
    assert Path("out/yolo/labels/a.txt").read_text() == "corrected"
    assert sorted(path.name for path in Path("out/yolo/images").iterdir()) == [
        "a.jpg", "b.jpg", "c.jpg",
    ]  # fmt: skip


def test_yolo_anew_holds_nothing_of_the_run_before():
    write("yolo", [(photo("a.jpg"), SURE), (photo("b.jpg"), SURE)])
    Path("out/yolo/images/own.jpg").write_bytes(b"somebody's photo")
    write("yolo", [(photo("b.jpg"), SURE)])
    assert [path.name for path in Path("out/yolo/labels").iterdir()] == ["b.txt"]
    assert sorted(path.name for path in Path("out/yolo/images").iterdir()) == ["b.jpg", "own.jpg"]
    assert Path("in/a.jpg").is_file()


def test_yolo_leaves_photos_alone_that_lie_in_its_own_folder():
    write("yolo", [(photo("a.jpg"), SURE)])
    Path("out/yolo/images/a.jpg").unlink()
    shutil.move("in/a.jpg", "out/yolo/images/a.jpg")
    content = Path("out/yolo/images/a.jpg").read_bytes()
    write("yolo", [(make_frame("a.jpg", source="out/yolo/images/a.jpg"), SURE)])
    assert not Path("out/yolo/images/a.jpg").is_symlink()
    assert Path("out/yolo/images/a.jpg").read_bytes() == content


def test_yolo_copies_photos_where_there_are_no_links(monkeypatch):
    def refuse(*_):
        raise OSError("a required privilege is not held")

    monkeypatch.setattr(Path, "symlink_to", refuse)
    write("yolo", [(photo("a.jpg"), SURE)])
    assert not Path("out/yolo/images/a.jpg").is_symlink()
    assert Path("out/yolo/images/a.jpg").read_bytes() == Path("in/a.jpg").read_bytes()
    assert [path.name for path in Path("out/yolo/images").iterdir()] == ["a.jpg"]
