"""The network and the loader against the official code: names, shapes, counts and outputs."""

import hashlib

import numpy as np
import pytest
import torch
from torch import nn

from hrnet_cli.checkpoint import load_weights, official_names
from hrnet_cli.models.hrnet import HRNet
from recipe_weights import GAIN, GAIN_FINAL, recipe_network

MODELS = {"w32_256x192": 32, "w48_384x288": 48}
KEYPOINTS = 17


@pytest.fixture(scope="module")
def networks(golden):
    """Both networks with the reference's weights, built once."""
    meta = golden("forward_meta.json")
    assert (meta["GAIN"], meta["GAIN_FINAL"]) == (GAIN, GAIN_FINAL)
    return {name: recipe_network(meta["salt"], width) for name, width in MODELS.items()}


@pytest.mark.parametrize("name", MODELS)
def test_names_shapes_and_types_equal_the_official_state_dict_in_order(name, golden):
    arch = golden(f"arch_pose_hrnet_{name}.json")
    state = HRNet(MODELS[name], KEYPOINTS).state_dict()
    ours = [[key, list(t.shape), str(t.dtype).removeprefix("torch.")] for key, t in state.items()]
    assert ours == arch["state_dict"]


@pytest.mark.parametrize("name", MODELS)
def test_parameter_counts_equal_the_official_ones(name, golden):
    arch = golden(f"arch_pose_hrnet_{name}.json")
    network = HRNet(MODELS[name], KEYPOINTS)
    by_module = {
        key: sum(p.numel() for p in module.parameters())
        for key, module in network.named_children()
        if any(True for _ in module.parameters())
    }
    assert by_module == arch["num_parameters_by_top_module"]
    assert sum(by_module.values()) == arch["num_parameters"]
    assert len(list(network.parameters())) == arch["num_parameter_tensors"]
    assert sum(b.numel() for b in network.buffers()) == arch["num_buffer_elements"]
    modules = list(network.modules())
    assert sum(isinstance(m, nn.BatchNorm2d) for m in modules) == arch["num_bn"]
    assert sum(isinstance(m, nn.Conv2d) for m in modules) == arch["num_conv"]


@pytest.mark.parametrize("name", MODELS)
def test_convolutions_cost_the_official_number_of_multiply_adds(name, golden):
    arch = golden(f"arch_pose_hrnet_{name}.json")
    macs = []

    def count(conv, _inputs, output):
        macs.append(output.numel() * conv.weight[0].numel())

    # Without data: shapes are enough.
    with torch.device("meta"):
        network = HRNet(MODELS[name], KEYPOINTS).eval()
        for module in network.modules():
            if isinstance(module, nn.Conv2d):
                module.register_forward_hook(count)
        heatmaps = network(torch.empty(arch["input_nchw"]))
    assert list(heatmaps.shape) == arch["output_nchw"]
    assert sum(macs) == arch["conv_macs_batch1"]
    assert sum(macs) / 1024**3 == pytest.approx(arch["official_summary"]["gflops_printed"])


@pytest.mark.parametrize("name", MODELS)
def test_recipe_weights_are_those_of_the_reference(name, networks, golden):
    filler = golden("forward_meta.json")[f"filler_{name}"]
    state = networks[name].state_dict()
    digest = hashlib.sha256()
    for key, tensor in state.items():
        if not key.endswith("num_batches_tracked"):
            digest.update(tensor.numpy().astype("<f4").tobytes())
    assert digest.hexdigest() == filler["sha256_all_float_tensors_le_f32_in_state_dict_order"]
    for key, sample in filler["samples"].items():
        flat = state[key].flatten()
        assert flat[:5].tolist() == sample["first5"]
        # Sums of up to 10^5 float64 terms in another order.
        assert flat.double().sum().item() == pytest.approx(sample["sum_f64"], rel=1e-9)
        assert flat.double().norm().item() == pytest.approx(sample["l2_f64"], rel=1e-9)


@pytest.mark.parametrize("name", MODELS)
def test_heatmaps_equal_the_official_ones(name, networks, golden):
    reference = golden(f"forward_{name}_eval.npz")
    meta = golden("forward_meta.json")
    assert str(reference["salt"]) == meta["salt"]
    with torch.inference_mode():
        heatmaps = networks[name](torch.from_numpy(reference["x"].astype(np.float32)))
    assert heatmaps.shape == reference["heatmaps"].shape
    # Values reach 17; the reference's own float32 error against float64 was 1e-5, and another
    # convolution kernel may add as much again.
    np.testing.assert_allclose(heatmaps.numpy(), reference["heatmaps"], rtol=0, atol=1e-4)
    summary = meta[f"forward_{name}"]
    ours = [heatmaps.std(), heatmaps.std(dim=(2, 3)).mean(), heatmaps.abs().max()]
    expected = [summary[key] for key in ("out_std", "spatial_std", "out_absmax")]
    # Each follows from heatmaps within 1e-4 of values of some units.
    assert [value.item() for value in ours] == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("name", MODELS)
