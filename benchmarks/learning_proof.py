"""Does the training learn? A narrow HRNet on 16 photos until it knows them: AP near 1.

A wrong crop, target, mirror pair, decoding or score anywhere between labels and AP would keep the
network from getting there.

    python benchmarks/learning_proof.py --data COCO_FOLDER --out FOLDER

COCO_FOLDER holds annotations/person_keypoints_train2017.json and train2017/. Some minutes on two
CPU cores.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path

PHOTOS = 16
# People as large as this give a crop of 128x96 something to see.
SMALLEST_AREA = 96**2
RECIPE = """\
[model]
width = 16
input_hw = [128, 96]
codec = "dark"
start = "scratch"
sigma = 1.25

[augment]
# Only the side varies, for the flip test: the photos are to be learnt by heart.
scale = 0.0
rotation_prob = 0.0
half_body_prob = 0.0
flip_prob = 0.5

[optimizer]
learning_rate = 2e-3
learning_rate_batch = 16
epochs = {epochs}
schedule = "cosine"
warmup_steps = 50
ema = 0.99

[run]
batch_size = 16
eval_every = 50
seed = 0
"""


def main() -> None:
    """Write the subset, train, evaluate and print the AP."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    default = os.environ.get("HRNET_TEST_DATA", "data")
    parser.add_argument("--data", type=Path, default=Path(default) / "coco-mini")
    parser.add_argument("--out", type=Path, default=Path("hrnet-out/learning-proof"))
    parser.add_argument("--epochs", type=int, default=500)
    arguments = parser.parse_args()
    out: Path = arguments.out
    out.mkdir(parents=True, exist_ok=True)
    subset = write_subset(arguments.data, out)
    (out / "recipe.toml").write_text(RECIPE.format(epochs=arguments.epochs))
    began = time.monotonic()
    data = ["--dataset", subset, "--data", arguments.data / "train2017"]
    run(
        *("train", *data, "--val", subset, "--config", out / "recipe.toml"),
        *("--out", out / "run", "--overwrite"),
    )
    minutes = (time.monotonic() - began) / 60
    text = run(
        *("eval", *data, "--boxes", "gt", "--model", out / "run" / "best.safetensors", "--json"),
        *("--out", out / "eval", "--overwrite"),
    )
    (column,) = json.loads(text)["columns"]
    print(f"{PHOTOS} photos, {column['people']} people, {minutes:.1f} minutes of training")
    print(f"AP {column['AP']:.3f}, AP50 {column['AP50']:.3f}, AP75 {column['AP75']:.3f}")


def write_subset(data: Path, out: Path) -> Path:
    """Write the labels of the first photos whose labelled people are all large, and return it."""
    labels = json.loads((data / "annotations" / "person_keypoints_train2017.json").read_text())
    people: dict[int, list[dict]] = {}
    for annotation in labels["annotations"]:
        people.setdefault(annotation["image_id"], []).append(annotation)
    large = [
        image
        for image in labels["images"]
        if image["id"] in people
        and all(
            one["area"] > SMALLEST_AREA and one["num_keypoints"] > 4 for one in people[image["id"]]
        )
    ]
    chosen = large[:PHOTOS]
    ids = {image["id"] for image in chosen}
    labels["images"] = chosen
    labels["annotations"] = [one for one in labels["annotations"] if one["image_id"] in ids]
    path = out / "sixteen.json"
    path.write_text(json.dumps(labels))
    return path


def run(*words: object) -> str:
    """Run `hrnet`, its messages shown, and return what it prints."""
    command = [sys.executable, "-m", "hrnet_cli", *map(str, words)]
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout


if __name__ == "__main__":
    main()
