"""What a CUDA device computes is what the CPU computes."""

import numpy as np
import pytest
import torch

from hrnet_cli import load_model, read_image

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")


def test_cuda_finds_the_keypoints_the_cpu_finds(request):
    image, _ = read_image(request.config.rootpath / "examples" / "astronaut.jpg")
    boxes = [[11, 15, 364, 512], [100, 0, 300, 300]]
    on_cpu = load_model("starter", device="cpu", flip_test=True)(image, boxes)
    on_cuda = load_model("starter", device="cuda", flip_test=True)(image, boxes)
    # Convolutions may use TF32, with 10 bits of mantissa: scores to 0.01, and keypoints that are
    # seen at all to a pixel of the 128x96 crop, which is about 5 pixels of the photo.
    np.testing.assert_allclose(on_cuda.scores_NK, on_cpu.scores_NK, atol=0.01)
    seen = on_cpu.scores_NK > 0.3
    assert seen.sum() > 5
    np.testing.assert_allclose(on_cuda.keypoints_NK2[seen], on_cpu.keypoints_NK2[seen], atol=5)
