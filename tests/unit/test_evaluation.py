"""Evaluation: making the predictions, COCO's numbers, and those of each person."""

import contextlib
import io
import json
import sys
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from fakes import SpotNetwork, make_spec, photo_with_spots
from hrnet_cli import coco_matches, coco_metrics, geometry, images, oks, person_metrics
from hrnet_cli.coco_matches import average_precision
from hrnet_cli.coco_metrics import STATS
from hrnet_cli.config import ModelSpec
from hrnet_cli.data.coco_results import CocoResults, write_results
from hrnet_cli.data.crowd_index import read_crowd_index
from hrnet_cli.data.people import LabelledPeople
from hrnet_cli.detectors.boxes_file import BoxesFile
from hrnet_cli.errors import ConfigError, ExitCode, InputError, OutputError, UsageError
from hrnet_cli.estimator import PoseEstimator
from hrnet_cli.evaluation import EvalReport, EvalSettings, score, select
from hrnet_cli.measuring import mean_pck
from hrnet_cli.predictions import Predictions, merge, predict, read_boxes
from hrnet_cli.schema import KeypointSchema, load_schema
from hrnet_cli.structures import Boxes

TORSO = KeypointSchema(
    "torso", ("left_shoulder", "right_hip", "neck"), oks_sigmas=(0.05, 0.08, 0.1)
)
NO_INTERVAL = EvalSettings(resamples=0)


def make_people(photo_of, keypoints, *, photos=None, folder=Path(), **fields_given):
    """Return people with boxes of 40x80 around (100, 100), all keypoints labelled."""
    photo_of = np.array(photo_of, np.int64)
    keypoints = np.array(keypoints, np.float64).reshape(-1, len(TORSO), 2)
    count = len(photo_of)
    names = photos or tuple(f"{n}.png" for n in range(int(photo_of.max(initial=-1)) + 1))
    visible = np.array(fields_given.pop("visible", np.full((count, len(TORSO)), 2)), np.uint8)
    boxes = np.array(fields_given.pop("boxes", [[80.0, 60, 40, 80]] * count)).reshape(-1, 4)
    defaults = {
        "name": "tiny",
        "folder": folder,
        "schema": TORSO,
        "photos": names,
        "photo_ids_P": np.arange(len(names)) * 7 + 3,
        "sizes_P2": np.tile([200, 160], (len(names), 1)),
        "photo_of_N": photo_of,
        "ids_N": np.arange(count) + 11,
        "boxes_N4": boxes,
        "areas_N": boxes[:, 2:].prod(axis=1),
        "keypoints_NK2": keypoints * (visible > 0)[..., None],
        "visible_NK": visible,
        "weights_NK": (visible > 0).astype(np.float32),
        "crowd_N": np.zeros(count, bool),
    }
    return LabelledPeople(**(defaults | fields_given))


def make_predictions(people, photo_of, keypoints, scores=None, **fields_given):
    """Return poses in all photos of people, keypoint scores 0.8, NMS areas of 10,000."""
    photo_of = np.array(photo_of, np.int64)
    count, keypoint_count = len(photo_of), len(people.schema)
    defaults = {
        "photos_P": np.arange(len(people.photos)),
        "unreadable": (),
        "photo_of_N": photo_of,
        "keypoints_NK2": np.array(keypoints, np.float32).reshape(-1, keypoint_count, 2),
        "scores_NK": np.full((count, keypoint_count), 0.8, np.float32),
        "boxes_N4": np.tile(np.array([80, 60, 120, 140], np.float32), (count, 1)),
        "box_scores_N": np.ones(count, np.float32) if scores is None else np.array(scores, "f4"),
        "areas_N": np.full(count, 1e4),
        "truth_of_N": np.full(count, -1),
    }
    return Predictions(**(defaults | fields_given))


@pytest.fixture
def spec():
    return replace(make_spec("udp", (64, 64)), schema=TORSO)


@pytest.fixture
def estimator(spec):
    """An ideal network: all keypoints of a person lie on the bright spot in its box."""
    return PoseEstimator(SpotNetwork(spec), spec, batch_size=5)


@pytest.fixture
def spots(tmp_path):
    """Five photos: a spot each in three, none in the fourth, and the fifth file is not there."""
    places = [(60.0, 70.0), (130.5, 90.0), (100.0, 80.25)]
    for n, place in enumerate(places):
        images.write_image(tmp_path / f"{n}.png", photo_with_spots((200, 160), place))
    images.write_image(tmp_path / "3.png", np.zeros((160, 200, 3), np.uint8))
    names = tuple(f"{n}.png" for n in range(5))
    corners = np.array(places) - 30
    return make_people(
        [0, 1, 2],
        np.repeat(places, 3, axis=0),
        boxes=np.concatenate([corners, np.full((3, 2), 60)], axis=1),
        photos=names,
        folder=tmp_path,
    )


def boxes_of(people):
    """Return the labelled boxes by photo id, score 0.9."""
    xyxy = geometry.xywh_to_xyxy(people.boxes_N4)
    ids = people.photo_ids_P[people.photo_of_N]
    return {i: Boxes(box[None], [0.9]) for i, box in zip(ids.tolist(), xyxy, strict=True)}


# Predictions


def test_an_ideal_network_in_labelled_boxes_is_right_everywhere(estimator, spots):
    # The fifth photo has no people: it is not missed.
    found = predict(estimator, spots)
    assert found.truth_of_N.tolist() == [0, 1, 2]
    # 0.2 pixels is what the heatmaps of 16x16 for crops of 75 pixels lose.
    np.testing.assert_allclose(found.keypoints_NK2, spots.keypoints_NK2, atol=0.2)
    column = score(spots, found, NO_INTERVAL)
    assert column.stats["AP"] == pytest.approx(1)
    assert found.seconds > 0
    assert column.ms_per_person == pytest.approx(1000 * found.seconds / 3)


