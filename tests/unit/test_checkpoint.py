"""Weights files: every form that is read, every way to be broken, and nothing ever run."""

import argparse
import collections
import contextlib
import enum
import io
import json
import os
import pickle
import signal
import subprocess
import sys
import types
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from hrnet_cli import checkpoint, tensor_pickle, weights
from hrnet_cli.checkpoint import (
    load_model,
    load_weights,
    read_tensors,
    save_model,
    spec_from_metadata,
    spec_to_metadata,
)
from hrnet_cli.config import ModelSpec
from hrnet_cli.errors import ExitCode, OutputError, WeightsError
from hrnet_cli.model_metadata import model_name
from hrnet_cli.models.hrnet import HRNet
from hrnet_cli.schema import KeypointSchema, load_schema

WIDTH = 4
SPEC = ModelSpec("tiny", WIDTH, (64, 32), "udp", load_schema("coco17"))
TENSORS = 1754


@pytest.fixture(scope="module")
def state():
    """Return the official state dict of a tiny network, no value like a fresh one."""
    torch.manual_seed(11)
    network = HRNet(WIDTH, len(SPEC.schema))
    return {
        name: torch.rand_like(t) if t.is_floating_point() else t + 5
        for name, t in network.state_dict().items()
    }


def prefixed(state, prefix, head_prefix=None):
    head_prefix = prefix if head_prefix is None else head_prefix
    return {
        (head_prefix if name.startswith("final_layer.") else prefix) + name: tensor
        for name, tensor in state.items()
    }


def save_torch(path, tree, form="zip"):
    torch.save(tree, path, _use_new_zipfile_serialization=form == "zip")
    return path


def assert_loaded(network, state):
    loaded = network.state_dict()
    assert loaded.keys() == state.keys()
    assert all(torch.equal(loaded[name], tensor) for name, tensor in state.items())


# ---------------------------------------------------------------- forms that are read


def mmpose1(state):
    extra = {"data_preprocessor.mean": torch.zeros(3, 1, 1)}
    return {"state_dict": {**prefixed(state, "backbone.", "head."), **extra}, "meta": {"epoch": 1}}


FORMS = {
    "official": (lambda s: s, "official"),
    "DataParallel": (lambda s: prefixed(s, "module."), "DataParallel"),
    "MMPose 0.x": (
        lambda s: {"state_dict": prefixed(s, "backbone.", "keypoint_head."), "meta": {}},
        "MMPose 0.x",
    ),
    "MMPose 1.x": (mmpose1, "MMPose 1.x"),
    "model": (lambda s: {"model": s, "name": "hrnet_w32", "nc": 1}, "official"),
    "model_state": (lambda s: {"epoch": 3, "model_state": s, "optimizer": {}}, "official"),
    "nested": (lambda s: {"model": {"state_dict": s}, "best": torch.zeros(1)}, "official"),
    "half precision": (lambda s: {k: v.half() if v.ndim else v for k, v in s.items()}, "official"),
}


@pytest.mark.parametrize("file_form", ["zip", "stream"])
@pytest.mark.parametrize("form", FORMS)
def test_every_form_loads_whole(form, file_form, state, tmp_path):
    wrap, converted_from = FORMS[form]
    path = save_torch(tmp_path / "net.pth", wrap(state), file_form)
    network, spec, report = load_model(path, SPEC)
    expected = state
    if form == "half precision":
        expected = {k: v.half().float() if v.ndim else v for k, v in state.items()}
    assert_loaded(network, expected)
    assert spec == SPEC
    assert not network.training
    assert report.complete
    assert report.converted_from == converted_from
    assert report.describe() == f"loaded {TENSORS} of {TENSORS} tensors ({converted_from} names)"


def test_the_width_may_be_left_to_the_file(state, tmp_path):
    path = save_torch(tmp_path / "net.pth", state)
    _, spec, _ = load_model(path, replace(SPEC, width=0))
    assert spec == SPEC


def test_files_older_than_batch_counters_are_whole(state, tmp_path):
    old = {name: t for name, t in state.items() if not name.endswith("num_batches_tracked")}
    _, _, report = load_model(save_torch(tmp_path / "old.pth", old), SPEC)
    assert report.complete
    assert len(report.loaded) == len(old)


