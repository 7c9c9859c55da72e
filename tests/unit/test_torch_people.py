"""Crops, peaks and keypoints made by torch are those made by OpenCV and NumPy."""

import threading

import numpy as np
import pytest
import torch

from hrnet_cli import geometry, heatmap
from hrnet_cli.config import CODECS, ModelSpec
from hrnet_cli.estimator import PoseEstimator
from hrnet_cli.models.hrnet import HRNet
from hrnet_cli.runtimes import RuntimeSettings, torch_people
from hrnet_cli.runtimes.torch_eager import TorchEager, keep_precision
from hrnet_cli.schema import load_schema
from hrnet_cli.structures import Boxes

INPUT_HW = (96, 64)


def make_spec(codec: str, input_hw: tuple[int, int] = INPUT_HW) -> ModelSpec:
    return ModelSpec("tiny", 16, input_hw, codec, load_schema("coco17"))


def lively_network() -> HRNet:
    """Return a network whose heatmaps have clear peaks, also without training."""
    torch.manual_seed(0)
    network = HRNet(8, 17).eval()
    for module in network.modules():
        if isinstance(module, torch.nn.Conv2d):
            torch.nn.init.xavier_uniform_(module.weight)
    return network


def smooth_picture(height: int, width: int, seed: int = 0) -> np.ndarray:
    rows, columns = np.mgrid[:height, :width]
    waves = [np.sin(rows / (5 + c) + seed) * np.cos(columns / (7 + c)) for c in range(3)]
    return np.round(127.5 + 120 * np.stack(waves, axis=-1)).astype(np.uint8)


@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize("size_hw", [(480, 640), (1, 300), (300, 1), (4000, 90)])
def test_crops_are_those_of_opencv_to_a_grey_level(codec, size_hw):
    images = [smooth_picture(*size_hw), smooth_picture(200, 150, seed=1)]
    height, width = size_hw
    boxes = [
        [0, 0, width, height],
        [width * 0.3, height * 0.2, width * 0.8, height * 0.9],
        [-40, -60, width / 2, height / 2],
        [width - 5, height - 5, width + 30, height + 80],
        [20, 30, 90, 160],
    ]
    pictures = np.array([0, 0, 0, 0, 1])
    centers, sizes = geometry.crop_boxes(boxes, INPUT_HW)
    angles = [0, 0, 30, 0, -10]
    matrices = geometry.crop_matrices(centers, sizes, INPUT_HW, codec, angles)
    found = torch_people.warp_crops(images, pictures, matrices, INPUT_HW, "cpu").numpy()
    for picture in (0, 1):
        mine = pictures == picture
        expected = geometry.warp_crops(images[picture], matrices[mine], INPUT_HW)
        difference = np.abs(found[mine].astype(int) - expected)
        assert difference.max() <= 1
        assert (difference > 0).mean() < 0.05


@pytest.mark.parametrize("reach", [1, 4, 9])
def test_peaks_and_squares_are_those_of_numpy(reach):
    maps = np.random.default_rng(0).integers(-9, 10, (3, 5, 12, 9)).astype(np.float32)
    maps[0, 0] = -1
    maps[1, 1] = 0
    maps[2, 2] = 3  # all equal: the first counts
    maps[0, 3, 0, 0], maps[0, 4, 11, 8] = 20, 20
    peaks, scores = heatmap.find_peaks(maps)
    found_peaks, found_scores = torch_people.find_peaks(torch.from_numpy(maps))
    np.testing.assert_array_equal(found_peaks, peaks)
    np.testing.assert_array_equal(found_scores, scores)
    np.testing.assert_array_equal(
        torch_people.read_squares(torch.from_numpy(maps), found_peaks, reach),
        heatmap.read_squares(maps, peaks, reach),
    )


@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize("flip_test", [False, True])
@pytest.mark.parametrize("batch_size", [2, 32])
def test_poses_are_those_of_the_processor(codec, flip_test, batch_size):
    spec = make_spec(codec)
    network = lively_network()
    runtime = TorchEager(network, spec, "cpu")
    images = [smooth_picture(300, 400), smooth_picture(90, 80), smooth_picture(200, 150, seed=1)]
    boxes = [
        Boxes(np.array([[50, 40, 150, 260], [200, 10, 330, 280.0]]), np.array([0.9, 0.8])),
        Boxes.empty(),
        Boxes(np.array([[10, 10, 140, 190.0]]), np.array([0.7])),
    ]
    settings = {"batch_size": batch_size, "flip_test": flip_test}
    expected = PoseEstimator(runtime, spec, **settings).estimate(images, boxes)
    assert runtime.find_people is None  # OpenCV is faster on a processor

    def find(images, pictures, matrices, flip):
        crops = [
            geometry.warp_crops(images[picture], matrix[None], spec.input_hw)
            for picture, matrix in zip(pictures, matrices, strict=True)
        ]
        # The same crops: a grey level more would move the peaks of an untrained network.
        return torch_people.find_keypoints(
            network, torch.from_numpy(np.concatenate(crops)), spec, torch.float32, flip_test=flip
        )

    runtime.find_people = find
    found = PoseEstimator(runtime, spec, **settings).estimate(images, boxes)
    assert [len(poses) for poses in found] == [2, 0, 1]
    for ours, theirs in zip(found, expected, strict=True):
        np.testing.assert_allclose(ours.keypoints_NK2, theirs.keypoints_NK2, atol=1e-2)
        np.testing.assert_allclose(ours.scores_NK, theirs.scores_NK, atol=1e-6)
        np.testing.assert_allclose(ours.person_scores_N, theirs.person_scores_N, atol=1e-6)


def test_a_gpu_is_given_people_whole():
    spec = make_spec("msra")
    network, turn = torch.nn.Identity(), threading.Lock()
    assert torch_people.people_finder(network, spec, "cpu", torch.float32, turn) is None
    assert torch_people.people_finder(network, spec, "cuda:1", torch.float32, turn)


@pytest.mark.parametrize(
    ("device", "precision", "allowed"),
    [("cuda:0", "fp32", False), ("cuda", "bf16", True), ("cpu", "fp32", True)],
)
def test_float32_on_a_gpu_is_float32(monkeypatch, device, precision, allowed):
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", True)
    keep_precision(RuntimeSettings(device, precision))
    assert torch.backends.cudnn.allow_tf32 is allowed