def test_nms_takes_the_area_of_the_padded_box(estimator, spots):
    found = predict(estimator, spots)
    # The official code takes a pixel off labelled boxes: 59; the crop is 1.25 times as wide.
    np.testing.assert_allclose(found.areas_N, (59 * 1.25) ** 2, rtol=1e-6)


def test_people_of_no_use_are_not_estimated(estimator, spots):
    people = replace(spots, crowd_N=np.array([False, True, False]))
    assert predict(estimator, people).truth_of_N.tolist() == [0, 2]


def test_boxes_by_photo_id(estimator, spots):
    boxes = boxes_of(spots)
    del boxes[int(spots.photo_ids_P[1])]
    found = predict(estimator, spots, boxes)
    assert found.photo_of_N.tolist() == [0, 2]
    assert found.photos_P.tolist() == [0, 1, 2, 3, 4]
    assert found.truth_of_N.tolist() == [-1, -1]
    np.testing.assert_allclose(found.box_scores_N, 0.9)
    column = score(spots, found, NO_INTERVAL)
    assert column.stats["AR"] == pytest.approx(2 / 3)
    assert column.people.pose_C.tolist() == [0, -1, 1]


class Detector:
    """Finds the labelled boxes in the pictures of `spots`, and refuses the second."""

    name = "fake"

    def __init__(self, people):
        self.boxes = boxes_of(people)
        self.people = people

    def __call__(self, frames):
        return [self._boxes(frame) for frame in frames]

    def _boxes(self, frame):
        assert frame.source == str(self.people.folder / frame.name)
        if frame.name == "1.png":
            raise InputError("no boxes for 1.png")
        index = self.people.photos.index(frame.name)
        return self.boxes.get(int(self.people.photo_ids_P[index]), Boxes.empty())


def test_photos_and_boxes_that_cannot_be_used_are_told_and_count_as_missed(estimator, spots):
    problems = {}
    found = predict(estimator, spots, Detector(spots), on_problem=problems.__setitem__)
    assert set(problems) == {"1.png", "4.png"}
    assert "cannot be opened" in problems["4.png"].message
    assert set(found.unreadable) == {"1.png", "4.png"}
    assert found.photo_of_N.tolist() == [0, 2]
    column = score(spots, found, NO_INTERVAL, boxes="fake")
    assert column.stats["AR"] == pytest.approx(2 / 3)
    assert set(column.to_json()["unreadable"]) == {"1.png", "4.png"}


def test_without_a_listener_the_first_problem_stops(estimator, spots):
    with pytest.raises(InputError, match=r"4\.png.*cannot be opened"):
        predict(estimator, spots, Detector(spots), photos=[0, 4])


def test_shares_put_together_equal_the_whole(estimator, spots, monkeypatch):
    monkeypatch.setattr("hrnet_cli.predictions.CHUNK_PHOTOS", 2)
    whole = predict(estimator, spots)
    # Samplers pad the last share with photos that others have too.
    shares = [predict(estimator, spots, photos=share) for share in ([3, 1], [4, 0, 1], [2, 3])]
    merged = merge(shares)
    for field in fields(Predictions):
        if field.name != "seconds":
            np.testing.assert_array_equal(getattr(merged, field.name), getattr(whole, field.name))
    assert merge(shares[::-1]).photos_P.tolist() == [0, 1, 2, 3, 4]
    assert score(spots, merged).to_json()["AP"] == score(spots, whole).to_json()["AP"]


def test_only_the_photos_looked_at_count(estimator, spots):
    found = predict(estimator, spots, {}, photos=[2, 3])
    column = score(spots, found, NO_INTERVAL)
    assert column.to_json()["photos"] == 2
    assert column.people.person_C.tolist() == [2]


def test_progress_reaches_the_number_of_photos(estimator, spots, monkeypatch):
    monkeypatch.setattr("hrnet_cli.predictions.CHUNK_PHOTOS", 2)
    steps = []
    predict(estimator, spots, on_progress=lambda done, total: steps.append((done, total)))
    # The two photos without people are done before the first is read.
    assert steps == [(4, 5), (5, 5)]


def test_exif_orientation_is_not_applied(estimator, spots):
    pixels = images.read_image(spots.folder / "0.png")[0]
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(pixels).save(spots.folder / "turned.jpg", quality=95, exif=exif)
    people = replace(spots, photos=("turned.jpg", *spots.photos[1:]))
    found = predict(estimator, people, photos=[0])
    np.testing.assert_allclose(found.keypoints_NK2, people.keypoints_NK2[:1], atol=0.3)


def test_no_photos_and_no_boxes(estimator, spots):
    for found in (predict(estimator, spots, photos=[]), predict(estimator, spots, {})):
        assert found.keypoints_NK2.shape == (0, 3, 2)
        assert len(found) == 0
    column = score(spots, predict(estimator, spots, photos=[]))
    assert column.stats == dict.fromkeys(STATS)
    assert column.ms_per_person is None


def test_a_network_that_gives_no_numbers_is_wrong(estimator, spots, monkeypatch):
    # pycocotools takes a distance that is no number for a match: AP would be 1.
    def no_numbers(crops):
        return np.full((len(crops), 3, 16, 16), np.nan, np.float32)

    monkeypatch.setattr(estimator, "runtime", no_numbers)
    found = predict(estimator, spots)
    assert np.isfinite(found.keypoints_NK2).all()
    assert np.isfinite(found.scores_NK).all()
    assert score(spots, found).stats["AP"] == 0


