"""``hrnet eval``: what it prints, what it writes, and how it ends."""

import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from rich.console import Console
from scipy.io import savemat
from typer.testing import CliRunner

from fakes import SpotNetwork, photo_with_spots
from hrnet_cli import checkpoint, coco_metrics, evaluation, person_metrics, runtimes, weights
from hrnet_cli.cli import app, console, eval_numbers, eval_options
from hrnet_cli.config import ModelSpec
from hrnet_cli.data import fetching
from hrnet_cli.data.opening import LAYOUTS
from hrnet_cli.errors import ExitCode
from hrnet_cli.images import write_image
from hrnet_cli.models.hrnet import HRNet
from hrnet_cli.schema import WHOLE_BODY_PARTS, load_schema

RUNNER = CliRunner()
# Where the one spot of each photo is, and so every keypoint of its person.
SPOTS = ((60, 50), (100, 70), (70, 60))
SIZE_WH = (160, 120)
SIDES_WH = (60, 80)
VAL = "annotations/person_keypoints_val2017.json"


@pytest.fixture(scope="module")
def models(tmp_path_factory) -> dict[str, Path]:
    """A model file for each schema; what they find is decided by `_spots`."""
    folder, paths = tmp_path_factory.mktemp("models"), {}
    for name in ("coco17", "hand21", "mpii16", "crowdpose14", "wholebody133"):
        spec = ModelSpec(f"tiny-{name}", 4, (128, 96), "udp", load_schema(name))
        network = HRNet(spec.width, len(spec.schema))
        paths[name] = folder / f"tiny-{name}.safetensors"
        checkpoint.save_model(
            paths[name], network.state_dict(), spec, provenance="a test", licence="none"
        )
    return paths


@pytest.fixture(autouse=True)
def _spots(monkeypatch):
    """Put an ideal network in the place of each."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    ideal = runtimes.RuntimeKind(lambda _network, spec, _at: SpotNetwork(spec), ("fp32",))
    monkeypatch.setitem(runtimes.RUNTIMES, "torch", ideal)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(autouse=True)
def _own_folder(tmp_path, monkeypatch):
    """Every test starts in an empty folder, with an empty cache."""
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    monkeypatch.setenv("HRNET_HOME", str(tmp_path / "cache"))


@pytest.fixture
def hrnet(models):
    """Run ``hrnet eval`` with the ideal network for a schema."""

    def run(*arguments, code=0, schema="coco17"):
        words = ["eval", *map(str, arguments), "--device", "cpu", "--runtime", "torch"]
        words += [] if "--download" in words else ["--offline"]
        if schema and "--model" not in words:
            words += ["--model", str(models[schema])]
        result = RUNNER.invoke(app, words)
        assert result.exception is None or isinstance(result.exception, SystemExit), result
        assert "Traceback" not in result.output
        assert result.exit_code == code, result.output
        return result

    return run


def write_labels(path: Path, photos: Path, schema="coco17", **more_of) -> Path:
    """Write photos with a spot each, and labels that put one person's keypoints on it."""
    keypoints = load_schema(schema).keypoints
    images, annotations = [], []
    for number, (x, y) in enumerate(SPOTS, start=1):
        write_image(photos / f"{number:012}.png", photo_with_spots(SIZE_WH, (x, y)))
        width, height = SIDES_WH
        images.append({"id": number, "file_name": f"{number:012}.png"})
        images[-1] |= {"width": SIZE_WH[0], "height": SIZE_WH[1]} | more_of.get("image", {})
        annotations.append(
            {
                "id": 10 + number,
                "image_id": number,
                "category_id": 1,
                "iscrowd": 0,
                "bbox": [x - width / 2, y - height / 2, width, height],
                "area": width * height,
                "num_keypoints": len(keypoints),
                "keypoints": [x, y, 2] * len(keypoints),
            }
            | more_of.get("annotation", {})
        )
    categories = [{"id": 1, "name": "person", "keypoints": keypoints, "skeleton": []}]
    document = {"images": images, "annotations": annotations, "categories": categories}
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(document))
    return path


def write_coco(root="data/coco") -> Path:
    return write_labels(Path(root) / VAL, Path(root) / "val2017")


