"""A network recorded once for each size of batch, and played back without the processor's help.

An HRNet is some four hundred small steps, and starting them one by one takes the processor longer
than a GPU takes to do them for a video's few people. A CUDA graph starts all of them at once.

Shape letters: B crops, H W crop height and width.
"""

import logging
from dataclasses import dataclass

import torch
from torch import nn

from hrnet_cli.step_graph import WARM_UPS

log = logging.getLogger(__name__)

# Other sizes are filled up to the next of these with whatever was there before. Larger batches keep
# a GPU busy for longer than it takes to start them.
SIZES = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256)
# The first batch of a size is computed as it comes: a single photo is not worth a recording.
RECORDED_FROM = 2


@dataclass(frozen=True)
class Recording:
    """A network for one size of batch.

    Attributes:
        graph: What was recorded.
        pixels: What it reads.
        result: What it writes.
    """

    graph: torch.cuda.CUDAGraph
    pixels: torch.Tensor
    result: torch.Tensor


class CudaGraphs(nn.Module):
    """Plays recordings of a network, which are made as sizes of batches come up again.

    Args:
        network: On a CUDA device, without gradients: maps (B, 3, H, W) to one tensor, the same
            steps for any values.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network
        self._uses: dict[int, int] = {}
        self._recordings: dict[int, Recording | None] = {}
        self._pool = None

    def forward(self, pixels_B3HW: torch.Tensor) -> torch.Tensor:
        """Return the network's result; it is valid until the next call on the same stream."""
        count = len(pixels_B3HW)
        size = next((size for size in SIZES if size >= count), None)
        recording = None if size is None else self._recording(size, pixels_B3HW)
        if recording is None:
            return self.network(pixels_B3HW)
        recording.pixels[:count].copy_(pixels_B3HW)
        recording.graph.replay()
        return recording.result[:count]

    def _recording(self, size: int, pixels_B3HW: torch.Tensor) -> Recording | None:
        """Return the recording of a size; None while it is not worth one, or has none."""
        if size not in self._recordings:
            self._uses[size] = self._uses.get(size, 0) + 1
            if self._uses[size] < RECORDED_FROM:
                return None
            try:
                self._recordings[size] = self._record(size, pixels_B3HW)
            # Among them that of too little memory. What cannot be recorded is computed as it comes.
            except RuntimeError as error:
                log.debug("no CUDA graph for batches of %d: %s", size, error)
                self._recordings[size] = None
        return self._recordings[size]

    def _record(self, size: int, pixels_B3HW: torch.Tensor) -> Recording:
        with torch.cuda.device(pixels_B3HW.device):
            # All recordings share memory: none is played while another's result is still needed.
            self._pool = self._pool or torch.cuda.graph_pool_handle()
            height, width = pixels_B3HW.shape[2:]
            pixels = pixels_B3HW.new_zeros(size, height, width, 3).permute(0, 3, 1, 2)
            stream = torch.cuda.Stream()
            stream.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(stream):
                for _ in range(WARM_UPS):
                    self.network(pixels)
            torch.cuda.current_stream().wait_stream(stream)
            graph = torch.cuda.CUDAGraph()
            # Other threads may use the device meanwhile: a detector, say.
            with torch.cuda.graph(graph, self._pool, stream, capture_error_mode="thread_local"):
                result = self.network(pixels)
            return Recording(graph, pixels, result)
