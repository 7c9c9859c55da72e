"""What a CUDA device computes is what the CPU computes."""

import numpy as np
import pytest
import torch

from fakes import make_spec
from hrnet_cli import geometry, load_model, read_image
from hrnet_cli.models.hrnet import HRNet
from hrnet_cli.runtimes import RuntimeSettings, fusing, torch_people
from hrnet_cli.runtimes.torch_eager import TorchEager, open_folded, prepare

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")


def test_cuda_finds_the_keypoints_the_cpu_finds(request):
    image, _ = read_image(request.config.rootpath / "examples" / "astronaut.jpg")
    boxes = [[11, 15, 364, 512], [100, 0, 300, 300]]
    on_cpu = load_model("starter", device="cpu", flip_test=True)(image, boxes)
    on_cuda = load_model("starter", device="cuda", flip_test=True)(image, boxes)
    # Both compute in float32 (`keep_precision` leaves TF32 out). Crops differ by a grey level in
    # less than one of 2000 values, which was seen to move scores by 0.0002 and keypoints that are
    # seen at all by 0.02 pixels of the photo.
    np.testing.assert_allclose(on_cuda.scores_NK, on_cpu.scores_NK, atol=0.001)
    seen = on_cpu.scores_NK > 0.3
    assert seen.sum() > 5
    np.testing.assert_allclose(on_cuda.keypoints_NK2[seen], on_cpu.keypoints_NK2[seen], atol=0.1)


def test_photos_on_cuda_give_the_crops_and_poses_of_the_processor(request):
    image, _ = read_image(request.config.rootpath / "examples" / "astronaut.jpg")
    centers, sizes = geometry.crop_boxes([[11, 15, 364, 512], [100, 0, 300, 300]], (128, 96))
    matrices = geometry.crop_matrices(centers, sizes, (128, 96), "dark")
    expected = geometry.warp_crops(image, matrices, (128, 96))
    found = torch_people.warp_crops([image], np.zeros(2, int), matrices, (128, 96), "cuda")
    assert np.abs(found.cpu().numpy().astype(int) - expected).max() <= 1
    estimator = load_model("starter", device="cuda", runtime="torch")
    boxes = [[11, 15, 364, 512], [100, 0, 300, 300]]
    whole = estimator(image, boxes)
    estimator._find_people = None  # crops and heatmaps travel
    parts = estimator(image, boxes)
    seen = parts.scores_NK > 0.3
    assert seen.sum() > 5
    np.testing.assert_allclose(whole.keypoints_NK2[seen], parts.keypoints_NK2[seen], atol=0.1)


@pytest.mark.parametrize(
    ("precision", "tolerance"), [("fp32", 1e-4), ("bf16", 5e-2), ("fp16", 1e-2)]
)
def test_fused_and_recorded_networks_compute_the_same(precision, tolerance):
    torch.manual_seed(0)
    network = HRNet(16, 17).eval()
    for module in network.modules():
        if isinstance(module, torch.nn.Conv2d):
            torch.nn.init.xavier_uniform_(module.weight)
    spec = make_spec()
    settings = RuntimeSettings(device="cuda", precision=precision)
    plain = TorchEager(prepare(network, settings), spec, "cuda", precision)
    runtime = open_folded(network, spec, settings)
    kinds = [type(module) for module in runtime.network.modules()]
    assert kinds.count(fusing.CudaFusedConv) > 200
    crops = np.random.default_rng(0).integers(0, 256, (5, 128, 96, 3), np.uint8)
    wanted = plain(crops)
    largest = np.abs(wanted).max()
    for _ in range(3):  # as it comes, recorded, played back
        assert np.abs(runtime(crops) - wanted).max() <= tolerance * largest
        assert np.abs(runtime(crops[::-1]) - wanted[::-1]).max() <= tolerance * largest
    assert runtime.network._recordings[6] is not None
