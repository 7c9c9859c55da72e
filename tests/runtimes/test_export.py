"""Exported files: written when they give PyTorch's heatmaps, and run by everything that detects."""

import dataclasses
import json
import os
import shutil
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from exported_models import SPEC, lively_network, random_crops, save_checkpoint, worst
from hrnet_cli import agreement as agreeing
from hrnet_cli import checkpoint, exporting, model_opening
from hrnet_cli.agreement import AGREEMENT, Agreement, check_agreement, compare
from hrnet_cli.errors import (
    DeviceError,
    ExitCode,
    OutputError,
    UsageError,
    WeightsError,
)
from hrnet_cli.estimator import ModelHints, build_estimator, find_model
from hrnet_cli.exporting import TARGETS, ExportMaterial, ExportWish, export_model
from hrnet_cli.model_opening import compiled_folder, open_model
from hrnet_cli.optional_packages import is_installed
from hrnet_cli.runtimes import RUNTIMES, TOLERANCES, Computing, RuntimeSettings, mnn
from hrnet_cli.runtimes.exported import (
    Exported,
    best_device,
    graph_file,
    open_exported,
    pick_exported_runtime,
    read_exported,
)
from hrnet_cli.runtimes.torch_eager import TorchEager
from hrnet_cli.schema import load_schema

MATERIAL = ExportMaterial(check=lambda _spec: random_crops(6))
CPU = Computing(device="cpu")
# A FlatBuffer's root table at byte 12 and its list of fields at byte 4: without a field, and with
# one whose text, at byte 20, is longer than the file.
NO_TEXT_MNN = struct.pack("<IHHHHi", 12, 4, 4, 0, 0, 8) + bytes(40)
LONG_TEXT_MNN = struct.pack("<IHHHHiII", 12, 6, 8, 4, 0, 8, 4, 0xFFFFFFFF) + bytes(40)


def needs(target):
    for package in RUNTIMES[TARGETS[target].runtime].packages:
        if not is_installed(package):
            pytest.skip(f"{package} is not installed")


@pytest.fixture(scope="module")
def weights_file(tmp_path_factory):
    return save_checkpoint(tmp_path_factory.mktemp("model") / "tiny.safetensors")


@pytest.fixture(scope="module")
def expected():
    return TorchEager(lively_network(), SPEC, "cpu")(random_crops(5))


@pytest.fixture(scope="module", params=TARGETS)
def exported(request, weights_file, tmp_path_factory):
    """Each kind of file, exported once."""
    needs(request.param)
    out = tmp_path_factory.mktemp("export") / ExportWish(request.param).default_path("tiny")
    wish = ExportWish(request.param, provenance="a test")
    return out, export_model(weights_file, None, wish, out, MATERIAL)


@pytest.fixture(scope="module")
def onnx_file(weights_file, tmp_path_factory):
    needs("onnx")
    out = tmp_path_factory.mktemp("onnx") / "tiny.onnx"
    export_model(weights_file, None, ExportWish("onnx"), out, MATERIAL)
    return out


