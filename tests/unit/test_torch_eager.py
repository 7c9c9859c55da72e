"""The plain PyTorch runtime: normalisation, batches, nobody, and a full card."""

import numpy as np
import pytest
import torch
from torchvision.transforms.functional import normalize, to_tensor

from hrnet_cli.config import IMAGENET_MEAN_RGB, IMAGENET_STD_RGB, ModelSpec
from hrnet_cli.errors import DeviceError, ExitCode
from hrnet_cli.models.hrnet import HRNet
from hrnet_cli.runtimes import RUNTIMES, RuntimeSettings
from hrnet_cli.runtimes.torch_eager import TorchEager
from hrnet_cli.schema import load_schema

HEIGHT, WIDTH = 64, 96
SPEC = ModelSpec("tiny", 4, (HEIGHT, WIDTH), "msra", load_schema("coco17"))


def random_crops(count):
    generator = np.random.default_rng(5)
    return generator.integers(0, 256, (count, HEIGHT, WIDTH, 3), dtype=np.uint8)


def build(network, spec=SPEC):
    return RUNTIMES["torch"].build(network, spec, RuntimeSettings())


@pytest.fixture(scope="module")
def runtime():
    torch.manual_seed(3)
    network = HRNet(SPEC.width, len(SPEC.schema))
    for module in network.modules():
        if isinstance(module, torch.nn.Conv2d):
            # The official start gives heatmaps of nearly 0, which would hide every difference.
            torch.nn.init.xavier_uniform_(module.weight)
    return build(network)


def test_heatmaps_are_those_of_the_network_on_normalised_pixels(runtime):
    crops = random_crops(2)
    pixels = [normalize(to_tensor(crop), IMAGENET_MEAN_RGB, IMAGENET_STD_RGB) for crop in crops]
    with torch.inference_mode():
        expected = runtime.network(torch.stack(pixels)).numpy()
    heatmaps = runtime(crops)
    assert heatmaps.dtype == np.float32
    assert heatmaps.shape == (2, 17, HEIGHT // 4, WIDTH // 4)
    assert 1 < np.abs(expected).max() < 1000
    # The memory layout may choose another convolution kernel: float32 rounding over 100 layers,
    # seen to be 3e-6 of the largest value.
    np.testing.assert_allclose(heatmaps, expected, rtol=0, atol=3e-5 * np.abs(expected).max())


def test_pixels_are_exactly_those_of_torchvision(runtime):
    crops = random_crops(1)
    reference = normalize(to_tensor(crops[0]), IMAGENET_MEAN_RGB, IMAGENET_STD_RGB)
    # The same three operations in the same order: not one bit of difference.
    assert torch.equal(runtime.normalise(crops)[0], reference)


def test_mean_and_deviation_come_from_the_description():
    spec = ModelSpec("tiny", 4, (32, 32), "msra", SPEC.schema, (0.5, 0.0, 0.25), (0.5, 1.0, 0.25))
    runtime = build(HRNet(4, 17), spec)
    pixels = runtime.normalise(np.full((1, 32, 32, 3), 255, np.uint8))
    assert pixels[0, :, 0, 0].tolist() == [1.0, 1.0, 3.0]


def test_pixels_equal_the_reference_preprocessing(runtime, golden):
    reference = golden("preprocess.npz")
    crop = reference["s192x256_crops_rgb_u8"][1]
    pixels = runtime.normalise(crop[None])[0]
    # Values of up to 2.7, float32.
    np.testing.assert_allclose(pixels, reference["s192x256_tensor_crop1"], rtol=0, atol=1e-6)


def test_a_batch_equals_its_crops_one_by_one(runtime):
    crops = random_crops(3)
    singly = np.concatenate([runtime(crop[None]) for crop in crops])
    # Kernels may sum in another order for another batch size: rounding as above.
    np.testing.assert_allclose(runtime(crops), singly, rtol=0, atol=3e-5 * np.abs(singly).max())


def test_nobody_gives_no_heatmaps(runtime):
    heatmaps = runtime(random_crops(0))
    assert heatmaps.shape == (0, 17, HEIGHT // 4, WIDTH // 4)
    assert heatmaps.dtype == np.float32


@pytest.mark.parametrize(
    "view",
    [
        lambda crops: np.broadcast_to(crops, crops.shape),
        lambda crops: np.flip(np.flip(crops, axis=2).copy(), axis=2),
    ],
    ids=["read-only", "negative strides"],
)
@pytest.mark.filterwarnings("error")
def test_any_memory_layout_is_taken_and_left_alone(runtime, view):
    crops = random_crops(1)
    heatmaps = runtime(view(crops))
    np.testing.assert_array_equal(heatmaps, runtime(crops))
    np.testing.assert_array_equal(crops, random_crops(1))


def test_training_mode_is_left():
    # In training mode batch norm would use the statistics of the batch and change its buffers.
    network = HRNet(4, 17).train()
    before = network.bn1.running_mean.clone()
    TorchEager(network, SPEC, "cpu")(random_crops(2))
    assert not network.training
    assert torch.equal(network.bn1.running_mean, before)


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
    with pytest.raises(ValueError, match=r"crops_BHW3: expected \(B, 64, 96, 3\) uint8, got"):
        runtime(crops)


def test_a_full_card_is_an_error_with_advice():
    class FullCard(torch.nn.Module):
        def forward(self, _pixels):
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")

    runtime = build(FullCard())
    with pytest.raises(DeviceError) as caught:
        runtime(random_crops(2))
    assert caught.value.message == "cpu: out of memory for a batch of 2 crops of 64x96"
    assert caught.value.hint == "lower --batch-size, or use --device cpu"
    assert caught.value.exit_code == ExitCode.DEVICE