def test_other_keypoints_are_refused(spots, estimator):
    other = replace(TORSO, keypoints=("left_shoulder", "right_knee", "neck"), name="knee")
    people = replace(spots, schema=other)
    with pytest.raises(
        ConfigError, match="keypoint 2 'right_hip', expected 'right_knee'"
    ) as raised:
        predict(estimator, people)
    assert "fine-tune" in raised.value.hint
    spec = ModelSpec("two", 4, (64, 64), "udp", KeypointSchema("two", ("a", "b")))
    two = PoseEstimator(SpotNetwork(spec), spec)
    with pytest.raises(ConfigError, match=r"2 keypoints \('two'\), expected 3 .*'tiny'") as raised:
        predict(two, spots)
    assert raised.value.exit_code == ExitCode.CONFIG


def test_coco_detections_are_found_by_photo_id(spots, tmp_path, estimator):
    ids = spots.photo_ids_P.tolist()
    rows = [
        {"image_id": ids[1], "category_id": 1, "bbox": [100, 60, 60, 60], "score": 0.7},
        {"image_id": ids[1], "category_id": 2, "bbox": [0, 0, 9, 9], "score": 0.9},
        {"image_id": 999, "category_id": 1, "bbox": [0, 0, 9, 9], "score": 0.9},
        {"image_id": ids[1], "category_id": 1, "bbox": [0, 0, 5, 5], "score": 0.0},
    ]
    path = tmp_path / "detections.json"
    path.write_text(json.dumps(rows))
    found = predict(estimator, spots, read_boxes(path, spots))
    assert found.photo_of_N.tolist() == [1, 1]
    np.testing.assert_allclose(found.box_scores_N, [0.7, 0])
    path.write_text(json.dumps([rows[2]]))
    with pytest.raises(InputError, match=r"image_id 999 .*none for a photo of 'tiny', such as 3"):
        read_boxes(path, spots)


def test_coco_detections_carry_the_numbers_of_the_data_set(spots, tmp_path):
    photo = spots.photo_ids_P.tolist()[0]
    rows = [
        {"image_id": photo, "category_id": n, "bbox": [n + 1, 0, 9, 9], "score": 0.9}
        for n in range(4)
    ]
    path = tmp_path / "detections.json"
    warnings = []

    def lefts(categories, class_name="person", some=rows):
        path.write_text(json.dumps(some))
        people = replace(spots, categories=categories)
        found = read_boxes(path, people, class_name, on_warning=warnings.append)
        return [left for boxes in found.values() for left in boxes.xyxy_N4[:, 0].tolist()]

    assert lefts({2: "robot"}, some=rows[1:]) == [3]
    assert lefts({0: "robot", 3: "drone"}) == [1, 4]
    assert lefts({0: "robot", 3: "drone"}, "Drone") == [4]
    assert lefts({2: "person", 3: "drone"}, some=rows[1:]) == [3]
    assert lefts({}, some=rows[1:]) == [2]
    with pytest.raises(InputError, match="the data set has no class 'dog'; it knows robot"):
        lefts({2: "robot"}, "dog")
    with pytest.raises(InputError, match="category_id 0, but COCO counts from 1; 2 is robot"):
        lefts({2: "robot"})
    with pytest.raises(InputError, match=r"id 1, 3, but the data set has 2 \(robot\)") as no:
        lefts({2: "robot"}, some=[rows[3], rows[1]])
    assert no.value.hint == "write the data set's number, or leave category_id out"
    assert warnings == []
    assert lefts({2: "robot"}, some=[]) == []
    assert warnings == [
        f"boxes file '{path}' has no box of class 'person': nobody is found with it"
    ]


def test_boxes_by_name(spots, tmp_path, estimator):
    path = tmp_path / "boxes.csv"
    path.write_text("source,x1,y1,x2,y2\n2.png,70,50,130,110\n")
    source = read_boxes(path, spots)
    assert isinstance(source, BoxesFile)
    assert predict(estimator, spots, source, photos=[1, 2]).photo_of_N.tolist() == [2]


def test_predictions_check_their_lengths(spots):
    with pytest.raises(ValueError, match="areas_N: expected 1 people"):
        make_predictions(spots, [0], np.zeros((1, 3, 2)), areas_N=np.zeros(2))


# COCO's numbers


@pytest.fixture(scope="module")
def crowd():
    """Random people with crowds and unlabelled ones; poses near them, many in one photo."""
    rng = np.random.default_rng(5)
    photo_of = np.sort(rng.integers(0, 24, 60))
    boxes = np.concatenate([rng.uniform(0, 100, (60, 2)), rng.uniform(20, 160, (60, 2))], axis=1)
    points = boxes[:, None, :2] + rng.uniform(size=(60, 3, 2)) * boxes[:, None, 2:]
    visible = rng.choice([0, 1, 2], (60, 3), p=[0.35, 0.15, 0.5])
    people = make_people(
        photo_of,
        np.round(points),
        visible=visible,
        boxes=boxes,
        photos=tuple(f"{n}.png" for n in range(26)),
        photo_ids_P=rng.permutation(1000)[:26],
        areas_N=boxes[:, 2:].prod(axis=1) * rng.uniform(0.3, 0.7, 60),
        crowd_N=rng.uniform(size=60) < 0.15,
    )
    own = np.repeat(np.arange(60), 3)
    spread = rng.choice([1.0, 4.0, 15.0], (180, 1, 1))
    near = points[own] + rng.normal(size=(180, 3, 2)) * spread
    strangers = rng.uniform(0, 200, (40, 3, 2))
    # 30 of them in one photo, where 20 count, and some in a photo without people.
    stranger_photo = np.array([2] * 30 + [25] * 10)
    where = np.concatenate([photo_of[own], stranger_photo])
    found = make_predictions(
        people,
        where,
        np.concatenate([near, strangers]),
        scores=np.round(rng.uniform(size=220), 2),
        scores_NK=rng.uniform(size=(220, 3)).astype(np.float32),
    )
    return people, found.pick(np.argsort(where, kind="stable"))


