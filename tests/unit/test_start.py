"""What a training starts from."""

from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file, save_file

from hrnet_cli import weights
from hrnet_cli.checkpoint import save_model, spec_to_metadata
from hrnet_cli.config import ModelSpec, WeightsEntry
from hrnet_cli.errors import ConfigError, ExitCode, WeightsError
from hrnet_cli.models.hrnet import HRNet
from hrnet_cli.recipe import ModelConfig
from hrnet_cli.schema import KeypointSchema, load_schema
from hrnet_cli.start import StartReport, starting_network, starting_spec

WIDTH = 4
DOG = KeypointSchema("dog", ("nose", "tail", "left_eye"), upper_body=("nose",))
SPEC = ModelSpec("parent", WIDTH, (64, 32), "udp", DOG)
HEAD = ("final_layer.weight", "final_layer.bias")
TENSORS = 1754  # of every HRNet, whatever its width


@pytest.fixture
def parent(tmp_path):
    """Return the file of a network whose numbers are all unlike fresh ones."""
    torch.manual_seed(5)
    state = {
        name: 2 + torch.rand_like(t) if t.is_floating_point() else t + 5
        for name, t in HRNet(WIDTH, len(DOG)).state_dict().items()
    }
    path = tmp_path / "parent.safetensors"
    save_model(path, state, SPEC, provenance="test", licence="none")
    return path


def config(start, width=WIDTH):
    return ModelConfig(width=width, input_hw=(64, 32), start=str(start))


def failure(kind, code, call, *arguments, **options):
    with pytest.raises(kind) as raised:
        call(*arguments, **options)
    assert raised.value.exit_code == code
    return raised.value.message, raised.value.hint


def fresh_state(keypoints):
    torch.manual_seed(9)
    return HRNet(WIDTH, keypoints).state_dict()


# ---------------------------------------------------------------- from nothing


def test_from_scratch_is_the_fresh_network_of_the_seed():
    torch.manual_seed(9)
    network, report = starting_network(config("scratch"), DOG)
    expected = fresh_state(len(DOG))
    assert all(torch.equal(t, expected[name]) for name, t in network.state_dict().items())
    assert report == StartReport("", "", 0, (), DOG.keypoints)
    assert report.describe() == "starting from fresh weights"


def test_from_scratch_needs_no_file_and_no_network(monkeypatch):
    def asked(*_arguments, **_options):
        raise AssertionError

    monkeypatch.setattr(weights, "fetch", asked)
    starting_network(config("scratch", width=6), DOG, offline=True)


# ---------------------------------------------------------------- from another model


def test_the_same_keypoints_take_over_everything(parent):
    network, report = starting_network(config(parent), DOG)
    state = network.state_dict()
    assert all(torch.equal(state[name], t) for name, t in load_file(parent).items())
    assert len(state) == TENSORS
    assert report == StartReport(
        str(parent), weights.file_sha256(parent), TENSORS, DOG.keypoints, ()
    )
    assert report.describe() == (
        f"starting from {parent}: {TENSORS} tensors taken over;"
        " the head keeps 3 keypoints of the same name"
    )


def test_other_keypoints_keep_the_head_rows_of_the_same_name_exactly(parent):
    # In another order, with two that are new; of the file's, "tail" is not wanted.
    cat = KeypointSchema("cat", ("whisker", "left_eye", "paw", "nose"))
    torch.manual_seed(9)
    network, report = starting_network(config(parent), cat)
    state, theirs, fresh = network.state_dict(), load_file(parent), fresh_state(len(cat))
    for name in HEAD:
        assert torch.equal(state[name][1], theirs[name][2])
        assert torch.equal(state[name][3], theirs[name][0])
        for new in (0, 2):
            assert torch.equal(state[name][new], fresh[name][new])
    assert all(torch.equal(state[name], t) for name, t in theirs.items() if name not in HEAD)
    assert report.kept_keypoints == ("left_eye", "nose")
    assert report.new_keypoints == ("whisker", "paw")
    assert report.describe().endswith(
        "the head keeps 2 keypoints of the same name and learns 2 anew"
    )


def test_no_keypoint_of_the_same_name_is_a_whole_new_head(parent):
    torch.manual_seed(9)
    network, report = starting_network(config(parent), load_schema("hand21"))
    fresh = fresh_state(21)
    assert all(torch.equal(network.state_dict()[name], fresh[name]) for name in HEAD)
    assert report.kept_keypoints == ()
    assert report.describe().endswith("; the head learns 21 keypoints anew")


def test_a_taken_over_network_learns(parent):
    """All its parameters, the head's with rows copied into them as well."""
    network, _ = starting_network(config(parent), DOG)
    network.train()(torch.randn(2, 3, 64, 32)).square().mean().backward()
    assert all(p.requires_grad and p.grad is not None for p in network.parameters())


