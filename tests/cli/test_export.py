"""``hrnet export`` and ``hrnet bench``: what they print, what they write, and how they end."""

import json
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
from typer.testing import CliRunner

from exported_models import SPEC, save_checkpoint, save_yolo
from hrnet_cli import benching, checkpoint, exporting
from hrnet_cli.benching import Timing, some_boxes, time_in_turn
from hrnet_cli.cli import app, bench_run
from hrnet_cli.errors import ExitCode
from hrnet_cli.models.hrnet import HRNet
from hrnet_cli.optional_packages import is_installed
from hrnet_cli.runtimes.folding import fold_batch_norms
from hrnet_cli.runtimes.graph import trace

RUNNER = CliRunner()


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return save_checkpoint(tmp_path_factory.mktemp("model") / "tiny.safetensors")


@pytest.fixture(autouse=True)
def _own_folder(tmp_path, monkeypatch):
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    monkeypatch.setenv("HRNET_HOME", str(tmp_path / "cache"))


def hrnet(*arguments, code=0):
    result = RUNNER.invoke(app, [*map(str, arguments)])
    assert result.exception is None or isinstance(result.exception, SystemExit), result
    assert "Traceback" not in result.output
    assert result.exit_code == code, result.output
    return result


def needs_onnx():
    if not (is_installed("onnx") and is_installed("onnxruntime")):
        pytest.skip("onnx or onnxruntime is not installed")


