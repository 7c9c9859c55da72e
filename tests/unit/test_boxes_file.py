"""Boxes from a file: every format gives the same boxes, and no photo gets another's."""

import json
import re
from pathlib import Path

import numpy as np
import pytest

from hrnet_cli.detectors.boxes_file import BoxesFile, load_boxes_file
from hrnet_cli.errors import ExitCode, InputError
from hrnet_cli.structures import Frame

WIDTH, HEIGHT = 64, 48
TWO_BOXES = [[1, 2, 21, 32], [30.5, 5, 60, 47]]
TWO_SCORES = [0.9, 0.25]


def make_frame(
    source: str, *, name: str | None = None, index: int = 0, time_s: float | None = None
) -> Frame:
    image = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    name = Path(source).name if name is None else name
    return Frame(image, source, name, index=index, time_s=time_s)


def write(tmp_path: Path, content: object, name: str = "boxes.json") -> Path:
    path = tmp_path / name
    text = content if isinstance(content, str) else json.dumps(content)
    path.write_text(text, encoding="utf-8")
    return path


def record(source: str, boxes=(), **fields) -> str:
    people = [{"box": list(box), "box_score": 0.5} for box in boxes]
    return json.dumps({"source": source, "people": people, **fields})


def coco_result(image_id, box=(1, 2, 20, 30), **fields):
    return {"image_id": image_id, "category_id": 1, "bbox": list(box), "score": 0.9, **fields}


def refused(path: Path, photo: str = "photo.jpg", **settings) -> InputError:
    """Return the error of a file, wherever it comes up."""

    def use() -> None:
        detector = load_boxes_file(path, **settings)
        detector.check_speaks_of([(photo, photo)])
        detector([make_frame(photo)])

    with pytest.raises(InputError) as caught:
        use()
    assert caught.value.exit_code == ExitCode.INPUT
    assert "\n" not in caught.value.message
    assert str(path) in caught.value.message
    return caught.value


SAME_BOXES = {
    "records.jsonl": json.dumps(
        {
            "schema": "hrnet-poses/1",
            "source": "photo.jpg",
            "frame": 0,
            "time_s": None,
            "width": WIDTH,
            "height": HEIGHT,
            "people": [
                {"id": None, "box": box, "box_score": score, "score": 0.1, "keypoints": [[1, 2, 3]]}
                for box, score in zip(TWO_BOXES, TWO_SCORES, strict=True)
            ],
        }
    )
    + "\n\n"
    + record("other.jpg", [[0, 0, 5, 5]])
    + "\n",
    "record, indented.json": json.dumps(
        {
            "source": "photo.jpg",
            "people": [
                {"box": box, "score": score}
                for box, score in zip(TWO_BOXES, TWO_SCORES, strict=True)
            ],
        },
        indent=2,
    ),
    "records as a list.json": json.dumps(
        [
            {
                "source": "photo.jpg",
                "people": [
                    {"box": box, "box_score": score}
                    for box, score in zip(TWO_BOXES, TWO_SCORES, strict=True)
                ],
            }
        ]
    ),
    "coco results with file names.json": json.dumps(
        [
            coco_result(7, (1, 2, 20, 30), file_name="photo.jpg"),
            coco_result(7, (0, 0, 9, 9), file_name="photo.jpg", category_id=3),
            coco_result(7, (30.5, 5, 29.5, 42), file_name="photo.jpg", score=0.25),
            coco_result(8, file_name="other.jpg"),
        ]
    ),
    "coco results with stems.json": json.dumps(
        [coco_result("photo"), coco_result("photo", (30.5, 5, 29.5, 42), score=0.25)]
    ),
    "coco annotations.json": json.dumps(
        {
            "images": [
                {"id": 7, "file_name": "photo.jpg", "width": WIDTH, "height": HEIGHT},
                {"id": 8, "file_name": "other.jpg"},
            ],
            "categories": [{"id": 4, "name": "person"}, {"id": 2, "name": "dog"}],
            "annotations": [
                {"image_id": 7, "category_id": 4, "bbox": [1, 2, 20, 30], "score": 0.9},
                {"image_id": 7, "category_id": 2, "bbox": [3, 3, 3, 3]},
                {"image_id": 7, "category_id": 4, "bbox": [0, 0, 60, 40], "iscrowd": 1},
                {"image_id": 7, "category_id": 4, "bbox": [30.5, 5, 29.5, 42], "score": 0.25},
            ],
        }
    ),
    "corners.csv": "file,x1,y1,x2,y2,score\nphoto.jpg,1,2,21,32,0.9\n"
    "other.jpg,0,0,5,5,1\nphoto.jpg, 30.5, 5, 60, 47, 0.25\n",
    "between semicolons.csv": "file;x1;y1;x2;y2;score\nphoto.jpg;1;2;21;32;0.9\n"
    "photo.jpg;30.5;5;60;47;.25\n",
    "between tabs, as YOLOv5 names them.csv": "\txmin\tymin\txmax\tymax\tconfidence\tclass\tname"
    "\timage\n0\t1\t2\t21\t32\t0.9\t0\tperson\tphoto.jpg\n"
    "1\t30.5\t5\t60\t47\t0.25\t0\tperson\tphoto.jpg\n",
    "sizes, other order, class.csv": "Score,Class,X,Y,W,H,Image\r\n"
    "0.9,person,1,2,20,30,photo.jpg\r\n"
    "0.8,car,1,2,20,30,photo.jpg\r\n.25,Person,30.5,5,29.5,42,photo.jpg\r\n",
    "long form.csv": "source,frame,time_s,person,id,box_x1,box_y1,box_x2,box_y2,box_score,"
    "person_score,keypoint,x,y,score,in_frame\n"
    "photo.jpg,0,,0,,1,2,21,32,0.9,0.1,nose,3,4,0.7,true\n"
    "photo.jpg,0,,0,,1,2,21,32,0.9,0.1,left_eye,3,4,0.7,true\n"
    "photo.jpg,0,,1,,30.5,5,60,47,0.25,0.1,nose,3,4,0.7,true\n"
    "photo.jpg,0,,1,,30.5,5,60,47,0.25,0.1,left_eye,3,4,0.7,true\n",
}