def imagenet(state):
    """Return a classification network: further layers, and no keypoint head."""
    return {
        **{name: tensor for name, tensor in state.items() if not name.startswith("final_layer")},
        "stage4.2.fuse_layers.1.0.0.0.weight": torch.zeros(8, 4, 3, 3),
        "incre_modules.0.0.conv1.weight": torch.zeros(128, 4, 1, 1),
        "incre_modules.0.0.bn1.weight": torch.zeros(128),
        "final_layer.0.weight": torch.zeros(2048, 1024, 1, 1),
        "classifier.weight": torch.zeros(1000, 2048),
        "classifier.bias": torch.zeros(1000),
    }


IMAGENET_REPORT = (
    "loaded 1752 of 1754 tensors (ImageNet classification names);"
    " missing 2: final_layer.weight, final_layer.bias;"
    " unused 6: stage4 (1), incre_modules (2), final_layer (1), classifier (2)"
)


def test_a_backbone_is_refused_unless_part_of_a_network_is_asked_for(state, tmp_path):
    path = save_torch(tmp_path / "imagenet.pth", imagenet(state))
    with pytest.raises(WeightsError) as caught:
        load_model(path, SPEC)
    assert caught.value.message == (
        f"{path}: does not hold a whole pose network: {IMAGENET_REPORT}"
    )
    assert caught.value.hint == "a backbone or other partial file can only start a training"
    assert caught.value.exit_code == ExitCode.WEIGHTS

    network, _, report = load_model(path, SPEC, allow_partial=True)
    assert report.describe() == IMAGENET_REPORT
    assert torch.equal(network.get_parameter("conv1.weight"), state["conv1.weight"])
    assert not torch.equal(network.get_parameter("final_layer.weight"), state["final_layer.weight"])


def test_fine_tuning_for_other_keypoints_keeps_all_but_the_head(state, tmp_path):
    path = save_torch(tmp_path / "net.pth", state)
    hand = replace(SPEC, schema=load_schema("hand21"))
    with pytest.raises(WeightsError) as caught:
        load_model(path, hand)
    assert caught.value.message == (
        f"{path}: predicts 17 keypoints, but keypoint schema 'hand21' has 21"
    )
    assert caught.value.hint == "give --keypoint-schema a schema of 17 keypoints"

    _, _, report = load_model(path, hand, allow_partial=True)
    assert report.mismatched == (
        "final_layer.weight (17, 4, 1, 1) where (21, 4, 1, 1) is expected",
        "final_layer.bias (17,) where (21,) is expected",
    )
    assert not report.complete
    assert "; other shape 2: final_layer.weight (17, 4, 1, 1) where" in report.describe()


def test_long_lists_of_names_are_shortened(state):
    few = {name: state[name] for name in list(state)[:10]}
    report = load_weights(HRNet(WIDTH, 17), few)
    assert len(report.missing) > 1000
    assert f"and {len(report.missing) - 4} more" in report.describe()


def test_another_width_is_an_error(state, tmp_path):
    path = save_torch(tmp_path / "net.pth", state)
    with pytest.raises(WeightsError) as caught:
        load_model(path, replace(SPEC, width=32))
    assert caught.value.message == (
        f"{path}: holds a network of width {WIDTH}, expected 32 for 'tiny'"
    )


def test_a_bare_file_needs_a_description(state, tmp_path):
    path = save_torch(tmp_path / "net.pth", state)
    with pytest.raises(WeightsError) as caught:
        load_model(path)
    assert caught.value.message == (
        f"{path}: does not say how its network was trained; its tensors tell only width {WIDTH}"
        " and 17 keypoints"
    )
    assert "--input 256x192 --codec msra --keypoint-schema coco17" in caught.value.hint


# ---------------------------------------------------------------- our own files


def test_own_files_describe_themselves(state, tmp_path):
    path = tmp_path / "tiny.safetensors"
    save_model(path, state, SPEC, provenance="made in a test", licence="CC0-1.0")
    network, spec, report = load_model(path)
    assert_loaded(network, state)
    assert spec == SPEC
    assert report.complete
    _, metadata = read_tensors(path)
    assert metadata == {
        "architecture": "hrnet",
        "width": "4",
        "input_hw": "64x32",
        "codec": "udp",
        "keypoint_schema": "coco17",
        "mean_rgb": "0.485,0.456,0.406",
        "std_rgb": "0.229,0.224,0.225",
        "box_padding": "1.25",
        "provenance": "made in a test",
        "licence": "CC0-1.0",
    }


