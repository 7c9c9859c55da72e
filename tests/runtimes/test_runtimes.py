"""Every runtime of RUNTIMES gives PyTorch's heatmaps, and keeps the same promises."""

import shutil
import sys
import sysconfig
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from torch._dynamo.exc import TorchDynamoException

from exported_models import INPUT_HW, SPEC, lively_network, random_crops, worst
from hrnet_cli import engines
from hrnet_cli.errors import DeviceError, ExitCode, UsageError
from hrnet_cli.optional_packages import is_installed
from hrnet_cli.runtimes import (
    AUTO,
    PRECISIONS,
    RUNTIMES,
    TOLERANCES,
    WINOGRAD_TOLERANCE,
    Computing,
    RuntimeSettings,
    openvino,
    pick_runtime,
    torch_compiled,
)
from hrnet_cli.runtimes.crops import LARGEST_BATCH, run_in_batches, split_batch
from hrnet_cli.runtimes.folding import fold_batch_norms
from hrnet_cli.runtimes.graph import trace
from hrnet_cli.runtimes.torch_eager import TorchEager
from hrnet_cli.runtimes.torch_script import write_script

HEIGHT, WIDTH = INPUT_HW


@pytest.fixture(scope="module")
def network():
    return lively_network()


@pytest.fixture(scope="module")
def expected(network):
    """Heatmaps of the network as it is, batch norms and all, one crop at a time."""
    reference = TorchEager(network, SPEC, "cpu")
    return np.concatenate([reference(crop[None]) for crop in random_crops(7)])


def skip_without(name):
    for package in RUNTIMES[name].packages:
        if not is_installed(package):
            pytest.skip(f"{package} is not installed")
    if name == "compiled":
        compiler = (sysconfig.get_config_var("CXX") or "c++").split()[0]
        if not shutil.which(compiler) and not shutil.which("g++"):
            pytest.skip("there is no C++ compiler")


@pytest.fixture(scope="module", params=RUNTIMES)
def runtime(request, network):
    """Each runtime, built once."""
    skip_without(request.param)
    if request.param == "compiled":
        # Compiling takes minutes: see the slow test; the code around it is right without.
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(torch, "compile", lambda model, **_options: model)
            yield RUNTIMES[request.param].build(network, SPEC, RuntimeSettings())
        return
    # Two, so that OpenVINO has both crops on threads of their own and one that is left over.
    threads = 2 if request.param == "openvino" else 1
    before = torch.get_num_threads()
    yield RUNTIMES[request.param].build(network, SPEC, RuntimeSettings(threads=threads))
    torch.set_num_threads(before)


