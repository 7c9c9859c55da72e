"""LibreYOLO's HRNet in its own environment, spoken to by lines: benchmarks/runtimes.py starts it.

    PYTHON libreyolo_loop.py IMAGE.npy BOXES.npy

Each line on standard input is one run over the image's boxes; each answer its seconds of the clock
and of the processor. The network is W32 at 256x192 with the random weights it is built with.
"""

import contextlib
import sys
import time

import numpy as np
from libreyolo.models.hrnet.model import LibreHRNet


def main() -> None:
    """Build, then run and answer line by line."""
    image_HW3, boxes_N4 = (np.load(path) for path in sys.argv[1:])
    with contextlib.redirect_stdout(sys.stderr):
        model = LibreHRNet(size="w32", device="cpu", task="pose")
    print("ready", flush=True)
    for _ in sys.stdin:
        start, used = time.perf_counter(), time.process_time()
        with contextlib.redirect_stdout(sys.stderr):
            model(image_HW3, person_boxes=boxes_N4, color_format="bgr")
        print(time.perf_counter() - start, time.process_time() - used, flush=True)


if __name__ == "__main__":
    main()