def test_another_width_is_refused(parent):
    message, hint = failure(
        ConfigError, ExitCode.CONFIG, starting_network, config(parent, width=6), DOG
    )
    assert message == f"'{parent}' has width 4, but the run asks for width 6"
    assert hint == "--width 4"


def test_a_head_that_contradicts_the_names_of_its_file_is_refused(parent):
    """Else its keypoints would be said to be kept and start fresh."""
    tensors = load_file(parent)
    metadata = {**spec_to_metadata(replace(SPEC, schema=load_schema("coco17")))}
    save_file(tensors, parent, {**metadata, "architecture": "hrnet"})
    for call in (starting_network, starting_spec):
        arguments = (config(parent), DOG) if call is starting_network else (str(parent),)
        message, _ = failure(WeightsError, ExitCode.WEIGHTS, call, *arguments)
        assert message == (f"{parent}: predicts 3 keypoints, but keypoint schema 'coco17' has 17")


def test_a_file_without_a_head_is_refused(parent):
    tensors = {name: t for name, t in load_file(parent).items() if name not in HEAD}
    save_file(tensors, parent, {**spec_to_metadata(SPEC), "architecture": "hrnet"})
    message, _ = failure(WeightsError, ExitCode.WEIGHTS, starting_network, config(parent), DOG)
    assert str(parent) in message


def test_neither_a_file_nor_a_listed_name():
    message, hint = failure(
        WeightsError, ExitCode.WEIGHTS, starting_network, config("hrnet-w23"), DOG
    )
    assert message == "no weights are called 'hrnet-w23'"
    assert "hrnet-w32" in hint


def test_a_damaged_file(parent):
    parent.write_bytes(parent.read_bytes()[:5000])
    message, _ = failure(WeightsError, ExitCode.WEIGHTS, starting_network, config(parent), DOG)
    assert "cannot be read as one" in message


def test_what_a_training_starts_from_is_described(parent):
    assert starting_spec(str(parent)) == SPEC
    assert starting_spec("scratch") is None
    assert starting_spec("imagenet") is None


# ---------------------------------------------------------------- from an ImageNet backbone


@pytest.fixture
def backbone(tmp_path, monkeypatch):
    """List a backbone of our width, a file with the names of a classification network."""
    torch.manual_seed(6)
    tensors = {
        name: 2 + torch.rand_like(t) if t.is_floating_point() else t
        for name, t in HRNet(WIDTH, 3).state_dict().items()
    }
    # Classification networks have a last layer of that name too, of another meaning.
    tensors["final_layer.weight"] = torch.full((3, WIDTH, 1, 1), 99.0)
    tensors |= {name: torch.zeros(2) for name in ("incre_modules.0.0.bn1.bias", "classifier.bias")}
    path = tmp_path / "hrnet_w4.pth"
    torch.save(tensors, path)
    entry = WeightsEntry(
        "tiny-imagenet", "backbone", weights.file_sha256(path), "MIT", "here",
        urls=("https://example.org/hrnet_w4.pth",), width=WIDTH,
    )  # fmt: skip
    monkeypatch.setattr(weights, "load_weights_list", lambda: {entry.name: entry})
    return path, entry


def test_a_backbone_fills_all_but_the_head(backbone, monkeypatch):
    path, entry = backbone
    asked = []
    monkeypatch.setattr(
        weights, "fetch", lambda entry, **options: asked.append((entry, options)) or path
    )
    torch.manual_seed(9)
    network, report = starting_network(config("imagenet"), DOG)
    assert asked == [(entry, {"offline": False, "on_progress": None})]
    state, fresh, theirs = network.state_dict(), fresh_state(3), torch.load(path)
    for name, tensor in state.items():
        assert torch.equal(tensor, fresh[name] if name in HEAD else theirs[name])
    assert report == StartReport(
        "ImageNet backbone hrnet_w4.pth",
        weights.file_sha256(path),
        TENSORS - len(HEAD),
        (),
        DOG.keypoints,
    )
    assert report.describe() == (
        "starting from ImageNet backbone hrnet_w4.pth: 1752 tensors taken over;"
        " the head learns 3 keypoints anew"
    )


def test_no_backbone_of_this_width_is_listed():
    message, hint = failure(
        ConfigError, ExitCode.CONFIG, starting_network, config("imagenet", width=16), DOG
    )
    assert message == "no ImageNet backbone of width 16 is listed"
    assert hint == "--from-scratch, or another --width"


@pytest.mark.parametrize("width", [32, 48])
def test_offline_a_missing_backbone_is_one_line(width, monkeypatch, tmp_path):
    monkeypatch.setenv("HRNET_HOME", str(tmp_path))
    message, hint = failure(
        WeightsError,
        ExitCode.WEIGHTS,
        starting_network,
        config("imagenet", width=width),
        DOG,
        offline=True,
    )
    assert f"hrnet-w{width}-imagenet" in message
    assert "is missing and --offline forbids downloading it" in message
    assert f"hrnet download-weights hrnet-w{width}-imagenet" in hint