class TestFiles:
    def test_it_gives_pytorchs_heatmaps(self, exported, expected):
        out, agreement = exported
        estimator = build_estimator(*find_model(str(out)), CPU)
        assert worst(estimator.runtime(random_crops(5)), expected) < TOLERANCES["fp32"]
        assert agreement.crops == 6
        assert agreement.near == agreement.equal == 1
        assert agreement.difference < TOLERANCES["fp32"]
        assert agreement.keypoints > 20

    def test_it_says_all_of_itself(self, exported, weights_file):
        out, _ = exported
        found = read_exported(graph_file(out))
        assert found.spec == SPEC
        assert found.precision == "fp32"
        assert found.metadata["provenance"] == "a test"
        source = json.loads(found.metadata["exported_from"])
        assert source["file"] == weights_file.name
        assert len(source["sha256"]) == 64

    def test_nothing_else_is_left(self, exported):
        out, _ = exported
        assert [path.name for path in out.parent.iterdir()] == [out.name]
        if out.is_dir():
            assert sorted(path.suffix for path in out.iterdir()) == [".bin", ".xml"]

    def test_it_is_said_what_runs(self, exported):
        out, _ = exported
        summary = build_estimator(*find_model(str(out)), CPU).load_summary
        assert summary in {f"{name} fp32, an exported file" for name in RUNTIMES}

    def test_an_onnx_file_runs_in_openvino_too(self, onnx_file, expected):
        needs("openvino")
        opened = open_model(onnx_file, None, Computing("cpu", "openvino"))
        assert worst(opened.runtime(random_crops(5)), expected) < TOLERANCES["fp32"]

    def test_half_precision(self, weights_file, tmp_path, expected):
        needs("onnx")
        out = tmp_path / "half.onnx"
        export_model(weights_file, None, ExportWish("onnx", "fp16"), out, MATERIAL)
        opened = open_model(out, None, CPU)
        assert opened.precision == "fp16"
        assert 1e-5 < worst(opened.runtime(random_crops(5)), expected) < TOLERANCES["fp16"]

    def test_a_fixed_batch_takes_any_number_all_the_same(self, weights_file, tmp_path, expected):
        needs("onnx")
        out = tmp_path / "four.onnx"
        export_model(weights_file, None, ExportWish("onnx", batch=4), out, MATERIAL)
        runtime = open_model(out, None, CPU).runtime
        assert runtime.fixed_batch == 4
        assert worst(runtime(random_crops(5)), expected) < TOLERANCES["fp32"]

    @pytest.mark.slow
    @pytest.mark.parametrize("target", ["onnx", "openvino"])
    def test_eight_bits(self, weights_file, tmp_path, expected, monkeypatch, target):
        # An untrained network loses its peaks; that its heatmaps still resemble tells of the rest.
        monkeypatch.setitem(agreeing.AGREEMENT, "int8", 0.0)
        material = dataclasses.replace(MATERIAL, calibration=lambda _spec: random_crops(8))
        out = tmp_path / ExportWish(target, "int8").default_path("tiny")
        export_model(weights_file, None, ExportWish(target, "int8"), out, material)
        opened = open_model(out, None, CPU)
        assert opened.precision == "int8"
        assert opened.spec == SPEC
        assert 1e-3 < worst(opened.runtime(random_crops(5)), expected) < 0.5


class TestDamage:
    @pytest.mark.parametrize("target", TARGETS)
    @pytest.mark.parametrize("where", [0.3, 0.6, 0.9999])
    def test_a_graph_with_a_hole_is_not_computed_with(self, weights_file, tmp_path, target, where):
        needs(target)
        out = tmp_path / ExportWish(target).default_path("tiny")
        export_model(weights_file, None, ExportWish(target), out, MATERIAL)
        open_model(out, None, CPU)
        largest = max(out.iterdir() if out.is_dir() else [out], key=lambda one: one.stat().st_size)
        content = bytearray(largest.read_bytes())
        start = int(where * len(content)) - 200
        content[start : start + 100] = bytes(value ^ 0x55 for value in content[start : start + 100])
        largest.write_bytes(content)
        with pytest.raises(WeightsError) as caught:
            open_model(out, None, CPU)
        assert str(largest) in caught.value.message or str(graph_file(out)) in caught.value.message
        assert "\n" not in caught.value.message

    def test_the_description_of_an_openvino_graph_is_sealed_too(self, weights_file, tmp_path):
        needs("openvino")
        out = tmp_path / "tiny_openvino"
        export_model(weights_file, None, ExportWish("openvino"), out, MATERIAL)
        text = (out / "tiny.xml").read_text()
        assert 'auto_pad="explicit"' in text
        (out / "tiny.xml").write_text(text.replace('pads_begin="1, 1"', 'pads_begin="0, 0"', 1))
        with pytest.raises(WeightsError, match="is damaged: its content is not what was written"):
            open_model(out, None, CPU)

    def test_a_kept_graph_with_a_hole_is_made_anew(
        self, weights_file, tmp_path, monkeypatch, caplog, expected
    ):
        needs("openvino")
        monkeypatch.setenv("HRNET_HOME", str(tmp_path))
        wish = Computing("cpu", "openvino")
        open_model(weights_file, None, wish)
        (weights,) = compiled_folder().rglob("model.bin")
        content = bytearray(weights.read_bytes())
        content[1000:3000] = bytes(2000)
        weights.write_bytes(content)
        runtime = open_model(weights_file, None, wish).runtime
        assert "is damaged: its content is not what was written" in caplog.text
        assert worst(runtime(random_crops(5)), expected) < TOLERANCES["fp32"]

    def test_files_without_a_seal_are_read_as_ever(self, weights_file, tmp_path, expected):
        needs("onnx")
        out = tmp_path / "tiny.onnx"
        export_model(weights_file, None, ExportWish("onnx"), out, MATERIAL)
        assert read_exported(out).metadata["content_sha256"]
        out.write_bytes(out.read_bytes()[: -(4 + 14 + 2 + 64)])
        assert "content_sha256" not in read_exported(out).metadata
        assert worst(open_model(out, None, CPU).runtime(random_crops(5)), expected) < 1e-4