def annotation_document(people):
    """Return the labels as a COCO annotation file has them."""
    annotations = [
        {
            "id": int(people.ids_N[n]),
            "image_id": int(people.photo_ids_P[people.photo_of_N[n]]),
            "category_id": 1,
            "bbox": people.boxes_N4[n].tolist(),
            "area": float(people.areas_N[n]),
            "iscrowd": int(people.crowd_N[n]),
            "num_keypoints": int((people.visible_NK[n] > 0).sum()),
            "keypoints": np.concatenate(
                [people.keypoints_NK2[n], people.visible_NK[n, :, None]], axis=1
            )
            .ravel()
            .tolist(),
        }
        for n in range(len(people))
    ]
    images_listed = [{"id": photo_id} for photo_id in people.photo_ids_P.tolist()]
    categories = [{"id": 1, "name": "person"}]
    return {"images": images_listed, "annotations": annotations, "categories": categories}


def file_numbers(people, results_file, tmp_path):
    """Return pycocotools' ten numbers from an annotation file and a results file."""
    path = tmp_path / "annotations.json"
    path.write_text(json.dumps(annotation_document(people)))
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO(str(path))
        evaluation = COCOeval(truth, truth.loadRes(str(results_file)), "keypoints")
        evaluation.params.kpt_oks_sigmas = np.array(people.schema.oks_sigmas)
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return evaluation.stats


@pytest.mark.parametrize("evaluator", coco_metrics.EVALUATORS)
def test_the_numbers_are_those_of_the_files(crowd, tmp_path, capsys, evaluator):
    people, found = crowd
    column = score(people, found, EvalSettings(evaluator=evaluator))
    assert capsys.readouterr().out == ""
    write_results(tmp_path / "results.json", column.results)
    theirs = file_numbers(people, tmp_path / "results.json", tmp_path)
    assert 0.05 < theirs[0] < 0.95
    # Coordinates in the file are float32 in their shortest form: relative 1e-7.
    np.testing.assert_allclose([column.stats[name] for name in STATS], theirs, atol=1e-9)
    assert average_precision(column.numbers.matches, np.ones(26)) == pytest.approx(
        column.stats["AP"], abs=1e-12
    )
    assert column.numbers.precision_TR.mean() == pytest.approx(column.stats["AP"])


def test_both_evaluators_give_the_same_matches(crowd):
    people, found = crowd
    ours, theirs = (
        score(people, found, EvalSettings(evaluator=name)).numbers.matches
        for name in coco_metrics.EVALUATORS
    )
    for field in fields(ours):
        np.testing.assert_array_equal(getattr(ours, field.name), getattr(theirs, field.name))


def test_a_photo_that_counts_twice_is_like_two_photos(crowd):
    people, found = crowd
    once = score(people, found, EvalSettings(resamples=1))
    photos = len(people.photos)
    again = 4
    copies = people.pick(people.photo_of_N == again)
    doubled = replace(
        people,
        photos=(*people.photos, "copy.png"),
        photo_ids_P=np.append(people.photo_ids_P, 5000),
        sizes_P2=np.append(people.sizes_P2, [[200, 160]], axis=0),
        **{
            field.name: np.concatenate([getattr(people, field.name), getattr(copies, field.name)])
            for field in fields(people)
            if "_N" in field.name
        },
    )
    doubled.photo_of_N[len(people) :] = photos
    doubled.ids_N[len(people) :] += 1000
    copied = found.pick(found.photo_of_N == again)
    copied = replace(
        copied, photos_P=np.array([photos]), photo_of_N=np.full(len(copied), photos, np.int64)
    )
    twice = score(doubled, merge([found, copied]), NO_INTERVAL)
    times = np.ones(photos)
    times[again] = 2
    weighted = average_precision(once.numbers.matches, times)
    assert weighted != pytest.approx(once.stats["AP"])
    assert weighted == pytest.approx(twice.stats["AP"], abs=1e-12)


def test_interval(crowd):
    people, found = crowd
    matches = score(people, found).numbers.matches
    lower, upper = coco_matches.ap_interval(matches, 300, seed=1)
    ap = average_precision(matches, np.ones(26))
    assert 0 < lower < ap < upper < 1
    assert coco_matches.ap_interval(matches, 300, seed=1) == (lower, upper)
    assert coco_matches.ap_interval(matches, 300, seed=2) != (lower, upper)
    narrow = coco_matches.ap_interval(matches, 300, seed=1, level=0.5)
    assert lower < narrow[0] < narrow[1] < upper


def test_no_interval_without_draws_or_of_one_photo(crowd):
    people, found = crowd
    assert score(people, found, NO_INTERVAL).AP_interval is None
    assert score(people, found, NO_INTERVAL).numbers.matches is None
    one = make_people([0], np.full((1, 3, 2), 100.0))
    column = score(one, make_predictions(one, [0], np.full((1, 3, 2), 100.0)))
    assert (column.stats["AP"], column.AP_interval) == (pytest.approx(1), None)