def write_detections(path: str, photos=(1, 2, 3)) -> Path:
    """Write COCO detections of the people on some photos."""
    width, height = SIDES_WH
    boxes = []
    for number in photos:
        x, y = SPOTS[number - 1]
        box = [x - width / 2, y - height / 2, width, height]
        boxes.append({"image_id": number, "category_id": 1, "bbox": box, "score": 0.9})
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Path(path).write_text(json.dumps(boxes))
    return Path(path)


def table(result) -> dict[str, list[str]]:
    """Return the cells of the printed table by the name of the row."""
    rows = [re.split(r"\s{2,}", line.strip()) for line in result.stdout.splitlines()[3:]]
    return {row[0]: row[1:] for row in rows if row[0]}


def data_of(result) -> dict:
    assert result.stdout.count("\n") == 1
    return json.loads(result.stdout)


def test_the_table_is_on_stdout_and_the_files_in_the_folder(hrnet):
    write_coco()
    result = hrnet("--split", "val2017", "--boxes", "gt")
    assert result.stdout.splitlines()[0] == "tiny-coco17 on coco val2017"
    rows = table(result)
    assert rows["AP"] == rows["AR"] == rows["AP50"] == ["1.000"]
    assert rows["95% interval"] == ["1.000 to 1.000"]
    # People of 60x80 pixels are of medium size, and there is no other.
    assert rows["APM"] == ["1.000"]
    assert rows["APL"] == ["-"]
    assert rows["photos"] == rows["labelled people"] == ["3"]
    assert "published" not in result.stdout
    assert "gt: APL: no labelled person has a large area" in result.stderr
    folder = Path("hrnet-out/eval")
    assert f"wrote {folder}/results-gt.json, {folder}/report.html" in result.stderr
    assert sorted(p.name for p in folder.iterdir()) == ["report.html", "results-gt.json"]
    poses = json.loads((folder / "results-gt.json").read_text())
    assert [pose["image_id"] for pose in poses] == [1, 2, 3]
    # The ideal network is exact to a small part of a heatmap pixel.
    np.testing.assert_allclose(np.reshape(poses[0]["keypoints"], (17, 3))[:, :2], 17 * [SPOTS[0]],
                               atol=0.3)  # fmt: skip
    page = (folder / "report.html").read_text()
    assert "tiny-coco17 on coco val2017" in page
    assert "hrnet" in page


def test_json_is_the_only_thing_on_stdout(hrnet):
    write_coco()
    data = data_of(hrnet("--split", "val2017", "--boxes", "gt", "--json"))
    assert data["schema"] == "hrnet-eval/1"
    assert data["model"] == "tiny-coco17"
    assert data["settings"] == {
        "flip_test": True,
        "keypoint_threshold": 0.2,
        "oks_threshold": 0.9,
        "nms": "hard",
        "label_areas": True,
        "evaluator": "pycocotools",
        "resamples": 200,
        "seed": 0,
        "pck_threshold": 0.2,
        "norm": "box",
    }
    column = data["columns"][0]
    assert (column["boxes"], column["source"], column["AP"]) == ("gt", "labels", 1.0)
    assert column["AP_interval"] == [1.0, 1.0]
    assert column["APL"] is None
    assert column["PCK"] == 1.0
    nose = column["keypoints"][0]
    assert (nose["name"], nose["labels"], nose["pck"]) == ("nose", 3, 1.0)
    # The ideal network is exact to a small part of a heatmap pixel; boxes are 80 pixels high.
    for numbers in (nose, {"mean_px": column["EPE_px"], "nme": column["NME"]}):
        assert 0 < numbers["mean_px"] < 0.3
        assert numbers["nme"] == pytest.approx(numbers["mean_px"] / 80)
    assert column["published_AP"] is None
    assert column["published"] is None
    assert data["subset"] is None
    assert data["unusable"] == []
    assert data["written"][-1] == "hrnet-out/eval/report.html"
    assert len(data["model_sha256"]) == 64
    assert data["runtime"] == "fake"
    assert data["precision"] == "fp32"
    page = Path("hrnet-out/eval/report.html").read_text(encoding="utf-8")
    assert "fake, fp32" in page