class TestComparison:
    def test_a_file_that_gives_other_keypoints_is_not_written(
        self, weights_file, tmp_path, monkeypatch
    ):
        needs("onnx")
        real = exporting.trace

        def other_network(network, spec):
            graph = real(network, spec)
            *first, last = graph.operations
            return dataclasses.replace(
                graph, operations=(*first, dataclasses.replace(last, weight=-last.weight))
            )

        monkeypatch.setattr(exporting, "trace", other_network)
        out = tmp_path / "tiny.onnx"
        out.write_bytes(b"the old one")
        with pytest.raises(WeightsError) as caught:
            export_model(weights_file, None, ExportWish("onnx"), out, MATERIAL, overwrite=True)
        assert caught.value.message.startswith(
            "'tiny' for onnx in fp32 is not the network it was made of, on 6 crops: largest"
            " difference "
        )
        assert caught.value.message.endswith(
            "expected at most 0.0001 of the peak and at least 100% within one heatmap pixel;"
            " nothing was written"
        )
        assert caught.value.exit_code == ExitCode.WEIGHTS
        assert [path.name for path in tmp_path.iterdir()] == ["tiny.onnx"]
        assert out.read_bytes() == b"the old one"

    def test_it_counts_peaks_that_moved(self):
        heatmaps = np.zeros((2, 17, 16, 8), np.float32)
        heatmaps[..., 5, 3] = 1.0
        heatmaps[0, 0, 5, 3] = 0.1  # not sure of it: does not count
        moved = heatmaps.copy()
        moved[0, 1] = np.roll(moved[0, 1], 1, axis=0)
        moved[1, :2] = np.roll(moved[1, :2], 2, axis=1)
        moved[0, 0] = np.roll(moved[0, 0], 4, axis=0)
        found = compare(lambda _: heatmaps, lambda _: moved, SPEC, random_crops(2))
        assert found.keypoints == 33
        assert found.equal == pytest.approx(30 / 33)
        assert found.near == pytest.approx(31 / 33)
        assert found.difference == 1.0

    @pytest.mark.parametrize(
        ("precision", "changes", "fine"),
        [
            ("fp32", {}, True),
            ("fp32", {"difference": 2e-4}, False),
            ("fp32", {"near": 0.999}, False),
            ("fp32", {"difference": float("nan")}, False),
            ("bf16", {"difference": 0.04, "near": 0.985}, True),
            ("int8", {"difference": 0.3, "near": 0.91}, True),
            ("int8", {"difference": 0.3, "near": 0.89}, False),
            ("int8", {"ap": (0.700, 0.691)}, True),
            ("int8", {"ap": (0.700, 0.689)}, False),
            ("fp32", {"ap": (0.7000, 0.6994)}, False),
        ],
    )
    def test_what_each_precision_allows(self, precision, changes, fine):
        agreement = Agreement(8, 1e-6, 100, 1.0, 1.0, 0.0)
        agreement = dataclasses.replace(agreement, **changes)
        if fine:
            check_agreement(agreement, precision, "it")
        else:
            with pytest.raises(WeightsError, match=r"it in .* is not the network it was made of"):
                check_agreement(agreement, precision, "it")
        assert set(AGREEMENT) == set(TOLERANCES)