@pytest.mark.parametrize("name", SAME_BOXES)
def test_every_format_gives_the_same_boxes(tmp_path, name):
    # A byte order mark, as spreadsheets write it, changes nothing.
    for start in ("", "\ufeff"):
        path = write(tmp_path, start + SAME_BOXES[name], name)
        detector = load_boxes_file(path)
        (boxes,) = detector([make_frame("photo.jpg")])
        assert detector.name == "boxes-file"
        np.testing.assert_array_equal(boxes.xyxy_N4, np.array(TWO_BOXES, np.float32))
        np.testing.assert_array_equal(boxes.scores_N, np.array(TWO_SCORES, np.float32))


def test_boxes_without_scores_count_as_sure(tmp_path):
    for content in (
        '{"source": "photo.jpg", "people": [{"box": [1, 2, 3, 4]}]}',
        "source,x1,y1,x2,y2\nphoto.jpg,1,2,3,4",
        "source,x1,y1,x2,y2,score\nphoto.jpg,1,2,3,4,",
        [{"image_id": "photo", "bbox": [1, 2, 2, 2]}],
    ):
        (boxes,) = load_boxes_file(write(tmp_path, content))([make_frame("photo.jpg")])
        assert boxes.xyxy_N4.tolist() == [[1, 2, 3, 4]]
        assert boxes.scores_N.tolist() == [1]


def test_scores_are_shares_give_or_take_a_rounding(tmp_path):
    path = write(
        tmp_path, '{"source": "photo.jpg", "people": [{"box": [1, 2, 3, 4], "score": 1.01}]}'
    )
    assert refused(path).hint == "divide percents by 100"
    path = write(tmp_path, "source,x1,y1,x2,y2,score\nphoto.jpg,1,2,3,4,1.0000001")
    assert len(load_boxes_file(path)([make_frame("photo.jpg")])[0]) == 1


def test_no_frames_give_no_boxes(tmp_path):
    assert load_boxes_file(write(tmp_path, record("photo.jpg")))([]) == []


