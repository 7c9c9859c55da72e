"""rtmlib at work in its own environment, spoken to by lines: benchmarks/runtimes.py starts it.

    PYTHON rtmlib_loop.py MODEL.onnx IMAGE.npy BOXES.npy BACKEND

Each line on standard input is one run over the image's boxes; each answer its seconds of the clock
and of the processor. rtmlib's class for networks with heatmaps is ViTPose.
"""

import sys
import time

import numpy as np
from rtmlib import ViTPose


def main() -> None:
    """Load, then run and answer line by line."""
    model, image, boxes, backend = sys.argv[1:]
    image_HW3, boxes_N4 = np.load(image), np.load(boxes).tolist()
    network = ViTPose(model, (192, 256), backend=backend)
    print("ready", flush=True)
    for _ in sys.stdin:
        start, used = time.perf_counter(), time.process_time()
        network(image_HW3, boxes_N4)
        print(time.perf_counter() - start, time.process_time() - used, flush=True)


if __name__ == "__main__":
    main()
