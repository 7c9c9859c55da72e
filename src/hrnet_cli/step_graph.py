"""The forward and backward pass of training steps, recorded once on a CUDA device and played back.

An HRNet's step is some thousands of small operations; started one by one they can keep a processor
busy for longer than a GPU. A CUDA graph starts all of them at once.
"""

from collections.abc import Callable, Iterable

import torch

# PyTorch wants some runs before a recording, in which libraries set themselves up.
WARM_UPS = 2


class StepGraph:
    """Loss and gradients of inputs of one size.

    Batch statistics see the first inputs some times more than others.

    Args:
        loss_of: Returns a scalar of the inputs, by operations that need nothing of the processor.
        parameters: Those that get gradients.
        inputs: Tensors on the device, of the size and layout of all to come.
    """

    def __init__(
        self,
        loss_of: Callable[..., torch.Tensor],
        parameters: Iterable[torch.nn.Parameter],
        inputs: tuple[torch.Tensor, ...],
    ) -> None:
        self._inputs = tuple(tensor.clone() for tensor in inputs)
        self._parameters = [p for p in parameters if p.requires_grad]
        # Streams and recordings are of the current device, which need not be that of the run.
        with torch.cuda.device(inputs[0].device):
            self._record(loss_of)
        self._gradients = [p.grad for p in self._parameters]

    def __call__(self, inputs: tuple[torch.Tensor, ...]) -> torch.Tensor:
        """Return the loss of inputs, and leave the gradients in the parameters."""
        for mine, given in zip(self._inputs, inputs, strict=True):
            mine.copy_(given)
        self._graph.replay()
        for parameter, gradient in zip(self._parameters, self._gradients, strict=True):
            parameter.grad = gradient
        return self._loss.detach().clone()

    def _record(self, loss_of: Callable[..., torch.Tensor]) -> None:
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(WARM_UPS):
                self._forget_gradients()
                loss_of(*self._inputs).backward()
        torch.cuda.current_stream().wait_stream(stream)
        # Without any, a backward pass makes its own, in the graph's memory.
        self._forget_gradients()
        self._graph = torch.cuda.CUDAGraph()
        # Another thread brings the next samples meanwhile.
        with torch.cuda.graph(self._graph, stream=stream, capture_error_mode="thread_local"):
            self._loss = loss_of(*self._inputs)
            self._loss.backward()

    def _forget_gradients(self) -> None:
        for parameter in self._parameters:
            parameter.grad = None