def test_half_precision_halves_the_file(state, tmp_path):
    sizes = {}
    for dtype in (torch.float32, torch.float16):
        path = tmp_path / f"{dtype}.safetensors"
        save_model(path, state, SPEC, provenance="", licence="", dtype=dtype)
        sizes[dtype] = path.stat().st_size
        assert load_file(path)["conv1.weight"].dtype == dtype
        assert load_file(path)["bn1.num_batches_tracked"].dtype == torch.int64
    header = 8 + int.from_bytes((tmp_path / "torch.float16.safetensors").read_bytes()[:8], "little")
    assert sizes[torch.float16] - header < 0.51 * sizes[torch.float32]


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("dtype", [torch.float16, torch.float32])
def test_numbers_that_are_not_finite_are_refused(state, tmp_path, value, dtype):
    broken = state["conv1.weight"].clone()
    broken[0, 0, 0, :2] = value
    path = tmp_path / "broken.safetensors"
    broken_state = {**state, "conv1.weight": broken}
    save_model(path, broken_state, SPEC, provenance="test", licence="none", dtype=dtype)
    for allow_partial in (False, True):
        with pytest.raises(WeightsError) as caught:
            load_model(path, allow_partial=allow_partial)
        assert caught.value.message == (
            f"{path}: 2 of the 1728 numbers in 'conv1.weight' are infinite or not a number"
        )
    # Large ones, whose sum is no number any more, are fine.
    large = torch.full_like(broken, 3e38)
    large_state = {**state, "conv1.weight": large}
    assert_loaded(load_model(save_torch(tmp_path / "large.pth", large_state), SPEC)[0], large_state)


def test_a_schema_of_the_user_travels_whole(tmp_path):
    schema = KeypointSchema(
        "fork", ("tip", "left", "right"), (("tip", "left"),), (("left", "right"),)
    )
    spec = replace(SPEC, schema=schema, mean_rgb=(0.5, 0.5, 0.5), box_padding=1.5)
    path = tmp_path / "tiny.safetensors"
    save_model(path, HRNet(WIDTH, 3).state_dict(), spec, provenance="", licence="")
    assert load_model(path)[1] == spec


def test_a_schema_named_like_a_built_in_one_keeps_its_own_fields():
    schema = replace(load_schema("coco17"), skeleton=())
    metadata = {**spec_to_metadata(replace(SPEC, schema=schema)), "architecture": "hrnet"}
    assert spec_from_metadata(metadata, path=Path("tiny.safetensors")).schema == schema