def test_settings_reach_the_evaluation(hrnet):
    write_coco()
    options = ["--nms", "soft", "--oks-threshold", 0.5, "--keypoint-threshold", 0.3]
    options += ["--no-flip-test", "--resamples", 0, "--seed", 5]
    data = data_of(hrnet("--boxes", "gt", "--json", *options))
    assert data["columns"][0]["AP_interval"] is None
    told = data["settings"]
    assert not told["flip_test"]
    assert (told["nms"], told["oks_threshold"], told["keypoint_threshold"]) == ("soft", 0.5, 0.3)
    assert (told["resamples"], told["seed"]) == (0, 5)


def test_pixels_and_norms_are_printed_and_on_the_page(hrnet):
    path = write_labels(Path("mpii.json"), Path("photos"), "mpii16")
    document = json.loads(path.read_text())
    names = load_schema("mpii16").keypoints
    for annotation in document["annotations"]:
        flat = np.reshape(annotation["keypoints"], (16, 3))
        flat[names.index("upper_neck"), 1] += 20  # 20 pixels from where the network sees all.
        annotation["keypoints"] = flat.ravel().tolist()
    path.write_text(json.dumps(document))
    given = ["--dataset", path, "--data", "photos", "--norm", "head", "--pck", 0.1]
    result = hrnet(*given, "--per-keypoint", schema="mpii16")
    rows = table(result)
    assert float(rows["EPE_median_px"][0]) < 0.3
    assert rows["PCK"] == ["0.938"]  # 15 of 16
    count, *pixels, nme, pck, _oks = rows["upper_neck"]
    assert (count, pck) == ("3", "0.000")
    np.testing.assert_allclose(np.array(pixels, float), 20, atol=0.3)
    assert float(nme) == pytest.approx(1, abs=0.015)
    assert rows["all"][0] == "48"
    told = "keypoints closer than 0.1 of head_top to upper_neck, mean over keypoints"
    assert f"PCK: {told}" in result.stderr
    page = Path("hrnet-out/eval/report.html").read_text()
    assert told in page
    assert f"<td>{nme}</td><td>0.000</td>" in page
    data = data_of(hrnet(*given, "--json", "--overwrite", schema="mpii16"))
    assert (data["settings"]["norm"], data["settings"]["pck_threshold"]) == ("head", 0.1)


def test_a_norm_the_keypoints_do_not_have_is_refused_before_the_model_opens(hrnet):
    write_coco()
    result = hrnet("--boxes", "gt", "--norm", "left_eye,rigth_eye", code=2)
    assert "schema 'coco17' has no keypoint 'rigth_eye', expected one of nose" in result.stderr
    assert "hint: did you mean 'right_eye'?" in result.stderr
    assert "model tiny" not in result.stderr
    assert not Path("hrnet-out").exists()


def test_sources_of_boxes_stand_side_by_side(hrnet):
    write_coco()
    all_three = write_detections("a/boxes.json")
    one = write_detections("b/boxes.json", photos=[2])
    boxes = ["--boxes", f"gt,{one}", "--boxes", all_three, "--boxes", "gt"]
    data = data_of(hrnet("--split", "val2017", *boxes, "--json"))
    columns = data["columns"]
    assert [column["boxes"] for column in columns] == ["gt", "boxes", "boxes-2"]
    assert [column["source"] for column in columns] == ["labels", str(one), str(all_three)]
    assert [column["poses"] for column in columns] == [3, 1, 3]
    assert [column["people_without_pose"] for column in columns] == [0, 2, 0]
    # One of three people at full precision: of 101 levels of recall 34 reach a third.
    assert [column["AP"] for column in columns] == pytest.approx([1, 34 / 101, 1])
    for column, ids in zip(columns, ([1, 2, 3], [2], [1, 2, 3]), strict=True):
        path = Path(f"hrnet-out/eval/results-{column['boxes']}.json")
        assert [pose["image_id"] for pose in json.loads(path.read_text())] == ids


def test_a_comma_in_the_name_of_a_file_of_boxes(hrnet):
    write_coco()
    boxes = write_detections("one, two.json")
    data = data_of(hrnet("--boxes", boxes, "--json"))
    assert [column["boxes"] for column in data["columns"]] == ["one-two"]