class TestReplacing:
    @pytest.fixture
    def folder(self, weights_file, tmp_path):
        needs("openvino")
        out = tmp_path / "tiny_openvino"
        export_model(weights_file, None, ExportWish("openvino"), out, MATERIAL)
        return out

    def again(self, weights_file, out):
        return export_model(
            weights_file, None, ExportWish("openvino"), out, MATERIAL, overwrite=True
        )

    def test_an_export_is_replaced(self, weights_file, folder):
        os.utime(folder / "tiny.xml", (1, 1))
        self.again(weights_file, folder)
        assert (folder / "tiny.xml").stat().st_mtime > 1
        assert [path.name for path in folder.parent.iterdir()] == [folder.name]
        (folder.parent / "mine").mkdir()
        assert folder.stat().st_mode == (folder.parent / "mine").stat().st_mode

    def test_the_current_folder_can_be_one(self, weights_file, folder, monkeypatch):
        monkeypatch.chdir(folder)
        self.again(weights_file, Path())
        assert sorted(path.name for path in folder.iterdir()) == ["tiny.bin", "tiny.xml"]

    def test_one_that_cannot_be_replaced_stays(self, weights_file, folder, monkeypatch):
        real = Path.rename

        def rename(path, target):
            if path.name == "new":
                raise OSError(28, "No space left on device")
            return real(path, target)

        monkeypatch.setattr(Path, "rename", rename)
        before = (folder / "tiny.bin").read_bytes()
        with pytest.raises(OutputError, match="cannot be written: No space left"):
            self.again(weights_file, folder)
        assert (folder / "tiny.bin").read_bytes() == before
        assert [path.name for path in folder.parent.iterdir()] == [folder.name]

    def test_what_others_are_making_stays(self, weights_file, tmp_path):
        # In containers all processes may have one number.
        needs("onnx")
        other = tmp_path / f".tiny.onnx.{os.getpid()}.tmp"
        other.mkdir()
        (other / "half").touch()
        export_model(weights_file, None, ExportWish("onnx"), tmp_path / "tiny.onnx", MATERIAL)
        assert (other / "half").exists()