def test_what_there_is_nothing_of_is_none_with_a_reason():
    boxes = [[50.0, 50, 20, 30]]  # 600 square pixels: small, which no number of COCO's is about
    people = make_people([0], np.full((1, 3, 2), 60.0), boxes=boxes)
    column = score(people, make_predictions(people, [0], np.full((1, 3, 2), 60.0)))
    assert column.stats["AP"] == pytest.approx(1)
    assert {name for name, value in column.stats.items() if value is None} == set(column.missing)
    assert set(column.missing) == {"APM", "APL", "ARM", "ARL"}
    assert "medium area, 32² to 96² pixels" in column.missing["APM"]
    assert "large area" in column.missing["ARL"]
    assert column.to_json()["APM"] is None


def test_without_labelled_people_there_is_no_number():
    people = make_people([0], np.zeros((1, 3, 2)), visible=np.zeros((1, 3)))
    column = score(people, make_predictions(people, [0], np.full((1, 3, 2), 60.0)))
    assert column.stats == dict.fromkeys(STATS)
    assert "no labelled person with keypoints" in column.missing["AP"]
    assert column.AP_interval is None
    nothing = dict.fromkeys(("oks", "pck", "mean_px", "median_px", "p95_px", "nme"))
    assert column.to_json()["keypoints"][0] == {"name": "left_shoulder", "labels": 0} | nothing


def test_finding_nobody_is_zero():
    people = make_people([0, 1], np.full((2, 3, 2), 100.0))
    column = score(people, make_predictions(people, [], np.zeros((0, 3, 2))))
    assert (column.stats["AP"], column.stats["AR"]) == (0, 0)
    assert column.to_json()["people_without_pose"] == 2
    assert column.ms_per_person is None


def test_areas_of_boxes_instead_of_labels(crowd):
    people, found = crowd
    by_label, by_box = (
        score(people, found, replace(NO_INTERVAL, label_areas=flag)).stats["AP"]
        for flag in (True, False)
    )
    areas = 0.53 * people.boxes_N4[:, 2] * people.boxes_N4[:, 3]
    assert by_box == score(replace(people, areas_N=areas), found, NO_INTERVAL).stats["AP"]
    assert by_box != by_label


def test_crowd_levels():
    # One photo of each level, right, right and wrong; 0.2 is medium and 0.8 hard already.
    people = make_people([0, 1, 2], np.full((3, 3, 2), 100.0))
    poses = np.full((3, 3, 2), 100.0)
    poses[2] += 90
    found = make_predictions(people, [0, 1, 2], poses)
    column = score(people, found, NO_INTERVAL, crowd_index_P=[0.19, 0.2, 0.8])
    levels = [column.stats[f"AP{level}"] for level in ("easy", "medium", "hard")]
    assert levels == [pytest.approx(1), pytest.approx(1), 0]
    nobody_easy = score(people, found, NO_INTERVAL, crowd_index_P=[0.5, 0.2, 0.8])
    assert nobody_easy.stats["APeasy"] is None
    assert nobody_easy.missing["APeasy"] == "no labelled person in easy photos"


def test_crowd_index_is_read(tmp_path):
    people = make_people([0, 1], np.full((2, 3, 2), 100.0))
    path = tmp_path / "crowd.json"
    listed = [{"id": 10, "crowdIndex": 0.5}, {"id": 3, "crowdIndex": 0.25}]
    path.write_text(json.dumps({"images": listed}))
    np.testing.assert_array_equal(read_crowd_index(path, people), [0.25, 0.5])
    path.write_text(json.dumps({"images": [{"id": 3}, {"id": 10}]}))
    assert read_crowd_index(path, people) is None
    path.write_text(json.dumps({"images": listed[:1]}))
    with pytest.raises(InputError, match="no crowdIndex for photo 3"):
        read_crowd_index(path, people)
    path.write_text("[")
    with pytest.raises(InputError, match=r"no crowd index can be read from .*crowd\.json"):
        read_crowd_index(path, people)


def test_faster_without_its_package_says_how_to_get_it(crowd, monkeypatch):
    monkeypatch.setitem(sys.modules, "faster_coco_eval", None)
    with pytest.raises(UsageError, match="needs the package faster-coco-eval") as raised:
        score(*crowd, EvalSettings(evaluator="faster"))
    assert "pip install 'hrnet-cli[faster]'" in raised.value.hint
    assert raised.value.exit_code == ExitCode.USAGE


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"nms": "medium"}, "nms is 'medium', expected one of hard, soft, none"),
        ({"oks_threshold": 1.5}, "oks_threshold is 1.5, expected 0 to 1"),
        ({"resamples": -1}, "resamples is -1, expected 0 or more"),
        ({"evaluator": "slow"}, "evaluator is 'slow', expected one of pycocotools, faster"),
    ],
)
def test_settings_are_checked(given, message):
    people = make_people([0], np.full((1, 3, 2), 100.0))
    with pytest.raises(UsageError, match=message):
        score(people, make_predictions(people, [0], people.keypoints_NK2), EvalSettings(**given))


# Rescoring and NMS


