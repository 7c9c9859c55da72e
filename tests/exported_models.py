"""Small models and exported files for tests."""

from pathlib import Path

import numpy as np
import torch

from hrnet_cli import checkpoint
from hrnet_cli.config import ModelSpec
from hrnet_cli.models.hrnet import HRNet
from hrnet_cli.schema import load_schema

INPUT_HW = (64, 32)
# Means and deviations of its own: a graph that assumes ImageNet's is found out.
SPEC = ModelSpec(
    "tiny", 4, INPUT_HW, "dark", load_schema("coco17"), (0.5, 0.3, 0.4), (0.2, 0.3, 0.25)
)


def random_crops(count, seed=5):
    generator = np.random.default_rng(seed)
    return generator.integers(0, 256, (count, *INPUT_HW, 3), dtype=np.uint8)


def lively_network() -> HRNet:
    """Return an untrained network whose heatmaps and batch norms are not nearly nothing."""
    generator = torch.Generator().manual_seed(3)
    network = HRNet(SPEC.width, len(SPEC.schema)).eval()
    for module in network.modules():
        if isinstance(module, torch.nn.Conv2d):
            torch.nn.init.xavier_uniform_(module.weight, generator=generator)
        if isinstance(module, torch.nn.BatchNorm2d):
            for tensor in (module.weight, module.running_var):
                tensor.data.uniform_(0.7, 1.3, generator=generator)
            for tensor in (module.bias, module.running_mean):
                tensor.data.uniform_(-0.2, 0.2, generator=generator)
    return network


def save_checkpoint(path: Path) -> Path:
    checkpoint.save_model(
        path, lively_network().state_dict(), SPEC, provenance="a test", licence="none"
    )
    return path


def worst(heatmaps, reference):
    """Return the largest difference as a share of the highest peak."""
    return np.abs(heatmaps - reference).max() / np.abs(reference).max()


def save_yolo(path: Path, *, side=64, batch=1, half=False, **metadata) -> Path:
    """Write an ONNX file shaped like ultralytics' exports, of an untrained network.

    Each of its places has a middle anywhere, sides of up to 40 pixels, and scores of 3 classes.
    """
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    kind = TensorProto.FLOAT16 if half else TensorProto.FLOAT
    dtype = np.float16 if half else np.float32
    generator = np.random.default_rng(0)
    places = (side // 8) ** 2
    weight = generator.normal(0, 0.5, (7, 3, 8, 8))
    arrays = {
        # Without a mean, so that no class is the likeliest everywhere.
        "weight": weight - weight.mean(axis=(1, 2, 3), keepdims=True),
        "scale": np.array([side, side, 40, 40, 1, 1, 1]).reshape(1, 7, 1),
    }
    nodes = [
        helper.make_node("Conv", ["images", "weight"], ["a"], strides=[8, 8]),
        helper.make_node("Sigmoid", ["a"], ["b"]),
        helper.make_node("Reshape", ["b", "shape"], ["c"]),
        helper.make_node("Mul", ["c", "scale"], ["output0"]),
    ]
    constants = [numpy_helper.from_array(a.astype(dtype), name) for name, a in arrays.items()]
    constants.append(numpy_helper.from_array(np.array([batch, 7, places], np.int64), "shape"))
    graph = helper.make_graph(
        nodes,
        "yolo",
        [helper.make_tensor_value_info("images", kind, [batch, 3, side, side])],
        [helper.make_tensor_value_info("output0", kind, [batch, 7, places])],
        constants,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    names = "{0: 'person', 1: 'bicycle', 2: 'horse'}"
    facts = {"names": names, "stride": "32", "task": "detect"} | metadata
    helper.set_model_props(model, {key: text for key, text in facts.items() if text is not None})
    onnx.save(model, path)
    return path