def test_the_shipped_starter_loads():
    path = weights.stored_path(weights.find_entry(weights.STARTER_MODEL))
    network, spec, report = load_model(path)
    height, width = spec.input_hw
    with torch.inference_mode():
        heatmaps = network(torch.zeros(1, 3, height, width))
    assert report.complete
    assert heatmaps.shape == (1, len(spec.schema), height // 4, width // 4)
    assert bool(heatmaps.isfinite().all())


@pytest.mark.parametrize(
    ("key", "value", "what"),
    [
        ("codec", "gauss", "codec 'gauss', expected one of msra, dark, udp"),
        ("architecture", "vit", "architecture 'vit', expected one of hrnet"),
        ("input_hw", "250x192", "input_hw '250x192', expected HEIGHTxWIDTH in multiples of 32"),
        ("input_hw", "0x32", "input_hw '0x32', expected HEIGHTxWIDTH in multiples of 32"),
        ("input_hw", "256", "input_hw '256', expected HEIGHTxWIDTH in multiples of 32"),
        ("width", "wide", "width 'wide', expected a whole number"),
        ("width", "32.5", "width '32.5', expected a whole number"),
        ("mean_rgb", "0.5", "mean_rgb '0.5', expected 3 numbers with commas between"),
        ("std_rgb", "1,1,nan", "std_rgb '1,1,nan', expected 3 numbers with commas between"),
        ("keypoint_schema", "coco18", "keypoint_schema 'coco18', expected one of coco17, mpii16"),
        ("keypoint_schema", '{"name": "x"}', "keypoint_schema: schema 'x' has no keypoints"),
        ("box_padding", "wide", "box_padding 'wide', expected one number"),
        ("keypoint_schema", '{"name": ', "Expecting value"),
        ("codec", None, "'codec' is missing"),
    ],
)
def test_metadata_that_do_not_describe_a_network_are_named(key, value, what, tmp_path):
    metadata = {**spec_to_metadata(SPEC), "architecture": "hrnet", key: value}
    if value is None:
        del metadata[key]
    path = tmp_path / "tiny.safetensors"
    with pytest.raises(WeightsError) as caught:
        spec_from_metadata(metadata, path=path)
    assert caught.value.message.startswith(f"{path}: its metadata do not describe a network: ")
    assert what in caught.value.message
    assert "--keypoint-schema" in caught.value.hint


def test_safetensors_of_others_are_like_bare_files(state, tmp_path):
    path = tmp_path / "timm.safetensors"
    save_file(imagenet(state), path, {"format": "pt"})
    with pytest.raises(WeightsError, match="does not say how its network was trained"):
        load_model(path)
    _, _, report = load_model(path, SPEC, allow_partial=True)
    assert report.describe().startswith("loaded 1752 of 1754")


# ---------------------------------------------------------------- writing


def test_names_as_long_as_the_file_system_allows(state, tmp_path):
    path = tmp_path / ("x" * 243 + ".safetensors")
    save_model(path, state, SPEC, provenance="", licence="")
    assert list(tmp_path.iterdir()) == [path]


def test_a_missing_folder_is_an_error(state, tmp_path):
    path = tmp_path / "nowhere" / "net.safetensors"
    with pytest.raises(OutputError) as caught:
        save_model(path, state, SPEC, provenance="", licence="")
    assert caught.value.message.startswith(f"{path}: cannot be written: ")
    assert caught.value.hint == (
        "check that the folder exists, may be written to and has space left"
    )
    assert caught.value.exit_code == ExitCode.OUTPUT


@pytest.mark.skipif(not hasattr(signal, "SIGXFSZ"), reason="needs a limit on file size")
def test_a_full_disk_leaves_the_old_file_and_nothing_else(state, tmp_path):
    import resource

    path = tmp_path / "net.safetensors"
    path.write_bytes(b"the old file")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    # Writing past the limit fails as it does on a full disk; the system's default would be to
    # end the process.
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, before[1]))
    try:
        with pytest.raises(OutputError, match="cannot be written"):
            save_model(path, state, SPEC, provenance="", licence="")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)
    assert [file.name for file in tmp_path.iterdir()] == ["net.safetensors"]
    assert path.read_bytes() == b"the old file"


# ---------------------------------------------------------------- foreign and hostile pickles


@pytest.fixture
def foreign_objects():
    """Return metadata of classes that do not exist any more when the file is read."""
    module = types.ModuleType("gone_framework")

    class HistoryBuffer:
        def __init__(self):
            self.history = np.array([0.5, 0.25])
            self.statistics = {"min": np.min, "mean": np.mean}

    class ConfigDict(dict):
        pass

    class Names(list):
        pass

    class Mode(enum.Enum):
        TRAIN = 1

    for cls in (HistoryBuffer, ConfigDict, Names, Mode):
        cls.__module__, cls.__qualname__ = module.__name__, cls.__name__
        setattr(module, cls.__name__, cls)
    sys.modules[module.__name__] = module
    config = ConfigDict(lr=0.1)
    config.extra = "attribute"
    yield {
        "history": HistoryBuffer(),
        "config": config,
        "names": Names(["a", "b"]),
        "mode": Mode.TRAIN,
        "best": np.float64(0.7),
        "array": np.arange(3),
        "arguments": argparse.Namespace(lr=0.1, folder=Path("runs")),
        "recent": collections.deque([1, 2], maxlen=2),
        "by_name": collections.defaultdict(list, a=[1]),
        "kinds": {Mode.TRAIN: 1},
    }
    sys.modules.pop(module.__name__, None)


@pytest.mark.parametrize("form", ["zip", "stream"])
def test_foreign_metadata_do_not_keep_tensors_from_loading(form, foreign_objects, state, tmp_path):
    tree = {"meta": foreign_objects, "state_dict": prefixed(state, "backbone.", "head.")}
    path = save_torch(tmp_path / "net.pth", tree, form)
    del sys.modules["gone_framework"]
    with pytest.raises(pickle.UnpicklingError):
        torch.load(path, weights_only=True)
    network, _, report = load_model(path, SPEC)
    assert_loaded(network, state)
    assert report.converted_from == "MMPose 1.x"
    assert "gone_framework" not in sys.modules