class TestExport:
    def test_it_says_what_was_written_and_how_it_compares(self, model):
        needs_onnx()
        result = hrnet("export", model, "--to", "onnx", "--json", "--offline")
        compared, written = result.stderr.splitlines()
        assert compared.startswith("on 12 crops: largest difference ")
        assert "peaks on the same heatmap pixel, 100.0% within one; mean shift 0.000 px" in compared
        assert written.startswith("wrote tiny.onnx, fp32, ")
        data = json.loads(result.stdout)
        assert data["schema"] == "hrnet-export/1"
        assert data["written"] == "tiny.onnx"
        assert data["agreement"]["within_one_pixel"] == 1
        assert data["agreement"]["AP"] is None
        assert [path.name for path in Path().iterdir()] == ["tiny.onnx"]

        again = hrnet("export", model, "--to", "onnx", code=ExitCode.OUTPUT)
        assert "'tiny.onnx' would be overwritten" in again.stderr
        error = hrnet("export", "tiny.onnx", "--to", "openvino", code=ExitCode.USAGE)
        assert "error: 'tiny.onnx' is an exported model already" in error.stderr

    @pytest.mark.parametrize(
        ("words", "message", "hint"),
        [
            ("--to tensorrt", "--to tensorrt is not written by this version: an engine fits only",
             "hrnet export --to onnx, then there: trtexec"),
            ("--to onxn", "--to is 'onxn', expected one of onnx, openvino, mnn, torchscript",
             "did you mean 'onnx'?"),
            ("--to onnx --precision int4", "--precision is 'int4', expected one of fp32", ""),
            ("--to onnx --calibrate x", "--calibrate is for --precision int8, and it is fp32",
             "leave one of them out"),
            ("--to torchscript --precision int8",
             "--precision is int8, but --to torchscript writes fp32, bf16",
             "--to openvino or onnx"),
            ("--to onnx --precision int8", "--precision int8 needs photos to measure the ranges",
             "--calibrate FOLDER"),
            ("--to onnx --batch-size 4", "--batch-size is for --fixed-batch: without that the file",
             "add --fixed-batch"),
            ("--to torchscript --fixed-batch", "--fixed-batch is for --to onnx and openvino: tor",
             "leave out --fixed-batch"),
            ("--to mnn --fixed-batch", "--fixed-batch is for --to onnx and openvino: mnn takes",
             "leave out --fixed-batch"),
        ],
    )  # fmt: skip
    def test_what_cannot_be_written_is_refused_before_anything_loads(
        self, model, monkeypatch, words, message, hint
    ):
        needs_onnx()
        monkeypatch.setattr(checkpoint, "load_model", None)
        result = hrnet("export", model, *words.split(), code=ExitCode.USAGE)
        lines = result.stderr.splitlines()
        assert lines[0].startswith(f"error: {message}")
        assert [line for line in lines if line.startswith(f"hint: {hint}")] or not hint

    @pytest.mark.parametrize(
        ("words", "package", "extra"),
        [
            ("--to openvino", "openvino", "openvino"),
            ("--to onnx", "onnx", "onnx"),
            ("--to openvino --precision int8 --calibrate .", "nncf", "int8"),
        ],
    )
    def test_a_missing_package_is_named(self, model, monkeypatch, words, package, extra):
        if package == "nncf" and not is_installed("openvino"):
            pytest.skip("openvino is not installed")
        monkeypatch.setitem(sys.modules, package, None)
        result = hrnet("export", model, *words.split(), code=ExitCode.USAGE)
        assert f"needs the package {package}, which is not installed" in result.stderr
        assert f"hint: pip install 'hrnet-cli[{extra}]'" in result.stderr

    def test_places_of_photos(self, model):
        needs_onnx()
        words = ("export", model, "--to", "onnx", "--check")
        gone = hrnet(*words, "gone", code=ExitCode.INPUT)
        assert "'gone' does not exist; expected a folder of photos or a file of" in gone.stderr
        Path("empty").mkdir()
        empty = hrnet(*words, "empty", code=ExitCode.INPUT)
        assert "folder 'empty' holds no photos" in empty.stderr

    def test_a_detector_for_pose_models_only(self, monkeypatch, tmp_path):
        needs_onnx()
        monkeypatch.setattr("hrnet_cli.detectors.yolo.is_pickled_model", lambda _path: True)
        Path("mine.pt").write_bytes(b"x")
        words = ("export", "mine.pt", "--to")
        with monkeypatch.context() as patch:
            patch.setenv("ULTRALYTICS_SAFE_LOAD", "0")
            result = hrnet(*words, "onnx", "--precision", "int8", "--calibrate", ".", code=2)
            assert "warning: mine.pt is not listed in weights.toml" in result.stderr
        result = hrnet(*words, "onnx", "--precision", "int8", "--calibrate", ".", code=2)
        assert "warning" not in result.stderr
        assert "--to onnx --precision int8 is for pose models; a detector is" in result.stderr
        for option in ("--fixed-batch", "--input 64x64", "--codec udp", "--check gone"):
            useless = hrnet(*words, "onnx", *option.split(), code=ExitCode.USAGE)
            name = option.split()[0]
            assert f"{name} is for pose models, and 'mine.pt' is a detector" in useless.stderr
        if is_installed("openvino"):
            odd = hrnet(*words, "openvino", "--out", "mine", code=ExitCode.USAGE)
            assert "'mine' does not end in _openvino_model" in odd.stderr
            assert "hint: --out mine_openvino_model" in odd.stderr

    def test_the_starter_detector_says_that_it_cannot_be_exported(self):
        needs_onnx()
        result = hrnet("export", "starter-detector", "--to", "onnx", code=ExitCode.USAGE)
        assert "detector 'starter-detector' cannot be exported: only YOLO files of" in result.stderr
        assert not list(Path().iterdir())

    def test_a_detector_that_finds_other_boxes_is_not_written(self, monkeypatch, tmp_path):
        needs_onnx()
        Path("mine.pt").write_bytes(b"x")

        def write(_path, _target, folder, *, half, trusted):
            assert not half
            assert not trusted
            return save_yolo(folder / "mine.onnx")

        steps = iter([3.25, 0.5])
        monkeypatch.setattr("hrnet_cli.detectors.yolo.is_pickled_model", lambda _path: True)
        monkeypatch.setattr("hrnet_cli.detectors.yolo.export_yolo", write)
        monkeypatch.setattr(
            "hrnet_cli.detectors.yolo.open_yolo", lambda *_: lambda frames: [None] * len(frames)
        )
        monkeypatch.setattr(exporting, "_largest_step", lambda *_: next(steps, 0.0))
        result = hrnet("export", "mine.pt", "--to", "onnx", code=ExitCode.WEIGHTS)
        assert "'mine' finds other boxes when it is exported: sides move by 3.2 pixels" in (
            result.stderr
        )
        assert [path.name for path in Path().iterdir()] == ["mine.pt"]