def test_the_detector_stands_in_a_column_of_its_own(hrnet):
    write_coco()
    result = hrnet("--split", "val2017", "--detector", "whole-image")
    assert "detector whole-image" in result.stdout.splitlines()[1]
    rows = table(result)
    assert len(rows["AP"]) == 2
    assert rows["poses after NMS"] == ["3", "3"]
    assert Path("hrnet-out/eval/results-detector.json").is_file()


def test_without_the_default_detector_the_labels_stand_alone(hrnet):
    write_coco()
    result = hrnet("--split", "val2017")
    assert "warning: no column with boxes of a detector: " in result.stderr
    assert "yolo26s" in result.stderr
    assert "'yolo26s', is missing and --offline forbids downloading it" in result.stderr
    assert table(result)["AP"] == ["1.000"]
    data = data_of(hrnet("--split", "val2017", "--json", "--overwrite"))
    assert "yolo26s" in data["left_out"]["detector"]


@pytest.mark.parametrize(
    "asked", [["--boxes", "gt,detector"], ["--detector", "yolo26s"], ["--boxes", "detector"]]
)
def test_a_detector_that_was_asked_for_must_be_there(hrnet, asked):
    write_coco()
    result = hrnet(*asked, code=ExitCode.WEIGHTS)
    assert "the file of 'yolo26s', is missing" in result.stderr
    assert "hint: bring boxes of your own with --boxes FILE" in result.stderr
    assert not Path("hrnet-out").exists()


def test_the_starter_stands_in_for_the_default_model(hrnet):
    write_coco()
    result = hrnet("--boxes", "gt", schema=None)
    assert "using the 'starter' model, which is far less accurate" in result.stderr
    assert result.stdout.startswith("starter on coco val2017\n")
    result = hrnet("--boxes", "gt", "--model", "hrnet-w48", "--out", "b", code=ExitCode.WEIGHTS)
    assert "--offline forbids downloading it" in result.stderr


def test_a_missing_data_set_is_one_line_with_the_command(hrnet):
    result = hrnet("--split", "val2017", code=ExitCode.INPUT)
    first, second = result.stderr.splitlines()
    assert first == f"error: coco val2017 is not in 'data/coco': 'data/coco/{VAL}' is missing"
    assert second.startswith("hint: ")
    assert "`hrnet eval --download`" in second


def test_existing_output_stays_unless_asked(hrnet):
    write_coco()
    hrnet("--boxes", "gt")
    before = Path("hrnet-out/eval/results-gt.json").read_bytes()
    result = hrnet("--boxes", "gt,detector", code=ExitCode.OUTPUT)
    assert "'hrnet-out/eval/results-gt.json' and 1 more would be overwritten" in result.stderr
    assert "add --overwrite to replace, or name another folder with --out" in result.stderr
    hrnet("--boxes", "gt", "--photos", "1", "--overwrite")
    assert Path("hrnet-out/eval/results-gt.json").read_bytes() != before
    Path("taken").write_text("")
    result = hrnet("--boxes", "gt", "--out", "taken", code=ExitCode.OUTPUT)
    assert "error: cannot make the folder 'taken'" in result.stderr
    assert "hint: name another one with --out" in result.stderr


