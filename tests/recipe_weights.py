"""Network weights that the reference outputs were made with, worked out from parameter names."""

import zlib

import numpy as np
import torch

from hrnet_cli.checkpoint import load_weights
from hrnet_cli.models.hrnet import HRNet

# Gains of convolutions and of the last one, so that heatmaps keep a size of some units.
GAIN, GAIN_FINAL = 0.35, 1.0


def recipe_tensor(salt, key, shape):
    """Return the weight that the reference derives from a parameter's name."""
    leaf = key.rsplit(".", 1)[-1]
    if leaf == "num_batches_tracked":
        return torch.zeros((), dtype=torch.int64)
    seed = zlib.crc32(f"{salt}:{key}".encode())
    u = np.random.Generator(np.random.PCG64(seed)).random(int(np.prod(shape)))
    if len(shape) == 4:
        gain = GAIN_FINAL if key == "final_layer.weight" else GAIN
        values = (2 * u - 1) * np.sqrt(3 * gain / np.prod(shape[1:]))
    elif leaf in ("weight", "running_var"):
        values = 0.5 + u
    else:
        values = 0.2 * (u - 0.5)
    return torch.from_numpy(values.reshape(shape).astype(np.float32))


def recipe_network(salt, width, keypoints=17):
    """Return an HRNet with the reference's weights, in evaluation mode."""
    network = HRNet(width, keypoints).eval()
    state = {k: recipe_tensor(salt, k, tuple(t.shape)) for k, t in network.state_dict().items()}
    assert load_weights(network, state).complete
    return network