class TestNobody:
    @pytest.mark.parametrize(
        "content",
        [
            record("photo.jpg"),
            {"images": [{"id": 1, "file_name": "photo.jpg"}], "annotations": [],
             "categories": [{"id": 1, "name": "person"}]},
            [coco_result("photo", category_id=3)],
            "source,x1,y1,x2,y2\nphoto.jpg,,,,",
        ],
        ids=["record", "coco annotations", "coco results of another class", "csv"],
    )  # fmt: skip
    def test_a_photo_listed_without_people_is_nobody(self, tmp_path, content):
        warnings = []
        detector = load_boxes_file(write(tmp_path, content), on_warning=warnings.append)
        (boxes,) = detector([make_frame("photo.jpg")])
        assert boxes.xyxy_N4.shape == (0, 4)
        assert [warning.split("' ", 1)[1] for warning in warnings] == [
            "has no box of class 'person': nobody is found with it"
        ]

    def test_a_photo_not_mentioned_is_an_error_that_says_what_is(self, tmp_path):
        path = write(tmp_path, "\n".join(record(f"{n}.jpg") for n in range(5)))
        error = refused(path)
        assert error.message == (
            f"boxes file '{path}' has no boxes for photo 'photo.jpg'; "
            "it speaks of 0.jpg, 1.jpg, 2.jpg and 2 more"
        )
        assert "told by path or file name" in error.hint

    def test_an_empty_list_means_nobody_anywhere(self, tmp_path):
        detector = load_boxes_file(write(tmp_path, []))
        detector.check_speaks_of([("photo.jpg", "photo.jpg")])
        assert len(detector([make_frame("photo.jpg")])[0]) == 0

    @pytest.mark.parametrize("content", [[coco_result(1)], "source,x1,y1,x2,y2\n1.jpg,0,0,9,9"])
    def test_a_photo_that_lists_of_boxes_do_not_mention_is_nobody(self, tmp_path, content):
        detector = load_boxes_file(write(tmp_path, content))
        detector.check_speaks_of([("1.jpg", "1.jpg"), ("2.jpg", "2.jpg")])
        found = detector([make_frame("1.jpg"), make_frame("2.jpg")])
        assert [len(boxes) for boxes in found] == [1, 0]

    @pytest.mark.parametrize("content", [[coco_result(1)], record("1.jpg")])
    def test_a_file_that_mentions_none_of_the_photos_is_an_error(self, tmp_path, content):
        detector = load_boxes_file(write(tmp_path, content))
        with pytest.raises(InputError, match=r"has no boxes for photo '2\.jpg'; it speaks of"):
            detector.check_speaks_of([("2.jpg", "2.jpg"), ("3.jpg", "3.jpg")])