@pytest.mark.parametrize(
    ("words", "code", "message", "hint"),
    [
        (["--nms", "sotf"], 2, "--nms is 'sotf', expected one of hard, soft, none", "'soft'?"),
        (["--evaluator", "fast"], 2, "--evaluator is 'fast', expected one of pycocotools, faster",
         "did you mean 'faster'?"),
        (["--boxes", ","], 2, "--boxes is empty, expected gt, detector or a file of boxes", ""),
        (["--boxes", "gt", "--detector", "yolo11n"], 2,
         "--detector is given, but --boxes asks for no detector", "--boxes gt,detector"),
        (["--boxes", "gt,nowhere.json"], 3, "--boxes names 'nowhere.json', which is no file",
         "paths start from the current folder"),
        (["--input", "100x100"], 2, "--input is '100x100', expected HEIGHTxWIDTH", ""),
        (["--download", "--offline"], 2, "--download and --offline contradict each other", ""),
        (["--download", "--split", "train2017"], 2,
         "--download fetches val2017 of coco only, not 'train2017' of 'coco'", "bring the data"),
        (["--download", "--dataset", "my.json"], 2,
         "--download fetches val2017 of coco only, not 'val' of 'my.json'", "bring the data"),
        (["--dataset", "cocoo"], 3, "data set 'cocoo' is not known; expected coco,", ""),
        (["--model", "hrnet-w23"], 4, "no weights are called 'hrnet-w23'", "hrnet-w32"),
        (["--detector", "yolo99"], 4, "no weights are called 'yolo99'", "yolo"),
        (["--detector", "hrnet-w32"], 4, "is a pose model, expected a detector", "whole-image"),
        (["--norm", "bos"], 2, "--norm is 'bos', expected box, torso, head or two keypoints as"
         " NAME,NAME", "did you mean 'box'?"),
        (["--norm", "nose,"], 2, "--norm is 'nose,', expected", "such as left_eye,right_eye"),
        (["--pck", "0"], 2, "--pck is 0, expected a number above 0", "such as 0.1"),
        (["--pck", "nan"], 2, "--pck is nan, expected a number above 0", ""),
        (["--resamples", "-1"], 2, "resamples", ""),
        (["--photos", "0"], 2, "photos", ""),
    ],
)  # fmt: skip
def test_what_cannot_be_is_said_at_once(hrnet, words, code, message, hint):
    write_coco()
    result = hrnet(*words, code=code)
    assert message in result.stderr
    assert hint in result.stderr
    assert result.stdout == ""
    assert not Path("hrnet-out").exists()


def test_an_evaluator_that_is_not_installed(hrnet, monkeypatch):
    monkeypatch.setattr(eval_options, "find_spec", lambda _name: None)
    result = hrnet("--evaluator", "faster", code=ExitCode.USAGE)
    assert "--evaluator faster needs the package faster-coco-eval" in result.stderr
    assert "pip install 'hrnet-cli[faster]'" in result.stderr


def test_the_faster_evaluator_says_the_same(hrnet):
    pytest.importorskip("faster_coco_eval")
    write_coco()
    boxes = ["--boxes", write_detections("boxes.json", photos=[1, 3]), "--json", "--overwrite"]
    slow = data_of(hrnet(*boxes))["columns"][0]
    fast = data_of(hrnet(*boxes, "--evaluator", "faster"))["columns"][0]
    for name in coco_metrics.STATS:
        assert fast[name] == pytest.approx(slow[name], abs=1e-6)
    assert fast["AP_interval"] == pytest.approx(slow["AP_interval"], abs=1e-6)


def test_the_data_set_numbers_its_category(hrnet):
    labels = write_coco()
    boxes = write_detections("boxes.json")
    for file in (labels, boxes):
        file.write_text(file.read_text().replace('"category_id": 1', '"category_id": 2'))
    labels.write_text(labels.read_text().replace('[{"id": 1, "name"', '[{"id": 2, "name"'))
    assert table(hrnet("--boxes", f"gt,{boxes}"))["AP"] == ["1.000", "1.000"]
    for name in ("gt", "boxes"):
        results = json.loads(Path(f"hrnet-out/eval/results-{name}.json").read_text())
        assert [pose["category_id"] for pose in results] == [2, 2, 2]
    boxes.write_text("[]")
    result = hrnet("--boxes", boxes, "--overwrite")
    assert "warning: boxes file 'boxes.json' has no box of class 'person'" in result.stderr


def test_the_first_photos_only_are_called_a_part(hrnet):
    write_coco()
    result = hrnet("--boxes", "gt", "--photos", 2)
    assert result.stdout.startswith("tiny-coco17 on coco val2017, first 2 of 3 photos\n")
    assert "a part of the photos only: 2 of 3" in result.stderr
    assert table(result)["photos"] == ["2"]
    assert "first 2 of 3 photos" in Path("hrnet-out/eval/report.html").read_text()
    data = data_of(hrnet("--boxes", "gt", "--photos", 2, "--json", "--overwrite"))
    assert data["subset"] == {"photos": 2, "of": 3}
    data = data_of(hrnet("--boxes", "gt", "--photos", 9, "--json", "--overwrite"))
    assert data["subset"] is None