def test_single_precision_is_as_far_from_double_as_the_official_code_says(name, networks, golden):
    pixels = torch.from_numpy(golden(f"forward_{name}_eval.npz")["x"][:1])
    with torch.inference_mode():
        single = networks[name](pixels.float())
        double = networks[name].double()(pixels.double())
    networks[name].float()
    summary = golden("forward_meta.json")[f"forward_{name}"]
    # simple-HRNet, with the same weights, was equal to the last bit.
    assert summary["maxabs_simpleHRNet_vs_official_f32"] == 0
    # Rounding, in another order of sums: some times the reference's own, not hundreds.
    assert (single - double).abs().max() < 5 * summary["maxabs_f32_vs_f64"]


@pytest.mark.parametrize("name", MODELS)
def test_each_stage_has_the_official_statistics(name, networks, golden):
    meta = golden("forward_meta.json")[f"forward_{name}"]
    expected = meta["stage_outputs_sample0_shape_mean_std_min_max_f64"]
    pixels = torch.from_numpy(golden(f"forward_{name}_eval.npz")["x"][:1].astype(np.float32))
    outputs = {}

    def keep(stage):
        def hook(_module, _inputs, output):
            branches = output if isinstance(output, list) else [output]
            # A copy: the next layer may work in place.
            outputs.update({f"{stage}.{i}": b.double().clone() for i, b in enumerate(branches)})

        return hook

    network = networks[name]
    stages = ("layer1", "stage2", "stage3", "stage4")
    handles = [getattr(network, stage).register_forward_hook(keep(stage)) for stage in stages]
    with torch.inference_mode():
        network(pixels)
    for handle in handles:
        handle.remove()
    assert outputs.keys() == expected.keys()
    for stage, (shape, mean, std, smallest, largest) in expected.items():
        x = outputs[stage]
        assert list(x.shape) == shape
        # float32 forward against float64 statistics; a wrong layer moves them by percents.
        ours = [x.mean().item(), x.std(correction=0).item(), x.min().item(), x.max().item()]
        assert ours == pytest.approx([mean, std, smallest, largest], rel=1e-4, abs=1e-6), stage


@pytest.mark.parametrize("width", ["w32", "w48"])
@pytest.mark.parametrize(("column", "source"), [(1, "MMPose 0.x"), (2, "MMPose 1.x")])
def test_mmpose_names_map_to_the_official_ones(width, column, source, golden):
    rows = golden("keymap_pose_official_mmpose.json")[width]["mapping"]
    tensors = {row[column]: torch.full((1,), index) for index, row in enumerate(rows)}
    tensors["data_preprocessor.mean"] = torch.zeros(3, 1, 1)
    official, converted_from = official_names(tensors)
    assert converted_from == source
    assert [(name, int(t)) for name, t in official.items()] == [
        (row[0], index) for index, row in enumerate(rows)
    ]


@pytest.mark.parametrize("width", ["w32", "w48"])
@pytest.mark.parametrize("kind", ["official_cls", "timm", "timm_features_only"])
def test_imagenet_backbones_fill_all_but_the_last_layer(width, kind, golden):
    keymap = golden("keymap_imagenet.json")[width]
    classifier = keymap["official_cls"]
    # timm's classifier has the same names and shapes; its feature extractor lacks some of them.
    expected = {**classifier, **keymap[kind]}
    dropped = set(classifier["unused_keys"]) - set(expected["unused_keys"])
    tensors = {
        # Zeros without memory of their own.
        key: torch.zeros(()).expand(shape)
        for key, shape in classifier["state_dict"]
        if key not in dropped
    }
    assert len(tensors) == expected["num_keys"]
    report = load_weights(HRNet(int(width[1:]), KEYPOINTS), tensors)
    assert report.converted_from == "ImageNet classification"
    assert len(report.loaded) == expected["num_loaded"]
    assert list(report.missing) == classifier["pose_keys_not_in_checkpoint"]
    assert list(report.unused) == expected["unused_keys"]
    assert report.mismatched == ()
    assert not report.complete
