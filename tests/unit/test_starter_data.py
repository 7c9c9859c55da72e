"""The scripts that make the training data of the starter models: labels merged, boxes chosen."""

import importlib
import json

import pytest
from PIL import Image

from hrnet_cli.data import open_dataset


@pytest.fixture(scope="module")
def scripts(request):
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(request.config.rootpath / "starter")
        yield (
            importlib.import_module("pose_data"),
            importlib.import_module("detector_data"),
            importlib.import_module("train_detector"),
        )


def person(id_, image_id, box=(10.0, 10.0, 20.0, 40.0)):
    return {
        "id": id_, "image_id": image_id, "category_id": 1, "iscrowd": 0, "bbox": list(box),
        "area": 400.0, "num_keypoints": 17, "keypoints": [15.0, 20.0, 2] * 17,
    }  # fmt: skip


def labels(name, *people):
    from hrnet_cli.schema import load_schema

    keypoints = list(load_schema("coco17").keypoints)
    return {
        "images": [{"id": 7, "file_name": name, "width": 64, "height": 64}],
        "annotations": list(people),
        "categories": [{"id": 1, "name": "person", "keypoints": keypoints}],
    }


def test_people_of_coco_are_repeated_and_ids_are_new(scripts):
    pose_data, *_ = scripts
    lspet, coco = labels("a.webp", person(1, 7)), labels("b.jpg", person(1, 7), person(2, 7))
    merged = pose_data.merge(lspet, coco, repeat=3)
    assert [image["file_name"] for image in merged["images"]] == [
        "lspet/images/a.webp",
        "coco-mini/train2017/b.jpg",
    ]
    ids = [one["id"] for one in merged["annotations"]]
    assert ids == list(range(1, 8))
    assert [one["image_id"] for one in merged["annotations"]] == [1] + [2] * 6


def test_the_written_data_set_opens_and_no_val_photo_is_in_it(scripts, tmp_path, monkeypatch):
    pose_data, *_ = scripts
    data = tmp_path / "data"
    for folder, name in ((pose_data.LSPET, "a.jpg"), (pose_data.COCO, "b.jpg")):
        (data / folder).mkdir(parents=True)
        Image.new("RGB", (64, 64)).save(data / folder / name)
    for path, name in (
        (pose_data.TRAIN, "a.jpg"),
        (pose_data.VAL, "a.jpg"),
        (pose_data.COCO_TRAIN, "b.jpg"),
    ):
        (data / path).parent.mkdir(parents=True, exist_ok=True)
        (data / path).write_text(json.dumps(labels(name, person(1, 7))))
    words = ["pose_data.py", "--data", str(data), "--out", str(tmp_path / "out"), "--repeat", "2"]
    monkeypatch.setattr("sys.argv", words)
    pose_data.main()
    train = open_dataset(str(tmp_path / "out" / "pose.toml"), cache=False)
    assert len(train.ids_N) == 3
    assert "val2017" not in (tmp_path / "out" / "pose-train.json").read_text()


def test_a_person_has_one_box_the_teachers_where_there_is_one(scripts):
    _, detector_data, _ = scripts
    taught = [[0.0, 0.0, 10.0, 20.0], [50.0, 0.0, 10.0, 20.0]]
    labelled = [[1.0, 1.0, 9.0, 18.0], [30.0, 30.0, 5.0, 5.0]]
    assert detector_data.all_people(labelled, taught) == [*taught, labelled[1]]


def test_boxes_are_cut_at_the_photo_and_written_as_parts_of_it(scripts):
    _, detector_data, _ = scripts
    line = detector_data.yolo_line([-10.0, 20.0, 30.0, 100.0], (40, 80))
    assert line == "0 0.25000 0.62500 0.50000 0.75000"


@pytest.mark.parametrize(
    ("other", "expected"), [([0, 0, 2, 2], 1), ([1, 0, 2, 2], 1 / 3), ([5, 5, 2, 2], 0)]
)
def test_overlap(scripts, other, expected):
    assert scripts[0].iou([0, 0, 2, 2], other) == pytest.approx(expected)


def test_the_detectors_learning_rate_warms_up_and_falls_with_time(scripts):
    rate_factor = scripts[2].rate_factor
    assert rate_factor(0, 0.0) == pytest.approx(0.01)
    assert rate_factor(1000, 0.0) == 1
    assert rate_factor(1000, 0.5) == pytest.approx(0.51)
    assert rate_factor(1000, 1.0) == pytest.approx(0.02)


def test_upright_people_have_their_shoulders_above_their_hips(scripts):
    pose_data, *_ = scripts

    def standing(shoulder_xy, hip_xy, visible=2):
        rows = [[0, 0, 0]] * 17
        rows[5], rows[12] = [*shoulder_xy, visible], [*hip_xy, 2]
        return {"keypoints": [value for row in rows for value in row]}

    upright, leaning = standing((10, 10), (10, 40)), standing((10, 10), (30, 40))
    others = [
        standing((10, 40), (10, 10)),  # head down
        standing((10, 10), (40, 15)),  # lying
        standing((10, 10), (10, 40), visible=0),  # shoulders unknown
    ]
    chosen = pose_data.some_upright([upright, *others, leaning], 10)
    assert len(chosen) == 2
    assert upright in chosen
    assert leaning in chosen
    assert len(pose_data.some_upright([upright, *others, leaning], 1)) == 1