def test_select_rescores_and_drops_the_worse_of_two_alike():
    people = make_people([0, 1], np.full((2, 3, 2), 100.0))
    poses = np.full((4, 3, 2), 100.0)
    poses[2] += 60
    found = make_predictions(people, [0, 0, 0, 1], poses, [0.5, 0.9, 0.7, 0.4])
    found.scores_NK[1] = [0.1, 0.19, 0.6]  # of these only 0.6 is above 0.2
    kept, scores = select(found, TORSO.oks_sigmas, EvalSettings())
    assert kept.tolist() == [2, 1, 3]
    np.testing.assert_allclose(scores, [0.7 * 0.8, 0.9 * 0.6, 0.4 * 0.8], rtol=1e-6)
    everybody, _ = select(found, TORSO.oks_sigmas, EvalSettings(nms="none"))
    assert everybody.tolist() == [0, 1, 2, 3]
    softly, _ = select(found, TORSO.oks_sigmas, EvalSettings(nms="soft"))
    assert softly.tolist() == [2, 1, 0, 3]


def test_write_results(tmp_path):
    results = CocoResults(
        np.array([785, 9]),
        np.array([[[1.1, 2]], [[-3.25, 4]]], np.float32),
        np.array([[0.7], [0.5]], np.float32),
        np.array([0.25, 0.125]),
    )
    path = tmp_path / "new" / "results.json"
    write_results(path, results)
    rows = json.loads(path.read_text())
    # With a bbox pycocotools would take the areas from it.
    assert set(rows[0]) == {"image_id", "category_id", "keypoints", "score"}
    assert rows[1] == {
        "image_id": 9,
        "category_id": 1,
        "keypoints": [-3.25, 4, 0.5],
        "score": 0.125,
    }
    assert np.float32(rows[0]["keypoints"][0]) == np.float32(1.1)
    empty = CocoResults(
        np.zeros(0, int), np.zeros((0, 1, 2), "f4"), np.zeros((0, 1), "f4"), np.zeros(0)
    )
    write_results(path, replace(results, category_id=2))
    assert [row["category_id"] for row in json.loads(path.read_text())] == [2, 2]
    write_results(path, empty)
    assert json.loads(path.read_text()) == []
    with pytest.raises(OutputError, match="cannot write"):
        write_results(path / "below-a-file.json", results)


# Each person


def test_keypoint_similarity_is_what_oks_averages():
    rng = np.random.default_rng(0)
    visible = np.array([[2, 1, 0], [2, 2, 2]])
    people = make_people([0, 0], rng.uniform(0, 100, (2, 3, 2)), visible=visible)
    poses = people.keypoints_NK2 + rng.normal(0, 5, (2, 3, 2))
    column = score(
        people, make_predictions(people, [0, 0], poses, truth_of_N=np.arange(2)), NO_INTERVAL
    )
    # `oks_matrix` takes the mean of two areas: that of a person and itself is its own.
    matrix = oks.oks_matrix(
        poses.astype(np.float32),
        people.areas_N,
        people.keypoints_NK2,
        people.areas_N,
        TORSO.oks_sigmas,
        np.broadcast_to(visible > 0, (2, 2, 3)),
    )
    np.testing.assert_allclose(column.people.oks_C, np.diag(matrix), rtol=1e-9)
    similarity = column.people.similarity_CK
    assert np.isnan(similarity[0, 2])
    np.testing.assert_allclose(column.keypoint_oks_K[:2], similarity[:, :2].mean(axis=0))
    assert column.keypoint_oks_K[2] == similarity[1, 2]


def test_labelled_boxes_keep_their_pose_and_others_pair_by_oks():
    # Both people of a photo, each with the pose of the other's place.
    places = np.array([np.full((3, 2), 50.0), np.full((3, 2), 60.0)])
    people = make_people([0, 0], places)
    swapped = make_predictions(people, [0, 0], places[::-1], truth_of_N=np.arange(2))
    assert score(people, swapped, NO_INTERVAL).people.pose_C.tolist() == [0, 1]
    unknown = replace(swapped, truth_of_N=np.full(2, -1))
    column = score(people, unknown, NO_INTERVAL)
    assert column.people.pose_C.tolist() == [1, 0]
    np.testing.assert_allclose(column.people.oks_C, 1)
    assert column.people.worst(1).tolist() == [0]


def test_each_pose_is_taken_once_and_far_ones_never():
    near, far = np.full((3, 2), 50.0), np.full((3, 2), 150.0)
    people = make_people([0, 0, 1], [near, near + 4, near])
    found = make_predictions(people, [0, 1], [near + 1, far])
    scored = score(people, found, NO_INTERVAL).people
    assert scored.pose_C.tolist() == [0, -1, -1]
    assert scored.oks_C[1:].tolist() == [0, 0]
    assert np.isnan(scored.keypoints_CK2[1]).all()
    assert scored.worst(2).tolist() == [1, 2]


def test_poses_dropped_by_nms_are_nobodys():
    people = make_people([0], np.full((1, 3, 2), 50.0))
    alike = [np.full((3, 2), 50.0), np.full((3, 2), 50.5)]
    scored = score(people, make_predictions(people, [0, 0], alike, [0.5, 0.9]), NO_INTERVAL).people
    assert scored.pose_C.tolist() == [1]


def test_pck_of_the_box_feels_half_a_pixel():
    # The longer side is 80: at 0.2 a keypoint is right up to 16 pixels.
    people = make_people([0, 1], np.full((2, 3, 2), 100.0))
    poses = np.full((2, 3, 2), 100.0)
    poses[0, :, 0] += [15.5, 16.5, 0]
    poses[1, 0, 1] += 16.5
    found = make_predictions(people, [0, 1], poses, truth_of_N=np.arange(2))
    column = score(people, found, NO_INTERVAL)
    np.testing.assert_allclose(column.keypoint_pck_K, [0.5, 0.5, 1])
    wider = score(people, found, replace(NO_INTERVAL, pck_threshold=0.21))
    np.testing.assert_allclose(wider.keypoint_pck_K, 1)


