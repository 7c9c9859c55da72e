"""Signals after OpenVINO graphs have come and gone: the process goes on."""

import importlib.util
import subprocess
import sys

import pytest

if importlib.util.find_spec("openvino") is None:
    pytest.skip("openvino is not installed", allow_module_level=True)

# Two graphs live at a time and the first goes first; afterwards a handled signal needs a stack.
SCRIPT = """
import faulthandler, gc, os, signal
import numpy as np
import openvino as ov
from openvino import opset13 as ops
from hrnet_cli.engines import open_openvino

faulthandler.enable()
heard = []
signal.signal(signal.SIGUSR1, lambda *_: heard.append(1))

def graph():
    given = ops.parameter([1, 8], dtype=np.float32)
    model = ov.Model([ops.relu(given)], [given])
    return open_openvino(model, precision="fp32", threads=1, wanted_by="a test")

for _ in range(3):
    first, second = graph(), graph()
    del first
    gc.collect()
    del second
    gc.collect()
    os.kill(os.getpid(), signal.SIGUSR1)
print("heard", len(heard))
"""


@pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")
def test_a_signal_after_graphs_have_gone_is_heard():
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == "heard 3\n"