class TestMatching:
    def find(self, tmp_path, listed: list[str], frame: Frame) -> str:
        """Return which of the listed photos the frame gets the boxes of."""
        lines = [record(photo, [[n, 0, n + 1, 1]]) for n, photo in enumerate(listed)]
        (boxes,) = load_boxes_file(write(tmp_path, "\n".join(lines)))([frame])
        return listed[int(boxes.xyxy_N4[0, 0])]

    @pytest.mark.parametrize(
        ("source", "name", "listed"),
        [
            ("photo.jpg", "photo.jpg", "photo.jpg"),
            ("set1/photo.jpg", "photo.jpg", "photo.jpg"),
            ("set1/photo.jpg", "photo.jpg", "./set1/photo.jpg"),
            ("set1/photo.jpg", "photo.jpg", "/elsewhere/set1/photo.jpg"),
            ("set1/photo.jpg", "photo.jpg", "/elsewhere/photo.jpg"),
            ("set1/photo.jpg", "photo.jpg", "../photo.jpg"),
            ("set1/photo.jpg", "photo.jpg", "C:\\pictures\\set1\\photo.jpg"),
            ("in/set1/photo.jpg", "set1/photo.jpg", "out/set1/photo.jpg"),
            ("mit Leerzeichen/B\u00e4r.jpg", "B\u00e4r.jpg", "Ba\u0308r.jpg"),
            ("set1/photo.jpg", "photo.jpg", "photo"),
            ("set1/photo.v2.jpg", "photo.v2.jpg", "photo.v2"),
        ],
    )
    def test_paths_that_mean_the_same_photo(self, tmp_path, source, name, listed):
        assert self.find(tmp_path, [listed], make_frame(source, name=name)) == listed

    @pytest.mark.parametrize(
        ("source", "name", "listed"),
        [
            ("photo.jpg", "photo.jpg", "myphoto.jpg"),
            ("photo.jpg", "photo.jpg", "photo.png"),
            ("photo.jpg", "photo.jpg", "Photo.jpg"),
            ("in/set2/photo.jpg", "set2/photo.jpg", "set1/photo.jpg"),
            ("set12/photo.jpg", "set12/photo.jpg", "2/photo.jpg"),
        ],
    )
    def test_paths_of_different_photos(self, tmp_path, source, name, listed):
        with pytest.raises(InputError, match="has no boxes for photo"):
            self.find(tmp_path, [listed], make_frame(source, name=name))

    @pytest.mark.parametrize(
        ("source", "expected"),
        [
            ("photo.jpg", "photo.jpg"),
            ("set1/photo.jpg", "set1/photo.jpg"),
            ("a/set1/photo.jpg", "a/set1/photo.jpg"),
            ("b/set1/photo.jpg", "set1/photo.jpg"),
            ("set3/photo.jpg", "photo.jpg"),
            ("photo.png", "photo"),
        ],
    )
    def test_the_longest_common_path_wins(self, tmp_path, source, expected):
        listed = ["a/set1/photo.jpg", "photo", "set2/photo.jpg", "photo.jpg", "set1/photo.jpg"]
        assert self.find(tmp_path, listed, make_frame(source, name=source)) == expected

    def test_an_absolute_path_is_found_from_its_folder(self, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        listed = [f"{tmp_path}/photo.jpg", "/elsewhere/photo.jpg"]
        assert self.find(tmp_path, listed, make_frame("photo.jpg")) == listed[0]

    def test_two_equal_entries_that_differ_are_refused(self, tmp_path):
        path = write(
            tmp_path,
            record("a/photo.jpg", [[0, 0, 1, 1]]) + "\n" + record("b/photo.jpg", [[0, 0, 2, 2]]),
        )
        assert refused(path).message == (
            f"boxes file '{path}' has several entries for photo 'photo.jpg': "
            "a/photo.jpg, b/photo.jpg"
        )

    def test_a_record_written_twice_is_one(self, tmp_path):
        path = write(tmp_path, "\n".join([record("photo.jpg", [[0, 0, 1, 1]])] * 2))
        assert len(load_boxes_file(path)([make_frame("photo.jpg")])[0]) == 1

    def test_two_photos_never_share_an_entry(self, tmp_path):
        detector = load_boxes_file(write(tmp_path, [coco_result(1)]))
        assert len(detector([make_frame("cam1_001.jpg")])[0]) == 1
        assert len(detector([make_frame("cam1_001.jpg")])[0]) == 1
        with pytest.raises(InputError) as caught:
            detector([make_frame("cam2_001.jpg")])
        message = caught.value.message
        assert "entry 'image_id 1' fits photo 'cam2_001.jpg', but was used for" in message
        assert "cam1_001.jpg" in message

    @pytest.mark.parametrize(
        ("source", "image_id"),
        [
            ("val2017/000000000785.jpg", 785),
            ("COCO_val2014_000000000785.jpg", 785),
            ("785.png", "785"),
            ("0.jpg", 0),
        ],
    )
    def test_coco_numbers_are_the_number_in_the_file_name(self, tmp_path, source, image_id):
        path = write(tmp_path, [coco_result(1234), coco_result(image_id, (3, 3, 4, 4))])
        (boxes,) = load_boxes_file(path)([make_frame(source)])
        assert boxes.xyxy_N4.tolist() == [[3, 3, 7, 7]]

    def test_a_coco_number_does_not_fit_other_digits(self, tmp_path):
        path = write(tmp_path, [coco_result(785)])
        assert "it speaks of image_id 785" in refused(path, "7850.jpg").message
        assert "it speaks of image_id 785" in refused(path, "785_crop.jpg").message

    def test_shares_of_the_picture_are_no_pixels(self, tmp_path):
        for box, refused in (([0.1, 0.3, 0.5, 1.0], True), ([0, 0.3, 1.5, 1], False)):
            detector = load_boxes_file(write(tmp_path, record("a.jpg", [box])))
            if not refused:
                assert len(detector([make_frame("a.jpg")])[0]) == 1
                continue
            with pytest.raises(
                InputError, match="its boxes are shares of the picture, 0 to 1"
            ) as e:
                detector([make_frame("a.jpg")])
            assert e.value.hint == "multiply x by the width, here 64, and y by the height, 48"

    def test_coco_results_name_the_frames_of_a_video(self, tmp_path):
        results = [
            {"image_id": n + 1, "file_name": f"clip_{n:012d}", "category_id": 1, "score": 0.9,
             "bbox": [n + 2, 3, 4, 5]}
            for n in (0, 2)
        ]  # fmt: skip
        detector = load_boxes_file(write(tmp_path, json.dumps(results)))
        detector.check_speaks_of([], [("films/clip.mp4", "clip")])
        frames = [make_frame("films/clip.mp4", name="clip", index=n) for n in range(3)]
        found = [boxes.xyxy_N4[:, 0].tolist() for boxes in detector(frames)]
        assert found == [[2], [], [4]]
        for other in (("films/other.mp4", "other"), ("films/cl.mp4", "cl")):
            with pytest.raises(InputError, match="it speaks of clip_000000000000, "):
                detector.check_speaks_of([], [other])

    def test_a_frame_that_records_do_not_mention_is_an_error_that_says_what_to_write(
        self, tmp_path
    ):
        path = write(tmp_path, record("clip.mp4", [[0, 0, 9, 9]], frame=0))
        with pytest.raises(InputError, match=r"no boxes for video 'clip.mp4' frame 1;") as e:
            load_boxes_file(path)([make_frame("clip.mp4", index=1, time_s=0.04)])
        assert '{"source": "clip.mp4", "frame": 1, "people": []}' in e.value.hint

    def test_frames_of_a_video_have_their_own_boxes(self, tmp_path):
        lines = [record("clip.mp4", [[n, 0, n + 1, 1]], frame=n) for n in range(3)]
        detector = load_boxes_file(write(tmp_path, "\n".join(lines)))
        found = detector([make_frame("clip.mp4", index=n) for n in range(3)])
        assert [boxes.xyxy_N4[0, 0] for boxes in found] == [0, 1, 2]
        with pytest.raises(InputError, match=r"no boxes for video 'clip\.mp4' frame 3"):
            detector([make_frame("clip.mp4", index=3, time_s=0.12)])
        with pytest.raises(InputError, match=r"no boxes for video 'b\.mp4'; it speaks of clip"):
            detector.check_speaks_of([], [("b.mp4", "b")])

    @pytest.mark.parametrize("column", ["frame", "frame_id", "Frame_Index", "frame_idx"])
    def test_a_column_tells_the_frame(self, tmp_path, column):
        rows = "".join(f"clip.mp4,{n},{n + 1},2,30,40\n" for n in range(3))
        detector = load_boxes_file(write(tmp_path, f"source,{column},x1,y1,x2,y2\n{rows}"))
        detector.check_speaks_of([], [("clip.mp4", "clip")])
        found = detector([make_frame("clip.mp4", index=n, time_s=n / 25) for n in range(3)])
        assert [boxes.xyxy_N4[:, 0].tolist() for boxes in found] == [[1], [2], [3]]

    @pytest.mark.parametrize(
        "content",
        [
            "file,time,x1,y1,x2,y2\nclip.mp4,0.0,1,2,3,4\nclip.mp4,0.04,2,2,4,4\n",
            "file,frame,x1,y1,x2,y2\nclip.mp4,,1,2,3,4\n",
            '{"source": "clip.mp4", "people": []}',
        ],
    )
    def test_a_file_that_tells_no_frames_of_a_video_is_an_error(self, tmp_path, content):
        detector = load_boxes_file(write(tmp_path, content))
        with pytest.raises(InputError, match=r"does not tell the frames of video 'clip\.mp4'") as e:
            detector.check_speaks_of([("a.jpg", "a.jpg")], [("clip.mp4", "clip")])
        assert "called frame that counts from 0" in e.value.hint


class TestPicture:
    def test_boxes_partly_outside_stay_as_they_are(self, tmp_path):
        box = [-10, -5.5, 200, 12]
        path = write(tmp_path, record("photo.jpg", [box]))
        assert load_boxes_file(path)([make_frame("photo.jpg")])[0].xyxy_N4.tolist() == [box]

    @pytest.mark.parametrize(
        "box", [[64, 0, 70, 9], [0, 48, 9, 60], [-9, 0, 0, 9], [0, -9, 9, 0], [900, 900, 950, 950]]
    )
    def test_a_box_wholly_outside_is_refused(self, tmp_path, box):
        path = write(tmp_path, record("photo.jpg", [[0, 0, 9, 9], box]))
        assert refused(path).message == (
            f"boxes file '{path}', line 1, person 2, photo 'photo.jpg': box "
            f"[{', '.join(map(str, box))}] lies wholly outside the picture of 64x48 pixels"
        )

    def test_boxes_of_a_picture_of_another_size_are_refused(self, tmp_path):
        path = write(tmp_path, record("photo.jpg", [[0, 0, 9, 9]], width=128, height=96))
        assert refused(path).message == (
            f"boxes file '{path}', photo 'photo.jpg': its boxes were made for a picture of "
            "128x96 pixels, this one has 64x48"
        )


class TestSelection:
    # Two boxes of one person (IoU 0.9), one of another.
    BOXES = (((0, 0, 10, 10), 0.5), ((0, 0, 10, 9), 0.8), ((20, 0, 30, 10), 0.1))

    @pytest.fixture
    def path(self, tmp_path):
        people = [{"box": list(box), "box_score": score} for box, score in self.BOXES]
        return write(tmp_path, {"source": "photo.jpg", "people": people})

    @pytest.mark.parametrize(
        ("settings", "scores"),
        [
            ({}, [0.5, 0.8, 0.1]),
            ({"person_threshold": 0.5}, [0.5, 0.8]),
            ({"iou_threshold": 0.7}, [0.8, 0.1]),
            ({"iou_threshold": 0.95}, [0.5, 0.8, 0.1]),
            ({"max_people": 2}, [0.5, 0.8]),
            ({"max_people": 1}, [0.8]),
            ({"person_threshold": 0.2, "iou_threshold": 0.7, "max_people": 5}, [0.8]),
            ({"person_threshold": 1.0, "iou_threshold": 0.7}, []),
        ],
    )
    def test_only_what_is_asked_for_is_left_out(self, path, settings, scores):
        (boxes,) = load_boxes_file(path, **settings)([make_frame("photo.jpg")])
        assert boxes.scores_N.tolist() == np.array(scores, np.float32).tolist()

    def test_classes_of_a_table_are_its_own_names_or_numbers(self, tmp_path):
        for head, cells, wanted, counts in (
            ("class", ("0", "2"), "0", 1),
            ("class,name", ("0,person", "2,car"), "person", 1),
            ("class,label", ("0,Person", "2,car"), "person", 1),
            ("class", ("", "dog"), "person", 1),
        ):
            rows = [f"photo.jpg,1,2,21,32,{cell}" for cell in cells]
            path = write(tmp_path, "\n".join([f"source,x1,y1,x2,y2,{head}", *rows]), "t.csv")
            (boxes,) = load_boxes_file(path, class_name=wanted)([make_frame("photo.jpg")])
            assert len(boxes) == counts, head

    @pytest.mark.parametrize(
        ("cells", "message", "hint"),
        [
            (("pedestrian", "dog"), "has no class 'person'; it knows pedestrian, dog", "--class"),
            (
                ("0", "2"),
                "tells classes by number, 0, 2, and no 'person'",
                "YOLO's person is --class 0",
            ),
        ],
    )
    def test_a_table_of_other_classes_only_is_refused(self, tmp_path, cells, message, hint):
        rows = [f"photo.jpg,1,2,21,32,{cell}" for cell in (*cells, cells[0])]
        path = write(tmp_path, "\n".join(["source,x1,y1,x2,y2,class", *rows]), "t.csv")
        error = refused(path)
        assert error.message == f"boxes file '{path}' {message}"
        assert hint in error.hint

    def test_the_class_is_chosen_by_name(self, tmp_path):
        path = write(tmp_path, SAME_BOXES["coco annotations.json"])
        (boxes,) = load_boxes_file(path, class_name="Dog")([make_frame("photo.jpg")])
        assert boxes.xyxy_N4.tolist() == [[3, 3, 6, 6]]
        (both,) = load_boxes_file(path, class_name="dog, Person")([make_frame("photo.jpg")])
        (people,) = load_boxes_file(path)([make_frame("photo.jpg")])
        assert len(both) == len(people) + 1
        assert "no class 'cat'; it knows" in refused(path, class_name="dog,cat").message
        assert "no class ','; it knows" in refused(path, class_name=",").message
        table = write(
            tmp_path,
            "source,x1,y1,x2,y2,class\n"
            + "".join(
                f"photo.jpg,0,0,{9 + n},9,{kind}\n" for n, kind in enumerate(("Cat", "dog", "a, b"))
            ).replace("a, b", '"a, b"'),
            "classes.csv",
        )
        for wanted, count in (("cat", 1), ("cat,DOG", 2), ("a, b", 1), ("cow,dog", 1)):
            (boxes,) = load_boxes_file(table, class_name=wanted)([make_frame("photo.jpg")])
            assert len(boxes) == count
        assert "no class 'cow'; it knows Cat, dog" in refused(table, class_name="cow").message
        message = refused(path, class_name="dogs").message
        assert message == f"boxes file '{path}' has no class 'dogs'; it knows dog, person"


PERSON = '{"source": "photo.jpg", "people": [{"box": %s}]}'
CSV = "source,x1,y1,x2,y2,score\nphoto.jpg,%s"
NO_AREA = "has no area; expected x1, y1, x2, y2 with x2 > x1 and y2 > y1"
IN_LINE_1 = "line 1, source 'photo.jpg', person 1"
IN_LINE_2 = "line 2, source 'photo.jpg'"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "is empty"),
        (" \n\t", "is empty"),
        ("hello", "has the columns hello"),
        ("source,x1,y1,x2\na,1,2,3", "has the columns source, x1, y1, x2"),
        ('{"source": "a.jpg", "people": []}\n{"source": "b', "line 2 is not JSON: Unterminated"),
        ('[{"image_id": 1},\n', "is not JSON: line 2: Expecting value"),
        (100_000 * "[", "is not JSON: it is nested too deeply"),
        (f'[{{"image_id": {"1" * 5000}}}]', "is not JSON: a number is too long"),
        (f'{{"source": {100_000 * "["}', "line 1 is not JSON: it is nested too deeply"),
        ("[1]", "entry 1 is 1, expected a JSON object"),
        ("{}", "line 1 names no photo or video: it has no 'source'"),
        ('{"source": "a.jpg"}', "line 1, source 'a.jpg' has no list of people"),
        ('{"source": "a.jpg", "people": [3]}', "person 1 is 3, expected a JSON object"),
        (PERSON % "null", f"{IN_LINE_1} has no box; expected x1, y1, x2, y2"),
        (PERSON % "[1, 2, 3]", f"{IN_LINE_1}: box [1, 2, 3], expected 4 numbers"),
        (PERSON % '"1 2 3 4"', f"{IN_LINE_1}: box 1 2 3 4, expected 4 numbers"),
        (PERSON % '[1, 2, 3, "x"]', f"{IN_LINE_1}: box 1, 2, 3, x, expected numbers"),
        (PERSON % "[1, 2, NaN, 4]", f"{IN_LINE_1}: box [1, 2, nan, 4], expected finite"),
        (PERSON % "[1, 2, Infinity, 4]", f"{IN_LINE_1}: box [1, 2, inf, 4], expected finite"),
        (PERSON % "[1, 2, true, 4]", f"{IN_LINE_1}: box [1, 2, true, 4], expected finite"),
        (PERSON % f"[1, 2, 1{'0' * 400}, 4]", "expected numbers"),
        (PERSON % "[5, 2, 5, 4]", f"{IN_LINE_1}: box [5, 2, 5, 4] {NO_AREA}"),
        (PERSON % "[1, 9, 5, 4]", f"{IN_LINE_1}: box [1, 9, 5, 4] {NO_AREA}"),
        (PERSON % '[1, 2, 3, 4], "box_score": -1', f"{IN_LINE_1}: score -1, expected 0 to 1"),
        (PERSON % '[1, 2, 3, 4], "box_score": NaN', f"{IN_LINE_1}: score nan, expected 0 to 1"),
        ('{"source": "a", "people": [], "frame": 0.5}', "frame is 0.5, expected a whole number"),
        (CSV % "1,2,3,4", "line 2 has 5 fields, expected 6"),
        (CSV % "1,2,3,4,1,1", "line 2 has 7 fields, expected 6"),
        (CSV % "1,2,3,,1", f"{IN_LINE_2}: box 1, 2, 3, , expected numbers"),
        (CSV % "1,2,nan,4,1", f"{IN_LINE_2}: box [1, 2, nan, 4], expected finite"),
        (CSV % "1,2,1,4,1", f"{IN_LINE_2}: box [1, 2, 1, 4] {NO_AREA}"),
        (PERSON % '[1, 2, 3, 4], "box_score": 90', f"{IN_LINE_1}: score 90, expected 0 to 1"),
        (CSV % "1,2,3,4,sure", f"{IN_LINE_2}: score sure, expected numbers"),
        ("source,x1,y1,x2,y2\n,1,2,3,4", "line 2: the column source is empty"),
        ('source,x1,y1,x2,y2\n"a' + "a" * 140_000 + '",1,2,3,4', "line 2 is not CSV: field larger"),
        (
            "source,person,x1,y1,x2,y2\na,0,1,2,3,4\na,0,1,2,3,5",
            "line 3, source 'a': person 0 has the box 1, 2, 3, 5, but 1, 2, 3, 4 further up",
        ),
        ([{"bbox": [1, 2, 3, 4]}], "entry 1 has no image_id"),
        ([{"image_id": 1, "category_id": 1}], "entry 1, source '1' has no box"),
        ([coco_result(1, (1, 2, 0, 4))], "source '1': box [1, 2, 0, 4] has no area"),
        ([coco_result(1, category_id=0)], "entry 1: category_id 0, but COCO counts from 1"),
        ({"images": []}, "has images, but no list 'categories'"),
        ({"images": [], "categories": [{"id": 1}]}, "categories 1 has no 'name'"),
        (
            {
                "images": [{"id": [1], "file_name": "a.jpg"}],
                "categories": [{"id": 1, "name": "person"}],
                "annotations": [{"image_id": 9, "category_id": 1, "bbox": [1, 2, 3, 4]}],
            },
            "annotation 1: image_id 9 is not among its images",
        ),
    ],
)
def test_what_cannot_be_used_is_named(tmp_path, content, message):
    assert re.search(re.escape(message), refused(write(tmp_path, content)).message)


