"""Time until `hrnet --help` and `hrnet detect --help` are printed, against bare Python.

Run: python benchmarks/startup.py
"""

import statistics
import subprocess
import sys
import time
from pathlib import Path

HRNET = str(Path(sys.executable).with_name("hrnet"))
COMMANDS = {
    "python -c pass": [sys.executable, "-c", "pass"],
    "hrnet --help": [HRNET, "--help"],
    "hrnet detect --help": [HRNET, "detect", "--help"],
}
RUNS = 11


def main() -> None:
    """Run the commands in turn and print a markdown table of medians."""
    seconds = {name: [] for name in COMMANDS}
    for run in range(RUNS + 1):
        for name, command in COMMANDS.items():
            start = time.perf_counter()
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
            if run:  # the first round warms the disk cache
                seconds[name].append(time.perf_counter() - start)
    print("| command | median s | min s | max s |\n|---|---|---|---|")
    for name, values in seconds.items():
        print(
            f"| {name} | {statistics.median(values):.3f} | {min(values):.3f} | {max(values):.3f} |"
        )


if __name__ == "__main__":
    main()