def test_a_broken_photo_is_counted_and_ends_with_3(hrnet):
    write_coco()
    Path("data/coco/val2017/000000000002.png").write_bytes(b"no photo")
    boxes = ["--boxes", "gt", "--boxes", write_detections("boxes.json")]
    result = hrnet(*boxes, "--json", code=ExitCode.INPUT)
    # Said once, though both columns needed it.
    assert result.stderr.count("error: ") == 1
    assert "000000000002.png" in result.stderr
    assert "1 photos could not be used: nobody was found there" in result.stderr
    data = data_of(result)
    assert [entry["photo"] for entry in data["unusable"]] == ["000000000002.png"]
    assert [column["people_without_pose"] for column in data["columns"]] == [1, 1]
    assert Path("hrnet-out/eval/report.html").is_file()
    result = hrnet(*boxes, "--strict", "--out", "strict", code=ExitCode.INPUT)
    assert "000000000002.png" in result.stderr
    assert not list(Path("strict").iterdir())


def test_model_and_data_set_must_have_the_same_keypoints(hrnet):
    write_coco()
    result = hrnet("--boxes", "gt", schema="hand21", code=ExitCode.CONFIG)
    assert "model 'tiny-hand21' has 21 keypoints" in result.stderr


def test_the_numbers_are_printed_though_the_page_cannot_be_written(hrnet):
    write_coco()
    Path("out/report.html").mkdir(parents=True)
    result = hrnet("--boxes", "gt", "--out", "out", "--overwrite", code=ExitCode.OUTPUT)
    assert table(result)["AP"] == ["1.000"]
    assert result.stderr.splitlines()[-3].endswith("wrote out/results-gt.json")
    assert "error: cannot write 'out/report.html'" in result.stderr


def test_bars_on_a_terminal(hrnet, monkeypatch):
    err = Console(stderr=True, force_terminal=True, width=100)
    monkeypatch.setattr(console, "err", lambda: err)
    write_coco()
    shown = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", hrnet("--boxes", "gt").stderr)
    assert re.search(r"boxes gt \S+ 3/3 photos", shown)


def test_quiet_says_nothing_but_the_table(hrnet):
    write_coco()
    result = hrnet("--boxes", "gt", "--quiet")
    assert result.stderr == ""
    assert table(result)["AP"] == ["1.000"]


def test_keypoints_of_ones_own_are_told_but_not_those_of_coco(hrnet):
    write_coco()
    assert "flip pairs" not in hrnet("--boxes", "gt").stderr
    path = write_labels(Path("mine.json"), Path("photos"))
    result = hrnet("--dataset", path, "--data", "photos", "--overwrite")
    assert "flip pairs" in result.stderr


def test_published_numbers_stand_beside_such_boxes_only(hrnet, monkeypatch):
    write_coco()
    entry = replace(weights.find_entry("hrnet-w32"), name="tiny-coco17", aliases=())
    monkeypatch.setattr(weights, "identify", lambda _sha256: [entry])
    official = write_detections("COCO_val2017_detections_AP_H_56_person.json")
    result = hrnet("--split", "val2017", "--boxes", f"gt,{official}")
    rows = table(result)
    assert rows["published (detector 56.4 AP, 5000 photos)"] == ["-", "0.760"]
    assert "is not comparable: it counts 5,000 photos, this run 3" in result.stderr
    others = write_detections("others.json")
    data = data_of(hrnet("--boxes", f"gt,{official},{others}", "--json", "--overwrite"))
    assert [column["published_AP"] for column in data["columns"]] == [None, 0.76, None]
    assert [column["published"] is None for column in data["columns"]] == [True, False, True]
    assert data["columns"][1]["published"]["photos"] == 5000
    # Nor do such boxes on other photos.
    elsewhere = ["--dataset", f"data/coco/{VAL}", "--data", "data/coco/val2017"]
    data = data_of(hrnet(*elsewhere, "--boxes", official, "--json", "--overwrite"))
    assert data["columns"][0]["published_AP"] is None
    # Boxes of another origin have no published number beside them, only a line.
    result = hrnet("--boxes", "gt", "--overwrite")
    assert "published (" not in result.stdout
    assert "published for tiny-coco17: 0.760 (AP COCO val2017, detector boxes" in result.stderr
    assert "no column here has such boxes on such photos" in result.stderr