class TestRefused:
    def test_a_precision_the_target_has_not(self):
        with pytest.raises(UsageError) as caught:
            ExportWish("onnx", "bf16")
        assert caught.value.message == "--precision is bf16, but --to onnx writes fp32, fp16, int8"

    def test_eight_bits_without_photos(self, weights_file, tmp_path):
        wish = ExportWish("openvino", "int8")
        with pytest.raises(UsageError, match="--precision int8 needs photos") as caught:
            export_model(weights_file, None, wish, tmp_path / "out", MATERIAL)
        assert caught.value.hint.startswith("--calibrate FOLDER")

    def test_places_that_hold_something_else(self, weights_file, tmp_path):
        (tmp_path / "folder").mkdir()
        (tmp_path / "folder" / "thesis.txt").touch()
        (tmp_path / "file").touch()
        (tmp_path / "a.onnx").mkdir()
        # Photos with labels in XML, labels alone, and an export among somebody's own files.
        for name, files in {
            "voc": {"a.jpg": b"", "a.xml": b"<annotation/>", "thesis.txt": b""},
            "labels": {"a.xml": b"<annotation/>", "a.bin": b""},
            "both": {"a.xml": b'<?xml version="1.0"?>\n<net name="a"/>', "a.bin": b"", "b": b""},
        }.items():
            (tmp_path / name).mkdir()
            for file, content in files.items():
                (tmp_path / name / file).write_bytes(content)
        for target, name, message in (
            ("openvino", "folder", "is a folder of something else, expected a folder with one"),
            ("openvino", "voc", "is a folder of something else, expected a folder with one"),
            ("openvino", "labels", "is a folder of something else, expected a folder with one"),
            ("openvino", "both", "is a folder of something else, expected a folder with one"),
            ("openvino", "file", "is a file, expected a folder with one export to replace"),
            ("onnx", "a.onnx", "is a folder of something else, expected a file to replace"),
        ):
            with pytest.raises(OutputError, match=message):
                export_model(
                    weights_file,
                    None,
                    ExportWish(target),
                    tmp_path / name,
                    MATERIAL,
                    overwrite=True,
                )
        assert (tmp_path / "folder" / "thesis.txt").exists()
        assert len(list(tmp_path.glob("*/*"))) == 1 + 3 + 2 + 3
        taken = tmp_path / "taken.onnx"
        taken.touch()
        with pytest.raises(OutputError, match=r"taken\.onnx' would be overwritten") as caught:
            export_model(weights_file, None, ExportWish("onnx"), taken, MATERIAL)
        assert caught.value.exit_code == ExitCode.OUTPUT

    def test_a_name_that_would_not_be_known_again(self, weights_file, tmp_path):
        with pytest.raises(UsageError) as caught:
            export_model(weights_file, None, ExportWish("onnx"), tmp_path / "model", MATERIAL)
        assert caught.value.message == f"'{tmp_path / 'model'}' does not end in .onnx"
        assert caught.value.hint == f"--out {tmp_path / 'model.onnx'}"

    def test_a_folder_that_cannot_be_written(self, weights_file, tmp_path):
        (tmp_path / "file").touch()
        with pytest.raises(OutputError, match=r"tiny\.onnx: cannot be written: Not a directory"):
            export_model(
                weights_file, None, ExportWish("onnx"), tmp_path / "file" / "tiny.onnx", MATERIAL
            )

    @pytest.mark.parametrize(
        ("name", "content", "message"),
        [
            ("a.onnx", b"", "does not say what its network expects and means"),
            ("a.onnx", b"<html>404</html>", "is damaged or no ONNX file"),
            ("a.onnx", b"\x80" * 20, "is damaged or no ONNX file: a number of more than ten bytes"),
            ("a.onnx", b"\x72\x7f\x00", "is damaged or no ONNX file: no field of a protocol buf"),
            ("a.xml", b"<net>", "is damaged or no OpenVINO graph"),
            ("a.xml", b"<net/>", "does not say what its network expects and means"),
            ("a.mnn", b"", "is damaged or no MNN file: it ends before byte 4"),
            ("a.mnn", b"<html>404</html>", "is damaged or no MNN file"),
            ("a.mnn", b"\x04\0\0\0\xff\xff\xff\x7f" * 9, "is damaged or no MNN file: it points to"),
            ("a.mnn", NO_TEXT_MNN, "does not say what its network expects and means"),
            ("a.mnn", LONG_TEXT_MNN, "is damaged or no MNN file: a text of 4294967295 bytes"),
            ("a.torchscript", b"PK", "is damaged or no TorchScript file"),
        ],
    )
    def test_files_that_are_no_exports(self, tmp_path, name, content, message):
        path = tmp_path / name
        path.write_bytes(content)
        with pytest.raises(WeightsError) as caught:
            read_exported(path)
        assert caught.value.message.startswith(f"{path}: {message}")
        assert "\n" not in caught.value.message
        assert (
            caught.value.hint.startswith("hrnet export") or "export it again" in caught.value.hint
        )

    @pytest.mark.parametrize("encoding", ["gb2312", "klingon"])
    def test_an_encoding_that_cannot_be_read(self, tmp_path, encoding):
        path = tmp_path / "a.xml"
        path.write_text(f'<?xml version="1.0" encoding="{encoding}"?><net/>')
        with pytest.raises(WeightsError, match=r"a\.xml: is damaged or no OpenVINO graph"):
            read_exported(path)

    def test_a_file_that_changes_while_it_is_used_is_not_mixed_in(
        self, weights_file, tmp_path, expected
    ):
        needs("openvino")
        out = tmp_path / "tiny_openvino"
        export_model(weights_file, None, ExportWish("openvino"), out, MATERIAL)
        runtime = open_model(out, None, Computing("cpu", threads=2)).runtime
        crops = random_crops(5)
        shutil.rmtree(out)
        # Two crops apart, and one that is left over: its network would be read from the file.
        assert worst(runtime(crops[:3]), expected[:3]) < TOLERANCES["fp32"]

    @pytest.mark.parametrize(
        ("suffix", "name", "device", "cuda", "best"),
        [
            (".xml", "auto", "cuda", True, "cpu"),
            (".xml", "auto", "mps", True, "cpu"),
            (".onnx", "auto", "cuda:1", True, "cuda:1"),
            (".onnx", "auto", "cuda", False, "cpu"),
            (".onnx", "openvino", "cuda", True, "cpu"),
            (".onnx", "auto", "mps", True, "cpu"),
            (".torchscript", "auto", "mps", True, "mps"),
            (".torchscript", "auto", "cuda", False, "cuda"),
        ],
    )
    def test_the_device_nobody_named_is_one_that_the_file_runs_on(
        self, monkeypatch, suffix, name, device, cuda, best
    ):
        monkeypatch.setattr("hrnet_cli.runtimes.exported.onnx_computes_on_cuda", lambda: cuda)
        found = Exported(Path(f"model{suffix}"), SPEC, "fp32", {})
        assert best_device(found, name, device) == best

    def test_a_device_that_was_named_is_kept_to(self, onnx_file):
        found = read_exported(onnx_file)
        for name, device in (("onnx", "mps"), ("openvino", "cuda:1")):
            with pytest.raises(DeviceError) as caught:
                pick_exported_runtime(found, name, RuntimeSettings(device))
            assert caught.value.message.startswith(f"runtime {name} computes on cpu")
            assert caught.value.message.endswith(f"not on {device}")

    def test_a_cut_graph(self, onnx_file, tmp_path):
        path = tmp_path / "cut.onnx"
        path.write_bytes(onnx_file.read_bytes()[:-2000])
        with pytest.raises(WeightsError, match=r"cut\.onnx: "):
            open_model(path, None, CPU)

    def test_a_cut_mnn_graph(self, weights_file, tmp_path, capfd):
        needs("mnn")
        path = tmp_path / "tiny.mnn"
        export_model(weights_file, None, ExportWish("mnn"), path, MATERIAL)
        found = read_exported(path)
        path.write_bytes(path.read_bytes()[:-5000])
        with pytest.raises(WeightsError, match=r"tiny\.mnn: MNN cannot read it"):
            open_exported(found, "mnn", RuntimeSettings(), None)
        path.unlink()
        with pytest.raises(WeightsError, match=r"tiny\.mnn: MNN cannot read it"):
            open_exported(found, "mnn", RuntimeSettings(), None)
        assert not capfd.readouterr().out

    def test_an_mnn_graph_of_another_size_than_it_says(self, weights_file, tmp_path):
        needs("mnn")
        path = tmp_path / "tiny.mnn"
        export_model(weights_file, None, ExportWish("mnn"), path, MATERIAL)
        found = read_exported(path)
        other = dataclasses.replace(found.spec, input_hw=(96, 64))
        runtime = open_exported(
            dataclasses.replace(found, spec=other), "mnn", RuntimeSettings(), None
        )
        # Its layers are of any size: there is nothing to refuse.
        assert runtime(np.zeros((1, 96, 64, 3), np.uint8)).shape == (1, 17, 24, 16)
        hands = dataclasses.replace(found.spec, schema=load_schema("hand21"))
        with pytest.raises(WeightsError, match="expected \\(1, 21, 16, 8\\)"):
            open_exported(dataclasses.replace(found, spec=hands), "mnn", RuntimeSettings(), None)

    def test_mnns_converter_reports_nothing_to_its_makers(self):
        needs("mnn")
        code = mnn._CONVERT.rsplit("convert([", 1)[0]
        code += (
            "from MNN.tools import mnnconvert as m; print(m.mnn_logger, 'aliyun' in sys.modules)"
        )
        words = [sys.executable, "-c", code]
        said = subprocess.run(words, capture_output=True, text=True, check=True).stdout
        assert said.splitlines()[-1] == "None False"

    def test_a_converter_that_fails_is_one_line(self, weights_file, tmp_path, monkeypatch):
        needs("mnn")
        monkeypatch.setattr(mnn, "_CONVERT", "raise SystemExit('no space left')")
        with pytest.raises(OutputError, match="MNN's converter failed: no space left"):
            export_model(weights_file, None, ExportWish("mnn"), tmp_path / "tiny.mnn", MATERIAL)
        assert not list(tmp_path.iterdir())

    def test_another_network_than_it_says(self, onnx_file):
        found = read_exported(onnx_file)
        other = dataclasses.replace(found.spec, input_hw=(96, 32))
        with pytest.raises(WeightsError, match=r"expected crops of \[96, 32, 3\] and 17 heatmaps"):
            open_exported(dataclasses.replace(found, spec=other), "onnx", RuntimeSettings(), None)

    def test_runtime_and_precision_that_do_not_go_with_the_file(self, onnx_file):
        found = read_exported(onnx_file)
        with pytest.raises(UsageError) as caught:
            pick_exported_runtime(found, "torch", RuntimeSettings())
        assert caught.value.message == (
            "--runtime is torch, but 'tiny.onnx' runs in onnx or openvino"
        )
        with pytest.raises(UsageError) as caught:
            pick_exported_runtime(found, "auto", RuntimeSettings(precision="int8"))
        assert caught.value.message == ("--precision is int8, but 'tiny.onnx' was exported in fp32")
        bf16 = RuntimeSettings(precision="bf16")
        assert pick_exported_runtime(found, "openvino", bf16) == "openvino"

    def test_hints_for_a_file_that_says_all(self, onnx_file):
        with pytest.raises(UsageError, match="is an exported model, which says all of itself"):
            find_model(str(onnx_file), hints=ModelHints(codec="udp"))


