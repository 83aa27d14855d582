"""Passes recorded as CUDA graphs, which the host starts with one call instead of thousands.

A graph repeats the same kernels on the same memory: it serves all passes of one shape, which differ only in their inputs.
"""

from collections.abc import Callable, Hashable
from contextlib import suppress
from typing import NamedTuple

import torch
from torch import Tensor

_MOST = 128  # recordings; there are some thirty shapes, and a cache that moves needs new recordings of all


class _Recording(NamedTuple):
    inputs: Tensor
    output: Tensor
    graph: torch.cuda.CUDAGraph


class Recorder:
    """Runs passes on a CUDA device, and records those whose shape occurs again."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._seen: set[Hashable] = set()
        self._recordings: dict[Hashable, _Recording] = {}

    def forget(self) -> None:
        """Free the memory of all recordings."""
        self._recordings.clear()

    def run(self, shape: Hashable, inputs: Tensor, run: Callable[[Tensor], Tensor]) -> Tensor:
        """The output of a pass. The next pass of the same shape may overwrite it.

        Args:
            shape: Everything that decides which kernels run on which memory, except the values of the inputs.
            inputs: The inputs in the host's memory; passes of one shape have equally many.
            run: Runs the pass on inputs on the device.
        """
        # A shape's first pass is not recorded: kernels are loaded in it, which a recording does not allow.
        if shape not in self._seen:
            self._seen.add(shape)
            return run(inputs.to(self._device, non_blocking=True))
        if shape not in self._recordings:
            if len(self._recordings) == _MOST:
                self.forget()
            own = inputs.to(self._device)
            shared = next((one.graph for one in self._recordings.values()), None)
            self._recordings[shape] = _Recording(own, *_record(lambda: run(own), shared))
        recording = self._recordings[shape]
        recording.inputs.copy_(inputs, non_blocking=True)
        recording.graph.replay()
        return recording.output


def _record(run: Callable[[], Tensor], shared: torch.cuda.CUDAGraph | None) -> tuple[Tensor, torch.cuda.CUDAGraph]:
    """Record a pass without running it; return its output tensor and its graph. Graphs that run in turns can share memory."""
    graph = torch.cuda.CUDAGraph()
    here, aside = torch.cuda.current_stream(), torch.cuda.Stream()
    aside.wait_stream(here)
    with torch.cuda.stream(aside):
        # Not `torch.cuda.graph`, which empties torch's cache of memory each time. Other threads may go on meanwhile.
        graph.capture_begin(pool=shared.pool() if shared else None, capture_error_mode="thread_local")
        try:
            output = run()
        except BaseException:
            with suppress(RuntimeError):  # the capture has failed too; the cause is the first error
                graph.capture_end()
            raise
        graph.capture_end()
    here.wait_stream(aside)
    return output, graph