def test_hands_are_counted_as_hands_are(hrnet):
    path = write_labels(Path("hands.json"), Path("photos"), "hand21")
    result = hrnet("--dataset", path, "--data", "photos", schema="hand21")
    # No detector of people without being asked.
    assert "detector" not in result.stdout + result.stderr
    rows = table(result)
    assert rows["PCK_box"] == ["1.000"]
    # The ideal network is exact to a small part of a heatmap pixel.
    assert float(rows["EPE_px"][0]) < 0.3
    assert float(rows["AUC"][0]) > 0.9
    assert "PCK_torso" not in rows
    assert "EPE_px: mean distance in pixels of the photo" in result.stderr


def test_mpii_counts_heads_where_the_labels_have_them(hrnet):
    # 0.6 * the diagonal of 30x40 is 30 pixels: the network is right.
    photos, more = Path("photos"), {"annotation": {"head_box": [10, 10, 40, 50]}}
    path = write_labels(Path("mpii.json"), photos, "mpii16", **more)
    rows = table(hrnet("--dataset", path, "--data", photos, schema="mpii16"))
    assert rows["PCKh50"] == rows["PCKh10"] == ["1.000"]
    bare = write_labels(Path("bare.json"), photos, "mpii16")
    rows = table(hrnet("--dataset", bare, "--data", photos, "--overwrite", schema="mpii16"))
    assert "PCKh50" not in rows
    document = json.loads(path.read_text())
    del document["annotations"][1]["head_box"]
    path.write_text(json.dumps(document))
    result = hrnet("--dataset", path, "--data", photos, "--overwrite", schema="mpii16", code=3)
    assert "has no head_box for annotation 12, but for others" in result.stderr
    document["annotations"][0]["head_box"] = [1, 2, 3]
    path.write_text(json.dumps(document))
    result = hrnet("--dataset", path, "--data", photos, "--overwrite", schema="mpii16", code=3)
    assert "no head boxes can be read from 'mpii.json'" in result.stderr


def test_mpii_in_the_form_of_the_official_code(hrnet):
    root = Path("data/mpii")
    write_labels(Path("unused.json"), root / "images", "mpii16")
    records = [
        {
            "image": f"{number:012}.png",
            "center": [x + 1, y + 1 - 15 * 0.4],
            "scale": 0.4,
            "joints": [[x + 1, y + 1]] * 16,
            "joints_vis": [1] * 16,
        }
        for number, (x, y) in enumerate(SPOTS, start=1)
    ]
    (root / "annot").mkdir()
    (root / "annot/valid.json").write_text(json.dumps(records))
    result = hrnet("--dataset", "mpii", schema="mpii16")
    rows = table(result)
    assert rows["labelled people"] == ["3"]
    assert float(rows["EPE_px"][0]) < 0.3
    assert rows["PCKh50"] == ["-"]
    why = "the head boxes of 'data/mpii/annot/gt_valid.mat' are not there; --norm head"
    assert f"gt: PCKh50: {why}" in result.stderr
    heads = np.zeros((2, 2, 3))
    heads[1] += 30
    savemat(root / "annot/gt_valid.mat", {"headboxes_src": heads})
    rows = table(hrnet("--dataset", "mpii", "--overwrite", schema="mpii16"))
    assert rows["PCKh50"] == ["1.000"]


def test_the_mean_of_mpii_leaves_out_pelvis_and_thorax(hrnet):
    more = {"annotation": {"head_box": [10, 10, 40, 50]}}
    path = write_labels(Path("mpii.json"), Path("photos"), "mpii16", **more)
    document = json.loads(path.read_text())
    names = load_schema("mpii16").keypoints
    for annotation in document["annotations"]:
        flat = np.reshape(annotation["keypoints"], (16, 3))
        # Labels far from where the network sees them; one of them counts.
        for name in ("pelvis", "thorax", names[0]):
            flat[names.index(name), :2] += 40
        annotation["keypoints"] = flat.ravel().tolist()
    path.write_text(json.dumps(document))
    data = data_of(hrnet("--dataset", path, "--data", "photos", "--json", schema="mpii16"))
    assert data["columns"][0]["PCKh50"] == pytest.approx(13 / 14)