@pytest.mark.parametrize("count", [1, 2, 3, 7])
def test_heatmaps_are_those_of_pytorch(runtime, expected, count):
    heatmaps = runtime(random_crops(7)[:count])
    assert heatmaps.dtype == np.float32
    assert heatmaps.shape == (count, 17, HEIGHT // 4, WIDTH // 4)
    assert worst(heatmaps, expected[:count]) < runtime.tolerance
    # In the right order: crops differ from each other by far more than the tolerance.
    assert worst(expected[1], expected[0]) > 10 * runtime.tolerance


def test_nobody_gives_no_heatmaps(runtime):
    heatmaps = runtime(random_crops(0))
    assert heatmaps.shape == (0, 17, HEIGHT // 4, WIDTH // 4)
    assert heatmaps.dtype == np.float32


def test_answers_stay_what_they_were(runtime, expected):
    # Engines reuse the memory of their results.
    first = runtime(random_crops(3))
    runtime(random_crops(3, seed=9))
    assert worst(first, expected[:3]) < runtime.tolerance


def test_threads_get_the_heatmaps_of_their_own_crops(runtime, expected):
    # Of 1 to 3 crops: both ways of OpenVINO, and sessions that are prepared again.
    parts = [slice(0, 1), slice(1, 3), slice(3, 6), slice(6, 7)]

    def work(part):
        crops = random_crops(7)[part]
        return [worst(runtime(crops), expected[part]) for _ in range(10)]

    with ThreadPoolExecutor(len(parts)) as threads:
        differences = list(threads.map(work, parts))
    assert np.max(differences) < runtime.tolerance


def test_any_memory_layout_is_taken_and_left_alone(runtime, expected):
    crops = random_crops(2)
    read_only = np.broadcast_to(crops, crops.shape)
    backwards = np.flip(np.flip(crops, axis=2).copy(), axis=2)
    for view in (read_only, backwards):
        assert worst(runtime(view), expected[:2]) < runtime.tolerance
    np.testing.assert_array_equal(crops, random_crops(2))


@pytest.mark.parametrize(
    "crops",
    [
        np.zeros((1, HEIGHT, WIDTH, 3), np.float32),
        np.zeros((1, WIDTH, HEIGHT, 3), np.uint8),
        np.zeros((HEIGHT, WIDTH, 3), np.uint8),
    ],
    ids=["type", "height and width", "no batch"],
)
def test_other_crops_are_refused(runtime, crops):
    with pytest.raises(ValueError, match=r"crops_BHW3: expected \(B, 64, 32, 3\) uint8, got"):
        runtime(crops)


def test_it_says_who_it_is_and_how_exact(runtime):
    assert RUNTIMES[runtime.name].build is not None
    winograd = runtime.name == "mnn"
    assert runtime.tolerance == (WINOGRAD_TOLERANCE if winograd else TOLERANCES["fp32"])


def test_the_network_stays_as_it_is(runtime, network):
    assert isinstance(network.bn1, torch.nn.BatchNorm2d)
    assert network.conv1.bias is None


class TestLowerPrecision:
    def test_bf16_in_torch(self, network, expected):
        runtime = RUNTIMES["torch"].build(network, SPEC, RuntimeSettings(precision="bf16"))
        heatmaps = runtime(random_crops(7))
        assert heatmaps.dtype == np.float32
        # Rounding to 8 bits shows, and stays within what is promised.
        assert 1e-4 < worst(heatmaps, expected) < runtime.tolerance == TOLERANCES["bf16"]

    def test_bf16_in_openvino(self, network, expected):
        skip_without("openvino")
        ov = pytest.importorskip("openvino")
        if "BF16" not in ov.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
            pytest.skip("this processor does not compute in bf16")
        runtime = RUNTIMES["openvino"].build(network, SPEC, RuntimeSettings(precision="bf16"))
        assert worst(runtime(random_crops(7)), expected) < runtime.tolerance

    def test_a_processor_without_bf16_says_so(self):
        class Core:
            def get_property(self, _device, _name):
                return ["FP32", "INT8", "BIN", "EXPORT_IMPORT"]

        with pytest.raises(DeviceError) as caught:
            engines._precision_hint(Core(), "bf16")
        assert caught.value.message == (
            "this processor does not compute in bf16; it has FP32, INT8"
        )
        assert caught.value.hint == "use --precision fp32"

    def test_openvino_computes_in_float32_unless_told(self, network):
        skip_without("openvino")
        runtime = RUNTIMES["openvino"].build(network, SPEC, RuntimeSettings())
        kind = runtime._together.get_property("INFERENCE_PRECISION_HINT")
        assert kind.get_type_name() == "f32"


@pytest.mark.slow
def test_a_compiled_network_gives_pytorchs_heatmaps(network, expected):
    skip_without("compiled")
    runtime = RUNTIMES["compiled"].build(network, SPEC, RuntimeSettings())
    assert worst(runtime(random_crops(7)[:2]), expected[:2]) < runtime.tolerance


@pytest.mark.parametrize("way", ["heatmaps", "people"])
def test_a_network_that_cannot_be_compiled_is_one_line(network, monkeypatch, way):
    def fail(_pixels):
        raise TorchDynamoException("Cannot find a working triton installation.\nMore of it")

    monkeypatch.setattr(torch_compiled, "_check_compiler", lambda _device: None)
    runtime = torch_compiled.TorchCompiled(network, SPEC, RuntimeSettings())
    runtime.network = fail
    compute = {
        "heatmaps": lambda: runtime(random_crops(2)),
        "people": lambda: runtime._in_parts(torch.zeros(2, 3, *SPEC.input_hw)),
    }
    with pytest.raises(DeviceError) as caught:
        compute[way]()
    assert caught.value.message == (
        "torch.compile cannot compile the network for cpu: Cannot find a working triton"
        " installation."
    )
    assert caught.value.hint == "use --runtime torch"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="a device that is full is Linux's")
def test_a_script_on_a_full_disk_is_an_error_and_no_crash(network):
    with pytest.raises(OSError, match="No space left"):
        write_script(Path("/dev/full"), network, SPEC, "fp32", {})


class TestBatches:
    @pytest.mark.parametrize(
        ("count", "parts"),
        [(0, []), (1, [1]), (7, [4, 2, 1]), (32, [32]), (70, [32, 32, 4, 2])],
    )
    def test_sizes_are_powers_of_two_and_add_up(self, count, parts):
        spans = list(split_batch(count))
        assert [size for _, size in spans] == parts
        assert [start for start, _ in spans] == [sum(parts[:i]) for i in range(len(parts))]

    def test_few_sizes_come_of_all_numbers_of_people(self):
        sizes = {size for count in range(100) for _, size in split_batch(count)}
        assert sizes == {1, 2, 4, 8, 16, LARGEST_BATCH}

    def test_a_fixed_batch_is_filled_up(self):
        sizes = []

        def compute(crops):
            sizes.append(len(crops))
            return crops[:, :16, :8, :1].transpose(0, 3, 1, 2).repeat(17, 1).astype(np.float32)

        crops = random_crops(5)
        heatmaps = run_in_batches(crops, SPEC, compute, fixed_batch=4)
        assert sizes == [4, 4]
        np.testing.assert_array_equal(heatmaps[:, 3], crops[:, :16, :8, 0])

    @pytest.mark.parametrize(
        ("threads", "count", "apart"),
        [(2, 1, 0), (2, 2, 2), (2, 5, 4), (8, 3, 0), (8, 5, 5), (8, 20, 16), (8, 22, 22)],
    )
    def test_openvino_gives_each_thread_a_crop_while_enough_are_left(
        self, network, threads, count, apart
    ):
        skip_without("openvino")
        runtime = object.__new__(openvino.OpenVino)
        runtime.streams = threads
        assert runtime._crops_apart(count) == apart


class TestFolding:
    def test_no_batch_norm_is_left_and_nothing_else_changed(self, network, expected):
        folded = fold_batch_norms(network)
        kinds = [type(module) for module in folded.modules()]
        assert torch.nn.BatchNorm2d not in kinds
        assert torch.nn.BatchNorm2d in [type(module) for module in network.modules()]
        assert worst(TorchEager(folded, SPEC, "cpu")(random_crops(7)), expected) < 1e-5

    def test_a_batch_norm_of_its_own_stays(self):
        alone = torch.nn.Sequential(torch.nn.BatchNorm2d(3), torch.nn.Conv2d(3, 3, 1))
        assert isinstance(fold_batch_norms(alone)[0], torch.nn.BatchNorm2d)

    def test_a_graph_has_no_step_without_effect(self, network):
        graph = trace(fold_batch_norms(network), SPEC)
        kinds = [operation.kind for operation in graph.operations]
        convolutions = [m for m in network.modules() if isinstance(m, torch.nn.Conv2d)]
        assert kinds.count("conv") == len(convolutions)
        assert set(kinds) == {"conv", "relu", "add", "upsample"}

    def test_a_layer_that_is_unknown_is_refused(self):
        class Odd(torch.nn.Module):
            def __init__(self):
                super().__init__()
                self.layer = torch.nn.Sigmoid()

            def heatmaps(self, pixels):
                return self.layer(pixels)

        with pytest.raises(ValueError, match="call_module 'layer' is no layer of a folded HRNet"):
            trace(Odd(), SPEC)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"runtime": "tensorrt"}, "runtime is 'tensorrt', expected one of auto, torch, compiled,"),
        ({"precision": "fp8"}, "precision is 'fp8', expected one of fp32, fp16, bf16, int8"),
        ({"threads": 0}, "threads is 0, expected 1 to 1024"),
        ({"threads": -1}, "threads is -1, expected 1 to 1024"),
        ({"threads": 1025}, "threads is 1025, expected 1 to 1024"),
    ],
)
def test_what_cannot_be_meant_is_refused_before_anything_is_opened(wrong, message):
    with pytest.raises(UsageError, match=message):
        Computing(**wrong)