def test_pck_of_the_torso():
    # Torsos of 100 pixels; the third person lacks a hip, the fourth has no pose.
    pose = np.array([[50.0, 30], [50, 130], [60, 20]])
    visible = np.full((4, 3), 2)
    visible[2, 1] = 0
    people = make_people([0, 1, 2, 3], np.tile(pose, (4, 1, 1)), visible=visible)
    poses = np.tile(pose, (3, 1, 1))
    poses[0, 2, 0] += 19.5
    poses[1, 2, 0] += 20.5
    poses[2] += 100
    found = make_predictions(people, [0, 1, 2], poses, truth_of_N=np.arange(3))
    scored = score(people, found, NO_INTERVAL).people
    np.testing.assert_allclose(
        person_metrics.span_pck(people, scored, ("left_shoulder", "right_hip"), 0.2),
        [2 / 3, 2 / 3, 1 / 3],
    )
    with pytest.raises(UsageError, match="no keypoint 'left_hip', expected one of left_shoulder"):
        person_metrics.span_pck(people, scored, ("left_shoulder", "left_hip"))
    assert mean_pck(people, scored) == pytest.approx(5 / 9)


def test_the_pck_of_a_training_is_of_the_box_where_nobodys_torso_is_labelled():
    # Boxes of 40x80: within 16 pixels of the larger side, for the two keypoints that are labelled.
    pose = np.array([[50.0, 30], [50, 130], [60, 20]])
    people = make_people([0, 1], np.tile(pose, (2, 1, 1)), visible=[[2, 0, 2]] * 2)
    poses = np.tile(pose, (2, 1, 1))
    poses[0, 2, 0] += 15.5
    poses[1, 2, 0] += 16.5
    found = make_predictions(people, [0, 1], poses, truth_of_N=np.arange(2))
    assert mean_pck(people, score(people, found, NO_INTERVAL).people) == pytest.approx(3 / 4)


def scattered(people):
    """Return poses some pixels off their labels, for all people but the last."""
    off_NK2 = np.random.default_rng(4).normal(0, 9, (len(people) - 1, len(TORSO), 2))
    poses = (people.keypoints_NK2[:-1] + off_NK2).astype(np.float32)
    return make_predictions(people, people.photo_of_N[:-1], poses, truth_of_N=np.arange(len(poses)))