@pytest.mark.slow
@pytest.mark.parametrize("target", ["onnx", "openvino"])
def test_a_real_detector(test_weights, target):
    pytest.importorskip({"onnx": "onnxruntime"}.get(target, target))
    hrnet("export", test_weights / "yolo11n.pt", "--to", target)
    written = {"onnx": "yolo11n.onnx", "openvino": "yolo11n_openvino_model"}[target]
    assert [path.name for path in Path().iterdir()] == [written]


class TestBench:
    def test_the_table_and_the_json(self, model, monkeypatch):
        words = ("bench", "--model", model, "--runtimes", "torch", "--precisions", "fp32,int8")
        words += ("--people", 2, "--rounds", 1, "--offline")
        result = hrnet(*words, "--json")
        data = json.loads(result.stdout)
        assert data["schema"] == "hrnet-bench/1"
        assert [stage["name"] for stage in data["stages"]] == [
            "decode photo", "crop", "decode heatmaps", "draw",
        ]  # fmt: skip
        for stage in data["stages"]:
            each = 2 if stage["unit"] == "people" else 1
            assert stage["per_second"] == pytest.approx(each * 1000 / stage["ms"])
        assert {stage["unit"] for stage in data["stages"]} == {"people", "photos"}
        (network,) = data["networks"]
        assert network["name"] == "torch fp32"
        assert network["per_second"] == pytest.approx(2000 / network["ms"])
        assert 0 < network["share_of_peak"] < 2
        assert data["peak_gflops"]["fp32"] > 0
        assert "torch int8" in data["left_out"]

        monkeypatch.setattr(benching, "measure_peak", lambda *_: {"fp32": 1e9})
        shown = hrnet(*words)
        assert "2 people in a photo" in shown.stdout
        assert "torch fp32" in shown.stdout
        assert "not timed: torch int8: --precision is int8" in shown.stderr
        assert "peak of a 3x3 convolution: GFLOP/s 2 (fp32)" in shown.stderr

    def test_the_peak_of_the_processor_is_no_measure_for_a_gpu(self, monkeypatch):
        monkeypatch.setattr("hrnet_cli.device.pick_device", lambda _name: "cuda")
        monkeypatch.setattr(benching, "measure_peak", None)
        assert bench_run._peaks(SimpleNamespace(device="auto", threads=None, rounds=1)) == {}

    @pytest.mark.parametrize(
        ("words", "message"),
        [
            ("--runtimes tensorrt", "--runtimes is 'tensorrt', expected one or more of torch,"),
            ("--precisions int4", "--precisions is 'int4', expected one or more of fp32,"),
            ("--photos 3", "--photos is a part of --accuracy, which is not given"),
            ("--runtimes torch --precisions int8", "none of the runtimes can be timed: --precis"),
        ],
    )
    def test_options_that_make_no_sense(self, model, words, message):
        result = hrnet("bench", "--model", model, *words.split(), code=ExitCode.USAGE)
        assert result.stderr.startswith(f"error: {message}")

    def test_tasks_are_timed_in_turn(self):
        done = []
        tasks = {name: lambda name=name: done.append(name) for name in "ab"}
        timings = time_in_turn(tasks, people=4, rounds=3)
        assert done == ["a", "b"] * 4
        assert [(timing.name, len(timing.rounds_ms)) for timing in timings] == [("a", 3), ("b", 3)]

    def test_the_median_counts(self):
        timing = Timing("it", 4, (10.0, 1000.0, 20.0))
        assert timing.ms == 20
        assert timing.per_second == 200

    def test_boxes_lie_in_the_picture(self):
        boxes = some_boxes((480, 640), 5)
        assert len(boxes) == 5
        assert (boxes.xyxy_N4[:, 2:] <= [640, 480]).all()
        assert (boxes.xyxy_N4[:, :2] >= 0).all()
        assert len(some_boxes((4000, 100), 3)) == 3

    def test_the_work_of_w32_is_what_torch_counts(self):
        spec = replace(SPEC, width=32, input_hw=(256, 192))
        graph = trace(fold_batch_norms(HRNet(32, 17)), spec)
        # torch.utils.flop_counter counts 7.645e9 multiplications.
        assert graph.multiplications() == pytest.approx(7.645e9, rel=0.001)

    def test_memory_is_counted_where_the_system_tells(self):
        used = benching.peak_memory_mb()
        assert used is None or 50 < used < 100_000
