"""Train the starter person detector: a YOLO nano with fresh weights, by ultralytics.

    python starter/train_detector.py --data starter-data/detector/detector.yaml --hours 1
    python starter/train_detector.py ... --from starter-detector   # goes on from the model shipped
    python starter/train_detector.py ... --device cuda --batch 64 --workers 10 --hours 0.14

Written: `train/` (ultralytics' own folder, with results.csv) and `starter-detector.safetensors`,
the averaged weights in half precision with what opens them again, and no pickle.
"""

import argparse
import math
import time
from pathlib import Path
from typing import Any

from hrnet_cli import weights
from hrnet_cli.detectors.stored_yolo import StoredYolo, read_stored_yolo, save_stored_yolo
from hrnet_cli.detectors.yolo import build_stored

ARCHITECTURE = "yolo11n.yaml"
USUAL_THRESHOLD = 0.25
WARMUP_STEPS, STEPS_OF_A_ROW = 100, 25
# Part of the time after which photos come alone, as they do later in use.
SINGLE_FROM = 0.88
LICENCE = "AGPL-3.0 (architecture and training code: ultralytics); photos: research use"
PROVENANCE = "LSPET and COCO train2017 photos, fresh weights; see the model card"


def main() -> None:
    """Train and export."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, default=Path("starter-detector"))
    parser.add_argument("--from", dest="start", default=ARCHITECTURE)
    parser.add_argument("--hours", type=float, default=1.0)
    parser.add_argument("--train-size", type=int, default=192)
    parser.add_argument("--input-size", type=int, default=256, help="stored for detection")
    parser.add_argument("--learning-rate", type=float, default=2e-3)
    parser.add_argument(
        "--sure", type=float, default=USUAL_THRESHOLD, help="score that is stored as 0.25"
    )
    parser.add_argument("--iou", type=float, default=0.45, help="overlap of boxes, stored")
    parser.add_argument("--device", default="cpu", help="cpu, cuda or cuda:1")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--workers", type=int, default=0, help="processes that read photos")
    parser.add_argument("--export-only", action="store_true")
    arguments = parser.parse_args()
    out: Path = arguments.out.resolve()
    if not arguments.export_only:
        train(arguments, out)
    export(out, arguments.input_size, arguments.sure, arguments.iou)


def train(arguments: argparse.Namespace, out: Path) -> None:
    """Train for the hours given, photos in mosaics of four until `SINGLE_FROM`."""
    model = open_start(arguments.start)
    pace = Pace(arguments.learning_rate, 3600 * arguments.hours, arguments.batch, out)
    on_gpu = arguments.device.startswith("cuda")
    model.add_callback("on_train_start", pace.begin)
    model.add_callback("on_train_epoch_start", pace.before_epoch)
    model.add_callback("on_train_batch_start", pace.before_batch)
    model.add_callback("on_train_batch_end", pace.after_batch)
    model.train(
        data=str(arguments.data),
        project=str(out),
        name="train",
        exist_ok=True,
        device=arguments.device.removeprefix("cuda:").replace("cuda", "0"),
        # More than there is time for: the time ends it.
        epochs=1000,
        time=arguments.hours,
        imgsz=arguments.train_size,
        batch=arguments.batch,
        nbs=arguments.batch,
        workers=arguments.workers,
        # A GPU waits for the photos: they are decoded once, and measured at the end only.
        cache="ram" if on_gpu else False,
        val=not on_gpu,
        single_cls=True,
        amp="bf16" if on_gpu else False,
        plots=False,
        pretrained=arguments.start != ARCHITECTURE,
        optimizer="AdamW",
        lr0=arguments.learning_rate,
        warmup_epochs=0,
        weight_decay=0.01,
        close_mosaic=0,
        scale=0.6,
        degrees=5.0,
        deterministic=False,
        patience=0,
    )


def open_start(start: str) -> Any:  # noqa: ANN401 - ultralytics is not typed
    """Return the model to train: fresh, a file of ultralytics or of this project, or shipped."""
    import quiet_yolo

    if start == weights.STARTER_DETECTOR:
        start = str(weights.stored_path(weights.find_entry(start)))
    if not start.endswith(".safetensors"):
        return quiet_yolo.load(start)
    model = build_stored(quiet_yolo.YOLO, read_stored_yolo(Path(start)))
    # ultralytics goes on from a model's weights only where they came from a checkpoint.
    model.ckpt = {"model": model.model}
    return model


class Pace:
    """Learning rate by the time that has passed, for epochs are too long to step it by them.

    Args:
        rate: Highest learning rate.
        seconds: Of the whole training.
        batch: Photos in a step.
        out: Folder that gets `curve.csv`.
    """

    def __init__(self, rate: float, seconds: float, batch: int, out: Path) -> None:
        self._rate = rate
        self._seconds = seconds
        self._batch = batch
        self._curve = out / "curve.csv"
        self._begun = 0.0
        self._steps = 0
        self._mosaics = True
        self._losses: list[list[float]] = []

    def begin(self, _trainer: Any) -> None:  # noqa: ANN401 - ultralytics is not typed
        """Start the clock."""
        self._begun = time.monotonic()
        self._curve.write_text("seconds,photos,learning_rate,box_loss,cls_loss,dfl_loss\n")

    def before_epoch(self, trainer: Any) -> None:  # noqa: ANN401
        """Tell processes that read photos of the end of the mosaics: they know an older dataset."""
        if not self._mosaics and trainer.args.workers:
            trainer.train_loader.reset()

    def before_batch(self, trainer: Any) -> None:  # noqa: ANN401
        """Set the learning rate, and end the mosaics when it is time."""
        done = min(1.0, (time.monotonic() - self._begun) / self._seconds)
        for group in trainer.optimizer.param_groups:
            group["lr"] = self._rate * rate_factor(self._steps, done)
        if self._mosaics and done > SINGLE_FROM:
            self._mosaics = False
            trainer._close_dataloader_mosaic()

    def after_batch(self, trainer: Any) -> None:  # noqa: ANN401
        """Write the mean losses of some steps."""
        self._steps += 1
        self._losses.append([float(value) for value in trainer.loss_items.values()])
        if len(self._losses) < STEPS_OF_A_ROW:
            return
        means = [sum(column) / len(column) for column in zip(*self._losses, strict=True)]
        self._losses = []
        rate = trainer.optimizer.param_groups[0]["lr"]
        row = [time.monotonic() - self._begun, self._steps * self._batch, rate, *means]
        with self._curve.open("a") as file:
            file.write(",".join(f"{value:.6g}" for value in row) + "\n")


def rate_factor(steps: int, done: float) -> float:
    """Return what the learning rate is multiplied by: a warm-up, then a cosine to one fiftieth."""
    fall = (1 + math.cos(math.pi * done)) / 2
    return min(1.0, (steps + 1) / WARMUP_STEPS) * (0.02 + 0.98 * fall)


def export(out: Path, input_size: int, sure: float, iou: float) -> None:
    """Write the last averaged weights as a file that `hrnet detect --detector` opens.

    A detector that is trained little is sure of little. All scores are raised alike, so that the
    one given becomes the threshold that `hrnet detect` has; their order stays. It also boxes one
    person twice more often than others do, so that its own overlap is stored.
    """
    import quiet_yolo

    network = quiet_yolo.load(out / "train" / "weights" / "last.pt").model.float().eval()
    for branch in network.model[-1].cv3:
        branch[-1].bias.data += logit(USUAL_THRESHOLD) - logit(sure)
    path = out / "starter-detector.safetensors"
    stored = StoredYolo(ARCHITECTURE, ("person",), input_size, network.state_dict(), iou)
    save_stored_yolo(path, stored, licence=LICENCE, provenance=PROVENANCE)
    print(f"wrote {path}, {path.stat().st_size / 1e6:.1f} MB")


def logit(score: float) -> float:
    """Return what the network adds up to before a score is made of it."""
    return math.log(score / (1 - score))


if __name__ == "__main__":
    main()