def lacking(count=9):
    """Return people with torsos of 50 to 90 pixels, some labels and two norms missing."""
    span_N = np.linspace(50, 90, count)
    pose = np.zeros((count, 3, 2)) + 100
    pose[:, 1, 1] += span_N
    visible = np.full((count, 3), 2)
    visible[[0, 1, 2], [0, 1, 2]] = 0
    visible[5] = 1
    crowd = np.arange(count) == 4
    return make_people(np.arange(count) // 2, pose, visible=visible, crowd_N=crowd)


@pytest.mark.parametrize("norm", ["box", "torso", "right_hip, left_shoulder"])
def test_errors_in_pixels_are_those_of_a_few_lines_of_numpy(norm):
    people = lacking()
    found = scattered(people)
    column = score(people, found, replace(NO_INTERVAL, norm=norm, pck_threshold=0.15))
    per_keypoint, of_norm = [[], [], []], [[], [], []]
    for n in range(8):
        if n == 4:  # a crowd
            continue
        (x1, y1), (x2, y2) = people.keypoints_NK2[n][:2]
        unit = 80.0 if norm == "box" else np.hypot(x2 - x1, y2 - y1)
        has_unit = norm == "box" or n not in (0, 1)
        for k in range(3):
            if people.visible_NK[n, k]:
                (x, y), (u, v) = people.keypoints_NK2[n, k], found.keypoints_NK2[n, k]
                per_keypoint[k].append(np.sqrt((x - u) ** 2 + (y - v) ** 2))
                of_norm[k] += [per_keypoint[k][-1] / unit] * has_unit
    assert [one.count for one in column.keypoint_errors] == [6, 6, 6]
    for k, one in enumerate(column.keypoint_errors):
        want = np.mean(per_keypoint[k]), np.median(per_keypoint[k])
        assert (one.mean_px, one.median_px) == pytest.approx(want, rel=1e-6)
        ordered = sorted(per_keypoint[k])  # The 95th percentile of six: a quarter below the last.
        assert one.p95_px == pytest.approx(ordered[-1] - (ordered[-1] - ordered[-2]) / 4, rel=1e-6)
        assert one.nme == pytest.approx(np.mean(of_norm[k]), rel=1e-6)
        assert column.keypoint_pck_K[k] == pytest.approx(np.mean(np.array(of_norm[k]) < 0.15))
    assert column.errors.count == 18
    assert column.errors.mean_px == pytest.approx(np.mean(per_keypoint), rel=1e-6)
    assert column.errors.median_px == pytest.approx(np.median(per_keypoint), rel=1e-6)
    assert column.errors.nme == pytest.approx(np.mean(np.concatenate(of_norm)), rel=1e-6)


def test_errors_with_other_boxes_are_those_of_the_people_that_were_met():
    # Two people of one photo: the poses come in the other order, and one is nobody's.
    people = make_people([0, 0], [np.full((3, 2), 50.0), np.full((3, 2), 150.0)])
    poses = [np.full((3, 2), 400.0), np.full((3, 2), 153.0), np.full((3, 2), 51.0)]
    column = score(people, make_predictions(people, [0, 0, 0], poses), NO_INTERVAL)
    assert column.people.pose_C.tolist() == [2, 1]
    assert column.errors.count == 6
    assert column.errors.mean_px == pytest.approx(2 * np.sqrt(2))


def test_errors_of_nobody():
    people = make_people([0], np.full((1, 3, 2), 50.0))
    nobody = make_predictions(people, [], np.zeros((0, 3, 2)))
    for labels in (people, make_people([], [], photos=("0.png",))):
        errors = score(labels, nobody, replace(NO_INTERVAL, norm="torso")).errors
        assert errors.count == 0
        assert np.isnan([errors.mean_px, errors.median_px, errors.p95_px, errors.nme]).all()


def test_norms_of_schemas():
    ends = {
        name: person_metrics.norm_ends(load_schema(name), "head")
        for name in ("mpii16", "crowdpose14", "aic14", "halpe26")
    }
    assert ends == {
        "mpii16": ("head_top", "upper_neck"),
        "crowdpose14": ("top_head", "neck"),
        "aic14": ("head_top", "neck"),
        "halpe26": ("head", "neck"),
    }
    with pytest.raises(UsageError, match="schema 'torso' has no head segment, expected") as raised:
        person_metrics.norm_ends(TORSO, "head")
    assert raised.value.hint == "name two of its keypoints: left_shoulder, right_hip, neck"
    with pytest.raises(UsageError, match="schema 'hand21' has no keypoint 'left_shoulder'"):
        person_metrics.norm_ends(load_schema("hand21"), "torso")
    with pytest.raises(UsageError, match="no keypoint 'nekc'") as raised:
        person_metrics.norm_ends(TORSO, "right_hip,nekc")
    assert raised.value.hint == "did you mean 'neck'? name two of its keypoints"


def test_parts_are_counted_alone():
    # Three keypoints as two parts; the second person has no label in the second part.
    people = make_people([0, 1], np.full((2, 3, 2), 100.0), visible=[[2, 2, 2], [2, 2, 0]])
    poses = np.full((2, 3, 2), 100.0)
    poses[0, 2] += 100  # beside the only label of the second part
    found = make_predictions(people, [0, 1], poses)
    column = score(people, found, NO_INTERVAL)
    first, second = (
        coco_metrics.part_numbers(people, found.photos_P, column.results, span)
        for span in ((0, 2), (2, 3))
    )
    assert (first["AP"], first["AR"]) == (1, 1)
    assert (second["AP"], second["AR"]) == (0, 0)
    right = replace(column.results, keypoints_MK2=np.full((2, 3, 2), 100, np.float32))
    # The pose of the second person is no false alarm in a part that is not labelled there.
    assert coco_metrics.part_numbers(people, found.photos_P, right, (2, 3))["AP"] == pytest.approx(
        1
    )


def test_hand_numbers():
    people = make_people([0, 1], np.full((2, 3, 2), 100.0))
    poses = np.full((1, 3, 2), 100.0)
    poses[0, :, 0] += [0, 6, 18]  # of 16 that are right
    found = make_predictions(people, [0], poses, truth_of_N=np.arange(1))
    numbers = person_metrics.hand_numbers(people, score(people, found, NO_INTERVAL).people)
    assert numbers["PCK"] == pytest.approx(2 / 3)
    # Of 20 steps of 1.5 pixels from 0: distance 0 is below 19 of them, 6 below 15, 18 below 7.
    assert numbers["AUC"] == pytest.approx((19 + 15 + 7) / 3 / 20)
    nobody = make_predictions(people, [], np.zeros((0, 3, 2)))
    empty = person_metrics.hand_numbers(people, score(people, nobody, NO_INTERVAL).people)
    assert empty == {"PCK": None, "AUC": None}


def test_mpii_pckh_counts_the_missed():
    # Head boxes of 30x40 have a head size of 30 pixels; at 0.5 up to 15 are right.
    people = make_people([0, 1], np.full((2, 3, 2), 100.0))
    poses = np.full((1, 3, 2), 100.0)
    poses[0, :, 0] += [15, 15.5, 0]
    found = make_predictions(people, [0], poses, truth_of_N=np.arange(1))
    scored = score(people, found, NO_INTERVAL).people
    heads = [[0, 0, 30, 40]] * 2
    np.testing.assert_allclose(person_metrics.mpii_pckh(people, scored, heads), [0.5, 0, 0.5])


def test_report_as_json(crowd):
    people, found = crowd
    gt = score(people, found, EvalSettings(resamples=20), published_ap=0.75)
    other = score(people, found, NO_INTERVAL, boxes="yolo")
    report = EvalReport("small", "tiny", (gt, other), EvalSettings(resamples=20), flip_test=False)
    document = json.loads(json.dumps(report.to_json(), allow_nan=False))
    assert document["schema"] == "hrnet-eval/1"
    assert (document["model"], document["dataset"]) == ("small", "tiny")
    assert document["settings"]["flip_test"] is False
    assert document["settings"]["oks_threshold"] == 0.9
    first, second = document["columns"]
    assert list(first)[:3] == ["boxes", "AP", "AP_interval"]
    assert set(STATS) < set(first)
    assert (first["boxes"], first["published_AP"]) == ("gt", 0.75)
    assert first["AP_interval"][0] < first["AP"] < first["AP_interval"][1]
    assert (second["boxes"], second["AP_interval"], second["published_AP"]) == ("yolo", None, None)
    assert [k["name"] for k in first["keypoints"]] == list(TORSO.keypoints)
    assert first["poses"] == 220
    assert first["poses_after_nms"] == len(gt.kept_M) < 220