@pytest.mark.parametrize("form", ["zip", "stream"])
def test_both_readers_agree(form, tmp_path):
    """Types, views, shared storage, scalars and empty tensors, around a foreign object."""
    base = torch.arange(24.0)
    tensors = {
        "whole": base,
        "view": base.reshape(4, 6)[1:3, ::2],
        "transposed": base.reshape(4, 6).T,
        "scalar": torch.tensor(3),
        "empty": torch.zeros(0, 5),
        "parameter": torch.nn.Parameter(torch.ones(2)),
        **{
            str(dtype): torch.tensor([0, 1, 1]).to(dtype)
            for dtype in tensor_pickle.STORAGE_DTYPES.values()
        },
    }
    expected, _ = read_tensors(save_torch(tmp_path / "plain.pth", tensors, form))
    foreign = save_torch(tmp_path / "foreign.pth", {**tensors, "x": argparse.Namespace()}, form)
    ours, _ = read_tensors(foreign)
    assert ours.keys() == expected.keys() == tensors.keys()
    for name, tensor in ours.items():
        assert tensor.dtype == expected[name].dtype
        assert torch.equal(tensor, expected[name])


class Bomb:
    """Unpickled by the usual means, calls a function that makes a file."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


def bombs(marker):
    script = f"open({str(marker)!r}, 'w').close()"
    return {
        "os.system": Bomb(os.system, f'"{sys.executable}" -c "{script}"'),
        "exec": Bomb(exec, script),
        "pathlib": Bomb(Path.touch, marker),
        "subprocess": Bomb(subprocess.check_call, [sys.executable, "-c", script]),
        "getattr": Bomb(getattr(io, "open"), str(marker), "w"),  # noqa: B009 - as a pickle does
    }


def test_the_bombs_of_these_tests_are_live(tmp_path):
    for name, bomb in bombs(tmp_path / "marker").items():
        harmful = pickle.dumps(bomb)
        opened = pickle.loads(harmful)  # what these files would do to a careless reader
        assert (tmp_path / "marker").exists(), name
        (tmp_path / "marker").unlink()
        del opened


@pytest.mark.parametrize("place", ["metadata", "among the tensors"])
@pytest.mark.parametrize("form", ["zip", "stream"])
@pytest.mark.parametrize("name", bombs(Path("marker")))
def test_a_hostile_file_runs_nothing(name, form, place, state, tmp_path):
    marker = tmp_path / "marker"
    bomb = bombs(marker)[name]
    tree = {"state_dict": state, "meta": bomb} if place == "metadata" else {**state, "bomb": bomb}
    path = save_torch(tmp_path / "net.pth", tree, form)
    network, _, _ = load_model(path, SPEC)
    assert_loaded(network, state)
    assert not marker.exists()


def test_a_hostile_pickle_instead_of_a_checkpoint_runs_nothing(tmp_path):
    marker = tmp_path / "marker"
    for name, bomb in bombs(marker).items():
        for protocol in (2, 4):
            path = tmp_path / f"{name}{protocol}.pth"
            path.write_bytes(pickle.dumps(bomb, protocol=protocol))
            with pytest.raises(WeightsError, match="expected a PyTorch checkpoint"):
                read_tensors(path)
            with pytest.raises((pickle.UnpicklingError, EOFError)):
                tensor_pickle.load(path)
    assert not marker.exists()


READER_CLASSES = (
    tensor_pickle._Inert,
    tensor_pickle._RebuildTensor,
    tensor_pickle._TakeFirst,
    tensor_pickle._Dict,
)


def write_archive(path, pickled):
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("net/data.pkl", pickled)
    return path


@pytest.mark.parametrize(
    "target",
    [
        b"ctorch._utils\n_rebuild_tensor_v2\n",
        b"ctorch._utils\n_rebuild_parameter\n",
        b"ccollections\nOrderedDict\n",
        b"ctorch\nFloatStorage\n",
        b"cany\nClass\n",
        b"cany\nClass\n)\x81",
        b"ccollections\nOrderedDict\n)R",
    ],
)
@pytest.mark.parametrize("slots", [False, True])
def test_a_file_cannot_change_the_reader(target, slots, tmp_path):
    # BUILD hands a state to whatever lies on the stack: {"__call__": None}, or (None, that).
    state = b"}X\x08\x00\x00\x00__call__Ns"
    state = b"N" + state + b"\x86" if slots else state
    path = write_archive(tmp_path / "hostile.pth", b"\x80\x02" + target + state + b"b.")
    before = [dict(vars(cls)) for cls in READER_CLASSES]
    with contextlib.suppress(*checkpoint.DAMAGE):
        tensor_pickle.load(path)
    assert [dict(vars(cls)) for cls in READER_CLASSES] == before
    with pytest.raises(WeightsError):
        read_tensors(path)
    good = {"weight": torch.ones(2), "x": argparse.Namespace()}
    tensors, _ = read_tensors(save_torch(tmp_path / "good.pth", good))
    assert torch.equal(tensors["weight"], torch.ones(2))


@pytest.mark.parametrize(
    ("offset", "size", "stride"),
    [(0, (10,), (1,)), (-1, (1,), (1,)), (0, (2,), (-1,)), (0, (1 << 40,), (0,)), (0, "x", None)],
)
def test_tensors_cannot_reach_outside_their_storage(offset, size, stride, tmp_path):
    rebuild = tensor_pickle._KNOWN["torch._utils", "_rebuild_tensor_v2"]
    if stride == (0,):
        # Many elements in the same place: harmless, as torch.expand makes them.
        assert rebuild(torch.zeros(4), offset, size, stride, False, {}).shape == size
        return
    with pytest.raises((RuntimeError, TypeError)):
        rebuild(torch.zeros(4), offset, size, stride, False, {})


def test_a_dict_that_holds_itself_comes_to_an_end(tmp_path):
    tree = {}
    tree["model"] = tree
    with pytest.raises(WeightsError, match="holds no tensors by name"):
        read_tensors(save_torch(tmp_path / "loop.pth", tree))


# ---------------------------------------------------------------- files that are none


def test_no_file(tmp_path):
    path = tmp_path / "absent.pth"
    with pytest.raises(WeightsError) as caught:
        read_tensors(path)
    assert caught.value.message == (
        f"{path}: cannot be read: No such file or directory; expected a PyTorch checkpoint"
        " (.pth, .pt) or a safetensors file"
    )


def test_a_folder(tmp_path):
    with pytest.raises(WeightsError, match=r"cannot be read: (Is a directory|Permission denied)"):
        read_tensors(tmp_path)


@pytest.mark.parametrize(
    ("content", "what"),
    [
        (b"", "is empty (0 bytes)"),
        (b"<!DOCTYPE html><html>Google Drive - Virus scan warning</html>", "is a web page (HTML)"),
        (b"\n <html><head>", "is a web page (HTML)"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:ab", "is a Git LFS pointer"),
        (b"\x08\x07\x12\x07pytorch", "starts with b'\\x08\\x07\\x12\\x07pyto'"),
        (b"hello", "starts with b'hello'"),
    ],
)
def test_what_is_no_weights_file_is_told(content, what, tmp_path):
    path = tmp_path / "net.pth"
    path.write_bytes(content)
    with pytest.raises(WeightsError) as caught:
        read_tensors(path)
    assert caught.value.message.startswith(f"{path}: {what}")
    assert caught.value.message.endswith(
        "expected a PyTorch checkpoint (.pth, .pt) or a safetensors file"
    )
    assert caught.value.hint
    assert caught.value.exit_code == ExitCode.WEIGHTS


def small_file(folder, form):
    path = folder / "small.pth"
    tensors = {"a": torch.rand(5, 7), "b": torch.arange(4), "c": torch.zeros(())}
    if form == "safetensors":
        save_file(tensors, path, {"architecture": "hrnet"})
    else:
        save_torch(path, {"state_dict": tensors, "meta": argparse.Namespace(epoch=1)}, form)
    return path


@pytest.mark.parametrize("form", ["zip", "stream", "safetensors"])
def test_a_file_cut_short_is_damaged_wherever_it_is_cut(form, tmp_path):
    path = small_file(tmp_path, form)
    whole = path.read_bytes()
    # Below 32 bytes the start of a file may not even tell its kind.
    for length in range(32, len(whole), max(1, len(whole) // 60)):
        path.write_bytes(whole[:length])
        with pytest.raises(WeightsError) as caught:
            read_tensors(path)
        kind = "a safetensors file" if form == "safetensors" else "a PyTorch checkpoint"
        assert caught.value.message == (
            f"{path}: starts like {kind} but cannot be read as one ({length:,} bytes):"
            " damaged, cut short or of another kind"
        )
        assert "download it again" in caught.value.hint


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("form", ["zip", "stream", "safetensors"])
def test_flipped_bytes_never_end_in_another_error(form, tmp_path):
    path = small_file(tmp_path, form)
    whole = np.frombuffer(path.read_bytes(), np.uint8)
    generator = np.random.default_rng(1)
    refused = 0
    for _ in range(150):
        broken = whole.copy()
        places = generator.integers(0, len(whole), 3)
        broken[places] ^= generator.integers(1, 256, 3, dtype=np.uint8)
        path.write_bytes(broken.tobytes())
        try:
            read_tensors(path)
        except WeightsError:
            refused += 1
    assert refused > 0


@pytest.mark.filterwarnings("ignore:.*TorchScript archive:UserWarning")
def test_a_checkpoint_named_safetensors_is_one_line(tmp_path):
    path = save_torch(tmp_path / "renamed.safetensors", {"a": torch.zeros(1)})
    with pytest.raises(WeightsError, match="starts like a PyTorch checkpoint but cannot be read"):
        read_tensors(path)


def test_archives_of_something_else(tmp_path):
    photos, script = tmp_path / "photos.pth", tmp_path / "script.pt"
    with zipfile.ZipFile(photos, "w") as archive:
        archive.writestr("photo.jpg", b"123")
    with zipfile.ZipFile(script, "w") as archive:
        # What tells TorchScript from a checkpoint.
        for name in ("version", "data.pkl", "constants.pkl"):
            archive.writestr(f"script/{name}", b"3\n")
    for path in (photos, script):
        with pytest.raises(WeightsError, match="starts like a PyTorch checkpoint but cannot be"):
            read_tensors(path)


@pytest.mark.filterwarnings("ignore:Validating sparse tensor:UserWarning")
def test_tensors_without_plain_numbers_are_passed_over(tmp_path):
    tree = {
        "sparse": torch.eye(3).to_sparse(),
        "shapes only": torch.zeros(3, device="meta"),
        "weight": torch.ones(2),
    }
    tensors, _ = read_tensors(save_torch(tmp_path / "net.pth", tree))
    assert list(tensors) == ["weight"]


@pytest.mark.parametrize("tree", [[1, 2], {"epoch": 3}, {}, "text", {"state_dict": {1: "x"}}])
def test_a_file_without_named_tensors(tree, tmp_path):
    path = save_torch(tmp_path / "net.pth", tree)
    with pytest.raises(WeightsError) as caught:
        read_tensors(path)
    assert caught.value.message == (
        f"{path}: holds no tensors by name, neither at its top nor under state_dict, model_state,"
        " model_state_dict, model; expected a state dict"
    )
    assert "save model.state_dict() instead" in caught.value.hint


def test_a_whole_pickled_network_is_not_read(tmp_path):
    path = save_torch(tmp_path / "net.pth", HRNet(WIDTH, 17))
    with pytest.raises(WeightsError, match="holds no tensors by name"):
        load_model(path, SPEC)


def test_weights_of_another_network(tmp_path):
    resnet = {f"layer{i}.0.conv1.weight": torch.zeros(4, 4, 3, 3) for i in range(6)}
    path = save_torch(tmp_path / "resnet.pth", resnet)
    with pytest.raises(WeightsError) as caught:
        load_model(path, SPEC)
    assert caught.value.message == (
        f"{path}: is not an HRNet: no 'stage2.0.branches.0.0.conv1.weight' among its 6 tensors"
        " (layer0.0.conv1.weight, layer1.0.conv1.weight, layer2.0.conv1.weight,"
        " layer3.0.conv1.weight and 2 more)"
    )
    assert caught.value.hint == "expected the names of the official HRNet code, MMPose or timm"


def test_json_schema_in_metadata_is_plain_json():
    schema = replace(load_schema("coco17"), name="mine")
    text = spec_to_metadata(replace(SPEC, schema=schema))["keypoint_schema"]
    assert json.loads(text)["keypoints"] == list(schema.keypoints)


@pytest.mark.parametrize(
    ("file", "name"),
    [
        ("run-7/best.safetensors", "run-7-best"),
        ("run-7/last.safetensors", "run-7-last"),
        ("run-7/mine.safetensors", "mine"),
        ("/best.safetensors", "best"),
    ],
)
def test_the_weights_of_a_run_bear_its_name(file, name):
    assert model_name(Path(file)) == name