class TestGraphsOfCheckpoints:
    @pytest.fixture(autouse=True)
    def _empty_cache(self, tmp_path, monkeypatch):
        needs("onnx")
        monkeypatch.setenv("HRNET_HOME", str(tmp_path / "home"))

    def open(self, path, spec=None):
        return open_model(path, spec, Computing("cpu", "onnx"))

    def graphs(self):
        return sorted(compiled_folder().glob("*/model.onnx"))

    def test_the_second_run_needs_no_torch(self, weights_file, monkeypatch, expected):
        first = self.open(weights_file)
        monkeypatch.setattr(checkpoint, "load_model", None)
        second = self.open(weights_file)
        assert second.spec == first.spec == SPEC
        assert second.summary == first.summary
        assert first.summary.startswith("onnx fp32, loaded 1754 of 1754 tensors")
        assert worst(second.runtime(random_crops(5)), expected) < TOLERANCES["fp32"]
        assert len(self.graphs()) == 1
        assert [path.name for path in compiled_folder().glob(".*")] == []

    def test_it_keeps_the_name_it_was_asked_for_by(self, weights_file, tmp_path):
        self.open(weights_file)
        copy = shutil.copy(weights_file, tmp_path / "other.safetensors")
        assert self.open(copy).spec.name == "other"
        assert len(self.graphs()) == 1

    def test_another_meaning_is_another_graph(self, weights_file):
        self.open(weights_file)
        wide = dataclasses.replace(SPEC, codec="udp", width=0, name="mine")
        opened = self.open(weights_file, wide)
        assert (opened.spec.codec, opened.spec.width, opened.spec.name) == ("udp", 4, "mine")
        assert len(self.graphs()) == 2

    def test_a_damaged_graph_is_made_anew(self, weights_file, caplog):
        self.open(weights_file)
        (graph,) = self.graphs()
        whole = graph.read_bytes()
        graph.write_bytes(whole[: len(whole) // 2])
        self.open(weights_file)
        assert "cannot be used and is made anew" in caplog.text
        assert graph.read_bytes() == whole

    def test_a_graph_that_something_deleted_is_made_anew(self, weights_file, expected):
        self.open(weights_file)
        (graph,) = self.graphs()
        graph.unlink()
        opened = self.open(weights_file)
        assert worst(opened.runtime(random_crops(5)), expected) < TOLERANCES["fp32"]
        assert self.graphs() == [graph]

    def test_a_cache_that_may_only_be_read_serves(self, weights_file, monkeypatch, caplog):
        self.open(weights_file)

        def touch(_path, *_args, **_more):
            raise OSError(30, "Read-only file system")

        monkeypatch.setattr(Path, "touch", touch)
        monkeypatch.setattr(checkpoint, "load_model", None)
        self.open(weights_file)
        assert caplog.text == ""

    @pytest.mark.skipif(sys.platform == "win32", reason="permissions are another thing there")
    def test_what_is_kept_may_be_read_by_those_who_may_read_the_folder(self, weights_file):
        needs("openvino")
        open_model(weights_file, None, Computing("cpu", "openvino"))
        compiled_folder().chmod(0o755)
        open_model(weights_file, None, Computing("cpu", "openvino"))
        files = [path for path in compiled_folder().rglob("*") if path.is_file()]
        assert {path.suffix for path in files} >= {".xml", ".bin", ".blob"}
        assert [path.name for path in files if path.stat().st_mode & 0o444 != 0o444] == []

    def test_an_export_needs_no_cache(self, weights_file, tmp_path, expected, caplog):
        needs("openvino")
        out = tmp_path / "tiny_openvino"
        export_model(weights_file, None, ExportWish("openvino"), out, MATERIAL)
        (tmp_path / "home").write_text("a file where the folder should be")
        opened = open_model(out, None, CPU)
        assert worst(opened.runtime(random_crops(5)), expected) < TOLERANCES["fp32"]
        assert "cannot keep what is compiled" in caplog.text

    def test_a_cache_that_cannot_be_written_costs_nothing_else(
        self, weights_file, tmp_path, caplog, expected
    ):
        (tmp_path / "home").write_text("a file where the folder should be")
        opened = self.open(weights_file)
        assert worst(opened.runtime(random_crops(5)), expected) < TOLERANCES["fp32"]
        assert "cannot be kept" in caplog.text

    def test_the_oldest_go(self, tmp_path):
        for number in range(10):
            entry = compiled_folder() / f"{number}"
            entry.mkdir(parents=True)
            (entry / "model.xml").touch()
            os.utime(entry, (number, number))
        (compiled_folder() / "blob").touch()
        for number in range(model_opening.BLOBS_KEPT + 3):
            blob = compiled_folder() / f"{number}.blob"
            blob.touch()
            os.utime(blob, (number, number))
        model_opening._forget_old(compiled_folder())
        names = {path.name for path in compiled_folder().iterdir()}
        blobs = {name for name in names if name.endswith(".blob")}
        assert names - blobs == {*map(str, range(2, 10)), "blob"}
        assert blobs == {f"{number}.blob" for number in range(3, model_opening.BLOBS_KEPT + 3)}