def test_results_without_names_know_only_people(tmp_path):
    error = refused(write(tmp_path, [coco_result(1, category_id=18)]), class_name="dog")
    assert "entry 1 has the class number 18, and results carry no class names" in error.message
    assert error.hint == "leave category_id out, or give an annotation file with categories"


def test_files_that_cannot_be_read_are_named(tmp_path):
    assert "cannot be read: No such file" in refused(tmp_path / "none.json").message
    assert "cannot be read: Is a directory" in refused(tmp_path).message
    (tmp_path / "photo.jpg").write_bytes(b"\xff\xd8\xff\xe0")
    assert "is not UTF-8 text" in refused(tmp_path / "photo.jpg").message
    (tmp_path / "yolo.pt").write_bytes(b"PK\x03\x04\xff\xe0")
    error = refused(tmp_path / "yolo.pt")
    assert error.message == f"boxes file '{tmp_path / 'yolo.pt'}' is a model"
    assert error.hint.startswith("a detector is named with --detector")


def test_five_thousand_photos_are_matched_fast(tmp_path):
    # The boxes of COCO val2017: looking through all of them for each photo would take minutes.
    path = write(tmp_path, [coco_result(number) for number in range(5000)])
    detector = load_boxes_file(path)
    assert isinstance(detector, BoxesFile)
    found = detector([make_frame(f"{number:012}.jpg") for number in range(5000)])
    assert [len(boxes) for boxes in found] == [1] * 5000


def test_a_file_larger_than_the_memory_is_named(tmp_path, monkeypatch):
    def read_endlessly(*_, **__):
        raise MemoryError

    path = write(tmp_path, record("photo.jpg"))
    monkeypatch.setattr(Path, "read_text", read_endlessly)
    assert refused(path).message == f"boxes file '{path}' needs more memory than is free"