def test_crowdpose_is_counted_by_crowding_and_with_the_area_of_the_box(hrnet):
    root = Path("data/crowdpose")
    more = {"image": {"crowdIndex": 0.5}}
    write_labels(root / "json/crowdpose_test.json", root / "images", "crowdpose14", **more)
    options = ["--dataset", "crowdpose", "--split", "test", "--boxes", "gt", "--json"]
    data = data_of(hrnet(*options, schema="crowdpose14"))
    column = data["columns"][0]
    assert not data["settings"]["label_areas"]
    assert (column["APmedium"], column["APeasy"], column["APhard"]) == (1.0, None, None)


def test_whole_bodies_are_counted_by_part(hrnet):
    root = Path("data/coco")
    path = write_labels(root / "annotations/coco_wholebody_val_v1.0.json", root / "val2017")
    document = json.loads(path.read_text())
    for annotation, (x, y) in zip(document["annotations"], SPOTS, strict=True):
        # The network sees feet and face where they are, and the right hand elsewhere.
        places = {"foot": (x, y), "face": (x, y), "lefthand": (0, 0), "righthand": (x + 90, y)}
        for part, place in places.items():
            start, end = WHOLE_BODY_PARTS[part]
            annotation[f"{part}_kpts"] = [*place, 2] * (end - start)
            annotation[f"{part}_valid"] = part != "lefthand"
    path.write_text(json.dumps(document))
    result = hrnet("--dataset", "coco-wholebody", "--boxes", "gt", schema="wholebody133")
    rows = table(result)
    parts = {name: rows[f"AP_{name}"] for name in WHOLE_BODY_PARTS}
    assert parts == {
        "body": ["1.000"], "foot": ["1.000"], "face": ["1.000"], "lefthand": ["-"],
        "righthand": ["0.000"],
    }  # fmt: skip
    assert 0 < float(rows["AP"][0]) < 1
    assert "AP_body: AP of the body's 17 keypoints alone, AP_foot and so on" in result.stderr


def test_download_of_what_is_there_goes_on_without_the_network(hrnet, monkeypatch):
    def refuse(*_args, **_named):
        raise AssertionError("the network was asked")

    monkeypatch.setattr(fetching, "download", refuse)
    write_coco()
    result = hrnet("--download", "--boxes", "gt")
    assert f"data/coco/{VAL} is there already" in result.stderr
    assert "all 3 photos are in data/coco/val2017 already" in result.stderr
    assert table(result)["AP"] == ["1.000"]


def test_download_that_cannot_be_had(hrnet, monkeypatch, free_port):
    archive = fetching.load_archives()["annotations_trainval2017"]
    nowhere = replace(archive, urls=(f"http://127.0.0.1:{free_port}/a.zip",))
    monkeypatch.setattr(fetching, "load_archives", lambda: {nowhere.name: nowhere})
    result = hrnet("--download", "--data", "there", code=ExitCode.INPUT)
    assert "fetching annotations_trainval2017.zip, 253 MB (CC BY 4.0)" in result.stderr
    assert "error: annotations_trainval2017.zip was not fetched" in result.stderr
    assert "fetch it by hand to 'there/downloads/annotations_trainval2017.zip'" in result.stderr


def test_photos_with_nobody_labelled_are_no_error(hrnet):
    path = write_coco()
    document = json.loads(path.read_text())
    document["annotations"][0] |= {"keypoints": [0] * 51, "num_keypoints": 0}
    path.write_text(json.dumps(document))
    result = hrnet("--split", "val2017", "--boxes", "gt", "--photos", 1)
    rows = table(result)
    assert rows["AP"] == rows["PCK_torso"] == rows["ms per person"] == ["-"]
    assert "gt: AP: no labelled person with keypoints in these photos" in result.stderr


def test_words_of_the_options_are_those_of_the_library():
    assert eval_options.EVALUATORS == coco_metrics.EVALUATORS
    assert eval_options.NMS == evaluation.NMS
    ends = [person_metrics.norm_ends(load_schema("mpii16"), norm) for norm in eval_options.NORMS]
    assert ends == [None, ("left_shoulder", "right_hip"), ("head_top", "upper_neck")]
    assert {*eval_options.PEOPLE, "mpii"} == set(LAYOUTS)
    for entry in weights.load_weights_list().values():
        if entry.published_ap is not None and "val2017, detector boxes (human" in entry.metric:
            assert entry.metric.startswith(eval_numbers.OFFICIAL_METRIC)