class TestPicking:
    @pytest.fixture
    def installed(self, monkeypatch):
        """Pretend that these optional packages are installed and no others."""

        def pretend(*packages):
            answer = packages.__contains__
            monkeypatch.setattr("hrnet_cli.runtimes.can_be_imported", answer)
            monkeypatch.setattr("hrnet_cli.optional_packages.is_installed", answer)
            monkeypatch.setattr("hrnet_cli.runtimes.openvino_computes_in", lambda _name: True)

        return pretend

    @pytest.mark.parametrize(
        ("packages", "precision", "device", "picked"),
        [
            (("openvino", "onnx", "onnxruntime"), "fp32", "cpu", "openvino"),
            (("onnx", "onnxruntime"), "fp32", "cpu", "onnx"),
            (("onnxruntime",), "fp32", "cpu", "torch"),
            ((), "fp32", "cpu", "torch"),
            (("openvino",), "bf16", "cpu", "openvino"),
            (("onnx", "onnxruntime"), "bf16", "cpu", "torch"),
            (("openvino",), "fp32", "cuda:1", "torch"),
            (("openvino",), "fp16", "cuda", "torch"),
        ],
    )
    def test_auto_takes_the_fastest_that_is_there(
        self, installed, packages, precision, device, picked
    ):
        installed(*packages)
        assert pick_runtime(AUTO, precision, device) == picked

    def test_auto_leaves_out_what_the_processor_cannot(self, installed, monkeypatch):
        installed("openvino")
        monkeypatch.setattr("hrnet_cli.runtimes.openvino_computes_in", lambda _name: False)
        assert pick_runtime(AUTO, "bf16", "cpu") == "torch"
        assert pick_runtime(AUTO, "fp32", "cpu") == "openvino"

    @pytest.mark.parametrize(
        ("name", "package", "extra"),
        [
            ("openvino", "openvino", "openvino"),
            ("onnx", "onnxruntime", "onnx"),
            ("mnn", "MNN", "mnn"),
        ],
    )
    def test_a_missing_package_is_named_with_its_extra(self, installed, name, package, extra):
        installed()
        with pytest.raises(UsageError) as caught:
            pick_runtime(name, "fp32", "cpu")
        assert caught.value.message == (
            f"runtime {name} needs the package {package}, which is not installed"
        )
        assert caught.value.hint == f"pip install 'hrnet-cli[{extra}]'"
        assert caught.value.exit_code == ExitCode.USAGE

    def test_a_package_that_cannot_be_imported_is_named(self, network, monkeypatch):
        monkeypatch.setitem(sys.modules, "openvino", None)
        with pytest.raises(UsageError, match="runtime openvino needs the package openvino"):
            RUNTIMES["openvino"].build(network, SPEC, RuntimeSettings())

    def test_int8_needs_photos_and_so_an_export(self, installed):
        installed("openvino")
        with pytest.raises(UsageError) as caught:
            pick_runtime("openvino", "int8", "cpu")
        assert caught.value.message == (
            "--precision is int8, but runtime openvino computes a weights file in fp32, bf16"
        )
        assert caught.value.hint.startswith("hrnet export --precision int8 makes such a file")

    def test_what_the_device_cannot_is_refused(self, installed):
        installed("openvino")
        with pytest.raises(DeviceError) as caught:
            pick_runtime("openvino", "fp32", "cuda:1")
        assert caught.value.message == "runtime openvino computes on cpu, not on cuda:1"
        assert caught.value.hint == "use --runtime torch, or --device cpu"
        with pytest.raises(DeviceError, match="fp16 needs a GPU, and this run is on the processor"):
            pick_runtime("torch", "fp16", "cpu")

    def test_the_tables_speak_of_known_things(self):
        for kind in RUNTIMES.values():
            assert set(kind.precisions) <= set(PRECISIONS)
            assert kind.precisions[0] == "fp32"
            assert set(kind.devices) <= {"cpu", "cuda", "mps"}

    def test_compiling_without_a_compiler_is_refused(self, network, monkeypatch):
        monkeypatch.setattr(shutil, "which", lambda _name: None)
        with pytest.raises(UsageError) as caught:
            RUNTIMES["compiled"].build(network, SPEC, RuntimeSettings())
        assert caught.value.message.startswith(
            "--runtime compiled needs a C++ compiler on a processor, and none of"
        )
        assert caught.value.hint == "use --runtime openvino, onnx or torch"
