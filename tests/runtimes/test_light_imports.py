"""A run with exported files imports nothing that it does not need, and finds the same people."""

import json
import subprocess
import sys

import pytest
from PIL import Image

from exported_models import save_checkpoint, save_yolo
from hrnet_cli.exporting import ExportMaterial, ExportWish, export_model
from hrnet_cli.model_crops import PARTS, installed_photos, photo_crops
from hrnet_cli.optional_packages import is_installed
from hrnet_cli.runtimes import RUNTIMES

HEAVY = {"torch", "torchvision", "ultralytics", "matplotlib", "pycocotools", "onnx", "av", "scipy"}
PROGRAM = """
import json, sys
from hrnet_cli.cli import app
try:
    sys.exit(app(sys.argv[1:], standalone_mode=False))
finally:
    modules = sorted({name.split(".")[0] for name in sys.modules})
    print("MODULES" + json.dumps(modules))
"""


def detect(*arguments, folder):
    """Return the modules that a run imported, what it said, and its records."""
    words = ["detect", "photo.png", *map(str, arguments), "--out", "out", "--overwrite"]
    result = subprocess.run(
        [sys.executable, "-c", PROGRAM, *words],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert result.returncode == 0, result.stderr
    printed, _, listed = result.stdout.partition("MODULES")
    assert not printed, "stdout is for records, whatever an engine says"
    modules = set(json.loads(listed))
    lines = (folder / "out" / "poses.jsonl").read_text().splitlines()
    return modules, result.stderr, [json.loads(line) for line in lines]


def needs(target):
    """Skip where a package that writes or runs a target is not installed."""
    for package in RUNTIMES[target].packages:
        if not is_installed(package):
            pytest.skip(f"{package} is not installed")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A photo, a checkpoint, its exports and an exported detector."""
    folder = tmp_path_factory.mktemp("run")
    checkpoint = save_checkpoint(folder / "tiny.safetensors")
    material = ExportMaterial(lambda spec: photo_crops(installed_photos()[:1], spec, 2, PARTS))
    for target in ("onnx", "openvino", "mnn"):
        needs(target)
        out = folder / ExportWish(target).default_path("tiny")
        export_model(checkpoint, None, ExportWish(target), out, material)
    save_yolo(folder / "detector.onnx")
    with Image.open(installed_photos()[0]) as photo:
        photo.convert("RGB").resize((96, 128)).save(folder / "photo.png")
    return folder


@pytest.mark.parametrize(
    ("model", "engine"),
    [("tiny.onnx", "onnxruntime"), ("tiny_openvino", "openvino"), ("tiny.mnn", "MNN")],
)
def test_exported_models_need_no_torch(folder, model, engine):
    detector = ("--detector", "detector.onnx", "--max-people", 2, "--person-threshold", 0)
    modules, said, records = detect("--model", model, *detector, folder=folder)
    assert not modules & HEAVY
    assert engine in modules
    name = {"onnxruntime": "onnx", "MNN": "mnn"}.get(engine, engine)
    assert f"model tiny: 17 keypoints (coco17), input 64x32, {name} fp32, an exported file" in said
    assert len(records[0]["people"]) == 2


@pytest.mark.skipif(sys.platform == "win32", reason="a shell of Unix closes stdout")
@pytest.mark.parametrize("model", ["tiny.onnx", "tiny.mnn"])
def test_closed_stdout_is_no_obstacle(folder, model):
    words = f"detect photo.png --model {model} --detector whole-image --out closed --overwrite -q"
    result = subprocess.run(
        ["/bin/sh", "-c", f'exec "$0" -m hrnet_cli {words} >&-', sys.executable],
        cwd=folder,
        stderr=subprocess.PIPE,
        text=True,
        timeout=300,
    )
    assert (result.returncode, result.stderr) == (0, "")
    assert len((folder / "closed" / "poses.jsonl").read_text().splitlines()) == 1


def test_a_checkpoint_needs_torch_once(folder, tmp_path, monkeypatch):
    monkeypatch.setenv("HRNET_HOME", str(tmp_path))
    run = ("--model", "tiny.safetensors", "--detector", "whole-image", "--runtime", "openvino")
    first, _, made = detect(*run, folder=folder)
    second, said, found = detect(*run, folder=folder)
    assert "torch" in first
    assert not second & HEAVY
    assert "openvino fp32, loaded 1754 of 1754 tensors" in said
    assert found == made
